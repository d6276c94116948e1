//! The group's part for claims: who gets a job, and what is taken back before a handler began.

use std::sync::Arc;
use std::time::Duration;

use super::command::Settle;
use super::core::{Core, PoolLink, Run, Target};
use super::live::{Live, Stage};
use crate::error::{Error, Result};
use crate::job::JobId;
use crate::ledger::{Outcome, Pick};

/// How long a pool that gives its jobs back unbegun gets none: doubled each time, from and up to.
const REST_LEAST: Duration = Duration::from_secs(1);
const REST_MOST: Duration = Duration::from_mins(1);

impl PoolLink {
    /// Whether the pool is left alone now. An executor that drops its tasks would be handed the same jobs for
    /// ever, with two syncs each time.
    fn rests(&mut self, begun: usize, now: Duration) -> bool {
        let refused = self.outs.take_refused();
        if begun > 0 {
            (self.rest, self.rests_until) = (Duration::ZERO, None);
        } else if refused > 0 && self.rests_until.is_none() {
            self.rest = (self.rest * 2).clamp(REST_LEAST, REST_MOST);
            self.rests_until = Some(now.saturating_add(self.rest));
        }
        self.rests_until = self.rests_until.filter(|at| *at > now);
        self.rests_until.is_some()
    }
}

impl Core {
    /// True if the job was handed out, not begun, and is now ready again.
    pub(super) fn take_back(&mut self, id: JobId) -> Result<bool> {
        let Some(run) = self.running.get(&id).filter(|run| run.live.take_back()) else {
            return Ok(false);
        };
        if let Some(link) = run.pool.and_then(|pool| self.pools.get_mut(pool)) {
            link.has_taken_back = true;
        }
        let outcome = Outcome::GivenBack { started: false };
        self.settle(Settle::by_the_writer(id, run.claim, outcome))?;
        Ok(true)
    }

    pub(super) fn take_back_all(&mut self, queue: Option<&str>) -> Result<()> {
        let in_queue = |id: &JobId| {
            let record = self.ledger.record(*id);
            queue.is_none_or(|name| record.is_some_and(|r| self.ledger.queue_name(r.queue) == name))
        };
        let mut ids: Vec<JobId> = self.running.keys().copied().filter(in_queue).collect();
        ids.sort_unstable(); // the same order in every run
        for id in ids {
            self.take_back(id)?;
        }
        Ok(())
    }

    /// What was taken back does not count as something for slots to do.
    pub(super) fn forget_taken_back(&mut self) {
        for link in &mut self.pools {
            if std::mem::take(&mut link.has_taken_back) {
                link.outs.forget_taken_back();
            }
        }
    }

    /// I5: a job of higher priority must not wait behind lower ones that were claimed ahead.
    pub(super) fn take_back_outranked(&mut self, pool: usize) -> Result<()> {
        let heads: Vec<_> = self.ledger.heads(pool).collect();
        for (queue, head) in heads {
            loop {
                let Some(link) = self.pools.get_mut(pool) else {
                    return Ok(());
                };
                while link
                    .handed
                    .back()
                    .is_some_and(|(.., live)| live.stage() != Stage::Waiting)
                {
                    link.handed.pop_back();
                }
                let outranked = link.handed.iter().rev().find(|(q, priority, live)| {
                    *q == queue && *priority < head.priority() && live.stage() == Stage::Waiting
                });
                let Some(id) = outranked.map(|(.., live)| live.id) else {
                    break;
                };
                if !self.take_back(id)? {
                    break; // it has just begun
                }
            }
        }
        Ok(())
    }

    pub(super) fn claim_for_pool(&mut self, pool: usize) -> Result<()> {
        let now = self.now.awake;
        let Some(link) = self.pools.get_mut(pool) else {
            return Ok(());
        };
        let begun = link.outs.take_begun();
        if link.rests(begun, now) {
            return Ok(());
        }
        // About as much ahead as the pool begins during one sync; at once down when jobs are long.
        link.ahead = (begun * 2).clamp(link.ahead / 2, link.ahead_max);
        if begun == 0 {
            link.ahead = 0;
        }
        let room = (link.slots + link.ahead).saturating_sub(link.outstanding);
        let mut low = link.ahead / 2;
        for _ in 0..room {
            let Pick::Job(key, queue) = self.ledger.pick(pool) else {
                low = 0; // nothing more to be had: only the last one presses
                break;
            };
            let live = self.claim(key.id, Some(pool))?;
            self.ledger.turn_taken(queue);
            if let Some(link) = self.pools.get_mut(pool) {
                link.outstanding += 1;
                while link
                    .handed
                    .front()
                    .is_some_and(|(.., live)| live.stage() != Stage::Waiting)
                {
                    link.handed.pop_front();
                }
                link.handed.push_back((queue, key.priority(), live));
            }
            self.pending.claims.push((key.id, Target::Pool(pool)));
        }
        if let Some(link) = self.pools.get(pool) {
            link.outs.set_low(low);
        }
        Ok(())
    }

    pub(super) fn claim_for_hands(&mut self) -> Result<()> {
        for wanted in std::mem::take(&mut self.hand_claims) {
            match self.ledger.pick_kind(&wanted.queue, wanted.kind) {
                Pick::Job(key, queue) => {
                    let live = self.claim(key.id, None)?;
                    live.start(self.now.awake);
                    self.ledger.turn_taken(queue);
                    self.pending
                        .claims
                        .push((key.id, Target::Hand(wanted.reply)));
                }
                _ if wanted.until <= self.now.awake => {
                    self.answer(move |fate| wanted.reply.send(fate.of(None)));
                }
                _ => self.hand_claims.push(wanted),
            }
        }
        Ok(())
    }

    /// Claims a job that was picked. I6: the claim is in the journal before any handler sees it.
    fn claim(&mut self, id: JobId, pool: Option<usize>) -> Result<Arc<Live>> {
        let bug = || Error::Bug(format!("job {id} was picked and cannot be claimed"));
        let (claim, event) = self.ledger.claim(id).ok_or_else(bug)?;
        self.push(&event)?;
        let record = self.ledger.record(id).ok_or_else(bug)?;
        let (attempt, policy) = (record.attempt, self.ledger.policy(record));
        let (time_limit_ms, stall_timeout_ms) = match pool {
            Some(_) => (policy.time_limit_ms, policy.stall_timeout_ms),
            None => (0, crate::job::millis(self.limits.lock_timeout)),
        };
        let live = Arc::new(Live::new(id, attempt, time_limit_ms, stall_timeout_ms));
        if self.ledger.has_cap(record.queue) || self.waiters.jobs.contains_key(&id) {
            live.note_awaited();
        }
        if time_limit_ms > 0 || stall_timeout_ms > 0 {
            self.limited.insert(id);
        }
        let place = self.places.take();
        self.running.insert(
            id,
            Run {
                claim,
                pool,
                place,
                live: live.clone(),
            },
        );
        Ok(live)
    }
}
