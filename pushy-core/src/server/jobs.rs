//! The jobs: carries out what the tables of [`super::job_state`] say (section 6).

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::event::{Event, Vote};
use crate::feed::Frame;
use crate::ids::{JobId, NodeRef, OrgId};
use crate::job::{Job, JobRequest, JobStatus, NodeStatus};
use crate::message::{Caps, Commit, ServerMessage};
use crate::reason::{Reason, ReasonCode};
use crate::time::{Millis, Wall};

use super::gate::Gate;
use super::job_state::{self, Phase, Rule, Said, Step};
use super::node_state::NodeEvent;
use super::planted::PlantedBug;
use super::tables::{Gated, JobIx, JobNode, LiveJob, Marks, NodeId, Tally, Timer};
use super::{LogLevel, Record, RequestId, Server};

impl Server {
    /// Creates a job, as one batch for the store (6.3, D-05).
    pub(super) fn start_job(&mut self, request: RequestId, org: OrgId, requester: String, asked: JobRequest) {
        let mut id = JobId::generate(&org, &mut *self.random);
        while self.by_job_id.contains_key(&id) {
            id = JobId::generate(&org, &mut *self.random);
        }
        let now = self.now.wall;
        let mut nodes = Vec::with_capacity(asked.nodes.len());
        let mut named = HashSet::with_capacity(asked.nodes.len());
        for name in asked.nodes {
            let node = self.intern_node(&NodeRef { org: org.clone(), node: name.clone() });
            if !named.insert(node) {
                continue; // D-03
            }
            let available = self.nodes.get(&node).filter(|n| n.is_available());
            let status = match available {
                // D-39: a node that is down is not asked.
                None => NodeStatus::Unavailable,
                // Nor one that would run the command without its parameters.
                Some(n) if asked.options.parameters.is_some() && !n.caps.has(Caps::PARAMS) => {
                    NodeStatus::Nacked
                }
                Some(_) => NodeStatus::New,
            };
            nodes.push((node, name, status));
        }
        let job = Job {
            id,
            org,
            command: asked.command,
            status: JobStatus::Voting,
            run_timeout: asked.run_timeout.unwrap_or(self.config.default_run_timeout),
            quorum: asked.quorum.unwrap_or(u32::try_from(nodes.len()).unwrap_or(u32::MAX)),
            requester,
            created_at: now,
            updated_at: now,
            deadline: Some(wall_after(now, self.config.voting_timeout)),
            options: asked.options,
            nodes: nodes.iter().map(|(_, name, status)| (name.clone(), *status)).collect(),
            reasons: BTreeMap::new(),
        };
        let members: Vec<_> = nodes.into_iter().map(|(node, _, status)| (node, status)).collect();
        let ix = self.add_job(&job, &members, Some(request));
        self.timers.set(Timer::Vote(ix), self.now.mono + self.config.voting_timeout);
        let at = self.stamp();
        let start = Frame::of_job(&Event::Start, 1, at, Some(&job));
        self.record(ix, Record::NewJob(Box::new(job)));
        self.add_event(ix, at, Event::Start, start);
        // Whoever has the answer finds the feed begun.
        self.once_stored(ix, Gated::Started(request));
        for (node, status) in &members {
            self.steps += 1;
            if *status != NodeStatus::New {
                self.not_asked(ix, *node, *status);
            }
        }
        self.once_stored(ix, Gated::Commits);
        self.check(ix);
    }

