#![expect(
    clippy::unwrap_used,
    reason = "the helpers of these tests say what they expect by unwrapping, as the tests do"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jobsled::{
    AttemptEnd, Cancel, Changed, Clock, Context, DeadReason, Delete, Drained, Engine, Error,
    Finished, JobId, JobResult, ManualClock, Now, Pool, Queue, State, SystemClock, WhenFull, job,
    rkyv,
};
use tempfile::TempDir;

/// Long enough for any machine; reached only when something hangs.
const MINUTE: Duration = Duration::from_mins(1);
/// Payloads up to this size ride in the journal (documented in `EngineBuilder::payload_max`).
const INLINE_MAX: usize = 32 << 10;
/// What the rkyv archive of a [`Blob`] has beyond its bytes.
const BLOB_EXTRA: usize = 8;

// --- jobs -----------------------------------------------------------------------------------------------

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

// --- helpers --------------------------------------------------------------------------------------------

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

/// Everything below a directory: paths, and for files their bytes. The lock's text changes with every opening.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
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
fn same_tree(dir: &Path, before: &BTreeMap<PathBuf, Option<Vec<u8>>>, why: &str) {
    let now = tree(dir);
    let names =
        |tree: &BTreeMap<PathBuf, Option<Vec<u8>>>| tree.keys().cloned().collect::<Vec<_>>();
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

/// Tells, past the capture of the test harness, what this machine could not show.
fn skipped(name: &str, why: &str) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    drop(writeln!(
        std::io::stderr(),
        "skipped: {name}: {why} ({count} so far in this module)"
    ));
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// A mount of our own; needs root. `None` was told as skipped.
struct Mount {
    dir: TempDir,
}

impl Mount {
    fn tmpfs(test: &str, size: &str) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let made = run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &options,
                "jobsled-test",
                dir.path().to_str().unwrap(),
            ],
        );
        made.map(|()| Mount { dir })
            .map_err(|why| skipped(test, &why))
            .ok()
    }

    /// Shows `what` a second time, read-only.
    fn read_only(test: &str, what: &Path) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (
            what.to_str().unwrap().to_owned(),
            dir.path().to_str().unwrap().to_owned(),
        );
        if let Err(why) = run("mount", &["--bind", &from, &to]) {
            skipped(test, &why);
            return None;
        }
        let mount = Mount { dir };
        let made = run("mount", &["-o", "remount,ro,bind", &to]);
        made.map(|()| mount).map_err(|why| skipped(test, &why)).ok()
    }

    fn resize(&self, size: &str) {
        run(
            "mount",
            &[
                "-o",
                &format!("remount,size={size}"),
                self.path().to_str().unwrap(),
            ],
        )
        .unwrap();
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(run("umount", &["-l", self.dir.path().to_str().unwrap()]));
    }
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

/// The machine's clock, which the writer can be made to wait for: so the inbox stays as full as it is.
#[derive(Clone, Default)]
struct HeldClock(Arc<(Mutex<bool>, Condvar)>);

impl HeldClock {
    fn hold(&self) {
        *self.0.0.lock().unwrap() = true;
    }

    fn let_go(&self) {
        *self.0.0.lock().unwrap() = false;
        self.0.1.notify_all();
    }
}

impl Clock for HeldClock {
    fn now(&self) -> Now {
        if std::thread::current().name() == Some("jobsled-writer") {
            let held = self.0.0.lock().unwrap();
            drop(self.0.1.wait_while(held, |held| *held).unwrap());
        }
        SystemClock.now()
    }
}

// --- payloads and options -------------------------------------------------------------------------------

/// A payload of 32 KiB rides in the journal, one byte more has a file; both come back whole.
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

fn a_gigabyte(store: &Path) -> String {
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

/// A deleted job holds its key for the key's time to live, and the answer says whose it was; then the key is free.
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
    let id = engine
        .job(note("a"))
        .key("k")
        .enqueue()
        .unwrap()
        .handle()
        .id();
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
    let id = engine
        .job(note("x"))
        .key("k".repeat(256))
        .enqueue()
        .unwrap()
        .handle()
        .id();
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
    let id = engine
        .job(note("d"))
        .after(Duration::MAX)
        .enqueue()
        .unwrap()
        .handle()
        .id();
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
    let id = engine
        .job(note("x"))
        .metadata("name", "v".repeat(2_000))
        .enqueue()
        .unwrap()
        .handle()
        .id();
    assert_eq!(
        engine.details(id).unwrap().unwrap().metadata[0].1.len(),
        2_000
    );
    assert_eq!(engine.jobs().count().unwrap(), 1);
}

