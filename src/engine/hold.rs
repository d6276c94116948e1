//! A held moment: the state after one synced group, kept readable while the engine works on.
//!
//! Entries never change, so those from the moment's tail to its head *are* a journal whose replay gives
//! exactly that moment. All it takes is that nothing of it goes: while anybody holds it, what compaction
//! makes obsolete stays in the journal, and payload files that jobs drop stay in their folder. Both wait
//! here, in order. If the engine ends meanwhile, the next opening finds them as what a crash leaves: entries
//! below the tail, files that no record names.

use std::collections::VecDeque;
use std::ops::Range;

use super::command::Command;
use super::core::Core;
use super::inbox::Inbox;
use super::step::unreadable;
use crate::error::Result;
use crate::journal::{EntryBytes, Geometry, Header, Journal};

/// A moment that somebody holds.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) geometry: Geometry,
    /// The last entry of the newest group: it names store, tail, head, group, epoch, hash and digest.
    pub(crate) last: Header,
    /// The wall clock.
    pub(crate) at_ms: i64,
    /// Bytes of the entries from tail to head.
    pub(crate) journal_bytes: u64,
    _hold: Hold,
}

/// Dropping it lets the moment go.
#[derive(Debug)]
struct Hold {
    number: u64,
    inbox: Inbox,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.inbox
            .send_unbounded(Command::LetGo { hold: self.number });
    }
}

/// What the writer keeps for those who hold a moment.
#[derive(Debug, Default)]
pub(super) struct Holds {
    newest: u64,
    /// Number and tail of each moment that is held. Tails only rise.
    live: Vec<(u64, u64)>,
    /// Entries that were made obsolete while somebody held them, oldest first.
    removals: VecDeque<u64>,
    /// Payload files that were dropped meanwhile.
    files: Vec<u128>,
}

impl Holds {
    /// Entries that a synced group made obsolete: those that nobody holds go to `removals`.
    pub(super) fn made_obsolete(&mut self, positions: Range<u64>, removals: &mut VecDeque<u64>) {
        // E10: what is made obsolete now lies at or above the tail of every moment that is held now.
        if self.live.is_empty() {
            removals.extend(positions);
        } else {
            self.removals.extend(positions);
        }
    }

    /// Payload files that a synced group dropped: those that may go at once.
    pub(super) fn dropped(&mut self, files: Vec<u128>) -> Vec<u128> {
        // E10: any of them may be one that a held moment names.
        if self.live.is_empty() {
            return files;
        }
        self.files.extend(files);
        Vec::new()
    }

    fn take(&mut self, tail: u64) -> u64 {
        self.newest += 1;
        self.live.push((self.newest, tail));
        self.newest
    }

    /// Ends a hold; what nobody needs any more goes to `removals` and comes back as files.
    fn end(&mut self, hold: u64, removals: &mut VecDeque<u64>) -> Vec<u128> {
        self.live.retain(|(number, _)| *number != hold);
        let oldest = self.live.iter().map(|(_, tail)| *tail).min();
        while let Some(position) = self.removals.front().copied()
            && oldest.is_none_or(|tail| position < tail)
        {
            self.removals.pop_front();
            removals.push_back(position);
        }
        if self.live.is_empty() {
            std::mem::take(&mut self.files)
        } else {
            Vec::new()
        }
    }
}

impl Core {
    /// Between groups: the moment after the newest one.
    pub(super) fn hold(&mut self) -> Result<Moment> {
        let head = self.chain.next_position - 1;
        let entry = self.entry(head)?;
        let last = Header::read(&entry).map_err(|e| unreadable(head, &e))?;
        Ok(Moment {
            geometry: self.geometry,
            last,
            at_ms: self.now.wall_ms,
            journal_bytes: self.ledger.space().total_bytes(),
            _hold: Hold {
                number: self.holds.take(last.tail),
                inbox: self.inbox.clone(),
            },
        })
    }

    /// Somebody does not need a moment any more. The files go with those of the group.
    pub(super) fn let_go_of(&mut self, hold: u64) {
        let files = self.holds.end(hold, &mut self.removals);
        self.pending.files.extend(files);
    }

    /// Between groups: entries that somebody holds.
    pub(super) fn read_entries(
        &mut self,
        positions: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(u64, EntryBytes)>> {
        let journal = self.journal.as_mut().ok_or(crate::error::Error::Closed)?;
        read_slice(journal.as_mut(), positions, bytes_max)
    }
}

/// The entries in `positions`, from the first on, until they have so many bytes.
pub(crate) fn read_slice(
    journal: &mut dyn Journal,
    positions: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<(u64, EntryBytes)>> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    if positions.is_empty() {
        return Ok(entries);
    }
    journal.scan(positions.start, &mut |position, entry| {
        if position >= positions.end {
            return Ok(false);
        }
        bytes += entry.len();
        entries.push((position, entry));
        Ok(bytes < bytes_max)
    })?;
    Ok(entries)
}
