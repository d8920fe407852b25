//! The server under test: its machine, one ZMTP peer for each connection, its store, its clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgId, OrgName};
use pushy_core::job::JobRequest;
use pushy_core::server::{
    CancelAnswer, ConnId, CurveKey, Input, LogLevel, Output, RequestId, Server, ServerConfig, ServerKeys,
    Ticket,
};
use pushy_core::time::{Millis, Now, Wall};
use pushy_core::zmtp::{CurveSecret, Event as PeerEvent, Limits, Peer, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::net::{LinkId, Port};
use crate::store::Store;

/// What the server wants from its surroundings.
#[derive(Debug)]
pub enum Wish {
    /// These bytes go to the client of a link.
    Transmit(LinkId, Vec<u8>),
    /// Close this link.
    Close(LinkId),
    /// A write waits in the store.
    Write,
    /// Answer to a configuration request.
    Config(RequestId, Option<String>),
    /// Answer to a job request: the id when it is stored.
    Job(Option<JobId>),
    /// A job is cancelled, the whole of it or not, on these nodes.
    Cancelled(JobId, bool, Vec<NodeName>),
    /// An entry of a job's feed.
    Event(JobId, pushy_core::event::Event),
    /// Two frames came from a node (seen after decryption).
    Heard(LinkId, Vec<u8>, Vec<u8>),
    /// Two frames leave for a node (seen before encryption).
    Sent(LinkId, Vec<u8>),
}

struct Conn {
    peer: Peer,
    port: Port,
    id: ConnId,
}

/// One server host.
pub struct ServerHost {
    machine: Option<Server>,
    conns: BTreeMap<LinkId, Conn>,
    links: BTreeMap<ConnId, LinkId>,
    next_conn: u64,
    next_request: u64,
    /// Who waits for a cancel: which job, and whether all of it.
    cancels: BTreeMap<RequestId, (JobId, bool)>,
    /// Its store.
    pub store: Store,
    config: ServerConfig,
    keys: ServerKeys,
    secret: Arc<CurveSecret>,
    /// The organization everything happens in.
    pub org: (OrgId, OrgName),
    /// Wall clock minus simulated time, in seconds.
    pub clock_offset: i64,
    random: ChaCha8Rng,
    /// What it logged last.
    pub log: Vec<String>,
    /// A defect to be found.
    pub bug: Option<pushy_core::server::PlantedBug>,
}

/// Simulated time zero on the wall: 2026-01-01T00:00:00Z.
pub const EPOCH: i64 = 1_767_225_600;

/// The clock of a host whose wall clock is off by `offset` seconds.
pub fn clock(now: u64, offset: i64) -> Now {
    Now { mono: Millis(now), wall: Wall((EPOCH + offset) * 1_000_000 + now as i64 * 1000) }
}

impl ServerHost {
    /// A server with new keys and an empty store, not started.
    pub fn new(config: ServerConfig, signing: String, seed: u64) -> ServerHost {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x5e2e);
        let secret = Arc::new(CurveSecret::generate(&mut random));
        let keys = ServerKeys {
            signing,
            curve_public: secret.public(),
            incarnation: IncarnationId::generate(&mut random),
            server_name: "push".into(),
        };
        let org = (OrgId::generate(&mut random), OrgName::new("sim").expect("a valid name"));
        ServerHost {
            machine: None,
            conns: BTreeMap::new(),
            links: BTreeMap::new(),
            next_conn: 0,
            next_request: 0,
            cancels: BTreeMap::new(),
            store: Store::default(),
            config,
            keys,
            secret,
            org,
            clock_offset: 0,
            random,
            log: Vec::new(),
            bug: None,
        }
    }

    /// The rows of the machine's tables used since the last call.
    pub fn take_rows(&mut self) -> BTreeMap<String, u64> {
        self.machine.as_mut().map(Server::take_rows).unwrap_or_default()
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// The process starts.
    pub fn start(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        use rand_chacha::rand_core::RngCore;
        let generator = ChaCha8Rng::seed_from_u64(self.random.next_u64());
        let at = clock(now, self.clock_offset);
        let restored = self.store.stored.restored();
        let machine = Server::new(self.config.clone(), self.keys.clone(), restored, Box::new(generator), at)
            .expect("the keys are good");
        let machine = {
            let mut machine = machine;
            machine.plant(self.bug);
            machine
        };
        self.machine = Some(machine);
        self.drain(now, wishes);
    }

    /// The process dies. `kept` of the writes under way reach the disk. Answers the links that die with it.
    pub fn crash(&mut self, kept: usize) -> Result<Vec<LinkId>, String> {
        self.machine = None;
        self.links.clear();
        let links = std::mem::take(&mut self.conns).into_keys().collect();
        self.store.crash(kept)?;
        Ok(links)
    }

    /// A client connected to a port.
    pub fn accept(&mut self, now: u64, link: LinkId, port: Port, wishes: &mut Vec<Wish>) {
        let role = match port {
            Port::Command => Role::Router { secret: Arc::clone(&self.secret) },
            Port::Heartbeat => Role::Publisher,
        };
        let limits = Limits { max_body: self.config.max_body_size, ping: Some(Millis(30_000)) };
        let peer = Peer::new(role, limits, Millis(now), &mut self.random);
        self.next_conn += 1;
        let id = ConnId(self.next_conn);
        self.conns.insert(link, Conn { peer, port, id });
        self.links.insert(id, link);
        self.flush(link, wishes);
    }

    /// Bytes arrived.
    pub fn receive(&mut self, now: u64, link: LinkId, bytes: &[u8], wishes: &mut Vec<Wish>) {
        let mut rest = bytes;
        loop {
            let Some(conn) = self.conns.get_mut(&link) else { return };
            let (id, port) = (conn.id, conn.port);
            match conn.peer.receive(Millis(now), &mut rest) {
                Ok(None) => break,
                Ok(Some(_)) if port == Port::Heartbeat => {}
                Ok(Some(PeerEvent::Authenticate { key })) => {
                    self.tell(now, Input::Handshake { conn: id, key, peer: format!("sim:{link}") }, wishes);
                }
                Ok(Some(PeerEvent::Opened)) => self.tell(now, Input::Opened { conn: id }, wishes),
                Ok(Some(PeerEvent::Message { header, body })) => {
                    wishes.push(Wish::Heard(link, header.clone(), body.clone()));
                    self.tell(now, Input::Frames { conn: id, header, body }, wishes);
                }
                Err(why) => {
                    self.log.push(format!("{now}: link {link}: {why}"));
                    self.gone(now, link, wishes);
                    wishes.push(Wish::Close(link));
                    return;
                }
            }
        }
        self.flush(link, wishes);
    }

    /// The other end of a link is gone.
    pub fn gone(&mut self, now: u64, link: LinkId, wishes: &mut Vec<Wish>) {
        if let Some(conn) = self.conns.remove(&link) {
            self.links.remove(&conn.id);
            if conn.port == Port::Command {
                self.tell(now, Input::Closed { conn: conn.id }, wishes);
            }
        }
    }

    /// A node asks for its configuration.
    pub fn fetch(
        &mut self,
        now: u64,
        node: NodeName,
        key: CurveKey,
        public_key: String,
        w: &mut Vec<Wish>,
    ) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let node = pushy_core::ids::NodeRef { org: self.org.0.clone(), node };
        let org_name = self.org.1.clone();
        self.tell(now, Input::FetchConfig { request, node, org_name, key, public_key, is_node: true }, w);
        request
    }

    /// An operator asks for a job.
    pub fn start_job(&mut self, now: u64, job: JobRequest, wishes: &mut Vec<Wish>) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let org = self.org.0.clone();
        self.tell(
            now,
            Input::StartJob { request, org, requester: "operator".into(), job: Box::new(job) },
            wishes,
        );
        request
    }

    /// An operator gives a job up, or some of its nodes.
    pub fn cancel_job(&mut self, now: u64, job: JobId, nodes: Vec<NodeName>, wishes: &mut Vec<Wish>) {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let org = self.org.0.clone();
        self.cancels.insert(request, (job.clone(), nodes.is_empty()));
        self.tell(now, Input::CancelJob { request, org, job, nodes, by: "operator".into() }, wishes);
    }

    /// The store answers its oldest write.
    pub fn store_answers(
        &mut self,
        now: u64,
        wishes: &mut Vec<Wish>,
    ) -> Result<Option<(Ticket, bool)>, String> {
        let answer = self.store.answer(now)?;
        if let Some((ticket, kept)) = answer {
            let input = if kept { Input::Persisted { ticket } } else { Input::PersistFailed { ticket } };
            self.tell(now, input, wishes);
        }
        Ok(answer)
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        self.tell(now, Input::Tick, wishes);
        let due: Vec<LinkId> = self
            .conns
            .iter()
            .filter(|(_, c)| c.peer.next_deadline().is_some_and(|at| at.0 <= now))
            .map(|(link, _)| *link)
            .collect();
        for link in due {
            let Some(conn) = self.conns.get_mut(&link) else { continue };
            if let Err(why) = conn.peer.tick(Millis(now)) {
                self.log.push(format!("{now}: link {link}: {why}"));
                self.gone(now, link, wishes);
                wishes.push(Wish::Close(link));
            } else {
                self.flush(link, wishes);
            }
        }
    }

    /// When [`ServerHost::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        let machine = self.machine.as_ref()?.next_deadline();
        let peers = self.conns.values().filter_map(|c| c.peer.next_deadline()).min();
        machine.into_iter().chain(peers).min().map(|m| m.0)
    }

    /// Nodes that would take a job, as REST says.
    pub fn available(&self) -> Vec<NodeName> {
        let Some(machine) = &self.machine else { return Vec::new() };
        machine.node_states(&self.org.0).into_iter().filter(|(_, s)| s.available).map(|(n, _)| n).collect()
    }

    fn tell(&mut self, now: u64, input: Input, wishes: &mut Vec<Wish>) {
        if let Some(machine) = &mut self.machine {
            machine.handle(clock(now, self.clock_offset), input);
            self.drain(now, wishes);
        }
    }

    fn drain(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        let at = clock(now, self.clock_offset);
        loop {
            let Some(machine) = &mut self.machine else { return };
            let Some(output) = machine.poll_output().or_else(|| machine.poll_bulk(at)) else { return };
            self.carry_out(now, output, wishes);
        }
    }

    fn carry_out(&mut self, now: u64, output: Output, wishes: &mut Vec<Wish>) {
        match output {
            Output::Accept { conn } => {
                if let Some((link, c)) = self.conn(conn) {
                    if c.peer.accept(Millis(now)).is_ok() {
                        self.flush(link, wishes);
                        self.tell(now, Input::Opened { conn }, wishes);
                    }
                }
            }
            // Held unanswered; the peer's own deadline or the client's end closes it.
            Output::Refuse { .. } => {}
            Output::Send { conn, header, body } => {
                if let Some((link, c)) = self.conn(conn) {
                    if c.peer.send(&header, &body).is_ok() {
                        wishes.push(Wish::Sent(link, body));
                        self.flush(link, wishes);
                    }
                }
            }
            Output::Publish { header, body } => {
                let links: Vec<LinkId> = self
                    .conns
                    .iter_mut()
                    .filter(|(_, c)| c.port == Port::Heartbeat && c.peer.is_subscribed())
                    .filter_map(|(link, c)| c.peer.send(&header, &body).is_ok().then_some(*link))
                    .collect();
                for link in links {
                    self.flush(link, wishes);
                }
            }
            Output::Close { conn } => {
                if let Some((link, _)) = self.conn(conn) {
                    self.gone(now, link, wishes);
                    wishes.push(Wish::Close(link));
                }
            }
            Output::Persist { ticket, records } => {
                self.store.pending.push_back((ticket, records));
                wishes.push(Wish::Write);
            }
            Output::Config { request, body } => wishes.push(Wish::Config(request, Some(body))),
            Output::ConfigFailed { request, .. } => wishes.push(Wish::Config(request, None)),
            Output::JobStarted { job, .. } => wishes.push(Wish::Job(Some(job))),
            Output::JobRefused { .. } => wishes.push(Wish::Job(None)),
            Output::CancelAnswer { request, answer } => {
                let asked = self.cancels.remove(&request);
                if let (Some((job, whole)), CancelAnswer::Cancelled(nodes)) = (asked, answer) {
                    wishes.push(Wish::Cancelled(job, whole, nodes));
                }
            }
            Output::Event { job, event, .. } => wishes.push(Wish::Event(job, event)),
            // Nobody asks for output here.
            Output::OutputRead { .. } => {}
            Output::Log(entry) => {
                if entry.level > LogLevel::Debug {
                    self.log.push(format!("{now}: {:?} {:?} {}", entry.node, entry.job, entry.text));
                }
            }
        }
    }

    fn conn(&mut self, conn: ConnId) -> Option<(LinkId, &mut Conn)> {
        let link = *self.links.get(&conn)?;
        Some((link, self.conns.get_mut(&link)?))
    }

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
