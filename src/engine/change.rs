//! Changes to jobs and queues from outside, each with a typed answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::command::Command;
use super::handle::check_kind;
use super::request::wall_ms;
use super::{Engine, Shared};
use crate::error::{Error, Result};
use crate::job::{Content, Form, Format, Job, JobId, Priority, State, Wait, check_name, millis};
use crate::ledger::{ChangeAnswer, ChangeKind, Filter, Idle};

/// Changes to one job; see [`Engine::change`]. Each call is durable on return.
///
/// Their errors are those of any call: [`Error::Closed`], and [`Error::Refused`] or
/// [`Error::Unknown`] after a failed write. What the job's state does not allow is an answer.
#[derive(Debug)]
pub struct Change<'e> {
    shared: &'e Arc<Shared>,
    id: JobId,
}

/// What became of a wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancel {
    /// It had not begun and will not.
    Cancelled,
    /// It runs: its handler was asked to stop ([`Context::check`](crate::Context::check)). If the handler
    /// completes all the same, the job is completed. The wish itself is not stored: after a crash the job
    /// runs again.
    AskedToStop,
    /// Nothing to cancel.
    AlreadyFinished(State),
    /// There is no such job.
    Unknown,
}

/// What became of a wish to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delete {
    /// It is gone; its key stays taken for the rest of its time.
    Deleted,
    /// It runs: cancel it first.
    IsRunning,
    /// There is no such job.
    Unknown,
}

/// What became of a wish to change a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Changed {
    /// Done.
    Done,
    /// A handler has it; it cannot be changed while it runs.
    IsRunning,
    /// It has come to its end.
    AlreadyFinished(State),
    /// It completed, and with that its payload went: enqueue it anew.
    PayloadGone,
    /// There is no such job.
    Unknown,
}

impl From<ChangeAnswer> for Cancel {
    fn from(answer: ChangeAnswer) -> Cancel {
        match answer {
            ChangeAnswer::Done => Cancel::Cancelled,
            ChangeAnswer::IsRunning => Cancel::AskedToStop,
            ChangeAnswer::AlreadyFinished(state) => Cancel::AlreadyFinished(state),
            ChangeAnswer::PayloadGone => Cancel::AlreadyFinished(State::Completed),
            ChangeAnswer::Unknown => Cancel::Unknown,
        }
    }
}

impl From<ChangeAnswer> for Delete {
    fn from(answer: ChangeAnswer) -> Delete {
        match answer {
            ChangeAnswer::IsRunning => Delete::IsRunning,
            ChangeAnswer::Unknown => Delete::Unknown,
            _ => Delete::Deleted,
        }
    }
}

impl From<ChangeAnswer> for Changed {
    fn from(answer: ChangeAnswer) -> Changed {
        match answer {
            ChangeAnswer::Done => Changed::Done,
            ChangeAnswer::IsRunning => Changed::IsRunning,
            ChangeAnswer::AlreadyFinished(state) => Changed::AlreadyFinished(state),
            ChangeAnswer::PayloadGone => Changed::PayloadGone,
            ChangeAnswer::Unknown => Changed::Unknown,
        }
    }
}

