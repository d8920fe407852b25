//! The whitelist beside its vectors: what is refused at start, quoting, argument vectors, notices, odd input.

use proptest::prelude::*;
use pushy_core::ErrorCode;
use pushy_core::value::{Regexp, Value};
use pushy_core::whitelist::{CommandLine, Key, Lock, Matching, Verdict, Whitelist};
use serde_json::json;

fn pattern(source: &str) -> Key {
    Key::Pattern(Regexp { source: source.into(), ignore_case: false, multi_line: false, extended: false })
}

fn value(json: serde_json::Value) -> Value {
    Value::from(&json)
}

fn one(key: Key, json: serde_json::Value) -> pushy_core::Result<Whitelist> {
    Whitelist::builder().entry(key, value(json)).build()
}

#[test]
fn the_default_is_chef_client() {
    let whitelist = Whitelist::default();
    let allowed = whitelist.look_up("chef-client").expect("listed");
    assert_eq!(allowed.command, CommandLine::Shell("chef-client".into()));
    assert_eq!((allowed.lock, allowed.user, whitelist.len()), (None, None, 1));
    assert_eq!(whitelist.look_up("chef-client -z"), None);
}

#[test]
fn entries_that_cannot_be_used_are_named() {
    let exact = || Key::Exact("x".into());
    for (key, json, said) in [
        (exact(), json!({"lock": true}), "\"x\": the hash has no command_line"),
        (exact(), json!(true), "\"x\": the value is true; it must be a string"),
        (exact(), json!(1), "a number"),
        (exact(), json!(["a"]), "belongs in a hash: { command_line: ['prog', 'argument'] }"),
        (exact(), json!({"command_line": []}), "an empty array"),
        (exact(), json!({"command_line": [""]}), "the program, is empty"),
        (exact(), json!({"command_line": ["a", 1]}), "all must be strings"),
        (exact(), json!({"command_line": 1}), "command_line is a number"),
        (exact(), json!({"command_line": "a", "lock": 1}), "lock is a number; it must be true or a path"),
        (exact(), json!({"command_line": "a", "quote": 1}), "quote is a number"),
        (exact(), json!({"command_line": "a", "user": 1}), "user is a number"),
        (exact(), json!({"command_line": "a", "dir": ""}), "dir is a string; it must be a non-empty string"),
        (exact(), json!({"command_line": "a", "env": {"A=B": "c"}}), "env must map names"),
        (exact(), json!({"command_line": "a", "env": []}), "env is an array"),
        (exact(), json!("a\u{0}b"), "NUL"),
        (pattern("("), json!("a"), "whitelist entry /(/: the pattern cannot be used: a group is not closed"),
        (pattern(r"\g<1>"), json!("a"), "calling a group"),
        (pattern("(a)"), json!(r"\k<b>"), "names a group b"),
        (pattern(r"(\w{1000}){1000}"), json!("a"), "the pattern cannot be used"),
        (pattern(&"(".repeat(10_000)), json!("a"), "nest deeper"),
        (pattern(&"[".repeat(10_000)), json!("a"), "nest deeper"),
        (
            pattern("(.*)"),
            json!({"command_line": "echo \"\\1\"", "quote": true}),
            "a group stands inside quotes",
        ),
        (pattern("(.*)"), json!({"command_line": "echo `\\1`", "quote": true}), "back quotes"),
        (pattern("(.*)"), json!({"command_line": "true # \\1", "quote": true}), "in a comment"),
        (pattern("(.*)"), json!({"command_line": "cat <<E\n\\1\nE", "quote": true}), "here-document"),
        (pattern("(.*)"), json!({"command_line": "echo $((\\1))", "quote": true}), "arithmetic"),
        (pattern("(.*)"), json!({"command_line": "echo \\\\\\\\\\1", "quote": true}), ""),
    ] {
        match one(key, json.clone()) {
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::InvalidWhitelist);
                assert!(error.message().starts_with("whitelist entry "), "{error}");
                assert!(error.message().contains(said) && !said.is_empty(), "{json}: {error}");
                assert!(error.message().len() < 400 && !error.message().contains('\n'), "{error}");
            }
            Ok(_) => assert!(said.is_empty(), "{json} is accepted"),
        }
    }
    for (json, said) in [
        (json!("x"), "whitelist is a string"),
        (json!([1]), "whitelist entry 1: is a number"),
        (json!([{"command_line": "x"}]), "whitelist entry 1: needs either command or pattern"),
        (json!([{"pattern": "x", "options": "q", "command_line": "x"}]), "letters out of imx"),
    ] {
        let error = Whitelist::from_value(&value(json), Matching::Whole).expect_err(said);
        assert!(error.message().contains(said), "{error}");
    }
}

#[test]
fn quoted_groups_stay_one_word() {
    let entry = json!({"command_line": "printf %s \\1 x\\2", "quote": true});
    let whitelist = one(pattern(r"say (.*?)(?:/(.*))?"), entry).expect("usable");
    for (command, line) in [
        ("say a", "printf %s 'a' x"),
        ("say a b;$(id)`id`\"&|", "printf %s 'a b;$(id)`id`\"&|' x"),
        ("say it's/", r"printf %s 'it'\''s' x''"),
        ("say ", "printf %s '' x"),
    ] {
        let allowed = whitelist.look_up(command).unwrap_or_else(|| panic!("{command}"));
        assert_eq!(allowed.command, CommandLine::Shell(line.into()), "{command}");
    }
}

