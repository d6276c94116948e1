//! What is built beside this program and is not part of it: this program has the recorder in it, which takes the
//! place of the C library's file calls, and is therefore no subject for another library that does the same.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program that is killed, and whose calls fail (`subject/`).
pub(crate) fn subject() -> Result<&'static Path, &'static str> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    const MISSING: &str =
        "its program is missing: cargo build --release --all-features --example lab_subject";
    let file = format!("lab_subject{}", std::env::consts::EXE_SUFFIX);
    let found = FOUND.get_or_init(|| example("lab_subject", &file));
    found.as_deref().ok_or(MISSING)
}

/// The recorder as a library (`cuts/library.rs`).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn recorder() -> Result<&'static Path, &'static str> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    const MISSING: &str = "the recorder's library is missing: \
        cargo build --release --all-features --example lab_recorder";
    let found = FOUND.get_or_init(|| example("lab_recorder", "liblab_recorder.so"));
    found.as_deref().ok_or(MISSING)
}

/// `cargo test --test lab` makes no examples; what they need is made by then, so it does not take long.
fn example(name: &str, file: &str) -> Option<PathBuf> {
    let dir = profile_dir()?;
    let path = dir.join("examples").join(file);
    if path.exists() {
        return Some(path);
    }
    let mut cargo = Command::new(std::env::var_os("CARGO")?);
    cargo.args(["build", "--offline", "--locked", "--all-features"]);
    cargo.args(["--example", name]);
    if dir.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(dir.parent()?);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.output().ok()?;
    path.exists().then_some(path)
}

/// The directory of this very program's profile.
fn profile_dir() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.parent()?.to_owned())
}
