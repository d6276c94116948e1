//! One question's answer: a slot that the caller and the writer share.
//!
//! A lock and a condition, no channel: whoever is woken finds the lock free, and nobody spins beside a writer that
//! waits for the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Result;
use crate::sys::sync::{Condvar, Mutex};

/// The writer's end. Sending never blocks; a caller that went away is no error. Dropped unsent, the caller is told.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    to: To<T>,
    token: u64,
}

#[derive(Debug)]
enum To<T> {
    Slot(Arc<Slot<T>>),
    /// For who waits for something else as well.
    #[cfg(all(feature = "testing", not(shuttle)))]
    Channel(crossbeam_channel::Sender<Result<T>>),
}

/// The caller's end. What is sent when it is gone is dropped.
#[derive(Debug)]
pub(crate) struct Awaited<T> {
    slot: Arc<Slot<T>>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply {
    /// It may still come.
    Yet,
    /// Nobody is left to send it, or it was taken before.
    Ever,
}

#[derive(Debug)]
struct Slot<T> {
    state: Mutex<State<T>>,
    told: Condvar,
}

#[derive(Debug)]
enum State<T> {
    Open,
    Told(Result<T>),
    Over,
}

impl<T> State<T> {
    fn take(&mut self) -> Result<Result<T>, NoReply> {
        match self {
            State::Open => Err(NoReply::Yet),
            _ => match std::mem::replace(self, State::Over) {
                State::Told(answer) => Ok(answer),
                _ => Err(NoReply::Ever),
            },
        }
    }
}

impl<T> Reply<T> {
    pub(crate) fn new() -> (Reply<T>, Awaited<T>) {
        let slot = Arc::new(Slot {
            state: Mutex::new(State::Open),
            told: Condvar::new(),
        });
        let answer = Awaited { slot: slot.clone() };
        (Reply::with_token(To::Slot(slot)), answer)
    }

    #[cfg(all(feature = "testing", not(shuttle)))]
    pub(crate) fn by_channel() -> (Reply<T>, crossbeam_channel::Receiver<Result<T>>) {
        let (send, answer) = crossbeam_channel::bounded(1);
        (Reply::with_token(To::Channel(send)), answer)
    }

    fn with_token(to: To<T>) -> Reply<T> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let token = NEXT.fetch_add(1, Ordering::Relaxed); // only has to be a different one each time
        Reply { to, token }
    }

    /// By this a caller that has waited long enough takes its question back.
    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    pub(crate) fn send(self, answer: Result<T>) {
        match &self.to {
            To::Slot(slot) => slot.end(State::Told(answer)),
            #[cfg(all(feature = "testing", not(shuttle)))]
            To::Channel(send) => drop(send.try_send(answer)),
        }
    }
}

impl<T> Slot<T> {
    fn end(&self, end: State<T>) {
        // E1: its caller holds the lock to look, never to wait for anybody.
        let mut state = self.state.lock();
        if matches!(*state, State::Open) {
            *state = end;
            drop(state);
            self.told.notify_one();
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        match &self.to {
            To::Slot(slot) => slot.end(State::Over),
            #[cfg(all(feature = "testing", not(shuttle)))]
            To::Channel(_) => {}
        }
    }
}

impl<T> Awaited<T> {
    /// The answer, if it is there.
    pub(crate) fn try_recv(&self) -> Result<Result<T>, NoReply> {
        self.slot.state.lock().take()
    }

    /// The answer; waits `time` for it at most.
    pub(crate) fn recv_timeout(&self, time: Duration) -> Result<Result<T>, NoReply> {
        let mut state = self.slot.state.lock();
        let is_open = |state: &mut State<T>| matches!(state, State::Open);
        self.slot.told.wait_while_for(&mut state, is_open, time);
        state.take()
    }

    /// Whether it would have to be waited for.
    #[cfg(feature = "lab")]
    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.slot.state.lock(), State::Open)
    }

    /// The answer, however long it takes; `None`: there will be none.
    #[cfg(any(test, feature = "lab", feature = "bench"))]
    pub(crate) fn recv(&self) -> Option<Result<T>> {
        loop {
            match self.recv_timeout(Duration::MAX) {
                Ok(answer) => return Some(answer),
                Err(NoReply::Ever) => return None,
                Err(NoReply::Yet) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once() {
        let (reply, answer) = Reply::new();
        assert_eq!(answer.try_recv().unwrap_err(), NoReply::Yet);
        reply.send(Ok(7));
        assert_eq!(answer.try_recv().unwrap().unwrap(), 7);
        assert_eq!(answer.try_recv().unwrap_err(), NoReply::Ever);
    }

    #[test]
    fn a_reply_that_is_dropped_is_no_answer() {
        let (reply, answer) = Reply::<()>::new();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| answer.recv());
            drop(reply);
            assert!(waits.join().unwrap().is_none());
        });
    }

    /// A job that was claimed for a caller who is gone has to go back at once.
    #[test]
    fn what_is_sent_to_nobody_is_dropped() {
        let held = Arc::new(());
        let (reply, answer) = Reply::new();
        drop(answer);
        reply.send(Ok(held.clone()));
        let (reply, answer) = Reply::new();
        reply.send(Ok(held.clone()));
        drop(answer);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
