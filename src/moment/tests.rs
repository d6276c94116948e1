//! Export and import without an engine in between: the lines of an imported store, before anybody opens it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::export::export_moment;
use super::held::Entries;
use super::import;
use crate::engine::read_slice;
use crate::error::{Error, Result};
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

/// One line changed in one way: the refusal names it, and nothing is left.
#[test]
fn a_changed_line_is_named_and_nothing_is_left() {
    let dir = TempDir::new().unwrap();
    let (engine, _claim) = one_of_everything(&dir.path().join("store"));
    let lines = exported(&engine);
    let changes = Changes { lines, dir };
    changes.check();
}

const JOB: &str = "\"type\":\"job\"";
const DEAD: &str = "\"state\":\"dead\"";
const RUNS: &str = "\"state\":\"running\"";

struct Changes {
    lines: Vec<String>,
    dir: TempDir,
}

impl Changes {
    /// The first line that holds a text, counting from 1.
    fn find(&self, part: &str) -> usize {
        let found = self.lines.iter().position(|line| line.contains(part));
        1 + found.unwrap_or_else(|| panic!("no line with {part}"))
    }

    #[track_caller]
    fn refused(&self, lines: &[String], number: usize, words: &str) {
        self.refused_bytes(&joined(lines), number, words);
    }

    #[track_caller]
    fn refused_bytes(&self, input: &[u8], number: usize, words: &str) {
        let to = self.dir.path().join("to");
        let refused = import(&to, input).expect_err(words);
        let Error::Import { line, reason } = &refused else {
            panic!("{words}: {refused}");
        };
        let named = *line == number as u64 && reason.contains(words);
        assert!(named, "line {number}, {words}: {refused:.400}");
        assert_eq!(
            std::fs::read_dir(self.dir.path()).unwrap().count(),
            1,
            "left"
        );
    }

    /// In the first line that holds `at`, `from` becomes `to`.
    #[track_caller]
    fn edit(&self, at: &str, from: &str, to: &str, words: &str) {
        let number = self.find(at);
        let mut lines = self.lines.clone();
        let line = &mut lines[number - 1];
        assert!(line.contains(from), "{from} is not in {line:.300}");
        *line = line.replacen(from, to, 1);
        self.refused(&lines, number, words);
    }

    /// The same, noticed at the end only.
    #[track_caller]
    fn digest(&self, at: &str, from: &str, to: &str) {
        let mut lines = self.lines.clone();
        let line = &mut lines[self.find(at) - 1];
        assert!(line.contains(from), "{from} is not in {line:.300}");
        *line = line.replacen(from, to, 1);
        self.refused(&lines, lines.len(), "digest");
    }

    fn check(&self) {
        self.order();
        self.fields();
        self.values();
        self.lease();
        self.altered();
        self.content();
        self.garbage();
    }

    fn order(&self) {
        let all = self.lines.len();
        let first_job = self.find("\"type\":\"job\"");
        let without = |number: usize| {
            let mut lines = self.lines.clone();
            lines.remove(number - 1);
            lines
        };
        let swapped = |a: usize, b: usize| {
            let mut lines = self.lines.clone();
            lines.swap(a - 1, b - 1);
            lines
        };
        self.refused(&without(1), 1, "`root` where `export` should be");
        self.refused(&without(2), 2, "`queue` cannot follow a line `export`");
        self.refused(&without(all), all, "no line `end`");
        self.refused(&without(first_job), all - 1, "there should be");
        self.refused(&without(3), all - 1, "there should be 2 queues, and are 1");
        self.refused(&swapped(3, 4), 4, "the order of their names");
        self.refused(&swapped(5, 6), 6, "the order of kind and key");
        self.refused(
            &swapped(first_job, first_job + 1),
            first_job + 1,
            "ids must rise",
        );
        self.refused(
            &swapped(3, first_job),
            4,
            "`queue` cannot follow a line `job`",
        );
        for number in 1..=all {
            let mut lines = self.lines.clone();
            lines.insert(number, lines[number - 1].clone());
            let words = match number {
                1 | 2 => "cannot follow",
                3 | 4 => "queues must come",
                5 | 6 => "keys must come",
                _ if number == all => "follows the line `end`",
                _ => "ids must rise",
            };
            self.refused(&lines, number + 1, words);
        }
    }

