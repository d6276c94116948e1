//! The way to the writer.
//!
//! New jobs are bounded, by number and bytes: a caller waits, or is told that it is full. What workers
//! and people say about existing jobs is never held up: there are only so many of them.
//!
//! Everything presses, but for the ends of attempts for which neither a caller nor a slot waits: those the writer
//! gathers, so that a pool with enough to do costs a group now and then and not one for every few jobs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::command::Command;
use crate::error::{Error, Result};
use crate::sys::sync::{Condvar, Mutex};

/// What ended a writer that nothing else has ended.
pub(crate) const PANICKED: &str = "the writer panicked";

/// How long ends that press nobody are gathered. So much work a crash may have done in vain, besides what ran.
const GATHERED_FOR: Duration = Duration::from_millis(2);

/// Commands that one group takes at most, and payload bytes: about what one sync may carry.
const GROUP_COMMANDS_MAX: usize = 8_192;
const GROUP_BYTES_MAX: usize = 384 * 1024;

/// What a blocking enqueue does when the inbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFullRule {
    Wait,
    Refuse,
}

/// Sends commands to the writer; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    gate: Arc<Gate>,
}

/// The writer's end of it. When it is gone, whatever comes is dropped, and with it the slot for its answer.
#[derive(Debug)]
pub(crate) struct Commands {
    gate: Arc<Gate>,
    /// Taken out, for the next groups.
    taken: VecDeque<Command>,
}

/// What callers and writer share.
#[derive(Debug)]
pub(crate) struct Gate {
    waiting: Mutex<Waiting>,
    came: Condvar,
    freed: Condvar,
    jobs_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    commands: VecDeque<Command>,
    /// One of them is not to be kept waiting.
    presses: bool,
    /// Nobody takes them any more.
    is_unread: bool,
    /// New jobs, and the bytes of their payloads, until they are stored.
    jobs: usize,
    bytes: usize,
    closed: bool,
    /// Why the writer takes nothing any more, though nobody shut it down: a write failed, it hangs or it
    /// panicked. The first cause stays.
    given_up: Option<String>,
}

impl Waiting {
    /// True: the writer may have to be woken.
    fn push(&mut self, command: Command, presses: bool) -> bool {
        let wake = self.commands.is_empty() || (presses && !self.presses);
        self.presses |= presses;
        self.commands.push_back(command);
        wake
    }

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
    pub(crate) fn new(jobs_max: usize, bytes_max: usize) -> (Inbox, Commands) {
        let gate = Arc::new(Gate {
            waiting: Mutex::default(),
            came: Condvar::new(),
            freed: Condvar::new(),
            jobs_max,
            bytes_max,
        });
        let commands = Commands {
            gate: gate.clone(),
            taken: VecDeque::new(),
        };
        (Inbox { gate }, commands)
    }

    /// Sends a command that brings new jobs; waits for room, or is refused. Refused, the command is
    /// dropped: the caller has to take back what it wrote for it.
    pub(crate) fn send(&self, command: Command, when_full: WhenFullRule) -> Result<()> {
        self.gate.enter(command, when_full)
    }

    /// Sends a command about what exists already. If the writer is gone, its reply slot is dropped
    /// and that tells the caller.
    pub(crate) fn send_unbounded(&self, command: Command) {
        self.gate.push(command, || true);
    }

