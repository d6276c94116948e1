//! What is asked for: a program, its arguments, where and with what environment it runs.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Report;
use crate::error::{Error, Result};
use crate::job::{Job, JobDefaults, Json, truncate};

/// One argument, or one variable with its name, is shorter: Linux's `MAX_ARG_STRLEN`, its end included.
const STRING_BYTES_MAX: usize = 128 * 1024;
/// All arguments, variables and paths of a command together. Linux gives a new program a quarter of its stack,
/// 2 MiB as a rule; the worker's own environment needs some of it.
const COMMAND_BYTES_MAX: usize = 1024 * 1024;

/// A command as a job: a program that is run with its arguments, without a shell.
///
/// Stored as JSON, so that it can be enqueued by name as well: `{"argv": ["cp", "a", "b"], "dir": "/srv"}`, with
/// `env` (a list of pairs of name and value), `only_env` and `output_file`. A string that is not UTF-8 is a list of
/// byte values. Another field is refused.
///
/// A command that fails is not tried again unless [`attempts`](crate::Request::attempts) says so; enqueued as JSON it
/// has the attempts of any job.
///
/// ```
/// use jobsled::command::Command;
///
/// let copy = Command::new("cp").args(["-r", "photos", "/backup"]).dir("/home/ada").env("LANG", "C");
/// copy.check()?;
/// assert_eq!(copy.argv().count(), 4);
/// # Ok::<(), jobsled::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use]
pub struct Command {
    argv: Vec<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dir: Option<Text>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    env: Vec<(Text, Text)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    only_env: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_file: Option<Text>,
}

impl Job for Command {
    const KIND: &'static str = "command";
    type Output = Report;
    type Format = Json;

    fn defaults() -> JobDefaults {
        JobDefaults::new().attempts(1)
    }
}

impl Command {
    /// A program: a path, or a name that is looked up in the `PATH` of the command's environment.
    pub fn new(program: impl Into<OsString>) -> Command {
        Command {
            argv: vec![Text(program.into())],
            dir: None,
            env: Vec::new(),
            only_env: false,
            output_file: None,
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Command {
        self.argv.push(Text(arg.into()));
        self
    }

    /// More arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Command {
        self.argv
            .extend(args.into_iter().map(|arg| Text(arg.into())));
        self
    }

    /// The directory in which it runs (default: that of the process that runs it). Give it whole: a relative one is
    /// looked up where that process is.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Command {
        self.dir = Some(Text(dir.into().into()));
        self
    }

    /// A variable beside the environment of the process that runs it, or in the place of one of that.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Command {
        self.env.push((Text(name.into()), Text(value.into())));
        self
    }

    /// Several variables, as with [`env`](Command::env).
    pub fn envs<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        vars: impl IntoIterator<Item = (N, V)>,
    ) -> Command {
        let vars = vars.into_iter();
        self.env
            .extend(vars.map(|(name, value)| (Text(name.into()), Text(value.into()))));
        self
    }

    /// Gives it none of the environment of the process that runs it: [`env`](Command::env) and the three variables
    /// that tell of the job, alone.
    pub fn only_env(mut self) -> Command {
        self.only_env = true;
        self
    }

    /// A file at whose end all output is written as well, complete. Made if it is not there. A relative path is looked
    /// up in the directory of the command.
    pub fn output_file(mut self, path: impl Into<PathBuf>) -> Command {
        self.output_file = Some(Text(path.into().into()));
        self
    }

    /// The program and its arguments.
    pub fn argv(&self) -> impl Iterator<Item = &OsStr> {
        self.argv.iter().map(Text::as_os)
    }

    /// The directory in which it runs, if it was given.
    pub fn directory(&self) -> Option<&Path> {
        self.dir.as_ref().map(|dir| Path::new(dir.as_os()))
    }

    /// The variables that were given.
    pub fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.env
            .iter()
            .map(|(name, value)| (name.as_os(), value.as_os()))
    }

    /// Whether it has no other variables than those given.
    pub fn is_only_env(&self) -> bool {
        self.only_env
    }

    /// Where its output is written as well, as it was given.
    pub fn output_path(&self) -> Option<&Path> {
        self.output_file
            .as_ref()
            .map(|path| Path::new(path.as_os()))
    }

    /// Whether the system could run it, as far as that can be told without trying: there is a program, no string has a
    /// zero byte, no argument or variable has 128 KiB, and all of it no more than 1 MiB. An attempt checks it as well,
    /// and gives up a job that is not so.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`], [`Error::TooLarge`].
    pub fn check(&self) -> Result<()> {
        let invalid = |what, found: String, rule: &str| {
            Err(Error::Invalid {
                what,
                found,
                rule: rule.to_owned(),
            })
        };
        if self.argv.first().is_none_or(|program| program.0.is_empty()) {
            return invalid(
                "program of a command",
                "empty".to_owned(),
                "the first of `argv` is the program to run",
            );
        }
        let bad_name = |name: &[u8]| name.is_empty() || name.contains(&b'=');
        if let Some((name, _)) = self.env.iter().find(|(name, _)| bad_name(name.bytes())) {
            return invalid(
                "name of a variable of a command",
                name.shown(),
                "it is not empty and has no `=`",
            );
        }
        let paths = self.dir.iter().chain(&self.output_file);
        let vars = self.env.iter().flat_map(|(name, value)| [name, value]);
        let mut all = self.argv.iter().chain(paths).chain(vars);
        if let Some(text) = all.find(|text| text.bytes().contains(&0)) {
            return invalid(
                "string of a command",
                text.shown(),
                "the system takes no string with a zero byte",
            );
        }
        self.check_sizes()
    }

    fn check_sizes(&self) -> Result<()> {
        let too_large = |what, size: usize, limit: usize| {
            Err(Error::TooLarge {
                what,
                size: size as u64,
                limit: limit as u64,
                remedy: "the system takes no more: write it to a file and give the command its path",
            })
        };
        // Each with the zero byte at its end.
        let args = self.argv.iter().chain(&self.dir).chain(&self.output_file);
        let args = args.map(|arg| arg.bytes().len() + 1);
        let vars = self.env.iter();
        let vars = vars.map(|(name, value)| name.bytes().len() + value.bytes().len() + 2);
        let sizes = args.chain(vars);
        if let Some(size) = sizes.clone().find(|size| *size > STRING_BYTES_MAX) {
            let limit = STRING_BYTES_MAX - 1;
            return too_large("an argument or variable of a command", size - 1, limit);
        }
        let all = sizes.map(|size| size + size_of::<usize>()).sum();
        if all > COMMAND_BYTES_MAX {
            return too_large("a command with its environment", all, COMMAND_BYTES_MAX);
        }
        Ok(())
    }
}

