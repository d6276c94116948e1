//! One job, and what may become of it.

use std::rc::Rc;

use jobsled::lab::{Call, End, Seen, When, Wish};
use jobsled::{DeadReason, State};

use super::Moment;

/// Where a job is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Is {
    Waiting,
    /// By this claim, and how far its handler is.
    Running(u64, Handler),
    Completed,
    Cancelled,
    Dead(DeadReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    NotBegun,
    /// At this awake time.
    Began(u64),
    /// It has returned and its word is on the way.
    Returned,
}

/// One version of what a job may be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) wish: Rc<Wish>,
    pub(crate) is: Is,
    pub(crate) queue: String,
    pub(crate) priority: i32,
    /// `None`: it was due, and is still; by which time the next look tells.
    pub(crate) due_ms: Option<i64>,
    /// Whether its due time was asked for as a span. `None`: what was seen fits both.
    pub(crate) moves: Option<bool>,
    pub(crate) attempt: u32,
    pub(crate) failures: u16,
    pub(crate) crashes: u8,
    pub(crate) cancel_asked: bool,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) output: Option<Vec<u8>>,
    /// Errors of failed attempts, oldest first, with the engine's own words for limits left open. `None`: a crash
    /// may have come before or after the last one.
    pub(crate) errors: Option<Vec<Option<String>>>,
    pub(crate) key_until_ms: i64,
    /// When it was set is not known: it is due as it is shown.
    pub(super) due_unknown: bool,
}

