//! What commands read and print.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use jobsled::Finished;
use jobsled::command::Command;

use super::place::{Case, MINUTE, Place, is_alive, output, pids, printed, run, shell};

pub(crate) const CASES: &[Case] = &[
    (
        "stdout_and_stderr_keep_their_order",
        stdout_and_stderr_keep_their_order,
    ),
    ("stdin_is_empty", stdin_is_empty),
    (
        "no_file_of_the_worker_is_open_in_a_command",
        no_file_of_the_worker_is_open_in_a_command,
    ),
    (
        "the_end_of_much_output_is_kept",
        the_end_of_much_output_is_kept,
    ),
    (
        "endless_output_takes_no_memory",
        endless_output_takes_no_memory,
    ),
    (
        "without_room_for_the_output_its_end_is_kept",
        without_room_for_the_output_its_end_is_kept,
    ),
    ("an_output_file_gets_all", an_output_file_gets_all),
    (
        "an_output_file_that_cannot_be_written",
        an_output_file_that_cannot_be_written,
    ),
    (
        "a_log_is_read_while_the_command_runs",
        a_log_is_read_while_the_command_runs,
    ),
    (
        "a_daemon_with_the_pipe_holds_nothing_up",
        a_daemon_with_the_pipe_holds_nothing_up,
    ),
    (
        "what_is_left_in_the_group_goes_with_the_command",
        what_is_left_in_the_group_goes_with_the_command,
    ),
];

fn stdout_and_stderr_keep_their_order() {
    let line = "i=0; while [ $i -lt 500 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
    let (report, _) = run(shell(line));
    let lines = (0..500).flat_map(|i| [format!("o{i}"), format!("e{i}")]);
    assert!(output(&report).lines().eq(lines));
}

/// A full disk made a dead job of a command that had succeeded, and forgot how it ended.
fn without_room_for_the_output_its_end_is_kept() {
    let place = Place::new();
    let engine = place.open();
    // No file can be made there any more, whoever tries.
    let payloads = place.store().join("payloads");
    std::fs::rename(&payloads, place.path("aside")).unwrap();
    std::fs::write(&payloads, "in the way").unwrap();
    let much = "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done";
    for code in [0, 3] {
        let job = engine.job(shell(&format!("{much}; exit {code}")));
        let handle = job.attempts(1).enqueue().unwrap().into_handle();
        let ended = handle.wait().unwrap();
        assert_eq!(
            matches!(ended, Finished::Completed(_)),
            code == 0,
            "{ended:?}"
        );
        let report = super::place::report(&engine, handle.id());
        assert_eq!(report.exit_code, Some(code));
        assert!(output(&report).ends_with("line 4999\n"), "{report:?}");
        assert!(report.output.cut > 40_000, "{report:?}");
    }
    engine.shutdown(MINUTE).unwrap();
}

fn stdin_is_empty() {
    let (report, error) = run(shell("cat; readlink /proc/self/fd/0"));
    assert_eq!((output(&report), error), ("/dev/null\n", None));
}

/// Also one that was opened without close-on-exec, as other libraries do.
fn no_file_of_the_worker_is_open_in_a_command() {
    let file = File::open("/etc/hostname").unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let number = file.as_raw_fd();
    // No pipe in it: the shell itself would have that open for a moment.
    let (report, _) = run(shell("ls /proc/$$/fd"));
    let open: Vec<i32> = pids(output(&report));
    assert!(!open.contains(&number) || number < 3, "{open:?}");
    // A shell has its own ones at 10 and above.
    assert!(open.iter().all(|fd| *fd < 3 || *fd >= 10), "{open:?}");
}

fn the_end_of_much_output_is_kept() {
    const KEPT: u64 = 64 * 1024;
    let (report, _) = run(shell(
        "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo end",
    ));
    let text = output(&report);
    assert!(text.ends_with("x\nend\n") && text.starts_with('x'));
    assert_eq!(
        (text.len() as u64, report.output.cut),
        (KEPT, 10_000_005 - KEPT)
    );
    // Not through a character: each has two bytes, and the first is alone.
    let (report, _) = run(shell(
        "printf x; yes ö | head -n 100000 | tr -d '\\n'; printf x",
    ));
    let text = output(&report);
    assert!(text.starts_with('ö') && text.ends_with("öx"));
    assert_eq!(text.len() as u64 + report.output.cut, 200_002);
    assert!(text.len() as u64 >= KEPT - 3, "{}", text.len());
}

