//! The brain: the state of all jobs, and every rule about it.
//!
//! Owns what may happen (`decide`: a command and a time give events) and what it means (`apply`: an
//! event changes the state, in life and at replay alike). Pure: no files, no clock, no threads, no
//! randomness; time and jitter come in as arguments. Must not know the journal's bytes, the engine
//! or workers.

mod apply;
mod carry;
mod change;
mod claim;
mod digest;
mod enqueue;
mod event;
mod index;
mod keys;
mod list;
mod mend;
mod names;
mod queue;
mod ready;
mod recover;
mod settle;
mod setup;
mod space;
mod table;
mod tick;

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::job::{JobId, State};

pub(crate) use apply::Mismatch;
pub(crate) use carry::Carry;
pub(crate) use change::{ChangeAnswer, ChangeKind};
pub(crate) use claim::Pick;
pub(crate) use digest::{dead_code, dead_from_code, phase_code, phase_from_code};
pub(crate) use enqueue::Placed;
pub use event::{AttemptError, Counters};
pub(crate) use event::{
    Event, History, LeaseRecord, NUMBER_MAX, NewRecord, Payload, Phase, Place, RootRecord, Stamp,
    Standing,
};
pub(crate) use list::{Filter, Idle, Page, QueueView, Row};
pub(crate) use names::{KindIx, QueueIx};
pub(crate) use recover::Verdict;
pub(crate) use settle::{Outcome, SettleAnswer, Settling};
pub(crate) use setup::{QueueSetup, Setup};
pub(crate) use table::Record;

use keys::Keys;
use names::{Names, Policies};
use queue::QueueState;
use space::Space;
use table::JobTable;

/// The state of all jobs of a store: the fold of its journal.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// How this process is configured. Read by `decide` and for index placement, never by the part of
    /// `apply` that counts: a replay under another configuration gives the same state.
    setup: Setup,
    root: RootRecord,
    root_place: Option<Place>,
    jobs: JobTable,
    kinds: Names,
    queue_names: Names,
    queues: Vec<QueueState>,
    /// Queues with a ready job that a handler here could run.
    active: BTreeSet<QueueIx>,
    policies: Policies,
    leases: FxHashMap<JobId, LeaseRecord>,
    /// Leases of jobs that must run with nothing else in the process: 0 or 1.
    alone: u32,
    /// Ready jobs that must run so.
    loners: u32,
    keys: Keys,
    /// Waiting jobs whose time lies ahead.
    timers: BTreeSet<(i64, JobId)>,
    /// Waiting jobs that expire.
    expiries: BTreeSet<(i64, JobId)>,
    space: Space,
    /// Sum over jobs, queue controls and held keys; the root is added when asked for.
    digest: u128,
    /// How far the round-robin between queues has come.
    turn: u64,
    /// The wall clock by which waiting jobs were last sorted into scheduled and ready.
    judged_at_ms: i64,
}

impl Ledger {
    pub(crate) fn new(setup: Setup, now_ms: i64) -> Ledger {
        let root = RootRecord {
            next_id: 1,
            next_claim: 1,
            ..RootRecord::default()
        };
        Ledger {
            setup,
            root,
            judged_at_ms: now_ms,
            ..Ledger::default()
        }
    }

    /// The digest over everything that must survive.
    pub(crate) fn digest(&self) -> u128 {
        self.digest.wrapping_add(digest::of_root(&self.root))
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.root.epoch
    }

    pub(crate) fn counters(&self) -> Counters {
        self.root.counters
    }

    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// An entry was written with this many bytes.
    pub(crate) fn entry_written(&mut self, position: u64, bytes: u32) {
        self.space.entry_written(position, bytes);
    }

    /// Forgets dead entries in front of `keep`; returns the oldest position still needed.
    pub(crate) fn cut(&mut self, keep: u64) -> u64 {
        self.space.cut(keep)
    }

    pub(crate) fn record(&self, id: JobId) -> Option<&Record> {
        self.jobs.get(id)
    }

    pub(crate) fn running(&self) -> usize {
        self.leases.len()
    }

    /// Jobs by state, in the order of [`State::ALL`].
    pub(crate) fn counts(&self) -> [u64; State::ALL.len()] {
        State::ALL.map(|state| self.queues.iter().map(|queue| queue.count(state)).sum())
    }

    /// Names of all payload files that some job still needs.
    pub(crate) fn files(&self) -> impl Iterator<Item = u128> {
        self.jobs
            .iter_from(JobId::from_number(0))
            .flat_map(|(_, record)| record.files())
    }

    pub(crate) fn kind_name(&self, kind: KindIx) -> &str {
        self.kinds.name(kind.0)
    }

    /// Whether the queue has a bound on what runs at a time: then each end may let another job begin.
    pub(crate) fn has_cap(&self, queue: QueueIx) -> bool {
        self.queue(queue).is_some_and(|q| q.cap().is_some())
    }

    pub(crate) fn queue_name(&self, queue: QueueIx) -> &str {
        self.queue_names.name(queue.0)
    }

    /// Kind and queue of a job, to be kept beyond the ledger.
    pub(crate) fn shared_names(&self, record: &Record) -> (Arc<str>, Arc<str>) {
        (
            self.kinds.shared_name(record.kind.0),
            self.queue_names.shared_name(record.queue.0),
        )
    }

    pub(crate) fn policy(&self, record: &Record) -> crate::job::Policy {
        self.policies.get(record.policy)
    }

    fn queue(&self, queue: QueueIx) -> Option<&QueueState> {
        self.queues.get(usize::from(queue.0))
    }

    fn queue_mut(&mut self, queue: QueueIx) -> Option<&mut QueueState> {
        self.queues.get_mut(usize::from(queue.0))
    }

    fn queue_numbers(&self) -> impl Iterator<Item = QueueIx> + use<> {
        let count = u16::try_from(self.queues.len()).unwrap_or(u16::MAX);
        (0..count).map(QueueIx)
    }
}

#[cfg(test)]
mod tests;
