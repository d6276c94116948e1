//! Jobs that run commands: a program and its arguments, with its output, exit status and use of the machine kept.
//!
//! ```no_run
//! use jobsled::command::{self, Command};
//! use jobsled::{Engine, Finished};
//!
//! fn main() -> jobsled::Result<()> {
//!     command::init(); // first of all, see below
//!     let engine = Engine::builder("jobs").handle(command::run).open()?;
//!     let job = engine.enqueue(Command::new("tar").args(["-cf", "photos.tar", "photos"]).dir("/home/ada"))?;
//!     if let Finished::Completed(report) = job.wait()? {
//!         println!("{}, {} ms", report.describe(), report.user_ms);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What a command gets
//!
//! No shell reads it. Its stdin is empty, stdout and stderr are one pipe, so their order is kept; no other file of
//! the worker is open in it. Its environment is the worker's and what the job adds, and `JOBSLED_JOB`,
//! `JOBSLED_ATTEMPT` and `JOBSLED_CLAIM` (the job's id, the number of the attempt from 1, and the
//! [claim number](crate::Context::claim)). It leads a process group of its own.
//!
//! # How it ends
//!
//! With exit status 0 the job is completed, its output a [`Report`]. Any other status, or a signal, is a failed
//! attempt; the report is kept all the same ([`Engine::output`](crate::Engine::output) reads it). A program or
//! directory that is not there is exit status 127, one that cannot be run 126, as in a shell, with a line in the
//! output that says why. While it runs, [`Engine::log`](crate::Engine::log) follows its output. Output is also a sign
//! of life for the kind's [stall timeout](crate::JobDefaults::stall_timeout).
//!
//! A job is over when its command is: what the command has left running in its process group is then killed. A
//! process that left the group (`setsid`, as daemons do) is not known here and goes on; it holds nothing up.
//!
//! Cancelled or past a limit, the group gets SIGTERM, and SIGKILL two seconds later. At
//! [shutdown](crate::Engine::shutdown) and when its lease is lost it gets SIGKILL at once: the job is given back and
//! runs again later, or is dead if it [must not run twice](crate::OnCrash::Dead). [Drain](crate::Engine::drain) first
//! to let commands end. Give a shutdown some seconds of grace: it returns as soon as all commands are gone. Without,
//! the program may end before that, which is as if the worker had died (below), and their reports are not kept.
//!
//! # When the worker dies
//!
//! Then the command dies with it, by the kernel's hand (Linux: the parent-death signal; a program with set-user-id
//! bits, such as `sudo`, loses it). What it had started may survive. So each command is noted in the store's directory
//! `commands` before it begins; the next worker to run a command first kills what is left of those of dead workers,
//! and waits until it is gone. A job that is run again never runs beside an earlier run of itself. If what is left
//! cannot be killed, the attempt fails and says so.
//!
//! Elsewhere than on Linux a command outlives its worker, and what is left is not found: there a job that is run again
//! may run beside its earlier run.
//!
//! # Why `init`
//!
//! All of this has to be set up in the new process before the command begins, and Rust has no safe way to run code
//! between `fork` and `exec`. So the worker starts its own program again, as the *launcher*: [`init`] notices that,
//! prepares the process and becomes the command. In every other process it returns at once.

mod job;
mod launch;
mod record;
mod report;
mod run;

pub use job::Command;
pub use launch::init;
pub use report::{Output, Report};
pub use run::run;

pub(crate) use launch::check_init;
#[cfg(feature = "lab")]
pub(crate) use record::is_record;
