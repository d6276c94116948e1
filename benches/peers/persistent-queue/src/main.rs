//! persistent-queue: a durable queue of bytes over a store, with one consumer. No retries, no schedule, no priorities.

use std::process::ExitCode;
use std::thread::ScopedJoinHandle;

use contest::{Ask, Class, Clock, Commit, Lack, Measure, Peer, Result, Setup, Sort, Tally};
use persistent_queue::{Builder, Consumer, Durability, Producer, RedbStore, SledStore, Store};

const LACKS: &[Lack] = &[Lack {
    measure: "bulk",
    why: "one push is one item; the group mode shares commits among threads",
}];

const fn setup(name: &'static str, class: Class, commit: Commit) -> Setup {
    Setup {
        name,
        class,
        commit,
        lacks: LACKS,
    }
}

/// sled's `flush`, which its store calls durable, ends in `sync_file_range` on Linux: that empties no drive's cache and
/// writes no file size. What it loses in a power cut is what came after sled's own `fsync`, every half second.
static PEER: Peer = Peer {
    name: "persistent-queue",
    sort: Sort::Queue,
    setups: &[
        setup("redb-group", Class::C2, Commit::Group),
        setup("redb-sync", Class::C2, Commit::Each),
        setup("sled-group", Class::C1, Commit::Group),
        setup("sled-sync", Class::C1, Commit::Each),
    ],
};

fn main() -> ExitCode {
    let version = contest::locked(include_str!("../Cargo.lock"), PEER.name);
    contest::main(&PEER, version, |ask| {
        let path = ask.dir.join("queue");
        if ask.setup.starts_with("redb") {
            measure(RedbStore::open(path)?, ask)
        } else {
            measure(SledStore::open(path)?, ask)
        }
    })
}

fn measure<S: Store + 'static>(store: S, ask: &Ask) -> Result<Tally> {
    let durability = if ask.setup.ends_with("group") {
        Durability::Group
    } else {
        Durability::Sync
    };
    let builder = Builder::new(store).durability(durability);
    match ask.measure {
        Measure::Enqueue { threads, window } => {
            // Nobody takes anything out, so no number of waiting items may stop a push.
            let (queue, _consumer) = builder.capacity(usize::MAX).open()?;
            let payload = contest::bytes();
            contest::threads(threads, window, 1, |_| Ok(queue.push(&payload)?))
        }
        Measure::Bulk { .. } => contest::bail!("there is no bulk API"),
        Measure::Through { jobs } => {
            // The capacity is the default, as in its own benchmark.
            let (queue, consumer) = builder.open()?;
            through(&queue, &consumer, jobs)
        }
    }
}

/// Threads that push, and one that takes out and acknowledges: there is one consumer by contract.
fn through<S: Store>(queue: &Producer<S>, consumer: &Consumer<S>, jobs: u64) -> Result<Tally> {
    let payload = contest::bytes();
    let clock = Clock::start();
    std::thread::scope(|scope| {
        let producers: Vec<_> = contest::shares(jobs)
            .map(|share| {
                let payload = &payload;
                scope.spawn(move || (0..share).try_for_each(|_| queue.push(payload)))
            })
            .collect();
        let taken = take(queue, consumer, jobs, || {
            producers.iter().all(ScopedJoinHandle::is_finished)
        });
        // Whoever still waits for room is let go when taking has failed.
        queue.close();
        for producer in producers {
            let panicked = |_| contest::anyhow!("a thread that pushes panicked");
            producer.join().map_err(panicked)??;
        }
        taken.map(|()| clock.stop(jobs))
    })
}

fn take<S: Store>(
    queue: &Producer<S>,
    consumer: &Consumer<S>,
    jobs: u64,
    all_pushed: impl Fn() -> bool,
) -> Result<()> {
    let mut done = 0;
    while done < jobs {
        // Asked first: what is pushed between the two questions is no loss.
        let is_last = all_pushed();
        if let Some(item) = consumer.reserve()? {
            item.ack()?;
            done += 1;
        } else {
            contest::ensure!(!is_last || !queue.is_empty(), "{done} of {jobs} items came");
            // There is no call that waits.
            std::thread::yield_now();
        }
    }
    Ok(())
}
