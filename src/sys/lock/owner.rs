//! Who has a store, as the text of its lock says it.
//!
//! The text is always 512 bytes, written at once, padded with line ends:
//!
//! ```text
//! jobsled lock 1
//! state open            or: clean
//! pid 4711
//! host example
//! boot f4d87f34c51e43bab2a51435a995d824
//! check 0123456789abcdef   first 8 bytes of blake3 over the lines above
//! ```
//!
//! A torn or foreign text fails its check and counts as *unclean*: never as clean.

use crate::sys;

/// Size of the text. Names are cut at 255 bytes, the rest needs less than 150.
pub(super) const LEN: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Clean,
}

/// Who took the lock, as the file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: u32,
    pub(super) host: String,
    pub(super) boot: u128,
}

impl Owner {
    pub(super) fn us() -> Owner {
        Owner {
            pid: std::process::id(),
            host: sys::host_name(),
            boot: sys::boot_id(),
        }
    }

    /// Whether holding the file lock proves that this owner is gone.
    pub(super) fn is_of_this_machine(&self) -> bool {
        let same_boot = self.boot != 0 && self.boot == sys::boot_id();
        same_boot || self.host == sys::host_name()
    }

    pub(super) fn text(&self, state: State) -> Vec<u8> {
        let state = match state {
            State::Open => "open",
            State::Clean => "clean",
        };
        let Owner { pid, host, boot } = self;
        let lines =
            format!("jobsled lock 1\nstate {state}\npid {pid}\nhost {host}\nboot {boot:032x}\n");
        let mut text = format!("{lines}check {}\n", check(&lines)).into_bytes();
        text.resize(LEN, b'\n');
        text
    }

    /// `None` for whatever [`Owner::text`] did not write.
    pub(super) fn parse(text: &[u8]) -> Option<(Owner, State)> {
        if text.len() != LEN {
            return None;
        }
        let (lines, found) = std::str::from_utf8(text).ok()?.split_once("check ")?;
        if found.trim_end_matches('\n') != check(lines) {
            return None;
        }
        let mut line = lines.lines();
        let mut field = |name: &str| line.next()?.strip_prefix(name)?.strip_prefix(' ');
        if field("jobsled lock")? != "1" {
            return None;
        }
        let state = match field("state")? {
            "open" => State::Open,
            "clean" => State::Clean,
            _ => return None,
        };
        let pid = field("pid")?.parse().ok()?;
        let host = field("host")?.to_owned();
        let boot = u128::from_str_radix(field("boot")?, 16).ok()?;
        Some((Owner { pid, host, boot }, state))
    }
}

fn check(lines: &str) -> String {
    let hash = blake3::hash(lines.as_bytes());
    hash.to_hex().chars().take(16).collect()
}

/// The version of a text that a later version of this crate wrote.
pub(super) fn newer_version(text: &[u8]) -> Option<u32> {
    let line = text
        .strip_prefix(b"jobsled lock ")?
        .split(|b| *b == b'\n')
        .next()?;
    let version = std::str::from_utf8(line).ok()?.parse().ok()?;
    (version > 1).then_some(version)
}
