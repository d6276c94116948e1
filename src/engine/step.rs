//! One group: decide, append, sync. What follows from it is `effects`.
//!
//! A plain function over what `Core` owns; the writer thread only calls it. Whatever fails between the
//! first event and the end of the sync poisons the engine: nothing is tried twice.

use std::sync::Arc;

use super::clock_watch::ClockStep;
use super::command::Command;
use super::core::{Core, Fate, HandClaim, Mode, Target};
use super::events::What;
use super::live::Asked;
use crate::error::{Error, Result};
use crate::fault::{self, Bug, Point};
use crate::job::JobId;
use crate::journal::{self, Mark, Sealed, Witness};
use crate::ledger::{Event, Filter, History, Mismatch, Stamp};

/// Events that time alone may add to one group.
const TICK_EVENTS_MAX: usize = 1_024;
/// Finished jobs that one command deletes; the caller asks again.
pub(super) const PRUNE_MAX: usize = 4_096;

impl Core {
    /// Carries out one group of commands. An error says that the engine is poisoned from here on.
    pub(crate) fn step(&mut self, commands: Vec<Command>) -> Result<()> {
        let weight = commands
            .iter()
            .map(Command::weight)
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        self.work.commands += commands.len() as u64;
        let done = self.group(commands);
        self.inbox.gate().leave(weight.0, weight.1);
        done
    }

