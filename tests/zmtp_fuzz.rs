//! The ZMTP peer under nonsense: a seeded mutation fuzzer over recorded talks, for `PUSHY_FUZZ_SECONDS` (2 when not set),
//! and what an attempt may cost in memory (decision 12, acceptance 6).
//!
//! A program of its own because it counts allocations. `PUSHY_FUZZ_SEED` repeats a run; a failure prints the
//! seed and number of its case.

mod alloc;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloc::{live, peak};
use pushy_core::time::Millis;
use pushy_core::zmtp::{CurveSecret, Event, Limits, Peer, Refusal, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const LIMITS: Limits = Limits { max_body: 4096, ping: Some(Millis(500)) };
/// Decision 12: what an attempt may hold before it is authenticated.
const ATTEMPT: isize = 16 * 1024;
/// What an idle connection may hold.
const IDLE: isize = 512;

/// One of the four ends. The same number gives the same end.
fn end(which: usize, secrets: &[Arc<CurveSecret>; 2]) -> Peer {
    let [server, node] = secrets.clone();
    let role = match which {
        0 => Role::Router { secret: server },
        1 => Role::Dealer { server: server.public(), secret: node },
        2 => Role::Publisher,
        _ => Role::Subscriber,
    };
    Peer::new(role, LIMITS, Millis(0), &mut ChaCha8Rng::seed_from_u64(which as u64))
}

fn secrets() -> [Arc<CurveSecret>; 2] {
    [1, 2].map(|seed| Arc::new(CurveSecret::generate(&mut ChaCha8Rng::seed_from_u64(seed))))
}

fn output(peer: &mut Peer) -> Vec<u8> {
    let bytes = peer.transmit().to_vec();
    peer.sent(bytes.len());
    bytes
}

fn feed(peer: &mut Peer, mut bytes: &[u8]) -> Result<usize, Refusal> {
    let mut messages = 0;
    while let Some(event) = peer.receive(Millis(0), &mut bytes)? {
        match event {
            Event::Authenticate { .. } => peer.accept(Millis(0))?,
            Event::Opened => {}
            Event::Message { header, body } => {
                assert!(header.len() <= 2048 && body.len() <= LIMITS.max_body);
                messages += 1;
            }
        }
    }
    assert!(bytes.is_empty(), "bytes are left though nothing happened");
    Ok(messages)
}

/// What each of the four ends hears from its counterpart: handshake and two messages.
fn heard(secrets: &[Arc<CurveSecret>; 2]) -> [Vec<u8>; 4] {
    let mut all: [Vec<u8>; 4] = Default::default();
    for pair in [0, 2] {
        let (mut server, mut client) = (end(pair, secrets), end(pair + 1, secrets));
        for round in 0..10 {
            if round > 7 {
                server.send(b"header", &[b'd'; 300]).expect("the handshake is over");
                if pair == 0 {
                    client.send(b"header", &[b'u'; 300]).expect("the handshake is over");
                }
            }
            let (up, down) = (output(&mut client), output(&mut server));
            feed(&mut server, &up).ok();
            feed(&mut client, &down).expect("our own server is understood");
            all[pair].extend(up);
            all[pair + 1].extend(down);
        }
    }
    all
}

/// Bends a talk: flips, cuts, doubles, inserts, splices, sets lengths.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut ChaCha8Rng) {
    let mut below = |n: usize| random.next_u32() as usize % n.max(1);
    for _ in 0..1 + below(4) {
        let at = below(bytes.len());
        let len = 1 + below(64).min(bytes.len() - at.min(bytes.len()));
        match below(8) {
            0 => bytes.truncate(at),
            1 => {
                let to = (at + len).min(bytes.len());
                bytes.drain(at.min(to)..to);
            }
            2 => {
                let part = bytes[at.min(bytes.len())..(at + len).min(bytes.len())].to_vec();
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), part);
            }
            3 => {
                let from = below(other.len());
                let part = other[from..(from + 4 * len).min(other.len())].to_vec();
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), part);
            }
            4 => {
                // A frame's head with a length of its own.
                let flags = below(8) as u8;
                let length = [0, 1, 255, 256, 512, 513, 2048, 4096, 1 << 20, usize::MAX][below(10)] as u64;
                let head = [&[flags | 2][..], &length.to_be_bytes()].concat();
                bytes.splice(at.min(bytes.len())..(at + 9).min(bytes.len()), head);
            }
            5 => {
                let value = below(256) as u8;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            _ => {
                let bit = below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
        }
    }
}

