use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::{Cli, finish, with_input};

/// Jobs in every state that a store can be left in.
fn motley() -> Cli {
    let cli = Cli::new();
    cli.add("--key one --priority 3", "echo kept");
    cli.add("--attempts 2 --queue retries", "exit 5");
    cli.add("", "exit 6");
    cli.drain();
    // Its retry is due: otherwise it might become so between two looks.
    while cli.state(2) != "ready" {}
    cli.add("--in 1h --expires 2h", "true");
    cli.add("--queue paused --no-rerun --time-limit 5m", "echo later");
    let cancelled = cli.add("", "true");
    cli.ok(&format!("cancel {cancelled} --reason enough"));
    cli.ok("pause paused");
    cli.ok("queue paused --concurrency 3");
    let deleted = cli.add("--key held", "true");
    cli.ok(&format!("rm {deleted}"));
    cli
}

fn lines_of(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What opening a store changes: it has an epoch more.
fn settled(lines: &[Value]) -> Vec<Value> {
    let mut settled = lines.to_vec();
    for line in &mut settled {
        let kind = line["type"].as_str().unwrap().to_owned();
        let Some(fields) = line.as_object_mut() else {
            continue;
        };
        let varies: &[&str] = match kind.as_str() {
            "export" => &["store", "at_ms"],
            "root" => &["epoch", "boot"],
            "end" => &["digest"],
            _ => &[],
        };
        varies.iter().for_each(|name| drop(fields.remove(*name)));
    }
    settled
}

#[test]
fn what_is_exported_and_imported_is_equal() {
    let cli = motley();
    let exported = cli.ok("export");
    let new = cli.path("new").display().to_string();
    let imported = with_input(
        cli.command(&format!("--store {new} import")),
        exported.as_bytes(),
    );
    assert!(imported.status.success(), "{imported:?}");
    assert!(imported.out.contains("6 jobs imported"), "{}", imported.out);
    let again = cli.ok(&format!("--store {new} export"));
    assert_eq!(settled(&lines_of(&again)), settled(&lines_of(&exported)));
    // It goes on where the old one was: ids, keys, what is paused, what is pending.
    let mut add = cli.command(&format!("--store {new} add --key held -- true"));
    add.env_remove("JOBSLED_STORE");
    let added = finish(add);
    assert!(added.err.contains("has this key already"), "{added:?}");
    cli.ok(&format!("--store {new} resume paused"));
    cli.ok(&format!("--store {new} work --drain"));
    assert_eq!(cli.ok(&format!("--store {new} log 5")), "later\n");
    assert_eq!(cli.ok(&format!("--store {new} log 1")), "kept\n");

    let taken = with_input(
        cli.command(&format!("--store {new} import")),
        exported.as_bytes(),
    );
    assert_eq!(taken.code(), 2, "{taken:?}");
    assert!(taken.err.contains("not free"), "{}", taken.err);
}

#[test]
fn an_export_that_is_not_whole_is_refused() {
    let cli = motley();
    let exported = cli.ok("export");
    let cut: Vec<&str> = exported.lines().collect();
    let cut = cut[..cut.len() - 1].join("\n");
    let changed = exported.replace("\"priority\":3", "\"priority\":4");
    for (text, part) in [
        (cut.as_str(), "end"),
        (changed.as_str(), "digest"),
        ("", "line 1"),
        ("nonsense\n", "line 1"),
        ("{\"type\":\"job\"}\n", "line 1"),
    ] {
        let refused = with_input(cli.command("--store new import -"), text.as_bytes());
        assert_eq!(refused.code(), 2, "{part}: {refused:?}");
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
        assert!(!cli.path("new").exists() && !cli.path("new.part").exists());
    }
    assert_eq!(cli.run("--store new import no-such-file").code(), 2);
}

/// Two producers and a worker are busy; the backup is one moment of it: of each producer a prefix, and figures that
/// agree with the jobs. Restored and run, it completes what was pending.
#[test]
fn a_backup_under_load_is_one_moment() {
    let cli = Cli::new();
    let worker = cli.work("--workers 2");
    cli.ok("queue default --concurrency 1");
    let done = AtomicBool::new(false);
    let added = std::thread::scope(|scope| {
        let producers = [0; 2].map(|_| {
            scope.spawn(|| {
                let mut ids = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    ids.push(cli.add("", "true"));
                }
                ids
            })
        });
        for n in 0..5 {
            let backup = cli.ok(&format!("backup copy-{n}"));
            assert!(backup.contains("copied and checked"), "{backup}");
            assert!(cli.ok("verify").contains("all is well"));
        }
        done.store(true, Ordering::Relaxed);
        producers.map(|producer| producer.join().unwrap())
    });
    let export = cli.ok("export");
    assert!(export.lines().last().unwrap().contains("\"end\""));
    worker.stop();
    let mut before = 0;
    for n in 0..5 {
        let store = format!("--store copy-{n}");
        assert!(cli.ok(&format!("{store} verify")).contains("all is well"));
        let jobs = cli.run(&format!("{store} ls --json")).json();
        let ids: BTreeSet<u64> = jobs.iter().map(|job| job["id"].as_u64().unwrap()).collect();
        for producer in &added {
            let there: Vec<bool> = producer.iter().map(|id| ids.contains(id)).collect();
            let prefix = there.iter().take_while(|there| **there).count();
            assert!(there[prefix..].iter().all(|there| !there), "a prefix");
        }
        assert_eq!(*ids.last().unwrap_or(&0), ids.len() as u64, "no gap");
        assert!(ids.len() >= before, "later copies have more");
        before = ids.len();
        cli.ok(&format!("{store} work --drain"));
        let stats = cli.run(&format!("{store} stats --json")).json();
        assert_eq!(stats[0]["stats"]["counters"]["completed"], ids.len());
        assert_eq!(stats[0]["stats"]["counters"]["enqueued"], ids.len());
    }
    let refused = cli.run("backup copy-0");
    assert_eq!(refused.code(), 2, "{refused:?}");
}

