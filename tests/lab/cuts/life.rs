//! A life of the whole engine, through its public face: producers, handlers, changes from outside, closings and
//! openings. It says what it asks for and what it is told (`Marks`), and is recorded.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jobsled::{Context, Engine, EngineBuilder, Error, JobId, Pool, Request, What};

use super::mark::{Marks, cancel_word, changed_word, delete_word};
use super::work::{Fate, Work};
use crate::random::Random;

/// How long an end may take: nothing in these lives lasts.
const GRACE: Duration = Duration::from_secs(20);
/// Numbers and calls of one producer are apart from those of another.
const PER_PRODUCER: u64 = 1_000_000;

/// From here on a life is of hardly anything but batches, none of them small.
const LARGE_BATCH: u64 = 100;
/// Tells a process the sizes of the stores that it makes.
pub(super) const SIZES: &str = "JOBSLED_SIZES";

/// What a life looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    producers: u64,
    openings: u64,
    /// Calls of each producer in each opening.
    calls: u64,
    /// Longest payload that has no file of its own.
    inline_max: u64,
    /// One in so many payloads has a file of its own; 0 is none.
    files_one_in: u64,
    batch_max: u64,
    /// Everything is worked off and pruned before it is closed.
    empties: bool,
    /// The store's sizes, one of these: segment, largest entry, bytes between two syncs.
    sizes: [&'static str; 2],
}

const TINY: &str = "65536,900,8192";
const SMALL: &str = "131072,1800,16384";
pub(super) const MIDDLE: &str = "524288,6144,65536";
/// The engine's own.
const USUAL: &str = "";

/// A little of everything.
const PLAIN: Shape = Shape {
    producers: 3,
    openings: 3,
    calls: 25,
    inline_max: 400,
    files_one_in: 0,
    batch_max: 12,
    empties: false,
    sizes: [SMALL, MIDDLE],
};

const SHAPES: [Shape; 5] = [
    // Hardly anything is left in the end, again and again: there sled's opening is at its weakest.
    Shape {
        producers: 1,
        openings: 8,
        calls: 10,
        inline_max: 150,
        batch_max: 16,
        empties: true,
        sizes: [TINY, SMALL],
        ..PLAIN
    },
    PLAIN,
    // Payloads with files of their own.
    Shape {
        openings: 2,
        calls: 20,
        inline_max: 2_000,
        files_one_in: 3,
        batch_max: 5,
        sizes: [MIDDLE, USUAL],
        ..PLAIN
    },
    // So much that the journal is compacted.
    Shape {
        producers: 2,
        openings: 2,
        calls: 30,
        inline_max: 20_000,
        files_one_in: 20,
        batch_max: 50,
        sizes: [USUAL, USUAL],
        ..PLAIN
    },
    // Groups of several segments.
    Shape {
        producers: 1,
        openings: 2,
        calls: 4,
        batch_max: 400,
        sizes: [TINY, TINY],
        inline_max: 300,
        ..PLAIN
    },
];

impl Shape {
    pub(super) fn of(seed: u64) -> Shape {
        // The last two are slow.
        const TURNS: [usize; 10] = [0, 0, 0, 1, 1, 1, 2, 2, 3, 4];
        SHAPES[*Random::new(seed).pick(&TURNS)]
    }

    /// As [`SIZES`] says it.
    pub(super) fn sizes(&self, seed: u64) -> &'static str {
        self.sizes[Random::new(!seed).index(self.sizes.len())]
    }
}

/// Handlers wait here until it is open.
#[derive(Debug, Default)]
pub(super) struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_open = self.is_open.lock().unwrap();
        let _open = self.opened.wait_while(is_open, |is_open| !*is_open);
    }
}

/// An engine that does the lab's work, and says so.
pub(super) fn open_at_work(
    store: &Path,
    marks: &Arc<Marks>,
    gate: &Arc<Gate>,
) -> Result<Engine, Error> {
    let (said, passed) = (marks.clone(), gate.clone());
    let command = move |command: serde_json::Value, cx: &Context| {
        passed.pass();
        let argument = command["argv"][1].as_str().unwrap_or_default();
        let number = argument.trim_start_matches('n').parse().unwrap_or(u64::MAX);
        let (attempt, claim) = (cx.attempt().number, cx.claim());
        said.say(&format!("start {} {number} {attempt} {claim}", cx.id()));
        match Fate::of(number) {
            Fate::Fails | Fate::Discards => Err("it is false".into()),
            _ => Ok(serde_json::Value::from(number)),
        }
    };
    let (said, gate) = (marks.clone(), gate.clone());
    let handler = move |work: Work, cx: &Context| {
        gate.pass();
        let (id, claim) = (cx.id(), cx.claim());
        let attempt = cx.attempt().number;
        said.say(&format!("start {id} {} {attempt} {claim}", work.number));
        work.run(cx)
    };
    let builder = builder(store)
        .pool(Pool::threads("default", 3))
        .handle(handler)
        .handle_json("command", command);
    let news = builder.subscribe(1 << 16);
    let engine = builder.open()?;
    let said = marks.clone();
    let tell = move || {
        while let Some(event) = news.recv() {
            let state = match event.what {
                What::Completed => "completed",
                What::Cancelled => "cancelled",
                What::Died => "dead",
                _ => continue,
            };
            said.say(&format!("end {} {state}", event.id));
        }
    };
    std::thread::spawn(tell);
    Ok(engine)
}

