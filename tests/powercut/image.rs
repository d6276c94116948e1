//! What a power cut leaves of the contents of files.

use std::borrow::Cow;

use jobsled::lab::journal::Random;

use crate::disk::{Change, ChangeKind, File, put};

/// The unit in which a volatile cache of the system goes to the disk.
const PAGE: u64 = 4096;
/// The unit that a drive writes whole.
const SECTOR: u64 = 512;

/// What survives of un-synced content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    None,
    /// What overwrites durable bytes; no file becomes longer. A journaling file system on a drive
    /// that keeps its cache.
    InPlace,
    /// Each page by itself.
    Random,
    /// Each sector by itself.
    Torn,
    /// The newer writes; the older ones are lost.
    Reverse,
    /// The older writes; the newer ones are lost.
    Prefix,
    /// All writes but one.
    DropOne,
}

impl Mode {
    pub(crate) const ALL: [Mode; 7] = [
        Mode::None,
        Mode::InPlace,
        Mode::Random,
        Mode::Torn,
        Mode::Reverse,
        Mode::Prefix,
        Mode::DropOne,
    ];
}

/// How likely something survives: rarely, evenly or nearly always; one choice for a whole image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Odds(u64);

impl Odds {
    const OF: u64 = 16;

    pub(crate) fn any(random: &mut Random) -> Odds {
        Odds([1, Odds::OF / 2, Odds::OF - 1][usize::try_from(random.between(0, 2)).unwrap()])
    }

    pub(crate) fn come_true(self, random: &mut Random) -> bool {
        random.between(0, Odds::OF - 1) < self.0
    }
}

/// Decides what survives of the contents.
pub(crate) struct Keep<'r> {
    pub(crate) mode: Mode,
    /// The change at which `Reverse` and `Prefix` part, and that `DropOne` drops.
    pub(crate) pick: u64,
    pub(crate) odds: Odds,
    pub(crate) random: &'r mut Random,
}

impl Keep<'_> {
    pub(crate) fn content<'f>(&mut self, file: &'f File<'_>) -> Cow<'f, [u8]> {
        if file.pending.is_empty() {
            return Cow::Borrowed(&file.durable);
        }
        let mut content = file.durable.clone();
        let durable_len = content.len() as u64;
        let mut longest = durable_len;
        for change in &file.pending {
            if let ChangeKind::Write { offset, bytes } = change.kind {
                longest = longest.max(offset + bytes.len() as u64);
            }
            match (self.mode, change.kind) {
                (Mode::InPlace, ChangeKind::Write { offset, bytes }) => {
                    let inside = durable_len.saturating_sub(offset).min(bytes.len() as u64);
                    put_nonempty(
                        &mut content,
                        offset,
                        &bytes[..usize::try_from(inside).unwrap()],
                    );
                }
                (Mode::Random, _) => self.in_units(change, PAGE, &mut content),
                (Mode::Torn, _) => self.in_units(change, SECTOR, &mut content),
                (Mode::Reverse, _) if change.number >= self.pick => change.apply(&mut content),
                (Mode::Prefix, _) if change.number < self.pick => change.apply(&mut content),
                (Mode::DropOne, _) if change.number != self.pick => change.apply(&mut content),
                _ => {}
            }
        }
        // The length may reach the disk without what it is made for: that reads as zeroes.
        if matches!(self.mode, Mode::Random | Mode::Torn)
            && (content.len() as u64) < longest
            && self.random.one_in(4)
        {
            content.resize(usize::try_from(longest).unwrap(), 0);
        }
        Cow::Owned(content)
    }

    /// Each unit of the disk by itself.
    fn in_units(&mut self, change: &Change<'_>, unit: u64, content: &mut Vec<u8>) {
        let ChangeKind::Write {
            mut offset,
            mut bytes,
        } = change.kind
        else {
            if self.odds.come_true(self.random) {
                change.apply(content);
            }
            return;
        };
        while !bytes.is_empty() {
            let to_boundary = usize::try_from(unit - offset % unit)
                .unwrap()
                .min(bytes.len());
            let (part, rest) = bytes.split_at(to_boundary);
            if self.odds.come_true(self.random) {
                put(content, offset, part);
            }
            offset += part.len() as u64;
            bytes = rest;
        }
    }
}

fn put_nonempty(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if !bytes.is_empty() {
        put(content, offset, bytes);
    }
}
