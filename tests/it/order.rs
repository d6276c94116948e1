use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use jobsled::{
    Clock, Context, Engine, ManualClock, Pool, Priority, Queue, State, SystemClock, job, rkyv,
};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Numbered {
    number: u64,
}
job!(Numbered, kind = "numbered");

const MINUTE: Duration = Duration::from_mins(1);

/// 10,000 jobs of random priority and one worker: they run in the sorted order, equals as enqueued.
#[test]
fn ten_thousand_priorities_run_in_sorted_order() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Arc::new(Mutex::new(Vec::new()));
    let log = ran.clone();
    let engine = Engine::builder(dir.path().join("store"))
        .pool(Pool::threads("default", 1))
        .handle(move |job: Numbered, _: &Context| {
            log.lock().unwrap().push(job.number);
            Ok(())
        })
        .open()
        .unwrap();
    engine.queue("default").pause().unwrap();
    let mut dice: u64 = 88_172_645_463_325_252;
    let mut expected: Vec<(i32, u64)> = Vec::new();
    let mut batch = engine.batch();
    for number in 0..10_000 {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let priority = i32::try_from(dice % 1_000).unwrap() - 500;
        expected.push((-priority, number));
        batch.add_request(engine.job(Numbered { number }).priority(priority));
    }
    batch.enqueue().unwrap();
    engine.queue("default").resume().unwrap();
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    expected.sort_unstable();
    let expected: Vec<u64> = expected.into_iter().map(|(_, number)| number).collect();
    assert_eq!(*ran.lock().unwrap(), expected);
}

/// Nothing starts before its wait-until, on a real disk, where each start costs a sync. How late it is, is
/// printed: a busy machine is no failure.
#[test]
fn nothing_starts_early() {
    let dir = tempfile::tempdir().unwrap();
    let late = Arc::new(Mutex::new(Vec::new()));
    let log = late.clone();
    let engine = Engine::builder(dir.path().join("store"))
        .handle(move |job: Numbered, _: &Context| {
            let now = u64::try_from(SystemClock.now().wall_ms)?;
            log.lock()
                .unwrap()
                .push(i128::from(now) - i128::from(job.number));
            Ok(())
        })
        .open()
        .unwrap();
    let start = u64::try_from(SystemClock.now().wall_ms).unwrap();
    let mut batch = engine.batch();
    for n in 0..200 {
        let at_ms = start + 100 + n * 5;
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms);
        batch.add_request(engine.job(Numbered { number: at_ms }).at(at));
    }
    batch.enqueue().unwrap();
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    let mut late = late.lock().unwrap().clone();
    late.sort_unstable();
    assert_eq!(late.len(), 200);
    assert!(late[0] >= 0, "{} ms early", -late[0]);
    println!(
        "lateness in ms: median {}, p99 {}, most {}",
        late[100], late[198], late[199]
    );
}

/// A manual clock drives a whole engine with its threads: nothing runs until time is moved.
#[test]
fn a_manual_clock_drives_the_engine() {
    let clock = ManualClock::at(1_700_000_000_000);
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .handle(|_: Numbered, _: &Context| Ok(()))
        .open()
        .unwrap();
    let wait = Duration::from_hours(1);
    let handle = engine
        .job(Numbered { number: 1 })
        .after(wait)
        .enqueue()
        .unwrap()
        .into_handle();
    clock.advance(wait.saturating_sub(Duration::from_millis(1)));
    assert_eq!(handle.state().unwrap(), Some(State::Scheduled));
    clock.step_wall(86_400_000);
    assert_eq!(
        handle.state().unwrap(),
        Some(State::Scheduled),
        "setting the clock is no passing of time"
    );
    clock.advance(Duration::from_millis(1));
    handle.wait().unwrap();
}

/// An hour back and forth while jobs wait: none is lost, doubled or early.
#[test]
fn clock_steps_lose_and_double_nothing() {
    let clock = ManualClock::at(1_700_000_000_000);
    let runs = Arc::new(Mutex::new(Vec::new()));
    let (log, watch) = (runs.clone(), clock.clone());
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .handle(move |job: Numbered, _: &Context| {
            log.lock().unwrap().push((job.number, watch.now().wall_ms));
            Ok(())
        })
        .open()
        .unwrap();
    let start = clock.now().wall_ms;
    for n in 0..100_u64 {
        let at = SystemTime::UNIX_EPOCH
            + Duration::from_millis(u64::try_from(start).unwrap() + n * 60_000);
        engine.job(Numbered { number: n }).at(at).enqueue().unwrap();
    }
    for by_ms in [3_600_000, -3_600_000, -3_600_000, 3_600_000] {
        clock.step_wall(by_ms);
        clock.advance(Duration::from_mins(10));
        engine.stats().unwrap();
    }
    while engine.jobs().state(State::Scheduled).count().unwrap() > 0 {
        clock.advance(Duration::from_mins(10));
        engine.stats().unwrap();
    }
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    let mut runs = runs.lock().unwrap().clone();
    runs.sort_unstable();
    let numbers: Vec<u64> = runs.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>(), "each once");
    // A job may begin just before the clock is set back under its feet; by the clock of its claim it was due.
    let early = runs
        .iter()
        .filter(|(n, at)| *at + 3_600_000 < start + i64::try_from(*n).unwrap() * 60_000);
    assert_eq!(early.count(), 0);
}

/// Of two queues in one pool the heavier one gets its share; a cap holds.
#[test]
fn caps_and_weights_hold() {
    let running = Arc::new(Mutex::new((0_u32, 0_u32)));
    let (count, gate) = (running.clone(), Arc::new(std::sync::Barrier::new(2)));
    let inside = gate.clone();
    let engine = Engine::in_memory()
        .pool(Pool::threads("default", 4))
        .queue(Queue::new("default").concurrency(2))
        .handle(move |_: Numbered, cx: &Context| {
            let mut count = running.lock().unwrap();
            count.0 += 1;
            count.1 = count.1.max(count.0);
            drop(count);
            if cx.id().number() <= 2 {
                inside.wait(); // the first two are in here together
            }
            running.lock().unwrap().0 -= 1;
            Ok(())
        })
        .open()
        .unwrap();
    let mut batch = engine.batch();
    batch.extend((0..50).map(|number| Numbered { number }));
    batch.enqueue().unwrap();
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    assert_eq!(count.lock().unwrap().1, 2, "two at a time, and really two");
    let info = engine.jobs().limit(1).list().unwrap();
    assert_eq!(info[0].priority, Priority(0));
}
