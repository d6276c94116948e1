//! Lines of an export, made into a store.
//!
//! Each line becomes the event that compaction would write, and the ledger that those events give must have
//! the digest that the last line names. Everything is checked before it is written: no line, whatever it
//! says, may make a store that an engine could not live with.

use std::io::{BufRead, ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;

use crate::engine::in_store;
use crate::error::{Error, Result};
use crate::job::JobId;
use crate::journal::{Geometry, Header, Journal, Payloads, Store, StoreHeader};
use crate::ledger::{Event, Mismatch, NUMBER_MAX, RootRecord};
use crate::sys;

use super::build::NewJournal;
use super::built::{make_witness, read_built};
use super::job_line::{Given, JobParts};
use super::lines::{
    AnyExport, AnyLine, EndLine, ExportLine, FORMAT, JobLine, KeyLine, QueueLine, RootLine, What,
};
use super::part::{Part, or_no_room};

/// The longest line that is read: a payload of 3 GiB as base64.
const LINE_BYTES_MAX: u64 = 4 << 30;

/// What [`import`] stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// When it was exported: wall-clock milliseconds.
    pub at_ms: i64,
    /// Jobs, finished ones included.
    pub jobs: u64,
    /// Queues with a pause or a cap that was set.
    pub queues: u64,
    /// Keys that stay taken although their jobs are gone.
    pub keys: u64,
    /// Large payloads and outputs, a file each.
    pub payload_files: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Makes a store in `dir` from the lines that [`Engine::export`](crate::Engine::export) wrote: the same jobs
/// under the same ids, equal field by field, with the same counters, controls and keys, under a store id of its
/// own. `dir` must not be there yet, or be an empty directory. (Feature `json`.)
///
/// Jobs that were running are running in the store as it is made; the next opening finds that their process is
/// gone and recovers them, as after a crash. The store is built in `<dir>.part`, must have the digest that
/// the last line names, is read back from the disk and has its name last.
///
/// *Blocking:* until all is read, stored, synced and read back. Takes as much memory as an engine would for its
/// jobs, and one line.
/// *Durability:* on return the store, name included, is on stable storage.
///
/// # Errors
///
/// [`Error::Import`] names the first line that is not as it should be. [`Error::Occupied`], [`Error::Locked`],
/// [`Error::NoRoom`] and [`Error::Io`] as for [`Engine::backup`](crate::Engine::backup); `Io` also if
/// `input` fails. After any of them nothing is left.
///
/// ```
/// # let dir = tempfile::tempdir().expect("a temporary directory");
/// # let store = dir.path().join("jobs");
/// let refused = jobsled::import(&store, &b"a note to myself\n"[..]).unwrap_err();
/// assert!(refused.to_string().starts_with("line 1: "));
/// assert!(!store.exists());
/// ```
pub fn import(dir: impl AsRef<Path>, input: impl BufRead) -> Result<ImportReport> {
    let part = Part::begin(dir.as_ref())?;
    let store = Store::at(part.dir());
    let header = StoreHeader {
        store: sys::random_u128(),
        geometry: Geometry::DEFAULT,
    };
    let payloads = Payloads::in_dir(store.payloads())?;
    let mut imported = None;
    let built = store.build(header, |journal| {
        let mut input = Lines::of(input);
        let at_ms = read_head(&mut input)?;
        let store = Importer::new(journal, &payloads, header, at_ms);
        imported = Some(store.read(&mut input)?);
        Ok(())
    });
    built.map_err(|error| or_no_room(error, dir.as_ref(), 0))?;
    let (report, last, bytes) =
        imported.ok_or_else(|| Error::Bug("nothing was imported".to_owned()))?;
    payloads.sync()?;
    make_witness(part.dir(), &last, bytes)?;
    let read = read_built(part.dir(), Some(&last), report.at_ms);
    read.map_err(|error| in_store(error, Some(part.dir())))?;
    part.put_in_place()?;
    Ok(report)
}

/// The same as far as the lines go, into a journal that is dropped.
#[cfg(feature = "lab")]
pub(crate) fn import_in_memory(payloads: &Path, input: impl BufRead) -> Result<ImportReport> {
    let payloads = Payloads::in_dir(payloads)?;
    let header = StoreHeader {
        store: 7,
        geometry: Geometry::DEFAULT,
    };
    let mut journal = crate::journal::MemoryDisk::default().journal();
    let mut input = Lines::of(input);
    let at_ms = read_head(&mut input)?;
    let importer = Importer::new(&mut journal, &payloads, header, at_ms);
    importer.read(&mut input).map(|(report, ..)| report)
}

/// Reads line by line, and knows where it is.
struct Lines<R> {
    input: R,
    number: u64,
    bytes: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn of(input: R) -> Lines<R> {
        Lines {
            input,
            number: 0,
            bytes: 0,
            line: Vec::new(),
        }
    }

    /// The next line. False: there is none.
    fn step(&mut self) -> Result<bool> {
        let failed = Error::io("read", "the import");
        self.line.clear();
        self.number += 1;
        let begins = match self.input.fill_buf() {
            Ok(bytes) => bytes.first().copied(),
            Err(e) => return Err(failed(e)),
        };
        match begins {
            None => return Ok(false),
            Some(b'{') => {}
            // Found out without reading on: it may have no end.
            Some(_) => {
                return Err(self.error("it does not begin as a line of an export does, with `{`"));
            }
        }
        let mut bounded = (&mut self.input).take(LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut self.line).map_err(failed)?;
        self.bytes += read as u64;
        if read as u64 == LINE_BYTES_MAX {
            return Err(self.error(&format!("it has more than {LINE_BYTES_MAX} bytes")));
        }
        Ok(true)
    }

    fn read<'l, T: Deserialize<'l>>(&'l self) -> Result<T> {
        let parsed = serde_json::from_slice(&self.line);
        parsed.map_err(|e| {
            let text = e.to_string();
            // It counts the lines of what it was given.
            let text = text.split(" at line ").next().unwrap_or_default();
            let text = match e.classify() {
                serde_json::error::Category::Data => text.to_owned(),
                serde_json::error::Category::Eof => format!("cut short ({text})"),
                _ => format!("not the JSON expected ({text})"),
            };
            self.error(&format!("{text}, at column {}", e.column()))
        })
    }

    fn error(&self, reason: &str) -> Error {
        Error::Import {
            line: self.number,
            reason: reason.to_owned(),
        }
    }
}

/// The first line; when the export was made.
fn read_head<R: BufRead>(input: &mut Lines<R>) -> Result<i64> {
    if !input.step()? {
        return Err(input.error("the input is empty"));
    }
    let AnyLine { what } = input.read()?;
    if what != What::Export {
        return Err(input.error(&format!("a line `{what}` where `export` should be")));
    }
    let AnyExport { format } = input.read()?;
    if format != FORMAT {
        let known = format!("this version knows format {FORMAT}");
        let format = format!("the export has format {format}, {known}: update this program");
        return Err(input.error(&format));
    }
    let ExportLine { at_ms, .. } = input.read()?;
    Ok(at_ms)
}

struct Importer<'j> {
    built: NewJournal<'j>,
    payloads: &'j Payloads,
    before: Before,
    report: ImportReport,
}

