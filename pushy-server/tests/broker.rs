//! The broker's bounds, with peers of the core over real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pushy_core::curve_key::CurveKey;
use pushy_core::server::{ConnId, Input};
use pushy_core::time::Millis;
use pushy_core::zmtp::{CurveSecret, Event, Limits, Peer, Role};
use pushy_server::broker::{BULK_ROOM, Broker, BrokerConfig, BrokerEvent, MAX_QUEUED_PER_CONNECTION, listen};
use rand_core::OsRng;
use tokio::sync::mpsc::Receiver;

/// Beyond this something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Lab {
    broker: Broker,
    events: Receiver<BrokerEvent>,
    server: CurveKey,
    commands: SocketAddr,
    heartbeats: SocketAddr,
}

fn lab(change: impl FnOnce(&mut BrokerConfig)) -> Lab {
    let secret = Arc::new(CurveSecret::generate(&mut OsRng));
    let server = secret.public();
    let mut config = BrokerConfig::new(secret, 65_536);
    change(&mut config);
    let bind = || listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let (commands, heartbeats) = (bind(), bind());
    let addresses = [&commands, &heartbeats].map(|l| l.local_addr().expect("it is bound"));
    let (broker, events) = Broker::start(config, commands, heartbeats).expect("a broker");
    Lab { broker, events, server, commands: addresses[0], heartbeats: addresses[1] }
}

impl Lab {
    fn event(&mut self) -> BrokerEvent {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.events.try_recv() {
                Ok(event) => return event,
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("no event in time: {error}"),
            }
        }
    }

    fn input(&mut self) -> Input {
        loop {
            if let BrokerEvent::Input(input) = self.event() {
                return input;
            }
        }
    }

    fn handshake(&mut self) -> ConnId {
        match self.input() {
            Input::Handshake { conn, .. } => conn,
            other => panic!("a handshake, not {other:?}"),
        }
    }

    fn node(&self) -> Node {
        let secret = Arc::new(CurveSecret::generate(&mut OsRng));
        Node::new(self.commands, Role::Dealer { secret, server: self.server })
    }

    /// A node whose key was accepted.
    fn opened(&mut self) -> (Node, ConnId) {
        let mut node = self.node();
        node.prove();
        let conn = self.handshake();
        self.broker.accept(conn);
        assert!(matches!(self.input(), Input::Opened { conn: c } if c == conn));
        node.until(|peer, _| peer.is_open());
        (node, conn)
    }

    fn wait(&self, what: &str, done: impl Fn(&Broker) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(&self.broker) {
            assert!(Instant::now() < end, "{what} does not happen");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A peer of the core on a blocking socket.
struct Node {
    stream: TcpStream,
    peer: Peer,
}

impl Node {
    fn new(to: SocketAddr, role: Role) -> Node {
        let stream = TcpStream::connect(to).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let limits = Limits { max_body: 4 << 20, ping: None };
        Node { stream, peer: Peer::new(role, limits, Millis(0), &mut OsRng) }
    }

    fn flush(&mut self) {
        let bytes = self.peer.transmit().to_vec();
        self.stream.write_all(&bytes).expect("the broker reads");
        self.peer.sent(bytes.len());
    }

    /// Goes as far as INITIATE: greeting and WELCOME have known lengths.
    fn prove(&mut self) {
        for len in [64, 170] {
            self.flush();
            let mut bytes = vec![0; len];
            self.stream.read_exact(&mut bytes).expect("the broker answers in time");
            let event = self.peer.receive(Millis(0), &mut &bytes[..]).expect("the broker is understood");
            assert_eq!(event, None);
        }
        self.flush();
    }

    /// Writes and reads until `done`, told how many messages came.
    fn until(&mut self, done: impl Fn(&Peer, usize) -> bool) -> usize {
        let mut messages = 0;
        let mut buffer = [0; 65_536];
        self.flush();
        while !done(&self.peer, messages) {
            let count = self.stream.read(&mut buffer).expect("the broker answers in time");
            assert_ne!(count, 0, "the broker closed");
            let mut bytes = &buffer[..count];
            while let Some(event) =
                self.peer.receive(Millis(0), &mut bytes).expect("the broker is understood")
            {
                messages += usize::from(matches!(event, Event::Message { .. }));
            }
            self.flush();
        }
        messages
    }

    /// Whether the broker has closed, within this time.
    fn is_closed(&mut self, within: Duration) -> bool {
        self.stream.set_read_timeout(Some(within)).expect("a socket");
        let mut buffer = [0; 1 << 16];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
                Err(_) => return true,
            }
        }
    }
}

