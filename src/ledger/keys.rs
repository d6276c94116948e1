//! Callers' keys: unique per kind while the job is kept, and for their time to live at least.

use std::collections::{BTreeSet, HashMap};

use crate::job::JobId;

use super::event::Place;
use super::names::KindIx;

#[derive(Debug, Default)]
pub(crate) struct Keys {
    taken: HashMap<(KindIx, Box<str>), Taken>,
    /// Keys of deleted jobs by the time at which they become free.
    held: BTreeSet<(i64, KindIx, Box<str>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) id: JobId,
    pub(crate) until_ms: i64,
    /// The frame that holds the key when the job is gone; `None` while the job itself does.
    pub(crate) held: Option<Place>,
}

impl Keys {
    pub(crate) fn find(&self, kind: KindIx, key: &str) -> Option<Taken> {
        // A lookup by `(KindIx, &str)` would need its own trait; keys are short.
        self.taken.get(&(kind, key.into())).copied()
    }

    /// Sets who has the key; returns who had it.
    pub(crate) fn set(&mut self, kind: KindIx, key: &str, taken: Taken) -> Option<Taken> {
        let before = self.taken.insert((kind, key.into()), taken);
        if let Some(before) = before.filter(|b| b.held.is_some()) {
            self.held.remove(&(before.until_ms, kind, key.into()));
        }
        if taken.held.is_some() {
            self.held.insert((taken.until_ms, kind, key.into()));
        }
        before
    }

    pub(crate) fn free(&mut self, kind: KindIx, key: &str) -> Option<Taken> {
        let before = self.taken.remove(&(kind, key.into()))?;
        if before.held.is_some() {
            self.held.remove(&(before.until_ms, kind, key.into()));
        }
        Some(before)
    }

    /// Held keys whose time is over, oldest first.
    pub(crate) fn due(&self, now_ms: i64) -> impl Iterator<Item = (KindIx, &str)> {
        self.held
            .iter()
            .take_while(move |(until_ms, ..)| *until_ms <= now_ms)
            .map(|(_, kind, key)| (*kind, &**key))
    }

    pub(crate) fn next_due(&self) -> Option<i64> {
        self.held.first().map(|(until_ms, ..)| *until_ms)
    }

    /// Keys whose jobs are gone, in no order.
    pub(crate) fn held(&self) -> impl Iterator<Item = (KindIx, &str, Taken)> {
        let all = self.taken.iter();
        all.filter(|(_, taken)| taken.held.is_some())
            .map(|((kind, key), taken)| (*kind, &**key, *taken))
    }

    pub(crate) fn held_count(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_keys_become_free_in_the_order_of_their_times() {
        let mut keys = Keys::default();
        let taken = |until_ms, position: Option<u64>| Taken {
            id: JobId::from_number(1),
            until_ms,
            held: position.map(|position| Place {
                position,
                offset: 0,
                len: 1,
            }),
        };
        let kind = KindIx(0);
        keys.set(kind, "kept", taken(5, None));
        assert_eq!((keys.next_due(), keys.held_count()), (None, 0));
        keys.set(kind, "late", taken(30, Some(1)));
        keys.set(kind, "early", taken(20, Some(2)));
        assert_eq!((keys.next_due(), keys.held_count()), (Some(20), 2));
        let due = |keys: &Keys, now_ms| keys.due(now_ms).map(|(_, key)| key.to_owned()).collect();
        let none: Vec<String> = due(&keys, 19);
        assert!(none.is_empty());
        let both: Vec<String> = due(&keys, 30);
        assert_eq!(both, ["early", "late"]);
        keys.free(kind, "early");
        assert_eq!((keys.next_due(), keys.held_count()), (Some(30), 1));
        keys.set(kind, "late", taken(40, None));
        assert_eq!((keys.next_due(), keys.held_count()), (None, 0));
    }
}
