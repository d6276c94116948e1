//! One named queue: what is ready in it, in exact order, and its controls.

use std::collections::BTreeSet;

use crate::job::{JobId, State};

use super::event::Place;
use super::names::KindIx;
use super::ready::{Ready, ReadyKey};
use super::setup::QueueSetup;

/// The ready jobs of one kind in one queue. One lane per kind, so that jobs whose kind has no
/// handler here (parked) cost a claim nothing.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) kind: KindIx,
    pub(crate) handled: bool,
    pub(crate) ready: Ready,
}

#[derive(Debug, Default)]
pub(crate) struct QueueState {
    /// As this process configures it.
    pub(crate) setup: QueueSetup,
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
                ready: Ready::default(),
            });
            self.lanes.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
        &mut self.lanes[at]
    }

    /// The ready job that runs next, among kinds that have a handler here. L10: the others stay as they are.
    pub(crate) fn head(&self) -> Option<ReadyKey> {
        self.lanes
            .iter()
            .filter(|lane| lane.handled)
            .filter_map(|lane| lane.ready.first())
            .min()
    }

    /// Most jobs that run at a time: as set at run time, or else as configured.
    pub(crate) fn cap(&self) -> Option<u32> {
        self.control.concurrency.or(self.setup.concurrency)
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
            .map(|lane| lane.ready.len())
            .sum()
    }
}
