//! Which trials are run, and the table of what came of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rayon::prelude::*;
use tempfile::TempDir;

use crate::rows::{Expect, Extent, ROWS, Row};
use crate::trial::{self, Life, Outcome, Verdict};

/// What this test is called by the test harness' arguments.
const NAME: &str = "powercut";
/// Chooses what is run; see `main.rs`.
const CHOICE: &str = "POWERCUT";
/// A kept log.
const LOG: &str = "POWERCUT_LOG";
/// Memory, if there is such a place: an fsync costs nothing and the disk is spared.
const SCRATCH: &str = "/dev/shm";
/// Failures that are told in full.
const TOLD_MAX: usize = 5;

/// What is run.
#[derive(Clone, Debug, Default)]
struct Choice {
    full: bool,
    row: Option<String>,
    life: Option<u64>,
    trial: Option<u64>,
    log: Option<PathBuf>,
}

impl Choice {
    fn from_environment() -> Choice {
        let text = std::env::var(CHOICE).unwrap_or_default();
        let log = std::env::var_os(LOG).map(PathBuf::from);
        if text.is_empty() || text == "full" {
            return Choice {
                full: !text.is_empty(),
                log,
                ..Choice::default()
            };
        }
        let mut parts = text.split('/');
        let row = parts.next().map(str::to_owned);
        let mut number = || {
            let part = parts.next()?;
            Some(
                part.parse()
                    .unwrap_or_else(|_| panic!("{CHOICE}={text}: `{part}` is no number")),
            )
        };
        let (life, trial) = (number(), number());
        let choice = Choice {
            full: true,
            row,
            life,
            trial,
            log,
        };
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        let is_known = ROWS.iter().any(|row| choice.takes(row));
        assert!(
            is_known,
            "{CHOICE}={text}: known are full, {}",
            known.join(", ")
        );
        choice
    }

    fn takes(&self, row: &Row) -> bool {
        self.row.as_ref().is_none_or(|name| name == row.name)
    }

    fn lives(&self, row: &Row) -> Vec<(u64, Life)> {
        let Extent { lives, cuts } = if self.full { row.full } else { row.short };
        let found = row.found.iter().filter(|_| !self.full);
        let found = found.map(|number| (*number, row.full.cuts));
        let chosen: Vec<(u64, u64)> = match self.life {
            Some(life) => vec![(life, cuts)],
            None => (0..lives)
                .map(|number| (number, cuts))
                .chain(found)
                .collect(),
        };
        let life = |(number, cuts): (u64, u64)| Life {
            plan: (row.plan)(number),
            cuts: self.trial.map_or(cuts, |trial| cuts.max(trial + 1)),
            depth: row.depth,
            forget_data_syncs: row.forget_data_syncs,
            only: self.trial,
            log: self.log.clone(),
        };
        chosen
            .into_iter()
            .map(|chosen| (chosen.0, life(chosen)))
            .collect()
    }
}

/// Runs what is asked for, as a test harness would be.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    if arguments.iter().any(|argument| argument == "--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    if filter.is_some_and(|filter| !NAME.contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    let scratch = if Path::new(SCRATCH).is_dir() {
        SCRATCH.into()
    } else {
        std::env::temp_dir()
    };
    let scratch = TempDir::with_prefix_in("jobsled-powercut-", scratch.canonicalize().unwrap());
    let scratch = scratch.expect("a directory to work in");
    let kept = std::env::temp_dir().join("jobsled-powercut-failures");
    let choice = Choice::from_environment();
    print_head();
    let mut all_as_expected = true;
    for row in ROWS.iter().filter(|row| choice.takes(row)) {
        // Every row is run, also after one that failed.
        all_as_expected &= run_row(row, &choice, scratch.path(), &kept);
    }
    if all_as_expected {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_row(row: &Row, choice: &Choice, scratch: &Path, kept: &Path) -> bool {
    let lives = choice.lives(row);
    let outcomes: Vec<(u64, Outcome)> = lives
        .par_iter()
        .map(|(number, life)| {
            let place = |base: &Path| base.join(format!("{}-{number}", row.name));
            let scratch = place(scratch);
            std::fs::create_dir(&scratch).unwrap();
            let kept = (row.expect == Expect::Ok).then(|| place(kept));
            let outcome = trial::run(life, &scratch, kept.as_deref());
            std::fs::remove_dir_all(&scratch).unwrap();
            (*number, outcome)
        })
        .collect();
    print_row(row, &outcomes);
    let failed = outcomes
        .iter()
        .flat_map(|(_, outcome)| &outcome.failed)
        .count();
    let as_expected = match row.expect {
        Expect::Ok => failed == 0,
        Expect::Broken => failed > 0,
        Expect::Either => true,
    };
    if !as_expected {
        tell_failures(row, &outcomes, kept);
    }
    as_expected
}

fn print_head() {
    println!(
        "| row | depth | lives | trials | OK | lost acked | cannot open | wrong content | second life | groups cut short | un-synced at most |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
}

fn print_row(row: &Row, outcomes: &[(u64, Outcome)]) {
    let verdicts: Vec<Verdict> = outcomes
        .iter()
        .flat_map(|(_, outcome)| outcome.verdicts.iter().copied())
        .collect();
    let counts = Verdict::ALL.map(|v| verdicts.iter().filter(|found| **found == v).count());
    let counts = counts.map(|count| count.to_string()).join(" | ");
    let unsynced = outcomes
        .iter()
        .map(|(_, outcome)| outcome.unsynced_percent)
        .max()
        .unwrap_or(0);
    let unfinished: usize = outcomes.iter().map(|(_, outcome)| outcome.unfinished).sum();
    let (lives, trials) = (outcomes.len(), verdicts.len());
    let expect = match row.expect {
        Expect::Ok => "",
        Expect::Broken => " (sabotage: must fail)",
        Expect::Either => " (no promise)",
    };
    println!(
        "| {}{expect} | {} | {lives} | {trials} | {counts} | {unfinished} | {unsynced} % of a segment |",
        row.name, row.depth
    );
}

fn tell_failures(row: &Row, outcomes: &[(u64, Outcome)], kept: &Path) {
    let failures = outcomes
        .iter()
        .flat_map(|(life, o)| o.failed.iter().map(move |f| (life, f)));
    for (life, failed) in failures.take(TOLD_MAX) {
        println!(
            "{}/{life}/{}: {:?}, {}",
            row.name, failed.trial, failed.verdict, failed.text
        );
        println!(
            "    {CHOICE}={}/{life}/{} cargo test --features lab --test {NAME}",
            row.name, failed.trial
        );
    }
    println!(
        "images and logs are kept in {}; exactly the same with {LOG}=…/first.log",
        kept.display()
    );
    if row.expect == Expect::Broken {
        println!(
            "{}: nothing failed; a laboratory that cannot fail proves nothing",
            row.name
        );
    }
}
