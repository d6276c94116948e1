//! Who is measured: raw file, bare journal, engine. Each of them anew in a directory of its own, in turns.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::machine::{bytes_written, resident_bytes};
use super::{BareJournal, Host, Opening, PAYLOAD_BYTES, Percentiles, Profile, Rates, Through};
use crate::engine::Reply;
use crate::error::{Error, Result};
use crate::sys::steady_time;
use crate::{Context, Engine, Pool, sys};

/// Jobs of one group at most, where somebody else groups them.
const GROUP_MAX: usize = 1_000;
/// Bytes that one enqueued job takes in the journal, about.
const JOB_BYTES: usize = PAYLOAD_BYTES + 104;
/// Room of the file that is allocated before.
const RAW_BYTES: u64 = 64 << 20;
/// Entries that the bare journal keeps while jobs come and go.
const WINDOW: u64 = 64;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Noop {
    data: Vec<u8>,
}
crate::job!(Noop, kind = "noop");

fn noop() -> Noop {
    Noop {
        data: vec![7; PAYLOAD_BYTES],
    }
}

/// What the journal keeps of such a job's payload.
const STORED: [u8; PAYLOAD_BYTES + 8] = [7; PAYLOAD_BYTES + 8];

pub(super) struct Contest<'d> {
    dir: &'d Path,
    profile: Profile,
    made: u32,
}

impl<'d> Contest<'d> {
    pub(super) fn new(dir: &'d Path, profile: Profile) -> Contest<'d> {
        Contest {
            dir,
            profile,
            made: 0,
        }
    }

    /// Somebody's turn, in a new directory that goes away.
    fn turn<T>(&mut self, f: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        self.made += 1;
        let dir = self.dir.join(self.made.to_string());
        std::fs::create_dir(&dir).map_err(Error::io("make a directory", &dir))?;
        let done = f(&dir);
        sys::files::remove_dir_if_there(&dir)?;
        done
    }

    /// Durable enqueues by so many threads, in batches of so many; each waits for its own.
    pub(super) fn enqueue(&mut self, threads: usize, batch: u64) -> Result<Rates> {
        let window = self.profile.window();
        let mut rates: [Vec<f64>; 4] = Default::default();
        for _ in 0..self.profile.rounds() {
            let [growing, allocated, journal, whole] = &mut rates;
            growing.push(self.turn(|dir| raw(dir, None, threads, batch, window))?);
            allocated.push(self.turn(|dir| raw(dir, Some(RAW_BYTES), threads, batch, window))?);
            journal.push(self.turn(|dir| bare(dir, threads, batch, window))?);
            whole.push(self.turn(|dir| engine(dir, threads, batch, window))?);
        }
        let [raw_growing, raw_preallocated, bare, engine] = rates.map(median);
        Ok(Rates {
            threads,
            batch,
            raw_growing,
            raw_preallocated,
            bare,
            engine,
        })
    }

    /// Jobs through the journal alone, and through the engine to their completion.
    pub(super) fn through(&mut self) -> Result<Through> {
        let jobs = self.profile.jobs();
        let (mut bare, mut engine, mut last) = (Vec::new(), Vec::new(), None);
        for _ in 0..self.profile.rounds() {
            bare.push(self.turn(|dir| bare_through(dir, jobs))?);
            let through = self.turn(|dir| engine_through(dir, jobs))?;
            engine.push(through.engine);
            last = Some(through);
        }
        let last = last.ok_or_else(|| Error::Bug("no rounds".to_owned()))?;
        Ok(Through {
            bare: median(bare),
            engine: median(engine),
            ..last
        })
    }

    /// Times of a bare append, from `enqueue` to the begin of the handler, and to its durable end.
    pub(super) fn one_at_a_time(&mut self) -> Result<[Percentiles; 3]> {
        const SHARE: usize = 100;
        let jobs = self.profile.lone_jobs();
        self.turn(|dir| {
            let mut journal = BareJournal::create(&new_dir(dir, "bare")?, WINDOW)?;
            let (send, starts) = unbounded();
            let engine = Engine::builder(dir.join("store"))
                .handle(move |_: Noop, _: &Context| Ok(send.send(steady_time())?))
                .open()?;
            let mut times: [Vec<Duration>; 3] = Default::default();
            for _ in 0..jobs / SHARE {
                let [append, pick_up, done] = &mut times;
                for _ in 0..SHARE {
                    let from = steady_time();
                    journal.group(1, &STORED, 0)?;
                    append.push(steady_time().saturating_sub(from));
                }
                for _ in 0..SHARE {
                    let from = steady_time();
                    let handle = engine.enqueue(noop())?;
                    let began = starts.recv().unwrap_or_default();
                    handle.wait()?;
                    done.push(steady_time().saturating_sub(from));
                    pick_up.push(began.saturating_sub(from));
                }
            }
            engine.shutdown(Duration::from_mins(1))?;
            Ok(times.map(Percentiles::of))
        })
    }

    /// Opening a store with jobs that wait.
    pub(super) fn open(&mut self, host: &mut dyn Host) -> Result<Opening> {
        let jobs = self.profile.jobs();
        self.turn(|dir| {
            let store = dir.join("store");
            let engine = Engine::builder(&store).open()?;
            fill(&engine, jobs)?;
            engine.shutdown(Duration::ZERO)?;
            drop(engine);
            host.open(&store, jobs)
        })
    }
}

/// Opens a store of such jobs, lets one begin, and closes it.
pub(super) fn open(store: &Path, jobs: u64) -> Result<Opening> {
    let (_, scan) = BareJournal::scan(store)?;
    let (send, starts) = unbounded();
    let from = steady_time();
    let engine = Engine::builder(store)
        .handle(move |_: Noop, cx: &Context| {
            // Nobody listens after the first.
            let _ = send.send(steady_time());
            cx.pause(Duration::from_hours(1))?;
            Ok(())
        })
        .open()?;
    let opened = steady_time();
    let first = starts.recv().unwrap_or_default();
    let resident_bytes = resident_bytes();
    engine.shutdown(Duration::ZERO)?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Opening {
        jobs,
        open_ms: ms(opened.saturating_sub(from)),
        first_start_ms: ms(first.saturating_sub(opened)),
        scan_ms: ms(scan),
        resident_bytes,
    })
}

