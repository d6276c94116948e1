//! The way into a store, whoever has it open.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::answer;
use super::place;
use super::protocol::{CALL_BYTES_MAX, Call, Code, Fault, Greeting, PROTOCOL};
use crate::error::Error;
use crate::journal;
use crate::sys::socket::{Connection, Line, Lines};
use crate::sys::{self, awake_time};
use crate::{Engine, EngineBuilder};

/// How long to wait for a process that has the store and serves no socket: perhaps it is about to open or close.
const UNSERVED_MAX: Duration = Duration::from_secs(3);
/// How long to go on trying while short commands pass the store from one to the next.
const TRY_MAX: Duration = Duration::from_mins(1);
/// Between two tries. There is nothing that would wake us: the lock is let go by another process.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// How long the other end may take to greet.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// How long a process may take to say what it knows without waiting for anything.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a single line of an answer may take once it has begun.
const LINE_MAX: Duration = Duration::from_mins(10);

/// A store that is open here, or in another process that is asked.
///
/// ```
/// use jobsled::Engine;
/// use jobsled::control::{Call, Door, StatsView};
///
/// # let dir = tempfile::tempdir().expect("a temporary directory");
/// # let store = dir.path().join("store");
/// // A program that lets others look in …
/// let program = Engine::builder(&store).control_socket(true).open()?;
/// // … and one that does.
/// let mut door = Door::open(&store, Engine::builder)?;
/// let stats: StatsView = door.call(&Call::Stats {})?;
/// assert_eq!(stats.running, 0);
/// assert!(door.engine().is_none(), "the other one has it");
/// # drop(program);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Door {
    store: PathBuf,
    builder: fn(PathBuf) -> EngineBuilder,
    side: Side,
}

enum Side {
    /// The store is open here.
    Inside(Engine),
    /// It is open there.
    Outside(Guest),
}

/// A connection to the process that has the store open.
struct Guest {
    connection: Connection,
    lines: Lines,
    greeting: Greeting,
    /// An answer was not waited for: what comes next is not the answer to what is asked next.
    is_out_of_step: bool,
}

/// What became of a call that was sent.
enum Sent {
    Answered(Result<Value, Fault>),
    /// The other end was gone before it had the call.
    NotTaken,
    /// It went before it answered.
    NotAnswered,
    /// Whoever takes the lines wants no more of them; the rest is still on its way.
    Abandoned(io::Error),
}

/// How a store was left, to notice that somebody has changed it since. Opening and closing it is no change: several
/// processes may look now and then without keeping each other awake.
#[derive(Debug)]
pub struct Seen {
    store: PathBuf,
    written: Option<u64>,
}

impl Door {
    /// Opens the store with what `builder` makes of its directory, or connects to whoever has it open.
    ///
    /// *Blocking:* as [`EngineBuilder::open`]; up to 3 s for a process that has the store open and serves no socket,
    /// and up to a minute while others open and close it in turn.
    ///
    /// # Errors
    ///
    /// [`Code::InUse`] naming the process that has the store open and does not answer; [`Code::NotOurs`]; else as
    /// [`EngineBuilder::open`].
    pub fn open(
        store: impl Into<PathBuf>,
        builder: fn(PathBuf) -> EngineBuilder,
    ) -> Result<Door, Fault> {
        let store = store.into();
        let side = enter(&store, builder)?;
        Ok(Door {
            store,
            builder,
            side,
        })
    }

    /// Connects to whoever has the store open now; never opens it. `None` if nobody answers.
    pub fn beside(
        store: impl Into<PathBuf>,
        builder: fn(PathBuf) -> EngineBuilder,
    ) -> Option<Door> {
        let store = store.into();
        let guest = Guest::connect(&store, 0).ok()?;
        Some(Door {
            store,
            builder,
            side: Side::Outside(guest),
        })
    }

    /// The engine, if the store is open here.
    pub fn engine(&self) -> Option<&Engine> {
        match &self.side {
            Side::Inside(engine) => Some(engine),
            Side::Outside(_) => None,
        }
    }

    /// Who has the store open, if it is not this process.
    pub fn greeting(&self) -> Option<&Greeting> {
        match &self.side {
            Side::Inside(_) => None,
            Side::Outside(guest) => Some(&guest.greeting),
        }
    }

    /// Carries out a call and waits for its answer. If the other process closes the store before it has the call, the
    /// store is entered anew.
    ///
    /// # Errors
    ///
    /// What the call says; [`Code::OutcomeUnknown`] if the other process ended before it answered;
    /// [`Code::NotNow`] if it ended while the call waited for something to happen there.
    pub fn call<T: DeserializeOwned>(&mut self, call: &Call) -> Result<T, Fault> {
        self.stream(call, &mut |_| Ok(()))
    }

