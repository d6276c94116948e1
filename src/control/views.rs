//! What people and programs see of a store: jobs, figures and news as JSON. The same over the socket and in the
//! output of `--json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::inspect::{JobDetails, QueueStats, Stats};
use crate::{
    BackupReport, ClaimNumber, Counters, Event, ExportReport, Health, ImportReport, JobId, LogPart,
    PoolHealth, Progress, State, VerifyReport, What,
};

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// What to ask for `after` to go on; `None` at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A job, as people see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct JobView {
    /// Its id.
    pub id: u64,
    /// Its kind.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// Its state, in lower case.
    pub state: String,
    /// Ready, but the program that has the store open has no handler for its kind.
    #[serde(skip_serializing_if = "is_false")]
    pub parked: bool,
    /// Higher runs first.
    pub priority: i32,
    /// Attempts begun.
    pub attempt: u32,
    /// Failed attempts.
    pub failures: u16,
    /// Failed attempts after which it is dead.
    pub attempts: u16,
    /// Crashes of its process while it ran, since it last ended an attempt.
    pub crashes: u8,
    /// When it was stored.
    pub enqueued_at_ms: i64,
    /// From when on it may run.
    pub due_ms: i64,
    /// When it was claimed, for one that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_at_ms: Option<i64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<i64>,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The number of the claim under which it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<u64>,
    /// Why it is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_reason: Option<String>,
    /// The words with which it was cancelled or discarded.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The errors of its newest attempts, newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<AttemptView>,
    /// Its metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Version of its payload.
    pub version: u16,
    /// Size of its payload; none once that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// How far it is, for one that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressView>,
    /// Its payload, if that is JSON; in the answer to [`Call::Job`](super::Call::Job) only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
    /// Its output, if that is JSON; in the answer to [`Call::Job`](super::Call::Job) only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttemptView {
    /// Its number, from 1.
    pub attempt: u32,
    /// When it ended.
    pub at_ms: i64,
    /// What went wrong.
    pub error: String,
}

/// How far a running job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProgressView {
    /// Done so far.
    pub done: u64,
    /// Of so much; 0 if unknown.
    pub total: u64,
    /// The handler's note.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A part of what a running job has written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LogView {
    /// Which attempt's log it is, counted from 1.
    pub attempt: u32,
    /// Where it begins, counted from the begin of the attempt: later than asked for if older bytes are gone.
    pub from: u64,
    /// The bytes; what is no UTF-8 in them is replaced.
    pub text: String,
    /// What to ask for `from` to go on.
    pub next: u64,
    /// Whether the attempt has ended.
    pub ended: bool,
}

/// A queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Whether it starts no jobs.
    pub paused: bool,
    /// Most jobs at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Jobs by state.
    pub jobs: BTreeMap<String, u64>,
    /// Ready jobs whose kind has no handler.
    pub parked: u64,
    /// How long the job that runs next has been ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ready_ms: Option<u64>,
}

/// Figures of one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StatsView {
    /// Events since the store was made: enqueued, completed, and so on.
    pub counters: BTreeMap<String, u64>,
    /// Every queue that ever had a job.
    pub queues: Vec<QueueView>,
    /// Jobs claimed.
    pub running: u64,
    /// Keys that stay taken although their jobs are gone.
    pub held_keys: u64,
    /// Answers refused because their lease was lost, since opening.
    pub late_answers: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// How many of them are needed.
    pub live_bytes: u64,
    /// Size of the log file.
    pub bytes_on_disk: u64,
    /// Commands that callers and workers have sent to the writer since opening.
    pub commands: u64,
    /// Groups committed since opening.
    pub groups: u64,
    /// Journal entries that hold them.
    pub entries: u64,
    /// Bytes of those entries.
    pub entry_bytes: u64,
    /// Disk syncs since opening.
    pub syncs: u64,
}

/// How the engine is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HealthView {
    /// Whether nothing needs attention.
    pub well: bool,
    /// Why nothing is stored any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poisoned: Option<String>,
    /// How long the commit in progress has been taking, if that is too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled_commit_ms: Option<u64>,
    /// The job for which everything else is held up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_for: Option<u64>,
    /// How long the oldest ready job has been so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ready_ms: Option<u64>,
    /// Slots of all pools.
    pub slots: u64,
    /// Slots that hang and are not replaced.
    pub lost_slots: u64,
}

/// What was copied, checked or written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CopyView {
    /// The moment, if one was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
    /// Jobs in it.
    pub jobs: u64,
    /// Entries of the journal, for a backup and a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Payloads and outputs that have a file of their own.
    pub payload_files: u64,
    /// Bytes, all together.
    pub bytes: u64,
}

/// News.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EventView {
    /// What happened, in lower case; `alive` says only that the other end is there, `missed` that news were lost
    /// because this end was too slow.
    pub event: String,
    /// The job; 0 for what is not about one.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: u64,
    /// Its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its queue.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub queue: String,
    /// When.
    #[serde(skip_serializing_if = "is_zero_ms")]
    pub at_ms: i64,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressView>,
    /// How many news were lost so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub missed: u64,
}

