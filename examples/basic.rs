//! The whole life of a job: stored, run, done.
//!
//! `cargo run --example basic`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use jobsled::{Context, Engine, Finished, JobResult, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct CountWords {
    text: String,
}
job!(CountWords, kind = "count-words", output = u64);

#[expect(clippy::unnecessary_wraps, reason = "a handler may fail")]
fn count_words(CountWords { text }: CountWords, _cx: &Context) -> JobResult<u64> {
    Ok(text.split_whitespace().count() as u64)
}

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-basic-{}", std::process::id()));
    let engine = Engine::builder(&dir).handle(count_words).open()?;

    let handle = engine.enqueue(CountWords {
        text: "what was acknowledged is never lost".into(),
    })?;
    println!("job {} is on stable storage", handle.id());
    match handle.wait()? {
        Finished::Completed(words) => println!("it counted {words} words"),
        other => println!("it ended otherwise: {other:?}"),
    }

    engine.shutdown(std::time::Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
