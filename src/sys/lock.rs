//! The store's lock: one engine per store, and what the last one left behind.
//!
//! `<store>/lock` is locked as a file, exclusively, for as long as an engine is open; the system lets
//! go of it when the process ends, however it ends. Its text says who has it and, after a crash, who
//! had it. The file is never deleted: two processes could otherwise lock two files of one name.
//!
//! The text is always [`LEN`] bytes, written at once, padded with line ends:
//!
//! ```text
//! jobsled lock 1
//! state open            or: clean
//! pid 4711
//! host example
//! boot f4d87f34c51e43bab2a51435a995d824
//! check 0123456789abcdef   first 8 bytes of blake3 over the lines above
//! ```
//!
//! A torn or foreign text fails its check and counts as *unclean*: never as clean.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::files;
use crate::error::{Error, Result};

const FILE_NAME: &str = "lock";

/// Size of the text. Names are cut at 255 bytes, the rest needs less than 150.
const LEN: usize = 512;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Clean,
}

/// Who took the lock, as the file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    host: String,
    boot: u128,
}

impl Owner {
    fn us() -> Owner {
        Owner {
            pid: std::process::id(),
            host: super::host_name(),
            boot: super::boot_id(),
        }
    }

    /// Whether holding the file lock proves that this owner is gone.
    fn is_of_this_machine(&self) -> bool {
        let same_boot = self.boot != 0 && self.boot == super::boot_id();
        same_boot || self.host == super::host_name()
    }

    fn text(&self, state: State) -> Vec<u8> {
        let state = match state {
            State::Open => "open",
            State::Clean => "clean",
        };
        let Owner { pid, host, boot } = self;
        let lines =
            format!("jobsled lock 1\nstate {state}\npid {pid}\nhost {host}\nboot {boot:032x}\n");
        let mut text = format!("{lines}check {}\n", check(&lines)).into_bytes();
        text.resize(LEN, b'\n');
        text
    }

    /// `None` for whatever [`Owner::text`] did not write.
    fn parse(text: &[u8]) -> Option<(Owner, State)> {
        if text.len() != LEN {
            return None;
        }
        let (lines, found) = std::str::from_utf8(text).ok()?.split_once("check ")?;
        if found.trim_end_matches('\n') != check(lines) {
            return None;
        }
        let mut line = lines.lines();
        let mut field = |name: &str| line.next()?.strip_prefix(name)?.strip_prefix(' ');
        if field("jobsled lock")? != "1" {
            return None;
        }
        let state = match field("state")? {
            "open" => State::Open,
            "clean" => State::Clean,
            _ => return None,
        };
        let pid = field("pid")?.parse().ok()?;
        let host = field("host")?.to_owned();
        let boot = u128::from_str_radix(field("boot")?, 16).ok()?;
        Some((Owner { pid, host, boot }, state))
    }
}

