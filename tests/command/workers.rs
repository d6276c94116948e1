//! Workers that die, and what they leave.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use jobsled::command::Command;
use jobsled::{Backoff, Finished, OnCrash, Queue};

use super::place::{Case, MINUTE, Place, builder, is_alive, output, pids, wait_for_end};

pub(crate) const CASES: &[Case] = &[
    (
        "a_killed_worker_takes_its_command_along",
        a_killed_worker_takes_its_command_along,
    ),
    ("no_run_beside_an_earlier_one", no_run_beside_an_earlier_one),
    (
        "a_launcher_without_a_worker_runs_nothing",
        a_launcher_without_a_worker_runs_nothing,
    ),
    (
        "another_program_in_place_of_the_worker_does_not_matter",
        another_program_in_place_of_the_worker_does_not_matter,
    ),
];

const CHILD: &str = "JOBSLED_COMMAND_WORKER";

/// As a child of this test: a worker that runs what is in the store, until it is killed or nothing is left.
pub(crate) fn child() -> Option<ExitCode> {
    let store = std::env::var_os(CHILD)?;
    let engine = builder(Path::new(&store)).open().unwrap();
    println!("open");
    while !engine.wait_until_idle(MINUTE).unwrap() {}
    Some(ExitCode::SUCCESS)
}

/// Killed when dropped, should the case fail meanwhile.
struct Worker(Child);

impl Worker {
    fn start(program: &Path, place: &Place) -> Worker {
        let mut worker = std::process::Command::new(program);
        worker.env(CHILD, place.store()).stdout(Stdio::piped());
        Worker(worker.spawn().unwrap())
    }

    /// Waits until the store is open.
    fn opens(&mut self) {
        let mut said = BufReader::new(self.0.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "open");
    }

