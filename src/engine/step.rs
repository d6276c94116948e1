//! One group: decide, append, sync. What follows from it is `effects`.
//!
//! A plain function over what `Core` owns; the writer thread only calls it. Whatever fails between the
//! first event and the end of the sync poisons the engine: nothing is tried twice.

use std::time::Duration;

use super::clock_watch::ClockStep;
use super::command::{Command, Settle};
use super::core::{Core, Fate, HandClaim, Mode, Run, Target};
use super::events::What;
use super::handout::{Asked, Live, Stage};
use crate::error::{Error, Result};
use crate::job::{Content, JobId, NewJob};
use crate::journal::{self, Mark};
use crate::ledger::{
    ChangeAnswer, ChangeKind, Event, History, Mismatch, Outcome, Pick, Placed, SettleAnswer,
    Settling, Stamp,
};

/// Events that time alone may add to one group.
const TICK_EVENTS_MAX: usize = 1_024;
/// How often free space is looked at.
const DISK_LOOK_EVERY: Duration = Duration::from_secs(1);

impl Core {
    /// Carries out one group of commands. An error says that the engine is poisoned from here on.
    pub(crate) fn step(&mut self, commands: Vec<Command>) -> Result<()> {
        let weight = commands
            .iter()
            .map(Command::weight)
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let done = self.group(commands);
        self.inbox.gate().leave(weight.0, weight.1);
        done
    }

    fn group(&mut self, commands: Vec<Command>) -> Result<()> {
        if let Some(cause) = self.poisoned.clone() {
            commands.into_iter().for_each(|c| {
                c.refuse(|| Error::Refused {
                    cause: cause.clone(),
                });
            });
            return Ok(());
        }
        self.now = self.clock.now();
        self.draft.begin(&self.chain);
        if let Err(error) = self.decide(commands) {
            return Err(self.poison(&error, false));
        }
        if let Err(error) = self.commit() {
            return Err(self.poison(&error, true));
        }
        if let Err(error) = self.effects() {
            return Err(self.poison(&error, false));
        }
        Ok(())
    }

    /// Turns commands and time into events, in order.
    fn decide(&mut self, commands: Vec<Command>) -> Result<()> {
        if let Some(ClockStep { before_ms, by_ms }) = self.watch.look(self.now) {
            log::info!(
                "the wall clock was set by {by_ms} ms; waits asked for as a span move with it"
            );
            self.push(&Event::ClockStepped { before_ms, by_ms })?;
            self.running.values().for_each(|run| run.live.nudge());
        }
        self.ledger.judge(self.now.wall_ms);
        for command in commands {
            self.command(command)?;
        }
        let trusted = self.watch.until_trusted(self.now).is_zero();
        for event in self.ledger.tick(self.now.wall_ms, trusted, TICK_EVENTS_MAX) {
            self.push(&event)?;
        }
        self.watch_limits()?;
        self.close_when_due()?;
        if self.mode == Mode::Open {
            self.claim_for_hands()?;
            for pool in 0..self.pools.len() {
                self.take_back_outranked(pool)?;
                self.claim_for_pool(pool)?;
            }
        }
        self.compact()
    }

