//! The whole node against a server played by hand: sections 1.3, 1.6, 4.6, 4.10, 7.6 to 7.8 and decisions 2, 3, 26.

use std::collections::VecDeque;

use pushy_core::ids::IncarnationId;
use pushy_core::job::JobOptions;
use pushy_core::message::{Caps, ServerMessage};
use pushy_core::node::job_runner::{Input as JobInput, State};
use pushy_core::node::{Collector, Exit, Input, Output, Port, Restored, Stage};
use pushy_core::server::LogLevel;
use pushy_core::time::Millis;
use pushy_core::whitelist::Whitelist;
use pushy_core::wire;

use crate::lab::{JOB, Lab, Server, job, kept, pems};

pub(crate) fn captured() -> JobOptions {
    JobOptions { capture: true, ..JobOptions::default() }
}

fn prepared(lab: &mut Lab) -> Vec<Output> {
    lab.handle(Input::Job(JobInput::Prepared { job: job(), verdict: Ok(()) }))
}

/// From idle to a running process.
pub(crate) fn running(lab: &mut Lab, options: JobOptions) {
    let outputs = lab.commit("ok", options);
    assert!(matches!(&outputs[..], [Output::Prepare { .. }]), "{outputs:?}");
    let outputs = prepared(lab);
    assert_eq!(lab.types(&outputs), ["ack_commit"]);
    let outputs = lab.say(&ServerMessage::Run { job: job() });
    assert!(matches!(&outputs[..], [Output::Spawn { .. }]), "{outputs:?}");
    let outputs = lab.handle(Input::Job(JobInput::Started { job: job() }));
    assert_eq!(lab.types(&outputs), ["ack_run"]);
}

pub(crate) fn exit(lab: &mut Lab, stdout: &[u8]) -> Vec<Output> {
    let mut out = Collector::new(200_000);
    out.push(stdout);
    lab.handle(Input::Job(JobInput::Exited {
        job: job(),
        exit: Exit::Status(0),
        stdout: out.finish(),
        stderr: Collector::new(10).finish(),
    }))
}

fn is_fetch(output: &Output) -> bool {
    matches!(output, Output::FetchConfig { .. })
}

fn connects(outputs: &[Output]) -> Vec<Port> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Connect { port, .. } => Some(*port),
            _ => None,
        })
        .collect()
}

