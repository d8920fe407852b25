//! Who may speak for which node (decisions 5, 6, 43, 49 and 50).

use openssl::rsa::Rsa;
use pushy_core::ids::OrgName;
use pushy_core::job::NodeStatus;
use pushy_core::message::JobState;
use pushy_core::node_config::NodeConfig;
use pushy_core::server::{CurveKey, Input, Output, Record};

use super::lab::*;

impl Lab {
    fn config_for(&mut self, node: &str, key: CurveKey, public_key: &str, is_node: bool) -> Output {
        let request = self.next_request();
        self.handle(Input::FetchConfig {
            request,
            node: node_ref(node),
            org_name: OrgName::new("acme").unwrap(),
            key,
            public_key: public_key.to_owned(),
            is_node,
        });
        let answer = self.outputs.iter().rev().find(|o| {
            matches!(o, Output::Config { request: r, .. } | Output::ConfigFailed { request: r, .. }
                if *r == request)
        });
        answer.expect("no answer").clone()
    }

    fn end(&mut self, node: &str) {
        self.handle(Input::EndBindings { node: node_ref(node), why: "the node was removed".into() });
    }
}

fn bindings(lab: &Lab) -> usize {
    lab.store().bindings.len()
}

#[test]
fn the_same_key_gets_the_same_session_key_and_another_key_another() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let first = lab.node("a").session.clone();
    lab.fetch("a");
    assert_eq!(lab.node("a").session, first);
    lab.node("a").key = curve_key(2, "a");
    lab.fetch("a");
    assert_ne!(lab.node("a").session, first);
    assert_eq!(bindings(&lab), 2);
}

#[test]
fn the_document_is_the_one_of_the_specification() {
    let mut lab = Lab::new();
    let answer = lab.config_for("a", curve_key(1, "a"), &rsa().1, true);
    let Output::Config { body, .. } = answer else { panic!("{answer:?}") };
    let config = NodeConfig::from_json(body.as_bytes()).unwrap();
    assert_eq!((config.node.as_str(), config.organization.as_str()), ("a", "acme"));
    assert_eq!((config.lifetime, config.max_message_skew, config.max_body_size), (3600, 300, Some(65_536)));
    assert_eq!(config.interval.0, 10_000);
    assert_eq!(config.incarnation.as_str(), "server-1");
    assert_eq!(config.curve_public_key, Some(CurveKey([9; 32])));
    assert!(config.caps.unwrap().has(pushy_core::message::Caps::RESULTS));
}

#[test]
fn a_binding_is_stored_before_it_is_handed_out() {
    let mut lab = Lab::new();
    lab.add("a");
    lab.set_disk(Disk::Waits);
    lab.fetch("a");
    assert!(lab.node("a").session.is_none(), "not answered yet");
    assert!(!lab.connect("a"), "nor may it shake hands");
    lab.set_disk(Disk::Keeps);
    assert!(lab.outputs.iter().any(|o| matches!(o, Output::Config { .. })));
    assert!(lab.connect("a"));
    // A store that fails: 503, and the key is stored when it has recovered.
    let mut lab = Lab::new();
    lab.set_disk(Disk::Fails);
    let answer = lab.config_for("a", curve_key(1, "a"), &rsa().1, true);
    assert!(matches!(answer, Output::ConfigFailed { .. }), "{answer:?}");
    assert_eq!(bindings(&lab), 0);
    lab.set_disk(Disk::Keeps);
    lab.add("a");
    lab.fetch("a");
    assert!(lab.node("a").session.is_none(), "the store gets its second of rest");
    lab.clear();
    lab.pass(1_000);
    assert!(lab.outputs.iter().any(|o| matches!(o, Output::Config { .. })));
    assert_eq!(bindings(&lab), 1);
}

#[test]
fn who_is_not_the_node_makes_no_binding() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let before = bindings(&lab);
    let key = curve_key(7, "user");
    let answer = lab.config_for("a", key, &rsa().1, false);
    let Output::Config { body, .. } = answer else { panic!("{answer:?}") };
    let config = NodeConfig::from_json(body.as_bytes()).unwrap();
    let private = pushy_core::auth::SigningKey::from_pem(&rsa().0).unwrap();
    assert_ne!(Some(config.session_key(&private).unwrap()), lab.node("a").session, "D-09");
    assert_eq!(bindings(&lab), before);
    let conn = lab.next_conn();
    lab.handle(Input::Handshake { conn, key, peer: "10.0.0.9:1".into() });
    assert!(lab.outputs.iter().any(|o| matches!(o, Output::Refuse { conn: c, .. } if *c == conn)));
}

