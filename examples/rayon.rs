//! Work for all cores: handlers in a rayon pool, whose own `par_iter` runs there too.
//!
//! `cargo run --example rayon`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::time::Duration;

use jobsled::{Context, Engine, Finished, JobDefaults, JobResult, Pool, Queue, job, rkyv};
use rayon::prelude::*;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct CountPrimes {
    below: u64,
}
job!(
    CountPrimes,
    kind = "count-primes",
    output = u64,
    defaults = JobDefaults::new().queue("numbers")
);

fn count_primes(CountPrimes { below }: CountPrimes, cx: &Context) -> JobResult<u64> {
    // Inside the handler this *is* the pool `cpu`, so its threads share the work.
    assert_eq!(rayon::current_num_threads(), 3);
    (0..below.div_ceil(100))
        .into_par_iter()
        .map(|hundred| {
            cx.check()?; // any of the threads may find out that the job shall stop
            let numbers = hundred * 100..below.min((hundred + 1) * 100);
            Ok(numbers.filter(|n| is_prime(*n)).count() as u64)
        })
        .sum()
}

fn is_prime(n: u64) -> bool {
    n > 1 && (2..=n.isqrt()).all(|d| !n.is_multiple_of(d))
}

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-rayon-{}", std::process::id()));
    let engine = Engine::builder(&dir)
        .pool(Pool::rayon("cpu", 3)) // three threads, up to three jobs at a time
        .pool(Pool::threads("default", 2)) // for handlers that wait rather than compute
        .queue(Queue::new("numbers").pool("cpu"))
        .handle(count_primes)
        .open()?;

    let small = engine.enqueue(CountPrimes { below: 100 })?;
    let large = engine.enqueue(CountPrimes { below: 100_000 })?;
    assert_eq!(small.wait()?, Finished::Completed(25));
    assert_eq!(large.wait()?, Finished::Completed(9_592));
    println!("9592 primes below 100000");

    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
