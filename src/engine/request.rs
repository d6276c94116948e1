//! A job with options, on its way in.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::command::Command;
use super::inbox::WhenFullRule;
use super::reply::{Awaited, NoReply, Reply};
use super::{Engine, Handle, Shared};
use crate::error::{Error, Result};
use crate::job::{
    Backoff, Content, Encoding, Expiry, Format, INLINE_PAYLOAD_MAX, Job, JobDefaults, NewJob,
    OnCrash, PayloadError, Policy, Priority, Wait, check_key, check_metadata, check_name,
    encoding_of, millis,
};
use crate::ledger::Placed;

/// How an output is read.
pub(super) type Decode<O> = fn(&[u8]) -> Result<O, PayloadError>;

/// A job with options; nothing happens before [`enqueue`](Request::enqueue) or
/// [`enqueue_nowait`](Request::enqueue_nowait).
#[must_use = "a request does nothing until it is enqueued"]
pub struct Request<'e, O> {
    pub(super) engine: &'e Engine,
    pub(super) draft: RequestDraft,
    pub(super) decode: Decode<O>,
}

/// The options as told, not yet checked.
pub(super) struct RequestDraft {
    kind: Cow<'static, str>,
    version: u16,
    encoding: Encoding,
    payload: Result<Vec<u8>, PayloadError>,
    defaults: JobDefaults,
    wait: Wait,
    expires: Option<Wait>,
    key: Option<String>,
    metadata: Vec<(String, String)>,
}

/// A stored job, or the one that had its key.
#[derive(Debug)]
pub struct Enqueued<O> {
    handle: Handle<O>,
    is_new: bool,
}

impl<O> Enqueued<O> {
    /// The job.
    pub fn handle(&self) -> &Handle<O> {
        &self.handle
    }

    /// The job.
    pub fn into_handle(self) -> Handle<O> {
        self.handle
    }

    /// False if the key was taken: then nothing was stored, and the handle is of the job that has the key.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

impl<'e, O> Request<'e, O> {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the job is the caller's no more once it is asked for"
    )]
    pub(super) fn typed<J: Job<Output = O>>(engine: &'e Engine, job: J) -> Request<'e, O> {
        let draft = RequestDraft {
            kind: Cow::Borrowed(J::KIND),
            version: J::VERSION,
            encoding: encoding_of::<J::Format>(),
            payload: <J::Format as Format<J>>::encode(&job, engine.shared.payload_max),
            defaults: J::defaults(),
            wait: Wait::No,
            expires: None,
            key: None,
            metadata: Vec::new(),
        };
        Request {
            engine,
            draft,
            decode: <J::Format as Format<O>>::decode,
        }
    }

    /// The queue; it is made if there is none of this name (1 to 64 of `a-z 0-9 . _ -`).
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.draft.defaults = self.draft.defaults.queue(name);
        self
    }

    /// The priority: higher runs first.
    pub fn priority(mut self, priority: impl Into<Priority>) -> Self {
        self.draft.defaults = self.draft.defaults.priority(priority);
        self
    }

    /// Not before this much time has passed: while an engine has the store open, setting the wall clock changes
    /// nothing. While none has, the wall clock tells what has passed.
    pub fn after(mut self, wait: Duration) -> Self {
        self.draft.wait = Wait::For(millis(wait));
        self
    }

    /// Not before this time by the wall clock (wait-until). A time in the past means at once.
    pub fn at(mut self, time: SystemTime) -> Self {
        self.draft.wait = Wait::Until(wall_ms(time));
        self
    }

    /// Not after this time by the wall clock (dispatch-by): a job that has not started by then never
    /// starts; it dies as expired.
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.draft.expires = Some(Wait::Until(wall_ms(time)));
        self
    }

    /// As [`expires_at`](Request::expires_at), counted from now.
    pub fn expires_after(mut self, wait: Duration) -> Self {
        self.draft.expires = Some(Wait::For(millis(wait)));
        self
    }

    /// How long one attempt may run.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.draft.defaults = self.draft.defaults.time_limit(limit);
        self
    }

    /// How long a handler may go without a sign of life.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.draft.defaults = self.draft.defaults.stall_timeout(limit);
        self
    }

    /// Failed attempts until the job is dead; at least 1.
    pub fn attempts(mut self, most: u16) -> Self {
        self.draft.defaults = self.draft.defaults.attempts(most);
        self
    }

    /// Waits between attempts.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.draft.defaults = self.draft.defaults.backoff(backoff);
        self
    }

    /// What becomes of the job when its process dies, or its attempt is cut off in another way.
    pub fn on_crash(mut self, on_crash: OnCrash) -> Self {
        self.draft.defaults = self.draft.defaults.on_crash(on_crash);
        self
    }

    /// Makes the job unique among those of its kind: while a job with this key is kept, and for the key's
    /// time to live ([`EngineBuilder::key_ttl`](crate::EngineBuilder::key_ttl)), no other is stored. 1 to 256 bytes.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.draft.key = Some(key.into());
        self
    }

    /// Adds a pair of metadata; 2 KiB for all of them. Not seen by handlers, for listings.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.draft.metadata.push((name.into(), value.into()));
        self
    }

    /// Stores the job.
    ///
    /// *Blocking:* until its group is synced; longer while the inbox is full
    /// ([`EngineBuilder::when_full`](crate::EngineBuilder::when_full)). *Durability:* on return the job is on stable
    /// storage. If the key is taken nothing is stored, and that is an answer, not an error.
    ///
    /// # Errors
    ///
    /// As [`Engine::enqueue`], and [`Error::Invalid`] for options out of range.
    pub fn enqueue(self) -> Result<Enqueued<O>> {
        let when_full = self.engine.shared.when_full;
        // Kept until the answer, to be freed by this thread: see `Command::Enqueue`.
        let (ticket, _jobs) = self.send(when_full)?;
        ticket.wait()
    }

    /// Hands the job over without waiting for anything but, for a payload above 24 KiB, its file.
    /// Nothing is promised before the ticket says so.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when the inbox is full; else as [`Request::enqueue`].
    pub fn enqueue_nowait(self) -> Result<Ticket<O>> {
        self.send(WhenFullRule::Refuse).map(|(ticket, _)| ticket)
    }

    /// The ticket, and the job as the writer has it.
    fn send(self, when_full: WhenFullRule) -> Result<(Ticket<O>, Arc<[NewJob]>)> {
        let Request {
            engine,
            draft,
            decode,
        } = self;
        let shared = &engine.shared;
        shared.check_process()?;
        let kind = draft.kind.clone();
        let output = (draft.encoding, decode);
        let jobs: Arc<[NewJob]> = Arc::new([draft.check(engine)?]);
        let answer = send_jobs(shared, jobs.clone(), when_full)?;
        let ticket = Ticket {
            engine: Engine::unguarded(shared.clone()),
            kind,
            output,
            answer,
            told: None,
        };
        Ok((ticket, jobs))
    }
}

