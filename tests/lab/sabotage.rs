//! Who tests the tests: every deliberate bug of `jobsled::lab::Bug` must be caught.
//!
//! Each is turned on for one process of this program, which runs the check that is to notice it until something
//! fails. A bug that nothing notices is a failure of the lab; so is a bug without a check.

use std::process::{Command, Stdio};

use jobsled::lab::Bug;

use crate::check::{Check, Log, Order};

pub(crate) const CHECK: Check = Check {
    name: "sabotage",
    unit: "deliberate bugs caught",
    little: 4,
    ci: ALL,
    goal: ALL,
    signs: &[],
    run,
};

const ALL: u64 = (Bug::ALL.len() + AGAIN.len()) as u64;

/// Bugs that a second check has to notice as well: so that each check has one that it must not miss.
const AGAIN: &[(Bug, &str, u64)] = &[
    (Bug::NoFlush, "kill", 500),
    (Bug::NoDataSync, "recovery", 5_000),
    (Bug::NoDataSync, "ext4", 100),
    (Bug::FailedSyncIgnored, "faults", 2),
];

/// Which check notices a bug, and within how many of its seeds.
fn noticed_by(bug: Bug) -> (&'static str, u64) {
    match bug {
        Bug::NoDataSync
        | Bug::NoFlush
        | Bug::NoDirectorySync
        | Bug::NoPayloadSync
        | Bug::NoSyncBudget => ("cuts", 5_000),
        Bug::WitnessIgnored => ("damage", 400),
        Bug::StageUnguarded | Bug::SlotNotWoken | Bug::NudgeUnlocked => ("threads", 20_000),
        _ => ("sim", 5_000),
    }
}

fn run(order: &Order, log: &Log) {
    order.until_enough(log, |seed, log| {
        let at = usize::try_from((seed - 1) % ALL).unwrap();
        let (bug, check, most) = match Bug::ALL.get(at) {
            Some(bug) => {
                let (check, most) = noticed_by(*bug);
                (*bug, check, most)
            }
            None => AGAIN[at - Bug::ALL.len()],
        };
        if check == "ext4" && !rustix::process::geteuid().is_root() {
            log.skipped(1, "only root can mount a file system");
            return Ok(0);
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args([check, "--threads", "1", "--count", &most.to_string()])
            .env("JOBSLED_BUG", format!("{bug:?}"))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            return Err(format!(
                "{bug:?} escaped: {check} was to try {most} and noticed nothing: {said}"
            ));
        }
        let why = said
            .lines()
            .find_map(|line| line.strip_prefix("FAILED at "));
        let why = why.ok_or_else(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!(
                "{bug:?}: {check} ended without a word: {}: {errors}",
                output.status
            )
        })?;
        if order.one || order.size == crate::check::Size::Goal {
            let short: String = why.chars().take(110).collect();
            println!("  {bug:?}: {check} {short}");
        }
        log.note(check, 1);
        Ok(1)
    });
}
