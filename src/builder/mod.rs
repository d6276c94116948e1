//! Putting an engine together: the options are checked once, here, and the layers are joined.

mod queue;
mod start;

#[cfg(all(unix, feature = "command"))]
use std::any::TypeId;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::engine::{Engine, Events, Hub, Limits, MemoryStore, WhenFullRule, in_store, open_store};
use crate::error::{Error, Result};
use crate::job::{Format, InPlace, Job, JobResult, View, check_name};
use crate::worker::{AfterJob, Context, Entry, Pool, Registry, Report};

pub use queue::Queue;

/// Options of an engine; ends with [`open`](EngineBuilder::open).
///
/// Without any option: jobs run on as many threads as the machine has cores, the newest 10,000
/// finished jobs of each queue are kept.
#[must_use = "an engine runs once it is opened"]
pub struct EngineBuilder {
    dir: Option<PathBuf>,
    registry: Registry,
    queues: Vec<Queue>,
    /// `None`: all.
    only_queues: Option<HashSet<String>>,
    pools: Vec<Pool>,
    clock: Arc<dyn Clock>,
    when_full: WhenFullRule,
    inbox_jobs: usize,
    inbox_bytes: usize,
    payload_max: u64,
    key_ttl: Duration,
    keep_finished: usize,
    keep_dead: usize,
    keep_dead_for: Duration,
    limits: Limits,
    commit_limit: Duration,
    #[cfg(feature = "control")]
    control_socket: bool,
    take_over: bool,
    after_job: Option<AfterJob>,
    hub: Arc<Hub>,
    /// The first thing that was wrong.
    wrong: Option<Error>,
}

/// What an enqueue does while [too many jobs](EngineBuilder::inbox) wait to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// Waits for room.
    #[default]
    Wait,
    /// Is refused with [`Error::Full`].
    Refuse,
}

impl Engine {
    /// Options for an engine on the store in `dir`; it is made if there is none.
    pub fn builder(dir: impl Into<PathBuf>) -> EngineBuilder {
        EngineBuilder::new(Some(dir.into()))
    }

    /// Options for an engine without a disk: all is lost with it. For tests.
    pub fn in_memory() -> EngineBuilder {
        EngineBuilder::new(None)
    }
}

impl EngineBuilder {
    fn new(dir: Option<PathBuf>) -> EngineBuilder {
        EngineBuilder {
            dir,
            registry: Registry::default(),
            queues: Vec::new(),
            only_queues: None,
            pools: Vec::new(),
            clock: Arc::new(SystemClock),
            when_full: WhenFullRule::Wait,
            inbox_jobs: 8_192,
            inbox_bytes: 64 << 20,
            payload_max: 64 << 20,
            key_ttl: Duration::from_hours(24),
            keep_finished: 10_000,
            keep_dead: 10_000,
            keep_dead_for: Duration::from_hours(180 * 24),
            limits: Limits {
                stop_grace: Duration::from_secs(5),
                lock_timeout: Duration::from_mins(10),
                disk_floor: 32 << 20,
            },
            commit_limit: Duration::from_mins(5),
            #[cfg(feature = "control")]
            control_socket: false,
            take_over: false,
            after_job: None,
            hub: Arc::default(),
            wrong: None,
        }
    }

    /// Registers the handler of a kind. The kind comes from the handler's argument:
    /// `.handle(thumbnail)` with `fn thumbnail(job: Thumbnail, cx: &Context) -> JobResult<Info>`, or a
    /// closure written in place.
    pub fn handle<J: Job>(
        self,
        f: impl Fn(J, &Context) -> JobResult<J::Output> + Send + Sync + 'static,
    ) -> EngineBuilder {
        self.register::<J>(Entry::typed(f))
    }

    /// Registers a handler that reads the payload in place, without a copy: `.handle_view::<Thumbnail>(|t, cx| …)`
    /// where `t` is a `&ArchivedThumbnail`.
    pub fn handle_view<J: Job>(
        self,
        f: impl Fn(&View<J>, &Context) -> JobResult<J::Output> + Send + Sync + 'static,
    ) -> EngineBuilder
    where
        J::Format: InPlace<J>,
    {
        self.register::<J>(Entry::view::<J>(f))
    }

    /// Registers a handler of JSON jobs by the name of their kind.
    #[cfg(feature = "json")]
    pub fn handle_json(
        mut self,
        kind: &'static str,
        f: impl Fn(serde_json::Value, &Context) -> JobResult<serde_json::Value> + Send + Sync + 'static,
    ) -> EngineBuilder {
        let added = check_name("kind", kind).and_then(|()| self.registry.add(kind, Entry::json(f)));
        self.note(added);
        self
    }

