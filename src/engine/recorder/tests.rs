use std::fs;

use tempfile::TempDir;

use xxhash_rust::xxh3::xxh3_64;

use super::*;

const STORE: u128 = u128::MAX / 3;

fn spot(epoch: u64, place: u32, job: u64, claim: u64) -> Spot {
    let after = 0;
    Spot {
        epoch,
        place,
        job,
        claim,
        after,
    }
}

/// A recorder whose machine was booted as `boot`.
fn opened(dir: &TempDir, store: u128, boot: u64) -> Recorder {
    let path = dir.path().join("recorder");
    Recorder {
        boot,
        ..Recorder::open(&path, store).unwrap()
    }
}

fn bytes(dir: &TempDir) -> Vec<u8> {
    fs::read(dir.path().join("recorder")).unwrap()
}

/// Epoch 5: claim 10 started, claim 11 ended, claim 12 never ran.
fn crashed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let recorder = opened(&dir, STORE, 1);
    recorder.start_epoch(5);
    recorder.begin(&spot(5, 0, 100, 10));
    recorder.begin(&spot(5, 1, 101, 11));
    recorder.end(&spot(5, 1, 101, 11));
    dir
}

fn verdicts(recording: &Recording) -> [Verdict; 3] {
    [(100, 10), (101, 11), (102, 12)].map(|(job, claim)| recording.verdict(5, job, claim))
}

const PROVEN: [Verdict; 3] = [Verdict::Started, Verdict::Ended, Verdict::NotStarted];
const NO_ABSENCE: [Verdict; 3] = [Verdict::Started, Verdict::Ended, Verdict::Started];
const NOTHING: [Verdict; 3] = [Verdict::Started; 3];

#[test]
fn the_store_is_told_from_outside() {
    let dir = crashed();
    let told = || store_told(&dir.path().join("recorder"));
    assert_eq!(told(), Some(STORE));
    fs::write(dir.path().join("recorder"), [7; 640]).unwrap();
    assert_eq!(told(), None);
    fs::remove_file(dir.path().join("recorder")).unwrap();
    assert_eq!(told(), None);
}

#[test]
fn both_halves_of_a_boot_count() {
    assert_eq!(folded(0), 0);
    assert_eq!(folded(6 << 64 | 3), 5);
    assert_eq!(folded(u128::from(u64::MAX) << 64 | 1), u64::MAX - 1);
}

#[test]
fn a_crash_leaves_what_was_recorded() {
    let dir = crashed();
    let recorder = opened(&dir, STORE, 1);
    let recording = recorder.read().unwrap();
    let trace = Trace {
        epoch: 5,
        same_boot: true,
        job: 100,
        claim: 10,
        after: 0,
        phase: Phase::Started,
    };
    let ended = Trace {
        job: 101,
        claim: 11,
        phase: Phase::Ended,
        ..trace
    };
    assert_eq!(
        recording,
        Recording {
            traces: vec![trace, ended],
            complete_epoch: Some(5)
        }
    );
    assert_eq!(verdicts(&recording), PROVEN);
    assert_eq!(
        recorder.read().unwrap(),
        recording,
        "reading changes nothing"
    );
    assert_eq!(
        recording.verdict(4, 100, 10),
        Verdict::Started,
        "another epoch is unknown"
    );
}

#[test]
fn a_new_epoch_forgets_and_vouches() {
    let dir = crashed();
    let recorder = opened(&dir, STORE, 1);
    recorder.start_epoch(6);
    let recording = recorder.read().unwrap();
    assert_eq!(
        recording,
        Recording {
            traces: vec![],
            complete_epoch: Some(6)
        }
    );
    assert_eq!(verdicts(&recording), NOTHING);
    assert_eq!(bytes(&dir).len(), RESERVED_LEN);
}

#[test]
fn a_place_is_used_again() {
    let dir = crashed();
    let recorder = opened(&dir, STORE, 1);
    recorder.begin(&spot(5, 1, 102, 12));
    let recording = recorder.read().unwrap();
    assert_eq!(recording.verdict(5, 102, 12), Verdict::Started);
    assert_eq!(recording.traces.len(), 2);
}

