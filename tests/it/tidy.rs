use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A function fits a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// rustfmt breaks code at 100; this is for what it leaves alone.
const LINE_CHARS_MAX: usize = 120;

/// Functions that are longer, each with its reason. One that is not needed any more fails the test, too.
const LONG_FUNCTIONS: [(&str, &str); 9] = [
    ("src/lab/words.rs to_command", "a flat match over all calls"),
    (
        "src/control/answer.rs answer",
        "a flat match over all calls",
    ),
    (
        "src/journal/frame/write.rs write",
        "a flat match over all events",
    ),
    (
        "src/journal/frame/read.rs read_v1",
        "a flat match over all tags",
    ),
    ("src/ledger/apply.rs apply", "a flat match over all events"),
    (
        "src/ledger/settle.rs settle",
        "a flat match over all outcomes",
    ),
    (
        "src/ledger/apply.rs begin",
        "a record of 17 fields, filled once",
    ),
    (
        "src/builder/start.rs start",
        "joins all layers, in one order",
    ),
    (
        "examples/retries.rs main",
        "a tutorial, read from top to bottom",
    ),
];

/// Files with lines that are longer, how many, and why.
const LONG_LINES: [(&str, usize, &str); 6] = [
    ("src/error.rs", 4, "texts of errors, whole"),
    ("src/journal/store.rs", 1, "a file's layout, whole"),
    ("src/worker/attempt.rs", 1, "a link in a doc comment"),
    ("src/worker/handler.rs", 2, "texts of errors, whole"),
    (
        "src/bin/jobsled/args.rs",
        1,
        "an attribute that rustfmt leaves alone",
    ),
    ("tests/powercut/table.rs", 1, "the head of a table, whole"),
];

#[test]
fn functions_fit_a_screen() {
    let mut long = BTreeMap::new();
    for file in rust_files() {
        for (name, lines) in functions(&file.text) {
            if lines > FUNCTION_LINES_MAX {
                long.insert(format!("{} {name}", file.path), lines);
            }
        }
    }
    for (known, _why) in LONG_FUNCTIONS {
        assert!(
            long.remove(known).is_some(),
            "{known} is short now: take it off the list"
        );
    }
    assert!(
        long.is_empty(),
        "longer than {FUNCTION_LINES_MAX} lines: {long:#?}"
    );
}

#[test]
fn lines_fit_a_screen() {
    let mut long: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for file in rust_files() {
        for (number, line) in (1..).zip(file.text.lines()) {
            if line.chars().count() > LINE_CHARS_MAX {
                long.entry(file.path.clone()).or_default().push(number);
            }
        }
    }
    for (path, count, _why) in LONG_LINES {
        let found = long.remove(path).unwrap_or_default();
        assert_eq!(
            found.len(),
            count,
            "{path}: set the list right; long are {found:?}"
        );
    }
    assert!(
        long.is_empty(),
        "longer than {LINE_CHARS_MAX} characters: {long:#?}"
    );
}

