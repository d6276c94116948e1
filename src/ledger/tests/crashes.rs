//! What is made of jobs that were running when a process died.

use super::*;

/// With overflow checks, as in a debug build, a store whose journal began there did not open: the replay panicked.
#[test]
fn a_replay_may_begin_between_a_claim_and_its_release() {
    let mut life = Life::new();
    life.enqueue(job());
    let (id, claim) = life.claim().unwrap();
    let begin = life.log.len();
    let started = false;
    life.push(&Event::Released { id, claim, started });
    life.claim().unwrap();
    let root = life.ledger.root();
    life.push(&Event::RootSet(root));
    assert_eq!(life.replayed(begin).root(), root);
}

#[test]
fn a_crash_uses_no_attempt_and_is_counted_for_those_that_had_begun() {
    let cases = [
        (Verdict::NotStarted, 0),
        (Verdict::Ended, 0),
        (Verdict::Started, 1),
    ];
    for (verdict, crashes) in cases {
        let mut life = Life::new();
        let id = life.enqueue(with_policy(|p| p.attempts_max = 1)).id;
        life.claim().unwrap();
        life.crash(verdict);
        let row = life.row(id);
        assert_eq!(
            (row.state, row.failures, row.crashes),
            (State::Ready, 0, crashes),
            "{verdict:?}"
        );
        let before = life.ledger.digest();
        assert!(
            life.ledger.recover(|_, _| Verdict::Started).is_empty(),
            "recovering again does nothing"
        );
        assert_eq!(life.ledger.digest(), before);
    }
}

#[test]
fn the_one_that_kills_is_quarantined_and_its_neighbours_are_not() {
    let mut life = Life::new();
    let killer = life.enqueue(job()).id;
    let innocents: Vec<JobId> = (0..7).map(|_| life.enqueue(job()).id).collect();
    for _ in 0..2 {
        for _ in 0..8 {
            life.claim().unwrap();
        }
        life.crash(Verdict::Started);
    }
    // All eight are suspects now: each runs alone.
    let mut crashes = 0;
    while let Some((id, claim)) = life.claim() {
        assert_eq!(
            life.ledger.pick(0),
            Pick::Hold,
            "nothing runs beside a suspect"
        );
        assert_eq!(life.ledger.held_for(), Some(id), "and people can see it");
        if id == killer {
            life.crash(Verdict::Started);
            crashes += 1;
        } else {
            life.settle(id, claim, &completed());
        }
    }
    assert_eq!(crashes, 1);
    let found = life.row(killer);
    assert_eq!(found.dead_reason, Some(DeadReason::Quarantined));
    // It used to say 2: the crash that convicted it was not counted.
    assert_eq!(found.crashes, 3);
    // Two of the seven were pruned by the retention of five.
    assert!(
        innocents
            .iter()
            .all(|id| life.state(*id).is_none_or(|s| s == State::Completed))
    );
    assert_eq!(life.ledger.counters().completed, 7);
}

/// L8: a claim by hand once gave out a suspect beside others, as running alone, and an innocent was convicted.
#[test]
fn a_claim_by_hand_gives_no_suspect_beside_others() {
    let mut life = Life::new();
    let suspect = life
        .enqueue(NewJob {
            kind: "by-hand".into(),
            ..job()
        })
        .id;
    let pick = |life: &Life| life.ledger.pick_kind("q", "by-hand");
    for _ in 0..2 {
        let (_, event) = life.ledger.claim(suspect).unwrap();
        life.push(&event);
        life.crash(Verdict::Started);
    }
    life.enqueue(job());
    let (other, claim) = life.claim().expect("a job that may run beside others");
    assert_eq!(pick(&life), Pick::Hold);
    life.settle(other, claim, &completed());
    assert!(matches!(pick(&life), Pick::Job(key, _) if key.id == suspect));
}

/// L8: a suspect of a queue that no pool here runs would hold everybody up for ever.
#[test]
fn a_suspect_that_nobody_here_runs_holds_nobody_up() {
    let mut life = Life::new();
    let suspect = life
        .enqueue(NewJob {
            queue: "elsewhere".into(),
            ..job()
        })
        .id;
    for _ in 0..2 {
        let (_, event) = life.ledger.claim(suspect).unwrap();
        life.push(&event);
        life.crash(Verdict::Started);
    }
    let elsewhere = life.ledger.queue_names.find("elsewhere").unwrap();
    life.ledger.queues[usize::from(elsewhere)].setup.pool = None;
    let other = life.enqueue(job()).id;
    assert_eq!(life.claim().map(|(id, _)| id), Some(other));
}

#[test]
fn at_most_once_means_dead_after_a_crash() {
    let mut life = Life::new();
    let id = life.enqueue(with_policy(|p| p.on_crash = OnCrash::Dead)).id;
    life.claim().unwrap();
    life.crash(Verdict::NotStarted);
    assert_eq!(
        life.state(id),
        Some(State::Ready),
        "proven not to have begun"
    );
    life.claim().unwrap();
    life.crash(Verdict::Ended);
    assert_eq!(life.row(id).dead_reason, Some(DeadReason::Crashed));
}

/// It was given back at shutdown and ran a second time with the next opening; a lease taken away at a limit let
/// a second handler run beside the first.
#[test]
fn at_most_once_means_dead_after_an_attempt_that_was_cut_off() {
    let taken = || Outcome::TakenAway { error: "t".into() };
    let failed = || Outcome::Failed {
        error: "e".into(),
        retry_after_ms: None,
    };
    let cases = [
        (Outcome::GivenBack { started: false }, State::Ready, None),
        (failed(), State::Scheduled, None),
        (
            Outcome::GivenBack { started: true },
            State::Dead,
            Some(DeadReason::Crashed),
        ),
        (taken(), State::Dead, Some(DeadReason::Crashed)),
    ];
    for (outcome, state, reason) in cases {
        let mut life = Life::new();
        let id = life.enqueue(with_policy(|p| p.on_crash = OnCrash::Dead)).id;
        let (_, claim) = life.claim().unwrap();
        assert_eq!(life.settle(id, claim, &outcome), SettleAnswer::Settled);
        let row = life.row(id);
        assert_eq!((row.state, row.dead_reason), (state, reason), "{outcome:?}");
        // And any other job runs again.
        let mut life = Life::new();
        let id = life.enqueue(job()).id;
        let (_, claim) = life.claim().unwrap();
        life.settle(id, claim, &outcome);
        assert!(!life.row(id).state.is_finished(), "{outcome:?}");
    }
}
