//! Two ends of a connection without a network, with seeded generators: every run has the same bytes.

use std::sync::Arc;

use pushy_core::server::CurveKey;
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

/// Lets two peers talk until both are silent; what each sent, and all events.
pub(crate) fn converse(
    server: &mut Peer,
    client: &mut Peer,
) -> Result<(Vec<u8>, Vec<u8>, Vec<Event>), Refusal> {
    let (mut ups, mut downs, mut events) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let (up, down) = (output(client), output(server));
        if up.is_empty() && down.is_empty() {
            return Ok((ups, downs, events));
        }
        events.extend(feed(server, &up)?);
        events.extend(feed(client, &down)?);
        ups.extend(up);
        downs.extend(down);
    }
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
