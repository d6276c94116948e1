//! The command line: what can be asked, and the ranges. Nothing of how it is done.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use jobsled::State;

use crate::time::{Span, When};

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 the command line is wrong, 3 the store is in use, 4 the store is damaged, \
5 the disk is full.
The manual is docs/cli.md.";

const TIMES: &str = "\
A span is a number with its unit: 90s, 15m, 2h30m, 1d, 500ms. \
A time is 2026-11-23T09:00:00+01:00, 2026-11-23 09:00 or 09:00, the latter two by the clock on the wall.";

/// Runs commands later, in order, and again after a crash
///
/// Jobs are kept in a store on disk. `add` returns when the job is on stable storage, `work` runs them, and every other
/// command works beside it.
#[derive(Debug, Parser)]
#[command(name = "jobsled", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Args {
    /// The directory of the store [default: `$JOBSLED_STORE`, else jobsled in the user's data directory]
    #[arg(long, global = true, value_name = "DIR", display_order = 1000)]
    pub(crate) store: Option<PathBuf>,
    /// Prints JSON, one object a line
    #[arg(long, global = true, display_order = 1000)]
    pub(crate) json: bool,
    /// Opens a store that a crash on another host left open, after you made sure that nothing runs there any more
    #[arg(long, global = true, display_order = 1000)]
    pub(crate) take_over: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store a command to be run, and print its id
    Add(AddArgs),
    /// Run jobs until told to stop
    ///
    /// SIGINT or SIGTERM once: what runs is finished, nothing new begins. Twice: what runs is killed and stays in the
    /// store, to run again.
    Work(WorkArgs),
    /// List jobs
    Ls(LsArgs),
    /// Show all that is known of jobs
    Show(IdsArgs),
    /// Print what a job has printed
    Log(LogArgs),
    /// Wait until jobs have ended, and exit as they did
    #[command(
        after_help = "Exit codes: that of the first command that did not end with 0; 128 and the number of the \
                            signal that killed it; 1 for a job that was cancelled, expired or quarantined, or is \
                            unknown; 124 if time was up."
    )]
    Wait(WaitArgs),
    /// Cancel jobs, waiting or running
    Cancel(CancelArgs),
    /// Run dead or cancelled jobs again, and scheduled ones now
    Retry(RetryArgs),
    /// Delete jobs that do not run
    Rm(IdsArgs),
    /// Change jobs that wait
    Set(SetArgs),
    /// Start no more jobs of a queue
    Pause(QueueNameArgs),
    /// Start jobs of a queue again
    Resume(QueueNameArgs),
    /// Set how many jobs of a queue run at a time
    Queue(QueueArgs),
    /// Delete finished jobs
    Prune(PruneArgs),
    /// Show figures of the store
    Stats,
    /// Print news as they happen
    Watch,
    /// Show queues and running jobs, live
    Top,
    /// Print all of the store, at one moment, as JSON lines
    Export,
    /// Make a new store of what `export` printed
    Import {
        /// The file (- for standard input)
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Write a verified copy of the store, at one moment, into a new directory
    Backup {
        /// The directory
        dir: PathBuf,
    },
    /// Check the store for damage, on a copy
    Verify {
        /// Where the copy is made [default: the system's directory for temporary files]
        #[arg(long, value_name = "DIR")]
        tmp: Option<PathBuf>,
    },
    /// Make a new store of what can be read of a damaged one, and list what cannot
    #[command(
        after_help = "Exit codes: 0 everything was saved; 1 the new store is there, and something is lost or doubtful; \
                            4 nothing could be read."
    )]
    Repair {
        /// The directory of the new store
        #[arg(long, value_name = "NEWDIR")]
        to: PathBuf,
    },
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Measure how fast jobs are on a disk of yours, beside what that disk allows
    ///
    /// RAW FILE and PREALLOCATED append the same bytes to a file, with one write and one sync a group, JOURNAL writes
    /// the same events through the journal alone, and ENGINE is all of it. All wait until what they wrote is on
    /// stable storage, and they take turns.
    #[command(
        after_help = "A first SIGINT or SIGTERM ends it after what it is at, and leaves nothing behind."
    )]
    Bench(BenchArgs),
    /// The process that `bench` starts
    #[command(hide = true)]
    BenchChild(BenchChildArgs),
    /// Kill a process at work again and again, and check that no job is lost
    ///
    /// Hashes the files under DIR, one durable job per file, in a child process that is killed with SIGKILL
    /// at random moments, opened again and finished. Everything that the engine acknowledged is noted in
    /// files outside the store, and compared with the store at the end.
    #[command(
        after_help = "Exit codes: 0 all is well; 1 a job was lost, undone, doubled or stuck; 2 the demo could \
                            not be carried out."
    )]
    Demo(DemoArgs),
    /// The process that `demo` starts and kills
    #[command(hide = true)]
    DemoChild(DemoChildArgs),
}

#[derive(Debug, ClapArgs)]
#[command(after_help = TIMES)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    pub(crate) options: JobOptions,
    /// A variable for the command, beside the environment of `work`; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<OsString>,
    /// Run it with the environment of this command, not of `work`
    #[arg(long)]
    pub(crate) env_all: bool,
    /// Read jobs from a file of JSON lines (- for standard input); all are stored or none
    #[arg(long, value_name = "FILE", conflicts_with_all = ["argv", "env", "env_all", "JobOptions"])]
    pub(crate) from: Option<PathBuf>,
    /// The program and its arguments; no shell looks at them
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "from")]
    pub(crate) argv: Vec<OsString>,
}

