//! How fast this is on a disk of yours (feature `bench`): the engine beside the limits that it is held against.
//!
//! - *raw*: the same bytes, in the same groups, appended to one file with one write and one `fdatasync` a group. Once
//!   to a file that grows, and once to one whose room was allocated and written before. What the disk allows.
//! - *bare*: the same events through the journal alone: packed, hashed, inserted, flushed, synced. What the journal
//!   allows.
//!
//! All of them take turns, several rounds, and medians are told: machines are never alone, so read the ratios. All
//! wait for stable storage. [`run`] is what the program's `jobsled bench` prints.

mod contest;
mod machine;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::journal::BareJournal;
pub use machine::Machine;

use crate::error::{Error, Result};
use crate::sys;

/// Bytes of each job's payload.
pub const PAYLOAD_BYTES: usize = 256;

/// What is promised of everything that is measured here.
pub const CLASS: &str = "C2: what was answered survives a power cut";

/// How long it is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// Two seconds: shows that it can be measured here. The figures say little.
    Smoke,
    /// Half a minute: 100,000 jobs, three rounds.
    #[default]
    Quick,
    /// Some minutes: 1,000,000 jobs, five rounds.
    Full,
}

impl Profile {
    fn rounds(self) -> usize {
        match self {
            Profile::Smoke => 1,
            Profile::Quick => 3,
            Profile::Full => 5,
        }
    }

    /// How long callers enqueue, each time.
    fn window(self) -> Duration {
        match self {
            Profile::Smoke => Duration::from_millis(10),
            Profile::Quick => Duration::from_millis(300),
            Profile::Full => Duration::from_secs(1),
        }
    }

    fn jobs(self) -> u64 {
        match self {
            Profile::Smoke => 2_000,
            Profile::Quick => 100_000,
            Profile::Full => 1_000_000,
        }
    }

    /// Jobs that are enqueued alone, one after the other.
    fn lone_jobs(self) -> usize {
        match self {
            Profile::Smoke => 100,
            Profile::Quick => 1_000,
            Profile::Full => 10_000,
        }
    }
}

/// What was found.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// The version of this crate.
    pub version: &'static str,
    /// Always [`CLASS`].
    pub class: &'static str,
    /// Where it was measured.
    pub machine: Machine,
    /// Always [`PAYLOAD_BYTES`].
    pub payload_bytes: usize,
    /// Of how many rounds these are the medians.
    pub rounds: usize,
    /// Durable `enqueue`.
    pub enqueue: Vec<Rates>,
    /// Jobs from the first `enqueue`, in batches of 1,000, to the last durable completion; two workers that do nothing.
    pub through: Through,
    /// One bare durable append of one job.
    pub append: Percentiles,
    /// From the call of `enqueue` on an idle engine to the begin of the handler.
    pub pick_up: Percentiles,
    /// From the call of `enqueue` on an idle engine until `wait` has returned.
    pub done: Percentiles,
    /// Opening a store that was closed in order.
    pub opening: Opening,
}

/// Jobs a second, all durable.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Rates {
    /// How many threads, and jobs at a time: each waits for its own before it goes on.
    pub threads: usize,
    /// Jobs of a batch; 1: each alone.
    pub batch: u64,
    /// A file that grows.
    pub raw_growing: f64,
    /// A file whose room is there.
    pub raw_preallocated: f64,
    /// The journal alone.
    pub bare: f64,
    /// The engine.
    pub engine: f64,
}

/// Jobs that are enqueued and run.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Through {
    /// How many.
    pub jobs: u64,
    /// Jobs a second: the same events through the journal alone.
    pub bare: f64,
    /// Jobs a second through the engine.
    pub engine: f64,
    /// Times that the engine waited for the disk, by job.
    pub syncs_per_job: f64,
    /// Bytes that the process had written, by job; `None` where the system does not tell.
    pub bytes_written_per_job: Option<f64>,
    /// The journal's bytes on disk afterwards.
    pub bytes_on_disk: u64,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Percentiles {
    /// Half took no longer.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// 999 of 1,000 took no longer.
    pub p999_us: f64,
}

impl Percentiles {
    fn of(mut times: Vec<Duration>) -> Percentiles {
        times.sort_unstable();
        let at = |permille: usize| {
            let rank = (times.len() * permille).div_ceil(1_000).max(1);
            let time = times.get(rank - 1).copied().unwrap_or_default();
            time.as_secs_f64() * 1e6
        };
        Percentiles {
            p50_us: at(500),
            p99_us: at(990),
            p999_us: at(999),
        }
    }
}

/// What it takes to open a store with jobs that wait, see [`open`].
#[derive(Clone, Debug)]
#[cfg_attr(feature = "json", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub struct Opening {
    /// How many wait.
    pub jobs: u64,
    /// Until `open` returns, in milliseconds.
    pub open_ms: f64,
    /// From there until the first handler begins, in milliseconds.
    pub first_start_ms: f64,
    /// Reading all entries and checking their hashes, and nothing else, in milliseconds.
    pub scan_ms: f64,
    /// Memory of the process once it is open; `None` where the system does not tell.
    pub resident_bytes: Option<u64>,
}

