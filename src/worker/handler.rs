//! Which handler takes which kind, and how stored bytes become what it wants.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

use super::attempt;
use super::context::Context;
use crate::engine::{Engine, Handlers};
use crate::error::{Error, Result};
use crate::job::{Encoding, Form, Format, InPlace, Job, JobResult, PayloadError, Stop};

type Run = Box<dyn Fn(&[u8], &Context) -> JobResult<Vec<u8>> + Send + Sync>;
/// Bytes of one form to bytes of another.
pub(crate) type Convert = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, PayloadError> + Send + Sync>;

/// The handler of one kind, with types erased: bytes in, bytes out.
pub(crate) struct Entry {
    form: Form,
    run: Run,
}

/// How payloads of other forms become a kind's own.
#[derive(Default)]
struct Conversions {
    /// From an older version's payload to this one's.
    upgrades: FxHashMap<u16, Convert>,
    /// From a JSON payload to this kind's, and from its output to JSON.
    json: Option<(Convert, Convert)>,
}

impl Entry {
    pub(crate) fn typed<J: Job>(
        f: impl Fn(J, &Context) -> JobResult<J::Output> + Send + Sync + 'static,
    ) -> Entry {
        Entry::new::<J>(Box::new(move |bytes, cx| {
            let job = <J::Format as Format<J>>::decode(bytes).map_err(|e| undecodable(&e))?;
            encode_output::<J>(&f(job, cx)?)
        }))
    }

    pub(crate) fn view<J: Job>(
        f: impl Fn(&crate::View<J>, &Context) -> JobResult<J::Output> + Send + Sync + 'static,
    ) -> Entry
    where
        J::Format: InPlace<J>,
    {
        Entry::new::<J>(Box::new(move |bytes, cx| {
            let view = <J::Format as InPlace<J>>::view(bytes).map_err(|e| undecodable(&e))?;
            encode_output::<J>(&f(view, cx)?)
        }))
    }

    #[cfg(feature = "json")]
    pub(crate) fn json(
        f: impl Fn(serde_json::Value, &Context) -> JobResult<serde_json::Value> + Send + Sync + 'static,
    ) -> Entry {
        let run = move |bytes: &[u8], cx: &Context| {
            let value = serde_json::from_slice(bytes)
                .map_err(|e| undecodable(&PayloadError::new("is not JSON", e)))?;
            Ok(serde_json::to_vec(&f(value, cx)?)?)
        };
        Entry {
            form: Form {
                version: 0,
                encoding: Encoding::Json,
            },
            run: Box::new(run),
        }
    }

    fn new<J: Job>(run: Run) -> Entry {
        Entry {
            form: Form::of::<J>(),
            run,
        }
    }
}

impl Conversions {
    /// The payload in the form that the reader takes; the text of an error says what to do.
    fn apply<'a>(
        &self,
        stored: Form,
        wanted: Form,
        bytes: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, String> {
        if stored.encoding != wanted.encoding {
            return match (&self.json, stored.encoding) {
                (Some((from_json, _)), Encoding::Json) => {
                    from_json(bytes).map(Cow::Owned).map_err(|e| format!("the JSON payload does not fit: {e}"))
                }
                (None, Encoding::Json) => {
                    Err("the payload is JSON and the handler takes rkyv: register `accept_json` for the kind".to_owned())
                }
                _ => Err("the payload is rkyv and the handler takes JSON".to_owned()),
            };
        }
        let by_name =
            wanted.encoding == Encoding::Json && (stored.version == 0 || wanted.version == 0);
        if stored.version == wanted.version || by_name {
            return Ok(Cow::Borrowed(bytes));
        }
        let (stored, wanted) = (stored.version, wanted.version);
        match self.upgrades.get(&stored) {
            Some(upgrade) => upgrade(bytes)
                .map(Cow::Owned)
                .map_err(|e| format!("the payload of version {stored} {e}")),
            None => Err(format!(
                "the payload has version {stored} and the handler takes version {wanted}: register `upgrade` from {stored}"
            )),
        }
    }
}

