//! The journal on sled 0.34.7.
//!
//! `flush` is not enough: on Linux it ends in `sync_file_range`, which neither writes the file's size
//! and extents nor empties the drive's cache. Every sync is `flush` and then `fdatasync` on our own
//! descriptor of sled's `db`.

mod open;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use open::{message, open_db, panicked, sled_error};

use super::commit::Geometry;
use super::leaves::{self, Key, Leaves};
use super::swap::{Swap, sync_tree};
use super::{EntryBytes, Journal};
use crate::error::{Error, Result};
use crate::fault::{self, Bug, Point};
use crate::sys;

/// sled's open runs on a thread of its own; past this it is taken for hung. It replays at most what
/// was written since the last open, some hundred megabytes a second.
const OPEN_LIMIT: Duration = Duration::from_mins(10);
/// Logs of up to so many segments (128 MiB) are opened once more when they are closed, for a fresh
/// snapshot; it costs a copy.
const SNAPSHOT_AT_CLOSE_MAX: u64 = 32;
/// A check that read fewer segments (16 MiB) took too little memory to be worth another opening.
const RELEASE_MIN: u64 = 4;

/// Reading a damaged log through sled may take so long; what sled would give is found in the log's bytes as well.
const SALVAGE_LIMIT: Duration = Duration::from_secs(10);

/// What sled gave of damaged files.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) count: u64,
    pub(super) entries: Vec<(u64, EntryBytes)>,
}

#[derive(Debug)]
pub(super) struct SledJournal {
    /// `None` only while it is being reopened, or after that failed.
    db: Option<sled::Db>,
    /// Our own descriptor of `db`, for `fdatasync`.
    file: File,
    path: PathBuf,
    swap: Swap,
    geometry: Geometry,
    /// As found before the first change.
    leaves: Option<Leaves>,
    /// Bytes of entries read by scans since it was opened.
    scanned: Cell<u64>,
}

/// What an open journal holds: the number of its entries, and a hash of their keys and bytes.
#[derive(Debug, PartialEq)]
struct Fingerprint {
    entries: u64,
    hash: blake3::Hash,
}

impl SledJournal {
    /// Opens the journal by copy and swap (see `swap.rs`).
    ///
    /// `check` looks at what was opened before it takes the original's place: if it refuses, the original
    /// is as it was. Where there is no room for a copy, sled opens the original.
    pub(super) fn open(
        swap: &Swap,
        geometry: Geometry,
        check: &mut dyn FnMut(&mut dyn Journal) -> Result<()>,
    ) -> Result<SledJournal> {
        let opened = swap.replace(room(geometry), |copy| {
            let mut journal = SledJournal::open_checked(copy, swap, geometry, check)?;
            journal.sync()?;
            if cfg!(unix) {
                return Ok(Some(journal));
            }
            // Elsewhere a directory with open files cannot be renamed.
            journal.shut()?;
            Ok(None)
        })?;
        match opened {
            Some(Some(mut journal)) => {
                journal.path.clone_from(&swap.now);
                Ok(journal)
            }
            Some(None) => SledJournal::open_files(&swap.now, swap, geometry),
            None => {
                let path = swap.now.display();
                log::warn!("{path}: no room to open a copy, opening in place");
                SledJournal::open_in_place(swap, geometry, check)
            }
        }
    }

    /// sled opens the original: for large journals. If hardly anything is live, a power cut in these
    /// milliseconds can cost acknowledged groups; everything is synced at once, so that it is no longer than
    /// that.
    pub(super) fn open_in_place(
        swap: &Swap,
        geometry: Geometry,
        check: &mut dyn FnMut(&mut dyn Journal) -> Result<()>,
    ) -> Result<SledJournal> {
        let mut journal = SledJournal::open_checked(&swap.now, swap, geometry, check)?;
        journal.sync()?;
        sync_tree(&swap.now)?;
        swap.forget_old()?;
        Ok(journal)
    }

    /// Opens the files in `path`, lets `check` read them, and gives back the memory that this took:
    /// `cache_capacity` does not bound a scan, and a drop alone gives nothing back to the system. So
    /// drop, trim the heap, open again (measured: 247 MB to 13 MB at a million pending jobs, 15 ms).
    fn open_checked(
        path: &Path,
        swap: &Swap,
        geometry: Geometry,
        check: &mut dyn FnMut(&mut dyn Journal) -> Result<()>,
    ) -> Result<SledJournal> {
        let mut journal = SledJournal::open_files(path, swap, geometry)?;
        journal.check(check)?;
        if journal.scanned.get() < RELEASE_MIN * u64::from(geometry.segment_bytes) {
            return Ok(journal);
        }
        let newest = journal.newest()?;
        journal.shut()?;
        sys::heap::trim();
        let reopened = SledJournal::open_files(path, swap, geometry)?;
        // A second full scan would take the memory again. What sled drops, it drops from the end of its log.
        if reopened.newest()? != newest {
            return Err(reopened.incomplete());
        }
        Ok(reopened)
    }

