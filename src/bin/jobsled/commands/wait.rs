//! `jobsled wait`: until jobs have ended.

use std::time::Duration;

use jobsled::control::{Call, Code, JobView};
use jobsled::{Clock, DeadReason, State, SystemClock};
use serde_json::json;

use super::{Failure, Verdict};
use crate::args::WaitArgs;
use crate::output::{self, clean};
use crate::store::Session;
use crate::time;

/// Time was up; the same as coreutils' `timeout`.
const TIME_IS_UP: u8 = 124;
/// One call waits so long at most.
const SLICE: Duration = Duration::from_mins(1);

pub(crate) fn run(session: &Session, args: &WaitArgs) -> Result<Verdict, Failure> {
    let until = args
        .timeout
        .map(|span| SystemClock.now().steady.saturating_add(span.0));
    let mut exit = 0;
    for &id in &args.ids {
        let Some(job) = wait_for(session, id, until)? else {
            if !session.json {
                output::note(format_args!("Time is up; job {id} has not ended."));
            }
            return Ok(Verdict::Exit(TIME_IS_UP));
        };
        let code = status(job.as_ref());
        if exit == 0 {
            exit = code;
        }
        tell(session, id, job.as_ref(), code);
    }
    Ok(Verdict::Exit(exit))
}

/// The job once it has ended; `Some(None)` if there is none. `None`: time is up. While nobody has the store open
/// it is not kept open here: whoever wants to work must get in.
fn wait_for(
    session: &Session,
    id: u64,
    until: Option<Duration>,
) -> Result<Option<Option<JobView>>, Failure> {
    loop {
        let left = until.map_or(Duration::MAX, |until| {
            until.saturating_sub(SystemClock.now().steady)
        });
        let mut open = session.enter()?;
        let slice = if open.door.engine().is_some() {
            Duration::ZERO
        } else {
            left.min(SLICE)
        };
        let within_ms = u64::try_from(slice.as_millis()).unwrap_or(u64::MAX);
        match open.call::<bool>(&Call::Wait { id, within_ms }) {
            Ok(true) => return open.job(id).map(Some),
            // The other process has closed the store meanwhile.
            Ok(false) | Err(Failure::Fault(Code::NotNow, _)) => {}
            Err(failure) => return Err(failure),
        }
        if left.is_zero() {
            return Ok(None);
        }
        if open.door.engine().is_none() {
            continue;
        }
        let job = open.job(id)?;
        let expires_at_ms = job.as_ref().and_then(|job| job.expires_at_ms);
        let lives_ms = expires_at_ms.map(|at| at.saturating_sub(time::now_ms()));
        if let Some(job) = job.filter(|_| lives_ms.is_some_and(|ms| ms <= 0)) {
            return Ok(Some(Some(expired(job))));
        }
        let lives = lives_ms
            .and_then(|ms| u64::try_from(ms).ok())
            .map(Duration::from_millis);
        let seen = session.seen();
        drop(open);
        if !session.until_changed(&seen, lives.map_or(left, |lives| left.min(lives)))
            && lives.is_none_or(|lives| left <= lives)
        {
            return Ok(None);
        }
    }
}

/// A job that will not start any more, though no engine has had the time yet to say so.
fn expired(mut job: JobView) -> JobView {
    State::Dead.name().clone_into(&mut job.state);
    job.dead_reason = Some(DeadReason::Expired.to_string());
    job
}

/// What the command ended with, or something like it.
fn status(job: Option<&JobView>) -> u8 {
    let Some(job) = job else { return 1 };
    // Of an attempt before; what ended the job was something else.
    let failed = DeadReason::AttemptsUsedUp.to_string();
    let report = job
        .output
        .as_ref()
        .filter(|_| job.dead_reason.as_ref() == Some(&failed));
    let number = |name: &str| report?.get(name)?.as_i64();
    match job.state.as_str() {
        "completed" => 0,
        // A cancelled one may have ended with 0 on its way out.
        "cancelled" => 1,
        _ => match (number("exit_code"), number("signal")) {
            (Some(code), _) => u8::try_from(code)
                .ok()
                .filter(|code| *code > 0)
                .unwrap_or(1),
            (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(1),
            (None, None) => 1,
        },
    }
}

fn tell(session: &Session, id: u64, job: Option<&JobView>, code: u8) {
    let state = job.map_or("unknown", |job| job.state.as_str());
    if session.json {
        output::say(json!({ "id": id, "state": state, "exit_code": code }));
    } else if code > 0 {
        let why = job.map(super::show::why_ended).unwrap_or_default();
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {}", clean(&why))
        };
        output::note(format_args!("Job {id} is {state}{why}."));
    }
}
