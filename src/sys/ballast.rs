//! A file of really allocated bytes that is given up when the disk is so full that the store could
//! not even be opened (sled writes while it opens).
//!
//! It is insurance: not having room for it is an answer, not an error.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::files;

const FILE_NAME: &str = "ballast";

/// Makes the ballast exactly `bytes` long and syncs it. `false` when the disk has no room: then it
/// stays as long as it was.
pub(crate) fn ensure(dir: &Path, bytes: u64) -> io::Result<bool> {
    let path = dir.join(FILE_NAME);
    let file = files::private_file()
        .create(true)
        .truncate(false)
        .open(&path)?;
    let before = file.metadata()?.len();
    if before == bytes {
        return Ok(true);
    }
    match fill(&file, before, bytes) {
        Ok(()) => Ok(true),
        Err(refusal) if is_no_room(refusal.kind()) => {
            // What was allocated until then.
            cut(&file, before)?;
            Ok(false)
        }
        Err(refusal) => Err(refusal),
    }
}

/// Gives the ballast's space back to the disk. `false` when there was none.
pub(crate) fn release(dir: &Path) -> io::Result<bool> {
    let path = dir.join(FILE_NAME);
    match fs::OpenOptions::new().write(true).open(path) {
        Ok(file) if file.metadata()?.len() > 0 => cut(&file, 0).map(|()| true),
        Ok(_) => Ok(false),
        Err(refusal) if refusal.kind() == ErrorKind::NotFound => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

fn fill(file: &File, before: u64, bytes: u64) -> io::Result<()> {
    if before > bytes {
        return cut(file, bytes);
    }
    files::allocate(file, bytes)?;
    file.sync_all()
}

/// Cutting needs no space on any file system; removing the entry does on some that copy on write.
/// Synced, because some free the blocks only then.
fn cut(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)?;
    file.sync_all()
}

/// Whether the system refused because there is no space, or none for this user.
pub(crate) fn is_no_room(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn it_is_taken_resized_and_given_back() {
        let dir = TempDir::new().unwrap();
        let len = || fs::metadata(dir.path().join(FILE_NAME)).unwrap().len();
        assert!(!release(dir.path()).unwrap());
        for bytes in [100_000, 100_000, 300_000, 50_000] {
            assert!(ensure(dir.path(), bytes).unwrap());
            assert_eq!(len(), bytes);
        }
        assert!(release(dir.path()).unwrap());
        assert_eq!(len(), 0);
        assert!(!release(dir.path()).unwrap());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn no_room_is_an_answer() {
        let dir = TempDir::new().unwrap();
        // Larger than the disk (ENOSPC) or than a file may be (EFBIG), whichever comes first. Only
        // where space is really allocated: a disk of 2^62 bytes is not written with zeroes here.
        for before in [0, 50_000] {
            assert!(ensure(dir.path(), before).unwrap());
            assert!(!ensure(dir.path(), 1 << 62).unwrap());
            assert_eq!(
                fs::metadata(dir.path().join(FILE_NAME)).unwrap().len(),
                before
            );
        }
        assert!(ensure(dir.path().join("missing").as_path(), 1).is_err());
    }
}