#[test]
fn another_boot_store_or_an_unknown_boot_prove_nothing() {
    let dir = crashed();
    let rebooted = opened(&dir, STORE, 2).read().unwrap();
    assert!(rebooted.traces.len() == 2 && rebooted.traces.iter().all(|t| !t.same_boot));
    assert_eq!(verdicts(&rebooted), NOTHING);
    let foreign = opened(&dir, STORE + 1, 1).read().unwrap();
    assert_eq!(foreign, Recording::default());

    let unknown = opened(&dir, STORE, 0);
    unknown.start_epoch(5);
    unknown.begin(&spot(5, 0, 100, 10));
    unknown.end(&spot(5, 0, 100, 10));
    assert_eq!(verdicts(&unknown.read().unwrap()), NOTHING);
}

#[test]
fn a_lost_or_empty_file_proves_nothing() {
    let dir = TempDir::new().unwrap();
    assert_eq!(verdicts(&opened(&dir, STORE, 1).read().unwrap()), NOTHING);
    let dir = crashed();
    fs::remove_file(dir.path().join("recorder")).unwrap();
    assert_eq!(verdicts(&opened(&dir, STORE, 1).read().unwrap()), NOTHING);
}

#[test]
fn a_begin_that_fails_withdraws_the_head() {
    let dir = crashed();
    let recorder = opened(&dir, STORE, 1);
    recorder.end(&spot(5, PLACES_MAX, 102, 12));
    assert_eq!(
        verdicts(&recorder.read().unwrap()),
        PROVEN,
        "a lost end is harmless"
    );
    recorder.begin(&spot(5, PLACES_MAX, 102, 12));
    assert_eq!(verdicts(&recorder.read().unwrap()), NO_ABSENCE);
    recorder.begin(&spot(5, 7, 103, 13));
    assert_eq!(
        recorder.read().unwrap().complete_epoch,
        None,
        "and it stays so"
    );
    recorder.start_epoch(6);
    assert_eq!(
        recorder.read().unwrap().complete_epoch,
        Some(6),
        "until the next epoch"
    );
}

#[test]
fn a_file_that_cannot_be_written_stops_nobody() {
    let dir = crashed();
    let path = dir.path().join("recorder");
    let file = Some((File::open(&path).unwrap(), path));
    let broken = Recorder {
        file,
        ..opened(&dir, STORE, 1)
    };
    broken.start_epoch(6);
    broken.begin(&spot(6, 0, 1, 1));
    broken.end(&spot(6, 0, 1, 1));
    assert!(broken.warned.load(Ordering::Relaxed));
    assert_eq!(verdicts(&broken.read().unwrap()), PROVEN);
}

#[test]
fn without_a_file_nothing_happens() {
    let none = Recorder::none();
    none.start_epoch(1);
    none.begin(&spot(1, u32::MAX, 1, 1));
    none.end(&spot(1, 0, 1, 1));
    assert_eq!(none.read().unwrap(), Recording::default());
}

/// A handler that outlived its engine noted its end in the file of the next epoch.
#[test]
fn nothing_is_written_once_it_is_closed() {
    let dir = TempDir::new().unwrap();
    let [old, new] = [(); 2].map(|()| opened(&dir, STORE, 1));
    old.start_epoch(5);
    assert!(old.begin(&spot(5, 0, 100, 10)));
    old.close();
    new.start_epoch(6);
    assert!(new.begin(&spot(6, 0, 101, 11)));
    old.end(&spot(5, 0, 100, 10));
    assert!(!old.begin(&spot(5, 0, 102, 12)), "and no handler runs");
    let recording = new.read().unwrap();
    assert_eq!(recording.verdict(6, 101, 11), Verdict::Started);
    assert_eq!(recording.traces.len(), 1);
}

#[test]
fn every_damaged_byte_takes_the_proof_away() {
    let dir = crashed();
    let whole = bytes(&dir);
    for at in 0..4 * PLACE_LEN {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(dir.path().join("recorder"), &damaged).unwrap();
        let recording = opened(&dir, STORE, 1).read().unwrap();
        assert_eq!(recording.complete_epoch, None, "byte {at}");
        assert_eq!(recording.verdict(5, 102, 12), Verdict::Started, "byte {at}");
    }
    for len in [0, 1, 63, 65, 100, 150] {
        fs::write(dir.path().join("recorder"), &whole[..len]).unwrap();
        let recording = opened(&dir, STORE, 1).read().unwrap();
        assert_eq!(recording.complete_epoch, None, "{len} bytes");
    }
}

