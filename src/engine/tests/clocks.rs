//! Clocks that jump, and machines that sleep.

use super::*;

/// A machine that has lost the time once held every job back until its clock was right again; set right, it moved
/// their waits by decades.
#[test]
fn a_machine_that_wakes_up_in_1970_runs_its_jobs() {
    let mut life = Life::new(0);
    let minute_ms = 60_000;
    let span = NewJob {
        wait: Wait::For(minute_ms),
        ..job()
    };
    let ids: Vec<JobId> = life
        .enqueue(vec![job(), span])
        .unwrap()
        .iter()
        .map(|p| p.id)
        .collect();
    let states = |life: &mut Life| [0, 1].map(|n| life.row(ids[n]).unwrap().state);
    let decades_ms = life.clock.now().wall_ms;
    life.clock.step_wall(-decades_ms);
    life.crash(|| false).unwrap();
    assert_eq!(states(&mut life), [State::Ready, State::Scheduled]);
    life.clock.advance(Duration::from_millis(minute_ms));
    life.step();
    assert_eq!(states(&mut life), [State::Ready, State::Ready]);
    life.clock.step_wall(decades_ms);
    life.step();
    assert_eq!(states(&mut life), [State::Ready, State::Ready]);
}

/// A night asleep once ended every limited handler, and with it an attempt.
#[test]
fn a_handler_that_slept_with_the_machine_is_not_past_its_limit() {
    let mut life = Life::new(1);
    let limited = NewJob {
        policy: Policy {
            time_limit_ms: 60_000,
            stall_timeout_ms: 30_000,
            ..Policy::default()
        },
        ..job()
    };
    life.enqueue(vec![limited]).unwrap();
    let running = life.take().unwrap();
    life.clock.suspend(Duration::from_hours(8));
    life.step();
    assert_eq!(running.live.asked(), Asked::No);
    life.clock.advance(Duration::from_secs(30));
    life.step();
    assert_eq!(running.live.asked(), Asked::Stalled);
}

/// Set back while the engine runs: what was asked for now, or is over, does not wait again.
#[test]
fn a_clock_set_back_holds_nothing_back_that_is_no_date() {
    let mut life = Life::new(0);
    let over = NewJob {
        wait: Wait::For(1_000),
        ..job()
    };
    let ids: Vec<JobId> = life
        .enqueue(vec![job(), over])
        .unwrap()
        .iter()
        .map(|p| p.id)
        .collect();
    life.clock.advance(Duration::from_secs(2));
    life.step();
    life.clock.step_wall(-3_600_000);
    life.step();
    for id in ids {
        assert_eq!(life.row(id).unwrap().state, State::Ready);
    }
}

#[test]
fn the_clock_may_jump_while_jobs_wait() {
    let mut life = Life::new(1);
    let now = life.clock.now().wall_ms;
    let at = life
        .enqueue(vec![NewJob {
            wait: Wait::Until(now + 600_000),
            ..job()
        }])
        .unwrap()[0]
        .id;
    let after = life
        .enqueue(vec![NewJob {
            wait: Wait::For(600_000),
            ..job()
        }])
        .unwrap()[0]
        .id;
    for by_ms in [3_600_000, -7_200_000, 3_600_000] {
        life.clock.step_wall(by_ms);
        life.step();
        if by_ms > 0 && life.clock.now().wall_ms >= now + 600_000 {
            let early = life.take().expect("its time has come by the wall clock");
            assert_eq!(early.id, at);
            early.settle(Outcome::GivenBack { started: false }, 0);
        }
        assert_eq!(
            life.row(after).unwrap().state,
            State::Scheduled,
            "no time has passed"
        );
    }
    while life.take().map(|job| job.settle(done(), 0)).is_some() {
        life.step();
    }
    life.clock.advance(Duration::from_mins(10));
    life.step();
    while let Some(job) = life.take() {
        job.settle(done(), 0);
        life.step();
    }
    assert!(
        life.rows()
            .iter()
            .all(|row| row.state == State::Completed && row.failures == 0)
    );
    let stats = life.ask(|reply| Command::Snapshot { reply }).unwrap();
    assert_eq!(stats.counters.completed, 2);
}

/// A job became due between the step's look at the clock and the writer's look before it sleeps; the writer
/// took it for one that waits for a trusted clock and slept for a minute.
#[test]
fn a_job_that_is_due_is_never_slept_over() {
    let mut life = Life::new(1);
    life.enqueue(vec![NewJob {
        wait: Wait::For(5),
        ..job()
    }])
    .unwrap();
    life.clock.advance(Duration::from_millis(5));
    assert_eq!(life.core.sleep_at_most(), Some(Duration::ZERO));
    life.step();
    assert!(life.take().is_some());
}
