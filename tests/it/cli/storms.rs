use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{Cli, lines};

/// How many of something: a part in CI, all of it when asked for.
fn many(part: u64, all: u64) -> u64 {
    if std::env::var_os("JOBSLED_FULL").is_some() {
        all
    } else {
        part
    }
}

#[test]
fn adds_from_eight_shells_while_it_works() {
    let cli = Cli::new();
    let worker = cli.work("--workers 2");
    let each = many(1_000, 10_000) / 8;
    let ids: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let shells = [0; 8].map(|_| {
            scope.spawn(|| {
                let add = |_| cli.ok("add -- true").trim().parse().unwrap();
                (0..each).map(add).collect()
            })
        });
        shells
            .into_iter()
            .map(|shell| shell.join().unwrap())
            .collect()
    });
    assert!(
        ids.iter().all(|ids| ids.is_sorted()),
        "each shell's ids rise"
    );
    let ids: BTreeSet<u64> = ids.into_iter().flatten().collect();
    assert_eq!(ids.len() as u64, 8 * each, "distinct");
    let last = ids.last().unwrap();
    assert_eq!(*last, 8 * each, "none left out");
    worker.stop();
    cli.drain();
    let states: BTreeMap<u64, String> = cli
        .jobs()
        .iter()
        .map(|job| {
            (
                job["id"].as_u64().unwrap(),
                job["state"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(
        states.keys().copied().collect::<BTreeSet<_>>(),
        ids,
        "none lost"
    );
    assert!(states.values().all(|state| state == "completed"));
}

/// Without a worker each `add` opens the store for itself, or asks the one that has it for a moment.
#[test]
fn adds_from_eight_shells_without_a_worker() {
    let cli = Cli::new();
    let each = 5;
    let ids: BTreeSet<u64> = std::thread::scope(|scope| {
        let shells = [0; 8].map(|_| {
            scope.spawn(|| {
                let add = |_| cli.ok("add -- true").trim().parse().unwrap();
                (0..each).map(add).collect::<Vec<u64>>()
            })
        });
        shells
            .into_iter()
            .flat_map(|shell| shell.join().unwrap())
            .collect()
    });
    assert_eq!(ids, (1..=8 * each).collect());
    assert_eq!(cli.jobs().len() as u64, 8 * each);
}

/// What one attempt of a command wrote: when it was seen first and last.
type Ticks = BTreeMap<(u64, u64), (u64, u64)>;

fn ticks(cli: &Cli) -> Ticks {
    let mut ticks = Ticks::new();
    for line in lines(&cli.path("ticks")) {
        let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
        // A copy that was killed may have written half a line.
        if let [job, claim, at] = numbers[..]
            && at > 1_000_000_000_000_000_000
        {
            let seen = ticks.entry((job, claim)).or_insert((at, at));
            seen.1 = at;
        }
    }
    ticks
}

/// A worker is killed again and again: every command completes, and no two copies of one run at the same time. Half
/// of them do their work in a child of their own, which nothing kills when the worker dies.
#[test]
fn commands_survive_a_worker_that_is_killed() {
    let cli = Cli::new();
    let jobs = 300;
    let tick = "for i in 1 2 3 4 5; do echo $JOBSLED_JOB $JOBSLED_CLAIM $(date +%s%N) >> ticks; sleep 0.01; done";
    let of = |n: u64| {
        if n.is_multiple_of(2) {
            tick.to_owned()
        } else {
            format!("({tick}) & wait")
        }
    };
    let list: Vec<String> = (0..jobs)
        .map(|n| serde_json::json!({ "argv": ["sh", "-c", of(n)] }).to_string())
        .collect();
    fs::write(cli.path("list"), list.join("\n")).unwrap();
    cli.ok("add --from list");
    for kill in 1..=6 {
        let mut worker = cli.work("--workers 4");
        // At some moment when about so many have ended.
        let target = kill * jobs / 8 + 7 * kill;
        while ended(&cli) < target {
            assert!(
                worker.child.try_wait().unwrap().is_none(),
                "it ended by itself"
            );
        }
        worker.kill();
    }
    let drained = cli.drain();
    assert!(drained.status.success(), "{drained:?}");
    let states: BTreeSet<String> = cli
        .jobs()
        .iter()
        .map(|job| job["state"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        states,
        BTreeSet::from(["completed".to_owned()]),
        "every one, none stuck"
    );
    let ticks = ticks(&cli);
    let mut again = 0;
    for ((job, claim), (first, _)) in &ticks {
        let before = ticks
            .range((*job, 0)..(*job, *claim))
            .map(|(_, (_, last))| *last)
            .max();
        if let Some(last) = before {
            again += 1;
            assert!(
                last < *first,
                "job {job}: claim {claim} began before the copy before had ended"
            );
        }
    }
    assert!(again > 0, "some ran again");
    let ran: BTreeSet<u64> = ticks.keys().map(|(job, _)| *job).collect();
    assert_eq!(ran.len() as u64, jobs);
}

fn ended(cli: &Cli) -> u64 {
    let ran = cli.run("stats --json");
    let stats = ran.json();
    let completed = stats
        .first()
        .and_then(|stats| stats.pointer("/stats/counters/completed"));
    completed.and_then(serde_json::Value::as_u64).unwrap_or(0)
}

/// A command that kills the worker, always: after three crashes it is taken out, and its neighbours complete.
#[test]
fn a_command_that_kills_its_worker_is_quarantined() {
    let cli = Cli::new();
    let killer = cli.add("", "kill -9 $PPID; sleep 1");
    let neighbours: Vec<u64> = (0..6).map(|n| cli.add("", &format!("echo {n}"))).collect();
    let mut crashes = 0;
    while !cli.run("work --drain --workers 3").status.success() {
        crashes += 1;
        assert!(crashes <= 3, "{crashes} crashes");
    }
    assert_eq!(crashes, 3);
    let shown = cli.run(&format!("show --json {killer}")).json();
    assert_eq!(shown[0]["state"], "dead");
    assert_eq!(shown[0]["dead_reason"], "quarantined");
    for id in neighbours {
        assert_eq!(cli.state(id), "completed", "job {id}");
    }
}

/// What a process did, as strace tells it: one call a line, files by name.
fn traced(cli: &Cli, words: &str) -> Option<Vec<String>> {
    let trace = cli.path("trace");
    let mut strace = std::process::Command::new("strace");
    strace.args([
        "-f",
        "-y",
        "-qq",
        "-s",
        "200",
        "-e",
        "trace=write,pwrite64,writev,pwritev,pwritev2,sendto,fdatasync,fsync",
    ]);
    strace
        .arg("-o")
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_jobsled"))
        .args(words.split_whitespace());
    strace
        .env("JOBSLED_STORE", cli.store())
        .current_dir(cli.dir.path());
    let ran = strace.output().ok()?;
    ran.status.success().then(|| lines(&trace))
}

/// Between the last write to the journal before `at` and `at` there is a sync of it.
fn is_synced(trace: &[String], at: usize) -> bool {
    let of_journal =
        |line: &&String| line.contains("journal/db>") || line.contains("journal.new/db>");
    let before = trace.iter().take(at);
    let last = before
        .rev()
        .filter(of_journal)
        .find(|line| !line.contains("resumed"));
    last.is_some_and(|line| line.contains("fdatasync("))
}

/// I1, from outside: no id is printed, or sent, before a sync that follows the last write to the journal.
#[test]
fn no_id_is_told_before_it_is_on_stable_storage() {
    let cli = Cli::new();
    let Some(trace) = traced(&cli, "add -- true") else {
        println!("skipped: strace is missing or may not trace");
        return;
    };
    let printed = trace
        .iter()
        .position(|line| line.contains("write(1<") && line.contains("\"1\\n\""));
    let printed = printed.expect("the id");
    assert!(
        is_synced(&trace, printed),
        "{:#?}",
        &trace[printed.saturating_sub(20)..=printed]
    );

    let adds = std::thread::scope(|scope| {
        let worker = scope.spawn(|| traced(&cli, "work --drain --queue other"));
        worker.join().unwrap()
    });
    assert!(adds.is_some());
    // A worker that serves an add over its socket: it ends when told so.
    let mut strace = std::process::Command::new("strace");
    let trace = cli.path("served");
    strace.args([
        "-f",
        "-y",
        "-qq",
        "-s",
        "200",
        "-e",
        "trace=write,pwrite64,pwritev,sendto,fdatasync,fsync",
        "-o",
    ]);
    strace
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_jobsled"))
        .args(["work", "--queue", "other"]);
    strace
        .env("JOBSLED_STORE", cli.store())
        .stderr(std::process::Stdio::null());
    let mut tracer = strace.spawn().unwrap();
    let pid = loop {
        let stats = cli.run("stats --json").json();
        if let Some(pid) = stats.first().and_then(|stats| stats["pid"].as_i64()) {
            break i32::try_from(pid).unwrap();
        }
    };
    let ids: Vec<u64> = (0..20).map(|_| cli.add("", "true")).collect();
    let worker = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(worker, rustix::process::Signal::TERM).unwrap();
    tracer.wait().unwrap();
    let trace = lines(&trace);
    for id in ids {
        let told = format!("\\\"id\\\":{id},\\\"new\\\":true");
        let at = trace
            .iter()
            .position(|line| line.contains(&told))
            .expect("its answer");
        assert!(
            is_synced(&trace, at),
            "{:#?}",
            &trace[at.saturating_sub(20)..=at]
        );
    }
}
