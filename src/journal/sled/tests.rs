use std::collections::VecDeque;
use std::fs;

use tempfile::TempDir;

use super::*;

const GEOMETRY: Geometry = Geometry {
    segment_bytes: 64 << 10,
    entry_cap: 900,
    sync_budget: 8 << 10,
};

/// A closed journal, opened, with 40 entries more that are synced.
fn opened() -> (TempDir, Swap, SledJournal) {
    let dir = TempDir::new().unwrap();
    let swap = Swap::of(dir.path(), "journal");
    fs::create_dir(&swap.new).unwrap();
    SledJournal::make(&swap, GEOMETRY, |_| Ok(())).unwrap();
    swap.put_in_place().unwrap();
    let mut journal = SledJournal::open(&swap, GEOMETRY, &mut |_| Ok(())).unwrap();
    for position in 1..=40_u8 {
        journal
            .append(position.into(), &Arc::new(vec![position; 300]))
            .unwrap();
        journal.sync().unwrap();
    }
    (dir, swap, journal)
}

fn entries(journal: &SledJournal) -> u64 {
    journal.fingerprint().unwrap().entries
}

/// One bit goes bad in the log of an open journal: sled would end the log there, and the copy with what is
/// left would take the original's place.
#[test]
fn closing_keeps_a_log_that_sled_would_cut() {
    let mut kept = 0;
    for entry in [2_u8, 10, 20, 39, 40] {
        let (_dir, swap, journal) = opened();
        let log = swap.now.join("db");
        let mut bytes = fs::read(&log).unwrap();
        let at = bytes.windows(300).rposition(|b| b == [entry; 300]).unwrap();
        bytes[at + 100] ^= 1;
        let flipped = bytes[at..at + 300].to_vec();
        sys::files::write_at(&journal.file, at as u64, &flipped).unwrap();
        Box::new(journal).close().unwrap();

        let after = fs::read(&log).unwrap();
        let is_kept = after.get(at..at + 300) == Some(&flipped[..]);
        kept += u32::from(is_kept);
        let whole = SledJournal::open_files(&swap.now, &swap, GEOMETRY)
            .is_ok_and(|journal| journal.fingerprint().is_ok_and(|held| held.entries == 40));
        assert!(is_kept || whole, "entry {entry}: the evidence is gone");
        assert!(!swap.new.exists() && !swap.old.exists());
    }
    assert!(kept > 0, "no flip hit anything that sled reads");
}

#[test]
fn closing_renews_a_sound_log() {
    let (_dir, swap, journal) = opened();
    let before = journal.fingerprint().unwrap();
    Box::new(journal).close().unwrap();
    let reopened = SledJournal::open(&swap, GEOMETRY, &mut |_| Ok(())).unwrap();
    assert_eq!(entries(&reopened), 40);
    assert_eq!(reopened.fingerprint().unwrap(), before);
}

/// A long life with a few entries at a time, also over an opening: what holds their places goes with them.
#[test]
fn prepared_keys_and_spacers_do_not_pile_up() {
    let (_dir, swap, mut journal) = opened();
    let mut held: VecDeque<u64> = (1..=40).collect();
    // With a gap, as a group that was cut short leaves one.
    for position in (41..300).chain(350..=1_000) {
        if position == 500 {
            journal.shut().unwrap();
            journal = SledJournal::open(&swap, GEOMETRY, &mut |_| Ok(())).unwrap();
        }
        journal.append(position, &Arc::new(vec![7; 300])).unwrap();
        held.push_back(position);
        // With the positions in the gap: whatever is below the tail.
        let gone = held.pop_front().unwrap()..held[0];
        gone.for_each(|position| journal.remove(position).unwrap());
        let read = |position: &u64| journal.read(*position).unwrap().unwrap().len();
        assert!(held.iter().map(read).all(|length| length == 300));
        journal.sync().unwrap();
    }
    let keys = journal.db().unwrap().len();
    assert!((250..400).contains(&keys), "{keys} keys for 40 entries");
    assert_eq!(entries(&journal), 40);
    let newest = journal.newest().unwrap().unwrap();
    assert_eq!((newest.0, newest.1.len()), (1_000, 300));
    let mut below = journal.positions_below(980).unwrap();
    assert!(below.drain(..).eq(961..980));
    // Prepared and not used: as good as not there.
    assert!(journal.read(1_001).unwrap().is_none());
    assert!(journal.positions_below(u64::MAX).unwrap().len() > 40);
}

/// A value where none may be is damage, and so is a key of another length.
#[test]
fn keys_that_are_not_ours_are_damage() {
    for (key, value, found) in [
        (&[0, 0, 0, 0, 0, 0, 0, 9, 0][..], &[1][..], "1 bytes"),
        (&[7; 10], &[], "10 bytes"),
    ] {
        let (_dir, _swap, journal) = opened();
        journal.db().unwrap().insert(key, value).unwrap();
        let refused = journal.fingerprint().unwrap_err().to_string();
        assert!(refused.contains(found), "{refused}");
    }
}

/// The check read so much that the copy is opened again, and the log was damaged in between.
#[test]
fn a_second_opening_must_hold_what_was_checked() {
    let (_dir, swap, journal) = opened();
    journal.shut().unwrap();
    let log = swap.new.join("db");
    let original = fs::read(swap.now.join("db")).unwrap();
    let refused = SledJournal::open(&swap, GEOMETRY, &mut |journal| {
        // Behind the snapshot, where sled looks at each record when it opens.
        journal.append(41, &Arc::new(vec![41; 300]))?;
        journal.sync()?;
        // More than RELEASE_MIN segments, by reading the same again.
        for _ in 0..40 {
            journal.scan(0, &mut |_, _| Ok(true))?;
        }
        let bytes = fs::read(&log).unwrap();
        let at = bytes.windows(300).rposition(|b| b == [41; 300]).unwrap();
        let file = File::options().write(true).open(&log).unwrap();
        sys::files::write_at(&file, (at + 100) as u64, &[0]).unwrap();
        Ok(())
    });
    let refused = refused.expect_err("the newest entry is gone").to_string();
    assert!(refused.contains("what it held before"), "{refused}");
    assert_eq!(fs::read(swap.now.join("db")).unwrap(), original);
}
