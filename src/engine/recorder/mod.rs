//! The flight recorder: which handlers had started, and which had ended, when the process died.
//!
//! One small positioned write before a handler runs and one after, into the page cache only. That
//! survives the death of the process, which is what it is for; it does not survive the machine, and
//! recovery asks [`Trace::same_boot`] before it believes anything.
//!
//! # What a record proves, and what its absence proves
//!
//! A record is a fact: it is written by the thread that is about to run, or has just run, the handler.
//! The *absence* of a record says "was claimed and never started", which clears the job of
//! suspicion. That conclusion is wrong if a write failed or the file was lost, and
//! then a job that kills its process might do so for ever. So absence counts only beside a valid
//! **head**, written by [`Recorder::start_epoch`]:
//!
//! * no head for that epoch, store and boot: absence proves nothing;
//! * a place whose bytes are neither empty nor a valid record: absence proves nothing;
//! * a [`Recorder::begin`] that could not be written overwrites the head with an *impaired* one, and if
//!   that fails too, cuts the file to nothing. Only if the disk refuses all three, works again without
//!   a reboot, and the process dies in between, is a started job taken for one that was not: one
//!   crash of it goes uncounted. Nothing can be lost or doubled by that, so it is not fatal.
//!
//! Where absence proves nothing, every claimed job of the epoch counts as started
//! ([`Recording::verdict`]). A failed [`Recorder::end`] leaves *started*, which is the careful answer.
//!
//! # One write where two would do
//!
//! A thread that goes from one job to the next at once says both in one record: the next one begins, and the
//! claim before it has ended ([`Spot::after`]). Settles of one thread arrive in order, so as long as the later
//! claim's place is kept, what it says of the earlier one is kept long enough.
//!
//! # What is the caller's to keep
//!
//! After [`Recorder::close`] nothing is written: a handler may outlive its engine, and the file is the next
//! epoch's by then.
//!
//! A place may be used again only once its claim's settle is synced, and nothing is cleared before
//! recovery is synced; both are the caller's to keep.

mod record;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use record::{FILE_LEN_MAX, HEAD_PLACE, Mark, PLACE_LEN, PLACES_MAX, Record, place_offset};

use crate::error::{Error, Result};
use crate::fault::{self, Bug};
use crate::ledger::Verdict;
use crate::sys::sync::RwLock;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::{self, files};

/// Bytes that a new epoch takes on the disk at once, so that a disk which fills up later cannot
/// refuse the records of the first 1,023 places.
const RESERVED_LEN: usize = 64 << 10;

/// Where it is noted that a claim's handler begins, and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) epoch: u64,
    pub(crate) place: u32,
    pub(crate) job: u64,
    pub(crate) claim: u64,
    /// The claim that ended on the same thread just before, and has no end of its own noted; 0: none.
    pub(crate) after: u64,
}

/// How far a handler came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It was about to run, or running.
    Started,
    /// It had returned or panicked; whether its settle is durable only the journal knows.
    Ended,
}

/// One record found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The epoch that wrote it.
    pub(crate) epoch: u64,
    /// Whether the machine still runs as it did then; if not, or if that cannot be known, newer
    /// records may have been lost.
    pub(crate) same_boot: bool,
    /// The job.
    pub(crate) job: u64,
    /// The claim under which it ran.
    pub(crate) claim: u64,
    /// The claim that had ended before this one began; 0: none.
    pub(crate) after: u64,
    /// How far it came.
    pub(crate) phase: Phase,
}

