//! What decision 12 says must hold, a test for each. Points 2 (half-open and per-address counts) and 15 are the
//! broker's and tested there; 13 is `recorded`'s splits.

use pushy_core::curve_key::CurveKey;
use pushy_core::time::Millis;
use pushy_core::zmtp::{
    CurveSecret, Event, HANDSHAKE_DEADLINE, Limits, MAX_HEADER, MAX_SUBSCRIPTIONS, Peer, Refusal, Role,
    encode_plain,
};

use crate::ends::*;
use crate::forger::Forger;

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
    }
}

#[test]
fn d12_1_greetings() {
    fn check(change: impl Fn(&mut Vec<u8>), expected: Result<usize, Refusal>) {
        let mut greeting = output(&mut dealer());
        change(&mut greeting);
        let mut server = router();
        assert_eq!(feed(&mut server, &greeting).map(|events| events.len()), expected, "{greeting:?}");
    }
    check(|_| (), Ok(0));
    check(|g| g[32] = 1, Ok(0)); // as-server is ignored
    check(|g| g[32] = 0xff, Ok(0));
    check(|g| g[33..].fill(7), Ok(0)); // padding
    check(|g| g[1..9].fill(7), Ok(0)); // length inside the signature
    check(|g| g[11] = 0, Ok(0)); // 3.0
    check(|g| g[10] = 4, Ok(0)); // spoken down
    check(|g| g[0] = 0, Err(Refusal::NotZmtp));
    check(|g| g[9] = 0x7e, Err(Refusal::NotZmtp));
    check(|g| g[10] = 2, Err(Refusal::OldVersion));
    // A ZMTP 2.0 peer sends no more than this and waits.
    check(|g| *g = vec![255, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1], Err(Refusal::OldVersion));
    // ZMTP 1.0, and a browser.
    check(|g| *g = vec![1, 0], Err(Refusal::NotZmtp));
    check(|g| *g = b"GET / HTTP/1.1\r\n".to_vec(), Err(Refusal::NotZmtp));
}

#[test]
fn d12_2_the_handshake_has_ten_seconds() {
    let (mut fresh, mut greeted, mut judged) = (router(), router(), router());
    feed(&mut greeted, &output(&mut dealer())).unwrap();
    until_judged(&mut judged, &mut dealer());
    for peer in [&mut fresh, &mut greeted, &mut judged] {
        let end = START + HANDSHAKE_DEADLINE;
        assert_eq!(peer.next_deadline(), Some(end));
        assert_eq!(peer.tick(end - Millis(1)), Ok(()));
        assert_eq!(peer.tick(end), Err(Refusal::Deadline));
        assert_eq!(peer.accept(end), Err(Refusal::Ended));
        assert_eq!(peer.transmit(), b"");
        assert_eq!(peer.next_deadline(), None);
    }
}

#[test]
fn d12_2_little_is_taken_before_ready() {
    // A command of 512 bytes is read (and is no HELLO), one of 513 not even begun with.
    fn check(head: &[u8], expected: Result<usize, Refusal>) {
        let mut server = router();
        feed(&mut server, &output(&mut dealer())).unwrap();
        assert_eq!(feed(&mut server, head).map(|events| events.len()), expected);
    }
    check(&[6, 0, 0, 0, 0, 0, 0, 2, 0], Ok(0));
    check(&[6, 0, 0, 0, 0, 0, 0, 2, 1], Err(Refusal::TooLong));
    check(&[6, 0xff, 0, 0, 0, 0, 0, 0, 1], Err(Refusal::TooLong));
    check(&[[6, 0, 0, 0, 0, 0, 0, 2, 0].as_slice(), &[5; 512]].concat(), Err(Refusal::Command));
    // All that a whole handshake takes.
    let (mut server, mut client) = (router(), dealer());
    let talk = converse(&mut server, &mut client).unwrap();
    assert!(talk.up.len() <= 2048 && talk.down.len() <= 2048);
}

