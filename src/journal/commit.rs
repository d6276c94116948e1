//! The write pattern: how a sealed group reaches the disk.
//!
//! Plain inserts in rising order, then removals from the tail of entries that *already synced* groups
//! made obsolete, then one sync, and never more than an eighth of a segment (accounted) between two
//! syncs. sled trusts what only `sync_file_range` has seen; un-synced writes that span more than two
//! neighbouring segments can destroy old data in a power cut. `docs/durability.md` has the trials.

use std::collections::VecDeque;

use super::Journal;
use super::entry::Sealed;
use crate::error::Result;
use crate::fault::{self, Bug};

/// Sizes that belong together; fixed when a store is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) segment_bytes: u32,
    /// The largest entry: 17 of them are less than a quarter of a segment, so that no leaf of sled's
    /// becomes a blob, which it never syncs.
    pub(crate) entry_cap: u32,
    /// Accounted bytes between two syncs: an eighth of a segment.
    pub(crate) sync_budget: u32,
}

impl Geometry {
    pub(crate) const DEFAULT: Geometry = Geometry {
        segment_bytes: 4 << 20,
        entry_cap: 56 << 10,
        sync_budget: 512 << 10,
    };

    /// What a new store is made with.
    pub(crate) fn of_new_stores() -> Geometry {
        let asked = fault::sizes().map(|[segment_bytes, entry_cap, sync_budget]| Geometry {
            segment_bytes,
            entry_cap,
            sync_budget,
        });
        asked.unwrap_or(Geometry::DEFAULT)
    }

    /// Bytes from which on a journal is large: so many segments are live that sled's own opening never
    /// finds its checked tail without a live page, which is where it is not power-safe (docs/durability.md).
    pub(crate) fn large_from(self) -> u64 {
        32 * u64::from(self.segment_bytes)
    }

    /// Why these sizes are none that a store is made with; `None` if they are.
    pub(crate) fn fault(self) -> Option<&'static str> {
        let Geometry {
            segment_bytes,
            entry_cap,
            sync_budget,
        } = self;
        if !segment_bytes.is_power_of_two() || !SEGMENT_BYTES.contains(&segment_bytes) {
            return Some("its segment size is out of range");
        }
        // J2, for every geometry.
        if !ENTRY_CAP.contains(&entry_cap) || 17 * entry_cap > segment_bytes / 4 {
            return Some("its largest entry is out of range");
        }
        // Far less than an entry, and nothing could ever be removed. Without a bound: the laboratory's sabotage.
        let has_room = u64::from(sync_budget) >= u64::from(entry_cap) * 16 / 10;
        if !has_room || (sync_budget > segment_bytes / 8 && sync_budget != u32::MAX) {
            return Some("its sync budget is out of range");
        }
        None
    }

    /// Bytes from which on an entry gets room of its own, see `leaves.rs`. What is smaller may be written some times:
    /// a leaf of 16 such is half an entry of the largest.
    pub(crate) fn large_entry(self) -> usize {
        self.entry_cap as usize / 32
    }

    /// What a removal counts against the budget: its records, and a tenth of a leaf of small entries.
    fn remove_cost(self) -> u64 {
        u64::from(self.entry_cap) / 16 + 512
    }
}

/// Segments that a store may have.
const SEGMENT_BYTES: std::ops::RangeInclusive<u32> = 64 << 10..=16 << 20;
/// Largest entries that a store may have: above a header, below what a place's offset can tell.
const ENTRY_CAP: std::ops::RangeInclusive<u32> = 512..=56 << 10;

const _: () = {
    let g = Geometry::DEFAULT;
    // J2: no change of a size can bring blobs about unnoticed.
    assert!(17 * g.entry_cap <= g.segment_bytes / 4);
    assert!(g.sync_budget * 8 <= g.segment_bytes);
};

/// What an insert of so many bytes counts against the budget: with the keys that are prepared for it.
fn insert_cost(bytes: usize) -> u64 {
    bytes as u64 + 1_024
}

/// Removals that may follow each insert, so that a steady load cannot outrun its own clean-up.
const REMOVES_PER_INSERT: usize = 2;

