//! Where a job stands, in numbers: from its document, and kept up to date by its feed.

use std::collections::HashMap;

use serde_json::Value;

use crate::api::JobView;
use crate::feed::Entry;
use crate::job::{JobStatus, NodeStatus};
use crate::time::Millis;

/// How many nodes a job has in each status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The job's own status.
    pub status: JobStatus,
    /// Since the job was started, as far as that is known here.
    pub elapsed: Millis,
    counts: [usize; NodeStatus::ALL.len()],
    /// Nodes in a status that this version does not know; they count as done.
    others: usize,
}

impl Tally {
    fn new(status: JobStatus) -> Tally {
        Tally { status, elapsed: Millis(0), counts: [0; NodeStatus::ALL.len()], others: 0 }
    }

    /// Counts the nodes of a job's document.
    pub fn of_job(job: &JobView) -> Tally {
        let mut tally = Tally::new(job.status());
        for (status, names) in job.nodes() {
            *tally.slot(status) += names.len();
        }
        tally
    }

    fn slot(&mut self, status: Option<NodeStatus>) -> &mut usize {
        let at = status.and_then(|status| NodeStatus::ALL.iter().position(|s| *s == status));
        match at.and_then(|at| self.counts.get_mut(at)) {
            Some(slot) => slot,
            None => &mut self.others,
        }
    }

    /// The statuses that occur, with the number of nodes in each, in the order of the database's codes.
    pub fn counts(&self) -> impl Iterator<Item = (NodeStatus, usize)> {
        NodeStatus::ALL.iter().copied().zip(self.counts).filter(|(_, count)| *count > 0)
    }

    /// How many nodes are in this status.
    pub fn count(&self, status: NodeStatus) -> usize {
        self.counts().find(|(s, _)| *s == status).map_or(0, |(_, count)| count)
    }

    /// How many nodes the job has.
    pub fn total(&self) -> usize {
        self.counts.iter().sum::<usize>() + self.others
    }

    /// How many of them are `new`, `ready` or `running` (D-73).
    pub fn in_progress(&self) -> usize {
        self.counts().filter(|(status, _)| !status.is_terminal()).map(|(_, count)| count).sum()
    }

    /// The line that says where the job stands, in knife's words (10.2).
    pub fn state_line(&self) -> String {
        match self.status {
            JobStatus::New => "Initialized.".to_owned(),
            JobStatus::Voting => "Voting.".to_owned(),
            JobStatus::Running => {
                format!("Running ({}/{} in progress) ...", self.in_progress(), self.total())
            }
            JobStatus::Complete => "Complete.".to_owned(),
            JobStatus::QuorumFailed => "Quorum_failed.".to_owned(),
            JobStatus::TimedOut => "Timed_out.".to_owned(),
            JobStatus::Aborted => "Aborted.".to_owned(),
            JobStatus::Crashed => "Crashed.".to_owned(),
        }
    }
}

/// A job's nodes as far as document and feed have told of them.
///
/// A feed that is read from its beginning repeats what the document knows already: nothing moves backwards.
#[derive(Debug)]
pub(super) struct Board {
    tally: Tally,
    nodes: HashMap<String, Option<NodeStatus>>,
}

impl Board {
    pub(super) fn of_job(job: &JobView) -> Board {
        let mut nodes = HashMap::with_capacity(job.node_count());
        for (status, names) in job.nodes() {
            nodes.extend(names.iter().filter_map(Value::as_str).map(|name| (name.to_owned(), status)));
        }
        Board { tally: Tally::of_job(job), nodes }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether the entry changed anything.
    pub(super) fn apply(&mut self, entry: &Entry) -> bool {
        let Ok(data) = entry.json() else { return false };
        let text = |key: &str| data.get(key).and_then(Value::as_str);
        let status = text("status");
        let moved = match entry.name.as_str() {
            "quorum_vote" => text("node").map(|node| (node, vote(status))),
            "run_start" => text("node").map(|node| (node, NodeStatus::Running)),
            "run_complete" => text("node").map(|node| (node, result(status))),
            "quorum_succeeded" => return self.advance(JobStatus::Running),
            "start" => return self.advance(JobStatus::Voting),
            // The document says the rest; it is asked for at once.
            _ => None,
        };
        moved.is_some_and(|(node, status)| self.move_node(node, status))
    }

    fn advance(&mut self, to: JobStatus) -> bool {
        let rank = |status: JobStatus| match status {
            JobStatus::New => 0,
            JobStatus::Voting => 1,
            JobStatus::Running => 2,
            _ => 3,
        };
        let forward = rank(to) > rank(self.tally.status);
        if forward {
            self.tally.status = to;
        }
        forward
    }

    fn move_node(&mut self, node: &str, to: NodeStatus) -> bool {
        let rank = |status: Option<NodeStatus>| match status {
            Some(NodeStatus::New) => 0,
            Some(NodeStatus::Ready) => 1,
            Some(NodeStatus::Running) => 2,
            _ => 3,
        };
        let Some(known) = self.nodes.get_mut(node) else { return false };
        let from = *known;
        if rank(Some(to)) <= rank(from) {
            return false;
        }
        *known = Some(to);
        let left = self.tally.slot(from);
        *left = left.saturating_sub(1);
        *self.tally.slot(Some(to)) += 1;
        true
    }
}

/// What a vote makes of a node (6.4); anything unknown is a no.
fn vote(status: Option<&str>) -> NodeStatus {
    match status {
        Some("success") => NodeStatus::Ready,
        Some("down" | "voting_timeout" | "client_died_while_voting") => NodeStatus::Unavailable,
        Some(other) => NodeStatus::from_text(other).unwrap_or(NodeStatus::Nacked),
        None => NodeStatus::Nacked,
    }
}

/// What the end of a run makes of a node (6.5). The document at the end has the last word.
fn result(status: Option<&str>) -> NodeStatus {
    match status {
        Some("success") => NodeStatus::Succeeded,
        Some("crashed" | "client_died_while_running") => NodeStatus::Crashed,
        Some(other) => NodeStatus::from_text(other).unwrap_or(NodeStatus::Failed),
        None => NodeStatus::Failed,
    }
}
