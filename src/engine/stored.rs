//! The bytes that are stored with a job: its payload and what it left behind.

use super::api::Engine;
use super::command::{Command, Details};
use super::handle::read_history;
use crate::error::{Error, Result};
use crate::job::{Content, Encoding, JobId, State};
use crate::journal::event_at;
use crate::ledger::{Event, Payload};

/// A payload or output as it is stored, for whoever does not know its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    bytes: Vec<u8>,
    encoding: Encoding,
    what: &'static str,
    kind: String,
}

impl Stored {
    /// The bytes: JSON text, or an rkyv archive of the kind's own type.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether the bytes are JSON text.
    pub fn is_json(&self) -> bool {
        self.encoding == Encoding::Json
    }

    /// The bytes as a JSON value.
    ///
    /// # Errors
    ///
    /// [`Error::Payload`] if they are no JSON.
    #[cfg(feature = "json")]
    pub fn json(&self) -> Result<serde_json::Value> {
        let error = |reason| Error::Payload {
            what: self.what,
            kind: self.kind.clone(),
            reason,
        };
        if !self.is_json() {
            return Err(error(format!("is kept as {}, not as JSON", self.encoding)));
        }
        serde_json::from_slice(&self.bytes)
            .map_err(|e| error(format!("is not the JSON expected: {e}")))
    }
}

impl Engine {
    /// What a job left behind: its output if it completed, else what the newest attempt
    /// [kept](crate::Context::keep_output) that did. `None` if there is no such job, or nothing that it left.
    ///
    /// *Blocking:* as long as the group that is being written; a large output is read from its file.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] or [`Error::Io`] if it cannot be read; [`Error::Closed`]; [`Error::Refused`] after a failed
    /// write.
    pub fn output(&self, id: JobId) -> Result<Option<Stored>> {
        self.stored("output", id, |details| match &details.history {
            Some(frame) => Ok(read_history(frame)?.output),
            None => Ok(None),
        })
    }

    /// A job's payload. `None` if there is no such job, or it has completed: its payload went with that.
    ///
    /// *Blocking:* as long as the group that is being written; a large payload is read from its file.
    ///
    /// # Errors
    ///
    /// As [`output`](Engine::output).
    pub fn payload(&self, id: JobId) -> Result<Option<Stored>> {
        self.stored("payload", id, |details| {
            let event = event_at(&details.base.entry, details.base.offset);
            let event = event.map_err(|e| Error::Damaged {
                path: "journal".into(),
                what: format!("the record of job {id}"),
                reason: format!("{e:?}"),
            })?;
            Ok(match event {
                _ if details.row.state == State::Completed => None,
                Event::Enqueued(job) | Event::Carried(job, ..) => match job.payload {
                    Payload::Gone => None,
                    Payload::Inline(bytes) => Some(Content::Inline(bytes.to_vec())),
                    Payload::File(file) => Some(Content::File(Box::new(file))),
                },
                _ => None,
            })
        })
    }

    fn stored(
        &self,
        what: &'static str,
        id: JobId,
        find: impl Fn(&Details) -> Result<Option<Content>>,
    ) -> Result<Option<Stored>> {
        let mut unreadable = None;
        loop {
            let Some(details) = self.shared.ask(|reply| Command::Details { id, reply })? else {
                return Ok(None);
            };
            let Some(content) = find(&details)? else {
                return Ok(None);
            };
            let file = content.file();
            match self.shared.content(content) {
                // It may have gone, or been replaced, since the writer was asked. Damage is what stays.
                Err(_) if file.is_some() && file != unreadable => unreadable = file,
                bytes => {
                    return bytes.map(|bytes| {
                        Some(Stored {
                            bytes,
                            encoding: details.row.encoding,
                            what,
                            kind: details.row.kind,
                        })
                    });
                }
            }
        }
    }
}
