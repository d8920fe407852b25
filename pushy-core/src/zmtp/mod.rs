//! ZMTP 3.0 and 3.1 (RFC 23, 37) with NULL and CURVE (RFC 25, 26): one end of one connection as a value.
//!
//! Bytes in, bytes and events out; no socket, no clock, no randomness of its own.
//!
//! # Driving it
//! Hand what arrives to [`Peer::receive`] until it answers `None`; after that, and after [`Peer::accept`],
//! [`Peer::send`] and [`Peer::tick`], write what [`Peer::transmit`] shows and say how much went with
//! [`Peer::sent`]. Call [`Peer::tick`] at [`Peer::next_deadline`]. Bytes may come in any pieces. After an error
//! the peer is dead: it takes and gives nothing, and what it held is wiped.
//!
//! A server's handshake stops once the client has proved its key: [`Event::Authenticate`]. Only
//! [`Peer::accept`] goes on; to refuse, say nothing (decisions 5 and 12.7).

use std::fmt;
use std::sync::Arc;

use crate::server::{CurveKey, Random};
use crate::time::Millis;

mod curve;
mod frame;
mod greeting;
mod nacl;
mod refusal;

use curve::{AwaitHello, AwaitInitiate, AwaitWelcome, BOX_COMMAND, BOX_MORE, Client, OVERHEAD, Session};
use frame::{COMMAND, Command, MORE};
use greeting::Mechanism;
pub use nacl::CurveSecret;
pub use refusal::Refusal;

/// Between the start of a connection and its READY (decision 12.2).
pub const HANDSHAKE_DEADLINE: Millis = Millis(10_000);
/// Bytes of a command before READY. Greeting, HELLO and INITIATE are all that is taken before it, so a handshake
/// takes at most 64 + 202 + 521 bytes, well below the 2 KB of decision 12.2.
pub const HANDSHAKE_LIMIT: usize = 512;
/// Subscriptions that a connection may hold (decision 12.11).
pub const MAX_SUBSCRIPTIONS: u8 = 16;
/// Bytes of the first frame of a message (4.3).
pub const MAX_HEADER: usize = 2048;
/// With this much waiting to be written, a PING is not answered.
const PONG_BACKLOG: usize = 65_536;

/// Which end this is. Each role speaks one mechanism and to one socket type only (decisions 12.8, 12.9).
pub enum Role {
    /// Server, command port: ROUTER for DEALERs, CURVE server.
    Router {
        /// The server's pair.
        secret: Arc<CurveSecret>,
    },
    /// Server, heartbeat port: PUB for SUBs, NULL.
    Publisher,
    /// Node, command port: DEALER to a ROUTER, CURVE client.
    Dealer {
        /// The node's pair.
        secret: Arc<CurveSecret>,
        /// The server's public key, from the configuration.
        server: CurveKey,
    },
    /// Node, heartbeat port: SUB to a PUB, NULL; subscribes to everything.
    Subscriber,
}

/// Settings of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the second frame of a message.
    pub max_body: usize,
    /// After this long without a byte a peer of ZMTP 3.1 is sent a PING, and after as long again it is given up.
    /// Older peers do not know PING: TCP keep-alive is for them (decision 12.12).
    pub ping: Option<Millis>,
}

/// Something happened on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The client has proved that it owns this key. Nothing more happens before [`Peer::accept`].
    Authenticate {
        /// The long-term public key.
        key: CurveKey,
    },
    /// The handshake is complete (for a server role: on accepting). Messages may be sent.
    Opened,
    /// A message of two frames.
    Message {
        /// First frame.
        header: Vec<u8>,
        /// Second frame.
        body: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Router,
    Publisher,
    Dealer,
    Subscriber,
}

impl Kind {
    fn mechanism(self) -> Mechanism {
        match self {
            Kind::Router | Kind::Dealer => Mechanism::Curve,
            Kind::Publisher | Kind::Subscriber => Mechanism::Null,
        }
    }

