//! Scenarios of the parts that threads share, one by one: short ones, so that their schedules are tried densely.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Life;
use crate::clock::{Clock, ManualClock};
use crate::engine::command::{Command, Settle};
use crate::engine::handout::{Bytes, HandOut};
use crate::engine::handouts::HandOuts;
use crate::engine::inbox::{Commands, Inbox, WhenFullRule};
use crate::engine::live::{Asked, Live, Stage};
use crate::engine::log::Log;
use crate::engine::watchdog::Watchdog;
use crate::engine::{Hub, Reply, What, spawn_writer};
use crate::error::{Error, Result};
use crate::job::{Content, Encoding, Form, JobId, NewJob, PayloadRef};
use crate::ledger::Outcome;
use crate::threads::{beside, join, scenario};

const NOW: Duration = Duration::from_secs(1_000);

fn job(number: u64, inbox: &Inbox) -> HandOut {
    HandOut {
        id: JobId::from_number(number),
        claim: number,
        kind: "k".into(),
        queue: "q".into(),
        form: Form {
            version: 1,
            encoding: Encoding::Rkyv,
        },
        attempt: 1,
        failures: 0,
        attempts_max: 1,
        crashes: 0,
        payload: Bytes::InFile(Box::new(PayloadRef {
            name: 0,
            len: 0,
            hash: [0; 32],
        })),
        expires_at_ms: None,
        place: 0,
        after: 0,
        epoch: 1,
        live: Arc::new(Live::new(JobId::from_number(number), 1, 0, 0)),
        inbox: inbox.clone(),
        arrived: true,
        kept: None,
        settled: false,
    }
}

fn done() -> Outcome {
    Outcome::Completed(Content::Inline(Vec::new()))
}

/// Serves as a slot does, until the buffer is closed.
fn serve(outs: &HandOuts) {
    while let Some(job) = outs.next() {
        if job.live.start(NOW) {
            outs.note_begun();
            job.settle(done(), 1);
        }
    }
}

fn settles(commands: &mut Commands) -> Vec<Settle> {
    let settle = |command| match command {
        Command::Settle(settle) => settle,
        other => panic!("{other:?}"),
    };
    commands.group_now().into_iter().map(settle).collect()
}

scenario! {
    /// E3: either the slot's settle comes, or the writer has it back and nothing comes.
    fn begin_and_take_back_exclude_each_other() {
        let (inbox, mut commands) = Inbox::new(10, 1_000);
        let job = job(1, &inbox);
        let live = job.live.clone();
        let slot = beside("slot", move || {
            if job.live.start(NOW) {
                match job.live.asked() {
                    Asked::No => job.settle(done(), 1),
                    _ => {
                        assert!(job.live.asked_at().is_some());
                        let reason = job.live.reason();
                        job.settle(Outcome::Cancelled(reason), 1);
                    }
                }
            }
        });
        let taken = live.take_back();
        if !taken {
            live.ask(Asked::Cancelled, "enough", NOW);
        }
        join([slot]);
        let said = settles(&mut commands);
        assert_eq!(said.len(), usize::from(!taken), "E3: begun and taken back");
        if let Some(Outcome::Cancelled(reason)) = said.first().map(|settle| &settle.outcome) {
            assert_eq!(reason, "enough");
        }
    }
}

scenario! {
    /// Whoever waits for a handler's stop is heard, whatever else it was asked before.
    fn wishes_to_stop_have_an_order() {
        let live = Arc::new(Live::new(JobId::from_number(1), 1, 0, 0));
        assert!(live.start(NOW));
        let ask = |why, reason: &'static str| {
            let live = live.clone();
            beside("writer", move || live.ask(why, reason, NOW))
        };
        let threads = [ask(Asked::Cancelled, "cancelled"), ask(Asked::Shutdown, "shutdown")];
        live.pause_until(|| Some(None));
        join(threads);
        assert_eq!((live.asked(), live.reason().as_str()), (Asked::Cancelled, "cancelled"));
        assert!(live.asked_at().is_some());
    }
}

scenario! {
    /// A handler between its look and its wait is woken: by a wish to stop.
    fn a_pause_ends_when_asked() {
        let live = Arc::new(Live::new(JobId::from_number(1), 1, 0, 0));
        let asked = live.clone();
        let writer = beside("writer", move || asked.ask(Asked::Shutdown, "", NOW));
        live.pause_until(|| Some(None));
        assert_eq!(live.asked(), Asked::Shutdown);
        join([writer]);
    }
}

