//! One try of one job: begin, run, settle. The only place that catches a panic.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::handler::{Registry, no_handler};
use super::slots::Permit;
use crate::clock::Now;
use crate::engine::{
    Asked, Command, Engine, HandOut, HandOuts, Live, Recorder, Shared, Stage, outcome_of,
};
use crate::error::Error;
use crate::fault::{self, Point};
use crate::job::{Content, INLINE_OUTPUT_MAX, JobId, JobResult, Stop};
use crate::ledger::Outcome;
use crate::sys::sync;

/// Called after each attempt, on the worker's thread.
pub(crate) type AfterJob = Arc<dyn Fn(&Report) + Send + Sync>;

/// What an [after-job hook](crate::EngineBuilder::after_job) is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The job.
    pub id: JobId,
    /// Its kind.
    pub kind: Arc<str>,
    /// Its queue.
    pub queue: Arc<str>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// How long the handler ran.
    pub ran: Duration,
    /// How it ended.
    pub end: AttemptEnd,
}

/// How an attempt ended, before the engine decided what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptEnd {
    /// With an output.
    Completed,
    /// With this error, or this panic's message.
    Failed(String),
    /// Put off.
    Snoozed,
    /// Given up by the handler.
    Discarded(String),
    /// Cancelled by the handler, or obeying a wish to cancel.
    Cancelled(String),
    /// Given back at shutdown.
    GivenBack,
}

/// All that a slot needs to run jobs.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) registry: Arc<Registry>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) outs: Arc<HandOuts>,
    pub(crate) pool: Arc<str>,
    pub(crate) after_job: Option<AfterJob>,
}

