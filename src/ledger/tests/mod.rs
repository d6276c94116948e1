//! The rules, one table each.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::similar_names,
    clippy::match_same_arms,
    reason = "small numbers, made here"
)]

mod asked;
mod carried;
mod crashes;
mod sound;
mod time;
mod twin;
mod wishes;

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;

use super::*;
use crate::job::{
    Backoff, Content, DeadReason, Expiry, NewJob, OnCrash, Policy, Priority, State, Wait,
};
use crate::journal::FrameWriter;

/// A ledger whose events go through their stored form, and are remembered.
struct Life {
    ledger: Ledger,
    frames: FrameWriter,
    log: Vec<Entry>,
    now_ms: i64,
}

/// A frame as it lies on disk, with what its entry's header says. Here each frame is an entry.
#[derive(Clone)]
struct Entry {
    frame: Vec<u8>,
    at_ms: i64,
    epoch: u64,
}

impl Entry {
    fn event(&self) -> (Event<'_>, usize) {
        crate::journal::read_frame(&self.frame, self.at_ms).unwrap()
    }
}

const START_MS: i64 = 1_700_000_000_000;

fn setup() -> Setup {
    Setup {
        handled: ["k".to_owned(), "other".to_owned()].into(),
        any_queue: QueueSetup {
            keep_finished: 5,
            ..QueueSetup::default()
        },
        keep_dead: 3,
        ..Setup::default()
    }
}

impl Life {
    fn new() -> Life {
        let ledger = Ledger::new(setup(), START_MS);
        Life {
            ledger,
            frames: FrameWriter::default(),
            log: Vec::new(),
            now_ms: START_MS,
        }
    }

    fn push(&mut self, event: &Event<'_>) {
        let mut bytes = Vec::new();
        self.frames.write(event, &mut bytes).unwrap();
        let (read, len) = crate::journal::read_frame(&bytes, self.now_ms).unwrap();
        assert_eq!(
            (&read, len),
            (event, bytes.len()),
            "what is read is what was written"
        );
        let place = Place {
            position: self.log.len() as u64 + 1,
            offset: 0,
            len: len as u16,
        };
        // Opened begins the epoch that its own entry is written in.
        let epoch = if let Event::Opened { epoch, .. } = event {
            *epoch
        } else {
            self.ledger.epoch()
        };
        self.ledger
            .apply(
                &read,
                Stamp {
                    place,
                    at_ms: self.now_ms,
                    epoch,
                },
            )
            .unwrap();
        self.ledger.entry_written(place.position, len as u32);
        self.ledger.assert_sound();
        self.log.push(Entry {
            frame: bytes,
            at_ms: self.now_ms,
            epoch,
        });
    }

    fn replayed(&self, from: usize) -> Ledger {
        let mut ledger = Ledger::new(setup(), self.now_ms);
        for (n, entry) in self.log.iter().enumerate().skip(from) {
            let (event, len) = entry.event();
            let place = Place {
                position: n as u64 + 1,
                offset: 0,
                len: len as u16,
            };
            let stamp = Stamp {
                place,
                at_ms: entry.at_ms,
                epoch: entry.epoch,
            };
            ledger.apply(&event, stamp).unwrap();
        }
        ledger
    }

    fn enqueue(&mut self, job: NewJob) -> Placed {
        self.enqueue_all(&[job])[0]
    }

    fn enqueue_all(&mut self, jobs: &[NewJob]) -> Vec<Placed> {
        let placed = self.ledger.enqueue(jobs).unwrap();
        for (job, placed) in jobs.iter().zip(&placed).filter(|(_, p)| p.is_new) {
            self.push(&self.ledger.enqueued(placed.id, job, self.now_ms));
        }
        placed
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.ledger.judge(self.now_ms);
    }

    fn claim(&mut self) -> Option<(JobId, u64)> {
        let pick = self.ledger.pick(0);
        self.take(pick)
    }

    fn take(&mut self, pick: Pick) -> Option<(JobId, u64)> {
        let Pick::Job(key, queue) = pick else {
            return None;
        };
        let (claim, event) = self.ledger.claim(key.id).unwrap();
        self.push(&event);
        self.ledger.turn_taken(queue);
        Some((key.id, claim))
    }

