//! The recorder of `tests/powercut` as a library that is loaded before all others: it records programs that are not
//! the lab's own, above all `jobsled` itself.
//!
//! `LD_PRELOAD` names this library, `JOBSLED_LAB_ROOT` the directory below which all is recorded, and
//! `JOBSLED_LAB_LOG` the log. All three are taken out of the environment at once: what the program starts in turn is
//! not recorded.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unsafe_code,
    reason = "a tool of the tests: whatever is not as expected ends it"
)]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../../powercut/log.rs"]
#[allow(dead_code, reason = "it only writes")]
mod log;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../../powercut/recorder.rs"]
mod recorder;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod at_load {
    use std::path::Path;

    use crate::recorder::{self, Recording};

    const LOADED_FIRST: &str = "LD_PRELOAD";
    const ROOT: &str = "JOBSLED_LAB_ROOT";
    const LOG: &str = "JOBSLED_LAB_LOG";

    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEGIN: extern "C" fn() = begin;

    extern "C" fn begin() {
        let root = std::env::var_os(ROOT);
        let log = std::env::var_os(LOG);
        for name in [LOADED_FIRST, ROOT, LOG] {
            // SAFETY: the program has no second thread before its main function.
            unsafe { std::env::remove_var(name) };
        }
        if let (Some(root), Some(log)) = (root, log) {
            recorder::start(&Recording {
                root: Path::new(&root),
                // It says nothing itself: whoever started it adds to the log what it heard.
                marks: Path::new(""),
                log: Path::new(&log),
                forget_data_syncs: false,
            });
        }
    }
}
