//! A journal in memory: for engines that need no disk, and a disk to be crashed in tests.
//!
//! It keeps what was synced apart from what was not, so a test can let a power cut take any part of
//! the un-synced operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{EntryBytes, Journal};
use crate::error::{Error, Result};

/// The "disk" under a [`MemoryJournal`]; survives it.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk {
    state: Arc<Mutex<DiskState>>,
}

#[derive(Debug, Default)]
struct DiskState {
    durable: BTreeMap<u64, Arc<Vec<u8>>>,
    unsynced: Vec<Operation>,
    syncs: u64,
    /// Fail the sync with this number and all later ones.
    fail_from_sync: Option<u64>,
    failed: bool,
}

#[derive(Clone, Debug)]
enum Operation {
    Insert(u64, Arc<Vec<u8>>),
    Remove(u64),
}

impl Operation {
    fn run(self, entries: &mut BTreeMap<u64, Arc<Vec<u8>>>) {
        match self {
            Operation::Insert(position, bytes) => {
                entries.insert(position, bytes);
            }
            Operation::Remove(position) => {
                entries.remove(&position);
            }
        }
    }
}

impl MemoryDisk {
    pub(crate) fn journal(&self) -> MemoryJournal {
        MemoryJournal { disk: self.clone() }
    }

    /// The power goes: of the un-synced operations those for which `keep` says so reached the disk.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn cut_power(&self, mut keep: impl FnMut() -> bool) {
        let mut state = self.state.lock();
        let unsynced = std::mem::take(&mut state.unsynced);
        unsynced
            .into_iter()
            .filter(|_| keep())
            .for_each(|op| op.run(&mut state.durable));
    }

    /// Every sync from the `n`th on (counting from 1, over the disk's life) fails.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn fail_from_sync(&self, n: u64) {
        self.state.lock().fail_from_sync = Some(n);
    }

    /// Syncs work again.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn heal(&self) {
        let mut state = self.state.lock();
        (state.fail_from_sync, state.failed) = (None, false);
    }

    /// Whether a sync has failed since it was last healed.
    #[cfg(all(feature = "testing", not(shuttle)))]
    pub(crate) fn has_failed(&self) -> bool {
        self.state.lock().failed
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }
}

#[derive(Debug)]
pub(crate) struct MemoryJournal {
    disk: MemoryDisk,
}

impl MemoryJournal {
    /// What a reader sees: the durable entries with the un-synced operations on top.
    fn get(&self, position: u64) -> Option<EntryBytes> {
        let state = self.disk.state.lock();
        let unsynced = state.unsynced.iter().rev().find_map(|op| match op {
            Operation::Insert(p, bytes) if *p == position => Some(Some(bytes.clone())),
            Operation::Remove(p) if *p == position => Some(None),
            _ => None,
        });
        unsynced
            .unwrap_or_else(|| state.durable.get(&position).cloned())
            .map(EntryBytes::Own)
    }

    fn positions(&self) -> Vec<u64> {
        let state = self.disk.state.lock();
        let mut entries = state.durable.clone();
        state
            .unsynced
            .iter()
            .cloned()
            .for_each(|op| op.run(&mut entries));
        entries.into_keys().collect()
    }
}

impl Journal for MemoryJournal {
    fn append(&mut self, position: u64, entry: &Arc<Vec<u8>>) -> Result<()> {
        self.disk
            .state
            .lock()
            .unsynced
            .push(Operation::Insert(position, entry.clone()));
        Ok(())
    }

    fn remove(&mut self, position: u64) -> Result<()> {
        self.disk
            .state
            .lock()
            .unsynced
            .push(Operation::Remove(position));
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let mut state = self.disk.state.lock();
        if state.fail_from_sync.is_some_and(|n| state.syncs + 1 >= n) {
            state.failed = true;
            let source = std::io::Error::other("the disk was told to fail");
            return Err(Error::Io {
                doing: "sync",
                path: "memory".into(),
                source,
            });
        }
        state.syncs += 1;
        let unsynced = std::mem::take(&mut state.unsynced);
        unsynced
            .into_iter()
            .for_each(|op| op.run(&mut state.durable));
        Ok(())
    }

    fn read(&mut self, position: u64) -> Result<Option<EntryBytes>> {
        Ok(self.get(position))
    }

    fn scan(
        &mut self,
        from: u64,
        visit: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>,
    ) -> Result<()> {
        for position in self.positions().into_iter().filter(|p| *p >= from) {
            if let Some(entry) = self.get(position)
                && !visit(position, entry)?
            {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(&mut self, visit: &mut dyn FnMut(u64, EntryBytes) -> Result<bool>) -> Result<()> {
        for position in self.positions().into_iter().rev() {
            if let Some(entry) = self.get(position)
                && !visit(position, entry)?
            {
                break;
            }
        }
        Ok(())
    }

    fn positions_below(&mut self, position: u64) -> Result<Vec<u64>> {
        Ok(self
            .positions()
            .into_iter()
            .filter(|p| *p < position)
            .collect())
    }

    fn bytes_on_disk(&self) -> u64 {
        self.disk
            .state
            .lock()
            .durable
            .values()
            .map(|entry| entry.len() as u64)
            .sum()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
