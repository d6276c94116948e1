//! The kit for users' own tests: a manual clock, all that is due, and crashes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobsled::testing::{Rehearsal, every_crash};
use jobsled::{Backoff, Context, Engine, EngineBuilder, JobResult, OnCrash, State, job, rkyv};

/// A list that handlers write.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u32>>>);

impl Shared {
    fn push(&self, number: u32) {
        self.0.lock().unwrap().push(number);
    }

    fn take(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Note {
    number: u32,
}
job!(Note, kind = "note");

fn noting(seen: &Shared) -> impl Fn() -> EngineBuilder + Clone + Send + 'static {
    let seen = seen.clone();
    move || {
        let seen = seen.clone();
        Engine::in_memory().handle(move |note: Note, _: &Context| -> JobResult<()> {
            seen.push(note.number);
            Ok(())
        })
    }
}

#[test]
fn what_is_due_runs_in_order_and_nothing_else_does() {
    let seen = Shared::default();
    let mut rehearsal = Rehearsal::of(noting(&seen)).unwrap();
    let engine = rehearsal.engine();
    for (number, priority, after) in [(1, 0, 0), (2, 5, 0), (3, 0, 10), (4, 5, 20)] {
        let note = engine.job(Note { number }).priority(priority);
        note.after(Duration::from_secs(after)).enqueue().unwrap();
    }
    assert!(seen.take().is_empty(), "nothing happens by itself");
    assert_eq!(rehearsal.run_due().unwrap(), 2);
    assert_eq!(seen.take(), [2, 1]);
    rehearsal.advance(Duration::from_secs(30));
    assert_eq!(rehearsal.run_due().unwrap(), 2);
    assert_eq!(seen.take(), [4, 3]);
    assert_eq!(rehearsal.run_due().unwrap(), 0);
}

#[test]
fn all_runs_through_every_wait() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let make = move || {
        let counted = counted.clone();
        Engine::in_memory().handle(move |_: Note, _: &Context| -> JobResult<()> {
            if counted.fetch_add(1, Ordering::Relaxed) < 3 {
                return Err("not yet".into());
            }
            Ok(())
        })
    };
    let mut rehearsal = Rehearsal::of(make).unwrap();
    let hourly = Backoff::fixed(Duration::from_hours(1));
    let job = rehearsal.engine().job(Note { number: 1 }).backoff(hourly);
    let id = job.enqueue().unwrap().handle().id();
    assert_eq!(
        rehearsal.run_all(Duration::from_mins(150)).unwrap(),
        3,
        "so far, so long"
    );
    assert_eq!(rehearsal.state(id).unwrap(), Some(State::Scheduled));
    assert_eq!(rehearsal.run_all(Duration::from_hours(9)).unwrap(), 1);
    assert_eq!(rehearsal.state(id).unwrap(), Some(State::Completed));
}

#[test]
fn a_crash_keeps_what_was_acknowledged() {
    let seen = Shared::default();
    let mut rehearsal = Rehearsal::of(noting(&seen)).unwrap();
    let done = rehearsal.engine().enqueue(Note { number: 1 }).unwrap().id();
    rehearsal.run_due().unwrap();
    let waits = rehearsal
        .engine()
        .job(Note { number: 2 })
        .after(Duration::from_secs(1));
    let waits = waits.enqueue().unwrap().handle().id();
    rehearsal.crash().unwrap();
    assert_eq!(rehearsal.state(done).unwrap(), Some(State::Completed));
    assert_eq!(rehearsal.state(waits).unwrap(), Some(State::Scheduled));
    rehearsal.run_all(Duration::from_secs(1)).unwrap();
    assert_eq!(seen.take(), [1, 2]);
}

/// The power goes when the end of an attempt is to be stored: the job runs again, or is dead if it must not.
#[test]
fn an_attempt_that_is_cut_off_is_repeated_unless_it_must_not_be() {
    for (on_crash, runs, state) in [
        (OnCrash::Rerun, 2, State::Completed),
        (OnCrash::Dead, 1, State::Dead),
    ] {
        let seen = Shared::default();
        let mut rehearsal = Rehearsal::of(noting(&seen)).unwrap();
        let job = rehearsal
            .engine()
            .job(Note { number: 1 })
            .on_crash(on_crash);
        let id = job.enqueue().unwrap().handle().id();
        rehearsal.crash_after(0);
        rehearsal.run_due().unwrap_err();
        assert!(rehearsal.has_crashed());
        rehearsal.crash().unwrap();
        rehearsal.run_due().unwrap();
        assert_eq!(seen.take().len(), runs, "{on_crash:?}");
        assert_eq!(rehearsal.state(id).unwrap(), Some(state));
    }
}

/// A program that asks for its job twice when it is started again, and one that gives it a key.
#[test]
fn every_crash_finds_what_is_done_twice() {
    for key in [None, Some("once")] {
        let seen = Shared::default();
        let mut twice = 0;
        let cuts = every_crash(
            noting(&seen),
            |program| {
                let mut job = program.engine().job(Note { number: 1 });
                if let Some(key) = key {
                    job = job.key(key);
                }
                job.enqueue()?;
                program.run_all(Duration::from_secs(1)).map(drop)
            },
            |program, _| {
                twice += u32::from(program.engine().stats()?.counters.enqueued > 1);
                Ok(())
            },
        );
        assert!(
            cuts.unwrap() >= 2,
            "before the job is stored, and before its end is"
        );
        assert_eq!(twice > 0, key.is_none(), "{twice} with {key:?}");
    }
}

/// The same program has the same steps each time.
#[test]
fn steps_are_counted_alike() {
    let count = || {
        let seen = Shared::default();
        let mut rehearsal = Rehearsal::of(noting(&seen)).unwrap();
        for number in 0..5 {
            rehearsal.engine().enqueue(Note { number }).unwrap();
        }
        rehearsal.run_all(Duration::from_secs(1)).unwrap();
        rehearsal.steps()
    };
    let first = count();
    assert!((0..20).all(|_| count() == first));
}
