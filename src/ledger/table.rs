//! Jobs by id, in pages of neighbours, and those in chapters.
//!
//! Ids rise densely and finished jobs leave in about the order in which they came, so pages of 64
//! slots cost a few bytes per job beside the record itself, keep the order for listings, and need
//! no hashing of the whole population when it grows. A chapter lists 512 pages. A million jobs fill 31 chapters, so a
//! look-up hardly has to search; a job takes some fifteen of them.

use std::collections::BTreeMap;

use crate::job::{Encoding, Expiry, JobId, Priority, State};

use super::event::{Phase, Place};
use super::names::{KindIx, PolicyIx, QueueIx};

/// Jobs of a page.
const PAGE: usize = 64;
/// Pages of a chapter.
const CHAPTER: usize = 512;

/// What the ledger remembers of one job. Payload, metadata, errors and output stay on disk.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The frame that begins the job's story (`Enqueued` or `Carried`): it keeps its entry, and with
    /// it all later ones, in the journal.
    pub(crate) base: Place,
    /// From when on it may run; once finished, when it finished.
    pub(crate) due_ms: i64,
    pub(crate) payload_hash: u32,
    /// Hash of all else that never changes.
    pub(crate) fixed_hash: u32,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) priority: Priority,
    /// Attempts begun; only rises.
    pub(crate) attempt: u32,
    pub(crate) kind: KindIx,
    pub(crate) queue: QueueIx,
    pub(crate) policy: PolicyIx,
    /// Failed attempts: these are what `attempts_max` bounds.
    pub(crate) failures: u16,
    pub(crate) phase: Phase,
    /// Processes that died while it ran, since it last ended an attempt.
    pub(crate) crashes: u8,
    pub(crate) encoding: Encoding,
    pub(crate) relative: bool,
    /// Where a waiting job stands in the indexes.
    pub(crate) waits: Waits,
}

/// Which index holds a waiting job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// In the timers: its time lies ahead.
    ForTime,
    /// In its lane.
    Ready,
    /// In neither: past its expiry by a clock that is not trusted yet.
    Held,
}

/// What few jobs have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    pub(crate) expires: Option<Expiry>,
    pub(crate) key: Option<(Box<str>, i64)>,
    pub(crate) payload_file: Option<u128>,
    pub(crate) output_file: Option<u128>,
    /// The newest frame that tells of errors and output.
    pub(crate) history: Option<Place>,
    pub(crate) history_hash: u64,
}

impl Rare {
    /// Whether there is anything in it that must survive.
    pub(crate) fn is_told(&self) -> bool {
        self.expires.is_some() || self.key.is_some() || self.history_hash != 0
    }
}

impl Record {
    /// The state as people see it.
    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Waiting if self.waits == Waits::ForTime => State::Scheduled,
            Phase::Waiting => State::Ready,
            Phase::Running => State::Running,
            Phase::Completed => State::Completed,
            Phase::Cancelled => State::Cancelled,
            Phase::Dead(_) => State::Dead,
        }
    }

    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn expires(&self) -> Option<Expiry> {
        self.rare.as_ref()?.expires
    }

    pub(crate) fn expires_at_ms(&self) -> Option<i64> {
        self.expires().map(|expiry| expiry.at_ms)
    }

    pub(crate) fn key(&self) -> Option<(&str, i64)> {
        let (key, until_ms) = self.rare.as_ref()?.key.as_ref()?;
        Some((key, *until_ms))
    }

    pub(crate) fn history(&self) -> Option<Place> {
        self.rare.as_ref()?.history
    }

    /// Names of the payload files that the record keeps alive.
    pub(crate) fn files(&self) -> impl Iterator<Item = u128> {
        let rare = self.rare.as_ref();
        rare.and_then(|r| r.payload_file)
            .into_iter()
            .chain(rare.and_then(|r| r.output_file))
    }
}

#[derive(Debug, Default)]
pub(crate) struct JobTable {
    /// Each has at least one page.
    chapters: BTreeMap<u64, Box<Chapter>>,
    len: usize,
}

#[derive(Debug)]
struct Chapter {
    used: u16,
    pages: [Option<Box<Page>>; CHAPTER],
}

impl Default for Chapter {
    fn default() -> Chapter {
        Chapter {
            used: 0,
            pages: [const { None }; CHAPTER],
        }
    }
}

#[derive(Debug)]
struct Page {
    used: u8,
    slots: [Option<Record>; PAGE],
}

impl Default for Page {
    fn default() -> Page {
        Page {
            used: 0,
            slots: [const { None }; PAGE],
        }
    }
}

