//! A program on the public API that works until it is killed, and notes what it was told.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use jobsled::{
    Backoff, Cancel, Changed, Context, Engine, JobDefaults, JobId, JobResult, OnCrash, Pool, Queue,
    Request, What, job, rkyv,
};

use crate::notes::{Notes, sort};
use crate::random::Random;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Work {
    number: u64,
    sort: u64,
    ballast: Vec<u8>,
}
job!(
    Work,
    kind = "kill-work",
    output = u64,
    defaults = JobDefaults::new().backoff(Backoff::fixed(Duration::from_millis(3)))
);

const PRODUCERS: u64 = 4;
/// What a producer asks for in one life at most, so that a store can be drained.
const CALLS_MAX: u64 = 250;
const LARGE_BYTES: usize = 40_000;
/// What the last life has for all that is left.
const DRAIN: Duration = Duration::from_mins(1);

/// `STORE NOTES SEED LIFE`; life 0 is the last one.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let [store, notes, seed, life] = arguments else {
        return ExitCode::from(2);
    };
    let (seed, life): (u64, u64) = (seed.parse().unwrap(), life.parse().unwrap());
    let before = std::fs::read_to_string(notes).unwrap_or_default();
    let notes = Notes::open(Path::new(notes));
    let handler = notes.clone();
    let builder = Engine::builder(store)
        .pool(Pool::threads("default", 4))
        .queue(Queue::new("default").keep_finished(usize::MAX))
        .queue(Queue::new("second").weight(3).keep_finished(usize::MAX))
        .disk_floor(0)
        .handle(move |job: Work, cx: &Context| work(&job, cx, &handler));
    let events = builder.subscribe(1 << 20);
    let engine = match builder.open() {
        Ok(engine) => engine,
        Err(error) => {
            eprintln!("not opened: {error}");
            return ExitCode::from(3);
        }
    };
    println!("open");
    let told = notes.clone();
    std::thread::spawn(move || {
        while let Some(event) = events.recv() {
            if event.what == What::Completed {
                told.add(&format!("C {}\n", event.id));
            }
        }
    });
    if life == 0 {
        return drain(&engine, &notes);
    }
    let (closing, noting) = (engine.clone(), notes.clone());
    // Whoever started this closes the pipe: the orderly end.
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let ended = closing.shutdown(Duration::from_millis(50));
        if let Err(error) = ended {
            noting.add(&format!("stuck: {error}\n"));
        }
        std::process::exit(0);
    });
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let again = if producer == 0 {
                unanswered(&before)
            } else {
                BTreeSet::new()
            };
            let producer = Producer {
                engine: &engine,
                notes: &notes,
                random: Random::new(seed ^ (life << 32) ^ (producer << 16)),
                next: life * 1_000_000 + producer * 100_000,
                mine: Vec::new(),
            };
            scope.spawn(move || producer.run(again));
        }
    });
    std::thread::park_timeout(Duration::from_secs(5));
    ExitCode::SUCCESS
}

/// What the handler of every job does.
fn work(job: &Work, cx: &Context, notes: &Notes) -> JobResult<u64> {
    let (id, claim, attempt) = (cx.id(), cx.claim(), cx.attempt().number);
    let (number, sort) = (job.number, job.sort);
    notes.add(&format!("S {id} {claim} {attempt} {number} {sort}\n"));
    if job
        .ballast
        .iter()
        .any(|byte| u64::from(*byte) != number % 251)
    {
        notes.add(&format!("D {id}\n"));
    }
    if sort == sort::KILLER {
        // As the kernel does it when memory runs out.
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        std::process::abort();
    }
    if number.is_multiple_of(7) {
        cx.pause(Duration::from_millis(number % 20)).ok();
    }
    notes.add(&format!("F {id} {claim}\n"));
    if sort == sort::FAILS && attempt == 1 {
        return Err("fails once".into());
    }
    Ok(number)
}

/// Numbers with a key that were asked for and never answered: they are asked for again.
fn unanswered(notes: &str) -> BTreeSet<u64> {
    let mut open = BTreeSet::new();
    for line in notes.lines() {
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default();
        let Some(number) = words.next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        if what == "a" && has_key(number) {
            open.insert(number);
        } else if what == "A" {
            open.remove(&number);
        }
    }
    open
}

fn has_key(number: u64) -> bool {
    number.is_multiple_of(3)
}

/// One thread of those that ask for things.
struct Producer<'e> {
    engine: &'e Engine,
    notes: &'e Notes,
    random: Random,
    next: u64,
    /// Its own jobs, which nobody else changes.
    mine: Vec<JobId>,
}

