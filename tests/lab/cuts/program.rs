//! A life of the program: `jobsled add`, `work`, `cancel`, `rm`, `pause`, `set`, each a process as a user starts it.
//!
//! Whoever has the store open is recorded by a library that is loaded before all others (`library.rs`). What
//! was heard is what a user hears: the lines that a command prints, and when it ends. It is added to the record by
//! the one who heard it, so that it is there after whatever came before.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread::JoinHandle;

use serde_json::Value;

use super::bench::Logs;
use super::work::Fate;
use crate::built;
use crate::log::Record;
use crate::random::Random;

const PROGRAM: &str = env!("CARGO_BIN_EXE_jobsled");
/// A time that does not come: 2030-01-01, as the program and as the marks have it.
const NOT_SOON: (&str, u64) = ("2030-01-01T00:00:00Z", 1_893_456_000_000);

/// Lives a life below `root`, and gives the record of it.
pub(super) fn live(root: &Path, seed: u64) -> Result<Logs, String> {
    let mut user = User {
        root: root.to_owned(),
        random: Random::new(seed),
        logs: Vec::new(),
        worker: None,
        next: 1,
        ids: Vec::new(),
        sizes: ["", "524288,6144,65536"][Random::new(!seed).index(2)],
    };
    for _ in 0..user.random.between(2, 3) {
        for _ in 0..user.random.between(1, 5) {
            user.call()?;
        }
        user.start_work()?;
        for _ in 0..user.random.between(4, 16) {
            user.call()?;
        }
        user.end_work()?;
    }
    Ok(std::mem::take(&mut user.logs))
}

/// Who starts the program.
#[derive(Debug)]
struct User {
    root: PathBuf,
    random: Random,
    logs: Logs,
    worker: Option<Worker>,
    next: u64,
    ids: Vec<u64>,
    sizes: &'static str,
}

/// `jobsled work`, and who listens to it.
#[derive(Debug)]
struct Worker {
    child: Child,
    log: PathBuf,
    listens: JoinHandle<()>,
}

