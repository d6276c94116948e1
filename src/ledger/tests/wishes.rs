//! Every wish in every state.

use super::*;

/// What a wish is answered.
fn expected_answer(wish: &str, state: State) -> ChangeAnswer {
    use ChangeAnswer::{AlreadyFinished, Done, IsRunning, PayloadGone};
    match (wish, state) {
        ("delete", State::Running) => IsRunning,
        ("delete", _) => Done,
        ("complete", State::Scheduled | State::Ready | State::Running) => Done,
        ("retry" | "reschedule", State::Completed) => PayloadGone,
        ("retry" | "reschedule", State::Cancelled | State::Dead) => Done,
        (_, State::Completed | State::Cancelled | State::Dead) => AlreadyFinished(state),
        (_, State::Running) => IsRunning,
        _ => Done,
    }
}

/// What becomes of a job by a wish; `None`: it is gone.
fn expected_state(wish: &str, state: State) -> Option<State> {
    match (wish, expected_answer(wish, state)) {
        ("delete", ChangeAnswer::Done) => None,
        ("cancel", ChangeAnswer::Done) => Some(State::Cancelled),
        ("complete", ChangeAnswer::Done) => Some(State::Completed),
        ("retry", ChangeAnswer::Done) => Some(State::Ready),
        ("reschedule", ChangeAnswer::Done) => Some(State::Scheduled),
        _ => Some(state),
    }
}

/// Every state and wish: allowed or refused, and no other job changed.
#[test]
fn every_wish_in_every_state() {
    let wishes = [
        ("cancel", ChangeKind::Cancel { reason: "r".into() }),
        ("delete", ChangeKind::Delete),
        ("retry", ChangeKind::Retry),
        (
            "reschedule",
            ChangeKind::Reschedule(Wait::Until(START_MS + 77)),
        ),
        ("priority", ChangeKind::SetPriority(Priority(3))),
        (
            "move",
            ChangeKind::MoveTo {
                queue: "elsewhere".into(),
            },
        ),
        (
            "complete",
            ChangeKind::Complete {
                output: Content::Inline(vec![9]),
            },
        ),
    ];
    let states = [
        State::Scheduled,
        State::Ready,
        State::Running,
        State::Completed,
        State::Cancelled,
        State::Dead,
    ];
    for (name, wish) in &wishes {
        for state in states {
            let mut life = Life::new();
            let bystander = life
                .enqueue(NewJob {
                    queue: "b".into(),
                    ..job()
                })
                .id;
            let id = job_in(&mut life, state);
            let before = life.row(bystander);
            assert_eq!(
                life.change(id, wish),
                expected_answer(name, state),
                "{name} when {state}"
            );
            assert_eq!(
                life.state(id),
                expected_state(name, state),
                "{name} when {state}"
            );
            assert_eq!(
                life.row(bystander),
                before,
                "{name} when {state} touched another job"
            );
            assert_eq!(
                life.change(JobId::from_number(99), wish),
                ChangeAnswer::Unknown
            );
            assert_eq!(life.replayed(0).digest(), life.ledger.digest());
        }
    }
}

/// A job in queue `q`, brought into a state.
fn job_in(life: &mut Life, state: State) -> JobId {
    let wait = if state == State::Scheduled {
        Wait::Until(START_MS + 5_000)
    } else {
        Wait::No
    };
    let id = life
        .enqueue(NewJob {
            wait,
            priority: Priority(1),
            ..job()
        })
        .id;
    if state == State::Running || state.is_finished() {
        let pick = life.ledger.pick_kind("q", "k");
        let (_, claim) = life.take(pick).unwrap();
        let outcome = match state {
            State::Completed => Some(completed()),
            State::Cancelled => Some(Outcome::Cancelled("c".into())),
            State::Dead => Some(Outcome::Discarded("d".into())),
            _ => None,
        };
        if let Some(outcome) = outcome {
            life.settle(id, claim, &outcome);
        }
    }
    assert_eq!(life.state(id), Some(state));
    id
}
