//! What is said to a machine and by it: plain values, and their way into the engine's own and back.

use std::sync::Arc;
use std::time::Duration;

use super::machine::Held;
use crate::engine::{Awaited, Command, HandOut, Recorder, Reply, read_history};
use crate::error::{Error, Result};
use crate::job::{
    Backoff, Content, DeadReason, Encoding, Expiry, JobId, NewJob, OnCrash, Policy, Priority,
    State, Wait,
};
use crate::journal::{Payloads, event_at};
use crate::ledger::{ChangeAnswer, ChangeKind, Event, Filter, Outcome, Payload, Row};

/// Gives an answer once it has come.
pub(super) type Poll = Box<dyn FnMut() -> Option<Result<Answer, Refusal>>>;

/// When a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// At this wall-clock time.
    Until(i64),
    /// After so many milliseconds.
    For(u64),
}

/// A job that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the public API")]
pub struct Wish {
    pub kind: String,
    pub queue: String,
    pub priority: i32,
    pub when: When,
    pub expires_at_ms: Option<i64>,
    pub key: Option<String>,
    pub attempts_max: u16,
    pub backoff_ms: u64,
    pub time_limit_ms: u64,
    pub stall_timeout_ms: u64,
    /// It must not run twice.
    pub once: bool,
    /// Crashes after which it is quarantined; 0: never.
    pub quarantine_after: u8,
    pub payload: Vec<u8>,
    /// The payload has a file of its own.
    pub in_file: bool,
}

/// What can be asked of an engine.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "as in the public API")]
pub enum Call {
    Enqueue(Vec<Wish>),
    Cancel(u64),
    Delete(u64),
    Retry(u64),
    Reschedule(u64, When),
    SetPriority(u64, i32),
    MoveTo(u64, String),
    Complete(u64, Vec<u8>),
    Pause(String, bool),
    Cap(String, Option<u32>),
    Prune {
        state: Option<State>,
        older_ms: u64,
    },
    Look(u64),
    FindKey(String, String),
    Claim {
        kind: &'static str,
        queue: String,
        wait_ms: u64,
    },
    /// Holds the moment until `Machine::let_go`.
    Hold,
    Shutdown {
        grace_ms: u64,
    },
}

/// What the engine says.
#[derive(Debug)]
#[expect(missing_docs, reason = "as in the public API")]
pub enum Answer {
    /// Ids, and whether each is a new job.
    Placed(Vec<(u64, bool)>),
    Done,
    NoSuchJob,
    IsRunning,
    IsFinished(State),
    PayloadGone,
    Row(Option<Seen>),
    Key(Option<u64>),
    Claimed(Option<Held>),
    Pruned(u64),
    /// Whether the lease still held.
    Settled(bool),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing was written.
    Refused,
    /// Perhaps it was.
    Unknown,
    /// Another error.
    Other(String),
}

/// A job as a list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the public API")]
pub struct Seen {
    pub id: u64,
    pub kind: String,
    pub queue: String,
    pub state: State,
    pub priority: i32,
    pub due_ms: i64,
    pub attempt: u32,
    pub failures: u16,
    pub crashes: u8,
    pub key: Option<String>,
    pub claim: Option<u64>,
    pub dead_reason: Option<DeadReason>,
    pub expires_at_ms: Option<i64>,
}

/// What a job's frames say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the public API")]
pub struct Told {
    pub row: Seen,
    /// Attempt and text.
    pub errors: Vec<(u32, String)>,
    pub reason: String,
    pub output: Option<Vec<u8>>,
    /// `None`: the payload is gone.
    pub payload: Option<Vec<u8>>,
}

/// How an attempt ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the public API")]
pub enum End {
    Completed(Vec<u8>),
    Failed {
        error: String,
        retry_after_ms: Option<u64>,
    },
    Snoozed(u64),
    Discarded(String),
    Cancelled(String),
    GivenBack,
}

pub(super) fn outcome(end: End) -> Outcome {
    match end {
        End::Completed(output) => Outcome::Completed(Content::Inline(output)),
        End::Failed {
            error,
            retry_after_ms,
        } => Outcome::Failed {
            error,
            retry_after_ms,
        },
        End::Snoozed(for_ms) => Outcome::Snoozed { for_ms },
        End::Discarded(why) => Outcome::Discarded(why),
        End::Cancelled(why) => Outcome::Cancelled(why),
        End::GivenBack => Outcome::GivenBack { started: true },
    }
}

