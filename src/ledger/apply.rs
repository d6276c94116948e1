//! Event to state: the only place that changes a job, the same in life and at replay.
//!
//! L1: reads the event and nothing else: no option, no clock. An event about a job that is not (yet)
//! present is skipped, because at replay its story may begin with a later `Carried`; counters and ids
//! are folded all the same.

use crate::fault::{self, Bug};
use crate::job::{Content, DeadReason, Expiry, JobId};

use super::Ledger;
use super::digest;
use super::event::{
    Event, History, LeaseRecord, NUMBER_MAX, NewRecord, Payload, Phase, Place, Stamp, Standing,
};
use super::keys::Taken;
use super::names::{KindIx, QueueIx};
use super::queue::{Control, QueueState};
use super::table::{Record, Waits};

/// An event that does not fit the state: in life a bug, at replay damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch(pub(crate) String);

impl Ledger {
    #[expect(clippy::too_many_lines, reason = "one flat match over all events")]
    pub(crate) fn apply(&mut self, event: &Event<'_>, stamp: Stamp) -> Result<(), Mismatch> {
        // I8: so that whatever was stored, there is a next one.
        if event.largest_number() > NUMBER_MAX {
            return Err(Mismatch("an id, claim or epoch is out of range".to_owned()));
        }
        self.count(event);
        match event {
            Event::Enqueued(job) => self.begin(job, None, None, stamp),
            Event::Carried(job, standing, history) => {
                self.begin(job, Some(*standing), history.as_ref(), stamp)
            }
            Event::Claimed { id, claim, alone } => {
                let lease = LeaseRecord {
                    epoch: stamp.epoch,
                    claim: *claim,
                    alone: *alone,
                    claimed_at_ms: stamp.at_ms,
                };
                self.change(*id, |r, _| {
                    // I2: what has ended is never claimed; only `Requeued` makes it wait again.
                    expect_phase(*id, r, Phase::Waiting)?;
                    r.phase = Phase::Running;
                    r.attempt = r.attempt.saturating_add(1);
                    Ok(Some(lease))
                })
            }
            Event::Released { id, claim, started } => self.end_lease(*id, *claim, |r| {
                r.phase = Phase::Waiting;
                // I6: no handler saw this attempt, so the next one has its number.
                if !started {
                    r.attempt = r.attempt.saturating_sub(1);
                }
            }),
            Event::Completed {
                id, claim, history, ..
            } => self.complete(*id, *claim, history.as_ref(), stamp),
            Event::Retried {
                id,
                claim,
                due_ms,
                relative,
                expires_at_ms,
                history,
                ..
            } => self.end_lease(*id, *claim, |r| {
                r.phase = Phase::Waiting;
                r.failures = r.failures.saturating_add(1);
                r.crashes = 0;
                r.due_ms = *due_ms;
                r.relative = *relative;
                if let Some(at_ms) = *expires_at_ms {
                    r.rare_mut().expires = Some(Expiry {
                        at_ms,
                        relative: true,
                    });
                }
                set_history(r, Some(history), stamp.place);
            }),
            Event::Snoozed {
                id,
                claim,
                due_ms,
                relative,
            } => self.end_lease(*id, *claim, |r| {
                r.phase = Phase::Waiting;
                r.crashes = 0;
                r.due_ms = *due_ms;
                r.relative = *relative;
            }),
            Event::Recovered { id, claim, crashed } => self.end_lease(*id, *claim, |r| {
                r.phase = Phase::Waiting;
                r.crashes = r.crashes.saturating_add(u8::from(*crashed));
                if fault::bug(Bug::CrashUsesAttempt) {
                    r.failures = r.failures.saturating_add(u16::from(*crashed));
                }
            }),
            Event::Cancelled {
                id, claim, history, ..
            } => self.finish(*id, *claim, Phase::Cancelled, history.as_ref(), stamp),
            Event::Died {
                id,
                claim,
                reason,
                history,
                ..
            } => self.finish(*id, *claim, Phase::Dead(*reason), history.as_ref(), stamp),
            Event::Requeued {
                id,
                due_ms,
                relative,
            } => self.change(*id, |r, _| {
                r.phase = Phase::Waiting;
                r.failures = 0;
                r.crashes = 0;
                r.due_ms = *due_ms;
                r.relative = *relative;
                if let Some(rare) = &mut r.rare {
                    rare.expires = None;
                }
                Ok(None)
            }),
            Event::Rescheduled {
                id,
                due_ms,
                relative,
            } => self.change(*id, |r, lease| {
                r.due_ms = *due_ms;
                r.relative = *relative;
                Ok(lease)
            }),
            Event::Reprioritised { id, priority } => self.change(*id, |r, lease| {
                r.priority = *priority;
                Ok(lease)
            }),
            Event::Moved { id, queue } => {
                let queue = self.queue_number(queue)?;
                self.change(*id, |r, lease| {
                    r.queue = queue;
                    Ok(lease)
                })
            }
            Event::Deleted { id } => {
                self.forget(*id);
                Ok(())
            }
            Event::Pruned { ids } => {
                ids.iter()
                    .for_each(|id| self.forget(JobId::from_number(*id)));
                Ok(())
            }
            Event::Opened { epoch, boot, .. } => {
                self.root.epoch = *epoch;
                self.root.boot = *boot;
                Ok(())
            }
            Event::ClockStepped { before_ms, by_ms } => self.step_clock(*before_ms, *by_ms),
            Event::QueueSet {
                name,
                paused,
                concurrency,
            } => self.set_queue(
                name,
                Control {
                    paused: *paused,
                    concurrency: *concurrency,
                },
                stamp.place,
            ),
            Event::KeyHeld {
                kind,
                key,
                id,
                until_ms,
            } => self.hold_key(kind, key, *id, *until_ms, stamp.place),
            Event::KeyFreed { kind, key } => {
                let kind = self.kind_number(kind)?;
                self.release_held_key(kind, key);
                Ok(())
            }
            Event::RootSet(root) => {
                self.root = *root;
                self.move_pin(|ledger| &mut ledger.root_place, stamp.place);
                Ok(())
            }
            Event::Skipped => Ok(()),
        }
    }

