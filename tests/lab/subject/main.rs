//! Programs on the public API that are killed, or whose calls fail: each notes what it was told (`notes.rs`), and the
//! lab holds that against what is there afterwards.
//!
//! A program of its own and not the lab itself, because the lab has the recorder of the power cuts in it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test: whatever is not as expected ends it"
)]

mod kill;
#[path = "../notes.rs"]
mod notes;
#[path = "../random.rs"]
#[expect(dead_code, reason = "the lab draws more")]
mod random;
mod script;

use std::fmt::Write as _;
use std::process::ExitCode;

use jobsled::Engine;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((what, rest)) if what == "kill" => kill::main(rest),
        Some((what, rest)) if what == "script" => script::main(rest),
        _ => {
            eprintln!("a part of the crash lab, which starts it: cargo test --test lab");
            ExitCode::from(2)
        }
    }
}

/// All jobs, as notes.
fn found(engine: &Engine) -> jobsled::Result<String> {
    let mut notes = String::new();
    for job in engine.jobs().list()? {
        let reason = job
            .dead_reason
            .map_or("-".to_owned(), |why| why.to_string().replace(' ', "-"));
        let number = job.key.map_or("-".to_owned(), |key| key[1..].to_owned());
        let (id, state, priority) = (job.id, job.state.name(), job.priority.0);
        writeln!(notes, "Z {id} {state} {reason} {priority} {number}").unwrap();
    }
    Ok(notes)
}
