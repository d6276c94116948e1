//! From options to an engine that runs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::EngineBuilder;
use crate::engine::{
    Engine, HandOuts, Handlers, Inbox, Live, Opened, Parts, PoolLink, Shared, Watchdog, recover,
    renew_ballast, spawn_writer,
};
use crate::error::{Error, Result};
use crate::job::{check_name, millis};
use crate::ledger::{QueueSetup, Setup};
use crate::sys::sync::Mutex;
use crate::worker::{self, Pool, Running, Worker};

impl EngineBuilder {
    /// The pools to start: none if there is nothing to run.
    pub(super) fn pools(&mut self) -> Result<Vec<Pool>> {
        let mut pools = std::mem::take(&mut self.pools);
        for (n, pool) in pools.iter().enumerate() {
            pool.check()?;
            if pools.iter().take(n).any(|other| other.name == pool.name) {
                return Err(invalid(
                    "pool",
                    &format!("`{}`, given twice", pool.name),
                    "pools have different names",
                ));
            }
        }
        if pools.is_empty() {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            pools.push(Pool::threads("default", cores));
        }
        if self.registry.is_empty() {
            pools.clear();
        }
        Ok(pools)
    }

    pub(super) fn setup(&self, pools: &[Pool]) -> Result<Setup> {
        let first = pools
            .iter()
            .position(|pool| pool.name == "default")
            .or((!pools.is_empty()).then_some(0));
        let any_queue = QueueSetup {
            pool: first,
            keep_finished: self.keep_finished,
            ..QueueSetup::default()
        };
        let mut queues = HashMap::new();
        for queue in &self.queues {
            let setup = queue.setup(pools, first, self.keep_finished)?;
            if queues.insert(queue.name.clone(), setup).is_some() {
                return Err(invalid(
                    "queue",
                    &format!("`{}`, given twice", queue.name),
                    "give all settings of a queue in one call",
                ));
            }
        }
        let mut setup = Setup {
            queues,
            any_queue,
            handled: Handlers::kinds(&self.registry).into_iter().collect(),
            key_ttl_ms: whole_ms(self.key_ttl),
            keep_dead: self.keep_dead,
            keep_dead_ms: whole_ms(self.keep_dead_for),
            ..Setup::default()
        };
        if let Some(only) = &self.only_queues {
            run_only(only, &mut setup)?;
        }
        Ok(setup)
    }

    /// Joins the layers and starts the threads.
    pub(super) fn start(self, opened: Opened, pools: Vec<Pool>) -> Result<Engine> {
        let disk_floor = self.limits.disk_floor;
        let ballast_in = opened.disk.dir.clone();
        let (inbox, commands) = Inbox::new(self.inbox_jobs, self.inbox_bytes);
        let hub = self.hub;
        let registry = Arc::new(self.registry);
        let watchdog = Watchdog::new(self.commit_limit);
        let outs: Vec<Arc<HandOuts>> = pools.iter().map(|_| Arc::default()).collect();
        // The writer asks for replacements through these; they are filled in once the pools run.
        let slots: Vec<Arc<Mutex<Option<Arc<Running>>>>> =
            pools.iter().map(|_| Arc::default()).collect();
        let links = pools
            .iter()
            .zip(outs.iter().zip(&slots))
            .map(|(pool, (outs, running))| {
                let running = running.clone();
                let replace = move |live: &Live| {
                    running
                        .lock()
                        .as_ref()
                        .is_some_and(|r| r.replace_slot(live))
                };
                PoolLink::new(outs.clone(), pool.slots, pool.ahead_max, Box::new(replace))
            });
        let (payloads, recorder) = (opened.disk.payloads.clone(), opened.disk.recorder.clone());
        let dir = opened.disk.dir.clone();
        let core = recover(Parts {
            clock: self.clock.clone(),
            journal: opened.journal,
            geometry: opened.header.geometry,
            replayed: opened.replayed,
            disk: opened.disk,
            limits: self.limits,
            pools: links.collect(),
            inbox: inbox.clone(),
            hub: hub.clone(),
            watchdog: watchdog.clone(),
        })?;
        if let Some(dir) = &ballast_in {
            renew_ballast(dir);
        }
        let health = slots.iter().map(|running| {
            let running = running.clone();
            let health = move || {
                running
                    .lock()
                    .as_ref()
                    .map(|r| r.health())
                    .unwrap_or_default()
            };
            Arc::new(health) as Arc<dyn Fn() -> crate::PoolHealth + Send + Sync>
        });
        let shared = Arc::new(Shared {
            inbox,
            hub,
            payloads,
            clock: self.clock.clone(),
            handlers: registry.clone(),
            watchdog: watchdog.clone(),
            dir,
            payload_max: self.payload_max,
            disk_floor,
            when_full: self.when_full,
            opener: std::process::id(),
            pool_health: Mutex::new(health.collect()),
            writer: Mutex::default(),
            #[cfg(feature = "control")]
            control: Mutex::default(),
        });
        watchdog.start(self.clock, shared.inbox.gate().clone())?;
        let writer = spawn_writer(core, commands).inspect_err(|_| watchdog.close())?;
        *shared.writer.lock() = Some(writer);
        // Only now: dropped without a writer, it would wait for ever for the answer to its shutdown.
        let engine = Engine::new(shared.clone());
        // Before anything runs: what cannot be opened must not have begun a job.
        #[cfg(feature = "control")]
        if self.control_socket {
            let store = engine.shared.dir.clone().ok_or_else(|| {
                invalid(
                    "control socket",
                    "asked for in an engine in memory",
                    "only a store on disk has one",
                )
            })?;
            *engine.shared.control.lock() = Some(crate::control::serve(&engine, &store)?);
        }
        for ((pool, outs), slot) in pools.into_iter().zip(outs).zip(&slots) {
            let worker = Worker {
                registry: registry.clone(),
                recorder: recorder.clone(),
                shared: shared.clone(),
                outs,
                pool: pool.name.as_str().into(),
                after_job: self.after_job.clone(),
            };
            *slot.lock() = Some(worker::start(pool, worker)?);
        }
        Ok(engine)
    }
}

pub(super) fn invalid(what: &'static str, found: &str, rule: &str) -> Error {
    Error::Invalid {
        what,
        found: found.to_owned(),
        rule: rule.to_owned(),
    }
}

/// Queues that are not named here have no pool.
fn run_only(only: &HashSet<String>, setup: &mut Setup) -> Result<()> {
    for name in only {
        check_name("queue name", name)?;
        let as_any = setup.any_queue.clone();
        setup.queues.entry(name.clone()).or_insert(as_any);
    }
    setup.any_queue.pool = None;
    for (name, queue) in &mut setup.queues {
        if !only.contains(name) {
            queue.pool = None;
        }
    }
    Ok(())
}

pub(super) fn whole_ms(time: Duration) -> i64 {
    i64::try_from(millis(time)).unwrap_or(i64::MAX)
}
