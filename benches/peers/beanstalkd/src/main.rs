//! beanstalkd: a work queue in a process of its own, with a log that is synced before each answer (`-b DIR -f0`).

mod client;
mod server;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use contest::{Ask, Class, Clock, Commit, Lack, Measure, Peer, Result, Setup, Sort, Tally};
use server::Server;

static PEER: Peer = Peer {
    name: "beanstalkd",
    sort: Sort::Server,
    setups: &[Setup {
        name: "f0",
        class: Class::C2,
        commit: Commit::Each,
        lacks: &[Lack {
            measure: "bulk",
            why: "one put is one job, and the server syncs after each",
        }],
    }],
};

fn main() -> ExitCode {
    contest::main(&PEER, &server::version(), measure)
}

fn measure(ask: &Ask) -> Result<Tally> {
    let server = Server::start(&ask.dir)?;
    let payload = contest::bytes();
    match ask.measure {
        Measure::Enqueue { threads, window } => {
            // A connection for each thread, made before the clock starts; its lock is never waited for.
            let connected = (0..threads).map(|_| Ok(Mutex::new(server.connect()?)));
            let clients = connected.collect::<Result<Vec<_>>>()?;
            contest::threads(threads, window, 1, |thread| {
                let client = clients.get(thread).map(Mutex::lock);
                let Some(Ok(mut client)) = client else {
                    contest::bail!("a connection is broken");
                };
                client.put(&payload)
            })
        }
        Measure::Bulk { .. } => contest::bail!("there is no bulk API"),
        Measure::Through { jobs } => through(&server, jobs),
    }
}

fn through(server: &Server, jobs: u64) -> Result<Tally> {
    let connect = || server.connect();
    let shares = contest::shares(jobs).map(|share| Ok((connect()?, share)));
    let producers = shares.collect::<Result<Vec<_>>>()?;
    let workers = (0..contest::WORKERS).map(|_| connect());
    let workers = workers.collect::<Result<Vec<_>>>()?;
    let (payload, claims) = (&contest::bytes(), &AtomicU64::new(0));
    let clock = Clock::start();
    let done: Result<()> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (mut client, share) in producers {
            running.push(scope.spawn(move || (0..share).try_for_each(|_| client.put(payload))));
        }
        for mut client in workers {
            running.push(scope.spawn(move || {
                // Who would take more than there are would wait for ever.
                while claims.fetch_add(1, Ordering::Relaxed) < jobs {
                    let id = client.reserve()?;
                    client.delete(&id)?;
                }
                Ok(())
            }));
        }
        let panicked = |_| Err(contest::anyhow!("a thread panicked"));
        running
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(panicked))
    });
    done.map(|()| clock.stop(jobs))
}