    fn kill(mut self) {
        self.0.kill().unwrap(); // SIGKILL
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn this_program() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

/// The command dies with its worker, by the kernel's hand. What it had started does not, and is ended before the
/// command runs again: that one finds the lock free, which each run holds to its last process.
fn a_killed_worker_takes_its_command_along() {
    const KILLS: usize = 3;
    let place = Place::new();
    let fifo = place.fifo("begun");
    let engine = place.open();
    engine.queue("default").pause().unwrap();
    let line = "exec 9> lock; flock -n 9 || echo beside >> trace; echo run >> trace
        [ $JOBSLED_ATTEMPT -gt 3 ] && exec echo done
        trap '' TERM; sleep 1000 & echo $$ $! > begun; wait";
    let job = engine.job(place.shell(line)).on_crash(OnCrash::Rerun);
    let job = job.enqueue().unwrap().into_handle();
    engine.queue("default").resume().unwrap();
    // The first of them is this process itself, given up without a word.
    let family = pids(&std::fs::read_to_string(&fifo).unwrap());
    engine.shutdown(Duration::ZERO).unwrap();
    family.into_iter().for_each(wait_for_end);
    for _ in 1..KILLS {
        let worker = Worker::start(&this_program(), &place);
        let family = pids(&std::fs::read_to_string(&fifo).unwrap());
        worker.kill();
        wait_for_end(family[0]);
        assert!(is_alive(family[1]), "or this proves nothing");
        assert_eq!(place.records(), 1);
    }
    let engine = place.open();
    let job = engine.handle::<Command>(job.id()).unwrap().unwrap();
    let Finished::Completed(report) = job.wait().unwrap() else {
        panic!("the fourth run ends");
    };
    assert_eq!(output(&report), "done\n");
    assert_eq!(place.text("trace"), "run\n".repeat(KILLS + 1));
    assert_eq!(place.records(), 0);
}

/// Workers are killed at any moment, again and again: of no job two runs are there at the same time. Each run holds
/// its job's lock to its last process.
fn no_run_beside_an_earlier_one() {
    const KILLS: u64 = 15;
    let place = Place::new();
    let engine = place
        .builder()
        .queue(Queue::new("default").keep_finished(usize::MAX))
        .open()
        .unwrap();
    engine.queue("default").pause().unwrap();
    let line = "exec 9> lock-$JOBSLED_JOB; flock -n 9 || echo $JOBSLED_JOB beside >> trace
        sleep 1000 & echo $JOBSLED_JOB >> trace; sleep 0.02";
    let jobs: Vec<_> = (0..80)
        .map(|_| {
            engine
                .job(place.shell(line))
                .on_crash(OnCrash::Rerun)
                .enqueue()
                .unwrap()
                .into_handle()
        })
        .collect();
    engine.queue("default").resume().unwrap();
    engine.shutdown(Duration::ZERO).unwrap();
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..KILLS {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let mut worker = Worker::start(&this_program(), &place);
        worker.opens();
        // Some moment later: after so many looks at a file.
        let looks = 0..dice % 20_000;
        let seen = looks.filter(|_| place.path("trace").exists()).count();
        std::hint::black_box(seen);
        worker.kill();
    }
    let engine = place.open();
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    for job in jobs {
        let job = engine.handle::<Command>(job.id()).unwrap().unwrap();
        assert!(matches!(job.wait().unwrap(), Finished::Completed(_)));
    }
    let trace = place.text("trace");
    assert!(!trace.contains("beside"), "{trace}");
    let again = trace.lines().count() - 80;
    println!("    {KILLS} kills, {again} runs were cut off");
    assert!(again > 0, "no kill met a run");
    assert_eq!(place.records(), 0);
}

/// One whose worker dies before everything is noted, and one that was started by somebody else.
fn a_launcher_without_a_worker_runs_nothing() {
    let place = Place::new();
    let order = serde_json::to_vec(&place.shell("echo > ran")).unwrap();
    let length = u32::try_from(order.len()).unwrap().to_le_bytes();
    let (here, other) = (std::process::id().to_string(), "1".to_owned());
    let whole = [&length[..], &order, b"g"].concat();
    let cases = [
        (&here, &whole[..whole.len() - 1], false),
        (&here, &whole[..0], false),
        (&here, &whole[..20], false),
        (&other, &whole[..], false),
        (&here, &whole[..], true),
    ];
    for (worker, sent, runs) in cases {
        let mut launcher = std::process::Command::new(this_program());
        launcher
            .arg0("jobsled-launch")
            .arg(worker)
            .stdin(Stdio::piped());
        let mut launcher = launcher.spawn().unwrap();
        let mut stdin = launcher.stdin.take().unwrap();
        // One that was started by somebody else does not even read.
        let _ = stdin.write_all(sent);
        drop(stdin);
        let end = launcher.wait().unwrap();
        assert_eq!(
            (place.path("ran").exists(), end.success()),
            (runs, runs),
            "{sent:?}"
        );
    }
}

/// A worker whose program is replaced, or removed, starts commands with the program that it is.
fn another_program_in_place_of_the_worker_does_not_matter() {
    let place = Place::new();
    let (begun, go) = (place.fifo("begun"), place.fifo("go"));
    let has_begun = || assert_eq!(std::fs::read_to_string(&begun).unwrap(), "\n");
    let engine = place.open();
    let line = "[ $JOBSLED_ATTEMPT = 3 ] && exec echo again; echo > begun; cat go; exit 1";
    let now = Backoff::fixed(Duration::ZERO);
    let job = engine.job(place.shell(line)).attempts(2).backoff(now);
    let job = job.enqueue().unwrap().into_handle();
    has_begun();
    engine.shutdown(MINUTE).unwrap();
    let program = place.path("worker");
    std::fs::copy(this_program(), &program).unwrap();
    let mut worker = Worker::start(&program, &place);
    has_begun();
    std::fs::remove_file(&program).unwrap();
    drop(std::fs::File::create(go).unwrap());
    assert!(worker.0.wait().unwrap().success());
    let engine = place.open();
    let job = engine.handle::<Command>(job.id()).unwrap().unwrap();
    let Finished::Completed(report) = job.wait().unwrap() else {
        panic!("it ran");
    };
    assert_eq!(output(&report), "again\n");
}
