use std::fs;

use jobsled::{Changed, Context, DeadReason, Engine, Error, Finished, State};
#[cfg(feature = "json")]
use jobsled::{JobResult, job, rkyv};

use super::{
    Flag, MINUTE, Note, NoteNow, Shape, Stored, check_store, claim, dead, echo, id_of, measure,
    note, payload_files, place, says,
};

/// A job of an unknown kind waits, parked and counted, until a program that has the handler opens the store.
#[test]
fn an_unknown_kind_is_parked() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).handle(measure).open().unwrap();
    let id = engine.enqueue(note("parked")).unwrap().id();
    assert!(
        engine.wait_until_idle(MINUTE).unwrap(),
        "parked jobs are not waited for"
    );
    let info = engine.details(id).unwrap().unwrap().info;
    assert!(info.parked && info.state == State::Ready && info.attempt == 0);
    assert_eq!(engine.health().parked, 1);
    let error = engine.run_inline(&note("x")).unwrap_err();
    assert!(matches!(&error, Error::NoHandler { kind } if kind == "note"));
    says(&error, &["`note`", "register", "handle", "open"]);
    engine.shutdown(MINUTE).unwrap();
    check_store(&store, &[(id, "parked".to_owned())]);
}

/// Bytes that are not what the handler takes kill the job at once with the reason; the right program runs it later.
#[test]
fn a_payload_that_does_not_decode() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let id = engine.enqueue(Flag { up: true }).unwrap().id();
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store)
        .handle(|job: Shape, _| Ok(job.name))
        .open()
        .unwrap();
    let ended = dead::<Shape>(&engine, id, &["payload", "not a valid rkyv archive"]);
    assert_eq!(ended, DeadReason::Discarded);
    assert_eq!(
        engine.details(id).unwrap().unwrap().payload_bytes,
        Some(1),
        "the payload is kept"
    );
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store)
        .handle(|job: Flag, _| Ok(job.up.to_string()))
        .open()
        .unwrap();
    assert_eq!(engine.change(id).retry().unwrap(), Changed::Done);
    let handle = engine.handle::<Flag>(id).unwrap().unwrap();
    assert_eq!(
        handle.wait().unwrap(),
        Finished::Completed("true".to_owned())
    );
}

/// A payload of another version without an upgrade, newer or older, kills the job with words that say what to register.
#[test]
fn a_payload_of_another_version() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let newer = engine
        .enqueue(NoteNow {
            text: "new".to_owned(),
            pages: 1,
        })
        .unwrap()
        .id();
    let older = engine.enqueue(note("old")).unwrap().id();
    let claim = claim::<Note>(&engine);
    let error = claim.job().map(drop).unwrap_err();
    assert!(
        matches!(&error, Error::Payload { what: "payload", kind, .. } if kind == "note"),
        "{error}"
    );
    says(&error, &["payload", "`note`", "version 2", "1"]);
    drop(claim);
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store).handle(echo).open().unwrap();
    assert_eq!(
        dead::<Note>(&engine, newer, &["version 2", "version 1", "upgrade"]),
        DeadReason::Discarded
    );
    engine.shutdown(MINUTE).unwrap();

    let now = |job: NoteNow, _: &Context| Ok(format!("{} {}", job.text, job.pages));
    let upgrade = |old: Note| NoteNow {
        text: old.text,
        pages: 7,
    };
    let engine = Engine::builder(&store)
        .handle(now)
        .upgrade(1, upgrade)
        .open()
        .unwrap();
    engine.change(newer).retry().unwrap();
    let wait = |id| {
        engine
            .handle::<NoteNow>(id)
            .unwrap()
            .unwrap()
            .wait()
            .unwrap()
    };
    assert_eq!(wait(newer), Finished::Completed("new 1".to_owned()));
    // The older one completed when version 1 had its handler.
    assert_eq!(wait(older), Finished::Completed("old".to_owned()));
    engine.shutdown(MINUTE).unwrap();
}

