//! `lines`: an import of whatever lines. A typed error that names a line, or a store that exports the same again.
//!
//! The last line names the counts and the digest of all others. Where nothing else is wrong these are put right, so
//! that they do not stop everything at the door.

use std::path::Path;
use std::time::Duration;

use jobsled::{Backoff, Engine, Error, ManualClock, OnCrash, lab};
use serde_json::json;

use crate::random::Random;

const NOW_MS: i64 = 1_800_000_000_000;
/// Counts of queues, keys and jobs, and the digest.
const CORRECTIONS: u32 = 4;

pub(super) fn lines(bytes: &[u8]) -> bool {
    let mut text = bytes.to_vec();
    for _ in 0..=CORRECTIONS {
        let read = super::with_empty_dir(|dir| lab::fuzz::import(&dir.join("payloads"), &text));
        match read {
            Ok(_) => {
                super::with_empty_dir(|dir| stored(dir, &text));
                return true;
            }
            Err(Error::Import { line, reason }) => {
                let lines = text.split(|byte| *byte == b'\n').count() as u64;
                assert!(
                    (1..=lines + 1).contains(&line),
                    "line {line} of {lines}: {reason}"
                );
                match corrected(&text, &reason) {
                    Some(better) => text = better,
                    None => return false,
                }
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    false
}

/// What is right instead of what the last line says.
fn corrected(text: &[u8], reason: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let at = text.trim_end_matches('\n').rfind('\n')? + 1;
    let (before, end) = text.split_at(at);
    let end = if let Some(told) = reason.strip_prefix("the digest of what was read is ") {
        let (found, rest) = told.split_once(" and not ")?;
        end.replace(rest.get(..32)?, found)
    } else {
        let told = reason.strip_prefix("there should be ")?;
        let (told, found) = told.split_once(", and are ")?;
        let (number, what) = told.split_once(' ')?;
        end.replace(
            &format!("\"{what}\":{number},"),
            &format!("\"{what}\":{found},"),
        )
    };
    Some(format!("{before}{end}").into_bytes())
}

/// The lines make a store; what that exports makes one that exports the same.
fn stored(dir: &Path, text: &[u8]) {
    let first = dir.join("first");
    jobsled::import(&first, text).unwrap();
    jobsled::verify(&first, Some(dir)).unwrap();
    let once = exported(&first);
    let second = dir.join("second");
    jobsled::import(&second, &once[..]).unwrap();
    let again = exported(&second);
    let kept = |text: &[u8]| -> Vec<String> {
        let text = std::str::from_utf8(text).unwrap();
        // The first two tell of store and openings, the last of the digest of all.
        let lines: Vec<&str> = text.lines().skip(2).collect();
        lines[..lines.len() - 1]
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(kept(&once), kept(&again));
}

fn exported(store: &Path) -> Vec<u8> {
    let opened = Engine::builder(store)
        .clock(ManualClock::at(NOW_MS))
        .keep_finished(usize::MAX)
        .keep_dead(usize::MAX, Duration::MAX)
        .open();
    let engine = opened.unwrap();
    let mut lines = Vec::new();
    engine.export(&mut lines).unwrap();
    lines
}

/// An export of an engine that has seen a little of everything.
pub(super) fn an_export(random: &mut Random) -> Vec<u8> {
    let engine = Engine::in_memory()
        .clock(ManualClock::at(NOW_MS))
        .handle_json("never", |job: serde_json::Value, _| Ok(job))
        .open()
        .unwrap();
    engine.queue("idle").pause().unwrap();
    engine.queue("narrow").set_concurrency(Some(3)).unwrap();
    for n in 0..random.between(1, 5) {
        let payload = json!({ "n": n, "text": "long ".repeat(random.index(40)) });
        let mut job = engine.json("never", &payload).queue("idle");
        if random.one_in(2) {
            job = job.key(format!("key {n}")).metadata("colour", "gelb");
        }
        if random.one_in(2) {
            let span = Duration::from_secs(random.between(1, 9_000));
            job = job
                .after(span)
                .expires_after(2 * span)
                .on_crash(OnCrash::Dead);
        }
        if random.one_in(2) {
            job = job
                .priority(-3)
                .backoff(Backoff::fixed(Duration::from_secs(n)));
        }
        let id = job.enqueue().unwrap().handle().id();
        match random.below(6) {
            0 => drop(engine.change(id).cancel("not wanted").unwrap()),
            1 => drop(engine.change(id).delete().unwrap()),
            _ => {}
        }
    }
    let mut lines = Vec::new();
    engine.export(&mut lines).unwrap();
    lines
}
