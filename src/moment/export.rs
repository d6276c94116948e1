//! Everything that is kept at one moment, as lines of JSON.
//!
//! An export is one carry of everything: each job in the form in which compaction would write it again, so
//! that no field can be forgotten here that is not forgotten there, and the digest would tell.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use serde::Serialize;

use crate::engine::{Engine, into_history};
use crate::error::{Error, Result};
use crate::job::{Content, JobId, PayloadRef, State};
use crate::journal::{EntryBytes, Header, Payloads, ReadError, event_at};
use crate::ledger::{
    Carry, Event, History, Ledger, NewRecord, Payload, Phase, Place, Record, Standing,
};

use super::held::{Entries, Folded, Held, replay_moment};
use super::lines::{
    EndLine, ErrorLine, ExportLine, FORMAT, FileLine, Hex, HistoryLine, JobLine, KeyLine,
    LeaseLine, PolicyLine, QueueLine, RootLine, What, embed,
};

/// Bytes that are read at once for a record that is not at hand.
const SLICE_BYTES: usize = 256 << 10;
/// Slices kept: jobs lie about in the order of their ids.
const SLICES_MAX: usize = 32;

/// What [`Engine::export`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportReport {
    /// The moment: wall-clock milliseconds.
    pub at_ms: i64,
    /// Jobs, finished ones included.
    pub jobs: u64,
    /// Queues with a pause or a cap that was set.
    pub queues: u64,
    /// Keys that stay taken although their jobs are gone.
    pub keys: u64,
    /// Large payloads and outputs among them.
    pub payload_files: u64,
    /// Bytes written.
    pub bytes: u64,
}

impl Engine {
    /// Writes everything that is kept at one moment as lines of JSON, while the engine works on: jobs in every
    /// state with payloads, outputs, errors, keys, metadata and leases, controls of queues, counters. Payloads
    /// that are JSON stand in the lines as they are, others as base64. `docs/export.md` describes the lines;
    /// [`import`](crate::import) makes a store of them. (Feature `json`.)
    ///
    /// *Blocking:* until all is written; other calls go on between slices of 1 MiB. Meanwhile nothing of the
    /// moment is removed: the journal grows, and payload files of jobs that end stay. So do not let a person
    /// page through it. Takes as much memory as the engine has for its jobs, and one payload.
    /// *Durability:* that of `out`; nothing is synced.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if `out` refuses (what was written until then has no last line, and is refused by an
    /// import); [`Error::Damaged`] if the store or a payload file is; [`Error::Closed`], [`Error::Refused`].
    ///
    /// ```
    /// # use jobsled::{Engine, job, rkyv};
    /// # let engine = Engine::in_memory().open()?;
    /// engine.json("mail", &serde_json::json!({"to": "Ada"})).enqueue()?;
    /// let mut lines = Vec::new();
    /// assert_eq!(engine.export(&mut lines)?.jobs, 1);
    /// let text = String::from_utf8(lines).expect("JSON is UTF-8");
    /// assert!(text.contains(r#""payload":{"to":"Ada"}"#));
    ///
    /// # let dir = tempfile::tempdir().expect("a temporary directory");
    /// # let store = dir.path().join("jobs");
    /// jobsled::import(&store, text.as_bytes())?;
    /// assert_eq!(Engine::builder(&store).open()?.jobs().kind("mail").count()?, 1);
    /// # Ok::<(), jobsled::Error>(())
    /// ```
    pub fn export(&self, out: &mut dyn Write) -> Result<ExportReport> {
        let shared = &*self.shared;
        shared.check_process()?;
        let mut held = Held::take(shared)?;
        let (last, at_ms) = (held.moment.last, held.moment.at_ms);
        let exported = export_moment(&mut held, &last, at_ms, &shared.payloads, out);
        exported.map_err(|error| held.error(error))
    }
}

