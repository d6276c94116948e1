//! `entry`, `events`, `journal`: what the journal is made of.

use jobsled::lab::fuzz;

use super::{byte, some_bytes};
use crate::random::Random;

const HASHED: usize = 128;
const HEADER_LEN: usize = 160;

/// The first byte says what is put right before the rest is read as an entry: 1 the hash, 2 all that an entry must
/// begin with. The hash must not stop everything at the door.
pub(super) fn entry(bytes: &[u8]) -> bool {
    let Some((mode, rest)) = bytes.split_first() else {
        return false;
    };
    let mut entry = rest.to_vec();
    if mode & 2 != 0 {
        put_header_right(&mut entry);
    }
    if mode & 3 != 0 {
        seal(&mut entry);
    }
    fuzz::entry(&entry).unwrap().is_some()
}

/// As `docs/format.md` tells it, from 0 on.
fn put_header_right(entry: &mut Vec<u8>) {
    entry.resize(entry.len().max(HEADER_LEN), 0);
    entry[..8].copy_from_slice(b"JSLE\x01\x00\xA0\x00");
    // Part 0 of 1; numbers within their bounds; the length of the body.
    entry[40..48].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    for at in [31, 39, 55, 79] {
        entry[at] &= 0x1F;
    }
    let tail = u64::from_le_bytes(entry[72..80].try_into().unwrap());
    let position = u64::from_le_bytes(entry[48..56].try_into().unwrap());
    entry[72..80].copy_from_slice(&tail.min(position).to_le_bytes());
    let body = u32::try_from(entry.len() - HEADER_LEN).unwrap();
    entry[64..68].copy_from_slice(&body.to_le_bytes());
}

fn seal(entry: &mut [u8]) {
    if entry.len() < HEADER_LEN {
        return;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entry[..HASHED]);
    hasher.update(&entry[HEADER_LEN..]);
    let hash = *hasher.finalize().as_bytes();
    entry[HASHED..HEADER_LEN].copy_from_slice(&hash);
}

/// A real entry of an event or two, to be changed.
pub(super) fn an_entry(random: &mut Random) -> Vec<u8> {
    let choices = some_bytes(random);
    let entries = fuzz::events(&choices).unwrap();
    let mut bytes = vec![byte(random)];
    bytes.extend_from_slice(entries.first().map_or(&[], Vec::as_slice));
    // The frames of another behind those of the first.
    if let Some(second) = entries.get(1) {
        bytes.extend_from_slice(&second[HEADER_LEN..]);
    }
    bytes
}

pub(super) fn events(bytes: &[u8]) -> bool {
    !fuzz::events(bytes).unwrap().is_empty()
}

pub(super) fn journal(bytes: &[u8]) -> bool {
    fuzz::journal(bytes).unwrap().0 > 1
}
