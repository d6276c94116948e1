use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use jobsled::control::{
    Call, Code, Door, EventView, JobPage, JobView, NewJob, Placed, Seen, StatsView,
};
use jobsled::{Context, Engine, EngineBuilder, Pool};
use serde_json::{Value, json};

const MINUTE: Duration = Duration::from_mins(1);

fn program(store: &Path) -> EngineBuilder {
    Engine::builder(store)
        .control_socket(true)
        .pool(Pool::threads("default", 2))
        .handle_json("double", |value, _: &Context| {
            let number = value.as_u64().ok_or("no number")?;
            Ok(json!(number * 2))
        })
        .handle_json("hold", |_, cx: &Context| {
            cx.progress(1, 3);
            cx.pause(MINUTE)?;
            Ok(Value::Null)
        })
}

fn add(door: &mut Door, job: NewJob) -> u64 {
    let stored: Vec<Placed> = door.call(&Call::Enqueue { jobs: vec![job] }).unwrap();
    stored.first().unwrap().id
}

/// What a client in another language does.
struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    fn new(store: &Path) -> (Client, Value) {
        let stream = UnixStream::connect(store.join("socket")).unwrap();
        let mut client = Client {
            stream: BufReader::new(stream),
        };
        let greeting = client.line().unwrap();
        (client, greeting)
    }

    fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).unwrap();
        (read > 0).then(|| serde_json::from_str(&line).unwrap())
    }

    fn ask(&mut self, text: &str) -> Value {
        self.send(&format!("{text}\n"));
        self.line().unwrap()
    }
}

#[test]
fn a_second_process_finds_the_same_store_through_either_door() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut inside = Door::open(&store, Engine::builder).unwrap();
    assert!(inside.engine().is_some());
    let first = add(&mut inside, NewJob::new("double", json!(21)));
    drop(inside);

    let engine = program(&store).open().unwrap();
    assert!(store.join("socket").exists());
    let mut outside = Door::open(&store, Engine::builder).unwrap();
    let greeting = outside.greeting().unwrap();
    assert_eq!((greeting.pid, greeting.runs.len()), (std::process::id(), 2));
    let second = add(&mut outside, NewJob::new("double", json!(5)));
    assert_eq!(second, first + 1);
    for id in [first, second] {
        let within_ms = 60_000;
        assert!(outside.call::<bool>(&Call::Wait { id, within_ms }).unwrap());
        let job: JobView = outside.call(&Call::Job { id }).unwrap();
        assert_eq!(job.state, "completed");
    }
    let stats: StatsView = outside.call(&Call::Stats {}).unwrap();
    assert_eq!(stats.counters["completed"], 2);

    // The owner goes; the door leads on, into the store itself.
    engine.shutdown(MINUTE).unwrap();
    assert!(!store.join("socket").exists());
    let third = add(&mut outside, NewJob::new("double", json!(6)));
    assert_eq!(third, second + 1);
    assert!(outside.engine().is_some());
}

#[test]
fn jobs_are_changed_from_outside() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = program(&store).open().unwrap();
    let mut door = Door::open(&store, Engine::builder).unwrap();
    let held = add(&mut door, NewJob::new("hold", Value::Null));
    let events = engine.subscribe(100);
    let begun = || {
        let handle = engine
            .any_handle(jobsled::JobId::from_number(held))
            .unwrap()
            .unwrap();
        handle.progress().is_some_and(|p| p.done == 1)
    };
    while !begun() {
        events.recv_timeout(MINUTE).unwrap();
    }
    let page = |door: &mut Door, state: &str| -> JobPage {
        let mut call = Call::Jobs {
            state: Some(state.to_owned()),
            kind: None,
            queue: None,
            after: 0,
            limit: None,
        };
        if state.is_empty()
            && let Call::Jobs { state, .. } = &mut call
        {
            *state = None;
        }
        door.call(&call).unwrap()
    };
    let running = page(&mut door, "running");
    assert_eq!(running.jobs[0].progress.as_ref().unwrap().total, 3);
    assert!(running.jobs[0].claimed_at_ms.is_some());
    let reason = "enough".to_owned();
    let cancel = Call::Cancel {
        ids: vec![held, 99],
        reason,
    };
    let answers: Vec<String> = door.call(&cancel).unwrap();
    assert_eq!(answers, ["asked_to_stop", "unknown"]);
    let within_ms = 60_000;
    assert!(
        door.call::<bool>(&Call::Wait {
            id: held,
            within_ms
        })
        .unwrap()
    );
    let job: JobView = door.call(&Call::Job { id: held }).unwrap();
    assert_eq!(
        (job.state.as_str(), job.reason.as_str()),
        ("cancelled", "enough")
    );

    let prune = Call::Prune {
        state: None,
        kind: None,
        queue: None,
        older_ms: 0,
    };
    assert_eq!(door.call::<u64>(&prune).unwrap(), 1);
    assert!(page(&mut door, "").jobs.is_empty());
    let gone: Option<JobView> = door.call(&Call::Job { id: held }).unwrap();
    assert_eq!(gone, None);
}

