//! Two agents on one node, keys that change hands, clocks that are off: who is told, when and in which words
//! (decisions 5, 20 and 49).

use pushy_core::ids::IncarnationId;
use pushy_core::message::JobState;
use pushy_core::server::{Input, NodeDetail, NodeWarning, Output, RefusedKey};

use super::lab::*;

impl Lab {
    fn detail(&self, name: &str) -> NodeDetail {
        self.server.node_detail(&node_ref(name))
    }

    fn kinds(&self, name: &str) -> Vec<&'static str> {
        self.detail(name).warnings.iter().map(NodeWarning::kind).collect()
    }

    /// A process of the node, from a host, with a key, comes and says what it is.
    fn comes(&mut self, name: &str, process: &str, key: u8, host: &str) -> bool {
        let node = self.node(name);
        node.key = curve_key(key, name);
        node.identity.incarnation = IncarnationId::new(process).unwrap();
        self.fetch(name);
        let (conn, key) = (self.next_conn(), self.node(name).key);
        let peer = format!("{host}:{}", conn.0);
        self.handle(Input::Handshake { conn, key, peer });
        if !self.outputs.contains(&Output::Accept { conn }) {
            return false;
        }
        self.handle(Input::Opened { conn });
        let node = self.node(name);
        (node.conn, node.sequence) = (Some(conn), 0);
        self.beat(name, JobState::Idle, None);
        true
    }
}

/// One process after the other, 30 s apart: (incarnation, key, host).
fn check(story: &[(&str, u8, &str)], expected: &[&str]) -> Lab {
    let mut lab = Lab::new();
    lab.add("a");
    for (process, key, host) in story {
        assert!(lab.comes("a", process, *key, host), "{story:?}");
        lab.pass(30_000);
    }
    assert_eq!(lab.kinds("a"), expected, "{story:?}");
    lab
}

#[test]
fn who_takes_the_node_from_whom() {
    let here = "10.0.0.1";
    check(&[("p", 1, here)], &[]);
    // Restarts, each with a key of its own, as originals have it; and of one that keeps its key.
    check(&[("p", 1, here), ("q", 2, here), ("r", 3, here), ("s", 4, here), ("t", 5, here)], &[]);
    check(&[("p", 1, here), ("q", 1, here), ("r", 1, here), ("s", 1, here)], &[]);
    // One process that takes a new key now and then, or loses its connection.
    check(&[("p", 1, here), ("p", 2, here), ("p", 3, here), ("p", 4, here), ("p", 1, here)], &[]);
    check(&[("p", 1, here), ("p", 1, here), ("p", 1, here), ("p", 1, here)], &[]);
    // Two of them, on one host: twice is chance, three times is not.
    check(&[("p", 1, here), ("q", 2, here), ("p", 3, here)], &[]);
    check(&[("p", 1, here), ("q", 2, here), ("p", 3, here), ("q", 4, here)], &["two_agents"]);
    // A machine and its clone, which has the same key.
    check(&[("p", 1, here), ("q", 1, here), ("p", 1, here), ("q", 1, here)], &["two_agents"]);
    // From another host once: moved, or stolen.
    check(&[("p", 1, here), ("q", 2, "10.0.0.2")], &["key_changed"]);
    let two = check(
        &[("p", 1, here), ("q", 2, "10.0.0.2"), ("p", 3, here), ("q", 4, "10.0.0.2")],
        &["two_agents", "key_changed"],
    );
    let warnings = two.detail("a").warnings;
    let text = warnings[0].to_string();
    for part in ["10.0.0.1:3 (incarnation p)", "10.0.0.2:4 (incarnation q)", "stop one of them"] {
        assert!(text.contains(part), "{text}");
    }
    let text = warnings[1].to_string();
    assert!(text.contains("now comes from 10.0.0.2:4 instead of 10.0.0.1:3"), "{text}");
    assert_eq!(two.server.node_counts().warnings, [1, 1, 0, 0, 0]);
    assert_eq!(two.server.node_warnings(10).len(), 1);
}

#[test]
fn two_agents_are_said_once_in_ten_minutes_and_forgotten_when_one_is_stopped() {
    let mut lab = Lab::new();
    lab.add("a");
    let mut lines = 0;
    for turn in 0..20u8 {
        lab.clear();
        let process = if turn % 2 == 0 { "p" } else { "q" };
        assert!(lab.comes("a", process, 1 + turn % 2, "10.0.0.1"));
        lines += lab.logs().iter().filter(|line| line.text.contains("two agents")).count();
        lab.pass(30_000);
    }
    assert_eq!(lines, 1, "in 10 minutes");
    lab.beat("a", JobState::Idle, None);
    lab.pass(300_000);
    assert_eq!(lab.kinds("a"), ["two_agents"]);
    lab.pass(300_000);
    assert!(lab.kinds("a").is_empty());
}

#[test]
fn a_key_of_before_that_knocks_is_named() {
    let mut lab = check(&[("p", 1, "10.0.0.1"), ("q", 2, "10.0.0.1")], &[]);
    let conn = lab.next_conn();
    lab.handle(Input::Handshake { conn, key: curve_key(1, "a"), peer: "10.0.0.7:9".into() });
    assert!(lab.outputs.contains(&Output::Refuse { conn, reason: RefusedKey::Superseded }));
    assert_eq!(lab.kinds("a"), ["old_key"]);
    let text = lab.detail("a").warnings[0].to_string();
    assert!(text.contains("from 10.0.0.7:9") && text.contains("2023-11-14T"), "{text}");
    lab.pass(3_600_000);
    assert!(lab.kinds("a").is_empty(), "an hour later nobody cares");
}

