//! Pools: where handlers run.
//!
//! A pool has a fixed number of slots. In a thread pool a slot is a thread that runs handlers; in a
//! rayon pool it is a thread that runs handlers inside the rayon pool, so that the handler's own
//! `par_iter` works there. A custom pool, and a rayon pool of leaf jobs, has one thread that passes jobs on
//! while fewer than its slots are in flight.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{self, Task, Worker};
use super::slots::Slots;
use crate::engine::{HandOut, Live, PoolHealth};
use crate::error::{Error, Result};
use crate::job::check_name;
use crate::sys;

/// How long a thread of rayon goes from one job to the next, and is kept from helping other handlers with theirs: each
/// time it is called from outside costs two threads' waking.
const RAYON_TURN: Duration = Duration::from_millis(1);

/// A pool of places where handlers run. Queues are bound to pools by [`Queue::pool`](crate::Queue::pool).
#[must_use]
pub struct Pool {
    pub(crate) name: String,
    pub(crate) slots: usize,
    pub(crate) ahead_max: usize,
    replacements_max: usize,
    kind: PoolKind,
}

enum PoolKind {
    Threads,
    Rayon { leaf: bool },
    Custom(Arc<dyn Fn(Task) + Send + Sync>),
}

impl Pool {
    /// `slots` threads of its own (1 to 1,024): for handlers that block.
    pub fn threads(name: impl Into<String>, slots: usize) -> Pool {
        Pool::new(name, slots, PoolKind::Threads)
    }

    /// A rayon pool of `slots` threads, running `slots` handlers at a time; a handler's own `par_iter` runs in it. A
    /// thread goes from one short job to the next for up to a millisecond before it helps the others with theirs.
    pub fn rayon(name: impl Into<String>, slots: usize) -> Pool {
        Pool::new(name, slots, PoolKind::Rayon { leaf: false })
    }

    /// An executor of yours, for up to `slots` jobs at a time. `spawn` gets a [`Task`] and lets
    /// [`Task::run`] be called somewhere, soon; it must not block. If it drops a task instead, or panics, the
    /// pool gets no job for a second, then for two, up to a minute, until it begins one.
    ///
    /// ```
    /// use jobsled::{Pool, Task};
    /// let pool = Pool::custom("mine", 4, |task: Task| {
    ///     std::thread::Builder::new().spawn(move || task.run()).expect("a thread");
    /// });
    /// # drop(pool);
    /// ```
    pub fn custom(
        name: impl Into<String>,
        slots: usize,
        spawn: impl Fn(Task) + Send + Sync + 'static,
    ) -> Pool {
        Pool::new(name, slots, PoolKind::Custom(Arc::new(spawn)))
    }

    fn new(name: impl Into<String>, slots: usize, kind: PoolKind) -> Pool {
        Pool {
            name: name.into(),
            slots,
            ahead_max: 1_024,
            replacements_max: slots,
            kind,
        }
    }

    /// For a rayon pool of tiny jobs that do not block: they run as rayon tasks, without a thread each.
    pub fn leaf_jobs(mut self) -> Pool {
        if let PoolKind::Rayon { leaf } = &mut self.kind {
            *leaf = true;
        }
        self
    }

    /// Most jobs claimed ahead of free slots (default 1,024). The number in use follows what the pool begins
    /// during one disk sync, so it is 0 for long jobs. 0 claims one job per free slot and no more.
    pub fn claim_ahead(mut self, most: usize) -> Pool {
        self.ahead_max = most;
        self
    }

