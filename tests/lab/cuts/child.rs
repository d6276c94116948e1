//! The processes of the check: one that is recorded while it lives, one that opens what a cut has left.
//!
//! Processes of their own, because sled panics in threads of its own on some damage and may then hang. One that
//! opens is used for many images, and replaced when an image was too much for it.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use jobsled::Engine;

use super::life::{self, Gate, SIZES, Shape, open_at_work};
use super::mark::Marks;
use crate::recorder::{self, Recording};

pub(crate) const LIVES: &str = "--cut-life";
pub(crate) const OPENS: &str = "--cut-open";

/// An image that takes longer hangs. The longest takes some seconds when the machine is busy.
const LONGEST: Duration = Duration::from_mins(1);
/// Takes the place of the machine's boot id: after a power cut it is another boot.
const BOOT_ID: &str = "JOBSLED_LAB_BOOT_ID";
/// How long nothing may be left that could run.
const QUIET_WITHIN: Duration = Duration::from_secs(30);

/// What is done with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is made, and used for the whole of a life.
    First,
    /// It is opened after a cut, looked at and closed, with a few new jobs.
    Opened,
    /// And then everything is worked off, and it is opened again.
    WorkedOff,
    /// It is opened and used until something fails.
    Endless,
}

/// A task for a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task<'a> {
    /// Holds the store, and is all that is recorded.
    pub(super) root: &'a Path,
    /// Where it says what it is told.
    pub(super) marks: &'a Path,
    /// Where it is recorded, if it is.
    pub(super) log: Option<&'a Path>,
    pub(super) seed: u64,
    pub(super) stage: Stage,
}

impl Task<'_> {
    fn to_line(self) -> String {
        let log = self.log.map_or("", |log| log.to_str().unwrap());
        let (root, marks) = (self.root.to_str().unwrap(), self.marks.to_str().unwrap());
        let stage = match self.stage {
            Stage::First => "first",
            Stage::Opened => "opened",
            Stage::WorkedOff => "worked-off",
            Stage::Endless => "endless",
        };
        format!("{root}\t{marks}\t{log}\t{}\t{stage}", self.seed)
    }

    fn carry_out(line: &str) -> Result<(), String> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [root, marks, log, seed, stage] = fields[..] else {
            panic!("a task `{line}`");
        };
        let said = Arc::new(Marks::create(Path::new(marks)));
        if !log.is_empty() {
            recorder::start(&Recording {
                root: Path::new(root),
                marks: Path::new(marks),
                log: Path::new(log),
                forget_data_syncs: false,
            });
        }
        let (store, seed) = (Path::new(root).join("store"), seed.parse().unwrap());
        let done = match stage {
            "first" => life::live(&store, seed, &said),
            "endless" => endless(&store, seed, &said),
            "opened" => look(&store, seed, &said),
            // Most go to work at once, which is quicker; a job may then be on its way to a handler when all is told.
            _ if seed % 3 > 0 => work_off(&store, seed, &said),
            _ => look(&store, seed, &said).and_then(|()| work_off(&store, seed, &said)),
        };
        done.map_err(|error| format!("{error}: {error:?}"))
    }
}

/// Opens it, and says all that is there. Hands in some jobs more.
fn look(store: &Path, seed: u64, marks: &Marks) -> Result<(), jobsled::Error> {
    let engine = life::builder(store).open()?;
    marks.say("opened");
    marks.say_all(&engine)?;
    keys_are_taken(&engine)?;
    life::hand_in_more(&engine, seed, marks)?;
    engine.shutdown(QUIET_WITHIN)?;
    Ok(())
}

/// The keys of jobs that are there belong to them.
fn keys_are_taken(engine: &Engine) -> Result<(), jobsled::Error> {
    let jobs = engine.jobs().kind("work").list()?;
    for job in jobs.iter().filter(|job| job.key.is_some()).take(2) {
        let again = engine.job(super::work::Work::new(0, 0));
        let placed = again.key(job.key.as_deref().unwrap()).enqueue()?;
        let found = (placed.is_new(), placed.handle().id());
        assert_eq!(found, (false, job.id), "a key was given away twice");
    }
    Ok(())
}

/// Everything that could run runs; then it is opened once more.
fn work_off(store: &Path, seed: u64, marks: &Arc<Marks>) -> Result<(), jobsled::Error> {
    let gate = Arc::new(Gate::default());
    let engine = open_at_work(store, marks, &gate)?;
    marks.say("opened");
    marks.say_all(&engine)?;
    keys_are_taken(&engine)?;
    if seed % 3 == 1 {
        life::hand_in_more(&engine, seed, marks)?;
    }
    gate.open();
    for queue in engine.stats()?.queues.iter().filter(|queue| queue.paused) {
        marks.say(&format!("resume {}", queue.name));
        engine.queue(&queue.name).resume()?;
        marks.say(&format!("resumed {}", queue.name));
    }
    let now_ms = life::now_ms();
    let is_quiet = engine.wait_until_quiet(QUIET_WITHIN)?;
    assert!(is_quiet, "there is always something left that could run");
    // What becomes due meanwhile would begin between the look and its telling.
    engine.drain(QUIET_WITHIN)?;
    marks.say_all(&engine)?;
    marks.say(&format!("quiet {now_ms}"));
    engine.shutdown(QUIET_WITHIN)?;
    if seed.is_multiple_of(4) {
        let engine = life::builder(store).open()?;
        marks.say_all(&engine)?;
        engine.shutdown(QUIET_WITHIN)?;
    }
    Ok(())
}

