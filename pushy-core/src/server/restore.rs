//! Going on after a restart: nodes carry on, running jobs go on (decisions 4, 10 and 18).

use std::collections::HashMap;

use crate::ids::NodeRef;
use crate::job::{Job, JobStatus};
use crate::reason::{Reason, ReasonCode};
use crate::time::Millis;

use super::job_state;
use super::node_state::NodePhase;
use super::tables::{Bound, NodeId, Timer};
use super::{Binding, FeedEnd, OnRestart, Restored, Server};

impl Server {
    pub(super) fn restore(&mut self, restored: Restored) {
        for binding in restored.bindings {
            self.steps += 1;
            self.restore_binding(binding);
        }
        let mut told = HashMap::with_capacity(restored.feeds.len());
        for FeedEnd { job, last, at } in restored.feeds {
            self.last_event = self.last_event.max(at);
            told.insert(job, last);
        }
        for job in restored.jobs {
            if !job.status.is_terminal() {
                let told = told.get(&job.id).copied().unwrap_or(0);
                self.restore_job(job, told);
            }
        }
    }

    fn restore_binding(&mut self, binding: Binding) {
        let Binding { node, org_name, key, session, fetched_at, active } = binding;
        let id = self.intern_node(&node);
        if self.by_key.insert(key, id).is_some_and(|other| other != id) {
            return;
        }
        let at = self.now.mono + self.binding_lifetime();
        self.timers.set(Timer::Expiry(id), at);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.keys.fetched = self.now.mono;
            node.keys.bound.push(Bound { key, session, org_name, fetched_at, active, stored: true });
        }
        if active {
            self.expect_node(id);
        }
    }

    /// The node is known: its first message gets `ack`, and its jobs wait for it. Where jobs do not outlive a restart it is
    /// a stranger and gets `abort`, as from the original (6.9): otherwise it would be busy with a job that is over.
    fn expect_node(&mut self, id: NodeId) {
        if self.config.on_restart == OnRestart::Crash {
            return;
        }
        let grace = self.grace_end();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.phase = NodePhase::Restored;
            self.views += 1;
            node.life = self.now.mono;
            self.timers.set(Timer::Life(id), grace);
        }
    }

    fn restore_job(&mut self, mut job: Job, told: u64) {
        if job.status == JobStatus::New {
            job.status = JobStatus::Voting;
        }
        let mut members = Vec::with_capacity(job.nodes.len());
        for (name, status) in &job.nodes {
            self.steps += 1;
            let id = self.intern_node(&NodeRef { org: job.org.clone(), node: name.clone() });
            if !status.is_terminal() {
                self.expect_node(id);
            }
            members.push((id, *status));
        }
        let ix = self.add_job(&job, &members, None);
        if let Some(live) = self.jobs.get_mut(&ix) {
            live.told = told;
        }
        if self.config.on_restart == OnRestart::Crash {
            let why = "the server was restarted and gives its jobs up (on_restart)";
            let why = Reason::new(ReasonCode::ServerGaveUp, why);
            self.for_each(ix, job_state::when_given_up, Some(&why));
            self.finish(ix, JobStatus::Crashed);
            return;
        }
        let (timer, whole) = match job.status {
            JobStatus::Running => (Timer::Run(ix), Millis::from_secs(u64::from(job.run_timeout))),
            JobStatus::New
            | JobStatus::Voting
            | JobStatus::Complete
            | JobStatus::QuorumFailed
            | JobStatus::Aborted
            | JobStatus::TimedOut
            | JobStatus::Crashed => (Timer::Vote(ix), self.config.voting_timeout),
        };
        // Stored as wall time, which may have stepped: never more than the whole time, never less than none.
        let left = job.deadline.map_or(whole, |deadline| {
            let micros = deadline.0.saturating_sub(self.now.wall.0).max(0);
            Millis(u64::try_from(micros).unwrap_or(0).div_ceil(1000)).min(whole)
        });
        self.timers.set(timer, self.now.mono + left);
        self.check(ix);
    }
}
