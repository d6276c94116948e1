//! Frames: one event each, frozen. With `entry.rs` the only code that knows the journal's bytes.
//!
//! A frame is `tag u16 | version u8 | length u16` (little endian) and one rkyv archive of that length.
//! J9: a released wire struct is never edited: a change is a new struct under a new version, a new kind of
//! event is a new tag. `docs/format.md` lists them all. Reading is always validated.

use std::borrow::Cow;

use rkyv::api::high::{HighSerializer, HighValidator, to_bytes_in_with_alloc};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::with::AsOwned;
use rkyv::{Archive, Portable, Serialize};

use super::entry::{ENTRY_CAP, HEADER_LEN};
use crate::job::{
    Backoff, Content, ERROR_BYTES_MAX, ERRORS_KEPT_MAX, Encoding, Expiry, Growth,
    INLINE_OUTPUT_MAX, INLINE_PAYLOAD_MAX, JobId, KEY_BYTES_MAX, METADATA_BYTES_MAX,
    NAME_BYTES_MAX, OnCrash, PayloadRef, Policy, Priority, REASON_BYTES_MAX,
};
use crate::ledger::{
    AttemptError, Counters, Event, History, LeaseRecord, NewRecord, Payload, RootRecord, Standing,
    dead_code, dead_from_code, phase_code, phase_from_code,
};

/// Bytes in front of each archive.
pub(super) const FRAME_HEADER: usize = 5;
/// The largest frame, header included.
pub(super) const FRAME_MAX: usize = ENTRY_CAP - HEADER_LEN;

/// J8: a whole job, with all that it can gather, fits one entry: compaction can always carry it.
const _: () = {
    let names = 2 * NAME_BYTES_MAX + KEY_BYTES_MAX + METADATA_BYTES_MAX;
    let history = ERRORS_KEPT_MAX * (ERROR_BYTES_MAX + 32) + REASON_BYTES_MAX + INLINE_OUTPUT_MAX;
    let fixed = 1024; // all numbers and pointers of CarriedV1 and what it refers to
    assert!(names + INLINE_PAYLOAD_MAX + history + fixed <= FRAME_MAX);
    assert!(
        size_of::<ArchivedCarriedV1>()
            + size_of::<ArchivedRareV1>()
            + size_of::<ArchivedHistoryV1>()
            <= 512
    );
};

/// What stands in front of a frame's archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameError(pub(crate) &'static str);

// --- wire structs, version 1 ---

#[derive(Archive, Serialize)]
struct JobV1<'a> {
    id: u64,
    due_ms: i64,
    priority: i32,
    version: u16,
    encoding: u8,
    /// 1: the wait is relative; 2: the payload is gone; 4: the expiry is relative.
    flags: u8,
    #[rkyv(with = AsOwned)]
    kind: Cow<'a, str>,
    #[rkyv(with = AsOwned)]
    queue: Cow<'a, str>,
    #[rkyv(with = AsOwned)]
    payload: Cow<'a, [u8]>,
    rare: Option<Box<RareV1>>,
}

const RELATIVE: u8 = 1;

const GONE: u8 = 2;
const EXPIRY_RELATIVE: u8 = 4;

/// What most jobs lack. `i64::MIN` and the empty text stand for nothing.
#[derive(Archive, Serialize)]
struct RareV1 {
    expires_at_ms: i64,
    key: String,
    key_until_ms: i64,
    metadata: Vec<(String, String)>,
    policy: Option<PolicyV1>,
    file: Option<FileV1>,
}

#[derive(Archive, Serialize)]
struct PolicyV1 {
    attempts_max: u16,
    /// 0 fixed, 1 linear, 2 exponential.
    growth: u8,
    factor: u32,
    first_ms: u64,
    max_ms: u64,
    jitter_percent: u8,
    time_limit_ms: u64,
    stall_timeout_ms: u64,
    retry_expires_ms: u64,
    /// 0 rerun, 1 dead, 2 quarantine after `on_crash_after`.
    on_crash: u8,
    on_crash_after: u8,
}

