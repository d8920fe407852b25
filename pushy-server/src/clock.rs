//! The two clocks that the machine takes as arguments.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pushy_core::time::{Millis, Now, Wall};

/// The wall clock.
pub(crate) fn wall() -> Wall {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
        Err(before) => Wall(-i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX)),
    }
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Both clocks at one moment.
pub(crate) fn now() -> Now {
    Now { mono: Millis(u64::try_from(start().elapsed().as_millis()).unwrap_or(u64::MAX)), wall: wall() }
}

/// When the monotonic clock will show `at`. Rounded up to the next millisecond, so that a timer is never early.
pub(crate) fn instant(at: Millis) -> Instant {
    start().checked_add(Duration::from_millis(at.0)).unwrap_or_else(|| start() + Duration::from_secs(86_400))
}
