//! A library that is loaded before the C library and fails file calls as it is told: `LAB_FAULT=CALLS WHAT FROM TO`,
//! counted from 1 over all threads of the process, below `LAB_FAULT_ROOT` alone. What was hit is appended to
//! `LAB_FAULT_FIRED`, a path a line.
//!
//! CALLS are names with commas, or `any`. WHAT is the number of an error, or `KILL`, `SHORT` (half of the bytes) or
//! `DELAY` (and then TO is in milliseconds, and it holds for ever), or `LIMIT`: `pthread_create` is refused while the
//! process has TO threads.
//!
//! `LAB_CLOCK=BEFORE AT AFTER`, in milliseconds: the wall clock is BEFORE ahead of the true one, and from AT after the
//! start on AFTER.
//!
//! No part of a crate: `mod.rs` beside it has it built by rustc alone.
//!
//! All that is unsafe here is one thing: each function has the C library's own signature, and hands its arguments on as
//! it got them, or a shorter length. What it reads itself are paths, which end with a zero, and its own buffers.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn readlink(path: *const c_char, to: *mut c_char, len: usize) -> isize;
    fn __errno_location() -> *mut c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn getpid() -> c_int;
    fn poll(descriptors: *mut c_void, count: u64, ms: c_int) -> c_int;
}

const NEXT: *mut c_void = -1_isize as *mut c_void;
const KILL: c_int = 9;
const TRY_AGAIN: c_int = 11;
const WALL: c_int = 0;
const STEADY: c_int = 1;
const APPEND_AND_MAKE: c_int = 0o1 | 0o100 | 0o2000;

/// `timespec`, where a number of seconds has 64 bits.
#[repr(C)]
pub struct Time {
    seconds: i64,
    nanos: i64,
}

enum What {
    Error(c_int),
    Kill,
    Short,
    Delay(c_int),
    Limit(u64),
}

struct Plan {
    calls: Vec<String>,
    what: What,
    from: u64,
    to: u64,
    root: String,
    fired: Vec<u8>,
}

enum Verdict {
    Go,
    Fail(c_int),
    Short,
}

/// A wall clock that is wrong, and then set.
struct Clock {
    /// By the steady clock.
    set_at_ms: i64,
    ahead_ms: [i64; 2],
}

static PLAN: OnceLock<Plan> = OnceLock::new();
static PASSED: AtomicU64 = AtomicU64::new(0);
static CLOCK: OnceLock<Clock> = OnceLock::new();

/// Before `main`, while there is one thread.
extern "C" fn init() {
    if let Some(clock) = clock() {
        let _ = CLOCK.set(clock);
    }
    let Some(plan) = plan() else { return };
    let _ = PLAN.set(plan);
}

#[used]
#[unsafe(link_section = ".init_array")]
static INIT: extern "C" fn() = init;

fn plan() -> Option<Plan> {
    let asked = std::env::var("LAB_FAULT").ok()?;
    let words: Vec<&str> = asked.split(' ').collect();
    let [calls, what, from, to] = words[..] else { std::process::abort() };
    let to: u64 = to.parse().ok()?;
    let what = match what {
        "KILL" => What::Kill,
        "SHORT" => What::Short,
        "DELAY" => What::Delay(to as c_int),
        "LIMIT" => What::Limit(to),
        number => What::Error(number.parse().ok()?),
    };
    let last = if matches!(what, What::Delay(_) | What::Limit(_)) { u64::MAX } else { to };
    let mut fired = std::env::var("LAB_FAULT_FIRED").ok()?.into_bytes();
    fired.push(0);
    Some(Plan {
        calls: calls.split(',').map(str::to_owned).collect(),
        what,
        from: from.parse().ok()?,
        to: last,
        root: std::env::var("LAB_FAULT_ROOT").ok()?,
        fired,
    })
}

fn clock() -> Option<Clock> {
    let asked = std::env::var("LAB_CLOCK").ok()?;
    let times: Vec<i64> = asked.split(' ').filter_map(|ms| ms.parse().ok()).collect();
    let [before, at, after] = times[..] else { std::process::abort() };
    Some(Clock { set_at_ms: steady_ms() + at, ahead_ms: [before, after] })
}

fn steady_ms() -> i64 {
    let mut now = Time { seconds: 0, nanos: 0 };
    unsafe { real::clock_gettime(STEADY, &mut now) };
    now.seconds * 1_000 + now.nanos / 1_000_000
}

/// Where a call leads to.
enum Place {
    Descriptor(c_int),
    Path(*const c_char),
    /// Not a file: counted wherever it is.
    Nowhere,
}

