//! File calls that fail, and processes that end at one: a small library, loaded before the C library (`library.rs`).
//!
//! It counts over all threads and below one directory alone, so the nth call is a place that can be found again, as
//! far as the threads of a process come by in the same order. It can do that to any program, also to `jobsled`.
//!
//! Does not see: system calls that do not go through the C library (`fallocate` and others of rustix).

use std::path::{Path, PathBuf};
use std::process::Command;

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
}
