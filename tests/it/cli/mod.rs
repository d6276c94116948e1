//! The program `jobsled` from a shell: what it prints, how it exits, and what it leaves.

/// Wrong command lines, stores and files.
mod bad;
/// What it measures of itself.
mod bench;
/// Each command beside a worker and without one.
mod commands;
/// What `--json` prints, to the letter.
mod json;
/// Many jobs, many shells, a worker that is killed.
mod storms;
/// What people see who sit at a terminal.
mod terminal;
/// A store as a whole: out, in, copied, checked.
mod transfer;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

/// A directory with a store in it, and the program to look after it.
struct Cli {
    dir: tempfile::TempDir,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
struct Ran {
    status: ExitStatus,
    out: String,
    err: String,
}

impl Ran {
    fn code(&self) -> i32 {
        self.status.code().unwrap()
    }

    /// One JSON object a line.
    fn json(&self) -> Vec<Value> {
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Cli {
    fn new() -> Cli {
        Cli {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The program with these words, separated by spaces.
    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobsled"));
        command
            .args(words.split_whitespace())
            .current_dir(self.dir.path())
            .env("JOBSLED_STORE", self.store())
            .env_remove("RUST_LOG")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &str) -> Ran {
        finish(self.command(words))
    }

    /// Runs it and expects it to end well; what it printed.
    fn ok(&self, words: &str) -> String {
        let ran = self.run(words);
        assert!(ran.status.success(), "{words}: {ran:?}");
        ran.out
    }

    /// Adds a script for `sh`; its id.
    fn add(&self, options: &str, script: &str) -> u64 {
        let mut command = self.command(&format!("add {options} -- sh -c"));
        command.arg(script);
        let ran = finish(command);
        assert!(ran.status.success(), "{script}: {ran:?}");
        ran.out.trim().parse().unwrap()
    }

    /// Runs all that there is.
    fn drain(&self) -> Ran {
        self.run("work --drain")
    }

    /// A worker in the background. It serves the store once this returns.
    fn work(&self, options: &str) -> Worker {
        let log = File::create(self.path("work.log")).unwrap();
        let mut command = self.command(&format!("work {options}"));
        command.stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let mut worker = Worker {
            child,
            log: self.path("work.log"),
        };
        // Any answer from it says that it is there.
        loop {
            let ended = worker.child.try_wait().unwrap();
            assert_eq!(ended, None, "{:?}", lines(&worker.log));
            let stats = self.run("stats --json").json();
            if stats
                .first()
                .is_some_and(|stats| stats["pid"] == worker.child.id())
            {
                return worker;
            }
        }
    }

    fn jobs(&self) -> Vec<Value> {
        self.run("ls --json").json()
    }

    fn state(&self, id: u64) -> String {
        let ran = self.run(&format!("show --json {id}"));
        let job = ran.json().swap_remove(0);
        job.get("state").and_then(Value::as_str).unwrap().to_owned()
    }
}

fn finish(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        status: output.status,
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command with this on its standard input.
fn with_input(mut command: Command, input: &[u8]) -> Ran {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it has read all.
    child.stdin.take().unwrap().write_all(input).ok();
    let output = child.wait_with_output().unwrap();
    Ran {
        status: output.status,
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running `work`.
struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Ends it in good order.
    fn stop(mut self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().unwrap();
        let log = std::fs::read_to_string(&self.log).unwrap();
        assert!(status.success(), "{status}: {log}");
        log
    }

    /// Ends it in no order at all.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
