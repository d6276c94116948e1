//! What the ledger answers: who may start, who is idle, what is listed and pruned, what is told. Tables, because each
//! of these is asked by one caller only, and a wrong answer shows far away from here.

use super::*;

fn of_kind(kind: &'static str) -> NewJob {
    NewJob {
        kind: kind.into(),
        ..job()
    }
}

fn in_queue(queue: &'static str) -> NewJob {
    NewJob {
        queue: queue.into(),
        ..job()
    }
}

fn scheduled() -> NewJob {
    NewJob {
        wait: Wait::Until(START_MS + 5_000),
        ..job()
    }
}

/// Everywhere, in the queue `q`, in a queue that nobody knows, nothing to start.
fn idle(life: &Life) -> [bool; 4] {
    let queue = |name: &str| Idle::Queue(name.to_owned());
    [
        Idle::Everywhere,
        queue("q"),
        queue("nowhere"),
        Idle::NothingToStart,
    ]
    .map(|until| life.ledger.is_idle(&until))
}

pub(super) fn pause(life: &mut Life, queue: &str) {
    let event = life.ledger.clone_control(queue, Some(true), None).unwrap();
    life.push(&event);
}

#[test]
fn what_is_idle_and_what_is_not() {
    let mut life = Life::new();
    assert_eq!(idle(&life), [true; 4], "empty");
    for _ in 0..2 {
        life.enqueue(of_kind("unknown"));
    }
    assert_eq!(idle(&life), [true; 4], "nobody here could run them");
    assert_eq!(life.ledger.queue_views()[0].parked, 2);
    life.enqueue(scheduled());
    assert_eq!(idle(&life), [false, false, true, true], "a scheduled one");
    let mut life = Life::new();
    life.enqueue(job());
    assert_eq!(idle(&life), [false, false, true, false], "a ready one");
    pause(&mut life, "q");
    assert_eq!(idle(&life), [false, false, true, true], "paused");
    let mut life = Life::new();
    life.enqueue(job());
    let (id, claim) = life.claim().unwrap();
    assert_eq!(idle(&life), [false, false, true, false], "a running one");
    life.settle(id, claim, &completed());
    assert_eq!(idle(&life), [true; 4], "done");
    // Counts of two queues are not mixed up.
    life.enqueue(in_queue("other"));
    assert_eq!(idle(&life), [false, true, true, false]);
    assert!(life.row(id).finished_at_ms.is_some() && !life.row(id).parked);
}

#[test]
fn a_scheduled_job_is_not_parked() {
    let mut life = Life::new();
    let ready = life.enqueue(of_kind("unknown")).id;
    let later = NewJob {
        kind: "unknown".into(),
        ..scheduled()
    };
    let later = life.enqueue(later).id;
    let known = life.enqueue(job()).id;
    let parked = [ready, later, known].map(|id| life.row(id).parked);
    assert_eq!(parked, [true, false, false]);
}

/// Ids that a filter finds.
fn listed(life: &Life, state: Option<State>, kind: Option<&str>, queue: Option<&str>) -> Vec<u64> {
    let filter = filter(state, kind, queue);
    let page = life.ledger.list(&filter, JobId::from_number(0), 100, 1_000);
    page.rows.iter().map(|row| row.id.number()).collect()
}

fn filter(state: Option<State>, kind: Option<&str>, queue: Option<&str>) -> Filter {
    Filter {
        state,
        kind: kind.map(Into::into),
        queue: queue.map(Into::into),
    }
}

#[test]
fn a_filter_finds_what_fits_all_of_it() {
    let mut life = Life::new();
    let [a, b, c] = [job(), of_kind("other"), in_queue("p")].map(|j| life.enqueue(j).id.number());
    assert_eq!(listed(&life, None, None, None), [a, b, c]);
    assert_eq!(listed(&life, None, Some("k"), None), [a, c]);
    assert_eq!(listed(&life, None, None, Some("q")), [a, b]);
    assert_eq!(listed(&life, None, Some("other"), Some("q")), [b]);
    assert_eq!(listed(&life, None, Some("other"), Some("p")), [0_u64; 0]);
    assert_eq!(listed(&life, None, Some("nobody"), None), [0_u64; 0]);
    assert_eq!(listed(&life, Some(State::Running), None, None), [0_u64; 0]);
    let (claimed, _) = life.claim().unwrap();
    assert_eq!(
        listed(&life, Some(State::Running), None, None),
        [claimed.number()]
    );
}

