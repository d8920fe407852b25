//! The nodes: who is there, who is well, who must be told to stop (section 5, decision 4).

use crate::ids::NodeRef;
use crate::message::Caps;
use crate::time::Millis;

use super::job_state::{Phase, Said};
use super::node_state::{self, NodeEvent, NodePhase, NodeStep};
use super::planted::PlantedBug;
use super::tables::{JobIx, Node, NodeId, Timer, ToNode};
use super::{ConnId, LogLevel, Server};

/// So many silent intervals make a node unavailable, or lost without a connection (5.4, D-69).
const SILENT_INTERVALS: u64 = 3;

impl Server {
    pub(super) fn find_node(&self, at: &NodeRef) -> Option<NodeId> {
        self.by_name.get(&at.org)?.get(&at.node).copied()
    }

    /// The node's entry, made if there is none.
    pub(super) fn intern_node(&mut self, at: &NodeRef) -> NodeId {
        if let Some(id) = self.find_node(at) {
            return id;
        }
        self.last_number += 1;
        let id = NodeId(self.last_number);
        self.by_name.entry(at.org.clone()).or_default().insert(at.node.clone(), id);
        self.nodes.insert(id, Node::new(at.clone()));
        id
    }

    /// Forgets a node that nothing refers to any more.
    pub(super) fn prune_node(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else { return };
        let needed = node.phase != NodePhase::Absent
            || node.conn.is_some()
            || !node.jobs.is_empty()
            || !node.keys.bound.is_empty()
            || !node.keys.superseded.is_empty();
        if needed {
            return;
        }
        let at = node.at.clone();
        self.nodes.remove(&id);
        self.timers.clear(&Timer::Life(id));
        self.timers.clear(&Timer::Rehab(id));
        self.timers.clear(&Timer::Expiry(id));
        if let Some(names) = self.by_name.get_mut(&at.org) {
            names.remove(&at.node);
            if names.is_empty() {
                self.by_name.remove(&at.org);
            }
        }
    }

