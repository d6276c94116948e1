//! What a worker says about the job it ran.

use crate::job::{
    Content, DeadReason, ERROR_BYTES_MAX, ERRORS_KEPT_MAX, JobId, REASON_BYTES_MAX, truncate,
};

use super::Ledger;
use super::event::{AttemptError, Event, History};

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
            earlier,
            ran_us,
            seed,
        } = settling;
        // I4: the claim number never repeats, so a late answer finds no lease of its number.
        let Some(record) = self.jobs.get(id) else {
            return (SettleAnswer::LeaseLost, None);
        };
        if self
            .leases
            .get(&id)
            .is_none_or(|lease| lease.claim != claim)
        {
            return (SettleAnswer::LeaseLost, None);
        }
        let event = match outcome {
            Outcome::Completed(output) => Event::Completed {
                id,
                claim,
                ran_us,
                history: with_output(earlier, output),
            },
            Outcome::Failed {
                error,
                retry_after_ms,
            } => {
                let policy = self.policies.get(record.policy);
                let failures = record.failures.saturating_add(1);
                let error = AttemptError {
                    attempt: record.attempt,
                    at_ms: now_ms,
                    error: error.clone(),
                };
                let history = with_error(earlier, error);
                if failures >= policy.attempts_max {
                    Event::Died {
                        id,
                        claim,
                        ran_us,
                        reason: DeadReason::AttemptsUsedUp,
                        history: Some(history),
                    }
                } else {
                    let wait_ms = retry_after_ms.unwrap_or_else(|| {
                        crate::job::millis(policy.backoff.delay(u32::from(failures), seed))
                    });
                    let due_ms = now_ms.saturating_add_unsigned(wait_ms);
                    let expires_at_ms = (policy.retry_expires_ms > 0)
                        .then(|| due_ms.saturating_add_unsigned(policy.retry_expires_ms));
                    Event::Retried {
                        id,
                        claim,
                        due_ms,
                        relative: true,
                        expires_at_ms,
                        ran_us,
                        history,
                    }
                }
            }
            Outcome::Snoozed { for_ms } => Event::Snoozed {
                id,
                claim,
                due_ms: now_ms.saturating_add_unsigned(*for_ms),
                relative: true,
            },
            Outcome::Discarded(why) => Event::Died {
                id,
                claim,
                ran_us,
                reason: DeadReason::Discarded,
                history: Some(with_reason(earlier, why)),
            },
            Outcome::Cancelled(why) => Event::Cancelled {
                id,
                claim,
                ran_us,
                history: Some(with_reason(earlier, why)),
            },
            Outcome::GivenBack { started } => Event::Released {
                id,
                claim,
                started: *started,
            },
        };
        (SettleAnswer::Settled, Some(event))
    }
}

impl Outcome {
    /// About how much it adds to a group.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Outcome::Completed(output) => output.inline_len(),
            Outcome::Failed { error: text, .. }
            | Outcome::Discarded(text)
            | Outcome::Cancelled(text) => text.len().min(ERROR_BYTES_MAX),
            Outcome::Snoozed { .. } | Outcome::GivenBack { .. } => 0,
        }
    }
}

/// The history with one more error; the oldest makes room.
fn with_error(earlier: Option<History>, mut error: AttemptError) -> History {
    let mut history = earlier.unwrap_or_default();
    error
        .error
        .truncate(error.error.floor_char_boundary(ERROR_BYTES_MAX));
    history.errors.push(error);
    // Why it once ended is not why it ends now.
    history.reason.clear();
    let extra = history.errors.len().saturating_sub(ERRORS_KEPT_MAX);
    history.errors.drain(..extra);
    history
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
