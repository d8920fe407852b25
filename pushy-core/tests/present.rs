//! Output for people and programs, letter for letter (10.3, chef-config 5.5).

use pushy_core::ErrorCode;
use pushy_core::present::{Format, render};
use serde_json::{Value, json};

fn check(format: Format, document: Value, want: &str) {
    assert_eq!(render(&document, format, false), want, "{document}");
}

#[test]
fn summary_of_the_transcript() {
    let document = json!({
        "nodes": {"succeeded": ["web-01.example.com", "web-02.example.com"], "failed": ["web-03.example.com"]},
        "id": "4be1d6f0a9c30123456789abcdef0123", "command": "chef-client", "status": "complete",
        "run_timeout": 3600, "created_at": "Tue, 04 Mar 2025 10:15:00 GMT",
        "updated_at": "Tue, 04 Mar 2025 10:15:07 GMT", "env": {},
    });
    check(
        Format::Summary,
        document.clone(),
        "\
command:     chef-client
created_at:  Tue, 04 Mar 2025 10:15:00 GMT
env:
id:          4be1d6f0a9c30123456789abcdef0123
nodes:
  failed:    web-03.example.com
  succeeded:
    web-01.example.com
    web-02.example.com
run_timeout: 3600
status:      complete
updated_at:  Tue, 04 Mar 2025 10:15:07 GMT
",
    );
    assert_eq!(render(&document, Format::Text, false), render(&document, Format::Summary, false));
}

#[test]
fn summary_of_the_list() {
    let list = json!([
        {"command": "chef-client", "status": "complete", "run_timeout": 3600},
        {"command": "restart nginx", "status": "timed_out", "run_timeout": 60, "capture_output": true,
         "env": {"STAGE": "prod"}, "file_specified": true},
    ]);
    check(
        Format::Summary,
        list,
        "\
command:     chef-client
run_timeout: 3600
status:      complete

capture_output: true
command:        restart nginx
env:
  STAGE: prod
file_specified: true
run_timeout:    60
status:         timed_out
",
    );
    check(Format::Summary, json!([]), "\n");
    check(Format::Summary, json!({}), "\n");
}

#[test]
fn summary_of_odd_shapes() {
    check(
        Format::Summary,
        json!({"b": 1, "a": ["x"], "list": ["x", "y"], "h": {"k": null}}),
        "a:    x\nb:    1\nh:\n  k: \nlist:\n  x\n  y\n",
    );
    check(Format::Summary, json!([["a"], {"b": 1}, "c"]), "a\n\nb: 1\n\nc\n");
    check(Format::Summary, json!({"größe": 1, "x": 1.5}), "größe: 1\nx:     1.5\n");
    check(
        Format::Summary,
        json!({"a": "one\ntwo\n", "h": {"b": "one\ntwo"}}),
        "a: one\ntwo\nh:\n  b: one\n  two\n",
    );
    check(Format::Summary, json!("text"), "text\n");
    check(Format::Summary, json!({"command": "\u{1b}[2J"}), "command: \\u{1b}[2J\n");
}

#[test]
fn colour_paints_keys_only() {
    assert_eq!(
        render(&json!({"a": 1, "long": ["x", "y"]}), Format::Summary, true),
        "\u{1b}[36ma:   \u{1b}[0m 1\n\u{1b}[36mlong:\u{1b}[0m\n  x\n  y\n"
    );
    assert!(!render(&json!({"a": 1}), Format::Json, true).contains('\u{1b}'));
}

#[test]
fn json_keeps_the_order() {
    check(
        Format::Json,
        json!({"b": [1, 2], "a": {}, "c": []}),
        "{\n  \"b\": [\n    1,\n    2\n  ],\n  \"a\": {},\n  \"c\": []\n}\n",
    );
}

/// Expectations are what Ruby 3.1's `to_yaml` prints.
#[test]
fn yaml() {
    check(
        Format::Yaml,
        json!({
            "nodes": {"succeeded": ["web-01", "web-02"], "failed": []},
            "id": "4be1d6f0a9c30123456789abcdef0123", "command": "restart nginx",
            "created_at": "Tue, 04 Mar 2025 10:15:00 GMT", "run_timeout": 60, "capture_output": true,
            "env": {}, "dir": null,
        }),
        "\
---
nodes:
  succeeded:
  - web-01
  - web-02
  failed: []
id: 4be1d6f0a9c30123456789abcdef0123
command: restart nginx
created_at: Tue, 04 Mar 2025 10:15:00 GMT
run_timeout: 60
capture_output: true
env: {}
dir:
",
    );
    check(
        Format::Yaml,
        json!([{"a": 1, "b": [{"c": "x"}]}, ["y", ["z"]]]),
        "---\n- a: 1\n  b:\n  - c: x\n- - \"y\"\n  - - z\n",
    );
    check(Format::Yaml, json!([]), "--- []\n");
    check(Format::Yaml, json!({}), "--- {}\n");
    for (text, want) in [
        ("", "''"),
        ("yes", "'yes'"),
        ("n", "\"n\""),
        ("null", "'null'"),
        ("123", "'123'"),
        ("1_000", "'1_000'"),
        ("0x1f", "'0x1f'"),
        ("12:30", "'12:30'"),
        ("2025-03-04", "'2025-03-04'"),
        ("a: b", "'a: b'"),
        ("a #b", "'a #b'"),
        ("it's", "it's"),
        ("it's: x", "'it''s: x'"),
        ("- x", "\"- x\""),
        ("*", "\"*\""),
        ("/bin/true", "\"/bin/true\""),
        (" x", "\" x\""),
        ("x ", "'x '"),
        ("a:", "'a:'"),
        ("a:b", "a:b"),
        ("größe", "größe"),
        ("tab\there", "\"tab\\there\""),
        ("esc\u{1b}", "\"esc\\e\""),
        ("one\ntwo", "|-\n  one\n  two"),
        ("one\ntwo\n", "|\n  one\n  two"),
        ("say \"x\"", "say \"x\""),
    ] {
        check(Format::Yaml, json!({"k": text}), &format!("---\nk: {want}\n"));
    }
}

#[test]
fn formats_have_full_names_only() {
    for name in Format::NAMES {
        assert!(Format::parse(name).is_ok());
    }
    for bad in ["j", "JSON", "pp", ""] {
        assert_eq!(Format::parse(bad).unwrap_err().code(), ErrorCode::InvalidArgument);
    }
    assert!(Format::Json.is_document() && Format::Yaml.is_document() && !Format::Summary.is_document());
}
