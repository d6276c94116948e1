//! `jobsled pause`, `resume` and `queue`: what holds for all jobs of a queue. Made with the store, if there is none:
//! a queue may be set up before its first job.

use jobsled::control::Call;
use serde_json::{Value, json};

use super::{Failure, Verdict};
use crate::output;
use crate::store::Session;

pub(crate) fn pause(session: &Session, name: &str, paused: bool) -> Result<Verdict, Failure> {
    let call = Call::Queue {
        name: name.to_owned(),
        paused: Some(paused),
        concurrency: None,
    };
    session.enter_or_make()?.call::<Value>(&call)?;
    if session.json {
        output::say(json!({ "queue": name, "paused": paused }));
    } else if paused {
        output::say(format_args!("Queue {name} is paused; what runs goes on."));
    } else {
        output::say(format_args!("Queue {name} goes on."));
    }
    Ok(Verdict::Well)
}

pub(crate) fn concurrency(session: &Session, name: &str, most: u32) -> Result<Verdict, Failure> {
    let call = Call::Queue {
        name: name.to_owned(),
        paused: None,
        concurrency: Some(most),
    };
    session.enter_or_make()?.call::<Value>(&call)?;
    if session.json {
        output::say(json!({ "queue": name, "concurrency": (most > 0).then_some(most) }));
    } else if most == 0 {
        output::say(format_args!(
            "Queue {name} runs as many jobs as there are workers."
        ));
    } else {
        output::say(format_args!("Queue {name} runs {most} at a time."));
    }
    Ok(Verdict::Well)
}
