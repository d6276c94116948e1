//! Jobs by name and JSON value: for programs that do not share the job's type.
//!
//! `cargo run --example json --features json`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::time::Duration;

use jobsled::{Context, Engine, Finished, JobResult, Json, job, rkyv};
use serde_json::{Value, json};

/// A typed job whose stored form is rkyv, and which also understands JSON.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, serde::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Add {
    numbers: Vec<i64>,
}
job!(Add, kind = "add", output = i64);

/// A typed job that is stored as JSON.
#[derive(serde::Serialize, serde::Deserialize)]
struct Greet {
    name: String,
}
job!(Greet, kind = "greet", output = String, format = Json);

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-json-{}", std::process::id()));
    let engine = Engine::builder(&dir)
        .handle(|job: Add, _cx: &Context| -> JobResult<i64> { Ok(job.numbers.iter().sum()) })
        .accept_json::<Add>() // after its handler
        .handle(|job: Greet, _cx: &Context| -> JobResult<String> {
            Ok(format!("hello {}", job.name))
        })
        .handle_json("shout", |args: Value, _cx: &Context| -> JobResult<Value> {
            let text = args
                .get("text")
                .and_then(Value::as_str)
                .ok_or("`text` is missing")?;
            Ok(json!({ "text": text.to_uppercase() }))
        })
        .open()?;

    // A kind without a type: name and value in, value out.
    let shout = engine.json("shout", &json!({ "text": "hey" })).enqueue()?;
    assert_eq!(
        shout.handle().wait()?,
        Finished::Completed(json!({ "text": "HEY" }))
    );

    // The same kind, enqueued by type and by name. The output has the form of the payload.
    let typed = engine.enqueue(Add {
        numbers: vec![1, 2, 3],
    })?;
    assert_eq!(typed.wait()?, Finished::Completed(6));
    let named = engine
        .json("add", &json!({ "numbers": [1, 2, 3] }))
        .priority(1)
        .enqueue()?;
    assert_eq!(named.handle().wait()?, Finished::Completed(json!(6)));

    let greet = engine.json("greet", &json!({ "name": "Ada" })).enqueue()?;
    assert_eq!(
        greet.handle().wait()?,
        Finished::Completed(json!("hello Ada"))
    );

    // A value that does not fit can never be run: the job is dead, and its end says why.
    let wrong = engine
        .json("add", &json!({ "numbers": "many" }))
        .enqueue()?;
    let Finished::Dead(end) = wrong.handle().wait()? else {
        panic!("it cannot be run")
    };
    println!("{}", end.words);
    assert!(end.words.contains("does not fit"));

    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
