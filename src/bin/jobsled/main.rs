//! The `jobsled` program: what it can do is in `args.rs`, how it speaks in `output.rs`, one folder or file
//! per command in `commands/`. It uses the library's public face only.

mod args;
mod commands;
mod output;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use commands::{Failure, Verdict};

/// Something that was promised did not hold: a job was lost, undone, doubled or stuck.
const NOT_WELL: u8 = 1;
/// The command could not be carried out as it was given; clap uses the same number.
const CANNOT_RUN: u8 = 2;

/// The only place that decides about exit codes.
fn main() -> ExitCode {
    let args = Args::parse();
    let filter = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(filter).init();
    match commands::run(&args.command) {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::NotWell) => NOT_WELL.into(),
        Err(failure) => {
            output::error(&failure);
            match failure {
                Failure::NotWell(_) => NOT_WELL.into(),
                Failure::CannotRun(_) => CANNOT_RUN.into(),
            }
        }
    }
}