#[derive(Archive, Serialize)]
struct FileV1 {
    name: u128,
    len: u64,
    hash: [u8; 32],
}

#[derive(Archive, Serialize)]
struct CarriedV1<'a> {
    job: JobV1<'a>,
    enqueued_at_ms: i64,
    phase: u8,
    attempt: u32,
    failures: u16,
    crashes: u8,
    finished_at_ms: i64,
    lease: Option<LeaseV1>,
    history: Option<Box<HistoryV1>>,
}

#[derive(Archive, Serialize)]
struct LeaseV1 {
    epoch: u64,
    claim: u64,
    alone: bool,
    claimed_at_ms: i64,
}

#[derive(Archive, Serialize)]
struct HistoryV1 {
    errors: Vec<ErrorV1>,
    reason: String,
    output: Option<Vec<u8>>,
    output_file: Option<FileV1>,
}

#[derive(Archive, Serialize)]
struct ErrorV1 {
    attempt: u32,
    at_ms: i64,
    error: String,
}

/// Claimed (flag: alone), Released (flag: started), Recovered (flag: crashed).
#[derive(Archive, Serialize)]
struct ClaimV1 {
    id: u64,
    claim: u64,
    flag: bool,
}

#[derive(Archive, Serialize)]
struct CompletedV1 {
    id: u64,
    claim: u64,
    ran_us: u64,
    history: Option<Box<HistoryV1>>,
}

#[derive(Archive, Serialize)]
struct RetriedV1 {
    id: u64,
    claim: u64,
    due_ms: i64,
    /// `i64::MIN`: as it was.
    expires_at_ms: i64,
    ran_us: u64,
    history: HistoryV1,
}

#[derive(Archive, Serialize)]
struct SnoozedV1 {
    id: u64,
    claim: u64,
    due_ms: i64,
}

/// Cancelled (reason 0), Died.
#[derive(Archive, Serialize)]
struct EndedV1 {
    id: u64,
    reason: u8,
    history: Option<Box<HistoryV1>>,
}

/// Requeued, Rescheduled (due), Reprioritised (priority), Deleted (0).
#[derive(Archive, Serialize)]
struct ChangedV1 {
    id: u64,
    number: i64,
}

#[derive(Archive, Serialize)]
struct MovedV1 {
    id: u64,
    queue: String,
}

#[derive(Archive, Serialize)]
struct PrunedV1 {
    ids: Vec<u64>,
}

#[derive(Archive, Serialize)]
struct OpenedV1 {
    epoch: u64,
    boot: u128,
}

#[derive(Archive, Serialize)]
struct ClockSteppedV1 {
    before_ms: i64,
    by_ms: i64,
}

#[derive(Archive, Serialize)]
struct QueueSetV1 {
    name: String,
    paused: bool,
    concurrency: Option<u32>,
}

#[derive(Archive, Serialize)]
struct KeyV1 {
    kind: String,
    key: String,
    id: u64,
    until_ms: i64,
}

#[derive(Archive, Serialize)]
struct RootV1 {
    epoch: u64,
    boot: u128,
    next_id: u64,
    next_claim: u64,
    counters: [u64; 11],
}

mod tag {
    pub(super) const ENQUEUED: u16 = 1;
    pub(super) const CLAIMED: u16 = 2;
    pub(super) const RELEASED: u16 = 3;
    pub(super) const COMPLETED: u16 = 4;
    pub(super) const RETRIED: u16 = 5;
    pub(super) const SNOOZED: u16 = 6;
    pub(super) const CANCELLED: u16 = 7;
    pub(super) const DIED: u16 = 8;
    pub(super) const RECOVERED: u16 = 9;
    pub(super) const REQUEUED: u16 = 10;
    pub(super) const RESCHEDULED: u16 = 11;
    pub(super) const REPRIORITISED: u16 = 12;
    pub(super) const MOVED: u16 = 13;
    pub(super) const DELETED: u16 = 14;
    pub(super) const PRUNED: u16 = 15;
    pub(super) const CARRIED: u16 = 16;
    pub(super) const OPENED: u16 = 32;
    pub(super) const CLOCK_STEPPED: u16 = 33;
    pub(super) const QUEUE_SET: u16 = 34;
    pub(super) const KEY_HELD: u16 = 35;
    pub(super) const KEY_FREED: u16 = 36;
    pub(super) const ROOT_SET: u16 = 37;
}

