use std::sync::{Mutex, mpsc};
use std::time::Duration;

use jobsled::{Context, Engine, Finished, ManualClock, Pool};

use crate::api::Stalls;

const MINUTE: Duration = Duration::from_mins(1);

/// Lets a handler of [`Stalls`] run into its stall timeout and lose its lease.
fn let_it_hang(engine: &Engine, clock: &ManualClock) {
    clock.advance(Duration::from_secs(30));
    engine.stats().unwrap();
    clock.advance(Duration::from_secs(5));
    engine.stats().unwrap();
}

fn hanging(engine: &Engine) -> (usize, usize) {
    let pool = &engine.health().pools[0];
    (pool.replaced, pool.lost)
}

/// A slot that hung and was not replaced used to end with its handler, and replacements were never given
/// back: a pool of one slot was dead after two overruns.
#[test]
fn a_pool_outlives_its_hanging_handlers() {
    let clock = ManualClock::at(1_700_000_000_000);
    let (inside, began) = mpsc::channel();
    let (let_go, held) = mpsc::channel();
    let held = Mutex::new(held);
    let engine = Engine::in_memory()
        .clock(clock.clone())
        .pool(Pool::threads("default", 1).replacements(1))
        .stop_grace(Duration::from_secs(5))
        .handle(move |_: Stalls, cx: &Context| {
            inside.send(cx.attempt().number).unwrap();
            if cx.attempt().number < 3 {
                held.lock().unwrap().recv().unwrap();
            }
            Ok(cx.attempt().number)
        })
        .open()
        .unwrap();
    for _ in 0..3 {
        let handle = engine.enqueue(Stalls).unwrap();
        assert_eq!(began.recv_timeout(MINUTE), Ok(1));
        let_it_hang(&engine, &clock);
        assert_eq!(began.recv_timeout(MINUTE), Ok(2), "in the replacement");
        assert_eq!(hanging(&engine), (1, 0));
        let_it_hang(&engine, &clock);
        assert_eq!(hanging(&engine), (1, 1), "one is the bound");
        assert!(!engine.health().is_well());
        let_go.send(()).unwrap();
        let_go.send(()).unwrap();
        assert_eq!(began.recv_timeout(MINUTE), Ok(3), "one slot serves again");
        assert_eq!(handle.wait().unwrap(), Finished::Completed(3));
        while hanging(&engine) != (0, 0) {}
        assert!(engine.health().is_well());
    }
}
