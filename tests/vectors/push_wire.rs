//! Signing of ZeroMQ messages: headers, session keys and whole frames of the original.

use std::collections::HashMap;

use pushy_core::auth::SigningKey;
use pushy_core::ids::{IncarnationId, NodeName, OrgName};
use pushy_core::message::{Caps, Captured, FromNode, JobRef, JobState, NodeIdentity, NodeMessage};
use pushy_core::node_config::unwrap_session_key;
use pushy_core::time::Wall;
use pushy_core::wire::{Channel, RsaSigner, RsaVerifier, check_from_node, check_from_server, hmac_header};
use serde_json::Value;

use crate::{cases, content, load, report, text};

fn vectors() -> Value {
    load("push-wire.json", "push-wire-vectors/1")
}

fn session_keys(vectors: &Value) -> HashMap<String, Vec<u8>> {
    vectors["session_keys"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, key)| (name.clone(), content(key)))
        .collect()
}

fn verifiers(vectors: &Value) -> HashMap<String, RsaVerifier> {
    let keys = vectors["rsa_keys"].as_object().unwrap();
    keys.iter()
        .map(|(name, key)| (name.clone(), RsaVerifier::from_pem(text(key, "public_pem")).unwrap()))
        .collect()
}

#[test]
fn headers_are_the_originals() {
    let vectors = vectors();
    let sessions = session_keys(&vectors);
    let verifiers = verifiers(&vectors);
    let (mut hmac, mut rsa, mut unfolded) = (0, 0, 0);
    for case in cases(&vectors["make"]) {
        let id = text(case, "id");
        let body = content(&case["message"]);
        let expected = text(case, "header");
        let name = text(case, "key");
        if text(case, "method") == "hmac_sha256" {
            let header = hmac_header(&sessions[name], &body);
            assert_eq!(String::from_utf8_lossy(&header), expected, "{id}");
            assert_eq!(check_from_node(&sessions[name], &header, &body), Ok(()), "{id}");
            hmac += 1;
        } else {
            let signer = RsaSigner::from_pem(text(&vectors["rsa_keys"][name], "private_pem")).unwrap();
            let header = signer.header(&body).unwrap();
            let header = String::from_utf8_lossy(&header);
            assert_eq!(header, expected.replace('\n', ""), "{id}");
            unfolded += usize::from(header != expected);
            for spelling in [expected, &header] {
                let verdict = check_from_server(b"", &verifiers[name], spelling.as_bytes(), &body);
                assert_eq!(verdict, Ok(Channel::Heartbeat), "{id}");
            }
            rsa += 1;
        }
    }
    assert_eq!(hmac + rsa, 21);
    report(&[format!(
        "push-wire make: {hmac} hmac, {rsa} rsa; {unfolded} of the latter differ on purpose: the original leaves line \
         ends in its base64, ours (as the original server) does not; both are checked"
    )]);
}

#[test]
fn checks_answer_as_the_original_node() {
    let vectors = vectors();
    let sessions = session_keys(&vectors);
    let verifiers = verifiers(&vectors);
    let validate = cases(&vectors["validate"]);
    let mut accepted = 0;
    for case in validate {
        let id = text(case, "id");
        let session = &sessions[text(case, "session_key")];
        let server = &verifiers[text(case, "rsa_key")];
        let body = content(&case["message"]);
        let header = text(case, "header").as_bytes();
        let verdict = check_from_server(session, server, header, &body);
        // "raises" is an OpenSSL error that the original lets through: dropped all the same.
        assert_eq!(verdict.is_ok(), case["expect"] == true, "{id}: {verdict:?}");
        accepted += usize::from(verdict.is_ok());
    }
    assert_eq!(validate.len(), 38);
    report(&[format!("push-wire validate: {} cases, {accepted} accepted, none differs", validate.len())]);
}

