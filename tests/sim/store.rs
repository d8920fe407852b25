//! The store as a peer of the server: slow, failing, and losing at a crash what it had not confirmed.

use std::collections::{BTreeMap, VecDeque};

use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::{Job, JobStatus, NodeStatus};
use pushy_core::server::record::Binding;
use pushy_core::server::{FeedEnd, Record, Restored, Ticket};
use pushy_core::time::Wall;

/// What survives a crash.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Every job ever stored.
    pub jobs: BTreeMap<JobId, Job>,
    /// Output by job and node.
    pub outputs: BTreeMap<(JobId, NodeName), (Vec<u8>, Vec<u8>)>,
    /// Number and time of the last event by job.
    pub feeds: BTreeMap<JobId, (u64, Wall)>,
    /// Bindings.
    pub bindings: Vec<Binding>,
    /// Jobs as they were when their quorum was stored, since this was last looked at.
    pub won: Vec<Job>,
}

/// The store.
#[derive(Debug, Default)]
pub struct Store {
    /// What is safe.
    pub stored: Stored,
    /// Asked for, not answered.
    pub pending: VecDeque<(Ticket, Vec<Record>)>,
    /// Until then every write fails.
    pub failing_until: u64,
    /// Until then a write takes this much longer, in milliseconds.
    pub slow: (u64, u64),
}

impl Stored {
    /// Applies one transaction. Answers what contradicts the life of a job: such a store has lost its meaning.
    pub fn apply(&mut self, records: &[Record]) -> Result<(), String> {
        for record in records {
            match record {
                Record::NewJob(job) => {
                    if self.jobs.insert(job.id.clone(), (**job).clone()).is_some() {
                        return Err(format!("job {} stored twice", job.id));
                    }
                }
                Record::JobStatus { job, status, updated_at, deadline } => {
                    let stored =
                        self.jobs.get_mut(job).ok_or_else(|| format!("status of unknown job {job}"))?;
                    if stored.status.is_terminal() && stored.status != *status {
                        return Err(format!("job {job} was {} and became {status}", stored.status));
                    }
                    stored.status = *status;
                    stored.updated_at = *updated_at;
                    stored.deadline = *deadline;
                    if *status == JobStatus::Running {
                        self.won.push(stored.clone());
                    }
                }
                Record::NodeStatus { job, node, status, reason, .. } => {
                    let stored =
                        self.jobs.get_mut(job).ok_or_else(|| format!("node of unknown job {job}"))?;
                    let entry = stored.nodes.iter_mut().find(|(n, _)| n == node);
                    let (_, old) = entry.ok_or_else(|| format!("{node} is not of job {job}"))?;
                    if old.is_terminal() && old != status {
                        return Err(format!("{node} of job {job} was {old} and became {status}"));
                    }
                    *old = *status;
                    match reason {
                        Some(reason) => stored.reasons.insert(node.clone(), reason.clone()),
                        None => stored.reasons.remove(node),
                    };
                }
                Record::Output { job, node, stdout, stderr } => {
                    self.outputs
                        .entry((job.clone(), node.clone()))
                        .or_insert_with(|| (stdout.clone(), stderr.clone()));
                }
                Record::Feed { job, first, frames, at } => {
                    let end = self.feeds.entry(job.clone()).or_insert((0, *at));
                    if *first != end.0 + 1 {
                        return Err(format!("event {first} of job {job} stored after event {}", end.0));
                    }
                    *end = (end.0 + frames.len() as u64, *at);
                }
                Record::Binding(binding) => {
                    self.bindings.retain(|b| b.node != binding.node || b.key != binding.key);
                    self.bindings.push(binding.clone());
                }
                Record::BindingEnded { node, key } => {
                    self.bindings.retain(|b| b.node != *node || b.key != *key);
                }
            }
        }
        Ok(())
    }

    /// What a starting server is given.
    pub fn restored(&self) -> Restored {
        Restored {
            bindings: self.bindings.clone(),
            jobs: self.jobs.values().filter(|j| !j.status.is_terminal()).cloned().collect(),
            feeds: self
                .feeds
                .iter()
                .map(|(job, (last, at))| FeedEnd { job: job.clone(), last: *last, at: *at })
                .collect(),
        }
    }

    /// The stored status of one node of a job.
    pub fn node_status(&self, job: &JobId, node: &NodeName) -> Option<NodeStatus> {
        self.jobs.get(job)?.nodes.iter().find(|(n, _)| n == node).map(|(_, s)| *s)
    }
}

impl Store {
    /// When a write that is asked for now will be answered.
    pub fn answer_at(&self, now: u64, jitter: u64) -> u64 {
        let (until, extra) = self.slow;
        now + 1 + jitter + if now < until { extra } else { 0 }
    }

    /// Answers the oldest write: whether it is kept.
    pub fn answer(&mut self, now: u64) -> Result<Option<(Ticket, bool)>, String> {
        let Some((ticket, records)) = self.pending.pop_front() else { return Ok(None) };
        if now < self.failing_until {
            return Ok(Some((ticket, false)));
        }
        self.stored.apply(&records)?;
        Ok(Some((ticket, true)))
    }

    /// The server dies: of what was not confirmed, the first `kept` writes reached the disk all the same.
    pub fn crash(&mut self, kept: usize) -> Result<(), String> {
        for (_, records) in self.pending.drain(..).take(kept) {
            self.stored.apply(&records)?;
        }
        Ok(())
    }
}