/// The policy that version 1 leaves out. Frozen: it is what `policy: None` means on disk for ever,
/// whatever the default of a new job may become.
fn unsaid_policy_v1() -> Policy {
    Policy {
        attempts_max: 10,
        backoff: Backoff {
            growth: Growth::Exponential(2),
            first_ms: 1_000,
            max_ms: 3_600_000,
            jitter_percent: 20,
        },
        time_limit_ms: 0,
        stall_timeout_ms: 0,
        retry_expires_ms: 0,
        on_crash: OnCrash::QuarantineAfter(3),
    }
}

// --- writing ---

/// Writes frames; keeps rkyv's scratch memory from one to the next.
#[derive(Default)]
pub(crate) struct FrameWriter {
    arena: Arena,
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameWriter")
    }
}

impl FrameWriter {
    /// Appends the event's frame to `out`.
    #[expect(clippy::too_many_lines, reason = "one flat match over all events")]
    pub(crate) fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let claimed = |id: &JobId, claim: &u64, flag: &bool| ClaimV1 {
            id: id.number(),
            claim: *claim,
            flag: *flag,
        };
        let changed = |id: &JobId, number: i64| ChangedV1 {
            id: id.number(),
            number,
        };
        match event {
            Event::Enqueued(job) => self.put(out, tag::ENQUEUED, &job_v1(job)),
            Event::Claimed { id, claim, alone } => {
                self.put(out, tag::CLAIMED, &claimed(id, claim, alone))
            }
            Event::Released { id, claim, started } => {
                self.put(out, tag::RELEASED, &claimed(id, claim, started))
            }
            Event::Recovered { id, claim, crashed } => {
                self.put(out, tag::RECOVERED, &claimed(id, claim, crashed))
            }
            Event::Completed {
                id,
                claim,
                ran_us,
                history,
            } => {
                let history = history.as_ref().map(|h| Box::new(history_v1(h)));
                self.put(
                    out,
                    tag::COMPLETED,
                    &CompletedV1 {
                        id: id.number(),
                        claim: *claim,
                        ran_us: *ran_us,
                        history,
                    },
                )
            }
            Event::Retried {
                id,
                claim,
                due_ms,
                expires_at_ms,
                ran_us,
                history,
            } => {
                let wire = RetriedV1 {
                    id: id.number(),
                    claim: *claim,
                    due_ms: *due_ms,
                    expires_at_ms: expires_at_ms.unwrap_or(i64::MIN),
                    ran_us: *ran_us,
                    history: history_v1(history),
                };
                self.put(out, tag::RETRIED, &wire)
            }
            Event::Snoozed { id, claim, due_ms } => self.put(
                out,
                tag::SNOOZED,
                &SnoozedV1 {
                    id: id.number(),
                    claim: *claim,
                    due_ms: *due_ms,
                },
            ),
            Event::Cancelled { id, history } => {
                self.put(out, tag::CANCELLED, &ended_v1(*id, 0, history.as_ref()))
            }
            Event::Died {
                id,
                reason,
                history,
            } => self.put(
                out,
                tag::DIED,
                &ended_v1(*id, dead_code(*reason), history.as_ref()),
            ),
            Event::Requeued { id, due_ms } => self.put(out, tag::REQUEUED, &changed(id, *due_ms)),
            Event::Rescheduled { id, due_ms } => {
                self.put(out, tag::RESCHEDULED, &changed(id, *due_ms))
            }
            Event::Reprioritised { id, priority } => {
                self.put(out, tag::REPRIORITISED, &changed(id, i64::from(priority.0)))
            }
            Event::Moved { id, queue } => self.put(
                out,
                tag::MOVED,
                &MovedV1 {
                    id: id.number(),
                    queue: queue.to_string(),
                },
            ),
            Event::Deleted { id } => self.put(out, tag::DELETED, &changed(id, 0)),
            Event::Pruned { ids } => self.put(out, tag::PRUNED, &PrunedV1 { ids: ids.clone() }),
            Event::Carried(job, standing, history) => self.put(
                out,
                tag::CARRIED,
                &carried_v1(job, standing, history.as_ref()),
            ),
            Event::Opened { epoch, boot } => self.put(
                out,
                tag::OPENED,
                &OpenedV1 {
                    epoch: *epoch,
                    boot: *boot,
                },
            ),
            Event::ClockStepped { before_ms, by_ms } => self.put(
                out,
                tag::CLOCK_STEPPED,
                &ClockSteppedV1 {
                    before_ms: *before_ms,
                    by_ms: *by_ms,
                },
            ),
            Event::QueueSet {
                name,
                paused,
                concurrency,
            } => {
                let wire = QueueSetV1 {
                    name: name.to_string(),
                    paused: *paused,
                    concurrency: *concurrency,
                };
                self.put(out, tag::QUEUE_SET, &wire)
            }
            Event::KeyHeld {
                kind,
                key,
                id,
                until_ms,
            } => {
                let wire = KeyV1 {
                    kind: kind.to_string(),
                    key: key.to_string(),
                    id: id.number(),
                    until_ms: *until_ms,
                };
                self.put(out, tag::KEY_HELD, &wire)
            }
            Event::KeyFreed { kind, key } => {
                let wire = KeyV1 {
                    kind: kind.to_string(),
                    key: key.to_string(),
                    id: 0,
                    until_ms: 0,
                };
                self.put(out, tag::KEY_FREED, &wire)
            }
            Event::RootSet(root) => {
                let wire = RootV1 {
                    epoch: root.epoch,
                    boot: root.boot,
                    next_id: root.next_id,
                    next_claim: root.next_claim,
                    counters: root.counters.to_array(),
                };
                self.put(out, tag::ROOT_SET, &wire)
            }
        }
    }

    fn put<T>(&mut self, out: &mut Vec<u8>, tag: u16, wire: &T) -> Result<(), FrameError>
    where
        T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, RkyvError>>,
    {
        let start = out.len();
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&[1, 0, 0]); // version 1; the length follows when it is known
        let written = to_bytes_in_with_alloc::<_, _, RkyvError>(
            wire,
            std::mem::take(out),
            self.arena.acquire(),
        );
        *out = written.map_err(|_| FrameError("rkyv could not write it"))?;
        let length = out.len() - start - FRAME_HEADER;
        let length =
            u16::try_from(length).map_err(|_| FrameError("it is longer than a frame may be"))?;
        if let Some(place) = out.get_mut(start + 3..start + FRAME_HEADER) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }
}

