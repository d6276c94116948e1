//! Finding jobs.

use crate::engine::{Command, Details, Engine};
use crate::error::{Error, Result};
use crate::job::{ClaimNumber, DeadReason, JobId, Priority, State};
use crate::journal::event_at;
use crate::ledger::{AttemptError, Event, Filter, History, Page, Payload, Row};

/// Jobs that one call to the engine returns at most.
const PAGE_ROWS: usize = 1_000;

/// A question about stored jobs: filters first, then [`list`](Query::list) or [`count`](Query::count).
///
/// ```
/// # use jobsled::{Engine, State, job, rkyv};
/// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// # struct Tick;
/// # job!(Tick, kind = "tick");
/// # let engine = Engine::in_memory().open()?;
/// engine.enqueue(Tick)?;
/// let ready = engine.jobs().state(State::Ready).kind("tick").limit(10).list()?;
/// assert_eq!(ready.len(), 1);
/// assert!(ready[0].parked, "no handler for this kind here");
/// assert_eq!(engine.jobs().queue("other").count()?, 0);
/// # Ok::<(), jobsled::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Query<'e> {
    engine: &'e Engine,
    filter: Filter,
    after: JobId,
    limit: usize,
}

/// A job as the engine knows it without reading its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobInfo {
    /// Its id.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// Its state.
    pub state: State,
    /// Ready, but this program has no handler for its kind.
    pub parked: bool,
    /// Its priority; higher runs first.
    pub priority: Priority,
    /// Attempts begun.
    pub attempt: u32,
    /// Failed attempts.
    pub failures: u16,
    /// Failed attempts after which it is dead.
    pub attempts_max: u16,
    /// In how many crashes of its process it was running, since it last ended an attempt.
    pub crashes: u8,
    /// From when on it may run: wall-clock milliseconds. For a finished job, when it finished.
    pub due_ms: i64,
    /// When it finished.
    pub finished_at_ms: Option<i64>,
    /// When it expires.
    pub expires_at_ms: Option<i64>,
    /// Its key.
    pub key: Option<String>,
    /// The claim under which it runs.
    pub claim: Option<ClaimNumber>,
    /// When it was claimed, for one that runs: wall-clock milliseconds. It starts at once if a slot is free.
    pub claimed_at_ms: Option<i64>,
    /// Why it is dead.
    pub dead_reason: Option<DeadReason>,
}

/// A job with what lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobDetails {
    /// What the engine knows without reading.
    pub info: JobInfo,
    /// When it was enqueued: wall-clock milliseconds.
    pub enqueued_at_ms: i64,
    /// Version of its payload.
    pub version: u16,
    /// Its metadata.
    pub metadata: Vec<(String, String)>,
    /// Size of its payload in bytes; `None` once it is gone (completed jobs keep none).
    pub payload_bytes: Option<u64>,
    /// The errors of its newest attempts, newest last.
    pub errors: Vec<AttemptError>,
    /// The words with which it was cancelled or discarded.
    pub reason: String,
}

impl Engine {
    /// A query over all stored jobs.
    pub fn jobs(&self) -> Query<'_> {
        Query {
            engine: self,
            filter: Filter::default(),
            after: JobId::from_number(0),
            limit: usize::MAX,
        }
    }

    /// One job with metadata, errors and sizes; `None` if there is no such job.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write; [`Error::Damaged`].
    pub fn details(&self, id: JobId) -> Result<Option<JobDetails>> {
        let details = self.shared.ask(|reply| Command::Details { id, reply })?;
        details.map(JobDetails::read).transpose()
    }
}

impl JobDetails {
    /// Reads the frames, on the caller's thread.
    fn read(details: Details) -> Result<JobDetails> {
        let id = details.row.id;
        let history = match &details.history {
            Some(frame) => crate::engine::read_history(frame)?,
            None => History::default(),
        };
        let event =
            event_at(&details.base.entry, details.base.offset).map_err(|e| Error::Damaged {
                path: "journal".into(),
                what: format!("the record of job {id}"),
                reason: format!("{e:?}"),
            })?;
        let (Event::Enqueued(job) | Event::Carried(job, ..)) = event else {
            return Err(Error::Bug(format!(
                "job {id} does not begin where it should"
            )));
        };
        let info = JobInfo::from(details.row);
        let payload_bytes = match job.payload {
            _ if info.state == State::Completed => None,
            Payload::Gone => None,
            Payload::Inline(bytes) => Some(bytes.len() as u64),
            Payload::File(file) => Some(file.len),
        };
        Ok(JobDetails {
            info,
            enqueued_at_ms: job.enqueued_at_ms,
            version: job.version,
            metadata: job
                .metadata
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            payload_bytes,
            errors: history.errors,
            reason: history.reason,
        })
    }
}

