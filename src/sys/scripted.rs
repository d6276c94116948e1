//! For the crash lab: randomness and the machine's boot as a script has them, for one thread.

use std::cell::Cell;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    static BOOT: Cell<Option<u128>> = const { Cell::new(None) };
}

/// From now on this thread's random numbers follow from `seed`.
pub(crate) fn seed_randomness(seed: u64) {
    SEED.set(Some(seed));
}

/// From now on this thread takes the machine for one that was booted as `id`.
pub(crate) fn set_boot(id: u128) {
    BOOT.set(Some(id));
}

/// The script is over: this thread has the machine's own again.
pub(crate) fn end() {
    SEED.set(None);
    BOOT.set(None);
}

/// The next random number of the script, if there is one.
pub(super) fn random_u64() -> Option<u64> {
    let before = SEED.get()?;
    let after = before.wrapping_add(0x9E37_79B9_7F4A_7C15);
    SEED.set(Some(after));
    Some(xxhash_rust::xxh3::xxh3_64(&after.to_le_bytes()))
}

/// The boot of the script, if there is one.
pub(super) fn boot_id() -> Option<u128> {
    BOOT.get()
}
