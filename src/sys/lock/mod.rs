//! The store's lock: one engine per store, and what the last one left behind.
//!
//! `<store>/lock` is locked as a file, exclusively, for as long as an engine is open; the system lets
//! go of it when the process ends, however it ends. Its text says who has it and, after a crash, who
//! had it. The file is never deleted: two processes could otherwise lock two files of one name.

mod owner;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use self::owner::{LEN, Owner, State, newer_version};
use super::files;
use crate::error::{Error, Result};

const FILE_NAME: &str = "lock";

/// A process that is killed while it starts another leaves its lock to that one, until it executes its own program:
/// for a moment. Nothing tells when that is over.
const HEIR_TRIES: u32 = 100;
const HEIR_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// How the store was left by the engine before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Previous {
    /// No engine ever finished taking this lock. With data in the store: its lock file was lost, so
    /// treat it as unclean.
    Never,
    /// The last engine was closed.
    Clean,
    /// The last engine crashed, or the text is not readable.
    Unclean,
}

/// The right to use a store. Dropping it lets go; the text still says *open* unless
/// [`StoreLock::mark_clean`] came before.
#[derive(Debug)]
pub(crate) struct StoreLock {
    file: File,
    path: PathBuf,
    owner: Owner,
}

impl StoreLock {
    /// Takes the lock or says at once who has it. On return our own text is on stable storage.
    ///
    /// The lock of another machine proves nothing here (it may sit on a network disk whose locks do
    /// not reach us), so a store that another host left open is refused unless `take_over`. A
    /// container with another name on *this* boot of this kernel is no other machine.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`]; [`Error::ForeignLock`] and [`Error::NewerFormat`] (the text stays as it was);
    /// [`Error::Io`].
    pub(crate) fn acquire(store_dir: &Path, take_over: bool) -> Result<(StoreLock, Previous)> {
        let path = store_dir.join(FILE_NAME);
        let file = files::private_file()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", path.as_path()))?;
        // E8: this is the proof; the text only says who has it, or had it.
        let mut tries = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries < HEIR_TRIES && is_of_the_dead(&path) => {
                    tries += 1;
                    std::thread::park_timeout(HEIR_PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(locked_by(store_dir, &file)),
                Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
            }
        }
        let lock = StoreLock {
            file,
            path,
            owner: Owner::us(),
        };

        let text = read_text(&lock.file).map_err(Error::io("read", lock.path.as_path()))?;
        let previous = match Owner::parse(&text) {
            None if text.is_empty() => Previous::Never,
            None if let Some(found) = newer_version(&text) => {
                return Err(Error::NewerFormat {
                    path: lock.path.clone(),
                    what: "lock version",
                    found,
                    known: 1,
                });
            }
            None => Previous::Unclean,
            Some((_, State::Clean)) => Previous::Clean,
            Some((last, State::Open)) if take_over || last.is_of_this_machine() => {
                log::debug!("{} was left open by {last:?}", store_dir.display());
                Previous::Unclean
            }
            Some((last, State::Open)) => {
                let path = store_dir.to_path_buf();
                return Err(Error::ForeignLock {
                    path,
                    pid: last.pid,
                    host: last.host,
                });
            }
        };
        lock.write(State::Open)?;
        if previous == Previous::Never {
            // A lock file that a power cut takes away would make a crash look like a new store.
            files::sync_parent(&lock.path)?;
        }
        Ok((lock, previous))
    }

    /// Notes that the store was closed in good order: the last thing to do before dropping the lock,
    /// once everything else is on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`] in a fork of the process that took the lock, [`Error::Io`].
    pub(crate) fn mark_clean(&self) -> Result<()> {
        let (opener, here) = (self.owner.pid, std::process::id());
        if opener != here {
            return Err(Error::Forked { opener, here });
        }
        self.write(State::Clean)
    }

    fn write(&self, state: State) -> Result<()> {
        let text = self.owner.text(state);
        let len = u64::try_from(text.len()).unwrap_or(u64::MAX);
        files::write_at(&self.file, 0, &text)
            .and_then(|()| self.file.set_len(len))
            .and_then(|()| self.file.sync_all())
            .map_err(Error::io("write", self.path.as_path()))
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        let_go(&self.file, self.owner.pid);
    }
}

