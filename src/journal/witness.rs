//! The witness: a small file beside the journal that remembers how far the journal had come, so that a
//! disk which lost or forgot acknowledged data is noticed.
//!
//! It is only ever a lower bound. A mark is written *after* the sync of the group it names and before
//! anybody is answered, with one positioned write and no sync of its own: a power cut may take away
//! the newest marks, and then the witness knows less, never something false. A process that dies
//! takes nothing away.
//!
//! The file has 8192 bytes, written when it is made. Two slots, at 0 and 4096 (two pages, so that
//! one torn page never costs both), are written in turn; the newest valid one counts. Numbers are
//! little-endian:
//!
//! | bytes    | content                                                        |
//! |----------|----------------------------------------------------------------|
//! | 0..4     | `JSWT`                                                         |
//! | 4..8     | version, 1                                                     |
//! | 8..24    | store id                                                       |
//! | 24..32   | epoch                                                          |
//! | 32..40   | group                                                          |
//! | 40..48   | position of the group's last entry                             |
//! | 48..80   | hash of that entry                                             |
//! | 80..96   | digest                                                         |
//! | 96..104  | bytes of the journal, from its tail to this group              |
//! | 104..112 | first 8 bytes of blake3 over bytes 0..104                      |
//! | 112..4096| zero, ignored                                                  |
//!
//! Knows nothing of sled and decides nothing: the caller compares the mark with what it recovered.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys::files;

const MAGIC: [u8; 4] = *b"JSWT";
const VERSION: u32 = 1;
const SLOT_LEN: usize = 112;
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
const FILE_LEN: usize = 8192;

/// How far the journal had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The epoch that wrote the group.
    pub(crate) epoch: u64,
    /// The newest synced group. Group numbers rise from one epoch to the next as well.
    pub(crate) group: u64,
    /// Position of the group's last entry.
    pub(crate) position: u64,
    /// Hash of that entry.
    pub(crate) hash: [u8; 32],
    /// The ledger's digest after the group.
    pub(crate) digest: u128,
    /// Bytes of the entries from the tail to this group.
    pub(crate) journal_bytes: u64,
}

impl Mark {
    fn age(&self) -> (u64, u64) {
        (self.epoch, self.group)
    }
}

/// The open witness file. One writer.
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
    path: PathBuf,
    store: u128,
    newest: Mark,
    /// Offset of the slot that does *not* hold `newest`. Taking turns by this and not by the group
    /// number's parity keeps the newest mark safe where a group number was left out.
    spare: u64,
    /// Offset of the slot that holds `newest`.
    latest: u64,
    /// How many slots, of the two, call the journal small on stable storage for certain.
    surely_small: u8,
}

/// What [`Witness::open`] found.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once per opening and taken apart at once"
)]
pub(crate) enum Found {
    /// No file.
    Missing,
    /// A file, and no slot of it is valid: it can be neither trusted nor believed.
    Unreadable,
    /// The newest valid mark.
    Marked(Witness, Mark),
}

impl Witness {
    /// Makes the file anew, in place of whatever was there, and puts it on stable storage. A crash
    /// leaves either the old file or the new one.
    pub(crate) fn create(path: &Path, store: u128, mark: &Mark) -> Result<Witness> {
        let mut building = path.as_os_str().to_owned();
        building.push(".new");
        let building = PathBuf::from(building);
        let file = files::private_file()
            .create(true)
            .truncate(true)
            .open(&building)
            .map_err(Error::io("create", building.as_path()))?;
        let [latest, spare] = SLOT_OFFSETS;
        // All of it is written, not only allocated: a mark that overwrites needs no metadata then.
        let mut bytes = encode(store, mark);
        bytes.resize(FILE_LEN, 0);
        files::write_at(&file, 0, &bytes)
            .and_then(|()| file.sync_all())
            .map_err(Error::io("write", building.as_path()))?;
        fs::rename(&building, path).map_err(Error::io("rename", building))?;
        files::sync_parent(path)?;
        Ok(Witness {
            file,
            path: path.to_path_buf(),
            store,
            newest: *mark,
            spare,
            latest,
            surely_small: 0,
        })
    }

