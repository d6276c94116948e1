//! `kill -9`, again and again, on a store that is never wiped.
//!
//! One seed is one store, which lives through many rounds; a round is a process that works on it and is killed: at a
//! moment, at the nth file call (`preload`, and strace where it is installed, which sees the calls that do not go
//! through the C library), at a named point of the engine, after a request to stop, after it was suspended and went
//! on (`SIGSTOP`), or because a job of its own does it. In one round of three the wall clock is wrong, and is set while
//! it runs.
//!
//! Most stores have a program on the public API (`subject/kill.rs`), the others `jobsled work` with its clients
//! (`commands`). Acknowledgements are noted on another file system once they were received, and what the handlers do
//! as they do it; `oracle` holds them against each other, and against what is there when all has come to its end.
//!
//! A seed says what is done; how far the threads have come by then, it does not say.
//!
//! Does not cover: what a machine loses that a process does not (the power-cut checks). Bugs of syncing are invisible
//! here (`NoDataSync`, `NoDirectorySync`, `NoPayloadSync`): the page cache survives. What sled has not handed to the
//! system by then (`NoFlush`) does not.

mod commands;
pub(crate) mod oracle;

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jobsled::lab::Point;

use crate::built;
use crate::check::{self, Log, Order, Size};
use crate::preload::{Plan, Preload, WrongClock};
use crate::random::Random;
use oracle::Oracle;

pub(crate) const CHECK: check::Check = check::Check {
    name: "kill",
    unit: "kills",
    little: 6,
    ci: 200,
    goal: 2_000,
    signs: &[
        ("acknowledged", 2_000),
        ("acknowledged to commands", 50),
        ("run again", 100),
        ("killed there", 50),
        ("suspended", 2),
        ("wrong clocks", 15),
    ],
    run,
};

/// A life that is not killed in another way by then is killed by the clock.
const LIFE_MAX: Duration = Duration::from_millis(250);
/// How long a process is suspended.
const SUSPENDED: Duration = Duration::from_millis(300);
/// What the last life may take.
const LAST_LIFE_MAX: Duration = Duration::from_secs(90);
/// System calls at which strace kills.
const TRACED: &str =
    "pwrite64,fdatasync,fsync,rename,unlink,ftruncate,openat,fallocate,write,mkdir,sync_file_range";

