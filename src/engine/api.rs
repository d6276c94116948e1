//! The handle that people hold, and the calls that every other part of the public face uses.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::command::Command;
use super::events::{self, Event, Events, Subscription};
use super::handle::check_kind;
use super::request::{Decode, Enqueued, Request};
use super::shared::{Guard, Shared};
use super::{Batch, Change, ChangeAll, Handle, Prune, QueueControl, Watchdog};
use crate::error::{Error, Result};
use crate::job::{Form, Format, Job, JobId, Stop, encoding_of};
use crate::ledger::Idle;

/// A durable job engine. Clone it freely: all clones are the same engine.
///
/// When the last clone is dropped, the engine shuts down as with
/// [`shutdown(Duration::ZERO)`](Engine::shutdown). A closure that captures an `Engine` keeps it alive; a
/// handler uses [`Context::engine`](crate::Context::engine) instead.
///
/// ```
/// use jobsled::{Engine, Finished, job, rkyv};
///
/// #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// #[rkyv(crate = jobsled::rkyv)]
/// struct Greet { name: String }
/// job!(Greet, kind = "greet", output = String);
///
/// # let dir = tempfile::tempdir().expect("a temporary directory");
/// # let path = dir.path().join("jobs");
/// let engine = Engine::builder(path)
///     .handle(|job: Greet, _cx: &jobsled::Context| Ok(format!("hello {}", job.name)))
///     .open()?;
/// let handle = engine.enqueue(Greet { name: "Ada".into() })?; // on stable storage from here on
/// assert_eq!(handle.wait()?, Finished::Completed("hello Ada".to_owned()));
/// # Ok::<(), jobsled::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    /// `None` in a handler's context, which must not keep the engine alive.
    guard: Option<Arc<Guard>>,
}

/// How a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolHealth {
    /// Its name.
    pub name: String,
    /// Its slots.
    pub slots: usize,
    /// Slots that hang in a handler and are replaced until it returns.
    pub replaced: usize,
    /// Slots that hang and are not replaced, being more than
    /// [`Pool::replacements`](crate::Pool::replacements): the pool lacks them until their handlers return.
    pub lost: usize,
}

/// What [`Engine::drain`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drained {
    /// Nothing runs any more.
    Finished,
    /// Time was up with these still running.
    StillRunning(Vec<JobId>),
}

/// What [`Engine::shutdown`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Jobs that were still running at the end of the grace. They were given back, no attempt used, and
    /// run again with the next opening; those that must not run twice ([`OnCrash::Dead`](crate::OnCrash::Dead)) are
    /// dead. Answers of their handlers are refused.
    pub given_back: u64,
}

impl Engine {
    pub(crate) fn new(shared: Arc<Shared>) -> Engine {
        let guard = Some(Arc::new(Guard::new(shared.clone())));
        Engine { shared, guard }
    }

    /// The same engine, without keeping it alive.
    pub(crate) fn unguarded(shared: Arc<Shared>) -> Engine {
        Engine {
            shared,
            guard: None,
        }
    }

    /// Stores a job with its kind's defaults.
    ///
    /// *Blocking:* until the job's group is synced, about one disk sync; longer while the inbox is full.
    /// *Durability:* on return the job is on stable storage and survives a power cut.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] and [`Error::Payload`] for the payload, [`Error::DiskFull`],
    /// [`Error::Draining`], [`Error::Closed`]; [`Error::Refused`] and [`Error::Unknown`] after a failed
    /// write.
    pub fn enqueue<J: Job>(&self, job: J) -> Result<Handle<J::Output>> {
        self.job(job).enqueue().map(Enqueued::into_handle)
    }

