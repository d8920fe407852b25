//! Owns the core's [`Node`]: waits for events, hands them in, carries out what comes back. It decides nothing.

use std::time::{Duration, SystemTime};

use pushy_core::ids::{IncarnationId, JobId};
use pushy_core::node::job_runner::Input as JobInput;
use pushy_core::node::{Input, JobSpec, Node, Output, Settings};
use pushy_core::node_document::NodeDocument;
use pushy_core::reason::{Reason, ReasonCode};
use pushy_core::time::{Millis, Now, Wall};
use rand_core::OsRng;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::channel::Channels;
use crate::config::{Config, WhitelistConfig};
use crate::fetch::Fetcher;
use crate::process::{self, Policy, Prepared, Running, Timer};
use crate::spool::Spools;
use crate::state::StateDir;
use crate::watcher::Watcher;
use crate::whitelist;

mod output;

/// What an operator can ask of a running agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Kill the job, close the connections, end.
    Stop,
    /// Read the configuration file again; it takes effect when there is no job (D-60).
    Reload,
    /// [`Control::Reload`], and fetch the configuration from the server.
    Reconfigure,
}

/// Something happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// An operator asks for something.
    Control(Control),
    /// The server's answer to a fetch.
    Fetched(Result<Vec<u8>, String>),
    /// What came of telling the server what this node is.
    Published(Input),
    /// Files of the whitelist may have changed.
    FilesChanged,
    /// One of the connections has news: `Connected`, `Disconnected` or `Frames`.
    Channel(Input),
    /// The checks of a job are done.
    Prepared(JobId, Result<Box<Prepared>, Reason>),
    /// The job's process, or what it prints, has news.
    Job(JobInput),
    /// What is kept of a job's output was read, or has grown.
    Output(Input),
    /// What is kept may have outlived its time.
    Expire,
}

/// One agent.
pub(crate) struct Driver {
    node: Node,
    config: Config,
    policy: Policy,
    /// Taken over when there is no job.
    next: Option<Next>,
    watcher: Option<Watcher>,
    /// Why the whitelist could not be read, as last said.
    trouble: Option<String>,
    state: StateDir,
    fetcher: Fetcher,
    channels: Channels,
    spools: Spools,
    /// [`Event::Expire`] will come.
    expires: bool,
    prepared: Option<(JobId, Box<Prepared>)>,
    running: Option<(JobId, Running)>,
    events: mpsc::UnboundedSender<Event>,
    started: Instant,
    exit: Option<u8>,
}

/// What comes into force together with a new whitelist.
struct Next {
    /// `None`: as it is.
    policy: Option<Policy>,
    document: Option<NodeDocument>,
}

/// Where a driver's events come from.
pub(crate) struct Sources {
    /// Fetches, checks and processes: a handful per job.
    events: mpsc::UnboundedReceiver<Event>,
    /// Connections; while the driver is busy, they stop reading.
    frames: mpsc::Receiver<Input>,
}

/// After a fetch, until everything it leads to is done.
const SETTLED: Duration = Duration::from_secs(5);

/// The connections' last words may take this long.
const FAREWELL: Duration = Duration::from_millis(1500);

impl Driver {
    /// Builds the machine and everything around it.
    ///
    /// # Errors
    /// When the key or the settings for TLS cannot be used.
    pub(crate) fn new(mut config: Config) -> pushy_core::Result<(Driver, Sources)> {
        let (state, restored) = StateDir::open(&config.state_dir, &config.chef_server_url);
        let spools = Spools::open(&config.state_dir);
        let fetcher = Fetcher::new(&config)?;
        let (events, events_in) = mpsc::unbounded_channel();
        let (channels, frames) = Channels::new();
        let settings = Settings {
            node: config.node_name.clone(),
            host: config.host.clone(),
            org: config.org.clone(),
            incarnation: IncarnationId::generate(&mut OsRng),
            client_key: config.client_key.clone(),
            max_body: config.max_body_size,
            whitelist: std::mem::take(&mut config.whitelist),
        };
        let started = Instant::now();
        let node = Node::new(settings, restored, Box::new(OsRng), now(started));
        let driver = Driver {
            node,
            policy: config.policy.clone(),
            next: None,
            watcher: None,
            trouble: None,
            config,
            state,
            fetcher,
            channels,
            spools,
            expires: false,
            prepared: None,
            running: None,
            events,
            started,
            exit: None,
        };
        Ok((driver, Sources { events: events_in, frames }))
    }

