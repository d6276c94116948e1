//! A whole engine without a thread, on a disk and a clock that do as they are told.
//!
//! The real step, ledger, journal, recovery, witness and flight recorder. What is simulated: the disk under the
//! journal, time, randomness, the machine's boot, and the slots: whoever drives the machine is the worker.
//! Witness and recorder are real files in a directory of the caller's (in memory, if it is to be quick), and a
//! power cut takes from them what it may.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::disk::{Damage, Fate, SimDisk, Trouble};
use crate::clock::{Clock, ManualClock};
use crate::engine::{
    Asked, Command, Core, Disk, HandOut, HandOuts, Inbox, Limits, Live, Parts, PoolLink, Recorder,
    Reply, Settle, Watchdog, drain, first_group, read_back, read_history, recover,
};
use crate::error::{Error, Result};
use crate::job::{
    Backoff, Content, DeadReason, Encoding, Expiry, JobId, NewJob, OnCrash, Policy, Priority,
    State, Wait,
};
use crate::journal::{self, Geometry, Payloads, Store, StoreHeader, event_at};
use crate::ledger::{ChangeAnswer, ChangeKind, Event, Filter, Outcome, Payload, Row, Setup};
use crate::sys;

/// How a machine is set up.
#[derive(Clone, Debug)]
pub struct Setting {
    /// All that is random follows from it.
    pub seed: u64,
    /// Where witness and recorder lie; it is there, and empty.
    pub dir: PathBuf,
    /// Entry cap and budget in use, or small ones: then a group soon has many parts and syncs.
    pub small_entries: bool,
    /// Slots of the one pool.
    pub slots: usize,
    /// Most jobs claimed ahead.
    pub ahead: usize,
    /// Kinds that have a handler.
    pub handled: Vec<String>,
    /// Finished jobs kept in a queue.
    pub keep_finished: usize,
    /// Dead jobs kept in a queue.
    pub keep_dead: usize,
    /// How long a key stays taken at least.
    pub key_ttl_ms: i64,
    /// Dead bytes that the journal tolerates.
    pub slack_bytes: u64,
}

/// When a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// At this wall-clock time.
    Until(i64),
    /// After so many milliseconds.
    For(u64),
}

/// A job that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the public API")]
pub struct Wish {
    pub kind: String,
    pub queue: String,
    pub priority: i32,
    pub when: When,
    pub expires_at_ms: Option<i64>,
    pub key: Option<String>,
    pub attempts_max: u16,
    pub backoff_ms: u64,
    pub time_limit_ms: u64,
    pub stall_timeout_ms: u64,
    /// It must not run twice.
    pub once: bool,
    /// Crashes after which it is quarantined; 0: never.
    pub quarantine_after: u8,
    pub payload: Vec<u8>,
    /// The payload has a file of its own.
    pub in_file: bool,
}

/// What can be asked of an engine.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in the public API")]
pub enum Call {
    Enqueue(Vec<Wish>),
    Cancel(u64),
    Delete(u64),
    Retry(u64),
    Reschedule(u64, When),
    SetPriority(u64, i32),
    MoveTo(u64, String),
    Complete(u64, Vec<u8>),
    Pause(String, bool),
    Cap(String, Option<u32>),
    Prune {
        state: Option<State>,
        older_ms: u64,
    },
    Look(u64),
    Details(u64),
    FindKey(String, String),
    Claim {
        kind: &'static str,
        queue: String,
        wait_ms: u64,
    },
    /// Holds the moment until [`Machine::let_go`].
    Hold,
    Shutdown {
        grace_ms: u64,
    },
}

/// What the engine says.
#[derive(Debug)]
#[allow(missing_docs, reason = "as in the public API")]
pub enum Answer {
    /// Ids, and whether each is a new job.
    Placed(Vec<(u64, bool)>),
    Done,
    NoSuchJob,
    IsRunning,
    IsFinished(State),
    PayloadGone,
    Row(Option<Seen>),
    Details(Option<Told>),
    Key(Option<u64>),
    Claimed(Option<Held>),
    Pruned(u64),
    /// Whether the lease still held.
    Settled(bool),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing was written.
    Refused,
    /// Perhaps it was.
    Unknown,
    /// Another error.
    Other(String),
}

