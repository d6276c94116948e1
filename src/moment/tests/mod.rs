//! Export and import without an engine in between: the lines of an imported store, before anybody opens it.

mod changes;

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::export::export_moment;
use super::held::Entries;
use super::import;
use crate::engine::read_slice;
use crate::error::Result;
use crate::journal::{EntryBytes, Journal, Payloads, Store, find_head};
use crate::{
    Backoff, Claim, Context, Engine, JobDefaults, JobId, JobResult, Json, ManualClock, OnCrash,
    Stop, job, rkyv,
};

const MINUTE: Duration = Duration::from_mins(1);
const NOW_MS: i64 = 1_800_000_000_000;
/// Two hours later.
const LATER_MS: i64 = NOW_MS + 7_200_000;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Word {
    word: String,
}
job!(
    Word,
    kind = "word",
    version = 3,
    output = String,
    defaults = JobDefaults::new()
        .attempts(2)
        .backoff(Backoff::linear(Duration::from_hours(1)).jitter_percent(0))
        .retry_expires_after(Duration::from_hours(5))
        .on_crash(OnCrash::Rerun)
);

/// Nobody's handler takes it.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct ByHand;
job!(ByHand, kind = "by-hand");

/// JSON as somebody wrote it, blanks and all.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct AsWritten(Box<RawValue>);
job!(
    AsWritten,
    kind = "as-written",
    output = Value,
    format = Json
);

fn word(word: &str) -> Word {
    Word { word: word.into() }
}

fn as_written(text: &str) -> AsWritten {
    AsWritten(RawValue::from_string(text.to_owned()).unwrap())
}

/// What the handler does is what the word says.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a handler has the shape that the engine asks for"
)]
fn handle(job: Word, cx: &Context) -> JobResult<String> {
    match job.word.as_str() {
        "fails" => Err(format!("attempt {} \"failed\"\n", cx.attempt().number).into()),
        "hopeless" => Err(Stop::discard("as its name says")),
        _ => Ok(job.word.to_uppercase()),
    }
}

/// An engine whose store has jobs in every state, with every sort of record; one is held as running.
fn one_of_everything(store: &Path) -> (Engine, Claim<ByHand>) {
    let engine = Engine::builder(store)
        .clock(ManualClock::at(NOW_MS))
        .handle(handle)
        .open()
        .unwrap();
    let wait = |id: JobId| {
        let handle = engine.handle::<Word>(id).unwrap().unwrap();
        handle.wait_timeout(MINUTE).unwrap().expect("an end");
    };
    let id = |request: crate::Request<'_, String>| request.enqueue().unwrap().handle().id();
    engine.queue("paused").pause().unwrap();
    engine.queue("paused").set_concurrency(Some(7)).unwrap();
    engine.queue("capped").set_concurrency(Some(2)).unwrap();
    for done in ["done", &"large".repeat(10_000), ""] {
        wait(id(engine
            .job(word(done))
            .metadata("a", "\u{1F980}\"")
            .metadata("a", "again")));
    }
    wait(id(engine.job(word("hopeless")).key("dead")));
    let failing = id(engine.job(word("fails")));
    while engine.details(failing).unwrap().unwrap().errors.is_empty() {}
    let paused = |what: &str| engine.job(word(what)).queue("paused");
    engine
        .change(id(paused("cancelled")))
        .cancel("not wanted")
        .unwrap();
    for key in ["held", "also \"held\""] {
        engine
            .change(id(paused("deleted").key(key)))
            .delete()
            .unwrap();
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW_MS.unsigned_abs() + 86_400_000);
    id(paused("later")
        .at(at)
        .expires_at(at + MINUTE)
        .time_limit(MINUTE));
    id(paused("later")
        .after(MINUTE)
        .expires_after(2 * MINUTE)
        .priority(-5));
    id(paused(&"file".repeat(10_000)).key("ready"));
    store_json(&engine);
    engine.enqueue(ByHand).unwrap();
    let claim = engine.claim("default", Duration::ZERO).unwrap();
    (engine, claim.expect("a job to claim"))
}

/// Payloads of JSON in every form, one job completed with an output of JSON.
fn store_json(engine: &Engine) {
    for text in [
        "null",
        "\"text\"",
        r#"{"b":1,"a":[1e400,"\ud800",{"b":2,"b":3}]}"#,
        "{ \"odd\" :\t1 }",
        "{\n  \"lines\": 2\n}",
        "[1,\r2]",
    ] {
        let request = engine.job(as_written(text)).queue("paused");
        request.enqueue().unwrap();
    }
    let large = json!({ "large": "x".repeat(50_000) });
    engine
        .json("as-written", &large)
        .queue("paused")
        .enqueue()
        .unwrap();
    let by_name = engine.json("as-written", &json!({})).queue("paused");
    let by_name = by_name.enqueue().unwrap().handle().id();
    let output = json!([null, { "done": true }]);
    engine
        .change(by_name)
        .complete::<AsWritten>(&output)
        .unwrap();
}