fn endless_output_takes_no_memory() {
    let rss = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >> 10
    };
    let place = Place::new();
    let engine = place.open();
    engine
        .enqueue(Command::new("true"))
        .unwrap()
        .wait()
        .unwrap();
    let before = rss();
    let job = engine.enqueue(shell("head -c 1G /dev/zero")).unwrap();
    let Finished::Completed(report) = job.wait().unwrap() else {
        panic!("it ends");
    };
    assert_eq!(report.output.cut, (1 << 30) - 64 * 1024);
    let grown = rss().saturating_sub(before);
    assert!(grown < 16, "{grown} MiB more for 1 GiB of output");
}

fn an_output_file_gets_all() {
    let place = Place::new();
    let engine = place.open();
    std::fs::write(place.path("out"), "before\n").unwrap();
    let line = "echo out; echo err >&2; head -c 200000 /dev/zero | tr '\\0' x";
    for _ in 0..2 {
        let job = engine
            .enqueue(place.shell(line).output_file("out"))
            .unwrap();
        assert!(matches!(job.wait().unwrap(), Finished::Completed(_)));
    }
    let once = format!("out\nerr\n{}", "x".repeat(200_000));
    assert_eq!(place.text("out"), format!("before\n{once}{once}"));
    let whole = place.path("new");
    run(shell("echo new").output_file(&whole));
    assert_eq!(place.text("new"), "new\n");
}

fn an_output_file_that_cannot_be_written() {
    let place = Place::new();
    let engine = place.open();
    place.fifo("nobody-reads");
    let cases = [
        ("no/such/dir/out", "No such file"),
        ("store", "Is a directory"),
        ("nobody-reads", "No such device"),
    ];
    for (file, words) in cases {
        let ran = place.path("ran");
        let command = place.shell("echo > ran").output_file(file);
        let Finished::Dead(ended) = engine.enqueue(command).unwrap().wait().unwrap() else {
            panic!("{file} was opened");
        };
        let error = &ended.errors[0].error;
        let said = error.contains("the output file") && error.contains(file);
        assert!(said && error.contains(words), "{error}");
        assert!(!ran.exists());
    }
    // It is full while the command runs: the command has nothing to do with that.
    let (report, error) = run(shell("echo one; echo two").output_file("/dev/full"));
    assert_eq!((output(&report), error), ("one\ntwo\n", None));
    let full = report.output_file_error.unwrap();
    assert!(
        full.contains("/dev/full") && full.contains("No space"),
        "{full}"
    );
}

fn a_log_is_read_while_the_command_runs() {
    let place = Place::new();
    let fifo = place.fifo("go");
    let engine = place.open();
    let job = engine
        .enqueue(place.shell("echo one; cat go; echo three"))
        .unwrap();
    assert_eq!(printed(&engine, &job, |text| text.ends_with('\n')), "one\n");
    // Opening it waits for its reader.
    let mut go = File::create(fifo).unwrap();
    go.write_all(b"two\n").unwrap();
    assert_eq!(
        printed(&engine, &job, |text| text.ends_with("two\n")),
        "one\ntwo\n"
    );
    let from = engine.log(job.id(), 4, MINUTE).unwrap().unwrap();
    assert_eq!((from.from, from.bytes.as_slice()), (4, &b"two\n"[..]));
    drop(go);
    assert!(matches!(job.wait().unwrap(), Finished::Completed(_)));
    assert!(engine.log(job.id(), 0, MINUTE).unwrap().is_none());
}

/// It has left the process group, so it is not known here.
fn a_daemon_with_the_pipe_holds_nothing_up() {
    let place = Place::new();
    let daemon = "setsid sh -c 'echo $$ > pid.new; mv pid.new pid; exec sleep 1000' &";
    let line = format!("{daemon} while [ ! -s pid ]; do :; done; echo done");
    let (report, error) = run(place.shell(&line));
    assert_eq!((output(&report), error), ("done\n", None));
    let pid = pids(&place.text("pid"))[0];
    assert!(is_alive(pid), "a daemon goes on");
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn what_is_left_in_the_group_goes_with_the_command() {
    let (report, error) = run(shell("sleep 1000 & echo $!; sleep 1000 & echo $!"));
    assert_eq!(error, None);
    for pid in pids(output(&report)) {
        assert!(!is_alive(pid), "{pid}");
    }
}
