//! The broker's thread: waits for sockets, commands and deadlines, and serves them in turn.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use pushy_core::server::{ConnId, Input};
use pushy_core::time::Millis;
use pushy_core::zmtp::{Event, Limits, Peer, Refusal, Role, encode_plain};
use rand_core::OsRng;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::conn::{COMMANDS, Conn, HEARTBEATS, Stage};
use super::refusals::{Addresses, Refusals, Who, kind};
use super::{BULK_ROOM, BrokerConfig, BrokerEvent, Command, MAX_QUEUED_PER_CONNECTION, Shared};

/// Slots 0 and 1 are the listeners, 2 the waker.
const FIRST_SLOT: usize = 3;
const WAKER: Token = Token(2);
/// Connections accepted, or told a publication, before the others get their turn.
const AT_ONCE: usize = 256;
/// Reads of one connection before the others get their turn.
const READS: usize = 8;
/// For so long after the driver has spoken or a node was on its way in, everything is passed on at once.
const LIVELY: Millis = Millis(1000);
/// Else what arrives is gathered for so long: heartbeats of many nodes cost a few wake-ups of two threads, not one
/// each. A command ends the wait.
const GATHER: Duration = Duration::from_millis(25);
/// And for so long while no job is under way: half of what idle nodes cost are wake-ups. Whoever fetches a
/// configuration is expected, so that only a node that comes back without one can find the door shut for so long.
const GATHER_IDLE: Duration = Duration::from_millis(100);
/// After the system refused a descriptor.
const ACCEPT_PAUSE: Millis = Millis(500);

struct Listener {
    socket: TcpListener,
    /// The kernel may have connections for us.
    ready: bool,
    /// Not before this.
    after: Millis,
    half_open: usize,
    all: usize,
}

pub(super) struct Hub {
    config: BrokerConfig,
    poll: Poll,
    listeners: [Listener; 2],
    shared: Arc<Shared>,
    events: mpsc::Sender<BrokerEvent>,
    start: Instant,
    now: Millis,
    lively_until: Millis,
    /// By slot, which is also the token.
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<usize>,
    /// Never used twice: serial number above, slot in the lower 24 bits.
    serial: u64,
    addresses: Addresses,
    refusals: Refusals,
    /// One entry for each connection, and those of ended ones until they are due.
    timers: BinaryHeap<Reverse<(Millis, u64)>>,
    held: VecDeque<ConnId>,
    /// Have more to read than their turn allowed.
    again: Vec<usize>,
    /// Have something to write.
    dirty: Vec<usize>,
    /// Publications on their way, with the slot to go on from.
    publishing: VecDeque<(Vec<u8>, usize)>,
    buffer: Vec<u8>,
}

fn slot_of(conn: ConnId) -> usize {
    (conn.0 & 0xff_ffff) as usize
}

impl Hub {
    pub(super) fn new(
        config: BrokerConfig,
        listeners: [std::net::TcpListener; 2],
        shared: Arc<Shared>,
        events: mpsc::Sender<BrokerEvent>,
    ) -> io::Result<(Hub, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let listen = |listener: std::net::TcpListener, port: usize| {
            listener.set_nonblocking(true)?;
            let mut socket = TcpListener::from_std(listener);
            poll.registry().register(&mut socket, Token(port), Interest::READABLE)?;
            Ok::<_, io::Error>(Listener { socket, ready: true, after: Millis(0), half_open: 0, all: 0 })
        };
        let [commands, heartbeats] = listeners;
        let listeners = [listen(commands, COMMANDS)?, listen(heartbeats, HEARTBEATS)?];
        let mut conns = Vec::new();
        conns.resize_with(FIRST_SLOT, || None);
        let hub = Hub {
            config,
            poll,
            listeners,
            shared,
            events,
            start: Instant::now(),
            now: Millis(0),
            lively_until: Millis(0),
            conns,
            free: Vec::new(),
            serial: 0,
            addresses: Addresses::default(),
            refusals: Refusals::default(),
            timers: BinaryHeap::new(),
            held: VecDeque::new(),
            again: Vec::new(),
            dirty: Vec::new(),
            publishing: VecDeque::new(),
            buffer: vec![0; 65_536],
        };
        Ok((hub, waker))
    }