sync::thread_local! {
    /// The pool whose handler the thread runs.
    static CURRENT_POOL: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

pub(super) fn current_pool() -> Option<String> {
    CURRENT_POOL.with(|pool| pool.borrow().as_ref().map(ToString::to_string))
}

/// Whether the thread is inside a handler, which may be one that waits for rayon.
pub(super) fn is_in_handler() -> bool {
    CURRENT_POOL.with(|pool| pool.borrow().is_some())
}

/// A job that the calling thread has begun, and runs at once.
pub(super) struct Begun {
    job: HandOut,
    began: Duration,
}

impl Begun {
    pub(super) fn live(&self) -> &Arc<Live> {
        &self.job.live
    }

    pub(super) fn began(&self) -> Duration {
        self.began
    }
}

impl Worker {
    /// Runs a handed-out job to its settle, unless the writer took it back.
    pub(crate) fn run(&self, job: HandOut) {
        if let Some(begun) = self.begin(job) {
            self.attempt(begun, |_| None);
        }
    }

    /// Begins a job; `None` if it went back.
    pub(super) fn begin(&self, job: HandOut) -> Option<Begun> {
        self.begin_at(job, self.shared.clock.now())
    }

    fn begin_at(&self, job: HandOut, now: Now) -> Option<Begun> {
        // It was claimed in time and had to wait for a slot: dropped, it goes back and expires there.
        if job.expires_at_ms.is_some_and(|at| at <= now.wall_ms) || !job.live.start(now.awake) {
            return None;
        }
        self.outs.note_begun();
        if job.live.time_limit_ms > 0 || job.live.stall_timeout_ms > 0 {
            // The writer learns when the limits begin to count.
            job.inbox.send_unbounded(Command::LimitsBegin);
        }
        let began = now.awake;
        let is_noted = self.recorder.begin(&job.spot());
        is_noted.then_some(Begun { job, began })
    }

    /// Runs a job to its settle. `next` gives the thread's next one at that time, if one waits: it is begun before
    /// this one is settled, so that one record can say both.
    pub(super) fn attempt(
        &self,
        begun: Begun,
        next: impl FnOnce(Now) -> Option<HandOut>,
    ) -> Option<Begun> {
        let Begun { mut job, began } = begun;
        let cx = Context::new(&job, Engine::unguarded(self.shared.clone()));
        fault::point(Point::Begun);
        // A rayon thread may run this one inside another's wait: that one is current again afterwards.
        let outer = CURRENT_POOL.with(|pool| pool.replace(Some(self.pool.clone())));
        let result = catch(|| self.call(&job, &cx));
        CURRENT_POOL.with(|pool| pool.replace(outer));
        let now = self.shared.clock.now();
        // Nothing that takes time, and nothing of anybody else's, may come between this end and the next begin.
        let is_soon_told = self.after_job.is_none()
            && matches!(&result, Ok(output) if output.len() <= INLINE_OUTPUT_MAX);
        let next = is_soon_told.then(|| next(now)).flatten();
        let next = next.and_then(|mut next| {
            next.after = job.claim;
            self.begin_at(next, now)
        });
        if next.is_none() {
            self.recorder.end(&job.spot());
        }
        fault::point(Point::Returned);
        let ran = now.awake.saturating_sub(began);
        let outcome = self.outcome(result, &job, &cx);
        if outcome.output().is_none() {
            job.kept = cx.take_kept().and_then(|kept| self.kept(&job, kept, &cx));
        }
        if let Some(hook) = &self.after_job {
            let report = report(&job, ran, &outcome);
            if let Err(stop) = catch(|| {
                hook(&report);
                Ok(())
            }) {
                log::error!("the after-job hook failed: {stop}");
            }
        }
        let ran_us = u64::try_from(ran.as_micros()).unwrap_or(u64::MAX);
        if matches!(outcome, Outcome::Completed(_)) {
            job.settle_unhurried(outcome, ran_us, &self.outs);
        } else {
            job.settle(outcome, ran_us);
        }
        next
    }

    fn call(&self, job: &HandOut, cx: &Context) -> JobResult<Vec<u8>> {
        let run = |bytes: &[u8]| self.registry.call(&job.kind, job.form, bytes, cx);
        match job.with_payload(&self.shared.payloads, run) {
            Ok(ran) => ran.unwrap_or_else(no_handler),
            // No later attempt can read it either.
            Err(error @ Error::Damaged { .. }) => Err(Stop::discard(error.to_string())),
            // The machine's trouble, perhaps for a moment: too many open files, a disk that is away.
            Err(error) => Err(Stop::failed(&error.to_string())),
        }
    }

    /// What the handler said, in the ledger's words.
    fn outcome(&self, result: JobResult<Vec<u8>>, job: &HandOut, cx: &Context) -> Outcome {
        let live = cx.live();
        let stop = match result {
            Ok(output) => return self.completed(output, job, cx),
            Err(Stop(stop)) => stop,
        };
        outcome_of(stop, || match live.asked() {
            Asked::Cancelled => Outcome::Cancelled(live.reason()),
            Asked::TimeLimit | Asked::Stalled => Outcome::Failed {
                error: live.reason(),
                retry_after_ms: None,
            },
            Asked::Shutdown | Asked::LeaseLost | Asked::No => Outcome::GivenBack { started: true },
        })
    }

    fn completed(&self, output: Vec<u8>, job: &HandOut, cx: &Context) -> Outcome {
        match self.content(output) {
            Ok(output) => Outcome::Completed(output),
            Err(error) => match self.spare(job, cx, &error) {
                Some(spare) => Outcome::Completed(spare),
                None => Outcome::Failed {
                    error,
                    retry_after_ms: None,
                },
            },
        }
    }

    /// What the handler gave for the case that there is no room.
    fn spare(&self, job: &HandOut, cx: &Context, error: &str) -> Option<Content> {
        let spare = cx.take_spare()?;
        let spare = self.registry.kept(&job.kind, job.form, spare).ok()?;
        let fits = spare.len() <= INLINE_OUTPUT_MAX;
        fits.then(|| {
            log::warn!("job {}: {error}; a shorter one is stored", job.id);
            Content::Inline(spare)
        })
    }

    /// What the attempt leaves behind, stored. The attempt has ended without a result as it is: if that cannot be
    /// kept, there is no more to do about it than to say so.
    fn kept(&self, job: &HandOut, kept: Vec<u8>, cx: &Context) -> Option<Content> {
        let stored = self.registry.kept(&job.kind, job.form, kept);
        let stored = stored.and_then(|bytes| self.content(bytes));
        stored
            .or_else(|why| self.spare(job, cx, &why).ok_or(why))
            .inspect_err(|why| log::warn!("job {}: what it wanted to keep is lost: {why}", job.id))
            .ok()
    }

    /// An output as it is kept: in the journal, or in a file that is synced on return.
    fn content(&self, output: Vec<u8>) -> Result<Content, String> {
        if output.len() <= INLINE_OUTPUT_MAX {
            return Ok(Content::Inline(output));
        }
        let (size, limit) = (output.len() as u64, self.shared.payload_max);
        if size > limit {
            return Err(format!("the output has {size} bytes, the limit is {limit}"));
        }
        let stored = self.shared.payloads.store(&output).map(Content::File);
        stored.map_err(|e| format!("the output could not be stored: {e}"))
    }
}

fn report(job: &HandOut, ran: Duration, outcome: &Outcome) -> Report {
    let end = match outcome {
        Outcome::Completed(_) => AttemptEnd::Completed,
        Outcome::Failed { error, .. } | Outcome::TakenAway { error } => {
            AttemptEnd::Failed(error.clone())
        }
        Outcome::Snoozed { .. } => AttemptEnd::Snoozed,
        Outcome::Discarded(why) => AttemptEnd::Discarded(why.clone()),
        Outcome::Cancelled(why) => AttemptEnd::Cancelled(why.clone()),
        Outcome::GivenBack { .. } => AttemptEnd::GivenBack,
    };
    Report {
        id: job.id,
        kind: job.kind.clone(),
        queue: job.queue.clone(),
        attempt: job.attempt,
        ran,
        end,
    }
}

/// Runs a handler. E5: a panic, also one in a `Drop` of what it holds, is a failed attempt with its message.
pub(super) fn catch<T>(f: impl FnOnce() -> JobResult<T>) -> JobResult<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(panic) => {
            let message = format!("panicked: {}", panic_text(panic.as_ref()));
            // The panic's own value may panic when it is dropped; then it is left alone.
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                std::mem::forget(again);
            }
            Err(Stop::failed(&message))
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("with a value that is no text")
}