    /// Says of a node of a new job that it is not asked, and why.
    fn not_asked(&mut self, ix: JobIx, id: NodeId, status: NodeStatus) {
        let Some(name) = self.nodes.get(&id).map(|n| n.at.node.clone()) else { return };
        let unsupported = status == NodeStatus::Nacked;
        let why = if unsupported {
            Reason::new(ReasonCode::Unsupported, "the node's agent does not know parameters; upgrade it")
        } else {
            self.why_unavailable(id)
        };
        let Some(job) = self.jobs.get(&ix).map(|job| job.id.clone()) else { return };
        let record = Record::NodeStatus {
            job,
            node: name.clone(),
            status,
            updated_at: self.now.wall,
            reason: Some(why.clone()),
        };
        self.record(ix, record);
        let vote = if unsupported { Vote::Failure } else { Vote::Down };
        self.tell_why(ix, Event::QuorumVote { node: name.clone(), vote }, Some(&why));
        if let Some(member) = self.member(ix, id).filter(|_| !unsupported) {
            member.marks.down = true;
            member.marks.rehab = true;
            self.tell(ix, Event::Rehab { node: name });
        }
    }

    /// Puts a job, new or restored, into the tables.
    pub(super) fn add_job(
        &mut self,
        job: &Job,
        members: &[(NodeId, NodeStatus)],
        request: Option<RequestId>,
    ) -> JobIx {
        self.last_number += 1;
        let ix = JobIx(self.last_number);
        let mut live = LiveJob {
            id: job.id.clone(),
            org: job.org.clone(),
            status: job.status,
            quorum: job.quorum,
            run_timeout: job.run_timeout,
            capture: job.options.capture,
            nodes: Vec::with_capacity(members.len()),
            index: HashMap::with_capacity(members.len()),
            tally: Tally::default(),
            commit: None,
            parameters: job.options.parameters.is_some(),
            run: ServerMessage::Run { job: job.id.clone() }.tail(),
            told: 0,
            stored: request.is_none(),
            request,
            gate: Gate::default(),
        };
        if live.phase() == Phase::Voting {
            let commit = Commit {
                job: job.id.clone(),
                server: self.config.host.clone(),
                command: job.command.clone(),
                options: job.options.clone(),
                run_timeout: Some(job.run_timeout),
            };
            live.commit = Some(commit.tails());
        }
        for (node, status) in members {
            self.steps += 1;
            let at = u32::try_from(live.nodes.len()).unwrap_or(u32::MAX);
            live.index.insert(*node, at);
            live.tally.count(*status, true);
            let asked = request.is_none() || *status == NodeStatus::New;
            live.nodes.push(JobNode {
                node: *node,
                status: *status,
                marks: Marks { asked, ..Marks::default() },
                commit_on: None,
                run_on: None,
                cancel_on: None,
                odd_since: None,
            });
            if let Some(node) = self.nodes.get_mut(node) {
                node.jobs.insert(ix);
            }
        }
        self.by_job_id.insert(job.id.clone(), ix);
        self.jobs.insert(ix, live);
        ix
    }

    pub(super) fn member(&mut self, ix: JobIx, node: NodeId) -> Option<&mut JobNode> {
        let job = self.jobs.get_mut(&ix)?;
        let at = *job.index.get(&node)?;
        job.nodes.get_mut(at as usize)
    }

    /// A node has said something that concerns a job, or went down.
    /// `given`: why, in the words of the node or of whoever found it lost.
    pub(super) fn job_hears(&mut self, ix: JobIx, node: NodeId, said: Said, given: Option<Reason>) {
        let Some(phase) = self.jobs.get(&ix).map(LiveJob::phase) else { return };
        let twice = self.planted(PlantedBug::VoteCountedTwice);
        let Some(member) = self.member(ix, node) else {
            self.outsider(ix, node);
            return;
        };
        let status = member.status;
        // The answer to what a heartbeat has said already is on the way behind it.
        let repeat = match said {
            Said::AckCommit => std::mem::take(&mut member.marks.committed_by_heartbeat),
            Said::NackCommit => std::mem::take(&mut member.marks.nacked_by_heartbeat),
            _ => false,
        };
        self.hit(|| format!("job: {phase:?} × {status:?} × {said:?}"));
        let rule = match phase {
            Phase::Voting => job_state::while_voting(status, said),
            Phase::Running => job_state::while_running(status, said),
            Phase::Over => return,
        };
        if repeat {
            return;
        }
        if twice && (phase, status, said) == (Phase::Voting, NodeStatus::Ready, Said::AckCommit) {
            if let Some(job) = self.jobs.get_mut(&ix) {
                job.tally.ready += 1;
                job.tally.undecided = job.tally.undecided.saturating_sub(1);
            }
        }
        let reason = rule.to.and_then(|to| Server::reason_of(to, said, given));
        self.apply(ix, node, rule, reason);
        self.check(ix);
    }