fn encode_output<J: Job>(output: &J::Output) -> JobResult<Vec<u8>> {
    <J::Format as Format<J::Output>>::encode(output, u64::MAX)
        .map_err(|e| Stop::failed(&format!("the output {e}")))
}

/// No later attempt can do better: the job is dead, its payload kept for a program that reads it.
fn undecodable(error: &PayloadError) -> Stop {
    Stop::discard(format!("the payload {error}"))
}

/// All handlers of a program, and all that it can convert.
#[derive(Default)]
pub(crate) struct Registry {
    entries: FxHashMap<String, Entry>,
    conversions: FxHashMap<String, Conversions>,
}

impl Registry {
    pub(crate) fn add(&mut self, kind: &str, entry: Entry) -> Result<()> {
        if self.entries.contains_key(kind) {
            return Err(Error::Invalid {
                what: "handler",
                found: format!("registered twice for kind `{kind}`"),
                rule: "a kind has one handler".to_owned(),
            });
        }
        self.entries.insert(kind.to_owned(), entry);
        Ok(())
    }

    pub(crate) fn add_upgrade(&mut self, kind: &str, from: u16, upgrade: Convert) {
        let conversions = self.conversions.entry(kind.to_owned()).or_default();
        conversions.upgrades.insert(from, upgrade);
    }

    #[cfg(feature = "json")]
    pub(crate) fn add_json(&mut self, kind: &str, from: Convert, to: Convert) {
        self.conversions.entry(kind.to_owned()).or_default().json = Some((from, to));
    }

    /// Runs the kind's handler on stored bytes; `None` if there is none.
    pub(super) fn call(
        &self,
        kind: &str,
        stored: Form,
        bytes: &[u8],
        cx: &Context,
    ) -> Option<JobResult<Vec<u8>>> {
        let entry = self.entries.get(kind)?;
        let run = || {
            let payload = self
                .convert(kind, stored, entry.form, bytes)
                .map_err(Stop::discard)?;
            let output = (entry.run)(&payload, cx)?;
            self.output(kind, stored, entry.form, output)
                .map_err(|e| Stop::failed(&e))
        };
        Some(run())
    }

    /// What a handler keeps of an attempt, in the encoding in which its job was enqueued.
    pub(super) fn kept(&self, kind: &str, stored: Form, kept: Vec<u8>) -> Result<Vec<u8>, String> {
        match self.entries.get(kind) {
            Some(entry) => self.output(kind, stored, entry.form, kept),
            None => Ok(kept),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Handlers for Registry {
    fn run_inline(
        &self,
        kind: &str,
        stored: Form,
        payload: &[u8],
        engine: &Engine,
    ) -> Option<JobResult<Vec<u8>>> {
        if !self.entries.contains_key(kind) {
            return None;
        }
        let cx = Context::inline(engine);
        Some(attempt::catch(|| {
            self.call(kind, stored, payload, &cx)
                .unwrap_or_else(no_handler)
        }))
    }

    fn convert<'a>(
        &self,
        kind: &str,
        stored: Form,
        wanted: Form,
        bytes: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, String> {
        match self.conversions.get(kind) {
            Some(conversions) => conversions.apply(stored, wanted, bytes),
            None => Conversions::default().apply(stored, wanted, bytes),
        }
    }

    fn output(
        &self,
        kind: &str,
        stored: Form,
        own: Form,
        output: Vec<u8>,
    ) -> Result<Vec<u8>, String> {
        match self.conversions.get(kind).and_then(|c| c.json.as_ref()) {
            Some((_, to_json)) if stored.encoding != own.encoding => {
                to_json(&output).map_err(|e| e.to_string())
            }
            _ => Ok(output),
        }
    }

    fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.entries.keys().cloned().collect();
        kinds.sort_unstable();
        kinds
    }

    fn current_pool(&self) -> Option<String> {
        attempt::current_pool()
    }
}

/// Parked jobs are never handed out, so nobody should see this.
pub(super) fn no_handler() -> JobResult<Vec<u8>> {
    Err(Stop::failed("no handler for this kind"))
}