#[test]
fn unusable_keys_are_refused() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let answer = lab.config_for("a", curve_key(1, "a"), "no PEM", true);
    let Output::ConfigFailed { error, .. } = answer else { panic!("{answer:?}") };
    assert!(error.message().contains("public key"), "{error}");
    // The CURVE key of another node.
    let answer = lab.config_for("b", curve_key(1, "a"), &rsa().1, true);
    let Output::ConfigFailed { error, .. } = answer else { panic!("{answer:?}") };
    assert!(error.message().contains("belongs to another node"), "{error}");
    assert!(lab.connect("a"), "which keeps it");
    let weak = Rsa::generate(512).unwrap().public_key_to_pem().unwrap();
    let answer = lab.config_for("c", curve_key(1, "c"), std::str::from_utf8(&weak).unwrap(), true);
    assert!(matches!(answer, Output::ConfigFailed { .. } | Output::Config { .. }));
}

#[test]
fn a_second_key_takes_over_with_its_first_handshake() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let old = lab.node("a").clone();
    lab.node("a").key = curve_key(2, "a");
    lab.fetch("a");
    // Until then the first one is good: its own reconnects included.
    let conn = lab.next_conn();
    lab.handle(Input::Handshake { conn, key: old.key, peer: "10.0.0.1:1".into() });
    assert!(lab.outputs.contains(&Output::Accept { conn }));
    lab.handle(Input::Closed { conn });
    lab.clear();
    assert!(lab.connect("a"));
    assert!(lab.outputs.contains(&Output::Close { conn: old.conn.unwrap() }));
    let conn = lab.next_conn();
    lab.handle(Input::Handshake { conn, key: old.key, peer: "10.0.0.1:2".into() });
    assert!(lab.outputs.iter().any(|o| matches!(o, Output::Refuse { conn: c, .. } if *c == conn)));
    let line = lab.logs().iter().find(|l| l.text.contains("is refused")).map(|l| (*l).clone()).unwrap();
    assert_eq!(line.node, Some(name("a")), "a key once bound is known");
    assert!(line.text.contains("another key of the node has taken over"), "{}", line.text);
    let stored = lab.store().bindings;
    assert_eq!(stored.len(), 1);
    assert!(stored[0].active && stored[0].key == curve_key(2, "a"));
}

#[test]
fn refusals_are_logged_once_a_minute() {
    let mut lab = Lab::new();
    let knock = |lab: &mut Lab, key: u8, peer: &str| {
        let conn = lab.next_conn();
        lab.clear();
        lab.handle(Input::Handshake { conn, key: CurveKey([key; 32]), peer: peer.into() });
        assert!(lab.outputs.iter().any(|o| matches!(o, Output::Refuse { conn: c, .. } if *c == conn)));
        lab.logs().len()
    };
    assert_eq!(knock(&mut lab, 1, "10.0.0.1:1"), 1);
    assert_eq!(knock(&mut lab, 2, "10.0.0.1:2"), 0, "same address, same minute");
    assert_eq!(knock(&mut lab, 2, "10.0.0.2:2"), 1);
    lab.pass(60_000);
    assert_eq!(knock(&mut lab, 2, "10.0.0.1:3"), 1);
    assert!(lab.log_has("never announced"));
    assert_eq!(lab.logs()[0].peer.as_deref(), Some("10.0.0.1:3"));
}

#[test]
fn a_removed_node_is_cut_off() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let conn = lab.node("a").conn.unwrap();
    lab.end("a");
    assert!(lab.outputs.contains(&Output::Close { conn }), "acceptance 8");
    assert_eq!(bindings(&lab), 0);
    assert!(!lab.connect("a"));
    assert!(lab.log_has("the node was removed"));
    // Also after a restart.
    lab.restart(1_000);
    assert!(!lab.connect("a"));
    // A node that is added again may come back.
    lab.fetch("a");
    assert!(lab.connect("a"));
    lab.beat("a", JobState::Idle, None);
    assert!(lab.state("a").online);
}