    /// Runs until the machine says to exit; gives the exit status.
    pub(crate) async fn run(
        mut self,
        mut control: mpsc::Receiver<Control>,
        Sources { mut events, mut frames }: Sources,
    ) -> u8 {
        self.carry_out();
        let watcher = Watcher::start(self.events.clone());
        watcher.watch(self.config.sources.folders.clone());
        self.watcher = Some(watcher);
        self.expire();
        let mut timer = Timer::new();
        let mut operated = true;
        while self.exit.is_none() {
            let deadline = self.node.next_deadline().map(|at| self.started + Duration::from_millis(at.0));
            let event = tokio::select! {
                biased;
                asked = control.recv(), if operated => {
                    // Without anybody left to ask, the agent ends.
                    operated = asked.is_some();
                    Some(Event::Control(asked.unwrap_or(Control::Stop)))
                }
                Some(event) = events.recv() => Some(event),
                Some(input) = frames.recv() => Some(Event::Channel(input)),
                () = timer.until(deadline) => None,
            };
            self.apply(event);
        }
        // Until the last connection has sent what was queued: each holds a sender.
        drop(self.channels);
        let _ = tokio::time::timeout(FAREWELL, async { while frames.recv().await.is_some() {} }).await;
        self.exit.unwrap_or(0)
    }

