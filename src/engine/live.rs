//! What writer and handler share about one attempt: where it is, whether it is to stop, how far it is.

use std::time::Duration;

use super::log::Log;
use crate::fault::{self, Bug};
use crate::job::JobId;
use crate::sys::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use crate::sys::sync::{Condvar, Mutex};

/// Where a handed-out job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Waiting,
    Started,
    TakenBack,
    Ended,
}

/// Why a handler is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    No,
    Cancelled,
    TimeLimit,
    Stalled,
    Shutdown,
    LeaseLost,
}

/// One attempt, as writer and handler see it. Atomics, and locks held for a copy in memory at most: neither
/// waits for the other.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: JobId,
    pub(crate) time_limit_ms: u64,
    pub(crate) stall_timeout_ms: u64,
    stage: AtomicU8,
    /// Somebody waits for its end, or other jobs do.
    awaited: AtomicBool,
    asked: AtomicU8,
    reason: Mutex<String>,
    /// Milliseconds of the awake clock; 0 before.
    started_at: AtomicU64,
    alive_at: AtomicU64,
    asked_at: AtomicU64,
    /// Whether the handler has returned to its slot, or the slot was found hanging before.
    slot: AtomicU8,
    /// The slot hung and another has taken its place.
    abandoned: AtomicBool,
    progress: Mutex<ProgressState>,
    pub(crate) log: Log,
    pause: Mutex<()>,
    wake: Condvar,
    #[cfg(all(unix, feature = "command"))]
    alarm: Alarm,
}

/// Called for a handler that waits on something else than [`Live::pause_until`].
#[cfg(all(unix, feature = "command"))]
#[derive(Default)]
struct Alarm(Mutex<Option<Box<dyn Fn() + Send + Sync>>>);

#[cfg(all(unix, feature = "command"))]
impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alarm")
    }
}

/// What is known of the slot that runs a handler.
#[derive(Clone, Copy, Debug)]
enum SlotIs {
    Busy,
    Hanging,
    Free,
}

#[derive(Debug, Default)]
struct ProgressState {
    done: u64,
    total: u64,
    note: String,
    announced_at: u64,
}

impl Live {
    pub(crate) fn new(id: JobId, attempt: u32, time_limit_ms: u64, stall_timeout_ms: u64) -> Live {
        Live {
            id,
            time_limit_ms,
            stall_timeout_ms,
            stage: AtomicU8::new(Stage::Waiting as u8),
            awaited: AtomicBool::new(false),
            asked: AtomicU8::new(Asked::No as u8),
            reason: Mutex::default(),
            started_at: AtomicU64::new(0),
            alive_at: AtomicU64::new(0),
            asked_at: AtomicU64::new(0),
            slot: AtomicU8::new(SlotIs::Busy as u8),
            abandoned: AtomicBool::new(false),
            progress: Mutex::default(),
            log: Log::of_attempt(attempt),
            pause: Mutex::new(()),
            wake: Condvar::new(),
            #[cfg(all(unix, feature = "command"))]
            alarm: Alarm::default(),
        }
    }

    /// The handler takes it; false if the writer was faster.
    pub(crate) fn start(&self, now: Duration) -> bool {
        let now = ms(now);
        self.started_at.store(now, Ordering::Relaxed);
        self.alive_at.store(now, Ordering::Relaxed);
        self.move_stage(Stage::Waiting, Stage::Started)
    }

    /// The writer takes it back; false if the handler was faster.
    pub(crate) fn take_back(&self) -> bool {
        let taken = self.move_stage(Stage::Waiting, Stage::TakenBack);
        if taken {
            self.log.end();
        }
        taken
    }

    /// Its end is told at once. One that is just being told may come a little later.
    pub(crate) fn note_awaited(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self) {
        self.stage.store(Stage::Ended as u8, Ordering::Release);
        self.log.end();
    }

