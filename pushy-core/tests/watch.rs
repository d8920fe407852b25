//! Waiting for a job by asking: pauses, lines, ends, exit codes (10.2, decisions 14, 15, 27, D-73, D-78).

use pushy_core::api::JobView;
use pushy_core::time::{Millis, Now};
use pushy_core::watch::{Exit, Input, Output, Watch, WatchOptions, state_line};
use pushy_core::{Error, ErrorCode};
use serde_json::json;

fn job(status: &str, nodes: serde_json::Value) -> JobView {
    JobView::from_document(
        json!({"id": "4be1d6f0a9c30123456789abcdef0123", "status": status, "nodes": nodes}),
    )
    .unwrap()
}

fn at(ms: u64) -> Now {
    Now { mono: Millis(ms), ..Now::default() }
}

/// Without the feed.
fn polling() -> WatchOptions {
    WatchOptions { feed: false, ..WatchOptions::default() }
}

fn drain(watch: &mut Watch) -> Vec<Output> {
    std::iter::from_fn(|| watch.poll_output()).collect()
}

#[test]
fn lines() {
    let check = |status, nodes, want: &str| assert_eq!(state_line(&job(status, nodes)), want);
    check("new", json!({}), "Initialized.");
    check("voting", json!({"new": ["a"]}), "Voting.");
    check("running", json!({"running": ["a"], "succeeded": ["b"]}), "Running (1/2 in progress) ...");
    check(
        "running",
        json!({"new": ["a"], "ready": ["b", "c"], "running": ["d"], "nacked": ["e"]}),
        "Running (4/5 in progress) ...",
    );
    check("complete", json!({"succeeded": ["a"]}), "Complete.");
    check("quorum_failed", json!({"nacked": ["a"]}), "Quorum_failed.");
    check("timed_out", json!({}), "Timed_out.");
    check("crashed", json!({}), "Crashed.");
    check("aborted", json!({}), "Aborted.");
}

#[test]
fn exit_codes_of_jobs() {
    let check = |status, nodes: serde_json::Value, strict: u8, lenient: u8| {
        let job = job(status, nodes.clone());
        assert_eq!(Exit::of_job(&job, false).code(), strict, "{status} {nodes}");
        assert_eq!(Exit::of_job(&job, true).code(), lenient, "{status} {nodes} lenient");
    };
    check("complete", json!({"succeeded": ["a", "b"]}), 0, 0);
    check("complete", json!({"succeeded": ["a"], "failed": []}), 0, 0);
    check("complete", json!({"succeeded": ["a"], "nacked": ["b"], "unavailable": ["c"]}), 20, 0);
    check("complete", json!({"nacked": ["b"]}), 20, 0);
    for status in ["failed", "crashed", "timed_out", "aborted", "was_ready", "running", "unheard_of"] {
        check("complete", json!({"succeeded": ["a"], status: ["b"]}), 20, 1);
    }
    check("complete", json!({}), 20, 1);
    check("quorum_failed", json!({"succeeded": ["a"]}), 21, 1);
    check("timed_out", json!({"succeeded": ["a"]}), 22, 1);
    check("aborted", json!({"succeeded": ["a"]}), 23, 1);
    check("crashed", json!({"succeeded": ["a"]}), 24, 1);
    check("running", json!({"succeeded": ["a"]}), 1, 1);
}

#[test]
fn exit_codes_of_errors() {
    use ErrorCode::*;
    for (codes, want) in [
        (vec![InvalidArgument, InvalidName, InvalidKey, InvalidConfig, Malformed, TooLarge, Io], 1),
        (vec![Interrupted], 2),
        (
            vec![
                NotFound,
                Forbidden,
                Unauthorized,
                ClockSkew,
                BadSignature,
                Connection,
                Timeout,
                Server,
                Protocol,
            ],
            100,
        ),
    ] {
        for code in codes {
            assert_eq!(Exit::of_error(&Error::new(code, "x")).code(), want, "{code:?}");
        }
    }
}