/// A batch with too many jobs is refused whole, and the message counts jobs as jobs.
#[test]
fn a_batch_beyond_its_bounds() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let mut batch = engine.batch();
    batch.extend((0..100_001).map(|_| Flag { up: true }));
    let error = batch.enqueue().unwrap_err();
    says(&error, &["batch", "100001", "100000", "several batches"]);
    assert!(
        !error.to_string().contains("100001 bytes"),
        "jobs are no bytes: {error}"
    );
    assert_eq!(engine.jobs().count().unwrap(), 0);
}

/// A batch that is refused, or never enqueued, takes the files of its large payloads with it.
#[test]
fn a_batch_that_comes_to_nothing_leaves_no_files() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let mut batch = engine.batch();
    batch
        .add(blob(50_000))
        .add_request(engine.job(note("x")).attempts(0));
    let error = batch.enqueue().unwrap_err();
    assert!(matches!(&error, Error::InBatch { index: 1, .. }), "{error}");
    says(
        &error,
        &["job 1", "attempts", "at least one", "none was stored"],
    );
    let of_refused = payload_files(&store);
    let mut batch = engine.batch();
    batch.add(blob(50_000));
    drop(batch);
    let of_dropped = payload_files(&store) - of_refused;
    assert_eq!(
        (of_refused, of_dropped),
        (0, 0),
        "files that no job names (refused, dropped)"
    );
}

/// A full inbox tells callers that do not wait; what it took is stored, what it refused leaves nothing behind.
#[test]
fn a_full_inbox_refuses_and_loses_nothing() {
    let (_dir, store) = place();
    let clock = HeldClock::default();
    let engine = Engine::builder(&store)
        .clock(clock.clone())
        .inbox(1, 1 << 20)
        .when_full(WhenFull::Refuse)
        .open()
        .unwrap();
    clock.hold();
    let ticket = engine.job(note("taken")).enqueue_nowait().unwrap();
    let mut batch = engine.batch();
    batch.add(note("batch"));
    let refused = [
        engine.job(note("refused")).enqueue_nowait().unwrap_err(),
        engine.enqueue(note("refused")).unwrap_err(),
        batch.enqueue().unwrap_err(),
        engine.job(blob(50_000)).enqueue_nowait().unwrap_err(),
    ];
    clock.let_go();
    for error in refused {
        assert!(
            matches!(
                error,
                Error::Full {
                    waiting: 1,
                    limit: 1,
                    ..
                }
            ),
            "{error}"
        );
        says(&error, &["waiting", "limit is 1", "try again", "waits"]);
    }
    assert!(ticket.wait().unwrap().is_new());
    assert_eq!(engine.jobs().count().unwrap(), 1);
    let files = payload_files(&store);
    engine.shutdown(MINUTE).unwrap();
    let engine = Engine::builder(&store).open().unwrap();
    assert_eq!(engine.jobs().count().unwrap(), 1);
    assert_eq!(files, 0, "the file of a refused payload was left");
}

