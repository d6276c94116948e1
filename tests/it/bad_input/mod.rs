#![expect(
    clippy::unwrap_used,
    reason = "the helpers of these tests say what they expect by unwrapping, as the tests do"
)]

/// Options of the builder and controls that make no sense.
mod builder;
/// Damaged bytes, logs cut short, torn copies.
mod damage;
/// Paths that are no store; files that are foreign, garbage, missing or of another store.
mod directories;
/// Formats from the future.
mod formats;
/// Disks that are full.
mod full_disk;
/// Handlers that misbehave.
mod handlers;
/// Batches, and more than the inbox takes.
mod inbox;
/// What callers hand in: payloads, keys, options, times, metadata.
mod jobs;
/// Kinds without a handler, payloads and outputs that do not fit.
mod kinds;
/// Calls at the end of an engine's life, and after it.
mod life;
/// Mounts for the tests that need a disk of their own.
pub(crate) mod mount;
/// Who has the store open, and who had it.
mod processes;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use jobsled::{
    Claim, Context, DeadReason, Engine, EngineBuilder, Error, Finished, Job, JobId, JobResult,
    Pool, Request, job, rkyv,
};
use tempfile::TempDir;

/// Long enough for any machine; reached only when something hangs.
const MINUTE: Duration = Duration::from_mins(1);
/// Payloads up to this size ride in the journal (documented in `EngineBuilder::payload_max`).
const INLINE_MAX: usize = 24 << 10;
/// What the rkyv archive of a [`Blob`] has beyond its bytes.
const BLOB_EXTRA: usize = 8;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Note {
    text: String,
}
job!(Note, kind = "note", output = String);

/// The same kind after its fields changed and nobody wrote an upgrade.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct NoteNow {
    text: String,
    pages: u32,
}
job!(NoteNow, kind = "note", version = 2, output = String);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Blob {
    bytes: Vec<u8>,
}
job!(Blob, kind = "blob", output = u64);

/// Two types that claim the same kind and version.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Flag {
    up: bool,
}
job!(Flag, kind = "shape", output = String);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Shape {
    name: String,
    corners: Vec<u32>,
}
job!(Shape, kind = "shape", output = String);

fn note(text: &str) -> Note {
    Note {
        text: text.to_owned(),
    }
}

fn blob(bytes: usize) -> Blob {
    Blob {
        bytes: vec![7; bytes],
    }
}

/// A blob whose stored payload has exactly this many bytes.
fn payload_of(bytes: usize) -> Blob {
    blob(bytes - BLOB_EXTRA)
}

fn echo(job: Note, _cx: &Context) -> JobResult<String> {
    Ok(job.text)
}

fn measure(job: Blob, _cx: &Context) -> JobResult<u64> {
    Ok(job.bytes.len() as u64)
}

/// A directory for a store that is not made yet; gone when the test ends.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    (dir, store)
}

/// The message tells what, what was found and what to do: it holds all of these words.
#[track_caller]
fn says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in: {text}");
    }
}

type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Everything below a directory: paths, and for files their bytes. The lock's text changes with every opening.
fn tree(dir: &Path) -> Tree {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                dirs.push(path);
            } else if name != Path::new("lock") {
                found.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    found
}

#[track_caller]
fn same_tree(dir: &Path, before: &Tree, why: &str) {
    let now = tree(dir);
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&now), names(before), "{why}: other files than before");
    let changed: Vec<_> = now
        .iter()
        .filter(|(name, bytes)| before.get(*name) != Some(*bytes))
        .map(|f| f.0)
        .collect();
    assert!(changed.is_empty(), "{why}: {changed:?} were changed");
}

fn payload_files(store: &Path) -> usize {
    fs::read_dir(store.join("payloads")).map_or(0, Iterator::count)
}

fn ballast_len(store: &Path) -> u64 {
    fs::metadata(store.join("ballast")).unwrap().len()
}

/// Copies a directory as `cp -r` would while somebody works in it: files that go meanwhile are left out.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else if let Err(error) = fs::copy(&path, &target) {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::NotFound,
                "{}",
                path.display()
            );
        }
    }
}

/// A closed store with jobs of both sizes that nobody has run.
struct Stored {
    _dir: TempDir,
    store: PathBuf,
    jobs: Vec<(JobId, String)>,
}

impl Stored {
    fn new() -> Stored {
        Stored::with(&["one", "two", "three"])
    }

    fn with(texts: &[&str]) -> Stored {
        let (dir, store) = place();
        let engine = Engine::builder(&store).open().unwrap();
        let large = "large ".repeat(10_000);
        let jobs = texts
            .iter()
            .copied()
            .chain([large.as_str()])
            .map(|text| (engine.enqueue(note(text)).unwrap().id(), text.to_owned()));
        let jobs = jobs.collect();
        engine.shutdown(MINUTE).unwrap();
        Stored {
            _dir: dir,
            store,
            jobs,
        }
    }

    /// Opens the store and runs everything: all of it is there, whole, and ids go on.
    #[track_caller]
    fn check(&self) {
        check_store(&self.store, &self.jobs);
    }
}

#[track_caller]
fn check_store(store: &Path, jobs: &[(JobId, String)]) {
    let engine = Engine::builder(store).handle(echo).open().unwrap();
    for (id, text) in jobs {
        let handle = engine
            .handle::<Note>(*id)
            .unwrap()
            .unwrap_or_else(|| panic!("job {id} is lost"));
        assert_eq!(
            handle.wait_timeout(MINUTE).unwrap(),
            Some(Finished::Completed(text.clone()))
        );
    }
    let last = jobs.iter().map(|(id, _)| *id).max().unwrap();
    let next = engine.enqueue(note("next")).unwrap();
    assert!(next.id() > last, "an id was used again");
    assert_eq!(next.wait().unwrap(), Finished::Completed("next".to_owned()));
    engine.shutdown(MINUTE).unwrap();
}

/// Waits for a death and checks that its words say all of these.
#[track_caller]
fn dead<J: Job<Output: Debug>>(engine: &Engine, id: JobId, words: &[&str]) -> DeadReason {
    let handle = engine.handle::<J>(id).unwrap().unwrap();
    match handle.wait_timeout(MINUTE).unwrap() {
        Some(Finished::Dead(ended)) => {
            let text = format!("{} {:?}", ended.words, ended.errors);
            for word in words {
                assert!(text.contains(word), "`{word}` is missing in: {text}");
            }
            ended.reason
        }
        other => panic!("job {id}: {other:?}"),
    }
}

/// Stores a job and tells its id.
#[track_caller]
fn id_of<O>(request: Request<'_, O>) -> JobId {
    request.enqueue().unwrap().handle().id()
}

/// Claims a job that is there.
#[track_caller]
fn claim<J: Job>(engine: &Engine) -> Claim<J> {
    engine
        .claim("default", Duration::ZERO)
        .unwrap()
        .expect("a job to claim")
}

/// An engine whose handlers say when they begin, and end when they are told.
fn held(
    builder: EngineBuilder,
    slots: usize,
) -> (Engine, mpsc::Receiver<String>, mpsc::Sender<()>) {
    let (tell, told_begun) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let handler = move |job: Note, _: &Context| -> JobResult<String> {
        tell.send(job.text.clone())?;
        // An error means that nobody holds it back any more.
        let _ = gone.lock().unwrap().recv();
        Ok(job.text)
    };
    let pool = Pool::threads("p", slots);
    let engine = builder.pool(pool).handle(handler).open().unwrap();
    (engine, told_begun, go)
}