impl Query<'_> {
    /// Only jobs in this state.
    pub fn state(mut self, state: State) -> Self {
        self.filter.state = Some(state);
        self
    }

    /// Only jobs of this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.filter.kind = Some(kind.into());
        self
    }

    /// Only jobs in this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.filter.queue = Some(queue.into());
        self
    }

    /// Only jobs with a higher id: to go on where a list ended.
    pub fn after(mut self, id: JobId) -> Self {
        self.after = JobId::from_number(id.number().saturating_add(1));
        self
    }

    /// At most this many (default: all).
    pub fn limit(mut self, most: usize) -> Self {
        self.limit = most;
        self
    }

    /// The jobs, by rising id. Long lists are fetched in pages, between which other work goes on: a job
    /// that changes meanwhile may be listed as it was or as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn list(&self) -> Result<Vec<JobInfo>> {
        let mut jobs = Vec::new();
        self.each_page(|page| jobs.extend(page.into_iter().map(JobInfo::from)))?;
        Ok(jobs)
    }

    /// The jobs with what lies on disk, by rising id; otherwise as [`list`](Query::list), and slower: entries of
    /// the journal are read.
    ///
    /// # Errors
    ///
    /// As [`Engine::details`].
    pub fn details(&self) -> Result<Vec<JobDetails>> {
        let mut jobs = Vec::new();
        let mut from = self.after;
        while jobs.len() < self.limit {
            let rows_max = (self.limit - jobs.len()).min(PAGE_ROWS);
            let filter = self.filter.clone();
            let page = self.engine.shared.ask(|reply| Command::ListDetails {
                filter,
                from,
                rows_max,
                reply,
            })?;
            for details in page.jobs {
                jobs.push(JobDetails::read(details)?);
            }
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(jobs)
    }

    /// How many jobs there are. Counts the jobs themselves; for all jobs of a state see [`Stats`](crate::Stats).
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn count(&self) -> Result<u64> {
        let mut count = 0;
        self.each_page(|page| count += page.len() as u64)?;
        Ok(count)
    }

    /// The errors of all matching jobs, newest attempts only, with the ids of their jobs: what went wrong
    /// at a glance.
    ///
    /// # Errors
    ///
    /// As [`Engine::details`].
    pub fn errors(&self) -> Result<Vec<(JobId, AttemptError)>> {
        let mut errors = Vec::new();
        for job in self.list()?.iter().filter(|job| job.failures > 0) {
            let details = self.engine.details(job.id)?;
            errors.extend(
                details
                    .and_then(|mut d| d.errors.pop())
                    .map(|error| (job.id, error)),
            );
        }
        Ok(errors)
    }

    fn each_page(&self, mut f: impl FnMut(Vec<Row>)) -> Result<()> {
        let mut from = self.after;
        let mut left = self.limit;
        while left > 0 {
            let rows_max = left.min(PAGE_ROWS);
            let filter = self.filter.clone();
            let page = self.engine.shared.ask(|reply| Command::List {
                filter,
                from,
                rows_max,
                reply,
            })?;
            let Page { rows, next } = page;
            left -= rows.len();
            f(rows);
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(())
    }
}

impl From<Row> for JobInfo {
    fn from(row: Row) -> JobInfo {
        JobInfo {
            id: row.id,
            kind: row.kind,
            queue: row.queue,
            state: row.state,
            parked: row.parked,
            priority: row.priority,
            attempt: row.attempt,
            failures: row.failures,
            attempts_max: row.attempts_max,
            crashes: row.crashes,
            due_ms: row.due_ms,
            finished_at_ms: row.finished_at_ms,
            expires_at_ms: row.expires_at_ms,
            key: row.key,
            claim: row.claim,
            claimed_at_ms: row.claimed_at_ms,
            dead_reason: row.dead_reason,
        }
    }
}
