//! Is it as fast with many jobs as with few? Jobs to completion in an empty store, in one where 1,000,000 wait for
//! another day, and in one that has finished 10,000,000.
//!
//! `cargo bench --bench crowded`; `JOBSLED_BENCH_JOBS` (300,000 measured each time), `JOBSLED_BENCH_WAITING`
//! (1,000,000), `JOBSLED_BENCH_FINISHED` (10,000,000), `JOBSLED_BENCH_ROUNDS` (5), `JOBSLED_BENCH_DIR`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod common;

use std::time::{Duration, Instant};

use common::{median, noop, rate};
use jobsled::Engine;

const DAY: Duration = Duration::from_hours(24);

fn main() {
    let jobs: u64 = common::setting("JOBS", 300_000);
    let dirs = [common::dir(), common::dir(), common::dir()];
    let engines = dirs
        .each_ref()
        .map(|dir| common::builder(dir.path()).open().unwrap());
    let [_, crowded, experienced] = &engines;
    let waiting: u64 = common::setting("WAITING", 1_000_000);
    for _ in 0..waiting / 1_000 {
        let mut batch = crowded.batch();
        (0..1_000).for_each(|_| {
            batch.add_request(crowded.job(noop()).after(DAY));
        });
        batch.enqueue().unwrap();
    }
    let finished: u64 = common::setting("FINISHED", 10_000_000);
    (0..finished.div_ceil(jobs)).for_each(|_| {
        through(experienced, jobs);
    });
    let mut rates: [Vec<f64>; 3] = Default::default();
    for _ in 0..common::setting("ROUNDS", 5) {
        for (rates, engine) in rates.iter_mut().zip(&engines) {
            rates.push(through(engine, jobs));
        }
    }
    println!("{jobs} jobs, jobs/s: {rates:.0?}");
    let [empty, crowded, experienced] = rates.map(median);
    println!(
        "empty store: {empty:.0}; {waiting} wait: {crowded:.0}, {:.2} x; \
         {finished} have finished: {experienced:.0}, {:.2} x",
        crowded / empty,
        experienced / empty
    );
}

fn through(engine: &Engine, jobs: u64) -> f64 {
    let before = engine.stats().unwrap().counters.completed;
    let begun = Instant::now();
    common::fill(engine, jobs, 1_000);
    assert!(engine.wait_until_finished(before + jobs, DAY).unwrap());
    rate(jobs, begun.elapsed())
}
