//! `damage`: files of a store that were changed behind its back, and what the engine makes of it.
//!
//! A store of the real engine, closed, killed at some point, while it compacts or while its journal has two
//! names, in three sizes, is copied; one or two of its files are damaged (`mutate.rs`); then it is opened. It must
//! be one of three:
//!
//! - everything is there, exactly as it was before the damage;
//! - what is damaged is told, and the rest is there: a payload file that is bad is an error of that job, and of
//!   no other;
//! - a typed refusal, and the files are as they were, byte for byte.
//!
//! After a refusal (and now and then after an opening) the store is repaired into a new one. The damaged one must
//! not change; what is made must verify; every job that the report does not list must be exactly as it was; every
//! job that is not there must be listed; nothing may be there that never was; what must not run twice and may
//! have run must not run.
//!
//! A refusal is typed; a panic that escapes, an answer that takes more than 15 seconds and a process that needs
//! more than 3 GiB of addresses fail. What is known of a store is what the public API says of a copy of it before
//! it is damaged, and what the process that made it noted outside of it.
//!
//! What nobody could notice is not tried: the newest groups *and* what the witness knows of them, or all that is
//! left of a journal. So of two kinds of damage at once at most one hits the log or a snapshot while the other
//! spares the witness.
//!
//! The stores are made anew in every run, so a seed damages another store of the same sort in the same way: what
//! fails is kept, and its place is told.

mod entries;
mod judge;
mod known;
mod make;
mod mutate;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::check::{Check, Log, Order};

pub(crate) use make::main as make_main;

/// The first arguments of this check's processes.
pub(crate) const MAKE: &str = "damage-make";
pub(crate) const JUDGE: &str = "damage-judge";

/// Longer than any sound store takes, by far.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// After so many stores a process is replaced: sled leaves threads behind where it hangs.
const STORES_EACH: u32 = 400;
/// Bytes of addresses that a process may have.
const ADDRESSES_MAX: u64 = 3 << 30;

pub(crate) const CHECK: Check = Check {
    name: "damage",
    unit: "damaged stores",
    little: 40,
    ci: 5_000,
    goal: 100_000,
    signs: &[
        ("refused", 200),
        ("repaired", 200),
        ("all there", 50),
        ("a payload told", 50),
        ("jobs saved", 10_000),
    ],
    run,
};

fn run(order: &Order, log: &Log) {
    let root = work_dir();
    make::pristine(root.path());
    let idle: Mutex<Vec<Judge>> = Mutex::new(Vec::new());
    order.each_seed(log, |seed, log| {
        let idle_one = idle.lock().unwrap().pop();
        let mut judge = idle_one.unwrap_or_else(|| Judge::start(root.path()));
        let answer = judge.ask(seed, order.one);
        let judged = answer.and_then(|answer| tally(&answer, log, order.one));
        if judged.is_err() {
            judge.keep(seed);
        }
        judge.asked += 1;
        if judged.is_ok() && judge.asked < STORES_EACH {
            idle.lock().unwrap().push(judge);
        }
        judged
    });
}

/// On a file system in memory where there is one: the disk has no part in this.
fn work_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let usual = std::env::temp_dir();
    let place = if memory.is_dir() { memory } else { &usual };
    let mut name = tempfile::Builder::new();
    name.prefix("jobsled-damage-").tempdir_in(place).unwrap()
}

/// Counts what a process answered: `ok`, and words with numbers; or what is wrong.
fn tally(answer: &str, log: &Log, tells: bool) -> Result<(), String> {
    let Some(counts) = answer.strip_prefix("ok ") else {
        return Err(answer.to_owned());
    };
    if tells {
        println!("{counts}");
    }
    for count in counts.split('\t') {
        let told = count.split_once('=');
        let known = told.and_then(|(what, _)| judge::NOTES.iter().find(|note| **note == what));
        if let Some((note, (_, n))) = known.zip(told) {
            log.note(note, n.parse().unwrap_or(0));
        }
    }
    Ok(())
}

/// A process that judges one store after the other.
struct Judge {
    child: Child,
    to: ChildStdin,
    answers: Receiver<String>,
    dir: PathBuf,
    asked: u32,
}

impl Judge {
    fn start(root: &Path) -> Judge {
        let dir = tempfile::tempdir_in(root).unwrap().keep();
        let stderr = std::fs::File::create(dir.join("stderr")).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([Path::new(JUDGE), root, &dir])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let (to, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Judge {
            child,
            to,
            answers,
            dir,
            asked: 0,
        }
    }

    fn ask(&mut self, seed: u64, tells: bool) -> Result<String, String> {
        let asked = writeln!(self.to, "{seed}").and_then(|()| self.to.flush());
        asked.map_err(|e| format!("the process is gone: {e}"))?;
        let answer = self.answers.recv_timeout(ANSWER_WITHIN);
        if tells {
            let path = self.dir.join("stderr");
            println!("{}", std::fs::read_to_string(path).unwrap_or_default());
        }
        answer.map_err(|_| {
            let ended = self.child.try_wait().ok().flatten();
            ended.map_or_else(
                || format!("no answer within {} s", ANSWER_WITHIN.as_secs()),
                |status| format!("the process ended: {status}"),
            )
        })
    }

    /// What it had before it stays for people to look at.
    fn keep(&self, seed: u64) {
        let kept = std::env::temp_dir().join(format!("jobsled-damage-{seed}"));
        std::fs::remove_dir_all(&kept).ok();
        match judge::copy_tree(&self.dir, &kept) {
            Ok(()) => println!("kept in {}", kept.display()),
            Err(e) => println!("could not be kept in {}: {e}", kept.display()),
        }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// The process that judges: seeds in, answers out.
pub(crate) fn judge_main(arguments: &[String]) -> ExitCode {
    let [root, dir] = arguments else {
        return ExitCode::FAILURE;
    };
    let limit = rustix::process::Rlimit {
        current: Some(ADDRESSES_MAX),
        maximum: Some(ADDRESSES_MAX),
    };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    let stores = known::load(Path::new(root));
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let seed = line.parse().unwrap();
        let judged = crate::check::caught(|| judge::judge(seed, &stores, Path::new(dir)));
        match judged {
            Ok(counts) => println!("ok {counts}"),
            Err(why) => println!("bad {}", why.replace('\n', " ")),
        }
    }
    ExitCode::SUCCESS
}
