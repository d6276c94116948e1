//! Everything the writer owns, in one place; no thread in it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use super::clock_watch::{ClockWatch, LOOK_EVERY};
use super::command::{Command, Ending, Work};
use super::events::{Hub, What};
use super::handout::HandOut;
use super::handouts::HandOuts;
use super::hold::Holds;
use super::inbox::Inbox;
use super::live::Live;
use super::places::Places;
use super::reader::Reader;
use super::recorder::Recorder;
use super::reply::Reply;
use super::watchdog::Watchdog;
use crate::clock::{Clock, Now};
use crate::error::Error;
use crate::job::{JobId, Priority};
use crate::journal::{Chain, Draft, Geometry, Journal, Payloads, Witness};
use crate::ledger::{Idle, Ledger, QueueIx};
use crate::sys::lock::StoreLock;

/// What the writer has of the store besides the journal.
#[derive(Debug)]
pub(crate) struct Disk {
    /// `None` for an engine in memory.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) witness: Option<Witness>,
    pub(crate) payloads: Arc<Payloads>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) lock: Option<StoreLock>,
}

/// Bounds and times of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// After a handler was asked to stop for a limit, how long until its lease is taken away.
    pub(crate) stop_grace: Duration,
    /// How long a claim by hand lasts without a heartbeat.
    pub(crate) lock_timeout: Duration,
    /// Free bytes below which new jobs are refused.
    pub(crate) disk_floor: u64,
}

pub(crate) type ReplaceSlot = Box<dyn Fn(&Live) -> bool + Send>;

/// A pool as the writer knows it.
pub(crate) struct PoolLink {
    pub(crate) outs: Arc<HandOuts>,
    pub(crate) slots: usize,
    /// Most jobs claimed ahead of free slots.
    pub(crate) ahead_max: usize,
    /// Starts a thread in place of one that hangs in this handler; false when it may not.
    pub(crate) replace_slot: ReplaceSlot,
    /// Claimed for the pool and not settled.
    pub(super) outstanding: usize,
    /// How many jobs are claimed ahead now; grows and shrinks with what the pool begins per sync.
    pub(super) ahead: usize,
    /// Gives back what it gets: how long it was left alone for that, and until when (awake time) it is.
    pub(super) rest: Duration,
    pub(super) rests_until: Option<Duration>,
    /// What it is handed after the group that is being written.
    pub(super) next: Vec<HandOut>,
    /// Some of what it was handed was taken back in this group.
    pub(super) has_taken_back: bool,
    /// Handed out, in order of their claims; those that began are dropped from the ends when met.
    pub(super) handed: VecDeque<(QueueIx, Priority, Arc<Live>)>,
}

impl PoolLink {
    pub(crate) fn new(
        outs: Arc<HandOuts>,
        slots: usize,
        ahead_max: usize,
        replace_slot: ReplaceSlot,
    ) -> PoolLink {
        PoolLink {
            outs,
            slots,
            ahead_max,
            replace_slot,
            outstanding: 0,
            ahead: 0,
            rest: Duration::ZERO,
            rests_until: None,
            next: Vec::new(),
            has_taken_back: false,
            handed: VecDeque::new(),
        }
    }
}

/// A job in somebody's hands.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) claim: u64,
    /// `None`: claimed by hand.
    pub(super) pool: Option<usize>,
    pub(super) place: u32,
    pub(super) live: Arc<Live>,
}

/// What the engine still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Open,
    /// Finishes what runs, claims no more.
    Draining,
    /// Draining, and at this awake time whatever still runs is given back.
    Closing {
        until: Duration,
    },
    Closed,
}

/// Whether the group that an answer waits for reached the disk.
pub(super) enum Fate<'a> {
    Synced,
    /// Nothing of the group was written.
    Refused(&'a str),
    /// Perhaps some of it was.
    Unknown(&'a str),
}

impl Fate<'_> {
    pub(super) fn of<T>(&self, answer: T) -> Result<T, Error> {
        match self {
            Fate::Synced => Ok(answer),
            Fate::Refused(cause) => Err(Error::Refused {
                cause: (*cause).to_owned(),
            }),
            Fate::Unknown(cause) => Err(Error::Unknown {
                cause: (*cause).to_owned(),
            }),
        }
    }
}

pub(super) type Answer = Box<dyn FnOnce(&Fate<'_>) + Send>;

/// A caller that wants a job for its own thread.
#[derive(Debug)]
pub(super) struct HandClaim {
    pub(super) kind: &'static str,
    pub(super) queue: String,
    pub(super) until: Duration,
    pub(super) reply: Reply<Option<HandOut>>,
}

/// What a step has to do once it is synced.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) answers: Vec<Answer>,
    pub(super) claims: Vec<(JobId, Target)>,
    pub(super) changes: Vec<(JobId, What, Arc<str>, Arc<str>)>,
    pub(super) ended: Vec<JobId>,
    /// Reads of frames, done once everything is on disk.
    pub(super) reads: Vec<Command>,
    pub(super) files: Vec<u128>,
    pub(super) places: Vec<u32>,
}

/// Who gets a claimed job.
pub(super) enum Target {
    Pool(usize),
    Hand(Reply<Option<HandOut>>),
}

/// Replies that wait for the state to become something.
#[derive(Default)]
pub(super) struct Waiters {
    pub(super) jobs: FxHashMap<JobId, Vec<Reply<Ending>>>,
    pub(super) idle: Vec<(Idle, Reply<()>)>,
    pub(super) finished: Vec<(u64, Reply<()>)>,
    pub(super) drained: Vec<Reply<()>>,
    pub(super) closed: Vec<Reply<u64>>,
}

