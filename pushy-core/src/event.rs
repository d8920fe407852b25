//! Feed entries: what happened to a job, in the words of section 8.3.

use crate::ids::NodeName;
use crate::job::{Job, JobStatus};
use crate::json::Object;
use crate::reason::Reason;
use crate::time::Wall;

/// How a vote came out (8.3, `quorum_vote`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vote {
    /// The node will run the command.
    Success,
    /// The node refuses.
    Failure,
    /// The node is or went down.
    Down,
    /// The node did not answer in time.
    VotingTimeout,
    /// A second yes.
    UnexpectedCommit,
    /// A no after a yes. The spelling on the wire is `lost_availibility` (D-28).
    LostAvailability,
    /// A vote from a node that is already out.
    ClientDiedWhileVoting,
}

impl Vote {
    /// The text of the feed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Vote::Success => "success",
            Vote::Failure => "failure",
            Vote::Down => "down",
            Vote::VotingTimeout => "voting_timeout",
            Vote::UnexpectedCommit => "unexpected_commit",
            Vote::LostAvailability => "lost_availibility",
            Vote::ClientDiedWhileVoting => "client_died_while_voting",
        }
    }
}

/// How a node's run came out (8.3, `run_complete`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunResult {
    /// Exit status 0.
    Success,
    /// Any other exit.
    Failure,
    /// The node was lost, or broke the protocol.
    Crashed,
    /// The node refused to run after voting yes.
    RunNacked,
    /// The node refused to run after saying that it runs.
    RunNackedWhileRunning,
    /// A message from a node that is already out.
    ClientDiedWhileRunning,
    /// An operator has cancelled the node's part; said by our server only.
    Aborted,
}

impl RunResult {
    /// The text of the feed.
    pub const fn as_str(self) -> &'static str {
        match self {
            RunResult::Success => "success",
            RunResult::Failure => "failure",
            RunResult::Crashed => "crashed",
            RunResult::RunNacked => "run_nacked",
            RunResult::RunNackedWhileRunning => "run_nacked_while_running",
            RunResult::ClientDiedWhileRunning => "client_died_while_running",
            RunResult::Aborted => "aborted",
        }
    }
}

/// One entry of a job's feed; the time it happened travels beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The job was created. What the feed shows of it is in the job.
    Start,
    /// A node voted, or cannot.
    QuorumVote {
        /// Which node.
        node: NodeName,
        /// How.
        vote: Vote,
    },
    /// Enough nodes voted yes; runs go out.
    QuorumSucceeded,
    /// A node acknowledged the run.
    RunStart {
        /// Which node.
        node: NodeName,
    },
    /// A node's run is over.
    RunComplete {
        /// Which node.
        node: NodeName,
        /// How.
        result: RunResult,
    },
    /// A node was told to give up whatever it does.
    Rehab {
        /// Which node.
        node: NodeName,
    },
    /// The job is over.
    JobComplete {
        /// How.
        status: JobStatus,
    },
}

impl Event {
    /// The `data` of a job's feed: one JSON object, `timestamp` first (8.3). `job` is what [`Event::Start`] tells of,
    /// `reason` comes last where there is one.
    pub fn data(&self, at: Wall, job: Option<&Job>, reason: Option<&Reason>) -> String {
        let mut object = Object::with_capacity(160);
        object.plain("timestamp", &at.feed_timestamp());
        match self {
            Event::Start => {
                if let Some(job) = job {
                    start(&mut object, job);
                }
            }
            Event::QuorumVote { node, vote } => {
                object.member("node", node.as_str()).plain("status", vote.as_str());
            }
            Event::QuorumSucceeded => {}
            Event::RunStart { node } | Event::Rehab { node } => {
                object.member("node", node.as_str());
            }
            Event::RunComplete { node, result } => {
                object.member("node", node.as_str()).plain("status", result.as_str());
            }
            Event::JobComplete { status } => {
                object.plain("status", status.as_str());
            }
        }
        if let Some(reason) = reason {
            object.raw("reason", &reason.to_json());
        }
        object.end_text()
    }

    /// The name of the event in the feed.
    pub const fn name(&self) -> &'static str {
        match self {
            Event::Start => "start",
            Event::QuorumVote { .. } => "quorum_vote",
            Event::QuorumSucceeded => "quorum_succeeded",
            Event::RunStart { .. } => "run_start",
            Event::RunComplete { .. } => "run_complete",
            Event::Rehab { .. } => "rehab",
            Event::JobComplete { .. } => "job_complete",
        }
    }
}

fn start(object: &mut Object, job: &Job) {
    object
        .member("command", &job.command)
        .member("run_timeout", &job.run_timeout)
        .member("quorum", &job.quorum)
        .member("node_count", &job.nodes.len())
        .member("user", &job.requester);
    let options = &job.options;
    if let Some(user) = &options.user {
        object.member("job_user", user);
    }
    if let Some(dir) = &options.dir {
        object.member("dir", dir);
    }
    if let Some(env) = &options.env {
        object.strings("env", env);
    }
    if options.file.is_some() {
        object.raw("file_specified", b"true");
    }
    object.member("capture", &options.capture);
}
