//! One life of the child, as the parent sees it: from its start to its death.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;

use super::acks;
use super::place::Place;
use super::plan::Plan;
use super::steady;
use crate::commands::Failure;

/// What the child says on its stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The store is open.
    Opened,
    /// So many jobs were acknowledged to be stored, and completed, in all lives so far.
    Progress { accepted: u64, completed: u64 },
    /// All jobs are done. The child waits to be ended.
    Done,
}

/// What the parent hears.
#[derive(Debug)]
pub(super) enum Heard {
    /// The child said something, so long after its start.
    Said(Report, Duration),
    /// It said nothing for the given time.
    Silence,
    /// It is dead.
    End,
}

/// A running child. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Life {
    child: Child,
    /// Kept open: its end tells the child that the parent is gone.
    stdin: ChildStdin,
    heard: Receiver<(Report, Duration)>,
}

impl Life {
    pub(super) fn start(plan: &Plan, place: &Place, life: u32) -> Result<Life, Failure> {
        let failed = |e: std::io::Error| {
            Failure::CannotRun(format!(
                "could not start a child process: {e}. Too many processes, or no memory?"
            ))
        };
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(place.child_log())
            .map_err(failed)?;
        acks::prepare(place, life)?;
        let mut command = Command::new(this_program().map_err(failed)?);
        command
            .arg("demo-child")
            .arg(place.dir())
            .arg(&plan.root)
            .arg(plan.jobs.to_string())
            .arg(life.to_string());
        command.args(
            place
                .leave()
                .to_possible_value()
                .map(|value| value.get_name().to_owned()),
        );
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // Ctrl-C is for the parent: the child notices its death, and cleans up.
            command.process_group(0).arg0("jobsled");
        }

        let started = steady();
        let mut child = command.spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(std::io::Error::other("it has no pipes")));
        };
        let (tell, heard) = channel();
        let listen = move || listen(stdout, started, &tell);
        thread::Builder::new()
            .name("child".to_owned())
            .spawn(listen)
            .map_err(failed)?;
        Ok(Life {
            child,
            stdin,
            heard,
        })
    }

    /// The next thing that happens, within this time.
    pub(super) fn next(&self, within: Duration) -> Heard {
        match self.heard.recv_timeout(within) {
            Ok((report, after)) => Heard::Said(report, after),
            Err(RecvTimeoutError::Timeout) => Heard::Silence,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }

    /// Lets the child, which is done, close the store and end.
    pub(super) fn end(mut self) -> Result<ExitStatus, Failure> {
        writeln!(self.stdin, "end").ok();
        self.wait()
    }

    /// SIGKILL. True if that is what it died of.
    pub(super) fn kill(mut self) -> Result<bool, Failure> {
        self.child.kill().ok();
        let status = self.wait()?;
        #[cfg(unix)]
        return Ok(std::os::unix::process::ExitStatusExt::signal(&status) == Some(9));
        #[cfg(not(unix))]
        return Ok(!status.success());
    }

    /// Waits for its death.
    pub(super) fn wait(&mut self) -> Result<ExitStatus, Failure> {
        self.child
            .wait()
            .map_err(|e| Failure::CannotRun(format!("could not wait for the child process: {e}")))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Both fail if it is dead, and then all is well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn listen(stdout: ChildStdout, started: Duration, tell: &Sender<(Report, Duration)>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        // A kill may cut the last line short.
        let Some(report) = Report::parse(&line) else {
            continue;
        };
        if tell
            .send((report, steady().saturating_sub(started)))
            .is_err()
        {
            return;
        }
    }
}

/// This very program, even if its file was replaced meanwhile.
fn this_program() -> std::io::Result<std::path::PathBuf> {
    if cfg!(target_os = "linux") {
        Ok("/proc/self/exe".into())
    } else {
        std::env::current_exe()
    }
}

impl Report {
    fn parse(line: &str) -> Option<Report> {
        let words: Vec<&str> = line.split(' ').collect();
        Some(match *words.as_slice() {
            ["opened"] => Report::Opened,
            ["accepted", accepted, "completed", completed, "."] => Report::Progress {
                accepted: accepted.parse().ok()?,
                completed: completed.parse().ok()?,
            },
            ["done"] => Report::Done,
            _ => return None,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Opened => f.write_str("opened"),
            // The full stop tells a whole number from one that was cut.
            Report::Progress {
                accepted,
                completed,
            } => write!(f, "accepted {accepted} completed {completed} ."),
            Report::Done => f.write_str("done"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_heard_as_told_and_not_when_cut() {
        let reports = [
            Report::Opened,
            Report::Progress {
                accepted: 120,
                completed: 17,
            },
            Report::Done,
        ];
        for report in reports {
            let line = report.to_string();
            assert_eq!(Report::parse(&line), Some(report));
            for cut in 0..line.len() {
                assert_eq!(Report::parse(&line[..cut]), None, "{}", &line[..cut]);
            }
        }
    }
}
