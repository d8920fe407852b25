//! What goes wrong with a node without breaking a rule: two agents that claim it, a key that changed hands, a clock that
//! is off (decisions 5 and 49). Each is logged once in a while, and kept for whoever asks.

use crate::ids::IncarnationId;
use crate::time::{Millis, Wall};

use super::detail::{Claimant, NodeWarning};
use super::tables::NodeId;
use super::{ConnId, CurveKey, LogLevel, Server};

/// So many takeovers within [`CLAIM_WINDOW`], one of them by somebody who had been there before, are two agents.
const TAKEOVERS: usize = 3;
/// How long a takeover counts (decision 49).
const CLAIM_WINDOW: Millis = Millis::from_secs(600);
/// So many claims of a node are remembered.
const CLAIMS: usize = 6;
/// How long a change of key is shown.
const KEY_SHOWN: Millis = Millis::from_secs(86_400);
/// How long a superseded key that knocked is shown.
const KNOCK_SHOWN: Millis = Millis::from_secs(3_600);
/// Between two lines of one kind about one node.
const QUIET: Millis = Millis::from_secs(600);
/// A clock that is off by as much is said, in seconds; less when the largest skew is small.
const CLOCK_OFF: i64 = 30;

/// Who spoke for a node at a time.
struct Claim {
    at: Millis,
    key: CurveKey,
    /// Known from its first message on.
    incarnation: Option<IncarnationId>,
    peer: String,
}

impl Claim {
    /// One process keeps its incarnation when it takes a new key, and two that were cloned have one key.
    fn is_same(&self, other: &Claim) -> bool {
        match (&self.incarnation, &other.incarnation) {
            (Some(one), Some(other)) => one == other,
            _ => self.key == other.key,
        }
    }

    fn claimant(&self) -> Claimant {
        Claimant { address: self.peer.clone(), incarnation: self.incarnation.clone() }
    }
}

/// What is remembered of one node's troubles; of a fixed size.
#[derive(Default)]
pub(super) struct Trouble {
    /// Newest last; one after the other are not the same.
    claims: Vec<Claim>,
    rivals: Option<(Millis, Claimant, Claimant)>,
    key_changed: Option<(Millis, KeyChange)>,
    knocked: Option<(Millis, Wall, String)>,
    /// Of the client key that last fetched a configuration.
    client_key: Option<[u8; 8]>,
    /// When a line of each kind was last written.
    said: [Option<Millis>; 3],
}

#[derive(Clone)]
enum KeyChange {
    Address { at: Wall, before: String, now: String },
    ClientKey { at: Wall },
}

#[derive(Clone, Copy)]
enum Kind {
    Rivals,
    Key,
    Clock,
}

/// The host of `HOST:PORT`.
fn host(peer: &str) -> &str {
    peer.rsplit_once(':').map_or(peer, |(host, _)| host)
}

impl Trouble {
    fn may_say(&mut self, kind: Kind, now: Millis) -> bool {
        let last = &mut self.said[kind as usize];
        if last.is_some_and(|at| now - at < QUIET) {
            return false;
        }
        *last = Some(now);
        true
    }

    /// Takes note of somebody who speaks for the node; answers whether two take it from each other.
    fn claim(&mut self, claim: Claim) -> bool {
        let (now, named) = (claim.at, claim.incarnation.is_some());
        // The present one stays however old it is: the next takes over from it.
        let last = self.claims.len().saturating_sub(1);
        let mut at = 0;
        self.claims.retain(|old| {
            at += 1;
            at > last || now - old.at < CLAIM_WINDOW
        });
        match self.claims.last_mut() {
            Some(present) if present.is_same(&claim) => {
                let incarnation = claim.incarnation.clone().or(present.incarnation.take());
                *present = Claim { incarnation, ..claim };
                // A new key of the same process looked like another claim until it said who it is.
                if let [.., before, present] = &mut self.claims[..] {
                    if before.is_same(present) {
                        std::mem::swap(before, present);
                        self.claims.pop();
                    }
                }
            }
            _ => {
                if self.claims.len() == CLAIMS {
                    self.claims.remove(0);
                }
                self.claims.reserve_exact(1);
                self.claims.push(claim);
            }
        }
        let [.., before, present] = &self.claims[..] else { return false };
        // Both are to be named: judged once the newcomer has said who it is.
        if !named {
            return false;
        }
        let recent = |claim: &&Claim| now - claim.at < CLAIM_WINDOW;
        let takeovers = self.claims.iter().skip(1).filter(recent).count();
        let returns = (2..self.claims.len())
            .any(|later| self.claims[..later - 1].iter().any(|c| c.is_same(&self.claims[later])));
        if takeovers < TAKEOVERS || !returns {
            return false;
        }
        self.rivals = Some((now, before.claimant(), present.claimant()));
        true
    }

