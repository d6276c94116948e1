use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jobsled::{Clock, Drained, Engine, Error, Finished, Now, State, SystemClock};

use super::{
    MINUTE, Note, blob, check_store, echo, held, id_of, note, payload_files, place, same_tree,
    says, tree,
};

/// While an engine drains, every way in is refused with nothing left behind, and what runs ends well.
#[test]
fn enqueue_during_drain() {
    let (_dir, store) = place();
    let (engine, begun, go) = held(Engine::builder(&store), 1);
    let running = engine.enqueue(note("running")).unwrap();
    begun.recv_timeout(MINUTE).unwrap();
    let waiting = engine.enqueue(note("waiting")).unwrap().id();
    assert_eq!(
        engine.drain(Duration::ZERO).unwrap(),
        Drained::StillRunning(vec![running.id()])
    );
    let mut batch = engine.batch();
    batch.add(note("x")).add(blob(50_000));
    let refused = [
        engine.enqueue(note("x")).map(drop),
        engine
            .job(note("x"))
            .enqueue_nowait()
            .and_then(jobsled::Ticket::wait)
            .map(drop),
        engine.enqueue(blob(50_000)).map(drop),
        batch.enqueue().map(drop),
        engine.claim::<Note>("default", Duration::ZERO).map(drop),
    ];
    for answer in refused {
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::Draining), "{error}");
        says(&error, &["draining", "Nothing was stored"]);
    }
    drop(go);
    assert_eq!(engine.drain(MINUTE).unwrap(), Drained::Finished);
    assert_eq!(
        running.wait().unwrap(),
        Finished::Completed("running".to_owned())
    );
    assert_eq!(engine.jobs().count().unwrap(), 2);
    assert_eq!(payload_files(&store), 0, "refused payloads have no files");
    engine.shutdown(MINUTE).unwrap();
    check_store(&store, &[(waiting, "waiting".to_owned())]);
}

/// After `shutdown` every call says that the engine is closed; nothing changes on the disk.
#[test]
fn calls_after_shutdown() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).handle(echo).open().unwrap();
    let handle = engine
        .job(note("later"))
        .after(MINUTE)
        .enqueue()
        .unwrap()
        .into_handle();
    let id = handle.id();
    let events = engine.subscribe(8);
    engine.shutdown(MINUTE).unwrap();
    let before = tree(&store);
    let mut batch = engine.batch();
    batch.add(note("x")).add(blob(50_000));
    let queue = engine.queue("default");
    let answers = [
        ("enqueue", engine.enqueue(note("x")).map(drop)),
        (
            "enqueue_nowait",
            engine
                .job(note("x"))
                .enqueue_nowait()
                .and_then(jobsled::Ticket::wait)
                .map(drop),
        ),
        ("enqueue large", engine.enqueue(blob(50_000)).map(drop)),
        ("batch", batch.enqueue().map(drop)),
        ("claim", engine.claim::<Note>("default", MINUTE).map(drop)),
        ("handle", engine.handle::<Note>(id).map(drop)),
        ("find_key", engine.find_key::<Note>("k").map(drop)),
        ("cancel", engine.change(id).cancel("x").map(drop)),
        ("retry", engine.change(id).retry().map(drop)),
        ("pause", queue.pause()),
        ("stats", engine.stats().map(drop)),
        ("list", engine.jobs().list().map(drop)),
        ("details", engine.details(id).map(drop)),
        ("wait_until_idle", engine.wait_until_idle(MINUTE).map(drop)),
        (
            "wait_until_finished",
            engine.wait_until_finished(1, MINUTE).map(drop),
        ),
        ("drain", engine.drain(MINUTE).map(drop)),
        ("shutdown", engine.shutdown(MINUTE).map(drop)),
        ("wait", handle.wait().map(drop)),
        ("wait_timeout", handle.wait_timeout(MINUTE).map(drop)),
        ("state", handle.state().map(drop)),
    ];
    for (call, answer) in answers {
        let error = answer.map_err(|e| (e.to_string(), e)).expect_err(call).1;
        assert!(matches!(error, Error::Closed), "{call}: {error}");
        says(&error, &["shut down"]);
    }
    assert!(
        events.recv_timeout(MINUTE).is_none(),
        "the stream of news ends"
    );
    same_tree(&store, &before, "calls after shutdown");
    drop((handle, engine));
    let engine = Engine::builder(&store).open().unwrap();
    assert_eq!(
        engine.details(id).unwrap().unwrap().info.state,
        State::Scheduled
    );
}

/// An engine dropped while jobs run gives them back: the next one runs them, and no attempt was used.
#[test]
fn an_engine_dropped_while_jobs_run() {
    let (_dir, store) = place();
    let (engine, begun, go) = held(Engine::builder(&store), 2);
    let jobs: Vec<_> = ["a", "b", "c"]
        .map(|text| (id_of(engine.job(note(text)).attempts(1)), text.to_owned()))
        .into();
    for _ in 0..2 {
        begun.recv_timeout(MINUTE).unwrap();
    }
    drop(engine);
    {
        let engine = Engine::builder(&store).open().unwrap();
        for job in engine.jobs().list().unwrap() {
            assert_eq!(
                (job.state, job.failures, job.crashes),
                (State::Ready, 0, 0),
                "{job:?}"
            );
        }
    }
    check_store(&store, &jobs);
    // Only now do the first handlers return; what they have to say comes too late for anything.
    drop(go);
    let engine = Engine::builder(&store).open().unwrap();
    let counters = engine.stats().unwrap().counters;
    assert_eq!(
        (counters.completed, counters.died),
        (4, 0),
        "three, and the one that checked the ids"
    );
}

/// A clock that makes the writer's thread panic once it is told to.
struct Broken(Arc<AtomicBool>);

impl Clock for Broken {
    fn now(&self) -> Now {
        let on_writer = std::thread::current().name() == Some("jobsled-writer");
        assert!(!on_writer || !self.0.load(Ordering::SeqCst), "on purpose");
        SystemClock.now()
    }
}

/// A panic on the writer's thread once told its callers "closed, nothing was stored", which nobody can know.
#[test]
fn a_writer_that_panics_lets_its_callers_go() {
    let armed = Arc::new(AtomicBool::new(false));
    let engine = Engine::in_memory()
        .clock(Broken(armed.clone()))
        .open()
        .unwrap();
    let kept = engine.enqueue(note("before")).unwrap();
    armed.store(true, Ordering::SeqCst);
    let error = engine.enqueue(note("during")).unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    says(&error, &["the writer panicked", "Restart the process"]);
    let error = kept.wait().unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    assert!(engine.health().poisoned.is_some());
    // By now nobody gets in, and so it is known that nothing was stored. Nobody shut the engine down, though.
    let error = engine.enqueue(note("after")).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    says(&error, &["the writer panicked", "nothing was stored"]);
}
