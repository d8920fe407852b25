//! What the server remembers: its nodes, jobs and connections, and what waits to go out.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::event::Event;
use crate::feed::Frame;
use crate::ids::{IncarnationId, JobId, NodeName, NodeRef, OrgId, OrgName};
use crate::job::{JobStatus, NodeStatus};
use crate::message::{Caps, Tail};
use crate::output::Wanted;
use crate::time::{Millis, Wall};
use crate::wire::SessionKey;

use super::freshness::{Clocks, Seen};
use super::gate::Gate;
use super::job_state::Phase;
use super::node_state::NodePhase;
use super::outputs::Read;
use super::trouble::Trouble;
use super::{ConnId, CurveKey, Output, RequestId};

/// A node's number within this run of the server; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) u64);

/// A job's number within this run of the server; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct JobIx(pub(super) u64);

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The server's own heartbeat is due.
    Heartbeat,
    /// A vote closes.
    Vote(JobIx),
    /// `run_timeout` of a job has passed.
    Run(JobIx),
    /// A finished job leaves memory.
    Linger(JobIx),
    /// A job's records are handed to the store again.
    RetryJob(JobIx),
    /// The bindings' records are handed to the store again.
    RetryBindings,
    /// `abort` is due again.
    Rehab(NodeId),
    /// A node has been silent for too long.
    Life(NodeId),
    /// A request for output is not answered.
    Read(NodeId, RequestId),
    /// A node has not fetched its configuration for too long.
    Expiry(NodeId),
}

/// One node: its live state, its connection, its keys.
pub(super) struct Node {
    pub(super) at: NodeRef,
    pub(super) phase: NodePhase,
    /// Not heard for three intervals while its connection stands: no new jobs.
    pub(super) silent: bool,
    pub(super) incarnation: Option<IncarnationId>,
    /// Whether it repeats results until they are acknowledged; unknown before its first heartbeat.
    pub(super) results: Option<bool>,
    /// What its last heartbeat announced.
    pub(super) caps: Caps,
    /// The connection its messages go out on.
    pub(super) conn: Option<ConnId>,
    /// Every accepted connection of it.
    pub(super) conns: BTreeSet<ConnId>,
    /// When it was last heard or lost its connection.
    pub(super) life: Millis,
    /// When its last valid message came.
    pub(super) heard: Option<Millis>,
    /// When it last became available, or ceased to be.
    pub(super) turned: Option<Millis>,
    /// Whether it was available then.
    pub(super) was_available: bool,
    /// What fetches its configuration, in its own words.
    pub(super) client: Option<Box<str>>,
    /// There is none until somebody has spoken for the node.
    pub(super) trouble: Option<Box<Trouble>>,
    /// Sequence of the last message to it.
    pub(super) sequence: u64,
    /// Jobs in memory that name it.
    pub(super) jobs: BTreeSet<JobIx>,
    /// The job that this process of it last said it has.
    pub(super) doing: Option<JobIx>,
    /// An `abort` is held back until the end of a job is stored.
    pub(super) abort_waits: bool,
    /// Requests for output that it has not answered.
    pub(super) reads: Vec<Read>,
    pub(super) keys: NodeKeys,
    pub(super) clocks: Clocks,
    pub(super) seen: Seen,
}

impl Node {
    pub(super) fn new(at: NodeRef) -> Node {
        Node {
            at,
            phase: NodePhase::Absent,
            silent: false,
            incarnation: None,
            results: None,
            caps: Caps::NONE,
            conn: None,
            conns: BTreeSet::new(),
            life: Millis(0),
            heard: None,
            turned: None,
            was_available: false,
            client: None,
            trouble: None,
            sequence: 0,
            jobs: BTreeSet::new(),
            doing: None,
            abort_waits: false,
            reads: Vec::new(),
            keys: NodeKeys::default(),
            clocks: Clocks::default(),
            seen: Seen::default(),
        }
    }

    /// Whether it would take a job (5.1).
    pub(super) fn is_available(&self) -> bool {
        self.phase == NodePhase::Idle && !self.silent && self.conn.is_some()
    }
}

/// The CURVE keys of one node, past and present.
#[derive(Default)]
pub(super) struct NodeKeys {
    /// Those that may shake hands; at most one is active.
    pub(super) bound: Vec<Bound>,
    /// The last few that may not any more, newest last, with the reason.
    pub(super) superseded: VecDeque<(CurveKey, String)>,
    /// When a configuration was last fetched.
    pub(super) fetched: Millis,
}

/// One binding (decision 6).
pub(super) struct Bound {
    pub(super) key: CurveKey,
    pub(super) session: SessionKey,
    pub(super) org_name: OrgName,
    pub(super) fetched_at: Wall,
    pub(super) active: bool,
    /// Whether the store has it: only then may it shake hands.
    pub(super) stored: bool,
}

/// One accepted connection. It speaks for one node, with one key (decision 6).
pub(super) struct Conn {
    pub(super) node: NodeId,
    pub(super) key: CurveKey,
    pub(super) session: SessionKey,
    pub(super) org_name: OrgName,
    pub(super) peer: String,
    /// When its handshake was complete.
    pub(super) opened: Option<Millis>,
    /// Whether a valid message has come.
    pub(super) greeted: bool,
    /// The highest sequence taken (D-15).
    pub(super) sequence: Option<u64>,
    /// Whether a message stamped after the handshake has come: what waited in a queue came before it.
    pub(super) drained: bool,
}

