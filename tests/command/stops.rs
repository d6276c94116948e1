//! Commands that are made to end: by a wish to cancel, a limit, a shutdown.

use std::time::Duration;

use jobsled::command::Command;
use jobsled::{Cancel, DeadReason, Finished, ManualClock, OnCrash, State};
use rustix::process::{Pid, getpgid};

use super::place::{Case, MINUTE, Place, is_alive, output, pids, printed, report};

pub(crate) const CASES: &[Case] = &[
    (
        "a_command_in_another_group_is_ended_alone",
        a_command_in_another_group_is_ended_alone,
    ),
    (
        "a_time_limit_ends_the_whole_group",
        a_time_limit_ends_the_whole_group,
    ),
    (
        "a_command_that_does_not_listen_is_killed",
        a_command_that_does_not_listen_is_killed,
    ),
    (
        "cancel_ends_the_whole_group_and_keeps_the_report",
        cancel_ends_the_whole_group_and_keeps_the_report,
    ),
    (
        "silence_is_a_stall_and_output_is_none",
        silence_is_a_stall_and_output_is_none,
    ),
    (
        "a_shutdown_kills_and_gives_back",
        a_shutdown_kills_and_gives_back,
    ),
    ("at_most_once_at_shutdown", at_most_once_at_shutdown),
    (
        "a_dropped_engine_leaves_no_command",
        a_dropped_engine_leaves_no_command,
    ),
];

/// Prints its own number, and that of a child, and waits.
const FAMILY: &str = "sleep 1000 & echo $$ $!; sleep 1000";

fn a_time_limit_ends_the_whole_group() {
    let place = Place::new();
    let clock = ManualClock::at(1_700_000_000_000);
    let engine = place.builder().clock(clock.clone()).open().unwrap();
    let job = engine
        .job(place.shell(FAMILY))
        .time_limit(Duration::from_secs(30));
    let job = job.enqueue().unwrap().into_handle();
    let family = printed(&engine, &job, |text| text.ends_with('\n'));
    clock.advance(Duration::from_secs(30));
    let Finished::Dead(ended) = job.wait().unwrap() else {
        panic!("its time was over");
    };
    assert_eq!(ended.reason, DeadReason::AttemptsUsedUp);
    assert!(
        ended.errors[0].error.contains("time limit of 30s"),
        "{ended:?}"
    );
    let report = report(&engine, job.id());
    assert_eq!(
        (report.signal, output(&report)),
        (Some(15), family.as_str())
    );
    assert!(pids(&family).into_iter().all(|pid| !is_alive(pid)));
    assert_eq!(place.records(), 0);
}

fn a_command_that_does_not_listen_is_killed() {
    let place = Place::new();
    let engine = place.open();
    let deaf = "trap 'echo no' TERM; echo $$; while :; do sleep 1000 & wait; done";
    let job = engine.enqueue(place.shell(deaf)).unwrap();
    let pid = pids(&printed(&engine, &job, |text| text.ends_with('\n')))[0];
    assert_eq!(job.cancel().unwrap(), Cancel::AskedToStop);
    assert!(matches!(job.wait().unwrap(), Finished::Cancelled { .. }));
    let report = report(&engine, job.id());
    assert_eq!(report.signal, Some(9));
    assert!(
        output(&report).ends_with("no\n"),
        "it was asked first: {report:?}"
    );
    assert!(!is_alive(pid));
}

/// It has moved to the group of the worker, which must not be touched.
fn a_command_in_another_group_is_ended_alone() {
    let place = Place::new();
    let engine = place.open();
    let moves = "setpgrp(0, getpgrp(getppid)); $| = 1; print \"$$\\n\"; sleep 1000";
    let job = Command::new("perl").args(["-e", moves]);
    let job = engine.enqueue(job).unwrap();
    let pid = pids(&printed(&engine, &job, |text| text.ends_with('\n')))[0];
    let group = |pid: Option<Pid>| getpgid(pid).unwrap();
    assert_eq!(group(Pid::from_raw(pid)), group(None), "it has moved");
    assert_eq!(job.cancel().unwrap(), Cancel::AskedToStop);
    assert!(matches!(job.wait().unwrap(), Finished::Cancelled { .. }));
    assert!(!is_alive(pid));
}

fn cancel_ends_the_whole_group_and_keeps_the_report() {
    let place = Place::new();
    let engine = place.open();
    let polite = "trap 'echo bye; exit 7' TERM; sleep 1000 & echo $$ $!; wait";
    let job = engine.enqueue(place.shell(polite)).unwrap();
    let family = printed(&engine, &job, |text| text.ends_with('\n'));
    assert_eq!(job.cancel().unwrap(), Cancel::AskedToStop);
    let Finished::Cancelled { reason } = job.wait().unwrap() else {
        panic!("it was cancelled");
    };
    assert!(reason.contains("cancelled"), "{reason}");
    assert!(pids(&family).into_iter().all(|pid| !is_alive(pid)));
    engine.shutdown(MINUTE).unwrap();
    let engine = place.open();
    let report = report(&engine, job.id());
    assert_eq!(
        (report.exit_code, output(&report)),
        (Some(7), format!("{family}bye\n").as_str())
    );
    assert_eq!(
        engine
            .handle::<Command>(job.id())
            .unwrap()
            .unwrap()
            .state()
            .unwrap(),
        Some(State::Cancelled)
    );
}

