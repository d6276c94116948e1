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

use std::path::{Path, PathBuf};
use std::sync::Mutex;

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

/// A directory of each thread is in here, in memory where there is one.
static HOME: Mutex<Option<tempfile::TempDir>> = Mutex::new(None);

/// An empty directory of this thread.
fn with_empty_dir<T>(work: impl FnOnce(&Path) -> T) -> T {
    let thread = format!("{:?}", std::thread::current().id());
    let dir = {
        let mut home = HOME.lock().unwrap();
        home.get_or_insert_with(memory_dir).path().join(thread)
    };
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir(&dir).unwrap();
    work(&dir)
}

/// Removes what the bodies left. Nobody may be running one. (A fuzzer ends without a word, and leaves it.)
pub(crate) fn clean() {
    drop(HOME.lock().unwrap().take());
}

fn memory_dir() -> tempfile::TempDir {
    let (memory, usual) = (Path::new("/dev/shm"), std::env::temp_dir());
    let place = if memory.is_dir() { memory } else { &usual };
    let mut named = tempfile::Builder::new();
    named.prefix("jobsled-lab-fuzz-").tempdir_in(place).unwrap()
}
