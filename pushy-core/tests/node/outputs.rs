//! Extension `output` on the node: one read at a time, few pieces on their way, what waits for more (decision 37).

use pushy_core::job::JobOptions;
use pushy_core::message::{FromNode, NodeMessage, ServerMessage};
use pushy_core::node::job_runner::Input as JobInput;
use pushy_core::node::outputs::{COUNTED, GATHER, MAX_REQUESTS, Piece, UNSENT};
use pushy_core::node::{Input, Output, Stage};
use pushy_core::output::{CHUNK, Chunk, OutputChannel, Wanted};

use crate::lab::{Lab, job};

fn wanted(offset: u64, wait: u32) -> Wanted {
    Wanted { job: job(), channel: OutputChannel::Stdout, offset, max: CHUNK, wait }
}

fn chunk(offset: u64, total: u64, done: bool, data: usize) -> Chunk {
    Chunk {
        job: job(),
        channel: OutputChannel::Stdout,
        offset,
        total,
        done,
        lost: 0,
        missing: false,
        data: vec![b'x'; data],
    }
}

fn ask(lab: &mut Lab, wanted: &Wanted) -> Vec<Output> {
    lab.say(&ServerMessage::OutputRequest(wanted.clone()))
}

fn read(lab: &mut Lab, chunk: Chunk) -> Vec<Output> {
    lab.handle(Input::OutputRead(Piece::Read(chunk)))
}

/// What is to be read, in order.
fn reads(outputs: &[Output]) -> Vec<u64> {
    let offset = |output: &Output| match output {
        Output::ReadOutput(wanted) => Some(wanted.offset),
        _ => None,
    };
    outputs.iter().filter_map(offset).collect()
}

fn sent(lab: &Lab, outputs: &[Output]) -> Vec<Chunk> {
    let chunk =
        |(_, text): (String, String)| match FromNode::decode(text.as_bytes()).expect("a message").message {
            NodeMessage::OutputChunk(chunk) => Some(*chunk),
            _ => None,
        };
    lab.said(outputs).into_iter().filter_map(chunk).collect()
}

#[test]
fn a_window_of_requests_is_read_one_by_one_as_the_network_takes_it() {
    let mut lab = Lab::online();
    let size = CHUNK as usize;
    let total = 20 * size as u64;
    assert_eq!(reads(&ask(&mut lab, &wanted(0, 0))), [0]);
    for n in 1..8 {
        assert!(ask(&mut lab, &wanted(n * size as u64, 0)).is_empty(), "one read at a time");
    }
    let mut next = 0;
    for n in 0..UNSENT as u64 {
        let outputs = read(&mut lab, chunk(next, total, true, size));
        let body = match &outputs[0] {
            Output::Send { body, .. } => body.len(),
            other => panic!("{other:?}"),
        };
        assert!(body <= 63_000, "{body} is more than a message may have");
        assert_eq!(sent(&lab, &outputs), [chunk(next, total, true, size)]);
        next += size as u64;
        let more = if n + 1 < UNSENT as u64 { vec![next] } else { vec![] };
        assert_eq!(reads(&outputs), more, "{n}");
    }
    // A heartbeat waits behind few pieces, however many are asked for.
    let sequence_of_first = 2;
    let conn = lab.command;
    assert!(lab.handle(Input::Drained { conn: conn + 1, messages: 99 }).is_empty(), "another connection");
    let outputs = lab.handle(Input::Drained { conn, messages: sequence_of_first });
    assert_eq!(reads(&outputs), [next]);
    assert!(lab.handle(Input::Drained { conn, messages: sequence_of_first }).is_empty());
}

#[test]
fn what_is_not_there_yet_is_waited_for() {
    let check = |told: &dyn Fn(&mut Lab), expected: u64| {
        let mut lab = Lab::online();
        ask(&mut lab, &wanted(5, 4_000));
        assert!(read(&mut lab, chunk(5, 5, false, 0)).is_empty(), "parked");
        told(&mut lab);
        let start = lab.now().mono;
        let at = lab.node.next_deadline().expect("a deadline").0 - start.0;
        assert_eq!(at, expected);
        let outputs = lab.pass(at);
        assert_eq!(reads(&outputs), [5]);
        let outputs = read(&mut lab, chunk(5, 9, false, 4));
        assert_eq!(sent(&lab, &outputs), [chunk(5, 9, false, 4)]);
    };
    check(&|_| {}, 4_000);
    check(&|lab| drop(lab.handle(Input::OutputGrew { job: job(), ended: false })), GATHER.0);
    let twice = |lab: &mut Lab| {
        lab.handle(Input::OutputGrew { job: job(), ended: false });
        lab.pass(GATHER.0 / 2);
        lab.handle(Input::OutputGrew { job: job(), ended: false });
    };
    check(&twice, GATHER.0 / 2);
}

