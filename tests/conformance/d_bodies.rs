//! D. Jobs, body validation and content (2.6, 2.5).

use pushy_core::time::Wall;
use serde_json::{Value, json};

use crate::runner::checklist;
use crate::target::{Expect, Target};

checklist![
    Rest d1_command,
    Rest d2_bad_command,
    Rest d3_unknown_nodes,
    Rest d4_bad_nodes,
    Rest d5_quorum,
    Rest d6_bad_quorum,
    Rest d7_run_timeout,
    Rest d8_bad_run_timeout,
    Rest d9_unknown_key,
    Rest d10_bad_options,
    Rest d11_long_body,
    Rest d12_long_file,
    Rest d13_created,
    Rest d14_finished_job,
    Rest d15_dates,
    Rest d16_options_shown,
    Rest d17_capture_output_shown,
    Rest d18_options_kept_only_when_given,
    Rest d19_what_the_original_does_not_check,
];

const COMMAND: &str = "invalid command supplied";
const NODES: &str = "at least one node must be supplied";
const UNKNOWN: &str = "an unknown validation error has occurred";
const QUORUM: &str = "invalid type supplied for quorum (expected a number)";
const RUN_TIMEOUT: &str = "invalid type supplied for run_timeout (expected a number)";
const CAPTURE: &str = "invalid type supplied for capture_output (expected a boolean)";

