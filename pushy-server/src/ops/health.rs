//! Whether the server should get requests: `/readyz`, and what a drain changes about it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use pushy_core::time::Millis;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock;

/// A failure counts for so long, if nothing has succeeded since: a thing that nobody uses is not broken for ever.
const FRESH: Millis = Millis(15_000);

/// Something the server needs, which works or does not.
#[derive(Debug, Default)]
pub struct Need {
    /// Milliseconds of the monotonic clock, plus one; 0: never.
    good: AtomicU64,
    bad: AtomicU64,
}

impl Need {
    /// It worked just now.
    pub fn good(&self) {
        self.good.store(clock::now().mono.0 + 1, Ordering::Relaxed);
    }

    /// It failed just now.
    pub fn bad(&self) {
        self.bad.store(clock::now().mono.0 + 1, Ordering::Relaxed);
    }

    fn fails(&self, now: Millis) -> bool {
        let (good, bad) = (self.good.load(Ordering::Relaxed), self.bad.load(Ordering::Relaxed));
        bad > good && now.0.saturating_sub(bad) < FRESH.0
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Health {
    /// Writes to the store (decision 10).
    pub store: Need,
    /// Questions to the Chef server.
    pub chef: Need,
    draining: AtomicBool,
    drain_ends: Mutex<Option<Instant>>,
    /// Told when a drain is over and the server should stop.
    pub(crate) drained: Notify,
}

/// Why a server takes no job while it drains.
pub const DRAINING: &str = "the server is draining and takes no new jobs; try again when it is back";

impl Health {
    /// Whether no new jobs are taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Begins or calls off a drain; answers whether that changed anything. `until`: the server stops then at the latest,
    /// whatever an earlier drain said; `None`: not before its jobs are over.
    pub(crate) fn drain(&self, on: bool, until: Option<Instant>) -> bool {
        *self.drain_ends.lock().unwrap_or_else(PoisonError::into_inner) = until;
        self.draining.swap(on, Ordering::Relaxed) != on
    }

    /// When a drain gives up waiting for jobs.
    pub(crate) fn drain_ends(&self) -> Option<Instant> {
        *self.drain_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why requests should go elsewhere; nothing when they should not.
    pub fn reasons(&self) -> Vec<&'static str> {
        let now = clock::now().mono;
        [
            (self.is_draining(), "the server is draining"),
            (self.store.fails(now), "the store refuses writes"),
            (self.chef.fails(now), "the Chef server does not answer"),
        ]
        .into_iter()
        .filter_map(|(holds, reason)| holds.then_some(reason))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_while_it_is_fresh() {
        let check = |good: u64, bad: u64, now: u64, fails: bool| {
            let need = Need { good: AtomicU64::new(good), bad: AtomicU64::new(bad) };
            assert_eq!(need.fails(Millis(now)), fails, "{good} {bad} {now}");
        };
        check(0, 0, 5, false);
        check(0, 1, 1, true);
        check(7, 8, 9, true);
        check(8, 8, 9, false);
        check(9, 8, 9, false);
        check(0, 8, 15_007, true);
        check(0, 8, 15_008, false);
    }
}
