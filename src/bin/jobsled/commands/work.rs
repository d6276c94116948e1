//! `jobsled work`: runs jobs until told to stop.

use std::fmt;
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jobsled::control::{Code, Door, EventView, Fault, JobView, check_owner};
use jobsled::{
    Clock, Counters, Engine, Error, Event, Events, JobId, Pool, State, Stats, SystemClock, What,
    command,
};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Failure, Verdict};
use crate::args::WorkArgs;
use crate::output::{self, clean, count, counted};
use crate::store::Session;
use crate::time;

/// How long to wait while others have the store open for a moment each.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long to wait for one that answers no calls: perhaps it is about to open or close.
const UNSERVED_MAX: Duration = Duration::from_secs(3);
/// Between two tries to open it.
const TRY_EVERY: Duration = Duration::from_millis(50);
/// How often the live line is renewed.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// What commands have to end once they were killed.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// What wakes the main thread.
enum Wake {
    /// Somebody wants an end.
    Signal,
    News(Event),
    /// The engine is closed, and all news were told.
    Closed,
    /// Nothing runs, and nothing is left that could start.
    Quiet,
}

/// News that wait to be told.
const NEWS_MAX: usize = 4_096;

pub(crate) fn run(session: &Session, args: &WorkArgs) -> Result<Verdict, Failure> {
    let (wake, wakes) = channel();
    // First of all: a signal in the next moment must not be missed.
    listen_to_signals(wake.clone())?;
    session.make_parents()?;
    check_owner(&session.store).map_err(|fault| session.failure(&fault))?;
    let (engine, news) = open(session, args)?;
    let failed = |e: Error| session.failure(&e.into());
    tell_news(news, wake.clone())?;
    if args.drain {
        tell_when_quiet(&engine, wake.clone())?;
    }
    let mut worker = Worker {
        session,
        engine: &engine,
        line: LiveLine::new(),
        begun: SystemClock.now().steady,
        before: engine.stats().map_err(failed)?,
        now: None,
        stopping: false,
        closed: false,
    };
    worker.introduce(args)?;
    worker.serve(&wakes, &wake).map_err(failed)?;
    worker.take_leave();
    Ok(Verdict::Well)
}

/// Opens the store to work in it, once those who have it open for a moment have left. Another that runs jobs stays.
fn open(session: &Session, args: &WorkArgs) -> Result<(Engine, Events), Failure> {
    let begun = SystemClock.now().steady;
    let (mut last_pid, mut unserved_since) = (0, begun);
    loop {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let workers = args.workers.map_or(cores, usize::from);
        let mut builder = Engine::builder(&session.store)
            .control_socket(true)
            .take_over(session.take_over)
            // A job that waits for a free slot may as well wait in its queue, where others outrank it.
            .pool(Pool::threads("default", workers).claim_ahead(0))
            .handle(command::run);
        if !args.queue.is_empty() {
            builder = builder.only_queues(args.queue.clone());
        }
        // From the very first: what was ready starts with the opening.
        let news = builder.subscribe(NEWS_MAX);
        let locked = match builder.open() {
            Ok(engine) => return Ok((engine, news)),
            Err(error) => error,
        };
        let Error::Locked { pid, .. } = locked else {
            return Err(session.failure(&locked.into()));
        };
        let door = session.beside();
        let now = SystemClock.now().steady;
        if pid != last_pid || door.is_some() {
            (last_pid, unserved_since) = (pid, now);
        }
        if let Some(greeting) = door.as_ref().and_then(Door::greeting)
            && !greeting.runs.is_empty()
        {
            let words = format!(
                "process {} runs the jobs of {} already: a store has one worker; --workers says how many jobs it \
                 runs at a time",
                greeting.pid,
                session.store.display()
            );
            return Err(Failure::Fault(Code::InUse, words));
        }
        let lasts = |since, most| now.saturating_sub(since) >= most;
        if lasts(begun, PATIENCE) || lasts(unserved_since, UNSERVED_MAX) {
            return Err(session.failure(&Fault::from(locked)));
        }
        std::thread::park_timeout(TRY_EVERY);
    }
}

fn listen_to_signals(wake: Sender<Wake>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|e| Failure::failed(format!("could not listen to signals: {e}")))?;
    start("signals", move || {
        for _ in signals.forever() {
            if wake.send(Wake::Signal).is_err() {
                return;
            }
        }
    })
}

