//! A stored job, as its owner holds it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::change::{Cancel, Change};
use super::command::{Command, Ending};
use super::events::{self, Subscription, Update};
use super::request::Decode;
use crate::error::{Error, Result};
use crate::job::{Content, DeadReason, Encoding, Job, JobId, State};
use crate::journal::event_at;
use crate::ledger::{AttemptError, History, Row};

/// A stored job. Clones are the same job; after a restart it is found again by id
/// ([`Engine::handle`](crate::Engine::handle)) or key. It does not keep the engine alive.
pub struct Handle<O> {
    shared: Arc<Shared>,
    id: JobId,
    kind: Arc<str>,
    /// `None`: the output is not looked at.
    encoding: Option<Encoding>,
    decode: Decode<O>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finished<T> {
    /// With this output.
    Completed(T),
    /// Stopped by request.
    Cancelled {
        /// What the caller or the handler said.
        reason: String,
    },
    /// Given up.
    Dead(Ended),
    /// It is not stored any more: deleted, or pruned after its retention.
    Deleted,
}

/// What is known of a dead job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// Why it is dead.
    pub reason: DeadReason,
    /// The handler's words, if it discarded the job.
    pub words: String,
    /// The errors of its newest attempts, newest last.
    pub errors: Vec<AttemptError>,
}

/// How far a running job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Done so far.
    pub done: u64,
    /// Of so much; 0 if unknown.
    pub total: u64,
    /// The handler's note.
    pub note: String,
}

impl<O> Handle<O> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: JobId,
        kind: Arc<str>,
        (encoding, decode): (Encoding, Decode<O>),
    ) -> Handle<O> {
        Handle {
            shared,
            id,
            kind,
            encoding: Some(encoding),
            decode,
        }
    }

    /// The job's id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The job's state now; `None` if it is not stored any more.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn state(&self) -> Result<Option<State>> {
        let id = self.id;
        Ok(self
            .shared
            .ask(|reply| Command::Look { id, reply })?
            .map(|row| row.state))
    }

    /// How far it is, if it runs now.
    pub fn progress(&self) -> Option<Progress> {
        let id = self.id;
        let live = self
            .shared
            .ask(|reply| Command::Watch { id, reply })
            .ok()??;
        let (done, total, note) = live.progress();
        Some(Progress { done, total, note })
    }

    /// Waits for the job's end. Woken by it, never polls.
    ///
    /// # Errors
    ///
    /// [`Error::WaitInHandler`] in a handler (use [`wait_timeout`](Handle::wait_timeout) there if you must);
    /// [`Error::Payload`] if the output is not what this handle decodes; [`Error::Closed`].
    pub fn wait(&self) -> Result<Finished<O>> {
        if let Some(pool) = self.shared.handlers.current_pool() {
            return Err(Error::WaitInHandler {
                job: self.id.number(),
                pool,
            });
        }
        let id = self.id;
        let ending = self.shared.ask(|reply| Command::Wait { id, reply })?;
        self.finished(&ending)
    }

    /// As [`wait`](Handle::wait), for a while; `None` if time is up.
    ///
    /// # Errors
    ///
    /// As [`wait`](Handle::wait).
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<Finished<O>>> {
        let id = self.id;
        let ending = self
            .shared
            .ask_within(limit, |reply| Command::Wait { id, reply })?;
        ending.map(|ending| self.finished(&ending)).transpose()
    }

    /// Calls `f` whenever something happens to this job, on a thread of its own, until the
    /// subscription is dropped. For many jobs use one [`Engine::on_event`](crate::Engine::on_event).
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    pub fn on_change(&self, f: impl Fn(&Update) + Send + 'static) -> Result<Subscription> {
        events::call_back(&self.shared.hub, Some(self.id), f)
    }

    /// Cancels the job, wherever it is.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn cancel(&self) -> Result<Cancel> {
        Change::new(&self.shared, self.id).cancel("cancelled by its owner")
    }

    fn finished(&self, ending: &Ending) -> Result<Finished<O>> {
        let history = match &ending.history {
            Some(frame) => read_history(frame)?,
            None => History::default(),
        };
        Ok(match ending.state {
            Some(State::Completed) => {
                Finished::Completed(self.output(ending.encoding, history.output)?)
            }
            Some(State::Cancelled) => Finished::Cancelled {
                reason: history.reason,
            },
            Some(State::Dead) => Finished::Dead(Ended {
                reason: ending.dead_reason.unwrap_or(DeadReason::AttemptsUsedUp),
                words: history.reason,
                errors: history.errors,
            }),
            Some(state) => {
                return Err(Error::Bug(format!(
                    "job {} ended in state {state}",
                    self.id
                )));
            }
            None => Finished::Deleted,
        })
    }

    fn output(&self, stored: Encoding, output: Option<Content>) -> Result<O> {
        let unreadable = |reason: String| Error::Payload {
            what: "output",
            kind: self.kind.to_string(),
            reason,
        };
        let bytes = match self.encoding {
            None => Vec::new(),
            Some(encoding) if encoding != stored && output.is_some() => {
                return Err(unreadable(format!(
                    "is kept as {stored}, as the job was enqueued; this handle reads {encoding}"
                )));
            }
            Some(_) => {
                let read = output.map(|output| self.shared.content(output));
                read.transpose()?.unwrap_or_default()
            }
        };
        (self.decode)(&bytes).map_err(|e| unreadable(e.to_string()))
    }
}

/// Reads a history frame, on the caller's thread.
pub(crate) fn read_history(frame: &super::command::FrameAt) -> Result<History> {
    let event = event_at(&frame.entry, frame.offset).map_err(|e| Error::Damaged {
        path: "journal".into(),
        what: "a history".to_owned(),
        reason: format!("{e:?}"),
    })?;
    Ok(super::step::into_history(event).unwrap_or_default())
}

impl Handle<()> {
    /// For a job of any kind, whose output is not looked at.
    pub(super) fn untyped(shared: Arc<Shared>, id: JobId, kind: Arc<str>) -> Handle<()> {
        Handle {
            shared,
            id,
            kind,
            encoding: None,
            decode: |_| Ok(()),
        }
    }
}

impl<O> Clone for Handle<O> {
    fn clone(&self) -> Handle<O> {
        Handle {
            shared: self.shared.clone(),
            id: self.id,
            kind: self.kind.clone(),
            encoding: self.encoding,
            decode: self.decode,
        }
    }
}

impl<O> fmt::Debug for Handle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What is said about a job as a `J` must be about one.
pub(super) fn check_kind<J: Job>(id: JobId, row: &Row) -> Result<()> {
    if row.kind == J::KIND {
        return Ok(());
    }
    Err(Error::Invalid {
        what: "type of a job",
        found: format!("kind `{}` for job {id}", J::KIND),
        rule: format!("the job is of kind `{}`", row.kind),
    })
}