/// A damaged or missing payload file costs its own job, which names the file; put back, the job completes.
#[test]
fn a_damaged_payload_file_costs_one_job() {
    let stored = Stored::new();
    let file = fs::read_dir(stored.store.join("payloads"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let (large, text) = stored.jobs.last().unwrap().clone();
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[30_000] ^= 1;
    let name = file.file_name().unwrap().to_str().unwrap();
    for (damage, word) in [
        (Some(flipped), "hash"),
        (Some(whole[1..].to_vec()), "instead of"),
        (None, "missing"),
    ] {
        match damage {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let engine = Engine::builder(&stored.store).handle(echo).open().unwrap();
        engine.change(large).retry().unwrap();
        assert_eq!(
            dead::<Note>(&engine, large, &["payload", name, word]),
            DeadReason::Discarded
        );
        let small = engine.handle::<Note>(stored.jobs[0].0).unwrap().unwrap();
        assert_eq!(
            small.wait().unwrap(),
            Finished::Completed("one".to_owned()),
            "the others run"
        );
        engine.shutdown(MINUTE).unwrap();
    }
    fs::write(&file, whole).unwrap();
    let engine = Engine::builder(&stored.store).handle(echo).open().unwrap();
    engine.change(large).retry().unwrap();
    let handle = engine.handle::<Note>(large).unwrap().unwrap();
    assert_eq!(handle.wait().unwrap(), Finished::Completed(text));
}

/// JSON for a handler that takes rkyv is refused with the call that would accept it; with that call it runs.
#[cfg(feature = "json")]
#[test]
fn json_for_an_rkyv_handler() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, serde::Deserialize)]
    struct Sum {
        numbers: Vec<u32>,
    }
    job!(Sum, kind = "sum", output = u32);
    fn sum(job: Sum, _cx: &Context) -> JobResult<u32> {
        Ok(job.numbers.iter().sum())
    }
    let (_dir, store) = place();
    let engine = Engine::builder(&store).handle(sum).open().unwrap();
    let value: serde_json::Value = serde_json::from_str(r#"{"numbers":[1000,200,34]}"#).unwrap();
    let id = engine.json("sum", &value).enqueue().unwrap().handle().id();
    assert_eq!(
        dead::<Sum>(&engine, id, &["JSON", "rkyv", "accept_json"]),
        DeadReason::Discarded
    );
    let misfit = engine
        .json("sum", &serde_json::Value::Null)
        .enqueue()
        .unwrap()
        .handle()
        .id();
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store)
        .handle(sum)
        .accept_json::<Sum>()
        .open()
        .unwrap();
    engine.change(misfit).retry().unwrap();
    assert_eq!(
        dead::<Sum>(&engine, misfit, &["JSON payload does not fit"]),
        DeadReason::Discarded
    );
    engine.change(id).retry().unwrap();
    let again = engine.json("sum", &value).enqueue().unwrap();
    assert_eq!(
        again.handle().wait().unwrap(),
        Finished::Completed(serde_json::Value::from(1_234))
    );
    assert!(engine.wait_until_idle(MINUTE).unwrap());

    // Its output is the JSON text `1234`: four bytes that are also a valid archive of another number.
    let typed = engine.handle::<Sum>(id).unwrap().unwrap().wait();
    assert!(
        matches!(
            typed,
            Ok(Finished::Completed(1_234)) | Err(Error::Payload { what: "output", .. })
        ),
        "JSON was taken for rkyv: {typed:?}"
    );
}

/// A claim by hand does not take JSON bytes for an archive either, even when they happen to be one.
#[cfg(feature = "json")]
#[test]
fn json_claimed_as_rkyv() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Count {
        count: u32,
    }
    job!(Count, kind = "count");
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    engine
        .json("count", &serde_json::Value::from(1_234))
        .enqueue()
        .unwrap();
    let claim = claim::<Count>(&engine);
    match claim.job() {
        Ok(job) => panic!(
            "the JSON text 1234 was taken for the archived number {}",
            job.count
        ),
        Err(error) => {
            assert!(
                matches!(
                    &error,
                    Error::Payload {
                        what: "payload",
                        ..
                    }
                ),
                "{error}"
            );
            says(&error, &["payload", "`count`", "JSON"]);
        }
    }
}

/// An output beyond the limit fails the attempt, or the call that brings it, and leaves no file.
#[test]
fn outputs_beyond_the_limit() {
    let (_dir, store) = place();
    let grow = |job: Note, _: &Context| Ok(job.text.repeat(50_000));
    let engine = Engine::builder(&store)
        .payload_max(100_000)
        .handle(grow)
        .open()
        .unwrap();
    let id = id_of(engine.job(note("abc")).attempts(1));
    assert_eq!(
        dead::<Note>(&engine, id, &["output", "150008", "100000"]),
        DeadReason::AttemptsUsedUp
    );
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store).payload_max(100_000).open().unwrap();
    engine.change(id).retry().unwrap();
    let error = engine
        .change(id)
        .complete::<Note>(&"x".repeat(5_000))
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                what: "output",
                limit: 4_096,
                ..
            }
        ),
        "{error}"
    );
    says(&error, &["output", "4096", "small"]);
    let claim = claim::<Note>(&engine);
    let answer = claim.complete(&"x".repeat(150_000));
    assert!(
        matches!(
            answer,
            Err(Error::TooLarge {
                what: "output",
                limit: 100_000,
                ..
            })
        ),
        "{answer:?}"
    );
    assert_eq!(
        engine.details(id).unwrap().unwrap().info.state,
        State::Ready,
        "the job went back"
    );
    assert_eq!(payload_files(&store), 0);
}