    fn settle(&mut self, id: JobId, claim: u64, outcome: &Outcome) -> SettleAnswer {
        let settling = Settling {
            id,
            claim,
            outcome,
            kept: None,
            earlier: None,
            ran_us: 5,
            seed: 0,
        };
        let (answer, event) = self.ledger.settle(settling, self.now_ms);
        if let Some(event) = event {
            self.push(&event);
        }
        answer
    }

    fn change(&mut self, id: JobId, wish: &ChangeKind) -> ChangeAnswer {
        let (answer, events) = self.ledger.change_job(id, wish, None, self.now_ms).unwrap();
        for event in &events {
            self.push(event);
        }
        answer
    }

    fn tick(&mut self, trusted: bool) {
        let over = self.ledger.tick(self.now_ms, trusted, 100);
        over.iter().for_each(|event| self.push(event));
        let pruned = self
            .ledger
            .prune(self.now_ms, trusted, 100, &FxHashSet::default());
        pruned.iter().for_each(|event| self.push(event));
    }

    fn crash(&mut self, verdict: Verdict) {
        let epoch = self.ledger.epoch() + 1;
        self.push(&Event::Opened {
            epoch,
            boot: 7,
            steady_ms: 0,
            writer: "".into(),
        });
        for event in self.ledger.recover(|_, _| verdict) {
            self.push(&event);
        }
    }

    fn state(&self, id: JobId) -> Option<State> {
        self.ledger.record(id).map(Record::state)
    }

    fn row(&self, id: JobId) -> Row {
        self.ledger.row(id, self.ledger.record(id).unwrap())
    }
}

fn job() -> NewJob {
    NewJob::plain()
}

fn with_policy(f: impl FnOnce(&mut Policy)) -> NewJob {
    let mut job = job();
    f(&mut job.policy);
    job
}

fn expires_at(at_ms: i64) -> Expiry {
    Expiry {
        at_ms,
        relative: false,
    }
}

fn completed() -> Outcome {
    Outcome::Completed(Content::Inline(Vec::new()))
}

fn failed() -> Outcome {
    Outcome::Failed {
        error: "no".to_owned(),
        retry_after_ms: None,
    }
}

#[test]
fn ready_jobs_run_by_priority_then_order_and_suspects_last() {
    let mut life = Life::new();
    let at = |life: &mut Life, priority| {
        life.enqueue(NewJob {
            priority: Priority(priority),
            ..job()
        })
        .id
    };
    let low = at(&mut life, -1);
    let suspect = at(&mut life, 0);
    let first = at(&mut life, 0);
    let second = at(&mut life, 0);
    let high = at(&mut life, i32::MAX);
    // Make `suspect` one: it runs alone here, so that only it is caught in the crash.
    life.change(high, &ChangeKind::SetPriority(Priority(-9)));
    assert_eq!(life.claim().unwrap().0, suspect);
    life.crash(Verdict::Started);
    life.change(high, &ChangeKind::SetPriority(Priority(9)));
    let order: Vec<JobId> = std::iter::from_fn(|| life.claim().map(|(id, _)| id)).collect();
    assert_eq!(order, [high, first, second, suspect, low]);
}

#[test]
fn a_job_dies_after_its_last_attempt_and_not_before() {
    let mut life = Life::new();
    let id = life.enqueue(with_policy(|p| p.attempts_max = 3)).id;
    for (number, expected) in [
        (1, State::Scheduled),
        (2, State::Scheduled),
        (3, State::Dead),
    ] {
        life.pass(4_000_000);
        let (_, claim) = life.claim().unwrap();
        assert_eq!(life.row(id).attempt, number);
        assert_eq!(life.settle(id, claim, &failed()), SettleAnswer::Settled);
        assert_eq!(life.state(id), Some(expected), "attempt {number}");
    }
    assert_eq!(life.row(id).dead_reason, Some(DeadReason::AttemptsUsedUp));
    assert_eq!(life.change(id, &ChangeKind::Retry), ChangeAnswer::Done);
    let row = life.row(id);
    assert_eq!(
        (row.state, row.failures, row.attempt),
        (State::Ready, 0, 3),
        "numbers only rise"
    );
}

