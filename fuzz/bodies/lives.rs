//! `lives`: the bytes steer a simulated life, with its crashes, against the model (`tests/lab/sim`).

use crate::check::Log;
use crate::random::Random;
use crate::sim::Life;

pub(super) fn live(bytes: &[u8]) -> bool {
    let random = Random::of_choices(bytes);
    super::with_empty_dir(|dir| {
        let log = Log::default();
        let life = Life::by(random, 1, dir, &log, false).unwrap();
        life.live().unwrap();
        true
    })
}
