//! Two ends of a connection without a network, with seeded generators: every run has the same bytes.

use std::sync::Arc;

use pushy_core::curve_key::CurveKey;
use pushy_core::time::Millis;
use pushy_core::zmtp::{CurveSecret, Event, Limits, Peer, Refusal, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub(crate) const LIMITS: Limits = Limits { max_body: 4096, ping: None };
pub(crate) const START: Millis = Millis(1_000);

pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub(crate) fn secret(seed: u64) -> Arc<CurveSecret> {
    Arc::new(CurveSecret::generate(&mut rng(seed)))
}

pub(crate) fn server_key() -> CurveKey {
    secret(1).public()
}

pub(crate) fn node_key() -> CurveKey {
    secret(2).public()
}

pub(crate) fn peer(role: Role, seed: u64) -> Peer {
    Peer::new(role, LIMITS, START, &mut rng(seed))
}

pub(crate) fn router() -> Peer {
    peer(Role::Router { secret: secret(1) }, 11)
}

pub(crate) fn dealer() -> Peer {
    peer(Role::Dealer { secret: secret(2), server: server_key() }, 12)
}

/// Takes everything that waits to be written.
pub(crate) fn output(peer: &mut Peer) -> Vec<u8> {
    let bytes = peer.transmit().to_vec();
    peer.sent(bytes.len());
    bytes
}

/// Hands in all the bytes, accepting any key; the events, or the refusal.
pub(crate) fn feed(peer: &mut Peer, mut bytes: &[u8]) -> Result<Vec<Event>, Refusal> {
    let mut events = Vec::new();
    while let Some(event) = peer.receive(START, &mut bytes)? {
        if let Event::Authenticate { .. } = event {
            peer.accept(START)?;
        }
        events.push(event);
    }
    assert!(bytes.is_empty(), "all bytes are taken before `None`");
    Ok(events)
}

/// What two peers said until both were silent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Talk {
    pub(crate) up: Vec<u8>,
    pub(crate) down: Vec<u8>,
}

/// Lets two peers talk until both are silent.
pub(crate) fn converse(server: &mut Peer, client: &mut Peer) -> Result<Talk, Refusal> {
    let mut talk = Talk { up: Vec::new(), down: Vec::new() };
    loop {
        let (up, down) = (output(client), output(server));
        if up.is_empty() && down.is_empty() {
            return Ok(talk);
        }
        feed(server, &up)?;
        feed(client, &down)?;
        talk.up.extend(up);
        talk.down.extend(down);
    }
}

/// Brings a handshake to where the server waits for `accept`; the key it reports.
pub(crate) fn until_judged(server: &mut Peer, client: &mut Peer) -> CurveKey {
    loop {
        let (up, down) = (output(client), output(server));
        let mut bytes = &up[..];
        if let Some(Event::Authenticate { key }) = server.receive(START, &mut bytes).expect("it fits") {
            return key;
        }
        feed(client, &down).expect("it fits");
    }
}

/// The frames HELLO, WELCOME, INITIATE and READY of [`router`] and [`dealer`].
pub(crate) fn steps() -> [Vec<u8>; 4] {
    let talk = converse(&mut router(), &mut dealer()).expect("our own ends understand each other");
    let (hello, initiate) = talk.up[64..].split_at(202);
    let (welcome, ready) = talk.down[64..].split_at(170);
    [hello, welcome, initiate, ready].map(<[u8]>::to_vec)
}

/// Goes through the first steps of [`steps`] and then hands in `frame` as the next.
pub(crate) fn replay(steps: &[Vec<u8>], frame: &[u8]) -> Result<Vec<Event>, Refusal> {
    let (mut server, mut client) = (router(), dealer());
    feed(&mut server, &output(&mut client)).expect("a greeting");
    feed(&mut client, &output(&mut server)).expect("a greeting");
    let mut ends = [server, client];
    for (i, step) in steps.iter().enumerate() {
        feed(&mut ends[i % 2], step).expect("as recorded");
    }
    feed(&mut ends[steps.len() % 2], frame)
}

/// A command in its frame.
pub(crate) fn command(body: &[u8]) -> Vec<u8> {
    let head = match u8::try_from(body.len()) {
        Ok(short) => vec![4, short],
        Err(_) => [&[6][..], &(body.len() as u64).to_be_bytes()].concat(),
    };
    [&head, body].concat()
}

/// The body of a frame.
pub(crate) fn body_of(frame: &[u8]) -> &[u8] {
    &frame[if frame[0] & 2 == 0 { 2 } else { 9 }..]
}

/// Server and client of the command port, past their handshake.
pub(crate) fn open_curve() -> (Peer, Peer) {
    open(router(), dealer())
}

/// Publisher and subscriber, past their handshake and the subscription.
pub(crate) fn open_null() -> (Peer, Peer) {
    open(peer(Role::Publisher, 21), peer(Role::Subscriber, 22))
}

fn open(mut server: Peer, mut client: Peer) -> (Peer, Peer) {
    converse(&mut server, &mut client).expect("our own ends understand each other");
    assert!(server.is_open() && client.is_open());
    (server, client)
}

pub(crate) fn message(header: &[u8], body: &[u8]) -> Event {
    Event::Message { header: header.to_vec(), body: body.to_vec() }
}

/// A publisher whose peer has not subscribed yet.
pub(crate) fn unsubscribed() -> Peer {
    let (mut server, mut client) = (peer(Role::Publisher, 21), peer(Role::Subscriber, 22));
    feed(&mut client, &output(&mut server)).expect("a greeting");
    // Its greeting and READY: the subscription waits for ours.
    feed(&mut server, &output(&mut client)).expect("a READY");
    output(&mut server);
    assert!(server.is_open() && !server.is_subscribed());
    server
}
