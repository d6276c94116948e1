//! Entries found in the bytes of damaged files, whatever sled thinks of them.
//!
//! sled stores a value in one piece, in a message of its log as in a page of its tree, and an entry proves
//! itself: its hash covers its header and its body. So every entry whose bytes are still there is found, in
//! whatever segment, also one that sled calls free or cuts off.
//!
//! Reads only. Knows nothing of the order of entries (that is `rescue.rs`) and of events.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::entry::{ENTRY_CAP, EntryBytes, HEADER_LEN, Header, MAGIC, claimed};
use super::frame::ReadError;
use crate::error::{Error, Result};
use crate::sys::files;

/// Bytes read at once.
const CHUNK: usize = 4 << 20;
/// Where a chunk cannot be read, it is tried in pieces of so many: a sector of most disks.
const SECTOR: usize = 4 << 10;
/// Broken entries that are remembered; more say no more.
const BROKEN_MAX: usize = 1 << 16;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Carved {
    files: Vec<(PathBuf, File)>,
    /// By hash: sled writes an entry more than once.
    found: HashMap<[u8; 32], Found>,
    /// What begins as an entry, of whichever store, and has another hash than its bytes.
    broken: Vec<Claim>,
    /// Bytes that the disk would not give.
    pub(crate) unreadable_bytes: u64,
    /// Distinct entries found in the files' bytes.
    pub(crate) by_bytes: u64,
    /// Distinct entries that sled gave; `None` if it was not asked.
    pub(crate) by_sled: Option<u64>,
}

/// An entry whose hash was right.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) header: Header,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    File { file: usize, at: u64, len: usize },
    Here(EntryBytes),
}

/// What a broken entry says of itself, which may be wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) store: u128,
    pub(super) position: u64,
}

impl Carved {
    /// Searches a file. One that is not there holds nothing.
    pub(super) fn search(&mut self, path: &Path) -> Result<()> {
        let file = match File::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(Error::io("open", path))?,
        };
        let about = file.metadata().map_err(Error::io("look at", path))?;
        if !about.is_file() {
            return Ok(());
        }
        let number = self.files.len();
        self.files.push((path.to_owned(), file));
        // The window slides over the file; an entry that is cut by its end is looked at with the next chunk.
        let (mut window, mut begin, mut read) = (Vec::new(), 0_u64, 0_u64);
        loop {
            let more = self.fill(number, read, about.len(), &mut window);
            read += more as u64;
            let is_end = more == 0;
            let seen = self.look(number, begin, &window, is_end)?;
            if is_end {
                self.by_bytes = self.found.len() as u64;
                return Ok(());
            }
            window.drain(..seen);
            begin += seen as u64;
        }
    }

    /// How many entries sled gave, and those of them that are not known yet.
    pub(super) fn add_given(&mut self, count: u64, entries: Vec<(u64, EntryBytes)>) -> Result<()> {
        self.by_sled = Some(count);
        for (position, entry) in entries {
            self.add(position, entry)?;
        }
        Ok(())
    }

    /// The hashes of all that was found.
    pub(super) fn hashes(&self) -> HashSet<[u8; 32]> {
        self.found.keys().copied().collect()
    }

    fn add(&mut self, position: u64, entry: EntryBytes) -> Result<()> {
        match Header::read(&entry) {
            Ok(header) if header.position == position => {
                let place = Place::Here(entry);
                self.found
                    .entry(header.hash)
                    .or_insert(Found { header, place });
                Ok(())
            }
            Err(ReadError::Newer { what, found, known }) => {
                Err(newer("journal", what, found, known))
            }
            _ => Ok(()),
        }
    }

    /// How many entries of each store there are.
    pub(crate) fn stores(&self) -> HashMap<u128, u64> {
        let mut stores = HashMap::new();
        for found in self.found.values() {
            *stores.entry(found.header.store).or_default() += 1;
        }
        stores
    }

    /// All entries of a store, in no order.
    pub(super) fn entries_of(&self, store: u128) -> impl Iterator<Item = &Found> {
        let all = self.found.values();
        all.filter(move |found| found.header.store == store)
    }

    /// The bytes of all entries of a store, in no order.
    pub(crate) fn entries(&self, store: u128) -> impl Iterator<Item = EntryBytes> {
        self.entries_of(store).filter_map(|found| self.read(found))
    }

    pub(super) fn broken_of(&self, store: u128) -> impl Iterator<Item = &Claim> {
        self.broken.iter().filter(move |claim| claim.store == store)
    }

    /// An entry's bytes. `None`: they are not there any more, or changed meanwhile.
    pub(super) fn read(&self, found: &Found) -> Option<EntryBytes> {
        match &found.place {
            Place::Here(entry) => Some(entry.clone()),
            Place::File { file, at, len } => {
                let (_, file) = self.files.get(*file)?;
                let mut bytes = vec![0; *len];
                files::read_at(file, *at, &mut bytes).ok()?;
                let same = Header::read(&bytes).is_ok_and(|header| header == found.header);
                same.then(|| EntryBytes::Own(bytes.into()))
            }
        }
    }

    /// Reads the next chunk behind what is in the window; how many bytes. What cannot be read reads as zeroes.
    fn fill(&mut self, number: usize, from: u64, end: u64, window: &mut Vec<u8>) -> usize {
        let Some((path, file)) = self.files.get(number) else {
            return 0;
        };
        let len = usize::try_from(end.saturating_sub(from)).map_or(CHUNK, |left| left.min(CHUNK));
        let before = window.len();
        window.resize(before + len, 0);
        let space = window.get_mut(before..).unwrap_or_default();
        if len == 0 || files::read_at(file, from, space).is_ok() {
            return len;
        }
        for (piece, at) in space.chunks_mut(SECTOR).zip((from..).step_by(SECTOR)) {
            match files::read_at(file, at, piece) {
                Ok(()) => {}
                // Cut short since it was measured, or a sector gone bad.
                Err(e) => {
                    log::warn!("{}: {} bytes at {at}: {e}", path.display(), piece.len());
                    piece.fill(0);
                    self.unreadable_bytes += piece.len() as u64;
                }
            }
        }
        len
    }

    /// Looks for entries in a window that begins at `begin` of its file. How many bytes are done with.
    fn look(&mut self, file: usize, begin: u64, window: &[u8], is_end: bool) -> Result<usize> {
        let mut at = 0;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            let Some(ahead) = rest.iter().position(|byte| *byte == MAGIC[0]) else {
                return Ok(window.len());
            };
            at += ahead;
            let rest = window.get(at..).unwrap_or_default();
            if rest.len() < ENTRY_CAP && !is_end {
                return Ok(at);
            }
            let entry = self.entry_at(file, begin + at as u64, rest)?;
            at += entry.unwrap_or(1);
        }
    }

    /// The entry with which these bytes begin; its length.
    fn entry_at(&mut self, file: usize, at: u64, bytes: &[u8]) -> Result<Option<usize>> {
        let Some(claimed) = claimed(bytes) else {
            return Ok(None);
        };
        let entry = bytes
            .get(..claimed.len)
            .filter(|entry| (HEADER_LEN..=ENTRY_CAP).contains(&entry.len()));
        match entry.map(Header::read) {
            Some(Ok(header)) => {
                let len = claimed.len;
                let place = Place::File { file, at, len };
                self.found.insert(header.hash, Found { header, place });
                Ok(Some(len))
            }
            Some(Err(ReadError::Newer { what, found, known })) => {
                Err(newer("journal", what, found, known))
            }
            _ => {
                if self.broken.len() < BROKEN_MAX {
                    self.broken.push(Claim {
                        store: claimed.store,
                        position: claimed.position,
                    });
                }
                Ok(None)
            }
        }
    }
}

