//! What waits for its time, and what must not begin after it.

use super::*;

#[test]
fn nothing_is_ready_before_its_time_even_when_the_clock_goes_back() {
    let mut life = Life::new();
    let absolute = life
        .enqueue(NewJob {
            wait: Wait::Until(START_MS + 1_000),
            ..job()
        })
        .id;
    let relative = life
        .enqueue(NewJob {
            wait: Wait::For(1_000),
            ..job()
        })
        .id;
    life.pass(999);
    assert_eq!(life.claim(), None);
    life.pass(1);
    assert_eq!(life.state(absolute), Some(State::Ready));
    // An hour back: the absolute time lies ahead again. The span was over before the step, so it stays over.
    let before_ms = life.now_ms;
    life.push(&Event::ClockStepped {
        before_ms,
        by_ms: -3_600_000,
    });
    life.pass(-3_600_000);
    assert_eq!(life.state(absolute), Some(State::Scheduled));
    assert_eq!(life.ledger.next_timer_ms(), Some(START_MS + 1_000));
    life.pass(3_600_000);
    assert_eq!(life.claim().unwrap().0, absolute);
    assert_eq!(life.claim().unwrap().0, relative);
}

#[test]
fn a_span_moves_with_the_clock() {
    let mut life = Life::new();
    let id = life
        .enqueue(NewJob {
            wait: Wait::For(60_000),
            ..job()
        })
        .id;
    let before_ms = life.now_ms;
    life.push(&Event::ClockStepped {
        before_ms,
        by_ms: 86_400_000,
    });
    life.pass(86_400_000);
    assert_eq!(life.state(id), Some(State::Scheduled));
    life.pass(59_999);
    assert_eq!(life.state(id), Some(State::Scheduled));
    life.pass(1);
    assert_eq!(life.state(id), Some(State::Ready));
}

/// A clock set forward once killed jobs whose expiry was asked for as a span, and every retry with
/// `retry_expires_after`: the wait moved and the expiry stayed.
#[test]
fn an_expiry_asked_for_as_a_span_moves_with_the_clock() {
    let mut life = Life::new();
    let hour_ms = 3_600_000;
    let [span, date] = [true, false].map(|relative| {
        let expires = Expiry {
            at_ms: START_MS + 5_000,
            relative,
        };
        let new = NewJob {
            expires: Some(expires),
            ..job()
        };
        life.enqueue(new).id
    });
    life.claim()
        .expect("one of them runs while the clock is set");
    life.push(&Event::ClockStepped {
        before_ms: START_MS,
        by_ms: hour_ms,
    });
    let expiry = |life: &mut Life, id| life.row(id).expires_at_ms.map(|at| at - START_MS);
    assert_eq!(expiry(&mut life, span), Some(hour_ms + 5_000));
    assert_eq!(expiry(&mut life, date), Some(5_000));
    assert_eq!(life.replayed(0).digest(), life.ledger.digest());
}

#[test]
fn an_expired_job_never_starts_and_dies_once_the_clock_is_trusted() {
    let mut life = Life::new();
    let expires = Some(expires_at(START_MS + 10));
    let id = life.enqueue(NewJob { expires, ..job() }).id;
    life.pass(10);
    life.tick(false);
    assert_eq!((life.claim(), life.state(id)), (None, Some(State::Ready)));
    life.pass(-5); // the clock was wrong: it may run after all
    assert_eq!(life.claim().map(|(id, _)| id), Some(id));
    let late = life.enqueue(NewJob { expires, ..job() }).id;
    life.pass(10);
    life.tick(true);
    assert_eq!(life.row(late).dead_reason, Some(DeadReason::Expired));
    assert_eq!(
        life.state(id),
        Some(State::Running),
        "what runs does not expire"
    );
    assert_eq!(life.ledger.counters().expired, 1);
}

#[test]
fn backoff_delays_the_retry() {
    let mut life = Life::new();
    let backoff = Backoff::exponential(std::time::Duration::from_secs(10)).jitter_percent(0);
    let id = life.enqueue(with_policy(|p| p.backoff = backoff)).id;
    let (_, claim) = life.claim().unwrap();
    life.settle(id, claim, &failed());
    life.pass(9_999);
    assert_eq!(life.claim(), None);
    life.pass(1);
    let (_, claim) = life.claim().unwrap();
    life.settle(
        id,
        claim,
        &Outcome::Failed {
            error: String::new(),
            retry_after_ms: Some(7),
        },
    );
    assert_eq!(life.row(id).due_ms, life.now_ms + 7);
}

/// A retry has its own expiry, counted from the time at which it is due; before that it may run.
#[test]
fn a_retry_past_its_expiry_never_starts_and_dies() {
    let mut life = Life::new();
    let backoff = Backoff::fixed(std::time::Duration::from_secs(1));
    let id = life
        .enqueue(with_policy(|p| {
            (p.backoff, p.retry_expires_ms) = (backoff, 500);
        }))
        .id;
    life.pass(86_400_000);
    life.tick(true);
    let (_, claim) = life.claim().expect("the first attempt has no expiry");
    life.settle(id, claim, &failed());
    assert_eq!(life.row(id).expires_at_ms, Some(life.now_ms + 1_500));
    life.pass(1_499);
    life.tick(true);
    let (_, claim) = life.claim().expect("just in time");
    life.settle(id, claim, &failed());
    life.pass(1_500);
    assert_eq!(life.claim(), None, "no retry past its expiry");
    life.tick(false);
    assert_eq!(life.state(id), Some(State::Ready));
    life.tick(true);
    let row = life.row(id);
    assert_eq!(row.dead_reason, Some(DeadReason::Expired));
    assert_eq!((row.attempt, row.failures), (2, 2));
    assert_eq!(life.replayed(0).digest(), life.ledger.digest());
}

/// Without `retry_expires_after` a retry keeps the expiry that was given at enqueue.
#[test]
fn a_retry_keeps_the_expiry_of_its_job() {
    let mut life = Life::new();
    let expires = expires_at(START_MS + 5_000);
    let new = NewJob {
        expires: Some(expires),
        ..job()
    };
    let id = life.enqueue(new).id;
    let (_, claim) = life.claim().unwrap();
    life.settle(id, claim, &failed());
    assert_eq!(life.row(id).expires_at_ms, Some(expires.at_ms));
}

/// A clock set forward once let a deleted job's key be taken again.
#[test]
fn a_key_waits_for_a_trusted_clock() {
    let mut life = Life::new();
    let keyed = || NewJob {
        key: Some("a".into()),
        ..job()
    };
    let id = life.enqueue(keyed()).id;
    life.pass(48 * 3_600_000); // by a clock that may be wrong
    life.change(id, &ChangeKind::Delete);
    life.tick(false);
    assert!(!life.enqueue(keyed()).is_new);
    life.tick(true);
    assert!(life.enqueue(keyed()).is_new);
}
