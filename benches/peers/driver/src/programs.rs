//! The peers' programs, built, and what they say of themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use contest::{Context, Line, Result, bail};
use serde::Deserialize;

use crate::run::Runner;

/// In the order of the tables.
pub const CRATES: [&str; 7] = [
    "jobsled",
    "effectum",
    "apalis-sqlite",
    "rustqueue",
    "persistent-queue",
    "honker",
    "beanstalkd",
];

/// One way to set a peer up, with the program that measures it.
#[derive(Clone, Debug)]
pub struct Setup {
    pub program: PathBuf,
    /// Without a measure and figures.
    pub line: Line,
}

/// A peer that could not be built or started.
#[derive(Debug)]
pub struct Skipped {
    pub peer: &'static str,
    pub why: String,
}

/// All that are wanted, and Jobsled.
pub fn all(only: &[String], runner: &Runner) -> (Vec<Setup>, Vec<Skipped>) {
    let (mut setups, mut skipped) = (Vec::new(), Vec::new());
    let is_wanted = |name: &&str| {
        *name == "jobsled" || only.is_empty() || only.iter().any(|wanted| wanted == name)
    };
    for peer in CRATES.into_iter().filter(is_wanted) {
        eprintln!("building {peer}");
        match build(peer).and_then(|program| list(&program, runner)) {
            Ok(found) => setups.extend(found),
            Err(error) => {
                let why = format!("{error:#}");
                eprintln!("  {why}");
                skipped.push(Skipped { peer, why });
            }
        }
    }
    (setups, skipped)
}

/// What cargo tells of an artifact, as far as it is needed.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

fn build(peer: &str) -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(peer);
    // Built where its sources are, so that the settings beside them hold.
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo does not start")?;
    if !built.status.success() {
        bail!("it does not build");
    }
    let text = String::from_utf8_lossy(&built.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok());
    // A peer has one program.
    let mut programs = messages.filter_map(|message| message.executable);
    programs.next().context("cargo built no program")
}

fn list(program: &Path, runner: &Runner) -> Result<Vec<Setup>> {
    let lines = runner.lines(Command::new(program).arg("list"))?;
    let setup = |line| Setup {
        program: program.to_owned(),
        line,
    };
    Ok(lines.into_iter().map(setup).collect())
}
