//! Is a message new? Replays and messages that waited in a queue across a lost connection (D-15, decision 3).

use std::collections::VecDeque;

use crate::time::{Millis, Wall};

use super::detail::NodeWarning;

/// How a message relates to the handshake of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Stamped after it: says what the node does now.
    Fresh,
    /// Too close to tell.
    Unsure,
    /// Stamped before it: waited in a queue, or was recorded.
    Stale,
}

/// Stamps are whole seconds.
const GRAIN: i64 = 1_000_000;
/// How many lags are remembered; more than the three messages that the original queues.
const LAGS: usize = 8;

/// How far a node's clock is from ours: the smallest recent difference between arrival and stamp, in
/// microseconds, is the clocks' difference plus the way of the fastest message.
#[derive(Default)]
pub(super) struct Clocks {
    lags: VecDeque<i64>,
    /// Which of our own clock's steps the lags belong to.
    epoch: u32,
    /// Messages in a row that were dropped for their stamp, and the smallest lag among them, in seconds.
    refused: (u32, i64),
}

/// So many messages at least before a lag is a clock's and not the messages' age: more than the three that the original
/// queues.
const SURE: u32 = 4;

impl Clocks {
    /// Takes note of a message and judges it. Monotonic time says how long ago the handshake was, so that a step of our
    /// own clock in between does not matter (D-69); `epoch` counts such steps.
    pub(super) fn judge(
        &mut self,
        stamp: Wall,
        wall: Wall,
        since_handshake: Millis,
        epoch: u32,
    ) -> Freshness {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.lags.clear();
        }
        let lag = wall.0.saturating_sub(stamp.0);
        if self.lags.len() == LAGS {
            self.lags.pop_front();
        }
        self.lags.push_back(lag);
        self.refused = (0, 0);
        let smallest = self.lags.iter().copied().min().unwrap_or(lag);
        // A few messages may all be old: then a lag may be age as well as a clock that is behind.
        let offset = if self.lags.len() < 4 { smallest.min(0) } else { smallest };
        let age = lag.saturating_sub(offset);
        let since = i64::try_from(since_handshake.0).unwrap_or(i64::MAX).saturating_mul(1000);
        if age.saturating_add(GRAIN) <= since {
            Freshness::Fresh
        } else if age > since.saturating_add(2 * GRAIN) {
            Freshness::Stale
        } else {
            Freshness::Unsure
        }
    }

    /// Takes note of a message that is dropped because its stamp is so many seconds behind our clock (ahead of it, when
    /// negative).
    pub(super) fn note_refused(&mut self, behind: i64) {
        let (count, smallest) = self.refused;
        let smallest =
            if count > 0 && smallest.saturating_abs() < behind.saturating_abs() { smallest } else { behind };
        self.refused = (count.saturating_add(1), smallest);
    }

    /// How many seconds the node's clock is ahead of ours; `None` before that can be told.
    pub(super) fn offset(&self) -> Option<i64> {
        // A stamp from the future cannot be old; one from the past may have waited.
        let sure = |count: usize, behind: i64| count >= SURE as usize || (count > 0 && behind < 0);
        match self.refused {
            (0, _) => {
                let seconds = self.lags.iter().copied().min()?.div_euclid(GRAIN);
                sure(self.lags.len(), seconds).then(|| seconds.saturating_neg())
            }
            (count, behind) => sure(count as usize, behind).then(|| behind.saturating_neg()),
        }
    }

    /// Says so when the clock is off by `tolerance` seconds or more.
    pub(super) fn warning(&self, tolerance: i64) -> Option<NodeWarning> {
        let seconds = self.offset()?;
        let refused = self.refused.0 > 0;
        (seconds.saturating_abs() >= tolerance).then_some(NodeWarning::ClockOff { seconds, refused })
    }
}

/// The last messages of a node, so that one replayed on another connection is known: its sequence starts again there.
#[derive(Default)]
pub(super) struct Seen {
    marks: VecDeque<u64>,
}

/// More than a node says within the clock window at the default interval.
const MARKS: usize = 96;

impl Seen {
    /// Takes note of a message; answers whether it was known.
    pub(super) fn note(&mut self, body: &[u8]) -> bool {
        let mark = fingerprint(body);
        if self.marks.contains(&mark) {
            return true;
        }
        if self.marks.len() == MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back(mark);
        false
    }
}

/// The signature has been checked, so equal marks of different bodies can only be chance: 2⁻⁶⁴ a pair.
fn fingerprint(body: &[u8]) -> u64 {
    let digest = openssl::sha::sha1(body);
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}
