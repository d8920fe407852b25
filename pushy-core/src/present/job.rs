//! A job for people: knife's layout, with how many nodes are where and why (10.3, decision 20), and for programs.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::names::folded;
use super::{Format, Screen, printable, render};
use crate::job::NodeStatus;

/// From so many names on, a terminal gets ranges and columns in place of a line each.
const MANY: usize = 20;
/// From so many nodes on, a reason that they share is said once.
const SHARED: usize = 4;
/// Columns for names where nobody says how many there are.
const COLUMNS: usize = 100;

/// The document for programs: the server's, and `counts` of an old server too.
pub fn job_document(document: &Value) -> Value {
    let mut whole = document.clone();
    let counts = counts(document);
    if let (Some(members), false) = (whole.as_object_mut(), counts.is_empty()) {
        let counted =
            || counts.into_iter().map(|(status, count)| (status.to_owned(), count.into())).collect();
        members.entry("counts").or_insert_with(|| Value::Object(counted()));
    }
    whole
}

/// The text for people: the summary of the document, in which counts and reasons stand when some node did not succeed.
/// What `detail=1` says besides is left to programs. Ends with a line end.
pub fn job_text(document: &Value, screen: Screen) -> String {
    let Some(members) = document.as_object() else {
        return render(document, Format::Summary, screen.colour);
    };
    let hidden = ["requester", "quorum", "counts", "reasons"];
    let mut shown: Map<String, Value> = members
        .iter()
        .filter(|(key, _)| !hidden.contains(&key.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if let (Some(columns), Some(Value::Object(nodes))) = (screen.columns, shown.get_mut("nodes")) {
        for names in nodes.values_mut().filter_map(Value::as_array_mut).filter(|names| names.len() > MANY) {
            let texts: Vec<_> = names.iter().filter_map(Value::as_str).collect();
            *names = folded(&texts, columns.saturating_sub(5)).into_iter().map(Value::from).collect();
        }
    }
    let counts = counts(document);
    if counts.iter().any(|(status, _)| *status != NodeStatus::Succeeded.as_str()) {
        let counts: Vec<_> = counts.iter().map(|(status, count)| format!("{count} {status}")).collect();
        let line = counts.join(", ");
        // Beside its label, which is as wide as that of the widest other member at most.
        let fits = screen.columns.is_none_or(|columns| line.len() + 20 <= columns);
        shown.insert("counts".to_owned(), if fits { line.into() } else { counts.into() });
    }
    let reasons = reasons(members.get("reasons"), screen);
    if !reasons.is_empty() {
        shown.insert("reasons".to_owned(), reasons.into());
    }
    render(&Value::Object(shown), Format::Summary, screen.colour)
}

/// How many nodes are in each status, in the order of the database's codes, unknown ones last.
fn counts(document: &Value) -> Vec<(&str, usize)> {
    let nodes = document.get("nodes").and_then(Value::as_object);
    let mut counts: Vec<(&str, usize)> = nodes
        .into_iter()
        .flatten()
        .filter_map(|(status, names)| Some((status.as_str(), names.as_array()?.len())))
        .filter(|(_, count)| *count > 0)
        .collect();
    counts.sort_by_key(|(status, _)| {
        let place = NodeStatus::ALL.iter().position(|known| known.as_str() == *status);
        place.unwrap_or(NodeStatus::ALL.len())
    });
    counts
}

/// A line for each node, or for many with the same reason one line and their names.
fn reasons(reasons: Option<&Value>, screen: Screen) -> Vec<String> {
    let Some(reasons) = reasons.and_then(Value::as_object) else { return Vec::new() };
    let mut by_reason = ByReason::new();
    for (node, reason) in reasons {
        let member = |name: &str| reason.get(name).and_then(Value::as_str).unwrap_or_default();
        by_reason.entry((member("code"), member("text"))).or_default().push(node);
    }
    // Texts that differ from node to node ("since ...") would fill a terminal: one of them stands for all.
    let mut examples = HashMap::new();
    if screen.columns.is_some() {
        (by_reason, examples) = alike(by_reason);
    }
    let width = screen.columns.unwrap_or(COLUMNS).saturating_sub(5);
    let (many, few): (Vec<_>, Vec<_>) = by_reason.into_iter().partition(|(_, nodes)| nodes.len() >= SHARED);
    let mut few: Vec<_> = few
        .into_iter()
        .flat_map(|(reason, nodes)| nodes.into_iter().map(move |node| (node, reason)))
        .collect();
    few.sort_unstable();
    let mut lines: Vec<String> =
        few.into_iter().map(|(node, reason)| format!("{}: {}", printable(node), said(reason))).collect();
    let mut many = many;
    many.sort_by_key(|(_, nodes)| nodes.len());
    for (reason, nodes) in many {
        let example = examples.get(reason.0).is_some_and(|text| *text == reason.1);
        let example = if example { ", for example" } else { "" };
        lines.push(format!("{} nodes{example}: {}", nodes.len(), said(reason)));
        lines.extend(folded(&nodes, width).into_iter().map(|names| format!("  {}", printable(&names))));
    }
    lines
}

type ByReason<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

/// Joins the small groups of one code when there are many of them; answers the codes and the texts that stand for others.
fn alike(by_reason: ByReason<'_>) -> (ByReason<'_>, HashMap<&str, &str>) {
    let mut lines: HashMap<&str, usize> = HashMap::new();
    for ((code, _), nodes) in by_reason.iter().filter(|(_, nodes)| nodes.len() < SHARED) {
        *lines.entry(code).or_default() += nodes.len();
    }
    let mut joined = ByReason::new();
    let mut examples: HashMap<&str, &str> = HashMap::new();
    for ((code, text), nodes) in by_reason {
        let crowd = nodes.len() < SHARED && lines.get(code).is_some_and(|count| *count > MANY);
        let text = if crowd { *examples.entry(code).or_insert(text) } else { text };
        joined.entry((code, text)).or_default().extend(nodes);
    }
    (joined, examples)
}

fn said((code, text): (&str, &str)) -> String {
    let line = |text: &str| printable(text).replace('\n', " ");
    if text.is_empty() { line(code) } else { format!("{} ({})", line(text), line(code)) }
}
