//! Nodes on the command port: a job's whole way, and what ends a node's connection.

use std::time::Duration;

use pushy_core::message::JobState;
use pushy_server::admin::{Command, NewKey};
use serde_json::json;

use crate::lab::{Lab, public_key};
use crate::puppet::{NoLine, Puppet};

async fn until_available(lab: &Lab, name: &str) {
    lab.state_until(name, |state| state["availability"] == "available").await;
}

#[tokio::test]
async fn a_job_goes_its_way() {
    let lab = Lab::start().await;
    let puppet = Puppet::new(&lab, lab.node("web-1", 0).await).await;
    let mut line = puppet.online(&lab).await;
    until_available(&lab, "web-1").await;
    let states = r#"[{"node_name":"web-1","availability":"available"}]"#;
    lab.get(&lab.admin, "~/node_states").await.check(200, states);
    assert_eq!(lab.call("GET", "/pushy/_status").send().await.json()["node_fsm_count"], 1);
    let body = r#"{"command":"date","nodes":["web-1","web-2"],"quorum":1,"capture_output":true}"#;
    let id = lab.post(&lab.admin, body).await.job_id();
    let job = line.take_job().await;
    assert_eq!(job.as_str(), id);
    lab.job_until(&id, |job| job["nodes"]["running"] == json!(["web-1"])).await;
    line.succeed(&job, "now\n").await;
    let done = lab.job_until(&id, |job| job["status"] == "complete").await;
    assert_eq!(done["nodes"], json!({ "succeeded": ["web-1"], "unavailable": ["web-2"] }));
    for (channel, text) in [("stdout", "now\n"), ("stderr", "")] {
        let answer = lab.get(&lab.admin, &format!("~/jobs/{id}/output/web-1/{channel}")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, text));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_removed_or_rekeyed_node_loses_its_connection() {
    let lab = Lab::start().await;
    let org = Some("acme".to_owned());
    for rekey in [false, true] {
        let name = if rekey { "rekeyed" } else { "removed" };
        let puppet = Puppet::new(&lab, lab.node(name, 0).await).await;
        let mut line = puppet.online(&lab).await;
        until_available(&lab, name).await;
        let command = if rekey {
            let node = NewKey { name: name.into(), public_key: public_key(1) };
            Command::NodeRekey { org: org.clone(), node }
        } else {
            Command::NodeRemove { org: org.clone(), names: vec![name.into()] }
        };
        lab.operate(command).await.expect("done");
        let closed =
            tokio::time::timeout(Duration::from_secs(5), async { while line.next().await.is_some() {} });
        closed.await.expect("closed within 5 s");
        assert_eq!(
            puppet.connect(&lab).await.err(),
            Some(NoLine::Silence),
            "a refusal says nothing (decision 5)"
        );
        assert_eq!(puppet.fetch(&lab).await, 401);
        // It is offline at once: nobody waits for what cannot be heard any more.
        let state = lab.get(&lab.admin, &format!("~/node_states/{name}")).await.json();
        assert_eq!((&state["availability"], &state["status"]), (&json!("unavailable"), &json!("offline")));
    }
    lab.stop().await;
}

#[tokio::test]
async fn only_a_node_itself_is_bound_by_a_fetch() {
    let lab = Lab::start().await;
    lab.node("web-1", 0).await;
    // A user may look at any node's configuration, but its CURVE key opens nothing (D-09).
    let curious = Puppet::new_as(&lab, &lab.admin, "web-1").await;
    assert_eq!(curious.connect(&lab).await.err(), Some(NoLine::Silence));
    lab.stop().await;
}

#[tokio::test]
async fn a_running_job_survives_a_restart() {
    let lab = Lab::start().await;
    let puppet = Puppet::new(&lab, lab.node("web-1", 0).await).await;
    let mut line = puppet.online(&lab).await;
    until_available(&lab, "web-1").await;
    let id = lab.post(&lab.admin, r#"{"command":"x","nodes":["web-1"]}"#).await.job_id();
    let job = line.take_job().await;
    lab.job_until(&id, |job| job["nodes"]["running"] == json!(["web-1"])).await;
    let incarnation = lab.about["incarnation_id"].clone();

    let lab = Lab::start_in(lab.stop().await).await;
    assert_eq!(lab.about["incarnation_id"], incarnation);
    assert_eq!(line.next().await, None, "the old connection is gone");
    // No new configuration: keys and bindings are those of before. A known node is greeted with ack (decision 4).
    let mut line = puppet.connect(&lab).await.expect("a handshake");
    line.heartbeat(JobState::Running, Some(&job)).await;
    line.expect("ack").await;
    assert_eq!(lab.get(&lab.admin, &format!("~/jobs/{id}")).await.json()["status"], "running");
    line.succeed(&job, "").await;
    let done = lab.job_until(&id, |job| job["status"] == "complete").await;
    assert_eq!(done["nodes"], json!({ "succeeded": ["web-1"] }));
    lab.stop().await;
}
