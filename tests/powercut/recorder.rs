//! The recorder: the C library's file calls, defined once more in this very program.
//!
//! The linker prefers a program's own definitions, so std's and sled's calls come by here; no
//! preloaded library has to be built, found or kept in step. Each call is passed on to the kernel
//! under one lock and then logged, so the log has the order in which the calls took effect. Nothing is
//! logged before [`start`]. `sync_file_range` is not here: it is no promise.
//!
//! What comes by another way (a raw system call) would be missed; that the log alone gives the very
//! files that are on disk is checked after every recorded life (`Disk::assert_equals`).

#![expect(unsafe_code, reason = "takes the place of functions of the C library")]
#![expect(unreachable_pub, reason = "the linker reaches them")]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{mode_t, off_t, size_t, ssize_t};

use crate::log::Record;

/// What to record, and where to.
pub(crate) struct Recording<'a> {
    /// Everything below is recorded.
    pub(crate) root: &'a Path,
    /// Writes to this file are marks.
    pub(crate) marks: &'a Path,
    /// The log; it must not lie below the root.
    pub(crate) log: &'a Path,
    /// Sabotage: `fdatasync` says that it was done and does nothing.
    pub(crate) forget_data_syncs: bool,
}

struct Recorder {
    root: String,
    marks: String,
    log: c_int,
    forget_data_syncs: bool,
}

static ACTIVE: AtomicBool = AtomicBool::new(false);
static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);

const PATH_BYTES_MAX: usize = 4096;

/// Starts recording this process, for the rest of its life.
pub(crate) fn start(recording: &Recording<'_>) {
    let text = |path: &Path| {
        path.to_str()
            .expect("the laboratory's paths are text")
            .to_owned()
    };
    let log = std::fs::File::create(recording.log).expect("the log can be made");
    let recorder = Recorder {
        root: text(recording.root),
        marks: text(recording.marks),
        log: log.into_raw_fd(),
        forget_data_syncs: recording.forget_data_syncs,
    };
    let inode = std::fs::metadata(recording.root)
        .expect("the root is there")
        .ino();
    recorder.log(&Record::Root {
        inode,
        path: &recorder.root,
    });
    *RECORDER.lock().unwrap() = Some(recorder);
    ACTIVE.store(true, Ordering::SeqCst);
}

impl Recorder {
    fn log(&self, record: &Record<'_>) {
        let bytes = record.encode();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            // SAFETY: the pointer and length are those of a live slice.
            let n = unsafe { libc::syscall(libc::SYS_write, self.log, rest.as_ptr(), rest.len()) };
            rest = &rest[usize::try_from(n).expect("the log can be written")..];
        }
    }

    fn is_below_root(&self, path: &str) -> bool {
        path.strip_prefix(&self.root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The file's inode, if it lies below the root.
    fn inode(&self, fd: c_int) -> Option<u64> {
        self.is_below_root(&path_of(fd)?).then(|| inode_of(fd))
    }

    fn opened(&self, fd: c_int, flags: c_int, was_there: bool) {
        let Some(path) = path_of(fd).filter(|path| self.is_below_root(path)) else {
            return;
        };
        let inode = inode_of(fd);
        if !was_there {
            self.log(&Record::CreateFile { inode, path: &path });
        } else if flags & libc::O_TRUNC != 0 {
            self.log(&Record::Truncate { inode, len: 0 });
        }
    }

    fn wrote(&self, fd: c_int, offset: impl FnOnce() -> u64, bytes: &[u8]) {
        let Some(path) = path_of(fd) else { return };
        if path == self.marks {
            let line = std::str::from_utf8(bytes).expect("a mark is text");
            self.log(&Record::Mark { line });
        } else if self.is_below_root(&path) {
            self.log(&Record::Write {
                inode: inode_of(fd),
                offset: offset(),
                bytes,
            });
        }
    }
}

/// Runs a call, and `then` if it succeeded and is to be recorded: both under the one lock.
fn recorded<T: Copy + PartialOrd + Default>(
    call: impl FnOnce() -> T,
    then: impl FnOnce(&Recorder, T),
) -> T {
    if !ACTIVE.load(Ordering::SeqCst) {
        return call();
    }
    let recorder = RECORDER.lock().unwrap();
    let result = call();
    if result >= T::default()
        && let Some(recorder) = recorder.as_ref()
    {
        then(recorder, result);
    }
    result
}

/// Where a descriptor leads to. A file that was removed keeps its path, with a remark at its end.
fn path_of(fd: c_int) -> Option<String> {
    let link = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).ok()?;
    let mut target = vec![0_u8; PATH_BYTES_MAX];
    // SAFETY: the link is a C string, the target has as many bytes as said.
    let len = unsafe { libc::readlink(link.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    target.truncate(usize::try_from(len).ok()?);
    String::from_utf8(target).ok()
}

fn inode_of(fd: c_int) -> u64 {
    // SAFETY: all zero is a valid `stat`, and `fstat` fills in a live one.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(
            libc::fstat(fd, &raw mut stat),
            0,
            "an open file can be looked at"
        );
        stat.st_ino
    }
}

