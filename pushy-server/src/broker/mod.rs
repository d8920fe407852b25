//! Listens for nodes: the command port (ROUTER, CURVE) and the heartbeat port (PUB). Moves frames between
//! connections and the driver, and knows neither jobs nor types of messages.
//!
//! All connections are served by one thread of the broker's own: the cryptography of nine thousand nodes that come
//! back at once does not hold up the machine or the REST API, and a connection costs its state and nothing
//! else: no task, no channel, no buffer while it is silent. The driver gets [`BrokerEvent`]s through a
//! bounded channel (full, it stops the reading) and speaks through [`Broker`], whose calls never wait.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use mio::Waker;
use pushy_core::server::{ConnId, Input};
use pushy_core::time::Millis;
use pushy_core::zmtp::CurveSecret;
use tokio::sync::mpsc;

mod conn;
mod hub;
mod refusals;

use hub::Hub;

/// Bytes that may wait on one connection before it is closed (decision 11).
pub const MAX_QUEUED_PER_CONNECTION: usize = 1 << 20;
/// Bytes that may wait in all (decision 11).
pub const MAX_QUEUED: usize = 64 << 20;
/// With less than this waiting there is room for the commits of large jobs.
pub const BULK_ROOM: usize = 8 << 20;
/// Events that may wait for the driver.
const EVENTS: usize = 1024;
/// Pending connections that the kernel keeps: a fleet that comes back at once must not be refused.
const BACKLOG: i32 = 4096;
/// Descriptors kept for REST, the store and files.
const RESERVED_DESCRIPTORS: usize = 256;

/// Settings of the broker.
#[derive(Clone)]
pub struct BrokerConfig {
    /// The server's CURVE pair.
    pub secret: Arc<CurveSecret>,
    /// Bytes of the second frame taken from a node.
    pub max_body_size: usize,
    /// Connections of one port whose handshake is not complete; more wait in the kernel (decision 12.2).
    pub max_half_open: usize,
    /// The same for one address; more are closed.
    pub max_half_open_per_address: usize,
    /// Connections of one address to one port; more are closed. `None`: as many as there are.
    pub max_per_address: Option<usize>,
    /// Connections in all, of which subscribers get at most half (decision 12.15).
    pub max_connections: usize,
    /// How long a refused connection is held unanswered: closed at once, libzmq would be back at once
    /// (decision 5).
    pub hold_refused: Millis,
    /// Bytes that may wait in all; beyond, a connection that does not take what it is sent is closed.
    pub max_queued: usize,
    /// Silence after which a node of ZMTP 3.1 is sent a PING.
    pub ping: Millis,
}

impl BrokerConfig {
    /// The defaults, with as many connections as this process may have descriptors; raise that limit first.
    pub fn new(secret: Arc<CurveSecret>, max_body_size: usize) -> BrokerConfig {
        BrokerConfig {
            secret,
            max_body_size,
            max_half_open: 512,
            max_half_open_per_address: 32,
            max_per_address: None,
            max_connections: descriptor_limit().saturating_sub(RESERVED_DESCRIPTORS).max(16),
            hold_refused: Millis(30_000),
            max_queued: MAX_QUEUED,
            ping: Millis(60_000),
        }
    }
}

/// Raises the soft limit of descriptors to the hard one; answers what holds now.
pub fn raise_descriptor_limit() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err()
    {
        tracing::warn!(soft, hard, "cannot raise the limit of open files");
    }
    descriptor_limit()
}

/// How many descriptors this process may have.
pub(crate) fn descriptor_limit() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// Binds a port for nodes, with a backlog for a fleet that comes back at once.
///
/// # Errors
/// When the address cannot be bound.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What the broker tells the driver.
#[derive(Debug)]
pub enum BrokerEvent {
    /// Hand this to the machine: [`Input::Handshake`], [`Input::Opened`], [`Input::Closed`] or
    /// [`Input::Frames`].
    Input(Input),
    /// [`Broker::has_room`] was false and is true again.
    Room,
}

/// What the driver tells the broker.
enum Command {
    Accept(ConnId),
    Refuse(ConnId),
    Close(ConnId),
    Send(ConnId, Vec<u8>, Vec<u8>),
    Publish(Vec<u8>, Vec<u8>),
    Expect,
    Stop,
}

