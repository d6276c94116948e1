use std::time::Duration;

use jobsled::{Engine, Error, Pool, Queue, job, rkyv};

use super::{MINUTE, Note, echo, note, place, says};

/// What is wrong with pools and queues is told by `open`, before anything is made on the disk.
#[test]
fn pools_and_queues_that_make_no_sense() {
    let (_dir, store) = place();
    let with = || Engine::builder(&store).handle(echo);
    let two = |a, b| with().pool(Pool::threads(a, 1)).pool(Pool::rayon(b, 1));
    let queue = |queue| with().queue(queue);
    let cases = [
        (
            with().pool(Pool::threads("default", 0)),
            "slots|0 (pool `default`)|1 to 1,024",
        ),
        (
            with().pool(Pool::rayon("r", 1_025)),
            "slots|1025 (pool `r`)|1 to 1,024",
        ),
        (two("a", "a"), "pool|`a`, given twice|different names"),
        (two("a", ""), "pool name|``|1 to 64"),
        (two("My Pool", "b"), "pool name|`My Pool`|a-z 0-9"),
        (
            queue(Queue::new("mail").pool("no")),
            "queue|`no` (queue `mail`)|add it with `pool`",
        ),
        (queue(Queue::new("Mail")), "queue name|`Mail`|a-z 0-9"),
        (
            queue(Queue::new("mail").concurrency(0)),
            "queue|`mail`|at least 1|use `pause`",
        ),
        (
            queue(Queue::new("mail").weight(0)),
            "queue|`mail`|at least 1",
        ),
        (
            queue(Queue::new("mail")).queue(Queue::new("mail").weight(2)),
            "queue|`mail`, given twice|one call",
        ),
    ];
    for (builder, words) in cases {
        let error = builder.open().unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        says(&error, &words.split('|').collect::<Vec<_>>());
        assert!(!store.exists(), "nothing was made");
    }
}

/// What is wrong with handlers is told by `open` too; a kind that nobody can name is refused by both ends.
#[test]
fn handlers_that_make_no_sense() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Loud;
    job!(Loud, kind = "LOUD", output = ());
    let (_dir, store) = place();
    let with = || Engine::builder(&store).handle(echo);
    let cases = [
        (
            with().handle(echo),
            "handler|twice for kind `note`|one handler",
        ),
        (
            with().handle_view::<Note>(|_, _| Ok(String::new())),
            "handler|`note`|one handler",
        ),
        (with().handle(|_: Loud, _| Ok(())), "kind|`LOUD`|a-z 0-9"),
    ];
    for (builder, words) in cases {
        let error = builder.open().unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        says(&error, &words.split('|').collect::<Vec<_>>());
        assert!(!store.exists(), "nothing was made");
    }
    let engine = with().open().unwrap();
    let error = engine.enqueue(Loud).unwrap_err();
    assert!(
        matches!(error, Error::Invalid { what: "kind", .. }),
        "{error}"
    );
    says(&error, &["kind", "`LOUD`", "a-z 0-9", "Nothing was stored"]);
}

/// Controls of a queue refuse a name that no queue can have, and a cap of zero.
#[test]
fn queue_controls_with_bad_arguments() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let id = engine.enqueue(note("x")).unwrap().id();
    let bad = engine.queue("No Such");
    let answers = [
        ("pause", bad.pause()),
        ("resume", bad.resume()),
        ("set_concurrency", bad.set_concurrency(Some(1))),
        ("move_to", engine.change(id).move_to("No Such").map(drop)),
        (
            "claim",
            engine.claim::<Note>("No Such", Duration::ZERO).map(drop),
        ),
        ("wait_until_idle", bad.wait_until_idle(MINUTE).map(drop)),
    ];
    for (call, answer) in answers {
        let error = answer.map_err(|e| (e.to_string(), e)).expect_err(call).1;
        assert!(
            matches!(
                error,
                Error::Invalid {
                    what: "queue name",
                    ..
                }
            ),
            "{call}: {error}"
        );
        says(&error, &["queue name", "`No Such`", "a-z 0-9"]);
    }
    let error = engine
        .queue("default")
        .set_concurrency(Some(0))
        .unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    says(&error, &["concurrency", "0", "`pause`"]);
    assert_eq!(engine.details(id).unwrap().unwrap().info.queue, "default");
}
