//! Compaction's part of the rules: what of an old entry is still needed, and in which form.

use std::borrow::Cow;

use crate::fault::{self, Bug};

use super::Ledger;
use super::event::{Event, History, NewRecord, Payload, Phase, Place, Standing};

/// A frame of an old entry that is still somebody's base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carry {
    /// A job, with the place of its newest history frame if that is not the base frame itself.
    Job { history: Option<Place> },
    /// A root record.
    Root,
}

impl Ledger {
    /// Whether the frame at `position` and `offset` must be carried before its entry can go.
    pub(crate) fn needs_carry(
        &self,
        event: &Event<'_>,
        position: u64,
        offset: u16,
    ) -> Option<Carry> {
        let here = |place: Place| place.position == position && place.offset == offset;
        match event {
            Event::Enqueued(job) | Event::Carried(job, ..) => {
                let record = self.jobs.get(job.id).filter(|r| here(r.base))?;
                Some(Carry::Job {
                    history: record.history().filter(|place| !here(*place)),
                })
            }
            Event::RootSet(_) => self.root_place.is_some_and(here).then_some(Carry::Root),
            Event::QueueSet { name, .. } => {
                let queue = self.queue_names.find(name)?;
                self.queue(super::QueueIx(queue))?
                    .control_place
                    .is_some_and(here)
                    .then_some(Carry::Root)
            }
            Event::KeyHeld { kind, key, .. } => {
                let kind = self.kinds.find(kind)?;
                self.keys
                    .find(super::KindIx(kind), key)?
                    .held
                    .is_some_and(here)
                    .then_some(Carry::Root)
            }
            _ => None,
        }
    }

    /// The record as it stands, to be written again. `history` is what lies at the place that
    /// [`Carry::Job`] named, or in the base frame itself. `queue` is the job's queue's name.
    pub(crate) fn carry_job<'e>(
        &self,
        base: &NewRecord<'e>,
        queue: &'e str,
        history: Option<History>,
    ) -> Option<Event<'e>> {
        let r = self.jobs.get(base.id)?;
        let finished = !matches!(r.phase, Phase::Waiting | Phase::Running);
        let job = NewRecord {
            queue,
            priority: if fault::bug(Bug::CarryForgetsPriority) {
                base.priority
            } else {
                r.priority
            },
            due_ms: r.due_ms,
            relative: r.relative,
            expires: r.expires(),
            payload: if r.phase == Phase::Completed {
                Payload::Gone
            } else {
                base.payload
            },
            ..base.clone()
        };
        let standing = Standing {
            phase: r.phase,
            attempt: r.attempt,
            failures: r.failures,
            crashes: r.crashes,
            finished_at_ms: if finished { r.due_ms } else { 0 },
            lease: self.leases.get(&base.id).copied(),
        };
        let history = history.filter(|_| !fault::bug(Bug::CarryForgetsHistory));
        Some(Event::Carried(job, standing, history))
    }

    /// A root record as it stands.
    pub(crate) fn carry_root<'e>(&self, event: &Event<'e>) -> Option<Event<'e>> {
        match event {
            Event::RootSet(_) => Some(Event::RootSet(self.root)),
            Event::QueueSet { name, .. } => {
                let control = self.control(name);
                Some(Event::QueueSet {
                    name: name.clone(),
                    paused: control.paused,
                    concurrency: control.concurrency,
                })
            }
            Event::KeyHeld { .. } => Some(event.clone()),
            _ => None,
        }
    }

    /// All root records as they stand: the root, then controls by queue, then held keys by kind and key.
    pub(crate) fn carry_roots(&self) -> Vec<Event<'static>> {
        let controlled = self.queues.iter().zip(self.queue_numbers());
        let controlled = controlled.filter(|(queue, _)| queue.control_place.is_some());
        let mut queues: Vec<(&str, _)> = controlled
            .map(|(queue, number)| (self.queue_name(number), queue.control))
            .collect();
        queues.sort_unstable_by_key(|(name, _)| *name);
        let mut keys: Vec<(&str, &str, _)> = self
            .keys
            .held()
            .map(|(kind, key, taken)| (self.kind_name(kind), key, taken))
            .collect();
        keys.sort_unstable_by_key(|(kind, key, _)| (*kind, *key));
        let queues = queues.into_iter().map(|(name, control)| Event::QueueSet {
            name: Cow::Owned(name.to_owned()),
            paused: control.paused,
            concurrency: control.concurrency,
        });
        let keys = keys.into_iter().map(|(kind, key, taken)| Event::KeyHeld {
            kind: Cow::Owned(kind.to_owned()),
            key: Cow::Owned(key.to_owned()),
            id: taken.id,
            until_ms: taken.until_ms,
        });
        let root = std::iter::once(Event::RootSet(self.root));
        root.chain(queues).chain(keys).collect()
    }

    /// All jobs by rising id, with the place at which each one's story begins.
    pub(crate) fn bases(&self) -> impl Iterator<Item = (crate::job::JobId, Place)> {
        let all = self.jobs.iter_from(crate::job::JobId::from_number(0));
        all.map(|(id, record)| (id, record.base))
    }

    /// The name of a job's queue.
    pub(crate) fn queue_of(&self, base: &NewRecord<'_>) -> Cow<'_, str> {
        let record = self.jobs.get(base.id);
        Cow::Borrowed(record.map_or("", |r| self.queue_name(r.queue)))
    }

    /// Whether so much of the journal is dead that entries must be carried forward.
    pub(crate) fn wants_compaction(&self) -> bool {
        self.space.total_bytes() > 2 * self.space.live_bytes() + self.setup.slack_bytes
            || self.space.is_cheap_to_cut()
    }

    /// Bytes of the journal beyond what compaction allows.
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.space
            .total_bytes()
            .saturating_sub(2 * self.space.live_bytes() + self.setup.slack_bytes)
    }

    /// The oldest entry with live records.
    pub(crate) fn oldest_live(&self) -> Option<u64> {
        self.space.oldest_live()
    }

    pub(crate) fn root(&self) -> super::RootRecord {
        self.root
    }

    pub(crate) fn held_keys(&self) -> usize {
        self.keys.held_count()
    }
}
