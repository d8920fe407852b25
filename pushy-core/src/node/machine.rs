//! The node's machine: routes what happens to job runner, heartbeater, reconfigurer and the two connections.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::curve_key::CurveKey;
use crate::error::{Error, ErrorCode, Result};
use crate::ids::{IncarnationId, JobId};
use crate::message::{Caps, Captured, JobRef, NodeIdentity, NodeMessage, ServerMessage};
use crate::node_config::NodeConfig;
use crate::server::{LogLevel, Random};
use crate::time::{Millis, Now};
use crate::whitelist::Whitelist;
use crate::wire::{self, Channel, Limits, MAX_SERVER_BODY, RsaVerifier, SessionKey, WireError};
use crate::zmtp::CurveSecret;

use super::backoff;
use super::heartbeater::{self, Heartbeater};
use super::job_runner::{self, JobRunner};
use super::link::{self, Link};
use super::outputs::{self, Outputs};
use super::publisher::Publisher;
use super::reconfigurer::{self, Reconfigurer, Trigger};
use super::replay::Replay;
use super::results::{KeptResult, Results};
use super::{Bug, Curve, Input, Keys, Output, Port, Restored, Settings, Stage, capture, planted};

mod talk;

/// The longest wait before the heartbeat port is tried again: without it the node works all the same (D-59).
const LONGEST_HEARTBEAT_WAIT: Millis = Millis(60_000);

/// After this long out of reach every other try asks for the configuration besides: the server may have moved.
const OUT_OF_REACH: Millis = Millis(30_000);

/// Messages kept for an original server while the connection is down (7.7).
const PENDING: usize = 8;

/// What the last usable configuration said.
#[derive(Debug)]
struct Session {
    key: SessionKey,
    verifier: RsaVerifier,
    config: NodeConfig,
    curve: CurveKey,
    keys: Keys,
}

/// The machine. See the module's page for how to drive it.
pub struct Node {
    me: NodeIdentity,
    client_key: crate::auth::SigningKey,
    max_body: usize,
    whitelist: Whitelist,
    reload: Option<Box<Whitelist>>,
    random: Box<dyn Random>,
    now: Now,
    outputs: VecDeque<Output>,
    runner: JobRunner,
    heartbeater: Heartbeater,
    reconfigurer: Reconfigurer,
    publisher: Publisher,
    command: Link,
    heartbeat: Link,
    last_conn: u64,
    session: Option<Session>,
    keys: Keys,
    /// A pair announced by a fetch that has not succeeded yet.
    new_keys: Option<Keys>,
    pinned: Option<String>,
    sequence: u64,
    results: Results,
    asked: Outputs,
    pending: VecDeque<NodeMessage>,
    /// When the process of the current job is ended here.
    limit: Option<(JobId, Millis)>,
    replay: Replay,
    stopping: bool,
    exited: bool,
    bug: Option<Bug>,
    #[cfg(feature = "planted-bugs")]
    rows: std::collections::BTreeMap<String, u64>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("node", &self.me.node)
            .field("runner", &self.runner)
            .field("heartbeater", &self.heartbeater)
            .field("reconfigurer", &self.reconfigurer)
            .field("command", &self.command)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}

fn reconfigurer_row(state: reconfigurer::State, input: reconfigurer::Input) -> String {
    use reconfigurer::Input;
    let busy = |idle| if idle { "idle" } else { "busy" };
    match input {
        Input::Triggered(trigger) => format!("reconfigurer: {state:?} × {trigger:?}"),
        Input::PlanDue { idle } => format!("reconfigurer: {state:?} × PlanDue {}", busy(idle)),
        Input::LifetimeDue { idle } => format!("reconfigurer: {state:?} × LifetimeDue {}", busy(idle)),
        Input::Fetched { .. } => format!("reconfigurer: {state:?} × Fetched"),
        Input::BecameIdle | Input::Failed | Input::Proved => format!("reconfigurer: {state:?} × {input:?}"),
    }
}