#[test]
fn another_client_key_is_named() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.fetch("a");
    assert!(lab.kinds("a").is_empty());
    let other = openssl::rsa::Rsa::generate(2048).unwrap().public_key_to_pem().unwrap();
    let request = lab.next_request();
    lab.handle(Input::FetchConfig {
        request,
        node: node_ref("a"),
        org_name: org_name(),
        key: curve_key(1, "a"),
        public_key: String::from_utf8(other).unwrap(),
        is_node: true,
    });
    assert_eq!(lab.kinds("a"), ["client_key_changed"]);
    assert!(lab.log_has("the node's client key changed at "));
    lab.pass(86_400_000);
    assert!(lab.kinds("a").is_empty());
}

#[test]
fn how_far_a_clock_is_off() {
    let check = |clock: i64, beats: usize, expected: Option<(i64, bool)>| {
        let mut lab = Lab::new();
        lab.add("a");
        lab.fetch("a");
        assert!(lab.connect("a"));
        lab.node("a").clock = clock;
        for _ in 0..beats {
            lab.beat("a", JobState::Idle, None);
            lab.pass(10_000);
        }
        let found = lab.detail("a").warnings.into_iter().map(|warning| match warning {
            NodeWarning::ClockOff { seconds, refused } => (seconds, refused),
            other => panic!("{other:?}"),
        });
        assert_eq!(found.collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>(), "{clock}, {beats}");
        let lines = lab.logs().iter().filter(|line| line.text.contains("the node's clock is")).count();
        assert_eq!(lines, usize::from(expected.is_some()), "{clock}, {beats}");
    };
    check(0, 8, None);
    check(20, 8, None);
    check(-20, 8, None);
    check(40, 1, Some((40, false)));
    // What is behind may have waited in a queue: the fourth decides.
    check(-40, 3, None);
    check(-40, 4, Some((-40, false)));
    check(600, 1, Some((600, true)));
    check(-600, 3, None);
    check(-600, 5, Some((-600, true)));
}

#[test]
fn a_clock_that_is_set_right_is_not_off_any_more() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.node("a").clock = -900;
    for _ in 0..5 {
        lab.beat("a", JobState::Idle, None);
        lab.pass(10_000);
    }
    assert_eq!(lab.kinds("a"), ["clock_off"]);
    let detail = lab.detail("a");
    assert_eq!((detail.reason, detail.clock_offset), (Some("silent"), Some(-900)));
    assert_eq!(
        detail.warnings[0].to_string(),
        "the node's clock is 900 s behind the server's, so its messages are dropped; synchronize it (NTP)"
    );
    lab.node("a").clock = 0;
    lab.beat("a", JobState::Idle, None);
    assert!(lab.kinds("a").is_empty());
    assert_eq!(lab.detail("a").clock_offset, None);
}

#[test]
fn what_is_told_of_a_node() {
    let mut lab = Lab::new();
    let check = |lab: &Lab, reason: Option<&str>, seen: bool, connected: bool| {
        let detail = lab.detail("a");
        assert_eq!(detail.reason, reason);
        assert_eq!(detail.last_seen.is_some(), seen, "{detail:?}");
        assert_eq!(detail.address.is_some(), connected, "{detail:?}");
    };
    check(&lab, Some("never seen"), false, false);
    lab.add("a");
    lab.fetch("a");
    check(&lab, Some("never seen"), false, false);
    assert!(lab.connect("a"));
    check(&lab, Some("nothing valid heard"), false, true);
    lab.beat("a", JobState::Idle, None);
    check(&lab, Some("in rehab"), true, true);
    lab.say(
        "a",
        pushy_core::message::NodeMessage::Aborted { job: pushy_core::message::JobRef::None, reason: None },
    );
    check(&lab, None, true, true);
    let since = lab.detail("a").since;
    assert_eq!(since.map(|at| at.secs()), Some(T0));
    let node = node_ref("a");
    lab.handle(Input::Described { node, client: " pushy/1.0\u{7}\n ".into(), address: "10.0.0.1".into() });
    let job = lab.start(&["a"]);
    let detail = lab.detail("a");
    assert_eq!(detail.client.as_deref(), Some("pushy/1.0"));
    assert_eq!((detail.jobs, lab.server.unfinished_jobs()), (vec![job], 1));
    lab.pass(40_000);
    check(&lab, Some("silent"), true, true);
    assert_eq!(lab.detail("a").since.map(|at| at.secs()), Some(T0 + 30));
    assert_eq!(lab.detail("a").last_seen.map(|at| at.secs()), Some(T0));
    assert_eq!(lab.server.node_counts().unavailable, 1);
    lab.disconnect("a");
    check(&lab, Some("not connected"), true, false);
    lab.restart(1_000);
    check(&lab, Some("expected back after a restart"), false, false);
    assert_eq!(lab.server.node_counts().expected, 1);
    assert_eq!(lab.server.node_details(&org()).len(), 1);
}
