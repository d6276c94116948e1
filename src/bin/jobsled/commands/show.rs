//! `jobsled show`: all that is known of a job.

use jobsled::control::JobView;
use serde_json::Value;

use super::{Failure, Verdict};
use crate::output::{self, clean};
use crate::store::Session;
use crate::time;

pub(crate) fn run(session: &Session, ids: &[u64]) -> Result<Verdict, Failure> {
    let mut open = session.enter()?;
    let mut missing = Vec::new();
    for (n, &id) in ids.iter().enumerate() {
        let Some(job) = open.job(id)? else {
            missing.push(id.to_string());
            continue;
        };
        if session.json {
            output::json(&job);
        } else {
            if n > 0 {
                output::say("");
            }
            show(&job);
        }
    }
    unknown(session, &missing)
}

/// The failure that some jobs are not there, if so.
pub(super) fn unknown(session: &Session, missing: &[String]) -> Result<Verdict, Failure> {
    if missing.is_empty() {
        return Ok(Verdict::Well);
    }
    let (jobs, are) = if missing.len() == 1 {
        ("job", "is")
    } else {
        ("jobs", "are")
    };
    Err(Failure::failed(format!(
        "{jobs} {} {are} not in the store (any more): `jobsled ls` shows what is (store {})",
        missing.join(", "),
        session.store.display()
    )))
}

/// Why a job that failed or was cancelled came to that.
pub(super) fn why_ended(job: &JobView) -> String {
    let last = job
        .errors
        .last()
        .map(|e| e.error.as_str())
        .unwrap_or_default();
    match (job.state.as_str(), job.dead_reason.as_deref()) {
        ("dead", Some("attempts used up")) => last.to_owned(),
        ("dead", Some(reason)) if job.reason.is_empty() => reason.to_owned(),
        ("dead", Some(reason)) => format!("{reason}: {}", job.reason),
        ("cancelled", _) => job.reason.clone(),
        ("completed", _) => String::new(),
        _ => last.to_owned(),
    }
}

fn show(job: &JobView) {
    let now_ms = time::now_ms();
    let line = |name: &str, value: &str| output::say(format_args!("{name:<12}{}", clean(value)));
    let time = |name: &str, ms: i64| {
        let (shown, away) = (time::shown(ms), time::from_now(ms, now_ms));
        output::say(format_args!("{name:<12}{shown} ({away})"));
    };
    line("job", &job.id.to_string());
    line("what", &super::ls::what(job));
    let why = why_ended(job);
    let state = super::ls::state(job);
    if why.is_empty() {
        line("state", state);
    } else {
        line("state", &format!("{state}: {why}"));
    }
    if job.parked {
        line(
            "",
            "no program that has the store open runs jobs of this kind",
        );
    }
    line("kind", &job.kind);
    line("queue", &job.queue);
    line("priority", &job.priority.to_string());
    line(
        "attempts",
        &format!(
            "{} begun, {} of {} failed",
            job.attempt, job.failures, job.attempts
        ),
    );
    if job.crashes > 0 {
        line("crashes", &job.crashes.to_string());
    }
    if let Some(key) = &job.key {
        line("key", key);
    }
    time("added", job.enqueued_at_ms);
    if job.finished_at_ms.is_none() && job.claimed_at_ms.is_none() {
        time("due", job.due_ms);
    }
    for (name, at) in [
        ("started", job.claimed_at_ms),
        ("ended", job.finished_at_ms),
        ("expires", job.expires_at_ms),
    ] {
        at.inspect(|at| time(name, *at));
    }
    if job.progress.is_some() {
        line("progress", &super::ls::result(job));
    }
    let more = job.metadata.iter().filter(|(name, _)| *name != "command");
    more.for_each(|(name, value)| line("metadata", &format!("{name} = {value}")));
    for error in &job.errors {
        line(
            "error",
            &format!("attempt {}: {}", error.attempt, error.error),
        );
    }
    job.payload
        .as_ref()
        .inspect(|payload| line("payload", &payload.to_string()));
    job.output.as_ref().inspect(|output| show_output(output));
}

/// A command's report in lines; any other output as it is.
fn show_output(output: &Value) {
    let line = |name: &str, value: &str| output::say(format_args!("{name:<12}{}", clean(value)));
    let number = |name: &str| output.get(name).and_then(Value::as_u64);
    let (Some(begun), Some(ended)) = (number("started_at_ms"), number("ended_at_ms")) else {
        return line("output", &output.to_string());
    };
    line("took", &time::short(ended.saturating_sub(begun)));
    if let (Some(user), Some(system)) = (number("user_ms"), number("system_ms")) {
        let (user, system) = (time::short(user), time::short(system));
        line("processor", &format!("{user} user, {system} system"));
    }
    if let Some(bytes) = number("max_rss_bytes") {
        line("memory", &output::size(bytes));
    }
    if let Some(trouble) = output.get("output_file_error").and_then(Value::as_str) {
        line("output file", trouble);
    }
    let printed = output.get("output");
    let text = printed.and_then(|printed| printed.get("text")?.as_str());
    let last = text
        .and_then(|text| text.trim_end().lines().last())
        .unwrap_or_default();
    if !last.is_empty() {
        line("last line", last);
    }
}