    /// D-07: a message about a job the node has no part in.
    fn outsider(&mut self, ix: JobIx, node: NodeId) {
        let job = self.jobs.get(&ix).map(|job| job.id.clone());
        self.log(LogLevel::Warn, Some(node), job, None, "the node has no part in this job".into());
        self.node_hears(node, NodeEvent::RehabRequest);
    }

    pub(super) fn apply(&mut self, ix: JobIx, id: NodeId, rule: Rule, reason: Option<Reason>) {
        let Some(name) = self.nodes.get(&id).map(|n| n.at.node.clone()) else { return };
        let Some(before) = self.member(ix, id).map(|m| m.status) else { return };
        let late = rule.to.is_none() && before.is_terminal();
        // A node does one job at a time: one that does another has not voted yes here, and is left alone.
        let spared = before == NodeStatus::New && self.is_engaged(id, Some(ix));
        if let Some(to) = rule.to {
            self.set_status(ix, id, to, reason.clone());
        }
        let why = reason.as_ref();
        for step in rule.steps {
            let Some(member) = self.member(ix, id) else { return };
            let marks = &mut member.marks;
            // What a node that is out has caused once is not told again (D-27).
            let mut again = |mark: fn(&mut Marks) -> &mut bool| std::mem::replace(mark(marks), true) && late;
            match *step {
                Step::Vote(vote) => {
                    let silent = match vote {
                        Vote::Down => again(|m| &mut m.down),
                        Vote::ClientDiedWhileVoting => again(|m| &mut m.late_vote),
                        Vote::Success
                        | Vote::Failure
                        | Vote::VotingTimeout
                        | Vote::UnexpectedCommit
                        | Vote::LostAvailability => false,
                    };
                    if !silent {
                        self.tell_why(ix, Event::QuorumVote { node: name.clone(), vote }, why);
                    }
                }
                Step::Rehab => {
                    let (silent, asked) = (again(|m| &mut m.rehab), member.marks.asked);
                    if asked && !spared {
                        self.once_stored(ix, Gated::Stop(id));
                    }
                    if !silent {
                        self.tell(ix, Event::Rehab { node: name.clone() });
                    }
                }
                Step::QuietRehab => {
                    if member.marks.asked && !spared {
                        self.once_stored(ix, Gated::Stop(id));
                    }
                }
                Step::Cancel => {
                    if member.marks.asked {
                        self.once_stored(ix, Gated::Cancel { node: id, spared });
                    }
                }
                Step::RunStart => self.tell(ix, Event::RunStart { node: name.clone() }),
                Step::RunComplete(result) => {
                    if !again(|m| &mut m.complete) {
                        self.tell_why(ix, Event::RunComplete { node: name.clone(), result }, why);
                    }
                }
            }
        }
    }

    /// Whether the node waits for, or does, a job other than `except`.
    /// One that is over counts until that is stored: its own `abort` follows then, and must not come sooner.
    pub(super) fn is_engaged(&self, id: NodeId, except: Option<JobIx>) -> bool {
        let Some(node) = self.nodes.get(&id) else { return false };
        let others = node.jobs.iter().filter(|other| Some(**other) != except);
        others.filter_map(|other| self.jobs.get(other)).any(|job| {
            let member = job.index.get(&id).and_then(|at| job.nodes.get(*at as usize));
            member.is_some_and(|m| match job.phase() {
                Phase::Over => !job.gate.is_clean(),
                Phase::Voting | Phase::Running => matches!(m.status, NodeStatus::Ready | NodeStatus::Running),
            })
        })
    }

