//! Threads with a name and a typed error.

use super::sync;
use crate::error::{Error, Result};

pub(crate) use sync::thread::JoinHandle;

/// Starts a thread. The name shows in panics, debuggers and `top` (which cuts it after 15 bytes).
///
/// # Errors
///
/// [`Error::Thread`] when the system refuses, usually for a limit on processes or memory.
pub(crate) fn spawn(
    name: impl Into<String>,
    f: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle> {
    // `Builder` panics on a zero byte, and names contain what users call their pools.
    let name = name.into().replace('\0', "?");
    #[cfg(test)]
    if refused::is(&name) {
        let source = std::io::ErrorKind::WouldBlock.into();
        return Err(Error::Thread { name, source });
    }
    sync::thread::start(name.clone(), f).map_err(|source| Error::Thread { name, source })
}

/// Whether the system has room for so many threads more, all at once.
///
/// # Errors
///
/// [`Error::Thread`] with this name if it has not.
pub(crate) fn is_room_for(count: usize, name: &str) -> Result<()> {
    let hold = |_| {
        let (release, held) = sync::channel::bounded::<()>(0);
        let waits = spawn(name, move || held.recv().unwrap_or_default());
        (release, waits)
    };
    let (releases, started): (Vec<_>, Vec<_>) = (0..count).map(hold).unzip();
    drop(releases);
    let ended = started.into_iter().map(|thread: Result<JoinHandle>| {
        // It only waited, and cannot have panicked.
        thread.map(|thread| drop(thread.join()))
    });
    // All of them are waited for, also behind one that was refused.
    ended.fold(Ok(()), Result::and)
}

/// Threads that cannot be started, for tests of what follows.
#[cfg(test)]
pub(crate) mod refused {
    use std::cell::RefCell;

    thread_local! {
        static NAME: RefCell<String> = const { RefCell::new(String::new()) };
    }

    /// From now on the calling thread cannot start threads whose names begin like this.
    pub(crate) fn set(name: &str) {
        NAME.with_borrow_mut(|refused| name.clone_into(refused));
    }

    pub(super) fn is(name: &str) -> bool {
        NAME.with_borrow(|refused| !refused.is_empty() && name.starts_with(refused.as_str()))
    }
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
