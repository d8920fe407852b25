//! Nodes on the server machine: first contact, reconnect, silence, restart (section 5, decisions 4, 6 and 47).

use pushy_core::ids::IncarnationId;
use pushy_core::job::{JobStatus, NodeStatus};
use pushy_core::message::{JobRef, JobState, NodeMessage};
use pushy_core::server::{Input, Output};

use super::lab::*;

#[test]
fn first_contact() {
    let mut lab = Lab::new();
    lab.add("a");
    lab.fetch("a");
    assert!(!lab.state("a").online, "D-12: a configuration makes no state");
    lab.connect("a");
    assert!(!lab.state("a").online, "nor does a connection");
    lab.beat("a", JobState::Idle, None);
    assert_eq!(lab.sent_types("a"), "abort");
    assert_eq!((lab.state("a").online, lab.state("a").available), (true, false));
    lab.pass(2_000);
    assert_eq!(lab.sent_types("a"), "abort abort abort");
    lab.say("a", aborted(None));
    assert!(lab.state("a").available);
    lab.pass(5_000);
    assert_eq!(lab.sent_types("a"), "abort abort abort");
    let states = lab.server.node_states(&org());
    assert_eq!(states.len(), 1);
    assert_eq!(lab.server.counts().0, 1);
}

#[test]
fn an_aborted_that_comes_first_is_answered_and_counts() {
    let mut lab = Lab::new();
    lab.add("a");
    lab.fetch("a");
    lab.connect("a");
    lab.say("a", aborted(None));
    assert_eq!(lab.sent_types("a"), "abort");
    assert!(lab.state("a").available);
}

#[test]
fn a_new_connection_of_the_same_process_keeps_the_job() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.say("a", ack_commit(&job));
    lab.say("a", ack_run(&job));
    let old = lab.node("a").conn.unwrap();
    lab.clear();
    // The old connection still seems to stand.
    lab.connect("a");
    assert!(lab.outputs.contains(&Output::Close { conn: old }));
    lab.beat("a", JobState::Running, Some(&job));
    assert_eq!(lab.sent_types("a"), "ack");
    lab.say("a", succeeded(&job));
    assert_eq!(lab.job_status(&job), JobStatus::Complete);
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Succeeded);
}

#[test]
fn another_process_of_the_node_ends_its_jobs() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.say("a", ack_commit(&job));
    lab.say("a", ack_run(&job));
    lab.disconnect("a");
    lab.node("a").identity.incarnation = IncarnationId::new("a-2").unwrap();
    lab.connect("a");
    lab.clear();
    lab.beat("a", JobState::Idle, None);
    assert_eq!(lab.events(), ["rehab(a)", "run_complete(a:crashed)", "job_complete(complete)"]);
    assert_eq!(lab.sent_types("a"), "abort");
    lab.say("a", aborted(None));
    assert!(lab.state("a").available);
}

#[test]
fn silence() {
    // With its connection standing, a node becomes unavailable, and its job goes on (decision 4).
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.say("a", ack_commit(&job));
    lab.say("a", ack_run(&job));
    lab.pass(29_000);
    assert!(lab.state("a").available);
    lab.pass(2_000);
    assert_eq!((lab.state("a").online, lab.state("a").available), (true, false));
    lab.pass(1_000_000);
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Running);
    lab.say("a", succeeded(&job));
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Succeeded);
    assert!(lab.state("a").available, "any message is a sign of life");
    // Without a connection it is lost, and its job with it.
    let job = lab.start(&["a"]);
    lab.say("a", ack_commit(&job));
    lab.disconnect("a");
    assert!(!lab.state("a").available);
    lab.pass(29_000);
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Ready);
    lab.pass(2_000);
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Crashed);
    assert!(!lab.state("a").online);
    // D-12: one that never sends a heartbeat does not stay for ever.
    lab.add("b");
    lab.fetch("b");
    lab.connect("b");
    lab.say("b", aborted(None));
    assert!(lab.state("b").available);
    lab.pass(31_000);
    assert!(!lab.state("b").online);
}

#[test]
fn soon_after_a_start_only_run_timeout_ends_a_job() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let mut request = lab.request(&["a"]);
    request.run_timeout = Some(100_000);
    let job = lab.start_job(request);
    lab.say("a", ack_commit(&job));
    lab.say("a", ack_run(&job));
    lab.restart(3_000);
    assert!(!lab.state("a").online, "not yet heard");
    lab.pass(139_000);
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Running);
    lab.pass(2_000);
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Crashed);
}

#[test]
fn a_known_node_is_acknowledged_after_a_restart() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.say("a", ack_commit(&job));
    lab.say("a", ack_run(&job));
    lab.restart(3_000);
    assert!(lab.connect("a"), "no configuration is fetched again");
    lab.beat("a", JobState::Running, Some(&job));
    assert_eq!(lab.sent_types("a"), "ack");
    assert!(lab.state("a").available);
    lab.say("a", succeeded(&job));
    assert_eq!(lab.events(), ["run_complete(a:success)", "job_complete(complete)"]);
    // A result that comes first, as from an original after a long outage, counts as well.
    let job = lab.start(&["a"]);
    lab.say("a", ack_commit(&job));
    lab.say("a", ack_run(&job));
    lab.restart(60_000);
    lab.pass(100_000);
    lab.connect("a");
    lab.say("a", succeeded(&job));
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Succeeded);
}

