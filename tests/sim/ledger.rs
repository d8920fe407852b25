//! What really happened, kept beside what the server believes; every rule of the simulation is checked here.

use std::collections::{BTreeMap, BTreeSet};

use pushy_core::event::Event;
use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::{Job, JobStatus, NodeStatus};
use pushy_core::message::{FromServer, JobRef, JobState, NodeMessage, ServerMessage};
use pushy_core::server::Record;
use pushy_core::time::Wall;

use crate::net::LinkId;
use crate::server_host::clock;
use crate::store::Stored;

type Part = (JobId, NodeName);

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Jobs that were answered with 201.
    pub started_jobs: BTreeSet<JobId>,
    votes: BTreeSet<Part>,
    starts: BTreeMap<Part, u64>,
    exits: BTreeMap<Part, (u64, bool)>,
    killed: BTreeSet<Part>,
    /// Processes that their node ended because their time was up.
    late: BTreeMap<Part, u64>,
    /// How long a process may run, in milliseconds, as its node was told.
    limits: BTreeMap<Part, u64>,
    cancelled: BTreeSet<Part>,
    running: BTreeMap<NodeName, JobId>,
    ran: BTreeSet<JobId>,
    closed_at: BTreeMap<Part, u64>,
    excused: BTreeSet<Part>,
    given_up_in_time: BTreeSet<Part>,
    standing: BTreeMap<LinkId, NodeName>,
    asked: BTreeSet<(&'static str, JobId, LinkId)>,
    left_at: BTreeMap<NodeName, u64>,
    /// From when to when nodes could be given up, until they were back.
    away: BTreeMap<NodeName, Vec<(u64, u64)>>,
    /// How far the server's wall clock was off beside not at all, in seconds.
    pub server_clocks: Vec<i64>,
    /// Nodes with an original client: its results can be lost.
    pub originals: BTreeSet<NodeName>,
    /// Nodes that break the protocol. They run nothing, so what is stored of them is their own word, and none of the rules about
    /// processes applies to them. All others do: they are told nothing twice, no vote is theirs that they did not give, and
    /// what they say changes nothing for anybody else.
    pub rogues: BTreeSet<NodeName>,
    /// Only [`crate::duties`] apply.
    pub rogue_server: bool,
    /// What a node has reported about a job: a result, or that it would not run it.
    reported: BTreeSet<Part>,
    /// An original server forgets its nodes and jobs at a restart, and loses results.
    pub original_server: bool,
    /// A node may be given up after this long without a connection.
    pub down_after: u64,
}

/// A rule that was broken.
pub type Broken = String;

impl Ledger {
    /// An empty one.
    pub fn new(down_after: u64) -> Ledger {
        Ledger { down_after, ..Ledger::default() }
    }

    /// The server heard a node's own message (before any replay by others).
    pub fn heard(&mut self, now: u64, link: LinkId, node: &NodeName, message: &NodeMessage) {
        if self.may_give_up(now, node) {
            let from = self.left_at.get(node).copied().unwrap_or(0) + self.down_after;
            self.away.entry(node.clone()).or_default().push((from, now));
        }
        self.standing.insert(link, node.clone());
        match message {
            NodeMessage::AckCommit { job: JobRef::Id(job) }
            | NodeMessage::Heartbeat { state: Some(JobState::Committed), job: JobRef::Id(job), .. } => {
                self.votes.insert((job.clone(), node.clone()));
            }
            NodeMessage::Succeeded { job: JobRef::Id(job), .. }
            | NodeMessage::Failed { job: JobRef::Id(job), .. }
            | NodeMessage::NackRun { job: JobRef::Id(job), .. } => {
                self.reported.insert((job.clone(), node.clone()));
            }
            _ => {}
        }
    }

    /// The server has lost a connection.
    pub fn left(&mut self, now: u64, link: LinkId) {
        if let Some(node) = self.standing.remove(&link) {
            self.left_at.insert(node, now);
        }
    }

    /// A process was started on a node.
    pub fn started(&mut self, now: u64, job: &JobId, node: &NodeName, keeps: bool) -> Result<(), Broken> {
        if keeps {
            return Err(format!("job {job} was started on {node}, which keeps its result"));
        }
        let part = (job.clone(), node.clone());
        if let Some(before) = self.starts.insert(part, now) {
            return Err(format!("job {job} was started twice on {node}: at {before} and {now}"));
        }
        if !self.ran.contains(job) {
            return Err(format!("job {job} was started on {node} without a stored quorum"));
        }
        self.running.insert(node.clone(), job.clone());
        Ok(())
    }

