//! Opening: from the journal's bytes to a core that is ready to step.
//!
//! Doing it again, or being cut short in it any number of times, changes nothing: the only thing
//! written is one group, which is all or nothing, and the flight recorder is cleared only after that
//! group is synced.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::clock_watch::ClockWatch;
use super::command::Work;
use super::core::{Core, Disk, Limits, Mode, Pending, PoolLink, Waiters};
use super::events::Hub;
use super::hold::Holds;
use super::inbox::Inbox;
use super::places::Places;
use super::reader::Reader;
use super::watchdog::Watchdog;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::fault::{self, Bug, Point};
use crate::job::JobId;
use crate::journal::{
    Chain, Draft, Found, Geometry, Head, Header, Journal, Mark, Sealed, Store, Visit, Witness,
    find_head, remove_all, replay,
};
use crate::ledger::{Event, LeaseRecord, Ledger, Mismatch, Setup, Stamp};
use crate::sys;

/// What an engine is made of, before it runs.
pub(crate) struct Parts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Box<dyn Journal>,
    pub(crate) geometry: Geometry,
    pub(crate) disk: Disk,
    pub(crate) replayed: Replayed,
    pub(crate) limits: Limits,
    pub(crate) pools: Vec<PoolLink>,
    pub(crate) inbox: Inbox,
    pub(crate) hub: Arc<Hub>,
    pub(crate) watchdog: Arc<Watchdog>,
}

/// A journal that was read and found whole.
pub(crate) struct Replayed {
    pub(crate) head: Head,
    pub(crate) ledger: Ledger,
    witness: Option<Witness>,
}

/// Replays the journal and checks it against digest and witness. Changes nothing in it. `store_dir` is
/// where the witness is; `None` for an engine in memory.
pub(crate) fn read_back(
    journal: &mut dyn Journal,
    store: u128,
    store_dir: Option<&Path>,
    setup: Setup,
    now_ms: i64,
) -> Result<Replayed> {
    let ledger = Ledger::new(setup, now_ms);
    read_back_with(journal, store, store_dir, ledger, &mut |_| {})
}

/// The same into a ledger that is new, and `look` sees what the replay comes by.
pub(crate) fn read_back_with(
    journal: &mut dyn Journal,
    store: u128,
    store_dir: Option<&Path>,
    mut ledger: Ledger,
    look: &mut dyn FnMut(&Visit<'_, '_>),
) -> Result<Replayed> {
    let head = find_head(journal, store)?;
    let found = store_dir.map(|dir| open_witness(dir, &head)).transpose()?;
    replay(journal, &head, &mut |visit| {
        look(&visit);
        fold(&mut ledger, &visit)
    })?;
    check_digest(&ledger, &head.last)?;
    let witness = match (store_dir, found.flatten()) {
        (Some(dir), None) => Some(make_witness(dir, &head)?),
        (_, found) => found,
    };
    Ok(Replayed {
        head,
        ledger,
        witness,
    })
}

/// What a replay comes by, added to the state.
pub(crate) fn fold(ledger: &mut Ledger, visit: &Visit<'_, '_>) -> Result<(), String> {
    match visit {
        Visit::Entry(header, bytes) => {
            let bytes = u32::try_from(*bytes).unwrap_or(u32::MAX);
            ledger.entry_written(header.position, bytes);
            Ok(())
        }
        Visit::Event(event, stamp) => ledger
            .apply(event, *stamp)
            .map_err(|Mismatch(reason)| reason),
    }
}

/// I9: each entry is as it was written; this notices when they do not add up to the same state.
pub(crate) fn check_digest(ledger: &Ledger, last: &Header) -> Result<()> {
    if ledger.digest() == last.digest {
        return Ok(());
    }
    Err(Error::Damaged {
        path: "journal".into(),
        what: format!("the state after group {}", last.group),
        reason: "its digest is not the one that was written with it".to_owned(),
    })
}