    /// Reads the newest mark.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignWitness`] if a valid slot names another store, [`Error::NewerFormat`],
    /// [`Error::Io`]. Damaged slots are no error: [`Found::Unreadable`], or the other slot's mark.
    pub(crate) fn open(path: &Path, store: u128) -> Result<Found> {
        let file = match fs::OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(refusal) if refusal.kind() == ErrorKind::NotFound => return Ok(Found::Missing),
            Err(source) => return Err(Error::io("open", path)(source)),
        };
        let mut found: Option<(Mark, u64)> = None;
        for offset in SLOT_OFFSETS {
            let Some(mark) = read_slot(&file, path, store, offset)? else {
                continue;
            };
            if found.is_none_or(|(newest, _)| newest.age() < mark.age()) {
                found = Some((mark, offset));
            }
        }
        let Some((newest, latest)) = found else {
            return Ok(Found::Unreadable);
        };
        let [first, second] = SLOT_OFFSETS;
        let spare = if latest == first { second } else { first };
        let path = path.to_path_buf();
        Ok(Found::Marked(
            Witness {
                file,
                path,
                store,
                newest,
                spare,
                latest,
                surely_small: 0,
            },
            newest,
        ))
    }

    /// Writes a mark over the older one. Not synced, but for the first two that do not call the journal large
    /// (from `large_from` bytes on): a large one is opened another way, so what is on stable storage must never
    /// call a small one large.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and [`Error::Bug`] for a mark older than the newest: read back, it would lose
    /// against the one it was to replace.
    pub(crate) fn record(&mut self, mark: &Mark, large_from: u64) -> Result<()> {
        if mark.age() < self.newest.age() {
            let (found, newest) = (mark.age(), self.newest.age());
            return Err(Error::Bug(format!(
                "witness mark {found:?} after {newest:?}"
            )));
        }
        files::write_at(&self.file, self.spare, &encode(self.store, mark))
            .map_err(Error::io("write", self.path.as_path()))?;
        self.newest = *mark;
        std::mem::swap(&mut self.spare, &mut self.latest);
        if mark.journal_bytes >= large_from {
            self.surely_small = 0;
        } else if self.surely_small < 2 {
            self.sync()?;
            self.surely_small += 1;
        }
        Ok(())
    }

    /// Removes the file, so that no mark of it is believed later: a stale one that says "large" would have
    /// the next opening done in place.
    pub(crate) fn give_up(self) {
        let removed = fs::remove_file(&self.path).map_err(Error::io("remove", self.path.as_path()));
        if let Err(error) = removed.and_then(|()| files::sync_parent(&self.path)) {
            log::error!("{error}; a stale witness may stay");
        }
    }

    /// Puts the recorded marks on stable storage: at open and at close, not per group.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(Error::io("sync", self.path.as_path()))
    }
}

fn encode(store: u128, mark: &Mark) -> Vec<u8> {
    let mut slot = [
        &MAGIC[..],
        &VERSION.to_le_bytes(),
        &store.to_le_bytes(),
        &mark.epoch.to_le_bytes(),
        &mark.group.to_le_bytes(),
        &mark.position.to_le_bytes(),
        &mark.hash,
        &mark.digest.to_le_bytes(),
        &mark.journal_bytes.to_le_bytes(),
    ]
    .concat();
    let check = check(&slot);
    slot.extend_from_slice(&check);
    slot
}

/// The mark of one slot, `None` if its bytes are not a whole slot of ours.
fn read_slot(file: &File, path: &Path, store: u128, offset: u64) -> Result<Option<Mark>> {
    let mut bytes = [0; SLOT_LEN];
    match files::read_at(file, offset, &mut bytes) {
        Ok(()) => {}
        Err(refusal) if refusal.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(source) => return Err(Error::io("read", path)(source)),
    }
    let Some(slot) = decode(&bytes) else {
        return Ok(None);
    };
    if slot.version != VERSION {
        let (path, what) = (path.to_path_buf(), "witness version");
        return Err(Error::NewerFormat {
            path,
            what,
            found: slot.version,
            known: VERSION,
        });
    }
    if slot.store != store {
        return Err(Error::ForeignWitness {
            path: path.to_path_buf(),
        });
    }
    Ok(Some(slot.mark))
}

/// Epoch and group of the newest mark, of whatever store: for those who only want to know whether something was
/// written. Changes nothing.
#[cfg(feature = "control")]
pub(crate) fn glance(store_dir: &Path) -> Option<(u64, u64)> {
    let file = File::open(super::Store::at(store_dir).witness()).ok()?;
    let slots = SLOT_OFFSETS.into_iter().filter_map(|offset| {
        let mut bytes = [0; SLOT_LEN];
        files::read_at(&file, offset, &mut bytes).ok()?;
        decode(&bytes).filter(|slot| slot.version == VERSION)
    });
    slots.map(|slot| slot.mark.age()).max()
}

