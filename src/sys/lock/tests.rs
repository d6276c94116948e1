use std::fs;

use tempfile::TempDir;

use super::*;

fn left_by(host: &str, boot: u128, state: State) -> (TempDir, Vec<u8>) {
    let dir = TempDir::new().unwrap();
    let text = Owner {
        pid: 4711,
        host: host.to_owned(),
        boot,
    }
    .text(state);
    fs::write(dir.path().join(FILE_NAME), &text).unwrap();
    (dir, text)
}

fn previous(dir: &Path) -> Previous {
    StoreLock::acquire(dir, false).unwrap().1
}

#[test]
fn never_then_unclean_then_clean() {
    let dir = TempDir::new().unwrap();
    let (lock, first) = StoreLock::acquire(dir.path(), false).unwrap();
    assert_eq!(first, Previous::Never);
    assert_eq!(lock.owner.pid, std::process::id());
    drop(lock);
    let (lock, second) = StoreLock::acquire(dir.path(), false).unwrap();
    assert_eq!(second, Previous::Unclean);
    lock.mark_clean().unwrap();
    drop(lock);
    assert_eq!(previous(dir.path()), Previous::Clean);
    assert_eq!(
        previous(dir.path()),
        Previous::Unclean,
        "dropped without a mark"
    );
}

/// A worker that was killed while it started a command held its store up a moment longer.
#[test]
#[cfg(target_os = "linux")]
fn the_heir_of_a_dead_owner_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let dead = Owner { pid, ..Owner::us() };
    let path = dir.path().join(FILE_NAME);
    for (owner, state, is_dead) in [
        (Owner::us(), State::Open, false),
        (dead.clone(), State::Clean, false),
        (dead, State::Open, true),
    ] {
        fs::write(&path, owner.text(state)).unwrap();
        assert_eq!(is_of_the_dead(&path), is_dead, "{owner:?}");
    }
    let heir = File::open(&path).unwrap();
    heir.lock().unwrap();
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| StoreLock::acquire(dir.path(), false));
        heir.unlock().unwrap();
        assert_eq!(opener.join().unwrap().unwrap().1, Previous::Unclean);
    });
}

#[test]
fn the_second_opener_is_told_who_has_it() {
    let dir = TempDir::new().unwrap();
    let (lock, _) = StoreLock::acquire(dir.path(), false).unwrap();
    match StoreLock::acquire(dir.path(), true).unwrap_err() {
        Error::Locked {
            path,
            pid,
            host,
            here,
        } => {
            assert_eq!(path, dir.path());
            assert_eq!((pid, host), (std::process::id(), super::super::host_name()));
            assert!(here);
        }
        other => panic!("{other}"),
    }
    lock.mark_clean().unwrap();
    drop(lock);
    assert_eq!(
        previous(dir.path()),
        Previous::Clean,
        "the refused opener changed nothing"
    );
}

#[test]
fn readers_share_a_store_that_nobody_has_open_and_change_nothing() {
    for (host, state) in [("elsewhere", State::Open), ("here", State::Clean)] {
        let (dir, text) = left_by(host, 1, state);
        let one = ReadLock::acquire(dir.path()).unwrap();
        let other = ReadLock::acquire(dir.path()).unwrap();
        other.check().unwrap();
        let refused = StoreLock::acquire(dir.path(), true).unwrap_err();
        assert!(matches!(refused, Error::Locked { .. }), "{refused}");
        assert_eq!(fs::read(dir.path().join(FILE_NAME)).unwrap(), text);
        drop((one, other));
        let (lock, _) = StoreLock::acquire(dir.path(), true).unwrap();
        let refused = ReadLock::acquire(dir.path()).unwrap_err();
        assert!(
            matches!(refused, Error::Locked { here: true, .. }),
            "{refused}"
        );
        drop(lock);
    }
}

#[test]
fn a_store_without_a_lock_file_gets_none_by_being_read() {
    let dir = TempDir::new().unwrap();
    let lock = ReadLock::acquire(dir.path()).unwrap();
    lock.check().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let (_engine, _) = StoreLock::acquire(dir.path(), false).unwrap();
    let refused = lock.check().unwrap_err();
    assert!(
        matches!(refused, Error::Locked { here: true, .. }),
        "{refused}"
    );
}

