//! What a peer prints, and the driver reads: one line of JSON per result.

use serde::{Deserialize, Serialize};

/// What survives what, once it was acknowledged.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Class {
    /// In memory, or written behind the caller's back.
    C0,
    /// The death of the process.
    C1,
    /// A power cut.
    C2,
}

/// Who shares a commit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Commit {
    /// Each enqueue that is not part of a batch is committed by itself.
    Each,
    /// What callers on several threads want at the same time is committed together.
    Group,
}

/// How much a peer does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// Runs jobs: retries, schedules, recovers.
    Engine,
    /// Hands out bytes, oldest first.
    Queue,
    /// A process of its own, asked over a socket.
    Server,
}

/// One result of one peer; or, with `error` or `unsupported`, why there is none.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Line {
    pub peer: String,
    pub version: String,
    pub setup: String,
    pub class: Class,
    pub sort: Sort,
    pub commit: Commit,
    /// `enqueue-1`, `enqueue-8`, `enqueue-64`, `bulk`, `through`; empty in a list of set-ups.
    pub measure: String,
    pub jobs: u64,
    pub seconds: f64,
    pub jobs_per_second: f64,
    /// The peer has nothing of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// It was tried, and did not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
