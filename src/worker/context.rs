//! What a handler sees of its attempt.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Asked, Engine, HandOut, Live, What};
use crate::job::{ClaimNumber, Format, Job, JobId, JobResult, Stop};
use crate::sys::sync::Mutex;

/// One attempt, seen from its handler.
#[derive(Debug)]
pub struct Context {
    id: JobId,
    claim: u64,
    /// Of this opening of the store; 0 in a run without the queue.
    #[cfg(all(unix, feature = "command"))]
    epoch: u64,
    attempt: Attempt,
    crashes: u8,
    kind: Arc<str>,
    queue: Arc<str>,
    live: Arc<Live>,
    /// Encoded, for an attempt that does not complete.
    kept: Mutex<Option<Vec<u8>>>,
    /// In the place of an output for which there is no room.
    spare: Mutex<Option<Vec<u8>>>,
    engine: Engine,
}

/// Which attempt it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Counts from 1 and only rises; a crash or a snooze makes it go on.
    pub number: u32,
    /// Failed attempts after which the job is dead.
    pub max: u16,
    /// Whether the job is dead if this attempt fails.
    pub is_last: bool,
}

/// Why a handler is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// Somebody cancelled the job.
    Cancelled,
    /// It ran past its time limit.
    TimeLimit,
    /// It gave no sign of life for its stall timeout.
    Stalled,
    /// The engine shuts down; the job is given back.
    Shutdown,
    /// The job has moved on without this attempt; its answer will be refused.
    LeaseLost,
}

impl Context {
    pub(super) fn new(job: &HandOut, engine: Engine) -> Context {
        Context {
            id: job.id,
            claim: job.claim,
            #[cfg(all(unix, feature = "command"))]
            epoch: job.epoch,
            attempt: Attempt {
                number: job.attempt,
                max: job.attempts_max,
                is_last: job.failures.saturating_add(1) >= job.attempts_max,
            },
            crashes: job.crashes,
            kind: job.kind.clone(),
            queue: job.queue.clone(),
            live: job.live.clone(),
            kept: Mutex::default(),
            spare: Mutex::default(),
            engine,
        }
    }

    /// For a run without the queue: no id, one attempt, nobody who could ask it to stop.
    pub(super) fn inline(engine: &Engine) -> Context {
        Context {
            id: JobId::from_number(0),
            claim: 0,
            #[cfg(all(unix, feature = "command"))]
            epoch: 0,
            attempt: Attempt {
                number: 1,
                max: 1,
                is_last: true,
            },
            crashes: 0,
            kind: "".into(),
            queue: "".into(),
            live: Arc::new(Live::new(JobId::from_number(0), 1, 0, 0)),
            kept: Mutex::default(),
            spare: Mutex::default(),
            engine: engine.clone(),
        }
    }

    /// The job's id: the same in every attempt, so it is the idempotency key for outside systems. 0 in a
    /// run without the queue.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Which attempt this is.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// In how many crashes of its process the job was running.
    pub fn crashes(&self) -> u8 {
        self.crashes
    }

    /// The claim's number: rises for ever and never repeats. Pass it to outside systems to fence late
    /// writes.
    pub fn claim(&self) -> ClaimNumber {
        ClaimNumber(self.claim)
    }

    /// An error once the handler should stop: cancelled, past a limit, lease lost or shutting down. Return it
    /// with `?` and the job goes where it belongs. Also a sign of life. Costs two atomics and a look at the
    /// clock.
    ///
    /// # Errors
    ///
    /// The [`Stop`] to return.
    pub fn check(&self) -> JobResult<()> {
        self.live.sign_of_life(self.engine.shared.clock.now().awake);
        if self.live.asked() == Asked::No {
            Ok(())
        } else {
            Err(Stop::asked())
        }
    }

    /// Sleeps, unless asked to stop meanwhile. A sign of life at begin and end.
    ///
    /// # Errors
    ///
    /// As [`check`](Context::check).
    pub fn pause(&self, wait: Duration) -> JobResult<()> {
        let clock = &self.engine.shared.clock;
        let until = clock.now().awake.saturating_add(wait);
        self.check()?;
        self.live.pause_until(|| {
            let left = until.saturating_sub(clock.now().awake);
            (!left.is_zero()).then(|| clock.real_wait(left))
        });
        self.check()
    }

