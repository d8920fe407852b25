//! One simulated world: a server, nodes, a network, one clock, one seed.

use std::collections::BTreeMap;

use pushy_core::ids::{NodeName, OrgName};
use pushy_core::job::JobOptions;
use pushy_core::message::FromNode;
use pushy_core::node::Port as NodePort;
use pushy_core::server::{CurveKey, RequestId, ServerConfig};
use pushy_core::time::Millis;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::duties::{Duties, Reached};
use crate::host::Host;
use crate::keys;
use crate::ledger::{Broken, Ledger};
use crate::net::{LinkId, Net, NetEvent, Port, Side};
use crate::node_host::{JobEvent, Wish as NodeWish};
use crate::ops::{FAULTS, NODE_CRASH, Op};
use crate::original_server::OriginalServer;
use crate::push::Push;
use crate::rogue_server::RogueServer;
use crate::server_host::{ServerHost, Wish as ServerWish, clock};
use crate::twist::Twist;

/// Heartbeats every two seconds: short enough for many of them in a run.
pub const INTERVAL: u64 = 2_000;

pub(crate) enum Happening {
    Net(NetEvent),
    Op(Op),
    StoreAnswers(u64),
    FetchArrives(usize, u64, CurveKey),
    ConfigArrives(usize, u64, Option<String>),
    ConnectTry(usize, u64, u64, NodePort),
    Job(usize, u64, JobEvent),
    ServerUp,
    NodeUp(usize),
    ClockBack(usize),
    Sever(LinkId),
    Crash(usize, u64),
}

/// The world.
pub struct World {
    pub(crate) now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    pub(crate) random: ChaCha8Rng,
    pub(crate) net: Net,
    /// The server.
    pub server: Push,
    pub(crate) server_life: u64,
    /// Nodes; the last one is the attacker's own.
    pub hosts: Vec<Host>,
    pub(crate) fetches: BTreeMap<RequestId, (usize, u64)>,
    pub(crate) recorded: Vec<(usize, Vec<u8>, Vec<u8>)>,
    pub(crate) refused_until: u64,
    pub(crate) slow_until: u64,
    pub(crate) crash_after_exit: Option<(usize, u64)>,
    /// What is out of the ordinary, until all is calm.
    twist: Twist,
    /// What really happened.
    pub ledger: Ledger,
    /// What our agents owe a rogue server.
    pub duties: Duties,
    /// How often each fault did something.
    pub faults: [u64; FAULTS.len()],
    /// How often each row of the machines' tables was used.
    pub rows: BTreeMap<String, u64>,
    /// Whether to keep a trace; it costs more than the rest.
    pub traced: bool,
    /// What happened, in order.
    pub trace: Vec<String>,
    last_step: (u64, u32),
}

impl World {
    /// A world whose hosts are up and strangers to each other.
    pub fn new(seed: u64, nodes: usize, originals: usize, original_server: bool, twist: Twist) -> World {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let config = ServerConfig {
            heartbeat_interval: Millis(INTERVAL),
            voting_timeout: Millis(6_000),
            config_lifetime: twist.lifetime(),
            ..ServerConfig::default()
        };
        let server = if twist == Twist::RogueServer {
            Push::Rogue(Box::new(RogueServer::new(keys::server_pem(), random.next_u64())))
        } else if original_server {
            Push::Original(Box::new(OriginalServer::new(keys::server_pem(), random.next_u64())))
        } else {
            Push::Ours(Box::new(ServerHost::new(config, keys::server_pem().to_owned(), random.next_u64())))
        };
        let org: OrgName = server.org().1.clone();
        let mut ledger = Ledger::new(3 * INTERVAL);
        ledger.original_server = original_server;
        ledger.rogue_server = twist == Twist::RogueServer;
        let mut hosts: Vec<Host> = (0..nodes)
            .map(|i| {
                let name = NodeName::new(&format!("node-{i}")).expect("a valid name");
                let seed = random.next_u64();
                if i < originals {
                    ledger.originals.insert(name.clone());
                    Host::original(name, org.clone(), keys::client(), seed)
                } else if i == 0 && twist == Twist::RogueNode {
                    ledger.rogues.insert(name.clone());
                    Host::rogue(name, org.clone(), keys::client(), seed)
                } else {
                    Host::ours(name, org.clone(), keys::client(), seed)
                }
            })
            .collect();
        for host in &mut hosts {
            host.set_tempo(twist.tempo(), twist == Twist::RogueServer);
        }
        let mut world = World {
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            random,
            net: Net::default(),
            server,
            server_life: 0,
            hosts,
            fetches: BTreeMap::new(),
            recorded: Vec::new(),
            refused_until: 0,
            slow_until: 0,
            crash_after_exit: None,
            twist,
            ledger,
            duties: Duties::default(),
            faults: [0; FAULTS.len()],
            rows: BTreeMap::new(),
            traced: false,
            trace: Vec::new(),
            last_step: (0, 0),
        };
        world.later(0, Happening::ServerUp);
        for i in 0..world.hosts.len() {
            let at = world.below(500);
            world.later(at, Happening::NodeUp(i));
        }
        world
    }

