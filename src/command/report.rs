//! What becomes of a command: how it ended, what it took, the end of what it printed.

use std::process::ExitStatus;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::process::Signal;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How a command ended, and the end of its output.
///
/// In JSON a flat object; times are in milliseconds, those of day since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// What it ended with; `None` if a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When it was started, by the wall clock.
    pub started_at_ms: i64,
    /// When it had ended.
    pub ended_at_ms: i64,
    /// Time that a processor spent in it and in those of its descendants that were waited for.
    pub user_ms: u64,
    /// Time that a processor spent in the system on their behalf.
    pub system_ms: u64,
    /// The most memory that one of them had, in bytes. Never too low; but Linux counts what a process was forked from,
    /// so it is at least what the worker has.
    pub max_rss_bytes: u64,
    /// The end of what it printed.
    pub output: Output,
    /// Why the output file did not get all of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file_error: Option<String>,
}

/// What a command printed to stdout and stderr, in the order in which it did: the newest 64 KiB.
///
/// In JSON `{"cut": 0, "text": "…"}`, or `base64` in the place of `text` if it is not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many bytes came before them and are not here.
    pub cut: u64,
}

impl Output {
    /// If the cut went through a character, the rest of that goes too.
    pub(super) fn new(mut bytes: Vec<u8>, mut cut: u64) -> Output {
        let is_rest = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
        let rest = bytes
            .iter()
            .take(3)
            .take_while(|byte| is_rest(byte))
            .count();
        let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
        if cut > 0 && rest > 0 && bytes.get(rest..).is_some_and(is_text) {
            bytes.drain(..rest);
            cut += rest as u64;
        }
        Output { bytes, cut }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputJson<'a> {
    cut: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.bytes).ok();
        let json = OutputJson {
            cut: self.cut,
            text: text.map(Into::into),
            base64: text.is_none().then(|| BASE64.encode(&self.bytes)),
        };
        json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Output, D::Error> {
        let json = OutputJson::deserialize(deserializer)?;
        let bytes = match (json.text, json.base64) {
            (Some(text), None) => text.into_owned().into_bytes(),
            (None, Some(code)) => BASE64.decode(code).map_err(D::Error::custom)?,
            _ => return Err(D::Error::custom("an output has either `text` or `base64`")),
        };
        Ok(Output {
            bytes,
            cut: json.cut,
        })
    }
}

impl Report {
    /// Whether the command ended with exit status 0.
    pub fn is_success(&self) -> bool {
        self.exit_code == Some(0)
    }

    /// In words: `exit status 3`, `killed by signal 9 (SIGKILL)`.
    pub fn describe(&self) -> String {
        match (self.exit_code, self.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => match signal_name(signal) {
                Some(name) => format!("killed by signal {signal} ({name})"),
                None => format!("killed by signal {signal}"),
            },
            (None, None) => "ended, and nobody knows how".to_owned(),
        }
    }

    /// With so little of the output that it fits the journal, however it is written.
    pub(super) fn shortened(&self) -> Report {
        /// Six times as long in JSON, at most.
        const BYTES: usize = 512;
        let mut short = self.clone();
        short.output_file_error = None;
        let Output { bytes, cut } = &mut short.output;
        let extra = bytes.len().saturating_sub(BYTES);
        bytes.drain(..extra);
        short.output = Output::new(std::mem::take(bytes), *cut + extra as u64);
        short
    }

    pub(super) fn set_status(&mut self, status: ExitStatus) {
        use std::os::unix::process::ExitStatusExt;
        self.exit_code = status.code();
        self.signal = status.signal();
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    const NAMES: [(Signal, &str); 16] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
    ];
    let named = NAMES.iter().find(|(signal, _)| signal.as_raw() == number);
    named.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_text_where_it_can_be() {
        let cases = [
            (
                &b"gr\xc3\xb6\xc3\x9fe\n"[..],
                r#"{"cut":0,"text":"größe\n"}"#,
            ),
            (b"", r#"{"cut":0,"text":""}"#),
            (b"a\xff", r#"{"cut":0,"base64":"Yf8="}"#),
        ];
        for (bytes, json) in cases {
            let output = Output::new(bytes.to_vec(), 0);
            assert_eq!(serde_json::to_string(&output).unwrap(), json);
            assert_eq!(serde_json::from_str::<Output>(json).unwrap(), output);
        }
        for broken in [
            r#"{"cut":0}"#,
            r#"{"cut":0,"text":"","base64":""}"#,
            r#"{"cut":0,"base64":"?"}"#,
        ] {
            assert!(serde_json::from_str::<Output>(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_cut_never_goes_through_a_character() {
        let cases: [(&[u8], u64, &[u8], u64); 5] = [
            (b"\xb6\xc3\x9fe", 7, b"\xc3\x9fe", 8),
            (b"\x9f\x98\x80x", 7, b"x", 10),
            (b"abc", 7, b"abc", 7),
            (b"\xb6a\xff", 7, b"\xb6a\xff", 7), // no text anyway
            (b"\xb6a", 0, b"\xb6a", 0),         // printed so
        ];
        for (bytes, cut, kept, then) in cases {
            let output = Output::new(bytes.to_vec(), cut);
            assert_eq!((&output.bytes[..], output.cut), (kept, then));
        }
    }
}