    /// Carries out a row of the node table.
    pub(super) fn node_hears(&mut self, id: NodeId, event: NodeEvent) {
        let now = self.now.mono;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (from, connected) = (node.phase, node.conn.is_some());
        self.hit(|| format!("node: {from:?} × {event:?}"));
        let mut rule = node_state::on(from, event);
        if self.planted(PlantedBug::AbortKnownNode)
            && (from, rule.to) == (NodePhase::Restored, NodePhase::Idle)
        {
            rule = node_state::on(NodePhase::Absent, event);
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.phase = rule.to;
        self.views += u64::from(rule.to != from);
        match rule.to {
            NodePhase::Absent => {
                node.silent = false;
                node.incarnation = None;
                node.results = None;
                node.caps = Caps::NONE;
                node.doing = None;
                self.timers.clear(&Timer::Life(id));
            }
            NodePhase::Restored => {}
            NodePhase::Rehab | NodePhase::Idle if !from.is_live() => {
                node.life = now;
                let at = now + self.patience();
                self.timers.set(Timer::Life(id), at);
            }
            NodePhase::Rehab | NodePhase::Idle => {}
        }
        if rule.to != NodePhase::Rehab {
            self.timers.clear(&Timer::Rehab(id));
        }
        if rule.to != from {
            let text = match rule.to {
                NodePhase::Absent => "the node is offline",
                NodePhase::Restored => "the node is expected back",
                NodePhase::Rehab => "the node is told to give up whatever it does",
                NodePhase::Idle => "the node is available",
            };
            self.log(LogLevel::Info, Some(id), None, None, text.into());
        }
        for step in rule.steps {
            match step {
                NodeStep::Ack => self.send(id, ToNode::Ack),
                // Without a connection it is told when it has one again.
                NodeStep::Abort if connected => {
                    // Whoever was lost may still do what it was given up for: that is stored before it is stopped.
                    let stops = event == NodeEvent::RehabRequest || !self.end_is_unstored(id);
                    if stops {
                        self.send(id, ToNode::Abort);
                    }
                    if let Some(node) = self.nodes.get_mut(&id) {
                        node.abort_waits = !stops;
                    }
                    let at = now + Millis(self.config.rehab_timer.0.max(1));
                    self.timers.set(Timer::Rehab(id), at);
                }
                NodeStep::Abort => {}
                NodeStep::Mute => {
                    if let Some(node) = self.nodes.get_mut(&id) {
                        node.silent = true;
                    }
                }
                NodeStep::Down => self.node_down(id, event, None),
            }
        }
        self.note_availability(id);
        if rule.to == NodePhase::Absent {
            self.prune_node(id);
        }
    }

    /// Remembers since when the node is available, or is not.
    fn note_availability(&mut self, id: NodeId) {
        let now = self.now.mono;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let available = node.is_available();
        let turned = std::mem::replace(&mut node.was_available, available) != available;
        self.views += u64::from(turned);
        if turned || node.turned.is_none() {
            node.turned = Some(now);
        }
    }

    /// What the node's program calls itself.
    pub(super) fn described(&mut self, at: &NodeRef, client: &str) {
        let Some(node) = self.find_node(at).and_then(|id| self.nodes.get_mut(&id)) else { return };
        let clean: String = client.chars().filter(|c| (' '..='~').contains(c)).take(80).collect();
        let clean = clean.trim();
        if node.client.as_deref().unwrap_or_default() != clean {
            node.client = (!clean.is_empty()).then(|| clean.into());
        }
    }

    /// Sends the `abort` that waited for the store.
    pub(super) fn send_waiting_abort(&mut self, id: NodeId) {
        let waits = self.nodes.get(&id).is_some_and(|n| n.abort_waits && n.phase == NodePhase::Rehab);
        if waits && !self.end_is_unstored(id) {
            self.node_hears(id, NodeEvent::RehabTimer);
        }
    }

    /// Whether a job has ended for the node and the store does not have that yet.
    fn end_is_unstored(&self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get(&id) else { return false };
        node.jobs.iter().filter_map(|ix| self.jobs.get(ix)).any(|job| {
            let member = job.index.get(&id).and_then(|at| job.nodes.get(*at as usize));
            !job.gate.is_clean() && member.is_some_and(|m| m.status.is_terminal())
        })
    }

    /// Its jobs see the node go down, except one that is its next life's.
    pub(super) fn node_down(&mut self, id: NodeId, event: NodeEvent, except: Option<JobIx>) {
        let Some(node) = self.nodes.get(&id) else { return };
        let why = self.why_down(node, event);
        let jobs: Vec<JobIx> = node.jobs.iter().copied().filter(|ix| Some(*ix) != except).collect();
        for ix in jobs {
            self.steps += 1;
            self.job_hears(ix, id, Said::Down, Some(why.clone()));
        }
    }

    /// How long a node may be silent.
    pub(super) fn patience(&self) -> Millis {
        Millis(self.config.heartbeat_interval.0.max(1).saturating_mul(SILENT_INTERVALS))
    }

    /// Until then silence without a connection ends no job: nodes need their time to find a restarted server (decision 4).
    pub(super) fn grace_end(&self) -> Millis {
        self.started + Millis(self.config.heartbeat_interval.0.saturating_mul(2)) + Millis::from_secs(120)
    }

    /// Whether a job goes on with this node.
    pub(super) fn has_active_job(&self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get(&id) else { return false };
        node.jobs.iter().filter_map(|ix| self.jobs.get(ix)).any(|job| {
            let member = job.index.get(&id).and_then(|at| job.nodes.get(*at as usize));
            job.phase() != Phase::Over && member.is_some_and(|m| !m.status.is_terminal())
        })
    }

    /// Any authenticated message is a sign of life (decision 4).
    pub(super) fn node_lives(&mut self, id: NodeId) {
        let patience = self.patience();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        // The deadline itself is moved when it comes due: most messages cost nothing here.
        node.life = self.now.mono;
        node.heard = Some(self.now.mono);
        if std::mem::take(&mut node.silent) {
            self.timers.set(Timer::Life(id), self.now.mono + patience);
            self.note_availability(id);
        }
    }

    pub(super) fn life_due(&mut self, id: NodeId) {
        let (patience, grace) = (self.patience(), self.grace_end());
        let Some(node) = self.nodes.get(&id) else { return };
        let mut due = node.life + patience;
        let busy = self.has_active_job(id);
        // One that was heard since the start has found this server: losing it again means what it always means (G10).
        if node.conn.is_none() && node.phase == NodePhase::Restored {
            due = due.max(grace);
        }
        if due > self.now.mono {
            self.timers.set(Timer::Life(id), due);
            return;
        }
        let event = if node.conn.is_none() || self.planted(PlantedBug::SilenceEndsJob) {
            NodeEvent::Lost
        } else if node.results.is_none() && !busy && node.phase.is_live() {
            NodeEvent::NeverHeard
        } else {
            NodeEvent::Silent
        };
        let text = match event {
            NodeEvent::Lost => "the node is lost: silent and without a connection",
            NodeEvent::NeverHeard => "the node never sent a heartbeat",
            _ => "the node is silent",
        };
        self.log(LogLevel::Info, Some(id), None, None, text.into());
        self.node_hears(id, event);
    }

    /// Makes `conn` the connection of its node; closes the one it had.
    pub(super) fn node_connected(&mut self, id: NodeId, conn: ConnId) -> Option<ConnId> {
        let patience = self.patience();
        let node = self.nodes.get_mut(&id)?;
        let old = node.conn.replace(conn);
        node.life = self.now.mono;
        if node.phase != NodePhase::Absent {
            self.timers.set(Timer::Life(id), self.now.mono + patience);
        }
        self.note_availability(id);
        old.filter(|old| *old != conn)
    }

    /// The node has lost its connection: from now on the down rule counts.
    pub(super) fn node_disconnected(&mut self, id: NodeId, conn: ConnId) {
        let patience = self.patience();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.conn != Some(conn) {
            return self.reads_are_lost(id, conn);
        }
        node.conn = None;
        node.life = self.now.mono;
        self.reads_are_lost(id, conn);
        self.note_availability(id);
        let Some(node) = self.nodes.get(&id) else { return };
        if node.phase == NodePhase::Absent {
            self.prune_node(id);
        } else {
            self.timers.set(Timer::Life(id), self.now.mono + patience);
        }
        self.timers.clear(&Timer::Rehab(id));
    }
}
