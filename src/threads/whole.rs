//! Scenarios of a whole engine in memory: its writer, its slots, and callers beside them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{beside, join, scenario};
use crate::engine::{Command, HandOut, Reply};
use crate::job::Content;
use crate::ledger::Outcome;
use crate::sys::sync::channel::unbounded;
use crate::sys::thread::JoinHandle;
use crate::{
    Cancel, Clock, Context, DeadReason, Drained, Engine, Error, Finished, Format, Handle,
    JobResult, ManualClock, Pool, Result, Rkyv, State, What,
};

/// What the jobs here do is said by their handlers.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Work {
    number: usize,
}

crate::job!(Work, kind = "work", output = u64);

const OUTPUT: u64 = 7;
const SECOND: Duration = Duration::from_secs(1);

/// How often each job's handler ran. Not part of the schedule: nobody waits for it.
#[derive(Clone, Default)]
struct Runs(Arc<[AtomicU64; 4]>);

impl Runs {
    fn note(&self, work: &Work) {
        self.0[work.number].fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, number: usize) -> u64 {
        self.0[number].load(Ordering::Relaxed)
    }

    fn all(&self) -> u64 {
        (0..self.0.len()).map(|number| self.of(number)).sum()
    }
}

/// What a thread has to tell at its end.
type Told<T> = Arc<OnceLock<T>>;

fn clock() -> ManualClock {
    ManualClock::at(1_700_000_000_000)
}

/// An engine with one thread pool whose slots run `handler`.
fn open(
    clock: &ManualClock,
    slots: usize,
    handler: impl Fn(&Context) -> JobResult<()> + Send + Sync + 'static,
) -> (Engine, Runs) {
    let runs = Runs::default();
    let noted = runs.clone();
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .stop_grace(SECOND)
        .pool(Pool::threads("hands", slots))
        .handle(move |work: Work, cx: &Context| {
            noted.note(&work);
            handler(cx)?;
            Ok(OUTPUT)
        });
    (engine.open().expect("it opens"), runs)
}

fn work(number: usize) -> Work {
    Work { number }
}

/// Enqueues jobs in one group, as far as the schedule lets them.
fn enqueue<const N: usize>(engine: &Engine) -> [Handle<u64>; N] {
    let tickets: [_; N] = std::array::from_fn(|n| engine.job(work(n)).enqueue_nowait());
    tickets.map(|ticket| ticket.unwrap().wait().unwrap().into_handle())
}

/// Cancels a job on a thread of its own.
fn cancel_beside(handle: &Handle<u64>) -> (JoinHandle, Told<Cancel>) {
    let (handle, told) = (handle.clone(), Told::<Cancel>::default());
    let tell = told.clone();
    let thread = beside("canceller", move || {
        tell.set(handle.cancel().unwrap()).unwrap();
    });
    (thread, told)
}

scenario! {
    /// E3, I4: the slot begins a job, or the writer has it back, for a pause or a cancellation. Never both.
    fn a_job_is_begun_or_taken_back() {
        let (engine, runs) = open(&clock(), 1, |_| Ok(()));
        let handles: [_; 2] = enqueue(&engine);
        let (canceller, told) = cancel_beside(&handles[1]);
        let paused = engine.clone();
        let pauser = beside("pauser", move || {
            paused.queue("default").pause().unwrap();
            paused.queue("default").resume().unwrap();
        });
        let ends = handles.map(|handle| handle.wait().unwrap());
        join([canceller, pauser]);
        assert_eq!((runs.of(0), &ends[0]), (1, &Finished::Completed(OUTPUT)));
        match told.get().unwrap() {
            Cancel::Cancelled => {
                assert_eq!(runs.of(1), 0, "cancelled before it began, and it ran");
                assert!(matches!(&ends[1], Finished::Cancelled { .. }), "{ends:?}");
            }
            Cancel::AskedToStop | Cancel::AlreadyFinished(State::Completed) => {
                assert_eq!((runs.of(1), &ends[1]), (1, &Finished::Completed(OUTPUT)));
            }
            other => panic!("{other:?}"),
        }
        let counters = engine.stats().unwrap().counters;
        assert_eq!((counters.started, counters.completed), (runs.all(), runs.all()));
    }
}