/// A job as a list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the public API")]
pub struct Seen {
    pub id: u64,
    pub kind: String,
    pub queue: String,
    pub state: State,
    pub priority: i32,
    pub due_ms: i64,
    pub attempt: u32,
    pub failures: u16,
    pub crashes: u8,
    pub key: Option<String>,
    pub claim: Option<u64>,
    pub dead_reason: Option<DeadReason>,
    pub expires_at_ms: Option<i64>,
}

/// What a job's frames say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the public API")]
pub struct Told {
    pub row: Seen,
    /// Attempt and text.
    pub errors: Vec<(u32, String)>,
    pub reason: String,
    pub output: Option<Vec<u8>>,
    /// `None`: the payload is gone.
    pub payload: Option<Vec<u8>>,
}

/// How an attempt ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the public API")]
pub enum End {
    Completed(Vec<u8>),
    Failed {
        error: String,
        retry_after_ms: Option<u64>,
    },
    Snoozed(u64),
    Discarded(String),
    Cancelled(String),
    GivenBack,
}

/// A claimed job in a worker's hands.
#[derive(Debug)]
pub struct Held {
    job: HandOut,
    recorder: Arc<Recorder>,
    payloads: Arc<Payloads>,
}

impl Held {
    /// The job.
    pub fn id(&self) -> u64 {
        self.job.id.number()
    }

    /// Its claim number.
    pub fn claim(&self) -> u64 {
        self.job.claim
    }

    /// Number of the attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.job.attempt
    }

    /// Its payload, as stored.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn payload(&self) -> Result<Vec<u8>> {
        self.job.with_payload(&self.payloads, <[u8]>::to_vec)
    }

    /// Whether the handler is asked to stop; the lease may be lost.
    pub fn is_asked_to_stop(&self) -> bool {
        self.job.live.asked() != Asked::No
    }

    /// Whether somebody asked for its cancellation.
    pub fn is_cancelled(&self) -> bool {
        self.job.live.asked() == Asked::Cancelled
    }

    /// Its thread hangs for ever, or is gone with its process: nothing more is heard of it.
    pub fn forget(self) {
        std::mem::forget(self.job);
    }
}

/// How a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process: the system keeps what it was given.
    Process,
    /// The machine: what was not synced is gone, or not.
    Power,
}

/// Bytes of a slot of the witness, and where the two are (docs/format.md).
const SLOT: usize = 112;
const SLOTS_AT: [u64; 2] = [0, 4096];

type Poll = Box<dyn FnMut() -> Option<Result<Answer, Refusal>>>;

/// See the module.
pub struct Machine {
    setting: Setting,
    header: StoreHeader,
    disk: SimDisk,
    payloads: Arc<Payloads>,
    clock: ManualClock,
    /// Booted so often.
    boots: u64,
    on: Option<On>,
    /// What the witness's two slots held after each step since it was opened.
    witnessed: Vec<[[u8; SLOT]; 2]>,
}

