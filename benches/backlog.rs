//! Does the store stay small? Jobs pass through a short backlog while one job stays for the whole run, and so
//! keeps its entry needed: compaction has to carry it forward.
//!
//! `cargo bench --bench backlog`; `JOBSLED_BENCH_JOBS` (1,000,000), `JOBSLED_BENCH_BATCH` (1,000),
//! `JOBSLED_BENCH_BACKLOG` (10,000), `JOBSLED_BENCH_DIR` (a directory on the disk to measure; default: `target/`). The
//! limits are those of the design: the log within 3 x live + 5 segments, no batch's wait above 20 x the median.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]
#![expect(clippy::cast_precision_loss, reason = "figures are rounded anyway")]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod common;

use std::time::{Duration, Instant};

use common::{PAYLOAD, mb, ms, noop};

const SEGMENT: u64 = 4 << 20;
const DAY: Duration = Duration::from_hours(24);

fn main() {
    let (jobs, dir) = (common::jobs(), common::dir());
    let batch: u64 = common::setting("BATCH", 1_000);
    let backlog: u64 = common::setting("BACKLOG", 10_000);
    let engine = common::builder(dir.path()).open().unwrap();
    let stays = engine.job(noop()).after(DAY).enqueue().unwrap();
    let (begun, written) = (Instant::now(), common::written());
    let mut waits = Vec::new();
    let mut resident = Vec::new();
    let (mut largest, mut worst) = (0, 0.0_f64);
    for (n, stored) in (0..jobs)
        .step_by(usize::try_from(batch).unwrap())
        .enumerate()
    {
        let finished = (stored + batch).saturating_sub(backlog);
        engine.wait_until_finished(finished, DAY).unwrap();
        let asked = Instant::now();
        common::fill(&engine, batch, batch);
        waits.push(asked.elapsed());
        if n % 10 == 0 {
            let s = engine.stats().unwrap();
            let allowed = 3 * s.live_bytes + 5 * SEGMENT;
            largest = largest.max(s.bytes_on_disk);
            worst = worst.max(s.bytes_on_disk as f64 / allowed as f64);
            resident.push(common::resident());
        }
    }
    engine.wait_until_finished(jobs, DAY).unwrap();
    let rate = common::rate(jobs, begun.elapsed());
    let written = (common::written() - written) as f64 / jobs as f64;
    let s = engine.stats().unwrap();
    println!(
        "{jobs} jobs of {PAYLOAD} bytes in batches of {batch}, {backlog} at a time, one that stays: {rate:.0} jobs/s, \
         {} groups, {} syncs",
        s.groups, s.syncs
    );
    println!(
        "written: {written:.0} bytes a job, {:.2} x its payload",
        written / PAYLOAD as f64
    );
    println!(
        "log: {:.1} MB at most, {worst:.2} of 3 x live + 5 segments; at the end {:.1} MB",
        mb(largest),
        mb(s.bytes_on_disk)
    );
    println!(
        "journal at the end: {:.1} MB, {:.1} MB of it live",
        mb(s.journal_bytes),
        mb(s.live_bytes)
    );
    let tenth = |n: usize| mb(*resident.get((resident.len() - 1) * n / 10).unwrap());
    println!(
        "memory after each tenth: {:.1?} MB",
        (1..=10).map(tenth).collect::<Vec<_>>()
    );
    waits.sort_unstable();
    let at = |thousandth: usize| ms(*waits.get((waits.len() - 1) * thousandth / 1_000).unwrap());
    println!(
        "a batch's wait: median {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.2} ms = {:.1} x the median",
        at(500),
        at(990),
        at(999),
        at(1_000),
        at(1_000) / at(500)
    );
    assert!(engine.details(stays.handle().id()).unwrap().is_some());
    let begun = Instant::now();
    engine.shutdown(Duration::ZERO).unwrap();
    println!("closed in {:.0} ms", ms(begun.elapsed()));
}