    pub(super) fn run(mut self) {
        let mut ready = Events::with_capacity(1024);
        loop {
            if let Err(error) = self.poll.poll(&mut ready, self.timeout()) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                tracing::error!(%error, "the broker cannot wait for its sockets and ends");
                return;
            }
            self.now = Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX));
            for slot in std::mem::take(&mut self.again) {
                self.read(slot, true);
            }
            for event in &ready {
                match event.token() {
                    WAKER => {}
                    Token(port) if port < FIRST_SLOT => self.listeners[port].ready = true,
                    Token(slot) => {
                        if event.is_readable() || event.is_error() || event.is_read_closed() {
                            self.read(slot, event.is_read_closed() || event.is_error());
                        }
                        if event.is_writable() {
                            self.flush(slot);
                        }
                    }
                }
            }
            self.accept(COMMANDS);
            self.accept(HEARTBEATS);
            let commands = std::mem::take(&mut *self.shared.commands());
            let stop = commands.into_iter().any(|command| self.apply(command));
            self.tick();
            self.publish();
            for slot in std::mem::take(&mut self.dirty) {
                if let Some(conn) = self.conn(slot) {
                    conn.dirty = false;
                    self.flush(slot);
                }
            }
            if self.shared.queued.load(Ordering::SeqCst) < BULK_ROOM / 2
                && self.shared.wants_room.swap(false, Ordering::SeqCst)
            {
                self.emit(BrokerEvent::Room);
            }
            if stop {
                return;
            }
            if self.now >= self.lively_until && self.timeout() != Some(Duration::ZERO) {
                let busy = self.shared.busy.load(Ordering::Relaxed);
                std::thread::park_timeout(if busy { GATHER } else { GATHER_IDLE });
            }
        }
    }

    /// How long to wait: not at all while somebody's turn was cut short.
    fn timeout(&self) -> Option<Duration> {
        let pending =
            |l: &Listener| l.ready && l.after <= self.now && l.half_open < self.config.max_half_open;
        if !self.again.is_empty() || !self.publishing.is_empty() || self.listeners.iter().any(pending) {
            return Some(Duration::ZERO);
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let paused = self.listeners.iter().filter(|l| l.ready && l.after > self.now).map(|l| l.after).min();
        let next = timer.into_iter().chain(paused).min()?;
        // One more, so that a deadline is not met by a fraction too early and waited for again.
        Some(Duration::from_millis(next.saturating_sub(self.now).0 + 1))
    }

    fn conn(&mut self, slot: usize) -> Option<&mut Conn> {
        self.conns.get_mut(slot)?.as_deref_mut()
    }

    fn find(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conn(slot_of(id)).filter(|conn| conn.id == id)
    }

    /// Tells the driver; waits while it has too much to do. A driver that is gone misses nothing.
    fn emit(&self, event: BrokerEvent) {
        let mut event = event;
        while let Err(TrySendError::Full(back)) = self.events.try_send(event) {
            if self.shared.commands().iter().any(|command| matches!(command, Command::Stop)) {
                return;
            }
            event = back;
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn accept(&mut self, port: usize) {
        for _ in 0..AT_ONCE {
            let listener = &mut self.listeners[port];
            if !listener.ready || listener.after > self.now || listener.half_open >= self.config.max_half_open
            {
                return;
            }
            match listener.socket.accept() {
                Ok((stream, address)) => self.admit(stream, address, port),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => listener.ready = false,
                // The peer was gone before its turn came.
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                Err(error) => {
                    listener.after = self.now + ACCEPT_PAUSE;
                    if self.refusals.say(Who::Everybody, self.now) {
                        tracing::error!(%error, port = name(port), "cannot accept connections");
                    }
                }
            }
        }
    }

    /// Starts a connection, if there is room for one more of this address and port (decision 12.15).
    fn admit(&mut self, stream: mio::net::TcpStream, address: SocketAddr, port: usize) {
        let config = &self.config;
        let count = self.addresses.count(address.ip(), port);
        let all = self.listeners[COMMANDS].all + self.listeners[HEARTBEATS].all;
        let full = if all >= config.max_connections {
            Some("too many connections")
        } else if port == HEARTBEATS && self.listeners[HEARTBEATS].all >= config.max_connections / 2 {
            Some("too many subscribers")
        } else if config.max_per_address.is_some_and(|max| count.all as usize >= max) {
            Some("too many connections from this address")
        } else if count.half_open as usize >= config.max_half_open_per_address {
            Some("too many unfinished handshakes from this address")
        } else {
            None
        };
        if let Some(reason) = full {
            self.shared.refused("too_many");
            if self.refusals.say(Who::Address(address.ip()), self.now) {
                tracing::warn!(peer = %address, port = name(port), reason, "connection closed");
            }
            return;
        }
        let slot = self.free.pop().unwrap_or(self.conns.len());
        if slot > 0xff_ffff {
            return;
        }
        self.serial += 1;
        let id = ConnId(self.serial << 24 | slot as u64);
        let (role, ping) = match port {
            COMMANDS => (Role::Router { secret: Arc::clone(&config.secret) }, Some(config.ping)),
            // Subscribers never speak: TCP's keep-alive is enough for them.
            _ => (Role::Publisher, None),
        };
        let limits = Limits { max_body: config.max_body_size, ping };
        let peer = Peer::new(role, limits, self.now, &mut OsRng);
        let deadline = peer.next_deadline();
        let mut conn = Box::new(Conn::new(stream, id, address, port, peer));
        let interest = Interest::READABLE | Interest::WRITABLE;
        let ready = conn
            .set_options()
            .and_then(|()| self.poll.registry().register(conn.source(), Token(slot), interest));
        if let Err(error) = ready {
            // Usually a peer that is already gone.
            tracing::debug!(peer = %address, %error, "connection closed");
            if slot < self.conns.len() {
                self.free.push(slot);
            }
            return;
        }
        if let Some(at) = deadline {
            self.timers.push(Reverse((at, id.0)));
        }
        if slot == self.conns.len() {
            self.conns.push(Some(conn));
        } else {
            self.conns[slot] = Some(conn);
        }
        self.addresses.add(address.ip(), port);
        self.listeners[port].half_open += 1;
        self.listeners[port].all += 1;
        self.mark(slot);
    }

    /// Lists a connection for writing.
    fn mark(&mut self, slot: usize) {
        if let Some(conn) = self.conn(slot)
            && !std::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    fn read(&mut self, slot: usize, closed: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for turn in 0.. {
            let Some(conn) = self.conn(slot) else { break };
            if turn == READS {
                self.again.push(slot);
                break;
            }
            match conn.read(&mut buffer) {
                Ok(None) => break,
                Ok(Some(0)) | Err(_) => {
                    self.end(slot);
                    break;
                }
                Ok(Some(count)) => {
                    self.receive(slot, &buffer[..count]);
                    // A short read emptied the socket, unless the end is still to be seen.
                    if count < buffer.len() && !closed {
                        break;
                    }
                }
            }
        }
        self.buffer = buffer;
    }

    fn receive(&mut self, slot: usize, mut bytes: &[u8]) {
        let now = self.now;
        if self.conn(slot).is_some_and(|conn| conn.stage == Stage::HalfOpen) {
            self.lively_until = now + LIVELY;
        }
        loop {
            let Some(conn) = self.conn(slot) else { return };
            // What a refused peer says is not listened to.
            let Some(peer) = &mut conn.peer else { return };
            let event = peer.receive(now, &mut bytes);
            let (conn_id, address) = (conn.id, conn.address);
            match event {
                Ok(None) => return self.mark(slot),
                Ok(Some(Event::Authenticate { key })) => {
                    conn.key = Some(key);
                    let peer = address.to_string();
                    self.emit(BrokerEvent::Input(Input::Handshake { conn: conn_id, key, peer }));
                }
                Ok(Some(Event::Opened)) => self.opened(slot),
                Ok(Some(Event::Message { header, body })) => {
                    self.emit(BrokerEvent::Input(Input::Frames { conn: conn_id, header, body }));
                }
                Err(refusal) => return self.refused(slot, refusal),
            }
        }
    }

    /// The handshake is complete.
    fn opened(&mut self, slot: usize) {
        let Some(conn) = self.conn(slot) else { return };
        conn.stage = Stage::Open;
        let (id, address, port, known) = (conn.id, conn.address, conn.port, conn.key.is_some());
        self.settled(address, port);
        self.counter(port).fetch_add(1, Ordering::Relaxed);
        if known {
            self.emit(BrokerEvent::Input(Input::Opened { conn: id }));
        }
    }

    fn counter(&self, port: usize) -> &AtomicUsize {
        if port == COMMANDS { &self.shared.nodes } else { &self.shared.subscribers }
    }

    /// A handshake is over, one way or the other.
    fn settled(&mut self, address: SocketAddr, port: usize) {
        self.addresses.settled(address.ip(), port);
        self.listeners[port].half_open = self.listeners[port].half_open.saturating_sub(1);
    }

    /// The peer broke a rule: says so once a minute; nothing is told to the peer.
    fn refused(&mut self, slot: usize, refusal: Refusal) {
        let now = self.now;
        let Some(conn) = self.conn(slot) else { return };
        let (address, port, key, stage) = (conn.address, name(conn.port), conn.key, conn.stage);
        self.shared.refused(kind(refusal));
        let who = key.map_or(Who::Address(address.ip()), Who::Key);
        if self.refusals.say(who, now) {
            let key = key.map(|key| format!("{key:?}"));
            let what = if stage == Stage::Open { "connection closed" } else { "handshake refused" };
            tracing::warn!(peer = %address, port, key, reason = %refusal, "{what}");
        }
        match (stage, refusal) {
            (Stage::HalfOpen, Refusal::Deadline) | (Stage::Open | Stage::Held(_), _) => self.end(slot),
            (Stage::HalfOpen, _) => self.hold(slot),
        }
    }

    /// Leaves a refused connection unanswered for a while (decision 5).
    fn hold(&mut self, slot: usize) {
        let until = self.now + self.config.hold_refused;
        let most = self.config.max_connections / 4;
        let Some(conn) = self.conn(slot).filter(|conn| conn.stage == Stage::HalfOpen) else { return };
        conn.stage = Stage::Held(until);
        conn.peer = None;
        let (id, address, port) = (conn.id, conn.address, conn.port);
        self.recount(slot);
        self.settled(address, port);
        self.held.push_back(id);
        while self.held.len() > most {
            let Some(oldest) = self.held.pop_front() else { return };
            if self.find(oldest).is_some() {
                self.end(slot_of(oldest));
            }
        }
    }

    /// Carries out a command; true for the last one.
    fn apply(&mut self, command: Command) -> bool {
        let now = self.now;
        if !matches!(command, Command::Publish(..)) {
            self.lively_until = now + LIVELY;
        }
        match command {
            Command::Accept(id) => {
                if let Some(conn) = self.find(id)
                    && let Some(peer) = &mut conn.peer
                    && peer.accept(now).is_ok()
                {
                    self.opened(slot_of(id));
                    self.recount(slot_of(id));
                    self.mark(slot_of(id));
                }
            }
            Command::Refuse(id) => {
                if self.find(id).is_some() {
                    self.hold(slot_of(id));
                }
            }
            Command::Close(id) => {
                if self.find(id).is_some() {
                    self.end(slot_of(id));
                }
            }
            Command::Send(id, header, body) => self.send(id, &header, &body),
            Command::Publish(header, body) => {
                self.publishing.push_back((encode_plain(&header, &body), FIRST_SLOT));
            }
            // That it came is all it says.
            Command::Expect => {}
            Command::Stop => return true,
        }
        false
    }

    fn send(&mut self, id: ConnId, header: &[u8], body: &[u8]) {
        self.shared.queued.fetch_sub(header.len() + body.len(), Ordering::SeqCst);
        let slot = slot_of(id);
        let Some(conn) = self.find(id) else { return };
        let Some(peer) = &mut conn.peer else { return };
        if peer.send(header, body).is_err() {
            return;
        }
        let (waiting, address) = (conn.waiting(), conn.address);
        self.recount(slot);
        let all = self.shared.queued.load(Ordering::SeqCst);
        let most = self.config.max_queued;
        if waiting <= MAX_QUEUED_PER_CONNECTION && all <= most {
            return self.mark(slot);
        }
        // What the network takes at once does not count.
        self.flush(slot);
        let over = self.find(id).is_some_and(|conn| {
            let waiting = conn.waiting();
            waiting > MAX_QUEUED_PER_CONNECTION || all > most && waiting > 0
        });
        if over {
            tracing::warn!(peer = %address, waiting, all, "connection closed: it does not take what it is sent");
            self.end(slot);
        }
    }

    /// Tells some subscribers what is published. Those that do not keep up miss the newest.
    fn publish(&mut self) {
        let Some((message, from)) = self.publishing.pop_front() else { return };
        let to = self.conns.len().min(from + 16 * AT_ONCE);
        let (mut told, mut slot) = (0, from);
        while slot < to && told < AT_ONCE {
            if let Some(conn) = self.conn(slot)
                && conn.port == HEARTBEATS
                && conn.waiting() + message.len() <= MAX_QUEUED_PER_CONNECTION
                && let Some(peer) = &mut conn.peer
                && peer.is_subscribed()
                && peer.send_plain(&message).is_ok()
            {
                told += 1;
                self.recount(slot);
                self.mark(slot);
            }
            slot += 1;
        }
        if slot < self.conns.len() {
            self.publishing.push_front((message, slot));
        }
    }

    fn tick(&mut self) {
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > self.now {
                return;
            }
            self.timers.pop();
            let (now, id) = (self.now, ConnId(id));
            let slot = slot_of(id);
            let Some(conn) = self.find(id) else { continue };
            let next = match (&conn.stage, &mut conn.peer) {
                (Stage::Held(until), _) if *until > now => Some(*until),
                (Stage::HalfOpen | Stage::Open, Some(peer)) => match peer.tick(now) {
                    Ok(()) => peer.next_deadline(),
                    Err(refusal) => {
                        self.refused(slot, refusal);
                        continue;
                    }
                },
                _ => {
                    self.end(slot);
                    continue;
                }
            };
            if let Some(at) = next {
                self.timers.push(Reverse((at.max(now + Millis(1)), id.0)));
            }
            self.mark(slot);
        }
    }

    fn flush(&mut self, slot: usize) {
        let Some(conn) = self.conn(slot) else { return };
        match conn.flush() {
            Ok(()) => self.recount(slot),
            Err(_) => self.end(slot),
        }
    }

    /// Brings the total up to date after the output of a connection changed.
    fn recount(&mut self, slot: usize) {
        let Some(conn) = self.conn(slot) else { return };
        let waiting = conn.waiting();
        let before = std::mem::replace(&mut conn.counted, waiting);
        if waiting > before {
            self.shared.queued.fetch_add(waiting - before, Ordering::SeqCst);
        } else if waiting < before {
            self.shared.queued.fetch_sub(before - waiting, Ordering::SeqCst);
        }
    }

    /// Closes a connection and forgets it.
    fn end(&mut self, slot: usize) {
        let Some(mut conn) = self.conns.get_mut(slot).and_then(Option::take) else { return };
        self.free.push(slot);
        // Closing the descriptor takes it out of the poll as well.
        let _ = self.poll.registry().deregister(conn.source());
        self.shared.queued.fetch_sub(conn.counted, Ordering::SeqCst);
        self.listeners[conn.port].all = self.listeners[conn.port].all.saturating_sub(1);
        match conn.stage {
            Stage::HalfOpen => self.settled(conn.address, conn.port),
            Stage::Open => {
                self.counter(conn.port).fetch_sub(1, Ordering::Relaxed);
            }
            Stage::Held(_) => self.held.retain(|id| *id != conn.id),
        }
        self.addresses.remove(conn.address.ip(), conn.port);
        if conn.key.is_some() {
            self.emit(BrokerEvent::Input(Input::Closed { conn: conn.id }));
        }
    }
}

fn name(port: usize) -> &'static str {
    if port == COMMANDS { "command" } else { "heartbeat" }
}
