//! What must be stored before what may be told (decision 10), and going on from what was stored.

use pushy_core::job::{JobStatus, NodeStatus};
use pushy_core::message::{Caps, JobState};
use pushy_core::server::{Output, Record, Restored};
use pushy_core::time::Wall;

use super::lab::*;

#[test]
fn nothing_of_a_job_is_told_before_it_is_stored() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.set_disk(Disk::Waits);
    let request = lab.request(&["a"]);
    lab.post(request);
    assert_eq!(lab.outputs, [], "no answer, no event, no commit");
    lab.set_disk(Disk::Keeps);
    let Some(job) = lab.started() else { panic!("{:?}", lab.outputs) };
    assert!(matches!(lab.outputs[0], Output::Event { .. }), "whoever has the answer finds the feed begun");
    assert_eq!(lab.events(), ["start"]);
    assert_eq!(lab.sent_types("a"), "commit");

    for (say, events, sent) in [
        (ack_commit as fn(&_) -> _, "quorum_vote(a:success) quorum_succeeded", "run"),
        (ack_run, "run_start(a)", ""),
        (succeeded, "run_complete(a:success) job_complete(complete)", ""),
    ] {
        lab.set_disk(Disk::Waits);
        lab.clear();
        lab.say("a", say(&job));
        assert_eq!(lab.outputs, [], "before {events}");
        lab.set_disk(Disk::Keeps);
        assert_eq!(lab.events().join(" "), events);
        assert_eq!(lab.sent_types("a"), sent);
    }
}

#[test]
fn events_are_kept_before_they_are_told_and_go_on_after_a_restart() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.bring_up("b");
    let mut request = lab.request(&["a", "b"]);
    request.quorum = Some(1);
    let job = lab.start_job(request);
    lab.say("a", ack_commit(&job));
    lab.say("b", nack_commit(&job));
    lab.now.wall.0 -= 100_000_000;
    lab.restart(1_000);
    lab.connect("a");
    lab.connect("b");
    lab.say("a", ack_run(&job));
    // Nothing changes here but the feed.
    lab.set_disk(Disk::Waits);
    lab.clear();
    lab.say("b", ack_run(&job));
    lab.say("a", succeeded(&job));
    assert_eq!(lab.events(), [""; 0]);
    lab.set_disk(Disk::Keeps);
    let mut kept = Vec::new();
    for record in &lab.kept {
        if let Record::Feed { job: of, first, frames, at } = record {
            assert_eq!((of, *first), (&job, kept.len() as u64 + 1));
            kept.extend(frames.clone());
            assert_eq!(kept.last().and_then(|frame| frame.at()), Some(*at));
        }
    }
    let told: Vec<_> = lab
        .outputs
        .iter()
        .filter_map(|o| if let Output::Event { frame, .. } = o { Some(frame.clone()) } else { None })
        .collect();
    assert!(told.len() >= 2 && kept.ends_with(&told), "{kept:?} {told:?}");
    let ids: Vec<&str> = kept.iter().map(|frame| frame.id()).collect();
    let expected: Vec<String> = (1..=kept.len()).map(|n| format!("job-{n}")).collect();
    assert_eq!(ids, expected);
    assert_eq!(kept.last().map(|frame| frame.name()), Some("job_complete"));
    let stamps: Vec<_> = kept.iter().filter_map(|frame| frame.at()).collect();
    assert!(stamps.len() == kept.len() && stamps.windows(2).all(|two| two[0] < two[1]), "{stamps:?}");
}

#[test]
fn only_that_job_waits() {
    let mut lab = Lab::new();
    for node in ["a", "b", "c"] {
        lab.bring_up(node);
    }
    lab.set_disk(Disk::Waits);
    let (first, second) = (lab.request(&["a"]), lab.request(&["b"]));
    lab.post(first);
    lab.post(second);
    assert_eq!(lab.waiting.len(), 2, "one batch for each job, both under way");
    // Heartbeats, acknowledgements and first contacts go on.
    lab.clear();
    lab.disconnect("c");
    lab.connect("c");
    lab.beat("c", JobState::Idle, None);
    assert_eq!(lab.sent_types("c"), "ack");
    lab.pass(10_000);
    assert!(lab.outputs.iter().any(|o| matches!(o, Output::Publish { .. })));
    // The first ticket kept lets the first job go on alone.
    lab.clear();
    let (ticket, records) =
        lab.waiting.iter().find(|(_, r)| matches!(r[0], Record::NewJob(_))).unwrap().clone();
    lab.waiting.retain(|(t, _)| *t != ticket);
    lab.kept.extend(records);
    lab.handle(pushy_core::server::Input::Persisted { ticket });
    assert_eq!(lab.events(), ["start"]);
    assert_eq!((lab.sent_types("a"), lab.sent_types("b")), ("commit".into(), String::new()));
    lab.set_disk(Disk::Keeps);
    assert_eq!(lab.sent_types("b"), "commit");
}

#[test]
fn a_job_that_cannot_be_stored_is_refused() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.set_disk(Disk::Fails);
    let request = lab.request(&["a"]);
    let id = lab.post(request);
    let refused = lab.outputs.iter().find_map(|o| match o {
        Output::JobRefused { request, error } if *request == id => Some(error.clone()),
        _ => None,
    });
    assert_eq!(refused.unwrap().code(), pushy_core::ErrorCode::Storage);
    assert_eq!(lab.events(), [""; 0]);
    assert_eq!(lab.sent_types("a"), "");
    assert_eq!(lab.server.counts().1.len(), 0);
    lab.set_disk(Disk::Keeps);
    lab.pass(60_000);
    assert_eq!(lab.events(), [""; 0], "nothing of it ever comes");
}

