use std::fs;

use super::{Cli, finish, lines, with_input};

#[test]
fn a_command_is_added_run_and_looked_at() {
    let cli = Cli::new();
    let first = cli.add("", "echo to stdout; echo to stderr >&2; pwd");
    let second = cli.add("--priority 5", "exit 3");
    assert_eq!((first, second), (1, 2));
    let listed = cli.ok("ls");
    assert!(
        listed.contains("ready") && listed.contains("exit 3"),
        "{listed}"
    );
    let drained = cli.drain();
    assert!(drained.status.success());
    assert!(
        drained.err.contains("2 jobs done, 1 of them failed"),
        "{}",
        drained.err
    );
    assert_eq!(cli.state(1), "completed");
    assert_eq!(cli.state(2), "dead");
    let dir = fs::canonicalize(cli.dir.path()).unwrap();
    let log = cli.ok("log 1");
    assert_eq!(log, format!("to stdout\nto stderr\n{}\n", dir.display()));
    let shown = cli.ok("show 2");
    assert!(shown.contains("exit status 3"), "{shown}");
    assert!(shown.contains("1 begun, 1 of 1 failed"), "{shown}");
}

#[test]
fn wait_exits_as_the_command_did() {
    let cli = Cli::new();
    let ids = [
        cli.add("", "true"),
        cli.add("", "exit 7"),
        cli.add("", "kill -TERM $$"),
        cli.add("--in 1h", "true"),
        cli.add("", "true"),
    ];
    cli.ok("cancel 5");
    cli.drain();
    let wait = |words: &str| cli.run(&format!("wait {words}")).code();
    assert_eq!(wait("1"), 0);
    assert_eq!(wait("2"), 7);
    assert_eq!(wait("1 3 2"), 143, "the first that did not end well");
    assert_eq!(wait("4 --timeout 10ms"), 124);
    assert_eq!(wait("5"), 1, "cancelled");
    assert_eq!(wait("99"), 1, "unknown");
    assert_eq!(ids.len(), 5);
}

/// A job that nobody ran in time never ends by itself while nobody works.
#[test]
fn a_wait_ends_when_the_job_expires() {
    let cli = Cli::new();
    cli.add("--expires 700ms", "true");
    cli.add("--expires 1ms", "true");
    let waited = cli.run("wait 1 2 --timeout 1m");
    assert_eq!(waited.code(), 1);
    assert!(
        waited.err.contains("Job 1 is dead: expired"),
        "{}",
        waited.err
    );
    assert!(
        waited.err.contains("Job 2 is dead: expired"),
        "{}",
        waited.err
    );
}

/// Whoever waits without a worker keeps nobody out.
#[test]
fn wait_and_log_see_a_worker_that_comes_later() {
    let cli = Cli::new();
    cli.add("", "echo one; echo two");
    let start = |words: &str| {
        let mut command = cli.command(words);
        command.stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let (wait, log) = (start("wait 1"), start("log --follow 1"));
    let worker = cli.work("");
    let waited = wait.wait_with_output().unwrap();
    assert_eq!(waited.status.code(), Some(0));
    let logged = log.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(logged.stdout).unwrap(), "one\ntwo\n");
    worker.stop();
}

