//! The real engine on threads whose every step is chosen: thousands of orders that real threads meet once a year.
//!
//! A scenario is a small program: some callers, the writer, some slots, a clock that is moved by hand. It runs many
//! times, each time on another schedule, half of them drawn at random and half by PCT, which finds what needs a few
//! unlucky switches. It fails if an assertion does, if everybody waits for somebody else, or if a thread never ends.
//! What is modelled and what is not is told in [`sys::sync`](crate::sys::sync). Rayon pools are left out: their threads
//! are not ours to schedule.
//!
//! ```text
//! cargo rustc --lib --profile test --all-features --locked -- --cfg shuttle
//! target/debug/deps/jobsled-… threads::
//! ```
//!
//! `JOBSLED_SCHEDULES` says how many for each scenario (in hundreds), `JOBSLED_FROM` from which number on; the same
//! number is the same schedule for as long as the code stays the same. `JOBSLED_REPLAY` runs the one schedule that a
//! failure printed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::similar_names,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test: whatever is not as expected ends it, and says so"
)]

mod whole;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner};

use crate::sys;
use crate::sys::sync::thread::{begin, join_all};
use crate::sys::thread::JoinHandle;

/// Schedules in a quick look.
const LITTLE: u64 = 200;
/// Schedules that share a seed, and run together or not at all: PCT learns from the first ones how long they are.
const SHARE: u64 = 100;
const SHARE_OF_EACH: usize = 50;
/// Unlucky switches that PCT looks for.
const DEPTH: usize = 3;
/// A schedule this long goes round in circles.
const STEPS_MAX: usize = 50_000;
/// Room for a handler, with what a debug build puts on a stack.
const STACK_BYTES: usize = 256 << 10;

/// A test that runs on many schedules.
macro_rules! scenario {
    ($(#[$about:meta])* fn $name:ident() $body:block) => {
        $(#[$about])*
        #[test]
        fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            crate::threads::explore(path, || $body);
        }
    };
}
pub(crate) use scenario;

/// Runs a scenario on as many schedules as the environment says.
pub(crate) fn explore(path: &str, scenario: fn()) {
    /// Of any scenario: then the others end soon, too.
    static FAILED: AtomicBool = AtomicBool::new(false);
    let path = path.split_once("::").map_or(path, |(_, path)| path);
    if let Ok(schedule) = std::env::var("JOBSLED_REPLAY") {
        // A failure prints it in many lines.
        let schedule: String = schedule.split_whitespace().collect();
        run(ReplayScheduler::new_from_encoded(&schedule), scenario);
        return;
    }
    let from = number("JOBSLED_FROM", 1) - 1;
    let end = from + number("JOBSLED_SCHEDULES", LITTLE);
    for seed in from / SHARE..end.div_ceil(SHARE) {
        if FAILED.load(Ordering::Relaxed) {
            println!("{path} was cut short: another scenario failed");
            return;
        }
        let tried = catch_unwind(AssertUnwindSafe(|| {
            run(
                RandomScheduler::new_from_seed(seed, SHARE_OF_EACH),
                scenario,
            );
            run(
                PctScheduler::new_from_seed(seed, DEPTH, SHARE_OF_EACH),
                scenario,
            );
        }));
        if let Err(panic) = tried {
            FAILED.store(true, Ordering::Relaxed);
            let program = std::env::current_exe().unwrap();
            eprintln!(
                "FAILED at seed {}: {path}\n  again: JOBSLED_FROM={} JOBSLED_SCHEDULES={SHARE} {} {path} --exact",
                seed * SHARE + 1,
                seed * SHARE + 1,
                program.display(),
            );
            resume_unwind(panic);
        }
    }
}

fn number(name: &str, usual: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}"))
    })
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = shuttle::MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    config
        .ungraceful_shutdown_config
        .immediately_return_on_panic = true;
    Runner::new(scheduler, config).run(move || {
        begin();
        scenario();
        join_all();
    });
}

/// Starts a thread beside the others.
pub(crate) fn beside(name: &str, f: impl FnOnce() + Send + 'static) -> JoinHandle {
    sys::thread::spawn(name, f).expect("a thread can be started")
}

/// Waits for threads that were started.
pub(crate) fn join<const N: usize>(threads: [JoinHandle; N]) {
    for thread in threads {
        thread.join().expect("it does not panic");
    }
}