    /// A job with options, stored by [`Request::enqueue`].
    ///
    /// ```
    /// # use jobsled::{Engine, job, rkyv};
    /// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    /// # struct Report { month: u8 }
    /// # job!(Report, kind = "report");
    /// # let engine = Engine::in_memory().open()?;
    /// use std::time::Duration;
    /// let report = engine.job(Report { month: 5 }).priority(10).after(Duration::from_secs(60)).key("may").enqueue()?;
    /// assert!(report.is_new());
    /// let again = engine.job(Report { month: 5 }).key("may").enqueue()?;
    /// assert!(!again.is_new() && again.handle().id() == report.handle().id());
    /// # Ok::<(), jobsled::Error>(())
    /// ```
    pub fn job<J: Job>(&self, job: J) -> Request<'_, J::Output> {
        Request::typed(self, job)
    }

    /// A job known only by the name of its kind and a JSON value. It stays JSON until a handler takes it:
    /// [`EngineBuilder::handle_json`](crate::EngineBuilder::handle_json), a kind whose format is `Json`, or
    /// one that [accepts JSON](crate::EngineBuilder::accept_json).
    #[cfg(feature = "json")]
    pub fn json(&self, kind: &str, args: &serde_json::Value) -> Request<'_, serde_json::Value> {
        Request::json(self, kind, args)
    }

    /// Several jobs, stored all together or not at all.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// A handle to a stored job, for example after a restart; `None` if there is no such job. The output is
    /// decoded as `J`'s.
    ///
    /// *Blocking:* as long as the group that is being written.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the job is of another kind than `J`; [`Error::Closed`]; [`Error::Refused`] after
    /// a failed write.
    pub fn handle<J: Job>(&self, id: JobId) -> Result<Option<Handle<J::Output>>> {
        let row = self.shared.ask(|reply| Command::Look { id, reply })?;
        if let Some(row) = &row {
            check_kind::<J>(id, row)?;
        }
        let decode: Decode<J::Output> = <J::Format as Format<J::Output>>::decode;
        let output = (encoding_of::<J::Format>(), decode);
        Ok(row.map(|row| Handle::new(self.shared.clone(), id, row.kind.into(), output)))
    }

    /// A handle to a stored job of whatever kind: it tells how the job is and how it ends, but reads no output.
    /// `None` if there is no such job.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn any_handle(&self, id: JobId) -> Result<Option<Handle<()>>> {
        let row = self.shared.ask(|reply| Command::Look { id, reply })?;
        Ok(row.map(|row| Handle::untyped(self.shared.clone(), id, row.kind.into())))
    }

    /// A handle to the job that has this key; `None` if the key is free.
    ///
    /// # Errors
    ///
    /// As [`Engine::handle`].
    pub fn find_key<J: Job>(&self, key: &str) -> Result<Option<Handle<J::Output>>> {
        let (kind, key) = (J::KIND.to_owned(), key.to_owned());
        let id = self
            .shared
            .ask(|reply| Command::FindKey { kind, key, reply })?;
        let decode: Decode<J::Output> = <J::Format as Format<J::Output>>::decode;
        let output = (encoding_of::<J::Format>(), decode);
        Ok(id.map(|id| Handle::new(self.shared.clone(), id, J::KIND.into(), output)))
    }

    /// Controls of a queue: pause, resume, cap.
    pub fn queue(&self, name: &str) -> QueueControl<'_> {
        QueueControl::new(self, name)
    }

    /// Changes to one job: cancel, delete, retry, reschedule and more.
    pub fn change(&self, id: JobId) -> Change<'_> {
        Change::new(&self.shared, id)
    }

    /// The same change to many jobs at the cost of one.
    ///
    /// ```
    /// # use jobsled::{Cancel, Engine, job, rkyv};
    /// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    /// # struct Tick;
    /// # job!(Tick, kind = "tick");
    /// # let engine = Engine::in_memory().open()?;
    /// let first = engine.enqueue(Tick)?.id();
    /// let second = engine.enqueue(Tick)?.id();
    /// let answers = engine.change_all([first, second]).cancel("not needed any more")?;
    /// assert_eq!(answers, [Cancel::Cancelled, Cancel::Cancelled]);
    /// # Ok::<(), jobsled::Error>(())
    /// ```
    pub fn change_all(&self, ids: impl IntoIterator<Item = JobId>) -> ChangeAll<'_> {
        ChangeAll::new(&self.shared, ids.into_iter().collect())
    }

    /// Deletes finished jobs before retention would: all of them, or those that fit.
    ///
    /// ```
    /// # use jobsled::{Engine, State, job, rkyv};
    /// # use std::time::Duration;
    /// # let engine = Engine::in_memory().open()?;
    /// let pruned = engine.prune().state(State::Dead).older_than(Duration::from_hours(24)).run()?;
    /// assert_eq!(pruned.deleted, 0);
    /// # Ok::<(), jobsled::Error>(())
    /// ```
    pub fn prune(&self) -> Prune<'_> {
        Prune::new(self)
    }

    /// News about all jobs, as a channel that holds up to `capacity` events (at least 1).
    ///
    /// Events are sent after they are durable. A subscriber that is too slow misses some, see
    /// [`Events::missed`]; nothing ever waits for it.
    pub fn subscribe(&self, capacity: usize) -> Events {
        self.shared.hub.subscribe(capacity, None)
    }

    /// Calls `f` for every event, on a thread of its own, until the subscription is dropped: for
    /// repainting a user interface.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    pub fn on_event(&self, f: impl Fn(&Event) + Send + 'static) -> Result<Subscription> {
        events::call_back(&self.shared.hub, None, f)
    }

    /// Runs a job on the calling thread, without the queue: nothing is stored, one attempt is made.
    /// The outer error says that it could not be run, the inner one what the handler said.
    ///
    /// # Errors
    ///
    /// [`Error::NoHandler`]; [`Error::Payload`].
    pub fn run_inline<J: Job>(&self, job: &J) -> Result<Result<J::Output, Stop>> {
        let payload_error = |what| move |e| self.shared.payload_error(what, J::KIND, &e);
        let bytes = <J::Format as Format<J>>::encode(job, self.shared.payload_max)
            .map_err(payload_error("payload"))?;
        let ran = self
            .shared
            .handlers
            .run_inline(J::KIND, Form::of::<J>(), &bytes, self);
        match ran.ok_or_else(|| Error::NoHandler {
            kind: J::KIND.to_owned(),
        })? {
            Ok(output) => <J::Format as Format<J::Output>>::decode(&output)
                .map(Ok)
                .map_err(payload_error("output")),
            Err(stop) => Ok(Err(stop)),
        }
    }

    /// Waits until no job waits or runs, but for those that no handler here could run. Jobs scheduled for
    /// later, and those of paused queues, count. False if time was up.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn wait_until_idle(&self, within: Duration) -> Result<bool> {
        let done = self.shared.ask_within(within, |reply| Command::WaitIdle {
            until: Idle::Everywhere,
            reply,
        })?;
        Ok(done.is_some())
    }

    /// Waits until nothing runs and no pool could start a job: what is left is scheduled for later, in a paused
    /// queue, of a queue that is [not run here](crate::EngineBuilder::only_queues), or has no handler here. False
    /// if time was up.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn wait_until_quiet(&self, within: Duration) -> Result<bool> {
        let done = self.shared.ask_within(within, |reply| Command::WaitIdle {
            until: Idle::NothingToStart,
            reply,
        })?;
        Ok(done.is_some())
    }

    /// Waits until this many jobs have finished since the store was made (see
    /// [`Counters`](crate::Counters): completed, cancelled and died). False if time was up.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn wait_until_finished(&self, count: u64, within: Duration) -> Result<bool> {
        let done = self
            .shared
            .ask_within(within, |reply| Command::WaitFinished { count, reply })?;
        Ok(done.is_some())
    }

    /// Lets the pools claim no more jobs; those that run go on, and everything else does: jobs are stored, claims
    /// by hand are served. For a program that is about to end and must not turn anybody away meanwhile. With
    /// [`wait_until_quiet`](Engine::wait_until_quiet) it waits for what runs.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn stop_claiming(&self) -> Result<()> {
        self.shared.ask(|reply| Command::StopClaiming { reply })
    }

    /// Claims no more jobs and takes no new ones; waits up to `within` for those that run. The engine
    /// stays so, open for questions, until it is shut down.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] after a failed write.
    pub fn drain(&self, within: Duration) -> Result<Drained> {
        if self
            .shared
            .ask_within(within, |reply| Command::Drain { reply })?
            .is_some()
        {
            return Ok(Drained::Finished);
        }
        let running = self.shared.ask(|reply| Command::Running { reply })?;
        Ok(Drained::StillRunning(running))
    }

    /// Stops: nothing new is claimed, handlers are asked to stop ([`Context::check`](crate::Context::check))
    /// and have `grace` to end in their own way. What runs even then is given back, no attempt used, or is dead if
    /// it must not run twice ([`OnCrash::Dead`](crate::OnCrash::Dead)). Then the store is closed.
    ///
    /// *Blocking:* up to `grace`, and the closing: a log of up to 128 MiB is copied and opened once more, so
    /// that the next opening finds all in order (some 50 ms for a small one). Called in a handler, it waits the whole
    /// of `grace` for that very handler, whose job is then given back.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if it was shut down before; [`Error::Refused`] or [`Error::Unknown`] if the last
    /// group could not be written.
    pub fn shutdown(&self, grace: Duration) -> Result<ShutdownReport> {
        self.shared.shutdown(grace)
    }

    /// The kinds that have a handler here, in alphabetical order.
    pub fn kinds(&self) -> Vec<String> {
        self.shared.handlers.kinds()
    }

    /// Whether there will be no more news: it was shut down, or a write failed.
    #[cfg(feature = "control")]
    pub(crate) fn is_over(&self) -> bool {
        let gate = self.shared.inbox.gate();
        gate.is_closed() || gate.given_up().is_some()
    }

    pub(crate) fn watchdog(&self) -> &Watchdog {
        &self.shared.watchdog
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("dir", &self.shared.dir)
            .field("guarded", &self.guard.is_some())
            .finish()
    }
}
