//! After a crash: what becomes of the jobs that an earlier process had claimed.
//!
//! Their leases are stale by proof, for we hold the store's lock. Nothing is decided by a time-out.

use crate::fault::{self, Bug};
use crate::job::{DeadReason, JobId, OnCrash};

use super::Ledger;
use super::event::{Event, LeaseRecord};
use super::table::Record;

/// What the flight recorder knows about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Proven: no handler saw it.
    NotStarted,
    /// A handler began and did not end, or nobody knows.
    Started,
    /// The handler ended; what it said did not reach the journal.
    Ended,
}

impl Ledger {
    /// Events that end all leases of earlier epochs, in the order of ids. Doing it again does nothing.
    pub(crate) fn recover(
        &self,
        verdict: impl Fn(JobId, &LeaseRecord) -> Verdict,
    ) -> Vec<Event<'static>> {
        if fault::bug(Bug::LeasesSurvive) {
            return Vec::new();
        }
        // I3: every one of them ends, so no job waits for a process that is gone.
        let mut stale: Vec<(JobId, LeaseRecord)> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.epoch < self.root.epoch)
            .map(|(id, lease)| (*id, *lease))
            .collect();
        stale.sort_unstable_by_key(|(id, _)| *id);
        let events = stale.into_iter().filter_map(|(id, lease)| {
            let record = self.jobs.get(id)?;
            Some(self.after_crash(id, record, &lease, verdict(id, &lease)))
        });
        events.collect()
    }

    /// L7: none of these events counts a failure; only what a worker says does.
    fn after_crash(
        &self,
        id: JobId,
        record: &Record,
        lease: &LeaseRecord,
        verdict: Verdict,
    ) -> Event<'static> {
        let claim = lease.claim;
        if verdict == Verdict::NotStarted {
            return Event::Recovered {
                id,
                claim,
                crashed: false,
            };
        }
        let died = |reason| Event::Died {
            id,
            claim,
            ran_us: 0,
            reason,
            history: None,
        };
        match self.policies.get(record.policy).on_crash {
            // L11: it may have run to its end.
            OnCrash::Dead if !fault::bug(Bug::AtMostOnceForgotten) => died(DeadReason::Crashed),
            OnCrash::QuarantineAfter(most)
                // L8: had it run beside others, any of them could have been the one.
                if verdict == Verdict::Started
                    && !fault::bug(Bug::NoQuarantine)
                    && lease.alone
                    && record.crashes.saturating_add(1) >= most.max(2) =>
            {
                died(DeadReason::Quarantined)
            }
            _ => Event::Recovered {
                id,
                claim,
                crashed: verdict == Verdict::Started,
            },
        }
    }
}
