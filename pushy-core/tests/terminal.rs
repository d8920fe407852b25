//! What people see on a terminal, recorded in docs/terminal: at 80 and 200 columns, painted and plain, with 3 and with
//! 3,000 nodes. `PUSHY_RECORD=1` writes the files anew; look at what changed.
#![expect(clippy::disallowed_methods, reason = "tests read files")]

use std::path::Path;

use pushy_core::api::JobView;
use pushy_core::present::{Screen, job_text, progress_line};
use pushy_core::time::Millis;
use pushy_core::watch::{Tally, state_line};
use serde_json::{Map, Value, json};

const ID: &str = "6e0b432e369904e76de6e95bac99c9e6";

/// A node's name and its status at each moment of a recording, and the reason at the end.
struct Node {
    name: String,
    course: [&'static str; MOMENTS.len()],
    reason: Option<(&'static str, String)>,
}

/// The job's status and its age, in milliseconds.
const MOMENTS: [(&str, u64); 5] =
    [("voting", 40), ("running", 1_300), ("running", 9_100), ("running", 64_000), ("complete", 3_725_000)];

fn node(name: String, course: [&'static str; 5], reason: Option<(&'static str, &str)>) -> Node {
    Node { name, course, reason: reason.map(|(code, text)| (code, text.to_owned())) }
}

const GOOD: [&str; 5] = ["new", "ready", "running", "succeeded", "succeeded"];
const SLOW: [&str; 5] = ["new", "ready", "running", "running", "succeeded"];
const FAILS: [&str; 5] = ["new", "running", "failed", "failed", "failed"];
const HANGS: [&str; 5] = ["new", "ready", "running", "running", "timed_out"];
const DIES: [&str; 5] = ["new", "ready", "running", "running", "crashed"];
const ABSENT: [&str; 5] = ["unavailable"; 5];
const REFUSES: [&str; 5] = ["new", "nacked", "nacked", "nacked", "nacked"];

fn few() -> Vec<Node> {
    vec![
        node("web-01.example.com".into(), SLOW, None),
        node("web-02.example.com".into(), GOOD, None),
        node("web-03.example.com".into(), FAILS, Some(("exit", "exit status 3"))),
    ]
}

fn many() -> Vec<Node> {
    let course = |number: u32| match number {
        17 | 350 | 351 | 352 | 1204 | 2890 => (FAILS, Some(("exit", "exit status 100"))),
        1205 => (FAILS, Some(("signal", "killed by signal 9"))),
        1500..=1579 => (HANGS, Some(("timed_out", "run_timeout of 3600 s passed"))),
        2000 | 2002 => (DIES, Some(("died", "lost while running"))),
        2100..=2129 => (ABSENT, Some(("unavailable", "SINCE"))),
        2500..=2540 => (REFUSES, Some(("not_whitelisted", "the command is not on the whitelist"))),
        n if n % 3 == 0 => (SLOW, None),
        _ => (GOOD, None),
    };
    let mut nodes: Vec<Node> = (1..=2995)
        .map(|number| {
            let (course, reason) = course(number);
            let mut node = node(format!("web-{number:04}.example.com"), course, reason);
            if let Some(("unavailable", text)) = &mut node.reason {
                *text = format!("not connected since 2025-03-04T09:{:02}:07Z", number % 60);
            }
            node
        })
        .collect();
    for name in ["bastion", "build-a", "build-b", "mail", "ns"] {
        nodes.push(node(format!("{name}.example.com"), GOOD, None));
    }
    nodes
}

fn document(nodes: &[Node], moment: usize) -> Value {
    let mut by_status: Map<String, Value> = Map::new();
    let mut reasons = Map::new();
    for node in nodes {
        let status = node.course[moment];
        let names = by_status.entry(status).or_insert_with(|| json!([]));
        names.as_array_mut().unwrap().push(json!(node.name));
        if let Some((code, text)) = node.reason.as_ref().filter(|_| moment + 1 == MOMENTS.len()) {
            reasons.insert(node.name.clone(), json!({ "code": code, "text": text }));
        }
    }
    json!({
        "nodes": by_status, "id": ID, "command": "chef-client", "status": MOMENTS[moment].0, "run_timeout": 3600,
        "created_at": "Tue, 04 Mar 2025 10:15:00 GMT", "updated_at": "Tue, 04 Mar 2025 11:17:05 GMT",
        "requester": "alice", "quorum": nodes.len(), "reasons": reasons,
    })
}

/// A whole `job start`; each state of the line that is rewritten in place stands on a line of its own.
fn recording(nodes: &[Node], screen: Screen) -> String {
    let mut text = format!("Started.  Job ID: {ID}\n");
    for (moment, (_, elapsed)) in MOMENTS.iter().enumerate() {
        let job = JobView::from_document(document(nodes, moment)).unwrap();
        if job.status().is_terminal() {
            text.push_str(&format!("{}\n{}", state_line(&job), job_text(job.document(), screen)));
        } else {
            let mut tally = Tally::of_job(&job);
            tally.elapsed = Millis(*elapsed);
            text.push_str(&format!("{}\n", progress_line(&tally, screen)));
        }
    }
    text
}

/// Without what paints.
fn bare(text: &str) -> String {
    let mut bare = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        bare.push_str(before);
        rest = after.split_once('m').expect("a sequence that paints").1;
    }
    bare + rest
}

#[test]
fn recordings_are_as_in_the_manual() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/terminal");
    let record = std::env::var_os("PUSHY_RECORD").is_some();
    for (count, nodes) in [("3", few()), ("3000", many())] {
        assert_eq!(nodes.len().to_string(), count);
        for columns in [80, 200] {
            for colour in [false, true] {
                let screen = Screen { columns: Some(columns), colour };
                let text = recording(&nodes, screen);
                for line in bare(&text).lines() {
                    assert!(line.chars().count() < columns, "{columns}: {line:?}");
                }
                assert!(text.lines().count() < 60, "{count} nodes fit a screen or so");
                let name = format!("{count}-nodes-{columns}{}.txt", if colour { "-colour" } else { "" });
                let file = dir.join(name);
                if record {
                    std::fs::create_dir_all(&dir).unwrap();
                    std::fs::write(&file, &text).unwrap();
                }
                let recorded = std::fs::read_to_string(&file).unwrap_or_default();
                assert!(recorded == text, "{}: is not what is shown now:\n{text}", file.display());
            }
            let plain = recording(&nodes, Screen { columns: Some(columns), colour: false });
            let painted = recording(&nodes, Screen { columns: Some(columns), colour: true });
            assert_eq!(bare(&painted), plain, "paint changes no letter");
        }
    }
}

