//! `jobsled demo`: a process at work is killed with SIGKILL, again and again, and no job is lost.
//!
//! The parent plans one hashing job per file and starts a child process, which opens the store, enqueues
//! and runs the jobs. Whatever the engine acknowledged to the child, the child notes in files outside the
//! store. The parent kills the child at random moments, starts the next one, and at the end opens the store
//! itself and compares it with the notes. This folder uses the engine as any program would: through its
//! public face.

mod acks;
mod child;
mod drive;
mod job;
mod kills;
mod life;
mod place;
mod plan;
mod report;
mod store;
mod tally;

use std::path::Path;
use std::time::Duration;

use jobsled::{Clock, SystemClock};

use crate::args::DemoArgs;
use crate::commands::{Failure, Verdict};
use crate::output::{self, Progress};
use kills::Kills;
use place::Place;
use plan::Plan;
use tally::Tally;

pub(crate) use child::run as run_child;

/// The parent: plans, drives the child through its lives, checks, tells.
/// `store` is a new or empty directory for the store and the record of acknowledgements; without, a temporary one.
pub(crate) fn run(args: &DemoArgs, store: Option<&Path>) -> Result<Verdict, Failure> {
    let plan = Plan::of(&args.dir, args.jobs, u64::from(args.content) << 20)?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => kills::random_seed()?,
    };
    let place = Place::new(store, args.keep)?;
    let progress = Progress::new(u64::from(plan.jobs));
    introduce(args, &plan, &place, seed, &progress);

    let result = drive_and_check(args, &plan, &place, seed, &progress);
    progress.end();
    match result {
        Ok(Verdict::NotWell) | Err(Failure::NotWell(_)) => {
            output::say(format_args!(
                "The store is kept, please report this and attach it: {place}"
            ));
        }
        Ok(Verdict::Well) if place.is_kept() => {
            output::say(format_args!("The store is kept: {place}"));
        }
        _ => place.clean_up(),
    }
    result
}

fn introduce(args: &DemoArgs, plan: &Plan, place: &Place, seed: u64, progress: &Progress) {
    let files = plan.files.len();
    let passes = (plan.jobs as usize).div_ceil(files);
    let files = output::counted(files as u64, "file");
    let passes = if passes > 1 {
        format!(", in {} passes", output::count(passes as u64))
    } else {
        String::new()
    };
    progress.line(format_args!(
        "{}: one per file of {}, {files}{passes}, {} to hash",
        output::counted(u64::from(plan.jobs), "job"),
        plan.root.display(),
        output::size(plan.bytes),
    ));
    for words in plan.left_out.words() {
        progress.line(format_args!("Left out: {words}"));
    }
    progress.line(format_args!("Store: {place}"));
    progress.line(format_args!(
        "Kills: {} at random moments, --seed {seed}",
        output::count(u64::from(args.kills))
    ));
}

fn drive_and_check(
    args: &DemoArgs,
    plan: &Plan,
    place: &Place,
    seed: u64,
    progress: &Progress,
) -> Result<Verdict, Failure> {
    let mut kills = Kills::plan(seed, args.kills, u64::from(plan.jobs));
    let driven = drive::drive(plan, place, &mut kills, progress)?;
    progress.at(u64::from(plan.jobs), "checking the store");
    let lives = acks::read_all(place)?;
    let found = store::look(place, plan)?;
    let tally = Tally::of(&lives, &found, driven.trouble.is_none());
    progress.end();
    Ok(report::tell(plan, &driven, &found, &tally))
}

/// Time that passes, from an arbitrary moment.
fn steady() -> Duration {
    SystemClock.now().steady
}
