//! effectum: jobs in SQLite, run by tasks. One thread writes, and commits what up to 50 callers want together.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use contest::{Ask, BATCH, Class, Clock, Commit, Measure, Peer, Result, Setup, Sort, Tally};
use effectum::{Error, Job, JobRunner, Queue, RunningJob, Worker};
use rusqlite::{Connection, Row};

/// Jobs that a worker runs at once, as in its README.
const CONCURRENCY: u16 = 10;

/// It asks for `synchronous=NORMAL`, and for a write-ahead log under a name that SQLite does not know (`journal`
/// instead of `journal_mode`): as shipped it has a rollback journal. `wal` is what was meant.
///
/// Neither is C2. A rollback journal is synced, but not the directory after it was deleted: a power cut soon after a
/// commit can bring the journal back, and that undoes the commit. A write-ahead log is synced at checkpoints only. And
/// there is no public way to another `synchronous`.
static PEER: Peer = Peer {
    name: "effectum",
    sort: Sort::Engine,
    setups: &[
        Setup {
            name: "shipped",
            class: Class::C1,
            commit: Commit::Group,
            lacks: &[],
        },
        Setup {
            name: "wal",
            class: Class::C1,
            commit: Commit::Group,
            lacks: &[],
        },
    ],
};

fn main() -> ExitCode {
    let version = contest::locked(include_str!("../Cargo.lock"), PEER.name);
    contest::main(&PEER, version, |ask| {
        contest::runtime()?.block_on(measure(ask))
    })
}

async fn measure(ask: &Ask) -> Result<Tally> {
    let path = ask.dir.join("jobs.db");
    if ask.setup == "wal" {
        // The mode is kept in the file.
        let mode = |row: &Row| row.get::<_, String>(0);
        let conn = Connection::open(&path)?;
        let mode = conn.pragma_update_and_check(None, "journal_mode", "wal", mode)?;
        contest::ensure!(mode == "wal", "the journal mode is {mode}");
    }
    let queue = Arc::new(Queue::new(&path).await?);
    let tally = turn(ask, Arc::clone(&queue)).await;
    // Its writer is a thread, and must not be the last one to let go of what belongs to the runtime.
    queue.close(Duration::from_mins(1)).await?;
    tally
}

async fn turn(ask: &Ask, queue: Arc<Queue>) -> Result<Tally> {
    match ask.measure {
        Measure::Enqueue { threads, window } => {
            let one = move || {
                let queue = Arc::clone(&queue);
                async move {
                    queue.add_job(noop()).await?;
                    Ok(())
                }
            };
            contest::tasks(threads, window, 1, one).await
        }
        Measure::Bulk { window } => {
            let one = move || {
                let queue = Arc::clone(&queue);
                async move { fill(&queue, BATCH).await }
            };
            contest::tasks(1, window, BATCH, one).await
        }
        Measure::Through { jobs } => through(&queue, jobs).await,
    }
}

fn noop() -> Job {
    Job::builder("noop").payload(contest::bytes()).build()
}

async fn fill(queue: &Queue, jobs: u64) -> Result<()> {
    queue.add_jobs((0..jobs).map(|_| noop()).collect()).await?;
    Ok(())
}

async fn through(queue: &Queue, jobs: u64) -> Result<Tally> {
    let runner = JobRunner::builder("noop", run).build();
    let mut workers = Vec::new();
    for _ in 0..contest::WORKERS {
        let worker = Worker::builder(queue, ()).jobs([runner.clone()]);
        workers.push(worker.max_concurrency(CONCURRENCY).build().await?);
    }
    let clock = Clock::start();
    for batch in contest::batches(jobs) {
        fill(queue, batch).await?;
    }
    // A worker counts a job when its completion is committed.
    let finished = || workers.iter().map(|worker| worker.counts().finished);
    contest::until(async || Ok(finished().sum::<u64>() >= jobs)).await?;
    let tally = clock.stop(jobs);
    let left = queue.num_active_jobs().await?;
    let left = left.pending + left.running;
    contest::ensure!(left == 0, "{left} jobs are left");
    Ok(tally)
}

async fn run(_job: RunningJob, _context: ()) -> Result<(), Error> {
    Ok(())
}
