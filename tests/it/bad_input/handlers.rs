use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use jobsled::{
    AttemptEnd, Changed, Context, DeadReason, Engine, Error, Finished, JobResult, Pool, State,
};

use super::{Blob, MINUTE, Note, blob, dead, echo, id_of, note, place, says};

/// Panics when it is dropped.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any(self.0);
        }
    }
}

/// A handler's panic, with whatever value and from whatever `Drop`, is one failed attempt; its slot goes on.
#[test]
fn handlers_that_panic() {
    fn trouble(job: Note, _cx: &Context) -> JobResult<String> {
        let local = Bomb("from a drop");
        match job.text.as_str() {
            "text" => panic!("plain text"),
            "format" => panic!("formatted {}", job.text),
            "number" => std::panic::panic_any(7_u32),
            "bomb" => std::panic::panic_any(Bomb("from the panic's own value")),
            "drop" => drop(local),
            _ => std::mem::forget(local),
        }
        Ok(job.text)
    }
    let pools = [
        Pool::threads("p", 1),
        Pool::rayon("p", 1),
        Pool::rayon("p", 1).leaf_jobs(),
        Pool::custom("p", 1, jobsled::Task::run),
    ];
    for pool in pools {
        let (_dir, store) = place();
        let engine = Engine::builder(&store)
            .pool(pool)
            .handle(trouble)
            .after_job(|report| {
                assert!(
                    matches!(report.end, AttemptEnd::Completed),
                    "the hook panics too"
                );
            })
            .open()
            .unwrap();
        let mut jobs = Vec::new();
        for (mode, words) in [
            ("text", "panicked: plain text"),
            ("format", "panicked: formatted format"),
            ("number", "panicked: with a value that is no text"),
            ("bomb", "panicked: with a value that is no text"),
            ("drop", "panicked: from a drop"),
        ] {
            jobs.push((id_of(engine.job(note(mode)).attempts(1)), words));
        }
        for (id, words) in jobs {
            assert_eq!(
                dead::<Note>(&engine, id, &[words]),
                DeadReason::AttemptsUsedUp
            );
        }
        let inline = engine.run_inline(&note("text")).unwrap().unwrap_err();
        assert!(inline.to_string().contains("plain text"), "{inline}");
        let well = engine.enqueue(note("fine")).unwrap();
        assert_eq!(well.wait().unwrap(), Finished::Completed("fine".to_owned()));
        assert!(engine.health().is_well());
        engine.shutdown(MINUTE).unwrap();
    }
}

/// A handler that owns something whose `Drop` panics: wherever the engine lets go of it, the store is closed well.
#[test]
fn a_handler_whose_captured_value_panics_in_drop() {
    let (_dir, store) = place();
    let bomb = Bomb("captured");
    let handler = move |job: Note, _: &Context| {
        let _held = &bomb;
        Ok(job.text)
    };
    let engine = Engine::builder(&store).handle(handler).open().unwrap();
    let done = engine.enqueue(note("done")).unwrap().id();
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    let waiting = id_of(engine.job(note("later")).after(MINUTE));
    // It may go off here or on a thread of the pool.
    drop(catch_unwind(AssertUnwindSafe(move || drop(engine))));
    let engine = Engine::builder(&store).handle(echo).open().unwrap();
    assert_eq!(
        engine.details(done).unwrap().unwrap().info.state,
        State::Completed
    );
    assert_eq!(engine.change(waiting).retry().unwrap(), Changed::Done);
    let handle = engine.handle::<Note>(waiting).unwrap().unwrap();
    assert_eq!(
        handle.wait().unwrap(),
        Finished::Completed("later".to_owned())
    );
}

/// Waiting for another job inside a handler is refused in every pool, with the job, the pool and ways out.
#[test]
fn waiting_inside_a_handler() {
    for pool in [Pool::threads("p", 1), Pool::rayon("p", 1)] {
        let (_dir, store) = place();
        let (tell, told) = mpsc::channel();
        let wait = move |job: Blob, cx: &Context| {
            let other = cx.engine().enqueue(note("other"))?;
            tell.send((other.id(), other.wait().unwrap_err()))?;
            // Looking for a moment is allowed.
            assert_eq!(other.wait_timeout(Duration::ZERO)?, None);
            Ok(job.bytes.len() as u64)
        };
        let engine = Engine::builder(&store)
            .pool(pool)
            .handle(wait)
            .handle(echo)
            .open()
            .unwrap();
        let outer = engine.enqueue(blob(3)).unwrap();
        assert_eq!(outer.wait().unwrap(), Finished::Completed(3));
        let (other, error) = told.recv().unwrap();
        assert!(
            matches!(&error, Error::WaitInHandler { job, pool } if *job == other.number() && pool == "p")
        );
        says(
            &error,
            &[
                &format!("job {other}"),
                "pool `p`",
                "follow-up job",
                "wait_timeout",
            ],
        );
        let other = engine.handle::<Note>(other).unwrap().unwrap();
        assert_eq!(
            other.wait().unwrap(),
            Finished::Completed("other".to_owned()),
            "it ran all the same"
        );
    }
}
