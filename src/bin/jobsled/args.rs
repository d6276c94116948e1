//! The command line: what can be asked, and the ranges. Nothing of how it is done.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "Exit codes: 0 all is well; 1 a job was lost, undone, doubled or stuck; \
                          2 the command could not be carried out.";

/// A durable job engine that lives inside your process.
#[derive(Debug, Parser)]
#[command(name = "jobsled", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Kill a process at work again and again, and check that no job is lost
    ///
    /// Hashes the files under DIR, one durable job per file, in a child process that is killed with SIGKILL
    /// at random moments, opened again and finished. Everything that the engine acknowledged is noted in
    /// files outside the store, and compared with the store at the end.
    #[command(after_help = EXIT_CODES)]
    Demo(DemoArgs),
    /// The process that `demo` starts and kills
    #[command(hide = true)]
    DemoChild(DemoChildArgs),
}

#[derive(Debug, clap::Args)]
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
    /// A new or empty directory for the store and the record of acknowledgements [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Keep the store, even if all is well
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, clap::Args)]
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
