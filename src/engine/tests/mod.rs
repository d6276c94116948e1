//! A whole engine, crash and reopen included, on the memory journal and a manual clock, without a thread.

#![expect(
    clippy::cast_possible_truncation,
    clippy::similar_names,
    reason = "small numbers, made here"
)]

mod clocks;
mod cuts;
mod found;
mod holds;
mod once;
#[cfg(shuttle)]
mod threads;
mod unhurried;

use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Disk, Limits, PoolLink};
use super::handouts::HandOuts;
use super::inbox::Commands;
use super::recorder::Recorder;
use super::recover::{first_group, read_back};
use super::*;
use crate::clock::{Clock, ManualClock};
use crate::error::{Error, Result};
use crate::job::{Content, JobId, NewJob, Policy, Priority, State, Wait};
use crate::journal::{self, Geometry, MemoryDisk, Payloads};
use crate::ledger::{ChangeAnswer, ChangeKind, Filter, Idle, Outcome, Placed, Row, Setup};

/// An engine in parts: the test is the thread.
struct Life {
    disk: MemoryDisk,
    payloads: Arc<Payloads>,
    clock: ManualClock,
    core: Core,
    inbox: Inbox,
    commands: Commands,
    outs: Arc<HandOuts>,
    slots: usize,
}

impl Life {
    fn new(slots: usize) -> Life {
        let disk = MemoryDisk::default();
        let clock = ManualClock::at(1_700_000_000_000);
        let header = journal::StoreHeader {
            store: 42,
            geometry: Geometry::DEFAULT,
        };
        let mut chain = header.first_chain();
        let group = first_group(&mut chain, Geometry::DEFAULT, clock.now().wall_ms).unwrap();
        journal::commit(
            &mut disk.journal(),
            &group,
            &mut [].into(),
            Geometry::DEFAULT,
        )
        .unwrap();
        let payloads = Arc::new(Payloads::in_memory());
        let parts = Life::open(&disk, &payloads, &clock, slots).unwrap();
        let (core, inbox, commands, outs) = parts;
        Life {
            disk,
            payloads,
            clock,
            core,
            inbox,
            commands,
            outs,
            slots,
        }
    }

    fn open(
        disk: &MemoryDisk,
        payloads: &Arc<Payloads>,
        clock: &ManualClock,
        slots: usize,
    ) -> Result<(Core, Inbox, Commands, Arc<HandOuts>)> {
        let (inbox, commands) = Inbox::new(100_000, usize::MAX);
        let outs = Arc::new(HandOuts::default());
        let replace = |live: &Live| {
            live.abandon();
            true
        };
        let setup = Setup {
            handled: ["k".to_owned()].into(),
            // Small, so that lives are long enough to compact.
            slack_bytes: 20_000,
            ..Setup::default()
        };
        let mut journal: Box<dyn journal::Journal> = Box::new(disk.journal());
        let replayed = read_back(journal.as_mut(), 42, None, setup, clock.now().wall_ms)?;
        let core = recover(Parts {
            clock: Arc::new(clock.clone()),
            journal,
            replayed,
            geometry: Geometry::DEFAULT,
            disk: Disk {
                dir: None,
                witness: None,
                payloads: payloads.clone(),
                recorder: Arc::new(Recorder::none()),
                lock: None,
            },
            limits: Limits {
                stop_grace: Duration::from_secs(5),
                lock_timeout: Duration::from_mins(10),
                disk_floor: 0,
            },
            pools: vec![PoolLink::new(outs.clone(), slots, 4, Box::new(replace))],
            inbox: inbox.clone(),
            hub: Arc::default(),
            watchdog: Watchdog::new(Duration::from_mins(1)),
        })?;
        Ok((core, inbox, commands, outs))
    }

    /// Sends a command, steps, and returns the answer.
    fn ask<T>(&mut self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = Reply::new();
        self.inbox.send_unbounded(command(reply));
        self.step();
        answer
            .try_recv()
            .expect("answered in the step that took it")
    }

    fn step(&mut self) {
        let commands = self.commands.group_now();
        let _ = self.core.step(commands);
    }

    fn enqueue(&mut self, jobs: Vec<NewJob>) -> Result<Vec<Placed>> {
        let jobs = jobs.into();
        self.ask(|reply| Command::Enqueue { jobs, reply })
    }

