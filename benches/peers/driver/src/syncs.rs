//! How often a peer waits for the disk: its system calls while the clock runs, counted by `strace`.

use std::path::Path;
use std::process::{Command, Stdio};

use contest::{BEGIN, END};
use serde::Serialize;

const CALLS: &str =
    "trace=fsync,fdatasync,msync,sync,syncfs,sync_file_range,openat,pwritev2,io_uring_setup,statx";

/// What was counted between the two marks of a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Syncs {
    /// `fsync`, `fdatasync`, `msync(MS_SYNC)`, `sync`, `syncfs`.
    pub whole: u64,
    /// `sync_file_range`: writes pages, and neither a file's size nor what a drive has in its cache.
    pub ranges: u64,
    /// Ways to sync that this does not count: files opened for synchronous writes, such writes, rings.
    pub uncounted: u64,
}

pub fn is_there() -> bool {
    let mut version = Command::new("strace");
    version
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// The same command under `strace`, which writes to `trace`.
pub fn traced(command: &Command, trace: &Path) -> Command {
    let mut traced = Command::new("strace");
    // All other calls run at their usual speed.
    traced.args([
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-e",
        CALLS,
        "-e",
        "signal=none",
        "-o",
    ]);
    traced
        .arg(trace)
        .arg(command.get_program())
        .args(command.get_args());
    traced
}

/// Counts in what `strace` wrote.
pub fn count(trace: &str) -> Syncs {
    let mut syncs = Syncs::default();
    let mut is_running = false;
    for line in trace.lines() {
        // A line begins with the thread. A call that is interrupted is on two lines, and counts on the first.
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let Some((name, rest)) = call.split_once('(') else {
            continue;
        };
        match name {
            "statx" if rest.contains(BEGIN) => is_running = true,
            "statx" if rest.contains(END) => is_running = false,
            // What was opened before may be written to later.
            "openat" if rest.contains("O_SYNC") || rest.contains("O_DSYNC") => syncs.uncounted += 1,
            "io_uring_setup" => syncs.uncounted += 1,
            "pwritev2" if rest.contains("RWF_SYNC") || rest.contains("RWF_DSYNC") => {
                syncs.uncounted += 1;
            }
            "msync" if !rest.contains("MS_SYNC") => {}
            "fsync" | "fdatasync" | "msync" | "sync" | "syncfs" if is_running => syncs.whole += 1,
            "sync_file_range" if is_running => syncs.ranges += 1,
            _ => {}
        }
    }
    syncs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_while_the_clock_runs_is_counted() {
        let trace = format!(
            "7 fsync(3) = 0\n\
             7 openat(AT_FDCWD, \"log\", O_RDWR|O_CREAT|O_DSYNC|O_CLOEXEC, 0666) = 4\n\
             7 statx(AT_FDCWD, \"{BEGIN}\", AT_SYMLINK_NOFOLLOW, STATX_ALL, 0x7) = -1 ENOENT\n\
             7 fdatasync(3 <unfinished ...>\n\
             8 msync(0x7f, 4096, MS_ASYNC) = 0\n\
             8 msync(0x7f, 4096, MS_SYNC) = 0\n\
             7 <... fdatasync resumed>) = 0\n\
             8 sync_file_range(5, 0, 10, SYNC_FILE_RANGE_WRITE) = 0\n\
             7 statx(AT_FDCWD, \"{END}\", AT_SYMLINK_NOFOLLOW <unfinished ...>\n\
             7 fsync(3) = 0\n"
        );
        let expected = Syncs {
            whole: 2,
            ranges: 1,
            uncounted: 1,
        };
        assert_eq!(count(&trace), expected);
    }
}
