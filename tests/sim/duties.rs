//! What our agent owes a server that breaks the protocol (2, 7.2, decision 28): seen at the agent itself, where the server's
//! words arrive and its own leave. Nothing said by such a server excuses any of it.

use std::collections::{BTreeMap, BTreeSet};

use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::JobOptions;
use pushy_core::message::{FromNode, FromServer, JobRef, JobState, NodeMessage, ServerMessage};

use pushy_core::time::Wall;

use crate::ledger::Broken;

/// Longer than the longest check, start and kill together, in milliseconds.
const ANSWER: u64 = 10_000;
/// `max_message_skew` of every configuration here, in seconds.
const SKEW: i64 = 300;

/// What is still to be answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owed {
    Vote(JobId),
    Run(JobId),
    Abort,
}

/// One life of one agent.
#[derive(Debug, Default)]
struct Life {
    /// The options of the commits that found it idle.
    offers: BTreeMap<JobId, JobOptions>,
    accepted: BTreeSet<JobId>,
    told_to_run: BTreeSet<JobId>,
    begun: BTreeSet<JobId>,
    done: BTreeSet<JobId>,
    /// Frames it has had: the same again counts for nothing (D-53).
    seen: BTreeSet<Vec<u8>>,
    owed: BTreeMap<Owed, u64>,
}

/// The agents of a world with a rogue server.
#[derive(Debug, Default)]
pub struct Duties {
    agents: BTreeMap<NodeName, Life>,
}

/// How an agent was when a word of the server reached it.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// It had no job.
    pub idle: bool,
    /// What its clock showed.
    pub wall: Wall,
}

impl Duties {
    fn life(&mut self, node: &NodeName) -> &mut Life {
        self.agents.entry(node.clone()).or_default()
    }

    /// An agent died: the next one knows nothing but the results that were kept.
    pub fn died(&mut self, node: &NodeName) {
        self.agents.remove(node);
    }

    /// A connection is gone: what was said over it need not be answered any more.
    pub fn deaf(&mut self, node: &NodeName) {
        self.life(node).owed.clear();
    }

    /// A word of the server reached an agent, which keeps the result of the jobs for which `keeps` says so.
    pub fn told(
        &mut self,
        now: u64,
        node: &NodeName,
        body: &[u8],
        reached: Reached,
        keeps: impl Fn(&JobId) -> bool,
    ) -> Result<(), Broken> {
        self.overdue(now, node)?;
        let life = self.life(node);
        let Ok(message) = FromServer::decode(body) else { return Ok(()) };
        // With clocks too far apart it believes nothing.
        let skew = reached.wall.secs() - message.timestamp.secs();
        if skew.abs() > SKEW || !life.seen.insert(body.to_vec()) {
            return Ok(());
        }
        let owed = match message.message {
            ServerMessage::Commit(commit) => {
                if reached.idle {
                    life.offers.insert(commit.job.clone(), commit.options);
                }
                Owed::Vote(commit.job)
            }
            ServerMessage::Run { job } => {
                life.told_to_run.insert(job.clone());
                if life.done.contains(&job) && !keeps(&job) {
                    return Ok(()); // The server has said that it has the result: there is nothing left to say.
                }
                Owed::Run(job)
            }
            ServerMessage::Abort => Owed::Abort,
            _ => return Ok(()),
        };
        life.owed.entry(owed).or_insert(now);
        Ok(())
    }

    /// A word of an agent leaves.
    pub fn said(&mut self, now: u64, node: &NodeName, body: &[u8]) -> Result<(), Broken> {
        let life = self.life(node);
        match FromNode::decode(body).map(|m| m.message) {
            Ok(NodeMessage::AckCommit { job: JobRef::Id(job) }) => {
                life.owed.remove(&Owed::Vote(job.clone()));
                life.accepted.insert(job);
            }
            Ok(NodeMessage::Heartbeat { state: Some(JobState::Committed), job: JobRef::Id(job), .. }) => {
                life.accepted.insert(job);
            }
            Ok(NodeMessage::NackCommit { job: JobRef::Id(job), .. }) => {
                life.owed.remove(&Owed::Vote(job));
            }
            Ok(
                NodeMessage::AckRun { job: JobRef::Id(job) }
                | NodeMessage::NackRun { job: JobRef::Id(job), .. }
                | NodeMessage::Succeeded { job: JobRef::Id(job), .. }
                | NodeMessage::Failed { job: JobRef::Id(job), .. },
            ) => {
                life.owed.remove(&Owed::Run(job));
            }
            Ok(NodeMessage::Aborted { .. }) => life.owed.clear(),
            _ => {}
        }
        self.overdue(now, node)
    }

    /// A command gets the options of the commit that was accepted, whatever was said later (D-43).
    pub fn options(&self, node: &NodeName, job: &JobId, options: &JobOptions) -> Result<(), Broken> {
        match self.agents.get(node).and_then(|life| life.offers.get(job)) {
            Some(offered) if offered.env == options.env => Ok(()),
            _ => Err(format!("job {job} runs on {node} with options that it was not accepted with")),
        }
    }

    /// A process is started: once, after a vote and a `run`, and not while an earlier result waits for the server.
    pub fn started(&mut self, node: &NodeName, job: &JobId, keeps: bool) -> Result<(), Broken> {
        let life = self.life(node);
        let wrong = if keeps {
            "while its result is kept"
        } else if !life.accepted.contains(job) {
            "without having accepted it"
        } else if !life.told_to_run.contains(job) {
            "without being told to"
        } else if !life.begun.insert(job.clone()) {
            "twice"
        } else {
            return Ok(());
        };
        Err(format!("{node} starts job {job} {wrong}"))
    }

    /// A process ended by itself.
    pub fn ended(&mut self, node: &NodeName, job: JobId) {
        self.life(node).done.insert(job);
    }

    /// Nothing may be left to answer for long.
    pub fn settle(&mut self, now: u64) -> Result<(), Broken> {
        let nodes: Vec<NodeName> = self.agents.keys().cloned().collect();
        nodes.iter().try_for_each(|node| self.overdue(now, node))
    }

    fn overdue(&mut self, now: u64, node: &NodeName) -> Result<(), Broken> {
        match self.life(node).owed.iter().find(|(_, since)| **since + ANSWER < now) {
            Some((owed, since)) => Err(format!("{node} has not answered {owed:?} since {since}")),
            None => Ok(()),
        }
    }
}
