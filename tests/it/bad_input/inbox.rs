use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use jobsled::{Clock, Engine, Error, Now, SystemClock, WhenFull};

use super::{Flag, MINUTE, blob, note, payload_files, place, says};

/// The machine's clock, which the writer can be made to wait for: so the inbox stays as full as it is.
#[derive(Clone, Default)]
struct HeldClock(Arc<(Mutex<bool>, Condvar)>);

impl HeldClock {
    fn hold(&self) {
        *self.0.0.lock().unwrap() = true;
    }

    fn let_go(&self) {
        *self.0.0.lock().unwrap() = false;
        self.0.1.notify_all();
    }
}

impl Clock for HeldClock {
    fn now(&self) -> Now {
        if std::thread::current().name() == Some("jobsled-writer") {
            let held = self.0.0.lock().unwrap();
            drop(self.0.1.wait_while(held, |held| *held).unwrap());
        }
        SystemClock.now()
    }
}

/// A batch with too many jobs is refused whole, and the message counts jobs as jobs.
#[test]
fn a_batch_beyond_its_bounds() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let mut batch = engine.batch();
    batch.extend((0..100_001).map(|_| Flag { up: true }));
    let error = batch.enqueue().unwrap_err();
    says(&error, &["batch", "100001", "100000", "several batches"]);
    assert!(
        !error.to_string().contains("100001 bytes"),
        "jobs are no bytes: {error}"
    );
    assert_eq!(engine.jobs().count().unwrap(), 0);
}

/// A batch that is refused, or never enqueued, takes the files of its large payloads with it.
#[test]
fn a_batch_that_comes_to_nothing_leaves_no_files() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let mut batch = engine.batch();
    batch
        .add(blob(50_000))
        .add_request(engine.job(note("x")).attempts(0));
    let error = batch.enqueue().unwrap_err();
    assert!(matches!(&error, Error::InBatch { index: 1, .. }), "{error}");
    says(
        &error,
        &["job 1", "attempts", "at least one", "none was stored"],
    );
    let of_refused = payload_files(&store);
    let mut batch = engine.batch();
    batch.add(blob(50_000));
    drop(batch);
    let of_dropped = payload_files(&store) - of_refused;
    assert_eq!(
        (of_refused, of_dropped),
        (0, 0),
        "files that no job names (refused, dropped)"
    );
}

/// A full inbox tells callers that do not wait; what it took is stored, what it refused leaves nothing behind.
#[test]
fn a_full_inbox_refuses_and_loses_nothing() {
    let (_dir, store) = place();
    let clock = HeldClock::default();
    let engine = Engine::builder(&store)
        .clock(clock.clone())
        .inbox(1, 1 << 20)
        .when_full(WhenFull::Refuse)
        .open()
        .unwrap();
    clock.hold();
    let ticket = engine.job(note("taken")).enqueue_nowait().unwrap();
    let mut batch = engine.batch();
    batch.add(note("batch"));
    let refused = [
        engine.job(note("refused")).enqueue_nowait().unwrap_err(),
        engine.enqueue(note("refused")).unwrap_err(),
        batch.enqueue().unwrap_err(),
        engine.job(blob(50_000)).enqueue_nowait().unwrap_err(),
    ];
    clock.let_go();
    for error in refused {
        assert!(
            matches!(
                error,
                Error::Full {
                    waiting: 1,
                    limit: 1,
                    ..
                }
            ),
            "{error}"
        );
        says(&error, &["waiting", "limit is 1", "try again", "waits"]);
    }
    assert!(ticket.wait().unwrap().is_new());
    assert_eq!(engine.jobs().count().unwrap(), 1);
    let files = payload_files(&store);
    engine.shutdown(MINUTE).unwrap();
    let engine = Engine::builder(&store).open().unwrap();
    assert_eq!(engine.jobs().count().unwrap(), 1);
    assert_eq!(files, 0, "the file of a refused payload was left");
}

/// Producers that race for one place are each told the truth: stored or full, nothing between.
#[test]
fn producers_race_for_a_small_inbox() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store)
        .inbox(1, 1 << 20)
        .when_full(WhenFull::Refuse)
        .open()
        .unwrap();
    let stored = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..100 {
                    let answer = match n % 2 {
                        0 => engine
                            .job(note("n"))
                            .enqueue_nowait()
                            .and_then(jobsled::Ticket::wait),
                        _ => engine.job(note("n")).enqueue(),
                    };
                    match answer {
                        Ok(_) => drop(stored.fetch_add(1, Ordering::Relaxed)),
                        Err(Error::Full { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let stored = u64::from(stored.into_inner());
    assert!(stored >= 1);
    assert_eq!(engine.jobs().count().unwrap(), stored);
    engine.shutdown(MINUTE).unwrap();
    let engine = Engine::builder(&store).open().unwrap();
    assert_eq!(engine.jobs().count().unwrap(), stored);
}

/// When bytes and not jobs fill the inbox, the message talks of bytes.
#[test]
fn an_inbox_full_of_bytes_says_so() {
    let (_dir, store) = place();
    let clock = HeldClock::default();
    let engine = Engine::builder(&store)
        .clock(clock.clone())
        .inbox(100, 1_000)
        .open()
        .unwrap();
    clock.hold();
    let ticket = engine.job(blob(900)).enqueue_nowait().unwrap();
    let error = engine.job(blob(900)).enqueue_nowait().unwrap_err();
    clock.let_go();
    ticket.wait().unwrap();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    says(&error, &["bytes", "1000"]);
}
