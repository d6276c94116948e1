//! A disk under a journal that forgets, tears, lies and breaks, as it is told.
//!
//! It stands where sled and the disk stand, with the same contract: nothing is durable before a sync returned,
//! and then all of it is. What sled guards with a checksum of its own, a message with an entry in it, is guarded
//! here as well: one that was torn or zeroed is not there after a crash, as it would not be with sled. (That
//! sled keeps the contract is for the power-cut checks to say, not for this.)

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::journal::{EntryBytes, Journal};

/// A write is torn at multiples of this.
const SECTOR: usize = 512;

/// What becomes of one write that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It reached the disk all the same.
    Kept,
    /// It did not.
    Dropped,
    /// So many sectors of it did, the others are zero.
    Torn(usize),
    /// Its place is taken and zero.
    Zeroed,
}

/// What the disk does wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The machine or process ends before it is carried out.
    DiesBefore,
    /// The machine or process ends when it was carried out and nobody knows yet.
    DiesAfter,
    /// It fails. What a failed sync should have made durable stays doubtful for ever.
    Fails,
    /// It says that it did, and did nothing.
    Lies,
}

/// The disk; survives the engine that works on it.
#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    durable: BTreeMap<u64, Arc<Vec<u8>>>,
    /// What a reader sees.
    current: BTreeMap<u64, Arc<Vec<u8>>>,
    unsynced: Vec<Write>,
    /// Of syncs that failed: a later sync does not save it.
    doubtful: Vec<Write>,
    operations: u64,
    /// A sync said that it did, and what it should have made durable still is not.
    lied: bool,
    trouble: Option<(u64, Trouble)>,
    dead: bool,
}

#[derive(Clone, Debug)]
enum Write {
    Insert(u64, Arc<Vec<u8>>),
    Remove(u64),
}

impl Write {
    fn run(&self, entries: &mut BTreeMap<u64, Arc<Vec<u8>>>) {
        match self {
            Write::Insert(position, bytes) => entries.insert(*position, bytes.clone()),
            Write::Remove(position) => entries.remove(position),
        };
    }

    /// Whether it is there after a crash: what a message's checksum says of what is left of it.
    fn survives(&self, fate: Fate) -> bool {
        let Write::Insert(position, bytes) = self else {
            return fate == Fate::Kept;
        };
        let mut message = position.to_le_bytes().to_vec();
        message.extend_from_slice(bytes);
        let sum = xxh3_64(&message);
        let kept = match fate {
            Fate::Kept => message.len(),
            Fate::Torn(sectors) => (sectors * SECTOR).min(message.len()),
            Fate::Dropped | Fate::Zeroed => 0,
        };
        message.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        xxh3_64(&message) == sum
    }
}

/// Damage to what was durable, to be taken back when it was noticed.
#[derive(Debug)]
pub struct Damage {
    position: u64,
    before: Arc<Vec<u8>>,
}

impl SimDisk {
    pub(super) fn journal(&self) -> Box<dyn Journal> {
        Box::new(SimJournal(self.clone()))
    }

    /// The `n`th operation from now (from 1) goes wrong.
    pub(super) fn plan(&self, n: u64, trouble: Trouble) {
        let mut state = self.0.lock();
        state.trouble = Some((state.operations + n, trouble));
    }

