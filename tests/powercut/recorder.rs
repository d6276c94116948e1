//! The recorder: the C library's file calls, defined once more in this very program.
//!
//! The linker prefers a program's own definitions, so std's and sled's calls come by here; no
//! preloaded library has to be built, found or kept in step. Each call is passed on to the kernel
//! under one lock and then logged, so the log has the order in which the calls took effect. Nothing is
//! logged before [`start`]. `sync_file_range` is not here: it is no promise.
//!
//! What comes by another way (a raw system call) would be missed; that the log alone gives the very
//! files that are on disk is checked after every recorded life (`Disk::assert_equals`). One such call is seen by
//! what it does: a file that has grown by itself was lengthened by `fallocate`.
//!
//! `tests/lab/cuts/library.rs` has the same recorder as a library, for programs that are not this one.

#![expect(unsafe_code, reason = "takes the place of functions of the C library")]
#![expect(unreachable_pub, reason = "the linker reaches them")]

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, OnceLock};

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
    /// How long files are, as far as the log says.
    lengths: HashMap<u64, u64>,
}

/// The process that is recorded, 0 for none. Not what it forks: that shares the lock, but not its holder.
static ACTIVE: AtomicI32 = AtomicI32::new(0);
static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);

const PATH_BYTES_MAX: usize = 4096;

/// Starts recording this process, for the rest of its life.
pub(crate) fn start(recording: &Recording<'_>) {
    let text = |path: &Path| {
        path.to_str()
            .expect("the laboratory's paths are text")
            .to_owned()
    };
    let _ = std::fs::remove_file(recording.log);
    // Others may add marks of their own.
    let log = std::fs::OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(recording.log)
        .expect("the log can be made");
    let recorder = Recorder {
        root: text(recording.root),
        marks: text(recording.marks),
        log: log.into_raw_fd(),
        forget_data_syncs: recording.forget_data_syncs,
        lengths: HashMap::new(),
    };
    let inode = std::fs::metadata(recording.root)
        .expect("the root is there")
        .ino();
    recorder.log(&Record::Root {
        inode,
        path: &recorder.root,
    });
    *RECORDER.lock().unwrap() = Some(recorder);
    ACTIVE.store(process(), Ordering::SeqCst);
}

fn process() -> c_int {
    // SAFETY: only asks.
    unsafe { libc::getpid() }
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
        self.is_below_root(&path_of(fd)?).then(|| look_at(fd).0)
    }

    fn opened(&mut self, fd: c_int, flags: c_int, was_there: bool) {
        let Some(path) = path_of(fd).filter(|path| self.is_below_root(path)) else {
            return;
        };
        let (inode, len) = look_at(fd);
        if !was_there {
            self.log(&Record::CreateFile { inode, path: &path });
        } else if flags & libc::O_TRUNC != 0 {
            self.log(&Record::Truncate { inode, len: 0 });
        }
        self.lengths.entry(inode).or_insert(len);
        if len == 0 {
            // Also another file that has an old one's number.
            self.lengths.insert(inode, 0);
        }
    }

    /// Something was done to a file, after which the log has it this long. What it has more came by another way.
    fn expect_length(&mut self, fd: c_int, of: impl FnOnce(u64) -> u64) {
        let (inode, len) = look_at(fd);
        let logged = of(self.lengths.get(&inode).copied().unwrap_or(len));
        if len > logged {
            self.log(&Record::Truncate { inode, len });
        }
        self.lengths.insert(inode, len);
    }

    fn wrote(&mut self, fd: c_int, offset: impl FnOnce() -> u64, bytes: &[u8]) {
        let Some(path) = path_of(fd) else { return };
        if path == self.marks {
            let line = std::str::from_utf8(bytes).expect("a mark is text");
            self.log(&Record::Mark { line });
        } else if self.is_below_root(&path) {
            let offset = offset();
            self.expect_length(fd, |len| len.max(offset + bytes.len() as u64));
            self.log(&Record::Write {
                inode: look_at(fd).0,
                offset,
                bytes,
            });
        }
    }
}

/// Runs a call, and `then` if it succeeded and is to be recorded: both under the one lock.
fn recorded<T: Copy + PartialOrd + Default>(
    call: impl FnOnce() -> T,
    then: impl FnOnce(&mut Recorder, T),
) -> T {
    if !is_recorded() {
        return call();
    }
    let mut recorder = RECORDER.lock().unwrap();
    let result = call();
    if result >= T::default()
        && let Some(recorder) = recorder.as_mut()
    {
        then(recorder, result);
    }
    result
}

fn is_recorded() -> bool {
    let recorded = ACTIVE.load(Ordering::SeqCst);
    recorded != 0 && recorded == process()
}

/// Where a descriptor leads to. A file that was removed keeps its path, with a remark at its end.
fn path_of(fd: c_int) -> Option<String> {
    let link = CString::new(format!("/proc/self/fd/{fd}")).ok()?;
    let mut target = vec![0_u8; PATH_BYTES_MAX];
    // SAFETY: the link is a C string, the target has as many bytes as said.
    let len = unsafe { libc::readlink(link.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    target.truncate(usize::try_from(len).ok()?);
    String::from_utf8(target).ok()
}

/// An open file's inode and length; what is no regular file has none.
fn look_at(fd: c_int) -> (u64, u64) {
    // SAFETY: all zero is a valid `stat`, and `fstat` fills in a live one.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(
            libc::fstat(fd, &raw mut stat),
            0,
            "an open file can be looked at"
        );
        let is_file = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        let len = u64::try_from(stat.st_size).expect("a length");
        (stat.st_ino, if is_file { len } else { 0 })
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

/// Where the kernel says which boot this is.
const BOOT_ID: &CStr = c"/proc/sys/kernel/random/boot_id";
/// Names the file that is read instead: after a power cut it is another boot.
const OTHER_BOOT_ID: &str = "JOBSLED_LAB_BOOT_ID";

/// What is opened in the place of a path.
fn instead_of(path: *const c_char) -> *const c_char {
    static OTHER: OnceLock<Option<CString>> = OnceLock::new();
    // SAFETY: the caller opens it, so it is a C string.
    if unsafe { CStr::from_ptr(path) } != BOOT_ID {
        return path;
    }
    let other = OTHER.get_or_init(|| CString::new(std::env::var(OTHER_BOOT_ID).ok()?).ok());
    other.as_ref().map_or(path, |other| other.as_ptr())
}

fn open_any(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let path = instead_of(path);
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
                recorder.lengths.insert(inode, len);
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

/// Unknown to this kernel, it says while it records: std then copies by reading and writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_offset: *mut off_t,
    to: c_int,
    to_offset: *mut off_t,
    len: size_t,
    flags: libc::c_uint,
) -> ssize_t {
    if is_recorded() {
        return not_implemented();
    }
    wide(kernel!(
        SYS_copy_file_range,
        from,
        from_offset,
        to,
        to_offset,
        len,
        flags
    ))
}

/// See [`copy_file_range`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile64(
    to: c_int,
    from: c_int,
    offset: *mut off_t,
    len: size_t,
) -> ssize_t {
    if is_recorded() {
        return not_implemented();
    }
    wide(kernel!(SYS_sendfile, to, from, offset, len))
}

fn not_implemented() -> ssize_t {
    // SAFETY: the address of this thread's `errno` is always valid.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

// --- syncs ---

fn synced(recorder: &mut Recorder, fd: c_int, data_only: bool) {
    if let Some(inode) = recorder.inode(fd) {
        if recorder.lengths.contains_key(&inode) {
            recorder.expect_length(fd, |len| len);
        }
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
