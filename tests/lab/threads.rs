//! The threads of the engine on schedules that are chosen one by one: the scenarios of `src/threads`.
//!
//! They are unit tests of a build of their own, in which locks, channels, atomics and threads are shuttle's; this check
//! runs that program. `JOBSLED_THREADS` names it; if nothing does, the newest one beside this program is taken.
//!
//! ```text
//! cargo rustc --lib --profile test --all-features --locked -- --cfg shuttle
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::check::{Check, Log, Order};

pub(crate) const CHECK: Check = Check {
    name: "threads",
    unit: "schedules of each scenario",
    little: 200,
    ci: 20_000,
    goal: 1_000_000,
    signs: &[],
    run,
};

/// Fewer would say that some were left out.
const SCENARIOS_MIN: u64 = 20;
/// Between two looks at the clock.
const SHARE: u64 = 5_000;
/// Programs in a directory that are asked whether they are the one.
const ASKED_MAX: usize = 12;

fn run(order: &Order, log: &Log) {
    let Some(program) = program() else {
        log.skipped(
            order.count,
            "no program with scenarios: cargo rustc --lib --profile test --all-features --locked -- --cfg shuttle",
        );
        return;
    };
    let end = order.from + order.count;
    let mut from = order.from;
    while from < end && !order.is_over() {
        let count = SHARE.min(end - from);
        match try_schedules(&program, from, count, order) {
            Ok(scenarios) if scenarios < SCENARIOS_MIN => {
                log.failed(
                    from,
                    format!("{scenarios} scenarios, of at least {SCENARIOS_MIN}"),
                );
                return;
            }
            Ok(scenarios) => {
                if from == order.from {
                    log.note("scenarios", scenarios);
                }
                log.done(count);
            }
            Err((seed, why)) => {
                log.failed(seed, why);
                return;
            }
        }
        from += count;
    }
}

/// How many scenarios there are; or which seed fails, and how.
fn try_schedules(
    program: &Path,
    from: u64,
    count: u64,
    order: &Order,
) -> Result<u64, (u64, String)> {
    let output = Command::new(program)
        .args(["threads::", "--test-threads", &order.threads.to_string()])
        .env("JOBSLED_FROM", from.to_string())
        .env("JOBSLED_SCHEDULES", count.to_string())
        .env_remove("JOBSLED_REPLAY")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| (from, format!("{}: {e}", program.display())))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if order.one {
        println!("{said}{errors}");
    }
    if output.status.success() {
        return passed(&said).ok_or_else(|| (from, format!("no scenario in: {said}")));
    }
    let why = seed_and_reason(&said).or_else(|| seed_and_reason(&errors));
    Err(why.unwrap_or_else(|| (from, format!("{}: {said}{errors}", output.status))))
}

/// What the test harness says at its end.
fn passed(said: &str) -> Option<u64> {
    let (_, rest) = said.split_once("test result: ok. ")?;
    let count = rest.split(' ').next()?.parse().ok()?;
    (count > 0).then_some(count)
}

/// What `threads::explore` prints, with the assertion and the schedule before it.
fn seed_and_reason(said: &str) -> Option<(u64, String)> {
    let (before, rest) = said.split_once("FAILED at seed ")?;
    let (seed, scenario) = rest.split_once(": ")?;
    let again: Vec<&str> = scenario.lines().take(2).collect();
    let (_, last) = before.rsplit_once("\nthread ").unwrap_or(("", before));
    let schedule = before.rsplit_once("failing schedule:\n\"\n");
    let schedule = schedule.and_then(|(_, text)| text.split('"').next());
    let schedule: String = schedule.unwrap_or_default().split_whitespace().collect();
    let why = format!(
        "{}\n  thread {}\n  or, for this schedule alone, JOBSLED_REPLAY={schedule}",
        again.join("\n"),
        last.trim_end(),
    );
    Some((seed.parse().ok()?, why))
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("JOBSLED_THREADS").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    // target/<profile>/deps/lab-…: scenarios may have been built in another profile.
    let target = std::env::current_exe().ok()?;
    let target = target.ancestors().nth(3)?;
    let mut found: Vec<(SystemTime, PathBuf)> = ["debug", "release"]
        .iter()
        .filter_map(|profile| std::fs::read_dir(target.join(profile).join("deps")).ok())
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let is_ours = path.file_name()?.to_str()?.starts_with("jobsled-");
            let is_program = path
                .extension()
                .is_none_or(|of| of == std::env::consts::EXE_EXTENSION);
            let written = path.metadata().ok()?.modified().ok()?;
            (is_ours && is_program).then_some((written, path))
        })
        .collect();
    found.sort_unstable();
    let newest = found.into_iter().rev().take(ASKED_MAX);
    newest
        .map(|(_, path)| path)
        .find(|path| has_scenarios(path))
}

fn has_scenarios(program: &Path) -> bool {
    let asked = Command::new(program)
        .args(["threads::", "--list"])
        .stdin(Stdio::null())
        .output();
    asked.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).contains("threads::whole::"))
}
