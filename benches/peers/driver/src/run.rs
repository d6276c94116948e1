//! One turn of one peer: in a fresh directory, on a disk that has nothing left to write, with an end.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use contest::{Context, Line, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use wait_timeout::ChildExt;

pub struct Runner<'d> {
    dir: &'d Path,
    timeout: Duration,
}

impl Runner<'_> {
    pub fn new(dir: &Path, timeout: Duration) -> Runner<'_> {
        Runner { dir, timeout }
    }

    /// Someone's turn in a new directory, which goes away.
    pub fn turn<T>(&self, f: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let dir = tempfile::tempdir_in(self.dir)?;
        // What the one before left to be written must not be part of this one's time.
        rustix::fs::syncfs(File::open(dir.path())?)?;
        f(dir.path())
    }

    /// The lines that a peer prints. One that takes too long is ended, with all that it has started.
    pub fn lines(&self, command: &mut Command) -> Result<Vec<Line>> {
        let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(err.try_clone()?)
            // A group of its own, so that no server outlives whoever has started it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} does not start", command.get_program().display()))?;
        let Some(status) = child.wait_timeout(self.timeout)? else {
            end(&mut child)?;
            bail!("no result within {} s", self.timeout.as_secs());
        };
        if !status.success() {
            bail!("{status}: {}", last_line(&text(&mut err)?));
        }
        let lines = text(&mut out)?;
        let lines = lines.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().context("what it printed")
    }

    /// The one line of a measure.
    pub fn line(&self, command: &mut Command) -> Result<Line> {
        let line = self.lines(command)?.pop();
        line.context("it printed nothing")
    }
}

/// Ends a child and all that it has started. It is still there, so its group is no other one's.
fn end(child: &mut Child) -> Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id())?).context("a child has an id")?;
    kill_process_group(group, Signal::KILL)?;
    child.wait()?;
    Ok(())
}

fn text(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_line(text: &str) -> &str {
    text.trim_end().lines().last().unwrap_or("it said nothing")
}