/// Producers that race for one place are each told the truth: stored or full, nothing between.
#[test]
fn producers_race_for_a_small_inbox() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store)
        .inbox(1, 1 << 20)
        .when_full(WhenFull::Refuse)
        .open()
        .unwrap();
    let stored = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..100 {
                    let answer = match n % 2 {
                        0 => engine
                            .job(note("n"))
                            .enqueue_nowait()
                            .and_then(jobsled::Ticket::wait),
                        _ => engine.job(note("n")).enqueue(),
                    };
                    match answer {
                        Ok(_) => drop(stored.fetch_add(1, Ordering::Relaxed)),
                        Err(Error::Full { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let stored = u64::from(stored.into_inner());
    assert!(stored >= 1);
    assert_eq!(engine.jobs().count().unwrap(), stored);
    engine.shutdown(MINUTE).unwrap();
    let engine = Engine::builder(&store).open().unwrap();
    assert_eq!(engine.jobs().count().unwrap(), stored);
}

/// When bytes and not jobs fill the inbox, the message talks of bytes.
#[test]
fn an_inbox_full_of_bytes_says_so() {
    let (_dir, store) = place();
    let clock = HeldClock::default();
    let engine = Engine::builder(&store)
        .clock(clock.clone())
        .inbox(100, 1_000)
        .open()
        .unwrap();
    clock.hold();
    let ticket = engine.job(blob(900)).enqueue_nowait().unwrap();
    let error = engine.job(blob(900)).enqueue_nowait().unwrap_err();
    clock.let_go();
    ticket.wait().unwrap();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    says(&error, &["bytes", "1000"]);
}

// --- kinds, payloads that do not fit --------------------------------------------------------------------

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
    let ended = dead(&engine, id, &["payload", "not a valid rkyv archive"]);
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

/// Waits for a death and checks that its words say all of these.
#[track_caller]
fn dead(engine: &Engine, id: JobId, words: &[&str]) -> DeadReason {
    let handle = engine.handle::<Note>(id).unwrap().unwrap();
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
    let claim = engine
        .claim::<Note>("default", Duration::ZERO)
        .unwrap()
        .unwrap();
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
        dead(&engine, newer, &["version 2", "version 1", "upgrade"]),
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
            dead(&engine, large, &["payload", name, word]),
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
        dead(&engine, id, &["JSON", "rkyv", "accept_json"]),
        DeadReason::Discarded
    );
    let misfit = engine
        .json("sum", &serde_json::Value::Null)
        .enqueue()
        .unwrap()
        .handle()
        .id();
    engine.shutdown(MINUTE).unwrap();

    let error = Engine::builder(&store)
        .accept_json::<Sum>()
        .open()
        .unwrap_err();
    assert!(
        matches!(&error, Error::NoHandler { kind } if kind == "sum"),
        "{error}"
    );
    let engine = Engine::builder(&store)
        .handle(sum)
        .accept_json::<Sum>()
        .open()
        .unwrap();
    engine.change(misfit).retry().unwrap();
    assert_eq!(
        dead(&engine, misfit, &["JSON payload does not fit"]),
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
    let claim = engine
        .claim::<Count>("default", Duration::ZERO)
        .unwrap()
        .unwrap();
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
    let id = engine
        .job(note("abc"))
        .attempts(1)
        .enqueue()
        .unwrap()
        .handle()
        .id();
    assert_eq!(
        dead(&engine, id, &["output", "150008", "100000"]),
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
    let claim = engine
        .claim::<Note>("default", Duration::ZERO)
        .unwrap()
        .unwrap();
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

// --- configuration --------------------------------------------------------------------------------------

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
    let upgrade = |old: Note| NoteNow {
        text: old.text,
        pages: 0,
    };
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
        (
            Engine::builder(&store).upgrade(1, upgrade),
            "no handler|`note`|register",
        ),
    ];
    for (builder, words) in cases {
        let error = builder.open().unwrap_err();
        let expected = matches!(error, Error::Invalid { .. } | Error::NoHandler { .. });
        assert!(expected, "{error}");
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
        ("purge_dead", bad.purge_dead().map(drop)),
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

// --- handlers that misbehave ----------------------------------------------------------------------------

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
            jobs.push((
                engine
                    .job(note(mode))
                    .attempts(1)
                    .enqueue()
                    .unwrap()
                    .handle()
                    .id(),
                words,
            ));
        }
        for (id, words) in jobs {
            assert_eq!(dead(&engine, id, &[words]), DeadReason::AttemptsUsedUp);
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
    let waiting = engine
        .job(note("later"))
        .after(MINUTE)
        .enqueue()
        .unwrap()
        .handle()
        .id();
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

// --- the end of an engine -------------------------------------------------------------------------------

/// A handler that says when it begins and ends when it is told.
fn gate() -> (
    impl Fn(Note, &Context) -> JobResult<String> + Send + Sync + 'static,
    mpsc::Receiver<String>,
    mpsc::Sender<()>,
) {
    let (tell, told_begun) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let handler = move |job: Note, _: &Context| {
        tell.send(job.text.clone())?;
        // An error means that nobody holds it back any more.
        let _ = gone.lock().unwrap().recv();
        Ok(job.text)
    };
    (handler, told_begun, go)
}

/// While an engine drains, every way in is refused with nothing left behind, and what runs ends well.
#[test]
fn enqueue_during_drain() {
    let (_dir, store) = place();
    let (handler, begun, go) = gate();
    let engine = Engine::builder(&store)
        .pool(Pool::threads("p", 1))
        .handle(handler)
        .open()
        .unwrap();
    let running = engine.enqueue(note("running")).unwrap();
    begun.recv_timeout(MINUTE).unwrap();
    let waiting = engine.enqueue(note("waiting")).unwrap().id();
    assert_eq!(
        engine.drain(Duration::ZERO).unwrap(),
        Drained::StillRunning(vec![running.id()])
    );
    let mut batch = engine.batch();
    batch.add(note("x")).add(blob(50_000));
    let refused = [
        engine.enqueue(note("x")).map(drop),
        engine
            .job(note("x"))
            .enqueue_nowait()
            .and_then(jobsled::Ticket::wait)
            .map(drop),
        engine.enqueue(blob(50_000)).map(drop),
        batch.enqueue().map(drop),
        engine.claim::<Note>("default", Duration::ZERO).map(drop),
    ];
    for answer in refused {
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::Draining), "{error}");
        says(&error, &["draining", "Nothing was stored"]);
    }
    drop(go);
    assert_eq!(engine.drain(MINUTE).unwrap(), Drained::Finished);
    assert_eq!(
        running.wait().unwrap(),
        Finished::Completed("running".to_owned())
    );
    assert_eq!(engine.jobs().count().unwrap(), 2);
    assert_eq!(payload_files(&store), 0, "refused payloads have no files");
    engine.shutdown(MINUTE).unwrap();
    check_store(&store, &[(waiting, "waiting".to_owned())]);
}

/// After `shutdown` every call says that the engine is closed; nothing changes on the disk.
#[test]
fn calls_after_shutdown() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).handle(echo).open().unwrap();
    let handle = engine
        .job(note("later"))
        .after(MINUTE)
        .enqueue()
        .unwrap()
        .into_handle();
    let id = handle.id();
    let events = engine.subscribe(8);
    engine.shutdown(MINUTE).unwrap();
    let before = tree(&store);
    let mut batch = engine.batch();
    batch.add(note("x")).add(blob(50_000));
    let queue = engine.queue("default");
    let answers = [
        ("enqueue", engine.enqueue(note("x")).map(drop)),
        (
            "enqueue_nowait",
            engine
                .job(note("x"))
                .enqueue_nowait()
                .and_then(jobsled::Ticket::wait)
                .map(drop),
        ),
        ("enqueue large", engine.enqueue(blob(50_000)).map(drop)),
        ("batch", batch.enqueue().map(drop)),
        ("claim", engine.claim::<Note>("default", MINUTE).map(drop)),
        ("handle", engine.handle::<Note>(id).map(drop)),
        ("find_key", engine.find_key::<Note>("k").map(drop)),
        ("cancel", engine.change(id).cancel("x").map(drop)),
        ("retry", engine.change(id).retry().map(drop)),
        ("pause", queue.pause()),
        ("stats", engine.stats().map(drop)),
        ("list", engine.jobs().list().map(drop)),
        ("details", engine.details(id).map(drop)),
        ("wait_until_idle", engine.wait_until_idle(MINUTE).map(drop)),
        (
            "wait_until_finished",
            engine.wait_until_finished(1, MINUTE).map(drop),
        ),
        ("drain", engine.drain(MINUTE).map(drop)),
        ("shutdown", engine.shutdown(MINUTE).map(drop)),
        ("wait", handle.wait().map(drop)),
        ("wait_timeout", handle.wait_timeout(MINUTE).map(drop)),
        ("state", handle.state().map(drop)),
    ];
    for (call, answer) in answers {
        let error = answer.map_err(|e| (e.to_string(), e)).expect_err(call).1;
        assert!(matches!(error, Error::Closed), "{call}: {error}");
        says(&error, &["shut down"]);
    }
    assert!(
        events.recv_timeout(MINUTE).is_none(),
        "the stream of news ends"
    );
    same_tree(&store, &before, "calls after shutdown");
    drop((handle, engine));
    let engine = Engine::builder(&store).open().unwrap();
    assert_eq!(
        engine.details(id).unwrap().unwrap().info.state,
        State::Scheduled
    );
}

/// An engine dropped while jobs run gives them back: the next one runs them, and no attempt was used.
#[test]
fn an_engine_dropped_while_jobs_run() {
    let (_dir, store) = place();
    let (handler, begun, go) = gate();
    let engine = Engine::builder(&store)
        .pool(Pool::threads("p", 2))
        .handle(handler)
        .open()
        .unwrap();
    let jobs: Vec<_> = ["a", "b", "c"]
        .map(|text| {
            (
                engine
                    .job(note(text))
                    .attempts(1)
                    .enqueue()
                    .unwrap()
                    .handle()
                    .id(),
                text.to_owned(),
            )
        })
        .into();
    for _ in 0..2 {
        begun.recv_timeout(MINUTE).unwrap();
    }
    drop(engine);
    {
        let engine = Engine::builder(&store).open().unwrap();
        for job in engine.jobs().list().unwrap() {
            assert_eq!(
                (job.state, job.failures, job.crashes),
                (State::Ready, 0, 0),
                "{job:?}"
            );
        }
    }
    check_store(&store, &jobs);
    // Only now do the first handlers return; what they have to say comes too late for anything.
    drop(go);
    let engine = Engine::builder(&store).open().unwrap();
    let counters = engine.stats().unwrap().counters;
    assert_eq!(
        (counters.completed, counters.died),
        (4, 0),
        "three, and the one that checked the ids"
    );
}

// --- paths ----------------------------------------------------------------------------------------------

/// A file, or a directory with somebody else's files in it, is not a store and is not touched.
#[test]
fn paths_that_are_not_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "a file").unwrap();
    let error = Engine::builder(&file).open().unwrap_err();
    assert!(
        matches!(&error, Error::NotAStore { path, .. } if *path == file),
        "{error}"
    );
    says(
        &error,
        &[
            "file",
            "not a Jobsled store",
            "Nothing was changed",
            "new or empty directory",
        ],
    );
    assert_eq!(fs::read(&file).unwrap(), b"a file");

    let mut left = Vec::new();
    for foreign in [
        "notes.txt",
        "lock/notes.txt",
        "journal/notes.txt",
        "journal.old/notes.txt",
        "journal.new/notes.txt",
    ] {
        let home = dir.path().join(foreign.replace('/', "-"));
        fs::create_dir_all(home.join(foreign).parent().unwrap()).unwrap();
        fs::write(home.join(foreign), "mine").unwrap();
        let before = everything(&home);
        let error = Engine::builder(&home).open().unwrap_err();
        if !matches!(error, Error::NotAStore { .. }) || everything(&home) != before {
            left.push(format!(
                "{foreign}: {error}; then there was {:?}",
                everything(&home)
            ));
        }
    }
    assert!(left.is_empty(), "taken for a store, or changed: {left:#?}");
}

