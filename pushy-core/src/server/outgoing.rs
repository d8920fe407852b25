//! Messages to nodes, encoded and signed when they go out: a job's commit is kept once, however many nodes get it
//! (decision 11).

use crate::job::{JobStatus, NodeStatus};
use crate::message::{Caps, Tail};
use crate::wire;

use super::planted::PlantedBug;
use super::tables::{Bulk, JobIx, Node, NodeId, Queued, ToNode};
use super::{ConnId, Output, Server};

impl Server {
    /// Puts a message to a node in the queue.
    pub(super) fn send(&mut self, node: NodeId, message: ToNode) {
        self.out.push_back(Queued::ToNode(node, message));
    }

    /// Puts the runs of a job in the queue: to every node that is ready (6.5).
    pub(super) fn queue_runs(&mut self, ix: JobIx) {
        let Some(job) = self.jobs.get(&ix) else { return };
        for node in &job.nodes {
            self.steps += 1;
            if node.status == NodeStatus::Ready {
                self.out.push_back(Queued::ToNode(node.node, ToNode::Run(ix)));
            }
        }
    }

    /// Encodes a message for a node, unless it has no connection or no need of it any more.
    pub(super) fn encode(&mut self, id: NodeId, message: &ToNode) -> Option<Output> {
        let blindly = self.planted(PlantedBug::RunResentBlindly);
        let tail;
        let tail: &Tail = match message {
            ToNode::Ack => &self.ack,
            ToNode::Abort => &self.abort,
            ToNode::Run(ix) => {
                let conn = self.nodes.get(&id)?.conn?;
                let job = self.jobs.get_mut(ix)?;
                if job.status != JobStatus::Running {
                    return None;
                }
                let at = *job.index.get(&id)?;
                let node = job.nodes.get_mut(at as usize)?;
                // Once per connection: the original answers a second run with `nack_run` (7.2).
                if node.status != NodeStatus::Ready || (node.run_on == Some(conn) && !blindly) {
                    return None;
                }
                node.run_on = Some(conn);
                &job.run
            }
            ToNode::Cancel(ix) => {
                let conn = self.nodes.get(&id)?.conn?;
                let job = self.jobs.get_mut(ix)?;
                let at = *job.index.get(&id)?;
                job.nodes.get_mut(at as usize)?.cancel_on = Some(conn);
                tail = crate::message::ServerMessage::Cancel { job: job.id.clone() }.tail();
                &tail
            }
            ToNode::ResultAck(job) => {
                tail = crate::message::ServerMessage::ResultAck { job: job.clone() }.tail();
                &tail
            }
            ToNode::OutputRequest(wanted) => {
                tail = crate::message::ServerMessage::OutputRequest(wanted.clone()).tail();
                &tail
            }
        };
        let node = self.nodes.get_mut(&id)?;
        let conn = node.conn?;
        let session = &self.conns.get(&conn)?.session;
        Some(seal(node, conn, session, (tail, None), self.now.wall))
    }

    /// The next commit that still makes sense.
    pub(super) fn next_commit(&mut self) -> Option<Output> {
        loop {
            self.steps += 1;
            let (ix, id) = match self.bulk.pop_front()? {
                Bulk::One(ix, id) => (ix, id),
                Bulk::All(ix, from) => {
                    let Some(node) = self.jobs.get(&ix).and_then(|job| job.nodes.get(from)) else { continue };
                    let id = node.node;
                    self.bulk.push_front(Bulk::All(ix, from + 1));
                    (ix, id)
                }
            };
            if let Some(output) = self.commit(ix, id) {
                return Some(output);
            }
        }
    }

    fn commit(&mut self, ix: JobIx, id: NodeId) -> Option<Output> {
        let node = self.nodes.get_mut(&id)?;
        let conn = node.conn?;
        let job = self.jobs.get_mut(&ix)?;
        let at = *job.index.get(&id)?;
        let asked = job.nodes.get_mut(at as usize)?;
        // Once per connection: the original answers a second commit of its own job with `nack_commit` (7.2).
        if asked.status != NodeStatus::New || !asked.marks.asked || asked.commit_on == Some(conn) {
            return None;
        }
        if job.parameters && !node.caps.has(Caps::PARAMS) {
            return None;
        }
        let (tail, extension) = job.commit.as_ref()?;
        let extension = (job.parameters || node.caps.has(Caps::TIMEOUT)).then_some(extension);
        let session = &self.conns.get(&conn)?.session;
        asked.commit_on = Some(conn);
        Some(seal(node, conn, session, (tail, extension), self.now.wall))
    }
}

fn seal(
    node: &mut Node,
    conn: ConnId,
    session: &wire::SessionKey,
    (tail, extension): (&Tail, Option<&Tail>),
    at: crate::time::Wall,
) -> Output {
    node.sequence += 1;
    let body = tail.extended(extension, node.sequence, at);
    Output::Send { conn, header: wire::hmac_header(&session.0, &body), body }
}
