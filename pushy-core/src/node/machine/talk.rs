//! What comes over the two connections, what goes out, and what the job asks for.

use super::{
    Bug, Caps, Captured, Channel, JobRef, KeptResult, Limits, LogLevel, MAX_SERVER_BODY, Millis, Node,
    NodeMessage, Output, Outputs, PENDING, ServerMessage, Trigger, WireError, capture, heartbeater,
    job_runner, outputs, planted, reconfigurer, wire,
};
use crate::ids::JobId;
use crate::job::JobOptions;
use crate::message::Commit;
use crate::node::JobSpec;
use crate::output::{Chunk, Wanted};
use crate::reason::{Reason, ReasonCode};
use crate::whitelist::Verdict;

impl Node {
    fn open(
        &self,
        channel: Channel,
        header: &[u8],
        body: &[u8],
    ) -> Option<std::result::Result<ServerMessage, WireError>> {
        let session = self.session.as_ref()?;
        let limits = Limits { max_body: MAX_SERVER_BODY, max_skew: session.config.max_message_skew };
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

    pub(super) fn heartbeat_frames(&mut self, header: &[u8], body: &[u8]) {
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

    pub(super) fn command_frames(&mut self, header: &[u8], body: &[u8]) {
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
        // Reading output twice does no harm, and would push what must not act twice out of the memory.
        let harmless = matches!(
            message,
            ServerMessage::Ack | ServerMessage::ResultAck { .. } | ServerMessage::OutputRequest(_)
        );
        if !harmless && !self.replay.is_new(body) {
            return self.log(LogLevel::Warn, None, format!("dropped a repeated {}", message.type_name()));
        }
        match message {
            ServerMessage::Commit(commit) => {
                let Commit { job, command, options, run_timeout, .. } = *commit;
                let busy = self.runner.state() != job_runner::State::Idle;
                let spec = if busy && !planted(self.bug, Bug::OptionsBeforeBusyCheck) {
                    Err(Reason::new(ReasonCode::Busy, "busy with another job"))
                } else {
                    self.look_up(command, options, run_timeout)
                };
                self.job(job_runner::Input::Commit { job, spec });
            }
            ServerMessage::BadCommit { job } => {
                self.log(LogLevel::Warn, job.id().cloned(), "refused a commit that cannot be read");
                let why = "an option of the commit has the wrong type";
                self.send(&NodeMessage::NackCommit {
                    job,
                    reason: Some(Reason::new(ReasonCode::BadRequest, why)),
                });
            }
            ServerMessage::Run { job } => self.job(job_runner::Input::Run { job }),
            ServerMessage::BadRun => {
                let reason = Some(Reason::new(ReasonCode::BadRequest, "the run names no job"));
                self.send(&NodeMessage::NackRun { job: JobRef::None, reason });
            }
            ServerMessage::Abort => self.job(job_runner::Input::Abort),
            ServerMessage::Cancel { job } => self.job(job_runner::Input::Cancel { job }),
            ServerMessage::Ack => {}
            ServerMessage::ResultAck { job } => {
                if self.results.acknowledged(&job) {
                    self.outputs.push_back(Output::DropResult { job });
                }
            }
            ServerMessage::OutputRequest(wanted) => self.output(|asked, now, out| {
                asked.asked(now, wanted, out);
            }),
            ServerMessage::Heartbeat { .. } | ServerMessage::Unknown { .. } => {
                self.log(
                    LogLevel::Debug,
                    None,
                    format!("ignored a message of type {:?}", message.type_name()),
                );
            }
        }
    }

    fn look_up(
        &self,
        command: String,
        options: JobOptions,
        run_timeout: Option<u32>,
    ) -> Result<Box<JobSpec>, Reason> {
        match self.whitelist.decide(&command, options.parameters.as_deref().unwrap_or(&[])) {
            Verdict::Allowed(allowed) => Ok(Box::new(JobSpec { command, allowed, options, run_timeout })),
            Verdict::NotListed => {
                Err(Reason::new(ReasonCode::NotWhitelisted, "the command is not on the whitelist"))
            }
            Verdict::GaveUp { entry } => {
                let text = format!(
                    "the pattern of whitelist entry {entry} takes too long on this command; rewrite it"
                );
                Err(Reason::new(ReasonCode::GaveUp, text))
            }
            Verdict::BadParameters { entry, why } => {
                Err(Reason::new(ReasonCode::BadParameters, format!("whitelist entry {entry}: {why}")))
            }
        }
    }

    pub(super) fn send_heartbeat(&mut self) {
        // Results come first: a heartbeat of a new process tells the server that the old one is gone, and whatever that
        // one has not reported by then counts as lost.
        if self.server_keeps_results() && !planted(self.bug, Bug::ResultSentOnce) {
            for message in self.results.messages() {
                self.send(&message);
            }
        }
        let (state, job) = self.runner.announced();
        let message = NodeMessage::Heartbeat {
            state: Some(state),
            job: job.cloned().into(),
            caps: Some(Caps::OF_NODE),
        };
        self.send(&message);
    }

    fn server_takes(&self, what: Caps) -> bool {
        self.session.as_ref().is_some_and(|session| session.config.caps.is_some_and(|caps| caps.has(what)))
    }

    fn server_keeps_results(&self) -> bool {
        self.server_takes(Caps::RESULTS)
    }

    /// Sends if there is a connection. Votes and acknowledgements to one of our servers are not kept: the next
    /// heartbeat says the same (decision 3).
    pub(super) fn send(&mut self, message: &NodeMessage) {
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
        let bare;
        let message = if message.reason().is_some() && !self.server_takes(Caps::REASONS) {
            bare = message.clone().without_reason();
            &bare
        } else {
            message
        };
        let body = message.encode(&self.me, self.sequence, self.now.wall);
        let Some(session) = &self.session else { return };
        let header = wire::hmac_header(&session.key.0, &body);
        self.outputs.push_back(Output::Send { conn, header, body });
    }

    // ---- its output

    pub(super) fn output(&mut self, does: impl FnOnce(&mut Outputs, Millis, &mut Vec<outputs::Action>)) {
        let mut actions = Vec::new();
        does(&mut self.asked, self.now.mono, &mut actions);
        for action in actions {
            match action {
                outputs::Action::Read(mut wanted) => {
                    wanted.max = wanted.max.min(self.chunk_room(&wanted));
                    self.outputs.push_back(Output::ReadOutput(wanted));
                }
                outputs::Action::Send(chunk) => {
                    let counts = chunk.data.len() >= outputs::COUNTED;
                    self.send(&NodeMessage::OutputChunk(chunk));
                    if counts {
                        self.asked.sent(self.sequence);
                    }
                }
            }
        }
    }

    pub(super) fn output_read(&mut self, piece: outputs::Piece) {
        let runs = self.runner.job().cloned();
        self.output(|asked, now, out| asked.read(now, piece, runs.as_ref(), out));
    }

    /// How many bytes of output fit into one message.
    fn chunk_room(&self, wanted: &Wanted) -> u32 {
        let advertised = self.session.as_ref().and_then(|session| session.config.max_body_size);
        let limit = self.max_body.min(advertised.unwrap_or(usize::MAX));
        let widest = Chunk {
            job: wanted.job.clone(),
            channel: wanted.channel,
            offset: u64::MAX,
            total: u64::MAX,
            done: false,
            lost: u64::MAX,
            missing: true,
            data: Vec::new(),
        };
        let empty =
            NodeMessage::OutputChunk(Box::new(widest)).encode(&self.me, u64::MAX, self.now.wall).len();
        u32::try_from(limit.saturating_sub(empty) / 4 * 3).unwrap_or(u32::MAX).max(1)
    }

    // ---- the job

    pub(super) fn job(&mut self, input: job_runner::Input) {
        let was_idle = self.runner.state() == job_runner::State::Idle;
        let mut actions = Vec::new();
        self.hit(|node| {
            let input = format!("{input:?}");
            let name = input.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            format!("runner: {:?} × {name}", node.runner.state())
        });
        self.runner.handle(input, &mut actions);
        for action in actions {
            self.act(action);
        }
        if self.runner.state() != job_runner::State::Running {
            self.limit = None;
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
                self.log(LogLevel::Warn, Some(job.clone()), format!("refused ({}): {why}", why.code()));
                self.send(&NodeMessage::NackCommit { job: job.into(), reason: Some(why) });
            }
            Action::AckRun(job) => {
                self.log(LogLevel::Info, Some(job.clone()), "running");
                self.send(&NodeMessage::AckRun { job: job.into() });
            }
            Action::NackRun(job, why) => {
                self.log(LogLevel::Warn, Some(job.clone()), format!("refused to run: {why}"));
                self.send(&NodeMessage::NackRun { job: job.into(), reason: Some(why) });
            }
            Action::Aborted(job, why) => {
                let text = why.as_ref().map_or_else(|| "aborted".to_owned(), |why| format!("aborted: {why}"));
                self.log(LogLevel::Info, job.clone(), text);
                self.send(&NodeMessage::Aborted { job: job.into(), reason: why });
            }
            Action::Limit(job, after) => {
                if !planted(self.bug, Bug::TimeoutIgnored) {
                    self.limit = Some((job, self.now.mono + after));
                }
            }
            Action::Finished { job, failure, output } => self.finished(job, failure, output),
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
        failure: Option<Reason>,
        output: Option<(capture::Captured, capture::Captured)>,
    ) {
        let text = match &failure {
            None => "succeeded".to_owned(),
            Some(why) => format!("failed ({}): {why}", why.code()),
        };
        self.log(LogLevel::Info, Some(job.clone()), text);
        let room = self.output_room(&job, failure.as_ref());
        let output = output.map(|(stdout, stderr)| capture::fit(&stdout, &stderr, room));
        let (stdout, stderr) = output.unzip();
        let result = KeptResult { job, succeeded: failure.is_none(), stdout, stderr, reason: failure };
        self.send(&result.message());
        if self.server_keeps_results() {
            if !planted(self.bug, Bug::ResultDroppedOnRestart) {
                self.outputs.push_back(Output::SpoolResult(result.clone()));
            }
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
    fn output_room(&self, job: &JobId, reason: Option<&Reason>) -> usize {
        let advertised = self.session.as_ref().and_then(|session| session.config.max_body_size);
        let limit = self.max_body.min(advertised.unwrap_or(usize::MAX));
        // `succeeded` is the longer word of the two.
        let empty = NodeMessage::Succeeded {
            job: job.clone().into(),
            output: Captured { stdout: Some(String::new()), stderr: Some(String::new()) },
        };
        let reason = reason.map_or(0, |reason| r#","reason":"#.len() + reason.to_json().len());
        // The widest sequence number, so that a repetition fits as well.
        limit.saturating_sub(empty.encode(&self.me, u64::MAX, self.now.wall).len() + reason)
    }
}
