//! A short life with everything in it: make a store, store 50 jobs, run them, open it again, change some, back it up,
//! close it. Each refusal is told; after one that only a restart helps against, it ends.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use jobsled::{
    Cancel, Changed, Context, Engine, EngineBuilder, Error, JobId, JobResult, OnCrash, Pool, Queue,
    State, What, job, rkyv,
};

use crate::notes::{Notes, REFUSED, WELL, sort};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Task {
    number: u64,
    ballast: Vec<u8>,
}
job!(Task, kind = "faults-task", output = u64);

const ONE_BY_ONE: u64 = 40;
const TOGETHER: u64 = 10;
const LARGE_BYTES: usize = 40_000;
/// What jobs have while calls fail.
const WORKING: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(5);

/// `HOME NOTES script` or `… drain`.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let [home, notes, what] = arguments else {
        return ExitCode::from(2);
    };
    // What the engine says in the background is part of what is looked at.
    env_logger::init();
    let home = Path::new(home);
    let mut script = Script {
        store: home.join("store"),
        copy: home.join("copy"),
        notes: Notes::open(Path::new(notes)),
        refused: false,
    };
    let ended = if what == "drain" {
        script.drain()
    } else {
        script.run()
    };
    if let Err(error) = ended {
        script.tell(&error);
    }
    ExitCode::from(if script.refused { REFUSED } else { WELL })
}

struct Script {
    store: std::path::PathBuf,
    copy: std::path::PathBuf,
    notes: Notes,
    refused: bool,
}

impl Script {
    fn tell(&mut self, error: &Error) {
        self.refused = true;
        println!("refused: {error}");
        if matches!(error, Error::Bug(_)) {
            println!("stuck: a mistake of ours: {error:?}");
        }
    }

