//! Which handler takes which kind, and how stored bytes become what it wants.

use std::borrow::Cow;
use std::collections::HashMap;

use super::attempt;
use super::context::Context;
use crate::engine::{Engine, Handlers};
use crate::error::{Error, Result};
use crate::job::{Encoding, Format, InPlace, Job, JobResult, PayloadError, Stop, encoding_of};

type Run = Box<dyn Fn(&[u8], &Context) -> JobResult<Vec<u8>> + Send + Sync>;
/// Bytes of one form to bytes of another.
pub(crate) type Convert = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, PayloadError> + Send + Sync>;

/// The handler of one kind, with types erased: bytes in, bytes out.
pub(crate) struct Entry {
    version: u16,
    encoding: Encoding,
    run: Run,
    /// From an older version's payload to this one's.
    upgrades: HashMap<u16, Convert>,
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
            version: 0,
            encoding: Encoding::Json,
            run: Box::new(run),
            upgrades: HashMap::new(),
            json: None,
        }
    }

    fn new<J: Job>(run: Run) -> Entry {
        let encoding = encoding_of::<J::Format>();
        Entry {
            version: J::VERSION,
            encoding,
            run,
            upgrades: HashMap::new(),
            json: None,
        }
    }

    /// The payload in the form that the handler takes; the text of an error says what to do.
    fn prepare<'a>(
        &self,
        version: u16,
        encoding: Encoding,
        bytes: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, String> {
        if encoding != self.encoding {
            return match (&self.json, encoding) {
                (Some((from_json, _)), Encoding::Json) => {
                    from_json(bytes).map(Cow::Owned).map_err(|e| format!("the JSON payload does not fit: {e}"))
                }
                (None, Encoding::Json) => {
                    Err("the payload is JSON and the handler takes rkyv: register `accept_json` for the kind".to_owned())
                }
                _ => Err("the payload is rkyv and the handler takes JSON".to_owned()),
            };
        }
        // Version 0: JSON enqueued by a program that knows only the kind's name.
        if version == self.version
            || (encoding == Encoding::Json && (version == 0 || self.version == 0))
        {
            return Ok(Cow::Borrowed(bytes));
        }
        match self.upgrades.get(&version) {
            Some(upgrade) => upgrade(bytes)
                .map(Cow::Owned)
                .map_err(|e| format!("the payload of version {version} {e}")),
            None => Err(format!(
                "the payload has version {version} and the handler takes version {}: register `upgrade` from {version}",
                self.version
            )),
        }
    }

    /// Runs the handler on stored bytes.
    pub(super) fn call(
        &self,
        version: u16,
        encoding: Encoding,
        bytes: &[u8],
        cx: &Context,
    ) -> JobResult<Vec<u8>> {
        let payload = self
            .prepare(version, encoding, bytes)
            .map_err(Stop::discard)?;
        let output = (self.run)(&payload, cx)?;
        match &self.json {
            Some((_, to_json)) if encoding != self.encoding => {
                to_json(&output).map_err(|e| Stop::failed(&e.to_string()))
            }
            _ => Ok(output),
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

/// All handlers of a program.
#[derive(Default)]
pub(crate) struct Registry {
    entries: HashMap<String, Entry>,
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

    pub(crate) fn add_upgrade(&mut self, kind: &str, from: u16, upgrade: Convert) -> Result<()> {
        self.entry_mut(kind)?.upgrades.insert(from, upgrade);
        Ok(())
    }

    #[cfg(feature = "json")]
    pub(crate) fn add_json(&mut self, kind: &str, from: Convert, to: Convert) -> Result<()> {
        self.entry_mut(kind)?.json = Some((from, to));
        Ok(())
    }

    fn entry_mut(&mut self, kind: &str) -> Result<&mut Entry> {
        self.entries.get_mut(kind).ok_or_else(|| Error::NoHandler {
            kind: kind.to_owned(),
        })
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Entry> {
        self.entries.get(kind)
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = &String> {
        self.entries.keys()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Handlers for Registry {
    fn run_inline(
        &self,
        kind: &str,
        version: u16,
        payload: &[u8],
        engine: &Engine,
    ) -> Option<JobResult<Vec<u8>>> {
        let entry = self.get(kind)?;
        let cx = Context::inline(engine);
        Some(attempt::catch(|| {
            entry.call(version, entry.encoding, payload, &cx)
        }))
    }

    fn current_pool(&self) -> Option<String> {
        attempt::current_pool()
    }
}