    /// Takes note of one event, or of a deadline, and does what follows.
    fn apply(&mut self, event: Option<Event>) {
        let input = match event {
            None => Input::Tick,
            Some(Event::Control(Control::Stop)) => Input::Shutdown,
            Some(Event::Control(Control::Reload)) => return self.reload(),
            Some(Event::Control(Control::Reconfigure)) => {
                self.reload();
                Input::Reconfigure
            }
            Some(Event::FilesChanged) => return self.files_changed(),
            Some(Event::Fetched(Ok(body))) => Input::Config { body },
            Some(Event::Fetched(Err(why))) => Input::ConfigFailed { why },
            Some(Event::Channel(input) | Event::Published(input) | Event::Output(input)) => input,
            Some(Event::Expire) => {
                self.expires = false;
                return self.expire();
            }
            Some(Event::Prepared(job, checked)) => {
                let verdict = checked.map(|prepared| self.prepared = Some((job.clone(), prepared)));
                Input::Job(JobInput::Prepared { job, verdict })
            }
            Some(Event::Job(input)) => {
                if let JobInput::Exited { .. } = &input {
                    self.running = None;
                }
                Input::Job(input)
            }
        };
        self.node.handle(now(self.started), input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.node.poll_output() {
            self.carry_out_one(output);
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::FetchConfig { key } => {
                let (fetch, events) = (self.fetcher.fetch(key), self.events.clone());
                tokio::spawn(async move {
                    let fetched = fetch.await;
                    let _ = events.send(Event::Fetched(fetched));
                    // When the connections it leads to are made, the agent idles.
                    tokio::time::sleep(SETTLED).await;
                    process::trim_memory();
                });
            }
            Output::Connect { conn, port, addr, curve } => {
                self.channels.connect(conn, port, &addr, curve.map(|curve| *curve));
            }
            Output::Close { conn } => self.channels.close(conn),
            Output::Send { conn, header, body } => self.channels.send(conn, header, body),
            Output::Prepare { job, spec } => self.prepare(job, spec),
            Output::Release { job } => self.prepared = self.prepared.take().filter(|(held, _)| *held != job),
            Output::Spawn { job, spec } => self.spawn(job, &spec),
            Output::Kill { job } => match &self.running {
                Some((running, process)) if *running == job => process.kill(),
                _ => tracing::error!(job = %job, "no process to end"),
            },
            Output::ReadOutput(wanted) => self.read_output(wanted),
            Output::SpoolResult(result) => self.state.spool(&result),
            Output::DropResult { job } => self.state.unspool(&job),
            Output::PinServerKey { pem } => {
                tracing::info!("pinned the server's public key in {}", self.state.pin_path().display());
                self.state.pin(&pem);
            }
            Output::Reloaded => {
                if let Some(Next { policy, document }) = self.next.take() {
                    if let Some(policy) = policy {
                        self.policy = policy;
                    }
                    self.config.document = document;
                }
                tracing::info!("the new configuration is in force");
            }
            Output::Publish => self.publish(),
            Output::Exit { code } => self.exit = Some(code),
            Output::Log { level, job, text } => crate::log::say(level, job.as_ref(), &text),
        }
    }

    fn publish(&self) {
        let events = self.events.clone();
        let Some(document) = self.config.document.clone() else {
            let _ = events.send(Event::Published(Input::Published));
            return;
        };
        let publish = self.fetcher.publish(document);
        tokio::spawn(async move {
            let _ = events.send(Event::Published(publish.await));
        });
    }

    fn prepare(&self, job: JobId, spec: Box<JobSpec>) {
        tracing::info!(job = %job, "asked to run {:?} (whitelist entry {})", spec.command, spec.allowed.entry);
        let (policy, events) = (self.policy.clone(), self.events.clone());
        tokio::task::spawn_blocking(move || {
            let checked = process::prepare(&spec, &policy).map(Box::new);
            let _ = events.send(Event::Prepared(job, checked));
        });
    }

    fn spawn(&mut self, job: JobId, spec: &JobSpec) {
        let spawned = match self.prepared.take() {
            Some((held, prepared)) if held == job => {
                let spool = self.spool(&job, spec);
                let (name, kept) = (&self.config.node_name, spool.clone());
                process::spawn(name, &job, spec, *prepared, &self.policy, spool, &self.events)
                    .inspect_err(|_| kept.iter().for_each(|spool| spool.finish()))
            }
            _ => Err(Reason::new(ReasonCode::StartFailed, "the job was not prepared")),
        };
        let input = match spawned {
            Ok(running) => {
                self.running = Some((job.clone(), running));
                JobInput::Started { job }
            }
            Err(why) => JobInput::StartFailed { job, why },
        };
        // Answered at once: the outputs of this answer follow those that are still queued.
        self.node.handle(now(self.started), Input::Job(input));
    }

    /// Reads the file again; what it says about the whitelist and about processes is taken over.
    fn reload(&mut self) {
        match self.config.reload() {
            Ok(mut config) => {
                config.log_notices();
                if config.node_name != self.config.node_name
                    || config.chef_server_url != self.config.chef_server_url
                {
                    tracing::warn!(
                        "node_name and chef_server_url change only when the agent is started again"
                    );
                }
                self.trouble = None;
                let whitelist = Box::new(std::mem::take(&mut config.whitelist));
                self.next =
                    Some(Next { policy: Some(config.policy.clone()), document: config.document.clone() });
                self.config.took_over(config);
                self.watch_files();
                self.node.handle(now(self.started), Input::Reload(whitelist));
                self.carry_out();
            }
            Err(error) => tracing::error!("configuration not reloaded: {error}"),
        }
    }

    /// Reads the whitelist again if its files say something else than before.
    fn files_changed(&mut self) {
        let read = match self.config.reload_whitelist() {
            Ok(read) => read,
            Err(error) => {
                let text = error.to_string();
                if self.trouble.as_ref() != Some(&text) {
                    tracing::error!("the whitelist stays as it is: {text}");
                }
                return self.trouble = Some(text);
            }
        };
        let WhitelistConfig {
            read: whitelist::Read { whitelist, published, notices, sources }, changed, ..
        } = read;
        let same = sources.digest == self.config.sources.digest;
        self.config.sources = sources;
        self.watch_files();
        if self.trouble.take().is_some() && same {
            return tracing::info!("the files of the whitelist can be read again and say what they said");
        }
        if same {
            return;
        }
        for notice in notices {
            tracing::warn!("{notice}");
        }
        if !changed.is_empty() {
            tracing::warn!(
                "only the whitelist is read again; start the agent again for what has changed besides: {}",
                changed.join(", ")
            );
        }
        tracing::info!(
            "the whitelist has changed: {} entries, {} drop-in files",
            whitelist.len(),
            self.config.sources.drop_ins
        );
        let next = self.next.take();
        let (policy, document) = match next {
            Some(next) => (next.policy, next.document),
            None => (None, self.config.document.clone()),
        };
        let document = document.map(|document| NodeDocument { whitelist: published, ..document });
        self.next = Some(Next { policy, document });
        self.node.handle(now(self.started), Input::Reload(Box::new(whitelist)));
        self.carry_out();
    }

    fn watch_files(&self) {
        if let Some(watcher) = &self.watcher {
            watcher.watch(self.config.sources.folders.clone());
        }
    }
}

fn now(started: Instant) -> Now {
    let mono = Millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    let wall = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)),
        // A clock before 1970: the skew check will say so.
        Err(_) => Wall(0),
    };
    Now { mono, wall }
}
