//! Counting.

use std::time::Duration;

use crate::engine::{Command, Engine, QueueControl};
use crate::error::Result;
use crate::job::State;
use crate::ledger::{Counters, QueueView};

/// Figures of one moment, exact.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Events since the store was made.
    pub counters: Counters,
    /// Every queue that ever had a job.
    pub queues: Vec<QueueStats>,
    /// Jobs claimed: running, or about to.
    pub running: u64,
    /// Keys that stay taken although their jobs are gone.
    pub held_keys: u64,
    /// Answers that came after their lease was lost and were refused, since opening.
    pub late_answers: u64,
    /// Bytes of the journal, and how many of them are still needed.
    pub journal_bytes: u64,
    /// Bytes of records that are still needed.
    pub live_bytes: u64,
    /// Size of the log file.
    pub bytes_on_disk: u64,
    /// Commands that callers and workers have sent to the writer since opening, this question among them. One for a
    /// batch, however large.
    pub commands: u64,
    /// Groups committed since opening.
    pub groups: u64,
    /// Journal entries that hold them.
    pub entries: u64,
    /// Bytes of those entries.
    pub entry_bytes: u64,
    /// Disk syncs since opening.
    pub syncs: u64,
}

/// Figures of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    counts: [u64; State::ALL.len()],
    /// Ready jobs whose kind has no handler here.
    pub parked: u64,
    /// Whether it is paused.
    pub paused: bool,
    /// Most jobs that run at a time.
    pub concurrency: Option<u32>,
    /// How long the job that runs next has been ready.
    pub oldest_ready: Option<Duration>,
}

impl QueueStats {
    pub(crate) fn new(view: QueueView, now_ms: i64) -> QueueStats {
        let age = |since_ms: i64| {
            Duration::from_millis(u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0))
        };
        QueueStats {
            name: view.name,
            counts: view.counts,
            parked: view.parked,
            paused: view.paused,
            concurrency: view.concurrency,
            oldest_ready: view.oldest_ready_ms.map(age),
        }
    }

    /// Jobs in a state.
    pub fn count(&self, state: State) -> u64 {
        self.counts.get(state as usize).copied().unwrap_or(0)
    }
}

impl Stats {
    /// Jobs in a state, over all queues.
    pub fn count(&self, state: State) -> u64 {
        self.queues.iter().map(|queue| queue.count(state)).sum()
    }
}

impl QueueControl<'_> {
    /// Figures of this queue; `None` if no job was ever in it.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed); [`Error::Refused`](crate::Error::Refused) after a failed write.
    pub fn stats(&self) -> Result<Option<QueueStats>> {
        let queues = self.engine.stats()?.queues;
        Ok(queues.into_iter().find(|queue| queue.name == self.name))
    }
}

impl Engine {
    /// Figures of one moment.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed); [`Error::Refused`](crate::Error::Refused) after a failed write.
    pub fn stats(&self) -> Result<Stats> {
        let s = self.shared.ask(|reply| Command::Snapshot { reply })?;
        let now_ms = s.now_ms;
        Ok(Stats {
            counters: s.counters,
            queues: s
                .queues
                .into_iter()
                .map(|view| QueueStats::new(view, now_ms))
                .collect(),
            running: s.running as u64,
            held_keys: s.held_keys as u64,
            late_answers: s.late_answers,
            journal_bytes: s.journal_bytes,
            live_bytes: s.live_bytes,
            bytes_on_disk: s.bytes_on_disk,
            commands: s.work.commands,
            groups: s.work.groups,
            entries: s.work.entries,
            entry_bytes: s.work.entry_bytes,
            syncs: s.work.syncs,
        })
    }
}
