use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use jobsled::{
    AttemptEnd, Backoff, Clock, Context, DeadReason, Engine, Finished, JobDefaults, JobResult,
    ManualClock, Now, Pool, State, SystemClock, Task, job, rkyv,
};

use crate::api::Stalls;

const MINUTE: Duration = Duration::from_mins(1);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Bytes {
    bytes: Vec<u8>,
}
job!(
    Bytes,
    kind = "bytes",
    output = u64,
    defaults = JobDefaults::new().backoff(Backoff::fixed(Duration::ZERO))
);

/// Does nothing, within a minute.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Limited;
job!(
    Limited,
    kind = "limited",
    defaults = JobDefaults::new().time_limit(MINUTE)
);

fn measure(job: Bytes, _cx: &Context) -> JobResult<u64> {
    Ok(job.bytes.len() as u64)
}

/// Lets a handler of [`Stalls`] run into its stall timeout and lose its lease.
fn let_it_hang(engine: &Engine, clock: &ManualClock) {
    clock.advance(Duration::from_secs(30));
    engine.stats().unwrap();
    clock.advance(Duration::from_secs(5));
    engine.stats().unwrap();
}

fn hanging(engine: &Engine) -> (usize, usize) {
    let pools = engine.health().pools;
    let pool = pools.first().expect("one pool");
    (pool.replaced, pool.lost)
}

/// A slot that hung and was not replaced used to end with its handler, and replacements were never given
/// back: a pool of one slot was dead after two overruns.
#[test]
fn a_pool_outlives_its_hanging_handlers() {
    let clock = ManualClock::at(1_700_000_000_000);
    let (inside, began) = mpsc::channel();
    let (let_go, held) = mpsc::channel();
    let held = Mutex::new(held);
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .pool(Pool::threads("default", 1).replacements(1))
        .stop_grace(Duration::from_secs(5))
        .handle(move |_: Stalls, cx: &Context| {
            inside.send(cx.attempt().number).unwrap();
            if cx.attempt().number < 3 {
                held.lock().unwrap().recv().unwrap();
            }
            Ok(cx.attempt().number)
        })
        .open()
        .unwrap();
    for _ in 0..3 {
        let handle = engine.enqueue(Stalls).unwrap();
        assert_eq!(began.recv_timeout(MINUTE), Ok(1));
        let_it_hang(&engine, &clock);
        assert_eq!(began.recv_timeout(MINUTE), Ok(2), "in the replacement");
        assert_eq!(hanging(&engine), (1, 0));
        let_it_hang(&engine, &clock);
        assert_eq!(hanging(&engine), (1, 1), "one is the bound");
        assert!(!engine.health().is_well());
        let_go.send(()).unwrap();
        let_go.send(()).unwrap();
        assert_eq!(began.recv_timeout(MINUTE), Ok(3), "one slot serves again");
        assert_eq!(handle.wait().unwrap(), Finished::Completed(3));
        while hanging(&engine) != (0, 0) {}
        assert!(engine.health().is_well());
    }
}

/// An executor that drops what it gets was handed the same job again at once, and so for ever.
#[test]
fn an_executor_that_drops_its_tasks_is_left_alone() {
    let clock = ManualClock::at(1_700_000_000_000);
    let (told, dropped) = mpsc::channel();
    let runs = Arc::new(AtomicUsize::new(0));
    let may_run = runs.clone();
    let spawn = move |task: Task| {
        if may_run.load(Ordering::SeqCst) > 0 {
            may_run.fetch_sub(1, Ordering::SeqCst);
            task.run();
        } else {
            drop(task);
            told.send(()).unwrap();
        }
    };
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .pool(Pool::custom("default", 1, spawn))
        .handle(measure)
        .open()
        .unwrap();
    // Each look at the engine is a group, in which jobs could be handed out.
    let is_left_alone = |seconds: u64| {
        engine.stats().unwrap(); // the writer has the task back
        clock.advance(Duration::from_millis(seconds * 1_000 - 1));
        for _ in 0..100 {
            engine.stats().unwrap();
        }
        assert!(dropped.try_recv().is_err(), "within {seconds} s");
        clock.advance(Duration::from_millis(1));
    };
    let handle = engine.enqueue(Bytes { bytes: vec![1] }).unwrap();
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        dropped.recv_timeout(MINUTE).unwrap();
        is_left_alone(seconds);
    }
    dropped.recv_timeout(MINUTE).unwrap();
    assert_eq!(handle.state().unwrap(), Some(State::Ready));
    runs.store(1, Ordering::SeqCst);
    is_left_alone(60);
    assert_eq!(handle.wait().unwrap(), Finished::Completed(1));
    // One that began: it starts with a second again.
    engine.enqueue(Bytes { bytes: vec![1] }).unwrap();
    dropped.recv_timeout(MINUTE).unwrap();
    is_left_alone(1);
    dropped.recv_timeout(MINUTE).unwrap();
}

