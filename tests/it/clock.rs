use std::path::Path;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use jobsled::{
    Backoff, CancelReason, Clock, Context, DeadReason, Engine, Finished, JobDefaults, ManualClock,
    Pool, Queue, State, What, job, rkyv,
};

use super::api::Stalls;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 1_700_000_000_000;

/// Fails whenever it runs.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Failing;
job!(
    Failing,
    kind = "failing",
    defaults = JobDefaults::new()
        .backoff(Backoff::fixed(10 * MINUTE))
        .retry_expires_after(MINUTE)
);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Brief;
job!(Brief, kind = "brief");

/// A job that was claimed in time and had to wait for a slot once started after its expiry.
#[test]
fn what_expires_while_it_waits_for_a_slot_does_not_start() {
    let clock = ManualClock::at(START_MS);
    let (pass_on, tasks) = mpsc::channel();
    let pass_on = Mutex::new(pass_on);
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .pool(Pool::custom("slow", 1, move |task| {
            pass_on.lock().unwrap().send(task).unwrap();
        }))
        .handle(|_: Brief, _: &Context| Ok(()))
        .open()
        .unwrap();
    clock.advance(2 * MINUTE); // trusted from here on
    let handle = engine.job(Brief).expires_after(MINUTE).enqueue().unwrap();
    let task = tasks.recv_timeout(MINUTE).unwrap();
    clock.advance(2 * MINUTE);
    task.run();
    let ended = handle.handle().wait_timeout(MINUTE).unwrap();
    let Some(Finished::Dead(ended)) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(ended.reason, DeadReason::Expired);
    assert_eq!(engine.stats().unwrap().counters.started, 0);
}

/// A retry that cannot start within its time dies as expired; no attempt is made past it.
#[test]
fn a_retry_that_comes_too_late_is_not_made() {
    let clock = ManualClock::at(START_MS);
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .handle(|_: Failing, cx: &Context| Err(format!("attempt {}", cx.attempt().number).into()))
        .open()
        .unwrap();
    let events = engine.subscribe(100);
    let retried = || while events.recv_timeout(MINUTE).unwrap().what != What::Retried {};
    let handle = engine.enqueue(Failing).unwrap();
    retried();
    // In time: it runs again, and its expiry begins anew.
    clock.advance(10 * MINUTE);
    retried();
    engine.queue("default").pause().unwrap();
    clock.advance(Duration::from_millis(11 * 60_000 - 1));
    assert_eq!(handle.state().unwrap(), Some(State::Ready));
    clock.advance(Duration::from_millis(1));
    engine.queue("default").resume().unwrap();
    let Some(Finished::Dead(ended)) = handle.wait_timeout(MINUTE).unwrap() else {
        panic!("it is neither retried nor dead");
    };
    assert_eq!(ended.reason, DeadReason::Expired);
    let errors: Vec<_> = ended.errors.iter().map(|e| e.error.as_str()).collect();
    assert_eq!(errors, ["attempt 1", "attempt 2"]);
    assert_eq!(engine.stats().unwrap().counters.started, 2);
}

/// A retry waits for a span, and its expiry is counted from the end of that span: setting the clock is no passing of
/// time for either.
#[test]
fn a_clock_set_forward_kills_no_retry() {
    let clock = ManualClock::at(START_MS);
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .handle(|_: Failing, _: &Context| Err("no".into()))
        .open()
        .unwrap();
    let events = engine.subscribe(100);
    let handle = engine.enqueue(Failing).unwrap();
    while events.recv_timeout(MINUTE).unwrap().what != What::Retried {}
    clock.step_wall(HOUR_MS);
    assert_eq!(handle.state().unwrap(), Some(State::Scheduled));
    // The clock is trusted again after a minute; the retry is due in nine more, and expires a minute after that.
    clock.advance(2 * MINUTE);
    engine.stats().unwrap(); // the group that sees the new time
    assert_eq!(handle.state().unwrap(), Some(State::Scheduled));
}

