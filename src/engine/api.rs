//! The handle that people hold, and the calls that every other part of the public face uses.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use super::command::{Command, Reply};
use super::events::{self, Event, Events, Hub, Subscription};
use super::inbox::{Inbox, WhenFullRule};
use super::request::{Decode, Enqueued, Request};
use super::{Batch, Change, Handle, QueueControl, Watchdog};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::job::{Form, Format, Job, JobId, PayloadError, Stop, encoding_of};
use crate::journal::Payloads;
use crate::sys;

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
    /// Slots that hung in a handler and were replaced.
    pub replaced: usize,
    /// Slots that hung and could not be replaced any more.
    pub lost: usize,
}

/// What runs a job without the queue; `worker` provides it.
pub(crate) trait Handlers: Send + Sync {
    /// Runs the kind's handler on the calling thread; `None` if there is no such handler.
    fn run_inline(
        &self,
        kind: &str,
        stored: Form,
        payload: &[u8],
        engine: &Engine,
    ) -> Option<Result<Vec<u8>, Stop>>;
    /// A payload in the form that the caller takes; the text of an error says what to do.
    fn convert<'a>(
        &self,
        kind: &str,
        stored: Form,
        wanted: Form,
        bytes: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, String>;
    /// An output in the encoding in which its job was enqueued.
    fn output(
        &self,
        kind: &str,
        stored: Form,
        own: Form,
        output: Vec<u8>,
    ) -> Result<Vec<u8>, String>;
    /// The pool in one of whose slots the calling thread runs a handler, if it does.
    fn current_pool(&self) -> Option<String>;
}

/// What all clones of an engine share.
pub(crate) struct Shared {
    pub(crate) inbox: Inbox,
    pub(crate) hub: Arc<Hub>,
    pub(crate) payloads: Arc<Payloads>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) handlers: Arc<dyn Handlers>,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) payload_max: u64,
    pub(crate) disk_floor: u64,
    pub(crate) when_full: WhenFullRule,
    pub(crate) opener: u32,
    /// Emptied at shutdown: the closures hold the pools, and those hold this.
    pub(crate) pool_health: Mutex<Vec<Arc<dyn Fn() -> PoolHealth + Send + Sync>>>,
    /// Joined at shutdown, so that the files are closed when it returns.
    pub(crate) writer: Mutex<Option<JoinHandle<()>>>,
}

/// Shuts the engine down when the last clone goes.
pub(crate) struct Guard {
    shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.shared.shutdown(Duration::ZERO) {
            log::debug!("shutting down a dropped engine: {error}");
        }
    }
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
    /// run again with the next opening; answers of their handlers are refused.
    pub given_back: u64,
}

impl Engine {
    pub(crate) fn new(shared: Arc<Shared>) -> Engine {
        let guard = Some(Arc::new(Guard {
            shared: shared.clone(),
        }));
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
        if let Some(row) = row.as_ref().filter(|row| row.kind != J::KIND) {
            return Err(Error::Invalid {
                what: "type of a handle",
                found: format!("kind `{}` for job {id}", J::KIND),
                rule: format!("the job is of kind `{}`", row.kind),
            });
        }
        let decode: Decode<J::Output> = <J::Format as Format<J::Output>>::decode;
        let output = (encoding_of::<J::Format>(), decode);
        Ok(row.map(|row| Handle::new(self.shared.clone(), id, row.kind.into(), output)))
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
        let done = self
            .shared
            .ask_within(within, |reply| Command::WaitIdle { queue: None, reply })?;
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
    /// and have `grace` to end in their own way. What runs even then is given back, no attempt used.
    /// Then the store is closed.
    ///
    /// *Blocking:* up to `grace` and a sync. Called in a handler, it does not wait for that handler.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if it was shut down before; [`Error::Refused`] or [`Error::Unknown`] if the last
    /// group could not be written.
    pub fn shutdown(&self, grace: Duration) -> Result<ShutdownReport> {
        self.shared.shutdown(grace)
    }

    pub(crate) fn watchdog(&self) -> &Watchdog {
        &self.shared.watchdog
    }
}

impl Shared {
    /// A payload or output must fit the limit.
    pub(crate) fn check_size(&self, what: &'static str, size: u64) -> Result<()> {
        let limit = self.payload_max;
        if size <= limit {
            return Ok(());
        }
        let remedy =
            "keep the data elsewhere and store a reference, or raise `EngineBuilder::payload_max`";
        Err(Error::TooLarge {
            what,
            size,
            limit,
            remedy,
        })
    }

