//! What the store holds in the end, seen through the library's public face, and whether the hashes in it
//! are right.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use jobsled::{Engine, Finished, JobInfo, State};

use super::job::{self, Hash, HashFile};
use super::place::Place;
use super::plan::{Plan, Planned};
use crate::commands::Failure;

/// Jobs and outputs.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) jobs: BTreeMap<u64, Stored>,
    /// Completions, by the store's own count since it was made.
    pub(super) completions: u64,
    /// Files that are not as they were when the plan was made: their hashes prove nothing.
    pub(super) files_changed: u64,
    /// Files that could not be read, by the jobs nor now.
    pub(super) files_unreadable: u64,
}

/// A job in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) state: State,
    /// False if the job is completed and its output is not the hash of its file.
    pub(super) output_is_right: bool,
}

/// What the output of a file's jobs must be.
enum Expected {
    Hash(Hash),
    Unreadable,
    /// It was changed meanwhile.
    Anything,
}

/// Opens the store without handlers, so that nothing in it changes.
pub(super) fn look(place: &Place, plan: &Plan) -> Result<Found, Failure> {
    let path = place.store();
    let unreadable = |e: jobsled::Error| Failure::NotWell(format!("the store cannot be read: {e}"));
    let engine = job::engine(&path).open().map_err(unreadable)?;
    let found = read(&engine, plan).map_err(unreadable)?;
    engine.shutdown(Duration::ZERO).map_err(unreadable)?;
    Ok(found)
}

fn read(engine: &Engine, plan: &Plan) -> jobsled::Result<Found> {
    let expected: Vec<Expected> = plan.files.iter().map(|file| expect(plan, file)).collect();
    let mut found = Found {
        completions: engine.stats()?.counters.completed,
        files_changed: expected
            .iter()
            .filter(|e| matches!(e, Expected::Anything))
            .count() as u64,
        files_unreadable: expected
            .iter()
            .filter(|e| matches!(e, Expected::Unreadable))
            .count() as u64,
        ..Found::default()
    };
    for info in engine.jobs().list()? {
        let output_is_right =
            info.state != State::Completed || is_right(engine, plan, &expected, &info)?;
        found.jobs.insert(
            info.id.number(),
            Stored {
                state: info.state,
                output_is_right,
            },
        );
    }
    Ok(found)
}

/// Whether a completed job has the right output.
fn is_right(
    engine: &Engine,
    plan: &Plan,
    expected: &[Expected],
    info: &JobInfo,
) -> jobsled::Result<bool> {
    let output = match engine.handle::<HashFile>(info.id)? {
        Some(handle) => handle.wait()?,
        None => return Ok(false),
    };
    let job = info.key.as_deref().and_then(|key| key.parse().ok());
    let expected = job.and_then(|job| expected.get(plan.file_number(job)));
    Ok(match (output, expected) {
        (Finished::Completed(Some(hash)), Some(Expected::Hash(expected))) => hash == *expected,
        (Finished::Completed(None), Some(Expected::Unreadable))
        | (Finished::Completed(_), Some(Expected::Anything)) => true,
        _ => false,
    })
}

/// Hashes the file in one piece, in this process.
fn expect(plan: &Plan, file: &Planned) -> Expected {
    let path = plan.root.join(&file.path);
    let content = fs::read(&path);
    let now = fs::metadata(&path);
    let unchanged = now
        .as_ref()
        .is_ok_and(|now| now.len() == file.bytes && now.modified().ok() == file.modified);
    match content {
        Ok(content) if unchanged => Expected::Hash(blake3::hash(&content).into()),
        Err(_) if unchanged => Expected::Unreadable,
        _ => Expected::Anything,
    }
}
