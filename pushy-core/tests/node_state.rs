//! Every (state, event) pair of a node as the server sees it, one line each (section 5, decision 4). The pairs come
//! from the enums: a new value without a line fails. The expectations are written from the specification.

use std::collections::BTreeMap;

use pushy_core::server::node_state::{self, NodeEvent, NodePhase, NodeStep};

/// Phase, event, phase entered, then what follows.
const TABLE: &str = "
absent    first_message      rehab     abort
absent    message            rehab     abort
absent    aborted            absent
absent    rehab_request      absent
absent    rehab_timer        absent
absent    other_incarnation  absent
absent    silent             absent
absent    never_heard        absent
absent    lost               absent
restored  first_message      idle      ack
restored  message            idle      ack
restored  aborted            restored
restored  rehab_request      rehab     abort
restored  rehab_timer        restored
restored  other_incarnation  absent    down
restored  silent             restored  mute
restored  never_heard        absent    down
restored  lost               absent    down
rehab     first_message      rehab     ack abort
rehab     message            rehab
rehab     aborted            idle
rehab     rehab_request      rehab
rehab     rehab_timer        rehab     abort
rehab     other_incarnation  absent    down
rehab     silent             rehab     mute
rehab     never_heard        absent    down
rehab     lost               absent    down
idle      first_message      idle      ack
idle      message            idle
idle      aborted            idle
idle      rehab_request      rehab     abort
idle      rehab_timer        idle
idle      other_incarnation  absent    down
idle      silent             idle      mute
idle      never_heard        absent    down
idle      lost               absent    down
";

fn phase_text(phase: NodePhase) -> &'static str {
    match phase {
        NodePhase::Absent => "absent",
        NodePhase::Restored => "restored",
        NodePhase::Rehab => "rehab",
        NodePhase::Idle => "idle",
    }
}

fn event_text(event: NodeEvent) -> &'static str {
    match event {
        NodeEvent::FirstMessage => "first_message",
        NodeEvent::Message => "message",
        NodeEvent::Aborted => "aborted",
        NodeEvent::RehabRequest => "rehab_request",
        NodeEvent::RehabTimer => "rehab_timer",
        NodeEvent::OtherIncarnation => "other_incarnation",
        NodeEvent::Silent => "silent",
        NodeEvent::NeverHeard => "never_heard",
        NodeEvent::Lost => "lost",
    }
}

fn step_text(step: NodeStep) -> &'static str {
    match step {
        NodeStep::Ack => "ack",
        NodeStep::Abort => "abort",
        NodeStep::Mute => "mute",
        NodeStep::Down => "down",
    }
}

#[test]
fn what_happens_to_a_node() {
    let mut lines = BTreeMap::new();
    for line in TABLE.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let twice = lines.insert((words[0], words[1]), words[2..].join(" "));
        assert_eq!(twice, None, "two lines for {} {}", words[0], words[1]);
    }
    let mut pairs = 0;
    for phase in NodePhase::ALL {
        for event in NodeEvent::ALL {
            let pair = (phase_text(*phase), event_text(*event));
            let expected = lines.remove(&pair).unwrap_or_else(|| panic!("no line for {pair:?}"));
            let rule = node_state::on(*phase, *event);
            let mut actual = phase_text(rule.to).to_owned();
            for step in rule.steps {
                actual.push(' ');
                actual.push_str(step_text(*step));
            }
            assert_eq!(actual, expected, "{pair:?}");
            pairs += 1;
        }
    }
    assert!(lines.is_empty(), "lines for no pair: {lines:?}");
    println!("node: {pairs} pairs");
}
