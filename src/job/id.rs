//! Numbers that name things: newtypes, so that one is never taken for another.

use std::fmt;

/// A job's id: rises with every job of a store and is never used again, not even after everything
/// was deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

impl JobId {
    /// The id with this number. Ids of a store begin at 1.
    pub const fn from_number(number: u64) -> JobId {
        JobId(number)
    }

    /// The number, for storing it elsewhere.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// The number of one claim: rises with every claim of a store and never repeats. Pass it to outside
/// systems to fence late writes: refuse whoever comes with a lower number than the last one seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimNumber(pub(crate) u64);

impl ClaimNumber {
    /// The number itself.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A job's priority: **higher numbers run first**, 0 is the default. Jobs of equal priority run in the
/// order in which they were enqueued.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Priority(pub i32);

impl From<i32> for Priority {
    fn from(number: i32) -> Priority {
        Priority(number)
    }
}

macro_rules! plain_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )*};
}
plain_number!(JobId, ClaimNumber, Priority);
