//! `POST jobs/ID/cancel`, and what `detail=1` says of how nodes ended.

use std::time::Duration;

use pushy_core::ids::JobId;
use pushy_core::message::{Caps, Captured, JobRef, JobState, NodeMessage};
use pushy_core::reason::{Reason, ReasonCode};
use serde_json::{Value, json};

use crate::lab::{Actor, Answer, DEADLINE, Lab};
use crate::listener::Listener;
use crate::puppet::{Line, Puppet};

const SETTINGS: &str = "heartbeat_interval = 0.5\nvoting_timeout = 2\naudit_log = \"audit.log\"\n";

async fn cancel(lab: &Lab, by: &Actor, job: &str, body: &str) -> Answer {
    let call = lab.call("POST", &format!("~/jobs/{job}/cancel")).by(by);
    if body.is_empty() { call.send().await } else { call.json(body).send().await }
}

/// A node that takes `cancel`, or an original.
async fn node(lab: &Lab, name: &str, number: usize, caps: Option<Caps>) -> (Puppet, Line) {
    let mut puppet = Puppet::new(lab, lab.node(name, number).await).await;
    puppet.caps = caps;
    let line = puppet.online(lab).await;
    lab.state_until(name, |state| state["availability"] == "available").await;
    (puppet, line)
}

/// Says that it runs the job until the server says this. A heartbeat counts when it is stamped after its connection's
/// handshake, and stamps are in seconds (decision 3).
async fn until_told(line: &mut Line, job: &JobId, kind: &str) {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        line.heartbeat(JobState::Running, Some(job)).await;
        let told = tokio::time::timeout(Duration::from_millis(300), line.next()).await;
        if told.is_ok_and(|message| message.expect("an open line")["type"] == kind) {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "no {kind}");
    }
}

async fn detail(lab: &Lab, job: &str) -> Value {
    lab.get(&lab.admin, &format!("~/jobs/{job}?detail=1")).await.json()
}

