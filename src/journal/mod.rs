//! The memory: everything that happened, as chained entries under rising positions.
//!
//! Owns the bytes on disk: frames and entries, the write pattern on sled, the opening sequence, the
//! witness, large payload files. Must not know what the events mean; that is the ledger's.

#[cfg(feature = "bench")]
mod bare;
mod carve;
mod commit;
mod entry;
mod frame;
#[cfg(feature = "lab")]
pub mod lab;
mod leaves;
mod memory;
mod payloads;
mod replay;
mod rescue;
mod sled;
mod store;
mod swap;
mod witness;

use std::sync::Arc;

#[cfg(feature = "bench")]
pub use bare::BareJournal;
pub(crate) use carve::Carved;
pub(crate) use commit::{Geometry, commit, remove_all};
pub(crate) use entry::{Chain, Draft, EntryBytes, Frames, Header, Sealed, event_at};
pub(crate) use frame::ReadError;
#[cfg(test)]
pub(crate) use frame::{FrameWriter, read as read_frame};
pub(crate) use memory::MemoryDisk;
pub(crate) use payloads::Payloads;
pub(crate) use replay::{Head, Replay, Visit, find_head, replay};
pub(crate) use rescue::{End, Piece, Remains, Testimony, rescue};
pub(crate) use store::{Store, StoreHeader};
#[cfg(feature = "control")]
pub(crate) use witness::glance;
pub(crate) use witness::{Found, Glimpse, Mark, Witness, glimpse};

use crate::error::Result;

/// A log of entries under rising positions. Nothing is durable before `sync` returned; what a caller
/// may rely on then is exactly: all of it.
pub(crate) trait Journal: Send {
    fn append(&mut self, position: u64, entry: &Arc<Vec<u8>>) -> Result<()>;
    fn remove(&mut self, position: u64) -> Result<()>;
    /// A failure is final: never call anything but `close` after one.
    fn sync(&mut self) -> Result<()>;
    fn read(&mut self, position: u64) -> Result<Option<EntryBytes>>;
    /// Visits entries from position `from` on, rising, until `visit` returns false.
    fn scan(
        &mut self,
        from: u64,
        visit: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>,
    ) -> Result<()>;
    /// Visits entries from the newest on, falling, until `visit` returns false.
    fn scan_back(&mut self, visit: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>) -> Result<()>;
    /// Positions of entries below `position`.
    fn positions_below(&mut self, position: u64) -> Result<Vec<u64>>;
    fn bytes_on_disk(&self) -> u64;
    fn close(self: Box<Self>) -> Result<()>;
}
