//! What follows once a group is synced: answers, hand-outs, news.

use std::collections::BTreeSet;

use super::command::{Command, Details, DetailsPage, Ending, FrameAt, Snapshot};
use super::core::{Core, Fate, Mode, Target};
use super::handout::{Bytes, HandOut};
use crate::error::{Error, Result};
use crate::fault::{self, Point};
use crate::job::{Encoding, Form, JobId};
use crate::journal::event_at;
use crate::ledger::{Event, Filter, Idle, Page, Payload, Place};

/// Jobs that one page of a listing looks at, matching or not.
const LOOKED_MAX: usize = 50_000;

impl Core {
    /// E2: nothing in here may be seen before the group was synced; nothing blocks on anybody.
    pub(super) fn effects(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        // Files and news first: whoever has an answer finds the world as it says. J10: the group that dropped
        // the files is synced, so no record that could come back names them.
        for file in self.holds.dropped(pending.files) {
            if let Err(error) = self.disk.payloads.remove(file) {
                log::warn!("{error}; the file is left over until the next opening");
            }
        }
        for (id, what, kind, queue) in pending.changes {
            self.hub.publish(id, what, kind, queue, self.now.wall_ms);
        }
        pending
            .answers
            .into_iter()
            .for_each(|answer| answer(&Fate::Synced));
        self.hand_out(pending.claims)?;
        for id in pending.ended {
            self.tell_waiters(id)?;
        }
        for command in pending.reads {
            self.read_frames(command)?;
        }
        // E6: the settles are synced, so the recorder may forget these claims.
        pending
            .places
            .into_iter()
            .for_each(|place| self.places.give_back(place));
        self.tell_state_waiters();
        fault::point(Point::Told);
        Ok(())
    }

    /// I6: only here, after the sync, do claims leave the writer.
    pub(super) fn hand_out(&mut self, claims: Vec<(JobId, Target)>) -> Result<()> {
        for (id, target) in claims {
            // Taken back in the same group.
            if !self.running.contains_key(&id) {
                if let Target::Hand(reply) = target {
                    reply.send(Ok(None));
                }
                continue;
            }
            let mut job = self.handout(id)?;
            match target {
                Target::Hand(reply) => {
                    job.arrived = false;
                    self.disk.recorder.begin(&job.spot());
                    reply.send(Ok(Some(job)));
                }
                Target::Pool(pool) => {
                    if let Some(link) = self.pools.get_mut(pool) {
                        link.next.push(job);
                    }
                }
            }
        }
        for link in self.pools.iter_mut().filter(|link| !link.next.is_empty()) {
            link.outs.fill(link.next.drain(..));
        }
        Ok(())
    }

    fn handout(&mut self, id: JobId) -> Result<HandOut> {
        let bug = || Error::Bug(format!("job {id} was claimed and is not running"));
        let run = self.running.get(&id).ok_or_else(bug)?;
        let (claim, place, live) = (run.claim, run.place, run.live.clone());
        let base = self.ledger.record(id).ok_or_else(bug)?.base;
        let entry = self.entry(base.position)?;
        let event = event_at(&entry, base.offset)
            .map_err(|e| super::step::unreadable(base.position, &e))?;
        let (Event::Enqueued(job) | Event::Carried(job, ..)) = event else {
            return Err(bug());
        };
        let payload = match job.payload {
            Payload::File(file) => Bytes::InFile(Box::new(file)),
            Payload::Inline(bytes) => Bytes::InEntry {
                entry: entry.clone(),
                range: range_in(&entry, bytes),
            },
            Payload::Gone => return Err(bug()),
        };
        let form = Form {
            version: job.version,
            encoding: job.encoding,
        };
        let record = self.ledger.record(id).ok_or_else(bug)?;
        let (kind, queue) = self.ledger.shared_names(record);
        Ok(HandOut {
            id,
            claim,
            kind,
            queue,
            form,
            attempt: record.attempt,
            failures: record.failures,
            attempts_max: self.ledger.policy(record).attempts_max,
            crashes: record.crashes,
            payload,
            expires_at_ms: record.expires_at_ms(),
            place,
            after: 0,
            epoch: self.chain.epoch,
            live,
            inbox: self.inbox.clone(),
            arrived: true,
            kept: None,
            settled: false,
        })
    }