    /// How many slots that hang at the same time are replaced by new threads (default: as many as the pool has
    /// slots). A handler that returns after all gives its replacement back. Slots beyond this number are not
    /// replaced: the pool lacks them until their handlers return ([`PoolHealth::lost`]). See
    /// [`JobDefaults::stall_timeout`](crate::JobDefaults::stall_timeout).
    pub fn replacements(mut self, most: usize) -> Pool {
        self.replacements_max = most;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_name("pool name", &self.name)?;
        if !(1..=1_024).contains(&self.slots) {
            return Err(Error::Invalid {
                what: "number of slots of a pool",
                found: format!("{} (pool `{}`)", self.slots, self.name),
                rule: "a pool has 1 to 1,024 slots; leave the handlers away to only enqueue"
                    .to_owned(),
            });
        }
        Ok(())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// A pool's threads, and what is known of their health.
pub(crate) struct Running {
    worker: Worker,
    run: Run,
    slots: Arc<Slots>,
}

/// How a slot runs a job.
enum Run {
    Here,
    InRayon(rayon::ThreadPool),
    AsRayonTask(rayon::ThreadPool),
    Custom(Arc<dyn Fn(Task) + Send + Sync>),
}

/// Starts a pool's threads.
pub(crate) fn start(pool: Pool, worker: Worker) -> Result<Arc<Running>> {
    let Pool {
        name,
        slots,
        replacements_max,
        kind,
        ..
    } = pool;
    let rayon = || {
        let name = name.clone();
        let threads = rayon::ThreadPoolBuilder::new().num_threads(slots);
        threads
            .thread_name(move |n| format!("jobsled-{name}-rayon-{n}"))
            .build()
            .map_err(|e| Error::Thread {
                name: "jobsled-rayon".to_owned(),
                source: std::io::Error::other(e.to_string()),
            })
    };
    let run = match kind {
        PoolKind::Threads => Run::Here,
        PoolKind::Rayon { leaf: false } => Run::InRayon(rayon()?),
        PoolKind::Rayon { leaf: true } => Run::AsRayonTask(rayon()?),
        PoolKind::Custom(spawn) => Run::Custom(spawn),
    };
    let passes_on = matches!(run, Run::AsRayonTask(_) | Run::Custom(_));
    let running = Arc::new(Running {
        worker,
        run,
        slots: Arc::new(Slots::new(slots, replacements_max)),
    });
    for number in 0..if passes_on { 1 } else { slots } {
        running.clone().start_slot(number)?;
    }
    Ok(running)
}

impl Running {
    fn start_slot(self: Arc<Self>, number: usize) -> Result<()> {
        let name = format!("jobsled-{}-{number}", self.worker.pool);
        let slot = self.clone();
        // Not joined: a slot may hang in a handler for ever, and an idle one ends when its pool closes.
        sys::thread::spawn(name, move || slot.serve()).map(drop)
    }

    fn serve(self: &Arc<Self>) {
        while let Some(job) = self.worker.outs.next() {
            let is_still_ours = self.run(job);
            // Another thread has taken this slot over while the handler hung.
            if !is_still_ours {
                return;
            }
        }
    }

    /// Runs a job, or passes it on. False if the slot was replaced meanwhile.
    fn run(self: &Arc<Self>, job: HandOut) -> bool {
        match &self.run {
            Run::Here => self.run_for(Duration::MAX, job),
            Run::InRayon(pool) => pool.install(|| self.run_in_rayon(job)),
            Run::AsRayonTask(pool) => {
                let permit = self.slots.enter(job.live.clone());
                let running = self.clone();
                pool.spawn(move || {
                    if !running.run_in_rayon(job) {
                        permit.has_gone_to_another();
                    }
                });
                true
            }
            Run::Custom(spawn) => {
                let task = self.task(job);
                if let Err(stop) = attempt::catch(|| {
                    spawn(task);
                    Ok(())
                }) {
                    log::error!("custom pool `{}`: {stop}", self.worker.pool);
                }
                true
            }
        }
    }

    fn run_in_rayon(&self, job: HandOut) -> bool {
        // Inside another handler's wait for rayon: that one is not kept from going on.
        let turn = if attempt::is_in_handler() {
            Duration::ZERO
        } else {
            RAYON_TURN
        };
        self.run_for(turn, job)
    }

    /// Runs a job, and then the next, as long as one waits and the `turn` is not over. False if the slot was replaced
    /// meanwhile.
    fn run_for(&self, turn: Duration, job: HandOut) -> bool {
        let Some(mut begun) = self.worker.begin(job) else {
            return true;
        };
        let until = begun.began().saturating_add(turn);
        loop {
            let live = begun.live().clone();
            let mut is_still_ours = None;
            let next = self.worker.attempt(begun, |now| {
                let is_ours = self.slots.returned(&live);
                is_still_ours = Some(is_ours);
                let more = is_ours && now.awake < until;
                more.then(|| self.worker.outs.try_next()).flatten()
            });
            if !is_still_ours.unwrap_or_else(|| self.slots.returned(&live)) {
                return false;
            }
            match next {
                Some(next) => begun = next,
                None => return true,
            }
        }
    }

    fn task(&self, job: HandOut) -> Task {
        let permit = self.slots.enter(job.live.clone());
        Task {
            job: Some(job),
            worker: self.worker.clone(),
            _permit: permit,
        }
    }

    /// A slot hangs in this handler: lets another thread (or place) take over; false past the bound.
    pub(crate) fn replace_slot(self: &Arc<Self>, live: &Live) -> bool {
        self.slots.hangs(live, |number| match &self.run {
            Run::Here | Run::InRayon(_) => {
                let started = self.clone().start_slot(number);
                started.inspect_err(|e| log::error!("{e}")).is_ok()
            }
            // Passed on without a thread of ours: the place is enough.
            Run::AsRayonTask(_) | Run::Custom(_) => true,
        })
    }

    pub(crate) fn health(&self) -> PoolHealth {
        let (replaced, lost) = self.slots.hanging();
        PoolHealth {
            name: self.worker.pool.to_string(),
            slots: self.slots.count(),
            replaced,
            lost,
        }
    }
}
