//! A kit for the tests of programs that use Jobsled (feature `testing`): handlers on a clock that stands still,
//! everything that is due in its order, and a crash after any step.
//!
//! A [`Rehearsal`] is an engine in memory whose handlers run on the thread that asks for it, one at a time. Nothing
//! happens by itself: [`run_due`](Rehearsal::run_due) runs what is due, [`advance`](Rehearsal::advance) moves the
//! clock, [`crash`](Rehearsal::crash) is a power cut. [`every_crash`] plays a program as often as it has durable
//! steps, and lets the power go after another one each time: what holds then holds after a real crash at any of
//! these moments.
//!
//! ```
//! use std::time::Duration;
//! use jobsled::testing::Rehearsal;
//! use jobsled::{Context, Engine, JobResult, State, job, rkyv};
//!
//! #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
//! #[rkyv(crate = jobsled::rkyv)]
//! struct Remind;
//! job!(Remind, kind = "remind");
//!
//! let mut rehearsal = Rehearsal::of(|| Engine::in_memory().handle(|_: Remind, _: &Context| Ok(())))?;
//! let job = rehearsal.engine().job(Remind).after(Duration::from_secs(3_600)).enqueue()?;
//! assert_eq!(rehearsal.run_due()?, 0, "not yet");
//! rehearsal.advance(Duration::from_secs(3_600));
//! assert_eq!(rehearsal.run_due()?, 1);
//! rehearsal.crash()?;
//! assert_eq!(rehearsal.state(job.handle().id())?, Some(State::Completed), "and it stays so");
//! # Ok::<(), jobsled::Error>(())
//! ```
//!
//! What it does not show: a handler is not cut off in its middle (the crash falls before it began, or when its end
//! is to be stored: as far as the store knows, these are all there are); nothing runs beside anything else.

use std::fmt;
use std::time::Duration;

use crossbeam_channel::{Receiver, select_biased, unbounded};

use crate::builder::EngineBuilder;
use crate::clock::{Clock, ManualClock};
use crate::engine::{Command, Engine, MemoryStore, Reply};
use crate::error::{Error, Result};
use crate::job::{JobId, State};
use crate::ledger::Idle;
use crate::worker::Task;

/// Where the clock stands at first: 2023-11-14T22:13:20Z.
const FIRST_MS: i64 = 1_700_000_000_000;
/// What waits for a clock that can be trusted waits this long: expiry, for one.
const TRUSTED_AFTER: Duration = Duration::from_mins(1);

type Make = Box<dyn Fn() -> EngineBuilder + Send>;

/// A program on a stage: its engine in memory, its handlers on the caller's thread, its clock by hand. See the
/// [module](self).
pub struct Rehearsal {
    make: Make,
    store: MemoryStore,
    clock: ManualClock,
    /// `None` only if an opening failed.
    engine: Option<Engine>,
    tasks: Receiver<Task>,
}

impl Rehearsal {
    /// Opens a new store. `make` gives the program's options, after each crash again: its handlers, queues, limits.
    /// Where they name a directory, a clock or pools, the rehearsal's take their place: all is in memory, each pool
    /// has one slot, and that is whoever calls [`run_due`](Rehearsal::run_due).
    ///
    /// # Errors
    ///
    /// As [`EngineBuilder::open`] for options.
    pub fn of(make: impl Fn() -> EngineBuilder + Send + 'static) -> Result<Rehearsal> {
        let clock = ManualClock::at(FIRST_MS);
        let mut rehearsal = Rehearsal {
            make: Box::new(make),
            store: MemoryStore::new(&clock)?,
            clock,
            engine: None,
            tasks: unbounded().1,
        };
        rehearsal.open()?;
        Ok(rehearsal)
    }

    fn open(&mut self) -> Result<()> {
        let (stage, tasks) = unbounded();
        let builder = (self.make)().clock(self.clock.clone());
        let engine = builder.rehearse(&self.store, move |task| {
            // Nobody takes it any more: dropped, and that is right.
            let _ = stage.send(task);
        })?;
        (self.engine, self.tasks) = (Some(engine), tasks);
        Ok(())
    }

    /// The engine, to enqueue, cancel, look: everything but wait for a job, which would wait for ever, for the
    /// handlers run on this very thread.
    ///
    /// # Panics
    ///
    /// If [`crash`](Rehearsal::crash) failed to open the store again.
    pub fn engine(&self) -> &Engine {
        #[expect(clippy::expect_used, reason = "told in the documentation")]
        self.engine.as_ref().expect("the store was opened")
    }