#[test]
fn the_server_beats_at_the_start_and_every_interval() {
    let mut lab = Lab::new();
    let beats = |lab: &Lab| lab.outputs.iter().filter(|o| matches!(o, Output::Publish { .. })).count();
    assert_eq!(beats(&lab), 1);
    lab.pass(35_000);
    assert_eq!(beats(&lab), 4);
    let Some(Output::Publish { body, .. }) = lab.outputs.last() else { panic!("no heartbeat") };
    let body = String::from_utf8(body.clone()).unwrap();
    assert!(body.starts_with(r#"{"sequence":3,"timestamp":""#), "{body}");
    assert!(body.ends_with(r#""server":"push","type":"heartbeat","incarnation_id":"server-1"}"#), "{body}");
}

/// What is dropped, and how the log says so. Nothing may change.
#[test]
fn bad_messages_change_nothing() {
    type Break = fn(&mut Lab) -> (Vec<u8>, Vec<u8>);
    let beat = || NodeMessage::Heartbeat { state: Some(JobState::Idle), job: JobRef::None, caps: None };
    fn said(lab: &mut Lab) -> (Vec<u8>, Vec<u8>) {
        lab.frames("a", &NodeMessage::Aborted { job: JobRef::None, reason: None })
    }
    let cases: [(&str, Break, &str); 8] = [
        ("signature", |lab| (said(lab).0, said(lab).1), "the signature does not fit"),
        ("header", |lab| (b"Version:2.0".to_vec(), said(lab).1), "signing method"),
        ("header size", |lab| (vec![b'x'; 2049], said(lab).1), "2049 bytes"),
        ("body size", |lab| (said(lab).0, vec![b' '; 65_537]), "65537 bytes"),
        (
            "another node",
            |lab| {
                lab.node("a").identity.node = name("b");
                said(lab)
            },
            "names another node",
        ),
        (
            "another organization",
            |lab| {
                lab.node("a").identity.org = pushy_core::ids::OrgName::new("other").unwrap();
                said(lab)
            },
            "names another node",
        ),
        (
            "clock",
            |lab| {
                lab.node("a").clock = 300;
                said(lab)
            },
            "300 s away",
        ),
        (
            "clock",
            |lab| {
                lab.node("a").clock = -300;
                said(lab)
            },
            "300 s away",
        ),
    ];
    for (what, make, log) in cases {
        let mut lab = Lab::new();
        lab.add("a");
        lab.fetch("a");
        lab.connect("a");
        let (header, body) = make(&mut lab);
        let conn = lab.node("a").conn.unwrap();
        lab.clear();
        lab.handle(Input::Frames { conn, header, body });
        assert!(!lab.state("a").online, "{what}");
        assert_eq!(lab.sent_types("a"), "", "{what}");
        assert!(lab.log_has(log), "{what}: {:?}", lab.logs());
    }
    let mut lab = Lab::new();
    lab.add("a");
    lab.fetch("a");
    lab.connect("a");
    lab.say("a", beat());
    lab.clear();
    lab.say("a", NodeMessage::Unknown { name: "whatever".into() });
    assert!(lab.log_has("unknown type"));
}

#[test]
fn replayed_frames_are_dropped() {
    // On the same connection.
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.bring_up("b");
    let job = lab.start(&["a", "b"]);
    let (header, body) = lab.frames("a", &ack_commit(&job));
    let conn = lab.node("a").conn.unwrap();
    let replay = |lab: &mut Lab, conn| {
        lab.clear();
        lab.handle(Input::Frames { conn, header: header.clone(), body: body.clone() });
    };
    replay(&mut lab, conn);
    assert_eq!(lab.events(), ["quorum_vote(a:success)"]);
    replay(&mut lab, conn);
    assert_eq!(lab.events(), [""; 0]);
    assert!(lab.log_has("a replay"));
    // On another connection of the same node.
    lab.disconnect("a");
    lab.connect("a");
    let conn = lab.node("a").conn.unwrap();
    replay(&mut lab, conn);
    assert_eq!(lab.events(), [""; 0]);
    assert!(lab.log_has("a replay"));
    // On the connection of another node: its session key does not fit.
    let conn = lab.node("b").conn.unwrap();
    replay(&mut lab, conn);
    assert!(lab.log_has("the signature does not fit"));
    // After a restart of the server: what does not fit any more does nothing.
    lab.say("a", ack_run(&job));
    lab.pass(20_000);
    lab.restart(1_000);
    lab.connect("a");
    let conn = lab.node("a").conn.unwrap();
    replay(&mut lab, conn);
    assert_eq!(lab.events(), [""; 0]);
    assert_eq!(lab.sent_types("a"), "ack");
}

#[test]
fn names_of_one_organization_by_name() {
    let mut lab = Lab::new();
    for node in ["c", "a", "b"] {
        lab.bring_up(node);
    }
    let names: Vec<String> =
        lab.server.node_states(&org()).iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let other = pushy_core::ids::OrgId::new("ffffffffffffffffffffffffffffffff").unwrap();
    assert!(lab.server.node_states(&other).is_empty());
}