/// Waits for a time of the wall clock, or for a span.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Waits {
    number: u64,
    due_wall_ms: i64,
    due_steady_ms: u64,
}
job!(Waits, kind = "waits");

/// Jobs that wait for a time of the wall clock, one every 30 s from the start on.
const TIMED: u64 = 300;
/// Jobs that wait for a span, one every 10 min.
const SPANS: u64 = 20;

/// What handlers did, and the gates of the one that hangs.
struct Seen {
    /// Numbers of the jobs that ran, and whether their time had come.
    runs: Mutex<Vec<(u64, bool)>>,
    inside: Barrier,
    release: Barrier,
    /// What the one that hung was told in the end.
    found: Mutex<Option<CancelReason>>,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            runs: Mutex::default(),
            inside: Barrier::new(2),
            release: Barrier::new(2),
            found: Mutex::default(),
        }
    }
}

/// A worker hangs past its stall timeout while the clock is set an hour forth and back under jobs that wait: none is
/// lost, early or doubled, and the one that hung is done once, by another.
#[test]
fn a_stalled_worker_and_a_clock_set_forth_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let clock = ManualClock::at(START_MS);
    let seen = Arc::new(Seen::default());
    let engine = open(&store, &clock, &seen);
    let stalled = engine.enqueue(Stalls).unwrap();
    seen.inside.wait();
    let mut jobs = Waiting::enqueue(&engine, &clock);

    // The hour forth brings what is due by then. It is no time in which a worker could have stalled.
    jobs.step(HOUR_MS, 0);
    let info = engine.details(stalled.id()).unwrap().unwrap().info;
    assert_eq!((info.state, info.attempt), (State::Running, 1));
    jobs.step(-HOUR_MS, 0);
    jobs.step(0, 29_999);
    let info = engine.details(stalled.id()).unwrap().unwrap().info;
    assert_eq!((info.state, info.attempt), (State::Running, 1));

    // Past its timeout it is asked to stop, past the grace it has lost the job, whatever the wall clock shows.
    jobs.step(-HOUR_MS, 1);
    jobs.step(HOUR_MS, 5_000);
    let done = stalled.wait_timeout(MINUTE).unwrap();
    assert_eq!(done, Some(Finished::Completed(2)), "by another, once");
    jobs.others_done = 1;
    for by_ms in [HOUR_MS, -HOUR_MS, -HOUR_MS, HOUR_MS] {
        jobs.step(by_ms, 600_000);
    }
    while jobs.waiting() > 0 {
        jobs.step(0, 600_000);
    }

    // The one that hung wakes up at last; what it says is refused.
    seen.release.wait();
    let refused = (0..LOOKS_MAX).any(|_| engine.stats().unwrap().late_answers == 1);
    assert!(refused, "its answer did not come, or was taken");
    assert_eq!(*seen.found.lock().unwrap(), Some(CancelReason::LeaseLost));
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store).clock(clock).open().unwrap();
    let completed = engine.jobs().state(State::Completed).count().unwrap();
    assert_eq!(completed, 1 + TIMED + SPANS, "none lost");
    assert_eq!(engine.stats().unwrap().counters.completed, completed);
    let mut runs = seen.runs.lock().unwrap().clone();
    runs.sort_unstable();
    let each_once: Vec<_> = (0..TIMED + SPANS).map(|number| (number, true)).collect();
    assert_eq!(runs, each_once, "each once, and in time");
}