impl<'e> Change<'e> {
    pub(super) fn new(shared: &'e Arc<Shared>, id: JobId) -> Change<'e> {
        Change { shared, id }
    }

    /// Cancels the job, wherever it is; `reason` is kept with it.
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn cancel(&self, reason: &str) -> Result<Cancel> {
        let reason = reason.to_owned();
        self.ask(ChangeKind::Cancel { reason })
    }

    /// Deletes the job.
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn delete(&self) -> Result<Delete> {
        self.ask(ChangeKind::Delete)
    }

    /// Lets it run as soon as it can: a dead or cancelled job comes back with fresh attempts, a
    /// scheduled one does not wait any longer.
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn retry(&self) -> Result<Changed> {
        self.ask(ChangeKind::Retry)
    }

    /// Sets the time before which it does not run; brings a dead or cancelled job back to life.
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn reschedule(&self, at: SystemTime) -> Result<Changed> {
        self.ask(ChangeKind::Reschedule(Wait::Until(wall_ms(at))))
    }

    /// As [`reschedule`](Change::reschedule), counted from now: a span, which moves with the wall clock if that
    /// is set.
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn reschedule_after(&self, wait: Duration) -> Result<Changed> {
        self.ask(ChangeKind::Reschedule(Wait::For(millis(wait))))
    }

    /// Sets the priority.
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn set_priority(&self, priority: impl Into<Priority>) -> Result<Changed> {
        self.ask(ChangeKind::SetPriority(priority.into()))
    }

    /// Moves it to another queue.
    ///
    /// # Errors
    ///
    /// See [`Change`]; [`Error::Invalid`] for the name.
    pub fn move_to(&self, queue: &str) -> Result<Changed> {
        check_name("queue name", queue)?;
        self.ask(ChangeKind::MoveTo {
            queue: queue.to_owned(),
        })
    }

    /// Completes it from outside with this output. If a handler runs it, that one loses its lease: it is
    /// asked to stop and its answer will be refused.
    ///
    /// # Errors
    ///
    /// See [`Change`]; [`Error::Invalid`] if the job is of another kind than `J`; [`Error::Payload`] and
    /// [`Error::TooLarge`] (4 KiB) for the output.
    pub fn complete<J: Job>(&self, output: &J::Output) -> Result<Changed> {
        let id = self.id;
        let Some(row) = self.shared.ask(|reply| Command::Look { id, reply })? else {
            return Ok(Changed::Unknown);
        };
        check_kind::<J>(id, &row)?;
        let bytes = <J::Format as Format<J::Output>>::encode(output, self.shared.payload_max)
            .map_err(|e| self.shared.payload_error("output", J::KIND, &e))?;
        let stored = Form {
            encoding: row.encoding,
            ..Form::of::<J>()
        };
        let bytes = self
            .shared
            .handlers
            .output(J::KIND, stored, Form::of::<J>(), bytes)
            .map_err(|reason| Error::Payload {
                what: "output",
                kind: J::KIND.to_owned(),
                reason,
            })?;
        let limit = crate::job::INLINE_OUTPUT_MAX as u64;
        if bytes.len() as u64 > limit {
            let remedy = "an output given from outside must be small";
            return Err(Error::TooLarge {
                what: "output",
                size: bytes.len() as u64,
                limit,
                remedy,
            });
        }
        self.ask(ChangeKind::Complete {
            output: Content::Inline(bytes),
        })
    }

    fn ask<T: From<ChangeAnswer>>(&self, wish: ChangeKind) -> Result<T> {
        let id = self.id;
        let answer = self
            .shared
            .ask(|reply| Command::Change { id, wish, reply })?;
        Ok(answer.into())
    }
}

/// The same change to many jobs; see [`Engine::change_all`]. They share a disk sync, but are not one
/// transaction: each job has its own answer, in the order of the ids, and a crash may come between two.
///
/// Errors as those of [`Change`].
#[derive(Debug)]
pub struct ChangeAll<'e> {
    shared: &'e Arc<Shared>,
    ids: Vec<JobId>,
}

impl<'e> ChangeAll<'e> {
    pub(super) fn new(shared: &'e Arc<Shared>, ids: Vec<JobId>) -> ChangeAll<'e> {
        ChangeAll { shared, ids }
    }

    /// As [`Change::cancel`].
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn cancel(&self, reason: &str) -> Result<Vec<Cancel>> {
        let reason = reason.to_owned();
        self.ask(&ChangeKind::Cancel { reason })
    }

    /// As [`Change::delete`].
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn delete(&self) -> Result<Vec<Delete>> {
        self.ask(&ChangeKind::Delete)
    }

    /// As [`Change::retry`].
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn retry(&self) -> Result<Vec<Changed>> {
        self.ask(&ChangeKind::Retry)
    }

    /// As [`Change::reschedule`].
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn reschedule(&self, at: SystemTime) -> Result<Vec<Changed>> {
        self.ask(&ChangeKind::Reschedule(Wait::Until(wall_ms(at))))
    }

    /// As [`Change::reschedule_after`].
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn reschedule_after(&self, wait: Duration) -> Result<Vec<Changed>> {
        self.ask(&ChangeKind::Reschedule(Wait::For(millis(wait))))
    }

    /// As [`Change::set_priority`].
    ///
    /// # Errors
    ///
    /// See [`Change`].
    pub fn set_priority(&self, priority: impl Into<Priority>) -> Result<Vec<Changed>> {
        self.ask(&ChangeKind::SetPriority(priority.into()))
    }

    /// As [`Change::move_to`].
    ///
    /// # Errors
    ///
    /// See [`Change`]; [`Error::Invalid`] for the name.
    pub fn move_to(&self, queue: &str) -> Result<Vec<Changed>> {
        check_name("queue name", queue)?;
        let queue = queue.to_owned();
        self.ask(&ChangeKind::MoveTo { queue })
    }

    /// All wishes are on their way before the first answer is waited for.
    fn ask<T: From<ChangeAnswer>>(&self, wish: &ChangeKind) -> Result<Vec<T>> {
        let answers = self.shared.ask_all(self.ids.iter().map(|&id| {
            let wish = wish.clone();
            move |reply| Command::Change { id, wish, reply }
        }))?;
        Ok(answers.into_iter().map(T::from).collect())
    }
}

/// Deletes finished jobs; see [`Engine::prune`].
#[derive(Clone, Debug)]
#[must_use = "nothing is deleted before `run`"]
pub struct Prune<'e> {
    engine: &'e Engine,
    filter: Filter,
    older: Duration,
}

