//! How often and when a job is tried again, and its limits.

use std::borrow::Cow;
use std::time::Duration;

use super::id::Priority;

/// The wait before the next attempt, growing with the number of failures.
///
/// The default is exponential: 1 s, 2 s, 4 s … up to 1 h, each shortened at random by up to a fifth
/// so that jobs that failed together do not all come back together.
///
/// ```
/// use std::time::Duration;
/// use jobsled::Backoff;
///
/// let tens = Backoff::exponential(Duration::from_millis(10)).factor(10).jitter_percent(0);
/// assert_eq!(tens.delay(1, 0), Duration::from_millis(10));
/// assert_eq!(tens.delay(3, 0), Duration::from_millis(1_000));
/// assert_eq!(tens.delay(200, 0), Duration::from_secs(3_600)); // capped
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    pub(crate) growth: Growth,
    pub(crate) first_ms: u64,
    pub(crate) max_ms: u64,
    pub(crate) jitter_percent: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Growth {
    Fixed,
    Linear,
    /// Times this factor each time, at least 1.
    Exponential(u32),
}

impl Backoff {
    /// The same wait every time.
    pub fn fixed(wait: Duration) -> Backoff {
        Backoff {
            growth: Growth::Fixed,
            jitter_percent: 0,
            ..Backoff::exponential(wait)
        }
    }

    /// `first`, twice `first`, three times `first` …
    pub fn linear(first: Duration) -> Backoff {
        Backoff {
            growth: Growth::Linear,
            ..Backoff::exponential(first)
        }
    }

    /// `first`, then each time twice as long (see [`factor`](Backoff::factor)).
    pub fn exponential(first: Duration) -> Backoff {
        Backoff {
            growth: Growth::Exponential(2),
            first_ms: millis(first),
            max_ms: 3_600_000,
            jitter_percent: 20,
        }
    }

    /// The growth of an exponential backoff; at least 1. Ignored by the others.
    pub fn factor(mut self, factor: u32) -> Backoff {
        if let Growth::Exponential(f) = &mut self.growth {
            *f = factor.max(1);
        }
        self
    }

    /// Never wait longer than this (default 1 h).
    pub fn max(mut self, longest: Duration) -> Backoff {
        self.max_ms = millis(longest);
        self
    }

    /// Shorten each wait at random by up to this many percent (0 to 100, default 20).
    pub fn jitter_percent(mut self, percent: u8) -> Backoff {
        self.jitter_percent = percent.min(100);
        self
    }

    /// The wait after the `failures`th failure (from 1). The same `seed` gives the same jitter.
    pub fn delay(&self, failures: u32, seed: u64) -> Duration {
        let steps = u64::from(failures.max(1) - 1);
        let full = match self.growth {
            Growth::Fixed => self.first_ms,
            Growth::Linear => self.first_ms.saturating_mul(steps + 1),
            Growth::Exponential(factor) => {
                // 64 doublings overflow any start, so more steps than that change nothing.
                let steps = u32::try_from(steps.min(64)).unwrap_or(64);
                self.first_ms
                    .saturating_mul(u64::from(factor).saturating_pow(steps))
            }
        };
        let full = full.min(self.max_ms);
        let spread = u128::from(full) * u128::from(self.jitter_percent) / 100;
        let cut = ((spread + 1) * u128::from(seed)) >> 64; // uniform in 0..=spread
        Duration::from_millis(full.saturating_sub(u64::try_from(cut).unwrap_or(0)))
    }
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::exponential(Duration::from_secs(1))
    }
}

/// What becomes of a job whose process died while it ran, or whose attempt was cut off in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnCrash {
    /// Run again, always.
    Rerun,
    /// Run again; after this many crashes (at least 2: fewer count as 2) while the job ran it is `Dead` (quarantined).
    /// From the last but one on it runs with nothing else in the process, so that an innocent
    /// neighbour is never quarantined for another job's crash.
    QuarantineAfter(u8),
    /// At most once: an attempt that was cut off after its handler had begun is the last one, and the job is
    /// [`Dead`](crate::DeadReason::Crashed). Cut off are those of a process that died, those given back (at shutdown,
    /// by a dropped [`Claim`](crate::Claim)), and those whose lease was taken away at a limit while the handler went
    /// on. A failure that the handler itself reported, also one for a limit that it obeyed, is tried again as
    /// usual: `attempts(1)` rules that out.
    Dead,
}

impl Default for OnCrash {
    fn default() -> OnCrash {
        OnCrash::QuarantineAfter(3)
    }
}