/// The absolute path that a call names.
///
/// # Safety
///
/// `path` is a C string.
unsafe fn full_path(dir: c_int, path: *const c_char) -> Option<String> {
    // SAFETY: as the caller promises.
    let path = unsafe { CStr::from_ptr(path) }.to_str().ok()?;
    if path.starts_with('/') {
        Some(path.to_owned())
    } else if dir == libc::AT_FDCWD {
        // The laboratory's own paths are all absolute.
        None
    } else {
        Some(format!("{}/{path}", path_of(dir)?))
    }
}

/// Passes a call on to the kernel. Also sets `errno`.
macro_rules! kernel {
    ($number:ident, $($argument:expr),*) => {
        // SAFETY: the arguments are the caller's, who called the C function of the same meaning.
        unsafe { libc::syscall(libc::$number, $($argument),*) }
    };
}

fn narrow(result: i64) -> c_int {
    c_int::try_from(result).expect("a descriptor, 0 or -1")
}

fn wide(result: i64) -> ssize_t {
    ssize_t::try_from(result).expect("a length or -1")
}

// --- files ---

fn open_any(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let was_there = Cell::new(true);
    recorded(
        || {
            if flags & libc::O_CREAT != 0 {
                was_there.set(kernel!(SYS_faccessat, dir, path, libc::F_OK) == 0);
            }
            narrow(kernel!(SYS_openat, dir, path, flags, mode))
        },
        |recorder, fd| recorder.opened(fd, flags, was_there.get()),
    )
}

// `mode` is an optional argument in C; on Linux it is passed like a declared one.

#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_any(libc::AT_FDCWD, path, flags, mode)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_any(libc::AT_FDCWD, path, flags, mode)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    open_any(dir, path, flags, mode)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    open_any(dir, path, flags, mode)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, len: size_t) -> ssize_t {
    recorded(
        || wide(kernel!(SYS_write, fd, bytes, len)),
        |recorder, written| {
            // The cursor stands behind what was written, also after appending.
            let offset = || {
                // SAFETY: only asks.
                let end = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
                u64::try_from(end - off_t::try_from(written).unwrap()).expect("a file has a cursor")
            };
            // SAFETY: the caller's buffer, of which the kernel took that much.
            recorder.wrote(fd, offset, unsafe { slice(bytes, written) });
        },
    )
}

