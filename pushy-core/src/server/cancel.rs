//! An operator gives a job up, or some of its nodes: stored first, then told to the nodes, each in the words it knows.

use crate::ids::{JobId, NodeName, NodeRef, OrgId};
use crate::job::JobStatus;
use crate::message::{Caps, JobRef};
use crate::reason::{Reason, ReasonCode};

use super::job_state::{self, Phase};
use super::tables::{Gated, JobIx, NodeId, Queued, ToNode};
use super::{CancelAnswer, ConnId, LogLevel, Output, RequestId, Server};

impl Server {
    pub(super) fn cancel_job(
        &mut self,
        request: RequestId,
        org: &OrgId,
        job: &JobId,
        nodes: &[NodeName],
        by: &str,
    ) {
        match self.cancelled(org, job, nodes, by) {
            Ok((ix, nodes)) => self.once_stored(ix, Gated::Cancelled(request, nodes)),
            Err(answer) => self.out.push_back(Queued::Ready(Output::CancelAnswer { request, answer })),
        }
    }

    fn cancelled(
        &mut self,
        org: &OrgId,
        job: &JobId,
        named: &[NodeName],
        by: &str,
    ) -> Result<(JobIx, Vec<NodeName>), CancelAnswer> {
        let ix = *self.by_job_id.get(job).ok_or(CancelAnswer::Unknown)?;
        let live = self.jobs.get(&ix).filter(|live| live.org == *org && live.stored);
        let live = live.ok_or(CancelAnswer::Unknown)?;
        if live.phase() == Phase::Over {
            return Err(CancelAnswer::Ended(live.status));
        }
        let mut chosen: Vec<NodeId> = Vec::new();
        for name in named {
            let at = NodeRef { org: org.clone(), node: name.clone() };
            let id = self.find_node(&at).filter(|id| live.index.contains_key(id));
            chosen.push(id.ok_or_else(|| CancelAnswer::NotOfJob(name.clone()))?);
        }
        if named.is_empty() {
            chosen = live.nodes.iter().map(|member| member.node).collect();
        }
        let phase = live.phase();
        let why = Reason::new(ReasonCode::Cancelled, format!("by {by}"));
        let mut cancelled = Vec::new();
        for id in chosen {
            self.steps += 1;
            let Some(status) = self.member(ix, id).map(|member| member.status) else { continue };
            self.hit(|| format!("cancel: {phase:?} × {status:?}"));
            if status.is_terminal() {
                continue;
            }
            self.apply(ix, id, job_state::when_cancelled(status), Some(why.clone()));
            cancelled.extend(self.nodes.get(&id).map(|node| node.at.node.clone()));
        }
        let text = format!("cancelled on {} nodes {why}", cancelled.len());
        self.log(LogLevel::Info, None, Some(job.clone()), None, text);
        if named.is_empty() {
            self.finish(ix, JobStatus::Aborted);
        } else {
            self.check(ix);
        }
        Ok((ix, cancelled))
    }

    /// The node is told, now that it is stored. One that is away is found out by its next heartbeat (decision 3).
    pub(super) fn tell_to_give_up(&mut self, ix: Option<JobIx>, node: NodeId, spared: bool) {
        let exact = self.nodes.get(&node).is_some_and(|node| node.caps.has(Caps::CANCEL));
        match ix {
            Some(ix) if exact => self.send(node, ToNode::Cancel(ix)),
            _ if spared => {}
            _ => self.stop(ix, node),
        }
    }

    /// Whether this `aborted` is the answer to a `cancel` on the same connection, and so says nothing about an `abort`.
    pub(super) fn answers_cancel(&mut self, node: NodeId, conn: ConnId, job: &JobRef) -> bool {
        let ix = job.id().and_then(|id| self.by_job_id.get(id)).copied();
        let member = ix.and_then(|ix| self.member(ix, node));
        member.is_some_and(|member| member.cancel_on == Some(conn))
    }
}