scenario! {
    /// A handler between its look and its wait is woken: by a clock that was moved.
    fn a_pause_ends_with_its_time() {
        let clock = ManualClock::at(0);
        let live = Arc::new(Live::new(JobId::from_number(1), 1, 0, 0));
        let (moved, nudged) = (clock.clone(), live.clone());
        clock.on_move(Box::new(move || {
            nudged.nudge();
            true
        }));
        let until = clock.now().awake + Duration::from_secs(1);
        let mover = beside("clock", move || moved.advance(Duration::from_secs(1)));
        live.pause_until(|| {
            let left = until.saturating_sub(clock.now().awake);
            (!left.is_zero()).then(|| clock.real_wait(left))
        });
        assert_eq!(live.asked(), Asked::No);
        join([mover]);
    }
}

scenario! {
    /// E3, E4: what is filled is begun or taken back, without a fill that goes unnoticed.
    fn slots_are_woken_for_what_is_there() {
        let (inbox, mut commands) = Inbox::new(10, 1_000);
        let outs = Arc::new(HandOuts::default());
        let slots = ["slot 0", "slot 1"].map(|name| {
            let outs = outs.clone();
            beside(name, move || serve(&outs))
        });
        let jobs = [1, 2, 3].map(|number| job(number, &inbox));
        let second = jobs[1].live.clone();
        let [a, b, c] = jobs;
        outs.fill([a, b]);
        outs.fill([c]);
        let taken = second.take_back();
        // As the writer does: waits for what the slots say, and for nothing else.
        let mut said = Vec::new();
        while said.len() < 3 - usize::from(taken) {
            said.extend(commands.group(None));
        }
        assert!(said.iter().all(|said| {
            matches!(said, Command::Settle(Settle { outcome: Outcome::Completed(_), .. }))
        }));
        outs.close();
        join(slots);
        assert!(settles(&mut commands).is_empty(), "one settle for each claim");
        assert_eq!(outs.take_begun(), 3 - usize::from(taken));
    }
}

scenario! {
    /// E4: closed while slots take from it, every job is begun, given back or the writer's.
    fn a_buffer_is_closed_while_slots_take_from_it() {
        let (inbox, mut commands) = Inbox::new(10, 1_000);
        let outs = Arc::new(HandOuts::default());
        let slot = outs.clone();
        let slot = beside("slot", move || serve(&slot));
        let filling = outs.clone();
        let jobs = [1, 2].map(|number| job(number, &inbox));
        let last = jobs[1].live.clone();
        let filler = beside("writer", move || filling.fill(jobs));
        let taken = last.take_back();
        outs.close();
        join([slot, filler]);
        let mut ids: Vec<u64> = settles(&mut commands).iter().map(|s| s.id.number()).collect();
        ids.sort_unstable();
        assert_eq!(ids, if taken { vec![1] } else { vec![1, 2] });
        assert!(taken == (last.stage() == Stage::TakenBack));
    }
}

scenario! {
    /// The writer gathers what does not press until something does. No wait runs out here, so it is woken by that
    /// alone; and nothing is left behind or comes in another order.
    fn the_writer_gathers_until_something_presses() {
        let (inbox, mut commands) = Inbox::new(10, 1_000);
        let outs = Arc::new(HandOuts::default());
        outs.fill([1, 2, 3].map(|number| job(number, &inbox)));
        let slots = ["slot 0", "slot 1"].map(|name| {
            let outs = outs.clone();
            beside(name, move || {
                while let Some(job) = outs.next() {
                    assert!(job.live.start(NOW));
                    job.settle_unhurried(done(), 1, &outs);
                }
            })
        });
        let mut ends = 0;
        while ends < 3 {
            let group = commands.group(None);
            assert!(!group.is_empty(), "woken for something");
            ends += group.len();
        }
        outs.close();
        join(slots);
        assert!(settles(&mut commands).is_empty());
    }
}

