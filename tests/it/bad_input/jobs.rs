use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jobsled::{Changed, Delete, Engine, Error, Finished, JobId, ManualClock, State};

use super::processes::Other;
use super::{
    BLOB_EXTRA, Blob, INLINE_MAX, MINUTE, blob, id_of, measure, note, payload_files, payload_of,
    place, same_tree, says, tree,
};

/// A payload of 24 KiB rides in the journal, one byte more has a file; both come back whole.
#[test]
fn payloads_around_the_inline_limit() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    for (bytes, files) in [(INLINE_MAX - 1, 0), (INLINE_MAX, 0), (INLINE_MAX + 1, 1)] {
        let id = engine.enqueue(payload_of(bytes)).unwrap().id();
        assert_eq!(
            engine.details(id).unwrap().unwrap().payload_bytes,
            Some(bytes as u64)
        );
        assert_eq!(payload_files(&store), files, "{bytes} bytes");
    }
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store).handle(measure).open().unwrap();
    for (number, bytes) in [(1, INLINE_MAX - 1), (2, INLINE_MAX), (3, INLINE_MAX + 1)] {
        let handle = engine
            .handle::<Blob>(JobId::from_number(number))
            .unwrap()
            .unwrap();
        assert_eq!(
            handle.wait().unwrap(),
            Finished::Completed((bytes - BLOB_EXTRA) as u64)
        );
    }
    assert_eq!(payload_files(&store), 0);
}

/// The largest payload allowed is stored; one byte more is refused with size, limit and a way out, from every call.
#[test]
fn payloads_around_the_largest_size() {
    const MAX: usize = 100_000;
    let (_dir, store) = place();
    let engine = Engine::builder(&store)
        .payload_max(MAX as u64)
        .open()
        .unwrap();
    let largest = engine.enqueue(payload_of(MAX)).unwrap().id();
    let before = tree(&store);
    let refused = [
        engine.enqueue(payload_of(MAX + 1)).unwrap_err(),
        engine
            .job(payload_of(MAX + 1))
            .enqueue_nowait()
            .unwrap_err(),
    ];
    for error in refused {
        let expected = (MAX as u64 + 1, MAX as u64);
        assert!(
            matches!(error, Error::TooLarge { what: "payload", size, limit, .. } if (size, limit) == expected)
        );
        says(
            &error,
            &[
                "payload",
                "100001",
                "100000",
                "payload_max",
                "Nothing was stored",
            ],
        );
    }
    let mut batch = engine.batch();
    batch
        .add(note("fine"))
        .add(payload_of(MAX + 1))
        .add(note("fine too"));
    let error = batch.enqueue().unwrap_err();
    assert!(
        matches!(&error, Error::InBatch { index: 1, source } if matches!(**source, Error::TooLarge { .. }))
    );
    says(
        &error,
        &[
            "job 1",
            "none was stored",
            "payload",
            "100001",
            "payload_max",
        ],
    );
    same_tree(&store, &before, "refused payloads");
    assert_eq!(engine.jobs().count().unwrap(), 1);
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store).open().unwrap();
    assert_eq!(
        engine.details(largest).unwrap().unwrap().payload_bytes,
        Some(MAX as u64)
    );
    assert_eq!(
        engine.enqueue(note("next")).unwrap().id().number(),
        largest.number() + 1,
        "no id was spent"
    );
}

/// A payload of 1 GiB is refused, the engine goes on, and it was not copied more than once on the way.
#[test]
fn a_gigabyte_is_refused() {
    let (_dir, store) = place();
    let mut child = Other::start("a_gigabyte", &store);
    let most = child.line().parse::<u64>().unwrap();
    child.end();
    assert!(
        most < 1_600,
        "{most} MiB of memory to refuse a payload of 1024"
    );
    assert_eq!(payload_files(&store), 0);
    let engine = Engine::builder(&store).open().unwrap();
    assert_eq!(engine.jobs().count().unwrap(), 1);
}

