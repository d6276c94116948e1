//! Moments that are held while the engine works on.

use super::*;
use crate::journal::{EntryBytes, Journal, Replay};
use crate::ledger::Ledger;
use crate::sys::Dice;

/// A moment, and what was there to be seen.
struct Seen {
    moment: Moment,
    rows: Vec<Row>,
    files: Vec<u128>,
}

impl Life {
    /// Holds the moment after all that was asked before. Nothing else happens in its group.
    fn hold(&mut self) -> Seen {
        self.step();
        let rows = self.rows();
        let moment = self.ask(|reply| Command::Hold { reply }).unwrap();
        let files = self.core.ledger.files().collect();
        Seen {
            moment,
            rows,
            files,
        }
    }

    fn slice(&mut self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<(u64, EntryBytes)>> {
        self.ask(|reply| Command::ReadEntries {
            positions: from..to + 1,
            bytes_max,
            reply,
        })
    }

    /// The moment can be read, and is what it was.
    fn check(&mut self, seen: &Seen) {
        let (last, at_ms) = (seen.moment.last, seen.moment.at_ms);
        let setup = Setup {
            handled: ["k".to_owned()].into(),
            ..Setup::default()
        };
        let mut ledger = Ledger::new(setup, at_ms);
        let mut replay = Replay::to(&last);
        let mut from = last.tail;
        while from <= last.position {
            let slice = self.slice(from, last.position, 10_000).unwrap();
            if slice.is_empty() {
                break;
            }
            for (position, entry) in slice {
                let fold = &mut |visit: journal::Visit<'_, '_>| fold(&mut ledger, &visit);
                replay.take(position, &entry, fold).unwrap();
                from = position + 1;
            }
        }
        replay.end().unwrap();
        check_digest(&ledger, &last).unwrap();
        let rows: Vec<Row> = ledger
            .list(&Filter::default(), JobId::from_number(0), 10_000, 10_000)
            .rows;
        assert!(rows == seen.rows, "another state than was held");
        for file in &seen.files {
            let kept = self.payloads.has(*file);
            assert!(kept, "payload file {file:032x} is gone");
        }
    }

    /// Rounds of jobs that come and go, some with a payload file.
    fn churn(&mut self, rounds: usize) {
        for n in 0..rounds {
            let mut jobs = vec![job(), job()];
            if n % 4 == 0 {
                jobs.push(NewJob {
                    payload: Content::File(self.payloads.store(&[9; 100]).unwrap()),
                    ..job()
                });
            }
            self.enqueue(jobs).unwrap();
            while let Some(job) = self.take() {
                job.settle(done(), 1);
            }
            self.step();
        }
    }

    /// Positions of entries that the state does not need.
    fn left_below(&mut self) -> Vec<u64> {
        self.disk.journal().positions_below(self.core.tail).unwrap()
    }

    fn rest(&mut self) {
        for _ in 0..2_000 {
            self.step();
        }
    }
}

#[test]
fn a_held_moment_stays_whole() {
    let mut life = Life::new(2);
    life.churn(20);
    // These stay for the time being: three are running or ready.
    let with_file = NewJob {
        payload: Content::File(life.payloads.store(&[7; 100]).unwrap()),
        ..job()
    };
    life.enqueue(vec![with_file, job(), job()]).unwrap();
    let seen = life.hold();
    assert_eq!(seen.files.len(), 1);
    life.churn(300);
    assert!(life.core.tail > seen.moment.last.position, "all was cut");
    life.check(&seen);
    assert_eq!(life.left_below().first(), Some(&seen.moment.last.tail));
    // Nothing is left once it is let go, and nothing waits that would have to be asked for.
    let files = seen.files.clone();
    drop(seen);
    life.step();
    assert!(life.core.wants_idle_step());
    life.rest();
    assert_eq!(life.left_below(), [] as [u64; 0]);
    assert!(!life.payloads.has(files[0]));
    assert_eq!(life.payloads.sweep(&[].into()).unwrap(), 0);
}

/// What nobody needs any more goes, though somebody holds a later moment.
#[test]
fn two_moments_are_let_go_one_by_one() {
    for first_goes_first in [true, false] {
        let mut life = Life::new(2);
        life.enqueue(vec![job(), job(), job()]).unwrap();
        let first = life.hold();
        life.churn(200);
        let second = life.hold();
        life.churn(200);
        let (from_first, from_second) = (first.moment.last.tail, second.moment.last.tail);
        assert!(from_first < from_second);
        life.check(&first);
        life.check(&second);
        let (gone, stays, oldest) = if first_goes_first {
            (first, second, from_second)
        } else {
            (second, first, from_first)
        };
        drop(gone);
        life.rest();
        assert_eq!(life.left_below().first(), Some(&oldest));
        life.check(&stays);
        drop(stays);
        life.rest();
        assert_eq!(life.left_below(), [] as [u64; 0]);
    }
}

/// A crash takes the holder with it: what was kept for it is found as left over, and goes.
#[test]
fn a_crash_while_a_moment_is_held_loses_nothing_and_leaves_nothing() {
    let mut life = Life::new(2);
    let with_file = NewJob {
        payload: Content::File(life.payloads.store(&[7; 100]).unwrap()),
        ..job()
    };
    life.enqueue(vec![with_file, job()]).unwrap();
    let seen = life.hold();
    life.churn(300);
    let kept = life.left_below().len();
    assert!(kept > 100, "{kept} entries wait");
    // What runs is recovered.
    let known = |life: &mut Life| -> Vec<(JobId, bool)> {
        let rows = life.rows().into_iter();
        rows.map(|row| (row.id, row.state.is_finished())).collect()
    };
    let before = known(&mut life);
    life.crash(|| true).unwrap();
    assert!(known(&mut life) == before, "another state");
    assert!(!life.payloads.has(seen.files[0]), "swept");
    life.rest();
    assert_eq!(life.left_below(), [] as [u64; 0]);
    // The old process's holder says so to nobody.
    drop(seen);
    life.step();
}

#[test]
fn whoever_went_away_holds_nothing() {
    let mut life = Life::new(1);
    life.enqueue(vec![job()]).unwrap();
    let (reply, gone) = Reply::<Moment>::new();
    drop(gone);
    life.inbox.send_unbounded(Command::Hold { reply });
    life.step();
    life.churn(300);
    life.rest();
    assert_eq!(life.left_below(), [] as [u64; 0]);
}

#[test]
fn a_poisoned_or_closed_engine_holds_nothing() {
    let mut life = Life::new(1);
    let seen = life.hold();
    life.disk.fail_from_sync(life.disk.syncs() + 1);
    life.enqueue(vec![job()]).unwrap_err();
    let refused = life.ask(|reply| Command::Hold { reply }).unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    let last = seen.moment.last;
    let refused = life.slice(last.tail, last.position, 1).unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
}

#[test]
fn a_slice_has_one_entry_at_least_and_none_beyond_its_end() {
    let mut life = Life::new(0);
    for _ in 0..10 {
        life.enqueue(vec![job()]).unwrap();
    }
    let last = life.hold().moment.last;
    let positions = |life: &mut Life, from, to, bytes_max| -> Vec<u64> {
        let slice = life.slice(from, to, bytes_max).unwrap();
        slice.iter().map(|(position, _)| *position).collect()
    };
    assert_eq!(positions(&mut life, last.tail, last.position, 1).len(), 1);
    assert_eq!(positions(&mut life, 5, 7, usize::MAX), [5, 6, 7]);
    assert_eq!(positions(&mut life, 5, 4, usize::MAX), [] as [u64; 0]);
    assert_eq!(
        positions(&mut life, last.position + 1, u64::MAX - 1, 10),
        [] as [u64; 0]
    );
}

/// Random lives with moments held and let go, and power cuts in between: each moment can be read as long as it is
/// held, and in the end nothing is left of any.
#[test]
fn random_lives_with_held_moments() {
    for seed in 1..=20 {
        let mut dice = Dice(seed);
        let mut life = Life::new(2);
        let mut held: Vec<Seen> = Vec::new();
        for _ in 0..60 {
            match dice.roll(8) {
                0..=3 => life.churn(1 + dice.roll(40) as usize),
                4 | 5 if held.len() < 3 => {
                    life.enqueue(vec![job(), job(), job()]).unwrap();
                    let seen = life.hold();
                    held.push(seen);
                }
                6 if !held.is_empty() => {
                    let seen = held.swap_remove(dice.roll(held.len() as u64) as usize);
                    life.check(&seen);
                }
                7 if dice.roll(4) == 0 => {
                    held.clear();
                    life.crash(|| dice.roll(2) == 0).unwrap();
                }
                _ => life.step(),
            }
        }
        held.iter().for_each(|seen| life.check(seen));
        held.clear();
        life.churn(1);
        life.rest();
        assert_eq!(life.left_below(), [] as [u64; 0], "seed {seed}");
        let needed = life.core.ledger.files().collect();
        assert_eq!(life.payloads.sweep(&needed).unwrap(), 0, "seed {seed}");
    }
}
