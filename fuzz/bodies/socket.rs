//! `socket`: the lines of the control socket, as both ends read them.
//!
//! Does not cover how lines are cut out of a stream, nor time limits (`src/sys/socket.rs`), nor calls that write files
//! or wait.

use std::cell::OnceCell;

use jobsled::Engine;
use jobsled::command::Command;
use jobsled::control::{Call, Greeting};
use jobsled::lab::fuzz::{read_reply, respond};

pub(super) fn socket(bytes: &[u8]) -> bool {
    // One for each input that has calls, so that an input does the same every time.
    let mut engine = None;
    for line in bytes.split(|byte| *byte == b'\n') {
        client_side(line);
        job_payload(line);
        let call: Option<Call> = serde_json::from_slice(line).ok();
        let Some(call) = call else {
            with_any_engine(|engine| answered(engine, line));
            continue;
        };
        says_the_same(&call, line);
        let engine = engine.get_or_insert_with(open);
        if is_quick(&call) {
            answered(engine, line);
        }
    }
    engine.is_some()
}

fn open() -> Engine {
    Engine::in_memory().open().unwrap()
}

/// For what no engine will see.
fn with_any_engine(work: impl FnOnce(&Engine)) {
    thread_local! {
        static ENGINE: OnceCell<Engine> = const { OnceCell::new() };
    }
    ENGINE.with(|engine| work(engine.get_or_init(open)));
}

/// Written anew it is the same call. Of a number with a fraction the last digit may change each time.
fn says_the_same(call: &Call, line: &[u8]) {
    let text = serde_json::to_vec(call).unwrap();
    let again: Call = serde_json::from_slice(&text).unwrap();
    if !line.iter().any(|byte| b".eE".contains(byte)) {
        assert_eq!(*call, again);
    }
}

fn client_side(line: &[u8]) {
    let greeting: Option<Greeting> = serde_json::from_slice(line).ok();
    if let Some(greeting) = greeting {
        let text = serde_json::to_vec(&greeting).unwrap();
        let again: Greeting = serde_json::from_slice(&text).unwrap();
        assert_eq!(greeting, again);
    }
    if let Some(reply) = read_reply(line) {
        let is_fault = line.starts_with(b"{\"error\":");
        assert_eq!(reply.is_err(), is_fault);
    }
}

/// A payload as a command, which a handler reads from JSON.
fn job_payload(line: &[u8]) {
    let command: Option<Command> = serde_json::from_slice(line).ok();
    if let Some(command) = command {
        let text = serde_json::to_vec(&command).unwrap();
        let again: Command = serde_json::from_slice(&text).unwrap();
        assert!(command == again);
        assert_eq!(command.check().is_ok(), again.check().is_ok());
    }
}

/// Writes no file and waits for nothing.
fn is_quick(call: &Call) -> bool {
    match call {
        Call::Wait { within_ms, .. } => *within_ms < 2,
        Call::Log { wait_ms, .. } => *wait_ms < 2,
        Call::Backup { .. } | Call::Verify { .. } | Call::Watch {} => false,
        _ => true,
    }
}

/// Lines, and the last one is an answer or a fault, and no other is.
fn answered(engine: &Engine, line: &[u8]) {
    let said = respond(engine, line);
    let said = said.strip_suffix(b"\n").expect("a line has an end");
    let mut lines: Vec<&[u8]> = said.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().unwrap();
    assert!(read_reply(last).is_some(), "{}", last.escape_ascii());
    for line in lines {
        assert!(read_reply(line).is_none(), "{}", line.escape_ascii());
        let _: serde_json::Value = serde_json::from_slice(line).unwrap();
    }
}
