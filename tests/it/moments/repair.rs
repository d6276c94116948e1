use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobsled::{
    Engine, Error, JobDetails, JobId, JobInfo, JournalEnd, OnCrash, RepairReport, State, repair,
    verify,
};
use tempfile::TempDir;

use super::{
    MINUTE, copy_tree, echoing, large, names, note, payload_files, same_tree, store_some, tree,
};

/// A store of 43 jobs, closed, and where the new one will be.
fn stored() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (store, new) = (dir.path().join("store"), dir.path().join("new"));
    let engine = echoing(&store);
    store_some(&engine);
    engine.queue("paused").pause().unwrap();
    engine.shutdown(MINUTE).unwrap();
    (dir, store, new)
}

/// Repairs; whatever it says, the damaged store is as it was, nothing else is left, and what was made is whole.
#[track_caller]
fn mend(store: &Path, new: &Path) -> Result<RepairReport, Error> {
    let before = tree(store);
    let others = names(store.parent().unwrap());
    let made = repair(store, new);
    same_tree(store, &before, "repaired");
    match &made {
        Ok(report) => assert_eq!(verify(new, None).unwrap().jobs(), report.jobs()),
        Err(_) => assert_eq!(names(store.parent().unwrap()), others, "left over"),
    }
    made
}

type Known = Vec<(JobInfo, JobDetails, Option<Vec<u8>>, Option<Vec<u8>>)>;

/// All that can be seen of all jobs.
fn known(store: &Path) -> Known {
    let engine = Engine::builder(store).open().unwrap();
    let seen = |job: JobInfo| {
        let id = job.id;
        let bytes = |stored: Option<jobsled::Stored>| stored.map(jobsled::Stored::into_bytes);
        let details = engine.details(id).unwrap().unwrap();
        let payload = bytes(engine.payload(id).unwrap());
        (job, details, payload, bytes(engine.output(id).unwrap()))
    };
    let jobs = engine.jobs().list().unwrap();
    let known = jobs.into_iter().map(seen).collect();
    engine.shutdown(MINUTE).unwrap();
    known
}

fn id(number: u64) -> JobId {
    JobId::from_number(number)
}

/// Flips a bit wherever these bytes are in the log. How often they were there.
fn flip_all(store: &Path, needle: &[u8]) -> usize {
    let log = store.join("journal").join("db");
    let mut bytes = fs::read(&log).unwrap();
    let all = bytes.windows(needle.len()).enumerate();
    let places = all.filter(|(_, window)| *window == needle);
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    places
        .iter()
        .for_each(|at| *bytes.get_mut(*at).unwrap() ^= 4);
    fs::write(&log, bytes).unwrap();
    places.len()
}

/// All jobs but these are the same in both.
#[track_caller]
fn same_but(before: &Known, after: &Known, but: RangeInclusive<u64>) {
    let others = |jobs: &Known| -> Known {
        let all = jobs.iter().cloned();
        all.filter(|(job, ..)| !but.contains(&job.id.number()))
            .collect()
    };
    let (before, after) = (others(before), others(after));
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after, "{:?}\n{:?}", before.1, after.1);
    }
}

/// Closed, or as a crash leaves it, also without the files that sled cannot do without.
#[test]
fn a_sound_journal_is_saved_whole() {
    let (dir, store, new) = stored();
    let crashed = dir.path().join("crashed");
    let engine = echoing(&store);
    copy_tree(&store, &crashed);
    let refused = repair(&store, &new).unwrap_err();
    assert!(
        matches!(refused, Error::Locked { here: true, .. }),
        "{refused}"
    );
    engine.shutdown(MINUTE).unwrap();
    let before = known(&store);
    for (number, (from, without)) in [
        (&store, &[][..]),
        (&crashed, &[]),
        (&store, &["conf"]),
        (&store, &["conf", "jobsled"]),
    ]
    .into_iter()
    .enumerate()
    {
        let (copy, new) = (
            dir.path().join(format!("copy{number}")),
            dir.path().join(format!("new{number}")),
        );
        copy_tree(from, &copy);
        for name in without {
            fs::remove_file(copy.join("journal").join(name)).unwrap();
        }
        let report = mend(&copy, &new).unwrap();
        assert!(report.is_whole() && report.gaps.is_empty(), "{report:?}");
        assert_eq!((report.jobs(), report.payload_files), (43, 2));
        assert_eq!((report.next_id, report.entries_by_sled), (44, None));
        same_but(&before, &known(&new), 0..=0);
        let engine = echoing(&new);
        assert!(has_key(&engine, "large"));
        assert_eq!(engine.enqueue(note("next")).unwrap().id(), id(44));
        engine.shutdown(MINUTE).unwrap();
    }
}

