//! How commands end, and what they are given.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use jobsled::command::{Command, Output};
use jobsled::{Backoff, DeadReason, Error, Finished, State};
use serde_json::json;

use super::place::{Case, MINUTE, Place, output, report, run, shell};

pub(crate) const CASES: &[Case] = &[
    ("exit_status_and_signal", exit_status_and_signal),
    ("what_cannot_be_run_says_so", what_cannot_be_run_says_so),
    ("environment", environment),
    ("directory", directory),
    ("bytes_that_are_no_text", bytes_that_are_no_text),
    (
        "too_large_or_no_command_at_all",
        too_large_or_no_command_at_all,
    ),
    ("processor_time_and_memory", processor_time_and_memory),
    (
        "failures_are_tried_again_if_asked_for",
        failures_are_tried_again_if_asked_for,
    ),
    (
        "a_report_is_kept_over_a_restart",
        a_report_is_kept_over_a_restart,
    ),
    ("json_by_name", json_by_name),
    ("inline_and_in_memory", inline_and_in_memory),
    ("nothing_is_left_open", nothing_is_left_open),
];

fn exit_status_and_signal() {
    let (report, error) = run(Command::new("true"));
    assert_eq!(
        (report.exit_code, report.signal, error),
        (Some(0), None, None)
    );
    assert!(report.is_success() && report.output == Output::default());
    assert!(report.started_at_ms > 1_600_000_000_000);
    assert!(report.ended_at_ms >= report.started_at_ms);
    let (report, error) = run(shell("echo almost; exit 3"));
    assert_eq!((report.exit_code, report.signal), (Some(3), None));
    assert_eq!(
        (output(&report), error.as_deref()),
        ("almost\n", Some("exit status 3"))
    );
    let (report, error) = run(shell("echo gone; kill -9 $$"));
    assert_eq!((report.exit_code, report.signal), (None, Some(9)));
    assert_eq!(output(&report), "gone\n");
    assert_eq!(error.as_deref(), Some("killed by signal 9 (SIGKILL)"));
}

fn what_cannot_be_run_says_so() {
    let place = Place::new();
    let plain_file = place.path("plain");
    std::fs::write(&plain_file, "no program").unwrap();
    let cases = [
        (
            Command::new("no-such-program"),
            127,
            "jobsled: cannot run no-such-program: No such file",
        ),
        (
            Command::new("./true"),
            127,
            "jobsled: cannot run ./true: No such file",
        ),
        (Command::new(&plain_file), 126, "Permission denied"),
        (
            Command::new("true").dir("/no/such/dir"),
            127,
            "jobsled: cannot enter /no/such/dir: No such file",
        ),
        (
            Command::new("true").dir(&plain_file),
            126,
            "Not a directory",
        ),
    ];
    for (command, code, line) in cases {
        let (report, error) = run(command);
        assert_eq!(report.exit_code, Some(code));
        assert!(output(&report).contains(line), "{report:?}");
        assert_eq!(output(&report).lines().count(), 1, "{report:?}");
        assert_eq!(error, Some(format!("exit status {code}")));
    }
}

fn environment() {
    let place = Place::new();
    let engine = place.open();
    let show = "echo $A $PATH $JOBSLED_JOB $JOBSLED_ATTEMPT $JOBSLED_CLAIM; exit 1";
    let command = shell(show)
        .env("A", "one")
        .env("A", "two")
        .env("JOBSLED_JOB", "mine");
    let job = engine
        .job(command)
        .attempts(2)
        .backoff(Backoff::fixed(std::time::Duration::ZERO));
    let job = job.enqueue().unwrap().into_handle();
    job.wait().unwrap();
    let path = std::env::var("PATH").unwrap();
    let shown = report(&engine, job.id());
    let words: Vec<&str> = output(&shown).split_whitespace().collect();
    let (id, claim) = (job.id().to_string(), words.last().unwrap().to_string());
    assert_eq!(words.join(" "), format!("two {path} {id} 2 {claim}"));
    assert!(claim.parse::<u64>().unwrap() > 1, "the second claim");

    let (report, _) = run(Command::new("/usr/bin/env").env("B", "b").only_env());
    let mut lines: Vec<&str> = output(&report).lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "B=b",
            "JOBSLED_ATTEMPT=1",
            "JOBSLED_CLAIM=1",
            "JOBSLED_JOB=1"
        ]
    );

    // A name without a slash is looked up in the PATH of the command.
    std::fs::write(place.path("mine"), "#!/bin/sh\necho found\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path("mine"), mode).unwrap();
    let (report, _) = run(Command::new("mine").env("PATH", place.path("")));
    assert_eq!(output(&report), "found\n");
}

