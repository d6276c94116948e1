//! What a job costs, without a stopwatch: commands, groups, entries, bytes, syncs and allocations.
//!
//! Each is counted over the whole process and must lie within its bounds: exactly, where nothing depends on who is
//! faster. More than that is a cost that somebody added; less is good news, to be written down here.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping"
)]
#![expect(clippy::print_stdout, reason = "the counts are the result")]
#![expect(clippy::cast_precision_loss, reason = "these are rounded anyway")]

use std::alloc::System;
use std::ops::RangeInclusive;
use std::time::Duration;

use jobsled::{Context, Engine, EngineBuilder, Pool, Queue, Stats, job, rkyv};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const JOBS: u64 = 2_000;
const BATCH: u64 = 1_000;
const PAYLOAD_BYTES: usize = 256;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Noop {
    data: Vec<u8>,
}
job!(Noop, kind = "noop");

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Other;
job!(Other, kind = "other");

fn noop() -> Noop {
    Noop {
        data: vec![7; PAYLOAD_BYTES],
    }
}

/// Of one job, on average.
struct Cost {
    commands: f64,
    groups: RangeInclusive<f64>,
    entries: RangeInclusive<f64>,
    bytes: RangeInclusive<f64>,
    syncs: RangeInclusive<f64>,
    allocations: RangeInclusive<f64>,
}

const ALONE: Cost = Cost {
    commands: 1.0,
    groups: 1.0..=1.0,
    entries: 1.0..=1.0,
    bytes: 482.0..=482.0,
    syncs: 1.0..=1.0,
    allocations: 13.0..=13.5,
};

const IN_A_BATCH: Cost = Cost {
    commands: 0.001,
    groups: 0.001..=0.001,
    entries: 0.006..=0.006,
    bytes: 322.0..=324.0,
    syncs: 0.001..=0.001,
    allocations: 2.0..=2.1,
};

/// Three commands: enqueue, wait, settle. Two groups: stored and claimed at once, then settled. Who waits for a job
/// that has not ended yet takes three allocations more, and a wait that the writer takes together with the end of its
/// job, as on a busy machine, one less.
const AWAITED: Cost = Cost {
    commands: 3.0,
    groups: 2.0..=2.0,
    entries: 2.0..=2.0,
    bytes: 698.0..=698.0,
    syncs: 2.0..=2.0,
    allocations: 26.0..=31.0,
};

/// A settle of each job. How many of them share a group is up to the disk and the machine.
const RUN: Cost = Cost {
    commands: 1.0015,
    groups: 0.001..=0.05,
    entries: 0.006..=0.05,
    bytes: 375.0..=390.0,
    syncs: 0.001..=0.05,
    allocations: 4.0..=5.0,
};

fn main() {
    let titles = [
        "commands",
        "groups",
        "entries",
        "bytes",
        "syncs",
        "allocations",
    ];
    print!("{:<34}", "of one job");
    titles.iter().for_each(|title| print!("{title:>12}"));
    println!();
    check("enqueued alone", plain, alone, &ALONE);
    check("in a batch", plain, batches, &IN_A_BATCH);
    check("run and awaited", run_by_one, awaited, &AWAITED);
    check("in a batch, run by two", run_by_two, through, &RUN);
    // What is not used costs nothing.
    check("alone, beside what is not used", furnished, alone, &ALONE);
    check("in a batch, beside that", furnished, batches, &IN_A_BATCH);
    check("awaited, beside that", furnished_one, awaited, &AWAITED);
    written_once();
}

/// What reaches the log is hardly more than the entries: sled would write each four times, see `journal/leaves.rs`.
fn written_once() {
    const ROUNDS: u64 = 25;
    /// The flight recorder: what begins, and now and then what ends.
    const RECORDED: f64 = 64.0;
    let Some(before) = bytes_written() else {
        println!("skipped: what a process writes is not told here");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let engine = run_by_two(Engine::builder(dir.path().join("store")));
    (0..ROUNDS).for_each(|_| through(&engine));
    let jobs = (ROUNDS * JOBS) as f64;
    let entries = engine.stats().unwrap().entry_bytes as f64 / jobs;
    let written = (bytes_written().unwrap() - before) as f64 / jobs;
    let times = (written - RECORDED) / entries;
    println!("{written:.0} bytes written a job, {times:.2} times its entries");
    assert!((0.95..1.5).contains(&times), "{times}");
    engine.shutdown(Duration::from_mins(1)).unwrap();
}

/// By this process, so far.
fn bytes_written() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix("wchar:"))?;
    line.trim().parse().ok()
}

