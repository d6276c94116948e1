//! The group's part for jobs and queues: storing, settling, changing.

use std::time::Duration;

use super::command::Settle;
use super::core::{Core, Mode};
use super::live::{Asked, Stage};
use crate::error::{Error, Result};
use crate::fault::{self, Bug};
use crate::job::{Content, JobId, NewJob};
use crate::ledger::{
    ChangeAnswer, ChangeKind, Event, History, Outcome, Placed, Record, SettleAnswer, Settling,
};

/// How often free space is looked at.
const DISK_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a plain job in the journal beside its payload, about.
const JOB_BYTES: u64 = 128;

impl Core {
    pub(super) fn enqueue(&mut self, jobs: &[NewJob]) -> Result<Result<Vec<Placed>>> {
        let bytes = |job: &NewJob| job.payload.inline_len() as u64 + JOB_BYTES;
        let refusal = if self.mode == Mode::Open {
            self.disk_refusal(jobs.iter().map(bytes).sum())
        } else {
            Some(Error::Draining)
        };
        let decided = match refusal {
            Some(error) => Err(error),
            None => self.ledger.enqueue(jobs),
        };
        match decided {
            Ok(placed) => {
                for (job, placed) in jobs.iter().zip(&placed) {
                    if placed.is_new {
                        self.push(&self.ledger.enqueued(placed.id, job, self.now.wall_ms))?;
                    } else {
                        self.pending.files.extend(job.payload.file());
                    }
                }
                Ok(Ok(placed))
            }
            Err(error) => {
                self.pending
                    .files
                    .extend(jobs.iter().filter_map(|job| job.payload.file()));
                Ok(Err(error))
            }
        }
    }

    /// New jobs are refused below the floor; what exists can still be claimed, settled and cancelled.
    fn disk_refusal(&mut self, bytes: u64) -> Option<Error> {
        let dir = self.disk.dir.as_ref()?;
        // What is written takes about twice its size in the log, before that is cleaned.
        let needed = self.limits.disk_floor.saturating_add(2 * bytes);
        let space = &mut self.free_space;
        let due = space
            .looked_at
            .is_none_or(|at| self.now.awake.saturating_sub(at) >= DISK_LOOK_EVERY)
            || space.written_since > self.limits.disk_floor / 8;
        if due {
            space.looked_at = Some(self.now.awake);
            space.written_since = 0;
            // A file system that cannot tell is taken to have room.
            space.free = crate::sys::files::free_bytes(dir).unwrap_or(u64::MAX);
        }
        (space.free < needed).then(|| Error::DiskFull {
            path: dir.clone(),
            free: space.free,
            needed,
        })
    }