fn newer(path: &str, what: &'static str, found: u32, known: u32) -> Error {
    Error::NewerFormat {
        path: path.into(),
        what,
        found,
        known,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use tempfile::TempDir;

    use super::super::entry::Draft;
    use super::super::{Chain, Geometry};
    use super::*;
    use crate::ledger::{Event, RootRecord};

    /// So many entries, chained.
    fn entries(count: usize) -> Vec<Vec<u8>> {
        let mut chain = Chain::first(7);
        let group = |_| {
            let mut draft = Draft::new(Geometry::DEFAULT);
            draft.begin(&chain);
            draft.push(&Event::RootSet(RootRecord::default())).unwrap();
            let sealed = draft.seal(&mut chain, 0, 1, 0);
            sealed.first().unwrap().bytes.to_vec()
        };
        (0..count).map(group).collect()
    }

    fn positions(carved: &Carved) -> BTreeSet<u64> {
        let all = carved.entries_of(7);
        all.map(|found| found.header.position).collect()
    }

    /// Anywhere in the file, over the edge of a chunk as well, once or twice.
    #[test]
    fn every_whole_entry_is_found_and_no_other() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("db");
        let entries = entries(6);
        let mut bytes = b"JSJSLEJ".repeat(50);
        for (n, entry) in entries.iter().enumerate() {
            let begin = [
                400,
                CHUNK - 100,
                CHUNK + 900,
                2 * CHUNK - 3,
                3 * CHUNK,
                3 * CHUNK + 5_000,
            ][n];
            bytes.resize(begin, 0);
            bytes.extend_from_slice(entry);
        }
        bytes.extend_from_slice(&entries[0]);
        let broken = bytes.len() + 200;
        bytes.extend_from_slice(&entries[1]);
        bytes.extend_from_slice(&entries[4][..190]);
        fs::write(&path, &bytes).unwrap();
        let search = |path: &Path| {
            let mut carved = Carved::default();
            carved.search(path).unwrap();
            carved
        };
        let carved = search(&path);
        assert_eq!(positions(&carved), (1..=6).collect());
        assert_eq!((carved.by_bytes, carved.broken.len()), (6, 1));
        for found in carved.entries_of(7) {
            let read = carved.read(found).unwrap();
            assert_eq!(
                *read,
                entries[usize::try_from(found.header.position).unwrap() - 1]
            );
        }
        // A damaged copy does not hide the whole one; without that it is told.
        bytes[broken] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(positions(&search(&path)), (1..=6).collect());
        bytes[CHUNK] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let carved = search(&path);
        assert_eq!(positions(&carved), [1, 3, 4, 5, 6].into());
        assert_eq!(
            carved
                .broken_of(7)
                .filter(|claim| claim.position == 2)
                .count(),
            2
        );
        assert_eq!(positions(&search(&dir.path().join("none"))), [].into());
    }
}
