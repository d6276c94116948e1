//! What is asked of the machine itself: its steady clock, its name, and which boot this is.

use std::sync::OnceLock;
use std::time::Duration;

/// A host name longer than this is cut: the store's lock file has a fixed size. Linux allows 64.
const HOST_NAME_BYTES_MAX: usize = 255;

/// Time since a fixed moment: never set back, and on Linux it goes on while the machine sleeps.
///
/// Elsewhere it is `Instant` since this was first asked, which may stand still during sleep: a lease
/// then lasts longer by the time slept, which is late and not wrong.
pub(crate) fn steady_time() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::time::{ClockId, clock_gettime};
        // The kernel counts up from 0, so neither the conversion nor the clock itself can fail.
        Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        #[expect(
            clippy::disallowed_methods,
            reason = "the source of the engine's steady clock"
        )]
        let (start, now) = (*START.get_or_init(Instant::now), Instant::now());
        now.saturating_duration_since(start)
    }
}

/// Time since a fixed moment: never set back, and it stands still while the machine sleeps.
pub(crate) fn awake_time() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::time::{ClockId, clock_gettime};
        Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        steady_time()
    }
}

/// The name that the machine (or container) gives itself, `unknown` if it has none.
///
/// One word: spaces and control characters, which no sane name has, become `?`.
pub(crate) fn host_name() -> String {
    let mut name = String::new();
    for c in raw_host_name().chars() {
        let c = if c.is_whitespace() || c.is_control() {
            '?'
        } else {
            c
        };
        if name.len() + c.len_utf8() > HOST_NAME_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}

/// The number of the user that this process works for; 0 where users have none.
#[cfg(feature = "control")]
pub(crate) fn user_id() -> u32 {
    #[cfg(unix)]
    {
        rustix::process::geteuid().as_raw()
    }
    #[cfg(not(unix))]
    {
        0
    }
}

fn raw_host_name() -> String {
    #[cfg(unix)]
    {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    }
    #[cfg(not(unix))]
    {
        std::env::var("COMPUTERNAME").unwrap_or_default()
    }
}

/// A number that differs from one boot of the kernel to the next, 0 where it cannot be known.
///
/// Containers of one machine share it. It is read once per process. Only Linux has a cheap and exact
/// answer; a guess from the wall clock would change when the clock is set, so other systems give 0,
/// and whoever asks must take 0 as *another boot*.
pub(crate) fn boot_id() -> u128 {
    static BOOT: OnceLock<u128> = OnceLock::new();
    #[cfg(feature = "lab")]
    if let Some(id) = super::scripted::boot_id() {
        return id;
    }
    *BOOT.get_or_init(|| {
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return 0;
        }
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        parse_boot_id(&text).unwrap_or(0)
    })
}

/// Reads a UUID: 32 hexadecimal digits in five groups.
fn parse_boot_id(text: &str) -> Option<u128> {
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    let is_uuid = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_uuid {
        u128::from_str_radix(&digits, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_time_never_goes_back() {
        let mut last = steady_time();
        for _ in 0..1_000 {
            let next = steady_time();
            assert!(next >= last, "{next:?} after {last:?}");
            last = next;
        }
    }

    #[test]
    fn the_host_name_is_one_short_word() {
        let name = host_name();
        assert!(!name.is_empty() && name.len() <= HOST_NAME_BYTES_MAX);
        assert!(!name.contains(char::is_whitespace));
    }

    #[test]
    fn boot_id_is_stable_and_parsed_strictly() {
        assert_eq!(boot_id(), boot_id());
        let cases = [
            (
                "f4d87f34-c51e-43ba-b2a5-1435a995d824\n",
                Some(0xf4d8_7f34_c51e_43ba_b2a5_1435_a995_d824),
            ),
            ("", None),
            ("f4d87f34", None),
            ("+4d87f34-c51e-43ba-b2a5-1435a995d824", None),
            ("g4d87f34-c51e-43ba-b2a5-1435a995d824", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_boot_id(text), want, "{text:?}");
        }
    }
}
