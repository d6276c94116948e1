//! How entries lie in sled's leaves, so that sled writes each of them once.
//!
//! sled keeps up to 16 keys and their values in a leaf. A change of it is a record in its log, with the new value; but
//! it writes the whole leaf anew, with all values, when it has to be split, and with every tenth change. Entries that
//! are just appended and removed are written 4.6 times that way, and a removal may write nine of them at once.
//!
//! So leaves are made ready while they are still empty:
//!
//! - **Prepared positions.** Before large entries come, the keys that they will have are inserted with empty values,
//!   and some more: leaves are split then. The last leaf, which is still to be split, gets no entry.
//! - **Spacers.** After each position comes a key that never has a value, and after each fourth one more: of any nine
//!   keys in a row four are positions. A split leaves nine keys in a leaf, so each gets four entries and loses four
//!   again. That makes nine records with its first one, and the tenth never comes while it holds anything.
//! - **Spacers go later** than their entries, by more than a segment: what is written anew then is empty. So is what
//!   sled moves out of segments that are half empty.
//!
//! What reaches the log then is 1.02 times the entries if they are large, and between two syncs never much more than
//! was accounted for (`docs/benchmarks.md`). Nothing but the amount of writing depends on it: a tree with no keys
//! prepared, or with some left over, is as good.

use std::ops::Range;

/// Positions beyond the one that is used now that are prepared at least: 27 keys, more than the last leaf can have.
const AHEAD: u64 = 12;
/// Positions that are prepared at a time: 18 keys, two leaves.
const STEP: u64 = 8;
/// Positions by which spacers go later than their entries: a segment has room for 73 of the largest.
const LATER: u64 = 128;
/// Removals between two looks at the oldest entry. It is not always the next one: groups that were cut short leave
/// gaps.
const SWEEP_EVERY: u32 = 64;

/// A key of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Where an entry is, or will be.
    Position(u64),
    /// Behind a position, with a number; never has a value.
    Spacer(u64, u8),
}

impl Key {
    /// As it is in the tree; `None` for bytes that are no key of ours.
    pub(super) fn read(bytes: &[u8]) -> Option<Key> {
        let (position, rest) = bytes.split_first_chunk()?;
        let position = u64::from_be_bytes(*position);
        match rest {
            [] => Some(Key::Position(position)),
            [number] => Some(Key::Spacer(position, *number)),
            _ => None,
        }
    }

    pub(super) fn position(self) -> u64 {
        match self {
            Key::Position(position) | Key::Spacer(position, _) => position,
        }
    }
}

/// The key of a position.
pub(super) fn key(position: u64) -> [u8; 8] {
    position.to_be_bytes()
}

/// The keys of the spacers behind some positions.
pub(super) fn spacers(positions: Range<u64>) -> impl Iterator<Item = [u8; 9]> {
    let of = |position: u64| {
        let most = u8::from(position % 4 == 3);
        (0..=most).map(move |number| {
            let mut key = [number; 9];
            key[..8].copy_from_slice(&position.to_be_bytes());
            key
        })
    };
    positions.flat_map(of)
}

/// What is prepared, and what is left over.
#[derive(Debug)]
pub(super) struct Leaves {
    /// Positions below have their keys, or are gone.
    prepared: u64,
    /// Positions below have no spacers any more.
    swept: u64,
    /// Entries removed since spacers were.
    removed: u32,
}

impl Leaves {
    /// Of a tree with this first and last key.
    pub(super) fn new(first: Option<Key>, last: Option<Key>) -> Leaves {
        Leaves {
            prepared: last.map_or(0, |key| key.position().saturating_add(1)),
            swept: first.map_or(0, Key::position),
            removed: 0,
        }
    }

    /// A large entry is to be written here: which positions get their keys before?
    pub(super) fn prepare(&mut self, position: u64) -> Range<u64> {
        let from = self.prepared.max(position);
        if from > position.saturating_add(AHEAD) {
            return from..from;
        }
        self.prepared = position.saturating_add(AHEAD + STEP);
        from..self.prepared
    }

    /// An entry was removed. True when it is time to [`sweep`](Leaves::sweep).
    pub(super) fn is_sweep_due(&mut self) -> bool {
        self.removed += 1;
        self.removed >= SWEEP_EVERY
    }

    /// From here on the oldest entry is looked for.
    pub(super) fn swept(&self) -> u64 {
        self.swept
    }

    /// This is the oldest entry: which positions lose their spacers?
    pub(super) fn sweep(&mut self, oldest: u64) -> Range<u64> {
        let from = self.swept;
        self.swept = from.max(oldest.saturating_sub(LATER));
        self.removed = 0;
        from..self.swept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for position in [0, 3, 4, u64::MAX - 1] {
            assert_eq!(Key::read(&key(position)), Some(Key::Position(position)));
            let spacers: Vec<_> = spacers(position..position + 1).collect();
            assert_eq!(spacers.len(), if position % 4 == 3 { 2 } else { 1 });
            for (number, spacer) in (0..).zip(spacers) {
                assert_eq!(Key::read(&spacer), Some(Key::Spacer(position, number)));
                assert!(spacer[..] > key(position)[..] && spacer[..] < key(position + 1)[..]);
            }
        }
        for no_key in [&[][..], &[1; 7], &[1; 10]] {
            assert_eq!(Key::read(no_key), None);
        }
    }

    #[test]
    fn four_of_nine_keys_are_positions() {
        let keys: Vec<bool> = (1..=40)
            .flat_map(|p| std::iter::once(true).chain(spacers(p..p + 1).map(|_| false)))
            .collect();
        for nine in keys.windows(9) {
            assert_eq!(nine.iter().filter(|is_position| **is_position).count(), 4);
        }
    }

    #[test]
    fn each_position_is_prepared_once_and_in_time() {
        let mut leaves = Leaves::new(None, None);
        let mut prepared = Vec::new();
        for position in 1..=1_000 {
            prepared.extend(leaves.prepare(position));
            let last = prepared.last().copied().unwrap();
            assert!((position + AHEAD..=position + AHEAD + STEP).contains(&last));
        }
        assert!(prepared.iter().copied().eq(1..=*prepared.last().unwrap()));
    }

    #[test]
    fn small_entries_leave_gaps_in_what_is_prepared() {
        let mut leaves = Leaves::new(None, Some(Key::Position(7)));
        assert_eq!(leaves.prepare(500), 500..500 + AHEAD + STEP);
    }

    #[test]
    fn spacers_go_once_and_later_than_their_entries() {
        let mut leaves = Leaves::new(Some(Key::Spacer(4, 0)), Some(Key::Position(900)));
        let mut swept = Vec::new();
        for position in 10..=900 {
            if leaves.is_sweep_due() {
                swept.extend(leaves.sweep(position + 1));
            }
            assert!(swept.last().is_none_or(|last| last + LATER <= position));
            let behind = position.saturating_sub(*swept.last().unwrap_or(&4));
            assert!(behind <= LATER + u64::from(SWEEP_EVERY) + 10, "{behind}");
        }
        assert!(swept.iter().copied().eq(4..=*swept.last().unwrap()));
    }
}
