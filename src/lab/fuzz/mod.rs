//! What the fuzz targets (`fuzz/`) reach inside the crate for: bytes in, a word or what is broken out.
//!
//! Each function answers what a reader makes of its bytes. A refusal is as good as an answer; an `Err(String)` is a
//! promise that was broken. A panic is always a bug.

mod events;

use std::collections::VecDeque;
use std::path::Path;

use crate::error::{Error, Result};
use crate::journal::{
    Chain, Draft, Frames, Geometry, Header, Journal, MemoryDisk, ReadError, Store, Witness, commit,
    event_at, glimpse,
};
use crate::ledger::{Event, Ledger, Setup, Stamp};
use crate::sys::lock::{ReadLock, StoreLock};

use events::Choices;

/// The store that the entries and files of the targets belong to.
pub const STORE: u128 = 7;
/// The time of the entries that are made here.
const AT_MS: i64 = 1_000;
/// A frame of so many bytes, written anew, may be longer than a frame can be: its archive need not be as we write it.
const SURELY_FITS: usize = 40_000;

fn chain() -> Chain {
    Chain {
        epoch: 1,
        ..Chain::first(STORE)
    }
}

/// Reads an entry and writes its events anew, which must read the same. How many there are; `None` if the entry is
/// refused.
///
/// # Errors
///
/// What is not the same.
pub fn entry(bytes: &[u8]) -> Result<Option<u64>, String> {
    let Ok(header) = Header::read(bytes) else {
        return Ok(None);
    };
    let mut count = 0;
    for frame in Frames::new(bytes, &header) {
        let (event, place) = match frame {
            Ok(read) => read,
            Err(ReadError::Newer { .. } | ReadError::Damaged(_)) => return Ok(None),
        };
        let again = event_at(bytes, place.offset);
        if again.as_ref() != Ok(&event) {
            return Err(format!(
                "{event:?} is {again:?} when it is read by its place"
            ));
        }
        if event != Event::Skipped && usize::from(place.len) <= SURELY_FITS {
            written(&event, header.at_ms)?;
        }
        count += 1;
    }
    Ok(Some(count))
}

/// The event's frame; it must read back as the event.
fn written(event: &Event<'_>, at_ms: i64) -> Result<Vec<u8>, String> {
    let bytes = sealed(event, at_ms).map_err(|e| format!("{event:?} cannot be written: {e}"))?;
    let header = Header::read(&bytes).map_err(|e| format!("{event:?} is sealed into {e:?}"))?;
    let read: Vec<_> = Frames::new(&bytes, &header).collect();
    match read.as_slice() {
        [Ok((same, _))] if same == event => Ok(bytes),
        other => Err(format!("{event:?} is written, and {other:?} is read")),
    }
}

/// An entry with this event alone.
fn sealed(event: &Event<'_>, at_ms: i64) -> Result<Vec<u8>> {
    let (mut chain, mut draft) = (chain(), Draft::new(Geometry::DEFAULT));
    draft.begin(&chain);
    draft.push(event)?;
    let entries = draft.seal(&mut chain, at_ms, 1, 0);
    let entry = entries.first().map(|entry| entry.bytes.to_vec());
    entry.ok_or_else(|| Error::Bug("no entry".to_owned()))
}

/// Makes the events that the bytes choose; each must read as it was written, and be written the same twice. The
/// entry of each that fits one, for targets that change real entries.
///
/// # Errors
///
/// What is not the same.
pub fn events(choices: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let (mut choices, mut entries) = (Choices::of(choices), Vec::new());
    while !choices.is_over() {
        let made = choices.event(AT_MS, |event| {
            // Longer than any job may be is refused when it is written.
            let Ok(first) = sealed(event, AT_MS) else {
                return Ok(None);
            };
            let second = written(event, AT_MS)?;
            if first == second {
                Ok(Some(second))
            } else {
                Err(format!("{event:?} is written in two ways"))
            }
        });
        entries.extend(made?);
    }
    Ok(entries)
}

