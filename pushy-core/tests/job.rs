//! `POST pushy/jobs` line by line (2.5), the job's own JSON (2.4.5), the feed's data (8.3).

use std::collections::BTreeMap;

use pushy_core::event::{Event, RunResult, Vote};
use pushy_core::feed::Frame;
use pushy_core::ids::{JobId, NodeName, OrgId};
use pushy_core::job::{Job, JobOptions, JobRequest, JobStatus, MAX_FILE, NodeStatus, file_content};
use pushy_core::time::Wall;

const UNKNOWN: &str = "an unknown validation error has occurred";
const NO_NODES: &str = "at least one node must be supplied";
const NO_JSON: &str = "invalid JSON supplied";
const NODE_NAME: &str = "invalid node name supplied (1 to 255 bytes, no control characters)";
const BAD_PREFIX: &str = "invalid file contents (expected 'base64:...' or 'raw:...')";
const BAD_BASE64: &str = "invalid file contents (couldn't decode base64 string)";
const BAD_SIZE: &str = "invalid file size (must be <= 100000 bytes)";

fn nodes(names: &[&str]) -> Vec<NodeName> {
    names.iter().map(|n| NodeName::new(n).unwrap()).collect()
}

fn check(body: &[u8], expected: &str) {
    match JobRequest::from_json(body) {
        Ok(job) => panic!("{} was accepted: {job:?}", String::from_utf8_lossy(body)),
        Err(error) => {
            assert_eq!(error.text(), expected, "{}", String::from_utf8_lossy(&body[..body.len().min(200)]));
            assert_eq!(error.body(), serde_json::json!({ "error": expected }).to_string());
        }
    }
}

