//! What nodes send: checked, then taken to the node's state and to its jobs (4.7, 4.8, decisions 2, 3 and 6).

use crate::ids::{IncarnationId, JobId};
use crate::job::NodeStatus;
use crate::message::{Caps, Captured, JobRef, JobState, NodeMessage};
use crate::reason::{Reason, ReasonCode};
use crate::time::Millis;
use crate::wire::{self, Limits, WireError};

use super::freshness::Freshness;
use super::job_state::{self, Claim, Phase, Resync, Said};
use super::node_state::NodeEvent;
use super::planted::PlantedBug;
use super::tables::{Bulk, Gated, JobIx, LiveJob, NodeId, ToNode};
use super::{ConnId, LogLevel, Record, Server};

/// A checked message about a job.
struct About<'a> {
    node: NodeId,
    conn: ConnId,
    job: &'a JobRef,
    freshness: Freshness,
}

impl Server {
    /// Two frames of a connection: nothing changes unless all checks pass (4.7, D-12).
    pub(super) fn frames(&mut self, conn: ConnId, header: &[u8], body: &[u8]) {
        let remembers = !self.planted(PlantedBug::ReplayAccepted);
        let Some(from) = self.conns.get_mut(&conn) else { return };
        let Some(opened) = from.opened else { return };
        let id = from.node;
        let limits = Limits { max_body: self.config.max_body_size, max_skew: self.config.max_message_skew };
        let said = match wire::open_from_node(&from.session, limits, self.now.wall, header, body) {
            Ok(said) => said,
            Err(error) => {
                if let (WireError::Skew(behind), Some(node)) = (&error, self.nodes.get_mut(&id)) {
                    // Signed with the node's own key, so it is the node's own word about its clock.
                    node.clocks.note_refused(*behind);
                    self.note_clock(id);
                }
                return self.drop_message(id, conn, &error.to_string());
            }
        };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if *said.node != *node.at.node.as_str() || *said.org != *from.org_name.as_str() {
            return self.drop_message(id, conn, "it names another node than its connection belongs to");
        }
        if remembers && said.sequence.is_some() && said.sequence <= from.sequence {
            return self.drop_message(id, conn, "its sequence does not rise: a replay");
        }
        // Nothing is lost within a connection: a gap is somebody else's frame, recorded before.
        let next = match (from.sequence, said.sequence) {
            (Some(last), Some(this)) => last.checked_add(1) == Some(this),
            _ => false,
        };
        from.sequence = said.sequence.or(from.sequence);
        let greeted = std::mem::replace(&mut from.greeted, true);
        // A piece of output changes nothing, and would push what does out of the memory.
        let piece = matches!(said.message, NodeMessage::OutputChunk(_));
        let known = remembers && !piece && node.seen.note(body);
        let since = self.now.mono - opened;
        let mut freshness = node.clocks.judge(said.timestamp, self.now.wall, since, self.clock_epoch);
        // A queue is first in, first out: behind a new message an old stamp is a clock's doing (G14).
        if freshness == Freshness::Stale && from.drained && next {
            freshness = Freshness::Unsure;
        }
        from.drained |= freshness == Freshness::Fresh;
        let (incarnation, message) = (said.incarnation, said.message);
        if known {
            // Two first heartbeats of one second are equal: a new connection is answered in any case (1.3, step 10).
            if greeted || !matches!(message, NodeMessage::Heartbeat { .. }) {
                return self.drop_message(id, conn, "it came before on another connection: a replay");
            }
            freshness = Freshness::Stale;
        }
        if self.planted(PlantedBug::StaleHeartbeatTrusted) {
            freshness = Freshness::Fresh;
        }
        self.node_lives(id);
        self.note_clock(id);
        if incarnation.is_some() && matches!(message, NodeMessage::Heartbeat { .. }) {
            let process = self.nodes.get(&id).and_then(|node| node.incarnation.as_ref());
            if !greeted || process != incarnation.as_ref() {
                self.note_claim(id, conn, incarnation.clone());
            }
        }
        self.greet(id, greeted, incarnation, &message, known);
        if let NodeMessage::OutputChunk(chunk) = message {
            return self.output_came(id, *chunk);
        }
        self.message(id, conn, message, freshness);
    }

