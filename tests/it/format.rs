use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jobsled::{
    Backoff, Context, Engine, JobDefaults, JobId, ManualClock, Priority, Stop, job, rkyv,
};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Golden {
    what: String,
}
job!(
    Golden,
    kind = "golden",
    output = String,
    defaults = JobDefaults::new()
        .attempts(2)
        .backoff(Backoff::fixed(Duration::from_hours(1)))
);

const MINUTE: Duration = Duration::from_mins(1);
const NOW_MS: i64 = 1_800_000_000_000;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// A store written by the first version is read as it was meant, for ever. Opening checks the hash chain and
/// the digest of the whole state; the listing checks the meaning.
///
/// `JOBSLED_WRITE_FIXTURE=1` writes the store anew; never do that to one that was released.
#[test]
fn the_golden_store_still_means_the_same() {
    if std::env::var_os("JOBSLED_WRITE_FIXTURE").is_some() {
        write_fixture();
    }
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    copy(&fixture().join("store"), &store);
    let engine = Engine::builder(&store)
        .clock(ManualClock::at(NOW_MS))
        .open()
        .unwrap();
    let expected = std::fs::read_to_string(fixture().join("expected.txt")).unwrap();
    assert_eq!(describe(&engine), expected);
    let again = engine
        .job(Golden { what: "x".into() })
        .key("held")
        .enqueue()
        .unwrap();
    assert!(!again.is_new(), "a deleted job's key is still taken");
}

fn describe(engine: &Engine) -> String {
    let mut text = String::new();
    for info in engine.jobs().list().unwrap() {
        writeln!(text, "{:?}", engine.details(info.id).unwrap().unwrap()).unwrap();
    }
    let stats = engine.stats().unwrap();
    writeln!(text, "{:?}\n{:?}", stats.counters, stats.held_keys).unwrap();
    for queue in stats.queues {
        writeln!(
            text,
            "{} paused {} cap {:?}",
            queue.name, queue.paused, queue.concurrency
        )
        .unwrap();
    }
    text
}

/// One job in every state, with every sort of record.
fn write_fixture() {
    let temp = tempfile::tempdir().unwrap();
    let store = temp.path().join("store");
    let clock = ManualClock::at(NOW_MS);
    let engine = Engine::builder(&store)
        .clock(clock.clone())
        .handle(|job: Golden, cx: &Context| match job.what.as_str() {
            "fails" => Err(format!("attempt {}", cx.attempt().number).into()),
            "hopeless" => Err(Stop::discard("as its name says")),
            _ => Ok(job.what.to_uppercase()),
        })
        .open()
        .unwrap();
    one_in_every_state(&engine);
    engine.shutdown(MINUTE).unwrap();

    let engine = Engine::builder(&store).clock(clock).open().unwrap();
    let expected = describe(&engine);
    engine.shutdown(MINUTE).unwrap();
    // These belong to a process or a machine, not to the store.
    for file in ["lock", "ballast", "recorder"] {
        std::fs::remove_file(store.join(file)).unwrap();
    }
    let _ = std::fs::remove_dir_all(fixture());
    copy(&store, &fixture().join("store"));
    std::fs::write(fixture().join("expected.txt"), expected).unwrap();
}

fn one_in_every_state(engine: &Engine) {
    let golden = |what: &str| Golden { what: what.into() };
    engine.queue("paused").pause().unwrap();
    engine.queue("paused").set_concurrency(Some(7)).unwrap();
    let wait = |id: JobId| {
        engine
            .handle::<Golden>(id)
            .unwrap()
            .unwrap()
            .wait_timeout(MINUTE)
            .unwrap()
    };
    let done = engine.job(golden("done")).metadata("colour", "gelb");
    wait(done.key("k").enqueue().unwrap().handle().id());
    wait(engine.enqueue(golden("hopeless")).unwrap().id());
    let large = golden(&"large".repeat(10_000));
    wait(engine.enqueue(large).unwrap().id());
    let failing = engine.enqueue(golden("fails")).unwrap();
    while engine
        .details(failing.id())
        .unwrap()
        .unwrap()
        .errors
        .is_empty()
    {}
    let cancelled = engine
        .job(golden("cancelled"))
        .queue("paused")
        .enqueue()
        .unwrap()
        .into_handle();
    engine.change(cancelled.id()).cancel("not wanted").unwrap();
    let deleted = engine
        .job(golden("deleted"))
        .key("held")
        .queue("paused")
        .enqueue()
        .unwrap()
        .into_handle();
    engine.change(deleted.id()).delete().unwrap();
    engine
        .job(golden("ready"))
        .queue("paused")
        .priority(-5)
        .enqueue()
        .unwrap();
    let at =
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(NOW_MS).unwrap() + 86_400_000);
    let later = engine
        .job(golden("later"))
        .at(at)
        .expires_at(at + MINUTE)
        .time_limit(MINUTE)
        .enqueue()
        .unwrap();
    engine
        .change(later.handle().id())
        .set_priority(Priority(3))
        .unwrap();
    engine
        .change(later.handle().id())
        .move_to("elsewhere")
        .unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
