//! Repair's part of the rules: a story that goes on after a part of it was lost.

use crate::job::JobId;

use super::Ledger;
use super::event::{Event, LeaseRecord, Phase, RootRecord, Stamp};

impl Ledger {
    /// Sets ids, claims and counters to what they were.
    pub(crate) fn set_root(&mut self, root: RootRecord) {
        self.root = root;
    }

    /// Whether a job has a key that belongs to another one, or to nobody but itself after its deletion: so it is gone.
    pub(crate) fn has_lost_its_key(&self, id: JobId) -> bool {
        let Some(record) = self.jobs.get(id) else {
            return false;
        };
        let Some((key, _)) = record.key() else {
            return false;
        };
        let taken = self.keys.find(record.kind, key);
        taken.is_none_or(|taken| taken.id != id || taken.held.is_some())
    }

    /// Makes a job's record such that this event fits it, because what lay between was lost: who ends a claim had
    /// it, and what is claimed had waited. A job that is not there, or fits, stays as it is.
    pub(crate) fn fit(&mut self, event: &Event<'_>, stamp: Stamp) {
        let (id, claim) = match event {
            Event::Claimed { id, .. } => (*id, 0),
            Event::Released { id, claim, .. }
            | Event::Retried { id, claim, .. }
            | Event::Snoozed { id, claim, .. }
            | Event::Recovered { id, claim, .. }
            | Event::Cancelled { id, claim, .. }
            | Event::Died { id, claim, .. } => (*id, *claim),
            // 0: from outside, whoever runs it.
            Event::Completed { id, claim, .. } if *claim != 0 => (*id, *claim),
            _ => return,
        };
        let held = self.leases.get(&id).map_or(0, |lease| lease.claim);
        let Some(record) = self.jobs.get(id) else {
            return;
        };
        let waits = record.phase == Phase::Waiting || !matches!(event, Event::Claimed { .. });
        if held == claim && waits {
            return;
        }
        // L2: by the same way as every other change.
        let Some(mut record) = self.take(id) else {
            return;
        };
        let lease = (claim != 0).then_some(LeaseRecord {
            epoch: stamp.epoch,
            claim,
            alone: false,
            claimed_at_ms: stamp.at_ms,
        });
        record.phase = match lease {
            Some(_) => Phase::Running,
            None => Phase::Waiting,
        };
        if lease.is_some() {
            record.attempt = record.attempt.max(1);
        }
        self.store(id, record, lease);
    }
}
