//! A store in a directory of its own, and what all cases ask of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jobsled::command::{self, Command, Report};
use jobsled::{Engine, EngineBuilder, Finished, Handle, JobId, Pool};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub(crate) const MINUTE: Duration = Duration::from_mins(1);

/// A name and what it tests.
pub(crate) type Case = (&'static str, fn());

pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn builder(&self) -> EngineBuilder {
        builder(&self.store())
    }

    pub(crate) fn open(&self) -> Engine {
        self.builder().open().unwrap()
    }

    /// A shell's command line, run in this place.
    pub(crate) fn shell(&self, line: &str) -> Command {
        shell(line).dir(self.dir.path())
    }

    /// A named pipe.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        path
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Records of commands that run, or of which something may be left.
    pub(crate) fn records(&self) -> usize {
        std::fs::read_dir(self.store().join("commands")).map_or(0, Iterator::count)
    }
}

pub(crate) fn builder(store: &Path) -> EngineBuilder {
    Engine::builder(store)
        .pool(Pool::threads("default", 4))
        .handle(command::run)
}

pub(crate) fn shell(line: &str) -> Command {
    Command::new("sh").args(["-c", line])
}

/// Runs a command in a store of its own: its report, and the error of the attempt if it failed.
pub(crate) fn run(command: Command) -> (Report, Option<String>) {
    let place = Place::new();
    let engine = place.open();
    let job = engine.enqueue(command).unwrap();
    let end = job.wait().unwrap();
    let report = report(&engine, job.id());
    match end {
        Finished::Completed(told) => {
            assert_eq!(told, report);
            (report, None)
        }
        Finished::Dead(ended) => (report, ended.errors.last().map(|e| e.error.clone())),
        other => panic!("{other:?}"),
    }
}

/// What is stored of how a job's command ended.
pub(crate) fn report(engine: &Engine, id: JobId) -> Report {
    let stored = engine.output(id).unwrap().expect("a report is kept");
    serde_json::from_slice(stored.bytes()).unwrap()
}

/// What a command printed, if that is text.
pub(crate) fn output(report: &Report) -> &str {
    std::str::from_utf8(&report.output.bytes).unwrap()
}

/// Waits until a running command has printed something that is enough.
pub(crate) fn printed(
    engine: &Engine,
    job: &Handle<Report>,
    is_enough: impl Fn(&str) -> bool,
) -> String {
    let mut text = String::new();
    let mut next = 0;
    while !is_enough(&text) {
        // Not begun yet: there is nothing to wait on.
        let Some(part) = engine.log(job.id(), next, MINUTE).unwrap() else {
            assert!(
                !job.state().unwrap().unwrap().is_finished(),
                "it printed `{text}`"
            );
            continue;
        };
        assert!(!part.ended || !part.bytes.is_empty(), "it printed `{text}`");
        text.push_str(std::str::from_utf8(&part.bytes).unwrap());
        next = part.next;
    }
    text
}

/// Numbers of processes, a word each.
pub(crate) fn pids(text: &str) -> Vec<i32> {
    text.split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect()
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Waits until a process that is no child of this one has ended.
pub(crate) fn wait_for_end(pid: i32) {
    if let Ok(process) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
        let minute = rustix::event::Timespec::try_from(MINUTE).unwrap();
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&minute)).unwrap();
    }
    assert!(!is_alive(pid));
}
