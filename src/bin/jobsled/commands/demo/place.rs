//! Where a run keeps its things: the store and, beside it, what is known of it independently.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::kills::random_seed;
use crate::args::Leave;
use crate::commands::Failure;

/// How often a directory is emptied before it is given up.
const CLEAN_UPS_MAX: u32 = 5;

/// A directory with `store/`, the engine's, and `acks/`: plan, acknowledgements, the child's last words.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    leave: Leave,
}

impl Place {
    /// A temporary place, or the directory that the user wants. It is new or empty.
    pub(super) fn new(chosen: Option<&Path>, keep: bool) -> Result<Place, Failure> {
        let (dir, made) = match chosen {
            Some(dir) => chosen_dir(dir)?,
            None => (temporary_dir()?, true),
        };
        let leave = match (keep, made) {
            (true, _) => Leave::Everything,
            (false, true) => Leave::Nothing,
            (false, false) => Leave::EmptyDir,
        };
        let place = Place { dir, leave };
        // The engine makes the store.
        make_dir(&place.acks()).map_err(|e| cannot_make(&place.acks(), &e))?;
        Ok(place)
    }

    /// As the child is told of it.
    pub(super) fn at(dir: PathBuf, leave: Leave) -> Place {
        Place { dir, leave }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn leave(&self) -> Leave {
        self.leave
    }

    pub(super) fn is_kept(&self) -> bool {
        self.leave == Leave::Everything
    }

    pub(super) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    fn acks(&self) -> PathBuf {
        self.dir.join("acks")
    }

    pub(super) fn plan(&self) -> PathBuf {
        self.acks().join("plan")
    }

    /// The acknowledgements that the child got in one of its lives.
    pub(super) fn life(&self, life: u32) -> PathBuf {
        self.acks().join(format!("life-{life:03}"))
    }

    pub(super) fn child_log(&self) -> PathBuf {
        self.acks().join("child.log")
    }

    /// Removes what is not to be left. It is only a demonstration's litter, so a failure is not an error.
    pub(super) fn clean_up(&self) {
        if self.leave == Leave::Everything {
            return;
        }
        for dir in [self.store(), self.acks()] {
            // A child that cleans up is still at work: it may add a file to a directory that is being emptied.
            let mut removed = remove(&dir);
            for _ in 1..CLEAN_UPS_MAX {
                removed = removed.or_else(|_| remove(&dir));
            }
            if let Err(e) = removed {
                log::warn!("could not remove {}: {e}", dir.display());
            }
        }
        if self.leave == Leave::Nothing {
            fs::remove_dir(&self.dir).ok();
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (acknowledgements beside it in acks/)",
            self.store().display()
        )
    }
}

fn remove(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The directory, and whether it was made here.
fn chosen_dir(dir: &Path) -> Result<(PathBuf, bool), Failure> {
    let cannot = |what: &str| {
        Err(Failure::CannotRun(format!(
            "the store cannot be in {}: {what}. Name a new or empty directory.",
            dir.display()
        )))
    };
    let made = match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => false,
        Ok(false) => return cannot("it is not empty"),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            make_dir(dir).map_err(|e| cannot_make(dir, &e))?;
            true
        }
        Err(e) if e.kind() == ErrorKind::NotADirectory => return cannot("it is a file"),
        Err(e) => return cannot(&e.to_string()),
    };
    // The child may be told of it in another directory.
    let dir = fs::canonicalize(dir).map_err(|e| cannot_make(dir, &e))?;
    Ok((dir, made))
}

fn temporary_dir() -> Result<PathBuf, Failure> {
    let name = format!(
        "jobsled-demo-{}-{:08x}",
        std::process::id(),
        random_seed()? >> 32
    );
    let dir = temporary_base().join(name);
    make_dir(&dir).map_err(|e| cannot_make(&dir, &e))?;
    Ok(dir)
}

/// The system's directory for temporary files; if that one is only in memory, the one on the disk.
fn temporary_base() -> PathBuf {
    let usual = std::env::temp_dir();
    let on_disk = Path::new("/var/tmp");
    if is_in_memory(&usual) && on_disk.is_dir() {
        on_disk.to_owned()
    } else {
        usual
    }
}

#[cfg(target_os = "linux")]
fn is_in_memory(dir: &Path) -> bool {
    /// `TMPFS_MAGIC` of statfs(2).
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::statfs(dir)
        .is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS))
}

#[cfg(not(target_os = "linux"))]
fn is_in_memory(_dir: &Path) -> bool {
    false
}

/// A directory that others cannot look into: the store names files of the user.
fn make_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn cannot_make(dir: &Path, error: &std::io::Error) -> Failure {
    Failure::CannotRun(format!(
        "could not make the directory {}: {error}. Choose another one with --store.",
        dir.display()
    ))
}