impl Producer<'_> {
    /// Until the engine is closed.
    fn run(mut self, again: BTreeSet<u64>) {
        for number in again {
            if self.single(number).is_err() {
                return;
            }
        }
        for _ in 0..CALLS_MAX {
            let done = match self.random.below(20) {
                0..2 => self.batch(),
                2..4 => self.cancel(),
                4..6 => self.set_priority(),
                6 => self.wait(),
                _ => {
                    self.next += 1;
                    self.single(self.next)
                }
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// What a job is like depends on its number alone, so that it can be asked for again.
    fn request(&self, number: u64) -> Request<'_, u64> {
        let mut random = Random::new(number);
        let sort = match random.below(400) {
            0 => sort::KILLER,
            1..40 => sort::FAILS,
            40..80 => sort::ONCE,
            80..95 => sort::LARGE,
            95..140 => sort::SUSPECT,
            _ => sort::PLAIN,
        };
        let len = if sort == sort::LARGE {
            LARGE_BYTES
        } else {
            random.index(600)
        };
        let ballast = vec![u8::try_from(number % 251).unwrap(); len];
        let mut request = self.engine.job(Work {
            number,
            sort,
            ballast,
        });
        request = match sort {
            sort::ONCE => request.on_crash(OnCrash::Dead).attempts(1),
            sort::KILLER | sort::SUSPECT => request,
            _ => request.on_crash(OnCrash::Rerun),
        };
        if has_key(number) {
            request = request.key(format!("k{number}"));
        }
        if random.one_in(4) {
            request = request.priority(i32::try_from(random.below(5)).unwrap());
        }
        if random.one_in(4) {
            request = request.queue("second");
        }
        if random.one_in(6) {
            request = request.after(Duration::from_millis(random.below(200)));
        }
        request
    }

    fn single(&mut self, number: u64) -> jobsled::Result<()> {
        self.notes.add(&format!("a {number}\n"));
        let id = self.request(number).enqueue()?.handle().id();
        self.notes.add(&format!("A {number} {id}\n"));
        self.mine.push(id);
        Ok(())
    }

    fn batch(&mut self) -> jobsled::Result<()> {
        // With keys, so that they are known in the end.
        let first = (self.next + 1).next_multiple_of(3);
        let numbers: Vec<u64> = (0..self.random.between(2, 12))
            .map(|n| first + 3 * n)
            .collect();
        self.next = *numbers.last().unwrap();
        let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
        self.notes.add(&format!("B {}\n", words.join(" ")));
        let mut batch = self.engine.batch();
        for number in &numbers {
            batch.add_request(self.request(*number));
        }
        let ids = batch.enqueue()?;
        let lines = numbers
            .iter()
            .zip(&ids)
            .map(|(number, (id, _))| format!("A {number} {id}\n"));
        self.notes.add(&lines.collect::<String>());
        self.mine.extend(ids.iter().map(|(id, _)| *id));
        Ok(())
    }

    /// One of the newest: those that may still wait.
    fn one(&mut self) -> Option<JobId> {
        let newest = self.mine.len().min(6);
        (newest > 0).then(|| self.mine[self.mine.len() - 1 - self.random.index(newest)])
    }

    fn cancel(&mut self) -> jobsled::Result<()> {
        let Some(id) = self.one() else { return Ok(()) };
        self.notes.add(&format!("x {id}\n"));
        if self.engine.change(id).cancel("not wanted")? == Cancel::Cancelled {
            self.notes.add(&format!("X {id}\n"));
        }
        Ok(())
    }

    fn set_priority(&mut self) -> jobsled::Result<()> {
        let Some(id) = self.one() else { return Ok(()) };
        let priority = i32::try_from(self.random.between(10, 99)).unwrap();
        self.notes.add(&format!("p {id} {priority}\n"));
        if self.engine.change(id).set_priority(priority)? == Changed::Done {
            self.notes.add(&format!("P {id} {priority}\n"));
        }
        Ok(())
    }

    fn wait(&mut self) -> jobsled::Result<()> {
        let Some(id) = self.one() else { return Ok(()) };
        let Some(handle) = self.engine.handle::<Work>(id)? else {
            self.notes.add(&format!("stuck: job {id} is not there\n"));
            return Ok(());
        };
        let ended = handle.wait_timeout(Duration::from_millis(30))?;
        if let Some(jobsled::Finished::Completed(_)) = ended {
            self.notes.add(&format!("W {id}\n"));
        }
        Ok(())
    }
}

/// Lets everything come to its end and notes how it is found.
fn drain(engine: &Engine, notes: &Notes) -> ExitCode {
    if !engine.wait_until_idle(DRAIN).unwrap() {
        notes.add(&format!("stuck after {DRAIN:?}\n"));
    }
    let found = crate::found(engine).unwrap();
    engine.shutdown(Duration::from_secs(5)).unwrap();
    // After the events, whose thread ends with the engine.
    notes.add(&found);
    println!("drained");
    ExitCode::SUCCESS
}
