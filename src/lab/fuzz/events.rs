//! Events that bytes choose: any kind, any numbers, texts of any length that is allowed or nearly.
//!
//! Only what a writer can mean: where the format has one number for "none", that number is not chosen.

use std::borrow::Cow;

use crate::job::{
    Backoff, Content, DeadReason, Encoding, Expiry, Growth, JobId, OnCrash, PayloadRef, Policy,
    Priority,
};
use crate::ledger::{
    AttemptError, Counters, Event, History, LeaseRecord, NewRecord, Payload, Phase, RootRecord,
    Standing, phase_from_code,
};

/// Kinds of events.
const EVENTS: u8 = 22;
/// Ids and claims are chosen so small now and then, so that events meet.
const FEW: u64 = 6;
const LONG_TEXT: usize = 1_200;
const LONG_BYTES: usize = 26_000;

/// Bytes as a stream of choices; zero when they are used up.
#[derive(Clone, Debug)]
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// Mostly one of a few, now and then any.
    fn number(&mut self) -> u64 {
        match self.byte() {
            0xF0.. => u64::from_le_bytes(self.array()),
            small => u64::from(small) % FEW,
        }
    }

    fn time(&mut self) -> i64 {
        match self.byte() {
            // Not the least: it stands for "none".
            0xF0.. => i64::from_le_bytes(self.array()).max(i64::MIN + 1),
            small => i64::from(small) * 10,
        }
    }

    fn id(&mut self) -> JobId {
        JobId::from_number(self.number())
    }

    /// Some of the bytes to come, as often as is asked for.
    fn bytes(&mut self, long: usize) -> Vec<u8> {
        let (len, fill) = match self.byte() {
            0xFF => (long, self.byte()),
            0xF0.. => (
                usize::from(u16::from_le_bytes(self.array())) % long,
                self.byte(),
            ),
            short => {
                let len = usize::from(short % 24).min(self.0.len());
                let (taken, rest) = self.0.split_at(len);
                self.0 = rest;
                return taken.to_vec();
            }
        };
        vec![fill; len]
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes(LONG_TEXT)).into_owned()
    }

    fn name(&mut self) -> String {
        match self.byte() {
            0xF0.. => self.text(),
            few => ["q", "default", "a-longer-name", "k"]
                .get(usize::from(few % 4))
                .map_or_else(String::new, |name| (*name).to_owned()),
        }
    }

    fn file(&mut self) -> PayloadRef {
        PayloadRef {
            name: self.number().into(),
            len: self.number(),
            hash: [self.byte(); 32],
        }
    }

    fn policy(&mut self) -> Policy {
        let growth = match self.byte() % 3 {
            0 => Growth::Fixed,
            1 => Growth::Linear,
            _ => Growth::Exponential(u32::from_le_bytes(self.array())),
        };
        let on_crash = match self.byte() % 3 {
            0 => OnCrash::Rerun,
            1 => OnCrash::Dead,
            _ => OnCrash::QuarantineAfter(self.byte()),
        };
        Policy {
            attempts_max: u16::from_le_bytes(self.array()),
            backoff: Backoff {
                growth,
                first_ms: self.number(),
                max_ms: self.number(),
                jitter_percent: self.byte(),
            },
            time_limit_ms: self.number(),
            stall_timeout_ms: self.number(),
            retry_expires_ms: self.number(),
            on_crash,
        }
    }

    fn history(&mut self) -> History {
        let errors = (0..self.byte() % 4).map(|_| AttemptError {
            attempt: u32::from(self.byte()),
            at_ms: self.time(),
            error: self.text(),
        });
        History {
            errors: errors.collect(),
            reason: self.text(),
            output: match self.byte() % 3 {
                0 => None,
                1 => Some(Content::Inline(self.bytes(4_096))),
                _ => Some(Content::File(Box::new(self.file()))),
            },
        }
    }

    fn maybe_history(&mut self) -> Option<History> {
        self.flag().then(|| self.history())
    }

    fn standing(&mut self) -> Standing {
        let phase = phase_from_code(self.byte() % 21).unwrap_or(Phase::Waiting);
        Standing {
            phase,
            attempt: u32::from(self.byte()),
            failures: self.byte().into(),
            crashes: self.byte(),
            finished_at_ms: self.time(),
            lease: (phase == Phase::Running || self.byte() == 0xFF).then(|| LeaseRecord {
                epoch: self.number(),
                claim: self.number(),
                alone: self.flag(),
                claimed_at_ms: self.time(),
            }),
        }
    }

    fn job(&mut self, at_ms: i64) -> OwnJob {
        OwnJob {
            id: self.id(),
            kind: self.name(),
            queue: self.name(),
            version: self.byte().into(),
            encoding: if self.flag() {
                Encoding::Json
            } else {
                Encoding::Rkyv
            },
            priority: i32::from_le_bytes(self.array()),
            at_ms,
            due_ms: self.time(),
            relative: self.flag(),
            expires: self.flag().then(|| Expiry {
                at_ms: self.time(),
                relative: self.flag(),
            }),
            key: Some((self.text(), self.time())).filter(|(key, _)| !key.is_empty()),
            metadata: (0..self.byte() % 3)
                .map(|_| (self.text(), self.text()))
                .collect(),
            policy: if self.flag() {
                self.policy()
            } else {
                Policy::default()
            },
            payload: match self.byte() % 3 {
                0 => None,
                1 => Some(Content::Inline(self.bytes(LONG_BYTES))),
                _ => Some(Content::File(Box::new(self.file()))),
            },
        }
    }

    /// The next event, given to `take`: it borrows from what was chosen.
    pub(super) fn event<T>(&mut self, at_ms: i64, take: impl FnOnce(&Event<'_>) -> T) -> T {
        match self.byte() % EVENTS {
            0..=2 => take(&Event::Enqueued(self.job(at_ms).record())),
            3 => {
                let enqueued_at_ms = self.time();
                let job = self.job(enqueued_at_ms);
                let (standing, history) = (self.standing(), self.maybe_history());
                take(&Event::Carried(job.record(), standing, history))
            }
            kind @ 4..=9 => take(&self.run_event(kind)),
            kind => take(&self.other_event(kind)),
        }
    }

    fn run_event(&mut self, kind: u8) -> Event<'static> {
        let (id, claim) = (self.id(), self.number());
        match kind {
            4 => Event::Claimed {
                id,
                claim,
                alone: self.flag(),
            },
            5 => Event::Released {
                id,
                claim,
                started: self.flag(),
            },
            6 => Event::Completed {
                id,
                claim,
                ran_us: self.number(),
                history: self.maybe_history(),
            },
            7 => Event::Retried {
                id,
                claim,
                due_ms: self.time(),
                relative: self.flag(),
                expires_at_ms: self.flag().then(|| self.time()),
                ran_us: self.number(),
                history: self.history(),
            },
            8 => Event::Snoozed {
                id,
                claim,
                due_ms: self.time(),
                relative: self.flag(),
            },
            _ => Event::Recovered {
                id,
                claim,
                crashed: self.flag(),
            },
        }
    }

    fn other_event(&mut self, kind: u8) -> Event<'static> {
        let (id, claim) = (self.id(), self.number());
        match kind {
            10 => Event::Cancelled {
                id,
                claim,
                ran_us: self.number(),
                history: self.maybe_history(),
            },
            11 => Event::Died {
                id,
                claim,
                ran_us: self.number(),
                reason: match self.byte() % 5 {
                    0 => DeadReason::AttemptsUsedUp,
                    1 => DeadReason::Expired,
                    2 => DeadReason::Discarded,
                    3 => DeadReason::Quarantined,
                    _ => DeadReason::Crashed,
                },
                history: self.maybe_history(),
            },
            12 => Event::Requeued {
                id,
                due_ms: self.time(),
                relative: self.flag(),
            },
            13 => Event::Rescheduled {
                id,
                due_ms: self.time(),
                relative: self.flag(),
            },
            14 => Event::Reprioritised {
                id,
                priority: Priority(i32::from_le_bytes(self.array())),
            },
            15 => Event::Moved {
                id,
                queue: Cow::Owned(self.name()),
            },
            16 => Event::Deleted { id },
            17 => Event::Pruned {
                ids: (0..self.byte()).map(|_| self.number()).collect(),
            },
            _ => self.root_event(kind),
        }
    }

    fn root_event(&mut self, kind: u8) -> Event<'static> {
        match (kind, self.flag()) {
            (18, false) => Event::Opened {
                epoch: self.number(),
                boot: self.number().into(),
                steady_ms: self.number(),
                writer: Cow::Owned(self.text()),
            },
            (18, true) => Event::ClockStepped {
                before_ms: self.time(),
                by_ms: self.time(),
            },
            (19, _) => Event::QueueSet {
                name: Cow::Owned(self.name()),
                paused: self.flag(),
                concurrency: self.flag().then(|| u32::from(self.byte())),
            },
            (20, false) => Event::KeyHeld {
                kind: Cow::Owned(self.name()),
                key: Cow::Owned(self.text()),
                id: self.id(),
                until_ms: self.time(),
            },
            (20, true) => Event::KeyFreed {
                kind: Cow::Owned(self.name()),
                key: Cow::Owned(self.text()),
            },
            _ => Event::RootSet(RootRecord {
                epoch: self.number(),
                boot: self.number().into(),
                next_id: self.number(),
                next_claim: self.number(),
                counters: Counters::from_array(std::array::from_fn(|_| self.number())),
            }),
        }
    }
}

/// A new job with all that it points to.
struct OwnJob {
    id: JobId,
    kind: String,
    queue: String,
    version: u16,
    encoding: Encoding,
    priority: i32,
    at_ms: i64,
    due_ms: i64,
    relative: bool,
    expires: Option<Expiry>,
    key: Option<(String, i64)>,
    metadata: Vec<(String, String)>,
    policy: Policy,
    payload: Option<Content>,
}

impl OwnJob {
    fn record(&self) -> NewRecord<'_> {
        NewRecord {
            id: self.id,
            kind: &self.kind,
            version: self.version,
            encoding: self.encoding,
            queue: &self.queue,
            priority: Priority(self.priority),
            enqueued_at_ms: self.at_ms,
            due_ms: self.due_ms,
            relative: self.relative,
            expires: self.expires,
            key: self
                .key
                .as_ref()
                .map(|(key, until_ms)| (key.as_str(), *until_ms)),
            metadata: self
                .metadata
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect(),
            policy: self.policy.clone(),
            payload: self.payload.as_ref().map_or(Payload::Gone, Payload::from),
        }
    }
}