    /// Whether the node's last word was that it has a job other than `this`, which goes on with it.
    pub(super) fn does_another(&self, id: NodeId, this: Option<JobIx>) -> bool {
        let Some(doing) = self.nodes.get(&id).and_then(|node| node.doing) else { return false };
        let Some(job) = self.jobs.get(&doing).filter(|_| Some(doing) != this) else { return false };
        let member = job.index.get(&id).and_then(|at| job.nodes.get(*at as usize));
        let has = |status| matches!(status, NodeStatus::Ready | NodeStatus::Running);
        job.phase() != Phase::Over && member.is_some_and(|m| has(m.status))
    }

    fn set_status(&mut self, ix: JobIx, id: NodeId, to: NodeStatus, reason: Option<Reason>) {
        let Some(name) = self.nodes.get(&id).map(|n| n.at.node.clone()) else { return };
        let Some(job) = self.jobs.get_mut(&ix) else { return };
        let Some(at) = job.index.get(&id) else { return };
        let Some(member) = job.nodes.get_mut(*at as usize) else { return };
        job.tally.count(member.status, false);
        job.tally.count(to, true);
        member.status = to;
        member.odd_since = None;
        let record = Record::NodeStatus {
            job: job.id.clone(),
            node: name,
            status: to,
            updated_at: self.now.wall,
            reason,
        };
        self.record(ix, record);
    }

    /// Tells the job's feed, once all before it is stored (D-31) and the event itself too: a feed goes on after a restart.
    pub(super) fn tell(&mut self, ix: JobIx, event: Event) {
        self.tell_why(ix, event, None);
    }

    fn tell_why(&mut self, ix: JobIx, event: Event, why: Option<&Reason>) {
        let at = self.stamp();
        let Some(job) = self.jobs.get(&ix) else { return };
        let frame = Frame::because(&event, job.told + 1, at, why);
        self.add_event(ix, at, event, frame);
    }

    /// When an event happens that is told now: later than any before it.
    fn stamp(&mut self) -> Wall {
        self.last_event = Wall(self.now.wall.0.max(self.last_event.0.saturating_add(1)));
        self.last_event
    }

    fn add_event(&mut self, ix: JobIx, at: Wall, event: Event, frame: Frame) {
        let Some(job) = self.jobs.get_mut(&ix) else { return };
        job.told += 1;
        if job.gate.tell(&job.id, job.told, at, &frame) {
            self.dirty_jobs.push(ix);
        }
        self.once_stored(ix, Gated::Event(at, event, frame));
    }

    /// The check after every row: is the vote decided, is the run over?
    pub(super) fn check(&mut self, ix: JobIx) {
        let spare = usize::from(self.planted(PlantedBug::QuorumOffByOne));
        let Some(job) = self.jobs.get(&ix) else { return };
        if job.phase() == Phase::Voting && job.tally.undecided == 0 {
            if job.tally.ready + spare >= job.quorum as usize {
                self.start_run(ix);
            } else {
                let why = self.why_no_quorum(ix);
                self.for_each(ix, job_state::when_quorum_fails, why.as_ref());
                self.finish(ix, JobStatus::QuorumFailed);
            }
        }
        let Some(job) = self.jobs.get(&ix) else { return };
        if job.phase() == Phase::Running && job.tally.ready + job.tally.running == 0 {
            // A node may be the first to notice that the time is up.
            let late = job.nodes.iter().any(|member| member.status == NodeStatus::TimedOut);
            self.finish(ix, if late { JobStatus::TimedOut } else { JobStatus::Complete });
        }
    }

    fn start_run(&mut self, ix: JobIx) {
        let Some(job) = self.jobs.get_mut(&ix) else { return };
        let timeout = Millis::from_secs(u64::from(job.run_timeout));
        job.commit = None;
        self.timers.clear(&Timer::Vote(ix));
        self.timers.set(Timer::Run(ix), self.now.mono + timeout);
        self.set_job_status(ix, JobStatus::Running, Some(timeout));
        self.tell(ix, Event::QuorumSucceeded);
        self.once_stored(ix, Gated::Runs);
    }