/// Without the values of variables: they may be secret, and this lands in logs.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&OsStr> = self.variables().map(|(name, _)| name).collect();
        f.debug_struct("Command")
            .field("argv", &self.argv)
            .field("dir", &self.dir)
            .field("env", &names)
            .field("only_env", &self.only_env)
            .field("output_file", &self.output_file)
            .finish()
    }
}

/// A string of the system: any bytes. In JSON a string if it is UTF-8, else a list of byte values.
#[derive(Clone, PartialEq, Eq)]
struct Text(OsString);

impl Text {
    fn as_os(&self) -> &OsStr {
        &self.0
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// For a message.
    fn shown(&self) -> String {
        format!(
            "`{}`",
            truncate(&self.0.to_string_lossy(), 80).escape_debug()
        )
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_seq(self.bytes()),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct StringOrBytes;
        impl<'de> Visitor<'de> for StringOrBytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a list of byte values for one that is not UTF-8")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Text, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = values.next_element::<u8>()? {
                    bytes.push(byte);
                }
                Ok(Text(OsString::from_vec(bytes)))
            }
        }
        deserializer.deserialize_any(StringOrBytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(command: &Command) -> String {
        serde_json::to_string(command).unwrap()
    }

    #[test]
    fn a_command_is_plain_json_and_keeps_every_byte() {
        let plain = Command::new("cp").args(["a", "größe"]);
        assert_eq!(json(&plain), r#"{"argv":["cp","a","größe"]}"#);
        let full = Command::new("x")
            .arg(OsString::from_vec(vec![0xff, b'a', 0]))
            .dir("/d")
            .env("A", OsString::from_vec(vec![0x80]))
            .only_env()
            .output_file("o");
        let expected = r#"{"argv":["x",[255,97,0]],"dir":"/d","env":[["A",[128]]],"only_env":true,"output_file":"o"}"#;
        assert_eq!(json(&full), expected);
        for command in [plain, full] {
            let read: Command = serde_json::from_str(&json(&command)).unwrap();
            assert_eq!(read, command);
        }
    }

    #[test]
    fn what_is_no_command_is_refused_in_words() {
        let cases = [
            (r#"{"argv": ["a"], "cwd": "/"}"#, "unknown field `cwd`"),
            (r#"{"dir": "/"}"#, "missing field `argv`"),
            (r#"{"argv": "a b"}"#, "expected a sequence"),
            (r#"{"argv": [1]}"#, "a string, or a list of byte values"),
            (r#"{"argv": [[256]]}"#, "256"),
        ];
        for (text, words) in cases {
            let error = serde_json::from_str::<Command>(text).unwrap_err();
            assert!(error.to_string().contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn what_the_system_would_not_run_is_refused() {
        let long = |bytes| "x".repeat(bytes);
        let many = |bytes: usize| Command::new("a").args(vec![long(99_991); bytes / 100_000]);
        let good = [
            Command::new("a").arg("").env("A", ""),
            Command::new("a").arg(long(STRING_BYTES_MAX - 1)),
            Command::new("a").env("A", long(STRING_BYTES_MAX - 3)),
            many(1_000_000),
        ];
        for command in good {
            command.check().unwrap();
        }
        let nothing = Command {
            argv: Vec::new(),
            ..Command::new("a")
        };
        let bad = [
            (nothing, "the program to run"),
            (Command::new(""), "the program to run"),
            (Command::new("a").arg("b\0c"), r"`b\0c`"),
            (Command::new("a").dir("b\0c"), "zero byte"),
            (Command::new("a").env("A=B", "c"), "`A=B`"),
            (Command::new("a").env("", "c"), "variable"),
            (Command::new("a").env("A", "\0"), "zero byte"),
            (
                Command::new("a").arg(long(STRING_BYTES_MAX)),
                "131072 bytes, the limit is 131071",
            ),
            (
                Command::new("a").env("A", long(STRING_BYTES_MAX - 2)),
                "131072 bytes",
            ),
            (many(2_000_000), "the limit is 1048576"),
        ];
        for (command, words) in bad {
            let error = command.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn values_of_variables_are_not_shown() {
        let shown = format!("{:?}", Command::new("a").env("TOKEN", "secret"));
        assert!(
            shown.contains("TOKEN") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