/// All that a recorder file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recording {
    /// Every valid record of this store, of any epoch and boot.
    pub(crate) traces: Vec<Trace>,
    /// The one epoch, if any, of which no start can be missing in `traces`.
    pub(crate) complete_epoch: Option<u64>,
}
impl Recording {
    /// Judges one claim of an epoch that ended in a crash.
    pub(crate) fn verdict(&self, epoch: u64, job: u64, claim: u64) -> Verdict {
        let of_epoch = |trace: &&Trace| trace.same_boot && trace.epoch == epoch;
        let mut traces = self.traces.iter().filter(of_epoch);
        // 0 stands for none.
        let is_told_after = claim != 0 && traces.clone().any(|trace| trace.after == claim);
        if is_told_after && !fault::bug(Bug::EndOverlooked) {
            return Verdict::Ended;
        }
        match traces.find(|trace| (trace.job, trace.claim) == (job, claim)) {
            Some(trace) if trace.phase == Phase::Ended => Verdict::Ended,
            // E7: the head vouches that no start of this epoch is missing.
            None if self.complete_epoch == Some(epoch) => Verdict::NotStarted,
            // Seen to start, or nothing known.
            Some(_) | None => Verdict::Started,
        }
    }
}

/// The open recorder file. Many threads may write at once, each to its own place.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// `None` in engines that live in memory only.
    file: Option<(File, PathBuf)>,
    store: u128,
    boot: u64,
    /// A failure was logged; the next ones are the same one.
    warned: AtomicBool,
    /// The file is not this engine's any more. Read while a record is written: none comes after it is set.
    closed: RwLock<bool>,
}

impl Recorder {
    /// Opens the file, or makes an empty one. Changes nothing that is in it.
    pub(crate) fn open(path: &Path, store: u128) -> Result<Recorder> {
        let file = files::private_file()
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open", path))?;
        let file = Some((file, path.to_path_buf()));
        Ok(Recorder {
            file,
            store,
            boot: folded(sys::boot_id()),
            warned: AtomicBool::new(false),
            closed: RwLock::new(false),
        })
    }

    /// A recorder that records nothing: what it would survive takes the jobs away as well.
    pub(crate) fn none() -> Recorder {
        Recorder {
            file: None,
            store: 0,
            boot: 0,
            warned: AtomicBool::new(false),
            closed: RwLock::new(false),
        }
    }

    /// Reads what the epochs before left. Garbage is skipped, and noted by `complete_epoch`.
    pub(crate) fn read(&self) -> Result<Recording> {
        let Some((file, path)) = &self.file else {
            return Ok(Recording::default());
        };
        let (bytes, mut is_whole) =
            read_bounded(file).map_err(Error::io("read", path.as_path()))?;
        let mut recording = Recording::default();
        let (head, places) = bytes.split_at(PLACE_LEN.min(bytes.len()));
        for (number, bytes) in (0_u32..).zip(places.chunks(PLACE_LEN)) {
            if bytes.iter().all(|&byte| byte == 0) {
                continue;
            }
            match Record::decode(bytes, number) {
                Some(record) if record.store != self.store => {}
                Some(record) => recording.traces.extend(self.trace(&record)),
                None => is_whole = false,
            }
        }
        if is_whole {
            recording.complete_epoch = Record::decode(head, HEAD_PLACE)
                .filter(|head| head.mark == Mark::Sound)
                .filter(|head| head.store == self.store && self.is_this_boot(head.boot))
                .map(|head| head.epoch);
        }
        Ok(recording)
    }

    /// Clears the file and vouches for `epoch` from now on. Called once per opening: after recovery is
    /// synced, because it forgets what recovery read, and before the epoch's first claim.
    ///
    /// A failure is logged and makes absence prove nothing for this epoch.
    pub(crate) fn start_epoch(&self, epoch: u64) {
        let Some((file, _)) = &self.file else { return };
        let mut bytes = self.head(epoch, Mark::Sound).to_vec();
        bytes.resize(RESERVED_LEN, 0);
        // Cut first: if the write then fails, no older head and no older place is left.
        if let Err(refusal) = file
            .set_len(0)
            .and_then(|()| files::write_at(file, 0, &bytes))
        {
            self.impair(epoch, &refusal);
        }
    }

    /// The store is about to be let go: from now on nothing is written. Waits for records on their way.
    pub(crate) fn close(&self) {
        *self.closed.write() = true;
    }

