//! Notices a commit that never ends.
//!
//! A panic in one of sled's own threads can leave its `flush` waiting for ever, and with it the writer and
//! everybody who waits for an answer. The watchdog cannot mend that, but it lets the callers go.

use std::sync::Arc;
use std::time::Duration;

use super::inbox::Gate;
use crate::clock::Clock;
use crate::error::Result;
use crate::sys;
use crate::sys::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sys::sync::{Condvar, Mutex};

const LOOK_LEAST: Duration = Duration::from_millis(5);

/// Watches the writer's commits.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Milliseconds of the awake clock at which the running commit began; 0 between commits.
    began_ms: AtomicU64,
    /// Whether the thread sleeps until a commit begins.
    idle: AtomicBool,
    closed: Mutex<bool>,
    wake: Condvar,
    limit: Duration,
    hangs: AtomicBool,
}

/// A commit being watched; ends with its value.
#[derive(Debug)]
pub(crate) struct Watched(Arc<Watchdog>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.began_ms.store(0, Ordering::SeqCst);
    }
}

impl Watchdog {
    pub(crate) fn new(limit: Duration) -> Arc<Watchdog> {
        Arc::new(Watchdog {
            began_ms: AtomicU64::new(0),
            idle: AtomicBool::new(false),
            closed: Mutex::new(false),
            wake: Condvar::new(),
            limit,
            hangs: AtomicBool::new(false),
        })
    }

    /// Starts the thread that watches. It sleeps while nothing is committed.
    pub(crate) fn start(self: &Arc<Self>, clock: Arc<dyn Clock>, gate: Arc<Gate>) -> Result<()> {
        let dog = self.clone();
        sys::thread::spawn("jobsled-watchdog", move || {
            dog.watch(clock.as_ref(), &gate);
        })
        .map(drop)
    }

    /// Called by the writer. Costs two atomics, and a wake-up only after an idle time.
    pub(crate) fn commit_begins(self: &Arc<Self>, now: Duration) -> Watched {
        // SeqCst here and in `watch`: one of the two sees what the other stored, so a commit that
        // begins while the thread lies down is not missed.
        self.began_ms
            .store(crate::job::millis(now).max(1), Ordering::SeqCst);
        if self.idle.load(Ordering::SeqCst) {
            let _guard = self.closed.lock();
            self.wake.notify_all();
        }
        Watched(self.clone())
    }

    /// How often whoever waits for an answer looks whether one can still come. Not woken instead: that
    /// would need a list of all who wait, under one lock, for something that hardly ever happens (it cost
    /// a sixth of the rate of 64 waiting threads).
    pub(crate) fn look_every(&self) -> Duration {
        (self.limit / 4).max(LOOK_LEAST)
    }

    /// Whether a commit hangs, and with it the writer.
    pub(crate) fn hangs(&self) -> bool {
        self.hangs.load(Ordering::Acquire)
    }

    /// How long the running commit has taken so far.
    pub(crate) fn commit_age(&self, now: Duration) -> Option<Duration> {
        let began_ms = self.began_ms.load(Ordering::SeqCst);
        (began_ms != 0).then(|| now.saturating_sub(Duration::from_millis(began_ms)))
    }

    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
        self.wake.notify_all();
    }

    fn watch(&self, clock: &dyn Clock, gate: &Gate) {
        let mut closed = self.closed.lock();
        while !*closed {
            self.idle.store(true, Ordering::SeqCst);
            if self.began_ms.load(Ordering::SeqCst) == 0 {
                self.wake.wait(&mut closed);
                continue;
            }
            self.idle.store(false, Ordering::SeqCst);
            if self
                .commit_age(clock.now().awake)
                .is_some_and(|age| age > self.limit)
            {
                let cause = format!("a commit has not ended within {:?}", self.limit);
                log::error!("{cause}; callers are let go, restart the process");
                gate.give_up(&cause);
                self.hangs.store(true, Ordering::Release);
                return;
            }
            match clock.real_wait(self.limit / 4) {
                Some(wait) => {
                    self.wake.wait_for(&mut closed, wait);
                }
                None => self.wake.wait(&mut closed),
            }
        }
    }
}
