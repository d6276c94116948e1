//! Who runs next.

use crate::fault::{self, Bug};
use crate::job::{JobId, OnCrash};

use super::Ledger;
use super::event::{Event, Phase};
use super::names::{KindIx, QueueIx};
use super::queue::QueueState;
use super::ready::ReadyKey;
use super::table::Record;

/// The next job to run, if one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    Job(ReadyKey, QueueIx),
    Nothing,
    /// A job must run with nothing else in the process: nothing new starts until the rest is done.
    Hold,
}

/// One claim of a queue of weight 1 moves its turn this far.
const TURN: u64 = 1 << 20;

impl Ledger {
    /// The next job for a pool: the queue whose turn it is by weight, and in it the exact head.
    pub(crate) fn pick(&self, pool: usize) -> Pick {
        if let Some(hold) = self.hold(|queue, _| self.queue_of_pool(queue, pool).is_some()) {
            return hold;
        }
        let best = self
            .active
            .iter()
            .filter_map(|&queue| {
                let state = self.open_queue(queue, Some(pool))?;
                Some((state.turn.max(self.turn), queue, state.head()?))
            })
            .min_by_key(|(turn, queue, _)| (*turn, *queue));
        best.map_or(Pick::Nothing, |(_, queue, key)| Pick::Job(key, queue))
    }

    /// The next job of a kind in a queue, for callers with their own threads.
    pub(crate) fn pick_kind(&self, queue: &str, kind: &str) -> Pick {
        let asked = |at, record: &Record| {
            self.queue_name(at) == queue && self.kind_name(record.kind) == kind
        };
        if let Some(hold) = self.hold(asked) {
            return hold;
        }
        let found = || {
            let queue = QueueIx(self.queue_names.find(queue)?);
            let kind = KindIx(self.kinds.find(kind)?);
            let state = self.open_queue(queue, None)?;
            let lane = state.lanes.iter().find(|lane| lane.kind == kind)?;
            let key = lane.ready.first()?;
            // `hold` knows the heads of queues, and this need not be one.
            let beside_others = self.needs_alone(self.jobs.get(key.id)?) && !self.leases.is_empty();
            Some(if beside_others {
                Pick::Hold
            } else {
                Pick::Job(key, queue)
            })
        };
        found().unwrap_or(Pick::Nothing)
    }

    /// Whether a pool of this process could start a job, were its slots free.
    pub(super) fn can_start_one(&self) -> bool {
        let mut open = self.active.iter().filter_map(|&q| self.open_queue(q, None));
        open.any(|state| state.setup.pool.is_some())
    }

    /// The best priority that is ready for a pool, per queue.
    pub(crate) fn heads(&self, pool: usize) -> impl Iterator<Item = (QueueIx, ReadyKey)> {
        self.active
            .iter()
            .filter_map(move |&queue| Some((queue, self.queue_of_pool(queue, pool)?.head()?)))
    }

    /// The event of a claim. `Hold` is respected by both picks; whoever must run alone is marked here.
    pub(crate) fn claim(&self, id: JobId) -> Option<(u64, Event<'static>)> {
        let record = self.jobs.get(id).filter(|r| r.phase == Phase::Waiting)?;
        let claim = self.root.next_claim;
        Some((
            claim,
            Event::Claimed {
                id,
                claim,
                alone: self.needs_alone(record),
            },
        ))
    }

    /// Moves on the round-robin after a claim from `queue`. Of this process only, never stored.
    pub(crate) fn turn_taken(&mut self, queue: QueueIx) {
        let now = self.turn;
        if let Some(state) = self.queue_mut(queue) {
            let begun = state.turn.max(now);
            state.turn = begun + (TURN / u64::from(state.setup.weight.max(1))).max(1);
            self.turn = begun;
        }
    }

    /// Whether the job was running in so many crashes that the next one could convict it: then it
    /// must run alone.
    pub(super) fn needs_alone(&self, record: &Record) -> bool {
        record.crashes > 0
            && match self.policies.get(record.policy).on_crash {
                OnCrash::QuarantineAfter(most) => record.crashes.saturating_add(1) >= most.max(2),
                OnCrash::Rerun | OnCrash::Dead => false,
            }
    }

    /// L8: what holds everything up, if something does: a job runs alone, or one that must is next. That one is
    /// given to whoever may have it, once nothing else runs.
    fn hold(&self, fits: impl Fn(QueueIx, &Record) -> bool) -> Option<Pick> {
        if self.alone > 0 {
            return Some(Pick::Hold);
        }
        let (queue, key, record) = self.next_alone()?;
        let mine = self.leases.is_empty() && fits(queue, record);
        Some(if mine {
            Pick::Job(key, queue)
        } else {
            Pick::Hold
        })
    }

    /// The head of a queue that must run with nothing else in the process. One that no pool here runs holds
    /// nobody up.
    fn next_alone(&self) -> Option<(QueueIx, ReadyKey, &Record)> {
        if self.loners == 0 {
            return None;
        }
        self.active.iter().find_map(|&queue| {
            let state = self.open_queue(queue, None)?;
            let key = state.setup.pool.and(state.head())?;
            let record = self.jobs.get(key.id).filter(|r| self.needs_alone(r))?;
            Some((queue, key, record))
        })
    }

    /// The job for which everything else is held up: it runs alone, or is next to.
    pub(crate) fn held_for(&self) -> Option<JobId> {
        if self.alone > 0 {
            let alone = self.leases.iter().find(|(_, lease)| lease.alone);
            return alone.map(|(id, _)| *id);
        }
        self.next_alone().map(|(_, key, _)| key.id)
    }

    /// The queue, if it may start a job now (and belongs to the pool).
    fn open_queue(&self, queue: QueueIx, pool: Option<usize>) -> Option<&QueueState> {
        let state = match pool {
            Some(pool) => self.queue_of_pool(queue, pool)?,
            None => self.queue(queue)?,
        };
        let cap = state.cap();
        let paused = state.control.paused && !fault::bug(Bug::PauseIgnored);
        (!paused && cap.is_none_or(|cap| state.running < cap)).then_some(state)
    }

    fn queue_of_pool(&self, queue: QueueIx, pool: usize) -> Option<&QueueState> {
        let state = self.queue(queue)?;
        (!state.lanes.is_empty() && state.setup.pool == Some(pool)).then_some(state)
    }
}