/// Passes news on until the engine is closed.
fn tell_news(news: Events, wake: Sender<Wake>) -> Result<(), Failure> {
    start("news", move || {
        while let Some(event) = news.recv() {
            wake.send(Wake::News(event)).ok();
        }
        wake.send(Wake::Closed).ok();
    })
}

/// Says so once nothing runs and nothing could start. On a thread of its own, which ends with the engine.
fn tell_when_quiet(engine: &Engine, wake: Sender<Wake>) -> Result<(), Failure> {
    let engine = engine.clone();
    start("quiet", move || {
        if let Ok(true) = engine.wait_until_quiet(Duration::MAX) {
            drop(engine);
            wake.send(Wake::Quiet).ok();
        }
    })
}

fn start(name: &str, f: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(f);
    thread
        .map(drop)
        .map_err(|e| Failure::failed(format!("could not start a thread: {e}")))
}

struct Worker<'w> {
    session: &'w Session,
    engine: &'w Engine,
    line: LiveLine,
    begun: Duration,
    /// Figures when it began and when they were last looked at.
    before: Stats,
    now: Option<Stats>,
    stopping: bool,
    closed: bool,
}

impl Worker<'_> {
    fn introduce(&self, args: &WorkArgs) -> Result<(), Failure> {
        if self.session.json {
            output::say(
                json!({ "event": "open", "pid": std::process::id(), "store": self.session.store }),
            );
            return Ok(());
        }
        let stats = self
            .engine
            .stats()
            .map_err(|e| self.session.failure(&e.into()))?;
        let waiting = stats.count(State::Ready) + stats.count(State::Scheduled);
        let queues = if args.queue.is_empty() {
            String::new()
        } else {
            format!(" of {}", args.queue.join(", "))
        };
        let health = self.engine.health();
        let slots: usize = health.pools.iter().map(|pool| pool.slots).sum();
        output::note(format_args!(
            "Running jobs{queues} in {}, {} at a time; {} waiting.",
            self.session.store.display(),
            slots,
            count(waiting)
        ));
        Ok(())
    }

    /// Until told to stop, or nothing is left.
    fn serve(&mut self, wakes: &Receiver<Wake>, wake: &Sender<Wake>) -> jobsled::Result<()> {
        loop {
            let next = if self.line.is_shown() {
                self.show();
                wakes.recv_timeout(RENEW_EVERY)
            } else {
                wakes.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(Wake::News(event)) => self.tell(&event),
                Ok(Wake::Signal) if self.stopping => self.close()?,
                Ok(Wake::Signal) => self.stop(wake)?,
                Ok(Wake::Quiet) => self.close()?,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Wake::Closed) | Err(RecvTimeoutError::Disconnected) => return self.verdict(),
            }
            self.verdict()?;
        }
    }

    /// Whether the engine is well, or was closed by us.
    fn verdict(&self) -> jobsled::Result<()> {
        match self.engine.health().poisoned {
            Some(cause) if !self.closed => Err(Error::Refused { cause }),
            _ => Ok(()),
        }
    }

    /// What runs is finished, nothing new begins.
    fn stop(&mut self, wake: &Sender<Wake>) -> jobsled::Result<()> {
        self.stopping = true;
        self.engine.stop_claiming()?;
        let running = self.engine.stats()?.running;
        if !self.session.json {
            self.line.above(format_args!(
                "Stopping: {} to finish. Once more to stop now.",
                counted(running, "running job")
            ));
        }
        if tell_when_quiet(self.engine, wake.clone()).is_err() {
            return self.close();
        }
        Ok(())
    }

    /// What still runs is killed and given back.
    fn close(&mut self) -> jobsled::Result<()> {
        self.line.clear();
        if self.closed {
            return Ok(());
        }
        self.closed = true;
        self.now = Some(self.engine.stats()?);
        match self.engine.shutdown(KILL_GRACE) {
            Ok(report) if report.given_back > 0 => {
                let jobs = counted(report.given_back, "job");
                output::note(format_args!("{jobs} did not end in time."));
                Ok(())
            }
            closed => closed.map(drop),
        }
    }

    /// Jobs that came to an end since it began, and those of them that died.
    fn done(&self) -> (u64, u64) {
        let (was, is) = (
            &self.before.counters,
            self.now.as_ref().unwrap_or(&self.before),
        );
        let is = &is.counters;
        let ended = |c: &Counters| c.completed + c.cancelled + c.died;
        (
            ended(is).saturating_sub(ended(was)),
            is.died.saturating_sub(was.died),
        )
    }

    fn tell(&self, event: &Event) {
        if self.session.json {
            if !matches!(event.what, What::Progress { .. }) {
                let event = EventView::from(event);
                output::json(&event);
            }
            return;
        }
        let id = event.id;
        let words = match event.what {
            What::Died | What::Retried => Some(self.trouble(id)),
            What::Claimed if !self.line.is_shown() => Some("begins".to_owned()),
            What::Completed | What::Cancelled if !self.line.is_shown() => {
                Some(event.what.name().to_owned())
            }
            _ => None,
        };
        if let Some(words) = words {
            self.line.above(format_args!(
                "{}  job {id} {words}",
                time::shown(event.at_ms)
            ));
        }
    }

    /// Why an attempt failed.
    fn trouble(&self, id: JobId) -> String {
        let details = self.engine.details(id).ok().flatten();
        let Some(details) = details else {
            return "failed".to_owned();
        };
        let job = JobView::from(details);
        let why = super::show::why_ended(&job);
        let again = if job.state == State::Dead.name() {
            ""
        } else {
            ", to be tried again"
        };
        format!("failed: {}{again} ({})", clean(&why), super::ls::what(&job))
    }

    /// Renews the live line.
    fn show(&mut self) {
        let Ok(stats) = self.engine.stats() else {
            return;
        };
        let (ready, running) = (stats.count(State::Ready), stats.running);
        let later = stats.count(State::Scheduled);
        let spent = SystemClock.now().steady.saturating_sub(self.begun);
        let mut text = format!("{} running, {} waiting", count(running), count(ready));
        let mut add = |more: String| {
            text += ", ";
            text += &more;
        };
        if later > 0 {
            add(format!("{} later", count(later)));
        }
        self.now = Some(stats);
        let (ended, dead) = self.done();
        add(format!("{} done", count(ended)));
        if dead > 0 {
            add(format!("{} of them failed", count(dead)));
        }
        if let Some(rate) = Rate::of(ended, spent) {
            add(rate.to_string());
            if ready > 0 && !self.stopping {
                add(format!("about {} left", rate.time_for(ready + running)));
            }
        }
        self.line.set(&text);
    }

    fn take_leave(&self) {
        self.line.clear();
        let (ended, dead) = self.done();
        if self.session.json {
            output::say(json!({ "event": "closed", "ended": ended, "dead": dead }));
            return;
        }
        let spent = SystemClock.now().steady.saturating_sub(self.begun);
        let failed = if dead > 0 {
            format!(", {} of them failed", count(dead))
        } else {
            String::new()
        };
        let ms = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
        output::note(format_args!(
            "{} done{failed} in {}.",
            counted(ended, "job"),
            time::short(ms)
        ));
    }
}

/// Jobs done in a time.
struct Rate {
    done: u64,
    spent_ms: u64,
}

impl Rate {
    /// `None` before there is anything to go by.
    fn of(done: u64, spent: Duration) -> Option<Rate> {
        let spent_ms = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
        (done > 0 && spent_ms >= 1_000).then_some(Rate { done, spent_ms })
    }

    fn time_for(&self, jobs: u64) -> String {
        time::short(self.spent_ms.saturating_mul(jobs) / self.done)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_minute = self.done.saturating_mul(60_000) / self.spent_ms;
        if per_minute >= 600 {
            write!(f, "{} a second", count(per_minute / 60))
        } else {
            write!(f, "{} a minute", count(per_minute))
        }
    }
}

/// A line on stderr that changes, on a terminal; without one there are only the lines above it.
struct LiveLine {
    bar: Option<ProgressBar>,
}

impl LiveLine {
    fn new() -> LiveLine {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            ProgressBar::new_spinner().with_style(style)
        });
        LiveLine { bar }
    }

    fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    fn set(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            bar.tick();
        }
    }

    fn above(&self, line: impl fmt::Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(line)),
            None => output::note(line),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
