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
    Backoff, Cancel, Clock, Context, Drained, Engine, Error, Event, Finished, Format, Handle,
    JobResult, ManualClock, Pool, Result, Rkyv, State, Task, What,
};

/// What the jobs here do is said by their handlers.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Work {
    number: usize,
}

crate::job!(Work, kind = "work", output = u32);

const OUTPUT: u32 = 7;
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
    handler: impl Fn(&Context) -> JobResult<u32> + Send + Sync + 'static,
) -> (Engine, Runs) {
    let runs = Runs::default();
    let noted = runs.clone();
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .stop_grace(SECOND)
        .pool(Pool::threads("hands", slots))
        .handle(move |work: Work, cx: &Context| {
            noted.note(&work);
            handler(cx)
        });
    (engine.open().expect("it opens"), runs)
}

fn work(number: usize) -> Work {
    Work { number }
}

/// Enqueues jobs in one group, as far as the schedule lets them.
fn enqueue<const N: usize>(engine: &Engine) -> [Handle<u32>; N] {
    let tickets: [_; N] = std::array::from_fn(|n| engine.job(work(n)).enqueue_nowait());
    tickets.map(|ticket| ticket.unwrap().wait().unwrap().into_handle())
}

/// Cancels a job on a thread of its own.
fn cancel_beside(handle: &Handle<u32>) -> (JoinHandle, Told<Cancel>) {
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
        let (engine, runs) = open(&clock(), 1, |_| Ok(OUTPUT));
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
        let (engine, runs) = open(&clock(), 1, |cx| cx.check().map(|()| OUTPUT));
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
    /// I4: a lease taken at a limit makes the late answer change nothing, whatever the next attempt is doing then.
    fn a_lease_taken_at_a_limit_meets_the_answer() {
        let clock = clock();
        let (tell, began) = unbounded();
        let (engine, runs) = open(&clock, 1, move |cx| {
            if cx.attempt().number == 1 {
                let _ = tell.send(());
                // Over when it is asked to stop, and not obeyed.
                let _ = cx.pause(Duration::MAX);
            }
            Ok(cx.attempt().number)
        });
        let job = engine.job(work(0)).time_limit(SECOND);
        let job = job.backoff(Backoff::fixed(Duration::ZERO)).enqueue().unwrap();
        let mover = beside("clock", move || {
            began.recv().unwrap();
            // The limit, and the grace.
            (0..2).for_each(|_| clock.advance(SECOND));
        });
        let end = job.handle().wait().unwrap();
        join([mover]);
        // Only the second attempt's answer counts once there is one.
        let attempts = u32::try_from(runs.of(0)).unwrap();
        assert_eq!(end, Finished::Completed(attempts));
        let stats = engine.stats().unwrap();
        assert!(stats.late_answers < u64::from(attempts), "{stats:?}");
        assert_eq!(stats.counters.completed, 1);
    }
}

/// What a caller may be told by an engine that goes.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Closed | Error::Draining)
}

/// Enqueues a job and waits for it.
fn call(engine: &Engine, number: usize) -> Result<Finished<u32>> {
    engine.enqueue(work(number))?.wait()
}