/// Writes a moment's lines.
pub(super) fn export_moment(
    entries: &mut dyn Entries,
    last: &Header,
    at_ms: i64,
    payloads: &Payloads,
    out: &mut dyn Write,
) -> Result<ExportReport> {
    let Folded { ledger, mut tally } = replay_moment(entries, last, at_ms, &mut |_| Ok(()))?;
    let payload_files = tally.files_of(&ledger)?.count();
    let mut lines = Lines::to(out);
    lines.put(&ExportLine {
        what: What::Export,
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: Hex(last.store),
        at_ms,
    })?;
    let (mut queues, mut keys) = (0, 0);
    for event in ledger.carry_roots() {
        queues += u64::from(matches!(event, Event::QueueSet { .. }));
        keys += u64::from(matches!(event, Event::KeyHeld { .. }));
        put_root(&mut lines, event)?;
    }
    let mut exporter = Exporter {
        ledger: &ledger,
        payloads,
        bases: Slices::new(last.position),
        histories: Slices::new(last.position),
        entries,
    };
    let mut jobs = 0;
    for (id, base) in ledger.bases() {
        exporter.put_job(&mut lines, id, base)?;
        jobs += 1;
    }
    lines.put(&EndLine {
        what: What::End,
        queues,
        keys,
        jobs,
        digest: Hex(ledger.digest()),
    })?;
    Ok(ExportReport {
        at_ms,
        jobs,
        queues,
        keys,
        payload_files,
        bytes: lines.end()?,
    })
}

fn put_root(lines: &mut Lines<'_>, event: Event<'_>) -> Result<()> {
    match event {
        Event::RootSet(root) => lines.put(&RootLine::of(&root)),
        Event::QueueSet {
            name,
            paused,
            concurrency,
        } => lines.put(&QueueLine {
            what: What::Queue,
            name: name.into_owned(),
            paused,
            concurrency,
        }),
        Event::KeyHeld {
            kind,
            key,
            id,
            until_ms,
        } => lines.put(&KeyLine {
            what: What::Key,
            kind: kind.into_owned(),
            key: key.into_owned(),
            id: id.number(),
            until_ms,
        }),
        other => Err(Error::Bug(format!("a root record that is none: {other:?}"))),
    }
}

struct Exporter<'e> {
    ledger: &'e Ledger,
    payloads: &'e Payloads,
    entries: &'e mut dyn Entries,
    bases: Slices,
    histories: Slices,
}

impl Exporter<'_> {
    fn put_job(&mut self, lines: &mut Lines<'_>, id: JobId, base: Place) -> Result<()> {
        let bug = |what: &str| Error::Bug(format!("job {id} {what}"));
        let entry = self.bases.entry(self.entries, base.position)?;
        let event = event_at(&entry, base.offset).map_err(|e| unreadable(base.position, &e))?;
        let carry = self.ledger.needs_carry(&event, base.position, base.offset);
        let Some(Carry::Job { history }) = carry else {
            return Err(bug("does not begin where it should"));
        };
        let (base, own_history) = match event {
            Event::Enqueued(base) => (base, None),
            Event::Carried(base, _, history) => (base, history),
            _ => return Err(bug("begins with another event")),
        };
        let history = match history {
            Some(place) => self.history(place)?,
            None => own_history,
        };
        let queue = self.ledger.queue_of(&base).into_owned();
        let state = self.ledger.record(id).map(Record::state);
        let carried = self.ledger.carry_job(&base, &queue, history);
        match (carried, state) {
            (Some(Event::Carried(job, standing, history)), Some(state)) => {
                self.put_carried(lines, &job, &standing, state, history.as_ref())
            }
            _ => Err(bug("cannot be carried")),
        }
    }

    fn history(&mut self, place: Place) -> Result<Option<History>> {
        let entry = self.histories.entry(self.entries, place.position)?;
        let event = event_at(&entry, place.offset).map_err(|e| unreadable(place.position, &e))?;
        Ok(into_history(event))
    }

    fn put_carried(
        &self,
        lines: &mut Lines<'_>,
        job: &NewRecord<'_>,
        standing: &Standing,
        state: State,
        history: Option<&History>,
    ) -> Result<()> {
        let (bytes, file) = match job.payload {
            Payload::Gone => (None, None),
            Payload::Inline(bytes) => (Some(Bytes::Here(bytes)), None),
            Payload::File(file) => (Some(self.read(&file)?), Some(FileLine::of(&file))),
        };
        let (payload, payload_base64) = match &bytes {
            Some(bytes) => embed(bytes, job.encoding),
            None => (None, None),
        };
        let output = history.and_then(|history| history.output.as_ref());
        let output = output.map(|output| self.content(output)).transpose()?;
        let history = history.map(|history| {
            let (output, output_base64, output_file) = match &output {
                Some((bytes, file)) => {
                    let (raw, base64) = embed(bytes, job.encoding);
                    (raw, base64, file.as_ref().map(FileLine::of))
                }
                None => (None, None, None),
            };
            HistoryLine {
                errors: history.errors.iter().map(ErrorLine::of).collect(),
                reason: Cow::Borrowed(&history.reason),
                output,
                output_base64,
                output_file,
            }
        });
        let metadata = job.metadata.iter();
        lines.put(&JobLine {
            what: What::Job,
            id: job.id.number(),
            kind: Cow::Borrowed(job.kind),
            queue: Cow::Borrowed(job.queue),
            state,
            dead_reason: match standing.phase {
                Phase::Dead(reason) => Some(reason),
                _ => None,
            },
            priority: job.priority.0,
            enqueued_at_ms: job.enqueued_at_ms,
            due_ms: job.due_ms,
            due_is_span: job.relative,
            finished_at_ms: state.is_finished().then_some(standing.finished_at_ms),
            expires_at_ms: job.expires.map(|expiry| expiry.at_ms),
            expiry_is_span: job.expires.is_some_and(|expiry| expiry.relative),
            attempt: standing.attempt,
            failures: standing.failures,
            crashes: standing.crashes,
            key: job.key.map(|(key, _)| Cow::Borrowed(key)),
            key_until_ms: job.key.map(|(_, until_ms)| until_ms),
            metadata: metadata.map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            policy: PolicyLine::of(&job.policy),
            lease: standing.lease.as_ref().map(LeaseLine::of),
            version: job.version,
            encoding: job.encoding,
            payload,
            payload_base64,
            payload_file: file,
            history,
        })
    }

    fn content<'c>(&self, content: &'c Content) -> Result<(Bytes<'c>, Option<PayloadRef>)> {
        Ok(match content {
            Content::Inline(bytes) => (Bytes::Here(bytes), None),
            Content::File(file) => (self.read(file)?, Some(**file)),
        })
    }

    fn read(&self, file: &PayloadRef) -> Result<Bytes<'static>> {
        self.payloads.read(file).map(Bytes::Read)
    }
}

