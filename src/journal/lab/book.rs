//! What a life of the laboratory knows of its jobs: a ledger in miniature.

use std::collections::BTreeMap;

use super::random::{mix, payload};
use crate::ledger::{Event, NewRecord, Payload, Place};

/// Which jobs are live, and where. Folded from events, in life and at replay alike.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// By id: where its newest version lies, and the length of its payload.
    pub(super) jobs: BTreeMap<u64, (u64, usize)>,
    /// By position: how many live jobs lie there.
    pub(super) live: BTreeMap<u64, u32>,
    /// By position: bytes of the entry.
    pub(super) entries: BTreeMap<u64, u64>,
}

impl Book {
    pub(super) fn apply(&mut self, event: &Event<'_>, place: Place) -> Result<(), String> {
        match event {
            Event::Enqueued(job) | Event::Carried(job, ..) => self.put(job, place.position),
            Event::Pruned { ids } => {
                // Of an id whose story was removed with its entry nothing is known, and nothing has to be.
                for id in ids {
                    self.take(*id);
                }
                Ok(())
            }
            Event::Opened { .. } | Event::RootSet(_) => Ok(()),
            other => Err(format!(
                "an event that the laboratory does not write: {other:?}"
            )),
        }
    }

    fn put(&mut self, job: &NewRecord<'_>, position: u64) -> Result<(), String> {
        let id = job.id.number();
        let Payload::Inline(found) = job.payload else {
            return Err(format!("job {id} has lost its payload"));
        };
        if found != payload(id, found.len()) {
            return Err(format!("job {id} has another payload than it was given"));
        }
        self.take(id);
        self.jobs.insert(id, (position, found.len()));
        *self.live.entry(position).or_default() += 1;
        Ok(())
    }

    fn take(&mut self, id: u64) {
        let Some((position, _)) = self.jobs.remove(&id) else {
            return;
        };
        if let Some(count) = self.live.get_mut(&position) {
            *count -= 1;
            if *count == 0 {
                self.live.remove(&position);
            }
        }
    }

    /// Bytes of the journal from `tail` on.
    pub(super) fn bytes_from(&mut self, tail: u64) -> u64 {
        self.entries = self.entries.split_off(&tail);
        self.entries.values().sum()
    }

    pub(super) fn oldest_live(&self) -> Option<u64> {
        self.live.first_key_value().map(|(position, _)| *position)
    }

    pub(super) fn digest(&self) -> u128 {
        let of = |(id, (_, len)): (&u64, &(u64, usize))| {
            let low = mix(*id ^ mix(*len as u64));
            u128::from(low) << 64 | u128::from(mix(low))
        };
        self.jobs.iter().map(of).fold(0, u128::wrapping_add)
    }
}