    fn command(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Enqueue { jobs, reply } => {
                let placed = self.enqueue(&jobs)?;
                self.answer(move |fate| reply.send(placed.and_then(|placed| fate.of(placed))));
            }
            Command::Settle(settle) => self.settle(settle)?,
            Command::Change { id, wish, reply } => {
                let answer = self.change(id, &wish)?;
                self.answer(move |fate| reply.send(fate.of(answer)));
            }
            Command::SetQueue {
                name,
                paused,
                concurrency,
                reply,
            } => {
                self.set_queue(&name, paused, concurrency)?;
                self.answer(move |fate| reply.send(fate.of(())));
            }
            Command::PurgeDead { queue, reply } => {
                let events = self.ledger.purge_dead(&queue, usize::MAX, self.now.wall_ms);
                let jobs = events
                    .iter()
                    .filter(|e| matches!(e, Event::Deleted { .. }))
                    .count() as u64;
                for event in events {
                    self.push(&event)?;
                }
                self.answer(move |fate| reply.send(fate.of(jobs)));
            }
            Command::Claim {
                kind,
                queue,
                until,
                reply,
            } => match self.mode {
                Mode::Open => self.hand_claims.push(HandClaim {
                    kind,
                    queue,
                    until,
                    reply,
                }),
                _ => reply.send(Err(Error::Draining)),
            },
            Command::Drain { reply } => {
                self.start_draining()?;
                self.waiters.drained.push(reply);
            }
            Command::Shutdown { until, reply } => {
                self.start_draining()?;
                self.running
                    .values()
                    .for_each(|run| run.live.ask(Asked::Shutdown, "shutdown", self.now.steady));
                self.mode = Mode::Closing { until };
                self.waiters.closed.push(reply);
            }
            Command::Wake => self.running.values().for_each(|run| run.live.nudge()),
            reading => self.look_up(reading),
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, f: impl FnOnce(&Fate<'_>) + Send + 'static) {
        self.pending.answers.push(Box::new(f));
    }

    /// Writes an event into the group and applies it.
    pub(super) fn push(&mut self, event: &Event<'_>) -> Result<()> {
        let id = what(event).map(|(id, _)| id);
        let files_before = self.files_of(event, id);
        let names_before =
            id.and_then(|id| Some(self.ledger.shared_names(self.ledger.record(id)?)));
        let place = self.draft.push(event)?;
        let stamp = Stamp {
            place,
            at_ms: self.now.wall_ms,
        };
        self.ledger
            .apply(event, stamp)
            .map_err(|Mismatch(reason)| Error::Bug(reason))?;
        for file in files_before {
            let still = id
                .and_then(|id| self.ledger.record(id))
                .is_some_and(|r| r.files().any(|f| f == file));
            if !still {
                self.pending.files.push(file);
            }
        }
        if let Some((id, what)) = what(event) {
            self.note(id, what, names_before);
        }
        Ok(())
    }

    /// Payload files that the jobs of an event have before it.
    fn files_of(&self, event: &Event<'_>, id: Option<JobId>) -> Vec<u128> {
        let of = |id: JobId| {
            self.ledger
                .record(id)
                .map(|r| r.files().collect::<Vec<_>>())
                .unwrap_or_default()
        };
        match event {
            Event::Pruned { ids } => ids
                .iter()
                .flat_map(|id| of(JobId::from_number(*id)))
                .collect(),
            Event::Enqueued(_) | Event::Claimed { .. } => Vec::new(),
            _ => id.map(of).unwrap_or_default(),
        }
    }

    fn note(
        &mut self,
        id: JobId,
        what: What,
        names_before: Option<(std::sync::Arc<str>, std::sync::Arc<str>)>,
    ) {
        if what.is_end() && self.waiters.jobs.contains_key(&id) {
            self.pending.ended.push(id);
        }
        if self.hub.is_heard() {
            let names =
                names_before.or_else(|| Some(self.ledger.shared_names(self.ledger.record(id)?)));
            if let Some((kind, queue)) = names {
                self.pending.changes.push((id, what, kind, queue));
            }
        }
    }

    fn enqueue(&mut self, jobs: &[NewJob]) -> Result<Result<Vec<Placed>>> {
        let refusal = if self.mode == Mode::Open {
            self.disk_refusal()
        } else {
            Some(Error::Draining)
        };
        let decided = match refusal {
            Some(error) => Err(error),
            None => self.ledger.enqueue(jobs, self.now.wall_ms),
        };
        match decided {
            Ok((placed, events)) => {
                for event in &events {
                    self.push(event)?;
                }
                let twice = jobs
                    .iter()
                    .zip(&placed)
                    .filter(|(_, placed)| !placed.is_new);
                self.pending
                    .files
                    .extend(twice.filter_map(|(job, _)| file_of(&job.payload)));
                Ok(Ok(placed))
            }
            Err(error) => {
                self.pending
                    .files
                    .extend(jobs.iter().filter_map(|job| file_of(&job.payload)));
                Ok(Err(error))
            }
        }
    }

    /// New jobs are refused below the floor; what exists can still be claimed, settled and cancelled.
    fn disk_refusal(&mut self) -> Option<Error> {
        let dir = self.disk.dir.as_ref()?;
        let floor = self.limits.disk_floor;
        let space = &mut self.free_space;
        let due = space
            .looked_at
            .is_none_or(|at| self.now.steady.saturating_sub(at) >= DISK_LOOK_EVERY)
            || space.written_since > floor / 8;
        if due {
            space.looked_at = Some(self.now.steady);
            space.written_since = 0;
            // A file system that cannot tell is taken to have room.
            space.free = crate::sys::files::free_bytes(dir).unwrap_or(u64::MAX);
        }
        (space.free < floor).then(|| Error::DiskFull {
            path: dir.clone(),
            free: space.free,
            floor,
        })
    }

    pub(super) fn settle(&mut self, settle: Settle) -> Result<()> {
        let Settle {
            id,
            claim,
            outcome,
            ran_us,
            reply,
        } = settle;
        let earlier = match outcome {
            Outcome::GivenBack { .. } | Outcome::Snoozed { .. } => None,
            _ => self.history(id)?,
        };
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&claim.to_le_bytes(), self.jitter_seed);
        let settling = Settling {
            id,
            claim,
            outcome: &outcome,
            earlier,
            ran_us,
            seed,
        };
        let (answer, event) = self.ledger.settle(settling, self.now.wall_ms);
        if let Some(event) = event {
            self.push(&event)?;
            self.let_go(id, claim);
        }
        if answer == SettleAnswer::LeaseLost {
            if !matches!(outcome, Outcome::GivenBack { .. }) {
                self.late_answers += 1;
                log::warn!(
                    "job {id}: the answer of claim {claim} came after its lease was lost; refused"
                );
            }
            if let Outcome::Completed(output) = &outcome {
                self.pending.files.extend(file_of(output));
            }
        }
        if let Some(reply) = reply {
            self.answer(move |fate| reply.send(fate.of(answer == SettleAnswer::Settled)));
        }
        Ok(())
    }

