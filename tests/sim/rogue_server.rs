//! A server that breaks the protocol: its keys are valid, what it says is not. `commit`, `run`, `abort`, `ack` and `result_ack` for
//! jobs of now and of before, in any order and repeated, also while a command is being checked, started or killed; connections
//! that it holds, ends or leaves without a word; heartbeats of other incarnations; keys that change with its lives.
//!
//! In the end it behaves, and every node has to show that it is there: to give up what it has, and then to run a command.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgId, OrgName};
use pushy_core::job::{JobOptions, JobRequest};
use pushy_core::message::{Caps, Commit, FromNode, JobRef, JobState, NodeMessage, ServerMessage};
use pushy_core::node_config::{self, NodeConfig};
use pushy_core::server::{CurveKey, RequestId};
use pushy_core::time::Millis;
use pushy_core::wire::{self, RsaSigner, SessionKey};
use pushy_core::zmtp::{CurveSecret, Event as PeerEvent, Limits, Peer, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::net::{LinkId, Port};
use crate::node_host::COMMANDS;
use crate::server_host::{Wish, clock};
use crate::store::Store;
use crate::world::INTERVAL;

/// Jobs it remembers of each node.
const JOBS: usize = 8;
/// How long a node may take to prove itself before it is asked from the start again.
const PATIENCE: u64 = 5_000;

/// What becomes of a connection to the command port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It is used.
    Talks,
    /// It is opened, and nothing is said over it.
    Silent,
    /// It is opened and ended.
    Slams,
    /// Its handshake is never answered.
    Holds,
}

struct Conn {
    port: Port,
    peer: Peer,
    node: Option<NodeName>,
    manner: Manner,
    ends_at: Option<u64>,
}

/// How far a node has come with showing that it is there.
enum Proof {
    /// It has to answer an `abort`.
    Aborting(u64),
    /// It has to run this.
    Running(u64, JobId),
    /// It has.
    Passed,
}

struct Life {
    secret: Arc<CurveSecret>,
    incarnation: IncarnationId,
    /// Seconds.
    lifetime: u32,
    pace: u64,
    keys: BTreeMap<[u8; 32], NodeName>,
    sessions: BTreeMap<NodeName, SessionKey>,
    conns: BTreeMap<LinkId, Conn>,
    sequences: BTreeMap<NodeName, u64>,
    last: BTreeMap<NodeName, (Vec<u8>, Vec<u8>)>,
    plans: BTreeMap<(u64, u64), (NodeName, ServerMessage)>,
    beat_at: u64,
    beats: u64,
    word_at: u64,
}

/// One host with a rogue server.
pub struct RogueServer {
    life: Option<Life>,
    secret: Arc<CurveSecret>,
    signer: RsaSigner,
    public_pem: String,
    /// It keeps nothing.
    pub store: Store,
    /// The organization.
    pub org: (OrgId, OrgName),
    /// Wall clock minus simulated time, in seconds.
    pub clock_offset: i64,
    jobs: BTreeMap<NodeName, VecDeque<(JobId, String)>>,
    /// `Some`: it behaves, and these nodes have to show that they are there.
    proofs: Option<BTreeMap<NodeName, Proof>>,
    order: u64,
    next_request: u64,
    random: ChaCha8Rng,
}

