//! What attempts leave behind, and what they show while they run.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobsled::{
    Backoff, Cancel, Changed, Context, DeadReason, Engine, EngineBuilder, Error, Finished, Job,
    JobDefaults, JobId, JobResult, ManualClock, OnCrash, Pool, State, Stop, job, rkyv,
};

const MINUTE: Duration = Duration::from_mins(1);

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[cfg_attr(feature = "json", derive(serde::Deserialize))]
struct Leave {
    how: String,
    bytes: usize,
}
job!(
    Leave,
    kind = "leave",
    output = String,
    defaults = JobDefaults::new()
        .attempts(2)
        .backoff(Backoff::fixed(Duration::ZERO))
);

/// Keeps a text of that many bytes, which names the attempt, and ends as it is told.
fn leave(job: Leave, cx: &Context) -> JobResult<String> {
    let number = cx.attempt().number;
    let text = |word: &str| format!("{word} {number} {}", "x".repeat(job.bytes));
    if job.how != "second keeps nothing" || number == 1 {
        cx.keep_output::<Leave>(&"not the last call".to_owned())?;
        cx.keep_output::<Leave>(&text("kept"))?;
    }
    cx.log(b"begun");
    match job.how.as_str() {
        "discard" => Err(Stop::discard("no")),
        "cancel" => Err(Stop::cancel("no")),
        "panic" => panic!("no"),
        "snooze" if number == 1 => Err(Stop::snooze(Duration::from_hours(1))),
        "complete" if number == 2 => Ok(text("done")),
        // Asked before its first look, it must not count as done.
        "wait" => loop {
            cx.pause(MINUTE)?;
        },
        _ => Err("no".into()),
    }
}

fn open(dir: &Path) -> Engine {
    builder(dir).open().unwrap()
}

fn builder(dir: &Path) -> EngineBuilder {
    Engine::builder(dir)
        .pool(Pool::threads("default", 2))
        .handle(leave)
}

fn wish(how: &str, bytes: usize) -> Leave {
    Leave {
        how: how.to_owned(),
        bytes,
    }
}

/// Waits until the handler has kept its text.
fn wait_for_begin(engine: &Engine, id: JobId) {
    let begun = || engine.log(id, 0, MINUTE).unwrap();
    while begun().is_none_or(|part| part.bytes.is_empty()) {}
}

/// The text that is stored with a job.
fn output(engine: &Engine, id: JobId) -> Option<String> {
    let stored = engine.output(id).unwrap()?;
    assert!(!stored.is_json());
    Some(<<Leave as Job>::Format as jobsled::Format<String>>::decode(stored.bytes()).unwrap())
}

/// In the journal and in files of their own; there after the store was opened again; and a file that is replaced
/// or not taken goes.
#[test]
fn what_an_attempt_keeps_is_stored_however_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let files = || std::fs::read_dir(store.join("payloads")).unwrap().count();
    let cases = [
        ("fail", State::Dead, Some("kept 2")),
        ("panic", State::Dead, Some("kept 2")),
        ("second keeps nothing", State::Dead, Some("kept 1")),
        ("discard", State::Dead, Some("kept 1")),
        ("cancel", State::Cancelled, Some("kept 1")),
        ("complete", State::Completed, Some("done 2")),
        ("snooze", State::Scheduled, None),
    ];
    for bytes in [10, 10_000] {
        let engine = open(&store);
        let jobs = cases.map(|(how, ..)| engine.enqueue(wish(how, bytes)).unwrap());
        for (job, (how, state, _)) in jobs.iter().zip(cases) {
            if state.is_finished() {
                job.wait().unwrap();
            } else {
                while job.state().unwrap() != Some(state) {}
            }
            assert_eq!(job.state().unwrap(), Some(state), "{how}");
        }
        engine.shutdown(MINUTE).unwrap();
        let engine = open(&store);
        for (job, (how, _, kept)) in jobs.iter().zip(cases) {
            let kept = kept.map(|kept| format!("{kept} {}", "x".repeat(bytes)));
            assert_eq!(output(&engine, job.id()), kept, "{how}");
        }
        if bytes > 4096 {
            assert_eq!(files(), 6, "one for each that has an output");
        }
        for job in &jobs {
            engine.change(job.id()).delete().unwrap();
        }
        assert_eq!(files(), 0);
        assert_eq!(output(&engine, jobs[0].id()), None, "no such job");
    }
}

