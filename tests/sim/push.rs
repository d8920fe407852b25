//! The push server's host: ours, the original's behaviour, or a rogue's.

use std::collections::BTreeMap;

use pushy_core::ids::{JobId, NodeName, OrgId, OrgName};
use pushy_core::job::JobRequest;
use pushy_core::server::{CurveKey, PlantedBug, RequestId, Ticket};

use crate::net::{LinkId, Port};
use crate::original_server::OriginalServer;
use crate::rogue_server::RogueServer;
use crate::server_host::{ServerHost, Wish};
use crate::store::Store;

/// One host.
pub enum Push {
    /// Ours.
    Ours(Box<ServerHost>),
    /// The original's behaviour.
    Original(Box<OriginalServer>),
    /// One that breaks the protocol.
    Rogue(Box<RogueServer>),
}

macro_rules! either {
    ($self:expr, $host:ident => $call:expr) => {
        match $self {
            Push::Ours($host) => $call,
            Push::Original($host) => $call,
            Push::Rogue($host) => $call,
        }
    };
}

impl Push {
    /// The rows of the machine's tables used since the last call.
    pub fn take_rows(&mut self) -> BTreeMap<String, u64> {
        match self {
            Push::Ours(host) => host.take_rows(),
            Push::Original(_) | Push::Rogue(_) => BTreeMap::new(),
        }
    }

    /// Whether it is an original.
    pub fn is_original(&self) -> bool {
        matches!(self, Push::Original(_))
    }

    /// Whether it is our own: only then does the ledger answer for what it sends.
    pub fn is_ours(&self) -> bool {
        matches!(self, Push::Ours(_))
    }

    /// Whether it is a rogue.
    pub fn is_rogue(&self) -> bool {
        matches!(self, Push::Rogue(_))
    }

    /// A rogue behaves from now on.
    pub fn reform(&mut self, now: u64) {
        if let Push::Rogue(host) = self {
            host.reform(now);
        }
    }

    /// Plants a defect in our server; takes effect at its next start.
    pub fn plant(&mut self, bug: PlantedBug) {
        if let Push::Ours(host) = self {
            host.bug = Some(bug);
        }
    }

    /// The organization everything happens in.
    pub fn org(&self) -> &(OrgId, OrgName) {
        either!(self, host => &host.org)
    }

    /// What is kept.
    pub fn store(&mut self) -> &mut Store {
        either!(self, host => &mut host.store)
    }

    /// The same, to look at.
    pub fn kept(&self) -> &Store {
        either!(self, host => &host.store)
    }

    /// Sets its wall clock, in seconds off the true time.
    pub fn set_clock(&mut self, offset: i64) {
        either!(self, host => host.clock_offset = offset);
    }

    /// Whether the process runs.
    pub fn is_up(&self) -> bool {
        either!(self, host => host.is_up())
    }

    /// The process starts.
    pub fn start(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        match self {
            Push::Ours(host) => host.start(now, wishes),
            Push::Original(host) => host.start(now, wishes),
            Push::Rogue(host) => host.start(now),
        }
    }

    /// The process dies.
    pub fn crash(&mut self, kept: usize) -> Result<Vec<LinkId>, String> {
        match self {
            Push::Ours(host) => host.crash(kept),
            Push::Original(host) => Ok(host.crash()),
            Push::Rogue(host) => Ok(host.crash()),
        }
    }

    /// A client connected.
    pub fn accept(&mut self, now: u64, link: LinkId, port: Port, wishes: &mut Vec<Wish>) {
        either!(self, host => host.accept(now, link, port, wishes));
    }

    /// Bytes arrived.
    pub fn receive(&mut self, now: u64, link: LinkId, bytes: &[u8], wishes: &mut Vec<Wish>) {
        either!(self, host => host.receive(now, link, bytes, wishes));
    }

    /// A stream is gone.
    pub fn gone(&mut self, now: u64, link: LinkId, wishes: &mut Vec<Wish>) {
        match self {
            Push::Ours(host) => host.gone(now, link, wishes),
            Push::Original(host) => host.gone(link),
            Push::Rogue(host) => host.gone(link),
        }
    }

    /// A node asks for its configuration.
    pub fn fetch(
        &mut self,
        now: u64,
        node: NodeName,
        key: CurveKey,
        public: &str,
        w: &mut Vec<Wish>,
    ) -> RequestId {
        match self {
            Push::Ours(host) => host.fetch(now, node, key, public.to_owned(), w),
            Push::Original(host) => host.fetch(now, &node, key, public, w),
            Push::Rogue(host) => host.fetch(&node, key, public, w),
        }
    }

    /// An operator asks for a job.
    pub fn start_job(&mut self, now: u64, job: JobRequest, wishes: &mut Vec<Wish>) {
        match self {
            Push::Ours(host) => {
                host.start_job(now, job, wishes);
            }
            Push::Original(host) => host.start_job(now, job, wishes),
            Push::Rogue(host) => host.start_job(now, &job),
        }
    }

    /// An operator gives a job up; only ours knows such a thing.
    pub fn cancel_job(&mut self, now: u64, job: JobId, nodes: Vec<NodeName>, wishes: &mut Vec<Wish>) {
        match self {
            Push::Ours(host) => host.cancel_job(now, job, nodes, wishes),
            Push::Original(_) | Push::Rogue(_) => {}
        }
    }

    /// The store answers its oldest write.
    pub fn store_answers(
        &mut self,
        now: u64,
        wishes: &mut Vec<Wish>,
    ) -> Result<Option<(Ticket, bool)>, String> {
        match self {
            Push::Ours(host) => host.store_answers(now, wishes),
            Push::Original(_) | Push::Rogue(_) => Ok(None),
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        either!(self, host => host.tick(now, wishes));
    }

    /// When [`Push::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        either!(self, host => host.next_deadline())
    }

    /// Nodes that would take a job.
    pub fn available(&self) -> Vec<NodeName> {
        either!(self, host => host.available())
    }

    /// What it logged.
    pub fn log(&self) -> &[String] {
        match self {
            Push::Ours(host) => &host.log,
            Push::Original(_) | Push::Rogue(_) => &[],
        }
    }
}
