//! File calls that fail, and machines that refuse: a typed error or success, and nothing lost when it is over.
//!
//! One seed is one plan. Most plans are a call and what it says instead of doing its work (`preload`): the script
//! (`subject/script.rs`) runs with the first such call failing, with the second, and so on, until none is left that it
//! comes by; once, and for ever from then on. After each run the fault is gone, and the store has to open, hold all
//! that was acknowledged, and come to its end; the oracle of the kills says whether it does. The other plans
//! (`machine`) are limits and disks. Every process has a time in which it must end, and none may panic or be killed by
//! a signal.
//!
//! Does not cover: threads that are refused from the moment on at which sled has none yet (its first flush then waits
//! without end; that there is room for some is looked at before); calls that do not go through the C library; a disk
//! that lies (the witness's tests).

mod machine;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::built;
use crate::check::{self, Log, Order, Size};
use crate::kill::left;
use crate::kill::oracle::Oracle;
use crate::notes::{REFUSED, WELL};
use crate::preload::{Plan, Preload};
use crate::random::Random;

pub(crate) const CHECK: check::Check = check::Check {
    name: "faults",
    unit: "fault plans",
    little: 3,
    ci: PLANS,
    goal: PLANS,
    signs: &[("refused", 3_000), ("calls until clean", 20_000)],
    run,
};

const PLANS: u64 = (CALLS.len() + machine::ALL.len()) as u64;
/// In this time every process must end.
const LIFE_MAX: Duration = Duration::from_secs(40);
/// Every call up to this one, in each size; of later ones some, or all when it was asked for by name.
const DENSE: u64 = 10;

const EINTR: &str = "4";
const EIO: &str = "5";
const EMFILE: &str = "24";
const ENOSPC: &str = "28";
const EROFS: &str = "30";
const EAGAIN: &str = "11";

/// How long a fault lasts.
#[derive(Clone, Copy, Debug)]
enum Lasts {
    Once,
    ForEver,
    /// Three times: who repeats an interrupted call must not do so for ever.
    Thrice,
}

use Lasts::{ForEver, Once, Thrice};

const CALLS: &[(&str, &str, Lasts)] = &[
    ("fdatasync", EIO, Once),
    ("fdatasync", EIO, ForEver),
    ("pwrite64", EIO, Once),
    ("pwrite64", EIO, ForEver),
    ("pwrite64", ENOSPC, Once),
    ("pwrite64", ENOSPC, ForEver),
    ("pwrite64", EINTR, Thrice),
    ("pwrite64", "SHORT", Once),
    ("pwrite64", "SHORT", ForEver),
    ("write", EIO, Once),
    ("write", ENOSPC, ForEver),
    ("write", EINTR, Thrice),
    ("write", "SHORT", ForEver),
    ("fsync", EIO, Once),
    ("fsync", EIO, ForEver),
    ("fsync", EINTR, Once),
    ("fdatasync", EINTR, Once),
    ("fdatasync", ENOSPC, Once),
    ("sync_file_range", EIO, Once),
    ("sync_file_range", EIO, ForEver),
    ("ftruncate64", EIO, Once),
    ("ftruncate64", ENOSPC, ForEver),
    ("ftruncate64", EINTR, Thrice),
    ("rename", EIO, Once),
    ("rename", EIO, ForEver),
    ("rename", ENOSPC, Once),
    ("open64", EIO, Once),
    ("open64", EIO, ForEver),
    ("open64", ENOSPC, Once),
    ("open64", EMFILE, Once),
    ("open64", EMFILE, ForEver),
    ("open64", EINTR, Thrice),
    ("open64", EROFS, ForEver),
    ("mkdir", EIO, Once),
    ("mkdir", ENOSPC, ForEver),
    ("unlink", EIO, Once),
    ("unlink", EIO, ForEver),
    ("unlinkat", EIO, Once),
    ("unlinkat", EIO, ForEver),
    ("copy_file_range", EIO, Once),
    ("copy_file_range", ENOSPC, ForEver),
    ("read", EIO, Once),
    ("read", EINTR, Thrice),
    ("read", "SHORT", ForEver),
    ("pread64", EIO, Once),
    ("pread64", EIO, ForEver),
    ("pread64", EINTR, Thrice),
    ("pread64", "SHORT", ForEver),
    ("pthread_create", EAGAIN, Once),
];

fn run(order: &Order, log: &Log) {
    let preload = match Preload::build() {
        Ok(preload) => preload,
        Err(why) => {
            log.skipped(order.count, &format!("no library to load first: {why}"));
            return;
        }
    };
    if let Err(why) = built::subject() {
        return log.failed(order.from, why.to_owned());
    }
    order.until_enough(log, |seed, log| {
        let at = usize::try_from((seed - 1) % PLANS).unwrap();
        match CALLS.get(at) {
            Some(call) => calls(*call, &preload, seed, order, log).map(|()| 1),
            None => {
                let (what, refusal) = machine::ALL[at - CALLS.len()];
                refusal(&preload, log).map_err(|why| format!("{what}: {why}"))
            }
        }
    });
}

