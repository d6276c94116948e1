//! Which commands run, noted in the store, so that what is left of them when their worker is gone can be ended before
//! their jobs run again.
//!
//! One small file for each command that runs: `commands/JOB-CLAIM`. It is there before the command begins and goes
//! when nothing of it is left. It is not synced: after a power cut no process is left.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::job::JobId;
use crate::sys::{self, files, process::Group};
use crate::worker::Context;

/// How long what is left of commands has to be gone after it was killed. A process that waits for a disk or network
/// that does not answer takes longer, or for ever.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What is noted of a running command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Numbers of processes mean something within one boot.
    boot: u128,
    group: u32,
    session: u32,
    started: u64,
    worker: u32,
    worker_started: Option<u64>,
    /// Device and number of the directory in which it was noted.
    home: (u64, u64),
}

impl Record {
    fn group(&self) -> Group {
        Group {
            number: self.group,
            session: self.session,
            started: self.started,
        }
    }

    /// Whether it may be acted on. We hold the store's lock, so its worker has no right to the job any more, even if
    /// it is still there; but in a copy of a store the records are those of the original, whose worker may well be
    /// running what they name.
    fn is_left_over(&self, home: (u64, u64)) -> io::Result<bool> {
        if self.boot != sys::boot_id() || self.home == home {
            return Ok(self.boot == sys::boot_id());
        }
        let worker_lives = self.worker_started.is_some()
            && sys::process::started_at(self.worker)? == self.worker_started;
        Ok(!worker_lives)
    }
}

/// The records of a store.
#[derive(Clone, Debug)]
pub(super) struct Records {
    dir: PathBuf,
}

/// A record that was made; whoever knows that the command is gone removes it.
#[derive(Debug)]
pub(super) struct Noted {
    path: PathBuf,
}

impl Records {
    /// Those of the job's store; `None` in memory and for a run without the queue. With the first command after each
    /// opening all that earlier workers left is ended; others wait for that.
    pub(super) fn of(cx: &Context) -> Result<Option<Records>> {
        static SWEPT: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());
        let shared = &cx.engine().shared;
        let Some(store) = shared.dir.as_ref().filter(|_| cx.epoch() > 0) else {
            return Ok(None);
        };
        let records = Records {
            dir: store.join("commands"),
        };
        match files::create_dir_private(&records.dir) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let mut swept = SWEPT.lock();
        if swept.get(store) != Some(&cx.epoch()) {
            records.sweep()?;
            swept.insert(store.clone(), cx.epoch());
        }
        Ok(Some(records))
    }

    /// Ends what is left of all commands noted. What cannot be ended stays noted, and holds up its own job only.
    fn sweep(&self) -> Result<()> {
        for (path, alive) in self.end(|_| true)? {
            let number = alive.number;
            log::warn!(
                "process group {number}, left over by an earlier run of a command, cannot be ended ({})",
                path.display()
            );
        }
        Ok(())
    }

    /// Ends what is left of earlier runs of a job's command.
    ///
    /// # Errors
    ///
    /// In words, if something is left all the same.
    pub(super) fn end_earlier(&self, id: JobId) -> Result<Result<(), String>> {
        let ours = format!("{id}-");
        let left = self.end(|name| name.starts_with(&ours))?;
        Ok(match left.first() {
            None => Ok(()),
            Some((_, group)) => Err(format!(
                "process group {} is left over from an earlier run of this command and cannot be ended: end it, and \
                 retry the job",
                group.number
            )),
        })
    }

    /// E9: a record goes when nothing is left of what it names, and not before.
    ///
    /// Ends the commands whose records have such names, and removes those that are gone. Returns the others.
    fn end(&self, is_meant: impl Fn(&str) -> bool) -> Result<Vec<(PathBuf, Group)>> {
        let io = |doing| Error::io(doing, &self.dir);
        let home = fs::metadata(&self.dir).map_err(io("inspect"))?;
        let home = (home.dev(), home.ino());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io("list"))? {
            let entry = entry.map_err(io("list"))?;
            if is_meant(&entry.file_name().to_string_lossy()) {
                let path = entry.path();
                let record = match read(&path).map_err(io("read"))? {
                    Some(record) if record.is_left_over(home).map_err(io("judge"))? => Some(record),
                    _ => None,
                };
                found.push((path, record));
            }
        }
        let groups: Vec<Group> = found
            .iter()
            .filter_map(|(_, record)| Some(record.as_ref()?.group()))
            .collect();
        let alive = if groups.is_empty() {
            groups
        } else {
            let processes = Path::new("/proc");
            let ended = sys::process::end_groups(&groups, END_WITHIN);
            ended.map_err(Error::io("look for processes in", processes))?
        };
        let mut left = Vec::new();
        for (path, record) in found {
            match record.map(|record| record.group()) {
                Some(group) if alive.contains(&group) => left.push((path, group)),
                _ => remove(&path)?,
            }
        }
        Ok(left)
    }

    /// Notes a command before it begins; `None` where the system does not tell enough of it.
    pub(super) fn note(
        &self,
        id: JobId,
        claim: u64,
        group: Option<Group>,
    ) -> Result<Option<Noted>> {
        let boot = sys::boot_id();
        let Some(group) = group.filter(|_| boot != 0) else {
            return Ok(None);
        };
        let home = fs::metadata(&self.dir).map_err(Error::io("inspect", &self.dir))?;
        let worker = std::process::id();
        let record = Record {
            boot,
            group: group.number,
            session: group.session,
            started: group.started,
            worker,
            worker_started: sys::process::started_at(worker)
                .map_err(Error::io("look for this process in", Path::new("/proc")))?,
            home: (home.dev(), home.ino()),
        };
        let name = format!("{id}-{claim}");
        // Whole or not at all: a worker that dies while it writes has let no command begin yet.
        let (draft, path) = (self.dir.join(format!("new-{name}")), self.dir.join(name));
        let made = (|| {
            let mut options = files::private_file();
            let mut file = options.create(true).truncate(true).open(&draft)?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            fs::rename(&draft, &path)
        })();
        made.map_err(Error::io("write", &path))?;
        Ok(Some(Noted { path }))
    }
}

