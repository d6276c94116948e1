use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use jobsled::{
    AttemptEnd, Backoff, Cancel, CancelReason, Changed, Context, DeadReason, Delete, Drained,
    Engine, Finished, Job, JobDefaults, JobResult, OnCrash, Pool, Queue, State, Stop, Task, What,
    job, rkyv,
};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Text {
    text: String,
}
job!(Text, kind = "text", output = String);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Number {
    number: u64,
}
job!(
    Number,
    kind = "number",
    output = u64,
    defaults = JobDefaults::new()
        .attempts(3)
        .backoff(Backoff::fixed(Duration::from_millis(1)))
);

const MINUTE: Duration = Duration::from_mins(1);

fn text(text: &str) -> Text {
    Text {
        text: text.to_owned(),
    }
}

fn upper(job: Text, _cx: &Context) -> JobResult<String> {
    Ok(job.text.to_uppercase())
}

/// A job and its output go to the disk and back, also across a restart, by id and by key.
#[test]
fn typed_output_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = Engine::builder(&store).handle(upper).open().unwrap();
    let id = engine
        .job(text("größe"))
        .key("g")
        .metadata("from", "test")
        .enqueue()
        .unwrap()
        .into_handle()
        .id();
    let handle = engine.handle::<Text>(id).unwrap().unwrap();
    assert_eq!(
        handle.wait().unwrap(),
        Finished::Completed("GRÖSSE".to_owned())
    );
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store).open().unwrap();
    let found = engine.find_key::<Text>("g").unwrap().unwrap();
    assert_eq!(found.id(), id);
    assert_eq!(
        found.wait().unwrap(),
        Finished::Completed("GRÖSSE".to_owned())
    );
    let details = engine.details(id).unwrap().unwrap();
    assert_eq!(details.metadata, [("from".to_owned(), "test".to_owned())]);
    assert_eq!(
        (details.info.state, details.payload_bytes),
        (State::Completed, None)
    );
}

