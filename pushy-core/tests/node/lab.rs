//! A node and a server played by hand, on one clock.

use std::sync::OnceLock;

use pushy_core::auth::{PublicKey, SigningKey};
use pushy_core::curve_key::CurveKey;
use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgName};
use pushy_core::job::JobOptions;
use pushy_core::message::{Caps, Commit, FromNode, ServerMessage};
use pushy_core::node::{DEFAULT_MAX_BODY, Input, KeptResult, Node, Output, Port, Restored, Settings};
use pushy_core::node_config::{NodeConfig, wrap_session_key};
use pushy_core::time::{Millis, Now, Wall};
use pushy_core::value::Value;
use pushy_core::whitelist::{Key, Whitelist};
use pushy_core::wire::{self, Limits, RsaSigner, SessionKey};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub(crate) const JOB: &str = "4be1d6f0a9c30123456789abcdef0123";
const START: i64 = 1_700_000_000;

pub(crate) fn job() -> JobId {
    JobId::new(JOB).expect("an id")
}

/// Two key pairs in PEM: the server's and the node's. Made once; making one takes long.
pub(crate) fn pems() -> &'static [String; 3] {
    static PEMS: OnceLock<[String; 3]> = OnceLock::new();
    PEMS.get_or_init(|| {
        [(); 3].map(|()| {
            let key = openssl::rsa::Rsa::generate(2048).expect("a key");
            String::from_utf8(key.private_key_to_pem().expect("PEM")).expect("text")
        })
    })
}

const SESSION: SessionKey = SessionKey([7; 32]);

/// The session key, wrapped for the node.
fn wrapped() -> &'static str {
    static WRAPPED: OnceLock<String> = OnceLock::new();
    WRAPPED.get_or_init(|| {
        let node_key = SigningKey::from_pem(&pems()[1]).expect("a key");
        let public = PublicKey::from_pem(node_key.public_pem().expect("PEM")).expect("a key");
        wrap_session_key(&SESSION, &public, &mut ChaCha8Rng::seed_from_u64(1)).expect("wrapped")
    })
}

/// What the played server is.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) signer: RsaSigner,
    pub(crate) session: SessionKey,
    pub(crate) curve: CurveKey,
    pub(crate) incarnation: IncarnationId,
    pub(crate) caps: Option<Caps>,
    pub(crate) max_body: Option<usize>,
    pub(crate) sequence: u64,
    pub(crate) interval: Millis,
}

impl Server {
    pub(crate) fn new(key: usize) -> Server {
        Server {
            signer: RsaSigner::from_pem(&pems()[key]).expect("a key"),
            session: SESSION,
            curve: CurveKey([9; 32]),
            incarnation: IncarnationId::new("first").expect("an id"),
            caps: Some(Caps::OF_SERVER),
            max_body: Some(65_536),
            sequence: 0,
            interval: Millis(10_000),
        }
    }

    pub(crate) fn config(&self) -> NodeConfig {
        NodeConfig {
            host: "push".into(),
            heartbeat_addr: "tcp://push:10000".into(),
            command_addr: "tcp://push:10002".into(),
            interval: self.interval,
            offline_threshold: 3,
            online_threshold: 2,
            node: "web1".into(),
            organization: "acme".into(),
            public_key: self.signer.public_pem().expect("PEM"),
            curve_public_key: Some(self.curve),
            encoded_session_key: wrapped().to_owned(),
            lifetime: 3_600,
            max_message_skew: 300,
            max_body_size: self.max_body,
            incarnation: self.incarnation.clone(),
            caps: self.caps,
        }
    }
}

/// The node under test with its surroundings.
pub(crate) struct Lab {
    pub(crate) node: Node,
    pub(crate) server: Server,
    now: Now,
    /// Number of the command connection, and of the other, as last asked for.
    pub(crate) command: u64,
    pub(crate) heartbeat: u64,
    /// The key of the last fetch.
    pub(crate) announced: Option<CurveKey>,
    /// What commits say of it.
    pub(crate) run_timeout: Option<u32>,
}