    /// The job is in nobody's hands any more.
    fn let_go(&mut self, id: JobId, claim: u64) {
        if self.running.get(&id).is_some_and(|run| run.claim == claim)
            && let Some(run) = self.running.remove(&id)
        {
            self.limited.remove(&id);
            self.pending.places.push(run.place);
            if let Some(pool) = run.pool.and_then(|pool| self.pools.get_mut(pool)) {
                pool.outstanding -= 1;
            }
        }
    }

    fn change(&mut self, id: JobId, wish: &ChangeKind) -> Result<ChangeAnswer> {
        // A job that no handler has begun is the writer's to take back.
        if !matches!(wish, ChangeKind::Complete { .. }) {
            self.take_back(id)?;
        }
        let earlier = self.history(id)?;
        let (answer, events) = self.ledger.change_job(id, wish, earlier, self.now.wall_ms);
        for event in &events {
            self.push(event)?;
        }
        match (answer, wish) {
            (ChangeAnswer::IsRunning, ChangeKind::Cancel { reason }) => {
                if let Some(run) = self.running.get(&id) {
                    run.live.ask(Asked::Cancelled, reason, self.now.steady);
                }
            }
            (ChangeAnswer::Done, ChangeKind::Complete { .. }) => {
                if let Some(run) = self.running.get(&id) {
                    run.live
                        .ask(Asked::LeaseLost, "completed from outside", self.now.steady);
                    let claim = run.claim;
                    self.let_go(id, claim);
                }
            }
            _ => {}
        }
        Ok(answer)
    }

