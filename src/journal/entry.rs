//! Entries: what one key of the journal holds. A fixed header, chained by hash, and frames.
//!
//! ```text
//!   0  magic "JSLE"        4  format u16        6  header length u16
//!   8  store id [16]      24  epoch u64        32  group u64
//!  40  part u32           44  parts u32        48  position u64
//!  56  time, wall ms i64  64  body length u32  68  zero u32
//!  72  tail u64           80  digest [16]      96  previous entry's hash [32]
//! 128  hash [32] of bytes 0..128 and the body
//! 160  body: frames
//! ```
//! All numbers little endian. A group is all or nothing: its entries are parts 0 … parts-1.

use std::sync::Arc;

use super::commit::Geometry;
use super::frame::{FrameError, FrameWriter, ReadError, read};
use crate::error::{Error, Result};
use crate::ledger::{Event, NUMBER_MAX, Place};

/// Bytes of an entry's header.
pub(crate) const HEADER_LEN: usize = 160;
/// The largest entry of any geometry.
pub(crate) const ENTRY_CAP: usize = Geometry::DEFAULT.entry_cap as usize;
/// The newest entry format.
pub(crate) const FORMAT: u16 = 1;

/// How every entry begins.
pub(super) const MAGIC: [u8; 4] = *b"JSLE";
const HASHED: usize = 128;

/// What an entry says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) store: u128,
    pub(crate) epoch: u64,
    pub(crate) group: u64,
    pub(crate) part: u32,
    pub(crate) parts: u32,
    pub(crate) position: u64,
    pub(crate) at_ms: i64,
    /// Oldest position that is still needed once this group is complete.
    pub(crate) tail: u64,
    /// Digest of the state once this group is complete.
    pub(crate) digest: u128,
    pub(crate) previous: [u8; 32],
    pub(crate) hash: [u8; 32],
}

/// An entry's bytes, cheap to share: sled's own memory or the writer's buffer.
#[derive(Clone)]
pub(crate) enum EntryBytes {
    Sled(sled::IVec),
    Own(Arc<Vec<u8>>),
}

impl std::ops::Deref for EntryBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            EntryBytes::Sled(bytes) => bytes,
            EntryBytes::Own(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EntryBytes({})", self.len())
    }
}

/// What the next entry is chained to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) store: u128,
    pub(crate) epoch: u64,
    pub(crate) next_group: u64,
    pub(crate) next_position: u64,
    pub(crate) last_hash: [u8; 32],
}

impl Chain {
    /// What the first group of a store is chained to.
    pub(crate) fn first(store: u128) -> Chain {
        Chain {
            store,
            epoch: 0,
            next_group: 1,
            next_position: 1,
            last_hash: [0; 32],
        }
    }
}

/// A group being written: frames go in, sealed entries come out.
#[derive(Debug)]
pub(crate) struct Draft {
    entry_cap: usize,
    first_position: u64,
    entries: Vec<Vec<u8>>,
    frames: FrameWriter,
    scratch: Vec<u8>,
    bytes: usize,
    /// The last group filled an entry, so the next one is likely to.
    has_filled: bool,
}

/// A finished entry.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) position: u64,
    pub(crate) bytes: Arc<Vec<u8>>,
}

impl Draft {
    pub(crate) fn new(geometry: Geometry) -> Draft {
        Draft {
            entry_cap: geometry.entry_cap as usize,
            first_position: 0,
            entries: Vec::new(),
            frames: FrameWriter::default(),
            scratch: Vec::new(),
            bytes: 0,
            has_filled: false,
        }
    }

    /// Begins a group at the chain's next position.
    pub(crate) fn begin(&mut self, chain: &Chain) {
        debug_assert!(self.entries.is_empty(), "the last group was never sealed");
        self.first_position = chain.next_position;
        self.bytes = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the group so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn first_position(&self) -> u64 {
        self.first_position
    }

    /// Writes an event; returns where it will lie.
    pub(crate) fn push(&mut self, event: &Event<'_>) -> Result<Place> {
        self.scratch.clear();
        let bug =
            |FrameError(reason)| Error::Bug(format!("cannot write event {event:?}: {reason}"));
        self.frames.write(event, &mut self.scratch).map_err(bug)?;
        if self.scratch.len() + HEADER_LEN > self.entry_cap {
            return Err(bug(FrameError("it does not fit an entry")));
        }
        let fits = |entry: &Vec<u8>| entry.len() + self.scratch.len() <= self.entry_cap;
        if !self.entries.last().is_some_and(fits) {
            let capacity = if self.has_filled || !self.entries.is_empty() {
                self.entry_cap
            } else {
                (HEADER_LEN + self.scratch.len()).next_power_of_two()
            };
            let mut entry = Vec::with_capacity(capacity.min(self.entry_cap));
            entry.resize(HEADER_LEN, 0);
            self.entries.push(entry);
            self.bytes += HEADER_LEN;
        }
        let number = self.entries.len() - 1;
        let too_big = |_| Error::Bug("a place out of range".to_owned());
        let entry = self
            .entries
            .last_mut()
            .ok_or_else(|| Error::Bug("no entry to write to".to_owned()))?;
        let place = Place {
            position: self.first_position + number as u64,
            offset: u16::try_from(entry.len()).map_err(too_big)?,
            len: u16::try_from(self.scratch.len()).map_err(too_big)?,
        };
        entry.extend_from_slice(&self.scratch);
        self.bytes += self.scratch.len();
        Ok(place)
    }

    /// An event of the unfinished group.
    pub(crate) fn event_at(&self, place: Place) -> Result<Option<Event<'_>>, ReadError> {
        let number = usize::try_from(place.position.saturating_sub(self.first_position))
            .unwrap_or(usize::MAX);
        self.entries
            .get(number)
            .map(|entry| event_at(entry, place.offset))
            .transpose()
    }