/// What has ended stays: a fast machine ends more jobs than a queue keeps, and the promise knows of no such end.
pub(super) fn builder(store: &Path) -> EngineBuilder {
    Engine::builder(store)
        .keep_finished(usize::MAX)
        .keep_dead(usize::MAX, Duration::MAX)
}

/// Lives a life.
pub(super) fn live(store: &Path, seed: u64, marks: &Arc<Marks>) -> Result<(), Error> {
    let shape = Shape::of(seed);
    let mut random = Random::new(seed ^ 0x4C49_4645);
    let mut producers: Vec<Producer> = (0..shape.producers)
        .map(|n| Producer::new(n + 1, shape, random.next()))
        .collect();
    let gate = Arc::new(Gate::default());
    gate.open();
    for _ in 0..shape.openings {
        // Now and then nobody works off what is handed in.
        let engine = if random.one_in(5) {
            builder(store).open()?
        } else {
            open_at_work(store, marks, &gate)?
        };
        marks.say("opened");
        let backup = random.one_in(8).then(|| store.with_file_name("copy"));
        std::thread::scope(|scope| {
            let working: Vec<_> = producers
                .iter_mut()
                .map(|producer| scope.spawn(|| producer.work(&engine, marks)))
                .collect();
            if let Some(to) = backup {
                let _ = std::fs::remove_dir_all(&to);
                engine.backup(&to)?;
            }
            working
                .into_iter()
                .try_for_each(|thread| thread.join().expect("a producer panicked"))
        })?;
        if shape.empties || random.one_in(2) {
            engine.wait_until_quiet(GRACE)?;
        }
        if shape.empties {
            producers
                .iter()
                .try_for_each(|producer| producer.prune(&engine, marks))?;
        }
        engine.shutdown(GRACE)?;
    }
    Ok(())
}

/// A thread that hands in jobs, into a queue of its own, and changes those of its own.
#[derive(Debug)]
pub(super) struct Producer {
    queue: String,
    shape: Shape,
    random: Random,
    next: u64,
    ids: Vec<JobId>,
    keys: u64,
}

impl Producer {
    fn new(number: u64, shape: Shape, seed: u64) -> Producer {
        Producer {
            queue: format!("q{number}"),
            shape,
            random: Random::new(seed),
            next: number * PER_PRODUCER,
            ids: Vec::new(),
            keys: 0,
        }
    }

