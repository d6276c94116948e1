//! One damaged store: opened, and repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobsled::{Error, JobId, JournalEnd, RepairReport};

use super::entries::whole_entries;
use super::known::{Known, Pristine, Seen, is_of, look, open};
use super::mutate::{Done, damage};
use crate::random::Random;

/// What is counted.
pub(super) const NOTES: &[&str] = &[
    "all there",
    "a payload told",
    "refused",
    "repaired",
    "repaired whole",
    "nothing left",
    "jobs before",
    "jobs saved",
    "jobs uncertain",
    "jobs lost",
];

type Counts = BTreeMap<&'static str, u64>;
type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// Damages a store and judges what comes of it.
pub(super) fn judge(seed: u64, stores: &[Pristine], dir: &Path) -> Result<String, String> {
    let random = &mut Random::new(seed);
    // The larger ones take their time.
    let pick = random
        .below(stores.len() as u64)
        .min(random.below(stores.len() as u64));
    let mut order: Vec<&Pristine> = stores.iter().collect();
    order.sort_by_key(|store| {
        store.without.jobs.len() + 1_000 * usize::from(store.name.contains("compacting"))
    });
    let pristine = order[usize::try_from(pick).unwrap()];
    for name in ["store", "new"] {
        fs::remove_dir_all(dir.join(name)).ok();
    }
    let store = dir.join("store");
    copy_tree(&pristine.dir, &store).map_err(|e| format!("copying: {e}"))?;
    let mut done = damage(&store, random, stores);
    // A block may be copied onto itself, and a file be another store's that is the same.
    while tree(&store) == tree(&pristine.dir) {
        done = damage(&store, random, stores);
    }
    let mut counts = Counts::new();
    let repairs = random.one_in(8);
    let judged = after(pristine, &store, &done, repairs, &mut counts);
    let told = judged.map_err(|why| format!("{} {:?}: {why}", pristine.name, done.what))?;
    let counts: Vec<String> = counts
        .iter()
        .map(|(what, n)| format!("{what}={n}"))
        .collect();
    Ok(format!(
        "{}\t{} {:?} {told}",
        counts.join("\t"),
        pristine.name,
        done.what
    ))
}

fn after(
    pristine: &Pristine,
    store: &Path,
    done: &Done,
    repairs: bool,
    counts: &mut Counts,
) -> Result<String, String> {
    let before = tree(store);
    let refusal = match open(store) {
        Ok(engine) => {
            let seen = look(&engine).map_err(|e| format!("opened, and then: {e}"))?;
            engine
                .shutdown(Duration::from_mins(1))
                .map_err(|e| format!("closing: {e}"))?;
            *counts
                .entry(pristine.either(|pristine| opened_well(pristine, &seen, done))?)
                .or_default() += 1;
            if !repairs {
                return Ok(String::new());
            }
            // As it was before the opening.
            put_back(store, &before);
            None
        }
        Err(error) => {
            *counts.entry("refused").or_default() += 1;
            refused_well(&error)?;
            unchanged(store, &before, &format!("refused ({error})"))?;
            Some(error)
        }
    };
    let new = store.with_file_name("new");
    let before = tree(store);
    let made = jobsled::repair(store, &new);
    unchanged(store, &before, "repaired")?;
    let report = match made {
        Ok(report) => report,
        Err(error) => {
            *counts.entry("nothing left").or_default() += 1;
            return match refusal {
                Some(refusal) if may_be_hopeless(&error, store, pristine, done) => {
                    Ok(format!("{refusal} / {error}"))
                }
                other => Err(format!("nothing repaired: {error}, after {other:?}")),
            };
        }
    };
    repaired_well(pristine, &new, &report, done)?;
    let mut count = |what, n: usize| *counts.entry(what).or_default() += n as u64;
    count("repaired", 1);
    count("repaired whole", usize::from(report.is_whole()));
    count("jobs before", pristine.without.jobs.len());
    count("jobs saved", usize::try_from(report.jobs()).unwrap());
    count("jobs uncertain", report.uncertain.len());
    count(
        "jobs lost",
        pristine
            .without
            .jobs
            .len()
            .saturating_sub(usize::try_from(report.jobs()).unwrap()),
    );
    Ok(format!("{refusal:?} / {report:?}"))
}

