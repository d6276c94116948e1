//! A copy of one moment, while the engine works on.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::engine::{Engine, Shared, in_store};
use crate::error::{Error, Result};
use crate::journal::{Payloads, Sealed, Store, StoreHeader, commit};

use super::built::{make_witness, read_built};
use super::held::{Folded, Held, replay_moment};
use super::part::{Part, check_room, or_no_room};

/// What [`Engine::backup`] copied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// The moment: wall-clock milliseconds.
    pub at_ms: i64,
    /// Jobs in it, finished ones included.
    pub jobs: u64,
    /// Groups of the journal.
    pub groups: u64,
    /// Entries of the journal.
    pub entries: u64,
    /// Large payloads and outputs, a file each.
    pub payload_files: u64,
    /// Bytes of all entries and payload files.
    pub bytes: u64,
}

impl Engine {
    /// Copies the store as it is at one moment to the directory `to`, while the engine works on. `to` must not
    /// be there yet, or be an empty directory. The copy is a store like any other:
    /// [`Engine::builder`] opens it, and jobs that were running at that moment run again.
    ///
    /// The copy is built in `<to>.part`, read back from the disk and verified as at opening, and has its name
    /// last: `to` is a whole store or not there, whatever happens. Payload files are compared with their hashes.
    ///
    /// *Blocking:* as long as it takes to copy, sync and read back everything that is kept; other calls go on
    /// between slices of 1 MiB, but share the disk. Meanwhile nothing of the moment is removed: the journal
    /// grows, and payload files of jobs that end stay until the copy is made. Takes as much memory as the
    /// engine has for its jobs.
    /// *Durability:* on return the copy, name included, is on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Occupied`] if something is at `to` or `<to>.part` that is not a left-over of an earlier
    /// attempt; [`Error::Locked`] if such an attempt goes on; [`Error::NoRoom`]; [`Error::Damaged`] if the
    /// store or one of its payload files is; [`Error::Io`], [`Error::Closed`], [`Error::Refused`]. After any
    /// of them `to` is as it was, and the store goes on.
    ///
    /// ```
    /// # use jobsled::{Engine, State, job, rkyv};
    /// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    /// # struct Tick;
    /// # job!(Tick, kind = "tick");
    /// # let dir = tempfile::tempdir().expect("a temporary directory");
    /// # let (store, copy) = (dir.path().join("jobs"), dir.path().join("copy"));
    /// let engine = Engine::builder(store).open()?;
    /// engine.enqueue(Tick)?;
    /// assert_eq!(engine.backup(&copy)?.jobs, 1);
    /// engine.enqueue(Tick)?;
    ///
    /// let restored = Engine::builder(&copy).open()?;
    /// assert_eq!(restored.jobs().state(State::Ready).count()?, 1);
    /// # Ok::<(), jobsled::Error>(())
    /// ```
    pub fn backup(&self, to: impl AsRef<Path>) -> Result<BackupReport> {
        let (shared, to) = (&*self.shared, to.as_ref());
        shared.check_process()?;
        check_outside(shared, to)?;
        let part = Part::begin(to)?;
        let mut held = Held::take(shared)?;
        let copied = copy_moment(&mut held, part.dir(), &shared.payloads);
        let (report, folded) = copied.map_err(|error| held.error(error))?;
        let (last, at_ms) = (held.moment.last, held.moment.at_ms);
        // Verifying needs neither the moment nor a second state beside the first.
        drop((held, folded));
        let read = read_built(part.dir(), Some(&last), at_ms);
        read.map_err(|error| in_store(error, Some(part.dir())))?;
        part.put_in_place()?;
        Ok(report)
    }
}

/// A copy inside the store would be copied by the next one, and go with the store.
fn check_outside(shared: &Shared, to: &Path) -> Result<()> {
    let Some(store) = &shared.dir else {
        return Ok(());
    };
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let places = [store, parent.unwrap_or(Path::new("."))].map(std::fs::canonicalize);
    match (places, to.file_name()) {
        // Where there is no such parent, there is nothing to be built in either.
        ([Ok(store), Ok(parent)], Some(name)) if parent.join(name).starts_with(&store) => {
            Err(Error::Occupied {
                path: to.to_owned(),
                found: "it lies in the store itself".to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// Copies a held moment into a directory: the journal, its witness and the payload files.
fn copy_moment(
    held: &mut Held<'_>,
    dir: &Path,
    payloads: &Payloads,
) -> Result<(BackupReport, Folded)> {
    let mut folded = copy_journal(held, dir)?;
    let files = folded.tally.files_of(&folded.ledger)?;
    check_room(dir, files.bytes())?;
    let copied = files.copy(payloads, &Payloads::in_dir(Store::at(dir).payloads())?);
    copied.map_err(|error| or_no_room(error, dir, files.bytes()))?;
    let report = BackupReport {
        at_ms: held.moment.at_ms,
        jobs: folded.ledger.counts().iter().sum(),
        groups: folded.tally.groups,
        entries: folded.tally.entries,
        payload_files: files.count(),
        bytes: folded.tally.bytes + files.bytes(),
    };
    Ok((report, folded))
}

/// Copies a held moment's journal, byte for byte, and makes its witness.
pub(super) fn copy_journal(held: &mut Held<'_>, dir: &Path) -> Result<Folded> {
    let (header, last, at_ms) = (held.header(), held.moment.last, held.moment.at_ms);
    let StoreHeader { geometry, .. } = header;
    let needed = held.moment.journal_bytes + 4 * u64::from(geometry.segment_bytes);
    check_room(dir, needed)?;
    let mut folded = None;
    let built = Store::at(dir).build(header, |journal| {
        let read = replay_moment(held, &last, at_ms, &mut |slice| {
            let group: Vec<Sealed> = slice
                .into_iter()
                .map(|(position, entry)| Sealed {
                    position,
                    bytes: Arc::new(entry.to_vec()),
                })
                .collect();
            commit(journal, &group, &mut VecDeque::new(), geometry).map(drop)
        })?;
        folded = Some(read);
        Ok(())
    });
    built.map_err(|error| or_no_room(error, dir, needed))?;
    let folded = folded.ok_or_else(|| Error::Bug("the moment was not read".to_owned()))?;
    make_witness(dir, &last, folded.tally.bytes)?;
    Ok(folded)
}
