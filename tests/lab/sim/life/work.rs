//! Those who do the work: handlers that end, late, twice or never.

use jobsled::lab::{End, Held};

use super::Life;
use crate::sim::model::{Asked, Broken};
use crate::sim::swarm::Feature;

impl Life<'_> {
    /// Slots take jobs, handlers return.
    pub(super) fn work(&mut self) -> Result<(), Broken> {
        if !self.hands.is_empty() && self.random.one_in(3) {
            let at = self.random.index(self.hands.len());
            let held = self.hands.swap_remove(at);
            let end = self.any_end();
            self.go_on(held, end)?;
        }
        self.take_all()?;
        for _ in 0..self.random.below(4) {
            if self.hands.is_empty() {
                break;
            }
            let at = self.random.index(self.hands.len());
            if self.swarm.has(Feature::SignsOfLife) {
                self.machine.sign_of_life(&self.hands[at]);
            }
            if self.swarm.has(Feature::Hangs) && self.random.one_in(3) {
                continue;
            }
            let held = self.hands.swap_remove(at);
            let end = self.any_end();
            self.settle(held, end);
        }
        Ok(())
    }

    pub(super) fn take_all(&mut self) -> Result<(), Broken> {
        while let Some(held) = self.machine.take() {
            self.began(held)?;
        }
        Ok(())
    }

    /// A handler has a job: what it was given must be what was stored.
    pub(super) fn began(&mut self, held: Held) -> Result<(), Broken> {
        let (id, claim) = (held.id(), held.claim());
        self.say(|| format!("job {id} begins by claim {claim}"));
        self.model
            .begins(id, claim, held.attempt(), self.awake_ms)?;
        let payload = held
            .payload()
            .map_err(|e| format!("I9: the payload of job {id}: {e}"))?;
        if payload != self.model.jobs[&id].wish.payload {
            return Err(format!(
                "I1: job {id} was given another payload than it was stored with"
            ));
        }
        self.old_claims.push((id, claim));
        self.hands.push(held);
        Ok(())
    }

    fn any_end(&mut self) -> End {
        match self.random.below(10) {
            0 | 1 if self.swarm.has(Feature::Failures) => End::Failed {
                error: format!("e{}", self.random.below(100)),
                retry_after_ms: self.random.one_in(2).then(|| self.random.below(40)),
            },
            2 if self.swarm.has(Feature::Snoozes) => End::Snoozed(self.random.below(40)),
            3 if self.swarm.has(Feature::Discards) => End::Discarded("d".to_owned()),
            4 if self.swarm.has(Feature::Cancels) => End::Cancelled("c".to_owned()),
            5 if self.swarm.has(Feature::GivesBack) => End::GivenBack,
            _ => End::Completed(vec![1, 2, 3]),
        }
    }

    pub(super) fn settle(&mut self, held: Held, end: End) {
        let (id, claim) = self.returned(&held, &end);
        let ticket = self.machine.settle(held, end.clone());
        self.asked
            .extend(ticket.map(|ticket| (ticket, Asked::Settle { id, claim, end })));
    }

    /// A slot that goes from one job to the next.
    fn go_on(&mut self, held: Held, end: End) -> Result<(), Broken> {
        let (id, claim) = self.returned(&held, &end);
        let (next, ticket) = self.machine.go_on(held, end.clone());
        self.asked
            .extend(ticket.map(|ticket| (ticket, Asked::Settle { id, claim, end })));
        next.map_or(Ok(()), |next| self.began(next))
    }

    fn returned(&mut self, held: &Held, end: &End) -> (u64, u64) {
        let (id, claim) = (held.id(), held.claim());
        self.say(|| format!("job {id} ends by claim {claim}: {end:?}"));
        self.model.returned(id, claim);
        (id, claim)
    }

    /// Workers that were given up speak all the same, and others speak twice.
    pub(super) fn speak_late(&mut self) {
        if !self.swarm.has(Feature::LateAnswers) || self.old_claims.is_empty() {
            return;
        }
        let (id, claim) = self.old_claims[self.random.index(self.old_claims.len())];
        if self.hands.iter().any(|held| held.claim() == claim) {
            return;
        }
        self.say(|| format!("claim {claim} of job {id} speaks late"));
        let end = End::Completed(vec![6, 6, 6]);
        let ticket = self.machine.claim_to_settle(id, claim, end.clone());
        self.asked
            .extend(ticket.map(|ticket| (ticket, Asked::Settle { id, claim, end })));
    }
}