#[test]
fn bindings_end_when_no_configuration_is_fetched() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let mut request = lab.request(&["a"]);
    request.run_timeout = Some(10_000);
    let job = lab.start_job(request);
    lab.say("a", ack_commit(&job));
    lab.say("a", ack_run(&job));
    lab.pass(7_000_000);
    assert_eq!(bindings(&lab), 1);
    lab.pass(500_000);
    assert_eq!(bindings(&lab), 1, "not while it runs a job");
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Running);
    lab.say("a", succeeded(&job));
    lab.pass(20_000);
    assert_eq!(bindings(&lab), 0);
    // A restart starts the time anew: it counts while the server is up.
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.pass(7_000_000);
    lab.restart(1_000_000);
    lab.pass(7_000_000);
    assert_eq!(bindings(&lab), 1);
    lab.fetch("a");
    lab.pass(7_000_000);
    assert_eq!(bindings(&lab), 1, "a fetch as well");
    lab.pass(201_000);
    assert_eq!(bindings(&lab), 0);
}

#[test]
fn two_agents_on_one_node_are_named() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let mut warned = false;
    for turn in 0..4u8 {
        let node = lab.node("a");
        node.key = curve_key(2 + turn % 2, "a");
        node.identity.incarnation =
            pushy_core::ids::IncarnationId::new(&format!("process-{}", turn % 2)).unwrap();
        lab.fetch("a");
        assert!(lab.connect("a"));
        lab.beat("a", JobState::Idle, None);
        warned |= lab.log_has("two agents seem to run as this node");
        lab.pass(30_000);
    }
    assert!(warned);
    let line = lab.logs().iter().find(|l| l.text.contains("two agents")).unwrap().text.clone();
    assert!(line.contains("process-0") && line.contains("process-1") && line.contains("10.0.0.1"), "{line}");
}

#[test]
fn keys_that_are_never_used_do_not_pile_up() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    for n in 0..40 {
        lab.config_for("a", curve_key(100 + n, "a"), &rsa().1, true);
    }
    assert!(bindings(&lab) <= 6, "{}", bindings(&lab));
    assert!(lab.connect("a"), "the node's own key stays");
    let ended = lab.kept.iter().filter(|r| matches!(r, Record::BindingEnded { .. })).count();
    assert!(ended >= 35, "{ended}");
}

/// Decision 5: what an operator can go by when the key is nobody's.
#[test]
fn a_refusal_names_who_fetched_a_configuration_from_there() {
    let mut lab = Lab::new();
    lab.add("a");
    lab.fetch("a");
    let client = String::new();
    lab.handle(Input::Described { node: node_ref("a"), client, address: "10.0.0.1".into() });
    lab.pass(12_000);
    let knock = |lab: &mut Lab, key: u8, peer: &str| {
        lab.clear();
        let conn = lab.next_conn();
        lab.handle(Input::Handshake { conn, key: curve_key(key, "stranger"), peer: peer.into() });
        lab.logs().last().map(|line| line.text.clone()).unwrap_or_default()
    };
    let text = knock(&mut lab, 1, "10.0.0.1:4711");
    let end = "; the last configuration fetched from 10.0.0.1 was a's, 12 s ago";
    assert!(text.ends_with(end), "{text}");
    assert_eq!(knock(&mut lab, 2, "10.0.0.1:4712"), "", "once a minute");
    let text = knock(&mut lab, 1, "[fe80::1]:4711");
    assert!(text.ends_with("; no configuration was fetched from fe80::1 within an hour"), "{text}");
    lab.pass(3_600_000);
    let text = knock(&mut lab, 3, "10.0.0.1:4713");
    assert!(text.contains("is refused") && !text.contains("a's"), "{text}");
}

#[test]
fn a_removed_node_is_offline_at_once() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.say("a", ack_commit(&job));
    lab.say("a", ack_run(&job));
    lab.end("a");
    let state = lab.state("a");
    assert_eq!((state.online, state.available), (false, false));
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Crashed);
}
