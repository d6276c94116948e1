//! The states of a job.

use std::fmt;

/// Where a job is in its life.
///
/// ```text
///  Scheduled ──time──▶ Ready ──claim──▶ Running ──▶ Completed
///      ▲                 ▲                 │  ├─────▶ Cancelled
///      └── retry, snooze ┴── crash, stop ──┘  └─────▶ Dead
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// Its wait-until lies ahead; with an attempt behind it, it waits for a retry.
    Scheduled,
    /// Waits for other jobs.
    Blocked,
    /// May run as soon as a place is free.
    Ready,
    /// Claimed: a handler runs it, or is about to.
    Running,
    /// Finished well. Its output is kept for the retention time, its payload is not.
    Completed,
    /// Stopped by request. Can be retried.
    Cancelled,
    /// Given up; see [`DeadReason`]. Can be retried.
    Dead,
}

impl State {
    /// All states, in the order of a job's life.
    pub const ALL: [State; 7] = [
        State::Scheduled,
        State::Blocked,
        State::Ready,
        State::Running,
        State::Completed,
        State::Cancelled,
        State::Dead,
    ];

    /// Whether the job has reached its end (`Completed`, `Cancelled` or `Dead`).
    pub fn is_finished(self) -> bool {
        matches!(self, State::Completed | State::Cancelled | State::Dead)
    }

    /// The state's name in lower case, as in commands and JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Blocked => "blocked",
            State::Ready => "ready",
            State::Running => "running",
            State::Completed => "completed",
            State::Cancelled => "cancelled",
            State::Dead => "dead",
        }
    }
}

impl std::str::FromStr for State {
    type Err = UnknownState;

    /// A state by its name in lower case.
    fn from_str(name: &str) -> Result<State, UnknownState> {
        let found = State::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or_else(|| UnknownState(name.to_owned()))
    }
}

/// There is no state of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no state of a job: they are scheduled, blocked, ready, running, completed, cancelled and dead"
)]
pub struct UnknownState(String);

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a job is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// Every attempt failed; the errors are kept.
    AttemptsUsedUp,
    /// It could not start before its expiry.
    Expired,
    /// A handler gave it up ([`Stop::discard`](crate::Stop::discard)).
    Discarded,
    /// Its process died each time that it ran.
    Quarantined,
    /// It was cut off while it ran, and it must not run twice ([`OnCrash::Dead`](crate::OnCrash::Dead)): its process
    /// died, it was given back at shutdown, or its lease was taken away.
    Crashed,
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DeadReason::AttemptsUsedUp => "attempts used up",
            DeadReason::Expired => "expired",
            DeadReason::Discarded => "discarded",
            DeadReason::Quarantined => "quarantined",
            DeadReason::Crashed => "crashed",
        })
    }
}
