use std::fs;
use std::path::{Path, PathBuf};

use jobsled::{Engine, Error, State, VerifyReport, verify};
use tempfile::TempDir;

use super::super::bad_input::mount::Mount;
use super::{
    MINUTE, copy_tree, echoing, large, names, note, payload_files, same_tree, store_some, tree,
};

/// A closed store, and a directory for copies.
fn stored() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (store, tmp) = (dir.path().join("store"), dir.path().join("tmp"));
    fs::create_dir(&tmp).unwrap();
    let engine = echoing(&store);
    store_some(&engine);
    engine.shutdown(MINUTE).unwrap();
    (dir, store, tmp)
}

/// Verifies; whatever it says, the store is as it was and nothing is left of the copy.
#[track_caller]
fn look(store: &Path, tmp: &Path) -> Result<VerifyReport, Error> {
    let before = tree(store);
    let found = verify(store, Some(tmp));
    same_tree(store, &before, "verified");
    assert_eq!(names(tmp), Vec::<String>::new(), "left over");
    if let Err(error) = &found {
        let text = error.to_string();
        assert!(!text.contains(tmp.to_str().unwrap()), "the copy: {text}");
    }
    found
}

#[test]
fn a_whole_store_is_found_whole() {
    let (_dir, store, tmp) = stored();
    let report = look(&store, &tmp).unwrap();
    let states = [State::Ready, State::Completed].map(|state| report.count(state));
    assert_eq!((report.jobs(), states), (43, [41, 2]));
    assert_eq!(report.payload_files, 2);
    assert!(report.witnessed && report.groups > 40 && report.bytes > 400_000);
    assert_eq!(look(&store, &tmp).unwrap(), report);
    fs::remove_file(store.join("witness")).unwrap();
    assert!(!look(&store, &tmp).unwrap().witnessed);
}

/// A store as a crash leaves it, also that of another host.
#[test]
fn a_store_that_was_left_open_is_found_whole() {
    let (dir, store, tmp) = stored();
    let engine = echoing(&store);
    engine.enqueue(note("one more")).unwrap().wait().unwrap();
    let before = tree(&store);
    let refused = verify(&store, Some(&tmp)).unwrap_err();
    assert!(
        matches!(refused, Error::Locked { here: true, .. }),
        "{refused}"
    );
    same_tree(&store, &before, "in use");
    // Nothing is written now, so a copy of the files is what a crash would leave.
    let crashed = dir.path().join("crashed");
    copy_tree(&store, &crashed);
    assert_eq!(look(&crashed, &tmp).unwrap().jobs(), 44);
    assert_eq!(engine.verify(Some(&tmp)).unwrap().jobs(), 44);
    assert_eq!(names(&tmp), Vec::<String>::new());
    engine.shutdown(MINUTE).unwrap();
    assert_eq!(look(&store, &tmp).unwrap().jobs(), 44);
}

/// Any byte of a job's payload in the log.
#[test]
fn one_flipped_byte_is_found() {
    let (_dir, store, tmp) = stored();
    let log = store.join("journal").join("db");
    let whole = fs::read(&log).unwrap();
    let needle = b"note number 17 note number 17";
    let places: Vec<usize> = (0..whole.len() - needle.len())
        .filter(|at| whole[*at..].starts_with(needle))
        .collect();
    assert!(!places.is_empty(), "the payload is not in the log");
    let mut bytes = whole.clone();
    places.iter().for_each(|at| bytes[*at] ^= 4);
    fs::write(&log, &bytes).unwrap();
    let refused = look(&store, &tmp).unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("store/journal"), "{refused}");
    fs::write(&log, &whole).unwrap();
    look(&store, &tmp).unwrap();
}

/// Every file that is not as it should be is named, by both ways to look.
#[test]
fn damaged_and_missing_payloads_are_found_all_at_once() {
    let (_dir, store, tmp) = stored();
    let files = payload_files(&store);
    let name = |n: usize| files[n].file_name().unwrap().to_str().unwrap().to_owned();
    let cut = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &cut[..100]).unwrap();
    fs::remove_file(&files[1]).unwrap();
    let (first, second) = (name(0), name(1));
    let words = [
        first.as_str(),
        second.as_str(),
        "2 large payloads",
        "100 bytes",
        "missing",
        "job 4",
    ];
    let told = |refused: &Error| {
        let text = refused.to_string();
        let all = words.iter().all(|word| text.contains(word));
        assert!(all && matches!(refused, Error::Damaged { .. }), "{text}");
    };
    told(&look(&store, &tmp).unwrap_err());
    let engine = Engine::builder(&store).open().unwrap();
    told(&engine.verify(Some(&tmp)).unwrap_err());
    assert_eq!(names(&tmp), Vec::<String>::new());
    engine.shutdown(MINUTE).unwrap();
    fs::remove_dir_all(store.join("payloads")).unwrap();
    look(&store, &tmp).unwrap_err();
    assert!(!store.join("payloads").exists());
}

/// The journal of yesterday beside the witness of today.
#[test]
fn a_journal_older_than_its_witness_is_found() {
    let (dir, store, tmp) = stored();
    let older = dir.path().join("older");
    copy_tree(&store, &older);
    let engine = echoing(&store);
    engine.enqueue(note("acknowledged")).unwrap();
    engine.shutdown(MINUTE).unwrap();
    fs::copy(store.join("witness"), older.join("witness")).unwrap();
    let refused = look(&older, &tmp).unwrap_err();
    assert!(
        matches!(&refused, Error::Missing { path, .. } if *path == older),
        "{refused}"
    );
}

/// Looking at what is no store makes none.
#[test]
fn what_is_no_store_is_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["tmp", "empty", "other", "torn"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("file"), b"mine").unwrap();
    fs::write(at("other").join("mine"), b"mine").unwrap();
    fs::write(at("torn").join("witness"), b"").unwrap();
    let before = tree(dir.path());
    for (name, word) in [
        ("missing", "there is nothing"),
        ("empty", "it is empty"),
        ("file", "it is a file"),
        ("other", "`mine`"),
        ("torn", "`journal` is missing"),
    ] {
        let refused = verify(at(name), Some(&at("tmp"))).unwrap_err();
        let expected = match refused {
            Error::NotAStore { .. } => name != "torn",
            Error::Damaged { .. } => name == "torn",
            _ => false,
        };
        assert!(
            expected && refused.to_string().contains(word),
            "{name}: {refused}"
        );
        same_tree(dir.path(), &before, name);
    }
}

/// A disk without room for the copy is told, with what to do; another directory will do.
#[test]
fn a_copy_without_room_is_told() {
    let Some(small) = Mount::tmpfs("a_copy_without_room_is_told", "1m") else {
        return;
    };
    let (_dir, store, tmp) = stored();
    let told = |refused: Error| {
        let named =
            matches!(&refused, Error::NoRoom { path, .. } if path.starts_with(small.path()));
        let text = refused.to_string();
        assert!(named && text.contains("on another disk"), "{text}");
        assert_eq!(names(small.path()), Vec::<String>::new());
    };
    told(verify(&store, Some(small.path())).unwrap_err());
    look(&store, &tmp).unwrap();
    let engine = echoing(&store);
    told(engine.verify(Some(small.path())).unwrap_err());
    engine.enqueue(large("x")).unwrap();
    told(engine.backup(small.path().join("copy")).unwrap_err());
    engine.verify(Some(&tmp)).unwrap();
}