/// What is remembered of one node of a job beside its status.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    /// `commit` was meant for it, so `abort` is too (D-39).
    pub(super) asked: bool,
    /// A vote `down` was told.
    pub(super) down: bool,
    /// Event `rehab` was told.
    pub(super) rehab: bool,
    /// A vote `client_died_while_voting` was told (D-27).
    pub(super) late_vote: bool,
    /// Event `run_complete` was told (D-27).
    pub(super) complete: bool,
    /// Its output is stored (D-18).
    pub(super) output: bool,
    /// Its next `ack_commit` repeats what a heartbeat has said.
    pub(super) committed_by_heartbeat: bool,
    /// Its next `nack_commit` repeats what a heartbeat has said.
    pub(super) nacked_by_heartbeat: bool,
}

/// One node of a job.
#[derive(Debug, Clone)]
pub(super) struct JobNode {
    pub(super) node: NodeId,
    pub(super) status: NodeStatus,
    pub(super) marks: Marks,
    /// The connection `commit` last went out on.
    pub(super) commit_on: Option<ConnId>,
    /// The connection `run` last went out on.
    pub(super) run_on: Option<ConnId>,
    /// The connection `cancel` went out on.
    pub(super) cancel_on: Option<ConnId>,
    /// Since when its heartbeats contradict its status.
    pub(super) odd_since: Option<Millis>,
}

/// How many nodes of a job are in each class that decides about it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) undecided: usize,
    pub(super) ready: usize,
    pub(super) running: usize,
}

impl Tally {
    pub(super) fn count(&mut self, status: NodeStatus, up: bool) {
        let class = match status {
            NodeStatus::New => &mut self.undecided,
            NodeStatus::Ready => &mut self.ready,
            NodeStatus::Running => &mut self.running,
            NodeStatus::Succeeded
            | NodeStatus::Failed
            | NodeStatus::Aborted
            | NodeStatus::Unavailable
            | NodeStatus::Nacked
            | NodeStatus::Faulty
            | NodeStatus::WasReady
            | NodeStatus::Crashed
            | NodeStatus::TimedOut => return,
        };
        *class = if up { *class + 1 } else { class.saturating_sub(1) };
    }
}

/// One job in memory.
pub(super) struct LiveJob {
    pub(super) id: JobId,
    pub(super) org: OrgId,
    pub(super) status: JobStatus,
    pub(super) quorum: u32,
    pub(super) run_timeout: u32,
    pub(super) capture: bool,
    pub(super) nodes: Vec<JobNode>,
    pub(super) index: HashMap<NodeId, u32>,
    pub(super) tally: Tally,
    /// The commit, without what differs between nodes, and what it has besides for nodes that take it; gone when the
    /// vote is over.
    pub(super) commit: Option<(Tail, Tail)>,
    /// Only nodes that take parameters may be asked.
    pub(super) parameters: bool,
    pub(super) run: Tail,
    /// How many events its feed has.
    pub(super) told: u64,
    /// Whether the store has it; before that it can only be refused.
    pub(super) stored: bool,
    pub(super) request: Option<RequestId>,
    pub(super) gate: Gate,
}

impl LiveJob {
    pub(super) fn phase(&self) -> Phase {
        match self.status {
            JobStatus::New | JobStatus::Voting => Phase::Voting,
            JobStatus::Running => Phase::Running,
            JobStatus::Complete
            | JobStatus::QuorumFailed
            | JobStatus::Aborted
            | JobStatus::TimedOut
            | JobStatus::Crashed => Phase::Over,
        }
    }
}

/// A message to a node, encoded when it goes out.
#[derive(Debug, Clone)]
pub(super) enum ToNode {
    Ack,
    Abort,
    Run(JobIx),
    Cancel(JobIx),
    ResultAck(JobId),
    OutputRequest(Wanted),
}

/// What waits in the output queue.
pub(super) enum Queued {
    Ready(Output),
    ToNode(NodeId, ToNode),
}

/// What waits to be asked for with `poll_bulk`.
pub(super) enum Bulk {
    /// The commits of a job, from this node of it on.
    All(JobIx, usize),
    /// One commit again.
    One(JobIx, NodeId),
}

/// What waits until records are kept.
pub(super) enum Gated {
    Started(RequestId),
    Event(Wall, Event, Frame),
    /// The commits of a new job.
    Commits,
    /// The runs of a job whose vote was won.
    Runs,
    /// One run again.
    Run(NodeId),
    /// A node must give up what it does.
    Stop(NodeId),
    /// A node must give up this job; `spared`: it does another one, so that `abort` would hurt that.
    Cancel {
        node: NodeId,
        spared: bool,
    },
    /// The answer to an operator who cancels.
    Cancelled(RequestId, Vec<NodeName>),
    /// A node's result is kept.
    ResultAck(NodeId),
    /// The answer to a configuration request.
    Config {
        request: RequestId,
        body: String,
        node: NodeId,
        key: CurveKey,
    },
}
