//! What does a job cost without a disk: deciding, writing frames, waking threads?
//!
//! `cargo bench --bench in_memory`. What it costs with one is measured in turns with the journal alone, because only
//! ratios of such turns can be compared from day to day: `throughput` and the others.

#![expect(clippy::unwrap_used, reason = "a bench does not recover")]

mod common;

use std::time::Duration;

use common::Noop;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jobsled::{Context, Engine, Pool};

const BATCH: u64 = 1_000;

fn in_memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("in memory");

    let builder = Engine::in_memory().keep_finished(0);
    let builder = builder.pool(Pool::threads("default", 2));
    let builder = builder.handle(|_: Noop, _: &Context| Ok(()));
    let engine = builder.open().unwrap();

    group.throughput(Throughput::Elements(1));
    group.bench_function("enqueued alone", |b| {
        b.iter(|| engine.enqueue(common::noop()).unwrap());
    });
    group.bench_function("alone, run and awaited", |b| {
        b.iter(|| {
            let job = engine.enqueue(common::noop()).unwrap();
            job.wait().unwrap()
        });
    });
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("1,000 in a batch, run by two", |b| {
        b.iter(|| {
            common::fill(&engine, BATCH, BATCH);
            assert!(engine.wait_until_idle(Duration::from_mins(10)).unwrap());
        });
    });
}

criterion_group!(benches, in_memory);
criterion_main!(benches);
