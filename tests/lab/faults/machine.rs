//! Limits and disks: what a machine refuses.
//!
//! Mounts need root; without it they are counted as skipped. That threads are refused is among the calls (`mod.rs`):
//! a limit on processes does not bind root. Memory that is refused ends a Rust program with SIGABRT: here that is
//! allowed, and what was acknowledged has to be there all the same.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{EIO, Place, ended, recovered, told, words};
use crate::check::Log;
use crate::kill::left;
use crate::kill::oracle::Oracle;
use crate::notes::WELL;
use crate::preload::{Plan, Preload};

/// What may happen to a machine, and how many of it were tried: none if this machine cannot show it.
type Refusal = fn(&Preload, &Log) -> Result<u64, String>;

/// What a machine refuses.
pub(super) const ALL: &[(&str, Refusal)] = &[
    ("a worker, and syncs fail", |preload, log| {
        worker_on_bad_disk("fdatasync", preload, log)
    }),
    ("a worker, and writes fail", |preload, log| {
        worker_on_bad_disk("pwrite64", preload, log)
    }),
    (
        "a disk that is full sooner or later, and then grows",
        |_, log| full_disk(log),
    ),
    ("a store that may only be read", |_, log| read_only(log)),
    ("each sync takes its time", |preload, _| slow_disk(preload)),
    ("files must not grow beyond a size", |_, log| file_size(log)),
    ("only so many files may be open", |_, log| descriptors(log)),
    ("only so much memory is given", |_, log| memory(log)),
    ("only so many threads are given", threads),
];

const PROGRAM: &str = env!("CARGO_BIN_EXE_jobsled");

fn jobsled(place: &Place, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(words)
        .env("JOBSLED_STORE", place.store())
        .current_dir(place.dir.path());
    command
}

/// Ends well, or this is the failure.
fn well(command: &mut Command) -> Result<String, String> {
    let output = ended(command)?;
    if told(&output)? == 0 {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{command:?}: {}: {}",
            output.status,
            words(&output)
        ))
    }
}

fn add(place: &Place) -> Result<u64, String> {
    let id = well(&mut jobsled(place, &["add", "--", "true"]))?;
    id.trim().parse().map_err(|_| format!("no id: {id}"))
}

/// All of them completed, without the fault.
fn drained(place: &Place, ids: &[u64]) -> Result<(), String> {
    well(&mut jobsled(place, &["work", "--drain"]))?;
    let listed = well(&mut jobsled(place, &["ls", "--json"]))?;
    for id in ids {
        let found = listed
            .lines()
            .find(|line| line.contains(&format!("\"id\":{id},")));
        let found = found.ok_or_else(|| format!("job {id} is lost: {listed}"))?;
        if !found.contains("\"state\":\"completed\"") {
            return Err(format!("job {id} did not come to its end: {found}"));
        }
    }
    Ok(())
}

/// The worker ends by itself, with 1 and words that say what to do, whether it would have stayed or not.
fn worker_on_bad_disk(call: &'static str, preload: &Preload, log: &Log) -> Result<u64, String> {
    for n in 1.. {
        let place = Place::new();
        let ids = [add(&place)?, add(&place)?, add(&place)?];
        let plan = Plan {
            calls: call,
            what: EIO.to_owned(),
            from: n,
            to: u64::MAX,
        };
        let mut work = jobsled(&place, &["work", "--drain"]);
        preload.onto(&mut work, &plan, &place.store(), &place.fired());
        let output = ended(&mut work)?;
        let code = told(&output)?;
        let Some(hit) = place.hit() else {
            return if code == 0 {
                drained(&place, &ids).map(|()| 1)
            } else {
                Err(words(&output))
            };
        };
        says_why(&output, &hit).map_err(|why| format!("{call} {n}: {why}"))?;
        drained(&place, &ids).map_err(|why| format!("{call} {n}: {why}"))?;
        let ids = [add(&place)?, add(&place)?];
        // And one that nobody asked to end.
        std::fs::remove_file(place.fired()).map_err(|e| e.to_string())?;
        let mut work = jobsled(&place, &["work"]);
        preload.onto(
            &mut work,
            &Plan {
                from: n.min(6),
                ..plan
            },
            &place.store(),
            &place.fired(),
        );
        if let Some(output) = ended_if_hit(&mut work, &place)? {
            says_why(&output, &hit).map_err(|why| format!("{call} {n}, to stay: {why}"))?;
            log.note("workers ended by a bad disk", 1);
        }
        drained(&place, &ids).map_err(|why| format!("{call} {n}, to stay: {why}"))?;
        log.note("workers ended by a bad disk", 1);
    }
    Ok(1)
}

