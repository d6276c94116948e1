//! How many durable jobs a second, beside the journal alone and a plain file? What `jobsled bench --profile full`
//! measures, for those who have not built the program; how it is done is in `src/bench`.
//!
//! `cargo bench --features bench --bench throughput`; `JOBSLED_BENCH_DIR` (a directory on the disk to measure; default:
//! `target/`); `JOBSLED_BENCH_PROFILE=quick` for half a minute instead of some. Read the ratios: the machine is never
//! alone.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints and does not recover"
)]

use std::ops::ControlFlow;
use std::path::PathBuf;

use jobsled::bench::{self, Host, Profile};

/// Tells what comes, and lets all of it come.
struct Teller;

impl Host for Teller {
    fn next(&mut self, what: &str) -> ControlFlow<()> {
        eprintln!("{what}");
        ControlFlow::Continue(())
    }
}

fn main() {
    let dir = std::env::var_os("JOBSLED_BENCH_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let is_quick = std::env::var("JOBSLED_BENCH_PROFILE").is_ok_and(|profile| profile == "quick");
    let profile = if is_quick {
        Profile::Quick
    } else {
        Profile::Full
    };
    let report = bench::run(&dir, profile, &mut Teller).unwrap().unwrap();
    println!("{report:#?}");
    for row in &report.enqueue {
        let of_journal = row.engine / row.bare;
        println!(
            "{} threads, batches of {}: {of_journal:.2} of the journal",
            row.threads, row.batch
        );
    }
    let of_journal = report.through.engine / report.through.bare;
    println!("to completion: {of_journal:.2} of the journal");
}