/// Writes the events that the bytes choose into a journal, as far as each fits the state, and reads it back: the
/// state must be the same. How many fitted, and how many did not.
///
/// # Errors
///
/// The state is another one, or the journal does not read.
pub fn journal(choices: &[u8]) -> Result<(u64, u64), String> {
    let mut choices = Choices::of(choices);
    let (mut chain, mut draft) = (chain(), Draft::new(Geometry::DEFAULT));
    let mut journal = MemoryDisk::default().journal();
    let mut ledger = Ledger::new(Setup::default(), AT_MS);
    let (mut fits, mut refused) = (0, 0);
    while !choices.is_over() {
        draft.begin(&chain);
        let applied = choices.event(AT_MS, |event| {
            let place = draft.push(event).ok()?;
            let epoch = chain.epoch;
            let stamp = Stamp {
                place,
                at_ms: AT_MS,
                epoch,
            };
            ledger.apply(event, stamp).ok()
        });
        if applied.is_none() {
            refused += 1;
            draft.discard();
            // A ledger that refused an event is of no use any more.
            ledger = read_back(&mut journal, fits)?;
            continue;
        }
        fits += 1;
        let group = draft.seal(&mut chain, AT_MS, 1, ledger.digest());
        let written = commit(
            &mut journal,
            &group,
            &mut VecDeque::new(),
            Geometry::DEFAULT,
        );
        written.map_err(|e| format!("a group is not written: {e}"))?;
    }
    let read = read_back(&mut journal, fits)?;
    if read.digest() == ledger.digest() {
        Ok((fits, refused))
    } else {
        Err("what was read is another state".to_owned())
    }
}

/// The state of a journal of so many groups.
fn read_back(journal: &mut dyn Journal, groups: u64) -> Result<Ledger, String> {
    if groups == 0 {
        return Ok(Ledger::new(Setup::default(), AT_MS));
    }
    let read = crate::engine::read_back(journal, STORE, None, Setup::default(), AT_MS);
    let read = read.map_err(|e| format!("what was written does not read: {e}"))?;
    Ok(read.ledger)
}

/// Which small file of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmallFile {
    /// `journal/jobsled`.
    Header,
    /// `witness`.
    Witness,
    /// `recorder`.
    Recorder,
    /// `lock`.
    Lock,
    /// One of `commands/`.
    Command,
}

/// Reads a small file of the store in `dir`, as an opening would, and by each other way that it is read. True if it
/// was believed.
///
/// # Errors
///
/// Any of those for damaged or foreign files.
pub fn small_file(which: SmallFile, dir: &Path) -> Result<bool> {
    let store = Store::at(dir);
    match which {
        SmallFile::Header => store.header().map(|header| header.store != 0),
        SmallFile::Witness => {
            let all = glimpse(&store.witness());
            let found = Witness::open(&store.witness(), STORE)?;
            #[cfg(feature = "control")]
            let _ = crate::journal::glance(dir);
            Ok(all.marks.len() == 2 || matches!(found, crate::journal::Found::Marked(..)))
        }
        SmallFile::Recorder => {
            let path = store.recorder();
            let told = crate::engine::store_told(&path);
            let recording = crate::engine::Recorder::open(&path, STORE)?.read()?;
            for trace in &recording.traces {
                recording.verdict(trace.epoch, trace.job, trace.claim);
            }
            Ok(told.is_some() || !recording.traces.is_empty())
        }
        SmallFile::Lock => {
            drop(ReadLock::acquire(dir));
            let (lock, previous) = StoreLock::acquire(dir, false)?;
            lock.mark_clean()?;
            Ok(previous == crate::sys::lock::Previous::Clean)
        }
        SmallFile::Command => reads_command(&dir.join("command")),
    }
}

/// Only parsed: what a record names would be ended.
#[cfg(all(unix, feature = "command"))]
fn reads_command(path: &Path) -> Result<bool> {
    crate::command::is_record(path).map_err(Error::io("read", path))
}

#[cfg(not(all(unix, feature = "command")))]
fn reads_command(_path: &Path) -> Result<bool> {
    Ok(false)
}

/// What the control socket says to a line.
#[cfg(feature = "control")]
pub fn respond(engine: &crate::Engine, line: &[u8]) -> Vec<u8> {
    let mut said = Vec::new();
    let mut sink = |line: &[u8]| {
        said.extend_from_slice(line);
        Ok(())
    };
    let last = crate::control::respond(engine, line, &mut sink);
    said.extend(last);
    said
}

/// What a client makes of a line: the answer, the fault, or `None` for a line that is no answer.
#[cfg(feature = "control")]
pub fn read_reply(line: &[u8]) -> Option<Result<serde_json::Value, crate::control::Fault>> {
    crate::control::read_reply(line)
}

/// Reads lines as an import does, into a journal in memory. Payload files go to `payloads`.
///
/// # Errors
///
/// [`Error::Import`], [`Error::Io`].
#[cfg(feature = "json")]
pub fn import(payloads: &Path, lines: &[u8]) -> Result<crate::ImportReport> {
    crate::moment::import_in_memory(payloads, lines)
}
