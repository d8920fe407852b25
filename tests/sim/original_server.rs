//! The original server's behaviour (4.5–4.9, 5, 6), as a peer for our agents: nothing survives a restart, nodes it does not know
//! are told to abort, no acknowledgement of results, a node that repeats itself goes to rehab.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgId, OrgName};
use pushy_core::job::{Job, JobRequest, JobStatus, NodeStatus};
use pushy_core::message::{Commit, FromNode, JobRef, NodeMessage, ServerMessage};
use pushy_core::node_config::{self, NodeConfig};
use pushy_core::server::{CurveKey, Record, RequestId};
use pushy_core::time::Millis;
use pushy_core::wire::{self, RsaSigner, SessionKey};
use pushy_core::zmtp::{CurveSecret, Event as PeerEvent, Limits, Peer, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::net::{LinkId, Port};
use crate::server_host::{Wish, clock};
use crate::store::Store;
use crate::world::INTERVAL;

const VOTING: u64 = 6_000;
const REHAB: u64 = 1_000;
const ALLOWED: u64 = 60_000;

struct NodeFsm {
    link: LinkId,
    incarnation: Option<IncarnationId>,
    idle: bool,
    abort_at: u64,
    heard_at: u64,
    sequence: u64,
}

struct JobFsm {
    ends_at: u64,
    request: JobRequest,
}

struct Life {
    secret: Arc<CurveSecret>,
    incarnation: IncarnationId,
    allowed: BTreeMap<[u8; 32], u64>,
    sessions: BTreeMap<NodeName, SessionKey>,
    conns: BTreeMap<LinkId, (Port, Peer)>,
    nodes: BTreeMap<NodeName, NodeFsm>,
    jobs: BTreeMap<JobId, JobFsm>,
    beat_at: u64,
    beats: u64,
}

/// One host with an original server.
pub struct OriginalServer {
    life: Option<Life>,
    signer: RsaSigner,
    public_pem: String,
    /// What it keeps; written at once.
    pub store: Store,
    /// The organization.
    pub org: (OrgId, OrgName),
    /// Wall clock minus simulated time, in seconds.
    pub clock_offset: i64,
    next_request: u64,
    random: ChaCha8Rng,
}

impl OriginalServer {
    /// A server that is not started.
    pub fn new(signing: &str, seed: u64) -> OriginalServer {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let signer = RsaSigner::from_pem(signing).expect("a good key");
        let org = (OrgId::generate(&mut random), OrgName::new("sim").expect("a valid name"));
        let public_pem = signer.public_pem().expect("a good key");
        OriginalServer {
            life: None,
            signer,
            public_pem,
            store: Store::default(),
            org,
            clock_offset: 0,
            next_request: 0,
            random,
        }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// The process starts: new keys, every unfinished job is crashed (6.9).
    pub fn start(&mut self, now: u64, _wishes: &mut [Wish]) {
        for job in self.store.stored.jobs.values_mut().filter(|j| !j.status.is_terminal()) {
            job.status = JobStatus::Crashed;
            for (_, status) in job.nodes.iter_mut().filter(|(_, s)| !s.is_terminal()) {
                *status = NodeStatus::Crashed;
            }
        }
        self.life = Some(Life {
            secret: Arc::new(CurveSecret::generate(&mut self.random)),
            incarnation: IncarnationId::generate(&mut self.random),
            allowed: BTreeMap::new(),
            sessions: BTreeMap::new(),
            conns: BTreeMap::new(),
            nodes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            beat_at: now + INTERVAL,
            beats: 0,
        });
    }

    /// The process dies.
    pub fn crash(&mut self) -> Vec<LinkId> {
        self.life.take().map(|l| l.conns.into_keys().collect()).unwrap_or_default()
    }

    /// A client connected.
    pub fn accept(&mut self, now: u64, link: LinkId, port: Port, wishes: &mut Vec<Wish>) {
        let Some(life) = &mut self.life else { return };
        let role = match port {
            Port::Command => Role::Router { secret: Arc::clone(&life.secret) },
            Port::Heartbeat => Role::Publisher,
        };
        let peer = Peer::new(role, Limits { max_body: 65_536, ping: None }, Millis(now), &mut self.random);
        life.conns.insert(link, (port, peer));
        life.flush(link, wishes);
    }

    /// A stream is gone. The original does not notice: a node is what its messages say.
    pub fn gone(&mut self, link: LinkId) {
        if let Some(life) = &mut self.life {
            life.conns.remove(&link);
        }
    }

    /// Bytes arrived.
    pub fn receive(&mut self, now: u64, link: LinkId, bytes: &[u8], wishes: &mut Vec<Wish>) {
        let mut rest = bytes;
        loop {
            let Some(life) = &mut self.life else { return };
            let Some((_, peer)) = life.conns.get_mut(&link) else { return };
            match peer.receive(Millis(now), &mut rest) {
                Ok(None) => break,
                Ok(Some(PeerEvent::Authenticate { key })) => {
                    if life.allowed.get(&key.0).is_some_and(|until| now <= *until) {
                        let _ = peer.accept(Millis(now));
                    }
                }
                Ok(Some(PeerEvent::Opened)) => {}
                Ok(Some(PeerEvent::Message { header, body })) => {
                    wishes.push(Wish::Heard(link, header.clone(), body.clone()));
                    self.heard(now, link, &header, &body, wishes);
                }
                Err(_) => {
                    life.conns.remove(&link);
                    wishes.push(Wish::Close(link));
                    return;
                }
            }
        }
        if let Some(life) = &mut self.life {
            life.flush(link, wishes);
        }
    }

    /// A node asks for its configuration: its key is allowed for a minute, its session key never changes.
    pub fn fetch(
        &mut self,
        now: u64,
        node: &NodeName,
        key: CurveKey,
        public: &str,
        w: &mut Vec<Wish>,
    ) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let Some(life) = &mut self.life else { return request };
        life.allowed.insert(key.0, now + ALLOWED);
        let session = life
            .sessions
            .entry(node.clone())
            .or_insert_with(|| SessionKey::generate(&mut self.random))
            .clone();
        let public = pushy_core::auth::PublicKey::from_pem(public).expect("a good key");
        let config = NodeConfig {
            host: "push".into(),
            heartbeat_addr: "tcp://push:10000".into(),
            command_addr: "tcp://push:10002".into(),
            interval: Millis(INTERVAL),
            offline_threshold: node_config::OFFLINE_THRESHOLD,
            online_threshold: node_config::ONLINE_THRESHOLD,
            node: node.to_string(),
            organization: self.org.1.to_string(),
            public_key: self.public_pem.clone(),
            curve_public_key: Some(life.secret.public()),
            encoded_session_key: node_config::wrap_session_key(&session, &public, &mut self.random)
                .expect("a good key"),
            lifetime: 40,
            max_message_skew: 300,
            max_body_size: Some(65_536),
            incarnation: life.incarnation.clone(),
            caps: None,
        };
        w.push(Wish::Config(request, Some(config.to_json())));
        request
    }

    /// An operator asks for a job.
    pub fn start_job(&mut self, now: u64, request: JobRequest, wishes: &mut Vec<Wish>) {
        let id = JobId::generate(&self.org.0, &mut self.random);
        let Some(life) = &mut self.life else { return };
        let at = clock(now, 0).wall;
        let job = Job {
            id: id.clone(),
            org: self.org.0.clone(),
            command: request.command.clone(),
            status: JobStatus::Voting,
            run_timeout: request.run_timeout.unwrap_or(20),
            quorum: request.quorum.unwrap_or(request.nodes.len() as u32),
            requester: "operator".into(),
            created_at: at,
            updated_at: at,
            deadline: None,
            options: request.options.clone(),
            nodes: request.nodes.iter().map(|n| (n.clone(), NodeStatus::New)).collect(),
            reasons: BTreeMap::new(),
        };
        self.store.stored.apply(&[Record::NewJob(Box::new(job))]).expect("a new id");
        wishes.push(Wish::Job(Some(id.clone())));
        let names = request.nodes.clone();
        let commit = ServerMessage::Commit(Box::new(Commit {
            job: id.clone(),
            server: "push".into(),
            command: request.command.clone(),
            options: request.options.clone(),
            run_timeout: None,
        }));
        life.jobs.insert(id.clone(), JobFsm { ends_at: now + VOTING, request });
        for node in &names {
            self.send(now, node, &commit, wishes);
        }
        for node in &names {
            if !self.life.as_ref().is_some_and(|l| l.nodes.get(node).is_some_and(|n| n.idle)) {
                self.job_event(now, &id, node, &Told::Down, wishes);
            }
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        self.beat(now, wishes);
        let Some(life) = &mut self.life else { return };
        let silent: Vec<NodeName> = life
            .nodes
            .iter()
            .filter(|(_, n)| n.heard_at + 5 * INTERVAL <= now)
            .map(|(name, _)| name.clone())
            .collect();
        let aborts: Vec<NodeName> = life
            .nodes
            .iter()
            .filter(|(_, n)| !n.idle && n.abort_at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        let ended: Vec<JobId> =
            life.jobs.iter().filter(|(_, j)| j.ends_at <= now).map(|(id, _)| id.clone()).collect();
        for node in silent {
            self.down(now, &node, wishes);
        }
        for node in aborts {
            self.rehab(now, &node, wishes);
        }
        for id in ended {
            self.timer(now, &id, wishes);
        }
    }

    /// When [`OriginalServer::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        let life = self.life.as_ref()?;
        let nodes = life
            .nodes
            .values()
            .flat_map(|n| [Some(n.heard_at + 5 * INTERVAL), (!n.idle).then_some(n.abort_at)])
            .flatten();
        nodes.chain(life.jobs.values().map(|j| j.ends_at)).chain([life.beat_at]).min()
    }

    /// Nodes that would take a job.
    pub fn available(&self) -> Vec<NodeName> {
        let nodes = self.life.iter().flat_map(|l| &l.nodes);
        nodes.filter(|(_, n)| n.idle).map(|(name, _)| name.clone()).collect()
    }

    fn beat(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        let Some(life) = self.life.as_mut().filter(|l| l.beat_at <= now) else { return };
        life.beat_at = now + INTERVAL;
        let message =
            ServerMessage::Heartbeat { server: "push".into(), incarnation: Some(life.incarnation.clone()) };
        let body = message.encode(life.beats, clock(now, self.clock_offset).wall);
        life.beats += 1;
        let header = self.signer.header(&body).expect("a good key");
        let links: Vec<LinkId> = life
            .conns
            .iter_mut()
            .filter(|(_, (port, peer))| *port == Port::Heartbeat && peer.is_subscribed())
            .filter_map(|(link, (_, peer))| peer.send(&header, &body).is_ok().then_some(*link))
            .collect();
        for link in links {
            life.flush(link, wishes);
        }
    }

    fn heard(&mut self, now: u64, link: LinkId, header: &[u8], body: &[u8], wishes: &mut Vec<Wish>) {
        let Some(life) = &mut self.life else { return };
        let Some(name) = FromNode::decode(body).ok().and_then(|m| NodeName::new(&m.node).ok()) else {
            return;
        };
        let Some(session) = life.sessions.get(&name) else { return };
        let limits = wire::Limits { max_body: 65_536, max_skew: 300 };
        let at = clock(now, self.clock_offset).wall;
        let Ok(message) = wire::open_from_node(session, limits, at, header, body) else { return };
        let (incarnation, message) = (message.incarnation.clone(), message.message);
        match life.nodes.get_mut(&name) {
            None => {
                let fsm = NodeFsm {
                    link,
                    incarnation: incarnation.clone(),
                    idle: false,
                    abort_at: now,
                    heard_at: now,
                    sequence: 0,
                };
                life.nodes.insert(name.clone(), fsm);
                self.rehab(now, &name, wishes);
            }
            Some(node) => {
                let moved = node.link != link;
                node.link = link;
                if moved {
                    self.send(now, &name, &ServerMessage::Ack, wishes);
                }
            }
        }
        self.understand(now, &name, incarnation, message, wishes);
    }

    fn understand(
        &mut self,
        now: u64,
        name: &NodeName,
        incarnation: Option<IncarnationId>,
        message: NodeMessage,
        wishes: &mut Vec<Wish>,
    ) {
        let Some(life) = &mut self.life else { return };
        let Some(node) = life.nodes.get_mut(name) else { return };
        let job = message.job().id().cloned();
        let known = job.as_ref().is_some_and(|j| life.jobs.contains_key(j));
        match message {
            NodeMessage::Heartbeat { job: named, .. } => {
                if node.incarnation != incarnation {
                    return self.down(now, name, wishes);
                }
                node.heard_at = now;
                if named != JobRef::None && !known && node.idle {
                    self.rehab(now, name, wishes);
                }
            }
            NodeMessage::Aborted { .. } => {
                node.idle = true;
                if let (Some(job), true) = (job, known) {
                    self.job_event(now, &job, name, &Told::Other, wishes);
                }
            }
            NodeMessage::Unknown { .. } => {}
            told => match (job, known) {
                (Some(job), true) => {
                    let told = match told {
                        NodeMessage::AckCommit { .. } => Told::AckCommit,
                        NodeMessage::NackCommit { .. } => Told::NackCommit,
                        NodeMessage::AckRun { .. } => Told::AckRun,
                        NodeMessage::NackRun { .. } => Told::NackRun,
                        NodeMessage::Succeeded { .. } => Told::Ended(true),
                        NodeMessage::Failed { .. } => Told::Ended(false),
                        _ => Told::Other,
                    };
                    self.job_event(now, &job, name, &told, wishes);
                }
                _ if node.idle => self.rehab(now, name, wishes),
                _ => {}
            },
        }
    }

    fn down(&mut self, now: u64, name: &NodeName, wishes: &mut Vec<Wish>) {
        let Some(life) = &mut self.life else { return };
        life.nodes.remove(name);
        let jobs: Vec<JobId> = life
            .jobs
            .iter()
            .filter(|(_, j)| j.request.nodes.contains(name))
            .map(|(id, _)| id.clone())
            .collect();
        for id in jobs {
            self.job_event(now, &id, name, &Told::Down, wishes);
        }
    }

    fn rehab(&mut self, now: u64, name: &NodeName, wishes: &mut Vec<Wish>) {
        let Some(node) = self.life.as_mut().and_then(|l| l.nodes.get_mut(name)) else { return };
        node.idle = false;
        node.abort_at = now + REHAB;
        self.send(now, name, &ServerMessage::Abort, wishes);
    }

    /// The cells of 6.4 and 6.5.
    fn job_event(&mut self, now: u64, id: &JobId, name: &NodeName, told: &Told, wishes: &mut Vec<Wish>) {
        let Some(job) = self.store.stored.jobs.get_mut(id) else { return };
        let voting = job.status == JobStatus::Voting;
        let Some((_, status)) = job.nodes.iter_mut().find(|(n, _)| n == name) else { return };
        let (next, rehab) = match (voting, *status, told) {
            (true, NodeStatus::New, Told::AckCommit) => (NodeStatus::Ready, false),
            (true, NodeStatus::Ready, Told::AckCommit) => (NodeStatus::Ready, false),
            (true, NodeStatus::New, Told::NackCommit) => (NodeStatus::Nacked, false),
            (true, NodeStatus::New | NodeStatus::Ready, _) => (NodeStatus::Unavailable, true),
            (false, NodeStatus::Ready, Told::AckRun) => (NodeStatus::Running, false),
            (false, NodeStatus::Running, Told::AckRun) => (NodeStatus::Running, false),
            (false, NodeStatus::Ready | NodeStatus::Running, Told::NackRun) => (NodeStatus::Failed, true),
            (false, NodeStatus::Running, Told::Ended(true)) => (NodeStatus::Succeeded, false),
            (false, NodeStatus::Running, Told::Ended(false)) => (NodeStatus::Failed, false),
            (false, NodeStatus::Ready | NodeStatus::Running, _) => (NodeStatus::Crashed, true),
            (_, ended, _) => (ended, true),
        };
        *status = next;
        if rehab {
            self.rehab(now, name, wishes);
        }
        self.judge(now, id, wishes);
    }

    fn judge(&mut self, now: u64, id: &JobId, wishes: &mut Vec<Wish>) {
        let Some(job) = self.store.stored.jobs.get_mut(id) else { return };
        let names = |of: &[NodeStatus]| -> Vec<NodeName> {
            job.nodes.iter().filter(|(_, s)| of.contains(s)).map(|(n, _)| n.clone()).collect()
        };
        if job.status == JobStatus::Voting && names(&[NodeStatus::New]).is_empty() {
            let ready = names(&[NodeStatus::Ready]);
            if ready.len() as u32 >= job.quorum {
                job.status = JobStatus::Running;
                let won = job.clone();
                let ends_at = now + u64::from(job.run_timeout) * 1000;
                self.store.stored.won.push(won);
                if let Some(fsm) = self.life.as_mut().and_then(|l| l.jobs.get_mut(id)) {
                    fsm.ends_at = ends_at;
                }
                for node in &ready {
                    self.send(now, node, &ServerMessage::Run { job: id.clone() }, wishes);
                }
                self.judge(now, id, wishes);
            } else {
                self.finish(now, id, JobStatus::QuorumFailed, NodeStatus::WasReady, wishes);
            }
        } else if job.status == JobStatus::Running
            && names(&[NodeStatus::Ready, NodeStatus::Running]).is_empty()
        {
            self.finish(now, id, JobStatus::Complete, NodeStatus::Crashed, wishes);
        }
    }

    fn timer(&mut self, now: u64, id: &JobId, wishes: &mut Vec<Wish>) {
        let Some(job) = self.store.stored.jobs.get_mut(id) else { return };
        if job.status == JobStatus::Voting {
            let silent: Vec<NodeName> =
                job.nodes.iter().filter(|(_, s)| *s == NodeStatus::New).map(|(n, _)| n.clone()).collect();
            for node in silent {
                self.job_event(now, id, &node, &Told::Down, wishes);
            }
        } else {
            self.finish(now, id, JobStatus::TimedOut, NodeStatus::TimedOut, wishes);
        }
    }

    fn finish(&mut self, now: u64, id: &JobId, status: JobStatus, rest: NodeStatus, wishes: &mut Vec<Wish>) {
        let Some(job) = self.store.stored.jobs.get_mut(id).filter(|j| !j.status.is_terminal()) else {
            return;
        };
        job.status = status;
        let mut open = Vec::new();
        for (node, status) in job.nodes.iter_mut().filter(|(_, s)| !s.is_terminal()) {
            *status = rest;
            open.push(node.clone());
        }
        if let Some(life) = &mut self.life {
            life.jobs.remove(id);
        }
        for node in open {
            self.rehab(now, &node, wishes);
        }
    }

    fn send(&mut self, now: u64, name: &NodeName, message: &ServerMessage, wishes: &mut Vec<Wish>) {
        let at = clock(now, self.clock_offset).wall;
        let Some(life) = &mut self.life else { return };
        let (Some(node), Some(session)) = (life.nodes.get_mut(name), life.sessions.get(name)) else { return };
        node.sequence += 1;
        let body = message.encode(node.sequence, at);
        let header = wire::hmac_header(&session.0, &body);
        let link = node.link;
        // A message to a connection that is gone is dropped without a word.
        if let Some((_, peer)) = life.conns.get_mut(&link) {
            if peer.send(&header, &body).is_ok() {
                wishes.push(Wish::Sent(link, body));
                life.flush(link, wishes);
            }
        }
    }
}

enum Told {
    AckCommit,
    NackCommit,
    AckRun,
    NackRun,
    Ended(bool),
    Down,
    Other,
}

impl Life {
    fn flush(&mut self, link: LinkId, wishes: &mut Vec<Wish>) {
        if let Some((_, peer)) = self.conns.get_mut(&link) {
            let bytes = peer.transmit().to_vec();
            if !bytes.is_empty() {
                peer.sent(bytes.len());
                wishes.push(Wish::Transmit(link, bytes));
            }
        }
    }
}
