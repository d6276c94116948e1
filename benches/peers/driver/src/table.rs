//! The tables, as markdown: one for each durability class, because only within one are figures to be compared.

use std::collections::BTreeMap;
use std::fmt::Write;

use contest::{Class, Commit, Sort};

use crate::Args;
use crate::figures::{Counted, Figure, MEASURES};
use crate::programs::Skipped;

const HEAD: &str = "\
| peer | set-up | enqueue by 1 | by 8 | by 64 | batches of 1,000 | enqueued, run and done |
|---|---|---|---|---|---|---|
";

pub fn text(figures: &[Figure], skipped: &[Skipped], args: &Args) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Medians of {} rounds, {} s each; 256-byte payloads; 2 workers and at most {} jobs to completion. Each cell: \
         jobs a second / syncs per job / part of Jobsled's rate. Ranges: `sync_file_range`, which is no sync.",
        args.rounds,
        args.seconds,
        grouped(args.jobs)
    );
    for (class, title) in [
        (Class::C2, "C2: survives a power cut"),
        (
            Class::C1,
            "C1: survives the end of the process (Jobsled: the figures of C2)",
        ),
        (Class::C0, "C0: in memory, or written later"),
    ] {
        let rows = rows(figures, class);
        if !rows.is_empty() {
            let _ = write!(text, "\n{title}\n\n{HEAD}{rows}");
        }
    }
    text.push_str(&notes(figures, skipped));
    text.push_str(&aims(figures));
    text
}

fn rows(figures: &[Figure], class: Class) -> String {
    let first = figures
        .iter()
        .filter(|figure| figure.line.class == class && figure.line.measure == MEASURES[0]);
    let mut rows = String::new();
    for Figure { line, .. } in first {
        let _ = write!(rows, "| {} {} | {} |", line.peer, line.version, line.setup);
        for measure in MEASURES {
            let figure = figures.iter().find(|figure| {
                let other = &figure.line;
                other.measure == measure && (&other.peer, &other.setup) == (&line.peer, &line.setup)
            });
            let _ = write!(rows, " {} |", figure.map_or_else(String::new, cell));
        }
        rows.push('\n');
    }
    rows
}

fn cell(figure: &Figure) -> String {
    if figure.line.error.is_some() {
        return "failed".to_owned();
    }
    if figure.line.unsupported.is_some() {
        return "–".to_owned();
    }
    let ratio = figure
        .of_jobsled
        .map_or_else(|| "?".to_owned(), |ratio| format!("{ratio:.3}"));
    format!(
        "{} / {} / {ratio}",
        rate(figure.line.jobs_per_second),
        syncs(&figure.counted)
    )
}

fn syncs(counted: &Counted) -> String {
    let Some(whole) = counted.syncs_per_job else {
        return "skipped".to_owned();
    };
    let mut text = format!("{whole:.3}");
    if let Some(ranges) = counted.range_syncs_per_job.filter(|ranges| *ranges > 0.0) {
        let _ = write!(text, " + {ranges:.3} ranges");
    }
    if counted.syncs.is_some_and(|syncs| syncs.uncounted > 0) {
        text.push_str(" + more that are not counted");
    }
    text
}

/// Whatever is not a figure, with its reason; one line for all measures that have the same.
fn notes(figures: &[Figure], skipped: &[Skipped]) -> String {
    let mut measures: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for figure in figures {
        let line = &figure.line;
        let rounds = figure.runs.len();
        let failed = line.error.iter();
        let failed = failed.map(|why| format!("failed after {rounds} good rounds: {why}"));
        let unsupported = line
            .unsupported
            .iter()
            .map(|why| format!("not there: {why}"));
        let uncounted = figure.counted.syncs_skipped.iter();
        let uncounted = uncounted.map(|why| format!("syncs are not counted: {why}"));
        for why in failed.chain(unsupported).chain(uncounted) {
            let who = format!("{} {}", line.peer, line.setup);
            measures.entry((who, why)).or_default().push(&line.measure);
        }
    }
    let skipped = skipped.iter();
    let mut notes: Vec<String> = skipped
        .map(|Skipped { peer, why }| format!("- {peer}: skipped: {why}\n"))
        .collect();
    let of_measures = measures.into_iter();
    notes.extend(of_measures.map(|((who, why), measures)| {
        let measures = measures.join(", ");
        format!("- {who}, {measures}: {why}\n")
    }));
    if notes.is_empty() {
        return String::new();
    }
    format!("\nNot measured:\n\n{}", notes.concat())
}

/// Jobsled's aims among those that survive a power cut.
fn aims(figures: &[Figure]) -> String {
    let mut text = "\nAims, class C2:\n\n".to_owned();
    let enqueue = |is_meant: &dyn Fn(&Figure) -> bool, name, aim| {
        aim_line(figures, "enqueue-64", is_meant, name, aim)
    };
    let each = |figure: &Figure| figure.line.commit == Commit::Each;
    text.push_str(&enqueue(
        &each,
        "enqueue by 64: the fastest that commits each job by itself",
        5.0,
    ));
    let group = |figure: &Figure| {
        figure.line.peer == "persistent-queue" && figure.line.commit == Commit::Group
    };
    text.push_str(&enqueue(
        &group,
        "enqueue by 64: persistent-queue's group mode",
        1.2,
    ));
    let engine = |figure: &Figure| figure.line.sort == Sort::Engine;
    let name = "enqueued, run and done: the fastest job engine";
    text.push_str(&aim_line(figures, "through", &engine, name, 10.0));
    text
}

fn aim_line(
    figures: &[Figure],
    measure: &str,
    is_meant: &dyn Fn(&Figure) -> bool,
    name: &str,
    aim: f64,
) -> String {
    let measured = figures.iter().filter(|figure| {
        figure.line.class == Class::C2 && figure.line.measure == measure && figure.is_measured()
    });
    let (jobsled, others): (Vec<_>, Vec<_>) = measured.partition(|figure| figure.is_jobsled());
    let others = others.into_iter().filter(|figure| is_meant(figure));
    let by_rate =
        |a: &&Figure, b: &&Figure| a.line.jobs_per_second.total_cmp(&b.line.jobs_per_second);
    match (jobsled.first(), others.max_by(by_rate)) {
        (Some(jobsled), Some(other)) => {
            let times = jobsled.line.jobs_per_second / other.line.jobs_per_second;
            let (peer, setup) = (&other.line.peer, &other.line.setup);
            let is_met = if times >= aim { "met" } else { "missed" };
            format!(
                "- {name} ({peer} {setup}): Jobsled has {times:.2} times as much, aim {aim}: {is_met}\n"
            )
        }
        _ => format!("- {name}: not measured\n"),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are rounded, and not negative"
)]
fn rate(rate: f64) -> String {
    grouped(rate.round() as u64)
}

/// With a comma before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
