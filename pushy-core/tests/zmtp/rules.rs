//! What decision 12 says must hold, a test for each.

use pushy_core::zmtp::{Peer, Role, encode_plain};

use crate::ends::*;

#[test]
fn dealer_and_router_talk_both_ways() {
    let (mut server, mut client) = open_curve();
    for size in [0, 1, 200, 222, 223, 255, 256, 4096] {
        let body = vec![b'b'; size];
        client.send(b"head", &body).unwrap();
        assert_eq!(feed(&mut server, &output(&mut client)), Ok(vec![message(b"head", &body)]));
        server.send(b"", &body).unwrap();
        assert_eq!(feed(&mut client, &output(&mut server)), Ok(vec![message(b"", &body)]));
    }
}

#[test]
fn subscriber_hears_publisher() {
    let (mut server, mut client) = open_null();
    assert!(server.is_subscribed());
    server.send(b"head", b"body").unwrap();
    server.send_plain(&encode_plain(b"two", b"same")).unwrap();
    let both = vec![message(b"head", b"body"), message(b"two", b"same")];
    assert_eq!(feed(&mut client, &output(&mut server)), Ok(both));
}

#[test]
fn d12_1_our_greeting_is_there_before_theirs() {
    for mut peer in [router(), dealer(), peer(Role::Publisher, 1), peer(Role::Subscriber, 1)] {
        let greeting = output(&mut peer);
        assert_eq!(greeting.len(), 64);
        assert_eq!(greeting[..12], [255, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1]);
        let _: &Peer = &peer;
    }
}