fn polled<T: 'static>(answer: Awaited<T>, mut read: impl FnMut(T) -> Answer + 'static) -> Poll {
    Box::new(move || {
        let answer = answer.try_recv().ok()?;
        Some(answer.map(&mut read).map_err(Refusal::from))
    })
}

pub(super) fn settled(answer: Awaited<bool>) -> Poll {
    polled(answer, Answer::Settled)
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        match error {
            Error::Refused { .. } => Refusal::Refused,
            Error::Unknown { .. } => Refusal::Unknown,
            other => Refusal::Other(other.to_string()),
        }
    }
}

impl From<ChangeAnswer> for Answer {
    fn from(answer: ChangeAnswer) -> Answer {
        match answer {
            ChangeAnswer::Done => Answer::Done,
            ChangeAnswer::Unknown => Answer::NoSuchJob,
            ChangeAnswer::IsRunning => Answer::IsRunning,
            ChangeAnswer::AlreadyFinished(state) => Answer::IsFinished(state),
            ChangeAnswer::PayloadGone => Answer::PayloadGone,
        }
    }
}

impl From<Row> for Seen {
    fn from(row: Row) -> Seen {
        Seen {
            id: row.id.number(),
            kind: row.kind,
            queue: row.queue,
            state: row.state,
            priority: row.priority.0,
            due_ms: row.due_ms,
            attempt: row.attempt,
            failures: row.failures,
            crashes: row.crashes,
            key: row.key,
            claim: row.claim.map(crate::job::ClaimNumber::number),
            dead_reason: row.dead_reason,
            expires_at_ms: row.expires_at_ms,
        }
    }
}

pub(super) fn to_command(
    call: Call,
    awake: Duration,
    payloads: &Arc<Payloads>,
    recorder: &Arc<Recorder>,
) -> (Command, Poll) {
    match call {
        Call::Enqueue(wishes) => {
            let (reply, answer) = Reply::new();
            let jobs = wishes
                .into_iter()
                .map(|wish| new_job(wish, payloads))
                .collect();
            let read = |placed: Vec<crate::ledger::Placed>| {
                let of = |p: crate::ledger::Placed| (p.id.number(), p.is_new);
                Answer::Placed(placed.into_iter().map(of).collect())
            };
            (Command::Enqueue { jobs, reply }, polled(answer, read))
        }
        Call::Cancel(id) => change(
            id,
            ChangeKind::Cancel {
                reason: "cancelled".to_owned(),
            },
        ),
        Call::Delete(id) => change(id, ChangeKind::Delete),
        Call::Retry(id) => change(id, ChangeKind::Retry),
        Call::Reschedule(id, when) => change(id, ChangeKind::Reschedule(wait(when))),
        Call::SetPriority(id, priority) => change(id, ChangeKind::SetPriority(Priority(priority))),
        Call::MoveTo(id, queue) => change(id, ChangeKind::MoveTo { queue }),
        Call::Complete(id, output) => change(
            id,
            ChangeKind::Complete {
                output: Content::Inline(output),
            },
        ),
        Call::Pause(name, paused) => set_queue(name, Some(paused), None),
        Call::Cap(name, cap) => set_queue(name, None, Some(cap)),
        Call::Prune { state, older_ms } => {
            let (reply, answer) = Reply::new();
            let filter = Filter {
                state,
                ..Filter::default()
            };
            let command = Command::Prune {
                filter,
                older_ms,
                reply,
            };
            (command, polled(answer, Answer::Pruned))
        }
        Call::Look(id) => {
            let (reply, answer) = Reply::new();
            let id = JobId::from_number(id);
            let read = |row: Option<Row>| Answer::Row(row.map(Seen::from));
            (Command::Look { id, reply }, polled(answer, read))
        }
        Call::FindKey(kind, key) => {
            let (reply, answer) = Reply::new();
            let read = |id: Option<JobId>| Answer::Key(id.map(JobId::number));
            (Command::FindKey { kind, key, reply }, polled(answer, read))
        }
        Call::Claim {
            kind,
            queue,
            wait_ms,
        } => {
            let (reply, answer) = Reply::new();
            let (payloads, recorder) = (payloads.clone(), recorder.clone());
            let read = move |job: Option<HandOut>| {
                Answer::Claimed(job.map(|mut job| {
                    job.arrived = true;
                    Held {
                        job,
                        recorder: recorder.clone(),
                        payloads: payloads.clone(),
                    }
                }))
            };
            let until = awake + Duration::from_millis(wait_ms);
            let command = Command::Claim {
                kind,
                queue,
                until,
                reply,
            };
            (command, polled(answer, read))
        }
        Call::Shutdown { grace_ms } => {
            let (reply, answer) = Reply::new();
            let until = awake + Duration::from_millis(grace_ms);
            let command = Command::Shutdown { until, reply };
            (command, polled(answer, |_| Answer::Done))
        }
        Call::Hold => (Command::Wake, Box::new(|| None)),
    }
}