/// Output is a sign of life.
fn silence_is_a_stall_and_output_is_none() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Watched {
        line: String,
    }
    jobsled::job!(
        Watched,
        kind = "watched",
        output = String,
        format = jobsled::Json,
        defaults = jobsled::JobDefaults::new()
            .attempts(1)
            .stall_timeout(MINUTE)
    );
    let place = Place::new();
    let fifo = place.fifo("go");
    let clock = ManualClock::at(1_700_000_000_000);
    let dir = place.path("");
    let engine =
        place
            .builder()
            .clock(clock.clone())
            .handle(move |job: Watched, cx: &jobsled::Context| {
                // By a handler of another kind: there the report is its own to keep.
                let report = jobsled::command::run(super::place::shell(&job.line).dir(&dir), cx)?;
                Ok(String::from_utf8(report.output.bytes)?)
            });
    let engine = engine.open().unwrap();
    let line = "echo 1; cat go; sleep 1000".to_owned();
    let job = engine.enqueue(Watched { line }).unwrap();
    let seen = |words: &str| {
        let log = || engine.log(job.id(), 0, MINUTE).unwrap();
        while !log().is_some_and(|part| part.bytes.ends_with(words.as_bytes())) {}
    };
    seen("1\n");
    let mut go = std::fs::File::create(fifo).unwrap();
    for n in 2..5 {
        clock.advance(Duration::from_secs(40));
        engine.stats().unwrap();
        std::io::Write::write_all(&mut go, format!("{n}\n").as_bytes()).unwrap();
        seen(&format!("{n}\n"));
    }
    assert_eq!(
        job.state().unwrap(),
        Some(State::Running),
        "two minutes, and no stall"
    );
    clock.advance(MINUTE);
    let Finished::Dead(ended) = job.wait().unwrap() else {
        panic!("it was silent");
    };
    assert!(
        ended.errors[0].error.contains("no sign of life for 60s"),
        "{ended:?}"
    );
    assert!(engine.output(job.id()).unwrap().is_none());
}

fn a_shutdown_kills_and_gives_back() {
    let place = Place::new();
    let engine = place.open();
    let line = format!("[ $JOBSLED_ATTEMPT = 2 ] && exec echo again; trap '' TERM; {FAMILY}");
    let job = engine.enqueue(place.shell(&line)).unwrap();
    let family = printed(&engine, &job, |text| text.ends_with('\n'));
    engine.shutdown(MINUTE).unwrap();
    assert!(pids(&family).into_iter().all(|pid| !is_alive(pid)));
    assert_eq!(place.records(), 0);
    let engine = place.open();
    let job = engine.handle::<Command>(job.id()).unwrap().unwrap();
    let Finished::Completed(report) = job.wait().unwrap() else {
        panic!("it ran again");
    };
    assert_eq!(output(&report), "again\n");
}

/// It ran a second time once.
fn at_most_once_at_shutdown() {
    for grace in [MINUTE, Duration::ZERO] {
        let place = Place::new();
        let engine = place.open();
        let line = format!("echo run >> runs; {FAMILY}");
        let job = engine
            .job(place.shell(&line))
            .attempts(9)
            .on_crash(OnCrash::Dead);
        let job = job.enqueue().unwrap().into_handle();
        let family = printed(&engine, &job, |text| text.ends_with('\n'));
        engine.shutdown(grace).unwrap();
        let engine = place.open();
        let next = engine.enqueue(place.shell("true")).unwrap();
        assert!(matches!(next.wait().unwrap(), Finished::Completed(_)));
        let job = engine.handle::<Command>(job.id()).unwrap().unwrap();
        let Finished::Dead(ended) = job.wait().unwrap() else {
            panic!("at most once");
        };
        assert_eq!(
            (ended.reason, place.text("runs").as_str()),
            (DeadReason::Crashed, "run\n")
        );
        assert!(pids(&family).into_iter().all(|pid| !is_alive(pid)));
        if !grace.is_zero() {
            assert_eq!(
                report(&engine, job.id()).signal,
                Some(9),
                "in time for its report"
            );
        }
    }
}

/// The last clone goes without a word of shutdown, and the next engine of the same process begins at once.
fn a_dropped_engine_leaves_no_command() {
    let place = Place::new();
    for round in 0..5 {
        let engine = place.open();
        if round == 0 {
            // Whoever has the lock is the only one.
            let line = format!("exec 9> lock; flock -n 9 || echo beside >> beside; {FAMILY}");
            engine.enqueue(place.shell(&line)).unwrap();
        }
        let job = engine.jobs().list().unwrap()[0].id;
        let job = engine.handle::<Command>(job).unwrap().unwrap();
        printed(&engine, &job, |text| text.ends_with('\n'));
    }
    assert_eq!(place.text("beside"), "");
}