    fn row(&mut self, id: JobId) -> Option<Row> {
        self.ask(|reply| Command::Look { id, reply }).unwrap()
    }

    fn rows(&mut self) -> Vec<Row> {
        let from = JobId::from_number(0);
        self.ask(|reply| Command::List {
            filter: Filter::default(),
            from,
            rows_max: 10_000,
            reply,
        })
        .unwrap()
        .rows
    }

    /// Takes a handed-out job as a slot would, and begins it.
    fn take(&mut self) -> Option<HandOut> {
        let job = self.outs.try_next()?;
        assert!(job.live.start(self.clock.now().awake));
        self.outs.note_begun();
        Some(job)
    }

    /// The power goes: what was not synced is kept or lost as `keep` says. Then the store is opened again.
    fn crash(&mut self, keep: impl FnMut() -> bool) -> Result<()> {
        self.disk.cut_power(keep);
        let (core, inbox, commands, outs) =
            Life::open(&self.disk, &self.payloads, &self.clock, self.slots)?;
        // What the old engine's workers hold is forgotten with their process.
        let old = std::mem::replace(&mut self.core, core);
        self.inbox = inbox;
        self.commands = commands;
        self.outs = outs;
        drop(old);
        Ok(())
    }
}

fn job() -> NewJob {
    NewJob::plain()
}

fn done() -> Outcome {
    Outcome::Completed(Content::Inline(vec![1]))
}

#[test]
fn a_life_with_a_crash_in_it() {
    let mut life = Life::new(2);
    let placed = life.enqueue(vec![job(), job(), job()]).unwrap();
    life.step();
    let first = life.take().expect("handed out after the sync");
    let second = life.take().expect("two slots");
    assert!(life.take().is_none());
    first.settle(done(), 10);
    life.step();
    let third = life.take().expect("the free slot takes the next");
    life.crash(|| false).unwrap();
    drop((second, third)); // their process is gone, nobody hears this
    let states: Vec<State> = placed
        .iter()
        .map(|p| life.row(p.id).unwrap().state)
        .collect();
    assert_eq!(
        states[0],
        State::Completed,
        "an acknowledged completion stays"
    );
    assert!(
        states[1..].iter().all(|s| *s == State::Running),
        "recovered and claimed again: {states:?}"
    );
    let more = life.enqueue(vec![job()]).unwrap();
    assert!(more[0].id > placed[2].id);
}

#[test]
fn nobody_is_answered_before_the_sync() {
    let mut life = Life::new(1);
    life.disk.fail_from_sync(life.disk.syncs() + 1);
    let error = life.enqueue(vec![job()]).unwrap_err();
    assert!(
        matches!(error, Error::Unknown { .. }),
        "it may be there: {error}"
    );
    let error = life.enqueue(vec![job()]).unwrap_err();
    assert!(
        matches!(error, Error::Refused { .. }),
        "nothing is tried after a failed sync: {error}"
    );
    assert!(
        life.take().is_none(),
        "nothing starts on what is not durable"
    );
}

#[test]
fn a_settle_does_not_wait_and_a_late_one_changes_nothing() {
    let mut life = Life::new(1);
    let mut slow = job();
    slow.policy.stall_timeout_ms = 1_000;
    let id = life.enqueue(vec![slow]).unwrap()[0].id;
    let hangs = life.take().unwrap();
    life.clock.advance(Duration::from_millis(999));
    life.step();
    assert_eq!(hangs.live.asked(), Asked::No);
    life.clock.advance(Duration::from_millis(1));
    life.step();
    assert_eq!(hangs.live.asked(), Asked::Stalled);
    life.clock.advance(Duration::from_secs(5));
    life.step();
    assert!(
        hangs.live.is_abandoned(),
        "out of grace: the slot is replaced"
    );
    let row = life.row(id).unwrap();
    assert_eq!((row.state, row.failures), (State::Scheduled, 1));
    // It goes on elsewhere, and the first one wakes up too late.
    life.clock.advance(Duration::from_secs(2));
    life.step();
    let again = life.take().expect("runs again");
    assert!(again.claim > hangs.claim);
    hangs.settle(done(), 1);
    life.step();
    assert_eq!(
        life.row(id).unwrap().state,
        State::Running,
        "the late answer is refused"
    );
    let stats = life.ask(|reply| Command::Snapshot { reply }).unwrap();
    assert_eq!(stats.late_answers, 1);
    again.settle(done(), 1);
    life.step();
    assert_eq!(life.row(id).unwrap().state, State::Completed);
}

