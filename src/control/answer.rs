//! One call of the protocol, carried out on the public API: the same beside a running program and in the process
//! that has the store open.

use std::io;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::protocol::{Call, Code, Fault, InWords, NewJob, Placed};
use super::views::{CopyView, EventView, HealthView, JobPage, JobView, LogView, StatsView};
use crate::job::{JobId, State};
use crate::{ChangeAll, Engine, Finished, Query, Request};

/// Where the lines of an answer go that has several; an error: nobody reads them any more.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(&[u8]) -> io::Result<()>;

/// Jobs in one page, at most.
const PAGE_JOBS_MAX: usize = 1_000;
/// Jobs that one call changes, at most.
const IDS_MAX: usize = 100_000;
/// News that wait for a watcher.
const NEWS_MAX: usize = 4_096;
/// How long a call for more of a log waits at most.
const LOG_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often whoever watches or waits hears that the other end is there, when there is no news; and that one, that
/// this one is.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Carries out a call. `sink` takes the lines before the last one.
pub(crate) fn answer(engine: &Engine, call: Call, sink: Sink<'_>) -> Result<Value, Fault> {
    match call {
        Call::Enqueue { jobs } => enqueue(engine, jobs),
        Call::Jobs {
            state,
            kind,
            queue,
            after,
            limit,
        } => {
            let query = engine.jobs().after(JobId::from_number(after));
            page(engine, filtered(query, state, kind, queue)?, limit)
        }
        Call::Job { id } => job(engine, JobId::from_number(id)),
        Call::Wait { id, within_ms } => {
            let within = Duration::from_millis(within_ms);
            wait(engine, JobId::from_number(id), within, sink)
        }
        Call::Log { id, from, wait_ms } => {
            // Whoever wants more asks again; one that is gone does not stay for long.
            let wait = Duration::from_millis(wait_ms).min(LOG_WAIT_MAX);
            let part = engine.log(JobId::from_number(id), from, wait)?;
            told(&part.map(LogView::from))
        }
        Call::Cancel { ids, reason } => {
            let reason = if reason.is_empty() {
                "cancelled"
            } else {
                &reason
            };
            words(all(engine, ids)?.cancel(reason)?)
        }
        Call::Delete { ids } => words(all(engine, ids)?.delete()?),
        Call::Retry { ids } => words(all(engine, ids)?.retry()?),
        Call::Reschedule {
            ids,
            at_ms,
            after_ms,
        } => {
            let jobs = all(engine, ids)?;
            words(match (at_ms, after_ms) {
                (Some(at_ms), None) => jobs.reschedule(point(at_ms))?,
                (None, Some(after_ms)) => jobs.reschedule_after(Duration::from_millis(after_ms))?,
                _ => return Err(invalid("reschedule needs one of `at_ms` and `after_ms`")),
            })
        }
        Call::SetPriority { ids, priority } => words(all(engine, ids)?.set_priority(priority)?),
        Call::Move { ids, queue } => words(all(engine, ids)?.move_to(&queue)?),
        Call::Queue {
            name,
            paused,
            concurrency,
        } => set_queue(engine, &name, paused, concurrency),
        Call::Prune {
            state,
            kind,
            queue,
            older_ms,
        } => prune(engine, state, kind, queue, older_ms),
        Call::Stats {} => told(&StatsView::from(engine.stats()?)),
        Call::Health {} => told(&HealthView::from(engine.health())),
        Call::Backup { to } if to.is_absolute() => told(&CopyView::from(engine.backup(to)?)),
        Call::Backup { to } => {
            let what = format!("`to` is a whole path, not `{}`", to.display());
            Err(invalid(&what))
        }
        Call::Verify { tmp: Some(tmp) } if !tmp.is_absolute() => {
            let what = format!("`tmp` is a whole path, not `{}`", tmp.display());
            Err(invalid(&what))
        }
        Call::Verify { tmp } => told(&CopyView::from(engine.verify(tmp.as_deref())?)),
        Call::Export {} => {
            let mut lines = ByLine {
                sink,
                begun: Vec::new(),
            };
            told(&CopyView::from(engine.export(&mut lines)?))
        }
        Call::Watch {} => {
            watch(engine, sink);
            Ok(Value::Null)
        }
    }
}