    /// Puts the seed's operations into the queue.
    pub fn schedule(&mut self, ops: Vec<(u64, Op)>) {
        for (at, op) in ops {
            self.order += 1;
            self.queue.insert((at, self.order), Happening::Op(op));
        }
    }

    /// Lets time pass until `end`.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn run(&mut self, end: u64) -> Result<(), Broken> {
        loop {
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let deadlines =
                self.hosts.iter().filter_map(Host::next_deadline).chain(self.server.next_deadline());
            let next_tick = deadlines.min().map(|at| at.max(self.now));
            let Some(at) = queued.into_iter().chain(next_tick).min().filter(|at| *at <= end) else {
                self.now = end;
                return Ok(());
            };
            self.count_step(at)?;
            self.now = at;
            if self.slow_until <= at {
                self.net.slowness = 1;
            }
            if queued == Some(at) {
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.happen(happening)?;
                }
            } else {
                self.tick()?;
            }
        }
    }

    /// Every fault ends: the network heals, clocks are right, whoever is down comes back, rogues behave.
    pub fn heal(&mut self) -> Result<(), Broken> {
        self.refused_until = 0;
        self.net.slowness = 1;
        self.server.store().failing_until = 0;
        self.server.store().slow = (0, 0);
        self.server.set_clock(0);
        self.twist = Twist::None;
        for host in &mut self.hosts {
            host.set_clock(0);
            host.reform(self.now, Twist::None.tempo());
        }
        for link in self.net.suffering() {
            self.sever(link)?;
        }
        if !self.server.is_up() {
            self.happen(Happening::ServerUp)?;
        }
        self.server.reform(self.now);
        for i in 0..self.hosts.len() {
            self.happen(Happening::NodeUp(i))?;
        }
        Ok(())
    }

    /// Nodes that should be available and are not.
    pub fn missing(&self) -> Vec<NodeName> {
        let there = self.server.available();
        let hosts = self.hosts.iter().filter(|h| !h.is_stuck());
        hosts.map(|h| h.name().clone()).filter(|n| !there.contains(n)).collect()
    }

    /// Adds up what the machines have counted; before one of them dies, and at the end.
    pub fn count_rows(&mut self) {
        let hosts = self.hosts.iter_mut().map(Host::take_rows);
        for (row, count) in hosts.chain([self.server.take_rows()]).flatten() {
            *self.rows.entry(row).or_default() += count;
        }
    }

    /// The simulated time, in milliseconds.
    pub fn now(&self) -> u64 {
        self.now
    }

    fn count_step(&mut self, at: u64) -> Result<(), Broken> {
        self.last_step = if self.last_step.0 == at { (at, self.last_step.1 + 1) } else { (at, 0) };
        if self.last_step.1 > 20_000 {
            Err(format!("the world stands still at {at}: {}", self.due()))
        } else {
            Ok(())
        }
    }

    /// Who wants to be called when; says who makes the world stand still.
    fn due(&self) -> String {
        let hosts: Vec<Option<u64>> = self.hosts.iter().map(Host::next_deadline).collect();
        format!("server {:?}, nodes {hosts:?}", self.server.next_deadline())
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit.max(1)
    }

    pub(crate) fn later(&mut self, wait: u64, happening: Happening) {
        self.order += 1;
        self.queue.insert((self.now + wait, self.order), happening);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if !self.traced {
            return;
        }
        let line = format!("{:>7} {}", self.now, text());
        self.trace.push(line);
    }

    fn tick(&mut self) -> Result<(), Broken> {
        let now = self.now;
        if self.server.next_deadline().is_some_and(|at| at <= now) {
            let mut wishes = Vec::new();
            self.server.tick(now, &mut wishes);
            self.grant_server(wishes)?;
        }
        for i in 0..self.hosts.len() {
            if self.hosts[i].next_deadline().is_some_and(|at| at <= now) {
                self.with_host(i, |host, wishes| host.tick(now, wishes))?;
            }
        }
        Ok(())
    }

    pub(crate) fn with_host(
        &mut self,
        i: usize,
        act: impl FnOnce(&mut Host, &mut Vec<NodeWish>),
    ) -> Result<(), Broken> {
        let mut wishes = Vec::new();
        act(&mut self.hosts[i], &mut wishes);
        self.grant_node(i, wishes)
    }

    pub(crate) fn with_server(
        &mut self,
        act: impl FnOnce(&mut Push, &mut Vec<ServerWish>),
    ) -> Result<(), Broken> {
        let mut wishes = Vec::new();
        act(&mut self.server, &mut wishes);
        self.grant_server(wishes)
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        let now = self.now;
        match happening {
            Happening::Net(NetEvent::Arrive { link, to }) => match self.net.arrive(now, link, to) {
                Err(until) => {
                    self.later(until - now, Happening::Net(NetEvent::Arrive { link, to }));
                    Ok(())
                }
                Ok(Some(bytes)) => self.deliver(link, to, &bytes),
                Ok(None) => Ok(()),
            },
            Happening::Net(NetEvent::Gone { link, at }) => self.gone(link, at),
            Happening::Op(op) => self.operate(op),
            Happening::StoreAnswers(life) => {
                if life != self.server_life {
                    return Ok(());
                }
                let mut wishes = Vec::new();
                let answer = self.server.store_answers(now, &mut wishes)?;
                self.note(|| format!("store answers {answer:?}"));
                self.ledger.stored(now, &mut self.server.store().stored)?;
                self.grant_server(wishes)
            }
            Happening::FetchArrives(i, life, key) => {
                let fails = self.twist.rest() > 0 && self.below(5) == 0;
                if fails || !self.server.is_up() || self.hosts[i].life() != life {
                    self.later(5, Happening::ConfigArrives(i, life, None));
                    return Ok(());
                }
                let name = self.hosts[i].name().clone();
                self.note(|| format!("{name} fetches its configuration with {key:?}"));
                let mut wishes = Vec::new();
                let request = self.server.fetch(now, name, key, keys::client_public(), &mut wishes);
                self.fetches.insert(request, (i, life));
                self.grant_server(wishes)
            }
            Happening::ConfigArrives(i, life, body) => {
                if self.hosts[i].life() != life || !self.hosts[i].is_up() {
                    return Ok(());
                }
                self.note(|| format!("node {i} has its configuration: {}", body.is_some()));
                self.with_host(i, |host, wishes| host.config(now, body, wishes))
            }
            Happening::ConnectTry(i, life, conn, port) => self.connect(i, life, conn, port),
            Happening::Job(i, life, event) => {
                if self.hosts[i].life() != life || !self.hosts[i].is_up() {
                    return Ok(());
                }
                self.with_host(i, |host, wishes| host.job_event(now, event, wishes))
            }
            Happening::ServerUp => {
                if self.server.is_up() {
                    return Ok(());
                }
                self.note(|| "server starts".into());
                self.with_server(|server, wishes| server.start(now, wishes))
            }
            Happening::NodeUp(i) => {
                if self.hosts[i].is_up() {
                    return Ok(());
                }
                self.note(|| format!("node {i} starts"));
                self.with_host(i, |host, wishes| host.start(now, wishes))
            }
            Happening::ClockBack(i) => {
                match i {
                    0 => self.server.set_clock(0),
                    i => self.hosts[i - 1].set_clock(0),
                }
                Ok(())
            }
            Happening::Sever(link) => self.sever(link),
            Happening::Crash(i, wait) => {
                self.faults[NODE_CRASH] += u64::from(self.crash_node(i, wait));
                Ok(())
            }
        }
    }

    pub(crate) fn deliver(&mut self, link: LinkId, to: Side, bytes: &[u8]) -> Result<(), Broken> {
        let now = self.now;
        let Some(host) = self.net.link(link).map(|l| l.host) else { return Ok(()) };
        match to {
            Side::Server => self.with_server(|server, wishes| server.receive(now, link, bytes, wishes)),
            Side::Client => self.with_host(host, |host, wishes| host.receive(now, link, bytes, wishes)),
        }
    }

    fn gone(&mut self, link: LinkId, at: Side) -> Result<(), Broken> {
        let now = self.now;
        let Some(host) = self.net.link(link).map(|l| l.host) else { return Ok(()) };
        match at {
            Side::Server => {
                self.ledger.left(now, link);
                self.with_server(|server, wishes| server.gone(now, link, wishes))
            }
            Side::Client => self.with_host(host, |host, wishes| host.gone(now, link, wishes)),
        }
    }

    fn connect(&mut self, i: usize, life: u64, conn: u64, port: NodePort) -> Result<(), Broken> {
        let now = self.now;
        if self.hosts[i].life() != life || !self.hosts[i].is_up() {
            return Ok(());
        }
        if !self.server.is_up() || now < self.refused_until {
            self.faults[3] += 1;
            return self.with_host(i, |host, wishes| host.refused(now, conn, wishes));
        }
        let port = match port {
            NodePort::Command => Port::Command,
            NodePort::Heartbeat => Port::Heartbeat,
        };
        let link = self.net.connect(i, port, &mut self.random);
        self.note(|| format!("node {i} connects to {port:?}: link {link}"));
        if self.twist == Twist::SlowHosts && self.below(4) == 0 {
            // Some die between two words of their handshake, or just after it.
            let wait = 20 + self.below(140);
            self.later(wait, Happening::Sever(link));
        }
        self.with_server(|server, wishes| server.accept(now, link, port, wishes))?;
        self.with_host(i, |host, wishes| host.connected(now, conn, link, wishes))
    }

    /// Cuts a stream; both ends learn it soon.
    pub(crate) fn sever(&mut self, link: LinkId) -> Result<(), Broken> {
        let last = self.net.cut(link, &mut self.random);
        for (side, bytes) in last {
            if !bytes.is_empty() {
                self.deliver(link, side, &bytes)?;
            }
            let wait = 1 + self.below(50);
            self.later(wait, Happening::Net(NetEvent::Gone { link, at: side }));
        }
        Ok(())
    }

    fn grant_node(&mut self, i: usize, wishes: Vec<NodeWish>) -> Result<(), Broken> {
        let life = self.hosts[i].life();
        let name = self.hosts[i].name().clone();
        for wish in wishes {
            match wish {
                NodeWish::Fetch(key) => {
                    let wait = 1 + self.below(30) + self.request_takes();
                    self.later(wait, Happening::FetchArrives(i, life, key));
                }
                NodeWish::Connect(conn, port) => {
                    let wait = 1 + self.below(20);
                    self.later(wait, Happening::ConnectTry(i, life, conn, port));
                }
                NodeWish::Transmit(link, bytes) => self.transmit(link, Side::Server, bytes),
                NodeWish::Close(link) => self.close(link, Side::Client)?,
                NodeWish::Later(wait, event) => self.later(wait, Happening::Job(i, life, event)),
                NodeWish::Started(job) => {
                    self.note(|| format!("{name} starts {job}"));
                    let keeps = self.hosts[i].keeps(&job);
                    if self.server.is_rogue() {
                        self.duties.started(&name, &job, keeps)?;
                    } else {
                        self.ledger.started(self.now, &job, &name, keeps)?;
                    }
                }
                NodeWish::Ended(job, good) => {
                    self.note(|| format!("{name} ends {job}: {good}"));
                    self.duties.ended(&name, job.clone());
                    self.ledger.ended(self.now, job, &name, good)?;
                    if let Some((_, wait)) = self.crash_after_exit.take_if(|(host, _)| *host == i) {
                        let soon = self.below(20);
                        self.later(soon, Happening::Crash(i, wait));
                    }
                }
                NodeWish::Killed(job) => {
                    self.note(|| format!("{name} is told to end {job}"));
                    self.ledger.killed(self.now, job, &name, &self.server.kept().stored)?;
                }
                NodeWish::Options(job, options) if self.server.is_rogue() => {
                    self.duties.options(&name, &job, &options)?;
                }
                NodeWish::Options(job, options) => self.check_options(&job, &options)?,
                NodeWish::Told(body, idle) => {
                    let host = &self.hosts[i];
                    let reached = Reached { idle, wall: clock(self.now, host.clock_offset()).wall };
                    self.duties.told(self.now, &name, &body, reached, |job| host.keeps(job))?;
                }
                NodeWish::Said(body) => self.duties.said(self.now, &name, &body)?,
                NodeWish::Deaf => self.duties.deaf(&name),
            }
        }
        Ok(())
    }

    /// A command gets the environment that its own job asked for (D-43).
    fn check_options(&mut self, job: &pushy_core::ids::JobId, options: &JobOptions) -> Result<(), Broken> {
        match self.server.kept().stored.jobs.get(job) {
            Some(stored) if stored.options.env == options.env => Ok(()),
            _ => Err(format!("job {job} runs with the options of another one")),
        }
    }

    fn grant_server(&mut self, mut wishes: Vec<ServerWish>) -> Result<(), Broken> {
        if self.server.is_original() {
            // It writes at once: by now its store shows the effect of every message of the piece that it has read.
            wishes.sort_by_key(|wish| !matches!(wish, ServerWish::Heard(..)));
        }
        for wish in wishes {
            if self.server.is_original() && !matches!(wish, ServerWish::Heard(..)) {
                self.ledger.stored(self.now, &mut self.server.store().stored)?;
            }
            match wish {
                ServerWish::Transmit(link, bytes) => self.transmit(link, Side::Client, bytes),
                ServerWish::Close(link) => self.close(link, Side::Server)?,
                ServerWish::Write => {
                    if let Some((_, records)) = self.server.kept().pending.back() {
                        self.ledger.asked_to_store(self.now, records);
                    }
                    let jitter = self.below(8);
                    let at = self.server.kept().answer_at(self.now, jitter);
                    self.later(at - self.now, Happening::StoreAnswers(self.server_life));
                }
                ServerWish::Config(request, body) => {
                    if let Some((i, life)) = self.fetches.remove(&request) {
                        let wait = 1 + self.below(30);
                        self.later(wait, Happening::ConfigArrives(i, life, body));
                    }
                }
                ServerWish::Job(Some(job)) => {
                    self.note(|| format!("job {job} is promised"));
                    if !self.server.kept().stored.jobs.contains_key(&job) {
                        return Err(format!("job {job} was promised before it was stored"));
                    }
                    self.hosts.iter_mut().for_each(|host| host.overhear(&job));
                    self.ledger.started_jobs.insert(job);
                }
                ServerWish::Job(None) => {}
                ServerWish::Cancelled(job, whole, nodes) => {
                    self.note(|| format!("job {job} is cancelled on {nodes:?}, all of it: {whole}"));
                    self.ledger.cancelled(&job, whole, nodes, &self.server.kept().stored)?;
                }
                ServerWish::Event(job, event) => {
                    self.note(|| format!("event {event:?} of {job}"));
                    self.ledger.announced(&job, &event, &self.server.kept().stored)?;
                }
                ServerWish::Sent(link, body) => {
                    let Some(host) = self.net.link(link).map(|l| l.host) else { continue };
                    let name = self.hosts[host].name().clone();
                    self.note(|| format!("to {name}: {}", String::from_utf8_lossy(&body)));
                    if self.server.is_ours() {
                        self.ledger.sent(link, &name, &body, &self.server.kept().stored)?;
                        self.ledger.asked(&name, &body, self.hosts[host].held())?;
                    }
                }
                ServerWish::Heard(link, header, body) => self.heard(link, header, body),
            }
        }
        Ok(())
    }

    fn heard(&mut self, link: LinkId, header: Vec<u8>, body: Vec<u8>) {
        let Some(host) = self.net.link(link).map(|l| l.host) else { return };
        let name = self.hosts[host].name().clone();
        self.note(|| format!("from {name}: {}", String::from_utf8_lossy(&body)));
        if let Ok(message) = FromNode::decode(&body) {
            if *message.node == *name.as_str() {
                self.ledger.heard(self.now, link, &name, &message.message);
            }
        }
        if self.recorded.len() < 400 {
            self.recorded.push((host, header, body));
        }
    }

    /// How much longer than usual a configuration request takes.
    fn request_takes(&mut self) -> u64 {
        match self.twist.rest() {
            0 => 0,
            rest => self.below(rest),
        }
    }

    fn transmit(&mut self, link: LinkId, to: Side, bytes: Vec<u8>) {
        if let Some(at) = self.net.send(self.now, link, to, bytes) {
            self.later(at - self.now, Happening::Net(NetEvent::Arrive { link, to }));
        }
    }

    fn close(&mut self, link: LinkId, by: Side) -> Result<(), Broken> {
        if by == Side::Server {
            self.ledger.left(self.now, link);
        }
        let (bytes, latency) = self.net.close(link, by);
        let other = by.other();
        if !bytes.is_empty() {
            self.deliver(link, other, &bytes)?;
        }
        self.later(latency, Happening::Net(NetEvent::Gone { link, at: other }));
        Ok(())
    }
}
