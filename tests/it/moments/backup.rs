use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use jobsled::{BackupReport, Context, Engine, Error, JobResult, Pool, Queue, State, job, rkyv};

use super::{
    MINUTE, copy_tree, echoing, large, names, note, payload_files, same_tree, store_some, tree,
};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Numbered {
    producer: u32,
    number: u32,
}
job!(Numbered, kind = "numbered", output = u32);

const PRODUCERS: u32 = 4;

fn double(job: Numbered, _cx: &Context) -> JobResult<u32> {
    Ok(job.number * 2 + job.producer)
}

/// Stores pairs of numbered jobs, one pair after the other, until it is told to stop.
fn produce(engine: &Engine, producer: u32, stop: &AtomicBool) {
    for number in (0_u32..).step_by(2) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut pair = engine.batch();
        for number in [number, number + 1] {
            let job = engine.job(Numbered { producer, number });
            pair.add_request(job.key(format!("{producer} {number}")));
        }
        pair.enqueue().unwrap();
    }
}

/// Three copies of an engine at work: each is one moment.
#[test]
fn a_backup_is_one_moment_of_an_engine_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder(dir.path().join("store"))
        .queue(Queue::new("default").keep_finished(usize::MAX))
        .pool(Pool::threads("p", 2))
        .handle(double)
        .open()
        .unwrap();
    let copy = |n: u32| dir.path().join(format!("copy{n}"));
    let stop = AtomicBool::new(false);
    let reports: Vec<BackupReport> = thread::scope(|scope| {
        let (engine, stop) = (&engine, &stop);
        for producer in 0..PRODUCERS {
            scope.spawn(move || produce(engine, producer, stop));
        }
        let reports = (1..=3).map(|n| {
            let more = u64::from(n) * 200;
            assert!(engine.wait_until_finished(more, MINUTE).unwrap());
            engine.backup(copy(n)).unwrap()
        });
        let reports = reports.collect();
        stop.store(true, Ordering::Relaxed);
        reports
    });
    assert!(
        reports.iter().is_sorted_by_key(|r| (r.at_ms, r.jobs)),
        "{reports:?}"
    );
    for (n, report) in (1..).zip(&reports) {
        check_moment(&copy(n), report);
    }
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    engine.shutdown(MINUTE).unwrap();
}

/// A prefix of what each producer stored, never half a pair; the counters agree; and all of it is run.
fn check_moment(store: &Path, report: &BackupReport) {
    let looking = Engine::builder(store).open().unwrap();
    let jobs = looking.jobs().list().unwrap();
    let mut numbers: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for job in &jobs {
        let key = job.key.clone().unwrap();
        let (producer, number) = key.split_once(' ').unwrap();
        let numbers = numbers.entry(producer.parse().unwrap()).or_default();
        numbers.insert(number.parse().unwrap());
    }
    for (producer, numbers) in &numbers {
        let count = u32::try_from(numbers.len()).unwrap();
        assert!(count.is_multiple_of(2), "half a pair of {producer}");
        assert!(numbers.iter().copied().eq(0..count), "a gap of {producer}");
    }
    let stats = looking.stats().unwrap();
    let completed = jobs.iter().filter(|job| job.state == State::Completed);
    assert_eq!(stats.counters.completed, completed.count() as u64);
    assert!(stats.counters.completed >= 200);
    assert_eq!(stats.counters.enqueued, jobs.len() as u64);
    assert_eq!(report.jobs, jobs.len() as u64);
    looking.shutdown(MINUTE).unwrap();

    let running = Engine::builder(store).handle(double).open().unwrap();
    assert!(running.wait_until_idle(MINUTE).unwrap());
    let completed = running.jobs().state(State::Completed).count().unwrap();
    assert_eq!(completed, report.jobs);
    running.shutdown(MINUTE).unwrap();
}

/// Everything is in the copy: controls, keys, outputs, files; and the original goes on beside it.
#[test]
fn a_backup_has_all_of_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let engine = echoing(&store);
    store_some(&engine);
    fs::create_dir(&copy).unwrap(); // an empty directory will do
    let report = engine.backup(&copy).unwrap();
    assert_eq!((report.jobs, report.payload_files), (43, 2));
    assert!(report.bytes > 400_000 && report.groups <= report.entries);
    assert_eq!(names(dir.path()), ["copy", "store"]);

    let restored = echoing(&copy);
    assert_eq!(
        restored.jobs().list().unwrap(),
        engine.jobs().list().unwrap()
    );
    assert_eq!(
        restored.stats().unwrap().counters,
        engine.stats().unwrap().counters
    );
    for job in engine.jobs().list().unwrap() {
        let details = |engine: &Engine| engine.details(job.id).unwrap().unwrap();
        assert_eq!(details(&restored), details(&engine));
    }
    assert!(
        !restored
            .job(note("x"))
            .key("large")
            .enqueue()
            .unwrap()
            .is_new()
    );
    restored.queue("paused").resume().unwrap();
    assert!(restored.wait_until_idle(MINUTE).unwrap());
    // Each has its own files: what the copy did with its own is nothing to the original.
    assert_eq!(payload_files(&store).len(), 2);
    engine.queue("paused").resume().unwrap();
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    engine.shutdown(MINUTE).unwrap();
}

