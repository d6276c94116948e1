//! Jobsled itself, measured by the same loops as the others.

use std::process::ExitCode;
use std::time::Duration;

use contest::{Ask, BATCH, Class, Clock, Commit, Measure, Peer, Result, Setup, Sort, Tally};
use jobsled::{Context, Engine, Pool, job, rkyv};

static PEER: Peer = Peer {
    name: "jobsled",
    sort: Sort::Engine,
    setups: &[
        Setup {
            name: "durable",
            class: Class::C2,
            commit: Commit::Group,
            lacks: &[],
        },
        Setup {
            name: "memory",
            class: Class::C0,
            commit: Commit::Group,
            lacks: &[],
        },
    ],
};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Noop {
    data: Vec<u8>,
}
job!(Noop, kind = "noop");

fn noop() -> Noop {
    Noop {
        data: contest::bytes(),
    }
}

fn main() -> ExitCode {
    let version = contest::locked(include_str!("../Cargo.lock"), PEER.name);
    contest::main(&PEER, version, measure)
}

fn measure(ask: &Ask) -> Result<Tally> {
    let builder = match ask.setup {
        "memory" => Engine::in_memory(),
        _ => Engine::builder(ask.dir.join("store")),
    };
    match ask.measure {
        Measure::Enqueue { threads, window } => {
            let engine = builder.open()?;
            contest::threads(threads, window, 1, |_| {
                engine.enqueue(noop())?;
                Ok(())
            })
        }
        Measure::Bulk { window } => {
            let engine = builder.open()?;
            contest::threads(1, window, BATCH, |_| fill(&engine, BATCH))
        }
        Measure::Through { jobs } => {
            let engine = builder
                .pool(Pool::threads("default", contest::WORKERS))
                .handle(|_: Noop, _: &Context| Ok(()))
                .open()?;
            through(&engine, jobs)
        }
    }
}

fn fill(engine: &Engine, jobs: u64) -> Result<()> {
    let mut batch = engine.batch();
    batch.extend((0..jobs).map(|_| noop()));
    batch.enqueue()?;
    Ok(())
}

fn through(engine: &Engine, jobs: u64) -> Result<Tally> {
    let clock = Clock::start();
    contest::batches(jobs).try_for_each(|batch| fill(engine, batch))?;
    let is_idle = engine.wait_until_idle(Duration::from_hours(1))?;
    contest::ensure!(is_idle, "the jobs did not end within an hour");
    Ok(clock.stop(jobs))
}
