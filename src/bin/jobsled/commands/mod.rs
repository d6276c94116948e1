//! One module per command. A command returns what it found, or why it could not; `main` makes the exit
//! code of it.

mod demo;

use std::fmt;

use crate::args::Command;

/// What a command that ran to its end found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Well,
    /// A promise did not hold. The command has said which.
    NotWell,
}

/// Why a command did not run to its end, in one or two sentences with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A promise did not hold, so badly that there is nothing more to look at.
    NotWell(String),
    /// It was asked for something impossible, or the machine refused.
    CannotRun(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::NotWell(words) | Failure::CannotRun(words)) = self;
        f.write_str(words)
    }
}

pub(crate) fn run(command: &Command) -> Result<Verdict, Failure> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::DemoChild(args) => demo::run_child(args),
    }
}
