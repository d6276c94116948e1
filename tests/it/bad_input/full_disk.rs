use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use jobsled::{Cancel, Engine, Error, Finished, ManualClock, State};

use super::mount::Mount;
use super::processes::{Other, say};
use super::{
    Blob, MINUTE, Note, ballast_len, blob, check_store, claim, held, measure, note, payload_files,
    says,
};

/// Below the floor new jobs are refused, what exists goes on, and with room again all is well by itself.
#[test]
fn a_full_disk_refuses_only_new_jobs() {
    const FLOOR: u64 = 12 << 20;
    let Some(mount) = Mount::tmpfs("a_full_disk_refuses_only_new_jobs", "40m") else {
        return;
    };
    let store = mount.path().join("store");
    let clock = ManualClock::at(1_700_000_000_000);
    let builder = Engine::builder(&store).clock(clock.clone());
    let (engine, begun, go) = held(builder.disk_floor(FLOOR), 1);
    let running = engine.enqueue(note("running")).unwrap();
    begun.recv_timeout(MINUTE).unwrap();
    let next = engine.enqueue(note("next")).unwrap();

    let (stored, error) = store_until_refused(&engine);
    assert!(
        matches!(&error, Error::DiskFull { path, free, needed } if *path == store && free < needed && *needed >= FLOOR),
        "{error}"
    );
    let words =
        "disk full|new jobs need|store|free some space|Nothing was stored|running jobs can finish";
    says(&error, &words.split('|').collect::<Vec<_>>());
    for bytes in [1, 50_000] {
        let error = engine.enqueue(blob(bytes)).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    }
    engine.stats().unwrap(); // one group later the refused payload's file is gone
    assert_eq!(payload_files(&store), 0);

    // Settling, claiming and cancelling need no new room worth the name.
    go.send(()).unwrap();
    assert_eq!(
        running.wait().unwrap(),
        Finished::Completed("running".to_owned())
    );
    begun.recv_timeout(MINUTE).unwrap();
    go.send(()).unwrap();
    assert_eq!(next.wait().unwrap(), Finished::Completed("next".to_owned()));
    let some = engine.jobs().kind("blob").limit(20).list().unwrap();
    for job in &some {
        assert_eq!(
            engine.change(job.id).cancel("no room").unwrap(),
            Cancel::Cancelled
        );
    }
    let claim = claim::<Blob>(&engine);
    assert!(claim.complete(&1).unwrap());
    assert!(engine.health().is_well());

    mount.resize("80m");
    clock.advance(Duration::from_secs(2));
    let healed = engine.enqueue(note("healed")).unwrap();
    go.send(()).unwrap();
    assert_eq!(
        healed.wait().unwrap(),
        Finished::Completed("healed".to_owned())
    );
    engine.shutdown(MINUTE).unwrap();
    let engine = Engine::builder(&store).open().unwrap();
    let (blobs, notes) = (engine.jobs().kind("blob"), engine.jobs().kind("note"));
    assert_eq!(notes.state(State::Completed).count().unwrap(), 3);
    assert_eq!(blobs.clone().count().unwrap(), stored);
    assert_eq!(blobs.state(State::Ready).count().unwrap(), stored - 21);
}

/// Stores blobs until there is no room; how many, and the refusal.
fn store_until_refused(engine: &Engine) -> (u64, Error) {
    let mut stored = 0;
    while stored < 2_000 {
        let mut batch = engine.batch();
        batch.extend((0..16).map(|_| blob(24_000)));
        match batch.enqueue() {
            Ok(placed) => stored += placed.len() as u64,
            Err(error) => return (stored, error),
        }
    }
    panic!("the disk never gets full");
}

/// Large payloads stop at the floor too: they never eat the room that running jobs need to finish.
#[test]
fn a_disk_filled_by_large_payloads() {
    let Some(mount) = Mount::tmpfs("a_disk_filled_by_large_payloads", "40m") else {
        return;
    };
    let store = mount.path().join("store");
    let engine = Engine::builder(&store)
        .clock(ManualClock::at(0))
        .disk_floor(12 << 20)
        .open()
        .unwrap();
    let first = engine.enqueue(note("first")).unwrap();
    let mut stored = 0;
    let error = loop {
        match engine.enqueue(blob(1 << 20)) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, Error::DiskFull { .. }),
        "after {stored} MiB: {error}"
    );
    assert_eq!(payload_files(&store), stored);
    assert_eq!(
        engine.change(first.id()).cancel("x").unwrap(),
        Cancel::Cancelled
    );
    assert!(engine.health().is_well(), "{:?}", engine.health());
}