    /// Makes the journal's files in the swap's new directory, lets `fill` write into them, and leaves everything
    /// closed and synced.
    pub(super) fn make(
        swap: &Swap,
        geometry: Geometry,
        fill: impl FnOnce(&mut dyn Journal) -> Result<()>,
    ) -> Result<()> {
        let mut journal = SledJournal::open_files(&swap.new, swap, geometry)?;
        journal.check(fill)?;
        journal.shut()?;
        sync_tree(&swap.new)
    }

    /// Opens a journal in place that nobody depends on yet, a copy, lets `check` read it, and closes it. That
    /// leaves a fresh snapshot (see `close`), and everything synced.
    pub(super) fn look(
        swap: &Swap,
        geometry: Geometry,
        check: impl FnOnce(&mut dyn Journal) -> Result<()>,
    ) -> Result<()> {
        let mut journal = SledJournal::open_files(&swap.now, swap, geometry)?;
        let checked = journal.check(check);
        let scanned = journal.scanned.get();
        let shut = checked.and_then(|()| journal.shut());
        if scanned >= RELEASE_MIN * u64::from(geometry.segment_bytes) {
            sys::heap::trim();
        }
        shut?;
        sync_tree(&swap.now)
    }

    /// All entries that sled still gives of damaged files, but for those that `known` knows the hash of; and how
    /// many it gave. The files are a copy that nobody depends on. On a thread of its own: sled may hang on what it
    /// meets.
    pub(super) fn give_all(
        swap: &Swap,
        geometry: Geometry,
        known: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<Given> {
        let (send, receive) = crossbeam_channel::bounded(1);
        let own = swap.clone();
        let limit = SALVAGE_LIMIT;
        sys::thread::spawn("jobsled-salvage", move || {
            let given = SledJournal::open_files_within(limit, &own.now, &own, geometry)
                .map(|journal| journal.give(&known));
            // Nobody listens any more if the limit has passed.
            let _ = send.send(given);
        })?;
        receive.recv_timeout(limit).unwrap_or_else(|_| {
            Err(Error::Damaged {
                path: swap.now.clone(),
                what: "reading the journal through sled".to_owned(),
                reason: format!("it did not end within {} s", limit.as_secs()),
            })
        })
    }

    /// From the front and from the back, each as far as it can be read.
    fn give(mut self, known: &dyn Fn(&[u8]) -> bool) -> Given {
        let mut given = Given::default();
        let mut seen = std::collections::HashSet::new();
        let mut take = |position: u64, entry: EntryBytes| {
            // A damaged tree may lead in a circle.
            let is_new = seen.insert(position);
            if is_new {
                given.count += 1;
                if !known(&entry) {
                    given.entries.push((position, entry));
                }
            }
            Ok(is_new)
        };
        for read in [self.scan(0, &mut take), self.scan_back(&mut take)] {
            if let Err(error) = read {
                log::info!("read no further: {error}");
            }
        }
        let db = self.db.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
        given
    }

    /// Opens (or makes) the sled files in `path`. The directory must exist.
    fn open_files(path: &Path, swap: &Swap, geometry: Geometry) -> Result<SledJournal> {
        SledJournal::open_files_within(OPEN_LIMIT, path, swap, geometry)
    }

    fn open_files_within(
        limit: Duration,
        path: &Path,
        swap: &Swap,
        geometry: Geometry,
    ) -> Result<SledJournal> {
        // Opened before sled writes for the first time, so that a failed write-back is seen by us.
        let log = path.join("db");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&log)
            .map_err(Error::io("open", &log))?;
        let db = open_db(path, geometry, limit)?;
        let (path, swap) = (path.to_owned(), swap.clone());
        Ok(SledJournal {
            db: Some(db),
            file,
            path,
            swap,
            geometry,
            leaves: None,
            scanned: Cell::new(0),
        })
    }

