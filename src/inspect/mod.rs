//! Looking: queries, statistics, health. Reads only, through the engine's public way in.
//!
//! Owns the types that people see. Must not change anything, nor show an inner type.

mod health;
mod query;
mod stats;

pub use health::Health;
pub use query::{JobDetails, JobInfo, Query};
pub use stats::{QueueStats, Stats};
