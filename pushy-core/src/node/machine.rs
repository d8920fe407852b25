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
use crate::wire::{self, Channel, Limits, MAX_SERVER_BODY, RsaVerifier, SessionKey, WireError};
use crate::zmtp::CurveSecret;

use super::heartbeater::{self, Heartbeater};
use super::job_runner::{self, JobRunner};
use super::link::{self, Link};
use super::reconfigurer::{self, Reconfigurer, Trigger};
use super::replay::Replay;
use super::results::{KeptResult, Results};
use super::{Bug, Commands, Curve, Input, Keys, Output, Port, Restored, Settings, Stage, capture, planted};

/// The longest wait before the heartbeat port is tried again: without it the node works all the same (D-59).
const LONGEST_HEARTBEAT_WAIT: Millis = Millis(60_000);

/// After this long out of reach every other try asks for the configuration instead: the server may have moved.
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
    commands: Box<dyn Commands>,
    reload: Option<Box<dyn Commands>>,
    random: Box<dyn Random>,
    now: Now,
    outputs: VecDeque<Output>,
    runner: JobRunner,
    heartbeater: Heartbeater,
    reconfigurer: Reconfigurer,
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
    pending: VecDeque<NodeMessage>,
    replay: Replay,
    stopping: bool,
    exited: bool,
    bug: Option<Bug>,
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
            commands: settings.commands,
            reload: None,
            random,
            now,
            outputs: VecDeque::new(),
            runner,
            heartbeater: Heartbeater::new(Millis(10_000), crate::node_config::OFFLINE_THRESHOLD),
            reconfigurer: Reconfigurer::new(),
            command: Link::new(reconfigurer::LONGEST_WAIT),
            heartbeat: Link::new(LONGEST_HEARTBEAT_WAIT),
            last_conn: 0,
            session: None,
            keys,
            new_keys: None,
            pinned: restored.pinned,
            sequence: 0,
            results,
            pending: VecDeque::new(),
            replay: Replay::default(),
            stopping: false,
            exited: false,
            bug: None,
        };
        node.trigger(Trigger::Start);
        node.due();
        node
    }

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
            Input::Reload(commands) => {
                self.reload = Some(commands);
                self.apply_reload();
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
            self.command.next_deadline(),
            self.heartbeat.next_deadline(),
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
        while let Some(input) = self.heartbeater.pop_due(now) {
            self.beat(input);
        }
        while let Some(input) = self.reconfigurer.pop_due(now, self.runner.state() == job_runner::State::Idle)
        {
            self.reconfigure(input);
        }
        if self.command.is_due(now) {
            let (tries, outage) = self.command.outage(now);
            if outage >= OUT_OF_REACH && tries % 2 == 0 {
                self.command.close(now);
                self.trigger(Trigger::OutOfReach);
            } else {
                self.connect(Port::Command);
            }
        }
        if self.heartbeat.is_due(now) {
            self.connect(Port::Heartbeat);
        }
    }

    fn trigger(&mut self, trigger: Trigger) {
        self.reconfigure(reconfigurer::Input::Triggered(trigger));
    }

    fn reconfigure(&mut self, input: reconfigurer::Input) {
        let mut actions = Vec::new();
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

    // ---- messages

    fn open(
        &self,
        channel: Channel,
        header: &[u8],
        body: &[u8],
    ) -> Option<std::result::Result<ServerMessage, WireError>> {
        let session = self.session.as_ref()?;
        let max_skew = if planted(self.bug, Bug::OldMessagesBelieved) {
            u32::MAX
        } else {
            session.config.max_message_skew
        };
        let limits = Limits { max_body: MAX_SERVER_BODY, max_skew };
        let opened = wire::open_from_server(
            &session.key,
            &session.verifier,
            channel,
            limits,
            self.now.wall,
            header,
            body,
        );
        Some(opened.map(|opened| opened.message))
    }

    fn heartbeat_frames(&mut self, header: &[u8], body: &[u8]) {
        let incarnation = match self.open(Channel::Heartbeat, header, body) {
            Some(Ok(ServerMessage::Heartbeat { incarnation, .. })) => incarnation,
            Some(Ok(_)) | None => return,
            Some(Err(error)) => {
                return self.log(LogLevel::Warn, None, format!("dropped a server heartbeat: {error}"));
            }
        };
        if !self.replay.is_new(body) {
            return self.log(LogLevel::Debug, None, "dropped a repeated server heartbeat");
        }
        self.beat(heartbeater::Input::Heard);
        if incarnation.as_ref() != self.server_incarnation() {
            if self.reconfigurer.state() == reconfigurer::State::Resting {
                self.log(
                    LogLevel::Info,
                    None,
                    "the server's incarnation changed; fetching the configuration",
                );
            }
            self.trigger(Trigger::ServerRestarted);
        }
    }

    fn command_frames(&mut self, header: &[u8], body: &[u8]) {
        let message = match self.open(Channel::Command, header, body) {
            None => return,
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                if matches!(error, WireError::Skew(_)) {
                    // Signed with our key: the channel works, only a clock is wrong.
                    self.beat(heartbeater::Input::Answered);
                }
                return self.log(
                    LogLevel::Warn,
                    None,
                    format!("dropped a message on the command port: {error}"),
                );
            }
        };
        self.beat(heartbeater::Input::Answered);
        self.beat(heartbeater::Input::Authenticated);
        let acts = !matches!(message, ServerMessage::Ack | ServerMessage::ResultAck { .. });
        if acts && !planted(self.bug, Bug::OldMessagesBelieved) && !self.replay.is_new(body) {
            return self.log(LogLevel::Warn, None, format!("dropped a repeated {}", message.type_name()));
        }
        match message {
            ServerMessage::Commit(commit) => {
                let busy = self.runner.state() != job_runner::State::Idle;
                let spec = if busy && !planted(self.bug, Bug::OptionsBeforeBusyCheck) {
                    None
                } else {
                    self.commands.look_up(&commit.command, &commit.options)
                };
                self.job(job_runner::Input::Commit { job: commit.job, spec: spec.map(Box::new) });
            }
            ServerMessage::BadCommit { job } => {
                self.log(LogLevel::Warn, job.id().cloned(), "refused a commit that cannot be read");
                self.send(&NodeMessage::NackCommit { job });
            }
            ServerMessage::Run { job } => self.job(job_runner::Input::Run { job }),
            ServerMessage::BadRun => self.send(&NodeMessage::NackRun { job: JobRef::None }),
            ServerMessage::Abort => self.job(job_runner::Input::Abort),
            ServerMessage::Ack => {}
            ServerMessage::ResultAck { job } => {
                if self.results.acknowledged(&job) {
                    self.outputs.push_back(Output::DropResult { job });
                }
            }
            ServerMessage::Heartbeat { .. } | ServerMessage::Unknown { .. } => {
                self.log(
                    LogLevel::Debug,
                    None,
                    format!("ignored a message of type {:?}", message.type_name()),
                );
            }
        }
    }

    fn send_heartbeat(&mut self) {
        let (state, job) = self.runner.announced();
        let message =
            NodeMessage::Heartbeat { state: Some(state), job: job.cloned().into(), caps: Some(Caps::OURS) };
        self.send(&message);
        if self.server_keeps_results() && !planted(self.bug, Bug::ResultSentOnce) {
            for message in self.results.messages() {
                self.send(&message);
            }
        }
    }

    fn server_keeps_results(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.config.caps.is_some_and(|caps| caps.results))
    }

    /// Sends if there is a connection. Votes and acknowledgements to one of our servers are not kept: the next
    /// heartbeat says the same (decision 3).
    fn send(&mut self, message: &NodeMessage) {
        let conn = match (self.command.is_open(), self.command.conn(), &self.session) {
            (true, Some(conn), Some(_)) => conn,
            _ => {
                if !matches!(message, NodeMessage::Heartbeat { .. }) && !self.server_keeps_results() {
                    if self.pending.len() >= PENDING {
                        self.pending.pop_front();
                    }
                    self.pending.push_back(message.clone());
                }
                return;
            }
        };
        self.sequence += 1;
        let body = message.encode(&self.me, self.sequence, self.now.wall);
        let Some(session) = &self.session else { return };
        let header = wire::hmac_header(&session.key.0, &body);
        self.outputs.push_back(Output::Send { conn, header, body });
    }

    // ---- the job

    fn job(&mut self, input: job_runner::Input) {
        let was_idle = self.runner.state() == job_runner::State::Idle;
        let mut actions = Vec::new();
        self.runner.handle(input, &mut actions);
        for action in actions {
            self.act(action);
        }
        if !was_idle && self.runner.state() == job_runner::State::Idle {
            self.reconfigure(reconfigurer::Input::BecameIdle);
            self.apply_reload();
        }
    }

    fn act(&mut self, action: job_runner::Action) {
        use job_runner::Action;
        match action {
            Action::AckCommit(job) => {
                self.log(LogLevel::Info, Some(job.clone()), "committed");
                self.send(&NodeMessage::AckCommit { job: job.into() });
            }
            Action::NackCommit(job, why) => {
                self.log(LogLevel::Warn, Some(job.clone()), format!("refused: {why}"));
                self.send(&NodeMessage::NackCommit { job: job.into() });
            }
            Action::AckRun(job) => {
                self.log(LogLevel::Info, Some(job.clone()), "running");
                self.send(&NodeMessage::AckRun { job: job.into() });
            }
            Action::NackRun(job) => {
                self.log(LogLevel::Warn, Some(job.clone()), "refused to run a job that is not committed");
                self.send(&NodeMessage::NackRun { job: job.into() });
            }
            Action::Aborted(job) => {
                self.log(LogLevel::Info, job.clone(), "aborted");
                self.send(&NodeMessage::Aborted { job: job.into() });
            }
            Action::Finished { job, succeeded, output, how } => self.finished(job, succeeded, output, how),
            Action::ResendResult(job) => {
                if let Some(message) = self.results.message_of(&job) {
                    self.send(&message);
                }
            }
            Action::Prepare(job, spec) => self.outputs.push_back(Output::Prepare { job, spec }),
            Action::Release(job) => self.outputs.push_back(Output::Release { job }),
            Action::Spawn(job, spec) => self.outputs.push_back(Output::Spawn { job, spec }),
            Action::Kill(job) => {
                self.log(LogLevel::Info, Some(job.clone()), "ending the command");
                self.outputs.push_back(Output::Kill { job });
            }
            Action::Ignored(why) => self.log(LogLevel::Debug, None, why),
        }
    }

    fn finished(
        &mut self,
        job: JobId,
        succeeded: bool,
        output: Option<(capture::Captured, capture::Captured)>,
        how: String,
    ) {
        let text = if succeeded { "succeeded".to_owned() } else { format!("failed: {how}") };
        self.log(LogLevel::Info, Some(job.clone()), text);
        let output = output.map(|(stdout, stderr)| capture::fit(&stdout, &stderr, self.output_room(&job)));
        let (stdout, stderr) = output.unzip();
        let result = KeptResult { job, succeeded, stdout, stderr };
        self.send(&result.message());
        if self.server_keeps_results() {
            self.outputs.push_back(Output::SpoolResult(result.clone()));
            if let Some(lost) = self.results.keep(result) {
                self.log(
                    LogLevel::Error,
                    Some(lost.job.clone()),
                    "gave up a result that the server never stored",
                );
                self.outputs.push_back(Output::DropResult { job: lost.job });
            }
        }
    }

    /// How many bytes of JSON text a result's output may take (D-48).
    fn output_room(&self, job: &JobId) -> usize {
        let advertised = self.session.as_ref().and_then(|session| session.config.max_body_size);
        let limit = self.max_body.min(advertised.unwrap_or(usize::MAX));
        let empty = NodeMessage::Succeeded {
            job: job.clone().into(),
            output: Captured { stdout: Some(String::new()), stderr: Some(String::new()) },
        };
        // The widest sequence number, so that a repetition fits as well.
        limit.saturating_sub(empty.encode(&self.me, u64::MAX, self.now.wall).len())
    }

    // ---- reload and end

    fn apply_reload(&mut self) {
        if self.runner.state() != job_runner::State::Idle {
            return;
        }
        if let Some(commands) = self.reload.take() {
            self.commands = commands;
            self.outputs.push_back(Output::Reloaded);
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