/// A payload or output: in an entry, or read from its file.
enum Bytes<'b> {
    Here(&'b [u8]),
    Read(Arc<[u8]>),
}

impl std::ops::Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Here(bytes) => bytes,
            Bytes::Read(bytes) => bytes,
        }
    }
}

/// Slices of the moment that were read last.
struct Slices {
    head: u64,
    /// Newest last.
    kept: VecDeque<Vec<(u64, EntryBytes)>>,
}

impl Slices {
    fn new(head: u64) -> Slices {
        Slices {
            head,
            kept: VecDeque::new(),
        }
    }

    fn entry(&mut self, entries: &mut dyn Entries, position: u64) -> Result<EntryBytes> {
        if let Some(entry) = self
            .kept
            .iter()
            .rev()
            .find_map(|slice| find(slice, position))
        {
            return Ok(entry);
        }
        let slice = entries.slice(position, self.head, SLICE_BYTES)?;
        for (position, entry) in &slice {
            // Checked once per read, as at replay: the disk may have changed since.
            Header::read(entry).map_err(|e| unreadable(*position, &e))?;
        }
        let missing = ReadError::Damaged("it is missing".to_owned());
        let entry = find(&slice, position).ok_or_else(|| unreadable(position, &missing))?;
        if self.kept.len() == SLICES_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(slice);
        Ok(entry)
    }
}

fn find(slice: &[(u64, EntryBytes)], position: u64) -> Option<EntryBytes> {
    let at = slice.binary_search_by_key(&position, |(position, _)| *position);
    slice.get(at.ok()?).map(|(_, entry)| entry.clone())
}

fn unreadable(position: u64, error: &ReadError) -> Error {
    Error::Damaged {
        path: "journal".into(),
        what: format!("entry {position}"),
        reason: format!("{error:?}"),
    }
}

/// Writes lines and counts their bytes.
struct Lines<'o> {
    out: BufWriter<Counting<'o>>,
}

struct Counting<'o> {
    out: &'o mut dyn Write,
    bytes: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<'o> Lines<'o> {
    fn to(out: &'o mut dyn Write) -> Lines<'o> {
        Lines {
            out: BufWriter::with_capacity(64 << 10, Counting { out, bytes: 0 }),
        }
    }

    fn put(&mut self, line: &impl Serialize) -> Result<()> {
        let written = serde_json::to_writer(&mut self.out, line).map_err(io::Error::from);
        written
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(Error::io("write", "the export"))
    }

    fn end(mut self) -> Result<u64> {
        self.out.flush().map_err(Error::io("write", "the export"))?;
        Ok(self.out.get_ref().bytes)
    }
}
