//! The state that is left of a damaged journal: known, doubtful or lost, job by job.
//!
//! The events that are there are applied in order, as at every replay. After a gap a job's next event may not fit
//! what is known of it; then the record is made to fit ([`Ledger::fit`]). What a job's story says after the last
//! gap it says in full; a job whose story begins before one may have moved on in it.
//!
//! Each group carries the digest of the state after it. Where the state that was folded has it, nothing before
//! can have been lost that matters, gap or not.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::engine::into_history;
use crate::error::{Error, Result};
use crate::job::JobId;
use crate::journal::{
    Carved, End, EntryBytes, Frames, Header, Piece, ReadError, Remains, event_at,
};
use crate::ledger::{Carry, Event, History, Ledger, Mismatch, Place, RootRecord, Setup, Stamp};

/// A job takes at least so many bytes of an entry, a claim as well: the bound of how many numbers were given out in
/// an entry that is lost.
const NUMBERS_PER_ENTRY: u64 = 4_096;
/// Numbers left out where nobody knows how much is missing.
const NUMBERS_UNKNOWN: u64 = 1 << 20;
/// No number comes near it; see `journal/entry.rs`.
const NUMBER_MAX: u64 = 1 << 61;

/// What is left of a state.
pub(super) struct Salvage<'c> {
    carved: &'c Carved,
    /// Older entries and the needed ones behind them. A place's position counts them from 1: the journal's own
    /// positions may lie far apart.
    pieces: Vec<Piece<'c>>,
    pub(super) ledger: Ledger,
    /// The first piece behind the newest gap since the state was known in full.
    gap: Option<usize>,
    end: End,
    missing_positions: u64,
    /// An id, or a claim, was given out behind the newest gap.
    ids_known: bool,
    claims_known: bool,
    /// Jobs below had been given out when the state was known in full.
    known_below: u64,
    /// Jobs that something is told of, and not what they are.
    lost: BTreeMap<u64, Trace>,
    /// Jobs that were deleted.
    ended: HashSet<u64>,
    /// Where a job's story began that is below what is needed. Filled at the first gap.
    older_bases: Option<HashMap<u64, Place>>,
    numbers: Numbers,
    bases: Cached,
    histories: Cached,
}

/// What is known of a job that is lost.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) event: &'static str,
    pub(super) at_ms: i64,
}

/// The highest numbers met, anywhere.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    id: u64,
    claim: u64,
    epoch: u64,
}

/// The entry that was read last.
#[derive(Debug, Default)]
struct Cached(Option<(u64, EntryBytes)>);

