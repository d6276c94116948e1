//! When a handler fails: retries with backoff, dead jobs, and how they come back or go.
//!
//! `cargo run --example retries`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jobsled::{
    Backoff, Changed, Context, DeadReason, Engine, Finished, JobDefaults, JobResult, State, Stop,
    job, rkyv,
};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Fetch {
    host: String,
}
// Three failed attempts are enough, 20 ms and 40 ms apart. Without `defaults`: ten attempts, from 1 s to 1 h.
job!(
    Fetch,
    kind = "fetch",
    output = u32,
    defaults = JobDefaults::new()
        .attempts(3)
        .backoff(Backoff::exponential(Duration::from_millis(20)).jitter_percent(0))
);

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-retries-{}", std::process::id()));
    let cable = Arc::new(AtomicBool::new(false));
    let plugged_in = cable.clone();
    let engine = Engine::builder(&dir)
        .handle(move |job: Fetch, cx: &Context| -> JobResult<u32> {
            match job.host.as_str() {
                // Any error with `?` or `.into()` fails the attempt. The job is tried again.
                "flaky" if cx.attempt().number < 3 => Err("connection reset".into()),
                "remote" if !plugged_in.load(Ordering::Relaxed) => Err("no route to host".into()),
                // This will never work, so it is not tried again.
                "" => Err(Stop::discard("a host needs a name")),
                // A panic is a failed attempt like any other.
                "bomb" => panic!("boom"),
                _ => Ok(cx.attempt().number),
            }
        })
        .open()?;
    let fetch = |host: &str| {
        engine.enqueue(Fetch {
            host: host.to_owned(),
        })
    };

    // Two failures, then it works.
    let flaky = fetch("flaky")?;
    assert_eq!(flaky.wait()?, Finished::Completed(3));
    println!("flaky: completed in attempt 3");

    // Three failures: the job is dead. It is kept, with its errors.
    let remote = fetch("remote")?;
    let Finished::Dead(end) = remote.wait()? else {
        panic!("it cannot work yet")
    };
    assert_eq!(end.reason, DeadReason::AttemptsUsedUp);
    for error in &end.errors {
        println!("remote: attempt {}: {}", error.attempt, error.error);
    }
    assert_eq!(end.errors.len(), 3);

    // What was wrong is mended, and the dead job comes back with three fresh attempts.
    cable.store(true, Ordering::Relaxed);
    assert_eq!(engine.change(remote.id()).retry()?, Changed::Done);
    assert_eq!(remote.wait()?, Finished::Completed(4));
    println!("remote: completed in attempt 4");

    // Dead at once, with the handler's words; and dead by panic.
    let Finished::Dead(end) = fetch("")?.wait()? else {
        panic!("discarded")
    };
    assert_eq!(
        (end.reason, end.words.as_str()),
        (DeadReason::Discarded, "a host needs a name")
    );
    let Finished::Dead(end) = fetch("bomb")?.wait()? else {
        panic!("it always panics")
    };
    assert!(
        end.errors
            .iter()
            .all(|error| error.error == "panicked: boom")
    );

    // Look at the dead, then let them go.
    for job in engine.jobs().state(State::Dead).list()? {
        println!(
            "dead: job {} after {} failures, {:?}",
            job.id, job.failures, job.dead_reason
        );
    }
    let purged = engine.prune().state(State::Dead).run()?;
    assert_eq!(purged.deleted, 2);
    assert_eq!(engine.stats()?.count(State::Dead), 0);

    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
