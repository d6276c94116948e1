//! A store beside the program that has it open: a local socket, one JSON line a call of the public API.
//!
//! A program opts in with [`EngineBuilder::control_socket`](crate::EngineBuilder::control_socket). Another process
//! comes in through [`Door`]: it opens the store itself if nobody has it, and else asks whoever has, with the same
//! ids, durability and errors. The conversation is told in `docs/control.md`, for clients in other languages.
//!
//! Owns the conversation and its limits. Must not know what a command line is, nor anything of the engine but its
//! public calls.

mod answer;
mod door;
mod place;
mod protocol;
mod server;
mod views;

pub use door::{Door, Seen, check_owner};
pub use protocol::{CALL_BYTES_MAX, Call, Code, Crash, Fault, Greeting, NewJob, PROTOCOL, Placed};
pub use views::{
    AttemptView, CopyView, EventView, HealthView, JobPage, JobView, LogView, ProgressView,
    QueueView, StatsView,
};

pub(crate) use server::{Server, serve};
#[cfg(feature = "lab")]
pub(crate) use {door::read_reply, server::respond};
