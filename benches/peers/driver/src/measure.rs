//! All measures of all set-ups: rounds in which each has its turn, and one turn under `strace`.

use std::path::Path;
use std::process::Command;

use contest::{BATCH, Line, Result};

use crate::Args;
use crate::figures::{Counted, Figure, MEASURES, compare, median};
use crate::programs::Setup;
use crate::run::Runner;
use crate::syncs;

/// Jobs of a counted run to completion: a trace takes time, and more jobs say nothing else.
const COUNTED_JOBS: u64 = 10_000;

/// `keep` is called whenever a measure has its figures: not all is lost when somebody ends this before.
pub fn all(
    setups: &[Setup],
    args: &Args,
    runner: &Runner,
    mut keep: impl FnMut(&[Figure]) -> Result<()>,
) -> Result<Vec<Figure>> {
    let can_count = syncs::is_there();
    let mut all = Vec::new();
    for measure in MEASURES {
        let mut turns: Vec<Turns> = setups
            .iter()
            .map(|setup| Turns::new(setup, measure, args, runner))
            .collect();
        for round in 1..=args.rounds {
            for turns in &mut turns {
                turns.take(round, runner);
            }
        }
        let figures = turns.into_iter();
        let mut figures: Vec<_> = figures
            .map(|turns| turns.figure(can_count, runner))
            .collect();
        compare(&mut figures);
        keep(&figures)?;
        all.append(&mut figures);
    }
    Ok(all)
}

/// One set-up's turns at one measure.
struct Turns<'s> {
    setup: &'s Setup,
    measure: &'static str,
    seconds: f64,
    jobs: u64,
    runs: Vec<Line>,
    /// It said that it has nothing of the kind, or failed: then it is not asked again.
    end: Option<Line>,
}

impl Turns<'_> {
    fn new<'s>(setup: &'s Setup, measure: &'static str, args: &Args, runner: &Runner) -> Turns<'s> {
        let mut turns = Turns {
            setup,
            measure,
            seconds: args.seconds,
            jobs: args.jobs.min(BATCH),
            runs: Vec::new(),
            end: None,
        };
        if measure == "through" {
            // A first, short run, whose figure is not kept, tells how many jobs take about the wanted time.
            turns.take(0, runner);
            turns.jobs = turns.runs.pop().map_or(turns.jobs, |run| sized(&run, args));
        }
        turns
    }

    fn take(&mut self, round: u32, runner: &Runner) {
        if self.end.is_some() {
            return;
        }
        let line = &self.setup.line;
        eprint!("{} {round}: {} {}: ", self.measure, line.peer, line.setup);
        let run = runner.turn(|dir| runner.line(&mut self.command(dir, self.jobs)));
        match run {
            Ok(run) if run.unsupported.is_none() => {
                eprintln!("{:.0} jobs/s ({} jobs)", run.jobs_per_second, run.jobs);
                self.runs.push(run);
            }
            Ok(run) => {
                eprintln!("unsupported");
                self.end = Some(run);
            }
            Err(error) => {
                let error = format!("{error:#}");
                eprintln!("{error}");
                self.end = Some(Line {
                    error: Some(error),
                    measure: self.measure.to_owned(),
                    ..line.clone()
                });
            }
        }
    }

    fn command(&self, dir: &Path, jobs: u64) -> Command {
        let mut command = Command::new(&self.setup.program);
        let (what, threads) = self.measure.split_once('-').unwrap_or((self.measure, ""));
        command.arg(what).arg("--dir").arg(dir);
        command.args(["--setup", &self.setup.line.setup]);
        match what {
            "through" => command.args(["--jobs", &jobs.to_string()]),
            _ => command.args(["--seconds", &self.seconds.to_string()]),
        };
        if !threads.is_empty() {
            command.args(["--threads", threads]);
        }
        command
    }

    fn figure(self, can_count: bool, runner: &Runner) -> Figure {
        let counted = match &self.end {
            Some(_) => Counted::default(),
            None if !can_count => Counted::skipped("there is no strace"),
            None => self
                .count(runner)
                .unwrap_or_else(|error| Counted::skipped(format!("{error:#}"))),
        };
        let runs = self.runs.iter().map(|run| run.jobs_per_second).collect();
        // A failure in one of the rounds is told, not hidden behind the rounds that went well.
        let line = self.end.or_else(|| median(self.runs));
        Figure {
            line: line.unwrap_or_else(|| self.setup.line.clone()),
            runs,
            counted,
            of_jobsled: None,
        }
    }

    fn count(&self, runner: &Runner) -> Result<Counted> {
        eprintln!(
            "{}, syncs: {} {}",
            self.measure, self.setup.line.peer, self.setup.line.setup
        );
        runner.turn(|dir| {
            // Beside the peer's own files, not among them.
            let (trace, inner) = (dir.join("trace"), dir.join("peer"));
            std::fs::create_dir(&inner)?;
            let command = self.command(&inner, self.jobs.min(COUNTED_JOBS));
            let run = runner.line(&mut syncs::traced(&command, &trace))?;
            let trace = std::fs::read(trace)?;
            Ok(Counted::of(
                syncs::count(&String::from_utf8_lossy(&trace)),
                run.jobs,
            ))
        })
    }
}

/// Whole batches that take about the wanted time at this rate: one at least, and no more than is wanted at all.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a number of batches is rounded anyway"
)]
fn sized(run: &Line, args: &Args) -> u64 {
    let batches = run.jobs_per_second * args.seconds / BATCH as f64;
    (batches as u64)
        .saturating_mul(BATCH)
        .max(BATCH)
        .min(args.jobs)
}