/// Whoever has it measured.
pub trait Host {
    /// What comes next. `Break` ends it before that: then there is no report.
    fn next(&mut self, what: &str) -> ControlFlow<()>;

    /// Opens a store in which so many jobs wait. Better in a process of its own: what other measurements have taken of
    /// memory and did not give back counts, too.
    ///
    /// # Errors
    ///
    /// As [`open`].
    fn open(&mut self, store: &Path, jobs: u64) -> Result<Opening> {
        open(store, jobs)
    }
}

/// Opens a store that [`run`] has filled, lets one job begin, and closes it.
///
/// # Errors
///
/// As opening an engine.
pub fn open(store: &Path, jobs: u64) -> Result<Opening> {
    contest::open(store, jobs)
}

/// Measures on the disk of `dir`, in a new directory of its own there, which it removes afterwards.
///
/// *Blocking:* as long as the profile says, with all cores. What else the machine does makes all figures worse.
///
/// # Errors
///
/// Those of the disk, and [`Error::Io`] if nothing can be made in `dir`.
pub fn run(dir: &Path, profile: Profile, host: &mut dyn Host) -> Result<Option<Report>> {
    let scratch = Scratch::below(dir)?;
    let machine = Machine::of(&scratch.0);
    let mut contest = contest::Contest::new(&scratch.0, profile);
    let mut enqueue = Vec::new();
    for (threads, batch) in [(1, 1), (8, 1), (64, 1), (1, 1_000)] {
        let what = match (threads, batch) {
            (1, 1) => "enqueue by 1 thread".to_owned(),
            (_, 1) => format!("enqueue by {threads} threads"),
            _ => format!("batches of {batch}"),
        };
        if host.next(&what).is_break() {
            return Ok(None);
        }
        enqueue.push(contest.enqueue(threads, batch)?);
    }
    if host.next("jobs to completion").is_break() {
        return Ok(None);
    }
    let through = contest.through()?;
    if host.next("jobs one at a time").is_break() {
        return Ok(None);
    }
    let [append, pick_up, done] = contest.one_at_a_time()?;
    if host.next("opening").is_break() {
        return Ok(None);
    }
    let opening = contest.open(host)?;
    Ok(Some(Report {
        version: env!("CARGO_PKG_VERSION"),
        class: CLASS,
        machine,
        payload_bytes: PAYLOAD_BYTES,
        rounds: profile.rounds(),
        enqueue,
        through,
        append,
        pick_up,
        done,
        opening,
    }))
}

/// A directory that goes away.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn below(dir: &Path) -> Result<Scratch> {
        let path = dir.join(format!("jobsled-bench-{}", std::process::id()));
        std::fs::create_dir(&path)
            .map_err(Error::io("make a directory for the measurement", &path))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = sys::files::remove_dir_if_there(&self.0) {
            log::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_least_that_so_many_do_not_pass() {
        let ms = |n| Duration::from_millis(n);
        let of = |times: Vec<Duration>| Percentiles::of(times);
        let thousand = of((1..=1_000).rev().map(ms).collect());
        assert_eq!(
            (thousand.p50_us, thousand.p99_us, thousand.p999_us),
            (500_000.0, 990_000.0, 999_000.0)
        );
        let one = of(vec![ms(7)]);
        assert_eq!((one.p50_us, one.p999_us), (7_000.0, 7_000.0));
        assert_eq!(of(Vec::new()), Percentiles::default());
    }

    /// Lets so many parts be measured.
    struct Parts(usize);

    impl Host for Parts {
        fn next(&mut self, _: &str) -> ControlFlow<()> {
            match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Break(()),
            }
        }
    }

    #[test]
    fn all_is_measured_and_nothing_left_behind() {
        let dir = tempfile::TempDir::new().unwrap();
        for parts in [0, 1, 7] {
            let report = run(dir.path(), Profile::Smoke, &mut Parts(parts)).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
            let Some(report) = report else {
                assert!(parts < 7);
                continue;
            };
            for row in &report.enqueue {
                let rates = [row.raw_growing, row.raw_preallocated, row.bare, row.engine];
                assert!(rates.iter().all(|rate| *rate > 0.0), "{row:?}");
            }
            let through = &report.through;
            assert!(through.engine > 0.0 && through.bare > 0.0, "{through:?}");
            assert!(
                through.syncs_per_job > 0.0 && through.syncs_per_job < 1.0,
                "{through:?}"
            );
            assert!(report.append.p50_us > 0.0);
            assert!(report.pick_up.p50_us < report.done.p999_us, "{report:?}");
            assert_eq!(report.opening.jobs, 2_000);
        }
    }
}
