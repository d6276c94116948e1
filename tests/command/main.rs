//! Commands, run for real: this program is its own launcher, and starts itself again as a worker that is killed.
//!
//! `cargo test --features command --test command [NAME]` runs the cases whose names contain `NAME`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test: whatever is not as expected ends it"
)]

#[cfg(target_os = "linux")]
mod ends;
#[cfg(target_os = "linux")]
mod place;
#[cfg(target_os = "linux")]
mod stops;
#[cfg(target_os = "linux")]
mod streams;
#[cfg(target_os = "linux")]
mod workers;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    jobsled::command::init();
    if let Some(code) = workers::child() {
        return code;
    }
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted = wanted.unwrap_or_default();
    let cases = [ends::CASES, streams::CASES, stops::CASES, workers::CASES].concat();
    let (chosen, others): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .partition(|(name, _)| name.contains(&wanted));
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in chosen {
        let _in_time = in_time(name);
        match std::panic::catch_unwind(case) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    println!("{passed} passed, {failed} failed, {} skipped", others.len());
    u8::from(failed > 0).into()
}

/// A case that waits for a process which never comes ends the test, and not the patience of whoever runs it. Over
/// when dropped.
#[cfg(target_os = "linux")]
fn in_time(name: &'static str) -> std::sync::mpsc::Sender<()> {
    use std::sync::mpsc::RecvTimeoutError::Timeout;
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let watch = move || {
        if is_over.recv_timeout(std::time::Duration::from_mins(5)) == Err(Timeout) {
            println!("test {name} ... FAILED: it hangs");
            std::process::exit(1);
        }
    };
    std::thread::Builder::new().spawn(watch).unwrap();
    over
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("0 passed, 0 failed, 1 skipped");
}
