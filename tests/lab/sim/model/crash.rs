//! After a crash: every job is one of what it may be, and what nobody was told of is there whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use jobsled::DeadReason;
use jobsled::lab::{Call, Seen};

use super::job::{
    Handler, Is, Job, by_limit, changed, expired, follow_clock, given_back, invariant, may, shows,
    taken_back,
};
use super::{Asked, Broken, Crash, Model, Moment, about};

impl Model {
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
            let versions = versions(*id, job, unanswered, at);
            match seen.get(id) {
                Some(row) => {
                    let mut fit = versions
                        .iter()
                        .flatten()
                        .filter_map(|job| job.either(|job| Model::recovered(job, row, crash, at)));
                    let mut survivor = fit.next().ok_or_else(|| {
                        format!(
                            "{}: after the crash job {id} was {versions:?} and is {row:?}",
                            invariant(job)
                        )
                    })?;
                    // A time and a span that end at the same moment look alike.
                    if fit.any(|other| other.moves != survivor.moves) {
                        survivor.moves = None;
                    }
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
                        due_unknown: job.moves == Some(true),
                        key_until_ms: i64::MIN,
                        ..job
                    };
                    let crash = Crash {
                        power: true,
                        cut_openings: 1,
                    };
                    let versions = versions(id, &job, unanswered, at);
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
        ways.extend(expired(&job, at.of_the_cut_step()));
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
                if back.moves == Some(true) && back.due_ms.is_some() {
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
            hit.crashes += 1;
            if job.is_suspect() {
                hit.end(Is::Dead(DeadReason::Quarantined));
            }
            ways.push(hit);
        }
    }
    ways
}

/// What a job may be when any of what was on its way may have been done, in its order. `None`: it is gone.
fn versions(id: u64, job: &Job, unanswered: &[Asked], at: Moment) -> Vec<Option<Job>> {
    let now_ms = at.now_ms;
    let then = at.of_the_cut_step();
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
                            after.due_unknown = after.is == Is::Waiting && after.moves == Some(true);
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
                Asked::Call(call) if about(call) == Some(id) => {
                    // Perhaps it was taken back, or expired, before, in the same step.
                    let befores = [taken_back(job), expired(job, then), Some(job.clone())];
                    let befores = befores.into_iter().flatten().filter(|job| may(job, call));
                    let afters = befores.map(|before| changed(&before, call, now_ms));
                    let loose = |job: Job| Job {
                        due_unknown: job.moves == Some(true),
                        ..job
                    };
                    afters.map(|after| after.map(loose)).collect()
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
