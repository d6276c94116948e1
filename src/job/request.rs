//! A job as it is asked for, before the ledger gave it an id.

use std::borrow::Cow;

use super::format::Encoding;
use super::id::Priority;
use super::policy::Policy;

/// What a record keeps of a payload that lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadRef {
    /// The file is called by these 32 hexadecimal digits and `.payload`.
    pub(crate) name: u128,
    /// Its length in bytes.
    pub(crate) len: u64,
    /// blake3 of its bytes.
    pub(crate) hash: [u8; 32],
}

/// The bytes of a payload or output: small ones ride in the journal, large ones have a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Inline(Vec<u8>),
    /// Boxed: few have one, and contents are moved from thread to thread.
    File(Box<PayloadRef>),
}

impl Content {
    /// The file's name, if it has one.
    pub(crate) fn file(&self) -> Option<u128> {
        match self {
            Content::File(file) => Some(file.name),
            Content::Inline(_) => None,
        }
    }

    pub(crate) fn inline_len(&self) -> usize {
        match self {
            Content::Inline(bytes) => bytes.len(),
            Content::File(_) => 0,
        }
    }
}

/// Everything that is asked for one new job. Checked and complete: the ledger can only find that its
/// key is taken.
#[derive(Clone, Debug)]
pub(crate) struct NewJob {
    pub(crate) kind: Cow<'static, str>,
    pub(crate) version: u16,
    pub(crate) encoding: Encoding,
    pub(crate) queue: Cow<'static, str>,
    pub(crate) priority: Priority,
    pub(crate) wait: Wait,
    pub(crate) expires: Option<Expiry>,
    pub(crate) policy: Policy,
    pub(crate) key: Option<String>,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) payload: Content,
}

#[cfg(test)]
impl NewJob {
    /// One without any option, for tests to vary.
    pub(crate) fn plain() -> NewJob {
        NewJob {
            kind: "k".into(),
            version: 1,
            encoding: Encoding::Rkyv,
            queue: "q".into(),
            priority: Priority(0),
            wait: Wait::No,
            expires: None,
            policy: Policy::default(),
            key: None,
            metadata: Vec::new(),
            payload: Content::Inline(vec![7; 100]),
        }
    }
}

/// When a job dies if it has not started by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// Wall-clock milliseconds.
    pub(crate) at_ms: i64,
    /// Asked for as a span: it moves with the wall clock.
    pub(crate) relative: bool,
}

/// When a new job may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    /// Not before this wall-clock time.
    Until(i64),
    /// This many milliseconds from when it is stored, whatever happens to the wall clock.
    For(u64),
}

impl Wait {
    /// The time from which on it may run, and whether that moves with the wall clock. What may run now is no date:
    /// it must not wait because the clock is set back.
    pub(crate) fn due(self, now_ms: i64) -> (i64, bool) {
        match self {
            Wait::Until(at_ms) if at_ms > now_ms => (at_ms, false),
            Wait::Until(_) | Wait::No => (now_ms, true),
            Wait::For(ms) => (now_ms.saturating_add_unsigned(ms), true),
        }
    }
}
