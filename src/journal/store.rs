//! A store's directory: making it, and opening it so that nothing is ever made worse.
//!
//! ```text
//! DIR/lock              who has it open
//! DIR/journal/          sled's files and `jobsled`, the store's header
//! DIR/journal.new, .old a copy being opened (see `swap.rs`), or a store being made
//! DIR/witness           the last group acknowledged, outside the journal
//! DIR/recorder          which handlers had begun
//! DIR/payloads/         large payloads, a file each
//! DIR/socket, control   where other processes may ask, while it is open
//! DIR/ballast           space given up so that a full store can be opened
//! ```

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use super::Journal;
use super::carve::Carved;
use super::commit::{Geometry, commit};
use super::entry::{Chain, FORMAT, Sealed, hash_told};
use super::frame::layout_fingerprint;
use super::sled::SledJournal;
use super::swap::Swap;
use super::witness::{Found, Witness};
use crate::error::{Error, Result};
use crate::fault::{self, Point};
use crate::sys;

const MAGIC: [u8; 8] = *b"JOBSLED\0";

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
        Chain::first(self.store)
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
        // In every format the checksum is the last 8 bytes. First: a flipped bit is no newer version.
        let (content, sum) = bytes.split_at(bytes.len().saturating_sub(8));
        if sum != checksum(content) {
            return Err(damaged("its checksum does not match"));
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
        if bytes.len() != 52 {
            return Err(damaged("it has another length than its format"));
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
        geometry
            .fault()
            .map_or(Ok(StoreHeader { store, geometry }), |why| Err(damaged(why)))
    }
}