fn pwrite_any(fd: c_int, bytes: *const c_void, len: size_t, offset: off_t) -> ssize_t {
    recorded(
        || wide(kernel!(SYS_pwrite64, fd, bytes, len, offset)),
        |recorder, written| {
            let offset = || u64::try_from(offset).expect("the kernel took it");
            // SAFETY: the caller's buffer, of which the kernel took that much.
            recorder.wrote(fd, offset, unsafe { slice(bytes, written) });
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(
    fd: c_int,
    bytes: *const c_void,
    len: size_t,
    offset: off_t,
) -> ssize_t {
    pwrite_any(fd, bytes, len, offset)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(
    fd: c_int,
    bytes: *const c_void,
    len: size_t,
    offset: off_t,
) -> ssize_t {
    pwrite_any(fd, bytes, len, offset)
}

/// # Safety
///
/// `bytes` points to at least `len` bytes that nobody writes.
unsafe fn slice<'a>(bytes: *const c_void, len: ssize_t) -> &'a [u8] {
    let len = usize::try_from(len).expect("a call that succeeded");
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(bytes.cast(), len) }
}

fn truncate_any(fd: c_int, len: off_t) -> c_int {
    recorded(
        || narrow(kernel!(SYS_ftruncate, fd, len)),
        |recorder, _| {
            if let Some(inode) = recorder.inode(fd) {
                let len = u64::try_from(len).expect("the kernel took it");
                recorder.log(&Record::Truncate { inode, len });
            }
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, len: off_t) -> c_int {
    truncate_any(fd, len)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, len: off_t) -> c_int {
    truncate_any(fd, len)
}

/// Unknown to this kernel, it says: std then copies by reading and writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn copy_file_range(
    _from: c_int,
    _from_offset: *mut off_t,
    _to: c_int,
    _to_offset: *mut off_t,
    _len: size_t,
    _flags: libc::c_uint,
) -> ssize_t {
    not_implemented()
}

/// See [`copy_file_range`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile64(
    _to: c_int,
    _from: c_int,
    _offset: *mut off_t,
    _len: size_t,
) -> ssize_t {
    not_implemented()
}

fn not_implemented() -> ssize_t {
    // SAFETY: the address of this thread's `errno` is always valid.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

// --- syncs ---

fn synced(recorder: &Recorder, fd: c_int, data_only: bool) {
    if let Some(inode) = recorder.inode(fd) {
        recorder.log(&Record::Sync { inode, data_only });
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    recorded(
        || narrow(kernel!(SYS_fsync, fd)),
        |recorder, _| synced(recorder, fd, false),
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    recorded(
        || narrow(kernel!(SYS_fdatasync, fd)),
        |recorder, _| {
            if !recorder.forget_data_syncs {
                synced(recorder, fd, true);
            }
        },
    )
}

// --- names ---

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    recorded(
        || narrow(kernel!(SYS_mkdirat, libc::AT_FDCWD, path, mode)),
        |recorder, _| {
            // SAFETY: the kernel took it for a path.
            let Some(path) = (unsafe { full_path(libc::AT_FDCWD, path) }) else {
                return;
            };
            if recorder.is_below_root(&path) {
                let inode = std::fs::metadata(&path).expect("it was just made").ino();
                recorder.log(&Record::CreateDir { inode, path: &path });
            }
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let here = libc::AT_FDCWD;
    recorded(
        || narrow(kernel!(SYS_renameat2, here, from, here, to, 0)),
        |recorder, _| {
            // SAFETY: the kernel took them for paths.
            let paths = unsafe { (full_path(here, from), full_path(here, to)) };
            let (Some(from), Some(to)) = paths else {
                return;
            };
            if recorder.is_below_root(&from) {
                recorder.log(&Record::Rename {
                    from: &from,
                    to: &to,
                });
            }
        },
    )
}

fn remove_any(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    recorded(
        || narrow(kernel!(SYS_unlinkat, dir, path, flags)),
        |recorder, _| {
            // SAFETY: the kernel took it for a path.
            let Some(path) = (unsafe { full_path(dir, path) }) else {
                return;
            };
            if recorder.is_below_root(&path) {
                recorder.log(&Record::Remove { path: &path });
            }
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    remove_any(libc::AT_FDCWD, path, 0)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    remove_any(libc::AT_FDCWD, path, libc::AT_REMOVEDIR)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    remove_any(dir, path, flags)
}
