//! How many durable jobs a second? The engine beside the bare journal (same events, same write pattern, no
//! ledger and no workers) and a plain file (same bytes, one write and one `fdatasync` a group), interleaved.
//!
//! `cargo bench --features bench --bench throughput`; `JOBSLED_BENCH_JOBS` (1,000,000), `JOBSLED_BENCH_DIR` (a
//! directory on the disk to measure; default: `target/`); a word after `--` picks the rows that contain it. Read the
//! ratios: the machine is never alone.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]
#![expect(clippy::cast_precision_loss, reason = "rates are rounded anyway")]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod common;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Noop, PAYLOAD, noop};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use jobsled::bench::BareJournal;
use jobsled::{Context, Engine};

const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_millis(700);
const GROUP_MAX: usize = 1_000;
/// Bytes that one enqueued job takes in the journal, for the plain file.
const JOB_BYTES: usize = 360;

fn main() {
    let dir = common::dir();
    println!(
        "payload {PAYLOAD} bytes, {} cores, medians of {ROUNDS} interleaved rounds; ratio to bare",
        cores()
    );
    println!(
        "{:<34}{:>12}{:>12}{:>12}{:>8}",
        "durable jobs/s", "raw file", "bare", "engine", "ratio"
    );
    // As in other benches: a word after `--` picks the rows that contain it.
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|word| name.contains(word));
    for threads in [1, 8, 64] {
        let name = format!("enqueue, {threads} threads");
        if !is_wanted(&name) {
            continue;
        }
        let mut rates = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            let sub = |name: &str| fresh(dir.path(), &format!("{name}-{threads}-{round}"));
            rates[0].push(raw(threads, &sub("raw")));
            rates[1].push(bare(threads, &sub("bare")));
            rates[2].push(engine(threads, &sub("engine")));
        }
        row(&name, rates);
    }
    let jobs = common::jobs();
    let name = format!("{jobs} no-op jobs to completion");
    if !is_wanted(&name) {
        return;
    }
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..3 {
        rates[1].push(bare_through(
            jobs,
            &fresh(dir.path(), &format!("bare-through-{round}")),
        ));
        rates[2].push(engine_through(
            jobs,
            &fresh(dir.path(), &format!("engine-through-{round}")),
        ));
    }
    row(&name, rates);
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

fn fresh(dir: &Path, name: &str) -> PathBuf {
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn median(mut rates: Vec<f64>) -> Option<f64> {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

fn row(name: &str, rates: [Vec<f64>; 3]) {
    let [raw, bare, engine] = rates.map(median);
    let show = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
    let ratio = bare.zip(engine).map_or_else(String::new, |(bare, engine)| {
        format!("{:.2}", engine / bare)
    });
    println!(
        "{name:<34}{:>12}{:>12}{:>12}{ratio:>8}",
        show(raw),
        show(bare),
        show(engine)
    );
}

/// Threads that each wait for their own job, for a while; jobs a second.
fn closed_loop(threads: usize, one: impl Fn() + Sync) -> f64 {
    let begun = Instant::now();
    let done: u64 = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = 0;
                    while begun.elapsed() < WINDOW {
                        one();
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    done as f64 / begun.elapsed().as_secs_f64()
}

/// One thread that commits whatever waits, as a group, and answers.
fn committer(requests: &Receiver<Sender<()>>, mut commit: impl FnMut(u64)) {
    while let Ok(first) = requests.recv() {
        let mut group = vec![first];
        group.extend(requests.try_iter().take(GROUP_MAX));
        commit(group.len() as u64);
        group.into_iter().for_each(|reply| reply.send(()).unwrap());
    }
}

fn grouped(threads: usize, commit: impl FnMut(u64) + Send) -> f64 {
    let (send, requests) = unbounded();
    std::thread::scope(|scope| {
        scope.spawn(move || committer(&requests, commit));
        let rate = closed_loop(threads, || {
            let (reply, answer) = bounded(1);
            send.send(reply).unwrap();
            answer.recv().unwrap();
        });
        drop(send);
        rate
    })
}

fn raw(threads: usize, dir: &Path) -> f64 {
    let mut file = File::create(dir.join("log")).unwrap();
    grouped(threads, move |jobs| {
        let bytes = vec![7; JOB_BYTES * usize::try_from(jobs).unwrap()];
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
    })
}

fn bare(threads: usize, dir: &Path) -> f64 {
    let mut journal = BareJournal::create(dir, u64::MAX).unwrap();
    grouped(threads, move |jobs| {
        journal.group(jobs, &[7; PAYLOAD + 8], 0).unwrap();
    })
}

fn engine(threads: usize, dir: &Path) -> f64 {
    let engine = Engine::builder(dir.join("store")).open().unwrap();
    closed_loop(threads, || drop(engine.enqueue(noop()).unwrap()))
}

/// The events of all jobs through the bare journal, in batches of 1,000.
fn bare_through(jobs: u64, dir: &Path) -> f64 {
    let mut journal = BareJournal::create(dir, 64).unwrap();
    let begun = Instant::now();
    for _ in 0..jobs / 1_000 {
        journal.group(1_000, &[7; PAYLOAD + 8], 1_000).unwrap();
    }
    jobs as f64 / begun.elapsed().as_secs_f64()
}

/// From the first enqueue to the last durable completion, in batches of 1,000.
fn engine_through(jobs: u64, dir: &Path) -> f64 {
    let engine = Engine::builder(dir.join("store"))
        .handle(|_: Noop, _: &Context| Ok(()))
        .open()
        .unwrap();
    let begun = Instant::now();
    for _ in 0..jobs / 1_000 {
        let mut batch = engine.batch();
        batch.extend((0..1_000).map(|_| noop()));
        batch.enqueue().unwrap();
    }
    assert!(engine.wait_until_idle(Duration::from_mins(10)).unwrap());
    jobs as f64 / begun.elapsed().as_secs_f64()
}
