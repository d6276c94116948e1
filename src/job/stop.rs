//! How a handler ends other than well.

use std::error::Error;
use std::fmt::{self, Display};
use std::time::Duration;

use super::limits::{ERROR_BYTES_MAX, truncate};

/// What a handler returns: its output, or why there is none.
///
/// `?` works on any error and means: this attempt failed, try again by the job's policy.
///
/// ```
/// use std::time::Duration;
/// use jobsled::{JobResult, Stop};
///
/// fn fetch(url: &str) -> JobResult<String> {
///     let port: u16 = url.rsplit(':').next().unwrap_or("").parse()?; // any error: retry by policy
///     match port {
///         0 => Err(Stop::discard("port 0 will never answer")),
///         1 => Err(Stop::retry_after(Duration::from_secs(30), "busy")),
///         2 => Err(Stop::snooze(Duration::from_secs(60))),
///         _ => Ok(format!("asked port {port}")),
///     }
/// }
/// assert!(fetch("host:80").is_ok());
/// assert!(fetch("host").is_err());
/// ```
pub type JobResult<T> = Result<T, Stop>;

/// Why an attempt ended without output. Not an `Error` itself, so that `?` can turn any error into it.
#[derive(Debug)]
pub struct Stop(pub(crate) StopKind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StopKind {
    /// A failed attempt; the next one by policy, or after the given time.
    Fail {
        error: String,
        retry_after: Option<Duration>,
    },
    /// Later, and no attempt used.
    Snooze(Duration),
    /// Dead at once.
    Discard(String),
    /// Cancelled at once.
    Cancel(String),
    /// The handler obeyed the engine's wish that it stop (`Context::check`).
    Asked,
}

impl Stop {
    /// Fails this attempt and sets the wait before the next one, instead of the policy's backoff.
    pub fn retry_after(wait: Duration, why: impl Display) -> Stop {
        Stop(StopKind::Fail {
            error: text(&why),
            retry_after: Some(wait),
        })
    }

    /// Try again after `wait`; uses up no attempt.
    pub fn snooze(wait: Duration) -> Stop {
        Stop(StopKind::Snooze(wait))
    }

    /// Never try again: the job is dead, with this reason.
    pub fn discard(why: impl Display) -> Stop {
        Stop(StopKind::Discard(text(&why)))
    }

    /// The job ends as cancelled, with this reason.
    pub fn cancel(why: impl Display) -> Stop {
        Stop(StopKind::Cancel(text(&why)))
    }

    pub(crate) fn asked() -> Stop {
        Stop(StopKind::Asked)
    }

    pub(crate) fn failed(why: &str) -> Stop {
        Stop(StopKind::Fail {
            error: text(&why),
            retry_after: None,
        })
    }
}

impl<X: Into<Box<dyn Error + Send + Sync>>> From<X> for Stop {
    fn from(error: X) -> Stop {
        Stop::failed(&chain(error.into().as_ref()))
    }
}

fn text(why: &impl Display) -> String {
    truncate(&why.to_string(), ERROR_BYTES_MAX).to_owned()
}

/// An error with its sources, `a: b: c`, without repeating what a message already contains.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            StopKind::Fail { error, .. } => write!(f, "failed: {error}"),
            StopKind::Snooze(wait) => write!(f, "snoozed for {wait:?}"),
            StopKind::Discard(why) => write!(f, "discarded: {why}"),
            StopKind::Cancel(why) => write!(f, "cancelled: {why}"),
            StopKind::Asked => write!(f, "stopped because the engine asked for it"),
        }
    }
}