/// All names below a directory, the lock too.
fn everything(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = tree(dir).into_keys().collect();
    names.extend(dir.join("lock").is_file().then(|| PathBuf::from("lock")));
    names
}

/// A missing parent is named; nothing is made.
#[test]
fn a_path_whose_parent_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("missing").join("store");
    let error = Engine::builder(&store).open().unwrap_err();
    assert!(
        matches!(&error, Error::Io { doing: "create directory", path, .. } if *path == store),
        "{error}"
    );
    says(&error, &["create directory", "missing", "No such file"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A read-only directory is named, with a store in it and without; the store is unharmed.
#[test]
fn a_read_only_directory() {
    let stored = Stored::new();
    let Some(mount) = Mount::read_only("a_read_only_directory", stored.store.parent().unwrap())
    else {
        return;
    };
    for name in ["store", "new"] {
        let path = mount.path().join(name);
        let error = Engine::builder(&path).open().unwrap_err();
        assert!(
            matches!(&error, Error::Io { path: at, .. } if at.starts_with(&path)),
            "{error}"
        );
        says(&error, &[name, "Read-only"]);
    }
    drop(mount);
    stored.check();
}

// --- who has it open ------------------------------------------------------------------------------------

/// A second engine in the same process is told that it is this very process; the first goes on.
#[test]
fn a_second_engine_in_one_process() {
    let (dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let id = engine.enqueue(note("one")).unwrap().id();
    // By the same path and by another one.
    let other = dir.path().join("x").join("..").join("store");
    fs::create_dir(dir.path().join("x")).unwrap();
    for path in [&store, &other] {
        let error = Engine::builder(path).open().unwrap_err();
        assert!(
            matches!(&error, Error::Locked { pid, here: true, .. } if *pid == std::process::id()),
            "{error}"
        );
        says(
            &error,
            &[
                "store",
                "in use",
                &std::process::id().to_string(),
                "this very process",
                "close that one",
            ],
        );
    }
    let next = engine.enqueue(note("two")).unwrap().id();
    engine.shutdown(MINUTE).unwrap();
    check_store(&store, &[(id, "one".to_owned()), (next, "two".to_owned())]);
}

/// A store that another process has open is refused with its pid, taken over or not; free once that one is gone.
#[test]
fn a_store_in_use_by_another_process() {
    let stored = Stored::new();
    let mut other = Other::start("hold", &stored.store);
    assert_eq!(other.line(), "open");
    for take_over in [false, true] {
        let error = Engine::builder(&stored.store)
            .take_over(take_over)
            .open()
            .unwrap_err();
        let pid = other.child.id();
        assert!(
            matches!(&error, Error::Locked { pid: p, here: false, .. } if *p == pid),
            "{error}"
        );
        says(
            &error,
            &["in use", &pid.to_string(), "host", "close that one"],
        );
    }
    other.end();
    stored.check();
}

/// A store whose process was killed opens at once, with everything in it.
#[test]
fn a_store_whose_process_was_killed() {
    let stored = Stored::new();
    let mut other = Other::start("hold", &stored.store);
    assert_eq!(other.line(), "open");
    other.child.kill().unwrap();
    other.child.wait().unwrap();
    stored.check();
}

const ROLE: &str = "JOBSLED_BAD_INPUT_ROLE";
const STORE: &str = "JOBSLED_BAD_INPUT_STORE";
const MARK: &str = "from the other process: ";

/// The other process of the tests above; as a test of its own it has nothing to do.
#[test]
fn the_other_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let store = PathBuf::from(std::env::var_os(STORE).unwrap());
    match role.as_str() {
        "hold" => {
            let engine = Engine::builder(store).open().unwrap();
            say("open");
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            engine.shutdown(MINUTE).unwrap();
        }
        "notes" => {
            let _engine = store_notes(&store);
            say("stored");
            std::thread::park();
        }
        "a_gigabyte" => say(&a_gigabyte(&store)),
        other => match other.strip_prefix("cancel ") {
            Some(blobs) => cancel_blobs(&store, blobs.parse().unwrap()),
            None => panic!("no role {other}"),
        },
    }
}

/// A line for the process that waits for it; the test harness may have begun one of its own.
#[expect(
    clippy::print_stdout,
    reason = "this is how it talks to the other process"
)]
fn say(line: &str) {
    println!("\n{MARK}{line}");
}