/// A machine that is on.
struct On {
    core: Core,
    inbox: Inbox,
    commands: Receiver<Command>,
    outs: Arc<HandOuts>,
    recorder: Arc<Recorder>,
    witness: Option<std::fs::File>,
    asked: Vec<(u64, Poll)>,
    next_ticket: u64,
    moments: Vec<crate::engine::Moment>,
    held: Vec<Receiver<Result<crate::engine::Moment>>>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("setting", &self.setting)
            .field("is_on", &self.on.is_some())
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine with a new store, switched off. The thread's randomness follows from the seed.
    ///
    /// # Errors
    ///
    /// None is expected.
    pub fn new(setting: Setting) -> Result<Machine> {
        sys::scripted::seed_randomness(setting.seed);
        let geometry = if setting.small_entries {
            Geometry {
                segment_bytes: 512 << 10,
                entry_cap: 7 << 10,
                sync_budget: 64 << 10,
            }
        } else {
            Geometry::DEFAULT
        };
        let header = StoreHeader {
            store: sys::random_u128(),
            geometry,
        };
        let clock = ManualClock::at(1_700_000_000_000);
        let disk = SimDisk::default();
        let group = first_group(&mut header.first_chain(), geometry, clock.now().wall_ms)?;
        journal::commit(disk.journal().as_mut(), &group, &mut [].into(), geometry)?;
        Ok(Machine {
            setting,
            header,
            disk,
            payloads: Arc::new(Payloads::in_memory()),
            clock,
            boots: 1,
            on: None,
            witnessed: Vec::new(),
        })
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// As an opening has them.
    pub fn open(&mut self) -> Result<()> {
        sys::scripted::set_boot(u128::from(self.boots));
        let setting = &self.setting;
        let store = Store::at(&setting.dir);
        let setup = Setup {
            handled: setting.handled.iter().cloned().collect(),
            any_queue: crate::ledger::QueueSetup {
                keep_finished: setting.keep_finished,
                ..crate::ledger::QueueSetup::default()
            },
            keep_dead: setting.keep_dead,
            key_ttl_ms: setting.key_ttl_ms,
            slack_bytes: setting.slack_bytes,
            ..Setup::default()
        };
        let mut journal = self.disk.journal();
        let now_ms = self.clock.now().wall_ms;
        let dir = Some(setting.dir.as_path());
        let replayed = read_back(journal.as_mut(), self.header.store, dir, setup, now_ms)?;
        let recorder = Arc::new(Recorder::open(&store.recorder(), self.header.store)?);
        let (inbox, commands) = Inbox::new(usize::MAX, usize::MAX);
        let outs = Arc::new(HandOuts::default());
        let replace = |live: &Live| {
            live.abandon();
            true
        };
        let core = recover(Parts {
            clock: Arc::new(self.clock.clone()),
            journal,
            replayed,
            geometry: self.header.geometry,
            disk: Disk {
                dir: None,
                witness: None,
                payloads: self.payloads.clone(),
                recorder: recorder.clone(),
                lock: None,
            },
            limits: Limits {
                stop_grace: Duration::from_secs(5),
                lock_timeout: Duration::from_mins(10),
                disk_floor: 0,
            },
            pools: vec![PoolLink::new(
                outs.clone(),
                setting.slots,
                setting.ahead,
                Box::new(replace),
            )],
            inbox: inbox.clone(),
            hub: Arc::default(),
            watchdog: Watchdog::new(Duration::from_mins(1)),
        })?;
        self.on = Some(On {
            core,
            inbox,
            commands,
            outs,
            recorder,
            witness: std::fs::File::open(store.witness()).ok(),
            asked: Vec::new(),
            next_ticket: 1,
            moments: Vec::new(),
            held: Vec::new(),
        });
        self.witnessed.clear();
        self.look_at_witness();
        Ok(())
    }

    /// Whether the store is open.
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Sends a call; its answer comes with a later step, by this number.
    pub fn send(&mut self, call: Call) -> Option<u64> {
        let payloads = self.payloads.clone();
        let now = self.clock.now();
        let on = self.on.as_mut()?;
        let (command, poll) = match call {
            Call::Hold => {
                let (reply, answer) = Reply::new();
                on.held.push(answer);
                on.inbox.send_unbounded(Command::Hold { reply });
                return None;
            }
            call => to_command(call, now.awake, &payloads, &on.recorder),
        };
        on.inbox.send_unbounded(command);
        Some(on.wait_for(poll))
    }

    /// Lets all held moments go.
    pub fn let_go(&mut self) {
        if let Some(on) = &mut self.on {
            on.moments.clear();
        }
    }

    /// Carries out one group of what was sent. False: the engine says that it has failed for good.
    pub fn step(&mut self) -> bool {
        let Some(on) = &mut self.on else { return false };
        let group = drain(None, || on.commands.try_recv().ok());
        let well = on.core.step(group).is_ok();
        let moments = on.held.extract_if(.., |answer| !answer.is_empty());
        on.moments
            .extend(moments.filter_map(|answer| answer.recv().ok()?.ok()));
        self.look_at_witness();
        well
    }

    /// The answers that have come.
    pub fn answers(&mut self) -> Vec<(u64, Result<Answer, Refusal>)> {
        let Some(on) = &mut self.on else {
            return Vec::new();
        };
        let mut come = Vec::new();
        on.asked.retain_mut(|(ticket, poll)| match poll() {
            Some(answer) => {
                come.push((*ticket, answer));
                false
            }
            None => true,
        });
        come
    }

    /// A free slot takes the next job, notes that it begins, and begins.
    pub fn take(&mut self) -> Option<Held> {
        let now = self.clock.now();
        let on = self.on.as_mut()?;
        let job = on.outs.try_next()?;
        // As a slot does it: too late by now, or taken back.
        if job.expires_at_ms.is_some_and(|at| at <= now.wall_ms) || !job.live.start(now.awake) {
            return None;
        }
        on.outs.note_begun();
        if job.live.time_limit_ms > 0 || job.live.stall_timeout_ms > 0 {
            on.inbox.send_unbounded(Command::LimitsBegin);
        }
        if !on
            .recorder
            .begin(job.epoch, job.place, job.id.number(), job.claim)
        {
            return None;
        }
        Some(Held {
            job,
            recorder: on.recorder.clone(),
            payloads: self.payloads.clone(),
        })
    }

    /// The handler returns: its end is noted, and told.
    pub fn settle(&mut self, held: Held, end: End) -> Option<u64> {
        let Held { job, recorder, .. } = held;
        recorder.end(job.epoch, job.place, job.id.number(), job.claim);
        let (reply, answer) = Reply::new();
        job.settle_and_ask(outcome(end), 1, reply);
        Some(self.on.as_mut()?.wait_for(settled(answer)))
    }

    /// Somebody says how a claim ended that he has no more, or never had.
    pub fn claim_to_settle(&mut self, id: u64, claim: u64, end: End) -> Option<u64> {
        let on = self.on.as_mut()?;
        let (reply, answer) = Reply::new();
        on.inbox.send_unbounded(Command::Settle(Settle {
            id: JobId::from_number(id),
            claim,
            outcome: outcome(end),
            kept: None,
            ran_us: 1,
            reply: Some(reply),
        }));
        Some(on.wait_for(settled(answer)))
    }

    /// A handler gives a sign of life.
    pub fn sign_of_life(&self, held: &Held) {
        held.job.live.sign_of_life(self.clock.now().awake);
    }

    /// The process or the machine ends; unsynced writes are left as `fate` says, and `pick` (below its argument)
    /// chooses among what may be left of witness and recorder.
    pub fn end(
        &mut self,
        loss: Loss,
        fate: impl FnMut() -> Fate,
        mut pick: impl FnMut(u64) -> u64,
    ) -> Result<()> {
        self.on = None;
        self.disk.crash(loss == Loss::Power, fate);
        if loss == Loss::Power {
            self.boots += 1;
            self.lose_files(&mut pick)?;
        }
        Ok(())
    }

    /// The engine is closed and its files with it; false if it is not closed yet.
    pub fn close(&mut self) -> bool {
        let closed = self.on.as_ref().is_some_and(|on| on.core.is_closed());
        if closed {
            self.on = None;
        }
        closed
    }

    /// Time goes on.
    pub fn advance(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    /// The machine sleeps.
    pub fn suspend(&self, ms: u64) {
        self.clock.suspend(Duration::from_millis(ms));
    }

    /// Somebody sets the wall clock.
    pub fn step_wall(&self, by_ms: i64) {
        self.clock.step_wall(by_ms);
    }

    /// The wall clock.
    pub fn now_ms(&self) -> i64 {
        self.clock.now().wall_ms
    }

    /// How long the writer would sleep if nobody called; `None`: for ever. In milliseconds, rounded up.
    pub fn sleeps_ms(&self) -> Option<u64> {
        let on = self.on.as_ref()?;
        if on.core.wants_idle_step() {
            return Some(0);
        }
        let most = on.core.sleep_at_most()?;
        Some(crate::job::millis(most) + u64::from(most.subsec_nanos() % 1_000_000 != 0))
    }

    /// All jobs, without asking the engine for an answer.
    pub fn rows(&self) -> Vec<Seen> {
        let Some(on) = &self.on else {
            return Vec::new();
        };
        let from = JobId::from_number(0);
        let page = on
            .core
            .ledger()
            .list(&Filter::default(), from, usize::MAX, usize::MAX);
        page.rows.into_iter().map(Seen::from).collect()
    }

    /// What a job's frames say, without asking the engine for an answer.
    pub fn details(&mut self, id: u64) -> Option<Told> {
        let payloads = self.payloads.clone();
        let core = &mut self.on.as_mut()?.core;
        let details = core.details(JobId::from_number(id)).ok()??;
        Some(told(details, &payloads))
    }

    /// From the next opening on, these kinds have a handler.
    pub fn handle(&mut self, kinds: Vec<String>) {
        self.setting.handled = kinds;
    }

    /// What goes wrong with the `n`th operation of the disk from now.
    pub fn plan_trouble(&self, n: u64, trouble: Trouble) {
        self.disk.plan(n, trouble);
    }

    /// Nothing more goes wrong.
    pub fn heal(&self) {
        self.disk.heal();
    }

    /// Whether a planned end has come.
    pub fn has_ended(&self) -> bool {
        self.disk.is_dead()
    }

    /// Operations of the disk so far.
    pub fn operations(&self) -> u64 {
        self.disk.operations()
    }

    /// Positions of all entries on the disk, rising.
    pub fn positions(&self) -> Vec<u64> {
        self.disk.positions()
    }

    /// Flips a bit of an entry of a closed store, or loses the entry.
    pub fn damage(&self, position: u64, bit: Option<usize>) -> Option<Damage> {
        self.disk.damage(position, bit)
    }

    /// Takes damage back.
    pub fn undo(&self, damage: Damage) {
        self.disk.undo(damage);
    }

    /// The digest of all that must survive, as it stands.
    pub fn digest(&self) -> u128 {
        self.on.as_ref().map_or(0, |on| on.core.ledger().digest())
    }

    fn look_at_witness(&mut self) {
        let Some(file) = self.on.as_ref().and_then(|on| on.witness.as_ref()) else {
            return;
        };
        let mut slots = [[0; SLOT]; 2];
        for (slot, at) in slots.iter_mut().zip(SLOTS_AT) {
            // A slot that cannot be read holds nothing.
            let _ = sys::files::read_at(file, at, slot);
        }
        if self.witnessed.last() != Some(&slots) {
            self.witnessed.push(slots);
        }
    }

    /// A power cut leaves each slot of the witness as it was at some time since it was opened and synced, and of
    /// the recorder nothing or something; whatever that says is of another boot.
    fn lose_files(&mut self, pick: &mut dyn FnMut(u64) -> u64) -> Result<()> {
        let store = Store::at(&self.setting.dir);
        let (path, versions) = (store.witness(), self.witnessed.len() as u64);
        if versions > 0 {
            let file = std::fs::File::options().write(true).open(&path);
            let file = file.map_err(Error::io("open", path.as_path()))?;
            for (slot, at) in SLOTS_AT.into_iter().enumerate() {
                let version = usize::try_from(pick(versions)).unwrap_or(0);
                let bytes = self
                    .witnessed
                    .get(version)
                    .and_then(|slots| slots.get(slot));
                let bytes = bytes.map_or(&[][..], |bytes| &bytes[..]);
                sys::files::write_at(&file, at, bytes)
                    .map_err(Error::io("write", path.as_path()))?;
            }
        }
        if pick(2) == 0 {
            let path = store.recorder();
            std::fs::write(&path, []).map_err(Error::io("write", path))?;
        }
        Ok(())
    }
}

impl On {
    fn wait_for(&mut self, poll: Poll) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.asked.push((ticket, poll));
        ticket
    }
}

fn outcome(end: End) -> Outcome {
    match end {
        End::Completed(output) => Outcome::Completed(Content::Inline(output)),
        End::Failed {
            error,
            retry_after_ms,
        } => Outcome::Failed {
            error,
            retry_after_ms,
        },
        End::Snoozed(for_ms) => Outcome::Snoozed { for_ms },
        End::Discarded(why) => Outcome::Discarded(why),
        End::Cancelled(why) => Outcome::Cancelled(why),
        End::GivenBack => Outcome::GivenBack { started: true },
    }
}

fn polled<T: 'static>(
    answer: Receiver<Result<T>>,
    mut read: impl FnMut(T) -> Answer + 'static,
) -> Poll {
    Box::new(move || {
        let answer = answer.try_recv().ok()?;
        Some(answer.map(&mut read).map_err(Refusal::from))
    })
}