impl Waiters {
    /// The caller went away.
    pub(super) fn forget(&mut self, token: u64) {
        self.jobs.retain(|_, waiting| {
            waiting.retain(|reply| reply.token() != token);
            !waiting.is_empty()
        });
        self.idle.retain(|(_, reply)| reply.token() != token);
        self.finished.retain(|(_, reply)| reply.token() != token);
        self.drained.retain(|reply| reply.token() != token);
        self.closed.retain(|reply| reply.token() != token);
    }

    /// Tells everybody why nothing will come.
    pub(super) fn refuse(self, why: impl Fn() -> Error) {
        let jobs = self.jobs.into_values().flatten();
        jobs.for_each(|reply| reply.send(Err(why())));
        let states = self.idle.into_iter().map(|(_, reply)| reply);
        let counts = self.finished.into_iter().map(|(_, reply)| reply);
        let states = states.chain(counts).chain(self.drained);
        states.for_each(|reply| reply.send(Err(why())));
        self.closed
            .into_iter()
            .for_each(|reply| reply.send(Err(why())));
    }
}

/// The engine without its threads.
pub(crate) struct Core {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) now: Now,
    pub(super) watch: ClockWatch,
    pub(super) ledger: Ledger,
    pub(super) journal: Option<Box<dyn Journal>>,
    pub(super) geometry: Geometry,
    pub(super) chain: Chain,
    pub(super) draft: Draft,
    pub(super) reader: Reader,
    /// Oldest position needed as of the newest synced group.
    pub(super) tail: u64,
    /// Entries that synced groups made obsolete.
    pub(super) removals: VecDeque<u64>,
    pub(super) holds: Holds,
    pub(super) disk: Disk,
    pub(super) limits: Limits,
    pub(super) pools: Vec<PoolLink>,
    pub(super) running: FxHashMap<JobId, Run>,
    /// Those of `running` that have a time limit or stall timeout.
    pub(super) limited: FxHashSet<JobId>,
    pub(super) hand_claims: Vec<HandClaim>,
    pub(super) places: Places,
    /// Places of claims whose lease was taken while their handler runs on, by claim number.
    pub(super) late_places: FxHashMap<u64, u32>,
    pub(super) inbox: Inbox,
    pub(super) hub: Arc<Hub>,
    pub(super) pending: Pending,
    pub(super) waiters: Waiters,
    pub(super) mode: Mode,
    /// Whether pools get jobs.
    pub(super) claims: bool,
    /// Why nothing can be written any more.
    pub(super) poisoned: Option<String>,
    pub(super) given_back: u64,
    pub(super) late_answers: u64,
    pub(super) work: Work,
    pub(super) jitter_seed: u64,
    pub(super) free_space: FreeSpace,
    pub(super) watchdog: Arc<Watchdog>,
}

/// Free space on the store's disk, looked at now and then.
#[derive(Debug, Default)]
pub(super) struct FreeSpace {
    pub(super) free: u64,
    pub(super) looked_at: Option<Duration>,
    pub(super) written_since: u64,
}

impl Core {
    /// Whether the engine is closed and the writer can end.
    pub(crate) fn is_closed(&self) -> bool {
        self.mode == Mode::Closed
    }

    #[cfg(feature = "lab")]
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    #[cfg(test)]
    pub(super) fn pools_mut(&mut self) -> &mut [PoolLink] {
        &mut self.pools
    }

    /// Callers that wait for something to happen.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let w = &self.waiters;
        w.jobs.len() + w.idle.len() + w.finished.len() + w.drained.len() + w.closed.len()
    }

    #[cfg(test)]
    pub(super) fn row_now(&self, id: JobId) -> Option<crate::ledger::Row> {
        self.ledger
            .record(id)
            .map(|record| self.ledger.row(id, record))
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// How long the writer may sleep if no command comes; `None`: for ever. I3: all that time brings about is
    /// in here, or a job would wait for the next command.
    pub(crate) fn sleep_at_most(&self) -> Option<Duration> {
        if self.poisoned.is_some() {
            return None;
        }
        let now = self.clock.now();
        // The wall clock may be set while we sleep, so it is looked at now and then.
        let until = |due_ms: i64| {
            let ahead_ms = u64::try_from(due_ms.saturating_sub(now.wall_ms)).unwrap_or(0);
            Duration::from_millis(ahead_ms).min(LOOK_EVERY)
        };
        let timer = self.ledger.next_timer_ms().map(until);
        let trusted = self
            .ledger
            .next_trusted_ms()
            .map(|at| until(at).max(self.watch.until_trusted(now)));
        let hand = self
            .hand_claims
            .iter()
            .map(|claim| claim.until.saturating_sub(now.awake));
        let limits = self.limited.iter().filter_map(|id| self.next_limit(*id));
        let closing = match self.mode {
            Mode::Closing { until } => Some(until.saturating_sub(now.awake)),
            _ => None,
        };
        let rests = self.pools.iter().filter_map(|pool| pool.rests_until);
        let rests = rests.filter(|_| self.mode == Mode::Open);
        timer
            .into_iter()
            .chain(rests.map(|at| at.saturating_sub(now.awake)))
            .chain(trusted)
            .chain(hand)
            .chain(limits.map(|at| at.saturating_sub(now.awake)))
            .chain(closing)
            .min()
    }

    /// Whether there is clean-up to do while nobody asks for anything.
    pub(crate) fn wants_idle_step(&self) -> bool {
        // A few dead entries can wait for the next group; an own sync for each would be a waste.
        const WORTH_A_SYNC: usize = 8;
        self.poisoned.is_none()
            && self.mode != Mode::Closed
            && (self.removals.len() >= WORTH_A_SYNC
                || self.ledger.wants_compaction()
                || self.ledger.wants_pruning())
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("mode", &self.mode)
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}
