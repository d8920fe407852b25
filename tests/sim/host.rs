//! A node's host, with our agent, an original client or a rogue on it.

use std::collections::BTreeMap;

use pushy_core::auth::SigningKey;
use pushy_core::ids::{JobId, NodeName, OrgName};
use pushy_core::node::Bug;

use crate::net::LinkId;
use crate::node_host::{JobEvent, NodeHost, Wish};
use crate::original_node::OriginalNode;
use crate::rogue_node::RogueNode;
use crate::twist::Tempo;

/// One host.
pub enum Host {
    /// Our agent.
    Ours(Box<NodeHost>),
    /// The original's behaviour.
    Original(Box<OriginalNode>),
    /// One that breaks the protocol.
    Rogue(Box<RogueNode>),
}

/// Calls the same method on whichever it is.
macro_rules! either {
    ($self:expr, $host:ident => $call:expr) => {
        match $self {
            Host::Ours($host) => $call,
            Host::Original($host) => $call,
            Host::Rogue($host) => $call,
        }
    };
}

impl Host {
    /// A host with our agent.
    pub fn ours(name: NodeName, org: OrgName, key: SigningKey, seed: u64) -> Host {
        Host::Ours(Box::new(NodeHost::new(name, org, key, seed)))
    }

    /// A host with an original client.
    pub fn original(name: NodeName, org: OrgName, key: SigningKey, seed: u64) -> Host {
        Host::Original(Box::new(OriginalNode::new(name, org, key, seed)))
    }

    /// A host with a rogue.
    pub fn rogue(name: NodeName, org: OrgName, key: SigningKey, seed: u64) -> Host {
        Host::Rogue(Box::new(RogueNode::new(name, org, key, seed)))
    }

    /// How long things take here; with `watched` the host reports what our agent hears and says.
    pub fn set_tempo(&mut self, tempo: Tempo, watched: bool) {
        if let Host::Ours(host) = self {
            (host.tempo, host.watched) = (tempo, watched);
        }
    }

    /// A rogue overhears the id of a job.
    pub fn overhear(&mut self, job: &JobId) {
        if let Host::Rogue(host) = self {
            host.overhear(job);
        }
    }

    /// Things take their usual time again, and a rogue behaves from now on.
    pub fn reform(&mut self, now: u64, tempo: Tempo) {
        match self {
            Host::Ours(host) => host.tempo = tempo,
            Host::Original(_) => {}
            Host::Rogue(host) => host.reform(now),
        }
    }

    /// Whether our agent keeps the result of this job for the server.
    pub fn keeps(&self, job: &JobId) -> bool {
        matches!(self, Host::Ours(host) if host.keeps(job))
    }

    /// Plants a defect in our agent.
    pub fn plant(&mut self, bug: Bug) {
        if let Host::Ours(host) = self {
            host.bug = Some(bug);
        }
    }

    /// The rows of the machine's table used since the last call.
    pub fn take_rows(&mut self) -> BTreeMap<String, u64> {
        match self {
            Host::Ours(host) => host.take_rows(),
            Host::Original(_) | Host::Rogue(_) => BTreeMap::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &NodeName {
        either!(self, host => &host.name)
    }

    /// Which life of the process this is.
    pub fn life(&self) -> u64 {
        either!(self, host => host.life)
    }

    /// Whether the process runs.
    pub fn is_up(&self) -> bool {
        either!(self, host => host.is_up())
    }

    /// Whether nothing can bring it back: a weakness of the original that a server cannot make good, or a rogue that has left
    /// for good.
    pub fn is_stuck(&self) -> bool {
        match self {
            Host::Ours(_) => false,
            Host::Original(host) => host.is_stuck(),
            Host::Rogue(host) => host.is_stuck(),
        }
    }

    /// Whether it keeps what it cannot send and sends it over its next connection.
    pub fn queues(&self) -> bool {
        matches!(self, Host::Original(_))
    }

    /// A connection takes nothing more until it is cut.
    pub fn shut_window(&mut self, link: LinkId) {
        if let Host::Original(host) = self {
            host.shut_window(link);
        }
    }

    /// The job that an original waits for or runs: one of ours may be asked about it again.
    pub fn held(&self) -> Option<&JobId> {
        match self {
            Host::Ours(_) | Host::Rogue(_) => None,
            Host::Original(host) => host.held(),
        }
    }

    /// How far its wall clock is off the true time, in seconds.
    pub fn clock_offset(&self) -> i64 {
        either!(self, host => host.clock_offset)
    }

    /// Sets its wall clock, in seconds off the true time.
    pub fn set_clock(&mut self, offset: i64) {
        either!(self, host => host.clock_offset = offset);
    }

    /// The process starts.
    pub fn start(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        either!(self, host => host.start(now, wishes));
    }

    /// The process dies.
    pub fn crash(&mut self) -> Vec<LinkId> {
        either!(self, host => host.crash())
    }

    /// The answer to a fetch.
    pub fn config(&mut self, now: u64, body: Option<String>, wishes: &mut Vec<Wish>) {
        match self {
            Host::Ours(host) => host.config(now, body, wishes),
            Host::Original(host) => host.config(now, body, wishes),
            Host::Rogue(host) => host.config(now, body),
        }
    }

    /// A stream exists.
    pub fn connected(&mut self, now: u64, conn: u64, link: LinkId, wishes: &mut Vec<Wish>) {
        either!(self, host => host.connected(now, conn, link, wishes));
    }

    /// A stream cannot be had.
    pub fn refused(&mut self, now: u64, conn: u64, wishes: &mut Vec<Wish>) {
        match self {
            Host::Ours(host) => host.refused(now, conn, wishes),
            Host::Original(host) => host.refused(now, conn),
            Host::Rogue(host) => host.refused(now, conn),
        }
    }

    /// Bytes arrived.
    pub fn receive(&mut self, now: u64, link: LinkId, bytes: &[u8], wishes: &mut Vec<Wish>) {
        either!(self, host => host.receive(now, link, bytes, wishes));
    }

    /// A stream is gone.
    pub fn gone(&mut self, now: u64, link: LinkId, wishes: &mut Vec<Wish>) {
        match self {
            Host::Ours(host) => host.gone(now, link, wishes),
            Host::Original(host) => host.gone(now, link),
            Host::Rogue(host) => host.gone(now, link),
        }
    }

    /// The operating system reports.
    pub fn job_event(&mut self, now: u64, event: JobEvent, wishes: &mut Vec<Wish>) {
        match self {
            Host::Ours(host) => host.job_event(now, event, wishes),
            Host::Original(host) => host.job_event(now, event, wishes),
            // It starts nothing.
            Host::Rogue(_) => {}
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64, wishes: &mut Vec<Wish>) {
        either!(self, host => host.tick(now, wishes));
    }

    /// When [`Host::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        either!(self, host => host.next_deadline())
    }

    /// Sends two foreign frames over the node's own command connection. Answers whether there was one.
    pub fn inject(&mut self, header: &[u8], body: &[u8], wishes: &mut Vec<Wish>) -> bool {
        match self {
            Host::Ours(host) => host.inject(header, body, wishes),
            Host::Original(_) | Host::Rogue(_) => false,
        }
    }
}
