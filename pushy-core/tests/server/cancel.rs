//! An operator cancels: stored first, each node told in the words it knows, nobody else hurt.

use pushy_core::ids::{JobId, NodeName, OrgId};
use pushy_core::job::{JobStatus, NodeStatus};
use pushy_core::message::{Caps, JobState};
use pushy_core::server::{CancelAnswer, Input};

use super::lab::*;

fn names(nodes: &[&str]) -> Option<CancelAnswer> {
    Some(CancelAnswer::Cancelled(nodes.iter().map(|n| NodeName::new(n).unwrap()).collect()))
}

/// `new` takes `cancel`, `old` is an original.
fn lab() -> Lab {
    let mut lab = Lab::new();
    for name in ["new", "old"] {
        lab.bring_up(name);
    }
    lab.node("new").caps = Some(Caps::OF_NODE);
    lab.beat("new", JobState::Idle, None);
    lab.clear();
    lab
}

fn running(lab: &mut Lab, nodes: &[&str]) -> JobId {
    let job = lab.start(nodes);
    for name in nodes {
        lab.say(name, ack_commit(&job));
    }
    for name in nodes {
        lab.say(name, ack_run(&job));
    }
    lab.clear();
    job
}

#[test]
fn a_whole_job_in_each_phase() {
    let check = |words: &[fn(&JobId) -> pushy_core::message::NodeMessage], events: &str| {
        let mut lab = lab();
        let job = lab.start(&["new", "old"]);
        for word in words {
            lab.say("new", word(&job));
            lab.say("old", word(&job));
        }
        lab.clear();
        assert_eq!(lab.cancel(&job, &[]), names(&["new", "old"]));
        assert_eq!(lab.job_status(&job), JobStatus::Aborted);
        for name in ["new", "old"] {
            assert_eq!(lab.node_status(&job, name), NodeStatus::Aborted);
            assert_eq!(lab.reason(&job, name), "cancelled: by ann");
        }
        assert_eq!((lab.sent_types("new"), lab.sent_types("old")), ("cancel".into(), "abort".into()));
        assert_eq!(lab.events().join(" "), format!("{events} job_complete(aborted)"));
        // The answers end it: nobody is told again, and both take a new job.
        lab.say("new", aborted(Some(&job)));
        lab.say("old", aborted(Some(&job)));
        lab.clear();
        let next = lab.start(&["new", "old"]);
        assert_eq!((lab.sent_types("new"), lab.sent_types("old")), ("commit".into(), "commit".into()));
        assert_eq!(lab.cancel(&job, &[]), Some(CancelAnswer::Ended(JobStatus::Aborted)));
        assert_eq!(lab.node_status(&next, "new"), NodeStatus::New);
    };
    check(&[], "quorum_vote(new:failure) quorum_vote(old:failure)");
    check(&[ack_commit], "run_complete(new:aborted) run_complete(old:aborted)");
    check(&[ack_commit, ack_run], "run_complete(new:aborted) run_complete(old:aborted)");
}

#[test]
fn some_nodes_and_the_job_goes_on() {
    let mut lab = lab();
    lab.bring_up("more");
    let job = running(&mut lab, &["new", "old", "more"]);
    assert_eq!(lab.cancel(&job, &["old", "new", "old"]), names(&["old", "new"]));
    assert_eq!(lab.cancel(&job, &["new"]), names(&[]), "it has ended already");
    assert_eq!((lab.sent_types("new"), lab.sent_types("more")), ("cancel".into(), String::new()));
    assert_eq!(lab.job_status(&job), JobStatus::Running);
    lab.say("more", succeeded(&job));
    assert_eq!(lab.job_status(&job), JobStatus::Complete);
    assert_eq!(lab.node_status(&job, "more"), NodeStatus::Succeeded);
    assert_eq!(lab.cancel(&job, &[]), Some(CancelAnswer::Ended(JobStatus::Complete)));
}

#[test]
fn a_cancelled_vote_is_a_no() {
    let mut lab = lab();
    let mut request = lab.request(&["new", "old"]);
    request.quorum = Some(1);
    let job = lab.start_job(request);
    lab.say("old", ack_commit(&job));
    lab.cancel(&job, &["new"]);
    assert_eq!(lab.job_status(&job), JobStatus::Running, "one yes is enough");
    let job = lab.start(&["new"]);
    lab.cancel(&job, &["new"]);
    assert_eq!(lab.job_status(&job), JobStatus::QuorumFailed);
    assert_eq!(lab.node_status(&job, "new"), NodeStatus::Aborted);
}

