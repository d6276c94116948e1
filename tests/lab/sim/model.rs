//! What a right engine may show: slow, plain, and without a line of the engine's.
//!
//! Of each job the model keeps what callers were told. After every step it looks at the engine's list and asks,
//! job by job, whether what it sees can have come about; what cannot is named by the invariant that it breaks
//! (docs/invariants.md). Where a crash leaves two answers open it keeps all versions, until the list says which.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jobsled::lab::{Answer, Call, End, Loss, Seen, When, Wish};
use jobsled::{DeadReason, State};

/// A broken invariant, or something that cannot be.
pub(crate) type Broken = String;

/// Where a job is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Is {
    Waiting,
    /// By this claim, and how far its handler is.
    Running(u64, Handler),
    Completed,
    Cancelled,
    Dead(DeadReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    NotBegun,
    /// At this awake time.
    Began(u64),
    /// It has returned and its word is on the way.
    Returned,
}

/// One version of what a job may be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) wish: Rc<Wish>,
    pub(crate) is: Is,
    pub(crate) queue: String,
    pub(crate) priority: i32,
    /// `None`: at once, from whenever it was asked for.
    pub(crate) due_ms: Option<i64>,
    /// Its due time was asked for as a span.
    pub(crate) moves: bool,
    pub(crate) attempt: u32,
    pub(crate) failures: u16,
    pub(crate) crashes: u8,
    pub(crate) cancel_asked: bool,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) output: Option<Vec<u8>>,
    /// Errors of failed attempts, oldest first, with the engine's own words for limits left open. `None`: a crash
    /// may have come before or after the last one.
    pub(crate) errors: Option<Vec<Option<String>>>,
    pub(crate) key_until_ms: i64,
    /// When it was set is not known: it is due as it is shown.
    due_unknown: bool,
}

impl Job {
    fn new(wish: &Wish, now_ms: i64, key_ttl_ms: i64) -> Job {
        let (due_ms, moves) = due(wish.when, now_ms);
        Job {
            is: Is::Waiting,
            queue: wish.queue.clone(),
            priority: wish.priority,
            due_ms,
            moves,
            attempt: 0,
            failures: 0,
            crashes: 0,
            cancel_asked: false,
            expires_at_ms: wish.expires_at_ms,
            output: None,
            errors: Some(Vec::new()),
            key_until_ms: now_ms.saturating_add(key_ttl_ms),
            due_unknown: false,
            wish: Rc::new(wish.clone()),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        !matches!(self.is, Is::Waiting | Is::Running(..))
    }

    fn is_due(&self, now_ms: i64) -> bool {
        self.due_ms.is_none_or(|at| at <= now_ms)
    }

    /// The order in which ready jobs of one queue run.
    fn rank(&self, id: u64) -> (i64, bool, u64) {
        (-i64::from(self.priority), self.crashes > 0, id)
    }

    /// Whether one more crash would convict it.
    fn is_suspect(&self) -> bool {
        let most = self.wish.quarantine_after;
        !self.wish.once && most > 0 && self.crashes > 0 && self.crashes + 1 >= most.max(2)
    }

    fn end(&mut self, is: Is) {
        if !matches!(is, Is::Dead(_)) {
            self.crashes = 0;
        }
        self.is = is;
    }

    /// Waits as it did before it was claimed. It had been due, and a span that was over stays over.
    fn wait_again(&mut self) {
        self.is = Is::Waiting;
        if self.moves {
            self.due_ms = None;
        }
    }

    fn wait(&mut self, due_ms: Option<i64>, moves: bool) {
        (self.is, self.due_ms, self.moves) = (Is::Waiting, due_ms, moves);
        self.cancel_asked = false;
    }

    /// An attempt has ended like this, now.
    fn settled(&mut self, end: &End, now_ms: i64) {
        let obeys = self.cancel_asked && !matches!(end, End::Completed(_) | End::Discarded(_));
        let after = |ms: u64| Some(now_ms.saturating_add_unsigned(ms));
        match end {
            _ if obeys => self.end(Is::Cancelled),
            End::Completed(output) => {
                self.output = Some(output.clone());
                self.end(Is::Completed);
            }
            End::Failed {
                error,
                retry_after_ms,
            } => {
                self.failures += 1;
                if let Some(errors) = &mut self.errors {
                    errors.push((!error.is_empty()).then(|| error.clone()));
                }
                if self.failures >= self.wish.attempts_max {
                    self.end(Is::Dead(DeadReason::AttemptsUsedUp));
                } else {
                    self.crashes = 0;
                    self.wait(after(retry_after_ms.unwrap_or(self.wish.backoff_ms)), true);
                }
            }
            End::Snoozed(ms) => {
                self.crashes = 0;
                self.wait(after(*ms), true);
            }
            End::Discarded(_) => self.end(Is::Dead(DeadReason::Discarded)),
            End::Cancelled(_) => self.end(Is::Cancelled),
            End::GivenBack if self.wish.once => self.end(Is::Dead(DeadReason::Crashed)),
            End::GivenBack => self.wait_again(),
        }
    }
}

fn due(when: When, now_ms: i64) -> (Option<i64>, bool) {
    match when {
        When::Now => (None, false),
        When::Until(at_ms) => (Some(at_ms), false),
        When::For(ms) => (Some(now_ms.saturating_add_unsigned(ms)), true),
    }
}

/// What was asked and not yet answered.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Call(Call),
    /// A worker's word about a claim.
    Settle {
        id: u64,
        claim: u64,
        end: End,
    },
}