    fn fields(&self) {
        let job = "\"type\":\"job\"";
        self.edit(job, job, "\"type\":\"dog\"", "unknown variant `dog`");
        self.edit(job, "\"kind\":", "\"kinds\":", "unknown field `kinds`");
        self.edit(job, "\"priority\":0,", "", "missing field `priority`");
        self.edit(
            job,
            "\"priority\":0",
            "\"priority\":0,\"priority\":0",
            "duplicate field",
        );
        self.edit(
            job,
            "\"priority\":0",
            "\"priority\":\"high\"",
            "invalid type",
        );
        self.edit(
            "\"format\":1",
            "\"format\":1",
            "\"format\":2,\"new\":[]",
            "update this",
        );
        self.edit(
            "\"format\":1",
            "\"format\":1",
            "\"new\":[]",
            "missing field `format`",
        );
        self.edit(
            "\"counters\"",
            "\"enqueued\"",
            "\"enqueues\"",
            "unknown field",
        );
        self.edit(
            "\"digest\":\"",
            "\"digest\":\"",
            "\"digest\":\"X",
            "32 lower-case",
        );
        self.edit(
            "\"boot\":\"",
            "\"boot\":\"",
            "\"boot\":\"+",
            "32 lower-case",
        );
    }

    fn values(&self) {
        let (job, dead) = (JOB, DEAD);
        self.edit(
            job,
            "\"kind\":\"word\"",
            "\"kind\":\"Word\"",
            "1 to 64 of the characters",
        );
        self.edit(job, "\"id\":1,", "\"id\":0,", "ids are at least 1");
        self.edit(job, "\"id\":1,", "\"id\":1000000,", "below the next one");
        self.edit(dead, dead, "\"state\":\"undead\"", "none of `scheduled`");
        self.edit(dead, dead, "\"state\":\"blocked\"", "no job is blocked");
        self.edit(dead, dead, "\"state\":\"cancelled\"", "no `dead_reason`");
        self.edit(
            dead,
            "\"dead_reason\":\"discarded\"",
            "\"dead_reason\":\"old\"",
            "`discarded`",
        );
        self.edit(
            dead,
            ",\"dead_reason\":\"discarded\"",
            "",
            "has a `dead_reason`",
        );
        self.edit(
            dead,
            "\"finished_at_ms\":1",
            "\"finished_at_ms\":2",
            "`finished_at_ms`",
        );
        self.edit(dead, "\"key\":\"dead\",", "", "go together");
        self.edit(
            dead,
            "\"key\":\"dead\"",
            "\"key\":\"held\"",
            "belongs to job",
        );
        self.edit(
            dead,
            "\"attempts_max\":2",
            "\"attempts_max\":0",
            "at least 1",
        );
        self.edit(dead, "\"linear\"", "\"exponential\"", "`backoff_factor`");
        self.edit(
            "\"next_id\":",
            "\"next_id\":",
            "\"next_id\":49999999999999999",
            "out of range",
        );
        self.edit(
            "\"type\":\"queue\"",
            "\"paused\":false",
            "\"paused\":0",
            "invalid type",
        );
        let long = format!("\"error\":\"{}", "e".repeat(1_001));
        self.edit(
            "\"error\":\"",
            "\"error\":\"",
            &long,
            "more than 1000 bytes",
        );
    }