/// A fork has a copy of the descriptor, as `try_clone` makes one, and another pid.
#[test]
fn a_fork_neither_marks_nor_unlocks() {
    let dir = TempDir::new().unwrap();
    let (lock, _) = StoreLock::acquire(dir.path(), false).unwrap();
    let fork = StoreLock {
        file: lock.file.try_clone().unwrap(),
        path: lock.path.clone(),
        owner: Owner {
            pid: lock.owner.pid + 1,
            ..lock.owner.clone()
        },
    };
    let (opener, here) = (lock.owner.pid + 1, lock.owner.pid);
    let marked = fork.mark_clean().unwrap_err();
    assert!(
        matches!(marked, Error::Forked { opener: o, here: h } if (o, h) == (opener, here)),
        "{marked}"
    );
    drop(fork);
    let refused = StoreLock::acquire(dir.path(), false).unwrap_err();
    assert!(
        matches!(refused, Error::Locked { here: true, .. }),
        "its parent's lock was let go: {refused}"
    );
    drop(lock);
    assert_eq!(previous(dir.path()), Previous::Unclean, "nobody marked it");
}

#[test]
fn a_holder_without_a_name_is_unknown() {
    let (dir, _) = left_by("elsewhere", 1, State::Clean);
    let file = File::open(dir.path().join(FILE_NAME)).unwrap();
    file.try_lock().unwrap();
    let refused = StoreLock::acquire(dir.path(), false).unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Locked {
                pid: 0,
                here: false,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn another_host_is_refused_and_its_text_left_alone() {
    for boot in [0, 1] {
        let (dir, text) = left_by("elsewhere", boot, State::Open);
        let refused = StoreLock::acquire(dir.path(), false).unwrap_err();
        assert!(
            matches!(&refused, Error::ForeignLock { pid: 4711, host, .. } if host == "elsewhere"),
            "{refused}"
        );
        assert_eq!(fs::read(dir.path().join(FILE_NAME)).unwrap(), text);
        let (_lock, taken) = StoreLock::acquire(dir.path(), true).unwrap();
        assert_eq!(taken, Previous::Unclean);
    }
}

#[test]
fn what_another_host_closed_is_free() {
    let (dir, _) = left_by("elsewhere", 1, State::Clean);
    assert_eq!(previous(dir.path()), Previous::Clean);
}

#[test]
fn this_machine_is_known_by_its_name_or_its_boot() {
    let (dir, _) = left_by(&super::super::host_name(), 1, State::Open);
    assert_eq!(previous(dir.path()), Previous::Unclean, "after a reboot");
    if super::super::boot_id() != 0 {
        let (dir, _) = left_by("a-container", super::super::boot_id(), State::Open);
        assert_eq!(
            previous(dir.path()),
            Previous::Unclean,
            "a container made anew"
        );
    }
}

#[test]
fn a_text_survives_only_whole() {
    let owner = Owner {
        pid: 7,
        host: "h".repeat(255),
        boot: u128::MAX,
    };
    for state in [State::Open, State::Clean] {
        let text = owner.text(state);
        assert_eq!(Owner::parse(&text), Some((owner.clone(), state)));
        for at in 0..LEN {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            assert_eq!(Owner::parse(&damaged), None, "byte {at}");
            assert_eq!(Owner::parse(&text[..at]), None, "cut at {at}");
        }
    }
}

#[test]
fn a_torn_text_is_never_clean() {
    let owner = Owner::us();
    let (open, clean) = (owner.text(State::Open), owner.text(State::Clean));
    for at in 0..LEN {
        for (old, new) in [(&open, &clean), (&clean, &open)] {
            let torn = [&new[..at], &old[at..]].concat();
            let read = Owner::parse(&torn);
            assert!(
                read.is_none() || torn == *old || torn == *new,
                "torn at {at}"
            );
        }
    }
}

#[test]
fn garbage_is_unclean_and_gets_replaced() {
    for garbage in [&b"x"[..], &[0; LEN], &[255; 3 * LEN], b"jobsled lock"] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, garbage).unwrap();
        let (lock, found) = StoreLock::acquire(dir.path(), false).unwrap();
        assert_eq!(found, Previous::Unclean);
        lock.mark_clean().unwrap();
        drop(lock);
        assert_eq!(previous(dir.path()), Previous::Clean);
    }
}

/// What a later version writes may be another host's.
#[test]
fn a_newer_lock_is_not_taken_for_garbage() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(FILE_NAME), b"jobsled lock 2\nstate open\n").unwrap();
    let refused = StoreLock::acquire(dir.path(), true).unwrap_err();
    let newer = matches!(
        refused,
        Error::NewerFormat {
            found: 2,
            known: 1,
            ..
        }
    );
    assert!(newer, "{refused}");
}

#[test]
fn a_missing_directory_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    let refused = StoreLock::acquire(&missing, false).unwrap_err();
    assert!(refused.to_string().contains("missing"), "{refused}");
}
