//! Notices when the wall clock was set, and tells how far it can be trusted.

use std::time::Duration;

use crate::clock::Now;

/// Smaller differences between the two clocks are drift or a slow read, not a step.
const STEP_MIN_MS: i64 = 1_000;
/// What cannot be taken back waits until both clocks have agreed for this long.
const TRUST_AFTER: Duration = Duration::from_mins(1);
/// How often the wall clock is looked at while something waits for a time.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct ClockWatch {
    last: Now,
    agreed_since: Duration,
}

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockStep {
    /// What it would have shown.
    pub(crate) before_ms: i64,
    pub(crate) by_ms: i64,
}

impl ClockWatch {
    pub(crate) fn new(now: Now) -> ClockWatch {
        ClockWatch {
            last: now,
            agreed_since: now.steady,
        }
    }

    /// Compares the clocks with the last look.
    pub(crate) fn look(&mut self, now: Now) -> Option<ClockStep> {
        let passed = now.steady.saturating_sub(self.last.steady);
        let passed_ms = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.last.wall_ms.saturating_add(passed_ms);
        let by_ms = now.wall_ms.saturating_sub(before_ms);
        self.last = now;
        (by_ms.saturating_abs() >= STEP_MIN_MS).then(|| {
            self.agreed_since = now.steady;
            ClockStep { before_ms, by_ms }
        })
    }

    /// How long until the wall clock is trusted; zero if it is.
    pub(crate) fn until_trusted(&self, now: Now) -> Duration {
        (self.agreed_since + TRUST_AFTER).saturating_sub(now.steady)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn a_step_is_noticed_and_sleep_is_not_one() {
        let clock = ManualClock::at(1_000_000);
        let mut watch = ClockWatch::new(clock.now());
        clock.advance(Duration::from_hours(8)); // asleep: both clocks went on
        assert_eq!(watch.look(clock.now()), None);
        assert_eq!(watch.until_trusted(clock.now()), Duration::ZERO);
        clock.step_wall(-3_600_000);
        let step = watch.look(clock.now()).unwrap();
        assert_eq!(step.by_ms, -3_600_000);
        assert_eq!(step.before_ms + step.by_ms, clock.now().wall_ms);
        assert_eq!(watch.until_trusted(clock.now()), TRUST_AFTER);
        assert_eq!(watch.look(clock.now()), None);
    }
}