fn new_dir(dir: &Path, name: &str) -> Result<PathBuf> {
    let dir = dir.join(name);
    std::fs::create_dir(&dir).map_err(Error::io("make a directory", &dir))?;
    Ok(dir)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
fn a_second(jobs: u64, time: Duration) -> f64 {
    jobs as f64 / time.as_secs_f64()
}

/// Threads that do one thing after the other for a while; how often a second, all together.
fn closed_loop(
    threads: usize,
    window: Duration,
    one: impl Fn() -> Result<()> + Sync,
) -> Result<f64> {
    let begun = steady_time();
    let passed = || steady_time().saturating_sub(begun);
    let done: Result<u64> = std::thread::scope(|scope| {
        let worker = || {
            let mut done = 0;
            while passed() < window {
                one()?;
                done += 1;
            }
            Ok(done)
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let panicked = |_| Err(Error::Bug("a measuring thread panicked".to_owned()));
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .sum()
    });
    Ok(a_second(done?, passed()))
}

/// The same, where one thread commits whatever waits as a group, and answers as the engine does.
fn grouped(
    threads: usize,
    window: Duration,
    mut commit: impl FnMut(u64) -> Result<()> + Send,
) -> Result<f64> {
    let (send, requests) = unbounded::<Reply<()>>();
    std::thread::scope(|scope| {
        let committing = scope.spawn(move || {
            while let Ok(first) = requests.recv() {
                let mut group = vec![first];
                group.extend(requests.try_iter().take(GROUP_MAX - 1));
                commit(group.len() as u64)?;
                group.into_iter().for_each(|reply| reply.send(Ok(())));
            }
            Ok(())
        });
        let rate = closed_loop(threads, window, || {
            let (reply, answer) = Reply::new();
            let gone = || Error::Bug("the committing thread is gone".to_owned());
            send.send(reply).map_err(|_| gone())?;
            answer.recv().ok_or_else(gone)?
        });
        drop(send);
        let panicked = |_| Err(Error::Bug("the committing thread panicked".to_owned()));
        // Its error is the cause of the others'.
        committing.join().unwrap_or_else(panicked).and(rate)
    })
}

fn raw(
    dir: &Path,
    allocated: Option<u64>,
    threads: usize,
    batch: u64,
    window: Duration,
) -> Result<f64> {
    let path = dir.join("log");
    let mut file = File::create(&path).map_err(Error::io("make", &path))?;
    if let Some(bytes) = allocated {
        let zeros = vec![0; 1 << 20];
        for _ in 0..bytes >> 20 {
            file.write_all(&zeros).map_err(Error::io("fill", &path))?;
        }
        file.sync_all().map_err(Error::io("sync", &path))?;
        file.rewind().map_err(Error::io("rewind", &path))?;
    }
    let mut at = 0;
    let rate = grouped(threads, window, move |jobs| {
        let jobs = usize::try_from(jobs * batch).unwrap_or(usize::MAX);
        let bytes = vec![7; JOB_BYTES.saturating_mul(jobs)];
        at += bytes.len() as u64;
        if allocated.is_some_and(|room| at > room) {
            at = bytes.len() as u64;
            file.seek(SeekFrom::Start(0))
                .map_err(Error::io("rewind", &path))?;
        }
        file.write_all(&bytes).map_err(Error::io("write", &path))?;
        file.sync_data().map_err(Error::io("sync", &path))
    })?;
    Ok(rate * jobs_of(batch))
}

fn bare(dir: &Path, threads: usize, batch: u64, window: Duration) -> Result<f64> {
    let mut journal = BareJournal::create(dir, u64::MAX)?;
    let rate = grouped(threads, window, move |groups| {
        journal.group(groups * batch, &STORED, 0)
    })?;
    Ok(rate * jobs_of(batch))
}

fn engine(dir: &Path, threads: usize, batch: u64, window: Duration) -> Result<f64> {
    let engine = Engine::builder(dir.join("store")).open()?;
    let rate = closed_loop(threads, window, || match batch {
        1 => engine.enqueue(noop()).map(drop),
        jobs => fill(&engine, jobs),
    })?;
    engine.shutdown(Duration::ZERO)?;
    Ok(rate * jobs_of(batch))
}

#[expect(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
fn jobs_of(batch: u64) -> f64 {
    batch as f64
}

/// Jobs in batches of 1,000.
fn fill(engine: &Engine, jobs: u64) -> Result<()> {
    for _ in 0..jobs.div_ceil(1_000) {
        let mut batch = engine.batch();
        batch.extend((0..1_000).map(|_| noop()));
        batch.enqueue()?;
    }
    Ok(())
}

fn bare_through(dir: &Path, jobs: u64) -> Result<f64> {
    let mut journal = BareJournal::create(dir, WINDOW)?;
    let begun = steady_time();
    for _ in 0..jobs / 1_000 {
        journal.group(1_000, &STORED, 1_000)?;
    }
    Ok(a_second(jobs, steady_time().saturating_sub(begun)))
}

#[expect(clippy::cast_precision_loss, reason = "these are rounded anyway")]
fn engine_through(dir: &Path, jobs: u64) -> Result<Through> {
    let engine = Engine::builder(dir.join("store"))
        .pool(Pool::threads("default", 2))
        .handle(|_: Noop, _: &Context| Ok(()))
        .open()?;
    let written = bytes_written();
    let begun = steady_time();
    fill(&engine, jobs)?;
    if !engine.wait_until_idle(Duration::from_hours(1))? {
        return Err(Error::Bug("the jobs did not end within an hour".to_owned()));
    }
    let rate = a_second(jobs, steady_time().saturating_sub(begun));
    let stats = engine.stats()?;
    let written = bytes_written().zip(written);
    let through = Through {
        jobs,
        bare: 0.0,
        engine: rate,
        syncs_per_job: stats.syncs as f64 / jobs as f64,
        bytes_written_per_job: written.map(|(after, before)| (after - before) as f64 / jobs as f64),
        bytes_on_disk: stats.bytes_on_disk,
    };
    engine.shutdown(Duration::from_mins(1))?;
    Ok(through)
}