#[test]
fn queues_and_waiting_jobs_are_changed_from_outside() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let _engine = program(&store).open().unwrap();
    let mut door = Door::open(&store, Engine::builder).unwrap();
    let within_ms = 60_000;
    let pause = |paused| Call::Queue {
        name: "default".to_owned(),
        paused: Some(paused),
        concurrency: Some(1),
    };
    door.call::<Value>(&pause(true)).unwrap();
    let mut later = NewJob::new("double", json!(1));
    (later.priority, later.attempts, later.key) = (Some(3), Some(1), Some("one".to_owned()));
    later.metadata.insert("who".to_owned(), "me".to_owned());
    let id = add(&mut door, later.clone());
    assert_eq!(add(&mut door, later), id, "its key is taken");
    let ids = vec![id];
    let answers: Vec<String> = door
        .call(&Call::SetPriority {
            ids: ids.clone(),
            priority: 7,
        })
        .unwrap();
    assert_eq!(answers, ["done"]);
    let queue = "other".to_owned();
    let answers: Vec<String> = door
        .call(&Call::Move {
            ids: ids.clone(),
            queue,
        })
        .unwrap();
    assert_eq!(answers, ["done"]);
    assert!(door.call::<bool>(&Call::Wait { id, within_ms }).unwrap());
    let job: JobView = door.call(&Call::Job { id }).unwrap();
    assert_eq!((job.priority, job.queue.as_str()), (7, "other"));
    assert_eq!(job.metadata["who"], "me");
    door.call::<Value>(&pause(false)).unwrap();
    let stats: StatsView = door.call(&Call::Stats {}).unwrap();
    let default = stats.queues.iter().find(|q| q.name == "default").unwrap();
    assert_eq!((default.paused, default.concurrency), (false, Some(1)));
}

#[test]
fn a_batch_is_stored_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let _engine = Engine::builder(&store).control_socket(true).open().unwrap();
    let mut door = Door::open(&store, Engine::builder).unwrap();
    let mut jobs: Vec<NewJob> = (0..2_500).map(|n| NewJob::new("k", json!(n))).collect();
    let stored: Vec<Placed> = door.call(&Call::Enqueue { jobs: jobs.clone() }).unwrap();
    let ids: Vec<u64> = stored.iter().map(|stored| stored.id).collect();
    assert_eq!(ids, (1..=2_500).collect::<Vec<_>>());
    jobs[2_000].queue = Some("Not A Queue".to_owned());
    let refused = door.call::<Value>(&Call::Enqueue { jobs }).unwrap_err();
    assert_eq!(refused.code, Code::Invalid);
    assert!(refused.message.contains("job 2000"), "{refused}");
    let mut listed = Vec::new();
    let mut after = Some(0);
    while let Some(from) = after {
        let call = Call::Jobs {
            state: None,
            kind: None,
            queue: None,
            after: from,
            limit: None,
        };
        let page: JobPage = door.call(&call).unwrap();
        listed.extend(page.jobs.into_iter().map(|job| job.id));
        after = page.next;
    }
    assert_eq!(listed, ids, "all of the first, none of the second");
}

#[test]
fn news_come_as_they_happen() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = program(&store).open().unwrap();
    let (mut watcher, _) = Client::new(&store);
    let alive = watcher.ask(r#"{"call":"watch"}"#);
    assert_eq!(alive["event"], "alive", "it hears from here on");
    let id = engine.json("double", &json!(4)).enqueue().unwrap();
    let id = id.handle().id().number();
    let mut seen = Vec::new();
    while seen
        .last()
        .is_none_or(|event: &String| event != "completed")
    {
        let event: EventView = serde_json::from_value(watcher.line().unwrap()).unwrap();
        assert_eq!((event.id, event.kind.as_str()), (id, "double"));
        seen.push(event.event);
    }
    assert_eq!(seen, ["enqueued", "claimed", "completed"]);
    engine.shutdown(MINUTE).unwrap();
    assert_eq!(watcher.line().unwrap(), json!({ "ok": null }));
    assert_eq!(watcher.line(), None);
}

