//! What people ask of a job or queue from outside.

use std::borrow::Cow;

use crate::error::Result;
use crate::job::{Content, DeadReason, JobId, Priority, State, Wait};

use super::event::{Event, History, Phase};
use super::list::Filter;
use super::queue::Control;
use super::settle::{with_output, with_reason};
use super::table::Record;
use super::{Ledger, QueueIx};

/// A wish about one job.
#[derive(Clone, Debug)]
pub(crate) enum ChangeKind {
    Cancel {
        reason: String,
    },
    Delete,
    /// From an end back to life, with fresh attempts.
    Retry,
    /// Not before this time; brings a dead or cancelled job back to life.
    Reschedule(Wait),
    SetPriority(Priority),
    MoveTo {
        queue: String,
    },
    /// Completed from outside, whoever runs it.
    Complete {
        output: Content,
    },
}

/// What the ledger says to a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeAnswer {
    Done,
    /// There is no such job.
    Unknown,
    /// A handler has it: the engine has to ask that one first.
    IsRunning,
    AlreadyFinished(State),
    /// The job completed, and with that its payload went: it cannot run again.
    PayloadGone,
}

impl Ledger {
    pub(crate) fn change_job<'c>(
        &self,
        id: JobId,
        wish: &'c ChangeKind,
        earlier: Option<History>,
        now_ms: i64,
    ) -> Result<(ChangeAnswer, Vec<Event<'c>>)> {
        let Some(record) = self.jobs.get(id) else {
            return Ok((ChangeAnswer::Unknown, Vec::new()));
        };
        let state = record.state();
        // L5: without an event nothing changes, and no event below is about another job.
        let refuse = |answer| (answer, Vec::new());
        let done = |event| (ChangeAnswer::Done, vec![event]);
        Ok(match (wish, state) {
            (ChangeKind::Delete, State::Running) => refuse(ChangeAnswer::IsRunning),
            (ChangeKind::Delete, _) => (ChangeAnswer::Done, self.deletion(id, record)),
            (ChangeKind::Complete { output }, _) if !state.is_finished() => {
                done(Event::Completed {
                    id,
                    claim: 0,
                    ran_us: 0,
                    history: with_output(earlier, output),
                })
            }
            (ChangeKind::Retry | ChangeKind::Reschedule { .. }, State::Completed) => {
                refuse(ChangeAnswer::PayloadGone)
            }
            (ChangeKind::Retry, State::Dead | State::Cancelled) => {
                done(requeued(id, Wait::No, now_ms))
            }
            (ChangeKind::Reschedule(wait), State::Dead | State::Cancelled) => {
                done(requeued(id, *wait, now_ms))
            }
            (_, State::Completed | State::Cancelled | State::Dead) => {
                refuse(ChangeAnswer::AlreadyFinished(state))
            }
            (_, State::Running) => refuse(ChangeAnswer::IsRunning),
            (ChangeKind::Cancel { reason }, _) => done(Event::Cancelled {
                id,
                claim: 0,
                ran_us: 0,
                history: Some(with_reason(earlier, reason)),
            }),
            // A waiting job is due for its retry at once.
            (ChangeKind::Retry, _) => done(rescheduled(id, Wait::No, now_ms)),
            (ChangeKind::Reschedule(wait), _) => done(rescheduled(id, *wait, now_ms)),
            (ChangeKind::SetPriority(priority), _) => done(Event::Reprioritised {
                id,
                priority: *priority,
            }),
            (ChangeKind::MoveTo { queue }, _) => {
                self.check_queue_room(queue)?;
                done(Event::Moved {
                    id,
                    queue: Cow::Borrowed(queue),
                })
            }
            (ChangeKind::Complete { .. }, _) => refuse(ChangeAnswer::AlreadyFinished(state)),
        })
    }

    /// For a job that was running and waits again as it did before: it had been due, and asked for as a span it must
    /// not wait once more because the clock was set back while it ran.
    pub(crate) fn due_again(&self, id: JobId, now_ms: i64) -> Option<Event<'static>> {
        let record = self.jobs.get(id)?;
        let early = record.phase == Phase::Waiting && record.relative && record.due_ms > now_ms;
        early.then(|| rescheduled(id, Wait::No, now_ms))
    }

    /// L9: a job goes; its key stays taken for the rest of its time. L6: should that be over, a clock that is
    /// trusted says so in `tick`.
    fn deletion(&self, id: JobId, record: &Record) -> Vec<Event<'static>> {
        self.key_to_hold(id, record, i64::MIN)
            .into_iter()
            .chain([Event::Deleted { id }])
            .collect()
    }

    /// The key of a job that goes, unless its time is over; `sure_ms` has surely been reached.
    pub(super) fn key_to_hold(
        &self,
        id: JobId,
        record: &Record,
        sure_ms: i64,
    ) -> Option<Event<'static>> {
        let (key, until_ms) = record.key()?;
        (until_ms > sure_ms).then(|| Event::KeyHeld {
            kind: Cow::Owned(self.kind_name(record.kind).to_owned()),
            key: Cow::Owned(key.to_owned()),
            id,
            until_ms,
        })
    }

    /// Deletes up to `most` matching jobs that have finished by then, because somebody asked for it: so by the wall
    /// clock as it stands.
    pub(crate) fn prune_asked(
        &self,
        filter: &Filter,
        until_ms: i64,
        most: usize,
    ) -> Vec<Event<'static>> {
        let Some(fits) = self.matcher(filter) else {
            return Vec::new();
        };
        let ended = self.queues.iter().flat_map(|q| [&q.finished, &q.dead]);
        ended
            .flat_map(|ended| ended.iter().take_while(|(at_ms, _)| *at_ms <= until_ms))
            .filter_map(|(_, id)| Some((*id, self.jobs.get(*id)?)))
            .filter(|(_, record)| fits(record))
            .take(most)
            .flat_map(|(id, record)| self.deletion(id, record))
            .collect()
    }

    /// Controls of a queue as stored.
    pub(crate) fn control(&self, queue: &str) -> Control {
        self.queue_names
            .find(queue)
            .and_then(|q| self.queue(QueueIx(q)))
            .map(|q| q.control)
            .unwrap_or_default()
    }

    /// Pauses or resumes a queue, or sets its cap; no event when nothing changes.
    pub(crate) fn set_queue_control<'c>(
        &self,
        name: &'c str,
        paused: Option<bool>,
        concurrency: Option<Option<u32>>,
    ) -> Result<Option<Event<'c>>> {
        let now = self.control(name);
        let then = Control {
            paused: paused.unwrap_or(now.paused),
            concurrency: concurrency.unwrap_or(now.concurrency),
        };
        if then == now {
            return Ok(None);
        }
        self.check_queue_room(name)?;
        Ok(Some(Event::QueueSet {
            name: Cow::Borrowed(name),
            paused: then.paused,
            concurrency: then.concurrency,
        }))
    }

    /// Why a dead job is dead.
    pub(crate) fn dead_reason(record: &Record) -> Option<DeadReason> {
        match record.phase {
            Phase::Dead(reason) => Some(reason),
            _ => None,
        }
    }
}

fn requeued(id: JobId, wait: Wait, now_ms: i64) -> Event<'static> {
    let (due_ms, relative) = wait.due(now_ms);
    Event::Requeued {
        id,
        due_ms,
        relative,
    }
}

fn rescheduled(id: JobId, wait: Wait, now_ms: i64) -> Event<'static> {
    let (due_ms, relative) = wait.due(now_ms);
    Event::Rescheduled {
        id,
        due_ms,
        relative,
    }
}