/// The key belongs to a job that is there.
fn has_key(engine: &Engine, key: &str) -> bool {
    let placed = engine.job(note("x")).key(key).enqueue().unwrap();
    !placed.is_new()
}

/// One job's bytes are damaged wherever they are: it is lost, and its id is told; what was said before it may be
/// out of date, and is told as well.
#[test]
fn a_damaged_entry_costs_what_is_in_it() {
    let (_dir, store, new) = stored();
    let before = known(&store);
    assert!(flip_all(&store, b"note number 17 note number 17") > 0);
    Engine::builder(&store).open().unwrap_err();
    let report = mend(&store, &new).unwrap();
    assert!(
        !report.is_whole() && report.end == JournalEnd::Whole,
        "{report:?}"
    );
    assert_eq!(report.gaps.len(), 1, "{report:?}");
    let [(first, last)] = report.unknown_ids[..] else {
        panic!("{report:?}");
    };
    let is_17 = |bytes: &Vec<u8>| bytes.starts_with(b"note number 17 ");
    let gone = before
        .iter()
        .find(|(.., payload, _)| payload.as_ref().is_some_and(is_17));
    let gone = gone.unwrap().0.id.number();
    assert!((first..=last).contains(&gone), "{gone}: {report:?}");
    same_but(&before, &known(&new), first..=last);
    assert_eq!(report.jobs(), 43 - (last - first + 1));
    // What comes before the gap may have moved on in it.
    let uncertain: Vec<u64> = report.uncertain.iter().map(|job| job.id.number()).collect();
    let earlier = before.iter().map(|(job, ..)| job.id.number());
    assert_eq!(
        uncertain,
        earlier.filter(|id| *id < first).collect::<Vec<_>>()
    );
    assert_eq!(report.next_id, 44);
}

/// The journal of yesterday beside the witness of today: all is as of yesterday, and doubtful. What must not run
/// twice does not run.
#[test]
fn a_journal_without_its_end_is_as_it_was_last_seen() {
    let (dir, store, new) = stored();
    let engine = Engine::builder(&store).open().unwrap();
    let later = Duration::from_hours(1);
    let once = engine
        .job(note("once"))
        .on_crash(OnCrash::Dead)
        .after(later);
    let once = once.key("once").enqueue().unwrap().handle().id();
    engine.shutdown(MINUTE).unwrap();
    let older = dir.path().join("older");
    copy_tree(&store, &older);
    let engine = Engine::builder(&store).open().unwrap();
    let newest = engine.enqueue(note("acknowledged")).unwrap().id();
    engine.shutdown(MINUTE).unwrap();
    fs::copy(store.join("witness"), older.join("witness")).unwrap();
    let refused = Engine::builder(&older).open().unwrap_err().to_string();
    assert!(refused.contains("jobsled repair"), "{refused}");

    let before = known(&store);
    let report = mend(&older, &new).unwrap();
    assert_eq!(report.end, JournalEnd::Missing);
    assert!(report.witnessed.is_some_and(|group| group > report.group));
    assert_eq!((report.jobs(), report.uncertain.len()), (44, 44));
    let stopped: Vec<JobId> = report
        .uncertain
        .iter()
        .filter(|job| job.stopped)
        .map(|job| job.id)
        .collect();
    assert_eq!(stopped, [once]);
    let [(first, last)] = report.unknown_ids[..] else {
        panic!("{report:?}");
    };
    assert_eq!((first, last), (newest.number(), report.next_id - 1));
    same_but(&before, &known(&new), once.number()..=newest.number());
    let engine = Engine::builder(&new).open().unwrap();
    let dead = engine.details(once).unwrap().unwrap();
    assert_eq!(dead.info.state, State::Dead);
    assert!(
        dead.reason.contains("must not run twice"),
        "{}",
        dead.reason
    );
    assert!(engine.enqueue(note("next")).unwrap().id() > newest);
    engine.shutdown(MINUTE).unwrap();
}

