//! Our agent on a simulated host: its machine, a ZMTP peer for each connection, its processes, its disk.

use std::collections::BTreeMap;

use pushy_core::auth::SigningKey;
use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgName};
use pushy_core::job::JobOptions;
use pushy_core::node::{
    Captured, Exit, Input, KeptResult, Node, Output, Port, Restored, Settings, Stage, job_runner,
};
use pushy_core::reason::{Reason, ReasonCode};
use pushy_core::server::{CurveKey, LogLevel};
use pushy_core::time::Millis;
use pushy_core::whitelist::{Key, Whitelist};
use pushy_core::zmtp::{Event as PeerEvent, Limits, Peer, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::net::LinkId;
use crate::server_host::clock;
use crate::twist::{Tempo, Twist};

/// What a node wants from its surroundings.
#[derive(Debug)]
pub enum Wish {
    /// Ask the server for the configuration with this key.
    Fetch(CurveKey),
    /// Open a stream; answered by `connected` or `refused` with this number.
    Connect(u64, Port),
    /// These bytes go to the server.
    Transmit(LinkId, Vec<u8>),
    /// Close this link.
    Close(LinkId),
    /// Something of the job takes time: call `job_event` with this number then.
    Later(u64, JobEvent),
    /// A process is started for this job.
    Started(JobId),
    /// A process ended by itself, with or without success.
    Ended(JobId, bool),
    /// A process was killed because the server said so.
    Killed(JobId),
    /// A job with these secrets is started: its environment as asked for.
    Options(JobId, JobOptions),
    /// A watched agent hears this on its command connection; whether it had no job.
    Told(Vec<u8>, bool),
    /// A watched agent says this.
    Said(Vec<u8>),
    /// A watched agent has lost its command connection.
    Deaf,
}

/// What the operating system will report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// The checks are done.
    Prepared(JobId, bool),
    /// The process exists, or could not be started.
    Started(JobId, bool),
    /// The process ends by itself.
    Ends(JobId),
    /// The process group is gone after a kill.
    Gone(JobId),
}

/// The commands of the simulation; their names say what they do. `refused` is not on any whitelist.
pub const COMMANDS: [&str; 7] = ["ok", "fail", "slow", "hang", "cannot-start", "cannot-prepare", "refused"];

fn whitelist() -> Whitelist {
    let known = COMMANDS.iter().filter(|c| **c != "refused");
    known
        .fold(Whitelist::builder(), |list, c| list.entry(Key::Exact((*c).to_owned()), *c))
        .build()
        .expect("plain keys")
}

struct Conn {
    link: LinkId,
    peer: Peer,
}

struct Running {
    job: JobId,
    command: String,
    exists: bool,
    killed: bool,
}

/// One host with our agent.
pub struct NodeHost {
    /// Its name.
    pub name: NodeName,
    org: OrgName,
    key: SigningKey,
    machine: Option<Node>,
    conns: BTreeMap<u64, Conn>,
    roles: BTreeMap<u64, (Port, Option<Role>)>,
    links: BTreeMap<LinkId, u64>,
    running: Option<Running>,
    /// Counts the lives of the agent; an event of an earlier life means nothing.
    pub life: u64,
    spool: BTreeMap<JobId, KeptResult>,
    pinned: Option<String>,
    /// Wall clock minus simulated time, in seconds.
    pub clock_offset: i64,
    random: ChaCha8Rng,
    /// What it logged last.
    pub log: Vec<String>,
    /// A defect to be found.
    pub bug: Option<pushy_core::node::Bug>,
    /// How long things take.
    pub tempo: Tempo,
    /// Whether what it hears and says is reported.
    pub watched: bool,
}

impl NodeHost {
    /// A host with nothing on it yet.
    pub fn new(name: NodeName, org: OrgName, key: SigningKey, seed: u64) -> NodeHost {
        NodeHost {
            name,
            org,
            key,
            machine: None,
            conns: BTreeMap::new(),
            roles: BTreeMap::new(),
            links: BTreeMap::new(),
            running: None,
            life: 0,
            spool: BTreeMap::new(),
            pinned: None,
            clock_offset: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
            log: Vec::new(),
            bug: None,
            tempo: Twist::None.tempo(),
            watched: false,
        }
    }