    /// Ends the group: fills in the headers and moves the chain on.
    pub(crate) fn seal(
        &mut self,
        chain: &mut Chain,
        at_ms: i64,
        tail: u64,
        digest: u128,
    ) -> Vec<Sealed> {
        self.has_filled = self.entries.len() > 1;
        let parts = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let group = chain.next_group;
        let sealed = self.entries.drain(..).zip(0..).map(|(mut entry, part)| {
            let mut header = Header {
                store: chain.store,
                epoch: chain.epoch,
                group,
                part,
                parts,
                position: chain.next_position,
                at_ms,
                tail,
                digest,
                previous: chain.last_hash,
                hash: [0; 32],
            };
            header.hash = write_header(&header, &mut entry);
            chain.last_hash = header.hash;
            chain.next_position += 1;
            Sealed {
                position: header.position,
                bytes: Arc::new(entry),
            }
        });
        let sealed = sealed.collect();
        chain.next_group += 1;
        sealed
    }

    /// Throws the group away.
    pub(crate) fn discard(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

fn write_header(h: &Header, entry: &mut [u8]) -> [u8; 32] {
    let body_len = u32::try_from(entry.len() - HEADER_LEN).unwrap_or(u32::MAX);
    let header_len = u16::try_from(HEADER_LEN).unwrap_or(u16::MAX);
    let fields: [&[u8]; 16] = [
        &MAGIC,
        &FORMAT.to_le_bytes(),
        &header_len.to_le_bytes(),
        &h.store.to_le_bytes(),
        &h.epoch.to_le_bytes(),
        &h.group.to_le_bytes(),
        &h.part.to_le_bytes(),
        &h.parts.to_le_bytes(),
        &h.position.to_le_bytes(),
        &h.at_ms.to_le_bytes(),
        &body_len.to_le_bytes(),
        &0u32.to_le_bytes(),
        &h.tail.to_le_bytes(),
        &h.digest.to_le_bytes(),
        &h.previous,
        &[0; 32],
    ];
    let mut rest = &mut *entry;
    for field in fields {
        let (place, after) = rest.split_at_mut(field.len());
        place.copy_from_slice(field);
        rest = after;
    }
    let hash = hash_of(entry);
    if let Some(place) = entry.get_mut(HASHED..HEADER_LEN) {
        place.copy_from_slice(&hash);
    }
    hash
}

fn hash_of(entry: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(entry.get(..HASHED).unwrap_or_default());
    hasher.update(entry.get(HEADER_LEN..).unwrap_or_default());
    *hasher.finalize().as_bytes()
}

impl Header {
    /// Reads and checks an entry's header and hash. I8: never panics, whatever the bytes.
    pub(crate) fn read(entry: &[u8]) -> Result<Header, ReadError> {
        let bad = |reason: &str| ReadError::Damaged(reason.to_owned());
        let mut fields = Fields(entry);
        if fields.take::<4>() != Some(MAGIC) {
            return Err(bad("does not begin like an entry"));
        }
        let short = || bad("shorter than its header");
        // In every format the hash lies at 128. First: a flipped bit is no newer version.
        if entry.get(HASHED..HEADER_LEN).ok_or_else(short)? != hash_of(entry) {
            return Err(bad("its hash does not match its content"));
        }
        let format = u16::from_le_bytes(fields.take().ok_or_else(short)?);
        if format > FORMAT {
            return Err(ReadError::Newer {
                what: "entry format",
                found: format.into(),
                known: FORMAT.into(),
            });
        }
        let header_len = u16::from_le_bytes(fields.take().ok_or_else(short)?);
        let header = fields.header().ok_or_else(short)?;
        let body_len = entry.len().checked_sub(HEADER_LEN).ok_or_else(short)?;
        if usize::from(header_len) != HEADER_LEN || header.1 as usize != body_len {
            return Err(bad("has another length than its header says"));
        }
        if header.0.part >= header.0.parts {
            return Err(bad("part number out of range"));
        }
        let Header {
            epoch,
            group,
            position,
            tail,
            ..
        } = header.0;
        if [epoch, group, position, tail]
            .iter()
            .any(|n| *n > NUMBER_MAX)
            || tail > position
        {
            return Err(bad("a number of its header is out of range"));
        }
        Ok(header.0)
    }
}

/// What bytes that begin as an entry say of themselves; nothing of it is proven.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed {
    pub(super) store: u128,
    pub(super) position: u64,
    /// Bytes of the entry.
    pub(super) len: usize,
}

/// Reads what an entry says of itself, without a look at its hash.
pub(super) fn claimed(bytes: &[u8]) -> Option<Claimed> {
    let mut fields = Fields(bytes);
    if fields.take::<4>()? != MAGIC {
        return None;
    }
    let _format: [u8; 2] = fields.take()?;
    if usize::from(u16::from_le_bytes(fields.take()?)) != HEADER_LEN {
        return None;
    }
    let (header, body_len) = fields.header()?;
    Some(Claimed {
        store: header.store,
        position: header.position,
        len: HEADER_LEN.saturating_add(usize::try_from(body_len).ok()?),
    })
}

/// The hash that an entry says it has.
pub(super) fn hash_told(entry: &[u8]) -> Option<[u8; 32]> {
    entry.get(HASHED..HEADER_LEN)?.try_into().ok()
}

/// A reader of fixed-width fields.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    /// The fields after magic, format and header length; with the body length.
    fn header(&mut self) -> Option<(Header, u32)> {
        let store = u128::from_le_bytes(self.take()?);
        let epoch = u64::from_le_bytes(self.take()?);
        let group = u64::from_le_bytes(self.take()?);
        let part = u32::from_le_bytes(self.take()?);
        let parts = u32::from_le_bytes(self.take()?);
        let position = u64::from_le_bytes(self.take()?);
        let at_ms = i64::from_le_bytes(self.take()?);
        let body_len = u32::from_le_bytes(self.take()?);
        let _zero: [u8; 4] = self.take()?;
        let tail = u64::from_le_bytes(self.take()?);
        let digest = u128::from_le_bytes(self.take()?);
        let previous = self.take()?;
        let hash = self.take()?;
        Some((
            Header {
                store,
                epoch,
                group,
                part,
                parts,
                position,
                at_ms,
                tail,
                digest,
                previous,
                hash,
            },
            body_len,
        ))
    }
}