fn change(id: u64, wish: ChangeKind) -> (Command, Poll) {
    let (reply, answer) = Reply::new();
    let id = JobId::from_number(id);
    let command = Command::Change { id, wish, reply };
    (command, polled(answer, Answer::from))
}

fn set_queue(
    name: String,
    paused: Option<bool>,
    concurrency: Option<Option<u32>>,
) -> (Command, Poll) {
    let (reply, answer) = Reply::new();
    let command = Command::SetQueue {
        name,
        paused,
        concurrency,
        reply,
    };
    (command, polled(answer, |()| Answer::Done))
}

fn wait(when: When) -> Wait {
    match when {
        When::Now => Wait::No,
        When::Until(at_ms) => Wait::Until(at_ms),
        When::For(ms) => Wait::For(ms),
    }
}

fn new_job(wish: Wish, payloads: &Payloads) -> NewJob {
    let payload = if wish.in_file {
        payloads.store(&wish.payload).map(Content::File)
    } else {
        Ok(Content::Inline(wish.payload))
    };
    NewJob {
        kind: wish.kind.into(),
        version: 1,
        encoding: Encoding::Rkyv,
        queue: wish.queue.into(),
        priority: Priority(wish.priority),
        wait: wait(wish.when),
        expires: wish.expires_at_ms.map(|at_ms| Expiry {
            at_ms,
            relative: false,
        }),
        policy: Policy {
            attempts_max: wish.attempts_max,
            backoff: Backoff::fixed(Duration::from_millis(wish.backoff_ms)),
            time_limit_ms: wish.time_limit_ms,
            stall_timeout_ms: wish.stall_timeout_ms,
            retry_expires_ms: 0,
            on_crash: match (wish.once, wish.quarantine_after) {
                (true, _) => OnCrash::Dead,
                (false, 0) => OnCrash::Rerun,
                (false, most) => OnCrash::QuarantineAfter(most),
            },
        },
        key: wish.key,
        metadata: Vec::new(),
        payload: payload.unwrap_or(Content::Inline(Vec::new())),
    }
}

pub(super) fn told(details: crate::engine::Details, payloads: &Payloads) -> Told {
    let content = |content: Content| match content {
        Content::Inline(bytes) => bytes,
        Content::File(file) => payloads.read(&file).map_or(Vec::new(), |b| b.to_vec()),
    };
    let history = details
        .history
        .as_ref()
        .and_then(|frame| read_history(frame).ok())
        .unwrap_or_default();
    let payload = match event_at(&details.base.entry, details.base.offset) {
        Ok(Event::Enqueued(job) | Event::Carried(job, ..)) => match job.payload {
            Payload::Inline(bytes) => Some(bytes.to_vec()),
            Payload::File(file) => payloads.read(&file).ok().map(|bytes| bytes.to_vec()),
            Payload::Gone => None,
        },
        _ => None,
    };
    Told {
        row: Seen::from(details.row),
        errors: history
            .errors
            .into_iter()
            .map(|e| (e.attempt, e.error))
            .collect(),
        reason: history.reason,
        output: history.output.map(content),
        payload,
    }
}
