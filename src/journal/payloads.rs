//! Large payloads: one file each, beside the journal and not in it.
//!
//! A payload is written and synced on the caller's thread *before* the command that names it is sent,
//! and unlinked by the writer *after* the sync of the group that dropped it. So whatever a durable
//! record names is there, and what a crash can leave over is files that nobody names: the sweep
//! removes those after replay.
//!
//! Names are random and nothing is shared between jobs, so no counting of references is needed.
//! Length and blake3 hash are in the record; a file that does not match them is damage, never data.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::fault::{self, Bug, Point};
use crate::job::PayloadRef;
use crate::sys::{self, files};

const SUFFIX: &str = ".payload";

/// Where large payloads are kept. Any thread may use it.
pub(crate) struct Payloads {
    place: Place,
}

enum Place {
    Dir(PathBuf),
    Memory(Mutex<HashMap<u128, Arc<[u8]>>>),
}

impl Payloads {
    /// Keeps payloads as files in `path`, which is created if it is not there.
    pub(crate) fn in_dir(path: impl Into<PathBuf>) -> Result<Payloads> {
        let path = path.into();
        match files::create_dir_private(&path) {
            Err(Error::Io { source, .. })
                if source.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            created => created?,
        }
        // Also when it was there: a crash may have come between its creation and this.
        files::sync_dir(&path)?;
        files::sync_parent(&path)?;
        Ok(Payloads {
            place: Place::Dir(path),
        })
    }

    /// The payloads in `path`, to be read; nothing is made, also when there are none.
    pub(crate) fn found_in(path: PathBuf) -> Payloads {
        Payloads {
            place: Place::Dir(path),
        }
    }

    /// Keeps payloads in memory, for engines without a store.
    pub(crate) fn in_memory() -> Payloads {
        Payloads {
            place: Place::Memory(Mutex::default()),
        }
    }

    /// Stores a payload under a new name.
    ///
    /// *Durability*: on return the file and its entry in the directory are on stable storage.
    pub(crate) fn store(&self, bytes: &[u8]) -> Result<Box<PayloadRef>> {
        let payload = Box::new(PayloadRef {
            name: sys::random_u128(),
            len: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            hash: *blake3::hash(bytes).as_bytes(),
        });
        self.put(&payload, bytes)?;
        fault::point(Point::PayloadWritten);
        if let Err(refusal) = self.sync() {
            // Nobody will ever name it; what cannot be removed now is swept at the next open.
            let _ = self.remove(payload.name);
            return Err(refusal);
        }
        Ok(payload)
    }

    /// Stores a payload under the name that its record has. Its bytes are on stable storage on return, its entry
    /// in the directory after [`sync`](Payloads::sync).
    pub(crate) fn put(&self, payload: &PayloadRef, bytes: &[u8]) -> Result<()> {
        match &self.place {
            Place::Dir(dir) if fault::bug(Bug::NoPayloadSync) => {
                let path = dir.join(file_name(payload.name));
                fs::write(&path, bytes).map_err(Error::io("write", path))
            }
            Place::Dir(dir) => files::write_new_synced(&dir.join(file_name(payload.name)), bytes),
            Place::Memory(kept) => {
                kept.lock().insert(payload.name, bytes.into());
                Ok(())
            }
        }
    }

    /// Puts the names of all payloads on stable storage.
    pub(crate) fn sync(&self) -> Result<()> {
        match &self.place {
            Place::Dir(dir) => files::sync_dir(dir),
            Place::Memory(_) => Ok(()),
        }
    }

    /// Reads a payload whole.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] naming the file when it is missing, or has another length or hash than the
    /// record says. The length is compared before memory is asked for.
    pub(crate) fn read(&self, payload: &PayloadRef) -> Result<Arc<[u8]>> {
        match &self.place {
            Place::Dir(dir) => read_file(&dir.join(file_name(payload.name)), payload),
            Place::Memory(kept) => {
                let bytes = kept.lock().get(&payload.name).cloned();
                bytes.ok_or_else(|| {
                    damaged(
                        Path::new(&file_name(payload.name)),
                        "it is missing".to_owned(),
                    )
                })
            }
        }
    }