/// Payloads and outputs that do not fit the journal have files, and those go with their jobs.
#[test]
fn large_payloads_and_outputs_have_files_that_go_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let files = || std::fs::read_dir(store.join("payloads")).unwrap().count();
    let engine = Engine::builder(&store).handle(upper).open().unwrap();
    let big = "x".repeat(3 << 20);
    let handle = engine.enqueue(text(&big)).unwrap();
    match handle.wait().unwrap() {
        Finished::Completed(output) => {
            assert!(output.len() == big.len() && output.starts_with('X'));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(files(), 1, "the output is kept, the payload is not");
    engine.shutdown(MINUTE).unwrap();
    let engine = Engine::builder(&store).handle(upper).open().unwrap();
    assert_eq!(
        engine.change(handle.id()).delete().unwrap(),
        Delete::Deleted
    );
    assert_eq!(files(), 0);
}

/// Failures are retried by policy with their texts kept; the last one makes the job dead; it can come back.
#[test]
fn failures_are_kept_and_the_dead_come_back() {
    let fail = Arc::new(AtomicU32::new(3));
    let left = fail.clone();
    let engine = Engine::in_memory()
        .handle(move |job: Number, cx: &Context| {
            if left.load(Ordering::SeqCst) > 0 {
                left.fetch_sub(1, Ordering::SeqCst);
                return Err(format!(
                    "attempt {} of {}, last: {}",
                    cx.attempt().number,
                    job.number,
                    cx.attempt().is_last
                )
                .into());
            }
            Ok(job.number * 2)
        })
        .open()
        .unwrap();
    let handle = engine.enqueue(Number { number: 21 }).unwrap();
    let Finished::Dead(ended) = handle.wait().unwrap() else {
        panic!("three failures are one too many")
    };
    assert_eq!(ended.reason, DeadReason::AttemptsUsedUp);
    let errors: Vec<&str> = ended.errors.iter().map(|e| e.error.as_str()).collect();
    assert_eq!(
        errors,
        [
            "attempt 1 of 21, last: false",
            "attempt 2 of 21, last: false",
            "attempt 3 of 21, last: true"
        ]
    );
    assert_eq!(engine.jobs().state(State::Dead).errors().unwrap().len(), 1);
    assert_eq!(engine.change(handle.id()).retry().unwrap(), Changed::Done);
    assert_eq!(handle.wait().unwrap(), Finished::Completed(42));
    assert_eq!(
        engine.details(handle.id()).unwrap().unwrap().errors.len(),
        3,
        "history stays"
    );
    assert_eq!(
        engine.change(handle.id()).retry().unwrap(),
        Changed::PayloadGone
    );
    fail.store(3, Ordering::SeqCst);
    engine
        .enqueue(Number { number: 1 })
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(engine.prune().state(State::Dead).run().unwrap().deleted, 1);
    assert_eq!(engine.stats().unwrap().count(State::Dead), 0);
}

/// One word each: retry after, snooze, discard, cancel; and a panic is a failed attempt.
#[test]
fn a_handler_says_in_one_word_what_shall_become_of_its_job() {
    let engine = Engine::in_memory()
        .handle(
            |job: Number, cx: &Context| match (job.number, cx.attempt().number) {
                (1, 1) => Err(Stop::retry_after(Duration::from_millis(5), "busy")),
                (2, 1..=4) => Err(Stop::snooze(Duration::from_millis(1))),
                (3, _) => Err(Stop::discard("hopeless")),
                (4, _) => Err(Stop::cancel("not wanted")),
                (5, 1) => panic!("oh {}", job.number),
                (_, attempt) => Ok(u64::from(attempt)),
            },
        )
        .open()
        .unwrap();
    let run = |number| engine.enqueue(Number { number }).unwrap().wait().unwrap();
    assert_eq!(run(1), Finished::Completed(2));
    assert_eq!(
        run(2),
        Finished::Completed(5),
        "four snoozes of three attempts"
    );
    let Finished::Dead(ended) = run(3) else {
        panic!("discarded")
    };
    assert_eq!(
        (ended.reason, ended.words.as_str()),
        (DeadReason::Discarded, "hopeless")
    );
    assert_eq!(
        run(4),
        Finished::Cancelled {
            reason: "not wanted".into()
        }
    );
    assert_eq!(run(5), Finished::Completed(2));
    let panicked = engine.jobs().errors().unwrap();
    assert!(
        panicked.iter().any(|(_, e)| e.error == "panicked: oh 5"),
        "{panicked:?}"
    );
}

/// Progress is seen while the job runs; cancel reaches it there.
#[test]
fn progress_is_seen_and_cancel_reaches_a_running_job() {
    let (inside, outside) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (i, o) = (inside.clone(), outside.clone());
    let engine = Engine::in_memory()
        .handle(move |_: Number, cx: &Context| {
            cx.note("half");
            cx.progress(5, 10);
            i.wait();
            o.wait();
            cx.pause(MINUTE)?; // until it is cancelled
            Ok(0)
        })
        .open()
        .unwrap();
    let events = engine.subscribe(100);
    let handle = engine.enqueue(Number { number: 0 }).unwrap();
    inside.wait();
    let progress = handle.progress().unwrap();
    assert_eq!(
        (progress.done, progress.total, progress.note.as_str()),
        (5, 10, "half")
    );
    outside.wait();
    assert_eq!(handle.cancel().unwrap(), Cancel::AskedToStop);
    assert!(matches!(handle.wait().unwrap(), Finished::Cancelled { .. }));
    assert_eq!(
        handle.cancel().unwrap(),
        Cancel::AlreadyFinished(State::Cancelled)
    );
    let seen: Vec<What> = std::iter::from_fn(|| events.try_recv())
        .map(|e| e.what)
        .collect();
    let note = "half".to_owned();
    let expected = [
        What::Enqueued,
        What::Claimed,
        What::Progress {
            done: 5,
            total: 10,
            note,
        },
        What::Cancelled,
    ];
    assert_eq!(seen, expected);
    assert_eq!(events.missed(), 0);
}

/// A slow subscriber misses events and is told; nobody waits for it. Callbacks come on their own thread.
#[test]
fn a_slow_subscriber_holds_nobody_up() {
    let engine = Engine::in_memory().handle(upper).open().unwrap();
    let slow = engine.subscribe(2);
    let (send, receive) = std::sync::mpsc::channel();
    let subscription = engine
        .on_event(move |event| send.send((event.id, event.what.clone())).unwrap_or(()))
        .unwrap();
    let handle = engine.enqueue(text("a")).unwrap();
    let (one, of_this) = std::sync::mpsc::channel();
    let other = engine.enqueue(text("b")).unwrap();
    let _mine = handle
        .on_change(move |event| one.send(event.id).unwrap_or(()))
        .unwrap();
    handle.wait().unwrap();
    other.wait().unwrap();
    while receive.recv_timeout(MINUTE).unwrap() != (other.id(), What::Completed) {}
    assert_eq!(slow.missed() + 2, 6);
    drop(subscription);
    assert!(of_this.try_iter().all(|id| id == handle.id()));
}

/// Jobs for callers with threads of their own: fenced, given back when dropped, heartbeats keep them.
#[test]
fn own_threads_claim_settle_and_give_back() {
    let engine = Engine::in_memory().open().unwrap();
    assert!(
        engine
            .claim::<Number>("default", Duration::ZERO)
            .unwrap()
            .is_none()
    );
    let handle = engine.enqueue(Number { number: 4 }).unwrap();
    let claim = engine.claim::<Number>("default", MINUTE).unwrap().unwrap();
    let first = claim.number();
    assert!(claim.heartbeat());
    drop(claim);
    let claim = engine.claim::<Number>("default", MINUTE).unwrap().unwrap();
    assert!(claim.number() > first && claim.job().unwrap().number == 4);
    assert_eq!(
        engine.change(handle.id()).complete::<Number>(&99).unwrap(),
        Changed::Done
    );
    assert!(!claim.heartbeat());
    assert!(!claim.complete(&1).unwrap(), "fenced: the job has moved on");
    assert_eq!(handle.wait().unwrap(), Finished::Completed(99));
    let failing = engine.enqueue(Number { number: 5 }).unwrap();
    for _ in 0..3 {
        let claim = engine.claim::<Number>("default", MINUTE).unwrap().unwrap();
        assert!(claim.stop("no").unwrap());
    }
    assert!(matches!(failing.wait().unwrap(), Finished::Dead(_)));
}

/// At most once: a claim by hand that was dropped was the only one.
#[test]
fn a_claim_of_a_job_that_must_not_run_twice_is_its_last() {
    let engine = Engine::in_memory().open().unwrap();
    let once = engine.job(Number { number: 4 }).on_crash(OnCrash::Dead);
    let handle = once.enqueue().unwrap().into_handle();
    drop(engine.claim::<Number>("default", MINUTE).unwrap().unwrap());
    match handle.wait().unwrap() {
        Finished::Dead(ended) => {
            assert_eq!(ended.reason, DeadReason::Crashed);
            assert!(ended.words.contains("must not run twice"), "{ended:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// Rayon pools: the handler's own parallel iterators run in the pool; leaf jobs are rayon tasks. And an
/// executor of the user's.
#[test]
fn every_sort_of_pool_runs_jobs() {
    use rayon::prelude::*;
    let pools = [
        Pool::threads("p", 3),
        Pool::rayon("p", 2),
        Pool::rayon("p", 2).leaf_jobs(),
        Pool::custom("p", 2, |task: Task| {
            rayon::spawn(move || task.run());
        }),
    ];
    for pool in pools {
        let name = format!("{pool:?}");
        let engine = Engine::in_memory()
            .pool(pool)
            .handle(|job: Number, _: &Context| Ok((0..job.number).into_par_iter().sum()))
            .open()
            .unwrap();
        let mut batch = engine.batch();
        batch.extend((0..300).map(|number| Number { number }));
        let ids = batch.enqueue().unwrap();
        assert!(engine.wait_until_idle(MINUTE).unwrap(), "{name}");
        let last = engine.handle::<Number>(ids[299].0).unwrap().unwrap();
        assert_eq!(
            last.wait().unwrap(),
            Finished::Completed(299 * 298 / 2),
            "{name}"
        );
    }
}

/// A task that a custom pool drops goes back unharmed.
#[test]
fn a_dropped_task_goes_back() {
    let dropped = Arc::new(AtomicU32::new(0));
    let drops = dropped.clone();
    let engine = Engine::in_memory()
        .pool(Pool::custom("p", 1, move |task: Task| {
            if drops.fetch_add(1, Ordering::SeqCst) < 3 {
                drop(task);
            } else {
                task.run();
            }
        }))
        .handle(|job: Number, cx: &Context| Ok(u64::from(cx.attempt().number) + job.number))
        .open()
        .unwrap();
    let handle = engine.enqueue(Number { number: 0 }).unwrap();
    assert_eq!(
        handle.wait().unwrap(),
        Finished::Completed(1),
        "no handler saw the first three"
    );
    assert_eq!(dropped.load(Ordering::SeqCst), 4);
}

/// Pause, cap, keys, counters and the next id survive deleting every job, compaction and reopening.
#[test]
fn what_is_not_a_job_survives_the_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let open = || {
        Engine::builder(&store)
            .queue(Queue::new("default").keep_finished(10))
            .handle(upper)
            .open()
            .unwrap()
    };
    let engine = open();
    engine.queue("held").pause().unwrap();
    engine.queue("held").set_concurrency(Some(3)).unwrap();
    engine
        .job(text("a"))
        .key("only-once")
        .enqueue()
        .unwrap()
        .handle()
        .wait()
        .unwrap();
    for _ in 0..40 {
        let mut batch = engine.batch();
        batch.extend((0..500).map(|_| text(&"long enough to fill entries ".repeat(10))));
        batch.enqueue().unwrap();
        assert!(engine.wait_until_idle(MINUTE).unwrap());
    }
    for job in engine.jobs().list().unwrap() {
        assert_eq!(engine.change(job.id).delete().unwrap(), Delete::Deleted);
    }
    let before = engine.stats().unwrap();
    assert!(
        before.journal_bytes < 6 << 20,
        "compacted: {} bytes",
        before.journal_bytes
    );
    engine.shutdown(MINUTE).unwrap();

    let engine = open();
    let after = engine.stats().unwrap();
    assert_eq!(after.counters, before.counters);
    assert_eq!(after.counters.enqueued, 20_001);
    let held = engine.queue("held").stats().unwrap().unwrap();
    assert_eq!((held.paused, held.concurrency), (true, Some(3)));
    let again = engine.job(text("b")).key("only-once").enqueue().unwrap();
    assert!(!again.is_new() && again.handle().id().number() == 1);
    assert_eq!(
        engine.enqueue(text("c")).unwrap().id().number(),
        20_002,
        "ids are never used again"
    );
}

/// Drain finishes what runs and takes nothing new; shutdown gives back what does not obey; a hook sees it all.
#[test]
fn drain_and_shutdown_keep_their_word() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let (inside, release) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let ends = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (i, r, e) = (inside.clone(), release.clone(), ends.clone());
    let engine = Engine::builder(&store)
        .pool(Pool::threads("default", 1))
        .after_job(move |report| e.lock().unwrap().push(report.end.clone()))
        .handle(move |job: Number, cx: &Context| {
            i.wait();
            if job.number == 1 {
                r.wait();
            } else {
                cx.pause(MINUTE)?;
            }
            Ok(job.number)
        })
        .open()
        .unwrap();
    let first = engine.enqueue(Number { number: 1 }).unwrap();
    let second = engine.enqueue(Number { number: 2 }).unwrap();
    inside.wait();
    assert_eq!(
        engine.drain(Duration::ZERO).unwrap(),
        Drained::StillRunning(vec![first.id()])
    );
    assert!(matches!(
        engine.enqueue(Number { number: 3 }),
        Err(jobsled::Error::Draining)
    ));
    release.wait();
    assert_eq!(engine.drain(MINUTE).unwrap(), Drained::Finished);
    assert_eq!(second.state().unwrap(), Some(State::Ready));
    engine.shutdown(Duration::ZERO).unwrap();
    assert_eq!(*ends.lock().unwrap(), [AttemptEnd::Completed]);
    assert!(matches!(engine.stats(), Err(jobsled::Error::Closed)));

    let i = inside.clone();
    let engine = Engine::builder(&store)
        .handle(move |job: Number, cx: &Context| {
            i.wait();
            cx.pause(MINUTE)?;
            Ok(job.number)
        })
        .open()
        .unwrap();
    inside.wait(); // the second one runs
    let report = engine.shutdown(MINUTE).unwrap();
    assert_eq!(report.given_back, 0, "it obeyed within its grace");
    let engine = Engine::builder(&store).open().unwrap();
    let job = engine.jobs().state(State::Ready).list().unwrap();
    assert_eq!((job.len(), job[0].failures, job[0].crashes), (1, 0, 0));
}

/// Counts as hanging after 30 s without a sign of life.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct Stalls;
job!(
    Stalls,
    kind = "stalls",
    output = u32,
    defaults = JobDefaults::new()
        .stall_timeout(Duration::from_secs(30))
        .backoff(Backoff::fixed(Duration::ZERO))
);

/// A job past its stall timeout runs elsewhere; the one that woke up late is refused, counted and visible.
#[test]
fn a_stalled_handler_loses_its_job_and_its_answer_is_refused() {
    let clock = jobsled::ManualClock::at(1_700_000_000_000);
    let (inside, release) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (i, r) = (inside.clone(), release.clone());
    let seen = Arc::new(std::sync::Mutex::new(None));
    let reason = seen.clone();
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .pool(Pool::threads("default", 1))
        .stop_grace(Duration::from_secs(5))
        .handle(move |_: Stalls, cx: &Context| {
            let attempt = cx.attempt().number;
            if attempt == 1 {
                i.wait();
                r.wait();
                *reason.lock().unwrap() = cx.cancelled();
            }
            Ok(attempt)
        })
        .open()
        .unwrap();
    let handle = engine.enqueue(Stalls).unwrap();
    inside.wait();
    clock.advance(Duration::from_secs(30));
    engine.stats().unwrap();
    clock.advance(Duration::from_secs(5));
    assert_eq!(
        handle.wait().unwrap(),
        Finished::Completed(2),
        "on a new thread in the stalled one's place"
    );
    let health = engine.health();
    assert_eq!((health.pools[0].replaced, health.pools[0].lost), (1, 0));
    assert!(health.is_well());
    release.wait();
    while engine.stats().unwrap().late_answers == 0 {}
    assert_eq!(*seen.lock().unwrap(), Some(CancelReason::LeaseLost));
    assert_eq!(handle.wait().unwrap(), Finished::Completed(2));
    assert_eq!(engine.stats().unwrap().counters.completed, 1);
}

/// Old payloads go through `upgrade`; a payload in place is read without a copy; inline runs need no queue.
#[test]
fn payloads_upgrade_are_read_in_place_and_run_inline() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct PersonV1 {
        name: String,
    }
    job!(PersonV1, kind = "person", output = String);
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Person {
        name: String,
        age: Option<u8>,
    }
    job!(Person, kind = "person", version = 2, output = String);

    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = Engine::builder(&store).open().unwrap();
    let old = engine
        .enqueue(PersonV1 { name: "Ada".into() })
        .unwrap()
        .id();
    engine.shutdown(MINUTE).unwrap();
    let engine = Engine::builder(&store)
        .handle_view::<Person>(|person, _| Ok(format!("{} {:?}", person.name, person.age.as_ref())))
        .upgrade(1, |old: PersonV1| Person {
            name: old.name,
            age: None,
        })
        .open()
        .unwrap();
    assert_eq!(
        engine
            .handle::<Person>(old)
            .unwrap()
            .unwrap()
            .wait()
            .unwrap(),
        Finished::Completed("Ada None".into())
    );
    let new = engine
        .enqueue(Person {
            name: "Bob".into(),
            age: Some(7),
        })
        .unwrap();
    assert_eq!(
        new.wait().unwrap(),
        Finished::Completed("Bob Some(7)".into())
    );
    let inline = engine
        .run_inline(&Person {
            name: "Eve".into(),
            age: None,
        })
        .unwrap();
    assert_eq!(inline.unwrap(), "Eve None");
    assert_eq!(Person::VERSION, 2);
}

/// JSON by name and value: for a JSON handler, for a typed one that accepts it, and parked until then.
#[cfg(feature = "json")]
#[test]
fn json_jobs_by_name_and_value() {
    use serde_json::json;
    #[derive(
        rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, serde::Serialize, serde::Deserialize,
    )]
    struct Add {
        a: u32,
        b: u32,
    }
    job!(Add, kind = "add", output = u32);
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = Engine::builder(&store).open().unwrap();
    let parked = engine
        .json("add", &json!({"a": 1, "b": 2}))
        .enqueue()
        .unwrap();
    assert!(engine.jobs().list().unwrap()[0].parked);
    let id = parked.handle().id();
    engine.shutdown(MINUTE).unwrap();
    let engine = Engine::builder(&store)
        .handle(|job: Add, _: &Context| Ok(job.a + job.b))
        .accept_json::<Add>()
        .handle_json("shout", |value, _| {
            Ok(json!(value.as_str().unwrap_or("").to_uppercase()))
        })
        .open()
        .unwrap();
    let sum = engine
        .json("add", &json!({"a": 20, "b": 22}))
        .enqueue()
        .unwrap()
        .into_handle();
    assert_eq!(sum.wait().unwrap(), Finished::Completed(json!(42)));
    let shout = engine
        .json("shout", &json!("hey"))
        .enqueue()
        .unwrap()
        .into_handle();
    assert_eq!(shout.wait().unwrap(), Finished::Completed(json!("HEY")));
    let bad = engine
        .json("add", &json!({"a": "x"}))
        .enqueue()
        .unwrap()
        .into_handle();
    assert!(
        matches!(bad.wait().unwrap(), Finished::Dead(ended) if ended.reason == DeadReason::Discarded)
    );
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    assert_eq!(
        engine.details(id).unwrap().unwrap().info.state,
        State::Completed
    );
    let typed = engine.enqueue(Add { a: 1, b: 1 }).unwrap();
    assert_eq!(typed.wait().unwrap(), Finished::Completed(2));
}

