//! A store being built beside the name that it will have: whole, or not there.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys::ballast::is_no_room;
use crate::sys::files;
use crate::sys::lock::StoreLock;

/// The file that tells a store being built from one that is wanted: made first, removed last.
const MARKER: &str = "part";
/// What the directory of a store being built holds.
const NAMES: [&str; 11] = [
    MARKER,
    "lock",
    "journal",
    "journal.new",
    "journal.old",
    "witness",
    "witness.new",
    "payloads",
    "recorder",
    "ballast",
    "salvage",
];

/// `<to>.part`, locked. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Part {
    to: PathBuf,
    dir: PathBuf,
    /// `None` once it was let go.
    lock: Option<StoreLock>,
    placed: bool,
}

impl Part {
    /// Begins what will be `to`, which must not be there yet, or be an empty directory.
    pub(super) fn begin(to: &Path) -> Result<Part> {
        check_free(to)?;
        let Some(name) = to.file_name() else {
            return Err(occupied(to, "it has no name of its own"));
        };
        let mut part = name.to_owned();
        part.push(".part");
        let dir = to.with_file_name(part);
        remove_left_over(&dir)?;
        files::create_dir_private(&dir)?;
        let mut part = Part {
            to: to.to_owned(),
            dir,
            lock: None,
            placed: false,
        };
        files::write_new_synced(&part.dir.join(MARKER), b"")?;
        part.lock = Some(StoreLock::acquire(&part.dir, true)?.0);
        Ok(part)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives it its name. I10: all in it is synced and was read back, and the name comes last.
    pub(super) fn put_in_place(mut self) -> Result<()> {
        check_free(&self.to)?;
        if let Some(lock) = self.lock.take() {
            lock.mark_clean()?;
        }
        let marker = self.dir.join(MARKER);
        fs::remove_file(&marker).map_err(Error::io("remove", &marker))?;
        files::sync_dir(&self.dir)?;
        files::rename_dir(&self.dir, &self.to)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.lock = None;
        if self.placed {
            return;
        }
        if let Err(error) = files::remove_dir_if_there(&self.dir) {
            log::warn!("{error}; what was being built is left over");
        }
    }
}

/// A directory for a while; gone when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new directory, for its owner only.
    pub(super) fn below(tmp: &Path) -> Result<Scratch> {
        let dir = tmp.join(format!("jobsled-{:032x}", crate::sys::random_u128()));
        files::create_dir_private(&dir)?;
        Ok(Scratch(dir))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = files::remove_dir_if_there(&self.0) {
            log::warn!("{error}; a copy of a store is left over");
        }
    }
}

/// So many bytes more must fit the disk of `dir`. Asked before: a disk that gets full in the middle makes
/// sled panic, which looks like damage.
pub(super) fn check_room(dir: &Path, needed: u64) -> Result<()> {
    match files::free_bytes(dir) {
        Ok(free) if free < needed => Err(Error::NoRoom {
            path: dir.to_owned(),
            free,
            needed,
        }),
        _ => Ok(()),
    }
}

/// A disk that got full all the same is one without room, too.
pub(super) fn or_no_room(error: Error, dir: &Path, needed: u64) -> Error {
    match error {
        Error::Io { source, .. } if is_no_room(source.kind()) => Error::NoRoom {
            path: dir.to_owned(),
            free: files::free_bytes(dir).unwrap_or(0),
            needed,
        },
        other => other,
    }
}

fn check_free(to: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(to) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.map_err(Error::io("look at", to))?,
    };
    if !found.is_dir() {
        return Err(occupied(to, "it is no directory"));
    }
    let mut entries = fs::read_dir(to).map_err(Error::io("list", to))?;
    match entries.next().transpose().map_err(Error::io("list", to))? {
        None => Ok(()),
        Some(entry) => {
            let name = entry.file_name();
            Err(occupied(
                to,
                &format!("it holds `{}`", name.to_string_lossy()),
            ))
        }
    }
}

/// What a crash left of an earlier attempt goes. Anything that could be something else stays.
fn remove_left_over(dir: &Path) -> Result<()> {
    match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(occupied(dir, "it is no directory")),
        Err(e) => return Err(Error::io("look at", dir)(e)),
    }
    let mut is_empty = true;
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        let name = name.to_string_lossy();
        if !NAMES.contains(&name.as_ref()) {
            return Err(occupied(dir, &format!("it holds `{name}`")));
        }
        is_empty = false;
    }
    if !is_empty && !dir.join(MARKER).exists() {
        return Err(occupied(dir, "it looks like a whole store"));
    }
    // Of an attempt that still goes on it is not a left-over.
    let (_lock, _) = StoreLock::acquire(dir, true)?;
    files::remove_dir_if_there(dir)
}

fn occupied(path: &Path, found: &str) -> Error {
    Error::Occupied {
        path: path.to_owned(),
        found: found.to_owned(),
    }
}
