//! Fuzz targets for Jobsled; see README.md. What they do lies in `bodies/`, which the crash lab runs as well.

#[allow(dead_code, reason = "the lab alone makes inputs without a fuzzer")]
#[path = "../bodies/mod.rs"]
mod bodies;
#[path = "../../tests/lab/random.rs"]
mod random;
#[allow(dead_code, reason = "the lab lives by seeds as well")]
mod sim;

/// What lives tell; nobody listens here.
mod check {
    #[derive(Debug, Default)]
    pub(crate) struct Log;

    impl Log {
        pub(crate) fn note(&self, _what: &'static str, _n: u64) {}
    }
}

/// Runs a target's body. True if the bytes came past the first door.
///
/// # Panics
///
/// A promise is broken, or there is no such target.
pub fn run(target: &str, data: &[u8]) -> bool {
    let mut targets = bodies::TARGETS.iter();
    let found = targets.find(|known| known.name == target);
    (found.expect("a known target").body)(data)
}
