//! Whoever has a store open answers calls at a socket in it.
//!
//! A thread accepts, one more serves each connection. They use the public API like any other caller: a client that
//! is slow, silent or gone holds up its own thread and nothing else.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::answer::{Sink, answer};
use super::place;
use super::protocol::{CALL_BYTES_MAX, Call, Code, Fault, Greeting, PROTOCOL};
use crate::Engine;
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::socket::{Connection, Line, Lines, Listener};

/// Connections at the same time: each has a thread.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may be silent between two calls.
const SILENCE_MAX: Duration = Duration::from_mins(10);
/// How long a call may take to come in, once it has begun.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a client may take no byte of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait after a connection could not be taken. Nothing tells when it can be.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long closing waits for the last answers to be taken.
const FAREWELL: Duration = Duration::from_secs(2);

/// The socket of an open engine.
pub(crate) struct Server {
    listener: Arc<Listener>,
    files: Vec<PathBuf>,
    guests: Arc<Guests>,
}

/// The connections that are served.
#[derive(Default)]
struct Guests {
    here: Mutex<Present>,
    left: Condvar,
}

#[derive(Default)]
struct Present {
    closing: bool,
    next: u64,
    connections: HashMap<u64, Connection>,
}

/// Opens the socket in the engine's store.
pub(crate) fn serve(engine: &Engine, store: &Path) -> Result<Server> {
    let (listener, files) = place::listen(store)?;
    let server = Server {
        listener: Arc::new(listener),
        files,
        guests: Arc::default(),
    };
    let greeting = line(&Greeting {
        jobsled: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        // Whole: the other end has another working directory.
        store: fs::canonicalize(store)
            .map_err(Error::io("look at", store))?
            .display()
            .to_string(),
        runs: engine.kinds(),
    });
    let (listener, guests) = (server.listener.clone(), server.guests.clone());
    // Not one that keeps the engine alive: the socket closes with it.
    let engine = Engine::unguarded(engine.shared.clone());
    sys::thread::spawn("jobsled-control", move || {
        while !guests.is_closing() {
            match listener.accept() {
                Ok(connection) => receive(&engine, &guests, &connection, &greeting),
                Err(_) if guests.is_closing() => {}
                Err(error) => {
                    // Too many open files, or a client that left at once: it may be better in a moment.
                    log::warn!("the control socket could not take a connection: {error}");
                    std::thread::park_timeout(ACCEPT_AGAIN);
                }
            }
        }
    })?;
    Ok(server)
}

/// Greets a new connection and gives it a thread.
fn receive(engine: &Engine, guests: &Arc<Guests>, connection: &Connection, greeting: &[u8]) {
    let Some(number) = guests.come(connection) else {
        let busy = Fault::new(
            Code::NotNow,
            format!("{CONNECTIONS_MAX} connections are open already: try again. Nothing was done"),
        );
        // It may be gone by now.
        let _ = connection.write(&reply(Err(busy)), PATIENCE);
        return;
    };
    let (engine, leaving, greeting) = (engine.clone(), guests.clone(), greeting.to_vec());
    let serving = connection.clone();
    let started = sys::thread::spawn("jobsled-guest", move || {
        let _leaves = Leaves(&leaving, number);
        if let Err(error) = converse(&engine, &serving, &greeting) {
            log::debug!("a client of the control socket is gone: {error}");
        }
    });
    if let Err(error) = started {
        log::warn!("{error}; a client of the control socket was turned away");
        guests.leave(number);
    }
}

/// Answers calls until one end has enough.
fn converse(engine: &Engine, connection: &Connection, greeting: &[u8]) -> std::io::Result<()> {
    connection.write(greeting, PATIENCE)?;
    let mut lines: Lines = connection.lines();
    loop {
        let fault = match lines.next(CALL_BYTES_MAX, SILENCE_MAX, CALL_TIME_MAX)? {
            Line::End => return Ok(()),
            Line::Whole(line) => {
                let mut sink = |line: &[u8]| connection.write(line, PATIENCE);
                let last = respond(engine, &line, &mut sink);
                connection.write(&last, PATIENCE)?;
                continue;
            }
            Line::TooLong => Fault::new(
                Code::Invalid,
                format!("a call has at most {CALL_BYTES_MAX} bytes. Nothing was done"),
            ),
            Line::TimedOut => Fault::new(
                Code::NotNow,
                "the call did not come to its end in time. Nothing was done",
            ),
        };
        // What follows on this connection cannot be understood any more.
        return connection.write(&reply(Err(fault)), PATIENCE);
    }
}

/// Carries out a call: the last line of its answer. The lines before it go to the sink.
pub(crate) fn respond(engine: &Engine, line: &[u8], sink: Sink<'_>) -> Vec<u8> {
    reply(understand(line).and_then(|call| answer(engine, call, sink)))
}

fn understand(line: &[u8]) -> std::result::Result<Call, Fault> {
    serde_json::from_slice(line).map_err(|e| {
        let what = format!("not a call that is known here: {e}. Nothing was done");
        Fault::new(Code::Invalid, what)
    })
}

/// The last line of an answer.
fn reply(answered: std::result::Result<serde_json::Value, Fault>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Reply {
        Ok(serde_json::Value),
        Error(Fault),
    }
    line(&match answered {
        Ok(answer) => Reply::Ok(answer),
        Err(fault) => Reply::Error(fault),
    })
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

impl Server {
    /// Lets nobody in any more and takes the socket away. What was called before is still answered.
    pub(crate) fn close(&self) {
        {
            let mut here = self.guests.here.lock();
            here.closing = true;
            here.connections.values().for_each(Connection::stop_reading);
        }
        self.listener.stop();
        for file in &self.files {
            // Left over, it is taken away by the next one to listen here.
            let _ = std::fs::remove_file(file);
        }
    }

    /// Waits until the last answers are taken, if that is soon. After the engine has closed: by then nobody waits for
    /// it any more.
    pub(crate) fn see_off(&self) {
        let mut here = self.guests.here.lock();
        while !here.connections.is_empty() {
            if self.guests.left.wait_for(&mut here, FAREWELL).timed_out() {
                return;
            }
        }
    }
}

impl Guests {
    /// A number for a new connection; `None` if there are too many, or it is too late.
    fn come(&self, connection: &Connection) -> Option<u64> {
        let mut here = self.here.lock();
        if here.closing || here.connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        here.next += 1;
        let number = here.next;
        here.connections.insert(number, connection.clone());
        Some(number)
    }

    fn is_closing(&self) -> bool {
        self.here.lock().closing
    }

    fn leave(&self, number: u64) {
        self.here.lock().connections.remove(&number);
        self.left.notify_all();
    }
}

/// Leaves also when its thread panics.
struct Leaves<'g>(&'g Guests, u64);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}
