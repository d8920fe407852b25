//! What the server machine takes in and gives out: the contract with its driver.

use crate::event::Event;
use crate::feed::Frame;
use crate::ids::{JobId, NodeName, NodeRef, OrgId, OrgName};
use crate::job::{JobRequest, JobStatus};
use crate::output::Wanted;
use crate::time::{Millis, Wall};

use super::{CurveKey, Record};

/// One connection to the command port. Numbers are given by the broker and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Joins an answer to the request it belongs to. Numbers are given by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Joins [`Input::Persisted`] to its [`Output::Persist`]. Numbers are given by the server, rising.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Settings of a server, with the original's defaults (9.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Advertised host name: member `host` of the configuration and `server` of a commit.
    pub host: String,
    /// Advertised heartbeat address, e.g. `tcp://push.example.com:10000`.
    pub heartbeat_addr: String,
    /// Advertised command address, e.g. `tcp://push.example.com:10002`.
    pub command_addr: String,
    /// Between two heartbeats, both directions.
    pub heartbeat_interval: Millis,
    /// A vote closes after this.
    pub voting_timeout: Millis,
    /// `run_timeout` of a job that names none, in seconds.
    pub default_run_timeout: u32,
    /// Between two `abort`s to a node in rehab.
    pub rehab_timer: Millis,
    /// A finished job stays in memory this long.
    pub linger: Millis,
    /// How long a node may use a configuration before fetching it again, in seconds.
    pub config_lifetime: u32,
    /// Largest difference between a message's timestamp and the clock, in seconds (exclusive).
    pub max_message_skew: u32,
    /// Largest body taken from a node, in bytes.
    pub max_body_size: usize,
    /// What becomes of unfinished jobs at a restart (decision 18).
    pub on_restart: OnRestart,
    /// Whether nodes may say what they are: capability `nodes` (decision 44).
    pub nodes: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            host: "localhost".into(),
            heartbeat_addr: "tcp://localhost:10000".into(),
            command_addr: "tcp://localhost:10002".into(),
            heartbeat_interval: Millis(10_000),
            voting_timeout: Millis(60_000),
            default_run_timeout: crate::job::DEFAULT_RUN_TIMEOUT,
            rehab_timer: Millis(1_000),
            linger: Millis(5_000),
            config_lifetime: 3600,
            max_message_skew: 300,
            max_body_size: 65_536,
            on_restart: OnRestart::Continue,
            nodes: false,
        }
    }
}

