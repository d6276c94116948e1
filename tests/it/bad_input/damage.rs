use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};

use jobsled::{Engine, Error, JobInfo};
use tempfile::TempDir;

use super::processes::Other;
use super::{MINUTE, Tree, blob, check_store, copy_tree, echo, measure, note, place, tree};

/// A store of some size to be damaged in copies, and its jobs: closed, or left by a process that was killed.
fn pristine(end: &str) -> (TempDir, PathBuf, Vec<JobInfo>) {
    let (dir, store) = place();
    if end == "killed" {
        let mut other = Other::start("notes", &store);
        assert_eq!(other.line(), "stored");
    } else {
        store_notes(&store).shutdown(MINUTE).unwrap();
    }
    fs::remove_file(store.join("ballast")).unwrap();
    let copy = store.with_file_name("copy");
    copy_tree(&store, &copy);
    let jobs = Engine::builder(&copy)
        .open()
        .unwrap()
        .jobs()
        .list()
        .unwrap();
    assert_eq!(jobs.len(), 300);
    fs::remove_dir_all(copy).unwrap();
    (dir, store, jobs)
}

pub(super) fn store_notes(store: &Path) -> Engine {
    let engine = Engine::builder(store).open().unwrap();
    for part in 0..15 {
        let mut batch = engine.batch();
        batch.extend((0..20).map(|n| note(&format!("{part:04} {n:04} ").repeat(20))));
        batch.enqueue().unwrap();
    }
    engine
}

/// Opens a damaged copy: all jobs as before, or an error for damage that leaves the journal as it was.
fn open_damaged(store: &Path, jobs: &[JobInfo], what: &str) -> Result<&'static str, String> {
    let before = tree(store);
    let (done, answer) = mpsc::channel();
    let path = store.to_owned();
    let thread = std::thread::Builder::new()
        .spawn(move || drop(done.send(Engine::builder(path).open())))
        .unwrap();
    let opened = match answer.recv_timeout(MINUTE) {
        Ok(opened) => opened,
        Err(mpsc::RecvTimeoutError::Timeout) => return Err(format!("{what}: open hangs")),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = thread
                .join()
                .map_err(|panic| panic.downcast_ref::<String>().cloned());
            return Err(format!("{what}: open panicked: {panic:?}"));
        }
    };
    match opened {
        Ok(engine) => all_there(&engine, jobs).map(|()| "all there"),
        Err(error) => refused_well(&error, store, &before).map(|()| "refused"),
    }
    .map_err(|wrong| format!("{what}: {wrong}"))
}

/// Every job is there as before, with its payload.
fn all_there(engine: &Engine, jobs: &[JobInfo]) -> Result<(), String> {
    let found = engine
        .jobs()
        .list()
        .map_err(|error| format!("list: {error}"))?;
    if found != jobs {
        return Err(format!(
            "silent loss: {} of {} jobs",
            found.len(),
            jobs.len()
        ));
    }
    for job in &found {
        let details = engine
            .details(job.id)
            .map_err(|error| format!("job {}: {error}", job.id))?;
        if details.and_then(|d| d.payload_bytes).is_none() {
            return Err(format!("job {} has no payload", job.id));
        }
    }
    let closed = engine.shutdown(MINUTE);
    closed
        .map(drop)
        .map_err(|error| format!("shutdown: {error}"))
}

/// The error is one for damage and names the store, and nothing was changed.
fn refused_well(error: &Error, store: &Path, before: &Tree) -> Result<(), String> {
    let expected = matches!(
        error,
        Error::Damaged { .. } | Error::Missing { .. } | Error::Io { .. }
    );
    if !expected {
        return Err(format!("another error than expected: {error}"));
    }
    if !error.to_string().contains(store.to_str().unwrap()) {
        return Err(format!("the message does not name the store: {error}"));
    }
    let mut after = tree(store);
    // The ballast is only space.
    after.remove(Path::new("ballast"));
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|n| before.get(*n) != after.get(*n))
        .collect();
    if changed.is_empty() {
        Ok(())
    } else {
        Err(format!("refused ({error}), but {changed:?} changed"))
    }
}

/// One flipped byte anywhere in the log of a closed store: all is there, or the damage is told and nothing changed.
#[test]
fn one_flipped_byte() {
    flip_bytes("closed", 40);
}

/// The same where the process was killed, and the log's newest part is not in a snapshot yet.
#[test]
fn one_flipped_byte_after_a_crash() {
    flip_bytes("killed", 20);
}

fn flip_bytes(end: &str, flips: usize) {
    let (_dir, store, jobs) = pristine(end);
    let log = fs::read(store.join("journal").join("db")).unwrap();
    let written: Vec<usize> = log
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte != 0)
        .map(|(at, _)| at)
        .collect();
    let mut numbers = Numbers(2_026);
    let places = (0..flips).map(|n| match n % 5 {
        0 => (numbers.below(log.len()), numbers.below(8)),
        _ => (
            *written.get(numbers.below(written.len())).unwrap(),
            numbers.below(8),
        ),
    });
    let cases = places.map(|(at, bit)| {
        let damage = move |copy: &Path| {
            let mut db = fs::File::options()
                .read(true)
                .write(true)
                .open(copy.join("journal").join("db"))
                .unwrap();
            let mut byte = [0];
            db.seek(SeekFrom::Start(at as u64)).unwrap();
            db.read_exact(&mut byte).unwrap();
            db.seek(SeekFrom::Start(at as u64)).unwrap();
            db.write_all(&byte.map(|byte| byte ^ (1 << bit))).unwrap();
        };
        (
            format!("byte {at} of {}", log.len()),
            Box::new(damage) as Damage,
        )
    });
    let refused = damage_copies(&store, &jobs, cases.collect());
    assert!(refused > 0, "no flip hit anything");
}

