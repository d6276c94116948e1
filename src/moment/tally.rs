//! What a replay comes by, counted; and the payload files that it names.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::job::{Content, JobId, PayloadRef};
use crate::journal::{Payloads, Visit};
use crate::ledger::{Event, Ledger, Payload};

/// Damaged files that an error names one by one.
const DAMAGED_NAMED_MAX: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) entries: u64,
    pub(super) groups: u64,
    /// Bytes of the entries.
    pub(super) bytes: u64,
    files: HashMap<u128, (JobId, PayloadRef)>,
}

/// Payload files of one moment.
#[derive(Debug)]
pub(super) struct Files(Vec<(JobId, PayloadRef)>);

impl Tally {
    pub(super) fn see(&mut self, visit: &Visit<'_, '_>) {
        match visit {
            Visit::Entry(header, bytes) => {
                self.entries += 1;
                self.groups += u64::from(header.part == 0);
                self.bytes += *bytes as u64;
            }
            Visit::Event(event, _) => self.see_files(event),
        }
    }

    fn see_files(&mut self, event: &Event<'_>) {
        let (Some(id), history) = event.story() else {
            return;
        };
        if let Event::Enqueued(job) | Event::Carried(job, ..) = event
            && let Payload::File(file) = job.payload
        {
            self.files.insert(file.name, (id, file));
        }
        if let Some(Content::File(file)) = history.and_then(|history| history.output.as_ref()) {
            self.files.insert(file.name, (id, **file));
        }
    }

    /// Of the files met, those that the state at the end names: all that it names, by rising job.
    pub(super) fn files_of(&mut self, ledger: &Ledger) -> Result<Files> {
        let mut seen = std::mem::take(&mut self.files);
        let found = |name: u128| {
            let file = seen.remove(&name);
            file.ok_or_else(|| Error::Bug(format!("payload file {name:032x} came from nowhere")))
        };
        let files: Result<Vec<_>> = ledger.files().map(found).collect();
        files.map(Files)
    }
}

impl Files {
    pub(super) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, file)| file.len).sum()
    }

    /// Copies them, each checked against length and hash.
    pub(super) fn copy(&self, from: &Payloads, to: &Payloads) -> Result<()> {
        for (_, file) in &self.0 {
            to.put(file, &from.read(file)?)?;
        }
        to.sync()
    }

    /// Looks at all of them; an error names every one that is not as it should be.
    pub(super) fn check(&self, payloads: &Payloads) -> Result<()> {
        let mut damaged = Vec::new();
        for (id, file) in &self.0 {
            match payloads.check(file) {
                Ok(()) => {}
                Err(Error::Damaged { path, reason, .. }) => damaged.push((*id, path, reason)),
                Err(error) => return Err(error),
            }
        }
        let Some((_, path, _)) = damaged.first() else {
            return Ok(());
        };
        let (path, count) = (path.clone(), damaged.len());
        let one = |(id, path, reason): (JobId, std::path::PathBuf, String)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            format!("{name} of job {id}: {reason}")
        };
        let mut told: Vec<String> = damaged.drain(..).take(DAMAGED_NAMED_MAX).map(one).collect();
        if count > told.len() {
            told.push(format!("and {} more", count - told.len()));
        }
        Err(Error::Damaged {
            path,
            what: format!("{count} large payload{}", if count == 1 { "" } else { "s" }),
            reason: told.join("; "),
        })
    }
}
