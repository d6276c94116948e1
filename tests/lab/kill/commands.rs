//! `jobsled work` and its clients: the real program, killed while others talk to it, and without it.
//!
//! Commands note their begin and end themselves, what clients were told is noted by whoever started them, and
//! completions as `work --json` tells them.

use std::io::BufReader;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::oracle::Oracle;
use super::{
    End, LAST_LIFE_MAX, LIFE_MAX, Life, Log, Place, Random, Tools, judge, left, news, suspend,
};
use crate::notes::{Notes, sort};

const PROGRAM: &str = env!("CARGO_BIN_EXE_jobsled");
const CLIENTS: u64 = 2;
/// A client that is not answered by then is stuck.
const CLIENT_MAX: Duration = Duration::from_secs(20);
/// Jobs of a life without a worker.
const ALONE: u64 = 4;

/// One store and those who talk about it.
struct Town<'t> {
    place: &'t Place,
    tools: &'t Tools,
    notes: Notes,
    next: AtomicU64,
    /// Ids that were told.
    told: Mutex<Vec<u64>>,
}

pub(super) fn store(
    place: &Place,
    tools: &Tools,
    random: &mut Random,
    rounds: u64,
    log: &Log,
) -> Result<(), String> {
    let town = Town {
        place,
        tools,
        notes: Notes::open(&place.notes),
        next: AtomicU64::new(0),
        told: Mutex::new(Vec::new()),
    };
    let (mut oracle, mut read) = (Oracle::default(), 0);
    for number in 1..=rounds {
        let life = Life::draw(random);
        if tools.loud {
            println!("  life {number} of commands: {life:?}");
        }
        if random.one_in(4) {
            town.without_worker(&life, random)?;
        } else {
            town.with_worker(&life, random)?;
        }
        oracle.life(&news(place, &mut read)?)?;
    }
    for _ in 0..3 * (rounds + 3) {
        let drained = town.drain()?;
        oracle.life(&news(place, &mut read)?)?;
        if drained {
            town.look()?;
            oracle.life(&news(place, &mut read)?)?;
            log.note("acknowledged to commands", oracle.acknowledged_count());
            log.note("starts", oracle.starts);
            log.note("run again", oracle.again);
            return oracle.end();
        }
    }
    Err("commands that end their worker are never found out".to_owned())
}