/// A cancelled handler's too; a dead job that is brought back has it until it completes.
#[test]
fn a_cancelled_or_retried_job_has_its_kept_output() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("store"));
    let cancelled = engine.enqueue(wish("wait", 5_000)).unwrap();
    wait_for_begin(&engine, cancelled.id());
    assert_eq!(cancelled.cancel().unwrap(), Cancel::AskedToStop);
    let ended = cancelled.wait().unwrap();
    assert!(matches!(ended, Finished::Cancelled { .. }));
    let kept = output(&engine, cancelled.id()).unwrap();
    assert!(kept.starts_with("kept 1"));
    let dead = engine.enqueue(wish("discard", 3)).unwrap();
    dead.wait().unwrap();
    engine.queue("default").pause().unwrap();
    assert_eq!(engine.change(dead.id()).retry().unwrap(), Changed::Done);
    assert_eq!(output(&engine, dead.id()).unwrap(), "kept 1 xxx");
    let completed = engine
        .change(dead.id())
        .complete::<Leave>(&"by hand".to_owned());
    assert_eq!(completed.unwrap(), Changed::Done);
    assert_eq!(output(&engine, dead.id()).unwrap(), "by hand");
}

/// Kept by a handler whose lease was taken away meanwhile: refused, and its file goes.
#[test]
fn what_a_late_attempt_keeps_is_refused() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Late;
    job!(
        Late,
        kind = "late",
        output = Vec<u8>,
        defaults = JobDefaults::new().attempts(1).time_limit(Duration::from_secs(1))
    );
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let clock = ManualClock::at(1_700_000_000_000);
    let (begun, has_begun) = channel();
    let (go_on, may_go_on) = channel();
    let (begun, may_go_on): (Mutex<Sender<()>>, Mutex<Receiver<()>>) =
        (begun.into(), may_go_on.into());
    let engine = Engine::builder(&store)
        .clock(clock.clone())
        .handle(move |_: Late, cx: &Context| {
            cx.keep_output::<Late>(&vec![7; 10_000])?;
            begun.lock().unwrap().send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
            Err("too late".into())
        })
        .open()
        .unwrap();
    let job = engine.enqueue(Late).unwrap();
    has_begun.recv().unwrap();
    for _ in 0..2 {
        clock.advance(Duration::from_secs(6)); // the limit, and then its grace
        engine.stats().unwrap();
    }
    assert!(matches!(job.wait().unwrap(), Finished::Dead(_)));
    go_on.send(()).unwrap();
    while engine.stats().unwrap().late_answers == 0 {}
    assert!(engine.output(job.id()).unwrap().is_none());
    assert_eq!(
        std::fs::read_dir(store.join("payloads")).unwrap().count(),
        0
    );
}

/// A job that must not run twice and is cut off at shutdown leaves behind what it kept.
#[test]
fn at_most_once_and_shut_down_it_keeps_its_output() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = open(&store);
    let once = engine.job(wish("wait", 3)).on_crash(OnCrash::Dead);
    let job = once.enqueue().unwrap().into_handle();
    wait_for_begin(&engine, job.id());
    engine.shutdown(MINUTE).unwrap();
    let engine = open(&store);
    let job = engine.handle::<Leave>(job.id()).unwrap().unwrap();
    let Finished::Dead(ended) = job.wait().unwrap() else {
        panic!("it was cut off");
    };
    assert_eq!(ended.reason, DeadReason::Crashed);
    assert_eq!(output(&engine, job.id()).unwrap(), "kept 1 xxx");
}

#[test]
fn a_payload_can_be_read_until_the_job_completes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir.path().join("store"));
    engine.queue("default").pause().unwrap();
    for bytes in [1, 100_000] {
        let how = "y".repeat(bytes);
        let job = engine.enqueue(wish(&how, 1)).unwrap();
        let payload = engine.payload(job.id()).unwrap().unwrap().into_bytes();
        let decode = <<Leave as Job>::Format as jobsled::Format<Leave>>::decode;
        assert_eq!(decode(&payload).unwrap().how, how);
        engine
            .change(job.id())
            .complete::<Leave>(&"x".to_owned())
            .unwrap();
        assert!(engine.payload(job.id()).unwrap().is_none());
        engine.change(job.id()).delete().unwrap();
        assert!(engine.payload(job.id()).unwrap().is_none());
    }
}

