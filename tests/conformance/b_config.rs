//! B. Config (2.6, 2.4.2). All requests carry a key of 40 characters, here of digits only.

use serde_json::json;

use crate::people::Member;
use crate::runner::checklist;
use crate::target::{Expect, Role, Target};

checklist![
    Rest b1_no_node,
    Rest b2_content,
    Rest b3_verbs,
    Rest b4_users,
    Rest b5_client_for_its_own_name,
    Rest b6_client_for_another_name,
    Rest b7_invalid_user_and_bogus_client,
    Rest b8_outside_user,
    Groups b9_readers_group,
    Rest b10_bogus_organization,
    Rest b11_key_of_the_query,
];

/// A CURVE key belongs to one node of a server, so each organization has its own.
fn config(t: &Target, node: &str) -> String {
    let number: u64 = t.org.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    format!("config/{node}?ccpk=123456789012345678901234567890{number:010}")
}

fn b1_no_node(t: &Target) {
    for method in ["GET", "PUT", "POST", "DELETE"] {
        t.call(method, &config(t, "")).by(t.admin()).send().check_framework(404);
    }
}

fn b2_content(t: &Target) {
    let answer = t.get(t.admin(), &config(t, "DONKEY"));
    answer.check_status(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    let text = |name: &str| body.pointer(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let host = text("/host");
    assert!(!host.is_empty(), "{body}");
    let interval = json!(t.config.heartbeat_interval);
    let out = format!("tcp://{host}:{}", t.config.heartbeat_port);
    let command = format!("tcp://{host}:{}", t.config.command_port);
    for (name, expected) in [
        ("/type", json!("config")),
        ("/node", json!("DONKEY")),
        ("/organization", json!(t.org)),
        ("/push_jobs/heartbeat/out_addr", json!(out)),
        ("/push_jobs/heartbeat/command_addr", json!(command)),
        ("/push_jobs/heartbeat/interval", interval),
        ("/push_jobs/heartbeat/offline_threshold", json!(3)),
        ("/push_jobs/heartbeat/online_threshold", json!(2)),
        ("/encoded_session_key/method", json!("hmac_sha256")),
        ("/lifetime", json!(3600)),
        ("/max_message_skew", json!(300)),
        ("/max_body_size", json!(65536)),
    ] {
        assert_eq!(body.pointer(name), Some(&expected), "{name}");
    }
    let pem = text("/public_key");
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
    openssl::rsa::Rsa::public_key_from_pem(pem.as_bytes()).expect("a public key");
    assert_eq!(text("/curve_public_key").len(), 40);
    assert_eq!(text("/incarnation_id").len(), 36);
    let key = text("/encoded_session_key/key");
    assert!(!key.is_empty() && !key.contains('\n'), "{key}");
}

fn b3_verbs(t: &Target) {
    for method in ["PUT", "POST", "DELETE"] {
        t.call(method, &config(t, "DONKEY")).send().check_not_allowed("GET");
    }
}

fn b4_users(t: &Target) {
    t.get(t.admin(), &config(t, "DONKEY")).check_status(200);
    t.get(t.normal(), &config(t, "DONKEY")).check_status(200);
}

fn b5_client_for_its_own_name(t: &Target) {
    let body = t.get(t.client(), &config(t, &t.client().name)).json();
    assert_eq!(body["node"], *t.client().name);
}

fn b6_client_for_another_name(t: &Target) {
    for other in ["DONKEY", &t.client().name.to_uppercase(), &t.client().name.replacen('c', "%63", 1)] {
        t.get(t.client(), &config(t, other)).check_error(403, "Client and node name must match");
    }
}

fn b7_invalid_user_and_bogus_client(t: &Target) {
    t.get(&t.invalid, &config(t, "DONKEY")).check_unknown(&t.invalid);
    t.get(&t.bogus, &config(t, &t.bogus.name)).check_bad_signature(&t.bogus.name);
}

fn b8_outside_user(t: &Target) {
    t.get(t.outside(), &config(t, "DONKEY")).check_not_associated(t.outside());
}

fn b9_readers_group(t: &Target) {
    let members = [Member::Is(Role::Normal), Member::Is(Role::Outside)];
    let t = &t.with_groups(&[("pushy_job_readers", &members)]);
    t.get(t.normal(), &config(t, "DONKEY")).check_status(200);
    t.get(t.admin(), &config(t, "DONKEY")).check_no_access(t.admin());
    t.get(t.outside(), &config(t, "DONKEY")).check_not_associated(t.outside());
    // A client asks for itself whoever may read (3.3, 12.18).
    t.get(t.client(), &config(t, &t.client().name)).check_status(200);
    t.get(t.client(), &config(t, "DONKEY")).check_error(403, "Client and node name must match");
}

fn b10_bogus_organization(t: &Target) {
    let path = format!("/organizations/bogus/pushy/{}", config(t, "DONKEY"));
    t.get(t.admin(), &path).check_error(404, "organization 'bogus' does not exist.");
}

fn b11_key_of_the_query(t: &Target) {
    for (query, status, text) in [
        ("", 400, "Missing ccpk"),
        ("?version=2.0", 400, "Missing ccpk"),
        ("?ccpk=", 401, "Bad ccpk"),
        ("?ccpk=123", 401, "Bad ccpk"),
        ("?ccpk=12345678901234567890123456789012345678901", 401, "Bad ccpk"),
    ] {
        // Nobody needs to be known for that (2.1, step 6).
        for actor in [t.client(), &t.invalid] {
            let answer = t.get(actor, &format!("config/{}{query}", t.client().name));
            answer.check_error(status, text);
            assert_eq!(answer.header("www-authenticate"), None);
        }
    }
    if t.expect == Expect::Ours {
        // The original answers 500 to 40 characters that are no Z85.
        let plus = "config/DONKEY?ccpk=+234567890123456789012345678901234567890";
        t.get(t.admin(), plus).check_error(401, "Bad ccpk");
    }
}
