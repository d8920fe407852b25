//! The original client's behaviour (7.2, 7.7, 7.8, decision 4), as a peer for our server: no memory of results, no answer to
//! a lost message, a repeated `commit` or `run` taken amiss, reconnecting by itself with up to three stale messages in
//! its queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pushy_core::auth::SigningKey;
use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgName};
use pushy_core::message::{Captured, JobRef, JobState, NodeIdentity, NodeMessage, ServerMessage};
use pushy_core::node::Port;
use pushy_core::node_config::NodeConfig;
use pushy_core::time::Millis;
use pushy_core::wire::{self, Channel, RsaVerifier, SessionKey};
use pushy_core::zmtp::{CurveSecret, Event as PeerEvent, Limits, Peer, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::net::LinkId;
use crate::node_host::{COMMANDS, JobEvent, Wish};
use crate::server_host::clock;

/// Messages that its DEALER queues without a connection.
const QUEUE: usize = 3;

enum State {
    Idle,
    Committed(JobId, String),
    Running(JobId, String),
}

struct Life {
    config: NodeConfig,
    session: SessionKey,
    verifier: RsaVerifier,
    online: bool,
    missed: u32,
    heard: u32,
    beat_at: u64,
    check_at: Option<u64>,
    reload_at: u64,
    deaf: bool,
    sequence: u64,
}

/// One host with an original client.
pub struct OriginalNode {
    /// Its name.
    pub name: NodeName,
    org: OrgName,
    key: SigningKey,
    up: bool,
    keys: Arc<CurveSecret>,
    incarnation: IncarnationId,
    state: State,
    life_data: Option<Life>,
    conns: BTreeMap<u64, (Port, Option<LinkId>, Option<Peer>)>,
    links: BTreeMap<LinkId, u64>,
    next_conn: u64,
    queue: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// The stream that takes nothing more.
    shut: Option<LinkId>,
    reconfigure_at: Option<u64>,
    retries: BTreeMap<u64, u64>,
    fetching: bool,
    /// Counts the lives of the process.
    pub life: u64,
    /// Wall clock minus simulated time, in seconds.
    pub clock_offset: i64,
    random: ChaCha8Rng,
}

impl OriginalNode {
    /// A host with nothing on it yet.
    pub fn new(name: NodeName, org: OrgName, key: SigningKey, seed: u64) -> OriginalNode {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        OriginalNode {
            name,
            org,
            key,
            up: false,
            keys: Arc::new(CurveSecret::generate(&mut random)),
            incarnation: IncarnationId::generate(&mut random),
            state: State::Idle,
            life_data: None,
            conns: BTreeMap::new(),
            links: BTreeMap::new(),
            next_conn: 0,
            queue: VecDeque::new(),
            shut: None,
            reconfigure_at: None,
            retries: BTreeMap::new(),
            fetching: false,
            life: 0,
            clock_offset: 0,
            random,
        }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether it can never come back by itself: deaf, and waiting for a job to end that only the server could end
    /// (D-54).
    pub fn is_stuck(&self) -> bool {
        self.life_data.as_ref().is_some_and(|l| l.deaf) && !matches!(self.state, State::Idle)
    }

    /// This stream takes nothing more; what is said waits for the next one.
    pub fn shut_window(&mut self, link: LinkId) {
        self.shut = Some(link);
    }

    /// The job it waits for or runs.
    pub fn held(&self) -> Option<&JobId> {
        match &self.state {
            State::Idle => None,
            State::Committed(job, _) | State::Running(job, _) => Some(job),
        }
    }

    /// The process starts.
    pub fn start(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        self.life += 1;
        self.up = true;
        self.keys = Arc::new(CurveSecret::generate(&mut self.random));
        self.incarnation = IncarnationId::generate(&mut self.random);
        self.reconfigure_at = Some(now);
        self.tick(now, wishes);
    }

    /// The process dies, its command with it.
    pub fn crash(&mut self) -> Vec<LinkId> {
        self.up = false;
        self.state = State::Idle;
        self.life_data = None;
        self.fetching = false;
        self.reconfigure_at = None;
        self.queue.clear();
        self.retries.clear();
        self.conns.clear();
        std::mem::take(&mut self.links).into_keys().collect()
    }

    /// The answer to a fetch: new sockets, heartbeats at once; a failure is retried much later (1.6).
    pub fn config(&mut self, now: u64, body: Option<String>, wishes: &mut Vec<Wish>) {
        self.fetching = false;
        let Some(config) = body.and_then(|text| NodeConfig::from_json(text.as_bytes()).ok()) else {
            self.reconfigure_at = Some(now + 108_000 + self.random.next_u64() % 12_000);
            return;
        };
        let (Ok(session), Ok(verifier)) =
            (config.session_key(&self.key), RsaVerifier::from_pem(&config.public_key))
        else {
            return;
        };
        // Between 0.9 and 1 of the lifetime (1.6).
        let lifetime = u64::from(config.lifetime) * 1000;
        let reload_at = now + lifetime * 9 / 10 + self.random.next_u64() % (lifetime / 10).max(1);
        self.life_data = Some(Life {
            config,
            session,
            verifier,
            online: true,
            missed: 0,
            heard: 0,
            beat_at: now,
            check_at: None,
            reload_at,
            deaf: false,
            sequence: 0,
        });
        self.reopen(now, wishes);
        self.tick(now, wishes);
    }

    /// A stream that was asked for exists.
    pub fn connected(&mut self, now: u64, conn: u64, link: LinkId, wishes: &mut Vec<Wish>) {
        let Some(life) = &self.life_data else { return wishes.push(Wish::Close(link)) };
        let Some((port, at, peer)) = self.conns.get_mut(&conn) else { return wishes.push(Wish::Close(link)) };
        let role = match (*port, life.config.curve_public_key) {
            (Port::Command, Some(server)) => Role::Dealer { secret: Arc::clone(&self.keys), server },
            _ => Role::Subscriber,
        };
        let limits = Limits { max_body: wire::MAX_SERVER_BODY, ping: None };
        *peer = Some(Peer::new(role, limits, Millis(now), &mut self.random));
        *at = Some(link);
        self.links.insert(link, conn);
        self.flush(conn, wishes);
    }

    /// libzmq tries again by itself.
    pub fn refused(&mut self, now: u64, conn: u64) {
        if self.conns.contains_key(&conn) {
            self.retries.insert(conn, now + 100 + self.random.next_u64() % 100);
        }
    }

    /// libzmq reconnects by itself.
    pub fn gone(&mut self, now: u64, link: LinkId) {
        if let Some(conn) = self.links.remove(&link) {
            if let Some((_, at, peer)) = self.conns.get_mut(&conn) {
                (*at, *peer) = (None, None);
            }
            self.refused(now, conn);
        }
    }

    /// Bytes arrived.
    pub fn receive(&mut self, now: u64, link: LinkId, bytes: &[u8], wishes: &mut Vec<Wish>) {
        let Some(conn) = self.links.get(&link).copied() else { return };
        let mut rest = bytes;
        loop {
            let Some((port, _, Some(peer))) = self.conns.get_mut(&conn) else { return };
            let port = *port;
            match peer.receive(Millis(now), &mut rest) {
                Ok(None) => break,
                Ok(Some(PeerEvent::Opened)) => {
                    if port == Port::Command {
                        for (header, body) in std::mem::take(&mut self.queue) {
                            let _ = peer.send(&header, &body);
                        }
                    }
                }
                Ok(Some(PeerEvent::Message { header, body })) => {
                    self.heard(now, port, &header, &body, wishes)
                }
                Ok(Some(PeerEvent::Authenticate { .. })) => {}
                Err(_) => {
                    wishes.push(Wish::Close(link));
                    self.gone(now, link);
                    return;
                }
            }
        }
        self.flush(conn, wishes);
    }

    /// The operating system reports.
    pub fn job_event(&mut self, now: u64, event: JobEvent, wishes: &mut Vec<Wish>) {
        match event {
            JobEvent::Ends(job) => {
                let State::Running(current, command) = &self.state else { return };
                if *current != job {
                    return;
                }
                let good = command != "fail";
                self.state = State::Idle;
                wishes.push(Wish::Ended(job.clone(), good));
                let (job, output) = (JobRef::Id(job), Captured::default());
                let result = if good {
                    NodeMessage::Succeeded { job, output }
                } else {
                    NodeMessage::Failed { job, output, reason: None }
                };
                self.say(now, result, wishes);
            }
            JobEvent::Gone(job) => {
                if matches!(&self.state, State::Running(current, _) if *current == job) {
                    self.state = State::Idle;
                    self.say(now, NodeMessage::Aborted { job: JobRef::Id(job), reason: None }, wishes);
                }
            }
            JobEvent::Prepared(..) | JobEvent::Started(..) => {}
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        if !self.up {
            return;
        }
        let due: Vec<u64> = self.retries.iter().filter(|(_, at)| **at <= now).map(|(c, _)| *c).collect();
        for conn in due {
            self.retries.remove(&conn);
            if let Some((port, ..)) = self.conns.get(&conn) {
                wishes.push(Wish::Connect(conn, *port));
            }
        }
        if let Some(life) = &mut self.life_data {
            if life.check_at.is_some_and(|at| at <= now) {
                life.check_at = None;
                life.deaf = true;
                self.reconfigure_at = Some(now);
            }
            if life.reload_at <= now {
                life.reload_at = u64::MAX;
                self.reconfigure_at = Some(now);
            }
        }
        self.beat(now, wishes);
        // A reconfigure waits for the job to end, looking every five seconds.
        if self.reconfigure_at.is_some_and(|at| at <= now) && !self.fetching {
            if matches!(self.state, State::Idle) {
                self.reconfigure_at = None;
                self.fetching = true;
                wishes.push(Wish::Fetch(self.keys.public()));
            } else {
                self.reconfigure_at = Some(now + 5_000);
            }
        }
    }

    /// When [`OriginalNode::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        let life = self.life_data.as_ref();
        [
            life.map(|l| l.beat_at),
            life.map(|l| l.reload_at),
            life.and_then(|l| l.check_at),
            self.reconfigure_at.filter(|_| !self.fetching),
        ]
        .into_iter()
        .flatten()
        .chain(self.retries.values().copied())
        .min()
    }

    fn beat(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        let Some(life) = self.life_data.as_mut().filter(|l| l.beat_at <= now) else { return };
        life.beat_at = now + life.config.interval.0;
        if life.online {
            if life.missed > life.config.offline_threshold {
                life.online = false;
                life.heard = 0;
                self.reopen(now, wishes);
                return;
            }
            life.missed += 1;
            let (state, job) = match &self.state {
                State::Idle => (JobState::Idle, JobRef::None),
                State::Committed(job, _) => (JobState::Committed, JobRef::Id(job.clone())),
                State::Running(job, _) => (JobState::Running, JobRef::Id(job.clone())),
            };
            self.say(now, NodeMessage::Heartbeat { state: Some(state), job, caps: None }, wishes);
        }
    }

    fn reopen(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        for (_, (_, link, _)) in std::mem::take(&mut self.conns) {
            if let Some(link) = link {
                self.links.remove(&link);
                wishes.push(Wish::Close(link));
            }
        }
        self.retries.clear();
        self.queue.clear();
        for port in [Port::Heartbeat, Port::Command] {
            self.next_conn += 1;
            self.conns.insert(self.next_conn, (port, None, None));
            wishes.push(Wish::Connect(self.next_conn, port));
        }
        if let Some(life) = &mut self.life_data {
            life.sequence = 0;
            life.deaf = false;
            life.check_at = Some(now + 4_000);
        }
    }

    fn heard(&mut self, now: u64, port: Port, header: &[u8], body: &[u8], wishes: &mut Vec<Wish>) {
        let Some(life) = self.life_data.as_mut().filter(|l| !l.deaf) else { return };
        if port == Port::Command {
            life.check_at = None;
        }
        let channel = if port == Port::Command { Channel::Command } else { Channel::Heartbeat };
        let at = clock(now, self.clock_offset).wall;
        // It believes recorded messages (D-53), within the limits of this stand-in's clock.
        let limits = wire::Limits { max_body: wire::MAX_SERVER_BODY, max_skew: 100_000 };
        let Ok(message) =
            wire::open_from_server(&life.session, &life.verifier, channel, limits, at, header, body)
        else {
            return;
        };
        match message.message {
            ServerMessage::Heartbeat { incarnation, .. } => {
                if incarnation.as_ref() != Some(&life.config.incarnation) {
                    let splay = self.random.next_u64() % life.config.interval.0.max(1);
                    self.reconfigure_at = Some(now + splay);
                }
                life.missed = 0;
                if !life.online && life.heard > life.config.online_threshold {
                    life.online = true;
                } else {
                    life.heard += 1;
                }
            }
            ServerMessage::Commit(commit) => {
                let known = COMMANDS.contains(&commit.command.as_str()) && commit.command != "refused";
                let job = JobRef::Id(commit.job.clone());
                if known && matches!(self.state, State::Idle) && commit.command != "cannot-prepare" {
                    self.state = State::Committed(commit.job, commit.command);
                    // Now and then it stutters: a second yes is no second vote (6.4).
                    if self.random.next_u64() % 4 == 0 {
                        self.say(now, NodeMessage::AckCommit { job: job.clone() }, wishes);
                    }
                    self.say(now, NodeMessage::AckCommit { job }, wishes);
                } else {
                    self.say(now, NodeMessage::NackCommit { job, reason: None }, wishes);
                }
            }
            ServerMessage::Run { job } => self.run(now, job, wishes),
            ServerMessage::Abort => match std::mem::replace(&mut self.state, State::Idle) {
                State::Idle => {
                    self.say(now, NodeMessage::Aborted { job: JobRef::None, reason: None }, wishes)
                }
                State::Committed(job, _) => {
                    self.say(now, NodeMessage::Aborted { job: JobRef::Id(job), reason: None }, wishes);
                }
                State::Running(job, command) => {
                    self.state = State::Running(job.clone(), command);
                    wishes.push(Wish::Killed(job.clone()));
                    wishes.push(Wish::Later(3_000, JobEvent::Gone(job)));
                }
            },
            _ => {}
        }
    }

    fn run(&mut self, now: u64, job: JobId, wishes: &mut Vec<Wish>) {
        match &self.state {
            State::Committed(current, command) if *current == job => {
                let command = command.clone();
                self.state = State::Running(job.clone(), command.clone());
                wishes.push(Wish::Started(job.clone()));
                match command.as_str() {
                    // The original says nothing when a process cannot be started (D-42).
                    "hang" | "cannot-start" => {}
                    "slow" => {
                        let lasts = 2_000 + self.random.next_u64() % 6_000;
                        wishes.push(Wish::Later(lasts, JobEvent::Ends(job.clone())));
                    }
                    _ => wishes.push(Wish::Later(self.random.next_u64() % 40, JobEvent::Ends(job.clone()))),
                }
                self.say(now, NodeMessage::AckRun { job: JobRef::Id(job) }, wishes);
            }
            _ => self.say(now, NodeMessage::NackRun { job: JobRef::Id(job), reason: None }, wishes),
        }
    }

    fn say(&mut self, now: u64, message: NodeMessage, wishes: &mut Vec<Wish>) {
        let Some(life) = &mut self.life_data else { return };
        life.sequence += 1;
        let sender = NodeIdentity {
            node: self.name.clone(),
            client: self.name.to_string(),
            org: self.org.clone(),
            incarnation: self.incarnation.clone(),
        };
        let body = message.encode(&sender, life.sequence, clock(now, self.clock_offset).wall);
        let header = wire::hmac_header(&life.session.0, &body);
        let open = self
            .conns
            .iter_mut()
            .filter(|(_, (port, link, _))| *port == Port::Command && (link.is_none() || *link != self.shut))
            .find_map(|(id, (_, _, peer))| Some((*id, peer.as_mut()?)))
            .filter(|(_, peer)| peer.is_open());
        if let Some((conn, peer)) = open {
            let _ = peer.send(&header, &body);
            self.flush(conn, wishes);
        } else if self.queue.len() < QUEUE {
            self.queue.push_back((header, body));
        }
    }

    fn flush(&mut self, conn: u64, wishes: &mut Vec<Wish>) {
        if let Some((_, Some(link), Some(peer))) = self.conns.get_mut(&conn) {
            let bytes = peer.transmit().to_vec();
            if !bytes.is_empty() {
                peer.sent(bytes.len());
                wishes.push(Wish::Transmit(*link, bytes));
            }
        }
    }
}
