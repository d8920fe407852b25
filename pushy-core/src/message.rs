//! What server and nodes say to each other, and its JSON (4.8, 4.9).
//!
//! Texts have their members in the original's order. Reading is as lenient as the originals are: unknown members
//! are skipped, a member of the wrong type counts as the tables say.
//! Extensions are members and types that the originals ignore (decision 20): `caps` in heartbeats and in the configuration,
//! the messages `result_ack` and `cancel`, member `reason` of what nodes refuse or fail, `run_timeout` and `parameters` of
//! `commit`. Each goes only to a peer whose [`Caps`] have it.

use serde_json::Value;

use crate::ids::{IncarnationId, JobId, NodeName, OrgName};
use crate::job::JobOptions;
use crate::json::Object;
use crate::output::{Chunk, Wanted};
use crate::reason::Reason;
use crate::time::Wall;

mod caps;
mod from_node;
mod from_server;
mod output;

pub use caps::Caps;
pub use from_node::FromNode;
pub use from_server::FromServer;

/// Member `protocol_version` of a node's messages.
pub const PROTOCOL_VERSION: &str = "2.0";

/// Which job a node's message is about (4.8).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JobRef {
    /// No job: `null`, or the string `"null"`.
    None,
    /// This job.
    Id(JobId),
    /// Something that is no job's id, a missing member included: it matches no job. Holds the text, if it was one of
    /// at most 64 bytes, for the log.
    Other(Box<str>),
}

impl JobRef {
    /// The id, when there is one.
    pub fn id(&self) -> Option<&JobId> {
        match self {
            JobRef::Id(id) => Some(id),
            JobRef::None | JobRef::Other(_) => None,
        }
    }

    fn from_text(text: &str) -> JobRef {
        if text == "null" {
            return JobRef::None;
        }
        match JobId::new(text) {
            Ok(id) => JobRef::Id(id),
            Err(_) if text.len() <= 64 => JobRef::Other(text.into()),
            Err(_) => JobRef::Other("".into()),
        }
    }
}

impl From<Option<JobId>> for JobRef {
    fn from(id: Option<JobId>) -> JobRef {
        id.map_or(JobRef::None, JobRef::Id)
    }
}

impl From<JobId> for JobRef {
    fn from(id: JobId) -> JobRef {
        JobRef::Id(id)
    }
}

/// What a node is doing: member `job_state` of its heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Nothing.
    Idle,
    /// It voted yes and waits for `run`.
    Committed,
    /// A process runs.
    Running,
}

impl JobState {
    /// The text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobState::Idle => "idle",
            JobState::Committed => "committed",
            JobState::Running => "running",
        }
    }

    fn from_text(text: &str) -> Option<JobState> {
        [JobState::Idle, JobState::Committed, JobState::Running].into_iter().find(|s| s.as_str() == text)
    }
}

/// What a command printed, as far as it was captured and fits. Job output is a secret: `Debug` shows lengths only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// Member `stdout`, absent without capture.
    pub stdout: Option<String>,
    /// Member `stderr`, absent without capture.
    pub stderr: Option<String>,
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Captured")
            .field("stdout", &self.stdout.as_ref().map(String::len))
            .field("stderr", &self.stderr.as_ref().map(String::len))
            .finish()
    }
}

/// A message from a node to the server, without what every message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeMessage {
    /// A sign of life.
    Heartbeat {
        /// What the node is doing; `None` when the member is missing or unknown.
        state: Option<JobState>,
        /// Its current job.
        job: JobRef,
        /// Its extensions; `None` from an original.
        caps: Option<Caps>,
    },
    /// The node will run the command.
    AckCommit {
        /// Which job.
        job: JobRef,
    },
    /// The node will not.
    NackCommit {
        /// Which job; none for a commit it could not read.
        job: JobRef,
        /// Why, for a server that takes it (capability `reasons`).
        reason: Option<Reason>,
    },
    /// The process is being started.
    AckRun {
        /// Which job.
        job: JobRef,
    },
    /// The run is refused.
    NackRun {
        /// Which job; none for a run it could not read.
        job: JobRef,
        /// Why, for a server that takes it (capability `reasons`).
        reason: Option<Reason>,
    },
    /// The process ended with exit status 0.
    Succeeded {
        /// Which job.
        job: JobRef,
        /// What it printed.
        output: Captured,
    },
    /// The process ended otherwise, or could not be started.
    Failed {
        /// Which job.
        job: JobRef,
        /// What it printed.
        output: Captured,
        /// Why, for a server that takes it (capability `reasons`).
        reason: Option<Reason>,
    },
    /// The answer to `abort`.
    Aborted {
        /// The job that was current, if any.
        job: JobRef,
        /// Why, for a server that takes it (capability `reasons`).
        reason: Option<Reason>,
    },
    /// Extension `output`: a piece of a job's output, as asked for.
    OutputChunk(Box<Chunk>),
    /// A type this version does not know; empty when the member is missing. To be logged and ignored.
    Unknown {
        /// Member `type`, cut to 64 bytes.
        name: Box<str>,
    },
}