#[test]
fn session_keys_open() {
    let vectors = vectors();
    let sessions = session_keys(&vectors);
    let wrapped = cases(&vectors["session"]);
    for case in wrapped {
        let pem = text(&vectors["rsa_keys"][text(case, "rsa_key")], "private_pem");
        let key = SigningKey::from_pem(pem).unwrap();
        let encoded = text(&case["encoded_session_key"], "key");
        assert_eq!(unwrap_session_key(encoded, &key).unwrap(), sessions[text(case, "session_key")]);
    }
    report(&[format!("push-wire session: {} cases", wrapped.len())]);
}

/// A string of the vectors, or `{repeat, times}`.
fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => text(value, "repeat").repeat(value["times"].as_u64().unwrap() as usize),
    }
}

fn message(case: &Value, max_body_size: usize) -> NodeMessage {
    let job = |value: &Value| value.as_str().map_or(JobRef::None, |id| JobRef::Other(id.into()));
    let arguments = &case["arguments"];
    if text(case, "call") == "send_heartbeat" {
        let state = match text(&case["job_state"], "state") {
            "idle" => JobState::Idle,
            "running" => JobState::Running,
            other => panic!("state {other}"),
        };
        return NodeMessage::Heartbeat {
            state: Some(state),
            job: job(&case["job_state"]["job_id"]),
            caps: None,
        };
    }
    let job = job(&arguments[1]);
    let mut output = Captured {
        stdout: arguments[2].get("stdout").map(string),
        stderr: arguments[2].get("stderr").map(string),
    };
    let printed =
        [&output.stdout, &output.stderr].iter().filter_map(|o| o.as_ref()).map(String::len).sum::<usize>();
    if printed > max_body_size {
        output = Captured::default();
    }
    match arguments[0].as_str().unwrap() {
        "ack_commit" => NodeMessage::AckCommit { job },
        "succeeded" => NodeMessage::Succeeded { job, output },
        "failed" => NodeMessage::Failed { job, output, reason: None },
        other => panic!("command {other}"),
    }
}

#[test]
fn frames_are_the_originals() {
    let vectors = vectors();
    let sender = &vectors["sender"];
    let identity = NodeIdentity {
        node: NodeName::new(text(sender, "node")).unwrap(),
        client: text(sender, "host").to_owned(),
        org: OrgName::new(text(sender, "org")).unwrap(),
        incarnation: IncarnationId::new(text(sender, "incarnation")).unwrap(),
    };
    let at = Wall::parse_iso8601(text(sender, "time")).unwrap();
    let key = &session_keys(&vectors)[text(sender, "session")];
    let max_body_size = sender["max_body_size"].as_u64().unwrap() as usize;
    let frames = cases(&vectors["frames"]);
    let mut differ = Vec::new();
    for (sequence, case) in (1..).zip(frames) {
        let id = text(case, "id");
        let message = message(case, max_body_size);
        let body = message.encode(&identity, sequence, at);
        assert_eq!(String::from_utf8_lossy(&body), text(case, "body"), "{id}");
        assert_eq!(String::from_utf8_lossy(&hmac_header(key, &body)), text(case, "header"), "{id}");
        assert_eq!(FromNode::decode(&body).unwrap().message, message, "{id}");
        if let NodeMessage::Heartbeat { state, job, .. } = message {
            let ours = NodeMessage::Heartbeat { state, job, caps: Some(Caps::RESULTS) };
            let body = ours.encode(&identity, sequence, at);
            let theirs = text(case, "body").strip_suffix('}').unwrap();
            assert_eq!(String::from_utf8_lossy(&body), format!(r#"{theirs},"caps":["results"]}}"#), "{id}");
            differ.push(format!(
                "  {id}: our agent adds the member caps at the end, which the original server ignores"
            ));
        }
    }
    differ.push(
        "  failed-too-much-output: the original drops output that does not fit, our agent cuts it (D-48)"
            .into(),
    );
    differ
        .insert(0, format!("push-wire frames: {} cases; {} differ on purpose:", frames.len(), differ.len()));
    report(&differ);
}