#[derive(Debug, Default, ClapArgs)]
#[group(id = "JobOptions", multiple = true)]
pub(crate) struct JobOptions {
    /// The queue [default: default]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) queue: Option<String>,
    /// Higher runs first [default: 0]
    #[arg(long, short, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
    /// Not before this span has passed
    #[arg(long = "in", value_name = "SPAN", conflicts_with = "at")]
    pub(crate) after: Option<Span>,
    /// Not before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<When>,
    /// Not at all if it has not started after this span
    #[arg(long, value_name = "SPAN")]
    pub(crate) expires: Option<Span>,
    /// A name of your own: while a job with it is kept, also a finished one, and for a day at least, no other is stored
    #[arg(long, value_name = "TEXT")]
    pub(crate) key: Option<String>,
    /// How often it is tried until it is dead, if it fails; a crash does not count [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) attempts: Option<u16>,
    /// Kill it after this span
    #[arg(long, value_name = "SPAN")]
    pub(crate) time_limit: Option<Span>,
    /// The directory in which it runs [default: this one]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// A file to whose end all its output is written, too
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// At most once: if `work` is killed while it runs, it is not run again
    #[arg(long)]
    pub(crate) no_rerun: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WorkArgs {
    /// How many jobs run at a time [default: the number of cores]
    #[arg(long, short, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) workers: Option<u16>,
    /// Only jobs of this queue; may be given several times
    #[arg(long, short, value_name = "NAME")]
    pub(crate) queue: Vec<String>,
    /// End when nothing runs and nothing could start now
    #[arg(long)]
    pub(crate) drain: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LsArgs {
    /// Only jobs in this state: scheduled, ready, running, completed, cancelled or dead
    #[arg(long, short, value_name = "STATE")]
    pub(crate) state: Option<State>,
    /// Only jobs of this queue
    #[arg(long, short, value_name = "NAME")]
    pub(crate) queue: Option<String>,
    /// Only jobs of this kind
    #[arg(long, value_name = "NAME")]
    pub(crate) kind: Option<String>,
    /// Only the last ones, so many
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub(crate) last: Option<usize>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct IdsArgs {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<u64>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LogArgs {
    /// The job
    pub(crate) id: u64,
    /// Go on until it has ended
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Leave control characters in, also on a terminal
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = TIMES)]
pub(crate) struct WaitArgs {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<u64>,
    /// At most this long
    #[arg(long, value_name = "SPAN")]
    pub(crate) timeout: Option<Span>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CancelArgs {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<u64>,
    /// Why, to be kept with them
    #[arg(long, value_name = "TEXT", default_value = "cancelled by hand")]
    pub(crate) reason: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RetryArgs {
    /// The jobs
    #[arg(required_unless_present = "dead", value_name = "ID")]
    pub(crate) ids: Vec<u64>,
    /// All dead ones
    #[arg(long, conflicts_with = "ids")]
    pub(crate) dead: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = TIMES)]
pub(crate) struct SetArgs {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<u64>,
    /// Higher runs first
    #[arg(long, short, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
    /// Not before this span has passed
    #[arg(long = "in", value_name = "SPAN", conflicts_with = "at")]
    pub(crate) after: Option<Span>,
    /// Not before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<When>,
    /// To this queue
    #[arg(long, short, value_name = "NAME")]
    pub(crate) queue: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct QueueNameArgs {
    /// The queue
    #[arg(value_name = "QUEUE")]
    pub(crate) name: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct QueueArgs {
    /// The queue
    #[arg(value_name = "QUEUE")]
    pub(crate) name: String,
    /// Most jobs at a time; 0 takes the bound away
    #[arg(long, short, value_name = "NUMBER")]
    pub(crate) concurrency: u32,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = TIMES)]
pub(crate) struct PruneArgs {
    /// Only those that ended longer ago than this span
    #[arg(long, value_name = "SPAN")]
    pub(crate) older: Option<Span>,
    /// Only those in this state: completed, cancelled or dead
    #[arg(long, short, value_name = "STATE")]
    pub(crate) state: Option<State>,
    /// Only those of this queue
    #[arg(long, short, value_name = "NAME")]
    pub(crate) queue: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// Where to write; a directory of its own is made in it, and removed
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// How long it is measured: quick takes half a minute, full some minutes
    #[arg(long, value_enum, default_value_t)]
    pub(crate) profile: BenchProfile,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchChildArgs {
    /// The store
    pub(crate) store: PathBuf,
    /// How many jobs wait in it
    pub(crate) jobs: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchProfile {
    /// Two seconds, to see that it can be measured; the figures say little
    Smoke,
    /// 100,000 jobs, three rounds
    #[default]
    Quick,
    /// 1,000,000 jobs, five rounds
    Full,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// The files to hash. Directories in it named `.*` and `target` are left out, and other file systems
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// How often the process is killed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) kills: u32,
    /// Chooses the moments of the kills; printed at the start [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Most jobs; with fewer files they are hashed in several passes
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) jobs: u32,
    /// Most content that is hashed, all passes together
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) content: u32,
    /// Keep the store, even if all is well
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoChildArgs {
    /// Where the store, the plan and the acknowledgements are
    pub(crate) place: PathBuf,
    /// The directory that the plan's paths begin in
    pub(crate) root: PathBuf,
    /// How many jobs there shall be
    pub(crate) jobs: u32,
    /// Counts the starts of this process, from 1
    pub(crate) life: u32,
    /// What becomes of the place when the parent is gone
    pub(crate) leave: Leave,
}

/// What is left of the place at the end, when all was well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Leave {
    /// All of it.
    Everything,
    /// The directory, which was there before.
    EmptyDir,
    /// Nothing.
    Nothing,
}
