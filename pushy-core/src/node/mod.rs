//! One node agent as a value: its connections, heartbeats, its one job and its configuration.
//!
//! # Driving it
//! After every [`Node::handle`], call [`Node::poll_output`] until it answers `None` and carry each output out in that
//! order. Then wait for the next input or until [`Node::next_deadline`], whichever comes first, and hand in
//! [`Input::Tick`] for the latter. A tick too early is harmless. `now.mono` never goes back; if it does, the later one
//! is used.
//!
//! # What it adds to the original
//! Checks and kills are asynchronous, so heartbeats go on (D-46); a lost connection never touches the job (D-54); all
//! reasons to fetch the configuration share one plan (D-56, D-58); any authenticated message is a sign of life (D-59);
//! messages are believed within a window of the clock, once (D-53); results are kept until a server that says `results`
//! has stored them (decision 2).
//!
//! # What it leaves out
//! Servers of version 1.x, which do not encrypt, are refused; there is no way to allow them (1.7, D-66).

use std::sync::Arc;

use crate::curve_key::CurveKey;
use crate::ids::{IncarnationId, JobId, NodeName, OrgName};
use crate::output::Wanted;
use crate::server::LogLevel;
use crate::whitelist::Whitelist;
use crate::zmtp::CurveSecret;

pub mod backoff;
pub mod capture;
pub mod heartbeater;
pub mod job_runner;
mod link;
mod machine;
pub mod outputs;
mod publisher;
pub mod reconfigurer;
mod replay;
pub mod results;

pub use capture::{Captured, Collector};
pub use job_runner::{Exit, JobSpec};
pub use machine::Node;
pub use results::KeptResult;

/// `max_body_size` of an agent that configures none, in bytes (7.9).
pub const DEFAULT_MAX_BODY: usize = 63_000;

/// What an agent is, for as long as it lives.
pub struct Settings {
    /// Node name.
    pub node: NodeName,
    /// Short host name.
    pub host: String,
    /// Organization name, from the Chef server's URL.
    pub org: OrgName,
    /// Id of this agent process.
    pub incarnation: IncarnationId,
    /// The Chef client key: opens the session key.
    pub client_key: crate::auth::SigningKey,
    /// The largest message this agent sends, in bytes; the server's limit counts too, if it is smaller (D-48).
    pub max_body: usize,
    /// The whitelist.
    pub whitelist: Whitelist,
}

/// What an earlier life of this agent left behind.
#[derive(Debug, Default)]
pub struct Restored {
    /// Results that no server has acknowledged.
    pub results: Vec<KeptResult>,
    /// The server's public key as first seen (D-66).
    pub pinned: Option<String>,
}

/// One of a node's two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// Commands and answers, encrypted: DEALER.
    Command,
    /// The server's heartbeats, in the clear: SUB.
    Heartbeat,
}

/// How far a connection got before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// No TCP connection was made.
    Connecting,
    /// The handshake failed or took too long: the server may not know our key, or has another.
    Handshake,
    /// It was open.
    Open,
}

/// The CURVE pair of this agent. `Debug` shows the public half.
#[derive(Clone)]
pub struct Keys(pub Arc<CurveSecret>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({:?})", self.0.public())
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Keys) -> bool {
        self.0.public() == other.0.public()
    }
}

impl Eq for Keys {}

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// A deadline may have passed.
    Tick,
    /// The answer to [`Output::FetchConfig`]: the body of a 200.
    Config {
        /// The JSON text.
        body: Vec<u8>,
    },
    /// The configuration could not be had.
    ConfigFailed {
        /// Why, one line.
        why: String,
    },
    /// The handshake of a connection is complete.
    Connected {
        /// Which, as numbered by [`Output::Connect`].
        conn: u64,
    },
    /// A connection ended, or could not be made. Not expected after [`Output::Close`], but harmless.
    Disconnected {
        /// Which.
        conn: u64,
        /// How far it got.
        stage: Stage,
        /// Why, one line.
        why: String,
    },
    /// Two frames came over a connection.
    Frames {
        /// Which.
        conn: u64,
        /// First frame.
        header: Vec<u8>,
        /// Second frame.
        body: Vec<u8>,
    },
    /// The job moved on: [`job_runner::Input::Prepared`], `Started`, `StartFailed` or `Exited`.
    Job(job_runner::Input),
    /// A new whitelist; takes effect, with [`Output::Reloaded`], when there is no job (D-60).
    Reload(Box<Whitelist>),
    /// The server has the document of [`Output::Publish`], or there is none to send.
    Published,
    /// The document could not be sent.
    PublishFailed {
        /// Why, one line.
        why: String,
        /// Whether the same may do later: the server was out of reach or overloaded.
        retry: bool,
    },
    /// The answer to [`Output::ReadOutput`].
    OutputRead(outputs::Piece),
    /// A command whose output is kept has printed more, after a read that came to the end; or it has ended.
    OutputGrew {
        /// Which job.
        job: JobId,
        /// Whether nothing more will come.
        ended: bool,
    },
    /// The network has taken messages: told after each that holds a piece of output.
    Drained {
        /// Which connection.
        conn: u64,
        /// How many messages it has taken since it was opened.
        messages: u64,
    },
    /// Fetch the configuration now (USR1).
    Reconfigure,
    /// End: kill the job, say so, [`Output::Exit`].
    Shutdown,
}

