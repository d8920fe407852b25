//! What an operation does to the world.

use pushy_core::ids::NodeName;
use pushy_core::job::{JobOptions, JobRequest};

use crate::ledger::Broken;
use crate::net::{LinkId, NetEvent, Port, Side};
use crate::node_host::COMMANDS;
use crate::ops::Op;
use crate::world::{Happening, World};

impl World {
    pub(crate) fn operate(&mut self, op: Op) -> Result<(), Broken> {
        let now = self.now;
        if !matches!(op, Op::Tempt(..)) {
            self.note(|| format!("operation {op:?}"));
        }
        let fault = op.fault();
        let done = match op {
            Op::StartJob { command, nodes, quorum, run_timeout } => {
                let request = self.request(command, nodes, quorum, run_timeout);
                self.with_server(|server, wishes| {
                    if server.is_up() {
                        server.start_job(now, request, wishes);
                    }
                })?;
                true
            }
            Op::Tempt(job, tries) => {
                let ready = self.server.available().contains(self.hosts[0].name());
                if ready || tries == 0 {
                    return self.operate(*job);
                }
                self.later(100, Happening::Op(Op::Tempt(job, tries - 1)));
                false
            }
            Op::Cancel { which, nodes } => {
                let open = self.server.kept().stored.jobs.values().filter(|job| !job.status.is_terminal());
                let open: Vec<_> = open.filter(|job| self.ledger.started_jobs.contains(&job.id)).collect();
                let Some(job) = open.get(which as usize % open.len().max(1)) else { return Ok(()) };
                let named = job.nodes.iter().enumerate().filter(|(i, _)| nodes >> (i % 60) & 1 == 1);
                let named: Vec<NodeName> = named.map(|(_, (name, _))| name.clone()).collect();
                let job = job.id.clone();
                self.note(|| format!("job {job} is cancelled on {named:?}"));
                self.with_server(|server, wishes| server.cancel_job(now, job, named, wishes))?;
                true
            }
            Op::Cut(which) => match self.some_link(which) {
                Some(link) => self.sever(link).map(|()| true)?,
                None => false,
            },
            Op::Stall(which, wait) => match self.some_link(which) {
                Some(link) => {
                    let to = if which % 2 == 0 { Side::Client } else { Side::Server };
                    self.net.stall(link, to, now + wait);
                    true
                }
                None => false,
            },
            Op::HalfOpen(which, wait) => match self.some_link(which) {
                Some(link) => {
                    self.net.half_open(link);
                    self.later(wait, Happening::Sever(link));
                    true
                }
                None => false,
            },
            Op::ShutWindow(which, wait) => {
                // Only an original keeps what it cannot send: its streams first.
                let links = self.net.alive_to(Port::Command);
                let queues =
                    |link: &LinkId| self.net.link(*link).is_some_and(|l| self.hosts[l.host].queues());
                let keeping: Vec<LinkId> = links.iter().copied().filter(queues).collect();
                let among = if keeping.is_empty() { &links } else { &keeping };
                match among.get(which as usize % among.len().max(1)).copied() {
                    Some(link) => {
                        self.net.stall(link, Side::Server, now + wait);
                        if let Some(host) = self.net.link(link).map(|l| l.host) {
                            self.hosts[host].shut_window(link);
                        }
                        self.later(wait, Happening::Sever(link));
                        true
                    }
                    None => false,
                }
            }
            Op::Refuse(wait) => {
                self.refused_until = now + wait;
                false
            }
            Op::Outage(wait) => {
                self.refused_until = now + wait;
                for link in self.net.alive() {
                    self.sever(link)?;
                }
                false
            }
            Op::Slow(times, wait) => {
                self.net.slowness = times;
                self.slow_until = now + wait;
                true
            }
            Op::ServerCrash(wait) => self.crash_server(wait)?,
            Op::NodeCrash(which, wait) => {
                let i = which as usize % self.hosts.len();
                // Every other time just after its next process has ended, when the result is on its way.
                if which % 2 == 0 {
                    self.crash_after_exit = Some((i, wait));
                    false
                } else {
                    self.crash_node(i, wait)
                }
            }
            Op::StoreFails(wait) => {
                self.server.store().failing_until = now + wait;
                true
            }
            Op::StoreSlow(wait, extra) => {
                self.server.store().slow = (now + wait, extra);
                true
            }
            Op::ClockStep(which, offset) => {
                let i = which as usize % (self.hosts.len() + 1);
                match i {
                    0 => {
                        self.server.set_clock(offset);
                        self.ledger.server_clocks.push(offset);
                    }
                    i => self.hosts[i - 1].set_clock(offset),
                }
                let wait = 2_000 + self.below(10_000);
                self.later(wait, Happening::ClockBack(i));
                true
            }
            Op::Replay(which) => self.replay(which)?,
        };
        if let (Some(fault), true) = (fault, done) {
            self.faults[fault] += 1;
        }
        Ok(())
    }