impl RogueServer {
    /// A server that is not started.
    pub fn new(signing: &str, seed: u64) -> RogueServer {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let signer = RsaSigner::from_pem(signing).expect("a good key");
        let org = (OrgId::generate(&mut random), OrgName::new("sim").expect("a valid name"));
        let public_pem = signer.public_pem().expect("a good key");
        RogueServer {
            life: None,
            secret: Arc::new(CurveSecret::generate(&mut random)),
            signer,
            public_pem,
            store: Store::default(),
            org,
            clock_offset: 0,
            jobs: BTreeMap::new(),
            proofs: None,
            order: 0,
            next_request: 0,
            random,
        }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// It behaves from now on.
    pub fn reform(&mut self, now: u64) {
        self.proofs = Some(BTreeMap::new());
        if let Some(life) = &mut self.life {
            life.plans.clear();
            life.word_at = now;
            life.conns
                .values_mut()
                .filter(|c| c.manner == Manner::Silent)
                .for_each(|c| c.manner = Manner::Talks);
            life.conns.values_mut().filter(|c| c.manner == Manner::Holds).for_each(|c| c.ends_at = Some(now));
        }
    }

    /// The process starts; every other time with other keys.
    pub fn start(&mut self, now: u64) {
        if self.pick(2) == 0 {
            self.secret = Arc::new(CurveSecret::generate(&mut self.random));
        }
        self.life = Some(Life {
            secret: Arc::clone(&self.secret),
            incarnation: IncarnationId::generate(&mut self.random),
            lifetime: [10, 10, 14, 40][self.pick(4) as usize],
            pace: [40, 100, 300, 900][self.pick(4) as usize],
            keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            conns: BTreeMap::new(),
            sequences: BTreeMap::new(),
            last: BTreeMap::new(),
            plans: BTreeMap::new(),
            beat_at: now,
            beats: 0,
            word_at: now,
        });
    }

    /// The process dies.
    pub fn crash(&mut self) -> Vec<LinkId> {
        self.life.take().map(|l| l.conns.into_keys().collect()).unwrap_or_default()
    }

    /// A client connected.
    pub fn accept(&mut self, now: u64, link: LinkId, port: Port, wishes: &mut Vec<Wish>) {
        let manner = match self.pick(16) {
            _ if self.proofs.is_some() => Manner::Talks,
            0 => Manner::Holds,
            1 | 2 => Manner::Slams,
            3 => Manner::Silent,
            _ => Manner::Talks,
        };
        let Some(life) = &mut self.life else { return };
        let role = match port {
            Port::Command => Role::Router { secret: Arc::clone(&life.secret) },
            Port::Heartbeat => Role::Publisher,
        };
        let peer = Peer::new(role, Limits { max_body: 65_536, ping: None }, Millis(now), &mut self.random);
        life.conns.insert(link, Conn { port, peer, node: None, manner, ends_at: None });
        life.flush(link, wishes);
    }

    /// A stream is gone.
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
            let Some(conn) = life.conns.get_mut(&link) else { return };
            match conn.peer.receive(Millis(now), &mut rest) {
                Ok(None) => break,
                Ok(Some(PeerEvent::Authenticate { key })) => {
                    conn.node = life.keys.get(&key.0).cloned();
                    let taken = conn.node.is_some() && conn.manner != Manner::Holds;
                    if taken && conn.peer.accept(Millis(now)).is_ok() {
                        self.opened(now, link, wishes);
                    }
                }
                Ok(Some(PeerEvent::Opened)) => {}
                Ok(Some(PeerEvent::Message { header, body })) => {
                    wishes.push(Wish::Heard(link, header, body.clone()));
                    if let Ok(message) = FromNode::decode(&body) {
                        if let Ok(node) = NodeName::new(&message.node) {
                            self.heard(now, &node, &message.message);
                        }
                    }
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

    /// A node asks for its configuration: its key is good as long as this process lives.
    pub fn fetch(&mut self, node: &NodeName, key: CurveKey, public: &str, w: &mut Vec<Wish>) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let Some(life) = &mut self.life else { return request };
        life.keys.insert(key.0, node.clone());
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
            lifetime: life.lifetime,
            max_message_skew: 300,
            max_body_size: Some(65_536),
            incarnation: life.incarnation.clone(),
            caps: Some(Caps::OF_SERVER),
        };
        w.push(Wish::Config(request, Some(config.to_json())));
        request
    }

    /// An operator asks for a job: whoever is there is asked, and told to run it some time, whatever the answers are.
    pub fn start_job(&mut self, now: u64, request: &JobRequest) {
        if self.proofs.is_some() {
            return;
        }
        let job = JobId::generate(&self.org.0, &mut self.random);
        for node in &request.nodes {
            self.ask(now, node, job.clone(), request.command.clone());
            self.plan(now + 100, 3_000, node, ServerMessage::Run { job: job.clone() });
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        self.beat(now, wishes);
        let Some(life) = &mut self.life else { return };
        let ended: Vec<LinkId> = life
            .conns
            .iter()
            .filter(|(_, c)| c.ends_at.is_some_and(|at| at <= now))
            .map(|(l, _)| *l)
            .collect();
        for link in ended {
            life.conns.remove(&link);
            wishes.push(Wish::Close(link));
        }
        while let Some(life) = &mut self.life {
            let Some(entry) = life.plans.first_entry().filter(|e| e.key().0 <= now) else { break };
            let (node, message) = entry.remove();
            self.send(now, &node, &message, wishes);
        }
        if self.life.as_ref().is_some_and(|life| life.word_at <= now) {
            if self.proofs.is_some() {
                self.test(now, wishes);
            } else {
                self.word(now, wishes);
            }
        }
    }

    /// When [`RogueServer::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        let life = self.life.as_ref()?;
        let ends = life.conns.values().filter_map(|c| c.ends_at);
        let plan = life.plans.keys().next().map(|(at, _)| *at);
        ends.chain(plan).chain([life.beat_at, life.word_at]).min()
    }

    /// Nodes that have shown that they are there.
    pub fn available(&self) -> Vec<NodeName> {
        let proofs = self.proofs.iter().flatten();
        proofs.filter(|(_, proof)| matches!(proof, Proof::Passed)).map(|(name, _)| name.clone()).collect()
    }

    fn pick(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit.max(1)
    }

    fn opened(&mut self, now: u64, link: LinkId, wishes: &mut Vec<Wish>) {
        let wait = self.pick(60);
        let Some(conn) = self.life.as_mut().and_then(|l| l.conns.get_mut(&link)) else { return };
        let (manner, node) = (conn.manner, conn.node.clone());
        match (manner, node) {
            (Manner::Slams, _) => conn.ends_at = Some(now + wait),
            (Manner::Talks, Some(node)) => self.send(now, &node, &ServerMessage::Ack, wishes),
            _ => {}
        }
    }

    fn beat(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        // Now and then another one is named, as if its keys had changed.
        let other = IncarnationId::generate(&mut self.random);
        let lies = self.pick(12) == 0 && self.proofs.is_none();
        let Some(life) = self.life.as_mut().filter(|l| l.beat_at <= now) else { return };
        life.beat_at = now + INTERVAL;
        let incarnation = if lies { other } else { life.incarnation.clone() };
        let message = ServerMessage::Heartbeat { server: "push".into(), incarnation: Some(incarnation) };
        let body = message.encode(life.beats, clock(now, self.clock_offset).wall);
        life.beats += 1;
        let header = self.signer.header(&body).expect("a good key");
        let links: Vec<LinkId> = life
            .conns
            .iter_mut()
            .filter(|(_, c)| c.port == Port::Heartbeat && c.peer.is_subscribed())
            .filter_map(|(link, c)| c.peer.send(&header, &body).is_ok().then_some(*link))
            .collect();
        for link in links {
            life.flush(link, wishes);
        }
    }

    fn plan(&mut self, now: u64, within: u64, node: &NodeName, message: ServerMessage) {
        self.order += 1;
        let key = (now + self.pick(within), self.order);
        if let Some(life) = &mut self.life {
            life.plans.insert(key, (node.clone(), message));
        }
    }

    fn commit(&mut self, job: JobId, command: String) -> ServerMessage {
        let mark = self.random.next_u64().to_string();
        let options = JobOptions { env: Some(vec![("MARK".to_owned(), mark)]), ..JobOptions::default() };
        ServerMessage::Commit(Box::new(Commit {
            job,
            server: "push".into(),
            command,
            options,
            run_timeout: Some(8),
        }))
    }

    fn ask(&mut self, now: u64, node: &NodeName, job: JobId, command: String) {
        let commit = self.commit(job.clone(), command.clone());
        let jobs = self.jobs.entry(node.clone()).or_default();
        jobs.retain(|(known, _)| *known != job);
        jobs.push_back((job, command));
        if jobs.len() > JOBS {
            jobs.pop_front();
        }
        self.plan(now, 5, node, commit);
    }

    /// Goes on with what a node says, now and then.
    fn heard(&mut self, now: u64, node: &NodeName, message: &NodeMessage) {
        if self.proofs.is_some() {
            return self.judge(now, node, message);
        }
        let roll = self.pick(10);
        let Some(job) = message.job().id().cloned() else { return };
        match message {
            NodeMessage::AckCommit { .. } if roll < 7 => {
                self.plan(now, 300, node, ServerMessage::Run { job })
            }
            NodeMessage::AckRun { .. } if roll < 3 => self.plan(now, 2_000, node, ServerMessage::Abort),
            NodeMessage::Succeeded { .. } | NodeMessage::Failed { .. } if roll < 6 => {
                self.plan(now, 2_000, node, ServerMessage::ResultAck { job });
            }
            _ => {}
        }
    }

    /// Something out of place, to somebody.
    fn word(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        let Some(life) = &mut self.life else { return };
        let pace = life.pace;
        let there: Vec<(LinkId, NodeName)> = life
            .conns
            .iter()
            .filter(|(_, c)| c.manner == Manner::Talks && c.peer.is_open())
            .filter_map(|(link, c)| Some((*link, c.node.clone()?)))
            .collect();
        let wait = pace / 4 + self.pick(pace * 3 / 2);
        if let Some(life) = &mut self.life {
            life.word_at = now + wait;
        }
        let which = self.pick(there.len() as u64) as usize;
        let Some((link, node)) = there.get(which).cloned() else { return };
        let jobs = self.jobs.get(&node).cloned().unwrap_or_default();
        let newest = jobs.len().saturating_sub(1) as u64;
        let which = if self.pick(3) == 0 { self.pick(newest + 1) } else { newest };
        let known = jobs.get(which as usize).cloned();
        let fresh = JobId::generate(&self.org.0, &mut self.random);
        let (job, command) = known.unwrap_or((fresh.clone(), "ok".to_owned()));
        let message = match self.pick(32) {
            0..=9 => {
                let command = [0, 0, 1, 2, 2, 3, 3, 4, 5, 6][self.pick(10) as usize] % COMMANDS.len();
                self.ask(now, &node, fresh.clone(), COMMANDS[command].to_owned());
                // A word that does not wait for the answer.
                match self.pick(6) {
                    0 => self.plan(now + 5, 100, &node, ServerMessage::Run { job: fresh }),
                    1 => self.plan(now + 5, 400, &node, ServerMessage::Abort),
                    _ => {}
                }
                return;
            }
            10..=12 => return self.ask(now, &node, job, command),
            13..=19 => ServerMessage::Run { job },
            20..=22 => ServerMessage::Abort,
            23 => ServerMessage::Cancel { job },
            24 => ServerMessage::Ack,
            25 | 26 => ServerMessage::ResultAck { job },
            27 => ServerMessage::BadRun,
            28 => ServerMessage::BadCommit { job: JobRef::None },
            29 => return self.repeat(&node, link, wishes),
            30 => ServerMessage::Unknown { name: "hello".into() },
            _ => {
                if let Some(life) = &mut self.life {
                    life.conns.remove(&link);
                }
                return wishes.push(Wish::Close(link));
            }
        };
        self.send(now, &node, &message, wishes);
    }

    /// The frame that was sent last, as it was.
    fn repeat(&mut self, node: &NodeName, link: LinkId, wishes: &mut Vec<Wish>) {
        let Some(life) = &mut self.life else { return };
        let Some((header, body)) = life.last.get(node) else { return };
        if let Some(conn) = life.conns.get_mut(&link) {
            let _ = conn.peer.send(header, body);
            life.flush(link, wishes);
        }
    }

    /// Asks every node that is there to show it.
    fn test(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        let Some(life) = &mut self.life else { return };
        life.word_at = now + 250;
        let there: BTreeSet<NodeName> =
            life.conns.values().filter(|c| c.peer.is_open()).filter_map(|c| c.node.clone()).collect();
        for node in there {
            let proofs = self.proofs.get_or_insert_default();
            let late = match proofs.get(&node) {
                None => true,
                Some(Proof::Aborting(since) | Proof::Running(since, _)) => now - since > PATIENCE,
                Some(Proof::Passed) => false,
            };
            if late {
                proofs.insert(node.clone(), Proof::Aborting(now));
                self.send(now, &node, &ServerMessage::Ack, wishes);
                self.send(now, &node, &ServerMessage::Abort, wishes);
            }
        }
    }

    fn judge(&mut self, now: u64, node: &NodeName, message: &NodeMessage) {
        let proof = self.proofs.as_ref().and_then(|proofs| proofs.get(node));
        let next = match (proof, message) {
            (Some(Proof::Aborting(_)), NodeMessage::Aborted { .. }) => {
                let job = JobId::generate(&self.org.0, &mut self.random);
                self.ask(now, node, job.clone(), "ok".to_owned());
                Proof::Running(now, job)
            }
            (
                Some(Proof::Running(since, job)),
                NodeMessage::AckCommit { job: JobRef::Id(said) }
                | NodeMessage::Heartbeat { state: Some(JobState::Committed), job: JobRef::Id(said), .. },
            ) if job == said => {
                let (since, job) = (*since, job.clone());
                self.plan(now, 5, node, ServerMessage::Run { job: job.clone() });
                Proof::Running(since, job)
            }
            (Some(Proof::Running(_, job)), NodeMessage::Succeeded { job: JobRef::Id(said), .. })
                if job == said =>
            {
                let job = job.clone();
                self.plan(now, 5, node, ServerMessage::ResultAck { job });
                Proof::Passed
            }
            _ => return,
        };
        if let Some(proofs) = &mut self.proofs {
            proofs.insert(node.clone(), next);
        }
    }

    fn send(&mut self, now: u64, name: &NodeName, message: &ServerMessage, wishes: &mut Vec<Wish>) {
        let at = clock(now, self.clock_offset).wall;
        let Some(life) = &mut self.life else { return };
        let Some(session) = life.sessions.get(name) else { return };
        let sequence = life.sequences.entry(name.clone()).or_default();
        *sequence += 1;
        let body = message.encode(*sequence, at);
        let header = wire::hmac_header(&session.0, &body);
        let conns = life.conns.iter_mut().rev();
        let conn = conns
            .filter(|(_, c)| c.peer.is_open() && c.node.as_ref() == Some(name))
            .map(|(l, c)| (*l, c))
            .next();
        if let Some((link, conn)) = conn {
            if conn.peer.send(&header, &body).is_ok() {
                wishes.push(Wish::Sent(link, body.clone()));
                life.last.insert(name.clone(), (header, body));
                life.flush(link, wishes);
            }
        }
    }
}

impl Life {
    fn flush(&mut self, link: LinkId, wishes: &mut Vec<Wish>) {
        if let Some(conn) = self.conns.get_mut(&link) {
            let bytes = conn.peer.transmit().to_vec();
            if !bytes.is_empty() {
                conn.peer.sent(bytes.len());
                wishes.push(Wish::Transmit(link, bytes));
            }
        }
    }
}
