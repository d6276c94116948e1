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

    /// What a removal counts against the budget: every tenth rewrites a leaf of up to 16 entries.
    fn remove_cost(self) -> u64 {
        u64::from(self.entry_cap) * 16 / 10
    }
}

const _: () = {
    let g = Geometry::DEFAULT;
    assert!(17 * g.entry_cap <= g.segment_bytes / 4);
    assert!(g.sync_budget * 8 <= g.segment_bytes);
};

/// What an insert of so many bytes counts against the budget.
fn insert_cost(bytes: usize) -> u64 {
    bytes as u64 + 64
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
    let budget = u64::from(geometry.sync_budget);
    let mut entries = group.iter().peekable();
    let mut syncs = 0;
    loop {
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
            journal.sync()?;
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