impl<'c> Salvage<'c> {
    /// Folds what is left.
    pub(super) fn of(carved: &'c Carved, remains: Remains<'c>) -> Result<Salvage<'c>> {
        let Remains {
            needed,
            older,
            head,
            end,
            gaps,
        } = remains;
        let first = older.len();
        let mut pieces = older;
        pieces.extend(needed);
        let missing = gaps.iter().map(|(from, to)| to - from + 1).sum();
        let mut salvage = Salvage {
            carved,
            pieces,
            ledger: Ledger::new(Setup::default(), head.at_ms),
            gap: None,
            end,
            missing_positions: missing,
            ids_known: true,
            claims_known: true,
            known_below: 1,
            lost: BTreeMap::new(),
            ended: HashSet::new(),
            older_bases: None,
            numbers: Numbers::default(),
            bases: Cached::default(),
            histories: Cached::default(),
        };
        for at in first..salvage.pieces.len() {
            salvage.take_piece(at, first)?;
        }
        salvage.count_all(head.store)?;
        Ok(salvage)
    }

    /// Whether the state is known in full: it is the one that was written with the last group.
    pub(super) fn is_proven(&self) -> bool {
        self.gap.is_none() && self.end != End::Missing
    }

    /// I11: whether a job may have moved on in a part that is lost. `base` is where its story begins.
    pub(super) fn is_doubtful(&self, base: Place) -> bool {
        self.end == End::Missing || self.gap.is_some_and(|gap| base.position <= gap as u64)
    }

    /// Ids, claims and counters to go on with: above all that may have been given out.
    pub(super) fn root(&self) -> RootRecord {
        let mut root = self.ledger.root();
        if self.is_proven() && self.end == End::Whole {
            return root;
        }
        let missing = match self.end {
            End::Unknown => NUMBERS_UNKNOWN,
            _ => NUMBERS_PER_ENTRY.saturating_mul(self.missing_positions.max(1)),
        };
        let above = |next: u64, seen: u64, is_known: bool| {
            let next = next.max(seen.saturating_add(1));
            // Numbers rise: one that was given out behind a gap is above all that were in it.
            let left_out = if is_known && self.end == End::Whole {
                0
            } else {
                missing
            };
            next.saturating_add(left_out).min(NUMBER_MAX)
        };
        root.next_id = above(root.next_id, self.numbers.id, self.ids_known);
        root.next_claim = above(root.next_claim, self.numbers.claim, self.claims_known);
        root.epoch = root.epoch.max(self.numbers.epoch);
        root
    }

    /// Jobs that are lost and of which something is known.
    pub(super) fn lost(&self) -> impl Iterator<Item = (JobId, &Trace)> {
        let lost = self.lost.iter();
        lost.map(|(id, trace)| (JobId::from_number(*id), trace))
    }

    /// Ids that may have been given out, of which nothing is known: first and last of each range.
    pub(super) fn unknown_ids(&self, next_id: u64) -> Vec<(u64, u64)> {
        if self.is_proven() && self.end == End::Whole {
            return Vec::new();
        }
        let from = if self.is_proven() {
            self.ledger.root().next_id
        } else {
            self.known_below
        };
        let kept = self.ledger.bases().map(|(id, _)| id.number());
        let told = self.lost.keys().copied().chain(self.ended.iter().copied());
        let mut known: Vec<u64> = kept.chain(told).filter(|id| *id >= from).collect();
        known.sort_unstable();
        let (mut ranges, mut next) = (Vec::new(), from);
        for id in known {
            if id > next {
                ranges.push((next, id - 1));
            }
            next = next.max(id + 1);
        }
        if next < next_id {
            ranges.push((next, next_id - 1));
        }
        ranges
    }

    /// The kind of a lost job, if an older entry tells.
    pub(super) fn kind_of_lost(&mut self, id: JobId) -> Option<String> {
        let base = *self.older_bases.as_ref()?.get(&id.number())?;
        let entry = self.bases.read(self.carved, &self.pieces, base.position)?;
        match event_at(&entry, base.offset) {
            Ok(Event::Enqueued(job) | Event::Carried(job, ..)) => Some(job.kind.to_owned()),
            _ => None,
        }
    }

    /// Lets `f` see a job as it stands. `None`: it cannot be read.
    pub(super) fn with_job<T>(
        &mut self,
        id: JobId,
        base: Place,
        f: impl FnOnce(Event<'_>) -> T,
    ) -> Option<T> {
        let entry = self.bases.read(self.carved, &self.pieces, base.position)?;
        let event = event_at(&entry, base.offset).ok()?;
        let carry = self
            .ledger
            .needs_carry(&event, base.position, base.offset)?;
        let (job, own) = match event {
            Event::Enqueued(job) => (job, None),
            Event::Carried(job, _, history) => (job, history),
            _ => return None,
        };
        let history = match carry {
            Carry::Job {
                history: Some(place),
            } => self.history(place)?,
            _ => own,
        };
        debug_assert_eq!(job.id, id);
        let queue = self.ledger.queue_of(&job).into_owned();
        let carried = self.ledger.carry_job(&job, &queue, history)?;
        Some(f(carried))
    }

    fn history(&mut self, place: Place) -> Option<Option<History>> {
        let entry = self
            .histories
            .read(self.carved, &self.pieces, place.position)?;
        let event = event_at(&entry, place.offset).ok()?;
        Some(into_history(event))
    }

    fn take_piece(&mut self, at: usize, first: usize) -> Result<()> {
        let Some(piece) = self.pieces.get(at).copied() else {
            return Ok(());
        };
        if piece.after_gap {
            self.gap_before(at, first)?;
        }
        let Some(entry) = piece.entry(self.carved) else {
            self.missing_positions += 1;
            return self.gap_before(at + 1, first);
        };
        let header = *piece.header();
        let position = at as u64 + 1;
        let len = u32::try_from(entry.len()).unwrap_or(u32::MAX);
        self.ledger.entry_written(position, len);
        for frame in Frames::new(&entry, &header) {
            let Some((event, place)) = read(frame)? else {
                // The hash was right, so this was written so. What follows in the entry is lost.
                self.gap_before(at + 1, first)?;
                break;
            };
            let place = Place { position, ..place };
            let (at_ms, epoch) = (header.at_ms, header.epoch);
            let stamp = Stamp {
                place,
                at_ms,
                epoch,
            };
            self.take_event(&event, stamp);
        }
        self.prove(&header, at);
        Ok(())
    }

    fn take_event(&mut self, event: &Event<'_>, stamp: Stamp) {
        match event {
            Event::Deleted { id } => {
                self.ended.insert(id.number());
            }
            Event::Pruned { ids } => self.ended.extend(ids),
            Event::Enqueued(_) => self.ids_known = true,
            Event::Claimed { .. } => self.claims_known = true,
            Event::RootSet(_) => (self.ids_known, self.claims_known) = (true, true),
            _ => {}
        }
        if self.gap.is_some() {
            self.recall(event, stamp);
            self.ledger.fit(event, stamp);
        }
        if let Err(Mismatch(reason)) = self.ledger.apply(event, stamp) {
            // Only what no engine writes gets here.
            log::warn!(
                "an event of position {} left out: {reason}",
                stamp.place.position
            );
            self.gap = Some(self.gap.unwrap_or(0).max(to_index(stamp.place) + 1));
        }
    }

    /// An event of a job that is not there: its story began in the gap, or was told anew in it. What an older
    /// entry says of it is better than nothing.
    fn recall(&mut self, event: &Event<'_>, stamp: Stamp) {
        match event {
            Event::Enqueued(job) | Event::Carried(job, ..) => {
                self.lost.remove(&job.id.number());
                return;
            }
            Event::Deleted { id } => {
                self.lost.remove(&id.number());
                return;
            }
            Event::Pruned { ids } => {
                self.lost.retain(|id, _| !ids.contains(id));
                return;
            }
            _ => {}
        }
        let Some((id, name)) = subject(event) else {
            return;
        };
        if self.ledger.record(id).is_some() || self.revive(id) {
            return;
        }
        let trace = Trace {
            event: name,
            at_ms: stamp.at_ms,
        };
        self.lost.insert(id.number(), trace);
    }

    /// Brings a job back as an older entry has it.
    fn revive(&mut self, id: JobId) -> bool {
        let base = self.older_bases.as_ref().and_then(|b| b.get(&id.number()));
        let Some(base) = base.copied() else {
            return false;
        };
        let Some(entry) = self.bases.read(self.carved, &self.pieces, base.position) else {
            return false;
        };
        let header = Header::read(&entry).unwrap_or_default();
        let stamp = Stamp {
            place: base,
            at_ms: header.at_ms,
            epoch: header.epoch,
        };
        let counters = self.ledger.root();
        let event = event_at(&entry, base.offset);
        let revived = event.is_ok_and(|event| self.ledger.apply(&event, stamp).is_ok());
        // It was counted in its time.
        self.ledger.set_root(counters);
        revived
    }

    /// A gap before piece `at`: nothing that began before is sure any more.
    fn gap_before(&mut self, at: usize, first: usize) -> Result<()> {
        self.gap = Some(at);
        (self.ids_known, self.claims_known) = (false, false);
        if self.older_bases.is_some() {
            return Ok(());
        }
        let mut bases = HashMap::new();
        for (number, piece) in self.pieces.iter().enumerate().take(first) {
            let Some(entry) = piece.entry(self.carved) else {
                continue;
            };
            for frame in Frames::new(&entry, piece.header()) {
                if let Some((Event::Enqueued(job) | Event::Carried(job, ..), place)) = read(frame)?
                {
                    let position = number as u64 + 1;
                    bases.insert(job.id.number(), Place { position, ..place });
                }
            }
        }
        self.older_bases = Some(bases);
        Ok(())
    }

    /// After a whole group: whether the state is the one that was written with it.
    fn prove(&mut self, header: &Header, at: usize) {
        let is_end = header.part + 1 == header.parts;
        if is_end && self.ledger.digest() == header.digest {
            self.gap = None;
            (self.ids_known, self.claims_known) = (true, true);
            self.lost.clear();
            self.known_below = self.ledger.root().next_id;
        } else if is_end && at + 1 == self.pieces.len() && self.gap.is_none() {
            // Nothing is missing, and it does not add up all the same.
            self.gap = Some(at + 1);
        }
    }

    /// The highest numbers in all entries of the store, in whatever order and of whatever fate.
    fn count_all(&mut self, store: u128) -> Result<()> {
        if self.is_proven() && self.end == End::Whole {
            return Ok(());
        }
        let mut numbers = Numbers::default();
        for entry in self.carved.entries(store) {
            let Ok(header) = Header::read(&entry) else {
                continue;
            };
            numbers.epoch = numbers.epoch.max(header.epoch);
            for frame in Frames::new(&entry, &header) {
                if let Some((event, _)) = read(frame)? {
                    numbers.see(&event);
                }
            }
        }
        self.numbers = numbers;
        Ok(())
    }
}

