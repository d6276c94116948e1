use std::fs;

use super::{Cli, Worker, with_input};

#[test]
fn commands_that_read_make_no_store() {
    let cli = Cli::new();
    for words in [
        "ls",
        "show 1",
        "log 1",
        "wait 1",
        "cancel 1",
        "retry 1",
        "retry --dead",
        "rm 1",
        "set 1 --priority 1",
        "prune",
        "stats",
        "watch",
    ] {
        let ran = cli.run(words);
        assert_eq!(ran.code(), 2, "{words}: {ran:?}");
        let store = cli.store().display().to_string();
        assert!(
            ran.err.contains(&store) && ran.err.contains("no store"),
            "{words}: {}",
            ran.err
        );
    }
    assert!(fs::read_dir(cli.dir.path()).unwrap().next().is_none());
}

#[test]
fn unknown_jobs_are_named() {
    let cli = Cli::new();
    cli.add("", "true");
    for words in [
        "show 7",
        "show 1 7",
        "cancel 7",
        "retry 7",
        "rm 7",
        "set 7 --priority 1",
        "log 7",
    ] {
        let ran = cli.run(words);
        assert_eq!(ran.code(), 1, "{words}: {ran:?}");
        assert!(
            ran.err.contains("job 7 is not in the store"),
            "{words}: {}",
            ran.err
        );
    }
    assert_eq!(cli.run("show 0x1").code(), 2);
}

#[test]
fn spans_and_times_name_the_forms_they_take() {
    let cli = Cli::new();
    for (words, part) in [
        ("add --in soon -- true", "90s"),
        ("add --in 5 -- true", "unit"),
        ("add --in 1y -- true", "days"),
        ("add --at tomorrow -- true", "2026-11-23T09:00:00"),
        ("add --expires 0s -- true", "longer"),
        ("add --time-limit x -- true", "90s"),
        ("add --in 1h --at 12:00 -- true", "cannot be used with"),
        ("add --attempts 0 -- true", "0"),
        ("add --priority high -- true", "high"),
        ("add", "COMMAND"),
        ("add --from x -- true", "cannot be used with"),
        ("wait 1 --timeout x", "90s"),
        ("ls --state asleep", "scheduled"),
        ("prune --state running", "completed, cancelled or dead"),
        ("set 1", "--priority"),
        ("queue q", "concurrency"),
        ("work --workers 0", "1..=1024"),
        ("nonsense", "unrecognized"),
    ] {
        let ran = cli.run(words);
        assert_eq!(ran.code(), 2, "{words}: {ran:?}");
        assert!(ran.err.contains(part), "{words}: {}", ran.err);
    }
    assert!(!cli.store().exists());
}

#[test]
fn names_that_are_no_names_store_nothing() {
    let cli = Cli::new();
    cli.add("", "true");
    for words in [
        "add --queue Mail -- true",
        "add --env novalue -- true",
        "add --expires 1s --in 1h -- true",
        "pause Mail",
        "set 1 --queue Mail",
    ] {
        let ran = cli.run(words);
        assert_eq!(ran.code(), 2, "{words}: {ran:?}");
        assert_eq!(
            ran.err
                .lines()
                .filter(|line| line.contains("error"))
                .count(),
            1,
            "{}",
            ran.err
        );
    }
    assert_eq!(cli.jobs().len(), 1);
    let ran = cli.run("set 1 --priority 7 --queue Mail");
    assert_eq!(ran.code(), 2, "{ran:?}");
    assert_eq!(cli.jobs()[0]["priority"], 0, "nothing was changed");
}

/// More than the system would take as a command line: from a file, because a shell could not even say it.
#[test]
fn two_megabytes_of_arguments_are_refused() {
    let cli = Cli::new();
    let many: Vec<String> = (0..20_000).map(|_| "x".repeat(100)).collect();
    let long = vec!["echo".to_owned(), "x".repeat(2 << 20)];
    for argv in [many, long] {
        let line = serde_json::json!({ "argv": argv }).to_string();
        let ran = with_input(cli.command("add --from -"), line.as_bytes());
        assert_eq!(ran.code(), 2, "{}", ran.err);
        assert!(
            ran.err.contains("bytes") && ran.err.contains("line 1"),
            "{}",
            ran.err
        );
        assert!(ran.err.len() < 1_000, "an error that can be read");
    }
    assert!(!cli.store().exists());
}

#[test]
fn a_second_worker_is_told_who_works() {
    let cli = Cli::new();
    let worker = cli.work("");
    let second = cli.run("work");
    assert_eq!(second.code(), 3);
    let pid = worker.child.id().to_string();
    assert!(second.err.contains(&pid), "{}", second.err);
    worker.stop();
}

#[test]
fn a_program_that_serves_no_socket_is_named() {
    let cli = Cli::new();
    let engine = jobsled::Engine::builder(cli.store()).open().unwrap();
    for words in ["add -- true", "ls", "work", "stats"] {
        let ran = cli.run(words);
        assert_eq!(ran.code(), 3, "{words}: {ran:?}");
        assert!(
            ran.err.contains(&std::process::id().to_string()),
            "{}",
            ran.err
        );
        assert!(
            ran.err.contains(&cli.store().display().to_string()),
            "{}",
            ran.err
        );
    }
    drop(engine);
    cli.ok("ls");
}

/// What a killed worker leaves is in nobody's way.
#[test]
fn a_socket_that_nobody_serves_any_more() {
    let cli = Cli::new();
    cli.work("").kill();
    assert!(cli.store().join("socket").exists());
    cli.add("", "true");
    assert!(cli.drain().status.success());
    assert_eq!(cli.state(1), "completed");
}

