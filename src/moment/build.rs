//! The journal of a store being built: events in, chained groups out, and the state that they give.

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::journal::{Chain, Draft, Geometry, Header, Journal, StoreHeader, commit};
use crate::ledger::{Event, Ledger, Mismatch, Setup, Stamp};

/// Bytes of records in a group.
const GROUP_BYTES: usize = 384 << 10;

pub(super) struct NewJournal<'j> {
    journal: &'j mut dyn Journal,
    pub(super) ledger: Ledger,
    geometry: Geometry,
    chain: Chain,
    draft: Draft,
    at_ms: i64,
    last: Option<Header>,
    bytes: u64,
}

impl<'j> NewJournal<'j> {
    pub(super) fn new(
        journal: &'j mut dyn Journal,
        header: StoreHeader,
        at_ms: i64,
    ) -> NewJournal<'j> {
        let chain = header.first_chain();
        let mut draft = Draft::new(header.geometry);
        draft.begin(&chain);
        NewJournal {
            journal,
            ledger: Ledger::new(Setup::default(), at_ms),
            geometry: header.geometry,
            chain,
            draft,
            at_ms,
            last: None,
            bytes: 0,
        }
    }

    /// What follows was written in that epoch or before.
    pub(super) fn in_epoch(&mut self, epoch: u64) {
        self.chain.epoch = epoch;
    }

    /// Writes an event into the group and applies it. One that does not fit the state is the inner error.
    pub(super) fn push(&mut self, event: &Event<'_>) -> Result<Result<(), Mismatch>> {
        let place = self.draft.push(event)?;
        let stamp = Stamp {
            place,
            at_ms: self.at_ms,
            epoch: self.chain.epoch,
        };
        if let Err(mismatch) = self.ledger.apply(event, stamp) {
            return Ok(Err(mismatch));
        }
        if self.draft.bytes() >= GROUP_BYTES {
            self.commit()?;
        }
        Ok(Ok(()))
    }

    /// Writes what is left. The head, and how many bytes the entries have.
    pub(super) fn end(mut self) -> Result<(Header, u64)> {
        self.commit()?;
        let last = self.last.ok_or_else(|| Error::Bug("no group".to_owned()))?;
        Ok((last, self.bytes))
    }

    fn commit(&mut self) -> Result<()> {
        if self.draft.is_empty() {
            return Ok(());
        }
        // All of it is needed, from the first entry on.
        let tail = 1;
        let digest = self.ledger.digest();
        let sealed = self.draft.seal(&mut self.chain, self.at_ms, tail, digest);
        let unread = |e| Error::Bug(format!("an entry just sealed: {e:?}"));
        let last = sealed.last().map(|entry| Header::read(&entry.bytes));
        self.last = last.transpose().map_err(unread)?;
        self.bytes += sealed.iter().map(|e| e.bytes.len() as u64).sum::<u64>();
        commit(self.journal, &sealed, &mut VecDeque::new(), self.geometry)?;
        self.draft.begin(&self.chain);
        Ok(())
    }
}
