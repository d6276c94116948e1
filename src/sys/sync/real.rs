//! What runs everywhere but in the tests on chosen schedules: nothing of its own.

pub(crate) use parking_lot::{Condvar, Mutex, RwLock};
pub(crate) use std::sync::atomic;
pub(crate) use std::thread_local;

pub(crate) mod channel {
    pub(crate) use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

    /// The next message, unless nobody is left to send one or the other end of `ended` is gone.
    pub(crate) fn recv_until<T>(from: &Receiver<T>, ended: &Receiver<()>) -> Option<T> {
        crossbeam_channel::select! {
            recv(from) -> message => message.ok(),
            recv(ended) -> _ => None,
        }
    }
}

pub(crate) mod thread {
    pub(crate) type JoinHandle = std::thread::JoinHandle<()>;

    pub(crate) fn start(
        name: String,
        f: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle> {
        std::thread::Builder::new().name(name).spawn(f)
    }
}
