//! Reading a journal from its tail to its head, trusting nothing.
//!
//! The head is the newest complete group. Behind it only the parts of one incomplete group may lie: a
//! commit that was cut short and was never acknowledged. From the tail that the head names on, every
//! entry must be there, in order, chained by hash; whatever lies below the tail is left over from a
//! removal that was cut short.

use super::Journal;
use super::entry::{Chain, EntryBytes, Frames, Header};
use super::frame::ReadError;
use crate::error::{Error, Result};
use crate::fault::{self, Bug};
use crate::ledger::{Event, Stamp};

/// Positions that a replay may skip, those of groups that were cut short: hundreds of the largest.
const SKIPPED_MAX: u64 = 1 << 22;

/// Where a journal ends.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The last entry of the newest complete group.
    pub(crate) last: Header,
    /// Entries of an incomplete group, newest first: to be removed and synced before anything else is
    /// written.
    pub(crate) incomplete: Vec<u64>,
}

impl Head {
    /// What the next group is chained to. J5: positions and group numbers seen in an incomplete group are
    /// not used again.
    pub(crate) fn chain(&self, epoch: u64) -> Chain {
        let last = &self.last;
        let newest = self.incomplete.first().copied().unwrap_or(last.position);
        let groups = if self.incomplete.is_empty() { 1 } else { 2 };
        Chain {
            store: last.store,
            epoch,
            next_group: last.group + groups,
            next_position: newest.max(last.position) + 1,
            last_hash: last.hash,
        }
    }
}

/// Finds the newest complete group, from the end.
pub(crate) fn find_head(journal: &mut dyn Journal, store: u128) -> Result<Head> {
    let mut seen: Vec<Header> = Vec::new(); // entries of the group being looked at, newest first
    let mut incomplete: Vec<u64> = Vec::new();
    let mut head = None;
    journal.scan_back(&mut |position, entry| {
        let header = checked(position, &entry, store)?;
        if let Some(newer) = seen.last()
            && newer.group != header.group
        {
            // Everything of the newest group is seen, and it has no end or no beginning.
            if !incomplete.is_empty() {
                return Err(damage(position, "two groups at the end are incomplete"));
            }
            incomplete.extend(seen.drain(..).map(|h| h.position));
        }
        seen.push(header);
        // I7: with one part missing, none of them counts.
        let complete = header.part == 0
            && (seen.len() == header.parts as usize || fault::bug(Bug::HalfGroupBelieved));
        if complete {
            head = seen.first().copied();
        }
        Ok(!complete)
    })?;
    match head {
        Some(last) => Ok(Head { last, incomplete }),
        None => Err(damage(0, "no complete group is left")),
    }
}

/// Visits every event from tail to head, and every entry with its size.
pub(crate) fn replay(
    journal: &mut dyn Journal,
    head: &Head,
    visit: &mut dyn FnMut(Visit<'_, '_>) -> Result<(), String>,
) -> Result<()> {
    let mut replay = Replay::to(&head.last);
    journal.scan(head.last.tail, &mut |position, entry| {
        replay.take(position, &entry, visit)
    })?;
    replay.end()
}

/// A replay that is handed its entries one by one, wherever they come from. I9: fails on the first thing
/// that is not exactly as it was written.
pub(crate) struct Replay {
    last: Header,
    before: Option<Header>,
    skipped: u64,
}

impl Replay {
    /// From the tail that this entry names to the entry itself, the head.
    pub(crate) fn to(last: &Header) -> Replay {
        Replay {
            last: *last,
            before: None,
            skipped: 0,
        }
    }

    /// The next entry. False: it was the head.
    pub(crate) fn take(
        &mut self,
        position: u64,
        entry: &EntryBytes,
        visit: &mut dyn FnMut(Visit<'_, '_>) -> Result<(), String>,
    ) -> Result<bool> {
        let header = checked(position, entry, self.last.store)?;
        follows(self.before.as_ref(), &header, &self.last)?;
        // Memory is taken per position, so a gap is not believed without end.
        let gap = self
            .before
            .map_or(0, |before| position - before.position - 1);
        self.skipped += gap;
        if self.skipped > SKIPPED_MAX {
            return Err(damage(position, "too many positions before it are unused"));
        }
        let told = |reason: String| damage(position, &reason);
        let bytes = entry.len();
        visit(Visit::Entry(&header, bytes)).map_err(told)?;
        for frame in Frames::new(entry, &header) {
            let (event, place) = frame.map_err(|e| unreadable(position, e))?;
            visit(Visit::Event(
                &event,
                Stamp {
                    place,
                    at_ms: header.at_ms,
                    epoch: header.epoch,
                },
            ))
            .map_err(told)?;
        }
        self.before = Some(header);
        Ok(position < self.last.position)
    }

    /// No more entries: whether the head was reached.
    pub(crate) fn end(self) -> Result<()> {
        match self.before {
            Some(end) if end.hash == self.last.hash => Ok(()),
            Some(end) => Err(damage(
                end.position + 1,
                "entries up to the head are missing",
            )),
            None => Err(damage(
                self.last.tail,
                "the oldest entry that is needed is missing",
            )),
        }
    }
}