fn settled(answer: Receiver<Result<bool>>) -> Poll {
    polled(answer, Answer::Settled)
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        match error {
            Error::Refused { .. } => Refusal::Refused,
            Error::Unknown { .. } => Refusal::Unknown,
            other => Refusal::Other(other.to_string()),
        }
    }
}

impl From<ChangeAnswer> for Answer {
    fn from(answer: ChangeAnswer) -> Answer {
        match answer {
            ChangeAnswer::Done => Answer::Done,
            ChangeAnswer::Unknown => Answer::NoSuchJob,
            ChangeAnswer::IsRunning => Answer::IsRunning,
            ChangeAnswer::AlreadyFinished(state) => Answer::IsFinished(state),
            ChangeAnswer::PayloadGone => Answer::PayloadGone,
        }
    }
}

impl From<Row> for Seen {
    fn from(row: Row) -> Seen {
        Seen {
            id: row.id.number(),
            kind: row.kind,
            queue: row.queue,
            state: row.state,
            priority: row.priority.0,
            due_ms: row.due_ms,
            attempt: row.attempt,
            failures: row.failures,
            crashes: row.crashes,
            key: row.key,
            claim: row.claim.map(crate::job::ClaimNumber::number),
            dead_reason: row.dead_reason,
            expires_at_ms: row.expires_at_ms,
        }
    }
}