/// A request with command, nodes and these further members.
fn with(members: &str) -> String {
    format!(r#"{{"command":"c","nodes":["n"]{members}}}"#)
}

fn accepted(body: &str) -> JobRequest {
    JobRequest::from_json(body.as_bytes()).unwrap_or_else(|e| panic!("{e}: {body}"))
}

#[test]
fn the_example_of_section_12() {
    let job = accepted(
        r#"{"command":"restart nginx","nodes":["web-01.example.com","web-02.example.com"],"quorum":1,"run_timeout":60,"user":"deploy","dir":"/srv/app","env":{"STAGE":"prod"},"file":"base64:aGVsbG8K","capture_output":true}"#,
    );
    let expected = JobRequest {
        command: "restart nginx".into(),
        nodes: nodes(&["web-01.example.com", "web-02.example.com"]),
        run_timeout: Some(60),
        quorum: Some(1),
        options: JobOptions {
            user: Some("deploy".into()),
            dir: Some("/srv/app".into()),
            env: Some(vec![("STAGE".into(), "prod".into())]),
            file: Some("base64:aGVsbG8K".into()),
            capture: true,
            parameters: None,
        },
    };
    assert_eq!(job, expected);
}

#[test]
fn every_member_with_every_wrong_type() {
    let wrong = ["null", "false", "0", r#""text""#, "[]", "{}", "[1]", r#"["a",null]"#];
    for (member, right, error) in [
        ("command", &[r#""text""#][..], "invalid command supplied"),
        ("nodes", &[], NO_NODES),
        ("run_timeout", &["0"], "invalid type supplied for run_timeout (expected a number)"),
        ("quorum", &["0"], "invalid type supplied for quorum (expected a number)"),
        ("user", &[r#""text""#], UNKNOWN),
        ("dir", &[r#""text""#], UNKNOWN),
        ("env", &["{}"], UNKNOWN),
        ("file", &[], UNKNOWN),
        (
            "parameters",
            &["{}"],
            "invalid type supplied for parameters (expected an object of strings, numbers and booleans)",
        ),
        ("capture_output", &["false"], "invalid type supplied for capture_output (expected a boolean)"),
    ] {
        for value in wrong {
            let rest = match member {
                "command" => r#","nodes":["n"]"#,
                "nodes" => r#","command":"c""#,
                _ => r#","command":"c","nodes":["n"]"#,
            };
            let body = format!(r#"{{"{member}":{value}{rest}}}"#);
            if right.contains(&value) {
                accepted(&body);
            } else if (member, value) == ("file", r#""text""#) {
                check(body.as_bytes(), BAD_PREFIX);
            } else {
                check(body.as_bytes(), error);
            }
        }
    }
    check(with(r#","env":{"A":1}"#).as_bytes(), UNKNOWN);
    check(br#"{"nodes":["n"]}"#, "invalid command supplied");
    check(br#"{"command":"c"}"#, NO_NODES);
}

#[test]
fn bodies_that_are_no_json_object() {
    for body in [
        &b""[..],
        b" ",
        b"{",
        b"nonsense",
        b"\xef\xbb\xbf{}",
        b"{\"command\":\"\xff\"}",
        br#"{"command":"c","nodes":["n"]} x"#,
        br#"{"command":"\ud800","nodes":["n"]}"#,
        br#"{"command":"c","nodes":["\udc00"]}"#,
        br#"{"command":"c","nodes":["n"],"env":{"A":"\ud800"}}"#,
    ] {
        check(body, NO_JSON);
    }
    for body in [&b"[]"[..], b"null", b"\"text\"", b"1", b"  true "] {
        check(body, UNKNOWN);
    }
}

#[test]
fn the_first_failure_decides() {
    let order = [
        (r#""command":1"#, "invalid command supplied"),
        (r#""nodes":[1]"#, NO_NODES),
        (r#""run_timeout":"1""#, "invalid type supplied for run_timeout (expected a number)"),
        (r#""quorum":"1""#, "invalid type supplied for quorum (expected a number)"),
        (r#""user":1"#, UNKNOWN),
        (r#""capture_output":1"#, "invalid type supplied for capture_output (expected a boolean)"),
        (r#""colour":1"#, "invalid key supplied"),
        (r#""nodes":[]"#, NO_NODES),
        (r#""env":{"A":"1","A":"2"}"#, "invalid environment value (duplicate key)"),
        (r#""parameters":{"A":1,"A":2}"#, "invalid parameters (duplicate key)"),
        (r#""file":"text""#, BAD_PREFIX),
        (r#""user":"\u0000""#, "invalid user or dir supplied (U+0000 is not allowed)"),
        (r#""nodes":["a\n"]"#, NODE_NAME),
    ];
    let name = |member: &str| member.split('"').nth(1).unwrap().to_owned();
    for (i, (early, error)) in order.iter().enumerate() {
        for (late, _) in &order[i..] {
            if name(early) == name(late) && early != late {
                continue;
            }
            // The later failure stands first in the text.
            let mut body = String::from("{");
            if early != late {
                body += &format!("{late},");
            }
            body += early;
            for (member, default) in [("command", r#""c""#), ("nodes", r#"["n"]"#)] {
                if name(early) != member && name(late) != member {
                    body += &format!(r#","{member}":{default}"#);
                }
            }
            body += "}";
            check(body.as_bytes(), error);
        }
    }
}

#[test]
fn repeated_members_and_nodes_count_once() {
    let job = accepted(r#"{"command":"first","command":7,"nodes":["b","a","b"],"nodes":[]}"#);
    assert_eq!((job.command.as_str(), job.quorum), ("first", None));
    assert_eq!(job.nodes, nodes(&["b", "a"]));
}

#[test]
fn numbers_are_whole_and_fit() {
    for (text, value) in [("0", 0), ("1", 1), ("-0", 0), ("999", 999), ("2147483647", 2_147_483_647)] {
        let job = accepted(&with(&format!(r#","quorum":{text},"run_timeout":{text}"#)));
        assert_eq!((job.quorum, job.run_timeout), (Some(value), Some(value)));
    }
    for text in ["-1", "1.0", "1e2", "0.5", "2147483648", "4294967296", "1000000000000", "1e400", "-1e-400"] {
        for member in ["quorum", "run_timeout"] {
            let error =
                format!("invalid value supplied for {member} (expected a whole number from 0 to 2147483647)");
            check(with(&format!(r#","{member}":{text}"#)).as_bytes(), &error);
        }
    }
    let job = accepted(&with(""));
    assert_eq!((job.quorum, job.run_timeout, job.options), (None, None, JobOptions::default()));
}

#[test]
fn nul_and_control_characters() {
    check(br#"{"command":"a\u0000","nodes":["n"]}"#, "invalid command supplied");
    for name in ["", "a\\u0000b", "a\\nb", "a\\u007f", &"x".repeat(256)] {
        check(format!(r#"{{"command":"c","nodes":["ok","{name}"]}}"#).as_bytes(), NODE_NAME);
    }
    check(with(r#","dir":"\u0000""#).as_bytes(), "invalid user or dir supplied (U+0000 is not allowed)");
    check(with(r#","file":"raw:a\u0000""#).as_bytes(), "invalid file contents (U+0000 needs 'base64:...')");
    assert_eq!(accepted(&with(r#","env":{"A":"\u0000"}"#)).options.env.unwrap()[0].1, "\0");
    // D-05: any length of user; blanks at the end stay.
    let user = "u".repeat(33) + " ";
    assert_eq!(accepted(&with(&format!(r#","user":"{user}""#))).options.user, Some(user));
    assert_eq!(accepted(r#"{"command":"","nodes":["größe ✓"]}"#).command, "");
}

#[test]
fn files() {
    let file = |text: &str| with(&format!(r#","file":"{text}""#));
    for good in ["raw:", "base64:", "raw:base64:", "base64:aGk=", r"base64: aG\nk = ", "base64:aGl="] {
        accepted(&file(good));
    }
    for (bad, error) in [
        ("", BAD_PREFIX),
        ("RAW:x", BAD_PREFIX),
        (" raw:x", BAD_PREFIX),
        ("base64", BAD_PREFIX),
        ("base64:aGk", BAD_BASE64),
        ("base64:a", BAD_BASE64),
        ("base64:aGk=x", BAD_BASE64),
        ("base64:aG-_", BAD_BASE64),
    ] {
        check(file(bad).as_bytes(), error);
    }
    let base64 = |bytes: usize| format!("base64:{}", "AAAA".repeat(bytes / 3) + &"AA==".repeat(bytes % 3));
    accepted(&file(&format!("raw:{}", "x".repeat(MAX_FILE))));
    check(file(&format!("raw:{}", "x".repeat(MAX_FILE + 1))).as_bytes(), BAD_SIZE);
    assert_eq!(MAX_FILE % 3, 1);
    accepted(&file(&base64(MAX_FILE)));
    check(file(&format!("base64:{}AAA=", "AAAA".repeat(MAX_FILE / 3))).as_bytes(), BAD_SIZE);
    // Bytes count, not characters.
    check(file(&format!("raw:{}", "é".repeat(MAX_FILE / 2 + 1))).as_bytes(), BAD_SIZE);

    assert_eq!(file_content("raw:hi\n").unwrap(), b"hi\n");
    assert_eq!(file_content("base64:aGVsbG8K").unwrap(), b"hello\n");
    assert_eq!((file_content("hi"), file_content("base64:?")), (None, None));
}

fn job() -> Job {
    Job {
        id: JobId::new("4be1d6f0a9c30123456789abcdef0123").unwrap(),
        org: OrgId::new("0123456789abcdef01234be1d6f0a9c3").unwrap(),
        command: "restart nginx".into(),
        status: JobStatus::Complete,
        run_timeout: 60,
        quorum: 1,
        requester: "alice".into(),
        created_at: Wall::from_secs(1_741_083_300),
        updated_at: Wall::from_secs(1_741_083_302),
        deadline: None,
        options: JobOptions {
            user: Some("deploy".into()),
            dir: Some("/srv/app".into()),
            env: Some(vec![("STAGE".into(), "prod".into())]),
            file: Some("base64:aGVsbG8K".into()),
            capture: true,
            parameters: None,
        },
        nodes: vec![
            (NodeName::new("web-02.example.com").unwrap(), NodeStatus::Unavailable),
            (NodeName::new("web-01.example.com").unwrap(), NodeStatus::Succeeded),
            (NodeName::new("web-03.example.com").unwrap(), NodeStatus::Unavailable),
        ],
        reasons: BTreeMap::new(),
    }
}

#[test]
fn a_job_as_rest_shows_it() {
    let head = r#""id":"4be1d6f0a9c30123456789abcdef0123","command":"restart nginx","status":"complete","run_timeout":60,"created_at":"Tue, 04 Mar 2025 10:15:00 GMT","updated_at":"Tue, 04 Mar 2025 10:15:02 GMT""#;
    let options = r#""user":"deploy","dir":"/srv/app","env":{"STAGE":"prod"},"capture_output":true"#;
    let by_status = r#""nodes":{"succeeded":["web-01.example.com"],"unavailable":["web-02.example.com","web-03.example.com"]}"#;
    assert_eq!(job().to_json(false), format!(r#"{{{by_status},{head},{options},"file_specified":true}}"#));
    assert_eq!(job().to_json(true), format!(r#"{{{by_status},{head},{options},"file":"base64:aGVsbG8K"}}"#));
    assert_eq!(job().to_list_json(), format!(r#"{{{head},{options},"file_specified":true}}"#));
    let bare =
        Job { options: JobOptions { env: Some(vec![]), ..Default::default() }, nodes: vec![], ..job() };
    assert_eq!(bare.to_json(true), format!(r#"{{"nodes":{{}},{head},"env":{{}}}}"#));
}

#[test]
fn feed_entries() {
    let node = || NodeName::new("web-01.example.com").unwrap();
    let check = |event: Event, rest: &str| {
        let at = Wall(1_741_083_300_104_233);
        let time = r#""timestamp":"2025-03-04 10:15:00.104233Z""#;
        assert_eq!(event.data(at, Some(&job()), None), format!("{{{time}{rest}}}"));
        let frame = Frame::of_job(&event, 7, at, Some(&job()));
        let name = event.name();
        assert_eq!(
            std::str::from_utf8(frame.as_bytes()),
            Ok(&*format!("event: {name}\nid: job-7\ndata: {{{time}{rest}}}\n\n"))
        );
        let id = r#","job":"4be1d6f0a9c30123456789abcdef0123""#;
        assert_eq!(frame.of_organization(1, &job().id, at).data(), format!("{{{time}{id}{rest}}}"));
    };
    check(
        Event::Start,
        r#","command":"restart nginx","run_timeout":60,"quorum":1,"node_count":3,"user":"alice","job_user":"deploy","dir":"/srv/app","env":{"STAGE":"prod"},"file_specified":true,"capture":true"#,
    );
    let vote = Event::QuorumVote { node: node(), vote: Vote::LostAvailability };
    check(vote, r#","node":"web-01.example.com","status":"lost_availibility""#);
    check(Event::QuorumSucceeded, "");
    check(Event::RunStart { node: node() }, r#","node":"web-01.example.com""#);
    check(Event::Rehab { node: node() }, r#","node":"web-01.example.com""#);
    let run = Event::RunComplete { node: node(), result: RunResult::Success };
    check(run, r#","node":"web-01.example.com","status":"success""#);
    check(Event::JobComplete { status: JobStatus::Complete }, r#","status":"complete""#);
}

/// Texts, numbers as they are written, and truth values; shown with `detail=1` alone.
#[test]
fn parameters() {
    const TYPE: &str =
        "invalid type supplied for parameters (expected an object of strings, numbers and booleans)";
    const NAME: &str = "invalid parameter name (1 to 64 of A-Z, a-z, 0-9, _ and -, not first a -)";
    let given = |parameters: &str| with(&format!(r#","parameters":{parameters}"#));
    let parsed = |parameters: &str| {
        let body = given(parameters);
        JobRequest::from_json(body.as_bytes()).unwrap_or_else(|e| panic!("{body}: {e}")).options.parameters
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(parsed("{}"), None);
    assert_eq!(
        parsed(r#"{"b":"\u00e4 x","a-1":-1.50,"_":true,"C":false,"n":1e3}"#),
        Some(vec![
            pair("b", "ä x"),
            pair("a-1", "-1.50"),
            pair("_", "true"),
            pair("C", "false"),
            pair("n", "1e3")
        ])
    );
    let long = "v".repeat(4096);
    assert_eq!(parsed(&format!(r#"{{"a":"{long}"}}"#)), Some(vec![pair("a", &long)]));
    let many = |count: usize| {
        let members: Vec<String> = (0..count).map(|n| format!(r#""p{n}":{n}"#)).collect();
        format!("{{{}}}", members.join(","))
    };
    assert_eq!(parsed(&many(64)).map(|parameters| parameters.len()), Some(64));
    for (parameters, error) in [
        (r#"{"a":null}"#, TYPE),
        (r#"{"a":[]}"#, TYPE),
        (r#"{"a":{}}"#, TYPE),
        (r#"{"a":"\ud800"}"#, NO_JSON),
        (r#"{"":1}"#, NAME),
        (r#"{"-a":1}"#, NAME),
        (r#"{"a b":1}"#, NAME),
        (r#"{"ä":1}"#, NAME),
        (&format!(r#"{{"{}":1}}"#, "n".repeat(65)), NAME),
        (r#"{"a":1,"a":1}"#, "invalid parameters (duplicate key)"),
        (&many(65), "invalid parameters (must be <= 64)"),
        (&format!(r#"{{"a":"{long}v"}}"#), "invalid parameter value (must be <= 4096 bytes)"),
        (r#"{"a":"\u0000"}"#, "invalid parameter value (U+0000 is not allowed)"),
    ] {
        check(given(parameters).as_bytes(), error);
    }
    let mut job = job();
    job.options.parameters = Some(vec![pair("version", "1.2"), pair("a", "\"")]);
    assert!(!job.to_json(true).contains("parameters"), "the original's answer stays as it is");
    assert!(!job.to_list_json().contains("parameters"));
    assert!(job.to_detail_json(false).contains(r#""parameters":{"version":"1.2","a":"\""}"#));
    assert!(!format!("{:?}", job.options).contains("1.2"), "values are nothing for a log");
}
