//! A store's directory: making it, and opening it so that nothing is ever made worse.
//!
//! ```text
//! DIR/lock              who has it open
//! DIR/journal/          sled's files and `jobsled`, the store's header
//! DIR/journal.new, .old a copy being opened (see `open_by_copy`), or a store being made
//! DIR/witness           the last group acknowledged, outside the journal
//! DIR/recorder          which handlers had begun
//! DIR/payloads/         large payloads, a file each
//! DIR/ballast           space given up so that a full store can be opened
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::Journal;
use super::commit::{Geometry, commit};
use super::entry::{Chain, FORMAT, Sealed};
use super::frame::layout_fingerprint;
use super::sled::SledJournal;
use crate::error::{Error, Result};
use crate::sys;

const MAGIC: [u8; 8] = *b"JOBSLED\0";
/// Files up to this size are opened by copy and swap: there sled's own open is at its weakest (a live set of
/// less than about three segments), and the copy costs milliseconds.
const COPY_MAX: u64 = 32 * (4 << 20);

/// What a store is made with, for ever. `journal/jobsled`:
/// `magic [8] | format u32 | store id [16] | segment bytes u32 | entry cap u32 | sync budget u32 | layout u32 | checksum [8]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreHeader {
    pub(crate) store: u128,
    pub(crate) geometry: Geometry,
}

impl StoreHeader {
    /// What the first group of the store is chained to.
    pub(crate) fn first_chain(self) -> Chain {
        Chain {
            store: self.store,
            epoch: 0,
            next_group: 1,
            next_position: 1,
            last_hash: [0; 32],
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend_from_slice(&u32::from(FORMAT).to_le_bytes());
        bytes.extend_from_slice(&self.store.to_le_bytes());
        bytes.extend_from_slice(&self.geometry.segment_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.geometry.entry_cap.to_le_bytes());
        bytes.extend_from_slice(&self.geometry.sync_budget.to_le_bytes());
        bytes.extend_from_slice(&layout_fingerprint().to_le_bytes());
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    fn read(path: &Path) -> Result<StoreHeader> {
        let damaged = |reason: &str| Error::Damaged {
            path: path.to_owned(),
            what: "the store header".to_owned(),
            reason: reason.to_owned(),
        };
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("it is missing"));
            }
            read => read.map_err(Error::io("read the store header", path))?,
        };
        let number = |at: usize| -> Result<u32> {
            let field = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
            field
                .map(u32::from_le_bytes)
                .ok_or_else(|| damaged("it is too short"))
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(damaged("it does not begin like one"));
        }
        let format = number(8)?;
        if format > u32::from(FORMAT) {
            return Err(Error::NewerFormat {
                path: path.to_owned(),
                what: "store format",
                found: format,
                known: FORMAT.into(),
            });
        }
        let (content, sum) = bytes.split_at(bytes.len().saturating_sub(8));
        if sum != checksum(content) || content.len() != 44 {
            return Err(damaged("its checksum does not match"));
        }
        let layout = number(40)?;
        if layout != layout_fingerprint() {
            return Err(Error::Layout {
                path: path.to_owned(),
                found: layout,
                here: layout_fingerprint(),
            });
        }
        let store = bytes
            .get(12..28)
            .and_then(|b| b.try_into().ok())
            .map(u128::from_le_bytes);
        let store = store.ok_or_else(|| damaged("it is too short"))?;
        let geometry = Geometry {
            segment_bytes: number(28)?,
            entry_cap: number(32)?,
            sync_budget: number(36)?,
        };
        Ok(StoreHeader { store, geometry })
    }
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(blake3::hash(bytes).as_bytes().split_at(8).0);
    sum
}

