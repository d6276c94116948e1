//! What if 100,000 jobs are due in the same second? How late they start, and what becomes of others who enqueue
//! meanwhile.
//!
//! `cargo bench --bench due`; `JOBSLED_BENCH_JOBS` (100,000), `JOBSLED_BENCH_DIR`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::{ms, rate};
use jobsled::{Context, Engine, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Due {
    data: Vec<u8>,
}
job!(Due, kind = "due");

const WINDOW: Duration = Duration::from_secs(2);

fn main() {
    let (jobs, dir) = (common::setting("JOBS", 100_000_u64), common::dir());
    let (send, started) = crossbeam_channel::unbounded();
    let engine = Engine::builder(dir.path().join("store"))
        .handle(move |_: Due, _: &Context| Ok(send.send(SystemTime::now())?))
        .handle(|_: common::Noop, _: &Context| Ok(()))
        .open()
        .unwrap();
    let ahead = Duration::from_secs(10);
    let due = SystemTime::now() + ahead;
    for _ in 0..jobs / 1_000 {
        let mut batch = engine.batch();
        (0..1_000).for_each(|_| {
            let data = vec![7; common::PAYLOAD];
            batch.add_request(engine.job(Due { data }).at(due));
        });
        batch.enqueue().unwrap();
    }
    let alone = others(&engine, Instant::now() + WINDOW);
    let left = due
        .duration_since(SystemTime::now())
        .expect("stored before they are due");
    common::pass(left);
    let beside = others(&engine, Instant::now() + Duration::from_secs(1));
    let mut late: Vec<Duration> = (0..jobs)
        .map(|_| {
            started
                .recv()
                .unwrap()
                .duration_since(due)
                .expect("none starts early")
        })
        .collect();
    late.sort_unstable();
    let at = |hundredth: usize| ms(*late.get((late.len() - 1) * hundredth / 100).unwrap());
    println!(
        "{jobs} jobs due at once: late by {:.0} ms (half), {:.0} ms (99 of 100), {:.0} ms (the last)",
        at(50),
        at(99),
        at(100)
    );
    println!(
        "others enqueue {alone:.0} jobs/s before, {beside:.0} in that second: {:.2} x",
        beside / alone
    );
    engine.shutdown(Duration::from_mins(1)).unwrap();
}

/// Two threads that enqueue one job at a time, each awaited.
fn others(engine: &Engine, until: Instant) -> f64 {
    let (stored, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    engine.enqueue(common::noop()).unwrap();
                    stored.fetch_add(1, Ordering::Relaxed);
                    over.fetch_or(Instant::now() >= until, Ordering::Relaxed);
                }
            });
        }
    });
    rate(stored.load(Ordering::Relaxed), begun.elapsed())
}