#[test]
fn snoozing_uses_no_attempt() {
    let mut life = Life::new();
    let id = life.enqueue(with_policy(|p| p.attempts_max = 1)).id;
    for _ in 0..20 {
        let (_, claim) = life.claim().unwrap();
        life.settle(id, claim, &Outcome::Snoozed { for_ms: 50 });
        assert_eq!(life.state(id), Some(State::Scheduled));
        life.pass(50);
    }
    let row = life.row(id);
    assert_eq!((row.attempt, row.failures), (20, 0));
}

#[test]
fn only_the_current_claim_can_settle() {
    let mut life = Life::new();
    let id = life.enqueue(job()).id;
    let (_, first) = life.claim().unwrap();
    life.settle(id, first, &Outcome::GivenBack { started: true });
    let (_, second) = life.claim().unwrap();
    assert!(second > first);
    for late in [
        completed(),
        failed(),
        Outcome::Discarded("x".into()),
        Outcome::GivenBack { started: true },
    ] {
        let before = life.row(id);
        assert_eq!(life.settle(id, first, &late), SettleAnswer::LeaseLost);
        assert_eq!(life.row(id), before);
    }
    assert_eq!(life.settle(id, second, &completed()), SettleAnswer::Settled);
    assert_eq!(
        life.settle(id, second, &completed()),
        SettleAnswer::LeaseLost
    );
    assert_eq!(life.ledger.counters().completed, 1);
}

#[test]
fn a_key_is_unique_per_kind_while_kept_and_for_its_time() {
    let mut life = Life::new();
    let keyed = |kind: &'static str| NewJob {
        kind: kind.into(),
        key: Some("a".into()),
        ..job()
    };
    let first = life.enqueue(keyed("k"));
    assert!(first.is_new);
    assert_eq!(
        life.enqueue(keyed("k")),
        Placed {
            id: first.id,
            is_new: false
        }
    );
    let other = life.enqueue(keyed("other"));
    assert!(other.is_new, "another kind, another key");
    let batch = [
        NewJob {
            key: Some("b".into()),
            ..job()
        },
        NewJob {
            key: Some("b".into()),
            ..job()
        },
    ];
    let placed = life.enqueue_all(&batch);
    assert_eq!(
        (placed[0].is_new, placed[1]),
        (
            true,
            Placed {
                id: placed[0].id,
                is_new: false
            }
        )
    );
    assert_eq!(
        life.change(first.id, &ChangeKind::Delete),
        ChangeAnswer::Done
    );
    assert_eq!(
        life.enqueue(keyed("k")),
        Placed {
            id: first.id,
            is_new: false
        },
        "held although deleted"
    );
    assert_eq!(life.ledger.held_keys(), 1);
    life.pass(24 * 3_600_000);
    life.tick(true);
    assert_eq!(life.ledger.held_keys(), 0);
    let again = life.enqueue(keyed("k"));
    assert!(
        again.is_new && again.id > other.id,
        "ids are never used again"
    );
    assert_eq!(life.replayed(0).digest(), life.ledger.digest());
}

#[test]
fn pause_and_cap_hold_a_queue_and_survive_replay() {
    let mut life = Life::new();
    for _ in 0..3 {
        life.enqueue(job());
    }
    let set = |life: &mut Life, paused, cap| {
        if let Some(event) = life.ledger.clone_control("q", paused, cap) {
            life.push(&event);
        }
    };
    set(&mut life, Some(true), None);
    assert_eq!(life.claim(), None);
    set(&mut life, Some(false), Some(Some(2)));
    assert!(life.claim().is_some() && life.claim().is_some());
    assert_eq!(life.claim(), None, "two run at most");
    let replayed = life.replayed(0);
    assert_eq!(replayed.digest(), life.ledger.digest());
    assert_eq!(replayed.queue_views(), life.ledger.queue_views());
}

#[test]
fn a_kind_without_handler_waits_and_costs_nothing() {
    let mut life = Life::new();
    let parked = life
        .enqueue(NewJob {
            kind: "unknown".into(),
            priority: Priority(9),
            ..job()
        })
        .id;
    let known = life.enqueue(job()).id;
    assert_eq!(life.claim().map(|(id, _)| id), Some(known));
    assert!(life.row(parked).parked && life.state(parked) == Some(State::Ready));
    assert!(matches!(life.ledger.pick_kind("q", "unknown"), Pick::Job(key, _) if key.id == parked));
}

