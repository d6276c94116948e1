//! When the child is killed: moments spread over the work, each at random in its part of it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::commands::Failure;

/// A kill comes at most this long after its place in the work is reached: what the child reports is just
/// after a sync, and kills shall hit every step of one.
const DELAY_MAX_US: u64 = 15_000;

/// The kills that are still to come.
#[derive(Debug)]
pub(super) struct Kills {
    moments: VecDeque<Moment>,
}

/// One kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Acknowledgements, of enqueues and of completions, after which it comes.
    acks: u64,
    delay: Duration,
}

impl Kills {
    pub(super) fn plan(seed: u64, kills: u32, jobs: u64) -> Kills {
        let mut random = Random(seed);
        // The last twentieth is left alone, so that as a rule the last kill finds some work too.
        let span = jobs * 2 * 19 / 20;
        let number = u64::from(kills);
        let moment = |kill: u64| Moment {
            acks: (span * kill + random.below(span.max(1))) / number,
            delay: Duration::from_micros(random.below(DELAY_MAX_US)),
        };
        Kills {
            moments: (0..number).map(moment).collect(),
        }
    }

    /// How long until the next kill, if its place is reached after so many acknowledgements.
    pub(super) fn due(&self, acks: u64) -> Option<Duration> {
        self.moments
            .front()
            .filter(|moment| moment.acks <= acks)
            .map(|moment| moment.delay)
    }

    pub(super) fn is_over(&self) -> bool {
        self.moments.is_empty()
    }

    pub(super) fn done_one(&mut self) {
        self.moments.pop_front();
    }
}

/// A seed from the system.
pub(super) fn random_seed() -> Result<u64, Failure> {
    getrandom::u64().map_err(|e| {
        Failure::CannotRun(format!(
            "the system gave no random number: {e}. Give one with --seed."
        ))
    })
}

/// `SplitMix64` (Steele, Lea, Flood 2014): enough to choose moments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_spread_over_the_work() {
        for seed in 0..200 {
            let kills = Kills::plan(seed, 5, 1_000);
            assert_eq!(kills.moments, Kills::plan(seed, 5, 1_000).moments);
            for (n, moment) in kills.moments.iter().enumerate() {
                let part = n as u64 * 380..(n as u64 + 1) * 380;
                assert!(
                    part.contains(&moment.acks),
                    "seed {seed}: {:?}",
                    kills.moments
                );
            }
        }
    }

    #[test]
    fn no_kill_and_no_work_are_no_special_cases() {
        assert!(Kills::plan(1, 0, 1_000).is_over());
        let mut one = Kills::plan(1, 1, 0);
        assert!(one.due(0).is_some());
        one.done_one();
        assert!(one.is_over() && one.due(9).is_none());
    }
}