    /// A process ended by itself.
    pub fn ended(&mut self, now: u64, job: JobId, node: &NodeName, good: bool) -> Result<(), Broken> {
        let part = (job, node.clone());
        self.check_limit(now, &part)?;
        self.running.remove(node);
        self.exits.insert(part, (now, good));
        Ok(())
    }

    /// An agent ends a process: because it was told to, or because the time is up.
    pub fn killed(&mut self, now: u64, job: JobId, node: &NodeName, stored: &Stored) -> Result<(), Broken> {
        let part = (job, node.clone());
        self.check_limit(now, &part)?;
        self.running.remove(node);
        let ran = self.starts.get(&part).map(|start| now - start);
        let late = ran.is_some_and(|ran| self.limits.get(&part).is_some_and(|limit| ran >= *limit));
        if late && !self.killed.contains(&part) {
            self.late.insert(part.clone(), now);
        } else if !self.original_server
            && ran.is_some()
            && stored.node_status(&part.0, node).is_some_and(|status| !status.is_terminal())
        {
            return Err(format!(
                "the process of job {} was ended on {node}, though nobody gave it up",
                part.0
            ));
        }
        self.killed.insert(part);
        Ok(())
    }

    /// The node ends what runs for too long itself, whether it reaches the server or not.
    fn check_limit(&self, now: u64, part: &Part) -> Result<(), Broken> {
        let (Some(start), Some(limit)) = (self.starts.get(part), self.limits.get(part)) else {
            return Ok(());
        };
        if self.killed.contains(part) || now - start <= limit + 10 {
            return Ok(());
        }
        Err(format!("{} ran job {} for {} ms of {limit}", part.1, part.0, now - start))
    }

    /// An operator was told that a job is cancelled.
    pub fn cancelled(
        &mut self,
        job: &JobId,
        whole: bool,
        nodes: Vec<NodeName>,
        stored: &Stored,
    ) -> Result<(), Broken> {
        let status = stored.jobs.get(job).map(|job| job.status);
        if whole && status != Some(JobStatus::Aborted) {
            return Err(format!("job {job} was said to be cancelled, stored is {status:?}"));
        }
        for node in nodes {
            if stored.node_status(job, &node) != Some(NodeStatus::Aborted) {
                return Err(format!("{node} of job {job} was said to be cancelled before that was stored"));
            }
            self.cancelled.insert((job.clone(), node));
        }
        Ok(())
    }

    /// Everybody is back: nothing runs any more that was cancelled.
    ///
    /// # Errors
    /// The first process that does.
    pub fn check_cancelled(&self) -> Result<(), Broken> {
        let ours = self.running.iter().filter(|(node, _)| !self.originals.contains(*node));
        for (node, job) in ours {
            if self.cancelled.contains(&(job.clone(), node.clone())) {
                return Err(format!("{node} still runs job {job}, which was cancelled"));
            }
        }
        Ok(())
    }

    /// A quorum was stored.
    fn won(&mut self, job: &Job) -> Result<(), Broken> {
        if !self.ran.insert(job.id.clone()) {
            return Err(format!("job {} won its vote twice", job.id));
        }
        // A node that an operator has cancelled meanwhile counts as a no.
        let no = |s: &NodeStatus| {
            matches!(s, NodeStatus::New | NodeStatus::Nacked | NodeStatus::Unavailable | NodeStatus::Aborted)
        };
        let yes: Vec<&NodeName> = job.nodes.iter().filter(|(_, s)| !no(s)).map(|(n, _)| n).collect();
        if (yes.len() as u32) < job.quorum {
            return Err(format!("job {} runs with {} of {} votes", job.id, yes.len(), job.quorum));
        }
        if let Some(node) = yes.iter().find(|n| !self.votes.contains(&(job.id.clone(), (**n).clone()))) {
            return Err(format!("job {} counts a vote that {node} never gave", job.id));
        }
        if job.nodes.iter().any(|(_, s)| *s == NodeStatus::New) {
            return Err(format!("job {} runs while a vote is open", job.id));
        }
        Ok(())
    }

    /// An agent died, its process with it.
    pub fn died(&mut self, node: &NodeName) {
        self.running.remove(node);
    }

    fn may_give_up(&self, now: u64, node: &NodeName) -> bool {
        let standing = self.standing.values().any(|n| n == node);
        let left = self.left_at.get(node).copied().unwrap_or(0);
        !standing && left + self.down_after <= now
    }

    /// Whether the node could be given up at this time of the server's clock. Its record waits while the store is slow, and by
    /// the time that is asked the node may be back.
    fn was_away(&self, node: &NodeName, at: Wall) -> bool {
        let away = self.away.get(node).into_iter().flatten();
        let clocks = || self.server_clocks.iter().copied().chain([0]);
        away.into_iter().any(|(from, to)| {
            clocks().any(|offset| (clock(*from, offset).wall.0..=clock(*to, offset).wall.0).contains(&at.0))
        })
    }

