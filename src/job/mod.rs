//! The nouns: what a job is, what can be asked for it, what can become of it.
//!
//! Owns the [`Job`] trait with its payload formats, ids, names with their limits, retry policy and
//! outcome types. Must not know the ledger, the journal, the engine or any thread.

mod definition;
mod format;
mod id;
mod limits;
mod policy;
mod request;
mod state;
mod stop;

pub use definition::{Job, View};
#[cfg(feature = "json")]
pub use format::Json;
pub(crate) use format::{Encoding, Form, encoding_of};
pub use format::{Format, InPlace, PayloadError, Rkyv};
pub use id::{ClaimNumber, JobId, Priority};
pub(crate) use limits::{
    BATCH_BYTES_MAX, BATCH_JOBS_MAX, ERROR_BYTES_MAX, ERRORS_KEPT_MAX, INLINE_OUTPUT_MAX,
    INLINE_PAYLOAD_MAX, KEY_BYTES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX,
    check_key, check_metadata, check_name, truncate,
};
pub use policy::{Backoff, JobDefaults, OnCrash};
pub(crate) use policy::{Growth, Policy, millis};
pub(crate) use request::{Content, Expiry, NewJob, PayloadRef, Wait};
pub use state::{DeadReason, State, UnknownState};
pub(crate) use stop::StopKind;
pub use stop::{JobResult, Stop};
