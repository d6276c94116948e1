//! What does an engine cost that has nothing to do? A new store's size, memory and threads, and how often its threads
//! wake up.
//!
//! `cargo bench --bench idle`; `JOBSLED_BENCH_SECONDS` (60). Linux: elsewhere most of it is not told.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use common::mb;

fn main() {
    let dir = common::dir();
    let seconds: u64 = common::setting("SECONDS", 60);
    let own = threads().len();
    let engine = common::builder(dir.path()).open().unwrap();
    // What is put off until the opening is over.
    common::pass(Duration::from_secs(2));
    println!(
        "a new store: {:.2} MB on disk, {:.1} MB of memory, {} threads",
        mb(allocated(dir.path())),
        mb(common::resident()),
        threads().len() - own
    );
    let (before, syncs) = (threads(), engine.stats().unwrap().syncs);
    common::pass(Duration::from_secs(seconds));
    let after = threads();
    let mut woken: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, (name, wake_ups)) in &after {
        let earlier = before.get(id).map_or(0, |(_, earlier)| *earlier);
        *woken.entry(name).or_default() += wake_ups - earlier;
    }
    println!(
        "idle for {seconds} s: {} syncs; wake-ups by name of the thread: {woken:?}",
        engine.stats().unwrap().syncs - syncs
    );
    engine.shutdown(Duration::ZERO).unwrap();
}

/// Name and wake-ups of each thread, by its id.
fn threads() -> BTreeMap<String, (String, u64)> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten() {
        let task = task.unwrap();
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let status = task.path().join("status");
        let woken = common::field(status.to_str().unwrap(), "voluntary_ctxt_switches:");
        let id = task.file_name().to_string_lossy().into_owned();
        threads.insert(id, (name.trim().to_owned(), woken.unwrap_or(0)));
    }
    threads
}

/// Bytes that a directory takes.
fn allocated(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                return allocated(&entry.path());
            }
            #[cfg(unix)]
            {
                use std::os::unix::fs::MetadataExt;
                entry.metadata().unwrap().blocks() * 512
            }
            #[cfg(not(unix))]
            {
                entry.metadata().unwrap().len()
            }
        })
        .sum()
}
