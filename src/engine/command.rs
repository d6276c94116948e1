//! All that can be asked of the writer: one closed list of what wakes it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::handout::HandOut;
use super::hold::Moment;
use super::live::Live;
use super::reply::Reply;
use crate::error::Error;
use crate::job::{Content, DeadReason, Encoding, JobId, NewJob, State};
use crate::journal::EntryBytes;
use crate::ledger::{
    ChangeAnswer, ChangeKind, Counters, Filter, Idle, Outcome, Page, Placed, QueueView, Row,
};

#[derive(Debug)]
pub(crate) enum Command {
    /// A caller that waits keeps the jobs as well, so that the thread that made them frees them: freeing what another
    /// thread allocated is slow.
    Enqueue {
        jobs: Arc<[NewJob]>,
        reply: Reply<Vec<Placed>>,
    },
    /// From a worker. Answers nothing: the worker has gone on.
    Settle(Settle),
    Change {
        id: JobId,
        wish: ChangeKind,
        reply: Reply<ChangeAnswer>,
    },
    SetQueue {
        name: String,
        paused: Option<bool>,
        concurrency: Option<Option<u32>>,
        reply: Reply<()>,
    },
    /// Deletes finished jobs, some at a time; answers how many.
    Prune {
        filter: Filter,
        older_ms: u64,
        reply: Reply<u64>,
    },
    /// For a caller with its own thread, who waits until `until` (awake time).
    Claim {
        kind: &'static str,
        queue: String,
        until: Duration,
        reply: Reply<Option<HandOut>>,
    },
    Look {
        id: JobId,
        reply: Reply<Option<Row>>,
    },
    FindKey {
        kind: String,
        key: String,
        reply: Reply<Option<JobId>>,
    },
    List {
        filter: Filter,
        from: JobId,
        rows_max: usize,
        reply: Reply<Page>,
    },
    Details {
        id: JobId,
        reply: Reply<Option<Details>>,
    },
    /// As `List`, with what lies on disk.
    ListDetails {
        filter: Filter,
        from: JobId,
        rows_max: usize,
        reply: Reply<DetailsPage>,
    },
    Snapshot {
        reply: Reply<Snapshot>,
    },
    /// Answered when the job has ended; at once if it has.
    Wait {
        id: JobId,
        reply: Reply<Ending>,
    },
    /// A caller has waited long enough for the reply with this token.
    StopWaiting {
        token: u64,
    },
    /// What a running job shows of itself.
    Watch {
        id: JobId,
        reply: Reply<Option<Arc<Live>>>,
    },
    /// Answered when it is as quiet as that.
    WaitIdle {
        until: Idle,
        reply: Reply<()>,
    },
    /// Answered when so many jobs have finished since the store was made.
    WaitFinished {
        count: u64,
        reply: Reply<()>,
    },
    /// Jobs in somebody's hands.
    Running {
        reply: Reply<Vec<JobId>>,
    },
    /// Holds the moment after this group.
    Hold {
        reply: Reply<Moment>,
    },
    /// Nobody needs a held moment any more.
    LetGo {
        hold: u64,
    },
    /// Entries of a held moment: those in `positions`, from the first on, until they have so many bytes.
    ReadEntries {
        positions: Range<u64>,
        bytes_max: usize,
        reply: Reply<Vec<(u64, EntryBytes)>>,
    },
    /// Claim no more for the pools; everything else goes on.
    StopClaiming {
        reply: Reply<()>,
    },
    /// Claim no more and take no new jobs; answered when nothing runs.
    Drain {
        reply: Reply<()>,
    },
    /// Drain, ask all handlers to stop, give back at `until` what still runs, close.
    Shutdown {
        until: Duration,
        reply: Reply<u64>,
    },
    /// The clock was moved.
    Wake,
    /// A job with a limit has begun: the writer looks how long it may sleep.
    LimitsBegin,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) struct Settle {
    pub(crate) id: JobId,
    pub(crate) claim: u64,
    pub(crate) outcome: Outcome,
    /// What the attempt leaves behind if it does not complete.
    pub(crate) kept: Option<Content>,
    pub(crate) ran_us: u64,
    /// Told the caller: whether the lease still held (for claims by hand).
    pub(crate) reply: Option<Reply<bool>>,
}

