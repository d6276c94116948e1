//! Frames: one event each, frozen. With `entry.rs` the only code that knows the journal's bytes.
//!
//! A frame is `tag u16 | version u8 | length u16` (little endian) and one rkyv archive of that length.
//! J9: a released wire struct is never edited: a change is a new struct under a new version, a new kind of
//! event is a new tag. `docs/format.md` lists them all. Reading is always validated.

mod read;
mod wire;
mod write;

use super::entry::{ENTRY_CAP, HEADER_LEN};
use crate::job::{
    ERROR_BYTES_MAX, ERRORS_KEPT_MAX, INLINE_OUTPUT_MAX, INLINE_PAYLOAD_MAX, KEY_BYTES_MAX,
    METADATA_BYTES_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX,
};

pub(crate) use read::{ReadError, read};
pub(crate) use write::{FrameError, FrameWriter};

use wire::{ArchivedCarriedV1, ArchivedHistoryV1, ArchivedRareV1, ErrorV1};

/// Bytes in front of each archive.
const FRAME_HEADER: usize = 5;
/// The largest frame, header included.
const FRAME_MAX: usize = ENTRY_CAP - HEADER_LEN;

/// J8: a whole job, with all that it can gather, fits one entry: compaction can always carry it.
const _: () = {
    let names = 2 * NAME_BYTES_MAX + KEY_BYTES_MAX + METADATA_BYTES_MAX;
    let history = ERRORS_KEPT_MAX * (ERROR_BYTES_MAX + 32) + REASON_BYTES_MAX + INLINE_OUTPUT_MAX;
    let fixed = 1024; // all numbers and pointers of CarriedV1 and what it refers to
    let later = 8 * 1024; // what versions to come may give a job: a checkpoint, dependencies, tags
    assert!(names + INLINE_PAYLOAD_MAX + history + fixed + later <= FRAME_MAX);
    assert!(
        size_of::<ArchivedCarriedV1>()
            + size_of::<ArchivedRareV1>()
            + size_of::<ArchivedHistoryV1>()
            <= 512
    );
};

/// A number that changes when rkyv's format features do: stored in each store's header.
pub(crate) fn layout_fingerprint() -> u32 {
    let probe = ErrorV1 {
        attempt: 1,
        at_ms: 2,
        error: "longer than what is kept inline".to_owned(),
    };
    let mut bytes = Vec::new();
    let written = FrameWriter::default().put(&mut bytes, 0, &probe);
    debug_assert!(written.is_ok());
    u32::try_from(xxhash_rust::xxh3::xxh3_64(&bytes) >> 32).unwrap_or(0)
}