/// Cleans up what was cut short and recovers what an earlier process left behind.
pub(crate) fn recover(mut parts: Parts) -> Result<Core> {
    let now = parts.clock.now();
    let Replayed {
        head,
        ledger,
        witness,
    } = parts.replayed;
    parts.disk.witness = witness;
    let journal = parts.journal.as_mut();
    fault::point(Point::ReadBack);
    // I7: what is left of a commit that was cut short; gone and synced before anything is added.
    if !fault::bug(Bug::HalfGroupStays) {
        remove_all(journal, head.incomplete.iter().copied(), parts.geometry)?;
    }
    // J3: left over from removals that were cut short, obsolete by a synced group. Nothing reads it, so it
    // goes with the groups to come: thousands of syncs, after a burst, would hold the opening up.
    let below = journal.positions_below(head.last.tail)?;
    parts
        .disk
        .payloads
        .sweep(&ledger.files().collect::<HashSet<u128>>())?;

    let epoch = ledger.epoch() + 1;
    let mut core = Core {
        now,
        watch: ClockWatch::new(now),
        ledger,
        geometry: parts.geometry,
        chain: head.chain(epoch),
        draft: Draft::new(parts.geometry),
        reader: Reader::default(),
        tail: head.last.tail,
        removals: VecDeque::from(below),
        holds: Holds::default(),
        disk: parts.disk,
        limits: parts.limits,
        pools: parts.pools,
        running: FxHashMap::default(),
        limited: FxHashSet::default(),
        hand_claims: Vec::new(),
        places: Places::default(),
        late_places: FxHashMap::default(),
        inbox: parts.inbox,
        hub: parts.hub,
        pending: Pending::default(),
        waiters: Waiters::default(),
        mode: Mode::Open,
        claims: true,
        poisoned: None,
        given_back: 0,
        late_answers: 0,
        work: Work::default(),
        jitter_seed: sys::random_u64(),
        free_space: super::core::FreeSpace::default(),
        watchdog: parts.watchdog,
        clock: parts.clock,
        journal: Some(parts.journal),
    };
    core.begin_epoch(epoch, head.last.at_ms)?;
    Ok(core)
}

impl Core {
    /// The one group that opening writes: the new epoch, and the end of all older leases.
    fn begin_epoch(&mut self, epoch: u64, last_at_ms: i64) -> Result<()> {
        let recording = self.disk.recorder.read()?;
        self.draft.begin(&self.chain);
        // Time cannot have gone back: the machine has lost it (no battery, no network yet). Spans go back with
        // the clock, and will come forward with it.
        if self.now.wall_ms < last_at_ms {
            self.push(&Event::ClockStepped {
                before_ms: last_at_ms,
                by_ms: self.now.wall_ms.saturating_sub(last_at_ms),
            })?;
        }
        self.push(&Event::Opened {
            epoch,
            boot: sys::boot_id(),
            steady_ms: crate::job::millis(self.now.steady),
            writer: env!("CARGO_PKG_VERSION").into(),
        })?;
        let verdict = |id: JobId, lease: &LeaseRecord| {
            recording.verdict(lease.epoch, id.number(), lease.claim)
        };
        for event in self.ledger.recover(verdict) {
            self.push(&event)?;
            if let Event::Recovered { id, .. } = event {
                self.make_due_again(id)?;
            }
        }
        if fault::bug(Bug::RecorderClearedEarly) {
            self.disk.recorder.start_epoch(epoch);
        }
        self.commit()?;
        fault::point(Point::Recovered);
        // E6: cleared only now, that what it said about the older claims is in the journal.
        self.disk.recorder.start_epoch(epoch);
        if let Some(witness) = &self.disk.witness {
            witness.sync()?;
        }
        self.pending = Pending::default();
        self.ledger.judge(self.now.wall_ms);
        Ok(())
    }
}

/// Opens the witness and checks that the journal has all that it saw acknowledged. `None` if it is
/// missing or unreadable.
fn open_witness(dir: &Path, head: &Head) -> Result<Option<Witness>> {
    let last = &head.last;
    let (store, path) = (dir.to_owned(), Store::at(dir).witness());
    if fault::bug(Bug::WitnessIgnored) {
        return Ok(None);
    }
    match Witness::open(&path, last.store)? {
        Found::Marked(_, mark) if last.group < mark.group => Err(Error::Missing {
            path: store,
            witnessed: mark.group,
            position: mark.position,
            found: last.group,
        }),
        Found::Marked(_, mark)
            if last.group == mark.group && (last.hash, last.digest) != (mark.hash, mark.digest) =>
        {
            Err(Error::Damaged {
                path: store,
                what: format!("group {}", last.group),
                reason: "the witness saw another content acknowledged under this number".to_owned(),
            })
        }
        Found::Marked(witness, _) => Ok(Some(witness)),
        Found::Missing | Found::Unreadable => Ok(None),
    }
}