    fn set_queue(
        &mut self,
        name: &str,
        paused: Option<bool>,
        concurrency: Option<Option<u32>>,
    ) -> Result<()> {
        let Some(event) = self.ledger.set_queue_control(name, paused, concurrency) else {
            return Ok(());
        };
        self.push(&event)?;
        if paused == Some(true) {
            self.take_back_all(Some(name))?;
        }
        Ok(())
    }

    fn start_draining(&mut self) -> Result<()> {
        if self.mode == Mode::Open {
            self.mode = Mode::Draining;
        }
        self.hand_claims
            .drain(..)
            .for_each(|claim| claim.reply.send(Ok(None)));
        self.take_back_all(None)
    }

    // --- taking back what was handed out and not begun ---

    /// True if the job was handed out, not begun, and is now ready again.
    fn take_back(&mut self, id: JobId) -> Result<bool> {
        let Some(run) = self.running.get(&id).filter(|run| run.live.take_back()) else {
            return Ok(false);
        };
        let outcome = Outcome::GivenBack { started: false };
        self.settle(Settle {
            id,
            claim: run.claim,
            outcome,
            ran_us: 0,
            reply: None,
        })?;
        Ok(true)
    }

    fn take_back_all(&mut self, queue: Option<&str>) -> Result<()> {
        let in_queue = |id: &JobId| {
            let record = self.ledger.record(*id);
            queue.is_none_or(|name| record.is_some_and(|r| self.ledger.queue_name(r.queue) == name))
        };
        let mut ids: Vec<JobId> = self.running.keys().copied().filter(in_queue).collect();
        ids.sort_unstable(); // the same order in every run
        for id in ids {
            self.take_back(id)?;
        }
        Ok(())
    }

    /// A job of higher priority must not wait behind lower ones that were claimed ahead.
    fn take_back_outranked(&mut self, pool: usize) -> Result<()> {
        let heads: Vec<_> = self.ledger.heads(pool).collect();
        for (queue, head) in heads {
            loop {
                let Some(link) = self.pools.get_mut(pool) else {
                    return Ok(());
                };
                while link
                    .handed
                    .back()
                    .is_some_and(|(.., live)| live.stage() != Stage::Waiting)
                {
                    link.handed.pop_back();
                }
                let outranked = link.handed.iter().rev().find(|(q, priority, live)| {
                    *q == queue && *priority < head.priority.0 && live.stage() == Stage::Waiting
                });
                let Some(id) = outranked.map(|(.., live)| live.id) else {
                    break;
                };
                if !self.take_back(id)? {
                    break; // it has just begun
                }
            }
        }
        Ok(())
    }

    // --- claiming ---

    fn claim_for_pool(&mut self, pool: usize) -> Result<()> {
        let Some(link) = self.pools.get_mut(pool) else {
            return Ok(());
        };
        let begun = link.outs.take_begun();
        // About as much ahead as the pool begins during one sync; at once down when jobs are long.
        link.ahead = (begun * 2).clamp(link.ahead / 2, link.ahead_max);
        if begun == 0 {
            link.ahead = 0;
        }
        let room = (link.slots + link.ahead).saturating_sub(link.outstanding);
        for _ in 0..room {
            let Pick::Job(key, queue) = self.ledger.pick(pool) else {
                break;
            };
            let live = self.claim(key.id, Some(pool))?;
            self.ledger.turn_taken(queue);
            if let Some(link) = self.pools.get_mut(pool) {
                link.outstanding += 1;
                while link
                    .handed
                    .front()
                    .is_some_and(|(.., live)| live.stage() != Stage::Waiting)
                {
                    link.handed.pop_front();
                }
                link.handed.push_back((queue, key.priority.0, live));
            }
            self.pending.claims.push((key.id, Target::Pool(pool)));
        }
        Ok(())
    }

