//! What the crash lab found, in simulated lives and on chosen schedules, each in as few steps as it takes.

use super::*;

/// Asked for at once, or after a span, it ran while somebody set the clock back by an hour. Given back, or
/// after a crash, it waited for that hour to come again.
#[test]
fn a_job_that_ran_while_the_clock_was_set_back_does_not_wait_again() {
    for crash in [false, true] {
        let mut life = Life::new(1);
        let soon = NewJob {
            wait: Wait::For(50),
            ..job()
        };
        let id = life.enqueue(vec![soon]).unwrap()[0].id;
        life.clock.advance(Duration::from_millis(50));
        life.step();
        let running = life.take().expect("it is due");
        life.clock.step_wall(-3_600_000);
        life.step();
        if crash {
            life.crash(|| false).unwrap();
            drop(running);
        } else {
            running.settle(Outcome::GivenBack { started: true }, 1);
        }
        life.step();
        assert_eq!(life.take().map(|job| job.id), Some(id), "crash: {crash}");
    }
}

/// The clock was set back, so what finishes now looks older than all that is kept, and went in the group in
/// which it ended: whoever waited for it was told that it had been deleted.
#[test]
fn who_waits_for_a_job_is_told_of_its_end_before_it_is_pruned() {
    let mut life = Life::new(1);
    life.core.ledger = {
        let setup = Setup {
            handled: ["k".to_owned()].into(),
            any_queue: crate::ledger::QueueSetup {
                keep_finished: 1,
                ..crate::ledger::QueueSetup::default()
            },
            ..Setup::default()
        };
        let mut journal = life.disk.journal();
        read_back(&mut journal, 42, None, setup, life.clock.now().wall_ms)
            .unwrap()
            .ledger
    };
    life.enqueue(vec![job(), job()]).unwrap();
    let mut first = Some(life.take().expect("handed out"));
    first.take().unwrap().settle(done(), 1);
    life.step();
    life.clock.step_wall(-3_600_000);
    life.step();
    let second = life.take().expect("the next");
    let (reply, answer) = Reply::new();
    let id = second.id;
    life.inbox.send_unbounded(Command::Wait { id, reply });
    life.step();
    second.settle(done(), 1);
    life.step();
    let ending = answer.try_recv().expect("told").unwrap();
    assert_eq!(ending.state, Some(State::Completed));
    life.step();
    assert_eq!(life.rows().len(), 1, "one is kept");
}

/// Asked to stop for the shutdown, or for a limit, and then cancelled: the answer said that the handler was
/// asked to cancel, and then the job was given back or tried again as if nobody had.
#[test]
fn a_cancellation_outdoes_another_wish_to_stop() {
    let mut life = Life::new(1);
    let id = life.enqueue(vec![job()]).unwrap()[0].id;
    let running = life.take().unwrap();
    let (reply, _closed) = Reply::new();
    let until = life.clock.now().awake + Duration::from_secs(1);
    life.inbox
        .send_unbounded(Command::Shutdown { until, reply });
    life.step();
    assert_eq!(running.live.asked(), Asked::Shutdown);
    let wish = ChangeKind::Cancel { reason: "r".into() };
    let answer = life.ask(|reply| Command::Change { id, wish, reply });
    assert_eq!(answer.unwrap(), ChangeAnswer::IsRunning);
    assert_eq!(running.live.asked(), Asked::Cancelled);
    life.clock.advance(Duration::from_secs(1));
    life.step();
    life.crash(|| false).unwrap();
    drop(running);
    assert_eq!(life.row(id).unwrap().state, State::Cancelled);
}

/// A write failed while handlers had their grace. Whoever had shut the engine down was told, and then waited for ever
/// for a writer that waited for a second shutdown.
#[test]
fn the_writer_ends_when_a_write_fails_during_a_shutdown() {
    let mut life = Life::new(1);
    life.enqueue(vec![job()]).unwrap();
    let running = life.take().expect("handed out");
    let until = life.clock.now().awake + Duration::from_mins(1);
    let (reply, answer) = Reply::new();
    life.inbox
        .send_unbounded(Command::Shutdown { until, reply });
    life.step();
    assert!(answer.try_recv().is_err(), "a handler has its grace");
    life.disk.fail_from_sync(life.disk.syncs() + 1);
    running.settle(done(), 1);
    life.step();
    let told = answer.try_recv().expect("told with the failure");
    assert!(matches!(told, Err(Error::Refused { .. })), "{told:?}");
    assert!(life.core.is_closed());
}
