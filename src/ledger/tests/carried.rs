//! What compaction writes again of the records, and what repair makes of a story that lost a part.

use super::asked::{finished, pause};
use super::*;
use crate::ledger::event::{History, Payload};

/// All that a store holds besides jobs, written again, is what it was.
#[test]
fn roots_are_carried_as_they_stand() {
    let mut life = Life::new();
    let keyed = |key: &str| NewJob {
        key: Some(key.into()),
        ..job()
    };
    for key in ["b", "a"] {
        let id = life.enqueue(keyed(key)).id;
        life.change(id, &ChangeKind::Delete);
    }
    pause(&mut life, "z");
    pause(&mut life, "q");
    let carried = life.ledger.carry_roots();
    assert_eq!(carried.len(), 5, "{carried:?}");
    assert_eq!(carried[0], Event::RootSet(life.ledger.root()));
    assert!(life.ledger.root().next_claim > 0 && life.ledger.root() != RootRecord::default());
    let mut again = Life::new();
    carried.iter().for_each(|event| again.push(event));
    assert_eq!(again.ledger.carry_roots(), carried);
    assert_eq!(
        (again.ledger.held_keys(), again.ledger.root()),
        (2, life.ledger.root())
    );
    assert!(again.ledger.control("q").paused && again.ledger.control("z").paused);
    assert!(!again.ledger.control("nowhere").paused);

    // Each as long as it is where it stands.
    let root = life.ledger.root();
    life.push(&Event::RootSet(root));
    let mut needed = 0;
    for (n, entry) in life.log.clone().iter().enumerate() {
        let (event, _) = entry.event();
        let carry = life.ledger.needs_carry(&event, n as u64 + 1, 0);
        assert_eq!(
            life.ledger.needs_carry(&event, n as u64 + 1, 9),
            None,
            "{event:?}"
        );
        let Some(carry) = carry else { continue };
        needed += 1;
        assert_eq!(carry, Carry::Root, "{event:?}");
        assert_eq!(life.ledger.carry_root(&event), Some(event));
    }
    assert_eq!(needed, 5, "the root, two pauses, two keys");
}

/// A job that was changed since it was enqueued is carried with its changes.
#[test]
fn a_job_is_carried_as_it_stands() {
    let mut life = Life::new();
    let expiring = NewJob {
        expires: Some(Expiry {
            at_ms: START_MS + 9_000,
            relative: true,
        }),
        ..job()
    };
    let id = life.enqueue(expiring).id;
    let moved = ChangeKind::MoveTo { queue: "p".into() };
    assert_eq!(life.change(id, &moved), ChangeAnswer::Done);
    life.push(&Event::ClockStepped {
        before_ms: START_MS,
        by_ms: 1_000,
    });
    let (first, _) = life.log[0].event();
    let Event::Enqueued(base) = &first else {
        panic!("{first:?}");
    };
    let queue = life.ledger.queue_of(base).into_owned();
    let Some(Event::Carried(job, ..)) = life.ledger.carry_job(base, &queue, None) else {
        panic!("not carried");
    };
    let expires_ms = job.expires.map(|expiry| expiry.at_ms);
    assert_eq!((job.queue, expires_ms), ("p", Some(START_MS + 10_000)));
    let bases: Vec<_> = life.ledger.bases().collect();
    assert_eq!(bases.len(), 1);
    assert_eq!((bases[0].0, bases[0].1.position), (id, 1));
}

#[test]
fn a_payload_that_is_gone_is_carried_as_gone() {
    let mut life = Life::new();
    let id = finished(&mut life, job(), &completed());
    let (first, _) = life.log[0].event();
    let Event::Enqueued(base) = &first else {
        panic!("{first:?}");
    };
    assert!(matches!(base.payload, Payload::Inline(_)) && base.id == id);
    let Some(Event::Carried(job, standing, _)) = life.ledger.carry_job(base, "q", None) else {
        panic!("not carried");
    };
    assert_eq!(
        (job.payload, standing.finished_at_ms),
        (Payload::Gone, START_MS)
    );
}

const LOST_CLAIM: u64 = 77;

