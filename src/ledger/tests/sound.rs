//! Whatever is kept beside the records, for speed, follows from the records: counted anew, slowly, after every event.

use super::super::digest;
use super::super::names::QueueIx;
use super::super::ready::ReadyKey;
use super::super::table::Waits;
use super::*;

impl Ledger {
    /// Panics if a number, an index or the digest says something else than the records do.
    pub(super) fn assert_sound(&self) {
        let all: Vec<(JobId, &Record)> = self.jobs.iter_from(JobId::from_number(0)).collect();
        assert_eq!(self.jobs.len(), all.len());
        for (id, record) in &all {
            self.assert_placed(*id, record);
        }
        self.assert_queues(&all);
        self.assert_alone(&all);
        self.assert_space(&all);
        assert_eq!(self.digest, self.digest_anew(&all), "the digest");
        let held = self.keys.held();
        assert_eq!(held.count(), self.keys.held_count(), "held keys");
    }

    /// One record is in those indexes, and only in those, that belong to its phase.
    fn assert_placed(&self, id: JobId, r: &Record) {
        let is_waiting = r.phase == Phase::Waiting;
        let leased = self.leases.contains_key(&id);
        assert_eq!(leased, r.phase == Phase::Running, "the lease of {id}");
        let timed = self.timers.contains(&(r.due_ms, id));
        let waits_for_time = is_waiting && r.due_ms > self.judged_at_ms;
        assert_eq!(timed, waits_for_time, "the timer of {id}");
        let expires = r
            .expires_at_ms()
            .is_some_and(|at| self.expiries.contains(&(at, id)));
        assert_eq!(
            expires,
            is_waiting && r.expires().is_some(),
            "the expiry of {id}"
        );
        let queue = self.queue(r.queue).unwrap();
        let is_dead = matches!(r.phase, Phase::Dead(_));
        let is_over = matches!(r.phase, Phase::Completed | Phase::Cancelled);
        assert_eq!(
            queue.dead.contains(&(r.due_ms, id)),
            is_dead,
            "{id} among the dead"
        );
        assert_eq!(
            queue.finished.contains(&(r.due_ms, id)),
            is_over,
            "{id} among the finished"
        );
        if let Some((key, until_ms)) = r.key() {
            let taken = self.keys.find(r.kind, key).unwrap();
            assert_eq!(
                (taken.id, taken.until_ms),
                (id, until_ms),
                "the key of {id}"
            );
        }
    }

    /// Counts, sets and lanes of the queues hold nothing else.
    fn assert_queues(&self, all: &[(JobId, &Record)]) {
        let waiting = |r: &Record, waits| r.phase == Phase::Waiting && r.waits == waits;
        let count =
            |wanted: &dyn Fn(&Record) -> bool| all.iter().filter(|(_, r)| wanted(r)).count();
        let timers = count(&|r| waiting(r, Waits::ForTime));
        let expiries = count(&|r| r.phase == Phase::Waiting && r.expires().is_some());
        assert_eq!((self.timers.len(), self.expiries.len()), (timers, expiries));
        assert_eq!(self.leases.len(), count(&|r| r.phase == Phase::Running));
        assert_eq!(self.running(), self.leases.len());
        let by_state = State::ALL.map(|state| count(&|r| r.state() == state) as u64);
        assert_eq!(self.counts(), by_state);
        for (number, queue) in self.queue_numbers().zip(&self.queues) {
            let in_queue =
                |wanted: &dyn Fn(&Record) -> bool| count(&|r| r.queue == number && wanted(r));
            for state in State::ALL {
                assert_eq!(
                    queue.count(state),
                    in_queue(&|r| r.state() == state) as u64,
                    "{state:?}"
                );
            }
            assert_eq!(
                queue.running as usize,
                in_queue(&|r| r.phase == Phase::Running)
            );
            assert_eq!(
                queue.dead.len(),
                in_queue(&|r| matches!(r.phase, Phase::Dead(_)))
            );
            let over = in_queue(&|r| matches!(r.phase, Phase::Completed | Phase::Cancelled));
            assert_eq!(queue.finished.len(), over);
            self.assert_lanes(number, queue, all);
        }
    }

    fn assert_lanes(&self, number: QueueIx, queue: &QueueState, all: &[(JobId, &Record)]) {
        let mut heads = Vec::new();
        for lane in &queue.lanes {
            let ready = all.iter().filter(|(_, r)| {
                let is_here = (r.queue, r.kind) == (number, lane.kind);
                is_here && r.phase == Phase::Waiting && r.waits == Waits::Ready
            });
            let keys: Vec<ReadyKey> = ready.map(|(id, r)| ReadyKey::of(*id, r)).collect();
            assert_eq!(lane.ready.len(), keys.len() as u64, "ready jobs of a lane");
            assert_eq!(lane.ready.first(), keys.iter().min().copied());
            let is_handled = self.setup.handled.contains(self.kind_name(lane.kind));
            assert_eq!(lane.handled, is_handled);
            heads.extend(keys.into_iter().filter(|_| is_handled));
        }
        let head = heads.into_iter().min();
        assert_eq!(queue.head(), head);
        assert_eq!(
            self.active.contains(&number),
            head.is_some(),
            "an active queue"
        );
    }

    fn assert_alone(&self, all: &[(JobId, &Record)]) {
        let alone = self.leases.values().filter(|lease| lease.alone).count();
        assert_eq!(self.alone as usize, alone, "jobs that run alone");
        let waits_alone = |r: &Record| {
            r.phase == Phase::Waiting && r.waits == Waits::Ready && self.needs_alone(r)
        };
        let loners = all.iter().filter(|(_, r)| waits_alone(r)).count();
        assert_eq!(self.loners as usize, loners, "jobs that must run alone");
    }

    /// Base frames, and what belongs to no job.
    fn assert_space(&self, all: &[(JobId, &Record)]) {
        let bases = all.iter().map(|(_, r)| r.base);
        let controls = self.queues.iter().filter_map(|queue| queue.control_place);
        let keys = self.keys.held().filter_map(|(.., taken)| taken.held);
        let needed: Vec<Place> = bases
            .chain(controls)
            .chain(keys)
            .chain(self.root_place)
            .collect();
        let bytes: u64 = needed.iter().map(|place| u64::from(place.len)).sum();
        assert_eq!(self.space.live_bytes(), bytes, "live bytes");
        let oldest = needed.iter().map(|place| place.position).min();
        assert_eq!(self.space.oldest_live(), oldest, "the oldest live entry");
    }

    fn digest_anew(&self, all: &[(JobId, &Record)]) -> u128 {
        let jobs = all.iter().map(|(id, r)| {
            let shared = digest::Shared {
                kind: self.kinds.hash(r.kind.0),
                queue: self.queue_names.hash(r.queue.0),
                policy: self.policies.hash(r.policy),
            };
            digest::of_job(*id, r, &shared, self.leases.get(id))
        });
        let queues = self
            .queue_numbers()
            .zip(&self.queues)
            .filter_map(|(number, queue)| {
                queue.control_place?;
                Some(digest::of_queue(
                    self.queue_names.hash(number.0),
                    queue.control,
                ))
            });
        let keys = self.keys.held().map(|(kind, key, taken)| {
            digest::of_held_key(self.kinds.hash(kind.0), key, taken.id, taken.until_ms)
        });
        jobs.chain(queues).chain(keys).fold(0, u128::wrapping_add)
    }
}