    fn group(&mut self, commands: Vec<Command>) -> Result<()> {
        if let Some(cause) = self.poisoned.clone() {
            for command in commands {
                // Nothing more is written, but the threads can end.
                if matches!(command, Command::Shutdown { .. }) {
                    self.mode = Mode::Closed;
                }
                command.refuse(|| Error::Refused {
                    cause: cause.clone(),
                });
            }
            return Ok(());
        }
        self.now = self.clock.now();
        self.draft.begin(&self.chain);
        if let Err(error) = self.decide(commands) {
            return Err(self.poison(&error, false));
        }
        if fault::bug(Bug::AnswerBeforeSync) {
            let answers = std::mem::take(&mut self.pending.answers);
            answers.into_iter().for_each(|answer| answer(&Fate::Synced));
        }
        if fault::bug(Bug::HandOutBeforeSync) {
            let (old, new) = std::mem::take(&mut self.pending.claims)
                .into_iter()
                .partition(|(id, _)| self.is_written(*id));
            self.pending.claims = new;
            self.hand_out(old)?;
        }
        if fault::bug(Bug::UnlinkBeforeSync) {
            for file in std::mem::take(&mut self.pending.files) {
                self.disk.payloads.remove(file)?;
            }
        }
        if let Err(error) = self.commit() {
            return Err(self.poison(&error, true));
        }
        // I1: answers are effects, so nobody has one before the sync.
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
        // Time first: what is over by now is over for the commands, too.
        let trusted = self.watch.until_trusted(self.now).is_zero();
        let now_ms = self.now.wall_ms;
        for event in self.ledger.tick(now_ms, trusted, TICK_EVENTS_MAX) {
            self.push(&event)?;
        }
        let mut commands = commands.into_iter();
        while let Some(command) = commands.next() {
            if let Err(error) = self.command(command) {
                let cause = error.to_string();
                commands.for_each(|command| {
                    command.refuse(|| Error::Refused {
                        cause: cause.clone(),
                    });
                });
                return Err(error);
            }
        }
        // Whoever waits for a job is told of its end, also if it is the oldest by a clock that was set back.
        let awaited = self.pending.ended.iter().copied().collect();
        for event in self
            .ledger
            .prune(now_ms, trusted, TICK_EVENTS_MAX, &awaited)
        {
            self.push(&event)?;
        }
        self.watch_limits()?;
        self.close_when_due()?;
        if self.mode == Mode::Open {
            self.claim_for_hands()?;
            let pools = if self.claims { self.pools.len() } else { 0 };
            for pool in 0..pools {
                self.take_back_outranked(pool)?;
                self.claim_for_pool(pool)?;
            }
        }
        self.forget_taken_back();
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
                self.answer(move |fate| reply.send(answer.and_then(|answer| fate.of(answer))));
            }
            Command::SetQueue {
                name,
                paused,
                concurrency,
                reply,
            } => {
                let done = self.set_queue(&name, paused, concurrency)?;
                self.answer(move |fate| reply.send(done.and_then(|()| fate.of(()))));
            }
            Command::Prune {
                filter,
                older_ms,
                reply,
            } => {
                let jobs = self.prune_asked(&filter, older_ms)?;
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
            Command::StopClaiming { reply } => {
                self.claims = false;
                self.take_back_all(None)?;
                self.answer(move |fate| reply.send(fate.of(())));
            }
            Command::Drain { reply } => {
                self.start_draining()?;
                self.waiters.drained.push(reply);
            }
            Command::Shutdown { until, reply } => {
                self.start_draining()?;
                self.running
                    .values()
                    .for_each(|run| run.live.ask(Asked::Shutdown, "shutdown", self.now.awake));
                self.mode = Mode::Closing { until };
                self.waiters.closed.push(reply);
            }
            Command::LimitsBegin => {}
            Command::LetGo { hold } => self.let_go_of(hold),
            Command::Wake => self.running.values().for_each(|run| run.live.nudge()),
            reading => self.look_up(reading),
        }
        Ok(())
    }

    /// Deletes finished jobs because somebody asked, some at a time; how many.
    fn prune_asked(&mut self, filter: &Filter, older_ms: u64) -> Result<u64> {
        let until_ms = self.now.wall_ms.saturating_sub_unsigned(older_ms);
        let mut jobs = 0;
        for event in self.ledger.prune_asked(filter, until_ms, PRUNE_MAX) {
            self.push(&event)?;
            jobs += u64::from(matches!(event, Event::Deleted { .. }));
        }
        Ok(jobs)
    }

    pub(super) fn answer(&mut self, f: impl FnOnce(&Fate<'_>) + Send + 'static) {
        self.pending.answers.push(Box::new(f));
    }

    /// Writes an event into the group and applies it.
    pub(super) fn push(&mut self, event: &Event<'_>) -> Result<()> {
        let told = what(event);
        let id = told.as_ref().map(|(id, _)| *id);
        let files_before = self.files_of(event, id);
        let heard = id.filter(|_| self.hub.is_heard());
        let names_before = heard.and_then(|id| self.names_of(id));
        let place = self.draft.push(event)?;
        let stamp = Stamp {
            place,
            at_ms: self.now.wall_ms,
            epoch: self.chain.epoch,
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
        if let Some((id, what)) = told {
            if what.is_end() && self.waiters.jobs.contains_key(&id) {
                self.pending.ended.push(id);
            }
            if heard.is_some()
                && let Some((kind, queue)) = names_before.or_else(|| self.names_of(id))
            {
                self.pending.changes.push((id, what, kind, queue));
            }
        }
        Ok(())
    }

    /// Whether the job was there before this group.
    fn is_written(&self, id: JobId) -> bool {
        let record = self.ledger.record(id);
        record.is_some_and(|r| r.base.position < self.draft.first_position())
    }

    /// Kind and queue of a job that is there.
    fn names_of(&self, id: JobId) -> Option<(Arc<str>, Arc<str>)> {
        Some(self.ledger.shared_names(self.ledger.record(id)?))
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

    /// Appends and syncs the group, if there is one.
    pub(super) fn commit(&mut self) -> Result<()> {
        let _watched = self.watchdog.commit_begins(self.clock.now().awake);
        if self.draft.is_empty() {
            let journal = self.journal.as_mut().ok_or(Error::Closed)?;
            self.work.syncs += u64::from(journal::commit(
                journal.as_mut(),
                &[],
                &mut self.removals,
                self.geometry,
            )?);
            return Ok(());
        }
        fault::point(Point::Decided);
        // J4: the newest group is always kept, so the tail never passes its first entry.
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
            self.work.entries += 1;
            self.work.entry_bytes += u64::from(bytes);
        }
        if fault::bug(Bug::RemovalBeforeSync) {
            self.holds
                .made_obsolete(self.tail..tail, &mut self.removals);
            self.tail = tail;
        }
        if fault::bug(Bug::WitnessAhead) {
            self.witness(group, &sealed, digest);
        }
        let journal = self.journal.as_mut().ok_or(Error::Closed)?;
        let syncs = journal::commit(journal.as_mut(), &sealed, &mut self.removals, self.geometry)?;
        fault::point(Point::Synced);
        self.work.syncs += u64::from(syncs);
        self.work.groups += 1;
        // J3: only now, that the group which moved the tail is synced, may the old entries go.
        self.holds
            .made_obsolete(self.tail..tail, &mut self.removals);
        self.tail = tail;
        if !fault::bug(Bug::WitnessAhead) {
            self.witness(group, &sealed, digest);
        }
        fault::point(Point::Witnessed);
        self.reader.remember(sealed);
        Ok(())
    }

    /// J7: tells the witness of a group that is synced, before anybody is answered.
    fn witness(&mut self, group: u64, sealed: &[Sealed], digest: u128) {
        let (Some(witness), Some(last)) = (&mut self.disk.witness, sealed.last()) else {
            return;
        };
        let mark = Mark {
            epoch: self.chain.epoch,
            group,
            position: last.position,
            hash: self.chain.last_hash,
            digest,
            journal_bytes: self.ledger.space().total_bytes(),
        };
        if let Err(error) = witness.record(&mark, self.geometry.large_from()) {
            log::error!("{error}; going on without the witness");
            self.disk
                .witness
                .take()
                .into_iter()
                .for_each(Witness::give_up);
        }
    }

    /// J6: nothing will be written any more. Everybody who waits is told whether it may have been.
    fn poison(&mut self, error: &Error, may_be_written: bool) -> Error {
        let cause = error.to_string();
        log::error!("the engine stops: {cause}");
        self.inbox.gate().give_up(&cause);
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
        pending
            .reads
            .into_iter()
            .for_each(|read| read.refuse(refused));
        for (_, target) in pending.claims {
            if let Target::Hand(reply) = target {
                reply.send(Err(refused()));
            }
        }
        std::mem::take(&mut self.waiters).refuse(refused);
        self.hand_claims
            .drain(..)
            .for_each(|claim| claim.reply.send(Err(refused())));
        for run in self.running.values() {
            run.live.take_back();
            run.live.ask(Asked::LeaseLost, &cause, self.now.awake);
        }
        self.draft.discard();
        self.hub.close();
        self.pools.iter().for_each(|pool| pool.outs.close());
        self.poisoned = Some(cause.clone());
        // Whoever shut the engine down was told just now, and waits for the writer to end.
        if matches!(self.mode, Mode::Closing { .. }) {
            self.mode = Mode::Closed;
        }
        Error::Unknown { cause }
    }
}

/// The part of an event that tells of errors and output.
pub(crate) fn into_history(event: Event<'_>) -> Option<History> {
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