impl NodeMessage {
    /// Member `type`.
    pub fn type_name(&self) -> &str {
        match self {
            NodeMessage::Heartbeat { .. } => "heartbeat",
            NodeMessage::AckCommit { .. } => "ack_commit",
            NodeMessage::NackCommit { .. } => "nack_commit",
            NodeMessage::AckRun { .. } => "ack_run",
            NodeMessage::NackRun { .. } => "nack_run",
            NodeMessage::Succeeded { .. } => "succeeded",
            NodeMessage::Failed { .. } => "failed",
            NodeMessage::Aborted { .. } => "aborted",
            NodeMessage::OutputChunk(_) => "output_chunk",
            NodeMessage::Unknown { name } => name,
        }
    }

    /// The job it is about.
    pub fn job(&self) -> &JobRef {
        match self {
            NodeMessage::Heartbeat { job, .. }
            | NodeMessage::AckCommit { job }
            | NodeMessage::NackCommit { job, .. }
            | NodeMessage::AckRun { job }
            | NodeMessage::NackRun { job, .. }
            | NodeMessage::Succeeded { job, .. }
            | NodeMessage::Failed { job, .. }
            | NodeMessage::Aborted { job, .. } => job,
            // Its job is a member of the piece: it changes nothing about the job.
            NodeMessage::OutputChunk(_) | NodeMessage::Unknown { .. } => &JobRef::None,
        }
    }

    /// Why the node refused, failed or gave up.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            NodeMessage::NackCommit { reason, .. }
            | NodeMessage::NackRun { reason, .. }
            | NodeMessage::Failed { reason, .. }
            | NodeMessage::Aborted { reason, .. } => reason.as_ref(),
            NodeMessage::Heartbeat { .. }
            | NodeMessage::AckCommit { .. }
            | NodeMessage::AckRun { .. }
            | NodeMessage::Succeeded { .. }
            | NodeMessage::OutputChunk(_)
            | NodeMessage::Unknown { .. } => None,
        }
    }

    /// The message as a server takes it that does not know reasons.
    #[must_use]
    pub fn without_reason(mut self) -> NodeMessage {
        match &mut self {
            NodeMessage::NackCommit { reason, .. }
            | NodeMessage::NackRun { reason, .. }
            | NodeMessage::Failed { reason, .. }
            | NodeMessage::Aborted { reason, .. } => *reason = None,
            NodeMessage::Heartbeat { .. }
            | NodeMessage::AckCommit { .. }
            | NodeMessage::AckRun { .. }
            | NodeMessage::Succeeded { .. }
            | NodeMessage::OutputChunk(_)
            | NodeMessage::Unknown { .. } => {}
        }
        self
    }

    /// The body frame: JSON with the members of 4.8 in its order, extensions last.
    pub fn encode(&self, sender: &NodeIdentity, sequence: u64, at: Wall) -> Vec<u8> {
        let output = match self {
            NodeMessage::Succeeded { output, .. } | NodeMessage::Failed { output, .. } => Some(output),
            _ => None,
        };
        let room = match self {
            NodeMessage::OutputChunk(chunk) => chunk.data.len() + chunk.data.len() / 3,
            _ => output.map_or(0, |o| {
                o.stdout.as_ref().map_or(0, String::len) + o.stderr.as_ref().map_or(0, String::len)
            }),
        };
        let reason = self.reason().map_or(0, |reason| 48 + reason.text().len());
        let mut object = Object::with_capacity(384 + room + room / 8 + reason);
        object
            .member("node", sender.node.as_str())
            .member("client", &sender.client)
            .plain("protocol_version", PROTOCOL_VERSION)
            .plain("org", sender.org.as_str())
            .member("type", self.type_name())
            .member("sequence", &sequence)
            .plain("timestamp", &at.rfc1123())
            .member("incarnation_id", sender.incarnation.as_str());
        if let NodeMessage::Heartbeat { state: Some(state), .. } = self {
            object.plain("job_state", state.as_str());
        }
        if let NodeMessage::OutputChunk(chunk) = self {
            output::encode_chunk(chunk, &mut object);
            return object.end();
        }
        match self.job() {
            JobRef::None => object.raw("job_id", b"null"),
            JobRef::Id(id) => object.plain("job_id", id.as_str()),
            JobRef::Other(text) => object.member("job_id", text),
        };
        if let NodeMessage::Heartbeat { caps: Some(caps), .. } = self {
            object.raw("caps", &caps.to_json());
        }
        if let Some(output) = output {
            if let Some(stdout) = &output.stdout {
                object.member("stdout", stdout);
            }
            if let Some(stderr) = &output.stderr {
                object.member("stderr", stderr);
            }
        }
        if let Some(reason) = self.reason() {
            object.raw("reason", &reason.to_json());
        }
        object.end()
    }
}