/// Writes a group and as many pending removals as fit; everything is synced on return. Returns the
/// number of syncs.
pub(crate) fn commit(
    journal: &mut dyn Journal,
    group: &[Sealed],
    removals: &mut VecDeque<u64>,
    geometry: Geometry,
) -> Result<u32> {
    let budget = match geometry.sync_budget {
        _ if fault::bug(Bug::NoSyncBudget) => u64::MAX,
        bytes => u64::from(bytes),
    };
    let mut entries = group.iter().peekable();
    let mut syncs = 0;
    loop {
        // J1: one round is what lies between two syncs, and what it spends stays within the budget.
        let mut spent = 0;
        let mut inserted = 0;
        while let Some(entry) = entries.peek() {
            let cost = insert_cost(entry.bytes.len());
            // Room for the removals that this insert brings along, unless that leaves no room at all.
            let brings = removals.len().min((inserted + 1) * REMOVES_PER_INSERT) as u64;
            if inserted > 0 && spent + cost + brings * geometry.remove_cost() > budget {
                break;
            }
            journal.append(entry.position, &entry.bytes)?;
            entries.next();
            spent += cost;
            inserted += 1;
        }
        while spent + geometry.remove_cost() <= budget
            && let Some(position) = removals.pop_front()
        {
            journal.remove(position)?;
            spent += geometry.remove_cost();
        }
        if spent > 0 {
            match journal.sync() {
                Err(_) if fault::bug(Bug::FailedSyncIgnored) => {}
                synced => synced?,
            }
            syncs += 1;
        }
        if entries.peek().is_none() {
            return Ok(syncs);
        }
    }
}

