//! `small_files`: header, witness, recorder, lock and command records of a store, in any state.

use std::fs;
use std::path::Path;

use jobsled::Error;
use jobsled::lab::fuzz::{STORE, SmallFile, small_file};
use xxhash_rust::xxh3::xxh3_64;

use super::{byte, with_empty_dir};
use crate::random::Random;

/// The first byte says which file (its low bits), and whether checksums are put right (its highest).
pub(super) fn small_files(bytes: &[u8]) -> bool {
    let Some((mode, rest)) = bytes.split_first() else {
        return false;
    };
    let mut content = rest.to_vec();
    let sealed = mode & 0x80 != 0;
    let (which, name) = match mode % 5 {
        0 => (SmallFile::Header, "journal/jobsled"),
        1 => (SmallFile::Witness, "witness"),
        2 => (SmallFile::Recorder, "recorder"),
        3 => (SmallFile::Lock, "lock"),
        _ => (SmallFile::Command, "command"),
    };
    if sealed {
        seal(which, &mut content);
    }
    with_empty_dir(|dir| {
        fs::create_dir(dir.join("journal")).unwrap();
        fs::write(dir.join(name), &content).unwrap();
        let read = small_file(which, dir);
        if which != SmallFile::Lock {
            let after = fs::read(dir.join(name)).unwrap();
            assert!(after == content, "reading changed {name}");
        }
        match read {
            Ok(believed) => believed,
            Err(error) => {
                let typed = matches!(
                    error,
                    Error::Damaged { .. }
                        | Error::NewerFormat { .. }
                        | Error::Layout { .. }
                        | Error::ForeignWitness { .. }
                        | Error::ForeignLock { .. }
                );
                assert!(typed, "{name}: {error:?}");
                false
            }
        }
    })
}

/// Puts the checksums right, as `docs/format.md` has them.
fn seal(which: SmallFile, bytes: &mut Vec<u8>) {
    match which {
        SmallFile::Header => {
            bytes.splice(..bytes.len().min(8), *b"JOBSLED\0");
            let sum = *blake3::hash(bytes).as_bytes();
            bytes.extend_from_slice(&sum[..8]);
        }
        SmallFile::Witness => {
            for slot in bytes.chunks_mut(4_096).filter(|slot| slot.len() >= 112) {
                slot[..4].copy_from_slice(b"JSWT");
                let sum = *blake3::hash(&slot[..104]).as_bytes();
                slot[104..112].copy_from_slice(&sum[..8]);
            }
        }
        SmallFile::Recorder => {
            for place in bytes.chunks_exact_mut(64) {
                let sum = xxh3_64(&place[..60]).to_le_bytes();
                place[60..].copy_from_slice(&sum[..4]);
            }
        }
        SmallFile::Lock => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let lines = text.split("check ").next().unwrap_or_default();
            let hash = blake3::hash(lines.as_bytes()).to_hex();
            *bytes = format!("{lines}check {}\n", &hash[..16]).into_bytes();
            bytes.resize(512, b'\n');
        }
        SmallFile::Command => {}
    }
}

/// One that is nearly right.
pub(super) fn some_file(random: &mut Random) -> Vec<u8> {
    let mode = byte(random);
    let mut bytes = vec![mode];
    let number = |random: &mut Random| random.below(5).to_le_bytes();
    match mode % 5 {
        0 => {
            bytes.extend_from_slice(b"JOBSLED\0\x01\0\0\0");
            bytes.extend_from_slice(&STORE.to_le_bytes());
            for field in [4_194_304_u32, 57_344, 524_288] {
                bytes.extend_from_slice(&field.to_le_bytes());
            }
            bytes.extend_from_slice(&layout(random));
        }
        1 => {
            for _ in 0..2 {
                let mut slot = b"JSWT\x01\0\0\0".to_vec();
                slot.extend_from_slice(&STORE.to_le_bytes());
                (0..3).for_each(|_| slot.extend_from_slice(&number(random)));
                slot.resize(4_096, 0);
                bytes.extend_from_slice(&slot);
            }
        }
        2 => {
            for place in (0..random.below(5)).map(|n| n.wrapping_sub(1)) {
                bytes.extend_from_slice(&STORE.to_le_bytes());
                (0..4).for_each(|_| bytes.extend_from_slice(&number(random)));
                bytes.extend_from_slice(&place.to_le_bytes()[..4]);
                bytes.extend_from_slice(&[1, *random.pick(&[1, 2, 3, 4]), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
        }
        3 => {
            let state = random.pick(&["open", "clean", "ajar"]);
            let version = random.between(1, 2);
            let text = format!("jobsled lock {version}\nstate {state}\npid 1\nhost x\nboot {:032x}\n", 9);
            bytes.extend_from_slice(text.as_bytes());
        }
        _ => bytes.extend_from_slice(
            br#"{"boot":1,"group":4712,"session":4700,"started":8,"worker":4711,"worker_started":8,"home":[6,1]}"#,
        ),
    }
    bytes
}

/// The layout of the fixture's header is this build's, as long as rkyv's is.
fn layout(random: &mut Random) -> [u8; 4] {
    let header = super::top().join("tests/fixtures/v1/store/journal/jobsled");
    let header = fs::read(Path::new(&header)).unwrap();
    if random.one_in(8) {
        return [1, 2, 3, 4];
    }
    header[40..44].try_into().unwrap()
}