fn job_v1<'a>(job: &NewRecord<'a>) -> JobV1<'a> {
    let (payload, file) = match job.payload {
        Payload::Gone => (&[][..], None),
        Payload::Inline(bytes) => (bytes, None),
        Payload::File(file) => (&[][..], Some(file_v1(&file))),
    };
    let policy = (job.policy != unsaid_policy_v1()).then(|| policy_v1(&job.policy));
    let is_plain = job.expires.is_none()
        && job.key.is_none()
        && job.metadata.is_empty()
        && policy.is_none()
        && file.is_none();
    let rare = (!is_plain).then(|| {
        Box::new(RareV1 {
            expires_at_ms: job.expires.map_or(i64::MIN, |e| e.at_ms),
            key: job.key.map_or("", |(key, _)| key).to_owned(),
            key_until_ms: job.key.map_or(i64::MIN, |(_, until_ms)| until_ms),
            metadata: job
                .metadata
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            policy,
            file,
        })
    });
    let gone = if job.payload == Payload::Gone {
        GONE
    } else {
        0
    };
    let expiry = if job.expires.is_some_and(|e| e.relative) {
        EXPIRY_RELATIVE
    } else {
        0
    };
    JobV1 {
        id: job.id.number(),
        due_ms: job.due_ms,
        priority: job.priority.0,
        version: job.version,
        encoding: job.encoding as u8,
        flags: (u8::from(job.relative) * RELATIVE) | gone | expiry,
        kind: Cow::Borrowed(job.kind),
        queue: Cow::Borrowed(job.queue),
        payload: Cow::Borrowed(payload),
        rare,
    }
}