/// Without a payload a job cannot run: it is told, its key stays taken, and the others are whole.
#[test]
fn a_lost_payload_costs_one_job() {
    let (_dir, store, new) = stored();
    let before = known(&store);
    let files = payload_files(&store);
    fs::write(&files[0], b"cut").unwrap();
    fs::remove_file(&files[1]).unwrap();
    let report = mend(&store, &new).unwrap();
    assert_eq!(report.lost_files.len(), 2, "{report:?}");
    let after = known(&new);
    let mut gone = 0;
    for file in &report.lost_files {
        let (job, ..) = before.iter().find(|(job, ..)| job.id == file.id).unwrap();
        let kept = after.iter().find(|(job, ..)| job.id == file.id);
        if file.what == "payload" {
            assert!(kept.is_none() && job.state != State::Completed);
            assert!(
                report
                    .lost
                    .iter()
                    .any(|lost| lost.id == file.id && lost.kind.is_some())
            );
            gone += 1;
        } else {
            assert_eq!(kept.map(|(job, ..)| job), Some(job));
        }
    }
    assert_eq!((report.lost.len(), report.jobs()), (gone, 43 - gone as u64));
    assert!(report.uncertain.is_empty() && report.unknown_ids.is_empty());
    let engine = echoing(&new);
    assert!(has_key(&engine, "large"));
}

/// What is no store, was never one, or is all gone.
#[test]
fn where_nothing_can_be_saved_nothing_is_made() {
    let (dir, store, new) = stored();
    let at = |name: &str| dir.path().join(name);
    for name in ["empty", "other"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("file"), b"mine").unwrap();
    fs::write(at("other").join("mine"), b"mine").unwrap();
    copy_tree(&store, &at("headless"));
    fs::remove_dir_all(at("headless").join("journal")).unwrap();
    copy_tree(&store, &at("zero"));
    let log = at("zero").join("journal").join("db");
    let zeroes = vec![0; fs::read(&log).unwrap().len()];
    fs::write(&log, zeroes).unwrap();
    for (name, word) in [
        ("missing", "there is nothing of this name"),
        ("empty", "no journal"),
        ("other", "no journal"),
        ("file", "it is a file"),
        ("headless", "nothing of its journal is left"),
        ("zero", "nothing of its journal is left"),
    ] {
        let before = tree(dir.path());
        let refused = repair(at(name), &new).unwrap_err();
        assert!(refused.to_string().contains(word), "{name}: {refused}");
        let is_all_gone = matches!(refused, Error::NothingLeft { .. });
        assert_eq!(
            is_all_gone,
            ["headless", "zero"].contains(&name),
            "{refused}"
        );
        same_tree(dir.path(), &before, name);
    }
}

#[test]
fn a_repair_overwrites_nothing() {
    let (dir, store, new) = stored();
    fs::create_dir(&new).unwrap();
    fs::write(new.join("mine"), b"mine").unwrap();
    for to in [new.as_path(), &store, &store.join("inside")] {
        let before = tree(dir.path());
        let refused = repair(&store, to).unwrap_err();
        assert!(matches!(refused, Error::Occupied { .. }), "{refused}");
        same_tree(dir.path(), &before, "occupied");
    }
    fs::remove_file(new.join("mine")).unwrap();
    assert!(mend(&store, &new).unwrap().is_whole());
}

/// Entries of another store in the log, and its witness: neither is believed.
#[test]
fn what_is_of_another_store_is_left_out() {
    let (dir, store, new) = stored();
    let before = known(&store);
    let other = dir.path().join("other");
    let engine = echoing(&other);
    for n in 0..5 {
        engine.enqueue(large(&n.to_string())).unwrap();
        engine.enqueue(note("of another store")).unwrap();
    }
    engine.shutdown(MINUTE).unwrap();
    let log = |store: &Path| store.join("journal").join("db");
    let mut bytes = fs::read(log(&store)).unwrap();
    bytes.extend(fs::read(log(&other)).unwrap());
    fs::write(log(&store), bytes).unwrap();
    assert!(mend(&store, &new).unwrap().is_whole());
    same_but(&before, &known(&new), 0..=0);
    fs::copy(other.join("witness"), store.join("witness")).unwrap();
    let report = mend(&store, &dir.path().join("second")).unwrap();
    assert_eq!((report.end, report.witnessed), (JournalEnd::Unknown, None));
    assert!(report.uncertain.is_empty() && report.jobs() == 43);
    // And all of its log in the place of ours.
    fs::copy(log(&other), log(&store)).unwrap();
    let refused = mend(&store, &dir.path().join("third")).unwrap_err();
    assert!(matches!(refused, Error::NothingLeft { .. }), "{refused}");
}
