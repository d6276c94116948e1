//! The stored structs, version 1: frozen, down to the order of their fields.

use std::borrow::Cow;

use rkyv::with::AsOwned;
use rkyv::{Archive, Serialize};

use crate::job::{Backoff, Growth, OnCrash, Policy};

#[derive(Archive, Serialize)]
pub(super) struct JobV1<'a> {
    pub(super) id: u64,
    pub(super) due_ms: i64,
    pub(super) priority: i32,
    pub(super) version: u16,
    pub(super) encoding: u8,
    /// 1: the wait is relative; 2: the payload is gone; 4: the expiry is relative.
    pub(super) flags: u8,
    #[rkyv(with = AsOwned)]
    pub(super) kind: Cow<'a, str>,
    #[rkyv(with = AsOwned)]
    pub(super) queue: Cow<'a, str>,
    #[rkyv(with = AsOwned)]
    pub(super) payload: Cow<'a, [u8]>,
    pub(super) rare: Option<Box<RareV1>>,
}

pub(super) const RELATIVE: u8 = 1;
pub(super) const GONE: u8 = 2;
pub(super) const EXPIRY_RELATIVE: u8 = 4;
pub(super) const JOB_FLAGS: u8 = RELATIVE | GONE | EXPIRY_RELATIVE;

/// What most jobs lack. `i64::MIN` and the empty text stand for nothing.
#[derive(Archive, Serialize)]
pub(super) struct RareV1 {
    pub(super) expires_at_ms: i64,
    pub(super) key: String,
    pub(super) key_until_ms: i64,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) policy: Option<PolicyV1>,
    pub(super) file: Option<FileV1>,
}

#[derive(Archive, Serialize)]
pub(super) struct PolicyV1 {
    pub(super) attempts_max: u16,
    /// 0 fixed, 1 linear, 2 exponential.
    pub(super) growth: u8,
    pub(super) factor: u32,
    pub(super) first_ms: u64,
    pub(super) max_ms: u64,
    pub(super) jitter_percent: u8,
    pub(super) time_limit_ms: u64,
    pub(super) stall_timeout_ms: u64,
    pub(super) retry_expires_ms: u64,
    /// 0 rerun, 1 dead, 2 quarantine after `on_crash_after`.
    pub(super) on_crash: u8,
    pub(super) on_crash_after: u8,
}

#[derive(Archive, Serialize)]
pub(super) struct FileV1 {
    pub(super) name: u128,
    pub(super) len: u64,
    pub(super) hash: [u8; 32],
}

#[derive(Archive, Serialize)]
pub(super) struct CarriedV1<'a> {
    pub(super) job: JobV1<'a>,
    pub(super) enqueued_at_ms: i64,
    pub(super) phase: u8,
    pub(super) attempt: u32,
    pub(super) failures: u16,
    pub(super) crashes: u8,
    pub(super) finished_at_ms: i64,
    pub(super) lease: Option<LeaseV1>,
    pub(super) history: Option<Box<HistoryV1>>,
}

#[derive(Archive, Serialize)]
pub(super) struct LeaseV1 {
    pub(super) epoch: u64,
    pub(super) claim: u64,
    pub(super) alone: bool,
    pub(super) claimed_at_ms: i64,
}

#[derive(Archive, Serialize)]
pub(super) struct HistoryV1 {
    pub(super) errors: Vec<ErrorV1>,
    pub(super) reason: String,
    pub(super) output: Option<Vec<u8>>,
    pub(super) output_file: Option<FileV1>,
}

#[derive(Archive, Serialize)]
pub(super) struct ErrorV1 {
    pub(super) attempt: u32,
    pub(super) at_ms: i64,
    pub(super) error: String,
}

/// Claimed (flag: alone), Released (flag: started), Recovered (flag: crashed).
#[derive(Archive, Serialize)]
pub(super) struct ClaimV1 {
    pub(super) id: u64,
    pub(super) claim: u64,
    pub(super) flag: bool,
}

#[derive(Archive, Serialize)]
pub(super) struct CompletedV1 {
    pub(super) id: u64,
    pub(super) claim: u64,
    pub(super) ran_us: u64,
    pub(super) history: Option<Box<HistoryV1>>,
}

