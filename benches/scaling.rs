//! How does it grow? Jobs to completion by 1, 2, 4 and 8 workers, and the cost of a job from 1,000 jobs to 10,000,000,
//! beside the journal alone.
//!
//! `cargo bench --features bench --bench scaling`; `JOBSLED_BENCH_JOBS` (300,000 for workers), `JOBSLED_BENCH_MOST`
//! (10,000,000), `JOBSLED_BENCH_ROUNDS` (5), `JOBSLED_BENCH_DIR`. It prints a line of JSON for each point, which
//! `benches/plots` draws.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod common;

use std::time::{Duration, Instant};

use common::{PAYLOAD, median, rate};
use jobsled::Pool;
use jobsled::bench::BareJournal;

const WORKERS: [usize; 4] = [1, 2, 4, 8];

fn main() {
    let rounds: usize = common::setting("ROUNDS", 5);
    workers(common::setting("JOBS", 300_000), rounds);
    let most: u64 = common::setting("MOST", 10_000_000);
    let mut jobs = 1_000;
    while jobs <= most {
        // The longest once: it has no luck to speak of.
        cost(jobs, if jobs > 1_000_000 { 1 } else { rounds });
        jobs *= 10;
    }
}

fn workers(jobs: u64, rounds: usize) {
    let mut bare = Vec::new();
    let mut rates: [Vec<f64>; WORKERS.len()] = Default::default();
    for _ in 0..rounds {
        bare.push(journal(jobs));
        for (rates, workers) in rates.iter_mut().zip(WORKERS) {
            rates.push(engine(jobs, workers));
        }
    }
    let bare = median(bare);
    for (rates, workers) in rates.into_iter().zip(WORKERS) {
        let rate = median(rates);
        println!(
            r#"{{"plot":"workers","workers":{workers},"jobs_per_second":{rate:.0},"journal":{bare:.0}}}"#
        );
    }
}

fn cost(jobs: u64, rounds: usize) {
    let mut rates: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        let [bare, whole] = &mut rates;
        bare.push(journal(jobs));
        whole.push(engine(jobs, 2));
    }
    let [bare, whole] = rates.map(|rates| 1e6 / median(rates));
    println!(r#"{{"plot":"cost","jobs":{jobs},"us_per_job":{whole:.2},"journal":{bare:.2}}}"#);
}

fn journal(jobs: u64) -> f64 {
    let dir = common::dir();
    let mut journal = BareJournal::create(dir.path(), 64).unwrap();
    let begun = Instant::now();
    for _ in 0..jobs / 1_000 {
        journal.group(1_000, &[7; PAYLOAD + 8], 1_000).unwrap();
    }
    rate(jobs, begun.elapsed())
}

fn engine(jobs: u64, workers: usize) -> f64 {
    let dir = common::dir();
    let builder = common::builder(dir.path());
    let engine = builder
        .pool(Pool::threads("default", workers))
        .open()
        .unwrap();
    let begun = Instant::now();
    common::fill(&engine, jobs, 1_000);
    assert!(engine.wait_until_idle(Duration::from_hours(1)).unwrap());
    let rate = rate(jobs, begun.elapsed());
    engine.shutdown(Duration::from_mins(1)).unwrap();
    rate
}
