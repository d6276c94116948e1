//! What the benches share: the job, where to write, and units.

#![expect(clippy::unwrap_used, reason = "a bench does not recover")]
#![expect(clippy::cast_precision_loss, reason = "figures are rounded anyway")]

use std::path::PathBuf;
use std::time::Duration;

use jobsled::{job, rkyv};
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

/// `JOBSLED_BENCH_JOBS`, 1,000,000 if it is not set.
pub(crate) fn jobs() -> u64 {
    std::env::var("JOBSLED_BENCH_JOBS").map_or(1_000_000, |n| n.parse().unwrap())
}

/// A new directory in `JOBSLED_BENCH_DIR`, `target/` if it is not set.
pub(crate) fn dir() -> TempDir {
    let base = std::env::var("JOBSLED_BENCH_DIR");
    tempfile::tempdir_in(base.map_or_else(|_| PathBuf::from("target"), PathBuf::from)).unwrap()
}

#[allow(dead_code, reason = "not every bench prints sizes")]
pub(crate) fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[allow(dead_code, reason = "not every bench prints times")]
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