#[derive(Archive, Serialize)]
pub(super) struct RetriedV1 {
    pub(super) id: u64,
    pub(super) claim: u64,
    pub(super) due_ms: i64,
    pub(super) relative: bool,
    /// `i64::MIN`: as it was.
    pub(super) expires_at_ms: i64,
    pub(super) ran_us: u64,
    pub(super) history: HistoryV1,
}

#[derive(Archive, Serialize)]
pub(super) struct SnoozedV1 {
    pub(super) id: u64,
    pub(super) claim: u64,
    pub(super) due_ms: i64,
    pub(super) relative: bool,
}

/// Cancelled (reason 0), Died.
#[derive(Archive, Serialize)]
pub(super) struct EndedV1 {
    pub(super) id: u64,
    pub(super) claim: u64,
    pub(super) ran_us: u64,
    pub(super) reason: u8,
    pub(super) history: Option<Box<HistoryV1>>,
}

/// Requeued, Rescheduled (due; flag: relative), Reprioritised (priority), Deleted (0).
#[derive(Archive, Serialize)]
pub(super) struct ChangedV1 {
    pub(super) id: u64,
    pub(super) number: i64,
    pub(super) flag: bool,
}

#[derive(Archive, Serialize)]
pub(super) struct MovedV1 {
    pub(super) id: u64,
    pub(super) queue: String,
}

#[derive(Archive, Serialize)]
pub(super) struct PrunedV1 {
    pub(super) ids: Vec<u64>,
}

#[derive(Archive, Serialize)]
pub(super) struct OpenedV1 {
    pub(super) epoch: u64,
    pub(super) boot: u128,
    pub(super) steady_ms: u64,
    pub(super) writer: String,
}

#[derive(Archive, Serialize)]
pub(super) struct ClockSteppedV1 {
    pub(super) before_ms: i64,
    pub(super) by_ms: i64,
}

#[derive(Archive, Serialize)]
pub(super) struct QueueSetV1 {
    pub(super) name: String,
    pub(super) paused: bool,
    pub(super) concurrency: Option<u32>,
}

#[derive(Archive, Serialize)]
pub(super) struct KeyV1 {
    pub(super) kind: String,
    pub(super) key: String,
    pub(super) id: u64,
    pub(super) until_ms: i64,
}

#[derive(Archive, Serialize)]
pub(super) struct RootV1 {
    pub(super) epoch: u64,
    pub(super) boot: u128,
    pub(super) next_id: u64,
    pub(super) next_claim: u64,
    pub(super) counters: [u64; 11],
}

pub(super) mod tag {
    pub(in super::super) const ENQUEUED: u16 = 1;
    pub(in super::super) const CLAIMED: u16 = 2;
    pub(in super::super) const RELEASED: u16 = 3;
    pub(in super::super) const COMPLETED: u16 = 4;
    pub(in super::super) const RETRIED: u16 = 5;
    pub(in super::super) const SNOOZED: u16 = 6;
    pub(in super::super) const CANCELLED: u16 = 7;
    pub(in super::super) const DIED: u16 = 8;
    pub(in super::super) const RECOVERED: u16 = 9;
    pub(in super::super) const REQUEUED: u16 = 10;
    pub(in super::super) const RESCHEDULED: u16 = 11;
    pub(in super::super) const REPRIORITISED: u16 = 12;
    pub(in super::super) const MOVED: u16 = 13;
    pub(in super::super) const DELETED: u16 = 14;
    pub(in super::super) const PRUNED: u16 = 15;
    pub(in super::super) const CARRIED: u16 = 16;
    pub(in super::super) const OPENED: u16 = 32;
    pub(in super::super) const CLOCK_STEPPED: u16 = 33;
    pub(in super::super) const QUEUE_SET: u16 = 34;
    pub(in super::super) const KEY_HELD: u16 = 35;
    pub(in super::super) const KEY_FREED: u16 = 36;
    pub(in super::super) const ROOT_SET: u16 = 37;
    /// From here on: what older versions may skip.
    pub(in super::super) const SKIPPABLE: u16 = 0x8000;
}

/// The policy that version 1 leaves out. Frozen: it is what `policy: None` means on disk for ever,
/// whatever the default of a new job may become.
pub(super) fn unsaid_policy_v1() -> Policy {
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
