#![expect(
    clippy::unwrap_used,
    reason = "the helpers of these tests say what they expect by unwrapping, as the tests do"
)]

/// A copy while the engine works on.
mod backup;
/// Lines of JSON, out and in.
#[cfg(feature = "json")]
mod export;
/// What is left of a damaged store, in a new one.
mod repair;
/// Whole or not, found out without a change.
mod verify;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobsled::{Engine, job, rkyv};

/// Long enough for any machine; reached only when something hangs.
const MINUTE: Duration = Duration::from_mins(1);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Note {
    text: String,
}
job!(Note, kind = "note", output = String);

fn note(text: &str) -> Note {
    Note {
        text: text.to_owned(),
    }
}

/// One whose payload has a file.
fn large(text: &str) -> Note {
    note(&text.repeat(50_000))
}

type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// Everything below a directory: paths, and for files their bytes.
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
            } else {
                found.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Whether nothing below a directory was changed.
#[track_caller]
fn same_tree(dir: &Path, before: &Tree, why: &str) {
    let now = tree(dir);
    let names = before.keys().chain(now.keys());
    let changed: Vec<_> = names
        .filter(|name| before.get(*name) != now.get(*name))
        .collect();
    assert!(changed.is_empty(), "{why}: {changed:?} changed");
}

/// Names in a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

fn payload_files(store: &Path) -> Vec<PathBuf> {
    let dir = store.join("payloads");
    let names = names(&dir).into_iter();
    names.map(|name| dir.join(name)).collect()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Stores what is to be kept: ready, large, done with a large output, in a paused queue, dead by discard.
fn store_some(engine: &Engine) {
    engine.queue("paused").pause().unwrap();
    for n in 0..40 {
        let kept = note(&format!("note number {n} ").repeat(20));
        engine.job(kept).queue("paused").enqueue().unwrap();
    }
    let kept = engine.job(large("kept")).queue("paused");
    kept.key("large").enqueue().unwrap();
    engine.enqueue(large("echo")).unwrap().wait().unwrap();
    engine.enqueue(note("echo")).unwrap().wait().unwrap();
}

fn echoing(store: &Path) -> Engine {
    let builder = Engine::builder(store).handle(|job: Note, _| Ok(job.text));
    builder.open().unwrap()
}
