//! Golden vectors of the whitelist: `vectors/whitelist.json` says what the original makes of each command.
//!
//! With `whitelist_match :anywhere` every case must come out as there; by default the verdicts differ where
//! decision 16 says so, and nowhere else.

use pushy_core::value::Value;
use pushy_core::whitelist::{Allowed, CommandLine, Lock, Matching, Whitelist};
use serde_json::{Value as Json, json};

fn cases() -> Vec<Json> {
    let file: Json =
        serde_json::from_str(include_str!("vectors/whitelist.json")).expect("the vectors are JSON");
    file["cases"].as_array().expect("a list of cases").clone()
}

/// The case's value: text, or a hash whose keys are symbols or strings.
fn value(json: &Json) -> Value {
    let Some(members) = json.get("hash") else { return Value::from(json) };
    let symbols = json["keys"] == "symbol";
    let members = members.as_object().expect("a hash");
    Value::Hash(
        members
            .iter()
            .map(|(key, member)| {
                let key = if symbols { Value::Symbol(key.clone()) } else { Value::String(key.clone()) };
                (key, Value::from(member))
            })
            .collect(),
    )
}

fn whitelist(case: &Json, matching: Matching) -> pushy_core::Result<Whitelist> {
    let pairs = case["whitelist"].as_array().expect("a list of entries").iter();
    let pairs = pairs.map(|pair| Value::Array(vec![Value::from(&pair[0]), value(&pair[1])])).collect();
    Whitelist::from_value(&Value::Array(pairs), matching)
}

/// What the vectors' `result` and `error` would be.
fn outcome(case: &Json, matching: Matching) -> Json {
    let whitelist = match whitelist(case, matching) {
        Ok(whitelist) => whitelist,
        Err(e) => {
            assert!(e.message().starts_with("whitelist entry "), "{}: {e}", case["id"]);
            return json!({ "refused": true });
        }
    };
    match whitelist.look_up(case["argument"].as_str().expect("an argument")) {
        None => Json::Null,
        Some(allowed) => shown(&allowed),
    }
}

fn shown(allowed: &Allowed) -> Json {
    let CommandLine::Shell(line) = &allowed.command else { panic!("no vector has an argument vector") };
    let lock = match &allowed.lock {
        None => Json::Null,
        Some(Lock::ChefClient) => json!(true),
        Some(Lock::Path(path)) => json!(path),
    };
    json!({ "line": line, "lock": lock, "user": allowed.user })
}

/// What the original does, in the same form.
fn original(case: &Json) -> Json {
    if !case["error"].is_null() {
        return json!({ "refused": true });
    }
    match &case["result"] {
        Json::Null => Json::Null,
        Json::String(line) => json!({ "line": line, "lock": null, "user": null }),
        hash => {
            let hash = &hash["hash"];
            json!({ "line": hash["command_line"], "lock": hash["lock"], "user": hash["user"] })
        }
    }
}

/// Decision 16: what differs by default, beside the hazards.
fn decided(case: &Json) -> Json {
    let line = |text: &str| json!({ "line": text, "lock": null, "user": null });
    match case["id"].as_str().expect("an id") {
        "repeated" => Json::Null,
        "dot-star" => line("safe"),
        "hash-string-keys" | "hash-string-keys-exact" => line("echo"),
        _ if case["hazard"] == true => Json::Null,
        _ => original(case),
    }
}

#[test]
fn anywhere_is_the_original() {
    let cases = cases();
    for case in &cases {
        assert_eq!(outcome(case, Matching::Anywhere), original(case), "{} ({})", case["id"], case["remark"]);
    }
    println!("whitelist.json with :anywhere: {} cases, all as the original", cases.len());
    assert_eq!(cases.len(), 56);
}

#[test]
fn the_default_differs_where_decided() {
    let cases = cases();
    let mut different = Vec::new();
    for case in &cases {
        let outcome = outcome(case, Matching::Whole);
        assert_eq!(outcome, decided(case), "{} ({})", case["id"], case["remark"]);
        if outcome != original(case) {
            different.push(format!("{}: original {}, here {}", case["id"], original(case), outcome));
        }
    }
    println!(
        "whitelist.json by default: {} cases, {} as the original",
        cases.len(),
        cases.len() - different.len()
    );
    for line in &different {
        println!("  differs on purpose: {line}");
    }
    assert_eq!(different.len(), 15);
}

#[test]
fn captured_groups_are_named() {
    for case in cases().iter().filter(|case| case["captured"] == true && case["hazard"] != true) {
        let id = case["id"].as_str().expect("an id");
        let whitelist = whitelist(case, Matching::Whole).expect("it is accepted");
        let named = whitelist.notices().iter().any(|n| n.to_string().contains("shell characters"));
        // These copy nothing of the caller's choice, or only letters.
        let harmless =
            ["named-group", "missing-group", "optional-group", "hash-value-user", "utf8", "option-x"];
        assert_eq!(named, !harmless.contains(&id), "{id}: {:?}", whitelist.notices());
    }
}
