//! Whole jobs on the server machine: events in the order of 6.10 and 8.6, messages, stored state.

use pushy_core::ids::JobId;
use pushy_core::job::{JobStatus, NodeStatus};
use pushy_core::message::{Caps, Captured, JobState, NodeMessage};
use pushy_core::server::{Input, Output, Record, ServerConfig};
use pushy_core::time::Millis;

use super::lab::*;

/// Plays a script of `node:word` and `wait:MILLISECONDS` with a job on `nodes` and compares its feed.
fn check(nodes: &str, quorum: u32, script: &str, events: &str) -> (Lab, JobId) {
    let mut lab = Lab::new();
    let names: Vec<&str> = nodes.split(' ').collect();
    for name in names.iter().filter(|name| !name.starts_with("down")) {
        if !lab.nodes.contains_key(*name) {
            lab.bring_up(name);
        }
    }
    let mut request = lab.request(&names);
    request.quorum = Some(quorum);
    request.run_timeout = Some(20);
    let job = lab.start_job(request);
    for step in script.split(' ').filter(|step| !step.is_empty()) {
        let (who, word) = step.split_once(':').unwrap();
        match word {
            "ack_commit" => lab.say(who, ack_commit(&job)),
            "nack_commit" => lab.say(who, nack_commit(&job)),
            "ack_run" => lab.say(who, ack_run(&job)),
            "nack_run" => lab.say(who, nack_run(&job)),
            "succeeded" => lab.say(who, succeeded(&job)),
            "failed" => lab.say(who, failed(&job)),
            "aborted" => lab.say(who, aborted(Some(&job))),
            "lost" => {
                lab.disconnect(who);
                lab.pass(150_000);
            }
            millis => lab.pass(millis.parse().unwrap()),
        }
    }
    assert_eq!(lab.events().join(" "), events, "{nodes}, {quorum}: {script}");
    (lab, job)
}

#[test]
fn feeds() {
    const WON: &str = "start quorum_vote(a:success) quorum_succeeded";
    // H4
    check("down", 1, "", "start quorum_vote(down:down) rehab(down) job_complete(quorum_failed)");
    // H5
    for (word, result) in [("succeeded", "success"), ("failed", "failure")] {
        let feed = format!("{WON} run_start(a) run_complete(a:{result}) job_complete(complete)");
        check("a", 1, &format!("a:ack_commit a:ack_run a:{word}"), &feed);
    }
    // H6
    check("a", 1, "a:nack_commit", "start quorum_vote(a:failure) job_complete(quorum_failed)");
    // H7
    check("a", 1, "wait:60000", "start quorum_vote(a:voting_timeout) job_complete(quorum_failed)");
    // H8
    check(
        "a",
        1,
        "a:ack_commit a:nack_run",
        &format!("{WON} rehab(a) run_complete(a:run_nacked) job_complete(complete)"),
    );
    // H9
    check(
        "a",
        1,
        "a:ack_commit a:ack_run a:nack_run",
        &format!(
            "{WON} run_start(a) rehab(a) run_complete(a:run_nacked_while_running) job_complete(complete)"
        ),
    );
    // H10
    check("a", 1, "a:ack_commit wait:20000", &format!("{WON} job_complete(timed_out)"));
    // H12
    check(
        "a b",
        2,
        "a:ack_commit b:nack_commit",
        "start quorum_vote(a:success) quorum_vote(b:failure) job_complete(quorum_failed)",
    );
    check(
        "a b",
        1,
        "a:ack_commit b:nack_commit a:ack_run a:succeeded",
        "start quorum_vote(a:success) quorum_vote(b:failure) quorum_succeeded run_start(a) \
         run_complete(a:success) job_complete(complete)",
    );
    // H13, with the node answering `aborted` as the original does.
    check(
        "a b",
        2,
        "a:ack_commit a:nack_run a:aborted b:ack_commit",
        "start quorum_vote(a:success) rehab(a) quorum_vote(b:success) job_complete(quorum_failed)",
    );
    // Gone during the vote, before its timer; down during the run.
    check("a", 1, "a:lost", "start quorum_vote(a:down) rehab(a) job_complete(quorum_failed)");
    check(
        "a b",
        2,
        "a:ack_commit b:ack_commit a:ack_run a:aborted b:ack_run b:succeeded",
        "start quorum_vote(a:success) quorum_vote(b:success) quorum_succeeded run_start(a) rehab(a) \
         run_complete(a:crashed) run_start(b) run_complete(b:success) job_complete(complete)",
    );
    // D-27: what comes late is told once.
    check(
        "a b",
        2,
        "a:nack_commit a:ack_commit a:ack_commit b:ack_commit",
        "start quorum_vote(a:failure) rehab(a) quorum_vote(a:client_died_while_voting) \
         quorum_vote(b:success) job_complete(quorum_failed)",
    );
    check(
        "a b",
        1,
        "a:ack_commit b:nack_commit b:ack_run b:ack_run b:nack_run a:ack_run a:succeeded",
        "start quorum_vote(a:success) quorum_vote(b:failure) quorum_succeeded \
         run_complete(b:client_died_while_running) rehab(b) run_start(a) run_complete(a:success) \
         job_complete(complete)",
    );
    // D-03: named twice, asked once.
    check("a a", 1, "a:nack_commit", "start quorum_vote(a:failure) job_complete(quorum_failed)");
    // Quorum 0 with nobody there completes at once.
    check("down", 0, "", "start quorum_vote(down:down) rehab(down) quorum_succeeded job_complete(complete)");
}

