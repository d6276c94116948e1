//! A whole engine without a thread, on a disk and a clock that do as they are told.
//!
//! The real step, ledger, journal, recovery, witness and flight recorder. What is simulated: the disk under the
//! journal, time, randomness, the machine's boot, and the slots: whoever drives the machine is the worker.
//! Witness and recorder are real files in a directory of the caller's (in memory, if it is to be quick), and a
//! power cut takes from them what it may.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Damage, Fate, SimDisk, Trouble};
use super::words::{
    Answer, Call, End, Poll, Refusal, Seen, Told, outcome, settled, to_command, told,
};
use crate::clock::{Clock, ManualClock};
use crate::engine::{
    Asked, Awaited, Command, Commands, Core, Disk, HandOut, HandOuts, Inbox, Limits, Live, Parts,
    PoolLink, Recorder, Reply, Settle, Watchdog, first_group, read_back, recover,
};
use crate::error::{Error, Result};
use crate::job::JobId;
use crate::journal::{self, Geometry, Payloads, Store, StoreHeader};
use crate::ledger::{Filter, Setup};
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

/// A claimed job in a worker's hands.
#[derive(Debug)]
pub struct Held {
    pub(super) job: HandOut,
    pub(super) recorder: Arc<Recorder>,
    pub(super) payloads: Arc<Payloads>,
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
    pub fn forget(mut self) {
        // Not leaked: a million lives would not fit the memory.
        self.job.settled = true;
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

impl Drop for Machine {
    /// What runs on the thread afterwards is not scripted: a store opened there would be of another boot.
    fn drop(&mut self) {
        sys::scripted::end();
    }
}

/// A machine that is on.
struct On {
    core: Core,
    inbox: Inbox,
    commands: Commands,
    outs: Arc<HandOuts>,
    recorder: Arc<Recorder>,
    witness: Option<std::fs::File>,
    asked: Vec<(u64, Poll)>,
    next_ticket: u64,
    moments: Vec<crate::engine::Moment>,
    held: Vec<Awaited<crate::engine::Moment>>,
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
        let group = on.commands.group_now();
        let well = on.core.step(group).is_ok();
        let moments = on.held.extract_if(.., |answer| !answer.is_open());
        on.moments
            .extend(moments.filter_map(|answer| answer.recv()?.ok()));
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
        self.take_after(0)
    }

    fn take_after(&mut self, after: u64) -> Option<Held> {
        let now = self.clock.now();
        let on = self.on.as_mut()?;
        let mut job = on.outs.try_next()?;
        job.after = after;
        // As a slot does it: too late by now, or taken back.
        if job.expires_at_ms.is_some_and(|at| at <= now.wall_ms) || !job.live.start(now.awake) {
            return None;
        }
        on.outs.note_begun();
        if job.live.time_limit_ms > 0 || job.live.stall_timeout_ms > 0 {
            on.inbox.send_unbounded(Command::LimitsBegin);
        }
        if !on.recorder.begin(&job.spot()) {
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
        held.recorder.end(&held.job.spot());
        self.tell(held, end)
    }

    /// The same, and the slot goes on at once, if a job waits: then its begin notes the end.
    pub fn go_on(&mut self, held: Held, end: End) -> (Option<Held>, Option<u64>) {
        let next = self.take_after(held.claim());
        if next.is_none() {
            held.recorder.end(&held.job.spot());
        }
        (next, self.tell(held, end))
    }

    fn tell(&mut self, held: Held, end: End) -> Option<u64> {
        let (reply, answer) = Reply::new();
        held.job.settle_and_ask(outcome(end), 1, reply);
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

    /// Whether a sync said that it did its work, and none since has done it.
    pub fn has_lied(&self) -> bool {
        self.disk.has_lied()
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