/// A HELLO, WELCOME, INITIATE or READY in a frame of another length.
#[test]
fn d12_3_exact_lengths() {
    let steps = steps();
    for (i, step) in steps.iter().enumerate() {
        let body = body_of(step);
        for other in [&body[..body.len() - 1], &[body, &[0]].concat()] {
            let outcome = replay(&steps[..i], &command(other));
            let expected = if i < 2 { Refusal::Length } else { Refusal::Box };
            assert_eq!(outcome, Err(expected), "step {i} with {} bytes", other.len());
        }
    }
    for (i, name) in [&b"\x05HELLO"[..], b"\x07WELCOME", b"\x08INITIATE", b"\x05READY"].iter().enumerate() {
        assert_eq!(replay(&steps[..i], &command(name)), Err(Refusal::Length));
        assert_eq!(replay(&steps[..i], &command(b"\x05OTHER")), Err(Refusal::Command));
    }
}

#[test]
fn d12_3_low_order_points_are_refused() {
    // The eight small-order points of Curve25519 all give the zero secret; three of them here.
    let one = std::array::from_fn(|i| u8::from(i == 0));
    let minus_one = std::array::from_fn(|i| [0xec, 0xff, 0x7f][usize::from(i > 0) + usize::from(i > 30)]);
    for weak in [[0; 32], one, minus_one] {
        let mut server = router();
        feed(&mut server, &output(&mut dealer())).unwrap();
        let mut hello = steps()[0].clone();
        hello[2 + 80..2 + 112].copy_from_slice(&weak);
        assert_eq!(feed(&mut server, &hello), Err(Refusal::WeakKey));

        let mut client = peer(Role::Dealer { secret: secret(2), server: CurveKey(weak) }, 12);
        assert_eq!(feed(&mut client, &output(&mut router())), Err(Refusal::WeakKey));
    }
}

#[test]
fn d12_4_a_cookie_is_for_one_connection_once() {
    // A recorded INITIATE on a connection of its own: another cookie, another transient key.
    let steps = steps();
    let mut other = peer(Role::Router { secret: secret(1) }, 99);
    feed(&mut other, &output(&mut dealer())).unwrap();
    feed(&mut other, &steps[0]).unwrap();
    assert_eq!(feed(&mut other, &steps[2]), Err(Refusal::Cookie));
    // Twice on its own connection: after the first nothing is taken.
    let (mut server, mut client) = (router(), dealer());
    until_judged(&mut server, &mut client);
    assert_eq!(feed(&mut server, &steps[2]), Err(Refusal::Early));
}

#[test]
fn d12_5_the_vouch_is_for_this_connection_and_this_server() {
    // What the vouch says and who seals it, by a client that makes up its own INITIATE.
    fn check(vouched: [CurveKey; 2], sealed_by: &Forger, claims: CurveKey, expected: Result<usize, Refusal>) {
        let mut server = router();
        let transient = Forger::new(4);
        feed(&mut server, &output(&mut dealer())).unwrap();
        output(&mut server);
        feed(&mut server, &transient.hello()).unwrap();
        let initiate = transient.initiate(&output(&mut server), vouched, sealed_by, claims);
        assert_eq!(feed(&mut server, &initiate).map(|events| events.len()), expected);
    }
    let (transient, node, thief) = (Forger::new(4).public(), Forger::new(2), Forger::new(3));
    check([transient, server_key()], &node, node.public(), Ok(1));
    check([transient, server_key()], &thief, thief.public(), Ok(1));
    // The key of another node; a vouch for another server, where the node is a client too; an old one.
    check([transient, server_key()], &thief, node.public(), Err(Refusal::Vouch));
    check([transient, thief.public()], &node, node.public(), Err(Refusal::Vouch));
    check([thief.public(), server_key()], &node, node.public(), Err(Refusal::Vouch));
    check([transient, server_key()], &node, CurveKey([0; 32]), Err(Refusal::WeakKey));
}

