//! What is made of one moment of a store: backup, verification, export; and import, the way back.
//!
//! Owns the reading of a held moment on the caller's thread, and the building of a store beside others.
//! Sits on the engine: the writer holds the moment and hands out its entries (`engine/hold.rs`). Must not
//! write to the store that it reads.

mod backup;
mod built;
mod held;
mod part;
mod tally;
mod verify;

pub use backup::BackupReport;
pub use verify::{VerifyReport, verify};