impl From<JobDetails> for JobView {
    fn from(job: JobDetails) -> JobView {
        let info = job.info;
        JobView {
            id: info.id.number(),
            kind: info.kind,
            queue: info.queue,
            state: info.state.name().to_owned(),
            parked: info.parked,
            priority: info.priority.0,
            attempt: info.attempt,
            failures: info.failures,
            attempts: info.attempts_max,
            crashes: info.crashes,
            enqueued_at_ms: job.enqueued_at_ms,
            due_ms: info.due_ms,
            claimed_at_ms: info.claimed_at_ms,
            finished_at_ms: info.finished_at_ms,
            expires_at_ms: info.expires_at_ms,
            key: info.key,
            claim: info.claim.map(ClaimNumber::number),
            dead_reason: info.dead_reason.map(|reason| reason.to_string()),
            reason: job.reason,
            errors: job
                .errors
                .into_iter()
                .map(|e| AttemptView {
                    attempt: e.attempt,
                    at_ms: e.at_ms,
                    error: e.error,
                })
                .collect(),
            metadata: job.metadata.into_iter().collect(),
            version: job.version,
            payload_bytes: job.payload_bytes,
            progress: None,
            payload: None,
            output: None,
        }
    }
}

impl From<Progress> for ProgressView {
    fn from(progress: Progress) -> ProgressView {
        ProgressView {
            done: progress.done,
            total: progress.total,
            note: progress.note,
        }
    }
}

impl From<LogPart> for LogView {
    fn from(part: LogPart) -> LogView {
        // A character whose end has not been written yet comes with the next part.
        let begun = match std::str::from_utf8(&part.bytes) {
            Err(e) if e.error_len().is_none() && !part.ended => part.bytes.len() - e.valid_up_to(),
            _ => 0,
        };
        let whole = part.bytes.len() - begun;
        let text = part.bytes.get(..whole).unwrap_or_default();
        LogView {
            attempt: part.attempt,
            from: part.from,
            text: String::from_utf8_lossy(text).into_owned(),
            next: part.next - begun as u64,
            ended: part.ended,
        }
    }
}

impl From<QueueStats> for QueueView {
    fn from(queue: QueueStats) -> QueueView {
        let counted = State::ALL.map(|state| (state.name().to_owned(), queue.count(state)));
        QueueView {
            jobs: counted.into_iter().filter(|(_, jobs)| *jobs > 0).collect(),
            name: queue.name,
            paused: queue.paused,
            concurrency: queue.concurrency,
            parked: queue.parked,
            oldest_ready_ms: queue.oldest_ready.map(crate::job::millis),
        }
    }
}

impl From<Stats> for StatsView {
    fn from(stats: Stats) -> StatsView {
        StatsView {
            counters: named(&stats.counters),
            queues: stats.queues.into_iter().map(QueueView::from).collect(),
            running: stats.running,
            held_keys: stats.held_keys,
            late_answers: stats.late_answers,
            journal_bytes: stats.journal_bytes,
            live_bytes: stats.live_bytes,
            bytes_on_disk: stats.bytes_on_disk,
            commands: stats.commands,
            groups: stats.groups,
            entries: stats.entries,
            entry_bytes: stats.entry_bytes,
            syncs: stats.syncs,
        }
    }
}

fn named(c: &Counters) -> BTreeMap<String, u64> {
    let counters = [
        ("enqueued", c.enqueued),
        ("started", c.started),
        ("retried", c.retried),
        ("snoozed", c.snoozed),
        ("completed", c.completed),
        ("cancelled", c.cancelled),
        ("died", c.died),
        ("expired", c.expired),
        ("crashed", c.crashed),
        ("deleted", c.deleted),
        ("pruned", c.pruned),
    ];
    counters
        .into_iter()
        .map(|(name, n)| (name.to_owned(), n))
        .collect()
}

impl From<Health> for HealthView {
    fn from(health: Health) -> HealthView {
        let slots = |of: fn(&PoolHealth) -> usize| -> u64 {
            health.pools.iter().map(|pool| of(pool) as u64).sum()
        };
        HealthView {
            well: health.is_well(),
            slots: slots(|pool| pool.slots),
            lost_slots: slots(|pool| pool.lost),
            stalled_commit_ms: health.stalled_commit.map(crate::job::millis),
            held_for: health.held_for.map(JobId::number),
            oldest_ready_ms: health.oldest_ready.map(crate::job::millis),
            poisoned: health.poisoned,
        }
    }
}

impl From<BackupReport> for CopyView {
    fn from(report: BackupReport) -> CopyView {
        CopyView {
            at_ms: Some(report.at_ms),
            jobs: report.jobs,
            entries: Some(report.entries),
            payload_files: report.payload_files,
            bytes: report.bytes,
        }
    }
}

impl From<VerifyReport> for CopyView {
    fn from(report: VerifyReport) -> CopyView {
        CopyView {
            at_ms: None,
            jobs: report.jobs(),
            entries: Some(report.entries),
            payload_files: report.payload_files,
            bytes: report.bytes,
        }
    }
}

impl From<ExportReport> for CopyView {
    fn from(report: ExportReport) -> CopyView {
        CopyView {
            at_ms: Some(report.at_ms),
            jobs: report.jobs,
            entries: None,
            payload_files: report.payload_files,
            bytes: report.bytes,
        }
    }
}

impl From<ImportReport> for CopyView {
    fn from(report: ImportReport) -> CopyView {
        CopyView {
            at_ms: Some(report.at_ms),
            jobs: report.jobs,
            entries: None,
            payload_files: report.payload_files,
            bytes: report.bytes,
        }
    }
}

impl EventView {
    /// News about no job.
    pub(super) fn named(event: &str) -> EventView {
        EventView {
            event: event.to_owned(),
            ..EventView::default()
        }
    }
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> EventView {
        let progress = match &event.what {
            What::Progress { done, total, note } => Some(ProgressView {
                done: *done,
                total: *total,
                note: note.clone(),
            }),
            _ => None,
        };
        EventView {
            event: event.what.name().to_owned(),
            id: event.id.number(),
            kind: event.kind.to_string(),
            queue: event.queue.to_string(),
            at_ms: event.at_ms,
            progress,
            missed: 0,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero_ms(value: &i64) -> bool {
    *value == 0
}
