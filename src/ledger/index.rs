//! Index keeping: a record is in the table, in one index of its state, in the counts and in the digest, or in none.

use crate::fault::{self, Bug};
use crate::job::JobId;

use super::Ledger;
use super::digest;
use super::event::{LeaseRecord, Phase};
use super::ready::{Ready, ReadyKey};
use super::table::{Record, Waits};

/// L2, L4: every change of a record goes through `take` and `store`, which keep digest and indexes.
impl Ledger {
    /// Takes a record, with its lease, out of the table and all indexes.
    pub(super) fn take(&mut self, id: JobId) -> Option<Record> {
        let record = self.jobs.take(id)?;
        self.unindex(id, &record);
        Some(record)
    }

    /// Puts a record into the table and all indexes.
    pub(super) fn store(&mut self, id: JobId, mut record: Record, lease: Option<LeaseRecord>) {
        if let Some(lease) = lease {
            self.leases.insert(id, lease);
        }
        self.index(id, &mut record);
        self.jobs.put(id, record);
    }

    fn unindex(&mut self, id: JobId, r: &Record) {
        self.digest = self.digest.wrapping_sub(self.mix(id, r));
        let state = r.state();
        match r.phase {
            Phase::Waiting => {
                if let Some(at) = r.expires_at_ms() {
                    self.expiries.remove(&(at, id));
                }
                match r.waits {
                    Waits::ForTime => {
                        self.timers.remove(&(r.due_ms, id));
                    }
                    Waits::Ready => {
                        self.loners -= u32::from(self.needs_alone(r));
                        self.lane_of(r, |lane| {
                            lane.remove(ReadyKey::of(id, r));
                        });
                    }
                    Waits::Held => {}
                }
            }
            Phase::Running => {
                let lease = self.leases.remove(&id);
                self.alone -= u32::from(lease.is_some_and(|lease| lease.alone));
                if let Some(q) = self.queue_mut(r.queue) {
                    q.running -= 1;
                }
            }
            Phase::Completed | Phase::Cancelled => {
                if let Some(q) = self.queue_mut(r.queue) {
                    q.finished.remove(&(r.due_ms, id));
                }
            }
            Phase::Dead(_) => {
                if let Some(q) = self.queue_mut(r.queue) {
                    q.dead.remove(&(r.due_ms, id));
                }
            }
        }
        if let Some(q) = self.queue_mut(r.queue) {
            q.count_out(state);
        }
    }

    fn index(&mut self, id: JobId, r: &mut Record) {
        self.digest = self.digest.wrapping_add(self.mix(id, r));
        match r.phase {
            Phase::Waiting => {
                r.waits = self.place_of(r);
                if let Some(at) = r.expires_at_ms() {
                    self.expiries.insert((at, id));
                }
                match r.waits {
                    Waits::ForTime if r.failures > 0 && fault::bug(Bug::TimerForgotten) => {}
                    Waits::ForTime => {
                        self.timers.insert((r.due_ms, id));
                    }
                    Waits::Ready => {
                        self.loners += u32::from(self.needs_alone(r));
                        self.lane_of(r, |lane| {
                            lane.insert(ReadyKey::of(id, r));
                        });
                    }
                    Waits::Held => {}
                }
            }
            Phase::Running => {
                self.alone += u32::from(self.leases.get(&id).is_some_and(|lease| lease.alone));
                if let Some(q) = self.queue_mut(r.queue) {
                    q.running += 1;
                }
            }
            Phase::Completed | Phase::Cancelled => {
                if let Some(q) = self.queue_mut(r.queue) {
                    q.finished.insert((r.due_ms, id));
                }
            }
            Phase::Dead(_) => {
                if let Some(q) = self.queue_mut(r.queue) {
                    q.dead.insert((r.due_ms, id));
                }
            }
        }
        let state = r.state();
        if let Some(q) = self.queue_mut(r.queue) {
            q.count_in(state);
        }
    }

    /// Where a waiting job belongs by the time last judged.
    fn place_of(&self, r: &Record) -> Waits {
        if r.due_ms > self.judged_at_ms {
            Waits::ForTime
        } else if r.expires_at_ms().is_some_and(|at| at <= self.judged_at_ms)
            && !fault::bug(Bug::ExpiryIgnored)
        {
            Waits::Held
        } else {
            Waits::Ready
        }
    }

    fn lane_of(&mut self, r: &Record, f: impl FnOnce(&mut Ready)) {
        let Ledger {
            setup,
            kinds,
            queues,
            active,
            ..
        } = self;
        let Some(queue) = queues.get_mut(usize::from(r.queue.0)) else {
            return;
        };
        let lane = queue.lane_mut(r.kind, || setup.handled.contains(kinds.name(r.kind.0)));
        let was_empty = lane.ready.len() == 0;
        f(&mut lane.ready);
        if was_empty != (lane.ready.len() == 0) {
            if queue.head().is_some() {
                active.insert(r.queue);
            } else {
                active.remove(&r.queue);
            }
        }
    }

    fn mix(&self, id: JobId, r: &Record) -> u128 {
        let shared = digest::Shared {
            kind: self.kinds.hash(r.kind.0),
            queue: self.queue_names.hash(r.queue.0),
            policy: self.policies.hash(r.policy),
        };
        let lease = if r.phase == Phase::Running {
            self.leases.get(&id)
        } else {
            None
        };
        digest::of_job(id, r, &shared, lease)
    }

    /// I5: sorts the waiting jobs by a new time: no job is ready before its wait-until, and none that is
    /// past its expiry. Nothing of this is stored.
    pub(crate) fn judge(&mut self, now_ms: i64) {
        let now_ms = now_ms + i64::from(fault::bug(Bug::DueOffByOne));
        let before_ms = std::mem::replace(&mut self.judged_at_ms, now_ms);
        let mut again: Vec<JobId> = if now_ms < before_ms {
            // The clock was set back: whoever is ready may have become early again.
            self.jobs
                .iter_from(JobId::from_number(0))
                .filter(|(_, r)| r.phase == Phase::Waiting)
                .map(|(id, _)| id)
                .collect()
        } else {
            let due = self
                .timers
                .iter()
                .take_while(|(due_ms, _)| *due_ms <= now_ms)
                .map(|(_, id)| *id);
            // What had expired by the last time is in its place.
            let expired = self
                .expiries
                .range((before_ms, JobId::from_number(0))..)
                .take_while(|(at, _)| *at <= now_ms)
                .map(|(_, id)| *id);
            due.chain(expired).collect()
        };
        again.retain(|id| {
            self.jobs
                .get(*id)
                .is_some_and(|r| r.waits != self.place_of(r))
        });
        for id in again {
            if let Some(record) = self.take(id) {
                self.store(id, record, None);
            }
        }
    }
}