impl Town<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        self.dress(&mut command, words);
        command
    }

    fn dress(&self, command: &mut Command, words: &[&str]) {
        let home = self.place.notes.parent().unwrap_or(Path::new("/"));
        command
            .args(words)
            .env("JOBSLED_STORE", &self.place.store)
            .current_dir(home);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// A worker is killed while clients talk to it.
    fn with_worker(&self, life: &Life, random: &mut Random) -> Result<(), String> {
        let Some(mut command) = self.tools.command(Path::new(PROGRAM), life, self.place) else {
            return Ok(());
        };
        self.dress(&mut command, &["work", "--json", "--workers", "3"]);
        let mut worker = command.spawn().map_err(|e| e.to_string())?;
        let said = BufReader::new(worker.stdout.take().unwrap());
        let over = AtomicBool::new(false);
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| random.next()).collect();
        let wait = Duration::from_millis(random.below(250));
        std::thread::scope(|scope| {
            let over = &over;
            let reader = scope.spawn(move || self.listen(said));
            let clients: Vec<_> = seeds
                .into_iter()
                .map(|seed| scope.spawn(move || self.client(&mut Random::new(seed), over)))
                .collect();
            let ended = end_worker(&mut worker, &life.end, wait);
            let ended = ended.map(|status| self.place.count(status));
            over.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            clients
                .into_iter()
                .try_for_each(|client| client.join().unwrap())?;
            ended
        })
    }

    /// Notes completions until the worker is gone.
    fn listen(&self, said: impl std::io::BufRead) {
        for line in said.lines().map_while(Result::ok) {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else {
                continue;
            };
            if event["event"] == "completed" {
                self.notes.add(&format!("C {}\n", event["id"]));
            }
        }
    }

    fn client(&self, random: &mut Random, over: &AtomicBool) -> Result<(), String> {
        while !over.load(Ordering::Relaxed) {
            match random.below(8) {
                0 => self.cancel(random)?,
                1 => self.set(random)?,
                _ => self.add(random, None)?,
            }
        }
        Ok(())
    }

    /// Clients that take the store for themselves, each killed as the round says.
    fn without_worker(&self, life: &Life, random: &mut Random) -> Result<(), String> {
        for _ in 0..ALONE {
            self.add(random, Some(life))?;
        }
        Ok(())
    }

    fn add(&self, random: &mut Random, life: Option<&Life>) -> Result<(), String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let sort = match random.below(150) {
            0 => sort::KILLER,
            1..20 => sort::ONCE,
            _ => sort::SUSPECT,
        };
        let does = match (sort, random.below(3)) {
            (sort::KILLER, _) => "kill -9 $PPID; sleep 1",
            (_, 0) => "sleep 0.0$(($JOBSLED_JOB % 5))",
            _ => "true",
        };
        let notes = self.place.notes.display();
        let script = format!(
            "echo S $JOBSLED_JOB $JOBSLED_CLAIM $JOBSLED_ATTEMPT {number} {sort} >> {notes}\n{does}\n\
             echo F $JOBSLED_JOB $JOBSLED_CLAIM >> {notes}"
        );
        let (key, priority) = (format!("k{number}"), random.below(3).to_string());
        let mut words = vec!["add", "--key", &key, "--priority", &priority];
        if sort == sort::ONCE {
            words.push("--no-rerun");
        }
        words.extend(["--", "sh", "-c", &script]);
        self.notes.add(&format!("a {number}\n"));
        // Repeated with the same key, it is the same job.
        let tries = 1 + random.below(2);
        for _ in 0..tries {
            if let Some(id) = self
                .ask(&words, life)?
                .and_then(|said| said.trim().parse().ok())
            {
                self.notes.add(&format!("A {number} {id}\n"));
                self.told.lock().unwrap().push(id);
            }
        }
        Ok(())
    }

    /// What a client prints; `None` if it was not told anything.
    fn ask(&self, words: &[&str], life: Option<&Life>) -> Result<Option<String>, String> {
        let command = life.map(|life| self.tools.command(Path::new(PROGRAM), life, self.place));
        let mut command = match command {
            Some(None) => return Ok(None),
            Some(Some(command)) => command,
            None => Command::new(PROGRAM),
        };
        self.dress(&mut command, words);
        let mut client = command.spawn().map_err(|e| e.to_string())?;
        let limit = match life.map(|life| &life.end) {
            Some(End::After(time) | End::AfterOpen(time) | End::Stopping(time)) => *time / 4,
            _ => CLIENT_MAX,
        };
        let in_time = left(&mut client, Instant::now() + limit)?;
        if !in_time && limit == CLIENT_MAX {
            let _ = client.kill();
            let _ = client.wait();
            return Err(format!("`jobsled {}` is not answered", words[0]));
        }
        let _ = client.kill();
        let output = client.wait_with_output().map_err(|e| e.to_string())?;
        self.place.count(output.status);
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains("panicked") {
            return Err(format!("`jobsled {}`: {errors}", words[0]));
        }
        // A whole line was printed: that is an acknowledgement, whatever came later.
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(said.ends_with('\n').then_some(said))
    }

    /// One of those that were told last: it may still wait.
    fn one(&self, random: &mut Random) -> Option<u64> {
        let told = self.told.lock().unwrap();
        let newest = told.len().min(4);
        (newest > 0).then(|| told[told.len() - 1 - random.index(newest)])
    }

    fn cancel(&self, random: &mut Random) -> Result<(), String> {
        let Some(id) = self.one(random) else {
            return Ok(());
        };
        self.notes.add(&format!("x {id}\n"));
        let said = self.ask(&["cancel", "--json", &id.to_string()], None)?;
        if said.is_some_and(|said| said.contains("\"cancelled\"")) {
            self.notes.add(&format!("X {id}\n"));
        }
        Ok(())
    }

    fn set(&self, random: &mut Random) -> Result<(), String> {
        let Some(id) = self.one(random) else {
            return Ok(());
        };
        let priority = random.between(10, 99).to_string();
        self.notes.add(&format!("p {id} {priority}\n"));
        let said = self.ask(
            &["set", "--json", &id.to_string(), "--priority", &priority],
            None,
        )?;
        // Two clients may change one job: what is told is one of those asked for, not more.
        drop(said);
        Ok(())
    }

    /// Whether everything came to its end; false if a command ended the worker.
    fn drain(&self) -> Result<bool, String> {
        let mut command = self.command(&["work", "--json", "--drain", "--workers", "3"]);
        let mut worker = command.spawn().map_err(|e| e.to_string())?;
        let said = BufReader::new(worker.stdout.take().unwrap());
        let ended = std::thread::scope(|scope| {
            scope.spawn(move || self.listen(said));
            let ended = left(&mut worker, Instant::now() + LAST_LIFE_MAX);
            let _ = worker.kill();
            ended
        })?;
        let status = worker.wait().map_err(|e| e.to_string())?;
        judge(status, &mut worker)?;
        if !ended {
            return Err("the last worker does not come to an end".to_owned());
        }
        Ok(status.success())
    }

    /// Notes how everything is found.
    fn look(&self) -> Result<(), String> {
        let output = self
            .command(&["ls", "--json"])
            .output()
            .map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!(
                "`jobsled ls`: {}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let job: serde_json::Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
            let word = |name: &str| job[name].as_str().unwrap_or("-").replace(' ', "-");
            let (id, number) = (&job["id"], word("key").trim_start_matches('k').to_owned());
            let (state, reason, priority) = (word("state"), word("dead_reason"), &job["priority"]);
            self.notes
                .add(&format!("Z {id} {state} {reason} {priority} {number}\n"));
        }
        Ok(())
    }
}

