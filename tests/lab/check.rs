//! What all checks have in common: how many, from which seed, on how many threads, and how it is told.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One way to try to lose something.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    /// How many in each size.
    pub(crate) little: u64,
    pub(crate) ci: u64,
    pub(crate) goal: u64,
    /// Notes that show that it did what it is there for: in CI at least so many of each for a thousand that are done.
    pub(crate) signs: &'static [(&'static str, u64)],
    pub(crate) run: fn(&Order, &Log),
}

/// All checks, in the order in which they run: quick ones first.
pub(crate) const CHECKS: &[Check] = &[
    crate::sim::CHECK,
    crate::fuzz::CHECK,
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    crate::cuts::CHECK,
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    crate::cuts::RECOVERY,
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    crate::cuts::ext4::CHECK,
    crate::damage::CHECK,
    crate::threads::CHECK,
    crate::kill::CHECK,
    crate::faults::CHECK,
    crate::sabotage::CHECK,
];

/// A process of a check's own: this program again. Its first argument is one of these.
pub(crate) const CHILDREN: &[Child] = &[
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    (crate::cuts::child::LIVES, crate::cuts::child::lives),
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    (crate::cuts::child::OPENS, crate::cuts::child::opens),
    (crate::damage::MAKE, crate::damage::make_main),
    (crate::damage::JUDGE, crate::damage::judge_main),
];

pub(crate) type Child = (&'static str, fn(&[String]) -> ExitCode);

/// Runs as the child of a check, if the arguments say so.
pub(crate) fn as_child(arguments: &[String]) -> Option<ExitCode> {
    let first = arguments.get(1)?;
    let (_, main) = CHILDREN.iter().find(|(name, _)| name == first)?;
    Some(main(&arguments[2..]))
}

#[derive(clap::Parser, Debug)]
#[command(about = "The crash lab; see docs/durability.md")]
pub(crate) struct Arguments {
    /// Checks by name, or `ci` for all (with names: these) as CI runs them; a little of all when nothing is said.
    pub(crate) what: Vec<String>,
    /// Runs this seed alone, and tells more.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) from: u64,
    /// How many seeds.
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Threads; as many as the machine has when not said.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Stops early after so many minutes, and says so.
    #[arg(long)]
    pub(crate) minutes: Option<u64>,
    /// Adds the count to docs/lab-counts.tsv.
    #[arg(long)]
    pub(crate) record: bool,
    /// Said by `cargo test --quiet`; means nothing here.
    #[arg(long, short, hide = true)]
    quiet: bool,
}

impl Arguments {
    /// The names of the checks that were asked for.
    pub(crate) fn checks(&self) -> Vec<&'static str> {
        let all = || CHECKS.iter().map(|check| check.name).collect();
        match self.what.as_slice() {
            [] => all(),
            [what] if what == "ci" => all(),
            [what, names @ ..] if what == "ci" => names.iter().map(|name| known(name)).collect(),
            names => names.iter().map(|name| known(name)).collect(),
        }
    }
}

fn known(name: &str) -> &'static str {
    let found = CHECKS.iter().find(|check| check.name == name);
    let names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
    found.map_or_else(
        || panic!("there is no check `{name}`; there are {names:?}"),
        |check| check.name,
    )
}

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Seconds: with the other tests.
    Little,
    /// Minutes, and never fewer than it says.
    Ci,
    /// What was asked for by name: until it is done, or its minutes are over.
    Goal,
}

/// What a check is to do.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) from: u64,
    pub(crate) count: u64,
    pub(crate) threads: usize,
    pub(crate) size: Size,
    /// One seed, told in full.
    pub(crate) one: bool,
    until: Option<Instant>,
}

impl Order {
    pub(crate) fn of(check: &Check, arguments: &Arguments, size: Size) -> Order {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let usual = match size {
            Size::Little => check.little,
            Size::Ci => check.ci,
            Size::Goal => check.goal,
        };
        let minutes = arguments.minutes.map(|n| Duration::from_secs(60 * n));
        Order {
            from: arguments.seed.unwrap_or(arguments.from),
            count: arguments
                .seed
                .map_or(arguments.count.unwrap_or(usual), |_| 1),
            threads: arguments.threads.unwrap_or(cores),
            size,
            one: arguments.seed.is_some(),
            until: minutes.map(|time| Instant::now() + time),
        }
    }

    /// Runs `life` for each seed, on all threads, until one fails. A panic is a failure.
    pub(crate) fn each_seed(
        &self,
        log: &Log,
        life: impl Fn(u64, &Log) -> Result<(), String> + Sync,
    ) {
        self.until_enough(log, |seed, log| life(seed, log).map(|()| 1));
    }

