//! Event to frame.

use std::borrow::Cow;

use rkyv::Serialize;
use rkyv::api::high::{HighSerializer, to_bytes_in_with_alloc};
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::{Arena, ArenaHandle};

use super::FRAME_HEADER;
use super::wire::{
    CarriedV1, ChangedV1, ClaimV1, ClockSteppedV1, CompletedV1, EXPIRY_RELATIVE, EndedV1, ErrorV1,
    FileV1, GONE, HistoryV1, JobV1, KeyV1, LeaseV1, MovedV1, OpenedV1, PolicyV1, PrunedV1,
    QueueSetV1, RELATIVE, RareV1, RetriedV1, RootV1, SnoozedV1, tag, unsaid_policy_v1,
};
use crate::job::{Content, Growth, JobId, OnCrash, PayloadRef, Policy};
use crate::ledger::{
    AttemptError, Event, History, NewRecord, Payload, Standing, dead_code, phase_code,
};

/// Why an event could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameError(pub(crate) &'static str);

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
        let changed = |id: &JobId, number: i64, flag: bool| ChangedV1 {
            id: id.number(),
            number,
            flag,
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
                relative,
                expires_at_ms,
                ran_us,
                history,
            } => {
                let wire = RetriedV1 {
                    id: id.number(),
                    claim: *claim,
                    due_ms: *due_ms,
                    relative: *relative,
                    expires_at_ms: expires_at_ms.unwrap_or(i64::MIN),
                    ran_us: *ran_us,
                    history: history_v1(history),
                };
                self.put(out, tag::RETRIED, &wire)
            }
            Event::Snoozed {
                id,
                claim,
                due_ms,
                relative,
            } => self.put(
                out,
                tag::SNOOZED,
                &SnoozedV1 {
                    id: id.number(),
                    claim: *claim,
                    due_ms: *due_ms,
                    relative: *relative,
                },
            ),
            Event::Cancelled {
                id,
                claim,
                ran_us,
                history,
            } => {
                let wire = ended_v1(*id, *claim, *ran_us, 0, history.as_ref());
                self.put(out, tag::CANCELLED, &wire)
            }
            Event::Died {
                id,
                claim,
                ran_us,
                reason,
                history,
            } => {
                let reason = dead_code(*reason);
                let wire = ended_v1(*id, *claim, *ran_us, reason, history.as_ref());
                self.put(out, tag::DIED, &wire)
            }
            Event::Requeued {
                id,
                due_ms,
                relative,
            } => self.put(out, tag::REQUEUED, &changed(id, *due_ms, *relative)),
            Event::Rescheduled {
                id,
                due_ms,
                relative,
            } => self.put(out, tag::RESCHEDULED, &changed(id, *due_ms, *relative)),
            Event::Reprioritised { id, priority } => {
                let priority = i64::from(priority.0);
                self.put(out, tag::REPRIORITISED, &changed(id, priority, false))
            }
            Event::Moved { id, queue } => self.put(
                out,
                tag::MOVED,
                &MovedV1 {
                    id: id.number(),
                    queue: queue.to_string(),
                },
            ),
            Event::Deleted { id } => self.put(out, tag::DELETED, &changed(id, 0, false)),
            Event::Pruned { ids } => self.put(out, tag::PRUNED, &PrunedV1 { ids: ids.clone() }),
            Event::Carried(job, standing, history) => self.put(
                out,
                tag::CARRIED,
                &carried_v1(job, standing, history.as_ref()),
            ),
            Event::Opened {
                epoch,
                boot,
                steady_ms,
                writer,
            } => self.put(
                out,
                tag::OPENED,
                &OpenedV1 {
                    epoch: *epoch,
                    boot: *boot,
                    steady_ms: *steady_ms,
                    writer: writer.to_string(),
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
            Event::Skipped => Err(FrameError("it is of a later version")),
        }
    }

    pub(super) fn put<T>(&mut self, out: &mut Vec<u8>, tag: u16, wire: &T) -> Result<(), FrameError>
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

fn ended_v1(id: JobId, claim: u64, ran_us: u64, reason: u8, history: Option<&History>) -> EndedV1 {
    EndedV1 {
        id: id.number(),
        claim,
        ran_us,
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
