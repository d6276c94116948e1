//! Drives the child through its lives: starts it, kills it at the planned moments, starts it again, until
//! all jobs are done.

use std::time::Duration;

use super::kills::Kills;
use super::life::{Heard, Life, Report};
use super::place::Place;
use super::plan::Plan;
use super::steady;
use crate::commands::Failure;
use crate::output::{self, Progress};

/// A child that reports nothing for so long makes no progress any more.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// Lines that are quoted of a child that died by itself.
const LAST_WORDS: usize = 5;

/// How it went.
#[derive(Debug, Default)]
pub(super) struct Driven {
    pub(super) kills: u32,
    /// Of those, kills that found no work left.
    pub(super) idle_kills: u32,
    /// For each reopening after a kill: from the start of the process until the store was open.
    pub(super) recoveries: Vec<Duration>,
    /// From the first start to the last end.
    pub(super) took: Duration,
    /// Why it could not be finished, if so.
    pub(super) trouble: Option<String>,
}

/// How one life ended.
enum End {
    Killed,
    Finished,
    Trouble(String),
}

pub(super) fn drive(
    plan: &Plan,
    place: &Place,
    kills: &mut Kills,
    progress: &Progress,
) -> Result<Driven, Failure> {
    plan.write(place)?;
    let mut parent = Parent {
        plan,
        place,
        kills,
        progress,
        driven: Driven::default(),
        accepted: 0,
        completed: 0,
    };
    let began = steady();
    // Every life but the last ends with one of the planned kills.
    for number in 1.. {
        let life = Life::start(plan, place, number)?;
        match parent.watch(life, number)? {
            End::Killed => {}
            End::Finished => break,
            End::Trouble(words) => {
                parent.driven.trouble = Some(words);
                break;
            }
        }
    }
    parent.driven.took = steady().saturating_sub(began);
    Ok(parent.driven)
}

/// The parent, and what it heard last.
struct Parent<'a> {
    plan: &'a Plan,
    place: &'a Place,
    kills: &'a mut Kills,
    progress: &'a Progress,
    driven: Driven,
    accepted: u64,
    completed: u64,
}

impl Parent<'_> {
    fn watch(&mut self, mut life: Life, number: u32) -> Result<End, Failure> {
        // Two kills may be close together: then this one comes while the store is being opened.
        let mut kill_at = self.next_kill();
        loop {
            let within = kill_at.map_or(SILENCE_MAX, |at: Duration| at.saturating_sub(steady()));
            if within.is_zero() {
                return self.kill(life);
            }
            match life.next(within) {
                Heard::Said(Report::Opened, after) if number > 1 => {
                    self.progress
                        .line(format_args!("open again after {}", output::time(after)));
                    self.driven.recoveries.push(after);
                }
                Heard::Said(Report::Opened, _) => {}
                Heard::Said(
                    Report::Progress {
                        accepted,
                        completed,
                    },
                    _,
                ) => {
                    (self.accepted, self.completed) = (accepted, completed);
                    self.show();
                    kill_at = kill_at.or_else(|| self.next_kill());
                }
                Heard::Said(Report::Done, _) if self.kills.is_over() => {
                    let status = life.end()?;
                    return Ok(if status.success() {
                        End::Finished
                    } else {
                        self.trouble(&status.to_string())
                    });
                }
                Heard::Said(Report::Done, _) => {
                    self.driven.idle_kills += 1;
                    return self.kill(life);
                }
                Heard::Silence if kill_at.is_some() => {}
                Heard::Silence => {
                    drop(life);
                    return Ok(
                        self.trouble(&format!("no progress for {} s", SILENCE_MAX.as_secs()))
                    );
                }
                Heard::End => {
                    let status = life.wait()?;
                    return Ok(self.trouble(&status.to_string()));
                }
            }
        }
    }

    /// When the next kill comes, if the work has come so far.
    fn next_kill(&self) -> Option<Duration> {
        self.kills
            .due(self.accepted + self.completed)
            .map(|delay| steady() + delay)
    }

    fn show(&self) {
        let accepted = output::count(self.accepted);
        let kills = output::counted(u64::from(self.driven.kills), "kill");
        self.progress
            .at(self.completed, format_args!("{accepted} accepted, {kills}"));
    }

    fn kill(&mut self, life: Life) -> Result<End, Failure> {
        if !life.kill()? {
            return Ok(self.trouble("it ended by itself"));
        }
        self.kills.done_one();
        self.driven.kills += 1;
        let acks = (self.accepted + self.completed) * 100 / (u64::from(self.plan.jobs) * 2);
        self.progress.line(format_args!(
            "SIGKILL {} at {acks} %: {} accepted, {} completed",
            self.driven.kills,
            output::count(self.accepted),
            output::count(self.completed),
        ));
        self.show();
        Ok(End::Killed)
    }

    fn trouble(&self, why: &str) -> End {
        let log = std::fs::read_to_string(self.place.child_log()).unwrap_or_default();
        // The frames of a backtrace are indented; they are in the log for whoever needs them.
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with(' ')).collect();
        let last = lines
            .get(lines.len().saturating_sub(LAST_WORDS)..)
            .unwrap_or_default()
            .join("\n  ");
        let last = if last.is_empty() {
            last
        } else {
            format!(". Its last words:\n  {last}")
        };
        End::Trouble(format!("the child process did not finish: {why}{last}"))
    }
}