fn directory() {
    let place = Place::new();
    let (report, _) = run(place.shell("pwd -P"));
    let here = std::fs::canonicalize(place.path("")).unwrap();
    assert_eq!(output(&report).trim_end(), here.to_str().unwrap());
}

/// Every byte but zero, as an argument, a variable, a directory and a program.
fn bytes_that_are_no_text() {
    let place = Place::new();
    let bytes: Vec<u8> = (1..=255).collect();
    let odd = OsString::from_vec(bytes.clone());
    let (report, _) = run(Command::new("printf").arg("%s").arg(&odd));
    assert_eq!((&report.output.bytes, report.output.cut), (&bytes, 0));
    let (report, _) = run(shell("printf %s \"$ODD\"").env("ODD", &odd));
    assert_eq!(report.output.bytes, bytes);
    let dir = place.path("").join(OsString::from_vec(b"d\xff".to_vec()));
    std::fs::create_dir(&dir).unwrap();
    let program = dir.join(OsString::from_vec(b"p\xfe".to_vec()));
    std::os::unix::fs::symlink("/bin/echo", &program).unwrap();
    let (report, _) = run(Command::new(&program).arg("ran").dir(&dir));
    assert_eq!(output(&report), "ran\n");
}

fn too_large_or_no_command_at_all() {
    let place = Place::new();
    let engine = place.open();
    let huge = Command::new("true").args(vec!["x".repeat(100_000); 20]);
    let error = huge.check().unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                limit: 1_048_576,
                ..
            }
        ),
        "{error}"
    );
    let most = Command::new("true").args(vec!["x".repeat(100_000); 10]);
    most.check().unwrap();
    assert!(run(most).0.is_success(), "and what passes the check runs");
    let cases = [
        (json!({"argv": []}), "the first of `argv`"),
        (json!({"argv": ["a\u{0}b"]}), "zero byte"),
        (
            json!({"argv": ["a", "x".repeat(140_000)]}),
            "the limit is 131071",
        ),
        (
            json!({"argv": ["a"], "shell": true}),
            "unknown field `shell`",
        ),
        (json!("ls -l"), "payload"),
    ];
    for (command, words) in cases {
        let job = engine.json("command", &command).enqueue().unwrap();
        let Finished::Dead(ended) = job.handle().wait().unwrap() else {
            panic!("{command} was run");
        };
        assert_eq!(ended.reason, DeadReason::Discarded, "{command}");
        assert!(ended.words.contains(words), "{command}: {}", ended.words);
    }
    let huge = engine.enqueue(huge).unwrap().wait().unwrap();
    assert!(matches!(huge, Finished::Dead(ended) if ended.reason == DeadReason::Discarded));
}

fn processor_time_and_memory() {
    let count = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    // That of children that were waited for counts as well.
    let (report, _) = run(shell(&format!("sh -c '{count}'; true")));
    assert!((20..60_000).contains(&report.user_ms), "{report:?}");
    assert!(report.system_ms < 60_000, "{report:?}");
    let (report, _) = run(shell(
        "dd if=/dev/zero of=/dev/null bs=200M count=1 2> /dev/null",
    ));
    let mib = report.max_rss_bytes >> 20;
    assert!((190..400).contains(&mib), "{mib} MiB");
    let (idle, _) = run(Command::new("true"));
    assert!(idle.user_ms + idle.system_ms < 1_000, "{idle:?}");
    assert!((1..190).contains(&(idle.max_rss_bytes >> 20)), "{idle:?}");
}