/// What came before a line: lines have an order, and nothing comes twice.
#[derive(Debug)]
struct Before {
    what: What,
    queue: Option<String>,
    key: Option<(String, String)>,
    job: u64,
}

impl<'j> Importer<'j> {
    fn new(
        journal: &'j mut dyn Journal,
        payloads: &'j Payloads,
        header: StoreHeader,
        at_ms: i64,
    ) -> Importer<'j> {
        Importer {
            built: NewJournal::new(journal, header, at_ms),
            payloads,
            before: Before {
                what: What::Export,
                queue: None,
                key: None,
                job: 0,
            },
            report: ImportReport {
                at_ms,
                jobs: 0,
                queues: 0,
                keys: 0,
                payload_files: 0,
                bytes: 0,
            },
        }
    }

    /// Reads all lines from the second on. The report, the head, and how many bytes the entries have.
    fn read<R: BufRead>(mut self, input: &mut Lines<R>) -> Result<(ImportReport, Header, u64)> {
        while self.before.what != What::End {
            if !input.step()? {
                return Err(input.error("cut short: there is no line `end`"));
            }
            let AnyLine { what } = input.read()?;
            self.check_order(what).map_err(|e| input.error(&e))?;
            self.before.what = what;
            match what {
                What::Export => {}
                What::Root => self.root(input)?,
                What::Queue => self.queue(input)?,
                What::Key => self.key(input)?,
                What::Job => self.job(input)?,
                What::End => self.end(input)?,
            }
        }
        if input.step()? {
            return Err(input.error("it follows the line `end`"));
        }
        self.report.bytes = input.bytes;
        let (last, bytes) = self.built.end()?;
        Ok((self.report, last, bytes))
    }

    fn check_order(&self, what: What) -> Result<(), String> {
        let before = self.before.what;
        let repeats = matches!(what, What::Queue | What::Key | What::Job);
        let is_next = if before == What::Export {
            what == What::Root
        } else {
            what > before || (what == before && repeats)
        };
        if is_next {
            return Ok(());
        }
        Err(format!("a line `{what}` cannot follow a line `{before}`"))
    }

    fn root<R: BufRead>(&mut self, input: &Lines<R>) -> Result<()> {
        let line: RootLine = input.read()?;
        let root: RootRecord = line.record();
        let RootRecord {
            epoch,
            next_id,
            next_claim,
            ..
        } = root;
        let counters = root.counters.to_array();
        let numbers = [epoch, next_id, next_claim].into_iter().chain(counters);
        if next_id == 0 || next_claim == 0 || numbers.into_iter().any(|n| n > NUMBER_MAX) {
            return Err(input.error("a number is out of range"));
        }
        // What it tells of was written in that epoch or before.
        self.built.in_epoch(epoch);
        self.push(&Event::RootSet(root), input)
    }

    fn queue<R: BufRead>(&mut self, input: &Lines<R>) -> Result<()> {
        let line: QueueLine = input.read()?;
        crate::job::check_name("queue name", &line.name).map_err(|e| input.error(&words(&e)))?;
        let before = self.before.queue.replace(line.name.clone());
        if before.is_some_and(|before| before >= line.name) {
            return Err(input.error("queues must come in the order of their names, each once"));
        }
        if !line.paused && line.concurrency.is_none() {
            return Err(input.error("a queue with neither pause nor cap has no line"));
        }
        if line.concurrency == Some(0) {
            return Err(input.error("`concurrency` is at least 1"));
        }
        self.report.queues += 1;
        let event = Event::QueueSet {
            name: line.name.into(),
            paused: line.paused,
            concurrency: line.concurrency,
        };
        self.push(&event, input)
    }

    fn key<R: BufRead>(&mut self, input: &Lines<R>) -> Result<()> {
        let line: KeyLine = input.read()?;
        let named = crate::job::check_name("kind", &line.kind);
        let named = named.and_then(|()| crate::job::check_key(&line.key));
        named.map_err(|e| input.error(&words(&e)))?;
        let key = (line.kind.clone(), line.key.clone());
        let before = self.before.key.replace(key.clone());
        if before.is_some_and(|before| before >= key) {
            return Err(input.error("keys must come in the order of kind and key, each once"));
        }
        self.check_id(line.id).map_err(|e| input.error(&e))?;
        self.report.keys += 1;
        let event = Event::KeyHeld {
            kind: line.kind.into(),
            key: line.key.into(),
            id: JobId::from_number(line.id),
            until_ms: line.until_ms,
        };
        self.push(&event, input)
    }

    fn job<R: BufRead>(&mut self, input: &Lines<R>) -> Result<()> {
        let line: JobLine<'_> = input.read()?;
        let bad = |reason: String| input.error(&format!("job {}: {reason}", line.id));
        self.check_id(line.id).map_err(bad)?;
        if line.id <= self.before.job {
            let before = self.before.job;
            return Err(bad(format!(
                "ids must rise, and job {before} came before it"
            )));
        }
        self.before.job = line.id;
        let key = line.key.as_deref();
        if let Some(id) = key.and_then(|key| self.built.ledger.key_holder(&line.kind, key)) {
            return Err(bad(format!("its key belongs to job {id} already")));
        }
        let root = self.built.ledger.root();
        let parts = JobParts::of(&line, &root).map_err(bad)?;
        for Given { file, bytes } in parts.files() {
            match self.payloads.put(file, bytes) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                    return Err(bad(
                        "a file of its belongs to another job already".to_owned()
                    ));
                }
                stored => stored?,
            }
            self.report.payload_files += 1;
        }
        self.report.jobs += 1;
        let event = parts.event();
        self.push(&event, input)
    }

    fn check_id(&self, id: u64) -> Result<(), String> {
        let next = self.built.ledger.root().next_id;
        if id == 0 || id >= next {
            return Err(format!("ids are at least 1 and below the next one, {next}"));
        }
        Ok(())
    }

    fn end<R: BufRead>(&mut self, input: &Lines<R>) -> Result<()> {
        let line: EndLine = input.read()?;
        let ImportReport {
            jobs, queues, keys, ..
        } = self.report;
        for (what, told, found) in [
            ("queues", line.queues, queues),
            ("keys", line.keys, keys),
            ("jobs", line.jobs, jobs),
        ] {
            if told != found {
                return Err(input.error(&format!("there should be {told} {what}, and are {found}")));
            }
        }
        let digest = self.built.ledger.digest();
        if digest != line.digest.0 {
            return Err(input.error(&format!(
                "the digest of what was read is {digest:032x} and not {:032x}: a line was changed",
                line.digest.0
            )));
        }
        Ok(())
    }

    fn push<R>(&mut self, event: &Event<'_>, input: &Lines<R>) -> Result<()> {
        let applied = self.built.push(event)?;
        applied.map_err(|Mismatch(reason)| Error::Import {
            line: input.number,
            reason,
        })
    }
}

/// What is wrong, without what follows from it for a call that stores jobs.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::Invalid { what, found, rule } => format!("{what} cannot be {found}: {rule}"),
        Error::TooLarge {
            what, size, limit, ..
        } => format!("{what} has {size} bytes, the limit is {limit}"),
        other => other.to_string(),
    }
}