#[test]
fn d12_6_nonces_rise() {
    let (mut server, mut client) = open_curve();
    client.send(b"a", b"b").unwrap();
    let first = output(&mut client);
    client.send(b"c", b"d").unwrap();
    let second = output(&mut client);
    assert_eq!(feed(&mut server, &second), Ok(vec![message(b"c", b"d")]));
    assert_eq!(feed(&mut server, &first), Err(Refusal::Nonce));

    let (mut server, mut client) = open_curve();
    server.send(b"a", b"b").unwrap();
    let first = output(&mut server);
    assert_eq!(feed(&mut client, &first), Ok(vec![message(b"a", b"b")]));
    assert_eq!(feed(&mut client, &first), Err(Refusal::Nonce));
    // Our own message sent back to us is sealed for the other direction.
    client = open_curve().1;
    client.send(b"a", b"b").unwrap();
    let own = output(&mut client);
    assert_eq!(feed(&mut client, &own), Err(Refusal::Box));
}

#[test]
fn d12_7_nothing_happens_before_the_key_is_judged() {
    let (mut server, mut client) = (router(), dealer());
    let key = until_judged(&mut server, &mut client);
    assert_eq!(key, node_key());
    assert!(!server.is_open());
    assert_eq!(output(&mut server), b"");
    assert_eq!(server.send(b"a", b"b"), Err(Refusal::Ended));
    server.accept(START).unwrap();
    assert_eq!(feed(&mut client, &output(&mut server)), Ok(vec![Event::Opened]));
    // There is only one handshake to accept.
    assert_eq!(server.accept(START), Err(Refusal::Ended));
    assert_eq!(router().accept(START), Err(Refusal::Ended));
}

#[test]
fn d12_8_mechanisms_are_not_negotiated() {
    let roles = || [router(), dealer(), peer(Role::Publisher, 1), peer(Role::Subscriber, 1)];
    for (i, mut one) in roles().into_iter().enumerate() {
        for (j, mut other) in roles().into_iter().enumerate() {
            let same = (i < 2) == (j < 2);
            let expected = if same { Ok(0) } else { Err(Refusal::Mechanism) };
            assert_eq!(feed(&mut one, &output(&mut other)).map(|e| e.len()), expected, "{i} {j}");
            one = roles().into_iter().nth(i).unwrap();
        }
    }
}

#[test]
fn d12_9_metadata() {
    fn check(properties: &[(&[u8], &[u8])], tail: &[u8], expected: Result<usize, Refusal>) {
        let mut ready = b"\x05READY".to_vec();
        for (name, value) in properties {
            ready.push(name.len() as u8);
            ready.extend(*name);
            ready.extend((value.len() as u32).to_be_bytes());
            ready.extend(*value);
        }
        ready.extend(tail);
        let mut server = peer(Role::Publisher, 1);
        feed(&mut server, &output(&mut peer(Role::Subscriber, 1))).unwrap();
        let outcome = feed(&mut server, &command(&ready)).map(|events| events.len());
        assert_eq!(outcome, expected, "{properties:?} {tail:?}");
    }
    let sub = (&b"Socket-Type"[..], &b"SUB"[..]);
    check(&[sub], b"", Ok(1));
    check(&[(b"socket-type", b"SUB")], b"", Ok(1));
    check(&[sub, (b"Identity", b""), (b"X-Unknown", &[0; 90])], b"", Ok(1));
    check(&[(b"Identity", &[7; 255]), sub], b"", Ok(1));
    check(&[(b"Identity", &[7; 256]), sub], b"", Err(Refusal::Metadata));
    check(&[], b"", Err(Refusal::SocketType));
    check(&[(b"Socket-Type", b"DEALER")], b"", Err(Refusal::SocketType));
    check(&[(b"Socket-Type", b"XSUB")], b"", Err(Refusal::SocketType));
    check(&[(b"Socket-Type", b"sub")], b"", Err(Refusal::SocketType));
    check(&[sub, (b"Socket-Type", b"REQ")], b"", Err(Refusal::SocketType));
    check(&[sub], b"\x09", Err(Refusal::Metadata));
    check(&[sub], b"\x01X\xff\xff\xff\xff", Err(Refusal::Metadata));
    check(&[sub, (b"", b"x")], b"", Err(Refusal::Metadata));
}

