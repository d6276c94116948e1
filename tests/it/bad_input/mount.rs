use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// Tells, past the capture of the test harness, what this machine could not show.
pub(crate) fn skipped(name: &str, why: &str) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    drop(writeln!(
        std::io::stderr(),
        "skipped: {name}: {why} ({count} so far in this module)"
    ));
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        )),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// A mount of our own; needs root. `None` was told as skipped.
pub(crate) struct Mount {
    dir: TempDir,
}

impl Mount {
    pub(crate) fn tmpfs(test: &str, size: &str) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let made = run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &options,
                "jobsled-test",
                dir.path().to_str().unwrap(),
            ],
        );
        made.map(|()| Mount { dir })
            .map_err(|why| skipped(test, &why))
            .ok()
    }

    /// Shows `what` a second time, read-only.
    pub(crate) fn read_only(test: &str, what: &Path) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (
            what.to_str().unwrap().to_owned(),
            dir.path().to_str().unwrap().to_owned(),
        );
        if let Err(why) = run("mount", &["--bind", &from, &to]) {
            skipped(test, &why);
            return None;
        }
        let mount = Mount { dir };
        let made = run("mount", &["-o", "remount,ro,bind", &to]);
        made.map(|()| mount).map_err(|why| skipped(test, &why)).ok()
    }

    pub(crate) fn resize(&self, size: &str) {
        run(
            "mount",
            &[
                "-o",
                &format!("remount,size={size}"),
                self.path().to_str().unwrap(),
            ],
        )
        .unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(run("umount", &["-l", self.dir.path().to_str().unwrap()]));
    }
}
