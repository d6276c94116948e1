//! The stores that are damaged, made by processes of their own: closed, or killed.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use jobsled::{Backoff, Engine, JobId, OnCrash, Pool, Request, Stop, What};
use serde_json::{Value, json};

use super::MAKE;
use crate::random::Random;

const HOUR: Duration = Duration::from_hours(1);

/// How a store's life ends.
const ENDS: [&str; 4] = ["closed", "killed", "compacting", "swapping"];
/// Jobs that are kept, about.
const SIZES: [u64; 3] = [16, 80, 400];

/// Makes one of each sort below `root`.
pub(super) fn pristine(root: &Path) {
    let points = [
        "Synced",
        "Witnessed",
        "Told",
        "Appended",
        "Flushed",
        "Returned",
    ];
    for (number, size) in SIZES.into_iter().enumerate() {
        for (end, point) in ENDS.iter().zip(points.iter().cycle().skip(number * 2)) {
            let dir = root.join(format!("store-{end}-{size}"));
            fs::create_dir(&dir).unwrap();
            let mut maker = Command::new(std::env::current_exe().unwrap());
            maker.args([MAKE, end, &size.to_string()]).arg(&dir);
            maker.stderr(fs::File::create(dir.join("stderr")).unwrap());
            if *end != "closed" {
                // In the last tenth of its life, or at its end: what is wanted are stores of many moments.
                let die_at = match *end {
                    "killed" => format!("{point}:{}", 2 * size),
                    "compacting" => format!("{point}:{}", 2 * size + 300),
                    // Opening is the first time; at closing the journal has neither name.
                    _ => "Unnamed:2".to_owned(),
                };
                maker.env("JOBSLED_DIE_AT", die_at);
            }
            let ended = maker.status().unwrap();
            let is_killed = ended.signal() == Some(9);
            assert_eq!(is_killed, *end != "closed", "{end} {size}: {ended}");
            assert_ne!(is_killed, ended.success(), "{end} {size}: {ended}");
            super::known::note(&dir);
        }
    }
}

/// A process that makes a store.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let [end, size, dir] = arguments else {
        return ExitCode::FAILURE;
    };
    let dir = PathBuf::from(dir);
    let engine = open(&dir.join("store"));
    let mut life = Life {
        engine,
        ledger: fs::File::create(dir.join("ledger")).unwrap(),
        random: Random::new(size.len() as u64),
    };
    life.controls();
    for n in 0..size.parse().unwrap() {
        life.store(n);
    }
    if end == "closed" || end == "swapping" {
        life.engine.shutdown(HOUR).unwrap();
        return ExitCode::SUCCESS;
    }
    life.hold();
    if end == "compacting" {
        life.churn();
    }
    // It did not come by its point so often; then here.
    let me = rustix::process::getpid();
    let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    std::process::abort();
}

fn open(store: &Path) -> Engine {
    Engine::builder(store)
        .keep_finished(60)
        // Two of them hold a job until the end.
        .pool(Pool::threads("default", 4))
        .handle_json("note", |job: Value, _| match job["do"].as_str() {
            Some("fail") => Err(format!("told to fail: {}", job["text"]).into()),
            Some("discard") => Err(Stop::discard("told to be discarded")),
            Some("large") => Ok(json!("output ".repeat(2_000))),
            _ => Ok(json!({"did": job["text"]})),
        })
        .handle_json("hold", |_: Value, _| {
            loop {
                std::thread::park();
            }
        })
        .open()
        .unwrap()
}

struct Life {
    engine: Engine,
    /// Ids and payloads of all jobs that were acknowledged.
    ledger: fs::File,
    random: Random,
}

impl Life {
    fn controls(&self) {
        self.engine.queue("idle").pause().unwrap();
        self.engine
            .queue("narrow")
            .set_concurrency(Some(3))
            .unwrap();
    }

    fn payload(&mut self, what: &str, bytes: usize) -> Value {
        let mut text = String::new();
        while text.len() < bytes {
            write!(text, "{:016x} ", self.random.next()).unwrap();
        }
        json!({"do": what, "text": text})
    }

    fn put(
        &mut self,
        job: impl FnOnce(Request<'_, Value>) -> Request<'_, Value>,
        payload: &Value,
    ) -> JobId {
        use std::io::Write as _;
        let stored = job(self.engine.json("note", payload)).enqueue().unwrap();
        let id = stored.handle().id();
        let hash = blake3::hash(serde_json::to_string(payload).unwrap().as_bytes());
        writeln!(self.ledger, "{id} {hash}").unwrap();
        id
    }

    fn wait(&self, id: JobId) {
        self.engine
            .any_handle(id)
            .unwrap()
            .map(|handle| handle.wait().ok());
    }

    fn store(&mut self, n: u64) {
        let small = usize::try_from(20 + 37 * (n % 19)).unwrap();
        let priority = i32::try_from(n % 7).unwrap();
        let plain = self.payload("note", small);
        match n % 12 {
            5 => {
                self.put(
                    |job| job.queue("idle").key(format!("key {n}")).metadata("n", "5"),
                    &plain,
                );
            }
            6 => {
                let job = self.payload(if n % 36 == 6 { "large" } else { "note" }, small);
                let id = self.put(|job| job.queue("narrow"), &job);
                self.wait(id);
            }
            7 => {
                let job = self.payload(if n % 24 == 7 { "discard" } else { "fail" }, small);
                let id = self.put(|job| job.attempts(1), &job);
                self.wait(id);
            }
            8 => {
                let job = self.payload("fail", small);
                self.put(|job| job.attempts(5).backoff(Backoff::fixed(HOUR)), &job);
            }
            9 => {
                let job = self.payload("note", 30_000);
                self.put(|job| job.queue("idle"), &job);
            }
            10 => {
                let once = OnCrash::Dead;
                self.put(
                    |job| job.after(HOUR).expires_after(48 * HOUR).on_crash(once),
                    &plain,
                );
            }
            11 => {
                let id = self.put(|job| job.queue("idle").key(format!("key {n}")), &plain);
                let change = self.engine.change(id);
                if n % 24 == 11 {
                    change.delete().map(drop).unwrap();
                } else {
                    change.cancel("not needed").map(drop).unwrap();
                }
            }
            _ => {
                let id = self.put(|job| job.queue("idle").priority(priority), &plain);
                if n % 12 == 3 {
                    self.engine.change(id).set_priority(99).unwrap();
                }
            }
        }
    }

    /// Jobs that run when the process ends.
    fn hold(&mut self) {
        let begun = self.engine.subscribe(16);
        for on_crash in [OnCrash::Rerun, OnCrash::Dead] {
            let held = self.engine.json("hold", &json!({})).on_crash(on_crash);
            held.queue("held").enqueue().unwrap();
        }
        let mut claims = 0;
        while claims < 2 {
            let news = begun.recv_timeout(HOUR).unwrap();
            claims += u32::from(&*news.kind == "hold" && news.what == What::Claimed);
        }
    }

    /// So many jobs come and go that old entries are carried and removed.
    fn churn(&mut self) {
        for _ in 0..300 {
            let payload = self.payload("note", 6_000);
            let ids: Vec<JobId> = (0..4).map(|_| self.put(|job| job, &payload)).collect();
            ids.into_iter().for_each(|id| self.wait(id));
        }
    }
}