    fn set_job_status(&mut self, ix: JobIx, status: JobStatus, deadline: Option<Millis>) {
        let now = self.now.wall;
        let Some(job) = self.jobs.get_mut(&ix) else { return };
        job.status = status;
        let record = Record::JobStatus {
            job: job.id.clone(),
            status,
            updated_at: now,
            deadline: deadline.map(|after| wall_after(now, after)),
        };
        self.record(ix, record);
    }

    /// Ends a job (6.6, with D-31).
    pub(super) fn finish(&mut self, ix: JobIx, status: JobStatus) {
        self.timers.clear(&Timer::Vote(ix));
        self.timers.clear(&Timer::Run(ix));
        self.timers.set(Timer::Linger(ix), self.now.mono + self.config.linger);
        if let Some(job) = self.jobs.get_mut(&ix) {
            job.commit = None;
        }
        self.set_job_status(ix, status, None);
        self.tell(ix, Event::JobComplete { status });
    }

    pub(super) fn for_each(&mut self, ix: JobIx, table: fn(NodeStatus) -> Rule, why: Option<&Reason>) {
        let Some(job) = self.jobs.get(&ix) else { return };
        let rules: Vec<(NodeId, Rule)> = job
            .nodes
            .iter()
            .map(|n| (n.node, table(n.status)))
            .filter(|(_, rule)| rule.to.is_some() || !rule.steps.is_empty())
            .collect();
        for (node, rule) in rules {
            self.steps += 1;
            let reason = why.filter(|_| rule.to.is_some()).cloned();
            self.apply(ix, node, rule, reason);
        }
    }

    pub(super) fn vote_closes(&mut self, ix: JobIx) {
        if self.jobs.get(&ix).map(LiveJob::phase) == Some(Phase::Voting) {
            let seconds = self.config.voting_timeout.0 as f64 / 1000.0;
            let why = Reason::new(ReasonCode::VoteTimeout, format!("no vote within {seconds} s"));
            self.for_each(ix, job_state::when_vote_closes, Some(&why));
            self.check(ix);
        }
    }

    pub(super) fn time_is_up(&mut self, ix: JobIx) {
        let noticed = !self.planted(PlantedBug::DeadlineIgnored);
        if noticed && self.jobs.get(&ix).map(LiveJob::phase) == Some(Phase::Running) {
            let seconds = self.jobs.get(&ix).map_or(0, |job| job.run_timeout);
            let why =
                Reason::new(ReasonCode::TimedOut, format!("not finished after {seconds} s (run_timeout)"));
            self.for_each(ix, job_state::when_time_is_up, Some(&why));
            self.finish(ix, JobStatus::TimedOut);
        }
    }

    /// A finished job leaves memory, once all of it is stored (decision 11).
    pub(super) fn forget_job(&mut self, ix: JobIx) {
        let Some(job) = self.jobs.get(&ix) else { return };
        if job.gate.is_clean() {
            self.drop_job(ix);
        } else {
            self.timers.set(Timer::Linger(ix), self.now.mono + Millis(1000));
        }
    }

    pub(super) fn drop_job(&mut self, ix: JobIx) {
        for timer in [Timer::Vote(ix), Timer::Run(ix), Timer::Linger(ix), Timer::RetryJob(ix)] {
            self.timers.clear(&timer);
        }
        let Some(job) = self.jobs.remove(&ix) else { return };
        self.by_job_id.remove(&job.id);
        for member in job.nodes {
            self.steps += 1;
            if let Some(node) = self.nodes.get_mut(&member.node) {
                node.jobs.remove(&ix);
            }
            self.prune_node(member.node);
        }
    }
}

pub(super) fn wall_after(now: Wall, after: Millis) -> Wall {
    Wall(now.0.saturating_add(i64::try_from(after.0).unwrap_or(i64::MAX / 1000).saturating_mul(1000)))
}
