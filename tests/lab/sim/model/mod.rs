//! What a right engine may show: slow, plain, and without a line of the engine's.
//!
//! Of each job the model keeps what callers were told. After every step it looks at the engine's list and asks,
//! job by job, whether what it sees can have come about; what cannot is named by the invariant that it breaks
//! (docs/invariants.md). Where a crash leaves two answers open it keeps all versions, until the list says which.

mod crash;
mod job;
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub(crate) use job::Is;
use job::{Handler, Job, by_limit, changed, expired, given_back, may, taken_back};
use jobsled::lab::{Answer, Call, End, Loss, Wish};

/// A broken invariant, or something that cannot be.
pub(crate) type Broken = String;

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
    /// The latest wall clock that the engine ever saw: what it ended or freed stays so when the clock is set back.
    pub(crate) latest_ms: i64,
    pub(crate) awake_ms: u64,
    /// How far the wall clock was set since the last look: back, and forward.
    pub(crate) set_ms: (i64, i64),
    /// The engine was told to close; at this awake time it gives back what runs.
    pub(crate) closing: Option<u64>,
}

impl Moment {
    /// By the clock of the step that a crash cut off.
    pub(crate) fn of_the_cut_step(self) -> Moment {
        Moment {
            now_ms: self.latest_ms,
            ..self
        }
    }
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
                let earlier = [
                    taken_back(&job),
                    expired(&job, at),
                    given_back(&job, at),
                    by_limit(&job, at),
                ];
                if !may(&job, call) && !earlier.iter().flatten().any(|way| may(way, call)) {
                    return Err(format!(
                        "I2: {call:?} was done to job {id}, which is {:?}",
                        job.is
                    ));
                }
                // Taken back, or expired, earlier in the step, perhaps before another such call.
                let (same, mut others) = std::mem::take(&mut self.others)
                    .into_iter()
                    .partition::<Vec<_>, _>(|(other, _)| *other == id);
                let ways = same.into_iter().map(|(_, way)| way);
                let ways = ways.chain(taken_back(&job)).chain(expired(&job, at));
                let ways = ways.filter(|way| may(way, call));
                others.extend(ways.filter_map(|way| Some((id, changed(&way, call, at.now_ms)?))));
                self.others = others;
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
            if let Some(holder) = self.holder(&key, at.latest_ms) {
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
    fn holder(&self, key: &(String, String), latest_ms: i64) -> Option<u64> {
        let has = |job: &Rc<Job>| job.wish.key.as_ref() == Some(&key.1) && job.wish.kind == key.0;
        let living = self
            .jobs
            .iter()
            .find(|(_, job)| has(job))
            .map(|(id, _)| *id);
        let held = self
            .held_keys
            .get(key)
            .filter(|(_, until)| *until > latest_ms);
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
        let holder = self.holder(&(kind.to_owned(), key.to_owned()), at.latest_ms);
        match (holder, found) {
            (Some(holder), found) if found != Some(holder) => Err(format!(
                "L9: key {key} is job {holder}'s, and {found:?} was said"
            )),
            _ => Ok(()),
        }
    }
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
