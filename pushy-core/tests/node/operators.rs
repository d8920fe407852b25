//! What operators gained: a time limit that the node keeps itself, reasons, cancelling one job and no other.

use pushy_core::job::JobOptions;
use pushy_core::message::{Caps, ServerMessage};
use pushy_core::node::job_runner::State;
use pushy_core::node::{Input, Output, Stage};
use pushy_core::reason::{Reason, ReasonCode};

use crate::lab::{JOB, Lab, job};
use crate::machine::{captured, exit, running};

/// The node ends a process whose time is up by itself, whether anybody can be told or not.
#[test]
fn a_node_keeps_the_run_timeout_itself() {
    let mut lab = Lab::online();
    lab.run_timeout = Some(60);
    running(&mut lab, captured());
    lab.handle(Input::Disconnected { conn: lab.command, stage: Stage::Open, why: "cut".into() });
    let kills = |outputs: &[Output]| outputs.iter().filter(|o| matches!(o, Output::Kill { .. })).count();
    assert_eq!(kills(&lab.pass(59_999)), 0);
    assert_eq!(kills(&lab.pass(1)), 1);
    assert_eq!(lab.node.job_state().0, State::Expiring);
    let outputs = exit(&mut lab, b"half");
    let kept = outputs.iter().find_map(|output| match output {
        Output::SpoolResult(result) => Some(result.clone()),
        _ => None,
    });
    let kept = kept.expect("a result like any other");
    assert_eq!((kept.succeeded, kept.stdout.as_deref()), (false, Some("half")));
    assert_eq!(kept.reason, Some(Reason::new(ReasonCode::TimedOut, "ended after 60 s (run_timeout)")));
    let again = pushy_core::node::KeptResult::from_text(&kept.to_text()).expect("what was written");
    assert_eq!(again, kept);
}

/// A process that ends in time is not killed afterwards, nor is the next job's.
#[test]
fn a_timeout_that_was_not_needed_is_forgotten() {
    let mut lab = Lab::online();
    lab.run_timeout = Some(5);
    running(&mut lab, JobOptions::default());
    exit(&mut lab, b"");
    let outputs = lab.pass(10_000);
    assert!(!outputs.iter().any(|o| matches!(o, Output::Kill { .. })), "{outputs:?}");
}

/// Reasons go to a server that takes them, and to no other.
#[test]
fn reasons_are_said_to_whom_they_mean_something() {
    for (caps, expected) in [
        (
            Some(Caps::REASONS),
            r#""reason":{"code":"not_whitelisted","text":"the command is not on the whitelist"}}"#,
        ),
        (Some(Caps::RESULTS), &format!(r#""job_id":"{JOB}"}}"#)),
        (None, &format!(r#""job_id":"{JOB}"}}"#)),
    ] {
        let mut lab = Lab::new();
        lab.server.caps = caps;
        lab.join();
        let outputs = lab.commit("nothing of the kind", JobOptions::default());
        let said = lab.said(&outputs);
        assert_eq!(said[0].0, "nack_commit");
        assert!(said[0].1.ends_with(expected), "{caps:?}: {}", said[0].1);
    }
}

#[test]
fn a_cancel_ends_its_job_and_no_other() {
    let mut lab = Lab::online();
    running(&mut lab, JobOptions::default());
    let other = pushy_core::ids::JobId::new("00000000000000000000000000000009").expect("an id");
    let outputs = lab.say(&ServerMessage::Cancel { job: other.clone() });
    let said = lab.said(&outputs);
    assert!(said[0].1.contains(&format!(r#""job_id":"{other}""#)), "{}", said[0].1);
    assert_eq!(lab.node.job_state().0, State::Running);
    let outputs = lab.say(&ServerMessage::Cancel { job: job() });
    assert!(outputs.iter().any(|o| matches!(o, Output::Kill { .. })), "{outputs:?}");
    let outputs = exit(&mut lab, b"");
    let said = lab.said(&outputs);
    assert_eq!(said[0].0, "aborted");
    let end = format!(r#""job_id":"{JOB}","reason":{{"code":"cancelled","text":"cancelled"}}}}"#);
    assert!(said[0].1.ends_with(&end), "{}", said[0].1);
}
