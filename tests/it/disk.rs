use std::fs;
use std::path::Path;
use std::time::Duration;

use jobsled::{Context, Engine, JobResult, State, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Bytes {
    bytes: Vec<u8>,
}
job!(Bytes, kind = "bytes", output = Vec<u8>);

const MINUTE: Duration = Duration::from_mins(1);
/// Two payloads of this size fill an entry of the journal nearly to its cap.
const HALF_AN_ENTRY: usize = 27_000;
/// Payloads up to this size ride in the journal.
const INLINE_MAX: usize = 24 << 10;

/// sled never syncs a blob, so nothing may become one: whatever the sizes of payloads and outputs, with leaves of
/// sixteen full entries, while jobs come, run and go, and over every reopening.
#[test]
fn nothing_becomes_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let sizes = [
        0,
        1,
        300,
        4 << 10,
        INLINE_MAX - 8,
        INLINE_MAX,
        100_000,
        1 << 20,
    ];
    for round in 1..=3_u64 {
        let engine = Engine::builder(&store).handle(give_back).open().unwrap();
        engine.queue("stays").pause().unwrap();
        for queue in ["default", "stays"] {
            let mut batch = engine.batch();
            for size in sizes.into_iter().chain([HALF_AN_ENTRY; 60]) {
                batch.add_request(engine.job(bytes(size)).queue(queue));
            }
            batch.enqueue().unwrap();
        }
        assert!(engine.queue("default").wait_until_idle(MINUTE).unwrap());
        assert_eq!(blobs(&store), Vec::<String>::new(), "in round {round}");
        let stay = engine.jobs().state(State::Ready).count().unwrap();
        assert_eq!(stay, round * 68);
        engine.shutdown(MINUTE).unwrap();
        assert_eq!(
            blobs(&store),
            Vec::<String>::new(),
            "closed in round {round}"
        );
    }
}

fn bytes(size: usize) -> Bytes {
    Bytes {
        bytes: vec![7; size],
    }
}

fn give_back(job: Bytes, _cx: &Context) -> JobResult<Vec<u8>> {
    Ok(job.bytes)
}

/// The names in sled's folder for blobs, which it makes when it opens a log.
fn blobs(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store.join("journal").join("blobs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}
