//! How a process is configured, as far as the rules need it.

use std::collections::{HashMap, HashSet};

/// Configuration of the rules. Never stored.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) queues: HashMap<String, QueueSetup>,
    /// For queues that are not configured by name.
    pub(crate) any_queue: QueueSetup,
    /// Kinds that have a handler in this process.
    pub(crate) handled: HashSet<String>,
    pub(crate) key_ttl_ms: i64,
    /// Dead jobs kept per queue, and for how long.
    pub(crate) keep_dead: usize,
    pub(crate) keep_dead_ms: i64,
    /// Journal bytes tolerated beyond twice the live ones before compaction begins.
    pub(crate) slack_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueSetup {
    /// Number of the pool that runs the queue; `None` when the process has no such pool.
    pub(crate) pool: Option<usize>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) weight: u32,
    /// Completed and cancelled jobs kept.
    pub(crate) keep_finished: usize,
    pub(crate) keep_finished_ms: i64,
}

impl Default for QueueSetup {
    fn default() -> QueueSetup {
        QueueSetup {
            pool: Some(0),
            concurrency: None,
            weight: 1,
            keep_finished: 10_000,
            keep_finished_ms: i64::MAX,
        }
    }
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            queues: HashMap::new(),
            any_queue: QueueSetup::default(),
            handled: HashSet::new(),
            key_ttl_ms: 24 * 3_600_000,
            keep_dead: 10_000,
            keep_dead_ms: 180 * 24 * 3_600_000,
            slack_bytes: 2 * 1024 * 1024,
        }
    }
}

impl Setup {
    pub(crate) fn queue(&self, name: &str) -> &QueueSetup {
        self.queues.get(name).unwrap_or(&self.any_queue)
    }
}
