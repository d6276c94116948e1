//! Locks, channels, atomics and threads of everything that runs beside something else: engine, workers, clock.
//!
//! They are those of `parking_lot`, `crossbeam-channel` and std, under one name. Built with `--cfg shuttle` they are
//! shuttle's instead: then a scheduler chooses after every step who goes on, and a test tries thousands of orders
//! ([`threads`](crate::threads)). That cfg is set for this crate alone, and for nothing but those tests.
//!
//! What is a leaf, and never held while anything of this module is touched, may use its crates directly: the journal in
//! memory does, and a `static` counter that only has to differ.

#[cfg(not(shuttle))]
mod real;
#[cfg(not(shuttle))]
pub(crate) use real::{Condvar, Mutex, RwLock, atomic, channel, thread, thread_local};

#[cfg(shuttle)]
mod chosen;
#[cfg(shuttle)]
pub(crate) use chosen::{Condvar, Mutex, RwLock, atomic, channel, thread, thread_local};
