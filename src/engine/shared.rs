//! What all clones of an engine share, and how they ask the writer.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::api::{Engine, PoolHealth, ShutdownReport};
use super::command::Command;
use super::events::Hub;
use super::inbox::{Inbox, WhenFullRule};
use super::reply::{Awaited, NoReply, Reply};
use super::watchdog::Watchdog;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::job::{Content, Form, PayloadError, Stop};
use crate::journal::Payloads;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::sys::thread::JoinHandle;

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
    /// The kinds that have a handler, in alphabetical order.
    fn kinds(&self) -> Vec<String>;
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
    pub(crate) writer: Mutex<Option<JoinHandle>>,
    #[cfg(feature = "control")]
    pub(crate) control: Mutex<Option<crate::control::Server>>,
}

/// Shuts the engine down when the last clone goes.
pub(crate) struct Guard {
    shared: Arc<Shared>,
}

impl Guard {
    pub(super) fn new(shared: Arc<Shared>) -> Guard {
        Guard { shared }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.shared.shutdown(Duration::ZERO) {
            log::debug!("shutting down a dropped engine: {error}");
        }
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
        let needed = self.disk_floor.saturating_add(size);
        if free < needed {
            Err(Error::DiskFull {
                path: dir.clone(),
                free,
                needed,
            })
        } else {
            Ok(())
        }
    }

    /// The bytes of a payload or output, read from their file if they have one.
    pub(crate) fn content(&self, content: Content) -> Result<Vec<u8>> {
        Ok(match content {
            Content::Inline(bytes) => bytes,
            Content::File(file) => self.payloads.read(&file)?.to_vec(),
        })
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

    /// Asks many things before it waits for the first answer, so that they share a sync. The first error is the
    /// answer to all.
    pub(crate) fn ask_all<T, C: FnOnce(Reply<T>) -> Command>(
        &self,
        commands: impl Iterator<Item = C>,
    ) -> Result<Vec<T>> {
        self.check_process()?;
        let asked = commands.map(|command| {
            let (reply, answer) = Reply::new();
            self.inbox.send_unbounded(command(reply));
            answer
        });
        let answers: Vec<Awaited<T>> = asked.collect();
        answers.iter().map(|answer| self.wait(answer)).collect()
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
    pub(crate) fn wait<T>(&self, answer: &Awaited<T>) -> Result<T> {
        loop {
            if let Some(answer) = self.wait_within(answer, Duration::MAX)? {
                return Ok(answer);
            }
        }
    }

    fn wait_within<T>(&self, answer: &Awaited<T>, within: Duration) -> Result<Option<T>> {
        let mut left = within;
        loop {
            let wait = left.min(self.watchdog.look_every());
            match answer.recv_timeout(wait) {
                Ok(answer) => return answer.map(Some),
                Err(NoReply::Ever) => return Err(self.inbox.gate().no_answer()),
                Err(NoReply::Yet) if self.watchdog.hangs() => {
                    return Err(self.inbox.gate().no_answer());
                }
                Err(NoReply::Yet) => left -= wait,
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
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

    pub(super) fn shutdown(&self, grace: Duration) -> Result<ShutdownReport> {
        self.check_process()?;
        // Whoever comes now finds nobody, and enters the store when the lock is free.
        #[cfg(feature = "control")]
        let control = self
            .control
            .lock()
            .take()
            .inspect(crate::control::Server::close);
        let until = self.clock.now().awake.saturating_add(grace);
        let given_back = self.ask(|reply| Command::Shutdown { until, reply });
        self.watchdog.close();
        self.pool_health.lock().clear();
        let writer = self.writer.lock().take();
        // A writer that hangs in a commit is not waited for. Any other has ended, and let go of the lock.
        if let Some(writer) = writer.filter(|_| !self.watchdog.hangs()) {
            drop(writer.join());
        }
        #[cfg(feature = "control")]
        control.inspect(crate::control::Server::see_off);
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

#[cfg(test)]
pub(super) mod tests {
    use super::super::request::Decode;
    use super::*;
    use crate::Handle;
    use crate::job::{Format, Rkyv, encoding_of};

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
            #[cfg(feature = "control")]
            control: Mutex::default(),
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
        let (dog, gate) = (watchdog.clone(), inbox.gate().clone());
        let hung = twin(&engine, |shared| {
            (shared.inbox, shared.watchdog) = (inbox, watchdog);
        });
        let mut ticket = hung.job(note()).enqueue_nowait().unwrap();
        let clock = engine.shared.clock.clone();
        let _hangs = dog.commit_begins(clock.now().awake);
        dog.start(clock, gate).unwrap();
        let minute = Duration::from_mins(1);
        let answers = [
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

    /// Whoever waited for room in a full inbox waited for ever when the commit did.
    #[test]
    fn callers_that_wait_for_room_are_let_go() {
        let engine = crate::Engine::in_memory().open().unwrap();
        let (inbox, _nobody_reads) = Inbox::new(1, 1 << 20);
        let watchdog = Watchdog::new(Duration::from_millis(20));
        let (dog, gate) = (watchdog.clone(), inbox.gate().clone());
        let hung = twin(&engine, |shared| {
            (shared.inbox, shared.watchdog) = (inbox, watchdog);
            shared.when_full = WhenFullRule::Wait;
        });
        let taken = hung.job(note()).enqueue_nowait().unwrap();
        let clock = engine.shared.clock.clone();
        let _hangs = dog.commit_begins(clock.now().awake);
        dog.start(clock, gate).unwrap();
        for at in ["while it waits", "and from then on"] {
            let refused = hung.enqueue(note());
            let Err(Error::Refused { cause }) = &refused else {
                panic!("{at}: {refused:?}");
            };
            assert!(cause.contains("has not ended within 20ms"), "{at}: {cause}");
        }
        let unknown = taken.wait();
        assert!(matches!(unknown, Err(Error::Unknown { .. })), "{unknown:?}");
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