#[test]
fn cancel_reaches_queued_handed_out_and_running_jobs() {
    let mut life = Life::new(1);
    life.core.pools_mut()[0].ahead_max = 4;
    let ids: Vec<JobId> = life
        .enqueue((0..6).map(|_| job()).collect())
        .unwrap()
        .iter()
        .map(|p| p.id)
        .collect();
    let running = life.take().unwrap();
    life.step(); // one began: now some are claimed ahead
    let cancel = |life: &mut Life, id| {
        life.ask(|reply| Command::Change {
            id,
            wish: ChangeKind::Cancel { reason: "r".into() },
            reply,
        })
        .unwrap()
    };
    assert_eq!(
        life.row(ids[1]).unwrap().state,
        State::Running,
        "handed out, not begun"
    );
    assert_eq!(cancel(&mut life, ids[1]), ChangeAnswer::Done);
    assert_eq!(cancel(&mut life, ids[5]), ChangeAnswer::Done);
    assert_eq!(cancel(&mut life, ids[0]), ChangeAnswer::IsRunning);
    assert_eq!(running.live.asked(), Asked::Cancelled);
    running.settle(Outcome::Cancelled("r".into()), 1);
    life.step();
    for id in [ids[0], ids[1], ids[5]] {
        assert_eq!(life.row(id).unwrap().state, State::Cancelled);
    }
    assert_eq!(
        life.take().unwrap().id,
        ids[2],
        "what was taken back is never handed to a slot"
    );
}

#[test]
fn a_higher_priority_overtakes_what_was_claimed_ahead() {
    let mut life = Life::new(1);
    life.core.pools_mut()[0].ahead_max = 4;
    life.enqueue((0..5).map(|_| job()).collect()).unwrap();
    let running = life.take().unwrap();
    life.step();
    let urgent = life
        .enqueue(vec![NewJob {
            priority: Priority(1),
            ..job()
        }])
        .unwrap()[0]
        .id;
    running.settle(done(), 1);
    life.step();
    assert_eq!(life.take().unwrap().id, urgent);
}

#[test]
fn completing_from_outside_fences_the_running_owner() {
    let mut life = Life::new(1);
    let id = life.enqueue(vec![job()]).unwrap()[0].id;
    let owner = life.take().unwrap();
    let wish = ChangeKind::Complete {
        output: Content::Inline(vec![5]),
    };
    assert_eq!(
        life.ask(|reply| Command::Change { id, wish, reply })
            .unwrap(),
        ChangeAnswer::Done
    );
    assert_eq!(owner.live.asked(), Asked::LeaseLost);
    owner.settle(Outcome::Discarded("late".into()), 1);
    life.step();
    assert_eq!(life.row(id).unwrap().state, State::Completed);
}

#[test]
fn pause_takes_back_what_has_not_begun_and_shutdown_gives_back_what_runs() {
    let mut life = Life::new(2);
    let ids: Vec<JobId> = life
        .enqueue(vec![job(), job()])
        .unwrap()
        .iter()
        .map(|p| p.id)
        .collect();
    let running = life.take().unwrap();
    life.ask(|reply| Command::SetQueue {
        name: "q".into(),
        paused: Some(true),
        concurrency: None,
        reply,
    })
    .unwrap();
    assert_eq!(life.row(ids[1]).unwrap().state, State::Ready);
    let (reply, closed) = Reply::new();
    let until = life.clock.now().awake + Duration::from_secs(3);
    life.inbox
        .send_unbounded(Command::Shutdown { until, reply });
    life.step();
    assert_eq!(running.live.asked(), Asked::Shutdown);
    assert!(!life.core.is_closed(), "the handler has its grace");
    life.clock.advance(Duration::from_secs(3));
    life.step();
    assert!(life.core.is_closed());
    assert!(closed.try_recv().is_err(), "told when the files are closed");
    life.crash(|| false).unwrap();
    let rows = life.rows();
    assert!(
        rows.iter()
            .all(|row| row.state == State::Ready && row.crashes == 0 && row.failures == 0),
        "{rows:?}"
    );
}

