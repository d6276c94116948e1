//! Random numbers that are the same for the same seed, everywhere and for ever: splitmix64. Or choices that
//! somebody else makes, a fuzzer.

/// A source of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
    /// Choices that were made, the next one last.
    choices: Vec<u8>,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        // Neighbouring seeds begin far apart.
        let mut random = Random {
            state: seed.wrapping_mul(0xA076_1D64_78BD_642F),
            choices: Vec::new(),
        };
        random.next();
        random
    }

    /// The choices come from these bytes, each from as few as it needs, so that a byte steers one choice. When they
    /// are used up it goes on as with a seed.
    pub(crate) fn of_choices(bytes: &[u8]) -> Random {
        let mut random = Random::new(bytes.len() as u64);
        random.choices = bytes.iter().rev().copied().collect();
        random
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        if let Some(number) = self.chosen(u64::MAX) {
            return number;
        }
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let number = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    /// A number from 0 to below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.chosen(end - 1).unwrap_or_else(|| self.next()) % end
    }

    /// A number of as many bytes as one up to `most` has, if choices are left.
    fn chosen(&mut self, most: u64) -> Option<u64> {
        if self.choices.is_empty() {
            return None;
        }
        let bytes = 8 - most.leading_zeros() / 8;
        let next = (0..bytes).map(|_| u64::from(self.choices.pop().unwrap_or(0)));
        Some(next.fold(0, |number, byte| number << 8 | byte))
    }

    /// A number from `from` to `to`, both included.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// An index into something of this length, which is not 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }
}
