//! Whole jobs on the server machine: events in the order of 6.10 and 8.6, messages, stored state.

use super::lab::*;
use pushy_core::job::{JobStatus, NodeStatus};

#[test]
fn a_job_on_two_nodes_succeeds() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.bring_up("b");
    let job = lab.start(&["a", "b"]);
    assert_eq!((lab.sent_types("a"), lab.sent_types("b")), ("commit".into(), "commit".into()));
    lab.say("a", ack_commit(&job));
    lab.say("b", ack_commit(&job));
    assert_eq!(lab.sent_types("b"), "commit run");
    lab.say("a", ack_run(&job));
    lab.say("b", ack_run(&job));
    lab.say("a", succeeded(&job));
    lab.say("b", failed(&job));
    assert_eq!(
        lab.events(),
        [
            "start",
            "quorum_vote(a:success)",
            "quorum_vote(b:success)",
            "quorum_succeeded",
            "run_start(a)",
            "run_start(b)",
            "run_complete(a:success)",
            "run_complete(b:failure)",
            "job_complete(complete)",
        ]
    );
    assert_eq!(lab.job_status(&job), JobStatus::Complete);
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Succeeded);
    assert_eq!(lab.node_status(&job, "b"), NodeStatus::Failed);
    assert_eq!(lab.server.counts().1.len(), 1);
    lab.pass(5_000);
    assert_eq!(lab.server.counts().1.len(), 0, "it leaves memory");
}