    fn work(&mut self, engine: &Engine, marks: &Marks) -> Result<(), Error> {
        let is_large = self.shape.batch_max > LARGE_BATCH;
        for _ in 0..self.shape.calls {
            match self.random.below(20) {
                0..10 if !is_large => self.enqueue(engine, marks, 1)?,
                0..13 => {
                    let least = if is_large {
                        self.shape.batch_max / 2
                    } else {
                        2
                    };
                    let jobs = self.random.between(least, self.shape.batch_max);
                    self.enqueue(engine, marks, jobs)?;
                }
                13..17 => self.change(engine, marks)?,
                17 if !self.shape.empties => self.pause(engine, marks)?,
                18 => self.enqueue_by_key(engine, marks)?,
                _ => self.prune(engine, marks)?,
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, engine: &Engine, marks: &Marks, jobs: u64) -> Result<(), Error> {
        let call = self.next;
        let mut batch = engine.batch();
        let mut said = format!("enqueue {call} {}", self.queue);
        for _ in 0..jobs {
            let (request, text) = self.request(engine);
            said += &text;
            batch.add_request(request);
        }
        marks.say(&said);
        let placed = batch.enqueue()?;
        let mut said = format!("enqueued {call}");
        for (id, is_new) in &placed {
            write!(said, " {id}:{is_new}").unwrap();
        }
        marks.say(&said);
        self.ids.extend(placed.iter().map(|(id, _)| *id));
        Ok(())
    }

    /// A job, and what it is said to be.
    fn request<'e>(&mut self, engine: &'e Engine) -> (Request<'e, u64>, String) {
        let number = self.next;
        self.next += 1;
        let files = self.shape.files_one_in;
        let len = if files > 0 && self.random.one_in(files) {
            self.random.between(24 << 10, 60 << 10)
        } else {
            self.random.below(self.shape.inline_max)
        };
        let priority = i32::try_from(self.random.below(3)).unwrap();
        let mut request = engine
            .job(Work::new(number, usize::try_from(len).unwrap()))
            .queue(&self.queue)
            .priority(priority)
            .metadata("number", number.to_string());
        let mut due_ms = 0;
        if self.random.one_in(6) && !self.shape.empties {
            let wait = *self.random.pick(&[5, 40, 3_600_000]);
            due_ms = now_ms() + wait;
            request = request.at(UNIX_EPOCH + Duration::from_millis(due_ms));
        }
        (request, format!(" {number}:{len}:{priority}:{due_ms}"))
    }

    /// Twice under one key: the second time it is there already.
    fn enqueue_by_key(&mut self, engine: &Engine, marks: &Marks) -> Result<(), Error> {
        self.keys += 1;
        let key = format!("{}-{}", self.queue, self.keys);
        for _ in 0..2 {
            let call = self.next;
            let (request, text) = self.request(engine);
            marks.say(&format!("enqueue {call} {}{text}", self.queue));
            let placed = request.key(&key).enqueue()?;
            let id = placed.handle().id();
            marks.say(&format!("enqueued {call} {id}:{}", placed.is_new()));
            self.ids.push(id);
        }
        Ok(())
    }

    fn change(&mut self, engine: &Engine, marks: &Marks) -> Result<(), Error> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let id = *self.random.pick(&self.ids);
        let change = engine.change(id);
        match self.random.below(5) {
            0 | 1 => {
                marks.say(&format!("cancel {id}"));
                let answer = cancel_word(change.cancel("by the lab")?);
                marks.say(&format!("cancelled {id} {answer}"));
            }
            2 => {
                marks.say(&format!("delete {id}"));
                let answer = delete_word(change.delete()?);
                marks.say(&format!("deleted {id} {answer}"));
            }
            3 => {
                let priority = i32::try_from(self.random.below(9)).unwrap();
                marks.say(&format!("set {id} {priority}"));
                let answer = changed_word(change.set_priority(priority)?);
                marks.say(&format!("was-set {id} {answer} {priority}"));
            }
            _ => {
                marks.say(&format!("retry {id}"));
                let answer = changed_word(change.retry()?);
                marks.say(&format!("retried {id} {answer}"));
            }
        }
        Ok(())
    }

    fn pause(&mut self, engine: &Engine, marks: &Marks) -> Result<(), Error> {
        let queue = engine.queue(&self.queue);
        if self.random.one_in(3) {
            marks.say(&format!("pause {}", self.queue));
            queue.pause()?;
            marks.say(&format!("paused {}", self.queue));
        } else {
            marks.say(&format!("resume {}", self.queue));
            queue.resume()?;
            marks.say(&format!("resumed {}", self.queue));
        }
        Ok(())
    }

    fn prune(&self, engine: &Engine, marks: &Marks) -> Result<(), Error> {
        marks.say(&format!("prune {}", self.queue));
        engine.prune().queue(&self.queue).run()?;
        marks.say(&format!("pruned {}", self.queue));
        Ok(())
    }
}

/// Works until something fails. What is handed in fits a store of any size.
pub(super) fn work_for_ever(engine: &Engine, seed: u64, marks: &Marks) -> Result<(), Error> {
    let shape = Shape {
        inline_max: 300,
        ..*Random::new(seed).pick(&SHAPES)
    };
    let ended = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..shape.producers)
            .map(|n| {
                let mut producer = Producer::new(100 + seed * 8 + n, shape, seed ^ n);
                producer.queue = format!("q{n}");
                scope.spawn(move || {
                    loop {
                        if let Err(error) = producer.work(engine, marks) {
                            return error;
                        }
                    }
                })
            })
            .collect();
        let ends = threads.into_iter().map(|thread| thread.join().unwrap());
        ends.last()
    });
    Err(ended.expect("there is a producer"))
}

/// The time, as the engine has it.
#[expect(
    clippy::disallowed_methods,
    reason = "jobs are due at times of the wall clock"
)]
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Hands in a few jobs after a cut, into a queue of their own: one batch, one alone. The seed decides their numbers,
/// which no life has used before.
pub(super) fn hand_in_more(engine: &Engine, seed: u64, marks: &Marks) -> Result<(), Error> {
    // What fits into a store of any size.
    let shape = Shape {
        inline_max: 300,
        ..SHAPES[2]
    };
    let mut producer = Producer::new(100 + seed % 1_000_000_000, shape, seed);
    "more".clone_into(&mut producer.queue);
    producer.enqueue(engine, marks, 3)?;
    producer.enqueue(engine, marks, 1)
}