    /// A file of so many bytes must leave the disk's floor free.
    pub(crate) fn check_room(&self, size: u64) -> Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let free = sys::files::free_bytes(dir).unwrap_or(u64::MAX);
        let floor = self.disk_floor.saturating_add(size);
        if free < floor {
            Err(Error::DiskFull {
                path: dir.clone(),
                free,
                floor,
            })
        } else {
            Ok(())
        }
    }

    /// Why a value could not be written as bytes.
    pub(crate) fn payload_error(
        &self,
        what: &'static str,
        kind: &str,
        error: &PayloadError,
    ) -> Error {
        match (
            error.too_large(),
            self.check_size(what, error.too_large().unwrap_or(0)),
        ) {
            (Some(_), Err(too_large)) => too_large,
            _ => Error::Payload {
                what,
                kind: kind.to_owned(),
                reason: error.to_string(),
            },
        }
    }

    /// Asks the writer and waits for its answer.
    pub(crate) fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        self.check_process()?;
        let (reply, answer) = Reply::new();
        self.inbox.send_unbounded(command(reply));
        self.wait(&answer)
    }

    /// Asks and waits for a while; `None`: time is up.
    pub(crate) fn ask_within<T>(
        &self,
        within: Duration,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<Option<T>> {
        self.check_process()?;
        let (reply, answer) = Reply::new();
        let token = reply.token();
        self.inbox.send_unbounded(command(reply));
        let answer = self.wait_within(&answer, within)?;
        if answer.is_none() {
            self.inbox.send_unbounded(Command::StopWaiting { token });
        }
        Ok(answer)
    }

    /// Waits for an answer, or until the writer is given up.
    pub(crate) fn wait<T>(&self, answer: &Receiver<Result<T>>) -> Result<T> {
        loop {
            if let Some(answer) = self.wait_within(answer, Duration::MAX)? {
                return Ok(answer);
            }
        }
    }

    fn wait_within<T>(&self, answer: &Receiver<Result<T>>, within: Duration) -> Result<Option<T>> {
        let mut left = within;
        loop {
            let wait = left.min(self.watchdog.look_every());
            match answer.recv_timeout(wait) {
                Ok(answer) => return answer.map(Some),
                Err(RecvTimeoutError::Disconnected) => return Err(self.no_answer()),
                Err(RecvTimeoutError::Timeout) if self.watchdog.has_given_up() => {
                    return Err(self.no_answer());
                }
                Err(RecvTimeoutError::Timeout) => left -= wait,
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Why a question was never answered: the writer ended before it took it, hangs, or panics.
    pub(crate) fn no_answer(&self) -> Error {
        if !self.watchdog.has_given_up() && self.inbox.gate().is_closed() {
            return Error::Closed;
        }
        let cause = self.watchdog.cause();
        Error::Unknown { cause }
    }

    /// E8: an engine cannot be used in a fork of its process: its threads are not there.
    pub(crate) fn check_process(&self) -> Result<()> {
        let here = std::process::id();
        if here == self.opener {
            Ok(())
        } else {
            Err(Error::Forked {
                opener: self.opener,
                here,
            })
        }
    }

    fn shutdown(&self, grace: Duration) -> Result<ShutdownReport> {
        self.check_process()?;
        let until = self.clock.now().steady.saturating_add(grace);
        let given_back = self.ask(|reply| Command::Shutdown { until, reply });
        self.watchdog.close();
        self.pool_health.lock().clear();
        let writer = self.writer.lock().take();
        // A writer that hangs in a commit is not waited for. Any other has ended, and let go of the lock.
        if let Some(writer) = writer.filter(|_| !self.watchdog.has_given_up()) {
            drop(writer.join());
        }
        Ok(ShutdownReport {
            given_back: given_back?,
        })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::job::Rkyv;

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Note {
        text: String,
    }

    crate::job!(Note, kind = "note");

    fn note() -> Note {
        Note {
            text: "x".to_owned(),
        }
    }

    /// A copy of everything but the threads, with a difference.
    fn twin(engine: &Engine, change: impl FnOnce(&mut Shared)) -> Engine {
        let Shared {
            inbox,
            hub,
            payloads,
            clock,
            handlers,
            watchdog,
            dir,
            payload_max,
            disk_floor,
            when_full,
            opener,
            ..
        } = &*engine.shared;
        let mut shared = Shared {
            inbox: inbox.clone(),
            hub: hub.clone(),
            payloads: payloads.clone(),
            clock: clock.clone(),
            handlers: handlers.clone(),
            watchdog: watchdog.clone(),
            dir: dir.clone(),
            payload_max: *payload_max,
            disk_floor: *disk_floor,
            when_full: *when_full,
            opener: *opener,
            pool_health: Mutex::default(),
            writer: Mutex::default(),
        };
        change(&mut shared);
        Engine::new(Arc::new(shared))
    }

    /// What a fork has, in a process of another number.
    pub(in crate::engine) fn forked(engine: &Engine) -> Engine {
        twin(engine, |shared| {
            shared.opener = shared.opener.wrapping_add(1);
        })
    }

    /// A commit that never ends: whoever waits for the writer is let go and told that nobody knows.
    #[test]
    fn callers_of_a_writer_that_hangs_are_let_go() {
        let engine = crate::Engine::in_memory().open().unwrap();
        let (inbox, _nobody_reads) = Inbox::new(100, 1 << 20);
        let watchdog = Watchdog::new(Duration::from_millis(20));
        watchdog.start(engine.shared.clock.clone()).unwrap();
        let _hangs = watchdog.commit_begins(engine.shared.clock.now().steady);
        let hung = twin(&engine, |shared| {
            (shared.inbox, shared.watchdog) = (inbox, watchdog);
        });
        let mut ticket = hung.job(note()).enqueue_nowait().unwrap();
        let minute = Duration::from_mins(1);
        let answers = [
            ("enqueue", hung.enqueue(note()).map(drop)),
            ("stats", hung.stats().map(drop)),
            ("wait_until_idle", hung.wait_until_idle(minute).map(drop)),
            ("ticket", {
                assert!(!ticket.is_durable());
                ticket.wait().map(drop)
            }),
            ("shutdown", hung.shutdown(minute).map(drop)),
        ];
        for (call, answer) in answers {
            let Err(Error::Unknown { cause }) = answer else {
                panic!("{call}: {answer:?}");
            };
            assert!(
                cause.contains("has not ended within 20ms"),
                "{call}: {cause}"
            );
        }
        assert!(hung.health().poisoned.is_some());
    }

    /// E8: in a fork every call is an error at once, nothing is stored, and the parent goes on.
    #[test]
    fn a_fork_is_refused_and_does_no_harm() {
        let engine = crate::Engine::in_memory().open().unwrap();
        let id = engine.enqueue(note()).unwrap().id();
        // Done, so that no call would have to wait if it were let through.
        engine.change(id).complete::<Note>(&()).unwrap();
        let fork = forked(&engine);
        let output: (_, Decode<()>) = (encoding_of::<Rkyv>(), <Rkyv as Format<()>>::decode);
        let handle = Handle::new(fork.shared.clone(), id, "note".into(), output);
        let minute = Duration::from_mins(1);
        let mut batch = fork.batch();
        batch.add(note());
        let answers = [
            ("enqueue", fork.enqueue(note()).map(drop)),
            (
                "enqueue_nowait",
                fork.job(note()).enqueue_nowait().map(drop),
            ),
            ("batch", batch.enqueue().map(drop)),
            (
                "claim",
                fork.claim::<Note>("default", Duration::ZERO).map(drop),
            ),
            ("handle", fork.handle::<Note>(id).map(drop)),
            ("find_key", fork.find_key::<Note>("k").map(drop)),
            ("wait", handle.wait().map(drop)),
            ("wait_timeout", handle.wait_timeout(minute).map(drop)),
            ("cancel", handle.cancel().map(drop)),
            ("delete", fork.change(id).delete().map(drop)),
            ("pause", fork.queue("default").pause()),
            ("stats", fork.stats().map(drop)),
            ("list", fork.jobs().list().map(drop)),
            ("details", fork.details(id).map(drop)),
            ("wait_until_idle", fork.wait_until_idle(minute).map(drop)),
            (
                "wait_until_finished",
                fork.wait_until_finished(1, minute).map(drop),
            ),
            ("drain", fork.drain(minute).map(drop)),
            ("shutdown", fork.shutdown(minute).map(drop)),
        ];
        let here = std::process::id();
        for (call, answer) in answers {
            let refused = matches!(answer, Err(Error::Forked { here: h, .. }) if h == here);
            assert!(refused, "{call}: {answer:?}");
        }
        // The last clone in the fork goes, as when the child ends.
        drop((handle, fork));
        let next = engine.enqueue(note()).unwrap().id();
        assert_eq!(next.number(), id.number() + 1, "no id was spent");
        assert_eq!(engine.jobs().count().unwrap(), 2);
    }
}