/// Opens it, says all that is there, and works until something fails.
fn endless(store: &Path, seed: u64, marks: &Arc<Marks>) -> Result<(), jobsled::Error> {
    let gate = Arc::new(Gate::default());
    let engine = open_at_work(store, marks, &gate)?;
    marks.say("opened");
    marks.say_all(&engine)?;
    gate.open();
    println!("open");
    life::work_for_ever(&engine, seed, marks)
}

/// Carries out tasks, a line each, and says how each went.
pub(crate) fn opens(_: &[String]) -> ExitCode {
    for line in std::io::stdin().lines() {
        match Task::carry_out(&line.unwrap()) {
            Ok(()) => println!("well"),
            Err(why) => println!("failed {}", why.replace('\n', " ")),
        }
    }
    ExitCode::SUCCESS
}

/// Carries out one task.
pub(crate) fn lives(arguments: &[String]) -> ExitCode {
    end_when_hung();
    match Task::carry_out(&arguments[0]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

#[expect(unsafe_code, reason = "the C library has no safe wrapper for alarm")]
fn end_when_hung() {
    // SAFETY: only arms a timer; nothing handles its signal, which ends the process.
    unsafe { libc::alarm(60) };
}

/// This program again, as a process of this check and of a boot of its own.
fn again(which: &str, place: &Path, name: &str) -> Command {
    let boot = place.join(format!("{name}.boot"));
    let mut random = crate::random::Random::new(boot.as_os_str().len() as u64);
    let digits = format!("{:016x}{:016x}", random.next(), unique());
    fs::write(&boot, digits).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(which).env(BOOT_ID, boot).stdin(Stdio::null());
    command
}

/// Another number each time.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Carries a task out in a process for it alone.
pub(super) fn run_alone(task: &Task<'_>, place: &Path) -> Result<(), String> {
    let status = start_alone(task, place).wait().unwrap();
    if status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(place.join(ERRORS_ALONE)).unwrap_or_default();
    Err(format!("{status}: {}", said.trim()))
}

/// Where a process that is alone says what is wrong.
pub(super) const ERRORS_ALONE: &str = "alone.err";

/// Begins to carry a task out in a process for it alone.
pub(super) fn start_alone(task: &Task<'_>, place: &Path) -> Child {
    // One that lives for ever meets the payloads of all shapes, and what is carried of them has to fit an entry.
    let sizes = match task.stage {
        Stage::Endless => life::MIDDLE,
        _ => Shape::of(task.seed).sizes(task.seed),
    };
    let errors = fs::File::create(place.join(ERRORS_ALONE)).unwrap();
    let mut command = again(LIVES, place, "alone");
    command.env(SIZES, sizes).arg(task.to_line());
    let child = command.stdout(Stdio::piped()).stderr(errors).spawn();
    child.expect("this very program can be run")
}

/// A process that opens what cuts have left, one image after the other.
#[derive(Debug)]
pub(super) struct Opener {
    place: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    asks: ChildStdin,
    answers: Receiver<String>,
}

impl Opener {
    pub(super) fn new(place: &Path) -> Opener {
        Opener {
            place: place.to_owned(),
            running: None,
        }
    }

    pub(super) fn run(&mut self, task: &Task<'_>) -> Result<(), String> {
        let running = self
            .running
            .get_or_insert_with(|| Running::start(&self.place));
        let line = task.to_line() + "\n";
        let asked = running.asks.write_all(line.as_bytes());
        let answer = running.answers.recv_timeout(LONGEST);
        match (asked, answer.as_deref()) {
            (Ok(()), Ok("well")) => Ok(()),
            (_, answer) => {
                let answer = answer.map(str::to_owned);
                Err(self.end(answer.ok()))
            }
        }
    }

    /// Ends the process, which may be damaged by what it saw. Says why.
    fn end(&mut self, answer: Option<String>) -> String {
        let Some(mut running) = self.running.take() else {
            return String::new();
        };
        let ended = running.child.try_wait().ok().flatten();
        let _ = running.child.kill();
        let _ = running.child.wait();
        let said = fs::read_to_string(self.place.join("opener.err")).unwrap_or_default();
        match (answer, ended) {
            (Some(answer), _) => answer,
            (None, Some(status)) => format!("it died ({status}): {}", said.trim()),
            (None, None) => format!("it hung or died: {}", said.trim()),
        }
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl Running {
    fn start(place: &Path) -> Running {
        let errors = fs::File::create(place.join("opener.err")).unwrap();
        let mut child = again(OPENS, place, "opener")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("this very program can be run");
        let (said, answers) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        // Ends with the process's output.
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| said.send(line))
        });
        Running {
            asks: child.stdin.take().unwrap(),
            answers,
            child,
        }
    }
}
