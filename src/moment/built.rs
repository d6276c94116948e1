//! Reading back a store that was built or copied.

use std::path::Path;

use crate::engine::{Replayed, read_back_with};
use crate::error::{Error, Result};
use crate::journal::{Found, Header, Mark, Store, Witness};
use crate::ledger::{Ledger, Setup};

use super::held::Folded;
use super::tally::Tally;

/// Makes the witness of a journal that was just built. It names the moment.
pub(super) fn make_witness(dir: &Path, last: &Header, journal_bytes: u64) -> Result<()> {
    let mark = Mark {
        epoch: last.epoch,
        group: last.group,
        position: last.position,
        hash: last.hash,
        digest: last.digest,
        journal_bytes,
    };
    Witness::create(&Store::at(dir).witness(), last.store, &mark).map(drop)
}

/// A store that was read back.
pub(super) struct Built {
    pub(super) folded: Folded,
    /// Whether the witness was there and could be read.
    pub(super) witnessed: bool,
}

/// Opens a store that nobody has and nobody depends on yet, and reads all of it from the disk as opening does:
/// store header, hashes, chain, tail, digest, witness. `None` for `last`: whatever head it has.
pub(super) fn read_built(dir: &Path, last: Option<&Header>, at_ms: i64) -> Result<Built> {
    let mut found = None;
    Store::at(dir).look(|header, journal| {
        let witness = Witness::open(&Store::at(dir).witness(), header.store);
        let witnessed = matches!(witness, Ok(Found::Marked(..)));
        let mut tally = Tally::default();
        let ledger = Ledger::new(Setup::default(), at_ms);
        let read = read_back_with(journal, header.store, Some(dir), ledger, &mut |visit| {
            tally.see(visit);
        })?;
        let Replayed { head, ledger, .. } = read;
        // I10: what was written is what is there.
        if last.is_some_and(|last| *last != head.last) {
            return Err(Error::Damaged {
                path: "journal".into(),
                what: "the journal just written".to_owned(),
                reason: "it does not end as it was written".to_owned(),
            });
        }
        let folded = Folded { ledger, tally };
        found = Some(Built { folded, witnessed });
        Ok(())
    })?;
    found.ok_or_else(|| Error::Bug("the journal was not read".to_owned()))
}