    /// Looks whether a payload is as its record says, without taking the memory for it.
    ///
    /// # Errors
    ///
    /// As [`read`](Payloads::read).
    pub(crate) fn check(&self, payload: &PayloadRef) -> Result<()> {
        let Place::Dir(dir) = &self.place else {
            return self.read(payload).map(drop);
        };
        let path = dir.join(file_name(payload.name));
        let file = open_file(&path, payload)?;
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(file)
            .map_err(Error::io("read", path.as_path()))?;
        check_hash(&path, payload, hasher.finalize())
    }

    /// Whether a payload of this name is there.
    #[cfg(test)]
    pub(crate) fn has(&self, name: u128) -> bool {
        match &self.place {
            Place::Dir(dir) => dir.join(file_name(name)).exists(),
            Place::Memory(kept) => kept.lock().contains_key(&name),
        }
    }

    /// Removes a payload; one that is not there is fine. Not synced: what a crash brings back, the
    /// sweep finds.
    pub(crate) fn remove(&self, name: u128) -> Result<()> {
        match &self.place {
            Place::Dir(dir) => remove_file(&dir.join(file_name(name))),
            Place::Memory(kept) => {
                kept.lock().remove(&name);
                Ok(())
            }
        }
    }

    /// Removes every payload that is not in `keep` and says how many. Only regular files with a name
    /// of ours are touched.
    ///
    /// Only after replay and before the engine takes calls: a payload whose command is still on its
    /// way is in nobody's `keep`.
    pub(crate) fn sweep(&self, keep: &HashSet<u128>) -> Result<usize> {
        match &self.place {
            Place::Dir(dir) => sweep_dir(dir, keep),
            Place::Memory(kept) => {
                let mut kept = kept.lock();
                let before = kept.len();
                kept.retain(|name, _| keep.contains(name));
                Ok(before - kept.len())
            }
        }
    }
}

impl fmt::Debug for Payloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Dir(dir) => f.debug_tuple("Payloads").field(dir).finish(),
            Place::Memory(_) => f.write_str("Payloads(memory)"),
        }
    }
}

/// The file of a payload, if it has the right length.
fn open_file(path: &Path, payload: &PayloadRef) -> Result<File> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(refusal) if refusal.kind() == ErrorKind::NotFound => {
            return Err(damaged(path, "the file is missing".to_owned()));
        }
        Err(source) => return Err(Error::io("open", path)(source)),
    };
    // I8: compared before memory is asked for.
    let found = file.metadata().map_err(Error::io("inspect", path))?.len();
    if found != payload.len {
        return Err(damaged(
            path,
            format!("it has {found} bytes instead of {}", payload.len),
        ));
    }
    Ok(file)
}

fn read_file(path: &Path, payload: &PayloadRef) -> Result<Arc<[u8]>> {
    let mut file = open_file(path, payload)?;
    let Ok(len) = usize::try_from(payload.len) else {
        return Err(damaged(
            path,
            format!(
                "{} bytes do not fit the memory of this machine",
                payload.len
            ),
        ));
    };
    // Filled where it will stay: a Vec turned into an Arc would need the memory twice.
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
    file.read_exact(Arc::make_mut(&mut bytes))
        .map_err(Error::io("read", path))?;
    check_hash(path, payload, blake3::hash(&bytes))?;
    Ok(bytes)
}

fn check_hash(path: &Path, payload: &PayloadRef, found: blake3::Hash) -> Result<()> {
    if *found.as_bytes() == payload.hash {
        return Ok(());
    }
    Err(damaged(
        path,
        "its bytes do not have the hash they were stored with".to_owned(),
    ))
}

fn sweep_dir(dir: &Path, keep: &HashSet<u128>) -> Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let Some(name) = entry.file_name().to_str().and_then(parse_file_name) else {
            continue;
        };
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && !keep.contains(&name) {
            remove_file(&entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::io("remove", path)(source))
        }
        _ => Ok(()),
    }
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged {
        path: path.to_path_buf(),
        what: "large payload".to_owned(),
        reason,
    }
}

fn file_name(name: u128) -> String {
    format!("{name:032x}{SUFFIX}")
}

