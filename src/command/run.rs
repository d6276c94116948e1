//! The handler: starts a command, looks after it until nothing of it is left, and says how it ended.
//!
//! One thread waits for the command's end and one, the handler's own, for everything else: output, the news of that
//! end, a wish to stop, and the times at which patience ends. It waits in one `poll`, woken through a pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use wait4::Wait4;

use super::launch::Launcher;
use super::record::{Noted, Records};
use super::report::{Output, Report};
use super::{Command, check_init};
use crate::clock::{Clock, SystemClock};
use crate::engine::Newest;
use crate::error::Error;
use crate::job::{JobResult, Stop, millis};
use crate::sys::{self, process::Group};
use crate::worker::{CancelReason, Context};

/// Between SIGTERM and SIGKILL: well within the engine's own grace for handlers, 5 s unless set.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long output is read after the command and its group have ended, if somebody who left the group still has the
/// pipe open.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// How long the killed rest of a command's group has to be gone.
const END_GRACE: Duration = Duration::from_secs(5);
/// Read at once: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;

/// The handler of commands: `.handle(command::run)`.
///
/// See the [module](crate::command) for what a command gets and how it ends.
///
/// # Errors
///
/// A failed attempt for any end but exit status 0, and if the command could not be started; a discarded job for a
/// command that no system would run ([`Command::check`]); what obeys the engine's wish to stop.
pub fn run(job: Command, cx: &Context) -> JobResult<Report> {
    check_init()?;
    job.check().map_err(|e| Stop::discard(e.to_string()))?;
    cx.check()?;
    let records = Records::of(cx).map_err(|e| not_begun(&e))?;
    // E9: nothing of an earlier run is left when this one begins, and this one is noted before it does.
    if let Some(records) = &records {
        records.end_earlier(cx.id()).map_err(|e| not_begun(&e))??;
    }
    let file = job.output_path().map(|path| open_output_file(&job, path));
    let file = file.transpose()?;
    let mut running = Running::start(file, cx).map_err(|e| not_started(&e))?;
    if let Some(records) = &records {
        let noted = records.note(cx.id(), cx.claim().number(), running.group);
        running.noted = noted.map_err(|e| not_begun(&e))?;
    }
    let job = job
        .env("JOBSLED_JOB", cx.id().to_string())
        .env("JOBSLED_ATTEMPT", cx.attempt().number.to_string())
        .env("JOBSLED_CLAIM", cx.claim().to_string());
    running.launcher_goes(&job).map_err(|e| not_started(&e))?;
    let was_stopped = running.look_after(cx)?;
    let report = running.end(cx)?;
    if cx.is_of::<Command>() {
        cx.spare_output::<Command>(&report.shortened());
    }
    if report.is_success() && !was_stopped {
        return Ok(report);
    }
    if cx.is_of::<Command>() {
        cx.keep_output::<Command>(&report)?;
    }
    if was_stopped {
        return Err(Stop::asked());
    }
    Err(Stop::failed(&report.describe()))
}

/// When it is tried again if the machine lacks something that it may have again soon.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(5);

/// A command that did not begin has not failed if it was the machine that lacked something: files, processes, memory,
/// room on the disk. That costs no attempt.
fn not_started(error: &io::Error) -> Stop {
    if is_shortage(error) {
        log::warn!("a command could not be started, and is tried again: {error}");
        return Stop::snooze(SHORTAGE_PAUSE);
    }
    Stop::failed(&format!("the command could not be started: {error}"))
}

fn not_begun(error: &Error) -> Stop {
    match error {
        Error::Io { source, .. } if is_shortage(source) => {
            log::warn!("a command is tried again: {error}");
            Stop::snooze(SHORTAGE_PAUSE)
        }
        error => Stop::failed(&error.to_string()),
    }
}

fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM];
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    number.is_some_and(|number| short.contains(&number))
        || sys::ballast::is_no_room(error.kind())
        // From a thread that could not be started.
        || error.get_ref().is_some_and(|inner| {
            matches!(inner.downcast_ref(), Some(Error::Thread { .. }))
        })
}

/// Opens the file for output at its end.
fn open_output_file(job: &Command, path: &Path) -> JobResult<(File, PathBuf)> {
    let path = job.directory().unwrap_or(Path::new("")).join(path);
    let mut options = OpenOptions::new();
    // A named pipe that nobody reads is an error, and not a wait that nothing ends.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = options
        .append(true)
        .create(true)
        .custom_flags(flags)
        .open(&path);
    match opened {
        Ok(file) => Ok((file, path)),
        Err(error) => {
            let path = path.display();
            Err(Stop::failed(&format!(
                "the output file {path} cannot be opened: {error}"
            )))
        }
    }
}

/// Wakes the handler's thread. Rung by the writer of the engine too, so it never blocks. It has both ends of its
/// pipe: a pipe that nobody reads could end the process.
struct Bell {
    rings: PipeWriter,
    heard: PipeReader,
    has_exited: AtomicBool,
}

