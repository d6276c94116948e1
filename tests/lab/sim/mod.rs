//! Deterministic simulation: one seed is one life.
//!
//! The real step, ledger, recovery, witness and recorder (`jobsled::lab::Machine`) over a simulated disk and clock.
//! Around it callers, workers and people do what the seed says, and the disk, the clock, the process and the
//! machine fail as it says. The model (`model`) watches every step. Then the faults stop, and every job must end
//! within a bound of virtual time.
//!
//! Does not cover: sled and the system's files (the power-cut checks), threads (the schedules).

mod life;
mod model;
mod swarm;

use std::path::PathBuf;

use crate::check::{Check, Log, Order};
pub(crate) use life::Life;
use life::Lived;

pub(crate) const CHECK: Check = Check {
    name: "sim",
    unit: "simulated lives",
    little: 300,
    ci: 50_000,
    goal: 1_000_000,
    signs: &[
        ("jobs", 20_000),
        ("steps", 50_000),
        ("power cuts", 1_000),
        ("kills", 2_000),
        ("cut openings", 200),
        ("failed syncs", 500),
        ("damage noticed", 500),
        ("lies noticed", 1),
    ],
    run,
};

/// Every so many lives one is lived twice: the traces must be the same.
const TWICE_EVERY: u64 = 500;

fn run(order: &Order, log: &Log) {
    let home = crate::check::memory_dir();
    order.each_seed(log, |seed, log| {
        let lived = live(home.path(), seed, log, order.one)?;
        if seed.is_multiple_of(TWICE_EVERY) || order.one {
            let again = live(home.path(), seed, &Log::default(), false)?;
            if lived != again {
                return Err(format!("the same seed lived {lived:?} and {again:?}"));
            }
        }
        log.note("ended early, noticed", lived.noticed.into());
        Ok(())
    });
}

fn live(home: &std::path::Path, seed: u64, log: &Log, loud: bool) -> Result<Lived, String> {
    // A thread has one life at a time.
    let dir: PathBuf = home.join(format!("{:?}", std::thread::current().id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Life::new(seed, &dir, log, loud)?.live()
}