/// How a life is to end.
#[derive(Clone, Debug)]
enum End {
    /// So long after its start.
    After(Duration),
    /// So long after the store was open.
    AfterOpen(Duration),
    /// Suspended so long after the store was open, and killed so long after it went on.
    Suspended(Duration, Duration),
    /// At the nth file call below the store.
    AtCall(&'static str, u64),
    /// The same, by strace.
    Traced(u64),
    /// When it comes by there for the nth time.
    AtPoint(Point, u64),
    /// It is asked to stop, and killed so long after that.
    Stopping(Duration),
    /// It is asked to stop, and may.
    Stopped,
}

impl End {
    fn draw(random: &mut Random) -> End {
        let ms = |random: &mut Random, most| Duration::from_millis(random.below(most));
        match random.below(20) {
            0..3 => End::After(ms(random, 60)),
            3..6 => End::AfterOpen(ms(random, 250)),
            6 => End::Suspended(ms(random, 100), ms(random, 100)),
            7..11 => {
                let calls: [&'static str; 8] = [
                    "any",
                    "any",
                    "pwrite64",
                    "fdatasync",
                    "rename",
                    "unlink",
                    "open64",
                    "ftruncate64",
                ];
                End::AtCall(calls[random.index(calls.len())], often(random))
            }
            11 => End::Traced(often(random)),
            12..18 => End::AtPoint(*random.pick(Point::ALL), often(random).div_ceil(8)),
            18 => End::Stopping(ms(random, 25)),
            _ => End::Stopped,
        }
    }
}

/// A round: how it ends, and by which clock it lives.
#[derive(Clone, Debug)]
struct Life {
    end: End,
    clock: Option<WrongClock>,
}

impl Life {
    fn draw(random: &mut Random) -> Life {
        let end = End::draw(random);
        let clock = random.one_in(3).then(|| WrongClock {
            ahead_s: [wrong_by(random), wrong_by(random)],
            set_after: Duration::from_millis(random.below(200)),
        });
        Life { end, clock }
    }
}

/// Seconds to years, either way.
fn wrong_by(random: &mut Random) -> i64 {
    let by = 1_i64 << random.between(0, 26);
    if random.one_in(2) { by } else { -by }
}

/// Small numbers as often as large ones, up to some thousand.
fn often(random: &mut Random) -> u64 {
    let most = 1 << random.between(0, 11);
    random.between(1, most)
}

/// Where a store is, and where what was told about it.
#[derive(Debug)]
struct Place {
    store: PathBuf,
    notes: PathBuf,
    fired: PathBuf,
    /// Processes that a kill has ended.
    kills: AtomicU64,
    _homes: [tempfile::TempDir; 2],
}

impl Place {
    fn new(random: &mut Random) -> Place {
        let (disk, memory) = (check::disk_dir(), check::memory_dir());
        let (one, other) = if random.one_in(3) {
            (&memory, &disk)
        } else {
            (&disk, &memory)
        };
        Place {
            store: one.path().join("store"),
            notes: other.path().join("notes"),
            fired: other.path().join("fired"),
            kills: AtomicU64::new(0),
            _homes: [disk, memory],
        }
    }
}

impl Place {
    fn count(&self, ended: ExitStatus) {
        self.kills
            .fetch_add(u64::from(ended.signal() == Some(9)), Ordering::Relaxed);
    }
}

fn run(order: &Order, log: &Log) {
    let preload = Preload::build();
    if let Err(why) = &preload {
        log.skipped(0, &format!("kills at file calls: {why}"));
    }
    if let Err(why) = built::subject() {
        return log.failed(order.from, why.to_owned());
    }
    let traces = Command::new("strace").arg("-V").output().is_ok();
    let tools = Tools {
        preload: preload.ok(),
        traces,
        short: order.size == Size::Little,
        loud: order.one,
    };
    order.until_enough(log, |seed, log| {
        let mut random = Random::new(seed);
        let rounds = if tools.short {
            3
        } else {
            random.between(5, 50)
        };
        let place = Place::new(&mut random);
        if random.one_in(4) {
            commands::store(&place, &tools, &mut random, rounds, log)?;
        } else {
            store(&place, &tools, &mut random, rounds, log)?;
        }
        // Rounds that ended in another way are worth none.
        Ok(place.kills.load(Ordering::Relaxed))
    });
}

/// What this machine has, and how much is wanted.
#[derive(Debug)]
struct Tools {
    preload: Option<Preload>,
    traces: bool,
    short: bool,
    loud: bool,
}

impl Tools {
    /// The program, with what kills it. `None` if that is not to be had here.
    fn command(&self, program: &Path, life: &Life, place: &Place) -> Option<Command> {
        let mut command = Command::new(program);
        match &life.end {
            End::AtCall(calls, n) => {
                let plan = Plan {
                    calls,
                    what: "KILL".to_owned(),
                    from: *n,
                    to: *n,
                };
                self.preload
                    .as_ref()?
                    .onto(&mut command, &plan, &place.store, &place.fired);
            }
            End::AtPoint(point, n) => drop(command.env("JOBSLED_DIE_AT", format!("{point:?}:{n}"))),
            End::Traced(n) => {
                if !self.traces {
                    return None;
                }
                // -D: the program is our child, the tracer is not.
                command = Command::new("strace");
                command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"]);
                command.arg(format!("trace={TRACED}")).arg("-e");
                command
                    .arg(format!("inject={TRACED}:signal=KILL:when={n}"))
                    .arg(program);
            }
            _ => {}
        }
        if let (Some(preload), Some(clock)) = (&self.preload, life.clock) {
            preload.set_clock(&mut command, clock);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Some(command)
    }
}

/// A store with a program of our own.
fn store(
    place: &Place,
    tools: &Tools,
    random: &mut Random,
    rounds: u64,
    log: &Log,
) -> Result<(), String> {
    let (mut oracle, mut read) = (Oracle::default(), 0);
    let seed = random.next();
    for number in 1..=rounds {
        let life = Life::draw(random);
        if tools.loud {
            println!("  life {number}: {life:?}");
        }
        one_life(place, tools, &life, (seed, number), log)?;
        oracle.life(&news(place, &mut read)?)?;
    }
    // A job that ends its process does so in the last life as well, until it is found out.
    let killers = 3 * (rounds + 3);
    for _ in 0..killers {
        let (status, words) = last_life(place, seed)?;
        oracle.life(&news(place, &mut read)?)?;
        if status.success() {
            log.note("acknowledged", oracle.acknowledged_count());
            log.note("starts", oracle.starts);
            log.note("run again", oracle.again);
            return oracle.end();
        }
        if status.signal() != Some(9) {
            return Err(format!("the last life: {status}: {words}"));
        }
    }
    Err("jobs that end their process are never found out".to_owned())
}

/// What was noted since the last time. A last line without an end is none.
fn news(place: &Place, read: &mut usize) -> Result<String, String> {
    let all = match std::fs::read_to_string(&place.notes) {
        Ok(all) => all,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.to_string()),
    };
    let news = all[*read..].to_owned();
    *read = all.len();
    Ok(news)
}

fn arguments(place: &Place, seed: u64, life: u64) -> [std::ffi::OsString; 5] {
    let number = |n: u64| n.to_string().into();
    let (store, notes) = (place.store.clone().into(), place.notes.clone().into());
    ["kill".into(), store, notes, number(seed), number(life)]
}

fn one_life(
    place: &Place,
    tools: &Tools,
    life: &Life,
    (seed, number): (u64, u64),
    log: &Log,
) -> Result<(), String> {
    let Some(mut command) = tools.command(built::subject()?, life, place) else {
        log.note("rounds without their tool", 1);
        return Ok(());
    };
    let is_wrong = tools.preload.is_some() && life.clock.is_some();
    log.note("wrong clocks", u64::from(is_wrong));
    command.args(arguments(place, seed, number));
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let began = Instant::now();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    match &life.end {
        End::After(time) => {
            left(&mut child, began + *time)?;
        }
        End::AfterOpen(time) => {
            let _ = said.read_line(&mut String::new());
            left(&mut child, Instant::now() + *time)?;
        }
        End::Suspended(time, then) => {
            let _ = said.read_line(&mut String::new());
            left(&mut child, Instant::now() + *time)?;
            log.note("suspended", u64::from(suspend(&mut child)?));
            left(&mut child, Instant::now() + *then)?;
        }
        End::Stopping(time) => {
            let _ = said.read_line(&mut String::new());
            left(&mut child, Instant::now() + Duration::from_millis(30))?;
            drop(child.stdin.take());
            left(&mut child, Instant::now() + *time)?;
        }
        End::Stopped => {
            let _ = said.read_line(&mut String::new());
            left(&mut child, Instant::now() + Duration::from_millis(50))?;
            drop(child.stdin.take());
            if !left(&mut child, Instant::now() + LAST_LIFE_MAX)? {
                return Err("it was asked to stop and does not".to_owned());
            }
        }
        End::AtCall(..) | End::AtPoint(..) | End::Traced(_) => {
            let came = left(&mut child, began + LIFE_MAX)?;
            log.note(
                if came {
                    "killed there"
                } else {
                    "not come by there"
                },
                1,
            );
        }
    }
    let _ = child.kill();
    let status = child.wait().map_err(|e| e.to_string())?;
    place.count(status);
    // It ends by itself only when it was asked to, and never with an error.
    judge(status, &mut child)
}

/// Stops the process for longer than anything in it takes, and lets it go on; false if it was gone.
fn suspend(child: &mut Child) -> Result<bool, String> {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = Pid::from_child(child);
    let was_there = kill_process(pid, Signal::STOP).is_ok();
    left(child, Instant::now() + SUSPENDED)?;
    let _ = kill_process(pid, Signal::CONT);
    Ok(was_there)
}

/// Waits until the child has ended by itself, which is told, or until then.
pub(crate) fn left(child: &mut Child, until: Instant) -> Result<bool, String> {
    loop {
        if child.try_wait().map_err(|e| e.to_string())?.is_some() {
            return Ok(true);
        }
        let now = Instant::now();
        if now >= until {
            return Ok(false);
        }
        std::thread::park_timeout((until - now).min(Duration::from_millis(1)));
    }
}

/// Killed, or ended well. Anything else is told with its last words.
fn judge(status: ExitStatus, child: &mut Child) -> Result<(), String> {
    if status.success() || status.signal() == Some(9) {
        return Ok(());
    }
    Err(format!(
        "it ended by itself: {status}: {}",
        last_words(child)
    ))
}

fn last_words(child: &mut Child) -> String {
    let mut words = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = std::io::Read::read_to_string(&mut stderr, &mut words);
    }
    words
}

fn last_life(place: &Place, seed: u64) -> Result<(ExitStatus, String), String> {
    let mut child = Command::new(built::subject()?)
        .args(arguments(place, seed, 0))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let ended = left(&mut child, Instant::now() + LAST_LIFE_MAX)?;
    let _ = child.kill();
    let status = child.wait().map_err(|e| e.to_string())?;
    let words = last_words(&mut child);
    if ended {
        Ok((status, words))
    } else {
        Err(format!("the last life does not end: {words}"))
    }
}
