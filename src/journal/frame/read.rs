//! Frame to event; whatever the bytes, never a panic.

use std::borrow::Cow;

use rkyv::Portable;
use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;

use super::FRAME_HEADER;
use super::wire::{
    ArchivedCarriedV1, ArchivedChangedV1, ArchivedClaimV1, ArchivedClockSteppedV1,
    ArchivedCompletedV1, ArchivedEndedV1, ArchivedErrorV1, ArchivedFileV1, ArchivedHistoryV1,
    ArchivedJobV1, ArchivedKeyV1, ArchivedMovedV1, ArchivedOpenedV1, ArchivedPolicyV1,
    ArchivedPrunedV1, ArchivedQueueSetV1, ArchivedRetriedV1, ArchivedRootV1, ArchivedSnoozedV1,
    EXPIRY_RELATIVE, GONE, JOB_FLAGS, RELATIVE, tag, unsaid_policy_v1,
};
use crate::job::{
    Backoff, Content, Encoding, Expiry, Growth, JobId, OnCrash, PayloadRef, Policy, Priority,
};
use crate::ledger::{
    AttemptError, Counters, Event, History, LeaseRecord, NewRecord, Payload, RootRecord, Standing,
    dead_from_code, phase_from_code,
};

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
    if version > 1 && tag < tag::SKIPPABLE {
        return Err(ReadError::Newer {
            what: "frame version",
            found: version.into(),
            known: 1,
        });
    }
    if tag >= tag::SKIPPABLE {
        return Ok((Event::Skipped, FRAME_HEADER + length));
    }
    if version == 0 {
        return damaged("a frame of version 0");
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

#[expect(clippy::too_many_lines, reason = "one flat match over all tags")]
fn read_v1(tag: u16, archive: &[u8], at_ms: i64) -> Result<Event<'_>, ReadError> {
    let claim = || {
        access::<ArchivedClaimV1>(archive)
            .map(|w| (id(w.id.to_native()), w.claim.to_native(), w.flag))
    };
    let changed = || {
        access::<ArchivedChangedV1>(archive)
            .map(|w| (id(w.id.to_native()), w.number.to_native(), w.flag))
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
                relative: w.relative,
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
                relative: w.relative,
            }
        }
        tag::CANCELLED => {
            let w = access::<ArchivedEndedV1>(archive)?;
            Event::Cancelled {
                id: id(w.id.to_native()),
                claim: w.claim.to_native(),
                ran_us: w.ran_us.to_native(),
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
                claim: w.claim.to_native(),
                ran_us: w.ran_us.to_native(),
                reason,
                history: w.history.as_ref().map(|h| history(h)),
            }
        }
        tag::REQUEUED => changed().map(|(id, due_ms, relative)| Event::Requeued {
            id,
            due_ms,
            relative,
        })?,
        tag::RESCHEDULED => changed().map(|(id, due_ms, relative)| Event::Rescheduled {
            id,
            due_ms,
            relative,
        })?,
        tag::REPRIORITISED => {
            let (id, number, _) = changed()?;
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
        tag::DELETED => changed().map(|(id, ..)| Event::Deleted { id })?,
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
                steady_ms: w.steady_ms.to_native(),
                writer: Cow::Borrowed(w.writer.as_str()),
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
    if w.flags & !JOB_FLAGS != 0 {
        return Err(ReadError::Newer {
            what: "flags of a job",
            found: w.flags.into(),
            known: JOB_FLAGS.into(),
        });
    }
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
            .map(|file| Content::File(Box::new(payload_ref(file))))
            .or(inline),
    }
}