#[test]
fn the_end_is_told_at_once() {
    let mut lab = Lab::online();
    ask(&mut lab, &wanted(5, 4_000));
    read(&mut lab, chunk(5, 5, false, 0));
    let outputs = lab.handle(Input::OutputGrew { job: job(), ended: true });
    assert_eq!(reads(&outputs), [5]);
    let outputs = read(&mut lab, chunk(5, 5, true, 0));
    assert_eq!(sent(&lab, &outputs), [chunk(5, 5, true, 0)]);
    assert_eq!(lab.node.next_deadline().map(|at| at.0 - lab.now().mono.0 > 1_000), Some(true));
}

#[test]
fn what_comes_while_it_is_read_is_not_missed() {
    let mut lab = Lab::online();
    ask(&mut lab, &wanted(5, 4_000));
    lab.handle(Input::OutputGrew { job: job(), ended: false });
    read(&mut lab, chunk(5, 5, false, 0));
    assert_eq!(reads(&lab.pass(GATHER.0)), [5]);
}

#[test]
fn the_time_to_wait_is_over() {
    let mut lab = Lab::online();
    ask(&mut lab, &wanted(5, 100));
    read(&mut lab, chunk(5, 5, false, 0));
    assert_eq!(reads(&lab.pass(100)), [5]);
    let outputs = read(&mut lab, chunk(5, 5, false, 0));
    assert_eq!(sent(&lab, &outputs), [chunk(5, 5, false, 0)], "it says how much there is");
}

#[test]
fn nothing_kept_is_final_only_when_the_job_is_not_under_way() {
    let missing = |lab: &mut Lab| lab.handle(Input::OutputRead(Piece::Missing));
    let mut lab = Lab::online();
    ask(&mut lab, &wanted(0, 4_000));
    let outputs = missing(&mut lab);
    assert_eq!(sent(&lab, &outputs), [Chunk { missing: true, ..chunk(0, 0, true, 0) }]);
    let options = JobOptions { capture: true, ..JobOptions::default() };
    lab.commit("ok", options);
    lab.handle(Input::Job(JobInput::Prepared { job: job(), verdict: Ok(()) }));
    ask(&mut lab, &wanted(0, 4_000));
    assert!(missing(&mut lab).is_empty(), "it may still begin");
    assert_eq!(reads(&lab.handle(Input::OutputGrew { job: job(), ended: true })), [0]);
}

#[test]
fn a_lost_connection_takes_its_requests_with_it() {
    let mut lab = Lab::online();
    for n in 0..3 {
        ask(&mut lab, &wanted(n, 4_000));
    }
    lab.handle(Input::Disconnected { conn: lab.command, stage: Stage::Open, why: "cut".into() });
    lab.pass(2_000);
    lab.connect();
    assert!(read(&mut lab, chunk(0, 9, true, 9)).is_empty(), "for nobody");
    assert_eq!(reads(&ask(&mut lab, &wanted(7, 0))), [7]);
}

#[test]
fn a_server_that_asks_without_end_is_not_answered_without_end() {
    let mut lab = Lab::online();
    for n in 0..2 * MAX_REQUESTS as u64 {
        ask(&mut lab, &wanted(n, 0));
    }
    let mut answered = 0;
    while let outputs = read(&mut lab, chunk(answered, 1 << 20, true, 1))
        && !sent(&lab, &outputs).is_empty()
    {
        answered += 1;
    }
    assert_eq!(answered, MAX_REQUESTS as u64 + 1);
    const { assert!(COUNTED > 1, "small pieces do not wait for the network") };
}

#[test]
fn a_piece_fits_into_what_the_server_takes() {
    let mut lab = Lab::new();
    lab.outputs();
    lab.server.max_body = Some(4_000);
    lab.join();
    let outputs = ask(&mut lab, &wanted(0, 0));
    let Some(Output::ReadOutput(wanted)) = outputs.first() else { panic!("{outputs:?}") };
    assert!((2_000..3_000).contains(&wanted.max), "{}", wanted.max);
    let outputs = read(&mut lab, chunk(0, u64::MAX, true, wanted.max as usize));
    let body =
        outputs.iter().find_map(|o| if let Output::Send { body, .. } = o { Some(body.len()) } else { None });
    assert!(body.is_some_and(|size| size <= 4_000), "{body:?}");
}
