//! Recorded handshakes: every prefix, every split, every single-bit change (decision 12, acceptance 6).

use proptest::prelude::*;
use pushy_core::zmtp::{Event, Peer, Refusal, Role};

use crate::ends::*;

/// One end and all that the other end said to it: greeting, handshake and two messages.
struct Recording {
    name: &'static str,
    fresh: fn() -> Peer,
    heard: Vec<u8>,
}

fn publisher() -> Peer {
    peer(Role::Publisher, 21)
}

fn subscriber() -> Peer {
    peer(Role::Subscriber, 22)
}

/// The four ends. Generators are seeded, so an end says the same again to the same words.
fn recordings() -> [Recording; 4] {
    let record = |server: fn() -> Peer, client: fn() -> Peer, names: [&'static str; 2]| {
        let (mut one, mut other) = (server(), client());
        let mut talk = converse(&mut one, &mut other).expect("our own ends understand each other");
        for size in [10, 300] {
            one.send(b"header", &vec![b'd'; size]).expect("open");
            // A subscriber has nothing to say.
            if names[1] == "dealer" {
                other.send(b"header", &vec![b'u'; size]).expect("open");
            }
        }
        talk.down.extend(output(&mut one));
        talk.up.extend(output(&mut other));
        [
            Recording { name: names[0], fresh: server, heard: talk.up },
            Recording { name: names[1], fresh: client, heard: talk.down },
        ]
    };
    let [a, b] = record(router, dealer, ["router", "dealer"]);
    let [c, d] = record(publisher, subscriber, ["publisher", "subscriber"]);
    [a, b, c, d]
}

/// All that can be seen of an end that hears these pieces: what happened, what it said, how it ended.
fn outcome<'a>(
    fresh: fn() -> Peer,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Event>, Vec<u8>, Result<bool, Refusal>) {
    let (mut end, mut events, mut said) = (fresh(), Vec::new(), Vec::new());
    for piece in pieces {
        match feed(&mut end, piece) {
            Ok(new) => events.extend(new),
            Err(refusal) => return (events, said, Err(refusal)),
        }
        said.extend(output(&mut end));
    }
    (events, said, Ok(end.is_open()))
}

#[test]
fn every_prefix_waits_for_the_rest() {
    for Recording { name, fresh, heard } in recordings() {
        let whole = outcome(fresh, [&heard[..]]);
        assert_eq!(whole.2, Ok(true), "{name}");
        for end in 0..heard.len() {
            let (events, said, state) = outcome(fresh, [&heard[..end]]);
            assert!(state.is_ok(), "{name} refuses its first {end} bytes: {state:?}");
            assert!(whole.0.starts_with(&events) && whole.1.starts_with(&said), "{name} {end}");
            assert!(
                events.len() < whole.0.len() || whole.0.is_empty() || name == "publisher",
                "{name} {end}"
            );
        }
    }
}

#[test]
fn every_split_gives_the_same() {
    for Recording { name, fresh, heard } in recordings() {
        let whole = outcome(fresh, [&heard[..]]);
        for at in 0..=heard.len() {
            let (one, two) = heard.split_at(at);
            assert_eq!(outcome(fresh, [one, two]), whole, "{name} split at {at}");
        }
        assert_eq!(outcome(fresh, heard.chunks(1)), whole, "{name} byte by byte");
    }
}

/// Where a change may go unnoticed: offsets into what this end hears. The outcome is then the same as without.
fn ignored(name: &str, starts: &[usize], at: usize, bit: u8) -> bool {
    // Length in the signature; later majors, minor version; as-server and padding.
    let greeting = (1..=8).contains(&at) || at == 10 && bit > 1 || at == 11 || (32..64).contains(&at);
    let hello = 64..64 + 202;
    match name {
        // Padding against amplification.
        "router" if hello.contains(&at) => (hello.start + 2 + 8..hello.start + 2 + 80).contains(&at),
        // MESSAGE, which comes after two commands, may be a command itself or not.
        _ => greeting || bit == 2 && starts.iter().skip(2).any(|start| *start == at),
    }
}

/// Where the frames begin.
fn frame_starts(heard: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (Vec::new(), 64);
    while at < heard.len() {
        starts.push(at);
        at += match heard[at] & 2 {
            0 => 2 + usize::from(heard[at + 1]),
            _ => 9 + usize::from(heard[at + 7]) * 256 + usize::from(heard[at + 8]),
        };
    }
    starts
}

#[test]
fn every_changed_bit_is_refused_or_changes_nothing() {
    for Recording { name, fresh, heard } in recordings() {
        let whole = outcome(fresh, [&heard[..]]);
        let curve = name == "router" || name == "dealer";
        let starts = frame_starts(&heard);
        let (mut refused, mut unchanged) = (0, 0);
        for at in 0..heard.len() {
            for bit in 0..8 {
                let mut bent = heard.clone();
                bent[at] ^= 1 << bit;
                let (events, said, state) = outcome(fresh, [&bent[..]]);
                if (&events, &state) == (&whole.0, &whole.2) {
                    unchanged += 1;
                    // Without CURVE nothing protects the words themselves.
                    assert!(
                        !curve || ignored(name, &starts, at, bit),
                        "{name}: byte {at} bit {bit} goes unnoticed"
                    );
                    assert!(said == whole.1 || at == 11, "{name}: byte {at} bit {bit}");
                } else if curve {
                    refused += 1;
                    assert!(
                        !ignored(name, &starts, at, bit),
                        "{name}: byte {at} bit {bit} is refused: {state:?}"
                    );
                    // Refused, or waiting for the rest of a frame that was made longer; and nothing made up.
                    assert!(whole.0.starts_with(&events), "{name}: byte {at} bit {bit} made up {events:?}");
                    assert!(whole.1.starts_with(&said), "{name}: byte {at} bit {bit}");
                    assert!(state.is_err() || events.len() < whole.0.len(), "{name}: byte {at} bit {bit}");
                } else {
                    refused += 1;
                }
            }
        }
        println!("{name}: {} bytes, {refused} changed bits refused, {unchanged} ignored", heard.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_pieces_give_the_same(which in 0..4usize, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let recording = &recordings()[which];
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(recording.heard.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut rest = &recording.heard[..];
        let mut start = 0;
        for cut in cuts {
            let (piece, later) = rest.split_at(cut - start);
            pieces.push(piece);
            (rest, start) = (later, cut);
        }
        pieces.push(rest);
        let whole = outcome(recording.fresh, [&recording.heard[..]]);
        prop_assert_eq!(outcome(recording.fresh, pieces), whole);
    }
}
