//! What a pool has room for: jobs passed on, and slots that hang.
//!
//! A slot hangs when the writer has taken the lease of its handler away and that does not return. So many at
//! the same time are replaced. Whether a handler hangs or has returned is one atomic of its [`Live`]: one that
//! returns in time never comes here.

use std::sync::Arc;

use crate::engine::Live;
use crate::sys::sync::{Condvar, Mutex};

/// The slots of one pool.
pub(super) struct Slots {
    state: Mutex<State>,
    freed: Condvar,
    count: usize,
    replacements_max: usize,
}

#[derive(Default)]
struct State {
    /// Jobs that were passed on, are not done and do not hang in a place that was replaced.
    in_flight: usize,
    /// Hanging now, with another in their place.
    replaced: usize,
    /// Hanging now, with none.
    lost: usize,
}

impl Slots {
    pub(super) fn new(count: usize, replacements_max: usize) -> Slots {
        Slots {
            state: Mutex::default(),
            freed: Condvar::new(),
            count,
            replacements_max,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Slots that hang and are replaced, and those that are not.
    pub(super) fn hanging(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.replaced, state.lost)
    }

    /// Waits until a job may be passed on.
    pub(super) fn enter(self: &Arc<Self>, live: Arc<Live>) -> Permit {
        let mut state = self.state.lock();
        while state.in_flight >= self.count {
            self.freed.wait(&mut state);
        }
        state.in_flight += 1;
        Permit {
            slots: self.clone(),
            live: Some(live),
        }
    }

    /// A handler hangs in its slot: `start` a replacement, which gets a number past those of the slots. False
    /// if there is none.
    pub(super) fn hangs(&self, live: &Live, start: impl FnOnce(usize) -> bool) -> bool {
        // Held until it is decided: whoever returns meanwhile waits for that.
        let mut state = self.state.lock();
        if !live.slot_hangs() {
            return true; // it has just returned
        }
        if state.replaced < self.replacements_max && start(self.count + state.replaced) {
            live.abandon();
            state.replaced += 1;
            state.in_flight = state.in_flight.saturating_sub(1);
            drop(state);
            self.freed.notify_one();
            return true;
        }
        state.lost += 1;
        false
    }

    /// A handler has returned to its slot. False if that was replaced meanwhile.
    pub(super) fn returned(&self, live: &Live) -> bool {
        if !live.slot_returns() {
            return true;
        }
        let mut state = self.state.lock();
        if live.is_abandoned() {
            state.replaced -= 1;
            return false;
        }
        state.lost -= 1;
        true
    }

    fn leave(&self, live: &Live) {
        // The place of one that was replaced went to another then; given back twice, it would let more
        // jobs be passed on than there are slots.
        if self.returned(live) {
            self.state.lock().in_flight -= 1;
            self.freed.notify_one();
        }
    }
}

/// A place in flight; free again when dropped.
pub(super) struct Permit {
    slots: Arc<Slots>,
    /// The job that it was given for; `None` if another has taken its place.
    live: Option<Arc<Live>>,
}

impl Permit {
    /// The slot was replaced while a later job hung in it.
    pub(super) fn has_gone_to_another(mut self) {
        self.live = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            self.slots.leave(live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;

    fn live() -> Arc<Live> {
        Arc::new(Live::new(JobId::from_number(1), 1, 0, 0))
    }

    fn state(slots: &Slots) -> (usize, usize, usize) {
        let state = slots.state.lock();
        (state.in_flight, state.replaced, state.lost)
    }

    /// One that hung and was replaced gave its place back a second time when it ended.
    #[test]
    fn a_place_that_was_replaced_is_given_back_once() {
        let slots = Arc::new(Slots::new(2, 1));
        let [first, second, third] = [live(), live(), live()];
        let [a, b] = [&first, &second].map(|live| slots.enter(live.clone()));
        assert!(slots.hangs(&first, |_| true));
        let c = slots.enter(third.clone());
        assert_eq!(state(&slots), (2, 1, 0));
        drop(a);
        assert_eq!(state(&slots), (2, 0, 0), "its place went to another");
        drop((b, c));
        assert_eq!(state(&slots), (0, 0, 0));
        assert!(slots.hangs(&third, |_| panic!("it has returned")));
        assert_eq!(state(&slots), (0, 0, 0));
    }

    /// A task of rayon's goes from job to job in one place; the place is another's if a later one hung.
    #[test]
    fn a_place_that_was_replaced_in_a_later_job_is_given_back_once() {
        let slots = Arc::new(Slots::new(1, 1));
        let (first, second) = (live(), live());
        let permit = slots.enter(first.clone());
        assert!(slots.returned(&first));
        assert!(slots.hangs(&second, |_| true));
        let another = slots.enter(live());
        assert!(!slots.returned(&second));
        permit.has_gone_to_another();
        assert_eq!(state(&slots), (1, 0, 0));
        drop(another);
        assert_eq!(state(&slots), (0, 0, 0));
    }

    /// The bound is on what hangs at the same time; one that is not replaced, or cannot be, keeps its place.
    #[test]
    fn replacements_are_given_back() {
        let slots = Arc::new(Slots::new(2, 1));
        for _ in 0..3 {
            let [first, second] = [live(), live()];
            assert!(slots.hangs(&first, |number| number == 2));
            assert!(!slots.hangs(&second, |_| panic!("one is the bound")));
            assert_eq!(slots.hanging(), (1, 1));
            assert!(!slots.returned(&first), "another serves in its place");
            assert!(slots.returned(&second), "it goes on serving");
            assert_eq!(slots.hanging(), (0, 0));
        }
        let unlucky = live();
        assert!(!slots.hangs(&unlucky, |_| false), "no thread to be had");
        assert_eq!(slots.hanging(), (0, 1));
        let permit = slots.enter(live());
        assert!(slots.returned(&unlucky));
        drop(permit);
        assert_eq!(state(&slots), (0, 0, 0));
    }
}
