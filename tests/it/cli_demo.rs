use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn jobsled(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobsled"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

fn demo(dir: &Path, options: &[&str]) -> Output {
    let mut command = jobsled(&["demo"]);
    command
        .arg(dir)
        .args(options)
        .output()
        .expect("jobsled runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The number in the table's row of this name.
fn row(table: &str, name: &str) -> u64 {
    let values = table.lines().filter_map(|line| {
        let value = line.trim_start_matches(['│', ' ']).strip_prefix(name)?;
        value
            .split_whitespace()
            .next()?
            .replace(',', "")
            .parse()
            .ok()
    });
    match *values.collect::<Vec<u64>>() {
        [value] => value,
        ref other => panic!("rows `{name}`: {other:?} in:\n{table}"),
    }
}

/// Three files to hash, and two that are not.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for sub in ["sub", ".hidden", "target"] {
        fs::create_dir(dir.path().join(sub)).expect("a directory");
    }
    let files = [
        ("a", 10),
        ("sub/b", 100_000),
        ("sub/empty", 0),
        (".hidden/c", 5),
        ("target/d", 5),
    ];
    for (name, size) in files {
        fs::write(dir.path().join(name), vec![7; size]).expect("a file");
    }
    dir
}

#[test]
fn three_kills_lose_nothing() {
    let tree = tree();
    let place = tree.path().join(".place");
    let place_text = place.to_str().unwrap();
    let output = demo(
        tree.path(),
        &[
            "--jobs", "600", "--kills", "3", "--seed", "7", "--store", place_text,
        ],
    );

    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert_eq!((row(out, "accepted"), row(out, "completed")), (600, 600));
    assert_eq!(row(out, "kills (SIGKILL)"), 3);
    let faults = [
        "lost",
        "stuck",
        "completed twice",
        "completions undone",
        "stored twice",
    ];
    for fault in faults
        .into_iter()
        .chain(["run twice, no kill", "wrong hash"])
    {
        assert_eq!(row(out, fault), 0, "{fault}");
    }
    assert!(out.contains("all is well"), "{out}");
    assert!(err.contains("600 jobs: one per file of"), "{err}");
    assert!(
        err.contains(" 3 files, in 200 passes"),
        "only what is to be hashed:\n{err}"
    );
    assert!(
        !out.contains('\x1b') && !err.contains('\x1b'),
        "no colour outside a terminal"
    );
    assert!(!place.exists(), "nothing is left when all was well");
}

#[test]
fn the_store_is_kept_if_asked_for_and_can_be_opened() {
    let tree = tree();
    let place = tempfile::tempdir().unwrap();
    let options = [
        "--jobs",
        "20",
        "--kills",
        "1",
        "--keep",
        "--store",
        place.path().to_str().unwrap(),
    ];
    let output = demo(tree.path(), &options);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stdout).contains("The store is kept"),
        "{output:?}"
    );
    assert!(place.path().join("acks/life-002").exists());
    let engine = jobsled::Engine::builder(place.path().join("store"))
        .open()
        .unwrap();
    assert_eq!(
        engine
            .jobs()
            .state(jobsled::State::Completed)
            .count()
            .unwrap(),
        20
    );
}

#[test]
fn input_that_makes_no_sense_is_refused_in_a_sentence() {
    let tree = tree();
    let empty = tempfile::tempdir().unwrap();
    let file = tree.path().join("a");
    let (file_text, tree_text) = (file.to_str().unwrap(), tree.path().to_str().unwrap());
    let cases: [(&Path, &[&str], &str); 6] = [
        (Path::new("/no/such/dir"), &[], "does not exist"),
        (&file, &[], "is not a directory"),
        (empty.path(), &[], "no file to hash"),
        (tree.path(), &["--store", tree_text], "is not empty"),
        (tree.path(), &["--store", file_text], "is a file"),
        (
            tree.path(),
            &["--store", "/no/such/dir"],
            "could not make the directory",
        ),
    ];
    for (dir, options, expected) in cases {
        let output = demo(dir, options);
        assert_eq!(output.status.code(), Some(2), "{expected}: {output:?}");
        let err = text(&output.stderr);
        assert!(
            err.starts_with("error: ") && err.contains(expected),
            "{expected}: {err}"
        );
        assert!(output.stdout.is_empty(), "{expected}: {output:?}");
    }
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

/// As after Ctrl-C: the parent is gone, and with it the child's standard input.
#[test]
fn a_child_without_a_parent_cleans_up_and_ends() {
    let tree = tree();
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("acks")).unwrap();
    fs::write(place.path().join("acks/plan"), "a").unwrap();
    fs::write(place.path().join("acks/life-001"), "").unwrap();
    let mut command = jobsled(&["demo-child"]);
    command
        .args([place.path(), tree.path()])
        .args(["1000000", "1", "empty-dir"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();

    let mut reports = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(reports.next().unwrap().unwrap(), "opened");
    drop(child.stdin.take());
    reports.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(
        fs::read_dir(place.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}
