//! Names and policies that many jobs share, kept once and known by number.
//!
//! The numbers are of this process only; on disk a job carries its names.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::job::Policy;

/// A kind's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KindIx(pub(crate) u16);
/// A queue's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QueueIx(pub(crate) u16);
/// A policy's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PolicyIx(pub(crate) u16);

/// Names that one store may have of each sort, ever. Far above what a program has by design; a
/// program that invents a name per job runs into it and is told.
pub(crate) const NAMES_MAX: usize = 10_000;

/// A list of distinct names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    list: Vec<(Arc<str>, u64)>,
    index: FxHashMap<Arc<str>, u16>,
}

impl Names {
    pub(crate) fn find(&self, name: &str) -> Option<u16> {
        self.index.get(name).copied()
    }

    /// The number of a name, a new one if needed. `None` past the number's range.
    pub(crate) fn intern(&mut self, name: &str) -> Option<u16> {
        if let Some(number) = self.find(name) {
            return Some(number);
        }
        let number = u16::try_from(self.list.len()).ok()?;
        let name: Arc<str> = name.into();
        self.list.push((name.clone(), xxh3_64(name.as_bytes())));
        self.index.insert(name, number);
        Some(number)
    }

    pub(crate) fn name(&self, number: u16) -> &str {
        self.list
            .get(usize::from(number))
            .map_or("", |(name, _)| name)
    }

    pub(crate) fn shared_name(&self, number: u16) -> Arc<str> {
        self.list
            .get(usize::from(number))
            .map_or_else(|| "".into(), |(name, _)| name.clone())
    }

    /// A hash of the name, the same in every process.
    pub(crate) fn hash(&self, number: u16) -> u64 {
        self.list
            .get(usize::from(number))
            .map_or(0, |(_, hash)| *hash)
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
}

/// Policies in use, counted; a number is used again once nobody has the policy.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    list: Vec<Option<Shared>>,
    index: FxHashMap<Policy, u16>,
    free: Vec<u16>,
}

#[derive(Debug)]
struct Shared {
    policy: Policy,
    hash: u64,
    users: u64,
}

impl Policies {
    /// Takes the policy into use once more. `None` when there is no number left.
    pub(crate) fn acquire(&mut self, policy: &Policy) -> Option<PolicyIx> {
        if let Some(&number) = self.index.get(policy) {
            if let Some(Some(shared)) = self.list.get_mut(usize::from(number)) {
                shared.users += 1;
            }
            return Some(PolicyIx(number));
        }
        let shared = Shared {
            policy: policy.clone(),
            hash: hash(policy),
            users: 1,
        };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(slot) = self.list.get_mut(usize::from(number)) {
                    *slot = Some(shared);
                }
                number
            }
            None => {
                let number = u16::try_from(self.list.len()).ok()?;
                self.list.push(Some(shared));
                number
            }
        };
        self.index.insert(policy.clone(), number);
        Some(PolicyIx(number))
    }

    pub(crate) fn release(&mut self, number: PolicyIx) {
        let Some(slot) = self.list.get_mut(usize::from(number.0)) else {
            return;
        };
        if let Some(shared) = slot {
            shared.users -= 1;
            if shared.users == 0 {
                self.index.remove(&shared.policy);
                self.free.push(number.0);
                *slot = None;
            }
        }
    }

    pub(crate) fn get(&self, number: PolicyIx) -> Policy {
        self.list
            .get(usize::from(number.0))
            .and_then(Option::as_ref)
            .map(|s| s.policy.clone())
            .unwrap_or_default()
    }

    /// A hash of the policy, the same in every process.
    pub(crate) fn hash(&self, number: PolicyIx) -> u64 {
        self.list
            .get(usize::from(number.0))
            .and_then(Option::as_ref)
            .map_or(0, |s| s.hash)
    }

    pub(crate) fn has(&self, policy: &Policy) -> bool {
        self.index.contains_key(policy)
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

/// Hash of a policy's stored form: its fields as little-endian numbers, in the order of `PolicyV1`.
fn hash(policy: &Policy) -> u64 {
    use crate::job::{Growth, OnCrash};
    let (growth, factor) = match policy.backoff.growth {
        Growth::Fixed => (0, 0),
        Growth::Linear => (1, 0),
        Growth::Exponential(factor) => (2, factor),
    };
    let on_crash = match policy.on_crash {
        OnCrash::Rerun => 0,
        OnCrash::QuarantineAfter(n) => 1 + u64::from(n),
        OnCrash::Dead => 1_000,
    };
    let numbers = [
        u64::from(policy.attempts_max),
        growth,
        u64::from(factor),
        policy.backoff.first_ms,
        policy.backoff.max_ms,
        u64::from(policy.backoff.jitter_percent),
        policy.time_limit_ms,
        policy.stall_timeout_ms,
        policy.retry_expires_ms,
        on_crash,
    ];
    let mut bytes = [0; 80];
    for (chunk, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_number_is_used_again_only_when_nobody_has_it() {
        let mut policies = Policies::default();
        let with = |attempts_max| Policy {
            attempts_max,
            ..Policy::default()
        };
        let a = policies.acquire(&with(1)).unwrap();
        assert_eq!(policies.acquire(&with(1)), Some(a));
        let b = policies.acquire(&with(2)).unwrap();
        assert_ne!(policies.hash(a), policies.hash(b));
        policies.release(a);
        assert_eq!(policies.get(a), with(1));
        policies.release(a);
        assert_eq!(policies.acquire(&with(3)), Some(a));
        assert_eq!(policies.get(b), with(2));
    }
}
