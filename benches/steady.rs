//! How many jobs a second when they come and go for a while: two producers and two workers, beside the journal alone
//! with the same events.
//!
//! `cargo bench --features bench --bench steady`; `JOBSLED_BENCH_SECONDS` (30, in turns of 5), `JOBSLED_BENCH_DIR`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{median, rate};
use jobsled::Pool;
use jobsled::bench::BareJournal;

const TURN: Duration = Duration::from_secs(5);
const BATCH: u64 = 1_000;
/// Jobs that wait or run, at most.
const BACKLOG: u64 = 10_000;

fn main() {
    let seconds: u64 = common::setting("SECONDS", 30);
    let (mut bare, mut engine) = (Vec::new(), Vec::new());
    for _ in 0..seconds.div_ceil(TURN.as_secs()) {
        bare.push(journal(common::dir().path()));
        engine.push(whole(common::dir().path()));
    }
    println!("journal, jobs/s: {bare:.0?}");
    println!("engine, jobs/s: {engine:.0?}");
    let (bare, engine) = (median(bare), median(engine));
    println!(
        "medians: {engine:.0} of {bare:.0}, {:.2} of the journal",
        engine / bare
    );
}

fn journal(dir: &Path) -> f64 {
    let mut journal = BareJournal::create(dir, 64).unwrap();
    let (begun, mut jobs) = (Instant::now(), 0);
    while begun.elapsed() < TURN {
        journal
            .group(BATCH, &[7; common::PAYLOAD + 8], BATCH)
            .unwrap();
        jobs += BATCH;
    }
    rate(jobs, begun.elapsed())
}

fn whole(dir: &Path) -> f64 {
    let engine = common::builder(dir)
        .pool(Pool::threads("default", 2))
        .open()
        .unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while begun.elapsed() < TURN {
                    common::fill(&engine, BATCH, BATCH);
                    let stored = engine.stats().unwrap().counters.enqueued;
                    let finished = stored.saturating_sub(BACKLOG);
                    engine.wait_until_finished(finished, TURN).unwrap();
                }
            });
        }
    });
    let rate = rate(engine.stats().unwrap().counters.completed, begun.elapsed());
    engine.shutdown(Duration::from_mins(1)).unwrap();
    rate
}