    /// The same for what can wait a moment, for company, unless it `presses`. That is asked at the last moment: what
    /// others send after it may count on it to have been said before.
    pub(crate) fn send_unhurried(&self, command: Command, presses: impl FnOnce() -> bool) {
        self.gate.push(command, presses);
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Commands {
    /// Waits for commands, `at_most` so long (`None`: for ever), and takes what has come, up to the bounds of a group.
    pub(crate) fn group(&mut self, at_most: Option<Duration>) -> Vec<Command> {
        if self.taken.is_empty() {
            self.gate.take(&mut self.taken, at_most);
        }
        let mut bytes = 0;
        let fits = self
            .taken
            .iter()
            .take(GROUP_COMMANDS_MAX)
            .take_while(|command| {
                let is_open = bytes < GROUP_BYTES_MAX;
                bytes += command.weight().1;
                is_open
            });
        let commands = fits.count();
        self.taken.drain(..commands).collect()
    }

    /// What is there now, up to the bounds of a group.
    pub(crate) fn group_now(&mut self) -> Vec<Command> {
        self.group(Some(Duration::ZERO))
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.gate.waiting.lock().commands.is_empty()
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        let mut waiting = self.gate.waiting.lock();
        waiting.is_unread = true;
        let left = std::mem::take(&mut waiting.commands);
        drop(waiting);
        drop(left); // outside the lock: it may wake others
    }
}

impl Gate {
    fn enter(&self, command: Command, when_full: WhenFullRule) -> Result<()> {
        let (jobs, bytes) = command.weight();
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(refusal) = waiting.refusal() {
                return Err(refusal);
            }
            if waiting.is_unread {
                return Err(Error::Closed);
            }
            // A command larger than the bound is let in alone.
            let fits = waiting.jobs == 0
                || (waiting.jobs + jobs <= self.jobs_max
                    && waiting.bytes + bytes <= self.bytes_max);
            if fits {
                waiting.jobs += jobs;
                waiting.bytes += bytes;
                let wake = waiting.push(command, true);
                drop(waiting);
                if wake {
                    self.came.notify_one();
                }
                return Ok(());
            }
            match when_full {
                WhenFullRule::Refuse => {
                    return Err(Error::Full {
                        waiting: waiting.jobs,
                        bytes: waiting.bytes,
                        limit: self.jobs_max,
                        bytes_limit: self.bytes_max,
                    });
                }
                WhenFullRule::Wait => self.freed.wait(&mut waiting),
            }
        }
    }

    fn push(&self, command: Command, presses: impl FnOnce() -> bool) {
        let mut waiting = self.waiting.lock();
        if waiting.is_unread {
            drop(waiting);
            drop(command); // outside the lock: it may wake its caller
            return;
        }
        // E11: with the lock held, so that an end sent later was not counted on in vain.
        let wake = waiting.push(command, presses());
        drop(waiting);
        if wake {
            self.came.notify_one();
        }
    }

    fn take(&self, into: &mut VecDeque<Command>, at_most: Option<Duration>) {
        let mut waiting = self.waiting.lock();
        match at_most {
            Some(time) if waiting.commands.is_empty() && !time.is_zero() => {
                self.came.wait_for(&mut waiting, time);
            }
            Some(_) => {}
            None => {
                while waiting.commands.is_empty() {
                    self.came.wait(&mut waiting);
                }
            }
        }
        let gather = at_most.map_or(GATHERED_FOR, |time| time.min(GATHERED_FOR));
        if !waiting.commands.is_empty() && !waiting.presses && !gather.is_zero() {
            self.came.wait_for(&mut waiting, gather);
        }
        waiting.presses = false;
        std::mem::swap(&mut waiting.commands, into);
    }

    /// The writer took these.
    pub(crate) fn leave(&self, jobs: usize, bytes: usize) {
        if jobs == 0 {
            return;
        }
        let mut waiting = self.waiting.lock();
        waiting.jobs = waiting.jobs.saturating_sub(jobs);
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        drop(waiting);
        self.freed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.waiting.lock().closed
    }

    /// Nothing is stored any more: whoever waits for room is let go, whoever comes is refused.
    pub(crate) fn give_up(&self, cause: &str) {
        let mut waiting = self.waiting.lock();
        waiting.given_up.get_or_insert_with(|| cause.to_owned());
        drop(waiting);
        self.freed.notify_all();
    }

    /// Why nothing is stored any more, if so.
    pub(crate) fn given_up(&self) -> Option<String> {
        self.waiting.lock().given_up.clone()
    }

    /// Why a command that was taken was never answered.
    pub(crate) fn no_answer(&self) -> Error {
        let waiting = self.waiting.lock();
        match &waiting.given_up {
            None if waiting.closed => Error::Closed,
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
