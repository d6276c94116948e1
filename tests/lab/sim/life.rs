//! One life: a machine, everybody around it, and the model that watches.

use std::collections::BTreeMap;

use jobsled::State;
use jobsled::lab::{
    Answer, Call, End, Fate, Held, Loss, Machine, Refusal, Setting, Trouble, When, Wish,
};

use super::model::{Asked, Broken, Crash, Is, Model, Moment, Rules};
use super::swarm::{Feature, Swarm};
use crate::check::Log;
use crate::random::Random;

/// Kinds: two with a handler, one that gets it in the end.
const KINDS: [&str; 3] = ["k", "l", "x"];
const QUEUES: [&str; 2] = ["q", "r"];
/// Virtual time within which every job ends once nothing goes wrong any more.
const LIVENESS_MS: u64 = 7 * 24 * 3_600_000;
const LIVENESS_STEPS: u32 = 20_000;
/// An opening is cut short at most so often in a row.
const DEPTH_MAX: u32 = 3;

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lived {
    /// The same for the same seed.
    pub(crate) trace: u128,
    /// Damage or a lie was noticed, and that was the end.
    pub(crate) noticed: bool,
}

/// See the module.
pub(crate) struct Life<'a> {
    machine: Machine,
    model: Model,
    random: Random,
    swarm: Swarm,
    log: &'a Log,
    hands: Vec<Held>,
    /// Claims that somebody once had.
    old_claims: Vec<(u64, u64)>,
    asked: BTreeMap<u64, Asked>,
    /// What was on its way when the process ended.
    unanswered: Vec<Asked>,
    awake_ms: u64,
    latest_ms: i64,
    set_ms: (i64, i64),
    closing: Option<u64>,
    lied: bool,
    made: u64,
    trace: u128,
    /// Says what it does.
    loud: bool,
}

/// Either goes on, or nothing more can be asked of this life.
type Step = Result<Flow, Broken>;

#[derive(Debug, PartialEq, Eq)]
enum Flow {
    On,
    Noticed,
}