/// A store on a disk without a single free byte opens all the same, by giving up its ballast, and takes it back later.
#[test]
fn a_completely_full_disk_can_be_opened() {
    let Some(mount) = Mount::tmpfs("a_completely_full_disk_can_be_opened", "48m") else {
        return;
    };
    let store = mount.path().join("store");
    let engine = Engine::builder(&store).disk_floor(1 << 20).open().unwrap();
    let jobs: Vec<_> = ["a", "b", "c"]
        .map(|text| (engine.enqueue(note(text)).unwrap().id(), text.to_owned()))
        .into();
    engine.shutdown(MINUTE).unwrap();
    let filler = mount.path().join("filler");
    fill_disk(&filler);

    let engine = Engine::builder(&store)
        .disk_floor(12 << 20)
        .handle(measure)
        .open()
        .unwrap();
    assert_eq!(engine.jobs().state(State::Ready).count().unwrap(), 3);
    assert!(matches!(
        engine.enqueue(note("x")).unwrap_err(),
        Error::DiskFull { .. }
    ));
    let claim = claim::<Note>(&engine);
    assert!(
        claim.complete(&"a".to_owned()).unwrap(),
        "what exists can be finished"
    );
    engine.shutdown(MINUTE).unwrap();

    fs::remove_file(filler).unwrap();
    check_store(&store, &jobs);
    assert!(ballast_len(&store) >= 4 << 20);
}

/// Another program takes every free byte while jobs run and the process dies: what was acknowledged is there when the
/// store is opened on the disk that is still full, wherever in its segments the log stood.
#[test]
fn a_disk_filled_by_others_and_then_a_crash() {
    for blobs in [3, 120, 250] {
        let Some(mount) = Mount::tmpfs("a_disk_filled_by_others_and_then_a_crash", "48m") else {
            return;
        };
        let store = mount.path().join("store");
        let mut other = Other::start(&format!("cancel {blobs}"), &store);
        assert_eq!(other.line(), "stored");
        let filler = mount.path().join("filler");
        fill_disk(&filler);
        other.child.stdin.take().unwrap().write_all(b"go").unwrap();
        let (cancelled, end) = (other.line().parse::<u64>().unwrap(), other.line());
        other.child.kill().unwrap();
        other.child.wait().unwrap();

        let told = format!("{blobs} blobs, {cancelled} cancelled, then `{end}`");
        let engine = Engine::builder(&store).disk_floor(1 << 20).open();
        let engine =
            engine.unwrap_or_else(|error| panic!("{told}: not opened on the full disk: {error}"));
        let found = engine.jobs().state(State::Cancelled).count().unwrap();
        assert!(
            (cancelled..=cancelled + 1).contains(&found),
            "{told}, but {found} are"
        );
        assert_eq!(
            engine.jobs().state(State::Ready).count().unwrap(),
            blobs - found,
            "{told}"
        );
        // It may be that nothing more can be written, but never that something is lost.
        let last = engine.jobs().state(State::Ready).limit(1).list().unwrap();
        let one_more = last
            .first()
            .and_then(|job| engine.change(job.id).cancel("x").ok())
            .is_some();
        drop(engine);
        fs::remove_file(filler).unwrap();
        let engine = Engine::builder(&store).disk_floor(1 << 20).open();
        let engine = engine.unwrap_or_else(|error| panic!("{told}: with room again: {error}"));
        assert!(
            engine.jobs().state(State::Cancelled).count().unwrap() >= found + u64::from(one_more),
            "{told}"
        );
        assert_eq!(engine.jobs().count().unwrap(), blobs, "{told}");
        engine.enqueue(note("x")).unwrap();
        assert!(ballast_len(&store) >= 4 << 20);
    }
}

/// Stores blobs; told to go on, cancels them one by one and tells how many, and how it ended.
pub(super) fn cancel_blobs(store: &Path, blobs: u64) {
    let engine = Engine::builder(store).disk_floor(1 << 20).open().unwrap();
    for _ in 0..blobs {
        engine.enqueue(blob(24_000)).unwrap();
    }
    say("stored");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let jobs = engine.jobs().limit(100).list().unwrap();
    let mut answers = jobs
        .iter()
        .map(|job| engine.change(job.id).cancel("no room"));
    let cancelled = answers.by_ref().take_while(Result::is_ok).count();
    let end = engine.stats().err();
    assert!(end.as_ref().is_none_or(Error::is_poisoned), "{end:?}");
    say(&cancelled.to_string());
    say(&end.map_or_else(|| "well".to_owned(), |error| error.to_string()));
    // Killed here, with the engine open.
    std::thread::park();
}

/// Takes every free byte of a file system.
fn fill_disk(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        let zeroes = vec![0; size];
        while file.write_all(&zeroes).is_ok() {}
    }
    drop(file.sync_all());
}
