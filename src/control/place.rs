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
/// As long as a socket's name outside of the store.
const LIKE: &str = "0123456789abcdef0123.sock";

/// Opens the socket of a store whose lock the caller holds. The files to be removed at the end come with it.
pub(super) fn listen(store: &Path) -> Result<(Listener, Vec<PathBuf>)> {
    let record = store.join(RECORD);
    // Whole: others may name the store another way, and must find that it fits, or not, like us.
    let inside = whole(store).join(SOCKET);
    // From an earlier process, whose socket was elsewhere.
    remove_if_there(&record)?;
    if fits(&inside) {
        let listener = Listener::bind(&inside).map_err(Error::io("listen at", &inside))?;
        return Ok((listener, vec![inside]));
    }
    let outside = runtime_dir(fits)?.join(short_name(store));
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
        Err(e) if e.kind() == io::ErrorKind::NotFound => whole(store).join(SOCKET),
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

fn whole(store: &Path) -> PathBuf {
    fs::canonicalize(store).unwrap_or_else(|_| store.to_owned())
}

/// The same for every process that names the store, whatever way.
fn short_name(store: &Path) -> String {
    let hash = blake3::hash(whole(store).as_os_str().as_encoded_bytes());
    let digits: String = hash.to_hex().chars().take(20).collect();
    format!("{digits}.sock")
}

/// A directory of this user alone, for things that last as long as a process: the first that can be had and has room
/// for a socket's path.
fn runtime_dir(has_room: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    // A relative one is to be ignored, says the XDG Base Directory Specification.
    let given = given.filter(|dir| dir.is_absolute() && has_room(&dir.join("jobsled").join(LIKE)));
    let made = given.map(|dir| make_private(dir.join("jobsled")));
    match made {
        Some(Ok(dir)) => Ok(dir),
        _ => make_private(std::env::temp_dir().join(format!("jobsled-{}", sys::user_id()))),
    }
}

fn make_private(dir: PathBuf) -> Result<PathBuf> {
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
