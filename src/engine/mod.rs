//! The heart: one writer that turns commands into durable events, and the handle that people hold.
//!
//! Owns the step (drain, decide, append, sync, effects), the thread that calls it, recovery at
//! opening, and the public calls. Knows jobs as records to hand out; must not know what a handler is
//! or how one is run: that is `worker`, which sits on top.

mod api;
mod batch;
mod change;
mod claim;
mod claiming;
mod clock_watch;
mod command;
mod compact;
mod core;
mod effects;
mod events;
mod handle;
mod handout;
mod handouts;
mod hold;
mod inbox;
mod jobs;
mod limits;
mod live;
mod log;
mod open;
mod places;
mod reader;
mod recorder;
mod recover;
mod reply;
mod request;
mod shared;
mod step;
mod stored;
mod watchdog;
mod writer;

pub use api::{Drained, Engine, PoolHealth, ShutdownReport};
pub use batch::Batch;
pub use change::{Cancel, Change, ChangeAll, Changed, Delete, Prune, PruneReport, QueueControl};
pub use claim::Claim;
pub use events::{Event, Events, Subscription, Update, What};
pub use handle::{Ended, Finished, Handle, Progress};
pub use log::LogPart;
pub use request::{Enqueued, Request, Ticket};
pub use stored::Stored;

pub(crate) use self::core::{Limits, PoolLink};

pub(crate) use command::{Command, Details};
pub(crate) use events::Hub;
pub(crate) use handle::read_history;
pub(crate) use handout::{HandOut, outcome_of};
pub(crate) use handouts::HandOuts;
pub(crate) use hold::Moment;
#[cfg(test)]
#[cfg(feature = "json")]
pub(crate) use hold::read_slice;
pub(crate) use inbox::{Inbox, WhenFullRule};
pub(crate) use live::{Asked, Live, Stage};
#[cfg(all(unix, feature = "command"))]
pub(crate) use log::Newest;
pub(crate) use open::{MemoryStore, Opened, in_store, open_store, renew_ballast};
pub(crate) use recorder::{Recorder, store_told};
#[cfg(feature = "bench")]
pub(crate) use recover::first_group;
pub(crate) use recover::{Parts, Replayed, check_digest, fold, read_back_with, recover};
#[cfg(feature = "lab")]
pub(crate) use reply::Awaited;
pub(crate) use reply::Reply;
pub(crate) use shared::{Handlers, Shared};
pub(crate) use step::into_history;
pub(crate) use watchdog::Watchdog;
pub(crate) use writer::spawn as spawn_writer;
#[cfg(feature = "lab")]
pub(crate) use {
    self::core::{Core, Disk},
    command::Settle,
    inbox::Commands,
    recover::read_back,
};

#[cfg(test)]
mod tests;