fn enqueue(engine: &Engine, mut jobs: Vec<NewJob>) -> Result<Value, Fault> {
    if jobs.is_empty() {
        return Err(invalid("enqueue needs at least one job"));
    }
    // Alone, its errors do not speak of a batch.
    if jobs.len() == 1
        && let Some(job) = jobs.pop()
    {
        let enqueued = request(engine, job)?.enqueue()?;
        let stored = Placed {
            id: enqueued.handle().id().number(),
            new: enqueued.is_new(),
        };
        return told(&[stored]);
    }
    let mut batch = engine.batch();
    for job in jobs {
        batch.add_request(request(engine, job)?);
    }
    let placed = batch.enqueue()?;
    let stored = placed.into_iter().map(|(id, new)| Placed {
        id: id.number(),
        new,
    });
    told(&stored.collect::<Vec<_>>())
}

fn request(engine: &Engine, job: NewJob) -> Result<Request<'_, Value>, Fault> {
    let mut request = engine.json(&job.kind, &job.payload);
    if let Some(queue) = job.queue {
        request = request.queue(queue);
    }
    if let Some(priority) = job.priority {
        request = request.priority(priority);
    }
    request = match (job.after_ms, job.at_ms) {
        (None, None) => request,
        (Some(ms), None) => request.after(Duration::from_millis(ms)),
        (None, Some(ms)) => request.at(point(ms)),
        _ => return Err(invalid("a job has one of `after_ms` and `at_ms`")),
    };
    request = match (job.expires_after_ms, job.expires_at_ms) {
        (None, None) => request,
        (Some(ms), None) => request.expires_after(Duration::from_millis(ms)),
        (None, Some(ms)) => request.expires_at(point(ms)),
        _ => {
            return Err(invalid(
                "a job has one of `expires_after_ms` and `expires_at_ms`",
            ));
        }
    };
    if let Some(key) = job.key {
        request = request.key(key);
    }
    if let Some(attempts) = job.attempts {
        request = request.attempts(attempts);
    }
    if let Some(ms) = job.time_limit_ms {
        request = request.time_limit(Duration::from_millis(ms));
    }
    if let Some(ms) = job.stall_timeout_ms {
        request = request.stall_timeout(Duration::from_millis(ms));
    }
    if let Some(crash) = job.on_crash {
        request = request.on_crash(crash.into());
    }
    for (name, value) in job.metadata {
        request = request.metadata(name, value);
    }
    Ok(request)
}

fn filtered(
    mut query: Query<'_>,
    state: Option<String>,
    kind: Option<String>,
    queue: Option<String>,
) -> Result<Query<'_>, Fault> {
    if let Some(state) = state {
        query = query.state(state_named(&state)?);
    }
    if let Some(kind) = kind {
        query = query.kind(kind);
    }
    if let Some(queue) = queue {
        query = query.queue(queue);
    }
    Ok(query)
}

fn page(engine: &Engine, query: Query<'_>, limit: Option<usize>) -> Result<Value, Fault> {
    let most = limit.unwrap_or(PAGE_JOBS_MAX).min(PAGE_JOBS_MAX);
    let jobs = query.limit(most).details()?;
    let mut page = JobPage {
        next: None,
        jobs: jobs.into_iter().map(JobView::from).collect(),
    };
    if page.jobs.len() == most {
        page.next = page.jobs.last().map(|job| job.id);
    }
    for job in &mut page.jobs {
        add_progress(engine, job)?;
    }
    told(&page)
}

fn job(engine: &Engine, id: JobId) -> Result<Value, Fault> {
    let Some(details) = engine.details(id)? else {
        return Ok(Value::Null);
    };
    let mut view = JobView::from(details);
    add_progress(engine, &mut view)?;
    // What is no JSON belongs to a program that knows its types.
    let json = |stored: Option<crate::Stored>| {
        let json = stored.filter(|stored| stored.is_json() && !stored.bytes().is_empty());
        json.and_then(|stored| stored.json().ok())
    };
    view.payload = json(engine.payload(id)?);
    view.output = json(engine.output(id)?);
    told(&view)
}

fn add_progress(engine: &Engine, job: &mut JobView) -> Result<(), Fault> {
    if job.state == State::Running.name()
        && let Some(handle) = engine.any_handle(JobId::from_number(job.id))?
    {
        job.progress = handle.progress().map(Into::into);
    }
    Ok(())
}

