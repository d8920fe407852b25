//! The rules of one job: what each thing a node says does to it (6.4, 6.5), and how a heartbeat after a lost connection
//! brings both ends together again (decision 3).
//!
//! Everything here is a table: a pure function from a state and an input to a [`Rule`]. [`super::Server`]
//! looks rules up and carries them out.

use crate::event::{RunResult, Vote};
use crate::job::NodeStatus;

/// What a job hears from or about one of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Said {
    /// It will run the command.
    AckCommit,
    /// It will not.
    NackCommit,
    /// It is starting the command.
    AckRun,
    /// It will not start it.
    NackRun,
    /// The command ended with exit status 0.
    Succeeded,
    /// The command ended otherwise.
    Failed,
    /// The node ended the command itself because `run_timeout` had passed.
    TimedOut,
    /// It gave the job up.
    Aborted,
    /// It is gone (5.2: its state was torn down).
    Down,
}

impl Said {
    /// Every value.
    pub const ALL: &'static [Said] = &[
        Said::AckCommit,
        Said::NackCommit,
        Said::AckRun,
        Said::NackRun,
        Said::Succeeded,
        Said::Failed,
        Said::TimedOut,
        Said::Aborted,
        Said::Down,
    ];
}

/// One consequence of a rule, in the order in which its events are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Event `quorum_vote`.
    Vote(Vote),
    /// The node is sent to rehab, with event `rehab`.
    Rehab,
    /// The node is sent to rehab without an event (D-26).
    QuietRehab,
    /// The node must give up this job: `cancel` to those that take it, else as [`Step::QuietRehab`].
    Cancel,
    /// Event `run_start`.
    RunStart,
    /// Event `run_complete`.
    RunComplete(RunResult),
}

/// What to do: the node's new status, if it changes, then the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The node's new status.
    pub to: Option<NodeStatus>,
    /// What else happens.
    pub steps: &'static [Step],
}

const fn rule(to: NodeStatus, steps: &'static [Step]) -> Rule {
    Rule { to: Some(to), steps }
}

const fn stay(steps: &'static [Step]) -> Rule {
    Rule { to: None, steps }
}

/// What a node's word does while the vote is open (6.4).
///
/// A node that answers `aborted` after it is out only confirms what it was told: nothing follows, where
/// the original sends it to rehab again for every such answer (6.5, echo; D-27).
pub const fn while_voting(status: NodeStatus, said: Said) -> Rule {
    use NodeStatus as N;
    use Said as S;
    match (status, said) {
        (N::New, S::AckCommit) => rule(N::Ready, &[Step::Vote(Vote::Success)]),
        (N::New, S::NackCommit) => rule(N::Nacked, &[Step::Vote(Vote::Failure)]),
        (N::Ready, S::AckCommit) => stay(&[Step::Vote(Vote::UnexpectedCommit)]),
        (N::Ready, S::NackCommit) => rule(N::Unavailable, &[Step::Rehab, Step::Vote(Vote::LostAvailability)]),
        (N::New | N::Ready, S::Down) => rule(N::Unavailable, &[Step::Vote(Vote::Down), Step::Rehab]),
        (N::New | N::Ready, S::AckRun | S::NackRun | S::Succeeded | S::Failed | S::TimedOut | S::Aborted) => {
            rule(N::Unavailable, &[Step::Rehab])
        }
        // No node runs before the vote is over.
        (N::Running, _) => stay(&[]),
        (
            N::Succeeded
            | N::Failed
            | N::Aborted
            | N::Unavailable
            | N::Nacked
            | N::Faulty
            | N::WasReady
            | N::Crashed
            | N::TimedOut,
            said,
        ) => match said {
            S::AckCommit | S::NackCommit => stay(&[Step::Rehab, Step::Vote(Vote::ClientDiedWhileVoting)]),
            S::Down => stay(&[Step::Vote(Vote::Down), Step::Rehab]),
            S::AckRun | S::NackRun | S::Succeeded | S::Failed | S::TimedOut => stay(&[Step::Rehab]),
            S::Aborted => stay(&[]),
        },
    }
}

