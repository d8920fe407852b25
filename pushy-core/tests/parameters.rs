//! Typed parameters: what an entry may declare, what a job may give, and what runs then.

#![cfg(feature = "ruby-config")]

use pushy_core::ruby_config;
use pushy_core::whitelist::{CommandLine, Matching, NoticeKind, Verdict, Whitelist};

/// The whitelist of a file's text.
fn read(source: &str, matching: Matching) -> Result<Whitelist, String> {
    let settings = ruby_config::read("/etc/w.rb", source.as_bytes(), &|_| None).map_err(|e| e.to_string())?;
    let value = settings.get("whitelist").expect("the file has a whitelist");
    Whitelist::from_value(value, matching).map_err(|error| error.to_string())
}

/// A whitelist of one entry with these parameters and this vector.
fn entry(parameters: &str, line: &str) -> Result<Whitelist, String> {
    read(
        &format!("whitelist({{ 'deploy' => {{ command_line: {line}, parameters: {parameters} }} }})"),
        Matching::Whole,
    )
}

fn given(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const DEPLOY: &str = "{ 'version' => { type: 'string', pattern: /\\A[\\d.]+\\z/ },
  'count' => { type: 'integer', min: 1, max: 9, default: 1 }, 'stage' => { choices: ['test', 'live'], default: 'test' },
  'force' => { type: 'boolean', default: false } }";
const LINE: &str = "['deploy', '--version', '{version}', '--n={count}', '{stage}/{{x}}', '{force}']";

#[test]
fn values_take_the_places_of_their_names() {
    let whitelist = entry(DEPLOY, LINE).expect("usable");
    let check = |pairs: &[(&str, &str)], expected: &[&str]| {
        let Verdict::Allowed(allowed) = whitelist.decide("deploy", &given(pairs)) else {
            panic!("{pairs:?}: {:?}", whitelist.decide("deploy", &given(pairs)));
        };
        let expected: Vec<String> = expected.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(allowed.command, CommandLine::Args(expected), "{pairs:?}");
    };
    check(&[("version", "1.2")], &["deploy", "--version", "1.2", "--n=1", "test/{x}", "false"]);
    check(
        &[("force", "true"), ("stage", "live"), ("count", "9"), ("version", "3")],
        &["deploy", "--version", "3", "--n=9", "live/{x}", "true"],
    );
    // No value is ever read as anything but itself.
    let free = entry("{ 'a' => {}, b: {} }", "['p', '{a}{b}', 'x{a}']").expect("usable");
    let Verdict::Allowed(allowed) = free.decide("deploy", &given(&[("a", "{b}\\0 $(id);'\""), ("b", "\n")]))
    else {
        panic!("refused");
    };
    let expected = ["p", "{b}\\0 $(id);'\"\n", "x{b}\\0 $(id);'\""].map(str::to_owned).to_vec();
    assert_eq!(allowed.command, CommandLine::Args(expected));
}

#[test]
fn what_breaks_a_rule_is_refused_and_the_rule_named() {
    let whitelist = entry(DEPLOY, LINE).expect("usable");
    let check = |pairs: &[(&str, &str)], expected: &str| {
        let verdict = whitelist.decide("deploy", &given(pairs));
        let Verdict::BadParameters { entry, why } = verdict else { panic!("{pairs:?}: {verdict:?}") };
        assert_eq!((entry.as_str(), why.as_str()), ("\"deploy\"", expected), "{pairs:?}");
    };
    let version = "text that matches /\\A[\\d.]+\\z/";
    let ok = ("version", "1");
    check(&[], &format!("parameter version is missing; it must be {version}"));
    for secret in ["", "1;", "1\n", "1.2x", "\u{661}x"] {
        check(&[("version", secret)], &format!("parameter version must be {version}"));
    }
    let range = "parameter count must be a whole number from 1 to 9";
    for value in ["0", "10", "01", "+1", "1.0", " 1", "", "one", "99999999999999999999"] {
        check(&[ok, ("count", value)], range);
    }
    check(&[ok, ("stage", "prod")], "parameter stage must be one of test, live");
    for value in ["yes", "True", "1", ""] {
        check(&[ok, ("force", value)], "parameter force must be true or false");
    }
    check(&[ok, ("more", "x")], "there is no parameter more; the command takes version, count, stage, force");
    check(
        &[ok, ("a b", "x")],
        "there is no parameter of this name; the command takes version, count, stage, force",
    );
    check(&[ok, ok], "parameter version is given twice");
    check(&[("version", &"1".repeat(4097))], "parameter version must be at most 4096 bytes long");
    check(&[("version", "1\0")], "parameter version must be text without U+0000");
}

#[test]
fn entries_without_parameters_take_none() {
    let whitelist = read("whitelist({ 'a' => 'b', /c (.*)/ => 'd \\1', 'e' => nil })", Matching::Whole);
    let whitelist = whitelist.expect("usable");
    let check = |command: &str, entry: &str| {
        assert_eq!(
            whitelist.decide(command, &given(&[("x", "1")])),
            Verdict::BadParameters {
                entry: entry.into(),
                why: "the whitelist's entry takes no parameters".into()
            },
        );
        assert!(matches!(whitelist.decide(command, &[]), Verdict::Allowed(_)), "{command}");
    };
    check("a", "\"a\"");
    check("c x", "/c (.*)/");
    assert_eq!(whitelist.decide("e", &given(&[("x", "1")])), Verdict::NotListed);
}