/// The frames of an entry whose header was checked: each event with its place.
pub(crate) struct Frames<'a> {
    entry: &'a [u8],
    offset: usize,
    position: u64,
    at_ms: i64,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(entry: &'a [u8], header: &Header) -> Frames<'a> {
        Frames {
            entry,
            offset: HEADER_LEN,
            position: header.position,
            at_ms: header.at_ms,
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<(Event<'a>, Place), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self
            .entry
            .get(self.offset..)
            .filter(|rest| !rest.is_empty())?;
        let result = read(rest, self.at_ms).map(|(event, len)| {
            let narrow = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
            let place = Place {
                position: self.position,
                offset: narrow(self.offset),
                len: narrow(len),
            };
            self.offset += len;
            (event, place)
        });
        if result.is_err() {
            self.offset = self.entry.len();
        }
        Some(result)
    }
}

/// The event at an offset of an entry that was checked when it was first read.
pub(crate) fn event_at(entry: &[u8], offset: u16) -> Result<Event<'_>, ReadError> {
    let at_ms = entry
        .get(56..64)
        .and_then(|b| b.try_into().ok())
        .map_or(0, i64::from_le_bytes);
    let rest = entry.get(usize::from(offset)..).unwrap_or_default();
    Ok(read(rest, at_ms)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::RootRecord;

    fn entry(group: u64, position: u64, epoch: u64, tail: u64) -> Vec<u8> {
        let mut chain = Chain {
            epoch,
            next_group: group,
            next_position: position,
            ..Chain::first(7)
        };
        let mut draft = Draft::new(Geometry::DEFAULT);
        draft.begin(&chain);
        draft.push(&Event::RootSet(RootRecord::default())).unwrap();
        let sealed = draft.seal(&mut chain, 0, tail, 0);
        sealed.first().unwrap().bytes.to_vec()
    }

    #[test]
    fn a_flipped_bit_is_damage_and_no_newer_version() {
        let whole = entry(1, 1, 0, 1);
        assert!(Header::read(&whole).is_ok());
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = Header::read(&bytes);
            assert!(
                matches!(read, Err(ReadError::Damaged(_))),
                "{bit}: {read:?}"
            );
        }
        for len in 0..whole.len() {
            assert!(matches!(
                Header::read(&whole[..len]),
                Err(ReadError::Damaged(_))
            ));
        }
    }

    #[test]
    fn numbers_that_would_overflow_are_damage() {
        let far = NUMBER_MAX + 1;
        assert!(Header::read(&entry(NUMBER_MAX, NUMBER_MAX, NUMBER_MAX, NUMBER_MAX)).is_ok());
        for bytes in [
            entry(far, 1, 0, 1),
            entry(1, far, 0, 1),
            entry(1, 1, far, 1),
            entry(1, far, 0, far),
            entry(1, 5, 0, 6),
        ] {
            assert!(matches!(Header::read(&bytes), Err(ReadError::Damaged(_))));
        }
    }
}