    pub(super) fn warnings(&self, now: Millis, into: &mut Vec<NodeWarning>) {
        if let Some((at, one, other)) = &self.rivals {
            if now - *at < CLAIM_WINDOW {
                into.push(NodeWarning::TwoAgents { one: one.clone(), other: other.clone() });
            }
        }
        if let Some((at, change)) = &self.key_changed {
            if now - *at < KEY_SHOWN {
                into.push(change.clone().into());
            }
        }
        if let Some((at, wall, address)) = &self.knocked {
            if now - *at < KNOCK_SHOWN {
                into.push(NodeWarning::OldKey { at: *wall, address: address.clone() });
            }
        }
    }
}

impl From<KeyChange> for NodeWarning {
    fn from(change: KeyChange) -> NodeWarning {
        match change {
            KeyChange::Address { at, before, now } => NodeWarning::KeyChanged { at, before, now },
            KeyChange::ClientKey { at } => NodeWarning::ClientKeyChanged { at },
        }
    }
}

impl Server {
    fn trouble(&mut self, id: NodeId) -> Option<&mut Trouble> {
        Some(self.nodes.get_mut(&id)?.trouble.get_or_insert_default())
    }

    fn warn(&mut self, id: NodeId, kind: Kind, warning: &NodeWarning, peer: Option<String>) {
        let now = self.now.mono;
        if self.trouble(id).is_some_and(|trouble| trouble.may_say(kind, now)) {
            self.log(LogLevel::Warn, Some(id), None, peer, warning.to_string());
        }
    }

    /// Somebody speaks for a node: a handshake is complete, or its first message names its process.
    pub(super) fn note_claim(&mut self, id: NodeId, conn: ConnId, incarnation: Option<IncarnationId>) {
        let now = self.now.mono;
        let Some(from) = self.conns.get(&conn) else { return };
        let (key, peer) = (from.key, from.peer.clone());
        let claim = Claim { at: now, key, incarnation, peer: peer.clone() };
        let Some(trouble) = self.trouble(id) else { return };
        if !trouble.claim(claim) {
            return;
        }
        let Some((_, one, other)) = trouble.rivals.clone() else { return };
        self.warn(id, Kind::Rivals, &NodeWarning::TwoAgents { one, other }, Some(peer));
    }

    /// A key of the node has taken over from another one. That is a restart of the agent, unless it comes from another
    /// host.
    pub(super) fn note_takeover(&mut self, id: NodeId, key: CurveKey, before: CurveKey, peer: &str) {
        let (mono, at) = (self.now.mono, self.now.wall);
        let Some(trouble) = self.trouble(id) else { return };
        let old = trouble.claims.iter().rev().find(|claim| claim.key == before);
        let old = old.map(|claim| claim.peer.clone()).unwrap_or_default();
        let text = format!("the node's key changed: {key:?} has taken over from {before:?}");
        self.log(LogLevel::Info, Some(id), None, Some(peer.to_owned()), text);
        if old.is_empty() || host(&old) == host(peer) {
            return;
        }
        let change = KeyChange::Address { at, before: old, now: peer.to_owned() };
        if let Some(trouble) = self.trouble(id) {
            trouble.key_changed = Some((mono, change.clone()));
        }
        self.warn(id, Kind::Key, &change.into(), Some(peer.to_owned()));
    }

    /// The node fetched its configuration with a client key: with another one than last time?
    pub(super) fn note_client_key(&mut self, id: NodeId, pem: &str) {
        let digest = openssl::sha::sha256(pem.trim().as_bytes());
        let mut mark = [0u8; 8];
        mark.copy_from_slice(&digest[..8]);
        let (mono, at) = (self.now.mono, self.now.wall);
        let Some(trouble) = self.trouble(id) else { return };
        if trouble.client_key.replace(mark).is_none_or(|before| before == mark) {
            return;
        }
        let change = KeyChange::ClientKey { at };
        trouble.key_changed = Some((mono, change.clone()));
        self.warn(id, Kind::Key, &change.into(), None);
    }

    /// A key that was the node's own once is used again.
    pub(super) fn note_old_key(&mut self, id: NodeId, peer: &str) {
        let (mono, at) = (self.now.mono, self.now.wall);
        if let Some(trouble) = self.trouble(id) {
            trouble.knocked = Some((mono, at, peer.to_owned()));
        }
    }

    /// How far a clock may be off before it is said, in seconds.
    pub(super) fn clock_tolerance(&self) -> i64 {
        CLOCK_OFF.min(i64::from(self.config.max_message_skew) / 5).max(2)
    }

    /// After every message: is its node's clock far off?
    pub(super) fn note_clock(&mut self, id: NodeId) {
        let tolerance = self.clock_tolerance();
        let Some(node) = self.nodes.get(&id) else { return };
        let Some(warning) = node.clocks.warning(tolerance) else { return };
        self.warn(id, Kind::Clock, &warning, None);
    }
}