scenario! {
    /// I4: a handler that looks is cancelled, one that has looked completes; all who ask are told the same.
    fn a_cancellation_meets_the_end() {
        let (engine, runs) = open(&clock(), 1, Context::check);
        let [handle] = enqueue(&engine);
        let (first, one) = cancel_beside(&handle);
        let (second, other) = cancel_beside(&handle);
        let end = handle.wait().unwrap();
        join([first, second]);
        for told in [one.get().unwrap(), other.get().unwrap()] {
            match (told, &end) {
                (Cancel::Cancelled, Finished::Cancelled { .. }) => assert_eq!(runs.of(0), 0),
                (Cancel::AskedToStop, Finished::Cancelled { .. } | Finished::Completed(_))
                | (Cancel::AlreadyFinished(State::Completed), Finished::Completed(_))
                | (Cancel::AlreadyFinished(State::Cancelled), Finished::Cancelled { .. }) => {}
                wrong => panic!("{wrong:?}"),
            }
        }
        assert!(runs.of(0) <= 1);
    }
}

scenario! {
    /// I4: a lease ends once. Taken at a limit, it makes the late answer change nothing, and another slot serves.
    fn a_lease_taken_at_a_limit_meets_the_answer() {
        let clock = clock();
        let (tell, began) = unbounded();
        let (engine, runs) = open(&clock, 1, move |cx| {
            let _ = tell.send(());
            // Over when it is asked to stop, and not obeyed.
            let _ = cx.pause(Duration::MAX);
            Ok(())
        });
        let slow = engine.job(work(0)).time_limit(SECOND).attempts(1);
        let slow = slow.enqueue().unwrap().into_handle();
        let mover = beside("clock", move || {
            began.recv().unwrap();
            (0..2).for_each(|_| clock.advance(SECOND));
        });
        let end = slow.wait().unwrap();
        join([mover]);
        let stats = engine.stats().unwrap();
        match end {
            Finished::Completed(OUTPUT) => assert_eq!(stats.late_answers, 0),
            Finished::Dead(ended) => {
                assert_eq!(ended.reason, DeadReason::AttemptsUsedUp);
                assert!(stats.late_answers <= 1);
            }
            other => panic!("{other:?}"),
        }
        let counters = stats.counters;
        assert_eq!((runs.all(), counters.completed + counters.died), (1, 1));
        // Whichever thread it is, somebody serves.
        let next = engine.job(work(1)).time_limit(SECOND).enqueue().unwrap();
        next.handle().cancel().unwrap();
        assert!(matches!(next.handle().wait().unwrap(), Finished::Cancelled { .. } | Finished::Completed(_)));
    }
}

/// What a caller may be told by an engine that goes.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Closed | Error::Draining)
}

/// Enqueues a job and waits for it.
fn call(engine: &Engine, number: usize) -> Result<Finished<u64>> {
    engine.enqueue(work(number))?.wait()
}

scenario! {
    /// Whoever calls while the engine is shut down has an answer: the job's end, or that it is closed.
    fn a_shutdown_meets_callers_and_handlers() {
        let (engine, runs) = open(&clock(), 2, Context::check);
        let callers = [0, 1].map(|number| {
            let (engine, runs) = (engine.clone(), runs.clone());
            beside("caller", move || match call(&engine, number) {
                Ok(Finished::Completed(OUTPUT)) => assert_eq!(runs.of(number), 1),
                Ok(end) => panic!("{end:?}"),
                Err(error) => assert!(is_refusal(&error), "{error}"),
            })
        });
        let report = engine.shutdown(SECOND).unwrap();
        assert_eq!(report.given_back, 0, "all handlers end within their grace");
        join(callers);
        assert!(is_refusal(&engine.stats().unwrap_err()));
    }
}

scenario! {
    /// E4: the last clone goes, with no grace at all: what runs is given back, and every thread ends.
    fn the_last_clone_goes() {
        let (engine, _) = open(&clock(), 1, |cx| cx.pause(SECOND));
        let last = engine.clone();
        let caller = beside("caller", move || {
            let ticket = last.job(work(0)).enqueue_nowait();
            drop(last);
            if let Err(error) = ticket.and_then(crate::Ticket::wait) {
                assert!(is_refusal(&error), "{error}");
            }
        });
        drop(engine);
        join([caller]);
    }
}

