//! Resources, methods, bodies: the checklist of 2.6, A to E, and what we answer where the original fails.

use pushy_core::auth::Version;
use pushy_server::admin::{Command, NewKey};
use serde_json::json;

use crate::lab::{Actor, Lab, public_key};

const CCPK: &str = "ccpk=1234567890123456789012345678901234567890";
const NOT_FOUND: &str = r#"{"error":["not found"]}"#;
const NOT_ALLOWED: &str = r#"{"error":["method not allowed"]}"#;

fn no_access(name: &str) -> String {
    format!(r#"{{"error":["User or client '{name}' does not have access to that action on this server."]}}"#)
}

fn invalid_user(name: &str) -> String {
    format!(
        r#"{{"error":["Failed to authenticate as '{name}'. Ensure that your node_name and client key are correct."]}}"#
    )
}

fn bad_signature(name: &str) -> String {
    format!(r#"{{"error":["Invalid signature for user or client '{name}'"]}}"#)
}

fn outside(name: &str) -> String {
    format!(r#"{{"error":["'{name}' is not associated with organization 'acme'"]}}"#)
}

/// The people of 2.6.
struct People {
    lab: Lab,
    user: Actor,
    client: Actor,
    outsider: Actor,
    invalid: Actor,
    bogus: Actor,
}

impl People {
    async fn new() -> People {
        let lab = Lab::start().await;
        let user = lab.user("normal", 0).await;
        let client = lab.node("client-1", 1).await;
        lab.operate(Command::OrgAdd { name: "other".into() }).await.expect("an organization");
        let who = NewKey { name: "outsider".into(), public_key: public_key(2) };
        lab.operate(Command::UserAdd { org: Some("other".into()), user: who, admin: false })
            .await
            .expect("a user");
        People {
            outsider: Actor::numbered("outsider", 2),
            invalid: Actor::numbered("invalid", 0),
            bogus: Actor::numbered("client-1", 3),
            lab,
            user,
            client,
        }
    }

    /// Refusals that every resource shares (B7, B8, B10, C6, C9, E3, E5).
    async fn check_strangers(&self, method: &str, path: &str, body: &str) {
        let call = |path: &str, actor: &Actor| {
            let call = self.lab.call(method, path).by(actor);
            if body.is_empty() { call } else { call.json(body) }
        };
        let answer = call(path, &self.invalid).send().await;
        answer.check(401, &invalid_user("invalid"));
        assert_eq!(answer.header("www-authenticate"), Some(r#"X-Ops-Sign version="1.0" version="1.1""#));
        let answer = call(path, &self.bogus).send().await;
        answer.check(401, &bad_signature("client-1"));
        assert_eq!(answer.header("www-authenticate"), Some(r#"X-Ops-Sign version="1.0" version="1.1""#));
        call(path, &self.outsider).send().await.check(403, &outside("outsider"));
        let bogus = path.replacen("~/", "/organizations/bogus/pushy/", 1);
        let missing = r#"{"error":["organization 'bogus' does not exist."]}"#;
        call(&bogus, &self.lab.admin).send().await.check(404, missing);
    }
}

#[tokio::test]
async fn a_status_for_everybody() {
    let p = People::new().await;
    for method in ["PUT", "POST", "DELETE", "OPTIONS", "TRACE"] {
        let answer = p.lab.call(method, "/pushy/_status").send().await;
        answer.check(405, NOT_ALLOWED);
        assert_eq!(answer.header("allow"), Some("GET"));
    }
    let head = p.lab.call("HEAD", "/pushy/_status").send().await;
    assert_eq!((head.status, head.body.len(), head.header("allow")), (405, 0, Some("GET")));
    p.lab.call("PATCH", "/pushy/_status").send().await.check(501, r#"{"error":["not implemented"]}"#);
    p.lab.call("PATCH", "/pushy/other").send().await.check(404, NOT_FOUND);
    p.lab.call("GET", "/").send().await.check(404, NOT_FOUND);
    let not_acceptable = p.lab.call("GET", "/pushy/_status").header("Accept", "text/html").send().await;
    not_acceptable.check(406, r#"{"error":["not acceptable"]}"#);
    let incarnation = p.lab.about["incarnation_id"].as_str().expect("an id");
    let expected = |jobs: &str| {
        format!(
            r#"{{"status":"it's alive","incarnation_id":"{incarnation}","node_fsm_count":0,"job_processes":[{jobs}]}}"#
        )
    };
    p.lab.call("GET", "/pushy/_status/").send().await.check(200, &expected(""));
    for actor in [&p.lab.admin, &p.user, &p.client, &p.invalid, &p.outsider] {
        p.lab.get(actor, "/pushy/_status").await.check(200, &expected(""));
    }
    // Ids of jobs are for the organization's users only (D-08).
    let id = p.lab.post(&p.lab.admin, r#"{"command":"x","nodes":["n"]}"#).await.job_id();
    p.lab.get(&p.user, "/pushy/_status").await.check(200, &expected(&format!("\"{id}\"")));
    p.lab.get(&p.outsider, "/pushy/_status").await.check(200, &expected(""));
    p.lab.call("GET", "/pushy/_status").send().await.check(200, &expected(""));
    p.lab.stop().await;
}

#[tokio::test]
async fn b_config() {
    let p = People::new().await;
    let donkey = &format!("~/config/DONKEY?{CCPK}");
    for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
        p.lab.call(method, &format!("~/config/?{CCPK}")).send().await.check(404, NOT_FOUND);
    }
    for method in ["PUT", "POST", "DELETE"] {
        p.lab.call(method, donkey).send().await.check(405, NOT_ALLOWED);
    }
    let answer = p.lab.get(&p.lab.admin, donkey).await;
    answer.check_status(200);
    let config = answer.json();
    let about = &p.lab.about;
    for (name, expected) in [
        ("/type", json!("config")),
        ("/host", json!("127.0.0.1")),
        ("/node", json!("DONKEY")),
        ("/organization", json!("acme")),
        ("/push_jobs/heartbeat/out_addr", about["heartbeat_addr"].clone()),
        ("/push_jobs/heartbeat/command_addr", about["command_addr"].clone()),
        ("/push_jobs/heartbeat/interval", json!(0.5)),
        ("/push_jobs/heartbeat/offline_threshold", json!(3)),
        ("/push_jobs/heartbeat/online_threshold", json!(2)),
        ("/encoded_session_key/method", json!("hmac_sha256")),
        ("/lifetime", json!(3600)),
        ("/max_message_skew", json!(300)),
        ("/max_body_size", json!(65536)),
        ("/incarnation_id", about["incarnation_id"].clone()),
    ] {
        assert_eq!(config.pointer(name), Some(&expected), "{name}");
    }
    assert!(config["public_key"].as_str().expect("a key").starts_with("-----BEGIN PUBLIC KEY-----\n"));
    p.lab.get(&p.user, donkey).await.check_status(200);
    let own = &format!("~/config/client-1?{CCPK}");
    p.lab.get(&p.client, own).await.check_status(200);
    let must_match = r#"{"error":["Client and node name must match"]}"#;
    p.lab.get(&p.client, donkey).await.check(403, must_match);
    p.lab.get(&p.client, &format!("~/config/client%2D1?{CCPK}")).await.check(403, must_match);
    p.check_strangers("GET", donkey, "").await;
    for (query, status, body) in [
        ("", 400, r#"{"error":["Missing ccpk"]}"#),
        ("?version=2.0", 400, r#"{"error":["Missing ccpk"]}"#),
        ("?ccpk=", 401, r#"{"error":["Bad ccpk"]}"#),
        ("?ccpk=123", 401, r#"{"error":["Bad ccpk"]}"#),
        ("?ccpk=%20234567890123456789012345678901234567890", 401, r#"{"error":["Bad ccpk"]}"#),
    ] {
        let answer = p.lab.get(&p.invalid, &format!("~/config/client-1{query}")).await;
        answer.check(status, body);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    p.lab.group("pushy_job_readers", &[("user", "normal")]).await;
    p.lab.get(&p.user, donkey).await.check_status(200);
    p.lab.get(&p.lab.admin, donkey).await.check(403, &no_access("admin"));
    p.lab.get(&p.outsider, donkey).await.check(403, &outside("outsider"));
    p.lab.get(&p.client, own).await.check_status(200);
    p.lab.stop().await;
}

#[tokio::test]
async fn c_jobs_verbs_and_access() {
    let p = People::new().await;
    let body = r#"{"command":"sleep 2","nodes":["DONKEY"]}"#;
    let id = p.lab.post(&p.lab.admin, body).await.job_id();
    let job = &format!("~/jobs/{id}");
    for method in ["PUT", "DELETE"] {
        let answer = p.lab.call(method, "~/jobs/").send().await;
        answer.check(405, NOT_ALLOWED);
        assert_eq!(answer.header("allow"), Some("POST, GET"));
    }
    for path in [job, "~/jobs/00000000000000000000000000000000"] {
        for method in ["PUT", "POST", "DELETE"] {
            let answer = p.lab.call(method, path).send().await;
            answer.check(405, NOT_ALLOWED);
            assert_eq!(answer.header("allow"), Some("GET"));
        }
    }
    for name in ["name-does-not-exist", "0123456789abcdef0123456789abcdef", &id.to_uppercase()] {
        p.lab.get(&p.lab.admin, &format!("~/jobs/{name}")).await.check(404, NOT_FOUND);
    }
    for actor in [&p.lab.admin, &p.user, &p.client] {
        p.lab.get(actor, "~/jobs/").await.check_status(200);
        p.lab.get(actor, job).await.check_status(200);
    }
    p.lab.post(&p.user, body).await.check(403, &no_access("normal"));
    p.lab.post(&p.client, body).await.check(403, &no_access("client-1"));
    p.check_strangers("GET", "~/jobs", "").await;
    p.check_strangers("GET", job, "").await;
    p.check_strangers("POST", "~/jobs", body).await;
    // A job is found in its own organization only (D-06).
    let elsewhere = format!("/organizations/other/pushy/jobs/{id}");
    p.lab.get(&p.outsider, &elsewhere).await.check(404, NOT_FOUND);
    p.lab.get(&p.outsider, "/organizations/other/pushy/jobs").await.check(200, "[]");
    p.lab.stop().await;
}

#[tokio::test]
async fn c_jobs_with_groups_flat_and_nested() {
    for nested in [false, true] {
        let p = People::new().await;
        let body = r#"{"command":"x","nodes":["DONKEY"]}"#;
        let id = p.lab.post(&p.lab.admin, body).await.job_id();
        let members: &[(&str, &str)] = &[("user", "normal"), ("client", "client-1")];
        if nested {
            p.lab.group("inner", members).await;
            p.lab.group("middle", &[("group", "inner")]).await;
        }
        let members = if nested { &[("group", "middle")] } else { members };
        p.lab.group("pushy_job_readers", members).await;
        p.lab.group("pushy_job_writers", members).await;
        for actor in [&p.user, &p.client] {
            p.lab.get(actor, "~/jobs").await.check_status(200);
            p.lab.get(actor, &format!("~/jobs/{id}")).await.check_status(200);
            p.lab.post(actor, body).await.check_status(201);
            p.lab.get(actor, "~/node_states").await.check_status(200);
            p.lab.get(actor, "~/node_states/x").await.check_status(200);
        }
        p.lab.get(&p.lab.admin, "~/jobs").await.check(403, &no_access("admin"));
        p.lab.get(&p.lab.admin, &format!("~/jobs/{id}")).await.check(403, &no_access("admin"));
        p.lab.get(&p.lab.admin, "~/node_states").await.check(403, &no_access("admin"));
        p.lab.get(&p.lab.admin, "~/node_states/x").await.check(403, &no_access("admin"));
        p.lab.post(&p.lab.admin, body).await.check(403, &no_access("admin"));
        p.lab.get(&p.outsider, "~/jobs").await.check(403, &outside("outsider"));
        p.lab.stop().await;
    }
}

#[tokio::test]
async fn d_bodies_are_checked_before_the_signature() {
    let p = People::new().await;
    let before = p.lab.get(&p.lab.admin, "~/jobs").await.text();
    let nodes = "at least one node must be supplied";
    let unknown = "an unknown validation error has occurred";
    for (body, text) in [
        ("", "invalid JSON supplied"),
        ("{\"command\":\"x\"", "invalid JSON supplied"),
        ("[]", unknown),
        (r#"{"nodes":["a"]}"#, "invalid command supplied"),
        (r#"{"command":null,"nodes":["a"]}"#, "invalid command supplied"),
        (r#"{"command":"x"}"#, nodes),
        (r#"{"command":"x","nodes":[]}"#, nodes),
        (r#"{"command":"x","nodes":["a",null]}"#, nodes),
        (
            r#"{"command":"x","nodes":["a"],"quorum":"1"}"#,
            "invalid type supplied for quorum (expected a number)",
        ),
        (
            r#"{"command":"x","nodes":["a"],"run_timeout":false}"#,
            "invalid type supplied for run_timeout (expected a number)",
        ),
        (r#"{"command":"x","nodes":["a"],"user":1}"#, unknown),
        (r#"{"command":"x","nodes":["a"],"env":"A=B"}"#, unknown),
        (
            r#"{"command":"x","nodes":["a"],"env":{"A":"1","A":"2"}}"#,
            "invalid environment value (duplicate key)",
        ),
        (
            r#"{"command":"x","nodes":["a"],"capture_output":1}"#,
            "invalid type supplied for capture_output (expected a boolean)",
        ),
        (
            r#"{"command":"x","nodes":["a"],"file":"x"}"#,
            "invalid file contents (expected 'base64:...' or 'raw:...')",
        ),
        (
            r#"{"command":"x","nodes":["a"],"file":"base64:bad$base64"}"#,
            "invalid file contents (couldn't decode base64 string)",
        ),
        (r#"{"command":"x","nodes":["a"],"other":null}"#, "invalid key supplied"),
    ] {
        p.lab.post(&p.invalid, body).await.check(400, &json!({ "error": text }).to_string());
    }
    let file = format!(r#"{{"command":"x","nodes":["a"],"file":"raw:{}"}}"#, "x".repeat(100_001));
    p.lab
        .post(&p.lab.admin, &file)
        .await
        .check(400, r#"{"error":"invalid file size (must be <= 100000 bytes)"}"#);
    let long = format!(r#"{{"command":"{}","nodes":["a"]}}"#, "x".repeat(1_000_000));
    p.lab
        .post(&p.lab.admin, &long)
        .await
        .check(413, r#"{"error":"JSON must be no more than 1000000 bytes."}"#);
    let chunked = p.lab.call("POST", "~/jobs").by(&p.lab.admin).json(&long).chunked().send().await;
    chunked.check(413, r#"{"error":"JSON must be no more than 1000000 bytes."}"#);
    let fits = format!(r#"{{"command":"{}","nodes":["a"]}}"#, "x".repeat(1_000_000 - 28));
    assert_eq!(fits.len(), 1_000_000);
    p.lab.post(&p.user, &fits).await.check(403, &no_access("normal"));
    assert_eq!(p.lab.get(&p.lab.admin, "~/jobs").await.text(), before, "no job came of it");
    p.lab.stop().await;
}

#[tokio::test]
async fn d_media_types_come_after_authorization() {
    let p = People::new().await;
    let body = r#"{"command":"x","nodes":["a"]}"#;
    let post = |actor| p.lab.call("POST", "~/jobs").by(actor).body(body);
    post(&p.lab.admin).send().await.check(415, r#"{"error":["unsupported media type"]}"#);
    post(&p.lab.admin).header("Content-Type", "text/json").send().await.check_status(415);
    post(&p.user).send().await.check(403, &no_access("normal"));
    let refusing = post(&p.lab.admin).header("Accept", "text/html").send().await;
    refusing.check(406, r#"{"error":["not acceptable"]}"#);
    assert_eq!(p.lab.get(&p.lab.admin, "~/jobs").await.text(), "[]");
    post(&p.lab.admin)
        .header("Content-Type", "Application/JSON; charset=utf-8")
        .send()
        .await
        .check_status(201);
    p.lab.stop().await;
}

#[tokio::test]
async fn d_jobs_are_shown_as_asked_for() {
    let lab = Lab::start().await;
    let admin = lab.admin.clone();
    let answer = lab
        .call("POST", "~/jobs")
        .by(&admin)
        .json(r#"{"command":"","nodes":["b","a","b"],"quorum":1,"run_timeout":0}"#)
        .header("Host", "push.example.com:443")
        .header("X-Forwarded-Proto", "https")
        .send()
        .await;
    let id = answer.job_id();
    let uri = format!("https://push.example.com/organizations/acme/pushy/jobs/{id}");
    answer.check(201, &json!({ "uri": uri }).to_string());
    assert_eq!(answer.header("location"), Some(uri.as_str()));
    let job = lab.job_until(&id, |job| job["status"] == "quorum_failed").await;
    let expected = json!({
        "nodes": { "unavailable": ["b", "a"] },
        "id": id,
        "command": "",
        "status": "quorum_failed",
        "run_timeout": 0,
        "created_at": job["created_at"],
        "updated_at": job["updated_at"],
    });
    assert_eq!(job.to_string(), expected.to_string());
    assert!(job["created_at"].as_str().expect("a date").ends_with(" GMT"));

    let full = json!({
        "command": "sleep 2", "nodes": ["ä/1"], "user": "deploy", "dir": "/srv", "env": { "B": "2", "A": "1" },
        "file": "raw:content", "capture_output": true,
    });
    let id = lab.post(&admin, &full.to_string()).await.job_id();
    let job = lab.job_until(&id, |job| job["status"] == "quorum_failed").await;
    let times = (job["created_at"].clone(), job["updated_at"].clone());
    let mut expected = json!({
        "nodes": { "unavailable": ["ä/1"] }, "id": id, "command": "sleep 2", "status": "quorum_failed",
        "run_timeout": 3600, "created_at": times.0, "updated_at": times.1, "user": "deploy", "dir": "/srv",
        "env": { "B": "2", "A": "1" }, "capture_output": true, "file_specified": true,
    });
    assert_eq!(job.to_string(), expected.to_string());
    let with_file = lab.get(&admin, &format!("~/jobs/{id}?include_file=true")).await.json();
    assert_eq!(with_file["file"], "raw:content");
    assert_eq!(with_file.get("file_specified"), None);
    let other_value = lab.get(&admin, &format!("~/jobs/{id}?include_file=1")).await.json();
    assert_eq!(other_value["file_specified"], true);
    // The list: oldest first, no nodes, values of env hidden.
    let list = lab.get(&admin, "~/jobs?include_file=true").await.json();
    expected.as_object_mut().expect("an object").shift_remove("nodes");
    expected["env"] = json!({ "B": "***", "A": "***" });
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    assert_eq!(list[1].to_string(), expected.to_string());
    for channel in ["stdout", "stderr"] {
        let path = format!("~/jobs/{id}/output/a/{channel}");
        lab.get(&admin, &path).await.check(404, NOT_FOUND);
        let json = lab.call("GET", &path).by(&admin).header("Accept", "application/json").send().await;
        json.check(406, r#"{"error":["not acceptable"]}"#);
    }
    lab.stop().await;
}

#[tokio::test]
async fn e_node_states() {
    let p = People::new().await;
    for path in ["~/node_states/", "~/node_states/n"] {
        for method in ["PUT", "POST", "DELETE"] {
            p.lab.call(method, path).send().await.check(405, NOT_ALLOWED);
        }
        p.check_strangers("GET", path, "").await;
    }
    for actor in [&p.lab.admin, &p.user, &p.client] {
        p.lab.get(actor, "~/node_states/").await.check(200, "[]");
        let unknown = r#"{"node_name":"no.such","status":"offline","availability":"unavailable"}"#;
        p.lab.get(actor, "~/node_states/no.such").await.check(200, unknown);
    }
    let version = p.lab.call("GET", "~/node_states").by(&p.client).version(Version::V1_3).send().await;
    version.check(200, "[]");
    p.lab.stop().await;
}

#[tokio::test]
async fn what_is_no_http_of_ours_is_refused_and_harms_nobody() {
    let lab = Lab::start().await;
    let head = "GET /pushy/_status HTTP/1.1\r\nHost: x\r\n";
    let many: String = (0..300).map(|i| format!("X-{i}: y\r\n")).collect();
    for (bytes, status) in [
        ("GARBAGE\r\n\r\n".to_owned(), "400"),
        (format!("{head}{many}\r\n"), "431"),
        (format!("{head}X: {}\r\n\r\n", "y".repeat(2_000_000)), "431"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(70_000)), "414"),
        (format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
    ] {
        let answer = lab.raw(bytes.as_bytes()).await;
        // HTTP/2 is not even answered.
        let start = if status.is_empty() { String::new() } else { format!("HTTP/1.1 {status} ") };
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(status.is_empty(), text.is_empty());
        assert!(text.starts_with(&start), "{start}: {}", text.chars().take(200).collect::<String>());
    }
    let not_utf8 =
        b"GET /organizations/acme/pushy/jobs HTTP/1.1\r\nConnection: close\r\nX-Ops-UserId: \xff\r\n\
        X-Ops-Timestamp: 2026-01-01T00:00:00Z\r\nX-Ops-Sign: version=1.1\r\nX-Ops-Content-Hash: x\r\n\r\n";
    let text = String::from_utf8(lab.raw(not_utf8).await).expect("UTF-8");
    assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with("'X-Ops-UserId' is not UTF-8\"]}"), "{text}");
    lab.call("GET", "/pushy/_status").send().await.check_status(200);
    lab.stop().await;
}
