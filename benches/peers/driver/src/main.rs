//! Measures Jobsled beside what somebody would take instead: builds all peers, lets them take turns, counts their
//! syncs, and tells medians by durability class. `cargo run --release -- --help`; what it means is in `../README.md`.

mod figures;
mod measure;
mod programs;
mod run;
mod syncs;
mod table;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use contest::{Context, Result};

use figures::Figure;
use run::Runner;

/// Measures Jobsled and its peers in turns on one disk
#[derive(Debug, Parser)]
struct Args {
    /// Where to measure: a new directory is made there, and removed afterwards
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How often each peer gets its turn; medians are told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Jobs that are run to their completion, at most: slow peers get fewer
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// How long callers enqueue each time, and about how long jobs are run
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// A turn that takes longer is ended, and said to have failed
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Only this peer, or these; Jobsled is always measured beside them
    #[arg(long)]
    only: Vec<String>,
    /// Where the lines of JSON go; otherwise they are printed
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the tables go; otherwise they are printed, after the lines
    #[arg(long)]
    table: Option<PathBuf>,
}

fn main() -> ExitCode {
    match all(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn all(args: &Args) -> Result<()> {
    for name in &args.only {
        let is_known = programs::CRATES.contains(&name.as_str());
        contest::ensure!(is_known, "no peer is called {name}: {:?}", programs::CRATES);
    }
    let scratch = tempfile::Builder::new()
        .prefix("peers-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("make a directory in {}", args.dir.display()))?;
    let runner = Runner::new(scratch.path(), Duration::from_secs(args.timeout));
    let (setups, skipped) = programs::all(&args.only, &runner);
    let mut json = json(args)?;
    let keep = |figures: &[Figure]| {
        for figure in figures {
            writeln!(json, "{}", serde_json::to_string(figure)?)?;
        }
        Ok(())
    };
    let figures = measure::all(&setups, args, &runner, keep)?;
    let tables = table::text(&figures, &skipped, args);
    match &args.table {
        Some(path) => std::fs::write(path, tables).with_context(|| path.display().to_string())?,
        None => print!("{tables}"),
    }
    Ok(())
}

/// Where the lines go.
fn json(args: &Args) -> Result<Box<dyn Write>> {
    Ok(match &args.json {
        Some(path) => Box::new(File::create(path).with_context(|| path.display().to_string())?),
        None => Box::new(std::io::stdout()),
    })
}
