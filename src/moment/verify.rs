//! Whether a store is whole, found out on a copy.

use std::path::{Path, PathBuf};

use crate::clock::{Clock, SystemClock};
use crate::engine::{Engine, in_store};
use crate::error::{Error, Result};
use crate::job::State;
use crate::journal::{Payloads, Store};
use crate::sys::lock::{self, ReadLock};

use super::backup::copy_journal;
use super::built::{Built, read_built};
use super::held::{Folded, Held};
use super::part::{Scratch, check_room, or_no_room};
use super::tally::Files;

/// What [`verify`] and [`Engine::verify`] found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    counts: [u64; State::ALL.len()],
    /// Groups of the journal.
    pub groups: u64,
    /// Entries of the journal.
    pub entries: u64,
    /// Large payloads and outputs, a file each, compared with their hashes.
    pub payload_files: u64,
    /// Bytes of all entries and payload files.
    pub bytes: u64,
    /// Whether the witness was there to compare the journal with. Without it acknowledged jobs that are
    /// missing at the journal's end would not be noticed.
    pub witnessed: bool,
}

impl VerifyReport {
    fn new(found: &Folded, files: &Files, witnessed: bool) -> VerifyReport {
        VerifyReport {
            counts: found.ledger.counts(),
            groups: found.tally.groups,
            entries: found.tally.entries,
            payload_files: files.count(),
            bytes: found.tally.bytes + files.bytes(),
            witnessed,
        }
    }

    /// Jobs, finished ones included.
    pub fn jobs(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Jobs in a state. Whether a waiting one is scheduled or ready is judged by the clock.
    pub fn count(&self, state: State) -> u64 {
        self.counts.get(state as usize).copied().unwrap_or(0)
    }
}

/// Looks whether the store in `dir`, which nobody has open, is whole: header, hashes and chain of the journal,
/// the digest of the state, the witness, every payload file. The journal is read from a copy in a directory of
/// its own below `tmp` (the system's directory for temporary files unless given), for sled writes when it
/// opens a log. In `dir` nothing is changed, and an engine cannot open it meanwhile.
///
/// A store that a crash or another host left open can be verified as well; what a crash may leave (a group cut
/// short, files that no job names) is no damage.
///
/// *Blocking:* as long as it takes to copy the journal and to read everything. Takes as much memory as an
/// engine would for its jobs.
///
/// # Errors
///
/// What opening would say: [`Error::Damaged`], [`Error::Missing`], [`Error::ForeignWitness`],
/// [`Error::NewerFormat`], [`Error::Layout`]; one error names all damaged payload files.
/// [`Error::NotAStore`]; [`Error::Locked`] if somebody has it open (use [`Engine::verify`]);
/// [`Error::NoRoom`] if `tmp` has too little; [`Error::Io`]. The copy is removed in every case.
///
/// ```
/// # use jobsled::{Engine, State, job, rkyv};
/// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// # struct Tick;
/// # job!(Tick, kind = "tick");
/// # let dir = tempfile::tempdir().expect("a temporary directory");
/// # let store = dir.path().join("jobs");
/// let engine = Engine::builder(&store).open()?;
/// engine.enqueue(Tick)?;
/// drop(engine);
/// let report = jobsled::verify(&store, None)?;
/// assert_eq!((report.jobs(), report.count(State::Ready)), (1, 1));
/// # Ok::<(), jobsled::Error>(())
/// ```
pub fn verify(dir: impl AsRef<Path>, tmp: Option<&Path>) -> Result<VerifyReport> {
    let dir = dir.as_ref();
    let store = Store::at(dir);
    // In a directory with a lock of ours, whoever holds it may be renaming what is looked at.
    if !lock::is_ours(dir) {
        check_store(dir, &store)?;
    }
    let lock = ReadLock::acquire(dir)?;
    check_store(dir, &store)?;
    let tmp = place(tmp);
    let needed = store.copy_bytes()?;
    check_room(&tmp, needed)?;
    let scratch = Scratch::below(&tmp)?;
    let copied = store.copy_to(scratch.dir());
    copied.map_err(|error| or_no_room(error, &tmp, needed))?;
    let at_ms = SystemClock.now().wall_ms;
    let read = read_built(scratch.dir(), None, at_ms);
    let Built {
        folded: mut found,
        witnessed,
    } = read.map_err(|error| {
        let error = or_no_room(error, &tmp, needed);
        // It is the original that people have to look at.
        in_store(error, Some(dir)).map_path(|path| match path.strip_prefix(scratch.dir()) {
            Ok(part) if part.as_os_str().is_empty() => dir.to_owned(),
            Ok(part) => dir.join(part),
            Err(_) => path.to_owned(),
        })
    })?;
    let files = found.tally.files_of(&found.ledger)?;
    files.check(&Payloads::found_in(store.payloads()))?;
    lock.check()?;
    Ok(VerifyReport::new(&found, &files, witnessed))
}

impl Engine {
    /// Looks whether the store is whole, while the engine works on: everything that it keeps at one moment is
    /// read, checked, copied below `tmp` (the system's directory for temporary files unless given) as
    /// [`Engine::backup`] does, read back and removed. Payload files are compared with their hashes where they
    /// are.
    ///
    /// *Blocking:* as [`Engine::backup`].
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], which names all damaged payload files at once; [`Error::NoRoom`] if `tmp` has too
    /// little; [`Error::Io`], [`Error::Closed`], [`Error::Refused`].
    ///
    /// ```
    /// # let engine = jobsled::Engine::in_memory().open()?;
    /// assert_eq!(engine.verify(None)?.jobs(), 0);
    /// # Ok::<(), jobsled::Error>(())
    /// ```
    pub fn verify(&self, tmp: Option<&Path>) -> Result<VerifyReport> {
        let shared = &*self.shared;
        shared.check_process()?;
        let scratch = Scratch::below(&place(tmp))?;
        let mut held = Held::take(shared)?;
        let checked = copy_journal(&mut held, scratch.dir()).and_then(|mut found| {
            let files = found.tally.files_of(&found.ledger)?;
            files.check(&shared.payloads)?;
            Ok(VerifyReport::new(&found, &files, true))
        });
        let report = checked.map_err(|error| held.error(error))?;
        let (last, at_ms) = (held.moment.last, held.moment.at_ms);
        drop(held);
        let read = read_built(scratch.dir(), Some(&last), at_ms);
        read.map_err(|error| in_store(error, Some(scratch.dir())))?;
        Ok(report)
    }
}

fn place(tmp: Option<&Path>) -> PathBuf {
    tmp.map_or_else(std::env::temp_dir, Path::to_owned)
}

/// There must be a store already; looking for one makes none.
fn check_store(dir: &Path, store: &Store) -> Result<()> {
    let not_a_store = |found: &str| Error::NotAStore {
        path: dir.to_owned(),
        found: found.to_owned(),
    };
    match std::fs::metadata(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(not_a_store("there is nothing of this name"))
        }
        Err(e) => Err(Error::io("look at", dir)(e)),
        Ok(found) if !found.is_dir() => Err(not_a_store("it is a file")),
        Ok(_) if !store.exists()? => Err(not_a_store("it is empty")),
        Ok(_) => Ok(()),
    }
}