/// What is left of a witness.
#[derive(Clone, Debug, Default)]
pub(crate) struct Glimpse {
    /// Marks that can be read, each with its store.
    pub(crate) marks: Vec<(u128, Mark)>,
    /// A slot holds something that cannot be read.
    pub(crate) damaged: bool,
}

/// Reads what can be read of a witness, of whichever store. Changes nothing.
pub(crate) fn glimpse(path: &Path) -> Glimpse {
    let mut found = Glimpse::default();
    let Ok(bytes) = fs::read(path) else {
        return found;
    };
    for offset in [0, 4096] {
        let slot = bytes.get(offset..offset + SLOT_LEN);
        match slot.and_then(|slot| slot.try_into().ok()).and_then(decode) {
            Some(slot) if slot.version == VERSION => found.marks.push((slot.store, slot.mark)),
            _ => found.damaged |= slot.is_none_or(|slot| slot.iter().any(|byte| *byte != 0)),
        }
    }
    found
}

struct Slot {
    version: u32,
    store: u128,
    mark: Mark,
}

/// A slot with the right magic and checksum, of any version and store. Later versions keep the first
/// two fields and the place of the checksum.
fn decode(bytes: &[u8; SLOT_LEN]) -> Option<Slot> {
    let (body, found) = bytes.split_last_chunk::<8>()?;
    let mut rest = body;
    if take(&mut rest)? != MAGIC || *found != check(body) {
        return None;
    }
    Some(Slot {
        version: u32::from_le_bytes(take(&mut rest)?),
        store: u128::from_le_bytes(take(&mut rest)?),
        mark: Mark {
            epoch: u64::from_le_bytes(take(&mut rest)?),
            group: u64::from_le_bytes(take(&mut rest)?),
            position: u64::from_le_bytes(take(&mut rest)?),
            hash: take(&mut rest)?,
            digest: u128::from_le_bytes(take(&mut rest)?),
            journal_bytes: u64::from_le_bytes(take(&mut rest)?),
        },
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn check(body: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(body);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const STORE: u128 = 0xABCD;
    const LARGE: u64 = 1 << 30;

    fn mark(epoch: u64, group: u64) -> Mark {
        Mark {
            epoch,
            group,
            position: group * 3,
            hash: [7; 32],
            digest: u128::MAX - 1,
            journal_bytes: 0x0102_0304,
        }
    }

    fn made() -> (TempDir, PathBuf, Witness) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("witness");
        let witness = Witness::create(&path, STORE, &mark(1, 1)).unwrap();
        (dir, path, witness)
    }

    fn newest(path: &Path) -> Option<Mark> {
        match Witness::open(path, STORE).unwrap() {
            Found::Marked(_, mark) => Some(mark),
            Found::Unreadable => None,
            Found::Missing => panic!("no file"),
        }
    }

    fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        files::write_at(&file, offset, bytes).unwrap();
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let slot = encode(STORE, &mark(5, 9));
        assert_eq!(slot.len(), SLOT_LEN);
        assert_eq!(&slot[..8], b"JSWT\x01\0\0\0");
        assert_eq!(slot[8..24], STORE.to_le_bytes());
        assert_eq!(
            (slot[24], slot[32], slot[40], slot[48], slot[80]),
            (5, 9, 27, 7, 0xFE)
        );
        assert_eq!(slot[96..104], 0x0102_0304_u64.to_le_bytes());
        assert_eq!(slot[104..], blake3::hash(&slot[..104]).as_bytes()[..8]);
    }

    #[test]
    fn a_missing_file_is_missing_and_a_new_one_is_whole() {
        let (dir, path, _witness) = made();
        assert!(matches!(
            Witness::open(&dir.path().join("none"), STORE).unwrap(),
            Found::Missing
        ));
        assert_eq!(fs::metadata(&path).unwrap().len(), FILE_LEN as u64);
        assert_eq!(newest(&path), Some(mark(1, 1)));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing else is left"
        );
    }

    #[test]
    fn marks_take_turns_also_over_a_reopen_and_a_gap() {
        let (_dir, path, mut witness) = made();
        let mut older = mark(1, 1);
        for (epoch, group) in [(1, 2), (1, 3), (2, 5), (2, 7), (2, 7), (3, 8)] {
            let next = mark(epoch, group);
            witness.record(&next, LARGE).unwrap();
            witness.sync().unwrap();
            assert_eq!(newest(&path), Some(next));
            // Losing the slot just written costs exactly one mark.
            let whole = fs::read(&path).unwrap();
            overwrite(&path, witness.latest + 50, b"torn");
            assert_eq!(newest(&path).map(|found| found.age()), Some(older.age()));
            overwrite(&path, 0, &whole);
            older = next;
            let Found::Marked(reopened, _) = Witness::open(&path, STORE).unwrap() else {
                panic!("unreadable")
            };
            witness = reopened;
        }
    }

    #[test]
    fn both_slots_torn_are_unreadable_and_can_be_remade() {
        let (_dir, path, mut witness) = made();
        witness.record(&mark(1, 2), LARGE).unwrap();
        for offset in SLOT_OFFSETS {
            overwrite(&path, offset + 100, b"torn");
        }
        assert_eq!(newest(&path), None);
        for len in [0, 1, 103, 4096] {
            fs::write(&path, vec![0; len]).unwrap();
            assert_eq!(newest(&path), None, "{len} bytes");
        }
        Witness::create(&path, STORE, &mark(4, 4)).unwrap();
        assert_eq!(newest(&path), Some(mark(4, 4)));
    }

    #[test]
    fn a_file_cut_short_keeps_its_first_slot() {
        let (_dir, path, mut witness) = made();
        witness.record(&mark(1, 2), LARGE).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(4100)
            .unwrap();
        assert_eq!(newest(&path), Some(mark(1, 1)));
    }

    #[test]
    fn another_store_is_refused() {
        let (_dir, path, _witness) = made();
        let refused = Witness::open(&path, STORE + 1).unwrap_err();
        assert!(matches!(refused, Error::ForeignWitness { .. }), "{refused}");
    }

    #[test]
    fn a_newer_version_is_named() {
        let (_dir, path, _witness) = made();
        let mut slot = encode(STORE, &mark(1, 1))[..104].to_vec();
        slot[4] = 2;
        let check = check(&slot);
        slot.extend_from_slice(&check);
        overwrite(&path, 0, &slot);
        let refused = Witness::open(&path, STORE).unwrap_err();
        assert!(
            matches!(
                refused,
                Error::NewerFormat {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{refused}"
        );
    }

    #[test]
    fn given_up_it_is_gone() {
        let (dir, path, mut witness) = made();
        witness.record(&mark(1, 2), LARGE).unwrap();
        witness.give_up();
        assert!(matches!(
            Witness::open(&path, STORE).unwrap(),
            Found::Missing
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_older_mark_is_our_bug() {
        let (_dir, path, mut witness) = made();
        witness.record(&mark(2, 5), LARGE).unwrap();
        for stale in [mark(2, 4), mark(1, 9)] {
            assert!(matches!(witness.record(&stale, LARGE), Err(Error::Bug(_))));
        }
        assert_eq!(newest(&path), Some(mark(2, 5)));
    }

    #[test]
    fn no_bytes_panic_and_no_damage_passes() {
        let (_dir, path, mut witness) = made();
        witness.record(&mark(1, 2), LARGE).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut seed = blake3::Hasher::new_keyed(&[42; 32]).finalize_xof();
        for round in 0..300_u32 {
            let mut random = [0; 256];
            seed.fill(&mut random);
            // All of both slots, or some bytes of each; sometimes the file is cut as well.
            let mut bytes = whole.clone();
            let len = if round % 3 == 0 {
                SLOT_LEN
            } else {
                1 + usize::from(random[1]) % 8
            };
            let from = usize::from(random[0]) % (SLOT_LEN - len + 1);
            for slot in [0, 4096] {
                let damaged = &mut bytes[slot + from..slot + from + len];
                damaged
                    .iter_mut()
                    .zip(&random[8..])
                    .for_each(|(byte, noise)| *byte ^= noise | 1);
            }
            if round % 5 == 0 {
                bytes.truncate(usize::from(u16::from_le_bytes([random[2], random[3]])) % 8192);
            }
            fs::write(&path, &bytes).unwrap();
            assert_eq!(newest(&path), None, "round {round}");
        }
    }
}
