//! `times`: spans and points in time as people write them, and as they are shown.

use jiff::Zoned;
use jiff::tz::TimeZone;

#[allow(
    dead_code,
    unused_imports,
    reason = "the program uses all of it; its tests run there"
)]
#[path = "../../src/bin/jobsled/time.rs"]
mod time;

use time::{Span, When, from_now, short, shown};

use crate::random::Random;

/// 9999-12-30: what is later has no four digits of a year.
const LATEST_MS: i64 = 253_402_128_000_000;

pub(super) fn times(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return numbers(bytes);
    };
    let span = text.parse::<Span>();
    match &span {
        Ok(span) => shown_span(span.ms()),
        Err(why) => assert!(why.starts_with(&format!("`{text}`")), "{why}"),
    }
    let noon: Zoned = "2026-11-22T12:00:00[UTC]".parse().unwrap();
    let point = When::read(text, &noon);
    assert_eq!(point, When::read(text, &noon), "{text}");
    match &point {
        Ok(When(ms)) => shown_point(*ms),
        Err(why) => assert!(why.starts_with(&format!("`{text}`")), "{why}"),
    }
    span.is_ok() || point.is_ok() || numbers(bytes)
}

/// The bytes as a number of milliseconds.
fn numbers(bytes: &[u8]) -> bool {
    let Some(number) = bytes.first_chunk::<8>() else {
        return false;
    };
    let ms = i64::from_le_bytes(*number);
    shown_span(ms.unsigned_abs());
    shown_point(ms);
    shown_point(ms.rem_euclid(LATEST_MS));
    assert!(!from_now(ms, i64::MIN).is_empty() && !from_now(ms, i64::MAX).is_empty());
    true
}

/// What is shown reads as what is shown, never as more than it was.
fn shown_span(ms: u64) {
    let text = short(ms);
    if ms == 0 {
        return;
    }
    // Longer than jiff's longest span is shown all the same.
    let Ok(read) = text.parse::<Span>() else {
        assert!(ms > 100_000_000_000_000, "{ms} is shown as {text}");
        return;
    };
    assert!(read.ms() <= ms, "{ms} is shown as {text}");
    assert_eq!(short(read.ms()), text, "{ms}");
}

fn shown_point(ms: i64) {
    let text = shown(ms);
    if !(0..LATEST_MS).contains(&ms) {
        return;
    }
    let here = jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::system());
    let When(read) = When::read(&text, &here).unwrap();
    assert_eq!(shown(read), text, "{ms}");
    // In the hour that comes twice it may be the other one.
    assert!(read.abs_diff(ms) <= 7_200_999, "{ms} is shown as {text}");
}

/// Words of which spans and times are made, put together somehow.
pub(super) fn some_text(random: &mut Random) -> Vec<u8> {
    const WORDS: &[&str] = &[
        "1",
        "2",
        "30",
        "90",
        "2026",
        "-",
        ":",
        " ",
        "T",
        "Z",
        "+01:00",
        "[UTC]",
        "s",
        "m",
        "h",
        "d",
        "w",
        "y",
        "ms",
        "P",
        "PT",
        ".",
        ",",
        "99999999999999",
        "-5",
        "ago",
        "23:59",
        "2026-11-22",
        "12:00:60",
        "months",
        "us",
        "ns",
        "9999-12-31",
        "24:00",
        "[Europe/Berlin]",
    ];
    let words = random.between(1, 6);
    let text: String = (0..words).map(|_| *random.pick(WORDS)).collect();
    text.into_bytes()
}
