//! Spans and times as people write and read them.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SpanRelativeTo, Timestamp, Zoned};

/// A span of time, more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl Span {
    pub(crate) fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || {
            format!(
                "`{text}` is no span: write a number and its unit, as 90s, 15m, 2h30m, 1d or 500ms"
            )
        };
        let span: jiff::Span = text.parse().map_err(|_| wrong())?;
        // A day is 24 hours here, whatever the clocks on the wall do meanwhile.
        let exact = span.to_duration(SpanRelativeTo::days_are_24_hours());
        let exact = exact.map_err(|_| {
            format!(
                "`{text}` is no span of a known length: months and years differ, write it in days"
            )
        })?;
        let span = Duration::try_from(exact).map_err(|_| wrong())?;
        if span.is_zero() {
            return Err(format!("`{text}` is no time at all: write a longer span"));
        }
        Ok(Span(span))
    }
}

/// A point in time: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct When(pub(crate) i64);

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        When::read(text, &Zoned::now())
    }
}

impl When {
    pub(crate) fn read(text: &str, now: &Zoned) -> Result<When, String> {
        let zone = now.time_zone();
        // A time of day is read last: jiff takes it out of a whole date as well, and drops the day.
        let point = if let Ok(point) = text.parse::<Timestamp>() {
            Some(point)
        } else if let Ok(point) = text.parse::<Zoned>() {
            Some(point.timestamp())
        } else if let Ok(day) = text.parse::<DateTime>() {
            zone.to_timestamp(day).ok()
        } else if let Ok(time) = text.parse::<jiff::civil::Time>() {
            // The next time that the clock on the wall shows this.
            let today = now.date().to_datetime(time);
            let at = |day: DateTime| zone.to_zoned(day).ok();
            let next = || at(now.date().tomorrow().ok()?.to_datetime(time));
            at(today)
                .filter(|point| point > now)
                .or_else(next)
                .map(|point| point.timestamp())
        } else {
            None
        };
        let point = point.ok_or_else(|| {
            format!(
                "`{text}` is no time: write it as 2026-11-23T09:00:00+01:00, or by the clock on the wall as \
                 2026-11-23 09:00 or 09:00"
            )
        })?;
        Ok(When(point.as_millisecond()))
    }
}

/// The wall clock, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    use jobsled::{Clock, SystemClock};
    SystemClock.now().wall_ms
}

/// A point in time by the clock on the wall.
pub(crate) fn shown(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(point) => {
            let zoned = point.to_zoned(TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => format!("{ms} ms since 1970"),
    }
}

/// How far a point is from now: `in 5m`, `2h ago`.
pub(crate) fn from_now(ms: i64, now_ms: i64) -> String {
    let span = short(ms.abs_diff(now_ms));
    if ms > now_ms {
        format!("in {span}")
    } else {
        format!("{span} ago")
    }
}

/// A span in one or two units: `850ms`, `12s`, `3m 20s`, `5h 2m`, `3d 4h`.
pub(crate) fn short(ms: u64) -> String {
    let (s, m, h) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    let two = |large: u64, unit, small: u64, small_unit| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit} {small}{small_unit}"),
    };
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..10_000 => format!("{s}.{}s", ms % 1_000 / 100),
        10_000..60_000 => format!("{s}s"),
        60_000..3_600_000 => two(m, "m", s % 60, "s"),
        3_600_000..86_400_000 => two(h, "h", m % 60, "m"),
        _ => two(h / 24, "d", h % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_units() {
        let cases = [
            ("90s", 90_000),
            ("15m", 900_000),
            ("2h30m", 9_000_000),
            ("2h 30m", 9_000_000),
            ("1d", 86_400_000),
            ("1w", 604_800_000),
            ("500ms", 500),
            ("PT1H", 3_600_000),
            ("1.5h", 5_400_000),
        ];
        for (text, ms) in cases {
            assert_eq!(text.parse::<Span>().map(Span::ms), Ok(ms), "{text}");
        }
        for text in [
            "",
            "90",
            "soon",
            "-5m",
            "0s",
            "1y",
            "5 parsecs",
            "99999999999999d",
        ] {
            let wrong = text.parse::<Span>().unwrap_err();
            assert!(wrong.starts_with(&format!("`{text}`")), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_with_and_without_a_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now = "2026-11-22T12:00:00".parse::<DateTime>().unwrap();
        let now = zone.to_zoned(now).unwrap();
        let hour = 3_600_000;
        let noon = now.timestamp().as_millisecond();
        let cases = [
            ("2026-11-22T12:00:00+02:00", noon),
            ("2026-11-22T12:00:00Z", noon + 2 * hour),
            ("2026-11-22 13:00", noon + hour),
            ("2026-11-22T13:00:00", noon + hour),
            ("13:00", noon + hour),
            ("11:30", noon + 23 * hour + hour / 2),
            ("12:00", noon + 24 * hour),
            // The day was dropped, and the job ran at that hour of this day or the next.
            ("2026-12-24 18:00", noon + (32 * 24 + 6) * hour),
            ("2026-12-24T18:00:00", noon + (32 * 24 + 6) * hour),
            ("2026-11-21 13:00", noon - 23 * hour),
            ("2026-11-24", noon + 36 * hour),
            // A zone that is named counts, and not the one that is here.
            ("2026-11-24 12:00[Asia/Tokyo]", noon + (48 - 7) * hour),
        ];
        for (text, ms) in cases {
            assert_eq!(When::read(text, &now), Ok(When(ms)), "{text}");
        }
        for text in ["", "tomorrow", "25:00", "2026-13-01 09:00", "1700000000"] {
            let wrong = When::read(text, &now).unwrap_err();
            assert!(wrong.contains("2026-11-23 09:00"), "{wrong}");
        }
    }

    #[test]
    fn spans_are_shown_in_two_units_at_most() {
        let cases = [
            (0, "0ms"),
            (850, "850ms"),
            (1_250, "1.2s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (200_000, "3m 20s"),
            (18_120_000, "5h 2m"),
            (273_600_000, "3d 4h"),
        ];
        for (ms, text) in cases {
            assert_eq!(short(ms), text);
        }
        assert_eq!(from_now(5_000, 0), "in 5.0s");
        assert_eq!(from_now(0, 5_000), "5.0s ago");
    }
}
