//! What all peers are measured with: the payload, the loops, the clock, the arguments and the line that a peer prints.
//!
//! A peer's program describes itself (a [`Peer`] with its [`Setup`]s), does one measure, and prints one [`Line`].

mod clock;
mod count;
mod line;
mod loops;
mod program;

pub use anyhow::{Context, Error, Result, anyhow, bail, ensure};
pub use clock::{BEGIN, Clock, END, Tally};
pub use count::Count;
pub use line::{Class, Commit, Line, Sort};
pub use loops::threads;
#[cfg(feature = "tokio")]
pub use loops::{runtime, tasks, until};
pub use program::{Ask, Lack, Measure, Peer, Setup, locked, main};

/// Bytes of each job's payload, as the engine's own bench has it.
pub const PAYLOAD_BYTES: usize = 256;

/// Jobs of a batch.
pub const BATCH: u64 = 1_000;

/// Workers of the measure `through`.
pub const WORKERS: usize = 2;

/// Threads that enqueue for the measure `through` where there is no bulk API.
pub const PRODUCERS: usize = 64;

/// A payload for peers that take bytes.
pub fn bytes() -> Vec<u8> {
    vec![b'7'; PAYLOAD_BYTES]
}

/// A payload for peers that take JSON: a string, because a list of numbers would be three times as long.
pub fn text() -> String {
    "7".repeat(PAYLOAD_BYTES)
}

/// Batches that so many jobs make: the last one may be smaller.
pub fn batches(jobs: u64) -> impl Iterator<Item = u64> {
    (0..jobs.div_ceil(BATCH)).map(move |n| BATCH.min(jobs - n * BATCH))
}

/// How many jobs each of the [`PRODUCERS`] enqueues.
pub fn shares(jobs: u64) -> impl Iterator<Item = u64> {
    let producers = PRODUCERS as u64;
    (0..producers).map(move |n| jobs / producers + u64::from(n < jobs % producers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_all_jobs() {
        for jobs in [0, 1, 64, 1_000] {
            assert_eq!(shares(jobs).sum::<u64>(), jobs);
            assert!(shares(jobs).max() <= shares(jobs).min().map(|least| least + 1));
        }
    }

    #[test]
    fn batches_have_all_jobs() {
        assert_eq!(batches(0).count(), 0);
        assert_eq!(batches(1_000).collect::<Vec<_>>(), [1_000]);
        assert_eq!(batches(2_001).collect::<Vec<_>>(), [1_000, 1_000, 1]);
    }
}