    /// The newest entry.
    fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        let mut newest = None;
        self.visit(self.db()?.iter().rev(), &mut |position, entry| {
            newest = Some((position, entry.to_vec()));
            Ok(false)
        })?;
        Ok(newest)
    }

    fn leaves(&mut self) -> Result<&mut Leaves> {
        let leaves = match self.leaves.take() {
            Some(leaves) => leaves,
            None => self.call("looking at the keys", |db| {
                let read = |key: sled::IVec| Key::read(&key);
                let first = db.iter().keys().next().transpose()?;
                let last = db.iter().keys().next_back().transpose()?;
                Ok(Leaves::new(first.and_then(read), last.and_then(read)))
            })?,
        };
        Ok(self.leaves.insert(leaves))
    }

    /// Removes the spacers of entries that went some time ago.
    fn sweep(&mut self) -> Result<()> {
        let from = self.leaves()?.swept();
        let oldest = self.call("looking for the oldest entry", |db| {
            for key in db.range(leaves::key(from)..) {
                let (key, value) = key?;
                if !value.is_empty() {
                    return Ok(Key::read(&key).map(Key::position));
                }
            }
            Ok(None)
        })?;
        let swept = self.leaves()?.sweep(oldest.unwrap_or(from));
        self.call("removing spacers", |db| {
            // Small entries have none, unless they came among large ones.
            leaves::spacers(swept).try_for_each(|spacer| db.remove(spacer).map(drop))
        })
    }

    /// Everything that it holds, to compare two openings.
    fn fingerprint(&self) -> Result<Fingerprint> {
        let mut entries = 0_u64;
        let mut hasher = blake3::Hasher::new();
        self.visit(self.db()?.iter(), &mut |position, entry| {
            entries += 1;
            hasher.update(&position.to_le_bytes());
            hasher.update(&entry);
            Ok(true)
        })?;
        Ok(Fingerprint {
            entries,
            hash: hasher.finalize(),
        })
    }

    /// I9: sled ends its log, without a word, at the first record whose checksum is wrong.
    fn incomplete(&self) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            what: "the log".to_owned(),
            reason: "opened again, it does not hold what it held before".to_owned(),
        }
    }

    /// Opens a copy of the closed journal and closes it again, which leaves a fresh snapshot; the copy takes
    /// the original's place only if it holds the same.
    fn renew_snapshot(swap: &Swap, geometry: Geometry, held: &Fingerprint) -> Result<()> {
        let copied = swap.replace(room(geometry), |copy| {
            let journal = SledJournal::open_files(copy, swap, geometry)?;
            if journal.fingerprint()? != *held {
                return Err(journal.incomplete());
            }
            journal.shut()
        })?;
        if copied.is_none() {
            log::warn!(
                "{}: no room for a fresh snapshot on closing",
                swap.now.display()
            );
        }
        Ok(())
    }

    /// Lets somebody work on it; refused, sled's threads and files are given back.
    fn check(&mut self, check: impl FnOnce(&mut dyn Journal) -> Result<()>) -> Result<()> {
        check(self).inspect_err(|_| {
            let db = self.db.take();
            // What sled says on closing damaged files is of no interest, not even a panic.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
        })
    }

    /// Closes the files. sled writes a last time.
    fn shut(mut self) -> Result<()> {
        self.sync()?;
        self.let_go()?;
        self.file
            .sync_all()
            .map_err(Error::io("sync", self.path.join("db")))?;
        sys::files::sync_dir(&self.path)
    }

    /// I8: sled syncs a last time when it is dropped, and panics if that fails.
    fn let_go(&mut self) -> Result<()> {
        let db = self.db.take();
        catch_unwind(AssertUnwindSafe(|| drop(db))).map_err(|panic| Error::Io {
            doing: "close the journal in",
            path: self.path.clone(),
            source: std::io::Error::other(message(panic.as_ref())),
        })
    }

    fn db(&self) -> Result<&sled::Db> {
        self.db
            .as_ref()
            .ok_or_else(|| Error::Bug("the journal is not open".to_owned()))
    }

    fn damaged(&self, what: impl Into<String>, error: &sled::Error) -> Error {
        sled_error(&self.path, what, error)
    }

    /// Runs a call into sled; a panic in there (it panics on some damage) becomes an error.
    fn call<T>(&self, what: &str, f: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T> {
        let db = self.db()?;
        match catch_unwind(AssertUnwindSafe(|| f(db))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.damaged(what, &error)),
            Err(panic) => Err(panicked(&self.path, what, panic.as_ref())),
        }
    }

    fn visit(
        &self,
        entries: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
        visit: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>,
    ) -> Result<()> {
        let mut entries = entries;
        loop {
            let next = catch_unwind(AssertUnwindSafe(|| entries.next()));
            let next =
                next.map_err(|panic| panicked(&self.path, "scanning the journal", panic.as_ref()))?;
            let Some(entry) = next else { return Ok(()) };
            let (key, value) = entry.map_err(|e| self.damaged("scanning the journal", &e))?;
            self.scanned
                .set(self.scanned.get().saturating_add(value.len() as u64));
            match self.key(&key)? {
                Key::Position(position) if !value.is_empty() => {
                    if !visit(position, EntryBytes::Sled(value))? {
                        return Ok(());
                    }
                }
                // Prepared, or a spacer.
                _ if value.is_empty() => {}
                key => {
                    return Err(Error::Damaged {
                        path: self.path.clone(),
                        what: format!("{key:?} in the journal"),
                        reason: format!("it has {} bytes, and must have none", value.len()),
                    });
                }
            }
        }
    }

    fn key(&self, key: &[u8]) -> Result<Key> {
        Key::read(key).ok_or_else(|| Error::Damaged {
            path: self.path.clone(),
            what: "a key of the journal".to_owned(),
            reason: format!("it has {} bytes, a position has 8", key.len()),
        })
    }
}