#[test]
fn queues_share_a_pool_by_weight() {
    let mut life = Life::new();
    let heavy = QueueSetup {
        weight: 3,
        ..QueueSetup::default()
    };
    life.ledger.setup.queues.insert("heavy".into(), heavy);
    for _ in 0..40 {
        life.enqueue(NewJob {
            queue: "heavy".into(),
            ..job()
        });
        life.enqueue(job());
    }
    let mut claimed = BTreeMap::new();
    for _ in 0..40 {
        let (id, _) = life.claim().unwrap();
        *claimed.entry(life.row(id).queue).or_insert(0) += 1;
    }
    assert_eq!(
        claimed,
        BTreeMap::from([("heavy".to_owned(), 30), ("q".to_owned(), 10)])
    );
}

/// Queues come by jobs, by pause and cap, and by moving jobs; past the bound each is refused, and nothing breaks.
#[test]
fn a_program_that_invents_queues_is_told() {
    let mut life = Life::new();
    for n in 0..crate::ledger::names::NAMES_MAX {
        assert!(life.ledger.check_queue_room(&format!("q{n}")).is_ok());
        life.ledger.queue_number(&format!("q{n}")).unwrap();
    }
    let error = life.ledger.check_queue_room("one-more").unwrap_err();
    assert!(error.to_string().contains("10000"), "{error}");
    assert!(life.ledger.check_queue_room("q7").is_ok());
}

