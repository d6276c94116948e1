//! Time, from one place. Nothing else in the crate reads a clock.
//!
//! Three clocks are kept apart. The *wall clock* (UTC) can be set, so it judges only what people
//! write as a time: wait-until, expiry, history. The *steady clock* cannot be set and goes on while
//! the machine sleeps; the detection of clock steps rests on it. The *awake clock* stands still while the
//! machine sleeps: limits, leases and graces of what runs go by it, for a handler that slept did not hang.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys::sync::Mutex;

/// The clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970-01-01T00:00Z by the wall clock.
    pub wall_ms: i64,
    /// Time since an arbitrary fixed moment, never set back; goes on while the machine sleeps.
    pub steady: Duration,
    /// Time since an arbitrary fixed moment, never set back; stands still while the machine sleeps.
    pub awake: Duration,
}

impl Now {
    fn pass(&mut self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.wall_ms = self.wall_ms.saturating_add(by_ms);
        self.steady = self.steady.saturating_add(by);
    }
}

/// A source of time for an engine: [`SystemClock`] unless a test gives a [`ManualClock`].
pub trait Clock: Send + Sync + 'static {
    /// Reads the clocks.
    fn now(&self) -> Now;

    /// How long a thread may really wait when it wants to wait `time` more by this clock. `None`
    /// means: wait until woken (a manual clock wakes everybody when it is moved).
    fn real_wait(&self, time: Duration) -> Option<Duration> {
        Some(time)
    }

    /// Asks the clock to call `wake` whenever it was moved by hand. A clock that runs by itself
    /// ignores this. `wake` returns `false` once nobody is left to be woken.
    fn on_move(&self, wake: Box<dyn Fn() -> bool + Send + Sync>) {
        drop(wake);
    }
}

/// The machine's clocks. The steady one counts time asleep where the system offers such a clock
/// (Linux: `CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the system clock"
    )]
    fn now(&self) -> Now {
        let wall_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        Now {
            wall_ms,
            steady: crate::sys::steady_time(),
            awake: crate::sys::awake_time(),
        }
    }
}

/// A clock that stands still until it is moved: for tests, simulations and demonstrations.
///
/// ```
/// use std::time::Duration;
/// use jobsled::{Clock, ManualClock};
///
/// let clock = ManualClock::at(1_700_000_000_000);
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().wall_ms - before.wall_ms, 60_000);
/// clock.step_wall(-3_600_000); // somebody set the clock back; the steady time does not notice
/// assert_eq!(clock.now().steady - before.steady, Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct ManualClock {
    inner: Arc<Manual>,
}

struct Manual {
    now: Mutex<Now>,
    wakers: Mutex<Vec<Box<dyn Fn() -> bool + Send + Sync>>>,
}

impl ManualClock {
    /// A clock standing at `wall_ms` (milliseconds since 1970, UTC).
    pub fn at(wall_ms: i64) -> ManualClock {
        let now = Now {
            wall_ms,
            steady: Duration::from_secs(1_000),
            awake: Duration::from_secs(1_000),
        };
        ManualClock {
            inner: Arc::new(Manual {
                now: Mutex::new(now),
                wakers: Mutex::default(),
            }),
        }
    }

    /// Moves all clocks forward, as real time does.
    pub fn advance(&self, by: Duration) {
        self.change(|now| {
            now.pass(by);
            now.awake = now.awake.saturating_add(by);
        });
    }

    /// The machine sleeps for so long: the awake clock stands still.
    pub fn suspend(&self, by: Duration) {
        self.change(|now| now.pass(by));
    }

    /// Steps the wall clock alone, as a user or a time server does.
    pub fn step_wall(&self, by_ms: i64) {
        self.change(|now| now.wall_ms = now.wall_ms.saturating_add(by_ms));
    }

    fn change(&self, f: impl FnOnce(&mut Now)) {
        f(&mut self.inner.now.lock());
        self.inner.wakers.lock().retain(|wake| wake());
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self.inner.now.lock()
    }

    fn real_wait(&self, _time: Duration) -> Option<Duration> {
        None
    }

    fn on_move(&self, wake: Box<dyn Fn() -> bool + Send + Sync>) {
        self.inner.wakers.lock().push(wake);
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}