#[test]
fn a_pattern_may_declare_parameters_too() {
    let source = "whitelist({ /deploy (\\w+)/ => { command_line: ['d', '\\1{tag}', '{tag}'],
                   parameters: { tag: { pattern: /[a-z]+/ } } } })";
    for matching in [Matching::Whole, Matching::Anywhere] {
        let whitelist = read(source, matching).expect("usable");
        let Verdict::Allowed(allowed) = whitelist.decide("deploy web", &given(&[("tag", "x")])) else {
            panic!("refused");
        };
        let expected = ["d", "webx", "x"].map(str::to_owned).to_vec();
        assert_eq!(allowed.command, CommandLine::Args(expected));
        // What the command brings along is no placeholder.
        assert!(matches!(whitelist.decide("deploy web", &[]), Verdict::BadParameters { .. }));
    }
}

#[test]
fn entries_that_cannot_be_filled_are_refused_when_read() {
    let check = |parameters: &str, line: &str, expected: &str| {
        let error = entry(parameters, line).map(|_| ()).expect_err(expected);
        assert!(error.starts_with("whitelist entry \"deploy\": "), "{error}");
        assert!(error.contains(expected), "{error}\nlacks: {expected}");
    };
    let line = "['d', '{a}']";
    check("{ a: {} }", "'d {a}'", "parameters need an array as command_line");
    check("{ a: {} }", "['{a}']", "the program, cannot be a parameter");
    check("{ a: {} }", "['d', '{b}']", "names a parameter {b} that is not declared");
    check("{ a: {} }", "['d', '{a']", "a brace without its other half");
    check("{ a: {} }", "['d', 'a}']", "a brace without its other half");
    check("[]", line, "parameters is an array");
    check("{ a: 1 }", line, "parameter a: its rules are a number");
    check("{ 'a b' => {} }", line, "a parameter's name must be");
    check("{ '-a' => {} }", line, "a parameter's name must be");
    check("{ a: {}, 'a' => {} }", line, "parameter a is declared twice");
    check("{ a: { kind: 'x' } }", line, "parameter a: kind has no meaning here");
    check("{ a: { type: 'text' } }", line, "type must be string, integer or boolean");
    check("{ a: { type: 'integer', pattern: /x/ } }", line, "a pattern is for strings");
    check("{ a: { pattern: 'x(' } }", line, "the pattern cannot be used");
    check("{ a: { pattern: 1 } }", line, "pattern is a number");
    check("{ a: { min: 1 } }", line, "min and max are for integers");
    check("{ a: { type: 'integer', min: 'x' } }", line, "min is a string");
    check("{ a: { type: 'integer', min: 2, max: 1 } }", line, "min is larger than max");
    check("{ a: { choices: [] } }", line, "choices must be a list");
    check("{ a: { choices: [[]] } }", line, "a choice is an array");
    check("{ a: { type: 'integer', choices: ['x'] } }", line, "the choice \"x\" is not a whole number");
    check("{ a: { choices: ['x'], default: 'y' } }", line, "its default must be one of x");
    check(
        "{ a: { type: 'integer', max: 3, default: 4 } }",
        line,
        "its default must be a whole number of at most 3",
    );
    check("{ a: { default: {} } }", line, "default is a hash");
}

#[test]
fn hazards_are_noticed() {
    let check = |parameters: &str, line: &str, expected: &[NoticeKind]| {
        let whitelist = entry(parameters, line).expect("usable");
        let kinds: Vec<_> = whitelist.notices().iter().map(|notice| notice.kind.clone()).collect();
        assert_eq!(kinds, expected, "{parameters} {line}");
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let options = |parameters: &[&str]| NoticeKind::OptionCharacter { parameters: names(parameters) };
    check("{ a: {} }", "['d', '{a}']", &[options(&["a"])]);
    check("{ a: {} }", "['d', '--x={a}']", &[]);
    check("{ a: { pattern: /\\w+/ } }", "['d', '{a}']", &[]);
    check("{ a: { choices: ['x'] }, b: { type: 'integer' } }", "['d', '{a}', '{b}']", &[]);
    check("{ a: {}, b: {} }", "['d', 'x{a}']", &[NoticeKind::UnusedParameters { parameters: names(&["b"]) }]);
}

#[test]
fn entries_know_their_lines() {
    let source = "# one\nwhitelist({\n  'a' => 'x',\n\n  /b/ =>\n    'y', c: 'z',\n})\n";
    let settings = ruby_config::read("/etc/w.rb", source.as_bytes(), &|_| None).expect("readable");
    let check = |source: &str, key: pushy_core::value::Value, expected: Option<usize>| {
        let settings = ruby_config::read("/etc/w.rb", source.as_bytes(), &|_| None).expect("readable");
        assert_eq!(settings.line_of("whitelist", &key), expected, "{source} {key:?}");
    };
    let pattern = pushy_core::value::Regexp::new("b", "").expect("letters");
    check(source, "a".into(), Some(3));
    check(source, pushy_core::value::Value::Regexp(pattern), Some(5));
    check(source, "c".into(), None);
    check("whitelist ({\n 'a' => { command_line: 'x',\n 'b' => 1 } })", "a".into(), Some(2));
    check("whitelist ({\n 'a' => { command_line: 'x',\n 'b' => 1 } })", "b".into(), None);
    check("whitelist 'a' => 1,\n 'b' => 2", "b".into(), Some(2));
    check("whitelist 'a' => 1\nwhitelist 'b' => 2", "a".into(), None);
    check("w = { 'a' => 1 }\nwhitelist w", "a".into(), None);
    check("whitelist('a' => 1,\n'a' => 2)", "a".into(), Some(2));
    let again = ruby_config::read("/etc/w.rb", source.replace("\n\n", "\n").as_bytes(), &|_| None);
    assert!(again.expect("readable") == settings, "where things are written does not count");
}