    // E3: only one can win. AcqRel: it sees all that the other side wrote before, and nobody else may act.
    fn move_stage(&self, from: Stage, to: Stage) -> bool {
        if fault::bug(Bug::StageUnguarded) {
            let fits = self.stage() == from;
            if fits {
                self.stage.store(to as u8, Ordering::Release);
            }
            return fits;
        }
        self.stage
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Waiting,
            1 => Stage::Started,
            2 => Stage::TakenBack,
            _ => Stage::Ended,
        }
    }

    /// Asks the handler to stop. The first reason stays, except that a cancellation outdoes what would bring the job
    /// back, and a lost lease outdoes all.
    pub(crate) fn ask(&self, why: Asked, reason: &str, now: Duration) {
        let mut told = self.reason.lock();
        match (self.asked(), why) {
            (Asked::No, _) => {
                // Before `asked`: a handler that sees it may settle at once, and say why.
                reason.clone_into(&mut told);
                self.asked_at.store(ms(now).max(1), Ordering::Release);
                self.asked.store(why as u8, Ordering::Release);
            }
            (Asked::TimeLimit | Asked::Stalled | Asked::Shutdown, Asked::Cancelled) => {
                reason.clone_into(&mut told);
                self.asked.store(why as u8, Ordering::Release);
            }
            (_, Asked::LeaseLost) => self.asked.store(why as u8, Ordering::Release),
            _ => {}
        }
        drop(told);
        if why == Asked::LeaseLost {
            // The job has moved on: what the handler says from here on is not its log any more.
            self.log.end();
        }
        self.nudge();
    }

    /// Calls `alarm` whenever the handler is asked to stop, also if it was before; `None` ends that. It is called by
    /// the writer, so it must not block.
    #[cfg(all(unix, feature = "command"))]
    pub(crate) fn on_ask(&self, alarm: Option<Box<dyn Fn() + Send + Sync>>) {
        *self.alarm.0.lock() = alarm;
        if self.asked() != Asked::No {
            self.nudge();
        }
    }

    pub(crate) fn asked(&self) -> Asked {
        match self.asked.load(Ordering::Acquire) {
            0 => Asked::No,
            1 => Asked::Cancelled,
            2 => Asked::TimeLimit,
            3 => Asked::Stalled,
            4 => Asked::Shutdown,
            _ => Asked::LeaseLost,
        }
    }

    pub(crate) fn reason(&self) -> String {
        self.reason.lock().clone()
    }

    /// When the handler began and when it last gave a sign of life, if it runs (awake ms).
    pub(crate) fn times(&self) -> Option<(u64, u64)> {
        (self.stage() == Stage::Started).then(|| {
            (
                self.started_at.load(Ordering::Relaxed),
                self.alive_at.load(Ordering::Relaxed),
            )
        })
    }

    pub(crate) fn asked_at(&self) -> Option<u64> {
        Some(self.asked_at.load(Ordering::Acquire)).filter(|at| *at != 0)
    }

    pub(crate) fn sign_of_life(&self, now: Duration) {
        self.alive_at.fetch_max(ms(now), Ordering::Relaxed);
    }

    /// Notes that the handler's slot hangs; false if it has returned by now.
    pub(crate) fn slot_hangs(&self) -> bool {
        self.slot
            .compare_exchange(
                SlotIs::Busy as u8,
                SlotIs::Hanging as u8,
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok()
    }

    /// Notes that the handler has returned to its slot; true if that was found hanging before.
    pub(crate) fn slot_returns(&self) -> bool {
        self.slot.swap(SlotIs::Free as u8, Ordering::AcqRel) == SlotIs::Hanging as u8
    }

    /// Another slot has taken the place of this one.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Notes progress; true if it is to be announced (at most ten times a second).
    pub(crate) fn note_progress(&self, done: u64, total: u64, now: Duration) -> bool {
        const BETWEEN_MS: u64 = 100;
        let mut state = self.progress.lock();
        state.done = done;
        state.total = total;
        let due = state.announced_at == 0 || ms(now) >= state.announced_at + BETWEEN_MS;
        if due {
            state.announced_at = ms(now).max(1);
        }
        due
    }

    pub(crate) fn note_text(&self, text: String) {
        self.progress.lock().note = text;
    }

    /// Done, total and note.
    pub(crate) fn progress(&self) -> (u64, u64, String) {
        let state = self.progress.lock();
        (state.done, state.total, state.note.clone())
    }

    /// Waits until asked to stop, or `until` says that it is over; `until` gets how long to wait at most.
    pub(crate) fn pause_until(&self, mut left: impl FnMut() -> Option<Option<Duration>>) {
        let mut guard = self.pause.lock();
        while self.asked() == Asked::No
            && let Some(wait) = left()
        {
            match wait {
                Some(wait) => {
                    self.wake.wait_for(&mut guard, wait);
                }
                None => self.wake.wait(&mut guard),
            }
        }
    }

    /// Wakes a waiting handler: it is asked to stop, or a clock was moved.
    pub(crate) fn nudge(&self) {
        if !fault::bug(Bug::NudgeUnlocked) {
            // Taken and released, so that a handler between its check and its wait is not missed.
            drop(self.pause.lock());
        }
        self.wake.notify_all();
        #[cfg(all(unix, feature = "command"))]
        if let Some(alarm) = &*self.alarm.0.lock() {
            alarm();
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handler that saw the wish at once could settle before the reason was there, with an empty one.
    #[test]
    fn whoever_sees_the_wish_sees_its_reason() {
        let live = Live::new(JobId::from_number(1), 1, 0, 0);
        let (about_to, ask) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let told = live.reason.lock();
            scope.spawn(|| {
                about_to.send(()).unwrap();
                live.ask(Asked::Cancelled, "enough", Duration::ZERO);
            });
            ask.recv().unwrap();
            // As long as the reason cannot be set, nobody is asked anything.
            for _ in 0..10_000 {
                assert_eq!(live.asked(), Asked::No);
                std::thread::yield_now();
            }
            drop(told);
        });
        assert_eq!(
            (live.asked(), live.reason().as_str(), live.asked_at()),
            (Asked::Cancelled, "enough", Some(1))
        );
    }
}
