//! The jobs of the lab's lives: all that they hold and all that becomes of them is a function of their number.

use jobsled::{Context, JobDefaults, JobResult, Stop, job, rkyv};

use crate::random::Random;

/// A job. Its handler checks that it is as it was handed in.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct Work {
    pub(super) number: u64,
    pub(super) ballast: Vec<u8>,
}

job!(
    Work,
    kind = "work",
    output = u64,
    defaults = JobDefaults::new()
        .attempts(2)
        .backoff(jobsled::Backoff::fixed(std::time::Duration::ZERO))
);

/// What its handler does with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Completes,
    /// Fails once, then completes.
    Stumbles,
    /// Fails each time, until it is dead.
    Fails,
    /// Asks to be cancelled.
    Cancels,
    /// Is given up at once.
    Discards,
}

impl Fate {
    pub(super) fn of(number: u64) -> Fate {
        match number % 19 {
            3 | 4 => Fate::Stumbles,
            7 => Fate::Fails,
            11 => Fate::Cancels,
            15 => Fate::Discards,
            _ => Fate::Completes,
        }
    }
}

impl Work {
    pub(super) fn new(number: u64, len: usize) -> Work {
        Work {
            number,
            ballast: ballast(number, len),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.ballast == ballast(self.number, self.ballast.len())
    }

    /// What a handler does.
    pub(super) fn run(&self, cx: &Context) -> JobResult<u64> {
        if !self.is_whole() {
            return Err(Stop::discard(WRONG_CONTENT));
        }
        match Fate::of(self.number) {
            Fate::Stumbles if cx.attempt().number == 1 => Err("stumbled".into()),
            Fate::Completes | Fate::Stumbles => Ok(output(self.number)),
            Fate::Fails => Err("fails each time".into()),
            Fate::Cancels => Err(Stop::cancel("by its handler")),
            Fate::Discards => Err(Stop::discard("by its handler")),
        }
    }
}

/// Why a job is dead whose payload is not the one that was handed in.
pub(super) const WRONG_CONTENT: &str = "its payload is not the one that was handed in";

/// What a completed job leaves.
pub(super) fn output(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn ballast(number: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(number);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
