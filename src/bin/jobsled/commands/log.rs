//! `jobsled log`: what a job has printed.

use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::time::Duration;

use jobsled::command::Report;
use jobsled::control::{Call, Code, EventView, JobView, LogView};
use jobsled::{Job, command};
use serde_json::{Value, json};

use super::show::unknown;
use super::{Failure, Verdict};
use crate::args::LogArgs;
use crate::output;
use crate::store::{Open, Session};

/// How long one call waits for more.
const SLICE_MS: u64 = 30_000;

pub(crate) fn run(session: &Session, args: &LogArgs) -> Result<Verdict, Failure> {
    let id = args.id;
    let mut open = session.enter()?;
    // Bytes, and of which attempt's log.
    let (mut shown, mut attempt) = (0, 0);
    loop {
        let wait_ms = if args.follow { SLICE_MS } else { 0 };
        let call = Call::Log {
            id,
            from: shown,
            wait_ms,
        };
        let part: Option<LogView> = match open.call(&call) {
            Err(Failure::Fault(Code::NotNow, _)) => None,
            part => part?,
        };
        if let Some(part) = part {
            // Another attempt has a log of its own.
            if std::mem::replace(&mut attempt, part.attempt) != part.attempt && shown > 0 {
                shown = 0;
                continue;
            }
            if part.from > shown {
                cut(part.from - shown);
            }
            print(session, args, part.text.as_bytes())?;
            shown = part.next;
            if !args.follow {
                return Ok(Verdict::Well);
            }
            if !part.ended {
                continue;
            }
        }
        let Some(job) = open.job(id)? else {
            return unknown(session, &[id.to_string()]);
        };
        if !args.follow || is_over(&job) {
            let shown = if job.attempt == attempt { shown } else { 0 };
            return finish(session, args, &job, shown);
        }
        // It waits for its turn, for another attempt, or for its end to be written.
        if open.door.engine().is_none() {
            until_news(&mut open, id)?;
        } else {
            // Nobody runs anything, and who wants to must get in.
            let seen = session.seen();
            drop(open);
            session.until_changed(&seen, Duration::MAX);
            open = session.enter()?;
        }
    }
}

fn is_over(job: &JobView) -> bool {
    matches!(job.state.as_str(), "completed" | "cancelled" | "dead")
}

/// Until something has happened to the job, or the other process has closed the store.
fn until_news(open: &mut Open<'_>, id: u64) -> Result<(), Failure> {
    let mut alive = 0;
    let mut heard = false;
    let news = open.stream::<Value>(&Call::Watch {}, &mut |line| {
        let event: EventView = serde_json::from_slice(line)?;
        alive += u32::from(event.event == "alive");
        // News from before it listened may have been missed, so that now and then it looks again.
        heard = event.id == id || alive > 1;
        if heard {
            Err(ErrorKind::Interrupted.into())
        } else {
            Ok(())
        }
    });
    match news {
        Err(_) if heard => Ok(()),
        Err(Failure::Fault(Code::NotNow, _)) | Ok(_) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// What is kept of an attempt that has ended, but for what was shown while it ran.
fn finish(
    session: &Session,
    args: &LogArgs,
    job: &JobView,
    shown: u64,
) -> Result<Verdict, Failure> {
    if job.kind != command::Command::KIND {
        if session.json || shown > 0 {
            return Ok(Verdict::Well);
        }
        return Err(Failure::usage(format!(
            "job {} is of kind `{}`: only commands have a log; `jobsled show {}` shows its output",
            job.id, job.kind, job.id
        )));
    }
    let Some(report) = &job.output else {
        if shown == 0 {
            output::note(format_args!(
                "Job {} is {} and has printed nothing yet.",
                job.id, job.state
            ));
        }
        return Ok(Verdict::Well);
    };
    let report: Report = serde_json::from_value(report.clone()).map_err(|e| {
        Failure::failed(format!("the output of job {} cannot be read: {e}", job.id))
    })?;
    let (cut_bytes, bytes) = (report.output.cut, report.output.bytes);
    if cut_bytes > shown {
        cut(cut_bytes - shown);
    }
    let seen = usize::try_from(shown.saturating_sub(cut_bytes)).unwrap_or(usize::MAX);
    print(session, args, bytes.get(seen..).unwrap_or_default())?;
    Ok(Verdict::Well)
}

fn cut(bytes: u64) {
    output::note(format_args!(
        "({} before this are not kept.)",
        output::size(bytes)
    ));
}

fn print(session: &Session, args: &LogArgs, bytes: &[u8]) -> Result<(), Failure> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut out = stdout().lock();
    let written = if session.json {
        let text = String::from_utf8_lossy(bytes);
        writeln!(out, "{}", json!({ "id": args.id, "text": text }))
    } else if stdout().is_terminal() && !args.raw {
        let text = String::from_utf8_lossy(bytes);
        out.write_all(output::clean_lines(&text).as_bytes())
    } else {
        out.write_all(bytes)
    };
    match written.and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| Failure::failed(format!("could not write: {e}"))),
    }
}