impl Numbers {
    fn see(&mut self, event: &Event<'_>) {
        match event {
            Event::Enqueued(job) => self.see_id(job.id),
            Event::Carried(job, standing, _) => {
                self.see_id(job.id);
                let lease = standing.lease.map_or(0, |lease| lease.claim);
                self.claim = self.claim.max(lease);
            }
            Event::Claimed { id, claim, .. } => {
                self.see_id(*id);
                self.claim = self.claim.max(*claim);
            }
            Event::RootSet(root) => {
                self.id = self.id.max(root.next_id.saturating_sub(1));
                self.claim = self.claim.max(root.next_claim.saturating_sub(1));
                self.epoch = self.epoch.max(root.epoch);
            }
            Event::KeyHeld { id, .. } => self.see_id(*id),
            _ => {
                if let Some((id, _)) = subject(event) {
                    self.see_id(id);
                }
            }
        }
    }

    fn see_id(&mut self, id: JobId) {
        self.id = self.id.max(id.number());
    }
}

impl Cached {
    /// Jobs lie about in the order of their ids, so the next one is mostly in the same entry.
    fn read(&mut self, carved: &Carved, pieces: &[Piece<'_>], position: u64) -> Option<EntryBytes> {
        if let Some((at, entry)) = &self.0
            && *at == position
        {
            return Some(entry.clone());
        }
        let at = usize::try_from(position.checked_sub(1)?).ok()?;
        let entry = pieces.get(at)?.entry(carved)?;
        self.0 = Some((position, entry.clone()));
        Some(entry)
    }
}

/// The index of the piece that a place lies in.
fn to_index(place: Place) -> usize {
    usize::try_from(place.position.saturating_sub(1)).unwrap_or(usize::MAX)
}

/// What is of a newer version stops a repair: a newer program can do better. Other damage does not: `None`.
fn read<T>(frame: std::result::Result<T, ReadError>) -> Result<Option<T>> {
    match frame {
        Ok(read) => Ok(Some(read)),
        Err(ReadError::Newer { what, found, known }) => Err(Error::NewerFormat {
            path: "journal".into(),
            what,
            found,
            known,
        }),
        Err(ReadError::Damaged(reason)) => {
            log::warn!("a record that cannot be read: {reason}");
            Ok(None)
        }
    }
}

/// Whose event it is, beyond the one that began its story; in a word.
fn subject(event: &Event<'_>) -> Option<(JobId, &'static str)> {
    Some(match event {
        Event::Claimed { id, .. } => (*id, "claimed"),
        Event::Released { id, .. } => (*id, "released"),
        Event::Completed { id, .. } => (*id, "completed"),
        Event::Retried { id, .. } => (*id, "failed, to be tried again"),
        Event::Snoozed { id, .. } => (*id, "snoozed"),
        Event::Cancelled { id, .. } => (*id, "cancelled"),
        Event::Died { id, .. } => (*id, "died"),
        Event::Recovered { id, .. } => (*id, "recovered from a crash"),
        Event::Requeued { id, .. } => (*id, "brought back"),
        Event::Rescheduled { id, .. } => (*id, "rescheduled"),
        Event::Reprioritised { id, .. } => (*id, "given another priority"),
        Event::Moved { id, .. } => (*id, "moved to another queue"),
        _ => return None,
    })
}
