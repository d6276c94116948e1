//! What time alone brings about.

use std::borrow::Cow;

use rustc_hash::FxHashSet;

use crate::job::{DeadReason, JobId};

use super::Ledger;
use super::event::Event;
use super::queue::QueueState;

impl Ledger {
    /// Expiries and keys that become free: at most about `most` events. L6: what cannot be taken back (this,
    /// and pruning by age) waits until the clock is `trusted`.
    pub(crate) fn tick(&self, now_ms: i64, trusted: bool, most: usize) -> Vec<Event<'static>> {
        let mut events = Vec::new();
        if trusted {
            let expired = self
                .expiries
                .iter()
                .take_while(|(at, _)| *at <= now_ms)
                .take(most);
            events.extend(expired.map(|(_, id)| Event::Died {
                id: *id,
                claim: 0,
                ran_us: 0,
                reason: DeadReason::Expired,
                history: None,
            }));
            let free = self.keys.due(now_ms).take(most);
            events.extend(free.map(|(kind, key)| Event::KeyFreed {
                kind: Cow::Owned(self.kind_name(kind).to_owned()),
                key: Cow::Owned(key.to_owned()),
            }));
        }
        events
    }

    /// When the next scheduled job becomes ready; `None` if there is none.
    pub(crate) fn next_timer_ms(&self) -> Option<i64> {
        self.timers.first().map(|(due_ms, _)| *due_ms)
    }

    /// When the next thing is due that waits for a trusted clock; `None` if there is none.
    pub(crate) fn next_trusted_ms(&self) -> Option<i64> {
        let expiry = self.expiries.first().map(|(at, _)| *at);
        let aged = self.queues.iter().filter_map(|q| {
            let after =
                |first: Option<&(i64, JobId)>, keep_ms| Some(first?.0.saturating_add(keep_ms));
            let finished = after(q.finished.first(), q.setup.keep_finished_ms);
            let dead = after(q.dead.first(), self.setup.keep_dead_ms);
            finished.into_iter().chain(dead).min()
        });
        let aged = aged.min().filter(|at| *at != i64::MAX);
        [expiry, self.keys.next_due(), aged]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether more finished jobs are kept than should be.
    pub(crate) fn wants_pruning(&self) -> bool {
        self.queues.iter().any(|q| {
            q.finished.len() > q.setup.keep_finished || q.dead.len() > self.setup.keep_dead
        })
    }

    /// Finished jobs beyond what is kept, oldest first; `spared` are not among them.
    pub(crate) fn prune(
        &self,
        now_ms: i64,
        trusted: bool,
        most: usize,
        spared: &FxHashSet<JobId>,
    ) -> Vec<Event<'static>> {
        let mut ids: Vec<JobId> = Vec::new();
        for queue in &self.queues {
            let QueueState {
                setup,
                finished,
                dead,
                ..
            } = queue;
            let ends = [
                (finished, setup.keep_finished, setup.keep_finished_ms),
                (dead, self.setup.keep_dead, self.setup.keep_dead_ms),
            ];
            for (ended, keep, keep_ms) in ends {
                let extra = ended.len().saturating_sub(keep);
                let old = |at: i64| trusted && at.saturating_add(keep_ms) <= now_ms;
                let out = ended
                    .iter()
                    .enumerate()
                    .take_while(|(n, (at, _))| *n < extra || old(*at));
                let out = out
                    .map(|(_, (_, id))| *id)
                    .filter(|id| !spared.contains(id));
                ids.extend(out.take(most - ids.len().min(most)));
            }
        }
        if ids.is_empty() {
            return Vec::new();
        }
        let sure_ms = if trusted { now_ms } else { i64::MIN };
        let held = ids
            .iter()
            .filter_map(|id| self.key_to_hold(*id, self.jobs.get(*id)?, sure_ms));
        let pruned = Event::Pruned {
            ids: ids.iter().map(|id| id.number()).collect(),
        };
        held.chain([pruned]).collect()
    }
}
