//! What was told, held against what came of it. Knows lines of notes (`notes.rs`) and nothing of the engine.

use std::collections::{BTreeMap, BTreeSet};

use crate::notes::sort;

/// How often a job that kills its process may run.
const KILLER_RUNS_MAX: u64 = 3;

#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what was told of it, each by itself"
)]
struct Job {
    number: Option<u64>,
    sort: Option<u64>,
    acknowledged: bool,
    /// Lives that had ended when it was acknowledged.
    since: u64,
    starts: u64,
    claim: u64,
    attempt: u64,
    /// The life and claim of a handler that has begun and not ended.
    inside: Option<(u64, u64)>,
    told: bool,
    told_by_event: bool,
    /// Somebody was about to cancel it; it was told that it is.
    cancel_asked: bool,
    cancelled: bool,
    /// What its priority may be: the last that was told, and what was asked for since.
    priorities: Vec<i64>,
    priority_told: bool,
    end: Option<End>,
    /// All notes about it, each with its life.
    notes: Vec<String>,
}

#[derive(Debug)]
struct End {
    state: String,
    reason: String,
    priority: i64,
}

/// The job that a note is about.
fn about(line: &str) -> Option<u64> {
    let mut words = line.split(' ');
    let id = match words.next()? {
        "a" | "B" | "stuck" => None,
        "A" => words.nth(1),
        _ => words.next(),
    };
    id?.parse().ok()
}

/// One store, from its making to its end.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    jobs: BTreeMap<u64, Job>,
    claims: BTreeSet<u64>,
    asked: BTreeSet<u64>,
    ids: BTreeMap<u64, u64>,
    batches: Vec<Vec<u64>>,
    found: BTreeMap<u64, u64>,
    lives: u64,
    pub(crate) again: u64,
    pub(crate) starts: u64,
}

impl Oracle {
    /// All notes of one life, whose process is gone by now.
    pub(crate) fn life(&mut self, notes: &str) -> Result<(), String> {
        for line in notes.lines() {
            self.remember(line);
            self.hear(line).map_err(|why| {
                let about = about(line).and_then(|id| self.jobs.get(&id));
                format!("`{line}` in life {}: {why}: {about:?}", self.lives + 1)
            })?;
        }
        self.lives += 1;
        Ok(())
    }

    fn remember(&mut self, line: &str) {
        let number = self.lives + 1;
        if let Some(id) = about(line) {
            self.job(id).notes.push(format!("{number}: {line}"));
        }
    }

    fn hear(&mut self, line: &str) -> Result<(), String> {
        let (what, rest) = line.split_once(' ').ok_or("no note")?;
        if what == "stuck" {
            return Err("something is stuck".to_owned());
        }
        if what == "Z" {
            return self.found(rest);
        }
        let numbers: Option<Vec<i64>> = rest.split(' ').map(|word| word.parse().ok()).collect();
        let numbers = numbers.ok_or("no numbers")?;
        let n = |at: usize| u64::try_from(numbers[at]).unwrap();
        match what {
            "a" => drop(self.asked.insert(n(0))),
            "A" => self.acknowledged(n(0), n(1))?,
            "B" => {
                self.asked.extend((0..numbers.len()).map(n));
                self.batches.push((0..numbers.len()).map(n).collect());
            }
            "S" => self.started(n(0), n(1), n(2), (n(3), n(4)))?,
            "F" => {
                let job = self.job(n(0));
                if job.inside.is_none_or(|(_, claim)| claim != n(1)) {
                    return Err("it ended and had not begun".to_owned());
                }
                job.inside = None;
            }
            "C" | "W" => {
                let job = self.job(n(0));
                if what == "C" && std::mem::replace(&mut job.told_by_event, true) {
                    return Err("completed twice".to_owned());
                }
                job.told = true;
            }
            "x" => self.job(n(0)).cancel_asked = true,
            "X" => self.job(n(0)).cancelled = true,
            "p" => self.job(n(0)).priorities.push(numbers[1]),
            "P" => {
                let job = self.job(n(0));
                (job.priorities, job.priority_told) = (vec![numbers[1]], true);
            }
            "D" => return Err("another payload than was given".to_owned()),
            _ => return Err("no note".to_owned()),
        }
        Ok(())
    }

    fn job(&mut self, id: u64) -> &mut Job {
        self.jobs.entry(id).or_default()
    }

    fn acknowledged(&mut self, number: u64, id: u64) -> Result<(), String> {
        let lives = self.lives;
        if *self.ids.entry(number).or_insert(id) != id {
            return Err("the same key led to another job".to_owned());
        }
        let job = self.job(id);
        if job.number.is_some_and(|other| other != number) {
            return Err(format!("the id is that of {:?}", job.number));
        }
        if !std::mem::replace(&mut job.acknowledged, true) {
            (job.number, job.since) = (Some(number), lives);
        }
        Ok(())
    }

