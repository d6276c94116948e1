//! Closed loops: each caller waits for its own before it goes on.

use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::{Clock, Tally};

/// Threads that do one thing after the other for a while. `each` says how many jobs one thing is.
pub fn threads(
    threads: usize,
    window: Duration,
    each: u64,
    one: impl Fn(usize) -> Result<()> + Sync,
) -> Result<Tally> {
    let clock = Clock::start();
    let done: Result<u64> = std::thread::scope(|scope| {
        let one = &one;
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut done = 0;
                    while clock.passed() < window {
                        one(thread)?;
                        done += each;
                    }
                    Ok(done)
                })
            })
            .collect();
        let panicked = |_| Err(anyhow!("a measuring thread panicked"));
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .sum()
    });
    Ok(clock.stop(done?))
}

/// The same with tasks, for peers whose calls are to be awaited.
#[cfg(feature = "tokio")]
pub async fn tasks<F: Future<Output = Result<()>> + Send + 'static>(
    tasks: usize,
    window: Duration,
    each: u64,
    one: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> Result<Tally> {
    let clock = Clock::start();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let one = one.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while clock.passed() < window {
                    one().await?;
                    done += each;
                }
                Ok::<u64, anyhow::Error>(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in running {
        done += task.await??;
    }
    Ok(clock.stop(done))
}

/// As its authors set it up: `#[tokio::main]` makes the same.
#[cfg(feature = "tokio")]
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

/// Asks once a millisecond until it is so, where a peer tells nobody that all is done.
#[cfg(feature = "tokio")]
pub async fn until(is_so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    while !is_so().await? {
        tick.tick().await;
    }
    Ok(())
}
