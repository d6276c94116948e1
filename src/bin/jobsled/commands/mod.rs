//! One module per command, or for a few that are alike. A command returns what it found, or why it could not;
//! `main` makes the exit code of it.

mod add;
mod bench;
mod change;
mod demo;
mod log;
mod ls;
mod prune;
mod queue;
mod repair;
mod show;
mod stats;
mod top;
mod transfer;
mod wait;
mod watch;
mod work;

use std::fmt;
use std::io::ErrorKind;

use clap::CommandFactory;
use jobsled::control::Code;

use crate::args::{Args, Command};
use crate::store::{self, Session};

/// What a command that ran to its end found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Well,
    /// Not all was as asked or promised. The command has said what.
    NotWell,
    /// The exit code of something else.
    Exit(u8),
}

/// Why a command did not run to its end, in one or two sentences with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A promise did not hold, so badly that there is nothing more to look at.
    NotWell(String),
    /// It was asked for something impossible, or the machine refused.
    CannotRun(String),
    /// What the store said.
    Fault(Code, String),
}

impl Failure {
    /// The command line is wrong.
    pub(crate) fn usage(words: impl Into<String>) -> Failure {
        Failure::CannotRun(words.into())
    }

    /// Something went wrong.
    pub(crate) fn failed(words: impl Into<String>) -> Failure {
        Failure::NotWell(words.into())
    }

    /// What was to be printed is not, or not all of it.
    pub(crate) fn cannot_write(kind: ErrorKind) -> Failure {
        let why = std::io::Error::from(kind);
        let words = format!("could not write the output: {why}. It is not complete");
        match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Failure::Fault(Code::DiskFull, words)
            }
            _ => Failure::failed(words),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::NotWell(_) => 1,
            Failure::CannotRun(_) => 2,
            Failure::Fault(code, _) => store::exit_code(*code),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::NotWell(words) | Failure::CannotRun(words) | Failure::Fault(_, words)) = self;
        f.write_str(words)
    }
}

pub(crate) fn run(args: Args) -> Result<Verdict, Failure> {
    let session = || Session::new(args.store.clone(), args.json, args.take_over);
    match args.command {
        Command::Add(add) => add::run(&session()?, add),
        Command::Work(work) => work::run(&session()?, &work),
        Command::Ls(ls) => ls::run(&session()?, &ls),
        Command::Show(show) => show::run(&session()?, &show.ids),
        Command::Log(log) => log::run(&session()?, &log),
        Command::Wait(wait) => wait::run(&session()?, &wait),
        Command::Cancel(cancel) => change::cancel(&session()?, cancel),
        Command::Retry(retry) => change::retry(&session()?, &retry),
        Command::Rm(rm) => change::delete(&session()?, &rm.ids),
        Command::Set(set) => change::set(&session()?, set),
        Command::Pause(queue) => queue::pause(&session()?, &queue.name, true),
        Command::Resume(queue) => queue::pause(&session()?, &queue.name, false),
        Command::Queue(queue) => queue::concurrency(&session()?, &queue.name, queue.concurrency),
        Command::Prune(prune) => prune::run(&session()?, prune),
        Command::Stats => stats::run(&session()?),
        Command::Watch => watch::run(&session()?),
        Command::Top => top::run(&session()?),
        Command::Export => transfer::export(&session()?),
        Command::Import { file } => transfer::import(&session()?, &file),
        Command::Backup { dir } => transfer::backup(&session()?, &dir),
        Command::Verify { tmp } => transfer::verify(&session()?, tmp.as_deref()),
        Command::Repair { to } => repair::run(&session()?, &to),
        Command::Completions { shell } => {
            let mut command = Args::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "jobsled", &mut script);
            crate::output::say(String::from_utf8_lossy(&script).trim_end());
            Ok(Verdict::Well)
        }
        Command::Bench(asked) => bench::run(&asked, args.json),
        Command::BenchChild(asked) => bench::run_child(&asked),
        Command::Demo(demo) => demo::run(&demo, args.store.as_deref()),
        Command::DemoChild(child) => demo::run_child(&child),
    }
}
