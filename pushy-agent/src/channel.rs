//! The two connections to the server: DEALER with CURVE for commands, SUB for its heartbeats. Moves frames between
//! them and the driver, and knows neither jobs nor types of messages.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use pushy_core::node::{Curve, Input, Port, Stage};
use pushy_core::time::Millis;
use pushy_core::zmtp::{Event, Limits, Peer, Refusal, Role};
use rand_core::OsRng;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Events that may wait for the driver; full, nothing more is read.
const EVENTS: usize = 64;
/// Bytes of the second frame taken from a server. A commit carries a whole file.
const MAX_BODY: usize = 4 << 20;
/// Bytes that may wait on a connection before it is given up.
const MAX_QUEUED: usize = 4 << 20;
/// Of bodies of so many bytes it is told when the network has taken them.
const LARGE: usize = pushy_core::node::outputs::COUNTED;
/// For name look-up and TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For what is queued when a connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// The driver's end of all connections, by the numbers that the machine gave them.
pub struct Channels {
    events: mpsc::Sender<Input>,
    orders: HashMap<u64, mpsc::UnboundedSender<Order>>,
}

enum Order {
    Send(Vec<u8>, Vec<u8>),
    Close,
}

impl Channels {
    /// No connections yet. The receiver yields [`Input::Connected`], [`Input::Disconnected`],
    /// [`Input::Drained`] and [`Input::Frames`] for the machine.
    pub fn new() -> (Channels, mpsc::Receiver<Input>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        (Channels { events, orders: HashMap::new() }, receiver)
    }

    /// Opens a connection (`Output::Connect`). Must be called inside of a tokio runtime.
    pub fn connect(&mut self, conn: u64, port: Port, addr: &str, curve: Option<Curve>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        self.orders.retain(|_, orders| !orders.is_closed());
        self.orders.insert(conn, orders);
        let line = Line {
            conn,
            events: self.events.clone(),
            orders: receiver,
            start: Instant::now(),
            progress: Progress::default(),
        };
        let addr = addr.to_owned();
        tokio::spawn(line.run(port, addr, curve));
    }

    /// Sends two frames as one message (`Output::Send`). For a connection that has ended, nothing happens: its
    /// [`Input::Disconnected`] is on its way.
    pub fn send(&mut self, conn: u64, header: Vec<u8>, body: Vec<u8>) {
        if let Some(orders) = self.orders.get(&conn) {
            let _ = orders.send(Order::Send(header, body));
        }
    }

    /// Sends what is queued and closes (`Output::Close`).
    pub fn close(&mut self, conn: u64) {
        if let Some(orders) = self.orders.remove(&conn) {
            let _ = orders.send(Order::Close);
        }
    }
}

/// Why a connection ended, for [`Input::Disconnected`].
type Ending = (Stage, String);

/// The task of one connection.
struct Line {
    conn: u64,
    events: mpsc::Sender<Input>,
    orders: mpsc::UnboundedReceiver<Order>,
    start: Instant,
    progress: Progress,
}

/// How far the network has got with what it was given.
#[derive(Default)]
struct Progress {
    /// Messages given to it.
    messages: u64,
    /// Bytes taken by it.
    taken: u64,
    /// Messages that are told of, each with the number of bytes after which it is gone.
    large: VecDeque<(u64, u64)>,
}

impl Progress {
    /// One more message, after which so many bytes wait.
    fn queued(&mut self, length: usize, waiting: usize) {
        self.messages += 1;
        if length >= LARGE {
            self.large.push_back((self.taken + waiting as u64, self.messages));
        }
    }

    /// The last large message that is gone, if one has gone since this was asked.
    fn gone(&mut self) -> Option<u64> {
        let mut last = None;
        while let Some((end, number)) = self.large.front().copied() {
            if end > self.taken {
                break;
            }
            self.large.pop_front();
            last = Some(number);
        }
        last
    }
}

