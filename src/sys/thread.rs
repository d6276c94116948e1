//! Threads with a name and a typed error.

use std::thread::{Builder, JoinHandle};

use crate::error::{Error, Result};

/// Starts a thread. The name shows in panics, debuggers and `top` (which cuts it after 15 bytes).
///
/// # Errors
///
/// [`Error::Thread`] when the system refuses, usually for a limit on processes or memory.
pub(crate) fn spawn(
    name: impl Into<String>,
    f: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    // `Builder` panics on a zero byte, and names contain what users call their pools.
    let name = name.into().replace('\0', "?");
    Builder::new()
        .name(name.clone())
        .spawn(f)
        .map_err(|source| Error::Thread { name, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_has_its_name() {
        let (tell, told) = std::sync::mpsc::channel();
        let run = move || {
            tell.send(std::thread::current().name().map(str::to_owned))
                .unwrap();
        };
        spawn("pool\0 1", run).unwrap().join().unwrap();
        assert_eq!(told.recv().unwrap().as_deref(), Some("pool? 1"));
    }
}