const SOON: Duration = Duration::from_millis(300);

#[test]
fn frames_go_both_ways() {
    let mut lab = lab(|_| ());
    let (mut node, conn) = lab.opened();
    node.peer.send(b"head", b"body").expect("it is open");
    node.flush();
    match lab.input() {
        Input::Frames { conn: c, header, body } => {
            assert_eq!((c, &header[..], &body[..]), (conn, &b"head"[..], &b"body"[..]));
        }
        other => panic!("frames, not {other:?}"),
    }
    lab.broker.send(conn, b"h".to_vec(), vec![7; 100_000]);
    lab.broker.send(conn, b"h".to_vec(), b"two".to_vec());
    assert_eq!(node.until(|_, messages| messages == 2), 2);
    lab.wait("an empty queue", |broker| broker.queued() == 0);
    lab.broker.close(conn);
    assert!(node.is_closed(PATIENCE));
    assert!(matches!(lab.input(), Input::Closed { conn: c } if c == conn));
    assert_eq!(lab.broker.connections(), (0, 0));
}

#[test]
fn a_refused_node_is_held_and_then_closed() {
    let mut lab = lab(|config| config.hold_refused = Millis(1500));
    let mut node = lab.node();
    node.prove();
    let conn = lab.handshake();
    lab.broker.refuse(conn);
    let start = Instant::now();
    node.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    assert_eq!(node.stream.read(&mut [0; 64]).expect("an end"), 0, "nothing is said");
    assert!(start.elapsed() >= Duration::from_millis(1200), "it was held");
    assert!(matches!(lab.input(), Input::Closed { conn: c } if c == conn));
}

#[test]
fn a_wrong_server_key_is_held_too() {
    let lab = lab(|config| config.hold_refused = Millis(1500));
    let secret = Arc::new(CurveSecret::generate(&mut OsRng));
    let wrong = CurveSecret::generate(&mut OsRng).public();
    let mut node = Node::new(lab.commands, Role::Dealer { secret, server: wrong });
    node.stream.read_exact(&mut [0; 64]).expect("a greeting");
    let greeting = Peer::new(Role::Publisher, Limits { max_body: 0, ping: None }, Millis(0), &mut OsRng);
    let mut greeting = greeting.transmit().to_vec();
    greeting[12..17].copy_from_slice(b"CURVE");
    node.peer.receive(Millis(0), &mut &greeting[..]).expect("a greeting");
    node.flush();
    assert!(!node.is_closed(SOON));
    assert!(node.is_closed(PATIENCE));
}

#[test]
fn half_open_connections_are_bounded_for_an_address_and_in_all() {
    let mut lab = lab(|config| {
        config.max_half_open = 4;
        config.max_half_open_per_address = 3;
    });
    let mut silent: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(lab.commands).expect("a port")).collect();
    for stream in &mut silent {
        // Its greeting shows that it was taken.
        stream.read_exact(&mut [0; 64]).expect("a greeting");
    }
    assert!(lab.node().is_closed(PATIENCE), "the fourth of this address");
    // Of another address one more, and the next waits in the kernel until there is room.
    let from = |last: u8| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).expect("a free port");
        socket.connect(&lab.commands.into()).expect("the kernel takes it");
        TcpStream::from(socket)
    };
    let mut other = from(2);
    other.read_exact(&mut [0; 64]).expect("a greeting");
    let mut waiting = from(3);
    waiting.set_read_timeout(Some(SOON)).expect("a socket");
    assert!(waiting.read_exact(&mut [0; 64]).is_err(), "no greeting yet");
    drop(silent.pop());
    waiting.set_read_timeout(Some(PATIENCE)).expect("a socket");
    waiting.read_exact(&mut [0; 64]).expect("a greeting now");
    drop((silent, other, waiting));
    lab.opened();
}

