//! Where a store's socket is: `socket` in the store, or, where that path is too long for one, in the user's runtime
//! directory, and `control` in the store says where.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys;
use crate::sys::files;
use crate::sys::socket::{Connection, Listener, PATH_BYTES_MAX};

const SOCKET: &str = "socket";
const RECORD: &str = "control";

/// Opens the socket of a store whose lock the caller holds. The files to be removed at the end come with it.
pub(super) fn listen(store: &Path) -> Result<(Listener, Vec<PathBuf>)> {
    let record = store.join(RECORD);
    let inside = store.join(SOCKET);
    // From an earlier process, whose socket was elsewhere.
    remove_if_there(&record)?;
    if fits(&inside) {
        let listener = Listener::bind(&inside).map_err(Error::io("listen at", &inside))?;
        return Ok((listener, vec![inside]));
    }
    let outside = runtime_dir()?.join(short_name(store));
    if !fits(&outside) {
        return Err(Error::Invalid {
            what: "path of a control socket",
            found: format!(
                "{} bytes long ({})",
                outside.as_os_str().len(),
                outside.display()
            ),
            rule: format!(
                "a socket's path has at most {PATH_BYTES_MAX} bytes; set XDG_RUNTIME_DIR to a shorter one"
            ),
        });
    }
    let listener = Listener::bind(&outside).map_err(Error::io("listen at", &outside))?;
    let text = outside.as_os_str().as_encoded_bytes();
    // Complete before it is seen.
    let new = store.join("control.new");
    remove_if_there(&new)?;
    files::write_new_synced(&new, text)?;
    fs::rename(&new, &record).map_err(Error::io("rename", &new))?;
    Ok((listener, vec![record, outside]))
}

/// Connects to the socket of a store that somebody else has open.
pub(super) fn connect(store: &Path) -> io::Result<Connection> {
    let record = store.join(RECORD);
    let path = match fs::read(&record) {
        Ok(bytes) => path_of(&bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => store.join(SOCKET),
        Err(e) => return Err(e),
    };
    if !fits(&path) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Connection::open(&path)
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= PATH_BYTES_MAX
}

fn path_of(bytes: &[u8]) -> PathBuf {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
    }
    #[cfg(not(unix))]
    {
        PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// The same for every process that names the store, whatever way.
fn short_name(store: &Path) -> String {
    let whole = fs::canonicalize(store).unwrap_or_else(|_| store.to_owned());
    let hash = blake3::hash(whole.as_os_str().as_encoded_bytes());
    let digits: String = hash.to_hex().chars().take(20).collect();
    format!("{digits}.sock")
}

/// A directory of this user alone, for things that last as long as a process.
fn runtime_dir() -> Result<PathBuf> {
    let dir = match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("jobsled"),
        None => std::env::temp_dir().join(format!("jobsled-{}", sys::user_id())),
    };
    match files::create_dir_private(&dir) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            // Somebody else could have made it, to read along.
            sys::files::check_private(&dir)?;
        }
        made => made?,
    }
    Ok(dir)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}
