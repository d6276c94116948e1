//! The hands: threads that take claimed jobs, run their handlers and say how it went.
//!
//! Owns the handler registry, the context that a handler sees, one attempt from begin to settle (the
//! only place that catches panics) and the pools. Must not know the journal,
//! nor decide anything about a job: it reports, the ledger decides.

mod attempt;
mod context;
mod handler;
mod pool;
mod slots;
#[cfg(all(test, shuttle))]
mod threads;

pub(crate) use attempt::{AfterJob, Worker};
pub use attempt::{AttemptEnd, Report, Task};
pub use context::{Attempt, CancelReason, Context};
pub(crate) use handler::{Entry, Registry};
pub use pool::Pool;
pub(crate) use pool::{Running, start};
