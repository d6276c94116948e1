//! What is built beside this program and is not part of it: this program has the recorder in it, which takes the
//! place of the C library's file calls, and is therefore no subject for another library that does the same.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program that is killed, and whose calls fail (`subject/`).
pub(crate) fn subject() -> Result<&'static Path, &'static str> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    const MISSING: &str =
        "its program cannot be built: cargo build --release --all-features --example lab_subject";
    let file = format!("lab_subject{}", std::env::consts::EXE_SUFFIX);
    let found = FOUND.get_or_init(|| example("lab_subject", &file));
    found.as_deref().ok_or(MISSING)
}

/// The recorder as a library (`cuts/library.rs`).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn recorder() -> Result<&'static Path, &'static str> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    const MISSING: &str = "the recorder's library cannot be built: \
        cargo build --release --all-features --example lab_recorder";
    let found = FOUND.get_or_init(|| example("lab_recorder", "liblab_recorder.so"));
    found.as_deref().ok_or(MISSING)
}

/// Built in any case, which takes a moment if it is up to date: `cargo test --test lab` makes no examples, and what is
/// there may be of another day.
fn example(name: &str, file: &str) -> Option<PathBuf> {
    let dir = profile_dir()?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--offline", "--locked", "--all-features"]);
    cargo.args(["--example", name]);
    if dir.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(dir.parent()?);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let is_built = cargo.output().ok()?.status.success();
    let path = dir.join("examples").join(file);
    (is_built && path.exists()).then_some(path)
}

/// The directory of this very program's profile.
fn profile_dir() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.parent()?.to_owned())
}
