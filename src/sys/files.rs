//! File calls that say what is on disk when they return, and the few that std lacks.
//!
//! Functions that take a path answer with [`Error::Io`], which names it; those that take an open file
//! answer with the bare [`io::Error`], because only the caller knows what the file is.
//!
//! Everything made here is for its owner only (files 0600, directories 0700 on unix): payloads may
//! hold anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::fault::{self, Bug};

/// How deep [`copy_dir`] goes. A store has two levels; more is not ours.
const COPY_DEPTH_MAX: usize = 8;

/// Zeroes written at once where the system cannot allocate.
const ZEROES: usize = 64 << 10;

/// Puts a file's bytes and length on stable storage.
pub(crate) fn sync_file(path: &Path) -> Result<()> {
    // Windows flushes only what was opened for writing; unix files may be read-only to us.
    let mut options = OpenOptions::new();
    options.read(cfg!(unix)).write(!cfg!(unix));
    options
        .open(path)
        .and_then(|file| file.sync_all())
        .map_err(Error::io("sync", path))
}

/// Puts a directory's entries (what was created, renamed or removed in it) on stable storage.
///
/// Does nothing where directories cannot be opened (Windows): NTFS journals its entries in order.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    if !cfg!(unix) || fault::bug(Bug::NoDirectorySync) {
        return Ok(());
    }
    // `Path::parent` of a plain name is the empty path.
    let here = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(here)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("sync directory", here))
}

/// [`sync_dir`] of the directory that holds `path`. The root has none and needs none.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// Creates one directory that only its owner may enter. It is an error if something is there.
///
/// The new entry is on stable storage only after [`sync_parent`].
pub(crate) fn create_dir_private(path: &Path) -> Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only unix has modes"))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(Error::io("create directory", path))
}

/// Options for a file of ours: readable and writable by its owner only.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Writes a file that must not exist yet. On return its bytes are on stable storage; its entry in the
/// directory is so only after [`sync_parent`]. A file that could not be finished is removed.
pub(crate) fn write_new_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = private_file()
        .create_new(true)
        .open(path)
        .map_err(Error::io("create", path))?;
    if let Err(source) = file.write_all(bytes).and_then(|()| file.sync_all()) {
        // The first failure is the one to report; what is left over is half a file of ours.
        let _ = fs::remove_file(path);
        return Err(Error::io("write", path)(source));
    }
    Ok(())
}

/// Copies a directory of regular files, nested ones included, to a path that must not exist yet.
///
/// On return every file and directory of the copy is on stable storage, except for the entry of `to`
/// itself: the caller renames and then syncs the parent. After an error a part of the copy may be
/// there. Links and special files are refused: a store has none, and following them would leave it.
pub(crate) fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    copy_level(from, to, COPY_DEPTH_MAX)
}

fn copy_level(from: &Path, to: &Path, levels_left: usize) -> Result<()> {
    let refuse = |path: &Path, why: &str| {
        Err(Error::io("copy", path)(io::Error::new(
            ErrorKind::InvalidInput,
            why,
        )))
    };
    if levels_left == 0 {
        return refuse(from, "directories are nested too deeply");
    }
    let entries = fs::read_dir(from).map_err(Error::io("list", from))?;
    create_dir_private(to)?;
    for entry in entries {
        let entry = entry.map_err(Error::io("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry
            .file_type()
            .map_err(Error::io("inspect", source.as_path()))?;
        if kind.is_dir() {
            copy_level(&source, &target, levels_left - 1)?;
        } else if kind.is_file() {
            copy_file(&source, &target)?;
        } else {
            return refuse(&source, "it is neither a regular file nor a directory");
        }
    }
    sync_dir(to)
}

/// Copies one file to a path that must not exist yet; its bytes are on stable storage on return.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io("open", from))?;
    let mut target = private_file()
        .create_new(true)
        .open(to)
        .map_err(Error::io("create", to))?;
    io::copy(&mut source, &mut target).map_err(Error::io("copy", from))?;
    // On the descriptor that wrote, so that no failed write-back can be missed.
    target.sync_all().map_err(Error::io("sync", to))
}

/// Fails if a directory belongs to somebody else, or others may enter it.
#[cfg(feature = "control")]
pub(crate) fn check_private(path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).map_err(Error::io("look at", path))?;
    #[cfg(unix)]
    let private = {
        use std::os::unix::fs::MetadataExt;
        found.uid() == super::user_id() && found.mode().trailing_zeros() >= 6
    };
    #[cfg(not(unix))]
    let private = true;
    if found.is_dir() && private {
        return Ok(());
    }
    let why = "it is no directory of this user alone";
    Err(Error::io("use", path)(io::Error::new(
        ErrorKind::PermissionDenied,
        why,
    )))
}