/// One connection that could not be taken made a worker deaf for ever.
#[test]
fn a_worker_that_was_out_of_files_answers_again() {
    let cli = Cli::new();
    cli.add("", "true");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 60; exec \"$0\" work"]);
    command
        .arg(env!("CARGO_BIN_EXE_jobsled"))
        .env("JOBSLED_STORE", cli.store());
    command
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null());
    // Ended when dropped, also if the test fails.
    let worker = Worker {
        child: command.spawn().unwrap(),
        log: cli.path("work.log"),
    };
    assert_eq!(cli.run("wait 1").code(), 0);
    let socket = cli.store().join("socket");
    let connect = |_| std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let many: Vec<_> = (0..80).map(connect).collect();
    drop(many);
    let ran = cli.run("stats --json");
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert_eq!(ran.json()[0]["pid"], worker.child.id(), "{ran:?}");
    worker.kill();
}

#[test]
fn something_else_in_the_place_of_a_store() {
    let cli = Cli::new();
    fs::create_dir(cli.store()).unwrap();
    fs::write(cli.store().join("letters.txt"), "dear").unwrap();
    let ran = cli.run("add -- true");
    assert_eq!(ran.code(), 2, "{ran:?}");
    assert!(ran.err.contains("letters.txt"), "{}", ran.err);
    assert_eq!(fs::read_dir(cli.store()).unwrap().count(), 1);
    let ran = cli.run("--store /proc/none/store add -- true");
    assert_eq!(ran.code(), 1, "{ran:?}");
    assert!(ran.err.contains("/proc/none"), "{}", ran.err);
}

#[test]
fn a_damaged_store_is_left_alone() {
    let cli = Cli::new();
    cli.add("", "true");
    let header = cli.store().join("journal/jobsled");
    let mut bytes = fs::read(&header).unwrap();
    bytes[20] ^= 1;
    fs::write(&header, &bytes).unwrap();
    for words in ["add -- true", "ls", "work --drain"] {
        let ran = cli.run(words);
        assert_eq!(ran.code(), 4, "{words}: {ran:?}");
        assert!(ran.err.contains("checksum"), "{}", ran.err);
    }
    assert_eq!(fs::read(&header).unwrap(), bytes);
}

/// The lock of another machine proves nothing here: somebody has to say that it runs no more.
#[test]
fn a_store_that_another_host_left_open() {
    let cli = Cli::new();
    cli.add("", "true");
    let lock = cli.store().join("lock");
    let lines = "jobsled lock 1\nstate open\npid 7\nhost elsewhere\nboot 00000000000000000000000000000001\n";
    let check = &blake3::hash(lines.as_bytes()).to_hex()[..16];
    let mut text = format!("{lines}check {check}\n");
    while text.len() < 512 {
        text.push('\n');
    }
    fs::write(&lock, text).unwrap();
    for words in ["add -- true", "ls", "work --drain"] {
        let ran = cli.run(words);
        assert_eq!(ran.code(), 3, "{words}: {ran:?}");
        assert!(
            ran.err.contains("elsewhere") && ran.err.contains("--take-over"),
            "{}",
            ran.err
        );
    }
    assert!(
        cli.run("--take-over work --drain")
            .err
            .contains("1 job done")
    );
    cli.ok("ls");
}

/// Even for root: files that it made would lock the owner out.
#[test]
fn a_store_of_another_user_is_refused() {
    let cli = Cli::new();
    cli.add("", "true");
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give a store away");
        return;
    }
    std::os::unix::fs::chown(cli.store(), Some(12_345), None).unwrap();
    for words in ["add -- true", "ls", "work --drain"] {
        let ran = cli.run(words);
        assert_eq!(ran.code(), 2, "{words}: {ran:?}");
        assert!(
            ran.err.contains("12345") && ran.err.contains("owner"),
            "{}",
            ran.err
        );
    }
}

/// On a disk without room: nothing is stored, and that is said.
#[test]
fn a_full_disk_has_an_exit_code() {
    let cli = Cli::new();
    let mount = cli.path("small");
    fs::create_dir(&mount).unwrap();
    let mut command = std::process::Command::new("mount");
    command
        .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
        .arg(&mount);
    if !command.output().is_ok_and(|ran| ran.status.success()) {
        println!("skipped: a small disk cannot be mounted here");
        return;
    }
    let ran = cli.run(&format!(
        "--store {} add -- true",
        mount.join("store").display()
    ));
    let unmounted = std::process::Command::new("umount").arg(&mount).status();
    assert_eq!(ran.code(), 5, "{ran:?}");
    assert!(ran.err.contains("disk full"), "{}", ran.err);
    assert!(unmounted.unwrap().success());
}

/// An id that could not be told, and a list that was cut, are no success.
#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let cli = Cli::new();
    cli.add("", "true");
    for words in [
        "add -- true",
        "ls",
        "show 1",
        "stats",
        "export",
        "completions bash",
        "log 1",
    ] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut command = cli.command(words);
        command.stdout(full);
        let output = command.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        if words == "log 1" {
            assert!(output.status.success(), "it has printed nothing yet");
            continue;
        }
        assert_eq!(output.status.code(), Some(5), "{words}: {err}");
        assert!(err.contains("not complete"), "{words}: {err}");
    }
}

#[test]
fn a_store_whose_path_is_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let cli = Cli::new();
    let store = cli
        .dir
        .path()
        .join(std::ffi::OsStr::from_bytes(b"n\xff\xfe"));
    let engine = jobsled::Engine::builder(&store)
        .control_socket(true)
        .open()
        .unwrap();
    let mut command = cli.command("add -- true");
    command.env("JOBSLED_STORE", &store);
    let ran = super::finish(command);
    assert_eq!(ran.out, "1\n", "{}", ran.err);
    assert_eq!(engine.jobs().count().unwrap(), 1);
}
