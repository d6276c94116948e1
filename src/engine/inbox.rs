//! The way to the writer.
//!
//! New jobs are bounded, by number and bytes: a caller waits, or is told that it is full. What workers
//! and people say about existing jobs is never held up: there are only so many of them.

use std::sync::Arc;

use super::command::Command;
use crate::error::{Error, Result};
use crate::sys::sync::channel::{Receiver, Sender, unbounded};
use crate::sys::sync::{Condvar, Mutex};

/// What ended a writer that nothing else has ended.
pub(crate) const PANICKED: &str = "the writer panicked";

/// What a blocking enqueue does when the inbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFullRule {
    Wait,
    Refuse,
}

/// Sends commands to the writer; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    send: Sender<Command>,
    gate: Arc<Gate>,
}

/// Counts the jobs that wait to be stored.
#[derive(Debug)]
pub(crate) struct Gate {
    waiting: Mutex<Load>,
    freed: Condvar,
    jobs_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Load {
    jobs: usize,
    bytes: usize,
    closed: bool,
    /// Why the writer takes nothing any more, though nobody shut it down: a write failed, it hangs or it
    /// panicked. The first cause stays.
    given_up: Option<String>,
}

impl Load {
    /// Why nobody may enter. Nothing of theirs was stored, whatever became of the others.
    fn refusal(&self) -> Option<Error> {
        match &self.given_up {
            Some(cause) => Some(Error::Refused {
                cause: cause.clone(),
            }),
            None => self.closed.then_some(Error::Closed),
        }
    }
}

impl Inbox {
    pub(crate) fn new(jobs_max: usize, bytes_max: usize) -> (Inbox, Receiver<Command>) {
        let (send, receive) = unbounded();
        let gate = Gate {
            waiting: Mutex::default(),
            freed: Condvar::new(),
            jobs_max,
            bytes_max,
        };
        (
            Inbox {
                send,
                gate: Arc::new(gate),
            },
            receive,
        )
    }

    /// Sends a command that brings new jobs; waits for room, or is refused. Refused, the command is
    /// dropped: the caller has to take back what it wrote for it.
    pub(crate) fn send(&self, command: Command, when_full: WhenFullRule) -> Result<()> {
        let (jobs, bytes) = command.weight();
        self.gate.enter(jobs, bytes, when_full)?;
        let refusal = || self.gate.waiting.lock().refusal().unwrap_or(Error::Closed);
        self.send.send(command).map_err(|_| refusal())
    }

    /// Sends a command about what exists already. If the writer is gone, its reply slot is dropped
    /// and that tells the caller.
    pub(crate) fn send_unbounded(&self, command: Command) {
        let _ = self.send.send(command);
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Gate {
    fn enter(&self, jobs: usize, bytes: usize, when_full: WhenFullRule) -> Result<()> {
        let mut load = self.waiting.lock();
        loop {
            if let Some(refusal) = load.refusal() {
                return Err(refusal);
            }
            // A command larger than the bound is let in alone.
            let fits = load.jobs == 0
                || (load.jobs + jobs <= self.jobs_max && load.bytes + bytes <= self.bytes_max);
            if fits {
                load.jobs += jobs;
                load.bytes += bytes;
                return Ok(());
            }
            match when_full {
                WhenFullRule::Refuse => {
                    return Err(Error::Full {
                        waiting: load.jobs,
                        bytes: load.bytes,
                        limit: self.jobs_max,
                        bytes_limit: self.bytes_max,
                    });
                }
                WhenFullRule::Wait => self.freed.wait(&mut load),
            }
        }
    }

    /// The writer took these.
    pub(crate) fn leave(&self, jobs: usize, bytes: usize) {
        if jobs == 0 {
            return;
        }
        let mut load = self.waiting.lock();
        load.jobs = load.jobs.saturating_sub(jobs);
        load.bytes = load.bytes.saturating_sub(bytes);
        drop(load);
        self.freed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.waiting.lock().closed
    }

    /// Nothing is stored any more: whoever waits for room is let go, whoever comes is refused.
    pub(crate) fn give_up(&self, cause: &str) {
        let mut load = self.waiting.lock();
        load.given_up.get_or_insert_with(|| cause.to_owned());
        drop(load);
        self.freed.notify_all();
    }

    /// Why nothing is stored any more, if so.
    pub(crate) fn given_up(&self) -> Option<String> {
        self.waiting.lock().given_up.clone()
    }

    /// Why a command that was taken was never answered.
    pub(crate) fn no_answer(&self) -> Error {
        let load = self.waiting.lock();
        match &load.given_up {
            None if load.closed => Error::Closed,
            cause => Error::Unknown {
                // Without a cause the writer's stack is being unwound this very moment.
                cause: cause.clone().unwrap_or_else(|| PANICKED.to_owned()),
            },
        }
    }

    /// Nobody reads any more: whoever waits is told.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.freed.notify_all();
    }
}
