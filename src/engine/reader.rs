//! Reading entries back, on the writer's thread and only between groups.
//!
//! A read beside an open group could make sled flush a part of it, and with that leave the ground on
//! which the write pattern was proven (docs/durability.md). What was written lately is still here and
//! costs no read at all.

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::journal::{EntryBytes, Header, Journal, Sealed};

/// Entries kept after they were written: 64 x 56 KiB at most.
const RECENT_MAX: usize = 64;
/// Entries kept after they were read.
const READ_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Newest last; positions rise.
    recent: VecDeque<Sealed>,
    read: VecDeque<(u64, EntryBytes)>,
}

impl Reader {
    pub(super) fn remember(&mut self, sealed: Vec<Sealed>) {
        self.recent.extend(sealed);
        let extra = self.recent.len().saturating_sub(RECENT_MAX);
        self.recent.drain(..extra);
    }

    pub(super) fn entry(&mut self, journal: &mut dyn Journal, position: u64) -> Result<EntryBytes> {
        if let Ok(at) = self
            .recent
            .binary_search_by_key(&position, |entry| entry.position)
            && let Some(entry) = self.recent.get(at)
        {
            return Ok(EntryBytes::Own(entry.bytes.clone()));
        }
        if let Some((_, entry)) = self.read.iter().find(|(p, _)| *p == position) {
            return Ok(entry.clone());
        }
        let damaged = |reason: String| Error::Damaged {
            path: "journal".into(),
            what: format!("entry {position}"),
            reason,
        };
        let entry = journal
            .read(position)?
            .ok_or_else(|| damaged("it is missing".to_owned()))?;
        // Checked once per read from disk, as at replay: the disk may have changed since.
        Header::read(&entry).map_err(|e| damaged(format!("{e:?}")))?;
        if self.read.len() == READ_MAX {
            self.read.pop_front();
        }
        self.read.push_back((position, entry.clone()));
        Ok(entry)
    }
}