/// Finishes a new job at this moment.
pub(super) fn finished(life: &mut Life, job: NewJob, outcome: &Outcome) -> JobId {
    let (queue, kind) = (job.queue.clone(), job.kind.clone());
    let id = life.enqueue(job).id;
    let pick = life.ledger.pick_kind(&queue, &kind);
    let (_, claim) = life.take(pick).unwrap();
    life.settle(id, claim, outcome);
    id
}

#[test]
fn what_is_asked_to_be_pruned_goes_and_no_more() {
    let mut life = Life::new();
    let first = finished(&mut life, job(), &completed());
    life.pass(10);
    let dead = finished(&mut life, job(), &Outcome::Discarded("d".into()));
    life.pass(10);
    let last = finished(&mut life, in_queue("p"), &completed());
    life.enqueue(job());
    let asked = |filter: &Filter, until_ms, most| -> Vec<u64> {
        let gone = life.ledger.prune_asked(filter, until_ms, most);
        let mut ids: Vec<u64> = gone
            .iter()
            .filter_map(|event| match event {
                Event::Deleted { id } => Some(id.number()),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids
    };
    let all = filter(None, None, None);
    let [first, dead, last] = [first, dead, last].map(JobId::number);
    assert_eq!(asked(&all, life.now_ms, 10), [first, dead, last]);
    assert_eq!(asked(&all, life.now_ms, 2).len(), 2);
    assert_eq!(
        asked(&all, START_MS + 10, 10),
        [first, dead],
        "that moment too"
    );
    assert_eq!(asked(&all, START_MS + 9, 10), [first]);
    assert_eq!(
        asked(&filter(None, None, Some("p")), life.now_ms, 10),
        [last]
    );
    assert_eq!(
        asked(&filter(Some(State::Dead), None, None), life.now_ms, 10),
        [dead]
    );
    assert_eq!(
        asked(&filter(None, Some("nobody"), None), life.now_ms, 10),
        [0_u64; 0]
    );
}

#[test]
fn the_writer_is_woken_for_what_grows_old() {
    let mut life = Life::new();
    life.ledger.setup.any_queue.keep_finished_ms = 1_000;
    life.ledger.setup.keep_dead_ms = 300;
    assert_eq!(life.ledger.next_trusted_ms(), None);
    finished(&mut life, job(), &completed());
    assert_eq!(life.ledger.next_trusted_ms(), Some(START_MS + 1_000));
    finished(&mut life, job(), &Outcome::Discarded("d".into()));
    assert_eq!(life.ledger.next_trusted_ms(), Some(START_MS + 300));
    let expires = Some(expires_at(START_MS + 200));
    life.enqueue(NewJob { expires, ..job() });
    assert_eq!(life.ledger.next_trusted_ms(), Some(START_MS + 200));

    // Kept for ever: nobody has to be woken.
    let mut life = Life::new();
    life.ledger.setup.any_queue.keep_finished_ms = i64::MAX;
    finished(&mut life, job(), &completed());
    assert_eq!(life.ledger.next_trusted_ms(), None);
}

#[test]
fn pruning_is_wanted_from_one_too_many_on() {
    for (outcome, kept) in [(completed(), 5), (Outcome::Discarded("d".into()), 3)] {
        let mut life = Life::new();
        for n in 1..=kept + 1 {
            finished(&mut life, job(), &outcome);
            assert_eq!(life.ledger.wants_pruning(), n > kept, "{n} {outcome:?}");
        }
    }
    // At most so many at a time, over all queues.
    let mut life = Life::new();
    for _ in 0..7 {
        finished(&mut life, job(), &completed());
        finished(&mut life, in_queue("p"), &completed());
    }
    for most in 0..=5 {
        let spared = FxHashSet::default();
        let pruned = life.ledger.prune(life.now_ms, false, most, &spared);
        let ids = pruned.iter().map(|event| match event {
            Event::Pruned { ids } => ids.len(),
            _ => 0,
        });
        assert_eq!(ids.sum::<usize>(), most.min(4));
    }
}

#[test]
fn one_that_must_run_alone_holds_all_others_up() {
    let mut life = Life::new();
    let suspicious = with_policy(|p| p.on_crash = OnCrash::QuarantineAfter(2));
    let suspect = life.enqueue(suspicious).id;
    life.claim().unwrap();
    life.crash(Verdict::Started);
    assert_eq!(life.ledger.held_for(), Some(suspect), "it is next");
    life.enqueue(in_queue("p"));
    let pick = |life: &Life, queue: &str, kind: &str| match life.ledger.pick_kind(queue, kind) {
        Pick::Job(key, _) => Some(key.id),
        Pick::Hold => None,
        Pick::Nothing => panic!("there is one"),
    };
    assert_eq!(pick(&life, "q", "k"), Some(suspect));
    assert_eq!(pick(&life, "q", "other"), None, "the right queue alone");
    assert_eq!(pick(&life, "p", "k"), None, "the right kind alone");
    let (id, claim) = life.claim().unwrap();
    assert_eq!((id, life.ledger.held_for()), (suspect, Some(suspect)));
    assert_eq!(life.ledger.pick(0), Pick::Hold);
    life.settle(id, claim, &completed());
    assert_eq!(life.ledger.held_for(), None);
    assert!(life.claim().is_some());
}

#[test]
fn caps_and_pools_decide_which_queue_is_open() {
    let mut life = Life::new();
    let capped = QueueSetup {
        concurrency: Some(1),
        ..QueueSetup::default()
    };
    let elsewhere = QueueSetup {
        pool: Some(1),
        ..QueueSetup::default()
    };
    let nowhere = QueueSetup {
        pool: None,
        ..QueueSetup::default()
    };
    for (name, setup) in [
        ("capped", capped),
        ("elsewhere", elsewhere),
        ("nowhere", nowhere),
    ] {
        life.ledger.setup.queues.insert(name.into(), setup);
    }
    for queue in ["capped", "capped", "elsewhere", "nowhere"] {
        life.enqueue(in_queue(queue));
    }
    assert!(life.claim().is_some());
    assert_eq!(
        life.ledger.pick(0),
        Pick::Nothing,
        "one of the capped at a time"
    );
    assert_eq!(
        life.ledger.heads(0).count(),
        1,
        "its head is seen all the same"
    );
    assert_eq!(life.ledger.heads(1).count(), 1);
    assert_eq!(life.ledger.pick(2), Pick::Nothing);
    let pick = life.ledger.pick(1);
    assert!(life.take(pick).is_some());
    assert_eq!(life.ledger.pick(1), Pick::Nothing);
    let pick = life.ledger.pick_kind("nowhere", "k");
    assert!(life.take(pick).is_some(), "by hand from anywhere");
}

#[test]
fn a_story_is_told_by_the_events_that_have_a_body() {
    let mut life = Life::new();
    let retried = with_policy(|p| p.attempts_max = 2);
    let id = life.enqueue(retried).id;
    let story = |life: &Life| {
        let entry = life.log.last().unwrap();
        let (event, _) = entry.event();
        let (id, history) = event.story();
        (id, history.cloned())
    };
    assert_eq!(story(&life), (Some(id), None), "enqueued");
    let (_, claim) = life.claim().unwrap();
    assert_eq!(story(&life), (None, None), "claimed");
    life.settle(id, claim, &failed());
    let (of, history) = story(&life);
    assert_eq!(
        (of, history.map(|h| h.errors.len())),
        (Some(id), Some(1)),
        "retried"
    );
    life.pass(3_600_000);
    let (_, claim) = life.claim().unwrap();
    let output = Content::Inline(vec![5]);
    life.settle(id, claim, &Outcome::Completed(output.clone()));
    let (of, history) = story(&life);
    let told = history.and_then(|history| history.output);
    assert_eq!((of, told), (Some(id), Some(output)));

    let quiet = finished(&mut life, job(), &completed());
    assert_eq!(
        story(&life),
        (Some(quiet), None),
        "no output, nothing to tell"
    );
    let dead = finished(&mut life, job(), &Outcome::Discarded("why".into()));
    let (of, history) = story(&life);
    assert_eq!(
        (of, history.map(|h| h.reason)),
        (Some(dead), Some("why".to_owned()))
    );
    let record = |id| life.ledger.record(id).unwrap();
    assert_eq!(
        Ledger::dead_reason(record(dead)),
        Some(DeadReason::Discarded)
    );
    assert_eq!(Ledger::dead_reason(record(quiet)), None);
}

#[test]
fn an_outcome_weighs_what_it_adds_to_a_group() {
    let output = Content::Inline(vec![0; 70]);
    assert_eq!(Outcome::Completed(output.clone()).bytes(), 70);
    assert_eq!(Outcome::Completed(output.clone()).output(), Some(&output));
    assert_eq!(failed().bytes(), 2);
    assert_eq!(failed().output(), None);
    assert_eq!(Outcome::GivenBack { started: true }.bytes(), 0);
}

#[test]
fn only_a_span_that_was_moved_past_is_due_again() {
    let mut life = Life::new();
    let span = |ms| NewJob {
        wait: Wait::For(ms),
        ..job()
    };
    let id = life.enqueue(span(100)).id;
    let fixed = life.enqueue(scheduled()).id;
    let again = |life: &Life, id, ms| life.ledger.due_again(id, START_MS + ms).is_some();
    assert!(again(&life, id, 99));
    assert!(!again(&life, id, 100), "it is due");
    assert!(!again(&life, fixed, 99), "a date");
    life.pass(200);
    life.claim().unwrap();
    assert!(!again(&life, id, 99), "it runs");
}

#[test]
fn names_count_in_the_digest() {
    let digest = |job: NewJob| {
        let mut life = Life::new();
        life.enqueue(job);
        life.ledger.digest()
    };
    let priced = with_policy(|p| p.attempts_max = 3);
    let digests: BTreeMap<u128, &str> = [
        (digest(job()), "plain"),
        (digest(of_kind("other")), "kind"),
        (digest(in_queue("p")), "queue"),
        (digest(priced), "policy"),
        (Life::new().ledger.digest(), "empty"),
    ]
    .into();
    assert_eq!(digests.len(), 5, "{digests:?}");
    assert!(!digests.contains_key(&0) && !digests.contains_key(&1));
}

/// The time of a key is over at its very end.
#[test]
fn a_key_is_held_until_its_time_is_over() {
    let keyed = NewJob {
        key: Some("a".into()),
        ..job()
    };
    let ttl_ms = setup().key_ttl_ms;
    for (after_ms, is_held) in [(ttl_ms - 1, true), (ttl_ms, false)] {
        let mut life = Life::new();
        life.ledger.setup.any_queue.keep_finished = 0;
        finished(&mut life, keyed.clone(), &completed());
        life.pass(after_ms);
        let pruned = life
            .ledger
            .prune(life.now_ms, true, 10, &FxHashSet::default());
        assert_eq!(pruned.len(), 1 + usize::from(is_held), "{pruned:?}");
        pruned.iter().for_each(|event| life.push(event));
        assert_eq!(life.enqueue(keyed.clone()).is_new, !is_held);
    }
}

/// What was over at that very moment stays over, whichever way the clock goes.
#[test]
fn what_is_due_when_the_clock_is_set_stays_due() {
    for by_ms in [-500, 500] {
        let mut life = Life::new();
        let spans = [100, 101].map(|ms| NewJob {
            wait: Wait::For(ms),
            expires: Some(Expiry {
                at_ms: START_MS + i64::try_from(ms).unwrap(),
                relative: true,
            }),
            ..job()
        });
        let [over, ahead] = spans.map(|job| life.enqueue(job).id);
        let before_ms = START_MS + 100;
        life.push(&Event::ClockStepped { before_ms, by_ms });
        let times = |id| {
            let row = life.row(id);
            (row.due_ms, row.expires_at_ms.unwrap())
        };
        let due_ms = before_ms + by_ms.min(0);
        assert_eq!(times(over), (due_ms, before_ms), "{by_ms}");
        let moved_ms = START_MS + 101 + by_ms;
        assert_eq!(times(ahead), (moved_ms, moved_ms), "{by_ms}");
    }
}

#[test]
fn a_dead_job_shows_its_crashes_and_a_completed_one_none() {
    for (outcome, crashes) in [(Outcome::Discarded("d".into()), 1), (completed(), 0)] {
        let mut life = Life::new();
        let id = life.enqueue(job()).id;
        life.claim().unwrap();
        life.crash(Verdict::Started);
        let (_, claim) = life.claim().unwrap();
        life.settle(id, claim, &outcome);
        assert_eq!(life.row(id).crashes, crashes, "{outcome:?}");
    }
}