#[test]
fn an_engine_in_memory_can_be_backed_up() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let engine = Engine::in_memory().open().unwrap();
    let id = engine.enqueue(large("kept")).unwrap().id();
    engine.backup(&copy).unwrap();
    let restored = echoing(&copy);
    let handle = restored.handle::<super::Note>(id).unwrap().unwrap();
    let jobsled::Finished::Completed(text) = handle.wait().unwrap() else {
        panic!("not completed");
    };
    assert!(text == "kept".repeat(50_000));
}

/// Whatever is there already stays as it is, and nothing new is left.
#[test]
fn a_backup_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let engine = Engine::builder(at("store")).open().unwrap();
    engine.enqueue(note("one")).unwrap();
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full").join("mine"), b"mine").unwrap();
    fs::write(at("file"), b"mine").unwrap();
    // What is in the way where the copy would be built.
    fs::create_dir(at("a.part")).unwrap();
    fs::write(at("a.part").join("mine"), b"mine").unwrap();
    fs::write(at("b.part"), b"mine").unwrap();
    engine.backup(at("store/../c.part")).unwrap();
    let cases = [
        ("full", "it holds `mine`"),
        ("file", "no directory"),
        ("a", "it holds `mine`"),
        ("b", "no directory"),
        ("c", "a whole store"),
        ("c.part", "it holds"),
        ("store", "the store itself"),
        ("store/backup", "the store itself"),
        ("full/../store/backup", "the store itself"),
    ];
    let before = tree(dir.path());
    for (to, why) in cases {
        let refused = engine.backup(at(to)).unwrap_err();
        let Error::Occupied { found, .. } = &refused else {
            panic!("{to}: {refused}");
        };
        assert!(found.contains(why), "{to}: {refused}");
        same_tree(dir.path(), &before, to);
    }
    let refused = engine.backup(at("missing/copy")).unwrap_err();
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    same_tree(dir.path(), &before, "below nothing");
    engine.shutdown(MINUTE).unwrap();
    let refused = engine.backup(at("late")).unwrap_err();
    assert!(matches!(refused, Error::Closed), "{refused}");
    assert!(!at("late").exists() && !at("late.part").exists());
}

/// What a crash left of an earlier attempt goes; one that still goes on is left alone.
#[test]
fn a_left_over_is_removed_and_an_attempt_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (copy, part) = (dir.path().join("copy"), dir.path().join("copy.part"));
    let engine = Engine::builder(dir.path().join("store")).open().unwrap();
    engine.enqueue(note("one")).unwrap();
    engine.backup(&copy).unwrap();
    copy_tree(&copy, &part);
    fs::remove_dir_all(&copy).unwrap();
    fs::write(part.join("part"), b"").unwrap();

    let attempt = File::open(part.join("lock")).unwrap();
    attempt.lock().unwrap();
    let before = tree(dir.path());
    let refused = engine.backup(&copy).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    same_tree(dir.path(), &before, "an attempt goes on");
    drop(attempt);

    assert_eq!(engine.backup(&copy).unwrap().jobs, 1);
    assert_eq!(names(dir.path()), ["copy", "store"]);
    fs::remove_dir_all(&copy).unwrap();
    fs::create_dir(&part).unwrap(); // a crash as early as can be
    engine.backup(&copy).unwrap();
    assert_eq!(names(dir.path()), ["copy", "store"]);
    assert!(!names(&copy).contains(&"part".to_owned()));
}

/// A payload file that is not what it was is noticed, and no copy is made of it.
#[test]
fn a_damaged_payload_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let engine = Engine::builder(&store).open().unwrap();
    engine.enqueue(large("kept")).unwrap();
    let file = payload_files(&store).remove(0);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[1..]).unwrap();
    let refused = engine.backup(&copy).unwrap_err();
    assert!(
        matches!(&refused, Error::Damaged { path, .. } if *path == file),
        "{refused}"
    );
    assert_eq!(names(dir.path()), ["store"]);
    fs::write(&file, &bytes).unwrap();
    engine.backup(&copy).unwrap();
}
