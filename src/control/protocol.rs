//! What is said over the socket: one JSON line a call, one or more lines the answer. docs/control.md tells it to
//! people who write a client.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::job::OnCrash;
use crate::{Cancel, Changed, Delete};

/// The version of the conversation.
pub const PROTOCOL: u32 = 1;

/// The longest call, in bytes.
pub const CALL_BYTES_MAX: usize = 64 << 20;

/// The first line of a connection, said by whoever has the store open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Greeting {
    /// [`PROTOCOL`] of the other end.
    pub jobsled: u32,
    /// Its version of this crate.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The store's directory.
    pub store: String,
    /// Kinds of jobs that it runs.
    pub runs: Vec<String>,
}

/// A call: what can be asked of an open store. Times are milliseconds, points in time counted from 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Call {
    /// Stores jobs, all of them or none: `[{"id":1,"new":true}, …]`. On stable storage when answered.
    Enqueue {
        /// At least one.
        jobs: Vec<NewJob>,
    },
    /// A page of jobs, by rising id: a [`JobPage`](super::JobPage).
    Jobs {
        /// Only in this state.
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<String>,
        /// Only of this kind.
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
        /// Only in this queue.
        #[serde(skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        /// Only with a higher id.
        #[serde(default)]
        after: u64,
        /// At most so many; never more than 1,000.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// One job with payload and output: a [`JobView`](super::JobView), or null if there is none.
    Job {
        /// Its id.
        id: u64,
    },
    /// Waits until a job has ended, at most so long: `true` if it has (or is not there), `false` if time was up.
    Wait {
        /// Its id.
        id: u64,
        /// How long.
        within_ms: u64,
    },
    /// What a running job has written since `from`: a [`LogView`](super::LogView), or null if it does not run here.
    Log {
        /// Its id.
        id: u64,
        /// The first byte asked for, counted from the begin of the attempt.
        #[serde(default)]
        from: u64,
        /// How long to wait for more.
        #[serde(default)]
        wait_ms: u64,
    },
    /// Cancels jobs: an answer each, [`Cancel`] in words.
    Cancel {
        /// The jobs.
        ids: Vec<u64>,
        /// Kept with them.
        #[serde(default)]
        reason: String,
    },
    /// Deletes jobs: an answer each.
    Delete {
        /// The jobs.
        ids: Vec<u64>,
    },
    /// Lets jobs run as soon as they can: an answer each.
    Retry {
        /// The jobs.
        ids: Vec<u64>,
    },
    /// Sets when jobs may run (one of the two): an answer each.
    Reschedule {
        /// The jobs.
        ids: Vec<u64>,
        /// Not before this time.
        #[serde(skip_serializing_if = "Option::is_none")]
        at_ms: Option<i64>,
        /// Not before so much time has passed.
        #[serde(skip_serializing_if = "Option::is_none")]
        after_ms: Option<u64>,
    },
    /// Sets the priority of jobs: an answer each.
    SetPriority {
        /// The jobs.
        ids: Vec<u64>,
        /// Higher runs first.
        priority: i32,
    },
    /// Moves jobs to another queue: an answer each.
    Move {
        /// The jobs.
        ids: Vec<u64>,
        /// Where to.
        queue: String,
    },
    /// Sets a queue; what is left out stays.
    Queue {
        /// Its name.
        name: String,
        /// Whether it starts no jobs.
        #[serde(skip_serializing_if = "Option::is_none")]
        paused: Option<bool>,
        /// Most jobs at a time; 0: as the program configured it.
        #[serde(skip_serializing_if = "Option::is_none")]
        concurrency: Option<u32>,
    },
    /// Deletes finished jobs: how many.
    Prune {
        /// Only in this state.
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<String>,
        /// Only of this kind.
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
        /// Only in this queue.
        #[serde(skip_serializing_if = "Option::is_none")]
        queue: Option<String>,
        /// Only those that ended so long ago.
        #[serde(default)]
        older_ms: u64,
    },
    /// Figures of one moment: a [`StatsView`](super::StatsView).
    Stats {},
    /// How the engine is: a [`HealthView`](super::HealthView).
    Health {},
    /// Writes a verified copy of this moment into a new directory: a [`CopyView`](super::CopyView).
    Backup {
        /// The whole path of the directory.
        to: PathBuf,
    },
    /// Checks a copy of this moment: a [`CopyView`](super::CopyView).
    Verify {
        /// Where the copy may be (default: the system's directory for temporary files).
        #[serde(skip_serializing_if = "Option::is_none")]
        tmp: Option<PathBuf>,
    },
    /// Everything of this moment, a line each, as [`Engine::export`](crate::Engine::export) writes it; then a
    /// [`CopyView`](super::CopyView).
    Export {},
    /// News, a line each ([`EventView`](super::EventView)), until one side hangs up; now and then a line
    /// `{"event":"alive"}`.
    Watch {},
}

