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
//! # The file
//!
//! Places of 64 bytes, numbered by the caller from 0; place `n` is at `64 * (n + 1)`, the head at 0. An
//! empty place is all zero. Numbers are little-endian:
//!
//! | bytes  | content                                                            |
//! |--------|--------------------------------------------------------------------|
//! | 0..16  | store id                                                           |
//! | 16..24 | epoch                                                              |
//! | 24..32 | boot id, both halves xored; 0 if unknown                           |
//! | 32..40 | job                                                                |
//! | 40..48 | claim                                                              |
//! | 48..56 | the claim that ended just before, on the same thread; 0: none      |
//! | 56     | version, 2                                                         |
//! | 57     | 1 started, 2 ended; in the head: 3 sound, 4 impaired               |
//! | 58..60 | zero                                                               |
//! | 60..64 | low half of XXH3-64 over bytes 0..60 and the place's number, which is 2³² − 1 for the head |
//!
//! After [`Recorder::close`] nothing is written: a handler may outlive its engine, and the file is the next
//! epoch's by then.
//!
//! A place may be used again only once its claim's settle is synced, and nothing is cleared before
//! recovery is synced; both are the caller's to keep.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::fault::{self, Bug};
use crate::ledger::Verdict;
use crate::sys::sync::RwLock;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::{self, files};

const PLACE_LEN: usize = 64;
const VERSION: u8 = 2;
const HEAD_PLACE: u32 = u32::MAX;

/// More places than any engine has slots: bounds what is read at 64 MiB.
const PLACES_MAX: u32 = 1 << 20;
const FILE_LEN_MAX: u64 = place_offset(PLACES_MAX);

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Started,
    Ended,
    Sound,
    Impaired,
}

/// The 64 bytes of a place, or of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    store: u128,
    epoch: u64,
    boot: u64,
    job: u64,
    claim: u64,
    after: u64,
    mark: Mark,
}

impl Record {
    fn encode(&self, place: u32) -> [u8; PLACE_LEN] {
        let mut bytes = [0; PLACE_LEN];
        let mut rest = bytes.as_mut_slice();
        for field in [
            &self.store.to_le_bytes()[..],
            &self.epoch.to_le_bytes(),
            &self.boot.to_le_bytes(),
            &self.job.to_le_bytes(),
            &self.claim.to_le_bytes(),
            &self.after.to_le_bytes(),
            &[VERSION, self.mark.code()],
        ] {
            // Together they are shorter than a place.
            let _ = rest.write_all(field);
        }
        let check = check(&bytes, place);
        if let Some(last) = bytes.last_chunk_mut() {
            *last = check;
        }
        bytes
    }

    /// `None` for whatever [`Record::encode`] did not write for this place, cut bytes included.
    fn decode(bytes: &[u8], place: u32) -> Option<Record> {
        let bytes: &[u8; PLACE_LEN] = bytes.try_into().ok()?;
        if *bytes.last_chunk()? != check(bytes, place) {
            return None;
        }
        let mut rest = bytes.as_slice();
        let record = Record {
            store: u128::from_le_bytes(take(&mut rest)?),
            epoch: u64::from_le_bytes(take(&mut rest)?),
            boot: u64::from_le_bytes(take(&mut rest)?),
            job: u64::from_le_bytes(take(&mut rest)?),
            claim: u64::from_le_bytes(take(&mut rest)?),
            after: u64::from_le_bytes(take(&mut rest)?),
            mark: match take(&mut rest)? {
                [VERSION, code] => Mark::of_code(code)?,
                _ => return None,
            },
        };
        Some(record)
    }
}

impl Mark {
    fn code(self) -> u8 {
        match self {
            Mark::Started => 1,
            Mark::Ended => 2,
            Mark::Sound => 3,
            Mark::Impaired => 4,
        }
    }

