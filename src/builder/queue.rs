//! Options of a named queue.

use std::time::Duration;

use super::start::{invalid, whole_ms};
use crate::error::Result;
use crate::job::check_name;
use crate::ledger::QueueSetup;
use crate::worker::Pool;

/// Options of one named queue. Queues that are not configured exist all the same, with the defaults.
#[derive(Clone, Debug)]
#[must_use]
pub struct Queue {
    pub(super) name: String,
    pool: Option<String>,
    concurrency: Option<u32>,
    weight: u32,
    /// `None`: as for all queues.
    keep_finished: Option<usize>,
    keep_finished_for: Option<Duration>,
}

impl Queue {
    /// A queue of this name (1 to 64 of `a-z 0-9 . _ -`).
    pub fn new(name: impl Into<String>) -> Queue {
        Queue {
            name: name.into(),
            pool: None,
            concurrency: None,
            weight: 1,
            keep_finished: None,
            keep_finished_for: None,
        }
    }

    /// The pool that runs it (default: the pool `default`, or the first one).
    pub fn pool(mut self, name: impl Into<String>) -> Queue {
        self.pool = Some(name.into());
        self
    }

    /// Most of its jobs that run at a time (at least 1; default: as many as the pool has slots). What
    /// [`QueueControl::set_concurrency`](crate::QueueControl::set_concurrency) stored goes before.
    pub fn concurrency(mut self, most: u32) -> Queue {
        self.concurrency = Some(most);
        self
    }

    /// Its share of the pool beside other queues: one of weight 3 starts three jobs for every one of a
    /// queue of weight 1, while both have some (at least 1, the default).
    pub fn weight(mut self, weight: u32) -> Queue {
        self.weight = weight;
        self
    }

    /// How many completed and cancelled jobs are kept, the newest (default:
    /// [`EngineBuilder::keep_finished`](super::EngineBuilder::keep_finished)).
    pub fn keep_finished(mut self, most: usize) -> Queue {
        self.keep_finished = Some(most);
        self
    }

    /// How long completed and cancelled jobs are kept at most (default: no limit).
    pub fn keep_finished_for(mut self, time: Duration) -> Queue {
        self.keep_finished_for = Some(time);
        self
    }

    /// As the ledger has it. Without a pool of its own it belongs to the `first`.
    pub(super) fn setup(
        &self,
        pools: &[Pool],
        first: Option<usize>,
        keep_finished: usize,
    ) -> Result<QueueSetup> {
        check_name("queue name", &self.name)?;
        if self.concurrency == Some(0) || self.weight == 0 {
            let what = format!("concurrency or weight 0 of queue `{}`", self.name);
            return Err(invalid(
                "queue",
                &what,
                "both are at least 1; use `pause` to stop a queue",
            ));
        }
        let pool = match &self.pool {
            None => first,
            Some(_) if pools.is_empty() => None,
            Some(name) => match pools.iter().position(|pool| pool.name == *name) {
                Some(pool) => Some(pool),
                None => {
                    let what = format!("bound to pool `{name}` (queue `{}`)", self.name);
                    return Err(invalid(
                        "queue",
                        &what,
                        "there is no pool of that name; add it with `pool`",
                    ));
                }
            },
        };
        Ok(QueueSetup {
            pool,
            concurrency: self.concurrency,
            weight: self.weight,
            keep_finished: self.keep_finished.unwrap_or(keep_finished),
            keep_finished_ms: self.keep_finished_for.map_or(i64::MAX, whole_ms),
        })
    }
}
