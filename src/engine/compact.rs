//! Compaction that pays as it goes: every group retires more dead bytes than it adds.

use super::core::Core;
use super::step::{into_history, unreadable};
use crate::error::Result;
use crate::journal::{EntryBytes, Frames, Header, event_at};
use crate::ledger::{Carry, Event, History, Place};

/// Bytes retired per byte appended, while there is too much dead weight.
const RETIRE_FACTOR: usize = 2;
/// Bytes retired by a group of an idle engine.
const IDLE_RETIRED_BYTES: usize = 256 * 1024;
/// Bytes that one group carries at most, so that none takes much longer than its neighbours.
const CARRY_BYTES_MAX: usize = 128 * 1024;

impl Core {
    /// Carries the live records of the oldest entries into this group, as far as it has to.
    pub(super) fn compact(&mut self) -> Result<()> {
        if !self.ledger.wants_compaction() {
            return Ok(());
        }
        // A group of nothing but carries retires much at once: entry by entry, one that holds a few small
        // records would only be exchanged for another such entry, for ever.
        let target = match self.draft.bytes() {
            0 => IDLE_RETIRED_BYTES,
            bytes => bytes * RETIRE_FACTOR,
        };
        let begun_at = self.draft.bytes();
        let mut retired = 0;
        while retired < target
            && self.draft.bytes() - begun_at < CARRY_BYTES_MAX
            && self.ledger.wants_compaction()
            && let Some(position) = self
                .ledger
                .oldest_live()
                .filter(|p| *p < self.draft.first_position())
        {
            let entry = self.entry(position)?;
            self.carry_entry(position, &entry)?;
            retired += entry.len();
        }
        // A group of its own is needed when nothing but dead entries is left in front.
        if retired == 0 && self.draft.is_empty() {
            self.push(&Event::RootSet(self.ledger.root()))?;
        }
        Ok(())
    }

    fn carry_entry(&mut self, position: u64, entry: &EntryBytes) -> Result<()> {
        let header = Header::read(entry).map_err(|e| unreadable(position, &e))?;
        for frame in Frames::new(entry, &header) {
            let (event, place) = frame.map_err(|e| unreadable(position, &e))?;
            match self.ledger.needs_carry(&event, position, place.offset) {
                Some(Carry::Job { history }) => self.carry_job(event, history)?,
                Some(Carry::Root) => {
                    if let Some(root) = self.ledger.carry_root(&event) {
                        self.push(&root)?;
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    fn carry_job(&mut self, event: Event<'_>, history: Option<Place>) -> Result<()> {
        let (base, own_history) = match event {
            Event::Enqueued(base) => (base, None),
            Event::Carried(base, _, history) => (base, history),
            _ => return Ok(()),
        };
        let history = match history {
            Some(place) => self.history_at(place)?,
            None => own_history,
        };
        let queue = self.ledger.queue_of(&base).into_owned();
        if let Some(carried) = self.ledger.carry_job(&base, &queue, history) {
            self.push(&carried)?;
        }
        Ok(())
    }

    pub(super) fn history_at(&mut self, place: Place) -> Result<Option<History>> {
        // A history written by this very group is not on disk yet.
        if place.position >= self.draft.first_position() {
            return Ok(self
                .draft
                .event_at(place)
                .map_err(|e| unreadable(place.position, &e))?
                .and_then(into_history));
        }
        let entry = self.entry(place.position)?;
        let event = event_at(&entry, place.offset).map_err(|e| unreadable(place.position, &e))?;
        Ok(into_history(event))
    }

    /// An entry that is known to be needed.
    pub(super) fn entry(&mut self, position: u64) -> Result<EntryBytes> {
        let journal = self.journal.as_mut().ok_or(crate::error::Error::Closed)?;
        self.reader.entry(journal.as_mut(), position)
    }
}
