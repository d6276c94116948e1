//! `jobsled watch`: news as they happen.

use std::io::{Write, stdout};

use jobsled::control::{Call, EventView};
use serde_json::Value;

use super::{Failure, Verdict};
use crate::output::{self, clean};
use crate::store::Session;
use crate::time;

pub(crate) fn run(session: &Session) -> Result<Verdict, Failure> {
    let mut open = session.enter()?;
    if open.door.greeting().is_none() {
        return Err(Failure::failed(format!(
            "nothing happens in {}: no program has it open; `jobsled work` starts a worker",
            session.store.display()
        )));
    }
    let json = session.json;
    open.stream::<Value>(&Call::Watch {}, &mut |line| {
        let event: EventView = serde_json::from_slice(line)?;
        if event.event == "alive" {
            return Ok(());
        }
        let mut out = stdout().lock();
        if json {
            out.write_all(line)?;
        } else {
            writeln!(out, "{}", shown(&event))?;
        }
        out.flush()
    })?;
    output::note("The program that had the store open has closed it.");
    Ok(Verdict::Well)
}

fn shown(event: &EventView) -> String {
    if event.event == "missed" {
        return format!("({} news were missed: this end is too slow)", event.missed);
    }
    let at = time::shown(event.at_ms);
    let EventView {
        event: what,
        id,
        kind,
        queue,
        progress,
        ..
    } = event;
    let far = progress.as_ref().map(|p| match p.total {
        0 => format!(" {} {}", p.done, clean(&p.note)),
        total => format!(" {} of {total} {}", p.done, clean(&p.note)),
    });
    let far = far.unwrap_or_default();
    format!(
        "{at}  job {id} {what}{far} ({kind}, queue {queue})",
        what = clean(what)
    )
}
