//! From a directory to a journal that was read back and found whole: lock, creation, room, damage.

use std::path::Path;
use std::sync::Arc;

use super::core::Disk;
use super::recorder::Recorder;
use super::recover::{Replayed, first_group, read_back};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::journal::{self, Geometry, MemoryDisk, Payloads, Store, StoreHeader};
use crate::ledger::Setup;
use crate::sys;
use crate::sys::lock::{Previous, StoreLock};

/// A store, or its likeness in memory, locked and read back.
pub(crate) struct Opened {
    pub(crate) header: StoreHeader,
    pub(crate) journal: Box<dyn journal::Journal>,
    pub(crate) replayed: Replayed,
    pub(crate) disk: Disk,
}

/// Given up only so that a full store can be opened.
const BALLAST_BYTES: u64 = 4 << 20;

pub(crate) fn open_store(
    dir: &Path,
    take_over: bool,
    clock: &dyn Clock,
    setup: &Setup,
) -> Result<Opened> {
    make_dir(dir)?;
    let store = Store::at(dir);
    // Looked at before the lock is taken: somebody else's directory does not get a lock file either. In one that has
    // a lock of ours, whoever holds it may be renaming what is looked at.
    if !sys::lock::is_ours(dir) {
        store.exists()?;
    }
    let (lock, previous) = StoreLock::acquire(dir, take_over)?;
    let now_ms = clock.now().wall_ms;
    if !store.exists()? {
        let geometry = Geometry::of_new_stores();
        store.create(geometry, |chain| first_group(chain, geometry, now_ms))?;
    }
    // Opening writes: a snapshot, and one group. On a full disk the ballast makes room for them.
    if sys::files::free_bytes(dir).is_ok_and(|free| free < BALLAST_BYTES) {
        sys::ballast::release(dir).map_err(Error::io("release the ballast in", dir))?;
    }
    let mut replayed = None;
    let mut check = |header: StoreHeader, journal: &mut dyn journal::Journal| {
        replayed = Some(read_back(
            journal,
            header.store,
            Some(dir),
            setup.clone(),
            now_ms,
        )?);
        Ok(())
    };
    let (header, journal) = store.open(previous != Previous::Clean, &mut check)?;
    let replayed = replayed.ok_or_else(|| Error::Bug("the journal was not read".to_owned()))?;
    let disk = Disk {
        dir: Some(dir.to_owned()),
        witness: None,
        payloads: Arc::new(Payloads::in_dir(store.payloads())?),
        recorder: Arc::new(Recorder::open(&store.recorder(), header.store)?),
        lock: Some(lock),
    };
    Ok(Opened {
        header,
        journal,
        replayed,
        disk,
    })
}

/// The ballast is made anew when there is plenty of room again.
pub(crate) fn renew_ballast(dir: &Path) {
    let roomy = sys::files::free_bytes(dir).is_ok_and(|free| free > 4 * BALLAST_BYTES);
    if roomy && let Err(error) = sys::ballast::ensure(dir, BALLAST_BYTES) {
        log::warn!("{}: no ballast: {error}", dir.display());
    }
}

/// What an engine in memory has in the place of a directory.
#[derive(Clone, Debug)]
pub(crate) struct MemoryStore {
    header: StoreHeader,
    pub(crate) disk: MemoryDisk,
    payloads: Arc<Payloads>,
}

impl MemoryStore {
    pub(crate) fn new(clock: &dyn Clock) -> Result<MemoryStore> {
        let header = StoreHeader {
            store: sys::random_u128(),
            geometry: Geometry::DEFAULT,
        };
        let disk = MemoryDisk::default();
        let mut chain = header.first_chain();
        let group = first_group(&mut chain, header.geometry, clock.now().wall_ms)?;
        journal::commit(
            &mut disk.journal(),
            &group,
            &mut std::collections::VecDeque::new(),
            header.geometry,
        )?;
        let payloads = Arc::new(Payloads::in_memory());
        Ok(MemoryStore {
            header,
            disk,
            payloads,
        })
    }

    pub(crate) fn open(&self, clock: &dyn Clock, setup: Setup) -> Result<Opened> {
        let header = self.header;
        let mut journal: Box<dyn journal::Journal> = Box::new(self.disk.journal());
        let now_ms = clock.now().wall_ms;
        let replayed = read_back(journal.as_mut(), header.store, None, setup, now_ms)?;
        let disk = Disk {
            dir: None,
            witness: None,
            payloads: self.payloads.clone(),
            recorder: Arc::new(Recorder::none()),
            lock: None,
        };
        Ok(Opened {
            header,
            journal,
            replayed,
            disk,
        })
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Error::NotAStore {
            path: dir.to_owned(),
            found: "it is a file".to_owned(),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            match sys::files::create_dir_private(dir) {
                // Somebody else was faster.
                Err(_) if dir.is_dir() => Ok(()),
                created => created,
            }
        }
        Err(e) => Err(Error::io("look at", dir)(e)),
    }
}

/// Errors from deep down name the store that they are about.
pub(crate) fn in_store(error: Error, dir: Option<&Path>) -> Error {
    let Some(dir) = dir else { return error };
    error.map_path(|path| {
        if path == Path::new("journal") {
            dir.join(path)
        } else {
            path.to_owned()
        }
    })
}
