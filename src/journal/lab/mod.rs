//! Lives of a journal without an engine, for the power-cut laboratory (`tests/powercut`).
//!
//! Feature `lab`; no part of what the crate promises. The journal is used exactly as the engine uses
//! it: made, opened by copy and swap, cleaned up, appended to in chained groups, its old entries
//! removed once the group that made them obsolete is synced. What is live is kept in a book, a ledger
//! in miniature: every group carries the digest of the book, and a replay has to arrive at it.

mod book;
mod random;

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;

use book::Book;
pub use random::Random;
use random::payload;

use super::bare::job;
use super::{
    Chain, Draft, Found, Frames, Geometry, Head, Header, Journal, Sealed, Store, Visit, Witness,
    commit, find_head, remove_all, replay,
};
use crate::error::{Error, Result};
use crate::ledger::{Event, Phase, Place, RootRecord, Standing};
use crate::sys;

/// Ids are the group's number and a count within the group, so that none is used twice.
const IDS_PER_GROUP: u64 = 1 << 20;
/// Ids that one `Pruned` names.
const PRUNED_IDS_MAX: usize = 48;
/// Bytes of an entry that a payload leaves to headers and the other fields of a job.
const NOT_PAYLOAD: usize = 320;

/// What a life looks like. The same plan and seed do the same, but for the store's random id.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that is random.
    pub seed: u64,
    /// Size of sled's segments.
    pub segment_bytes: u32,
    /// Largest entry.
    pub entry_cap: u32,
    /// Accounted bytes between two syncs.
    pub sync_budget: u32,
    /// Groups of the first life.
    pub groups: u32,
    /// Entries of a group: from, up to.
    pub entries: (u32, u32),
    /// Live entries that the window wanders between: from, up to.
    pub window: (u32, u32),
    /// Groups after which the journal is closed and opened again.
    pub reopen_every: Option<u32>,
    /// Now and then an old job pins the tail, so that removals pile up and then come at once.
    pub pins: bool,
    /// Now and then the oldest entry's live jobs are carried into the group.
    pub carries: bool,
}

/// What a life tells while it goes on, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// No store is there (or its making was cut short); one is made.
    NoStore,
    /// A store was opened and everything in it was verified: its newest group.
    Found(Group),
    /// So many entries of a group that was cut short were found behind it; they are not a part of it.
    Unfinished(usize),
    /// From here on the group may be on disk.
    Begun(Group),
    /// From here on the group must be on disk.
    Acked(Group),
}

/// A group: its number, and the hash of its last entry, which stands for all that lies before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub number: u64,
    /// The hash of its last entry.
    pub hash: [u8; 32],
}

/// Why a life ended early.
#[derive(Debug)]
pub enum Failure {
    /// The store could not be made or opened.
    Open(Error),
    /// It was opened and does not hold what it should.
    Content(String),
    /// Appending, removing or closing failed.
    Write(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Open(error) => write!(f, "open: {error}"),
            Failure::Content(reason) => write!(f, "content: {reason}"),
            Failure::Write(error) => write!(f, "write: {error}"),
        }
    }
}

/// A first life: makes the store in `dir` and works on it, with closings and openings in between.
///
/// # Errors
///
/// [`Failure`], never expected: the disk of a first life is whole.
pub fn live(dir: &Path, plan: &Plan, tell: &mut dyn FnMut(Mark)) -> Result<(), Failure> {
    let mut life = Life::begin(dir, plan, plan.seed, tell)?;
    for number in 1..=plan.groups {
        life.group()?;
        if plan.reopen_every.is_some_and(|every| number % every == 0) {
            life = life.close_and_open()?;
        }
    }
    life.close()
}

/// What follows a power cut: opens and checks what is left. With `groups`, the store then lives on for
/// so many, is closed, opened and checked again.
///
/// # Errors
///
/// [`Failure`]: the store did not survive.
pub fn revive(
    dir: &Path,
    plan: &Plan,
    groups: u32,
    tell: &mut dyn FnMut(Mark),
) -> Result<(), Failure> {
    let mut life = Life::begin(dir, plan, plan.seed.rotate_left(32), tell)?;
    if groups == 0 {
        return Ok(());
    }
    life.clean_up()?;
    for _ in 0..groups {
        life.group()?;
    }
    life.close_and_open()?;
    Ok(())
}