/// Whether two paths are of the same file, as two names of one mounted directory are.
#[cfg(feature = "control")]
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    if let (Ok(one), Ok(other)) = (fs::metadata(one), fs::metadata(other)) {
        use std::os::unix::fs::MetadataExt;
        return (one.dev(), one.ino()) == (other.dev(), other.ino());
    }
    one == other
}

/// Whose a file is and who we are, if they differ. A path that is not there is nobody's.
#[cfg(feature = "control")]
pub(crate) fn check_owner(path: &Path) -> std::result::Result<(), (u32, u32)> {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(path) {
        use std::os::unix::fs::MetadataExt;
        if found.uid() != super::user_id() {
            return Err((found.uid(), super::user_id()));
        }
    }
    let _ = path;
    Ok(())
}

/// Bytes of all files below a directory.
pub(crate) fn bytes_below(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let found = fs::metadata(&path).map_err(Error::io("look at", path.as_path()))?;
        bytes += if found.is_dir() {
            bytes_below(&path)?
        } else {
            found.len()
        };
    }
    Ok(bytes)
}

/// Gives a directory another name, that of nothing or of an empty directory. On return the name is on
/// stable storage.
pub(crate) fn rename_dir(from: &Path, to: &Path) -> Result<()> {
    // Unix puts it in the place of an empty directory in one step. Elsewhere the name is free for a moment.
    if !cfg!(unix) && to.is_dir() {
        fs::remove_dir(to).map_err(Error::io("replace", to))?;
    }
    fs::rename(from, to).map_err(Error::io("rename to", to))?;
    sync_parent(to)
}

/// Removes a directory and all in it. Nothing there is fine.
pub(crate) fn remove_dir_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::io("remove directory", path)(source))
        }
        _ => Ok(()),
    }
}

/// Makes `file` at least `len` bytes long, with the disk blocks really taken. Bytes that are there
/// stay; new ones read as zero. Not synced.
///
/// File systems that copy on write or compress may still ask for more space on a later write.
pub(crate) fn allocate(file: &File, len: u64) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        loop {
            match fallocate(file, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // This file system or kernel (NFSv3, an old FUSE, a sandbox) has no such call.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }
    write_zeroes_up_to(file, len)
}

fn write_zeroes_up_to(file: &File, len: u64) -> io::Result<()> {
    let zeroes = vec![0; ZEROES];
    let mut at = file.metadata()?.len();
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(ZEROES).min(ZEROES);
        let bytes = zeroes.get(..part).unwrap_or_default();
        write_at(file, at, bytes)?;
        at += u64::try_from(bytes.len()).unwrap_or(u64::MAX - at);
    }
    Ok(())
}

/// Syncs a file and asks the system to forget its cached pages, so that the next read comes from the
/// disk: after a failed sync the cache may hold pages that are marked clean and were never stored.
///
/// Elsewhere than on Linux it only syncs.
pub(crate) fn forget_cached_pages(file: &File) -> io::Result<()> {
    // Dirty pages are not forgotten, so they are written first.
    file.sync_data()?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{Advice, fadvise};
        // No length: to the end of the file.
        fadvise(file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Reads exactly `bytes.len()` bytes at `offset`, whatever the file's cursor is. An end of file before
/// that is [`ErrorKind::UnexpectedEof`].
///
/// On Windows the cursor moves, so a file that is read this way is read in no other.
pub(crate) fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    #[cfg(unix)]
    {
        // Repeats after EINTR and after a short read.
        std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
    }
    #[cfg(windows)]
    {
        let (mut rest, mut offset) = (bytes, offset);
        while !rest.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, rest, offset) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    rest = rest.get_mut(read..).unwrap_or_default();
                    offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
                }
                Err(refusal) if refusal.kind() == ErrorKind::Interrupted => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }
}

/// Writes all of `bytes` at `offset`, whatever the file's cursor is. Not synced.
///
/// On Windows the cursor moves, as with [`read_at`].
pub(crate) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    #[cfg(unix)]
    {
        // Repeats after EINTR and after a short write.
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }
    #[cfg(windows)]
    {
        let (mut rest, mut offset) = (bytes, offset);
        while !rest.is_empty() {
            match std::os::windows::fs::FileExt::seek_write(file, rest, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    offset = offset.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
                }
                Err(refusal) if refusal.kind() == ErrorKind::Interrupted => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }
}

