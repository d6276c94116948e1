//! `jobsled export`, `import`, `backup` and `verify`: a store as a whole.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write, stdout};
use std::path::{Path, PathBuf};

use jobsled::Error;
use jobsled::control::{Call, CopyView, check_owner};

use super::{Failure, Verdict};
use crate::output::{self, counted, size};
use crate::store::Session;

pub(crate) fn export(session: &Session) -> Result<Verdict, Failure> {
    let mut open = session.enter()?;
    let mut out = BufWriter::with_capacity(1 << 16, stdout().lock());
    let mut broken = None;
    let written = open.stream::<CopyView>(&Call::Export {}, &mut |line| {
        out.write_all(line).inspect_err(|e| broken = Some(e.kind()))
    });
    let flushed = written.map(|report| (report, out.flush()));
    let cannot_write = |kind: ErrorKind| match kind {
        // Nobody reads it any more, as with `| head`.
        ErrorKind::BrokenPipe => Ok(Verdict::NotWell),
        kind => Err(Failure::cannot_write(kind)),
    };
    match (flushed, broken) {
        (Ok((report, Ok(()))), _) => {
            output::note(format_args!("{} exported.", counted(report.jobs, "job")));
            Ok(Verdict::Well)
        }
        (Ok((_, Err(e))), _) => cannot_write(e.kind()),
        (Err(_), Some(kind)) => cannot_write(kind),
        (Err(failure), None) => Err(failure),
    }
}

pub(crate) fn import(session: &Session, file: &Path) -> Result<Verdict, Failure> {
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin().lock()))
    } else {
        let opened = File::open(file);
        Box::new(BufReader::new(opened.map_err(|e| {
            Failure::usage(format!("could not read {}: {e}", file.display()))
        })?))
    };
    session.make_parents()?;
    check_owner(&session.store).map_err(|fault| session.failure(&fault))?;
    let imported = jobsled::import(&session.store, input);
    let report = imported.map_err(|e| session.failure(&e.into()))?;
    tell(session, "imported", &CopyView::from(report));
    Ok(Verdict::Well)
}

pub(crate) fn backup(session: &Session, dir: &Path) -> Result<Verdict, Failure> {
    let whole = |e| Failure::usage(format!("{} is no directory: {e}", dir.display()));
    let to = std::path::absolute(dir).map_err(whole)?;
    let report: CopyView = session.enter()?.call(&Call::Backup { to })?;
    tell(session, "copied and checked", &report);
    Ok(Verdict::Well)
}

pub(crate) fn verify(session: &Session, tmp: Option<&Path>) -> Result<Verdict, Failure> {
    session.check_there()?;
    check_owner(&session.store).map_err(|fault| session.failure(&fault))?;
    let report = match jobsled::verify(&session.store, tmp) {
        Ok(report) => CopyView::from(report),
        // Whoever has it checks it.
        Err(Error::Locked { .. }) => {
            let whole = |dir: &Path| std::path::absolute(dir).ok();
            let tmp: Option<PathBuf> = tmp.and_then(whole);
            session.enter()?.call(&Call::Verify { tmp })?
        }
        Err(error) => return Err(session.failure(&error.into())),
    };
    tell(session, "checked, and all is well", &report);
    Ok(Verdict::Well)
}

fn tell(session: &Session, what: &str, report: &CopyView) {
    if session.json {
        output::json(report);
    } else {
        let (jobs, bytes) = (counted(report.jobs, "job"), size(report.bytes));
        output::say(format_args!("{jobs} {what}: {bytes}."));
    }
}