/// What a node's word does while the job runs (6.5). See [`while_voting`] for `aborted` from a node that is out.
pub const fn while_running(status: NodeStatus, said: Said) -> Rule {
    use NodeStatus as N;
    use RunResult as R;
    use Said as S;
    match (status, said) {
        (N::Ready, S::AckRun) => rule(N::Running, &[Step::RunStart]),
        (N::Running, S::AckRun) => stay(&[]),
        (N::Ready, S::NackRun) => rule(N::Failed, &[Step::Rehab, Step::RunComplete(R::RunNacked)]),
        (N::Running, S::NackRun) => {
            rule(N::Failed, &[Step::Rehab, Step::RunComplete(R::RunNackedWhileRunning)])
        }
        (N::Running, S::Succeeded) => rule(N::Succeeded, &[Step::RunComplete(R::Success)]),
        (N::Running, S::Failed) => rule(N::Failed, &[Step::RunComplete(R::Failure)]),
        (N::Running, S::TimedOut) => rule(N::TimedOut, &[Step::RunComplete(R::Failure)]),
        (N::Ready, S::Succeeded | S::Failed | S::TimedOut)
        | (N::Ready | N::Running, S::AckCommit | S::NackCommit | S::Aborted | S::Down) => {
            rule(N::Crashed, &[Step::Rehab, Step::RunComplete(R::Crashed)])
        }
        // The vote has decided about every node.
        (N::New, _) => stay(&[]),
        (
            N::Succeeded
            | N::Failed
            | N::Aborted
            | N::Unavailable
            | N::Nacked
            | N::Faulty
            | N::WasReady
            | N::Crashed
            | N::TimedOut,
            said,
        ) => match said {
            S::AckRun => stay(&[Step::RunComplete(R::ClientDiedWhileRunning), Step::Rehab]),
            S::NackRun | S::Succeeded | S::Failed | S::TimedOut | S::Down | S::AckCommit | S::NackCommit => {
                stay(&[Step::Rehab, Step::RunComplete(R::ClientDiedWhileRunning)])
            }
            S::Aborted => stay(&[]),
        },
    }
}

/// What the voting timer does to each node (6.4, last row).
pub const fn when_vote_closes(status: NodeStatus) -> Rule {
    match status {
        NodeStatus::New => {
            rule(NodeStatus::Unavailable, &[Step::Vote(Vote::VotingTimeout), Step::QuietRehab])
        }
        NodeStatus::Ready
        | NodeStatus::Running
        | NodeStatus::Succeeded
        | NodeStatus::Failed
        | NodeStatus::Aborted
        | NodeStatus::Unavailable
        | NodeStatus::Nacked
        | NodeStatus::Faulty
        | NodeStatus::WasReady
        | NodeStatus::Crashed
        | NodeStatus::TimedOut => stay(&[]),
    }
}

/// What a failed quorum does to each node (6.4, quorum check).
pub const fn when_quorum_fails(status: NodeStatus) -> Rule {
    match status {
        NodeStatus::Ready => rule(NodeStatus::WasReady, &[Step::QuietRehab]),
        NodeStatus::New
        | NodeStatus::Running
        | NodeStatus::Succeeded
        | NodeStatus::Failed
        | NodeStatus::Aborted
        | NodeStatus::Unavailable
        | NodeStatus::Nacked
        | NodeStatus::Faulty
        | NodeStatus::WasReady
        | NodeStatus::Crashed
        | NodeStatus::TimedOut => stay(&[]),
    }
}

/// What the run timer does to each node (6.5, last row).
pub const fn when_time_is_up(status: NodeStatus) -> Rule {
    match status {
        NodeStatus::Ready | NodeStatus::Running => rule(NodeStatus::TimedOut, &[Step::QuietRehab]),
        NodeStatus::New
        | NodeStatus::Succeeded
        | NodeStatus::Failed
        | NodeStatus::Aborted
        | NodeStatus::Unavailable
        | NodeStatus::Nacked
        | NodeStatus::Faulty
        | NodeStatus::WasReady
        | NodeStatus::Crashed
        | NodeStatus::TimedOut => stay(&[]),
    }
}

/// What an operator's cancel does to each node it is for. In an open vote that is a no.
pub const fn when_cancelled(status: NodeStatus) -> Rule {
    match status {
        NodeStatus::New => rule(NodeStatus::Aborted, &[Step::Cancel, Step::Vote(Vote::Failure)]),
        NodeStatus::Ready | NodeStatus::Running => {
            rule(NodeStatus::Aborted, &[Step::Cancel, Step::RunComplete(RunResult::Aborted)])
        }
        NodeStatus::Succeeded
        | NodeStatus::Failed
        | NodeStatus::Aborted
        | NodeStatus::Unavailable
        | NodeStatus::Nacked
        | NodeStatus::Faulty
        | NodeStatus::WasReady
        | NodeStatus::Crashed
        | NodeStatus::TimedOut => stay(&[]),
    }
}