fn to_command(
    call: Call,
    awake: Duration,
    payloads: &Arc<Payloads>,
    recorder: &Arc<Recorder>,
) -> (Command, Poll) {
    match call {
        Call::Enqueue(wishes) => {
            let (reply, answer) = Reply::new();
            let jobs = wishes
                .into_iter()
                .map(|wish| new_job(wish, payloads))
                .collect();
            let read = |placed: Vec<crate::ledger::Placed>| {
                let of = |p: crate::ledger::Placed| (p.id.number(), p.is_new);
                Answer::Placed(placed.into_iter().map(of).collect())
            };
            (Command::Enqueue { jobs, reply }, polled(answer, read))
        }
        Call::Cancel(id) => change(
            id,
            ChangeKind::Cancel {
                reason: "cancelled".to_owned(),
            },
        ),
        Call::Delete(id) => change(id, ChangeKind::Delete),
        Call::Retry(id) => change(id, ChangeKind::Retry),
        Call::Reschedule(id, when) => change(id, ChangeKind::Reschedule(wait(when))),
        Call::SetPriority(id, priority) => change(id, ChangeKind::SetPriority(Priority(priority))),
        Call::MoveTo(id, queue) => change(id, ChangeKind::MoveTo { queue }),
        Call::Complete(id, output) => change(
            id,
            ChangeKind::Complete {
                output: Content::Inline(output),
            },
        ),
        Call::Pause(name, paused) => set_queue(name, Some(paused), None),
        Call::Cap(name, cap) => set_queue(name, None, Some(cap)),
        Call::Prune { state, older_ms } => {
            let (reply, answer) = Reply::new();
            let filter = Filter {
                state,
                ..Filter::default()
            };
            let command = Command::Prune {
                filter,
                older_ms,
                reply,
            };
            (command, polled(answer, Answer::Pruned))
        }
        Call::Look(id) => {
            let (reply, answer) = Reply::new();
            let id = JobId::from_number(id);
            let read = |row: Option<Row>| Answer::Row(row.map(Seen::from));
            (Command::Look { id, reply }, polled(answer, read))
        }
        Call::Details(id) => {
            let (reply, answer) = Reply::new();
            let (id, payloads) = (JobId::from_number(id), payloads.clone());
            let read = move |details: Option<crate::engine::Details>| {
                Answer::Details(details.map(|details| told(details, &payloads)))
            };
            (Command::Details { id, reply }, polled(answer, read))
        }
        Call::FindKey(kind, key) => {
            let (reply, answer) = Reply::new();
            let read = |id: Option<JobId>| Answer::Key(id.map(JobId::number));
            (Command::FindKey { kind, key, reply }, polled(answer, read))
        }
        Call::Claim {
            kind,
            queue,
            wait_ms,
        } => {
            let (reply, answer) = Reply::new();
            let (payloads, recorder) = (payloads.clone(), recorder.clone());
            let read = move |job: Option<HandOut>| {
                Answer::Claimed(job.map(|mut job| {
                    job.arrived = true;
                    Held {
                        job,
                        recorder: recorder.clone(),
                        payloads: payloads.clone(),
                    }
                }))
            };
            let until = awake + Duration::from_millis(wait_ms);
            let command = Command::Claim {
                kind,
                queue,
                until,
                reply,
            };
            (command, polled(answer, read))
        }
        Call::Shutdown { grace_ms } => {
            let (reply, answer) = Reply::new();
            let until = awake + Duration::from_millis(grace_ms);
            let command = Command::Shutdown { until, reply };
            (command, polled(answer, |_| Answer::Done))
        }
        Call::Hold => (Command::Wake, Box::new(|| None)),
    }
}