fn check(lines: &str) -> String {
    let hash = blake3::hash(lines.as_bytes());
    hash.to_hex().chars().take(16).collect()
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

/// The version of a text that a later version of this crate wrote.
fn newer_version(text: &[u8]) -> Option<u32> {
    let line = text
        .strip_prefix(b"jobsled lock ")?
        .split(|b| *b == b'\n')
        .next()?;
    let version = std::str::from_utf8(line).ok()?.parse().ok()?;
    (version > 1).then_some(version)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn left_by(host: &str, boot: u128, state: State) -> (TempDir, Vec<u8>) {
        let dir = TempDir::new().unwrap();
        let text = Owner {
            pid: 4711,
            host: host.to_owned(),
            boot,
        }
        .text(state);
        fs::write(dir.path().join(FILE_NAME), &text).unwrap();
        (dir, text)
    }

    fn previous(dir: &Path) -> Previous {
        StoreLock::acquire(dir, false).unwrap().1
    }

    #[test]
    fn never_then_unclean_then_clean() {
        let dir = TempDir::new().unwrap();
        let (lock, first) = StoreLock::acquire(dir.path(), false).unwrap();
        assert_eq!(first, Previous::Never);
        assert_eq!(lock.owner.pid, std::process::id());
        drop(lock);
        let (lock, second) = StoreLock::acquire(dir.path(), false).unwrap();
        assert_eq!(second, Previous::Unclean);
        lock.mark_clean().unwrap();
        drop(lock);
        assert_eq!(previous(dir.path()), Previous::Clean);
        assert_eq!(
            previous(dir.path()),
            Previous::Unclean,
            "dropped without a mark"
        );
    }

    /// A worker that was killed while it started a command held its store up a moment longer.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_heir_of_a_dead_owner_is_waited_for() {
        let dir = TempDir::new().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let dead = Owner { pid, ..Owner::us() };
        let path = dir.path().join(FILE_NAME);
        for (owner, state, is_dead) in [
            (Owner::us(), State::Open, false),
            (dead.clone(), State::Clean, false),
            (dead, State::Open, true),
        ] {
            fs::write(&path, owner.text(state)).unwrap();
            assert_eq!(is_of_the_dead(&path), is_dead, "{owner:?}");
        }
        let heir = File::open(&path).unwrap();
        heir.lock().unwrap();
        std::thread::scope(|scope| {
            let opener = scope.spawn(|| StoreLock::acquire(dir.path(), false));
            heir.unlock().unwrap();
            assert_eq!(opener.join().unwrap().unwrap().1, Previous::Unclean);
        });
    }

    #[test]
    fn the_second_opener_is_told_who_has_it() {
        let dir = TempDir::new().unwrap();
        let (lock, _) = StoreLock::acquire(dir.path(), false).unwrap();
        match StoreLock::acquire(dir.path(), true).unwrap_err() {
            Error::Locked {
                path,
                pid,
                host,
                here,
            } => {
                assert_eq!(path, dir.path());
                assert_eq!((pid, host), (std::process::id(), super::super::host_name()));
                assert!(here);
            }
            other => panic!("{other}"),
        }
        lock.mark_clean().unwrap();
        drop(lock);
        assert_eq!(
            previous(dir.path()),
            Previous::Clean,
            "the refused opener changed nothing"
        );
    }

    #[test]
    fn readers_share_a_store_that_nobody_has_open_and_change_nothing() {
        for (host, state) in [("elsewhere", State::Open), ("here", State::Clean)] {
            let (dir, text) = left_by(host, 1, state);
            let one = ReadLock::acquire(dir.path()).unwrap();
            let other = ReadLock::acquire(dir.path()).unwrap();
            other.check().unwrap();
            let refused = StoreLock::acquire(dir.path(), true).unwrap_err();
            assert!(matches!(refused, Error::Locked { .. }), "{refused}");
            assert_eq!(fs::read(dir.path().join(FILE_NAME)).unwrap(), text);
            drop((one, other));
            let (lock, _) = StoreLock::acquire(dir.path(), true).unwrap();
            let refused = ReadLock::acquire(dir.path()).unwrap_err();
            assert!(
                matches!(refused, Error::Locked { here: true, .. }),
                "{refused}"
            );
            drop(lock);
        }
    }

    #[test]
    fn a_store_without_a_lock_file_gets_none_by_being_read() {
        let dir = TempDir::new().unwrap();
        let lock = ReadLock::acquire(dir.path()).unwrap();
        lock.check().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let (_engine, _) = StoreLock::acquire(dir.path(), false).unwrap();
        let refused = lock.check().unwrap_err();
        assert!(
            matches!(refused, Error::Locked { here: true, .. }),
            "{refused}"
        );
    }

    /// A fork has a copy of the descriptor, as `try_clone` makes one, and another pid.
    #[test]
    fn a_fork_neither_marks_nor_unlocks() {
        let dir = TempDir::new().unwrap();
        let (lock, _) = StoreLock::acquire(dir.path(), false).unwrap();
        let fork = StoreLock {
            file: lock.file.try_clone().unwrap(),
            path: lock.path.clone(),
            owner: Owner {
                pid: lock.owner.pid + 1,
                ..lock.owner.clone()
            },
        };
        let (opener, here) = (lock.owner.pid + 1, lock.owner.pid);
        let marked = fork.mark_clean().unwrap_err();
        assert!(
            matches!(marked, Error::Forked { opener: o, here: h } if (o, h) == (opener, here)),
            "{marked}"
        );
        drop(fork);
        let refused = StoreLock::acquire(dir.path(), false).unwrap_err();
        assert!(
            matches!(refused, Error::Locked { here: true, .. }),
            "its parent's lock was let go: {refused}"
        );
        drop(lock);
        assert_eq!(previous(dir.path()), Previous::Unclean, "nobody marked it");
    }

    #[test]
    fn a_holder_without_a_name_is_unknown() {
        let (dir, _) = left_by("elsewhere", 1, State::Clean);
        let file = File::open(dir.path().join(FILE_NAME)).unwrap();
        file.try_lock().unwrap();
        let refused = StoreLock::acquire(dir.path(), false).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::Locked {
                    pid: 0,
                    here: false,
                    ..
                }
            ),
            "{refused}"
        );
    }

    #[test]
    fn another_host_is_refused_and_its_text_left_alone() {
        for boot in [0, 1] {
            let (dir, text) = left_by("elsewhere", boot, State::Open);
            let refused = StoreLock::acquire(dir.path(), false).unwrap_err();
            assert!(
                matches!(&refused, Error::ForeignLock { pid: 4711, host, .. } if host == "elsewhere"),
                "{refused}"
            );
            assert_eq!(fs::read(dir.path().join(FILE_NAME)).unwrap(), text);
            let (_lock, taken) = StoreLock::acquire(dir.path(), true).unwrap();
            assert_eq!(taken, Previous::Unclean);
        }
    }

    #[test]
    fn what_another_host_closed_is_free() {
        let (dir, _) = left_by("elsewhere", 1, State::Clean);
        assert_eq!(previous(dir.path()), Previous::Clean);
    }

    #[test]
    fn this_machine_is_known_by_its_name_or_its_boot() {
        let (dir, _) = left_by(&super::super::host_name(), 1, State::Open);
        assert_eq!(previous(dir.path()), Previous::Unclean, "after a reboot");
        if super::super::boot_id() != 0 {
            let (dir, _) = left_by("a-container", super::super::boot_id(), State::Open);
            assert_eq!(
                previous(dir.path()),
                Previous::Unclean,
                "a container made anew"
            );
        }
    }

    #[test]
    fn a_text_survives_only_whole() {
        let owner = Owner {
            pid: 7,
            host: "h".repeat(255),
            boot: u128::MAX,
        };
        for state in [State::Open, State::Clean] {
            let text = owner.text(state);
            assert_eq!(Owner::parse(&text), Some((owner.clone(), state)));
            for at in 0..LEN {
                let mut damaged = text.clone();
                damaged[at] ^= 1;
                assert_eq!(Owner::parse(&damaged), None, "byte {at}");
                assert_eq!(Owner::parse(&text[..at]), None, "cut at {at}");
            }
        }
    }

    #[test]
    fn a_torn_text_is_never_clean() {
        let owner = Owner::us();
        let (open, clean) = (owner.text(State::Open), owner.text(State::Clean));
        for at in 0..LEN {
            for (old, new) in [(&open, &clean), (&clean, &open)] {
                let torn = [&new[..at], &old[at..]].concat();
                let read = Owner::parse(&torn);
                assert!(
                    read.is_none() || torn == *old || torn == *new,
                    "torn at {at}"
                );
            }
        }
    }

    #[test]
    fn garbage_is_unclean_and_gets_replaced() {
        for garbage in [&b"x"[..], &[0; LEN], &[255; 3 * LEN], b"jobsled lock"] {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join(FILE_NAME);
            fs::write(&path, garbage).unwrap();
            let (lock, found) = StoreLock::acquire(dir.path(), false).unwrap();
            assert_eq!(found, Previous::Unclean);
            lock.mark_clean().unwrap();
            drop(lock);
            assert_eq!(previous(dir.path()), Previous::Clean);
        }
    }

    /// What a later version writes may be another host's.
    #[test]
    fn a_newer_lock_is_not_taken_for_garbage() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(FILE_NAME), b"jobsled lock 2\nstate open\n").unwrap();
        let refused = StoreLock::acquire(dir.path(), true).unwrap_err();
        let newer = matches!(
            refused,
            Error::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        );
        assert!(newer, "{refused}");
    }

    #[test]
    fn a_missing_directory_is_an_error_that_names_it() {
        let dir = TempDir::new().unwrap();
        let missing = dir.path().join("missing");
        let refused = StoreLock::acquire(&missing, false).unwrap_err();
        assert!(refused.to_string().contains("missing"), "{refused}");
    }
}