    fn started(
        &mut self,
        id: u64,
        claim: u64,
        attempt: u64,
        who: (u64, u64),
    ) -> Result<(), String> {
        let life = self.lives;
        let (number, sort) = who;
        self.starts += 1;
        if !self.claims.insert(claim) {
            return Err(format!("claim {claim} was given before"));
        }
        if !self.asked.contains(&number) {
            return Err("nobody asked for it".to_owned());
        }
        let job = self.job(id);
        if job.number.is_some_and(|asked| asked != number) {
            return Err(format!("it was asked for as {:?}", job.number));
        }
        if job.claim >= claim || job.attempt >= attempt {
            let before = (job.claim, job.attempt);
            return Err(format!(
                "claim and attempt do not rise, they were {before:?}"
            ));
        }
        if job.told {
            return Err("undone: its completion was told, and it runs again".to_owned());
        }
        if job.cancelled {
            return Err("it was cancelled and runs".to_owned());
        }
        if job.inside.is_some_and(|(at, _)| at == life) {
            return Err("two handlers of it at the same time".to_owned());
        }
        job.starts += 1;
        if sort == sort::ONCE && job.starts > 1 {
            return Err("at most once, and it runs again".to_owned());
        }
        if sort == sort::KILLER && job.starts > KILLER_RUNS_MAX {
            return Err(format!(
                "its {}th run, and each ends the process",
                job.starts
            ));
        }
        (job.number, job.sort) = (Some(number), Some(sort));
        (job.claim, job.attempt, job.inside) = (claim, attempt, Some((life, claim)));
        let again = u64::from(job.starts > 1 && sort != sort::FAILS && sort != sort::KILLER);
        self.again += again;
        Ok(())
    }

    fn found(&mut self, rest: &str) -> Result<(), String> {
        let words: Vec<&str> = rest.split(' ').collect();
        let [id, state, reason, priority, number] = words[..] else {
            return Err("no note".to_owned());
        };
        let id = id.parse().map_err(|_| "no id")?;
        let end = End {
            state: state.to_owned(),
            reason: reason.to_owned(),
            priority: priority.parse().map_err(|_| "no priority")?,
        };
        if let Ok(number) = number.parse() {
            if !self.asked.contains(&number) {
                return Err("nobody asked for it".to_owned());
            }
            if self
                .found
                .insert(number, id)
                .is_some_and(|other| other != id)
            {
                return Err("stored twice".to_owned());
            }
        }
        self.job(id).end = Some(end);
        Ok(())
    }

    /// After the last life, in which everything was to come to its end and was then looked at.
    pub(crate) fn end(&self) -> Result<(), String> {
        for (id, job) in &self.jobs {
            self.judge(job)
                .map_err(|why| format!("job {id}: {why}: {job:?}"))?;
        }
        for batch in &self.batches {
            let there = batch.iter().filter(|n| self.found.contains_key(n)).count();
            if there != 0 && there != batch.len() {
                return Err(format!("{there} of the batch {batch:?} are there"));
            }
        }
        Ok(())
    }

    fn judge(&self, job: &Job) -> Result<(), &'static str> {
        let Some(end) = &job.end else {
            return Err("lost: it was told and is not there");
        };
        let state = end.state.as_str();
        if !["completed", "cancelled", "dead"].contains(&state) {
            return Err("stuck: it did not come to its end");
        }
        if job.told && state != "completed" {
            return Err("undone: its completion was told");
        }
        if job.cancelled && state != "cancelled" {
            return Err("its cancellation was told");
        }
        if job.priority_told && !job.priorities.contains(&end.priority) {
            return Err("not the priority that was told");
        }
        match state {
            "completed" if job.starts == 0 => return Err("completed without a run"),
            "cancelled" if !job.cancel_asked => return Err("nobody cancelled it"),
            "completed" | "cancelled" => return Ok(()),
            _ => {}
        }
        let crashes = self.lives - job.since;
        match (end.reason.as_str(), job.sort) {
            ("crashed", Some(sort::ONCE) | None) => Ok(()),
            ("quarantined", Some(sort::KILLER | sort::SUSPECT) | None) if crashes >= 3 => Ok(()),
            _ => Err("dead without a reason"),
        }
    }

    pub(super) fn acknowledged_count(&self) -> u64 {
        self.jobs.values().filter(|job| job.acknowledged).count() as u64
    }
}