    /// The clock. Moving it runs nothing.
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Runs the job that is next, if one is due. False: none is.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] and [`Error::Unknown`] after a crash that was [planned](Rehearsal::crash_after).
    pub fn run_one(&mut self) -> Result<bool> {
        while let Some(task) = self.next_task()? {
            // A more urgent job came in and has its place.
            if task.is_taken_back() {
                continue;
            }
            task.run();
            // Answered after the group in which the attempt ends.
            self.engine().stats()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Waits for a job that is handed out, or for the word that there is none to come.
    fn next_task(&self) -> Result<Option<Task>> {
        let (reply, quiet) = Reply::by_channel();
        let until = Idle::NothingToStart;
        let inbox = &self.engine().shared.inbox;
        inbox.send_unbounded(Command::WaitIdle { until, reply });
        select_biased! {
            recv(self.tasks) -> task => Ok(task.ok()),
            recv(quiet) -> answer => answer.unwrap_or(Err(Error::Closed)).map(|()| None),
        }
    }

    /// Runs all that is due now, and what becomes due by that without waiting, in order of priority. Says how many
    /// attempts that were.
    ///
    /// # Errors
    ///
    /// As [`run_one`](Rehearsal::run_one).
    pub fn run_due(&mut self) -> Result<u64> {
        let mut attempts = 0;
        while self.run_one()? {
            attempts += 1;
        }
        Ok(attempts)
    }

    /// Runs all that is due, moves the clock to when the next job is, and so on: until no job waits that a handler
    /// here could run, or `within` has passed on the clock. Says how many attempts that were.
    ///
    /// # Errors
    ///
    /// As [`run_one`](Rehearsal::run_one).
    pub fn run_all(&mut self, within: Duration) -> Result<u64> {
        let until = self.clock.now().steady.saturating_add(within);
        let mut attempts = self.run_due()?;
        while let Some(wait) = self.until_next()? {
            if self.clock.now().steady.saturating_add(wait) > until {
                break;
            }
            self.advance(wait);
            attempts += self.run_due()?;
        }
        Ok(attempts)
    }

    /// How long until something is due; `None` if nothing waits for a time.
    fn until_next(&self) -> Result<Option<Duration>> {
        let now_ms = self.clock.now().wall_ms;
        let jobs = self.engine().jobs().limit(usize::MAX).list()?;
        let scheduled = jobs.iter().filter(|job| job.state == State::Scheduled);
        let due_ms = scheduled.map(|job| job.due_ms).min();
        let expires =
            |job: &&crate::JobInfo| !job.state.is_finished() && job.expires_at_ms.is_some();
        let until = |at_ms: i64| u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0);
        Ok(match due_ms {
            Some(at_ms) => Some(Duration::from_millis(until(at_ms).max(1))),
            None => jobs
                .iter()
                .any(|job| expires(&job))
                .then_some(TRUSTED_AFTER),
        })
    }

    /// The power goes, now, and comes back: the store is opened again by new options. What ran or was claimed runs
    /// again as after a crash; handles and everything else of the engine before are of no use any more.
    ///
    /// # Errors
    ///
    /// As [`EngineBuilder::open`].
    pub fn crash(&mut self) -> Result<()> {
        self.store.disk.fail_from_sync(self.steps() + 1);
        // What was handed out is forgotten with the process.
        self.tasks = unbounded().1;
        self.engine = None;
        self.store.disk.cut_power(|| false);
        self.store.disk.heal();
        self.open()
    }

    /// Plans a power cut: `steps` more will be on stable storage, and no other. From then on the engine refuses
    /// everything, as one whose disk has failed; [`crash`](Rehearsal::crash) brings it back.
    pub fn crash_after(&mut self, steps: u64) {
        self.store.disk.fail_from_sync(self.steps() + steps + 1);
    }

    /// Durable steps so far: each is a group of changes that was put on stable storage at once.
    pub fn steps(&self) -> u64 {
        self.store.disk.syncs()
    }

    /// Whether a planned power cut has come.
    pub fn has_crashed(&self) -> bool {
        self.store.disk.has_failed()
    }

    /// A job's state; `None` if there is no such job.
    ///
    /// # Errors
    ///
    /// As [`Engine::details`].
    pub fn state(&self, id: JobId) -> Result<Option<State>> {
        Ok(self.engine().details(id)?.map(|job| job.info.state))
    }
}

impl fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rehearsal")
            .field("clock", &self.clock)
            .field("steps", &self.steps())
            .finish_non_exhaustive()
    }
}

/// Plays a program once for each of its durable steps, with a power cut right before that step; and once without.
/// Says how many cuts there were.
///
/// `play` is the program: it enqueues, runs what is due, and so on. When the power goes, its calls fail, and it is
/// called again from its beginning with the store as it was left, as a real program would be started again. So it
/// must expect to find its own earlier work: give jobs that may be asked for twice a [key](crate::Request::key).
/// When it has come to its end, `check` looks at what came of it; it gets the number of the step that was cut off.
///
/// ```
/// # use std::time::Duration;
/// # use jobsled::{Context, Engine, JobResult, job, rkyv};
/// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// # #[rkyv(crate = jobsled::rkyv)]
/// # struct Charge { order: u32 }
/// # job!(Charge, kind = "charge");
/// let cuts = jobsled::testing::every_crash(
///     || Engine::in_memory().handle(|_: Charge, _: &Context| Ok(())),
///     |program| {
///         program.engine().job(Charge { order: 7 }).key("order-7").enqueue()?;
///         program.run_all(Duration::from_secs(3_600)).map(drop)
///     },
///     |program, step| {
///         let completed = program.engine().stats()?.counters.completed;
///         assert_eq!(completed, 1, "cut off at step {step}");
///         Ok(())
///     },
/// )?;
/// assert!(cuts > 0);
/// # Ok::<(), jobsled::Error>(())
/// ```
///
/// # Errors
///
/// The first error of `check`, of `play` while the power is on, or of an opening.
pub fn every_crash(
    make: impl Fn() -> EngineBuilder + Clone + Send + 'static,
    mut play: impl FnMut(&mut Rehearsal) -> Result<()>,
    mut check: impl FnMut(&mut Rehearsal, u64) -> Result<()>,
) -> Result<u64> {
    for step in 0.. {
        let mut rehearsal = Rehearsal::of(make.clone())?;
        rehearsal.crash_after(step);
        let mut played = play(&mut rehearsal);
        let cut = rehearsal.has_crashed();
        if cut {
            rehearsal.crash()?;
            played = play(&mut rehearsal);
        }
        played?;
        rehearsal.store.disk.heal();
        check(&mut rehearsal, step)?;
        if !cut {
            return Ok(step);
        }
    }
    Ok(0)
}
