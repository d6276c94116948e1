//! File calls that fail, processes that end at one, and wall clocks that are wrong: a small library, loaded before the
//! C library (`library.rs`).
//!
//! It counts over all threads and below one directory alone, so the nth call is a place that can be found again, as
//! far as the threads of a process come by in the same order. It can do that to any program, also to `jobsled`.
//!
//! Does not see: system calls that do not go through the C library (`fallocate` and others of rustix).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// The library, built.
#[derive(Debug)]
pub(crate) struct Preload {
    _home: TempDir,
    library: PathBuf,
}

/// What is to happen to which calls.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Names with commas, or `any`.
    pub(crate) calls: &'static str,
    /// The number of an error, `KILL`, `SHORT`, `DELAY` or `LIMIT`.
    pub(crate) what: String,
    /// From this one on.
    pub(crate) from: u64,
    /// To this one; milliseconds for `DELAY`, threads for `LIMIT`.
    pub(crate) to: u64,
}

impl Preload {
    /// Has it built by the compiler that built this program; `Err` says why it could not be.
    pub(crate) fn build() -> Result<Preload, String> {
        let home = crate::check::memory_dir();
        let source = home.path().join("library.rs");
        std::fs::write(&source, include_str!("library.rs")).map_err(|e| e.to_string())?;
        let library = home.path().join("liblab.so");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let built = Command::new(rustc)
            .args([
                "--edition=2024",
                "--crate-type=cdylib",
                "-O",
                "-Cpanic=abort",
            ])
            .arg("-o")
            .arg(&library)
            .arg(&source)
            .current_dir(home.path())
            .output();
        match built {
            Ok(output) if output.status.success() => Ok(Preload {
                _home: home,
                library,
            }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(format!("rustc: {error}")),
        }
    }

    /// The process will come to its fault, below `root`; `fired` then names the files that were hit.
    pub(crate) fn onto(&self, command: &mut Command, plan: &Plan, root: &Path, fired: &Path) {
        let Plan {
            calls,
            what,
            from,
            to,
        } = plan;
        command
            .env("LD_PRELOAD", &self.library)
            .env("LAB_FAULT", format!("{calls} {what} {from} {to}"))
            .env("LAB_FAULT_ROOT", root)
            .env("LAB_FAULT_FIRED", fired);
    }

    /// The process has a wall clock that is wrong by so much, and is set so long after its start. In whole seconds.
    pub(crate) fn set_clock(&self, command: &mut Command, clock: WrongClock) {
        let WrongClock {
            ahead_s: [before, after],
            set_after,
        } = clock;
        let at = set_after.as_millis();
        command
            .env("LD_PRELOAD", &self.library)
            .env("LAB_CLOCK", format!("{before}000 {at} {after}000"));
    }
}

/// A wall clock that is set while a process runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrongClock {
    pub(crate) ahead_s: [i64; 2],
    pub(crate) set_after: Duration,
}