fn carried_v1<'a>(
    job: &NewRecord<'a>,
    standing: &Standing,
    history: Option<&History>,
) -> CarriedV1<'a> {
    CarriedV1 {
        job: job_v1(job),
        enqueued_at_ms: job.enqueued_at_ms,
        phase: phase_code(standing.phase),
        attempt: standing.attempt,
        failures: standing.failures,
        crashes: standing.crashes,
        finished_at_ms: standing.finished_at_ms,
        lease: standing.lease.map(|lease| LeaseV1 {
            epoch: lease.epoch,
            claim: lease.claim,
            alone: lease.alone,
            claimed_at_ms: lease.claimed_at_ms,
        }),
        history: history.map(|h| Box::new(history_v1(h))),
    }
}

fn ended_v1(id: JobId, reason: u8, history: Option<&History>) -> EndedV1 {
    EndedV1 {
        id: id.number(),
        reason,
        history: history.map(|h| Box::new(history_v1(h))),
    }
}

fn policy_v1(policy: &Policy) -> PolicyV1 {
    let (growth, factor) = match policy.backoff.growth {
        Growth::Fixed => (0, 0),
        Growth::Linear => (1, 0),
        Growth::Exponential(factor) => (2, factor),
    };
    let (on_crash, on_crash_after) = match policy.on_crash {
        OnCrash::Rerun => (0, 0),
        OnCrash::Dead => (1, 0),
        OnCrash::QuarantineAfter(most) => (2, most),
    };
    PolicyV1 {
        attempts_max: policy.attempts_max,
        growth,
        factor,
        first_ms: policy.backoff.first_ms,
        max_ms: policy.backoff.max_ms,
        jitter_percent: policy.backoff.jitter_percent,
        time_limit_ms: policy.time_limit_ms,
        stall_timeout_ms: policy.stall_timeout_ms,
        retry_expires_ms: policy.retry_expires_ms,
        on_crash,
        on_crash_after,
    }
}

fn file_v1(file: &PayloadRef) -> FileV1 {
    FileV1 {
        name: file.name,
        len: file.len,
        hash: file.hash,
    }
}

fn history_v1(history: &History) -> HistoryV1 {
    let error = |e: &AttemptError| ErrorV1 {
        attempt: e.attempt,
        at_ms: e.at_ms,
        error: e.error.clone(),
    };
    let (output, output_file) = match &history.output {
        None => (None, None),
        Some(Content::Inline(bytes)) => (Some(bytes.clone()), None),
        Some(Content::File(file)) => (None, Some(file_v1(file))),
    };
    HistoryV1 {
        errors: history.errors.iter().map(error).collect(),
        reason: history.reason.clone(),
        output,
        output_file,
    }
}

// --- reading ---

/// Why a frame could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// A tag or version that this build does not know.
    Newer {
        what: &'static str,
        found: u32,
        known: u32,
    },
    Damaged(String),
}

fn damaged<T>(reason: impl Into<String>) -> Result<T, ReadError> {
    Err(ReadError::Damaged(reason.into()))
}