/// All jobs are as one of the two sound openings shows them, or say themselves what they lack.
fn opened_well(pristine: &Pristine, seen: &Known, done: &Done) -> Result<&'static str, String> {
    let ids = |known: &Known| known.jobs.keys().copied().collect::<BTreeSet<u64>>();
    if ids(seen) != ids(&pristine.without) {
        return Err(format!(
            "silent loss: {} jobs of {}",
            seen.jobs.len(),
            pristine.without.jobs.len()
        ));
    }
    if seen.controls != pristine.without.controls {
        return Err(format!(
            "controls {} instead of {}",
            seen.controls, pristine.without.controls
        ));
    }
    let mut told = false;
    for (id, job) in &seen.jobs {
        told |= job.told;
        if !is_as_known(pristine, *id, job) {
            return Err(format!(
                "job {id} is {job:?} and not {:?}",
                pristine.without.jobs.get(id)
            ));
        }
    }
    if told && !done.touches("payloads") {
        return Err("a payload is called damaged that nobody touched".to_owned());
    }
    Ok(if told { "a payload told" } else { "all there" })
}

fn is_as_known(pristine: &Pristine, id: u64, job: &Seen) -> bool {
    let known = [&pristine.with_recorder, &pristine.without];
    known
        .into_iter()
        .filter_map(|known| known.jobs.get(&id))
        .any(|known| {
            let same = |found: &Option<String>, known: &Option<String>| {
                found == known || (job.told && found.is_none())
            };
            job.about == known.about
                && same(&job.payload, &known.payload)
                && same(&job.output, &known.output)
        })
}

fn refused_well(error: &Error) -> Result<(), String> {
    let typed = matches!(
        error,
        Error::Damaged { .. }
            | Error::Missing { .. }
            | Error::ForeignWitness { .. }
            | Error::NewerFormat { .. }
            | Error::NotAStore { .. }
            | Error::Io { .. }
    );
    if typed {
        Ok(())
    } else {
        Err(format!(
            "refused with another error than one for damage: {error:?}"
        ))
    }
}

/// Whether it may be that nothing could be saved.
fn may_be_hopeless(error: &Error, store: &Path, pristine: &Pristine, done: &Done) -> bool {
    match error {
        Error::NothingLeft { .. } => {
            let stores_in = |dir: &Path| -> BTreeSet<u128> {
                let logs = ["journal", "journal.new", "journal.old"];
                let logs = logs.map(|log| fs::read(dir.join(log).join("db")).unwrap_or_default());
                let entries = logs.iter().flat_map(|log| whole_entries(log));
                entries.map(|entry| entry.store).collect()
            };
            // A block of another store's journal brings entries, and none of this one's.
            stores_in(store).is_disjoint(&stores_in(&pristine.dir))
        }
        // A lock of a later version.
        Error::NewerFormat { .. } => done.touches("lock"),
        _ => false,
    }
}

/// What the report does not list is as it was, and what is not there is listed.
fn repaired_well(
    pristine: &Pristine,
    new: &Path,
    report: &RepairReport,
    done: &Done,
) -> Result<(), String> {
    let verified = jobsled::verify(new, new.parent()).map_err(|e| format!("what was made: {e}"))?;
    if verified.jobs() != report.jobs() {
        return Err(format!(
            "{} jobs, and not {}",
            verified.jobs(),
            report.jobs()
        ));
    }
    let engine = open(new).map_err(|e| format!("what was made does not open: {e}"))?;
    let seen = look(&engine).map_err(|e| format!("what was made: {e}"))?;
    let next = engine.json("note", &serde_json::json!({})).enqueue();
    let next = next
        .map_err(|e| format!("what was made: {e}"))?
        .handle()
        .id()
        .number();
    engine
        .shutdown(Duration::from_mins(1))
        .map_err(|e| format!("closing: {e}"))?;
    pristine.either(|pristine| made_well(pristine, &seen, next, report, done))
}