/// Removes entries and nothing else, within the budget, synced on return.
pub(crate) fn remove_all(
    journal: &mut dyn Journal,
    positions: impl IntoIterator<Item = u64>,
    geometry: Geometry,
) -> Result<()> {
    let mut removals: VecDeque<u64> = positions.into_iter().collect();
    while !removals.is_empty() {
        commit(journal, &[], &mut removals, geometry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::EntryBytes;
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Call {
        Append { position: u64, bytes: usize },
        Remove { position: u64 },
        Sync,
    }

    /// A journal that only notes what it is asked to write.
    #[derive(Default)]
    struct Notes(Vec<Call>);

    impl Journal for Notes {
        fn append(&mut self, position: u64, entry: &Arc<Vec<u8>>) -> Result<()> {
            let bytes = entry.len();
            self.0.push(Call::Append { position, bytes });
            Ok(())
        }

        fn remove(&mut self, position: u64) -> Result<()> {
            self.0.push(Call::Remove { position });
            Ok(())
        }

        fn sync(&mut self) -> Result<()> {
            self.0.push(Call::Sync);
            Ok(())
        }

        fn read(&mut self, _: u64) -> Result<Option<EntryBytes>> {
            unreachable!("writing reads nothing")
        }

        fn scan(
            &mut self,
            _: u64,
            _: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>,
        ) -> Result<()> {
            unreachable!("writing reads nothing")
        }

        fn scan_back(&mut self, _: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>) -> Result<()> {
            unreachable!("writing reads nothing")
        }

        fn positions_below(&mut self, _: u64) -> Result<Vec<u64>> {
            unreachable!("writing reads nothing")
        }

        fn bytes_on_disk(&self) -> u64 {
            unreachable!("writing reads nothing")
        }

        fn close(self: Box<Self>) -> Result<()> {
            unreachable!("nobody closes it")
        }
    }

    /// What was asked for between two syncs: inserts, then removals, within the budget. All of it is synced.
    fn parts(calls: &[Call], geometry: Geometry) -> Vec<&[Call]> {
        let Some((last, _)) = calls.split_last() else {
            return Vec::new();
        };
        assert_eq!(*last, Call::Sync, "not synced on return");
        let parts: Vec<_> = calls.split_inclusive(|call| *call == Call::Sync).collect();
        for part in &parts {
            let accounted: u64 = part.iter().map(|call| cost(*call, geometry)).sum();
            // An entry that alone is more than the budget has nobody to share it with.
            let alone = matches!(part, [Call::Append { .. }, Call::Sync]);
            let budget = u64::from(geometry.sync_budget);
            assert!(
                alone || accounted <= budget,
                "{accounted} of {budget}: {part:?}"
            );
            let order = |call: &Call| match call {
                Call::Append { .. } => 0,
                Call::Remove { .. } => 1,
                Call::Sync => 2,
            };
            assert!(
                part.is_sorted_by_key(order),
                "removals after inserts: {part:?}"
            );
            assert!(part.len() > 1, "a sync of nothing");
        }
        parts
    }

    /// Written out once more, as `docs/ARCHITECTURE.md` has it.
    fn cost(call: Call, geometry: Geometry) -> u64 {
        match call {
            Call::Append { bytes, .. } => bytes as u64 + 1_024,
            Call::Remove { .. } => u64::from(geometry.entry_cap) / 16 + 512,
            Call::Sync => 0,
        }
    }

    fn appended(calls: &[Call]) -> Vec<(u64, usize)> {
        let of = |call: &Call| match call {
            Call::Append { position, bytes } => Some((*position, *bytes)),
            _ => None,
        };
        calls.iter().filter_map(of).collect()
    }

    fn removed(calls: &[Call]) -> Vec<u64> {
        let of = |call: &Call| match call {
            Call::Remove { position } => Some(*position),
            _ => None,
        };
        calls.iter().filter_map(of).collect()
    }

    /// The geometry in use, or a cramped one whose budget a single entry may break.
    fn any_geometry() -> impl Strategy<Value = Geometry> {
        let cramped = (1_u32..5_000, 0_u32..20_000).prop_map(|(entry_cap, more)| Geometry {
            entry_cap,
            // One removal always fits.
            sync_budget: 2 * entry_cap + 512 + more,
            ..Geometry::DEFAULT
        });
        prop_oneof![Just(Geometry::DEFAULT), cramped]
    }

    /// Sizes of a group's entries, up to a little more than the largest entry.
    fn any_group() -> impl Strategy<Value = Vec<usize>> {
        let size = prop_oneof![0_usize..300, 0_usize..60_000, Just(57_344)];
        proptest::collection::vec(size, 0..60)
    }

    fn sealed(sizes: &[usize]) -> Vec<Sealed> {
        let entry = |(n, size): (usize, &usize)| Sealed {
            position: 1_000 + n as u64,
            bytes: Arc::new(vec![0; *size]),
        };
        sizes.iter().enumerate().map(entry).collect()
    }

    proptest! {
        /// J1: whatever the group and the clean-up, no more than the budget waits for a sync, and all is written.
        #[test]
        fn never_more_than_the_budget_between_two_syncs(
            geometry in any_geometry(),
            sizes in any_group(),
            pending in 0_u64..80,
        ) {
            let group = sealed(&sizes);
            let mut journal = Notes::default();
            let mut removals: VecDeque<u64> = (1..=pending).collect();
            let syncs = commit(&mut journal, &group, &mut removals, geometry).unwrap();
            prop_assert_eq!(parts(&journal.0, geometry).len() as u64, u64::from(syncs));
            // Each entry once, in rising order.
            let expected: Vec<_> = group.iter().map(|e| (e.position, e.bytes.len())).collect();
            prop_assert_eq!(appended(&journal.0), expected);
            // Each removal once, from the oldest on; the others wait their turn.
            let gone = removed(&journal.0);
            let all: Vec<u64> = gone.iter().chain(&removals).copied().collect();
            prop_assert_eq!(all, (1..=pending).collect::<Vec<_>>());
            if geometry == Geometry::DEFAULT {
                let owed = pending.min(REMOVES_PER_INSERT as u64 * group.len() as u64);
                prop_assert!(gone.len() as u64 >= owed, "clean-up falls behind: {}", gone.len());
            }
        }

        /// Discarding obeys the same budget, and leaves nothing.
        #[test]
        fn discarding_obeys_the_budget(geometry in any_geometry(), pending in 0_u64..80) {
            let mut journal = Notes::default();
            remove_all(&mut journal, 1..=pending, geometry).unwrap();
            parts(&journal.0, geometry);
            prop_assert_eq!(removed(&journal.0), (1..=pending).collect::<Vec<_>>());
        }
    }

    /// Lives of many groups: what is asked to be removed goes in the end, also when nobody adds anything.
    #[test]
    fn every_removal_comes_in_the_end() {
        let mut journal = Notes::default();
        let mut removals: VecDeque<u64> = VecDeque::new();
        for group in 1..=50_u64 {
            removals.extend([2 * group, 2 * group + 1]);
            let entries = sealed(&[57_344]);
            commit(&mut journal, &entries, &mut removals, Geometry::DEFAULT).unwrap();
        }
        assert!(removals.is_empty(), "{} wait for ever", removals.len());
        removals.extend(200..300);
        for _ in 0..100 {
            commit(&mut journal, &[], &mut removals, Geometry::DEFAULT).unwrap();
        }
        assert!(removals.is_empty());
        assert_eq!(
            removed(&journal.0),
            (2..=101).chain(200..300).collect::<Vec<_>>()
        );
    }
}
