//! A durable job engine that lives inside your process.
//!
//! Jobs are kept in an embedded log and run on plain threads (or a rayon pool) by priority and
//! wait-until. What [`Engine::enqueue`] acknowledged is on stable storage; after a crash, jobs that were
//! running run again. No server, no async runtime, no polling.
//!
//! ```
//! use jobsled::{Context, Engine, Finished, JobResult, job, rkyv};
//!
//! #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
//! #[rkyv(crate = jobsled::rkyv)]
//! struct CountWords {
//!     text: String,
//! }
//! job!(CountWords, kind = "count-words", output = u64);
//!
//! fn count_words(job: CountWords, _cx: &Context) -> JobResult<u64> {
//!     Ok(job.text.split_whitespace().count() as u64)
//! }
//!
//! # let dir = tempfile::tempdir().expect("a temporary directory");
//! # let path = dir.path().join("jobs");
//! let engine = Engine::builder(path).handle(count_words).open()?;
//! let handle = engine.enqueue(CountWords { text: "a job is a struct".into() })?;
//! assert_eq!(handle.wait()?, Finished::Completed(5));
//! # Ok::<(), jobsled::Error>(())
//! ```
//!
//! What a crash can and cannot cost is told in `docs/durability.md`, how it works in
//! `docs/ARCHITECTURE.md`.

#[cfg(feature = "bench")]
pub mod bench;
mod builder;
mod clock;
#[cfg(all(unix, feature = "command"))]
pub mod command;
#[cfg(feature = "control")]
pub mod control;
mod engine;
mod error;
mod fault;
mod inspect;
mod job;
mod journal;
#[cfg(feature = "lab")]
#[doc(hidden)]
pub mod lab;
mod ledger;
mod moment;
mod sys;
// Its caller's thread waits for two channels at once, which the scheduler of `threads` does not have.
#[cfg(all(feature = "testing", not(shuttle)))]
pub mod testing;
#[cfg(all(test, shuttle))]
mod threads;
mod worker;

pub use builder::{EngineBuilder, Queue, WhenFull};
pub use clock::{Clock, ManualClock, Now, SystemClock};
pub use engine::{
    Batch, Cancel, Change, ChangeAll, Changed, Claim, Delete, Drained, Ended, Engine, Enqueued,
    Event, Events, Finished, Handle, LogPart, PoolHealth, Progress, Prune, PruneReport,
    QueueControl, Request, ShutdownReport, Stored, Subscription, Ticket, Update, What,
};
pub use error::{Error, Result};
pub use inspect::{Health, JobDetails, JobInfo, Query, QueueStats, Stats};
#[cfg(feature = "json")]
pub use job::Json;
pub use job::{
    Backoff, ClaimNumber, DeadReason, Format, InPlace, Job, JobDefaults, JobId, JobResult, OnCrash,
    PayloadError, Priority, Rkyv, State, Stop, UnknownState, View,
};
pub use ledger::{AttemptError, Counters};
pub use moment::{
    BackupReport, JournalEnd, LostFile, LostJob, RepairReport, UncertainJob, VerifyReport, repair,
    verify,
};
#[cfg(feature = "json")]
pub use moment::{ExportReport, ImportReport, import};
pub use rkyv;
pub use worker::{Attempt, AttemptEnd, CancelReason, Context, Pool, Report, Task};

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
