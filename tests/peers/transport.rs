//! Broker and channel against libzmq, below the Push Jobs protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pushy_agent::channel::Channels;
use pushy_core::node::{self, Curve, Keys, Port};
use pushy_core::server::{ConnId, CurveKey, Input};
use pushy_core::zmtp::CurveSecret;
use pushy_server::broker::{Broker, BrokerConfig, BrokerEvent, listen};
use rand_core::OsRng;
use tokio::sync::mpsc::Receiver;

use crate::python::Python;

/// libzmq needs a while for its own time-outs; beyond this something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

struct Hub {
    broker: Broker,
    events: Receiver<BrokerEvent>,
    key: CurveKey,
    ports: [u16; 2],
}

impl Hub {
    fn start() -> Hub {
        let secret = Arc::new(CurveSecret::generate(&mut OsRng));
        let bind = || listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let listeners = [bind(), bind()];
        let ports = [0, 1].map(|i: usize| listeners[i].local_addr().expect("it is bound").port());
        let key = secret.public();
        let [commands, heartbeats] = listeners;
        let config = BrokerConfig::new(secret, 65_536);
        let (broker, events) = Broker::start(config, commands, heartbeats).expect("a broker");
        Hub { broker, events, key, ports }
    }

    async fn next(&mut self) -> Input {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time");
            if let BrokerEvent::Input(input) = event.expect("the broker lives") {
                return input;
            }
        }
    }

    async fn handshake(&mut self, key: CurveKey) -> ConnId {
        match self.next().await {
            Input::Handshake { conn, key: proven, .. } => {
                assert_eq!(proven, key);
                conn
            }
            other => panic!("a handshake, not {other:?}"),
        }
    }
}

#[test]
fn libzmq_node_talks_to_our_broker() {
    let mut hub = Hub::start();
    let secret = CurveSecret::generate(&mut OsRng);
    let count = 100;
    let args = [
        "node".into(),
        hex(&hub.key.0),
        hex(&*secret.to_bytes()),
        hub.ports[0].to_string(),
        hub.ports[1].to_string(),
        count.to_string(),
    ];
    let mut peer = Python::start("transport.py", &args);
    runtime().block_on(async {
        let conn = hub.handshake(secret.public()).await;
        hub.broker.accept(conn);
        assert!(matches!(hub.next().await, Input::Opened { conn: c } if c == conn));
        for _ in 0..count {
            match hub.next().await {
                Input::Frames { conn: c, header, body } if c == conn => hub.broker.send(conn, header, body),
                other => panic!("a message, not {other:?}"),
            }
        }
        // The subscription may come later than the hundredth echo.
        while hub.broker.connections() != (1, 1) {
            tokio::task::yield_now().await;
        }
        let publishing = async {
            loop {
                hub.broker.publish(b"head".to_vec(), b"beat".to_vec());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::task::spawn_blocking(move || {
            let line = peer.line();
            peer.finish();
            line
        });
        tokio::select! {
            _ = publishing => unreachable!("it never ends"),
            line = told => assert_eq!(line.expect("the peer ended well"), "ok 100 head|beat"),
        }
        match hub.next().await {
            Input::Closed { conn: c } => assert_eq!(c, conn),
            other => panic!("the end, not {other:?}"),
        }
    });
}

#[test]
fn refused_libzmq_node_is_held_and_told_nothing() {
    let mut hub = Hub::start();
    let secret = CurveSecret::generate(&mut OsRng);
    let args = ["refused".into(), hex(&hub.key.0), hex(&*secret.to_bytes()), hub.ports[0].to_string()];
    let mut peer = Python::start("transport.py", &args);
    runtime().block_on(async {
        let conn = hub.handshake(secret.public()).await;
        hub.broker.refuse(conn);
    });
    // No failed handshake and no second attempt: it is kept waiting.
    assert_eq!(peer.line(), "EVENT_CONNECTED");
    peer.finish();
}

#[test]
fn our_channel_talks_to_libzmq_server() {
    let count = 100;
    let mut peer = Python::start("transport.py", &["server".into(), count.to_string()]);
    let line = peer.line();
    let words: Vec<&str> = line.split(' ').collect();
    let mut server = [0; 32];
    for (i, byte) in server.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&words[0][2 * i..2 * i + 2], 16).expect("hexadecimal");
    }
    runtime().block_on(async {
        let (mut channels, mut events) = Channels::new();
        let keys = Keys(Arc::new(CurveSecret::generate(&mut OsRng)));
        let curve = Curve { server: CurveKey(server), keys };
        channels.connect(1, Port::Command, &format!("tcp://127.0.0.1:{}", words[1]), Some(curve));
        channels.connect(2, Port::Heartbeat, &format!("tcp://localhost:{}", words[2]), None);
        let (mut connected, mut echoed, mut heard, mut drained) = (0, 0, 0, 0);
        while connected < 2 || echoed < count || heard == 0 {
            let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event in time");
            match event.expect("we hold the sender") {
                node::Input::Connected { .. } => connected += 1,
                node::Input::Frames { conn: 1, header, body } => {
                    assert_eq!(header, format!("header {echoed}").into_bytes());
                    assert_eq!(body.len(), echoed * 600);
                    echoed += 1;
                }
                node::Input::Frames { conn: 2, header, body } => {
                    assert_eq!((&header[..], &body[..]), (&b"head"[..], &b"beat"[..]));
                    heard += 1;
                    continue;
                }
                // The large ones are told of when the network has taken them, in order.
                node::Input::Drained { conn: 1, messages } => {
                    assert!(messages > drained && messages <= count as u64, "{messages} after {drained}");
                    drained = messages;
                    continue;
                }
                other => panic!("not {other:?}"),
            }
            // Both connections first, so that no publication is missed.
            if connected == 2 && echoed < count {
                channels.send(1, format!("header {echoed}").into_bytes(), vec![7; echoed * 600]);
            }
        }
        channels.close(1);
        channels.close(2);
    });
    peer.finish();
}