impl<'e> Prune<'e> {
    pub(super) fn new(engine: &'e Engine) -> Prune<'e> {
        Prune {
            engine,
            filter: Filter::default(),
            older: Duration::ZERO,
        }
    }

    /// Only jobs in this state. In one that is no end there is nothing to delete.
    pub fn state(mut self, state: State) -> Self {
        self.filter.state = Some(state);
        self
    }

    /// Only jobs of this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.filter.kind = Some(kind.into());
        self
    }

    /// Only jobs of this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.filter.queue = Some(queue.into());
        self
    }

    /// Only jobs that finished at least this long ago, by the wall clock.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older = age;
        self
    }

    /// Deletes them, some thousands a group; their keys stay taken for the rest of their time. On return all are
    /// gone from stable storage, after a crash on the way some of them.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn run(&self) -> Result<PruneReport> {
        let mut deleted = 0;
        loop {
            let (filter, older_ms) = (self.filter.clone(), millis(self.older));
            let slice = self.engine.shared.ask(|reply| Command::Prune {
                filter,
                older_ms,
                reply,
            })?;
            deleted += slice;
            if slice == 0 {
                return Ok(PruneReport { deleted });
            }
        }
    }
}

/// Controls of one queue; see [`Engine::queue`]. What is set here is stored and outlives restarts.
#[derive(Debug)]
pub struct QueueControl<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) name: String,
}

/// What a [`Prune`] deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneReport {
    /// Jobs deleted.
    pub deleted: u64,
}

impl<'e> QueueControl<'e> {
    pub(super) fn new(engine: &'e Engine, name: &str) -> QueueControl<'e> {
        QueueControl {
            engine,
            name: name.to_owned(),
        }
    }

    /// Starts no more jobs of this queue; those that run go on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for the name; [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn pause(&self) -> Result<()> {
        self.set(Some(true), None)
    }

    /// Goes on.
    ///
    /// # Errors
    ///
    /// As [`pause`](QueueControl::pause).
    pub fn resume(&self) -> Result<()> {
        self.set(Some(false), None)
    }

    /// Runs at most this many jobs of the queue at a time (at least 1); `None`: as the program configured
    /// it. Jobs on their way to a handler count.
    ///
    /// # Errors
    ///
    /// As [`pause`](QueueControl::pause).
    pub fn set_concurrency(&self, most: Option<u32>) -> Result<()> {
        if most == Some(0) {
            return Err(Error::Invalid {
                what: "concurrency of a queue",
                found: "0".to_owned(),
                rule: "it is at least 1; use `pause` to stop a queue".to_owned(),
            });
        }
        self.set(None, Some(most))
    }

    /// Waits until no job of the queue waits or runs; see [`Engine::wait_until_idle`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn wait_until_idle(&self, within: Duration) -> Result<bool> {
        check_name("queue name", &self.name)?;
        let until = Idle::Queue(self.name.clone());
        Ok(self
            .engine
            .shared
            .ask_within(within, |reply| Command::WaitIdle { until, reply })?
            .is_some())
    }

    fn set(&self, paused: Option<bool>, concurrency: Option<Option<u32>>) -> Result<()> {
        check_name("queue name", &self.name)?;
        let name = self.name.clone();
        self.engine.shared.ask(|reply| Command::SetQueue {
            name,
            paused,
            concurrency,
            reply,
        })
    }
}