    /// The store is asked to take something, and may fail or take its time: what counts is when the server gave up.
    pub fn asked_to_store(&mut self, now: u64, records: &[Record]) {
        for record in records {
            match record {
                Record::NodeStatus { job, node, status: NodeStatus::Crashed, updated_at, .. }
                    if self.may_give_up(now, node) || self.was_away(node, *updated_at) =>
                {
                    self.given_up_in_time.insert((job.clone(), node.clone()));
                }
                _ => {}
            }
        }
    }

    /// The store has taken something.
    pub fn stored(&mut self, now: u64, stored: &mut Stored) -> Result<(), Broken> {
        for job in std::mem::take(&mut stored.won) {
            self.won(&job)?;
        }
        for job in stored.jobs.values() {
            for (node, status) in &job.nodes {
                let part = (job.id.clone(), node.clone());
                if status.is_terminal() && !self.closed_at.contains_key(&part) {
                    let result = matches!(status, NodeStatus::Succeeded | NodeStatus::Failed);
                    if result && !self.original_server && !self.reported.contains(&part) {
                        return Err(format!("{node} is {status} for job {}, which it never said", job.id));
                    }
                    let excused = self.may_give_up(now, node) || self.given_up_in_time.contains(&part);
                    if excused {
                        self.excused.insert(part.clone());
                    } else if *status == NodeStatus::Crashed
                        && !self.original_server
                        && self.running.get(node) == Some(&job.id)
                    {
                        return Err(format!("{node} was given up while it ran job {}", job.id));
                    }
                    self.closed_at.insert(part, now);
                }
            }
        }
        Ok(())
    }

    /// The server tells a feed.
    pub fn announced(&self, job: &JobId, event: &Event, stored: &Stored) -> Result<(), Broken> {
        let Some(kept) = stored.jobs.get(job) else {
            return Err(format!("{} of job {job} was announced, which is not stored", event.name()));
        };
        match event {
            Event::JobComplete { status } if kept.status != *status => {
                Err(format!("job {job} was announced {status} and is stored {}", kept.status))
            }
            Event::QuorumSucceeded if !self.ran.contains(job) => {
                Err(format!("quorum of job {job} was announced before it was stored"))
            }
            Event::RunComplete { node, .. }
                if stored.node_status(job, node).is_some_and(|s| !s.is_terminal()) =>
            {
                Err(format!("{node} of job {job} was announced done before it was stored"))
            }
            _ => Ok(()),
        }
    }