#[test]
fn connections_are_bounded_and_subscribers_get_half() {
    let lab = lab(|config| config.max_connections = 4);
    let mut subscribers: Vec<Node> = (0..3).map(|_| Node::new(lab.heartbeats, Role::Subscriber)).collect();
    for node in &mut subscribers[..2] {
        node.until(|peer, _| peer.is_open());
    }
    assert!(subscribers[2].is_closed(PATIENCE), "the third subscriber");
    let mut nodes: Vec<Node> = (0..3).map(|_| lab.node()).collect();
    assert!(!nodes[0].is_closed(SOON) && !nodes[1].is_closed(SOON));
    assert!(nodes[2].is_closed(PATIENCE), "the fifth of all");
}

#[test]
fn an_address_may_be_bounded() {
    let mut lab = lab(|config| config.max_per_address = Some(2));
    let _two = [lab.opened(), lab.opened()];
    assert!(lab.node().is_closed(PATIENCE));
}

#[test]
fn a_node_that_does_not_read_is_closed_at_its_bound() {
    let mut lab = lab(|_| ());
    let (mut deaf, conn) = lab.opened();
    let (mut node, other) = lab.opened();
    let message = vec![7; 100_000];
    // The kernel takes some megabytes; then they wait here.
    for _ in 0..200 {
        lab.broker.send(conn, b"h".to_vec(), message.clone());
        assert!(lab.broker.queued() < 25 << 20);
    }
    loop {
        match lab.input() {
            Input::Closed { conn: c } if c == conn => break,
            Input::Closed { .. } => panic!("the other one was closed"),
            _ => {}
        }
    }
    lab.wait("a queue within the bound", |broker| broker.queued() <= MAX_QUEUED_PER_CONNECTION);
    assert!(deaf.is_closed(PATIENCE));
    lab.broker.send(other, b"h".to_vec(), message);
    assert_eq!(node.until(|_, messages| messages == 1), 1);
}

#[test]
fn what_waits_in_all_is_bounded() {
    const MOST: usize = 3 << 20;
    let mut lab = lab(|config| config.max_queued = MOST);
    let mut deaf: Vec<(Node, ConnId)> = (0..12).map(|_| lab.opened()).collect();
    let (mut node, reads) = lab.opened();
    let message = vec![7; 100_000];
    let mut closed = Vec::new();
    let mut sent = 0;
    // In turn, so that nobody comes to its own bound of 1 MB before all together come to theirs.
    while closed.is_empty() {
        for (_, conn) in &deaf {
            lab.broker.send(*conn, b"h".to_vec(), message.clone());
            sent += message.len();
        }
        lab.wait("the round", |broker| broker.queued() <= MOST + message.len());
        while let Ok(event) = lab.events.try_recv() {
            if let BrokerEvent::Input(Input::Closed { conn }) = event {
                closed.push(conn);
            }
        }
        assert!(sent <= 1 << 30, "the kernel takes everything");
    }
    assert!(closed.len() < deaf.len(), "only who was in the way: {} of {}", closed.len(), deaf.len());
    assert!(!closed.contains(&reads));
    for (node, conn) in &mut deaf {
        assert!(!closed.contains(conn) || node.is_closed(PATIENCE));
    }
    // Who takes what it is sent is not closed however much waits for others.
    lab.broker.send(reads, b"h".to_vec(), message);
    assert_eq!(node.until(|_, messages| messages == 1), 1);
}