/// No test waits for time to pass or is left out, and nothing is left to be done later.
#[test]
fn nothing_sleeps_is_ignored_or_left_undone() {
    // In two parts each, so that this file does not find itself.
    let banned = [
        ["sle", "ep("],
        ["#[ign", "ore"],
        ["to", "do!"],
        ["unimple", "mented!"],
        ["db", "g!("],
    ];
    let banned = banned.map(|parts| parts.concat());
    let mut found = Vec::new();
    for file in rust_files() {
        let code = (1..).zip(file.text.lines());
        for (number, line) in code.filter(|(_, line)| !line.trim_start().starts_with("//")) {
            if banned.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// A folder says in front what it owns and what it must not know.
#[test]
fn each_folder_of_the_source_has_a_front() {
    let files = rust_files();
    let folder = |path: &str| path.rsplit_once('/').map(|(dir, _)| dir.to_owned());
    let in_src = files.iter().filter(|file| file.path.starts_with("src/"));
    for dir in in_src.filter_map(|file| folder(&file.path)) {
        // A crate's front is its root; everywhere else it is mod.rs.
        let name = match dir.as_str() {
            "src" => "lib.rs",
            "src/bin/jobsled" => "main.rs",
            _ => "mod.rs",
        };
        let front = files
            .iter()
            .find(|file| file.path == format!("{dir}/{name}"));
        let says = front.is_some_and(|file| file.text.starts_with("//! "));
        assert!(
            says,
            "{dir}/{name} is missing, or does not begin with `//!`"
        );
    }
}

/// All features are listed, what is done has a proof, and each test that is named as one is there.
#[test]
fn the_tests_that_features_claim_exist() {
    let features = read("docs/features.md");
    let rows: Vec<Vec<&str>> = features
        .lines()
        .filter(|line| line.starts_with("| F") || line.starts_with("| G"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let f = (1..=49).map(|n| format!("F{n}"));
    let g = (1..=20).map(|n| format!("G{n}"));
    let names: Vec<&str> = rows.iter().map(|row| row[1]).collect();
    assert_eq!(names, f.chain(g).collect::<Vec<_>>());
    let files = rust_files();
    let mut wrong = Vec::new();
    for row in rows {
        let [_, name, _, state, _, proof, _] = row[..] else {
            panic!("another number of columns than expected: {row:?}");
        };
        if state.starts_with("done") && proof.is_empty() {
            wrong.push(format!("{name} is done and has no proof"));
        }
        wrong.extend(missing(name, proof, &files));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each invariant names the code that keeps it, where a comment names the invariant, and the tests that would
/// notice; and all of them are there.
#[test]
fn the_code_and_tests_that_invariants_name_exist() {
    let invariants = read("docs/invariants.md");
    let files = rust_files();
    let mut marks = marks(&files);
    let (mut count, mut wrong) = (0, Vec::new());
    for section in invariants.split("\n**").skip(1) {
        let name = section.split('.').next().unwrap_or_default();
        let kept = section.split("\n- Kept:").nth(1);
        let (kept, test) = kept
            .and_then(|kept| kept.split_once("\n- Test:"))
            .unwrap_or_else(|| panic!("{name} does not say where it is kept and tested"));
        let paths = quoted(kept).filter(|word| is_rust(word));
        let paths: Vec<String> = paths.map(|path| format!("src/{path}")).collect();
        for path in &paths {
            if !files.iter().any(|file| file.path == *path) {
                wrong.push(format!("{name} is kept in {path}: it is not there"));
            }
        }
        let marked = marks.remove(name).unwrap_or_default();
        if marked.is_empty() {
            wrong.push(format!("no comment in src says `{name}:`"));
        }
        for path in marked.iter().filter(|path| !paths.contains(path)) {
            wrong.push(format!(
                "{path} says `{name}:`, and is not where it is kept"
            ));
        }
        // The section's last lines are those of the next heading.
        let test = test.split("\n\n").next().unwrap_or_default();
        wrong.extend(missing(name, test, &files));
        count += 1;
    }
    assert_eq!(count, 43, "invariants I1 to E11");
    assert!(marks.is_empty(), "no such invariants: {marks:#?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The invariants that comments of the source name, and in which files. Those of tests do not count.
fn marks(files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let is_test =
        |file: &File| file.path.contains("/tests/") || file.path.starts_with("src/threads/");
    let in_src = |file: &&File| file.path.starts_with("src/") && !is_test(file);
    for file in files.iter().filter(in_src) {
        let code = file.text.split("mod tests {").next();
        let lines = code.into_iter().flat_map(str::lines).map(str::trim_start);
        for name in lines.filter(|line| line.starts_with("//")).flat_map(marked) {
            found
                .entry(name.to_owned())
                .or_default()
                .insert(file.path.clone());
        }
    }
    found
}

/// The invariants that a line names as a mark does: one, or several with commas, and then a colon.
fn marked(line: &str) -> Vec<&str> {
    let (mut named, mut found) = (Vec::new(), Vec::new());
    for word in line.split_whitespace() {
        let name = word.trim_end_matches([',', ':']);
        let is_name = name
            .strip_prefix(['I', 'J', 'L', 'E'])
            .is_some_and(|n| n.parse::<u8>().is_ok());
        if is_name && name != word {
            named.push(name);
        } else {
            named.clear();
        }
        if word.ends_with(':') {
            found.append(&mut named);
        }
    }
    found
}

#[test]
fn marks_are_read_as_they_are_written() {
    assert_eq!(marked("// I1: why"), ["I1"]);
    assert_eq!(marked("/// What it does. L2, J10: why"), ["L2", "J10"]);
    assert!(marked("// As I1 says, I2 and E3, which is so: H4: K5:").is_empty());
}

/// The tests that a text names and that are not in the file named in front of them: ledger `a`, `b`; it/api `c`.
fn missing(whose: &str, text: &str, files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut place = String::new();
    for word in text.split_whitespace() {
        let Some(quoted) = word.strip_prefix('`') else {
            word.trim_matches(|c: char| ",;:.()".contains(c))
                .clone_into(&mut place);
            continue;
        };
        let name = quoted.split('`').next().unwrap_or_default();
        let is_path = is_rust(name);
        let is_name = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
        if !is_path && !is_name {
            continue;
        }
        let there = files.iter().any(|file| match place.as_str() {
            _ if is_path => file.path == name,
            "example" | "examples" => file.path == format!("examples/{name}.rs"),
            _ => is_at(&file.path, &place) && file.text.contains(&format!("fn {name}(")),
        });
        if !there {
            wrong.push(format!(
                "{whose} names `{name}` in {place}: it is not there"
            ));
        }
    }
    wrong
}

/// Whether a file is what the documents call by such a name.
fn is_at(path: &str, place: &str) -> bool {
    match place {
        "ledger" | "engine" | "moment" => path.starts_with(&format!("src/{place}/tests/")),

        "threads" => path.starts_with("src/threads/"),
        "crash" => path == "tests/crash.rs",
        "tests/command" => path.starts_with("tests/command/"),
        _ if place.starts_with("it/") => {
            path == format!("tests/{place}.rs") || path.starts_with(&format!("tests/{place}/"))
        }
        _ => is_rust(place) && path.starts_with("src/") && path.ends_with(&format!("/{place}")),
    }
}

/// What stands in back quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Names and lengths of functions, by how rustfmt lays them out: a function ends where its indent closes.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some(name) = function_name(code) else {
            continue;
        };
        let (end, declared) = (format!("{indent}}}"), format!("{indent})"));
        let last = lines.iter().skip(at).enumerate().position(|(n, line)| {
            let one_line = n == 0 && (line.ends_with('}') || line.ends_with(';'));
            let declaration = line.starts_with(&declared) && line.ends_with(';');
            one_line || declaration || *line == end
        });
        let lines = last.unwrap_or_else(|| panic!("fn {name} has no end")) + 1;
        found.push((name.to_owned(), lines));
    }
    found
}

fn function_name(code: &str) -> Option<&str> {
    let mut rest = code;
    for word in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "unsafe ",
        "extern \"C\" ",
    ] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

#[test]
fn functions_are_found_and_measured() {
    let text = "\
trait T {
    fn declared(&self);
    fn declared_in_lines(
        &self,
    ) -> u8;
    pub(crate) const fn short() {}
}
fn long<T>(
    x: T,
) {
    if x {
    }
}
";
    let expected = [
        ("declared", 1),
        ("declared_in_lines", 3),
        ("short", 1),
        ("long", 6),
    ];
    let expected = expected.map(|(name, lines)| (name.to_owned(), lines));
    assert_eq!(functions(text), expected);
}

/// A file of the repository, its path from the top.
struct File {
    path: String,
    text: String,
}

fn rust_files() -> Vec<File> {
    let mut files = Vec::new();
    let mut dirs: Vec<PathBuf> = ["src", "tests", "benches", "examples"]
        .map(PathBuf::from)
        .into();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(top().join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                dirs.push(path);
            } else if is_rust(path.to_str().unwrap()) {
                let path = path.to_str().unwrap().replace('\\', "/");
                let text = read(&path);
                files.push(File { path, text });
            }
        }
    }
    assert!(files.len() > 50, "the repository's own files");
    files
}

fn is_rust(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|ending| ending == "rs")
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap()
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