/// The right to read a store that nobody has open. Nothing in it is changed, not even the lock's text; several
/// may read at once, and no engine opens it meanwhile.
#[derive(Debug)]
pub(crate) struct ReadLock {
    store_dir: PathBuf,
    /// `None`: no engine has had the store since its lock file was lost.
    file: Option<File>,
    opener: u32,
}

impl ReadLock {
    /// Takes it or says at once who has the store open. Who had it open before does not matter.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], [`Error::NewerFormat`], [`Error::Io`].
    pub(crate) fn acquire(store_dir: &Path) -> Result<ReadLock> {
        let path = store_dir.join(FILE_NAME);
        let lock = |file| ReadLock {
            store_dir: store_dir.to_owned(),
            file,
            opener: std::process::id(),
        };
        let file = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(lock(None)),
            opened => opened.map_err(Error::io("open", path.as_path()))?,
        };
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked_by(store_dir, &file)),
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
        }
        let text = read_text(&file).map_err(Error::io("read", path.as_path()))?;
        match newer_version(&text) {
            Some(found) => Err(Error::NewerFormat {
                path,
                what: "lock version",
                found,
                known: 1,
            }),
            None => Ok(lock(Some(file))),
        }
    }

    /// Whether nobody can have opened the store since the lock was taken: where there was no file to lock,
    /// there still is none.
    pub(crate) fn check(&self) -> Result<()> {
        let path = self.store_dir.join(FILE_NAME);
        match File::open(&path) {
            Ok(file) if self.file.is_none() => Err(locked_by(&self.store_dir, &file)),
            _ => Ok(()),
        }
    }
}

impl Drop for ReadLock {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let_go(file, self.opener);
        }
    }
}

/// Unlocks a file that this process locked.
fn let_go(file: &File, opener: u32) {
    // Closing is not enough: a child that another thread is just starting holds a copy of the
    // descriptor until its exec, and reopening right now would fail. But a fork must not let go
    // of what its parent holds: unlocking works on all copies, closing only on its own.
    if std::process::id() == opener {
        // The system unlocks in any case when the last copy is closed.
        let _ = file.unlock();
    }
}

/// Whether the process that the text names as the owner, on this very machine, is gone.
fn is_of_the_dead(lock_file: &Path) -> bool {
    let text = File::open(lock_file).and_then(|file| read_text(&file));
    let owner = text.ok().and_then(|text| Owner::parse(&text));
    owner.is_some_and(|(owner, state)| {
        state == State::Open
            && owner.boot != 0
            && owner.boot == super::boot_id()
            && owner.host == super::host_name()
            && !Path::new("/proc").join(owner.pid.to_string()).exists()
    })
}

/// Whether a directory has a lock file that this crate wrote, in whatever version.
pub(crate) fn is_ours(store_dir: &Path) -> bool {
    let text = File::open(store_dir.join(FILE_NAME)).and_then(|file| read_text(&file));
    text.is_ok_and(|text| text.starts_with(b"jobsled lock "))
}

fn read_text(file: &File) -> std::io::Result<Vec<u8>> {
    // One byte more than a good text has tells that it is too long.
    let limit = u64::try_from(LEN).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text)?;
    Ok(text)
}

/// The error for a lock that somebody has. The name is a best effort: Windows does not let others
/// read a locked file, and a holder that did not come to write its name yet has no name.
fn locked_by(store_dir: &Path, file: &File) -> Error {
    let path = store_dir.to_path_buf();
    match read_text(file).ok().and_then(|text| Owner::parse(&text)) {
        Some((owner, State::Open)) => {
            let here = owner.pid == std::process::id() && owner.host == super::host_name();
            Error::Locked {
                path,
                pid: owner.pid,
                host: owner.host,
                here,
            }
        }
        _ => Error::Locked {
            path,
            pid: 0,
            host: "unknown".to_owned(),
            here: false,
        },
    }
}
