//! Opening sled, and what it says when it cannot.

use std::any::Any;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::journal::commit::Geometry;
use crate::sys;

/// sled's own cache, in bytes as they are on disk. A scan goes past it; see `open_checked`.
const CACHE_BYTES: u64 = 32 << 20;
/// sled's pool, which needs one, and whoever works beside it.
const SLED_THREADS_MIN: usize = 2;
/// After a drop, sled's pool may hold its lock for a moment longer.
const RELEASE_TRIES: u32 = 2_000;

/// Opens sled under a watchdog. I8: on damage it may panic, and then another of its threads may wait for
/// ever.
pub(super) fn open_db(path: &Path, geometry: Geometry, limit: Duration) -> Result<sled::Db> {
    remove_half_made_snapshots(path)?;
    // sled starts its threads at its first flush, says nothing if none is to be had, and waits for them without end.
    sys::thread::is_room_for(SLED_THREADS_MIN, "jobsled-open")?;
    let (send, receive) = crossbeam_channel::bounded(1);
    let config = sled::Config::new()
        .path(path)
        .segment_size(geometry.segment_bytes as usize)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    sys::thread::spawn("jobsled-open", move || {
        let opened = catch_unwind(AssertUnwindSafe(|| open_when_released(&config)));
        // Nobody listens any more if the limit has passed.
        let _ = send.send(opened);
    })?;
    match receive.recv_timeout(limit) {
        Ok(Ok(Ok(db))) => Ok(db),
        Ok(Ok(Err(error))) => Err(sled_error(path, "opening the journal", &error)),
        Ok(Err(panic)) => Err(panicked(path, "opening the journal", panic.as_ref())),
        Err(_) => Err(Error::Damaged {
            path: path.to_owned(),
            what: "opening the journal".to_owned(),
            reason: format!("it did not end within {} s", limit.as_secs()),
        }),
    }
}

fn open_when_released(config: &sled::Config) -> sled::Result<sled::Db> {
    let mut tries = 0;
    loop {
        match config.open() {
            Err(sled::Error::Io(e)) if tries < RELEASE_TRIES && is_still_held(&e) => {
                tries += 1;
                std::thread::park_timeout(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

fn is_still_held(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// A snapshot that a crash left half made sorts last, is read first and fails every later open. The
/// finished one is renamed only when it is synced, so removing the other is safe.
fn remove_half_made_snapshots(path: &Path) -> Result<()> {
    let entries = std::fs::read_dir(path).map_err(Error::io("list", path))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("list", path))?;
        if entry.file_name().to_string_lossy().ends_with(".generating") {
            let file = entry.path();
            std::fs::remove_file(&file)
                .map_err(Error::io("remove the half-made snapshot", file))?;
        }
    }
    Ok(())
}

pub(super) fn sled_error(path: &Path, what: impl Into<String>, error: &sled::Error) -> Error {
    match error {
        sled::Error::Io(e) => Error::Io {
            doing: "read or write the journal in",
            path: path.to_owned(),
            source: std::io::Error::new(e.kind(), e.to_string()),
        },
        other => Error::Damaged {
            path: path.to_owned(),
            what: what.into(),
            reason: other.to_string(),
        },
    }
}

pub(super) fn panicked(path: &Path, what: &str, panic: &(dyn Any + Send)) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
        reason: format!("the log could not be read ({})", message(panic)),
    }
}

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}