    /// As [`call`](Door::call), for calls whose answer has several lines: `line` gets each but the last, with its
    /// end. An error of `line` ends the call.
    ///
    /// # Errors
    ///
    /// As [`call`](Door::call).
    pub fn stream<T: DeserializeOwned>(
        &mut self,
        call: &Call,
        line: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<T, Fault> {
        let until = awake_time().saturating_add(TRY_MAX);
        loop {
            let answered = match &mut self.side {
                Side::Inside(engine) => answer(engine, call.clone(), line),
                Side::Outside(guest) => match guest.say(call, line) {
                    Sent::Answered(answered) => answered,
                    Sent::NotTaken => Err(Fault::new(
                        Code::NotNow,
                        "the other process closed the store",
                    )),
                    Sent::NotAnswered if call.changes_nothing() => {
                        Err(Fault::new(Code::NotNow, "the other process ended"))
                    }
                    Sent::NotAnswered => Err(guest.lost(call)),
                    Sent::Abandoned(error) => {
                        self.side = enter(&self.store, self.builder)?;
                        return Err(Fault::new(Code::Failed, error));
                    }
                },
            };
            match answered {
                // Nothing was done, and whoever said so is about to close.
                Err(fault)
                    if fault.code == Code::NotNow
                        && self.engine().is_none()
                        && awake_time() < until =>
                {
                    pause();
                    self.side = enter(&self.store, self.builder)?;
                    if call.waits() && self.engine().is_some() {
                        // Here it could wait for ever, and keep others out meanwhile.
                        return Err(fault);
                    }
                }
                Ok(value) => {
                    let unreadable = |e| {
                        let what = format!("the answer of another version cannot be read: {e}");
                        Fault::new(Code::Failed, what)
                    };
                    return serde_json::from_value(value).map_err(unreadable);
                }
                Err(fault) => return Err(fault),
            }
        }
    }
}

impl Call {
    /// Whether it may be called again when nobody knows what became of it.
    fn changes_nothing(&self) -> bool {
        matches!(
            self,
            Call::Jobs { .. }
                | Call::Job { .. }
                | Call::Wait { .. }
                | Call::Log { .. }
                | Call::Stats {}
                | Call::Health {}
        )
    }

    /// Whether its answer takes no longer than the group that is being written.
    fn is_quick(&self) -> bool {
        matches!(
            self,
            Call::Jobs { .. } | Call::Job { .. } | Call::Stats {} | Call::Health {}
        )
    }

    /// Whether its answer comes when something has happened.
    fn waits(&self) -> bool {
        matches!(self, Call::Wait { .. } | Call::Log { .. } | Call::Watch {})
    }
}

impl Seen {
    /// How the store is now.
    pub fn now(store: impl Into<PathBuf>) -> Seen {
        let store = store.into();
        let written = groups_written(&store);
        Seen { store, written }
    }

