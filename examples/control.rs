//! A program that lets others look in, and one that does.
//!
//! `cargo run --example control --features control`, and meanwhile in another terminal
//! `jobsled --store DIR ls`, with the directory that it prints.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::time::Duration;

use jobsled::control::{Call, Door, JobView, NewJob, Placed};
use jobsled::{Context, Engine};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("jobsled-control-{}", std::process::id()));

    // The program: one line more than otherwise.
    let engine = Engine::builder(&dir)
        .control_socket(true)
        .handle_json("double", |value, _cx: &Context| {
            let number = value.as_u64().ok_or("that is no number")?;
            Ok(json!(number * 2))
        })
        .open()?;
    println!("open in {}", dir.display());

    // Another process does the same with the same words: if nobody had the store open, it would open it itself.
    let mut door = Door::open(&dir, Engine::builder)?;
    if let Some(greeting) = door.greeting() {
        println!(
            "process {} has it and runs {:?}",
            greeting.pid, greeting.runs
        );
    }
    let jobs = vec![NewJob::new("double", json!(21))];
    let placed: Vec<Placed> = door.call(&Call::Enqueue { jobs })?;
    for Placed { id, .. } in placed {
        let within_ms = 10_000;
        let ended: bool = door.call(&Call::Wait { id, within_ms })?;
        let job: Option<JobView> = door.call(&Call::Job { id })?;
        let job = job.ok_or("it was stored a moment ago")?;
        println!("job {id}: {}, output {:?}", job.state, job.output);
        assert!(ended && job.output == Some(json!(42)));
    }

    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
