//! Jobs on threads of your own: claim one, work on it, settle it.
//!
//! `cargo run --example own_threads`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::time::Duration;

use jobsled::{Engine, Finished, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Square {
    number: u64,
}
job!(Square, kind = "square", output = u64);

/// The loop of one worker: ends when no job comes for a while.
fn work(engine: &Engine) -> jobsled::Result<u64> {
    let mut done = 0;
    // Waits for a job without polling. When it has one, the claim is on stable storage.
    while let Some(claim) = engine.claim::<Square>("default", Duration::from_millis(200))? {
        let job = claim.job()?;
        // A long piece of work calls `claim.heartbeat()` now and then: without it the lease ends after
        // the lock timeout (10 minutes), and the job runs elsewhere. False means: stop, it is yours no more.
        if !claim.heartbeat() {
            continue;
        }
        // Pass this number to outside systems that shall refuse a late writer.
        let _fence = claim.number();
        if job.number == 13 {
            claim.stop("13 is out of the question")?; // a failed attempt, as in a handler
            continue;
        }
        // False: somebody else completed or took the job meanwhile, and nothing was changed.
        if claim.complete(&(job.number * job.number))? {
            done += 1;
        }
    }
    Ok(done)
}

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-own-threads-{}", std::process::id()));
    // No handler, so the engine starts no worker threads.
    let engine = Engine::builder(&dir).open()?;
    let nine = engine.enqueue(Square { number: 9 })?;
    let mut batch = engine.batch();
    batch.extend((100..120).map(|number| Square { number }));
    batch.enqueue()?;
    let unlucky = engine.job(Square { number: 13 }).attempts(1).enqueue()?;

    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&engine))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"))
            .sum::<Result<u64, _>>()
    })?;
    println!("{done} squares, by four threads of the program's own");
    assert_eq!(done, 21);
    assert_eq!(nine.wait()?, Finished::Completed(81));
    assert!(matches!(unlucky.handle().wait()?, Finished::Dead(_)));

    // A claim that is dropped gives the job back, and no attempt is used up.
    let again = engine.enqueue(Square { number: 2 })?;
    drop(
        engine
            .claim::<Square>("default", Duration::ZERO)?
            .expect("it is ready"),
    );
    let claim = engine
        .claim::<Square>("default", Duration::from_secs(1))?
        .expect("it is back");
    assert_eq!((claim.id(), claim.attempt()), (again.id(), 2));
    assert!(claim.complete(&4)?);

    engine.shutdown(Duration::ZERO)?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