    /// Ids, claims and counters: folded from every event, whether or not its job is present. L3: so the next
    /// number is above all that were given out, also when no job is left.
    ///
    /// Counters go round: a replay begins behind claims that it comes by the release of, and below zero they wait
    /// for the root record that follows.
    fn count(&mut self, event: &Event<'_>) {
        let root = &mut self.root;
        let c = &mut root.counters;
        let add = |counter: &mut u64, n: u64| *counter = counter.wrapping_add(n);
        match event {
            Event::Enqueued(job) => {
                root.next_id = root.next_id.max(job.id.number().saturating_add(1));
                add(&mut c.enqueued, 1);
            }
            Event::Claimed { claim, .. } => {
                root.next_claim = root.next_claim.max(claim.saturating_add(1));
                add(&mut c.started, 1);
            }
            Event::Released { started: false, .. } => c.started = c.started.wrapping_sub(1),
            Event::Completed { .. } => add(&mut c.completed, 1),
            Event::Retried { .. } => add(&mut c.retried, 1),
            Event::Snoozed { .. } => add(&mut c.snoozed, 1),
            Event::Cancelled { .. } => add(&mut c.cancelled, 1),
            Event::Died { reason, .. } => {
                let crashed = matches!(reason, DeadReason::Quarantined | DeadReason::Crashed);
                add(&mut c.died, 1);
                add(&mut c.expired, u64::from(*reason == DeadReason::Expired));
                add(&mut c.crashed, u64::from(crashed));
            }
            Event::Recovered { crashed, .. } => add(&mut c.crashed, u64::from(*crashed)),
            Event::Deleted { .. } => add(&mut c.deleted, 1),
            Event::Pruned { ids } => add(&mut c.pruned, ids.len() as u64),
            _ => {}
        }
    }

