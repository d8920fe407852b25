//! Feed entries: what happened to a job, in the words of section 8.3.

use crate::ids::NodeName;
use crate::job::JobStatus;

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
        }
    }
}

/// One entry of a job's feed; the time it happened travels beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The job was created. Everything else the feed shows of it is in the stored job.
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
