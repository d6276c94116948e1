//! Reading a held moment, slice by slice, on the caller's thread.

use crate::engine::{Command, Moment, Shared, check_digest, fold, in_store};
use crate::error::{Error, Result};
use crate::journal::{EntryBytes, Header, Replay, StoreHeader};
use crate::ledger::{Ledger, Setup};

use super::tally::Tally;

/// Bytes that the writer reads at a time; other work goes on between two slices.
const SLICE_BYTES: usize = 1 << 20;

/// Where the entries of a moment come from.
pub(super) trait Entries {
    /// The entries from position `from` to `to`, in order, until they have so many bytes. At least one, if one is
    /// there.
    fn slice(&mut self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<(u64, EntryBytes)>>;
}

/// A moment of an open engine.
pub(super) struct Held<'e> {
    shared: &'e Shared,
    pub(super) moment: Moment,
}

impl<'e> Held<'e> {
    /// Holds the engine's state as of now until it is dropped.
    pub(super) fn take(shared: &'e Shared) -> Result<Held<'e>> {
        let moment = shared.ask(|reply| Command::Hold { reply })?;
        Ok(Held { shared, moment })
    }

    pub(super) fn header(&self) -> StoreHeader {
        StoreHeader {
            store: self.moment.last.store,
            geometry: self.moment.geometry,
        }
    }

    /// An error of reading the moment, as the caller of the engine is told.
    pub(super) fn error(&self, error: Error) -> Error {
        // The next engine on this store owes nothing to a moment of this one.
        if self.shared.inbox.gate().is_closed() {
            return Error::Closed;
        }
        in_store(error, self.shared.dir.as_deref())
    }
}

impl Entries for Held<'_> {
    fn slice(&mut self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<(u64, EntryBytes)>> {
        self.shared.ask(|reply| Command::ReadEntries {
            positions: from..to.saturating_add(1),
            bytes_max,
            reply,
        })
    }
}

/// A moment, replayed: the state that its entries give.
pub(super) struct Folded {
    pub(super) ledger: Ledger,
    pub(super) tally: Tally,
}

/// Reads all entries of a moment and checks them as opening does: chain, tail, digest. `each` sees every
/// slice once it was found whole.
pub(super) fn replay_moment(
    entries: &mut dyn Entries,
    last: &Header,
    at_ms: i64,
    each: &mut dyn FnMut(Vec<(u64, EntryBytes)>) -> Result<()>,
) -> Result<Folded> {
    let mut ledger = Ledger::new(Setup::default(), at_ms);
    let mut tally = Tally::default();
    let mut replay = Replay::to(last);
    let (mut from, mut more) = (last.tail, true);
    while more {
        let slice = entries.slice(from, last.position, SLICE_BYTES)?;
        // One that is missing is found by what follows it, or here.
        let Some((newest, _)) = slice.last() else {
            break;
        };
        from = newest.saturating_add(1);
        for (position, entry) in &slice {
            more = replay.take(*position, entry, &mut |visit| {
                tally.see(&visit);
                fold(&mut ledger, &visit)
            })?;
        }
        each(slice)?;
    }
    replay.end()?;
    check_digest(&ledger, last)?;
    Ok(Folded { ledger, tally })
}