#[test]
fn verify_finds_damage_and_changes_nothing() {
    let cli = motley();
    assert!(cli.ok("verify").contains("6 jobs checked"));
    let header = cli.store().join("journal/jobsled");
    let mut bytes = fs::read(&header).unwrap();
    bytes[20] ^= 1;
    fs::write(&header, &bytes).unwrap();
    let found = cli.run("verify --tmp .");
    assert_eq!(found.code(), 4, "{found:?}");
    assert!(found.err.contains("checksum"), "{}", found.err);
    assert_eq!(fs::read(&header).unwrap(), bytes);
    let left = fs::read_dir(cli.dir.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["store"], "no copy is left");
    assert_eq!(cli.run("--store none verify").code(), 2);
}

/// `| head`: an export that nobody reads to its end is no panic and no success.
#[test]
fn an_export_into_a_closed_pipe_ends() {
    let cli = motley();
    let mut command = cli.command("export");
    command.stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    assert!(status.code().is_some_and(|code| code <= 1), "{status}");
}

/// A store whose files are damaged or gone, made anew.
#[test]
fn what_can_be_read_of_a_damaged_store_is_saved() {
    let cli = motley();
    let exported = cli.ok("export");
    let journal = cli.store().join("journal");
    fs::remove_file(journal.join("conf")).unwrap();
    fs::write(journal.join("jobsled"), b"garbage").unwrap();
    let refused = cli.run("ls");
    assert_eq!(refused.code(), 4, "{refused:?}");
    assert!(refused.err.contains("`jobsled repair`"), "{}", refused.err);
    let said = cli.ok("repair --to whole");
    assert!(
        said.contains("6 jobs saved in whole: all that there were"),
        "{said}"
    );
    let again = cli.ok("--store whole export");
    assert_eq!(settled(&lines_of(&again)), settled(&lines_of(&exported)));

    // The witness is gone as well: then nobody knows whether the journal's end is.
    fs::remove_file(cli.store().join("witness")).unwrap();
    let doubtful = cli.run("repair --to doubtful");
    assert_eq!(doubtful.code(), 1, "{doubtful:?}");
    assert!(doubtful.out.contains("nobody knows"), "{}", doubtful.out);
    let told = cli.run("repair --to told --json");
    let report = &told.json()[0];
    assert_eq!(
        (&report["jobs"], &report["end"]),
        (&6.into(), &"unknown".into())
    );
    assert_eq!(report["states"]["completed"], 1);

    for (words, code, part) in [
        ("repair --to whole", 2, "not free"),
        (
            "--store none repair --to new",
            2,
            "there is nothing of this name",
        ),
        ("repair", 2, "--to"),
    ] {
        let refused = cli.run(words);
        assert_eq!(refused.code(), code, "{words}: {refused:?}");
        assert!(refused.err.contains(part), "{words}: {}", refused.err);
    }
    fs::write(journal.join("db"), b"").unwrap();
    let refused = cli.run("repair --to new");
    assert_eq!(refused.code(), 4, "{refused:?}");
    assert!(!cli.path("new").exists() && !cli.path("new.part").exists());
}
