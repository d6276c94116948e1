use std::fs;

use jobsled::{Engine, Error};

use super::{Stored, same_tree, says, tree};

/// A store of a newer format is refused with both versions and not touched; so is one with a damaged header.
#[test]
fn a_newer_store_format() {
    let stored = Stored::new();
    let path = stored.store.join("journal").join("jobsled");
    let whole = fs::read(&path).unwrap();
    let mut newer = whole[..whole.len() - 8].to_vec();
    newer[8..12].copy_from_slice(&2_u32.to_le_bytes());
    newer.extend_from_slice(&blake3::hash(&newer).as_bytes()[..8]);
    fs::write(&path, &newer).unwrap();
    let before = tree(&stored.store);
    let error = Engine::builder(&stored.store).open().unwrap_err();
    assert!(
        matches!(
            error,
            Error::NewerFormat {
                what: "store format",
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    says(
        &error,
        &[
            "store",
            "newer version",
            "2",
            "up to 1",
            "update this program",
            "Nothing was changed",
        ],
    );
    same_tree(&stored.store, &before, "a newer store format");

    // A layout of records that this build cannot read (another rkyv feature).
    let mut layout = whole[..whole.len() - 8].to_vec();
    layout[40] ^= 1;
    layout.extend_from_slice(&blake3::hash(&layout).as_bytes()[..8]);
    fs::write(&path, &layout).unwrap();
    let error = Engine::builder(&stored.store).open().unwrap_err();
    assert!(matches!(error, Error::Layout { .. }), "{error}");
    says(
        &error,
        &["layout", "rkyv", "little_endian", "Nothing was changed"],
    );

    // No format at all: every byte counts, and so does the length.
    for damage in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[damage] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let error = Engine::builder(&stored.store).open().unwrap_err();
        let expected = matches!(error, Error::Damaged { .. } | Error::NewerFormat { .. });
        assert!(expected, "byte {damage}: {error}");
        fs::write(&path, &whole[..damage]).unwrap();
        let error = Engine::builder(&stored.store).open().unwrap_err();
        assert!(
            matches!(error, Error::Damaged { .. }),
            "cut at {damage}: {error}"
        );
        says(
            &error,
            &["jobsled", "store header", "left alone", "keep a copy"],
        );
    }
    fs::remove_file(&path).unwrap();
    let missing = Engine::builder(&stored.store).open().unwrap_err();
    fs::write(&path, &whole).unwrap();
    stored.check();
    assert!(
        matches!(missing, Error::Damaged { .. }),
        "a missing header is damage: {missing}"
    );
}

/// An entry of a newer format is refused with both versions, and not touched.
#[test]
fn a_newer_entry_format() {
    let stored = Stored::new();
    let journal = stored.store.join("journal");
    {
        let db = sled::Config::new()
            .path(&journal)
            .segment_size(4 << 20)
            .flush_every_ms(None)
            .open()
            .unwrap();
        let (key, entry) = db.last().unwrap().unwrap();
        let mut newer = entry.to_vec();
        newer[4..6].copy_from_slice(&2_u16.to_le_bytes());
        db.insert(key, newer).unwrap();
        db.flush().unwrap();
    }
    // sled lets go of its file on a thread of its own.
    let db = fs::File::open(journal.join("db")).unwrap();
    db.lock().unwrap();
    drop(db);
    let before = tree(&stored.store);
    let error = Engine::builder(&stored.store).open().unwrap_err();
    assert!(
        matches!(
            error,
            Error::NewerFormat {
                what: "entry format",
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    says(
        &error,
        &[
            "store",
            "newer version",
            "2",
            "up to 1",
            "update this program",
            "Nothing was changed",
        ],
    );
    same_tree(&stored.store, &before, "a newer entry format");
}
