//! How the program speaks: results on stdout; progress and errors on stderr. Colour and a progress bar
//! only on a terminal, colour not with `NO_COLOR`.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The first failure to write to stdout.
static FAILED: OnceLock<ErrorKind> = OnceLock::new();

/// A line on stdout. That nobody reads it (`| head`) is not an error; what else went wrong [`failure`] tells.
pub(crate) fn say(line: impl Display) {
    if let Err(error) = writeln!(stdout(), "{line}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        FAILED.get_or_init(|| error.kind());
    }
}

/// Why stdout does not have all that was said.
pub(crate) fn failure() -> Option<ErrorKind> {
    if let Err(error) = stdout().flush()
        && error.kind() != ErrorKind::BrokenPipe
    {
        FAILED.get_or_init(|| error.kind());
    }
    FAILED.get().copied()
}

/// A line of JSON on stdout.
pub(crate) fn json(value: &impl serde::Serialize) {
    say(serde_json::to_string(value).unwrap_or_default());
}

/// A line for people on stderr.
pub(crate) fn note(line: impl Display) {
    writeln!(stderr(), "{line}").ok();
}

/// What went wrong, in the words of the failure.
pub(crate) fn error(failure: &impl Display) {
    let label = paint(Colour::Red, "error:", stderr().is_terminal());
    writeln!(stderr(), "{label} {failure}").ok();
}

/// The colours that mean something here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Green,
    Red,
    /// For what is over.
    Grey,
}

/// A text for stdout in a colour, if there it may be.
pub(crate) fn coloured(colour: Colour, text: &str) -> String {
    paint(colour, text, stdout().is_terminal())
}

/// Whether colours may be where there is a terminal.
pub(crate) fn may_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn paint(colour: Colour, text: &str, on_terminal: bool) -> String {
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Grey => 90,
    };
    if on_terminal && may_colour() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Text from a job, as it may be shown on a terminal: one line, without control characters.
pub(crate) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for part in text.split(moves).filter(|part| !part.is_empty()) {
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown += part;
    }
    shown
}

/// Whether a character does more than to stand in its place: control characters, and those that turn the direction of
/// what follows.
fn moves(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As [`clean`], but lines and tabs stay.
pub(crate) fn clean_lines(text: &str) -> String {
    let may_stay = |c: &char| !moves(*c) || matches!(c, '\n' | '\t');
    text.chars().filter(may_stay).collect()
}

/// Which side the cells of a column keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows in columns on stdout. On a terminal they fit its width, a row a line: what is too long is cut.
#[derive(Debug)]
pub(crate) struct Table {
    rows: comfy_table::Table,
    aligns: Vec<Align>,
    on_terminal: bool,
}

impl Table {
    pub(crate) fn new(columns: &[(&str, Align)]) -> Table {
        let on_terminal = stdout().is_terminal();
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        // Some terminals do not know how wide they are.
        if on_terminal && table.width().is_some_and(|columns| columns > 0) {
            table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
        } else {
            table.force_no_tty();
        }
        table.set_header(columns.iter().map(|(name, align)| cell(name, *align)));
        Table {
            rows: table,
            aligns: columns.iter().map(|(_, align)| *align).collect(),
            on_terminal,
        }
    }

    pub(crate) fn row(&mut self, cells: &[String], colour: Option<Colour>) {
        let colour = colour.filter(|_| self.on_terminal && may_colour());
        let cells = cells.iter().zip(&self.aligns).map(|(text, align)| {
            let cell = cell(text, *align);
            match colour {
                Some(Colour::Green) => cell.fg(comfy_table::Color::Green),
                Some(Colour::Red) => cell.fg(comfy_table::Color::Red),
                Some(Colour::Grey) => cell.fg(comfy_table::Color::DarkGrey),
                None => cell,
            }
        });
        let mut row = comfy_table::Row::from(cells);
        row.max_height(1);
        self.rows.add_row(row);
    }

    pub(crate) fn print(&self) {
        self.rows.lines().for_each(|line| say(line.trim_end()));
    }
}

fn cell(text: &str, align: Align) -> comfy_table::Cell {
    comfy_table::Cell::new(text).set_alignment(match align {
        Align::Left => comfy_table::CellAlignment::Left,
        Align::Right => comfy_table::CellAlignment::Right,
    })
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
        0x10_0000..0x4000_0000 => in_unit(0x10_0000, "MiB"),
        _ => in_unit(0x4000_0000, "GiB"),
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
    fn text_from_jobs_moves_no_cursor() {
        assert_eq!(clean("a\x1b[2Jb\nc\td\r"), "a [2Jb c d");
        assert_eq!(clean("größe\u{9b}31m"), "größe 31m");
        assert_eq!(clean("a\u{202e}b"), "a b");
        assert_eq!(clean_lines("a\tb\r\n\x07c\n"), "a\tb\nc\n");
    }

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
            (25_232_932_864, "23.5 GiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(time(Duration::from_millis(85)), "85 ms");
        assert_eq!(time(Duration::from_millis(2_480)), "2.4 s");
    }
}