    /// Why the handler should stop, if it should.
    pub fn cancelled(&self) -> Option<CancelReason> {
        Some(match self.live.asked() {
            Asked::No => return None,
            Asked::Cancelled => CancelReason::Cancelled,
            Asked::TimeLimit => CancelReason::TimeLimit,
            Asked::Stalled => CancelReason::Stalled,
            Asked::Shutdown => CancelReason::Shutdown,
            Asked::LeaseLost => CancelReason::LeaseLost,
        })
    }

    /// How long until the attempt's time limit, if it has one.
    pub fn time_left(&self) -> Option<Duration> {
        let (started_ms, _) = self.live.times()?;
        let limit_ms = Some(self.live.time_limit_ms).filter(|ms| *ms > 0)?;
        let until = Duration::from_millis(started_ms.saturating_add(limit_ms));
        Some(until.saturating_sub(self.engine.shared.clock.now().awake))
    }

    /// Tells how far it is; also a sign of life. Kept in memory only, announced at most ten times a second.
    pub fn progress(&self, done: u64, total: u64) {
        let now = self.engine.shared.clock.now();
        self.live.sign_of_life(now.awake);
        let hub = &self.engine.shared.hub;
        if self.live.note_progress(done, total, now.awake) && hub.is_heard() {
            let (done, total, note) = self.live.progress();
            let what = What::Progress { done, total, note };
            hub.publish(
                self.id,
                what,
                self.kind.clone(),
                self.queue.clone(),
                now.wall_ms,
            );
        }
    }

    /// A line of text beside the progress. Kept in memory only.
    pub fn note(&self, text: impl Into<String>) {
        self.live.note_text(text.into());
    }

    /// Shows bytes to whoever follows this attempt with [`Engine::log`](crate::Engine::log). The newest 64 KiB are
    /// kept, in memory only and for as long as the attempt runs; takes memory from its first use on.
    pub fn log(&self, bytes: &[u8]) {
        self.live.log.append(bytes);
    }

    /// Remembers an output for the case that this attempt does not complete: if it fails, is discarded or cancelled
    /// (by a panic or a limit too), the output is stored with the job, in the place of one that an earlier attempt
    /// left. [`Engine::output`](crate::Engine::output) reads it. `J` is the handler's own kind; the last call counts.
    ///
    /// Not kept by an attempt that is snoozed or given back, nor by one whose lease was taken away. A job that is
    /// tried again, or [retried](crate::Change::retry) when it is dead, keeps it until another attempt leaves one or
    /// completes.
    ///
    /// *Durability:* stored in the same group as the end of the attempt.
    ///
    /// # Errors
    ///
    /// A failed attempt to return with `?`: the output cannot be written or is too large, or `J` is another kind.
    pub fn keep_output<J: Job>(&self, output: &J::Output) -> JobResult<()> {
        if self.id.number() != 0 && J::KIND != &*self.kind {
            let (kind, other) = (&self.kind, J::KIND);
            return Err(
                format!("a job of kind `{kind}` cannot keep an output of `{other}`").into(),
            );
        }
        let shared = &self.engine.shared;
        let bytes = <J::Format as Format<J::Output>>::encode(output, shared.payload_max)
            .map_err(|e| shared.payload_error("output", J::KIND, &e))?;
        *self.kept.lock() = Some(bytes);
        Ok(())
    }

    /// Whether the attempt is one of a job of this kind.
    #[cfg(all(unix, feature = "command"))]
    pub(crate) fn is_of<J: Job>(&self) -> bool {
        *self.kind == *J::KIND
    }

    /// Which opening of the store this is; rises with each.
    #[cfg(all(unix, feature = "command"))]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Calls `alarm` when the handler is asked to stop; `None` ends that. It must not block.
    #[cfg(all(unix, feature = "command"))]
    pub(crate) fn on_ask(&self, alarm: Option<Box<dyn Fn() + Send + Sync>>) {
        self.live.on_ask(alarm);
    }

    /// What is stored if there is no room for the output, or for what is kept: small enough for the journal.
    #[cfg(all(unix, feature = "command"))]
    pub(crate) fn spare_output<J: Job>(&self, output: &J::Output) {
        *self.spare.lock() = <J::Format as Format<J::Output>>::encode(output, u64::MAX).ok();
    }

    pub(super) fn take_spare(&self) -> Option<Vec<u8>> {
        self.spare.lock().take()
    }

    pub(super) fn take_kept(&self) -> Option<Vec<u8>> {
        self.kept.lock().take()
    }

    /// The engine, to enqueue further jobs. This handle does not keep it alive.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }
}
