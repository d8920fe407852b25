//! A server machine with a made-up clock, store and nodes, for the tests named `server_*`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use openssl::rsa::Rsa;
use pushy_core::auth::SigningKey;
use pushy_core::event::Event;
use pushy_core::ids::{IncarnationId, JobId, NodeName, NodeRef, OrgId, OrgName};
use pushy_core::job::{JobOptions, JobRequest, JobStatus, NodeStatus};
use pushy_core::message::{
    Caps, Captured, FromServer, JobRef, JobState, NodeIdentity, NodeMessage, ServerMessage,
};
use pushy_core::node_config::NodeConfig;
use pushy_core::server::{
    Binding, CancelAnswer, ConnId, CurveKey, FeedEnd, Input, LogEntry, NodeState, Output, Record, RequestId,
    Restored, Server, ServerConfig, ServerKeys, Ticket,
};
use pushy_core::time::{Millis, Now, Wall};
use pushy_core::wire::{self, SessionKey};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A private key and its public half, in PEM; made once.
pub(crate) fn rsa() -> &'static (String, String) {
    static KEY: OnceLock<(String, String)> = OnceLock::new();
    KEY.get_or_init(|| {
        let key = Rsa::generate(2048).unwrap();
        let private = String::from_utf8(key.private_key_to_pem().unwrap()).unwrap();
        (private, String::from_utf8(key.public_key_to_pem().unwrap()).unwrap())
    })
}

pub(crate) const T0: i64 = 1_700_000_000;

pub(crate) fn org() -> OrgId {
    OrgId::new("0123456789abcdef0123456789abcdef").unwrap()
}

pub(crate) fn org_name() -> OrgName {
    OrgName::new("acme").unwrap()
}

pub(crate) fn node_ref(name: &str) -> NodeRef {
    NodeRef { org: org(), node: NodeName::new(name).unwrap() }
}

pub(crate) fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn curve_key(n: u8, name: &str) -> CurveKey {
    let mut key = [n; 32];
    key[1..].iter_mut().zip(name.bytes()).for_each(|(k, b)| *k = b);
    CurveKey(key)
}

/// A node as far as the server can tell.
#[derive(Clone)]
pub(crate) struct FakeNode {
    pub(crate) identity: NodeIdentity,
    pub(crate) key: CurveKey,
    pub(crate) session: Option<SessionKey>,
    pub(crate) conn: Option<ConnId>,
    pub(crate) sequence: u64,
    pub(crate) caps: Option<Caps>,
    /// Its clock against ours, in seconds.
    pub(crate) clock: i64,
}

/// What the made-up store does with a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disk {
    Keeps,
    Waits,
    Fails,
}

pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) now: Now,
    pub(crate) disk: Disk,
    pub(crate) waiting: Vec<(Ticket, Vec<Record>)>,
    /// Everything kept, in order.
    pub(crate) kept: Vec<Record>,
    pub(crate) batches: usize,
    pub(crate) outputs: Vec<Output>,
    pub(crate) nodes: BTreeMap<String, FakeNode>,
    next_conn: u64,
    next_request: u64,
    pub(crate) config: ServerConfig,
}

