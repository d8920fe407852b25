//! A node pulled by strings: a CURVE peer with heartbeats of its own that says what the test tells it to.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pushy_core::curve_key::CurveKey;
use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgName};
use pushy_core::message::{Captured, JobRef, JobState, NodeIdentity, NodeMessage};
use pushy_core::node_config::NodeConfig;
use pushy_core::time::{Millis, Wall};
use pushy_core::wire::{SessionKey, hmac_header};
use pushy_core::zmtp::{CurveSecret, Event, Limits, Peer, Role};
use pushy_tests::http::wall;
use serde_json::Value;

use crate::call::{Actor, DEADLINE};
use crate::target::{NODE_KEY, Target, actor};

/// How often the connection's thread looks up from reading.
const TICK: Duration = Duration::from_millis(20);

/// What the thread of the connection and the test share.
struct Line {
    stream: TcpStream,
    peer: Peer,
    session: SessionKey,
    identity: NodeIdentity,
    sequence: u64,
    job: Option<JobId>,
    state: JobState,
    open: bool,
    stop: bool,
}

/// A node with one connection.
pub(crate) struct Puppet {
    actor: Actor,
    curve: Arc<CurveSecret>,
    server: CurveKey,
    address: String,
    interval: Duration,
    line: Arc<Mutex<Line>>,
    said: Receiver<Value>,
    thread: Option<JoinHandle<()>>,
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn flush(&mut self) {
        while !self.peer.transmit().is_empty() {
            let bytes = self.peer.transmit().to_vec();
            if self.stream.write_all(&bytes).is_err() {
                self.stop = true;
                return;
            }
            self.peer.sent(bytes.len());
        }
    }

    fn say(&mut self, message: &NodeMessage, at: Wall) {
        self.sequence += 1;
        let body = message.encode(&self.identity, self.sequence, at);
        // A closed connection shows itself to the test as silence.
        let _ = self.peer.send(&hmac_header(&self.session.0, &body), &body);
        self.flush();
    }

    fn beat(&mut self) {
        let heartbeat =
            NodeMessage::Heartbeat { state: Some(self.state), job: self.job.clone().into(), caps: None };
        self.say(&heartbeat, wall());
    }

    fn hear(&mut self, message: &Value) {
        if message["type"] == "abort" {
            let job = self.job.take();
            self.state = JobState::Idle;
            self.say(&NodeMessage::Aborted { job: job.into(), reason: None }, wall());
        }
    }
}