fn change(id: u64, wish: ChangeKind) -> (Command, Poll) {
    let (reply, answer) = Reply::new();
    let id = JobId::from_number(id);
    let command = Command::Change { id, wish, reply };
    (command, polled(answer, Answer::from))
}

fn set_queue(
    name: String,
    paused: Option<bool>,
    concurrency: Option<Option<u32>>,
) -> (Command, Poll) {
    let (reply, answer) = Reply::new();
    let command = Command::SetQueue {
        name,
        paused,
        concurrency,
        reply,
    };
    (command, polled(answer, |()| Answer::Done))
}

fn wait(when: When) -> Wait {
    match when {
        When::Now => Wait::No,
        When::Until(at_ms) => Wait::Until(at_ms),
        When::For(ms) => Wait::For(ms),
    }
}

fn new_job(wish: Wish, payloads: &Payloads) -> NewJob {
    let payload = if wish.in_file {
        payloads.store(&wish.payload).map(Content::File)
    } else {
        Ok(Content::Inline(wish.payload))
    };
    NewJob {
        kind: wish.kind,
        version: 1,
        encoding: Encoding::Rkyv,
        queue: wish.queue,
        priority: Priority(wish.priority),
        wait: wait(wish.when),
        expires: wish.expires_at_ms.map(|at_ms| Expiry {
            at_ms,
            relative: false,
        }),
        policy: Policy {
            attempts_max: wish.attempts_max,
            backoff: Backoff::fixed(Duration::from_millis(wish.backoff_ms)),
            time_limit_ms: wish.time_limit_ms,
            stall_timeout_ms: wish.stall_timeout_ms,
            retry_expires_ms: 0,
            on_crash: match (wish.once, wish.quarantine_after) {
                (true, _) => OnCrash::Dead,
                (false, 0) => OnCrash::Rerun,
                (false, most) => OnCrash::QuarantineAfter(most),
            },
        },
        key: wish.key,
        metadata: Vec::new(),
        payload: payload.unwrap_or(Content::Inline(Vec::new())),
    }
}

fn told(details: crate::engine::Details, payloads: &Payloads) -> Told {
    let content = |content: Content| match content {
        Content::Inline(bytes) => bytes,
        Content::File(file) => payloads.read(&file).map_or(Vec::new(), |b| b.to_vec()),
    };
    let history = details
        .history
        .as_ref()
        .and_then(|frame| read_history(frame).ok())
        .unwrap_or_default();
    let payload = match event_at(&details.base.entry, details.base.offset) {
        Ok(Event::Enqueued(job) | Event::Carried(job, ..)) => match job.payload {
            Payload::Inline(bytes) => Some(bytes.to_vec()),
            Payload::File(file) => payloads.read(&file).ok().map(|bytes| bytes.to_vec()),
            Payload::Gone => None,
        },
        _ => None,
    };
    Told {
        row: Seen::from(details.row),
        errors: history
            .errors
            .into_iter()
            .map(|e| (e.attempt, e.error))
            .collect(),
        reason: history.reason,
        output: history.output.map(content),
        payload,
    }
}