    /// A job's story begins, or begins anew further on in the journal.
    fn begin(
        &mut self,
        job: &NewRecord<'_>,
        standing: Option<Standing>,
        history: Option<&History>,
        stamp: Stamp,
    ) -> Result<(), Mismatch> {
        let id = job.id;
        if let Some(old) = self.take(id) {
            self.let_go(&old);
        }
        let kind = self.kind_number(job.kind)?;
        let queue = self.queue_number(job.queue)?;
        let Some(policy) = self.policies.acquire(&job.policy) else {
            return Err(Mismatch(format!("job {id}: too many different policies")));
        };
        let mut record = Record {
            base: stamp.place,
            due_ms: job.due_ms,
            payload_hash: digest::payload_hash(job.payload),
            fixed_hash: digest::fixed_hash(job),
            rare: None,
            priority: job.priority,
            attempt: 0,
            kind,
            queue,
            policy,
            failures: 0,
            phase: Phase::Waiting,
            crashes: 0,
            encoding: job.encoding,
            relative: job.relative,
            waits: Waits::Ready,
        };
        if job.expires.is_some() {
            record.rare_mut().expires = job.expires;
        }
        if let Some((key, until_ms)) = job.key {
            record.rare_mut().key = Some((key.into(), until_ms));
            if let Some(before) = self.keys.set(
                kind,
                key,
                Taken {
                    id,
                    until_ms,
                    held: None,
                },
            ) {
                self.unhold(kind, key, before);
            }
        }
        if let Payload::File(file) = job.payload {
            record.rare_mut().payload_file = Some(file.name);
        }
        let mut lease = None;
        if let Some(standing) = standing {
            record.phase = standing.phase;
            record.attempt = standing.attempt;
            record.failures = standing.failures;
            record.crashes = standing.crashes;
            lease = standing.lease;
            if record.phase != Phase::Waiting && record.phase != Phase::Running {
                record.due_ms = standing.finished_at_ms;
            }
            set_history(&mut record, history, stamp.place);
        }
        // L4: a carried record brings both, so both are compared.
        if (record.phase == Phase::Running) != lease.is_some() {
            return Err(Mismatch(format!(
                "job {id}: {:?} with lease {lease:?}",
                record.phase
            )));
        }
        self.space.pin(record.base);
        self.store(id, record, lease);
        Ok(())
    }

    fn complete(
        &mut self,
        id: JobId,
        claim: u64,
        history: Option<&History>,
        stamp: Stamp,
    ) -> Result<(), Mismatch> {
        let held = self.leases.get(&id).map(|lease| lease.claim);
        if claim != 0 && self.jobs.get(id).is_some() && held != Some(claim) {
            return Err(Mismatch(format!(
                "job {id} completed by claim {claim}, its lease is {held:?}"
            )));
        }
        let Some(mut record) = self.take(id) else {
            return Ok(());
        };
        // The payload goes: a completed job is kept for its output only.
        let frame_without_payload = 256;
        let dead_weight = record.base.len.saturating_sub(frame_without_payload);
        self.space.shrink(&mut record.base, dead_weight);
        record.payload_hash = 0;
        if let Some(rare) = &mut record.rare {
            rare.payload_file = None;
        }
        end(&mut record, Phase::Completed, history, stamp);
        self.store(id, record, None);
        Ok(())
    }

    fn finish(
        &mut self,
        id: JobId,
        claim: u64,
        phase: Phase,
        history: Option<&History>,
        stamp: Stamp,
    ) -> Result<(), Mismatch> {
        self.change(id, |r, lease| {
            if claim != lease.map_or(0, |lease| lease.claim) {
                return Err(Mismatch(format!(
                    "job {id} ends as {phase:?} by claim {claim}, its lease is {lease:?}"
                )));
            }
            end(r, phase, history, stamp);
            Ok(None)
        })
    }