#[cfg(feature = "json")]
impl<'e> Request<'e, serde_json::Value> {
    pub(super) fn json(engine: &'e Engine, kind: &str, args: &serde_json::Value) -> Self {
        let decode: Decode<serde_json::Value> = |bytes| {
            if bytes.is_empty() {
                return Ok(serde_json::Value::Null);
            }
            serde_json::from_slice(bytes).map_err(|e| PayloadError::new("is not JSON", e))
        };
        let draft = RequestDraft {
            kind: Cow::Owned(kind.to_owned()),
            version: 0,
            encoding: Encoding::Json,
            payload: serde_json::to_vec(args)
                .map_err(|e| PayloadError::new("cannot be written as JSON", e)),
            defaults: JobDefaults::new(),
            wait: Wait::No,
            expires: None,
            key: None,
            metadata: Vec::new(),
        };
        Request {
            engine,
            draft,
            decode,
        }
    }
}

impl RequestDraft {
    /// Checks everything and writes a large payload to its file. Nothing is stored on an error.
    pub(super) fn check(self, engine: &Engine) -> Result<NewJob> {
        let JobDefaults {
            queue,
            priority,
            policy,
        } = self.defaults;
        check_name("kind", &self.kind)?;
        check_name("queue name", &queue)?;
        check_policy(&policy)?;
        if let Some(key) = &self.key {
            check_key(key)?;
        }
        check_metadata(&self.metadata)?;
        let expires = match self.expires {
            Some(expires) => {
                let now_ms = engine.shared.clock.now().wall_ms;
                Some(check_expiry(expires, self.wait, now_ms)?)
            }
            None => None,
        };
        let bytes = self
            .payload
            .map_err(|e| engine.shared.payload_error("payload", &self.kind, &e))?;
        Ok(NewJob {
            payload: store_content(engine, "payload", bytes)?,
            kind: self.kind,
            version: self.version,
            encoding: self.encoding,
            queue,
            priority,
            wait: self.wait,
            expires,
            policy,
            key: self.key,
            metadata: self.metadata,
        })
    }
}

