use std::time::Duration;

use jobsled::{
    Cancel, Changed, Context, Delete, Engine, EngineBuilder, Finished, JobId, ManualClock, Pool,
    State, job, rkyv,
};

const MINUTE: Duration = Duration::from_mins(1);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Number {
    number: u64,
}
job!(Number, kind = "number", output = u64);

fn with_handler(builder: EngineBuilder) -> EngineBuilder {
    builder
        .pool(Pool::threads("default", 1))
        .handle(|job: Number, _: &Context| match job.number {
            0 => Err("nothing".into()),
            number => Ok(number),
        })
}

fn states(engine: &Engine) -> Vec<(u64, State)> {
    let jobs = engine.jobs().list().unwrap();
    jobs.iter()
        .map(|job| (job.id.number(), job.state))
        .collect()
}

#[test]
fn many_jobs_change_for_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder(dir.path().join("store")).open().unwrap();
    let mut batch = engine.batch();
    batch.extend((0..500).map(|number| Number { number }));
    let stored = batch.enqueue().unwrap();
    let mut ids: Vec<JobId> = stored.iter().map(|(id, _)| *id).collect();
    let unknown = {
        let id = engine.enqueue(Number { number: 1 }).unwrap().id();
        assert_eq!(engine.change(id).delete().unwrap(), Delete::Deleted);
        id
    };
    ids.push(unknown);
    let syncs = engine.stats().unwrap().syncs;
    let answers = engine.change_all(ids.clone()).cancel("enough").unwrap();
    let used = engine.stats().unwrap().syncs - syncs;
    assert!(used <= 25, "{used} syncs for 501 wishes");
    let (last, others) = answers.split_last().unwrap();
    assert_eq!(*last, Cancel::Unknown);
    assert!(others.iter().all(|answer| *answer == Cancel::Cancelled));

    ids.truncate(2);
    let [done, finished, gone] = [
        Changed::Done,
        Changed::AlreadyFinished(State::Cancelled),
        Changed::Unknown,
    ];
    ids.push(unknown);
    let all = engine.change_all(ids);
    assert_eq!(all.set_priority(3).unwrap(), [finished, finished, gone]);
    assert_eq!(all.retry().unwrap(), [done, done, gone]);
    assert_eq!(all.move_to("other").unwrap(), [done, done, gone]);
    assert_eq!(all.reschedule_after(MINUTE).unwrap(), [done, done, gone]);
    assert_eq!(engine.jobs().queue("other").count().unwrap(), 2);
    assert_eq!(engine.jobs().state(State::Scheduled).count().unwrap(), 2);
    assert!(all.move_to("Not A Name").is_err());
    let deleted = [Delete::Deleted, Delete::Deleted, Delete::Unknown];
    assert_eq!(all.delete().unwrap(), deleted);
}

#[test]
fn finished_jobs_are_pruned_by_state_queue_kind_and_age() {
    let clock = ManualClock::at(1_700_000_000_000);
    let builder = Engine::in_memory().clock(clock.clone());
    let engine = with_handler(builder).open().unwrap();
    let run = |queue: &str, number| {
        let request = engine.job(Number { number }).queue(queue).attempts(1);
        let handle = request.enqueue().unwrap().into_handle();
        handle.wait().unwrap();
        handle.id()
    };
    let old = [run("a", 1), run("a", 0), run("b", 1)];
    clock.advance(MINUTE);
    let new = [run("a", 1), run("a", 0)];
    let waiting = engine.job(Number { number: 1 }).after(MINUTE).enqueue();
    let waiting = waiting.unwrap().handle().id();

    let deleted = |prune: jobsled::Prune<'_>| prune.run().unwrap().deleted;
    let prune = || engine.prune();
    assert_eq!(deleted(prune().kind("other")), 0);
    assert_eq!(deleted(prune().state(State::Scheduled)), 0);
    let old_dead = prune().state(State::Dead).older_than(MINUTE / 2);
    assert_eq!(deleted(old_dead), 1);
    assert!(engine.details(old[1]).unwrap().is_none());
    assert_eq!(deleted(prune().queue("b").kind("number")), 1);
    assert_eq!(deleted(prune().older_than(MINUTE)), 1);
    let left = states(&engine);
    let kept = [
        (new[0].number(), State::Completed),
        (new[1].number(), State::Dead),
        (waiting.number(), State::Scheduled),
    ];
    assert_eq!(left, kept);
    assert_eq!(deleted(prune()), 2);
    assert_eq!(states(&engine), [(waiting.number(), State::Scheduled)]);
}

/// A program that looks into another's store must not delete by its own idea of what is worth keeping.
#[test]
fn retention_is_set_for_all_queues_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = with_handler(Engine::builder(&store).keep_finished(usize::MAX));
    let engine = engine.open().unwrap();
    let mut batch = engine.batch();
    batch.extend((0..10_050).map(|_| Number { number: 1 }));
    batch.enqueue().unwrap();
    assert!(engine.wait_until_idle(MINUTE).unwrap());
    engine.shutdown(MINUTE).unwrap();
    for (keep, left) in [(usize::MAX, 10_050), (7, 7)] {
        let engine = Engine::builder(&store).keep_finished(keep).open().unwrap();
        // Whatever retention has to do is done before the next answer, or a few groups later.
        for _ in 0..20 {
            engine.queue("other").pause().unwrap();
            engine.queue("other").resume().unwrap();
        }
        assert_eq!(engine.jobs().count().unwrap(), left);
    }
}