/// Has the log read from the disk the next time: its cached pages may be some that a failed sync marked clean.
fn forget_cached(journal: &Path) -> Result<()> {
    let log = journal.join("db");
    let file = match fs::File::open(&log) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Damaged {
                path: journal.to_owned(),
                what: "the log".to_owned(),
                reason: "the file `db` is missing".to_owned(),
            });
        }
        opened => opened.map_err(Error::io("open", &log))?,
    };
    sys::files::forget_cached_pages(&file).map_err(Error::io("sync", &log))
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

    fn swap(&self) -> Swap {
        Swap::of(&self.dir, "journal")
    }

    /// Whether a store is here. An empty directory, or one in which making a store was cut short, is not; a
    /// directory with anything else in it is an error.
    pub(crate) fn exists(&self) -> Result<bool> {
        let swap = self.swap();
        for dir in [&swap.new, &swap.old] {
            self.check_ours(dir)?;
        }
        if swap.now.exists()
            && !["jobsled", "db"]
                .iter()
                .any(|file| swap.now.join(file).exists())
        {
            let found = "its `journal` holds no journal".to_owned();
            return Err(Error::NotAStore {
                path: self.dir.clone(),
                found,
            });
        }
        if swap.now.exists() || swap.old.exists() {
            return Ok(true);
        }
        let entries = fs::read_dir(&self.dir).map_err(Error::io("list", &self.dir))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &self.dir))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            match name.as_ref() {
                "lock" if entry.path().is_file() => {}
                "journal.new" => {}
                // Made while we looked.
                "journal" | "journal.old" => return Ok(true),
                "witness" | "payloads" | "recorder" | "ballast" | "commands" | "socket"
                | "control" | "control.new" => {
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

    /// A journal's directory holds nothing but sled's files and the header; one with anything else in it is
    /// somebody else's, and must not be touched.
    fn check_ours(&self, dir: &Path) -> Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Error::io("list", dir))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::io("list", dir))?.file_name();
            let name = name.to_string_lossy();
            let ours = matches!(name.as_ref(), "jobsled" | "conf" | "db" | "blobs")
                || name.starts_with("snap.");
            if !ours {
                let found = format!("it contains `{}`", dir.join(name.as_ref()).display());
                return Err(Error::NotAStore {
                    path: self.dir.clone(),
                    found,
                });
            }
        }
        Ok(())
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
        let group = first(&mut header.first_chain())?;
        self.build(header, |journal| {
            commit(journal, &group, &mut VecDeque::new(), geometry).map(drop)
        })?;
        Ok(header)
    }

    /// The same for a store whose groups are there already: `fill` writes them, within the budget.
    pub(crate) fn build(
        &self,
        header: StoreHeader,
        fill: impl FnOnce(&mut dyn Journal) -> Result<()>,
    ) -> Result<()> {
        let swap = self.swap();
        sys::files::remove_dir_if_there(&swap.new)?;
        sys::files::create_dir_private(&swap.new)?;
        sys::files::write_new_synced(&swap.new.join("jobsled"), &header.to_bytes())?;
        SledJournal::make(&swap, header.geometry, fill)?;
        fault::point(Point::Made);
        swap.put_in_place()?;
        sys::files::sync_parent(&self.dir)
    }

    /// Opens the journal. `after_crash`: the last owner did not close it. `check` reads it before
    /// anything of the store is changed, unless the journal is large or the disk has no room for a copy.
    pub(crate) fn open(
        &self,
        after_crash: bool,
        check: &mut dyn FnMut(StoreHeader, &mut dyn Journal) -> Result<()>,
    ) -> Result<(StoreHeader, Box<dyn Journal>)> {
        let swap = self.swap();
        swap.finish()?;
        let header = StoreHeader::read(&swap.now.join("jobsled"))?;
        if after_crash {
            forget_cached(&swap.now)?;
        }
        let mut check = |journal: &mut dyn Journal| check(header, journal);
        let journal = if self.is_large(header) {
            SledJournal::open_in_place(&swap, header.geometry, &mut check)
        } else {
            SledJournal::open(&swap, header.geometry, &mut check)
        }?;
        Ok((header, Box::new(journal)))
    }

    /// Reads a journal that nobody else has and nobody depends on yet: one just built, or a copy. What is on the
    /// disk is read, not what the system remembers of it.
    pub(crate) fn look(
        &self,
        check: impl FnOnce(StoreHeader, &mut dyn Journal) -> Result<()>,
    ) -> Result<()> {
        let swap = self.swap();
        swap.finish()?;
        let header = StoreHeader::read(&swap.now.join("jobsled"))?;
        forget_cached(&swap.now)?;
        SledJournal::look(&swap, header.geometry, |journal| check(header, journal))
    }

    /// Whether here is something that may be left of a store.
    pub(crate) fn has_remains(&self) -> bool {
        let Swap { now, new, old, .. } = self.swap();
        [now, new, old].iter().any(|dir| {
            let has = |file| dir.join(file).is_file();
            has("jobsled") || has("db")
        })
    }

    /// The store's header, wherever it can be read.
    pub(crate) fn header(&self) -> Result<StoreHeader> {
        let Swap { now, new, old, .. } = self.swap();
        let read = |dir: &Path| StoreHeader::read(&dir.join("jobsled"));
        read(&now).or_else(|error| match error {
            Error::Damaged { .. } => read(&old).or_else(|_| read(&new)).map_err(|_| error),
            other => Err(other),
        })
    }

    /// All entries whose bytes are there, also in what an opening or closing left that was cut short. Changes
    /// nothing.
    pub(crate) fn carve(&self) -> Result<Carved> {
        let Swap { now, new, old, .. } = self.swap();
        let mut carved = Carved::default();
        for dir in [now, old, new] {
            carved.search(&dir.join("db"))?;
        }
        Ok(carved)
    }

    /// Adds the entries that sled gives of a copy, which is made in the directory `scratch` and stays there.
    pub(crate) fn carve_by_sled(
        &self,
        scratch: &Path,
        geometry: Geometry,
        carved: &mut Carved,
    ) -> Result<()> {
        let swap = self.swap();
        let from = swap.whole();
        let copy = Swap::of(scratch, "journal");
        sys::files::create_dir_private(&copy.now)?;
        for entry in fs::read_dir(from).map_err(Error::io("list", from))? {
            let path = entry.map_err(Error::io("list", from))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_sleds = matches!(name.as_ref(), "conf" | "db") || name.starts_with("snap.");
            if is_sleds && path.is_file() {
                sys::files::copy_file(&path, &copy.now.join(name.as_ref()))?;
            }
        }
        let known = carved.hashes();
        let is_known = move |entry: &[u8]| hash_told(entry).is_some_and(|h| known.contains(&h));
        let given = SledJournal::give_all(&copy, geometry, is_known)?;
        carved.add_given(given.count, given.entries)
    }

    /// Copies the journal, and the witness if there is one, into another directory. Nothing of this store is
    /// changed.
    pub(crate) fn copy_to(&self, dir: &Path) -> Result<()> {
        let (from, to) = (self.swap(), Store::at(dir));
        // So that the disk is looked at. Where it cannot be done, what is read is what the system remembers.
        let _ = forget_cached(from.whole());
        sys::files::copy_dir(from.whole(), &to.swap().now)?;
        if self.witness().exists() {
            sys::files::copy_file(&self.witness(), &to.witness())?;
        }
        Ok(())
    }

    /// Bytes of what [`copy_to`](Store::copy_to) copies, and what opening the copy may write beyond.
    pub(crate) fn copy_bytes(&self) -> Result<u64> {
        let segments = 2 * u64::from(Geometry::DEFAULT.segment_bytes);
        Ok(segments + sys::files::bytes_below(self.swap().whole())?)
    }

    /// By the witness; one that is missing or does not fit says no, and is looked into later.
    fn is_large(&self, header: StoreHeader) -> bool {
        let large_from = header.geometry.large_from();
        matches!(
            Witness::open(&self.witness(), header.store),
            Ok(Found::Marked(_, mark)) if mark.journal_bytes >= large_from
        )
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn read_back(bytes: &[u8]) -> Result<StoreHeader> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("jobsled");
        fs::write(&path, bytes).unwrap();
        StoreHeader::read(&path)
    }

    fn header(segment_bytes: u32, entry_cap: u32, sync_budget: u32) -> StoreHeader {
        StoreHeader {
            store: 7,
            geometry: Geometry {
                segment_bytes,
                entry_cap,
                sync_budget,
            },
        }
    }

    #[test]
    fn only_sizes_that_work_are_believed() {
        let default = Geometry::DEFAULT;
        let sound = [
            (
                default.segment_bytes,
                default.entry_cap,
                default.sync_budget,
            ),
            (64 << 10, 900, 8 << 10),
            (512 << 10, 6 << 10, 64 << 10),
            (64 << 10, 900, u32::MAX),
        ];
        for (segment, cap, budget) in sound {
            let header = header(segment, cap, budget);
            assert_eq!(read_back(&header.to_bytes()).unwrap(), header);
        }
        let broken = [
            (0, 900, 8 << 10, "segment"),
            (32 << 10, 512, 4 << 10, "segment"),
            (100_000, 900, 8 << 10, "segment"),
            (32 << 20, 900, 8 << 10, "segment"),
            (4 << 20, 511, 512 << 10, "entry"),
            (4 << 20, 65_000, 512 << 10, "entry"),
            (4 << 20, u32::MAX, 512 << 10, "entry"),
            (64 << 10, 1_000, 8 << 10, "entry"),
            (64 << 10, 900, 0, "budget"),
            (64 << 10, 900, 1_439, "budget"),
            (64 << 10, 900, (8 << 10) + 1, "budget"),
        ];
        for (segment, cap, budget, what) in broken {
            let refused = read_back(&header(segment, cap, budget).to_bytes()).unwrap_err();
            let named = matches!(&refused, Error::Damaged { reason, .. } if reason.contains(what));
            assert!(named, "{segment} {cap} {budget}: {refused}");
        }
    }

    #[test]
    fn a_flipped_bit_of_the_header_is_damage_and_no_newer_version() {
        let whole = header(4 << 20, 57_344, 512 << 10).to_bytes();
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = read_back(&bytes).unwrap_err();
            assert!(matches!(refused, Error::Damaged { .. }), "{bit}: {refused}");
        }
    }
}
