//! The line of a job, taken apart and checked.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::job::{
    Content, ERROR_BYTES_MAX, ERRORS_KEPT_MAX, Expiry, INLINE_OUTPUT_MAX, INLINE_PAYLOAD_MAX,
    JobId, PayloadRef, Policy, Priority, REASON_BYTES_MAX, State, check_key, check_metadata,
    check_name,
};
use crate::ledger::{Event, History, NewRecord, Payload, Phase, RootRecord, Standing};

use super::import::words;
use super::lines::{Base64, ErrorLine, FileLine, HistoryLine, JobLine, LeaseLine};

/// All of a job, in the form in which the journal has it.
pub(super) struct JobParts<'l> {
    line: &'l JobLine<'l>,
    policy: Policy,
    payload: Option<Stored<'l>>,
    output: Option<Stored<'l>>,
    standing: Standing,
}

/// Bytes, and the file that they belong into.
struct Stored<'l> {
    bytes: &'l [u8],
    file: Option<PayloadRef>,
}

/// A file to be written.
pub(super) struct Given<'p> {
    pub(super) file: &'p PayloadRef,
    pub(super) bytes: &'p [u8],
}

impl<'l> JobParts<'l> {
    /// Checks a line as an enqueue would, and that it fits itself and the root record. The text says what is
    /// wrong.
    pub(super) fn of(line: &'l JobLine<'l>, root: &RootRecord) -> Result<JobParts<'l>, String> {
        check_names(line)?;
        let phase = phase(line)?;
        let payload = stored(
            "payload",
            line.payload,
            line.payload_base64.as_ref(),
            line.payload_file.as_ref(),
            INLINE_PAYLOAD_MAX,
        )?;
        if payload.is_some() == (phase == Phase::Completed) {
            return Err("a job has a payload if and only if it is not completed".to_owned());
        }
        let output = line.history.as_ref().map(check_history).transpose()?;
        let lease = line.lease.as_ref().map(LeaseLine::record);
        if lease.is_some() != (phase == Phase::Running) {
            return Err("a job has a `lease` if and only if it is running".to_owned());
        }
        let fits = |claim, epoch| claim > 0 && claim < root.next_claim && epoch <= root.epoch;
        if lease.is_some_and(|lease| !fits(lease.claim, lease.epoch)) {
            return Err("its lease is of a claim or epoch that never was".to_owned());
        }
        let standing = Standing {
            phase,
            attempt: line.attempt,
            failures: line.failures,
            crashes: line.crashes,
            finished_at_ms: line.finished_at_ms.unwrap_or(0),
            lease,
        };
        Ok(JobParts {
            line,
            policy: policy(line)?,
            payload,
            output: output.flatten(),
            standing,
        })
    }

    /// Payload and output, if they belong into files.
    pub(super) fn files(&self) -> impl Iterator<Item = Given<'_>> {
        let stored = self.payload.iter().chain(&self.output);
        stored.filter_map(|stored| {
            let bytes = stored.bytes;
            stored.file.as_ref().map(|file| Given { file, bytes })
        })
    }

    pub(super) fn event(&self) -> Event<'_> {
        let line = self.line;
        let expiry = |at_ms| Expiry {
            at_ms,
            relative: line.expiry_is_span,
        };
        let payload = match &self.payload {
            None => Payload::Gone,
            Some(Stored {
                file: Some(file), ..
            }) => Payload::File(*file),
            Some(stored) => Payload::Inline(stored.bytes),
        };
        let job = NewRecord {
            id: JobId::from_number(line.id),
            kind: &line.kind,
            version: line.version,
            encoding: line.encoding,
            queue: &line.queue,
            priority: Priority(line.priority),
            enqueued_at_ms: line.enqueued_at_ms,
            due_ms: line.due_ms,
            relative: line.due_is_span,
            expires: line.expires_at_ms.map(expiry),
            key: line.key.as_deref().zip(line.key_until_ms),
            metadata: line.metadata.iter().map(|(n, v)| (&**n, &**v)).collect(),
            policy: self.policy.clone(),
            payload,
        };
        Event::Carried(job, self.standing, self.history())
    }

    fn history(&self) -> Option<History> {
        let history = self.line.history.as_ref()?;
        let output = self.output.as_ref().map(|stored| match stored.file {
            Some(file) => Content::File(Box::new(file)),
            None => Content::Inline(stored.bytes.to_vec()),
        });
        Some(History {
            errors: history.errors.iter().map(ErrorLine::error).collect(),
            reason: history.reason.clone().into_owned(),
            output,
        })
    }
}