/// One case: an end hears a bent talk in pieces of any size.
fn case(number: u64, seed: u64, talks: &[Vec<u8>; 4], secrets: &[Arc<CurveSecret>; 2]) -> Outcome {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(number);
    let which = random.next_u32() as usize % 4;
    let mut bytes = talks[which].clone();
    let other = random.next_u32() as usize % 4;
    mutate(&mut bytes, &talks[other], &mut random);
    let ((open, refusal), held) = peak(|| {
        let mut peer = end(which, secrets);
        let mut rest = &bytes[..];
        let mut refusal = None;
        while !rest.is_empty() && refusal.is_none() {
            let piece = (1 + random.next_u32() as usize % 400).min(rest.len());
            let (now, later) = rest.split_at(piece);
            rest = later;
            refusal = feed(&mut peer, now).err();
            if random.next_u32() & 1 == 0 {
                let waiting = peer.transmit().len();
                peer.sent(waiting);
            }
            if peer.is_open() {
                let _ = peer.send(b"header", b"body");
            }
        }
        if refusal.is_some() {
            assert_eq!(peer.receive(Millis(0), &mut &b"more"[..]), Err(Refusal::Ended));
            assert!(peer.transmit().is_empty() && peer.next_deadline().is_none());
        } else if let Some(at) = peer.next_deadline() {
            // Whatever it waits for, it does not wait for ever.
            if !peer.is_open() {
                assert_eq!(peer.tick(at), Err(Refusal::Deadline));
            }
        }
        (peer.is_open(), refusal)
    });
    assert!(held <= ATTEMPT, "held {held} bytes");
    Outcome { open, refusal }
}

struct Outcome {
    open: bool,
    refusal: Option<Refusal>,
}

#[test]
fn bent_talks_do_no_harm() {
    let number_of = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number_of("PUSHY_FUZZ_SECONDS").unwrap_or(2);
    let seed = number_of("PUSHY_FUZZ_SEED").unwrap_or(1);
    let secrets = secrets();
    let talks = heard(&secrets);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut number, mut open, mut kinds) = (0, 0, std::collections::BTreeMap::new());
    while Instant::now() < end {
        for _ in 0..64 {
            let outcome = catch_unwind(AssertUnwindSafe(|| case(number, seed, &talks, &secrets)));
            let Ok(outcome) = outcome else { panic!("case {number} of PUSHY_FUZZ_SEED={seed}") };
            open += u64::from(outcome.open);
            *kinds.entry(format!("{:?}", outcome.refusal)).or_insert(0u64) += 1;
            number += 1;
        }
    }
    println!("{number} cases in {seconds} s, {open} ended open; {kinds:?}");
    // The fuzzer must get past the door: most kinds of refusal are met within seconds.
    assert!(kinds.len() >= 10, "only {kinds:?}");
}

/// Declared lengths, endless commands, a silent peer: nothing is held that has not arrived.
#[test]
fn an_attempt_holds_little() {
    let secrets = secrets();
    let talks = heard(&secrets);
    let long = [&[6][..], &512u64.to_be_bytes()].concat();
    for (which, talk) in talks.iter().enumerate() {
        for prefix in 0..talk.len() {
            for tail in [&[][..], &[2, 0, 0, 0, 0, 0, 0, 8, 0], &long, &[0xff; 4000], &[4, 255, 5]] {
                let (_, held) = peak(|| {
                    let mut peer = end(which, &secrets);
                    let _ = feed(&mut peer, &talk[..prefix]);
                    let _ = feed(&mut peer, tail);
                    peer
                });
                assert!(held <= ATTEMPT, "{held} bytes for end {which} after {prefix} bytes and {tail:?}");
            }
            if prefix > 400 {
                break;
            }
        }
    }
}

#[test]
fn an_idle_connection_holds_little() {
    let secrets = secrets();
    let talks = heard(&secrets);
    for (which, talk) in talks.iter().enumerate() {
        let before = live();
        let mut peer = end(which, &secrets);
        feed(&mut peer, talk).expect("as recorded");
        output(&mut peer);
        let held = live() - before + size_of::<Peer>() as isize;
        println!("end {which}: {held} bytes idle");
        assert!(peer.is_open() && held <= IDLE, "end {which} holds {held} bytes");
    }
}
