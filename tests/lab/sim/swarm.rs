//! What a life is made of: each seed turns on another half of everything.

use std::fmt;

use crate::random::Random;

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Something that happens in some lives. A new one is a line here, and joins at once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Feature { $($(#[$doc])* $name),* }

        const ALL: &[Feature] = &[$(Feature::$name),*];
    };
}

features! {
    // Jobs.
    Batches, Keys, ShortKeys, Priorities, Delays, Expiry, Files, LongPayloads, Once, Limits, Parked, Retention,
    // People.
    Cancels, Deletes, Retries, Reschedules, Moves, CompletesOutside, Pauses, Caps, Prunes, Looks, Holds,
    // Workers.
    ByHand, Failures, Snoozes, Discards, GivesBack, SignsOfLife, Hangs, LateAnswers,
    // Time.
    LongTimes, ClockSteps, Suspends,
    // The store.
    SmallEntries,
    // Faults, from here on.
    Kills, PowerCuts, EndsInGroups, CutOpenings, FailedSyncs, LyingSyncs, Damage, Killers,
}

const FIRST_FAULT: Feature = Feature::Kills;

/// The features of one life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swarm(u64);

impl Swarm {
    /// Any half of them; a lying disk is rare, for with it much has to be forgiven.
    pub(crate) fn of(random: &mut Random) -> Swarm {
        let mut swarm = Swarm(random.next());
        if !random.one_in(4) {
            swarm.0 &= !bit(Feature::LyingSyncs);
        }
        swarm
    }

    pub(crate) fn has(self, feature: Feature) -> bool {
        self.0 & bit(feature) != 0
    }

    pub(crate) fn without_faults(self) -> Swarm {
        Swarm(self.0 & (bit(FIRST_FAULT) - 1))
    }
}

fn bit(feature: Feature) -> u64 {
    1 << (feature as u64)
}

impl fmt::Debug for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(ALL.iter().filter(|feature| self.has(**feature)))
            .finish()
    }
}