/// The inverse of [`file_name`], and of nothing else.
fn parse_file_name(text: &str) -> Option<u128> {
    let name = u128::from_str_radix(text.strip_suffix(SUFFIX)?, 16).ok()?;
    (file_name(name) == text).then_some(name)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn on_disk() -> (TempDir, PathBuf, Payloads) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("payloads");
        let payloads = Payloads::in_dir(&path).unwrap();
        (dir, path, payloads)
    }

    fn reason(refused: Result<Arc<[u8]>>) -> String {
        match refused.unwrap_err() {
            Error::Damaged { reason, .. } => reason,
            other => panic!("{other}"),
        }
    }

    /// Read whole or only looked at, the same is found.
    fn look(payloads: &Payloads, payload: &PayloadRef) -> Result<Arc<[u8]>> {
        let read = payloads.read(payload);
        let checked = payloads.check(payload);
        match (&read, checked) {
            (Ok(_), Ok(())) => {}
            (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
            other => panic!("{other:?}"),
        }
        read
    }

    fn check_life(payloads: &Payloads) {
        let large = vec![3; 300_000];
        for bytes in [&b""[..], b"x", &large] {
            let stored = payloads.store(bytes).unwrap();
            assert_eq!(&*look(payloads, &stored).unwrap(), bytes);
            payloads.remove(stored.name).unwrap();
            payloads.remove(stored.name).unwrap();
            assert!(reason(look(payloads, &stored)).contains("missing"));
        }
        let all: Vec<_> = (0..10_u8).map(|n| payloads.store(&[n]).unwrap()).collect();
        let keep: HashSet<u128> = all.iter().step_by(2).map(|payload| payload.name).collect();
        assert_eq!(payloads.sweep(&keep).unwrap(), 5);
        assert_eq!(payloads.sweep(&keep).unwrap(), 0);
        for (n, payload) in all.iter().enumerate() {
            assert_eq!(look(payloads, payload).is_ok(), n % 2 == 0, "payload {n}");
        }
    }

    #[test]
    fn both_places_keep_and_forget_alike() {
        check_life(&on_disk().2);
        check_life(&Payloads::in_memory());
    }

    #[test]
    fn a_directory_can_be_opened_again() {
        let (_dir, path, payloads) = on_disk();
        let stored = payloads.store(b"kept").unwrap();
        assert_eq!(
            &*Payloads::in_dir(&path).unwrap().read(&stored).unwrap(),
            b"kept"
        );
        fs::write(path.with_file_name("file"), b"").unwrap();
        assert!(
            Payloads::in_dir(path.with_file_name("file")).is_err(),
            "that is no directory"
        );
    }

    #[test]
    fn damage_is_named() {
        let (_dir, path, payloads) = on_disk();
        let stored = payloads.store(b"four").unwrap();
        let file = path.join(file_name(stored.name));
        fs::write(&file, b"fuor").unwrap();
        assert!(reason(look(&payloads, &stored)).contains("hash"));
        fs::write(&file, b"five!").unwrap();
        assert!(reason(look(&payloads, &stored)).contains("5 bytes instead of 4"));
        let absurd = PayloadRef {
            len: u64::MAX,
            ..*stored
        };
        assert!(
            reason(look(&payloads, &absurd)).contains("instead of"),
            "nothing was allocated"
        );
        let refused = look(&payloads, &stored).unwrap_err().to_string();
        assert!(refused.contains(&file_name(stored.name)), "{refused}");
    }

    #[test]
    fn the_sweep_touches_nothing_foreign() {
        let (_dir, path, payloads) = on_disk();
        let hex = "0123456789abcdef0123456789abcdef";
        let foreign = [
            "notes.txt".to_owned(),
            format!("{hex}.payload.bak"),
            format!("{}.payload", hex.to_uppercase()),
            format!("{}.payload", &hex[1..]),
            format!("+{}.payload", &hex[1..]),
            format!("0{hex}.payload"),
        ];
        for name in &foreign {
            fs::write(path.join(name), b"").unwrap();
        }
        fs::create_dir(path.join(format!("{hex}.payload"))).unwrap();
        payloads.store(b"ours").unwrap();
        assert_eq!(payloads.sweep(&HashSet::new()).unwrap(), 1);
        assert_eq!(fs::read_dir(&path).unwrap().count(), foreign.len() + 1);
    }
}