#[test]
fn a_record_at_another_place_is_garbage() {
    let dir = crashed();
    let mut moved = bytes(&dir);
    moved.copy_within(PLACE_LEN..2 * PLACE_LEN, 5 * PLACE_LEN);
    fs::write(dir.path().join("recorder"), moved).unwrap();
    let recording = opened(&dir, STORE, 1).read().unwrap();
    assert_eq!(
        (recording.traces.len(), recording.complete_epoch),
        (2, None)
    );
}

#[test]
fn random_bytes_never_panic() {
    let dir = TempDir::new().unwrap();
    let mut noise = blake3::Hasher::new_keyed(&[9; 32]).finalize_xof();
    for len in 0..400 {
        let mut bytes = vec![0; len];
        noise.fill(&mut bytes);
        fs::write(dir.path().join("recorder"), &bytes).unwrap();
        let recording = opened(&dir, STORE, 1).read().unwrap();
        assert_eq!(recording, Recording::default());
    }
}

#[test]
fn the_layout_is_the_documented_one() {
    let (store, epoch, boot, job, claim, after) = (STORE, 2, 3, 4, 5, 6);
    let record = Record {
        store,
        epoch,
        boot,
        job,
        claim,
        after,
        mark: Mark::Ended,
    };
    let bytes = record.encode(7);
    assert_eq!((place_offset(0), place_offset(6)), (64, 7 * 64));
    assert_eq!(bytes[..16], STORE.to_le_bytes());
    let fields = [16, 24, 32, 40, 48, 56, 57, 58].map(|at| bytes[at]);
    assert_eq!(fields, [2, 3, 4, 5, 6, 2, 2, 0]);
    let checked = [&bytes[..60], &7_u32.to_le_bytes()].concat();
    assert_eq!(bytes[60..], xxh3_64(&checked).to_le_bytes()[..4]);
    assert_eq!(Record::decode(&bytes, 7), Some(record));
    assert_eq!(Record::decode(&bytes, 8), None);
}

/// One write says of two claims what became of them, and goes on saying it when the second ends.
#[test]
fn a_begin_tells_of_the_end_before_it() {
    let dir = TempDir::new().unwrap();
    let recorder = opened(&dir, STORE, 1);
    recorder.start_epoch(5);
    recorder.begin(&spot(5, 0, 100, 10));
    let second = Spot {
        after: 10,
        ..spot(5, 1, 101, 11)
    };
    let told = || {
        let recording = recorder.read().unwrap();
        [(100, 10), (101, 11), (102, 0)].map(|(job, claim)| recording.verdict(5, job, claim))
    };
    recorder.begin(&second);
    let [ended, started, never] = [Verdict::Ended, Verdict::Started, Verdict::NotStarted];
    assert_eq!(told(), [ended, started, never]);
    recorder.end(&second);
    assert_eq!(told(), [ended, ended, never]);
    // Of another epoch it says nothing.
    let other = recorder.read().unwrap().verdict(4, 100, 10);
    assert_eq!(other, Verdict::Started);
}

#[test]
fn threads_record_at_once() {
    let dir = TempDir::new().unwrap();
    let recorder = opened(&dir, STORE, 1);
    recorder.start_epoch(1);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let recorder = &recorder;
            scope.spawn(move || {
                for place in (thread * 500)..(thread * 500 + 500) {
                    recorder.begin(&spot(1, place, u64::from(place), u64::from(place) + 1));
                    if place % 2 == 0 {
                        recorder.end(&spot(1, place, u64::from(place), u64::from(place) + 1));
                    }
                }
            });
        }
    });
    let recording = recorder.read().unwrap();
    assert_eq!(
        (recording.traces.len(), recording.complete_epoch),
        (2_000, Some(1))
    );
    for place in 0..2_000_u64 {
        let want = if place % 2 == 0 {
            Verdict::Ended
        } else {
            Verdict::Started
        };
        assert_eq!(recording.verdict(1, place, place + 1), want);
    }
}
