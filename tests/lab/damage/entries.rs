//! Entries in the bytes of a log, as `docs/format.md` has them.

use std::ops::Range;

const MAGIC: &[u8] = b"JSLE";
const STORE_AT: usize = 8;
const GROUP_AT: usize = 32;
const BODY_LEN_AT: usize = 64;
const HASH_AT: usize = 128;
const HEADER_LEN: usize = 160;

/// An entry that is there whole, by its hash.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) store: u128,
    pub(super) group: u64,
    pub(super) bytes: Range<usize>,
}

pub(super) fn whole_entries(log: &[u8]) -> Vec<Entry> {
    let starts = log.windows(MAGIC.len()).enumerate();
    let starts = starts.filter(|(_, bytes)| *bytes == MAGIC);
    starts
        .filter_map(|(at, _)| {
            let (store, group, len) = whole_entry(&log[at..])?;
            Some(Entry {
                store,
                group,
                bytes: at..at + len,
            })
        })
        .collect()
}

/// Store, group and length of the entry that the bytes begin with.
fn whole_entry(bytes: &[u8]) -> Option<(u128, u64, usize)> {
    let header = bytes.get(..HEADER_LEN)?;
    let body_len = header[BODY_LEN_AT..BODY_LEN_AT + 4].try_into().unwrap();
    let len = HEADER_LEN.checked_add(usize::try_from(u32::from_le_bytes(body_len)).unwrap())?;
    let body = bytes.get(HEADER_LEN..len)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header[..HASH_AT]).update(body);
    let is_whole = hasher.finalize().as_bytes() == &header[HASH_AT..];
    let group = header[GROUP_AT..GROUP_AT + 8].try_into().unwrap();
    let store = header[STORE_AT..STORE_AT + 16].try_into().unwrap();
    is_whole.then_some((u128::from_le_bytes(store), u64::from_le_bytes(group), len))
}