    fn ours(self) -> &'static str {
        match self {
            Kind::Router => "ROUTER",
            Kind::Publisher => "PUB",
            Kind::Dealer => "DEALER",
            Kind::Subscriber => "SUB",
        }
    }

    fn theirs(self) -> &'static str {
        match self {
            Kind::Router => "DEALER",
            Kind::Publisher => "SUB",
            Kind::Dealer => "ROUTER",
            Kind::Subscriber => "PUB",
        }
    }
}

/// What is done with the next thing that arrives. Large parts are boxed: an idle connection holds little.
enum Phase {
    Greeting(Start),
    Hello(Box<AwaitHello>),
    Initiate(Box<AwaitInitiate>),
    /// The key is reported; [`Peer::accept`] goes on.
    Judged(Box<Session>),
    Welcome(Box<AwaitWelcome>),
    CurveReady(Box<Session>),
    NullReady,
    Open(Traffic),
    Ended,
}

/// What the greeting leads to.
enum Start {
    Server(Box<AwaitHello>),
    Client(Box<Client>),
    Null,
}

enum Traffic {
    Curve(Box<Session>),
    Null,
}

/// One end of one connection.
pub struct Peer {
    kind: Kind,
    phase: Phase,
    /// The peer's minor version.
    minor: u8,
    /// Subscriptions to everything, and all of them.
    subscribed: u8,
    subscriptions: u8,
    pinged: bool,
    max_body: u32,
    ping: Option<u32>,
    /// Deadline of the handshake; later, when the peer was heard last.
    mark: Millis,
    /// The frame that is arriving. Grows with what arrived, never from a length that was only declared.
    partial: Vec<u8>,
    /// First frame of a message whose second has not come.
    header: Option<Vec<u8>>,
    output: Vec<u8>,
    output_at: usize,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("kind", &self.kind)
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// One end of a connection that was made just now. Its greeting is there to be written at once, whatever the
    /// other end does (decision 12.1). `random` is used here only.
    pub fn new(role: Role, limits: Limits, now: Millis, random: &mut dyn Random) -> Peer {
        let (kind, start) = match role {
            Role::Router { secret } => {
                (Kind::Router, Start::Server(Box::new(AwaitHello::new(secret, random))))
            }
            Role::Publisher => (Kind::Publisher, Start::Null),
            Role::Dealer { secret, server } => {
                (Kind::Dealer, Start::Client(Box::new(Client::new(secret, server, random))))
            }
            Role::Subscriber => (Kind::Subscriber, Start::Null),
        };
        Peer {
            kind,
            phase: Phase::Greeting(start),
            minor: 0,
            subscribed: 0,
            subscriptions: 0,
            pinged: false,
            max_body: u32::try_from(limits.max_body).unwrap_or(u32::MAX),
            ping: limits.ping.map(|p| u32::try_from(p.0).unwrap_or(u32::MAX)),
            mark: now + HANDSHAKE_DEADLINE,
            partial: Vec::new(),
            header: None,
            output: greeting::ours(kind.mechanism(), kind == Kind::Router).to_vec(),
            output_at: 0,
        }
    }

    /// Takes bytes off the front of `bytes`, up to the first that make something happen. Call it again until it
    /// answers `None`, which means that all were taken.
    ///
    /// # Errors
    /// When the connection must end; say nothing to the peer.
    pub fn receive(&mut self, now: Millis, bytes: &mut &[u8]) -> Result<Option<Event>, Refusal> {
        if self.is_open() && !bytes.is_empty() {
            self.mark = now;
            self.pinged = false;
        }
        let result = self.advance(now, bytes);
        if result.is_err() {
            self.end();
        }
        result
    }