/// A good body with one member changed; JSON's text, as some of them could not be built otherwise.
fn with(name: &str, value: &str) -> String {
    let good = [("command", r#""sleep 2""#), ("nodes", r#"["DONKEY"]"#)];
    let mut members: Vec<String> =
        good.iter().filter(|(n, _)| *n != name).map(|(n, v)| format!("\"{n}\":{v}")).collect();
    members.push(format!("\"{name}\":{value}"));
    format!("{{{}}}", members.join(","))
}

/// The same without a member.
fn without(name: &str) -> String {
    if name == "command" { r#"{"nodes":["DONKEY"]}"#.into() } else { r#"{"command":"sleep 2"}"#.into() }
}

/// Each value is refused with this text, whoever asks.
fn refuse(t: &Target, name: &str, values: &[&str], text: &str) {
    for value in values {
        t.post(t.admin(), &with(name, value)).check_invalid(text);
        t.post(&t.invalid, &with(name, value)).check_invalid(text);
    }
}

/// Started; the finished job.
fn finished(t: &Target, body: &str) -> Value {
    let id = t.post(t.admin(), body).job_id();
    t.check_job(&id, "quorum_failed", json!({ "unavailable": ["DONKEY"] }))
}

fn d1_command(t: &Target) {
    for command in ["", "sleep 2"] {
        let job = finished(t, &with("command", &json!(command).to_string()));
        assert_eq!(job["command"], command);
    }
}

fn d2_bad_command(t: &Target) {
    t.post(t.admin(), &without("command")).check_invalid(COMMAND);
    refuse(t, "command", &["[]", "{}", "0", "false", "null"], COMMAND);
}

fn d3_unknown_nodes(t: &Target) {
    let one = t.start_on("sleep 2", &["DONKEY"]);
    t.check_job(&one, "quorum_failed", json!({ "unavailable": ["DONKEY"] }));
    let two = t.start_on("sleep 2", &["DONKEY", "FARQUAD"]);
    t.check_job(&two, "quorum_failed", json!({ "unavailable": ["DONKEY", "FARQUAD"] }));
}

fn d4_bad_nodes(t: &Target) {
    t.post(t.admin(), &without("nodes")).check_invalid(NODES);
    let values = [
        "\"\"",
        "\"DONKEY\"",
        "[]",
        "[\"DONKEY\",false]",
        "[\"DONKEY\",null]",
        "[\"DONKEY\",{}]",
        "{}",
        "0",
        "false",
        "null",
    ];
    refuse(t, "nodes", &values, NODES);
}

fn d5_quorum(t: &Target) {
    finished(t, &with("command", "\"sleep 2\""));
    for quorum in ["1", "999"] {
        let job = finished(t, &with("quorum", quorum));
        assert_eq!(job.get("quorum"), None, "it is not returned (2.4.5)");
    }
}

fn d6_bad_quorum(t: &Target) {
    refuse(t, "quorum", &["\"\"", "\"1\"", "[]", "{}", "false", "null"], QUORUM);
}

fn d7_run_timeout(t: &Target) {
    assert_eq!(finished(t, &with("command", "\"sleep 2\""))["run_timeout"], 3600);
    for seconds in [0, 3600] {
        assert_eq!(finished(t, &with("run_timeout", &seconds.to_string()))["run_timeout"], seconds);
    }
}

fn d8_bad_run_timeout(t: &Target) {
    refuse(t, "run_timeout", &["\"\"", "\"1\"", "[]", "{}", "false", "null"], RUN_TIMEOUT);
}

fn d9_unknown_key(t: &Target) {
    refuse(t, "zzz", &["null", "\"\"", "\"x\"", "1"], "invalid key supplied");
}

fn d10_bad_options(t: &Target) {
    for (name, value, text) in [
        ("user", "1", UNKNOWN),
        ("user", "null", UNKNOWN),
        ("dir", "[]", UNKNOWN),
        ("env", "\"A=B\"", UNKNOWN),
        ("env", r#"{"A":1}"#, UNKNOWN),
        ("env", r#"{"A":"1","A":"2"}"#, "invalid environment value (duplicate key)"),
        ("file", "1", UNKNOWN),
        ("file", "\"no prefix\"", "invalid file contents (expected 'base64:...' or 'raw:...')"),
        ("file", "\"RAW:x\"", "invalid file contents (expected 'base64:...' or 'raw:...')"),
        ("file", "\"base64:bad$base64\"", "invalid file contents (couldn't decode base64 string)"),
        ("capture_output", "1", CAPTURE),
        ("capture_output", "null", CAPTURE),
    ] {
        refuse(t, name, &[value], text);
    }
    // The first wrong member of 2.5's order is told.
    let all = r#"{"zzz":1,"capture_output":1,"env":1,"quorum":"","run_timeout":"","nodes":[],"command":1}"#;
    t.post(t.admin(), all).check_invalid(COMMAND);
    let all =
        r#"{"zzz":1,"capture_output":1,"env":1,"quorum":"","run_timeout":"","nodes":["x"],"command":""}"#;
    t.post(t.admin(), all).check_invalid(RUN_TIMEOUT);
    t.post(t.admin(), "[]").check_invalid(UNKNOWN);
}

const TOO_LONG: &str = "JSON must be no more than 1000000 bytes.";

fn d11_long_body(t: &Target) {
    let body = |length: usize| {
        let frame = with("command", "\"\"").len();
        with("command", &format!("\"{}\"", "x".repeat(length - frame)))
    };
    let check = |answer: crate::call::Answer| answer.check(413, &json!({ "error": TOO_LONG }).to_string());
    check(t.post(t.admin(), &body(1_000_001)));
    check(t.call("POST", "jobs").by(t.admin()).json(&body(1_000_001)).chunked().send());
    // One byte less goes on to the next check, for somebody who may not start jobs.
    t.post(t.normal(), &body(1_000_000)).check_no_access(t.normal());
}

fn d12_long_file(t: &Target) {
    let file = |length: usize| with("file", &format!("\"raw:{}\"", "x".repeat(length)));
    let text = "invalid file size (must be <= 100000 bytes)";
    let answer = t.post(t.admin(), &file(100_001));
    match t.expect {
        Expect::Ours => answer.check_invalid(text),
        // An array of character codes (D-02).
        Expect::Original => answer.check(400, &json!({ "error": text.as_bytes() }).to_string()),
    }
    finished(t, &file(100_000));
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn d13_created(t: &Target) {
    let body = with("command", "\"sleep 2\"");
    let answer = t.call("POST", "jobs").by(t.admin()).json(&body).header("X-Forwarded-Proto", "https").send();
    let id = answer.job_id();
    assert!(is_id(&id), "{id}");
    let uri = answer.header("location").expect("a Location").to_owned();
    assert!(uri.starts_with("https://") && uri.ends_with(&format!("/pushy/jobs/{id}")), "{uri}");
    answer.check(201, &json!({ "uri": uri }).to_string());
}

fn d14_finished_job(t: &Target) {
    let job = finished(t, &with("command", "\"sleep 2\""));
    let expected = json!({
        "nodes": { "unavailable": ["DONKEY"] },
        "id": job["id"],
        "command": "sleep 2",
        "status": "quorum_failed",
        "run_timeout": 3600,
        "created_at": job["created_at"],
        "updated_at": job["updated_at"],
    });
    assert_eq!(job, expected);
    assert!(is_id(job["id"].as_str().expect("an id")), "{job}");
}

fn d15_dates(t: &Target) {
    let began = pushy_tests::http::wall().secs();
    let job = finished(t, &with("command", "\"sleep 2\""));
    let date = |name: &str| {
        let text = job[name].as_str().expect("a date");
        let date = Wall::parse_http_date(text).unwrap_or_else(|| panic!("{text} is no date"));
        assert_eq!(date.rfc1123(), text);
        date.secs()
    };
    let (created, updated) = (date("created_at"), date("updated_at"));
    assert!(updated >= created, "{job}");
    if t.known_site().is_some() {
        assert!((began..began + 10).contains(&created), "{job}");
    }
}

fn d16_options_shown(t: &Target) {
    let options =
        json!({ "user": "deploy", "dir": "/srv/x", "env": { "B": "2", "A": "1" }, "file": "raw:content" });
    let mut body = options.clone();
    body["command"] = json!("sleep 2");
    body["nodes"] = json!(["DONKEY"]);
    let id = t.post(t.admin(), &body.to_string()).job_id();
    let job = t.check_job(&id, "quorum_failed", json!({ "unavailable": ["DONKEY"] }));
    for name in ["user", "dir", "env"] {
        assert_eq!(job[name], options[name], "{name}");
    }
    assert_eq!((job.get("file"), &job["file_specified"]), (None, &json!(true)));
    for (query, shown) in [("true", true), ("false", false), ("1", false), ("", false)] {
        let job = t.get(t.admin(), &format!("jobs/{id}?include_file={query}")).json();
        let (file, specified) = (json!("raw:content"), json!(true));
        let expected = if shown { (Some(&file), None) } else { (None, Some(&specified)) };
        assert_eq!((job.get("file"), job.get("file_specified")), expected, "{query}");
    }
}

/// The job as `GET jobs` shows it.
fn listed(t: &Target, id: &str) -> Value {
    let list = t.get(t.admin(), "jobs?include_file=true").json();
    let found = list.as_array().expect("an array").iter().find(|job| job["id"] == *id);
    found.unwrap_or_else(|| panic!("{id} is not in the list")).clone()
}

fn d17_capture_output_shown(t: &Target) {
    for (value, shown) in [("true", Some(&json!(true))), ("false", None)] {
        let job = finished(t, &with("capture_output", value));
        assert_eq!(job.get("capture_output"), shown);
        let in_list = listed(t, job["id"].as_str().expect("an id"));
        assert_eq!(in_list.get("capture_output"), shown);
        assert_eq!((in_list.get("nodes"), in_list.get("quorum")), (None, None), "{in_list}");
    }
}

/// Exception of decision 18: looked at through our API in place of the original's table.
fn d18_options_kept_only_when_given(t: &Target) {
    let names = ["user", "dir", "env", "file", "file_specified", "capture_output"];
    let id = t.post(t.admin(), &with("capture_output", "false")).job_id();
    let job = t.get(t.admin(), &format!("jobs/{id}?include_file=true")).json();
    assert!(names.iter().all(|name| job.get(name).is_none()), "{job}");
    for (name, value) in
        [("user", "\"\""), ("dir", "\"\""), ("env", "{}"), ("env", r#"{"Ä":"\"\n"}"#), ("file", "\"raw:\"")]
    {
        let id = t.post(t.admin(), &with(name, value)).job_id();
        let job = t.get(t.admin(), &format!("jobs/{id}?include_file=true")).json();
        let expected: Value = serde_json::from_str(value).expect("JSON");
        assert_eq!(job.get(name), Some(&expected), "given, however empty (2.4.5)");
        let others = names.iter().filter(|other| **other != name);
        assert!(others.clone().all(|other| job.get(other).is_none()), "{job}");
    }
}

/// The last table of 2.5: where the original fails or stores nonsense, ours answers what the table of defects calls
/// better.
fn d19_what_the_original_does_not_check(t: &Target) {
    if t.expect == Expect::Original {
        return;
    }
    for body in ["", "{", "{} x", "\u{feff}{}", "{\"command\":\"\\ud800\",\"nodes\":[\"DONKEY\"]}"] {
        t.post(t.admin(), body).check_invalid("invalid JSON supplied");
    }
    // Numbers (D-04).
    for name in ["quorum", "run_timeout"] {
        for value in ["1.5", "-1", "2147483648", "1e99"] {
            let answer = t.post(t.admin(), &with(name, value));
            answer.check_status(400);
            assert!(answer.text().starts_with("{\"error\":\""), "{}", answer.text());
        }
        finished(t, &with(name, "2147483647"));
    }
    // The same node twice is one node (D-03); a long user name is no trouble (D-05).
    let id = t.start_on("x", &["DONKEY", "DONKEY"]);
    t.check_job(&id, "quorum_failed", json!({ "unavailable": ["DONKEY"] }));
    let user = "u".repeat(64);
    assert_eq!(finished(t, &with("user", &format!("\"{user}\"")))["user"], *user);
}
