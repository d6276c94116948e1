//! Reading a payload where it lies: a handler that borrows the archived job and copies nothing.
//!
//! `cargo run --example archived_view`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::time::Duration;

use jobsled::{Context, Engine, Finished, JobResult, View, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Brightness {
    name: String,
    width: u32,
    pixels: Vec<u8>,
}
job!(Brightness, kind = "brightness", output = u32);

/// `View<Brightness>` is `ArchivedBrightness`, the type that the derive made: the same fields, as they lie
/// in the journal. Numbers wider than a byte are little endian there: `to_native` turns them. The bytes
/// were validated before the handler sees them.
fn brightness(image: &View<Brightness>, _cx: &Context) -> JobResult<u32> {
    let pixels: &[u8] = image.pixels.as_slice();
    if !pixels
        .len()
        .is_multiple_of(image.width.to_native() as usize)
    {
        return Err(format!("{}: the last row is not full", image.name.as_str()).into());
    }
    let sum: u64 = pixels.iter().map(|pixel| u64::from(*pixel)).sum();
    Ok(u32::try_from(sum / pixels.len() as u64)?)
}

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-archived-view-{}", std::process::id()));
    let engine = Engine::builder(&dir)
        // The archived type does not tell which job it belongs to, so the job's type is named here.
        .handle_view::<Brightness>(brightness)
        .open()?;

    // Up to 24 KiB a payload is a part of the journal's own bytes: no copy at all on its way.
    let small = Brightness {
        name: "dusk".into(),
        width: 160,
        pixels: vec![40; 160 * 100],
    };
    assert_eq!(engine.enqueue(small)?.wait()?, Finished::Completed(40));

    // A larger one has a file of its own, is read into memory once and is read in place there.
    let large = Brightness {
        name: "noon".into(),
        width: 640,
        pixels: vec![250; 640 * 480],
    };
    assert_eq!(engine.enqueue(large)?.wait()?, Finished::Completed(250));
    println!("both images were read in place");

    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
