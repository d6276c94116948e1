//! Ending in good order: some jobs finish, the others are given back and run when the store is opened again.
//!
//! `cargo run --example shutdown`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use jobsled::{Context, Engine, Finished, JobResult, Pool, State, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Upload {
    chunks: u32,
}
job!(Upload, kind = "upload", output = u32);

/// Opens the store; the receiver hears of every attempt that begins.
fn open(dir: &Path) -> jobsled::Result<(Engine, Receiver<u32>)> {
    let (begun, begins) = mpsc::channel();
    let engine = Engine::builder(dir)
        .pool(Pool::threads("default", 2))
        .handle(move |job: Upload, cx: &Context| -> JobResult<u32> {
            begun.send(job.chunks)?;
            for _ in 0..job.chunks {
                // Returns early when the engine shuts down. With `?` the job is given back: no attempt is
                // used up, nothing is counted as a failure.
                cx.pause(Duration::from_millis(10))?;
            }
            Ok(cx.attempt().number)
        })
        .open()?;
    Ok((engine, begins))
}

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-shutdown-{}", std::process::id()));

    let (engine, begins) = open(&dir)?;
    let short = engine.enqueue(Upload { chunks: 3 })?;
    let long = engine.enqueue(Upload { chunks: 30 })?;
    let waiting = engine.job(Upload { chunks: 1 }).priority(-1).enqueue()?;
    let (short, long, waiting) = (short.id(), long.id(), waiting.handle().id());
    begins.recv().expect("one has begun");
    begins.recv().expect("both have begun");

    // Drain claims no more jobs and takes no new ones; what runs may go on. Then shutdown asks the rest to
    // stop, and gives it up to a second to do so.
    let drained = engine.drain(Duration::from_millis(150))?;
    println!("after draining for a while: {drained:?}");
    assert!(engine.enqueue(Upload { chunks: 1 }).is_err());
    let report = engine.shutdown(Duration::from_secs(1))?;
    // Only handlers that do not listen are given back by force.
    assert_eq!(report.given_back, 0);
    drop(engine);

    // Another run of the program. It knows the jobs by their ids; a `key` of its own would do as well.
    let (engine, _begins) = open(&dir)?;
    let state = |id| engine.handle::<Upload>(id)?.expect("it is kept").state();
    assert_eq!(state(short)?, Some(State::Completed));
    let ended = |id| engine.handle::<Upload>(id)?.expect("it is kept").wait();
    assert_eq!(ended(short)?, Finished::Completed(1));
    assert_eq!(ended(waiting)?, Finished::Completed(1));
    // The long one began a second time. That is what at least once means.
    assert_eq!(ended(long)?, Finished::Completed(2));
    assert_eq!(engine.details(long)?.expect("it is kept").info.failures, 0);
    println!("reopened: all three are complete, the long one in its second attempt");

    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
