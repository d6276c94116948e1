//! `jobsled bench`: it measures, and leaves nothing.

use super::Cli;

/// What is left in the directory that was measured.
fn left(cli: &Cli) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(cli.dir.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn a_measurement_tells_everything_and_leaves_nothing() {
    let cli = Cli::new();
    let ran = cli.run("bench --profile smoke --json");
    assert!(ran.status.success(), "{ran:?}");
    let report = ran.json().swap_remove(0);
    let has = |path: &str| {
        let found = report.pointer(path);
        assert!(
            found.is_some_and(|value| !value.is_null()),
            "{path}: {report}"
        );
    };
    for path in [
        "/version",
        "/class",
        "/machine/cores",
        "/payload_bytes",
        "/rounds",
        "/enqueue/0/raw_growing",
        "/enqueue/1/raw_preallocated",
        "/enqueue/2/bare",
        "/enqueue/3/engine",
        "/through/bare",
        "/through/engine",
        "/through/syncs_per_job",
        "/through/bytes_on_disk",
        "/append/p50_us",
        "/pick_up/p99_us",
        "/done/p999_us",
        "/opening/open_ms",
        "/opening/first_start_ms",
        "/opening/scan_ms",
    ] {
        has(path);
    }
    let threads: Vec<_> = (0..4)
        .map(|n| report["enqueue"][n]["threads"].as_u64())
        .collect();
    assert_eq!(threads, [Some(1), Some(8), Some(64), Some(1)]);
    // The store was opened by a process that had done nothing else.
    let memory = report["opening"]["resident_bytes"].as_u64();
    assert!(memory.is_none_or(|bytes| bytes < 64 << 20), "{report}");
    assert!(left(&cli).is_empty(), "{:?}", left(&cli));
}

#[test]
fn people_get_tables_and_what_is_measured_now() {
    let cli = Cli::new();
    let ran = cli.run("bench --profile smoke .");
    assert!(ran.status.success(), "{ran:?}");
    for words in [
        "C2: what was answered survives a power cut",
        "enqueue by 64 threads",
        "batches of 1,000",
        "enqueued, run and done",
        "enqueue until the handler begins",
        "waits for the disk",
        "opening 2,000 waiting jobs",
    ] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    assert!(
        ran.err.contains("Measuring: enqueue by 1 thread\n"),
        "{}",
        ran.err
    );
}

#[test]
fn a_directory_that_is_not_there_is_an_error_that_names_it() {
    let cli = Cli::new();
    let ran = cli.run("bench --profile smoke nowhere");
    assert_eq!(ran.code(), 1, "{ran:?}");
    assert!(ran.err.contains("nowhere/jobsled-bench-"), "{}", ran.err);
}
