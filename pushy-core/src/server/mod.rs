//! One push server as a value: all its jobs, nodes and bindings.
//!
//! # Driving it
//! After every [`Server::handle`] (or a few of them: what one round leaves behind is stored in one batch), call
//! [`Server::poll_output`] until it answers `None` and carry each output
//! out in that order; call [`Server::poll_bulk`] as long as the network takes more (it yields the
//! commits of jobs one by one, so that no more of them wait than fit). Then wait for the next input or until
//! [`Server::next_deadline`], whichever comes first, and hand in [`Input::Tick`] for the latter. A tick
//! too early is harmless. `now.mono` never goes back; if it does, the later one is used.
//!
//! # Inside
//! The rules are tables: [`job_state`] for jobs, [`node_state`] for nodes. The rest looks rules up and carries them
//! out: `incoming` checks what nodes send, `nodes` and `jobs` hold the state, `gate` keeps back what must not
//! be told before it is stored, `outgoing` encodes, `binding` knows who may speak for which node.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::error::Result;
use crate::ids::{JobId, NodeName, NodeRef, OrgId};
use crate::message::{ServerMessage, Tail};
use crate::time::{Deadlines, Millis, Now, Wall};
use crate::wire::RsaSigner;

mod binding;
mod cancel;
mod detail;
mod freshness;
mod gate;
mod heartbeat;
mod incoming;
mod io;
pub mod job_state;
mod jobs;
pub mod node_state;
mod nodes;
mod outgoing;
mod outputs;
mod planted;
mod reasons;
pub mod record;
mod restore;
mod store;
mod tables;
mod trouble;

pub use crate::curve_key::CurveKey;
pub use detail::{Claimant, NodeCounts, NodeDetail, NodeWarning};
pub use io::{
    CancelAnswer, ConnId, Input, LogEntry, LogLevel, NodeState, OnRestart, Output, Random, RefusedKey,
    RequestId, ServerConfig, ServerKeys, Ticket,
};
pub use outputs::{OutputRead, OutputView};
#[cfg(feature = "planted-bugs")]
pub use planted::PlantedBug;
pub use record::{Binding, FeedEnd, Record, Restored};

use gate::Gate;
use tables::{Bulk, Conn, JobIx, LiveJob, Node, NodeId, Queued, Timer};

/// What a ticket was handed out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batch {
    Job(JobIx),
    Bindings,
}

/// The machine. See the module's page.
pub struct Server {
    config: ServerConfig,
    keys: ServerKeys,
    signer: RsaSigner,
    public_key: String,
    random: Box<dyn Random>,

    now: Now,
    started: Millis,
    /// How often the wall clock was seen to step.
    clock_epoch: u32,
    /// The stamp of the last event of any feed: stamps must rise (8.6, H16).
    last_event: Wall,
    /// How often something that [`Server::node_states`] shows may have changed.
    views: u64,

    timers: Deadlines<Timer>,
    last_number: u64,
    nodes: HashMap<NodeId, Node>,
    by_name: HashMap<OrgId, HashMap<NodeName, NodeId>>,
    /// Which node a CURVE key belongs or belonged to.
    by_key: HashMap<CurveKey, NodeId>,
    jobs: HashMap<JobIx, LiveJob>,
    by_job_id: HashMap<JobId, JobIx>,
    conns: HashMap<ConnId, Conn>,
    /// When a refusal of this key or address was last logged.
    refusals: HashMap<String, Millis>,
    /// Who last fetched a configuration from an address, and when.
    fetchers: HashMap<String, (NodeName, Millis)>,

    out: VecDeque<Queued>,
    bulk: VecDeque<Bulk>,
    dirty_jobs: Vec<JobIx>,
    bindings: Gate,
    tickets: BTreeMap<Ticket, Batch>,
    last_ticket: u64,

    /// Sequence of the server's own next heartbeat.
    beats: u64,
    ack: Tail,
    abort: Tail,
    beat: Tail,
    /// Elementary steps done so far: loop turns over nodes, jobs and timers.
    steps: u64,
    #[cfg(feature = "planted-bugs")]
    bug: Option<PlantedBug>,
    #[cfg(feature = "planted-bugs")]
    rows: std::collections::BTreeMap<String, u64>,
}

impl Server {
    /// A server that goes on from what the store held.
    ///
    /// # Errors
    /// When a key cannot be used.
    pub fn new(
        config: ServerConfig,
        keys: ServerKeys,
        restored: Restored,
        random: Box<dyn Random>,
        now: Now,
    ) -> Result<Server> {
        let signer = RsaSigner::from_pem(&keys.signing).map_err(|e| e.context("the server's signing key"))?;
        let public_key = signer.public_pem()?;
        let beat = ServerMessage::Heartbeat {
            server: keys.server_name.clone(),
            incarnation: Some(keys.incarnation.clone()),
        };
        let mut server = Server {
            config,
            keys,
            signer,
            public_key,
            random,
            now,
            started: now.mono,
            clock_epoch: 0,
            last_event: Wall(i64::MIN),
            views: 0,
            timers: Deadlines::default(),
            last_number: 0,
            nodes: HashMap::new(),
            by_name: HashMap::new(),
            by_key: HashMap::new(),
            jobs: HashMap::new(),
            by_job_id: HashMap::new(),
            conns: HashMap::new(),
            refusals: HashMap::new(),
            fetchers: HashMap::new(),
            out: VecDeque::new(),
            bulk: VecDeque::new(),
            dirty_jobs: Vec::new(),
            bindings: Gate::default(),
            tickets: BTreeMap::new(),
            last_ticket: 0,
            beats: 0,
            ack: ServerMessage::Ack.tail(),
            abort: ServerMessage::Abort.tail(),
            beat: beat.tail(),
            steps: 0,
            #[cfg(feature = "planted-bugs")]
            bug: None,
            #[cfg(feature = "planted-bugs")]
            rows: std::collections::BTreeMap::new(),
        };
        // Decision 47: the first one goes out at once.
        server.timers.set(Timer::Heartbeat, now.mono);
        server.restore(restored);
        Ok(server)
    }

