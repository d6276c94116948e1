//! The one public error: what stops a call.
//!
//! A refusal that a caller is expected to meet (a duplicate key, a job that already finished, a lost
//! lease) is not here: it is a value in the call's `Ok`.

use std::io;
use std::path::{Path, PathBuf};

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call could not be carried out.
///
/// Every message says what was being done, what was found, whether anything was written and what to
/// do. The variants fall into three families: *misuse* (fix the call), *disk or data* (fix the
/// machine, or repair) and *ours* ([`Error::Bug`], please report it).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // --- misuse: nothing was written, the call has to change ---
    /// A name, number or combination of options is outside its range.
    #[error("{what} cannot be {found}: {rule}. Nothing was stored")]
    Invalid {
        /// What was given, for example `queue name`.
        what: &'static str,
        /// The value found.
        found: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// One job of a batch is not valid; no job of the batch was stored.
    #[error("job {index} of the batch (counting from 0) was refused, so none was stored: {source}")]
    InBatch {
        /// Place in the batch, counting from 0.
        index: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// Something is longer than its limit.
    #[error("{what} has {size} bytes, the limit is {limit}: {remedy}. Nothing was stored")]
    TooLarge {
        /// What is too large, for example `payload`.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A payload or output could not be turned into bytes or back.
    #[error("{what} of kind `{kind}` {reason}")]
    Payload {
        /// `payload` or `output`.
        what: &'static str,
        /// The job's kind.
        kind: String,
        /// What failed, in the words of the format.
        reason: String,
    },
    /// The call needs a handler that this engine was not given.
    #[error(
        "no handler for kind `{kind}`: register one with `EngineBuilder::handle` before `open`"
    )]
    NoHandler {
        /// The kind asked for.
        kind: String,
    },
    /// `wait` was called in a handler whose own pool would have to run the job: it could wait for ever.
    #[error(
        "waiting for job {job} inside a handler of pool `{pool}` could wait for ever: enqueue a \
         follow-up job, let the two kinds run in different pools, or use `wait_timeout`"
    )]
    WaitInHandler {
        /// The job waited for.
        job: u64,
        /// The pool of the waiting handler.
        pool: String,
    },
    /// The calling process is a fork of the one that opened the engine; its threads are not here.
    #[error(
        "this engine was opened by process {opener} and cannot be used in its fork {here}: open \
         engines after forking. Nothing was stored"
    )]
    Forked {
        /// Process that opened the engine.
        opener: u32,
        /// The calling process.
        here: u32,
    },

    // --- not now: nothing was written, the same call may work later ---
    /// The inbox is full (only from calls that never block).
    #[error(
        "{waiting} jobs with {bytes} bytes are waiting to be stored, the limit is {limit} jobs and \
         {bytes_limit} bytes: try again, or use a call that waits. Nothing was stored"
    )]
    Full {
        /// Jobs waiting to be stored.
        waiting: usize,
        /// Their bytes.
        bytes: usize,
        /// The bound on jobs.
        limit: usize,
        /// The bound on bytes.
        bytes_limit: usize,
    },
    /// The engine is draining: it finishes what runs and takes nothing new.
    #[error("the engine is draining and takes no new jobs. Nothing was stored")]
    Draining,
    /// The engine was shut down.
    #[error("the engine was shut down. Nothing was stored")]
    Closed,
    /// Free space on the store's disk is below the floor. Claims, settles and cancels still work.
    #[error(
        "disk full: {free} bytes free below {path}, new jobs need {needed}: free some space. Nothing \
         was stored, running jobs can finish"
    )]
    DiskFull {
        /// The store.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes that must be free: the floor, and what these jobs take.
        needed: u64,
    },

    // --- opening a store ---
    /// Another engine has the store open.
    #[error("{path} is in use by process {pid} on host {host}{}: close that one first", if *.here { " (this very process)" } else { "" })]
    Locked {
        /// The store.
        path: PathBuf,
        /// Process id of the owner, 0 if it could not be read.
        pid: u32,
        /// Host of the owner.
        host: String,
        /// Whether the owner is the calling process.
        here: bool,
    },
    /// The store was left open by another host; its lock proves nothing here.
    #[error(
        "{path} was left open by process {pid} on host {host}: make sure that it runs no more, then \
         open with `take_over(true)`. Nothing was changed"
    )]
    ForeignLock {
        /// The store.
        path: PathBuf,
        /// Process id of the last owner.
        pid: u32,
        /// Host of the last owner.
        host: String,
    },
    /// The path holds something that is not a store.
    #[error(
        "{path} is not a Jobsled store: {found}. Nothing was changed; name a store, or a new or empty directory for one"
    )]
    NotAStore {
        /// The path given.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// The place where a copy of a store is to be made is not free.
    #[error(
        "{path} is not free: {found}. Nothing was changed; name a directory that is not there yet, or an empty one"
    )]
    Occupied {
        /// The path given, or the one beside it where the copy is built.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// A disk has no room for a copy of a store.
    #[error(
        "no room for a copy of the store in {path}: {free} bytes free, about {needed} needed. The store was not \
         changed and nothing is left of the copy; name a directory on another disk"
    )]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// A line of an import is not as it should be.
    #[error("line {line}: {reason}. Nothing was imported")]
    Import {
        /// The line, counting from 1.
        line: u64,
        /// What was found, and what was expected.
        reason: String,
    },
    /// The store was written by a newer version.
    #[error(
        "{path} was written by a newer version ({what} {found}, this one knows up to {known}): update this program. Nothing was converted"
    )]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// What is newer.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// This build's rkyv features give records another layout than the store has.
    #[error(
        "{path} has record layout {found}, this build has {here}: some crate of this build turned on \
         another rkyv format feature (little_endian, pointer_width_32 and unaligned are needed). Nothing was changed"
    )]
    Layout {
        /// The store.
        path: PathBuf,
        /// Layout fingerprint found.
        found: u32,
        /// Layout fingerprint of this build.
        here: u32,
    },
    /// Stored data is damaged. The files were left as they are, unless they had to be opened in place: a large
    /// journal, or a disk without room for a copy.
    #[error(
        "{path} is damaged: {what}: {reason}. Nothing was repaired; `jobsled repair` makes a new store of what can be read"
    )]
    Damaged {
        /// The store, or the file in it.
        path: PathBuf,
        /// The part that is damaged, for example `entry 17`.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A repair found nothing of the journal that it could read.
    #[error(
        "{path} cannot be repaired: nothing of its journal is left that can be read. Nothing was changed or made; \
         a backup is what helps now"
    )]
    NothingLeft {
        /// The store.
        path: PathBuf,
    },
    /// The journal ends before what the witness saw acknowledged: the disk lost or forgot data.
    #[error(
        "{path} lost acknowledged data: the witness saw group {witnessed} at position {position}, the \
         journal ends at group {found}. Nothing was repaired; `jobsled repair` makes a new store of what is left"
    )]
    Missing {
        /// The store.
        path: PathBuf,
        /// Last group that was acknowledged.
        witnessed: u64,
        /// Its position.
        position: u64,
        /// Last group found.
        found: u64,
    },
    /// The witness file belongs to another store.
    #[error(
        "{path} is the witness of another store: put this store's own file back, or remove the foreign one"
    )]
    ForeignWitness {
        /// The witness file.
        path: PathBuf,
    },

    // --- the machine ---
    /// The operating system refused something.
    #[error("could not {doing} {path}: {source}")]
    Io {
        /// What was being done, for example `create directory`.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The reason given.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error(
        "could not start thread `{name}`: {source}. A limit of this user, container or system on threads or memory is \
         reached"
    )]
    Thread {
        /// The thread's name.
        name: String,
        /// The reason given.
        source: io::Error,
    },
    /// An earlier write or sync failed. This call's jobs were **not** stored.
    #[error(
        "refused, nothing was stored: an earlier write failed ({cause}). Restart the process to go on"
    )]
    Refused {
        /// The failure that stopped the engine.
        cause: String,
    },
    /// The write or sync of this very call failed: what it asked for **may or may not** be there after
    /// reopening. Repeating it is safe with the same key.
    #[error(
        "outcome unknown: the write failed ({cause}). Restart the process, then repeat the call with the same key or look the job up"
    )]
    Unknown {
        /// The failure that stopped the engine.
        cause: String,
    },

    /// A mistake of ours.
    #[error("this is a bug in Jobsled, please report it: {0}")]
    Bug(String),
}

impl Error {
    /// An [`Error::Io`] maker for `map_err`.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            doing,
            path,
            source,
        }
    }

    /// The same error about another path, where it is about one.
    pub(crate) fn map_path(mut self, f: impl FnOnce(&Path) -> PathBuf) -> Error {
        match &mut self {
            Error::Damaged { path, .. }
            | Error::Missing { path, .. }
            | Error::ForeignWitness { path }
            | Error::NothingLeft { path }
            | Error::NewerFormat { path, .. }
            | Error::Layout { path, .. }
            | Error::NotAStore { path, .. }
            | Error::Io { path, .. } => *path = f(path),
            _ => {}
        }
        self
    }

    /// Whether the journal can no longer be written and only a restart of the process helps.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Error::Refused { .. } | Error::Unknown { .. })
    }
}