fn made_well(
    pristine: &Pristine,
    seen: &Known,
    next: u64,
    report: &RepairReport,
    done: &Done,
) -> Result<(), String> {
    let highest = pristine
        .ledger
        .keys()
        .chain(pristine.without.jobs.keys())
        .max();
    if highest.is_some_and(|highest| next <= *highest) {
        return Err(format!("id {next} is given out again"));
    }
    as_listed(pristine, seen, report)?;
    let whole = seen.controls == pristine.without.controls;
    if report.is_whole() && !(whole && seen.jobs == pristine.without.jobs) {
        return Err("called whole, and is not".to_owned());
    }
    if report.end == JournalEnd::Unknown && !done.touches("witness") {
        return Err("the witness is not believed, and nobody touched it".to_owned());
    }
    Ok(())
}

/// Every job is as it was, or is in a list of the report.
fn as_listed(pristine: &Pristine, seen: &Known, report: &RepairReport) -> Result<(), String> {
    let uncertain: BTreeSet<u64> = report.uncertain.iter().map(|job| job.id.number()).collect();
    let outputs: BTreeSet<u64> = report
        .lost_files
        .iter()
        .map(|file| file.id.number())
        .collect();
    for (id, job) in &seen.jobs {
        let number = JobId::from_number(*id);
        if !is_of(pristine, number, job.payload.as_deref()) {
            return Err(format!("job {id} never was: {job:?}"));
        }
        if job.told {
            return Err(format!("job {id} has a file that is damaged"));
        }
        let exact = match pristine.without.jobs.get(id) {
            Some(known) if outputs.contains(id) => known.about == job.about,
            Some(known) => known == job,
            None => false,
        };
        if !exact && !uncertain.contains(id) {
            return Err(format!(
                "job {id} is {job:?} and not {:?}",
                pristine.without.jobs.get(id)
            ));
        }
        if pristine.once.contains(id) && !job.is_finished {
            return Err(format!("job {id} has begun, must not run twice, and will"));
        }
    }
    let lost: BTreeSet<u64> = report.lost.iter().map(|job| job.id.number()).collect();
    for id in pristine
        .without
        .jobs
        .keys()
        .filter(|id| !seen.jobs.contains_key(id))
    {
        let unknown = report
            .unknown_ids
            .iter()
            .any(|(first, last)| (first..=last).contains(&id));
        if !unknown && !lost.contains(id) {
            return Err(format!("job {id} is gone in silence"));
        }
    }
    Ok(())
}

fn unchanged(store: &Path, before: &Tree, why: &str) -> Result<(), String> {
    let (before, after) = (&swapped(before), &swapped(&tree(store)));
    let names = before.keys().chain(after.keys());
    // Who has it, and a copy that an opening or a closing did not end.
    let has_journal = before.contains_key(Path::new("journal"));
    let ours = |name: &Path| {
        let first = name.iter().next().unwrap_or_default();
        first == "lock" || first == "ballast" || (first == "journal.new" && has_journal)
    };
    let changed: Vec<_> = names
        .filter(|name| before.get(*name) != after.get(*name) && !ours(name))
        .collect();
    if changed.is_empty() {
        Ok(())
    } else {
        Err(format!("{why}, but {changed:?} changed"))
    }
}

/// The same once the journal has its name, if it died between two.
fn swapped(tree: &Tree) -> Tree {
    let has = |name: &str| tree.contains_key(Path::new(name));
    let whole = match (has("journal"), has("journal.old"), has("journal.new")) {
        (false, true, true) => "journal.new",
        (false, true, false) => "journal.old",
        _ => "journal",
    };
    let renamed = |name: &PathBuf| match name.strip_prefix(whole) {
        Ok(rest) => Path::new("journal").join(rest).components().collect(),
        Err(_) => name.clone(),
    };
    tree.iter()
        .map(|(name, bytes)| (renamed(name), bytes.clone()))
        .collect()
}

/// Everything below a directory: for files their bytes, for directories nothing.
fn tree(dir: &Path) -> Tree {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, b"a directory".to_vec());
                dirs.push(path);
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn put_back(dir: &Path, tree: &Tree) {
    fs::remove_dir_all(dir).unwrap();
    for (name, bytes) in tree {
        let path = dir.join(name);
        if bytes == b"a directory" {
            fs::create_dir_all(&path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_tree(&path, &target)?;
        } else if path.is_file() {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
