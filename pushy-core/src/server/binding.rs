//! Who may speak for which node: a binding is a node, a CURVE key and a session key that belong together (decision 6).

use crate::auth::PublicKey;
use crate::error::{Error, ErrorCode};
use crate::ids::{NodeRef, OrgName};
use crate::message::Caps;
use crate::node_config::{self, NodeConfig};
use crate::time::Millis;
use crate::wire::SessionKey;

use super::node_state::NodeEvent;
use super::planted::PlantedBug;
use super::tables::{Bound, Conn, Gated, NodeId, Queued, Timer, ToNode};
use super::{Binding, ConnId, CurveKey, LogLevel, Output, Record, RefusedKey, RequestId, Server};

/// So many superseded keys of a node are remembered, to name it when one knocks (decision 5).
const SUPERSEDED: usize = 5;
/// So many keys of a node may wait for their first handshake.
const WAITING: usize = 4;
const REFUSAL_LOG: Millis = Millis::from_secs(60);
/// So many addresses are remembered with their last fetch, the youngest.
const FETCHERS: usize = 4096;
/// How long a fetch is remembered: whoever is refused has come soon after it, or never asked.
const FETCH_KNOWN: Millis = Millis::from_secs(3_600);

impl Server {
    /// A configuration is asked for (2.4.2): same CURVE key, same session key; another CURVE key, another binding.
    pub(super) fn fetch_config(
        &mut self,
        request: RequestId,
        at: NodeRef,
        org_name: OrgName,
        key: CurveKey,
        public_key: &str,
        is_node: bool,
    ) {
        match self.make_config(&at, org_name, key, public_key, is_node) {
            Err(error) => {
                self.out.push_back(Queued::Ready(Output::ConfigFailed { request, error }));
            }
            Ok((None, body)) => self.out.push_back(Queued::Ready(Output::Config { request, body })),
            Ok((Some(node), body)) => {
                self.once_bindings_stored(Gated::Config { request, body, node, key });
            }
        }
    }

    fn make_config(
        &mut self,
        at: &NodeRef,
        org_name: OrgName,
        key: CurveKey,
        public_key: &str,
        is_node: bool,
    ) -> crate::Result<(Option<NodeId>, String)> {
        let requester =
            PublicKey::from_pem(public_key).map_err(|e| e.context("the requester's public key"))?;
        if !is_node {
            // D-09: a key that fits nothing.
            let session = SessionKey::generate(&mut *self.random);
            return Ok((None, self.config_text(at, &org_name, &session, &requester)?));
        }
        let known = self.find_node(at);
        if self.by_key.get(&key).is_some_and(|owner| Some(*owner) != known) {
            return Err(Error::new(
                ErrorCode::InvalidKey,
                "this CURVE key belongs to another node; restart the agent to make a new one",
            ));
        }
        let session = known
            .and_then(|id| self.nodes.get(&id))
            .and_then(|node| node.keys.bound.iter().find(|b| b.key == key))
            .map(|bound| bound.session.clone());
        let session = session.unwrap_or_else(|| SessionKey::generate(&mut *self.random));
        let body = self.config_text(at, &org_name, &session, &requester)?;
        let id = self.intern_node(at);
        self.by_key.insert(key, id);
        self.note_client_key(id, public_key);
        let (now, fetched_at) = (self.now.mono, self.now.wall);
        let Some(node) = self.nodes.get_mut(&id) else {
            return Err(Error::new(ErrorCode::Internal, "the node's entry is gone"));
        };
        node.keys.fetched = now;
        node.keys.superseded.retain(|(old, _)| *old != key);
        let active = match node.keys.bound.iter_mut().find(|b| b.key == key) {
            Some(bound) => {
                bound.fetched_at = fetched_at;
                bound.org_name = org_name.clone();
                bound.active
            }
            None => {
                node.keys.bound.push(Bound {
                    key,
                    session: session.clone(),
                    org_name: org_name.clone(),
                    fetched_at,
                    active: false,
                    stored: false,
                });
                false
            }
        };
        let crowd = node.keys.bound.iter().filter(|b| !b.active).count() > WAITING;
        let oldest = node.keys.bound.iter().find(|b| !b.active).map(|b| b.key);
        if let (true, Some(oldest)) = (crowd, oldest) {
            self.end_key(id, oldest, "newer keys were asked for before it was used");
        }
        self.timers.set(Timer::Expiry(id), now + self.binding_lifetime());
        let binding = Binding { node: at.clone(), org_name, key, session, fetched_at, active };
        self.bindings.record(Record::Binding(binding));
        Ok((Some(id), body))
    }