#[test]
fn a_log_is_followed_while_the_command_runs() {
    let cli = Cli::new();
    let go = cli.path("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
    cli.add("", "echo begun; cat go; echo over; exit 4");
    let worker = cli.work("");
    let mut command = cli.command("log --follow 1");
    command.stdout(std::process::Stdio::piped());
    let mut follower = command.spawn().unwrap();
    let mut out = std::io::BufReader::new(follower.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        line
    };
    assert_eq!(line(), "begun\n");
    fs::write(&go, "go on\n").unwrap();
    assert_eq!([line(), line(), line()], ["go on\n", "over\n", ""]);
    assert!(follower.wait().unwrap().success());
    assert_eq!(cli.run("wait 1").code(), 4);
    worker.stop();
}

#[test]
fn everything_works_beside_a_running_worker() {
    let cli = Cli::new();
    let worker = cli.work("--workers 2");
    let fast = cli.add("", "echo fast");
    assert_eq!(cli.run(&format!("wait {fast}")).code(), 0);
    let slow = cli.add("", "echo $$ > pid; exec sleep 1000");
    while cli.state(slow) != "running" {}
    let stats = cli.ok("stats");
    assert!(
        stats.contains("process") && stats.contains("2 slots"),
        "{stats}"
    );
    let cancelled = cli.ok(&format!("cancel {slow} --reason enough"));
    assert!(cancelled.contains("asked to stop"), "{cancelled}");
    assert_eq!(cli.run(&format!("wait {slow}")).code(), 1);
    assert_eq!(cli.state(slow), "cancelled");
    let pid = lines(&cli.path("pid"));
    assert!(!std::path::Path::new(&format!("/proc/{}", pid[0])).exists());

    cli.ok("pause default");
    let held = cli.add("", "true");
    assert_eq!(cli.state(held), "ready");
    assert!(cli.ok("stats").contains("paused"));
    cli.ok(&format!("set {held} --priority 9 --queue other"));
    assert_eq!(
        cli.run(&format!("wait {held}")).code(),
        0,
        "that queue is not paused"
    );
    cli.ok("resume default");
    cli.ok("queue default --concurrency 1");

    let failing = cli.add("", "test -e good");
    assert_eq!(cli.run(&format!("wait {failing}")).code(), 1);
    fs::write(cli.path("good"), "").unwrap();
    assert!(cli.ok("retry --dead").contains("1 dead job"));
    assert_eq!(cli.run(&format!("wait {failing}")).code(), 0);
    cli.ok(&format!("rm {fast}"));
    assert_eq!(cli.run(&format!("show {fast}")).code(), 1);
    assert!(cli.ok("prune").contains("deleted"));
    assert_eq!(cli.jobs().len(), 0);
    let log = worker.stop();
    assert!(log.contains("job 1 completed"), "{log}");
}

#[test]
fn news_are_watched() {
    let cli = Cli::new();
    let worker = cli.work("");
    let mut command = cli.command("watch --json");
    command.stdout(std::process::Stdio::piped());
    let mut watcher = command.spawn().unwrap();
    let out = std::io::BufReader::new(watcher.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(out);
    // It hears from some moment on; jobs are added until it does.
    let first = loop {
        cli.add("", "true");
        if let Some(line) = lines.next() {
            break line.unwrap();
        }
    };
    assert!(first.contains("\"event\":"), "{first}");
    worker.stop();
    let ended = watcher.wait().unwrap();
    assert!(ended.success(), "it ends with the worker");
}

#[test]
fn the_environment_and_the_directory_are_those_asked_for() {
    let cli = Cli::new();
    fs::create_dir(cli.path("sub")).unwrap();
    let script = "echo $COLOUR $ONLY_ADD $ONLY_WORK; pwd";
    let add = |options: &str| {
        let mut command = cli.command(&format!("add {options} -- sh -c"));
        command.arg(script).env("ONLY_ADD", "add");
        finish(command)
    };
    assert!(add("--env COLOUR=red --dir sub").status.success());
    assert!(add("--env-all --env COLOUR=blue").status.success());
    let mut work = cli.command("work --drain");
    work.env("ONLY_WORK", "work").current_dir("/");
    assert!(finish(work).status.success());
    let here = fs::canonicalize(cli.dir.path()).unwrap();
    let here = here.display();
    assert_eq!(cli.ok("log 1"), format!("red work\n{here}/sub\n"));
    assert_eq!(cli.ok("log 2"), format!("blue add\n{here}\n"));
}

#[test]
fn many_commands_come_from_a_file_all_or_none() {
    let cli = Cli::new();
    let good = r#"{"argv":["echo","a b"],"key":"one","priority":3,"env":{"A":"1"}}

{"argv":["true"],"in":"1h","queue":"later","attempts":4,"time_limit":"5s","expires":"2h","no_rerun":true}
"#;
    let ran = with_input(cli.command("add --from -"), good.as_bytes());
    assert_eq!(ran.out, "1\n2\n", "{}", ran.err);
    let jobs = cli.jobs();
    assert_eq!(jobs[0]["metadata"]["command"], "echo 'a b'");
    assert_eq!(jobs[1]["queue"], "later");
    assert_eq!(jobs[1]["attempts"], 4);
    fs::write(
        cli.path("bad"),
        format!("{good}{{\"argv\":[\"true\"],\"in\":\"soon\"}}\n"),
    )
    .unwrap();
    let refused = cli.run("add --from bad");
    assert_eq!(refused.code(), 2);
    for part in ["line 4", "bad", "soon", "90s", "Nothing was added"] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    assert_eq!(cli.jobs().len(), 2);
    for (line, part) in [
        ("{\"argv\":[]}", "program"),
        ("{\"argv\":[\"a\"],\"prio\":1}", "prio"),
        ("{\"argv\":[\"a\"],\"in\":\"1h\",\"at\":\"12:00\"}", "both"),
        ("nonsense", "line 1"),
        ("", "no jobs"),
    ] {
        let refused = with_input(cli.command("add --from -"), line.as_bytes());
        assert_eq!(refused.code(), 2, "{line}");
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
}

/// With a time of its own, a queue of its own, and only some queues worked.
#[test]
fn a_worker_may_take_some_queues_only() {
    let cli = Cli::new();
    cli.add("--queue a", "true");
    cli.add("--queue b", "true");
    let ran = cli.run("work --drain --queue b");
    assert!(ran.err.contains("1 job done"), "{}", ran.err);
    assert_eq!([cli.state(1), cli.state(2)], ["ready", "completed"]);
}

#[test]
fn a_first_signal_lets_finish_and_a_second_kills() {
    use rustix::process::Signal;
    let cli = Cli::new();
    let go = cli.path("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
    let first = cli.add("", "cat go");
    let worker = cli.work("--workers 1");
    while cli.state(first) != "running" {}
    worker.signal(Signal::INT);
    while !lines(&cli.path("work.log"))
        .iter()
        .any(|line| line.contains("Stopping"))
    {}
    let later = cli.add("", "true");
    assert_eq!(cli.state(later), "ready", "taken, not begun");
    fs::write(&go, "").unwrap();
    let mut child = worker;
    assert!(child.child.wait().unwrap().success());
    assert_eq!([cli.state(first), cli.state(later)], ["completed", "ready"]);

    let stubborn = cli.add("--priority 9", "trap '' TERM INT; echo $$ > pid; cat go");
    let at_most_once = cli.add("--priority 8 --no-rerun", "cat go");
    let worker = cli.work("--workers 2");
    while [stubborn, at_most_once]
        .iter()
        .any(|id| cli.state(*id) != "running")
    {}
    while lines(&cli.path("pid")).is_empty() {}
    worker.signal(Signal::TERM);
    while !lines(&cli.path("work.log"))
        .iter()
        .any(|line| line.contains("Stopping"))
    {}
    worker.signal(Signal::TERM);
    let mut child = worker;
    assert!(child.child.wait().unwrap().success());
    let pid = lines(&cli.path("pid"));
    assert!(!std::path::Path::new(&format!("/proc/{}", pid[0])).exists());
    assert_eq!(cli.state(stubborn), "ready", "to run again");
    assert_eq!(cli.state(at_most_once), "dead", "at most once");
}

#[test]
fn completions_are_printed_for_every_shell() {
    let cli = Cli::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(cli.ok(&format!("completions {shell}")).contains("jobsled"));
    }
    assert!(!cli.store().exists());
}

/// A client that is no program of ours, with what docs/control.md tells.
#[test]
fn any_client_can_add_a_command() {
    use std::io::{BufRead, BufReader, Write};
    let cli = Cli::new();
    let worker = cli.work("");
    let socket = std::os::unix::net::UnixStream::connect(cli.store().join("socket")).unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    let greeting = lines.next().unwrap().unwrap();
    assert!(greeting.contains("\"runs\":[\"command\"]"), "{greeting}");
    let mut ask = |call: &str| {
        (&socket).write_all(format!("{call}\n").as_bytes()).unwrap();
        lines.next().unwrap().unwrap()
    };
    let job = r#"{"kind":"command","payload":{"argv":["echo","hello"]},"attempts":1}"#;
    let added = ask(&format!(r#"{{"call":"enqueue","jobs":[{job}]}}"#));
    assert_eq!(added, r#"{"ok":[{"id":1,"new":true}]}"#);
    assert_eq!(
        ask(r#"{"call":"wait","id":1,"within_ms":60000}"#),
        r#"{"ok":true}"#
    );
    let job = ask(r#"{"call":"job","id":1}"#);
    assert!(
        job.contains(r#""text":"hello\n""#) && job.contains(r#""exit_code":0"#),
        "{job}"
    );
    worker.stop();
}