impl Line {
    async fn run(mut self, port: Port, addr: String, curve: Option<Curve>) {
        if let Err((stage, why)) = self.serve(port, &addr, curve).await {
            let why = format!("{addr}: {why}");
            let _ = self.events.send(Input::Disconnected { conn: self.conn, stage, why }).await;
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Connects and carries frames until the driver closes (`Ok`) or something goes wrong.
    async fn serve(&mut self, port: Port, addr: &str, curve: Option<Curve>) -> Result<(), Ending> {
        let connecting = |why: String| (Stage::Connecting, why);
        let role = match (port, curve) {
            (Port::Command, Some(curve)) => Role::Dealer { secret: curve.keys.0, server: curve.server },
            (Port::Command, None) => return Err(connecting("the command port needs a CURVE key".into())),
            (Port::Heartbeat, _) => Role::Subscriber,
        };
        let stream = {
            let attempt = timeout(CONNECT_TIMEOUT, dial(addr));
            tokio::pin!(attempt);
            loop {
                tokio::select! {
                    biased;
                    order = self.orders.recv() => if !matches!(order, Some(Order::Send(..))) { return Ok(()) },
                    done = &mut attempt => match done {
                        Ok(Ok(stream)) => break stream,
                        Ok(Err(error)) => return Err(connecting(error.to_string())),
                        Err(_) => return Err(connecting("no connection within 10 seconds".into())),
                    },
                }
            }
        };
        // No PING: the heartbeats tell a dead server sooner, and an idle agent is woken no more than it must.
        let limits = Limits { max_body: MAX_BODY, ping: None };
        let mut peer = Peer::new(role, limits, self.now(), &mut OsRng);
        self.carry(&stream, &mut peer).await
    }

    async fn carry(&mut self, stream: &TcpStream, peer: &mut Peer) -> Result<(), Ending> {
        let mut stage = Stage::Handshake;
        loop {
            self.progress.taken += write(stream, peer).map_err(|e| (stage, e.to_string()))?;
            if let Some(messages) = self.progress.gone() {
                let input = Input::Drained { conn: self.conn, messages };
                if self.events.send(input).await.is_err() {
                    return Ok(());
                }
            }
            if peer.transmit().len() > MAX_QUEUED {
                return Err((stage, "the server does not take what it is sent".into()));
            }
            let interest = match peer.transmit() {
                [] => Interest::READABLE,
                _ => Interest::READABLE | Interest::WRITABLE,
            };
            let deadline = peer.next_deadline().map(|at| self.start + Duration::from_millis(at.0));
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Send(header, body)) => {
                        // Before the handshake the machine has nothing to say; if it had, it would be stale later.
                        let _ = peer.send(&header, &body);
                        self.progress.queued(body.len(), peer.transmit().len());
                    }
                    Some(Order::Close) | None => {
                        let _ = timeout(FAREWELL, drain(stream, peer)).await;
                        return Ok(());
                    }
                },
                ready = stream.ready(interest) => {
                    ready.map_err(|e| (stage, e.to_string()))?;
                    let (inputs, end) = self.read(stream, peer, &mut stage);
                    for input in inputs {
                        if self.events.send(input).await.is_err() {
                            return Ok(());
                        }
                    }
                    end.map_err(|why| (stage, why))?;
                }
                () = sleep_until(deadline), if deadline.is_some() => {
                    peer.tick(self.now()).map_err(|refusal| (stage, told(refusal)))?;
                }
            }
        }
    }

    /// Reads what has arrived. What was understood before an error still counts. The buffer lives only here, so an
    /// idle connection has none.
    fn read(
        &self,
        stream: &TcpStream,
        peer: &mut Peer,
        stage: &mut Stage,
    ) -> (Vec<Input>, Result<(), String>) {
        let mut buffer = [0; 8192];
        let mut inputs = Vec::new();
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => {
                let why = match stage {
                    Stage::Open => "the server closed the connection",
                    _ => "the server closed the connection during the handshake",
                };
                return (inputs, Err(why.into()));
            }
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return (inputs, Ok(())),
            Err(e) => return (inputs, Err(e.to_string())),
        };
        let (now, conn) = (self.now(), self.conn);
        let mut bytes = buffer.get(..count).unwrap_or_default();
        loop {
            match peer.receive(now, &mut bytes) {
                Ok(None) => return (inputs, Ok(())),
                Ok(Some(Event::Opened)) => {
                    *stage = Stage::Open;
                    inputs.push(Input::Connected { conn });
                }
                Ok(Some(Event::Message { header, body })) => {
                    inputs.push(Input::Frames { conn, header, body })
                }
                // Only servers are asked to judge a key.
                Ok(Some(Event::Authenticate { .. })) => {}
                Err(refusal) => return (inputs, Err(told(refusal))),
            }
        }
    }
}

fn told(refusal: Refusal) -> String {
    match refusal {
        Refusal::Deadline => "the server does not answer the handshake: it may not know our key (yet)".into(),
        Refusal::ServerKey => "the server has another CURVE key than its configuration said".into(),
        other => other.to_string(),
    }
}

/// Connects to `tcp://HOST:PORT`.
async fn dial(addr: &str) -> io::Result<TcpStream> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not an address like tcp://HOST:PORT");
    let (host, port) = addr.strip_prefix("tcp://").and_then(|a| a.rsplit_once(':')).ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    // Keep-alive rests while data waits for an answer; this does not.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// Writes what waits, as far as the network takes it.
fn write(stream: &TcpStream, peer: &mut Peer) -> io::Result<u64> {
    let mut taken = 0;
    while !peer.transmit().is_empty() {
        match stream.try_write(peer.transmit()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                peer.sent(count);
                taken += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        }
    }
    Ok(taken)
}

/// Writes all that waits.
async fn drain(stream: &TcpStream, peer: &mut Peer) -> io::Result<()> {
    loop {
        write(stream, peer)?;
        if peer.transmit().is_empty() {
            return Ok(());
        }
        stream.writable().await?;
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
