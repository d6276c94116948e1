//! What a figure is worth nothing without: the machine.

use std::path::Path;

/// The machine, as far as the system tells; what it does not is empty or 0.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Machine {
    /// The operating system, with its version where that is told.
    pub system: String,
    /// The processor.
    pub processor: String,
    /// How many threads can run at once.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The sort of file system that was written to.
    pub file_system: String,
}

impl Machine {
    /// Where `dir` is.
    pub(super) fn of(dir: &Path) -> Machine {
        let memory = field("/proc/meminfo", "MemTotal:").and_then(|text| kib(&text));
        Machine {
            system: system(),
            processor: field("/proc/cpuinfo", "model name\t:").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory.unwrap_or(0),
            file_system: file_system(dir).unwrap_or_default(),
        }
    }

    /// Whether what was written to lies in memory: no power cut is survived there, and no disk was measured.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.file_system.as_str(), "tmpfs" | "ramfs")
    }
}

fn system() -> String {
    #[cfg(unix)]
    {
        let names = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        format!(
            "{} {} {}",
            text(names.sysname()),
            text(names.release()),
            text(names.machine())
        )
    }
    #[cfg(not(unix))]
    {
        format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)
    }
}

/// The text behind a name at the begin of a line.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().to_owned())
}

fn kib(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1_024)
}

/// Memory of this process.
pub(super) fn resident_bytes() -> Option<u64> {
    kib(&field("/proc/self/status", "VmRSS:")?)
}

/// Bytes that this process has had written so far.
pub(super) fn bytes_written() -> Option<u64> {
    field("/proc/self/io", "write_bytes:")?.parse().ok()
}

/// By the longest mount point above it.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut longest: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (_, point, sort) = (words.next()?, words.next()?, words.next()?);
        // A later mount hides an earlier one at the same place.
        let is_longer = longest.is_none_or(|(len, _)| point.len() >= len);
        if dir.starts_with(point) && is_longer {
            longest = Some((point.len(), sort));
        }
    }
    longest.map(|(_, sort)| sort.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_machine_is_known() {
        let machine = Machine::of(&std::env::temp_dir());
        assert!(machine.cores > 0 && machine.memory_bytes > 0, "{machine:?}");
        assert!(machine.system.starts_with("Linux"), "{machine:?}");
        assert!(!machine.file_system.is_empty(), "{machine:?}");
        assert!(resident_bytes().is_some_and(|bytes| bytes > 0));
        assert_eq!(Machine::of(Path::new("/proc/self")).file_system, "proc");
    }
}