fn work(line: &Mutex<Line>, mut stream: TcpStream, said: &Sender<Value>, interval: Duration) {
    let mut buffer = [0u8; 16 << 10];
    let mut next = Instant::now();
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => break,
        };
        let mut line = lock(line);
        let mut bytes = &buffer[..count];
        while let Ok(Some(event)) = line.peer.receive(Millis(0), &mut bytes) {
            match event {
                Event::Opened => {
                    line.open = true;
                    next = Instant::now();
                }
                Event::Message { body, .. } => {
                    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                    line.hear(&message);
                    // The test may have ended.
                    let _ = said.send(message);
                }
                Event::Authenticate { .. } => {}
            }
        }
        if line.open && Instant::now() >= next {
            line.beat();
            next = Instant::now() + interval;
        }
        line.flush();
        if line.stop {
            break;
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

impl Puppet {
    /// A new node of this name that is available.
    pub(crate) fn online(t: &Target, name: &str) -> Puppet {
        t.site().people().add_nodes(&t.org, &[name]);
        let puppet = Puppet::process(t, name);
        t.check_state(name, "online", "available");
        puppet.forget();
        puppet
    }

    /// A process of a known node: fetches its configuration, connects, beats, answers every `abort`.
    pub(crate) fn process(t: &Target, name: &str) -> Puppet {
        let actor = actor(name, NODE_KEY);
        let curve = Arc::new(CurveSecret::generate(&mut rand_core::OsRng));
        let z85: String = curve.public().to_z85().bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = t.get(&actor, &format!("config/{name}?ccpk={z85}&version=2.0"));
        answer.check_status(200);
        let config = NodeConfig::from_json(&answer.body).expect("a configuration");
        let identity = NodeIdentity {
            node: NodeName::new(name).expect("a name"),
            org: OrgName::new(&t.org).expect("a name"),
            client: "puppet".into(),
            incarnation: random_incarnation(),
        };
        let session = config.session_key(&actor.key).expect("a session key");
        let address = config.command_addr.strip_prefix("tcp://").expect("an address").to_owned();
        let server = config.curve_public_key.expect("a key");
        let interval = Duration::from_millis(config.interval.0);
        let (line, said, thread) = connect(&address, &curve, server, session, identity, interval);
        Puppet { actor, curve, server, address, interval, line, said, thread: Some(thread) }
    }

    /// The same process on a new connection; no new configuration.
    pub(crate) fn reconnect(&mut self) {
        self.hang_up();
        let (session, identity, job, state) = {
            let old = lock(&self.line);
            (old.session.clone(), old.identity.clone(), old.job.clone(), old.state)
        };
        let (line, said, thread) =
            connect(&self.address, &self.curve, self.server, session, identity, self.interval);
        {
            let mut line = lock(&line);
            (line.job, line.state) = (job, state);
        }
        (self.line, self.said, self.thread) = (line, said, Some(thread));
    }

    fn hang_up(&mut self) {
        lock(&self.line).stop = true;
        if let Some(thread) = self.thread.take() {
            // It ends at its next look up.
            let _ = thread.join();
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.actor.name
    }

    /// Drops what was heard so far.
    pub(crate) fn forget(&self) {
        while self.said.try_recv().is_ok() {}
    }

    pub(crate) fn say(&self, message: &NodeMessage) {
        lock(&self.line).say(message, wall());
    }

    /// Says something as if its clock were so many seconds slow.
    pub(crate) fn say_late(&self, message: &NodeMessage, seconds: i64) {
        lock(&self.line).say(message, Wall(wall().0 - seconds * 1_000_000));
    }

    /// The next message of this type; others are passed over.
    #[track_caller]
    pub(crate) fn expect(&self, kind: &str) -> Value {
        let end = Instant::now() + DEADLINE;
        let mut passed = Vec::new();
        loop {
            match self.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) if message["type"] == kind => return message,
                Ok(message) => passed.push(message["type"].clone()),
                Err(_) => panic!("{}: no {kind}, but {passed:?}", self.actor.name),
            }
        }
    }

    /// Whether a message of this type comes within a time.
    pub(crate) fn hears(&self, kind: &str, within: Duration) -> bool {
        let end = Instant::now() + within;
        loop {
            match self.said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) if message["type"] == kind => return true,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn be(&self, state: JobState, job: Option<&JobId>) {
        let mut line = lock(&self.line);
        (line.state, line.job) = (state, job.cloned());
    }

    /// The next commit; it is not answered.
    #[track_caller]
    pub(crate) fn commit(&self) -> (JobId, Value) {
        let commit = self.expect("commit");
        (JobId::new(commit["job_id"].as_str().expect("an id")).expect("an id"), commit)
    }

    /// Votes yes.
    pub(crate) fn ack_commit(&self, job: &JobId) {
        self.be(JobState::Committed, Some(job));
        self.say(&NodeMessage::AckCommit { job: job.clone().into() });
    }

    /// Votes no.
    pub(crate) fn nack_commit(&self, job: &JobId) {
        self.say(&NodeMessage::NackCommit { job: job.clone().into(), reason: None });
    }

    /// Says that the process starts.
    pub(crate) fn ack_run(&self, job: &JobId) {
        self.be(JobState::Running, Some(job));
        self.say(&NodeMessage::AckRun { job: job.clone().into() });
    }

    pub(crate) fn nack_run(&self, job: &JobId) {
        self.be(JobState::Idle, None);
        self.say(&NodeMessage::NackRun { job: job.clone().into(), reason: None });
    }

    pub(crate) fn fail(&self, job: &JobId) {
        self.be(JobState::Idle, None);
        self.say(&NodeMessage::Failed { job: job.clone().into(), output: Captured::default(), reason: None });
    }

    /// Takes the next job up to running.
    #[track_caller]
    pub(crate) fn run(&self) -> JobId {
        let (job, _) = self.commit();
        self.ack_commit(&job);
        self.expect("run");
        self.ack_run(&job);
        job
    }

    /// Takes the next job and ends it.
    #[track_caller]
    pub(crate) fn run_to_the_end(&self) -> JobId {
        let job = self.run();
        self.succeed(&job);
        job
    }

    pub(crate) fn succeed(&self, job: &JobId) {
        self.be(JobState::Idle, None);
        self.say(&NodeMessage::Succeeded { job: job.clone().into(), output: Captured::default() });
    }

    /// Takes one more job to see that the node is well.
    #[track_caller]
    pub(crate) fn check_next_job(&self, t: &Target) {
        t.check_state(self.name(), "online", "available");
        self.forget();
        let id = t.start_on("next", &[self.name()]);
        self.run_to_the_end();
        t.check_job(&id, "complete", serde_json::json!({ "succeeded": [self.name()] }));
    }
}

/// A reference to a job that nobody has.
pub(crate) fn unknown_job(text: &str) -> JobRef {
    JobRef::Other(text.into())
}

fn random_incarnation() -> IncarnationId {
    let mut bytes = [0u8; 16];
    rand_core::RngCore::fill_bytes(&mut rand_core::OsRng, &mut bytes);
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let text = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    IncarnationId::new(&text).expect("an id")
}

type Connected = (Arc<Mutex<Line>>, Receiver<Value>, JoinHandle<()>);

fn connect(
    address: &str,
    curve: &Arc<CurveSecret>,
    server: CurveKey,
    session: SessionKey,
    identity: NodeIdentity,
    interval: Duration,
) -> Connected {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(TICK)).expect("a socket");
    let role = Role::Dealer { secret: Arc::clone(curve), server };
    let limits = Limits { max_body: 4 << 20, ping: None };
    let reader = stream.try_clone().expect("a socket");
    let mut line = Line {
        stream,
        peer: Peer::new(role, limits, Millis(0), &mut rand_core::OsRng),
        session,
        identity,
        sequence: 0,
        job: None,
        state: JobState::Idle,
        open: false,
        stop: false,
    };
    line.flush();
    let line = Arc::new(Mutex::new(line));
    let (sender, said) = channel();
    let shared = Arc::clone(&line);
    let thread = std::thread::spawn(move || work(&shared, reader, &sender, interval));
    (line, said, thread)
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.hang_up();
    }
}
