//! The loads that others published or measure with, on this engine.
//!
//! - *counter*: 100,000 jobs that add one to a counter, enqueued before over five queues; the rate from opening to the
//!   last. The README of gocraft/work tells 20,944 jobs a second of itself and 40 of albrow/jobs, on Redis.
//! - *harness*: one producer that enqueues no-op jobs one after the other, as many workers as processors, 15 seconds;
//!   what has been completed by then. The first case of mongodb/amboy's `benchmarks/harness.go`, of which no result was
//!   published. Its other cases need scopes.
//!
//! `cargo bench --bench shapes`; `JOBSLED_BENCH_JOBS` (100,000), `JOBSLED_BENCH_SECONDS` (15),
//! `JOBSLED_BENCH_ROUNDS` (5), `JOBSLED_BENCH_DIR`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Noop, median, noop, rate};
use jobsled::{Context, Engine, Pool};

fn main() {
    let rounds: usize = common::setting("ROUNDS", 5);
    let counters: Vec<f64> = (0..rounds)
        .map(|_| counter(common::setting("JOBS", 100_000)))
        .collect();
    println!(
        "counter, jobs/s: {counters:.0?}, median {:.0}",
        median(counters.clone())
    );
    let window = Duration::from_secs(common::setting("SECONDS", 15));
    let harness: Vec<f64> = (0..rounds).map(|_| harness(window)).collect();
    println!(
        "harness, jobs/s: {harness:.0?}, median {:.0}",
        median(harness.clone())
    );
}

fn counter(jobs: u64) -> f64 {
    let dir = common::dir();
    let store = dir.path().join("store");
    let engine = Engine::builder(&store).open().unwrap();
    for _ in 0..jobs / 1_000 {
        let mut batch = engine.batch();
        for n in 0..1_000 {
            batch.add_request(engine.job(noop()).queue(format!("queue-{}", n % 5)));
        }
        batch.enqueue().unwrap();
    }
    engine.shutdown(Duration::ZERO).unwrap();
    drop(engine);

    let counter = Arc::new(AtomicU64::new(0));
    let handlers = counter.clone();
    let begun = Instant::now();
    let engine = Engine::builder(&store)
        .handle(move |_: Noop, _: &Context| {
            handlers.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .open()
        .unwrap();
    assert!(
        engine
            .wait_until_finished(jobs, Duration::from_hours(1))
            .unwrap()
    );
    let rate = rate(jobs, begun.elapsed());
    assert_eq!(counter.load(Ordering::Relaxed), jobs, "each ran once");
    engine.shutdown(Duration::from_mins(1)).unwrap();
    rate
}

fn harness(window: Duration) -> f64 {
    let dir = common::dir();
    let cores = std::thread::available_parallelism().unwrap().get();
    let builder = common::builder(dir.path());
    let engine = builder
        .pool(Pool::threads("default", cores))
        .open()
        .unwrap();
    let begun = Instant::now();
    while begun.elapsed() < window {
        engine.enqueue(noop()).unwrap();
    }
    let completed = engine.stats().unwrap().counters.completed;
    let rate = rate(completed, begun.elapsed());
    engine.shutdown(Duration::from_mins(1)).unwrap();
    rate
}