/// The frame at the start of `bytes`, and its length. `at_ms` is the entry's time.
pub(crate) fn read(bytes: &[u8], at_ms: i64) -> Result<(Event<'_>, usize), ReadError> {
    let Some((&[tag_lo, tag_hi, version, len_lo, len_hi], rest)) =
        bytes.split_first_chunk::<FRAME_HEADER>()
    else {
        return damaged("ends in the middle of a frame header");
    };
    let tag = u16::from_le_bytes([tag_lo, tag_hi]);
    let length = usize::from(u16::from_le_bytes([len_lo, len_hi]));
    let Some(archive) = rest.get(..length) else {
        return damaged("ends in the middle of a frame");
    };
    if version > 1 {
        return Err(ReadError::Newer {
            what: "frame version",
            found: version.into(),
            known: 1,
        });
    }
    Ok((read_v1(tag, archive, at_ms)?, FRAME_HEADER + length))
}

/// I8: validated each time: a good hash says that the bytes are as written, not that they were well formed.
fn access<T>(archive: &[u8]) -> Result<&T, ReadError>
where
    T: Portable + for<'a> CheckBytes<HighValidator<'a, RkyvError>>,
{
    rkyv::access::<T, RkyvError>(archive)
        .map_err(|e| ReadError::Damaged(format!("a frame does not validate: {e}")))
}