    /// Lets JSON jobs of kind `J` ([`Engine::json`]) be run by its handler and claimed. Their outputs are kept as
    /// JSON too.
    #[cfg(feature = "json")]
    pub fn accept_json<J>(mut self) -> EngineBuilder
    where
        J: Job + serde::de::DeserializeOwned,
        J::Output: serde::Serialize,
    {
        use crate::PayloadError;
        let from = |bytes: &[u8]| {
            let job: J = serde_json::from_slice(bytes)
                .map_err(|e| PayloadError::new("is not the JSON expected", e))?;
            <J::Format as Format<J>>::encode(&job, u64::MAX)
        };
        let to = |bytes: &[u8]| {
            let output = <J::Format as Format<J::Output>>::decode(bytes)?;
            serde_json::to_vec(&output)
                .map_err(|e| PayloadError::new("cannot be written as JSON", e))
        };
        self.registry
            .add_json(J::KIND, Box::new(from), Box::new(to));
        self
    }

    /// Turns stored payloads of version `from` into today's `J`, for its handler and for claims.
    pub fn upgrade<Old, J: Job>(
        mut self,
        from: u16,
        f: impl Fn(Old) -> J + Send + Sync + 'static,
    ) -> EngineBuilder
    where
        J::Format: Format<Old>,
    {
        let convert = move |bytes: &[u8]| {
            let old = <J::Format as Format<Old>>::decode(bytes)?;
            <J::Format as Format<J>>::encode(&f(old), u64::MAX)
        };
        self.registry.add_upgrade(J::KIND, from, Box::new(convert));
        self
    }

    /// Configures a queue.
    pub fn queue(mut self, queue: Queue) -> EngineBuilder {
        self.queues.push(queue);
        self
    }

    /// Lets the pools run jobs of these queues and of no other (default: of all). The others' jobs stay as they
    /// are; claims by hand are free to take them.
    pub fn only_queues<N: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> EngineBuilder {
        let names = names.into_iter().map(Into::into);
        self.only_queues.get_or_insert_default().extend(names);
        self
    }

    /// Adds a pool. Without any: one of threads, called `default`, with a slot per core.
    pub fn pool(mut self, pool: Pool) -> EngineBuilder {
        self.pools.push(pool);
        self
    }

    /// What an enqueue does when the inbox is full (default: wait).
    pub fn when_full(mut self, rule: WhenFull) -> EngineBuilder {
        self.when_full = match rule {
            WhenFull::Wait => WhenFullRule::Wait,
            WhenFull::Refuse => WhenFullRule::Refuse,
        };
        self
    }

    /// How many jobs, and payload bytes, may wait to be stored (default 8,192 and 64 MiB).
    pub fn inbox(mut self, jobs: usize, bytes: usize) -> EngineBuilder {
        self.inbox_jobs = jobs.max(1);
        self.inbox_bytes = bytes;
        self
    }

    /// The largest payload, and output, in bytes (default 64 MiB). Up to 24 KiB ride in the journal, larger ones
    /// have a file each.
    pub fn payload_max(mut self, bytes: u64) -> EngineBuilder {
        self.payload_max = bytes;
        self
    }

    /// How long a key stays taken at least (default 24 h); while its job is kept, it is taken anyway.
    pub fn key_ttl(mut self, time: Duration) -> EngineBuilder {
        self.key_ttl = time;
        self
    }

    /// How many completed and cancelled jobs are kept per queue, the newest, unless the queue's own settings say
    /// otherwise (default 10,000).
    pub fn keep_finished(mut self, most: usize) -> EngineBuilder {
        self.keep_finished = most;
        self
    }

    /// How many dead jobs are kept per queue, and how long (default 10,000 and 180 days).
    pub fn keep_dead(mut self, most: usize, time: Duration) -> EngineBuilder {
        self.keep_dead = most;
        self.keep_dead_for = time;
        self
    }

    /// How long a handler past its time limit or stall timeout has to obey before its lease is taken away
    /// (default 5 s).
    pub fn stop_grace(mut self, time: Duration) -> EngineBuilder {
        self.limits.stop_grace = time;
        self
    }

    /// How long a claim by hand lasts without a heartbeat (default 10 min).
    pub fn lock_timeout(mut self, time: Duration) -> EngineBuilder {
        self.limits.lock_timeout = time;
        self
    }

    /// Free bytes on the store's disk below which new jobs are refused (default 32 MiB).
    pub fn disk_floor(mut self, bytes: u64) -> EngineBuilder {
        self.limits.disk_floor = bytes;
        self
    }

    /// How long one commit may take before its callers are let go with [`Error::Unknown`] (default 5 min).
    pub fn commit_limit(mut self, time: Duration) -> EngineBuilder {
        self.commit_limit = time;
        self
    }

    /// Opens a store that another host left open, after you made sure that it runs no more.
    pub fn take_over(mut self, yes: bool) -> EngineBuilder {
        self.take_over = yes;
        self
    }

    /// Lets other processes of this user look in and change things while this one has the store open: with the
    /// program `jobsled`, or through [`control`](crate::control). A socket in the store, mode 0600 (default: none).
    #[cfg(feature = "control")]
    pub fn control_socket(mut self, on: bool) -> EngineBuilder {
        self.control_socket = on;
        self
    }