    fn claim_for_hands(&mut self) -> Result<()> {
        for wanted in std::mem::take(&mut self.hand_claims) {
            match self.ledger.pick_kind(&wanted.queue, wanted.kind) {
                Pick::Job(key, queue) => {
                    let live = self.claim(key.id, None)?;
                    live.start(self.now.steady);
                    self.ledger.turn_taken(queue);
                    self.pending
                        .claims
                        .push((key.id, Target::Hand(wanted.reply)));
                }
                _ if wanted.until <= self.now.steady => {
                    self.answer(move |fate| wanted.reply.send(fate.of(None)));
                }
                _ => self.hand_claims.push(wanted),
            }
        }
        Ok(())
    }

    /// Claims a job that was picked. I6: the claim is in the journal before any handler sees it.
    fn claim(&mut self, id: JobId, pool: Option<usize>) -> Result<std::sync::Arc<Live>> {
        let bug = || Error::Bug(format!("job {id} was picked and cannot be claimed"));
        let (claim, event) = self.ledger.claim(id).ok_or_else(bug)?;
        self.push(&event)?;
        let policy = self.ledger.policy(self.ledger.record(id).ok_or_else(bug)?);
        let (time_limit_ms, stall_timeout_ms) = match pool {
            Some(_) => (policy.time_limit_ms, policy.stall_timeout_ms),
            None => (0, crate::job::millis(self.limits.lock_timeout)),
        };
        let live = std::sync::Arc::new(Live::new(id, time_limit_ms, stall_timeout_ms));
        if time_limit_ms > 0 || stall_timeout_ms > 0 {
            self.limited.insert(id);
        }
        let place = self.places.take();
        self.running.insert(
            id,
            Run {
                claim,
                pool,
                place,
                live: live.clone(),
            },
        );
        Ok(live)
    }

    // --- limits of running handlers ---

    /// When a running job's next limit is reached, in steady time.
    pub(super) fn next_limit(&self, id: JobId) -> Option<Duration> {
        let run = self.running.get(&id)?;
        let (started_ms, alive_ms) = run.live.times()?;
        let at = match run.live.asked() {
            Asked::TimeLimit | Asked::Stalled => run.live.asked_at()? + self.grace_ms(run),
            Asked::LeaseLost => return None,
            _ => {
                let limit = |since: u64, ms: u64| (ms > 0).then(|| since.saturating_add(ms));
                let over = limit(started_ms, run.live.time_limit_ms);
                let stalled = limit(alive_ms, run.live.stall_timeout_ms);
                over.into_iter().chain(stalled).min()?
            }
        };
        Some(Duration::from_millis(at))
    }

    fn grace_ms(&self, run: &Run) -> u64 {
        if run.pool.is_some() {
            crate::job::millis(self.limits.stop_grace)
        } else {
            0
        }
    }

    /// Asks handlers past a limit to stop, and takes the lease from those that do not.
    fn watch_limits(&mut self) -> Result<()> {
        let now = self.now.steady;
        let mut reached: Vec<JobId> = self
            .limited
            .iter()
            .copied()
            .filter(|id| self.next_limit(*id).is_some_and(|at| at <= now))
            .collect();
        reached.sort_unstable();
        for id in reached {
            let Some(run) = self.running.get(&id) else {
                continue;
            };
            let asked = run.live.asked();
            let was_asked = matches!(asked, Asked::TimeLimit | Asked::Stalled);
            let why = if was_asked {
                asked
            } else {
                reached_limit(&run.live, now)
            };
            if !was_asked {
                run.live.ask(why, limit_text(&run.live, why).as_str(), now);
            }
            // Asked before and out of grace, or there is no grace at all.
            if self.next_limit(id).is_some_and(|at| at <= now) {
                self.revoke(id, why)?;
            }
        }
        Ok(())
    }