/// Who a node is: what each of its messages repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Node name.
    pub node: NodeName,
    /// Short host name.
    pub client: String,
    /// Organization name.
    pub org: OrgName,
    /// Id of this agent process.
    pub incarnation: IncarnationId,
}

/// A job as a `commit` carries it. `Debug` shows no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Which job.
    pub job: JobId,
    /// The server's advertised name.
    pub server: String,
    /// The command.
    pub command: String,
    /// The options. Every option that is set is sent, `capture` always; `parameters` only to a node that takes them.
    pub options: JobOptions,
    /// Seconds from the start of the process after which the node ends it itself; only to a node that takes it
    /// (capability `timeout`).
    pub run_timeout: Option<u32>,
}

impl Commit {
    /// The members that an original does not know, without braces.
    fn extension(&self) -> Vec<u8> {
        let mut object = Object::with_capacity(64);
        if let Some(seconds) = &self.run_timeout {
            object.member("run_timeout", seconds);
        }
        if let Some(parameters) = &self.options.parameters {
            object.strings("parameters", parameters);
        }
        object.end_inside()
    }

    /// What every node gets, and what those get besides that take extensions: for [`Tail::extended`].
    pub fn tails(mut self) -> (Tail, Tail) {
        let extension = Tail(self.extension());
        self.run_timeout = None;
        self.options.parameters = None;
        (ServerMessage::Commit(Box::new(self)).tail(), extension)
    }
}

/// A message from the server to nodes, without what every message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// The server's sign of life, published to all nodes.
    Heartbeat {
        /// Short host name of the server.
        server: String,
        /// Id of the server's keys; `None` when missing, which counts as changed (4.10).
        incarnation: Option<IncarnationId>,
    },
    /// Asks a node to vote on a job.
    Commit(Box<Commit>),
    /// A commit that cannot be used; answered with `nack_commit` and this reference (4.10).
    BadCommit {
        /// The job, when it can be read; none when id or command is missing.
        job: JobRef,
    },
    /// Starts the committed job.
    Run {
        /// Which job.
        job: JobId,
    },
    /// A run without a usable id; answered with `nack_run` and no job (4.10).
    BadRun,
    /// Give up whatever you do.
    Abort,
    /// The server knows this connection.
    Ack,
    /// Extension `results`: the result of this job is stored and need not be sent again.
    ResultAck {
        /// Which job.
        job: JobId,
    },
    /// Extension `cancel`: give up this job, whatever it has come to, and no other; answered with `aborted` and its id.
    Cancel {
        /// Which job.
        job: JobId,
    },
    /// Extension `output`: send a piece of a job's output.
    OutputRequest(Wanted),
    /// A type this version does not know; empty when the member is missing. To be logged and ignored.
    Unknown {
        /// Member `type`, cut to 64 bytes.
        name: Box<str>,
    },
}