    /// A message leaves for a node.
    pub fn sent(
        &mut self,
        link: LinkId,
        node: &NodeName,
        body: &[u8],
        stored: &Stored,
    ) -> Result<(), Broken> {
        let Ok(message) = FromServer::decode(body) else {
            return Err(format!("{node} is sent something unreadable"));
        };
        // An original takes both amiss the second time, and a connection loses nothing (decision 3).
        let once = match &message.message {
            ServerMessage::Commit(commit) => Some(("commit", &commit.job)),
            ServerMessage::Run { job } => Some(("run", job)),
            _ => None,
        };
        if let Some((what, job)) = once {
            if !self.asked.insert((what, job.clone(), link)) {
                return Err(format!("{what} of job {job} left twice for {node} on one connection"));
            }
            // Of what a rogue says the server drops some: it may not have heard that vote.
            let voted = !self.rogues.contains(node);
            if what == "commit" && voted && self.votes.contains(&(job.clone(), node.clone())) {
                return Err(format!("{node} is asked again for job {job}, on which it has voted"));
            }
        }
        if let ServerMessage::Commit(commit) = &message.message {
            let part = (commit.job.clone(), node.clone());
            if self.originals.contains(node) && commit.run_timeout.is_some() {
                return Err(format!("{node} is an original and is sent an extension"));
            }
            self.limits.extend(commit.run_timeout.map(|seconds| (part, u64::from(seconds) * 1000)));
        }
        match message.message {
            ServerMessage::Cancel { .. } if self.originals.contains(node) => {
                Err(format!("{node} is an original and is sent a cancel"))
            }
            ServerMessage::Cancel { job } => match stored.node_status(&job, node) {
                Some(NodeStatus::Aborted) => Ok(()),
                status => Err(format!("cancel of job {job} left for {node}, stored is {status:?}")),
            },
            ServerMessage::Commit(commit) if !stored.jobs.contains_key(&commit.job) => {
                Err(format!("commit of job {} left before it was stored", commit.job))
            }
            ServerMessage::Run { job } if !self.ran.contains(&job) => {
                Err(format!("run of job {job} left before its quorum was stored"))
            }
            ServerMessage::Run { job } => match stored.node_status(&job, node) {
                // An original takes a second run amiss (7.2); ours is asked only as long as it may not have begun.
                Some(status) if status != NodeStatus::Ready => {
                    Err(format!("run of job {job} left for {node}, which is {status}"))
                }
                _ => Ok(()),
            },
            ServerMessage::Abort => {
                let open = |s: NodeStatus| matches!(s, NodeStatus::Ready | NodeStatus::Running);
                match self.running.get(node) {
                    Some(job) if stored.node_status(job, node).is_some_and(open) => {
                        Err(format!("{node} is told to abort in the middle of job {job}"))
                    }
                    _ => Ok(()),
                }
            }
            ServerMessage::ResultAck { job } => match stored.node_status(&job, node) {
                Some(status) if !status.is_terminal() => {
                    Err(format!("result of {node} for job {job} was acknowledged, stored is {status}"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A message leaves for a node with an original client, which `held` a job: it takes a second `commit` or `run` of that
    /// amiss and gives the job up (7.2), so whatever the server believes, neither may leave once it has heard the first.
    pub fn asked(&self, node: &NodeName, body: &[u8], held: Option<&JobId>) -> Result<(), Broken> {
        let Some(held) = held else { return Ok(()) };
        match FromServer::decode(body).map(|m| m.message) {
            Ok(ServerMessage::Commit(commit)) if commit.job == *held => {
                Err(format!("{node} is asked to commit to job {held}, which it has"))
            }
            Ok(ServerMessage::Run { job })
                if job == *held && self.starts.contains_key(&(job.clone(), node.clone())) =>
            {
                Err(format!("{node} is told to run job {job}, which it runs"))
            }
            _ => Ok(()),
        }
    }

    /// The end: everything is quiet again.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn settle(&self, stored: &Stored) -> Result<(), Broken> {
        for id in &self.started_jobs {
            let Some(job) = stored.jobs.get(id) else {
                return Err(format!("job {id} was promised and is lost"));
            };
            if !job.status.is_terminal() {
                return Err(format!("job {id} never ended: {}", job.status));
            }
            if let Some((node, status)) = job.nodes.iter().find(|(_, s)| !s.is_terminal()) {
                return Err(format!("job {id} is {} with {node} still {status}", job.status));
            }
            let reason = |node: &NodeName| job.reasons.contains_key(node);
            let odd = job.nodes.iter().find(|(n, s)| reason(n) == (*s == NodeStatus::Succeeded));
            if let Some((node, status)) = odd.filter(|_| !self.original_server) {
                return Err(format!(
                    "{node} of job {id} is {status}, its reason is {:?}",
                    job.reasons.get(node)
                ));
            }
        }
        // Originals lose processes (7.6), and an original server knows no other word for the end than `abort`.
        let ours = self.running.iter().find(|(node, _)| !self.originals.contains(*node));
        if let Some((node, job)) = ours.filter(|_| !self.original_server) {
            return Err(format!("{node} still runs job {job}"));
        }
        for ((job, node), at) in &self.late {
            let fits = match stored.node_status(job, node) {
                Some(NodeStatus::TimedOut | NodeStatus::Aborted) | None => true,
                Some(NodeStatus::Crashed) => self.given_up(job, node, *at),
                Some(_) => false,
            };
            if !fits {
                let status = stored.node_status(job, node);
                return Err(format!("{node} ended job {job} at its time limit, stored is {status:?}"));
            }
        }
        for ((job, node), (at, good)) in &self.exits {
            if self.original_server
                || self.rogue_server
                || self.originals.contains(node)
                || self.killed.contains(&(job.clone(), node.clone()))
            {
                continue;
            }
            let Some(status) = stored.node_status(job, node) else { continue };
            let fits = match status {
                NodeStatus::Succeeded => *good,
                NodeStatus::Failed => !*good,
                NodeStatus::TimedOut | NodeStatus::Aborted => true,
                NodeStatus::Crashed => self.given_up(job, node, *at),
                _ => false,
            };
            if !fits {
                let end = if *good { "well" } else { "badly" };
                return Err(format!("{node} ended job {job} {end} at {at}, stored is {status}"));
            }
        }
        Ok(())
    }

    /// Whether a node was given up for good reason: while it still ran, or after it was out of reach for long.
    fn given_up(&self, job: &JobId, node: &NodeName, exit: u64) -> bool {
        let part = (job.clone(), node.clone());
        self.closed_at.get(&part).is_some_and(|closed| *closed <= exit) || self.excused.contains(&part)
    }
}