/// Where an event stands that follows a part which was lost.
fn after_the_loss() -> Stamp {
    Stamp {
        place: Place {
            position: 99,
            offset: 0,
            len: 0,
        },
        at_ms: START_MS,
        epoch: 4,
    }
}

/// A story that lost a part: the record is made to fit what follows.
#[test]
fn a_record_is_mended_to_fit_what_follows() {
    let stamp = after_the_loss();
    let ends = |id| {
        let history = History::default;
        [
            Event::Released {
                id,
                claim: LOST_CLAIM,
                started: true,
            },
            Event::Completed {
                id,
                claim: LOST_CLAIM,
                ran_us: 0,
                history: None,
            },
            Event::Died {
                id,
                claim: LOST_CLAIM,
                reason: DeadReason::Discarded,
                ran_us: 0,
                history: Some(history()),
            },
        ]
    };
    let id = JobId::from_number(0);
    for n in 0..ends(id).len() {
        let mut life = Life::new();
        let id = life.enqueue(job()).id;
        let event = &ends(id)[n];
        life.ledger.fit(event, stamp);
        life.ledger.assert_sound();
        let row = life.row(id);
        assert_eq!((row.state, row.attempt), (State::Running, 1), "{event:?}");
        assert_eq!(row.claim.map(|claim| claim.0), Some(LOST_CLAIM));
        life.push(event);
        // What fits already stays as it is.
        let before = life.row(id);
        let claimed = Event::Completed {
            id,
            claim: 0,
            ran_us: 0,
            history: None,
        };
        life.ledger.fit(&claimed, stamp);
        assert_eq!(life.row(id), before, "from outside, whoever runs it");
    }
    // Nobody's.
    Life::new()
        .ledger
        .fit(&ends(JobId::from_number(1_000))[0], stamp);
}

#[test]
fn what_is_claimed_after_a_loss_had_waited() {
    let stamp = after_the_loss();
    let mut life = Life::new();
    let id = finished(&mut life, job(), &completed());
    let (claim, alone) = (LOST_CLAIM, false);
    let claimed = Event::Claimed { id, claim, alone };
    life.ledger.fit(&claimed, stamp);
    life.ledger.assert_sound();
    assert_eq!(life.state(id), Some(State::Ready));
    life.push(&claimed);
    life.ledger.fit(&claimed, stamp);
    assert_eq!(life.state(id), Some(State::Ready), "claimed twice");
}

#[test]
fn a_key_is_lost_to_another_or_by_deletion() {
    let keyed = NewJob {
        key: Some("a".into()),
        ..job()
    };
    let mut life = Life::new();
    let plain = life.enqueue(job()).id;
    let id = life.enqueue(keyed.clone()).id;
    let lost = |life: &Life, id| life.ledger.has_lost_its_key(id);
    assert!(!lost(&life, id) && !lost(&life, plain));
    assert!(!lost(&life, JobId::from_number(1_000)));
    let held = Event::KeyHeld {
        kind: "k".into(),
        key: "a".into(),
        id,
        until_ms: life.ledger.record(id).unwrap().key().unwrap().1,
    };
    life.push(&held);
    assert!(lost(&life, id), "held after its deletion");
    let root = RootRecord {
        next_claim: 50,
        ..life.ledger.root()
    };
    life.ledger.set_root(root);
    assert_eq!(life.ledger.root(), root);
}

/// Bytes on disk can say anything, and the next number is one more: it overflowed.
#[test]
fn a_number_that_leaves_no_room_for_the_next_is_damage() {
    let jobs = [job()];
    for number in [NUMBER_MAX + 1, u64::MAX] {
        let mut ledger = Ledger::new(setup(), START_MS);
        let id = JobId::from_number(number);
        let root = RootRecord {
            next_id: number,
            ..ledger.root()
        };
        let claim = Event::Claimed {
            id: JobId::from_number(1),
            claim: number,
            alone: false,
        };
        for event in [
            ledger.enqueued(id, &jobs[0], START_MS),
            Event::RootSet(root),
            claim,
        ] {
            assert!(ledger.apply(&event, after_the_loss()).is_err(), "{event:?}");
        }
        assert_eq!(ledger.enqueue(&jobs).unwrap()[0].id.number(), 1);
    }
}