    fn end_lease(
        &mut self,
        id: JobId,
        claim: u64,
        f: impl FnOnce(&mut Record),
    ) -> Result<(), Mismatch> {
        self.change(id, |r, lease| match lease {
            // I2, I4: a job that has ended has no lease, one that moved on has one of another number.
            Some(lease) if lease.claim == claim => {
                f(r);
                Ok(None)
            }
            other => Err(Mismatch(format!(
                "job {id}: claim {claim} ends, its lease is {other:?}"
            ))),
        })
    }

    /// Changes a record that is present; `f` gets its lease and returns the one that it has afterwards.
    fn change(
        &mut self,
        id: JobId,
        f: impl FnOnce(&mut Record, Option<LeaseRecord>) -> Result<Option<LeaseRecord>, Mismatch>,
    ) -> Result<(), Mismatch> {
        let lease = self.leases.get(&id).copied();
        let Some(mut record) = self.take(id) else {
            return Ok(());
        };
        let lease = f(&mut record, lease)?;
        self.store(id, record, lease);
        Ok(())
    }

    fn forget(&mut self, id: JobId) {
        if let Some(record) = self.take(id) {
            self.let_go(&record);
            if let Some((key, _)) = record.key()
                && let Some(taken) = self.keys.find(record.kind, key)
                && taken.id == id
                && taken.held.is_none()
            {
                self.keys.free(record.kind, key);
            }
            self.jobs.release_page(id);
        }
    }

    /// Gives back what a record that goes away had taken of the shared things.
    fn let_go(&mut self, record: &Record) {
        self.space.unpin(record.base);
        self.policies.release(record.policy);
    }

    /// What was asked for as a span, and is not over yet, moves with the wall clock.
    fn step_clock(&mut self, before_ms: i64, by_ms: i64) -> Result<(), Mismatch> {
        // One that was over stays over, also when the clock goes back behind it.
        let due_after = |r: &Record| {
            let due_ms = if r.due_ms > before_ms {
                r.due_ms.saturating_add(by_ms)
            } else {
                r.due_ms.min(before_ms.saturating_add(by_ms))
            };
            (r.phase == Phase::Waiting && r.relative && due_ms != r.due_ms).then_some(due_ms)
        };
        let expiry_moves = |r: &Record| {
            matches!(r.phase, Phase::Waiting | Phase::Running)
                && r.expires()
                    .is_some_and(|e| e.relative && e.at_ms > before_ms)
        };
        let moved: Vec<JobId> = self
            .jobs
            .iter_from(JobId::from_number(0))
            .filter(|(_, r)| due_after(r).is_some() || expiry_moves(r))
            .map(|(id, _)| id)
            .collect();
        for id in moved {
            self.change(id, |r, lease| {
                if expiry_moves(r)
                    && let Some(expiry) = &mut r.rare_mut().expires
                {
                    expiry.at_ms = expiry.at_ms.saturating_add(by_ms);
                }
                if let Some(due_ms) = due_after(r) {
                    r.due_ms = due_ms;
                }
                Ok(lease)
            })?;
        }
        Ok(())
    }

    /// A queue that is set back to what it would be anyway needs no record.
    fn set_queue(&mut self, name: &str, control: Control, place: Place) -> Result<(), Mismatch> {
        let queue = self.queue_number(name)?;
        let hash = self.queue_names.hash(queue.0);
        let Some(state) = self.queue_mut(queue) else {
            return Ok(());
        };
        let before = std::mem::replace(&mut state.control, control);
        let kept = (control != Control::default()).then_some(place);
        let old_place = std::mem::replace(&mut state.control_place, kept);
        if let Some(old) = old_place {
            self.space.unpin(old);
            self.digest = self.digest.wrapping_sub(digest::of_queue(hash, before));
        }
        if let Some(place) = kept {
            self.space.pin(place);
            self.digest = self.digest.wrapping_add(digest::of_queue(hash, control));
        }
        Ok(())
    }