fn shut_down(life: &mut Life, grace: Duration) {
    let (reply, _closed) = Reply::new();
    let until = life.clock.now().awake + grace;
    life.inbox
        .send_unbounded(Command::Shutdown { until, reply });
    life.step();
}

/// E6: a handler that went on after its lease was taken away once noted its end over whatever another claim had
/// noted at its place; a crash then took that one for never begun.
#[test]
fn a_place_is_free_only_when_its_handler_has_ended() {
    let mut life = Life::new(1);
    let limited = NewJob {
        policy: Policy {
            time_limit_ms: 1_000,
            ..Policy::default()
        },
        ..job()
    };
    life.enqueue(vec![limited]).unwrap();
    let late = life.take().unwrap();
    for _ in 0..2 {
        life.clock.advance(Duration::from_secs(6)); // the limit, and then its grace
        life.step();
    }
    assert_eq!(late.live.asked(), Asked::LeaseLost);
    life.enqueue(vec![job()]).unwrap();
    let next = life.take().unwrap();
    assert_ne!(next.place, late.place, "its handler still runs");
    let freed = late.place;
    late.settle(done(), 1);
    next.settle(done(), 1);
    life.step();
    let places = [0, 1].map(|_| {
        life.enqueue(vec![job()]).unwrap();
        let job = life.take().unwrap();
        let place = job.place;
        job.settle(done(), 1);
        place
    });
    assert!(places.contains(&freed), "{places:?}, {freed} is lost");
}

/// What was completed from outside before any handler began is not begun any more.
#[test]
fn completing_from_outside_takes_back_what_has_not_begun() {
    let mut life = Life::new(1);
    let id = life.enqueue(vec![job()]).unwrap()[0].id;
    let wish = ChangeKind::Complete {
        output: Content::Inline(vec![1]),
    };
    life.ask(|reply| Command::Change { id, wish, reply })
        .unwrap();
    assert!(life.outs.try_next().is_none());
    assert_eq!(life.row(id).unwrap().state, State::Completed);
}

/// A wish to cancel was once lost when the handler failed, gave the job back, or ran past a limit.
#[test]
fn whatever_ends_an_attempt_that_was_asked_to_cancel_cancels_the_job() {
    type End<'a> = dyn Fn(&mut Life, HandOut) + 'a;
    let limited = || NewJob {
        policy: Policy {
            time_limit_ms: 60_000,
            ..Policy::default()
        },
        ..job()
    };
    let failed = || Outcome::Failed {
        error: "stopped".to_owned(),
        retry_after_ms: None,
    };
    let ends: [&End<'_>; 4] = [
        &|_, job| job.settle(failed(), 1),
        &|_, job| job.settle(Outcome::Snoozed { for_ms: 1 }, 1),
        &|_, job| drop(job),
        &|life, job| {
            life.clock.advance(Duration::from_mins(2)); // past its limit and any grace
            life.step();
            drop(job);
        },
    ];
    for end in ends {
        let mut life = Life::new(1);
        let id = life.enqueue(vec![limited()]).unwrap()[0].id;
        let running = life.take().unwrap();
        let wish = ChangeKind::Cancel {
            reason: "no more".to_owned(),
        };
        let answer = life.ask(|reply| Command::Change { id, wish, reply });
        assert_eq!(answer.unwrap(), ChangeAnswer::IsRunning);
        end(&mut life, running);
        life.step();
        assert_eq!(life.row(id).unwrap().state, State::Cancelled);
    }
}

/// An output given all the same counts: the work is done.
#[test]
fn an_attempt_asked_to_cancel_may_still_complete() {
    let mut life = Life::new(1);
    let id = life.enqueue(vec![job()]).unwrap()[0].id;
    let running = life.take().unwrap();
    let wish = ChangeKind::Cancel {
        reason: String::new(),
    };
    life.ask(|reply| Command::Change { id, wish, reply })
        .unwrap();
    running.settle(done(), 1);
    life.step();
    assert_eq!(life.row(id).unwrap().state, State::Completed);
}

