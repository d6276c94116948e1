//! Who runs first: priorities, and jobs that wait for their time.
//!
//! `cargo run --example priorities`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use jobsled::{Context, Engine, JobResult, Pool, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Say {
    what: String,
}
job!(Say, kind = "say");

fn say(what: &str) -> Say {
    Say {
        what: what.to_owned(),
    }
}

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-priorities-{}", std::process::id()));
    let (said, heard) = mpsc::channel();
    let engine = Engine::builder(&dir)
        .pool(Pool::threads("default", 1)) // one at a time, so that the order can be seen
        .handle(move |job: Say, _cx: &Context| -> JobResult<()> {
            said.send(job.what)?;
            Ok(())
        })
        .open()?;

    // While a queue is paused nothing of it starts. Here: until all jobs are in.
    let queue = engine.queue("default");
    queue.pause()?;

    // Higher numbers run first; 0 is the default; equals run in the order in which they came.
    engine.enqueue(say("third"))?;
    engine.enqueue(say("fourth"))?;
    engine.job(say("first")).priority(10).enqueue()?;
    engine
        .job(say("last of those that may run"))
        .priority(-5)
        .enqueue()?;
    engine.job(say("second")).priority(1).enqueue()?;

    // Not before a time: as a span, or by the wall clock. Until then even the highest priority waits.
    engine
        .job(say("later"))
        .priority(100)
        .after(Duration::from_millis(300))
        .enqueue()?;
    engine
        .job(say("latest"))
        .priority(100)
        .at(now() + Duration::from_millis(600))
        .enqueue()?;

    queue.resume()?;
    let mut order = Vec::new();
    for _ in 0..7 {
        let what = heard
            .recv_timeout(Duration::from_secs(10))
            .expect("every job runs");
        println!("{what}");
        order.push(what);
    }
    let expected = [
        "first",
        "second",
        "third",
        "fourth",
        "last of those that may run",
        "later",
        "latest",
    ];
    assert_eq!(order, expected);

    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the engine's own code asks its clock instead"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
