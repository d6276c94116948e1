//! One named queue: what is ready in it, in exact order, and its controls.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::job::{JobId, Priority, State};

use super::event::Place;
use super::names::KindIx;
use super::table::Record;

/// The order in which ready jobs of a queue run: higher priority first; jobs that were running when
/// a process died after all others of their priority; then the order of enqueueing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadyKey {
    pub(crate) priority: Reverse<Priority>,
    pub(crate) suspect: bool,
    pub(crate) id: JobId,
}

impl ReadyKey {
    pub(crate) fn of(id: JobId, record: &Record) -> ReadyKey {
        ReadyKey {
            priority: Reverse(record.priority),
            suspect: record.crashes > 0,
            id,
        }
    }
}

/// The ready jobs of one kind in one queue. One lane per kind, so that jobs whose kind has no
/// handler here (parked) cost a claim nothing.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) kind: KindIx,
    pub(crate) handled: bool,
    pub(crate) ready: BTreeSet<ReadyKey>,
}

#[derive(Debug, Default)]
pub(crate) struct QueueState {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) running: u32,
    pub(super) counts: [u64; State::ALL.len()],
    /// Completed and cancelled jobs by time of their end.
    pub(crate) finished: BTreeSet<(i64, JobId)>,
    /// Dead jobs by time of their death.
    pub(crate) dead: BTreeSet<(i64, JobId)>,
    /// Stored controls, and where.
    pub(crate) control: Control,
    pub(crate) control_place: Option<Place>,
    /// Progress in the weighted round-robin between queues; of this process only.
    pub(crate) turn: u64,
}

/// What was set for a queue at run time; stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) paused: bool,
    /// `None`: as the program configured it.
    pub(crate) concurrency: Option<u32>,
}

impl QueueState {
    pub(crate) fn lane_mut(&mut self, kind: KindIx, handled: impl FnOnce() -> bool) -> &mut Lane {
        let found = self.lanes.iter().position(|lane| lane.kind == kind);
        let at = found.unwrap_or_else(|| {
            self.lanes.push(Lane {
                kind,
                handled: handled(),
                ready: BTreeSet::new(),
            });
            self.lanes.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
        &mut self.lanes[at]
    }

    /// The ready job that runs next, among kinds that have a handler here.
    pub(crate) fn head(&self) -> Option<ReadyKey> {
        self.lanes
            .iter()
            .filter(|lane| lane.handled)
            .filter_map(|lane| lane.ready.first())
            .min()
            .copied()
    }

    pub(crate) fn count(&self, state: State) -> u64 {
        self.counts.get(state as usize).copied().unwrap_or(0)
    }

    pub(crate) fn count_in(&mut self, state: State) {
        if let Some(n) = self.counts.get_mut(state as usize) {
            *n += 1;
        }
    }

    pub(crate) fn count_out(&mut self, state: State) {
        if let Some(n) = self.counts.get_mut(state as usize) {
            *n -= 1;
        }
    }

    /// Ready jobs whose kind has no handler here.
    pub(crate) fn parked(&self) -> u64 {
        self.lanes
            .iter()
            .filter(|lane| !lane.handled)
            .map(|lane| lane.ready.len() as u64)
            .sum()
    }
}
