//! What is known of a store: what the public API shows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobsled::{DeadReason, Engine, Error, JobId, State};
use serde::{Deserialize, Serialize};

use super::entries::whole_entries;
use super::judge::copy_tree;

/// A job as it is seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Everything but payload and output; scheduled and ready are one, for time goes on.
    pub(super) about: String,
    pub(super) is_finished: bool,
    /// The hash of its payload; `None` once it is gone.
    pub(super) payload: Option<String>,
    pub(super) output: Option<String>,
    /// Payload or output could not be read, and that was told.
    pub(super) told: bool,
}

/// All that is seen of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) jobs: BTreeMap<u64, Seen>,
    /// Queues with their controls, and how many keys are held.
    pub(super) controls: String,
}

/// A store that was not damaged yet.
#[derive(Debug)]
pub(super) struct Pristine {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    /// As it is after an opening that has the recorder's word, and after one that has not.
    pub(super) with_recorder: Known,
    pub(super) without: Known,
    /// Payloads of all jobs that were ever acknowledged.
    pub(super) ledger: BTreeMap<u64, String>,
    /// Jobs that must not run twice and had begun.
    pub(super) once: BTreeSet<u64>,
    /// The same without its newest group, if the witness has not seen that: nobody was told of it, and damage may take
    /// it without a word.
    pub(super) unwitnessed: Option<Box<Pristine>>,
}

impl Pristine {
    /// Whether it holds of the store, or of what it was before the group that nobody was told of.
    pub(super) fn either<T>(
        &self,
        holds: impl Fn(&Pristine) -> Result<T, String>,
    ) -> Result<T, String> {
        holds(self).or_else(|why| match &self.unwitnessed {
            Some(before) => holds(before).map_err(|_| why),
            None => Err(why),
        })
    }
}

/// Looks at a store that is open.
pub(super) fn look(engine: &Engine) -> Result<Known, Error> {
    let mut known = Known::default();
    for job in engine.jobs().list()? {
        let id = job.id;
        let Some(mut details) = engine.details(id)? else {
            continue;
        };
        let is_finished = details.info.state.is_finished();
        if details.info.state == State::Scheduled {
            details.info.state = State::Ready;
        }
        details.info.parked = false;
        if details.info.dead_reason == Some(DeadReason::Crashed) {
            // Then it died: when the store was opened.
            details.info.due_ms = 0;
            details.info.finished_at_ms = None;
        }
        let mut told = false;
        let mut hash = |stored: Result<Option<jobsled::Stored>, Error>| match stored {
            Ok(stored) => Ok(stored.map(|stored| blake3::hash(stored.bytes()).to_string())),
            Err(Error::Damaged { .. } | Error::Io { .. }) => {
                told = true;
                Ok(None)
            }
            Err(error) => Err(error),
        };
        let (payload, output) = (hash(engine.payload(id))?, hash(engine.output(id))?);
        let seen = Seen {
            about: format!("{details:?}"),
            is_finished,
            payload,
            output,
            told,
        };
        known.jobs.insert(id.number(), seen);
    }
    let stats = engine.stats()?;
    let mut queues: Vec<String> = stats
        .queues
        .iter()
        .map(|queue| format!("{} {} {:?}", queue.name, queue.paused, queue.concurrency))
        .collect();
    queues.sort_unstable();
    known.controls = format!("{queues:?}, {} keys held", stats.held_keys);
    Ok(known)
}

pub(super) fn open(store: &Path) -> Result<Engine, Error> {
    // Nothing is deleted by this program's idea of what is worth keeping.
    Engine::builder(store)
        .keep_finished(usize::MAX)
        .keep_dead(usize::MAX, Duration::MAX)
        .open()
}

