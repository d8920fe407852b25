//! The search against chef-zero: the same sets over the same nodes, query by query (decision 34).
//!
//! `answers.json` holds what chef-zero found; with a lab (`script/lab`) it is asked again, and with
//! PUSHY_RECORD=1 its answers are written down. Where we answer otherwise, `differences.json` says why.
#![allow(clippy::disallowed_methods)] // a test reads and writes files

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pushy_core::node_document::{Fixed, NodeDocument};
use pushy_core::search::{Document, Query, merged};
use serde_json::{Map, Value, json};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/search").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn parsed(name: &str) -> Value {
    serde_json::from_str(&read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn queries() -> Vec<String> {
    read("queries.txt").lines().map(str::to_owned).collect()
}

/// The nodes as Chef's tools read them, by name.
fn nodes() -> Map<String, Value> {
    let Value::Object(published) = parsed("nodes.json") else { panic!("nodes.json is a hash") };
    let chef_node = |(name, document): (String, Value)| {
        let document = NodeDocument::from_json(document.to_string().as_bytes(), &name).expect(&name);
        let node = document.chef_node(&name, &Fixed::default(), None);
        (name, node)
    };
    published.into_iter().map(chef_node).collect()
}

/// The names that we find, sorted; 400 for a query that is refused.
fn ours(documents: &[(String, Document)], query: &str) -> Value {
    match Query::parse(query) {
        Ok(query) => {
            let mut names: Vec<&str> = documents
                .iter()
                .filter(|(_, document)| query.matches(document))
                .map(|(name, _)| name.as_str())
                .collect();
            names.sort_unstable();
            json!(names)
        }
        Err(_) => json!(400),
    }
}

fn documents() -> Vec<(String, Document)> {
    nodes().into_iter().map(|(name, node)| (name.clone(), Document::new(&merged(&node), &name))).collect()
}

#[test]
fn we_find_what_chef_zero_found() {
    let (documents, answers) = (documents(), parsed("answers.json"));
    let queries = queries();
    assert!(queries.len() >= 60 && documents.len() >= 30, "{} queries", queries.len());
    let mut found_some = 0;
    for query in &queries {
        let found = ours(&documents, query);
        assert_eq!(found, answers[query], "{query}");
        let count = found.as_array().map_or(0, Vec::len);
        found_some += usize::from(count > 0 && count < documents.len());
    }
    // A list of queries that find nothing or everything would prove nothing.
    assert!(found_some >= 50, "only {found_some} queries tell nodes apart");
}

#[test]
fn we_differ_only_where_we_say_so() {
    let documents = documents();
    for case in parsed("differences.json").as_array().expect("a list") {
        let query = case["query"].as_str().expect("a text");
        assert_eq!(ours(&documents, query), case["pushy"], "{query}");
        assert_ne!(case["pushy"], case["chef_zero"], "{query}: no difference");
    }
}

/// Asked through the script beside this file.
fn chef_zero(lab: &Path, queries: &[String]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/search/chef_zero.rb");
    let mut asked = Command::new("bash")
        .args(["-c", ". \"$CHEF_LAB/env.sh\"; exec timeout 120 ruby \"$@\"", "lab"])
        .arg(script)
        .envs([("CHEF_LAB", lab), ("CHEF_LICENSE", Path::new("accept-no-persist"))])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("chef-zero starts");
    let input = json!({ "nodes": nodes(), "queries": queries }).to_string();
    asked.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = asked.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", output.status);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    serde_json::from_str(said.lines().last().unwrap_or_default()).expect("a list of answers")
}

#[test]
fn chef_zero_still_answers_so() {
    let Some(lab) = std::env::var_os("CHEF_LAB").filter(|dir| !dir.is_empty()).map(PathBuf::from) else {
        println!("lab: skipped: CHEF_LAB names no folder with chef-zero");
        return;
    };
    let queries = queries();
    let Value::Array(mut differences) = parsed("differences.json") else { panic!("a list") };
    let more = differences.iter().map(|case| case["query"].as_str().expect("a text").to_owned());
    let all: Vec<String> = queries.iter().cloned().chain(more).collect();
    let mut answers = chef_zero(&lab, &all);
    assert_eq!(answers.len(), all.len());
    let of_differences = answers.split_off(queries.len());
    if std::env::var_os("PUSHY_RECORD").is_some() {
        let documents = documents();
        let lines: Vec<String> = queries
            .iter()
            .zip(&answers)
            .map(|(query, names)| format!("  {}: {names}", json!(query)))
            .collect();
        std::fs::write(file("answers.json"), format!("{{\n{}\n}}\n", lines.join(",\n"))).expect("written");
        for (case, answer) in differences.iter_mut().zip(of_differences) {
            case["chef_zero"] = answer;
            case["pushy"] = ours(&documents, case["query"].as_str().expect("a text"));
        }
        let lines: Vec<String> = differences.iter().map(|case| format!("  {case}")).collect();
        std::fs::write(file("differences.json"), format!("[\n{}\n]\n", lines.join(",\n"))).expect("written");
        return;
    }
    let recorded = parsed("answers.json");
    for (query, answer) in queries.iter().zip(&answers) {
        assert_eq!(recorded[query], *answer, "{query}");
    }
    for (case, answer) in differences.iter().zip(&of_differences) {
        assert_eq!(case["chef_zero"], *answer, "{}", case["query"]);
    }
    println!("lab: {} queries over {} nodes, the sets of chef-zero", queries.len(), nodes().len());
}
