use std::fs;
use std::path::{Path, PathBuf};

use jobsled::{Engine, Error, State};

use super::mount::Mount;
use super::{MINUTE, Stored, ballast_len, copy_tree, same_tree, says, tree};

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
    says(
        &error,
        &[
            "journal",
            "missing",
            "Nothing was repaired",
            "jobsled repair",
        ],
    );
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
            "Nothing was repaired",
            "jobsled repair",
        ],
    );
    same_tree(&stored.store, &before, "a journal older than its witness");
}
