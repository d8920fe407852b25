//! Who is refused at the transport, said at most once a minute per key or address (decision 5); and how many
//! connections an address has.

use std::collections::HashMap;
use std::net::IpAddr;

use pushy_core::server::CurveKey;
use pushy_core::time::Millis;
use pushy_core::zmtp::Refusal;

/// Between two lines about the same peer.
const QUIET: Millis = Millis(60_000);
/// Peers that are remembered; beyond, all older than [`QUIET`] are forgotten, then all.
const REMEMBERED: usize = 4096;

/// Whom a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Key(CurveKey),
    Address(IpAddr),
    Everybody,
}

/// What a connection's end counts as.
pub(super) const fn kind(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotZmtp => "not_zmtp",
        Refusal::OldVersion => "old_version",
        Refusal::Mechanism | Refusal::SocketType => "wrong_port",
        Refusal::ServerKey => "server_key",
        Refusal::WeakKey | Refusal::Box | Refusal::Cookie | Refusal::Vouch | Refusal::Nonce => "cryptography",
        Refusal::Deadline => "deadline",
        Refusal::Silent => "silent",
        Refusal::Flags
        | Refusal::TooLong
        | Refusal::Length
        | Refusal::Command
        | Refusal::Metadata
        | Refusal::Early
        | Refusal::FrameCount
        | Refusal::Subscriptions => "protocol",
        Refusal::PeerError => "peer_error",
        Refusal::Ended => "ended",
    }
}

/// Decides which lines are written.
#[derive(Default)]
pub(super) struct Refusals {
    last: HashMap<Who, Millis>,
}

impl Refusals {
    /// Whether to write a line about this peer now.
    pub(super) fn say(&mut self, who: Who, now: Millis) -> bool {
        if self.last.get(&who).is_some_and(|at| now < *at + QUIET) {
            return false;
        }
        if self.last.len() >= REMEMBERED {
            self.last.retain(|_, at| now < *at + QUIET);
            if self.last.len() >= REMEMBERED {
                self.last.clear();
            }
        }
        self.last.insert(who, now);
        true
    }
}

/// Connections by address and port.
#[derive(Default)]
pub(super) struct Addresses {
    counts: HashMap<(IpAddr, usize), Count>,
}

/// Connections of one address to one port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) half_open: u32,
    pub(super) all: u32,
}

impl Addresses {
    pub(super) fn count(&self, address: IpAddr, port: usize) -> Count {
        self.counts.get(&(address, port)).copied().unwrap_or_default()
    }

    /// A connection came; it is half open.
    pub(super) fn add(&mut self, address: IpAddr, port: usize) {
        let count = self.counts.entry((address, port)).or_default();
        count.half_open += 1;
        count.all += 1;
    }

    /// Its handshake is over, one way or the other.
    pub(super) fn settled(&mut self, address: IpAddr, port: usize) {
        if let Some(count) = self.counts.get_mut(&(address, port)) {
            count.half_open = count.half_open.saturating_sub(1);
        }
    }

    /// It is gone.
    pub(super) fn remove(&mut self, address: IpAddr, port: usize) {
        if let Some(count) = self.counts.get_mut(&(address, port)) {
            count.all = count.all.saturating_sub(1);
            if count.all == 0 {
                self.counts.remove(&(address, port));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_for_each() {
        let mut refusals = Refusals::default();
        let here = Who::Address(IpAddr::from([127, 0, 0, 1]));
        let key = Who::Key(CurveKey([7; 32]));
        assert!(refusals.say(here, Millis(0)));
        assert!(!refusals.say(here, Millis(59_999)));
        assert!(refusals.say(key, Millis(59_999)));
        assert!(refusals.say(here, Millis(60_000)));
    }

    #[test]
    fn memory_of_refusals_is_bounded() {
        let mut refusals = Refusals::default();
        for n in 0..3 * REMEMBERED as u32 {
            refusals.say(Who::Address(IpAddr::from(n.to_be_bytes())), Millis(0));
        }
        assert!(refusals.last.len() <= REMEMBERED);
    }

    #[test]
    fn addresses_are_forgotten_with_their_last_connection() {
        let mut addresses = Addresses::default();
        let here = IpAddr::from([127, 0, 0, 1]);
        addresses.add(here, 0);
        addresses.add(here, 0);
        addresses.settled(here, 0);
        assert_eq!(addresses.count(here, 0), Count { half_open: 1, all: 2 });
        assert_eq!(addresses.count(here, 1), Count::default());
        addresses.settled(here, 0);
        addresses.remove(here, 0);
        addresses.remove(here, 0);
        assert!(addresses.counts.is_empty());
    }
}