/// Lets a worker end as the round says; `wait` is how long after its start a stop is asked for.
fn end_worker(worker: &mut Child, end: &End, wait: Duration) -> Result<ExitStatus, String> {
    use rustix::process::{Pid, Signal, kill_process};
    let began = Instant::now();
    let pid = Pid::from_child(worker);
    match end {
        End::After(time) | End::AfterOpen(time) => {
            left(worker, began + *time)?;
        }
        End::Suspended(time, then) => {
            left(worker, began + *time)?;
            suspend(worker)?;
            left(worker, Instant::now() + *then)?;
        }
        End::Stopping(time) => {
            left(worker, began + wait)?;
            let _ = kill_process(pid, Signal::TERM);
            left(worker, Instant::now() + *time)?;
        }
        End::Stopped => {
            left(worker, began + wait)?;
            let _ = kill_process(pid, Signal::TERM);
            if !left(worker, Instant::now() + wait / 4)? {
                let _ = kill_process(pid, Signal::TERM);
            }
            if !left(worker, Instant::now() + LAST_LIFE_MAX)? {
                let _ = worker.kill();
                return Err("two SIGTERM do not end a worker".to_owned());
            }
        }
        End::AtCall(..) | End::AtPoint(..) | End::Traced(_) => {
            left(worker, began + LIFE_MAX)?;
        }
    }
    let _ = worker.kill();
    let status = worker.wait().map_err(|e| e.to_string())?;
    // A signal may come before the worker listens to it.
    if matches!(end, End::Stopped | End::Stopping(_)) && status.signal() == Some(15) {
        return Ok(status);
    }
    judge(status, worker).map(|()| status)
}
