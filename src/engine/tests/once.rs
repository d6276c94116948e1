//! Jobs that must not run twice.

use super::*;

/// A job that must not run twice.
fn once() -> NewJob {
    NewJob {
        policy: Policy {
            on_crash: crate::OnCrash::Dead,
            stall_timeout_ms: 1_000,
            ..Policy::default()
        },
        ..job()
    }
}

/// Given back in whatever way, a job that must not run twice was claimed again.
#[test]
fn at_most_once_is_kept_when_an_attempt_is_cut_off() {
    type Cut = fn(&mut Life, HandOut);
    let cuts: [(&str, Cut); 4] = [
        ("the grace is over", |life, held| {
            shut_down(life, Duration::ZERO);
            std::mem::forget(held); // its process ends, nobody hears more of it
        }),
        ("the handler obeys", |life, held| {
            shut_down(life, Duration::from_secs(9));
            assert_eq!(held.live.asked(), Asked::Shutdown);
            held.settle(Outcome::GivenBack { started: true }, 1);
            life.step();
        }),
        ("it is dropped", |life, held| {
            drop(held);
            life.step();
        }),
        ("its lease is taken away", |life, held| {
            for _ in 0..2 {
                life.clock.advance(Duration::from_secs(6)); // the limit, and then its grace
                life.step();
            }
            assert_eq!(held.live.asked(), Asked::LeaseLost);
            std::mem::forget(held);
        }),
    ];
    for (how, cut) in cuts {
        let mut life = Life::new(1);
        let id = life.enqueue(vec![once()]).unwrap()[0].id;
        let held = life.take().unwrap();
        cut(&mut life, held);
        life.crash(|| false).unwrap();
        let row = life.row(id).unwrap();
        let dead = (State::Dead, Some(crate::DeadReason::Crashed), 1);
        assert_eq!((row.state, row.dead_reason, row.attempt), dead, "{how}");
    }
}

/// What no handler has begun is no first run.
#[test]
fn at_most_once_counts_no_claim_that_nobody_had() {
    let mut life = Life::new(1);
    let id = life.enqueue(vec![once()]).unwrap()[0].id;
    assert_eq!(life.outs.try_next().map(drop), Some(()), "dropped unbegun");
    life.core.pools_mut()[0].slots = 0;
    life.step();
    // Claimed by hand for a caller who has gone meanwhile: the answer falls out of its slot.
    let (reply, answer) = Reply::new();
    life.inbox.send_unbounded(Command::Claim {
        kind: "k",
        queue: "q".into(),
        until: life.clock.now().awake,
        reply,
    });
    life.step();
    let claimed = life.row(id).unwrap();
    assert_eq!((claimed.state, claimed.attempt), (State::Running, 1));
    drop(answer);
    life.step();
    let row = life.row(id).unwrap();
    assert_eq!((row.state, row.attempt), (State::Ready, 0));
    // Still handed out when the engine shuts down.
    life.core.pools_mut()[0].slots = 1;
    life.step();
    shut_down(&mut life, Duration::ZERO);
    life.crash(|| false).unwrap();
    assert_eq!(life.row(id).map(|row| row.dead_reason), Some(None));
}
