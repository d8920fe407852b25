//! Decision 3 on the whole machine: what a heartbeat after a reconnect brings back, and that nothing is sent twice.

use pushy_core::ids::JobId;
use pushy_core::job::NodeStatus;
use pushy_core::message::JobState;

use super::lab::*;

const I: u64 = 10_000;

/// A job whose only node has lost its connection, and has a new one that has been heard.
fn reconnected(words: &[fn(&JobId) -> pushy_core::message::NodeMessage]) -> (Lab, JobId) {
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    for word in words {
        lab.say("a", word(&job));
    }
    lab.disconnect("a");
    lab.connect("a");
    lab.pass(2_000);
    lab.clear();
    (lab, job)
}

/// The rows of the table: what was said before the loss, what the heartbeat says, what is sent besides `ack`, and the
/// node's status afterwards.
#[test]
fn rows() {
    type Words = &'static [fn(&JobId) -> pushy_core::message::NodeMessage];
    let none: Words = &[];
    let ready: Words = &[ack_commit];
    let running: Words = &[ack_commit, ack_run];
    let other = JobId::new("00000000000000000000000000000000").unwrap();
    use JobState::{Committed, Idle, Running};
    type Row = (&'static str, Words, JobState, Option<bool>, &'static str, NodeStatus);
    let rows: [Row; 9] = [
        ("voting, new, committed", none, Committed, Some(true), "ack run", NodeStatus::Ready),
        ("voting, new, idle", none, Idle, None, "ack commit", NodeStatus::New),
        ("voting, new, another job", none, Running, Some(false), "ack abort", NodeStatus::Nacked),
        ("running, ready, committed", ready, Committed, Some(true), "ack run", NodeStatus::Ready),
        ("running, ready, running", ready, Running, Some(true), "ack", NodeStatus::Running),
        ("running, ready, idle once", ready, Idle, None, "ack", NodeStatus::Ready),
        ("running, running, running", running, Running, Some(true), "ack", NodeStatus::Running),
        ("running, running, idle once", running, Idle, None, "ack", NodeStatus::Running),
        ("running, running, another", running, Running, Some(false), "ack abort", NodeStatus::Running),
    ];
    for (row, words, state, named, sent, status) in rows {
        let (mut lab, job) = reconnected(words);
        let named = named.map(|same| if same { &job } else { &other });
        lab.beat("a", state, named);
        // What comes through the bulk queue is polled last.
        let mut types: Vec<String> = lab.sent("a").iter().map(|m| m.type_name().to_owned()).collect();
        types.sort();
        let mut expected: Vec<&str> = sent.split(' ').collect();
        expected.sort_unstable();
        assert_eq!(types, expected, "{row}");
        assert_eq!(lab.node_status(&job, "a"), status, "{row}");
    }
}

#[test]
fn nothing_goes_out_twice_on_one_connection() {
    let (mut lab, _) = reconnected(&[]);
    for _ in 0..4 {
        lab.beat("a", JobState::Idle, None);
        lab.pass(I);
    }
    assert_eq!(lab.sent_types("a").matches("commit").count(), 1);
    let (mut lab, job) = reconnected(&[ack_commit]);
    for _ in 0..4 {
        lab.beat("a", JobState::Committed, Some(&job));
        lab.pass(I);
    }
    assert_eq!(lab.sent_types("a").matches("run").count(), 1);
    // Without a reconnect: the answer is on the way.
    let mut lab = Lab::new();
    lab.bring_up("a");
    let job = lab.start(&["a"]);
    lab.beat("a", JobState::Idle, None);
    let other = JobId::new("00000000000000000000000000000000").unwrap();
    lab.beat("a", JobState::Running, Some(&other));
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::New);
    lab.say("a", ack_commit(&job));
    lab.beat("a", JobState::Committed, Some(&job));
    assert_eq!(lab.sent_types("a"), "commit abort run");
}

#[test]
fn a_node_that_has_lost_its_job_is_noticed() {
    for words in [&[ack_commit as fn(&JobId) -> _][..], &[ack_commit, ack_run][..]] {
        let (mut lab, job) = reconnected(words);
        lab.beat("a", JobState::Idle, None);
        lab.pass(I);
        lab.beat("a", JobState::Idle, None);
        assert!(!lab.node_status(&job, "a").is_terminal(), "one interval");
        lab.pass(I);
        lab.beat("a", JobState::Idle, None);
        assert_eq!(lab.node_status(&job, "a"), NodeStatus::Crashed, "two intervals");
    }
    // One heartbeat that names the job starts it over.
    let (mut lab, job) = reconnected(&[ack_commit, ack_run]);
    for state in [JobState::Idle, JobState::Idle, JobState::Running, JobState::Idle, JobState::Idle] {
        lab.beat("a", state, (state == JobState::Running).then_some(&job));
        lab.pass(I);
    }
    assert_eq!(lab.node_status(&job, "a"), NodeStatus::Running);
}

