//! How processes and machines end, and what becomes of their files.

use jobsled::Error;
use jobsled::lab::{Call, Fate, Held, Loss, Trouble};

use super::{DEPTH_MAX, Flow, Life, Step};
use crate::random::Random;
use crate::sim::model::{Asked, Broken, Crash};
use crate::sim::swarm::Feature;

impl Life<'_> {
    /// One of the next operations of the disk goes wrong.
    pub(super) fn trouble(&mut self) {
        let kinds = [
            (Feature::EndsInGroups, Trouble::DiesBefore),
            (Feature::EndsInGroups, Trouble::DiesAfter),
            (Feature::FailedSyncs, Trouble::Fails),
            (Feature::LyingSyncs, Trouble::Lies),
        ];
        let wanted: Vec<Trouble> = kinds
            .iter()
            .filter(|(feature, _)| self.swarm.has(*feature))
            .map(|(_, trouble)| *trouble)
            .collect();
        if !wanted.is_empty() {
            let trouble = *self.random.pick(&wanted);
            let n = self.random.between(1, 8);
            self.say(|| format!("{trouble:?} in {n} operations"));
            self.machine.plan_trouble(n, trouble);
        }
    }

    /// A job that takes its process with it has begun.
    pub(super) fn kills_itself(&mut self) -> bool {
        let kills = |held: &Held| held.id().is_multiple_of(7);
        self.swarm.has(Feature::Killers) && self.hands.iter().any(kills) && self.random.one_in(2)
    }

    /// The engine says that it has failed for good: it must refuse everything, and start nothing.
    pub(super) fn failed(&mut self) -> Step {
        if !self.machine.has_ended() {
            self.log.note("failed syncs", 1);
            let wish = self.wish();
            let ticket = self.machine.send(Call::Enqueue(vec![wish]));
            self.machine.step();
            let answers = self.machine.answers();
            let accepted = answers
                .iter()
                .find(|(t, answer)| Some(*t) == ticket && answer.is_ok());
            if let Some((_, answer)) = accepted {
                return Err(format!("J6: after a failed write it answers {answer:?}"));
            }
            if let Some(held) = self.machine.take() {
                return Err(format!("J6: after a failed write job {} begins", held.id()));
            }
        }
        self.die()
    }

    fn any_loss(&mut self) -> Loss {
        match (
            self.swarm.has(Feature::Kills),
            self.swarm.has(Feature::PowerCuts),
        ) {
            (true, true) if self.random.one_in(2) => Loss::Process,
            (_, true) => Loss::Power,
            _ => Loss::Process,
        }
    }

    pub(super) fn die(&mut self) -> Step {
        let mut crash = Crash {
            power: false,
            cut_openings: 0,
        };
        self.end(&mut crash)?;
        self.reopen(crash)
    }

    /// The process or the machine ends, and with it all that was on its way.
    fn end(&mut self, crash: &mut Crash) -> Result<(), Broken> {
        let loss = self.any_loss();
        self.say(|| format!("--- the end of the {loss:?}"));
        self.log.note(
            if loss == Loss::Power {
                "power cuts"
            } else {
                "kills"
            },
            1,
        );
        crash.add(loss);
        self.unanswered
            .extend(std::mem::take(&mut self.asked).into_values());
        self.hands.drain(..).for_each(Held::forget);
        let (mut fates, mut picks) = (
            Random::new(self.random.next()),
            Random::new(self.random.next()),
        );
        // What only the witness can notice is limited to what the witness has seen.
        self.lied |= self.machine.has_lied();
        let newest = self.lied || self.swarm.has(Feature::Damage);
        let fate = || match fates.below(5) {
            0 => Fate::Dropped,
            1 => Fate::Zeroed,
            2 => Fate::Torn(fates.index(4)),
            _ => Fate::Kept,
        };
        let pick = |below: u64| {
            if newest {
                below - 1
            } else {
                picks.below(below)
            }
        };
        self.machine
            .end(loss, fate, pick)
            .map_err(|e| e.to_string())
    }

    /// Opens what is left, perhaps not at the first try, and holds it against what was told.
    fn reopen(&mut self, mut crash: Crash) -> Step {
        self.machine.heal();
        if self.random.one_in(3) {
            self.pass_time();
        }
        if self.swarm.has(Feature::Damage) && self.random.one_in(3) {
            self.damage();
        }
        loop {
            let cut = self.swarm.has(Feature::CutOpenings)
                && crash.cut_openings < DEPTH_MAX
                && self.random.one_in(3);
            self.machine.heal();
            if cut && !self.machine.is_on() {
                let trouble =
                    *self
                        .random
                        .pick(&[Trouble::DiesBefore, Trouble::DiesAfter, Trouble::Fails]);
                self.machine
                    .plan_trouble(self.random.between(1, 5), trouble);
            }
            let opened = if self.machine.is_on() {
                Ok(())
            } else {
                self.machine.open()
            };
            match opened {
                Ok(()) => break,
                Err(error) if cut => {
                    self.say(|| format!("an opening was cut short: {error}"));
                    self.log.note("cut openings", 1);
                    crash.cut_openings += 1;
                    self.end(&mut crash)?;
                }
                Err(error @ (Error::Missing { .. } | Error::Damaged { .. })) if self.lied => {
                    self.log.note("lies noticed", 1);
                    self.say(|| format!("noticed: {error}"));
                    return Ok(Flow::Noticed);
                }
                Err(error) => return Err(format!("I8: the store does not open: {error}")),
            }
        }
        // It opened, so nothing was lost by it.
        self.lied = false;
        self.machine.heal();
        self.log.note("openings", 1);
        self.latest_ms = self.latest_ms.max(self.machine.now_ms());
        let at = self.moment();
        let unanswered = std::mem::take(&mut self.unanswered);
        let rows = self.machine.rows();
        let Life { machine, model, .. } = self;
        let mut read = |id| machine.details(id)?.payload;
        model.reopened(&rows, &unanswered, crash, at, &mut read)?;
        (self.set_ms, self.closing) = ((0, 0), None);
        Ok(Flow::On)
    }

    /// A closed store is damaged. Opening it must say so; if it opens, all must be there.
    fn damage(&mut self) {
        let positions = self.machine.positions();
        let position = *self.random.pick(&positions);
        let bit = (!self.random.one_in(4)).then(|| self.random.index(1 << 19));
        let Some(damage) = self.machine.damage(position, bit) else {
            return;
        };
        self.say(|| format!("damage at {position}: {bit:?}"));
        match self.machine.open() {
            // It lay in what nobody needs; the model will see.
            Ok(()) => self.log.note("damage without harm", 1),
            Err(_) => {
                self.log.note("damage noticed", 1);
                self.machine.undo(damage);
            }
        }
    }

    /// Closes in good order and opens again.
    pub(super) fn restart(&mut self) -> Step {
        let grace_ms = self.random.below(30);
        self.say(|| format!("--- closes, with a grace of {grace_ms} ms"));
        self.closing = Some(self.awake_ms + grace_ms);
        let ticket = self.machine.send(Call::Shutdown { grace_ms });
        self.asked
            .extend(ticket.map(|ticket| (ticket, Asked::Call(Call::Shutdown { grace_ms }))));
        for _ in 0..200 {
            self.work()?;
            if self.step()? == Flow::Noticed {
                return Ok(Flow::Noticed);
            }
            if self.closing.is_none() {
                return Ok(Flow::On); // it died on the way and is open again
            }
            if self.machine.close() {
                self.unanswered
                    .extend(std::mem::take(&mut self.asked).into_values());
                self.hands.drain(..).for_each(Held::forget);
                self.lied |= self.machine.has_lied();
                return self.reopen(Crash {
                    power: false,
                    cut_openings: 0,
                });
            }
            self.advance(5);
        }
        Err("I3: it does not close".to_owned())
    }
}