/// Now and then whoever waits hears that the other end is there, and is noticed if it is not.
fn wait(engine: &Engine, id: JobId, within: Duration, sink: Sink<'_>) -> Result<Value, Fault> {
    let Some(handle) = engine.any_handle(id)? else {
        return told(&true);
    };
    // Asked first: a wait for no time at all is over before the engine has looked.
    if handle.state()?.is_none_or(State::is_finished) {
        return told(&true);
    }
    let mut left = within;
    loop {
        let slice = left.min(ALIVE_EVERY);
        let ended: Option<Finished<()>> = handle.wait_timeout(slice)?;
        left -= slice;
        if ended.is_some() || left.is_zero() {
            return told(&ended.is_some());
        }
        let gone = |e| Fault::new(Code::Failed, e);
        sink(&event_line(&EventView::named("alive"))).map_err(gone)?;
    }
}

fn set_queue(
    engine: &Engine,
    name: &str,
    paused: Option<bool>,
    concurrency: Option<u32>,
) -> Result<Value, Fault> {
    let queue = engine.queue(name);
    match paused {
        Some(true) => queue.pause()?,
        Some(false) => queue.resume()?,
        None => {}
    }
    if let Some(most) = concurrency {
        queue.set_concurrency((most > 0).then_some(most))?;
    }
    Ok(Value::Null)
}

fn prune(
    engine: &Engine,
    state: Option<String>,
    kind: Option<String>,
    queue: Option<String>,
    older_ms: u64,
) -> Result<Value, Fault> {
    let mut prune = engine.prune().older_than(Duration::from_millis(older_ms));
    if let Some(state) = state {
        prune = prune.state(state_named(&state)?);
    }
    if let Some(kind) = kind {
        prune = prune.kind(kind);
    }
    if let Some(queue) = queue {
        prune = prune.queue(queue);
    }
    told(&prune.run()?.deleted)
}

fn watch(engine: &Engine, sink: Sink<'_>) {
    let news = engine.subscribe(NEWS_MAX);
    let mut missed = 0;
    let mut tell = |event: &EventView| sink(&event_line(event));
    // The first one says that it hears from here on.
    let mut gone = tell(&EventView::named("alive"));
    while gone.is_ok() {
        match news.recv_timeout(ALIVE_EVERY) {
            Some(event) => gone = tell(&EventView::from(&event)),
            None if engine.is_over() => break,
            None => gone = tell(&EventView::named("alive")),
        }
        if gone.is_ok() && news.missed() > missed {
            missed = news.missed();
            gone = tell(&EventView {
                missed,
                ..EventView::named("missed")
            });
        }
    }
}

fn event_line(event: &EventView) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Cuts what is written into lines.
struct ByLine<'s> {
    sink: Sink<'s>,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
}

impl io::Write for ByLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") {
                (self.sink)(&self.begun)?;
                self.begun.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same change to many jobs, but not to so many that they would fill the memory.
fn all(engine: &Engine, ids: Vec<u64>) -> Result<ChangeAll<'_>, Fault> {
    if ids.len() > IDS_MAX {
        let what = format!("a call names at most {IDS_MAX} jobs, not {}", ids.len());
        return Err(invalid(&what));
    }
    Ok(engine.change_all(ids.into_iter().map(JobId::from_number)))
}

/// An answer for each job, in order.
fn words<T: InWords>(answers: Vec<T>) -> Result<Value, Fault> {
    told(&answers.into_iter().map(T::in_words).collect::<Vec<_>>())
}

fn told(answer: &impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(answer).map_err(|e| Fault::new(Code::Failed, e))
}

fn invalid(what: &str) -> Fault {
    Fault::new(Code::Invalid, format!("{what}. Nothing was done"))
}

fn state_named(name: &str) -> Result<State, Fault> {
    name.parse().map_err(|e| Fault::new(Code::Invalid, e))
}

fn point(ms: i64) -> SystemTime {
    let span = Duration::from_millis(ms.unsigned_abs());
    let point = if ms < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(span)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(span)
    };
    point.unwrap_or(SystemTime::UNIX_EPOCH)
}