/// An idle engine once carried one small entry into another small entry, for ever.
#[test]
fn an_idle_engine_comes_to_rest() {
    let mut life = Life::new(0);
    let later = || NewJob {
        wait: Wait::For(86_400_000),
        payload: Content::Inline(vec![7]),
        ..job()
    };
    let mut ids = Vec::new();
    for _ in 0..600 {
        let placed = life.enqueue(vec![later(), later(), later()]).unwrap();
        ids.extend(placed.iter().map(|p| p.id));
    }
    for id in ids.iter().filter(|id| !id.number().is_multiple_of(3)) {
        let (id, wish) = (*id, ChangeKind::Delete);
        life.ask(|reply| Command::Change { id, wish, reply })
            .unwrap();
    }
    let mut steps = 0;
    while life.core.wants_idle_step() {
        life.step();
        steps += 1;
        assert!(steps < 500, "still at it");
    }
}

/// Retention that was lowered for this opening is reached without anybody asking for anything.
#[test]
fn retention_is_reached_while_idle() {
    let mut life = Life::new(1);
    let batch = (0..20_000).map(|_| job()).collect();
    let ids: Vec<JobId> = life.enqueue(batch).unwrap().iter().map(|p| p.id).collect();
    for id in ids {
        let wish = ChangeKind::Cancel {
            reason: String::new(),
        };
        let (reply, _) = Reply::new();
        life.inbox
            .send_unbounded(Command::Change { id, wish, reply });
    }
    while !life.commands.is_empty() || life.core.wants_idle_step() {
        life.step();
    }
    let stats = life.ask(|reply| Command::Snapshot { reply }).unwrap();
    assert_eq!(stats.queues[0].counts[State::Cancelled as usize], 10_000);
}

/// Once left its reply in the writer for ever: a program that polled `wait_until_idle` grew.
#[test]
fn whoever_waited_long_enough_leaves_nothing_behind() {
    let mut life = Life::new(0);
    let id = life.enqueue(vec![job()]).unwrap()[0].id;
    let mut tokens = Vec::new();
    let mut wait = |life: &Life, command: &dyn Fn(Reply<()>) -> Command| {
        let (reply, _gone) = Reply::new();
        tokens.push(reply.token());
        life.inbox.send_unbounded(command(reply));
    };
    wait(&life, &|reply| Command::WaitIdle {
        until: Idle::Everywhere,
        reply,
    });
    wait(&life, &|reply| Command::WaitFinished { count: 9, reply });
    let (reply, _gone) = Reply::new();
    tokens.push(reply.token());
    life.inbox.send_unbounded(Command::Wait { id, reply });
    for token in tokens {
        life.inbox.send_unbounded(Command::StopWaiting { token });
    }
    life.step();
    assert_eq!(life.core.waiting(), 0);
}

#[test]
fn opening_ten_times_after_a_crash_changes_nothing_more() {
    let mut life = Life::new(2);
    life.enqueue(vec![job(), job(), job()]).unwrap();
    let _began = life.take().unwrap();
    life.crash(|| true).unwrap();
    // Opening alone claims nothing: the first step does. So look at the ledger itself.
    let before: Vec<_> = (1..=3)
        .map(|n| life.core.row_now(JobId::from_number(n)))
        .collect();
    for _ in 0..10 {
        life.crash(|| true).unwrap();
        let now: Vec<_> = (1..=3)
            .map(|n| life.core.row_now(JobId::from_number(n)))
            .collect();
        assert_eq!(now, before);
    }
    assert_eq!(before[0].as_ref().unwrap().crashes, 1);
}

#[test]
fn large_groups_of_readers_see_only_what_is_durable() {
    let mut life = Life::new(1);
    life.enqueue((0..5_000).map(|_| job()).collect()).unwrap();
    let filter = Filter {
        state: Some(State::Ready),
        ..Filter::default()
    };
    let mut from = JobId::from_number(0);
    let mut seen = 0;
    loop {
        let f = filter.clone();
        let page = life
            .ask(|reply| Command::List {
                filter: f,
                from,
                rows_max: 1_000,
                reply,
            })
            .unwrap();
        assert!(page.rows.len() <= 1_000);
        seen += page.rows.len();
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert!(
        (4_990..5_000).contains(&seen),
        "all but those claimed: {seen}"
    );
}
