//! The crash lab: that nothing acknowledged is lost, tried in as many ways as there are to lose it.
//!
//! `docs/durability.md` says for each check what it models, what it leaves out, and what was counted so far.
//!
//! ```text
//! cargo test --release --all-features --test lab                      a little of everything
//! cargo test --release --all-features --test lab -- ci                what CI runs; fails below its counts
//! cargo test --release --all-features --test lab -- ci kill           as CI runs that one
//! cargo test --release --all-features --test lab -- sim               that check alone
//! cargo test --release --all-features --test lab -- sim --seed 17     one seed of it, again
//! cargo test --release --all-features --test lab -- sim --from 50000 --count 1000000 --record
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test: whatever is not as expected ends it"
)]

mod built;
mod check;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod cuts;
mod damage;
mod faults;
mod fuzz;
mod kill;
mod notes;
mod preload;
mod random;
mod sabotage;
mod sim;
mod threads;

// What the fuzz targets do with their bytes.
#[path = "../../fuzz/bodies/mod.rs"]
mod bodies;

// The model of a disk, shared with the lab of the bare journal.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../powercut/disk.rs"]
mod disk;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../powercut/image.rs"]
mod image;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../powercut/log.rs"]
mod log;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../powercut/places.rs"]
mod places;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../powercut/recorder.rs"]
mod recorder;

use std::process::ExitCode;

use clap::Parser as _;

use check::{Arguments, CHECKS, Order, Size};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(code) = check::as_child(&arguments) {
        return code;
    }
    let arguments = Arguments::parse();
    let asked = arguments.checks();
    let size = match arguments.what.as_slice() {
        [] => Size::Little,
        [what, ..] if what == "ci" => Size::Ci,
        _ => Size::Goal,
    };
    let mut well = true;
    for check in CHECKS.iter().filter(|check| asked.contains(&check.name)) {
        let order = Order::of(check, &arguments, size);
        let tally = check::run(check, &order);
        println!("{tally}");
        well &= tally.is_well(size);
        if arguments.record
            && let Err(error) = tally.record(&order)
        {
            eprintln!("the count could not be recorded: {error}");
            well = false;
        }
    }
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
