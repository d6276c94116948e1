//! The job: hash one file. And the engine that it is stored in.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use jobsled::{Engine, EngineBuilder, JobDefaults, OnCrash, Queue, job, rkyv};

use super::plan::FILE_BYTES_MAX;

const QUEUE: &str = "files";

/// Hash one file. The output is `None` if the file could not be read (any more).
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct HashFile {
    /// Below the root of the plan.
    pub(super) path: String,
}

pub(super) type Hash = [u8; 32];

job!(
    HashFile,
    kind = "hash-file",
    output = Option<Hash>,
    // A kill from outside is not the fault of the job that it hits: it is never quarantined for it.
    defaults = JobDefaults::new().queue(QUEUE).on_crash(OnCrash::Rerun)
);

impl HashFile {
    /// Reads the file piece by piece.
    pub(super) fn hash(&self, root: &Path) -> std::io::Result<Hash> {
        // One that has grown since it was planned is not hashed to its end.
        let mut file = File::open(root.join(&self.path))?.take(FILE_BYTES_MAX);
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(hasher.finalize().into()),
                read => hasher.update(piece.get(..read).unwrap_or_default()),
            };
        }
    }
}

/// Options for the demo's store. Every finished job is kept: the check at the end looks at each.
pub(super) fn engine(store: &Path) -> EngineBuilder {
    Engine::builder(store).queue(Queue::new(QUEUE).keep_finished(usize::MAX))
}
