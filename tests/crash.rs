//! `kill -9`, again and again, on one store that is never wiped.
//!
//! The test runs itself as a child that works hard and is killed at a random moment; what the child
//! was told (the acknowledgements) stands in a file outside the store. `JOBSLED_KILLS` sets the number
//! of kills (20 unless set), `JOBSLED_SEED` where the dice begin.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping"
)]
#![expect(clippy::print_stdout, reason = "the counts are the result")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jobsled::{
    Context, DeadReason, Engine, EngineBuilder, JobId, JobResult, Pool, Queue, State, What, job,
    rkyv,
};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Work {
    number: u64,
    ballast: Vec<u8>,
}
job!(Work, kind = "work", output = u64);

const PRODUCERS: u64 = 8;
const CHILD: &str = "JOBSLED_CRASH_CHILD";
const SCENE: &str = "JOBSLED_CRASH_SCENE";

fn main() {
    match (std::env::var(CHILD), std::env::var(SCENE)) {
        (Ok(dir), Ok(_)) => aborting_child(Path::new(&dir)),
        (Ok(dir), Err(_)) => child(Path::new(&dir)),
        _ => {
            kills();
            quarantine();
            println!("test result: ok. 2 passed; 0 failed");
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

/// Lines are appended by single writes, so those of several processes and threads do not mix, and the page
/// cache keeps them when the writer is killed.
fn ledger(dir: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("told"))
        .unwrap()
}

fn builder(dir: &Path, retries: bool) -> EngineBuilder {
    let starts = ledger(dir);
    let handler = move |job: Work, cx: &Context| -> JobResult<u64> {
        let line = format!("S {} {}\n", cx.id(), cx.claim());
        (&starts).write_all(line.as_bytes())?;
        if retries && job.number.is_multiple_of(11) && cx.attempt().number == 1 {
            return Err("fails once".into());
        }
        Ok(job.number + job.ballast.len() as u64)
    };
    Engine::builder(dir.join("store"))
        .pool(Pool::threads("default", 4))
        .queue(Queue::new("default").keep_finished(usize::MAX))
        .handle(handler)
}

/// Works until it is killed. Says a line for every 100 acknowledgements.
fn child(dir: &Path) {
    let engine = builder(dir, true).open().unwrap();
    let told = ledger(dir);
    let events = engine.subscribe(1 << 20);
    println!("open");
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (engine, told) = (&engine, &told);
            scope.spawn(move || produce(producer, engine, told));
        }
        while let Some(event) = events.recv() {
            if event.what == What::Completed {
                (&told)
                    .write_all(format!("C {}\n", event.id).as_bytes())
                    .unwrap();
            }
        }
    });
}

fn produce(producer: u64, engine: &Engine, mut told: &File) {
    for n in 0.. {
        let number = producer * 1_000_000 + n;
        let work = || Work {
            number,
            ballast: vec![1; usize::try_from(n % 700).unwrap()],
        };
        if n % 5 == 4 {
            let mut batch = engine.batch();
            batch.extend((0..10).map(|_| work()));
            let ids = batch.enqueue().unwrap();
            let lines = ids.iter().fold(String::new(), |lines, (id, _)| {
                lines
                    + &format!(
                        "E {id}
"
                    )
            });
            told.write_all(lines.as_bytes()).unwrap();
        } else {
            let id = engine.enqueue(work()).unwrap().id();
            told.write_all(format!("E {id}\n").as_bytes()).unwrap();
        }
        if n.is_multiple_of(20) {
            println!("{n}");
        }
    }
}

fn kills() {
    let kills = number("JOBSLED_KILLS", 20);
    let seed = number("JOBSLED_SEED", 1);
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_owned();
    let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for _ in 0..kills {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        // A few kills come while the store is being opened, the others after some work.
        kill_after(&dir, dice % 40, dice.is_multiple_of(7));
    }
    check(&dir, kills, seed);
}