#[test]
fn from_start_to_available() {
    let mut lab = Lab::new();
    assert!(matches!(&lab.outputs()[..], [Output::FetchConfig { .. }]));
    let outputs = lab.configure();
    assert!(matches!(&outputs[0], Output::PinServerKey { .. }));
    assert_eq!(connects(&outputs), [Port::Command, Port::Heartbeat]);
    let outputs = lab.connect();
    let said = lab.said(&outputs);
    assert_eq!(said.len(), 1);
    assert!(said[0].1.contains(r#""type":"heartbeat","sequence":1,"#), "{}", said[0].1);
    let caps: Vec<String> = Caps::OF_NODE.names().map(|name| format!("{name:?}")).collect();
    let end = format!(r#""job_state":"idle","job_id":null,"caps":[{}]}}"#, caps.join(","));
    assert!(said[0].1.ends_with(&end), "{}", said[0].1);
    let outputs = lab.say(&ServerMessage::Abort);
    assert_eq!(lab.types(&outputs), ["aborted"]);
    assert!(lab.node.is_online());
    let outputs = lab.pass(30_000);
    assert!(lab.node.is_online());
    assert_eq!(outputs.len(), 3, "a heartbeat per interval: {outputs:?}");
}

#[test]
fn boots_before_the_network_and_keeps_trying() {
    let mut lab = Lab::new();
    lab.outputs();
    let mut longest = 0;
    for tries in 0..50 {
        lab.handle(Input::ConfigFailed { why: "no route".into() });
        let wait = lab.node.next_deadline().expect("another try").0 - lab.now().mono.0;
        longest = longest.max(wait);
        assert!(wait <= 10_000 && (tries > 0 || wait <= 2_000), "{tries}: {wait}");
        assert!(lab.pass(wait).iter().any(is_fetch));
    }
    assert!(longest > 5_000);
    lab.join();
}

#[test]
fn a_job_from_commit_to_its_acknowledged_result() {
    let mut lab = Lab::online();
    running(&mut lab, captured());
    let beat = lab_heartbeat(&mut lab);
    assert!(lab.said(&beat)[0].1.contains(&format!(r#""job_state":"running","job_id":"{JOB}""#)));
    let outputs = exit(&mut lab, b"done\n");
    let said = lab.said(&outputs);
    assert_eq!(said[0].0, "succeeded");
    assert!(said[0].1.ends_with(r#""stdout":"done\n","stderr":""}"#), "{}", said[0].1);
    assert!(outputs.iter().any(|output| matches!(output, Output::SpoolResult(result) if result.succeeded)));
    // Decision 2: with each heartbeat, after each new connection, until result_ack.
    assert_eq!(types_with_heartbeat(&mut lab), ["succeeded", "heartbeat"]);
    let outputs =
        lab.handle(Input::Disconnected { conn: lab.command, stage: Stage::Open, why: "cut".into() });
    assert!(lab.said(&outputs).is_empty());
    lab.pass(2_000);
    let outputs = lab.connect();
    assert_eq!(lab.types(&outputs), ["succeeded", "heartbeat"]);
    let outputs = lab.say(&ServerMessage::ResultAck { job: job() });
    assert_eq!(outputs, [Output::DropResult { job: job() }]);
    assert_eq!(types_with_heartbeat(&mut lab), ["heartbeat"]);
}

/// The next own heartbeat, with what goes with it.
fn lab_heartbeat(lab: &mut Lab) -> Vec<Output> {
    lab.publish();
    let outputs = lab.pass(10_000);
    assert!(!outputs.is_empty());
    outputs
}

fn types_with_heartbeat(lab: &mut Lab) -> Vec<String> {
    let outputs = lab_heartbeat(lab);
    lab.types(&outputs)
}

#[test]
fn a_restarted_agent_delivers_what_it_had_spooled_and_does_not_run_it_again() {
    let mut lab = Lab::restored(Restored { results: vec![kept(true)], pinned: None });
    lab.outputs();
    lab.configure();
    let outputs = lab.connect();
    assert_eq!(lab.types(&outputs), ["succeeded", "heartbeat"]);
    let outputs = lab.commit("ok", captured());
    assert_eq!(lab.types(&outputs), ["nack_commit"]);
    let outputs = lab.say(&ServerMessage::Run { job: job() });
    assert_eq!(lab.types(&outputs), ["succeeded"]);
}

/// 6.5: an original sends a node that repeats itself to rehab.
#[test]
fn an_original_server_gets_each_result_once() {
    let mut lab = Lab::new();
    lab.server.caps = None;
    lab.outputs();
    lab.join();
    running(&mut lab, captured());
    lab.handle(Input::Disconnected { conn: lab.command, stage: Stage::Open, why: "cut".into() });
    let outputs = exit(&mut lab, b"");
    assert!(outputs.is_empty(), "no connection, nothing spooled: {outputs:?}");
    lab.pass(2_000);
    let outputs = lab.connect();
    assert_eq!(lab.types(&outputs), ["heartbeat", "succeeded"]);
    lab.say(&ServerMessage::Ack);
    assert_eq!(types_with_heartbeat(&mut lab), ["heartbeat"]);
}

/// Decision 3: repeated commits and runs of the current job.
#[test]
fn what_a_server_repeats_is_answered_again_and_starts_nothing() {
    let mut lab = Lab::online();
    lab.commit("ok", captured());
    assert!(lab.commit("ok", captured()).is_empty());
    prepared(&mut lab);
    let outputs = lab.commit("ok", captured());
    assert_eq!(lab.types(&outputs), ["ack_commit"]);
    lab.say(&ServerMessage::Run { job: job() });
    lab.handle(Input::Job(JobInput::Started { job: job() }));
    let outputs = lab.say(&ServerMessage::Run { job: job() });
    assert_eq!(lab.types(&outputs), ["ack_run"]);
    assert_eq!(outputs.len(), 1);
}

/// D-53: a window on both sides, and nothing acts twice.
#[test]
fn recorded_messages_do_nothing() {
    let check = |clock: i64, times: usize, expected: usize| {
        let mut lab = Lab::online();
        let (header, body) = lab.frames(&ServerMessage::Abort);
        lab.set_clock(clock);
        let mut answers = 0;
        for _ in 0..times {
            let (header, body) = (header.clone(), body.clone());
            let outputs = lab.handle(Input::Frames { conn: lab.command, header, body });
            answers += outputs.iter().filter(|output| matches!(output, Output::Send { .. })).count();
        }
        assert_eq!(answers, expected, "clock {clock}, {times} times");
    };
    check(0, 1, 1);
    check(0, 3, 1);
    for near in [-300, 300] {
        check(near, 2, 1);
    }
    for far in [-301, 301, 86_400] {
        check(far, 2, 0);
    }
}

#[test]
fn each_port_takes_its_own_messages_only() {
    let mut lab = Lab::online();
    let (header, body) = lab.frames(&ServerMessage::Abort);
    assert!(
        lab.handle(Input::Frames { conn: lab.heartbeat, header, body }).is_empty(),
        "a command on the open port"
    );
    let body = ServerMessage::Abort.encode(99, lab.now().wall);
    let header = lab.server.signer.header(&body).expect("signed");
    assert!(
        lab.handle(Input::Frames { conn: lab.command, header, body }).is_empty(),
        "RSA on the command port"
    );
    let body = ServerMessage::Abort.encode(99, lab.now().wall);
    let header = wire::hmac_header(&[0; 32], &body);
    assert!(lab.handle(Input::Frames { conn: lab.command, header, body }).is_empty(), "another key");
    assert!(
        lab.handle(Input::Frames { conn: 77, header: vec![], body: vec![] }).is_empty(),
        "no such connection"
    );
}

/// 4.10.
#[test]
fn malformed_commands_are_refused_without_a_job() {
    for (body, expected) in [
        (r#""type":"commit","command":"ok""#, "nack_commit"),
        (r#""type":"commit","job_id":"4be1d6f0a9c30123456789abcdef0123""#, "nack_commit"),
        (r#""type":"run""#, "nack_run"),
    ] {
        let mut lab = Lab::online();
        let body =
            format!(r#"{{"sequence":5,"timestamp":"{}",{body}}}"#, lab.now().wall.rfc1123()).into_bytes();
        let header = wire::hmac_header(&lab.server.session.0, &body);
        let outputs = lab.handle(Input::Frames { conn: lab.command, header, body });
        let said = lab.said(&outputs);
        assert_eq!(said[0].0, expected);
        assert!(said[0].1.contains(r#""job_id":null"#), "{}", said[0].1);
        assert_eq!(lab.node.job_state().0, State::Idle);
    }
}

#[test]
fn a_command_that_is_not_listed_is_refused() {
    let mut lab = Lab::online();
    let outputs = lab.commit("rm -rf /", captured());
    assert_eq!(lab.types(&outputs), ["nack_commit"]);
}

/// D-45, D-48: the result arrives whatever was printed, within the smaller of the two limits.
#[test]
fn output_is_cut_to_the_smaller_limit() {
    for (advertised, limit) in [(Some(65_536), 63_000), (Some(5_000), 5_000), (None, 63_000)] {
        for byte in [b'x', b'"', 1, 0, 0xff] {
            let mut lab = Lab::new();
            lab.server.max_body = advertised;
            lab.outputs();
            lab.join();
            running(&mut lab, captured());
            let outputs = exit(&mut lab, &vec![byte; 150_000]);
            let said = lab.said(&outputs);
            let (kind, text) = &said[0];
            assert_eq!(kind, "succeeded");
            assert!(text.len() <= limit && text.len() > limit * 9 / 10, "{byte}: {} of {limit}", text.len());
            assert!(text.contains("bytes left out"), "{byte}");
        }
    }
}

/// D-55, D-54: no answer within four seconds: fetch the configuration, keep the job.
#[test]
fn a_mute_channel_is_mended_without_losing_the_job() {
    let mut lab = Lab::online();
    running(&mut lab, captured());
    lab.handle(Input::Disconnected { conn: lab.command, stage: Stage::Open, why: "cut".into() });
    lab.pass(2_000);
    lab.connect();
    let outputs = lab.pass(6_100);
    assert!(outputs.iter().any(is_fetch), "{outputs:?}");
    let outputs = lab.configure();
    assert!(connects(&outputs).contains(&Port::Command), "same keys, but the channel is down");
    lab.connect();
    lab.say(&ServerMessage::Ack);
    assert!(lab.node.is_online());
    assert_eq!(lab.node.job_state(), (State::Running, Some(&job())));
}

/// Decision 4: a lost connection alone costs no fetch; a failed handshake does.
#[test]
fn what_a_lost_connection_leads_to() {
    let check = |stage: Stage, fetches: bool| {
        let mut lab = Lab::online();
        lab.handle(Input::Disconnected { conn: lab.command, stage, why: "gone".into() });
        let outputs = lab.pass(2_000);
        assert_eq!(outputs.iter().any(is_fetch), fetches, "{stage:?}");
        assert_eq!(connects(&outputs).contains(&Port::Command), !fetches, "{stage:?}");
    };
    check(Stage::Open, false);
    check(Stage::Connecting, false);
    check(Stage::Handshake, true);
}

#[test]
fn a_server_that_may_have_moved_is_asked_for_by_its_rest_address() {
    let mut lab = Lab::online();
    let (mut fetches, mut connections) = (0, 0);
    lab.handle(Input::Disconnected { conn: lab.command, stage: Stage::Open, why: "gone".into() });
    for _ in 0..2_000 {
        let mut outputs = VecDeque::from(lab.pass(500));
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::FetchConfig { .. } => {
                    fetches += 1;
                    outputs.extend(lab.handle(Input::ConfigFailed { why: "gone".into() }));
                }
                Output::Connect { conn, port: Port::Command, .. } => {
                    connections += 1;
                    let why = "refused".into();
                    let refused = Input::Disconnected { conn, stage: Stage::Connecting, why };
                    outputs.extend(lab.handle(refused));
                }
                _ => {}
            }
        }
    }
    let tame = |count| (50..400).contains(&count);
    assert!(tame(fetches) && tame(connections), "{fetches} fetches, {connections} connections in 1000 s");
}

/// Decision 4: a node is back within an interval and 5 s of the server, however long it was away. 2 s of them are
/// for the handshake and the first words; the rest is how long no try may be under way.
#[test]
fn no_pause_between_tries_is_longer_than_an_interval_and_3_s() {
    // How long a try and a request for the configuration take to fail.
    let check = |interval: u64, try_takes: u64, fetch_takes: u64| {
        let mut lab = Lab::new();
        lab.outputs();
        lab.server.interval = Millis(interval);
        lab.join();
        let mut failing = vec![(
            lab.now().mono,
            Input::Disconnected { conn: lab.command, stage: Stage::Open, why: "gone".into() },
        )];
        let (mut longest, mut tries, mut fetches, mut ended) = (0, 0, 0, lab.now().mono);
        while tries < 300 {
            let next = failing.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(i, (at, _))| (i, *at));
            let deadline = lab.node.next_deadline().filter(|at| next.is_none_or(|(_, end)| *at < end));
            let outputs = match (deadline, next) {
                (Some(at), _) => lab.pass(at.saturating_sub(lab.now().mono).0),
                (None, Some((i, at))) => {
                    let mut outputs = lab.pass(at.saturating_sub(lab.now().mono).0);
                    let (_, input) = failing.remove(i);
                    if matches!(input, Input::Disconnected { .. }) {
                        ended = lab.now().mono;
                    }
                    outputs.extend(lab.handle(input));
                    outputs
                }
                (None, None) => panic!("nothing is planned"),
            };
            let now = lab.now().mono;
            for output in outputs {
                match output {
                    Output::Connect { conn, port: Port::Command, .. } => {
                        if tries > 0 {
                            longest = longest.max((now - ended).0);
                        }
                        tries += 1;
                        let why = "no answer".to_owned();
                        let end = Input::Disconnected { conn, stage: Stage::Connecting, why };
                        failing.push((now + Millis(try_takes), end));
                    }
                    Output::FetchConfig { .. } => {
                        fetches += 1;
                        let why = "no answer".to_owned();
                        failing.push((now + Millis(fetch_takes), Input::ConfigFailed { why }));
                    }
                    _ => {}
                }
            }
        }
        let allowed = (interval + 3_000).min(10_000).saturating_sub(try_takes);
        assert!(longest <= allowed && longest >= allowed * 9 / 10, "{interval} {try_takes}: {longest}");
        assert!(fetches >= 10, "{interval} {try_takes}: it may have moved: {fetches} fetches");
    };
    for interval in [10, 500, 1_000, 2_000, 6_900, 7_000, 10_000, 60_000] {
        for fetch_takes in [1, 10_000, 30_000] {
            check(interval, 0, fetch_takes);
            check(interval, 10_000, fetch_takes);
        }
    }
}

/// 1.6: spread over one interval.
#[test]
fn another_incarnation_means_another_configuration() {
    let mut lab = Lab::online();
    assert!(lab.publish().is_empty());
    lab.server.incarnation = IncarnationId::new("second").expect("an id");
    lab.publish();
    let outputs = lab.pass(10_000);
    assert_eq!(outputs.iter().filter(|output| is_fetch(output)).count(), 1);
    lab.configure();
    assert!(lab.publish().is_empty());
    assert!(!lab.pass(60_000).iter().any(is_fetch));
}

#[test]
fn keys_rotate_at_the_end_of_the_lifetime_when_idle() {
    for busy in [false, true] {
        let mut lab = Lab::online();
        let first = lab.announced;
        if busy {
            running(&mut lab, captured());
        }
        let mut fetched = false;
        for _ in 0..361 {
            lab.publish();
            fetched |= lab.pass(10_000).iter().any(is_fetch);
        }
        assert_eq!(fetched, !busy);
        if busy {
            assert!(exit(&mut lab, b"").iter().any(is_fetch));
        }
        assert_ne!(lab.announced, first, "new keys");
        let outputs = lab.configure();
        assert!(connects(&outputs).contains(&Port::Command));
    }
}

/// A configuration that says nothing new leaves the connections alone.
#[test]
fn an_operator_may_ask_for_the_configuration_at_any_time() {
    let mut lab = Lab::online();
    running(&mut lab, captured());
    let outputs = lab.handle(Input::Reconfigure);
    assert!(outputs.iter().any(is_fetch));
    assert!(lab.configure().is_empty());
    assert_eq!(lab.node.job_state().0, State::Running);
}

/// D-66.
#[test]
fn a_server_with_another_key_or_without_encryption_is_refused() {
    let mut lab = Lab::online();
    lab.handle(Input::Reconfigure);
    lab.server = Server::new(2);
    assert!(connects(&lab.configure()).is_empty());
    let other = Server::new(2).signer.public_pem().expect("PEM");
    let mut lab = Lab::restored(Restored { results: vec![], pinned: Some(other) });
    lab.outputs();
    assert!(connects(&lab.configure()).is_empty());

    let mut lab = Lab::new();
    lab.outputs();
    let mut old = lab.server.config();
    old.curve_public_key = None;
    let outputs = lab.handle(Input::Config { body: old.to_json().into_bytes() });
    assert_eq!(outputs, [Output::Exit { code: 1 }]);
    let mut lab = Lab::online();
    lab.handle(Input::Reconfigure);
    let outputs = lab.handle(Input::Config { body: old.to_json().into_bytes() });
    assert!(outputs.is_empty(), "2.0 was seen: no exit, no fall back: {outputs:?}");
}

#[test]
fn an_unusable_configuration_changes_nothing_and_is_asked_for_again() {
    for body in ["", "[]", "{}", "{\"type\":\"config\"}"] {
        let mut lab = Lab::online();
        lab.handle(Input::Reconfigure);
        assert!(lab.handle(Input::Config { body: body.into() }).is_empty());
        assert!(lab.node.is_online());
        lab.publish();
        assert!(lab.pass(10_000).iter().any(is_fetch), "{body}");
    }
    // A session key made for somebody else.
    let mut lab = Lab::new();
    lab.outputs();
    let mut config = lab.server.config();
    config.encoded_session_key = "AAAA".into();
    assert!(connects(&lab.handle(Input::Config { body: config.to_json().into_bytes() })).is_empty());
    assert!(lab.pass(2_000).iter().any(is_fetch));
}

/// D-60.
#[test]
fn a_new_whitelist_waits_for_the_job() {
    let none = || Box::new(Whitelist::builder().build().expect("a whitelist"));
    let mut lab = Lab::online();
    assert_eq!(lab.handle(Input::Reload(none())), [Output::Reloaded]);
    let outputs = lab.commit("ok", captured());
    assert_eq!(lab.types(&outputs), ["nack_commit"]);

    let mut lab = Lab::online();
    running(&mut lab, captured());
    assert!(lab.handle(Input::Reload(none())).is_empty());
    assert!(exit(&mut lab, b"").contains(&Output::Reloaded));
}

#[test]
fn a_stop_kills_the_job_says_so_and_exits() {
    let mut lab = Lab::online();
    let outputs = lab.handle(Input::Shutdown);
    assert_eq!(outputs.last(), Some(&Output::Exit { code: 0 }));
    assert_eq!(lab.node.next_deadline(), None);

    let mut lab = Lab::online();
    running(&mut lab, captured());
    assert_eq!(lab.handle(Input::Shutdown), [Output::Kill { job: job() }]);
    let outputs = exit(&mut lab, b"");
    assert_eq!(lab.types(&outputs), ["aborted"]);
    assert_eq!(outputs.last(), Some(&Output::Exit { code: 0 }));
}

/// D-46: an abort is answered when the group is gone; heartbeats go on meanwhile.
#[test]
fn heartbeats_go_on_while_a_job_is_killed() {
    let mut lab = Lab::online();
    running(&mut lab, captured());
    assert_eq!(lab.say(&ServerMessage::Abort), [Output::Kill { job: job() }]);
    assert_eq!(types_with_heartbeat(&mut lab), ["heartbeat"]);
    assert!(lab.say(&ServerMessage::Abort).is_empty());
    let outputs = exit(&mut lab, b"");
    assert_eq!(lab.types(&outputs), ["aborted"]);
    assert!(!outputs.iter().any(|output| matches!(output, Output::SpoolResult(_))));
}

/// Neither output nor session key nor option values appear in a log line or in `Debug`.
#[test]
fn nothing_secret_is_logged() {
    let mut lab = Lab::online();
    let options = JobOptions {
        env: Some(vec![("TOKEN".into(), "hunter2".into())]),
        file: Some("raw:hunter2".into()),
        capture: true,
        ..JobOptions::default()
    };
    let mut seen = String::new();
    let drain = |lab: &mut Lab, seen: &mut String, input: Input| {
        lab.node.handle(lab.now(), input);
        while let Some(output) = lab.node.poll_output() {
            match &output {
                Output::Send { .. } => {}
                Output::Log { level, text, .. } => {
                    assert!(*level >= LogLevel::Debug);
                    seen.push_str(text);
                }
                other => seen.push_str(&format!("{other:?}")),
            }
        }
    };
    let commit = pushy_core::message::Commit {
        job: job(),
        server: "s".into(),
        command: "ok".into(),
        options,
        run_timeout: None,
    };
    for message in [ServerMessage::Commit(Box::new(commit)), ServerMessage::Run { job: job() }] {
        let (header, body) = lab.frames(&message);
        let conn = lab.command;
        drain(&mut lab, &mut seen, Input::Frames { conn, header, body });
        drain(&mut lab, &mut seen, Input::Job(JobInput::Prepared { job: job(), verdict: Ok(()) }));
    }
    let mut out = Collector::new(100);
    out.push(b"hunter2");
    let exited = JobInput::Exited {
        job: job(),
        exit: Exit::Status(0),
        stdout: out.finish(),
        stderr: Collector::new(1).finish(),
    };
    seen.push_str(&format!("{exited:?}"));
    drain(&mut lab, &mut seen, Input::Job(exited));
    seen.push_str(&format!("{:?}", lab.node));
    assert!(!seen.contains("hunter2"), "{seen}");
    assert!(!seen.contains(pems()[1].lines().nth(1).expect("PEM")));
}