#[test]
fn only_the_queues_that_are_named_are_run() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let open = |builder: EngineBuilder| with_handler(builder).open().unwrap();
    let engine = open(Engine::builder(&store).only_queues(["a", "c"]));
    let add = |queue: &str| {
        let request = engine.job(Number { number: 5 }).queue(queue);
        request.enqueue().unwrap().into_handle()
    };
    let (a, b, c) = (add("a"), add("b"), add("c"));
    assert_eq!(a.wait().unwrap(), Finished::Completed(5));
    assert_eq!(c.wait().unwrap(), Finished::Completed(5));
    assert!(engine.wait_until_quiet(MINUTE).unwrap(), "b is not ours");
    assert_eq!(b.state().unwrap(), Some(State::Ready));
    assert!(!engine.wait_until_idle(Duration::ZERO).unwrap());
    engine.shutdown(MINUTE).unwrap();
    let engine = open(Engine::builder(&store));
    let b = engine.handle::<Number>(b.id()).unwrap().unwrap();
    assert_eq!(b.wait().unwrap(), Finished::Completed(5));
    let refused = Engine::in_memory().only_queues(["Not A Name"]).open();
    assert!(refused.is_err());
}

#[test]
fn quiet_means_that_nothing_runs_and_nothing_could_start() {
    let engine = with_handler(Engine::in_memory()).open().unwrap();
    assert!(engine.wait_until_quiet(MINUTE).unwrap(), "empty");
    engine.queue("paused").pause().unwrap();
    let request = || engine.job(Number { number: 5 });
    request().queue("paused").enqueue().unwrap();
    request().after(MINUTE).enqueue().unwrap();
    let run = request().enqueue().unwrap().into_handle();
    assert!(engine.wait_until_quiet(MINUTE).unwrap());
    assert_eq!(run.state().unwrap(), Some(State::Completed));
    assert!(!engine.wait_until_idle(Duration::ZERO).unwrap());
}

#[test]
fn a_job_of_any_kind_can_be_waited_for() {
    let engine = with_handler(Engine::in_memory()).open().unwrap();
    let id = engine.enqueue(Number { number: 5 }).unwrap().id();
    let handle = engine.any_handle(id).unwrap().unwrap();
    assert_eq!(handle.wait().unwrap(), Finished::Completed(()));
    assert_eq!(engine.change(id).delete().unwrap(), Delete::Deleted);
    assert!(engine.any_handle(id).unwrap().is_none());
    assert_eq!(handle.wait().unwrap(), Finished::Deleted);
}

#[test]
fn a_long_list_comes_with_its_details() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder(dir.path().join("store")).open().unwrap();
    for _ in 0..3 {
        let mut batch = engine.batch();
        for number in 0..1_500 {
            let request = engine.job(Number { number });
            batch.add_request(request.metadata("number", number.to_string().repeat(50)));
        }
        batch.enqueue().unwrap();
    }
    let all = engine.jobs().details().unwrap();
    assert_eq!(all.len(), 4_500);
    for (n, job) in all.iter().enumerate() {
        assert_eq!(job.info.id.number(), n as u64 + 1);
        let number = (n % 1_500).to_string().repeat(50);
        assert_eq!(job.metadata, [("number".to_owned(), number)]);
    }
    let some = engine.jobs().after(all[9].info.id).limit(2).details();
    assert_eq!(some.unwrap(), all[10..12]);
    let none = engine.jobs().queue("other").details().unwrap();
    assert!(none.is_empty());
}

/// A worker that is told to end must not turn people away while its last job runs.
#[test]
fn who_stops_claiming_still_takes_jobs() {
    let (begun, wait_for_begin) = std::sync::mpsc::channel();
    let (go_on, wait_for_go) = std::sync::mpsc::channel::<()>();
    let wait_for_go = std::sync::Mutex::new(wait_for_go);
    let engine = Engine::in_memory()
        .pool(Pool::threads("default", 1))
        .handle(move |job: Number, _: &Context| {
            begun.send(()).unwrap();
            wait_for_go.lock().unwrap().recv().unwrap();
            Ok(job.number)
        })
        .open()
        .unwrap();
    let running = engine.enqueue(Number { number: 1 }).unwrap();
    wait_for_begin.recv().unwrap();
    engine.stop_claiming().unwrap();
    let later = engine.enqueue(Number { number: 2 }).unwrap();
    assert!(!engine.wait_until_quiet(Duration::ZERO).unwrap());
    go_on.send(()).unwrap();
    assert!(engine.wait_until_quiet(MINUTE).unwrap());
    assert_eq!(running.state().unwrap(), Some(State::Completed));
    assert_eq!(later.state().unwrap(), Some(State::Ready));
}