/// Makes the witness anew, of a journal that was found whole.
fn make_witness(dir: &Path, head: &Head) -> Result<Witness> {
    let path = Store::at(dir).witness();
    let last = &head.last;
    // A store that was made a moment ago has none yet either.
    if last.group > 1 {
        log::warn!(
            "{}: the witness is missing or unreadable; it is made anew",
            path.display()
        );
    }
    let mark = Mark {
        epoch: last.epoch,
        group: last.group,
        position: last.position,
        hash: last.hash,
        digest: last.digest,
        journal_bytes: 0,
    };
    Witness::create(&path, last.store, &mark)
}

/// Makes the first group of a store: its root record.
pub(crate) fn first_group(
    chain: &mut Chain,
    geometry: Geometry,
    now_ms: i64,
) -> Result<Vec<Sealed>> {
    let mut ledger = Ledger::new(Setup::default(), now_ms);
    let mut draft = Draft::new(geometry);
    draft.begin(chain);
    let event = Event::RootSet(ledger.root());
    let place = draft.push(&event)?;
    let stamp = Stamp {
        place,
        at_ms: now_ms,
        epoch: chain.epoch,
    };
    ledger
        .apply(&event, stamp)
        .map_err(|Mismatch(reason)| Error::Bug(reason))?;
    let tail = draft.first_position();
    Ok(draft.seal(chain, now_ms, tail, ledger.digest()))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::journal::{Header, MemoryDisk, StoreHeader, commit};
    use crate::ledger::RootRecord;

    /// Replays one group that names this digest, beside a witness that is missing.
    fn read(digest: Option<u128>) -> (Result<()>, bool) {
        let dir = TempDir::new().unwrap();
        let header = StoreHeader {
            store: 7,
            geometry: Geometry::DEFAULT,
        };
        let mut chain = header.first_chain();
        let group = match digest {
            None => first_group(&mut chain, header.geometry, 0).unwrap(),
            Some(digest) => {
                let mut draft = Draft::new(header.geometry);
                draft.begin(&chain);
                draft.push(&Event::RootSet(RootRecord::default())).unwrap();
                draft.seal(&mut chain, 0, 1, digest)
            }
        };
        let mut journal = MemoryDisk::default().journal();
        commit(&mut journal, &group, &mut VecDeque::new(), header.geometry).unwrap();
        let read = read_back(&mut journal, 7, Some(dir.path()), Setup::default(), 0);
        (read.map(drop), dir.path().join("witness").exists())
    }

    fn head(group: u64) -> Head {
        let last = Header {
            store: 7,
            epoch: 1,
            group,
            part: 0,
            parts: 1,
            position: 40 + group,
            at_ms: 0,
            tail: 1,
            digest: 1_000 + u128::from(group),
            previous: [0; 32],
            hash: [u8::try_from(group).unwrap(); 32],
        };
        Head {
            last,
            incomplete: Vec::new(),
        }
    }

    /// What the witness saw acknowledged is there, with that very content; more may be there.
    #[test]
    fn the_journal_is_held_against_its_witness() {
        let dir = TempDir::new().unwrap();
        assert!(open_witness(dir.path(), &head(5)).unwrap().is_none());
        make_witness(dir.path(), &head(5)).unwrap();
        for group in [5, 6] {
            assert!(open_witness(dir.path(), &head(group)).unwrap().is_some());
        }
        let lost = open_witness(dir.path(), &head(4)).unwrap_err();
        let numbers = match lost {
            Error::Missing {
                witnessed,
                position,
                found,
                ..
            } => (witnessed, position, found),
            other => panic!("{other}"),
        };
        assert_eq!(numbers, (5, 45, 4));
        let [mut other_hash, mut other_digest] = [head(5), head(5)];
        other_hash.last.hash[31] ^= 1;
        other_digest.last.digest += 1;
        for other in [other_hash, other_digest] {
            let refused = open_witness(dir.path(), &other).unwrap_err();
            assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
        }
    }

    #[test]
    fn a_witness_is_made_only_of_a_journal_that_is_whole() {
        let (read_whole, made) = read(None);
        read_whole.unwrap();
        assert!(made);
        let (refused, made) = read(Some(99));
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
        assert!(!made, "a witness of damage");
    }
}
