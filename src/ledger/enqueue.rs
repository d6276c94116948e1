//! New jobs.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::fault::{self, Bug};
use crate::job::{JobId, NewJob};

use super::event::{Event, NewRecord};
use super::names::{KindIx, NAMES_MAX};
use super::table::Record;
use super::{Ledger, Payload};

/// What became of one job of an enqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) id: JobId,
    /// False: the key was taken, `id` is whose.
    pub(crate) is_new: bool,
}

impl Ledger {
    /// Where all of the jobs go, or why none may come; one whose key is taken is not new. Each new one has an
    /// [event](Ledger::enqueued).
    pub(crate) fn enqueue(&self, jobs: &[NewJob]) -> Result<Vec<Placed>> {
        let mut placed = Vec::with_capacity(jobs.len());
        let mut in_batch: HashMap<(&str, &str), JobId> = HashMap::new();
        let mut next_id = self.root.next_id;
        if fault::bug(Bug::IdsReused) {
            let newest = self.jobs.iter_from(JobId::from_number(0)).last();
            next_id = newest.map_or(1, |(id, _)| id.number() + 1);
        }
        self.check_room(jobs)?;
        for job in jobs {
            let key = job.key.as_deref();
            // L9: whoever has the key, be it gone or in this batch, is the answer.
            let taken = key.and_then(|key| {
                self.key_holder(&job.kind, key)
                    .or_else(|| in_batch.get(&(job.kind.as_ref(), key)).copied())
            });
            if let Some(id) = taken {
                placed.push(Placed { id, is_new: false });
                continue;
            }
            let id = JobId::from_number(next_id);
            next_id += 1;
            if let Some(key) = key {
                in_batch.insert((&job.kind, key), id);
            }
            placed.push(Placed { id, is_new: true });
        }
        Ok(placed)
    }

    /// The job that has the key. L6: by no look at the clock; a key is free when `tick` has freed it.
    pub(crate) fn key_holder(&self, kind: &str, key: &str) -> Option<JobId> {
        let taken = self.keys.find(KindIx(self.kinds.find(kind)?), key)?;
        let finished = |record: &Record| record.state().is_finished();
        if fault::bug(Bug::KeyForgotten) && self.record(taken.id).is_none_or(finished) {
            return None;
        }
        Some(taken.id)
    }

    /// The event of a new job.
    pub(crate) fn enqueued<'c>(&self, id: JobId, job: &'c NewJob, now_ms: i64) -> Event<'c> {
        let (due_ms, relative) = job.wait.due(now_ms);
        Event::Enqueued(NewRecord {
            id,
            kind: &job.kind,
            version: job.version,
            encoding: job.encoding,
            queue: &job.queue,
            priority: job.priority,
            enqueued_at_ms: now_ms,
            due_ms,
            relative,
            expires: job.expires,
            key: job
                .key
                .as_deref()
                .map(|key| (key, now_ms.saturating_add(self.setup.key_ttl_ms))),
            metadata: job
                .metadata
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            policy: job.policy.clone(),
            payload: Payload::from(&job.payload),
        })
    }

    /// A new queue needs a number.
    pub(super) fn check_queue_room(&self, name: &str) -> Result<()> {
        if self.queue_names.find(name).is_none() && self.queue_names.len() >= NAMES_MAX {
            return Err(no_room_for("queue", name));
        }
        Ok(())
    }

    /// Kinds, queues and policies are numbered; a program that invents one per job must not get far.
    fn check_room(&self, jobs: &[NewJob]) -> Result<()> {
        let mut kinds = HashSet::new();
        let mut queues = HashSet::new();
        let mut policies = HashSet::new();
        for job in jobs {
            let refuse = |what, name: &str| Err(no_room_for(what, name));
            if self.kinds.find(&job.kind).is_none()
                && kinds.insert(&job.kind)
                && self.kinds.len() + kinds.len() > NAMES_MAX
            {
                return refuse("kind", &job.kind);
            }
            if self.queue_names.find(&job.queue).is_none()
                && queues.insert(&job.queue)
                && self.queue_names.len() + queues.len() > NAMES_MAX
            {
                return refuse("queue", &job.queue);
            }
            if !self.policies.has(&job.policy)
                && policies.insert(&job.policy)
                && self.policies.len() + policies.len() > NAMES_MAX
            {
                return refuse("combination of attempts, backoff and limits", &job.kind);
            }
        }
        Ok(())
    }
}

fn no_room_for(what: &'static str, name: &str) -> Error {
    let rule = format!(
        "one store has room for {NAMES_MAX} of them; put what varies into payload or metadata"
    );
    Error::Invalid {
        what,
        found: format!("one more new one (`{name}`)"),
        rule,
    }
}
