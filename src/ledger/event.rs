//! All that can happen. The journal stores these and nothing else; [`apply`](super::Ledger::apply)
//! folds them into the state.
//!
//! An event borrows from the command that caused it, or from the journal entry that holds it, so that
//! a payload is never copied on its way through the ledger.

use std::borrow::Cow;

use crate::job::{Content, DeadReason, Encoding, Expiry, JobId, PayloadRef, Policy, Priority};

/// Of ids, claims, epochs, groups and positions. No life comes near it, and what is added to such numbers cannot
/// overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// Where a record's frame lies: entry position and offset of the frame in the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) offset: u16,
    /// Bytes of the frame that count as live; the frame itself tells its length.
    pub(crate) len: u16,
}

/// What the journal knows of an event besides its content: all of it is on disk too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) place: Place,
    /// The wall clock when the event's group was decided.
    pub(crate) at_ms: i64,
    /// The epoch in which it was written: the lease of a claim is of this one, whatever epoch the root
    /// record says that a replay has met so far.
    pub(crate) epoch: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event<'a> {
    // --- a job's life ---
    Enqueued(NewRecord<'a>),
    /// A worker (or a caller with its own threads) has the right to run it.
    Claimed {
        id: JobId,
        claim: u64,
        alone: bool,
    },
    /// Back to where it was, no attempt used. `started` tells whether a handler saw the attempt.
    Released {
        id: JobId,
        claim: u64,
        started: bool,
    },
    /// `claim` 0: completed from outside, whoever runs it.
    Completed {
        id: JobId,
        claim: u64,
        ran_us: u64,
        history: Option<History>,
    },
    /// `relative`: the wait is a span, it moves with the wall clock; also elsewhere.
    Retried {
        id: JobId,
        claim: u64,
        due_ms: i64,
        relative: bool,
        /// The new expiry, a span as well.
        expires_at_ms: Option<i64>,
        ran_us: u64,
        history: History,
    },
    Snoozed {
        id: JobId,
        claim: u64,
        due_ms: i64,
        relative: bool,
    },
    /// `claim` 0, here and below: no worker's doing.
    Cancelled {
        id: JobId,
        claim: u64,
        ran_us: u64,
        history: Option<History>,
    },
    Died {
        id: JobId,
        claim: u64,
        ran_us: u64,
        reason: DeadReason,
        history: Option<History>,
    },
    /// Its process died. `crashed`: while a handler may have run it.
    Recovered {
        id: JobId,
        claim: u64,
        crashed: bool,
    },
    /// From an end back to life, with fresh attempts.
    Requeued {
        id: JobId,
        due_ms: i64,
        relative: bool,
    },
    Rescheduled {
        id: JobId,
        due_ms: i64,
        relative: bool,
    },
    Reprioritised {
        id: JobId,
        priority: Priority,
    },
    Moved {
        id: JobId,
        queue: Cow<'a, str>,
    },
    Deleted {
        id: JobId,
    },
    Pruned {
        ids: Vec<u64>,
    },
    /// The whole job again, so that the entries that told its story can go.
    Carried(NewRecord<'a>, Standing, Option<History>),

    // --- not about one job ---
    /// A process opened the store: all leases of earlier epochs are stale from here on.
    Opened {
        epoch: u64,
        boot: u128,
        /// The steady clock, which means something within one boot.
        steady_ms: u64,
        /// The version of this crate.
        writer: Cow<'a, str>,
    },
    /// The wall clock was set; spans move with it. `before_ms` is what the clock would have shown: a span that
    /// was over by then stays over.
    ClockStepped {
        before_ms: i64,
        by_ms: i64,
    },
    QueueSet {
        name: Cow<'a, str>,
        paused: bool,
        concurrency: Option<u32>,
    },
    /// A deleted job's key stays taken.
    KeyHeld {
        kind: Cow<'a, str>,
        key: Cow<'a, str>,
        id: JobId,
        until_ms: i64,
    },
    KeyFreed {
        kind: Cow<'a, str>,
        key: Cow<'a, str>,
    },
    /// Ids, claims and lifetime counters, as they stand.
    RootSet(RootRecord),
    /// Of a later version, and made to be skipped by this one: it changes nothing that is known here.
    Skipped,
}

impl Event<'_> {
    /// The largest of its numbers that others are counted on from.
    pub(super) fn largest_number(&self) -> u64 {
        match self {
            Event::Enqueued(job) | Event::Carried(job, ..) => job.id.number(),
            Event::Claimed { claim, .. } => *claim,
            Event::Opened { epoch, .. } => *epoch,
            Event::RootSet(root) => root.epoch.max(root.next_id).max(root.next_claim),
            _ => 0,
        }
    }

    /// Whose story it tells, as far as that has a body or leaves something behind: errors, reason, output.
    pub(crate) fn story(&self) -> (Option<JobId>, Option<&History>) {
        match self {
            Event::Enqueued(job) => (Some(job.id), None),
            Event::Carried(job, _, history) => (Some(job.id), history.as_ref()),
            Event::Retried { id, history, .. } => (Some(*id), Some(history)),
            Event::Completed { id, history, .. }
            | Event::Cancelled { id, history, .. }
            | Event::Died { id, history, .. } => (Some(*id), history.as_ref()),
            _ => (None, None),
        }
    }
}

