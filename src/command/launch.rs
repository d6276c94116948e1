//! From the worker to the running command: the worker starts its own program anew in the role of the launcher, tells
//! it what to run, and then lets it go.
//!
//! What goes through the launcher's stdin, a socket: the length of the order (u32, little endian), the order in JSON,
//! and one byte more when everything is noted. If that byte does not come, the worker is gone and nothing is run.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Process, Stdio, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, SyncSender, channel, sync_channel};

use parking_lot::Mutex;
use rustix::process::getppid;

use super::Command;
use crate::error::{Error, Result};
use crate::sys;

/// By this name of the program the launcher knows itself.
const ROLE: &str = "jobsled-launch";
/// Two times what a command may have, for those whose strings are lists of bytes would be four: far more than any.
const ORDER_BYTES_MAX: u32 = 16 << 20;
/// Exit status for what is not there, and for what cannot be run: those of shells.
const NOT_FOUND: i32 = 127;
const CANNOT_RUN: i32 = 126;

static CALLED: AtomicBool = AtomicBool::new(false);

/// Lets this program run commands. Call it first thing in `main`, before threads are started and arguments read.
///
/// It returns at once, except in the process that the worker starts for each command: that one becomes the command.
/// An engine with the command handler cannot be opened in a program that has not called it.
///
/// ```
/// jobsled::command::init();
/// // everything else that `main` does
/// ```
pub fn init() {
    CALLED.store(true, Ordering::Relaxed);
    let mut args = std::env::args_os();
    if args.next().as_deref() == Some(OsStr::new(ROLE)) {
        let worker = args.next().and_then(|pid| pid.to_str()?.parse().ok());
        exit(launcher(worker));
    }
}

pub(crate) fn check_init() -> Result<()> {
    if CALLED.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Error::Invalid {
        what: "program that runs commands",
        found: "without `init`".to_owned(),
        rule: "call `jobsled::command::init()` first in `main`".to_owned(),
    })
}

/// Becomes the command. Returns the exit status if that cannot be.
fn launcher(worker: Option<i32>) -> i32 {
    // Asked for first and looked at afterwards: if the worker went before, another is the parent by now.
    let dies_with_parent = sys::process::die_with_parent();
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    if worker.is_none() || worker != parent || dies_with_parent.is_err() {
        return CANNOT_RUN;
    }
    // E9: anything but the whole order means that the worker is gone, and perhaps nothing is noted.
    let Ok(command) = read_order(&mut io::stdin().lock()) else {
        return CANNOT_RUN;
    };
    // Those of std are marked anyway; other code in the worker may have opened files without.
    close_fds::set_fds_cloexec(3, &[]);
    if let Err(error) = empty_stdin() {
        return complain("cannot open /dev/null", &error);
    }
    if let Some(dir) = command.directory()
        && let Err(error) = std::env::set_current_dir(dir)
    {
        return complain(&format!("cannot enter {}", dir.display()), &error);
    }
    let mut argv = command.argv();
    let program = argv.next().unwrap_or_default();
    let mut process = Process::new(program);
    if command.is_only_env() {
        process.env_clear();
    }
    let error = process.args(argv).envs(command.variables()).exec();
    complain(&format!("cannot run {}", program.display()), &error)
}

fn read_order(from: &mut impl Read) -> io::Result<Command> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > ORDER_BYTES_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut order = vec![0; length as usize];
    from.read_exact(&mut order)?;
    from.read_exact(&mut [0])?;
    Ok(serde_json::from_slice(&order)?)
}

fn empty_stdin() -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdin(null)?)
}

/// Says in the command's own output why there is none.
fn complain(what: &str, error: &io::Error) -> i32 {
    // If that fails, nobody reads it.
    let _ = writeln!(io::stderr(), "jobsled: {what}: {error}");
    if error.kind() == ErrorKind::NotFound {
        NOT_FOUND
    } else {
        CANNOT_RUN
    }
}

/// A launcher that waits for its order.
pub(super) struct Launcher {
    pub(super) child: Child,
    order: UnixStream,
}

impl Launcher {
    /// Starts one whose output, and later the command's, goes into the pipe.
    pub(super) fn start(output: PipeWriter) -> io::Result<Launcher> {
        let (order, theirs) = UnixStream::pair()?;
        let mut process = Process::new(sys::process::own_program()?);
        process
            .arg0(ROLE)
            .arg(std::process::id().to_string())
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = spawn(process)?;
        Ok(Launcher { child, order })
    }

    /// Lets it become the command.
    pub(super) fn go(&self, command: &Command) -> io::Result<()> {
        let mut order = vec![0; 4];
        serde_json::to_writer(&mut order, command)?;
        let length = u32::try_from(order.len() - 4).map_err(io::Error::other)?;
        if let Some(place) = order.first_chunk_mut() {
            *place = length.to_le_bytes();
        }
        order.push(1);
        sys::process::send_all(&self.order, &order)
    }
}

/// A process to start, and where to tell of it.
type Wish = (Process, SyncSender<io::Result<Child>>);

/// Starts a process from the one thread of this process that does so: a command dies with the *thread* that started
/// it, and that of a handler may end before its process does.
fn spawn(process: Process) -> io::Result<Child> {
    static STARTER: Mutex<Option<Sender<Wish>>> = Mutex::new(None);
    let (tell, told) = sync_channel(1);
    let mut starter = STARTER.lock();
    let wishes = match &*starter {
        Some(wishes) => wishes.clone(),
        None => {
            let (wishes, next) = channel();
            // Never joined: it is there as long as the process.
            let thread = sys::thread::spawn("jobsled-launch", move || start_all(&next));
            thread.map_err(io::Error::other)?;
            starter.insert(wishes).clone()
        }
    };
    drop(starter);
    let gone = || io::Error::other("the thread that starts commands is gone");
    wishes.send((process, tell)).map_err(|_| gone())?;
    told.recv().map_err(|_| gone())?
}

fn start_all(wishes: &Receiver<Wish>) {
    for (mut process, tell) in wishes {
        let child = process.spawn();
        // Before anybody hears of it: it holds ends of pipes that are the child's alone.
        drop(process);
        if let Err(SendError(Ok(mut unwanted))) = tell.send(child) {
            let _ = unwanted.kill();
            let _ = unwanted.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order is whole, with its last byte, or nothing is run.
    #[test]
    fn an_order_cut_short_is_none() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut child = Process::new("true").spawn().unwrap();
        child.wait().unwrap();
        let launcher = Launcher {
            child,
            order: theirs,
        };
        let command = Command::new("a").arg("b");
        launcher.go(&command).unwrap();
        drop(launcher);
        let mut order = Vec::new();
        ours.read_to_end(&mut order).unwrap();
        assert_eq!(read_order(&mut &order[..]).unwrap(), command);
        for cut in 0..order.len() {
            let part = &order[..cut];
            assert!(read_order(&mut &part[..]).is_err(), "{cut} bytes");
        }
        let endless = u32::MAX.to_le_bytes();
        assert!(read_order(&mut &endless[..]).is_err());
    }

    /// Without `init`, which no test of the library calls, an engine with commands is refused when it is opened.
    #[test]
    fn a_program_without_init_is_refused() {
        let opened = crate::Engine::in_memory().handle(super::super::run).open();
        let error = opened.map(drop).unwrap_err().to_string();
        assert!(error.contains("jobsled::command::init()"), "{error}");
    }
}