struct InJournal<'j>(&'j mut dyn Journal);

impl Entries for InJournal<'_> {
    fn slice(&mut self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<(u64, EntryBytes)>> {
        read_slice(self.0, from..to + 1, bytes_max)
    }
}

/// The lines of a store that nobody has opened, as of this time.
fn lines_of(dir: &Path, at_ms: i64) -> Vec<String> {
    let store = Store::at(dir);
    let payloads = Payloads::found_in(store.payloads());
    let mut out = Vec::new();
    store
        .look(|header, journal| {
            let last = find_head(journal, header.store)?.last;
            let entries = &mut InJournal(journal);
            export_moment(entries, &last, at_ms, &payloads, &mut out).map(drop)
        })
        .unwrap();
    split(&out)
}

fn split(out: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(out).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

fn exported(engine: &Engine) -> Vec<String> {
    let mut out = Vec::new();
    let report = engine.export(&mut out).unwrap();
    assert_eq!(report.bytes, out.len() as u64);
    split(&out)
}

fn joined(lines: &[String]) -> Vec<u8> {
    let mut text = lines.join("\n");
    text.push('\n');
    text.into_bytes()
}

#[test]
fn an_export_of_an_import_is_the_same_export() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (engine, claim) = one_of_everything(&at("store"));
    let lines = exported(&engine);
    let states = [
        "scheduled",
        "ready",
        "running",
        "completed",
        "cancelled",
        "dead",
    ];
    for state in states {
        let state = format!("\"state\":\"{state}\"");
        assert!(lines.iter().any(|line| line.contains(&state)), "{state}");
    }
    let report = import(at("one"), &*joined(&lines)).unwrap();
    assert_eq!((report.queues, report.keys), (2, 2));
    assert_eq!(report.jobs + 2 + 2 + 3, lines.len() as u64);
    assert_eq!(report.payload_files, 3);
    assert!(report.bytes > 100_000);
    let again = lines_of(&at("one"), NOW_MS);
    assert_ne!(again[0], lines[0], "a store of its own");
    for (before, after) in lines.iter().zip(&again).skip(1) {
        assert!(before == after, "{before:.300}\n{after:.300}");
    }
    assert_eq!(again.len(), lines.len());
    import(at("two"), &*joined(&again)).unwrap();
    assert!(lines_of(&at("two"), NOW_MS)[1..] == lines[1..]);
    // It goes on: records that were carried have news behind them.
    let clock = ManualClock::at(LATER_MS);
    let builder = Engine::builder(at("two")).clock(clock).handle(handle);
    let later = builder.open().unwrap();
    later.queue("paused").resume().unwrap();
    let ended = lines
        .iter()
        .filter(|line| line.contains("finished_at_ms"))
        .count() as u64;
    // One fails for the last time, one has a file for its payload.
    assert!(later.wait_until_finished(ended + 2, MINUTE).unwrap());
    let on = exported(&later);
    assert!(
        on.iter().any(|line| line.contains("attempt 2")),
        "{on:.300?}"
    );
    import(at("three"), &*joined(&on)).unwrap();
    let third = lines_of(&at("three"), LATER_MS);
    for (before, after) in on.iter().zip(&third).skip(1) {
        assert!(before == after, "{before:.300}\n{after:.300}");
    }
    assert_eq!(third.len(), on.len());
    assert!(claim.complete(&()).unwrap());
    engine.shutdown(MINUTE).unwrap();
}

/// Bytes that are one line of JSON are in the line as they are; all others keep their bytes, too.
#[test]
fn payloads_keep_their_very_bytes() {
    let dir = TempDir::new().unwrap();
    let (engine, _claim) = one_of_everything(&dir.path().join("store"));
    let lines = exported(&engine);
    for embedded in [
        r#""payload":null,"#.trim_end_matches(','),
        r#""payload":"text""#,
        r#""payload":{"b":1,"a":[1e400,"\ud800",{"b":2,"b":3}]}"#,
        "\"payload\":{ \"odd\" :\t1 }",
        r#""output":[null,{"done":true}]"#,
        r#""payload":{"large":"xxx"#,
    ] {
        assert!(
            lines.iter().any(|line| line.contains(embedded)),
            "{embedded}"
        );
    }
    let copy = dir.path().join("copy");
    import(&copy, &*joined(&lines)).unwrap();
    let imported = Engine::builder(&copy).open().unwrap();
    let mut texts = Vec::new();
    imported.queue("paused").resume().unwrap();
    while let Some(claim) = imported
        .claim::<AsWritten>("paused", Duration::ZERO)
        .unwrap()
    {
        texts.push(claim.job().unwrap().0.get().to_owned());
        claim.complete(&Value::Null).unwrap();
    }
    assert_eq!(texts.len(), 7);
    assert_eq!(texts[4], "{\n  \"lines\": 2\n}");
    assert_eq!(texts[5], "[1,\r2]");
    assert!(texts[6].len() > 50_000);
}
