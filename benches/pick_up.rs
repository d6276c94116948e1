//! How long from the call of `enqueue` to the begin of the handler, and to the answer, on an idle engine?
//!
//! `cargo bench --bench pick_up`

#![expect(clippy::unwrap_used, reason = "a bench does not recover")]

use criterion::{Criterion, criterion_group, criterion_main};
use jobsled::{Context, Engine, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Ping;
job!(Ping, kind = "ping");

fn pick_up(c: &mut Criterion) {
    let dir = tempfile::tempdir_in("target").unwrap();
    let (send, begun) = crossbeam_channel::unbounded();
    let engine = Engine::builder(dir.path().join("store"))
        .handle(move |_: Ping, _: &Context| Ok(send.send(())?))
        .open()
        .unwrap();
    c.bench_function("enqueue to handler start", |b| {
        b.iter(|| {
            let handle = engine.enqueue(Ping).unwrap();
            begun.recv().unwrap();
            handle
        });
    });
    c.bench_function("enqueue to durable completion", |b| {
        b.iter(|| {
            let handle = engine.enqueue(Ping).unwrap();
            begun.recv().unwrap();
            handle.wait().unwrap()
        });
    });
}

criterion_group!(benches, pick_up);
criterion_main!(benches);
