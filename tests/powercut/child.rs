//! The processes of the laboratory: this program again, doing one life on one directory.
//!
//! A process of its own, because sled panics in threads of its own on some damage (and may then hang),
//! and because a recorded life must be all that its process does.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jobsled::lab::journal::{self as lab, Group, Mark, Plan};

use crate::recorder::{self, Recording};

/// The first argument of such a process.
pub(crate) const ARGUMENT: &str = "--life";
/// A life that takes longer hangs, and is ended by a signal. The longest takes some seconds.
const SECONDS_MAX: u32 = 60;

/// What a process is to do.
#[derive(Clone, Debug)]
pub(crate) struct Task<'a> {
    pub(crate) plan: &'a Plan,
    /// Holds the store, and is all that is recorded.
    pub(crate) root: &'a Path,
    pub(crate) stage: Stage,
    /// Where the log goes.
    pub(crate) log: Option<&'a Path>,
    /// Sabotage, see [`Recording`].
    pub(crate) forget_data_syncs: bool,
}

/// Which part of a store's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    First,
    /// After a power cut; then so many groups.
    Revived {
        groups: u32,
    },
}

/// What a process told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) marks: Vec<Mark>,
    /// Why it ended early.
    pub(crate) failure: Option<Failure>,
}

/// A life that ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Open,
    Content,
    Write,
    /// It panicked, crashed or hung.
    Died,
}

/// Runs a life in a process of its own and waits for its end.
pub(crate) fn run(task: &Task<'_>) -> Told {
    let marks = beside(task.root, "marks");
    let log = task.log.map_or("", |path| path.to_str().unwrap());
    let groups = match task.stage {
        Stage::First => String::new(),
        Stage::Revived { groups } => groups.to_string(),
    };
    let output = Command::new(std::env::current_exe().unwrap())
        .arg(ARGUMENT)
        .args([task.root, marks.as_path()])
        .args([
            log,
            if task.forget_data_syncs { "forget" } else { "" },
            &groups,
        ])
        .arg(plan_to_text(task.plan))
        .stdin(Stdio::null())
        .output()
        .expect("this very program can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    let failure = (!output.status.success()).then(|| {
        let (kind, text) = match said.split_once(' ') {
            Some(("open", text)) => (FailureKind::Open, text.to_owned()),
            Some(("content", text)) => (FailureKind::Content, text.to_owned()),
            Some(("write", text)) => (FailureKind::Write, text.to_owned()),
            _ => {
                let errors = String::from_utf8_lossy(&output.stderr);
                (FailureKind::Died, format!("{}: {errors}", output.status))
            }
        };
        Failure { kind, text }
    });
    Told {
        marks: marks_of(&fs::read_to_string(&marks).unwrap_or_default()),
        failure,
    }
}

/// A file beside a life's directory, so that it is not recorded.
pub(crate) fn beside(root: &Path, name: &str) -> PathBuf {
    root.with_extension(name)
}

/// The body of such a process. Returns its exit code.
pub(crate) fn main(arguments: &[String]) -> i32 {
    let [root, marks, log, forget, groups, plan] = arguments else {
        panic!("a life's arguments: {arguments:?}");
    };
    end_when_hung();
    let (root, plan) = (Path::new(root), plan_from_text(plan));
    let mut told = File::create(marks).expect("the marks can be written");
    if !log.is_empty() {
        recorder::start(&Recording {
            root,
            marks: Path::new(marks),
            log: Path::new(log),
            forget_data_syncs: !forget.is_empty(),
        });
    }
    let mut tell = |mark: Mark| {
        // One write call: one record.
        told.write_all(mark_to_text(mark).as_bytes())
            .expect("the marks can be written");
    };
    let store = root.join("store");
    let result = match groups.parse() {
        Ok(groups) => lab::revive(&store, &plan, groups, &mut tell),
        Err(_) => lab::live(&store, &plan, &mut tell),
    };
    let Err(failure) = result else { return 0 };
    let kind = match failure {
        lab::Failure::Open(_) => "open",
        lab::Failure::Content(_) => "content",
        lab::Failure::Write(_) => "write",
    };
    println!("{kind} {failure}");
    1
}

#[expect(unsafe_code, reason = "the C library has no safe wrapper for alarm")]
fn end_when_hung() {
    // SAFETY: only arms a timer; nothing handles its signal, which ends the process.
    unsafe { libc::alarm(SECONDS_MAX) };
}

fn plan_to_text(plan: &Plan) -> String {
    let numbers = [
        plan.seed,
        plan.segment_bytes.into(),
        plan.entry_cap.into(),
        plan.sync_budget.into(),
        plan.groups.into(),
        plan.entries.0.into(),
        plan.entries.1.into(),
        plan.window.0.into(),
        plan.window.1.into(),
        plan.reopen_every.unwrap_or(0).into(),
        plan.pins.into(),
        plan.carries.into(),
    ];
    numbers.map(|number| number.to_string()).join(",")
}

fn plan_from_text(text: &str) -> Plan {
    let numbers: Vec<u64> = text
        .split(',')
        .map(|number| number.parse().unwrap())
        .collect();
    let at = |n: usize| u32::try_from(numbers[n]).unwrap();
    Plan {
        seed: numbers[0],
        segment_bytes: at(1),
        entry_cap: at(2),
        sync_budget: at(3),
        groups: at(4),
        entries: (at(5), at(6)),
        window: (at(7), at(8)),
        reopen_every: (at(9) > 0).then(|| at(9)),
        pins: at(10) > 0,
        carries: at(11) > 0,
    }
}

fn mark_to_text(mark: Mark) -> String {
    let (word, group) = match mark {
        Mark::NoStore => return "none\n".to_owned(),
        Mark::Unfinished(entries) => return format!("unfinished {entries}\n"),
        Mark::Found(group) => ("found", group),
        Mark::Begun(group) => ("begun", group),
        Mark::Acked(group) => ("acked", group),
    };
    let mut text = format!("{word} {} ", group.number);
    for byte in group.hash {
        write!(text, "{byte:02x}").expect("a string takes anything");
    }
    text.push('\n');
    text
}

/// The marks of some lines. An incomplete last line is left out.
pub(crate) fn marks_of(lines: &str) -> Vec<Mark> {
    lines
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(mark_from_text)
        .collect()
}

fn mark_from_text(line: &str) -> Mark {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (word, number, hash) = match words[..] {
        ["none"] => return Mark::NoStore,
        ["unfinished", entries] => return Mark::Unfinished(entries.parse().unwrap()),
        [word, number, hash] => (word, number, hash),
        _ => panic!("a mark `{line}`"),
    };
    let mut group = Group {
        number: number.parse().unwrap(),
        hash: [0; 32],
    };
    for (byte, at) in group.hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hash[at..at + 2], 16).unwrap();
    }
    match word {
        "found" => Mark::Found(group),
        "begun" => Mark::Begun(group),
        "acked" => Mark::Acked(group),
        other => panic!("a mark `{other}`"),
    }
}
