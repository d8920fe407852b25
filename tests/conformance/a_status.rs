//! A. Status (2.6, 2.4.1).

use std::collections::BTreeSet;

use crate::puppet::Puppet;
use crate::runner::checklist;
use crate::target::Target;

checklist![
    Rest a1_verbs,
    Rest a2_everybody_may_ask,
    Server a3_nodes_are_counted,
];

const STATUS: &str = "/pushy/_status";

fn a1_verbs(t: &Target) {
    for method in ["PUT", "POST", "DELETE"] {
        t.call(method, STATUS).send().check_not_allowed("GET");
    }
}

fn a2_everybody_may_ask(t: &Target) {
    for actor in [t.admin(), t.normal(), t.client(), &t.invalid, t.outside()] {
        let answer = t.get(actor, STATUS);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        assert_eq!(body["status"], "it's alive");
        let incarnation = body["incarnation_id"].as_str().expect("an id");
        assert_eq!((incarnation.len(), incarnation.matches('-').count()), (36, 4), "{incarnation}");
        assert!(body["node_fsm_count"].is_u64() && body["job_processes"].is_array(), "{body}");
        let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["status", "incarnation_id", "node_fsm_count", "job_processes"]);
    }
    assert_eq!(t.call("GET", STATUS).send().status, 200);
}

fn a3_nodes_are_counted(t: &Target) {
    let t = t.own("heartbeat_interval = 0.4");
    let counts = |expected: u64| {
        let end = std::time::Instant::now() + crate::call::DEADLINE;
        loop {
            let found = t.call("GET", STATUS).send().json()["node_fsm_count"].clone();
            if found == expected {
                return;
            }
            assert!(std::time::Instant::now() < end, "{found} nodes, not {expected}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    counts(0);
    let names = ["one", "two", "three"];
    let mut online = Vec::new();
    for name in names {
        online.push(Puppet::online(&t, name));
        if online.len() == 1 {
            counts(1);
        }
    }
    counts(3);
    let different: BTreeSet<&str> = online.iter().map(Puppet::name).collect();
    assert_eq!(different.len(), 3);
    drop(online.pop());
    counts(2);
    drop(online);
    counts(0);
}
