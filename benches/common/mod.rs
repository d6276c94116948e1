//! What the benches share: the job, where to write, what the system tells, and units.

#![allow(dead_code, reason = "not every bench needs all of it")]
#![expect(clippy::unwrap_used, reason = "a bench does not recover")]
#![expect(clippy::cast_precision_loss, reason = "figures are rounded anyway")]

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jobsled::{Context, Engine, EngineBuilder, job, rkyv};
use tempfile::TempDir;

/// Bytes of a job's payload.
pub(crate) const PAYLOAD: usize = 256;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct Noop {
    data: Vec<u8>,
}
job!(Noop, kind = "noop");

pub(crate) fn noop() -> Noop {
    Noop {
        data: vec![7; PAYLOAD],
    }
}

/// An engine whose workers do nothing with such jobs.
pub(crate) fn builder(dir: &Path) -> EngineBuilder {
    Engine::builder(dir.join("store")).handle(|_: Noop, _: &Context| Ok(()))
}

/// Enqueues jobs in batches.
pub(crate) fn fill(engine: &Engine, jobs: u64, batch: u64) {
    for _ in 0..jobs.div_ceil(batch) {
        let mut jobs = engine.batch();
        jobs.extend((0..batch).map(|_| noop()));
        jobs.enqueue().unwrap();
    }
}

/// A number from the environment: `JOBSLED_BENCH_` and this name.
pub(crate) fn setting<T: FromStr>(name: &str, usual: T) -> T {
    let name = format!("JOBSLED_BENCH_{name}");
    match std::env::var(&name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}")),
        Err(_) => usual,
    }
}

/// `JOBSLED_BENCH_JOBS`, 1,000,000 if it is not set.
pub(crate) fn jobs() -> u64 {
    setting("JOBS", 1_000_000)
}

/// A new directory in `JOBSLED_BENCH_DIR`, `target/` if it is not set.
pub(crate) fn dir() -> TempDir {
    tempfile::tempdir_in(setting("DIR", PathBuf::from("target"))).unwrap()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    *values.get(values.len() / 2).unwrap()
}

/// Lets time pass.
pub(crate) fn pass(time: Duration) {
    let _ = crossbeam_channel::after(time).recv();
}

/// Jobs a second.
pub(crate) fn rate(jobs: u64, time: Duration) -> f64 {
    jobs as f64 / time.as_secs_f64()
}

pub(crate) fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Memory of the process, in bytes; 0 where the system does not tell.
pub(crate) fn resident() -> u64 {
    kib("/proc/self/status", "VmRSS:")
}

/// The most that it ever was.
pub(crate) fn resident_max() -> u64 {
    kib("/proc/self/status", "VmHWM:")
}

/// Bytes that the process has passed to the system's `write`s; 0 where that is not told.
pub(crate) fn written() -> u64 {
    field("/proc/self/io", "wchar:").unwrap_or(0)
}

fn kib(path: &str, name: &str) -> u64 {
    field(path, name).unwrap_or(0) * 1_024
}

/// The number behind a name at the begin of a line.
pub(crate) fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