/// What the driver knows of the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now_ms: i64,
    pub(crate) awake_ms: u64,
    /// How far the wall clock was set since the last look: back, and forward.
    pub(crate) set_ms: (i64, i64),
    /// The engine was told to close; at this awake time it gives back what runs.
    pub(crate) closing: Option<u64>,
}

/// How a process ended, for what became of its claims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    /// A power cut since the last opening that went well.
    pub(crate) power: bool,
    /// Openings since then that did not end well: what they found may be in the journal.
    pub(crate) cut_openings: u32,
}

impl Crash {
    pub(crate) fn add(&mut self, loss: Loss) {
        self.power |= loss == Loss::Power;
    }
}

/// How the engine is set up, as far as it can be seen.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) handled: Vec<String>,
    pub(crate) keep_finished: usize,
    pub(crate) keep_dead: usize,
    pub(crate) key_ttl_ms: i64,
}

/// Shared, because every step looks at all and changes few.
pub(crate) type Jobs = BTreeMap<u64, Rc<Job>>;

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) rules: Rules,
    pub(crate) jobs: Jobs,
    /// Deleted or pruned: never seen again.
    gone: BTreeSet<u64>,
    /// Of jobs that are gone: whose it was, until when it is taken for certain.
    held_keys: BTreeMap<(String, String), (u64, i64)>,
    /// `None`: an answer is missing.
    paused: BTreeMap<String, Option<bool>>,
    caps: BTreeMap<String, Option<Option<u32>>>,
    newest_id: u64,
    newest_claim: u64,
    /// Taken by hand in this step: of its kind the first, not of its queue.
    by_hand: BTreeSet<u64>,
    /// Asked to be pruned in this step.
    pruning: bool,
    /// The latest wall clock that was ever shown: what it freed stays free when it is set back.
    latest_ms: i64,
    /// Other versions of jobs, until the next look.
    others: Vec<(u64, Job)>,
}

impl Model {
    pub(crate) fn new(rules: Rules) -> Model {
        Model {
            rules,
            jobs: BTreeMap::new(),
            gone: BTreeSet::new(),
            held_keys: BTreeMap::new(),
            paused: BTreeMap::new(),
            caps: BTreeMap::new(),
            newest_id: 0,
            newest_claim: 0,
            by_hand: BTreeSet::new(),
            pruning: false,
            latest_ms: i64::MIN,
            others: Vec::new(),
        }
    }

    /// A slot began a job that was handed out.
    pub(crate) fn begins(
        &mut self,
        id: u64,
        claim: u64,
        attempt: u32,
        awake_ms: u64,
    ) -> Result<(), Broken> {
        let job = self.jobs.get_mut(&id).map(Rc::make_mut);
        let job = job.ok_or_else(|| format!("I1: job {id} begins and is not there"))?;
        match job.is {
            // I6, E2: what begins was seen in the list, and that is shown only when it is durable.
            Is::Running(current, Handler::NotBegun)
                if current == claim && job.attempt == attempt =>
            {
                job.is = Is::Running(claim, Handler::Began(awake_ms));
                Ok(())
            }
            ref is => Err(format!(
                "I6: job {id} begins by claim {claim}, attempt {attempt}; it is {is:?}, attempt {}",
                job.attempt
            )),
        }
    }

    /// Its handler has returned.
    pub(crate) fn returned(&mut self, id: u64, claim: u64) {
        if let Some(job) = self.jobs.get_mut(&id).map(Rc::make_mut)
            && let Is::Running(current, handler) = &mut job.is
            && *current == claim
        {
            *handler = Handler::Returned;
        }
    }

    /// An answer came. What it says must fit, and from now on it must hold.
    pub(crate) fn answered(
        &mut self,
        asked: &Asked,
        answer: &Answer,
        at: Moment,
    ) -> Result<(), Broken> {
        match (asked, answer) {
            (Asked::Settle { id, claim, end }, Answer::Settled(true)) => {
                let job = self.jobs.get_mut(id).map(Rc::make_mut);
                let job = job.ok_or_else(|| format!("I4: job {id} is settled and not there"))?;
                match job.is {
                    Is::Running(current, _) if current == *claim => job.settled(end, at.now_ms),
                    ref is => {
                        return Err(format!(
                            "I4: claim {claim} of job {id} settles it; it is {is:?}"
                        ));
                    }
                }
                Ok(())
            }
            (Asked::Settle { .. }, Answer::Settled(false)) => Ok(()),
            (Asked::Call(call), answer) => self.call_answered(call, answer, at),
            (asked, answer) => Err(format!("{asked:?} was answered by {answer:?}")),
        }
    }

