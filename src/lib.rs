//! A durable job engine that lives inside your process.

mod clock;
mod error;
mod job;
mod journal;
mod ledger;
mod sys;
mod worker;

pub use clock::{Clock, ManualClock, Now, SystemClock};
pub use error::{Error, Result};
#[cfg(feature = "json")]
pub use job::Json;
pub use job::{
    Backoff, ClaimNumber, DeadReason, Format, InPlace, Job, JobDefaults, JobId, JobResult, OnCrash,
    PayloadError, Priority, Rkyv, State, Stop, View,
};
pub use ledger::{AttemptError, Counters};
pub use rkyv;
