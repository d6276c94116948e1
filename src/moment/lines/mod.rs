//! The lines of an export, one struct each; written and read by the same definitions.
//!
//! Fields that nothing is known about are refused: a line comes from this version or an older one, so such a
//! field is a mistake, or something that would be lost. `docs/export.md` describes them all.

mod values;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::job::{Backoff, DeadReason, Encoding, Growth, OnCrash, PayloadRef, Policy, State};
use crate::ledger::{AttemptError, Counters, LeaseRecord, RootRecord};

pub(super) use values::{Base64, Hex, embed};
use values::{dead_reason, encoding, raw, state};

/// The newest format of the lines.
pub(super) const FORMAT: u32 = 1;

/// What a line is about. They come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Export,
    Root,
    Queue,
    Key,
    Job,
    End,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Export => "export",
            What::Root => "root",
            What::Queue => "queue",
            What::Key => "key",
            What::Job => "job",
            What::End => "end",
        })
    }
}

/// The first look at any line.
#[derive(Deserialize)]
pub(super) struct AnyLine {
    #[serde(rename = "type")]
    pub(super) what: What,
}

/// The first look at the first line: the rest of a newer format may be anything.
#[derive(Deserialize)]
pub(super) struct AnyExport {
    pub(super) format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportLine {
    #[serde(rename = "type")]
    pub(super) what: What,
    pub(super) format: u32,
    /// The version of the crate that wrote it.
    pub(super) version: String,
    pub(super) store: Hex,
    pub(super) at_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RootLine {
    #[serde(rename = "type")]
    pub(super) what: What,
    pub(super) epoch: u64,
    pub(super) boot: Hex,
    pub(super) next_id: u64,
    pub(super) next_claim: u64,
    pub(super) counters: CountersLine,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CountersLine {
    enqueued: u64,
    started: u64,
    retried: u64,
    snoozed: u64,
    completed: u64,
    cancelled: u64,
    died: u64,
    expired: u64,
    crashed: u64,
    deleted: u64,
    pruned: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueLine {
    #[serde(rename = "type")]
    pub(super) what: What,
    pub(super) name: String,
    pub(super) paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) concurrency: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyLine {
    #[serde(rename = "type")]
    pub(super) what: What,
    pub(super) kind: String,
    pub(super) key: String,
    pub(super) id: u64,
    pub(super) until_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobLine<'a> {
    #[serde(rename = "type")]
    pub(super) what: What,
    pub(super) id: u64,
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) queue: Cow<'a, str>,
    #[serde(with = "state")]
    pub(super) state: State,
    #[serde(default, with = "dead_reason", skip_serializing_if = "Option::is_none")]
    pub(super) dead_reason: Option<DeadReason>,
    pub(super) priority: i32,
    pub(super) enqueued_at_ms: i64,
    pub(super) due_ms: i64,
    pub(super) due_is_span: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) finished_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) expiry_is_span: bool,
    pub(super) attempt: u32,
    pub(super) failures: u16,
    pub(super) crashes: u8,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key_until_ms: Option<i64>,
    #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
    pub(super) metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub(super) policy: PolicyLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<LeaseLine>,
    pub(super) version: u16,
    #[serde(with = "encoding")]
    pub(super) encoding: Encoding,
    #[serde(
        default,
        borrow,
        deserialize_with = "raw",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) payload: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub(super) payload_base64: Option<Base64<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) payload_file: Option<FileLine>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub(super) history: Option<HistoryLine<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyLine {
    pub(super) attempts_max: u16,
    backoff: GrowthLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backoff_factor: Option<u32>,
    backoff_first_ms: u64,
    backoff_max_ms: u64,
    pub(super) jitter_percent: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_limit_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stall_timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_expires_ms: Option<u64>,
    on_crash: OnCrashLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quarantine_after: Option<u8>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GrowthLine {
    Fixed,
    Linear,
    Exponential,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnCrashLine {
    Rerun,
    Dead,
    Quarantine,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseLine {
    pub(super) epoch: u64,
    pub(super) claim: u64,
    pub(super) alone: bool,
    pub(super) claimed_at_ms: i64,
}

/// The file of a payload or output that is in the same line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLine {
    name: Hex,
    pub(super) bytes: u64,
    blake3: Cow<'static, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryLine<'a> {
    #[serde(borrow)]
    pub(super) errors: Vec<ErrorLine<'a>>,
    #[serde(borrow)]
    pub(super) reason: Cow<'a, str>,
    #[serde(
        default,
        borrow,
        deserialize_with = "raw",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) output: Option<&'a RawValue>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub(super) output_base64: Option<Base64<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) output_file: Option<FileLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ErrorLine<'a> {
    pub(super) attempt: u32,
    pub(super) at_ms: i64,
    #[serde(borrow)]
    pub(super) error: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    #[serde(rename = "type")]
    pub(super) what: What,
    pub(super) queues: u64,
    pub(super) keys: u64,
    pub(super) jobs: u64,
    pub(super) digest: Hex,
}

impl FileLine {
    pub(super) fn of(file: &PayloadRef) -> FileLine {
        FileLine {
            name: Hex(file.name),
            bytes: file.len,
            blake3: blake3::Hash::from_bytes(file.hash)
                .to_hex()
                .to_string()
                .into(),
        }
    }

    /// The file that holds these bytes; what is wrong with them otherwise.
    pub(super) fn holding(&self, bytes: &[u8]) -> Result<PayloadRef, String> {
        let hash = blake3::hash(bytes);
        if bytes.len() as u64 != self.bytes {
            return Err(format!(
                "it has {} bytes, its file has {}",
                bytes.len(),
                self.bytes
            ));
        }
        if hash.to_hex().as_str() != self.blake3 {
            return Err("it does not have the hash of its file".to_owned());
        }
        Ok(PayloadRef {
            name: self.name.0,
            len: self.bytes,
            hash: *hash.as_bytes(),
        })
    }
}

impl RootLine {
    pub(super) fn of(root: &RootRecord) -> RootLine {
        let Counters {
            enqueued,
            started,
            retried,
            snoozed,
            completed,
            cancelled,
            died,
            expired,
            crashed,
            deleted,
            pruned,
        } = root.counters;
        RootLine {
            what: What::Root,
            epoch: root.epoch,
            boot: Hex(root.boot),
            next_id: root.next_id,
            next_claim: root.next_claim,
            counters: CountersLine {
                enqueued,
                started,
                retried,
                snoozed,
                completed,
                cancelled,
                died,
                expired,
                crashed,
                deleted,
                pruned,
            },
        }
    }

    pub(super) fn record(&self) -> RootRecord {
        let c = &self.counters;
        RootRecord {
            epoch: self.epoch,
            boot: self.boot.0,
            next_id: self.next_id,
            next_claim: self.next_claim,
            counters: Counters {
                enqueued: c.enqueued,
                started: c.started,
                retried: c.retried,
                snoozed: c.snoozed,
                completed: c.completed,
                cancelled: c.cancelled,
                died: c.died,
                expired: c.expired,
                crashed: c.crashed,
                deleted: c.deleted,
                pruned: c.pruned,
            },
        }
    }
}

impl PolicyLine {
    pub(super) fn of(policy: &Policy) -> PolicyLine {
        let (backoff, backoff_factor) = match policy.backoff.growth {
            Growth::Fixed => (GrowthLine::Fixed, None),
            Growth::Linear => (GrowthLine::Linear, None),
            Growth::Exponential(factor) => (GrowthLine::Exponential, Some(factor)),
        };
        let (on_crash, quarantine_after) = match policy.on_crash {
            OnCrash::Rerun => (OnCrashLine::Rerun, None),
            OnCrash::Dead => (OnCrashLine::Dead, None),
            OnCrash::QuarantineAfter(most) => (OnCrashLine::Quarantine, Some(most)),
        };
        let some = |ms: u64| (ms > 0).then_some(ms);
        PolicyLine {
            attempts_max: policy.attempts_max,
            backoff,
            backoff_factor,
            backoff_first_ms: policy.backoff.first_ms,
            backoff_max_ms: policy.backoff.max_ms,
            jitter_percent: policy.backoff.jitter_percent,
            time_limit_ms: some(policy.time_limit_ms),
            stall_timeout_ms: some(policy.stall_timeout_ms),
            retry_expires_ms: some(policy.retry_expires_ms),
            on_crash,
            quarantine_after,
        }
    }

    pub(super) fn policy(&self) -> Result<Policy, String> {
        let growth = match (self.backoff, self.backoff_factor) {
            (GrowthLine::Fixed, None) => Growth::Fixed,
            (GrowthLine::Linear, None) => Growth::Linear,
            (GrowthLine::Exponential, Some(factor)) => Growth::Exponential(factor),
            _ => return Err("`backoff_factor` goes with an exponential backoff".to_owned()),
        };
        let on_crash = match (self.on_crash, self.quarantine_after) {
            (OnCrashLine::Rerun, None) => OnCrash::Rerun,
            (OnCrashLine::Dead, None) => OnCrash::Dead,
            (OnCrashLine::Quarantine, Some(most)) => OnCrash::QuarantineAfter(most),
            _ => return Err("`quarantine_after` goes with `on_crash` quarantine".to_owned()),
        };
        Ok(Policy {
            attempts_max: self.attempts_max,
            backoff: Backoff {
                growth,
                first_ms: self.backoff_first_ms,
                max_ms: self.backoff_max_ms,
                jitter_percent: self.jitter_percent,
            },
            time_limit_ms: self.time_limit_ms.unwrap_or(0),
            stall_timeout_ms: self.stall_timeout_ms.unwrap_or(0),
            retry_expires_ms: self.retry_expires_ms.unwrap_or(0),
            on_crash,
        })
    }
}

impl LeaseLine {
    pub(super) fn of(lease: &LeaseRecord) -> LeaseLine {
        LeaseLine {
            epoch: lease.epoch,
            claim: lease.claim,
            alone: lease.alone,
            claimed_at_ms: lease.claimed_at_ms,
        }
    }

    pub(super) fn record(&self) -> LeaseRecord {
        LeaseRecord {
            epoch: self.epoch,
            claim: self.claim,
            alone: self.alone,
            claimed_at_ms: self.claimed_at_ms,
        }
    }
}

impl<'a> ErrorLine<'a> {
    pub(super) fn of(error: &'a AttemptError) -> ErrorLine<'a> {
        ErrorLine {
            attempt: error.attempt,
            at_ms: error.at_ms,
            error: Cow::Borrowed(&error.error),
        }
    }

    pub(super) fn error(&self) -> AttemptError {
        AttemptError {
            attempt: self.attempt,
            at_ms: self.at_ms,
            error: self.error.clone().into_owned(),
        }
    }
}