/// Without a terminal nothing is shortened: every node stands on a line of its own, with its own reason unless it shares
/// it word for word.
#[test]
fn pipes_get_everything() {
    let nodes = many();
    let text = job_text(&document(&nodes, 4), Screen::default());
    let lines: Vec<&str> = text.lines().collect();
    for node in &nodes {
        assert!(
            lines.contains(&format!("    {}", node.name).as_str())
                || text.contains(&format!(" {}", node.name))
        );
    }
    assert_eq!(lines.iter().filter(|line| line.contains("not connected since")).count(), 30);
}

#[test]
fn lines_fit_any_width() {
    let job = JobView::from_document(document(&many(), 3)).unwrap();
    let mut tally = Tally::of_job(&job);
    tally.elapsed = Millis(3_600_000 * 99);
    let mut before = 0;
    for columns in 0..300 {
        let line = progress_line(&tally, Screen { columns: Some(columns), colour: false });
        assert!(line.len() <= columns.saturating_sub(3), "{columns}: {line}");
        assert!(line.len() + 60 > before, "{columns}: {line}");
        before = line.len();
    }
}

#[test]
fn a_success_shows_nothing_more_than_knife() {
    let mut document = document(&few()[..2], 4);
    document["reasons"] = json!({});
    document["counts"] = json!({"succeeded": 2});
    for columns in [None, Some(80)] {
        assert_eq!(
            job_text(&document, Screen { columns, colour: false }),
            "command:     chef-client\ncreated_at:  Tue, 04 Mar 2025 10:15:00 GMT\nid:          6e0b432e369904e76de6e95bac99c9e6\n\
             nodes:\n  succeeded:\n    web-01.example.com\n    web-02.example.com\nrun_timeout: 3600\nstatus:      complete\n\
             updated_at:  Tue, 04 Mar 2025 11:17:05 GMT\n"
        );
    }
}

/// A server of old says nothing of reasons, and documents from anywhere do no harm.
#[test]
fn documents_of_others() {
    let check = |document: Value, want: &str| assert_eq!(job_text(&document, Screen::default()), want);
    check(
        json!({"nodes": {"failed": ["a"]}, "id": "x"}),
        "counts: 1 failed\nid:     x\nnodes:\n  failed: a\n",
    );
    check(json!({"id": "x"}), "id: x\n");
    check(json!([]), "\n");
    check(json!({"nodes": 3, "reasons": [1]}), "nodes: 3\n");
    check(
        json!({"nodes": {"odd": ["a\u{7}"]}, "reasons": {"a\u{7}": {"code": "x\ny", "text": "t\n\u{1b}[2J"}}}),
        "counts:  1 odd\nnodes:\n  odd: a\\u{7}\nreasons: a\\u{7}: t \\u{1b}[2J (x y)\n",
    );
}
