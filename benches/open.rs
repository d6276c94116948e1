//! What a large backlog costs: opening time, memory and size, beside a scan of the journal that checks hashes and
//! nothing else.
//!
//! `cargo bench --features bench --bench open`; `JOBSLED_BENCH_JOBS` (1,000,000), `JOBSLED_BENCH_ROUNDS` (3),
//! `JOBSLED_BENCH_DIR` (a directory on the disk to measure; default: `target/`). Each figure is taken in a process
//! of its own.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Noop, PAYLOAD, mb, ms, resident, resident_max};
use jobsled::bench::BareJournal;
use jobsled::{Context, Engine};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let part = |n: usize| arguments.get(n).map(String::as_str);
    match (part(0), part(1).map(Path::new)) {
        (Some("fill"), Some(store)) => fill(store, part(2).unwrap().parse().unwrap(), part(3)),
        (Some("open"), Some(store)) => open(store),
        (Some("scan"), Some(store)) => scan(store),
        _ => report(),
    }
}

fn report() {
    let jobs = common::jobs().to_string();
    let rounds = common::setting("ROUNDS", 3);
    let dir = common::dir();
    println!("{jobs} pending jobs of {PAYLOAD} bytes; every line is a process of its own");
    for end in ["clean", "killed"] {
        let store = dir.path().join(end);
        run(&["fill", store.to_str().unwrap(), &jobs, end]);
        for _ in 0..rounds {
            let copy = dir.path().join("copy");
            copy_tree(&store, &copy);
            run(&["scan", copy.to_str().unwrap()]);
            std::fs::remove_dir_all(&copy).unwrap();
            copy_tree(&store, &copy);
            run(&["open", copy.to_str().unwrap()]);
            std::fs::remove_dir_all(&copy).unwrap();
        }
    }
}

/// A process of its own; one that is to be killed ends by a signal.
fn run(arguments: &[&str]) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .status()
        .unwrap();
    assert!(
        status.success() || arguments.contains(&"killed"),
        "{arguments:?}: {status}"
    );
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn fill(store: &Path, jobs: u64, end: Option<&str>) {
    let engine = Engine::builder(store).open().unwrap();
    let before = resident();
    common::fill(&engine, jobs, 1_000);
    let stats = engine.stats().unwrap();
    println!(
        "filled ({}): {:.0} MB on disk, {:.0} MB resident",
        end.unwrap_or_default(),
        mb(stats.bytes_on_disk),
        mb(resident().saturating_sub(before))
    );
    if end == Some("killed") {
        std::process::abort();
    }
    let begun = Instant::now();
    engine.shutdown(Duration::ZERO).unwrap();
    println!("closed in {:.0} ms", ms(begun.elapsed()));
}

fn open(store: &Path) {
    let (started, first) = mpsc::channel();
    let begun = Instant::now();
    let engine = Engine::builder(store)
        .handle(move |_: Noop, cx: &Context| {
            let _ = started.send(());
            cx.pause(Duration::from_hours(1))?;
            Ok(())
        })
        .open()
        .unwrap();
    let open = begun.elapsed();
    first.recv().unwrap();
    let first = begun.elapsed();
    println!(
        "opened in {:.0} ms, first job started after {:.0} ms, {:.0} MB resident, {:.0} at most",
        ms(open),
        ms(first),
        mb(resident()),
        mb(resident_max())
    );
    engine.shutdown(Duration::ZERO).unwrap();
}

fn scan(store: &Path) {
    let begun = Instant::now();
    let (entries, took) = BareJournal::scan(store).unwrap();
    println!(
        "scanned {entries} entries in {:.0} ms; copied, opened, scanned and closed in {:.0} ms",
        ms(took),
        ms(begun.elapsed())
    );
}
