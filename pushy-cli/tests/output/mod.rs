//! `pushy job output`: stored and streamed.

use super::ID;
use super::lab::{Lab, Ran};

#[test]
fn output_is_printed_as_it_is() {
    // A server that keeps output at the end of a job only.
    let lab = Lab::new(|request| match request.line.rsplit_once("/output/").map_or("", |(_, rest)| rest) {
        "a/stdout" => (200, "no line end".to_owned()),
        "b/stdout" => (200, "two\nlines\n".to_owned()),
        "a/stderr" => (200, "oops\n".to_owned()),
        _ => (404, "<html>".to_owned()),
    });
    let out = |args: &[&str]| lab.run(&[&["job", "output", ID], args].concat());
    assert_eq!(out(&["a"]), Ran { out: "no line end".to_owned(), err: String::new(), code: Some(0) });
    assert_eq!(out(&["a", "--channel", "stderr"]).out, "oops\n");
    assert_eq!(out(&["a", "b"]).out, "==> a <==\nno line end\n==> b <==\ntwo\nlines\n");
    let run = out(&["c", "b"]);
    assert_eq!((run.out.as_str(), run.code), ("==> b <==\ntwo\nlines\n", Some(100)));
    assert!(run.err.starts_with("ERROR: c: no stdout is kept of this job"), "{}", run.err);
    let document: serde_json::Value = serde_json::from_str(&out(&["a", "-F", "json"]).out).unwrap();
    assert_eq!(document[0]["output"], "no line end");
}

#[test]
fn output_of_nodes_is_streamed() {
    use pushy_core::output::{Kind, Source, Word, record};
    let streams = |rest: &str| {
        let mut body = Word::From(Source::Spool).record();
        match rest {
            "a/both?follow=1" => {
                body.extend(record(Kind::Stdout, b"one\ntw"));
                body.extend(record(Kind::KeepAlive, b""));
                body.extend(record(Kind::Stderr, b"oops\n"));
                body.extend(record(Kind::Stdout, b"o"));
            }
            "web-2/both?follow=1" => body.extend(record(Kind::Stdout, b"\x1b[1mbold\n")),
            "a/stdout" => body.extend(record(Kind::Stdout, b"one\ntwo")),
            "a/both" => {
                body.extend(record(Kind::Stdout, b"o"));
                body.extend(record(Kind::Stderr, b"e"));
            }
            _ => return None,
        }
        body.extend(Word::End { done: true, lost: if rest == "a/stdout" { 7 } else { 0 } }.record());
        Some(String::from_utf8(body).unwrap())
    };
    let lab = Lab::new(move |request| {
        let rest = request.line.rsplit_once("/stream/").map_or("", |(_, rest)| rest);
        if let Some(body) = streams(rest) {
            return (200, body);
        }
        let job = format!(
            r#"{{"id":"{ID}","status":"running","nodes":{{"running":["web-2","a"],"nacked":["c"]}}}}"#
        );
        if request.line.contains(&format!("/jobs/{ID}")) && rest.is_empty() {
            (200, job)
        } else {
            (404, String::new())
        }
    });
    let out = |args: &[&str]| lab.run(&[&["job", "output", ID], args].concat());
    let run = out(&["a"]);
    assert_eq!((run.out.as_str(), run.code), ("one\ntwo", Some(0)));
    assert_eq!(run.err, "WARNING: a: 7 bytes more were printed and could not be kept\n");
    let run = out(&["a", "--channel", "both"]);
    assert_eq!((run.out.as_str(), run.err.as_str()), ("o", "e"));
    let run = out(&["a", "--channel", "both", "--follow"]);
    assert_eq!((run.out.as_str(), run.err.as_str()), ("one\ntwo", "oops\n"));
    let run = out(&["--all-nodes", "--channel", "both", "--follow"]);
    let mut lines: Vec<&str> = run.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a     | one", "a     | two", "web-2 | \x1b[1mbold"]);
    assert_eq!((run.err.as_str(), run.code), ("a     | oops\n", Some(0)));
    let document = out(&["a", "--channel", "both", "-F", "json"]).out;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let expected = serde_json::json!([{"node_name": "a", "channel": "both", "stdout": "o", "stderr": "e"}]);
    assert_eq!(document, expected);
}
