//! What the server knows of a node beside its state: for `detail=1` (decision 20), metrics and `doctor`.

use std::fmt;

use crate::ids::{IncarnationId, JobId, NodeName, NodeRef, OrgId};
use crate::time::{Millis, Wall};

use super::job_state::Phase;
use super::node_state::NodePhase;
use super::tables::Node;
use super::{CurveKey, NodeState, Server};

/// One process that speaks for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// Its address and port.
    pub address: String,
    /// The id of the process; unknown until it has sent a heartbeat.
    pub incarnation: Option<IncarnationId>,
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let incarnation = self.incarnation.as_ref().map_or("unknown", |id| id.as_str());
        write!(f, "{} (incarnation {incarnation})", self.address)
    }
}

/// Something about a node that an operator should look at. `Display` says what it is and what to do, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeWarning {
    /// Two agents take the node's connection from each other (decision 49).
    TwoAgents {
        /// The one that lost it last.
        one: Claimant,
        /// The one that has it.
        other: Claimant,
    },
    /// The node's CURVE key was replaced by one from another host (decision 5).
    KeyChanged {
        /// When.
        at: Wall,
        /// The address of the key before.
        before: String,
        /// The address of the key now.
        now: String,
    },
    /// The node fetched its configuration with another client key than before.
    ClientKeyChanged {
        /// When.
        at: Wall,
    },
    /// A handshake with one of the node's last superseded keys was refused (decision 5).
    OldKey {
        /// When.
        at: Wall,
        /// Where it came from.
        address: String,
    },
    /// The node's clock differs from the server's.
    ClockOff {
        /// By so many seconds; positive: the node's is ahead.
        seconds: i64,
        /// Whether its messages are dropped for it.
        refused: bool,
    },
}

impl NodeWarning {
    /// Every value of [`NodeWarning::kind`].
    pub const KINDS: &'static [&'static str] =
        &["two_agents", "key_changed", "client_key_changed", "old_key", "clock_off"];

    /// A short name for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            NodeWarning::TwoAgents { .. } => "two_agents",
            NodeWarning::KeyChanged { .. } => "key_changed",
            NodeWarning::ClientKeyChanged { .. } => "client_key_changed",
            NodeWarning::OldKey { .. } => "old_key",
            NodeWarning::ClockOff { .. } => "clock_off",
        }
    }
}

impl fmt::Display for NodeWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeWarning::TwoAgents { one, other } => {
                write!(f, "two agents seem to run as this node: {one} and {other}; stop one of them")
            }
            NodeWarning::KeyChanged { at, before, now } => write!(
                f,
                "the node's key changed at {} and now comes from {now} instead of {before}; if the node was not moved, \
                 find out who has its client key",
                at.iso8601()
            ),
            NodeWarning::ClientKeyChanged { at } => write!(
                f,
                "the node's client key changed at {}; if nobody gave it a new one, find out who did",
                at.iso8601()
            ),
            NodeWarning::OldKey { at, address } => write!(
                f,
                "a key that is no longer the node's was refused at {}, from {address}; stop what runs there as this node",
                at.iso8601()
            ),
            NodeWarning::ClockOff { seconds, refused } => {
                let way = if *seconds > 0 { "ahead of" } else { "behind" };
                let cost = if *refused { ", so its messages are dropped" } else { "" };
                write!(
                    f,
                    "the node's clock is {} s {way} the server's{cost}; synchronize it (NTP)",
                    seconds.saturating_abs()
                )
            }
        }
    }
}

/// Everything that is told of one node on request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDetail {
    /// Its name.
    pub name: NodeName,
    /// Online, available.
    pub state: NodeState,
    /// Why it would not take a job; `None` when it would.
    pub reason: Option<&'static str>,
    /// Since when it is available, or is not. `None`: since before the server's start.
    pub since: Option<Wall>,
    /// When its last valid message came, since the server's start.
    pub last_seen: Option<Wall>,
    /// The address its connection comes from.
    pub address: Option<String>,
    /// What fetched its configuration, in its own words.
    pub client: Option<String>,
    /// Its process.
    pub incarnation: Option<IncarnationId>,
    /// The key it shakes hands with.
    pub key: Option<CurveKey>,
    /// Its clock against the server's, in seconds, when it is off by more than is usual; positive: ahead.
    pub clock_offset: Option<i64>,
    /// Unfinished jobs that wait for it.
    pub jobs: Vec<JobId>,
    /// What should be looked at.
    pub warnings: Vec<NodeWarning>,
}

/// How many nodes there are of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Would take a job.
    pub available: usize,
    /// Online, but silent or without a connection.
    pub unavailable: usize,
    /// Told to give up what they do.
    pub rehab: usize,
    /// Known from before a restart, not heard yet.
    pub expected: usize,
    /// Known, without a live state.
    pub offline: usize,
    /// Nodes with a warning of each kind, in the order of [`NodeWarning::KINDS`].
    pub warnings: [usize; NodeWarning::KINDS.len()],
}

