//! `jobsled ls`: jobs, a line each.

use std::collections::VecDeque;

use jobsled::control::{Call, JobView};

use super::show::why_ended;
use super::{Failure, Verdict};
use crate::args::LsArgs;
use crate::output::{self, Align, Colour, Table, clean};
use crate::store::Session;
use crate::time;

pub(crate) fn run(session: &Session, args: &LsArgs) -> Result<Verdict, Failure> {
    let mut open = session.enter()?;
    let last = args.last.unwrap_or(usize::MAX);
    let mut jobs = VecDeque::new();
    let mut after = Some(0);
    while let Some(from) = after {
        let page = open.jobs(&Call::Jobs {
            state: args.state.map(|state| state.name().to_owned()),
            kind: args.kind.clone(),
            queue: args.queue.clone(),
            after: from,
            limit: None,
        })?;
        after = page.next;
        jobs.extend(page.jobs);
        let extra = jobs.len().saturating_sub(last);
        jobs.drain(..extra);
    }
    if session.json {
        jobs.iter().for_each(output::json);
    } else if jobs.is_empty() {
        output::note("No jobs.");
    } else {
        show(&jobs);
    }
    Ok(Verdict::Well)
}

fn show(jobs: &VecDeque<JobView>) {
    let now_ms = time::now_ms();
    let mut table = Table::new(&[
        ("ID", Align::Right),
        ("STATE", Align::Left),
        ("QUEUE", Align::Left),
        ("PRIO", Align::Right),
        ("TRIES", Align::Right),
        ("WHEN", Align::Left),
        ("WHAT", Align::Left),
        ("RESULT", Align::Left),
    ]);
    for job in jobs {
        let state = state(job);
        table.row(
            &[
                job.id.to_string(),
                state.to_owned(),
                job.queue.clone(),
                job.priority.to_string(),
                job.attempt.to_string(),
                when(job, now_ms),
                what(job),
                result(job),
            ],
            colour(&job.state),
        );
    }
    table.print();
}

pub(super) fn state(job: &JobView) -> &str {
    if job.parked { "parked" } else { &job.state }
}

pub(super) fn colour(state: &str) -> Option<Colour> {
    match state {
        "running" => Some(Colour::Green),
        "dead" => Some(Colour::Red),
        "completed" | "cancelled" => Some(Colour::Grey),
        _ => None,
    }
}

/// The time that matters in its state.
pub(super) fn when(job: &JobView, now_ms: i64) -> String {
    match (job.finished_at_ms, job.claimed_at_ms) {
        (Some(at), _) => time::from_now(at, now_ms),
        (None, Some(at)) => format!("for {}", time::short(now_ms.abs_diff(at))),
        (None, None) if job.state == "ready" => {
            format!(
                "since {}",
                time::short(now_ms.abs_diff(job.due_ms.min(now_ms)))
            )
        }
        (None, None) => time::from_now(job.due_ms, now_ms),
    }
}

/// The command, or for a job of another kind, that.
pub(super) fn what(job: &JobView) -> String {
    clean(job.metadata.get("command").unwrap_or(&job.kind))
}

/// What became of it, or how far it is.
pub(super) fn result(job: &JobView) -> String {
    if let Some(progress) = &job.progress {
        let note = clean(&progress.note);
        return match (progress.done, progress.total) {
            (0, 0) => note,
            (done, 0) => format!("{done} {note}"),
            (done, total) => format!("{} % {note}", done.saturating_mul(100) / total),
        }
        .trim()
        .to_owned();
    }
    clean(&why_ended(job))
}
