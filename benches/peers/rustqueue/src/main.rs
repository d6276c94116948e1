//! rustqueue: jobs in redb, taken by asynchronous workers that poll. It is a server's engine, here as a library.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use contest::{
    Ask, BATCH, Class, Clock, Commit, Count, Lack, Measure, Peer, Result, Setup, Sort, Tally,
};
use rustqueue::engine::queue::{BatchAckItem, BatchPushItem};
use rustqueue::storage::{BufferedRedbConfig, RedbStorage};
use rustqueue::{Job, QueueManager, RustQueue};
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};

const QUEUE: &str = "noop";

/// Jobs that a worker takes, and acknowledges, at once where it uses the calls for several.
const CLAIM: u32 = 100;

/// How long a worker that found nothing waits where the loop is ours; `run_worker` waits for half a second.
const POLL: Duration = Duration::from_millis(5);

const NO_BULK: &[Lack] = &[Lack {
    measure: "bulk",
    why: "the library's front has no call for several jobs; see the set-up `manager`",
}];

const MANAGER: &[Lack] = &[lack("enqueue-1"), lack("enqueue-8"), lack("enqueue-64")];

const fn lack(measure: &'static str) -> Lack {
    let why = "as `redb`: only the calls for several jobs differ";
    Lack { measure, why }
}

const fn setup(name: &'static str, class: Class, commit: Commit, lacks: &'static [Lack]) -> Setup {
    Setup {
        name,
        class,
        commit,
        lacks,
    }
}

/// `redb` is the default of its documentation: each call is a commit that is synced. `coalesced` collects what comes
/// within 10 ms; its documentation allows for a loss, its code answers only after the commit. `hybrid` answers from
/// memory and writes once a second. `manager` is `redb`, with the calls for several jobs at a time that lie below the
/// library's front.
static PEER: Peer = Peer {
    name: "rustqueue",
    sort: Sort::Engine,
    setups: &[
        setup("redb", Class::C2, Commit::Each, NO_BULK),
        setup("manager", Class::C2, Commit::Each, MANAGER),
        setup("coalesced", Class::C2, Commit::Group, NO_BULK),
        setup("hybrid", Class::C0, Commit::Group, NO_BULK),
    ],
};

fn main() -> ExitCode {
    let version = contest::locked(include_str!("../Cargo.lock"), PEER.name);
    contest::main(&PEER, version, |ask| {
        contest::runtime()?.block_on(measure(ask))
    })
}

async fn measure(ask: &Ask) -> Result<Tally> {
    let path = ask.dir.join("jobs.redb");
    if ask.setup == "manager" {
        return with_manager(&path, ask.measure).await;
    }
    let queue = match ask.setup {
        "coalesced" => RustQueue::redb(path)?.with_write_coalescing(BufferedRedbConfig::default()),
        "hybrid" => RustQueue::hybrid(path)?,
        _ => RustQueue::redb(path)?,
    }
    .build()?;
    match ask.measure {
        Measure::Enqueue { threads, window } => {
            let one = move || {
                let queue = queue.clone();
                async move { push(&queue).await }
            };
            contest::tasks(threads, window, 1, one).await
        }
        Measure::Bulk { .. } => contest::bail!("there is no bulk API"),
        Measure::Through { jobs } => through(&queue, jobs).await,
    }
}

fn payload() -> Value {
    Value::String(contest::text())
}

async fn push(queue: &RustQueue) -> Result<()> {
    queue.push(QUEUE, "noop", payload(), None).await?;
    Ok(())
}

/// The managed worker of its documentation: one job after the other.
async fn through(queue: &RustQueue, jobs: u64) -> Result<Tally> {
    let ran = Arc::new(Count::default());
    let mut workers = JoinSet::new();
    for _ in 0..contest::WORKERS {
        let (queue, ran) = (queue.clone(), Arc::clone(&ran));
        workers.spawn(async move {
            let run = move |_: Job| {
                ran.add(1);
                async { Ok::<(), String>(()) }
            };
            let never = std::future::pending();
            queue.run_worker_with_shutdown(QUEUE, run, never).await
        });
    }
    let clock = Clock::start();
    let producers: Vec<JoinHandle<Result<()>>> = contest::shares(jobs)
        .map(|share| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for _ in 0..share {
                    push(&queue).await?;
                }
                Ok(())
            })
        })
        .collect();
    for producer in producers {
        producer.await??;
    }
    let is_done = async || {
        // Asked only when all have run: it counts them one by one.
        Ok(ran.now() >= jobs && queue.get_queue_stats(QUEUE).await?.completed >= jobs)
    };
    tokio::select! {
        done = contest::until(is_done) => done?,
        Some(end) = workers.join_next() => contest::bail!("a worker has ended: {end:?}"),
    }
    Ok(clock.stop(jobs))
}

async fn with_manager(path: &Path, measure: Measure) -> Result<Tally> {
    let manager = Arc::new(QueueManager::new(Arc::new(RedbStorage::new(path)?)));
    match measure {
        Measure::Bulk { window } => {
            let one = move || {
                let manager = Arc::clone(&manager);
                async move { fill(&manager, BATCH).await }
            };
            contest::tasks(1, window, BATCH, one).await
        }
        Measure::Through { jobs } => through_in_batches(&manager, jobs).await,
        Measure::Enqueue { .. } => contest::bail!("as `redb`"),
    }
}

async fn fill(manager: &QueueManager, jobs: u64) -> Result<()> {
    let item = |_| BatchPushItem {
        name: "noop".to_owned(),
        data: payload(),
        options: None,
    };
    manager
        .push_batch(QUEUE, (0..jobs).map(item).collect())
        .await?;
    Ok(())
}

async fn through_in_batches(manager: &Arc<QueueManager>, jobs: u64) -> Result<Tally> {
    let done = Arc::new(Count::default());
    let mut workers = JoinSet::new();
    for _ in 0..contest::WORKERS {
        workers.spawn(work(Arc::clone(manager), Arc::clone(&done)));
    }
    let clock = Clock::start();
    for batch in contest::batches(jobs) {
        fill(manager, batch).await?;
    }
    tokio::select! {
        all = contest::until(async || Ok(done.now() >= jobs)) => all?,
        Some(end) = workers.join_next() => contest::bail!("a worker has ended: {end:?}"),
    }
    Ok(clock.stop(jobs))
}

/// Takes and acknowledges many at a time.
async fn work(manager: Arc<QueueManager>, done: Arc<Count>) -> Result<()> {
    let mut tick = tokio::time::interval(POLL);
    loop {
        let taken = manager.pull(QUEUE, CLAIM).await?;
        if taken.is_empty() {
            tick.tick().await;
            continue;
        }
        let ack = |job: Job| BatchAckItem {
            id: job.id,
            result: None,
        };
        let acked = manager
            .ack_batch(taken.into_iter().map(ack).collect())
            .await?;
        let count = acked.iter().filter(|ack| ack.ok).count();
        done.add(u64::try_from(count)?);
    }
}