impl Plan {
    /// The place's path, if it lies below the root. Allocates nothing.
    fn is_below(&self, place: &Place, buffer: &mut [u8; 4096]) -> Option<usize> {
        let len = match *place {
            Place::Descriptor(fd) => {
                let mut link = [0_u8; 32];
                link[..14].copy_from_slice(b"/proc/self/fd/");
                let (mut digits, mut at, mut rest) = ([0_u8; 12], 0, fd);
                loop {
                    digits[at] = b'0' + (rest % 10) as u8;
                    (at, rest) = (at + 1, rest / 10);
                    if rest <= 0 {
                        break;
                    }
                }
                for n in 0..at {
                    link[14 + n] = digits[at - 1 - n];
                }
                let len = unsafe { readlink(link.as_ptr().cast(), buffer.as_mut_ptr().cast(), 4096) };
                usize::try_from(len).ok()?
            }
            Place::Path(path) => {
                let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
                let len = bytes.len().min(4096);
                buffer[..len].copy_from_slice(&bytes[..len]);
                len
            }
            Place::Nowhere => return Some(0),
        };
        buffer[..len].starts_with(self.root.as_bytes()).then_some(len)
    }

    fn note(&self, path: &mut [u8; 4096], len: usize) {
        let end = len.min(4095);
        path[end] = b'\n';
        unsafe {
            let fd = real::open64(self.fired.as_ptr().cast(), APPEND_AND_MAKE, 0o644);
            if fd >= 0 {
                real::write(fd, path.as_ptr().cast(), end + 1);
                real::close(fd);
            }
        }
    }
}

fn ask(call: &str, place: Place) -> Verdict {
    let Some(plan) = PLAN.get() else { return Verdict::Go };
    if (plan.calls[0] != "any" || matches!(place, Place::Nowhere)) && !plan.calls.iter().any(|name| name == call) {
        return Verdict::Go;
    }
    let before = unsafe { *__errno_location() };
    let verdict = judge(plan, &place);
    unsafe { *__errno_location() = before };
    verdict
}

fn judge(plan: &Plan, place: &Place) -> Verdict {
    let mut path = [0_u8; 4096];
    let Some(len) = plan.is_below(place, &mut path) else { return Verdict::Go };
    let nth = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if nth < plan.from || nth > plan.to {
        return Verdict::Go;
    }
    if let What::Delay(time) = plan.what {
        if nth == plan.from {
            plan.note(&mut path, len);
        }
        unsafe { poll(std::ptr::null_mut(), 0, time) };
        return Verdict::Go;
    }
    if let What::Limit(most) = plan.what
        && threads() < most
    {
        return Verdict::Go;
    }
    plan.note(&mut path, len);
    match plan.what {
        What::Limit(_) => Verdict::Fail(TRY_AGAIN),
        What::Error(error) => Verdict::Fail(error),
        What::Short => Verdict::Short,
        _ => {
            unsafe { kill(getpid(), KILL) };
            std::process::abort()
        }
    }
}

/// How many this process has: each has an entry there, beside `.` and `..`.
fn threads() -> u64 {
    let tasks = std::fs::metadata("/proc/self/task");
    tasks.map_or(0, |tasks| tasks.nlink().saturating_sub(2))
}

fn failed(error: c_int) -> c_int {
    unsafe { *__errno_location() = error };
    -1
}

/// The C library's own functions.
mod real {
    use super::{NEXT, Time, c_char, c_int, c_uint, c_void, dlsym};
    use std::sync::atomic::{AtomicPtr, Ordering};

    macro_rules! next {
        ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
            pub(super) unsafe fn $name($($argument: $type),*) -> $result {
                static FOUND: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
                let mut found = FOUND.load(Ordering::Relaxed);
                if found.is_null() {
                    found = unsafe { dlsym(NEXT, concat!(stringify!($name), "\0").as_ptr().cast()) };
                    FOUND.store(found, Ordering::Relaxed);
                }
                let call: extern "C" fn($($type),*) -> $result = unsafe { std::mem::transmute(found) };
                call($($argument),*)
            }
        )*};
    }

    next! {
        open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
        openat64(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
        close(fd: c_int) -> c_int;
        read(fd: c_int, to: *mut c_void, len: usize) -> isize;
        pread64(fd: c_int, to: *mut c_void, len: usize, at: i64) -> isize;
        write(fd: c_int, from: *const c_void, len: usize) -> isize;
        pwrite64(fd: c_int, from: *const c_void, len: usize, at: i64) -> isize;
        fsync(fd: c_int) -> c_int;
        fdatasync(fd: c_int) -> c_int;
        sync_file_range(fd: c_int, at: i64, len: i64, flags: c_uint) -> c_int;
        ftruncate64(fd: c_int, len: i64) -> c_int;
        copy_file_range(from: c_int, at: *mut i64, to: c_int, to_at: *mut i64, len: usize, flags: c_uint) -> isize;
        rename(from: *const c_char, to: *const c_char) -> c_int;
        unlink(path: *const c_char) -> c_int;
        unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
        mkdir(path: *const c_char, mode: c_uint) -> c_int;
        clock_gettime(clock: c_int, now: *mut Time) -> c_int;
        pthread_create(
            thread: *mut c_void, how: *const c_void, main: *mut c_void, with: *mut c_void
        ) -> c_int;
    }
}