impl Node {
    /// An agent that has just started: its first output asks for the configuration.
    pub fn new(settings: Settings, restored: Restored, mut random: Box<dyn Random>, now: Now) -> Node {
        let keys = Keys(Arc::new(CurveSecret::generate(&mut *random)));
        let mut runner = JobRunner::new();
        let mut results = Results::default();
        for result in restored.results {
            runner.remember_finished(result.job.clone());
            results.keep(result);
        }
        let mut node = Node {
            me: NodeIdentity {
                node: settings.node,
                client: settings.host,
                org: settings.org,
                incarnation: settings.incarnation,
            },
            client_key: settings.client_key,
            max_body: settings.max_body,
            whitelist: settings.whitelist,
            reload: None,
            random,
            now,
            outputs: VecDeque::new(),
            runner,
            heartbeater: Heartbeater::new(Millis(10_000), crate::node_config::OFFLINE_THRESHOLD),
            reconfigurer: Reconfigurer::new(),
            publisher: Publisher::new(),
            command: Link::new(backoff::LONGEST_WAIT),
            heartbeat: Link::new(LONGEST_HEARTBEAT_WAIT),
            last_conn: 0,
            session: None,
            keys,
            new_keys: None,
            pinned: restored.pinned,
            sequence: 0,
            results,
            asked: Outputs::default(),
            pending: VecDeque::new(),
            limit: None,
            replay: Replay::default(),
            stopping: false,
            exited: false,
            bug: None,
            #[cfg(feature = "planted-bugs")]
            rows: std::collections::BTreeMap::new(),
        };
        node.trigger(Trigger::Start);
        node.due();
        node
    }

    /// How often each row of a table was used since this was last asked, as `TABLE: STATE × INPUT`.
    #[cfg(feature = "planted-bugs")]
    pub fn take_rows(&mut self) -> std::collections::BTreeMap<String, u64> {
        std::mem::take(&mut self.rows)
    }

    /// Counts the rows of the tables that the simulation uses.
    #[cfg(feature = "planted-bugs")]
    fn hit(&mut self, row: impl FnOnce(&Node) -> String) {
        let row = row(self);
        *self.rows.entry(row).or_default() += 1;
    }

    #[cfg(not(feature = "planted-bugs"))]
    fn hit(&mut self, _row: impl FnOnce(&Node) -> String) {}

