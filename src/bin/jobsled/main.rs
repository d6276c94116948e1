//! The `jobsled` program: what it can do is in `args.rs`, how it speaks in `output.rs`, one folder or file
//! per command in `commands/`. It uses the library's public face only.

mod args;
mod commands;
mod output;
mod store;
mod time;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use commands::Verdict;

/// The only place that decides about exit codes.
fn main() -> ExitCode {
    // Comes back in every process but the ones that become a command.
    jobsled::command::init();
    let args = Args::parse();
    let filter = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(filter).init();
    match commands::run(args) {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::NotWell) => ExitCode::FAILURE,
        Ok(Verdict::Exit(code)) => code.into(),
        Err(failure) => {
            output::error(&failure);
            failure.exit_code().into()
        }
    }
}