fn check_names(line: &JobLine<'_>) -> Result<(), String> {
    let named = check_name("kind", &line.kind)
        .and_then(|()| check_name("queue name", &line.queue))
        .and_then(|()| line.key.as_deref().map_or(Ok(()), check_key));
    named.map_err(|e| words(&e))?;
    if line.key.is_some() != line.key_until_ms.is_some() {
        return Err("`key` and `key_until_ms` go together".to_owned());
    }
    // These numbers stand for "none" in the journal.
    if line.expires_at_ms == Some(i64::MIN) || line.key_until_ms == Some(i64::MIN) {
        return Err("a time is out of range".to_owned());
    }
    if line.expiry_is_span && line.expires_at_ms.is_none() {
        return Err("`expiry_is_span` goes with `expires_at_ms`".to_owned());
    }
    let own = |text: &Cow<'_, str>| text.clone().into_owned();
    let metadata: Vec<_> = line
        .metadata
        .iter()
        .map(|(n, v)| (own(n), own(v)))
        .collect();
    check_metadata(&metadata).map_err(|e| words(&e))
}

/// The stored part of the state, if all that belongs to it is there, and nothing else.
fn phase(line: &JobLine<'_>) -> Result<Phase, String> {
    let phase = match (line.state, line.dead_reason) {
        (State::Scheduled | State::Ready, None) => Phase::Waiting,
        (State::Running, None) => Phase::Running,
        (State::Completed, None) => Phase::Completed,
        (State::Cancelled, None) => Phase::Cancelled,
        (State::Dead, Some(reason)) => Phase::Dead(reason),
        (State::Dead, None) => return Err("a dead job has a `dead_reason`".to_owned()),
        (State::Blocked, _) => return Err("no job is blocked in this version".to_owned()),
        (state, Some(_)) => return Err(format!("a {state} job has no `dead_reason`")),
    };
    if line.state.is_finished() && line.finished_at_ms != Some(line.due_ms) {
        return Err("`due_ms` of a finished job is its `finished_at_ms`".to_owned());
    }
    if !line.state.is_finished() && line.finished_at_ms.is_some() {
        return Err(format!("a {} job has no `finished_at_ms`", line.state));
    }
    Ok(phase)
}

fn policy(line: &JobLine<'_>) -> Result<Policy, String> {
    let policy = line.policy.policy()?;
    if policy.attempts_max == 0 || policy.backoff.jitter_percent > 100 {
        return Err("`attempts_max` is at least 1, `jitter_percent` at most 100".to_owned());
    }
    Ok(policy)
}

/// Checks a history; its output.
fn check_history<'l>(history: &'l HistoryLine<'l>) -> Result<Option<Stored<'l>>, String> {
    if history.errors.len() > ERRORS_KEPT_MAX {
        return Err(format!("more than {ERRORS_KEPT_MAX} errors"));
    }
    let mut errors = history.errors.iter();
    if errors.any(|error| error.error.len() > ERROR_BYTES_MAX) {
        return Err(format!("an error of more than {ERROR_BYTES_MAX} bytes"));
    }
    if history.reason.len() > REASON_BYTES_MAX {
        return Err(format!("a reason of more than {REASON_BYTES_MAX} bytes"));
    }
    stored(
        "output",
        history.output,
        history.output_base64.as_ref(),
        history.output_file.as_ref(),
        INLINE_OUTPUT_MAX,
    )
}

/// The bytes of a payload or output, in whichever way they are given.
fn stored<'l>(
    what: &str,
    raw: Option<&'l RawValue>,
    base64: Option<&'l Base64<'l>>,
    file: Option<&FileLine>,
    inline_max: usize,
) -> Result<Option<Stored<'l>>, String> {
    let bytes = match (raw, base64) {
        (None, None) if file.is_some() => {
            return Err(format!("`{what}_file` goes with the bytes of the {what}"));
        }
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(format!("both `{what}` and `{what}_base64` are given"));
        }
        (Some(raw), None) => raw.get().as_bytes(),
        (None, Some(base64)) => &base64.0,
    };
    let file = file.map(|file| file.holding(bytes)).transpose();
    let file = file.map_err(|reason| format!("{what}: {reason}"))?;
    if file.is_none() && bytes.len() > inline_max {
        let size = bytes.len();
        return Err(format!(
            "{what} has {size} bytes, and above {inline_max} it needs a `{what}_file`"
        ));
    }
    Ok(Some(Stored { bytes, file }))
}