    fn config_text(
        &mut self,
        at: &NodeRef,
        org_name: &OrgName,
        session: &SessionKey,
        requester: &PublicKey,
    ) -> crate::Result<String> {
        let encoded = node_config::wrap_session_key(session, requester, &mut *self.random)?;
        let config = NodeConfig {
            host: self.config.host.clone(),
            heartbeat_addr: self.config.heartbeat_addr.clone(),
            command_addr: self.config.command_addr.clone(),
            interval: self.config.heartbeat_interval,
            offline_threshold: node_config::OFFLINE_THRESHOLD,
            online_threshold: node_config::ONLINE_THRESHOLD,
            node: at.node.as_str().to_owned(),
            organization: org_name.as_str().to_owned(),
            public_key: self.public_key.clone(),
            curve_public_key: Some(self.keys.curve_public),
            encoded_session_key: encoded,
            lifetime: self.config.config_lifetime,
            max_message_skew: self.config.max_message_skew,
            max_body_size: Some(self.config.max_body_size),
            incarnation: self.keys.incarnation.clone(),
            caps: Some(if self.config.nodes { Caps::OF_SERVER.with(Caps::NODES) } else { Caps::OF_SERVER }),
        };
        Ok(config.to_json())
    }

    pub(super) fn binding_stored(&mut self, node: NodeId, key: CurveKey) {
        let Some(node) = self.nodes.get_mut(&node) else { return };
        if let Some(bound) = node.keys.bound.iter_mut().find(|b| b.key == key) {
            bound.stored = true;
        }
    }

    /// The look-up that decides about a handshake: there is no way around it (decision 12.7).
    pub(super) fn handshake(&mut self, conn: ConnId, key: CurveKey, peer: String) {
        let owner = self.by_key.get(&key).copied();
        let node = owner.and_then(|id| Some((id, self.nodes.get_mut(&id)?)));
        let why = match node {
            None => {
                let why = "the key was never announced by a configuration request";
                (RefusedKey::Unknown, why.to_owned())
            }
            Some((id, node)) => match node.keys.bound.iter().find(|b| b.key == key) {
                Some(bound) if bound.stored => {
                    let accepted = Conn {
                        node: id,
                        key,
                        session: bound.session.clone(),
                        org_name: bound.org_name.clone(),
                        peer,
                        opened: None,
                        greeted: false,
                        sequence: None,
                        drained: false,
                    };
                    node.conns.insert(conn);
                    self.conns.insert(conn, accepted);
                    self.out.push_back(Queued::Ready(Output::Accept { conn }));
                    return;
                }
                Some(_) => (RefusedKey::NotStored, "its configuration is not stored yet".to_owned()),
                None => {
                    let why = node.keys.superseded.iter().rev().find(|(old, _)| *old == key);
                    let why = why.map_or("its key is no longer bound", |(_, why)| why);
                    (RefusedKey::Superseded, why.to_owned())
                }
            },
        };
        let (reason, why) = why;
        self.out.push_back(Queued::Ready(Output::Refuse { conn, reason }));
        if let (Some(id), RefusedKey::Superseded) = (owner, reason) {
            self.note_old_key(id, &peer);
        }
        self.log_refusal(owner, key, peer, &why);
    }

    /// Remembers who fetched its configuration from an address (decision 5).
    pub(super) fn note_fetch(&mut self, at: &NodeRef, address: String) {
        let now = self.now.mono;
        if address.is_empty() {
            return;
        }
        if self.fetchers.len() >= FETCHERS && !self.fetchers.contains_key(&address) {
            self.fetchers.retain(|_, (_, when)| now - *when < FETCH_KNOWN);
            if self.fetchers.len() >= FETCHERS {
                self.fetchers.clear();
            }
        }
        self.fetchers.insert(address, (at.node.clone(), now));
    }

    /// One line for each key or address and minute (decision 5).
    fn log_refusal(&mut self, owner: Option<NodeId>, key: CurveKey, peer: String, why: &str) {
        let now = self.now.mono;
        let address = peer.rsplit_once(':').map_or(peer.as_str(), |(host, _)| host);
        let subject = match owner {
            Some(_) => format!("{key:?}"),
            None => address.to_owned(),
        };
        if self.refusals.get(&subject).is_some_and(|at| now - *at < REFUSAL_LOG) {
            return;
        }
        if self.refusals.len() >= 1024 {
            self.refusals.retain(|_, at| now - *at < REFUSAL_LOG);
            if self.refusals.len() >= 1024 {
                return;
            }
        }
        let address = address.trim_matches(['[', ']']);
        let fetch = match self.fetchers.get(address) {
            Some((node, at)) if owner.is_none() && now - *at < FETCH_KNOWN => {
                let ago = (now - *at).0 / 1000;
                format!("; the last configuration fetched from {address} was {node}'s, {ago} s ago")
            }
            None if owner.is_none() => {
                format!("; no configuration was fetched from {address} within an hour")
            }
            _ => String::new(),
        };
        self.refusals.insert(subject, now);
        let text = format!("a handshake with {key:?} is refused: {why}{fetch}");
        self.log(LogLevel::Warn, owner, None, Some(peer), text);
    }