#[test]
fn a_job_on_two_nodes_is_stored_and_forgotten() {
    let (mut lab, job) = check(
        "a b",
        2,
        "a:ack_commit b:ack_commit a:ack_run b:ack_run a:succeeded b:failed",
        "start quorum_vote(a:success) quorum_vote(b:success) quorum_succeeded run_start(a) run_start(b) \
         run_complete(a:success) run_complete(b:failure) job_complete(complete)",
    );
    assert_eq!((lab.sent_types("a"), lab.sent_types("b")), ("commit run".into(), "commit run".into()));
    assert_eq!(lab.job_status(&job), JobStatus::Complete);
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Succeeded);
    assert_eq!(lab.node_status(&job, "b"), NodeStatus::Failed);
    assert_eq!(lab.server.counts().1, [job]);
    lab.pass(5_000);
    assert_eq!(lab.server.counts().1.len(), 0, "it leaves memory");
}

#[test]
fn ready_nodes_are_stopped_when_quorum_fails_or_time_is_up() {
    let (lab, job) = check(
        "a b",
        2,
        "a:ack_commit b:nack_commit",
        "start quorum_vote(a:success) quorum_vote(b:failure) job_complete(quorum_failed)",
    );
    assert_eq!((lab.sent_types("a"), lab.sent_types("b")), ("commit abort".into(), "commit".into()));
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::WasReady);
    assert!(!lab.state("a").available, "it is in rehab");

    let (mut lab, job) = check(
        "a",
        1,
        "a:ack_commit a:ack_run wait:20000",
        "start quorum_vote(a:success) quorum_succeeded run_start(a) job_complete(timed_out)",
    );
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::TimedOut);
    assert_eq!(lab.sent_types("a"), "commit run abort");
    lab.clear();
    lab.pass(2_500);
    assert_eq!(lab.sent_types("a"), "abort abort", "repeated until it answers");
    lab.say("a", aborted(None));
    lab.pass(5_000);
    assert_eq!(lab.sent_types("a"), "abort abort");
    assert!(lab.state("a").available);
}

#[test]
fn a_node_that_is_down_is_not_asked_and_not_stopped() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.add("b");
    lab.fetch("b");
    lab.connect("b");
    lab.beat("b", JobState::Idle, None);
    lab.clear();
    let mut request = lab.request(&["a", "b"]);
    request.quorum = Some(1);
    let job = lab.start_job(request);
    assert_eq!(lab.sent_types("b"), "", "D-39");
    assert_eq!(lab.sent_types("a"), "commit");
    lab.say("a", ack_commit(&job));
    assert_eq!(lab.node_status(&job, "b"), NodeStatus::Unavailable);
    assert_eq!(lab.sent_types("a"), "commit run");
}

#[test]
fn run_timeout_zero_and_output() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let mut request = lab.request(&["a"]);
    request.run_timeout = Some(0);
    let job = lab.start_job(request);
    lab.say("a", ack_commit(&job));
    lab.pass(0);
    assert_eq!(lab.job_status(&job), JobStatus::TimedOut);

    let output = Captured { stdout: Some("out".into()), stderr: Some("err".into()) };
    let said = |job: &JobId, output: &Captured| NodeMessage::Succeeded {
        job: job.clone().into(),
        output: output.clone(),
    };
    for (capture, partial, stored) in [(true, false, 1), (false, false, 0), (true, true, 0)] {
        let mut lab = Lab::new();
        lab.bring_up("a");
        lab.bring_up("b");
        let mut request = lab.request(&["a", "b"]);
        request.options.capture = capture;
        let job = lab.start_job(request);
        for node in ["a", "b"] {
            lab.say(node, ack_commit(&job));
        }
        lab.say("a", ack_run(&job));
        let mut output = output.clone();
        if partial {
            output.stderr = None;
        }
        lab.say("a", said(&job, &output));
        lab.say("a", said(&job, &output));
        let count = lab.kept.iter().filter(|r| matches!(r, Record::Output { .. })).count();
        assert_eq!(count, stored, "capture {capture}, one channel {partial} (D-18)");
        assert_eq!(lab.node_status(&job, "a"), NodeStatus::Succeeded);
    }
}