/// Bytes that this user may still write on the disk of `path`; `u64::MAX` where it cannot be asked,
/// so that a floor is never reached and the disk itself has to refuse.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    #[cfg(unix)]
    {
        let space = rustix::fs::statvfs(path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
    #[cfg(not(unix))]
    {
        fs::metadata(path).map(|_| u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_new_file_is_private_and_never_overwrites() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a");
        write_new_synced(&path, b"one").unwrap();
        let again = write_new_synced(&path, b"two").unwrap_err();
        assert!(
            matches!(&again, Error::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists)
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        sync_file(&path).unwrap();
        sync_parent(&path).unwrap();
        assert!(sync_file(&dir.path().join("missing")).is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            create_dir_private(&dir.path().join("d")).unwrap();
            for (name, mode) in [("a", 0o600), ("d", 0o700)] {
                let found = fs::metadata(dir.path().join(name))
                    .unwrap()
                    .permissions()
                    .mode();
                assert_eq!(found & 0o777, mode, "{name}");
            }
        }
    }

    #[test]
    fn the_parent_of_a_plain_name_is_here() {
        sync_parent(Path::new("plain")).unwrap();
        sync_parent(Path::new("/")).unwrap();
    }

    #[test]
    fn a_directory_is_copied_whole() {
        let dir = TempDir::new().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("inner/empty")).unwrap();
        fs::write(from.join("conf"), b"").unwrap();
        fs::write(from.join("inner/db"), vec![9; 100_000]).unwrap();
        copy_dir(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("conf")).unwrap(), b"");
        assert_eq!(fs::read(to.join("inner/db")).unwrap(), vec![9; 100_000]);
        assert!(to.join("inner/empty").is_dir());
        assert!(
            copy_dir(&from, &to).is_err(),
            "an existing target is never written into"
        );
        remove_dir_if_there(&to).unwrap();
        remove_dir_if_there(&to).unwrap();
        assert!(!to.exists());
    }

    #[test]
    #[cfg(unix)]
    fn links_are_not_copied() {
        let dir = TempDir::new().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", from.join("link")).unwrap();
        let refused = copy_dir(&from, &dir.path().join("to")).unwrap_err();
        assert!(refused.to_string().contains("link"), "{refused}");
    }

    #[test]
    fn a_deep_nest_is_refused() {
        let dir = TempDir::new().unwrap();
        let deep: std::path::PathBuf = (0..=COPY_DEPTH_MAX).map(|_| "d").collect();
        fs::create_dir_all(dir.path().join("from").join(deep)).unwrap();
        assert!(copy_dir(&dir.path().join("from"), &dir.path().join("to")).is_err());
    }

    #[test]
    fn allocation_keeps_what_is_there() {
        let dir = TempDir::new().unwrap();
        let ways: [fn(&File, u64) -> io::Result<()>; 2] = [allocate, write_zeroes_up_to];
        for (name, way) in ["a", "b"].iter().zip(ways) {
            let path = dir.path().join(name);
            let file = private_file().create_new(true).open(&path).unwrap();
            write_at(&file, 0, b"kept").unwrap();
            way(&file, 200_000).unwrap();
            way(&file, 100_000).unwrap();
            let bytes = fs::read(&path).unwrap();
            assert_eq!(
                (bytes.len(), bytes.starts_with(b"kept\0\0")),
                (200_000, true)
            );
            #[cfg(unix)]
            {
                // Delayed allocation counts the blocks only once they are written.
                file.sync_all().unwrap();
                let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
                assert!(blocks * 512 >= 200_000, "{blocks} blocks");
            }
        }
    }

    #[test]
    fn positioned_calls_are_exact() {
        let dir = TempDir::new().unwrap();
        let file = private_file()
            .create_new(true)
            .open(dir.path().join("a"))
            .unwrap();
        write_at(&file, 5, b"world").unwrap();
        write_at(&file, 0, b"hello").unwrap();
        let mut bytes = [0; 4];
        read_at(&file, 3, &mut bytes).unwrap();
        assert_eq!(&bytes, b"lowo");
        let past_end = read_at(&file, 8, &mut bytes).unwrap_err();
        assert_eq!(past_end.kind(), ErrorKind::UnexpectedEof);
        forget_cached_pages(&file).unwrap();
        read_at(&file, 6, &mut bytes).unwrap();
        assert_eq!(&bytes, b"orld");
    }

    #[test]
    fn free_space_is_known() {
        let dir = TempDir::new().unwrap();
        assert!(free_bytes(dir.path()).unwrap() > 0);
        assert!(free_bytes(&dir.path().join("missing")).is_err());
    }
}