    fn hold_key(
        &mut self,
        kind: &str,
        key: &str,
        id: JobId,
        until_ms: i64,
        place: Place,
    ) -> Result<(), Mismatch> {
        let kind = self.kind_number(kind)?;
        let hash = self.kinds.hash(kind.0);
        if let Some(before) = self.keys.set(
            kind,
            key,
            Taken {
                id,
                until_ms,
                held: Some(place),
            },
        ) {
            self.unhold(kind, key, before);
        }
        self.space.pin(place);
        self.digest = self
            .digest
            .wrapping_add(digest::of_held_key(hash, key, id, until_ms));
        Ok(())
    }

    fn release_held_key(&mut self, kind: KindIx, key: &str) {
        if self
            .keys
            .find(kind, key)
            .is_some_and(|taken| taken.held.is_some())
            && let Some(before) = self.keys.free(kind, key)
        {
            self.unhold(kind, key, before);
        }
    }

    /// Takes a held key out of space and digest.
    fn unhold(&mut self, kind: KindIx, key: &str, before: Taken) {
        if let Some(place) = before.held {
            self.space.unpin(place);
            let mix = digest::of_held_key(self.kinds.hash(kind.0), key, before.id, before.until_ms);
            self.digest = self.digest.wrapping_sub(mix);
        }
    }

    fn move_pin(&mut self, slot: impl FnOnce(&mut Ledger) -> &mut Option<Place>, place: Place) {
        let old = slot(self).replace(place);
        if let Some(old) = old {
            self.space.unpin(old);
        }
        self.space.pin(place);
    }

    pub(super) fn kind_number(&mut self, name: &str) -> Result<KindIx, Mismatch> {
        self.kinds
            .intern(name)
            .map(KindIx)
            .ok_or_else(|| Mismatch("too many kinds".to_owned()))
    }

    pub(super) fn queue_number(&mut self, name: &str) -> Result<QueueIx, Mismatch> {
        let number = self
            .queue_names
            .intern(name)
            .ok_or_else(|| Mismatch("too many queues".to_owned()))?;
        if usize::from(number) == self.queues.len() {
            // A queue that appears late must not run everything it has before the others get a turn.
            let turn = self.queues.iter().map(|q| q.turn).max().unwrap_or(0);
            self.queues.push(QueueState {
                setup: self.setup.queue(name).clone(),
                turn,
                ..QueueState::default()
            });
        }
        Ok(QueueIx(number))
    }
}

fn end(r: &mut Record, phase: Phase, history: Option<&History>, stamp: Stamp) {
    r.phase = phase;
    match phase {
        Phase::Dead(DeadReason::AttemptsUsedUp) => r.failures = r.failures.saturating_add(1),
        // How many crashes it took is part of why.
        Phase::Dead(DeadReason::Quarantined) => r.crashes = r.crashes.saturating_add(1),
        Phase::Dead(_) => {}
        _ => r.crashes = 0,
    }
    r.due_ms = stamp.at_ms;
    r.relative = false;
    set_history(r, history, stamp.place);
}

fn set_history(r: &mut Record, history: Option<&History>, place: Place) {
    if let Some(history) = history {
        let hash = digest::history_hash(history);
        let rare = r.rare_mut();
        rare.history = Some(place);
        rare.history_hash = hash;
        rare.output_file = history.output.as_ref().and_then(Content::file);
    }
}

fn expect_phase(id: JobId, r: &Record, phase: Phase) -> Result<(), Mismatch> {
    if r.phase == phase {
        Ok(())
    } else {
        Err(Mismatch(format!(
            "job {id} is {:?}, not {phase:?}",
            r.phase
        )))
    }
}
