//! What a store has to hold: told by the marks before a cut, and held against what is found after it.
//!
//! Knows nothing of the engine: numbers, words, and what `docs/durability.md` promises. A mark is a line:
//!
//! ```text
//! enqueue CALL QUEUE NUMBER:LENGTH:PRIORITY:DUE …   about to be handed in, all or nothing; DUE 0 is at once
//! enqueued CALL ID:NEW …                            acknowledged
//! cancel ID | delete ID | retry ID | prune QUEUE | pause QUEUE | resume QUEUE | set ID PRIORITY     about to be asked
//! cancelled ID ANSWER | deleted ID ANSWER | … | pruned QUEUE | paused QUEUE | resumed QUEUE | was-set ID ANSWER
//! start ID NUMBER ATTEMPT CLAIM                     a handler has begun
//! unwatched                                         jobs start from here on without a mark
//! end ID STATE                                      news that a job has ended
//! opened                                            the store is open
//! found, job …, queue …, all                        what is there (`Found`)
//! quiet MS                                          at this time nothing was left that could run
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};

use super::work::Fate;

/// What a store must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Promise {
    /// By number.
    jobs: BTreeMap<u64, Job>,
    numbers: HashMap<u64, u64>,
    /// Whether a queue is paused; `None` while that is being changed.
    queues: BTreeMap<String, Option<bool>>,
    /// Queues that are being pruned.
    prunes: HashSet<String>,
    /// Handlers are at work that do not say when they begin.
    unwatched: bool,
    /// How often the power has gone since something was found last.
    cuts: u64,
    /// What is being found.
    finding: Option<Finding>,
}

/// How far it is certain that a job is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// It was handed in; nobody has said that it is stored.
    #[default]
    Asked,
    Acknowledged,
    /// Its deletion is acknowledged, or it was found missing when it could be.
    Gone,
}

#[derive(Clone, Debug, Default)]
struct Job {
    call: u64,
    queue: String,
    length: u64,
    priority: Option<i64>,
    due_ms: i64,
    id: Option<u64>,
    standing: Standing,
    /// How it has ended, if that was told.
    end: Option<&'static str>,
    /// May have been brought back to life: nothing is known of its state any more.
    loose: bool,
    cancelling: bool,
    may_vanish: bool,
    attempt: u64,
    claim: u64,
    crashes: u64,
}

/// What is there.
#[derive(Clone, Debug, Default)]
struct Finding {
    jobs: Vec<Found>,
    queues: Vec<(String, bool)>,
}

/// A job as it was found.
#[derive(Clone, Debug)]
struct Found {
    id: u64,
    number: u64,
    queue: String,
    state: &'static str,
    attempt: u64,
    crashes: u64,
    priority: i64,
    due_ms: i64,
    /// Its payload's length, `none`, `unread`, or what is wrong with it.
    payload: String,
    /// `well`, `wrong` or unread.
    output: String,
}

const STATES: [&str; 6] = [
    "scheduled",
    "ready",
    "running",
    "completed",
    "cancelled",
    "dead",
];
/// Crashes of its process after which a job is parked.
const CRASHES_MAX: u64 = 3;

type Checked = Result<(), String>;

impl Promise {
    /// The power goes.
    pub(super) fn cut(&mut self) {
        self.cuts += 1;
        self.finding = None;
    }

    pub(super) fn acknowledged(&self) -> u64 {
        let known = |job: &&Job| job.standing == Standing::Acknowledged;
        self.jobs.values().filter(known).count() as u64
    }

    /// Goes on by one mark, which may be several lines. Says what was promised and is not so.
    pub(super) fn note(&mut self, mark: &str) -> Checked {
        mark.lines().try_for_each(|line| {
            self.line(line)
                .map_err(|why| format!("{why} (at `{line}`)"))
        })
    }

    /// Of these marks only what was asked for: nobody knows whether it was done.
    pub(super) fn note_asks(&mut self, marks: &str) -> Checked {
        const ASKS: [&str; 8] = [
            "enqueue", "cancel", "delete", "retry", "set", "prune", "pause", "resume",
        ];
        self.unwatched = true;
        let is_ask = |line: &&str| ASKS.contains(&line.split(' ').next().unwrap_or_default());
        marks
            .lines()
            .filter(is_ask)
            .try_for_each(|line| self.line(line))
    }