/// The part of a message's JSON that is the same for every receiver: encode a large job's commit once, then
/// [`Tail::body`] for each node.
#[derive(Clone, PartialEq, Eq)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// The body frame for one receiver (4.9: `sequence`, `timestamp`, then the rest).
    pub fn body(&self, sequence: u64, at: Wall) -> Vec<u8> {
        self.extended(None, sequence, at)
    }

    /// The same with more members at its end.
    pub fn extended(&self, more: Option<&Tail>, sequence: u64, at: Wall) -> Vec<u8> {
        let more = more.map_or(&[][..], |more| &more.0);
        Object::with_capacity(73 + self.0.len() + more.len())
            .member("sequence", &sequence)
            .plain("timestamp", &at.rfc1123())
            .inside(&self.0)
            .inside(more)
            .end()
    }
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tail({} bytes)", self.0.len())
    }
}

impl ServerMessage {
    /// Member `type`.
    pub fn type_name(&self) -> &str {
        match self {
            ServerMessage::Heartbeat { .. } => "heartbeat",
            ServerMessage::Commit(_) | ServerMessage::BadCommit { .. } => "commit",
            ServerMessage::Run { .. } | ServerMessage::BadRun => "run",
            ServerMessage::Abort => "abort",
            ServerMessage::Ack => "ack",
            ServerMessage::ResultAck { .. } => "result_ack",
            ServerMessage::Cancel { .. } => "cancel",
            ServerMessage::OutputRequest(_) => "output_request",
            ServerMessage::Unknown { name } => name,
        }
    }

    /// What follows sequence and timestamp.
    pub fn tail(&self) -> Tail {
        let mut object = Object::with_capacity(96);
        match self {
            ServerMessage::Heartbeat { server, incarnation } => {
                object.member("server", server).plain("type", "heartbeat");
                if let Some(incarnation) = incarnation {
                    object.member("incarnation_id", incarnation.as_str());
                }
            }
            ServerMessage::Commit(commit) => {
                object
                    .plain("type", "commit")
                    .plain("job_id", commit.job.as_str())
                    .member("server", &commit.server)
                    .member("command", &commit.command);
                let options = &commit.options;
                if let Some(user) = &options.user {
                    object.member("user", user);
                }
                if let Some(dir) = &options.dir {
                    object.member("dir", dir);
                }
                if let Some(env) = &options.env {
                    object.strings("env", env);
                }
                if let Some(file) = &options.file {
                    object.member("file", file);
                }
                object.member("capture", &options.capture);
                object.inside(&commit.extension());
            }
            ServerMessage::Run { job } | ServerMessage::ResultAck { job } | ServerMessage::Cancel { job } => {
                object.member("type", self.type_name()).plain("job_id", job.as_str());
            }
            ServerMessage::OutputRequest(wanted) => output::encode_request(wanted, &mut object),
            ServerMessage::BadCommit { .. }
            | ServerMessage::BadRun
            | ServerMessage::Abort
            | ServerMessage::Ack
            | ServerMessage::Unknown { .. } => {
                object.member("type", self.type_name());
            }
        }
        Tail(object.end_inside())
    }

    /// The body frame: JSON with the members of 4.9 in its order.
    pub fn encode(&self, sequence: u64, at: Wall) -> Vec<u8> {
        self.tail().body(sequence, at)
    }
}

/// Why a body cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not one JSON object, or not UTF-8.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// `node` or `org` of a node's message is missing or not a string.
    #[error("member `{0}` is missing or not a string")]
    Missing(&'static str),
    /// `timestamp` is missing or in no form of 4.6.
    #[error("the timestamp is missing or cannot be read")]
    Timestamp,
}

/// Cuts text of a peer to what a log can bear.
fn cut(text: &str) -> Box<str> {
    let mut end = text.len().min(64);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

/// Reads a member that must be an object of strings; `None` when it is not.
fn string_pairs(value: &Value) -> Option<Vec<(String, String)>> {
    value.as_object()?.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
