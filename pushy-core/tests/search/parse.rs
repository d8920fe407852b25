//! Queries that are refused, and where; nothing panics.

use proptest::prelude::*;
use pushy_core::search::{Document, MAX_DEPTH, MAX_QUERY, MAX_TERMS, Query, Sort, merged};
use serde_json::json;

#[test]
fn refusals_name_the_place() {
    let check = |query: &str, position: usize, reason: &str| {
        let refused = Query::parse(query).expect_err(query);
        assert_eq!(refused.position, position, "{query}: {refused}");
        assert!(refused.reason.contains(reason), "{query}: {refused}");
        let text = refused.to_string();
        assert!(text.starts_with(&format!("at character {position}: ")) && !text.contains('\n'), "{text}");
    };
    check("", 1, "something to look for");
    check("   ", 4, "something to look for");
    check("name:", 6, "value is missing");
    check("name: ", 7, "value is missing");
    check("name:(a OR b", 13, "a ')' is missing");
    check("name:(a OR", 11, "something to look for");
    check("(name:a", 8, "a ')' is missing");
    check("name:a)", 7, "nothing opened");
    check("()", 2, "nothing opened");
    check("name:\"web", 6, "does not end");
    check("\"a\\\"", 1, "does not end");
    check(":web", 1, "without a field");
    check("recipe:a::b", 9, "belongs to a word");
    check("a:b:c", 4, "a field within");
    check("a:(b c:d)", 7, "a field within");
    check("(a OR b):c", 9, "without a field");
    check("AND a", 1, "both sides");
    check("a AND", 6, "something to look for");
    check("a OR OR b", 6, "both sides");
    check("a AND AND b", 7, "both sides");
    check("NOT", 4, "something to look for");
    check("é:ü~", 4, "similar words");
    check("\"a\"~2", 4, "similar words");
    check("web\\", 4, "at the end");
    check("a:[b c]", 6, "TO is missing");
    check("a:[b TOc]", 6, "TO is missing");
    check("a:[b TO c", 10, "ends with");
    check("a:[b TO c)", 11, "ends with");
    check("a:[", 3, "[FROM TO TO]");
    check("a:[]", 4, "[FROM TO TO]");
    check("a:[b TO]", 6, "TO is missing");
    check("a:b]", 4, "write '\\]'");
    check("a^x", 3, "a number");
    check("a^", 3, "a number");
    check("^2", 1, "must follow");
    check(&"(".repeat(MAX_DEPTH + 1), MAX_DEPTH + 2, "levels");
    check(&"NOT ".repeat(1000), 4 * (MAX_DEPTH + 1), "levels");
    check(&"-".repeat(1000), MAX_DEPTH + 2, "levels");
    check(&"a ".repeat(MAX_TERMS + 1), 2 * MAX_TERMS + 1, "more than");
    check(&"a".repeat(MAX_QUERY + 1), 1, "at most");
}

#[test]
fn long_queries_are_taken() {
    for query in ["a OR ".repeat(MAX_TERMS - 1) + "a", "(".repeat(MAX_DEPTH) + "a" + &")".repeat(MAX_DEPTH)] {
        assert!(Query::parse(&query).is_ok());
    }
}

/// What a bare word is compared with.
#[test]
fn a_word_without_a_field_is_looked_for_in_text() {
    let document = Document::new(&merged(&json!({ "name": "n", "normal": { "text": "some words" } })), "n");
    let check = |query: &str, expected: bool| {
        assert_eq!(Query::parse(query).map(|q| q.matches(&document)), Ok(expected), "{query}");
    };
    check("words", true);
    check("\"some words\"", true);
    check("n", false);
    check("[some TO t]", true);
    check("+words -n", true);
    check("+words +n", false);
    check("+words n", true);
    check("-words", false);
    check("-(-words)", true);
    check("NOT -words", true);
    check("text:(some AND -other)", true);
    check("text:-some", false);
    check("text:[\"some w\" TO \"some x\"]", true);
}

fn query() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z]{1,3}",
        "\\PC{0,3}",
        prop::sample::select(vec![
            "name:", "role:", "*", "?", "(", ")", "[", "]", "{", "}", " TO ", " AND ", " OR ", " NOT ", "-",
            "+", "!", "\"", "\\", "^2", "~", "&&", "||", ":", " ", "é", "\u{0}", "\n",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nothing_panics_and_not_means_not(text in query(), value in "\\PC{0,20}") {
        let node = json!({ "name": value, "normal": { "text": value, "l": [value, { "role": value }] } });
        let document = Document::new(&merged(&node), &value);
        match Query::parse(&text) {
            Ok(query) => {
                let found = query.matches(&document);
                let negated = Query::parse(&format!("NOT ({text})")).expect("still a query");
                prop_assert_eq!(negated.matches(&document), !found);
                let grouped = Query::parse(&format!("({text}) AND *:*")).expect("still a query");
                prop_assert_eq!(grouped.matches(&document), found);
            }
            Err(bad) => prop_assert!(bad.position >= 1 && bad.position <= text.chars().count() + 1),
        }
        let _ = Sort::parse(&text);
    }

    #[test]
    fn a_node_is_found_by_its_own_name(name in "[a-zA-Z0-9_.:-]{1,20}") {
        let document = Document::new(&merged(&json!({ "name": name })), &name);
        let escaped: String = name.chars().flat_map(|c| ['\\', c]).collect();
        for text in [format!("name:{escaped}"), format!("name:\"{name}\""), format!("name:[{name} TO {name}]")] {
            let query = Query::parse(&text).expect("valid");
            prop_assert!(query.matches(&document), "{}", text);
        }
    }
}
