//! One simulated node: DEALER and SUB, heartbeats, instant answers.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushy_core::curve_key::CurveKey;
use pushy_core::ids::JobId;

use pushy_core::message::{Captured, FromServer, JobRef, JobState, NodeIdentity, NodeMessage, ServerMessage};
use pushy_core::time::Millis;
use pushy_core::wire::{SessionKey, hmac_header};
use pushy_core::zmtp::{CurveSecret, Event, Limits, Peer, Role};
use pushy_tests::http::wall;
use rand_core::{OsRng, RngCore};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, sleep_until, timeout};

/// What all nodes together have come to.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) open: Cell<usize>,
    pub(crate) subscribed: Cell<usize>,
    pub(crate) done: Cell<usize>,
    pub(crate) aborted: Cell<usize>,
}

/// A node with what its configuration said.
pub(crate) struct Member {
    pub(crate) identity: NodeIdentity,
    pub(crate) session: SessionKey,
    pub(crate) curve: Arc<CurveSecret>,
    pub(crate) server: CurveKey,
    pub(crate) command: SocketAddr,
    pub(crate) heartbeat: SocketAddr,
    pub(crate) interval: Duration,
    pub(crate) source: Option<IpAddr>,
    pub(crate) sequence: u64,
    pub(crate) job: Option<JobId>,
}

thread_local! {
    /// The nodes read one after the other, so one buffer does for all.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 65_536]);
}

/// One connection with its counter, which goes down when it ends.
struct Link<'a> {
    stream: TcpStream,
    peer: Peer,
    start: Instant,
    up: &'a Cell<usize>,
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        if self.peer.is_open() {
            self.up.set(self.up.get() - 1);
        }
    }
}

impl<'a> Link<'a> {
    async fn open(
        source: Option<IpAddr>,
        to: SocketAddr,
        role: Role,
        up: &'a Cell<usize>,
    ) -> io::Result<Link<'a>> {
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = timeout(Duration::from_secs(10), socket.connect(to)).await??;
        stream.set_nodelay(true)?;
        let limits = Limits { max_body: 4 << 20, ping: None };
        Ok(Link { stream, peer: Peer::new(role, limits, Millis(0), &mut OsRng), start: Instant::now(), up })
    }

    fn now(&self) -> Millis {
        Millis(self.start.elapsed().as_millis() as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.peer.transmit().is_empty() {
            match self.stream.try_write(self.peer.transmit()) {
                Ok(count) => self.peer.sent(count),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads what is there; messages go into `bodies`.
    fn read(&mut self, bodies: &mut Vec<Vec<u8>>) -> io::Result<()> {
        BUFFER.with_borrow_mut(|buffer| {
            let count = match self.stream.try_read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            let (now, mut bytes) = (self.now(), &buffer[..count]);
            let was_open = self.peer.is_open();
            loop {
                match self.peer.receive(now, &mut bytes) {
                    Ok(None) => return self.flush(),
                    Ok(Some(Event::Message { body, .. })) => bodies.push(body),
                    Ok(Some(Event::Opened)) => {
                        self.up.set(self.up.get() + 1);
                    }
                    Ok(Some(Event::Authenticate { .. })) => {}
                    Err(refusal) => {
                        // The peer is no longer open, so that dropping would not count it.
                        if was_open {
                            self.up.set(self.up.get() - 1);
                        }
                        return Err(io::Error::other(refusal));
                    }
                }
            }
        })
    }

    async fn writable(&self) -> io::Result<()> {
        if self.peer.transmit().is_empty() {
            std::future::pending().await
        } else {
            self.stream.writable().await
        }
    }
}

fn random(below: Duration) -> Duration {
    below.mul_f64(f64::from(OsRng.next_u32()) / f64::from(u32::MAX))
}

impl Member {
    /// Lives for ever, as our agent does: back-off with full jitter, 2 s doubling to 10 s (decision 26).
    pub(crate) async fn live(mut self, counters: Rc<Counters>, starting: Rc<Semaphore>) {
        let mut tries = 0;
        let mut first = starting.acquire().await.ok();
        loop {
            let opened = self.session(&counters, &mut first).await;
            first = None;
            tries = if opened { 0 } else { (tries + 1).min(3) };
            sleep(random(Duration::from_secs((2u64 << tries).min(10)))).await;
        }
    }

    /// One life of both connections; whether they ever stood.
    async fn session(&mut self, counters: &Counters, first: &mut Option<SemaphorePermit<'_>>) -> bool {
        let mut opened = false;
        let _ = self.talk(counters, first, &mut opened).await;
        opened
    }

    async fn talk(
        &mut self,
        counters: &Counters,
        first: &mut Option<SemaphorePermit<'_>>,
        opened: &mut bool,
    ) -> io::Result<()> {
        let role = Role::Dealer { secret: Arc::clone(&self.curve), server: self.server };
        let mut command = Link::open(self.source, self.command, role, &counters.open).await?;
        let mut heartbeat =
            Link::open(self.source, self.heartbeat, Role::Subscriber, &counters.subscribed).await?;
        command.flush()?;
        heartbeat.flush()?;
        let mut next = command.start + Duration::from_secs(10);
        let mut bodies = Vec::new();
        loop {
            tokio::select! {
                ready = command.stream.readable() => { ready?; command.read(&mut bodies)? }
                ready = heartbeat.stream.readable() => { ready?; heartbeat.read(&mut Vec::new())? }
                ready = command.writable() => { ready?; command.flush()? }
                () = sleep_until(next.into()) => {
                    if !command.peer.is_open() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    self.beat(&mut command)?;
                    next += self.interval;
                }
            }
            if command.peer.is_open() && !std::mem::replace(opened, true) {
                *first = None;
                self.beat(&mut command)?;
                next = Instant::now() + random(self.interval);
            }
            for body in std::mem::take(&mut bodies) {
                self.answer(&body, &mut command, counters);
            }
            command.flush()?;
        }
    }

    fn beat(&mut self, command: &mut Link<'_>) -> io::Result<()> {
        let state = if self.job.is_some() { JobState::Committed } else { JobState::Idle };
        let job = self.job.clone().map_or(JobRef::None, JobRef::Id);
        self.say(command, &NodeMessage::Heartbeat { state: Some(state), job, caps: None });
        command.flush()
    }

    fn say(&mut self, command: &mut Link<'_>, message: &NodeMessage) {
        self.sequence += 1;
        let body = message.encode(&self.identity, self.sequence, wall());
        // Only an open connection is answered, so this cannot fail.
        let _ = command.peer.send(&hmac_header(&self.session.0, &body), &body);
    }

    fn answer(&mut self, body: &[u8], command: &mut Link<'_>, counters: &Counters) {
        let Ok(from) = FromServer::decode(body) else { return };
        match from.message {
            ServerMessage::Commit(commit) => {
                let job = JobRef::Id(commit.job.clone());
                self.job = Some(commit.job);
                self.say(command, &NodeMessage::AckCommit { job });
            }
            ServerMessage::Run { job } => {
                self.job = None;
                let job = JobRef::Id(job);
                self.say(command, &NodeMessage::AckRun { job: job.clone() });
                self.say(command, &NodeMessage::Succeeded { job, output: Captured::default() });
                counters.done.set(counters.done.get() + 1);
            }
            ServerMessage::Abort => {
                let job = self.job.take().map_or(JobRef::None, JobRef::Id);
                self.say(command, &NodeMessage::Aborted { job, reason: None });
                counters.aborted.set(counters.aborted.get() + 1);
            }
            _ => {}
        }
    }
}