/// An event that does not fit the state is refused: a bug in life, damage at replay.
#[test]
fn what_does_not_fit_is_refused() {
    let apply = |setup: &[&Event<'_>], event: &Event<'_>| {
        let mut life = Life::new();
        let id = life.enqueue(job()).id;
        assert_eq!(id.number(), 1);
        setup.iter().for_each(|event| life.push(event));
        let place = Place {
            position: 9,
            offset: 0,
            len: 1,
        };
        let stamp = Stamp {
            place,
            at_ms: life.now_ms,
            epoch: 0,
        };
        life.ledger.apply(event, stamp)
    };
    let id = JobId::from_number(1);
    let claimed = Event::Claimed {
        id,
        claim: 7,
        alone: false,
    };
    let ends = |claim| {
        [
            Event::Released {
                id,
                claim,
                started: true,
            },
            Event::Recovered {
                id,
                claim,
                crashed: true,
            },
            Event::Snoozed {
                id,
                claim,
                due_ms: START_MS,
                relative: false,
            },
            Event::Cancelled {
                id,
                claim,
                ran_us: 0,
                history: None,
            },
            Event::Died {
                id,
                claim,
                ran_us: 0,
                reason: DeadReason::Discarded,
                history: None,
            },
        ]
    };
    for (own, other) in ends(7).into_iter().zip(ends(8)) {
        apply(&[&claimed], &own).unwrap();
        apply(&[&claimed], &other).unwrap_err();
        apply(&[], &own).unwrap_err();
    }
    // Nobody is claimed twice, nor after his end.
    apply(&[], &claimed).unwrap();
    apply(&[&claimed], &claimed).unwrap_err();
    let [.., died] = ends(0);
    apply(&[&died], &claimed).unwrap_err();
}

/// Each counter counts its events; those of a root record take their place.
#[test]
fn counters_count_each_event_once() {
    type Count = fn(&mut Counters);
    let mut life = Life::new();
    let mut expected = Counters::default();
    let check = |life: &Life, expected: &Counters| assert_eq!(life.ledger.counters(), *expected);
    let ids: Vec<JobId> = (0..8)
        .map(|_| life.enqueue(with_policy(|p| p.attempts_max = 2)).id)
        .collect();
    expected.enqueued = 8;
    check(&life, &expected);
    let outcomes: [(Outcome, Count); 5] = [
        (completed(), |c| c.completed += 1),
        (failed(), |c| c.retried += 1),
        (Outcome::Snoozed { for_ms: 9 }, |c| c.snoozed += 1),
        (Outcome::GivenBack { started: true }, |_| {}),
        (Outcome::GivenBack { started: false }, |c| c.started -= 1),
    ];
    for (outcome, count) in outcomes {
        let (id, claim) = life.claim().unwrap();
        expected.started += 1;
        check(&life, &expected);
        life.settle(id, claim, &outcome);
        count(&mut expected);
        check(&life, &expected);
    }
    let (_, _) = life.claim().unwrap();
    life.crash(Verdict::Started);
    (expected.started, expected.crashed) = (expected.started + 1, expected.crashed + 1);
    check(&life, &expected);
    life.change(
        ids[7],
        &ChangeKind::Cancel {
            reason: "why".into(),
        },
    );
    expected.cancelled += 1;
    check(&life, &expected);
    life.change(ids[7], &ChangeKind::Delete);
    expected.deleted += 1;
    check(&life, &expected);
}

/// Twice what is needed, and the slack, may be there; one byte more is too much.
#[test]
fn compaction_is_wanted_from_one_byte_on() {
    let mut life = Life::new();
    life.ledger.setup.slack_bytes = 100;
    life.enqueue(job());
    let live = life.ledger.space().live_bytes();
    for (more, wanted) in [(0, false), (1, true), (7, true)] {
        let bytes = u32::try_from(2 * live + 100 + more).unwrap();
        life.ledger.entry_written(1, bytes);
        let told = (life.ledger.wants_compaction(), life.ledger.backlog_bytes());
        assert_eq!(told, (wanted, more));
    }
}

/// Of kinds, queues and policies there is room for so many and not for one more, new ones in a batch counted once.
#[test]
fn the_last_new_name_has_room() {
    use crate::ledger::names::NAMES_MAX;
    type Set = fn(&mut NewJob, u64);
    let mut ledger = Ledger::new(setup(), START_MS);
    for n in 0..NAMES_MAX - 2 {
        ledger.kind_number(&format!("k{n}")).unwrap();
        ledger.queue_number(&format!("q{n}")).unwrap();
        let policy = with_policy(|p| p.retry_expires_ms = n as u64 + 1).policy;
        ledger.policies.acquire(&policy).unwrap();
    }
    let new: [(&str, Set); 3] = [
        ("kind", |job, n| job.kind = format!("new{n}").into()),
        ("queue", |job, n| job.queue = format!("new{n}").into()),
        ("combination of attempts, backoff and limits", |job, n| {
            job.policy.retry_expires_ms = 1_000_000 + n;
        }),
    ];
    for (what, set) in new {
        let known = || NewJob {
            kind: "k1".into(),
            queue: "q1".into(),
            ..with_policy(|p| p.retry_expires_ms = 1)
        };
        let asked = |numbers: &[u64]| {
            let jobs: Vec<NewJob> = numbers
                .iter()
                .map(|n| {
                    let mut job = known();
                    set(&mut job, *n);
                    job
                })
                .chain([known()])
                .collect();
            ledger.enqueue(&jobs).map(drop)
        };
        asked(&[1, 2, 1, 2]).unwrap();
        let refused = asked(&[1, 2, 3]).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    }
}

#[test]
fn retention_keeps_the_newest() {
    let mut life = Life::new();
    let mut ids = Vec::new();
    for _ in 0..8 {
        let id = life.enqueue(job()).id;
        let (_, claim) = life.claim().unwrap();
        life.settle(id, claim, &completed());
        ids.push(id);
        life.pass(1);
        life.tick(false);
    }
    let kept: Vec<bool> = ids.iter().map(|id| life.state(*id).is_some()).collect();
    assert_eq!(kept, [false, false, false, true, true, true, true, true]);
    assert_eq!(life.ledger.counters().pruned, 3);
}

impl Ledger {
    /// The event of a queue control, without borrowing the name.
    fn clone_control(
        &self,
        name: &str,
        paused: Option<bool>,
        cap: Option<Option<u32>>,
    ) -> Option<Event<'static>> {
        self.set_queue_control(name, paused, cap)
            .unwrap()
            .map(|event| match event {
                Event::QueueSet {
                    name,
                    paused,
                    concurrency,
                } => Event::QueueSet {
                    name: name.into_owned().into(),
                    paused,
                    concurrency,
                },
                _ => unreachable!(),
            })
    }
}
