//! `jobsled cancel`, `retry`, `rm` and `set`: an answer for each job.

use std::fmt::Write;

use jobsled::State;
use jobsled::control::Call;
use serde_json::json;

use super::{Failure, Verdict};
use crate::args::{CancelArgs, RetryArgs, SetArgs};
use crate::output;
use crate::store::{Open, Session};
use crate::time::{Span, When};

/// Jobs that one call names, where there may be any number.
const AT_ONCE: usize = 10_000;

pub(crate) fn cancel(session: &Session, args: CancelArgs) -> Result<Verdict, Failure> {
    let CancelArgs { ids, reason } = args;
    let mut open = session.enter()?;
    let call = Call::Cancel {
        ids: ids.clone(),
        reason,
    };
    let answers: Vec<String> = open.call(&call)?;
    tell(session, &ids, &answers)
}

pub(crate) fn retry(session: &Session, args: &RetryArgs) -> Result<Verdict, Failure> {
    let mut open = session.enter()?;
    let ids = if args.dead {
        dead(&mut open)?
    } else {
        args.ids.clone()
    };
    let mut answers: Vec<String> = Vec::new();
    for some in ids.chunks(AT_ONCE) {
        let ids = some.to_vec();
        answers.extend(open.call::<Vec<String>>(&Call::Retry { ids })?);
    }
    if args.dead && !session.json {
        // One that is alive again by now needs nothing.
        let done = answers.iter().filter(|answer| is_done(answer)).count();
        let jobs = output::counted(done as u64, "dead job");
        output::say(format_args!("{jobs} to run again."));
        return Ok(Verdict::Well);
    }
    tell(session, &ids, &answers)
}

pub(crate) fn delete(session: &Session, ids: &[u64]) -> Result<Verdict, Failure> {
    let mut open = session.enter()?;
    let answers: Vec<String> = open.call(&Call::Delete { ids: ids.to_vec() })?;
    tell(session, ids, &answers)
}

/// Several changes of a job are several calls; the first that is refused is its answer.
pub(crate) fn set(session: &Session, args: SetArgs) -> Result<Verdict, Failure> {
    let ids = args.ids;
    let mut calls = Vec::new();
    if let Some(queue) = &args.queue {
        // Of no job: a bad name is refused before anything is changed.
        calls.push(Call::Move {
            ids: Vec::new(),
            queue: queue.clone(),
        });
    }
    let (at_ms, after_ms) = (args.at.map(|When(ms)| ms), args.after.map(Span::ms));
    if at_ms.is_some() || after_ms.is_some() {
        calls.push(Call::Reschedule {
            ids: ids.clone(),
            at_ms,
            after_ms,
        });
    }
    if let Some(priority) = args.priority {
        calls.push(Call::SetPriority {
            ids: ids.clone(),
            priority,
        });
    }
    // Last: where it goes it may start at once, and then it cannot be changed any more.
    if let Some(queue) = args.queue {
        calls.push(Call::Move {
            ids: ids.clone(),
            queue,
        });
    }
    if calls.is_empty() {
        return Err(Failure::usage(
            "set what? Give --priority, --in or --at, or --queue",
        ));
    }
    let mut open = session.enter()?;
    let mut answers = vec!["done".to_owned(); ids.len()];
    for call in calls {
        let more: Vec<String> = open.call(&call)?;
        for (answer, next) in answers.iter_mut().zip(more) {
            if answer == "done" {
                *answer = next;
            }
        }
    }
    tell(session, &ids, &answers)
}

fn dead(open: &mut Open<'_>) -> Result<Vec<u64>, Failure> {
    let mut ids = Vec::new();
    let mut after = Some(0);
    while let Some(from) = after {
        let page = open.jobs(&Call::Jobs {
            state: Some(State::Dead.name().to_owned()),
            kind: None,
            queue: None,
            after: from,
            limit: None,
        })?;
        ids.extend(page.jobs.iter().map(|job| job.id));
        after = page.next;
    }
    Ok(ids)
}

/// Prints an answer for each job. Not well if one was refused.
fn tell(session: &Session, ids: &[u64], answers: &[String]) -> Result<Verdict, Failure> {
    let mut refused = String::new();
    for (id, answer) in ids.iter().zip(answers) {
        if session.json {
            output::say(json!({ "id": id, "answer": answer }));
        }
        let words = in_words(answer);
        if is_done(answer) {
            if !session.json {
                output::say(format_args!("Job {id} {words}."));
            }
        } else {
            let comma = if refused.is_empty() { "" } else { "; " };
            write!(refused, "{comma}job {id} {words}")
                .map_err(|e| Failure::failed(e.to_string()))?;
        }
    }
    if refused.is_empty() {
        Ok(Verdict::Well)
    } else if session.json {
        Ok(Verdict::NotWell)
    } else {
        let store = session.store.display();
        Err(Failure::failed(format!("{refused} (store {store})")))
    }
}

fn is_done(answer: &str) -> bool {
    matches!(answer, "done" | "cancelled" | "asked_to_stop" | "deleted")
}

pub(super) fn in_words(answer: &str) -> String {
    match answer {
        "done" => "is changed".to_owned(),
        "cancelled" => "is cancelled".to_owned(),
        "asked_to_stop" => "runs and is asked to stop".to_owned(),
        "deleted" => "is deleted".to_owned(),
        "running" => "runs: cancel it first".to_owned(),
        "payload_gone" => {
            "has completed, and what it was to do is not kept: add it again".to_owned()
        }
        "unknown" => "is not in the store (any more)".to_owned(),
        other => match other.strip_prefix("already_") {
            Some(state) => format!("is {state} already"),
            None => format!("answers `{other}`"),
        },
    }
}
