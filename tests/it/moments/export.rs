use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use jobsled::{Engine, Error, Finished, JobInfo, State, import, job, rkyv, verify};

use super::{
    MINUTE, Note, echoing, large, names, note, payload_files, same_tree, store_some, tree,
};

/// Nobody's handler takes it.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct ByHand;
job!(ByHand, kind = "by-hand");

fn exported(engine: &Engine) -> Vec<u8> {
    let mut lines = Vec::new();
    let report = engine.export(&mut lines).unwrap();
    assert_eq!(report.bytes, lines.len() as u64);
    lines
}

/// The same jobs, controls, keys, outputs and counters; what was running is recovered; and it goes on.
#[test]
fn an_imported_store_is_the_same_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let engine = echoing(&store);
    store_some(&engine);
    let runs = engine.enqueue(ByHand).unwrap().id();
    let claim = engine.claim::<ByHand>("default", Duration::ZERO).unwrap();
    let claim = claim.expect("a job to claim");
    let lines = exported(&engine);
    let report = import(&copy, &*lines).unwrap();
    assert_eq!(
        (report.jobs, report.queues, report.payload_files),
        (44, 1, 2)
    );
    assert_eq!(names(dir.path()), ["copy", "store"]);
    assert_eq!(verify(&copy, None).unwrap().count(State::Running), 1);

    let imported = echoing(&copy);
    let before = engine.jobs().list().unwrap();
    let after = imported.jobs().list().unwrap();
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        if before.id == runs {
            let seen = |job: &JobInfo| (job.state, job.crashes, job.attempt, job.failures);
            assert_eq!(seen(before), (State::Running, 0, 1, 0));
            assert_eq!(seen(after), (State::Ready, 1, 1, 0));
            continue;
        }
        assert_eq!(before, after);
        let details = |engine: &Engine| engine.details(before.id).unwrap().unwrap();
        assert_eq!(details(&engine), details(&imported));
        if before.state == State::Completed {
            let output = |engine: &Engine| {
                let handle = engine.handle::<Note>(before.id).unwrap().unwrap();
                handle.wait().unwrap()
            };
            assert!(output(&engine) == output(&imported));
        }
    }
    let (before, mut after) = (engine.stats().unwrap(), imported.stats().unwrap());
    after.counters.crashed -= 1;
    assert_eq!(before.counters, after.counters);
    let keyed = imported.job(note("x")).key("large").enqueue().unwrap();
    assert!(!keyed.is_new());
    let next = imported.enqueue(note("next")).unwrap();
    assert_eq!(next.id().number(), runs.number() + 1);
    assert_eq!(next.wait().unwrap(), Finished::Completed("next".to_owned()));
    imported.queue("paused").resume().unwrap();
    let again = imported
        .claim::<ByHand>("default", MINUTE)
        .unwrap()
        .unwrap();
    assert!(again.complete(&()).unwrap());
    assert!(imported.wait_until_idle(MINUTE).unwrap());
    imported.shutdown(MINUTE).unwrap();
    verify(&copy, None).unwrap();
    assert!(claim.complete(&()).unwrap());
}

/// A reader that says when it has got the first bytes, and takes more when it is told.
struct Stalls {
    begun: Option<Sender<()>>,
    go: Receiver<()>,
    lines: Vec<u8>,
}

impl Stalls {
    fn new() -> (Stalls, Receiver<()>, Sender<()>) {
        let (begun, begins) = channel();
        let (goes, go) = channel();
        let stalls = Stalls {
            begun: Some(begun),
            go,
            lines: Vec::new(),
        };
        (stalls, begins, goes)
    }
}

impl Write for Stalls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(begun) = self.begun.take() {
            begun.send(()).unwrap();
            self.go.recv().unwrap();
        }
        self.lines.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// While somebody reads, a job of the moment ends and its payload's file stays; then it goes.
#[test]
fn a_payload_file_stays_while_its_moment_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let engine = echoing(&store);
    engine.queue("later").pause().unwrap();
    let job = engine.job(large("kept")).queue("later").enqueue().unwrap();
    let file = payload_files(&store).remove(0);
    let (mut stalls, begins, goes) = Stalls::new();
    let lines = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            engine.export(&mut stalls).unwrap();
            stalls.lines
        });
        begins.recv().unwrap();
        engine.queue("later").resume().unwrap();
        job.handle().wait().unwrap();
        assert!(file.exists(), "a held moment names it");
        goes.send(()).unwrap();
        reader.join().unwrap()
    });
    engine.stats().unwrap();
    assert!(!file.exists(), "nobody needs it any more");
    assert_eq!(payload_files(&store).len(), 1, "the output's");
    import(&copy, &*lines).unwrap();
    assert_eq!(verify(&copy, None).unwrap().count(State::Ready), 1);
}

/// An engine that is shut down under a reader says so.
#[test]
fn an_export_of_an_engine_that_closes_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder(dir.path().join("store")).open().unwrap();
    for _ in 0..60 {
        engine.enqueue(note(&"long ".repeat(4_000))).unwrap();
    }
    let (mut stalls, begins, goes) = Stalls::new();
    let ended = thread::scope(|scope| {
        let reader = scope.spawn(|| engine.export(&mut stalls));
        begins.recv().unwrap();
        engine.shutdown(MINUTE).unwrap();
        goes.send(()).unwrap();
        reader.join().unwrap()
    });
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
    let engine = Engine::builder(dir.path().join("store")).open().unwrap();
    assert_eq!(engine.jobs().count().unwrap(), 60);
}

/// A reader that has gone away.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_pipe_is_an_error_and_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = echoing(&store);
    store_some(&engine);
    let refused = engine.export(&mut Gone).unwrap_err();
    assert!(
        matches!(&refused, Error::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("write the export"),
        "{refused}"
    );
    let before = payload_files(&store).len();
    engine.queue("paused").resume().unwrap();
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    // One payload is gone, one output came.
    assert_eq!(payload_files(&store).len(), before);
    engine.shutdown(MINUTE).unwrap();
}

/// Whatever is there already stays as it is; input that fails leaves nothing.
#[test]
fn an_import_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let engine = Engine::in_memory().open().unwrap();
    engine.enqueue(note("one")).unwrap();
    let lines = exported(&engine);
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full").join("mine"), b"mine").unwrap();
    fs::write(at("file"), b"mine").unwrap();
    let before = tree(dir.path());
    for to in ["full", "file"] {
        let refused = import(at(to), &*lines).unwrap_err();
        assert!(matches!(refused, Error::Occupied { .. }), "{refused}");
        same_tree(dir.path(), &before, to);
    }
    let refused = import(at("to"), io::BufReader::new(Broken)).unwrap_err();
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    assert!(refused.to_string().contains("read the import"), "{refused}");
    same_tree(dir.path(), &before, "broken");
    fs::create_dir(at("to")).unwrap();
    import(at("to"), &*lines).unwrap();
    assert!(Path::new(&at("to")).join("journal").is_dir());
}

/// Input that fails in the middle.
struct Broken;

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("torn tape"))
    }
}
