//! Power cuts, recorded and replayed: the whole engine and the program itself.
//!
//! A process lives with a store; every change that it makes below one directory is recorded, in one order with what
//! it asked for and was told. From the record the disk is built as a power cut may leave it, at many places and in many
//! ways (`tests/powercut` has the model); the engine opens what is left in another process, says what is there, and
//! goes on working. What it says is held against what was told before the cut (`promise.rs`).
//!
//! The check `recovery` goes on from there: the opening is recorded too, and cut, and so is the opening after that.
//!
//! A state has a number, which is its seed: that of its life times [`STATES`] and that of its cut.

mod bench;
pub(crate) mod child;
pub(crate) mod ext4;
mod life;
mod mark;
mod program;
mod promise;
mod work;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tempfile::TempDir;

use crate::built;
use crate::check::{Check, Log, Order, caught};
use crate::disk::Disk;
use crate::random::Random;
use bench::{Bench, Failure, Logs, Plan, assert_whole, records_of};
use child::{Opener, Stage, Task};

/// States of one life.
const STATES: u64 = 60;
/// One life in so many is that of the program.
const PROGRAM_EVERY: u64 = 8;
/// A kept record, instead of a new one: what threads do is not the same in two runs.
const KEPT_LOG: &str = "LAB_LOG";
/// Memory, if there is such a place: a sync costs nothing and the disk is spared.
const MEMORY: &str = "/dev/shm";

pub(crate) const CHECK: Check = Check {
    name: "cuts",
    unit: "power cuts of whole lives",
    little: 60,
    ci: 10_000,
    goal: 200_000,
    signs: &[("jobs acknowledged", 10_000)],
    run,
};

/// Two cuts in a row, or three.
pub(crate) const RECOVERY: Check = Check {
    name: "recovery",
    unit: "power cuts within recoveries",
    little: 30,
    ci: 1_000,
    goal: 20_000,
    signs: &[("jobs acknowledged", 10_000)],
    run: run_recovery,
};

fn run(order: &Order, log: &Log) {
    run_lives("cuts", order, log, |_| &[STATES]);
}

fn run_recovery(order: &Order, log: &Log) {
    run_lives("recovery", order, log, |life| {
        if life.is_multiple_of(2) {
            &[6, 10]
        } else {
            &[6, 2, 5]
        }
    });
}

fn run_lives(
    check: &'static str,
    order: &Order,
    log: &Log,
    cuts: impl Fn(u64) -> &'static [u64] + Sync,
) {
    let (from, to) = (order.from, order.from + order.count);
    let next = AtomicU64::new(from / STATES);
    let stop = AtomicBool::new(false);
    let (next, stop, cuts) = (&next, &stop, &cuts);
    std::thread::scope(|scope| {
        for _ in 0..order.threads {
            scope.spawn(move || {
                let scratch = scratch();
                let mut opener = Opener::new(scratch.path());
                while !stop.load(Ordering::Relaxed) && !order.is_over() {
                    let life = next.fetch_add(1, Ordering::Relaxed);
                    let first = life * STATES;
                    if first >= to {
                        break;
                    }
                    let seed = Random::new(life ^ u64::from(check.as_bytes()[0]) << 56).next();
                    let plan = Plan {
                        check,
                        seed,
                        first,
                        cuts: cuts(life),
                        from,
                        to,
                    };
                    let place = scratch.path().join("life");
                    let ran = caught(|| Ok(try_life(plan, &place, &mut opener, log)));
                    let failure = match ran {
                        Ok(Ok(())) => continue,
                        Ok(Err(failure)) => failure,
                        Err(panic) => (first.max(from), panic),
                    };
                    stop.store(true, Ordering::Relaxed);
                    log.failed(failure.0, failure.1);
                }
            });
        }
    });
}

fn scratch() -> TempDir {
    let memory = Path::new(MEMORY);
    let base = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    TempDir::with_prefix_in("jobsled-lab-", base.canonicalize().unwrap()).unwrap()
}

/// Records a life and cuts it.
fn try_life(plan: Plan<'_>, place: &Path, opener: &mut Opener, log: &Log) -> Result<(), Failure> {
    let _ = fs::remove_dir_all(place);
    fs::create_dir(place).unwrap();
    let logs = match std::env::var_os(KEPT_LOG) {
        Some(kept) => vec![fs::read(kept).unwrap()],
        None => {
            let is_of_program = plan.first / STATES % PROGRAM_EVERY == 1;
            if is_of_program && let Err(why) = built::recorder() {
                let states = plan.to.min(plan.first + STATES) - plan.from.max(plan.first);
                log.skipped(states, why);
                return Ok(());
            }
            let recorded = record(plan.seed, place, is_of_program);
            recorded.map_err(|why| (plan.first.max(plan.from), why))?
        }
    };
    log.note("lives", 1);
    Bench::new(plan, place, opener, &logs, log).run()
}

/// A life of the engine, or of the program.
fn record(seed: u64, place: &Path, is_of_program: bool) -> Result<Logs, String> {
    let root = place.join("first");
    fs::create_dir(&root).unwrap();
    let uncut = |why| format!("a life without a cut: {why}");
    let logs = if is_of_program {
        program::live(&root, seed).map_err(uncut)?
    } else {
        let (marks, log) = (root.with_extension("marks"), root.with_extension("log"));
        let task = Task {
            root: &root,
            marks: &marks,
            log: Some(&log),
            seed,
            stage: Stage::First,
        };
        child::run_alone(&task, place).map_err(uncut)?;
        vec![fs::read(&log).unwrap()]
    };
    assert_whole(Disk::default(), &records_of(&logs), &root);
    Ok(logs)
}
