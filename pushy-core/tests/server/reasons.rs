//! Why a node did not do its part: kept for every one that did not succeed, in the words of whoever knows.

use pushy_core::feed::Frame;
use pushy_core::ids::JobId;
use pushy_core::job::{JobOptions, JobStatus, NodeStatus};
use pushy_core::message::{Caps, Captured, JobState, NodeMessage, ServerMessage};
use pushy_core::reason::{Reason, ReasonCode};
use pushy_core::server::{OnRestart, Output, ServerConfig};

use super::lab::*;

fn reason(code: ReasonCode, text: &str) -> Option<Reason> {
    Some(Reason::new(code, text))
}

fn nack(job: &JobId) -> NodeMessage {
    NodeMessage::NackCommit {
        job: job.clone().into(),
        reason: reason(ReasonCode::NotWhitelisted, "not on the whitelist"),
    }
}

fn exit_3(job: &JobId) -> NodeMessage {
    let reason = reason(ReasonCode::Exit, "exit status 3");
    NodeMessage::Failed { job: job.clone().into(), output: Captured::default(), reason }
}

fn late(job: &JobId) -> NodeMessage {
    let reason = reason(ReasonCode::TimedOut, "ended after 20 s (run_timeout)");
    NodeMessage::Failed { job: job.clone().into(), output: Captured::default(), reason }
}

type Word = fn(&JobId) -> NodeMessage;

/// Plays the words of `a` in a job on it.
fn check(words: &[Word], status: NodeStatus, expected: &str) {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    for word in words {
        lab.say("a", word(&job));
    }
    assert_eq!(lab.node_status(&job, "a"), status, "{expected}");
    assert_eq!(lab.reason(&job, "a"), expected);
}

#[test]
fn in_the_nodes_words() {
    check(&[nack], NodeStatus::Nacked, "not_whitelisted: not on the whitelist");
    check(&[ack_commit, ack_run, exit_3], NodeStatus::Failed, "exit: exit status 3");
    check(&[ack_commit, ack_run, late], NodeStatus::TimedOut, "timed_out: ended after 20 s (run_timeout)");
    check(&[ack_commit, ack_run, succeeded], NodeStatus::Succeeded, "");
}

#[test]
fn what_can_be_known_of_an_original() {
    let refused = "refused: the node refused and does not say why; its whitelist may not have the command, or it was busy";
    check(&[nack_commit], NodeStatus::Nacked, refused);
    check(
        &[ack_commit, nack_run],
        NodeStatus::Failed,
        "run_refused: the node voted yes and then refused to run, and does not say why",
    );
    let failed_how = "exit: the command failed; the node does not say how it ended";
    check(&[ack_commit, ack_run, failed], NodeStatus::Failed, failed_how);
    check(&[ack_run], NodeStatus::Unavailable, "lost: it said ack_run during the vote");
    check(
        &[ack_commit, ack_commit, ack_run, ack_commit],
        NodeStatus::Crashed,
        "died: it said ack_commit while the job ran",
    );
}

#[test]
fn a_node_that_times_its_job_out_itself_is_timed_out_and_so_is_the_job() {
    let mut lab = Lab::new();
    for name in ["a", "b"] {
        lab.bring_up(name);
    }
    let job = lab.start(&["a", "b"]);
    for word in [ack_commit, ack_run] {
        lab.say("a", word(&job));
        lab.say("b", word(&job));
    }
    lab.clear();
    lab.say("a", late(&job));
    assert_eq!(lab.job_status(&job), JobStatus::Running);
    lab.say("b", succeeded(&job));
    assert_eq!(lab.job_status(&job), JobStatus::TimedOut);
    assert_eq!(
        lab.events().join(" "),
        "run_complete(a:failure) run_complete(b:success) job_complete(timed_out)"
    );
}

#[test]
fn in_the_servers_words() {
    let mut lab = Lab::new();
    for name in ["a", "b", "c"] {
        lab.bring_up(name);
    }
    lab.pass(7_000);
    lab.disconnect("c");
    let job = lab.start(&["a", "b", "c", "ghost"]);
    lab.say("a", ack_commit(&job));
    lab.pass(60_000);
    assert_eq!(lab.job_status(&job), JobStatus::QuorumFailed);
    assert_eq!(lab.reason(&job, "a"), "quorum_failed: 1 of 4 nodes voted yes, 4 were needed");
    assert_eq!(lab.reason(&job, "b"), "vote_timeout: no vote within 60 s");
    let away = lab.reason(&job, "c");
    assert!(away.starts_with("unavailable: not connected since 20"), "{away}");
    assert_eq!(lab.reason(&job, "ghost"), "unavailable: never seen");
}

