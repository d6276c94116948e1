//! A real file system that goes away: ext4 on a loop device, shut down without its journal being flushed.
//!
//! A process works on a store there and says elsewhere what it is told. At some moment the file system is told to stop
//! as in a crash of the system: what its own journal had not on the disk is gone. Then the process is ended, the
//! file system is mounted again, and the next process opens what is left, says what is there and works on, on the same
//! store and the same file system, round after round. What it says is judged as in `cuts`.
//!
//! One disk in ten is of xfs, if this machine can make one: it knows the same call.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::bench::Failure;
use super::child::{self, Stage, Task};
use super::promise::Promise;
use super::scratch;
use crate::check::{Check, Log, Order, caught};
use crate::random::Random;

/// Rounds on one file system.
const ROUNDS: u64 = 10;
/// One disk in so many is of xfs.
const XFS_EVERY: u64 = 10;
/// Room for the file system; only what is written takes any.
const IMAGE_BYTES: u64 = 400 << 20;
/// How often unmounting is tried again.
const UNMOUNTS: u32 = 100;
/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`, and what both understand as: without flushing the log.
const SHUT_DOWN: libc::c_ulong = 0x8004_587d;
const WITHOUT_LOG: u32 = 2;

pub(crate) const CHECK: Check = Check {
    name: "ext4",
    unit: "shutdowns of a real file system",
    little: 2,
    ci: 100,
    goal: 1_000,
    signs: &[("jobs acknowledged", 10_000)],
    run,
};

fn run(order: &Order, log: &Log) {
    if !rustix::process::geteuid().is_root() {
        return log.skipped(order.count, "only root can mount a file system");
    }
    let (from, to) = (order.from, order.from + order.count);
    let next = AtomicU64::new(from / ROUNDS);
    let stop = AtomicBool::new(false);
    let disks = || {
        while !stop.load(Ordering::Relaxed) && !order.is_over() {
            let disk = next.fetch_add(1, Ordering::Relaxed);
            if disk * ROUNDS >= to {
                break;
            }
            let last = to.min((disk + 1) * ROUNDS);
            let rounds = (disk * ROUNDS, from.max(disk * ROUNDS), last);
            if let Err((seed, why)) = try_disk(disk, rounds, log) {
                stop.store(true, Ordering::Relaxed);
                log.failed(seed, why);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..order.threads {
            scope.spawn(disks);
        }
    });
}

/// All rounds of a disk: a round needs the damage of those before it, also when they are not counted.
fn try_disk(disk: u64, (first, counted, end): (u64, u64, u64), log: &Log) -> Result<(), Failure> {
    let kind = if disk % XFS_EVERY == XFS_EVERY - 1 {
        "xfs"
    } else {
        "ext4"
    };
    let scratch = scratch();
    let mut mount = match Mount::make(kind, scratch.path()) {
        Ok(mount) => mount,
        Err(why) => {
            log.skipped(end - counted, &why);
            return Ok(());
        }
    };
    let mut promise = Told::default();
    for seed in first..end {
        let ran = caught(|| {
            let stays = seed + 1 == end;
            round(&mut mount, scratch.path(), seed, stays, &mut promise, log)
        });
        ran.map_err(|why| (seed, keep(scratch.path(), seed, &promise.all, &why)))?;
        log.done(u64::from(seed >= counted));
    }
    log.note("jobs acknowledged", promise.all.acknowledged());
    Ok(())
}

/// Keeps what was promised and what was said last.
fn keep(place: &Path, seed: u64, promise: &Promise, why: &str) -> String {
    let kept = super::bench::kept("ext4", seed);
    let _ = fs::create_dir_all(&kept);
    let _ = fs::copy(place.join("marks"), kept.join("marks"));
    let _ = fs::write(kept.join("why"), format!("{why}\n{promise:#?}\n"));
    format!("{why}\n  kept in {}", kept.display())
}

/// What was told, and the same without what was told while the file system went.
///
/// ext4 notes first that it is shut down and aborts its journal then. A sync between the two is told that it went well,
/// though its extents are not converted any more: that is this call's doing and no power cut's. So where the first
/// promise is broken the second may hold, which is counted.
#[derive(Debug, Default)]
struct Told {
    all: Promise,
    surely: Option<Promise>,
}

impl Told {
    /// The next process's marks, of which so many bytes were there when the call began. Whether something was lost
    /// that was told while it went.
    fn hear(&mut self, marks: &str, sure: usize) -> Result<bool, String> {
        let mut base = self.all.clone();
        let heard = self.all.note(marks);
        if let Err(why) = &heard {
            let Some(surely) = self.surely.take() else {
                return Err(why.clone());
            };
            self.all = surely.clone();
            self.all.note(marks).map_err(|_| why.clone())?;
            base = surely;
        }
        let sure = marks.get(..sure).and_then(|sure| sure.rfind('\n'));
        let (sure, rest) = marks.split_at(sure.map_or(0, |end| end + 1));
        base.note(sure)?;
        base.note_asks(rest)?;
        self.all.cut();
        base.cut();
        self.surely = Some(base);
        Ok(heard.is_err())
    }
}

/// A process works until the file system stops; it comes back. After the last round all is worked off.
fn round(
    mount: &mut Mount,
    place: &Path,
    seed: u64,
    is_last: bool,
    promise: &mut Told,
    log: &Log,
) -> Result<(), String> {
    let (root, marks) = (mount.at.clone(), place.join("marks"));
    let task = Task {
        root: &root,
        marks: &marks,
        log: None,
        seed,
        stage: Stage::Endless,
    };
    let mut random = Random::new(seed);
    let mut working = Working::start(&task, place);
    // Now and then it is still opening.
    if !random.one_in(5) {
        working.wait_until_open();
    }
    pause(Duration::from_millis(random.below(250)));
    let died = working.child.try_wait().unwrap();
    let sure = fs::metadata(&marks).map_or(0, |marks| marks.len());
    mount.shut_down()?;
    working.end();
    mount.again()?;
    if let Some(status) = died {
        let said = fs::read_to_string(place.join(child::ERRORS_ALONE)).unwrap_or_default();
        return Err(format!("it ended by itself ({status}): {}", said.trim()));
    }
    let sure = usize::try_from(sure).unwrap();
    let lost = promise.hear(&fs::read_to_string(&marks).unwrap_or_default(), sure)?;
    log.note("lost that was told while it went", lost.into());
    if is_last {
        let task = Task {
            stage: Stage::WorkedOff,
            ..task
        };
        let _ = fs::remove_file(&marks);
        let went = child::run_alone(&task, place);
        promise.hear(&fs::read_to_string(&marks).unwrap_or_default(), usize::MAX)?;
        went?;
    }
    Ok(())
}

/// Waits for nothing that could come.
fn pause(time: Duration) {
    let (never, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(time);
    drop(never);
}

/// The process at work.
struct Working {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Working {
    fn start(task: &Task<'_>, place: &Path) -> Working {
        let mut child = child::start_alone(task, place);
        let says = BufReader::new(child.stdout.take().unwrap());
        Working { child, says }
    }

    /// Or until it has ended.
    fn wait_until_open(&mut self) {
        let _ = self.says.read_line(&mut String::new());
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.end();
    }
}

/// A file system of its own in a file, mounted.
#[derive(Debug)]
struct Mount {
    image: PathBuf,
    at: PathBuf,
    is_mounted: bool,
}

impl Mount {
    fn make(kind: &str, place: &Path) -> Result<Mount, String> {
        let (image, at) = (place.join("disk"), place.join("mounted"));
        let file = File::create(&image).unwrap();
        file.set_len(IMAGE_BYTES).unwrap();
        fs::create_dir(&at).unwrap();
        let maker = format!("mkfs.{kind}");
        let path = image.to_str().unwrap();
        let quiet = if kind == "ext4" { "-qF" } else { "-qf" };
        call(&maker, &[quiet, path]).map_err(|why| format!("no {kind} here: {why}"))?;
        let mut mount = Mount {
            image,
            at,
            is_mounted: false,
        };
        mount
            .mount()
            .map_err(|why| format!("no {kind} can be mounted here: {why}"))?;
        Ok(mount)
    }

    fn mount(&mut self) -> Result<(), String> {
        let (image, at) = (self.image.to_str().unwrap(), self.at.to_str().unwrap());
        call("mount", &["-o", "loop", image, at])?;
        self.is_mounted = true;
        Ok(())
    }

    /// The loop device goes with the mount.
    fn unmount(&mut self) -> Result<(), String> {
        let mut unmounted = call("umount", &[self.at.to_str().unwrap()]);
        for _ in 0..UNMOUNTS {
            if unmounted.is_ok() {
                break;
            }
            // A process that another thread starts has our open files until it executes its program.
            pause(Duration::from_millis(20));
            unmounted = call("umount", &[self.at.to_str().unwrap()]);
        }
        self.is_mounted = unmounted.is_err();
        unmounted
    }

    fn again(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    /// From now on nothing is written any more, and what is not in the journal on the disk is lost.
    #[expect(unsafe_code, reason = "the C library has no other way")]
    fn shut_down(&self) -> Result<(), String> {
        let top = File::open(&self.at).map_err(|e| e.to_string())?;
        let how = WITHOUT_LOG;
        // SAFETY: the call reads one number, which lives until it returns.
        let done = unsafe { libc::ioctl(top.as_raw_fd(), SHUT_DOWN, &raw const how) };
        if done == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        Err(format!("the file system would not stop: {error}"))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_mounted && self.unmount().is_err() {
            // Somebody still has a file open there: it goes when that one does.
            let _ = call("umount", &["-l", self.at.to_str().unwrap()]);
        }
    }
}

fn call(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {arguments:?}: {}", said.trim()))
}