/// What becomes of each node of a job that a restart gives up (D-32).
pub const fn when_given_up(status: NodeStatus) -> Rule {
    match status {
        NodeStatus::New => rule(NodeStatus::Unavailable, &[]),
        NodeStatus::Ready | NodeStatus::Running => rule(NodeStatus::Crashed, &[]),
        NodeStatus::Succeeded
        | NodeStatus::Failed
        | NodeStatus::Aborted
        | NodeStatus::Unavailable
        | NodeStatus::Nacked
        | NodeStatus::Faulty
        | NodeStatus::WasReady
        | NodeStatus::Crashed
        | NodeStatus::TimedOut => stay(&[]),
    }
}

/// What a heartbeat says about one job of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// The node does nothing.
    Idle,
    /// It waits for this job's `run`.
    Committed,
    /// It runs this job.
    Running,
    /// It is busy with another job.
    Elsewhere,
}

impl Claim {
    /// Every value.
    pub const ALL: &'static [Claim] = &[Claim::Idle, Claim::Committed, Claim::Running, Claim::Elsewhere];
}

/// Where a job stands when a heartbeat names it or should name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The vote is open.
    Voting,
    /// The job runs.
    Running,
    /// The job is over, but still in memory.
    Over,
}

impl Phase {
    /// Every value.
    pub const ALL: &'static [Phase] = &[Phase::Voting, Phase::Running, Phase::Over];
}

/// What a heartbeat stamped after the handshake of its connection leads to (decision 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resync {
    /// Both ends agree.
    Nothing,
    /// Its `ack_commit` was lost: counts as one.
    CountAckCommit,
    /// Its `commit` was lost: sent again, once per connection.
    SendCommit,
    /// It refuses, being busy; if `commit` went out on this connection, its own answer is on the way.
    CountNack,
    /// Its `run` was lost: sent again, once per connection.
    SendRun,
    /// Its `ack_run` was lost: counts as one.
    CountAckRun,
    /// It has lost the job: `crashed`, if it says so for two intervals (D-25).
    CrashIfRepeated,
    /// It does what it was never told to: out of place, as `ack_run` during a vote.
    OutOfPlace,
    /// It holds on to a job that it has ended: `abort`, if it says so for two intervals.
    AbortIfRepeated,
    /// It holds on to a job that goes on without it, or is over: `abort`.
    Abort,
}

/// Decision 3's table, with the pairs it leaves open.
pub const fn resync(phase: Phase, status: NodeStatus, claim: Claim) -> Resync {
    use Claim as C;
    use NodeStatus as N;
    match (phase, status) {
        (Phase::Voting, N::New) => match claim {
            C::Committed => Resync::CountAckCommit,
            C::Idle => Resync::SendCommit,
            C::Elsewhere => Resync::CountNack,
            C::Running => Resync::OutOfPlace,
        },
        (Phase::Voting, N::Ready) => match claim {
            C::Committed => Resync::Nothing,
            // Not in the table: the vote counts, and the run will show (next rows).
            C::Idle | C::Elsewhere => Resync::Nothing,
            C::Running => Resync::OutOfPlace,
        },
        (Phase::Running, N::Ready) => match claim {
            C::Committed => Resync::SendRun,
            C::Running => Resync::CountAckRun,
            C::Idle | C::Elsewhere => Resync::CrashIfRepeated,
        },
        (Phase::Running, N::Running) => match claim {
            C::Committed | C::Running => Resync::Nothing,
            C::Idle | C::Elsewhere => Resync::CrashIfRepeated,
        },
        // No node runs during a vote; none is undecided after it.
        (Phase::Voting, N::Running) | (Phase::Running, N::New) => Resync::Nothing,
        // Its result may have overtaken the heartbeat.
        (Phase::Voting | Phase::Running | Phase::Over, N::Succeeded | N::Failed) => match claim {
            C::Committed | C::Running => Resync::AbortIfRepeated,
            C::Idle | C::Elsewhere => Resync::Nothing,
        },
        (Phase::Over, N::New | N::Ready | N::Running)
        | (
            Phase::Voting | Phase::Running | Phase::Over,
            N::Aborted | N::Unavailable | N::Nacked | N::Faulty | N::WasReady | N::Crashed | N::TimedOut,
        ) => match claim {
            C::Committed | C::Running => Resync::Abort,
            C::Idle | C::Elsewhere => Resync::Nothing,
        },
    }
}