/// A store's directory, locked by the caller.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn at(dir: &Path) -> Store {
        Store {
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn witness(&self) -> PathBuf {
        self.dir.join("witness")
    }

    pub(crate) fn recorder(&self) -> PathBuf {
        self.dir.join("recorder")
    }

    pub(crate) fn payloads(&self) -> PathBuf {
        self.dir.join("payloads")
    }

    fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    fn journal_new(&self) -> PathBuf {
        self.dir.join("journal.new")
    }

    fn journal_old(&self) -> PathBuf {
        self.dir.join("journal.old")
    }

    /// Whether a store is here. An empty directory, or one in which making a store was cut short, is not; a
    /// directory with anything else in it is an error.
    pub(crate) fn exists(&self) -> Result<bool> {
        if self.journal().exists() || self.journal_old().exists() {
            return Ok(true);
        }
        let entries = fs::read_dir(&self.dir).map_err(Error::io("list", &self.dir))?;
        for entry in entries {
            let name = entry.map_err(Error::io("list", &self.dir))?.file_name();
            let name = name.to_string_lossy();
            match name.as_ref() {
                "lock" | "journal.new" => {}
                "witness" | "payloads" | "recorder" | "ballast" => {
                    return Err(Error::Damaged {
                        path: self.dir.clone(),
                        what: "the journal".to_owned(),
                        reason: format!("`journal` is missing, but `{name}` is there"),
                    });
                }
                other => {
                    return Err(Error::NotAStore {
                        path: self.dir.clone(),
                        found: format!("it contains `{other}`"),
                    });
                }
            }
        }
        Ok(false)
    }

    /// Makes a store: everything is built aside, synced, and put in place by one rename. `first` makes the
    /// first group. Nothing is left half made by a crash at any moment.
    pub(crate) fn create(
        &self,
        geometry: Geometry,
        first: impl FnOnce(&mut Chain) -> Result<Vec<Sealed>>,
    ) -> Result<StoreHeader> {
        let header = StoreHeader {
            store: sys::random_u128(),
            geometry,
        };
        let new = self.journal_new();
        sys::files::remove_dir_if_there(&new)?;
        sys::files::create_dir_private(&new)?;
        sys::files::write_new_synced(&new.join("jobsled"), &header.to_bytes())?;
        let mut journal = Box::new(SledJournal::open(&new, geometry)?);
        let mut chain = header.first_chain();
        let group = first(&mut chain)?;
        commit(
            journal.as_mut(),
            &group,
            &mut std::collections::VecDeque::new(),
            geometry,
        )?;
        journal.close()?;
        sync_tree(&new)?;
        self.rename(&new, &self.journal())?;
        if let Some(parent) = self.dir.parent() {
            sys::files::sync_dir(if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            })?;
        }
        Ok(header)
    }

    /// Opens the journal. `after_crash`: the last owner did not close it.
    pub(crate) fn open(&self, after_crash: bool) -> Result<(StoreHeader, Box<dyn Journal>)> {
        self.finish_swap()?;
        let header = StoreHeader::read(&self.journal().join("jobsled"))?;
        let log = self.journal().join("db");
        let file = fs::File::open(&log).map_err(Error::io("open", &log))?;
        let size = file.metadata().map_err(Error::io("look at", &log))?.len();
        if after_crash {
            // Read what the disk has, not pages that a failed sync may have marked clean.
            sys::files::forget_cached_pages(&file).map_err(Error::io("sync", &log))?;
        }
        drop(file);
        if size <= COPY_MAX {
            self.open_by_copy(header.geometry)?;
        }
        let journal = SledJournal::open(&self.journal(), header.geometry)?;
        sync_tree(&self.journal())?;
        Ok((header, Box::new(journal)))
    }

    /// sled's open writes, and is not itself power-safe. So it opens a copy first; only when that is complete
    /// and synced does it take the original's place. A cut at any moment leaves one whole store, and damage
    /// found on the way leaves the original as evidence.
    fn open_by_copy(&self, geometry: Geometry) -> Result<()> {
        let (now, new, old) = (self.journal(), self.journal_new(), self.journal_old());
        match sys::files::copy_dir(&now, &new) {
            Ok(()) => {}
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
                // No room for a copy: opened in place, which is how large stores are opened anyway.
                log::warn!(
                    "{}: no room to open a copy, opening in place",
                    self.dir.display()
                );
                return sys::files::remove_dir_if_there(&new);
            }
            Err(error) => return Err(error),
        }
        Box::new(SledJournal::open(&new, geometry).map_err(|e| self.about_original(e))?).close()?;
        sync_tree(&new)?;
        self.rename(&now, &old)?;
        self.rename(&new, &now)?;
        sys::files::remove_dir_if_there(&old)
    }

    /// Damage was found in the copy, but it is the original that people have to look at.
    fn about_original(&self, error: Error) -> Error {
        match error {
            Error::Damaged { what, reason, .. } => Error::Damaged {
                path: self.journal(),
                what,
                reason,
            },
            other => other,
        }
    }

    /// A swap that was cut short: whichever of the two is whole is the journal.
    fn finish_swap(&self) -> Result<()> {
        if !self.journal().exists() {
            self.rename(&self.journal_old(), &self.journal())?;
        }
        sys::files::remove_dir_if_there(&self.journal_new())?;
        sys::files::remove_dir_if_there(&self.journal_old())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(Error::io("rename", from))?;
        sys::files::sync_dir(&self.dir)
    }
}

/// sled syncs neither `conf` nor any directory.
fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            sys::files::sync_file(&path)?;
        }
    }
    sys::files::sync_dir(dir)
}