type Damage = Box<dyn Fn(&Path) + Send>;

/// Damages a copy of the store for each case and opens it; how many were refused.
fn damage_copies(store: &Path, jobs: &[JobInfo], cases: Vec<(String, Damage)>) -> usize {
    let tried = cases.len();
    let cases = Mutex::new(cases.into_iter().enumerate());
    let (wrong, refused) = (Mutex::new(Vec::new()), AtomicU32::new(0));
    std::thread::scope(|scope| {
        // Most of the time is spent in syncs, so more threads than cores are of use.
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some((number, (what, damage))) = cases.lock().unwrap().next() else {
                        return;
                    };
                    let copy = store.with_file_name(format!("damaged{number}"));
                    copy_tree(store, &copy);
                    damage(&copy);
                    match open_damaged(&copy, jobs, &what) {
                        Ok(outcome) => drop(
                            refused.fetch_add(u32::from(outcome == "refused"), Ordering::Relaxed),
                        ),
                        Err(text) => wrong.lock().unwrap().push(text),
                    }
                    fs::remove_dir_all(&copy).unwrap();
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "{} of {tried} went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    refused.into_inner().try_into().unwrap()
}

/// Files of the log deleted, emptied, cut short or replaced by garbage: never a panic, never a silent loss.
#[test]
fn the_log_cut_short_or_garbage() {
    let (_dir, store, jobs) = pristine("closed");
    let journal = store.join("journal");
    let snapshot = fs::read_dir(&journal)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let snapshot = snapshot
        .filter_map(|name| name.into_string().ok())
        .find(|name| name.starts_with("snap."))
        .unwrap();
    let cut = |name: &str, keep: usize| fs::read(journal.join(name)).unwrap()[..keep].to_vec();
    let log: usize = fs::metadata(journal.join("db"))
        .unwrap()
        .len()
        .try_into()
        .unwrap();
    let mut cases: Vec<(String, Option<Vec<u8>>)> = vec![
        ("conf".into(), None),
        ("conf".into(), Some(Vec::new())),
        ("conf".into(), Some(b"garbage".to_vec())),
        ("conf".into(), Some(cut("conf", 20))),
        ("db".into(), None),
        (snapshot.clone(), None),
        (snapshot.clone(), Some(Vec::new())),
        (snapshot.clone(), Some(b"garbage".to_vec())),
        ("snap.FFFFFFFFFFFFFFFF".into(), Some(b"garbage".to_vec())),
        ("blobs".into(), None),
    ];
    let used = fs::read(journal.join("db"))
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap();
    cases.extend(
        [0, 1, 100, used / 3, used / 2, used - 100, used, log - 1]
            .map(|keep| ("db".into(), Some(cut("db", keep)))),
    );
    let cases = cases.into_iter().map(|(name, content)| {
        let what = format!("{name} with {:?} bytes", content.as_ref().map(Vec::len));
        let damage = move |copy: &Path| {
            let path = copy.join("journal").join(&name);
            match &content {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
        };
        (what, Box::new(damage) as Damage)
    });
    damage_copies(&store, &jobs, cases.collect());
}

/// Lowers a flag at the end, also of a test that fails: so nobody goes on for ever.
struct Lower<'a>(&'a AtomicBool);

impl Drop for Lower<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A copy made while the store works holds what was acknowledged before it began, or is refused as damaged.
#[test]
fn a_store_copied_while_open() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).handle(measure).open().unwrap();
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Blobs come and go, large ones too; notes stay, for nobody runs them.
            let mut n = 0;
            while busy.load(Ordering::Relaxed) {
                n += 1;
                engine
                    .enqueue(blob(if n % 4 == 0 { 50_000 } else { n % 3_000 }))
                    .unwrap();
            }
        });
        let _end = Lower(&busy);
        let mut kept = Vec::new();
        for copy in 0..5 {
            for n in 0..10 {
                let text = if n == 0 {
                    "large ".repeat(10_000)
                } else {
                    format!("{copy} {n}")
                };
                kept.push((engine.enqueue(note(&text)).unwrap().id(), text));
            }
            let copied = store.with_file_name(format!("copy{copy}"));
            copy_tree(&store, &copied);
            match catch_unwind(|| Engine::builder(&copied).handle(echo).handle(measure).open()) {
                Ok(Ok(engine)) => {
                    engine.shutdown(MINUTE).unwrap();
                    check_store(&copied, &kept);
                }
                Ok(Err(Error::Damaged { .. } | Error::Missing { .. } | Error::Io { .. })) => {}
                other => panic!("{other:?}"),
            }
            fs::remove_dir_all(copied).unwrap();
        }
    });
    engine.shutdown(MINUTE).unwrap();
    // And once more at rest: then nothing can be torn.
    let copied = store.with_file_name("at-rest");
    copy_tree(&store, &copied);
    let engine = Engine::builder(&copied).open().unwrap();
    assert_eq!(engine.jobs().kind("note").count().unwrap(), 50);
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}