#[test]
fn bad_calls_get_an_error_and_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = program(&store).open().unwrap();
    let (mut client, greeting) = Client::new(&store);
    assert_eq!(greeting["jobsled"], 1);
    assert_eq!(greeting["runs"], json!(["double", "hold"]));
    let bad = [
        ("", "EOF"),
        ("hello", "expected"),
        ("[]", "call"),
        ("{}", "call"),
        (r#"{"call":"no_such"}"#, "no_such"),
        (r#"{"call":"job"}"#, "id"),
        (r#"{"call":"job","id":-1}"#, "-1"),
        (r#"{"call":"job","id":1,"more":1}"#, "more"),
        (r#"{"call":"enqueue","jobs":[]}"#, "at least one"),
        (r#"{"call":"enqueue","jobs":[{"kind":"A B"}]}"#, "A B"),
        (
            r#"{"call":"enqueue","jobs":[{"kind":"k","prio":1}]}"#,
            "prio",
        ),
        (
            r#"{"call":"enqueue","jobs":[{"kind":"k","at_ms":1,"after_ms":1}]}"#,
            "one of",
        ),
        (r#"{"call":"reschedule","ids":[1]}"#, "one of"),
        (r#"{"call":"jobs","state":"asleep"}"#, "asleep"),
        (r#"{"call":"queue","name":"A B","paused":true}"#, "A B"),
    ];
    for (call, names) in bad {
        let answer = client.ask(call);
        assert_eq!(answer["error"]["code"], "invalid", "{call}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(names), "{call}: {message}");
    }
    let answer = client.ask(r#"{"call":"job","id":7}"#);
    assert_eq!(answer, json!({ "ok": null }), "and it goes on");
    client.send(r#"{"call":"enqueue","jobs":[{"kind":"double","payload":1}"#);
    drop(client);
    // A call that was cut short is not carried out; the next client is served.
    let (mut client, _) = Client::new(&store);
    let stats = client.ask(r#"{"call":"stats"}"#);
    assert_eq!(stats["ok"]["counters"]["enqueued"], 0, "{stats}");
    assert_eq!(engine.jobs().count().unwrap(), 0);
}

/// A client that asks for much and takes nothing holds up nobody, and is let go.
#[test]
fn a_client_that_stops_reading_is_on_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = Engine::builder(&store).control_socket(true).open().unwrap();
    let mut batch = engine.batch();
    for number in 0..5_000 {
        let request = engine.json("k", &json!(number));
        batch.add_request(request.metadata("text", "x".repeat(500)));
    }
    batch.enqueue().unwrap();
    let (mut silent, _) = Client::new(&store);
    for _ in 0..20 {
        silent.send("{\"call\":\"jobs\"}\n");
    }
    let (mut busy, _) = Client::new(&store);
    for n in 0..100 {
        let stats = busy.ask(r#"{"call":"stats"}"#);
        assert_eq!(stats["ok"]["counters"]["enqueued"], 5_000 + n);
        engine.json("k", &json!(0)).enqueue().unwrap();
    }
    engine.shutdown(MINUTE).unwrap();
}

/// One names it by a short way, the other by a long one.
#[test]
fn a_store_has_one_socket_whatever_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let short = dir.path().join("short");
    std::os::unix::fs::symlink(&deep, &short).unwrap();
    for (ours, theirs) in [(&short, &deep), (&deep, &short)] {
        let engine = program(&ours.join("store")).open().unwrap();
        let mut door = Door::open(theirs.join("store"), Engine::builder).unwrap();
        assert!(door.engine().is_none());
        door.call::<StatsView>(&Call::Stats {}).unwrap();
        engine.shutdown(MINUTE).unwrap();
    }
}

/// Several processes that wait for a worker open the store now and then, to look. They kept each other awake for ever,
/// and the worker out.
#[test]
fn looking_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let id = {
        let mut door = Door::open(&store, Engine::builder).unwrap();
        add(&mut door, NewJob::new("k", Value::Null))
    };
    let seen = Seen::now(&store);
    for _ in 0..3 {
        let mut door = Door::open(&store, Engine::builder).unwrap();
        let _: StatsView = door.call(&Call::Stats {}).unwrap();
        let _: Option<JobView> = door.call(&Call::Job { id }).unwrap();
    }
    assert!(!seen.has_changed());
    let mut door = Door::open(&store, Engine::builder).unwrap();
    let reason = String::new();
    let ids = vec![id];
    let _: Vec<String> = door.call(&Call::Cancel { ids, reason }).unwrap();
    assert!(seen.has_changed());
}

/// A call without an end is refused when it is too long, not when the memory is full.
#[test]
fn a_call_has_a_largest_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let _engine = Engine::builder(&store).control_socket(true).open().unwrap();
    let (mut client, _) = Client::new(&store);
    let part = "x".repeat(1 << 20);
    // It may be hung up on before all of it is sent.
    for _ in 0..66 {
        if client.stream.get_mut().write_all(part.as_bytes()).is_err() {
            break;
        }
    }
    let refused = client.line().unwrap();
    assert_eq!(refused["error"]["code"], "invalid", "{refused}");
    let ids: Vec<u64> = (0..200_000).collect();
    let call = json!({ "call": "delete", "ids": ids });
    let (mut client, _) = Client::new(&store);
    let refused = client.ask(&call.to_string());
    assert_eq!(refused["error"]["code"], "invalid", "{refused}");
    let (mut client, _) = Client::new(&store);
    assert!(client.ask(r#"{"call":"stats"}"#)["ok"].is_object());
}

#[test]
fn there_are_only_so_many_connections() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let _engine = program(&store).open().unwrap();
    let mut clients: Vec<Client> = (0..256).map(|_| Client::new(&store).0).collect();
    let (_, turned_away) = Client::new(&store);
    assert_eq!(turned_away["error"]["code"], "not_now", "{turned_away}");
    let stats = clients[255].ask(r#"{"call":"stats"}"#);
    assert!(stats["ok"].is_object());
    drop(clients);
    // As soon as one has left there is room again.
    let mut door = Door::open(&store, Engine::builder).unwrap();
    door.call::<StatsView>(&Call::Stats {}).unwrap();
}

#[test]
fn a_store_whose_owner_does_not_answer_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let engine = Engine::builder(&store).open().unwrap();
    let pid = std::process::id().to_string();
    let refused = Door::open(&store, Engine::builder).unwrap_err();
    assert_eq!(refused.code, Code::InUse);
    assert!(refused.message.contains(&pid), "{refused}");
    assert!(refused.message.contains("control_socket"), "{refused}");
    // A socket that nobody serves any more, as a killed process leaves it.
    let left = std::os::unix::net::UnixListener::bind(store.join("socket")).unwrap();
    drop(left);
    let refused = Door::open(&store, Engine::builder).unwrap_err();
    assert_eq!(refused.code, Code::InUse);
    drop(engine);
    let engine = program(&store).open().unwrap();
    let mut door = Door::open(&store, Engine::builder).unwrap();
    door.call::<StatsView>(&Call::Stats {}).unwrap();
    drop(engine);
    let refused = Engine::in_memory().control_socket(true).open().unwrap_err();
    assert!(refused.to_string().contains("control socket"), "{refused}");
}

/// A store in a deep directory: its path is too long for a socket.
#[test]
fn a_long_path_has_its_socket_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("d".repeat(120)).join("store");
    std::fs::create_dir_all(store.parent().unwrap()).unwrap();
    let engine = program(&store).open().unwrap();
    assert!(!store.join("socket").exists());
    let socket = std::fs::read_to_string(store.join("control")).unwrap();
    assert!(Path::new(&socket).exists(), "{socket}");
    let mut door = Door::open(&store, Engine::builder).unwrap();
    assert!(door.engine().is_none());
    door.call::<StatsView>(&Call::Stats {}).unwrap();
    // A copy leads to the original's owner, and is not taken in by that.
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let other = Engine::builder(&copy).open().unwrap();
    std::fs::copy(store.join("control"), copy.join("control")).unwrap();
    let refused = Door::open(&copy, Engine::builder).unwrap_err();
    assert_eq!(refused.code, Code::InUse, "{refused}");
    drop(other);
    engine.shutdown(MINUTE).unwrap();
    assert!(!store.join("control").exists() && !Path::new(&socket).exists());
}
