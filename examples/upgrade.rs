//! A new version of a program meets jobs that the old one stored.
//!
//! `cargo run --example upgrade`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::path::Path;
use std::time::Duration;

use jobsled::{Context, Engine, Finished, JobResult, job, rkyv};

/// The program as it was first released.
mod release_1 {
    use super::{job, rkyv};

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    #[rkyv(crate = jobsled::rkyv)]
    pub(super) struct Resize {
        pub(super) path: String,
        pub(super) percent: u32,
    }
    job!(Resize, kind = "resize", output = String); // version 1
}

/// Today's program. The kind is the same; the fields have changed, so the version has risen.
mod release_2 {
    use super::{job, rkyv};

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    #[rkyv(crate = jobsled::rkyv)]
    pub(super) struct Resize {
        pub(super) path: String,
        pub(super) factor: f64,
        pub(super) keep_original: bool,
    }
    job!(Resize, kind = "resize", version = 2, output = String);
}

/// The old program: stores a job for later and ends.
fn old_program(dir: &Path) -> jobsled::Result<jobsled::JobId> {
    let engine = Engine::builder(dir).open()?;
    let stored = engine.enqueue(release_1::Resize {
        path: "cat.png".into(),
        percent: 50,
    })?;
    Ok(stored.id())
}

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-upgrade-{}", std::process::id()));
    let old_job = old_program(&dir)?;

    let engine = Engine::builder(&dir)
        .handle(
            |job: release_2::Resize, _cx: &Context| -> JobResult<String> {
                let release_2::Resize {
                    path,
                    factor,
                    keep_original,
                } = job;
                Ok(format!("{path} by {factor}, keep: {keep_original}"))
            },
        )
        // One function for each old version that may still be stored. A job of a version without one is
        // not run: it is dead, with its payload kept, until a program comes that has it and it is retried.
        .upgrade(1, |old: release_1::Resize| release_2::Resize {
            path: old.path,
            factor: f64::from(old.percent) / 100.0,
            keep_original: true,
        })
        .open()?;

    let old = engine
        .handle::<release_2::Resize>(old_job)?
        .expect("it is stored");
    assert_eq!(
        old.wait()?,
        Finished::Completed("cat.png by 0.5, keep: true".to_owned())
    );
    let new = release_2::Resize {
        path: "dog.png".into(),
        factor: 2.0,
        keep_original: false,
    };
    assert_eq!(
        engine.enqueue(new)?.wait()?,
        Finished::Completed("dog.png by 2, keep: false".to_owned())
    );
    println!("a job of version 1 and one of version 2 were run by the handler of version 2");

    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