/// A payload file that cannot be opened for a moment made its job dead at the first attempt.
#[cfg(unix)]
#[test]
fn a_payload_that_cannot_be_read_is_a_failed_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let (path, aside) = (dir.path().join("store"), dir.path().join("aside"));
    let payloads = path.join("payloads");
    let (payload, back) = (Arc::new(Mutex::new(None)), aside.clone());
    let place = payload.clone();
    let engine = Engine::builder(&path)
        .handle(measure)
        .after_job(move |report| {
            if let (AttemptEnd::Failed(error), Some(file)) = (&report.end, &*place.lock().unwrap())
            {
                assert!(error.contains("could not open"), "{error}");
                std::fs::rename(&back, file).unwrap();
            }
        })
        .open()
        .unwrap();
    engine.queue("default").pause().unwrap();
    let large = vec![7; 100_000];
    let handle = engine.enqueue(Bytes { bytes: large }).unwrap();
    let file = std::fs::read_dir(payloads).unwrap().next().unwrap();
    let file = file.unwrap().path();
    std::fs::rename(&file, &aside).unwrap();
    // Leads to itself: an error of the system, for root as well, and no file that is missing.
    std::os::unix::fs::symlink(&file, &file).unwrap();
    *payload.lock().unwrap() = Some(file.clone());
    engine.queue("default").resume().unwrap();
    assert_eq!(handle.wait().unwrap(), Finished::Completed(100_000));
    assert_eq!(engine.stats().unwrap().counters.retried, 1);

    // One that is gone is gone.
    engine.queue("default").pause().unwrap();
    let large = vec![7; 100_000];
    let handle = engine.enqueue(Bytes { bytes: large }).unwrap();
    for file in std::fs::read_dir(file.parent().unwrap()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    engine.queue("default").resume().unwrap();
    let Finished::Dead(ended) = handle.wait().unwrap() else {
        panic!("its payload is missing")
    };
    assert_eq!(ended.reason, DeadReason::Discarded);
}

/// The machine's clock; counts how often a paused handler asks it how long it may wait.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Clock for Counting {
    fn now(&self) -> Now {
        SystemClock.now()
    }

    fn real_wait(&self, steady: Duration) -> Option<Duration> {
        if std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("jobsled-paused"))
        {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Some(steady)
    }
}

/// Each limited job that began woke every handler in `pause`.
#[test]
fn a_limited_job_wakes_no_paused_handler() {
    let clock = Counting::default();
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .pool(Pool::threads("paused", 1))
        .pool(Pool::threads("default", 1))
        .queue(jobsled::Queue::new("paused").pool("paused"))
        .handle(|_: Limited, _: &Context| Ok(()))
        .handle(|job: Bytes, cx: &Context| {
            cx.pause(MINUTE)?;
            measure(job, cx)
        })
        .open()
        .unwrap();
    let paused = engine.job(Bytes { bytes: vec![1] }).queue("paused");
    let paused = paused.enqueue().unwrap().into_handle();
    while clock.0.load(Ordering::SeqCst) == 0 {}
    for _ in 0..100 {
        engine.enqueue(Limited).unwrap().wait().unwrap();
    }
    assert_eq!(clock.0.load(Ordering::SeqCst), 1, "looks at the clock");
    paused.cancel().unwrap();
    assert!(matches!(paused.wait().unwrap(), Finished::Cancelled { .. }));
}

/// A handler that outlived its engine noted its end in the next one's recorder file, at the place of a job that
/// was running there: after a crash that one counted as not begun.
#[test]
fn a_handler_that_outlives_its_engine_notes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let recorder = || std::fs::read(path.join("recorder")).unwrap();
    let open = || {
        let (inside, began) = mpsc::channel();
        let (let_go, held) = mpsc::channel::<()>();
        let (ends, ended) = mpsc::channel();
        let held = Mutex::new(held);
        let engine = Engine::builder(&path)
            .pool(Pool::threads("default", 1))
            .handle(move |_: Bytes, _: &Context| {
                inside.send(()).unwrap();
                let _ = held.lock().unwrap().recv();
                Ok(0)
            })
            .after_job(move |_| ends.send(()).unwrap())
            .open()
            .unwrap();
        (engine, began, let_go, ended)
    };
    let (old, old_began, old_let_go, old_ended) = open();
    old.enqueue(Bytes { bytes: vec![1] }).unwrap();
    old_began.recv_timeout(MINUTE).unwrap();
    assert_eq!(old.shutdown(Duration::ZERO).unwrap().given_back, 1);
    let (new, new_began, new_let_go, _new_ended) = open();
    new_began.recv_timeout(MINUTE).unwrap();
    let before = recorder();
    drop(old_let_go);
    old_ended.recv_timeout(MINUTE).unwrap();
    assert!(recorder() == before, "the running job's record is gone");
    drop(new_let_go);
    new.wait_until_idle(MINUTE).unwrap();
}