fn failures_are_tried_again_if_asked_for() {
    let place = Place::new();
    let engine = place.open();
    let line = "echo try $JOBSLED_ATTEMPT; [ $JOBSLED_ATTEMPT = 3 ]";
    let job = engine.job(place.shell(line)).attempts(5);
    let job = job.backoff(Backoff::fixed(std::time::Duration::ZERO));
    let job = job.enqueue().unwrap().into_handle();
    let Finished::Completed(report) = job.wait().unwrap() else {
        panic!("the third attempt is good");
    };
    assert_eq!(output(&report), "try 3\n");
    let once = engine.enqueue(place.shell(line)).unwrap();
    assert!(
        matches!(once.wait().unwrap(), Finished::Dead(_)),
        "not by default"
    );
}

fn a_report_is_kept_over_a_restart() {
    let place = Place::new();
    let engine = place.open();
    let jobs = [
        "head -c 20000 /dev/zero | tr '\\0' x; exit 4",
        "echo short; exit 5",
    ];
    let jobs = jobs.map(|line| engine.enqueue(place.shell(line)).unwrap());
    let told = jobs.each_ref().map(|job| {
        job.wait().unwrap();
        report(&engine, job.id())
    });
    engine.shutdown(MINUTE).unwrap();
    let engine = place.open();
    for (job, told) in jobs.iter().zip(&told) {
        assert_eq!(&report(&engine, job.id()), told);
    }
    assert_eq!(told[0].output.bytes.len(), 20_000);
    let value = engine
        .output(jobs[1].id())
        .unwrap()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(value["exit_code"], json!(5));
    assert_eq!(value["output"], json!({"cut": 0, "text": "short\n"}));
    let payload = engine
        .payload(jobs[1].id())
        .unwrap()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(payload["argv"], json!(["sh", "-c", "echo short; exit 5"]));
}

fn json_by_name() {
    let place = Place::new();
    let engine = place.open();
    let command = json!({"argv": ["sh", "-c", "echo $A"], "env": [["A", "b"]], "dir": "/"});
    let job = engine
        .json("command", &command)
        .enqueue()
        .unwrap()
        .into_handle();
    let Finished::Completed(report) = job.wait().unwrap() else {
        panic!("it runs");
    };
    assert_eq!(report["output"]["text"], json!("b\n"));
}

/// Without a store nothing is noted of a command, and it runs all the same.
fn inline_and_in_memory() {
    let engine = jobsled::Engine::in_memory()
        .handle(jobsled::command::run)
        .open()
        .unwrap();
    let report = engine
        .run_inline(&shell("echo $JOBSLED_JOB; exit 2"))
        .unwrap();
    let error = report.unwrap_err().to_string();
    assert!(error.contains("exit status 2"), "{error}");
    let report = engine
        .run_inline(&shell("echo $JOBSLED_JOB"))
        .unwrap()
        .unwrap();
    assert_eq!(output(&report), "0\n");
    let job = engine.enqueue(shell("echo $JOBSLED_JOB")).unwrap();
    assert_eq!(
        job.wait().unwrap(),
        Finished::Completed(super::place::report(&engine, job.id()))
    );
}

/// No file, thread, process or record is left of commands that have ended.
fn nothing_is_left_open() {
    let place = Place::new();
    let engine = place.open();
    let count = |of: &str| {
        std::fs::read_dir(format!("/proc/self/{of}"))
            .unwrap()
            .count()
    };
    let run = |commands: usize| {
        let jobs: Vec<_> = (0..commands)
            .map(|n| match n % 4 {
                0 => shell("echo a; exit 1"),
                1 => Command::new("no-such-program"),
                2 => shell("sleep 1000 & echo b").output_file("/dev/null"),
                _ => Command::new("true"),
            })
            .map(|command| engine.enqueue(command).unwrap())
            .collect();
        for job in jobs {
            job.wait().unwrap();
            assert!(job.state().unwrap().is_some_and(State::is_finished));
        }
        let children = format!("/proc/self/task/{}/children", std::process::id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        (count("fd"), count("task"), children)
    };
    let before = run(8);
    let after = run(200);
    assert_eq!(before, after);
    assert_eq!(place.records(), 0);
}