fn open(store: &Path, clock: &ManualClock, seen: &Arc<Seen>) -> Engine {
    let (watch, of_waits, of_stalls) = (clock.clone(), seen.clone(), seen.clone());
    Engine::builder(store)
        .clock(clock.clone())
        .pool(Pool::threads("default", 2))
        .queue(Queue::new("default").keep_finished(1_000))
        .stop_grace(Duration::from_secs(5))
        .handle(move |job: Waits, _: &Context| {
            let now = watch.now();
            let steady_ms = u64::try_from(now.steady.as_millis())?;
            let in_time = now.wall_ms >= job.due_wall_ms && steady_ms >= job.due_steady_ms;
            of_waits.runs.lock().unwrap().push((job.number, in_time));
            Ok(())
        })
        .handle(move |_: Stalls, cx: &Context| {
            if cx.attempt().number == 1 {
                of_stalls.inside.wait();
                of_stalls.release.wait();
                *of_stalls.found.lock().unwrap() = cx.cancelled();
            }
            Ok(cx.attempt().number)
        })
        .open()
        .unwrap()
}

/// Bound of a loop that asks the writer until another thread's message has come.
const LOOKS_MAX: u32 = 1_000_000;

/// The jobs that wait, and which of them must have run by now.
struct Waiting<'a> {
    engine: &'a Engine,
    clock: &'a ManualClock,
    start_steady: Duration,
    /// The latest that the wall clock has shown: what was due then has run, and stays so.
    latest_wall_ms: i64,
    /// Jobs of other kinds that are done.
    others_done: u64,
}

impl<'a> Waiting<'a> {
    fn enqueue(engine: &'a Engine, clock: &'a ManualClock) -> Waiting<'a> {
        let now = clock.now();
        let steady_ms = u64::try_from(now.steady.as_millis()).unwrap();
        let mut batch = engine.batch();
        for number in 0..TIMED {
            let due = now.wall_ms + timed_ms(number);
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(due.try_into().unwrap());
            let (due_wall_ms, due_steady_ms) = (due, 0);
            let job = Waits {
                number,
                due_wall_ms,
                due_steady_ms,
            };
            batch.add_request(engine.job(job).at(at));
        }
        for number in 0..SPANS {
            let (due_wall_ms, due_steady_ms) = (i64::MIN, steady_ms + span_ms(number));
            let job = Waits {
                number: TIMED + number,
                due_wall_ms,
                due_steady_ms,
            };
            let after = Duration::from_millis(span_ms(number));
            batch.add_request(engine.job(job).after(after));
        }
        batch.enqueue().unwrap();
        Waiting {
            engine,
            clock,
            start_steady: now.steady,
            latest_wall_ms: now.wall_ms,
            others_done: 0,
        }
    }

    /// Sets the wall clock, lets time pass, and sees exactly what is due by either clock run.
    fn step(&mut self, set_by_ms: i64, pass_ms: u64) {
        self.clock.step_wall(set_by_ms);
        self.settle();
        self.clock.advance(Duration::from_millis(pass_ms));
        self.settle();
    }

    fn settle(&mut self) {
        self.latest_wall_ms = self.latest_wall_ms.max(self.clock.now().wall_ms);
        let told = format!("{:?}", self.clock);
        let waiting = self.waiting();
        let done = TIMED + SPANS - waiting + self.others_done;
        assert!(
            self.engine.wait_until_finished(done, MINUTE).unwrap(),
            "{told}: something is stuck"
        );
        let scheduled = self.engine.jobs().kind("waits").state(State::Scheduled);
        assert_eq!(
            scheduled.count().unwrap(),
            waiting,
            "{told}: something is early or late"
        );
    }

    /// How many wait by the plain reading of both clocks.
    fn waiting(&self) -> u64 {
        let by_wall = |n: &u64| START_MS + timed_ms(*n) > self.latest_wall_ms;
        let passed = self.clock.now().steady.saturating_sub(self.start_steady);
        let by_span = |n: &u64| Duration::from_millis(span_ms(*n)) > passed;
        let waiting = (0..TIMED).filter(by_wall).count() + (0..SPANS).filter(by_span).count();
        waiting as u64
    }
}

fn timed_ms(number: u64) -> i64 {
    i64::try_from(number).unwrap() * 30_000
}

fn span_ms(number: u64) -> u64 {
    (number + 1) * 600_000
}