/// A job as enqueued.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewRecord<'a> {
    pub(crate) id: JobId,
    pub(crate) kind: &'a str,
    pub(crate) version: u16,
    pub(crate) encoding: Encoding,
    pub(crate) queue: &'a str,
    pub(crate) priority: Priority,
    pub(crate) enqueued_at_ms: i64,
    /// From when on it may run.
    pub(crate) due_ms: i64,
    /// The wait was asked for as a span: it moves with the wall clock.
    pub(crate) relative: bool,
    pub(crate) expires: Option<Expiry>,
    /// Key, and until when it stays taken at least.
    pub(crate) key: Option<(&'a str, i64)>,
    pub(crate) metadata: Vec<(&'a str, &'a str)>,
    pub(crate) policy: Policy,
    pub(crate) payload: Payload<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// Dropped when the job completed.
    Gone,
    Inline(&'a [u8]),
    File(PayloadRef),
}

impl<'a> From<&'a Content> for Payload<'a> {
    fn from(content: &'a Content) -> Payload<'a> {
        match content {
            Content::Inline(bytes) => Payload::Inline(bytes),
            Content::File(file) => Payload::File(**file),
        }
    }
}

/// The part of a job that changes, complete: what [`Event::Carried`] must bring along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) phase: Phase,
    pub(crate) attempt: u32,
    pub(crate) failures: u16,
    pub(crate) crashes: u8,
    /// When it reached its end; 0 before.
    pub(crate) finished_at_ms: i64,
    pub(crate) lease: Option<LeaseRecord>,
}

/// The stored part of a state. Whether a waiting job is `Scheduled` or `Ready` is a matter of the
/// clock and not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Waiting,
    Running,
    Completed,
    Cancelled,
    Dead(DeadReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseRecord {
    pub(crate) epoch: u64,
    pub(crate) claim: u64,
    pub(crate) alone: bool,
    pub(crate) claimed_at_ms: i64,
}

/// What a job's attempts left behind: bounded in number and bytes (see `job/limits.rs`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Newest last.
    pub(crate) errors: Vec<AttemptError>,
    pub(crate) reason: String,
    pub(crate) output: Option<Content>,
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptError {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it ended: wall-clock milliseconds.
    pub at_ms: i64,
    /// The error text, or the panic's message; at most 1,000 bytes.
    pub error: String,
}

/// Ids, claims, epoch and lifetime counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RootRecord {
    pub(crate) epoch: u64,
    pub(crate) boot: u128,
    pub(crate) next_id: u64,
    pub(crate) next_claim: u64,
    pub(crate) counters: Counters,
}

/// Events since the store was created, exact: they are part of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Jobs stored.
    pub enqueued: u64,
    /// Claims; a claim that was given back unstarted does not count.
    pub started: u64,
    /// Failed attempts that will be tried again.
    pub retried: u64,
    /// Attempts put off without using one up.
    pub snoozed: u64,
    /// Jobs completed.
    pub completed: u64,
    /// Jobs cancelled.
    pub cancelled: u64,
    /// Jobs that died, for whatever reason.
    pub died: u64,
    /// Of those, jobs that expired.
    pub expired: u64,
    /// Times that a process died while a job may have run (once for each such job).
    pub crashed: u64,
    /// Jobs deleted by a caller.
    pub deleted: u64,
    /// Finished jobs removed by retention.
    pub pruned: u64,
}

impl Counters {
    /// All counters in the order of the stored record.
    pub(crate) fn to_array(self) -> [u64; 11] {
        [
            self.enqueued,
            self.started,
            self.retried,
            self.snoozed,
            self.completed,
            self.cancelled,
            self.died,
            self.expired,
            self.crashed,
            self.deleted,
            self.pruned,
        ]
    }

    pub(crate) fn from_array(n: [u64; 11]) -> Counters {
        let [
            enqueued,
            started,
            retried,
            snoozed,
            completed,
            cancelled,
            died,
            expired,
            crashed,
            deleted,
            pruned,
        ] = n;
        Counters {
            enqueued,
            started,
            retried,
            snoozed,
            completed,
            cancelled,
            died,
            expired,
            crashed,
            deleted,
            pruned,
        }
    }
}
