//! Messages seen within the clock window, so that none acts twice (D-53).
//!
//! A server repeats a message with a new sequence number and time; one that is equal byte for byte was recorded.
//! The memory does not lean on sequence numbers: they start again with every life of a server.

use std::collections::{HashSet, VecDeque};

/// More than a server sends one node within the window, heartbeats of one second included.
const REMEMBERED: usize = 1024;

/// The messages seen last.
#[derive(Debug, Default)]
pub(super) struct Replay {
    seen: HashSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Replay {
    /// Whether this body comes for the first time; remembers it. Call with authenticated bodies only.
    pub(super) fn is_new(&mut self, body: &[u8]) -> bool {
        let mut digest = [0; 16];
        digest.copy_from_slice(&openssl::sha::sha256(body)[..16]);
        if !self.seen.insert(digest) {
            return false;
        }
        if self.order.len() >= REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
        self.order.push_back(digest);
        true
    }
}
