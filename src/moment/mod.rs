//! What is made of one moment of a store: backup, verification, export; import, the way back; and repair, of what is
//! left of one.
//!
//! Owns the reading of a held moment on the caller's thread, and the building of a store beside others.
//! Sits on the engine: the writer holds the moment and hands out its entries (`engine/hold.rs`). Must not
//! write to the store that it reads.

mod backup;
mod build;
mod built;
#[cfg(feature = "json")]
mod export;
mod held;
#[cfg(feature = "json")]
mod import;
#[cfg(feature = "json")]
mod job_line;
#[cfg(feature = "json")]
mod lines;
mod part;
mod repair;
mod salvage;
mod tally;
mod verify;

pub use backup::BackupReport;
#[cfg(feature = "json")]
pub use export::ExportReport;
#[cfg(all(feature = "json", feature = "lab"))]
pub(crate) use import::import_in_memory;
#[cfg(feature = "json")]
pub use import::{ImportReport, import};
pub use repair::{JournalEnd, LostFile, LostJob, RepairReport, UncertainJob, repair};
pub use verify::{VerifyReport, verify};

#[cfg(test)]
#[cfg(feature = "json")]
mod tests;