    fn tell_waiters(&mut self, id: JobId) -> Result<()> {
        let Some(waiting) = self.waiters.jobs.remove(&id) else {
            return Ok(());
        };
        let ending = self.ending(id)?;
        if ending.state.is_some_and(|state| !state.is_finished()) {
            self.waiters.jobs.insert(id, waiting); // brought back to life in the same group
            return Ok(());
        }
        waiting
            .into_iter()
            .for_each(|reply| reply.send(Ok(ending.clone())));
        Ok(())
    }

    fn tell_state_waiters(&mut self) {
        if !self.waiters.idle.is_empty() {
            let waiting = std::mem::take(&mut self.waiters.idle);
            for (until, reply) in waiting {
                let retired = !self.claims && matches!(until, Idle::NothingToStart);
                if self.ledger.is_idle(&until) || (retired && self.running.is_empty()) {
                    reply.send(Ok(()));
                } else {
                    self.waiters.idle.push((until, reply));
                }
            }
        }
        if !self.waiters.finished.is_empty() {
            let c = self.ledger.counters();
            let finished = c.completed + c.cancelled + c.died;
            let waiting = std::mem::take(&mut self.waiters.finished);
            for (count, reply) in waiting {
                if finished >= count {
                    reply.send(Ok(()));
                } else {
                    self.waiters.finished.push((count, reply));
                }
            }
        }
        if self.running.is_empty() && self.mode != Mode::Open {
            self.waiters
                .drained
                .drain(..)
                .for_each(|reply| reply.send(Ok(())));
        }
    }

    /// How a job ended; its frames are read by whoever asked.
    fn ending(&mut self, id: JobId) -> Result<Ending> {
        let Some(record) = self.ledger.record(id) else {
            return Ok(Ending {
                state: None,
                dead_reason: None,
                encoding: Encoding::Rkyv,
                history: None,
            });
        };
        let state = record.state();
        let (encoding, place) = (record.encoding, record.history());
        let dead_reason = crate::ledger::Ledger::dead_reason(record);
        Ok(Ending {
            state: Some(state),
            dead_reason,
            encoding,
            history: self.frame(place)?,
        })
    }

    fn frame(&mut self, place: Option<Place>) -> Result<Option<FrameAt>> {
        let Some(place) = place else { return Ok(None) };
        Ok(Some(FrameAt {
            entry: self.entry(place.position)?,
            offset: place.offset,
        }))
    }

    /// Commands that only read. E2: their answers wait for the group too: what they saw of it must not be
    /// told before it is durable. Frames are read when the group is synced.
    pub(super) fn look_up(&mut self, command: Command) {
        match command {
            Command::Look { id, reply } => {
                let row = self
                    .ledger
                    .record(id)
                    .map(|record| self.ledger.row(id, record));
                self.answer(move |fate| reply.send(fate.of(row)));
            }
            Command::FindKey { kind, key, reply } => {
                let id = self.ledger.key_holder(&kind, &key);
                self.answer(move |fate| reply.send(fate.of(id)));
            }
            Command::List {
                filter,
                from,
                rows_max,
                reply,
            } => {
                let page = self.ledger.list(&filter, from, rows_max, LOOKED_MAX);
                self.answer(move |fate| reply.send(fate.of(page)));
            }
            Command::Snapshot { reply } => {
                let snapshot = self.snapshot();
                self.answer(move |fate| reply.send(fate.of(snapshot)));
            }
            Command::Running { reply } => {
                let mut ids: Vec<JobId> = self.running.keys().copied().collect();
                ids.sort_unstable();
                self.answer(move |fate| reply.send(fate.of(ids)));
            }
            Command::Watch { id, reply } => {
                let live = self.running.get(&id).map(|run| run.live.clone());
                self.answer(move |fate| reply.send(fate.of(live)));
            }
            Command::WaitIdle { until, reply } => self.waiters.idle.push((until, reply)),
            Command::WaitFinished { count, reply } => self.waiters.finished.push((count, reply)),
            Command::Details { .. }
            | Command::ListDetails { .. }
            | Command::Wait { .. }
            | Command::StopWaiting { .. }
            | Command::Hold { .. }
            | Command::ReadEntries { .. } => self.pending.reads.push(command),
            other => other.refuse(|| Error::Bug("a command was not understood".to_owned())),
        }
    }

