//! What a life says while it goes on: each mark is one write, so that it has one place in the record.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use jobsled::{Cancel, Changed, Delete, Engine, Error, JobDetails, Query, State};

use super::work::{WRONG_CONTENT, Work, output};

/// Larger payloads have files of their own.
const FILE_FROM: u64 = 24 << 10;

/// Where marks go. Any thread may.
#[derive(Debug)]
pub(super) struct Marks(File);

impl Marks {
    pub(super) fn create(path: &Path) -> Marks {
        Marks(File::create(path).unwrap())
    }

    /// One mark: a line, or several that belong together.
    pub(super) fn say(&self, mark: &str) {
        let mark = format!("{mark}\n");
        // A part of a mark would be believed, and nothing but a full disk makes the call write less.
        assert_eq!((&self.0).write(mark.as_bytes()).unwrap(), mark.len());
    }

    /// All that is in the store, with whatever can be read of it.
    pub(super) fn say_all(&self, engine: &Engine) -> Result<(), Error> {
        let mut text = "found\n".to_owned();
        for job in Query::details(&engine.jobs())? {
            writeln!(text, "{}", line(engine, &job)?).unwrap();
        }
        for queue in engine.stats()?.queues {
            let paused = if queue.paused { "paused" } else { "open" };
            writeln!(text, "queue {} {paused}", queue.name).unwrap();
        }
        self.say(&format!("{text}all"));
        Ok(())
    }
}

fn line(engine: &Engine, job: &JobDetails) -> Result<String, Error> {
    let info = &job.info;
    let number = number_of(job);
    Ok(format!(
        "job {} {number} {} {} {} {} {} {} {} {}",
        info.id,
        info.queue,
        info.state.name(),
        info.attempt,
        info.crashes,
        info.priority.0,
        info.due_ms,
        payload(engine, job, number)?,
        output_of(engine, job, number)?,
    ))
}

/// The number that a job was handed in under: in its metadata, or, for a command, in its key.
fn number_of(job: &JobDetails) -> u64 {
    let named = job.metadata.iter().find(|(name, _)| name == "number");
    let key = job
        .info
        .key
        .as_deref()
        .and_then(|key| key.strip_prefix('n'));
    let text = named.map(|(_, value)| value.as_str()).or(key);
    text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

/// The payload's length as it was handed in, `none` if it is gone, or what is wrong with it.
fn payload(engine: &Engine, job: &JobDetails, number: u64) -> Result<String, Error> {
    if job.reason == WRONG_CONTENT {
        return Ok("wrong-in-handler".to_owned());
    }
    if job.info.state == State::Completed {
        return Ok("none".to_owned());
    }
    // The others are looked at by their handlers.
    let bytes = job.payload_bytes.unwrap_or(0);
    let is_looked_at = !matches!(job.info.state, State::Ready | State::Running)
        || bytes > FILE_FROM
        || number.is_multiple_of(8);
    if !is_looked_at {
        return Ok("unread".to_owned());
    }
    let stored = match engine.payload(job.info.id) {
        Ok(Some(stored)) => stored,
        Ok(None) => return Ok("none".to_owned()),
        Err(error @ Error::Damaged { .. }) => {
            return Ok(format!("unreadable:{error}").replace([' ', '\n'], "_"));
        }
        Err(error) => return Err(error),
    };
    if job.info.kind == "command" {
        let is_whole = String::from_utf8_lossy(stored.bytes()).contains(&format!("\"n{number}\""));
        return Ok(if is_whole { "0" } else { "another" }.to_owned());
    }
    let work = jobsled::rkyv::from_bytes::<Work, jobsled::rkyv::rancor::Error>(stored.bytes());
    Ok(match work {
        Ok(work) if work.number == number && work.is_whole() => work.ballast.len().to_string(),
        _ => "another".to_owned(),
    })
}

fn output_of(engine: &Engine, job: &JobDetails, number: u64) -> Result<&'static str, Error> {
    if job.info.state != State::Completed || !number.is_multiple_of(8) {
        return Ok("-");
    }
    let stored = engine.output(job.info.id)?;
    let is_well = match (&stored, job.info.kind.as_str()) {
        (Some(stored), "work") => stored.bytes() == output(number).to_le_bytes(),
        (stored, _) => stored.is_some(),
    };
    Ok(if is_well { "well" } else { "wrong" })
}

pub(super) fn cancel_word(answer: Cancel) -> &'static str {
    match answer {
        Cancel::Cancelled => "cancelled",
        Cancel::AskedToStop => "asked-to-stop",
        Cancel::Unknown => "unknown",
        _ => "already-finished",
    }
}

pub(super) fn delete_word(answer: Delete) -> &'static str {
    match answer {
        Delete::Deleted => "deleted",
        Delete::IsRunning => "is-running",
        _ => "unknown",
    }
}

pub(super) fn changed_word(answer: Changed) -> &'static str {
    match answer {
        Changed::Done => "done",
        Changed::Unknown => "unknown",
        _ => "refused",
    }
}