macro_rules! files {
    ($($name:ident as $real:ident($fd:ident: c_int $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($fd: c_int $(, $argument: $type)*) -> $result {
            match ask(stringify!($real), Place::Descriptor($fd)) {
                Verdict::Fail(error) => failed(error) as $result,
                _ => unsafe { real::$real($fd $(, $argument)*) },
            }
        }
    )*};
}

/// Calls that may do a part of it.
macro_rules! parts {
    ($($name:ident as $real:ident(
        $fd:ident: c_int, $bytes:ident: $pointer:ty, $len:ident $(, $at:ident: $type:ty)?
    );)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($fd: c_int, $bytes: $pointer, $len: usize $(, $at: $type)?) -> isize {
            let len = match ask(stringify!($real), Place::Descriptor($fd)) {
                Verdict::Fail(error) => return failed(error) as isize,
                Verdict::Short => $len.div_ceil(2),
                Verdict::Go => $len,
            };
            unsafe { real::$real($fd, $bytes, len $(, $at)?) }
        }
    )*};
}

macro_rules! names {
    ($($name:ident as $real:ident($path:ident: *const c_char $(, $argument:ident: $type:ty)*);)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($path: *const c_char $(, $argument: $type)*) -> c_int {
            match ask(stringify!($real), Place::Path($path)) {
                Verdict::Fail(error) => failed(error),
                _ => unsafe { real::$real($path $(, $argument)*) },
            }
        }
    )*};
}

files! {
    fsync as fsync(fd: c_int) -> c_int;
    fdatasync as fdatasync(fd: c_int) -> c_int;
    sync_file_range as sync_file_range(fd: c_int, at: i64, len: i64, flags: c_uint) -> c_int;
    ftruncate as ftruncate64(fd: c_int, len: i64) -> c_int;
    ftruncate64 as ftruncate64(fd: c_int, len: i64) -> c_int;
    unlinkat as unlinkat(fd: c_int, path: *const c_char, flags: c_int) -> c_int;
    copy_file_range as copy_file_range(
        fd: c_int, at: *mut i64, to: c_int, to_at: *mut i64, len: usize, flags: c_uint
    ) -> isize;
}

parts! {
    write as write(fd: c_int, bytes: *const c_void, len);
    read as read(fd: c_int, bytes: *mut c_void, len);
    pwrite as pwrite64(fd: c_int, bytes: *const c_void, len, at: i64);
    pwrite64 as pwrite64(fd: c_int, bytes: *const c_void, len, at: i64);
    pread as pread64(fd: c_int, bytes: *mut c_void, len, at: i64);
    pread64 as pread64(fd: c_int, bytes: *mut c_void, len, at: i64);
}

names! {
    open as open64(path: *const c_char, flags: c_int, mode: c_uint);
    open64 as open64(path: *const c_char, flags: c_int, mode: c_uint);
    rename as rename(path: *const c_char, to: *const c_char);
    unlink as unlink(path: *const c_char);
    mkdir as mkdir(path: *const c_char, mode: c_uint);
}

/// Says its error itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_create(
    thread: *mut c_void,
    how: *const c_void,
    main: *mut c_void,
    with: *mut c_void,
) -> c_int {
    match ask("pthread_create", Place::Nowhere) {
        Verdict::Fail(error) => error,
        _ => unsafe { real::pthread_create(thread, how, main, with) },
    }
}

/// Fails for no reason of ours; `now` is the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, now: *mut Time) -> c_int {
    let told = unsafe { real::clock_gettime(clock, now) };
    if let Some(wrong) = CLOCK.get().filter(|_| clock == WALL && told == 0) {
        let ahead = wrong.ahead_ms[usize::from(steady_ms() >= wrong.set_at_ms)];
        unsafe { (*now).seconds += ahead.div_euclid(1_000) };
    }
    told
}

/// Relative to a directory: judged by that one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    match ask("open64", Place::Descriptor(dir)) {
        Verdict::Fail(error) => failed(error),
        _ => unsafe { real::openat64(dir, path, flags, mode) },
    }
}