/// Finished jobs are kept as many as asked; tickets tell when a job is durable; `OnCrash` is stored.
#[test]
fn retention_tickets_and_waits() {
    let engine = Engine::in_memory()
        .queue(Queue::new("few").keep_finished(5))
        .handle(upper)
        .open()
        .unwrap();
    let mut ticket = engine
        .job(text("t"))
        .queue("few")
        .on_crash(OnCrash::Dead)
        .enqueue_nowait()
        .unwrap();
    while !ticket.is_durable() {}
    let handle = ticket.wait().unwrap().into_handle();
    handle.wait().unwrap();
    let mut batch = engine.batch();
    for _ in 0..50 {
        let request = engine.job(text("x")).queue("few");
        batch.add_request(request);
    }
    batch.enqueue().unwrap();
    assert!(engine.wait_until_finished(51, MINUTE).unwrap());
    assert!(engine.queue("few").wait_until_idle(MINUTE).unwrap());
    engine.enqueue(text("last")).unwrap().wait().unwrap();
    let stats = engine.stats().unwrap();
    assert_eq!(stats.counters.completed, 52);
    assert_eq!(engine.jobs().queue("few").count().unwrap(), 5);
    assert_eq!(handle.wait().unwrap(), Finished::Deleted, "pruned");
    assert!(!engine.wait_until_finished(1_000, Duration::ZERO).unwrap());
}
