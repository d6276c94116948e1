//! Scenarios of slots that hang, are replaced and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use super::slots::Slots;
use crate::engine::Live;
use crate::job::JobId;
use crate::threads::{beside, join, scenario};

fn live() -> Arc<Live> {
    Arc::new(Live::new(JobId::from_number(1), 1, 0, 0))
}

scenario! {
    /// A handler returns while the writer finds it hanging: as many threads serve as there are slots.
    fn a_slot_that_hangs_and_returns_is_served_once() {
        let slots = Arc::new(Slots::new(1, 1));
        let serving = Arc::new(AtomicIsize::new(1));
        let hanging = live();
        let (slot, its, job) = (slots.clone(), serving.clone(), hanging.clone());
        let handler = beside("slot", move || {
            if !slot.returned(&job) {
                its.fetch_sub(1, Ordering::Relaxed);
            }
        });
        let served = slots.hangs(&hanging, |_| {
            serving.fetch_add(1, Ordering::Relaxed);
            true
        });
        assert!(served, "there is a replacement to be had");
        join([handler]);
        assert_eq!(serving.load(Ordering::Relaxed), 1);
        assert_eq!(slots.hanging(), (0, 0));
    }
}

scenario! {
    /// A place in flight goes to the next job when its job ends or hangs, and to one only.
    fn a_place_in_flight_is_given_on_once() {
        let slots = Arc::new(Slots::new(1, 1));
        let first = live();
        let permit = slots.enter(first.clone());
        let running = beside("handler", move || drop(permit));
        let next = slots.clone();
        let passer = beside("next", move || drop(next.enter(live())));
        assert!(slots.hangs(&first, |_| true));
        join([running, passer]);
        assert_eq!(slots.hanging(), (0, 0));
        // Free again, and one place as before.
        let alone = slots.enter(live());
        let waits = slots.clone();
        let second = beside("second", move || drop(waits.enter(live())));
        drop(alone);
        join([second]);
    }
}