scenario! {
    /// Callers that wait for room get in one by one; when the writer gives up, each is told.
    fn callers_that_wait_for_room_are_let_in_or_let_go() {
        let (inbox, mut commands) = Inbox::new(1, usize::MAX);
        let answered = Arc::new(AtomicUsize::new(0));
        let callers = ["one", "two", "three"].map(|name| {
            let (inbox, answered) = (inbox.clone(), answered.clone());
            beside(name, move || {
                let (reply, answer) = Reply::new();
                let jobs = [NewJob::plain()].into();
                match inbox.send(Command::Enqueue { jobs, reply }, WhenFullRule::Wait) {
                    Ok(()) if answer.recv().is_some() => {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(()) => assert!(matches!(inbox.gate().no_answer(), Error::Unknown { .. })),
                    Err(error) => assert!(matches!(error, Error::Refused { .. }), "{error}"),
                }
            })
        });
        let Some(Command::Enqueue { jobs, reply }) = commands.group(None).pop() else {
            panic!("one got in");
        };
        assert!(commands.group_now().is_empty(), "and one only");
        inbox.gate().leave(jobs.len(), usize::MAX);
        reply.send(Ok(Vec::new()));
        inbox.gate().give_up("enough");
        inbox.gate().close();
        drop(commands);
        join(callers);
        assert_eq!(answered.load(Ordering::Relaxed), 1);
    }
}

scenario! {
    /// A commit that begins while the watchdog lies down is watched: whoever waits for room is let go.
    fn the_watchdog_does_not_sleep_through_a_commit() {
        let (inbox, _commands) = Inbox::new(1, usize::MAX);
        let dog = Watchdog::new(Duration::from_secs(1));
        let clock = Arc::new(ManualClock::at(0));
        dog.start(clock, inbox.gate().clone()).unwrap();
        let enqueue = || Command::Enqueue {
            jobs: [NewJob::plain()].into(),
            reply: Reply::new().0,
        };
        inbox.send(enqueue(), WhenFullRule::Wait).unwrap();
        // It began long ago, by the clock.
        let _hangs = dog.commit_begins(Duration::ZERO);
        let refused = inbox.send(enqueue(), WhenFullRule::Wait);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    }
}

scenario! {
    /// Closed between commits or beside one, the watchdog ends.
    fn the_watchdog_ends() {
        let (inbox, _commands) = Inbox::new(1, usize::MAX);
        let dog = Watchdog::new(Duration::from_mins(20));
        dog.start(Arc::new(ManualClock::at(0)), inbox.gate().clone()).unwrap();
        let committing = dog.clone();
        let writer = beside("writer", move || drop(committing.commit_begins(NOW)));
        dog.close();
        join([writer]);
        assert!(!dog.hangs());
    }
}

scenario! {
    /// Whoever follows a log gets all of it, and its end.
    fn a_log_is_followed_to_its_end() {
        let log = Arc::new(Log::default());
        let writing = log.clone();
        let handler = beside("handler", move || {
            writing.append(b"ab");
            writing.append(b"c");
            writing.end();
        });
        let mut read = Vec::new();
        loop {
            let part = log.read(read.len() as u64, Duration::MAX);
            read.extend(part.bytes);
            if part.ended {
                break;
            }
        }
        assert_eq!(read, b"abc");
        join([handler]);
    }
}

scenario! {
    /// Subscribed, dropped and closed in any order: every stream ends, and nobody is kept.
    fn listeners_come_and_go_beside_news() {
        let hub = Arc::new(Hub::default());
        let (publishing, coming) = (hub.clone(), hub.clone());
        let writer = beside("writer", move || {
            let id = JobId::from_number(1);
            publishing.publish(id, What::Claimed, "k".into(), "q".into(), 0);
            publishing.close();
        });
        let listener = beside("listener", move || {
            drop(coming.subscribe(1, None));
            let events = coming.subscribe(1, None);
            while events.recv().is_some() {}
        });
        join([writer, listener]);
        assert!(!hub.is_heard());
    }
}

/// Asks the writer; `None`: it has gone without an answer.
fn ask<T>(inbox: &Inbox, command: impl FnOnce(Reply<T>) -> Command) -> Option<Result<T>> {
    let (reply, answer) = Reply::new();
    inbox.send_unbounded(command(reply));
    answer.recv()
}

scenario! {
    /// J6: a write fails while callers wait, a slot works and the engine is shut down. All are told, and the writer
    /// ends.
    fn a_failed_write_lets_everybody_go() {
        let Life { disk, clock, core, inbox, commands, outs, .. } = Life::new(1);
        disk.fail_from_sync(disk.syncs() + 2);
        let writer = spawn_writer(core, commands).unwrap();
        let slot = beside("slot", move || serve(&outs));
        let callers = ["one", "two"].map(|name| {
            let inbox = inbox.clone();
            beside(name, move || {
                let jobs = [NewJob::plain()].into();
                let Some(Ok(placed)) = ask(&inbox, |reply| Command::Enqueue { jobs, reply }) else {
                    return;
                };
                let id = placed[0].id;
                let end = ask(&inbox, |reply| Command::Wait { id, reply });
                assert!(!matches!(end, Some(Ok(ending)) if ending.state.is_none()));
            })
        });
        let until = clock.now().awake + Duration::from_hours(1);
        let _ = ask(&inbox, |reply| Command::Shutdown { until, reply });
        // Whoever shuts an engine down waits for its writer next.
        join([writer]);
        join(callers);
        join([slot]);
    }
}