    fn line(&mut self, line: &str) -> Checked {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "opened" => {}
            "unwatched" => self.unwatched = true,
            "quiet" => return self.check_quiet(number(1).cast_signed()),
            "enqueue" => self.asked(number(1), words[2], &words[3..]),
            "enqueued" => return self.stored(number(1), &words[2..]),
            "start" => return self.started(number(1), number(2), number(3), number(4)),
            "end" => self.ended(number(1), words[2]),
            "cancel" | "delete" | "retry" | "set" => self.changing(words[0], number(1)),
            "cancelled" | "deleted" | "retried" | "was-set" => {
                return self.changed(words[0], number(1), &words[2..]);
            }
            "prune" => self.pruning(words[1]),
            "pruned" => {
                self.prunes.remove(words[1]);
            }
            "pause" | "resume" => {
                self.queues.insert(words[1].to_owned(), None);
            }
            "paused" | "resumed" => {
                let paused = words[0] == "paused";
                self.queues.insert(words[1].to_owned(), Some(paused));
            }
            "found" => self.finding = Some(Finding::default()),
            "job" => self
                .finding
                .as_mut()
                .unwrap()
                .jobs
                .push(Found::read(&words)),
            "queue" => {
                let queue = (words[1].to_owned(), words[2] == "paused");
                self.finding.as_mut().unwrap().queues.push(queue);
            }
            "all" => return self.found(),
            other => panic!("a mark `{other}`"),
        }
        Ok(())
    }

    fn asked(&mut self, call: u64, queue: &str, jobs: &[&str]) {
        for text in jobs {
            let fields: Vec<i64> = text.split(':').map(|n| n.parse().unwrap()).collect();
            let job = Job {
                call,
                queue: queue.to_owned(),
                length: fields[1].cast_unsigned(),
                priority: Some(fields[2]),
                due_ms: fields[3],
                ..Job::default()
            };
            self.jobs.insert(fields[0].cast_unsigned(), job);
        }
        self.queues.entry(queue.to_owned()).or_insert(Some(false));
    }

    fn stored(&mut self, call: u64, ids: &[&str]) -> Checked {
        let asked = self.jobs.iter_mut().filter(|(_, job)| job.call == call);
        for ((number, job), text) in asked.zip(ids) {
            let (id, new) = text.split_once(':').unwrap();
            let id = id.parse().unwrap();
            if new == "false" {
                // Its key was taken by the job of this id.
                job.standing = Standing::Gone;
                continue;
            }
            if job.id.is_some_and(|known| known != id) {
                return Err(format!("job {number} ran as {:?} and is {id}", job.id));
            }
            if let Some(other) = self.numbers.insert(id, *number)
                && other != *number
            {
                return Err(format!("id {id} is that of {other} and of {number}"));
            }
            job.id = Some(id);
            job.standing = Standing::Acknowledged;
        }
        Ok(())
    }

    fn of_id(&mut self, id: u64) -> Option<&mut Job> {
        self.jobs.get_mut(self.numbers.get(&id)?)
    }

    fn started(&mut self, id: u64, number: u64, attempt: u64, claim: u64) -> Checked {
        self.numbers.insert(id, number);
        let is_cut = self.cuts > 0;
        let job = self.jobs.get_mut(&number);
        let job = job.ok_or_else(|| format!("job {number} was never handed in"))?;
        if job.id.is_some_and(|known| known != id) {
            return Err(format!("job {number} is {:?} and runs as {id}", job.id));
        }
        job.id = Some(id);
        if self.prunes.contains(&job.queue) {
            job.may_vanish = true;
        }
        if job.standing == Standing::Gone {
            return Err(format!("job {number} is gone, and runs"));
        }
        if let Some(end) = job.end.filter(|_| !job.loose) {
            return Err(format!("job {number} is {end}, and runs again"));
        }
        // I6: each start is a new attempt and was stored before.
        let expected = job.attempt + 1;
        if !job.loose && attempt != expected && !is_cut {
            return Err(format!(
                "job {number} starts as attempt {attempt}, expected was {expected}"
            ));
        }
        if claim <= job.claim {
            return Err(format!("claim {claim} of job {number} is not a new one"));
        }
        (job.attempt, job.claim) = (attempt, claim);
        Ok(())
    }

    fn ended(&mut self, id: u64, state: &str) {
        let state = known_state(state);
        if let Some(job) = self.of_id(id) {
            job.end = Some(state);
        }
    }

    fn changing(&mut self, what: &str, id: u64) {
        let Some(job) = self.of_id(id) else { return };
        match what {
            "cancel" => job.cancelling = true,
            "delete" => job.may_vanish = true,
            "set" => job.priority = None,
            _ => job.loose = true,
        }
    }

    fn changed(&mut self, what: &str, id: u64, answer: &[&str]) -> Checked {
        let Some(job) = self.of_id(id) else {
            return Ok(());
        };
        match (what, answer[0]) {
            (_, "unknown") if !job.may_vanish => {
                return Err(format!("job {id} was acknowledged and is unknown"));
            }
            ("cancelled", "cancelled") => job.end = Some("cancelled"),
            ("deleted", "deleted") => job.standing = Standing::Gone,
            ("was-set", "done") => job.priority = Some(answer[1].parse().unwrap()),
            _ => {}
        }
        Ok(())
    }

    fn pruning(&mut self, queue: &str) {
        self.prunes.insert(queue.to_owned());
        let of_queue = self.jobs.values_mut().filter(|job| job.queue == queue);
        of_queue
            .filter(|job| job.end.is_some() || job.attempt > 0 || job.cancelling)
            .for_each(|job| job.may_vanish = true);
    }

    /// All that is there was found: is it what was promised? From now on it is known.
    fn found(&mut self) -> Checked {
        let Finding { jobs, queues } = self.finding.take().unwrap();
        let mut there = BTreeMap::new();
        for found in jobs {
            self.check(&found)?;
            if let Some(twice) = there.insert(found.number, found) {
                return Err(format!("job {} is there twice", twice.number));
            }
        }
        self.check_missing(&there)?;
        for (name, paused) in queues {
            if let Some(Some(promised)) = self.queues.insert(name.clone(), Some(paused))
                && promised != paused
            {
                return Err(format!(
                    "queue {name} was {promised} paused, and is {paused}"
                ));
            }
        }
        for (number, job) in &mut self.jobs {
            match there.get(number) {
                Some(found) => job.adopt(found),
                None => job.standing = Standing::Gone,
            }
        }
        self.numbers = there
            .values()
            .map(|found| (found.id, found.number))
            .collect();
        self.prunes.clear();
        (self.cuts, self.unwatched) = (0, false);
        Ok(())
    }

    fn check(&self, found: &Found) -> Checked {
        let job = self.jobs.get(&found.number);
        let job = job.ok_or_else(|| format!("{found:?} was never handed in"))?;
        let wrong = |what: &str| Err(format!("{what}: found {found:?}, promised {job:?}"));
        if job.standing == Standing::Gone {
            return wrong("it is gone, and there");
        }
        if job.id.is_some_and(|id| id != found.id) {
            return wrong("it has another id");
        }
        if job.queue != found.queue || job.priority.is_some_and(|p| p != found.priority) {
            return wrong("it has changed");
        }
        let length = job.length.to_string();
        let is_readable = ["none", "unread", &length].contains(&found.payload.as_str());
        let needs_payload = !matches!(found.state, "completed" | "cancelled" | "dead");
        if !is_readable || (needs_payload && found.payload == "none") {
            return wrong("its payload is not what was handed in");
        }
        if found.output == "wrong" {
            return wrong("its output is not what the handler gave");
        }
        if found.state == "scheduled" && job.due_ms > 0 && found.due_ms != job.due_ms {
            return wrong("its time has changed");
        }
        if !job.permits(found, self.unwatched) {
            return wrong("its state is not one that it can be in");
        }
        let begun = found.begun();
        let most = job.attempt + self.cuts;
        let is_watched = !job.loose && !self.unwatched;
        if is_watched && (begun < job.attempt || begun > most) {
            return wrong("attempts without a start, or starts without an attempt");
        }
        if found.crashes > job.crashes + self.cuts {
            return wrong("more crashes than cuts");
        }
        Ok(())
    }

    fn check_missing(&self, there: &BTreeMap<u64, Found>) -> Checked {
        let mut calls: BTreeMap<u64, (Option<u64>, Option<u64>)> = BTreeMap::new();
        for (number, job) in &self.jobs {
            let is_there = there.contains_key(number);
            if !is_there && job.standing == Standing::Acknowledged && !job.may_vanish {
                return Err(format!("job {number} is lost: {job:?}"));
            }
            // A start is told only of what is stored.
            if !is_there && job.standing == Standing::Asked && job.attempt > 0 && !job.may_vanish {
                return Err(format!("job {number} has run and is lost: {job:?}"));
            }
            if job.standing == Standing::Asked && !job.may_vanish {
                let (with, without) = calls.entry(job.call).or_default();
                *(if is_there { with } else { without }) = Some(*number);
            }
        }
        for (with, without) in calls.into_values() {
            if let (Some(with), Some(without)) = (with, without) {
                return Err(format!(
                    "half a batch: job {with} is there, job {without} is not"
                ));
            }
        }
        Ok(())
    }

    /// After everything that could run has run: nothing is left that could.
    fn check_quiet(&self, now_ms: i64) -> Checked {
        let stuck = self.jobs.iter().find(|(_, job)| {
            let is_there = job.standing == Standing::Acknowledged;
            is_there && job.end.is_none() && job.due_ms <= now_ms
        });
        stuck.map_or(Ok(()), |(number, job)| {
            Err(format!("job {number} is stuck: {job:?}"))
        })
    }
}

