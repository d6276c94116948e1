use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use jobsled::{Engine, Error};

use super::{MINUTE, Stored, check_store, note, place, says};

/// The owner of a store renames its journal while it opens and closes it; whoever came at that moment was told that
/// the store was none.
#[test]
fn a_store_whose_owner_is_renaming_is_in_use() {
    let (_dir, store) = place();
    let engine = Engine::builder(&store).open().unwrap();
    let (now, old) = (store.join("journal"), store.join("journal.old"));
    fs::rename(&now, &old).unwrap();
    fs::create_dir(&now).unwrap();
    let error = Engine::builder(&store).open().unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let error = jobsled::verify(&store, None).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    fs::remove_dir(&now).unwrap();
    fs::rename(&old, &now).unwrap();
    engine.shutdown(MINUTE).unwrap();
}

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
            let _engine = super::damage::store_notes(&store);
            say("stored");
            std::thread::park();
        }
        "a_gigabyte" => say(&super::jobs::a_gigabyte(&store)),
        other => match other.strip_prefix("cancel ") {
            Some(blobs) => super::full_disk::cancel_blobs(&store, blobs.parse().unwrap()),
            None => panic!("no role {other}"),
        },
    }
}

/// A line for the process that waits for it; the test harness may have begun one of its own.
#[expect(
    clippy::print_stdout,
    reason = "this is how it talks to the other process"
)]
pub(super) fn say(line: &str) {
    println!("\n{MARK}{line}");
}

/// This test binary once more, as another process.
pub(super) struct Other {
    pub(super) child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Other {
    pub(super) fn start(role: &str, store: &Path) -> Other {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "bad_input::processes::the_other_process",
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
    pub(super) fn line(&mut self) -> String {
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
    pub(super) fn end(mut self) {
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