    fn drop_message(&mut self, id: NodeId, conn: ConnId, why: &str) {
        let peer = self.conns.get(&conn).map(|c| c.peer.clone());
        self.log(LogLevel::Warn, Some(id), None, peer, format!("a message is dropped: {why}"));
    }

    /// The rows of the node table that a valid message brings about, whatever it says.
    fn greet(
        &mut self,
        id: NodeId,
        greeted: bool,
        incarnation: Option<IncarnationId>,
        message: &NodeMessage,
        known: bool,
    ) {
        let Some(node) = self.nodes.get(&id) else { return };
        let first_of_life = node.incarnation.is_none() && incarnation.is_some();
        // A missing one counts as different (4.8).
        let other = !first_of_life && (incarnation.is_none() || node.incarnation != incarnation);
        // However long it waited in a queue: it is the process at the other end of this connection that says so.
        if matches!(message, NodeMessage::Heartbeat { .. }) && !known && node.phase.is_live() && other {
            self.log(LogLevel::Info, Some(id), None, None, "another process speaks for the node".into());
            self.node_hears(id, NodeEvent::OtherIncarnation);
        }
        if let (NodeMessage::AckCommit { job }, true) = (message, other && !known && incarnation.is_some()) {
            self.another_process_votes(id, job, incarnation.clone());
        }
        let Some(node) = self.nodes.get(&id) else { return };
        if !greeted || !node.phase.is_live() {
            self.node_hears(id, if greeted { NodeEvent::Message } else { NodeEvent::FirstMessage });
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            if node.incarnation.is_none() {
                node.incarnation = incarnation;
            }
        }
    }

