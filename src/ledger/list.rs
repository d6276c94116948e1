//! Reading the state: rows for listings, figures for statistics.

use crate::job::{ClaimNumber, DeadReason, Encoding, JobId, Priority, State};

use super::Ledger;
use super::event::Phase;
use super::names::{KindIx, QueueIx};
use super::queue::QueueState;
use super::table::Record;

/// What a listing looks for; `None` means any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) state: Option<State>,
    pub(crate) kind: Option<String>,
    pub(crate) queue: Option<String>,
}

/// One job as the ledger knows it without reading the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: JobId,
    pub(crate) kind: String,
    pub(crate) queue: String,
    pub(crate) state: State,
    pub(crate) parked: bool,
    pub(crate) priority: Priority,
    pub(crate) attempt: u32,
    pub(crate) failures: u16,
    pub(crate) attempts_max: u16,
    /// Of payload and output.
    pub(crate) encoding: Encoding,
    pub(crate) crashes: u8,
    pub(crate) due_ms: i64,
    pub(crate) finished_at_ms: Option<i64>,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) key: Option<String>,
    pub(crate) claim: Option<ClaimNumber>,
    pub(crate) claimed_at_ms: Option<i64>,
    pub(crate) dead_reason: Option<DeadReason>,
}

/// A page of a listing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Row>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<JobId>,
}

/// How quiet it must be.
#[derive(Clone, Debug)]
pub(crate) enum Idle {
    /// No job waits or runs, but for those that no handler here could run.
    Everywhere,
    /// None of this queue.
    Queue(String),
    /// None runs, and none could be started now by a pool.
    NothingToStart,
}

/// Figures of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueView {
    pub(crate) name: String,
    pub(crate) counts: [u64; State::ALL.len()],
    pub(crate) parked: u64,
    pub(crate) paused: bool,
    pub(crate) concurrency: Option<u32>,
    /// When the job that has been ready longest became ready.
    pub(crate) oldest_ready_ms: Option<i64>,
}

impl Ledger {
    /// Up to `rows_max` matching rows from id `from` on, looking at no more than `looked_max` jobs.
    pub(crate) fn list(
        &self,
        filter: &Filter,
        from: JobId,
        rows_max: usize,
        looked_max: usize,
    ) -> Page {
        let mut page = Page::default();
        let Some(fits) = self.matcher(filter) else {
            return page;
        };
        for (looked, (id, record)) in self.jobs.iter_from(from).enumerate() {
            if page.rows.len() == rows_max || looked == looked_max {
                page.next = Some(id);
                break;
            }
            if fits(record) {
                page.rows.push(self.row(id, record));
            }
        }
        page
    }

    /// Whether a job is looked for; `None` if none can be, because nothing has that name.
    pub(super) fn matcher(&self, filter: &Filter) -> Option<impl Fn(&Record) -> bool + use<>> {
        let (state, mut kind, mut queue) = (filter.state, None, None);
        if let Some(name) = &filter.kind {
            kind = Some(KindIx(self.kinds.find(name)?));
        }
        if let Some(name) = &filter.queue {
            queue = Some(QueueIx(self.queue_names.find(name)?));
        }
        Some(move |record: &Record| {
            state.is_none_or(|state| state == record.state())
                && kind.is_none_or(|kind| kind == record.kind)
                && queue.is_none_or(|queue| queue == record.queue)
        })
    }

    pub(crate) fn row(&self, id: JobId, r: &Record) -> Row {
        let kind = self.kind_name(r.kind);
        let state = r.state();
        let lease = self.leases.get(&id);
        Row {
            id,
            kind: kind.to_owned(),
            queue: self.queue_name(r.queue).to_owned(),
            state,
            parked: state == State::Ready && !self.setup.handled.contains(kind),
            priority: r.priority,
            attempt: r.attempt,
            failures: r.failures,
            attempts_max: self.policies.get(r.policy).attempts_max,
            encoding: r.encoding,
            crashes: r.crashes,
            due_ms: r.due_ms,
            finished_at_ms: state.is_finished().then_some(r.due_ms),
            expires_at_ms: r.expires_at_ms(),
            key: r.key().map(|(key, _)| key.to_owned()),
            claim: lease.map(|lease| ClaimNumber(lease.claim)),
            claimed_at_ms: lease.map(|lease| lease.claimed_at_ms),
            dead_reason: match r.phase {
                Phase::Dead(reason) => Some(reason),
                _ => None,
            },
        }
    }

    pub(crate) fn is_idle(&self, until: &Idle) -> bool {
        let is_empty = |q: &QueueState| {
            let waiting = q.count(State::Scheduled) + q.count(State::Ready);
            waiting + q.count(State::Running) == q.parked()
        };
        match until {
            Idle::Everywhere => self.queues.iter().all(is_empty),
            Idle::Queue(name) => {
                let queue = self.queue_names.find(name).map(QueueIx);
                queue.and_then(|q| self.queue(q)).is_none_or(is_empty)
            }
            Idle::NothingToStart => self.leases.is_empty() && !self.can_start_one(),
        }
    }

    pub(crate) fn queue_views(&self) -> Vec<QueueView> {
        let views = self
            .queues
            .iter()
            .zip(self.queue_numbers())
            .map(|(q, number)| {
                let name = self.queue_name(number);
                let heads = q.lanes.iter().filter_map(|lane| lane.ready.first());
                let due = heads.filter_map(|key| Some(self.jobs.get(key.id)?.due_ms));
                QueueView {
                    name: name.to_owned(),
                    counts: State::ALL.map(|state| q.count(state)),
                    parked: q.parked(),
                    paused: q.control.paused,
                    concurrency: q.cap(),
                    oldest_ready_ms: due.min(),
                }
            });
        views.collect()
    }
}