/// What a replay comes by.
pub(crate) enum Visit<'v, 'e> {
    /// An entry, and how many bytes it has.
    Entry(&'v Header, usize),
    Event(&'v Event<'e>, Stamp),
}

/// Reads an entry's header and checks that it belongs here.
fn checked(position: u64, entry: &EntryBytes, store: u128) -> Result<Header> {
    let header = Header::read(entry).map_err(|e| unreadable(position, e))?;
    if header.store != store {
        return Err(damage(position, "it belongs to another store"));
    }
    if header.position != position {
        return Err(damage(
            position,
            &format!("it was written for position {}", header.position),
        ));
    }
    Ok(header)
}

/// J4: checks the chain between neighbours.
fn follows(before: Option<&Header>, header: &Header, last: &Header) -> Result<()> {
    let position = header.position;
    let Some(before) = before else {
        // The chain above proves this entry; that it is the right one, the head's tail says.
        return if position == last.tail {
            Ok(())
        } else {
            Err(damage(
                last.tail,
                "the oldest entry that is needed is missing",
            ))
        };
    };
    if position <= before.position {
        return Err(damage(position, "the positions do not rise"));
    }
    if header.previous != before.hash {
        return Err(damage(position, "it does not follow the entry before it"));
    }
    let same_group = header.group == before.group;
    let in_order = if same_group {
        header.part == before.part + 1 && header.parts == before.parts
    } else {
        header.group > before.group && header.part == 0 && before.part + 1 == before.parts
    };
    if in_order {
        Ok(())
    } else {
        Err(damage(
            position,
            "a group is incomplete before the end of the journal",
        ))
    }
}

fn unreadable(position: u64, error: ReadError) -> Error {
    match error {
        ReadError::Newer { what, found, known } => Error::NewerFormat {
            path: "journal".into(),
            what,
            found,
            known,
        },
        ReadError::Damaged(reason) => damage(position, &reason),
    }
}

fn damage(position: u64, reason: &str) -> Error {
    Error::Damaged {
        path: "journal".into(),
        what: format!("entry {position}"),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Draft;
    use super::super::{Geometry, MemoryDisk, commit};
    use super::*;
    use crate::ledger::RootRecord;

    /// Two groups, all hashes right, with so many positions unused between them.
    fn replayed(gap: u64) -> Result<()> {
        let mut chain = Chain::first(7);
        let mut journal = MemoryDisk::default().journal();
        for _ in 0..2 {
            let mut draft = Draft::new(Geometry::DEFAULT);
            draft.begin(&chain);
            draft.push(&Event::RootSet(RootRecord::default()))?;
            let group = draft.seal(&mut chain, 0, 1, 0);
            commit(&mut journal, &group, &mut [].into(), Geometry::DEFAULT)?;
            chain.next_position += gap;
        }
        let head = find_head(&mut journal, 7)?;
        replay(&mut journal, &head, &mut |_| Ok(()))
    }

    #[test]
    fn a_gap_is_not_believed_without_end() {
        replayed(0).unwrap();
        replayed(5_000).unwrap();
        replayed(SKIPPED_MAX).unwrap();
        for gap in [SKIPPED_MAX + 1, 1 << 40, 1 << 61] {
            let refused = replayed(gap).unwrap_err();
            assert!(matches!(refused, Error::Damaged { .. }), "{gap}: {refused}");
        }
    }

    /// Position, group, part of parts; the hash is the position's, and it follows the position before.
    fn header(position: u64, group: u64, part: u32, parts: u32) -> Header {
        let hash = |position: u64| [u8::try_from(position).unwrap(); 32];
        Header {
            store: 7,
            epoch: 1,
            group,
            part,
            parts,
            position,
            at_ms: 0,
            tail: 5,
            digest: 0,
            previous: hash(position - 1),
            hash: hash(position),
        }
    }

    #[test]
    fn an_entry_follows_one_other() {
        let last = header(9, 9, 0, 1);
        follows(None, &header(5, 3, 0, 1), &last).unwrap();
        follows(None, &header(6, 4, 0, 1), &last).unwrap_err();
        let (whole, half) = (header(5, 3, 0, 1), header(5, 3, 0, 2));
        for (before, next) in [
            (whole, header(6, 4, 0, 1)),
            (whole, header(6, 7, 0, 3)),
            (half, header(6, 3, 1, 2)),
            (header(5, 3, 1, 2), header(6, 4, 0, 1)),
        ] {
            follows(Some(&before), &next, &last).unwrap();
        }
        let after = |position| Header {
            previous: whole.hash,
            ..header(position, 4, 0, 1)
        };
        for (before, next, why) in [
            (whole, after(5), "do not rise"),
            (whole, after(4), "do not rise"),
            (whole, header(7, 4, 0, 1), "does not follow"),
            (whole, header(6, 3, 0, 1), "incomplete"),
            (whole, header(6, 3, 1, 2), "incomplete"),
            (whole, header(6, 2, 0, 1), "incomplete"),
            (whole, header(6, 4, 1, 2), "incomplete"),
            (half, header(6, 3, 0, 2), "incomplete"),
            (half, header(6, 3, 1, 3), "incomplete"),
            (half, header(6, 4, 0, 1), "incomplete"),
        ] {
            let refused = follows(Some(&before), &next, &last)
                .unwrap_err()
                .to_string();
            assert!(
                refused.contains(why),
                "{next:?} after {before:?}: {refused}"
            );
        }
    }

    #[test]
    fn a_replay_ends_at_the_head() {
        let last = header(9, 9, 0, 1);
        let ended = |before| {
            let replay = Replay {
                last,
                before,
                skipped: 0,
            };
            replay.end().map_err(|error| error.to_string())
        };
        ended(Some(last)).unwrap();
        assert!(
            ended(Some(header(8, 8, 0, 1)))
                .unwrap_err()
                .contains("entry 9")
        );
        assert!(ended(None).unwrap_err().contains("entry 5"));
    }
}