impl User {
    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .arg("--store")
            .arg(self.root.join("store"))
            .arg("--json")
            .env(super::life::SIZES, self.sizes)
            .stdin(Stdio::null());
        command
    }

    /// The same, recorded.
    fn recorded(&self, log: &Path) -> Command {
        let mut command = self.command();
        command
            .env("LD_PRELOAD", built::recorder().unwrap())
            .env("JOBSLED_LAB_ROOT", &self.root)
            .env("JOBSLED_LAB_LOG", log);
        command
    }

    /// Something was asked for, or heard.
    fn say(&mut self, mark: &str) {
        match &self.worker {
            Some(worker) => add_mark(&worker.log, mark),
            None => self.logs.push(Record::Mark { line: mark }.encode()),
        }
    }

    /// Runs a command to its end: beside the worker, or with the store open itself.
    fn run(&mut self, arguments: &[String]) -> Result<String, String> {
        let log = self.root.with_extension("command.log");
        let mut command = match &self.worker {
            Some(_) => self.command(),
            None => self.recorded(&log),
        };
        let output: Output = command.args(arguments).output().unwrap();
        if self.worker.is_none() {
            self.logs.push(fs::read(&log).unwrap());
        }
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "jobsled {arguments:?}: {}: {}",
                output.status,
                said.trim()
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn call(&mut self) -> Result<(), String> {
        match self.random.below(12) {
            0 | 1 => self.add_many(),
            2 => {
                self.change();
                Ok(())
            }
            3 => self.queue(),
            _ => self.add(),
        }
    }

    /// A number whose job ends by itself.
    fn number(&mut self) -> u64 {
        while Fate::of(self.next) == Fate::Cancels {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }

    fn add(&mut self) -> Result<(), String> {
        let number = self.number();
        let priority = self.random.below(3);
        let mut arguments = words(&format!("add --key n{number} --priority {priority}"));
        let mut due_ms = 0;
        if self.random.one_in(6) {
            arguments.extend(words(&format!("--at {}", NOT_SOON.0)));
            due_ms = NOT_SOON.1;
        }
        arguments.push("--".to_owned());
        arguments.extend(words(&format!("{} n{number}", program(number))));
        self.say(&format!(
            "enqueue {number} default {number}:0:{priority}:{due_ms}"
        ));
        let said = self.run(&arguments)?;
        self.added(number, &said);
        Ok(())
    }

    /// All or nothing.
    fn add_many(&mut self) -> Result<(), String> {
        let call = self.next;
        let file = self.root.with_extension("jsonl");
        let (mut lines, mut said) = (String::new(), format!("enqueue {call} default"));
        for _ in 0..self.random.between(2, 9) {
            let number = self.number();
            let argv = [program(number), &format!("n{number}")];
            let line = serde_json::json!({ "argv": argv, "key": format!("n{number}") });
            writeln!(lines, "{line}").unwrap();
            write!(said, " {number}:0:0:0").unwrap();
        }
        fs::write(&file, lines).unwrap();
        self.say(&said);
        let said = self.run(&["add".into(), "--from".into(), file.to_str().unwrap().into()])?;
        self.added(call, &said);
        Ok(())
    }

    /// A line for each job.
    fn added(&mut self, call: u64, said: &str) {
        let mut mark = format!("enqueued {call}");
        for line in said.lines() {
            let placed: Value = serde_json::from_str(line).unwrap();
            let id = placed["id"].as_u64().unwrap();
            write!(mark, " {id}:{}", placed["new"]).unwrap();
            self.ids.push(id);
        }
        self.say(&mark);
    }

    /// What came of it is not looked at: it may have run meanwhile.
    fn change(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let id = *self.random.pick(&self.ids);
        let (word, command) = *self.random.pick(&[("cancel", "cancel"), ("delete", "rm")]);
        self.say(&format!("{word} {id}"));
        // One that has ended, runs or is gone is refused.
        let _ = self.run(&words(&format!("{command} {id}")));
    }

    fn queue(&mut self) -> Result<(), String> {
        for word in ["pause", "resume"] {
            self.say(&format!("{word} default"));
            self.run(&words(&format!("{word} default")))?;
            self.say(&format!("{word}d default"));
        }
        Ok(())
    }

    fn start_work(&mut self) -> Result<(), String> {
        self.say("unwatched");
        let log = self.root.with_extension("work.log");
        let mut command = self.recorded(&log);
        command
            .args(["work", "--workers", "2"])
            .stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if lines.next().is_none() {
            let ended = child.wait_with_output().unwrap();
            return Err(format!(
                "jobsled work: {}",
                String::from_utf8_lossy(&ended.stderr)
            ));
        }
        let to = log.clone();
        let listens = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard(&line, &to);
            }
        });
        self.worker = Some(Worker {
            child,
            log,
            listens,
        });
        Ok(())
    }

    /// As a user ends it: what runs is finished.
    fn end_work(&mut self) -> Result<(), String> {
        let Some(mut worker) = self.worker.take() else {
            return Ok(());
        };
        let pid = rustix::process::Pid::from_child(&worker.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = worker.child.wait().unwrap();
        worker.listens.join().unwrap();
        self.logs.push(fs::read(&worker.log).unwrap());
        if status.success() {
            Ok(())
        } else {
            Err(format!("jobsled work: {status}"))
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(worker) = &mut self.worker {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}

/// News of the worker's that promise something.
fn heard(line: &str, log: &Path) {
    let news: Value = serde_json::from_str(line).unwrap();
    let state = match news["event"].as_str() {
        Some("completed") => "completed",
        Some("died") => "dead",
        Some("cancelled") => "cancelled",
        _ => return,
    };
    add_mark(log, &format!("end {} {state}", news["id"]));
}

/// One write, so that it stands between two records of the process.
fn add_mark(log: &Path, mark: &str) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap();
    let mut log: File = OpenOptions::new().append(true).open(log).unwrap();
    log.write_all(&Record::Mark { line: mark }.encode())
        .unwrap();
}

/// What a job runs: it ends as its number says.
fn program(number: u64) -> &'static str {
    match Fate::of(number) {
        Fate::Fails | Fate::Discards => "false",
        _ => "true",
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