    fn request(&mut self, command: usize, nodes: u64, quorum: u64, run_timeout: u32) -> JobRequest {
        let mut names: Vec<NodeName> = self
            .hosts
            .iter()
            .enumerate()
            .filter(|(i, _)| nodes >> (i % 60) & 1 == 1)
            .map(|(_, h)| h.name().clone())
            .collect();
        if names.is_empty() || nodes >> 63 == 1 {
            names.push(NodeName::new("nobody").expect("a valid name"));
        }
        let quorum = (names.len() as u64 * quorum).div_ceil(100) as u32;
        let mark = format!("{}", self.below(u64::MAX));
        JobRequest {
            command: COMMANDS[command].to_owned(),
            nodes: names,
            run_timeout: Some(run_timeout),
            quorum: Some(quorum),
            options: JobOptions { env: Some(vec![("MARK".to_owned(), mark)]), ..JobOptions::default() },
        }
    }

    fn some_link(&self, which: u64) -> Option<LinkId> {
        let links = self.net.alive();
        (!links.is_empty()).then(|| links[which as usize % links.len()])
    }

    fn crash_server(&mut self, wait: u64) -> Result<bool, Broken> {
        if !self.server.is_up() {
            return Ok(false);
        }
        let kept = self.below(self.server.kept().pending.len() as u64 + 1) as usize;
        self.count_rows();
        let links = self.server.crash(kept)?;
        self.server_life += 1;
        self.ledger.stored(self.now, &mut self.server.store().stored)?;
        for (_, (i, life)) in std::mem::take(&mut self.fetches) {
            self.later(20, Happening::ConfigArrives(i, life, None));
        }
        self.lose(links, Side::Server);
        self.later(wait, Happening::ServerUp);
        Ok(true)
    }

    pub(crate) fn crash_node(&mut self, i: usize, wait: u64) -> bool {
        if !self.hosts[i].is_up() {
            return false;
        }
        self.count_rows();
        let links = self.hosts[i].crash();
        self.ledger.died(self.hosts[i].name());
        self.duties.died(self.hosts[i].name());
        self.lose(links, Side::Client);
        self.later(wait, Happening::NodeUp(i));
        true
    }

    /// One end of these streams died; now and then the other end is not told for long (a power cut).
    fn lose(&mut self, links: Vec<LinkId>, by: Side) {
        for link in links {
            if by == Side::Server {
                self.ledger.left(self.now, link);
            }
            let (_, latency) = self.net.close(link, by);
            let wait = if self.below(4) == 0 { 5_000 + self.below(25_000) } else { latency };
            self.later(wait, Happening::Net(NetEvent::Gone { link, at: by.other() }));
        }
    }

    /// An attacker sends a recorded frame: another node's over the last host's connection, or, having stolen a node's
    /// keys, one of the node's own again.
    fn replay(&mut self, which: u64) -> Result<bool, Broken> {
        if self.recorded.is_empty() {
            return Ok(false);
        }
        let (owner, header, body) = self.recorded[which as usize % self.recorded.len()].clone();
        let sender = if which % 2 == 0 { self.hosts.len() - 1 } else { owner };
        let mut done = false;
        self.with_host(sender, |host, wishes| done = host.inject(&header, &body, wishes))?;
        Ok(done)
    }
}
