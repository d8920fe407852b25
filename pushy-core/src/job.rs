//! Jobs: what is asked for, what can become of it and of each of its nodes (2.4.5, 2.5, 9.1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, NodeName, OrgId};
use crate::reason::Reason;
use crate::time::Wall;

mod object;
mod request;

pub use request::{InvalidJob, MAX_FILE, file_content};

/// `run_timeout` when a request names none, in seconds (2.5).
pub const DEFAULT_RUN_TIMEOUT: u32 = 3600;

macro_rules! status_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$vmeta])* $variant = $code,)*
        }

        impl $name {
            /// Every value, in the order of the database's codes.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The text of REST answers and databases.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The database's code (9.1).
            pub const fn code(self) -> i64 {
                self as i64
            }

            /// The value with this database code.
            pub fn from_code(code: i64) -> Option<$name> {
                $name::ALL.iter().copied().find(|s| s.code() == code)
            }

            /// The value with this text.
            pub fn from_text(text: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|s| s.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

status_enum! {
    /// Where a job stands (6.1).
    JobStatus {
        /// Commits are out; the vote is open.
        Voting = 0, "voting";
        /// Quorum was reached; nodes run.
        Running = 1, "running";
        /// Every node that ran has ended, however it ended.
        Complete = 2, "complete";
        /// Too few nodes voted yes.
        QuorumFailed = 3, "quorum_failed";
        /// Cancelled by an operator.
        Aborted = 4, "aborted";
        /// Stored, not yet voting.
        New = 5, "new";
        /// `run_timeout` passed with nodes still running.
        TimedOut = 6, "timed_out";
        /// Given up by the server.
        Crashed = 7, "crashed";
    }
}

impl JobStatus {
    /// Whether the job has ended and can never change again.
    pub const fn is_terminal(self) -> bool {
        match self {
            JobStatus::New | JobStatus::Voting | JobStatus::Running => false,
            JobStatus::Complete
            | JobStatus::QuorumFailed
            | JobStatus::Aborted
            | JobStatus::TimedOut
            | JobStatus::Crashed => true,
        }
    }
}

status_enum! {
    /// What became of one node of a job (2.4.5).
    NodeStatus {
        /// Asked, no vote yet.
        New = 0, "new";
        /// Voted yes; has not acknowledged the run.
        Ready = 1, "ready";
        /// Acknowledged the run.
        Running = 2, "running";
        /// Exit status 0.
        Succeeded = 3, "succeeded";
        /// Any other exit, or a refused run.
        Failed = 4, "failed";
        /// Cancelled by an operator.
        Aborted = 5, "aborted";
        /// Down at the start, lost during the vote, or silent until the vote closed.
        Unavailable = 6, "unavailable";
        /// Voted no.
        Nacked = 7, "nacked";
        /// Legacy code, never written.
        Faulty = 8, "faulty";
        /// Voted yes, but quorum failed.
        WasReady = 9, "was_ready";
        /// Lost after the vote.
        Crashed = 10, "crashed";
        /// Still ready or running when `run_timeout` passed.
        TimedOut = 11, "timed_out";
    }
}

impl NodeStatus {
    /// Whether this node's part in the job is over.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, NodeStatus::New | NodeStatus::Ready | NodeStatus::Running)
    }
}

/// The options of a job beside its command (2.5). Values are secrets: never logged.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct JobOptions {
    /// Run as this user.
    pub user: Option<String>,
    /// Run in this directory.
    pub dir: Option<String>,
    /// Added to the environment, in the order given. `Some(vec![])` is an `env` that was given empty.
    pub env: Option<Vec<(String, String)>>,
    /// Delivered file, with its `raw:` or `base64:` prefix.
    pub file: Option<String>,
    /// Whether standard output and error are kept.
    pub capture: bool,
    /// Values for the parameters that the whitelist's entry declares. Only for nodes that take them (capability
    /// `params`).
    pub parameters: Option<Vec<(String, String)>>,
}

impl std::fmt::Debug for JobOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobOptions")
            .field("user", &self.user)
            .field("dir", &self.dir)
            .field("env", &self.env.as_ref().map(Vec::len))
            .field("file", &self.file.is_some())
            .field("capture", &self.capture)
            .field("parameters", &self.parameters.as_ref().map(Vec::len))
            .finish()
    }
}

/// What a requester asks for; checked, without duplicates in `nodes` (D-03).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRequest {
    /// The command as named on the nodes' whitelists. May be empty.
    pub command: String,
    /// At least one node; names unknown to the server are accepted and count as down.
    pub nodes: Vec<NodeName>,
    /// Seconds from the start of the run until the job times out; `None`: the server's default.
    pub run_timeout: Option<u32>,
    /// How many nodes must vote yes; `None`: all of them.
    pub quorum: Option<u32>,
    /// The rest.
    pub options: JobOptions,
}

/// A job as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The organization it belongs to.
    pub org: OrgId,
    /// The command.
    pub command: String,
    /// Where it stands.
    pub status: JobStatus,
    /// Seconds.
    pub run_timeout: u32,
    /// Yes votes needed.
    pub quorum: u32,
    /// Who asked for it.
    pub requester: String,
    /// When it was stored.
    pub created_at: Wall,
    /// When the job's own status last changed.
    pub updated_at: Wall,
    /// When the vote or the run ends, as wall time, while one is open (decision 10).
    pub deadline: Option<Wall>,
    /// The options.
    pub options: JobOptions,
    /// Every node with its status, in the order asked for.
    pub nodes: Vec<(NodeName, NodeStatus)>,
    /// Why, for each node that did not succeed.
    pub reasons: BTreeMap<NodeName, Reason>,
}
