use std::fs;
use std::path::Path;

use jobsled::{Engine, Error};

use super::{Stored, same_tree, says, tree};

/// A store of a newer format is refused with both versions and not touched.
#[test]
fn a_newer_store_format() {
    let stored = Stored::new();
    let path = stored.store.join("journal").join("jobsled");
    let whole = fs::read(&path).unwrap();
    let newer = sealed(&whole, |header| {
        header[8..12].copy_from_slice(&2_u32.to_le_bytes());
    });
    fs::write(&path, &newer).unwrap();
    refused_as_newer(&stored.store, "store format");
    fs::write(&path, &whole).unwrap();
    stored.check();
}

/// The store's header with a change that its checksum covers.
fn sealed(whole: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let (header, _checksum) = whole.split_last_chunk::<8>().unwrap();
    let mut header = header.to_vec();
    change(&mut header);
    header.extend_from_slice(&blake3::hash(&header).as_bytes()[..8]);
    header
}

/// Opening tells both versions and changes nothing.
#[track_caller]
fn refused_as_newer(store: &Path, format: &str) {
    let before = tree(store);
    let error = Engine::builder(store).open().unwrap_err();
    let Error::NewerFormat {
        what, found, known, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*what, *found, *known), (format, 2, 1), "{error}");
    let words = "store|newer version|2|up to 1|update this program|Nothing was converted";
    says(&error, &words.split('|').collect::<Vec<_>>());
    same_tree(store, &before, format);
}

/// A header with another layout of records (another rkyv feature), damaged, cut short or missing is refused as such.
#[test]
fn a_store_header_that_cannot_be_used() {
    let stored = Stored::new();
    let path = stored.store.join("journal").join("jobsled");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, sealed(&whole, |header| header[40] ^= 1)).unwrap();
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
        let expected = matches!(error, Error::Damaged { .. });
        assert!(expected, "byte {damage}: {error}");
        fs::write(&path, &whole[..damage]).unwrap();
        let error = Engine::builder(&stored.store).open().unwrap_err();
        assert!(
            matches!(error, Error::Damaged { .. }),
            "cut at {damage}: {error}"
        );
        says(
            &error,
            &[
                "jobsled",
                "store header",
                "Nothing was repaired",
                "jobsled repair",
            ],
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
        let mut hasher = blake3::Hasher::new();
        hasher.update(&newer[..128]).update(&newer[160..]);
        let hash = *hasher.finalize().as_bytes();
        newer[128..160].copy_from_slice(&hash);
        db.insert(key, newer).unwrap();
        db.flush().unwrap();
    }
    // sled lets go of its file on a thread of its own.
    let db = fs::File::open(journal.join("db")).unwrap();
    db.lock().unwrap();
    drop(db);
    refused_as_newer(&stored.store, "entry format");
}
