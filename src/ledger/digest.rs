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

    fn finish(&self) -> u128 {
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

/// Hash of what never changes in a job, but for its payload, kind, queue and policy: of its key and metadata, each text
/// after its length, and of version, encoding and time.
pub(crate) fn fixed_hash(job: &NewRecord<'_>) -> u32 {
    let (version, at_ms) = (job.version.to_le_bytes(), job.enqueued_at_ms.to_le_bytes());
    let encoding = [job.encoding as u8];
    if job.key.is_none() && job.metadata.is_empty() {
        // The same bytes at once: a stream takes many times as long, and most jobs are like this.
        let no_key = 0_u64.to_le_bytes();
        let mut row = [0; 8 + 2 + 1 + 8];
        let bytes = no_key
            .into_iter()
            .chain(version)
            .chain(encoding)
            .chain(at_ms);
        row.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        return fold(xxh3_64(&row));
    }
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
    hash.update(&version);
    hash.update(&encoding);
    hash.update(&at_ms);
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

#[cfg(test)]
mod tests {
    //! The numbers are those of another implementation of XXH3 over the rows that are written out beside them.

    use super::super::event::{AttemptError, Counters, Place};
    use super::super::names::{KindIx, PolicyIx, QueueIx};
    use super::super::table::{Rare, Waits};
    use super::*;
    use crate::job::{Encoding, Expiry, PayloadRef, Policy, Priority};

    const FILE: PayloadRef = PayloadRef {
        name: 5,
        len: 1_000,
        hash: [7; 32],
    };

    #[test]
    fn roots_queues_and_keys() {
        let root = RootRecord {
            epoch: 3,
            boot: (5 << 64) | 7,
            next_id: 11,
            next_claim: 13,
            counters: Counters::from_array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        };
        // 2, 3, 5, 7, 11, 13, 1, 2, … 11
        assert_eq!(of_root(&root), 0x38e3_a2d4_8cf0_a936_4ce6_4c09_beb7_ee2b);
        let controls = |paused, concurrency| {
            let control = Control {
                paused,
                concurrency,
            };
            of_queue(xxh3_64(b"q"), control)
        };
        // 3, hash, 4 << 1 | 1; and 3, hash, all ones << 1
        let set = controls(true, Some(4));
        assert_eq!(set, 0xb246_e9fe_89cc_a62f_d217_902a_6897_0aff);
        let unset = controls(false, None);
        assert_eq!(unset, 0xcf4a_a0a8_01a9_08db_ef3b_06ef_779c_a538);
        // 4, hash of the kind, hash of the key, 9, -5
        let key = of_held_key(xxh3_64(b"k"), "key", JobId::from_number(9), -5);
        assert_eq!(key, 0xfc08_1b01_98a7_59b8_aa5f_efc6_3b71_3a0a);
    }

    fn job(phase: Phase, relative: bool, rare: Rare, lease: Option<LeaseRecord>) -> u128 {
        let record = Record {
            base: Place {
                position: 1,
                offset: 0,
                len: 0,
            },
            due_ms: -3,
            payload_hash: 0xAAAA,
            fixed_hash: 0xBBBB,
            rare: Some(Box::new(rare)),
            priority: Priority(-2),
            attempt: 6,
            kind: KindIx(0),
            queue: QueueIx(0),
            policy: PolicyIx(0),
            failures: 4,
            phase,
            crashes: 2,
            encoding: Encoding::Rkyv,
            relative,
            waits: Waits::Ready,
        };
        let shared = Shared {
            kind: 100,
            queue: 200,
            policy: 300,
        };
        of_job(JobId::from_number(17), &record, &shared, lease.as_ref())
    }

    /// 1, 17, -3, hashes, priority and attempt, 100, 200, 300, failures to phase; and what follows.
    #[test]
    fn jobs() {
        let plain = job(Phase::Waiting, true, Rare::default(), None);
        assert_eq!(plain, 0x43d2_e4ee_5ce7_31c0_ecb3_903e_1af5_7414);
        // 900, the least number, 77
        let expires = Rare {
            expires: Some(Expiry {
                at_ms: 900,
                relative: true,
            }),
            history_hash: 77,
            ..Rare::default()
        };
        let dead = job(Phase::Dead(DeadReason::Quarantined), false, expires, None);
        assert_eq!(dead, 0x12b7_ee5b_13c4_7311_2379_9188_1e44_52a1);
        // the least number, 901, 0
        let keyed = Rare {
            key: Some(("key".into(), 901)),
            ..Rare::default()
        };
        let completed = job(Phase::Completed, false, keyed, None);
        assert_eq!(completed, 0x528a_7c74_db7c_d295_e33b_3308_db86_6244);
        // 8, 21 << 1 | 1, 40
        let lease = LeaseRecord {
            epoch: 8,
            claim: 21,
            alone: true,
            claimed_at_ms: 40,
        };
        let running = job(Phase::Running, false, Rare::default(), Some(lease));
        assert_eq!(running, 0x286a_daa9_f056_4da3_6fc0_3978_4db7_577e);
    }

    #[test]
    fn payloads_and_what_never_changes() {
        let inline = payload_hash(Payload::Inline(b"abc"));
        let hashes = [
            inline,
            payload_hash(Payload::File(FILE)),
            payload_hash(Payload::Gone),
        ];
        assert_eq!(hashes, [0xf180_66c4, 0xe9fd_6381, 0]);
        let mut fixed = NewRecord {
            id: JobId::from_number(1),
            kind: "k",
            version: 2,
            encoding: Encoding::Json,
            queue: "q",
            priority: Priority(0),
            enqueued_at_ms: 1_700,
            due_ms: 0,
            relative: false,
            expires: None,
            key: Some(("key", 0)),
            metadata: vec![("n", "v")],
            policy: Policy::default(),
            payload: Payload::Gone,
        };
        assert_eq!(fixed_hash(&fixed), 0xa2fb_9afb);
        // 0, 2, 1, 1700; of 8, 2, 1 and 8 bytes. The same if the key is streamed.
        (fixed.key, fixed.metadata) = (None, Vec::new());
        assert_eq!(fixed_hash(&fixed), 0xa6ef_b1a6);
        fixed.key = Some(("", 0));
        assert_eq!(fixed_hash(&fixed), 0xa6ef_b1a6);
    }

    #[test]
    fn histories() {
        let hash = |output| {
            let error = AttemptError {
                attempt: 2,
                at_ms: 50,
                error: "no".into(),
            };
            history_hash(&History {
                errors: vec![error],
                reason: "why".into(),
                output,
            })
        };
        assert_eq!(hash(None), 0x8254_3a67_4305_37d6);
        assert_eq!(
            hash(Some(Content::Inline(b"out".to_vec()))),
            0xe689_5d32_b040_8a79
        );
        assert_eq!(
            hash(Some(Content::File(Box::new(FILE)))),
            0xabe3_3573_01ee_fd82
        );
    }

    #[test]
    fn each_code_is_that_of_one_phase() {
        let phases: Vec<Phase> = (0..=u8::MAX).filter_map(phase_from_code).collect();
        assert_eq!(phases.len(), 9);
        let codes: Vec<u8> = phases.into_iter().map(phase_code).collect();
        assert_eq!(codes, [0, 1, 2, 3, 16, 17, 18, 19, 20]);
    }
}