#[tokio::test]
async fn a_running_job() {
    let lab = Lab::start_with(SETTINGS).await;
    let (_one, mut new) = node(&lab, "web-1", 0, Some(Caps::OF_NODE)).await;
    let (_two, mut old) = node(&lab, "web-2", 1, None).await;
    let id =
        lab.post(&lab.admin, r#"{"command":"x","nodes":["web-1","web-2","gone"],"quorum":2}"#).await.job_id();
    let commit = new.expect("commit").await;
    assert_eq!(commit["run_timeout"], 3600);
    assert_eq!(old.expect("commit").await.get("run_timeout"), None);
    let job = JobRef::Id(JobId::new(&id).expect("an id"));
    for line in [&mut new, &mut old] {
        line.say(NodeMessage::AckCommit { job: job.clone() }).await;
    }
    for line in [&mut new, &mut old] {
        line.expect("run").await;
        line.say(NodeMessage::AckRun { job: job.clone() }).await;
    }
    lab.job_until(&id, |job| job["nodes"]["running"].as_array().is_some_and(|nodes| nodes.len() == 2)).await;

    // A part of it first.
    let answer = cancel(&lab, &lab.admin, &id, r#"{"nodes":["web-2","gone"]}"#).await;
    answer.check(202, &format!(r#"{{"id":"{id}","nodes":["web-2"]}}"#));
    old.expect("abort").await;
    old.say(NodeMessage::Aborted { job: job.clone(), reason: None }).await;
    let there = lab.job_until(&id, |job| job["nodes"]["aborted"] == json!(["web-2"])).await;
    assert_eq!(there["status"], "running");
    // The rest.
    cancel(&lab, &lab.admin, &id, "{}").await.check(202, &format!(r#"{{"id":"{id}","nodes":["web-1"]}}"#));
    assert_eq!(new.expect("cancel").await["job_id"], json!(id));
    let found = detail(&lab, &id).await;
    assert_eq!(found["status"], "aborted");
    assert_eq!(found["counts"], json!({ "aborted": 2, "unavailable": 1 }));
    let by = json!({ "code": "cancelled", "text": "by admin" });
    let never = json!({ "code": "unavailable", "text": "never seen" });
    assert_eq!(found["reasons"], json!({ "web-1": by, "web-2": by, "gone": never }));
    let plain = lab.get(&lab.admin, &format!("~/jobs/{id}")).await.json();
    assert_eq!((plain.get("reasons"), plain.get("counts")), (None, None));
    // Once more: there is nothing left to do.
    for body in ["", "{}", r#"{"nodes":["web-1"]}"#] {
        cancel(&lab, &lab.admin, &id, body).await.check(202, &format!(r#"{{"id":"{id}","nodes":[]}}"#));
    }
    let audit = std::fs::read_to_string(lab.dir.join("audit.log")).expect("the audit log");
    let lines = audit.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let cancels: Vec<Value> = lines.filter(|line| line["what"] == "job_cancelled").collect();
    assert_eq!(cancels.len(), 2, "{audit}");
    assert_eq!(
        (&cancels[0]["job"], &cancels[0]["nodes"], &cancels[0]["user"]),
        (&json!(id), &json!(1), &json!("admin"))
    );
    lab.stop().await;
}

#[tokio::test]
async fn what_is_refused() {
    let lab = Lab::start_with(SETTINGS).await;
    let (_one, mut line) = node(&lab, "web-1", 0, None).await;
    let id = lab.post(&lab.admin, r#"{"command":"x","nodes":["web-1"]}"#).await.job_id();
    let job = line.take_job().await;
    // Whoever may start jobs may cancel them, and nobody else.
    let mallory = lab.user("mallory", 1).await;
    cancel(&lab, &mallory, &id, "").await.check_status(403);
    cancel(&lab, &Actor::numbered("nobody", 2), &id, "").await.check_status(401);
    lab.call("POST", &format!("~/jobs/{id}/cancel")).send().await.check_status(400);
    lab.get(&lab.admin, &format!("~/jobs/{id}/cancel")).await.check_status(405);
    for (body, text) in [
        ("[]", "invalid JSON supplied (expected an object)"),
        (r#"{"node":["web-1"]}"#, "invalid key supplied (there is only nodes)"),
        (r#"{"nodes":["web-1","web-9"]}"#, "the job has no node \\\"web-9\\\""),
    ] {
        cancel(&lab, &lab.admin, &id, body).await.check(400, &format!(r#"{{"error":"{text}"}}"#));
    }
    let untyped = lab.call("POST", &format!("~/jobs/{id}/cancel")).by(&lab.admin).body("{}").send().await;
    untyped.check_status(415);
    for unknown in ["00000000000000000000000000000000", "x"] {
        cancel(&lab, &lab.admin, unknown, "").await.check_status(404);
    }
    assert_eq!(lab.get(&lab.admin, &format!("~/jobs/{id}")).await.json()["status"], "running");
    line.succeed(&job, "").await;
    lab.job_until(&id, |job| job["status"] == "complete").await;
    cancel(&lab, &lab.admin, &id, "").await.check(409, r#"{"error":"the job has ended: complete"}"#);
    lab.stop().await;
}

/// A cancel is stored before it is answered: after a restart a node that was away is told, and the job stays aborted.
#[tokio::test]
async fn over_a_restart() {
    let lab = Lab::start_with(SETTINGS).await;
    let (puppet, mut line) = node(&lab, "web-1", 0, Some(Caps::OF_NODE)).await;
    let (_other, mut other) = node(&lab, "web-2", 1, Some(Caps::OF_NODE)).await;
    let whole = lab.post(&lab.admin, r#"{"command":"x","nodes":["web-1"]}"#).await.job_id();
    let job = line.take_job().await;
    let part = lab.post(&lab.admin, r#"{"command":"y","nodes":["web-2"]}"#).await.job_id();
    let going = other.take_job().await;
    drop(line);
    lab.state_until("web-1", |state| state["availability"] != "available").await;
    cancel(&lab, &lab.admin, &whole, "").await.check_status(202);
    let lab = Lab::start_in(lab.stop().await).await;
    assert_eq!(lab.get(&lab.admin, &format!("~/jobs/{whole}")).await.json()["status"], "aborted");
    assert_eq!(detail(&lab, &whole).await["reasons"]["web-1"]["text"], "by admin");
    let mut line = puppet.connect(&lab).await.expect("a handshake");
    until_told(&mut line, &job, "abort").await;
    // The other one goes on, and can be cancelled after the restart as well.
    assert_eq!(lab.get(&lab.admin, &format!("~/jobs/{part}")).await.json()["status"], "running");
    let mut other = _other.connect(&lab).await.expect("a handshake");
    other.heartbeat(JobState::Running, Some(&going)).await;
    lab.state_until("web-2", |state| state["availability"] == "available").await;
    cancel(&lab, &lab.admin, &part, "").await.check_status(202);
    assert_eq!(other.expect("cancel").await["job_id"], json!(part));
    lab.stop().await;
}

/// Reasons are kept, shown on request, and in the feed for those who ask.
#[tokio::test]
async fn reasons_are_told_on_request() {
    let lab = Lab::start_with(SETTINGS).await;
    let (_one, mut line) = node(&lab, "web-1", 0, Some(Caps::OF_NODE)).await;
    let id = lab.post(&lab.admin, r#"{"command":"x","nodes":["web-1"]}"#).await.job_id();
    let feed = format!("~/job_status_feed/{id}");
    let mut plain = Listener::open(&lab, &lab.admin, &feed, Some("job-1")).await;
    let mut more = Listener::open(&lab, &lab.admin, &format!("{feed}?detail=1"), Some("job-1")).await;
    let job = line.take_job().await;
    let reason = Some(Reason::new(ReasonCode::Exit, "exit status 3"));
    let failed = NodeMessage::Failed { job: JobRef::Id(job), output: Captured::default(), reason };
    line.say(failed).await;
    lab.job_until(&id, |job| job["status"] == "complete").await;
    let why = json!({ "code": "exit", "text": "exit status 3" });
    assert_eq!(detail(&lab, &id).await["reasons"], json!({ "web-1": why }));
    let (plain, more) = (plain.rest().await, more.rest().await);
    assert_eq!(plain.len(), more.len());
    for (plain, more) in plain.iter().zip(&more) {
        let (mut told, is) = (more.json().expect("JSON"), plain.json().expect("JSON"));
        assert_eq!(is.get("reason"), None);
        let reason = told.as_object_mut().expect("an object").remove("reason");
        assert_eq!(reason.as_ref(), (more.name == "run_complete").then_some(&why));
        assert_eq!(told, is);
        if reason.is_some() {
            assert!(
                more.data.ends_with(r#","reason":{"code":"exit","text":"exit status 3"}}"#),
                "{}",
                more.data
            );
        }
    }
    // A restart forgets nothing of it.
    let lab = Lab::start_in(lab.stop().await).await;
    assert_eq!(detail(&lab, &id).await["reasons"], json!({ "web-1": why }));
    lab.stop().await;
}