#[test]
fn held_connections_are_bounded_and_the_oldest_go_first() {
    let mut lab = lab(|config| config.max_connections = 16);
    let (mut refused, mut closed) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let mut node = lab.node();
        node.prove();
        let conn = loop {
            match lab.input() {
                Input::Handshake { conn, .. } => break conn,
                Input::Closed { conn } => closed.push(conn),
                other => panic!("a handshake, not {other:?}"),
            }
        };
        lab.broker.refuse(conn);
        refused.push((node, conn));
    }
    // A quarter of all is held, each for 30 s; the two oldest made room.
    while closed.len() < 2 {
        match lab.input() {
            Input::Closed { conn } => closed.push(conn),
            other => panic!("an end, not {other:?}"),
        }
    }
    assert_eq!(closed, [refused[0].1, refused[1].1]);
    for (at, (node, _)) in refused.iter_mut().enumerate() {
        assert_eq!(node.is_closed(if at < 2 { PATIENCE } else { SOON / 4 }), at < 2, "number {at}");
    }
}

#[test]
fn room_is_told_when_the_queue_has_drained() {
    let mut lab = lab(|_| ());
    let mut nodes: Vec<(Node, ConnId)> = (0..12).map(|_| lab.opened()).collect();
    assert!(lab.broker.has_room());
    let mut sent = 0;
    while lab.broker.has_room() {
        // In turn, so that nobody comes to its own bound.
        let (_, conn) = nodes[sent % nodes.len()];
        lab.broker.send(conn, b"h".to_vec(), vec![7; 200_000]);
        sent += 1;
        assert!(sent * 200_000 <= 1 << 30, "the kernel takes everything");
    }
    assert!(lab.broker.queued() >= BULK_ROOM);
    let readers: Vec<_> = nodes
        .drain(..)
        .enumerate()
        .map(|(i, (mut node, _))| {
            let share = sent / 12 + usize::from(i < sent % 12);
            std::thread::spawn(move || node.until(|_, messages| messages == share))
        })
        .collect();
    assert!(matches!(lab.event(), BrokerEvent::Room));
    assert!(lab.broker.has_room());
    let read: usize = readers.into_iter().map(|r| r.join().expect("a reader")).sum();
    assert_eq!(read, sent);
}

#[test]
fn a_subscriber_that_does_not_read_misses_the_newest() {
    let lab = lab(|_| ());
    let mut deaf = Node::new(lab.heartbeats, Role::Subscriber);
    deaf.until(|peer, _| peer.is_open());
    lab.wait("the subscription", |broker| broker.connections() == (0, 1));
    let mut published = 0;
    while lab.broker.queued() < MAX_QUEUED_PER_CONNECTION - 200_000 {
        lab.broker.publish(b"h".to_vec(), vec![7; 100_000]);
        published += 1;
        // Each has gone to the kernel, or is counted.
        std::thread::sleep(Duration::from_millis(1));
        assert!(published < 1000, "the kernel takes everything");
    }
    for _ in 0..50 {
        lab.broker.publish(b"h".to_vec(), vec![7; 100_000]);
    }
    lab.wait("a pause", |broker| broker.queued() <= MAX_QUEUED_PER_CONNECTION);
    let heard = deaf.until(|_, messages| messages >= published);
    assert!(heard < published + 50, "some were dropped");
    lab.wait("an empty queue", |broker| broker.queued() == 0);
    assert_eq!(lab.broker.connections(), (0, 1));
}

#[test]
fn stopping_does_not_wait_for_a_driver_that_is_busy() {
    let mut lab = lab(|_| ());
    let (mut node, _) = lab.opened();
    // More than the channel of events holds; nobody takes them.
    for _ in 0..3000 {
        node.peer.send(b"h", b"b").expect("it is open");
    }
    node.flush();
    let start = Instant::now();
    lab.broker.stop();
    assert!(start.elapsed() < PATIENCE);
    drop(lab.events);
}
