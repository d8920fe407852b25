//! What a node says of itself, what is kept back, and how clients ask for it.

use pushy_core::api::{
    Call, FindNodes, GetNode, ListNodes, PublishNode, fuzzy_query, node_attribute, node_summary,
};
use pushy_core::ids::NodeName;
use pushy_core::node_document::{Fixed, MAX_DOCUMENT, NodeDocument};
use pushy_core::search::merged;
use pushy_core::time::Wall;
use pushy_core::value::Value;
use pushy_core::whitelist;
use pushy_core::{ErrorCode, api::Method};
use serde_json::json;

fn document() -> NodeDocument {
    NodeDocument {
        fqdn: Some("web1.example.com".into()),
        environment: Some("prod".into()),
        roles: vec!["web".into(), "lb".into()],
        tags: vec!["rack-1".into()],
        whitelist: [("deploy".to_owned(), json!({ "command_line": ["run", "it"], "user": "deploy" }))]
            .into_iter()
            .collect(),
        ..NodeDocument::default()
    }
}

#[test]
fn a_document_survives_its_journey() {
    let text = document().to_json("web1");
    assert_eq!(NodeDocument::from_json(text.as_bytes(), "web1"), Ok(document()));
    let fixed = Fixed { environment: Some("qa".into()), roles: Some(vec![]), tags: None };
    assert_eq!(Fixed::from_json(&fixed.to_json()), Ok(fixed));
    assert_eq!(Fixed::from_json(&Fixed::default().to_json()), Ok(Fixed::default()));
    assert!(Fixed::from_json("[]").is_err() && Fixed::from_json(r#"{"roles":[1]}"#).is_err());
}

#[test]
fn documents_that_cannot_be_used_are_refused() {
    let check = |text: &str, code: ErrorCode, names: &str| {
        let refused = NodeDocument::from_json(text.as_bytes(), "n").expect_err(text);
        assert!(refused.code() == code && refused.message().contains(names), "{text}: {refused}");
    };
    check(&" ".repeat(MAX_DOCUMENT + 1), ErrorCode::TooLarge, "262144");
    check("[]", ErrorCode::Malformed, "object");
    check(r#"{"name":"m"}"#, ErrorCode::Malformed, "`name`");
    check(r#"{"fqdn":1}"#, ErrorCode::Malformed, "`fqdn`");
    check(r#"{"roles":["a.b"]}"#, ErrorCode::Malformed, "roles");
    check(r#"{"roles":[1]}"#, ErrorCode::Malformed, "`roles`");
    check(r#"{"tags":["a b"]}"#, ErrorCode::Malformed, "tags");
    // Chef's tools would fail over every answer that holds such a node.
    check(r#"{"chef_environment":"prod.eu"}"#, ErrorCode::Malformed, "chef_environment");
    check(r#"{"push_jobs":{"whitelist":[]}}"#, ErrorCode::Malformed, "`push_jobs.whitelist`");
    check(&format!("{{\"a\":{}1{}}}", "[".repeat(10), "]".repeat(10)), ErrorCode::Malformed, "levels");
    assert!(NodeDocument::from_json(br#"{"later":{"a":[1]},"push_jobs":5,"roles":null}"#, "n").is_ok());
}

#[test]
fn what_is_fixed_wins_over_what_is_claimed() {
    let fixed = Fixed { environment: Some("qa".into()), roles: Some(vec!["db".into()]), tags: None };
    let node = merged(&document().chef_node("web1", &fixed, Some(Wall::from_secs(1_700_000_000))));
    let check =
        |path: &str, expected: serde_json::Value| assert_eq!(node_attribute(&node, path), expected, "{path}");
    check("chef_environment", json!("qa"));
    check("run_list", json!(["role[db]"]));
    check("roles", json!(["db"]));
    check("role", json!(["db"]));
    check("tags", json!(["rack-1"]));
    check("hostname", json!("web1"));
    check("ohai_time", json!(1.7e9));
    check("push_jobs.whitelist.deploy.user", json!("deploy"));
    check("push_jobs.nothing", json!(null));
}

/// Values of `env` are secrets (decision 43).
#[test]
fn a_whitelist_is_published_without_its_secrets() {
    let text = |text: &str| Value::String(text.into());
    let hash = |pairs: Vec<(&str, Value)>| {
        Value::Hash(pairs.into_iter().map(|(key, value)| (Value::Symbol(key.into()), value)).collect())
    };
    let pattern = pushy_core::value::Regexp::new("^deploy (\\w+)$", "i").expect("a pattern");
    let list = Value::Hash(vec![
        (text("chef-client"), text("chef-client")),
        (text("never"), Value::Nil),
        (
            Value::Regexp(pattern),
            hash(vec![
                ("command_line", Value::Array(vec![text("deploy"), text("\\1")])),
                ("lock", Value::Bool(true)),
                ("env", Value::Hash(vec![(text("TOKEN"), text("hunter2"))])),
            ]),
        ),
    ]);
    let published = whitelist::published(&list).expect("it can be used");
    assert_eq!(
        serde_json::Value::Object(published),
        json!({
            "chef-client": "chef-client",
            "never": null,
            "/^deploy (\\w+)$/i": { "command_line": ["deploy", "\\1"], "lock": true, "env": { "TOKEN": "***" } },
        })
    );
    assert!(whitelist::published(&text("all")).is_err());
}

#[test]
fn calls() {
    let name = NodeName::new("ci:1").expect("a name");
    let put = PublishNode { node: &name, document: &document() }.request();
    assert_eq!((put.method, put.path.as_str()), (Method::Put, "pushy/nodes/ci:1"));
    assert!(put.body.starts_with(br#"{"name":"ci:1","#));
    assert_eq!(GetNode(&name).request().path, "nodes/ci:1");
    assert_eq!(ListNodes.answer(br#"{"b":"u","a":"u"}"#), Ok(vec!["a".into(), "b".into()]));
    assert!(ListNodes.answer(b"[]").is_err());
    let find = FindNodes { query: "name:a b", start: 5, rows: 7 };
    assert_eq!(find.request().query, "q=name%3Aa%20b&start=5&rows=7");
    let page = find.answer(br#"{"total":9,"start":5,"rows":[{"name":"a"}]}"#).expect("a page");
    assert_eq!((page.total, page.nodes), (9, vec![json!({ "name": "a" })]));
    assert!(find.answer(b"{}").is_err());
}

#[test]
fn words_for_people() {
    assert_eq!(fuzzy_query("name:x"), "name:x");
    assert!(
        fuzzy_query("tomcat")
            .starts_with("name:*tomcat* OR tags:*tomcat* OR roles:*tomcat* OR fqdn:*tomcat*")
    );
    let lines = node_summary(&document().chef_node("web1", &Fixed::default(), None));
    assert!(lines.contains(&("Run List", "role[web], role[lb]".into())), "{lines:?}");
    assert!(lines.contains(&("Platform", String::new())), "{lines:?}");
}
