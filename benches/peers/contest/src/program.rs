//! A peer's program: what it is asked, and how it answers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{Class, Commit, Line, Sort, Tally};

/// Who is measured.
#[derive(Debug)]
pub struct Peer {
    pub name: &'static str,
    pub sort: Sort,
    /// The first one is what `--setup` is without being said.
    pub setups: &'static [Setup],
}

/// One way to set a peer up.
#[derive(Debug)]
pub struct Setup {
    pub name: &'static str,
    pub class: Class,
    pub commit: Commit,
    pub lacks: &'static [Lack],
}

/// What is not measured, because there is nothing of the kind.
#[derive(Debug)]
pub struct Lack {
    /// The measure's name in a [`Line`].
    pub measure: &'static str,
    pub why: &'static str,
}

/// What is wanted of a peer.
#[derive(Clone, Debug)]
pub struct Ask {
    pub setup: &'static str,
    /// An empty directory.
    pub dir: PathBuf,
    pub measure: Measure,
}

#[derive(Clone, Copy, Debug)]
pub enum Measure {
    /// Durable enqueues, each alone.
    Enqueue { threads: usize, window: Duration },
    /// Durable batches, by one thread.
    Bulk { window: Duration },
    /// So many jobs that do nothing, from the first enqueue to the last durable completion.
    Through { jobs: u64 },
}

impl Measure {
    fn name(self) -> String {
        match self {
            Measure::Enqueue { threads, .. } => format!("enqueue-{threads}"),
            Measure::Bulk { .. } => "bulk".to_owned(),
            Measure::Through { .. } => "through".to_owned(),
        }
    }
}

#[derive(Parser)]
#[command(about = "Measures one peer once and prints one line of JSON")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One line for each way to set this peer up
    List,
    /// Durable enqueues, each alone, by threads that wait for their own
    Enqueue {
        #[command(flatten)]
        at: At,
        #[arg(long, default_value_t = 1)]
        threads: usize,
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// Durable batches of 1,000 by one thread
    Bulk {
        #[command(flatten)]
        at: At,
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
    },
    /// Jobs that do nothing, to their durable completion by two workers
    Through {
        #[command(flatten)]
        at: At,
        #[arg(long, default_value_t = 10_000)]
        jobs: u64,
    },
}

#[derive(clap::Args)]
struct At {
    /// An empty directory on the disk to measure
    #[arg(long)]
    dir: PathBuf,
    /// One of those that `list` tells; the first of them if it is not said
    #[arg(long)]
    setup: Option<String>,
}

impl Peer {
    fn ask(&'static self, what: What) -> Result<Option<(&'static Setup, Ask)>> {
        let (at, measure) = match what {
            What::List => return Ok(None),
            What::Enqueue {
                at,
                threads,
                seconds,
            } => {
                let window = Duration::from_secs_f64(seconds);
                (at, Measure::Enqueue { threads, window })
            }
            What::Bulk { at, seconds } => {
                let window = Duration::from_secs_f64(seconds);
                (at, Measure::Bulk { window })
            }
            What::Through { at, jobs } => (at, Measure::Through { jobs }),
        };
        let is_wanted = |setup: &&Setup| at.setup.as_deref().is_none_or(|name| name == setup.name);
        let setup = self.setups.iter().find(is_wanted);
        let setup = setup.with_context(|| format!("{} has no such set-up", self.name))?;
        let ask = Ask {
            setup: setup.name,
            dir: at.dir,
            measure,
        };
        Ok(Some((setup, ask)))
    }

    fn line(&self, version: &str, setup: &Setup, measure: String) -> Line {
        Line {
            peer: self.name.to_owned(),
            version: version.to_owned(),
            setup: setup.name.to_owned(),
            class: setup.class,
            sort: self.sort,
            commit: setup.commit,
            measure,
            jobs: 0,
            seconds: 0.0,
            jobs_per_second: 0.0,
            unsupported: None,
            error: None,
        }
    }
}

/// Reads the arguments, measures, prints.
pub fn main(peer: &'static Peer, version: &str, run: impl Fn(&Ask) -> Result<Tally>) -> ExitCode {
    match measured(peer, version, run) {
        Ok(lines) => {
            for line in lines {
                println!("{line}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measured(
    peer: &'static Peer,
    version: &str,
    run: impl Fn(&Ask) -> Result<Tally>,
) -> Result<Vec<String>> {
    let lines = match peer.ask(Args::parse().what)? {
        None => {
            let list = |setup| peer.line(version, setup, String::new());
            peer.setups.iter().map(list).collect()
        }
        Some((setup, ask)) => {
            let mut line = peer.line(version, setup, ask.measure.name());
            let lack = setup.lacks.iter().find(|lack| lack.measure == line.measure);
            match lack {
                Some(lack) => line.unsupported = Some(lack.why.to_owned()),
                None => fill(&mut line, run(&ask)?),
            }
            vec![line]
        }
    };
    let json = lines.iter().map(serde_json::to_string);
    Ok(json.collect::<Result<_, _>>()?)
}

#[expect(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
fn fill(line: &mut Line, tally: Tally) {
    line.jobs = tally.jobs;
    line.seconds = tally.time.as_secs_f64();
    line.jobs_per_second = tally.jobs as f64 / line.seconds;
}

/// The version of a package in the text of a `Cargo.lock`: what was measured, not what was asked for.
pub fn locked<'t>(lock: &'t str, package: &str) -> &'t str {
    let name = format!("name = \"{package}\"\nversion = \"");
    let after = lock.split(&name).nth(1).unwrap_or("?\"");
    after.split('"').next().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = "name = \"ab\"\nversion = \"1.2.3\"\n\nname = \"b\"\nversion = \"2.0.0\"\n";
        assert_eq!(locked(lock, "ab"), "1.2.3");
        assert_eq!(locked(lock, "b"), "2.0.0");
        assert_eq!(locked(lock, "c"), "?");
    }
}
