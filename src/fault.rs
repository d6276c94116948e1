//! Where the crash lab interferes: deliberate bugs, named points at which a process ends, and smaller stores.
//!
//! A test that never fails proves nothing, so the lab breaks the engine on purpose and must notice. Both are
//! chosen when a program starts, by the environment, and exist with feature `lab` alone: without it every
//! question below is answered by a constant and leaves no code behind.
//!
//! Knows nothing; anybody may ask.

#![cfg_attr(
    not(feature = "lab"),
    allow(unreachable_pub, reason = "only the lab reaches it from outside")
)]

/// Things with names, of which the environment chooses one.
macro_rules! named {
    ($(#[$about:meta])* $kind:ident, $word:literal: $($(#[$doc:meta])* $name:ident,)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind { $($(#[$doc])* $name),* }

        #[cfg(feature = "lab")]
        impl $kind {
            /// All of them.
            pub const ALL: &[$kind] = &[$($kind::$name),*];
        }

        #[cfg(feature = "lab")]
        impl std::str::FromStr for $kind {
            type Err = String;

            fn from_str(text: &str) -> Result<$kind, String> {
                let found = $kind::ALL.iter().find(|known| format!("{known:?}") == text);
                found.copied().ok_or_else(|| format!(concat!("there is no ", $word, " `{}`"), text))
            }
        }
    };
}

named! {
    /// A deliberate bug: what is skipped, or done at the wrong time. `JOBSLED_BUG=Name` turns one on.
    Bug, "bug":
    // Durability.
    /// Callers are answered before their group is synced.
    AnswerBeforeSync,
    /// Claimed jobs go to workers before the claim is synced.
    HandOutBeforeSync,
    /// A sync ends with sled's flush.
    NoDataSync,
    /// A sync does not flush sled's buffer.
    NoFlush,
    /// New names are not synced.
    NoDirectorySync,
    /// A large payload is acknowledged before it is on the disk.
    NoPayloadSync,
    /// Old entries go before the group is synced that says they may.
    RemovalBeforeSync,
    /// A payload's file goes before the group is synced that dropped it.
    UnlinkBeforeSync,
    /// More is written between two syncs than sled survives.
    NoSyncBudget,
    /// A failed sync is taken for a good one.
    FailedSyncIgnored,
    // Recovery.
    /// A group is believed with parts missing.
    HalfGroupBelieved,
    /// What is left of a group that was cut short stays in the journal.
    HalfGroupStays,
    /// The witness is told of a group before it is synced.
    WitnessAhead,
    /// The witness is not asked.
    WitnessIgnored,
    /// The recorder is cleared before recovery is synced.
    RecorderClearedEarly,
    /// A place of the recorder is used again before its claim's end is synced.
    PlaceReusedEarly,
    /// An end that was noted with the next job's begin is overlooked.
    EndOverlooked,
    /// Jobs that ran when the process died stay as they were.
    LeasesSurvive,
    /// A crash is counted as a failed attempt.
    CrashUsesAttempt,
    /// A job that must not run twice is run again after a crash.
    AtMostOnceForgotten,
    /// A job that ends its process every time is never quarantined.
    NoQuarantine,
    // The ledger.
    /// Whoever settles a job is believed, whatever its claim.
    ClaimUnchecked,
    /// A carried job loses its priority.
    CarryForgetsPriority,
    /// A carried job loses its errors and output.
    CarryForgetsHistory,
    /// Jobs start a millisecond early.
    DueOffByOne,
    /// A job that waits for another try is not among those that wait for a time.
    TimerForgotten,
    /// The next id is one above the highest that is still there.
    IdsReused,
    /// Keys of finished jobs are free at once.
    KeyForgotten,
    /// Expired jobs start all the same.
    ExpiryIgnored,
    /// Jobs of a paused queue are started all the same.
    PauseIgnored,
    /// Of equal priority the newest comes first.
    NewestFirst,
    /// A cancelled handler that fails is tried again.
    CancelForgotten,
    // Threads.
    /// A job that is handed out is begun and taken back without looking who was first.
    StageUnguarded,
    /// Slots are not woken when jobs are there for them.
    SlotNotWoken,
    /// A handler that is asked to stop between its look and its wait is not woken.
    NudgeUnlocked,
}

named! {
    /// A moment at which a process may die: before and after each thing that must last.
    ///
    /// `JOBSLED_DIE_AT=Name:n` kills the process when it comes by for the nth time, from 1.
    Point, "point":
    /// A group is decided, nothing of it written.
    Decided,
    /// Entries were given to sled, nothing flushed.
    Appended,
    /// sled has flushed, our own sync comes next.
    Flushed,
    /// The group is synced, nobody knows.
    Synced,
    /// The witness knows.
    Witnessed,
    /// Callers know and jobs are handed out.
    Told,
    /// A large payload's file is written, its name not synced.
    PayloadWritten,
    /// A handler is about to begin, and noted.
    Begun,
    /// A handler has returned, nobody was told.
    Returned,
    /// Opening: the copy is whole, the original has its name.
    Copied,
    /// Opening: neither has the name.
    Unnamed,
    /// Opening: the copy has the name, the original is still there.
    Renamed,
    /// Recovery: read back and checked, nothing written.
    ReadBack,
    /// Recovery: its group is synced, the recorder not cleared.
    Recovered,
    /// Making a store: it is whole, without its name.
    Made,
    /// Closing: everything is synced, the lock says nothing yet.
    Closed,
}

#[cfg(feature = "lab")]
mod chosen {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Bug, Point};

    fn from_environment<T>(name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
        // A lab that breaks nothing because of a typing error would call everything well.
        Some(read(&text).unwrap_or_else(|why| panic!("{name}={text}: {why}")))
    }

    pub(crate) fn bug(asked: Bug) -> bool {
        static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
        *CHOSEN.get_or_init(|| from_environment("JOBSLED_BUG", str::parse)) == Some(asked)
    }

    pub(crate) fn point(here: Point) {
        static CHOSEN: OnceLock<Option<(Point, u64)>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let chosen = CHOSEN.get_or_init(|| {
            from_environment("JOBSLED_DIE_AT", |text| {
                let (name, nth) = text.split_once(':').ok_or("it is `Name:n`")?;
                let nth = nth.parse().map_err(|e| format!("{e}"))?;
                Ok((name.parse()?, nth))
            })
        });
        if let Some((at, nth)) = chosen
            && *at == here
            && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *nth
        {
            die();
        }
    }

    /// `JOBSLED_SIZES=segment,entry,budget`: new stores are made with these bytes. In small ones far more of sled's
    /// cleaning happens in the same time.
    pub(crate) fn sizes() -> Option<[u32; 3]> {
        static CHOSEN: OnceLock<Option<[u32; 3]>> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            from_environment("JOBSLED_SIZES", |text| {
                let read: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
                let sizes = read.map_err(|e| e.to_string())?;
                sizes
                    .try_into()
                    .map_err(|_| "it is three numbers".to_owned())
            })
        })
    }

    /// As a kill -9 from outside: nothing is unwound, flushed or told.
    fn die() -> ! {
        #[cfg(unix)]
        {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
        std::process::abort()
    }
}

#[cfg(feature = "lab")]
pub(crate) use chosen::{bug, point, sizes};

/// Whether this bug was asked for.
#[cfg(not(feature = "lab"))]
pub(crate) const fn bug(_asked: Bug) -> bool {
    false
}

/// The process comes by here.
#[cfg(not(feature = "lab"))]
pub(crate) const fn point(_here: Point) {}

/// The sizes of new stores, if others than the usual ones were asked for.
#[cfg(not(feature = "lab"))]
pub(crate) const fn sizes() -> Option<[u32; 3]> {
    None
}
