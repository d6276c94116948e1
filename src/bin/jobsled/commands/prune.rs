//! `jobsled prune`: finished jobs go before their time.

use jobsled::control::Call;
use serde_json::json;

use super::{Failure, Verdict};
use crate::args::PruneArgs;
use crate::output;
use crate::store::Session;
use crate::time::Span;

pub(crate) fn run(session: &Session, args: PruneArgs) -> Result<Verdict, Failure> {
    if let Some(state) = args.state.filter(|state| !state.is_finished()) {
        return Err(Failure::usage(format!(
            "a {state} job has not finished: --state takes completed, cancelled or dead; `jobsled cancel` and `rm` \
             end and delete others"
        )));
    }
    let deleted: u64 = session.enter()?.call(&Call::Prune {
        state: args.state.map(|state| state.name().to_owned()),
        kind: None,
        queue: args.queue,
        older_ms: args.older.map_or(0, Span::ms),
    })?;
    if session.json {
        output::say(json!({ "deleted": deleted }));
    } else {
        output::say(format_args!("{} deleted.", output::counted(deleted, "job")));
    }
    Ok(Verdict::Well)
}