    /// Nothing more goes wrong.
    pub(super) fn heal(&self) {
        self.0.lock().trouble = None;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    pub(super) fn has_lied(&self) -> bool {
        self.0.lock().lied
    }

    pub(super) fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// The process or the machine is gone: what was not synced is left as `fate` says. Without a power cut the
    /// system still has what a failed sync was given.
    pub(super) fn crash(&self, power: bool, mut fate: impl FnMut() -> Fate) {
        let mut state = self.0.lock();
        let doubtful = std::mem::take(&mut state.doubtful);
        for write in doubtful {
            if !power || write.survives(fate()) {
                write.run(&mut state.durable);
            }
        }
        for write in std::mem::take(&mut state.unsynced) {
            if write.survives(fate()) {
                write.run(&mut state.durable);
            }
        }
        state.current = state.durable.clone();
        (state.trouble, state.dead, state.lied) = (None, false, false);
    }

    /// Positions of what is durable, rising.
    pub(super) fn positions(&self) -> Vec<u64> {
        self.0.lock().durable.keys().copied().collect()
    }

    /// Flips one bit of an entry, or loses it altogether. Nobody may have the journal open.
    pub(super) fn damage(&self, position: u64, bit: Option<usize>) -> Option<Damage> {
        let mut state = self.0.lock();
        let before = state.durable.get(&position)?.clone();
        match bit {
            None => state.durable.remove(&position),
            Some(bit) => {
                let mut bytes = before.to_vec();
                let at = bit / 8 % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
                state.durable.insert(position, Arc::new(bytes))
            }
        };
        state.current = state.durable.clone();
        Some(Damage { position, before })
    }

    pub(super) fn undo(&self, damage: Damage) {
        let mut state = self.0.lock();
        state.durable.insert(damage.position, damage.before);
        state.current = state.durable.clone();
    }
}

impl State {
    /// Counts an operation; what goes wrong with it.
    fn begin(&mut self) -> Result<Option<Trouble>> {
        if self.dead {
            return Err(refused("the machine is gone"));
        }
        self.operations += 1;
        let due = self.trouble.filter(|(at, _)| *at <= self.operations);
        let Some((_, trouble)) = due else {
            return Ok(None);
        };
        self.trouble = None;
        if trouble == Trouble::DiesBefore {
            self.dead = true;
            return Err(refused("the machine ended"));
        }
        Ok(Some(trouble))
    }

    fn end(&mut self, trouble: Option<Trouble>) -> Result<()> {
        if trouble == Some(Trouble::DiesAfter) {
            self.dead = true;
            return Err(refused("the machine ended"));
        }
        Ok(())
    }

    fn write(&mut self, write: Write) -> Result<()> {
        let trouble = self.begin()?;
        if trouble == Some(Trouble::Fails) {
            return Err(refused("the disk was told to fail"));
        }
        // What sled wrote it keeps in memory as well: it is the next sync that can lie.
        if trouble == Some(Trouble::Lies) {
            self.trouble = Some((self.operations + 1, Trouble::Lies));
        }
        write.run(&mut self.current);
        self.unsynced.push(write);
        self.end(trouble)
    }
}

fn refused(why: &str) -> Error {
    Error::Io {
        doing: "write",
        path: "simulated".into(),
        source: std::io::Error::other(why.to_owned()),
    }
}

#[derive(Debug)]
struct SimJournal(SimDisk);

impl Journal for SimJournal {
    fn append(&mut self, position: u64, entry: &Arc<Vec<u8>>) -> Result<()> {
        let write = Write::Insert(position, entry.clone());
        self.0.0.lock().write(write)
    }

    fn remove(&mut self, position: u64) -> Result<()> {
        self.0.0.lock().write(Write::Remove(position))
    }

    fn sync(&mut self) -> Result<()> {
        let mut state = self.0.0.lock();
        let trouble = state.begin()?;
        match trouble {
            Some(Trouble::Fails) => {
                // Linux calls pages of a failed write-back clean.
                let lost = std::mem::take(&mut state.unsynced);
                state.doubtful.extend(lost);
                return Err(refused("the disk was told to fail"));
            }
            Some(Trouble::Lies) => {
                state.lied |= !state.unsynced.is_empty();
                return Ok(());
            }
            _ => {}
        }
        state.lied = false;
        let synced = std::mem::take(&mut state.unsynced);
        synced
            .into_iter()
            .for_each(|write| write.run(&mut state.durable));
        state.end(trouble)
    }

    fn read(&mut self, position: u64) -> Result<Option<EntryBytes>> {
        let state = self.0.0.lock();
        Ok(state.current.get(&position).cloned().map(EntryBytes::Own))
    }

    fn scan(
        &mut self,
        from: u64,
        visit: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>,
    ) -> Result<()> {
        let entries = self.0.0.lock().current.clone();
        for (position, entry) in entries.range(from..) {
            if !visit(*position, EntryBytes::Own(entry.clone()))? {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(&mut self, visit: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>) -> Result<()> {
        let entries = self.0.0.lock().current.clone();
        for (position, entry) in entries.iter().rev() {
            if !visit(*position, EntryBytes::Own(entry.clone()))? {
                break;
            }
        }
        Ok(())
    }

    fn positions_below(&mut self, position: u64) -> Result<Vec<u64>> {
        let state = self.0.0.lock();
        Ok(state.current.range(..position).map(|(at, _)| *at).collect())
    }

    fn bytes_on_disk(&self) -> u64 {
        let state = self.0.0.lock();
        state.durable.values().map(|entry| entry.len() as u64).sum()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
