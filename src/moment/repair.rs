//! A new store of what is left of a damaged one, and a list of what is not.

use std::collections::HashMap;
use std::path::Path;

use crate::clock::{Clock, SystemClock};
use crate::engine::{in_store, store_told};
use crate::error::{Error, Result};
use crate::job::{Content, DeadReason, JobId, OnCrash, PayloadRef, State};
use crate::journal::{
    Carved, End, Geometry, Glimpse, Header, Payloads, Remains, Store, StoreHeader, Testimony,
    glimpse, rescue,
};
use crate::ledger::{Event, History, Mismatch, NewRecord, Payload, Phase, Place, Standing};
use crate::sys;
use crate::sys::lock::{self, ReadLock};

use super::build::NewJournal;
use super::built::{make_witness, read_built};
use super::part::{Part, check_room, or_no_room};
use super::salvage::Salvage;

/// What [`repair`] found and made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    counts: [u64; State::ALL.len()],
    /// The time of the newest group that was found: wall-clock milliseconds. What was made is the store as it was
    /// then, as far as that is known.
    pub at_ms: i64,
    /// The newest group that was found.
    pub group: u64,
    /// The newest group that was acknowledged, by the witness; `None` if that could not be read.
    pub witnessed: Option<u64>,
    /// Whether everything that was acknowledged is there at the journal's end.
    pub end: JournalEnd,
    /// Entries found in the bytes of the files, also such as are not needed any more.
    pub entries_in_bytes: u64,
    /// Entries that sled gave of a copy; `None` if it was not asked, because the bytes held all, or gave nothing.
    pub entries_by_sled: Option<u64>,
    /// Bytes that the disk did not give.
    pub unreadable_bytes: u64,
    /// Positions of the journal that are missing, first and last of each gap, rising. A gap may hold nothing that
    /// mattered: see [`is_whole`](RepairReport::is_whole).
    pub gaps: Vec<(u64, u64)>,
    /// Jobs in the new store as they were last seen. They may have moved on in the part that is lost: they may have
    /// completed, or been cancelled or deleted. Unfinished ones run (again). By rising id.
    pub uncertain: Vec<UncertainJob>,
    /// Jobs that are not in the new store, and of which something is known. By rising id.
    pub lost: Vec<LostJob>,
    /// Ids that were or may have been given out, of which nothing is known, first and last of each range, rising.
    /// Most may be those of jobs that were deleted long ago.
    pub unknown_ids: Vec<(u64, u64)>,
    /// Large payloads and outputs that are missing or damaged. By rising job.
    pub lost_files: Vec<LostFile>,
    /// Large payloads and outputs that were copied.
    pub payload_files: u64,
    /// The id that the next job will get: above all that may have been given out.
    pub next_id: u64,
}

/// Whether a journal ends with what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalEnd {
    /// With all that the witness saw acknowledged.
    Whole,
    /// Acknowledged groups are missing.
    Missing,
    /// There is no witness that could be believed: acknowledged groups may be missing.
    Unknown,
}

/// A job in a repaired store that may have moved on in the part that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UncertainJob {
    /// The job.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its state in the new store.
    pub state: State,
    /// It waited, must not run twice, and may have run: so it was made dead.
    pub stopped: bool,
}

/// A job that a repair could not save.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostJob {
    /// The job.
    pub id: JobId,
    /// Its kind, if an entry tells.
    pub kind: Option<String>,
    /// What is known of it.
    pub known: String,
}

/// A large payload or output that is missing or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostFile {
    /// Its job. Without its payload a job is lost; without its output it is whole otherwise.
    pub id: JobId,
    /// `payload` or `output`.
    pub what: &'static str,
    /// What is wrong with the file.
    pub reason: String,
}

