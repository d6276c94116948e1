//! What the writer gathers: ends for which nobody waits, while a pool has enough to do.

use super::*;
use crate::engine::handout::HandOut;
use crate::engine::inbox::WhenFullRule;

/// Whether the end of a job of this life would press.
fn presses(life: &Life, job: &HandOut) -> bool {
    life.outs.is_low() || job.live.is_awaited()
}

/// A life of two slots with `jobs` that were claimed ahead, as after some groups of steady work: the two that run.
fn busy(jobs: usize) -> (Life, HandOut, HandOut) {
    let mut life = Life::new(2);
    life.core.pools_mut()[0].ahead_max = 4;
    life.enqueue((0..jobs).map(|_| job()).collect()).unwrap();
    let both = [life.take().unwrap(), life.take().unwrap()];
    life.step(); // two began: four more are claimed ahead
    let [first, second] = both;
    (life, first, second)
}

#[test]
fn ends_press_once_half_of_what_was_claimed_ahead_has_begun() {
    let (mut life, first, _second) = busy(20);
    let mut waiting = 4;
    while !presses(&life, &first) {
        life.take().expect("not low, so one more waits");
        waiting -= 1;
    }
    assert_eq!(waiting, 2);
}

/// Nothing more is to be had, so that nothing is gained by hurrying, up to the last one.
#[test]
fn when_no_job_is_left_only_the_last_end_presses() {
    let (mut life, first, _second) = busy(5);
    assert!(!presses(&life, &first));
    for waiting in (0..3).rev() {
        let job = life.take().unwrap();
        assert_eq!(presses(&life, &job), waiting == 0, "{waiting} left");
    }
}

#[test]
fn an_end_presses_if_somebody_waits_for_it() {
    let (mut life, first, second) = busy(20);
    let (reply, _answer) = Reply::new();
    life.inbox.send_unbounded(Command::Wait {
        id: first.id,
        reply,
    });
    life.step();
    assert!(presses(&life, &first));
    assert!(!presses(&life, &second));
    // Also if the waiting began before the job did.
    let next = life.take().unwrap();
    let (reply, _answer) = Reply::new();
    let id = JobId::from_number(next.id.number() + 8);
    life.inbox.send_unbounded(Command::Wait { id, reply });
    life.step();
    first.settle(done(), 1);
    second.settle(done(), 1);
    next.settle(done(), 1);
    let awaited = loop {
        life.step();
        match life.take() {
            Some(job) if job.id == id => break job,
            Some(job) => job.settle(done(), 1),
            None => panic!("it is handed out at last"),
        }
    };
    assert!(awaited.live.is_awaited());
}

/// Each end lets another job of the queue begin.
#[test]
fn an_end_presses_in_a_queue_with_a_cap() {
    let mut life = Life::new(2);
    life.ask(|reply| Command::SetQueue {
        name: "q".to_owned(),
        paused: None,
        concurrency: Some(Some(1)),
        reply,
    })
    .unwrap();
    life.enqueue(vec![job(), job()]).unwrap();
    assert!(life.take().unwrap().live.is_awaited());
}

/// A pool whose jobs were all taken back has nothing to do, however many lie in its buffer.
#[test]
fn what_was_taken_back_is_nothing_to_do() {
    let (mut life, first, _second) = busy(20);
    assert!(!presses(&life, &first));
    life.ask(|reply| Command::StopClaiming { reply }).unwrap();
    assert!(presses(&life, &first));
}

#[test]
fn commands_come_out_in_the_order_they_went_in() {
    let mut life = Life::new(1);
    let token = |token| Command::StopWaiting { token };
    life.inbox.send_unhurried(token(1), || false);
    life.inbox.send_unbounded(token(2));
    life.inbox.send_unhurried(token(3), || false);
    let (reply, _answer) = Reply::new();
    let jobs = [job()].into();
    life.inbox
        .send(Command::Enqueue { jobs, reply }, WhenFullRule::Refuse)
        .unwrap();
    let order: Vec<u64> = life
        .commands
        .group_now()
        .into_iter()
        .map(|command| match command {
            Command::StopWaiting { token } => token,
            _ => 4,
        })
        .collect();
    assert_eq!(order, [1, 2, 3, 4]);
}

/// One command is always taken, whatever it weighs; what does not fit stays for the next group.
#[test]
fn a_group_takes_commands_up_to_its_bounds() {
    let (inbox, mut commands) = Inbox::new(usize::MAX, usize::MAX);
    let group = |commands: &mut Commands| commands.group_now().len();
    assert_eq!(group(&mut commands), 0);
    let enqueue = |jobs: &[NewJob]| {
        let (jobs, (reply, _answer)) = (jobs.into(), Reply::new());
        let sent = inbox.send(Command::Enqueue { jobs, reply }, WhenFullRule::Refuse);
        sent.unwrap();
    };
    for bytes in [400_000, 300_000, 300_000, 300_000] {
        let payload = Content::Inline(vec![7; bytes]);
        enqueue(&[NewJob { payload, ..job() }]);
    }
    assert_eq!([(); 4].map(|()| group(&mut commands)), [1, 2, 1, 0]);
    (0..8_193).for_each(|_| enqueue(&[]));
    assert_eq!([(); 3].map(|()| group(&mut commands)), [8_192, 1, 0]);
}