#[test]
fn d12_10_messages_have_two_frames_within_limits() {
    fn check(frames: &[u8], expected: Result<usize, Refusal>) {
        let mut client = open_null().1;
        assert_eq!(feed(&mut client, frames).map(|events| events.len()), expected);
    }
    let long = |flags: u8, len: usize, sent: usize| {
        let head = [&[flags | 2][..], &(len as u64).to_be_bytes()].concat();
        [head, vec![0; sent]].concat()
    };
    check(b"\x01\x01a\x00\x01b", Ok(1));
    check(b"\x00\x01a", Err(Refusal::FrameCount));
    check(b"\x01\x01a\x01\x01b", Err(Refusal::FrameCount));
    check(&long(1, MAX_HEADER, MAX_HEADER), Ok(0));
    check(&long(1, MAX_HEADER + 1, 0), Err(Refusal::TooLong));
    check(&[b"\x01\x01a".to_vec(), long(0, LIMITS.max_body, LIMITS.max_body)].concat(), Ok(1));
    check(&[b"\x01\x01a".to_vec(), long(0, LIMITS.max_body + 1, 0)].concat(), Err(Refusal::TooLong));
    check(&long(1, usize::MAX, 0), Err(Refusal::TooLong));
    check(b"\x08\x01a", Err(Refusal::Flags));
    check(b"\x05\x01a", Err(Refusal::Flags));
}

#[test]
fn d12_10_limits_hold_inside_of_boxes() {
    let big = vec![0; LIMITS.max_body + 1];
    let (mut server, mut client) = open_curve();
    client.send(b"", &big[1..]).unwrap();
    assert_eq!(feed(&mut server, &output(&mut client)).map(|e| e.len()), Ok(1));
    client.send(b"", &big).unwrap();
    assert_eq!(feed(&mut server, &output(&mut client)), Err(Refusal::TooLong));
    let (mut server, mut client) = open_curve();
    client.send(&big[..=MAX_HEADER], b"").unwrap();
    assert_eq!(feed(&mut server, &output(&mut client)), Err(Refusal::TooLong));
}

#[test]
fn d12_11_subscriptions() {
    fn check(frames: &[&[u8]], expected: Result<bool, Refusal>) {
        let mut server = unsubscribed();
        let outcome = frames.iter().try_for_each(|f| feed(&mut server, f).map(|_| ()));
        assert_eq!(outcome.map(|()| server.is_subscribed()), expected, "{frames:?}");
    }
    check(&[], Ok(false));
    check(&[b"\x00\x01\x01"], Ok(true)); // 3.0: as a message
    check(&[&command(b"\x09SUBSCRIBE")], Ok(true)); // 3.1: as a command
    check(&[b"\x00\x02\x01V"], Ok(false)); // a topic is only counted
    check(&[&command(b"\x09SUBSCRIBEVersion")], Ok(false));
    check(&[b"\x00\x01\x01", b"\x00\x01\x00"], Ok(false));
    check(&[b"\x00\x01\x01", &command(b"\x06CANCEL")], Ok(false));
    check(&[b"\x00\x01\x01", b"\x00\x01\x01", b"\x00\x01\x00"], Ok(true));
    check(&[b"\x00\x01\x00"], Ok(false));
    check(&[b"\x00\x00"], Ok(false));
    check(&[b"\x00\x03abc"], Ok(false));
    check(&[b"\x01\x01\x01"], Err(Refusal::FrameCount));
    let many = [&b"\x00\x02\x01V"[..]; MAX_SUBSCRIPTIONS as usize + 1];
    check(&many[1..], Ok(false));
    check(&many, Err(Refusal::Subscriptions));
    // Nobody who has not subscribed is told anything.
    let mut server = unsubscribed();
    server.send(b"a", b"b").unwrap();
    server.send_plain(&encode_plain(b"a", b"b")).unwrap();
    assert_eq!(server.transmit(), b"");
}

#[test]
fn d12_11_subscriber_asks_each_version_in_its_way() {
    for (minor, expected) in [(0, b"\x00\x01\x01".to_vec()), (1, command(b"\x09SUBSCRIBE"))] {
        let (mut server, mut client) = (peer(Role::Publisher, 1), peer(Role::Subscriber, 2));
        let mut greeting = output(&mut server);
        greeting[11] = minor;
        feed(&mut server, &output(&mut client)).unwrap();
        feed(&mut client, &greeting).unwrap();
        output(&mut client);
        feed(&mut client, &output(&mut server)).unwrap();
        assert_eq!(output(&mut client), expected);
    }
}