fn plain(builder: EngineBuilder) -> Engine {
    builder.open().unwrap()
}

fn run_by_one(builder: EngineBuilder) -> Engine {
    let builder = builder.pool(Pool::threads("default", 1));
    plain(builder.handle(|_: Noop, _: &Context| Ok(())))
}

fn run_by_two(builder: EngineBuilder) -> Engine {
    let builder = builder.pool(Pool::threads("default", 2));
    plain(builder.handle(|_: Noop, _: &Context| Ok(())))
}

/// With limits, keys that are held, other queues and pools, jobs that wait, one that is dead, one that was heard of.
fn furnished(builder: EngineBuilder) -> Engine {
    let builder = builder
        .queue(Queue::new("other").pool("other").concurrency(1))
        .queue(Queue::new("third").concurrency(2))
        .pool(Pool::threads("other", 1))
        .handle(|_: Other, _: &Context| Err(jobsled::Stop::discard("enough")));
    let engine = plain(builder);
    let events = engine.subscribe(10);
    let died = engine.job(Other).queue("other").enqueue().unwrap();
    died.handle().wait().unwrap();
    drop(events);
    for n in 0..100 {
        let later = engine
            .job(Other)
            .queue("other")
            .after(Duration::from_hours(1));
        let later = later.key(n.to_string()).metadata("color", "blue");
        later.time_limit(Duration::from_mins(1)).enqueue().unwrap();
    }
    engine
}

fn furnished_one(builder: EngineBuilder) -> Engine {
    let builder = builder.pool(Pool::threads("default", 1));
    furnished(builder.handle(|_: Noop, _: &Context| Ok(())))
}

fn alone(engine: &Engine) {
    for _ in 0..JOBS {
        engine.enqueue(noop()).unwrap();
    }
}

fn batches(engine: &Engine) {
    for _ in 0..JOBS / BATCH {
        let mut batch = engine.batch();
        batch.extend((0..BATCH).map(|_| noop()));
        batch.enqueue().unwrap();
    }
}

fn awaited(engine: &Engine) {
    for _ in 0..JOBS {
        engine.enqueue(noop()).unwrap().wait().unwrap();
    }
}

fn through(engine: &Engine) {
    batches(engine);
    assert!(engine.wait_until_idle(Duration::from_mins(10)).unwrap());
}

/// On disk for what the journal does; in memory for what is allocated, since sled's threads allocate when they like.
fn check(what: &str, open: fn(EngineBuilder) -> Engine, work: fn(&Engine), cost: &Cost) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(Engine::builder(dir.path().join("store")));
    let before = engine.stats().unwrap();
    work(&engine);
    let after = engine.stats().unwrap();
    engine.shutdown(Duration::from_mins(1)).unwrap();

    let engine = open(Engine::in_memory());
    // Buffers that are used again are there.
    work(&engine);
    let region = Region::new(ALLOCATOR);
    work(&engine);
    let allocations = region.change().allocations as f64;
    engine.shutdown(Duration::from_mins(1)).unwrap();

    let by = |f: fn(&Stats) -> u64| (f(&after) - f(&before)) as f64 / JOBS as f64;
    // The second question is a command, too.
    let asked = 1.0 / JOBS as f64;
    let commands = cost.commands + asked..=cost.commands + asked;
    let counted = [
        ("commands", by(|s| s.commands), &commands),
        ("groups", by(|s| s.groups), &cost.groups),
        ("entries", by(|s| s.entries), &cost.entries),
        ("bytes", by(|s| s.entry_bytes), &cost.bytes),
        ("syncs", by(|s| s.syncs), &cost.syncs),
        ("allocations", allocations / JOBS as f64, &cost.allocations),
    ];
    print!("{what:<34}");
    counted
        .iter()
        .for_each(|(_, count, _)| print!("{count:>12.4}"));
    println!();
    for (name, count, bounds) in counted {
        let (least, most) = (bounds.start() - 1e-9, bounds.end() + 1e-9);
        assert!(
            (least..=most).contains(&count),
            "{what}: {count} {name} a job, and not {bounds:?}"
        );
    }
}