/// Lets a child work until it has said so many lines, then kills it.
fn kill_after(dir: &Path, lines: u64, while_opening: bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    if !while_opening {
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..=lines {
            said.next()
                .expect("the child works until it is killed")
                .unwrap();
        }
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
}

/// Opens the store a last time, lets everything come to its end, and compares with what was told.
fn check(dir: &Path, kills: u64, seed: u64) {
    let engine = builder(dir, false).open().unwrap();
    assert!(
        engine.wait_until_idle(Duration::from_mins(2)).unwrap(),
        "some job is stuck"
    );
    let states: BTreeMap<JobId, State> = engine
        .jobs()
        .list()
        .unwrap()
        .into_iter()
        .map(|j| (j.id, j.state))
        .collect();
    engine.shutdown(Duration::from_secs(5)).unwrap();

    let (mut acknowledged, mut completed) = (BTreeSet::new(), BTreeSet::new());
    let (mut starts, mut undone): (BTreeMap<JobId, Vec<u64>>, u64) = (BTreeMap::new(), 0);
    for line in BufReader::new(File::open(dir.join("told")).unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let what = words.next().unwrap();
        let id = JobId::from_number(words.next().unwrap().parse().unwrap());
        match what {
            "E" => assert!(acknowledged.insert(id), "id {id} was given twice"),
            "C" => assert!(completed.insert(id), "job {id} was completed twice"),
            _ => {
                undone += u64::from(completed.contains(&id));
                starts
                    .entry(id)
                    .or_default()
                    .push(words.next().unwrap().parse().unwrap());
            }
        }
    }
    let lost = acknowledged
        .iter()
        .filter(|id| !states.contains_key(id))
        .count();
    let unfinished = states
        .values()
        .filter(|state| **state != State::Completed)
        .count();
    let again = starts.values().filter(|claims| claims.len() > 1).count();
    let rising = starts
        .values()
        .all(|claims| claims.is_sorted_by(|a, b| a < b));
    println!(
        "{kills} kills, seed {seed}: {} acknowledged, {lost} lost, {} completions told, {undone} undone, \
         {unfinished} unfinished, {again} started more than once",
        acknowledged.len(),
        completed.len(),
    );
    println!("rerun: JOBSLED_KILLS={kills} JOBSLED_SEED={seed} cargo test --test crash");
    assert!(
        acknowledged.len() as u64 > kills,
        "too little work to mean anything"
    );
    assert_eq!((lost, undone, unfinished), (0, 0, 0));
    assert!(rising, "claim numbers rise");
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Suspect {
    aborts: bool,
}
job!(Suspect, kind = "suspect");

const INNOCENTS: usize = 7;

/// One job aborts its process each time that it runs, seven long ones are in flight beside it: the one is
/// quarantined, none of the seven is, and all seven complete.
fn quarantine() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let engine = Engine::builder(&store).open().unwrap();
    let killer = engine.enqueue(Suspect { aborts: true }).unwrap().id();
    for _ in 0..INNOCENTS {
        engine.enqueue(Suspect { aborts: false }).unwrap();
    }
    engine.shutdown(Duration::ZERO).unwrap();
    let mut crashes = 0;
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let status = child
            .env(CHILD, temp.path())
            .env(SCENE, "abort")
            .stderr(Stdio::null())
            .status();
        if status.unwrap().success() {
            break;
        }
        crashes += 1;
        assert!(crashes <= 3, "it was not found");
    }
    let engine = Engine::builder(&store).open().unwrap();
    for job in engine.jobs().list().unwrap() {
        let expected = if job.id == killer {
            State::Dead
        } else {
            State::Completed
        };
        assert_eq!((job.state, job.failures), (expected, 0), "{job:?}");
    }
    let reason = engine.details(killer).unwrap().unwrap().info.dead_reason;
    assert_eq!((reason, crashes), (Some(DeadReason::Quarantined), 3));
    println!("quarantine: found after {crashes} crashes, {INNOCENTS} innocents completed");
}

fn aborting_child(dir: &Path) {
    let together = std::sync::Barrier::new(1 + INNOCENTS);
    let engine = Engine::builder(dir.join("store"))
        .pool(Pool::threads("default", 1 + INNOCENTS))
        .handle(move |job: Suspect, cx: &Context| {
            let alone = cx.crashes() >= 2;
            if !alone {
                together.wait(); // all eight have begun
            }
            if job.aborts {
                std::process::abort();
            }
            if !alone {
                cx.pause(Duration::from_hours(1))?;
            }
            Ok(())
        })
        .open()
        .unwrap();
    assert!(engine.wait_until_idle(Duration::from_mins(1)).unwrap());
}
