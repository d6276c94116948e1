//! Random lives beside a slow, obvious twin.

use std::collections::BTreeMap;

use super::*;
use crate::sys::Dice;

/// A random life: whatever happens, the ledger agrees with its twin, the replay with the ledger, and a
/// journal cut in front after carrying gives the same state.
#[test]
fn random_lives_agree_with_a_slow_twin() {
    for seed in 1..=60 {
        random_life(seed, 250);
    }
}

/// What the twin knows of a job: only what people would say about it.
#[derive(Clone, Debug, PartialEq)]
struct TwinJob {
    state: State,
    priority: i32,
    due_ms: i64,
    failures: u16,
    attempt: u32,
    claim: u64,
}

fn random_life(seed: u64, steps: usize) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut life = Life::new();
    life.ledger.setup.any_queue.keep_finished = usize::MAX;
    let root = Event::RootSet(life.ledger.root());
    life.push(&root);
    let mut twin: BTreeMap<u64, TwinJob> = BTreeMap::new();
    for step in 0..steps {
        twin_step(&mut dice, &mut life, &mut twin);
        for (id, expected) in &mut twin {
            // Time alone makes a scheduled job ready; the twin says so with its own eyes.
            if expected.state == State::Scheduled && expected.due_ms <= life.now_ms {
                expected.state = State::Ready;
            }
            let row = life.row(JobId::from_number(*id));
            let claim = row.claim.map_or(0, crate::job::ClaimNumber::number);
            let due_ms = if row.state.is_finished() {
                expected.due_ms
            } else {
                row.due_ms
            };
            let seen = TwinJob {
                state: row.state,
                priority: row.priority.0,
                due_ms,
                failures: row.failures,
                attempt: row.attempt,
                claim,
            };
            assert_eq!(&seen, expected, "job {id} after step {step} of seed {seed}");
        }
        assert_eq!(
            life.ledger.jobs.len(),
            twin.len(),
            "step {step} of seed {seed}"
        );
    }
    assert_eq!(
        life.replayed(0).digest(),
        life.ledger.digest(),
        "seed {seed}"
    );
    carry_everything(&mut life);
    let tail = life.ledger.cut(life.log.len() as u64) as usize;
    assert!(tail > 1, "carrying makes the front obsolete");
    assert_eq!(
        life.replayed(tail - 1).digest(),
        life.ledger.digest(),
        "seed {seed}, cut at {tail}"
    );
}

type Twins = BTreeMap<u64, TwinJob>;

fn twin_step(dice: &mut Dice, life: &mut Life, twin: &mut Twins) {
    if dice.roll(40) == 0 {
        life.crash(Verdict::NotStarted);
        for job in twin.values_mut().filter(|job| job.state == State::Running) {
            (job.state, job.claim) = (State::Ready, 0);
        }
        return;
    }
    match dice.roll(10) {
        0..=2 => twin_enqueue(dice, life, twin),
        3..=5 => twin_claim(life, twin),
        6 | 7 => twin_settle(dice, life, twin),
        8 => twin_change(dice, life, twin),
        _ => life.pass(dice.roll(20) as i64),
    }
}

/// One of the jobs that are as wanted.
fn any_twin(dice: &mut Dice, twin: &Twins, wanted: fn(&TwinJob) -> bool) -> Option<u64> {
    let fitting: Vec<u64> = twin
        .iter()
        .filter(|(_, job)| wanted(job))
        .map(|(id, _)| *id)
        .collect();
    (!fitting.is_empty()).then(|| fitting[dice.roll(fitting.len() as u64) as usize])
}

fn twin_enqueue(dice: &mut Dice, life: &mut Life, twin: &mut Twins) {
    let priority = dice.roll(4) as i32 - 2;
    let wait_ms = if dice.roll(3) == 0 { dice.roll(50) } else { 0 };
    let due_ms = life.now_ms + wait_ms as i64;
    let (wait, state) = if wait_ms > 0 {
        (Wait::Until(due_ms), State::Scheduled)
    } else {
        (Wait::No, State::Ready)
    };
    let new = NewJob {
        priority: Priority(priority),
        wait,
        ..with_policy(|p| p.attempts_max = 2)
    };
    let id = life.enqueue(new).id.number();
    twin.insert(
        id,
        TwinJob {
            state,
            priority,
            due_ms,
            failures: 0,
            attempt: 0,
            claim: 0,
        },
    );
}

fn twin_claim(life: &mut Life, twin: &mut Twins) {
    let best = twin
        .iter()
        .filter(|(_, job)| job.state == State::Ready)
        .min_by_key(|(id, job)| (-job.priority, **id));
    let best = best.map(|(id, _)| *id);
    let claimed = life.claim();
    assert_eq!(claimed.map(|(id, _)| id.number()), best);
    if let Some((id, claim)) = claimed {
        let job = twin.get_mut(&id.number()).unwrap();
        (job.state, job.claim, job.attempt) = (State::Running, claim, job.attempt + 1);
    }
}

fn twin_settle(dice: &mut Dice, life: &mut Life, twin: &mut Twins) {
    let Some(id) = any_twin(dice, twin, |job| job.state == State::Running) else {
        return;
    };
    let job = twin.get_mut(&id).unwrap();
    let claim = std::mem::take(&mut job.claim);
    let outcome = match dice.roll(4) {
        0 => {
            job.failures += 1;
            let dead = job.failures == 2;
            job.state = if dead { State::Dead } else { State::Scheduled };
            job.due_ms = life.now_ms + 30;
            Outcome::Failed {
                error: "e".into(),
                retry_after_ms: Some(30),
            }
        }
        1 => {
            job.state = State::Ready;
            job.attempt -= 1;
            Outcome::GivenBack { started: false }
        }
        _ => {
            job.state = State::Completed;
            completed()
        }
    };
    assert_eq!(
        life.settle(JobId::from_number(id), claim, &outcome),
        SettleAnswer::Settled
    );
}

fn twin_change(dice: &mut Dice, life: &mut Life, twin: &mut Twins) {
    let Some(number) = any_twin(dice, twin, |job| job.state != State::Running) else {
        return;
    };
    let id = JobId::from_number(number);
    if dice.roll(2) == 0 {
        life.change(id, &ChangeKind::Delete);
        twin.remove(&number);
    } else if !twin[&number].state.is_finished() {
        life.change(id, &ChangeKind::SetPriority(Priority(5)));
        twin.get_mut(&number).unwrap().priority = 5;
    }
}

fn carry_everything(life: &mut Life) {
    for n in 0..life.log.len() {
        let entry = life.log[n].clone();
        let (event, _) = entry.event();
        let before = life.ledger.digest();
        match life.ledger.needs_carry(&event, n as u64 + 1, 0) {
            Some(Carry::Job { history }) => {
                let history = history.and_then(|place| {
                    let entry = &life.log[place.position as usize - 1];
                    match entry.event().0 {
                        Event::Retried { history, .. } => Some(history),
                        Event::Died { history, .. } | Event::Completed { history, .. } => history,
                        _ => None,
                    }
                });
                let (Event::Enqueued(base) | Event::Carried(base, ..)) = &event else {
                    unreachable!()
                };
                let queue = life.ledger.queue_of(base).into_owned();
                let carried = life.ledger.carry_job(base, &queue, history).unwrap();
                life.push(&carried);
            }
            Some(Carry::Root) => {
                let root = life.ledger.carry_root(&event).unwrap();
                life.push(&root);
            }
            None => {}
        }
        assert_eq!(
            life.ledger.digest(),
            before,
            "carrying changes nothing that must survive"
        );
    }
}
