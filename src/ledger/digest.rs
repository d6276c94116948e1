//! One number that stands for everything that must survive.
//!
//! The sum over all kept records of a 128-bit hash of their fields. Each entry header carries the sum as
//! of its group, and a replay must arrive at it: that catches a carry that forgets a field, a
//! record that came back, and an `apply` that does not do the same twice. Hashes are XXH3, whose
//! results are specified for ever.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use crate::job::{Content, DeadReason, JobId};

use super::event::{History, LeaseRecord, NewRecord, Payload, Phase, RootRecord};
use super::queue::Control;
use super::table::Record;

/// Fixed-width fields in a row, hashed at once.
struct Mix {
    bytes: [u8; 160],
    len: usize,
}

impl Mix {
    /// `what` keeps different sorts of records apart.
    fn new(what: u8) -> Mix {
        let mut mix = Mix {
            bytes: [0; 160],
            len: 0,
        };
        mix.add(u64::from(what));
        mix
    }

    fn add(&mut self, n: u64) {
        if let Some(chunk) = self.bytes.get_mut(self.len..self.len + 8) {
            chunk.copy_from_slice(&n.to_le_bytes());
        }
        debug_assert!(
            self.len + 8 <= self.bytes.len(),
            "a field would be left out of the digest"
        );
        self.len += 8;
    }

    fn add_signed(&mut self, n: i64) {
        self.add(n.cast_unsigned());
    }

    fn finish(self) -> u128 {
        xxh3_128(self.bytes.get(..self.len).unwrap_or(&self.bytes))
    }
}

/// Hashes of the shared things that a record refers to by number.
pub(crate) struct Shared {
    pub(crate) kind: u64,
    pub(crate) queue: u64,
    pub(crate) policy: u64,
}

pub(crate) fn of_job(id: JobId, r: &Record, shared: &Shared, lease: Option<&LeaseRecord>) -> u128 {
    let mut mix = Mix::new(1);
    mix.add(id.number());
    mix.add_signed(r.due_ms);
    mix.add(u64::from(r.payload_hash) << 32 | u64::from(r.fixed_hash));
    mix.add(u64::from(r.priority.0.cast_unsigned()) << 32 | u64::from(r.attempt));
    mix.add(shared.kind);
    mix.add(shared.queue);
    mix.add(shared.policy);
    let phase = u64::from(phase_code(r.phase));
    mix.add(
        u64::from(r.failures) << 32
            | u64::from(r.crashes) << 16
            | u64::from(r.expires().is_some_and(|e| e.relative)) << 8
            | phase << 1
            | u64::from(r.relative),
    );
    if let Some(rare) = r.rare.as_ref().filter(|rare| rare.is_told()) {
        mix.add_signed(rare.expires.map_or(i64::MIN, |e| e.at_ms));
        mix.add_signed(
            rare.key
                .as_ref()
                .map_or(i64::MIN, |(_, until_ms)| *until_ms),
        );
        mix.add(rare.history_hash);
    }
    if let Some(lease) = lease {
        mix.add(lease.epoch);
        mix.add(lease.claim << 1 | u64::from(lease.alone));
        mix.add_signed(lease.claimed_at_ms);
    }
    mix.finish()
}

pub(crate) fn of_root(root: &RootRecord) -> u128 {
    let mut mix = Mix::new(2);
    mix.add(root.epoch);
    mix.add(u64::try_from(root.boot >> 64).unwrap_or(0));
    mix.add(u64::try_from(root.boot & u128::from(u64::MAX)).unwrap_or(0));
    mix.add(root.next_id);
    mix.add(root.next_claim);
    for counter in root.counters.to_array() {
        mix.add(counter);
    }
    mix.finish()
}

pub(crate) fn of_queue(name_hash: u64, control: Control) -> u128 {
    let mut mix = Mix::new(3);
    mix.add(name_hash);
    mix.add(control.concurrency.map_or(u64::MAX, u64::from) << 1 | u64::from(control.paused));
    mix.finish()
}

