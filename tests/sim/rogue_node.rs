//! A node that breaks the protocol: its keys are valid, what it says is not. Every message, about jobs of now, of before and of
//! others, in any order, twice, late, under any incarnation; heartbeats with any state, or none. In between it takes part
//! for long enough to be asked for more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use pushy_core::auth::SigningKey;
use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgName};
use pushy_core::message::{
    Caps, Captured, FromServer, JobRef, JobState, NodeIdentity, NodeMessage, ServerMessage,
};
use pushy_core::node::Port;
use pushy_core::node_config::NodeConfig;
use pushy_core::reason::{Reason, ReasonCode};
use pushy_core::time::Millis;
use pushy_core::wire::{self, SessionKey};
use pushy_core::zmtp::{CurveSecret, Event as PeerEvent, Limits, Peer, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::net::LinkId;
use crate::node_host::Wish;
use crate::server_host::clock;

/// Jobs it remembers.
const JOBS: usize = 12;
/// Frames it remembers, to say them again.
const FRAMES: usize = 16;
/// Between two requests for its configuration.
const FETCH: u64 = 30_000;

/// How it behaves for a while.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// Says something out of place about this often, in milliseconds, and answers more or less as it should.
    Talks(u64),
    /// Answers `abort` and says nothing else, not even heartbeats.
    Sulks,
    /// Has come to its senses: refuses every job, does nothing out of place.
    Reformed,
}

/// One host with a rogue.
pub struct RogueNode {
    /// Its name.
    pub name: NodeName,
    org: OrgName,
    key: SigningKey,
    up: bool,
    /// It is down for good.
    vanished: bool,
    vanish_at: Option<u64>,
    keys: Arc<CurveSecret>,
    incarnation: IncarnationId,
    caps: Option<Caps>,
    config: Option<(NodeConfig, SessionKey)>,
    fetch_at: Option<u64>,
    /// The number of its connection to the command port, the stream and what is spoken over it.
    conn: u64,
    peer: Option<(LinkId, Peer)>,
    connect_at: Option<u64>,
    mood: Mood,
    mood_until: u64,
    /// Newest last.
    jobs: VecDeque<JobId>,
    /// What it would do if it meant what it said.
    holding: Option<(JobId, JobState)>,
    plans: BTreeMap<(u64, u64), NodeMessage>,
    order: u64,
    said: VecDeque<(Vec<u8>, Vec<u8>)>,
    sequence: u64,
    beat_at: Option<u64>,
    word_at: Option<u64>,
    /// Counts the lives of the process.
    pub life: u64,
    /// Wall clock minus simulated time, in seconds.
    pub clock_offset: i64,
    random: ChaCha8Rng,
}