    /// A process votes whose heartbeats did not count, its clock being off: what the one before it did is lost, the job that it
    /// votes on is its own.
    fn another_process_votes(&mut self, id: NodeId, job: &JobRef, incarnation: Option<IncarnationId>) {
        let own = self.find_job(job);
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.phase.is_live()) else { return };
        node.incarnation = incarnation;
        node.doing = None;
        self.log(LogLevel::Info, Some(id), None, None, "another process speaks for the node".into());
        self.node_down(id, NodeEvent::OtherIncarnation, own);
    }

    fn message(&mut self, node: NodeId, conn: ConnId, message: NodeMessage, freshness: Freshness) {
        let about = |job| About { node, conn, job, freshness };
        match &message {
            NodeMessage::Heartbeat { state, job, caps } => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.caps = caps.unwrap_or(Caps::NONE);
                    node.results = Some(node.caps.has(Caps::RESULTS));
                }
                if freshness == Freshness::Fresh {
                    self.resynchronise(node, conn, *state, job);
                }
            }
            NodeMessage::AckCommit { job } => self.word(&about(job), Said::AckCommit, None),
            NodeMessage::NackCommit { job, reason } => {
                self.word(&about(job), Said::NackCommit, reason.clone())
            }
            NodeMessage::AckRun { job } => self.word(&about(job), Said::AckRun, None),
            NodeMessage::NackRun { job, reason } => self.word(&about(job), Said::NackRun, reason.clone()),
            NodeMessage::Succeeded { job, output } => {
                self.result(&about(job), Said::Succeeded, output, None);
            }
            NodeMessage::Failed { job, output, reason } => {
                let late = reason.as_ref().is_some_and(|why| why.code() == ReasonCode::TimedOut);
                let said = if late { Said::TimedOut } else { Said::Failed };
                self.result(&about(job), said, output, reason.clone());
            }
            NodeMessage::Aborted { job, reason } => {
                if !self.answers_cancel(node, conn, job) {
                    // Also an old one is true: a node without a connection starts nothing new.
                    self.node_hears(node, NodeEvent::Aborted);
                }
                if self.find_job(job).is_some() {
                    self.word(&about(job), Said::Aborted, reason.clone());
                }
            }
            NodeMessage::OutputChunk(_) | NodeMessage::Unknown { .. } => {
                self.log(LogLevel::Warn, Some(node), None, None, "a message of an unknown type".into());
            }
        }
    }

    fn find_job(&self, job: &JobRef) -> Option<JobIx> {
        self.by_job_id.get(job.id()?).copied()
    }

    /// A vote or the like.
    fn word(&mut self, about: &About<'_>, said: Said, reason: Option<Reason>) {
        let Some(ix) = self.find_job(about.job) else {
            // 4.8: other types without a live job. One that waited in a queue says nothing about now, and a late refusal of a
            // job that is over says nothing against the one its node is busy with.
            let refuses = said == Said::NackCommit && about.job.id().is_some();
            if about.freshness != Freshness::Stale && !(refuses && self.is_engaged(about.node, None)) {
                self.node_hears(about.node, NodeEvent::RehabRequest);
            }
            return;
        };
        if about.freshness == Freshness::Stale && !self.is_expected(ix, about.node, said) {
            let text = format!("an old message does not fit any more: {said:?}");
            let job = self.jobs.get(&ix).map(|job| job.id.clone());
            return self.log(LogLevel::Info, Some(about.node), job, None, text);
        }
        if let (Said::AckCommit | Said::AckRun, Some(node)) = (said, self.nodes.get_mut(&about.node)) {
            node.doing = Some(ix);
        }
        self.job_hears(ix, about.node, said, reason);
    }

    /// Whether this is what the job waits for from the node.
    fn is_expected(&mut self, ix: JobIx, node: NodeId, said: Said) -> bool {
        let Some(phase) = self.jobs.get(&ix).map(LiveJob::phase) else { return false };
        let Some(status) = self.member(ix, node).map(|m| m.status) else { return false };
        match (phase, status) {
            (Phase::Voting, NodeStatus::New) => matches!(said, Said::AckCommit | Said::NackCommit),
            (Phase::Running, NodeStatus::Ready) => {
                matches!(said, Said::AckRun | Said::NackRun | Said::Aborted)
            }
            (Phase::Running, NodeStatus::Running) => matches!(said, Said::NackRun | Said::Aborted),
            _ => false,
        }
    }

    /// A result: acknowledged once it is stored, if its node waits for that (decision 2).
    fn result(&mut self, about: &About<'_>, said: Said, output: &Captured, reason: Option<Reason>) {
        let repeats = self.nodes.get(&about.node).and_then(|node| node.results);
        let Some(ix) = self.find_job(about.job) else {
            match (repeats, about.job) {
                (Some(true), JobRef::Id(job)) => {
                    self.send(about.node, ToNode::ResultAck(job.clone()));
                }
                (Some(false), _) if about.freshness != Freshness::Stale => {
                    self.node_hears(about.node, NodeEvent::RehabRequest);
                }
                // Before its first heartbeat nobody knows whether it only repeats an old result.
                (Some(_) | None, _) => {}
            }
            return;
        };
        let Some(phase) = self.jobs.get(&ix).map(LiveJob::phase) else { return };
        let Some(member) = self.member(ix, about.node) else {
            self.job_hears(ix, about.node, said, reason);
            if let (Some(true), JobRef::Id(job)) = (repeats, about.job) {
                self.send(about.node, ToNode::ResultAck(job.clone()));
            }
            return;
        };
        let (status, run_on) = (member.status, member.run_on);
        let elsewhere = run_on != Some(about.conn);
        if elsewhere && self.planted(PlantedBug::ResultDropped) {
            return;
        }
        if phase == Phase::Running {
            if status == NodeStatus::Ready && (elsewhere || repeats == Some(true)) {
                // Its `ack_run` was lost with a connection: a process that ended was started.
                self.job_hears(ix, about.node, Said::AckRun, None);
            }
            self.keep_output(ix, about.node, output);
        }
        if !status.is_terminal() || repeats == Some(false) {
            self.job_hears(ix, about.node, said, reason);
        }
        if repeats == Some(true) {
            self.once_stored(ix, Gated::ResultAck(about.node));
        }
    }

    /// Stored once, and only if it was asked for (D-18).
    fn keep_output(&mut self, ix: JobIx, id: NodeId, output: &Captured) {
        let (Some(stdout), Some(stderr)) = (&output.stdout, &output.stderr) else { return };
        let Some(name) = self.nodes.get(&id).map(|n| n.at.node.clone()) else { return };
        let Some(job) = self.jobs.get(&ix) else { return };
        if !job.capture {
            return;
        }
        let job: JobId = job.id.clone();
        let Some(member) = self.member(ix, id) else { return };
        if std::mem::replace(&mut member.marks.output, true) {
            return;
        }
        let record = Record::Output {
            job,
            node: name,
            stdout: stdout.clone().into_bytes(),
            stderr: stderr.clone().into_bytes(),
        };
        self.record(ix, record);
    }

    /// Decision 3: a heartbeat stamped after the handshake of its connection.
    fn resynchronise(&mut self, id: NodeId, conn: ConnId, state: Option<JobState>, job: &JobRef) {
        let named = self.find_job(job);
        let Some(node) = self.nodes.get(&id) else { return };
        let jobs: Vec<JobIx> = node.jobs.iter().copied().collect();
        let mut belongs = false;
        for ix in jobs {
            self.steps += 1;
            let claim = if named == Some(ix) {
                belongs = true;
                match state {
                    Some(JobState::Idle) => Claim::Idle,
                    Some(JobState::Committed) => Claim::Committed,
                    Some(JobState::Running) => Claim::Running,
                    // It cannot be told what it does with the job.
                    None => continue,
                }
            } else if *job == JobRef::None {
                Claim::Idle
            } else {
                Claim::Elsewhere
            };
            self.resynchronise_job(ix, id, conn, claim);
        }
        if *job != JobRef::None && !belongs && !self.planted(PlantedBug::CancelForgetsAway) {
            self.node_hears(id, NodeEvent::RehabRequest);
        }
    }

    fn resynchronise_job(&mut self, ix: JobIx, id: NodeId, conn: ConnId, claim: Claim) {
        let Some(job) = self.jobs.get(&ix) else { return };
        let (phase, stored) = (job.phase(), job.stored);
        if let (Claim::Committed | Claim::Running, Some(node)) = (claim, self.nodes.get_mut(&id)) {
            node.doing = Some(ix);
        }
        let Some(member) = self.member(ix, id) else { return };
        let status = member.status;
        self.hit(|| format!("resync: {phase:?} × {status:?} × {claim:?}"));
        let mut decided = job_state::resync(phase, status, claim);
        let Some(member) = self.member(ix, id) else { return };
        if decided == Resync::Abort && member.cancel_on == Some(conn) {
            // It has been told, and ends the process: that takes a while.
            decided = Resync::AbortIfRepeated;
        }
        if status == NodeStatus::Aborted && self.planted(PlantedBug::CancelForgetsAway) {
            decided = Resync::Nothing;
        }
        let Some(member) = self.member(ix, id) else { return };
        if !matches!(decided, Resync::CrashIfRepeated | Resync::AbortIfRepeated) {
            member.odd_since = None;
        }
        match decided {
            Resync::Nothing => {}
            Resync::CountAckCommit => {
                self.job_hears(ix, id, Said::AckCommit, None);
                if let Some(member) = self.member(ix, id) {
                    member.marks.committed_by_heartbeat = true;
                }
            }
            // Once per connection, and not before the job is stored: `commit` looks after the former.
            Resync::SendCommit => {
                if stored && member.commit_on != Some(conn) {
                    self.bulk.push_back(Bulk::One(ix, id));
                }
            }
            Resync::CountNack => {
                if member.commit_on != Some(conn) {
                    let asked = member.commit_on.is_some();
                    let why = Reason::new(ReasonCode::Busy, "busy with another job");
                    self.job_hears(ix, id, Said::NackCommit, Some(why));
                    if let Some(member) = self.member(ix, id) {
                        member.marks.nacked_by_heartbeat = asked;
                    }
                }
            }
            Resync::SendRun => {
                if member.run_on != Some(conn) || self.planted(PlantedBug::RunResentBlindly) {
                    self.once_stored(ix, Gated::Run(id));
                }
            }
            Resync::CountAckRun | Resync::OutOfPlace => self.job_hears(ix, id, Said::AckRun, None),
            Resync::CrashIfRepeated => {
                if self.is_repeated(ix, id) {
                    let why = Reason::new(ReasonCode::Died, "the node no longer has the job");
                    self.job_hears(ix, id, Said::Down, Some(why));
                }
            }
            Resync::AbortIfRepeated => {
                if self.is_repeated(ix, id) {
                    self.once_stored(ix, Gated::Stop(id));
                }
            }
            Resync::Abort => self.once_stored(ix, Gated::Stop(id)),
        }
    }

    /// Whether the node's heartbeats have contradicted the job for two intervals.
    fn is_repeated(&mut self, ix: JobIx, id: NodeId) -> bool {
        let (now, two) = (self.now.mono, Millis(self.config.heartbeat_interval.0.saturating_mul(2)));
        let Some(member) = self.member(ix, id) else { return false };
        let since = *member.odd_since.get_or_insert(now);
        now - since >= two
    }
}
