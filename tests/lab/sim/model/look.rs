//! After a step that went well: whether what the list shows can have come about.

use std::collections::BTreeSet;
use std::rc::Rc;

use jobsled::lab::Seen;

use super::job::{
    Is, Job, by_claim, by_limit, expired, follow_clock, given_back, invariant, shows, taken_back,
};
use super::{Broken, Jobs, Model, Moment};

impl Model {
    /// After a step that went well: what the list shows must have come about by what was answered, and by time.
    pub(crate) fn look(&mut self, rows: &[Seen], at: Moment) -> Result<(), Broken> {
        let before = self.jobs.clone();
        for row in rows {
            let was = before.get(&row.id);
            let was = was.ok_or_else(|| format!("I2: a job is there and must not be: {row:?}"))?;
            if at.set_ms == (0, 0) && was.due_ms.is_some() && shows(was, row, at) {
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
        Ok(())
    }

    /// What time and the engine may have made of a job.
    fn became(job: &Job, row: &Seen, at: Moment) -> Result<Job, Broken> {
        let is_either = job.moves.is_none();
        let became = job.either(|job| {
            let became = Model::one_became(job, row, at)?;
            // Whether its time moved with the clock shows in that it was claimed.
            let is_claimed = job.is == Is::Waiting && matches!(became.is, Is::Running(..));
            let is_early = is_either && is_claimed && !became.is_due(at.now_ms);
            (!is_early).then_some(became)
        });
        became.ok_or_else(|| {
            format!(
                "{}: job {} was {job:?} and is {row:?}",
                invariant(job),
                row.id
            )
        })
    }

    fn one_became(job: &Job, row: &Seen, at: Moment) -> Option<Job> {
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
        ways.into_iter().flatten().find(|way| shows(way, row, at))
    }

    pub(super) fn may_be_gone(&self, id: u64, job: &Job) -> Result<(), Broken> {
        let may_end_by_time = job.expires_at_ms.is_some() || matches!(job.is, Is::Running(..));
        if !job.is_finished() && !may_end_by_time {
            return Err(format!("I1: job {id} is gone; it was {:?}", job.is));
        }
        // Completed jobs alone are asked to be pruned; one that runs may have completed in this very step.
        if self.pruning && matches!(job.is, Is::Completed | Is::Running(..)) {
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
        let queues: BTreeSet<&String> = before.values().map(|job| &job.queue).collect();
        for queue in queues {
            for dead in [false, true] {
                if self.pruning && !dead {
                    continue;
                }
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
}
