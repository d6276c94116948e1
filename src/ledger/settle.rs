//! What a worker says about the job it ran.

use crate::fault::{self, Bug};
use crate::job::{
    Content, DeadReason, ERROR_BYTES_MAX, ERRORS_KEPT_MAX, JobId, OnCrash, REASON_BYTES_MAX,
    truncate,
};

use super::Ledger;
use super::event::{AttemptError, Event, History};
use super::table::Record;

/// The words of a job that must not run twice, when its attempt did not come to an end.
const CUT_OFF: &str = "its attempt was cut off, and it must not run twice";

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed(Content),
    Failed {
        error: String,
        retry_after_ms: Option<u64>,
    },
    Snoozed {
        for_ms: u64,
    },
    /// The lease was taken away at a limit: a failure that the handler, which may run on, did not report.
    TakenAway {
        error: String,
    },
    Discarded(String),
    Cancelled(String),
    /// Not run to its end and not held against the job. `started`: a handler saw it.
    GivenBack {
        started: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettleAnswer {
    Settled,
    /// The job moved on without this claim; nothing changed.
    LeaseLost,
}

/// What a worker said, with what the rules need to judge it.
#[derive(Debug)]
pub(crate) struct Settling<'a> {
    pub(crate) id: JobId,
    pub(crate) claim: u64,
    pub(crate) outcome: &'a Outcome,
    /// What the attempt leaves behind if it does not complete, in the place of an earlier output.
    pub(crate) kept: Option<&'a Content>,
    /// The job's stored history.
    pub(crate) earlier: Option<History>,
    pub(crate) ran_us: u64,
    /// Decides the jitter of a backoff.
    pub(crate) seed: u64,
}

impl Ledger {
    pub(crate) fn settle(
        &self,
        settling: Settling<'_>,
        now_ms: i64,
    ) -> (SettleAnswer, Option<Event<'static>>) {
        let Settling {
            id,
            claim,
            outcome,
            kept,
            earlier,
            ran_us,
            seed,
        } = settling;
        // I4: the claim number never repeats, so a late answer finds no lease of its number.
        let Some(record) = self.jobs.get(id) else {
            return (SettleAnswer::LeaseLost, None);
        };
        let Some(claim) = self
            .leases
            .get(&id)
            .map(|lease| lease.claim)
            .filter(|held| *held == claim || fault::bug(Bug::ClaimUnchecked))
        else {
            return (SettleAnswer::LeaseLost, None);
        };
        // L11: whether it ran to its end is unknown, so a job of which there must be no second run is given up.
        let once = self.policies.get(record.policy).on_crash == OnCrash::Dead;
        let died = |reason, history| Event::Died {
            id,
            claim,
            ran_us,
            reason,
            history: Some(history),
        };
        let earlier = with_kept(earlier, kept);
        let event = match outcome {
            Outcome::Completed(output) => Event::Completed {
                id,
                claim,
                ran_us,
                history: with_output(earlier, output),
            },
            Outcome::TakenAway { error } if once => {
                let history = with_error(earlier, record.attempt, now_ms, error);
                died(DeadReason::Crashed, with_reason(Some(history), CUT_OFF))
            }
            Outcome::Failed { error, .. } | Outcome::TakenAway { error } => {
                let history = with_error(earlier, record.attempt, now_ms, error);
                match self.retry_at(record, outcome, seed, now_ms) {
                    None => died(DeadReason::AttemptsUsedUp, history),
                    Some((due_ms, expires_at_ms)) => Event::Retried {
                        id,
                        claim,
                        due_ms,
                        relative: true,
                        expires_at_ms,
                        ran_us,
                        history,
                    },
                }
            }
            Outcome::Snoozed { for_ms } => Event::Snoozed {
                id,
                claim,
                due_ms: now_ms.saturating_add_unsigned(*for_ms),
                relative: true,
            },
            Outcome::Discarded(why) => died(DeadReason::Discarded, with_reason(earlier, why)),
            Outcome::Cancelled(why) => Event::Cancelled {
                id,
                claim,
                ran_us,
                history: Some(with_reason(earlier, why)),
            },
            Outcome::GivenBack { started: true } if once => {
                died(DeadReason::Crashed, with_reason(earlier, CUT_OFF))
            }
            Outcome::GivenBack { started } => Event::Released {
                id,
                claim,
                started: *started,
            },
        };
        (SettleAnswer::Settled, Some(event))
    }

    /// When a job that failed once more is due again, and until when it may start; `None` if it has no attempt
    /// left.
    fn retry_at(
        &self,
        record: &Record,
        outcome: &Outcome,
        seed: u64,
        now_ms: i64,
    ) -> Option<(i64, Option<i64>)> {
        let policy = self.policies.get(record.policy);
        let failures = record.failures.saturating_add(1);
        if failures >= policy.attempts_max {
            return None;
        }
        let wait_ms = match outcome {
            Outcome::Failed {
                retry_after_ms: Some(ms),
                ..
            } => *ms,
            _ => crate::job::millis(policy.backoff.delay(u32::from(failures), seed)),
        };
        let due_ms = now_ms.saturating_add_unsigned(wait_ms);
        let expires_at_ms = (policy.retry_expires_ms > 0)
            .then(|| due_ms.saturating_add_unsigned(policy.retry_expires_ms));
        Some((due_ms, expires_at_ms))
    }
}

impl Outcome {
    pub(crate) fn output(&self) -> Option<&Content> {
        match self {
            Outcome::Completed(output) => Some(output),
            _ => None,
        }
    }

    /// About how much it adds to a group.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Outcome::Completed(output) => output.inline_len(),
            Outcome::Failed { error: text, .. }
            | Outcome::TakenAway { error: text }
            | Outcome::Discarded(text)
            | Outcome::Cancelled(text) => text.len().min(ERROR_BYTES_MAX),
            Outcome::Snoozed { .. } | Outcome::GivenBack { .. } => 0,
        }
    }
}

/// The history with one more error; the oldest makes room.
fn with_error(earlier: Option<History>, attempt: u32, at_ms: i64, error: &str) -> History {
    let mut history = earlier.unwrap_or_default();
    history.errors.push(AttemptError {
        attempt,
        at_ms,
        error: truncate(error, ERROR_BYTES_MAX).to_owned(),
    });
    // Why it once ended is not why it ends now.
    history.reason.clear();
    let extra = history.errors.len().saturating_sub(ERRORS_KEPT_MAX);
    history.errors.drain(..extra);
    history
}

/// The history with what an attempt left behind, if it did; else what an earlier one left stays.
fn with_kept(earlier: Option<History>, kept: Option<&Content>) -> Option<History> {
    match kept {
        None => earlier,
        Some(kept) => Some(History {
            output: Some(kept.clone()),
            ..earlier.unwrap_or_default()
        }),
    }
}

/// The history of a completion; none if there is nothing to tell.
pub(super) fn with_output(earlier: Option<History>, output: &Content) -> Option<History> {
    let has_output = *output != Content::Inline(Vec::new());
    (has_output || earlier.is_some()).then(|| History {
        output: has_output.then(|| output.clone()),
        ..earlier.unwrap_or_default()
    })
}

pub(super) fn with_reason(earlier: Option<History>, why: &str) -> History {
    History {
        reason: truncate(why, REASON_BYTES_MAX).to_owned(),
        ..earlier.unwrap_or_default()
    }
}
