//! Compares what was acknowledged with what the store holds. Pure: notes and store in, faults out.

use std::collections::{BTreeMap, HashMap, HashSet};

use jobsled::State;

use super::acks::{Record, Told};
use super::store::Found;

/// Ids of jobs that are named as examples of a fault.
const EXAMPLES: usize = 3;

/// The comparison.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) completed: u64,
    /// Acknowledged, and not in the store or ended otherwise than completed.
    pub(super) lost: Fault,
    /// In the store, and neither completed nor ended.
    pub(super) stuck: Fault,
    /// More than one completion was accepted.
    pub(super) completed_twice: Fault,
    /// A completion was told, and then it ran again or is not completed.
    pub(super) undone: Fault,
    /// In the store under a second id, or without having been asked for.
    pub(super) stored_twice: Fault,
    /// Started twice in one life, or under a claim number that was given before.
    pub(super) run_twice: Fault,
    pub(super) wrong_hash: Fault,
    /// Started more than once, with a kill between. That is allowed.
    pub(super) started_again: u64,
    /// Of those, jobs of which a handler had ended: it was killed before that was durable.
    pub(super) ended_again: u64,
}

/// How often something happened that must not, and to which jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) count: u64,
    pub(super) examples: Vec<u64>,
}

/// What was noted of one job.
#[derive(Default)]
struct Noted {
    accepted: bool,
    /// How often its completion was told, in whatever way.
    completions: u64,
    /// Of those, by an event. Waiting may tell the same completion again, an event never does.
    events: u64,
    /// Started after its completion was told.
    ran_after: bool,
    starts: u64,
    ends: u64,
    last_life: Option<usize>,
    run_twice: bool,
}

impl Tally {
    /// `finished`: the child came to its end. Else what it stored and could not note is no fault.
    pub(super) fn of(lives: &[Vec<Record>], found: &Found, finished: bool) -> Tally {
        let (noted, twice_accepted) = gather(lives);
        let mut tally = Tally {
            stored_twice: twice_accepted,
            ..Tally::default()
        };
        for (id, job) in &noted {
            tally.add(*id, job, found);
        }
        for (id, job) in &found.jobs {
            tally.stuck.add_if(!job.state.is_finished(), *id);
            tally
                .wrong_hash
                .add_if(job.state == State::Completed && !job.output_is_right, *id);
            tally.stored_twice.add_if(
                finished && !noted.get(id).is_some_and(|job| job.accepted),
                *id,
            );
        }
        // By the store's own count, which knows completions that were not told.
        let mut completed: HashSet<u64> = noted
            .iter()
            .filter(|(_, job)| job.completions > 0)
            .map(|(id, _)| *id)
            .collect();
        let jobs = found
            .jobs
            .iter()
            .filter(|(_, job)| job.state == State::Completed);
        completed.extend(jobs.map(|(id, _)| *id));
        let surplus = found.completions.saturating_sub(completed.len() as u64);
        tally.completed_twice.count = tally.completed_twice.count.max(surplus);
        tally
    }

    fn add(&mut self, id: u64, job: &Noted, found: &Found) {
        let state = found.jobs.get(&id).map(|job| job.state);
        let is_completed = state == Some(State::Completed);
        if job.accepted {
            self.accepted += 1;
            self.completed += u64::from(is_completed);
            self.lost.add_if(
                state.is_none_or(|state| state.is_finished() && !is_completed),
                id,
            );
        }
        self.completed_twice.add_if(job.events > 1, id);
        self.undone
            .add_if(job.completions > 0 && (job.ran_after || !is_completed), id);
        self.run_twice.add_if(job.run_twice, id);
        self.started_again += u64::from(job.starts > 1);
        self.ended_again += u64::from(job.starts > 1 && job.ends > 1);
    }