/// A claimed job for an executor of yours; see [`Pool::custom`](crate::Pool::custom). Dropped without being run, the job
/// goes back unharmed, and the pool gets no job for a while: see [`Pool::custom`](crate::Pool::custom).
#[must_use = "a dropped task gives the job back"]
pub struct Task {
    /// `None` once it runs.
    pub(super) job: Option<HandOut>,
    pub(super) worker: Worker,
    /// Lets the next job come when it is dropped.
    pub(super) _permit: Permit,
}

impl Task {
    /// Whether the job went back to its queue meanwhile: [`run`](Task::run) would do nothing.
    #[cfg(all(feature = "testing", not(shuttle)))]
    pub(crate) fn is_taken_back(&self) -> bool {
        let job = self.job.as_ref();
        job.is_none_or(|job| job.live.stage() == Stage::TakenBack)
    }

    /// Runs the job's handler on the calling thread.
    pub fn run(mut self) {
        if let Some(job) = self.job.take() {
            self.worker.run(job);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Noted before the job goes back, so that the writer does not hand it out again at once.
        if let Some(job) = &self.job
            && job.live.stage() == Stage::Waiting
        {
            self.worker.outs.note_refused();
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.job.as_ref().map(|job| job.id))
            .finish_non_exhaustive()
    }
}
