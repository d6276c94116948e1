//! How the program speaks: results on stdout; progress and errors on stderr. Colour and a progress bar
//! only on a terminal, colour not with `NO_COLOR`.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line on stdout. That nobody reads it (`| head`) is not an error.
pub(crate) fn say(line: impl Display) {
    writeln!(stdout(), "{line}").ok();
}

/// What went wrong, in the words of the failure.
pub(crate) fn error(failure: &impl Display) {
    let label = paint(Colour::Red, "error:", stderr().is_terminal());
    writeln!(stderr(), "{label} {failure}").ok();
}

/// The two colours that mean something here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Green,
    Red,
}

/// A text for stdout in a colour, if there it may be.
pub(crate) fn coloured(colour: Colour, text: &str) -> String {
    paint(colour, text, stdout().is_terminal())
}

fn paint(colour: Colour, text: &str, on_terminal: bool) -> String {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
    };
    if on_terminal && !unwanted {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Progress on stderr: a bar on a terminal, and lines either way.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(length: u64) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let template = "{bar:20} {percent:>3} %  {human_pos} of {human_len} jobs done{msg}";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(length).with_style(style.progress_chars("=> "))
        });
        Progress { bar }
    }

    /// A line above the bar.
    pub(crate) fn line(&self, line: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| writeln!(stderr(), "{line}").ok()),
            None => writeln!(stderr(), "{line}").ok(),
        };
    }

    /// Moves the bar; `message` stands beside it.
    pub(crate) fn at(&self, position: u64, message: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!(", {message}"));
            bar.set_position(position);
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// 12345 as `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 job`, `2 jobs`.
pub(crate) fn counted(number: u64, one: &str) -> String {
    format!(
        "{} {one}{}",
        count(number),
        if number == 1 { "" } else { "s" }
    )
}

/// Bytes in the unit that people count them in.
pub(crate) fn size(bytes: u64) -> String {
    let in_unit = |unit: u64, name: &str| match (bytes / unit, bytes % unit * 10 / unit) {
        (whole, 0) => format!("{} {name}", count(whole)),
        (whole, tenths) => format!("{}.{tenths} {name}", count(whole)),
    };
    match bytes {
        0..0x400 => counted(bytes, "byte"),
        0x400..0x10_0000 => in_unit(0x400, "KiB"),
        _ => in_unit(0x10_0000, "MiB"),
    }
}

/// `85 ms`, `2.4 s`.
pub(crate) fn time(time: Duration) -> String {
    let ms = time.as_millis();
    if ms < 1_000 {
        format!("{ms} ms")
    } else {
        format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_write_them() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (20_000, "20,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, expected) in cases {
            assert_eq!(count(number), expected);
        }
        assert_eq!(
            (counted(1, "job"), counted(0, "job")),
            ("1 job".to_owned(), "0 jobs".to_owned())
        );
        let cases = [
            (1, "1 byte"),
            (1_023, "1,023 bytes"),
            (1_536, "1.5 KiB"),
            (268_435_456, "256 MiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(time(Duration::from_millis(85)), "85 ms");
        assert_eq!(time(Duration::from_millis(2_480)), "2.4 s");
    }
}
