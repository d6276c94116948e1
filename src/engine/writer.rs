//! The thread that calls `step`: sleeps until a command comes or a time is reached.

use std::sync::Arc;
use std::time::Duration;

use super::command::Command;
use super::core::Core;
use super::inbox::{Commands, Inbox, PANICKED};
use super::recorder::Recorder;
use crate::error::{Error, Result};
use crate::fault::{self, Point};
use crate::sys;
use crate::sys::thread::JoinHandle;

/// Starts the writer. It ends when the engine is closed; after a failed write it stays, to refuse.
pub(crate) fn spawn(core: Core, commands: Commands) -> Result<JoinHandle> {
    let inbox = core.inbox.clone();
    core.clock().on_move(Box::new(move || {
        inbox.send_unbounded(Command::Wake);
        !inbox.gate().is_closed()
    }));
    sys::thread::spawn("jobsled-writer", move || run(core, commands))
}

fn run(mut core: Core, mut commands: Commands) {
    let _guard = LetGo {
        inbox: core.inbox.clone(),
        recorder: core.disk.recorder.clone(),
    };
    // I3: the first step comes unasked: what was ready when the store was opened starts now.
    let mut group = commands.group_now();
    loop {
        // An error has poisoned the core and told everybody; what comes from now on is refused.
        if let Err(error) = core.step(group) {
            log::error!("{error}");
        }
        if core.is_closed() {
            break;
        }
        group = commands.group(wait_at_most(&core));
    }
    core.close();
    // Whatever still comes is answered, until nothing is left; what comes later finds nobody.
    loop {
        let late = commands.group_now();
        if late.is_empty() {
            break;
        }
        for command in late {
            command.refuse(|| Error::Closed);
        }
    }
}

/// Lives on the writer's stack: if that is unwound, whoever waits is let go.
struct LetGo {
    inbox: Inbox,
    recorder: Arc<Recorder>,
}

impl Drop for LetGo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("{PANICKED}; restart the process");
            // In this order: a closed inbox alone would say that the engine was shut down, and to those who
            // are in it, that nothing was stored.
            self.inbox.gate().give_up(PANICKED);
            self.inbox.gate().close();
            // Before the core goes, and with it the lock: the next to open the store has its own records.
            self.recorder.close();
        }
    }
}

/// How long to wait for commands; `None`: for ever.
fn wait_at_most(core: &Core) -> Option<Duration> {
    let wait = core.sleep_at_most();
    if core.wants_idle_step() || wait.is_some_and(|wait| wait.is_zero()) {
        return Some(Duration::ZERO);
    }
    // By a manual clock there is no such time: woken when it is moved.
    Some(whole_millis(core.clock().real_wait(wait?)?))
}

/// Rounded up: the wall clock is read in milliseconds, and waking a little early would mean to look twice.
fn whole_millis(wait: Duration) -> Duration {
    Duration::from_millis(
        crate::job::millis(wait)
            .saturating_add(u64::from(!wait.subsec_nanos().is_multiple_of(1_000_000))),
    )
}

impl Core {
    /// Closes the files and tells who waits for it.
    fn close(&mut self) {
        self.pools.iter().for_each(|pool| pool.outs.close());
        self.hub.close();
        self.inbox.gate().close();
        // Before the lock is let go. A handler that goes on has nothing to note in the next epoch's file.
        self.disk.recorder.close();
        let closed = self.close_files();
        let given_back = self.given_back;
        for reply in std::mem::take(&mut self.waiters.closed) {
            reply.send(match &closed {
                Ok(()) => Ok(given_back),
                Err(error) => Err(Error::Unknown {
                    cause: error.to_string(),
                }),
            });
        }
    }

    fn close_files(&mut self) -> Result<()> {
        if let Some(journal) = self.journal.take().filter(|_| self.poisoned.is_none()) {
            journal.close()?;
        }
        if let Some(witness) = &self.disk.witness {
            witness.sync()?;
        }
        fault::point(Point::Closed);
        match self.disk.lock.take() {
            Some(lock) if self.poisoned.is_none() => lock.mark_clean(),
            _ => Ok(()),
        }
    }
}