pub(super) fn a_gigabyte(store: &Path) -> String {
    let engine = Engine::builder(store).open().unwrap();
    let error = engine
        .enqueue(Blob {
            bytes: vec![0; 1 << 30],
        })
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                what: "payload",
                limit: 0x400_0000,
                ..
            }
        ),
        "{error}"
    );
    says(&error, &["payload", "67108864", "payload_max"]);
    engine.enqueue(note("goes on")).unwrap();
    engine.shutdown(MINUTE).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    (kib >> 10).to_string()
}

/// A taken key is an answer that names the job, alone and within a batch, with a large payload and after a restart.
#[test]
fn a_duplicate_key_is_an_answer() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let first = engine.job(note("a")).key("k").enqueue().unwrap();
    assert!(first.is_new());
    let id = first.handle().id();
    let again = engine.job(note("b")).key("k").enqueue().unwrap();
    assert!(!again.is_new() && again.handle().id() == id);
    // The same key of another kind is another key.
    assert!(engine.job(blob(1)).key("k").enqueue().unwrap().is_new());

    let large = "x".repeat(50_000);
    let mut batch = engine.batch();
    batch.add_request(engine.job(note(&large)).key("k"));
    batch.add_request(engine.job(note(&large)).key("twice"));
    batch.add_request(engine.job(note(&large)).key("twice"));
    batch.add(note("plain"));
    let placed = batch.enqueue().unwrap();
    assert_eq!(
        placed.iter().map(|(_, new)| *new).collect::<Vec<_>>(),
        [false, true, false, true]
    );
    assert!(placed[0].0 == id && placed[1].0 == placed[2].0);
    // Answers go out before the files of refused payloads do; one more group and those are gone.
    engine.stats().unwrap();
    assert_eq!(payload_files(&store), 1, "only the one that was stored");
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store).open().unwrap();
    assert!(!engine.job(note("c")).key("k").enqueue().unwrap().is_new());
    assert_eq!(engine.jobs().count().unwrap(), 4);
}

/// A deleted job holds its key for the key's time to live, and the answer says whose it was; once a clock that is
/// trusted says that it is over, the key is free.
#[test]
fn a_key_outlives_its_job_for_its_time() {
    let (_dir, store) = place();
    let clock = ManualClock::at(1_700_000_000_000);
    let open = || {
        Engine::builder(&store)
            .clock(clock.clone())
            .key_ttl(MINUTE)
            .open()
            .unwrap()
    };
    let engine = open();
    let id = id_of(engine.job(note("a")).key("k"));
    assert_eq!(engine.change(id).delete().unwrap(), Delete::Deleted);
    engine.shutdown(MINUTE).unwrap();
    for _ in 0..2 {
        let engine = open();
        let again = engine.job(note("b")).key("k").enqueue().unwrap();
        assert!(!again.is_new() && again.handle().id() == id);
        assert_eq!(again.handle().wait().unwrap(), Finished::Deleted);
        assert_eq!(again.handle().state().unwrap(), None);
        engine.shutdown(MINUTE).unwrap();
    }
    clock.advance(2 * MINUTE);
    let engine = open();
    let early = engine.job(note("c")).key("k").enqueue().unwrap();
    assert!(!early.is_new(), "the clock is not trusted yet");
    clock.advance(MINUTE);
    let later = engine.job(note("c")).key("k").enqueue().unwrap();
    assert!(later.is_new() && later.handle().id() > id);
}