    /// Goes on with the handshake that [`Event::Authenticate`] stopped.
    ///
    /// # Errors
    /// [`Refusal::Ended`] when there is no such handshake (any more).
    pub fn accept(&mut self, now: Millis) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Judged(mut session) => {
                session.put_ready(&mut self.output, self.kind.ours());
                self.phase = Phase::Open(Traffic::Curve(session));
                self.mark = now;
                Ok(())
            }
            other => {
                self.phase = other;
                Err(Refusal::Ended)
            }
        }
    }

    /// Whether the handshake is complete and the connection has not ended.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether what a publisher has to say goes to this peer.
    pub fn is_subscribed(&self) -> bool {
        self.is_open() && self.subscribed > 0
    }

    /// Queues a message of two frames, both or none.
    ///
    /// # Errors
    /// [`Refusal::Ended`] when the connection is not open. A publisher's peer that has not subscribed is sent
    /// nothing.
    pub fn send(&mut self, header: &[u8], body: &[u8]) -> Result<(), Refusal> {
        let subscribed = self.kind != Kind::Publisher || self.subscribed > 0;
        match &mut self.phase {
            Phase::Open(Traffic::Curve(session)) => {
                self.output.reserve(header.len() + body.len() + 2 * (OVERHEAD + 9));
                session.put(&mut self.output, BOX_MORE, header);
                session.put(&mut self.output, 0, body);
                Ok(())
            }
            Phase::Open(Traffic::Null) => {
                if subscribed {
                    self.output.extend(encode_plain(header, body));
                }
                Ok(())
            }
            _ => Err(Refusal::Ended),
        }
    }

    /// Queues what [`encode_plain`] made; for a publisher, whose message is the same for all.
    ///
    /// # Errors
    /// As [`Peer::send`]; also on a connection with CURVE.
    pub fn send_plain(&mut self, encoded: &[u8]) -> Result<(), Refusal> {
        match self.phase {
            Phase::Open(Traffic::Null) => {
                if self.kind != Kind::Publisher || self.subscribed > 0 {
                    self.output.extend_from_slice(encoded);
                }
                Ok(())
            }
            _ => Err(Refusal::Ended),
        }
    }

    /// The bytes to write next; empty when there are none.
    pub fn transmit(&self) -> &[u8] {
        self.output.get(self.output_at..).unwrap_or_default()
    }

    /// Says that the first `count` bytes of [`Peer::transmit`] are written.
    pub fn sent(&mut self, count: usize) {
        self.output_at = self.output_at.saturating_add(count);
        if self.output_at >= self.output.len() {
            self.output = Vec::new();
            self.output_at = 0;
        } else if self.output_at > self.output.len() / 2 {
            self.output.drain(..self.output_at);
            self.output_at = 0;
        }
    }

    /// When to call [`Peer::tick`].
    pub fn next_deadline(&self) -> Option<Millis> {
        match self.phase {
            Phase::Open(_) if self.minor >= 1 => {
                self.ping.map(|p| self.mark + Millis(u64::from(p) * if self.pinged { 2 } else { 1 }))
            }
            Phase::Open(_) | Phase::Ended => None,
            _ => Some(self.mark),
        }
    }

    /// Takes note of the time. Too early is harmless.
    ///
    /// # Errors
    /// When the connection must end because of the silence.
    pub fn tick(&mut self, now: Millis) -> Result<(), Refusal> {
        if self.next_deadline().is_none_or(|at| now < at) {
            return Ok(());
        }
        let refusal = match &mut self.phase {
            Phase::Open(traffic) if !self.pinged => {
                self.pinged = true;
                // The time to live is ours to choose; 0 asks for nothing. The context is empty.
                put_command(traffic, &mut self.output, b"\x04PING\0\0");
                return Ok(());
            }
            Phase::Open(_) => Refusal::Silent,
            _ => Refusal::Deadline,
        };
        self.end();
        Err(refusal)
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.partial = Vec::new();
        self.header = None;
        self.output = Vec::new();
        self.output_at = 0;
    }

    fn advance(&mut self, now: Millis, bytes: &mut &[u8]) -> Result<Option<Event>, Refusal> {
        loop {
            match self.phase {
                Phase::Ended => return Err(Refusal::Ended),
                Phase::Judged(_) if bytes.is_empty() => return Ok(None),
                Phase::Judged(_) => return Err(Refusal::Early),
                Phase::Greeting(_) => {
                    if !self.greet(bytes)? {
                        return Ok(None);
                    }
                }
                _ => {
                    let Some(event) = self.frame(now, bytes)? else { return Ok(None) };
                    if event.is_some() {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// Takes bytes of the greeting; true once it is whole.
    fn greet(&mut self, bytes: &mut &[u8]) -> Result<bool, Refusal> {
        take(bytes, &mut self.partial, greeting::LEN);
        let Some(minor) = greeting::check(&self.partial, self.kind.mechanism())? else { return Ok(false) };
        self.minor = minor;
        self.partial = Vec::new();
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Greeting(Start::Server(await_hello)) => Phase::Hello(await_hello),
            Phase::Greeting(Start::Client(client)) => {
                Phase::Welcome(Box::new(client.hello(&mut self.output)?))
            }
            Phase::Greeting(Start::Null) => {
                let mut ready = b"\x05READY".to_vec();
                frame::put_metadata(&mut ready, self.kind.ours(), false);
                frame::put(&mut self.output, COMMAND, &ready);
                Phase::NullReady
            }
            other => other,
        };
        Ok(true)
    }

    /// Bytes that the body of the next frame may have.
    fn limit(&self) -> usize {
        let overhead = match &self.phase {
            Phase::Open(Traffic::Curve(_)) => OVERHEAD,
            Phase::Open(Traffic::Null) => 0,
            _ => return HANDSHAKE_LIMIT,
        };
        match (self.kind, &self.header) {
            (Kind::Publisher, _) => HANDSHAKE_LIMIT,
            (_, None) => MAX_HEADER + overhead,
            (_, Some(_)) => self.max_body as usize + overhead,
        }
    }

    /// Takes one frame and answers what it made happen, if anything. `None` when it has not wholly arrived.
    fn frame(&mut self, now: Millis, bytes: &mut &[u8]) -> Result<Option<Option<Event>>, Refusal> {
        let limit = self.limit();
        if self.partial.is_empty() {
            // Most frames arrive in one piece and are read where they lie.
            let whole = frame::head(bytes, limit)?.and_then(|head| {
                let (taken, rest) = bytes.split_at_checked(head.len + head.body)?;
                *bytes = rest;
                Some((head.flags, taken.get(head.len..)?))
            });
            if let Some((flags, body)) = whole {
                return self.act(now, flags, body).map(Some);
            }
        }
        loop {
            let head = frame::head(&self.partial, limit)?;
            // The head itself comes byte by byte until its length is known.
            let want = head.map_or(self.partial.len() + 1, |head| head.len + head.body);
            if let Some(head) = head.filter(|_| self.partial.len() >= want) {
                let partial = std::mem::take(&mut self.partial);
                let body = partial.get(head.len..).unwrap_or_default();
                return self.act(now, head.flags, body).map(Some);
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            take(bytes, &mut self.partial, want);
        }
    }

    fn act(&mut self, now: Millis, flags: u8, body: &[u8]) -> Result<Option<Event>, Refusal> {
        if let Phase::Open(traffic) = &mut self.phase {
            let (more, is_command, content) = match traffic {
                // libzmq sends MESSAGE as a message, the RFC calls it a command: both are taken.
                Traffic::Curve(_) if flags & MORE != 0 => return Err(Refusal::Flags),
                Traffic::Curve(session) => {
                    let (flags, content) = session.open(body)?;
                    (flags & BOX_MORE != 0, flags & BOX_COMMAND != 0, content)
                }
                Traffic::Null => (flags & MORE != 0, flags & COMMAND != 0, body.to_vec()),
            };
            return if is_command { self.command(&content) } else { self.part(more, content) };
        }
        if flags != COMMAND {
            return Err(Refusal::Flags);
        }
        let theirs = self.kind.theirs();
        let (phase, event) = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Hello(it) => (Phase::Initiate(Box::new(it.hello(body, &mut self.output)?)), None),
            Phase::Initiate(it) => {
                let (key, session) = it.initiate(body, theirs)?;
                (Phase::Judged(Box::new(session)), Some(Event::Authenticate { key }))
            }
            Phase::Welcome(it) => {
                let session = it.welcome(body, &mut self.output, self.kind.ours())?;
                (Phase::CurveReady(Box::new(session)), None)
            }
            Phase::CurveReady(mut session) => {
                session.ready(body, theirs)?;
                (Phase::Open(Traffic::Curve(session)), Some(Event::Opened))
            }
            Phase::NullReady => {
                match body.strip_prefix(b"\x05READY") {
                    Some(metadata) => frame::check_metadata(metadata, theirs)?,
                    None if body.starts_with(b"\x05ERROR") => return Err(Refusal::PeerError),
                    None => return Err(Refusal::Command),
                }
                self.subscribe();
                (Phase::Open(Traffic::Null), Some(Event::Opened))
            }
            // The callers have dealt with the rest.
            _ => return Err(Refusal::Ended),
        };
        self.phase = phase;
        if self.is_open() {
            self.mark = now;
        }
        Ok(event)
    }

    /// Subscriber: asks for everything, as a command from 3.1 on and as a message before.
    fn subscribe(&mut self) {
        if self.kind != Kind::Subscriber {
            return;
        }
        match self.minor {
            0 => frame::put(&mut self.output, 0, b"\x01"),
            _ => frame::put(&mut self.output, COMMAND, b"\x09SUBSCRIBE"),
        }
    }

    fn command(&mut self, body: &[u8]) -> Result<Option<Event>, Refusal> {
        match frame::command(body)? {
            Command::Ping(context) => {
                if let (Phase::Open(traffic), true) = (&mut self.phase, self.output.len() < PONG_BACKLOG) {
                    let pong = [b"\x04PONG", context].concat();
                    put_command(traffic, &mut self.output, &pong);
                }
            }
            Command::Subscribe(topic) if self.kind == Kind::Publisher => self.subscription(true, topic)?,
            Command::Cancel(topic) if self.kind == Kind::Publisher => self.subscription(false, topic)?,
            Command::Error => return Err(Refusal::PeerError),
            Command::Pong | Command::Subscribe(_) | Command::Cancel(_) | Command::Unknown => {}
        }
        Ok(None)
    }

    /// Takes a frame of a message.
    fn part(&mut self, more: bool, content: Vec<u8>) -> Result<Option<Event>, Refusal> {
        if self.kind == Kind::Publisher {
            // Before 3.1 a subscription is a message: 1 or 0, then the topic.
            match content.split_first() {
                _ if more => return Err(Refusal::FrameCount),
                Some((1, topic)) => self.subscription(true, topic)?,
                Some((0, topic)) => self.subscription(false, topic)?,
                _ => {}
            }
            return Ok(None);
        }
        match (self.header.take(), more) {
            (None, true) => {
                self.header = Some(content);
                Ok(None)
            }
            (Some(header), false) => Ok(Some(Event::Message { header, body: content })),
            (None, false) | (Some(_), true) => Err(Refusal::FrameCount),
        }
    }

    /// A subscription is to everything, or only counted: the header of a message is no topic (4.1).
    fn subscription(&mut self, add: bool, topic: &[u8]) -> Result<(), Refusal> {
        let all = u8::from(topic.is_empty());
        if add {
            if self.subscriptions == MAX_SUBSCRIPTIONS {
                return Err(Refusal::Subscriptions);
            }
            self.subscriptions += 1;
            self.subscribed += all;
        } else {
            self.subscriptions = self.subscriptions.saturating_sub(1);
            self.subscribed = self.subscribed.saturating_sub(all);
        }
        Ok(())
    }
}

/// The two frames of a message as they travel without CURVE.
pub fn encode_plain(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len() + body.len() + 18);
    frame::put(&mut out, MORE, header);
    frame::put(&mut out, 0, body);
    out
}

fn put_command(traffic: &mut Traffic, out: &mut Vec<u8>, body: &[u8]) {
    match traffic {
        Traffic::Curve(session) => session.put(out, BOX_COMMAND, body),
        Traffic::Null => frame::put(out, COMMAND, body),
    }
}

/// Moves bytes until `to` holds `want`.
fn take(bytes: &mut &[u8], to: &mut Vec<u8>, want: usize) {
    let count = want.saturating_sub(to.len()).min(bytes.len());
    let (taken, rest) = bytes.split_at(count);
    to.extend_from_slice(taken);
    *bytes = rest;
}
