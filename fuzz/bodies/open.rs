//! `open`: a store's directory with whatever is in it: opened, looked at, and at times repaired.
//!
//! The bytes are changes to the golden store (`tests/fixtures/v1`), or to nothing. Slow: sled opens a copy each time.
//! Whether anything is lost in silence is for the check `damage` to say; here it is an answer, and a typed one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use jobsled::{Engine, Error};

use super::{byte, some_bytes, top, with_empty_dir};
use crate::random::Random;

/// Names that mean something, and some that do not.
const NAMES: &[&str] = &[
    "journal/db",
    "journal/conf",
    "journal/jobsled",
    "journal/snap.00000000000039F4",
    "witness",
    "payloads/46ff151d7367dde7158d9d789ca21a4d.payload",
    "recorder",
    "lock",
    "journal/snap.00000000000000FF",
    "journal/snap.0000000000000010.generating",
    "journal/blobs/17",
    "journal/notes.txt",
    "journal.new/db",
    "journal.old/db",
    "journal.old/jobsled",
    "witness.new",
    "ballast",
    "commands/1-1",
    "payloads/notes.txt",
    "control",
    "socket",
    "part",
    "notes.txt",
];
const CHANGES_MAX: usize = 12;

type Files = BTreeMap<String, Vec<u8>>;

fn golden() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let store = top().join("tests/fixtures/v1/store");
        let there = NAMES.iter().filter(|name| store.join(name).is_file());
        there
            .map(|name| ((*name).to_owned(), fs::read(store.join(name)).unwrap()))
            .collect()
    })
}

pub(super) fn open(bytes: &[u8]) -> bool {
    let Some((mode, rest)) = bytes.split_first() else {
        return false;
    };
    let mut files = if mode & 1 == 0 {
        golden().clone()
    } else {
        Files::new()
    };
    change(&mut files, rest);
    if mode & 2 != 0 {
        seal(&mut files);
    }
    with_empty_dir(|dir| {
        let store = dir.join("store");
        write(&store, &files);
        let well = opened(&store);
        if mode & 4 != 0 {
            repaired(&store, dir);
        }
        well
    })
}

fn write(store: &Path, files: &Files) {
    fs::create_dir(store).unwrap();
    for (name, bytes) in files {
        let path = store.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn opened(store: &Path) -> bool {
    let engine = match Engine::builder(store).open() {
        Ok(engine) => engine,
        Err(error) => {
            typed(&error);
            return false;
        }
    };
    for job in engine.jobs().list().unwrap() {
        match engine.details(job.id) {
            Ok(details) => assert!(details.is_some(), "job {} is listed", job.id),
            Err(error) => typed(&error),
        }
    }
    true
}

fn typed(error: &Error) {
    let typed = matches!(
        error,
        Error::Damaged { .. }
            | Error::Missing { .. }
            | Error::ForeignWitness { .. }
            | Error::ForeignLock { .. }
            | Error::NewerFormat { .. }
            | Error::Layout { .. }
            | Error::NotAStore { .. }
            | Error::Io { .. }
    );
    assert!(typed, "{error:?}");
}

/// What is made of what is left is whole.
fn repaired(store: &Path, dir: &Path) {
    match jobsled::repair(store, dir.join("new")) {
        Ok(_) => drop(jobsled::verify(dir.join("new"), Some(dir)).unwrap()),
        Err(Error::NothingLeft { .. }) => {}
        Err(error) => typed(&error),
    }
}

/// Six bytes a change: a file, what is done, where, and with what.
fn change(files: &mut Files, bytes: &[u8]) {
    let mut rest = bytes;
    for _ in 0..CHANGES_MAX {
        let Some((&[name, what, a, b, c, len], after)) = rest.split_first_chunk::<6>() else {
            break;
        };
        rest = after;
        let name = NAMES[usize::from(name) % NAMES.len()];
        let given = rest.len().min(len.into());
        let file = files.entry(name.to_owned()).or_default();
        // Behind the last byte that is not zero there is nothing to hit.
        let used = file
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let at = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let at = if used == 0 { 0 } else { at % used };
        let to = file.len().min(at + given.max(1));
        match what % 8 {
            0 if at < file.len() => file[at] ^= 1 << (len % 8),
            1 => {
                let to = file.len().min(at + given);
                file[at..to].copy_from_slice(&rest[..to - at]);
            }
            2 => file[at..to].fill(0),
            3 => file.truncate(at),
            4 => drop(files.remove(name)),
            5 => {
                let block = file[at..to].to_vec();
                file.splice(at..at, block);
            }
            6 => *file = rest[..given].to_vec(),
            _ => file.extend_from_slice(&rest[..given]),
        }
        if matches!(what % 8, 1 | 6 | 7) {
            rest = &rest[given..];
        }
    }
}

/// Puts the checksums of header and witness right.
fn seal(files: &mut Files) {
    if let Some(header) = files.get_mut("journal/jobsled")
        && header.len() > 8
    {
        let content = header.len() - 8;
        let sum = *blake3::hash(&header[..content]).as_bytes();
        header[content..].copy_from_slice(&sum[..8]);
    }
    if let Some(witness) = files.get_mut("witness") {
        for slot in witness.chunks_mut(4_096).filter(|slot| slot.len() >= 112) {
            let sum = *blake3::hash(&slot[..104]).as_bytes();
            slot[104..112].copy_from_slice(&sum[..8]);
        }
    }
}

/// Some changes to the golden store.
pub(super) fn some_damage(random: &mut Random) -> Vec<u8> {
    let mut bytes = some_bytes(random);
    bytes.truncate(usize::try_from(random.between(7, 40)).unwrap());
    if let Some(mode) = bytes.first_mut() {
        *mode = byte(random) & 0xFE;
    }
    bytes
}
