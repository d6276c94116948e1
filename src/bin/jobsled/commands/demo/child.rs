//! The process that works and is killed.
//!
//! It opens the store, enqueues what was not acknowledged in an earlier life (each job with a key, so that
//! one that was stored and not acknowledged is not stored twice), waits for all jobs, and says so. Then it
//! waits for the parent's word, or its death.

use std::collections::HashSet;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::process::exit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use jobsled::{Context, Engine, Events, Finished, Handle, JobId, What};

use super::acks::{self, Acks, Record, Told};
use super::job::{self, Hash, HashFile};
use super::life::Report;
use super::place::Place;
use super::plan::{self, Plan};
use crate::args::DemoChildArgs;
use crate::commands::{Failure, Verdict};

/// Threads that enqueue.
const PRODUCERS: usize = 4;
/// Each of them enqueues so many jobs one by one, then so many in a batch.
const SINGLES: usize = 8;
const BATCH: usize = 32;
/// Events that wait to be noted.
const EVENTS_MAX: usize = 1 << 16;
/// For handlers that run when the work is over; none does.
const GRACE: Duration = Duration::from_secs(5);

pub(crate) fn run(args: &DemoChildArgs) -> Result<Verdict, Failure> {
    let place = Place::at(args.place.clone(), args.leave);
    let paths = Plan::read_paths(&place)?;
    let notes = Arc::new(Notes::new(&place, args.life)?);
    let may_end = listen_to_parent(Place::at(args.place.clone(), args.leave))?;

    let (root, of_handlers) = (args.root.clone(), notes.clone());
    let builder = job::engine(&place.store())
        .handle(move |job: HashFile, cx: &Context| Ok(hash(&job, cx, &root, &of_handlers)));
    // What the opening itself starts is noted too.
    let events = builder.subscribe(EVENTS_MAX);
    let opened = builder.open();
    let engine =
        opened.map_err(|e| Failure::NotWell(format!("the store could not be opened: {e}")))?;
    tell(&Report::Opened);

    let earlier = notes.remember(&place, args.life)?;
    thread::scope(|scope| {
        scope.spawn(|| note_events(&events, &notes));
        let worked = work(&engine, &paths, args.jobs, &earlier, &notes).map(|()| {
            tell(&Report::Done);
            may_end.recv().ok();
        });
        // Ends the events too.
        let closed = engine.shutdown(GRACE).map_err(|e| in_engine(&e));
        worked.and(closed)
    })?;
    Ok(Verdict::Well)
}

/// The handler, without the `Ok`: a file that cannot be read is an answer too.
fn hash(job: &HashFile, cx: &Context, root: &Path, notes: &Notes) -> Option<Hash> {
    let (id, claim, attempt) = (cx.id().number(), cx.claim().number(), cx.attempt().number);
    notes.append(&[Record::Started { id, claim, attempt }]);
    let hash = job
        .hash(root)
        .inspect_err(|e| log::warn!("{}: {e}", job.path));
    notes.append(&[Record::Ended { id, claim, attempt }]);
    hash.ok()
}

/// Enqueues and waits until every job is done and known to be.
fn work(
    engine: &Engine,
    paths: &[String],
    jobs: u32,
    earlier: &Earlier,
    notes: &Notes,
) -> Result<(), Failure> {
    let todo: Vec<u32> = (0..jobs)
        .filter(|job| !earlier.jobs.contains(job))
        .collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (stored, waited_for) = channel();
        let waiting = scope.spawn(|| wait_for_each(waited_for, notes));
        let mut threads = vec![waiting];
        for _ in 0..PRODUCERS {
            let stored = stored.clone();
            let producer = Producer {
                engine,
                paths,
                todo: &todo,
                next: &next,
                notes,
                stored,
            };
            threads.push(scope.spawn(move || producer.run()));
        }
        drop(stored);
        for thread in threads {
            thread
                .join()
                .unwrap_or_else(|_| Err(Failure::NotWell("a thread panicked".to_owned())))?;
        }
        Ok(())
    })?;
    // What no event told: completed just before an earlier life ended, or before this one listened.
    for id in notes.not_completed() {
        if let Some(handle) = engine
            .handle::<HashFile>(JobId::from_number(id))
            .map_err(|e| in_engine(&e))?
        {
            wait(&handle, notes)?;
        }
    }
    Ok(())
}

/// A thread that enqueues its share.
struct Producer<'a> {
    engine: &'a Engine,
    paths: &'a [String],
    todo: &'a [u32],
    next: &'a AtomicUsize,
    notes: &'a Notes,
    /// Jobs that were stored one by one, to be waited for.
    stored: Sender<Handle<Option<Hash>>>,
}

