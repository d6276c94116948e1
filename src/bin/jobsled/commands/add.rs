//! `jobsled add`: commands into the store.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use jobsled::Job;
use jobsled::command::Command;
use jobsled::control::{Call, Crash, NewJob, Placed};
use serde::Deserialize;
use serde_json::json;

use super::{Failure, Verdict};
use crate::args::{AddArgs, JobOptions};
use crate::output;
use crate::store::{Open, Session};
use crate::time::{Span, When};

/// Jobs that one call stores together at most; the library's own bound.
const JOBS_MAX: usize = 100_000;
/// Bytes of a command line that listings show.
const SHOWN_BYTES_MAX: usize = 1_000;

/// A line of `add --from`: the options of `add` by the same names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    argv: Vec<String>,
    queue: Option<String>,
    priority: Option<i32>,
    #[serde(rename = "in")]
    after: Option<String>,
    at: Option<String>,
    expires: Option<String>,
    key: Option<String>,
    attempts: Option<u16>,
    time_limit: Option<String>,
    dir: Option<PathBuf>,
    output: Option<PathBuf>,
    #[serde(default)]
    no_rerun: bool,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    env_all: bool,
}

pub(crate) fn run(session: &Session, args: AddArgs) -> Result<Verdict, Failure> {
    let jobs = match &args.from {
        Some(file) => read_lines(file)?,
        None => vec![job(
            args.options,
            args.argv,
            variables(args.env)?,
            args.env_all,
        )?],
    };
    let mut open = session.enter_or_make()?;
    let placed: Vec<Placed> = open.call(&Call::Enqueue { jobs })?;
    for job in &placed {
        if session.json {
            output::say(json!({ "id": job.id, "new": job.new }));
        } else {
            output::say(job.id);
        }
    }
    hint(session, &open, &placed);
    Ok(Verdict::Well)
}

/// What somebody may want to know who has added a job, on stderr.
fn hint(session: &Session, open: &Open<'_>, placed: &[Placed]) {
    if session.json {
        return;
    }
    for job in placed.iter().filter(|job| !job.new) {
        output::note(format_args!(
            "Job {} has this key already; nothing was added.",
            job.id
        ));
    }
    if !open.is_run(Command::KIND) {
        output::note("No worker runs: `jobsled work` starts one.");
    }
}

/// A job that runs a command.
fn job(
    options: JobOptions,
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    env_all: bool,
) -> Result<NewJob, Failure> {
    let mut argv = argv.into_iter();
    let program = argv.next().unwrap_or_default();
    let mut command = Command::new(program)
        .args(argv)
        .dir(whole(options.dir.as_deref())?);
    if env_all {
        command = command.only_env().envs(std::env::vars_os());
    }
    command = command.envs(env);
    if let Some(output) = &options.output {
        command = command.output_file(output);
    }
    command.check().map_err(|e| Failure::usage(e.to_string()))?;
    let payload = serde_json::to_value(&command).map_err(|e| Failure::usage(e.to_string()))?;
    let mut job = NewJob::new(Command::KIND, payload);
    job.metadata
        .insert("command".to_owned(), quoted(command.argv()));
    job.queue = options.queue;
    job.priority = options.priority;
    job.after_ms = options.after.map(Span::ms);
    job.at_ms = options.at.map(|When(ms)| ms);
    job.expires_after_ms = options.expires.map(Span::ms);
    job.key = options.key;
    job.attempts = Some(options.attempts.unwrap_or(1));
    job.time_limit_ms = options.time_limit.map(Span::ms);
    job.on_crash = options.no_rerun.then_some(Crash::Dead);
    Ok(job)
}

/// The directory in which the command shall run, wherever the worker is.
fn whole(dir: Option<&Path>) -> Result<PathBuf, Failure> {
    let dir = dir.unwrap_or(Path::new("."));
    std::path::absolute(dir).map_err(|e| {
        Failure::usage(format!(
            "the directory {} cannot be used: {e}",
            dir.display()
        ))
    })
}

fn variables(texts: Vec<OsString>) -> Result<Vec<(OsString, OsString)>, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let read = |text: OsString| {
        let bytes = text.as_bytes();
        match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) if at > 0 => {
                let (name, value) = bytes.split_at(at);
                let value = value.strip_prefix(b"=").unwrap_or_default();
                let owned = |bytes| OsStr::from_bytes(bytes).to_owned();
                Ok((owned(name), owned(value)))
            }
            _ => {
                let text = text.display();
                Err(Failure::usage(format!("--env {text}: write NAME=VALUE")))
            }
        }
    };
    texts.into_iter().map(read).collect()
}

/// As one would type it.
fn quoted<'a>(argv: impl Iterator<Item = &'a OsStr>) -> String {
    let mut text = String::new();
    for arg in argv {
        if !text.is_empty() {
            text.push(' ');
        }
        text += &shell_words::quote(&arg.to_string_lossy());
        if text.len() > SHOWN_BYTES_MAX {
            text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
            text.push('…');
            break;
        }
    }
    text
}

fn read_lines(file: &Path) -> Result<Vec<NewJob>, Failure> {
    let unreadable = |e| Failure::usage(format!("could not read {}: {e}", file.display()));
    let mut input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(file).map_err(unreadable)?))
    };
    let mut jobs = Vec::new();
    let mut text = String::new();
    for number in 1_u64.. {
        text.clear();
        if input.read_line(&mut text).map_err(unreadable)? == 0 {
            break;
        }
        if text.trim().is_empty() {
            continue;
        }
        let job = read_line(&text).map_err(|why| {
            Failure::usage(format!(
                "line {number} of {}: {why}. Nothing was added",
                file.display()
            ))
        })?;
        jobs.push(job);
        if jobs.len() > JOBS_MAX {
            return Err(Failure::usage(format!(
                "{} has more than {JOBS_MAX} jobs, which is as many as are stored together: split it. Nothing was \
                 added",
                file.display()
            )));
        }
    }
    if jobs.is_empty() {
        return Err(Failure::usage(format!("{} has no jobs", file.display())));
    }
    Ok(jobs)
}

fn read_line(text: &str) -> Result<NewJob, String> {
    let line: Line = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let span = |text: Option<String>| text.map(|text| text.parse::<Span>()).transpose();
    if line.after.is_some() && line.at.is_some() {
        return Err("it has both `in` and `at`".to_owned());
    }
    if line.argv.is_empty() {
        return Err("`argv` is empty: its first is the program to run".to_owned());
    }
    let options = JobOptions {
        queue: line.queue,
        priority: line.priority,
        after: span(line.after)?,
        at: line.at.map(|text| text.parse::<When>()).transpose()?,
        expires: span(line.expires)?,
        key: line.key,
        attempts: line.attempts,
        time_limit: span(line.time_limit)?,
        dir: line.dir,
        output: line.output,
        no_rerun: line.no_rerun,
    };
    let argv = line.argv.into_iter().map(OsString::from).collect();
    let env = line.env.into_iter();
    let env = env
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    job(options, argv, env, line.env_all).map_err(|failure| failure.to_string())
}