impl Bell {
    fn new() -> io::Result<Bell> {
        let (heard, rings) = io::pipe()?;
        rustix::io::ioctl_fionbio(&rings, true)?;
        rustix::io::ioctl_fionbio(&heard, true)?;
        let has_exited = AtomicBool::new(false);
        Ok(Bell {
            rings,
            heard,
            has_exited,
        })
    }

    fn ring(&self) {
        // Full: it rings already.
        let _ = (&self.rings).write(&[0]);
    }

    fn silence(&self) {
        let mut rings = [0; 64];
        while matches!((&self.heard).read(&mut rings), Ok(count) if count == rings.len()) {}
    }
}

/// A command from its launcher to the last of its group. Dropped, it is ended.
struct Running {
    launcher: Option<Launcher>,
    group: Option<Group>,
    noted: Option<Noted>,
    /// Waits for the end of the command.
    waiter: Option<sys::thread::JoinHandle>,
    bell: Arc<Bell>,
    /// `None` once nobody has the other end any more.
    output: Option<PipeReader>,
    /// For what is read.
    buffer: Vec<u8>,
    newest: Newest,
    file: Option<(File, PathBuf)>,
    file_error: Option<String>,
    started_at_ms: i64,
    ended_at_ms: i64,
}

/// What has been done about the command.
#[derive(Clone, Copy)]
enum Phase {
    Runs,
    /// It got SIGTERM, and SIGKILL at this time.
    Stopping(Duration),
    Killed,
    /// It has ended, and output is read until this time.
    Ended(Duration),
}

impl Running {
    /// Starts the launcher.
    fn start(file: Option<(File, PathBuf)>, cx: &Context) -> io::Result<Running> {
        let (output, theirs) = io::pipe()?;
        let bell = Arc::new(Bell::new()?);
        let launcher = Launcher::start(theirs)?;
        let mut running = Running {
            group: None,
            launcher: Some(launcher),
            noted: None,
            waiter: None,
            bell,
            output: Some(output),
            buffer: vec![0; READ_BYTES],
            newest: Newest::default(),
            file,
            file_error: None,
            started_at_ms: wall_ms(cx),
            ended_at_ms: 0,
        };
        // An error drops the launcher, which then runs nothing, and waits for it.
        if let Some(launcher) = &running.launcher {
            running.group = Group::led_by(&launcher.child)?;
        }
        Ok(running)
    }

    fn launcher_goes(&mut self, job: &Command) -> io::Result<()> {
        let Some(launcher) = &self.launcher else {
            return Ok(());
        };
        let (pid, bell) = (Pid::from_child(&launcher.child), self.bell.clone());
        let wait = move || {
            // An error means that the child is nobody's to wait for any more: it has ended.
            if let Err(error) = sys::process::wait_for_exit(pid) {
                log::debug!("process {}: {error}", pid.as_raw_nonzero());
            }
            bell.has_exited.store(true, Ordering::Release);
            bell.ring();
        };
        let waiter = sys::thread::spawn("jobsled-wait", wait).map_err(io::Error::other)?;
        self.waiter = Some(waiter);
        match launcher.go(job) {
            // Killed already: how it ended is what there is to tell.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            went => went,
        }
    }

    /// Passes output on until the command has ended, and makes it end when asked to. Whether it was asked to.
    fn look_after(&mut self, cx: &Context) -> io::Result<bool> {
        let bell = self.bell.clone();
        cx.on_ask(Some(Box::new(move || bell.ring())));
        let looked = self.watch(cx);
        cx.on_ask(None);
        looked
    }

    fn watch(&mut self, cx: &Context) -> io::Result<bool> {
        let mut phase = Phase::Runs;
        let mut was_stopped = false;
        loop {
            phase = self.next_phase(phase, cx);
            was_stopped |= matches!(phase, Phase::Stopping(_) | Phase::Killed);
            let left = match phase {
                Phase::Runs | Phase::Killed => None,
                Phase::Stopping(until) | Phase::Ended(until) => Some(until.saturating_sub(awake())),
            };
            let is_over = self.output.is_none() || left.is_some_and(|left| left.is_zero());
            if matches!(phase, Phase::Ended(_)) && is_over {
                return Ok(was_stopped);
            }
            let has_output = self.wait(left)?;
            self.bell.silence();
            if has_output {
                self.pass_on(cx)?;
            }
        }
    }

    fn next_phase(&mut self, phase: Phase, cx: &Context) -> Phase {
        if let Phase::Ended(_) = phase {
            return phase;
        }
        if self.bell.has_exited.load(Ordering::Acquire) {
            self.ended_at_ms = wall_ms(cx);
            self.signal(Signal::KILL);
            return Phase::Ended(awake().saturating_add(DRAIN_GRACE));
        }
        let asked = cx.cancelled();
        let at_once = matches!(
            asked,
            Some(CancelReason::Shutdown | CancelReason::LeaseLost)
        );
        match phase {
            Phase::Runs if asked.is_some() && !at_once => {
                self.signal(Signal::TERM);
                Phase::Stopping(awake().saturating_add(STOP_GRACE))
            }
            Phase::Runs if at_once => self.kill(),
            Phase::Stopping(until) if at_once || awake() >= until => self.kill(),
            phase => phase,
        }
    }

