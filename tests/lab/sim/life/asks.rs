//! What is asked for.

use jobsled::State;
use jobsled::lab::{Call, When, Wish};

use super::{KINDS, Life, QUEUES};
use crate::sim::model::Asked;
use crate::sim::swarm::Feature;

impl Life<'_> {
    pub(super) fn call_some(&mut self) {
        for _ in 0..self.random.between(1, 3) {
            let call = self.any_call();
            self.say(|| format!("{call:?}"));
            let ticket = self.machine.send(call.clone());
            self.asked
                .extend(ticket.map(|ticket| (ticket, Asked::Call(call))));
        }
    }

    fn any_call(&mut self) -> Call {
        let has = |feature| self.swarm.has(feature);
        let changes = [
            (Feature::Cancels, 0),
            (Feature::Deletes, 1),
            (Feature::Retries, 2),
            (Feature::Reschedules, 3),
            (Feature::Priorities, 4),
            (Feature::Moves, 5),
            (Feature::CompletesOutside, 6),
            (Feature::Pauses, 7),
            (Feature::Caps, 8),
            (Feature::Prunes, 9),
            (Feature::Looks, 10),
            (Feature::Keys, 11),
            (Feature::ByHand, 12),
            (Feature::Holds, 13),
        ];
        let wanted: Vec<u32> = changes
            .iter()
            .filter(|(feature, _)| has(*feature))
            .map(|(_, n)| *n)
            .collect();
        if wanted.is_empty() || self.random.below(3) > 0 {
            let most = if self.swarm.has(Feature::Batches) {
                self.random.between(1, 6)
            } else {
                1
            };
            return Call::Enqueue((0..most).map(|_| self.wish()).collect());
        }
        let id = self.any_id();
        let queue = (*self.random.pick(&QUEUES)).to_owned();
        match *self.random.pick(&wanted) {
            0 => Call::Cancel(id),
            1 => Call::Delete(id),
            2 => Call::Retry(id),
            3 => Call::Reschedule(id, self.when()),
            4 => Call::SetPriority(id, self.priority()),
            5 => Call::MoveTo(id, queue),
            6 => Call::Complete(id, vec![9]),
            7 => Call::Pause(queue, self.random.one_in(2)),
            8 => Call::Cap(queue, self.random.one_in(2).then_some(1)),
            9 => Call::Prune {
                state: Some(State::Completed),
                older_ms: self.random.below(50),
            },
            10 => Call::Look(id),
            11 => Call::FindKey("k".to_owned(), self.key()),
            12 => Call::Claim {
                kind: KINDS[self.random.index(2)],
                queue,
                wait_ms: self.random.below(20),
            },
            _ => {
                self.machine.let_go();
                Call::Hold
            }
        }
    }

    fn any_id(&mut self) -> u64 {
        let known = self.model.jobs.len();
        if known == 0 || self.random.one_in(12) {
            return self.random.between(10_000, 10_200);
        }
        let at = self.random.index(known);
        *self.model.jobs.keys().nth(at).unwrap()
    }

    fn key(&mut self) -> String {
        format!("key{}", self.random.below(4))
    }

    fn priority(&mut self) -> i32 {
        i32::try_from(self.random.below(4)).unwrap() - 1
    }

    fn when(&mut self) -> When {
        match self.random.below(4) {
            0 => When::For(self.random.between(1, 60)),
            1 => When::Until(
                self.machine.now_ms() + i64::try_from(self.random.between(1, 60)).unwrap(),
            ),
            _ => When::Now,
        }
    }

    pub(super) fn wish(&mut self) -> Wish {
        self.made += 1;
        let has = |life: &Life, feature| life.swarm.has(feature);
        let long = has(self, Feature::LongPayloads) && self.random.one_in(4);
        let most = if has(self, Feature::SmallEntries) {
            1_500
        } else {
            24_000
        };
        let len = if long {
            self.random.between(100, most)
        } else {
            40
        };
        let mut payload =
            vec![u8::try_from(self.made % 251).unwrap(); usize::try_from(len).unwrap()];
        // Each payload is another one: by it a job that nobody was told of is known.
        payload[..8].copy_from_slice(&self.made.to_le_bytes());
        let kind = if has(self, Feature::Parked) && self.random.one_in(5) {
            KINDS[2]
        } else {
            KINDS[self.random.index(2)]
        };
        let limits = has(self, Feature::Limits) && self.random.one_in(3);
        let expires = has(self, Feature::Expiry) && self.random.one_in(4);
        Wish {
            kind: kind.to_owned(),
            queue: (*self.random.pick(&QUEUES)).to_owned(),
            priority: if has(self, Feature::Priorities) {
                self.priority()
            } else {
                0
            },
            when: if has(self, Feature::Delays) {
                self.when()
            } else {
                When::Now
            },
            expires_at_ms: expires
                .then(|| self.machine.now_ms() + i64::try_from(self.random.below(90)).unwrap()),
            key: (has(self, Feature::Keys) && self.random.one_in(3)).then(|| self.key()),
            attempts_max: u16::try_from(self.random.between(1, 4)).unwrap(),
            backoff_ms: self.random.below(30),
            time_limit_ms: if limits { self.random.below(2) * 40 } else { 0 },
            stall_timeout_ms: if limits { 30 } else { 0 },
            once: has(self, Feature::Once) && self.random.one_in(4),
            quarantine_after: u8::try_from(self.random.below(4)).unwrap(),
            payload,
            in_file: has(self, Feature::Files) && self.random.one_in(3),
        }
    }
}
