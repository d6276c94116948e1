//! The jobs that were handed to a pool and wait there for a slot.

use std::collections::VecDeque;

use super::handout::HandOut;
use super::live::Stage;
use crate::fault::{self, Bug};
use crate::sys::sync::atomic::{AtomicUsize, Ordering};
use crate::sys::sync::{Condvar, Mutex};

/// The hand-out buffer of one pool: filled by the writer, emptied by the pool's slots.
#[derive(Debug, Default)]
pub(crate) struct HandOuts {
    queue: Mutex<Waiting>,
    filled: Condvar,
    /// Jobs begun since the writer last looked: how fast the pool empties the buffer.
    begun: AtomicUsize,
    /// Jobs that the pool gave back unbegun since then.
    refused: AtomicUsize,
    /// Jobs that wait here.
    left: AtomicUsize,
    /// So many or fewer, and the writer is to see to more.
    low: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<HandOut>,
    closed: bool,
}

impl HandOuts {
    pub(crate) fn fill(&self, jobs: impl IntoIterator<Item = HandOut>) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return; // dropped, and so given back
        }
        let before = queue.jobs.len();
        queue.jobs.extend(jobs);
        let more = queue.jobs.len() - before;
        self.left.store(queue.jobs.len(), Ordering::Relaxed);
        drop(queue);
        let woken = if fault::bug(Bug::SlotNotWoken) {
            0
        } else {
            more
        };
        for _ in 0..woken {
            // Waking a thread that is not asleep costs nothing.
            if !self.filled.notify_one() {
                break;
            }
        }
    }

    /// The next job that was not taken back; `None` once closed.
    pub(crate) fn next(&self) -> Option<HandOut> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = self.pop(&mut queue) {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            self.filled.wait(&mut queue);
        }
    }

    /// The next job if there is one.
    pub(crate) fn try_next(&self) -> Option<HandOut> {
        self.pop(&mut self.queue.lock())
    }

    fn pop(&self, queue: &mut Waiting) -> Option<HandOut> {
        while let Some(job) = queue.jobs.front()
            && job.live.stage() != Stage::Waiting
        {
            queue.jobs.pop_front();
        }
        let job = queue.jobs.pop_front();
        self.left.store(queue.jobs.len(), Ordering::Relaxed);
        job
    }

    /// Those that were taken back are not counted any more.
    pub(crate) fn forget_taken_back(&self) {
        let mut queue = self.queue.lock();
        queue.jobs.retain(|job| job.live.stage() == Stage::Waiting);
        self.left.store(queue.jobs.len(), Ordering::Relaxed);
    }

    /// Whether the ends of its jobs press: the pool's slots wait for more, or are soon going to.
    pub(crate) fn is_low(&self) -> bool {
        self.left.load(Ordering::Relaxed) <= self.low.load(Ordering::Relaxed)
    }

    pub(crate) fn set_low(&self, low: usize) {
        self.low.store(low, Ordering::Relaxed);
    }

    pub(crate) fn note_begun(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn take_begun(&self) -> usize {
        self.begun.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn take_refused(&self) -> usize {
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// Nothing more will come; what is still there is given back.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        let left = std::mem::take(&mut queue.jobs);
        drop(queue);
        drop(left);
        self.filled.notify_all();
    }
}