impl RogueNode {
    /// A host with nothing on it yet.
    pub fn new(name: NodeName, org: OrgName, key: SigningKey, seed: u64) -> RogueNode {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // Some leave early: before the end the server has to notice that their keys are not asked for any more.
        let vanish_at = (random.next_u64() % 5 == 0).then(|| 3_000 + random.next_u64() % 17_000);
        RogueNode {
            name,
            org,
            key,
            up: false,
            vanished: false,
            vanish_at,
            keys: Arc::new(CurveSecret::generate(&mut random)),
            incarnation: IncarnationId::generate(&mut random),
            caps: None,
            config: None,
            fetch_at: None,
            conn: 0,
            peer: None,
            connect_at: None,
            mood: Mood::Sulks,
            mood_until: 0,
            jobs: VecDeque::new(),
            holding: None,
            plans: BTreeMap::new(),
            order: 0,
            said: VecDeque::new(),
            sequence: 0,
            beat_at: None,
            word_at: None,
            life: 0,
            clock_offset: 0,
            random,
        }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether it never comes back.
    pub fn is_stuck(&self) -> bool {
        self.vanished
    }

    /// It overhears the id of a job, its own or not.
    pub fn overhear(&mut self, job: &JobId) {
        self.remember(job.clone());
    }

    /// It behaves from now on.
    pub fn reform(&mut self, now: u64) {
        self.mood = Mood::Reformed;
        self.mood_until = u64::MAX;
        self.vanish_at = None;
        self.plans.clear();
        self.holding = None;
        // With a connection that nothing was said over yet.
        self.word_at = Some(now);
        self.caps = Some(Caps::OF_NODE);
    }

    /// The process starts.
    pub fn start(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        self.life += 1;
        if self.vanished {
            return;
        }
        self.up = true;
        self.keys = Arc::new(CurveSecret::generate(&mut self.random));
        self.incarnation = IncarnationId::generate(&mut self.random);
        self.fetch_at = Some(now);
        self.new_mood(now);
        self.tick(now, wishes);
    }

    /// The process dies.
    pub fn crash(&mut self) -> Vec<LinkId> {
        self.up = false;
        self.config = None;
        self.connect_at = None;
        self.plans.clear();
        self.holding = None;
        self.conn += 1;
        self.peer.take().map(|(link, _)| link).into_iter().collect()
    }

    /// The answer to a fetch.
    pub fn config(&mut self, now: u64, body: Option<String>) {
        let config = body.and_then(|text| NodeConfig::from_json(text.as_bytes()).ok());
        let Some(config) = config else {
            self.fetch_at = Some(now + 2_000);
            return;
        };
        if let Ok(session) = config.session_key(&self.key) {
            self.config = Some((config, session));
            if self.peer.is_none() && self.connect_at.is_none() {
                self.connect_at = Some(now);
            }
        }
    }

    /// A stream that was asked for exists.
    pub fn connected(&mut self, now: u64, conn: u64, link: LinkId, wishes: &mut Vec<Wish>) {
        let server = self.config.as_ref().and_then(|(config, _)| config.curve_public_key);
        let Some(server) = server.filter(|_| conn == self.conn) else {
            return wishes.push(Wish::Close(link));
        };
        let role = Role::Dealer { secret: Arc::clone(&self.keys), server };
        let limits = Limits { max_body: wire::MAX_SERVER_BODY, ping: None };
        self.peer = Some((link, Peer::new(role, limits, Millis(now), &mut self.random)));
        self.sequence = 0;
        self.flush(wishes);
    }

    /// A stream that was asked for cannot be had.
    pub fn refused(&mut self, now: u64, conn: u64) {
        if conn == self.conn {
            let wait = 100 + self.pick(1_500);
            self.connect_at = Some(now + wait);
        }
    }

    /// A stream is gone.
    pub fn gone(&mut self, now: u64, link: LinkId) {
        if let Some((_, peer)) = self.peer.take_if(|(mine, _)| *mine == link) {
            if !peer.is_open() {
                self.fetch_at = Some(now + 500);
            }
            let conn = self.conn;
            self.refused(now, conn);
        }
    }

    /// Bytes arrived.
    pub fn receive(&mut self, now: u64, link: LinkId, bytes: &[u8], wishes: &mut Vec<Wish>) {
        let mut rest = bytes;
        loop {
            let Some((_, peer)) = self.peer.as_mut().filter(|(mine, _)| *mine == link) else { return };
            match peer.receive(Millis(now), &mut rest) {
                Ok(None) => break,
                Ok(Some(PeerEvent::Opened)) => self.opened(now),
                Ok(Some(PeerEvent::Message { body, .. })) => self.heard(now, &body),
                Ok(Some(PeerEvent::Authenticate { .. })) => {}
                Err(_) => {
                    wishes.push(Wish::Close(link));
                    return self.gone(now, link);
                }
            }
        }
        self.flush(wishes);
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        if !self.up {
            return;
        }
        let due = |at: &mut Option<u64>| at.take_if(|at| *at <= now).is_some();
        if due(&mut self.vanish_at) {
            wishes.extend(self.crash().into_iter().map(Wish::Close));
            self.vanished = true;
            return;
        }
        if self.mood_until <= now {
            self.new_mood(now);
        }
        if due(&mut self.fetch_at) {
            self.fetch_at = Some(now + FETCH);
            wishes.push(Wish::Fetch(self.keys.public()));
        }
        if due(&mut self.connect_at) {
            self.conn += 1;
            wishes.push(Wish::Connect(self.conn, Port::Command));
        }
        if due(&mut self.beat_at) {
            self.beat(now);
        }
        while let Some(entry) = self.plans.first_entry().filter(|entry| entry.key().0 <= now) {
            let message = entry.remove();
            self.say(now, &message);
        }
        if due(&mut self.word_at) {
            self.word(now, wishes);
        }
        self.flush(wishes);
    }

    /// When [`RogueNode::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        let plan = self.plans.keys().next().map(|(at, _)| *at);
        let always = [self.vanish_at, self.fetch_at, self.connect_at, self.beat_at, self.word_at, plan];
        always.into_iter().flatten().chain([self.mood_until]).min().filter(|_| self.up)
    }

    fn pick(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit.max(1)
    }

    fn remember(&mut self, job: JobId) {
        self.jobs.retain(|known| *known != job);
        self.jobs.push_back(job);
        if self.jobs.len() > JOBS {
            self.jobs.pop_front();
        }
    }

    fn new_mood(&mut self, now: u64) {
        if matches!(self.mood, Mood::Reformed) {
            return;
        }
        let pace = [60, 250, 700, 2_500, 2_500, 8_000][self.pick(6) as usize];
        self.mood = if self.pick(5) == 0 { Mood::Sulks } else { Mood::Talks(pace) };
        self.mood_until = now + 8_000 + self.pick(8_000);
        self.caps = [Some(Caps::OF_NODE), Some(Caps::NONE), None][self.pick(3) as usize];
        self.word_at = Some(now + self.pick(pace));
        self.beat_at = self.beat_at.or(Some(now));
    }