#[test]
fn hash_values_enforce() {
    let entry = json!({"command_line": ["run", "--", "\\1"], "lock": "/run/l", "user": "u", "dir": "/d", "env": {"A": "s"}});
    for matching in [Matching::Whole, Matching::Anywhere] {
        let mut pairs = value(entry.clone());
        if let Value::Hash(pairs) = &mut pairs {
            pairs[0].0 = Value::Symbol("command_line".into());
        }
        let whitelist = Whitelist::builder()
            .matching(matching)
            .entry(pattern(r"\Arun (.*)\z"), pairs)
            .build()
            .expect("usable");
        let allowed = whitelist.look_up("run a b").expect("listed");
        assert_eq!(allowed.command, CommandLine::Args(vec!["run".into(), "--".into(), "a b".into()]));
        assert_eq!(allowed.lock, Some(Lock::Path("/run/l".into())));
        assert_eq!((allowed.user.as_deref(), allowed.dir.as_deref()), (Some("u"), Some("/d")));
        assert_eq!(allowed.env, [("A".to_owned(), "s".to_owned())]);
        assert!(!format!("{allowed:?}").contains("\"s\""), "values of variables are not shown");
        assert!(whitelist.notices().is_empty(), "{:?}", whitelist.notices());
    }
}

#[test]
fn nil_forbids_what_a_later_pattern_would_allow() {
    let whitelist = Whitelist::builder()
        .entry(Key::Exact("reboot".into()), Value::Nil)
        .entry(pattern("rm .*"), Value::Bool(false))
        .entry(pattern("(.*)"), Value::from("do \\1"))
        .build()
        .expect("usable");
    for (command, listed) in [("reboot", false), ("rm x", false), ("ls", true), ("l\0s", false)] {
        assert_eq!(whitelist.look_up(command).is_some(), listed, "{command:?}");
    }
}

#[test]
fn a_runaway_pattern_refuses_and_says_so() {
    // Looking ahead keeps it from the engine that takes linear time.
    let whitelist = Whitelist::builder()
        .entry(pattern(r"^(?:(?!x)a|aa)+$"), Value::from("x"))
        .entry(pattern("a+!"), Value::from("y"))
        .build()
        .expect("usable");
    let command = format!("{}!", "a".repeat(60));
    assert_eq!(whitelist.decide(&command, &[]), Verdict::GaveUp { entry: r"/^(?:(?!x)a|aa)+$/".into() });
    assert_eq!(whitelist.look_up(&command), None);
}

#[test]
fn notices_name_what_an_operator_should_know() {
    for (matching, json, said) in [
        (
            Matching::Whole,
            json!([{"pattern": "^a (.+)$", "command_line": "b \\1"}]),
            vec!["/^a (.+)$/: a caller may put shell characters into \\1;"],
        ),
        (Matching::Whole, json!([{"pattern": "^a (.+)$", "command_line": "b \\1", "quote": true}]), vec![]),
        (Matching::Whole, json!([{"pattern": "^a (.+)$", "command_line": "b"}]), vec![]),
        (Matching::Whole, json!([{"pattern": "^a ([\\w.-]+)$", "command_line": "b \\1"}]), vec![]),
        (Matching::Whole, json!([{"pattern": "^a ([^;]+)$", "command_line": "b \\0"}]), vec!["into \\0;"]),
        (
            Matching::Whole,
            json!([{"pattern": "chef-client", "command_line": "b"}]),
            vec!["must match the whole command"],
        ),
        (Matching::Anywhere, json!([["x", "y"]]), vec![]),
        (
            Matching::Whole,
            json!([{"command": "x", "command_line": "y", "timeout": 3}]),
            vec!["timeout has no meaning"],
        ),
        (Matching::Whole, json!([[1, "x"]]), vec!["never matches"]),
    ] {
        let whitelist =
            Whitelist::from_value(&value(json.clone()), matching).unwrap_or_else(|e| panic!("{json}: {e}"));
        let notices: Vec<String> = whitelist.notices().iter().map(ToString::to_string).collect();
        assert_eq!(notices.len(), said.len(), "{json}: {notices:?}");
        for (notice, said) in notices.iter().zip(said) {
            assert!(notice.contains(said), "{json}: {notice}");
        }
    }
    let anywhere =
        Whitelist::builder().matching(Matching::Anywhere).entry(pattern("^a$"), "b").build().expect("usable");
    assert!(anywhere.notices()[0].to_string().contains("text around the match"), "{:?}", anywhere.notices());
}

/// Pieces that make likely patterns.
fn source() -> impl Strategy<Value = String> {
    let pieces = [
        "a",
        "b",
        "é",
        "ß",
        ".",
        "*",
        "+",
        "?",
        "{1,2}",
        "{,3}",
        "{",
        "}",
        "(",
        ")",
        "(?:",
        "(?i)",
        "(?<n>",
        "(?=",
        "(?<!",
        "(?#",
        "[",
        "]",
        "[^",
        "-",
        "&&",
        "[:alpha:]",
        "\\",
        "\\w",
        "\\1",
        "\\k<n>",
        "\\p{L}",
        "\\u{41}",
        "\\x",
        "|",
        "^",
        "$",
        "\\A",
        "\\z",
        "\\R",
        "#",
        " ",
        "\n",
        "(?x)",
        "\\b",
        "\\c",
        "\\0",
        "<",
        ">",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn nothing_makes_it_panic(source in source(), options in "[imx]{0,3}", line in source(), command in "\\PC{0,12}|[ab\n]{0,8}") {
        for matching in [Matching::Whole, Matching::Anywhere] {
            let key = Key::Pattern(Regexp::new(source.clone(), &options).expect("known options"));
            if let Ok(whitelist) = Whitelist::builder().matching(matching).entry(key, line.as_str()).build() {
                let _ = whitelist.decide(&command, &[]);
            }
        }
    }
}