/// The original queues up to three heartbeats while it has no connection (measured: 13 s old).
#[test]
fn old_heartbeats_decide_nothing() {
    for clock in [0, 20, -20] {
        let mut lab = Lab::new();
        lab.bring_up("a");
        lab.node("a").clock = clock;
        for _ in 0..6 {
            lab.pass(I);
            lab.beat("a", JobState::Idle, None);
        }
        let job = lab.start(&["a"]);
        lab.disconnect("a");
        // Three heartbeats from before the reconnect, then a pause, then a new one.
        for age in [28, 18, 8] {
            lab.pass(if age == 28 { 29_000 } else { 0 });
            if lab.node("a").conn.is_none() {
                lab.connect("a");
                lab.clear();
            }
            lab.node("a").clock = clock - age;
            lab.beat("a", JobState::Idle, None);
        }
        assert!(!lab.sent_types("a").contains("commit"), "clock {clock}: {}", lab.sent_types("a"));
        assert_eq!(lab.node_status(&job, "a"), NodeStatus::New);
        lab.node("a").clock = clock;
        lab.pass(3_000);
        lab.beat("a", JobState::Idle, None);
        assert!(lab.sent_types("a").ends_with("commit"), "clock {clock}");
    }
}

#[test]
fn a_heartbeat_counted_as_an_answer_is_not_counted_again() {
    let mut lab = Lab::new();
    lab.bring_up("a");
    lab.bring_up("b");
    let job = lab.start(&["a", "b"]);
    lab.disconnect("a");
    lab.connect("a");
    lab.pass(2_000);
    lab.clear();
    lab.beat("a", JobState::Committed, Some(&job));
    lab.say("a", ack_commit(&job));
    assert_eq!(lab.events(), ["quorum_vote(a:success)"]);
    lab.say("b", ack_commit(&job));
    lab.disconnect("a");
    lab.connect("a");
    lab.pass(2_000);
    lab.clear();
    lab.beat("a", JobState::Running, Some(&job));
    lab.say("a", ack_run(&job));
    assert_eq!(lab.events(), ["run_start(a)"]);
}

#[test]
fn a_result_whose_ack_run_was_lost_is_believed() {
    let (mut lab, job) = reconnected(&[ack_commit]);
    lab.say("a", succeeded(&job));
    assert_eq!(lab.events(), ["run_start(a)", "run_complete(a:success)", "job_complete(complete)"]);
}

#[test]
fn a_finished_job_that_a_node_holds_on_to_is_stopped() {
    let (mut lab, job) = reconnected(&[ack_commit, ack_run, succeeded]);
    lab.pass(10_000);
    lab.clear();
    lab.beat("a", JobState::Running, Some(&job));
    assert_eq!(lab.sent_types("a"), "ack abort");
}

/// `abort` names no job: whatever ends an old job of a node, the one that it has said yes to since goes on.
#[test]
fn the_end_of_a_lost_job_leaves_the_next_one_alone() {
    let check = |seconds: u32, end: fn(&mut Lab, &JobId), status| {
        let mut lab = Lab::new();
        lab.bring_up("a");
        let mut request = lab.request(&["a"]);
        request.run_timeout = Some(seconds);
        let old = lab.start_job(request);
        lab.say("a", ack_commit(&old));
        lab.say("a", ack_run(&old));
        // The agent has died and lost it; the new one gets the next job before that is noticed.
        lab.disconnect("a");
        lab.connect("a");
        lab.pass(2_000);
        lab.beat("a", JobState::Idle, None);
        let next = lab.start(&["a"]);
        lab.say("a", ack_commit(&next));
        lab.say("a", ack_run(&next));
        lab.clear();
        end(&mut lab, &next);
        assert_eq!(lab.node_status(&old, "a"), status);
        assert_eq!(lab.node_status(&next, "a"), NodeStatus::Running);
        assert_eq!(lab.sent_types("a"), "");
        // Whoever holds on to an old job is stopped as before.
        lab.say("a", succeeded(&next));
        lab.clear();
        lab.beat("a", JobState::Running, Some(&old));
        assert_eq!(lab.sent_types("a"), "abort");
    };
    let beats = |lab: &mut Lab, next: &JobId| {
        for _ in 0..2 {
            lab.pass(I);
            lab.beat("a", JobState::Running, Some(next));
        }
    };
    check(3_600, beats, NodeStatus::Crashed);
    check(5, |lab, _| lab.pass(5_000), NodeStatus::TimedOut);
}
