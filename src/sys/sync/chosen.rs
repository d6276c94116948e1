//! The same under a scheduler that chooses who goes on.
//!
//! Three things are stricter than in life. No wait runs out: time is a clock that a scenario moves by hand, so whoever
//! is not woken is found as a deadlock, and does not look again a little later. No thread is left behind:
//! [`join_all`](thread::join_all) waits for those whose handles were dropped. And one thing is milder: atomics are
//! sequentially consistent whatever order they ask for, so a missing barrier does not show.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

pub(crate) use shuttle::sync::atomic;
pub(crate) use shuttle::thread_local;

/// As `parking_lot`'s: does not poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T: ?Sized>(shuttle::sync::Mutex<T>);

/// `None` only inside a wait.
pub(crate) struct MutexGuard<'a, T: ?Sized>(Option<shuttle::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard(Some(guard))
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("not inside a wait")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("not inside a wait")
    }
}

/// As `parking_lot`'s, but that it never wakes anybody by itself.
#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Condvar {
        Condvar(shuttle::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("not inside a wait");
        let woken = self.0.wait(held);
        guard.0 = Some(woken.unwrap_or_else(PoisonError::into_inner));
    }

    /// Until it is notified: no time passes but by hand.
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) {
        if !time.is_zero() {
            self.wait(guard);
        }
    }

    pub(crate) fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut waits: impl FnMut(&mut T) -> bool,
        time: Duration,
    ) {
        while !time.is_zero() && waits(guard) {
            self.wait(guard);
        }
    }

    /// True: perhaps somebody was asleep. Shuttle does not tell.
    pub(crate) fn notify_one(&self) -> bool {
        self.0.notify_one();
        true
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// As `parking_lot`'s: does not poison.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> RwLock<T> {
        RwLock(shuttle::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> shuttle::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> shuttle::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of `crossbeam-channel` that is used, over one lock.
pub(crate) mod channel {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use crossbeam_channel::{RecvError, SendError};
    pub(crate) use crossbeam_channel::{RecvTimeoutError, TryRecvError, TrySendError};

    use super::{Condvar, Duration, Mutex, fmt};

    struct Channel<T> {
        state: Mutex<State<T>>,
        changed: Condvar,
    }

    struct State<T> {
        waiting: VecDeque<T>,
        room: usize,
        senders: usize,
        is_read: bool,
        /// Of somebody who waits for two channels.
        bell: Option<Arc<Bell>>,
    }

    #[derive(Default)]
    struct Bell {
        rung: Mutex<bool>,
        heard: Condvar,
    }

    impl Bell {
        fn ring(&self) {
            *self.rung.lock() = true;
            self.heard.notify_one();
        }

        fn wait(&self) {
            let mut rung = self.rung.lock();
            while !std::mem::take(&mut *rung) {
                self.heard.wait(&mut rung);
            }
        }
    }

    impl<T> Channel<T> {
        fn change<R>(&self, f: impl FnOnce(&mut State<T>) -> R) -> R {
            let mut state = self.state.lock();
            let answer = f(&mut state);
            let bell = state.bell.clone();
            drop(state);
            self.changed.notify_all();
            bell.inspect(|bell| bell.ring());
            answer
        }

        fn watch(&self, bell: Option<Arc<Bell>>) {
            self.state.lock().bell = bell;
        }
    }

    pub(crate) struct Sender<T>(Arc<Channel<T>>);
    pub(crate) struct Receiver<T>(Arc<Channel<T>>);

    pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Channel {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                room,
                senders: 1,
                is_read: true,
                bell: None,
            }),
            changed: Condvar::new(),
        });
        (Sender(channel.clone()), Receiver(channel))
    }

    pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        bounded(usize::MAX)
    }

    impl<T> Sender<T> {
        /// Only for a channel without bounds: it does not wait.
        pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
            self.try_send(message)
                .map_err(|refused| SendError(refused.into_inner()))
        }

        pub(crate) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
            self.0.change(|state| {
                if !state.is_read {
                    return Err(TrySendError::Disconnected(message));
                }
                if state.waiting.len() >= state.room {
                    return Err(TrySendError::Full(message));
                }
                state.waiting.push_back(message);
                Ok(())
            })
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Sender<T> {
            self.0.state.lock().senders += 1;
            Sender(self.0.clone())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.change(|state| state.senders -= 1);
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            let mut state = self.0.state.lock();
            loop {
                match state.waiting.pop_front() {
                    Some(message) => return Ok(message),
                    None if state.senders == 0 => return Err(RecvError),
                    None => self.0.changed.wait(&mut state),
                }
            }
        }

        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            let mut state = self.0.state.lock();
            match state.waiting.pop_front() {
                Some(message) => Ok(message),
                None if state.senders == 0 => Err(TryRecvError::Disconnected),
                None => Err(TryRecvError::Empty),
            }
        }

        pub(crate) fn recv_timeout(&self, time: Duration) -> Result<T, RecvTimeoutError> {
            if time.is_zero() {
                return self.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                });
            }
            self.recv().map_err(|_| RecvTimeoutError::Disconnected)
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            // As crossbeam does: what nobody can receive any more is dropped at once, outside the lock.
            let left = self.0.change(|state| {
                state.is_read = false;
                std::mem::take(&mut state.waiting)
            });
            drop(left);
        }
    }

    pub(crate) fn recv_until<T>(from: &Receiver<T>, ended: &Receiver<()>) -> Option<T> {
        let bell = Arc::new(Bell::default());
        from.0.watch(Some(bell.clone()));
        ended.0.watch(Some(bell.clone()));
        let message = loop {
            match (from.try_recv(), ended.try_recv()) {
                (Ok(message), _) => break Some(message),
                (Err(TryRecvError::Empty), Err(TryRecvError::Empty)) => bell.wait(),
                _ => break None,
            }
        };
        from.0.watch(None);
        ended.0.watch(None);
        message
    }

    impl<T> fmt::Debug for Sender<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Sender")
        }
    }

    impl<T> fmt::Debug for Receiver<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Receiver")
        }
    }
}

pub(crate) mod thread {
    use std::cell::RefCell;

    std::thread_local! {
        /// Threads of this schedule whose handles were dropped. All of a schedule run on one thread of the machine.
        static LEFT: RefCell<Vec<shuttle::thread::JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
    }

    /// A thread; it is waited for at the end of the schedule if it is not joined before.
    #[derive(Debug)]
    pub(crate) struct JoinHandle(Option<shuttle::thread::JoinHandle<()>>);

    impl JoinHandle {
        pub(crate) fn join(mut self) -> std::thread::Result<()> {
            self.0.take().expect("joined once").join()
        }
    }

    impl Drop for JoinHandle {
        fn drop(&mut self) {
            LEFT.with_borrow_mut(|left| left.extend(self.0.take()));
        }
    }

    pub(crate) fn start(
        name: String,
        f: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle> {
        let started = shuttle::thread::Builder::new().name(name).spawn(f)?;
        Ok(JoinHandle(Some(started)))
    }

    /// Waits for all threads: one that never ends is a deadlock.
    pub(crate) fn join_all() {
        while let Some(left) = LEFT.with_borrow_mut(Vec::pop) {
            left.join().expect("no thread of ours panics");
        }
    }

    /// A schedule begins: what a failed one before it has left is not touched.
    pub(crate) fn begin() {
        LEFT.take().into_iter().for_each(std::mem::forget);
    }
}
