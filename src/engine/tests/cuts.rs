//! Lives that are cut short, again and again.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::sys::Dice;

/// What a caller was told, kept apart from the engine.
#[derive(Default)]
struct Told {
    enqueued: BTreeSet<u64>,
    completed: BTreeSet<u64>,
    claims: BTreeMap<u64, u64>,
}

/// Random lives with power cuts that keep any part of what was not synced: nothing acknowledged is lost,
/// nothing finished is undone, everything comes to its end.
#[test]
fn random_lives_with_power_cuts() {
    for seed in 1..=40 {
        let mut life = Life::new(1 + seed as usize % 3);
        let mut told = Told::default();
        let mut held: Vec<HandOut> = Vec::new();
        let mut dice = Dice(seed);
        for _ in 0..400 {
            random_step(&mut dice, &mut life, &mut told, &mut held);
        }
        finish(&mut life, &mut told, &mut held, seed);
    }
}

fn random_step(dice: &mut Dice, life: &mut Life, told: &mut Told, held: &mut Vec<HandOut>) {
    match dice.roll(20) {
        0..=5 => {
            let jobs = (0..=dice.roll(4)).map(|_| job()).collect();
            let placed = life.enqueue(jobs).unwrap();
            told.enqueued.extend(placed.iter().map(|p| p.id.number()));
        }
        6..=10 => {
            if let Some(job) = life.take() {
                let before = told.claims.insert(job.id.number(), job.claim);
                assert!(
                    before.is_none_or(|before| before < job.claim),
                    "claims rise"
                );
                assert!(
                    !told.completed.contains(&job.id.number()),
                    "a finished job runs again"
                );
                held.push(job);
            }
            life.step();
        }
        11..=16 if !held.is_empty() => {
            let job = held.swap_remove(dice.roll(held.len() as u64) as usize);
            let id = job.id.number();
            let outcome = match dice.roll(6) {
                0 => Outcome::Failed {
                    error: "e".into(),
                    retry_after_ms: Some(5),
                },
                1 => Outcome::Snoozed { for_ms: 5 },
                _ => done(),
            };
            let completes = outcome == done();
            let (reply, answer) = Reply::new();
            job.settle_and_ask(outcome, 1, reply);
            life.step();
            if completes && answer.try_recv().is_ok_and(|held| held.unwrap()) {
                told.completed.insert(id);
            }
        }
        17 => life.clock.advance(Duration::from_millis(dice.roll(20))),
        18 if dice.roll(4) == 0 => {
            held.clear();
            // Un-synced operations exist only inside a step, so here the cut falls between two groups;
            // `cut_inside_a_group` cuts within one.
            life.crash(|| dice.roll(2) == 0).unwrap();
        }
        _ => life.step(),
    }
}

fn finish(life: &mut Life, told: &mut Told, held: &mut Vec<HandOut>, seed: u64) {
    held.clear();
    life.crash(|| false).unwrap();
    for _ in 0..10_000 {
        life.step();
        match life.take() {
            Some(job) => {
                assert!(
                    !told.completed.contains(&job.id.number()),
                    "seed {seed}: a finished job runs again"
                );
                job.settle(done(), 1);
            }
            None => life.clock.advance(Duration::from_millis(10)),
        }
        if life.rows().iter().all(|row| row.state.is_finished()) {
            break;
        }
    }
    let rows: BTreeMap<u64, State> = life
        .rows()
        .iter()
        .map(|row| (row.id.number(), row.state))
        .collect();
    for id in &told.enqueued {
        assert_eq!(
            rows.get(id),
            Some(&State::Completed),
            "seed {seed}: job {id}"
        );
    }
}

/// A cut at every sync of a group of many parts, keeping any part of the last operations: the group is
/// there as a whole, or not at all.
#[test]
fn a_cut_inside_a_group_leaves_all_of_it_or_nothing() {
    const JOBS: usize = 60; // of 30 KiB: a group of some four syncs
    for cut_at in 1..8 {
        for seed in 1..6 {
            let mut dice = Dice(seed * 31 + cut_at);
            let mut life = Life::new(1);
            let known = life.enqueue(vec![job()]).unwrap()[0].id;
            life.disk.fail_from_sync(life.disk.syncs() + cut_at);
            let big = || NewJob {
                payload: Content::Inline(vec![3; 30 * 1024]),
                ..job()
            };
            let answer = life.enqueue((0..JOBS).map(|_| big()).collect());
            life.disk.heal();
            life.crash(|| dice.roll(2) == 0).unwrap();
            let rows = life.rows();
            let there = rows.iter().filter(|row| row.id != known).count();
            assert!(
                there == 0 || there == JOBS,
                "cut at sync {cut_at}: {there} of {JOBS}"
            );
            assert!(answer.is_err() || there == JOBS, "acknowledged and lost");
            assert!(rows.iter().any(|row| row.id == known));
        }
    }
}

