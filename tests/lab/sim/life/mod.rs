//! One life: a machine, everybody around it, and the model that watches.

mod asks;
mod ends;
mod work;

use std::collections::BTreeMap;

use jobsled::lab::{Answer, Call, End, Held, Machine, Refusal, Setting};

use super::model::{Asked, Broken, Is, Model, Moment, Rules};
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
                Err(Refusal::Other(error)) if error.contains("bug") => return Err(error),
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