    /// The lease goes stale: the attempt failed, the job goes on elsewhere, a late answer is refused.
    fn revoke(&mut self, id: JobId, why: Asked) -> Result<()> {
        let Some(run) = self.running.get(&id) else {
            return Ok(());
        };
        let (claim, live, pool) = (run.claim, run.live.clone(), run.pool);
        let error = limit_text(&live, why);
        log::warn!("job {id}: {error}; its lease is taken away");
        live.abandon();
        live.ask(Asked::LeaseLost, &error, self.now.steady);
        let outcome = Outcome::Failed {
            error,
            retry_after_ms: None,
        };
        self.settle(Settle {
            id,
            claim,
            outcome,
            ran_us: 0,
            reply: None,
        })?;
        if let Some(link) = pool.and_then(|pool| self.pools.get(pool))
            && !(link.replace_slot)()
        {
            log::error!(
                "a slot hangs in job {id} and cannot be replaced any more: the pool has lost it"
            );
        }
        Ok(())
    }

    /// At the end of the grace, what still runs is given back and the engine closes.
    fn close_when_due(&mut self) -> Result<()> {
        let Mode::Closing { until } = self.mode else {
            return Ok(());
        };
        if !self.running.is_empty() && self.now.steady < until {
            return Ok(());
        }
        let mut left: Vec<(JobId, u64)> = self
            .running
            .iter()
            .map(|(id, run)| (*id, run.claim))
            .collect();
        left.sort_unstable();
        for (id, claim) in left {
            if let Some(run) = self.running.get(&id) {
                run.live.ask(
                    Asked::LeaseLost,
                    "the engine was shut down",
                    self.now.steady,
                );
            }
            let outcome = Outcome::GivenBack { started: true };
            self.settle(Settle {
                id,
                claim,
                outcome,
                ran_us: 0,
                reply: None,
            })?;
            self.given_back += 1;
        }
        self.mode = Mode::Closed;
        Ok(())
    }

    // --- the disk ---

    /// Appends and syncs the group, if there is one.
    pub(super) fn commit(&mut self) -> Result<()> {
        let Some(journal) = &mut self.journal else {
            return Err(Error::Closed);
        };
        let _watched = self.watchdog.commit_begins(self.clock.now().steady);
        if self.draft.is_empty() {
            self.syncs += u64::from(journal::commit(
                journal.as_mut(),
                &[],
                &mut self.removals,
                self.geometry,
            )?);
            return Ok(());
        }
        // The newest group is always kept, so the tail never passes its first entry.
        let tail = self.ledger.cut(self.draft.first_position());
        let digest = self.ledger.digest();
        let group = self.chain.next_group;
        let sealed = self
            .draft
            .seal(&mut self.chain, self.now.wall_ms, tail, digest);
        for entry in &sealed {
            let bytes = u32::try_from(entry.bytes.len()).unwrap_or(u32::MAX);
            self.ledger.entry_written(entry.position, bytes);
            self.free_space.written_since += u64::from(bytes);
        }
        let syncs = journal::commit(journal.as_mut(), &sealed, &mut self.removals, self.geometry)?;
        self.syncs += u64::from(syncs);
        self.groups += 1;
        // Only now, that the group which moved the tail is synced, may the old entries go.
        self.removals.extend(self.tail..tail);
        self.tail = tail;
        if let (Some(witness), Some(last)) = (&mut self.disk.witness, sealed.last()) {
            let position = last.position;
            let mark = Mark {
                epoch: self.chain.epoch,
                group,
                position,
                hash: self.chain.last_hash,
                digest,
            };
            if let Err(error) = witness.record(&mark) {
                log::error!("{error}; going on without the witness");
                self.disk.witness = None;
            }
        }
        self.reader.remember(sealed);
        Ok(())
    }