impl Job {
    pub(super) fn new(wish: &Wish, now_ms: i64, key_ttl_ms: i64) -> Job {
        let (due_ms, moves) = due(wish.when, now_ms);
        Job {
            is: Is::Waiting,
            queue: wish.queue.clone(),
            priority: wish.priority,
            due_ms,
            moves: Some(moves),
            attempt: 0,
            failures: 0,
            crashes: 0,
            cancel_asked: false,
            expires_at_ms: wish.expires_at_ms,
            output: None,
            errors: Some(Vec::new()),
            key_until_ms: now_ms.saturating_add(key_ttl_ms),
            due_unknown: false,
            wish: Rc::new(wish.clone()),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        !matches!(self.is, Is::Waiting | Is::Running(..))
    }

    pub(super) fn is_due(&self, now_ms: i64) -> bool {
        self.due_ms.is_none_or(|at| at <= now_ms)
    }

    /// The order in which ready jobs of one queue run.
    pub(super) fn rank(&self, id: u64) -> (i64, bool, u64) {
        (-i64::from(self.priority), self.crashes > 0, id)
    }

    /// Whether one more crash would convict it.
    pub(super) fn is_suspect(&self) -> bool {
        let most = self.wish.quarantine_after;
        !self.wish.once && most > 0 && self.crashes > 0 && self.crashes + 1 >= most.max(2)
    }

    pub(super) fn end(&mut self, is: Is) {
        if !matches!(is, Is::Dead(_)) {
            self.crashes = 0;
        }
        self.is = is;
    }

    /// Waits as it did before it was claimed. It had been due, and a span that was over stays over.
    pub(super) fn wait_again(&mut self) {
        self.is = Is::Waiting;
        if self.moves == Some(true) {
            self.due_ms = None;
        }
    }

    pub(super) fn wait(&mut self, due_ms: Option<i64>, moves: bool) {
        (self.is, self.due_ms, self.moves) = (Is::Waiting, due_ms, Some(moves));
        self.cancel_asked = false;
    }

    /// What becomes of it; where it is not known whether its time moves with the clock, by both.
    pub(super) fn either(&self, becomes: impl Fn(&Job) -> Option<Job>) -> Option<Job> {
        if self.moves.is_some() {
            return becomes(self);
        }
        let if_it = |moves| {
            let job = Job {
                moves: Some(moves),
                ..self.clone()
            };
            becomes(&job)
        };
        match (if_it(true), if_it(false)) {
            (Some(_), Some(stays)) => Some(Job {
                moves: None,
                ..stays
            }),
            (moves, stays) => moves.or(stays),
        }
    }

    /// An attempt has ended like this, now.
    pub(super) fn settled(&mut self, end: &End, now_ms: i64) {
        let obeys = self.cancel_asked && !matches!(end, End::Completed(_) | End::Discarded(_));
        let after = |ms: u64| Some(now_ms.saturating_add_unsigned(ms));
        match end {
            _ if obeys => self.end(Is::Cancelled),
            End::Completed(output) => {
                self.output = Some(output.clone());
                self.end(Is::Completed);
            }
            End::Failed {
                error,
                retry_after_ms,
            } => {
                self.failures += 1;
                if let Some(errors) = &mut self.errors {
                    errors.push((!error.is_empty()).then(|| error.clone()));
                }
                if self.failures >= self.wish.attempts_max {
                    self.end(Is::Dead(DeadReason::AttemptsUsedUp));
                } else {
                    self.crashes = 0;
                    self.wait(after(retry_after_ms.unwrap_or(self.wish.backoff_ms)), true);
                }
            }
            End::Snoozed(ms) => {
                self.crashes = 0;
                self.wait(after(*ms), true);
            }
            End::Discarded(_) => self.end(Is::Dead(DeadReason::Discarded)),
            End::Cancelled(_) => self.end(Is::Cancelled),
            End::GivenBack if self.wish.once => self.end(Is::Dead(DeadReason::Crashed)),
            End::GivenBack => self.wait_again(),
        }
    }
}

pub(super) fn due(when: When, now_ms: i64) -> (Option<i64>, bool) {
    match when {
        When::Now => (Some(now_ms), true),
        When::Until(at_ms) => (Some(at_ms), false),
        When::For(ms) => (Some(now_ms.saturating_add_unsigned(ms)), true),
    }
}

/// A job after a call that was done.
pub(super) fn changed(job: &Job, call: &Call, now_ms: i64) -> Option<Job> {
    let mut job = job.clone();
    // Handed out and not begun: the writer takes it back first.
    if !matches!(call, Call::Complete(..))
        && let Some(back) = taken_back(&job)
    {
        job = back;
    }
    match call {
        Call::Cancel(_) => job.end(Is::Cancelled),
        Call::Delete(_) => return None,
        Call::Complete(_, output) => {
            job.output = Some(output.clone());
            job.end(Is::Completed);
        }
        Call::SetPriority(_, priority) => job.priority = *priority,
        Call::MoveTo(_, queue) => job.queue.clone_from(queue),
        Call::Retry(_) | Call::Reschedule(..) => {
            let when = match call {
                Call::Reschedule(_, when) => *when,
                _ => When::Now,
            };
            let (due_ms, moves) = due(when, now_ms);
            if job.is_finished() {
                (job.failures, job.crashes, job.expires_at_ms) = (0, 0, None);
                job.cancel_asked = false;
                job.is = Is::Waiting;
            }
            (job.due_ms, job.moves) = (due_ms, Some(moves));
        }
        _ => {}
    }
    Some(job)
}

/// Whether a call can be done to a job as it is.
pub(super) fn may(job: &Job, call: &Call) -> bool {
    let begun = matches!(job.is, Is::Running(_, handler) if handler != Handler::NotBegun);
    match call {
        Call::Complete(..) => !job.is_finished(),
        Call::Delete(_) => !begun,
        Call::Retry(_) | Call::Reschedule(..) => !begun && job.is != Is::Completed,
        _ => !begun && !job.is_finished(),
    }
}

/// Spans move with the wall clock.
pub(super) fn follow_clock(job: &mut Job, row: &Seen, at: Moment) {
    let (back, forward) = at.set_ms;
    if job.due_ms.is_none() && job.is == Is::Waiting && row.due_ms <= at.now_ms {
        job.due_ms = Some(row.due_ms);
    }
    if let Some(due_ms) = job.due_ms
        && job.moves == Some(true)
        && (due_ms + back..=due_ms + forward).contains(&row.due_ms)
    {
        job.due_ms = Some(row.due_ms);
    }
}

pub(super) fn by_claim(job: &Job, row: &Seen) -> Option<Job> {
    let claim = row.claim.filter(|_| job.is == Is::Waiting)?;
    let mut job = job.clone();
    job.is = Is::Running(claim, Handler::NotBegun);
    job.attempt += 1;
    Some(job)
}

/// The writer takes back what no handler has begun.
pub(super) fn taken_back(job: &Job) -> Option<Job> {
    let Is::Running(_, Handler::NotBegun) = job.is else {
        return None;
    };
    let mut job = job.clone();
    job.wait_again();
    job.attempt -= 1;
    Some(job)
}

pub(super) fn expired(job: &Job, at: Moment) -> Option<Job> {
    let over = job.expires_at_ms.is_some_and(|end| end <= at.now_ms);
    let back = taken_back(job).unwrap_or_else(|| job.clone());
    (over && back.is == Is::Waiting).then(|| {
        let mut job = back;
        job.end(Is::Dead(DeadReason::Expired));
        job
    })
}

/// The engine closes and the handler's grace is over.
pub(super) fn given_back(job: &Job, at: Moment) -> Option<Job> {
    let over = at.closing.is_some_and(|until| until <= at.awake_ms);
    (over && matches!(job.is, Is::Running(..))).then(|| {
        let mut job = job.clone();
        job.settled(&End::GivenBack, at.now_ms);
        job
    })
}

/// A limit was reached and its grace is over: the lease is taken away.
pub(super) fn by_limit(job: &Job, at: Moment) -> Option<Job> {
    const LOCK_TIMEOUT_MS: u64 = 600_000;
    let Is::Running(_, Handler::Began(began)) = job.is else {
        return None;
    };
    let limits = [
        job.wish.time_limit_ms,
        job.wish.stall_timeout_ms,
        LOCK_TIMEOUT_MS,
    ];
    let least = limits
        .into_iter()
        .filter(|ms| *ms > 0)
        .min()
        .unwrap_or(LOCK_TIMEOUT_MS);
    if at.awake_ms < began + least {
        return None;
    }
    let mut job = job.clone();
    if job.wish.once && !job.cancel_asked {
        job.errors.iter_mut().for_each(|errors| errors.push(None));
        job.end(Is::Dead(DeadReason::Crashed));
    } else {
        let end = End::Failed {
            error: String::new(),
            retry_after_ms: None,
        };
        job.settled(&end, at.now_ms);
    }
    Some(job)
}

/// Whether a job would be shown like this.
pub(super) fn shows(job: &Job, row: &Seen, at: Moment) -> bool {
    let state = match job.is {
        Is::Waiting if job.is_due(at.now_ms) => State::Ready,
        Is::Waiting => State::Scheduled,
        Is::Running(..) => State::Running,
        Is::Completed => State::Completed,
        Is::Cancelled => State::Cancelled,
        Is::Dead(_) => State::Dead,
    };
    let claim = match job.is {
        Is::Running(claim, _) => Some(claim),
        _ => None,
    };
    let reason = match job.is {
        Is::Dead(reason) => Some(reason),
        _ => None,
    };
    let due = match job.due_ms {
        _ if job.is != Is::Waiting => true,
        None => row.due_ms <= at.now_ms,
        Some(due_ms) => due_ms == row.due_ms,
    };
    (state, claim, reason) == (row.state, row.claim, row.dead_reason)
        && due
        && (job.queue == row.queue && job.priority == row.priority)
        && (job.attempt, job.failures, job.crashes) == (row.attempt, row.failures, row.crashes)
        && (job.wish.kind == row.kind && job.wish.key == row.key)
        && (job.is_finished() || job.expires_at_ms == row.expires_at_ms)
}

/// The invariant that is broken when a job is not what it was.
pub(super) fn invariant(job: &Job) -> &'static str {
    match job.is {
        Is::Waiting => "I1",
        Is::Running(..) => "I4",
        Is::Completed | Is::Cancelled | Is::Dead(_) => "I2",
    }
}