    /// Notes that a handler is about to run, and that the one before it on this thread has ended, if the spot says
    /// so. The place must be free. False if the engine is closed: then the handler must not run, because nobody
    /// would know of it.
    pub(crate) fn begin(&self, spot: &Spot) -> bool {
        let closed = self.closed.read();
        if *closed {
            return false;
        }
        if let Err(refusal) = self.write(spot, Mark::Started) {
            self.impair(spot.epoch, &refusal);
        }
        true
    }

    /// Notes that it has ended, at the spot where its begin is.
    pub(crate) fn end(&self, spot: &Spot) {
        let closed = self.closed.read();
        if *closed {
            return;
        }
        if let Err(refusal) = self.write(spot, Mark::Ended) {
            self.warn(&refusal);
        }
    }

    fn write(&self, spot: &Spot, mark: Mark) -> io::Result<()> {
        let Some((file, _)) = &self.file else {
            return Ok(());
        };
        if spot.place >= PLACES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no such place"));
        }
        let record = Record {
            store: self.store,
            epoch: spot.epoch,
            boot: self.boot,
            job: spot.job,
            claim: spot.claim,
            after: spot.after,
            mark,
        };
        files::write_at(file, place_offset(spot.place), &record.encode(spot.place))
    }

    /// Withdraws the head: a start is missing, so from now on absence proves nothing.
    fn impair(&self, epoch: u64, refusal: &io::Error) {
        self.warn(refusal);
        let Some((file, _)) = &self.file else { return };
        // The head's page is there since the epoch began, so this works on a full disk; cutting works
        // where even that does not. If neither does, there is no third way (see the module's text).
        if files::write_at(file, 0, &self.head(epoch, Mark::Impaired)).is_err() {
            let _ = file.set_len(0);
        }
    }

    fn warn(&self, refusal: &io::Error) {
        let Some((_, path)) = &self.file else { return };
        if !self.warned.swap(true, Ordering::Relaxed) {
            log::warn!(
                "could not write the flight recorder {}: {refusal}. Jobs go on; after a crash all \
                 claimed ones may count as started",
                path.display()
            );
        }
    }

    fn head(&self, epoch: u64, mark: Mark) -> [u8; PLACE_LEN] {
        let Recorder { store, boot, .. } = *self;
        let head = Record {
            store,
            epoch,
            boot,
            job: 0,
            claim: 0,
            after: 0,
            mark,
        };
        head.encode(HEAD_PLACE)
    }

    fn trace(&self, record: &Record) -> Option<Trace> {
        let phase = match record.mark {
            Mark::Started => Phase::Started,
            Mark::Ended => Phase::Ended,
            Mark::Sound | Mark::Impaired => return None,
        };
        let Record {
            epoch,
            job,
            claim,
            after,
            ..
        } = *record;
        Some(Trace {
            epoch,
            same_boot: self.is_this_boot(record.boot),
            job,
            claim,
            after,
            phase,
        })
    }

    fn is_this_boot(&self, boot: u64) -> bool {
        // Two unknown boots are not the same one.
        boot != 0 && boot == self.boot
    }
}

/// The store that a recorder's head is of. Changes nothing; `None` if that cannot be read.
pub(crate) fn store_told(path: &Path) -> Option<u128> {
    let mut head = [0; PLACE_LEN];
    let file = File::open(path).ok()?;
    files::read_at(&file, 0, &mut head).ok()?;
    Record::decode(&head, HEAD_PLACE).map(|head| head.store)
}

/// The file's bytes, and whether they are all of it.
fn read_bounded(file: &File) -> io::Result<(Vec<u8>, bool)> {
    let mut reader = file;
    reader.rewind()?;
    let mut bytes = Vec::new();
    reader.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    Ok((bytes, file.metadata()?.len() <= FILE_LEN_MAX))
}

/// Both halves of a boot's id.
#[expect(clippy::cast_possible_truncation, reason = "the halves, one by one")]
fn folded(boot: u128) -> u64 {
    boot as u64 ^ (boot >> 64) as u64
}
