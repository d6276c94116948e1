//! A terminal user interface: one loop that draws what the engine tells, and never blocks the engine.
//!
//! `cargo run --example events`

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use jobsled::{Context, Engine, Events, JobId, JobResult, Pool, State, What, job, rkyv};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = jobsled::rkyv)]
struct Convert {
    frames: u64,
}
job!(Convert, kind = "convert");

fn convert(Convert { frames }: Convert, cx: &Context) -> JobResult<()> {
    for frame in 1..=frames {
        cx.pause(Duration::from_millis(15))?;
        cx.progress(frame, frames);
    }
    Ok(())
}

/// What the screen shows. A model of its own: the loop never asks the engine just to draw.
#[derive(Default)]
struct Screen {
    running: BTreeMap<JobId, (u64, u64)>,
    waiting: usize,
    done: usize,
}

impl Screen {
    fn take(&mut self, id: JobId, what: &What) {
        match what {
            What::Enqueued => self.waiting += 1,
            What::Claimed => {
                self.waiting -= 1;
                self.running.insert(id, (0, 0));
            }
            What::Released => {
                self.running.remove(&id);
                self.waiting += 1;
            }
            What::Progress { done, total, .. } => {
                self.running.insert(id, (*done, *total));
            }
            What::Completed => {
                self.running.remove(&id);
                self.done += 1;
            }
            _ => {} // this program never cancels, and its jobs never fail
        }
    }

    fn draw(&self) {
        let bars: Vec<String> = self
            .running
            .iter()
            .map(|(id, (done, total))| format!("{id}: {done}/{total}"))
            .collect();
        let line = format!(
            "{} waiting, {} done | {}",
            self.waiting,
            self.done,
            bars.join(", ")
        );
        if std::io::stdout().is_terminal() {
            print!("\r\x1b[K{line}"); // over the line before
        } else {
            println!("{line}");
        }
        std::io::stdout().flush().ok();
    }
}

/// Until `jobs` jobs are done: waits for news, at most a tick; takes all that is there; draws once.
fn run_screen(engine: &Engine, events: &Events, jobs: usize) -> jobsled::Result<Screen> {
    const TICK: Duration = Duration::from_millis(50);
    let mut screen = Screen::default();
    let mut missed = 0;
    while screen.done < jobs {
        // A real interface also looks at the keyboard once per tick.
        let mut next = events.recv_timeout(TICK);
        while let Some(event) = next {
            screen.take(event.id, &event.what);
            next = events.try_recv();
        }
        // The engine waits for no listener. One that was too slow has missed something, and asks.
        if events.missed() > missed {
            missed = events.missed();
            let stats = engine.stats()?;
            screen.waiting = usize::try_from(stats.count(State::Ready)).unwrap_or(usize::MAX);
            screen.done = usize::try_from(stats.count(State::Completed)).unwrap_or(usize::MAX);
        }
        screen.draw();
    }
    println!();
    Ok(screen)
}

fn main() -> jobsled::Result<()> {
    let dir = std::env::temp_dir().join(format!("jobsled-events-{}", std::process::id()));
    let pool = Pool::threads("default", 3);
    let engine = Engine::builder(&dir).pool(pool).handle(convert).open()?;

    let events = engine.subscribe(1_024);
    let mut batch = engine.batch();
    batch.extend((0..6).map(|n| Convert { frames: 10 + n }));
    batch.enqueue()?;

    let screen = run_screen(&engine, &events, 6)?;
    assert_eq!(screen.done, 6);
    assert_eq!(engine.stats()?.counters.completed, 6);

    // A window toolkit has a loop of its own: `engine.on_event(move |event| repaint.wake())` calls back
    // on a thread that is neither the engine's writer nor a worker.
    engine.shutdown(Duration::from_secs(1))?;
    std::fs::remove_dir_all(&dir).ok();
    Ok(())
}
