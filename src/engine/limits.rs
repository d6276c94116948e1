//! The group's part for running handlers: limits, leases taken away, and the end of the engine.

use std::time::Duration;

use super::command::Settle;
use super::core::{Core, Mode, Run};
use super::live::{Asked, Live};
use crate::error::Result;
use crate::job::JobId;
use crate::ledger::Outcome;

impl Core {
    /// When a running job's next limit is reached, in awake time.
    pub(super) fn next_limit(&self, id: JobId) -> Option<Duration> {
        let run = self.running.get(&id)?;
        let (started_ms, alive_ms) = run.live.times()?;
        let grace_from = |asked_at: u64| asked_at.saturating_add(self.grace_ms(run));
        let at = match run.live.asked() {
            Asked::TimeLimit | Asked::Stalled => grace_from(run.live.asked_at()?),
            Asked::LeaseLost => return None,
            asked => {
                let limit = |since: u64, ms: u64| (ms > 0).then(|| since.saturating_add(ms));
                let over = limit(started_ms, run.live.time_limit_ms);
                let stalled = limit(alive_ms, run.live.stall_timeout_ms);
                let at = over.into_iter().chain(stalled).min()?;
                match run.live.asked_at().filter(|_| asked != Asked::No) {
                    // Asked to stop for another reason: it has its grace as well.
                    Some(asked_at) => at.max(grace_from(asked_at)),
                    None => at,
                }
            }
        };
        Some(Duration::from_millis(at))
    }

    fn grace_ms(&self, run: &Run) -> u64 {
        if run.pool.is_some() {
            crate::job::millis(self.limits.stop_grace)
        } else {
            0
        }
    }

    /// Asks handlers past a limit to stop, and takes the lease from those that do not.
    pub(super) fn watch_limits(&mut self) -> Result<()> {
        let now = self.now.awake;
        let mut reached: Vec<JobId> = self
            .limited
            .iter()
            .copied()
            .filter(|id| self.next_limit(*id).is_some_and(|at| at <= now))
            .collect();
        reached.sort_unstable();
        for id in reached {
            let Some(run) = self.running.get(&id) else {
                continue;
            };
            let asked = run.live.asked();
            let was_asked = matches!(asked, Asked::TimeLimit | Asked::Stalled);
            let why = if was_asked {
                asked
            } else {
                reached_limit(&run.live, now)
            };
            if !was_asked {
                run.live.ask(why, limit_text(&run.live, why).as_str(), now);
            }
            // Asked before and out of grace, or there is no grace at all.
            if self.next_limit(id).is_some_and(|at| at <= now) {
                self.revoke(id, why)?;
            }
        }
        Ok(())
    }

    /// The lease goes stale: the attempt failed, a late answer is refused. The job goes on elsewhere, unless it
    /// must not run twice: nobody knows whether the handler still runs.
    fn revoke(&mut self, id: JobId, why: Asked) -> Result<()> {
        let Some(run) = self.running.get(&id) else {
            return Ok(());
        };
        let (claim, live, pool) = (run.claim, run.live.clone(), run.pool);
        let error = limit_text(&live, why);
        log::warn!("job {id}: {error}; its lease is taken away");
        let outcome = Outcome::TakenAway {
            error: error.clone(),
        };
        self.settle(Settle::by_the_writer(id, claim, outcome))?;
        live.ask(Asked::LeaseLost, &error, self.now.awake);
        if let Some(link) = pool.and_then(|pool| self.pools.get(pool))
            && !(link.replace_slot)(&live)
        {
            log::error!(
                "a slot hangs in job {id} and may not be replaced: the pool lacks it until the handler returns"
            );
        }
        Ok(())
    }

    /// At the end of the grace, what still runs is given back and the engine closes. Those that must not run
    /// twice end here.
    pub(super) fn close_when_due(&mut self) -> Result<()> {
        let Mode::Closing { until } = self.mode else {
            return Ok(());
        };
        if !self.running.is_empty() && self.now.awake < until {
            return Ok(());
        }
        let mut left: Vec<(JobId, u64)> = self
            .running
            .iter()
            .map(|(id, run)| (*id, run.claim))
            .collect();
        left.sort_unstable();
        for (id, claim) in left {
            let live = self.running.get(&id).map(|run| run.live.clone());
            let outcome = Outcome::GivenBack { started: true };
            self.settle(Settle::by_the_writer(id, claim, outcome))?;
            if let Some(live) = live {
                let why = "the engine was shut down";
                live.ask(Asked::LeaseLost, why, self.now.awake);
            }
            self.given_back += 1;
        }
        self.mode = Mode::Closed;
        Ok(())
    }
}

fn reached_limit(live: &Live, now: Duration) -> Asked {
    let over = live.times().is_some_and(|(started_ms, _)| {
        live.time_limit_ms > 0
            && Duration::from_millis(started_ms.saturating_add(live.time_limit_ms)) <= now
    });
    if over {
        Asked::TimeLimit
    } else {
        Asked::Stalled
    }
}

fn limit_text(live: &Live, why: Asked) -> String {
    match why {
        Asked::TimeLimit => format!(
            "ran past its time limit of {:?}",
            Duration::from_millis(live.time_limit_ms)
        ),
        _ => format!(
            "gave no sign of life for {:?}",
            Duration::from_millis(live.stall_timeout_ms)
        ),
    }
}