    fn opened(&mut self, now: u64) {
        match self.mood {
            // The first word of a connection gets it into the server's view.
            Mood::Sulks => self.plan(now, 200, NodeMessage::Aborted { job: JobRef::None, reason: None }),
            Mood::Talks(_) | Mood::Reformed => self.beat_at = Some(now),
        }
    }

    fn plan(&mut self, now: u64, within: u64, message: NodeMessage) {
        self.order += 1;
        let at = now + self.pick(within);
        self.plans.insert((at, self.order), message);
    }

    /// Answers, more or less.
    fn heard(&mut self, now: u64, body: &[u8]) {
        let Ok(message) = FromServer::decode(body) else { return };
        let roll = self.pick(20);
        let talks = matches!(self.mood, Mood::Talks(_));
        match message.message {
            ServerMessage::Commit(commit) => {
                let job = JobRef::Id(commit.job.clone());
                self.remember(commit.job);
                match roll {
                    _ if matches!(self.mood, Mood::Reformed) => {
                        self.plan(now, 50, NodeMessage::NackCommit { job, reason: None });
                    }
                    0..=13 if talks => {
                        self.plan(now, 300, NodeMessage::AckCommit { job: job.clone() });
                        self.insist(now + 300, job, 5);
                    }
                    14..=16 if talks => {
                        self.plan(now, 300, NodeMessage::NackCommit { job: job.clone(), reason: None });
                        self.insist(now + 300, job, 1);
                    }
                    _ => {}
                }
            }
            ServerMessage::Run { job } => {
                let job = JobRef::Id(job);
                match roll {
                    0..=13 if talks => {
                        self.plan(now, 200, NodeMessage::AckRun { job: job.clone() });
                        if roll < 9 {
                            self.plan(now + 200, 600, result(roll < 5, job.clone()));
                            self.insist(now + 800, job, 1);
                        } else {
                            self.insist(now + 200, job, 2);
                        }
                    }
                    14 if talks => self.plan(now, 400, NodeMessage::NackRun { job, reason: None }),
                    15 | 16 if talks => self.plan(now, 400, result(roll == 15, job)),
                    _ => {}
                }
            }
            ServerMessage::Abort if roll < 18 => {
                let job = self.holding.take().map(|(job, _)| job);
                if let (Some(job), true) = (&job, talks) {
                    self.insist(now + 150, JobRef::Id(job.clone()), 2);
                }
                self.plan(now, 150, NodeMessage::Aborted { job: job.into(), reason: None });
            }
            _ => {}
        }
    }

    fn beat(&mut self, now: u64) {
        let interval = self.config.as_ref().map_or(2_000, |(config, _)| config.interval.0);
        self.beat_at = Some(now + interval);
        if matches!(self.mood, Mood::Sulks) {
            return;
        }
        let (state, job) = match &self.holding {
            Some((job, state)) => (*state, JobRef::Id(job.clone())),
            None => (JobState::Idle, JobRef::None),
        };
        let caps = self.caps;
        self.say(now, &NodeMessage::Heartbeat { state: Some(state), job, caps });
    }

    /// One time in so many it does not leave it at its answer and goes on about the same job.
    fn insist(&mut self, from: u64, job: JobRef, one_in: u64) {
        if self.pick(one_in) == 0 {
            for step in 0..2 + self.pick(6) {
                let message = self.about(job.clone());
                self.plan(from + 200 * step, 200, message);
            }
        }
    }

    /// Anything that can be said about a job.
    fn about(&mut self, job: JobRef) -> NodeMessage {
        let reason = None;
        let caps = self.caps;
        match self.pick(20) {
            0 | 1 => NodeMessage::AckCommit { job },
            2 | 3 => NodeMessage::NackCommit { job, reason },
            4 | 5 => NodeMessage::AckRun { job },
            6 | 7 => NodeMessage::NackRun { job, reason },
            8 | 9 => result(true, job),
            10 => result(false, job),
            11 => {
                let reason = Some(Reason::new(ReasonCode::TimedOut, "so it says"));
                NodeMessage::Failed { job, output: Captured::default(), reason }
            }
            12 => NodeMessage::Aborted { job, reason },
            13 => {
                // Another process speaks for the node, it says.
                self.incarnation = IncarnationId::generate(&mut self.random);
                NodeMessage::Heartbeat { state: Some(JobState::Idle), job: JobRef::None, caps }
            }
            14 => NodeMessage::Heartbeat { state: None, job, caps },
            15 | 16 => NodeMessage::Heartbeat { state: Some(JobState::Committed), job, caps },
            17 | 18 => NodeMessage::Heartbeat { state: Some(JobState::Running), job, caps },
            _ => NodeMessage::Heartbeat { state: Some(JobState::Idle), job, caps },
        }
    }