    fn lease(&self) {
        let runs = RUNS;
        self.edit(
            runs,
            runs,
            "\"state\":\"ready\"",
            "if and only if it is running",
        );
        self.edit(runs, "\"claim\":", "\"claim\":9", "that never was");
        self.edit(runs, "\"epoch\":1", "\"epoch\":2", "that never was");
        self.edit(
            runs,
            runs,
            "\"state\":\"completed\",\"finished_at_ms\":1",
            "`finished_at_ms`",
        );
    }

    /// What fits by itself and is not what was exported.
    fn altered(&self) {
        let (job, dead, runs) = (JOB, DEAD, RUNS);
        self.digest(job, "\"priority\":0", "\"priority\":1");
        self.digest(dead, "as its name", "as his name");
        self.digest(runs, "\"alone\":false", "\"alone\":true");
        self.digest("\"type\":\"key\"", "\"until_ms\":1", "\"until_ms\":2");
        self.digest("\"counters\"", "\"snoozed\":0", "\"snoozed\":1");
        self.digest(
            "\"type\":\"queue\"",
            "\"concurrency\":",
            "\"concurrency\":1",
        );
        self.digest("\"text\"", "\"text\"", "\"test\"");
    }

    fn content(&self) {
        let (text, base64) = ("\"payload\":\"text\"", "\"payload_base64\":\"");
        self.edit(
            text,
            &format!(",{text}"),
            "",
            "if and only if it is not completed",
        );
        self.edit(
            text,
            text,
            &format!("{text},{base64}AA==\""),
            "both `payload`",
        );
        self.edit(base64, base64, "\"payload_base64\":\"!", "not base64");
        let large = format!("\"payload\":\"{}\"", "x".repeat(30_000));
        self.edit(text, text, &large, "needs a `payload_file`");
        let file = "\"payload\":{\"large\":\"xxx";
        self.edit(file, "\"xxx", "\"yxx", "the hash of its file");
        self.edit(file, "\"xxx", "\"xxxx", "its file has");
        let lines = &self.lines;
        let name = |line: &str| line.split("\"name\":\"").nth(1).unwrap()[..32].to_owned();
        let files: Vec<usize> = (0..lines.len())
            .filter(|at| lines[*at].contains("\"payload_file\""))
            .collect();
        let mut lines = lines.clone();
        lines[files[1]] = lines[files[1]].replace(&name(&lines[files[1]]), &name(&lines[files[0]]));
        self.refused(&lines, files[1] + 1, "belongs to another job");
    }

    fn garbage(&self) {
        let whole = joined(&self.lines);
        // Cut anywhere: in a line, between two lines, but for the last line's end.
        let step = whole.len() / 97;
        let few = (0..whole.len() - 1).step_by(step);
        for at in few.chain([1, whole.len() - 3, whole.len() - 2]) {
            let cut = &whole[..at];
            let complete = cut.split(|byte| *byte == b'\n').count() - 1;
            let words = if at == 0 {
                "empty"
            } else if cut.ends_with(b"\n") {
                "no line `end`"
            } else {
                "cut short"
            };
            self.refused_bytes(cut, complete + 1, words);
        }
        for (input, words) in [
            (&b"\0\0\0\0"[..], "`{`"),
            (b"\n", "`{`"),
            (b"[]\n", "`{`"),
            (b"{}\n", "missing field `type`"),
            (b"{\"type\":7}\n", "not the JSON expected"),
            (b"{\"type\":\"export\"\xff}\n", "not the JSON expected"),
            (b"{{{{\n", "not the JSON expected"),
            (
                b"{\"type\":\"export\"} {\"a\":1}\n",
                "not the JSON expected",
            ),
        ] {
            self.refused_bytes(input, 1, words);
        }
        let deep = format!("{{\"type\":\"export\",\"x\":{}\n", "[".repeat(100_000));
        self.refused_bytes(deep.as_bytes(), 1, "");
        import(self.dir.path().join("to"), &whole[..whole.len() - 1]).unwrap();
    }
}
