//! How long to wait before the next try (decision 26).

use crate::server::Random;

use crate::time::Millis;

/// Width of the window of the first try.
const FIRST: u64 = 2_000;

/// The longest pause between two tries with heartbeats far apart (decision 26).
pub const LONGEST_WAIT: Millis = Millis(10_000);

/// What a pause may last beyond a heartbeat interval.
const BEYOND_INTERVAL: Millis = Millis(3_000);

/// The longest pause between two tries: a server that is back after an outage, however long, has the node available
/// within one heartbeat interval and 5 s (decision 4). That is the sum of, at worst,
///
/// 1. this pause, when a try failed just before the server's return: at most interval + 3 s. Tries never wait for a
///    configuration ([`super::reconfigurer::Trigger::OutOfReach`] fetches beside them). A try that nothing answers is given
///    up after 10 s and its pause counts from its start, so the next one follows at once; within it the operating system
///    repeats its first packet after 1, 3 and 7 s: no gap there is longer than 4 s;
/// 2. connection and handshake: three and a half round trips, under 2 ms of computing;
/// 3. no configuration: a server that goes on has kept its keys, so the old ones fit (with new keys the silence
///    of the refused handshake, 10 s, comes first; decision 5);
/// 4. the first heartbeat, said in the moment the handshake is complete, and no second one: a node known from before
///    is available with its first message, one that counted as lost after the round trip of `abort` and `aborted`.
///
/// Steps 2 and 4 are six round trips: each may take 300 ms of the 2 s that are left, or 160 ms where no packet is
/// answered and an interval is next to nothing.
pub fn longest_wait(interval: Millis) -> Millis {
    LONGEST_WAIT.min(interval + BEYOND_INTERVAL)
}

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

    /// No wait longer than this from now on.
    pub fn set_cap(&mut self, cap: Millis) {
        self.cap = cap;
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
