//! `jobsled repair`: a new store of what is left of a damaged one.

use std::path::Path;

use jobsled::control::check_owner;
use jobsled::{JournalEnd, RepairReport};
use serde_json::{Value, json};

use super::{Failure, Verdict};
use crate::output::{self, Align, Table, clean, counted};
use crate::store::Session;

/// Rows of a list that people are shown; `--json` has all.
const ROWS_MAX: usize = 20;

pub(crate) fn run(session: &Session, to: &Path) -> Result<Verdict, Failure> {
    check_owner(&session.store).map_err(|fault| session.failure(&fault))?;
    let made = jobsled::repair(&session.store, to);
    let report = made.map_err(|error| session.failure(&error.into()))?;
    if session.json {
        output::json(&as_json(&report));
    } else {
        tell(to, &report);
    }
    Ok(if report.is_whole() {
        Verdict::Well
    } else {
        Verdict::NotWell
    })
}

fn tell(to: &Path, report: &RepairReport) {
    let (jobs, to) = (counted(report.jobs(), "job"), to.display());
    if report.is_whole() {
        output::say(format_args!("{jobs} saved in {to}: all that there were."));
        return;
    }
    output::say(format_args!("{jobs} saved in {to}."));
    match (report.end, report.witnessed) {
        (JournalEnd::Missing, Some(group)) => output::say(format_args!(
            "The end of the journal is missing: group {group} was acknowledged, {} is the newest found.",
            report.group
        )),
        (JournalEnd::Missing, None) => output::say("The end of the journal is missing."),
        (JournalEnd::Unknown, _) => output::say(
            "The witness cannot be read: whether the end of the journal is missing, nobody knows.",
        ),
        _ => {}
    }
    if !report.unknown_ids.is_empty() {
        let shown = report.unknown_ids.iter().take(ROWS_MAX);
        let ids: Vec<String> = shown
            .map(|(first, last)| {
                if first == last {
                    first.to_string()
                } else {
                    format!("{first} to {last}")
                }
            })
            .collect();
        let more = more(report.unknown_ids.len());
        output::say(format_args!(
            "Nothing is known of the ids {}{more}: lost, deleted long ago, or never given out.",
            ids.join(", ")
        ));
    }
    tell_jobs(report);
}

fn tell_jobs(report: &RepairReport) {
    let mut table = Table::new(&[
        ("ID", Align::Right),
        ("STATE", Align::Left),
        ("KIND", Align::Left),
        ("WHAT", Align::Left),
    ]);
    let mut row = |cells: [String; 4]| table.row(&cells, None);
    for lost in report.lost.iter().take(ROWS_MAX) {
        let kind = lost.kind.as_deref().map_or_else(String::new, clean);
        row([
            lost.id.to_string(),
            "lost".to_owned(),
            kind,
            clean(&lost.known),
        ]);
    }
    for file in report
        .lost_files
        .iter()
        .filter(|file| file.what == "output")
        .take(ROWS_MAX)
    {
        let what = format!("its output is lost: {}", file.reason);
        row([file.id.to_string(), "saved".to_owned(), String::new(), what]);
    }
    for job in report.uncertain.iter().take(ROWS_MAX) {
        let what = if job.stopped {
            "may have run, and must not run twice"
        } else {
            "as it was last seen; it may have moved on"
        };
        row([
            job.id.to_string(),
            job.state.to_string(),
            clean(&job.kind),
            what.to_owned(),
        ]);
    }
    if report.lost.len() + report.lost_files.len() + report.uncertain.len() > 0 {
        output::say("");
        table.print();
    }
    for (what, count) in [
        ("lost", report.lost.len()),
        ("doubtful", report.uncertain.len()),
    ] {
        if count > ROWS_MAX {
            let hidden = counted((count - ROWS_MAX) as u64, "more job");
            output::say(format_args!("and {hidden} {what}: `--json` tells which"));
        }
    }
}

fn more(count: usize) -> String {
    match count.saturating_sub(ROWS_MAX) {
        0 => String::new(),
        left => format!(" and {left} more ranges"),
    }
}

fn as_json(report: &RepairReport) -> Value {
    let states = jobsled::State::ALL.into_iter();
    let counts = states.filter(|state| report.count(*state) > 0);
    let counts: serde_json::Map<String, Value> = counts
        .map(|state| (state.to_string(), report.count(state).into()))
        .collect();
    let uncertain = report.uncertain.iter().map(|job| {
        json!({"id": job.id.number(), "kind": job.kind, "state": job.state.to_string(), "stopped": job.stopped})
    });
    let lost = report
        .lost
        .iter()
        .map(|job| json!({"id": job.id.number(), "kind": job.kind, "known": job.known}));
    let files = report
        .lost_files
        .iter()
        .map(|file| json!({"id": file.id.number(), "what": file.what, "reason": file.reason}));
    json!({
        "whole": report.is_whole(),
        "jobs": report.jobs(),
        "states": counts,
        "at_ms": report.at_ms,
        "group": report.group,
        "witnessed": report.witnessed,
        "end": match report.end {
            JournalEnd::Whole => "whole",
            JournalEnd::Missing => "missing",
            _ => "unknown",
        },
        "entries_in_bytes": report.entries_in_bytes,
        "entries_by_sled": report.entries_by_sled,
        "unreadable_bytes": report.unreadable_bytes,
        "gaps": report.gaps,
        "uncertain": uncertain.collect::<Vec<_>>(),
        "lost": lost.collect::<Vec<_>>(),
        "unknown_ids": report.unknown_ids,
        "lost_files": files.collect::<Vec<_>>(),
        "payload_files": report.payload_files,
        "next_id": report.next_id,
    })
}