    /// Something out of place.
    fn word(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        let Mood::Talks(pace) = self.mood else { return self.hang_up(now, wishes) };
        self.word_at = Some(now + pace / 4 + self.pick(pace * 3 / 2));
        // Now and then it lets a job come to its end.
        if self.holding.is_some() && self.pick(3) != 0 {
            return;
        }
        let newest = self.jobs.len().saturating_sub(1) as u64;
        let which = match self.pick(20) {
            0..=11 => Some(newest),
            12..=17 => Some(self.pick(newest + 1)),
            _ => None,
        };
        let known = which.and_then(|which| self.jobs.get(which as usize).cloned());
        let job = match known {
            Some(job) => JobRef::Id(job),
            None if self.pick(3) == 0 => JobRef::Other("nonsense".into()),
            None => JobRef::None,
        };
        let message = match self.pick(24) {
            0 | 1 => return self.repeat(),
            2 => return self.hang_up(now, wishes),
            3 => NodeMessage::Unknown { name: "hello".into() },
            _ => self.about(job),
        };
        self.say(now, &message);
        if self.pick(10) == 0 {
            self.say(now, &message);
        }
    }

    /// Ends its connection, to make another one.
    fn hang_up(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        if let Some((link, _)) = self.peer.take() {
            wishes.push(Wish::Close(link));
            let conn = self.conn;
            self.refused(now, conn);
        }
    }

    /// A frame of before, as it was.
    fn repeat(&mut self) {
        let which = self.pick(self.said.len() as u64) as usize;
        let Some((header, body)) = self.said.get(which).cloned() else { return };
        if let Some((_, peer)) = self.peer.as_mut().filter(|(_, peer)| peer.is_open()) {
            let _ = peer.send(&header, &body);
        }
    }

    fn say(&mut self, now: u64, message: &NodeMessage) {
        let Some((_, session)) = self.config.clone() else { return };
        if !self.peer.as_ref().is_some_and(|(_, peer)| peer.is_open()) {
            return;
        }
        self.keep_in_mind(message);
        let mut sequence = self.sequence + 1;
        let mut sender = NodeIdentity {
            node: self.name.clone(),
            client: self.name.to_string(),
            org: self.org.clone(),
            incarnation: self.incarnation.clone(),
        };
        let mut at = clock(now, self.clock_offset).wall;
        let mut header_key = session.0;
        let slip = if matches!(self.mood, Mood::Reformed) { u64::MAX } else { self.pick(60) };
        match slip {
            0 => at.0 -= (1 + self.pick(400)) as i64 * 1_000_000,
            1 => sequence += self.pick(5),
            2 => sequence = self.pick(sequence),
            3 => sender.node = NodeName::new("node-1").expect("a valid name"),
            4 => header_key[0] ^= 1,
            5 => sender.incarnation = IncarnationId::generate(&mut self.random),
            _ => {}
        }
        self.sequence = self.sequence.max(sequence);
        let body = message.encode(&sender, sequence, at);
        let header = wire::hmac_header(&header_key, &body);
        if let Some((_, peer)) = &mut self.peer {
            let _ = peer.send(&header, &body);
        }
        if self.said.len() == FRAMES {
            self.said.pop_front();
        }
        self.said.push_back((header, body));
    }

    /// What follows for its own heartbeats from what it says.
    fn keep_in_mind(&mut self, message: &NodeMessage) {
        match message {
            NodeMessage::AckCommit { job: JobRef::Id(job) } => {
                self.holding = Some((job.clone(), JobState::Committed));
            }
            NodeMessage::AckRun { job: JobRef::Id(job) } => {
                self.holding = Some((job.clone(), JobState::Running));
            }
            NodeMessage::Aborted { .. } => self.holding = None,
            NodeMessage::Succeeded { job, .. } | NodeMessage::Failed { job, .. } => {
                self.holding = self.holding.take().filter(|(held, _)| Some(held) != job.id());
            }
            _ => {}
        }
    }

    fn flush(&mut self, wishes: &mut Vec<Wish>) {
        if let Some((link, peer)) = &mut self.peer {
            let bytes = peer.transmit().to_vec();
            if !bytes.is_empty() {
                peer.sent(bytes.len());
                wishes.push(Wish::Transmit(*link, bytes));
            }
        }
    }
}

fn result(good: bool, job: JobRef) -> NodeMessage {
    let output = Captured::default();
    if good {
        NodeMessage::Succeeded { job, output }
    } else {
        NodeMessage::Failed { job, output, reason: None }
    }
}