    /// The rows of the machine's table used since the last call.
    pub fn take_rows(&mut self) -> BTreeMap<String, u64> {
        self.machine.as_mut().map(Node::take_rows).unwrap_or_default()
    }

    /// Whether a result of this job waits on its disk for the server.
    pub fn keeps(&self, job: &JobId) -> bool {
        self.spool.contains_key(job)
    }

    /// Whether the agent has no job.
    pub fn is_idle(&self) -> bool {
        self.machine.as_ref().is_none_or(|machine| machine.job_state().0 == job_runner::State::Idle)
    }

    /// Whether the agent runs.
    pub fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// The agent starts.
    pub fn start(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        self.life += 1;
        let generator = ChaCha8Rng::seed_from_u64(self.random.next_u64());
        let settings = Settings {
            node: self.name.clone(),
            host: self.name.to_string(),
            org: self.org.clone(),
            incarnation: IncarnationId::generate(&mut self.random),
            client_key: self.key.clone(),
            max_body: 63_000,
            whitelist: whitelist(),
        };
        let restored =
            Restored { results: self.spool.values().cloned().collect(), pinned: self.pinned.clone() };
        let mut machine = Node::new(settings, restored, Box::new(generator), clock(now, self.clock_offset));
        if let Some(bug) = self.bug {
            machine.plant(bug);
        }
        self.machine = Some(machine);
        self.drain(now, wishes);
    }

    /// The agent dies; its process tree with it. Answers the links that die.
    pub fn crash(&mut self) -> Vec<LinkId> {
        self.machine = None;
        self.running = None;
        self.conns.clear();
        self.roles.clear();
        std::mem::take(&mut self.links).into_keys().collect()
    }

    /// The answer to a fetch.
    pub fn config(&mut self, now: u64, body: Option<String>, wishes: &mut Vec<Wish>) {
        let input = match body {
            Some(text) => Input::Config { body: text.into_bytes() },
            None => Input::ConfigFailed { why: "no answer".into() },
        };
        self.tell(now, input, wishes);
    }

    /// A stream that was asked for exists.
    pub fn connected(&mut self, now: u64, conn: u64, link: LinkId, wishes: &mut Vec<Wish>) {
        let Some((_, role)) = self.roles.get_mut(&conn) else {
            wishes.push(Wish::Close(link));
            return;
        };
        let Some(role) = role.take() else { return };
        let limits = Limits { max_body: pushy_core::wire::MAX_SERVER_BODY, ping: Some(Millis(30_000)) };
        let peer = Peer::new(role, limits, Millis(now), &mut self.random);
        self.conns.insert(conn, Conn { link, peer });
        self.links.insert(link, conn);
        self.flush(conn, wishes);
    }

    /// A stream that was asked for cannot be had.
    pub fn refused(&mut self, now: u64, conn: u64, wishes: &mut Vec<Wish>) {
        if self.roles.remove(&conn).is_some() {
            self.tell(
                now,
                Input::Disconnected { conn, stage: Stage::Connecting, why: "refused".into() },
                wishes,
            );
        }
    }

    /// Bytes arrived.
    pub fn receive(&mut self, now: u64, link: LinkId, bytes: &[u8], wishes: &mut Vec<Wish>) {
        let Some(conn) = self.links.get(&link).copied() else { return };
        let mut rest = bytes;
        loop {
            let Some(c) = self.conns.get_mut(&conn) else { return };
            match c.peer.receive(Millis(now), &mut rest) {
                Ok(None) => break,
                Ok(Some(PeerEvent::Opened)) => self.tell(now, Input::Connected { conn }, wishes),
                Ok(Some(PeerEvent::Message { header, body })) => {
                    if self.watched && self.is_command(conn) {
                        wishes.push(Wish::Told(body.clone(), self.is_idle()));
                    }
                    self.tell(now, Input::Frames { conn, header, body }, wishes);
                }
                Ok(Some(PeerEvent::Authenticate { .. })) => {}
                Err(why) => {
                    wishes.push(Wish::Close(link));
                    self.gone_because(now, link, why.to_string(), wishes);
                    return;
                }
            }
        }
        self.flush(conn, wishes);
    }