/// What a kind of job asks for, unless the enqueue says otherwise. See [`Job::defaults`](crate::Job::defaults).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct JobDefaults {
    pub(crate) queue: Cow<'static, str>,
    pub(crate) priority: Priority,
    pub(crate) policy: Policy,
}

impl JobDefaults {
    /// Queue `default`, priority 0, 10 attempts with the default [`Backoff`], no limits,
    /// quarantine after 3 crashes.
    pub fn new() -> JobDefaults {
        JobDefaults {
            queue: Cow::Borrowed("default"),
            priority: Priority::default(),
            policy: Policy::default(),
        }
    }

    /// The queue.
    pub fn queue(mut self, name: impl Into<String>) -> JobDefaults {
        self.queue = Cow::Owned(name.into());
        self
    }

    /// The priority; higher runs first.
    pub fn priority(mut self, priority: impl Into<Priority>) -> JobDefaults {
        self.priority = priority.into();
        self
    }

    /// Failed attempts until the job is dead; at least 1 (default 10).
    pub fn attempts(mut self, most: u16) -> JobDefaults {
        self.policy.attempts_max = most;
        self
    }

    /// Waits between attempts.
    pub fn backoff(mut self, backoff: Backoff) -> JobDefaults {
        self.policy.backoff = backoff;
        self
    }

    /// How long one attempt may run (default: for ever). Past it the handler is asked to stop, and
    /// shortly after its lease is taken away.
    pub fn time_limit(mut self, limit: Duration) -> JobDefaults {
        self.policy.time_limit_ms = millis(limit).max(1);
        self
    }

    /// How long a handler may go without a sign of life (`check`, `pause`, `progress`) before its
    /// lease is taken away (default: for ever).
    pub fn stall_timeout(mut self, limit: Duration) -> JobDefaults {
        self.policy.stall_timeout_ms = millis(limit).max(1);
        self
    }

    /// After a failure the job expires this long after its next attempt is due (default: the expiry
    /// given at enqueue stays).
    pub fn retry_expires_after(mut self, limit: Duration) -> JobDefaults {
        self.policy.retry_expires_ms = millis(limit).max(1);
        self
    }

    /// What becomes of the job when its process dies.
    pub fn on_crash(mut self, on_crash: OnCrash) -> JobDefaults {
        self.policy.on_crash = on_crash;
        self
    }
}

impl Default for JobDefaults {
    fn default() -> JobDefaults {
        JobDefaults::new()
    }
}

/// The part of a job's options that is stored with it and shared by most jobs of a kind.
/// A limit of 0 means none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Policy {
    pub(crate) attempts_max: u16,
    pub(crate) backoff: Backoff,
    pub(crate) time_limit_ms: u64,
    pub(crate) stall_timeout_ms: u64,
    pub(crate) retry_expires_ms: u64,
    pub(crate) on_crash: OnCrash,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            attempts_max: 10,
            backoff: Backoff::default(),
            time_limit_ms: 0,
            stall_timeout_ms: 0,
            retry_expires_ms: 0,
            on_crash: OnCrash::default(),
        }
    }
}

/// A duration in whole milliseconds, at most `u64::MAX`.
pub(crate) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_as_told_and_never_overflow() {
        let s = Duration::from_secs;
        let cases = [
            (Backoff::fixed(s(5)), 1, s(5)),
            (Backoff::fixed(s(5)), 9, s(5)),
            (Backoff::linear(s(5)).jitter_percent(0), 3, s(15)),
            (Backoff::exponential(s(1)).jitter_percent(0), 1, s(1)),
            (Backoff::exponential(s(1)).jitter_percent(0), 5, s(16)),
            (
                Backoff::exponential(s(1)).jitter_percent(0),
                u32::MAX,
                s(3600),
            ),
            (Backoff::exponential(s(1)).jitter_percent(0), 0, s(1)),
            (
                Backoff::exponential(Duration::MAX)
                    .jitter_percent(0)
                    .max(Duration::MAX),
                9,
                Duration::from_millis(u64::MAX),
            ),
        ];
        for (backoff, failures, expected) in cases {
            assert_eq!(
                backoff.delay(failures, u64::MAX),
                expected,
                "{backoff:?} after {failures}"
            );
        }
    }

    #[test]
    fn jitter_only_shortens_and_covers_its_range() {
        let backoff = Backoff::exponential(Duration::from_secs(10)).jitter_percent(50);
        assert_eq!(backoff.delay(1, 0), Duration::from_secs(10));
        assert_eq!(backoff.delay(1, u64::MAX), Duration::from_secs(5));
        assert_eq!(backoff.delay(1, u64::MAX / 2), Duration::from_millis(7_500));
    }
}