impl JobTable {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, id: JobId) -> Option<&Record> {
        let at = Seat::of(id);
        let chapter = self.chapters.get(&at.chapter)?;
        let page = chapter.pages.get(at.page)?.as_ref()?;
        page.slots.get(at.slot)?.as_ref()
    }

    pub(crate) fn put(&mut self, id: JobId, record: Record) {
        let at = Seat::of(id);
        let chapter = self.chapters.entry(at.chapter).or_default();
        let Some(page) = chapter.pages.get_mut(at.page) else {
            return;
        };
        chapter.used += u16::from(page.is_none());
        let page = page.get_or_insert_default();
        if let Some(slot) = page.slots.get_mut(at.slot)
            && slot.replace(record).is_none()
        {
            page.used += 1;
            self.len += 1;
        }
    }

    /// Takes a record out, to be changed and put back, or for good.
    pub(crate) fn take(&mut self, id: JobId) -> Option<Record> {
        let at = Seat::of(id);
        let chapter = self.chapters.get_mut(&at.chapter)?;
        let page = chapter.pages.get_mut(at.page)?.as_mut()?;
        let record = page.slots.get_mut(at.slot)?.take()?;
        page.used -= 1;
        self.len -= 1;
        Some(record)
    }

    /// Gives back the page of a job that is gone, if it became empty.
    pub(crate) fn release_page(&mut self, id: JobId) {
        let at = Seat::of(id);
        if let Some(chapter) = self.chapters.get_mut(&at.chapter)
            && let Some(page) = chapter.pages.get_mut(at.page)
            && page.take_if(|page| page.used == 0).is_some()
        {
            chapter.used -= 1;
            if chapter.used == 0 {
                self.chapters.remove(&at.chapter);
            }
        }
    }

    /// Jobs with ids from `from` on, rising.
    pub(crate) fn iter_from(&self, from: JobId) -> impl Iterator<Item = (JobId, &Record)> {
        let first = Seat::of(from);
        let chapters = self.chapters.range(first.chapter..);
        let pages = chapters.flat_map(move |(number, chapter)| {
            let is_first = *number == first.chapter;
            let skipped = if is_first { first.page } else { 0 };
            let first_page = number * CHAPTER as u64;
            let pages = chapter.pages.iter().enumerate().skip(skipped);
            pages.filter_map(move |(at, page)| Some((first_page + at as u64, page.as_ref()?)))
        });
        let jobs = pages.flat_map(|(number, page)| {
            let slots = page.slots.iter().enumerate();
            let id = move |slot| JobId::from_number(number * PAGE as u64 + slot as u64);
            slots.filter_map(move |(slot, record)| Some((id(slot), record.as_ref()?)))
        });
        jobs.skip_while(move |(id, _)| *id < from)
    }
}

/// Where a job is kept.
#[derive(Clone, Copy)]
struct Seat {
    chapter: u64,
    page: usize,
    slot: usize,
}

impl Seat {
    fn of(id: JobId) -> Seat {
        let within = |number: u64, size: usize| usize::try_from(number % size as u64).unwrap_or(0);
        let page = id.number() / PAGE as u64;
        Seat {
            chapter: page / CHAPTER as u64,
            page: within(page, CHAPTER),
            slot: within(id.number(), PAGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory budget per job rests on this (docs/ARCHITECTURE.md, "Memory").
    const _: () = assert!(size_of::<Option<Record>>() <= 64);

    fn record(attempt: u32) -> Record {
        Record {
            base: Place {
                position: 1,
                offset: 0,
                len: 10,
            },
            due_ms: 0,
            payload_hash: 0,
            fixed_hash: 0,
            rare: None,
            priority: Priority(0),
            attempt,
            kind: KindIx(0),
            queue: QueueIx(0),
            policy: PolicyIx(0),
            failures: 0,
            phase: Phase::Waiting,
            crashes: 0,
            encoding: Encoding::Rkyv,
            relative: false,
            waits: Waits::Ready,
        }
    }

    #[test]
    fn keeps_order_across_pages_and_forgets_empty_ones() {
        let mut table = JobTable::default();
        for n in [1, 63, 64, 65, 32_767, 32_768, 1_000_000] {
            table.put(JobId::from_number(n), record(u32::try_from(n).unwrap()));
        }
        let ids = |table: &JobTable, from| -> Vec<u64> {
            table
                .iter_from(JobId::from_number(from))
                .map(|(id, _)| id.number())
                .collect()
        };
        assert_eq!(ids(&table, 0), [1, 63, 64, 65, 32_767, 32_768, 1_000_000]);
        assert_eq!(ids(&table, 64), [64, 65, 32_767, 32_768, 1_000_000]);
        assert_eq!(ids(&table, 66), [32_767, 32_768, 1_000_000]);
        assert_eq!(ids(&table, 32_769), [1_000_000]);
        assert_eq!(ids(&table, 1_000_001), [0; 0]);
        let gone = JobId::from_number(1_000_000);
        assert_eq!(table.take(gone).map(|r| r.attempt), Some(1_000_000));
        table.release_page(gone);
        assert!(table.get(gone).is_none() && table.take(gone).is_none());
        assert_eq!((table.len(), table.chapters.len()), (6, 2));
        let second = JobId::from_number(32_768);
        table.take(second);
        assert_eq!(table.chapters.len(), 2, "it may be put back");
        table.release_page(second);
        assert_eq!((table.len(), table.chapters.len()), (5, 1));
        let last = JobId::from_number(u64::MAX);
        table.put(last, record(0));
        assert_eq!(ids(&table, u64::MAX), [u64::MAX]);
        assert_eq!(ids(&table, 65), [65, 32_767, u64::MAX]);
        assert!(table.take(last).is_some());
        table.release_page(last);
        assert_eq!(table.chapters.len(), 1);
    }
}