#[test]
fn a_store_that_fails_is_asked_again_every_second() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.node("a").caps = Some(Caps::OF_NODE);
    lab.beat("a", JobState::Idle, None);
    let job = lab.start(&["a"]);
    lab.say("a", ack_commit(&job));
    lab.clear();
    lab.set_disk(Disk::Fails);
    lab.say("a", ack_run(&job));
    lab.say("a", succeeded(&job));
    let before = lab.batches;
    lab.pass(3_500);
    assert_eq!(lab.batches - before, 3);
    assert_eq!(lab.events(), [""; 0]);
    assert_eq!(lab.sent_types("a"), "", "the result stays unacknowledged");
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Ready, "it stays where it was stored");
    lab.set_disk(Disk::Keeps);
    lab.pass(1_000);
    assert_eq!(lab.events(), ["run_start(a)", "run_complete(a:success)", "job_complete(complete)"]);
    assert_eq!(lab.sent_types("a"), "result_ack");
    assert_eq!(lab.job_status(&job), JobStatus::Complete);
}

#[test]
fn a_finished_job_stays_in_memory_until_it_is_stored() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.set_disk(Disk::Fails);
    lab.say("a", nack_commit(&job));
    lab.pass(60_000);
    assert_eq!(lab.server.counts().1, std::slice::from_ref(&job));
    lab.set_disk(Disk::Keeps);
    lab.pass(10_000);
    assert_eq!(lab.server.counts().1.len(), 0);
    assert_eq!(lab.job_status(&job), JobStatus::QuorumFailed);
}

/// A thousand votes may not cost a thousand transactions.
#[test]
fn a_slow_store_makes_large_batches() {
    let (mut lab, names) = fleet(200);
    let request: Vec<&str> = names.iter().map(String::as_str).collect();
    let job = lab.start(&request);
    let before = lab.batches;
    lab.set_disk(Disk::Waits);
    for name in &names {
        lab.say(name, ack_commit(&job));
    }
    lab.set_disk(Disk::Keeps);
    assert_eq!(lab.batches - before, 2, "the first vote, then all others");
    assert_eq!(lab.sent_types("node-00199"), "commit run");
    assert_eq!(lab.events().len(), 202);
}

#[test]
fn a_restart_goes_on_from_what_was_stored() {
    let mut lab = Lab::new();
    for node in ["a", "b"] {
        lab.bring_up(node);
    }
    let job = lab.start(&["a", "b"]);
    lab.say("a", ack_commit(&job));
    // The vote of b arrives, but is not stored when the server ends.
    lab.set_disk(Disk::Waits);
    lab.say("b", ack_commit(&job));
    lab.disk = Disk::Keeps;
    lab.restart(3_000);
    assert_eq!(lab.node_status(&job, "b"), NodeStatus::New);
    for node in ["a", "b"] {
        lab.connect(node);
    }
    lab.pass(2_000);
    for node in ["a", "b"] {
        lab.beat(node, JobState::Committed, Some(&job));
    }
    assert_eq!(lab.events(), ["quorum_vote(b:success)", "quorum_succeeded"]);
    assert_eq!((lab.sent_types("a"), lab.sent_types("b")), ("ack run".into(), "ack run".into()));
    for node in ["a", "b"] {
        lab.say(node, ack_run(&job));
        lab.say(node, succeeded(&job));
    }
    assert_eq!(lab.job_status(&job), JobStatus::Complete);
}

#[test]
fn deadlines_survive_a_restart_within_bounds() {
    // (seconds the server is away, clock step in seconds, seconds until the vote closes)
    for (away, step, left) in [(10, 0, 50), (100, 0, 0), (10, -400, 60), (10, 400, 0)] {
        let mut lab = Lab::new();
        lab.bring_up("a");
        let job = lab.start(&["a"]);
        lab.now.wall = Wall(lab.now.wall.0 + step * 1_000_000);
        lab.restart(away * 1_000);
        if left > 0 {
            lab.pass(left * 1_000 - 1);
            assert_eq!(lab.job_status(&job), JobStatus::Voting, "{away} {step}");
        }
        lab.pass(1);
        assert_eq!(lab.job_status(&job), JobStatus::QuorumFailed, "{away} {step}");
    }
}

#[test]
fn nodes_of_restored_jobs_without_a_key_are_given_time() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let mut request = lab.request(&["a"]);
    request.run_timeout = Some(10_000);
    let job = lab.start_job(request);
    lab.say("a", ack_commit(&job));
    let jobs = lab.store().jobs;
    let mut lab2 = Lab::restored(lab.config.clone(), Restored { jobs, ..Restored::default() });
    lab2.kept = lab.kept;
    lab2.pass(139_000);
    assert_eq!(lab2.node_status(&job, "a"), NodeStatus::Ready);
    lab2.pass(2_000);
    assert_eq!(lab2.node_status(&job, "a"), NodeStatus::Crashed);
    assert_eq!(lab2.job_status(&job), JobStatus::Complete);
}