    /// An error that the engine survives is told, and the script goes on.
    fn go_on<T>(&mut self, result: jobsled::Result<T>) -> jobsled::Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_poisoned() || matches!(error, Error::Closed) => Err(error),
            Err(error) => {
                self.tell(&error);
                Ok(None)
            }
        }
    }

    fn builder(&self) -> EngineBuilder {
        let notes = self.notes.clone();
        Engine::builder(&self.store)
            .pool(Pool::threads("default", 2))
            .queue(Queue::new("default").keep_finished(usize::MAX))
            .disk_floor(0)
            .handle(move |task: Task, cx: &Context| work(&task, cx, &notes))
    }

    fn open(&self) -> jobsled::Result<(Engine, std::thread::JoinHandle<()>)> {
        let builder = self.builder();
        let (events, notes) = (builder.subscribe(1 << 12), self.notes.clone());
        let engine = builder.open()?;
        let listen = move || {
            while let Some(event) = events.recv() {
                if event.what == What::Completed {
                    notes.add(&format!("C {}\n", event.id));
                }
            }
        };
        let listener = std::thread::Builder::new().spawn(listen);
        let listener = listener.map_err(|source| Error::Thread {
            name: "listener".to_owned(),
            source,
        })?;
        Ok((engine, listener))
    }

    fn run(&mut self) -> jobsled::Result<()> {
        let (engine, listener) = self.open()?;
        let worked = self.enqueue_and_run(&engine);
        self.close(&engine, listener, worked)?;
        let (engine, listener) = self.open()?;
        let worked = self.change_and_copy(&engine);
        self.close(&engine, listener, worked)
    }

    fn close(
        &mut self,
        engine: &Engine,
        listener: std::thread::JoinHandle<()>,
        worked: jobsled::Result<()>,
    ) -> jobsled::Result<()> {
        let closed = engine.shutdown(GRACE).map(drop);
        listener.join().unwrap();
        if let (Err(error), Err(_)) = (&closed, &worked) {
            self.tell(error);
        }
        worked.and(closed)
    }

    fn enqueue_and_run(&mut self, engine: &Engine) -> jobsled::Result<()> {
        for number in 1..=ONE_BY_ONE {
            self.notes.add(&format!("a {number}\n"));
            let request = engine.job(task(number)).key(format!("k{number}"));
            let done = self.go_on(request.on_crash(OnCrash::Rerun).enqueue())?;
            if let Some(done) = done {
                self.notes
                    .add(&format!("A {number} {}\n", done.handle().id()));
            }
        }
        let numbers: Vec<u64> = (ONE_BY_ONE + 1..=ONE_BY_ONE + TOGETHER).collect();
        let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
        self.notes.add(&format!("B {}\n", words.join(" ")));
        let mut batch = engine.batch();
        for number in &numbers {
            let request = engine.job(task(*number)).key(format!("k{number}"));
            batch.add_request(request.on_crash(OnCrash::Rerun));
        }
        if let Some(ids) = self.go_on(batch.enqueue())? {
            for (number, (id, _)) in numbers.iter().zip(ids) {
                self.notes.add(&format!("A {number} {id}\n"));
            }
        }
        if !engine.wait_until_idle(WORKING)? {
            // A payload that cannot be read, say: it is tried again, and again later.
            println!("refused: not all jobs came to their end");
            self.refused = true;
        }
        Ok(())
    }

    fn change_and_copy(&mut self, engine: &Engine) -> jobsled::Result<()> {
        let mut ids = Vec::new();
        for number in 51..=53 {
            self.notes.add(&format!("a {number}\n"));
            let request = engine.job(task(number)).key(format!("k{number}"));
            let done = self.go_on(request.after(Duration::from_hours(1)).enqueue())?;
            if let Some(done) = done {
                let id = done.handle().id();
                self.notes.add(&format!("A {number} {id}\n"));
                ids.push(id);
            }
        }
        if let [cancelled, changed, ..] = ids[..] {
            self.change(engine, cancelled, changed)?;
        }
        let copied = engine.backup(&self.copy);
        if let Some(report) = self.go_on(copied)? {
            println!("copied {}", report.jobs);
        }
        let count = engine.jobs().count();
        self.go_on(count).map(drop)
    }

    fn change(&mut self, engine: &Engine, one: JobId, other: JobId) -> jobsled::Result<()> {
        self.notes.add(&format!("x {one}\np {other} 7\n"));
        if self.go_on(engine.change(one).cancel("not wanted"))? == Some(Cancel::Cancelled) {
            self.notes.add(&format!("X {one}\n"));
        }
        if self.go_on(engine.change(other).set_priority(7))? == Some(Changed::Done) {
            self.notes.add(&format!("P {other} 7\n"));
        }
        Ok(())
    }

    /// Without faults: everything comes to its end.
    fn drain(&mut self) -> jobsled::Result<()> {
        let (engine, listener) = self.open()?;
        for job in engine.jobs().state(State::Scheduled).list()? {
            engine.change(job.id).reschedule_after(Duration::ZERO)?;
        }
        if !engine.wait_until_idle(PATIENCE)? {
            self.notes.add("stuck in the end\n");
        }
        let found = crate::found(&engine)?;
        self.close(&engine, listener, Ok(()))?;
        self.notes.add(&found);
        // A copy that was acknowledged is whole.
        if self.copy.exists() {
            println!("{} in the copy", jobsled::verify(&self.copy, None)?.jobs());
        }
        Ok(())
    }
}

fn task(number: u64) -> Task {
    let len = if number.is_multiple_of(9) {
        LARGE_BYTES
    } else {
        300
    };
    Task {
        number,
        ballast: vec![u8::try_from(number).unwrap(); len],
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a handler")]
fn work(task: &Task, cx: &Context, notes: &Notes) -> JobResult<u64> {
    let (id, claim, attempt, number) = (cx.id(), cx.claim(), cx.attempt().number, task.number);
    notes.add(&format!(
        "S {id} {claim} {attempt} {number} {}\n",
        sort::PLAIN
    ));
    if task.ballast.iter().any(|byte| u64::from(*byte) != number) {
        notes.add(&format!("D {id}\n"));
    }
    notes.add(&format!("F {id} {claim}\n"));
    Ok(number)
}
