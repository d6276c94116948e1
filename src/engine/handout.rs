//! A claimed job on its way to a handler, and how its end is told.

use std::ops::Range;
use std::sync::Arc;

use super::command::{Command, Settle};
use super::handouts::HandOuts;
use super::inbox::Inbox;
use super::live::{Live, Stage};
use super::recorder::Spot;
use crate::error::Result;
use crate::job::{Content, Form, JobId, PayloadRef, StopKind, millis};
use crate::journal::{EntryBytes, Payloads};
use crate::ledger::Outcome;

/// A payload: in place in an entry, or in a file of its own.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    InEntry {
        entry: EntryBytes,
        range: Range<usize>,
    },
    InFile(Box<PayloadRef>),
}

/// A claimed job. Whoever holds it settles it; if it is dropped instead, the job goes back unharmed (one that had
/// begun and must not run twice is dead).
#[derive(Debug)]
pub(crate) struct HandOut {
    pub(crate) id: JobId,
    pub(crate) claim: u64,
    pub(crate) kind: Arc<str>,
    pub(crate) queue: Arc<str>,
    pub(crate) form: Form,
    /// Number of this attempt, from 1.
    pub(crate) attempt: u32,
    pub(crate) failures: u16,
    pub(crate) attempts_max: u16,
    pub(crate) crashes: u8,
    pub(crate) payload: Bytes,
    /// Wall-clock milliseconds from which on it must not start.
    pub(crate) expires_at_ms: Option<i64>,
    /// Place in the flight recorder.
    pub(crate) place: u32,
    /// The claim whose end is noted with this one's begin; 0: none.
    pub(crate) after: u64,
    pub(crate) epoch: u64,
    pub(crate) live: Arc<Live>,
    pub(crate) inbox: Inbox,
    /// Whether somebody who could work on it has got it. One claimed by hand counts as started while it is on its
    /// way to its caller, who may have gone.
    pub(crate) arrived: bool,
    /// What the attempt leaves behind if it does not complete.
    pub(crate) kept: Option<Content>,
    /// Set once its end was told.
    pub(crate) settled: bool,
}

impl HandOut {
    /// Where the flight recorder notes it.
    pub(crate) fn spot(&self) -> Spot {
        Spot {
            epoch: self.epoch,
            place: self.place,
            job: self.id.number(),
            claim: self.claim,
            after: self.after,
        }
    }

    /// Lends the payload's bytes, as they were stored.
    pub(crate) fn with_payload<T>(
        &self,
        payloads: &Payloads,
        f: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        Ok(match &self.payload {
            Bytes::InEntry { entry, range } => f(entry.get(range.clone()).unwrap_or_default()),
            Bytes::InFile(file) => f(&payloads.read(file)?),
        })
    }

    /// Tells the writer how it ended.
    pub(crate) fn settle(mut self, outcome: Outcome, ran_us: u64) {
        self.send(outcome, ran_us, None, || true);
    }

    /// The same for one of a pool's jobs: it presses only if somebody waits for it, or the pool for more jobs.
    pub(crate) fn settle_unhurried(mut self, outcome: Outcome, ran_us: u64, outs: &HandOuts) {
        // E11: asked under the inbox's lock. If jobs are left, the end of the last one comes after this one.
        let live = self.live.clone();
        let presses = || live.is_awaited() || outs.is_low();
        self.send(outcome, ran_us, None, presses);
    }

    pub(crate) fn settle_and_ask(
        mut self,
        outcome: Outcome,
        ran_us: u64,
        reply: super::Reply<bool>,
    ) {
        self.send(outcome, ran_us, Some(reply), || true);
    }

    fn send(
        &mut self,
        outcome: Outcome,
        ran_us: u64,
        reply: Option<super::Reply<bool>>,
        presses: impl FnOnce() -> bool,
    ) {
        self.settled = true;
        self.live.end();
        let settle = Command::Settle(Settle {
            id: self.id,
            claim: self.claim,
            outcome,
            kept: self.kept.take(),
            ran_us,
            reply,
        });
        self.inbox.send_unhurried(settle, presses);
    }
}

impl Drop for HandOut {
    fn drop(&mut self) {
        // E4: whatever became of its holder, the job goes back. One that was taken back is the writer's again.
        if !self.settled && self.live.stage() != Stage::TakenBack {
            // L11: begun is what its holder could work on.
            let started = self.arrived && self.live.stage() != Stage::Waiting;
            self.send(Outcome::GivenBack { started }, 0, None, || true);
        }
    }
}

/// How an attempt ended that has no output; `asked` for a handler that obeyed a wish to stop.
pub(crate) fn outcome_of(stop: StopKind, asked: impl FnOnce() -> Outcome) -> Outcome {
    match stop {
        StopKind::Fail { error, retry_after } => Outcome::Failed {
            error,
            retry_after_ms: retry_after.map(millis),
        },
        StopKind::Snooze(wait) => Outcome::Snoozed {
            for_ms: millis(wait),
        },
        StopKind::Discard(why) => Outcome::Discarded(why),
        StopKind::Cancel(why) => Outcome::Cancelled(why),
        StopKind::Asked => asked(),
    }
}