/// The key material of one connection to the command port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curve {
    /// The server's long-term key.
    pub server: CurveKey,
    /// Our pair.
    pub keys: Keys,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask the server for the configuration; answered by [`Input::Config`] or [`Input::ConfigFailed`].
    FetchConfig {
        /// The key to announce (`ccpk`).
        key: CurveKey,
    },
    /// Open a connection; answered by [`Input::Connected`] or [`Input::Disconnected`].
    Connect {
        /// Its number, never used twice.
        conn: u64,
        /// Which of the two it is.
        port: Port,
        /// `tcp://HOST:PORT`.
        addr: String,
        /// Keys, for the command port.
        curve: Option<Box<Curve>>,
    },
    /// Send what is queued and close.
    Close {
        /// Which.
        conn: u64,
    },
    /// Send two frames as one message (D-57).
    Send {
        /// Which connection.
        conn: u64,
        /// First frame.
        header: Vec<u8>,
        /// Second frame.
        body: Vec<u8>,
    },
    /// Check user, directory, file and lock; answered by [`job_runner::Input::Prepared`].
    Prepare {
        /// Which job.
        job: JobId,
        /// What it would run.
        spec: Box<JobSpec>,
    },
    /// Let go of what preparing acquired: the job is given up.
    Release {
        /// Which job.
        job: JobId,
    },
    /// Let go of the lock and start the process; answered by [`job_runner::Input::Started`] or `StartFailed`.
    Spawn {
        /// Which job.
        job: JobId,
        /// What to run.
        spec: Box<JobSpec>,
    },
    /// End the process group: TERM, grace, KILL; answered by [`job_runner::Input::Exited`] when it is gone.
    Kill {
        /// Which job.
        job: JobId,
    },
    /// Read a piece of a job's output; answered by [`Input::OutputRead`]. One at a time.
    ReadOutput(Wanted),
    /// Keep this result on disk, 0600, for [`Restored`].
    SpoolResult(KeptResult),
    /// The result of this job need not be kept any longer.
    DropResult {
        /// Which job.
        job: JobId,
    },
    /// Keep the server's public key on disk, for [`Restored`].
    PinServerKey {
        /// PEM.
        pem: String,
    },
    /// The new whitelist is in force.
    Reloaded,
    /// Tell the server what this node is ([`crate::node_document::NodeDocument`]); answered by [`Input::Published`] or
    /// [`Input::PublishFailed`].
    Publish,
    /// End the process.
    Exit {
        /// With this status.
        code: u8,
    },
    /// A line for the log. Never holds a secret; names are escaped by the program.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// The job it is about.
        job: Option<JobId>,
        /// What happened, one line.
        text: String,
    },
}

/// Defects that tests plant to see whether the simulation finds them (decision 28). Without the feature `planted-bugs`
/// none can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The options of a refused commit replace those of the committed job (D-43).
    OptionsBeforeBusyCheck,
    /// A result is sent once and never again.
    ResultSentOnce,
    /// A result is not kept over a restart of the agent.
    ResultDroppedOnRestart,
    /// A lost connection ends the job without a word.
    JobLostWithConnection,
    /// `cancel` ends whatever runs, like `abort`.
    CancelEndsAnyJob,
    /// `run_timeout` passes unnoticed on the node.
    TimeoutIgnored,
    /// A job that has ended may be started again (D-53).
    EndedJobForgotten,
    /// An abort that finds no job is not answered.
    IdleAbortUnanswered,
}

impl Bug {
    /// Every defect.
    pub const ALL: &'static [Bug] = &[
        Bug::OptionsBeforeBusyCheck,
        Bug::ResultSentOnce,
        Bug::ResultDroppedOnRestart,
        Bug::JobLostWithConnection,
        Bug::CancelEndsAnyJob,
        Bug::TimeoutIgnored,
        Bug::EndedJobForgotten,
        Bug::IdleAbortUnanswered,
    ];
}

fn planted(bug: Option<Bug>, which: Bug) -> bool {
    cfg!(feature = "planted-bugs") && bug == Some(which)
}
