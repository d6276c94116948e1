//! Lines of an export that somebody changed.

use super::*;
use crate::error::Error;

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
