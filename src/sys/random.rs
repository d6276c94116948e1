//! Numbers nobody can foresee: store ids, payload file names, jitter seeds.
//!
//! None of them is a secret. What counts is that two never meet, so a machine without a source of
//! randomness gets a weaker answer, not an error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// 16 random bytes as a number.
pub(crate) fn random_u128() -> u128 {
    #[cfg(feature = "lab")]
    if let (Some(low), Some(high)) = (super::scripted::random_u64(), super::scripted::random_u64())
    {
        return u128::from(high) << 64 | u128::from(low);
    }
    u128::from_le_bytes(random_bytes())
}

/// 8 random bytes as a number.
pub(crate) fn random_u64() -> u64 {
    #[cfg(feature = "lab")]
    if let Some(number) = super::scripted::random_u64() {
        return number;
    }
    u64::from_le_bytes(random_bytes())
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        scrape_together(&mut bytes);
    }
    bytes
}

/// Hashes what differs between processes (time, process id, an address that the loader picked) and
/// between calls (a counter).
#[expect(
    clippy::disallowed_methods,
    reason = "not used as a time: only its low digits matter"
)]
fn scrape_together(bytes: &mut [u8]) {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&since_1970.as_nanos().to_le_bytes());
    hasher.update(&super::steady_time().as_nanos().to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.update(&std::ptr::from_ref(&CALLS).addr().to_le_bytes());
    hasher.update(&std::ptr::from_ref(&hasher).addr().to_le_bytes());
    hasher.update(&CALLS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    hasher.finalize_xof().fill(bytes);
}

/// Numbers that are the same in every run, for tests: Knuth's MMIX generator, upper half.
#[cfg(test)]
pub(crate) struct Dice(pub(crate) u64);

#[cfg(test)]
impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_differ() {
        let wide: HashSet<u128> = (0..1_000).map(|_| random_u128()).collect();
        let narrow: HashSet<u64> = (0..1_000).map(|_| random_u64()).collect();
        assert_eq!((wide.len(), narrow.len()), (1_000, 1_000));
    }

    #[test]
    fn the_fallback_differs_too() {
        let mut seen = HashSet::new();
        for _ in 0..1_000 {
            let mut bytes = [0; 16];
            scrape_together(&mut bytes);
            assert!(seen.insert(bytes));
        }
    }
}