    /// All that must not happen, by its name.
    pub(super) fn faults(&self) -> [(&'static str, &Fault); 7] {
        [
            ("lost", &self.lost),
            ("stuck", &self.stuck),
            ("completed twice", &self.completed_twice),
            ("completions undone", &self.undone),
            ("stored twice", &self.stored_twice),
            ("run twice, no kill", &self.run_twice),
            ("wrong hash", &self.wrong_hash),
        ]
    }
}

/// All that was noted, by job; and the jobs of the plan that were accepted under a second id.
fn gather(lives: &[Vec<Record>]) -> (BTreeMap<u64, Noted>, Fault) {
    let mut noted: BTreeMap<u64, Noted> = BTreeMap::new();
    let (mut ids, mut claims, mut twice) = (HashMap::new(), HashSet::new(), Fault::default());
    for (life, records) in lives.iter().enumerate() {
        for record in records {
            match *record {
                Record::Accepted { id, job, .. } => {
                    noted.entry(id).or_default().accepted = true;
                    twice.add_if(*ids.entry(job).or_insert(id) != id, id);
                }
                Record::Completed { id, told } => {
                    let job = noted.entry(id).or_default();
                    job.completions += 1;
                    job.events += u64::from(told == Told::ByEvent);
                }
                Record::Started { id, claim, .. } => {
                    let job = noted.entry(id).or_default();
                    job.starts += 1;
                    job.ran_after |= job.completions > 0;
                    job.run_twice |= !claims.insert(claim) || job.last_life == Some(life);
                    job.last_life = Some(life);
                }
                Record::Ended { id, .. } => noted.entry(id).or_default().ends += 1,
            }
        }
    }
    (noted, twice)
}

impl Fault {
    fn add_if(&mut self, happened: bool, id: u64) {
        if happened {
            self.count += 1;
            if self.examples.len() < EXAMPLES {
                self.examples.push(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Stored;
    use super::*;

    const WELL: Stored = Stored {
        state: State::Completed,
        output_is_right: true,
    };

    fn accepted(id: u64, job: u32) -> Record {
        Record::Accepted {
            id,
            job,
            file: 0,
            pass: 1,
        }
    }

    fn started(id: u64, claim: u64) -> Record {
        Record::Started {
            id,
            claim,
            attempt: 1,
        }
    }

    fn ended(id: u64, claim: u64) -> Record {
        Record::Ended {
            id,
            claim,
            attempt: 1,
        }
    }

    fn completed(id: u64) -> Record {
        Record::Completed {
            id,
            told: Told::ByEvent,
        }
    }

    fn waited(id: u64) -> Record {
        Record::Completed {
            id,
            told: Told::ByWait,
        }
    }

    /// One job, run once.
    fn life() -> Vec<Record> {
        vec![
            accepted(1, 0),
            started(1, 10),
            ended(1, 10),
            completed(1),
            waited(1),
        ]
    }

    #[track_caller]
    fn check(
        lives: &[Vec<Record>],
        jobs: &[(u64, Stored)],
        completions: u64,
        expected: [u64; 7],
    ) -> Tally {
        let found = Found {
            jobs: jobs.iter().copied().collect(),
            completions,
            ..Found::default()
        };
        let tally = Tally::of(lives, &found, true);
        assert_eq!(
            tally.faults().map(|(_, fault)| fault.count),
            expected,
            "{tally:?}"
        );
        tally
    }

    #[test]
    fn nothing_is_found_where_nothing_is_wrong() {
        let tally = check(&[life()], &[(1, WELL)], 1, [0; 7]);
        assert_eq!(
            (tally.accepted, tally.completed, tally.started_again),
            (1, 1, 0)
        );
        // Cut short, or ended and not yet durable: it runs again in the next life.
        let tally = check(
            &[vec![accepted(1, 0), started(1, 9)], life()],
            &[(1, WELL)],
            1,
            [0; 7],
        );
        assert_eq!((tally.started_again, tally.ended_again), (1, 0));
        let tally = check(
            &[vec![started(1, 9), ended(1, 9)], life()],
            &[(1, WELL)],
            1,
            [0; 7],
        );
        assert_eq!((tally.started_again, tally.ended_again), (1, 1));
    }

    #[test]
    fn every_fault_is_found() {
        let state = |state| Stored {
            state,
            output_is_right: true,
        };
        // lost, stuck, completed twice, undone, stored twice, run twice, wrong hash
        check(&[vec![accepted(1, 0)]], &[], 0, [1, 0, 0, 0, 0, 0, 0]);
        check(
            &[vec![accepted(1, 0)]],
            &[(1, state(State::Dead))],
            0,
            [1, 0, 0, 0, 0, 0, 0],
        );
        check(
            &[vec![accepted(1, 0)]],
            &[(1, state(State::Running))],
            0,
            [0, 1, 0, 0, 0, 0, 0],
        );
        check(
            &[life(), vec![completed(1)]],
            &[(1, WELL)],
            1,
            [0, 0, 1, 0, 0, 0, 0],
        );
        check(&[life()], &[(1, WELL)], 2, [0, 0, 1, 0, 0, 0, 0]);
        check(
            &[life(), vec![started(1, 11)]],
            &[(1, WELL)],
            1,
            [0, 0, 0, 1, 0, 0, 0],
        );
        check(
            &[life()],
            &[(1, state(State::Ready))],
            0,
            [0, 1, 0, 1, 0, 0, 0],
        );
        check(&[life()], &[], 1, [1, 0, 0, 1, 0, 0, 0]);
        check(&[life()], &[(1, WELL), (2, WELL)], 2, [0, 0, 0, 0, 1, 0, 0]);
        check(
            &[life(), vec![accepted(2, 0)]],
            &[(1, WELL), (2, WELL)],
            2,
            [0, 0, 0, 0, 1, 0, 0],
        );
        let again = vec![started(1, 9), started(1, 10), completed(1), accepted(1, 0)];
        check(&[again], &[(1, WELL)], 1, [0, 0, 0, 0, 0, 1, 0]);
        let same_claim = vec![vec![started(1, 10)], life()];
        check(&same_claim, &[(1, WELL)], 1, [0, 0, 0, 0, 0, 1, 0]);
        check(
            &[life()],
            &[(
                1,
                Stored {
                    output_is_right: false,
                    ..WELL
                },
            )],
            1,
            [0, 0, 0, 0, 0, 0, 1],
        );
    }

    #[test]
    fn what_an_unfinished_child_could_not_note_is_no_fault() {
        let found = Found {
            jobs: [(7, WELL)].into(),
            completions: 1,
            ..Found::default()
        };
        let count = |finished| Tally::of(&[], &found, finished).stored_twice.count;
        assert_eq!((count(false), count(true)), (0, 1));
    }
}
