//! Several jobs in one group: all of them, or none.

use std::sync::Arc;

use super::Engine;
use super::request::{Request, remove_files, send_jobs};
use crate::error::{Error, Result};
use crate::job::{BATCH_BYTES_MAX, BATCH_JOBS_MAX, Job, JobId, NewJob};
use crate::ledger::Placed;

/// Jobs to be stored together: after a crash all of them are there, or none. They may be of different
/// kinds. At most 100,000 jobs and 256 MiB.
///
/// ```
/// # use jobsled::{Engine, job, rkyv};
/// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// # struct Page { number: u32 }
/// # job!(Page, kind = "page");
/// # let engine = Engine::in_memory().open()?;
/// let mut batch = engine.batch();
/// batch.extend((1..=100).map(|number| Page { number }));
/// batch.add_request(engine.job(Page { number: 101 }).priority(9));
/// let stored = batch.enqueue()?;
/// assert_eq!(stored.len(), 101);
/// assert!(stored.iter().all(|(_, is_new)| *is_new));
/// # Ok::<(), jobsled::Error>(())
/// ```
#[must_use = "a batch does nothing until it is enqueued"]
#[derive(Debug)]
pub struct Batch<'e> {
    engine: &'e Engine,
    jobs: Vec<NewJob>,
    bytes: usize,
    /// The first thing that was wrong, and with which job.
    wrong: Option<Error>,
}

impl<'e> Batch<'e> {
    pub(super) fn new(engine: &'e Engine) -> Batch<'e> {
        Batch {
            engine,
            jobs: Vec::new(),
            bytes: 0,
            wrong: None,
        }
    }

    /// Adds a job with its kind's defaults.
    pub fn add<J: Job>(&mut self, job: J) -> &mut Self {
        let request = self.engine.job(job);
        self.add_request(request)
    }

    /// Adds a job with options.
    pub fn add_request<O>(&mut self, request: Request<'_, O>) -> &mut Self {
        if self.wrong.is_some() {
            return self;
        }
        let index = self.jobs.len();
        match request.draft.check(self.engine) {
            Ok(job) => {
                self.bytes += job.payload.inline_len();
                self.jobs.push(job);
            }
            Err(source) => {
                self.wrong = Some(Error::InBatch {
                    index,
                    source: Box::new(source),
                });
            }
        }
        self
    }

    /// Adds jobs from an iterator.
    pub fn extend<J: Job>(&mut self, jobs: impl IntoIterator<Item = J>) -> &mut Self {
        let jobs = jobs.into_iter();
        self.jobs.reserve(jobs.size_hint().0.min(BATCH_JOBS_MAX));
        for job in jobs {
            self.add(job);
        }
        self
    }

    /// Jobs added so far.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Stores all of them. For each job, in order: its id, and whether it is new (false: its key was
    /// taken, and the id is of the job that has it).
    ///
    /// *Blocking* and *durability* as [`Request::enqueue`]: on return all are on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::InBatch`] names the first job that is not valid; [`Error::TooLarge`] for a batch beyond its
    /// bounds; else as [`Request::enqueue`]. On any error none is stored.
    pub fn enqueue(mut self) -> Result<Vec<(JobId, bool)>> {
        let shared = &self.engine.shared;
        shared.check_process()?;
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        let too_large = |what, size: usize, limit: usize| {
            let remedy = "store them in several batches";
            Err(Error::TooLarge {
                what,
                size: size as u64,
                limit: limit as u64,
                remedy,
            })
        };
        if self.jobs.len() > BATCH_JOBS_MAX {
            return Err(Error::Invalid {
                what: "batch",
                found: format!("{} jobs long", self.jobs.len()),
                rule: format!(
                    "it has at most {BATCH_JOBS_MAX} jobs; store them in several batches"
                ),
            });
        }
        if self.bytes > BATCH_BYTES_MAX {
            return too_large("batch", self.bytes, BATCH_BYTES_MAX);
        }
        // Kept until the answer, to be freed by this thread: see `Command::Enqueue`.
        let jobs: Arc<[NewJob]> = std::mem::take(&mut self.jobs).into();
        let answer = send_jobs(shared, jobs.clone(), shared.when_full)?;
        let placed = shared.wait(&answer)?;
        Ok(placed
            .into_iter()
            .map(|Placed { id, is_new }| (id, is_new))
            .collect())
    }
}

impl Drop for Batch<'_> {
    /// What was never handed over leaves no files.
    fn drop(&mut self) {
        let files: Vec<u128> = self
            .jobs
            .iter()
            .filter_map(|job| job.payload.file())
            .collect();
        remove_files(&self.engine.shared, &files);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::shared::tests::forked;
    use super::*;

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Large {
        bytes: Vec<u8>,
    }
    crate::job!(Large, kind = "large", output = Vec<u8>);

    /// E8, J10: a process that forks while it holds a batch has it twice; the child's goes without harm.
    #[test]
    fn a_batch_in_a_fork_takes_no_file_of_its_parent() {
        let engine = Engine::in_memory().open().unwrap();
        let mut batch = engine.batch();
        batch.add(Large {
            bytes: vec![7; 100_000],
        });
        let fork = forked(&engine);
        let in_fork = Batch {
            engine: &fork,
            jobs: batch.jobs.clone(),
            bytes: batch.bytes,
            wrong: None,
        };
        drop(in_fork);
        batch.enqueue().unwrap();
        let claim = engine.claim::<Large>("default", Duration::ZERO);
        let job = claim.unwrap().unwrap().job().unwrap();
        assert_eq!(job.bytes.len(), 100_000);
    }

    /// E8: files were written before the process was looked at: into the parent's store, where nobody names
    /// them.
    #[test]
    fn a_fork_writes_no_file_into_its_parents_store() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::builder(dir.path().join("store")).open().unwrap();
        let files = || {
            std::fs::read_dir(dir.path().join("store/payloads"))
                .unwrap()
                .count()
        };
        let large = || Large {
            bytes: vec![7; 100_000],
        };
        engine.enqueue(Large { bytes: vec![7] }).unwrap();
        let claim = engine.claim::<Large>("default", Duration::ZERO);
        let fork = forked(&engine);
        let mut batch = fork.batch();
        batch.add(large());
        assert_eq!(files(), 0, "of a batch");
        let refused = batch.enqueue();
        assert!(matches!(refused, Err(Error::Forked { .. })), "{refused:?}");
        let in_fork = claim.unwrap().unwrap().of(&fork);
        let refused = in_fork.complete(&vec![7; 100_000]);
        assert!(matches!(refused, Err(Error::Forked { .. })), "{refused:?}");
        assert_eq!(files(), 0, "of an output");
    }
}
