//! What the engine acknowledged, noted outside the store by the one to whom it was acknowledged.
//!
//! Each life of the child has a file of records of 64 bytes, text for people too. A record is appended with
//! one `write`, after the call or event that acknowledged it and before anything else is done about it. A
//! write is only ever cut between pages, and no record crosses one: a kill leaves whole records. (This
//! survives the death of the process, not that of the machine, like all that the kernel has been told.)

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use super::place::Place;
use crate::commands::Failure;

/// Divides every page size.
const RECORD_BYTES: usize = 64;

/// One thing that happened, as the child saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// An enqueue returned: this job of the plan is stored under this id.
    Accepted {
        id: u64,
        job: u32,
        file: u32,
        pass: u32,
    },
    /// A completion was told, so it is durable.
    Completed { id: u64, told: Told },
    /// A handler began.
    Started { id: u64, claim: u64, attempt: u32 },
    /// A handler is about to return.
    Ended { id: u64, claim: u64, attempt: u32 },
}

/// How a completion became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    ByEvent,
    /// `Handle::wait` returned. This may be told more than once.
    ByWait,
}

/// The file of this life.
#[derive(Debug)]
pub(super) struct Acks {
    file: File,
    path: PathBuf,
}

/// Makes the file of a life, before it begins: a child that is killed at once has one too.
pub(super) fn prepare(place: &Place, life: u32) -> Result<(), Failure> {
    let path = place.life(life);
    match File::create_new(&path) {
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::CannotRun(format!(
            "could not make {}: {e}. Is the disk full?",
            path.display()
        ))),
    }
}

impl Acks {
    /// The file that was prepared for this life.
    pub(super) fn open(place: &Place, life: u32) -> Result<Acks, Failure> {
        let path = place.life(life);
        match OpenOptions::new().append(true).open(&path) {
            Ok(file) => Ok(Acks { file, path }),
            Err(e) => Err(Failure::CannotRun(format!(
                "could not open {}: {e}",
                path.display()
            ))),
        }
    }

    /// Appends, from any thread.
    pub(super) fn append(&self, records: &[Record]) -> Result<(), Failure> {
        let mut text = String::with_capacity(records.len() * RECORD_BYTES);
        for record in records {
            let line = record.to_string();
            assert!(line.len() < RECORD_BYTES, "`{line}` does not fit a record");
            text.push_str(&line);
            text.extend(std::iter::repeat_n(' ', RECORD_BYTES - 1 - line.len()));
            text.push('\n');
        }
        (&self.file).write_all(text.as_bytes()).map_err(|e| {
            Failure::CannotRun(format!(
                "could not write {}: {e}. Is the disk full?",
                self.path.display()
            ))
        })
    }
}

/// What was noted in one life, in order.
pub(super) fn read(place: &Place, life: u32) -> Result<Vec<Record>, Failure> {
    let path = place.life(life);
    let unreadable =
        |why: String| Failure::NotWell(format!("could not read {}: {why}", path.display()));
    let bytes = std::fs::read(&path).map_err(|e| unreadable(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|e| unreadable(e.to_string()))?;
    let records = text.lines().map(|line| {
        Record::parse(line).ok_or_else(|| unreadable(format!("`{line}` is no record")))
    });
    records.collect()
}

/// What was noted in all lives.
pub(super) fn read_all(place: &Place) -> Result<Vec<Vec<Record>>, Failure> {
    let lives = (1..).take_while(|life| place.life(*life).exists());
    lives.map(|life| read(place, life)).collect()
}

impl Record {
    fn parse(line: &str) -> Option<Record> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(match *words.as_slice() {
            ["accepted", id, "job", job, "file", file, "pass", pass] => Record::Accepted {
                id: id.parse().ok()?,
                job: job.parse().ok()?,
                file: file.parse().ok()?,
                pass: pass.parse().ok()?,
            },
            ["completed", id, "by", told] => {
                let told = match told {
                    "event" => Told::ByEvent,
                    "wait" => Told::ByWait,
                    _ => return None,
                };
                Record::Completed {
                    id: id.parse().ok()?,
                    told,
                }
            }
            [what, id, "claim", claim, "attempt", attempt] => {
                let (id, claim, attempt) =
                    (id.parse().ok()?, claim.parse().ok()?, attempt.parse().ok()?);
                match what {
                    "started" => Record::Started { id, claim, attempt },
                    "ended" => Record::Ended { id, claim, attempt },
                    _ => return None,
                }
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Accepted {
                id,
                job,
                file,
                pass,
            } => write!(f, "accepted {id} job {job} file {file} pass {pass}"),
            Record::Completed {
                id,
                told: Told::ByEvent,
            } => write!(f, "completed {id} by event"),
            Record::Completed {
                id,
                told: Told::ByWait,
            } => write!(f, "completed {id} by wait"),
            Record::Started { id, claim, attempt } => {
                write!(f, "started {id} claim {claim} attempt {attempt}")
            }
            Record::Ended { id, claim, attempt } => {
                write!(f, "ended {id} claim {claim} attempt {attempt}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let records = [
            Record::Accepted {
                id: u64::MAX,
                job: 7,
                file: 3,
                pass: 2,
            },
            Record::Completed {
                id: 1,
                told: Told::ByEvent,
            },
            Record::Completed {
                id: 1,
                told: Told::ByWait,
            },
            Record::Started {
                id: 2,
                claim: u64::from(u32::MAX),
                attempt: u32::MAX,
            },
            Record::Ended {
                id: 2,
                claim: 9,
                attempt: 1,
            },
        ];
        for record in records {
            let line = record.to_string();
            assert!(line.len() < RECORD_BYTES);
            assert_eq!(Record::parse(&line), Some(record), "{line}");
        }
        for line in [
            "",
            "accepted 1",
            "completed 1 by guess",
            "stopped 1 claim 1 attempt 1",
            "ended x claim 1 attempt 1",
        ] {
            assert_eq!(Record::parse(line), None, "{line}");
        }
    }
}