    /// A stream is gone.
    pub fn gone(&mut self, now: u64, link: LinkId, wishes: &mut Vec<Wish>) {
        self.gone_because(now, link, "closed by the other end".into(), wishes);
    }

    /// The operating system reports.
    pub fn job_event(&mut self, now: u64, event: JobEvent, wishes: &mut Vec<Wish>) {
        let input = match event {
            JobEvent::Prepared(job, good) => {
                let verdict =
                    if good { Ok(()) } else { Err(Reason::new(ReasonCode::NoSuchUser, "no such user")) };
                job_runner::Input::Prepared { job, verdict }
            }
            JobEvent::Started(job, true) => {
                if let Some(running) = self.running.as_mut().filter(|r| r.job == job) {
                    running.exists = true;
                }
                wishes.push(Wish::Started(job.clone()));
                let lasts = self.lasts();
                if let Some(lasts) = lasts {
                    wishes.push(Wish::Later(lasts, JobEvent::Ends(job.clone())));
                }
                job_runner::Input::Started { job }
            }
            JobEvent::Started(job, false) => {
                self.running = None;
                wishes.push(Wish::Ended(job.clone(), false));
                job_runner::Input::StartFailed {
                    job,
                    why: Reason::new(ReasonCode::StartFailed, "no such file"),
                }
            }
            JobEvent::Ends(job) => {
                let Some(running) = self.running.take_if(|r| r.job == job && !r.killed) else { return };
                let good = running.command != "fail";
                wishes.push(Wish::Ended(job.clone(), good));
                exited(job, Exit::Status(i32::from(!good)))
            }
            JobEvent::Gone(job) => {
                let Some(_) = self.running.take_if(|r| r.job == job) else { return };
                exited(job, Exit::Signal(15))
            }
        };
        self.tell(now, Input::Job(input), wishes);
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        self.tell(now, Input::Tick, wishes);
        let due: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, c)| c.peer.next_deadline().is_some_and(|at| at.0 <= now))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in due {
            let Some(c) = self.conns.get_mut(&conn) else { continue };
            let link = c.link;
            if let Err(why) = c.peer.tick(Millis(now)) {
                wishes.push(Wish::Close(link));
                self.gone_because(now, link, why.to_string(), wishes);
            } else {
                self.flush(conn, wishes);
            }
        }
    }

    /// When [`NodeHost::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        let machine = self.machine.as_ref()?.next_deadline();
        let peers = self.conns.values().filter_map(|c| c.peer.next_deadline()).min();
        machine.into_iter().chain(peers).min().map(|m| m.0)
    }

    /// Sends two foreign frames over this node's own command connection. Answers whether there was one.
    pub fn inject(&mut self, header: &[u8], body: &[u8], wishes: &mut Vec<Wish>) -> bool {
        let Some(conn) = self.conns.keys().copied().find(|conn| self.is_command(*conn)) else { return false };
        let sent = self.conns.get_mut(&conn).is_some_and(|c| c.peer.send(header, body).is_ok());
        self.flush(conn, wishes);
        sent
    }

    fn is_command(&self, conn: u64) -> bool {
        self.roles.get(&conn).is_some_and(|(port, _)| *port == Port::Command)
    }

    /// How long the process that was just started will run; `None`: until it is killed.
    fn lasts(&mut self) -> Option<u64> {
        match self.running.as_ref()?.command.as_str() {
            "hang" => None,
            "slow" => Some(2_000 + self.random.next_u64() % 6_000),
            _ => Some(self.random.next_u64() % 40),
        }
    }

    fn gone_because(&mut self, now: u64, link: LinkId, why: String, wishes: &mut Vec<Wish>) {
        let Some(conn) = self.links.remove(&link) else { return };
        let open = self.conns.remove(&conn).is_some_and(|c| c.peer.is_open());
        if self.watched && self.is_command(conn) {
            wishes.push(Wish::Deaf);
        }
        if self.roles.remove(&conn).is_some() {
            let stage = if open { Stage::Open } else { Stage::Handshake };
            self.tell(now, Input::Disconnected { conn, stage, why }, wishes);
        }
    }

    fn tell(&mut self, now: u64, input: Input, wishes: &mut Vec<Wish>) {
        if let Some(machine) = &mut self.machine {
            machine.handle(clock(now, self.clock_offset), input);
            self.drain(now, wishes);
        }
    }

    fn drain(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        while let Some(output) = self.machine.as_mut().and_then(Node::poll_output) {
            self.carry_out(now, output, wishes);
        }
    }

    fn carry_out(&mut self, now: u64, output: Output, wishes: &mut Vec<Wish>) {
        match output {
            Output::FetchConfig { key } => wishes.push(Wish::Fetch(key)),
            // No server of the simulation takes documents.
            Output::Publish => {}
            Output::Connect { conn, port, curve, .. } => {
                let role = match curve {
                    Some(curve) => Role::Dealer { secret: curve.keys.0, server: curve.server },
                    None => Role::Subscriber,
                };
                self.roles.insert(conn, (port, Some(role)));
                wishes.push(Wish::Connect(conn, port));
            }
            Output::Close { conn } => {
                if self.watched && self.is_command(conn) {
                    wishes.push(Wish::Deaf);
                }
                self.roles.remove(&conn);
                if let Some(c) = self.conns.remove(&conn) {
                    self.links.remove(&c.link);
                    wishes.push(Wish::Close(c.link));
                }
            }
            Output::Send { conn, header, body } => {
                if let Some(c) = self.conns.get_mut(&conn) {
                    let _ = c.peer.send(&header, &body);
                    if self.watched {
                        wishes.push(Wish::Said(body));
                    }
                    self.flush(conn, wishes);
                }
            }
            Output::Prepare { job, spec } => {
                let good = spec.command != "cannot-prepare";
                wishes.push(Wish::Later(
                    self.random.next_u64() % self.tempo.checks,
                    JobEvent::Prepared(job, good),
                ));
            }
            Output::Release { .. } => {}
            Output::Spawn { job, spec } => {
                let good = spec.command != "cannot-start";
                wishes.push(Wish::Options(job.clone(), spec.options.clone()));
                let command = spec.command.clone();
                self.running = Some(Running { job: job.clone(), command, exists: false, killed: false });
                let wait = self.random.next_u64() % self.tempo.start;
                wishes.push(Wish::Later(wait, JobEvent::Started(job, good)));
            }
            Output::Kill { job } => {
                let wait = self.random.next_u64() % self.tempo.kill;
                // What does not exist yet cannot be ended; once it does, the machine says so again.
                if let Some(running) = self.running.as_mut().filter(|r| r.job == job && r.exists) {
                    running.killed = true;
                    wishes.push(Wish::Killed(job.clone()));
                    wishes.push(Wish::Later(wait, JobEvent::Gone(job)));
                }
            }
            Output::SpoolResult(result) => {
                self.spool.insert(result.job.clone(), result);
            }
            Output::DropResult { job } => {
                self.spool.remove(&job);
            }
            Output::PinServerKey { pem } => self.pinned = Some(pem),
            // Its commands print nothing.
            Output::ReadOutput(_) => {}
            Output::Reloaded | Output::Exit { .. } => {}
            Output::Log { level, job, text } => {
                if level > LogLevel::Debug {
                    self.log.push(format!("{now}: {} {job:?} {text}", self.name));
                }
            }
        }
    }

    fn flush(&mut self, conn: u64, wishes: &mut Vec<Wish>) {
        if let Some(c) = self.conns.get_mut(&conn) {
            let bytes = c.peer.transmit().to_vec();
            if !bytes.is_empty() {
                c.peer.sent(bytes.len());
                wishes.push(Wish::Transmit(c.link, bytes));
            }
        }
    }
}

fn exited(job: JobId, exit: Exit) -> job_runner::Input {
    job_runner::Input::Exited { job, exit, stdout: Captured::default(), stderr: Captured::default() }
}