/// A place for one run: files that may fail, and others.
#[derive(Debug)]
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = check::memory_dir();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        Place { dir }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn store(&self) -> PathBuf {
        self.home().join("store")
    }

    fn notes(&self) -> PathBuf {
        self.dir.path().join("notes")
    }

    fn fired(&self) -> PathBuf {
        self.dir.path().join("fired")
    }

    /// The files that were hit, as text; nothing if the fault did not come.
    fn hit(&self) -> Option<String> {
        std::fs::read_to_string(self.fired()).ok()
    }

    fn script(&self, what: &str) -> Command {
        script_in(&self.home(), &self.notes(), what)
    }
}

fn script_in(home: &Path, notes: &Path, what: &str) -> Command {
    let mut command = Command::new(built::subject().unwrap());
    command.arg("script").arg(home).arg(notes).arg(what);
    command
}

/// One kind of failing call: the first, the second, … until the script does not come by one any more.
fn calls(
    call: (&'static str, &str, Lasts),
    preload: &Preload,
    seed: u64,
    order: &Order,
    log: &Log,
) -> Result<(), String> {
    let (name, what, lasts) = call;
    let mut random = Random::new(seed);
    let mut n = 1;
    loop {
        let to = match lasts {
            Once => n,
            ForEver => u64::MAX,
            Thrice => n + 2,
        };
        let plan = Plan {
            calls: name,
            what: what.to_owned(),
            from: n,
            to,
        };
        let came = one_fault(&plan, preload, log)
            .map_err(|why| format!("{name} {what} {lasts:?}, call {n}: {why}"))?;
        if !came && n == 1 {
            return Err(format!("{name}: the script makes no such call"));
        }
        if !came {
            log.note("calls until clean", n);
            return Ok(());
        }
        if order.is_over() {
            return Ok(());
        }
        n += match order.size {
            _ if n < DENSE => 1,
            Size::Goal => 1,
            Size::Ci => random.between(1, 2 + n / 3),
            Size::Little => random.between(n / 2, 2 * n),
        };
    }
}

/// Whether the fault came at all. All is looked at in any case.
fn one_fault(plan: &Plan, preload: &Preload, log: &Log) -> Result<bool, String> {
    let place = Place::new();
    let mut command = place.script("script");
    preload.onto(&mut command, plan, &place.home(), &place.fired());
    let output = ended(&mut command)?;
    let code = told(&output)?;
    let hit = place.hit();
    match (&hit, code) {
        (None, REFUSED) => {
            return Err(format!("refused without a fault: {}", words(&output)));
        }
        (Some(hit), WELL) if plan.calls == "fdatasync" && plan.what == EIO => {
            passed_over(hit, &output)?;
        }
        _ => {}
    }
    log.note(
        if code == WELL { "unharmed" } else { "refused" },
        hit.is_some().into(),
    );
    recovered(&place.home(), &place.notes()).map_err(|why| {
        format!(
            "{why}\n  the script said: {}\n  hit: {hit:?}",
            words(&output)
        )
    })?;
    Ok(hit.is_some())
}

/// A sync failed and all went on. Only while the store closes may that be: a copy of the journal is dropped then, and
/// the journal itself stays as it was.
fn passed_over(hit: &str, output: &Output) -> Result<(), String> {
    let said = words(output);
    let is_copy = hit.lines().all(|file| file.contains("/journal.new/"));
    if is_copy && said.contains("closed without a fresh snapshot") {
        return Ok(());
    }
    Err(format!("a failed sync was passed over, of {hit}: {said}"))
}

/// The fault is gone: the store opens, and what was told is true.
fn recovered(home: &Path, notes: &Path) -> Result<(), String> {
    let mut oracle = Oracle::default();
    let before = std::fs::read_to_string(notes).unwrap_or_default();
    oracle.life(&before)?;
    let drained = ended(&mut script_in(home, notes, "drain"))?;
    if told(&drained)? != WELL {
        return Err(format!(
            "it does not open or end without the fault: {}",
            words(&drained)
        ));
    }
    let all = std::fs::read_to_string(notes).map_err(|e| e.to_string())?;
    oracle.life(&all[before.len()..])?;
    oracle.end()
}

/// Runs a process to its end, which must come in time.
fn ended(command: &mut Command) -> Result<Output, String> {
    command.env_remove("RUST_BACKTRACE");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let in_time = left(&mut child, Instant::now() + LIFE_MAX)?;
    let _ = child.kill();
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if in_time {
        Ok(output)
    } else {
        Err(format!("it hangs: {}", words(&output)))
    }
}

/// The exit code of a process that ended as one should. A panic within sled that became an error is none of ours, and
/// yet there is its text.
fn told(output: &Output) -> Result<u8, String> {
    const PANICKED: i32 = 101;
    let said = words(output);
    let panicked = |line: &str| line.contains(" panicked at ") && !line.contains("/sled-0.34.7/");
    let disorder = said.lines().any(panicked) || said.contains("stuck");
    match output.status.code() {
        Some(PANICKED) => Err(format!("it panicked: {said}")),
        Some(code) if !disorder => Ok(u8::try_from(code).unwrap()),
        Some(_) => Err(format!("it ended in disorder: {}: {said}", output.status)),
        None => Err(format!("it was killed: {}: {said}", output.status)),
    }
}

fn words(output: &Output) -> String {
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{said}{errors}")
}