/// What both threads see.
struct Shared {
    commands: Mutex<Vec<Command>>,
    /// Bytes that wait: in `commands` and on the connections.
    queued: AtomicUsize,
    /// The driver was told that there is no room.
    wants_room: AtomicBool,
    /// Jobs are under way: what nodes say is waited for.
    busy: AtomicBool,
    nodes: AtomicUsize,
    subscribers: AtomicUsize,
    /// Connections that a rule of the transport ended, by reason. Seldom enough for a lock.
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// The connections in figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections to the command port with a complete handshake.
    pub nodes: usize,
    /// The same on the heartbeat port.
    pub subscribers: usize,
    /// Bytes that wait for the network.
    pub queued: usize,
    /// Connections that a rule of the transport ended, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Shared {
    fn refused(&self, reason: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    fn commands(&self) -> MutexGuard<'_, Vec<Command>> {
        // A push cannot leave the list half done.
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's end. Its calls do not wait; a connection that has ended meanwhile is passed over in silence, since
/// its [`Input::Closed`] is on its way.
pub struct Broker {
    shared: Arc<Shared>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts serving both ports.
    ///
    /// # Errors
    /// When the system refuses a thread or a poll.
    pub fn start(
        config: BrokerConfig,
        commands: TcpListener,
        heartbeats: TcpListener,
    ) -> io::Result<(Broker, mpsc::Receiver<BrokerEvent>)> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            commands: Mutex::default(),
            queued: AtomicUsize::new(0),
            wants_room: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            nodes: AtomicUsize::new(0),
            subscribers: AtomicUsize::new(0),
            refused: Mutex::default(),
        });
        let (hub, waker) = Hub::new(config, [commands, heartbeats], Arc::clone(&shared), events)?;
        let thread = std::thread::Builder::new().name("broker".into()).spawn(move || hub.run())?;
        Ok((Broker { shared, waker: Arc::new(waker), thread: Some(thread) }, receiver))
    }

    fn push(&self, command: Command) {
        let mut commands = self.shared.commands();
        commands.push(command);
        // The broker empties the list as a whole, so only the first has to wake it.
        let first = commands.len() == 1;
        drop(commands);
        if !first {
            return;
        }
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the broker");
        }
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Goes on with a handshake.
    pub fn accept(&self, conn: ConnId) {
        self.push(Command::Accept(conn));
    }

    /// Holds a handshake unanswered, then closes (decision 5).
    pub fn refuse(&self, conn: ConnId) {
        self.push(Command::Refuse(conn));
    }

    /// Closes a connection at once.
    pub fn close(&self, conn: ConnId) {
        self.push(Command::Close(conn));
    }

    /// Sends two frames on the command port.
    pub fn send(&self, conn: ConnId, header: Vec<u8>, body: Vec<u8>) {
        self.shared.queued.fetch_add(header.len() + body.len(), Ordering::Relaxed);
        self.push(Command::Send(conn, header, body));
    }

    /// Publishes two frames on the heartbeat port.
    pub fn publish(&self, header: Vec<u8>, body: Vec<u8>) {
        self.push(Command::Publish(header, body));
    }

    /// Somebody is about to connect.
    pub fn expect(&self) {
        self.push(Command::Expect);
    }

    /// Whether jobs are under way. While there are none, nobody waits for what nodes say, and it is gathered for longer.
    pub fn set_busy(&self, busy: bool) {
        self.shared.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether commits of a large job may be produced. Once this was false, [`BrokerEvent::Room`] comes.
    pub fn has_room(&self) -> bool {
        if self.queued() < BULK_ROOM {
            return true;
        }
        self.shared.wants_room.store(true, Ordering::SeqCst);
        // The broker may have drained the last of it just before it could see the flag.
        self.queued() < BULK_ROOM
    }

    /// Bytes that wait for the network.
    pub fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::SeqCst)
    }

    /// Connections with a complete handshake: nodes, subscribers.
    pub fn connections(&self) -> (usize, usize) {
        (self.shared.nodes.load(Ordering::Relaxed), self.shared.subscribers.load(Ordering::Relaxed))
    }

    /// The connections in figures.
    pub fn traffic(&self) -> Traffic {
        let (nodes, subscribers) = self.connections();
        let refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Traffic { nodes, subscribers, queued: self.queued(), refused }
    }

    /// Writes what the network takes at once, closes all connections and ends the thread. Dropping does the same.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.thread.is_some() {
            self.push(Command::Stop);
        }
        let Some(thread) = self.thread.take() else { return };
        if thread.join().is_err() {
            tracing::error!("the broker had ended in a panic");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}