/// A job to be stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NewJob {
    /// Its kind.
    pub kind: String,
    /// What its handler gets.
    #[serde(default)]
    pub payload: Value,
    /// Its queue (default: `default`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Higher runs first (default: 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Not before so much time has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// Not before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
    /// Not after so much time has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_after_ms: Option<u64>,
    /// Not after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// Makes it unique among those of its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Failed attempts until it is dead (default: 10).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u16>,
    /// How long one attempt may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    /// How long its handler may go without a sign of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_timeout_ms: Option<u64>,
    /// What becomes of it when its process dies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_crash: Option<Crash>,
    /// Pairs for listings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl NewJob {
    /// A job without options.
    pub fn new(kind: impl Into<String>, payload: Value) -> NewJob {
        NewJob {
            kind: kind.into(),
            payload,
            ..NewJob::default()
        }
    }
}

/// [`OnCrash`] in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Crash {
    /// Run again, always.
    Rerun,
    /// Run again; quarantined after so many crashes.
    QuarantineAfter(u8),
    /// Never again: at most once.
    Dead,
}

/// What became of one new job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Placed {
    /// The job, or the one that has its key.
    pub id: u64,
    /// False: the key was taken and nothing was stored.
    pub new: bool,
}

/// Why a call was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Fault {
    /// What sort of trouble it is.
    pub code: Code,
    /// What was being done, what was found, what to do.
    pub message: String,
}

/// Sorts of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// The call is wrong. Nothing was done.
    Invalid,
    /// Not now: full, busy, about to close. Nothing was done; the same call may work later.
    NotNow,
    /// Another process has the store open and does not answer.
    InUse,
    /// There is no store, or something else is there.
    NotAStore,
    /// The store belongs to somebody else.
    NotOurs,
    /// The store is damaged, or not readable by this version.
    Damaged,
    /// The disk is full.
    DiskFull,
    /// An earlier write failed. Nothing was done; the owner must be restarted.
    Refused,
    /// It may or may not have been done.
    OutcomeUnknown,
    /// Anything else.
    #[serde(other)]
    Failed,
}

impl Fault {
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Fault {
        let message = message.to_string();
        Fault { code, message }
    }
}

impl From<&Error> for Code {
    fn from(error: &Error) -> Code {
        match error {
            Error::InBatch { source, .. } => Code::from(&**source),
            Error::Invalid { .. }
            | Error::TooLarge { .. }
            | Error::Payload { .. }
            | Error::NoHandler { .. }
            | Error::Occupied { .. }
            | Error::Import { .. }
            | Error::WaitInHandler { .. } => Code::Invalid,
            Error::Full { .. } | Error::Draining | Error::Closed => Code::NotNow,
            Error::Locked { .. } | Error::ForeignLock { .. } => Code::InUse,
            Error::NotAStore { .. } => Code::NotAStore,
            Error::Damaged { .. }
            | Error::Missing { .. }
            | Error::NothingLeft { .. }
            | Error::ForeignWitness { .. }
            | Error::NewerFormat { .. }
            | Error::Layout { .. } => Code::Damaged,
            Error::DiskFull { .. } | Error::NoRoom { .. } => Code::DiskFull,
            Error::Io { source, .. } if crate::sys::ballast::is_no_room(source.kind()) => {
                Code::DiskFull
            }
            Error::Refused { .. } => Code::Refused,
            Error::Unknown { .. } => Code::OutcomeUnknown,
            _ => Code::Failed,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::new(Code::from(&error), error)
    }
}

impl From<Crash> for OnCrash {
    fn from(crash: Crash) -> OnCrash {
        match crash {
            Crash::Rerun => OnCrash::Rerun,
            Crash::QuarantineAfter(crashes) => OnCrash::QuarantineAfter(crashes),
            Crash::Dead => OnCrash::Dead,
        }
    }
}

/// What became of a wish, in words: `done`, `cancelled`, `asked to stop`, `running`, `finished`, …
pub(crate) trait InWords {
    /// The words.
    fn in_words(self) -> String;
}

impl InWords for Cancel {
    fn in_words(self) -> String {
        match self {
            Cancel::Cancelled => "cancelled".to_owned(),
            Cancel::AskedToStop => "asked_to_stop".to_owned(),
            Cancel::AlreadyFinished(state) => format!("already_{state}"),
            Cancel::Unknown => "unknown".to_owned(),
        }
    }
}

impl InWords for Delete {
    fn in_words(self) -> String {
        match self {
            Delete::Deleted => "deleted",
            Delete::IsRunning => "running",
            Delete::Unknown => "unknown",
        }
        .to_owned()
    }
}

impl InWords for Changed {
    fn in_words(self) -> String {
        match self {
            Changed::Done => "done".to_owned(),
            Changed::IsRunning => "running".to_owned(),
            Changed::AlreadyFinished(state) => format!("already_{state}"),
            Changed::PayloadGone => "payload_gone".to_owned(),
            Changed::Unknown => "unknown".to_owned(),
        }
    }
}
