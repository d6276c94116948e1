//! The `jobsled` program: what it can do is in `args.rs`, how it speaks in `output.rs`, one folder or file
//! per command in `commands/`. It uses the library's public face only.

mod args;
mod commands;
mod output;
mod store;
mod time;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use args::Args;
use commands::{Failure, Verdict};

/// The only place that decides about exit codes.
fn main() -> ExitCode {
    // Comes back in every process but the ones that become a command.
    jobsled::command::init();
    let args = Args::parse();
    let filter = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(filter)
        .format(|to, record| {
            // It may speak of a job's text.
            let words = output::clean(&record.args().to_string());
            writeln!(to, "{}: {words}", record.level())
        })
        .init();
    // Past a limit on the size of files a write fails then, instead of ending the process.
    if let Err(e) = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()) {
        log::debug!("files past their limit end this process: {e}");
    }
    let ran = commands::run(args);
    if ran.is_ok()
        && let Some(kind) = output::failure()
    {
        let failure = Failure::cannot_write(kind);
        output::error(&failure);
        return failure.exit_code().into();
    }
    match ran {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::NotWell) => ExitCode::FAILURE,
        Ok(Verdict::Exit(code)) => code.into(),
        Err(failure) => {
            output::error(&failure);
            failure.exit_code().into()
        }
    }
}