scenario! {
    /// Drained, nothing runs; whoever waits for a job that did not run is told when the engine closes.
    fn a_drain_meets_callers() {
        let (engine, runs) = open(&clock(), 1, |_| Ok(()));
        let callers = [0, 1].map(|number| {
            let engine = engine.clone();
            beside("caller", move || match call(&engine, number) {
                Ok(end) => assert_eq!(end, Finished::Completed(OUTPUT)),
                Err(error) => assert!(is_refusal(&error), "{error}"),
            })
        });
        assert_eq!(engine.drain(Duration::MAX).unwrap(), Drained::Finished);
        let stats = engine.stats().unwrap();
        assert_eq!((stats.running, stats.counters.completed), (0, runs.all()));
        engine.shutdown(Duration::ZERO).unwrap();
        join(callers);
        assert_eq!(stats.counters.completed, runs.all(), "nothing began after it");
    }
}

scenario! {
    /// I3: the clock is moved while the writer decides how long to sleep, and commands come.
    fn what_is_due_is_not_slept_over() {
        let clock = clock();
        let (engine, _) = open(&clock, 1, |_| Ok(()));
        let enqueuing = engine.clone();
        let told: Told<Handle<u64>> = Told::default();
        let tell = told.clone();
        let caller = beside("caller", move || {
            let job = enqueuing.job(work(0)).after(SECOND).enqueue().unwrap();
            assert!(tell.set(job.into_handle()).is_ok());
        });
        clock.advance(SECOND);
        join([caller]);
        // It counts from its enqueue, which may have been after the first move.
        let later = beside("clock", move || clock.advance(SECOND));
        let end = told.get().unwrap().wait().unwrap();
        assert_eq!(end, Finished::Completed(OUTPUT));
        join([later]);
    }
}

/// Claims a job by hand, until this time by the awake clock.
fn claim(engine: &Engine, until: Duration) -> Option<HandOut> {
    let asked = engine.shared.ask(|reply| Command::Claim {
        kind: "work",
        queue: "default".to_owned(),
        until,
        reply,
    });
    let mut job = asked.unwrap();
    job.iter_mut().for_each(|job| job.arrived = true);
    job
}

/// Whether the lease still held.
fn complete(engine: &Engine, job: HandOut) -> bool {
    let (reply, answer) = Reply::new();
    let output = <Rkyv as Format<u64>>::encode(&OUTPUT, u64::MAX).unwrap();
    job.settle_and_ask(Outcome::Completed(Content::Inline(output)), 0, reply);
    engine.shared.wait(&answer).unwrap()
}

scenario! {
    /// Callers with threads of their own: each gets a job, or nothing when its time is up; what one drops goes back.
    fn claims_by_hand_meet_the_clock() {
        let clock = clock();
        let engine = Engine::in_memory().clock(clock.clone()).open().unwrap();
        let until = clock.now().awake + SECOND;
        let completer = engine.clone();
        let (done, dropper) = (Told::<bool>::default(), engine.clone());
        let tell = done.clone();
        let claimers = [
            beside("completer", move || {
                if let Some(job) = claim(&completer, until) {
                    tell.set(complete(&completer, job)).unwrap();
                }
            }),
            beside("dropper", move || drop(claim(&dropper, until))),
        ];
        let handle = engine.enqueue(work(0)).unwrap();
        clock.advance(SECOND);
        join(claimers);
        let last = claim(&engine, until);
        assert_eq!(last.is_none(), done.get().is_some(), "one has it, and one only");
        let held = last.map_or(done.get().copied(), |job| Some(complete(&engine, job)));
        assert_eq!(held, Some(true), "the lease was theirs");
        assert_eq!(handle.wait().unwrap(), Finished::Completed(OUTPUT));
    }
}

scenario! {
    /// I9, E1: a subscriber gets or misses each event, and its stream ends; a callback that is dropped hears no more.
    fn news_meet_those_who_stop_listening() {
        let (engine, _) = open(&clock(), 1, |_| Ok(()));
        let events = engine.subscribe(1);
        let listener = beside("listener", move || {
            let mut heard = 0;
            while events.recv().is_some() {
                heard += 1;
            }
            assert_eq!(heard + events.missed(), 3, "enqueued, claimed, completed");
        });
        let subscription = engine
            .on_event(|event| assert!(!matches!(event.what, What::Died)))
            .unwrap();
        let dropper = beside("dropper", move || drop(subscription));
        assert_eq!(call(&engine, 0).unwrap(), Finished::Completed(OUTPUT));
        drop(engine);
        join([listener, dropper]);
    }
}