/// This test binary once more, as another process.
struct Other {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Other {
    fn start(role: &str, store: &Path) -> Other {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "bad_input::the_other_process",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ROLE, role)
            .env(STORE, store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Other { child, output }
    }

    /// The next line that is meant for us.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).unwrap() > 0,
                "the other process ended early"
            );
            if let Some(line) = line.trim_end().strip_prefix(MARK) {
                return line.to_owned();
            }
        }
    }

    /// Lets it end, and well.
    fn end(mut self) {
        drop(self.child.stdin.take());
        std::io::copy(&mut self.output, &mut std::io::sink()).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// --- formats from the future ----------------------------------------------------------------------------

/// A store of a newer format is refused with both versions and not touched; so is one with a damaged header.
#[test]
fn a_newer_store_format() {
    let stored = Stored::new();
    let path = stored.store.join("journal").join("jobsled");
    let whole = fs::read(&path).unwrap();
    let mut newer = whole[..whole.len() - 8].to_vec();
    newer[8..12].copy_from_slice(&2_u32.to_le_bytes());
    newer.extend_from_slice(&blake3::hash(&newer).as_bytes()[..8]);
    fs::write(&path, &newer).unwrap();
    let before = tree(&stored.store);
    let error = Engine::builder(&stored.store).open().unwrap_err();
    assert!(
        matches!(
            error,
            Error::NewerFormat {
                what: "store format",
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    says(
        &error,
        &[
            "store",
            "newer version",
            "2",
            "up to 1",
            "update this program",
            "Nothing was changed",
        ],
    );
    same_tree(&stored.store, &before, "a newer store format");

    // A layout of records that this build cannot read (another rkyv feature).
    let mut layout = whole[..whole.len() - 8].to_vec();
    layout[40] ^= 1;
    layout.extend_from_slice(&blake3::hash(&layout).as_bytes()[..8]);
    fs::write(&path, &layout).unwrap();
    let error = Engine::builder(&stored.store).open().unwrap_err();
    assert!(matches!(error, Error::Layout { .. }), "{error}");
    says(
        &error,
        &["layout", "rkyv", "little_endian", "Nothing was changed"],
    );

    // No format at all: every byte counts, and so does the length.
    for damage in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[damage] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let error = Engine::builder(&stored.store).open().unwrap_err();
        let expected = matches!(error, Error::Damaged { .. } | Error::NewerFormat { .. });
        assert!(expected, "byte {damage}: {error}");
        fs::write(&path, &whole[..damage]).unwrap();
        let error = Engine::builder(&stored.store).open().unwrap_err();
        assert!(
            matches!(error, Error::Damaged { .. }),
            "cut at {damage}: {error}"
        );
        says(
            &error,
            &["jobsled", "store header", "left alone", "keep a copy"],
        );
    }
    fs::remove_file(&path).unwrap();
    let missing = Engine::builder(&stored.store).open().unwrap_err();
    fs::write(&path, &whole).unwrap();
    stored.check();
    assert!(
        matches!(missing, Error::Damaged { .. }),
        "a missing header is damage: {missing}"
    );
}

/// An entry of a newer format is refused with both versions, and not touched.
#[test]
fn a_newer_entry_format() {
    let stored = Stored::new();
    let journal = stored.store.join("journal");
    {
        let db = sled::Config::new()
            .path(&journal)
            .segment_size(4 << 20)
            .flush_every_ms(None)
            .open()
            .unwrap();
        let (key, entry) = db.last().unwrap().unwrap();
        let mut newer = entry.to_vec();
        newer[4..6].copy_from_slice(&2_u16.to_le_bytes());
        db.insert(key, newer).unwrap();
        db.flush().unwrap();
    }
    // sled lets go of its file on a thread of its own.
    let db = fs::File::open(journal.join("db")).unwrap();
    db.lock().unwrap();
    drop(db);
    let before = tree(&stored.store);
    let error = Engine::builder(&stored.store).open().unwrap_err();
    assert!(
        matches!(
            error,
            Error::NewerFormat {
                what: "entry format",
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    says(
        &error,
        &[
            "store",
            "newer version",
            "2",
            "up to 1",
            "update this program",
            "Nothing was changed",
        ],
    );
    same_tree(&stored.store, &before, "a newer entry format");
}

// --- foreign and garbage files --------------------------------------------------------------------------

/// Files that others put beside a store, or in its folders, stay as they are and do no harm.
#[test]
fn foreign_files_beside_a_store() {
    let stored = Stored::new();
    let foreign = [
        "notes.txt",
        "journal/notes.txt",
        "payloads/notes.txt",
        "witness.bak",
    ];
    for name in foreign {
        fs::write(stored.store.join(name), "mine").unwrap();
    }
    stored.check();
    for name in foreign {
        assert_eq!(
            fs::read(stored.store.join(name)).unwrap(),
            b"mine",
            "{name}"
        );
    }
}

/// Garbage in place of a file that can be made anew is replaced, and all data is there.
#[test]
fn garbage_that_can_be_made_anew() {
    let stored = Stored::new();
    let garbage: [(&str, Option<&[u8]>); 12] = [
        (
            "journal/snap.0000000000000FFF.generating",
            Some(b"half made"),
        ),
        ("journal/snap.x.generating", Some(b"")),
        ("witness", Some(b"garbage")),
        ("witness", Some(&[0; 8192])),
        ("witness", Some(b"")),
        ("witness", None),
        ("recorder", Some(b"garbage".repeat(10_000).leak())),
        ("recorder", None),
        ("ballast", Some(b"short")),
        ("ballast", None),
        ("lock", Some(b"garbage")),
        ("lock", None),
    ];
    for (name, content) in garbage {
        let path = stored.store.join(name);
        match content {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let engine = Engine::builder(&stored.store)
            .open()
            .unwrap_or_else(|error| panic!("{name} {content:?}: {error}"));
        assert_eq!(
            engine.jobs().state(State::Ready).count().unwrap(),
            stored.jobs.len() as u64,
            "{name}"
        );
        engine.shutdown(MINUTE).unwrap();
        assert!(
            !name.ends_with(".generating") || !path.exists(),
            "{name} is still there"
        );
    }
    assert_eq!(
        fs::metadata(stored.store.join("witness")).unwrap().len(),
        8192
    );
    assert!(ballast_len(&stored.store) >= 4 << 20);
    stored.check();
}

/// The witness of another store proves nothing here: refused by its path, and removing it helps.
#[test]
fn the_witness_of_another_store() {
    let (stored, other) = (Stored::new(), Stored::new());
    let path = stored.store.join("witness");
    fs::copy(other.store.join("witness"), &path).unwrap();
    let error = Engine::builder(&stored.store).open().unwrap_err();
    assert!(
        matches!(&error, Error::ForeignWitness { path: at } if *at == path),
        "{error}"
    );
    says(
        &error,
        &["witness", "another store", "own file back", "remove"],
    );
    fs::remove_file(path).unwrap();
    stored.check();
}

/// A store whose journal is gone is not taken for a new one; put back, all is there.
#[test]
fn a_missing_journal() {
    let stored = Stored::new();
    let (journal, aside) = (
        stored.store.join("journal"),
        stored.store.with_file_name("aside"),
    );
    fs::rename(&journal, &aside).unwrap();
    let before = tree(&stored.store);
    let error = Engine::builder(&stored.store).open().unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { path, .. } if *path == stored.store),
        "{error}"
    );
    says(&error, &["journal", "missing", "left alone", "keep a copy"]);
    same_tree(&stored.store, &before, "a missing journal");
    fs::rename(&aside, &journal).unwrap();
    stored.check();
}

/// An older copy of the journal beside a newer witness: what the disk forgot is noticed and told in numbers.
#[test]
fn a_journal_older_than_its_witness() {
    let stored = Stored::new();
    let (journal, aside) = (
        stored.store.join("journal"),
        stored.store.with_file_name("aside"),
    );
    copy_tree(&journal, &aside);
    stored.check();
    fs::remove_dir_all(&journal).unwrap();
    fs::rename(&aside, &journal).unwrap();
    let before = tree(&stored.store);
    let error = Engine::builder(&stored.store).open().unwrap_err();
    assert!(
        matches!(&error, Error::Missing { path, .. } if *path == stored.store),
        "{error}"
    );
    says(
        &error,
        &[
            "lost acknowledged data",
            "witness",
            "ends at group",
            "left alone",
            "keep a copy",
        ],
    );
    same_tree(&stored.store, &before, "a journal older than its witness");
}

// --- damage ---------------------------------------------------------------------------------------------

/// A store of some size to be damaged in copies, and its jobs: closed, or left by a process that was killed.
fn pristine(end: &str) -> (TempDir, PathBuf, Vec<jobsled::JobInfo>) {
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

fn store_notes(store: &Path) -> Engine {
    let engine = Engine::builder(store).open().unwrap();
    for part in 0..15 {
        let mut batch = engine.batch();
        batch.extend((0..20).map(|n| note(&format!("{part:04} {n:04} ").repeat(20))));
        batch.enqueue().unwrap();
    }
    engine
}

/// Opens a damaged copy: all jobs as before, or an error for damage that leaves the journal as it was.
fn open_damaged(
    store: &Path,
    jobs: &[jobsled::JobInfo],
    what: &str,
) -> Result<&'static str, String> {
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
        Ok(engine) => {
            let found = engine
                .jobs()
                .list()
                .map_err(|error| format!("{what}: list: {error}"))?;
            if found != jobs {
                return Err(format!(
                    "{what}: silent loss: {} of {} jobs",
                    found.len(),
                    jobs.len()
                ));
            }
            for job in &found {
                let details = engine
                    .details(job.id)
                    .map_err(|error| format!("{what}: job {}: {error}", job.id))?;
                if details.and_then(|d| d.payload_bytes).is_none() {
                    return Err(format!("{what}: job {} has no payload", job.id));
                }
            }
            engine
                .shutdown(MINUTE)
                .map_err(|error| format!("{what}: shutdown: {error}"))?;
            Ok("all there")
        }
        Err(error) => {
            let text = error.to_string();
            if !matches!(
                error,
                Error::Damaged { .. } | Error::Missing { .. } | Error::Io { .. }
            ) {
                return Err(format!("{what}: another error than expected: {text}"));
            }
            if !text.contains(store.to_str().unwrap()) {
                return Err(format!(
                    "{what}: the message does not name the store: {text}"
                ));
            }
            let mut after = tree(store);
            // The ballast is only space.
            after.remove(Path::new("ballast"));
            let changed: Vec<_> = before
                .keys()
                .chain(after.keys())
                .filter(|n| before.get(*n) != after.get(*n))
                .collect();
            if !changed.is_empty() {
                return Err(format!("{what}: refused ({text}), but {changed:?} changed"));
            }
            Ok("refused")
        }
    }
}

/// One flipped byte anywhere in the log of a closed store: everything is there, or the damage is told and nothing changed.
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
fn damage_copies(store: &Path, jobs: &[jobsled::JobInfo], cases: Vec<(String, Damage)>) -> usize {
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

// --- a full disk ----------------------------------------------------------------------------------------

/// Below the floor new jobs are refused, what exists goes on, and with room again all is well by itself.
#[test]
fn a_full_disk_refuses_only_new_jobs() {
    const FLOOR: u64 = 12 << 20;
    let Some(mount) = Mount::tmpfs("a_full_disk_refuses_only_new_jobs", "40m") else {
        return;
    };
    let store = mount.path().join("store");
    let clock = ManualClock::at(1_700_000_000_000);
    let (handler, begun, go) = gate();
    let builder = Engine::builder(&store)
        .clock(clock.clone())
        .disk_floor(FLOOR);
    let engine = builder
        .pool(Pool::threads("p", 1))
        .handle(handler)
        .open()
        .unwrap();
    let running = engine.enqueue(note("running")).unwrap();
    begun.recv_timeout(MINUTE).unwrap();
    let next = engine.enqueue(note("next")).unwrap();

    let (stored, error) = store_until_refused(&engine);
    assert!(
        matches!(&error, Error::DiskFull { path, free, floor: FLOOR } if *path == store && *free < FLOOR),
        "{error}"
    );
    says(
        &error,
        &[
            "disk full",
            "12582912",
            "store",
            "free some space",
            "Nothing was stored",
            "running jobs can finish",
        ],
    );
    assert!(matches!(
        engine.enqueue(note("x")).unwrap_err(),
        Error::DiskFull { .. }
    ));
    assert!(matches!(
        engine.enqueue(blob(50_000)).unwrap_err(),
        Error::DiskFull { .. }
    ));
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
    let claim = engine
        .claim::<Blob>("default", Duration::ZERO)
        .unwrap()
        .unwrap();
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
    assert_eq!(engine.jobs().kind("blob").count().unwrap(), stored);
    assert_eq!(
        engine
            .jobs()
            .kind("blob")
            .state(State::Ready)
            .count()
            .unwrap(),
        stored - 21
    );
    assert_eq!(
        engine
            .jobs()
            .kind("note")
            .state(State::Completed)
            .count()
            .unwrap(),
        3
    );
}

/// Stores blobs until there is no room; how many, and the refusal.
fn store_until_refused(engine: &Engine) -> (u64, Error) {
    let mut stored = 0;
    while stored < 2_000 {
        let mut batch = engine.batch();
        batch.extend((0..16).map(|_| blob(30_000)));
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
    let claim = engine
        .claim::<Note>("default", Duration::ZERO)
        .unwrap()
        .unwrap();
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
fn cancel_blobs(store: &Path, blobs: u64) {
    let engine = Engine::builder(store).disk_floor(1 << 20).open().unwrap();
    for _ in 0..blobs {
        engine.enqueue(blob(30_000)).unwrap();
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