impl Server {
    pub(super) fn wall_of(&self, at: Millis) -> Wall {
        let ago = i64::try_from((self.now.mono - at).0).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        Wall(self.now.wall.0.saturating_sub(ago))
    }

    fn warnings_of(&self, node: &Node) -> Vec<NodeWarning> {
        let mut warnings = Vec::new();
        if let Some(trouble) = &node.trouble {
            trouble.warnings(self.now.mono, &mut warnings);
        }
        warnings.extend(node.clocks.warning(self.clock_tolerance()));
        warnings
    }

    pub(super) fn detail_of(&self, node: &Node) -> NodeDetail {
        let conn = node.conn.and_then(|conn| self.conns.get(&conn));
        let warnings = self.warnings_of(node);
        let refused = warnings.iter().any(|w| matches!(w, NodeWarning::ClockOff { refused: true, .. }));
        let reason = match node.phase {
            NodePhase::Idle if node.is_available() => None,
            NodePhase::Idle if conn.is_some() => Some("silent"),
            NodePhase::Absent | NodePhase::Idle if conn.is_none() => {
                Some(if node.heard.is_some() { "not connected" } else { "never seen" })
            }
            NodePhase::Absent | NodePhase::Idle if refused => Some("clock off"),
            NodePhase::Absent | NodePhase::Idle => Some("nothing valid heard"),
            NodePhase::Restored => Some("expected back after a restart"),
            NodePhase::Rehab => Some("in rehab"),
        };
        let active = node.keys.bound.iter().find(|bound| bound.active);
        let unfinished = node.jobs.iter().filter_map(|ix| self.jobs.get(ix));
        let unfinished = unfinished.filter(|job| job.phase() != Phase::Over);
        NodeDetail {
            name: node.at.node.clone(),
            state: NodeState { online: node.phase.is_live(), available: node.is_available() },
            reason,
            since: node.turned.map(|at| self.wall_of(at)),
            last_seen: node.heard.map(|at| self.wall_of(at)),
            address: conn.map(|conn| conn.peer.clone()),
            client: node.client.as_deref().map(str::to_owned),
            incarnation: node.incarnation.clone(),
            key: active.map(|bound| bound.key),
            clock_offset: node.clocks.offset().filter(|off| off.abs() > 1),
            jobs: unfinished.map(|job| job.id.clone()).collect(),
            warnings,
        }
    }

    /// Everything about one node, known or not.
    pub fn node_detail(&self, node: &NodeRef) -> NodeDetail {
        match self.find_node(node).and_then(|id| self.nodes.get(&id)) {
            Some(node) => self.detail_of(node),
            None => NodeDetail { reason: Some("never seen"), ..self.detail_of(&Node::new(node.clone())) },
        }
    }

    /// Everything about every node of the organization that the server knows, offline ones too, by name.
    pub fn node_details(&self, org: &OrgId) -> Vec<NodeDetail> {
        let names = self.by_name.get(org).into_iter().flatten();
        let nodes = names.filter_map(|(_, id)| self.nodes.get(id));
        let mut details: Vec<_> = nodes.map(|node| self.detail_of(node)).collect();
        details.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        details
    }

    /// What should be looked at, of all nodes, by organization and name; at most `limit` nodes.
    pub fn node_warnings(&self, limit: usize) -> Vec<(NodeRef, Vec<NodeWarning>)> {
        let all = self.nodes.values().map(|node| (node, self.warnings_of(node)));
        let some = all.filter(|(_, warnings)| !warnings.is_empty());
        let mut found: Vec<_> = some.map(|(node, warnings)| (node.at.clone(), warnings)).collect();
        found.sort_unstable_by(|a, b| (&a.0.org, &a.0.node).cmp(&(&b.0.org, &b.0.node)));
        found.truncate(limit);
        found
    }

    /// How many nodes there are of each kind, over all organizations.
    pub fn node_counts(&self) -> NodeCounts {
        let mut counts = NodeCounts::default();
        for node in self.nodes.values() {
            let count = match node.phase {
                NodePhase::Absent => &mut counts.offline,
                NodePhase::Restored => &mut counts.expected,
                NodePhase::Rehab => &mut counts.rehab,
                NodePhase::Idle if node.is_available() => &mut counts.available,
                NodePhase::Idle => &mut counts.unavailable,
            };
            *count += 1;
            for warning in self.warnings_of(node) {
                let at = NodeWarning::KINDS.iter().position(|kind| *kind == warning.kind());
                if let Some(count) = at.and_then(|at| counts.warnings.get_mut(at)) {
                    *count += 1;
                }
            }
        }
        counts
    }

    /// Jobs that are not over, or whose end is not stored yet: what a graceful stop waits for.
    pub fn unfinished_jobs(&self) -> usize {
        self.jobs.values().filter(|job| job.phase() != Phase::Over || !job.gate.is_clean()).count()
    }
}