    /// Takes note of something that happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.set_clock(now);
        match input {
            Input::Tick => {}
            Input::FetchConfig { request, node, org_name, key, public_key, is_node } => {
                self.fetch_config(request, node, org_name, key, &public_key, is_node);
            }
            Input::Described { node, client, address } => {
                self.described(&node, &client);
                self.note_fetch(&node, address);
            }
            Input::Handshake { conn, key, peer } => self.handshake(conn, key, peer),
            Input::Opened { conn } => self.opened(conn),
            Input::Closed { conn } => self.closed(conn),
            Input::Frames { conn, header, body } => self.frames(conn, &header, &body),
            Input::StartJob { request, org, requester, job } => {
                self.start_job(request, org, requester, *job);
            }
            Input::CancelJob { request, org, job, nodes, by } => {
                self.cancel_job(request, &org, &job, &nodes, &by);
            }
            Input::Persisted { ticket } => self.persisted(ticket),
            Input::PersistFailed { ticket } => self.persist_failed(ticket),
            Input::ReadOutput { request, node, wanted } => self.read_output(request, &node, wanted),
            Input::EndBindings { node, why } => self.end_bindings(&node, &why),
        }
        self.run_timers();
    }

    /// The next thing to do, in order; `None` when there is nothing more for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            let Some(queued) = self.out.pop_front() else {
                if self.hand_to_store() {
                    continue;
                }
                return None;
            };
            match queued {
                Queued::Ready(output) => return Some(output),
                Queued::ToNode(node, message) => {
                    if let Some(output) = self.encode(node, &message) {
                        return Some(output);
                    }
                }
            }
        }
    }

    /// The next commit of a job. Call while the network takes more; `now` stamps the message.
    pub fn poll_bulk(&mut self, now: Now) -> Option<Output> {
        self.set_clock(now);
        self.next_commit()
    }

    /// When to hand in [`Input::Tick`].
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// Every node of the organization with a live state, by name (2.4.7).
    pub fn node_states(&self, org: &OrgId) -> Vec<(NodeName, NodeState)> {
        let Some(names) = self.by_name.get(org) else { return Vec::new() };
        let mut states: Vec<_> = names
            .iter()
            .filter_map(|(name, id)| Some((name, self.nodes.get(id)?)))
            .filter(|(_, node)| node.phase.is_live())
            .map(|(name, node)| (name.clone(), NodeState { online: true, available: node.is_available() }))
            .collect();
        states.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        states
    }

    /// Rises whenever an answer of [`Server::node_states`] may differ from the one before.
    pub fn views(&self) -> u64 {
        self.views
    }

    /// One node, known or not (2.4.8).
    pub fn node_state(&self, node: &NodeRef) -> NodeState {
        match self.find_node(node).and_then(|id| self.nodes.get(&id)) {
            Some(node) => NodeState { online: node.phase.is_live(), available: node.is_available() },
            None => NodeState { online: false, available: false },
        }
    }

    /// How many nodes have a live state, and the ids of jobs in memory (2.4.1).
    pub fn counts(&self) -> (usize, Vec<JobId>) {
        let live = self.nodes.values().filter(|n| n.phase.is_live()).count();
        let mut jobs: Vec<JobId> = self.by_job_id.keys().cloned().collect();
        jobs.sort_unstable();
        (live, jobs)
    }

    /// Whether any job has not ended yet.
    pub fn has_jobs(&self) -> bool {
        !self.by_job_id.is_empty()
    }

    /// How many elementary steps all inputs so far have cost: the measure of the cost tests (decision 11).
    #[doc(hidden)]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn set_clock(&mut self, now: Now) {
        let mono = now.mono.max(self.now.mono);
        let ran = i64::try_from((mono - self.now.mono).0).unwrap_or(i64::MAX).saturating_mul(1000);
        let moved = now.wall.0.saturating_sub(self.now.wall.0);
        if moved.saturating_sub(ran).saturating_abs() > 1_000_000 {
            self.clock_epoch = self.clock_epoch.wrapping_add(1);
        }
        self.now = Now { mono, wall: now.wall };
    }

    fn run_timers(&mut self) {
        let now = self.now.mono;
        while let Some(timer) = self.timers.pop_due(now) {
            self.steps += 1;
            match timer {
                Timer::Heartbeat => self.publish_heartbeat(),
                Timer::Vote(job) => self.vote_closes(job),
                Timer::Run(job) => self.time_is_up(job),
                Timer::Linger(job) => self.forget_job(job),
                Timer::RetryJob(job) => self.retry_job(job),
                Timer::RetryBindings => self.bindings.retry(),
                Timer::Rehab(node) => self.node_hears(node, node_state::NodeEvent::RehabTimer),
                Timer::Read(node, request) => self.read_is_late(node, request),
                Timer::Life(node) => self.life_due(node),
                Timer::Expiry(node) => self.binding_expiry_due(node),
            }
        }
    }

    fn log(
        &mut self,
        level: LogLevel,
        node: Option<NodeId>,
        job: Option<JobId>,
        peer: Option<String>,
        text: String,
    ) {
        let node = node.and_then(|id| self.nodes.get(&id)).map(|n| n.at.node.clone());
        self.out.push_back(Queued::Ready(Output::Log(LogEntry { level, node, job, peer, text })));
    }
}