pub(crate) fn whitelist() -> Whitelist {
    Whitelist::builder()
        .entry(Key::Exact("ok".into()), Value::String("true".into()))
        .build()
        .expect("a whitelist")
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab::restored(Restored::default())
    }

    pub(crate) fn restored(restored: Restored) -> Lab {
        let settings = Settings {
            node: NodeName::new("web1").expect("a name"),
            host: "web1".into(),
            org: OrgName::new("acme").expect("a name"),
            incarnation: IncarnationId::new("agent").expect("an id"),
            client_key: SigningKey::from_pem(&pems()[1]).expect("a key"),
            max_body: DEFAULT_MAX_BODY,
            whitelist: whitelist(),
        };
        let now = Now { mono: Millis(1_000), wall: Wall::from_secs(START) };
        let node = Node::new(settings, restored, Box::new(ChaCha8Rng::seed_from_u64(3)), now);
        Lab {
            node,
            server: Server::new(0),
            now,
            command: 0,
            heartbeat: 0,
            announced: None,
            run_timeout: None,
        }
    }

    /// Connected, proved and idle.
    pub(crate) fn online() -> Lab {
        let mut lab = Lab::new();
        lab.outputs();
        lab.join();
        lab
    }

    /// From the fetch to the server's first word.
    pub(crate) fn join(&mut self) {
        self.configure();
        self.connect();
        self.say(&ServerMessage::Ack);
        assert!(self.node.is_online());
    }

    pub(crate) fn now(&self) -> Now {
        self.now
    }

    pub(crate) fn handle(&mut self, input: Input) -> Vec<Output> {
        self.node.handle(self.now, input);
        self.outputs()
    }

    /// Everything to be done but log lines.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.node.poll_output() {
            match &output {
                Output::Connect { conn, port: Port::Command, .. } => self.command = *conn,
                Output::Connect { conn, port: Port::Heartbeat, .. } => self.heartbeat = *conn,
                Output::FetchConfig { key } => self.announced = Some(*key),
                _ => {}
            }
            if !matches!(output, Output::Log { .. }) {
                outputs.push(output);
            }
        }
        outputs
    }

    /// Moves both clocks and ticks at every deadline on the way.
    pub(crate) fn pass(&mut self, millis: u64) -> Vec<Output> {
        let end = self.now.mono + Millis(millis);
        let mut outputs = Vec::new();
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= end) {
            assert!(at > self.now.mono || self.now.mono == end, "a deadline that never passes");
            self.step_to(at.max(self.now.mono));
            outputs.extend(self.handle(Input::Tick));
        }
        self.step_to(end);
        outputs
    }

    fn step_to(&mut self, at: Millis) {
        let step = at.saturating_sub(self.now.mono).0;
        self.now = Now { mono: at, wall: Wall(self.now.wall.0 + step as i64 * 1_000) };
    }

    /// Moves the wall clock alone.
    pub(crate) fn set_clock(&mut self, seconds: i64) {
        self.now.wall = Wall(self.now.wall.0 + seconds * 1_000_000);
    }

    pub(crate) fn configure(&mut self) -> Vec<Output> {
        let body = self.server.config().to_json().into_bytes();
        self.handle(Input::Config { body })
    }

    pub(crate) fn connect(&mut self) -> Vec<Output> {
        let mut outputs = self.handle(Input::Connected { conn: self.command });
        outputs.extend(self.handle(Input::Connected { conn: self.heartbeat }));
        outputs
    }

    /// The frames of a command, stamped with the node's time and a new sequence number.
    pub(crate) fn frames(&mut self, message: &ServerMessage) -> (Vec<u8>, Vec<u8>) {
        self.server.sequence += 1;
        let body = message.encode(self.server.sequence, self.now.wall);
        (wire::hmac_header(&self.server.session.0, &body), body)
    }

    pub(crate) fn say(&mut self, message: &ServerMessage) -> Vec<Output> {
        let (header, body) = self.frames(message);
        self.handle(Input::Frames { conn: self.command, header, body })
    }

    /// Publishes a heartbeat of the server.
    pub(crate) fn publish(&mut self) -> Vec<Output> {
        self.server.sequence += 1;
        let incarnation = Some(self.server.incarnation.clone());
        let message = ServerMessage::Heartbeat { server: "push".into(), incarnation };
        let body = message.encode(self.server.sequence, self.now.wall);
        let header = self.server.signer.header(&body).expect("signed");
        self.handle(Input::Frames { conn: self.heartbeat, header, body })
    }

    pub(crate) fn commit(&mut self, command: &str, options: JobOptions) -> Vec<Output> {
        let commit = Commit {
            job: job(),
            server: "push".into(),
            command: command.into(),
            options,
            run_timeout: self.run_timeout,
        };
        self.say(&ServerMessage::Commit(Box::new(commit)))
    }

    /// What the node said, checked as the server checks it: type, job, and the JSON text.
    pub(crate) fn said(&self, outputs: &[Output]) -> Vec<(String, String)> {
        let limits = Limits { max_body: 65_536, max_skew: 300 };
        outputs
            .iter()
            .filter_map(|output| match output {
                Output::Send { conn, header, body } => {
                    assert_eq!(*conn, self.command, "sent on another connection");
                    let message =
                        wire::open_from_node(&self.server.session, limits, self.now.wall, header, body)
                            .expect("the server takes it");
                    Some((type_of(&message), String::from_utf8(body.clone()).expect("text")))
                }
                _ => None,
            })
            .collect()
    }

    /// The types of the messages said.
    pub(crate) fn types(&self, outputs: &[Output]) -> Vec<String> {
        self.said(outputs).into_iter().map(|(name, _)| name).collect()
    }
}

fn type_of(message: &FromNode<'_>) -> String {
    message.message.type_name().to_owned()
}

pub(crate) fn kept(succeeded: bool) -> KeptResult {
    KeptResult {
        job: job(),
        succeeded,
        stdout: Some("out".into()),
        stderr: Some(String::new()),
        reason: None,
    }
}
