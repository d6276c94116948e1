//! Where a log is cut: anywhere, and more often where it hurts.

use jobsled::lab::journal::Random;

use crate::disk::Disk;
use crate::log::Record;

/// Where a log is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cuts {
    pub(crate) count: u64,
    pub(crate) seed: u64,
    /// How the places are found: in three ways, or in four.
    pub(crate) ways: u64,
}

impl Cuts {
    /// Numbers of records after which the power goes, rising, each with its trial's number.
    pub(crate) fn places(&self, weights: &Weights) -> Vec<(usize, u64)> {
        let mut places: Vec<_> = (0..self.count)
            .map(|n| (self.place(n, weights), n))
            .collect();
        places.sort_unstable();
        places
    }

    /// A third of the places are anywhere, a third in commits, the more the more is un-synced, a third
    /// just before or after a sync or a change of names. The fourth way is just after something was told.
    fn place(&self, number: u64, weights: &Weights) -> usize {
        let mut random = Random(self.seed_of(number));
        let volume = weights.unsynced.last().copied().unwrap_or(0);
        let turns = weights.turns.len() as u64;
        let told = &weights.told;
        match number % self.ways {
            1 if volume > 0 => {
                let weight = random.between(1, volume);
                weights.unsynced.partition_point(|sum| *sum < weight) + 1
            }
            2 if turns > 0 => {
                let turn = usize::try_from(random.between(0, turns - 1)).unwrap();
                weights.turns[turn] + usize::from(random.one_in(2))
            }
            3 if !told.is_empty() => {
                let last = told.len() as u64 - 1;
                told[usize::try_from(random.between(0, last)).unwrap()] + 1
            }
            _ => usize::try_from(random.between(1, weights.unsynced.len() as u64)).unwrap(),
        }
    }

    /// A trial's seed depends on its number and not on how many there are.
    pub(crate) fn seed_of(&self, number: u64) -> u64 {
        Random(self.seed ^ (number << 32)).next_u64()
    }
}

/// What decides where a log is cut.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    /// By record: the sum of what commits had un-synced after it and all before it, in bytes.
    unsynced: Vec<u64>,
    /// Records that are neither writes nor marks.
    turns: Vec<usize>,
    /// Marks that end a commit.
    told: Vec<usize>,
    /// The most that was un-synced between the begin of a group and its acknowledgement.
    pub(crate) commit_max: u64,
}

impl Weights {
    /// `in_commit` says of a mark whether what follows belongs to a commit; `None` leaves that as it is.
    pub(crate) fn of(
        start: &Disk<'_>,
        records: &[Record<'_>],
        in_commit: impl Fn(&str) -> Option<bool>,
    ) -> Weights {
        let (mut disk, mut weights) = (start.clone(), Weights::default());
        let (mut total, mut committing) = (0, false);
        for (number, record) in records.iter().enumerate() {
            disk.apply(record);
            let unsynced = disk.unsynced();
            match record {
                Record::Write { .. } => {}
                Record::Mark { line } => {
                    let said = in_commit(line);
                    committing = said.unwrap_or(committing);
                    if said == Some(false) {
                        weights.told.push(number);
                    }
                }
                _ => weights.turns.push(number),
            }
            if committing {
                total += unsynced;
                weights.commit_max = weights.commit_max.max(unsynced);
            }
            weights.unsynced.push(total);
        }
        weights
    }
}