impl<'a> Life<'a> {
    pub(crate) fn new(
        seed: u64,
        dir: &std::path::Path,
        log: &'a Log,
        loud: bool,
    ) -> Result<Life<'a>, Broken> {
        Life::by(Random::new(seed), seed, dir, log, loud)
    }

    /// A life whose choices are made by `random`.
    pub(crate) fn by(
        mut random: Random,
        seed: u64,
        dir: &std::path::Path,
        log: &'a Log,
        loud: bool,
    ) -> Result<Life<'a>, Broken> {
        let swarm = Swarm::of(&mut random);
        let small = swarm.has(Feature::SmallEntries);
        let keep = if swarm.has(Feature::Retention) {
            3
        } else {
            1_000
        };
        let handled: Vec<String> = KINDS[..2].iter().map(ToString::to_string).collect();
        let setting = Setting {
            seed,
            dir: dir.to_owned(),
            small_entries: small,
            slots: random.between(1, 4).try_into().unwrap(),
            ahead: random.below(5).try_into().unwrap(),
            handled: handled.clone(),
            keep_finished: keep,
            keep_dead: keep,
            key_ttl_ms: if swarm.has(Feature::ShortKeys) {
                200
            } else {
                86_400_000
            },
            slack_bytes: random.between(0, 20_000),
        };
        let rules = Rules {
            handled,
            keep_finished: keep,
            keep_dead: keep,
            key_ttl_ms: setting.key_ttl_ms,
        };
        let mut machine = Machine::new(setting).map_err(|e| e.to_string())?;
        machine
            .open()
            .map_err(|e| format!("I8: a new store does not open: {e}"))?;
        if loud {
            println!("seed {seed}: {swarm:?}");
        }
        Ok(Life {
            machine,
            model: Model::new(rules),
            random,
            swarm,
            log,
            hands: Vec::new(),
            old_claims: Vec::new(),
            asked: BTreeMap::new(),
            unanswered: Vec::new(),
            awake_ms: 1_000_000,
            latest_ms: i64::MIN,
            set_ms: (0, 0),
            closing: None,
            lied: false,
            made: 0,
            trace: 0,
            loud,
        })
    }

    /// Safety with faults, then liveness without.
    pub(crate) fn live(mut self) -> Result<Lived, Broken> {
        let steps = self.random.between(100, 160);
        for n in 0..steps {
            let flow = self.act().map_err(|why| format!("step {n}: {why}"))?;
            if flow == Flow::Noticed {
                return Ok(Lived {
                    trace: self.trace,
                    noticed: true,
                });
            }
        }
        self.log.note("steps", steps);
        if self.quiet_down()? == Flow::Noticed {
            return Ok(Lived {
                trace: self.trace,
                noticed: true,
            });
        }
        self.end_all().map_err(|why| format!("liveness: {why}"))?;
        Ok(Lived {
            trace: self.trace,
            noticed: false,
        })
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.loud {
            println!("  {}", what());
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            now_ms: self.machine.now_ms(),
            latest_ms: self.latest_ms,
            awake_ms: self.awake_ms,
            set_ms: self.set_ms,
            closing: self.closing,
        }
    }

    /// One thing happens, and then a step.
    fn act(&mut self) -> Step {
        match self.random.below(20) {
            0..=6 => self.call_some(),
            7..=11 => self.work()?,
            12..=14 => self.pass_time(),
            15 => self.speak_late(),
            16 => self.trouble(),
            17 if self.random.one_in(3) => return self.die(),
            18 if self.random.one_in(4) => return self.restart(),
            _ => {}
        }
        let flow = self.step()?;
        if flow == Flow::On && self.kills_itself() {
            return self.die();
        }
        Ok(flow)
    }

    fn call_some(&mut self) {
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

    fn wish(&mut self) -> Wish {
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

    /// Slots take jobs, handlers return.
    fn work(&mut self) -> Result<(), Broken> {
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

    fn take_all(&mut self) -> Result<(), Broken> {
        while let Some(held) = self.machine.take() {
            self.began(held)?;
        }
        Ok(())
    }

    /// A handler has a job: what it was given must be what was stored.
    fn began(&mut self, held: Held) -> Result<(), Broken> {
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

    fn settle(&mut self, held: Held, end: End) {
        let (id, claim) = (held.id(), held.claim());
        self.say(|| format!("job {id} ends by claim {claim}: {end:?}"));
        self.model.returned(id, claim);
        let ticket = self.machine.settle(held, end.clone());
        self.asked
            .extend(ticket.map(|ticket| (ticket, Asked::Settle { id, claim, end })));
    }

    /// Workers that were given up speak all the same, and others speak twice.
    fn speak_late(&mut self) {
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

    fn pass_time(&mut self) {
        let ms = match self.random.below(10) {
            0 => self.random.below(8_000),
            1 if self.swarm.has(Feature::LongTimes) => self.random.below(3_600_000),
            _ => self.random.below(25),
        };
        self.advance(ms);
        if self.swarm.has(Feature::ClockSteps) && self.random.one_in(4) {
            // Less than a second is drift and no step: a job may wait that long.
            let by_ms = i64::try_from(self.random.between(1_000, 100_000)).unwrap();
            let by_ms = if self.random.one_in(2) { by_ms } else { -by_ms };
            self.say(|| format!("the wall clock is set by {by_ms} ms"));
            self.machine.step_wall(by_ms);
            let (back, forward) = &mut self.set_ms;
            *back += by_ms.min(0);
            *forward += by_ms.max(0);
        }
        if self.swarm.has(Feature::Suspends) && self.random.one_in(8) {
            self.machine.suspend(self.random.below(100_000));
        }
    }

    fn advance(&mut self, ms: u64) {
        self.machine.advance(ms);
        self.awake_ms += ms;
    }

    /// One of the next operations of the disk goes wrong.
    fn trouble(&mut self) {
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
            self.lied |= trouble == Trouble::Lies;
            self.machine.plan_trouble(n, trouble);
        }
    }

    /// A job that takes its process with it has begun.
    fn kills_itself(&mut self) -> bool {
        let kills = |held: &Held| held.id().is_multiple_of(7);
        self.swarm.has(Feature::Killers) && self.hands.iter().any(kills) && self.random.one_in(2)
    }

    /// Carries out a group, hears the answers, and lets the model look.
    fn step(&mut self) -> Step {
        self.latest_ms = self.latest_ms.max(self.machine.now_ms());
        let well = self.machine.step();
        let at = self.moment();
        let mut by_hand = Vec::new();
        for (ticket, answer) in self.machine.answers() {
            let asked = self.asked.remove(&ticket).unwrap();
            match answer {
                Ok(answer) => {
                    self.say(|| format!("{ticket}: {answer:?}"));
                    self.model.answered(&asked, &answer, at)?;
                    if let Answer::Claimed(Some(held)) = answer {
                        by_hand.push(held);
                    }
                }
                Err(Refusal::Unknown) => self.unanswered.push(asked),
                Err(_) => {}
            }
        }
        self.trace = self.trace.rotate_left(5) ^ self.machine.digest();
        if !well {
            return self.failed();
        }
        self.look(at)?;
        for held in by_hand {
            self.began(held)?;
        }
        self.machine.answers(); // what is heard between two steps is no news
        Ok(Flow::On)
    }

    fn look(&mut self, at: Moment) -> Result<(), Broken> {
        self.model.look(&self.machine.rows(), at)?;
        self.set_ms = (0, 0);
        Ok(())
    }

    /// The engine says that it has failed for good: it must refuse everything, and start nothing.
    fn failed(&mut self) -> Step {
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

    fn die(&mut self) -> Step {
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
                Err(error) if self.lied => {
                    self.log.note("lies noticed", 1);
                    self.say(|| format!("noticed: {error}"));
                    return Ok(Flow::Noticed);
                }
                Err(error) => return Err(format!("I8: the store does not open: {error}")),
            }
        }
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
    fn restart(&mut self) -> Step {
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
                return self.reopen(Crash {
                    power: false,
                    cut_openings: 0,
                });
            }
            self.advance(5);
        }
        Err("I3: it does not close".to_owned())
    }

    /// The faults stop. All kinds have a handler, no queue is held.
    fn quiet_down(&mut self) -> Step {
        self.swarm = self.swarm.without_faults();
        self.machine.let_go();
        let all: Vec<String> = KINDS.iter().map(ToString::to_string).collect();
        self.machine.handle(all.clone());
        self.machine.heal();
        if self.die()? == Flow::Noticed {
            return Ok(Flow::Noticed);
        }
        self.model.rules.handled = all;
        for queue in QUEUES {
            for call in [
                Call::Pause(queue.to_owned(), false),
                Call::Cap(queue.to_owned(), None),
            ] {
                let ticket = self.machine.send(call.clone());
                self.asked
                    .extend(ticket.map(|ticket| (ticket, Asked::Call(call))));
            }
        }
        Ok(Flow::On)
    }

    /// I3: every job comes to an end.
    fn end_all(&mut self) -> Result<(), Broken> {
        let until = self.awake_ms + LIVENESS_MS;
        for _ in 0..LIVENESS_STEPS {
            self.step()?;
            self.take_all()?;
            let busy = !self.hands.is_empty();
            for held in std::mem::take(&mut self.hands) {
                self.settle(held, End::Completed(vec![1, 2, 3]));
            }
            if busy || !self.asked.is_empty() {
                continue;
            }
            let open = self
                .model
                .jobs
                .iter()
                .find(|(_, job)| !job.is_finished())
                .map(|(id, job)| (*id, job.clone()));
            let Some((id, job)) = open else {
                return self.read_all();
            };
            match self.machine.sleeps_ms() {
                Some(ms) => self.advance(ms),
                None => return Err(format!("I3: job {id} waits for nothing: {job:?}")),
            }
            if self.awake_ms > until {
                return Err(format!("I3: after a week job {id} has not ended: {job:?}"));
            }
        }
        Err(format!("I3: after {LIVENESS_STEPS} steps there is no end"))
    }

    /// What is kept of each job is what was said.
    fn read_all(&mut self) -> Result<(), Broken> {
        let jobs = self.model.jobs.clone();
        for (id, job) in &jobs {
            let told = self
                .machine
                .details(*id)
                .ok_or_else(|| format!("I1: job {id} cannot be read"))?;
            if told
                .payload
                .as_ref()
                .is_some_and(|payload| *payload != job.wish.payload)
            {
                return Err(format!("I1: job {id} has another payload"));
            }
            if told.payload.is_none() && job.is != Is::Completed {
                return Err(format!(
                    "I1: job {id} has lost its payload; it is {:?}",
                    job.is
                ));
            }
            if job.is == Is::Completed && told.output != job.output {
                return Err(format!(
                    "I2: job {id} completed with {:?}, {:?} is kept",
                    job.output, told.output
                ));
            }
            let errors: Vec<&String> = told.errors.iter().map(|(_, text)| text).collect();
            if let Some(known) = &job.errors
                && !same_errors(known, &errors)
            {
                return Err(format!(
                    "I9: job {id} failed with {known:?}, {errors:?} are kept"
                ));
            }
        }
        self.log.note("jobs", jobs.len() as u64);
        Ok(())
    }
}

/// The newest ten are kept.
fn same_errors(known: &[Option<String>], kept: &[&String]) -> bool {
    let newest = &known[known.len().saturating_sub(10)..];
    let same = |(known, kept): (&Option<String>, &&String)| {
        known.as_ref().is_none_or(|text| text == *kept)
    };
    newest.len() == kept.len() && newest.iter().zip(kept).all(same)
}
