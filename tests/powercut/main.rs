//! The power-cut laboratory: the journal, recorded, cut at any moment, and brought back.
//!
//! A process works on a store and every change that it makes below the store's directory is recorded,
//! in order (`recorder`, `log`). From the record the disk is built as a power cut may leave it
//! (`disk`, `image`), another process opens what is left, and its findings are held against what the first one
//! was promised (`trial`). `docs/durability.md` has the model, its limits and the figures.
//!
//! ```text
//! cargo test --features lab --test powercut                    a part with fixed seeds, in CI
//! POWERCUT=full cargo test …                                   all of it
//! POWERCUT=ROW or ROW/LIFE or ROW/LIFE/TRIAL cargo test …      that row, life or trial
//! POWERCUT_LOG=FILE POWERCUT=ROW/LIFE/TRIAL cargo test …       with a log kept from a failure
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test: whatever is not as expected ends it"
)]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod child;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod disk;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod image;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod log;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod places;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod recorder;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod rows;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod table;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod trial;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == child::ARGUMENT)
    {
        std::process::exit(child::main(&arguments[1..]));
    }
    table::main(&arguments)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() {
    println!("powercut: skipped, recording takes the place of functions of glibc on Linux");
}