pub(crate) fn keys() -> ServerKeys {
    ServerKeys {
        signing: rsa().0.clone(),
        curve_public: CurveKey([9; 32]),
        incarnation: IncarnationId::new("server-1").unwrap(),
        server_name: "push".into(),
    }
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab::with(ServerConfig::default())
    }

    pub(crate) fn with(config: ServerConfig) -> Lab {
        Lab::restored(config, Restored::default())
    }

    pub(crate) fn restored(config: ServerConfig, restored: Restored) -> Lab {
        let now = Now { mono: Millis(1_000), wall: Wall::from_secs(T0) };
        let random = Box::new(ChaCha8Rng::seed_from_u64(7));
        let server = Server::new(config.clone(), keys(), restored, random, now).unwrap();
        let mut lab = Lab {
            server,
            now,
            disk: Disk::Keeps,
            waiting: Vec::new(),
            kept: Vec::new(),
            batches: 0,
            outputs: Vec::new(),
            nodes: BTreeMap::new(),
            next_conn: 0,
            next_request: 0,
            config,
        };
        lab.handle(Input::Tick);
        lab
    }

    /// One input, then everything that follows from it.
    pub(crate) fn handle(&mut self, input: Input) {
        self.server.handle(self.now, input);
        self.drain();
    }

    pub(crate) fn drain(&mut self) {
        loop {
            let output = self.server.poll_output().or_else(|| self.server.poll_bulk(self.now));
            let Some(output) = output else { return };
            if let Output::Persist { ticket, records } = output {
                self.batches += 1;
                self.waiting.push((ticket, records));
                self.serve_disk();
            } else {
                self.outputs.push(output);
            }
        }
    }

    pub(crate) fn serve_disk(&mut self) {
        for (ticket, records) in match self.disk {
            Disk::Waits => return,
            Disk::Keeps | Disk::Fails => std::mem::take(&mut self.waiting),
        } {
            if self.disk == Disk::Keeps {
                self.kept.extend(records);
                self.server.handle(self.now, Input::Persisted { ticket });
            } else {
                self.server.handle(self.now, Input::PersistFailed { ticket });
            }
        }
    }

    pub(crate) fn set_disk(&mut self, disk: Disk) {
        self.disk = disk;
        self.serve_disk();
        self.drain();
    }

    /// Lets time pass, serving every deadline on the way.
    pub(crate) fn pass(&mut self, millis: u64) {
        let end = self.now.mono + Millis(millis);
        while let Some(at) = self.server.next_deadline().filter(|at| *at <= end) {
            self.advance(at.max(self.now.mono));
            self.handle(Input::Tick);
        }
        self.advance(end);
        self.handle(Input::Tick);
    }

    /// Moves the clock without telling the server.
    pub(crate) fn advance(&mut self, to: Millis) {
        let micros = (to - self.now.mono).0 as i64 * 1000;
        self.now = Now { mono: to, wall: Wall(self.now.wall.0 + micros) };
    }

    pub(crate) fn next_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    pub(crate) fn next_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(crate) fn add(&mut self, name: &str) {
        let node = FakeNode {
            identity: NodeIdentity {
                node: NodeName::new(name).unwrap(),
                client: "host".into(),
                org: org_name(),
                incarnation: IncarnationId::new(&format!("{name}-1")).unwrap(),
            },
            key: curve_key(1, name),
            session: None,
            conn: None,
            sequence: 0,
            caps: None,
            clock: 0,
        };
        self.nodes.insert(name.into(), node);
    }

    pub(crate) fn node(&mut self, name: &str) -> &mut FakeNode {
        self.nodes.get_mut(name).unwrap()
    }

    pub(crate) fn fetch(&mut self, name: &str) {
        let request = self.next_request();
        let key = self.node(name).key;
        self.handle(Input::FetchConfig {
            request,
            node: node_ref(name),
            org_name: org_name(),
            key,
            public_key: rsa().1.clone(),
            is_node: true,
        });
        let body = self.outputs.iter().rev().find_map(|o| match o {
            Output::Config { request: r, body } if *r == request => Some(body.clone()),
            _ => None,
        });
        if let Some(body) = body {
            let config = NodeConfig::from_json(body.as_bytes()).unwrap();
            self.node(name).session =
                Some(config.session_key(&SigningKey::from_pem(&rsa().0).unwrap()).unwrap());
        }
    }

    /// A handshake; answers whether it was accepted and completed.
    pub(crate) fn connect(&mut self, name: &str) -> bool {
        let conn = self.next_conn();
        let key = self.node(name).key;
        self.handle(Input::Handshake { conn, key, peer: format!("10.0.0.1:{}", conn.0) });
        let accepted = self.outputs.contains(&Output::Accept { conn });
        if accepted {
            self.handle(Input::Opened { conn });
            let node = self.node(name);
            node.conn = Some(conn);
            node.sequence = 0;
            // Every connection begins with an `ack`; the tests are about what comes after it.
            let greeting = |o: &Output| matches!(o, Output::Send { conn: c, .. } if *c == conn);
            let at = self.outputs.iter().rposition(greeting);
            let at = at.expect("a new connection is acknowledged");
            self.outputs.remove(at);
        }
        accepted
    }

    pub(crate) fn disconnect(&mut self, name: &str) {
        if let Some(conn) = self.node(name).conn.take() {
            self.handle(Input::Closed { conn });
        }
    }

    pub(crate) fn frames(&mut self, name: &str, message: &NodeMessage) -> (Vec<u8>, Vec<u8>) {
        let now = self.now.wall;
        let node = self.node(name);
        node.sequence += 1;
        let at = Wall(now.0 + node.clock * 1_000_000);
        let body = message.encode(&node.identity, node.sequence, at);
        (wire::hmac_header(&node.session.as_ref().unwrap().0, &body), body)
    }

    pub(crate) fn say(&mut self, name: &str, message: NodeMessage) {
        let (header, body) = self.frames(name, &message);
        let conn = self.node(name).conn.unwrap();
        self.handle(Input::Frames { conn, header, body });
    }

    pub(crate) fn beat(&mut self, name: &str, state: JobState, job: Option<&JobId>) {
        let caps = self.node(name).caps;
        self.say(name, NodeMessage::Heartbeat { state: Some(state), job: job.cloned().into(), caps });
    }

    /// Brings a node to available, then lets two seconds pass so that its heartbeats are fresh.
    pub(crate) fn bring_up(&mut self, name: &str) {
        self.add(name);
        self.fetch(name);
        assert!(self.connect(name), "{name}: handshake refused");
        self.beat(name, JobState::Idle, None);
        self.say(name, NodeMessage::Aborted { job: JobRef::None, reason: None });
        assert!(self.state(name).available, "{name} is not available");
        self.pass(2_000);
        self.outputs.clear();
    }

    pub(crate) fn state(&self, name: &str) -> NodeState {
        self.server.node_state(&node_ref(name))
    }

    pub(crate) fn request(&mut self, nodes: &[&str]) -> JobRequest {
        JobRequest {
            command: "chef-client".into(),
            nodes: nodes.iter().map(|n| NodeName::new(n).unwrap()).collect(),
            run_timeout: None,
            quorum: None,
            options: JobOptions::default(),
        }
    }

    pub(crate) fn post(&mut self, job: JobRequest) -> RequestId {
        let request = self.next_request();
        self.handle(Input::StartJob { request, org: org(), requester: "admin".into(), job: Box::new(job) });
        request
    }

    /// Starts a job on these nodes.
    pub(crate) fn start(&mut self, nodes: &[&str]) -> JobId {
        let job = self.request(nodes);
        self.start_job(job)
    }

    pub(crate) fn start_job(&mut self, job: JobRequest) -> JobId {
        let request = self.post(job);
        self.outputs
            .iter()
            .find_map(|o| match o {
                Output::JobStarted { request: r, job } if *r == request => Some(job.clone()),
                _ => None,
            })
            .expect("job not started")
    }

    /// The messages sent to a node since the last [`Lab::clear`].
    pub(crate) fn sent(&self, name: &str) -> Vec<ServerMessage> {
        let node = &self.nodes[name];
        self.outputs
            .iter()
            .filter_map(|o| match o {
                Output::Send { conn, header, body } if Some(*conn) == node.conn => {
                    let key = &node.session.as_ref().unwrap().0;
                    assert_eq!(*header, wire::hmac_header(key, body));
                    Some(FromServer::decode(body).unwrap().message)
                }
                _ => None,
            })
            .collect()
    }

    /// The types of [`Lab::sent`], in one line.
    pub(crate) fn sent_types(&self, name: &str) -> String {
        self.sent(name).iter().map(|m| m.type_name().to_owned()).collect::<Vec<_>>().join(" ")
    }

    /// The events told since the last [`Lab::clear`], as `name(node:status)`.
    pub(crate) fn events(&self) -> Vec<String> {
        self.outputs
            .iter()
            .filter_map(|o| match o {
                Output::Event { event, .. } => Some(event_text(event)),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn clear(&mut self) {
        self.outputs.clear();
    }

    pub(crate) fn logs(&self) -> Vec<&LogEntry> {
        self.outputs
            .iter()
            .filter_map(|o| match o {
                Output::Log(entry) => Some(entry),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn log_has(&self, text: &str) -> bool {
        self.logs().iter().any(|entry| entry.text.contains(text))
    }

    /// The job of the first answer that says that one is started.
    pub(crate) fn started(&self) -> Option<JobId> {
        self.outputs.iter().find_map(|o| match o {
            Output::JobStarted { job, .. } => Some(job.clone()),
            _ => None,
        })
    }

    /// A job as the store has it.
    pub(crate) fn stored(&self, id: &JobId) -> Option<pushy_core::job::Job> {
        let mut found = None;
        for record in &self.kept {
            match record {
                Record::NewJob(job) if job.id == *id => found = Some((**job).clone()),
                Record::JobStatus { job, status, updated_at, deadline } if job == id => {
                    let found = found.as_mut().unwrap();
                    found.status = *status;
                    found.updated_at = *updated_at;
                    found.deadline = *deadline;
                }
                Record::NodeStatus { job, node, status, reason, .. } if job == id => {
                    let found = found.as_mut().unwrap();
                    found.nodes.iter_mut().find(|(n, _)| n == node).unwrap().1 = *status;
                    match reason {
                        Some(reason) => found.reasons.insert(node.clone(), reason.clone()),
                        None => found.reasons.remove(node),
                    };
                }
                _ => {}
            }
        }
        found
    }

    pub(crate) fn job_status(&self, id: &JobId) -> JobStatus {
        self.stored(id).expect("job not stored").status
    }

    pub(crate) fn node_status(&self, id: &JobId, node: &str) -> NodeStatus {
        let job = self.stored(id).expect("job not stored");
        job.nodes.iter().find(|(n, _)| n.as_str() == node).expect("no such node").1
    }

    /// Why a node did not do its part, as `code: text`; empty: nothing is kept.
    pub(crate) fn reason(&self, id: &JobId, node: &str) -> String {
        let job = self.stored(id).expect("job not stored");
        let reason = job.reasons.get(&NodeName::new(node).unwrap());
        reason.map_or_else(String::new, |why| format!("{}: {why}", why.code()))
    }

    /// Cancels a job, or these nodes of it.
    pub(crate) fn cancel(&mut self, job: &JobId, nodes: &[&str]) -> Option<CancelAnswer> {
        let request = self.next_request();
        let nodes = nodes.iter().map(|n| NodeName::new(n).unwrap()).collect();
        self.handle(Input::CancelJob { request, org: org(), job: job.clone(), nodes, by: "ann".into() });
        self.cancel_answer(request)
    }

    pub(crate) fn cancel_answer(&self, request: RequestId) -> Option<CancelAnswer> {
        self.outputs.iter().find_map(|o| match o {
            Output::CancelAnswer { request: r, answer } if *r == request => Some(answer.clone()),
            _ => None,
        })
    }

    /// What a restart would find.
    pub(crate) fn store(&self) -> Restored {
        let mut bindings: Vec<Binding> = Vec::new();
        let mut jobs = Vec::new();
        let mut feeds = Vec::new();
        for record in &self.kept {
            match record {
                Record::Binding(binding) => {
                    bindings.retain(|b| (&b.node, b.key) != (&binding.node, binding.key));
                    bindings.push(binding.clone());
                }
                Record::BindingEnded { node, key } => {
                    bindings.retain(|b| (&b.node, b.key) != (node, *key));
                }
                Record::NewJob(job) => jobs.push(job.id.clone()),
                Record::Feed { job, first, frames, at } => {
                    feeds.retain(|end: &FeedEnd| end.job != *job);
                    feeds.push(FeedEnd { job: job.clone(), last: first + frames.len() as u64 - 1, at: *at });
                }
                _ => {}
            }
        }
        let jobs = jobs.iter().filter_map(|id| self.stored(id)).filter(|j| !j.status.is_terminal()).collect();
        Restored { bindings, jobs, feeds }
    }

    /// Ends this server and starts another from the store, `millis` later. Connections are gone.
    pub(crate) fn restart(&mut self, millis: u64) {
        let to = self.now.mono + Millis(millis);
        self.advance(to);
        let random = Box::new(ChaCha8Rng::seed_from_u64(self.now.mono.0));
        self.server = Server::new(self.config.clone(), keys(), self.store(), random, self.now).unwrap();
        self.waiting.clear();
        self.outputs.clear();
        for node in self.nodes.values_mut() {
            node.conn = None;
        }
        self.handle(Input::Tick);
    }
}

pub(crate) fn event_text(event: &Event) -> String {
    match event {
        Event::QuorumVote { node, vote } => format!("quorum_vote({node}:{})", vote.as_str()),
        Event::RunStart { node } => format!("run_start({node})"),
        Event::RunComplete { node, result } => format!("run_complete({node}:{})", result.as_str()),
        Event::Rehab { node } => format!("rehab({node})"),
        Event::JobComplete { status } => format!("job_complete({status})"),
        Event::Start | Event::QuorumSucceeded => event.name().to_owned(),
    }
}

pub(crate) fn ack_commit(job: &JobId) -> NodeMessage {
    NodeMessage::AckCommit { job: job.clone().into() }
}

pub(crate) fn nack_commit(job: &JobId) -> NodeMessage {
    NodeMessage::NackCommit { job: job.clone().into(), reason: None }
}

pub(crate) fn ack_run(job: &JobId) -> NodeMessage {
    NodeMessage::AckRun { job: job.clone().into() }
}

pub(crate) fn nack_run(job: &JobId) -> NodeMessage {
    NodeMessage::NackRun { job: job.clone().into(), reason: None }
}

pub(crate) fn succeeded(job: &JobId) -> NodeMessage {
    NodeMessage::Succeeded { job: job.clone().into(), output: Captured::default() }
}

pub(crate) fn failed(job: &JobId) -> NodeMessage {
    NodeMessage::Failed { job: job.clone().into(), output: Captured::default(), reason: None }
}

pub(crate) fn aborted(job: Option<&JobId>) -> NodeMessage {
    NodeMessage::Aborted { job: job.cloned().into(), reason: None }
}

/// A server that knows `count` nodes, all connected and available.
pub(crate) fn fleet(count: usize) -> (Lab, Vec<String>) {
    let names: Vec<String> = (0..count).map(|n| format!("node-{n:05}")).collect();
    let session = SessionKey([7; 32]);
    let bindings = names.iter().map(|name| Binding {
        node: node_ref(name),
        org_name: org_name(),
        key: curve_key(1, name),
        session: session.clone(),
        fetched_at: Wall::from_secs(T0),
        active: true,
    });
    let restored = Restored { bindings: bindings.collect(), ..Restored::default() };
    let mut lab = Lab::restored(ServerConfig::default(), restored);
    for name in &names {
        lab.add(name);
        lab.node(name).session = Some(session.clone());
        assert!(lab.connect(name));
        lab.outputs.clear();
    }
    for name in &names {
        lab.beat(name, JobState::Idle, None);
        lab.outputs.clear();
    }
    (lab, names)
}