scenario! {
    /// Whoever calls while the engine is shut down has an answer: the job's end, or that it is closed.
    fn a_shutdown_meets_callers_and_handlers() {
        let (engine, runs) = open(&clock(), 2, |cx| cx.check().map(|()| OUTPUT));
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
        let (engine, _) = open(&clock(), 1, |cx| cx.pause(SECOND).map(|()| OUTPUT));
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
        let (engine, runs) = open(&clock(), 1, |_| Ok(OUTPUT));
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
        let (engine, _) = open(&clock, 1, |_| Ok(OUTPUT));
        let enqueuing = engine.clone();
        let told: Told<Handle<u32>> = Told::default();
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
    let output = <Rkyv as Format<u32>>::encode(&OUTPUT, u64::MAX).unwrap();
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
    /// I9, E1: a subscriber gets or misses each event, and its stream ends; a callback that is dropped is called once
    /// more at most.
    fn news_meet_those_who_stop_listening() {
        let (engine, _) = open(&clock(), 1, |_| Ok(OUTPUT));
        let events = engine.subscribe(1);
        let listener = beside("listener", move || {
            let mut heard = 0;
            while events.recv().is_some() {
                heard += 1;
            }
            assert_eq!(heard + events.missed(), 3, "enqueued, claimed, completed");
        });
        let (dropped, late) = (Told::<()>::default(), Told::<What>::default());
        let (gone, tell) = (dropped.clone(), late.clone());
        let heard = move |event: &Event| {
            if gone.get().is_some() {
                tell.set(event.what.clone()).expect("one call had begun");
            }
        };
        let subscription = engine.on_event(heard).unwrap();
        let dropper = beside("dropper", move || {
            drop(subscription);
            dropped.set(()).unwrap();
        });
        assert_eq!(call(&engine, 0).unwrap(), Finished::Completed(OUTPUT));
        drop(engine);
        join([listener, dropper]);
    }
}

scenario! {
    /// I5: a more urgent job takes the place of one that was claimed ahead, or comes too late; both run, once.
    fn an_urgent_job_meets_what_was_claimed_ahead() {
        let (engine, runs) = open(&clock(), 1, |_| Ok(OUTPUT));
        let handles: [_; 3] = enqueue(&engine);
        let urgent = engine.clone();
        let caller = beside("caller", move || {
            let job = urgent.job(work(3)).priority(1).enqueue().unwrap();
            assert_eq!(job.handle().wait().unwrap(), Finished::Completed(OUTPUT));
        });
        for handle in handles {
            assert_eq!(handle.wait().unwrap(), Finished::Completed(OUTPUT));
        }
        join([caller]);
        assert_eq!([0, 1, 2, 3].map(|number| runs.of(number)), [1; 4]);
    }
}

scenario! {
    /// Handlers that enqueue through an inbox with room for one job, beside callers that wait for room and for the end.
    fn handlers_enqueue_through_a_full_inbox() {
        let runs = Runs::default();
        let noted = runs.clone();
        let engine = Engine::in_memory()
            .clock(clock())
            .inbox(1, 1 << 20)
            .pool(Pool::threads("hands", 1))
            .handle(move |work: Work, cx: &Context| {
                noted.note(&work);
                if work.number < 2 {
                    let more = Work { number: work.number + 2 };
                    cx.engine().enqueue(more).map_err(|e| e.to_string())?;
                }
                Ok(OUTPUT)
            })
            .open()
            .unwrap();
        let other = engine.clone();
        let caller = beside("caller", move || {
            assert_eq!(call(&other, 0).unwrap(), Finished::Completed(OUTPUT));
        });
        assert_eq!(call(&engine, 1).unwrap(), Finished::Completed(OUTPUT));
        assert!(engine.wait_until_finished(4, Duration::MAX).unwrap());
        assert!(engine.wait_until_idle(Duration::MAX).unwrap());
        join([caller]);
        assert_eq!([0, 1, 2, 3].map(|number| runs.of(number)), [1; 4]);
    }
}

scenario! {
    /// I4: a lease by hand runs out beside its answer. One answer is accepted, and its caller is told.
    fn a_lease_by_hand_runs_out_beside_its_answer() {
        let clock = clock();
        let engine = Engine::in_memory().clock(clock.clone()).lock_timeout(SECOND).open().unwrap();
        let job = engine.job(work(0)).backoff(Backoff::fixed(Duration::ZERO)).enqueue().unwrap();
        let until = clock.now().awake;
        let first = claim(&engine, until).expect("one is ready");
        let holder = engine.clone();
        let accepted = Told::<bool>::default();
        let tell = accepted.clone();
        let holder = beside("holder", move || tell.set(complete(&holder, first)).unwrap());
        clock.advance(SECOND);
        let second = claim(&engine, until + SECOND);
        let taken = second.is_some_and(|job| complete(&engine, job));
        join([holder]);
        assert_ne!(taken, *accepted.get().unwrap(), "one of the two");
        assert_eq!(job.handle().wait().unwrap(), Finished::Completed(OUTPUT));
        assert_eq!(engine.stats().unwrap().late_answers, u64::from(taken));
    }
}

scenario! {
    /// An executor of the caller's, with a thread for each task; shut down twice at once, while tasks are on their
    /// way.
    fn a_custom_pool_meets_two_shutdowns() {
        let runs = Runs::default();
        let noted = runs.clone();
        let engine = Engine::in_memory()
            .clock(clock())
            .pool(Pool::custom("mine", 1, |task: Task| drop(beside("task", || task.run()))))
            .handle(move |work: Work, cx: &Context| {
                noted.note(&work);
                cx.check().map(|()| OUTPUT)
            })
            .open()
            .unwrap();
        let caller = engine.clone();
        let caller = beside("caller", move || {
            let tickets = [0, 1].map(|number| caller.job(work(number)).enqueue_nowait());
            for ticket in tickets {
                let end = ticket.and_then(|ticket| ticket.wait()?.handle().wait());
                match end {
                    Ok(end) => assert_eq!(end, Finished::Completed(OUTPUT)),
                    Err(error) => assert!(is_refusal(&error), "{error}"),
                }
            }
        });
        let closing = engine.clone();
        let closer = beside("closer", move || {
            if let Err(error) = closing.shutdown(SECOND) {
                assert!(is_refusal(&error), "{error}");
            }
        });
        if let Err(error) = engine.shutdown(SECOND) {
            assert!(is_refusal(&error), "{error}");
        }
        join([caller, closer]);
        assert!(runs.of(0) <= 1 && runs.of(1) <= 1);
    }
}

scenario! {
    /// A caller that waits no longer takes its question back while the answer comes; the others have theirs.
    fn one_stops_waiting_while_the_job_ends() {
        let (engine, _) = open(&clock(), 1, |_| Ok(OUTPUT));
        let mut ticket = engine.job(work(0)).enqueue_nowait().unwrap();
        let _ = ticket.is_durable();
        let handle = ticket.wait().unwrap().into_handle();
        let patient = handle.clone();
        let other = beside("patient", move || {
            assert_eq!(patient.wait().unwrap(), Finished::Completed(OUTPUT));
        });
        let at_once = handle.wait_timeout(Duration::ZERO).unwrap();
        assert!(at_once.is_none_or(|end| end == Finished::Completed(OUTPUT)));
        join([other]);
    }
}

scenario! {
    /// A handler that waits for a time is woken when the clock is moved, through the writer.
    fn a_pause_meets_the_clock() {
        let clock = clock();
        let until = clock.now().awake + SECOND;
        let seen = clock.clone();
        let (engine, _) = open(&clock, 1, move |cx| {
            // As `Context::pause`, but to a time that was fixed before the clock is moved.
            let id = cx.id();
            let watched = cx.engine().shared.ask(|reply| Command::Watch { id, reply });
            let live = watched.ok().flatten().ok_or("it runs")?;
            live.pause_until(|| (seen.now().awake < until).then_some(None));
            Ok(OUTPUT)
        });
        let [handle] = enqueue(&engine);
        clock.advance(SECOND);
        assert_eq!(handle.wait().unwrap(), Finished::Completed(OUTPUT));
    }
}

scenario! {
    /// Whoever follows a running job's log hears of its end.
    fn a_log_meets_the_end_of_its_attempt() {
        let (engine, _) = open(&clock(), 1, |cx| {
            cx.log(b"ab");
            cx.log(b"c");
            Ok(OUTPUT)
        });
        let [handle] = enqueue(&engine);
        let (mut read, mut ended) = (Vec::new(), false);
        while let Some(part) = engine.log(handle.id(), read.len() as u64, Duration::MAX).unwrap() {
            read.extend(part.bytes);
            ended = part.ended;
            if ended {
                break;
            }
        }
        assert!(read == b"abc" || !ended && b"abc".starts_with(&read), "{read:?}");
        assert_eq!(handle.wait().unwrap(), Finished::Completed(OUTPUT));
    }
}
