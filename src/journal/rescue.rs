//! What is left of a journal, in order: which of the entries found make it up, and where some are missing.
//!
//! From the newest entry back along the hashes. Where an entry's predecessor was not found there is a gap, and it
//! goes on with the newest entry before it. What lies off this line was cut off or discarded once, and never
//! acknowledged.

use std::collections::{HashMap, HashSet};

use super::carve::{Carved, Found};
use super::entry::{EntryBytes, Header};
use super::witness::Mark;

/// What is left of a journal.
#[derive(Debug)]
pub(crate) struct Remains<'c> {
    /// What state and gaps follow from, rising.
    pub(crate) needed: Vec<Piece<'c>>,
    /// Older entries of the line, rising: what they told is over, or was told again.
    pub(crate) older: Vec<Piece<'c>>,
    /// The last entry of the newest group that is there.
    pub(crate) head: Header,
    pub(crate) end: End,
    /// Positions missing, each gap by its first and last one.
    pub(crate) gaps: Vec<(u64, u64)>,
}

/// An entry of the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'c> {
    found: &'c Found,
    /// The entry before it, in `needed`, is not the one before it in the journal.
    pub(crate) after_gap: bool,
}

impl Piece<'_> {
    pub(crate) fn header(&self) -> &Header {
        &self.found.header
    }

    /// `None`: it changed meanwhile, or cannot be read any more.
    pub(crate) fn entry(&self, carved: &Carved) -> Option<EntryBytes> {
        carved.read(self.found)
    }
}

/// How the line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With all that the witness saw acknowledged.
    Whole,
    /// Acknowledged groups are missing behind it, or a part of the newest one.
    Missing,
    /// Nobody knows: there is no witness to compare it with.
    Unknown,
}

/// What the witness has to say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Testimony {
    /// The newest mark.
    pub(crate) mark: Option<Mark>,
    /// A slot was damaged: there may have been a newer one.
    pub(crate) doubtful: bool,
}

/// Orders what was found of a store. `None` if nothing was.
pub(crate) fn rescue<'c>(
    carved: &'c Carved,
    store: u128,
    testimony: &Testimony,
) -> Option<Remains<'c>> {
    let mut line = line(carved, store)?;
    let beyond = |line: &[Piece<'_>]| {
        let head = line.last().map_or(0, |last| last.found.header.position);
        let found: HashSet<u64> = carved
            .entries_of(store)
            .map(|found| found.header.position)
            .collect();
        let mut broken = carved.broken_of(store);
        // A number that no journal reaches is no claim to be believed.
        broken.any(|claim| {
            claim.position > head
                && claim.position - head < BEYOND_MAX
                && !found.contains(&claim.position)
        })
    };
    let mut end = match (testimony.mark, beyond(&line)) {
        (_, true) => End::Missing,
        (None, false) => End::Unknown,
        (Some(_), false) if testimony.doubtful => End::Unknown,
        (Some(mark), false) => witnessed(&line, &mark)?,
    };
    if !is_group_whole(&line) {
        let group = line.last()?.found.header.group;
        if end == End::Whole && testimony.mark.is_some_and(|mark| mark.group < group) {
            // I7: a commit that was cut short, of which nobody was told.
            let whole = line.iter().rposition(|p| p.found.header.group != group)?;
            line.truncate(whole + 1);
            end = testimony
                .mark
                .map_or(Some(End::Unknown), |mark| witnessed(&line, &mark))?;
        } else {
            end = End::Missing;
        }
    }
    Some(cut(line, end, testimony))
}

/// A broken entry so far behind the head was never written.
const BEYOND_MAX: u64 = 1 << 22;

