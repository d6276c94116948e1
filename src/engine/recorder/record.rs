//! The recorder's file and its records.
//!
//! Places of 64 bytes, numbered by the caller from 0; place `n` is at `64 * (n + 1)`, the head at 0. An
//! empty place is all zero. Numbers are little-endian:
//!
//! | bytes  | content                                                            |
//! |--------|--------------------------------------------------------------------|
//! | 0..16  | store id                                                           |
//! | 16..24 | epoch                                                              |
//! | 24..32 | boot id, both halves xored; 0 if unknown                           |
//! | 32..40 | job                                                                |
//! | 40..48 | claim                                                              |
//! | 48..56 | the claim that ended just before, on the same thread; 0: none      |
//! | 56     | version, 2                                                         |
//! | 57     | 1 started, 2 ended; in the head: 3 sound, 4 impaired               |
//! | 58..60 | zero                                                               |
//! | 60..64 | low half of XXH3-64 over bytes 0..60 and the place's number, which is 2³² − 1 for the head |

use std::io::Write as _;

use xxhash_rust::xxh3::xxh3_64;

pub(super) const PLACE_LEN: usize = 64;
const VERSION: u8 = 2;
pub(super) const HEAD_PLACE: u32 = u32::MAX;

/// More places than any engine has slots: bounds what is read at 64 MiB.
pub(super) const PLACES_MAX: u32 = 1 << 20;
pub(super) const FILE_LEN_MAX: u64 = place_offset(PLACES_MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Started,
    Ended,
    Sound,
    Impaired,
}

/// The 64 bytes of a place, or of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) store: u128,
    pub(super) epoch: u64,
    pub(super) boot: u64,
    pub(super) job: u64,
    pub(super) claim: u64,
    pub(super) after: u64,
    pub(super) mark: Mark,
}

impl Record {
    pub(super) fn encode(&self, place: u32) -> [u8; PLACE_LEN] {
        let mut bytes = [0; PLACE_LEN];
        let mut rest = bytes.as_mut_slice();
        for field in [
            &self.store.to_le_bytes()[..],
            &self.epoch.to_le_bytes(),
            &self.boot.to_le_bytes(),
            &self.job.to_le_bytes(),
            &self.claim.to_le_bytes(),
            &self.after.to_le_bytes(),
            &[VERSION, self.mark.code()],
        ] {
            // Together they are shorter than a place.
            let _ = rest.write_all(field);
        }
        let check = check(&bytes, place);
        if let Some(last) = bytes.last_chunk_mut() {
            *last = check;
        }
        bytes
    }

    /// `None` for whatever [`Record::encode`] did not write for this place, cut bytes included.
    pub(super) fn decode(bytes: &[u8], place: u32) -> Option<Record> {
        let bytes: &[u8; PLACE_LEN] = bytes.try_into().ok()?;
        if *bytes.last_chunk()? != check(bytes, place) {
            return None;
        }
        let mut rest = bytes.as_slice();
        let record = Record {
            store: u128::from_le_bytes(take(&mut rest)?),
            epoch: u64::from_le_bytes(take(&mut rest)?),
            boot: u64::from_le_bytes(take(&mut rest)?),
            job: u64::from_le_bytes(take(&mut rest)?),
            claim: u64::from_le_bytes(take(&mut rest)?),
            after: u64::from_le_bytes(take(&mut rest)?),
            mark: match take(&mut rest)? {
                [VERSION, code] => Mark::of_code(code)?,
                _ => return None,
            },
        };
        Some(record)
    }
}

impl Mark {
    fn code(self) -> u8 {
        match self {
            Mark::Started => 1,
            Mark::Ended => 2,
            Mark::Sound => 3,
            Mark::Impaired => 4,
        }
    }

    fn of_code(code: u8) -> Option<Mark> {
        [Mark::Started, Mark::Ended, Mark::Sound, Mark::Impaired]
            .into_iter()
            .find(|mark| mark.code() == code)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

/// Over all but the last four bytes, which are the check's own, and the place.
fn check(bytes: &[u8; PLACE_LEN], place: u32) -> [u8; 4] {
    let mut checked = *bytes;
    if let Some(last) = checked.last_chunk_mut() {
        *last = place.to_le_bytes();
    }
    let [a, b, c, d, ..] = xxh3_64(&checked).to_le_bytes();
    [a, b, c, d]
}

/// Where a place begins; the head is before all places.
pub(super) const fn place_offset(place: u32) -> u64 {
    // A u32 plus one, times 64: it cannot overflow. `u64::from` is not const.
    (place as u64 + 1) << PLACE_LEN.ilog2()
}