    fn of_code(code: u8) -> Option<Mark> {
        [Mark::Started, Mark::Ended, Mark::Sound, Mark::Impaired]
            .into_iter()
            .find(|mark| mark.code() == code)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

/// Over all but the last four bytes, which are the check's own, and the place.
fn check(bytes: &[u8; PLACE_LEN], place: u32) -> [u8; 4] {
    let mut checked = *bytes;
    if let Some(last) = checked.last_chunk_mut() {
        *last = place.to_le_bytes();
    }
    let [a, b, c, d, ..] = xxh3_64(&checked).to_le_bytes();
    [a, b, c, d]
}

/// Where a place begins; the head is before all places.
const fn place_offset(place: u32) -> u64 {
    // A u32 plus one, times 64: it cannot overflow. `u64::from` is not const.
    (place as u64 + 1) << PLACE_LEN.ilog2()
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const STORE: u128 = u128::MAX / 3;

    fn spot(epoch: u64, place: u32, job: u64, claim: u64) -> Spot {
        let after = 0;
        Spot {
            epoch,
            place,
            job,
            claim,
            after,
        }
    }

    /// A recorder whose machine was booted as `boot`.
    fn opened(dir: &TempDir, store: u128, boot: u64) -> Recorder {
        let path = dir.path().join("recorder");
        Recorder {
            boot,
            ..Recorder::open(&path, store).unwrap()
        }
    }

    fn bytes(dir: &TempDir) -> Vec<u8> {
        fs::read(dir.path().join("recorder")).unwrap()
    }

    /// Epoch 5: claim 10 started, claim 11 ended, claim 12 never ran.
    fn crashed() -> TempDir {
        let dir = TempDir::new().unwrap();
        let recorder = opened(&dir, STORE, 1);
        recorder.start_epoch(5);
        recorder.begin(&spot(5, 0, 100, 10));
        recorder.begin(&spot(5, 1, 101, 11));
        recorder.end(&spot(5, 1, 101, 11));
        dir
    }

    fn verdicts(recording: &Recording) -> [Verdict; 3] {
        [(100, 10), (101, 11), (102, 12)].map(|(job, claim)| recording.verdict(5, job, claim))
    }

    const PROVEN: [Verdict; 3] = [Verdict::Started, Verdict::Ended, Verdict::NotStarted];
    const NO_ABSENCE: [Verdict; 3] = [Verdict::Started, Verdict::Ended, Verdict::Started];
    const NOTHING: [Verdict; 3] = [Verdict::Started; 3];

    #[test]
    fn the_store_is_told_from_outside() {
        let dir = crashed();
        let told = || store_told(&dir.path().join("recorder"));
        assert_eq!(told(), Some(STORE));
        fs::write(dir.path().join("recorder"), [7; 640]).unwrap();
        assert_eq!(told(), None);
        fs::remove_file(dir.path().join("recorder")).unwrap();
        assert_eq!(told(), None);
    }

    #[test]
    fn both_halves_of_a_boot_count() {
        assert_eq!(folded(0), 0);
        assert_eq!(folded(6 << 64 | 3), 5);
        assert_eq!(folded(u128::from(u64::MAX) << 64 | 1), u64::MAX - 1);
    }

    #[test]
    fn a_crash_leaves_what_was_recorded() {
        let dir = crashed();
        let recorder = opened(&dir, STORE, 1);
        let recording = recorder.read().unwrap();
        let trace = Trace {
            epoch: 5,
            same_boot: true,
            job: 100,
            claim: 10,
            after: 0,
            phase: Phase::Started,
        };
        let ended = Trace {
            job: 101,
            claim: 11,
            phase: Phase::Ended,
            ..trace
        };
        assert_eq!(
            recording,
            Recording {
                traces: vec![trace, ended],
                complete_epoch: Some(5)
            }
        );
        assert_eq!(verdicts(&recording), PROVEN);
        assert_eq!(
            recorder.read().unwrap(),
            recording,
            "reading changes nothing"
        );
        assert_eq!(
            recording.verdict(4, 100, 10),
            Verdict::Started,
            "another epoch is unknown"
        );
    }

    #[test]
    fn a_new_epoch_forgets_and_vouches() {
        let dir = crashed();
        let recorder = opened(&dir, STORE, 1);
        recorder.start_epoch(6);
        let recording = recorder.read().unwrap();
        assert_eq!(
            recording,
            Recording {
                traces: vec![],
                complete_epoch: Some(6)
            }
        );
        assert_eq!(verdicts(&recording), NOTHING);
        assert_eq!(bytes(&dir).len(), RESERVED_LEN);
    }

    #[test]
    fn a_place_is_used_again() {
        let dir = crashed();
        let recorder = opened(&dir, STORE, 1);
        recorder.begin(&spot(5, 1, 102, 12));
        let recording = recorder.read().unwrap();
        assert_eq!(recording.verdict(5, 102, 12), Verdict::Started);
        assert_eq!(recording.traces.len(), 2);
    }

    #[test]
    fn another_boot_store_or_an_unknown_boot_prove_nothing() {
        let dir = crashed();
        let rebooted = opened(&dir, STORE, 2).read().unwrap();
        assert!(rebooted.traces.len() == 2 && rebooted.traces.iter().all(|t| !t.same_boot));
        assert_eq!(verdicts(&rebooted), NOTHING);
        let foreign = opened(&dir, STORE + 1, 1).read().unwrap();
        assert_eq!(foreign, Recording::default());

        let unknown = opened(&dir, STORE, 0);
        unknown.start_epoch(5);
        unknown.begin(&spot(5, 0, 100, 10));
        unknown.end(&spot(5, 0, 100, 10));
        assert_eq!(verdicts(&unknown.read().unwrap()), NOTHING);
    }

    #[test]
    fn a_lost_or_empty_file_proves_nothing() {
        let dir = TempDir::new().unwrap();
        assert_eq!(verdicts(&opened(&dir, STORE, 1).read().unwrap()), NOTHING);
        let dir = crashed();
        fs::remove_file(dir.path().join("recorder")).unwrap();
        assert_eq!(verdicts(&opened(&dir, STORE, 1).read().unwrap()), NOTHING);
    }

    #[test]
    fn a_begin_that_fails_withdraws_the_head() {
        let dir = crashed();
        let recorder = opened(&dir, STORE, 1);
        recorder.end(&spot(5, PLACES_MAX, 102, 12));
        assert_eq!(
            verdicts(&recorder.read().unwrap()),
            PROVEN,
            "a lost end is harmless"
        );
        recorder.begin(&spot(5, PLACES_MAX, 102, 12));
        assert_eq!(verdicts(&recorder.read().unwrap()), NO_ABSENCE);
        recorder.begin(&spot(5, 7, 103, 13));
        assert_eq!(
            recorder.read().unwrap().complete_epoch,
            None,
            "and it stays so"
        );
        recorder.start_epoch(6);
        assert_eq!(
            recorder.read().unwrap().complete_epoch,
            Some(6),
            "until the next epoch"
        );
    }

    #[test]
    fn a_file_that_cannot_be_written_stops_nobody() {
        let dir = crashed();
        let path = dir.path().join("recorder");
        let file = Some((File::open(&path).unwrap(), path));
        let broken = Recorder {
            file,
            ..opened(&dir, STORE, 1)
        };
        broken.start_epoch(6);
        broken.begin(&spot(6, 0, 1, 1));
        broken.end(&spot(6, 0, 1, 1));
        assert!(broken.warned.load(Ordering::Relaxed));
        assert_eq!(verdicts(&broken.read().unwrap()), PROVEN);
    }

    #[test]
    fn without_a_file_nothing_happens() {
        let none = Recorder::none();
        none.start_epoch(1);
        none.begin(&spot(1, u32::MAX, 1, 1));
        none.end(&spot(1, 0, 1, 1));
        assert_eq!(none.read().unwrap(), Recording::default());
    }

    /// A handler that outlived its engine noted its end in the file of the next epoch.
    #[test]
    fn nothing_is_written_once_it_is_closed() {
        let dir = TempDir::new().unwrap();
        let [old, new] = [(); 2].map(|()| opened(&dir, STORE, 1));
        old.start_epoch(5);
        assert!(old.begin(&spot(5, 0, 100, 10)));
        old.close();
        new.start_epoch(6);
        assert!(new.begin(&spot(6, 0, 101, 11)));
        old.end(&spot(5, 0, 100, 10));
        assert!(!old.begin(&spot(5, 0, 102, 12)), "and no handler runs");
        let recording = new.read().unwrap();
        assert_eq!(recording.verdict(6, 101, 11), Verdict::Started);
        assert_eq!(recording.traces.len(), 1);
    }

    #[test]
    fn every_damaged_byte_takes_the_proof_away() {
        let dir = crashed();
        let whole = bytes(&dir);
        for at in 0..4 * PLACE_LEN {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(dir.path().join("recorder"), &damaged).unwrap();
            let recording = opened(&dir, STORE, 1).read().unwrap();
            assert_eq!(recording.complete_epoch, None, "byte {at}");
            assert_eq!(recording.verdict(5, 102, 12), Verdict::Started, "byte {at}");
        }
        for len in [0, 1, 63, 65, 100, 150] {
            fs::write(dir.path().join("recorder"), &whole[..len]).unwrap();
            let recording = opened(&dir, STORE, 1).read().unwrap();
            assert_eq!(recording.complete_epoch, None, "{len} bytes");
        }
    }

    #[test]
    fn a_record_at_another_place_is_garbage() {
        let dir = crashed();
        let mut moved = bytes(&dir);
        moved.copy_within(PLACE_LEN..2 * PLACE_LEN, 5 * PLACE_LEN);
        fs::write(dir.path().join("recorder"), moved).unwrap();
        let recording = opened(&dir, STORE, 1).read().unwrap();
        assert_eq!(
            (recording.traces.len(), recording.complete_epoch),
            (2, None)
        );
    }

    #[test]
    fn random_bytes_never_panic() {
        let dir = TempDir::new().unwrap();
        let mut noise = blake3::Hasher::new_keyed(&[9; 32]).finalize_xof();
        for len in 0..400 {
            let mut bytes = vec![0; len];
            noise.fill(&mut bytes);
            fs::write(dir.path().join("recorder"), &bytes).unwrap();
            let recording = opened(&dir, STORE, 1).read().unwrap();
            assert_eq!(recording, Recording::default());
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let (store, epoch, boot, job, claim, after) = (STORE, 2, 3, 4, 5, 6);
        let record = Record {
            store,
            epoch,
            boot,
            job,
            claim,
            after,
            mark: Mark::Ended,
        };
        let bytes = record.encode(7);
        assert_eq!((place_offset(0), place_offset(6)), (64, 7 * 64));
        assert_eq!(bytes[..16], STORE.to_le_bytes());
        let fields = [16, 24, 32, 40, 48, 56, 57, 58].map(|at| bytes[at]);
        assert_eq!(fields, [2, 3, 4, 5, 6, 2, 2, 0]);
        let checked = [&bytes[..60], &7_u32.to_le_bytes()].concat();
        assert_eq!(bytes[60..], xxh3_64(&checked).to_le_bytes()[..4]);
        assert_eq!(Record::decode(&bytes, 7), Some(record));
        assert_eq!(Record::decode(&bytes, 8), None);
    }

    /// One write says of two claims what became of them, and goes on saying it when the second ends.
    #[test]
    fn a_begin_tells_of_the_end_before_it() {
        let dir = TempDir::new().unwrap();
        let recorder = opened(&dir, STORE, 1);
        recorder.start_epoch(5);
        recorder.begin(&spot(5, 0, 100, 10));
        let second = Spot {
            after: 10,
            ..spot(5, 1, 101, 11)
        };
        let told = || {
            let recording = recorder.read().unwrap();
            [(100, 10), (101, 11), (102, 0)].map(|(job, claim)| recording.verdict(5, job, claim))
        };
        recorder.begin(&second);
        let [ended, started, never] = [Verdict::Ended, Verdict::Started, Verdict::NotStarted];
        assert_eq!(told(), [ended, started, never]);
        recorder.end(&second);
        assert_eq!(told(), [ended, ended, never]);
        // Of another epoch it says nothing.
        let other = recorder.read().unwrap().verdict(4, 100, 10);
        assert_eq!(other, Verdict::Started);
    }

    #[test]
    fn threads_record_at_once() {
        let dir = TempDir::new().unwrap();
        let recorder = opened(&dir, STORE, 1);
        recorder.start_epoch(1);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let recorder = &recorder;
                scope.spawn(move || {
                    for place in (thread * 500)..(thread * 500 + 500) {
                        recorder.begin(&spot(1, place, u64::from(place), u64::from(place) + 1));
                        if place % 2 == 0 {
                            recorder.end(&spot(1, place, u64::from(place), u64::from(place) + 1));
                        }
                    }
                });
            }
        });
        let recording = recorder.read().unwrap();
        assert_eq!(
            (recording.traces.len(), recording.complete_epoch),
            (2_000, Some(1))
        );
        for place in 0..2_000_u64 {
            let want = if place % 2 == 0 {
                Verdict::Ended
            } else {
                Verdict::Started
            };
            assert_eq!(recording.verdict(1, place, place + 1), want);
        }
    }
}
