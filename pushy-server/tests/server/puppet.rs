//! A node pulled by strings: fetches its configuration, connects, says what the test tells it to.

use std::collections::VecDeque;
use std::sync::Arc;

use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgName};
use pushy_core::message::{Caps, Captured, JobRef, JobState, NodeIdentity, NodeMessage};
use pushy_core::node_config::NodeConfig;
use pushy_core::time::{Millis, Wall};
use pushy_core::wire::{SessionKey, hmac_header};
use pushy_core::zmtp::{CurveSecret, Event, Limits, Peer, Role};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::lab::{Actor, DEADLINE, Lab};

/// What a node has besides a connection.
pub(crate) struct Puppet {
    pub(crate) actor: Actor,
    curve: Arc<CurveSecret>,
    config: NodeConfig,
    session: SessionKey,
    pub(crate) identity: NodeIdentity,
    /// What the heartbeats of its next connection announce.
    pub(crate) caps: Option<Caps>,
}

/// A connection to the command port.
pub(crate) struct Line {
    stream: TcpStream,
    peer: Peer,
    session: SessionKey,
    identity: NodeIdentity,
    sequence: u64,
    /// Its clock against the server's, in seconds.
    pub(crate) clock: i64,
    /// What its heartbeats announce; nothing, as an original, unless a test says otherwise.
    pub(crate) caps: Option<Caps>,
    happened: VecDeque<Event>,
}

/// What a connection ends in when it does not open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoLine {
    /// The server closed it.
    Closed,
    /// The server said nothing for half a second.
    Silence,
}

fn config_path(name: &str, curve: &CurveSecret) -> String {
    let z85: String = curve.public().to_z85().bytes().map(|b| format!("%{b:02X}")).collect();
    format!("~/config/{name}?ccpk={z85}&version=2.0")
}

impl Puppet {
    /// Fetches the configuration with a new CURVE key.
    pub(crate) async fn new(lab: &Lab, actor: Actor) -> Puppet {
        Puppet::new_as(lab, &actor, &actor.name).await
    }

    /// The same for somebody who may be another than the node.
    pub(crate) async fn new_as(lab: &Lab, actor: &Actor, name: &str) -> Puppet {
        let actor = actor.clone();
        let curve = Arc::new(CurveSecret::generate(&mut rand_core::OsRng));
        let answer = lab.get(&actor, &config_path(name, &curve)).await;
        answer.check_status(200);
        let config = NodeConfig::from_json(&answer.body).expect("a configuration");
        let session = config.session_key(&actor.key).expect("a session key");
        let identity = NodeIdentity {
            node: NodeName::new(name).expect("a name"),
            org: OrgName::new("acme").expect("a name"),
            client: "puppet".into(),
            incarnation: IncarnationId::new("0d6b7a52-3c4e-4f0f-8a1b-9e2d7c6b5a40").expect("an id"),
        };
        Puppet { actor, curve, config, session, identity, caps: None }
    }

    /// The status of another fetch with the same key.
    pub(crate) async fn fetch(&self, lab: &Lab) -> u16 {
        lab.get(&self.actor, &config_path(&self.actor.name, &self.curve)).await.status
    }

    /// Shakes hands with the server as it runs now.
    pub(crate) async fn connect(&self, lab: &Lab) -> Result<Line, NoLine> {
        let address = lab.about["command"].as_str().expect("an address");
        let stream = TcpStream::connect(address).await.expect("a connection");
        let server = self.config.curve_public_key.expect("a key");
        let role = Role::Dealer { secret: Arc::clone(&self.curve), server };
        let limits = Limits { max_body: 65_536, ping: None };
        let peer = Peer::new(role, limits, Millis(0), &mut rand_core::OsRng);
        let (session, identity) = (self.session.clone(), self.identity.clone());
        let mut line = Line {
            stream,
            peer,
            session,
            identity,
            sequence: 0,
            clock: 0,
            caps: self.caps,
            happened: VecDeque::new(),
        };
        let opened = tokio::time::timeout(std::time::Duration::from_millis(500), line.event()).await;
        match opened {
            Ok(Some(Event::Opened)) => Ok(line),
            Ok(Some(other)) => panic!("{other:?}"),
            Ok(None) => Err(NoLine::Closed),
            Err(_) => Err(NoLine::Silence),
        }
    }

    /// Connects, and answers the first contact's abort.
    pub(crate) async fn online(&self, lab: &Lab) -> Line {
        let mut line = self.connect(lab).await.expect("a handshake");
        line.heartbeat(JobState::Idle, None).await;
        line.expect("abort").await;
        line.say(NodeMessage::Aborted { job: JobRef::None, reason: None }).await;
        line
    }
}

impl Line {
    /// The next thing that happens; `None`: the server closed the connection.
    async fn event(&mut self) -> Option<Event> {
        let mut buffer = [0u8; 4096];
        loop {
            if let Some(event) = self.happened.pop_front() {
                return Some(event);
            }
            self.flush().await;
            let count = self.stream.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                return None;
            }
            let mut bytes = &buffer[..count];
            while let Some(event) = self.peer.receive(Millis(0), &mut bytes).expect("a sound peer") {
                self.happened.push_back(event);
            }
        }
    }

    async fn flush(&mut self) {
        while !self.peer.transmit().is_empty() {
            let bytes = self.peer.transmit().to_vec();
            if self.stream.write_all(&bytes).await.is_err() {
                return;
            }
            self.peer.sent(bytes.len());
        }
    }

    pub(crate) async fn say(&mut self, message: NodeMessage) {
        self.sequence += 1;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let at = Wall::from_secs(now.as_secs() as i64 + self.clock);
        let body = message.encode(&self.identity, self.sequence, at);
        self.peer.send(&hmac_header(&self.session.0, &body), &body).expect("an open line");
        self.flush().await;
    }

    pub(crate) async fn heartbeat(&mut self, state: JobState, job: Option<&JobId>) {
        let job = job.cloned().into();
        self.say(NodeMessage::Heartbeat { state: Some(state), job, caps: self.caps }).await;
    }

    /// The next message, whatever it is; `None`: the server closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let event = tokio::time::timeout(DEADLINE, self.event()).await.expect("something in time")?;
        let Event::Message { body, .. } = event else { panic!("{event:?}") };
        Some(serde_json::from_slice(&body).expect("JSON"))
    }

    /// The next message, which must be of this type. An `ack` may come at any time and means nothing more than that
    /// the line works.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        let mut message = self.next().await.expect("an open line");
        while kind != "ack" && message["type"] == "ack" {
            message = self.next().await.expect("an open line");
        }
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// Votes for the next commit, acknowledges its run; answers the job's id.
    pub(crate) async fn take_job(&mut self) -> JobId {
        let commit = self.expect("commit").await;
        let id = JobId::new(commit["job_id"].as_str().expect("an id")).expect("an id");
        self.say(NodeMessage::AckCommit { job: JobRef::Id(id.clone()) }).await;
        self.expect("run").await;
        self.say(NodeMessage::AckRun { job: JobRef::Id(id.clone()) }).await;
        id
    }

    pub(crate) async fn succeed(&mut self, job: &JobId, stdout: &str) {
        let output = Captured { stdout: Some(stdout.into()), stderr: Some(String::new()) };
        self.say(NodeMessage::Succeeded { job: JobRef::Id(job.clone()), output }).await;
    }
}
