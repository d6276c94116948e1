//! What a job tells while it runs and when it is done: progress, a typed output; and how it is cancelled.
//!
//! `cargo run --example progress`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::sync::mpsc;
use std::time::Duration;

use jobsled::{Cancel, Context, Engine, Finished, JobResult, What, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Scan {
    pages: u64,
}

/// What a scan returns: any type with the three derives.
#[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Scanned {
    pages: u64,
    blank: Vec<u64>,
}
job!(Scan, kind = "scan", output = Scanned);

fn scan(Scan { pages }: Scan, cx: &Context) -> JobResult<Scanned> {
    let mut blank = Vec::new();
    for page in 1..=pages {
        cx.note(format!("page {page}"));
        cx.progress(page, pages);
        // Waits, and returns early with an error if somebody wants the job to stop. `cx.check()?` asks
        // the same without waiting.
        cx.pause(Duration::from_millis(20))?;
        if page % 7 == 0 {
            blank.push(page);
        }
    }
    Ok(Scanned { pages, blank })
}

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-progress-{}", std::process::id()));
    let engine = Engine::builder(&dir).handle(scan).open()?;

    // News of all jobs, asked for before the job is there, so that none of it is missed.
    let news = engine.subscribe(1_000);
    let short = engine.enqueue(Scan { pages: 20 })?;
    loop {
        match news.recv().expect("the engine is open").what {
            What::Progress { done, total, note } => println!("{done} of {total}: {note}"),
            What::Completed => break,
            other => println!("{other:?}"),
        }
    }
    let output = short.wait()?;
    assert_eq!(
        output,
        Finished::Completed(Scanned {
            pages: 20,
            blank: vec![7, 14]
        })
    );

    // The same for one job, by callback; and cancelling it.
    let long = engine.enqueue(Scan { pages: 1_000_000 })?;
    let (tell, told) = mpsc::channel();
    let subscription = long.on_change(move |update| drop(tell.send(update.what.clone())))?;
    while !matches!(told.recv().expect("it runs"), What::Progress { .. }) {}
    let seen = long.progress().expect("it runs");
    println!("at page {} of {}: enough", seen.done, seen.total);

    // A running handler is asked; it obeys at its next `pause` or `check`.
    assert_eq!(long.cancel()?, Cancel::AskedToStop);
    assert!(matches!(long.wait()?, Finished::Cancelled { .. }));
    // One that has not begun is cancelled at once.
    let waiting = engine
        .job(Scan { pages: 1 })
        .after(Duration::from_hours(1))
        .enqueue()?;
    assert_eq!(waiting.handle().cancel()?, Cancel::Cancelled);

    drop(subscription); // ends the callback
    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
