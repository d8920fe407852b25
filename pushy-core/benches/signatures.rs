//! What signing and checking cost beside the bare OpenSSL operations, and what a ZeroMQ message costs.
//!
//! `cargo bench -p pushy-core --no-default-features --bench signatures`. Ends with status 1 when signed headers are
//! dearer than agreed: signing 5 % above, checking 4 µs above the bare operation.
//!
//! Wall time is measured here and nowhere else in this crate, hence the exception for the clock.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use openssl::rsa::{Padding, Rsa};
use pushy_core::auth::{Head, MAX_SKEW, PublicKey, Request, SigningKey, Unsigned, Version, sign};
use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgName};
use pushy_core::message::{Caps, JobRef, JobState, NodeIdentity, NodeMessage, ServerMessage};
use pushy_core::time::Wall;
use pushy_core::wire::{Limits, SessionKey, hmac_header, open_from_node};

const ROUNDS: usize = 100;
const NOW: Wall = Wall::from_secs(1_741_083_300);

/// Runs the operations in turns, `repeats` calls each a round, and gives the median of each one's time a call, in µs.
fn interleaved<const N: usize>(repeats: u32, mut operations: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut times = [(); N].map(|()| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (operation, times) in operations.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..repeats {
                operation();
            }
            times.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(repeats));
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    })
}

fn main() -> ExitCode {
    println!("medians of {ROUNDS} interleaved rounds, RSA 2048 bits, one thread; times in µs a call");
    let rsa = Rsa::generate(2048).expect("OpenSSL makes a key");
    let pem = rsa.private_key_to_pem().expect("OpenSSL writes a key");
    let key = SigningKey::from_pem(&pem).expect("our own key loads");
    let public = PublicKey::from_pem(key.public_pem().expect("our own key writes")).expect("and loads");
    let bare_public = Rsa::public_key_from_pem(&rsa.public_key_to_pem().expect("writes")).expect("loads");
    let mut good = true;
    for version in [Version::V1_0, Version::V1_1, Version::V1_3] {
        good &= headers(version, &rsa, &bare_public, &key, &public);
    }
    messages();
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn headers(
    version: Version,
    rsa: &Rsa<openssl::pkey::Private>,
    bare_public: &Rsa<openssl::pkey::Public>,
    key: &SigningKey,
    public: &PublicKey,
) -> bool {
    let request = Request {
        version,
        method: "GET",
        path: "/organizations/acme/pushy/jobs/4be1d6f0a9c30123456789abcdef0123",
        body: b"",
        user: "web-01.example.com",
        at: NOW,
        api_version: Some("1"),
    };
    let text = Unsigned::new(&request).expect("a plain request").text().to_vec();
    // The bare operation of 1.3 has a DigestInfo and a hash inside the padding: 51 bytes.
    let text = if version == Version::V1_3 { vec![0x30; 51] } else { text };
    let mut out = [0u8; 256];
    let [bare, ours] = interleaved(
        4,
        [
            &mut || {
                black_box(rsa.private_encrypt(black_box(&text), &mut out, Padding::PKCS1).expect("fits"));
            },
            &mut || {
                black_box(sign(key, black_box(&request)).expect("fits"));
            },
        ],
    );
    let share = (ours / bare - 1.0) * 100.0;
    println!("{} sign:  bare {bare:7.2}  ours {ours:7.2}  {share:+.1} % (limit +5 %)", version.as_str());
    let mut good = share <= 5.0;

    let headers = sign(key, &request).expect("fits");
    let mut signature = [0u8; 256];
    rsa.private_encrypt(&text, &mut signature, Padding::PKCS1).expect("fits");
    let mut out = [0u8; 256];
    let [bare, ours] = interleaved(
        50,
        [
            &mut || {
                black_box(
                    bare_public
                        .public_decrypt(black_box(&signature), &mut out, Padding::PKCS1)
                        .expect("ours"),
                );
            },
            &mut || {
                let find = |name: &str| match name {
                    "X-Ops-Server-API-Version" => Some(&b"1"[..]),
                    _ => {
                        headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_bytes())
                    }
                };
                let head = Head::read(find, NOW, MAX_SKEW).expect("well formed");
                black_box(head.verify(request.method, request.path, request.body, [public]).expect("ours"));
            },
        ],
    );
    println!(
        "{} check: bare {bare:7.2}  ours {ours:7.2}  {:+.2} µs (limit +4 µs)",
        version.as_str(),
        ours - bare
    );
    good &= ours - bare <= 4.0;
    good
}

fn messages() {
    let key = SessionKey([7; 32]);
    let sender = NodeIdentity {
        node: NodeName::new("web-01.example.com").expect("valid"),
        client: "web-01".into(),
        org: OrgName::new("acme").expect("valid"),
        incarnation: IncarnationId::new("5f0c2c1e-7b3a-4d0e-9a61-2f6a0c9d4e11").expect("valid"),
    };
    let job = JobId::new("4be1d6f0a9c30123456789abcdef0123").expect("valid");
    let beat = NodeMessage::Heartbeat {
        state: Some(JobState::Running),
        job: JobRef::Id(job.clone()),
        caps: Some(Caps::OF_NODE),
    };
    let body = beat.encode(&sender, 17, NOW);
    let header = hmac_header(&key.0, &body);
    let limits = Limits { max_body: 65_536, max_skew: 300 };
    let run = ServerMessage::Run { job };
    let [open, seal] = interleaved(
        200,
        [
            &mut || {
                black_box(
                    open_from_node(&key, limits, NOW, black_box(&header), black_box(&body)).expect("ours"),
                );
            },
            &mut || {
                let body = run.encode(12, NOW);
                black_box(hmac_header(&key.0, &body));
            },
        ],
    );
    println!("node heartbeat opened (HMAC, JSON, timestamp): {open:.2} (aim 5)");
    println!("run made (JSON, timestamp, HMAC): {seal:.2}");
}