    fn kill(&self) -> Phase {
        self.signal(Signal::KILL);
        Phase::Killed
    }

    /// To the whole group. The command was not waited for yet, so its number, and the group's, is its own.
    fn signal(&self, signal: Signal) {
        if let Some(Launcher { child, .. }) = &self.launcher
            && let Err(error) = sys::process::signal_group(child, signal)
        {
            // It runs as another user. The lease is taken away in the end, and what is left is on record.
            log::warn!("process group {} cannot be ended: {error}", child.id());
        }
    }

    /// Waits for output, the bell, or so long. Whether there is output, or its end.
    fn wait(&self, within: Option<Duration>) -> io::Result<bool> {
        let bell = sys::process::readable(&self.bell.heard);
        let Some(output) = &self.output else {
            sys::process::wait_for(&mut [bell], within)?;
            return Ok(false);
        };
        let mut files = [bell, sys::process::readable(output)];
        sys::process::wait_for(&mut files, within)?;
        let [_, output] = files;
        Ok(!output.revents().is_empty())
    }

    /// Takes what there is of output, a pipe's fill at most.
    fn pass_on(&mut self, cx: &Context) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self
            .output
            .as_ref()
            .map_or(Ok(0), |mut output| output.read(&mut buffer));
        match read {
            Ok(0) => self.output = None,
            Ok(count) => self.take(buffer.get(..count).unwrap_or_default(), cx),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.buffer = buffer;
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], cx: &Context) {
        let _ = cx.check(); // a sign of life; a wish to stop is seen to elsewhere
        self.newest.append(bytes);
        cx.log(bytes);
        if let Some((file, path)) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            let error = format!("{}: {error}", path.display());
            log::warn!("job {}: its output file misses output: {error}", cx.id());
            self.file_error = Some(error);
            self.file = None;
        }
    }

    /// Waits for the command, which has ended, and for the rest of its group, which was killed.
    fn end(mut self, cx: &Context) -> JobResult<Report> {
        let Some(launcher) = self.launcher.take() else {
            return Err(Stop::failed("the command was never started"));
        };
        self.join_waiter();
        let (bytes, cut) = std::mem::take(&mut self.newest).into_parts();
        let mut report = Report {
            exit_code: None,
            signal: None,
            started_at_ms: self.started_at_ms,
            ended_at_ms: self.ended_at_ms,
            user_ms: 0,
            system_ms: 0,
            max_rss_bytes: 0,
            output: Output::new(bytes, cut),
            output_file_error: self.file_error.take(),
        };
        let number = launcher.child.id();
        match launcher.child.wait4() {
            Ok(end) => {
                report.set_status(end.status);
                report.user_ms = millis(end.rusage.utime);
                report.system_ms = millis(end.rusage.stime);
                report.max_rss_bytes = end.rusage.maxrss;
            }
            // This program lets the system forget its children (SIGCHLD is ignored), or waits for all of them.
            Err(error) => log::error!(
                "job {}: nobody knows how its command ended: {error}",
                cx.id()
            ),
        }
        if is_gone(number, self.group) {
            self.noted.take().into_iter().for_each(Noted::remove);
        } else {
            log::warn!(
                "job {}: a part of its command (process group {number}) was killed and is still there",
                cx.id()
            );
        }
        Ok(report)
    }

    fn join_waiter(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            let _ = waiter.join();
        }
    }
}

/// Whether nobody of a group, all of whom were killed, is left.
fn is_gone(number: u32, group: Option<Group>) -> bool {
    sys::process::is_empty(number)
        || group.is_none_or(|group| {
            sys::process::end_groups(&[group], END_GRACE).is_ok_and(|left| left.is_empty())
        })
}

impl Drop for Running {
    /// Something went wrong on the way, or the handler panicked: the command must not go on without anybody.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let Some(Launcher { mut child, .. }) = self.launcher.take() else {
            return;
        };
        let number = child.id();
        if let Err(error) = child.wait() {
            log::debug!("process {number}: {error}");
        }
        self.join_waiter();
        if is_gone(number, self.group) {
            self.noted.take().into_iter().for_each(Noted::remove);
        }
    }
}

/// Processes live by the machine's clock, whatever clock the engine has.
fn awake() -> Duration {
    SystemClock.now().awake
}

fn wall_ms(cx: &Context) -> i64 {
    cx.engine().shared.clock.now().wall_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lacks_for_a_moment_is_no_failure() {
        use rustix::io::Errno;
        for short in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::AGAIN,
            Errno::NOMEM,
            Errno::NOSPC,
        ] {
            assert!(is_shortage(&short.into()), "{short}");
        }
        for other in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC] {
            assert!(!is_shortage(&other.into()), "{other}");
        }
        let source = io::ErrorKind::WouldBlock.into();
        let name = "jobsled-wait".to_owned();
        let thread = io::Error::other(Error::Thread { name, source });
        assert!(is_shortage(&thread));
    }
}