/// What becomes of unfinished jobs at a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRestart {
    /// They go on.
    Continue,
    /// They end `crashed`, as with the original.
    Crash,
}

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// A deadline may have passed.
    Tick,
    /// A node's configuration was asked for over REST by somebody already authenticated and authorized.
    /// Answered by [`Output::Config`] or [`Output::ConfigFailed`].
    FetchConfig {
        /// Comes back with the answer.
        request: RequestId,
        /// The node of the URL.
        node: NodeRef,
        /// Its organization's name.
        org_name: OrgName,
        /// The CURVE key the requester will shake hands with.
        key: CurveKey,
        /// PEM of the requester's public key; the session key is wrapped for it.
        public_key: String,
        /// Whether the requester is the node itself. Anyone else gets a throw-away key and makes no
        /// binding (D-09).
        is_node: bool,
    },
    /// What a node's program calls itself (`User-Agent` of its configuration request), for [`super::NodeDetail`].
    Described {
        /// The node, which is authenticated.
        node: NodeRef,
        /// Its words; shortened and cleaned by the machine.
        client: String,
        /// The network address it asked from, to name it when that is refused (decision 5); empty: unknown.
        address: String,
    },
    /// A peer proved that it owns `key`; the handshake waits for [`Output::Accept`] or [`Output::Refuse`].
    Handshake {
        /// The connection.
        conn: ConnId,
        /// The peer's long-term key.
        key: CurveKey,
        /// Its network address, for the log.
        peer: String,
    },
    /// The handshake of an accepted connection is complete: frames can be sent.
    Opened {
        /// The connection.
        conn: ConnId,
    },
    /// A connection is gone, whoever ended it.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// A message of two frames arrived.
    Frames {
        /// The connection.
        conn: ConnId,
        /// First frame.
        header: Vec<u8>,
        /// Second frame.
        body: Vec<u8>,
    },
    /// A job is asked for by somebody authorized. Answered by [`Output::JobStarted`] or
    /// [`Output::JobRefused`].
    StartJob {
        /// Comes back with the answer.
        request: RequestId,
        /// The organization of the URL.
        org: OrgId,
        /// Who asks.
        requester: String,
        /// What is asked for.
        job: Box<JobRequest>,
    },
    /// An operator, authorized, gives a job up, or some of its nodes. Answered by [`Output::CancelAnswer`].
    CancelJob {
        /// Comes back with the answer.
        request: RequestId,
        /// The organization of the URL.
        org: OrgId,
        /// Which job.
        job: JobId,
        /// Which of its nodes; none: the whole job.
        nodes: Vec<NodeName>,
        /// Who asks.
        by: String,
    },
    /// Somebody authorized wants a piece of what a node's command printed. Answered by [`Output::OutputRead`].
    ReadOutput {
        /// Comes back with the answer.
        request: RequestId,
        /// The node.
        node: NodeRef,
        /// Which piece.
        wanted: Wanted,
    },
    /// Everything up to and including this ticket is kept.
    Persisted {
        /// Which.
        ticket: Ticket,
    },
    /// The records of this ticket could not be kept; nothing of them is stored.
    PersistFailed {
        /// Which.
        ticket: Ticket,
    },
    /// The node is removed, has a new key, or is gone from the directory: its bindings end.
    EndBindings {
        /// Which node.
        node: NodeRef,
        /// For the log.
        why: String,
    },
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Go on with the handshake (READY).
    Accept {
        /// The connection.
        conn: ConnId,
    },
    /// Hold the handshake unanswered for 30 s, then close (decision 5).
    Refuse {
        /// The connection.
        conn: ConnId,
        /// Why, for whoever counts.
        reason: RefusedKey,
    },
    /// Send two frames on the command port.
    Send {
        /// The connection.
        conn: ConnId,
        /// First frame.
        header: Vec<u8>,
        /// Second frame.
        body: Vec<u8>,
    },
    /// Publish two frames on the heartbeat port.
    Publish {
        /// First frame.
        header: Vec<u8>,
        /// Second frame.
        body: Vec<u8>,
    },
    /// Close a connection at once.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Keep these records, in one transaction, and say so.
    Persist {
        /// Comes back with the answer.
        ticket: Ticket,
        /// What to keep.
        records: Vec<Record>,
    },
    /// Answer a configuration request with this JSON text.
    Config {
        /// Which request.
        request: RequestId,
        /// The document of 2.4.2.
        body: String,
    },
    /// A configuration request cannot be answered now (the store fails, or the key is unusable).
    ConfigFailed {
        /// Which request.
        request: RequestId,
        /// Why.
        error: crate::Error,
    },
    /// The job is stored and voting (201).
    JobStarted {
        /// Which request.
        request: RequestId,
        /// Its id.
        job: JobId,
    },
    /// The job could not be stored (503).
    JobRefused {
        /// Which request.
        request: RequestId,
        /// Why.
        error: crate::Error,
    },
    /// What became of an operator's wish to cancel; a success is stored.
    CancelAnswer {
        /// Which request.
        request: RequestId,
        /// What became of it.
        answer: CancelAnswer,
    },
    /// What became of [`Input::ReadOutput`].
    OutputRead {
        /// Which request.
        request: RequestId,
        /// The piece, or why there is none.
        read: super::OutputRead,
    },
    /// Something happened to a job that is now stored: tell its feed.
    Event {
        /// The organization.
        org: OrgId,
        /// The job.
        job: JobId,
        /// When. No two events of a server have the same stamp, and those of one job rise.
        at: Wall,
        /// What.
        event: Event,
        /// The same as it goes over the wire.
        frame: Frame,
    },
    /// A line for the log. Never holds a secret; names are escaped by the program.
    Log(LogEntry),
}

/// What becomes of a wish to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelAnswer {
    /// These nodes had not ended and are `aborted` now.
    Cancelled(Vec<NodeName>),
    /// The job has ended so, and was not changed.
    Ended(JobStatus),
    /// The job does not have this node, and was not changed.
    NotOfJob(NodeName),
    /// No such job is in memory: it has ended long ago, or there is none.
    Unknown,
}

/// Why a handshake is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedKey {
    /// No configuration request has announced the key.
    Unknown,
    /// The store does not have its binding yet.
    NotStored,
    /// Its node has another one, or none, now.
    Superseded,
}

impl RefusedKey {
    /// A short name for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            RefusedKey::Unknown => "unknown_key",
            RefusedKey::NotStored => "key_not_stored",
            RefusedKey::Superseded => "superseded_key",
        }
    }
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For tracing one node or job.
    Debug,
    /// Normal life.
    Info,
    /// Somebody should know.
    Warn,
    /// Something is broken.
    Error,
}

/// A line for the log with the things it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// How much it matters.
    pub level: LogLevel,
    /// The node it is about.
    pub node: Option<NodeName>,
    /// The job it is about.
    pub job: Option<JobId>,
    /// The peer's address.
    pub peer: Option<String>,
    /// What happened, one line.
    pub text: String,
}

/// What `node_states` says of a node (2.4.7, 2.4.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeState {
    /// Member `status`: whether the server has a live state for it.
    pub online: bool,
    /// Member `availability`: whether it would take a job.
    pub available: bool,
}

/// What the server signs and identifies itself with; made once and kept (decision 5).
#[derive(Clone)]
pub struct ServerKeys {
    /// Private RSA key, PEM: signs the heartbeats.
    pub signing: String,
    /// The CURVE public key. The secret half stays with the broker.
    pub curve_public: CurveKey,
    /// Id of this set of keys.
    pub incarnation: crate::ids::IncarnationId,
    /// Short name of this host, for the heartbeat.
    pub server_name: String,
}

/// A generator for keys, padding and splay: the programs pass the system's, the simulation a seeded one.
pub trait Random: rand_core::RngCore + rand_core::CryptoRng + Send {}
impl<T: rand_core::RngCore + rand_core::CryptoRng + Send> Random for T {}