    fn call_answered(&mut self, call: &Call, answer: &Answer, at: Moment) -> Result<(), Broken> {
        match (call, answer) {
            (Call::Enqueue(wishes), Answer::Placed(placed)) => self.placed(wishes, placed, at),
            (Call::Pause(queue, paused), Answer::Done) => {
                self.paused.insert(queue.clone(), Some(*paused));
                Ok(())
            }
            (Call::Cap(queue, cap), Answer::Done) => {
                self.caps.insert(queue.clone(), Some(*cap));
                Ok(())
            }
            (Call::Prune { .. }, Answer::Pruned(_)) => {
                self.pruning = true;
                Ok(())
            }
            (Call::FindKey(kind, key), Answer::Key(found)) => self.key_found(kind, key, *found, at),
            (Call::Claim { .. }, Answer::Claimed(Some(held))) => {
                self.by_hand.insert(held.id());
                Ok(())
            }
            (Call::Cancel(id), Answer::IsRunning) => {
                if let Some(job) = self.jobs.get_mut(id).map(Rc::make_mut) {
                    job.cancel_asked = true;
                }
                Ok(())
            }
            (call, Answer::Done) => {
                let Some(id) = about(call) else { return Ok(()) };
                let job = self.jobs.get(&id).cloned();
                let job =
                    job.ok_or_else(|| format!("{call:?} was done and there is no job {id}"))?;
                // Taken back, or expired, earlier in the step.
                let others = taken_back(&job).into_iter().chain(expired(&job, at));
                let others = others.filter_map(|other| changed(&other, call, at.now_ms));
                self.others.extend(others.map(|other| (id, other)));
                self.keep(id, changed(&job, call, at.now_ms));
                Ok(())
            }
            (call, Answer::NoSuchJob) => {
                // Pruned in the same step, or gone before.
                let known = about(call).and_then(|id| self.jobs.get(&id));
                match known {
                    Some(job) if !job.is_finished() && job.expires_at_ms.is_none() => Err(format!(
                        "I1: {call:?} found no such job; it is {:?}",
                        job.is
                    )),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// A version of a job after a change, or its absence.
    fn keep(&mut self, id: u64, version: Option<Job>) {
        match version {
            Some(job) => {
                self.jobs.insert(id, Rc::new(job));
            }
            None => self.goes(id),
        }
    }

    fn goes(&mut self, id: u64) {
        if let Some(job) = self.jobs.remove(&id)
            && let Some(key) = &job.wish.key
        {
            let key = (job.wish.kind.clone(), key.clone());
            self.held_keys.insert(key, (id, job.key_until_ms));
        }
        self.gone.insert(id);
    }

    fn placed(
        &mut self,
        wishes: &[Wish],
        placed: &[(u64, bool)],
        at: Moment,
    ) -> Result<(), Broken> {
        if wishes.len() != placed.len() {
            return Err(format!(
                "I7: {} of a batch of {}",
                placed.len(),
                wishes.len()
            ));
        }
        for (wish, (id, is_new)) in wishes.iter().zip(placed) {
            if *is_new {
                self.add(*id, wish, at)?;
            } else {
                self.duplicate(*id, wish)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, id: u64, wish: &Wish, at: Moment) -> Result<(), Broken> {
        // What an unanswered enqueue took is not known, so ids may leave gaps.
        if id <= self.newest_id && (self.jobs.contains_key(&id) || self.gone.contains(&id)) {
            return Err(format!("L3: id {id} is given out again"));
        }
        self.newest_id = self.newest_id.max(id);
        if let Some(key) = &wish.key {
            let key = (wish.kind.clone(), key.clone());
            if let Some(holder) = self.holder(&key, at.now_ms) {
                return Err(format!("L9: job {id} got the key {key:?} of job {holder}"));
            }
            self.held_keys.remove(&key);
        }
        self.jobs.insert(
            id,
            Rc::new(Job::new(wish, at.now_ms, self.rules.key_ttl_ms)),
        );
        Ok(())
    }

    /// Who has a key for certain.
    fn holder(&self, key: &(String, String), now_ms: i64) -> Option<u64> {
        let has = |job: &Rc<Job>| job.wish.key.as_ref() == Some(&key.1) && job.wish.kind == key.0;
        let living = self
            .jobs
            .iter()
            .find(|(_, job)| has(job))
            .map(|(id, _)| *id);
        let held = self
            .held_keys
            .get(key)
            .filter(|(_, until)| *until > now_ms.max(self.latest_ms));
        living.or(held.map(|(id, _)| *id))
    }

    fn duplicate(&self, id: u64, wish: &Wish) -> Result<(), Broken> {
        let key = wish
            .key
            .clone()
            .ok_or_else(|| format!("L9: job {id} is a duplicate of no key"))?;
        let has = |job: &Rc<Job>| job.wish.key.as_ref() == Some(&key) && job.wish.kind == wish.kind;
        let held = self.held_keys.get(&(wish.kind.clone(), key.clone()));
        if self.jobs.get(&id).is_some_and(has) || held.is_some_and(|(holder, _)| *holder == id) {
            return Ok(());
        }
        Err(format!(
            "L9: key {key} is said to be job {id}'s, and is not"
        ))
    }

    fn key_found(
        &self,
        kind: &str,
        key: &str,
        found: Option<u64>,
        at: Moment,
    ) -> Result<(), Broken> {
        let holder = self.holder(&(kind.to_owned(), key.to_owned()), at.now_ms);
        match (holder, found) {
            (Some(holder), found) if found != Some(holder) => Err(format!(
                "L9: key {key} is job {holder}'s, and {found:?} was said"
            )),
            _ => Ok(()),
        }
    }

    /// After a step that went well: what the list shows must have come about by what was answered, and by time.
    pub(crate) fn look(&mut self, rows: &[Seen], at: Moment) -> Result<(), Broken> {
        let before = self.jobs.clone();
        for row in rows {
            let was = before.get(&row.id);
            let was = was.ok_or_else(|| format!("I2: a job is there and must not be: {row:?}"))?;
            if at.set_ms == (0, 0) && shows(was, row, at) {
                continue;
            }
            let now = Model::became(was, row, at);
            let others = self.others.iter().filter(|(other, _)| *other == row.id);
            let mut others = others.filter_map(|(_, other)| Model::became(other, row, at).ok());
            let now = now.or_else(|why| others.next().ok_or(why))?;
            self.jobs.insert(row.id, Rc::new(now));
        }
        if rows.len() < before.len() {
            let seen: BTreeSet<u64> = rows.iter().map(|row| row.id).collect();
            let missing = before.iter().filter(|(id, _)| !seen.contains(id));
            for (id, job) in missing.clone() {
                self.may_be_gone(*id, job)?;
            }
            missing.for_each(|(id, _)| self.goes(*id));
            self.check_retention(&before)?;
        }
        self.check_claims(&before, at)?;
        (self.pruning, self.by_hand) = (false, BTreeSet::new());
        self.others.clear();
        self.latest_ms = self.latest_ms.max(at.now_ms);
        Ok(())
    }

    /// What time and the engine may have made of a job.
    fn became(job: &Job, row: &Seen, at: Moment) -> Result<Job, Broken> {
        let mut now = job.clone();
        follow_clock(&mut now, row, at);
        let ways = [
            Some(now.clone()),
            by_claim(&now, row),
            taken_back(&now),
            taken_back(&now).and_then(|back| by_claim(&back, row)),
            expired(&now, at),
            given_back(&now, at),
            by_limit(&now, at),
            by_limit(&now, at).and_then(|back| by_claim(&back, row)),
        ];
        let fits = ways.into_iter().flatten().find(|way| shows(way, row, at));
        fits.ok_or_else(|| {
            format!(
                "{}: job {} was {job:?} and is {row:?}",
                invariant(job),
                row.id
            )
        })
    }

    fn may_be_gone(&self, id: u64, job: &Job) -> Result<(), Broken> {
        let may_end_by_time = job.expires_at_ms.is_some() || matches!(job.is, Is::Running(..));
        if !job.is_finished() && !may_end_by_time {
            return Err(format!("I1: job {id} is gone; it was {:?}", job.is));
        }
        if self.pruning {
            return Ok(());
        }
        // One that ended in the very step was never seen so; it may be of either sort.
        let sorts: &[bool] = match job.is {
            Is::Dead(_) => &[true],
            Is::Completed | Is::Cancelled => &[false],
            Is::Waiting | Is::Running(..) => &[false, true],
        };
        let too_many = |dead: bool| {
            let others = Model::ended(&job.queue, dead, &self.jobs, id);
            others + 1
                > if dead {
                    self.rules.keep_dead
                } else {
                    self.rules.keep_finished
                }
        };
        if !sorts.iter().any(|dead| too_many(*dead)) {
            return Err(format!(
                "I9: job {id} ({:?}) is gone, and there was room for it",
                job.is
            ));
        }
        Ok(())
    }

    /// Jobs of a queue that died, or ended otherwise; without one.
    fn ended(queue: &str, dead: bool, jobs: &Jobs, without: u64) -> usize {
        let counts = |(id, job): &(&u64, &Rc<Job>)| {
            **id != without
                && job.queue == queue
                && ((job.is_finished() && matches!(job.is, Is::Dead(_)) == dead)
                    // It may have expired in the same step.
                    || (dead && !job.is_finished() && job.expires_at_ms.is_some()))
        };
        jobs.iter().filter(counts).count()
    }

    /// No more than what is too much may go.
    fn check_retention(&self, before: &Jobs) -> Result<(), Broken> {
        if self.pruning {
            return Ok(());
        }
        let queues: BTreeSet<&String> = before.values().map(|job| &job.queue).collect();
        for queue in queues {
            for dead in [false, true] {
                let counts = |jobs: &Jobs| {
                    let alike = |job: &&Rc<Job>| {
                        job.queue == *queue
                            && job.is_finished()
                            && matches!(job.is, Is::Dead(_)) == dead
                    };
                    jobs.values().filter(alike).count()
                };
                let keep = if dead {
                    self.rules.keep_dead
                } else {
                    self.rules.keep_finished
                };
                let (was, is) = (counts(before), counts(&self.jobs));
                if is < was.min(keep) {
                    return Err(format!(
                        "I9: {is} finished jobs of {queue} are left of {was}, {keep} are kept"
                    ));
                }
            }
        }
        Ok(())
    }

    /// I5, L3, L8: who was claimed in this step, and who was passed over.
    fn check_claims(&mut self, before: &Jobs, at: Moment) -> Result<(), Broken> {
        let claim_of = |job: &Rc<Job>| match job.is {
            Is::Running(claim, _) => Some(claim),
            _ => None,
        };
        let is_new = |(id, job): &(&u64, &Rc<Job>)| {
            let was = before.get(id);
            !was.is_some_and(|was| Rc::ptr_eq(was, job)) && was.and_then(claim_of) != claim_of(job)
        };
        let claims = self.jobs.iter().filter(is_new);
        let mut claimed: Vec<(u64, u64)> = claims
            .filter_map(|(id, job)| Some((claim_of(job)?, *id)))
            .collect();
        claimed.sort_unstable();
        for (claim, id) in claimed {
            if claim <= self.newest_claim {
                return Err(format!(
                    "L3: claim {claim} of job {id} after claim {}",
                    self.newest_claim
                ));
            }
            self.newest_claim = claim;
            let job = &self.jobs[&id];
            if !job.is_due(at.now_ms) {
                return Err(format!(
                    "I5: job {id} was claimed at {}: {job:?}",
                    at.now_ms
                ));
            }
            if job.expires_at_ms.is_some_and(|end| end <= at.now_ms) {
                return Err(format!(
                    "I5: job {id} was claimed at {} and had expired",
                    at.now_ms
                ));
            }
            if self.paused.get(&job.queue) == Some(&Some(true)) {
                return Err(format!(
                    "I5: job {id} was claimed, its queue {} is paused",
                    job.queue
                ));
            }
            self.check_nobody_passed_over(id, job, before, at)?;
            self.check_cap(&job.queue)?;
        }
        self.check_alone()
    }

    fn check_nobody_passed_over(
        &self,
        id: u64,
        job: &Job,
        before: &Jobs,
        at: Moment,
    ) -> Result<(), Broken> {
        let by_hand = self.by_hand.contains(&id);
        let rival = self.jobs.iter().find(|(other, rival)| {
            let in_play = rival.queue == job.queue
                && rival.is == Is::Waiting
                && rival.is_due(at.now_ms)
                && rival.expires_at_ms.is_none_or(|end| end > at.now_ms);
            let may_run = if by_hand {
                // One that was handed out then, and was taken back later in the step, is no rival.
                rival.wish.kind == job.wish.kind && before[other].is == Is::Waiting
            } else {
                self.rules.handled.contains(&rival.wish.kind)
            };
            in_play && may_run && rival.rank(**other) < job.rank(id)
        });
        match rival {
            Some((other, rival)) => Err(format!(
                "I5: job {id} (priority {}, {} crashes) was claimed before job {other} (priority {}, {} crashes)",
                job.priority, job.crashes, rival.priority, rival.crashes
            )),
            None => Ok(()),
        }
    }

    /// Nothing is claimed beyond a cap; what ran before it was set runs on.
    fn check_cap(&self, queue: &str) -> Result<(), Broken> {
        let Some(Some(Some(cap))) = self.caps.get(queue) else {
            return Ok(());
        };
        let runs = |job: &&Rc<Job>| job.queue == queue && matches!(job.is, Is::Running(..));
        let running = self.jobs.values().filter(runs).count();
        if running > *cap as usize {
            return Err(format!("I5: {running} of {queue} run, its cap is {cap}"));
        }
        Ok(())
    }

    /// One that may be convicted runs alone.
    fn check_alone(&self) -> Result<(), Broken> {
        let running: Vec<(&u64, &Rc<Job>)> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job.is, Is::Running(..)))
            .collect();
        match running.iter().find(|(_, job)| job.is_suspect()) {
            Some((id, _)) if running.len() > 1 => Err(format!(
                "L8: job {id} may be convicted and runs beside others: {running:?}"
            )),
            _ => Ok(()),
        }
    }

    /// After a crash and an opening that went well: every job is one of what it may be.
    ///
    /// `unanswered` is what was on its way; `read` tells the payload of a job that nobody knows yet.
    pub(crate) fn reopened(
        &mut self,
        rows: &[Seen],
        unanswered: &[Asked],
        crash: Crash,
        at: Moment,
        read: &mut dyn FnMut(u64) -> Option<Vec<u8>>,
    ) -> Result<(), Broken> {
        let seen: BTreeMap<u64, &Seen> = rows.iter().map(|row| (row.id, row)).collect();
        let before = self.jobs.clone();
        let asks_prune = |asked: &Asked| matches!(asked, Asked::Call(Call::Prune { .. }));
        self.pruning = unanswered.iter().any(asks_prune);
        self.find_new(&seen, unanswered, at, read)?;
        let mut missing = Vec::new();
        for (id, job) in &before {
            let versions = versions(*id, job, unanswered, at.now_ms);
            match seen.get(id) {
                Some(row) => {
                    let survivor = versions
                        .iter()
                        .flatten()
                        .find_map(|job| Model::recovered(job, row, crash, at));
                    let survivor = survivor.ok_or_else(|| {
                        format!(
                            "{}: after the crash job {id} was {versions:?} and is {row:?}",
                            invariant(job)
                        )
                    })?;
                    self.jobs.insert(*id, Rc::new(survivor));
                }
                None if versions.contains(&None) => self.goes(*id),
                None => missing.push((*id, versions)),
            }
        }
        for (id, versions) in missing {
            let why = |job: &Job| self.may_be_gone(id, job).err();
            let whys: Option<Vec<Broken>> = versions.iter().flatten().map(why).collect();
            if let Some(why) = whys.and_then(|whys| whys.into_iter().next()) {
                return Err(why);
            }
            self.goes(id);
        }
        for asked in unanswered {
            if let Asked::Call(Call::Pause(queue, _)) = asked {
                self.paused.insert(queue.clone(), None);
            }
            if let Asked::Call(Call::Cap(queue, _)) = asked {
                self.caps.insert(queue.clone(), None);
            }
        }
        (self.pruning, self.by_hand) = (false, BTreeSet::new());
        self.others.clear();
        self.latest_ms = self.latest_ms.max(at.now_ms);
        Ok(())
    }

    /// Jobs that nobody was told of belong to enqueues that were cut off: each of those is there whole or not at all.
    fn find_new(
        &mut self,
        seen: &BTreeMap<u64, &Seen>,
        unanswered: &[Asked],
        at: Moment,
        read: &mut dyn FnMut(u64) -> Option<Vec<u8>>,
    ) -> Result<(), Broken> {
        let mut strangers: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for id in seen.keys().filter(|id| !self.jobs.contains_key(id)) {
            if self.gone.contains(id) {
                return Err(format!("I2: job {id} is back from the dead"));
            }
            let payload =
                read(*id).ok_or_else(|| format!("I9: the payload of job {id} cannot be read"))?;
            strangers.insert(payload, *id);
        }
        for asked in unanswered {
            let Asked::Call(Call::Enqueue(wishes)) = asked else {
                continue;
            };
            let there: Vec<Option<u64>> = wishes
                .iter()
                .map(|w| strangers.remove(&w.payload))
                .collect();
            // One whose key was taken is an answer and not a job.
            let missing = wishes
                .iter()
                .zip(&there)
                .filter(|(w, id)| w.key.is_none() && id.is_none())
                .count();
            if there.iter().any(Option::is_some) && missing > 0 {
                return Err(format!(
                    "I7: {missing} of a batch of {} are missing: {there:?}",
                    wishes.len()
                ));
            }
            for (wish, id) in wishes.iter().zip(there) {
                if let Some(id) = id {
                    self.newest_id = self.newest_id.max(id);
                    let job = Job::new(wish, at.now_ms, self.rules.key_ttl_ms);
                    // By which clock it was stored is not known.
                    let row = seen[&id];
                    let job = Job {
                        due_unknown: job.moves,
                        key_until_ms: i64::MIN,
                        ..job
                    };
                    let crash = Crash {
                        power: true,
                        cut_openings: 1,
                    };
                    let versions = versions(id, &job, unanswered, at.now_ms);
                    let mut versions = versions.iter().flatten();
                    let job = versions.find_map(|job| Model::recovered(job, row, crash, at));
                    self.jobs.insert(
                        id,
                        job.ok_or_else(|| format!("I7: job {id} began as {row:?}"))?
                            .into(),
                    );
                }
            }
        }
        match strangers.first_key_value() {
            Some((_, id)) => Err(format!(
                "I2: job {id} is there, and nobody asked for it: {:?}",
                seen[id]
            )),
            None => Ok(()),
        }
    }

    /// What recovery may make of a version, if that is what is seen.
    fn recovered(job: &Job, row: &Seen, crash: Crash, at: Moment) -> Option<Job> {
        let mut job = job.clone();
        if std::mem::take(&mut job.due_unknown) {
            job.due_ms = Some(row.due_ms);
        }
        follow_clock(&mut job, row, at);
        let mut ways = vec![job.clone()];
        ways.extend(expired(&job, at));
        // Claimed in the step that was cut off.
        if job.is == Is::Waiting {
            let mut claimed = job.clone();
            claimed.attempt += 1;
            claimed.is = Is::Running(0, Handler::NotBegun);
            ways.extend(after_crash(&claimed, crash));
        }
        if matches!(job.is, Is::Running(..)) {
            ways = after_crash(&job, crash);
            // Taken back, and perhaps claimed again, in the step that was cut off.
            let back = taken_back(&job)
                .into_iter()
                .chain(by_limit(&job, at))
                .chain(given_back(&job, at));
            for mut back in back {
                if back.moves && back.due_ms.is_some() {
                    back.due_ms = Some(row.due_ms); // by which clock is not known
                }
                let mut claimed = back.clone();
                if claimed.is == Is::Waiting {
                    claimed.attempt += 1;
                    claimed.is = Is::Running(0, Handler::NotBegun);
                    ways.extend(after_crash(&claimed, crash));
                }
                ways.push(back);
            }
        }
        ways.into_iter().find(|way| shows(way, row, at))
    }
}

/// What becomes of a claim when its process has died.
fn after_crash(job: &Job, crash: Crash) -> Vec<Job> {
    let Is::Running(_, handler) = job.is else {
        return vec![job.clone()];
    };
    let mut ways = Vec::new();
    let unsure = crash.power && crash.cut_openings > 0;
    // A process that dies leaves the recorder; a machine that dies does not.
    let started = crash.power || handler != Handler::NotBegun;
    let ended = !crash.power && handler == Handler::Returned;
    let mut waiting = job.clone();
    waiting.wait_again();
    waiting.cancel_asked = false;
    if !started || unsure {
        ways.push(waiting.clone());
    }
    if (started || unsure) && job.wish.once {
        let mut dead = job.clone();
        dead.errors = None;
        dead.end(Is::Dead(DeadReason::Crashed));
        ways.push(dead);
    } else if started || unsure {
        if ended || unsure {
            ways.push(waiting.clone());
        }
        if !ended || unsure {
            let mut hit = waiting;
            if job.is_suspect() {
                hit.end(Is::Dead(DeadReason::Quarantined));
            } else {
                hit.crashes += 1;
            }
            ways.push(hit);
        }
    }
    ways
}

/// The jobs that a call is about.
fn about(call: &Call) -> Option<u64> {
    match call {
        Call::Cancel(id)
        | Call::Delete(id)
        | Call::Retry(id)
        | Call::Reschedule(id, _)
        | Call::SetPriority(id, _)
        | Call::MoveTo(id, _)
        | Call::Complete(id, _) => Some(*id),
        _ => None,
    }
}

/// A job after a call that was done.
fn changed(job: &Job, call: &Call, now_ms: i64) -> Option<Job> {
    let mut job = job.clone();
    // Handed out and not begun: the writer takes it back first.
    if !matches!(call, Call::Complete(..))
        && let Some(back) = taken_back(&job)
    {
        job = back;
    }
    match call {
        Call::Cancel(_) => job.end(Is::Cancelled),
        Call::Delete(_) => return None,
        Call::Complete(_, output) => {
            job.output = Some(output.clone());
            job.end(Is::Completed);
        }
        Call::SetPriority(_, priority) => job.priority = *priority,
        Call::MoveTo(_, queue) => job.queue.clone_from(queue),
        Call::Retry(_) | Call::Reschedule(..) => {
            let when = match call {
                Call::Reschedule(_, when) => *when,
                _ => When::Now,
            };
            let (due_ms, moves) = due(when, now_ms);
            if job.is_finished() {
                (job.failures, job.crashes, job.expires_at_ms) = (0, 0, None);
                job.cancel_asked = false;
                job.is = Is::Waiting;
            }
            (job.due_ms, job.moves) = (due_ms, moves);
        }
        _ => {}
    }
    Some(job)
}

/// What a job may be when any of what was on its way may have been done, in its order. `None`: it is gone.
fn versions(id: u64, job: &Job, unanswered: &[Asked], now_ms: i64) -> Vec<Option<Job>> {
    let mut versions = vec![Some(job.clone())];
    for asked in unanswered {
        let more: Vec<Option<Job>> = versions
            .iter()
            .flatten()
            .flat_map(|job| match asked {
                Asked::Settle { id: about, claim, end } if *about == id => {
                    let mut after = job.clone();
                    match job.is {
                        Is::Running(current, _) if current == *claim => {
                            after.settled(end, now_ms);
                            after.due_unknown = after.is == Is::Waiting && after.moves;
                            // By which clock it was settled is not known; nor whether a wish to cancel came first.
                            let mut cancelled = job.clone();
                            cancelled.end(Is::Cancelled);
                            let asked = unanswered.iter().any(
                                |asked| matches!(asked, Asked::Call(Call::Cancel(about)) if *about == id),
                            );
                            let obeyed = asked.then_some(Some(cancelled));
                            obeyed.into_iter().chain([Some(after)]).collect()
                        }
                        _ => Vec::new(),
                    }
                }
                Asked::Call(call) if about(call) == Some(id) && may(job, call) => {
                    let after = changed(job, call, now_ms);
                    vec![after.map(|job| Job { due_unknown: job.moves, ..job })]
                }
                _ => Vec::new(),
            })
            .collect();
        for version in more {
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
    }
    versions
}

/// Whether a call can be done to a job as it is.
fn may(job: &Job, call: &Call) -> bool {
    let begun = matches!(job.is, Is::Running(_, handler) if handler != Handler::NotBegun);
    match call {
        Call::Complete(..) => !job.is_finished(),
        Call::Delete(_) => !begun,
        Call::Retry(_) | Call::Reschedule(..) => !begun && job.is != Is::Completed,
        _ => !begun && !job.is_finished(),
    }
}

/// Spans move with the wall clock.
fn follow_clock(job: &mut Job, row: &Seen, at: Moment) {
    let (back, forward) = at.set_ms;
    if let Some(due_ms) = job.due_ms
        && job.moves
        && (due_ms + back..=due_ms + forward).contains(&row.due_ms)
    {
        job.due_ms = Some(row.due_ms);
    }
}

fn by_claim(job: &Job, row: &Seen) -> Option<Job> {
    let claim = row.claim.filter(|_| job.is == Is::Waiting)?;
    let mut job = job.clone();
    job.is = Is::Running(claim, Handler::NotBegun);
    job.attempt += 1;
    Some(job)
}

/// The writer takes back what no handler has begun.
fn taken_back(job: &Job) -> Option<Job> {
    let Is::Running(_, Handler::NotBegun) = job.is else {
        return None;
    };
    let mut job = job.clone();
    job.wait_again();
    job.attempt -= 1;
    Some(job)
}

fn expired(job: &Job, at: Moment) -> Option<Job> {
    let over = job.expires_at_ms.is_some_and(|end| end <= at.now_ms);
    let back = taken_back(job).unwrap_or_else(|| job.clone());
    (over && back.is == Is::Waiting).then(|| {
        let mut job = back;
        job.end(Is::Dead(DeadReason::Expired));
        job
    })
}

/// The engine closes and the handler's grace is over.
fn given_back(job: &Job, at: Moment) -> Option<Job> {
    let over = at.closing.is_some_and(|until| until <= at.awake_ms);
    (over && matches!(job.is, Is::Running(..))).then(|| {
        let mut job = job.clone();
        job.settled(&End::GivenBack, at.now_ms);
        job
    })
}

/// A limit was reached and its grace is over: the lease is taken away.
fn by_limit(job: &Job, at: Moment) -> Option<Job> {
    const LOCK_TIMEOUT_MS: u64 = 600_000;
    let Is::Running(_, Handler::Began(began)) = job.is else {
        return None;
    };
    let limits = [
        job.wish.time_limit_ms,
        job.wish.stall_timeout_ms,
        LOCK_TIMEOUT_MS,
    ];
    let least = limits
        .into_iter()
        .filter(|ms| *ms > 0)
        .min()
        .unwrap_or(LOCK_TIMEOUT_MS);
    if at.awake_ms < began + least {
        return None;
    }
    let mut job = job.clone();
    if job.wish.once && !job.cancel_asked {
        job.errors.iter_mut().for_each(|errors| errors.push(None));
        job.end(Is::Dead(DeadReason::Crashed));
    } else {
        let end = End::Failed {
            error: String::new(),
            retry_after_ms: None,
        };
        job.settled(&end, at.now_ms);
    }
    Some(job)
}

/// Whether a job would be shown like this.
fn shows(job: &Job, row: &Seen, at: Moment) -> bool {
    let state = match job.is {
        Is::Waiting if job.is_due(at.now_ms) => State::Ready,
        Is::Waiting => State::Scheduled,
        Is::Running(..) => State::Running,
        Is::Completed => State::Completed,
        Is::Cancelled => State::Cancelled,
        Is::Dead(_) => State::Dead,
    };
    let claim = match job.is {
        Is::Running(claim, _) => Some(claim),
        _ => None,
    };
    let reason = match job.is {
        Is::Dead(reason) => Some(reason),
        _ => None,
    };
    let due = match job.due_ms {
        _ if job.is != Is::Waiting => true,
        None => row.due_ms <= at.now_ms,
        Some(due_ms) => due_ms == row.due_ms || (job.moves && due_ms.max(row.due_ms) <= at.now_ms),
    };
    (state, claim, reason) == (row.state, row.claim, row.dead_reason)
        && due
        && (job.queue == row.queue && job.priority == row.priority)
        && (job.attempt, job.failures, job.crashes) == (row.attempt, row.failures, row.crashes)
        && (job.wish.kind == row.kind && job.wish.key == row.key)
        && (job.is_finished() || job.expires_at_ms == row.expires_at_ms)
}

/// The invariant that is broken when a job is not what it was.
fn invariant(job: &Job) -> &'static str {
    match job.is {
        Is::Waiting => "I1",
        Is::Running(..) => "I4",
        Is::Completed | Is::Cancelled | Is::Dead(_) => "I2",
    }
}
