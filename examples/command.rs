//! Commands as jobs: output, exit status, a time limit, and what a failed one leaves behind.
//!
//! `cargo run --example command --features command`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::time::Duration;

use jobsled::command::{self, Command, Report};
use jobsled::{Engine, Finished};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: for each command this program is started once more, and becomes the command in here.
    command::init();

    let dir = std::env::temp_dir().join(format!("jobsled-command-{}", std::process::id()));
    let engine = Engine::builder(&dir).handle(command::run).open()?;

    // A program and its arguments. No shell reads them, so nothing has to be quoted.
    let greet = Command::new("printf")
        .arg("%s\n")
        .arg("a name; with $odd 'characters'");
    if let Finished::Completed(report) = engine.enqueue(greet)?.wait()? {
        print!(
            "{}: {}",
            report.describe(),
            String::from_utf8_lossy(&report.output.bytes)
        );
        assert!(report.is_success());
    }

    // A shell, where one is wanted. It fails, and what it printed is kept all the same.
    let line = "echo to stdout; echo to stderr >&2; exit 3";
    let fails = engine.enqueue(Command::new("sh").args(["-c", line]).dir("/"))?;
    let Finished::Dead(ended) = fails.wait()? else {
        return Err("exit status 3 is a failure".into());
    };
    let error = ended.errors.last().map_or("", |error| error.error.as_str());
    let kept = engine.output(fails.id())?.ok_or("its report is kept")?;
    let report: Report = serde_json::from_slice(kept.bytes())?;
    println!(
        "{error}, and it printed:\n{}",
        String::from_utf8_lossy(&report.output.bytes)
    );
    assert_eq!(report.output.bytes, b"to stdout\nto stderr\n");

    // Watched while it runs, and ended by its time limit, with all that it has started.
    let forever = Command::new("sh").args(["-c", "echo here I am; sleep 1000 & sleep 1000"]);
    let request = engine.job(forever).time_limit(Duration::from_millis(300));
    let job = request.enqueue()?.into_handle();
    while let Some(part) = engine.log(job.id(), 0, Duration::from_secs(10))? {
        if !part.bytes.is_empty() {
            print!("it says: {}", String::from_utf8_lossy(&part.bytes));
            break;
        }
    }
    if let Finished::Dead(ended) = job.wait()? {
        println!(
            "it {}",
            ended.errors.last().map_or("", |error| error.error.as_str())
        );
    }

    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