    /// The clock (default: the machine's).
    pub fn clock(mut self, clock: impl Clock) -> EngineBuilder {
        self.clock = Arc::new(clock);
        self
    }

    /// Calls `f` after each attempt, on the worker's thread, before the attempt is settled.
    pub fn after_job(mut self, f: impl Fn(&Report) + Send + Sync + 'static) -> EngineBuilder {
        self.after_job = Some(Arc::new(f));
        self
    }

    /// News about all jobs, from the very first: what the opening itself starts is heard too, which a
    /// subscription to the open engine would miss. Otherwise as [`Engine::subscribe`].
    ///
    /// ```
    /// # use jobsled::{Context, Engine, What, job, rkyv};
    /// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    /// # struct Tick;
    /// # job!(Tick, kind = "tick");
    /// let builder = Engine::in_memory().handle(|_: Tick, _: &Context| Ok(()));
    /// let events = builder.subscribe(100);
    /// let engine = builder.open()?;
    /// engine.enqueue(Tick)?;
    /// assert_eq!(events.recv().map(|event| event.what), Some(What::Enqueued));
    /// # Ok::<(), jobsled::Error>(())
    /// ```
    pub fn subscribe(&self, capacity: usize) -> Events {
        self.hub.subscribe(capacity, None)
    }

    /// Opens the store, recovers what an earlier process left, and starts the threads.
    ///
    /// *Blocking:* while the journal is read, about a second per million waiting jobs. *Durability:* on return
    /// the new epoch is on stable storage; jobs that were running when an earlier process died are ready again.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for options; [`Error::Locked`], [`Error::ForeignLock`], [`Error::NotAStore`],
    /// [`Error::NewerFormat`], [`Error::Layout`], [`Error::Damaged`], [`Error::Missing`],
    /// [`Error::ForeignWitness`], [`Error::Io`], [`Error::Thread`].
    pub fn open(mut self) -> Result<Engine> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        if cfg!(panic = "abort") {
            log::warn!(
                "built with panic = \"abort\": a handler that panics ends the process, and damage that makes sled \
                 panic does too"
            );
        }
        let pools = self.pools()?;
        let setup = self.setup(&pools)?;
        let opened = match self.dir.clone() {
            Some(dir) => open_store(&dir, self.take_over, self.clock.as_ref(), &setup)
                .map_err(|error| in_store(error, Some(&dir)))?,
            None => MemoryStore::new(self.clock.as_ref())?.open(self.clock.as_ref(), setup)?,
        };
        let store_dir = opened.disk.dir.clone();
        self.start(opened, pools)
            .map_err(|error| in_store(error, store_dir.as_deref()))
    }

    /// Opens a store in memory that may have been open before, with the pools' tasks passed to `stage`, one at a time.
    #[cfg(all(feature = "testing", not(shuttle)))]
    pub(crate) fn rehearse(
        mut self,
        store: &MemoryStore,
        stage: impl Fn(crate::Task) + Clone + Send + Sync + 'static,
    ) -> Result<Engine> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        let mut pools = self.pools()?;
        for pool in &mut pools {
            *pool = Pool::custom(pool.name.clone(), 1, stage.clone()).claim_ahead(0);
        }
        let setup = self.setup(&pools)?;
        let opened = store.open(self.clock.as_ref(), setup)?;
        self.start(opened, pools)
    }

    fn register<J: Job>(mut self, entry: Entry) -> EngineBuilder {
        let added = check_name("kind", J::KIND).and_then(|()| self.registry.add(J::KIND, entry));
        self.note(added);
        #[cfg(all(unix, feature = "command"))]
        if TypeId::of::<J>() == TypeId::of::<crate::command::Command>() {
            self.note(crate::command::check_init());
        }
        self
    }

    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.wrong.get_or_insert(error);
        }
    }
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, job, rkyv, sys};

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Nothing;
    job!(Nothing, kind = "nothing");

    #[test]
    fn a_thread_that_cannot_start_is_an_error() {
        for name in ["jobsled-watchdog", "jobsled-writer", "jobsled-hands"] {
            let (tell, told) = std::sync::mpsc::channel();
            let open = move || {
                sys::thread::refused::set(name);
                let builder = Engine::in_memory().handle(|_: Nothing, _: &Context| Ok(()));
                let opened = builder.pool(Pool::threads("hands", 2)).open();
                tell.send(opened.map(drop)).unwrap();
            };
            sys::thread::spawn("opener", open).unwrap();
            let opened = told.recv_timeout(Duration::from_mins(1));
            let opened = opened.expect("open hangs");
            assert!(
                matches!(&opened, Err(Error::Thread { name: found, .. }) if found.starts_with(name)),
                "{name}: {opened:?}"
            );
        }
    }
}
