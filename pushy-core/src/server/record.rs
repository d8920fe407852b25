//! What the server asks its store to keep, and what it gets back after a restart.
//!
//! A store applies records in the order given and answers each ticket with
//! [`super::Input::Persisted`] once all records up to it survive a power cut (decision 10).

use crate::feed::Frame;
use crate::ids::{JobId, NodeName, NodeRef, OrgName};
use crate::job::{Job, JobStatus, NodeStatus};
use crate::reason::Reason;
use crate::time::Wall;

use super::CurveKey;

/// One thing to keep. Records of one [`super::Output::Persist`] are applied in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A new job with its nodes and options.
    NewJob(Box<Job>),
    /// The job's own status changed.
    JobStatus {
        /// Which job.
        job: JobId,
        /// Its new status.
        status: JobStatus,
        /// When.
        updated_at: Wall,
        /// When the vote or run it has entered ends.
        deadline: Option<Wall>,
    },
    /// One node of a job changed.
    NodeStatus {
        /// Which job.
        job: JobId,
        /// Which node of it.
        node: NodeName,
        /// Its new status.
        status: NodeStatus,
        /// When.
        updated_at: Wall,
        /// Why, unless it goes on or has succeeded; replaces the one before.
        reason: Option<Reason>,
    },
    /// What a node's command printed. Stored once; a repeat is ignored (D-18).
    Output {
        /// Which job.
        job: JobId,
        /// Which node of it.
        node: NodeName,
        /// Standard output.
        stdout: Vec<u8>,
        /// Standard error.
        stderr: Vec<u8>,
    },
    /// The job's feed goes on. Kept as long as the feed can be asked for; a repeat replaces.
    Feed {
        /// Which job.
        job: JobId,
        /// The number of the first of these events, from 1.
        first: u64,
        /// The events, in order; at least one.
        frames: Vec<Frame>,
        /// When the last one happened.
        at: Wall,
    },
    /// A binding was made or renewed. Replaces a stored one of the same node and CURVE key.
    Binding(Binding),
    /// Every binding of the node with this CURVE key is void.
    BindingEnded {
        /// Which node.
        node: NodeRef,
        /// Which of its keys.
        key: CurveKey,
    },
}

/// Node, CURVE key and session key that belong together (decision 6).
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// The node.
    pub node: NodeRef,
    /// Its organization's name, as its messages carry it.
    pub org_name: OrgName,
    /// The key it shakes hands with.
    pub key: CurveKey,
    /// The key that signs its messages both ways. A secret.
    pub session: SessionKey,
    /// When its configuration was last fetched.
    pub fetched_at: Wall,
    /// Whether a handshake with this key has completed: the newest such binding is the node's own.
    pub active: bool,
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding")
            .field("node", &self.node)
            .field("key", &self.key)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

pub use crate::wire::SessionKey;

/// How far a job's feed had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEnd {
    /// Which job.
    pub job: JobId,
    /// The number of its last event.
    pub last: u64,
    /// When that happened.
    pub at: Wall,
}

/// What the store held when the server started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Every binding.
    pub bindings: Vec<Binding>,
    /// Every job that had not ended.
    pub jobs: Vec<Job>,
    /// How far the feeds had come that are kept.
    pub feeds: Vec<FeedEnd>,
}
