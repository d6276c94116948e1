//! The ready jobs of one lane, in the order in which they run.
//!
//! Ids rise and jobs are mostly enqueued and claimed in runs, so ids are kept as bits, 64 to a page: a
//! million ready jobs take a quarter of a megabyte, where a tree of keys took thirty.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::fault::{self, Bug};
use crate::job::{JobId, Priority};

use super::table::Record;

/// I5: the order in which ready jobs of a queue run: higher priority first; jobs that were running when
/// a process died after all others of their priority; then the order of enqueueing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadyKey {
    pub(crate) rank: Rank,
    pub(crate) id: JobId,
}

/// What comes before the order of enqueueing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority: Reverse<Priority>,
    pub(crate) suspect: bool,
}

impl ReadyKey {
    pub(crate) fn of(id: JobId, record: &Record) -> ReadyKey {
        let rank = Rank {
            priority: Reverse(record.priority),
            suspect: record.crashes > 0,
        };
        ReadyKey { rank, id }
    }

    pub(crate) fn priority(&self) -> Priority {
        self.rank.priority.0
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// None of the sets is empty.
    ranks: BTreeMap<Rank, IdSet>,
    len: u64,
}

impl Ready {
    pub(crate) fn insert(&mut self, key: ReadyKey) {
        let is_new = self.ranks.entry(key.rank).or_default().insert(key.id);
        self.len += u64::from(is_new);
    }

    pub(crate) fn remove(&mut self, key: ReadyKey) {
        let Some(ids) = self.ranks.get_mut(&key.rank) else {
            return;
        };
        self.len -= u64::from(ids.remove(key.id));
        if ids.is_empty() {
            self.ranks.remove(&key.rank);
        }
    }

    /// The job that runs next.
    pub(crate) fn first(&self) -> Option<ReadyKey> {
        let (rank, ids) = self.ranks.first_key_value()?;
        let id = ids.first()?;
        Some(ReadyKey { rank: *rank, id })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

/// A set of ids: 64 of them to a word.
#[derive(Debug, Default)]
struct IdSet {
    /// None of the words is zero.
    words: BTreeMap<u64, u64>,
}

impl IdSet {
    /// False if it was there.
    fn insert(&mut self, id: JobId) -> bool {
        let word = self.words.entry(id.number() / 64).or_default();
        let before = *word;
        *word |= bit(id);
        *word != before
    }

    /// False if it was not there.
    fn remove(&mut self, id: JobId) -> bool {
        let number = id.number() / 64;
        let Some(word) = self.words.get_mut(&number) else {
            return false;
        };
        let before = *word;
        *word &= !bit(id);
        let removed = *word != before;
        if *word == 0 {
            self.words.remove(&number);
        }
        removed
    }

    fn first(&self) -> Option<JobId> {
        if fault::bug(Bug::NewestFirst) {
            let (number, word) = self.words.last_key_value()?;
            return Some(JobId::from_number(number * 64 + u64::from(word.ilog2())));
        }
        let (number, word) = self.words.first_key_value()?;
        Some(JobId::from_number(
            number * 64 + u64::from(word.trailing_zeros()),
        ))
    }

    fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

fn bit(id: JobId) -> u64 {
    1 << (id.number() % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside a plain set of keys: the same first job after any insertions and removals.
        #[test]
        fn first_is_the_least_key(
            steps in prop::collection::vec((any::<bool>(), 0..4_i32, any::<bool>(), 0..300_u64), 1..200),
        ) {
            let mut ready = Ready::default();
            let mut twin = BTreeSet::new();
            for (insert, priority, suspect, id) in steps {
                let priority = Reverse(Priority(priority));
                let key = ReadyKey { rank: Rank { priority, suspect }, id: JobId::from_number(id) };
                if insert {
                    ready.insert(key);
                    twin.insert(key);
                } else {
                    ready.remove(key);
                    twin.remove(&key);
                }
                prop_assert_eq!(ready.first(), twin.first().copied());
                prop_assert_eq!(ready.len(), twin.len() as u64);
            }
        }
    }
}