    /// Reads that need frames, once everything is on disk.
    pub(super) fn read_frames(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Details { id, reply } => {
                let details = self.details(id)?;
                reply.send(Ok(details));
            }
            Command::ListDetails {
                filter,
                from,
                rows_max,
                reply,
            } => {
                let page = self.details_page(&filter, from, rows_max)?;
                reply.send(Ok(page));
            }
            Command::Wait { id, reply } => {
                let running = self
                    .ledger
                    .record(id)
                    .is_some_and(|r| !r.state().is_finished());
                if running {
                    if let Some(run) = self.running.get(&id) {
                        run.live.note_awaited();
                    }
                    self.waiters.jobs.entry(id).or_default().push(reply);
                } else {
                    reply.send(self.ending(id));
                }
            }
            Command::StopWaiting { token } => self.waiters.forget(token),
            Command::Hold { reply } => reply.send(self.hold()),
            Command::ReadEntries {
                positions,
                bytes_max,
                reply,
            } => reply.send(self.read_entries(positions, bytes_max)),
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn details(&mut self, id: JobId) -> Result<Option<Details>> {
        let Some(record) = self.ledger.record(id) else {
            return Ok(None);
        };
        let (base, history) = (record.base, record.history());
        let row = self.ledger.row(id, record);
        let base = FrameAt {
            entry: self.entry(base.position)?,
            offset: base.offset,
        };
        let history = self.frame(history)?;
        Ok(Some(Details { row, base, history }))
    }

    /// Neighbours in a list are mostly neighbours on disk, so entries are counted and not jobs.
    fn details_page(
        &mut self,
        filter: &Filter,
        from: JobId,
        rows_max: usize,
    ) -> Result<DetailsPage> {
        /// Entries that one page reads: some 2 MiB between two groups.
        const ENTRIES_MAX: usize = 32;
        let Page { rows, next } = self.ledger.list(filter, from, rows_max, LOOKED_MAX);
        let mut page = DetailsPage {
            jobs: Vec::new(),
            next,
        };
        let mut entries = BTreeSet::new();
        for id in rows.into_iter().map(|row| row.id) {
            if entries.len() >= ENTRIES_MAX {
                page.next = Some(id);
                break;
            }
            if let Some(record) = self.ledger.record(id) {
                entries.insert(record.base.position);
                entries.extend(record.history().map(|place| place.position));
            }
            page.jobs.extend(self.details(id)?);
        }
        Ok(page)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            counters: self.ledger.counters(),
            queues: self.ledger.queue_views(),
            running: self.ledger.running(),
            held_keys: self.ledger.held_keys(),
            late_answers: self.late_answers,
            journal_bytes: self.ledger.space().total_bytes(),
            live_bytes: self.ledger.space().live_bytes(),
            backlog_bytes: self.ledger.backlog_bytes(),
            bytes_on_disk: self
                .journal
                .as_ref()
                .map_or(0, |journal| journal.bytes_on_disk()),
            work: self.work,
            now_ms: self.now.wall_ms,
            clock_trusted: self.watch.until_trusted(self.now).is_zero(),
            held_for: self.ledger.held_for(),
        }
    }
}

/// Where `part` lies in `whole`. It was sliced out of it.
fn range_in(whole: &[u8], part: &[u8]) -> std::ops::Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + part.len()
}
