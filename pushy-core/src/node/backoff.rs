//! How long to wait before the next try (decision 26).

use crate::server::Random;

use crate::time::Millis;

/// Width of the window of the first try.
const FIRST: u64 = 2_000;

/// Tries that failed in a row, and from them the next wait: uniform in a window of 2 s that doubles up to a cap.
///
/// A whole fleet loses its server in the same moment; full jitter spreads its return.
#[derive(Debug, Clone)]
pub struct Backoff {
    failed: u32,
    cap: Millis,
}

impl Backoff {
    /// No failure yet; no wait longer than `cap`.
    pub fn new(cap: Millis) -> Backoff {
        Backoff { failed: 0, cap }
    }

    /// The next wait; counts as one more try.
    pub fn next(&mut self, random: &mut dyn Random) -> Millis {
        let window = FIRST.saturating_mul(1 << self.failed.min(16)).min(self.cap.0);
        self.failed = self.failed.saturating_add(1);
        uniform(Millis(window), random)
    }

    /// How many tries there were since the last success.
    pub fn tries(&self) -> u32 {
        self.failed
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failed = 0;
    }
}

/// Uniform in 0 to `limit`, both included.
pub fn uniform(limit: Millis, random: &mut dyn Random) -> Millis {
    // The remainder of 64 random bits is uneven by less than 2^-40 for any wait of ours.
    Millis(random.next_u64() % limit.0.saturating_add(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn windows_double_up_to_the_cap_and_are_filled() {
        for (tries, window) in [(0, 2_000), (1, 4_000), (2, 8_000), (3, 10_000), (40, 10_000)] {
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(tries);
            let mut low = u64::MAX;
            let mut high = 0;
            for _ in 0..500 {
                let mut backoff = Backoff::new(Millis(10_000));
                for _ in 0..tries {
                    backoff.next(&mut random);
                }
                let wait = backoff.next(&mut random).0;
                low = low.min(wait);
                high = high.max(wait);
            }
            assert!(high <= window && high > window * 9 / 10 && low < window / 10, "{tries}: {low}..{high}");
        }
    }
}