/// A file that is gone is damage, said once and not looked for again and again.
#[test]
fn an_output_whose_file_is_missing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = open(&store);
    let job = engine.enqueue(wish("discard", 10_000)).unwrap();
    job.wait().unwrap();
    for file in std::fs::read_dir(store.join("payloads")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let error = engine.output(job.id()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[cfg(feature = "json")]
#[test]
fn what_a_job_enqueued_as_json_keeps_is_json() {
    use serde_json::json;
    let dir = tempfile::tempdir().unwrap();
    let engine = builder(&dir.path().join("store")).accept_json::<Leave>();
    let engine = engine.open().unwrap();
    let wish = json!({"how": "discard", "bytes": 2});
    let job = engine.json("leave", &wish).enqueue().unwrap().into_handle();
    job.wait().unwrap();
    let kept = engine.output(job.id()).unwrap().unwrap();
    assert!(kept.is_json());
    assert_eq!(kept.json().unwrap(), json!("kept 1 xx"));
    let payload = engine.payload(job.id()).unwrap().unwrap();
    assert_eq!(payload.json().unwrap(), wish);
    let typed = engine.enqueue(self::wish("discard", 1)).unwrap();
    typed.wait().unwrap();
    let error = engine.output(typed.id()).unwrap().unwrap().json();
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("output") && error.contains("rkyv"),
        "{error}"
    );
}

#[test]
fn an_output_of_another_kind_is_not_kept() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Other;
    job!(Other, kind = "other");
    let engine = Engine::in_memory()
        .handle(|_: Other, cx: &Context| {
            cx.keep_output::<Leave>(&String::new())?;
            Ok(())
        })
        .open()
        .unwrap();
    let job = engine.job(Other).attempts(1).enqueue().unwrap();
    let Finished::Dead(ended) = job.handle().wait().unwrap() else {
        panic!("it failed");
    };
    assert!(
        ended.errors[0]
            .error
            .contains("`other` cannot keep an output of `leave`")
    );
}

/// A log is followed while its handler runs; whoever waits is woken by each part and by the end.
#[test]
fn a_log_is_followed_to_its_end() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Talk;
    job!(Talk, kind = "talk");
    let (say, said) = channel::<Option<String>>();
    let said = Arc::new(Mutex::new(said));
    let engine = Engine::in_memory()
        .handle(move |_: Talk, cx: &Context| {
            while let Some(line) = said.lock().unwrap().recv().unwrap() {
                cx.log(line.as_bytes());
            }
            Ok(())
        })
        .open()
        .unwrap();
    let job = engine.enqueue(Talk).unwrap();
    while job.state().unwrap() != Some(State::Running) {}
    let nothing = engine.log(job.id(), 0, Duration::ZERO).unwrap().unwrap();
    assert!(nothing.bytes.is_empty() && !nothing.ended);
    let follow = |from| {
        let (engine, id) = (&engine, job.id());
        move || engine.log(id, from, MINUTE).unwrap()
    };
    let mut next = 0;
    std::thread::scope(|scope| {
        for line in ["one", "two", "größe"] {
            let follower = scope.spawn(follow(next));
            say.send(Some(line.to_owned())).unwrap();
            let part = follower.join().unwrap().unwrap();
            assert_eq!((part.from, part.bytes.as_slice()), (next, line.as_bytes()));
            assert!(!part.ended);
            next = part.next;
        }
        let follower = scope.spawn(follow(next));
        say.send(None).unwrap();
        // Asked after the end was stored, there is none any more.
        assert!(
            follower
                .join()
                .unwrap()
                .is_none_or(|part| part.ended && part.bytes.is_empty())
        );
    });
    job.wait().unwrap();
    assert!(engine.log(job.id(), 0, MINUTE).unwrap().is_none());
    assert!(
        engine
            .log(JobId::from_number(99), 0, MINUTE)
            .unwrap()
            .is_none()
    );
}

/// `jobsled log --follow` printed all of it again when the attempt had ended and its end was not stored yet: nothing
/// said whose log it had shown.
#[test]
fn a_later_attempt_has_a_log_of_its_own() {
    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Talk;
    job!(
        Talk,
        kind = "talk",
        defaults = JobDefaults::new()
            .attempts(2)
            .backoff(Backoff::fixed(Duration::ZERO))
    );
    let (go_on, told) = channel::<()>();
    let told = Mutex::new(told);
    let engine = Engine::in_memory()
        .handle(move |_: Talk, cx: &Context| {
            cx.log(format!("this is attempt {}", cx.attempt().number).as_bytes());
            told.lock().unwrap().recv().unwrap();
            Err::<(), _>("not well".into())
        })
        .open()
        .unwrap();
    let job = engine.enqueue(Talk).unwrap();
    for attempt in [1, 2] {
        let part = loop {
            let part = engine.log(job.id(), 0, MINUTE).unwrap();
            if let Some(part) =
                part.filter(|part| part.attempt == attempt && !part.bytes.is_empty())
            {
                break part;
            }
        };
        assert_eq!(part.bytes, format!("this is attempt {attempt}").as_bytes());
        go_on.send(()).unwrap();
    }
    assert!(matches!(job.wait().unwrap(), Finished::Dead(_)));
}