impl Job {
    /// Whether it may be in this state.
    fn permits(&self, found: &Found, unwatched: bool) -> bool {
        let may_have_run = self.attempt > 0 || unwatched;
        if self.loose {
            return true;
        }
        if let Some(end) = self.end {
            return found.state == end;
        }
        let fate = Job::fate_of(found.number);
        match found.state {
            "scheduled" | "ready" | "running" => true,
            "completed" => may_have_run && fate == "completed",
            "cancelled" => self.cancelling || (may_have_run && fate == "cancelled"),
            "dead" => (may_have_run && fate == "dead") || found.crashes >= CRASHES_MAX,
            _ => false,
        }
    }

    fn fate_of(number: u64) -> &'static str {
        match Fate::of(number) {
            Fate::Completes | Fate::Stumbles => "completed",
            Fate::Fails | Fate::Discards => "dead",
            Fate::Cancels => "cancelled",
        }
    }

    fn adopt(&mut self, found: &Found) {
        let is_end = matches!(found.state, "completed" | "cancelled" | "dead");
        self.standing = Standing::Acknowledged;
        self.id = Some(found.id);
        self.end = is_end.then_some(found.state);
        self.priority = Some(found.priority);
        (self.attempt, self.crashes) = (found.begun(), found.crashes);
        (self.loose, self.cancelling, self.may_vanish) = (false, false, false);
    }
}

impl Found {
    /// Attempts that were begun before: that of a running one is yet to be told.
    fn begun(&self) -> u64 {
        self.attempt - u64::from(self.state == "running")
    }

    fn read(words: &[&str]) -> Found {
        let number = |at: usize| words[at].parse::<i64>().unwrap();
        Found {
            id: number(1).cast_unsigned(),
            number: number(2).cast_unsigned(),
            queue: words[3].to_owned(),
            state: known_state(words[4]),
            attempt: number(5).cast_unsigned(),
            crashes: number(6).cast_unsigned(),
            priority: number(7),
            due_ms: number(8),
            payload: words[9].to_owned(),
            output: words[10].to_owned(),
        }
    }
}

fn known_state(name: &str) -> &'static str {
    let known = STATES.into_iter().find(|state| *state == name);
    known.unwrap_or_else(|| panic!("a state `{name}`"))
}