    /// A handshake is complete: its key is the node's own from now on, its connection the node's only one.
    pub(super) fn opened(&mut self, conn: ConnId) {
        let Some(opened) = self.conns.get_mut(&conn) else { return };
        opened.opened = Some(self.now.mono);
        let (id, key, peer) = (opened.node, opened.key, opened.peer.clone());
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(bound) = node.keys.bound.iter_mut().find(|b| b.key == key) else {
            return self.close(conn);
        };
        if !bound.active {
            bound.active = true;
            let binding = Binding {
                node: node.at.clone(),
                org_name: bound.org_name.clone(),
                key,
                session: bound.session.clone(),
                fetched_at: bound.fetched_at,
                active: true,
            };
            let others = node.keys.bound.iter().filter(|b| b.active && b.key != key);
            let before: Vec<CurveKey> = others.map(|b| b.key).collect();
            self.bindings.record(Record::Binding(binding));
            for before in before {
                self.note_takeover(id, key, before, &peer);
                self.end_key(id, before, "another key of the node has taken over");
            }
        }
        self.note_claim(id, conn, None);
        if let Some(old) = self.node_connected(id, conn) {
            self.close(old);
        }
        // Said at once, not only to the first message: an original client that believes the server gone says
        // nothing and goes deaf unless it hears something within 4 s (1.3 step 10, D-54).
        self.send(id, ToNode::Ack);
        if self.planted(PlantedBug::CommitResentBlindly) {
            self.forget_commits(id);
        }
    }

    fn forget_commits(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else { return };
        for ix in node.jobs.clone() {
            if let Some(member) = self.member(ix, id) {
                member.commit_on = None;
            }
            self.bulk.push_back(super::Bulk::One(ix, id));
        }
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, conn: ConnId) {
        let Some(gone) = self.conns.remove(&conn) else { return };
        if let Some(node) = self.nodes.get_mut(&gone.node) {
            node.conns.remove(&conn);
        }
        self.node_disconnected(gone.node, conn);
    }

    fn close(&mut self, conn: ConnId) {
        self.out.push_back(Queued::Ready(Output::Close { conn }));
        self.closed(conn);
    }

    /// A key may not speak for its node any more; its connections end.
    fn end_key(&mut self, id: NodeId, key: CurveKey, why: &str) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.keys.bound.retain(|b| b.key != key);
        node.keys.superseded.push_back((key, why.to_owned()));
        if node.keys.superseded.len() > SUPERSEDED {
            if let Some((forgotten, _)) = node.keys.superseded.pop_front() {
                self.by_key.remove(&forgotten);
            }
        }
        self.bindings.record(Record::BindingEnded { node: node.at.clone(), key });
        let conns: Vec<ConnId> = node.conns.iter().copied().collect();
        for conn in conns {
            if self.conns.get(&conn).is_some_and(|c| c.key == key) {
                self.close(conn);
            }
        }
    }

    /// All bindings of a node end.
    pub(super) fn end_bindings(&mut self, at: &NodeRef, why: &str) {
        let Some(id) = self.find_node(at) else { return };
        let Some(node) = self.nodes.get(&id) else { return };
        let keys: Vec<CurveKey> = node.keys.bound.iter().map(|b| b.key).collect();
        if keys.is_empty() {
            return;
        }
        for key in keys {
            self.end_key(id, key, why);
        }
        self.timers.clear(&Timer::Expiry(id));
        self.log(LogLevel::Info, Some(id), None, None, format!("the node's keys end: {why}"));
        // Nothing can be heard of it any more, so it is not waited for.
        self.node_hears(id, NodeEvent::Lost);
    }

    pub(super) fn binding_lifetime(&self) -> Millis {
        Millis::from_secs(u64::from(self.config.config_lifetime).saturating_mul(2).max(1))
    }

    /// No configuration was fetched for a long time: the node is gone, or has lost its right to one.
    pub(super) fn binding_expiry_due(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else { return };
        let mut due = node.keys.fetched + self.binding_lifetime();
        if due <= self.now.mono && self.has_active_job(id) {
            due = self.now.mono + Millis(self.config.heartbeat_interval.0.max(1000));
        }
        if due > self.now.mono {
            self.timers.set(Timer::Expiry(id), due);
            return;
        }
        let at = node.at.clone();
        self.end_bindings(&at, "no configuration was fetched for twice its lifetime");
    }
}