#[test]
fn nodes_that_are_lost() {
    let mut lab = Lab::new();
    for name in ["a", "b"] {
        lab.bring_up(name);
    }
    let job = lab.start(&["a"]);
    lab.disconnect("a");
    lab.pass(30_000);
    let lost = lab.reason(&job, "a");
    assert!(lost.starts_with("lost: not heard since 20"), "{lost}");
    lab.beat("b", JobState::Idle, None);
    let job = lab.start(&["b"]);
    lab.say("b", ack_commit(&job));
    lab.say("b", ack_run(&job));
    lab.disconnect("b");
    lab.pass(30_000);
    let died = lab.reason(&job, "b");
    assert!(died.starts_with("died: not heard since 20"), "{died}");
}

#[test]
fn time_is_up_and_jobs_given_up() {
    let config = ServerConfig { on_restart: OnRestart::Crash, ..ServerConfig::default() };
    let mut lab = Lab::with(config);
    lab.bring_up("a");
    let mut request = lab.request(&["a"]);
    request.run_timeout = Some(20);
    let job = lab.start_job(request);
    lab.say("a", ack_commit(&job));
    lab.pass(20_000);
    assert_eq!(lab.reason(&job, "a"), "timed_out: not finished after 20 s (run_timeout)");
    lab.say("a", aborted(None));
    let job = lab.start(&["a"]);
    lab.say("a", ack_commit(&job));
    lab.say("a", ack_run(&job));
    lab.restart(1_000);
    assert_eq!(
        lab.reason(&job, "a"),
        "server_gave_up: the server was restarted and gives its jobs up (on_restart)"
    );
}

/// Extensions go to nodes that announced them, and to nobody else.
#[test]
fn commits_have_what_their_node_takes() {
    let mut lab = Lab::new();
    for name in ["new", "old", "half"] {
        lab.bring_up(name);
    }
    lab.node("new").caps = Some(Caps::TIMEOUT.with(Caps::PARAMS));
    lab.node("half").caps = Some(Caps::TIMEOUT);
    for name in ["new", "half"] {
        lab.beat(name, JobState::Idle, None);
    }
    let commit = |lab: &Lab, name: &str| match &lab.sent(name)[..] {
        [ServerMessage::Commit(commit)] => Some((commit.run_timeout, commit.options.parameters.clone())),
        [] => None,
        other => panic!("{name}: {other:?}"),
    };
    lab.clear();
    let mut request = lab.request(&["new", "old", "half"]);
    request.run_timeout = Some(9);
    lab.start_job(request);
    assert_eq!(commit(&lab, "new"), Some((Some(9), None)));
    assert_eq!(commit(&lab, "half"), Some((Some(9), None)));
    assert_eq!(commit(&lab, "old"), Some((None, None)));
    lab.clear();
    let mut request = lab.request(&["new", "old", "half"]);
    let parameters = Some(vec![("version".to_owned(), "1.2".to_owned())]);
    request.options = JobOptions { parameters: parameters.clone(), ..JobOptions::default() };
    let job = lab.start_job(request);
    assert_eq!(commit(&lab, "new"), Some((Some(3600), parameters)));
    for name in ["old", "half"] {
        assert_eq!(commit(&lab, name), None, "{name}");
        assert_eq!(lab.node_status(&job, name), NodeStatus::Nacked);
        assert_eq!(
            lab.reason(&job, name),
            "unsupported: the node's agent does not know parameters; upgrade it"
        );
    }
    assert_eq!(lab.events().join(" "), "start quorum_vote(old:failure) quorum_vote(half:failure)");
}

/// The feed tells why, to those who ask.
#[test]
fn events_have_their_reasons() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.say("a", nack(&job));
    let frames: Vec<&Frame> = lab
        .outputs
        .iter()
        .filter_map(|o| match o {
            Output::Event { frame, .. } => Some(frame),
            _ => None,
        })
        .collect();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let why = r#","reason":{"code":"not_whitelisted","text":"not on the whitelist"}"#;
    for frame in frames {
        let (plain, detailed) = (text(frame.as_bytes()), text(frame.detailed()));
        assert_eq!(plain, detailed.replace(why, ""));
        assert_eq!(detailed.contains(why), frame.name() == "quorum_vote", "{detailed}");
    }
}