fn check_expiry(expires: Wait, wait: Wait, now_ms: i64) -> Result<Expiry> {
    let at_ms = |wait: Wait| match wait {
        Wait::No => now_ms,
        Wait::Until(at_ms) => at_ms,
        Wait::For(ms) => now_ms.saturating_add_unsigned(ms),
    };
    let (ends_ms, begins_ms) = (at_ms(expires), at_ms(wait));
    if ends_ms <= begins_ms && wait != Wait::No {
        return Err(Error::Invalid {
            what: "expiry",
            found: format!(
                "{} ms before or at the time from which the job may run",
                begins_ms.saturating_sub(ends_ms)
            ),
            rule: "a job must be able to start before it expires".to_owned(),
        });
    }
    Ok(Expiry {
        at_ms: ends_ms,
        relative: matches!(expires, Wait::For(_)),
    })
}

/// Hands jobs to the writer. If they are refused, their payload files go.
pub(super) fn send_jobs(
    shared: &Shared,
    jobs: Arc<[NewJob]>,
    when_full: WhenFullRule,
) -> Result<Awaited<Vec<Placed>>> {
    let files: Vec<u128> = jobs.iter().filter_map(|job| job.payload.file()).collect();
    let (reply, answer) = Reply::new();
    let sent = shared
        .inbox
        .send(Command::Enqueue { jobs, reply }, when_full);
    sent.inspect_err(|_| remove_files(shared, &files))?;
    Ok(answer)
}

/// Removes payload files that no job needs. One that stays is swept when the store is opened next.
/// In a fork they are still the parent's.
pub(super) fn remove_files(shared: &Shared, files: &[u128]) {
    if shared.check_process().is_err() {
        return;
    }
    for file in files {
        if let Err(error) = shared.payloads.remove(*file) {
            log::warn!("{error}");
        }
    }
}

/// A payload as the journal takes it: a large one in a file of its own, written by this thread. J10: and
/// synced before there is a command that names it.
fn store_content(engine: &Engine, what: &'static str, bytes: Vec<u8>) -> Result<Content> {
    let shared = &engine.shared;
    shared.check_size(what, bytes.len() as u64)?;
    if bytes.len() <= INLINE_PAYLOAD_MAX {
        return Ok(Content::Inline(bytes));
    }
    // No file in the store of the process that this is a fork of.
    shared.check_process()?;
    shared.check_room(bytes.len() as u64)?;
    Ok(Content::File(shared.payloads.store(&bytes)?))
}

fn check_policy(policy: &Policy) -> Result<()> {
    if policy.attempts_max == 0 {
        return Err(Error::Invalid {
            what: "attempts",
            found: "0".to_owned(),
            rule: "a job has at least one attempt".to_owned(),
        });
    }
    Ok(())
}

pub(super) fn wall_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// A job that was handed over and is perhaps not stored yet.
#[must_use = "nothing is promised before the ticket says so"]
pub struct Ticket<O> {
    engine: Engine,
    kind: Cow<'static, str>,
    output: (Encoding, Decode<O>),
    answer: Awaited<Vec<Placed>>,
    told: Option<Result<Vec<Placed>>>,
}

impl<O> Ticket<O> {
    /// Waits until the job is on stable storage.
    ///
    /// # Errors
    ///
    /// As [`Request::enqueue`].
    pub fn wait(mut self) -> Result<Enqueued<O>> {
        self.engine.shared.check_process()?;
        let answer = match self.told.take() {
            Some(answer) => answer,
            None => self.engine.shared.wait(&self.answer),
        };
        let placed = answer?
            .first()
            .copied()
            .ok_or_else(|| Error::Bug("an enqueue without an answer".to_owned()))?;
        let handle = Handle::new(
            self.engine.shared.clone(),
            placed.id,
            self.kind.as_ref().into(),
            self.output,
        );
        Ok(Enqueued {
            handle,
            is_new: placed.is_new,
        })
    }

    /// Whether the job is on stable storage by now. Never blocks; false too if it was refused, which
    /// [`wait`](Ticket::wait) tells.
    pub fn is_durable(&mut self) -> bool {
        if self.told.is_none() {
            self.told = match self.answer.try_recv() {
                Ok(answer) => Some(answer),
                Err(NoReply::Yet) if !self.engine.shared.watchdog.hangs() => None,
                Err(_) => Some(Err(self.engine.shared.inbox.gate().no_answer())),
            };
        }
        matches!(self.told, Some(Ok(_)))
    }
}

impl<O> std::fmt::Debug for Request<'_, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("kind", &self.draft.kind)
            .finish_non_exhaustive()
    }
}

impl<O> std::fmt::Debug for Ticket<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