#[test]
fn what_cannot_be_cancelled() {
    let mut lab = lab();
    let job = lab.start(&["new"]);
    let stranger = NodeName::new("old").unwrap();
    assert_eq!(lab.cancel(&job, &["new", "old"]), Some(CancelAnswer::NotOfJob(stranger)));
    assert_eq!(lab.node_status(&job, "new"), NodeStatus::New, "nothing of it is done");
    let unknown = JobId::new("00000000000000000000000000000000").unwrap();
    assert_eq!(lab.cancel(&unknown, &[]), Some(CancelAnswer::Unknown));
    let request = lab.next_request();
    let org = OrgId::new("fedcba9876543210fedcba9876543210").unwrap();
    lab.handle(Input::CancelJob { request, org, job, nodes: vec![], by: "ann".into() });
    assert_eq!(lab.cancel_answer(request), Some(CancelAnswer::Unknown), "another organization's");
}

#[test]
fn nothing_is_told_before_it_is_stored() {
    let mut lab = lab();
    let job = running(&mut lab, &["new", "old"]);
    lab.set_disk(Disk::Fails);
    assert_eq!(lab.cancel(&job, &[]), None);
    assert_eq!((lab.sent_types("new"), lab.sent_types("old")), (String::new(), String::new()));
    lab.clear();
    lab.set_disk(Disk::Keeps);
    lab.pass(1_000);
    assert_eq!((lab.sent_types("new"), lab.sent_types("old")), ("cancel".into(), "abort".into()));
    assert_eq!(lab.job_status(&job), JobStatus::Aborted);
}

/// A node that is away has to give up as soon as it is back, also after a restart of the server.
#[test]
fn who_is_away_is_told_when_it_is_back() {
    for whole in [false, true] {
        for restart in [false, true] {
            for name in ["new", "old"] {
                let mut lab = lab();
                lab.bring_up("more");
                let job = running(&mut lab, &["new", "old", "more"]);
                lab.disconnect(name);
                lab.cancel(&job, if whole { &[] } else { &["new", "old"] });
                if restart {
                    lab.restart(1_000);
                }
                lab.clear();
                assert!(lab.connect(name));
                lab.pass(2_000);
                lab.clear();
                lab.beat(name, JobState::Running, Some(&job));
                let told = lab.sent_types(name);
                assert!(told.ends_with("abort"), "{name}, whole {whole}, restart {restart}: {told}");
                lab.say(name, aborted(Some(&job)));
                assert_eq!(lab.node_status(&job, name), NodeStatus::Aborted);
                assert_eq!(lab.reason(&job, name), "cancelled: by ann");
            }
        }
    }
}

/// While a node that was told ends the process, its heartbeats name the job: that is no reason to tell it again.
#[test]
fn ending_a_process_takes_a_while() {
    let mut lab = lab();
    let job = running(&mut lab, &["new", "old"]);
    lab.pass(1_000);
    lab.cancel(&job, &["new"]);
    lab.clear();
    lab.beat("new", JobState::Running, Some(&job));
    assert_eq!(lab.sent_types("new"), "");
    assert!(lab.state("new").available);
    lab.pass(10_000);
    lab.beat("new", JobState::Running, Some(&job));
    lab.pass(10_000);
    lab.beat("new", JobState::Running, Some(&job));
    assert_eq!(lab.sent_types("new"), "abort", "two intervals are enough");
}

/// `abort` names no job: an original that does another one is left alone, ours is told which one is meant.
#[test]
fn another_job_of_the_node_is_not_hurt() {
    for name in ["new", "old"] {
        let mut lab = lab();
        let first = running(&mut lab, &[name]);
        let second = lab.start(&[name]);
        lab.clear();
        lab.cancel(&second, &[]);
        let expected = if name == "new" { "cancel" } else { "" };
        assert_eq!(lab.sent_types(name), expected);
        lab.say(name, if name == "new" { aborted(Some(&second)) } else { nack_commit(&second) });
        lab.say(name, succeeded(&first));
        assert_eq!(lab.node_status(&first, name), NodeStatus::Succeeded);
        assert_eq!(lab.node_status(&second, name), NodeStatus::Aborted);
    }
}

/// What exits while the cancel is on its way stays cancelled, and the node may forget its result.
#[test]
fn a_result_that_crosses_the_cancel() {
    let mut lab = lab();
    let job = running(&mut lab, &["new"]);
    lab.cancel(&job, &[]);
    lab.clear();
    lab.say("new", succeeded(&job));
    assert_eq!(lab.sent_types("new"), "result_ack");
    assert_eq!(lab.node_status(&job, "new"), NodeStatus::Aborted);
    assert!(lab.state("new").available);
}

/// `aborted` for a cancelled job does not end a rehab that an `abort` has begun.
#[test]
fn a_cancels_answer_is_not_an_aborts() {
    let mut lab = lab();
    let job = running(&mut lab, &["new"]);
    lab.cancel(&job, &[]);
    let unknown = JobId::new("00000000000000000000000000000000").unwrap();
    lab.say("new", ack_run(&unknown));
    assert!(!lab.state("new").available);
    lab.say("new", aborted(Some(&job)));
    assert!(!lab.state("new").available, "that answers the cancel");
    lab.say("new", aborted(None));
    assert!(lab.state("new").available);
}
