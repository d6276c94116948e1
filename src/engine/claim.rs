//! Jobs for people with their own threads.

use std::marker::PhantomData;
use std::time::Duration;

use super::command::Command;
use super::handout::{HandOut, outcome_of};
use super::live::Asked;
use super::reply::Reply;
use super::{Engine, Shared};
use crate::error::{Error, Result};
use crate::job::{
    ClaimNumber, Content, Form, Format, INLINE_OUTPUT_MAX, Job, JobId, Stop, check_name,
};
use crate::ledger::Outcome;

/// A job claimed by hand. Settle it with [`complete`](Claim::complete) or [`stop`](Claim::stop); dropped, it goes
/// back, no attempt used, or is dead if it must not run twice ([`OnCrash::Dead`](crate::OnCrash::Dead)). Without a
/// [`heartbeat`](Claim::heartbeat) its lease lasts for the [lock timeout](crate::EngineBuilder::lock_timeout), 10
/// minutes unless set.
#[derive(Debug)]
#[must_use = "a dropped claim gives the job back"]
pub struct Claim<J: Job> {
    job: HandOut,
    engine: Engine,
    kind: PhantomData<fn() -> J>,
}

impl Engine {
    /// Claims the next job of kind `J` in a queue for the calling thread; waits for one up to `wait`.
    /// For programs that run their jobs on threads of their own; a kind with a handler here may be claimed as well.
    ///
    /// *Durability:* the claim is on stable storage when it returns.
    ///
    /// ```
    /// # use jobsled::{Engine, job, rkyv};
    /// # #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    /// # struct Add { a: u32, b: u32 }
    /// # job!(Add, kind = "add", output = u32);
    /// # let engine = Engine::in_memory().open()?;
    /// use std::time::Duration;
    /// let handle = engine.enqueue(Add { a: 2, b: 3 })?;
    /// let claim = engine.claim::<Add>("default", Duration::ZERO)?.expect("one job is ready");
    /// let job = claim.job()?;
    /// assert!(claim.complete(&(job.a + job.b))?);
    /// assert_eq!(handle.wait()?, jobsled::Finished::Completed(5));
    /// # Ok::<(), jobsled::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for the queue name; [`Error::Draining`]; [`Error::Closed`];
    /// [`Error::Refused`] after a failed write.
    pub fn claim<J: Job>(&self, queue: &str, wait: Duration) -> Result<Option<Claim<J>>> {
        check_name("queue name", queue)?;
        let until = self.shared.clock.now().awake.saturating_add(wait);
        let (kind, queue) = (J::KIND, queue.to_owned());
        let job = self.shared.ask(|reply| Command::Claim {
            kind,
            queue,
            until,
            reply,
        })?;
        Ok(job.map(|mut job| {
            job.arrived = true;
            Claim {
                job,
                engine: Engine::unguarded(self.shared.clone()),
                kind: PhantomData,
            }
        }))
    }
}

impl<J: Job> Claim<J> {
    /// The job's id.
    pub fn id(&self) -> JobId {
        self.job.id
    }

    /// The claim's number, for fencing outside systems.
    pub fn number(&self) -> ClaimNumber {
        ClaimNumber(self.job.claim)
    }

    /// Number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.job.attempt
    }

    /// The payload, upgraded if it is of an older version
    /// ([`EngineBuilder::upgrade`](crate::EngineBuilder::upgrade)) or JSON
    /// ([`EngineBuilder::accept_json`](crate::EngineBuilder::accept_json)).
    ///
    /// # Errors
    ///
    /// [`Error::Payload`] if it is of a form that nothing converts, or does not decode; [`Error::Damaged`] if
    /// its file is.
    pub fn job(&self) -> Result<J> {
        let error = |reason: String| Error::Payload {
            what: "payload",
            kind: J::KIND.to_owned(),
            reason,
        };
        let shared = &self.engine.shared;
        let read = |stored: &[u8]| {
            let (form, wanted) = (self.job.form, Form::of::<J>());
            let bytes = shared.handlers.convert(J::KIND, form, wanted, stored);
            let bytes = bytes.map_err(&error)?;
            <J::Format as Format<J>>::decode(&bytes).map_err(|e| error(e.to_string()))
        };
        self.job.with_payload(&shared.payloads, read)?
    }

    /// A sign of life: the lease lasts for another lock timeout. False if it is lost, or the job was
    /// cancelled: stop working on it.
    pub fn heartbeat(&self) -> bool {
        self.job
            .live
            .sign_of_life(self.engine.shared.clock.now().awake);
        self.job.live.asked() == Asked::No
    }

    /// Completes the job. False if the lease was lost: the job has moved on and nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Payload`] if the output cannot be written (the job goes back); [`Error::Closed`];
    /// [`Error::Refused`] or [`Error::Unknown`] after a failed write.
    pub fn complete(self, output: &J::Output) -> Result<bool> {
        let shared = &self.engine.shared;
        // First of all: a large output has its file before it is settled.
        shared.check_process()?;
        let bytes = <J::Format as Format<J::Output>>::encode(output, shared.payload_max)
            .map_err(|e| shared.payload_error("output", J::KIND, &e))?;
        let bytes = shared
            .handlers
            .output(J::KIND, self.job.form, Form::of::<J>(), bytes)
            .map_err(|reason| Error::Payload {
                what: "output",
                kind: J::KIND.to_owned(),
                reason,
            })?;
        let content = if bytes.len() <= INLINE_OUTPUT_MAX {
            Content::Inline(bytes)
        } else {
            Content::File(self.engine.shared.payloads.store(&bytes)?)
        };
        self.settle(Outcome::Completed(content))
    }

    /// Ends this attempt without output: failed, snoozed, discarded or cancelled. False if the lease was lost.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`]; [`Error::Refused`] or [`Error::Unknown`] after a failed write.
    pub fn stop(self, why: impl Into<Stop>) -> Result<bool> {
        let outcome = outcome_of(why.into().0, || Outcome::GivenBack { started: true });
        self.settle(outcome)
    }

    /// The same claim as a process has it in which `engine` is.
    #[cfg(test)]
    pub(super) fn of(self, engine: &Engine) -> Claim<J> {
        Claim {
            engine: Engine::unguarded(engine.shared.clone()),
            ..self
        }
    }

    fn settle(self, outcome: Outcome) -> Result<bool> {
        let Claim { job, engine, .. } = self;
        let shared: &Shared = &engine.shared;
        shared.check_process()?;
        let (reply, answer) = Reply::new();
        job.settle_and_ask(outcome, 0, reply);
        shared.wait(&answer)
    }
}