pub(crate) fn of_held_key(kind_hash: u64, key: &str, id: JobId, until_ms: i64) -> u128 {
    let mut mix = Mix::new(4);
    mix.add(kind_hash);
    mix.add(xxh3_64(key.as_bytes()));
    mix.add(id.number());
    mix.add_signed(until_ms);
    mix.finish()
}

/// Stored code of a phase; part of the format.
pub(crate) fn phase_code(phase: Phase) -> u8 {
    match phase {
        Phase::Waiting => 0,
        Phase::Running => 1,
        Phase::Completed => 2,
        Phase::Cancelled => 3,
        Phase::Dead(reason) => 16 + dead_code(reason),
    }
}

pub(crate) fn phase_from_code(code: u8) -> Option<Phase> {
    Some(match code {
        0 => Phase::Waiting,
        1 => Phase::Running,
        2 => Phase::Completed,
        3 => Phase::Cancelled,
        _ => Phase::Dead(dead_from_code(code.checked_sub(16)?)?),
    })
}

/// Stored code of a reason of death; part of the format.
pub(crate) fn dead_code(reason: DeadReason) -> u8 {
    match reason {
        DeadReason::AttemptsUsedUp => 0,
        DeadReason::Expired => 1,
        DeadReason::Discarded => 2,
        DeadReason::Quarantined => 3,
        DeadReason::Crashed => 4,
    }
}

pub(crate) fn dead_from_code(code: u8) -> Option<DeadReason> {
    Some(match code {
        0 => DeadReason::AttemptsUsedUp,
        1 => DeadReason::Expired,
        2 => DeadReason::Discarded,
        3 => DeadReason::Quarantined,
        4 => DeadReason::Crashed,
        _ => return None,
    })
}

/// Hash of a payload, for the digest: 0 once it is gone.
pub(crate) fn payload_hash(payload: Payload<'_>) -> u32 {
    match payload {
        Payload::Gone => 0,
        Payload::Inline(bytes) => fold(xxh3_64(bytes)),
        Payload::File(file) => {
            fold(xxh3_64(&file.hash) ^ xxh3_64(&file.name.to_le_bytes()) ^ file.len)
        }
    }
}

/// Hash of what never changes in a job, but for its payload, kind, queue and policy.
pub(crate) fn fixed_hash(job: &NewRecord<'_>) -> u32 {
    let mut hash = Xxh3::new();
    let mut text = |s: &str| {
        hash.update(&(s.len() as u64).to_le_bytes());
        hash.update(s.as_bytes());
    };
    text(job.key.map_or("", |(key, _)| key));
    for (name, value) in &job.metadata {
        text(name);
        text(value);
    }
    hash.update(&job.version.to_le_bytes());
    hash.update(&[job.encoding as u8]);
    hash.update(&job.enqueued_at_ms.to_le_bytes());
    fold(hash.digest())
}

pub(crate) fn history_hash(history: &History) -> u64 {
    let mut hash = Xxh3::new();
    for error in &history.errors {
        hash.update(&error.attempt.to_le_bytes());
        hash.update(&error.at_ms.to_le_bytes());
        hash.update(&(error.error.len() as u64).to_le_bytes());
        hash.update(error.error.as_bytes());
    }
    hash.update(&(history.reason.len() as u64).to_le_bytes());
    hash.update(history.reason.as_bytes());
    match &history.output {
        None => hash.update(&[0]),
        Some(Content::Inline(bytes)) => {
            hash.update(&[1]);
            hash.update(bytes);
        }
        Some(Content::File(file)) => {
            hash.update(&[2]);
            hash.update(&file.name.to_le_bytes());
            hash.update(&file.hash);
        }
    }
    hash.digest()
}

fn fold(hash: u64) -> u32 {
    u32::try_from((hash >> 32) ^ (hash & u64::from(u32::MAX))).unwrap_or(0)
}