/// Looks at copies of a store that was just made, and writes down what it has.
pub(super) fn note(dir: &Path) {
    let store = dir.join("store");
    fs::remove_file(store.join("ballast")).ok();
    let copy = dir.join("copy");
    let mut seen = Vec::new();
    for (cuts, forgets) in [(false, false), (false, true), (true, false), (true, true)] {
        copy_tree(&store, &copy).unwrap();
        if forgets {
            fs::remove_file(copy.join("recorder")).unwrap();
        }
        if cuts {
            cut_newest_group(&copy);
        }
        let engine = match open(&copy) {
            // The witness has seen the newest group.
            Err(_) if cuts => None,
            opened => Some(opened.unwrap()),
        };
        if let Some(engine) = engine {
            seen.push(look(&engine).unwrap());
            engine.shutdown(Duration::from_mins(1)).unwrap();
        }
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(
        seen[0].jobs.len() > 10,
        "{}: hardly any jobs",
        dir.display()
    );
    fs::write(dir.join("known.json"), serde_json::to_vec(&seen).unwrap()).unwrap();
}

/// Zeroes all entries of the newest group, wherever the journal may be.
fn cut_newest_group(store: &Path) {
    for dir in ["journal", "journal.new", "journal.old"] {
        let path = store.join(dir).join("db");
        let Ok(mut log) = fs::read(&path) else {
            continue;
        };
        let entries = whole_entries(&log);
        let Some(newest) = entries.iter().map(|entry| entry.group).max() else {
            continue;
        };
        for entry in entries.into_iter().filter(|entry| entry.group == newest) {
            log[entry.bytes].fill(0);
        }
        fs::write(&path, log).unwrap();
    }
}

/// All stores below `root`.
pub(super) fn load(root: &Path) -> Vec<Pristine> {
    let entries = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut dirs: Vec<PathBuf> = entries
        .filter(|dir| dir.join("known.json").exists())
        .collect();
    dirs.sort_unstable();
    dirs.into_iter().map(|dir| load_one(&dir)).collect()
}

fn load_one(dir: &Path) -> Pristine {
    let seen: Vec<Known> =
        serde_json::from_slice(&fs::read(dir.join("known.json")).unwrap()).unwrap();
    let mut seen = seen.into_iter();
    let mut two = || Some([seen.next()?, seen.next()?]);
    let (whole, cut) = (two().unwrap(), two());
    let ledger = fs::read_to_string(dir.join("ledger")).unwrap();
    let ledger = ledger.lines().filter_map(|line| {
        let (id, hash) = line.split_once(' ')?;
        Some((id.parse().ok()?, hash.to_owned()))
    });
    let ledger: BTreeMap<u64, String> = ledger.collect();
    if let Some([_, cut]) = &cut {
        let acknowledged = whole[1].jobs.keys().filter(|id| ledger.contains_key(id));
        let lacks = acknowledged.filter(|id| !cut.jobs.contains_key(id)).count();
        assert_eq!(
            lacks,
            0,
            "{}: the witness has not seen what was told",
            dir.display()
        );
    }
    let of = |[with_recorder, without]: [Known; 2]| {
        let once = without
            .jobs
            .iter()
            .filter(|(_, job)| job.about.contains("Some(Crashed)"));
        Pristine {
            name: dir.file_name().unwrap().to_string_lossy().into_owned(),
            dir: dir.join("store"),
            once: once.map(|(id, _)| *id).collect(),
            with_recorder,
            without,
            ledger: ledger.clone(),
            unwitnessed: None,
        }
    };
    Pristine {
        unwitnessed: cut.map(|cut| Box::new(of(cut))),
        ..of(whole)
    }
}

/// Whether such an id was given out, and with which payload.
pub(super) fn is_of(pristine: &Pristine, id: JobId, payload: Option<&str>) -> bool {
    let told = pristine.ledger.get(&id.number());
    match (told, payload) {
        (Some(hash), Some(payload)) => hash == payload,
        (Some(_), None) => true,
        // Stored, and the process died before it was told; or one that was held.
        (None, _) => pristine.without.jobs.contains_key(&id.number()),
    }
}