#[test]
fn d12_12_ping_only_to_those_who_know_it() {
    let limits = Limits { ping: Some(Millis(500)), ..LIMITS };
    for minor in [0, 1] {
        let mut server = Peer::new(Role::Router { secret: secret(1) }, limits, START, &mut rng(1));
        let mut client = dealer();
        let mut greeting = output(&mut client);
        greeting[11] = minor;
        feed(&mut server, &greeting).unwrap();
        converse(&mut server, &mut client).unwrap();
        if minor == 0 {
            assert_eq!(server.next_deadline(), None);
            continue;
        }
        let due = START + Millis(500);
        assert_eq!(server.next_deadline(), Some(due));
        server.tick(due).unwrap();
        let ping = output(&mut server);
        assert!(!ping.is_empty());
        // Answered, it starts over.
        feed(&mut client, &ping).unwrap();
        let mut pong = &output(&mut client)[..];
        assert_eq!(server.receive(due, &mut pong), Ok(None));
        assert_eq!(server.next_deadline(), Some(due + Millis(500)));
        // Not answered, it ends.
        server.tick(due + Millis(500)).unwrap();
        assert_eq!(server.next_deadline(), Some(due + Millis(1000)));
        assert_eq!(server.tick(due + Millis(1000)), Err(Refusal::Silent));
    }
}

#[test]
fn d12_12_pong_echoes_at_most_sixteen_bytes() {
    fn check(ping: &[u8], expected: Result<Vec<u8>, Refusal>) {
        let mut client = open_null().1;
        let outcome = feed(&mut client, &command(ping)).map(|_| output(&mut client));
        assert_eq!(outcome, expected, "{ping:?}");
    }
    check(b"\x04PING\0\0", Ok(command(b"\x04PONG")));
    check(b"\x04PING\0\x11context", Ok(command(b"\x04PONGcontext")));
    check(b"\x04PING\0\x000123456789abcdef", Ok(command(b"\x04PONG0123456789abcdef")));
    check(b"\x04PING\0\x000123456789abcdefg", Err(Refusal::Command));
    check(b"\x04PING\0", Err(Refusal::Command));
    check(b"\x04PONGwhatever", Ok(Vec::new()));
    check(b"\x05THING", Ok(Vec::new()));
    check(b"\x05ERROR\x00", Err(Refusal::PeerError));
    check(b"", Err(Refusal::Command));
    check(b"\x09PING", Err(Refusal::Command));
}

#[test]
fn d12_12_pings_do_not_fill_the_memory() {
    let mut client = open_null().1;
    let pings = command(b"\x04PING\0\x000123456789abcdef").repeat(20_000);
    feed(&mut client, &pings).unwrap();
    assert!(client.transmit().len() < 70_000);
}

#[test]
fn d12_14_what_ended_gives_nothing() {
    let (mut server, mut client) = open_curve();
    server.send(b"a", b"b").unwrap();
    client.send(b"a", b"b").unwrap();
    let mut damaged = output(&mut client);
    damaged[20] ^= 1;
    assert_eq!(feed(&mut server, &damaged), Err(Refusal::Box));
    assert_eq!(server.transmit(), b"");
    assert_eq!(feed(&mut server, b""), Err(Refusal::Ended));
    assert_eq!(format!("{server:?}"), "Peer { kind: Router, open: false, .. }");
}

#[test]
fn curve_pairs_are_those_of_libzmq() {
    // The test pairs of libzmq's zmq_curve(7).
    for (public, secret) in [
        ("Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID", "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"),
        ("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"),
    ] {
        let secret = CurveSecret::from_bytes(&CurveKey::from_z85(secret).unwrap().0);
        assert_eq!(secret.public(), CurveKey::from_z85(public).unwrap());
        assert_eq!(CurveSecret::from_bytes(&secret.to_bytes()).public(), secret.public());
    }
}
