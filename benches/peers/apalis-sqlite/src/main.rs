//! apalis-sqlite: jobs in SQLite, run by asynchronous workers that ask for them in batches.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apalis::prelude::*;
use apalis_core::backend::BackendConfig;
use apalis_sqlite::{SqliteConnectOptions, SqlitePool, SqliteStorage};
use contest::{
    Ask, BATCH, Class, Clock, Commit, Error, Measure, Peer, Result, Setup, Sort, Tally, anyhow,
};
use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use tokio::task::JoinSet;

/// Jobs that a worker asks for at once. The default is 10; its documentation has more for throughput, and still more
/// does not help.
const CLAIM: usize = 100;

/// How often a worker that found nothing asks again, as in its example.
const POLL: Duration = Duration::from_millis(100);

/// Its `setup` says `synchronous = OFF`, to the one connection of the pool that happens to run it; the others keep
/// SQLite's `FULL`. What is acknowledged through that one is in no file that was ever synced: C1.
///
/// `full` says `synchronous = FULL` to all of them.
static PEER: Peer = Peer {
    name: "apalis-sqlite",
    sort: Sort::Engine,
    setups: &[
        Setup {
            name: "shipped",
            class: Class::C1,
            commit: Commit::Each,
            lacks: &[],
        },
        Setup {
            name: "full",
            class: Class::C2,
            commit: Commit::Each,
            lacks: &[],
        },
    ],
};

type Storage = SqliteStorage<String>;

fn main() -> ExitCode {
    let version = contest::locked(include_str!("../Cargo.lock"), PEER.name);
    contest::main(&PEER, version, |ask| {
        contest::runtime()?.block_on(measure(ask))
    })
}

async fn measure(ask: &Ask) -> Result<Tally> {
    let pool = open(&ask.dir.join("jobs.db"), ask.setup == "full").await?;
    let storage = Storage::new(&pool);
    match ask.measure {
        Measure::Enqueue { threads, window } => {
            let one = move || {
                // A task has a storage of its own: to push takes it mutably.
                let mut storage = storage.clone();
                async move { storage.push(contest::text()).await.map_err(failed) }
            };
            contest::tasks(threads, window, 1, one).await
        }
        Measure::Bulk { window } => {
            let one = move || {
                let mut storage = storage.clone();
                async move { fill(&mut storage, BATCH).await }
            };
            contest::tasks(1, window, BATCH, one).await
        }
        Measure::Through { jobs } => through(&pool, storage, jobs).await,
    }
}

async fn open(path: &Path, is_full: bool) -> Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true);
    if !is_full {
        let pool = SqlitePool::connect_with(options).await?;
        SqliteStorage::setup(&pool).await?;
        return Ok(pool);
    }
    // The tables and the write-ahead log stay in the file; what `setup` says to its connection goes away with it.
    let first = SqlitePool::connect_with(options.clone()).await?;
    SqliteStorage::setup(&first).await?;
    first.close().await;
    let options = options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    Ok(SqlitePool::connect_with(options).await?)
}

async fn fill(storage: &mut Storage, jobs: u64) -> Result<()> {
    let batch = (0..jobs).map(|_| contest::text()).collect();
    storage.push_bulk(batch).await.map_err(failed)
}

async fn through(pool: &SqlitePool, mut storage: Storage, jobs: u64) -> Result<Tally> {
    let ran = Arc::new(AtomicU64::new(0));
    let config = storage.config().clone().batch_size(CLAIM);
    let mut workers = JoinSet::new();
    for n in 0..contest::WORKERS {
        let ran = Arc::clone(&ran);
        let backend = Storage::new(pool).with_config(config.clone());
        let run = move |_: String| {
            ran.fetch_add(1, Ordering::Relaxed);
            async { Ok::<(), BoxDynError>(()) }
        };
        let worker = WorkerBuilder::new(format!("worker-{n}"))
            .backend(backend.poll_with_interval(POLL))
            .build(run);
        workers.spawn(worker.run());
    }
    let clock = Clock::start();
    for batch in contest::batches(jobs) {
        fill(&mut storage, batch).await?;
    }
    tokio::select! {
        done = contest::until(|| is_done(pool, &ran, jobs)) => done?,
        Some(end) = workers.join_next() => contest::bail!("a worker has ended: {end:?}"),
    }
    Ok(clock.stop(jobs))
}

/// Whether the end of all jobs is committed. The database is asked only when all of them have run.
async fn is_done(pool: &SqlitePool, ran: &AtomicU64, jobs: u64) -> Result<bool> {
    if ran.load(Ordering::Relaxed) < jobs {
        return Ok(false);
    }
    let open =
        "SELECT COUNT(*) FROM Jobs WHERE status IN ('Pending', 'Queued', 'Running', 'Failed')";
    let left: i64 = sqlx::query_scalar(open).fetch_one(pool).await?;
    Ok(left == 0)
}

fn failed(error: impl std::fmt::Display) -> Error {
    anyhow!("{error}")
}
