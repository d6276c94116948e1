//! What do jobs cost beside plain rayon? 100,000 of 50 µs of work, durable, on a rayon pool, and the same work in
//! `par_iter`.
//!
//! `cargo bench --bench parallel`; `JOBSLED_BENCH_JOBS` (100,000), `JOBSLED_BENCH_ROUNDS` (5), `JOBSLED_BENCH_DIR`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints and does not recover"
)]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{Noop, median, ms};
use jobsled::{Context, Engine, Pool};
use rayon::prelude::*;

fn main() {
    let jobs: u64 = common::setting("JOBS", 100_000);
    let cores = std::thread::available_parallelism().unwrap().get();
    let turns = turns_of(Duration::from_micros(50));
    let (mut plain, mut durable) = (Vec::new(), Vec::new());
    for _ in 0..common::setting("ROUNDS", 5) {
        let begun = Instant::now();
        (0..jobs).into_par_iter().for_each(|_| work(turns));
        plain.push(ms(begun.elapsed()));

        let dir = common::dir();
        let engine = Engine::builder(dir.path().join("store"))
            .pool(Pool::rayon("default", cores))
            .handle(move |_: Noop, _: &Context| {
                work(turns);
                Ok(())
            })
            .open()
            .unwrap();
        let begun = Instant::now();
        common::fill(&engine, jobs, 1_000);
        assert!(engine.wait_until_idle(Duration::from_hours(1)).unwrap());
        durable.push(ms(begun.elapsed()));
        engine.shutdown(Duration::from_mins(1)).unwrap();
    }
    println!(
        "{jobs} x 50 µs on {cores} threads, ms: par_iter {plain:.0?}, durable jobs {durable:.0?}"
    );
    let (plain, durable) = (median(plain), median(durable));
    println!(
        "medians: {plain:.0} and {durable:.0} ms, {:.2} of par_iter's rate",
        plain / durable
    );
}

/// How often to go round for so much time on a thread that is alone.
fn turns_of(time: Duration) -> u64 {
    const TRIED: u64 = 50_000_000;
    let begun = Instant::now();
    work(TRIED);
    let each = begun.elapsed().as_secs_f64() / 5e7;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "some ten thousands"
    )]
    let turns = (time.as_secs_f64() / each) as u64;
    turns
}

fn work(turns: u64) {
    let mut x = 1_u64;
    for n in 0..turns {
        x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n));
    }
}