impl Settle {
    /// An attempt that the writer itself ends.
    pub(super) fn by_the_writer(id: JobId, claim: u64, outcome: Outcome) -> Settle {
        Settle {
            id,
            claim,
            outcome,
            kept: None,
            ran_us: 0,
            reply: None,
        }
    }
}

impl Command {
    /// Answers with an error.
    pub(crate) fn refuse(self, error: impl Fn() -> Error) {
        let error = error();
        match self {
            Command::Enqueue { reply, .. } => reply.send(Err(error)),
            Command::Settle(Settle { reply, .. }) => {
                if let Some(reply) = reply {
                    reply.send(Err(error));
                }
            }
            Command::Change { reply, .. } => reply.send(Err(error)),
            Command::SetQueue { reply, .. }
            | Command::WaitIdle { reply, .. }
            | Command::WaitFinished { reply, .. }
            | Command::StopClaiming { reply }
            | Command::Drain { reply } => reply.send(Err(error)),
            Command::Prune { reply, .. } | Command::Shutdown { reply, .. } => {
                reply.send(Err(error));
            }
            Command::Claim { reply, .. } => reply.send(Err(error)),
            Command::Look { reply, .. } => reply.send(Err(error)),
            Command::FindKey { reply, .. } => reply.send(Err(error)),
            Command::List { reply, .. } => reply.send(Err(error)),
            Command::Details { reply, .. } => reply.send(Err(error)),
            Command::ListDetails { reply, .. } => reply.send(Err(error)),
            Command::Snapshot { reply } => reply.send(Err(error)),
            Command::Wait { reply, .. } => reply.send(Err(error)),
            Command::Running { reply } => reply.send(Err(error)),
            Command::Watch { reply, .. } => reply.send(Err(error)),
            Command::Hold { reply } => reply.send(Err(error)),
            Command::ReadEntries { reply, .. } => reply.send(Err(error)),
            Command::Wake
            | Command::LimitsBegin
            | Command::StopWaiting { .. }
            | Command::LetGo { .. } => {}
        }
    }

    /// Jobs and payload bytes that the command brings, for the bounds of inbox and group.
    pub(crate) fn weight(&self) -> (usize, usize) {
        match self {
            Command::Enqueue { jobs, .. } => (
                jobs.len(),
                jobs.iter().map(|job| job.payload.inline_len() + 128).sum(),
            ),
            Command::Settle(settle) => {
                let kept = settle.kept.as_ref().map_or(0, Content::inline_len);
                (0, settle.outcome.bytes() + kept + 128)
            }
            _ => (0, 64),
        }
    }
}

/// A frame of an entry, to be read on the caller's thread.
#[derive(Clone, Debug)]
pub(crate) struct FrameAt {
    pub(crate) entry: EntryBytes,
    pub(crate) offset: u16,
}

/// A job with its frames on disk.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    pub(crate) row: Row,
    pub(crate) base: FrameAt,
    pub(crate) history: Option<FrameAt>,
}

/// A part of a listing with details, and where to go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct DetailsPage {
    pub(crate) jobs: Vec<Details>,
    pub(crate) next: Option<JobId>,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// `None`: the job is not there (any more).
    pub(crate) state: Option<State>,
    pub(crate) dead_reason: Option<DeadReason>,
    pub(crate) encoding: Encoding,
    pub(crate) history: Option<FrameAt>,
}

/// What the writer has done since opening.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) commands: u64,
    pub(crate) groups: u64,
    pub(crate) entries: u64,
    pub(crate) entry_bytes: u64,
    pub(crate) syncs: u64,
}

/// Figures of one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) counters: Counters,
    pub(crate) queues: Vec<QueueView>,
    pub(crate) running: usize,
    pub(crate) held_keys: usize,
    pub(crate) late_answers: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) backlog_bytes: u64,
    pub(crate) bytes_on_disk: u64,
    pub(crate) work: Work,
    pub(crate) now_ms: i64,
    pub(crate) clock_trusted: bool,
    pub(crate) held_for: Option<JobId>,
}
