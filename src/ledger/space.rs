//! Which journal entries are still needed, and how much of the journal is dead weight.
//!
//! A job needs the entry of its base frame and everything after it. So the journal can be cut
//! exactly in front of the oldest entry that holds a base frame; compaction moves the base frames
//! of that entry forward.

use std::collections::VecDeque;

use super::event::Place;

/// Bytes that must be cut off by each byte carried, for a carry to be cheap.
const CARRY_GAIN: u32 = 16;
/// Bytes below which a cut is not worth a carry.
const CUT_MIN: u32 = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Position of the first element of `entries`.
    first: u64,
    entries: VecDeque<EntrySpace>,
    total_bytes: u64,
    live_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct EntrySpace {
    /// Base frames in this entry that are still the newest of their record.
    live: u32,
    live_bytes: u32,
    bytes: u32,
}

impl Space {
    /// An entry was written (or found at replay) with this many bytes.
    pub(crate) fn entry_written(&mut self, position: u64, bytes: u32) {
        if let Some(entry) = self.at(position) {
            let before = std::mem::replace(&mut entry.bytes, bytes);
            self.total_bytes = self.total_bytes + u64::from(bytes) - u64::from(before);
        }
    }

    /// The frame at `place` is now the base of a record.
    pub(crate) fn pin(&mut self, place: Place) {
        if let Some(entry) = self.at(place.position) {
            entry.live += 1;
            entry.live_bytes += u32::from(place.len);
            self.live_bytes += u64::from(place.len);
        }
    }

    /// The frame at `place` is no longer the base of a record.
    pub(crate) fn unpin(&mut self, place: Place) {
        if let Some(entry) = self.at(place.position) {
            entry.live = entry.live.saturating_sub(1);
            let bytes = entry.live_bytes.min(u32::from(place.len));
            entry.live_bytes -= bytes;
            self.live_bytes = self.live_bytes.saturating_sub(u64::from(bytes));
        }
    }

    /// A base frame lost part of its use (the payload of a completed job).
    pub(crate) fn shrink(&mut self, place: &mut Place, by: u16) {
        let by = by.min(place.len);
        place.len -= by;
        if let Some(entry) = self.at(place.position) {
            let bytes = entry.live_bytes.min(u32::from(by));
            entry.live_bytes -= bytes;
            self.live_bytes = self.live_bytes.saturating_sub(u64::from(bytes));
        }
    }

    /// Drops the dead entries in front, but never `keep` or a later one. Returns the position of the
    /// oldest entry that is needed.
    pub(crate) fn cut(&mut self, keep: u64) -> u64 {
        while self.first < keep {
            match self.entries.front() {
                Some(entry) if entry.live > 0 => break,
                Some(entry) => {
                    self.total_bytes -= u64::from(entry.bytes);
                    self.entries.pop_front();
                    self.first += 1;
                }
                None => self.first = keep,
            }
        }
        self.first
    }

    /// The oldest entry with live records.
    pub(crate) fn oldest_live(&self) -> Option<u64> {
        let ahead = self.entries.iter().position(|entry| entry.live > 0)?;
        Some(self.first + ahead as u64)
    }

    /// Whether little must be carried to cut off much: the oldest needed entry holds next to nothing, and
    /// what follows it is dead.
    pub(crate) fn is_cheap_to_cut(&self) -> bool {
        let mut entries = self.entries.iter().skip_while(|entry| entry.live == 0);
        let Some(oldest) = entries.next() else {
            return false;
        };
        let needed = (oldest.live_bytes * CARRY_GAIN).max(CUT_MIN);
        let mut freed = oldest.bytes;
        for entry in entries {
            if freed >= needed {
                return true;
            }
            if entry.live > 0 {
                return false;
            }
            freed += entry.bytes;
        }
        false
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    fn at(&mut self, position: u64) -> Option<&mut EntrySpace> {
        if self.entries.is_empty() && self.first == 0 {
            self.first = position;
        }
        let ahead = usize::try_from(position.checked_sub(self.first)?).ok()?;
        if ahead >= self.entries.len() {
            self.entries.resize(ahead + 1, EntrySpace::default());
        }
        self.entries.get_mut(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_in_front_of_the_oldest_needed_entry() {
        let place = |position| Place {
            position,
            offset: 0,
            len: 100,
        };
        let mut space = Space::default();
        for position in 5..10 {
            space.entry_written(position, 1_000);
            space.pin(place(position));
        }
        space.unpin(place(5));
        space.unpin(place(7));
        assert_eq!(space.cut(9), 6);
        assert_eq!((space.total_bytes(), space.live_bytes()), (4_000, 300));
        space.unpin(place(6));
        assert_eq!(space.oldest_live(), Some(8));
        assert!(!space.is_cheap_to_cut(), "hardly anything would go");
        assert_eq!(space.cut(7), 7); // the newest group is kept whatever it holds
        assert_eq!(space.cut(9), 8);
        assert_eq!(space.total_bytes(), 2_000);
    }

    #[test]
    fn one_job_in_front_of_much_that_is_dead_is_cheap_to_carry() {
        let mut space = Space::default();
        let place = |position| Place {
            position,
            offset: 0,
            len: 1_000,
        };
        space.entry_written(1, 10_000);
        space.pin(place(1));
        for position in 2..7 {
            space.entry_written(position, 10_000);
        }
        assert!(!space.is_cheap_to_cut(), "60,000 bytes are not worth it");
        space.entry_written(7, 10_000);
        space.entry_written(8, 10_000);
        assert!(space.is_cheap_to_cut());
        // Four more jobs in the front entry: 5,000 bytes for 70,000 is no bargain.
        (0..4).for_each(|_| space.pin(place(1)));
        assert!(!space.is_cheap_to_cut());
        (0..4).for_each(|_| space.unpin(place(1)));
        // What follows is needed: nothing could be cut.
        space.pin(place(3));
        assert!(!space.is_cheap_to_cut());
    }
}
