//! The journal without an engine: what the engine's speed is held against.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use super::{Chain, Draft, Geometry, Header, Journal, Store, commit};
use crate::error::{Error, Result};
use crate::job::{Encoding, JobId, Policy, Priority};
use crate::ledger::{Event, NewRecord, Payload};

/// Kind and queue of all jobs here.
const NAME: &str = "bare";

/// Writes groups of the events that jobs cause, exactly as the engine does: packed, hashed, inserted,
/// flushed, synced. No ledger, no workers, no replies.
pub struct BareJournal {
    journal: Box<dyn Journal>,
    chain: Chain,
    draft: Draft,
    removals: VecDeque<u64>,
    tail: u64,
    next_id: u64,
    /// Entries kept before the oldest is removed.
    window: u64,
}

impl BareJournal {
    /// Makes a store in `dir`, which must be empty. The newest `window` entries are kept.
    ///
    /// # Errors
    ///
    /// As opening an engine.
    pub fn create(dir: &Path, window: u64) -> Result<BareJournal> {
        let store = Store::at(dir);
        store.create(Geometry::DEFAULT, |chain| {
            crate::engine::first_group(chain, Geometry::DEFAULT, 0)
        })?;
        let (header, journal) = store.open(false, &mut |_, _| Ok(()))?;
        let mut chain = header.first_chain();
        // Positions and groups need only rise; nothing replays this store.
        (chain.next_position, chain.next_group) = (1_000, 1_000);
        let draft = Draft::new(Geometry::DEFAULT);
        Ok(BareJournal {
            journal,
            chain,
            draft,
            removals: VecDeque::new(),
            tail: 1_000,
            next_id: 1,
            window,
        })
    }

    /// Reads every entry of the store in `dir` and checks its hash, as replay does; the events in it stay
    /// unread. Tells the entries and how long they took. The store is as it was.
    ///
    /// # Errors
    ///
    /// As opening an engine.
    pub fn scan(dir: &Path) -> Result<(u64, Duration)> {
        let mut entries = 0;
        let mut took = Duration::ZERO;
        let (_, journal) = Store::at(dir).open(false, &mut |_, journal| {
            let begun = crate::sys::steady_time();
            journal.scan(0, &mut |position, entry| {
                let reason = |e| Error::Bug(format!("entry {position}: {e:?}"));
                Header::read(&entry).map_err(reason)?;
                entries += 1;
                Ok(true)
            })?;
            took = crate::sys::steady_time().saturating_sub(begun);
            Ok(())
        })?;
        journal.close()?;
        Ok((entries, took))
    }

    /// Commits one group: so many jobs of this payload enqueued, and so many claimed and completed.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn group(&mut self, enqueued: u64, payload: &[u8], finished: u64) -> Result<()> {
        self.draft.begin(&self.chain);
        for _ in 0..enqueued {
            self.draft
                .push(&Event::Enqueued(job(self.next_id, payload)))?;
            self.next_id += 1;
        }
        for n in 0..finished {
            let (id, claim) = (JobId::from_number(n + 1), n + 1);
            self.draft.push(&Event::Claimed {
                id,
                claim,
                alone: false,
            })?;
            self.draft.push(&Event::Completed {
                id,
                claim,
                ran_us: 1,
                history: None,
            })?;
        }
        let tail = self
            .chain
            .next_position
            .saturating_sub(self.window)
            .max(self.tail);
        let sealed = self.draft.seal(&mut self.chain, 0, tail, 0);
        commit(
            self.journal.as_mut(),
            &sealed,
            &mut self.removals,
            Geometry::DEFAULT,
        )?;
        self.removals.extend(self.tail..tail);
        self.tail = tail;
        Ok(())
    }
}

/// A job with nothing but a payload.
pub(super) fn job(id: u64, payload: &[u8]) -> NewRecord<'_> {
    NewRecord {
        id: JobId::from_number(id),
        kind: NAME,
        version: 1,
        encoding: Encoding::Rkyv,
        queue: NAME,
        priority: Priority(0),
        enqueued_at_ms: 0,
        due_ms: 0,
        relative: false,
        expires: None,
        key: None,
        metadata: Vec::new(),
        policy: Policy::default(),
        payload: Payload::Inline(payload),
    }
}

impl std::fmt::Debug for BareJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareJournal")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}