fn read_v1(tag: u16, archive: &[u8], at_ms: i64) -> Result<Event<'_>, ReadError> {
    let claim = || {
        access::<ArchivedClaimV1>(archive)
            .map(|w| (id(w.id.to_native()), w.claim.to_native(), w.flag))
    };
    let changed = || {
        access::<ArchivedChangedV1>(archive).map(|w| (id(w.id.to_native()), w.number.to_native()))
    };
    Ok(match tag {
        tag::ENQUEUED => Event::Enqueued(job(access::<ArchivedJobV1<'_>>(archive)?, at_ms)?),
        tag::CARRIED => carried(access::<ArchivedCarriedV1<'_>>(archive)?)?,
        tag::CLAIMED => claim().map(|(id, claim, alone)| Event::Claimed { id, claim, alone })?,
        tag::RELEASED => {
            claim().map(|(id, claim, started)| Event::Released { id, claim, started })?
        }
        tag::RECOVERED => {
            claim().map(|(id, claim, crashed)| Event::Recovered { id, claim, crashed })?
        }
        tag::COMPLETED => {
            let w = access::<ArchivedCompletedV1>(archive)?;
            let history = w.history.as_ref().map(|h| history(h));
            Event::Completed {
                id: id(w.id.to_native()),
                claim: w.claim.to_native(),
                ran_us: w.ran_us.to_native(),
                history,
            }
        }
        tag::RETRIED => {
            let w = access::<ArchivedRetriedV1>(archive)?;
            Event::Retried {
                id: id(w.id.to_native()),
                claim: w.claim.to_native(),
                due_ms: w.due_ms.to_native(),
                expires_at_ms: told(w.expires_at_ms.to_native()),
                ran_us: w.ran_us.to_native(),
                history: history(&w.history),
            }
        }
        tag::SNOOZED => {
            let w = access::<ArchivedSnoozedV1>(archive)?;
            Event::Snoozed {
                id: id(w.id.to_native()),
                claim: w.claim.to_native(),
                due_ms: w.due_ms.to_native(),
            }
        }
        tag::CANCELLED => {
            let w = access::<ArchivedEndedV1>(archive)?;
            Event::Cancelled {
                id: id(w.id.to_native()),
                history: w.history.as_ref().map(|h| history(h)),
            }
        }
        tag::DIED => {
            let w = access::<ArchivedEndedV1>(archive)?;
            let Some(reason) = dead_from_code(w.reason) else {
                return damaged("unknown reason of death");
            };
            Event::Died {
                id: id(w.id.to_native()),
                reason,
                history: w.history.as_ref().map(|h| history(h)),
            }
        }
        tag::REQUEUED => changed().map(|(id, due_ms)| Event::Requeued { id, due_ms })?,
        tag::RESCHEDULED => changed().map(|(id, due_ms)| Event::Rescheduled { id, due_ms })?,
        tag::REPRIORITISED => {
            let (id, number) = changed()?;
            let Ok(number) = i32::try_from(number) else {
                return damaged("priority out of range");
            };
            Event::Reprioritised {
                id,
                priority: Priority(number),
            }
        }
        tag::MOVED => {
            let w = access::<ArchivedMovedV1>(archive)?;
            Event::Moved {
                id: id(w.id.to_native()),
                queue: Cow::Borrowed(w.queue.as_str()),
            }
        }
        tag::DELETED => changed().map(|(id, _)| Event::Deleted { id })?,
        tag::PRUNED => {
            let w = access::<ArchivedPrunedV1>(archive)?;
            Event::Pruned {
                ids: w.ids.iter().map(|id| id.to_native()).collect(),
            }
        }
        _ => return read_root_v1(tag, archive),
    })
}

/// The frames that are not about one job.
fn read_root_v1(tag: u16, archive: &[u8]) -> Result<Event<'_>, ReadError> {
    Ok(match tag {
        tag::OPENED => {
            let w = access::<ArchivedOpenedV1>(archive)?;
            Event::Opened {
                epoch: w.epoch.to_native(),
                boot: w.boot.to_native(),
            }
        }
        tag::CLOCK_STEPPED => {
            let w = access::<ArchivedClockSteppedV1>(archive)?;
            Event::ClockStepped {
                before_ms: w.before_ms.to_native(),
                by_ms: w.by_ms.to_native(),
            }
        }
        tag::QUEUE_SET => {
            let w = access::<ArchivedQueueSetV1>(archive)?;
            Event::QueueSet {
                name: Cow::Borrowed(w.name.as_str()),
                paused: w.paused,
                concurrency: w.concurrency.as_ref().map(|n| n.to_native()),
            }
        }
        tag::KEY_HELD => {
            let w = access::<ArchivedKeyV1>(archive)?;
            Event::KeyHeld {
                kind: Cow::Borrowed(w.kind.as_str()),
                key: Cow::Borrowed(w.key.as_str()),
                id: id(w.id.to_native()),
                until_ms: w.until_ms.to_native(),
            }
        }
        tag::KEY_FREED => {
            let w = access::<ArchivedKeyV1>(archive)?;
            Event::KeyFreed {
                kind: Cow::Borrowed(w.kind.as_str()),
                key: Cow::Borrowed(w.key.as_str()),
            }
        }
        tag::ROOT_SET => {
            let w = access::<ArchivedRootV1>(archive)?;
            Event::RootSet(RootRecord {
                epoch: w.epoch.to_native(),
                boot: w.boot.to_native(),
                next_id: w.next_id.to_native(),
                next_claim: w.next_claim.to_native(),
                counters: Counters::from_array(w.counters.map(u64::from)),
            })
        }
        _ => {
            return Err(ReadError::Newer {
                what: "event",
                found: tag.into(),
                known: tag::ROOT_SET.into(),
            });
        }
    })
}

fn id(number: u64) -> JobId {
    JobId::from_number(number)
}

fn told(ms: i64) -> Option<i64> {
    (ms != i64::MIN).then_some(ms)
}

fn job<'a>(w: &'a ArchivedJobV1<'_>, enqueued_at_ms: i64) -> Result<NewRecord<'a>, ReadError> {
    let Some(encoding) = Encoding::from_byte(w.encoding) else {
        return damaged("unknown payload encoding");
    };
    let rare = w.rare.as_ref();
    let file = rare.and_then(|r| r.file.as_ref());
    let payload = match file {
        _ if w.flags & GONE != 0 => Payload::Gone,
        Some(file) => Payload::File(payload_ref(file)),
        None => Payload::Inline(w.payload.as_slice()),
    };
    let key = rare
        .filter(|r| !r.key.is_empty())
        .map(|r| (r.key.as_str(), r.key_until_ms.to_native()));
    let policy = match rare.and_then(|r| r.policy.as_ref()) {
        Some(policy) => read_policy(policy)?,
        None => unsaid_policy_v1(),
    };
    let metadata = rare.map(|r| {
        r.metadata
            .iter()
            .map(|pair| (pair.0.as_str(), pair.1.as_str()))
            .collect()
    });
    Ok(NewRecord {
        id: id(w.id.to_native()),
        kind: w.kind.as_str(),
        version: w.version.to_native(),
        encoding,
        queue: w.queue.as_str(),
        priority: Priority(w.priority.to_native()),
        enqueued_at_ms,
        due_ms: w.due_ms.to_native(),
        relative: w.flags & RELATIVE != 0,
        expires: rare
            .and_then(|r| told(r.expires_at_ms.to_native()))
            .map(|at_ms| Expiry {
                at_ms,
                relative: w.flags & EXPIRY_RELATIVE != 0,
            }),
        key,
        metadata: metadata.unwrap_or_default(),
        policy,
        payload,
    })
}

fn carried<'a>(w: &'a ArchivedCarriedV1<'_>) -> Result<Event<'a>, ReadError> {
    let Some(phase) = phase_from_code(w.phase) else {
        return damaged("unknown phase");
    };
    let lease = w.lease.as_ref().map(|lease| LeaseRecord {
        epoch: lease.epoch.to_native(),
        claim: lease.claim.to_native(),
        alone: lease.alone,
        claimed_at_ms: lease.claimed_at_ms.to_native(),
    });
    let standing = Standing {
        phase,
        attempt: w.attempt.to_native(),
        failures: w.failures.to_native(),
        crashes: w.crashes,
        finished_at_ms: w.finished_at_ms.to_native(),
        lease,
    };
    let history = w.history.as_ref().map(|h| history(h));
    Ok(Event::Carried(
        job(&w.job, w.enqueued_at_ms.to_native())?,
        standing,
        history,
    ))
}

fn read_policy(w: &ArchivedPolicyV1) -> Result<Policy, ReadError> {
    let growth = match w.growth {
        0 => Growth::Fixed,
        1 => Growth::Linear,
        2 => Growth::Exponential(w.factor.to_native()),
        _ => return damaged("unknown growth of a backoff"),
    };
    let on_crash = match w.on_crash {
        0 => OnCrash::Rerun,
        1 => OnCrash::Dead,
        2 => OnCrash::QuarantineAfter(w.on_crash_after),
        _ => return damaged("unknown rule for crashes"),
    };
    Ok(Policy {
        attempts_max: w.attempts_max.to_native(),
        backoff: Backoff {
            growth,
            first_ms: w.first_ms.to_native(),
            max_ms: w.max_ms.to_native(),
            jitter_percent: w.jitter_percent,
        },
        time_limit_ms: w.time_limit_ms.to_native(),
        stall_timeout_ms: w.stall_timeout_ms.to_native(),
        retry_expires_ms: w.retry_expires_ms.to_native(),
        on_crash,
    })
}

fn payload_ref(w: &ArchivedFileV1) -> PayloadRef {
    PayloadRef {
        name: w.name.to_native(),
        len: w.len.to_native(),
        hash: w.hash,
    }
}

fn history(w: &ArchivedHistoryV1) -> History {
    let error = |e: &ArchivedErrorV1| AttemptError {
        attempt: e.attempt.to_native(),
        at_ms: e.at_ms.to_native(),
        error: e.error.as_str().to_owned(),
    };
    let inline = w
        .output
        .as_ref()
        .map(|bytes| Content::Inline(bytes.as_slice().to_vec()));
    History {
        errors: w.errors.iter().map(error).collect(),
        reason: w.reason.as_str().to_owned(),
        output: w
            .output_file
            .as_ref()
            .map(|file| Content::File(payload_ref(file)))
            .or(inline),
    }
}

/// A number that changes when rkyv's format features do: stored in each store's header.
pub(crate) fn layout_fingerprint() -> u32 {
    let probe = ErrorV1 {
        attempt: 1,
        at_ms: 2,
        error: "longer than what is kept inline".to_owned(),
    };
    let mut bytes = Vec::new();
    let written = FrameWriter::default().put(&mut bytes, 0, &probe);
    debug_assert!(written.is_ok());
    u32::try_from(xxhash_rust::xxh3::xxh3_64(&bytes) >> 32).unwrap_or(0)
}