    /// Plants a defect for the simulation to find (decision 28).
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: Bug) {
        self.bug = Some(bug);
        self.runner.plant(bug);
    }

    /// Takes note of something that happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = Now { mono: now.mono.max(self.now.mono), wall: now.wall };
        if self.exited {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Config { body } => match self.take_config(&body) {
                Ok(()) => {}
                Err(error) => self.config_failed(error.message().to_owned()),
            },
            Input::ConfigFailed { why } => self.config_failed(why),
            Input::Connected { conn } => self.connected(conn),
            Input::Disconnected { conn, stage, why } => self.disconnected(conn, stage, &why),
            Input::Frames { conn, header, body } => {
                if self.command.is_current(conn) {
                    self.command_frames(&header, &body);
                } else if self.heartbeat.is_current(conn) {
                    self.heartbeat_frames(&header, &body);
                }
            }
            Input::Job(input) => self.job(input),
            Input::Reload(whitelist) => {
                self.reload = Some(whitelist);
                self.apply_reload();
            }
            Input::Published => self.publisher.published(self.now.mono),
            Input::PublishFailed { why, retry } => {
                self.log(LogLevel::Warn, None, format!("what this node is could not be published: {why}"));
                self.publisher.failed(self.now.mono, retry, &mut *self.random);
            }
            Input::OutputRead(piece) => self.output_read(piece),
            Input::OutputGrew { job, ended } => self.asked.grew(self.now.mono, &job, ended),
            Input::Drained { conn, messages } => {
                if self.command.is_current(conn) {
                    self.output(|asked, _, out| asked.drained(messages, out));
                }
            }
            Input::Reconfigure => self.trigger(Trigger::Operator),
            Input::Shutdown => {
                self.stopping = true;
                self.job(job_runner::Input::Stop);
            }
        }
        self.due();
        self.exit_when_idle();
    }

    /// The next thing to do, in order; `None` when there is nothing more for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Tick`].
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.exited {
            return None;
        }
        [
            self.heartbeater.next_deadline(),
            self.reconfigurer.next_deadline(),
            self.publisher.next_deadline(),
            self.asked.next_deadline(),
            self.command.next_deadline(),
            self.heartbeat.next_deadline(),
            self.limit.as_ref().map(|(_, at)| *at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The current job and what the node does with it.
    pub fn job_state(&self) -> (job_runner::State, Option<&JobId>) {
        (self.runner.state(), self.runner.job())
    }

    /// Whether the server has answered on the current command connection.
    pub fn is_online(&self) -> bool {
        self.heartbeater.state() == heartbeater::State::Online
    }

    /// The server's incarnation, once a configuration came.
    pub fn server_incarnation(&self) -> Option<&IncarnationId> {
        self.session.as_ref().map(|session| &session.config.incarnation)
    }

    // ---- deadlines

    fn due(&mut self) {
        let now = self.now.mono;
        if let Some((job, _)) = self.limit.take_if(|(_, at)| *at <= now) {
            self.log(LogLevel::Warn, Some(job.clone()), "run_timeout has passed");
            self.job(job_runner::Input::TimeUp { job });
        }
        while let Some(input) = self.heartbeater.pop_due(now) {
            self.beat(input);
        }
        if self.command.is_due(now) {
            let (tries, outage) = self.command.outage(now);
            // Never instead of a try: the server may come back while the request waits for an answer.
            self.connect(Port::Command);
            if outage >= OUT_OF_REACH && tries % 2 == 0 {
                self.trigger(Trigger::OutOfReach);
            }
        }
        while let Some(input) = self.reconfigurer.pop_due(now, self.runner.state() == job_runner::State::Idle)
        {
            self.reconfigure(input);
        }
        if self.publisher.pop_due(now) {
            self.outputs.push_back(Output::Publish);
        }
        self.output(Outputs::due);
        if self.heartbeat.is_due(now) {
            self.connect(Port::Heartbeat);
        }
    }

    fn trigger(&mut self, trigger: Trigger) {
        self.reconfigure(reconfigurer::Input::Triggered(trigger));
    }

    fn reconfigure(&mut self, input: reconfigurer::Input) {
        let mut actions = Vec::new();
        self.hit(|node| reconfigurer_row(node.reconfigurer.state(), input));
        self.reconfigurer.handle(self.now.mono, input, &mut *self.random, &mut actions);
        for reconfigurer::Action::Fetch { new_keys } in actions {
            if new_keys && self.new_keys.is_none() {
                self.new_keys = Some(Keys(Arc::new(CurveSecret::generate(&mut *self.random))));
            }
            let key = self.new_keys.as_ref().unwrap_or(&self.keys).0.public();
            self.outputs.push_back(Output::FetchConfig { key });
        }
    }

    fn beat(&mut self, input: heartbeater::Input) {
        let mut actions = Vec::new();
        self.hit(|node| format!("heartbeater: {:?} × {input:?}", node.heartbeater.state()));
        self.heartbeater.handle(self.now.mono, input, &mut actions);
        for action in actions {
            match action {
                heartbeater::Action::Beat => self.send_heartbeat(),
                heartbeater::Action::Proved => {
                    self.command.proved();
                    self.reconfigure(reconfigurer::Input::Proved);
                    self.log(LogLevel::Info, None, "the server answers");
                }
                heartbeater::Action::ChannelDead => {
                    self.log(
                        LogLevel::Warn,
                        None,
                        "no answer on the command port; the keys may not fit, fetching the configuration",
                    );
                    self.drop_link(Port::Command);
                    self.command.close(self.now.mono);
                    self.trigger(Trigger::ChannelDead);
                }
                heartbeater::Action::ServerSilent => {
                    self.log(LogLevel::Warn, None, "the server fell silent; connecting again");
                    for port in [Port::Command, Port::Heartbeat] {
                        self.drop_link(port);
                        self.retry(port);
                    }
                }
            }
        }
    }

    // ---- configuration

    fn take_config(&mut self, body: &[u8]) -> Result<()> {
        let config = NodeConfig::from_json(body)?;
        let Some(curve) = config.curve_public_key else {
            if self.pinned.is_none() {
                let text = "the server speaks Push Jobs 1.x without encryption, which this agent does not support; \
                            upgrade the server";
                self.log(LogLevel::Error, None, text);
                self.exit(1);
            }
            let text = "the server offers no encryption any more (no curve_public_key); not falling back";
            return Err(Error::new(ErrorCode::Malformed, text));
        };
        match &self.pinned {
            Some(pinned) if pinned.trim() != config.public_key.trim() => {
                let text = "the server's public_key is not the one seen first; if the server was given new keys, \
                            remove the agent's file server_public_key.pem and restart";
                return Err(Error::new(ErrorCode::InvalidKey, text));
            }
            Some(_) => {}
            None => {
                self.pinned = Some(config.public_key.clone());
                self.outputs.push_back(Output::PinServerKey { pem: config.public_key.clone() });
            }
        }
        let session = Session {
            key: config.session_key(&self.client_key)?,
            verifier: RsaVerifier::from_pem(&config.public_key)?,
            curve,
            keys: self.new_keys.take().unwrap_or_else(|| self.keys.clone()),
            config,
        };
        self.keys = session.keys.clone();
        self.heartbeater.configure(session.config.interval, session.config.offline_threshold);
        self.reconfigurer.configure(session.config.interval);
        self.publisher
            .configured(self.now.mono, session.config.caps.is_some_and(|caps| caps.has(Caps::NODES)));
        self.command.set_longest_wait(backoff::longest_wait(session.config.interval));
        let lifetime = Millis::from_secs(u64::from(session.config.lifetime));
        let same = self.session.as_ref().is_some_and(|old| {
            old.key == session.key
                && old.curve == session.curve
                && old.keys == session.keys
                && old.config.command_addr == session.config.command_addr
                && old.config.heartbeat_addr == session.config.heartbeat_addr
        });
        self.session = Some(session);
        self.reconfigure(reconfigurer::Input::Fetched { lifetime });
        if !(same && self.command.is_open()) {
            self.drop_link(Port::Command);
            self.connect(Port::Command);
        }
        if !(same && self.heartbeat.is_open()) {
            self.drop_link(Port::Heartbeat);
            self.connect(Port::Heartbeat);
        }
        Ok(())
    }

    fn config_failed(&mut self, why: String) {
        if self.exited {
            return;
        }
        self.log(LogLevel::Warn, None, format!("no usable configuration: {why}"));
        self.reconfigure(reconfigurer::Input::Failed);
        // The old keys may still do: try both ways until one works.
        if self.session.is_some() && self.command.state() == link::State::Closed {
            self.retry(Port::Command);
        }
    }

    // ---- connections

    fn link(&mut self, port: Port) -> &mut Link {
        match port {
            Port::Command => &mut self.command,
            Port::Heartbeat => &mut self.heartbeat,
        }
    }

    fn connect(&mut self, port: Port) {
        let Some(session) = &self.session else { return };
        let (addr, curve) = match port {
            Port::Command => {
                let curve = Curve { server: session.curve, keys: session.keys.clone() };
                (session.config.command_addr.clone(), Some(Box::new(curve)))
            }
            Port::Heartbeat => (session.config.heartbeat_addr.clone(), None),
        };
        self.last_conn += 1;
        let (conn, now) = (self.last_conn, self.now.mono);
        self.link(port).connecting(conn, now);
        self.outputs.push_back(Output::Connect { conn, port, addr, curve });
    }

    /// Closes what there is of a connection; its state is set by the caller.
    fn drop_link(&mut self, port: Port) {
        let Some(conn) = self.link(port).conn() else { return };
        self.outputs.push_back(Output::Close { conn });
        self.link_lost(port);
    }

    fn link_lost(&mut self, port: Port) {
        match port {
            Port::Command => {
                self.asked.disconnected();
                self.beat(heartbeater::Input::Disconnected);
                if planted(self.bug, Bug::JobLostWithConnection) {
                    self.runner = JobRunner::new();
                }
            }
            Port::Heartbeat => self.beat(heartbeater::Input::PortChanged),
        }
    }

    fn retry(&mut self, port: Port) {
        let now = self.now.mono;
        let link = match port {
            Port::Command => &mut self.command,
            Port::Heartbeat => &mut self.heartbeat,
        };
        link.retry(now, &mut *self.random);
    }

    fn connected(&mut self, conn: u64) {
        if self.command.is_current(conn) {
            self.command.opened();
            self.sequence = 0;
            self.beat(heartbeater::Input::Connected);
            while let Some(message) = self.pending.pop_front() {
                self.send(&message);
            }
        } else if self.heartbeat.is_current(conn) {
            self.heartbeat.opened();
            self.heartbeat.proved();
            self.beat(heartbeater::Input::PortChanged);
        }
    }

    fn disconnected(&mut self, conn: u64, stage: Stage, why: &str) {
        let port = if self.command.is_current(conn) {
            Port::Command
        } else if self.heartbeat.is_current(conn) {
            Port::Heartbeat
        } else {
            return;
        };
        self.link_lost(port);
        let (level, name) = match port {
            Port::Command => (LogLevel::Warn, "command port"),
            Port::Heartbeat => (LogLevel::Info, "heartbeat port"),
        };
        self.log(level, None, format!("{name}: {why}"));
        match (port, stage) {
            (Port::Command, Stage::Handshake) => {
                self.command.close(self.now.mono);
                self.trigger(Trigger::ChannelDead);
            }
            (Port::Command | Port::Heartbeat, _) => self.retry(port),
        }
    }

    // ---- reload and end

    fn apply_reload(&mut self) {
        if self.runner.state() != job_runner::State::Idle {
            return;
        }
        if let Some(whitelist) = self.reload.take() {
            self.whitelist = *whitelist;
            self.outputs.push_back(Output::Reloaded);
            self.publisher.changed(self.now.mono);
        }
    }

    fn exit_when_idle(&mut self) {
        if self.stopping && self.runner.state() == job_runner::State::Idle {
            self.exit(0);
        }
    }

    fn exit(&mut self, code: u8) {
        if self.exited {
            return;
        }
        self.exited = true;
        for port in [Port::Command, Port::Heartbeat] {
            if let Some(conn) = self.link(port).conn() {
                self.outputs.push_back(Output::Close { conn });
            }
        }
        self.outputs.push_back(Output::Exit { code });
    }

    fn log(&mut self, level: LogLevel, job: Option<JobId>, text: impl Into<String>) {
        self.outputs.push_back(Output::Log { level, job, text: text.into() });
    }
}
