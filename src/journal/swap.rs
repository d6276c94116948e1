//! A directory that is replaced as a whole, or not at all.
//!
//! sled's open writes: a new snapshot (renamed and not synced), zeroes over what the new snapshot calls
//! free, a shorter file. If a power cut keeps the later ones and loses the first, acknowledged groups
//! are gone. So sled never opens the journal itself, but a copy; when that is open and synced it takes
//! the original's place. A cut at any moment leaves one whole directory, and damage found on the way
//! leaves the original as evidence.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fault::{self, Point};
use crate::sys::ballast::is_no_room;
use crate::sys::files;

/// The directory and its two neighbours.
#[derive(Clone, Debug)]
pub(super) struct Swap {
    parent: PathBuf,
    /// The directory itself.
    pub(super) now: PathBuf,
    /// The copy, until it is complete.
    pub(super) new: PathBuf,
    /// The original, until the copy has its name and was read.
    pub(super) old: PathBuf,
}

impl Swap {
    pub(super) fn of(parent: &Path, name: &str) -> Swap {
        Swap {
            parent: parent.to_owned(),
            now: parent.join(name),
            new: parent.join(format!("{name}.new")),
            old: parent.join(format!("{name}.old")),
        }
    }

    /// Where the directory is, also between its two names. Once the original has lost its name, the copy is
    /// complete and on stable storage; before that, it may be half.
    pub(super) fn whole(&self) -> &Path {
        if self.now.exists() || !self.old.exists() {
            &self.now
        } else if self.new.exists() {
            &self.new
        } else {
            &self.old
        }
    }

    /// Ends a swap that was cut short. An original that is still there stays, as evidence, until what took its
    /// place has been read: see [`replace`](Swap::replace), [`forget_old`](Swap::forget_old).
    pub(super) fn finish(&self) -> Result<()> {
        let whole = self.whole();
        if whole != self.now {
            self.rename(whole, &self.now)?;
        }
        files::remove_dir_if_there(&self.new)
    }

    /// What took its place has been read and is on stable storage.
    pub(super) fn forget_old(&self) -> Result<()> {
        files::remove_dir_if_there(&self.old)
    }

    /// Copies the directory, lets `change` work on the copy and puts the copy in its place. What
    /// `change` leaves open stays open; it may write `room` bytes more. `None` if the disk has no room for it;
    /// nothing is changed then.
    pub(super) fn replace<T>(
        &self,
        room: u64,
        change: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<Option<T>> {
        // Asked before: a disk that gets full in the middle makes sled panic, which looks like damage.
        let needed = files::bytes_below(&self.now)?.saturating_add(room);
        if files::free_bytes(&self.parent).is_ok_and(|free| free < needed) {
            return Ok(None);
        }
        let changed = files::copy_dir(&self.now, &self.new).and_then(|()| change(&self.new));
        let changed = match changed {
            Ok(changed) => changed,
            Err(error) => {
                // The original is the evidence; the copy is of no use.
                files::remove_dir_if_there(&self.new)?;
                return match error {
                    Error::Io { source, .. } if is_no_room(source.kind()) => Ok(None),
                    error => Err(self.about_original(error)),
                };
            }
        };
        sync_tree(&self.new)?;
        // Its name, too: else the original could lose its own while a remnant that was removed has the copy's again.
        files::sync_dir(&self.parent)?;
        fault::point(Point::Copied);
        self.forget_old()?;
        self.rename(&self.now, &self.old)?;
        fault::point(Point::Unnamed);
        self.put_in_place()?;
        fault::point(Point::Renamed);
        self.forget_old()?;
        Ok(Some(changed))
    }

    /// Gives the new directory, complete and synced, the name.
    pub(super) fn put_in_place(&self) -> Result<()> {
        self.rename(&self.new, &self.now)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(Error::io("rename", from))?;
        files::sync_dir(&self.parent)
    }

    /// Damage was found in the copy, but it is the original that people have to look at.
    fn about_original(&self, error: Error) -> Error {
        match error {
            Error::Damaged { what, reason, .. } => Error::Damaged {
                path: self.now.clone(),
                what,
                reason,
            },
            other => other,
        }
    }
}

/// Puts a directory and all in it on stable storage. sled syncs neither `conf` nor any directory.
pub(super) fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            files::sync_file(&path)?;
        }
    }
    files::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tempfile::TempDir;

    use super::*;

    /// A process died between the two names. The original was taken then, and the copy, complete and on stable
    /// storage, removed before anybody had read the original: damaged, it was all there was.
    #[test]
    fn died_between_two_names() {
        let dir = TempDir::new().unwrap();
        let swap = Swap::of(dir.path(), "journal");
        for (path, text) in [(&swap.old, "original"), (&swap.new, "copy")] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("db"), text).unwrap();
        }
        let says = |path: &Path| fs::read_to_string(path.join("db")).unwrap();
        assert_eq!(says(swap.whole()), "copy");
        swap.finish().unwrap();
        assert_eq!(says(&swap.now), "copy");

        let damaged = swap.replace(0, |_| -> Result<()> {
            Err(Error::Bug("damaged".to_owned()))
        });
        assert!(damaged.is_err());
        assert_eq!(says(&swap.now), "copy");
        assert_eq!(
            says(&swap.old),
            "original",
            "evidence until the copy is read"
        );
        assert_eq!(says(swap.whole()), "copy", "it has its name");

        swap.replace(0, |_| Ok(())).unwrap();
        assert_eq!(says(&swap.now), "copy");
        assert!(!swap.old.exists() && !swap.new.exists());

        // Before the first name was taken, a copy may be half.
        fs::create_dir(&swap.new).unwrap();
        swap.finish().unwrap();
        assert_eq!(says(&swap.now), "copy");
        assert!(!swap.new.exists());
    }

    #[test]
    fn no_room_leaves_the_original() {
        for (kind, is_room) in [
            (ErrorKind::StorageFull, true),
            (ErrorKind::QuotaExceeded, true),
            (ErrorKind::PermissionDenied, false),
        ] {
            let dir = TempDir::new().unwrap();
            let swap = Swap::of(dir.path(), "journal");
            fs::create_dir(&swap.now).unwrap();
            let refuse = |path: &Path| -> Result<()> { Err(Error::io("write", path)(kind.into())) };
            let replaced = swap.replace(0, refuse);
            assert_eq!(matches!(replaced, Ok(None)), is_room, "{replaced:?}");
            assert!(swap.now.exists() && !swap.new.exists());
        }
        let dir = TempDir::new().unwrap();
        let swap = Swap::of(dir.path(), "journal");
        fs::create_dir(&swap.now).unwrap();
        let replaced = swap.replace(u64::MAX, |_| -> Result<()> { panic!("begun without room") });
        assert!(matches!(replaced, Ok(None)), "{replaced:?}");
    }
}