    /// Nothing will be written any more. Everybody who waits is told.
    fn poison(&mut self, error: &Error, may_be_written: bool) -> Error {
        let cause = error.to_string();
        log::error!("the engine stops: {cause}");
        let fate = if may_be_written {
            Fate::Unknown(&cause)
        } else {
            Fate::Refused(&cause)
        };
        let pending = std::mem::take(&mut self.pending);
        pending.answers.into_iter().for_each(|answer| answer(&fate));
        let refused = || Error::Refused {
            cause: cause.clone(),
        };
        let waiters = std::mem::take(&mut self.waiters);
        waiters
            .jobs
            .into_values()
            .flatten()
            .for_each(|(_, reply)| reply.send(Err(refused())));
        waiters
            .idle
            .into_iter()
            .for_each(|(_, reply)| reply.send(Err(refused())));
        waiters
            .finished
            .into_iter()
            .for_each(|(_, reply)| reply.send(Err(refused())));
        waiters
            .drained
            .into_iter()
            .for_each(|reply| reply.send(Err(refused())));
        waiters
            .closed
            .into_iter()
            .for_each(|reply| reply.send(Err(refused())));
        self.hand_claims
            .drain(..)
            .for_each(|claim| claim.reply.send(Err(refused())));
        for run in self.running.values() {
            run.live.take_back();
            run.live.ask(Asked::LeaseLost, &cause, self.now.steady);
        }
        self.draft.discard();
        self.hub.close();
        self.pools.iter().for_each(|pool| pool.outs.close());
        self.poisoned = Some(cause.clone());
        Error::Unknown { cause }
    }

    /// A job's stored errors, reason and output.
    fn history(&mut self, id: JobId) -> Result<Option<History>> {
        match self
            .ledger
            .record(id)
            .and_then(crate::ledger::Record::history)
        {
            Some(place) => self.history_at(place),
            None => Ok(None),
        }
    }
}

fn reached_limit(live: &Live, now: Duration) -> Asked {
    let over = live.times().is_some_and(|(started_ms, _)| {
        live.time_limit_ms > 0
            && Duration::from_millis(started_ms.saturating_add(live.time_limit_ms)) <= now
    });
    if over {
        Asked::TimeLimit
    } else {
        Asked::Stalled
    }
}

fn limit_text(live: &Live, why: Asked) -> String {
    match why {
        Asked::TimeLimit => format!(
            "ran past its time limit of {:?}",
            Duration::from_millis(live.time_limit_ms)
        ),
        _ => format!(
            "gave no sign of life for {:?}",
            Duration::from_millis(live.stall_timeout_ms)
        ),
    }
}

fn file_of(content: &Content) -> Option<u128> {
    match content {
        Content::File(file) => Some(file.name),
        Content::Inline(_) => None,
    }
}

/// The part of an event that tells of errors and output.
pub(super) fn into_history(event: Event<'_>) -> Option<History> {
    match event {
        Event::Completed { history, .. }
        | Event::Cancelled { history, .. }
        | Event::Died { history, .. }
        | Event::Carried(_, _, history) => history,
        Event::Retried { history, .. } => Some(history),
        _ => None,
    }
}

pub(super) fn unreadable(position: u64, error: &journal::ReadError) -> Error {
    Error::Damaged {
        path: "journal".into(),
        what: format!("entry {position}"),
        reason: format!("{error:?}"),
    }
}

/// What an event means to people who watch.
fn what(event: &Event<'_>) -> Option<(JobId, What)> {
    Some(match event {
        Event::Enqueued(job) => (job.id, What::Enqueued),
        Event::Claimed { id, .. } => (*id, What::Claimed),
        Event::Released { id, .. } | Event::Recovered { id, .. } => (*id, What::Released),
        Event::Completed { id, .. } => (*id, What::Completed),
        Event::Retried { id, .. } => (*id, What::Retried),
        Event::Snoozed { id, .. } => (*id, What::Snoozed),
        Event::Cancelled { id, .. } => (*id, What::Cancelled),
        Event::Died { id, .. } => (*id, What::Died),
        Event::Requeued { id, .. } => (*id, What::Requeued),
        Event::Rescheduled { id, .. }
        | Event::Reprioritised { id, .. }
        | Event::Moved { id, .. } => (*id, What::Changed),
        Event::Deleted { id } => (*id, What::Deleted),
        _ => return None,
    })
}
