//! `jobsled bench`: how fast this is on a disk of the user's, beside what that disk allows.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jobsled::bench::{self, Host, Opening, Percentiles, Profile, Rates, Report, Through};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::{Failure, Verdict};
use crate::args::{BenchArgs, BenchChildArgs, BenchProfile};
use crate::output::{self, Align, Table, count, note, say, size};

pub(crate) fn run(asked: &BenchArgs, json: bool) -> Result<Verdict, Failure> {
    let profile = match asked.profile {
        BenchProfile::Smoke => Profile::Smoke,
        BenchProfile::Quick => Profile::Quick,
        BenchProfile::Full => Profile::Full,
    };
    let mut user = User {
        stop: until_told()?,
    };
    let measured = bench::run(&asked.dir, profile, &mut user);
    let Some(report) = measured.map_err(|e| Failure::failed(format!("not measured: {e}")))? else {
        return Err(Failure::failed(
            "ended before all was measured; nothing is left behind",
        ));
    };
    if json {
        output::json(&report);
    } else {
        show(&report);
    }
    Ok(Verdict::Well)
}

/// What `bench` starts for itself: memory is told of a process that has done nothing else.
pub(crate) fn run_child(asked: &BenchChildArgs) -> Result<Verdict, Failure> {
    let opening = bench::open(&asked.store, asked.jobs);
    output::json(&opening.map_err(|e| Failure::failed(e.to_string()))?);
    Ok(Verdict::Well)
}

/// The person before the terminal.
struct User {
    stop: Arc<AtomicBool>,
}

impl Host for User {
    fn next(&mut self, what: &str) -> ControlFlow<()> {
        if self.stop.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        note(format_args!("Measuring: {what}"));
        ControlFlow::Continue(())
    }

    fn open(&mut self, store: &Path, jobs: u64) -> jobsled::Result<Opening> {
        let program = std::env::current_exe();
        let said = program.and_then(|program| {
            let mut child = Command::new(program);
            child.arg("bench-child").arg(store).arg(jobs.to_string());
            child.stderr(Stdio::inherit()).output()
        });
        let opening = said
            .ok()
            .and_then(|said| serde_json::from_slice(&said.stdout).ok());
        opening.map_or_else(
            || {
                // Here it is opened as well, and memory says nothing.
                let mut opening = bench::open(store, jobs)?;
                opening.resident_bytes = None;
                Ok(opening)
            },
            Ok,
        )
    }
}

/// Set by the first signal: then it ends after what it is at. The second one ends it at once, and its directory stays.
fn until_told() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|e| Failure::failed(format!("no signals can be listened to: {e}")))?;
    }
    Ok(stop)
}

fn show(report: &Report) {
    let machine = &report.machine;
    let facts = [
        machine.system.clone(),
        machine.processor.clone(),
        output::counted(machine.cores as u64, "core"),
        size(machine.memory_bytes),
        machine.file_system.clone(),
    ];
    let known: Vec<String> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
    say(format_args!(
        "jobsled {}: {}",
        report.version,
        known.join(", ")
    ));
    if machine.is_in_memory() {
        say(
            "This directory lies in memory: no disk was measured, and nothing in it survives a power cut.",
        );
    } else {
        say(format_args!("{}.", report.class));
    }
    say(format_args!(
        "Payloads of {} bytes; medians of {}. Read the ratios: machines are never alone.\n",
        report.payload_bytes,
        output::counted(report.rounds as u64, "round")
    ));
    show_rates(&report.enqueue, &report.through);
    say("");
    show_times(report);
    say("");
    show_costs(&report.through);
    show_opening(&report.opening);
}

fn show_rates(rates: &[Rates], through: &Through) {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("DURABLE JOBS A SECOND", Align::Left),
        right("RAW FILE"),
        right("PREALLOCATED"),
        right("JOURNAL"),
        right("ENGINE"),
        right("OF JOURNAL"),
    ]);
    for row in rates {
        let threads = output::counted(row.threads as u64, "thread");
        let name = match row.batch {
            1 => format!("enqueue by {threads}"),
            jobs => format!("batches of {}", count(jobs)),
        };
        table.row(
            &[
                name,
                rate(row.raw_growing),
                rate(row.raw_preallocated),
                rate(row.bare),
                rate(row.engine),
                share(row.engine, row.bare),
            ],
            None,
        );
    }
    table.row(
        &[
            "enqueued, run and done".to_owned(),
            String::new(),
            String::new(),
            rate(through.bare),
            rate(through.engine),
            share(through.engine, through.bare),
        ],
        None,
    );
    table.print();
}

fn show_times(report: &Report) {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("MILLISECONDS, ONE AT A TIME", Align::Left),
        right("P50"),
        right("P99"),
        right("P99.9"),
    ]);
    let rows = [
        ("append to the journal, synced", report.append),
        ("enqueue until the handler begins", report.pick_up),
        ("enqueue until it is done", report.done),
    ];
    for (name, times) in rows {
        let Percentiles {
            p50_us,
            p99_us,
            p999_us,
            ..
        } = times;
        let mut cells = vec![name.to_owned()];
        cells.extend([p50_us, p99_us, p999_us].map(|us| format!("{:.2}", us / 1e3)));
        table.row(&cells, None);
    }
    table.print();
}

fn show_costs(through: &Through) {
    let mut facts = vec![format!(
        "{:.2} waits for the disk",
        through.syncs_per_job * 1_000.0
    )];
    if let Some(bytes) = through.bytes_written_per_job {
        facts.push(format!("{} written", size(whole(bytes * 1_000.0))));
    }
    facts.push(format!(
        "{} on disk after {} of them",
        size(through.bytes_on_disk),
        count(through.jobs)
    ));
    say(format_args!(
        "1,000 jobs, run and done:  {}",
        facts.join(", ")
    ));
}

fn show_opening(opening: &Opening) {
    let mut facts = vec![
        format!("{:.0} ms", opening.open_ms),
        format!("the first begins {:.1} ms later", opening.first_start_ms),
        format!("reading the journal alone takes {:.0} ms", opening.scan_ms),
    ];
    facts.extend(
        opening
            .resident_bytes
            .map(|bytes| format!("{} in memory", size(bytes))),
    );
    say(format_args!(
        "opening {} waiting jobs:  {}",
        count(opening.jobs),
        facts.join(", ")
    ));
}

fn rate(rate: f64) -> String {
    count(whole(rate))
}

fn share(part: f64, of: f64) -> String {
    format!("{:.0} %", part / of * 100.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures that are shown, neither negative nor beyond 64 bits"
)]
fn whole(figure: f64) -> u64 {
    figure.round() as u64
}