    /// Whether anything was written since. Looks at one small file.
    pub fn has_changed(&self) -> bool {
        groups_written(&self.store) != self.written
    }
}

/// Groups that were written for another reason than to open the store; by the witness, which may be behind after a
/// power cut.
fn groups_written(store: &Path) -> Option<u64> {
    let (epoch, group) = journal::glance(store)?;
    Some(group.saturating_sub(epoch))
}

/// Fails if the store belongs to another user. Whoever may open it all the same, as root may, would make files in it
/// that lock its owner out.
///
/// # Errors
///
/// [`Code::NotOurs`].
pub fn check_owner(store: &Path) -> Result<(), Fault> {
    sys::files::check_owner(store).map_err(|(theirs, ours)| {
        let what = format!(
            "{} belongs to user {theirs} and this is user {ours}: run the command as its owner. Nothing was changed",
            store.display()
        );
        Fault::new(Code::NotOurs, what)
    })
}

/// Opens the store or finds whoever has it.
fn enter(store: &Path, builder: fn(PathBuf) -> EngineBuilder) -> Result<Side, Fault> {
    check_owner(store)?;
    let begun = awake_time();
    let mut unserved_since = begun;
    let mut last_pid = 0;
    loop {
        let locked = match builder(store.to_owned()).open() {
            Ok(engine) => return Ok(Side::Inside(engine)),
            Err(error @ Error::Locked { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        let Error::Locked { pid, here, .. } = &locked else {
            return Err(locked.into());
        };
        let (pid, here) = (*pid, *here);
        let now = awake_time();
        if pid != last_pid {
            (last_pid, unserved_since) = (pid, now);
        }
        match Guest::connect(store, pid) {
            Ok(guest) => return Ok(Side::Outside(guest)),
            Err(Some(fault)) if now.saturating_sub(begun) >= TRY_MAX => return Err(fault),
            // It answers: not now.
            Err(Some(_)) => unserved_since = now,
            Err(None) => {}
        }
        let unserved = now.saturating_sub(unserved_since);
        if here || unserved >= UNSERVED_MAX || now.saturating_sub(begun) >= TRY_MAX {
            let what = format!(
                "{locked}. It answers no calls (`control_socket` is off, or it is about to end)"
            );
            return Err(Fault::new(Code::InUse, what));
        }
        pause();
    }
}

fn pause() {
    std::thread::park_timeout(TRY_EVERY);
}

impl Guest {
    /// Connects to the process that has the lock. `None`: nobody is there, or somebody else; a fault: not now.
    fn connect(store: &Path, pid: u32) -> Result<Guest, Option<Fault>> {
        let connection = place::connect(store).map_err(|_| None)?;
        let mut lines = connection.lines();
        let first = lines.next(1 << 16, GREETING_MAX, GREETING_MAX);
        let Ok(Line::Whole(first)) = first else {
            return Err(None);
        };
        let greeting: Greeting = match serde_json::from_slice(&first) {
            Ok(greeting) => greeting,
            Err(_) => return Err(read_reply(&first).and_then(Result::err)),
        };
        if greeting.jobsled != PROTOCOL {
            let what = format!(
                "process {pid} has the store open and speaks version {} of the control protocol, this program \
                 version {PROTOCOL}: use the same version of jobsled",
                greeting.jobsled
            );
            return Err(Some(Fault::new(Code::Failed, what)));
        }
        // A copied store may have a record that leads to the original's owner.
        // What is no UTF-8 in a path comes as something else.
        let same_store = std::fs::canonicalize(store).is_ok_and(|ours| {
            ours.to_string_lossy() == greeting.store
                || sys::files::is_same(&ours, Path::new(&greeting.store))
        });
        if !same_store || (pid != 0 && greeting.pid != pid) {
            return Err(None);
        }
        Ok(Guest {
            connection,
            lines,
            greeting,
            is_out_of_step: false,
        })
    }

    fn say(&mut self, call: &Call, line: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Sent {
        let mut bytes = match serde_json::to_vec(call) {
            Ok(bytes) if bytes.len() <= CALL_BYTES_MAX => bytes,
            Ok(bytes) => {
                let what = format!(
                    "the call has {} bytes and another process has the store open, which takes {CALL_BYTES_MAX}: \
                     ask for less at a time. Nothing was done",
                    bytes.len()
                );
                return Sent::Answered(Err(Fault::new(Code::Invalid, what)));
            }
            Err(e) => return Sent::Answered(Err(Fault::new(Code::Invalid, e))),
        };
        bytes.push(b'\n');
        if self.is_out_of_step {
            return Sent::NotTaken;
        }
        let begin = if call.is_quick() {
            ANSWER_MAX
        } else {
            Duration::MAX
        };
        // Not one byte of a cut line is carried out.
        if self.connection.write(&bytes, LINE_MAX).is_err() {
            return Sent::NotTaken;
        }
        loop {
            match self.lines.next(usize::MAX, begin, LINE_MAX) {
                Ok(Line::TimedOut) => {
                    self.is_out_of_step = true;
                    let what = format!(
                        "process {}, which has the store open, has not answered for {} s: it is stopped, or its disk \
                         does not answer",
                        self.greeting.pid,
                        begin.min(LINE_MAX).as_secs()
                    );
                    return Sent::Answered(Err(Fault::new(Code::Failed, what)));
                }
                Ok(Line::Whole(mut bytes)) => match read_reply(&bytes) {
                    Some(reply) => return Sent::Answered(reply),
                    None => {
                        bytes.push(b'\n');
                        if let Err(e) = line(&bytes) {
                            return Sent::Abandoned(e);
                        }
                    }
                },
                _ => return Sent::NotAnswered,
            }
        }
    }

    /// It does not answer any more.
    fn lost(&self, call: &Call) -> Fault {
        let pid = self.greeting.pid;
        if matches!(call, Call::Watch {} | Call::Export {} | Call::Verify { .. }) {
            let what = format!(
                "process {pid}, which had the store open, has ended, or let this end go because it took nothing for \
                 too long"
            );
            return Fault::new(Code::Failed, what);
        }
        let what = format!(
            "outcome unknown: process {pid}, which had the store open, ended before it answered. What was asked may or \
             may not be done: look, or repeat it with the same key"
        );
        Fault::new(Code::OutcomeUnknown, what)
    }
}

/// The last line of an answer; `None` for one of the lines before.
pub(crate) fn read_reply(line: &[u8]) -> Option<Result<Value, Fault>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Reply {
        Ok(Value),
        Error(Fault),
    }
    // Most lines of a long answer are none, and need not be read twice.
    if !line.starts_with(b"{\"ok\":") && !line.starts_with(b"{\"error\":") {
        return None;
    }
    match serde_json::from_slice(line).ok()? {
        Reply::Ok(value) => Some(Ok(value)),
        Reply::Error(fault) => Some(Err(fault)),
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("store", &self.store)
            .field("greeting", &self.greeting())
            .finish_non_exhaustive()
    }
}
