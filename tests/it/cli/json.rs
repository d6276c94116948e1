use serde_json::{Value, json};

use super::Cli;

/// Times and process ids are different in every run: what counts is that they are there, and numbers.
fn settled(mut value: Value) -> Value {
    fn settle(name: &str, value: &mut Value) {
        let varies = name.ends_with("_ms") || matches!(name, "pid" | "max_rss_bytes");
        match value {
            Value::Number(_) if varies => *value = json!("number"),
            Value::Object(fields) => fields
                .iter_mut()
                .for_each(|(name, value)| settle(name, value)),
            Value::Array(values) => values.iter_mut().for_each(|value| settle(name, value)),
            _ => {}
        }
    }
    settle("", &mut value);
    value
}

/// Programs read this: a change of it is a change of the interface, and belongs into docs/cli.md and the changelog.
#[test]
fn json_is_as_it_was() {
    let cli = Cli::new();
    let mut said = Vec::new();
    let mut say = |words: &str| {
        let ran = cli.run(words);
        said.push(json!({ "$": words, "exit": ran.code() }));
        said.extend(ran.json().into_iter().map(settled));
    };
    say("--json add --key k --priority 2 -- sh -c true");
    say("--json add --key k -- true");
    say("--json add --attempts 2 --queue q --in 1h -- false");
    say("--json ls");
    say("--json work --drain");
    say("--json ls --state completed");
    say("--json show 1 9");
    say("--json log 1");
    say("--json wait 1");
    say("--json set 2 --priority 7");
    say("--json retry 1 2");
    say("--json work --drain");
    say("--json cancel 2 9");
    say("--json rm 2");
    say("--json pause q");
    say("--json queue q --concurrency 3");
    say("--json resume q");
    say("--json prune");
    let said: Vec<String> = said.iter().map(ToString::to_string).collect();
    let said = said.join("\n") + "\n";
    let dir = std::fs::canonicalize(cli.dir.path()).unwrap();
    let said = said.replace(&dir.display().to_string(), "DIR");
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/json.txt");
    if std::env::var_os("JOBSLED_WRITE_SNAPSHOT").is_some() {
        std::fs::write(&file, &said).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap();
    assert_eq!(said, known, "JOBSLED_WRITE_SNAPSHOT=1 writes it anew");
}

/// One object a line, each with an id where it is about a job.
#[test]
fn stats_are_one_object() {
    let cli = Cli::new();
    cli.add("", "true");
    cli.drain();
    let ran = cli.run("stats --json");
    let [stats] = &ran.json()[..] else {
        panic!("{ran:?}")
    };
    assert_eq!(stats["stats"]["counters"]["completed"], 1);
    assert_eq!(stats["stats"]["queues"][0]["jobs"]["completed"], 1);
    assert_eq!(stats["health"]["well"], true);
    assert_eq!(stats["pid"], Value::Null);
}
