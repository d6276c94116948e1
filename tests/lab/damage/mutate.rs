//! The ways in which files go bad.

use std::fs;
use std::path::{Path, PathBuf};

use super::known::Pristine;
use crate::random::Random;

/// What was done to a store.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) what: Vec<String>,
    pub(super) files: Vec<String>,
}

impl Done {
    pub(super) fn touches(&self, part: &str) -> bool {
        self.files.iter().any(|file| file.contains(part))
    }
}

/// Damages a store once, or at times twice.
pub(super) fn damage(store: &Path, random: &mut Random, all: &[Pristine]) -> Done {
    let mut done = Done::default();
    let times = if random.one_in(4) { 2 } else { 1 };
    for _ in 0..times {
        // Nobody can notice that the end of the log is gone if the witness is, too.
        let spares_witness = done.touches("journal");
        let spares_journal = done.touches("witness");
        once(
            store,
            random,
            all,
            &mut done,
            (spares_journal, spares_witness),
        );
    }
    done
}

fn once(
    store: &Path,
    random: &mut Random,
    all: &[Pristine],
    done: &mut Done,
    (spares_journal, spares_witness): (bool, bool),
) {
    if random.one_in(8) {
        return add(store, random, done);
    }
    let mut files = files_below(store);
    files.retain(|file| {
        let name = file.to_string_lossy();
        let spared = |spares: bool, part| spares && name.contains(part);
        !spared(spares_journal, "journal") && !spared(spares_witness, "witness")
    });
    if files.is_empty() {
        return;
    }
    // Half of it hits the log: there is the most to lose.
    let is_log = |file: &&PathBuf| file.ends_with("db");
    let logs: Vec<_> = files.iter().filter(is_log).collect();
    let file = if !logs.is_empty() && random.one_in(2) {
        (*random.pick(&logs)).clone()
    } else {
        random.pick(&files).clone()
    };
    let other = random.pick(all).dir.join(&file);
    let path = store.join(&file);
    let mut bytes = fs::read(&path).unwrap();
    let what = match random.below(10) {
        0 if random.one_in(3) => {
            fs::remove_file(&path).unwrap();
            tell(done, &file, "deleted");
            return;
        }
        1 if other.exists() => {
            bytes = fs::read(&other).unwrap();
            "another store's"
        }
        2 if random.one_in(3) => {
            bytes.clear();
            "emptied"
        }
        _ => change(&mut bytes, random, &other),
    };
    fs::write(&path, bytes).unwrap();
    tell(done, &file, what);
}

fn tell(done: &mut Done, file: &Path, what: &str) {
    done.files.push(file.to_string_lossy().into_owned());
    done.what.push(format!("{}: {what}", file.display()));
}

/// Something that does not belong there.
fn add(store: &Path, random: &mut Random, done: &mut Done) {
    let junk: Vec<u8> = (0..random.between(0, 600)).map(|_| byte(random)).collect();
    let name = *random.pick(&[
        "journal/snap.00000000000000FF",
        "journal/snap.0000000000000010.generating",
        "journal/snap.FFFFFFFFFFFFFFFF",
        "journal/blobs/17",
        "journal/notes.txt",
        "notes.txt",
        "payloads/notes.txt",
        "payloads/0123456789abcdef0123456789abcdef.payload",
        "journal.new/db",
        "journal.old/db",
        "witness.new",
    ]);
    let path = store.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, junk).unwrap();
    tell(done, Path::new(name), "added");
}

/// Changes some of a file's bytes.
fn change(bytes: &mut Vec<u8>, random: &mut Random, other: &Path) -> &'static str {
    if bytes.is_empty() {
        bytes.extend((0..64).map(|_| byte(random)));
        return "filled";
    }
    let at = somewhere(bytes, random);
    match random.below(7) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            "a bit flipped"
        }
        2 => {
            let sector = *random.pick(&[512, 4_096]);
            let from = at / sector * sector;
            let to = bytes.len().min(from + sector);
            bytes[from..to].fill(0);
            "a sector zeroed"
        }
        3 => {
            let to = bytes.len().min(at + 64);
            bytes[at..to].iter_mut().for_each(|b| *b = byte(random));
            "64 random bytes"
        }
        4 => {
            bytes.truncate(at);
            "truncated"
        }
        5 => {
            let source = match fs::read(other) {
                Ok(source) if random.one_in(2) && !source.is_empty() => source,
                _ => bytes.clone(),
            };
            let len = usize::try_from(random.between(1, 40_000)).unwrap();
            let from = somewhere(&source, random);
            let block = &source[from..source.len().min(from + len)];
            let to = bytes.len().min(at + block.len());
            bytes[at..to].copy_from_slice(&block[..to - at]);
            "a block of another place"
        }
        _ => {
            let len = usize::try_from(random.between(1, 5_000)).unwrap();
            let block = bytes[at..bytes.len().min(at + len)].to_vec();
            bytes.splice(at..at, block);
            "a block doubled"
        }
    }
}

fn byte(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).unwrap()
}

/// A place in these bytes; mostly one where something is written.
fn somewhere(bytes: &[u8], random: &mut Random) -> usize {
    for _ in 0..200 {
        let at = random.index(bytes.len());
        if bytes[at] != 0 {
            return at;
        }
    }
    random.index(bytes.len())
}

/// All files below a directory, relative to it, in order.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.push(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    files.sort_unstable();
    files
}
