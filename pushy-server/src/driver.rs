//! Drives the machine: one task owns it, everything that happens becomes one [`Event`], outputs are carried out in
//! order. Looks inside no message and keeps nothing that the machine knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pushy_core::ids::{JobId, NodeName, NodeRef, OrgId, OrgName};
use pushy_core::job::JobRequest;
use pushy_core::output::Wanted;
use pushy_core::server::{CancelAnswer, CurveKey, Input, Output, OutputRead, RequestId, Server};
use pushy_core::{Error, ErrorCode, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use crate::broker::{Broker, BrokerEvent};
use crate::clock;
use crate::feeds::Hub;
use crate::ops::Ops;
use crate::store::{Saved, Store};

mod log;
mod look;

use log::log;
pub use look::Look;

/// So many events are taken before timers and waiting commits get their turn.
const BATCH: usize = 256;

/// A node's configuration is asked for by somebody authenticated and authorized.
#[derive(Debug)]
pub struct ConfigRequest {
    /// The node of the URL.
    pub node: NodeRef,
    /// Its organization's name.
    pub org_name: OrgName,
    /// The CURVE key the requester will shake hands with.
    pub key: CurveKey,
    /// PEM of the requester's key.
    pub public_key: String,
    /// Whether the requester is the node itself.
    pub is_node: bool,
    /// What the requester's program calls itself; may be empty.
    pub client: String,
    /// The network address it comes from; empty: unknown.
    pub address: String,
}

type Reply<T> = oneshot::Sender<T>;

/// What happens to the server, apart from its nodes.
#[derive(Debug)]
pub enum Event {
    /// `GET config/NODE`.
    Config(ConfigRequest, Reply<Result<String>>),
    /// `POST jobs`.
    StartJob {
        /// The organization.
        org: OrgId,
        /// Who asks.
        requester: String,
        /// What for.
        job: Box<JobRequest>,
        /// Where the answer goes.
        reply: Reply<Result<JobId>>,
    },
    /// `POST jobs/ID/cancel`.
    CancelJob {
        /// The organization.
        org: OrgId,
        /// Which job.
        job: JobId,
        /// Which of its nodes; none: all.
        nodes: Vec<NodeName>,
        /// Who asks.
        by: String,
        /// Where the answer goes.
        reply: Reply<CancelAnswer>,
    },
    /// Somebody wants a piece of a node's output.
    ReadOutput(NodeRef, Wanted, Reply<OutputRead>),
    /// Somebody wants to know something of the machine or the connections.
    Look(Look),
    /// A node was removed or has a new key.
    EndBindings(NodeRef, String),
    /// The store answers.
    Saved(Saved),
}

/// How the rest of the program speaks with the driver.
#[derive(Debug, Clone)]
pub struct Handle {
    events: mpsc::UnboundedSender<Event>,
    /// As [`Server::views`], without asking the driver.
    views: Arc<AtomicU64>,
}

impl Handle {
    /// A handle, and the events for [`Driver::run`].
    pub fn new() -> (Handle, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Handle { events, views: Arc::default() }, receiver)
    }

    /// Hands an event in; in vain when the server is stopping.
    pub fn post(&self, event: Event) {
        // Without a driver there is nothing left that the event could matter to.
        let _ = self.events.send(event);
    }

    async fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> Event) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.post(event(reply));
        answer.await.map_err(|_| Error::new(ErrorCode::InvalidState, "the server is stopping"))
    }

    /// A node's configuration document.
    ///
    /// # Errors
    /// When the store fails, the requester's key cannot be used, or the server is stopping.
    pub async fn config(&self, request: ConfigRequest) -> Result<String> {
        self.ask(|reply| Event::Config(request, reply)).await?
    }

    /// Starts a job; answers when it is stored.
    ///
    /// # Errors
    /// When it could not be stored, or the server is stopping.
    pub async fn start_job(&self, org: OrgId, requester: String, job: JobRequest) -> Result<JobId> {
        self.ask(|reply| Event::StartJob { org, requester, job: Box::new(job), reply }).await?
    }

    /// Gives a job up, or some of its nodes; answers when that is stored.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn cancel_job(
        &self,
        org: OrgId,
        job: JobId,
        nodes: Vec<NodeName>,
        by: String,
    ) -> Result<CancelAnswer> {
        self.ask(|reply| Event::CancelJob { org, job, nodes, by, reply }).await
    }

    /// Asks a node for a piece of output, at once. No answer comes when the server is stopping.
    pub fn read_output(&self, node: NodeRef, wanted: Wanted) -> oneshot::Receiver<OutputRead> {
        let (reply, answer) = oneshot::channel();
        self.post(Event::ReadOutput(node, wanted, reply));
        answer
    }

    /// Looks at the machine and the connections.
    ///
    /// # Errors
    /// When the server is stopping.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Server, &Broker) -> T + Send + 'static,
    ) -> Result<T> {
        // Whoever asked may have gone away meanwhile: the answer goes into the void then.
        self.ask(|reply| Event::Look(Look(Box::new(move |s, b| drop(reply.send(look(s, b))))))).await
    }

    /// Differs from what it was before whenever an answer of [`Handle::node_states`] may.
    pub fn views(&self) -> u64 {
        self.views.load(Ordering::Acquire)
    }
}