impl Producer<'_> {
    fn run(&self) -> Result<(), Failure> {
        for turn in 1.. {
            let size = if turn % (SINGLES + 1) == 0 { BATCH } else { 1 };
            let from = self.next.fetch_add(size, Ordering::Relaxed);
            let Some(left) = self.todo.get(from..).filter(|left| !left.is_empty()) else {
                break;
            };
            match left.get(..size).unwrap_or(left) {
                [job] => self.enqueue_one(*job)?,
                jobs => self.enqueue_batch(jobs)?,
            }
        }
        Ok(())
    }

    fn enqueue_one(&self, job: u32) -> Result<(), Failure> {
        let stored = self
            .engine
            .job(self.job(job))
            .key(key(job))
            .enqueue()
            .map_err(|e| in_engine(&e))?;
        let handle = stored.into_handle();
        self.accepted(&[(handle.id(), job)]);
        // Nobody receives any more if waiting failed, and then that is the error to tell.
        self.stored.send(handle).ok();
        Ok(())
    }

    fn enqueue_batch(&self, jobs: &[u32]) -> Result<(), Failure> {
        let mut batch = self.engine.batch();
        for job in jobs {
            batch.add_request(self.engine.job(self.job(*job)).key(key(*job)));
        }
        let stored = batch.enqueue().map_err(|e| in_engine(&e))?;
        let stored: Vec<_> = stored
            .iter()
            .zip(jobs)
            .map(|((id, _), job)| (*id, *job))
            .collect();
        self.accepted(&stored);
        Ok(())
    }

    fn job(&self, job: u32) -> HashFile {
        let path = self
            .paths
            .get(plan::file_number(job, self.paths.len()))
            .cloned();
        HashFile {
            path: path.unwrap_or_default(),
        }
    }

    fn accepted(&self, stored: &[(JobId, u32)]) {
        let files = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        let record = |&(id, job): &(JobId, u32)| Record::Accepted {
            id: id.number(),
            job,
            file: job % files,
            pass: job / files + 1,
        };
        self.notes
            .accepted(&stored.iter().map(record).collect::<Vec<_>>());
    }
}

/// A job's key: enqueued again after a kill, it is the same job.
fn key(job: u32) -> String {
    job.to_string()
}

fn wait_for_each(stored: Receiver<Handle<Option<Hash>>>, notes: &Notes) -> Result<(), Failure> {
    stored
        .into_iter()
        .try_for_each(|handle| wait(&handle, notes))
}

fn wait(handle: &Handle<Option<Hash>>, notes: &Notes) -> Result<(), Failure> {
    // A job that ended in another way is found by the check.
    if let Finished::Completed(_) = handle.wait().map_err(|e| in_engine(&e))? {
        notes.completed(handle.id(), Told::ByWait);
    }
    Ok(())
}

/// Until the engine is closed. An event that is missed costs nothing: what is not known to be completed is
/// waited for.
fn note_events(events: &Events, notes: &Notes) {
    while let Some(event) = events.recv() {
        if event.what == What::Completed {
            notes.completed(event.id, Told::ByEvent);
        }
    }
}

fn in_engine(error: &jobsled::Error) -> Failure {
    Failure::NotWell(format!("the engine gave up: {error}"))
}

/// The acknowledgements, and the progress that the parent hears of.
struct Notes {
    acks: Acks,
    known: Mutex<Known>,
}

/// Ids that were acknowledged in this or an earlier life.
#[derive(Default)]
struct Known {
    accepted: HashSet<u64>,
    completed: HashSet<u64>,
}

/// What was acknowledged in earlier lives.
struct Earlier {
    jobs: HashSet<u32>,
}

impl Notes {
    fn new(place: &Place, life: u32) -> Result<Notes, Failure> {
        Ok(Notes {
            acks: Acks::open(place, life)?,
            known: Mutex::default(),
        })
    }

    /// Reads the notes of earlier lives.
    fn remember(&self, place: &Place, life: u32) -> Result<Earlier, Failure> {
        let mut jobs = HashSet::new();
        for earlier in 1..life {
            let records = acks::read(place, earlier)?;
            jobs.extend(records.iter().filter_map(|record| match record {
                Record::Accepted { job, .. } => Some(*job),
                _ => None,
            }));
            self.know(&records);
        }
        Ok(Earlier { jobs })
    }

    fn accepted(&self, records: &[Record]) {
        self.append(records);
        self.know(records);
    }

    fn completed(&self, id: JobId, told: Told) {
        let record = [Record::Completed {
            id: id.number(),
            told,
        }];
        self.append(&record);
        self.know(&record);
    }

    /// A process that cannot note what was promised to it must not go on.
    fn append(&self, records: &[Record]) {
        if let Err(failure) = self.acks.append(records) {
            crate::output::error(&failure);
            exit(1);
        }
    }

    fn know(&self, records: &[Record]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            match record {
                Record::Accepted { id, .. } => known.accepted.insert(*id),
                Record::Completed { id, .. } => known.completed.insert(*id),
                Record::Started { .. } | Record::Ended { .. } => false,
            };
        }
        let (accepted, completed) = (known.accepted.len() as u64, known.completed.len() as u64);
        drop(known);
        tell(&Report::Progress {
            accepted,
            completed,
        });
    }

    fn not_completed(&self) -> Vec<u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .accepted
            .difference(&known.completed)
            .copied()
            .collect()
    }
}

/// Tells the parent. One that does not hear is dead, which is noticed elsewhere.
fn tell(report: &Report) {
    writeln!(stdout(), "{report}").ok();
}

/// Hears the parent's word that the child may end. When the parent is gone instead, by Ctrl-C or otherwise,
/// the child cleans up and ends, whatever it is doing.
fn listen_to_parent(place: Place) -> Result<Receiver<()>, Failure> {
    let (tell, told) = channel();
    let listen = move || {
        if let Some(Ok(_)) = stdin().lock().lines().next() {
            tell.send(()).ok();
        } else {
            place.clean_up();
            exit(1);
        }
    };
    let thread = thread::Builder::new()
        .name("parent".to_owned())
        .spawn(listen);
    thread.map_err(|e| Failure::CannotRun(format!("could not start a thread: {e}")))?;
    Ok(told)
}
