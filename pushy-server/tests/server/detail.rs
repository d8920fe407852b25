//! `detail=1` (decision 20): what an operator is told of nodes and jobs beside what the originals tell.

use pushy_core::ids::IncarnationId;
use pushy_core::message::JobState;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::puppet::{Line, Puppet};

/// A process of a node that has a name of its own.
async fn process(lab: &Lab, node: &crate::lab::Actor, name: &str) -> (Puppet, Line) {
    let mut puppet = Puppet::new(lab, node.clone()).await;
    puppet.identity.incarnation = IncarnationId::new(name).expect("an id");
    let mut line = puppet.connect(lab).await.expect("a handshake");
    line.heartbeat(JobState::Idle, None).await;
    // A connection that ended now could take the heartbeat with it.
    line.expect("abort").await;
    (puppet, line)
}

fn kinds(detail: &Value) -> Vec<&str> {
    let warnings = detail["warnings"].as_array().expect("a list");
    warnings.iter().map(|warning| warning["kind"].as_str().expect("a text")).collect()
}

#[tokio::test]
async fn a_node_in_detail() {
    let lab = Lab::start().await;
    let node = lab.node("web-1", 0).await;
    let plain = lab.get(&lab.admin, "~/node_states/web-1").await;
    plain.check(200, r#"{"node_name":"web-1","status":"offline","availability":"unavailable"}"#);
    let nothing = json!({
        "node_name": "web-1", "status": "offline", "availability": "unavailable",
        "available_since": null, "unavailable_since": null, "reason": "never seen", "last_seen": null,
        "address": null, "client_version": null, "incarnation_id": null, "key": null, "clock_offset": null,
        "jobs": [], "warnings": [],
    });
    assert_eq!(lab.get(&lab.admin, "~/node_states/web-1?detail=1").await.json(), nothing);
    assert_eq!(lab.get(&lab.admin, "~/node_states?detail=1").await.json(), json!([]));

    let puppet = Puppet::new(&lab, node).await;
    let _line = puppet.online(&lab).await;
    let found = lab.state_until("web-1?detail=1", |state| state["availability"] == "available").await;
    assert_eq!(lab.get(&lab.admin, "~/node_states?detail=1").await.json(), json!([found]));
    for (name, begins) in
        [("address", "127.0.0.1:"), ("available_since", "20"), ("last_seen", "20"), ("key", "CurveKey(")]
    {
        assert!(found[name].as_str().is_some_and(|text| text.starts_with(begins)), "{name}: {found}");
    }
    assert_eq!((&found["reason"], kinds(&found)), (&Value::Null, vec![]));
    assert_eq!(found["incarnation_id"], "0d6b7a52-3c4e-4f0f-8a1b-9e2d7c6b5a40");
    // Only on request, and only exactly so.
    for query in ["", "?detail=0", "?detail=true", "?x=detail"] {
        let state = lab.get(&lab.admin, &format!("~/node_states/web-1{query}")).await;
        state.check(200, r#"{"node_name":"web-1","status":"online","availability":"available"}"#);
    }
    // Reading it takes what reading states takes.
    lab.group("pushy_job_readers", &[]).await;
    let user = lab.user("mallory", 1).await;
    lab.get(&user, "~/node_states/web-1?detail=1").await.check_status(403);
    lab.stop().await;
}

#[tokio::test]
async fn two_agents_a_clock_and_who_started_a_job() {
    let lab = Lab::start().await;
    let node = lab.node("web-1", 0).await;
    let (_one, _line) = process(&lab, &node, "agent-one").await;
    let (_two, _line) = process(&lab, &node, "agent-two").await;
    let (_one, _line) = process(&lab, &node, "agent-one").await;
    let (_two, mut line) = process(&lab, &node, "agent-two").await;
    let found = lab.state_until("web-1?detail=1", |state| !kinds(state).is_empty()).await;
    assert_eq!(kinds(&found), ["two_agents"]);
    let text = found["warnings"][0]["text"].as_str().expect("a text");
    assert!(
        text.contains("agent-one") && text.contains("agent-two") && text.contains("127.0.0.1:"),
        "{text}"
    );

    line.clock = 400;
    line.heartbeat(JobState::Idle, None).await;
    let found = lab.state_until("web-1?detail=1", |state| kinds(state).len() == 2).await;
    assert_eq!(kinds(&found), ["two_agents", "clock_off"]);
    let offset = found["clock_offset"].as_i64().expect("a number");
    assert!((398..=400).contains(&offset), "{found}");
    let text = found["warnings"][1]["text"].as_str().expect("a text");
    assert!(text.contains(" s ahead of the server's, so its messages are dropped"), "{text}");

    let id = lab.post(&lab.admin, r#"{"command":"date","nodes":["gone"],"quorum":1}"#).await.job_id();
    let job = lab.get(&lab.admin, &format!("~/jobs/{id}?detail=1")).await.json();
    assert_eq!((&job["requester"], &job["quorum"]), (&json!("admin"), &json!(1)));
    let plain = lab.get(&lab.admin, &format!("~/jobs/{id}")).await.json();
    assert_eq!((plain.get("requester"), plain.get("quorum")), (None, None));
    lab.stop().await;
}