/// How a worker ended that nobody asked to; `None` if it had no reason to by then.
fn ended_if_hit(work: &mut Command, place: &Place) -> Result<Option<Output>, String> {
    work.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = work.spawn().map_err(|e| e.to_string())?;
    let in_time = left(&mut child, Instant::now() + Duration::from_secs(1))?;
    let hit = place.hit().is_some();
    let in_time = in_time || (hit && left(&mut child, Instant::now() + super::LIFE_MAX)?);
    let _ = child.kill();
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    match (in_time, hit) {
        (true, _) => Ok(Some(output)),
        (false, false) => Ok(None),
        (false, true) => Err(format!("it stays: {}", words(&output))),
    }
}

fn says_why(output: &Output, hit: &str) -> Result<(), String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    let code = told(output)?;
    let person = ["Input/output error", "os error 5"]
        .iter()
        .any(|text| errors.contains(text));
    // All was done, told and synced by then; what failed only makes the next opening quicker.
    let needless = code == 0 && errors.contains("closed without a fresh snapshot");
    if needless || (code == 1 && errors.contains("error: ") && person) {
        Ok(())
    } else {
        Err(format!(
            "{}, saying `{errors}`, when these failed: {hit}",
            output.status
        ))
    }
}

/// A mount that goes away with this.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(arguments: &[&str]) -> Result<Mount, String> {
        let dir = crate::check::disk_dir();
        mount(arguments, dir.path())?;
        Ok(Mount(dir))
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<(), String> {
    let done = Command::new("mount")
        .args(arguments)
        .arg(at)
        .output()
        .map_err(|e| e.to_string())?;
    if done.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

/// So many KiB are free when the script begins. Then the disk grows.
fn full_disk(log: &Log) -> Result<u64, String> {
    for free in [
        0, 4, 64, 500, 1_000, 2_000, 3_000, 4_000, 4_200, 5_000, 6_000, 8_000, 9_000, 12_000,
        14_000, 20_000, 30_000, 48_000,
    ] {
        let size = format!("size={free}k");
        let size = if free == 0 { "size=4k" } else { &size };
        let disk = match Mount::new(&["-t", "tmpfs", "-o", size, "jobsled-lab"]) {
            Ok(disk) => disk,
            Err(why) => {
                log.skipped(1, &format!("a full disk: {why}"));
                return Ok(0);
            }
        };
        let place = Place::new();
        let mut script = super::script_in(disk.0.path(), &place.notes(), "script");
        let output = ended(&mut script)?;
        let code = told(&output).map_err(|why| format!("{free} KiB: {why}"))?;
        log.note(if code == WELL { "unharmed" } else { "refused" }, 1);
        mount(&["-o", "remount,size=64m"], disk.0.path())?;
        recovered(disk.0.path(), &place.notes())
            .map_err(|why| format!("{free} KiB: {why}\n  it said: {}", words(&output)))?;
    }
    Ok(1)
}

/// A store that was closed, and one whose process died, seen read-only; and then again as they were.
fn read_only(log: &Log) -> Result<u64, String> {
    let place = Place::new();
    let ids = [add(&place)?, add(&place)?];
    let home = place.home();
    let seen = match Mount::new(&["--bind", &home.display().to_string()]) {
        Ok(seen) => seen,
        Err(why) => {
            log.skipped(1, &format!("a read-only disk: {why}"));
            return Ok(0);
        }
    };
    mount(&["-o", "remount,ro,bind"], seen.0.path())?;
    for words in [&["add", "--", "true"][..], &["work", "--drain"], &["ls"]] {
        let store = seen.0.path().join("store");
        let output = ended(jobsled(&place, words).env("JOBSLED_STORE", &store))?;
        let said = super::words(&output);
        let names_it = said.contains(&*store.display().to_string()) && said.contains("Read-only");
        if words[0] != "ls" && (told(&output)? == 0 || !names_it) {
            return Err(format!(
                "`jobsled {}` on a read-only disk: {}: {said}",
                words[0], output.status
            ));
        }
        told(&output)?;
    }
    drop(seen);
    drained(&place, &ids).map(|()| 1)
}

/// Nothing fails, nothing is run twice, it only takes longer.
fn slow_disk(preload: &Preload) -> Result<u64, String> {
    const SYNC_MS: u64 = 40;
    let place = Place::new();
    let plan = Plan {
        calls: "fdatasync",
        what: "DELAY".to_owned(),
        from: 1,
        to: SYNC_MS,
    };
    let mut command = place.script("script");
    preload.onto(&mut command, &plan, &place.home(), &place.fired());
    let output = ended(&mut command)?;
    if told(&output)? != WELL || place.hit().is_none() {
        return Err(format!("{}: {}", output.status, words(&output)));
    }
    let mut oracle = Oracle::default();
    oracle.life(&std::fs::read_to_string(place.notes()).map_err(|e| e.to_string())?)?;
    if oracle.again > 0 {
        return Err("jobs ran again, and nobody died".to_owned());
    }
    recovered(&place.home(), &place.notes()).map(|()| 1)
}

/// A program under a limit of its shell's.
fn limited(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell
}

/// The program, whose writes fail beyond the limit: not killed, and nothing lost that it said.
fn file_size(log: &Log) -> Result<u64, String> {
    // In blocks of 512 bytes.
    for blocks in [
        0_u32, 1, 8, 64, 500, 2_000, 8_000, 8_192, 8_200, 9_000, 16_384, 16_500, 20_000,
    ] {
        let place = Place::new();
        let mut ids = Vec::new();
        for _ in 0..4 {
            let output = ended(&mut limited(
                &format!("-f {blocks}"),
                &jobsled(&place, &["add", "--", "true"]),
            ))?;
            if told(&output).map_err(|why| format!("{blocks} blocks: {why}"))? == 0 {
                let said = String::from_utf8_lossy(&output.stdout);
                ids.push(said.trim().parse().map_err(|_| format!("no id: {said}"))?);
            }
        }
        let work = jobsled(&place, &["work", "--drain"]);
        let output = ended(&mut limited(&format!("-f {blocks}"), &work))?;
        let code = told(&output).map_err(|why| format!("{blocks} blocks: {why}"))?;
        log.note(if code == 0 { "unharmed" } else { "refused" }, 1);
        ids.push(add(&place).map_err(|why| format!("after {blocks} blocks: {why}"))?);
        drained(&place, &ids).map_err(|why| format!("after {blocks} blocks: {why}"))?;
    }
    Ok(1)
}

/// From hardly any to as many as are needed.
fn descriptors(log: &Log) -> Result<u64, String> {
    for most in 4..200 {
        let place = Place::new();
        let output = ended(&mut limited(&format!("-n {most}"), &place.script("script")))?;
        // Below that the system cannot even load a program.
        let loaded = !words(&output).contains("shared libraries");
        let code = told(&output).map_err(|why| format!("{most} descriptors: {why}"))?;
        recovered(&place.home(), &place.notes())
            .map_err(|why| format!("{most} descriptors: {why}"))?;
        if code == WELL && loaded {
            log.note("descriptors needed", most);
            return Ok(1);
        }
    }
    Err("200 descriptors are not enough".to_owned())
}

/// From none but the first to as many as are needed.
fn threads(preload: &Preload, log: &Log) -> Result<u64, String> {
    for most in 1..100 {
        let place = Place::new();
        let plan = Plan {
            calls: "pthread_create",
            what: "LIMIT".to_owned(),
            from: 1,
            to: most,
        };
        let mut command = place.script("script");
        preload.onto(&mut command, &plan, &place.home(), &place.fired());
        let output = ended(&mut command)?;
        let code = told(&output).map_err(|why| format!("{most} threads: {why}"))?;
        recovered(&place.home(), &place.notes()).map_err(|why| format!("{most} threads: {why}"))?;
        if code == WELL && place.hit().is_none() {
            log.note("threads needed", most);
            return Ok(1);
        }
    }
    Err("100 threads are not enough".to_owned())
}

/// From hardly any to as much as is needed.
fn memory(log: &Log) -> Result<u64, String> {
    let mut kib = 8_000;
    while kib < 4_000_000 {
        let place = Place::new();
        let output = ended(&mut limited(&format!("-v {kib}"), &place.script("script")))?;
        if words(&output).contains("stuck") {
            return Err(format!("{kib} KiB: {}", words(&output)));
        }
        recovered(&place.home(), &place.notes())
            .map_err(|why| format!("{kib} KiB: {why}\n  it said: {}", words(&output)))?;
        match output.status.code() {
            Some(0) => return Ok(1),
            Some(_) => log.note("refused", 1),
            None => log.note("ended for want of memory", 1),
        }
        kib += kib / 6;
    }
    Err("4 GB are not enough".to_owned())
}