/// Removals were cut short: what they left is not read, does not hold the opening up, and goes later.
#[test]
fn what_lies_below_the_tail_goes_after_the_opening() {
    const LEFT: u64 = 300;
    let mut life = Life::new(4);
    for _ in 0..LEFT {
        life.enqueue(vec![NewJob {
            payload: Content::Inline(vec![3; 1_000]),
            ..job()
        }])
        .unwrap();
        life.take().unwrap().settle(done(), 1);
        life.step();
    }
    let mut journal: Box<dyn journal::Journal> = Box::new(life.disk.journal());
    for position in 1..=LEFT {
        if journal.read(position).unwrap().is_none() {
            journal.append(position, &Arc::new(vec![7; 500])).unwrap();
        }
    }
    journal.sync().unwrap();
    let below = |journal: &mut dyn journal::Journal| {
        let garbage = |position: &u64| {
            let entry = journal.read(*position).unwrap();
            entry.is_some_and(|entry| entry.len() == 500)
        };
        (1..=LEFT).filter(garbage).count()
    };
    let left = below(journal.as_mut());
    assert!(left > 200, "the tail did not move: {left}");
    let syncs = life.disk.syncs();
    life.crash(|| true).unwrap();
    let syncs = life.disk.syncs() - syncs;
    assert!(syncs <= 2, "{syncs} syncs to open");
    for _ in 0..LEFT {
        life.step();
    }
    assert_eq!(below(journal.as_mut()), 0);
}

#[test]
fn compaction_keeps_the_journal_small_beside_one_job_that_stays() {
    let mut life = Life::new(4);
    let stays = life
        .enqueue(vec![NewJob {
            wait: Wait::For(u64::MAX / 4),
            ..job()
        }])
        .unwrap()[0]
        .id;
    let mut largest = 0;
    for _ in 0..3_000 {
        life.enqueue(vec![job(), job()]).unwrap();
        while let Some(job) = life.take() {
            job.settle(done(), 1);
        }
        life.step();
        let stats = life.ask(|reply| Command::Snapshot { reply }).unwrap();
        largest = largest.max(stats.journal_bytes.saturating_sub(2 * stats.live_bytes));
    }
    assert!(largest < 20_000 + 60_000, "dead weight of {largest} bytes");
    life.crash(|| true).unwrap();
    assert_eq!(life.row(stays).unwrap().state, State::Scheduled);
    let stats = life.ask(|reply| Command::Snapshot { reply }).unwrap();
    assert_eq!(stats.counters.completed, 6_000);
}

/// What a failed attempt kept is in the journal like any other part of its job: carried, and there after a cut.
#[test]
fn a_kept_output_is_carried_and_survives() {
    let mut life = Life::new(1);
    let id = life.enqueue(vec![job()]).unwrap()[0].id;
    let mut failing = life.take().unwrap();
    failing.kept = Some(Content::Inline(b"kept".to_vec()));
    let hour = Some(3_600_000);
    failing.settle(
        Outcome::Failed {
            error: "e".into(),
            retry_after_ms: hour,
        },
        1,
    );
    life.step();
    let kept = |life: &mut Life| {
        let details = life.ask(|reply| Command::Details { id, reply }).unwrap();
        let details = details.unwrap();
        let history = read_history(&details.history.unwrap()).unwrap();
        (details.base.entry, history.errors.len(), history.output)
    };
    let (first_at, ..) = kept(&mut life);
    for _ in 0..1_000 {
        life.enqueue(vec![job(), job()]).unwrap();
        while let Some(job) = life.take() {
            job.settle(done(), 1);
        }
        life.step();
    }
    for _ in 0..2 {
        let (at, errors, output) = kept(&mut life);
        assert_ne!(at[..], first_at[..], "it was never carried");
        assert_eq!(
            (errors, output),
            (1, Some(Content::Inline(b"kept".to_vec())))
        );
        life.crash(|| false).unwrap();
    }
}