const WAITING: Standing = Standing {
    phase: Phase::Waiting,
    attempt: 0,
    failures: 0,
    crashes: 0,
    finished_at_ms: 0,
    lease: None,
};

/// An open journal and what is known of it.
struct Life<'a> {
    dir: &'a Path,
    plan: &'a Plan,
    tell: &'a mut dyn FnMut(Mark),
    random: Random,
    geometry: Geometry,
    journal: Box<dyn Journal>,
    chain: Chain,
    draft: Draft,
    book: Book,
    /// As in an engine, it also says how the next opening is done.
    witness: Witness,
    tail: u64,
    removals: VecDeque<u64>,
    /// The group that was cut short, which [`Life::clean_up`] has to remove.
    left_over: Vec<u64>,
    /// The window's size that the next groups move towards, in live entries.
    target: u64,
    /// While not zero: groups during which the oldest entry stays.
    pinned: u32,
}

impl<'a> Life<'a> {
    /// Opens the store, or makes it where none is.
    fn begin(
        dir: &'a Path,
        plan: &'a Plan,
        seed: u64,
        tell: &'a mut dyn FnMut(Mark),
    ) -> Result<Life<'a>, Failure> {
        if !dir.exists() {
            sys::files::create_dir_private(dir).map_err(Failure::Open)?;
        }
        let is_new = !Store::at(dir).exists().map_err(Failure::Open)?;
        if is_new {
            tell(Mark::NoStore);
            make(dir, plan, tell).map_err(Failure::Open)?;
        }
        let mut life = Life::open(dir, plan, Random(seed), !is_new, tell)?;
        if is_new {
            life.clean_up()?;
        }
        Ok(life)
    }

    /// Opens and verifies; changes nothing but what opening itself does.
    fn open(
        dir: &'a Path,
        plan: &'a Plan,
        random: Random,
        after_crash: bool,
        tell: &'a mut dyn FnMut(Mark),
    ) -> Result<Life<'a>, Failure> {
        let mut found = None;
        let opened = Store::at(dir).open(after_crash, &mut |header, journal| {
            let content = verified(journal, header.store);
            let refused = content.as_ref().err().cloned();
            found = Some(content);
            refused.map_or(Ok(()), |reason| Err(Error::Bug(reason)))
        });
        let content = found.transpose().map_err(Failure::Content)?;
        let (header, mut journal) = opened.map_err(Failure::Open)?;
        let unread = || Failure::Content("the journal was not read".to_owned());
        let (head, book) = content.ok_or_else(unread)?;
        let witness = witness(dir, &head).map_err(Failure::Open)?;
        tell(Mark::Found(Group {
            number: head.last.group,
            hash: head.last.hash,
        }));
        if !head.incomplete.is_empty() {
            tell(Mark::Unfinished(head.incomplete.len()));
        }
        let below = journal
            .positions_below(head.last.tail)
            .map_err(|e| Failure::Content(e.to_string()))?;
        Ok(Life {
            dir,
            plan,
            tell,
            random,
            geometry: header.geometry,
            journal,
            chain: head.chain(head.last.epoch + 1),
            draft: Draft::new(header.geometry),
            book,
            witness,
            tail: head.last.tail,
            removals: VecDeque::from(below),
            left_over: head.incomplete,
            target: 0,
            pinned: 0,
        })
    }

    /// What the engine does before it appends: removes the group that was cut short, begins
    /// an epoch with a group of its own.
    fn clean_up(&mut self) -> Result<(), Failure> {
        let left_over = std::mem::take(&mut self.left_over);
        remove_all(self.journal.as_mut(), left_over, self.geometry).map_err(Failure::Write)?;
        self.draft.begin(&self.chain);
        self.push(&Event::Opened {
            epoch: self.chain.epoch,
            boot: 0,
            steady_ms: 0,
            writer: "".into(),
        })
        .map_err(Failure::Write)?;
        self.commit().map_err(Failure::Write)
    }

    fn close_and_open(mut self) -> Result<Life<'a>, Failure> {
        let random = Random(self.random.next_u64());
        self.journal.close().map_err(Failure::Write)?;
        let mut life = Life::open(self.dir, self.plan, random, false, self.tell)?;
        life.clean_up()?;
        Ok(life)
    }

    fn close(self) -> Result<(), Failure> {
        self.journal.close().map_err(Failure::Write)
    }

    /// One group: what ended, what is carried, what is new.
    fn group(&mut self) -> Result<(), Failure> {
        self.decide()
            .and_then(|()| self.commit())
            .map_err(Failure::Write)
    }

    fn decide(&mut self) -> Result<()> {
        self.plan_ahead();
        self.draft.begin(&self.chain);
        self.prune()?;
        if self.plan.carries && self.pinned == 0 && self.random.one_in(3) {
            self.carry()?;
        }
        self.enqueue()
    }

    /// Where the window goes next, and whether the oldest entry is pinned.
    fn plan_ahead(&mut self) {
        let (least, most) = self.plan.window;
        if self.target == 0 || self.random.one_in(8) {
            self.target = self.random.between(least.into(), most.into());
        }
        self.pinned = match self.pinned {
            0 if self.plan.pins && self.random.one_in(12) => {
                u32::try_from(self.random.between(4, 24)).unwrap_or(4)
            }
            0 => 0,
            groups => groups - 1,
        };
    }

    /// Ends jobs of the oldest entries until the window has its size; those of a pinned entry stay.
    fn prune(&mut self) -> Result<()> {
        let live = self.book.live.len() as u64;
        let excess = usize::try_from(live.saturating_sub(self.target)).unwrap_or(usize::MAX);
        let skipped = usize::from(self.pinned > 0);
        let ending: Vec<u64> = self
            .book
            .live
            .keys()
            .copied()
            .skip(skipped)
            .take(excess)
            .collect();
        let ids = |(id, (position, _)): (&u64, &(u64, usize))| {
            ending.binary_search(position).is_ok().then_some(*id)
        };
        let ids: Vec<u64> = self.book.jobs.iter().filter_map(ids).collect();
        for ids in ids.chunks(PRUNED_IDS_MAX) {
            self.push(&Event::Pruned { ids: ids.to_vec() })?;
        }
        Ok(())
    }

    /// Carries the live jobs of the oldest entry, read back from the journal as the engine does.
    fn carry(&mut self) -> Result<()> {
        let Some(oldest) = self
            .book
            .oldest_live()
            .filter(|p| *p < self.draft.first_position())
        else {
            return Ok(());
        };
        let bug = |reason: &str| Error::Bug(format!("carrying entry {oldest}: {reason}"));
        let entry = self
            .journal
            .read(oldest)?
            .ok_or_else(|| bug("it is not there"))?;
        let header = Header::read(&entry).map_err(|_| bug("it cannot be read"))?;
        for frame in Frames::new(&entry, &header) {
            let (event, _) = frame.map_err(|_| bug("a frame cannot be read"))?;
            let (Event::Enqueued(job) | Event::Carried(job, ..)) = event else {
                continue;
            };
            if self
                .book
                .jobs
                .get(&job.id.number())
                .is_some_and(|(position, _)| *position == oldest)
            {
                self.push(&Event::Carried(job, WAITING, None))?;
            }
        }
        Ok(())
    }

    /// New jobs, until the group has its entries.
    fn enqueue(&mut self) -> Result<()> {
        let (least, most) = self.plan.entries;
        let entries = self.random.between(least.into(), most.into());
        let largest = (self.geometry.entry_cap as usize).saturating_sub(NOT_PAYLOAD) as u64;
        let first_id = self.chain.next_group * IDS_PER_GROUP;
        for id in first_id..first_id + IDS_PER_GROUP {
            // Many small ones, some that fill an entry.
            let most = if self.random.one_in(3) {
                largest / 16
            } else {
                largest
            };
            let len = usize::try_from(self.random.between(1, most)).unwrap_or(1);
            let payload = payload(id, len);
            let place = self.push(&Event::Enqueued(job(id, &payload)))?;
            if place.position + 1 >= self.draft.first_position() + entries {
                break;
            }
        }
        Ok(())
    }

    fn push(&mut self, event: &Event<'_>) -> Result<Place> {
        let place = self.draft.push(event)?;
        self.book.apply(event, place).map_err(Error::Bug)?;
        Ok(place)
    }

    /// Seals, appends, syncs; only then may what the group made obsolete be removed.
    fn commit(&mut self) -> Result<()> {
        let first = self.draft.first_position();
        let tail = self.book.oldest_live().unwrap_or(first).min(first);
        let number = self.chain.next_group;
        let sealed = self
            .draft
            .seal(&mut self.chain, 0, tail, self.book.digest());
        let group = Group {
            number,
            hash: self.chain.last_hash,
        };
        (self.tell)(Mark::Begun(group));
        commit(
            self.journal.as_mut(),
            &sealed,
            &mut self.removals,
            self.geometry,
        )?;
        for entry in &sealed {
            self.book
                .entries
                .insert(entry.position, entry.bytes.len() as u64);
        }
        let mark = witnessed(&self.chain, number, self.book.bytes_from(tail));
        self.witness.record(&mark, self.geometry.large_from())?;
        (self.tell)(Mark::Acked(group));
        self.removals.extend(self.tail..tail);
        self.tail = tail;
        if self.random.one_in(16) {
            // An idle moment.
            commit(
                self.journal.as_mut(),
                &[],
                &mut self.removals,
                self.geometry,
            )?;
        }
        Ok(())
    }
}

