//! Everything that asks the operating system for more than std gives: clocks, names, randomness,
//! threads, files that must survive a power cut, the store's lock, free space, the heap.
//!
//! Each function has a portable branch; where that branch promises less, its comment says what. The
//! rest of the crate has no `cfg(target_os)`.
//!
//! Knows nothing of jobs, of the journal or of the engine: it may be read, and tested, alone.

mod machine;
mod random;
#[cfg(feature = "lab")]
pub(crate) mod scripted;

pub(crate) mod files;
pub(crate) mod heap;
#[cfg(all(unix, feature = "command"))]
pub(crate) mod process;
#[cfg(feature = "control")]
pub(crate) mod socket;
pub(crate) mod sync;
pub(crate) mod thread;

pub(crate) mod ballast;
pub(crate) mod lock;

#[cfg(feature = "control")]
pub(crate) use machine::user_id;
pub(crate) use machine::{awake_time, boot_id, host_name, steady_time};
#[cfg(test)]
pub(crate) use random::Dice;
pub(crate) use random::{random_u64, random_u128};
