//! Whether an engine is well.

use std::time::Duration;

use crate::engine::{Command, Engine, PoolHealth};
use crate::job::{JobId, State};

/// A commit that takes longer than this is told as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// A journal with more dead bytes than this beyond what compaction allows is told as behind.
const BACKLOG_MIN: u64 = 64 << 20;

/// How an engine is; see [`Engine::health`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Why nothing can be written any more, if so: restart the process.
    pub poisoned: Option<String>,
    /// How long the running commit has taken, if longer than 10 s.
    pub stalled_commit: Option<Duration>,
    /// Dead bytes of the journal beyond what compaction allows.
    pub compaction_backlog: u64,
    /// How long the longest-waiting head of a queue has been ready.
    pub oldest_ready: Option<Duration>,
    /// Ready jobs whose kind has no handler here.
    pub parked: u64,
    /// Dead jobs, waiting for somebody to look at them.
    pub dead: u64,
    /// False for a minute after opening and after the wall clock was set: expiries wait.
    pub clock_trusted: bool,
    /// A job that was running in two crashes: it runs with nothing else in the process, or waits for that, and
    /// no other job starts until it has ended.
    pub held_for: Option<JobId>,
    /// The pools.
    pub pools: Vec<PoolHealth>,
}

impl Health {
    /// Whether nothing needs somebody's attention.
    pub fn is_well(&self) -> bool {
        self.poisoned.is_none()
            && self.stalled_commit.is_none()
            && self.compaction_backlog < BACKLOG_MIN
            && self.pools.iter().all(|pool| pool.lost == 0)
    }
}

impl Engine {
    /// How the engine is. Answers even when the writer hangs.
    pub fn health(&self) -> Health {
        let now = self.shared.clock.now();
        let stalled_commit = self
            .watchdog()
            .commit_age(now.awake)
            .filter(|age| *age > STALLED_AFTER);
        let mut health = Health {
            poisoned: self.shared.inbox.gate().given_up(),
            stalled_commit,
            compaction_backlog: 0,
            oldest_ready: None,
            parked: 0,
            dead: 0,
            clock_trusted: false,
            held_for: None,
            pools: self
                .shared
                .pool_health
                .lock()
                .iter()
                .map(|of| of())
                .collect(),
        };
        if stalled_commit.is_some() {
            return health; // the writer could not answer
        }
        match self.shared.ask(|reply| Command::Snapshot { reply }) {
            Ok(snapshot) => {
                health.compaction_backlog = snapshot.backlog_bytes;
                health.clock_trusted = snapshot.clock_trusted;
                health.held_for = snapshot.held_for;
                health.parked = snapshot.queues.iter().map(|q| q.parked).sum();
                health.dead = snapshot
                    .queues
                    .iter()
                    .filter_map(|q| q.counts.get(State::Dead as usize))
                    .sum();
                let since = snapshot
                    .queues
                    .iter()
                    .filter_map(|q| q.oldest_ready_ms)
                    .min();
                let age =
                    since.map(|ms| u64::try_from(snapshot.now_ms.saturating_sub(ms)).unwrap_or(0));
                health.oldest_ready = age.map(Duration::from_millis);
            }
            Err(error) => {
                health.poisoned.get_or_insert_with(|| error.to_string());
            }
        }
        health
    }
}