impl RepairReport {
    /// Jobs in the new store, finished ones included.
    pub fn jobs(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Jobs in a state. Whether a waiting one is scheduled or ready is judged by the clock.
    pub fn count(&self, state: State) -> u64 {
        self.counts.get(state as usize).copied().unwrap_or(0)
    }

    /// Whether the new store is known to hold everything: all jobs, each exactly as it was acknowledged last.
    pub fn is_whole(&self) -> bool {
        self.end == JournalEnd::Whole
            && self.uncertain.is_empty()
            && self.lost.is_empty()
            && self.unknown_ids.is_empty()
            && self.lost_files.is_empty()
    }
}

/// Makes a new store in `to` of what can be read of the store in `from`, and lists what cannot. For a store that does
/// not open any more, because its files are damaged or some are missing. `to` must not be there yet, or be an empty
/// directory.
///
/// Nothing in `from` is changed, and no engine can open it meanwhile. Keep it: what is listed as lost may still be
/// of use, and a later version may read more.
///
/// The journal's entries are searched in the bytes of its files, each proven by its own hash; where some are
/// missing, sled is asked as well, on a copy. Events are folded as at every opening. Jobs keep their ids, keys and
/// times; the new store has an id of its own. Ids and claim numbers go on above all that may have been given out.
///
/// A job of which a later part is lost is kept as it was last seen, and listed as uncertain: it may have completed,
/// and runs again, for a job runs *at least* once. One that must not run twice
/// ([`OnCrash::Dead`](crate::OnCrash::Dead)) and may have run is made dead. A job whose payload is lost is lost; its
/// key stays taken for its time.
///
/// The new store is built in `<to>.part`, read back from the disk, verified, and has its name last.
///
/// *Blocking:* until everything is read, stored, synced and read back. Takes as much memory as an engine would for
/// its jobs, and one payload.
/// *Durability:* on return the new store, name included, is on stable storage.
///
/// # Errors
///
/// [`Error::NothingLeft`] if nothing of a journal is left, [`Error::NotAStore`] if there never was one;
/// [`Error::Locked`] if somebody has it open; [`Error::NewerFormat`] and [`Error::Layout`] if another build wrote it;
/// [`Error::Occupied`] if something is at `to` or `<to>.part`; [`Error::NoRoom`], [`Error::Io`]. After any of them
/// nothing is left of `to`.
///
/// ```
/// # use jobsled::{Engine, State, job, rkyv};
/// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// # struct Tick;
/// # job!(Tick, kind = "tick");
/// # let dir = tempfile::tempdir().expect("a temporary directory");
/// # let (store, new) = (dir.path().join("jobs"), dir.path().join("new"));
/// let engine = Engine::builder(&store).open()?;
/// engine.enqueue(Tick)?;
/// drop(engine);
/// // Somebody tidied up.
/// std::fs::remove_file(store.join("journal").join("conf")).expect("it is there");
/// std::fs::remove_file(store.join("journal").join("jobsled")).expect("it is there");
/// assert!(Engine::builder(&store).open().is_err());
///
/// let report = jobsled::repair(&store, &new)?;
/// assert!(report.is_whole() && report.count(State::Ready) == 1);
/// assert_eq!(Engine::builder(&new).open()?.jobs().count()?, 1);
/// # Ok::<(), jobsled::Error>(())
/// ```
pub fn repair(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<RepairReport> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let old = Store::at(from);
    check_remains(from, &old)?;
    check_apart(from, to)?;
    let lock = ReadLock::acquire(from)?;
    let header = old_header(&old)?;
    let part = Part::begin(to)?;
    let seen = glimpse(&old.witness());
    let mut carved = old.carve()?;
    let id = store_id(header, &seen, &carved, &old).ok_or_else(|| nothing_left(from))?;
    let testimony = testimony(&seen, id);
    let is_torn = |remains: &Remains<'_>| !remains.gaps.is_empty() || remains.end == End::Missing;
    if rescue(&carved, id, &testimony).as_ref().is_none_or(is_torn) {
        let geometry = header.map_or(Geometry::DEFAULT, |header| header.geometry);
        ask_sled(&old, part.dir(), geometry, &mut carved)?;
    }
    let remains = rescue(&carved, id, &testimony).ok_or_else(|| nothing_left(from))?;
    let report = RepairReport::begin(&remains, &carved, &testimony);
    let salvage = Salvage::of(&carved, remains).map_err(|e| in_store(e, Some(from)))?;
    let report = build(
        part.dir(),
        salvage,
        &Payloads::found_in(old.payloads()),
        report,
    )?;
    lock.check()?;
    part.put_in_place()?;
    Ok(report)
}

impl RepairReport {
    fn begin(remains: &Remains<'_>, carved: &Carved, testimony: &Testimony) -> RepairReport {
        RepairReport {
            counts: [0; State::ALL.len()],
            at_ms: remains.head.at_ms,
            group: remains.head.group,
            witnessed: testimony.mark.map(|mark| mark.group),
            end: match remains.end {
                End::Whole => JournalEnd::Whole,
                End::Missing => JournalEnd::Missing,
                End::Unknown => JournalEnd::Unknown,
            },
            entries_in_bytes: carved.by_bytes,
            entries_by_sled: carved.by_sled,
            unreadable_bytes: carved.unreadable_bytes,
            gaps: remains.gaps.clone(),
            uncertain: Vec::new(),
            lost: Vec::new(),
            unknown_ids: Vec::new(),
            lost_files: Vec::new(),
            payload_files: 0,
            next_id: 0,
        }
    }
}

/// There must be, or have been, a store.
fn check_remains(dir: &Path, store: &Store) -> Result<()> {
    let found = match std::fs::metadata(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "there is nothing of this name",
        Err(e) => return Err(Error::io("look at", dir)(e)),
        Ok(found) if !found.is_dir() => "it is a file",
        Ok(_) if store.has_remains() => return Ok(()),
        // A store without a journal; where somebody else's files are, that is said instead.
        Ok(_) if lock::is_ours(dir) || store.witness().exists() => return Err(nothing_left(dir)),
        Ok(_) => "there is no journal in it",
    };
    Err(Error::NotAStore {
        path: dir.to_owned(),
        found: found.to_owned(),
    })
}

/// The source is left alone: nothing is built in it.
fn check_apart(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let places = [from, parent.unwrap_or(Path::new("."))].map(std::fs::canonicalize);
    match places {
        [Ok(from), Ok(parent)] if parent.starts_with(&from) => Err(Error::Occupied {
            path: to.to_owned(),
            found: "it lies in the damaged store".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The store header. A damaged one is no hindrance, one of another build is.
fn old_header(store: &Store) -> Result<Option<StoreHeader>> {
    match store.header() {
        Ok(header) => Ok(Some(header)),
        Err(error @ (Error::NewerFormat { .. } | Error::Layout { .. })) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Which store it is. Files of another one may have got in: header, witness, recorder and the most of the entries
/// have one vote each, and in a tie the first of them counts.
fn store_id(
    header: Option<StoreHeader>,
    seen: &Glimpse,
    carved: &Carved,
    store: &Store,
) -> Option<u128> {
    let entries = carved.stores().into_iter().max_by_key(|(_, count)| *count);
    let votes = [
        header.map(|header| header.store),
        seen.marks.first().map(|(store, _)| *store),
        store_told(&store.recorder()),
        entries.map(|(store, _)| store),
    ];
    let mut counts: HashMap<u128, u32> = HashMap::new();
    for vote in votes.into_iter().flatten() {
        *counts.entry(vote).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    votes
        .into_iter()
        .flatten()
        .find(|vote| counts.get(vote) == Some(&most))
}

/// What the witness says of this store.
fn testimony(seen: &Glimpse, id: u128) -> Testimony {
    let own = seen.marks.iter().filter(|(store, _)| *store == id);
    let newest = own
        .map(|(_, mark)| *mark)
        .max_by_key(|mark| (mark.epoch, mark.group));
    Testimony {
        mark: newest,
        doubtful: seen.damaged || seen.marks.iter().any(|(store, _)| *store != id),
    }
}

/// Lets sled read a copy. What goes wrong with it is no hindrance.
fn ask_sled(old: &Store, part: &Path, geometry: Geometry, carved: &mut Carved) -> Result<()> {
    let scratch = part.join("salvage");
    let asked = old.copy_bytes().and_then(|needed| {
        check_room(part, needed)?;
        sys::files::create_dir_private(&scratch)?;
        old.carve_by_sled(&scratch, geometry, carved)
    });
    match asked {
        Err(error @ Error::NewerFormat { .. }) => return Err(error),
        Err(error) => log::info!("nothing was read through sled: {error}"),
        Ok(()) => {}
    }
    sys::files::remove_dir_if_there(&scratch)
}

fn nothing_left(dir: &Path) -> Error {
    Error::NothingLeft {
        path: dir.to_owned(),
    }
}

/// Builds the new store, reads it back and completes the report.
fn build(
    dir: &Path,
    salvage: Salvage<'_>,
    old_payloads: &Payloads,
    report: RepairReport,
) -> Result<RepairReport> {
    let store = Store::at(dir);
    let header = StoreHeader {
        store: sys::random_u128(),
        geometry: Geometry::DEFAULT,
    };
    let payloads = Payloads::in_dir(store.payloads())?;
    let mut made = None;
    let built = store.build(header, |journal| {
        let mut builder = Builder {
            built: NewJournal::new(journal, header, report.at_ms),
            salvage,
            from: old_payloads,
            to: &payloads,
            report,
        };
        builder.fill()?;
        let (last, bytes) = builder.built.end()?;
        made = Some((builder.report, last, bytes));
        Ok(())
    });
    built.map_err(|error| or_no_room(error, dir, 0))?;
    let made = made.ok_or_else(|| Error::Bug("nothing was built".to_owned()));
    let (mut report, last, bytes): (RepairReport, Header, u64) = made?;
    payloads.sync()?;
    make_witness(dir, &last, bytes)?;
    let now_ms = SystemClock.now().wall_ms;
    let read = read_built(dir, Some(&last), now_ms);
    let mut read = read.map_err(|error| in_store(error, Some(dir)))?.folded;
    // I10: every file that is named is there, and as its job says.
    read.tally.files_of(&read.ledger)?.check(&payloads)?;
    report.counts = read.ledger.counts();
    Ok(report)
}

struct Builder<'j, 's> {
    built: NewJournal<'j>,
    salvage: Salvage<'s>,
    from: &'s Payloads,
    to: &'s Payloads,
    report: RepairReport,
}

impl Builder<'_, '_> {
    fn fill(&mut self) -> Result<()> {
        let root = self.salvage.root();
        self.report.next_id = root.next_id;
        // I11: what is neither there nor told of is in this list.
        self.report.unknown_ids = self.salvage.unknown_ids(root.next_id);
        // What it tells of was written in that epoch or before.
        self.built.in_epoch(root.epoch);
        for event in self.salvage.ledger.carry_roots() {
            match event {
                Event::RootSet(_) => self.push(&Event::RootSet(root))?,
                other => self.push(&other)?,
            }
        }
        let jobs: Vec<(JobId, Place)> = self.salvage.ledger.bases().collect();
        for (id, base) in jobs {
            self.job(id, base)?;
        }
        let lost: Vec<_> = self.salvage.lost().map(|(id, t)| (id, t.clone())).collect();
        for (id, trace) in lost {
            let kind = self.salvage.kind_of_lost(id);
            let known = format!("it was {} at {} ms", trace.event, trace.at_ms);
            self.report.lost.push(LostJob { id, kind, known });
        }
        self.report.lost.sort_by_key(|lost| lost.id);
        Ok(())
    }

    fn job(&mut self, id: JobId, base: Place) -> Result<()> {
        let is_doubtful = self.salvage.is_doubtful(base);
        // A key is given to another job only when the first one is gone.
        if is_doubtful && self.salvage.ledger.has_lost_its_key(id) {
            return Ok(());
        }
        let Builder {
            built,
            salvage,
            from,
            to,
            report,
        } = self;
        let stored = salvage.with_job(id, base, |event| match event {
            Event::Carried(job, standing, history) => {
                let files = Files { from, to };
                let saved = Saved::of(job, standing, history, &files, report)?;
                saved.store(is_doubtful, built, report)
            }
            other => Err(Error::Bug(format!("a job that is none: {other:?}"))),
        });
        stored.unwrap_or_else(|| {
            self.report.lost.push(LostJob {
                id,
                kind: None,
                known: "its entry cannot be read any more".to_owned(),
            });
            Ok(())
        })
    }

    fn push(&mut self, event: &Event<'_>) -> Result<()> {
        push(&mut self.built, event)
    }
}

fn push(built: &mut NewJournal<'_>, event: &Event<'_>) -> Result<()> {
    let applied = built.push(event)?;
    applied.map_err(|Mismatch(reason)| Error::Bug(format!("of what was read: {reason}")))
}

/// Where payload files come from and go to.
struct Files<'f> {
    from: &'f Payloads,
    to: &'f Payloads,
}

impl Files<'_> {
    /// Copies a file if it is as its job says; if not, says why.
    fn copy(&self, file: &PayloadRef) -> Result<Option<String>> {
        match self.from.read(file) {
            Ok(bytes) => self.to.put(file, &bytes).map(|()| None),
            Err(Error::Damaged { reason, .. }) => Ok(Some(reason)),
            Err(error) => Ok(Some(error.to_string())),
        }
    }
}

/// A job as it will be stored.
struct Saved<'e> {
    job: NewRecord<'e>,
    standing: Standing,
    history: Option<History>,
    /// Why its payload is lost.
    without: Option<String>,
}

impl<'e> Saved<'e> {
    /// Copies what has a file.
    fn of(
        job: NewRecord<'e>,
        standing: Standing,
        mut history: Option<History>,
        files: &Files<'_>,
        report: &mut RepairReport,
    ) -> Result<Saved<'e>> {
        let id = job.id;
        let mut copy = |file: &PayloadRef, what| -> Result<Option<String>> {
            let lost = files.copy(file)?;
            match lost.clone() {
                None => report.payload_files += 1,
                Some(reason) => report.lost_files.push(LostFile { id, what, reason }),
            }
            Ok(lost)
        };
        let mut without = None;
        if let Payload::File(file) = job.payload {
            without = copy(&file, "payload")?;
        }
        if let Some(history) = &mut history
            && let Some(Content::File(file)) = &history.output
            && without.is_none()
            && copy(file, "output")?.is_some()
        {
            history.output = None;
        }
        Ok(Saved {
            job,
            standing,
            history,
            without,
        })
    }

    fn store(
        mut self,
        is_doubtful: bool,
        built: &mut NewJournal<'_>,
        report: &mut RepairReport,
    ) -> Result<()> {
        let (id, kind) = (self.job.id, self.job.kind.to_owned());
        if let Some(reason) = self.without {
            let known = format!("its payload is lost: {reason}");
            let kind = Some(kind);
            report.lost.push(LostJob { id, kind, known });
            return hold_key(&self.job, built);
        }
        if is_doubtful {
            let stopped = self.stop(report.at_ms);
            let state = state_at(&self.standing, self.job.due_ms, report.at_ms);
            report.uncertain.push(UncertainJob {
                id,
                kind,
                state,
                stopped,
            });
        }
        push(
            built,
            &Event::Carried(self.job, self.standing, self.history),
        )
    }

    /// L11: what may have run and must not run twice is dead. One that was running becomes so at the next opening.
    fn stop(&mut self, at_ms: i64) -> bool {
        if self.job.policy.on_crash != OnCrash::Dead || self.standing.phase != Phase::Waiting {
            return false;
        }
        self.standing.phase = Phase::Dead(DeadReason::Crashed);
        self.standing.finished_at_ms = at_ms;
        self.job.due_ms = at_ms;
        self.job.relative = false;
        let history = self.history.get_or_insert_with(History::default);
        "a part of its story was lost in a damaged store, and it must not run twice"
            .clone_into(&mut history.reason);
        true
    }
}

/// The key of a job that is lost stays taken for its time.
fn hold_key(job: &NewRecord<'_>, built: &mut NewJournal<'_>) -> Result<()> {
    let Some((key, until_ms)) = job.key else {
        return Ok(());
    };
    let event = Event::KeyHeld {
        kind: job.kind.into(),
        key: key.into(),
        id: job.id,
        until_ms,
    };
    push(built, &event)
}

fn state_at(standing: &Standing, due_ms: i64, at_ms: i64) -> State {
    match standing.phase {
        Phase::Waiting if due_ms > at_ms => State::Scheduled,
        Phase::Waiting => State::Ready,
        Phase::Running => State::Running,
        Phase::Completed => State::Completed,
        Phase::Cancelled => State::Cancelled,
        Phase::Dead(_) => State::Dead,
    }
}