/// Who waits for an answer of the machine.
enum Waiting {
    Config(Reply<Result<String>>),
    Job(Reply<Result<JobId>>),
    Cancel(Reply<CancelAnswer>),
    Output(Reply<OutputRead>),
}

/// Owner of the machine.
pub struct Driver {
    server: Server,
    broker: Broker,
    store: Arc<dyn Store>,
    feeds: Arc<Hub>,
    views: Arc<AtomicU64>,
    ops: Arc<Ops>,
    waiting: HashMap<RequestId, Waiting>,
    requests: u64,
}

impl Driver {
    /// Puts the parts together; nothing happens before [`Driver::run`].
    pub fn new(
        server: Server,
        broker: Broker,
        store: Arc<dyn Store>,
        feeds: Arc<Hub>,
        handle: &Handle,
        ops: Arc<Ops>,
    ) -> Driver {
        let views = Arc::clone(&handle.views);
        Driver { server, broker, store, feeds, views, ops, waiting: HashMap::new(), requests: 0 }
    }

    /// Runs until `stop` is ready or the broker has ended.
    pub async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut nodes: mpsc::Receiver<BrokerEvent>,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut timer: std::pin::Pin<Box<Sleep>> = Box::pin(tokio::time::sleep_until(Instant::now()));
        let mut from_nodes = Vec::with_capacity(BATCH);
        let mut others = Vec::with_capacity(BATCH);
        loop {
            // What a whole batch of events leaves to store is stored together.
            self.tick_if_due();
            self.drain();
            self.send_bulk();
            self.broker.set_busy(self.server.has_jobs());
            let deadline = self.server.next_deadline().map(|at| Instant::from_std(clock::instant(at)));
            if let Some(at) = deadline
                && timer.deadline() != at
            {
                timer.as_mut().reset(at);
            }
            tokio::select! {
                () = &mut stop => break,
                count = nodes.recv_many(&mut from_nodes, BATCH) => {
                    if count == 0 {
                        tracing::error!("the broker has ended");
                        break;
                    }
                    for event in from_nodes.drain(..) {
                        match event {
                            BrokerEvent::Input(input) => {
                                self.ops.came(&input);
                                self.handle(input);
                            }
                            BrokerEvent::Room => {}
                        }
                    }
                }
                _ = events.recv_many(&mut others, BATCH) => {
                    for event in others.drain(..) {
                        self.apply(event);
                    }
                }
                () = &mut timer, if deadline.is_some() => {}
            }
        }
        // The broker must not wait for somebody to take its events while it is told to stop.
        drop(nodes);
        self.broker.stop();
    }

    fn tick_if_due(&mut self) {
        // A tick may set a deadline that has passed already, but not for ever: the machine moves on.
        let now = clock::now();
        if self.server.next_deadline().is_some_and(|at| at <= now.mono) {
            self.handle(Input::Tick);
        }
    }

    /// Commits of large jobs, as far as the network takes them.
    fn send_bulk(&mut self) {
        while self.broker.has_room() {
            match self.server.poll_bulk(clock::now()) {
                Some(output) => self.carry_out(output),
                None => break,
            }
        }
        self.drain();
    }

    fn handle(&mut self, input: Input) {
        self.server.handle(clock::now(), input);
        // Before anything of it is told.
        self.views.store(self.server.views(), Ordering::Release);
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            self.carry_out(output);
        }
    }

    fn expect(&mut self, waiting: Waiting) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.waiting.insert(request, waiting);
        request
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Config(ask, reply) => {
                let request = self.expect(Waiting::Config(reply));
                let ConfigRequest { node, org_name, key, public_key, is_node, client, address } = ask;
                let at = node.clone();
                self.handle(Input::FetchConfig { request, node, org_name, key, public_key, is_node });
                if is_node {
                    self.broker.expect();
                    self.handle(Input::Described { node: at, client, address });
                }
            }
            Event::StartJob { org, requester, job, reply } => {
                let request = self.expect(Waiting::Job(reply));
                self.handle(Input::StartJob { request, org, requester, job });
            }
            Event::CancelJob { org, job, nodes, by, reply } => {
                let request = self.expect(Waiting::Cancel(reply));
                self.handle(Input::CancelJob { request, org, job, nodes, by });
            }
            Event::ReadOutput(node, wanted, reply) => {
                let request = self.expect(Waiting::Output(reply));
                self.handle(Input::ReadOutput { request, node, wanted });
            }
            Event::Saved(saved) => {
                self.ops.saved(&saved);
                match saved {
                    Saved::Kept(ticket) => self.handle(Input::Persisted { ticket }),
                    Saved::Failed(ticket, error) => {
                        tracing::error!("cannot store: {error}");
                        self.handle(Input::PersistFailed { ticket });
                    }
                }
            }
            Event::EndBindings(node, why) => self.handle(Input::EndBindings { node, why }),
            Event::Look(Look(look)) => look(&self.server, &self.broker),
        }
    }

    fn carry_out(&mut self, output: Output) {
        self.ops.goes(&output);
        match output {
            Output::Accept { conn } => self.broker.accept(conn),
            Output::Refuse { conn, .. } => self.broker.refuse(conn),
            Output::Send { conn, header, body } => self.broker.send(conn, header, body),
            Output::Publish { header, body } => self.broker.publish(header, body),
            Output::Close { conn } => self.broker.close(conn),
            Output::Persist { ticket, records } => self.store.save(ticket, records),
            Output::Config { request, body } => self.answer_config(request, Ok(body)),
            Output::ConfigFailed { request, error } => self.answer_config(request, Err(error)),
            Output::JobStarted { request, job } => self.answer_job(request, Ok(job)),
            Output::JobRefused { request, error } => self.answer_job(request, Err(error)),
            Output::CancelAnswer { request, answer } => {
                if let Some(Waiting::Cancel(reply)) = self.waiting.remove(&request) {
                    // As with a job.
                    let _ = reply.send(answer);
                }
            }
            Output::Event { org, job, at, event, frame } => {
                tracing::debug!(job = job.as_str(), event = event.name(), "event");
                self.feeds.publish(org, job, at, &event, frame);
            }
            Output::OutputRead { request, read } => {
                if let Some(Waiting::Output(reply)) = self.waiting.remove(&request) {
                    // The listener may have hung up.
                    let _ = reply.send(read);
                }
            }
            Output::Log(entry) => log(&entry),
        }
    }

    fn answer_config(&mut self, request: RequestId, result: Result<String>) {
        if let Some(Waiting::Config(reply)) = self.waiting.remove(&request) {
            // The node may have hung up.
            let _ = reply.send(result);
        }
    }

    fn answer_job(&mut self, request: RequestId, result: Result<JobId>) {
        if let Some(Waiting::Job(reply)) = self.waiting.remove(&request) {
            // The requester may have hung up; the job runs all the same.
            let _ = reply.send(result);
        }
    }
}