/// Options out of range are refused one by one with the rule that they break; nothing is stored, no id is spent.
#[test]
fn options_out_of_range() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let before = tree(&store);
    let large = "x".repeat(50_000);
    let soon = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let job = || engine.job(note(&large));
    let refused = [
        (job().key("").enqueue(), "key|0 bytes|1 to 256"),
        (
            job().key("k".repeat(257)).enqueue(),
            "key|257 bytes|1 to 256",
        ),
        (job().queue("").enqueue(), "queue name|``|1 to 64"),
        (job().queue("Mail").enqueue(), "queue name|`Mail`|a-z 0-9"),
        (
            job().queue("a/../b").enqueue(),
            "queue name|`a/../b`|a-z 0-9",
        ),
        (
            job().queue("q".repeat(65)).enqueue(),
            "queue name|`qqqqq|1 to 64",
        ),
        (job().attempts(0).enqueue(), "attempts|0|at least one"),
        (
            job().at(soon).expires_at(soon - MINUTE).enqueue(),
            "expiry|60000 ms before|able to start",
        ),
        (
            job().at(soon).expires_at(soon).enqueue(),
            "expiry|0 ms|able to start",
        ),
        (
            job().after(2 * MINUTE).expires_after(MINUTE).enqueue(),
            "expiry|60000 ms|able to start",
        ),
    ];
    for (answer, words) in refused {
        let error = answer.unwrap_err();
        let words: Vec<_> = words.split('|').chain(["Nothing was stored"]).collect();
        assert!(
            matches!(&error, Error::Invalid { what, .. } if *what == words[0]),
            "{error}"
        );
        says(&error, &words);
    }
    same_tree(&store, &before, "refused options");
    // Both ends of the rules.
    engine
        .job(note("x"))
        .key("k")
        .queue("q".repeat(64))
        .attempts(1)
        .enqueue()
        .unwrap();
    let id = id_of(engine.job(note("x")).key("k".repeat(256)));
    assert_eq!(id.number(), 2, "no id was spent");
}

/// Times at the ends of what a clock can say are refused or stored; they do not overflow.
#[test]
fn times_at_the_ends_of_the_clock() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let before_1970 = UNIX_EPOCH - Duration::from_secs(1_000_000_000);
    let far = UNIX_EPOCH + Duration::from_secs(u64::MAX >> 2);
    let refused = [
        engine
            .job(note("a"))
            .after(Duration::MAX)
            .expires_at(before_1970)
            .enqueue(),
        engine
            .job(note("b"))
            .at(far)
            .expires_at(before_1970)
            .enqueue(),
        engine
            .job(note("c"))
            .after(Duration::MAX)
            .expires_after(Duration::MAX)
            .enqueue(),
    ];
    for answer in refused {
        let error = answer.unwrap_err();
        assert!(
            matches!(error, Error::Invalid { what: "expiry", .. }),
            "{error}"
        );
    }
    let id = id_of(engine.job(note("d")).after(Duration::MAX));
    engine.job(note("e")).at(before_1970).enqueue().unwrap();
    assert_eq!(engine.change(id).reschedule(far).unwrap(), Changed::Done);
    assert_eq!(
        engine.change(id).reschedule_after(Duration::MAX).unwrap(),
        Changed::Done
    );
    engine.shutdown(MINUTE).unwrap();
    let engine = Engine::builder(&store).open().unwrap();
    let states: Vec<_> = engine
        .jobs()
        .list()
        .unwrap()
        .iter()
        .map(|job| job.state)
        .collect();
    assert_eq!(states, [State::Scheduled, State::Ready]);
}

/// Metadata is bounded as a whole: few long pairs and many empty ones alike.
#[test]
fn metadata_too_large() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let many = (0..10_000).fold(engine.job(note("x")), |job, _| job.metadata("", ""));
    for request in [
        engine.job(note("x")).metadata("name", "v".repeat(2_100)),
        many,
    ] {
        let error = request.enqueue().unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooLarge {
                    what: "metadata",
                    limit: 2_048,
                    ..
                }
            ),
            "{error}"
        );
        says(
            &error,
            &["metadata", "2048", "payload", "Nothing was stored"],
        );
    }
    let id = id_of(engine.job(note("x")).metadata("name", "v".repeat(2_000)));
    assert_eq!(
        engine.details(id).unwrap().unwrap().metadata[0].1.len(),
        2_000
    );
    assert_eq!(engine.jobs().count().unwrap(), 1);
}