#[test]
fn messages_about_jobs_that_are_not_theirs() {
    // D-07: a node that is not part of the job.
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.bring_up("b");
    let job = lab.start(&["a"]);
    lab.say("b", ack_commit(&job));
    assert_eq!(lab.sent_types("b"), "abort");
    assert!(lab.log_has("has no part in this job"));
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::New);
    // 4.8: a job nobody knows.
    let unknown = JobId::new("00000000000000000000000000000000").unwrap();
    lab.say("a", ack_run(&unknown));
    assert_eq!(lab.sent_types("a"), "commit abort");
}

#[test]
fn results_are_acknowledged_once_stored_and_never_punished() {
    let caps = Some(Caps::OF_NODE);
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.bring_up("b");
    lab.node("a").caps = caps;
    lab.beat("a", JobState::Idle, None);
    let job = lab.start(&["a", "b"]);
    for word in [ack_commit, ack_run] {
        lab.say("a", word(&job));
        lab.say("b", word(&job));
    }
    lab.clear();
    lab.set_disk(Disk::Waits);
    lab.say("a", succeeded(&job));
    lab.say("b", succeeded(&job));
    assert_eq!(lab.sent_types("a"), "", "not stored yet");
    lab.set_disk(Disk::Keeps);
    assert_eq!((lab.sent_types("a"), lab.sent_types("b")), ("result_ack".into(), String::new()));
    // Again: the acknowledgement was lost. The job is over, then forgotten.
    lab.say("a", succeeded(&job));
    assert_eq!(lab.sent_types("a"), "result_ack result_ack");
    lab.pass(6_000);
    lab.say("a", failed(&job));
    assert_eq!(lab.sent_types("a"), "result_ack result_ack result_ack");
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Succeeded);
}

#[test]
fn a_restart_that_gives_jobs_up() {
    let config = ServerConfig { on_restart: pushy_core::server::OnRestart::Crash, ..ServerConfig::default() };
    let mut lab = Lab::with(config);
    for node in ["a", "b", "c"] {
        lab.bring_up(node);
    }
    let running = lab.start(&["a"]);
    lab.say("a", ack_commit(&running));
    lab.say("a", ack_run(&running));
    let voting = lab.start(&["b", "c"]);
    lab.say("b", ack_commit(&voting));
    lab.restart(1_000);
    let feed = lab.events();
    assert_eq!(feed, ["job_complete(crashed)", "job_complete(crashed)"]);
    assert_eq!(lab.job_status(&running), JobStatus::Crashed);
    assert_eq!(lab.node_status(&running, "a"), NodeStatus::Crashed);
    assert_eq!(lab.node_status(&voting, "b"), NodeStatus::Crashed);
    assert_eq!(lab.node_status(&voting, "c"), NodeStatus::Unavailable);
}

#[test]
fn stamps_of_a_feed_rise_although_the_clock_steps_back() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.now.wall.0 -= 100_000_000;
    lab.say("a", ack_commit(&job));
    let stamps: Vec<i64> = lab
        .outputs
        .iter()
        .filter_map(|o| match o {
            Output::Event { at, .. } => Some(at.0),
            _ => None,
        })
        .collect();
    assert_eq!(stamps.len(), 3);
    assert!(stamps.windows(2).all(|w| w[0] < w[1]), "{stamps:?}");
}

#[test]
fn a_clock_step_moves_no_deadline() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.now.wall.0 += 400_000_000_000;
    lab.handle(Input::Tick);
    assert_eq!(lab.job_status(&job), JobStatus::Voting);
    lab.now.wall.0 -= 800_000_000_000;
    let voting_timeout = lab.config.voting_timeout;
    lab.pass((voting_timeout - Millis(1)).0);
    assert_eq!(lab.job_status(&job), JobStatus::Voting);
    lab.pass(1);
    assert_eq!(lab.job_status(&job), JobStatus::QuorumFailed);
}

/// A node does one job at a time: a vote it never gave may not cost it the job it does.
#[test]
fn a_vote_that_times_out_leaves_the_nodes_other_job_alone() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let running = lab.start(&["a"]);
    lab.say("a", ack_commit(&running));
    lab.say("a", ack_run(&running));
    lab.clear();
    let voting = lab.start(&["a"]);
    lab.pass(25_000);
    lab.beat("a", JobState::Running, Some(&running));
    lab.pass(35_000);
    assert_eq!(lab.node_status(&voting, "a"), NodeStatus::Unavailable);
    assert_eq!(lab.sent_types("a"), "commit");
    lab.say("a", succeeded(&running));
    assert_eq!(lab.node_status(&running, "a"), NodeStatus::Succeeded);
}