/// Whether the line ends with what was acknowledged.
fn witnessed(line: &[Piece<'_>], mark: &Mark) -> Option<End> {
    let head = line.last()?.found.header;
    let is_same = || (head.hash, head.digest) == (mark.hash, mark.digest);
    let is_whole = head.group > mark.group || (head.group == mark.group && is_same());
    Some(if is_whole { End::Whole } else { End::Missing })
}

/// All that hangs together behind the newest entry, and what lies before the gaps; rising.
fn line(carved: &Carved, store: u128) -> Option<Vec<Piece<'_>>> {
    let by_hash: HashMap<[u8; 32], &Found> = carved
        .entries_of(store)
        .map(|found| (found.header.hash, found))
        .collect();
    let mut rising: Vec<&Found> = by_hash.values().copied().collect();
    // Of two with one position the later is the one that stayed: the other was discarded.
    rising.sort_unstable_by_key(|found| {
        let Header {
            position,
            epoch,
            group,
            hash,
            ..
        } = found.header;
        (position, epoch, group, hash)
    });
    let newest = rising.iter().copied().max_by_key(|found| {
        let header = &found.header;
        (header.epoch, header.group, header.part)
    })?;
    let (mut line, mut now) = (Vec::new(), newest);
    loop {
        let before = by_hash
            .get(&now.header.previous)
            .filter(|before| before.header.position < now.header.position);
        let is_first = now.header.previous == [0; 32];
        line.push(Piece {
            found: now,
            after_gap: before.is_none() && !is_first,
        });
        let older = rising.partition_point(|f| f.header.position < now.header.position);
        let older = || {
            let older = rising.get(..older)?;
            older.iter().rev().copied().find(|found| {
                found.header.group <= now.header.group && found.header.epoch <= now.header.epoch
            })
        };
        match before.copied().or_else(older) {
            Some(before) if !is_first => now = before,
            _ => break,
        }
    }
    line.reverse();
    Some(line)
}

/// Whether the newest group has all its parts.
fn is_group_whole(line: &[Piece<'_>]) -> bool {
    let Some(last) = line.last().map(|piece| piece.found.header) else {
        return false;
    };
    let group = line.iter().rev().map(|piece| piece.found.header);
    let parts = group
        .take_while(|header| header.group == last.group)
        .count();
    last.part + 1 == last.parts && parts == last.parts as usize
}

/// Parts the line where what is needed begins.
fn cut<'c>(mut line: Vec<Piece<'c>>, end: End, testimony: &Testimony) -> Remains<'c> {
    let position = |piece: &Piece<'_>| piece.found.header.position;
    let head = line
        .last()
        .map_or_else(Header::default, |piece| piece.found.header);
    let from = |tail: u64| line.partition_point(|piece| position(piece) < tail);
    let is_gap = |at: usize, tail: u64| {
        let piece = line.get(at);
        piece.is_some_and(|piece| piece.after_gap && position(piece) > tail)
    };
    let mut begin = from(head.tail);
    let mut tail = head.tail;
    // Before the first gap the state was known in full if all from that moment's own tail on is there. So that is
    // read as well: what it tells of jobs that are not seen again is what is known of them.
    if let Some(gap) = (begin..line.len()).find(|at| is_gap(*at, tail))
        && let Some(before) = gap.checked_sub(1).and_then(|at| line.get(at))
    {
        tail = tail.min(before.found.header.tail);
        begin = from(tail);
    }
    let mut gaps = Vec::new();
    for at in begin..line.len() {
        if is_gap(at, tail) {
            let before = at.checked_sub(1).filter(|before| *before >= begin);
            let before = before.and_then(|before| line.get(before)).map(position);
            let next = line.get(at).map_or(0, position);
            gaps.push((before.map_or(tail, |p| p + 1), next - 1));
        }
    }
    if end == End::Missing {
        let last = testimony.mark.map_or(0, |mark| mark.position);
        gaps.push((head.position + 1, last.max(head.position + 1)));
    }
    let mut needed = line.split_off(begin);
    if let Some(first) = needed.first_mut() {
        first.after_gap = first.after_gap && position(first) > tail;
    }
    Remains {
        needed,
        older: line,
        head,
        end,
        gaps,
    }
}
