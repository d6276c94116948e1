//! What a program under test was told, and what its handlers do: noted by it, read by the oracle (`kill/oracle.rs`).
//!
//! A note is one line, written by one call when what it says has happened, by whoever it happened to:
//!
//! | line | meaning |
//! |---|---|
//! | `a N` | somebody is about to ask for the job with this number of his own |
//! | `A N ID` | it is acknowledged |
//! | `B N N …` | these are about to be asked for together: all of them or none |
//! | `S ID CLAIM ATTEMPT N SORT` | its handler begins |
//! | `F ID CLAIM` | its handler ends |
//! | `C ID`, `W ID` | its completion was told, by an event or to somebody who waits |
//! | `x ID`, `X ID` | it is about to be cancelled, it was before it ran |
//! | `p ID N`, `P ID N` | it is about to get this priority, it has it |
//! | `D ID` | its payload is not what was given |
//! | `Z ID STATE REASON PRIORITY N` | how it was found in the end; `-` for what is not known |
//! | `stuck …` | something did not come to its end |

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

/// Where notes go: a line by one call, which a kill does not cut.
#[derive(Clone, Debug)]
pub(crate) struct Notes(Arc<File>);

impl Notes {
    pub(crate) fn open(path: &Path) -> Notes {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Notes(Arc::new(file.unwrap()))
    }

    pub(crate) fn add(&self, lines: &str) {
        assert_eq!((&*self.0).write(lines.as_bytes()).unwrap(), lines.len());
    }
}

/// Jobs as they are asked for. The number is part of each start's note.
#[allow(dead_code, reason = "some are told apart only by who asks for them")]
pub(crate) mod sort {
    /// Runs as often as needed.
    pub(crate) const PLAIN: u64 = 0;
    /// Fails once.
    pub(crate) const FAILS: u64 = 1;
    /// At most once.
    pub(crate) const ONCE: u64 = 2;
    /// Ends its process each time.
    pub(crate) const KILLER: u64 = 3;
    /// With a large payload.
    pub(crate) const LARGE: u64 = 4;
    /// Taken out after three crashes, like a killer.
    pub(crate) const SUSPECT: u64 = 5;
}

/// How the script of failing calls ends when everything went well.
pub(crate) const WELL: u8 = 0;
/// Something was refused, with words.
pub(crate) const REFUSED: u8 = 3;
