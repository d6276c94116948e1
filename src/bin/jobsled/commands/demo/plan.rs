//! What there is to do: which files, how many jobs. Made once by the parent, read by each child.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use walkdir::{DirEntry, WalkDir};

use super::place::Place;
use crate::commands::Failure;
use crate::output;

/// Larger files are left out, so that there are enough jobs to be killed in.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// The work: job `n` hashes file `n % files`.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) root: PathBuf,
    pub(super) files: Vec<Planned>,
    pub(super) jobs: u32,
    /// Content of all jobs.
    pub(super) bytes: u64,
    pub(super) left_out: LeftOut,
}

/// A file as it was when the plan was made.
#[derive(Debug)]
pub(super) struct Planned {
    /// Below the root.
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) modified: Option<SystemTime>,
}

/// What was met and is not hashed.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Larger than this.
    limit: u64,
    large: u64,
    unreadable: u64,
    not_utf8: u64,
}

impl Plan {
    /// Looks for files until they are enough, in the order of their names, and repeats them until the jobs
    /// or the content are at their bound.
    pub(super) fn of(dir: &Path, jobs_max: u32, bytes_max: u64) -> Result<Plan, Failure> {
        let root = directory(dir)?;
        let (files, left_out) = find(&root, jobs_max, bytes_max);
        if files.is_empty() {
            let others = left_out.words().join(", ");
            let others = if others.is_empty() {
                others
            } else {
                format!(" (left out: {others})")
            };
            let dir = root.display();
            return Err(Failure::CannotRun(format!(
                "there is no file to hash in {dir}{others}. Name a directory with files of at most {}.",
                output::size(left_out.limit),
            )));
        }
        let (mut jobs, mut bytes) = (0, 0);
        for file in files.iter().cycle() {
            if jobs == jobs_max || bytes + file.bytes > bytes_max {
                break;
            }
            jobs += 1;
            bytes += file.bytes;
        }
        Ok(Plan {
            root,
            files,
            jobs,
            bytes,
            left_out,
        })
    }

    /// Which file a job hashes.
    pub(super) fn file_number(&self, job: u32) -> usize {
        file_number(job, self.files.len())
    }

    /// Leaves the paths where the child finds them.
    pub(super) fn write(&self, place: &Place) -> Result<(), Failure> {
        let paths: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        let path = place.plan();
        // No path contains a zero byte.
        fs::write(&path, paths.join("\0")).map_err(|e| {
            Failure::CannotRun(format!(
                "could not write {}: {e}. Is the disk full?",
                path.display()
            ))
        })
    }

    /// The paths of the plan in this place.
    pub(super) fn read_paths(place: &Place) -> Result<Vec<String>, Failure> {
        let path = place.plan();
        let text = fs::read_to_string(&path)
            .map_err(|e| Failure::CannotRun(format!("could not read {}: {e}", path.display())))?;
        Ok(text.split('\0').map(str::to_owned).collect())
    }
}

/// Which file a job hashes.
pub(super) fn file_number(job: u32, files: usize) -> usize {
    job as usize % files
}

fn directory(dir: &Path) -> Result<PathBuf, Failure> {
    let named = |what: &str| {
        Failure::CannotRun(format!(
            "{} {what}. Name a directory with files.",
            dir.display()
        ))
    };
    let root = fs::canonicalize(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => named("does not exist"),
        _ => named(&format!("cannot be opened: {e}")),
    })?;
    if !root.is_dir() {
        return Err(named("is not a directory"));
    }
    fs::read_dir(&root).map_err(|e| named(&format!("cannot be read: {e}")))?;
    Ok(root)
}

fn find(root: &Path, jobs_max: u32, bytes_max: u64) -> (Vec<Planned>, LeftOut) {
    let mut left_out = LeftOut {
        limit: FILE_BYTES_MAX.min(bytes_max),
        ..LeftOut::default()
    };
    let (mut files, mut bytes) = (Vec::new(), 0);
    for entry in WalkDir::new(root)
        .same_file_system(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(is_wanted)
    {
        // Found and gone again, or not to be read: neither is ours to mend.
        let Some((entry, found)) = entry.and_then(|e| e.metadata().map(|m| (e, m))).ok() else {
            left_out.unreadable += 1;
            continue;
        };
        if !found.is_file() {
            continue;
        }
        if found.len() > left_out.limit {
            left_out.large += 1;
            continue;
        }
        let Some(path) = entry.path().strip_prefix(root).ok().and_then(Path::to_str) else {
            left_out.not_utf8 += 1;
            continue;
        };
        if files.len() == jobs_max as usize || bytes + found.len() > bytes_max {
            break;
        }
        bytes += found.len();
        files.push(Planned {
            path: path.to_owned(),
            bytes: found.len(),
            modified: found.modified().ok(),
        });
    }
    (files, left_out)
}

fn is_wanted(entry: &DirEntry) -> bool {
    let name = entry.file_name().as_encoded_bytes();
    entry.depth() == 0
        || !entry.file_type().is_dir()
        || !(name.starts_with(b".") || name == b"target")
}

impl LeftOut {
    pub(super) fn words(&self) -> Vec<String> {
        let kinds = [
            (
                self.large,
                format!("larger than {}", output::size(self.limit)),
            ),
            (self.unreadable, "that could not be read".to_owned()),
            (self.not_utf8, "with a name that is not UTF-8".to_owned()),
        ];
        let met = kinds.into_iter().filter(|(number, _)| *number > 0);
        met.map(|(number, why)| format!("{} {why}", output::counted(number, "file")))
            .collect()
    }
}
