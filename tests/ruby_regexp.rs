//! Ruby's own answers against the whitelist's patterns: `vectors/ruby-regexp.json`, written by `vectors/ruby_regexp.rb`.

use pushy_core::ErrorCode;
use pushy_core::value::{Regexp, Value};
use pushy_core::whitelist::{CommandLine, Key, Matching, Whitelist};
use serde_json::Value as Json;

/// Patterns that Ruby takes and we refuse at start, with a part of what we say.
const REFUSED: &[(&str, &str)] = &[
    (r"[\wé]+", "é in a bracket"),
    ("[[:upper:]]+", "the class upper"),
    ("[[:lower:]]+", "the class lower"),
    (r"\p{Lu}", "the class lu"),
    (r"[\p{Lu}]", "the class lu"),
    ("(a*)*", "can match nothing"),
    ("(a|b*)*c", "can match nothing"),
    ("(x?){2}y", "can match nothing"),
    ("(?~b)", "an absence"),
    (r"(a)(?(1)b|c)", "a condition"),
    (r"\A(?<p>\((?:\g<p>)*\))\z", "calling a group"),
    (r"a\Kb", r"\K"),
    (r"\X", r"\X"),
    ("(?a)b", "the option (a)"),
    ("(?<n>a)|(?<n>b)", "two groups are named n"),
    (r"\xC3\xA9", "write"),
    ("ß", "no single other case"),
    ("[]a]", r"write \]"),
];

fn cases() -> Vec<Json> {
    let file: Json =
        serde_json::from_str(include_str!("vectors/ruby-regexp.json")).expect("the vectors are JSON");
    file["cases"].as_array().expect("a list of cases").clone()
}

fn text<'a>(case: &'a Json, member: &str) -> &'a str {
    case[member].as_str().expect("text")
}

fn build(case: &Json, matching: Matching) -> pushy_core::Result<Whitelist> {
    let regexp = Regexp::new(text(case, "s"), text(case, "o")).expect("known options");
    Whitelist::builder().matching(matching).entry(Key::Pattern(regexp), Value::from(text(case, "v"))).build()
}

/// Compares one way of matching; returns what differs.
fn check(case: &Json, matching: Matching, expected: &Json) -> Option<String> {
    let shown = format!("/{}/{} on {:?}", text(case, "s"), text(case, "o"), text(case, "t"));
    let whitelist = match build(case, matching) {
        Ok(whitelist) => whitelist,
        Err(e) => {
            assert_eq!(e.code(), ErrorCode::InvalidWhitelist);
            let decided = REFUSED.iter().any(|(s, said)| *s == text(case, "s") && e.message().contains(said));
            return (expected["error"] != true && !decided).then(|| format!("{shown}: refused: {e}"));
        }
    };
    let found = whitelist.look_up(text(case, "t")).map(|allowed| match allowed.command {
        CommandLine::Shell(line) => line,
        CommandLine::Args(args) => panic!("{shown}: {args:?}"),
    });
    let found = found.map_or(Json::Null, Json::String);
    (found != *expected).then(|| format!("{shown}: Ruby {expected}, here {found}"))
}

#[test]
fn patterns_mean_what_ruby_means() {
    let cases = cases();
    let mut wrong = Vec::new();
    for case in &cases {
        for (matching, member) in [(Matching::Anywhere, "anywhere"), (Matching::Whole, "whole")] {
            // A command with NUL is never allowed: no process can be started with it.
            if !text(case, "t").contains('\0') {
                wrong.extend(check(case, matching, &case[member]).map(|line| format!("{member}: {line}")));
            }
        }
    }
    println!("ruby-regexp.json: {} cases, each anywhere and whole; {} differ", cases.len(), wrong.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(cases.len() >= 300, "{}", cases.len());
}
