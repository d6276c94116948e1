//! The engine from outside: public API, real disk. One binary, a module per concern.

#![expect(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "handlers have the shape that the engine asks for"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expects by unwrapping"
)]

/// What people do with stored jobs from outside: change, prune, choose queues.
mod admin;
/// What an engine does for its users, end to end.
mod api;
/// Every wrong input has its typed error, and nothing is harmed.
mod bad_input;
/// The program `jobsled` from a shell.
#[cfg(all(feature = "cli", unix))]
mod cli;
/// The program `jobsled demo`.
#[cfg(feature = "cli")]
mod cli_demo;
/// Time that stalls, jumps and runs out.
mod clock;
/// The socket beside an open store, and the way in for other processes.
#[cfg(all(feature = "control", unix))]
mod control;
/// What lies in a store's folders after a life.
mod disk;
/// Stores of released versions keep their meaning.
mod format;
/// Payloads of older versions, of JSON and of another kind.
#[cfg(feature = "json")]
mod forms;
/// What attempts leave behind, and what they show while they run.
mod kept;
/// Backup, verification, export and import.
mod moments;
/// Time limits, order and time as seen from outside.
mod order;
/// Slots that hang and come back, executors that do not run what they get.
mod pools;
/// The kit for tests of programs that use the engine.
#[cfg(feature = "testing")]
mod rehearsal;
/// The rules of the house that a program can check.
mod tidy;
