//! What each fuzz target does with its bytes. The same bodies run under libFuzzer (`fuzz/fuzz_targets`) and, on fixed
//! seeds and the committed corpora, in the crash lab (`tests/lab/fuzz.rs`).
//!
//! A body panics when a promise is broken, and else says whether the bytes came past the first door.

mod entries;
mod lines;
mod lives;
mod open;
mod small_files;
mod socket;
mod times;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use crate::random::Random;

/// One target.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) body: fn(&[u8]) -> bool,
    /// Bytes that come past the door, for runs without a fuzzer; `None`: only what the corpus has.
    pub(crate) make: Option<fn(&mut Random) -> Vec<u8>>,
    /// Its share of the inputs of the lab's check: the slow ones get few.
    pub(crate) share: u64,
}

/// All targets. The order is that of the numbers in the lab's seeds: a new one comes last.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "entry",
        body: entries::entry,
        make: Some(entries::an_entry),
        share: 100,
    },
    Target {
        name: "events",
        body: entries::events,
        make: Some(some_bytes),
        share: 100,
    },
    Target {
        name: "journal",
        body: entries::journal,
        make: Some(some_bytes),
        share: 100,
    },
    Target {
        name: "open",
        body: open::open,
        make: Some(open::some_damage),
        share: 1,
    },
    Target {
        name: "lives",
        body: lives::live,
        make: Some(some_bytes),
        share: 4,
    },
    Target {
        name: "socket",
        body: socket::socket,
        make: None,
        share: 40,
    },
    Target {
        name: "lines",
        body: lines::lines,
        make: Some(lines::an_export),
        share: 10,
    },
    Target {
        name: "times",
        body: times::times,
        make: Some(times::some_text),
        share: 100,
    },
    Target {
        name: "small_files",
        body: small_files::small_files,
        make: Some(small_files::some_file),
        share: 40,
    },
];

/// Any bytes: where they are choices, all are good ones.
fn some_bytes(random: &mut Random) -> Vec<u8> {
    let len = random.below(600);
    (0..len).map(|_| byte(random)).collect()
}

fn byte(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).unwrap()
}

/// The top of the repository, from the crate and from the fuzz package.
pub(crate) fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.join("tests/fixtures").is_dir() {
        return here.to_owned();
    }
    here.parent().unwrap().to_owned()
}

/// A directory of this thread, in memory where there is one; empty.
fn with_empty_dir<T>(work: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static HOME: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
    }
    HOME.with(|home| {
        let home = home.get_or_init(memory_dir).path();
        for entry in std::fs::read_dir(home).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(&path).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
        }
        work(home)
    })
}

fn memory_dir() -> tempfile::TempDir {
    let (memory, usual) = (Path::new("/dev/shm"), std::env::temp_dir());
    let place = if memory.is_dir() { memory } else { &usual };
    let mut named = tempfile::Builder::new();
    named.prefix("jobsled-lab-fuzz-").tempdir_in(place).unwrap()
}
