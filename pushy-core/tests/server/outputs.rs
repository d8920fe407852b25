//! Extension `output` on the server: questions go to nodes that take them, pieces to whoever asked (decision 37).

use pushy_core::ids::JobId;
use pushy_core::job::{JobOptions, NodeStatus};
use pushy_core::message::{Caps, JobState, NodeMessage, ServerMessage};
use pushy_core::output::{Chunk, OutputChannel, Wanted};
use pushy_core::server::{Input, Output, OutputRead, RequestId};

use crate::lab::{Lab, node_ref};

fn job() -> JobId {
    JobId::new("4be1d6f0a9c30123456789abcdef0123").unwrap()
}

fn wanted(offset: u64) -> Wanted {
    Wanted { job: job(), channel: OutputChannel::Stdout, offset, max: 100, wait: 1_000 }
}

fn chunk(offset: u64, data: &[u8]) -> Chunk {
    let total = offset + data.len() as u64;
    let channel = OutputChannel::Stdout;
    Chunk { job: job(), channel, offset, total, done: true, lost: 0, missing: false, data: data.to_vec() }
}

/// A node that says which extensions it takes.
fn up(lab: &mut Lab, name: &str, caps: Option<Caps>) {
    lab.bring_up(name);
    lab.node(name).caps = caps;
    lab.beat(name, JobState::Idle, None);
    lab.clear();
}

fn ask(lab: &mut Lab, name: &str, offset: u64) -> RequestId {
    let request = lab.next_request();
    lab.handle(Input::ReadOutput { request, node: node_ref(name), wanted: wanted(offset) });
    request
}

fn answers(lab: &mut Lab) -> Vec<(RequestId, OutputRead)> {
    let answer = |output: &Output| match output {
        Output::OutputRead { request, read } => Some((*request, read.clone())),
        _ => None,
    };
    let answers = lab.outputs.iter().filter_map(answer).collect();
    lab.clear();
    answers
}

fn say(lab: &mut Lab, name: &str, chunk: Chunk) {
    lab.say(name, NodeMessage::OutputChunk(Box::new(chunk)));
}

#[test]
fn only_a_node_that_takes_the_question_hears_it() {
    let check = |caps: Option<Caps>, expected: Option<OutputRead>| {
        let mut lab = Lab::new();
        up(&mut lab, "a", caps);
        let request = ask(&mut lab, "a", 0);
        let sent = lab.sent("a");
        let answered = answers(&mut lab);
        match expected {
            None => assert_eq!((sent, answered), (vec![ServerMessage::OutputRequest(wanted(0))], vec![])),
            Some(read) => assert_eq!((sent, answered), (vec![], vec![(request, read)]), "{caps:?}"),
        }
    };
    check(Some(Caps::OF_NODE), None);
    check(Some(Caps::OUTPUT), None);
    check(Some(Caps::OF_NODE.without(Caps::OUTPUT)), Some(OutputRead::Unable));
    check(Some(Caps::NONE), Some(OutputRead::Unable));
    check(None, Some(OutputRead::Unable));
}

#[test]
fn pieces_find_their_questions_in_any_order() {
    let mut lab = Lab::new();
    up(&mut lab, "a", Some(Caps::OF_NODE));
    up(&mut lab, "b", Some(Caps::OF_NODE));
    let (first, second) = (ask(&mut lab, "a", 0), ask(&mut lab, "a", 3));
    let again = ask(&mut lab, "a", 0);
    let other = ask(&mut lab, "b", 0);
    lab.clear();
    say(&mut lab, "a", chunk(3, b"def"));
    say(&mut lab, "a", chunk(0, b"abc"));
    say(&mut lab, "b", chunk(9, b"nobody asked"));
    let read = |offset, data: &[u8]| OutputRead::Chunk(chunk(offset, data));
    assert_eq!(answers(&mut lab), [(second, read(3, b"def")), (first, read(0, b"abc"))]);
    say(&mut lab, "a", chunk(0, b"abc"));
    say(&mut lab, "a", chunk(0, b"abc"));
    assert_eq!(answers(&mut lab), [(again, read(0, b"abc"))], "one answer each");
    say(&mut lab, "b", chunk(0, &[b'x'; 101]));
    assert_eq!(answers(&mut lab), [(other, OutputRead::Silent)], "more than was asked for");
}

#[test]
fn every_question_has_an_answer() {
    let mut lab = Lab::new();
    let request = ask(&mut lab, "a", 0);
    assert_eq!(answers(&mut lab), [(request, OutputRead::Away)], "unknown");
    up(&mut lab, "a", Some(Caps::OF_NODE));
    let request = ask(&mut lab, "a", 0);
    lab.clear();
    for _ in 0..3 {
        lab.pass(7_000);
        lab.beat("a", JobState::Idle, None);
    }
    assert_eq!(answers(&mut lab), [(request, OutputRead::Silent)]);
    say(&mut lab, "a", chunk(0, b"late"));
    assert_eq!(answers(&mut lab), []);
    let request = ask(&mut lab, "a", 0);
    lab.clear();
    lab.disconnect("a");
    assert_eq!(answers(&mut lab), [(request, OutputRead::Away)]);
    let request = ask(&mut lab, "a", 0);
    assert_eq!(answers(&mut lab), [(request, OutputRead::Away)]);
    // Until it has spoken on its new connection, nobody knows what it is.
    assert!(lab.connect("a"));
    lab.clear();
    let request = ask(&mut lab, "a", 0);
    assert_eq!(answers(&mut lab), [(request, OutputRead::Unable)]);
    assert_eq!(lab.server.output_view(&node_ref("a"), &job()).able, None);
    lab.beat("a", JobState::Idle, None);
    assert_eq!(lab.server.output_view(&node_ref("a"), &job()).able, Some(true));
    lab.clear();
    let requests: Vec<RequestId> = (0..129).map(|n| ask(&mut lab, "a", n)).collect();
    assert_eq!(answers(&mut lab), [(requests[128], OutputRead::Busy)]);
    lab.pass(30_000);
    assert_eq!(lab.outputs.iter().filter(|o| matches!(o, Output::OutputRead { .. })).count(), 128);
}

#[test]
fn what_can_be_known_of_a_nodes_output() {
    let mut lab = Lab::new();
    up(&mut lab, "a", Some(Caps::OF_NODE));
    up(&mut lab, "b", None);
    let options = JobOptions { capture: true, ..JobOptions::default() };
    let request = lab.request(&["a", "b"]);
    let id = lab.start_job(pushy_core::job::JobRequest { options, ..request });
    let view = |lab: &Lab, name: &str| {
        let view = lab.server.output_view(&node_ref(name), &id);
        (view.able, view.connected, view.capture, view.status)
    };
    assert_eq!(view(&lab, "a"), (Some(true), true, Some(true), Some(NodeStatus::New)));
    assert_eq!(view(&lab, "b"), (Some(false), true, Some(true), Some(NodeStatus::New)));
    assert_eq!(view(&lab, "c"), (None, false, None, None));
}
