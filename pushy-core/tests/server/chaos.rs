//! Random histories: nodes that do their work, connections that break, a store that stalls and fails, a server that
//! restarts. Whatever happens, what is told is stored, nothing runs twice, every job ends, every node comes back.

use std::collections::{BTreeMap, BTreeSet};

use pushy_core::event::Event;
use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::{JobStatus, NodeStatus};
use pushy_core::message::{Caps, JobState, NodeMessage, ServerMessage};
use pushy_core::server::{NodeState, Output, ServerConfig};
use pushy_core::time::Millis;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::lab::*;

/// A node that follows 7.2; with `results`, it repeats results until they are acknowledged (decision 2).
#[derive(Default)]
struct Agent {
    state: Option<(JobId, bool)>,
    spool: Option<JobId>,
    /// Every job whose command it has started, with whether the command came to its end.
    started: BTreeMap<JobId, bool>,
    told_to_stop: BTreeSet<JobId>,
    results: bool,
}

struct World {
    lab: Lab,
    agents: BTreeMap<String, Agent>,
    random: ChaCha8Rng,
    seed: u64,
    jobs: Vec<JobId>,
    /// What the feed said of the end of each job.
    ended: BTreeMap<JobId, JobStatus>,
    hits: BTreeMap<&'static str, usize>,
    /// The last answer about all nodes.
    shown: Option<(u64, Vec<(NodeName, NodeState)>)>,
}

impl World {
    fn new(seed: u64) -> World {
        let config = ServerConfig { heartbeat_interval: Millis(2_000), ..ServerConfig::default() };
        let mut lab = Lab::with(config);
        let mut agents = BTreeMap::new();
        for n in 0..5 {
            let name = format!("n{n}");
            lab.bring_up(&name);
            let results = n % 2 == 0;
            lab.node(&name).caps = results.then_some(Caps::OF_NODE);
            agents.insert(name, Agent { results, ..Agent::default() });
        }
        let random = ChaCha8Rng::seed_from_u64(seed);
        World {
            lab,
            agents,
            random,
            seed,
            jobs: vec![],
            ended: BTreeMap::new(),
            hits: BTreeMap::new(),
            shown: None,
        }
    }

    fn chance(&mut self, of: u32) -> bool {
        self.random.next_u32() % of == 0
    }

    fn hit(&mut self, what: &'static str) {
        *self.hits.entry(what).or_default() += 1;
    }