#[test]
fn pauses_double_up_to_the_poll_interval() {
    let check = |interval: u64, want: &[u64]| {
        let options = WatchOptions { poll_interval: Millis(interval), ..polling() };
        let mut watch = Watch::new(at(0), options);
        let mut asked = Vec::new();
        for _ in want {
            let due = watch.next_deadline().unwrap();
            watch.handle(at(due.0 - 1), Input::Tick);
            assert_eq!(drain(&mut watch), [], "too early is harmless");
            watch.handle(at(due.0), Input::Tick);
            assert_eq!(drain(&mut watch), [Output::Ask]);
            assert_eq!(watch.next_deadline(), None, "nothing to do until the answer");
            asked.push(due.0);
            watch.handle(at(due.0), Input::Answer(job("running", json!({"running": ["a"]}))));
            drain(&mut watch);
        }
        assert_eq!(asked, want);
    };
    check(1000, &[10, 30, 70, 150, 310, 630, 1000, 2000, 3000]);
    check(25, &[10, 25, 50, 75]);
    check(0, &[10, 20, 30]);
}

/// The scene of the original transcript: the first line after a poll interval, each text once, the end at once.
#[test]
fn lines_come_when_knife_would_show_them() {
    let mut watch = Watch::new(at(0), polling());
    let mut shown = Vec::new();
    while let Some(due) = watch.next_deadline() {
        watch.handle(at(due.0), Input::Tick);
        let answer = match due.0 {
            0..=5 => job("voting", json!({"new": ["a", "b"]})),
            6..=400 => job("running", json!({"running": ["a", "b"]})),
            401..=2500 => job("running", json!({"running": ["b"], "succeeded": ["a"]})),
            _ => job("complete", json!({"succeeded": ["a", "b"]})),
        };
        watch.handle(at(due.0), Input::Answer(answer));
        for output in drain(&mut watch) {
            match output {
                Output::Ask => {}
                Output::Line(line) => shown.push(format!("{} {line}", due.0)),
                Output::Finished(job) => shown.push(format!("exit {}", Exit::of_job(&job, false).code())),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(shown, ["1000 Running (1/2 in progress) ...", "3000 Complete.", "exit 0"]);
    watch.handle(at(9999), Input::Tick);
    assert_eq!(drain(&mut watch), [], "nothing after the end");
}

#[test]
fn a_quick_job_is_over_with_the_first_answer() {
    let mut watch = Watch::new(at(5), polling());
    watch.handle(at(15), Input::Tick);
    let done = job("complete", json!({"succeeded": ["a"]}));
    watch.handle(at(16), Input::Answer(done.clone()));
    assert_eq!(
        drain(&mut watch),
        [Output::Ask, Output::Line("Complete.".to_owned()), Output::Finished(done)]
    );
    assert_eq!(watch.next_deadline(), None);
}

#[test]
fn transient_failures_are_borne_within_bounds() {
    let refused = || Error::new(ErrorCode::Connection, "cannot connect to chef:443: refused");
    let mut watch = Watch::new(at(0), polling());
    let mut asked = Vec::new();
    let last = loop {
        let due = watch.next_deadline().unwrap().0;
        asked.push(due);
        watch.handle(at(due), Input::Tick);
        watch.handle(at(due), Input::Failed { error: refused(), transient: true });
        let outputs = drain(&mut watch);
        match asked.len() {
            1 => assert_eq!(
                outputs,
                [Output::Ask, Output::Notice("cannot connect to chef:443: refused; asking again".to_owned())]
            ),
            _ if watch.next_deadline().is_none() => break outputs,
            _ => assert_eq!(outputs, [Output::Ask], "said once"),
        }
    };
    assert_eq!(last, [Output::Ask, Output::GivenUp(refused())]);
    assert_eq!(asked[..8], [10, 510, 1510, 3510, 7510, 15510, 25510, 35510]);
    assert!((120_000..135_000).contains(asked.last().unwrap()), "{asked:?}");
}

#[test]
fn one_answer_ends_a_row_of_failures() {
    let fail = |transient| Input::Failed { error: Error::new(ErrorCode::Server, "bad gateway"), transient };
    let mut watch = Watch::new(at(0), polling());
    watch.handle(at(10), Input::Tick);
    watch.handle(at(10), fail(true));
    watch.handle(at(510), Input::Tick);
    watch.handle(at(510), Input::Answer(job("running", json!({"running": ["a"]}))));
    drain(&mut watch);
    let due = watch.next_deadline().unwrap().0;
    assert_eq!(due, 530, "back to the short pauses");
    watch.handle(at(due), Input::Tick);
    watch.handle(at(due), fail(true));
    assert_eq!(drain(&mut watch).len(), 2, "a new row is announced again");
    watch.handle(at(1030), Input::Tick);
    watch.handle(at(1030), fail(false));
    assert!(matches!(drain(&mut watch)[..], [Output::Ask, Output::GivenUp(_)]), "a refusal is final");
}
