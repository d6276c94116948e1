//! honker: queues, streams and schedules in SQLite. It has no workers of its own: whoever works claims, and
//! acknowledges.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contest::{
    Ask, BATCH, Class, Clock, Commit, Count, Lack, Measure, Peer, Result, Setup, Sort, Tally,
};
use honker::{Database, EnqueueOpts, Queue, QueueOpts};

/// Jobs that a worker claims, and acknowledges, at once where it uses the calls for several.
const CLAIM: i64 = 100;

const IN_BATCHES: &[Lack] = &[
    lack("enqueue-1"),
    lack("enqueue-8"),
    lack("enqueue-64"),
    lack("bulk"),
];

const fn lack(measure: &'static str) -> Lack {
    let why = "as without batches: only the workers differ";
    Lack { measure, why }
}

const fn setup(name: &'static str, class: Class, lacks: &'static [Lack]) -> Setup {
    Setup {
        name,
        class,
        commit: Commit::Each,
        lacks,
    }
}

/// As shipped: a write-ahead log with `synchronous=NORMAL`, which is synced at checkpoints only. `full` syncs each
/// commit. Workers take one job after the other, as in the README; with `batches` they use the calls that take several.
static PEER: Peer = Peer {
    name: "honker",
    sort: Sort::Engine,
    setups: &[
        setup("shipped", Class::C1, &[]),
        setup("shipped-batches", Class::C1, IN_BATCHES),
        setup("full", Class::C2, &[]),
        setup("full-batches", Class::C2, IN_BATCHES),
    ],
};

fn main() -> ExitCode {
    let version = contest::locked(include_str!("../Cargo.lock"), PEER.name);
    contest::main(&PEER, version, measure)
}

fn measure(ask: &Ask) -> Result<Tally> {
    let db = Database::open(ask.dir.join("jobs.db"))?;
    if ask.setup.starts_with("full") {
        // Of the one connection that a database has.
        db.with_conn(|conn| conn.pragma_update(None, "synchronous", "FULL"))?;
    }
    let queue = db.queue("noop", QueueOpts::default());
    let payload = contest::text();
    match ask.measure {
        Measure::Enqueue { threads, window } => contest::threads(threads, window, 1, |_| {
            queue.enqueue(&payload, EnqueueOpts::default())?;
            Ok(())
        }),
        Measure::Bulk { window } => {
            contest::threads(1, window, BATCH, |_| fill(&db, &queue, BATCH))
        }
        Measure::Through { jobs } => {
            let is_batched = ask.setup.ends_with("batches");
            through(&db, &queue, if is_batched { CLAIM } else { 1 }, jobs)
        }
    }
}

/// A batch in one transaction, as its documentation has it.
fn fill(db: &Database, queue: &Queue, jobs: u64) -> Result<()> {
    let payload = contest::text();
    let tx = db.transaction()?;
    for _ in 0..jobs {
        queue.enqueue_tx(&tx, &payload, EnqueueOpts::default())?;
    }
    Ok(tx.commit()?)
}

/// What workers share.
struct Work<'q> {
    db: &'q Database,
    queue: &'q Queue,
    claim: i64,
    done: Count,
    is_over: AtomicBool,
}

fn through(db: &Database, queue: &Queue, claim: i64, jobs: u64) -> Result<Tally> {
    let shared = Work {
        db,
        queue,
        claim,
        done: Count::default(),
        is_over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let shared = &shared;
        let workers: Vec<_> = (0..contest::WORKERS)
            .map(|n| scope.spawn(move || work(shared, &format!("worker-{n}"))))
            .collect();
        let clock = Clock::start();
        let filled = contest::batches(jobs).try_for_each(|batch| fill(db, queue, batch));
        if filled.is_ok() {
            shared.done.wait(jobs);
        }
        let tally = clock.stop(jobs);
        shared.is_over.store(true, Ordering::Relaxed);
        for worker in workers {
            let panicked = |_| contest::anyhow!("a worker panicked");
            worker.join().map_err(panicked)??;
        }
        filled.map(|()| tally)
    })
}

/// Claims and acknowledges, and waits for a change of the database when there is nothing.
fn work(work: &Work, name: &str) -> Result<()> {
    let changes = work.db.update_events();
    while !work.is_over.load(Ordering::Relaxed) {
        let claimed = work.queue.claim_batch(name, work.claim)?;
        let done = match claimed.as_slice() {
            [] => {
                changes.recv_timeout(Duration::from_millis(100))?;
                continue;
            }
            [job] => i64::from(job.ack()?),
            jobs => {
                let ids: Vec<i64> = jobs.iter().map(|job| job.id).collect();
                work.queue.ack_batch(&ids, name)?
            }
        };
        work.done.add(u64::try_from(done)?);
    }
    Ok(())
}
