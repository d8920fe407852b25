//! Any bytes into every parser: nothing panics, and what one end writes the other reads.

use openssl::rsa::Rsa;
use proptest::prelude::*;
use pushy_core::auth::{Head, PublicKey, SigningKey, canonical_path, is_inline_key};
use pushy_core::curve_key::{CurveKey, z85_decode, z85_encode};
use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgName};
use pushy_core::job::{JobOptions, JobRequest, file_content};
use pushy_core::message::{
    Caps, Captured, Commit, FromNode, FromServer, JobRef, JobState, NodeIdentity, NodeMessage, ServerMessage,
};
use pushy_core::node_config::{NodeConfig, unwrap_session_key};
use pushy_core::time::Wall;
use pushy_core::wire::{
    Limits, RsaVerifier, SessionKey, check_from_node, check_from_server, hmac_header, open_from_node,
};
use std::sync::LazyLock;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| {
    SigningKey::from_pem(Rsa::generate(1024).unwrap().private_key_to_pem().unwrap()).unwrap()
});
static VERIFIER: LazyLock<RsaVerifier> =
    LazyLock::new(|| RsaVerifier::from_pem(&KEY.public_pem().unwrap()).unwrap());

/// Bytes that get past the first check more often than random ones do.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("\\ud800"),
        Just("\\u0000"),
        Just(r#""node":"n","org":"o""#),
        Just(r#""timestamp":"Tue, 04 Mar 2025 10:15:00 GMT""#),
        Just(r#""type":"heartbeat""#),
        Just(r#""type":"commit","job_id":"4be1d6f0a9c30123456789abcdef0123""#),
        Just(r#""command":"c","nodes":["n"]"#),
        Just(r#""env":{"A":"1"}"#),
        Just(r#""file":"base64:aGk="#),
        Just(r#""run_timeout":-1e999"#),
        Just("null"),
        Just("Version:2.0;SigningMethod:hmac_sha256;"),
        Just("SigningMethod:rsa2048_sha1;Signature:"),
        Just("AAAA"),
        Just("=="),
        Just("-----BEGIN PUBLIC KEY-----\n"),
        Just("é"),
        Just("\0"),
    ];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        proptest::collection::vec(word, 0..12).prop_map(|words| words.concat().into_bytes()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~]{0,40}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn parsers_take_anything(bytes in nearly(), more in nearly()) {
        let _ = FromNode::decode(&bytes);
        let _ = FromServer::decode(&bytes);
        let _ = JobRequest::from_json(&bytes);
        let _ = NodeConfig::from_json(&bytes);
        let _ = check_from_node(&more, &bytes, &more);
        let _ = check_from_server(&more, &VERIFIER, &bytes, &more);
        let _ = SigningKey::from_pem(&bytes);
        let _ = PublicKey::from_pem(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = unwrap_session_key(&text, &KEY);
        let _ = file_content(&text);
        let _ = is_inline_key(&text);
        let _ = z85_decode(&text);
        let _ = CurveKey::from_z85(&text);
        let _ = Wall::parse_http_date(&text);
        let _ = Wall::parse_iso8601(&text);
        let canonical = canonical_path(&text);
        prop_assert_eq!(canonical_path(&canonical), canonical.as_ref());
    }

    #[test]
    fn headers_may_hold_anything(values in proptest::collection::vec(proptest::option::of(nearly()), 8), now: i64, good: bool) {
        let names = ["X-Ops-UserId", "X-Ops-Timestamp", "X-Ops-Sign", "X-Ops-Content-Hash", "X-Ops-Server-API-Version"];
        let find = |name: &str| {
            if good && name == "X-Ops-Timestamp" {
                return Some(&b"1970-01-01T00:00:00Z"[..]);
            }
            if good && name == "X-Ops-Sign" {
                return Some(&b"version=1.3"[..]);
            }
            let place = names.iter().position(|n| *n == name).unwrap_or(5 + name.len() % 3);
            values[place].as_deref()
        };
        let public = PublicKey::from_pem(KEY.public_pem().unwrap()).unwrap();
        match Head::read(find, Wall(if good { 0 } else { now }), 900) {
            Ok(head) => prop_assert!(head.verify("GET", "/x?y", b"", [&public]).is_err()),
            Err(error) => prop_assert!(serde_json::from_str::<serde_json::Value>(&error.body()).is_ok()),
        }
    }

    #[test]
    fn node_messages_come_back(
        kind in 0..8u8, sequence: u64, secs in 0..4_000_000_000_i64, client in text(), other in "[a-z]{1,64}",
        stdout in proptest::option::of(text()), stderr in proptest::option::of(text()), caps: Option<bool>,
    ) {
        let sender = NodeIdentity {
            node: NodeName::new("größe \"1\"").unwrap(),
            client,
            org: OrgName::new("acme").unwrap(),
            incarnation: IncarnationId::new("5f0c").unwrap(),
        };
        let job = match &*other {
            "null" => JobRef::None,
            _ => JobRef::Other(other.clone().into()),
        };
        let output = Captured { stdout, stderr };
        let message = match kind {
            0 => NodeMessage::Heartbeat { state: Some(JobState::Idle), job, caps: caps.map(|results| if results { Caps::OF_NODE } else { Caps::NODES }) },
            1 => NodeMessage::AckCommit { job },
            2 => NodeMessage::NackCommit { job, reason: None },
            3 => NodeMessage::AckRun { job },
            4 => NodeMessage::NackRun { job, reason: None },
            5 => NodeMessage::Succeeded { job, output },
            6 => NodeMessage::Failed { job, output, reason: None },
            _ => NodeMessage::Aborted { job, reason: None },
        };
        let at = Wall::from_secs(secs);
        let body = message.encode(&sender, sequence, at);
        let key = SessionKey([3; 32]);
        let header = hmac_header(&key.0, &body);
        let limits = Limits { max_body: 65_536, max_skew: 300 };
        let read = open_from_node(&key, limits, at, &header, &body).unwrap();
        prop_assert_eq!(read.node.as_ref(), sender.node.as_str());
        prop_assert_eq!((read.sequence, read.timestamp), (Some(sequence), at));
        prop_assert_eq!(read.incarnation, Some(sender.incarnation));
        prop_assert_eq!(read.message, message);
        // Any change of a byte is noticed.
        let mut bent = body.clone();
        let place = (sequence % body.len() as u64) as usize;
        bent[place] ^= 1;
        prop_assert!(open_from_node(&key, limits, at, &header, &bent).is_err());
    }

    #[test]
    fn commits_come_back(
        command in text(), user in proptest::option::of(text()), dir in proptest::option::of(text()),
        env in proptest::option::of(proptest::collection::btree_map(text(), text(), 0..4)),
        file in proptest::option::of(text()), capture: bool, sequence: u64,
    ) {
        let env = env.map(|env| env.into_iter().collect());
        let options = JobOptions { user, dir, env, file, capture, parameters: None };
        let job = JobId::new("4be1d6f0a9c30123456789abcdef0123").unwrap();
        let message = ServerMessage::Commit(Box::new(Commit {
            job,
            server: "s".into(),
            command,
            options,
            run_timeout: (sequence % 3 == 0).then_some(sequence as u32),
        }));
        let body = message.encode(sequence, Wall::default());
        let read = FromServer::decode(&body).unwrap();
        prop_assert_eq!(read, FromServer { sequence: Some(sequence), timestamp: Wall::default(), message });
    }

    #[test]
    fn z85_comes_back(key: [u8; 32]) {
        prop_assert_eq!(CurveKey::from_z85(&CurveKey(key).to_z85()), Ok(CurveKey(key)));
        prop_assert_eq!(z85_decode(&z85_encode(&key)).unwrap(), key);
    }
}
