//! News for user interfaces: what happened to which job, after it was durable.
//!
//! The writer never waits for a listener: a full channel drops the event and counts it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::job::JobId;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sys::sync::channel::{Receiver, Sender, TrySendError, bounded, recv_until};

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// Stored.
    Enqueued,
    /// On its way to a handler.
    Claimed,
    /// Back in its queue, no attempt used: taken back, shut down, or recovered after a crash.
    Released,
    /// Done.
    Completed,
    /// An attempt failed, another follows.
    Retried,
    /// Put off by its handler.
    Snoozed,
    /// Cancelled.
    Cancelled,
    /// Given up.
    Died,
    /// Brought back to life.
    Requeued,
    /// New time, priority or queue.
    Changed,
    /// Deleted by a caller.
    Deleted,
    /// A running handler told how far it is. At most ten a second per job; not stored.
    Progress {
        /// Done so far, in the handler's own unit.
        done: u64,
        /// Of so much; 0 if unknown.
        total: u64,
        /// The handler's note.
        note: String,
    },
}

impl What {
    /// Its name in lower case, as in commands and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            What::Enqueued => "enqueued",
            What::Claimed => "claimed",
            What::Released => "released",
            What::Completed => "completed",
            What::Retried => "retried",
            What::Snoozed => "snoozed",
            What::Cancelled => "cancelled",
            What::Died => "died",
            What::Requeued => "requeued",
            What::Changed => "changed",
            What::Deleted => "deleted",
            What::Progress { .. } => "progress",
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        matches!(
            self,
            What::Completed | What::Cancelled | What::Died | What::Deleted
        )
    }
}

/// News about one job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The job.
    pub id: JobId,
    /// What happened.
    pub what: What,
    /// The job's kind.
    pub kind: Arc<str>,
    /// The job's queue.
    pub queue: Arc<str>,
    /// When: wall-clock milliseconds.
    pub at_ms: i64,
}

/// News about the job of a handle; see [`Handle::on_change`](crate::Handle::on_change).
pub type Update = Event;

/// Where the writer and the workers tell what happened.
#[derive(Default)]
pub(crate) struct Hub {
    listeners: Mutex<Vec<Listener>>,
    count: AtomicUsize,
    closed: AtomicBool,
}

struct Listener {
    send: Sender<Event>,
    missed: Arc<AtomicU64>,
    only: Option<JobId>,
}

impl Listener {
    /// Whether the other end is still there: it has the only other count of `missed`.
    fn is_heard(&self) -> bool {
        Arc::strong_count(&self.missed) > 1
    }
}

impl Hub {
    /// Whether anybody listens; a hint, so that silence costs nothing.
    pub(crate) fn is_heard(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn subscribe(&self, capacity: usize, only: Option<JobId>) -> Events {
        let (send, receive) = bounded(capacity.max(1));
        let missed = Arc::new(AtomicU64::new(0));
        let mut listeners = self.listeners.lock();
        // One for a job that has no more news would stay for ever.
        listeners.retain(Listener::is_heard);
        if !self.closed.load(Ordering::Acquire) {
            listeners.push(Listener {
                send,
                missed: missed.clone(),
                only,
            });
        }
        self.count.store(listeners.len(), Ordering::Relaxed);
        Events { receive, missed }
    }

    pub(crate) fn publish(
        &self,
        id: JobId,
        what: What,
        kind: Arc<str>,
        queue: Arc<str>,
        at_ms: i64,
    ) {
        if !self.is_heard() {
            return;
        }
        let event = Event {
            id,
            what,
            kind,
            queue,
            at_ms,
        };
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| {
            if listener.only.is_some_and(|only| only != id) {
                return listener.is_heard();
            }
            match listener.send.try_send(event.clone()) {
                Ok(()) => true,
                // E1, I9: the writer does not wait for a slow listener, but counts what that one misses.
                Err(TrySendError::Full(_)) => {
                    listener.missed.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            }
        });
        self.count.store(listeners.len(), Ordering::Relaxed);
    }

    /// The engine is gone: every listener's channel ends.
    pub(crate) fn close(&self) {
        let mut listeners = self.listeners.lock();
        self.closed.store(true, Ordering::Release);
        listeners.clear();
        self.count.store(0, Ordering::Relaxed);
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({} listeners)", self.count.load(Ordering::Relaxed))
    }
}

/// A stream of news; see [`Engine::subscribe`](crate::Engine::subscribe). Dropping it ends the subscription.
#[derive(Debug)]
pub struct Events {
    receive: Receiver<Event>,
    missed: Arc<AtomicU64>,
}

impl Events {
    /// The next event; waits for it. `None` once the engine is closed.
    pub fn recv(&self) -> Option<Event> {
        self.receive.recv().ok()
    }

    /// The next event if there is one now.
    pub fn try_recv(&self) -> Option<Event> {
        self.receive.try_recv().ok()
    }

    /// The next event if there is one within `limit`.
    pub fn recv_timeout(&self, limit: Duration) -> Option<Event> {
        self.receive.recv_timeout(limit).ok()
    }

    /// Events dropped because this subscriber was too slow, so far. If it rises, look at the jobs
    /// themselves.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// A running callback; dropping it ends it.
#[derive(Debug)]
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    stop: Arc<AtomicBool>,
    // Dropped with the subscription, which ends the callback's thread.
    _alive: Sender<()>,
}

/// Events that wait for a callback, and for one that hears of a single job: their memory is taken at once.
const CALLBACK_BACKLOG: usize = 1_024;
const ONE_JOB_BACKLOG: usize = 64;

/// Calls `f` for each event on a thread of its own.
pub(crate) fn call_back(
    hub: &Hub,
    only: Option<JobId>,
    f: impl Fn(&Event) + Send + 'static,
) -> Result<Subscription> {
    let backlog = if only.is_some() {
        ONE_JOB_BACKLOG
    } else {
        CALLBACK_BACKLOG
    };
    let events = hub.subscribe(backlog, only);
    let stop = Arc::new(AtomicBool::new(false));
    let (alive, ended) = bounded::<()>(0);
    let stopped = stop.clone();
    sys::thread::spawn("jobsled-events", move || {
        let events = events; // all of it: a part alone would not count as listening
        while let Some(event) = recv_until(&events.receive, &ended) {
            if stopped.load(Ordering::Acquire) {
                return;
            }
            f(&event);
        }
    })?;
    Ok(Subscription {
        stop,
        _alive: alive,
    })
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64) -> JobId {
        JobId::from_number(number)
    }

    /// A dropped listener for one job stayed, with its channel, until that job had news again: often for ever.
    #[test]
    fn who_does_not_listen_any_more_is_forgotten() {
        let hub = Hub::default();
        let listeners = || hub.listeners.lock().len();
        let kept = hub.subscribe(4, Some(job(1)));
        for number in 2..100 {
            drop(hub.subscribe(4, Some(job(number))));
        }
        assert_eq!(listeners(), 2, "the last one is not noticed yet");
        hub.publish(job(1), What::Claimed, "k".into(), "q".into(), 0);
        assert_eq!(listeners(), 1, "news of another job are enough");
        assert!(kept.try_recv().is_some());
        drop(kept);
        let all = hub.subscribe(4, None);
        assert_eq!(listeners(), 1);
        drop(all);
        hub.publish(job(1), What::Claimed, "k".into(), "q".into(), 0);
        assert!(!hub.is_heard());
    }
}
