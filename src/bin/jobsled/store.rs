//! Which store is meant, and the way into it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy;
use jobsled::control::{Call, Code, Door, Fault, JobPage, JobView, Seen};
use jobsled::{Clock, Engine, EngineBuilder, SystemClock};
use serde::de::DeserializeOwned;

use crate::commands::Failure;

/// What commands share: the store, once they need it, and how they speak.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) store: PathBuf,
    pub(crate) json: bool,
    /// A store that another host left open may be opened.
    pub(crate) take_over: bool,
}

/// An open store, here or there.
#[derive(Debug)]
pub(crate) struct Open<'s> {
    session: &'s Session,
    pub(crate) door: Door,
}

impl Session {
    /// The store that is named on the command line, or in the environment, or the user's own.
    pub(crate) fn new(
        named: Option<PathBuf>,
        json: bool,
        take_over: bool,
    ) -> Result<Session, Failure> {
        let from_env = || std::env::var_os("JOBSLED_STORE").filter(|dir| !dir.is_empty());
        let store = match named.or_else(|| from_env().map(PathBuf::from)) {
            Some(store) => store,
            None => etcetera::choose_base_strategy()
                .map_err(|e| {
                    Failure::usage(format!(
                        "this user has no directory for data ({e}): name a store with --store DIR"
                    ))
                })?
                .data_dir()
                .join("jobsled"),
        };
        Ok(Session {
            store,
            json,
            take_over,
        })
    }

    /// Enters the store to look or to change what is there; makes none.
    pub(crate) fn enter(&self) -> Result<Open<'_>, Failure> {
        self.check_there()?;
        self.open()
    }

    /// There must be a store.
    pub(crate) fn check_there(&self) -> Result<(), Failure> {
        if is_store(&self.store) {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "there is no store at {}: `jobsled add` makes one, --store names another",
            self.store.display()
        )))
    }

    /// Enters the store; makes it if there is none.
    pub(crate) fn enter_or_make(&self) -> Result<Open<'_>, Failure> {
        self.make_parents()?;
        self.open()
    }

    /// The directories above the store.
    pub(crate) fn make_parents(&self) -> Result<(), Failure> {
        match self.store.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => std::fs::create_dir_all(parent)
                .map_err(|e| {
                    Failure::failed(format!(
                        "could not make {} for the store: {e}",
                        parent.display()
                    ))
                }),
            _ => Ok(()),
        }
    }

    fn open(&self) -> Result<Open<'_>, Failure> {
        let builder = if self.take_over { taking_over } else { guest };
        let door = Door::open(&self.store, builder).map_err(|fault| self.failure(&fault))?;
        Ok(Open {
            session: self,
            door,
        })
    }

    /// How the store is. Taken before it is left, so that nothing is missed.
    pub(crate) fn seen(&self) -> Seen {
        Seen::now(&self.store)
    }

    /// The way to whoever has the store open now, if somebody answers.
    pub(crate) fn beside(&self) -> Option<Door> {
        Door::beside(&self.store, guest)
    }

    /// Waits until somebody works in the store, or has changed it since; for a caller that has left it. There is no
    /// process that could tell. False if time is up.
    pub(crate) fn until_changed(&self, seen: &Seen, within: Duration) -> bool {
        /// Between two looks.
        const LOOK_EVERY: Duration = Duration::from_millis(200);
        let begun = SystemClock.now().steady;
        while !seen.has_changed() && !self.is_worked() {
            let left = within.saturating_sub(SystemClock.now().steady.saturating_sub(begun));
            if left.is_zero() {
                return false;
            }
            std::thread::park_timeout(left.min(LOOK_EVERY));
        }
        true
    }

    /// Whether a program that runs jobs has the store open.
    pub(crate) fn is_worked(&self) -> bool {
        let door = self.beside();
        let greeting = door.as_ref().and_then(Door::greeting);
        greeting.is_some_and(|greeting| !greeting.runs.is_empty())
    }

    /// A fault in the words of the program, the store named.
    pub(crate) fn failure(&self, fault: &Fault) -> Failure {
        let store = self.store.display().to_string();
        // What a program would write, in the words of a command line.
        let words = fault.message.replace("`take_over(true)`", "--take-over");
        let words = if words.contains(&store) {
            words
        } else {
            format!("{words} (store {store})")
        };
        Failure::Fault(fault.code, words)
    }
}

impl Open<'_> {
    pub(crate) fn call<T: DeserializeOwned>(&mut self, call: &Call) -> Result<T, Failure> {
        let answered = self.door.call(call);
        answered.map_err(|fault| self.session.failure(&fault))
    }

    pub(crate) fn stream<T: DeserializeOwned>(
        &mut self,
        call: &Call,
        line: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<T, Failure> {
        let answered = self.door.stream(call, line);
        answered.map_err(|fault| self.session.failure(&fault))
    }

    /// A page of jobs.
    pub(crate) fn jobs(&mut self, call: &Call) -> Result<JobPage, Failure> {
        let mut page: JobPage = self.call(call)?;
        page.jobs.iter_mut().for_each(|job| self.as_seen(job));
        Ok(page)
    }

    /// A job with payload and output.
    pub(crate) fn job(&mut self, id: u64) -> Result<Option<JobView>, Failure> {
        let mut job: Option<JobView> = self.call(&Call::Job { id })?;
        job.iter_mut().for_each(|job| self.as_seen(job));
        Ok(job)
    }

    /// This program runs no jobs on a visit: that somebody is missing who does is no news.
    fn as_seen(&self, job: &mut JobView) {
        job.parked &= self
            .door
            .greeting()
            .is_some_and(|greeting| !greeting.runs.is_empty());
    }

    /// Whether somebody has the store open who runs jobs of this kind.
    pub(crate) fn is_run(&self, kind: &str) -> bool {
        let greeting = self.door.greeting();
        greeting.is_some_and(|greeting| greeting.runs.iter().any(|runs| runs == kind))
    }
}

/// For a short visit: runs nothing, and deletes nothing by its own idea of what is worth keeping.
fn guest(store: PathBuf) -> EngineBuilder {
    Engine::builder(store)
        .control_socket(true)
        .keep_finished(usize::MAX)
        .keep_dead(usize::MAX, Duration::MAX)
}

fn taking_over(store: PathBuf) -> EngineBuilder {
    guest(store).take_over(true)
}

fn is_store(dir: &Path) -> bool {
    // While a store is opened or closed its journal may have the one name or the other, also between two looks.
    let has = |name| dir.join(name).exists();
    has("journal") || has("journal.old") || has("journal")
}

/// The exit code of a fault.
pub(crate) fn exit_code(code: Code) -> u8 {
    match code {
        Code::Invalid | Code::NotAStore | Code::NotOurs => 2,
        Code::InUse => 3,
        Code::Damaged => 4,
        Code::DiskFull => 5,
        _ => 1,
    }
}
