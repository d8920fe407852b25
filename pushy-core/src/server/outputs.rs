//! Asking nodes for what their commands printed (extension `output`, decision 37). The machine matches pieces to
//! requests and keeps none of them.

use crate::ids::{JobId, NodeRef};
use crate::job::NodeStatus;
use crate::message::Caps;
use crate::output::{Chunk, Wanted};
use crate::time::Millis;

use super::tables::{Node, NodeId, Queued, Timer, ToNode};
use super::{ConnId, Output, RequestId, Server};

/// Requests to one node that may be under way at a time.
pub(super) const MAX_READS: usize = 128;
/// Longer than it was asked to wait, a node may take so long to answer.
const PATIENCE: Millis = Millis::from_secs(20);

/// What becomes of a request for output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputRead {
    /// The node's answer.
    Chunk(Chunk),
    /// The node has no connection, or lost it.
    Away,
    /// The node keeps no output: it runs an original, or an older version.
    Unable,
    /// The node does not answer.
    Silent,
    /// Too many requests to the node are under way.
    Busy,
}

/// What can be known of a node's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputView {
    /// Whether the node is connected and, if so, whether it can be asked; unknown before its first heartbeat.
    pub able: Option<bool>,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether the job keeps output; unknown once it is no longer in memory.
    pub capture: Option<bool>,
    /// How it stands in the job; `None` when the job is no longer in memory: it has ended.
    pub status: Option<NodeStatus>,
}

/// One request that a node has not answered.
pub(super) struct Read {
    request: RequestId,
    wanted: Wanted,
    conn: ConnId,
}

impl Server {
    /// How a node stands in a job, and whether it can be asked for its output.
    pub fn output_view(&self, at: &NodeRef, job: &JobId) -> OutputView {
        let id = self.find_node(at);
        let node = id.and_then(|id| self.nodes.get(&id));
        let live = self.by_job_id.get(job).and_then(|ix| self.jobs.get(ix));
        let member = live.and_then(|job| {
            let at = *job.index.get(&id?)?;
            job.nodes.get(at as usize)
        });
        OutputView {
            able: node.and_then(|node| self.spools(node)),
            connected: node.is_some_and(|node| node.conn.is_some()),
            // Only of one that has the node: names and ids of jobs are those of an organization.
            capture: live.filter(|_| member.is_some()).map(|job| job.capture),
            status: member.map(|member| member.status),
        }
    }

    /// Whether the node keeps output for whoever asks; unknown before it has spoken on its connection.
    fn spools(&self, node: &Node) -> Option<bool> {
        let greeted = node.conn.and_then(|conn| self.conns.get(&conn)).is_some_and(|conn| conn.greeted);
        // What a node announces is known from its first heartbeat on, as is whether it repeats results.
        node.results.filter(|_| greeted).map(|_| node.caps.has(Caps::OUTPUT))
    }

    /// Asks a node for a piece of output.
    pub(super) fn read_output(&mut self, request: RequestId, at: &NodeRef, wanted: Wanted) {
        let answer = |read| Queued::Ready(Output::OutputRead { request, read });
        let found = self.find_node(at).and_then(|id| Some((id, self.nodes.get(&id)?)));
        let Some((id, node)) = found else { return self.out.push_back(answer(OutputRead::Away)) };
        let Some(conn) = node.conn else { return self.out.push_back(answer(OutputRead::Away)) };
        // Nothing is sent to a node that has not said that it takes it.
        if self.spools(node) != Some(true) {
            return self.out.push_back(answer(OutputRead::Unable));
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.reads.len() >= MAX_READS {
            return self.out.push_back(answer(OutputRead::Busy));
        }
        let until = self.now.mono + Millis(u64::from(wanted.wait)) + PATIENCE;
        node.reads.push(Read { request, wanted: wanted.clone(), conn });
        self.timers.set(Timer::Read(id, request), until);
        self.send(id, ToNode::OutputRequest(wanted));
    }

    /// A piece of output: given to whoever asked for it. Later ones, and those nobody asked for, are passed over.
    pub(super) fn output_came(&mut self, id: NodeId, chunk: Chunk) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        // One answer is for one question, the oldest that it fits.
        let Some(at) = node.reads.iter().position(|read| chunk.answers(&read.wanted)) else { return };
        let read = node.reads.remove(at);
        if chunk.data.len() > read.wanted.max as usize {
            return self.end_read(id, read.request, OutputRead::Silent);
        }
        self.end_read(id, read.request, OutputRead::Chunk(chunk));
    }

    pub(super) fn read_is_late(&mut self, id: NodeId, request: RequestId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.reads.retain(|read| read.request != request);
        self.end_read(id, request, OutputRead::Silent);
    }

    /// A connection is gone: what was asked for over it will not be answered.
    pub(super) fn reads_are_lost(&mut self, id: NodeId, conn: ConnId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (lost, kept) = std::mem::take(&mut node.reads).into_iter().partition(|read| read.conn == conn);
        node.reads = kept;
        let lost: Vec<Read> = lost;
        for read in lost {
            self.end_read(id, read.request, OutputRead::Away);
        }
    }

    fn end_read(&mut self, id: NodeId, request: RequestId, read: OutputRead) {
        self.timers.clear(&Timer::Read(id, request));
        self.out.push_back(Queued::Ready(Output::OutputRead { request, read }));
    }
}