impl Noted {
    /// Nothing of the command is left.
    pub(super) fn remove(self) {
        if let Err(error) = remove(&self.path) {
            log::warn!("{error}; it is looked at again before the job runs again");
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Whether a file is a record. Acts on nothing.
#[cfg(feature = "lab")]
pub(crate) fn is_record(path: &Path) -> io::Result<bool> {
    read(path).map(|record| record.is_some())
}

/// A record. One that is not whole names nothing that could be ended: its command was never let go.
///
/// # Errors
///
/// It could not be read now. That is no proof that it names nobody.
fn read(path: &Path) -> io::Result<Option<Record>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let warn = |e: &serde_json::Error| log::warn!("{} tells of no command: {e}", path.display());
    Ok(serde_json::from_slice(&bytes).inspect_err(warn).ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use tempfile::TempDir;

    use super::*;

    /// Someone who waits, in a group of its own; ended with it.
    struct Someone(Child);

    impl Someone {
        fn new() -> Someone {
            let mut command = Command::new("sleep");
            command.arg("1000").process_group(0);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Someone(command.spawn().unwrap())
        }

        fn group(&self) -> Group {
            Group::led_by(&self.0).unwrap().unwrap()
        }

        fn is_alive(&mut self) -> bool {
            self.0.try_wait().unwrap().is_none()
        }
    }

    impl Drop for Someone {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    type Change = fn(&mut Record);

    fn records() -> (TempDir, Records) {
        let dir = TempDir::new().unwrap();
        let records = Records {
            dir: dir.path().to_owned(),
        };
        (dir, records)
    }

    fn change(dir: &TempDir, name: &str, change: impl FnOnce(&mut Record)) {
        let path = dir.path().join(name);
        let mut record = read(&path).unwrap().unwrap();
        change(&mut record);
        fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
    }

    fn left(dir: &TempDir) -> usize {
        fs::read_dir(dir.path()).unwrap().count()
    }

    #[test]
    fn what_is_left_of_a_job_is_ended_and_of_another_not() {
        if sys::boot_id() == 0 {
            return; // a system on which nothing is noted
        }
        let (dir, records) = records();
        let [mut first, mut second] = [Someone::new(), Someone::new()];
        let id = JobId::from_number;
        records
            .note(id(1), 5, Some(first.group()))
            .unwrap()
            .unwrap();
        let other = records.note(id(11), 6, Some(second.group())).unwrap();
        records.end_earlier(id(1)).unwrap().unwrap();
        assert!(!first.is_alive() && second.is_alive());
        assert_eq!(left(&dir), 1);
        other.unwrap().remove();
        records.sweep().unwrap();
        assert!(second.is_alive(), "nothing names it any more");
        records.note(id(11), 7, Some(second.group())).unwrap();
        fs::write(dir.path().join("new-3-4"), "{").unwrap();
        records.sweep().unwrap();
        assert!(!second.is_alive());
        assert_eq!(left(&dir), 0);
    }

    /// Whoever has the number now, in another boot, or in a store of which this is a copy, is innocent.
    #[test]
    fn only_what_a_record_surely_means_is_ended() {
        if sys::boot_id() == 0 {
            return;
        }
        let cases: [(&str, Change, bool); 6] = [
            ("as noted", |_| {}, false),
            ("a number used again", |r| r.started -= 1, true),
            ("another session", |r| r.session += 1, true),
            ("another boot", |r| r.boot += 1, true),
            ("a copy, and its worker is there", |r| r.home.1 += 1, true),
            (
                "a copy, and its worker is not",
                |r| {
                    r.home.1 += 1;
                    r.worker_started = r.worker_started.map(|at| at + 1);
                },
                false,
            ),
        ];
        for (what, changed, lives) in cases {
            let (dir, records) = records();
            let mut someone = Someone::new();
            let id = JobId::from_number(1);
            records.note(id, 5, Some(someone.group())).unwrap();
            change(&dir, "1-5", changed);
            records.end_earlier(id).unwrap().unwrap();
            assert_eq!(someone.is_alive(), lives, "{what}");
            assert_eq!(left(&dir), 0, "{what}");
        }
    }

    /// E9: a worker that was out of files could not read what was noted, took that for nothing, and let a second copy
    /// begin.
    #[test]
    fn a_record_that_cannot_be_read_now_stays() {
        let (dir, records) = records();
        fs::create_dir(dir.path().join("1-7")).unwrap();
        let refused = records.end_earlier(JobId::from_number(1)).unwrap_err();
        assert!(refused.to_string().contains("read"), "{refused}");
        assert_eq!(left(&dir), 1);
        records.end_earlier(JobId::from_number(2)).unwrap().unwrap();
    }
}