    /// Delivers what the server has sent; a message to a broken connection is lost.
    fn settle(&mut self) {
        for _ in 0..100 {
            let outputs = std::mem::take(&mut self.lab.outputs);
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Send { conn, body, .. } => {
                        let Some(name) = self
                            .lab
                            .nodes
                            .iter()
                            .find(|(_, node)| node.conn == Some(conn))
                            .map(|(name, _)| name.clone())
                        else {
                            continue;
                        };
                        let message = pushy_core::message::FromServer::decode(&body).unwrap().message;
                        self.deliver(&name, message);
                    }
                    Output::Close { conn } => {
                        for node in self.lab.nodes.values_mut().filter(|n| n.conn == Some(conn)) {
                            node.conn = None;
                        }
                    }
                    Output::JobStarted { job, .. } => self.jobs.push(job),
                    Output::Event { job, event, .. } => self.told(&job, &event),
                    _ => {}
                }
            }
        }
        panic!("seed {}: no end of messages", self.seed);
    }

    fn told(&mut self, job: &JobId, event: &Event) {
        let stored = self.lab.stored(job).unwrap_or_else(|| panic!("seed {}: told, not stored", self.seed));
        let status = |node: &pushy_core::ids::NodeName| {
            stored.nodes.iter().find(|(n, _)| n == node).expect("a node of the job").1
        };
        match event {
            Event::JobComplete { status } => {
                assert_eq!(stored.status, *status, "seed {}", self.seed);
                let twice = self.ended.insert(job.clone(), *status);
                assert_eq!(twice, None, "seed {}: ended twice", self.seed);
            }
            Event::RunComplete { node, .. } => {
                assert!(status(node).is_terminal(), "seed {}: {event:?}", self.seed);
            }
            Event::RunStart { node } => {
                assert!(status(node) != NodeStatus::Ready, "seed {}: {event:?}", self.seed);
            }
            Event::QuorumSucceeded => {
                assert!(!matches!(stored.status, JobStatus::New | JobStatus::Voting), "seed {}", self.seed);
                let yes = |s: &NodeStatus| {
                    !matches!(s, NodeStatus::New | NodeStatus::Nacked | NodeStatus::Unavailable)
                };
                let votes = stored.nodes.iter().filter(|(_, status)| yes(status)).count();
                assert!(votes >= stored.quorum as usize, "seed {}: {votes} votes", self.seed);
            }
            Event::Start | Event::QuorumVote { .. } | Event::Rehab { .. } => {}
        }
    }

    fn deliver(&mut self, name: &str, message: ServerMessage) {
        // The connection may break with a message on its way.
        if self.lab.nodes[name].conn.is_none() {
            return;
        }
        if self.chance(40) {
            self.hit("message lost with its connection");
            return self.lab.disconnect(name);
        }
        let seed = self.seed;
        let agent = self.agents.get_mut(name).unwrap();
        let answer = match message {
            ServerMessage::Commit(commit) => {
                let stored = self.lab.stored(&commit.job);
                assert!(stored.is_some(), "seed {seed}: commit of a job not stored");
                if agent.state.is_none() {
                    agent.state = Some((commit.job.clone(), false));
                    ack_commit(&commit.job)
                } else {
                    nack_commit(&commit.job)
                }
            }
            ServerMessage::Run { job } => {
                let stored = self.lab.stored(&job).unwrap();
                assert!(stored.status != JobStatus::Voting, "seed {seed}: run during the vote");
                match &mut agent.state {
                    Some((mine, running)) if *mine == job && !*running => {
                        *running = true;
                        let twice = agent.started.insert(job.clone(), false);
                        assert_eq!(twice, None, "seed {seed}: {name} runs {job} twice");
                        ack_run(&job)
                    }
                    _ => nack_run(&job),
                }
            }
            ServerMessage::Abort => {
                let job = agent.state.take().map(|(job, _)| job);
                agent.told_to_stop.extend(job.clone());
                aborted(job.as_ref())
            }
            ServerMessage::ResultAck { job } => {
                let stored = self.lab.stored(&job).unwrap();
                let status = stored.nodes.iter().find(|(n, _)| n.as_str() == name).unwrap().1;
                assert!(status.is_terminal(), "seed {seed}: {job} acknowledged, stored {status}");
                if agent.spool.as_ref() == Some(&job) {
                    agent.spool = None;
                }
                return;
            }
            _ => return,
        };
        self.say(name, answer);
    }

    fn say(&mut self, name: &str, message: NodeMessage) {
        if self.lab.nodes[name].conn.is_some() {
            if self.chance(40) {
                self.hit("answer lost with its connection");
                return self.lab.disconnect(name);
            }
            self.lab.say(name, message);
        }
    }

    fn step(&mut self) {
        let names: Vec<String> = self.agents.keys().cloned().collect();
        let name = names[self.random.next_u32() as usize % names.len()].clone();
        match self.random.next_u32() % 32 {
            0..=7 => self.beat(&name),
            8..=12 => self.exit(&name),
            13..=14 => {
                self.hit("disconnect");
                self.lab.disconnect(&name);
            }
            15..=20 => self.connect(&name),
            21..=23 => {
                let count = 1 + self.random.next_u32() as usize % names.len();
                let chosen: Vec<&str> = names.iter().take(count).map(String::as_str).collect();
                let mut request = self.lab.request(&chosen);
                request.quorum = Some(1 + self.random.next_u32() % count as u32);
                request.run_timeout = Some(30 + self.random.next_u32() % 60);
                self.lab.post(request);
            }
            24 => {
                self.hit("store stalls");
                self.lab.set_disk(Disk::Waits);
            }
            25 => {
                self.hit("store fails");
                self.lab.set_disk(Disk::Fails);
            }
            26..=27 => self.lab.set_disk(Disk::Keeps),
            28 if self.chance(4) => {
                self.hit("restart");
                self.lab.disk = Disk::Keeps;
                self.lab.restart(1_000);
                self.shown = None;
            }
            _ => {
                let millis = u64::from(self.random.next_u32() % 1_500);
                self.lab.pass(millis);
            }
        }
        self.settle();
        // What may be shown again without asking is what asking would give.
        let now = (self.lab.server.views(), self.lab.server.node_states(&org()));
        if let Some((views, states)) = self.shown.replace(now.clone()) {
            assert!(views != now.0 || states == now.1, "seed {}: {states:?} became {:?}", self.seed, now.1);
        }
    }

    fn connect(&mut self, name: &str) {
        if self.lab.nodes[name].conn.is_none() {
            assert!(self.lab.connect(name), "seed {}: {name} is refused", self.seed);
            self.beat(name);
        }
    }

    fn beat(&mut self, name: &str) {
        if self.lab.nodes[name].conn.is_none() {
            return;
        }
        let agent = &self.agents[name];
        let (state, job) = match &agent.state {
            None => (JobState::Idle, None),
            Some((job, false)) => (JobState::Committed, Some(job.clone())),
            Some((job, true)) => (JobState::Running, Some(job.clone())),
        };
        let spooled = agent.spool.clone();
        if let Some(job) = spooled {
            self.say(name, succeeded(&job));
        }
        if self.lab.nodes[name].conn.is_some() {
            self.lab.beat(name, state, job.as_ref());
        }
    }

    /// The command of a node comes to its end.
    fn exit(&mut self, name: &str) {
        let agent = self.agents.get_mut(name).unwrap();
        if !matches!(agent.state, Some((_, true))) || agent.spool.is_some() {
            return;
        }
        let (job, _) = agent.state.take().unwrap();
        agent.started.insert(job.clone(), true);
        if agent.results {
            agent.spool = Some(job.clone());
        }
        self.say(name, succeeded(&job));
    }

    /// No more faults: everybody finishes, everybody is there.
    fn heal(&mut self) {
        self.lab.set_disk(Disk::Keeps);
        for turn in 0..130 {
            self.lab.pass(1_000);
            self.settle();
            for name in self.agents.keys().cloned().collect::<Vec<_>>() {
                self.connect(&name);
                if turn % 2 == 0 {
                    self.beat(&name);
                }
                if turn % 8 == 7 {
                    self.exit(&name);
                }
                self.settle();
            }
        }
        for (name, agent) in &self.agents {
            let state = self.lab.state(name);
            assert!(state.available || self.lab.nodes[name].conn.is_none(), "seed {}: {name}", self.seed);
            assert!(agent.spool.is_none() || self.lab.nodes[name].conn.is_none(), "seed {}", self.seed);
        }
        for job in self.lab.kept.clone() {
            let pushy_core::server::Record::NewJob(job) = job else { continue };
            let job = self.lab.stored(&job.id).unwrap();
            assert!(job.status.is_terminal(), "seed {}: {} is {}", self.seed, job.id, job.status);
            for (node, status) in &job.nodes {
                assert!(status.is_terminal(), "seed {}: {node} of {} is {status}", self.seed, job.id);
                let agent = &self.agents[node.as_str()];
                let ended = agent.started.get(&job.id);
                let yes = matches!(status, NodeStatus::Succeeded);
                assert!(!yes || ended == Some(&true), "seed {}: {node} of {}", self.seed, job.id);
                // Decision 2: nobody was away long enough to be given up.
                if agent.results && ended == Some(&true) && !agent.told_to_stop.contains(&job.id) {
                    let fine = yes || *status == NodeStatus::TimedOut || *status == NodeStatus::Crashed;
                    assert!(fine, "seed {}: {node} of {} is {status}", self.seed, job.id);
                }
            }
        }
        assert_eq!(self.lab.server.counts().1.len(), 0, "seed {}: jobs in memory", self.seed);
    }
}

#[test]
fn whatever_happens() {
    let mut hits: BTreeMap<&'static str, usize> = BTreeMap::new();
    let (mut jobs, mut complete, mut results) = (0, 0, 0);
    for seed in 0..25 {
        let mut world = World::new(seed);
        for _ in 0..250 {
            world.step();
        }
        world.heal();
        jobs += world.ended.len();
        complete += world.ended.values().filter(|s| **s == JobStatus::Complete).count();
        results += world.agents.values().flat_map(|a| a.started.values()).filter(|ended| **ended).count();
        for (what, count) in world.hits {
            *hits.entry(what).or_default() += count;
        }
    }
    println!("{jobs} jobs ended, {complete} complete, {results} commands came to their end; {hits:?}");
    assert!(complete > 50 && results > 100, "{complete} {results}");
}