/// Makes a store whose first group says nothing yet.
fn make(dir: &Path, plan: &Plan, tell: &mut dyn FnMut(Mark)) -> Result<()> {
    let geometry = Geometry {
        segment_bytes: plan.segment_bytes,
        entry_cap: plan.entry_cap,
        sync_budget: plan.sync_budget,
    };
    let mut first = None;
    Store::at(dir).create(geometry, |chain| {
        let (group, sealed) = first_group(chain, geometry)?;
        tell(Mark::Begun(group));
        first = Some(group);
        Ok(sealed)
    })?;
    if let Some(group) = first {
        tell(Mark::Acked(group));
    }
    Ok(())
}

fn first_group(chain: &mut Chain, geometry: Geometry) -> Result<(Group, Vec<Sealed>)> {
    let mut draft = Draft::new(geometry);
    let number = chain.next_group;
    draft.begin(chain);
    draft.push(&Event::RootSet(RootRecord::default()))?;
    let tail = draft.first_position();
    let sealed = draft.seal(chain, 0, tail, Book::default().digest());
    Ok((
        Group {
            number,
            hash: chain.last_hash,
        },
        sealed,
    ))
}

/// The store's witness, made where it is missing. What it says of groups is the engine's business.
fn witness(dir: &Path, head: &Head) -> Result<Witness> {
    let path = Store::at(dir).witness();
    match Witness::open(&path, head.last.store)? {
        Found::Marked(witness, _) => Ok(witness),
        Found::Missing | Found::Unreadable => {
            let chain = head.chain(head.last.epoch);
            Witness::create(
                &path,
                head.last.store,
                &witnessed(&chain, head.last.group, 0),
            )
        }
    }
}

fn witnessed(chain: &Chain, group: u64, journal_bytes: u64) -> super::Mark {
    super::Mark {
        epoch: chain.epoch,
        group,
        position: chain.next_position - 1,
        hash: chain.last_hash,
        digest: 0,
        journal_bytes,
    }
}

/// Reads everything: order, chain, content of every job, digest.
fn verified(journal: &mut dyn Journal, store: u128) -> Result<(Head, Book), String> {
    let head = find_head(journal, store).map_err(|e| e.to_string())?;
    let mut book = Book::default();
    let replayed = replay(journal, &head, &mut |visit| match visit {
        Visit::Entry(header, bytes) => {
            book.entries.insert(header.position, bytes as u64);
            Ok(())
        }
        Visit::Event(event, stamp) => book.apply(event, stamp.place),
    });
    replayed.map_err(|e| e.to_string())?;
    if book.digest() == head.last.digest {
        Ok((head, book))
    } else {
        Err(format!(
            "the digest after group {} is another than was written",
            head.last.group
        ))
    }
}
