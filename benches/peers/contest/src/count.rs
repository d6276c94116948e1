//! How many jobs are done, for whoever waits for all of them.

use std::sync::{Condvar, Mutex, PoisonError};

/// Counts up; one waits for a number.
#[derive(Debug, Default)]
pub struct Count {
    done: Mutex<u64>,
    more: Condvar,
}

impl Count {
    pub fn add(&self, jobs: u64) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) += jobs;
        self.more.notify_all();
    }

    pub fn now(&self) -> u64 {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until so many are done.
    pub fn wait(&self, jobs: u64) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = self.more.wait_while(done, |done| *done < jobs);
        drop(reached.unwrap_or_else(PoisonError::into_inner));
    }
}