    /// The same where a seed is worth several of what is counted: `life` says how many.
    pub(crate) fn until_enough(
        &self,
        log: &Log,
        life: impl Fn(u64, &Log) -> Result<u64, String> + Sync,
    ) {
        let next = AtomicU64::new(self.from);
        let done = AtomicU64::new(0);
        let end = self.from + self.count;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed)
                        && done.load(Ordering::Relaxed) < self.count
                        && !self.is_over()
                    {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end {
                            break;
                        }
                        match caught(|| life(seed, log)) {
                            Ok(n) => {
                                done.fetch_add(n, Ordering::Relaxed);
                                log.done(n);
                            }
                            Err(why) => {
                                log.failed(seed, why);
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        log.tried_up_to(next.into_inner().min(end) - 1);
    }

    /// Whether its minutes are over.
    pub(crate) fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// A directory in memory where there is one: what is in it need not survive, and syncs cost nothing.
pub(crate) fn memory_dir() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    let mut named = tempfile::Builder::new();
    named.prefix("jobsled-lab-");
    let made = if shared.is_dir() {
        named.tempdir_in(shared)
    } else {
        named.tempdir()
    };
    made.expect("a temporary directory can be made")
}

/// A directory on a disk, as far as the system's directory for temporary files is on one.
pub(crate) fn disk_dir() -> tempfile::TempDir {
    let mut named = tempfile::Builder::new();
    let made = named.prefix("jobsled-lab-").tempdir();
    made.expect("a temporary directory can be made")
}

/// What `f` says; a panic is a failure with its message.
pub(crate) fn caught<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

/// What a check tells while it runs. Any thread may.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Counts>);

#[derive(Clone, Debug, Default)]
struct Counts {
    done: u64,
    skipped: BTreeMap<String, u64>,
    notes: BTreeMap<&'static str, u64>,
    failures: Vec<(u64, String)>,
    /// The last seed that was begun, where seeds are not what is counted.
    last_seed: Option<u64>,
}

impl Log {
    fn tried_up_to(&self, seed: u64) {
        self.0.lock().unwrap().last_seed = Some(seed);
    }

    /// So many were tried and are well.
    pub(crate) fn done(&self, n: u64) {
        self.0.lock().unwrap().done += n;
    }

    /// So many could not be tried here.
    pub(crate) fn skipped(&self, n: u64, why: &str) {
        *self
            .0
            .lock()
            .unwrap()
            .skipped
            .entry(why.to_owned())
            .or_default() += n;
    }

    /// Something worth a number came by: so that one sees what the lives are made of.
    pub(crate) fn note(&self, what: &'static str, n: u64) {
        *self.0.lock().unwrap().notes.entry(what).or_default() += n;
    }

    pub(crate) fn failed(&self, seed: u64, why: String) {
        self.0.lock().unwrap().failures.push((seed, why));
    }
}

/// What became of a check.
#[derive(Debug)]
pub(crate) struct Tally {
    check: &'static Check,
    counts: Counts,
    wanted: u64,
    took: Duration,
}

/// Runs one check.
pub(crate) fn run(check: &'static Check, order: &Order) -> Tally {
    let (log, began) = (Log::default(), Instant::now());
    (check.run)(order, &log);
    Tally {
        check,
        counts: log.0.into_inner().unwrap(),
        wanted: order.count,
        took: began.elapsed(),
    }
}

impl Tally {
    /// No failure, and in CI no fewer than were asked for: what cannot run is counted as skipped, nothing else
    /// may be missing.
    pub(crate) fn is_well(&self, size: Size) -> bool {
        let skipped: u64 = self.counts.skipped.values().sum();
        let is_enough = self.counts.done + skipped >= self.wanted && self.missing().is_empty();
        self.counts.failures.is_empty() && (size != Size::Ci || is_enough)
    }

    /// Signs that there are too few of.
    fn missing(&self) -> Vec<String> {
        let signs = self.check.signs.iter().filter_map(|(sign, least)| {
            let least = least * self.counts.done / 1_000;
            let found = self.counts.notes.get(sign).copied().unwrap_or(0);
            (found < least).then(|| format!("{sign}: {found} of at least {least}"))
        });
        signs.collect()
    }

    /// Adds a line to the counts: only what was run.
    pub(crate) fn record(&self, order: &Order) -> io::Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lab-counts.tsv");
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let skipped: u64 = self.counts.skipped.values().sum();
        let all = order.from + self.counts.done.max(1) - 1;
        let last = self.counts.last_seed.unwrap_or(all);
        writeln!(
            file,
            "{}\t{}\t{}\t{}-{last}\t{}\t{skipped}\t{}",
            today(),
            commit(),
            self.check.name,
            order.from,
            self.counts.done,
            self.counts.failures.len(),
        )
    }
}

fn today() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d").to_string()
}

/// What was built. Counts that were written before are no difference.
fn commit() -> String {
    let git = |words: &[&str]| std::process::Command::new("git").args(words).output();
    let told = git(&["describe", "--always"])
        .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let Some(told) = told.ok().filter(|told| !told.is_empty()) else {
        return "unknown".to_owned();
    };
    let changed = git(&[
        "diff",
        "--quiet",
        "HEAD",
        "--",
        ":/",
        ":(top,exclude)docs/lab-counts.tsv",
    ]);
    if changed.is_ok_and(|out| out.status.success()) {
        told
    } else {
        format!("{told}-dirty")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            done,
            skipped,
            notes,
            failures,
            ..
        } = &self.counts;
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{:<10} {done:>8} of {} {}",
            self.check.name, self.wanted, self.check.unit
        )?;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        write!(
            f,
            ", {seconds:.1} s ({:.0} a second)",
            *done as f64 / seconds.max(0.001)
        )?;
        for (why, n) in skipped {
            write!(f, "\n{:>10} skipped {n}: {why}", "")?;
        }
        if !notes.is_empty() {
            let notes: Vec<String> = notes
                .iter()
                .map(|(what, n)| format!("{what} {n}"))
                .collect();
            write!(f, "\n{:>10} {}", "", notes.join(", "))?;
        }
        for missing in self.missing() {
            write!(f, "\n{:>10} too few {missing}", "")?;
        }
        for (seed, why) in failures {
            let name = self.check.name;
            write!(
                f,
                "\nFAILED at seed {seed}: {why}\n  again: \
                 cargo test --release --all-features --test lab -- {name} --seed {seed}"
            )?;
        }
        Ok(())
    }
}