impl Journal for SledJournal {
    fn append(&mut self, position: u64, entry: &Arc<Vec<u8>>) -> Result<()> {
        let prepared = if entry.len() >= self.geometry.large_entry() {
            self.leaves()?.prepare(position)
        } else {
            position..position
        };
        self.call("inserting an entry", |db| {
            for position in prepared.clone() {
                db.insert(leaves::key(position), &[])?;
                for spacer in leaves::spacers(position..position + 1) {
                    db.insert(spacer, &[])?;
                }
            }
            db.insert(leaves::key(position), entry.as_slice())
        })?;
        Ok(())
    }

    fn remove(&mut self, position: u64) -> Result<()> {
        let is_sweep_due = self.leaves()?.is_sweep_due();
        self.call("removing an entry", |db| db.remove(leaves::key(position)))?;
        if is_sweep_due { self.sweep() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<()> {
        fault::point(Point::Appended);
        if fault::bug(Bug::NoFlush) {
            return Ok(());
        }
        self.call("flushing", |db| db.flush())?;
        fault::point(Point::Flushed);
        if fault::bug(Bug::NoDataSync) {
            return Ok(());
        }
        // I1: so far the system has it; now the disk does.
        self.file
            .sync_data()
            .map_err(Error::io("sync", self.path.join("db")))
    }

    fn read(&mut self, position: u64) -> Result<Option<EntryBytes>> {
        let entry = self.call("reading an entry", |db| db.get(leaves::key(position)))?;
        Ok(entry
            .filter(|entry| !entry.is_empty())
            .map(EntryBytes::Sled))
    }

    fn scan(
        &mut self,
        from: u64,
        visit: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>,
    ) -> Result<()> {
        self.visit(self.db()?.range(leaves::key(from)..), visit)
    }

    fn scan_back(&mut self, visit: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>) -> Result<()> {
        self.visit(self.db()?.iter().rev(), visit)
    }

    fn positions_below(&mut self, position: u64) -> Result<Vec<u64>> {
        let below = ..leaves::key(position);
        let keys = self.call("looking at the keys", |db| {
            db.range(below).keys().collect::<sled::Result<Vec<_>>>()
        })?;
        let mut positions = Vec::new();
        for key in keys {
            // With what was prepared there and never used.
            if let Key::Position(position) = self.key(&key)? {
                positions.push(position);
            }
        }
        Ok(positions)
    }

    fn bytes_on_disk(&self) -> u64 {
        self.file.metadata().map_or(0, |m| m.len())
    }

    /// Opens and closes once more: that leaves a fresh snapshot, with which later damage becomes a clean
    /// error instead of a panic (and the next open has nothing to replay).
    fn close(self: Box<Self>) -> Result<()> {
        let (swap, geometry) = (self.swap.clone(), self.geometry);
        let segments = self.bytes_on_disk() / u64::from(geometry.segment_bytes);
        let held = (segments <= SNAPSHOT_AT_CLOSE_MAX).then(|| self.fingerprint());
        self.shut()?;
        // All that was acknowledged is in the original and synced: without a snapshot it is closed as well.
        let renewed = held.map_or(Ok(()), |held| {
            SledJournal::renew_snapshot(&swap, geometry, &held?)
        });
        if let Err(error) = renewed {
            log::error!("closed without a fresh snapshot, the journal is as it was: {error}");
        }
        Ok(())
    }
}

impl Drop for SledJournal {
    /// Only a journal whose write failed is dropped open. sled's `Drop` would try to sync once more
    /// and panic if that fails, so it is left alone: the process has to be restarted anyway.
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            std::mem::forget(db);
        }
    }
}

/// What opening and a first group may write beyond the log as it is.
fn room(geometry: Geometry) -> u64 {
    2 * u64::from(geometry.segment_bytes)
}