    pub(super) fn settle(&mut self, settle: Settle) -> Result<()> {
        let Settle {
            id,
            claim,
            outcome,
            kept,
            ran_us,
            reply,
        } = settle;
        let outcome = self.obey_cancel(id, claim, outcome);
        let earlier = match outcome {
            Outcome::GivenBack { started: false } | Outcome::Snoozed { .. } => None,
            _ => self.history(id)?,
        };
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&claim.to_le_bytes(), self.jitter_seed);
        let settling = Settling {
            id,
            claim,
            outcome: &outcome,
            kept: kept.as_ref(),
            earlier,
            ran_us,
            seed,
        };
        let (answer, event) = self.ledger.settle(settling, self.now.wall_ms);
        if let Some(event) = event {
            self.push(&event)?;
            self.let_go(id, claim);
            if matches!(event, Event::Released { .. }) {
                self.make_due_again(id)?;
            }
        }
        if answer == SettleAnswer::LeaseLost {
            self.pending.places.extend(self.late_places.remove(&claim));
            // I9: refused, but not in silence. Whoever gave it back had nothing to say.
            if !matches!(outcome, Outcome::GivenBack { .. }) {
                self.late_answers += 1;
                log::warn!(
                    "job {id}: the answer of claim {claim} came after its lease was lost; refused"
                );
            }
        }
        // What became of nothing: of a late answer, or kept by an attempt that is to be repeated as it was.
        let brought = [outcome.output(), kept.as_ref()];
        for file in brought.into_iter().flatten().filter_map(Content::file) {
            let record = self.ledger.record(id);
            if !record.is_some_and(|r| r.files().any(|taken| taken == file)) {
                self.pending.files.push(file);
            }
        }
        if let Some(reply) = reply {
            self.answer(move |fate| reply.send(fate.of(answer == SettleAnswer::Settled)));
        }
        Ok(())
    }

    /// I3: what was due and is given back does not wait for a clock that was set back meanwhile.
    pub(super) fn make_due_again(&mut self, id: JobId) -> Result<()> {
        match self.ledger.due_again(id, self.now.wall_ms) {
            Some(event) => self.push(&event),
            None => Ok(()),
        }
    }

    /// Whoever was asked to cancel need not say so: an attempt that ends without an output has obeyed. Else a
    /// failure, a dropped claim or a limit would bring the job back.
    fn obey_cancel(&self, id: JobId, claim: u64, outcome: Outcome) -> Outcome {
        let run = self.running.get(&id).filter(|run| run.claim == claim);
        match (outcome, run.map(|run| &run.live)) {
            (
                Outcome::Failed { .. }
                | Outcome::TakenAway { .. }
                | Outcome::Snoozed { .. }
                | Outcome::GivenBack { .. },
                Some(live),
            ) if live.asked() == Asked::Cancelled && !fault::bug(Bug::CancelForgotten) => {
                Outcome::Cancelled(live.reason())
            }
            (outcome, _) => outcome,
        }
    }

    /// The job is in nobody's hands any more. E6: a handler that goes on all the same will still note its end
    /// at its place, so that is not free before its late answer is here.
    fn let_go(&mut self, id: JobId, claim: u64) {
        if self.running.get(&id).is_some_and(|run| run.claim == claim)
            && let Some(run) = self.running.remove(&id)
        {
            self.limited.remove(&id);
            if fault::bug(Bug::PlaceReusedEarly) {
                self.places.give_back(run.place);
            } else if run.live.stage() == Stage::Started {
                self.late_places.insert(claim, run.place);
            } else {
                self.pending.places.push(run.place);
            }
            if let Some(pool) = run.pool.and_then(|pool| self.pools.get_mut(pool)) {
                pool.outstanding -= 1;
            }
        }
    }

    pub(super) fn change(&mut self, id: JobId, wish: &ChangeKind) -> Result<Result<ChangeAnswer>> {
        // A job that no handler has begun is the writer's to take back.
        if !matches!(wish, ChangeKind::Complete { .. }) {
            self.take_back(id)?;
        }
        let earlier = self.history(id)?;
        let decided = self.ledger.change_job(id, wish, earlier, self.now.wall_ms);
        let (answer, events) = match decided {
            Ok(decided) => decided,
            Err(refusal) => return Ok(Err(refusal)),
        };
        for event in &events {
            self.push(event)?;
        }
        match (answer, wish) {
            (ChangeAnswer::IsRunning, ChangeKind::Cancel { reason }) => {
                if let Some(run) = self.running.get(&id) {
                    run.live.ask(Asked::Cancelled, reason, self.now.awake);
                }
            }
            (ChangeAnswer::Done, ChangeKind::Complete { .. }) => {
                if let Some(run) = self.running.get(&id) {
                    // No handler need begin, and one that has may stop.
                    run.live.take_back();
                    run.live
                        .ask(Asked::LeaseLost, "completed from outside", self.now.awake);
                    let claim = run.claim;
                    self.let_go(id, claim);
                }
            }
            _ => {}
        }
        Ok(Ok(answer))
    }

    pub(super) fn set_queue(
        &mut self,
        name: &str,
        paused: Option<bool>,
        concurrency: Option<Option<u32>>,
    ) -> Result<Result<()>> {
        let event = match self.ledger.set_queue_control(name, paused, concurrency) {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(Ok(())),
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.push(&event)?;
        if paused == Some(true) {
            self.take_back_all(Some(name))?;
        }
        Ok(Ok(()))
    }

    pub(super) fn start_draining(&mut self) -> Result<()> {
        if self.mode == Mode::Open {
            self.mode = Mode::Draining;
        }
        self.hand_claims
            .drain(..)
            .for_each(|claim| claim.reply.send(Ok(None)));
        self.take_back_all(None)
    }

    /// A job's stored errors, reason and output.
    fn history(&mut self, id: JobId) -> Result<Option<History>> {
        match self.ledger.record(id).and_then(Record::history) {
            Some(place) => self.history_at(place),
            None => Ok(None),
        }
    }
}
