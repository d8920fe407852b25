//! What Chef's index makes of a node: levels of attributes merged, nested names joined, everything as text.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The key of a node's name, as Chef's index has it.
pub(super) const ID: &str = "X_CHEF_id_CHEF_X";

/// Names that say what a node is. Chef also finds a nested value under its own name; under these it must not be found,
/// or a node could claim a role by giving one of its commands that name (decision 44).
pub const RESERVED: [&str; 13] = [
    ID,
    "chef_environment",
    "chef_type",
    "json_class",
    "name",
    "policy_group",
    "policy_name",
    "recipe",
    "recipes",
    "role",
    "roles",
    "run_list",
    "tags",
];

/// Deeper values are left out; what a server takes is far from it.
const MAX_DEPTH: usize = 128;

/// The levels of a node's attributes, weakest first.
const LEVELS: [&str; 4] = ["default", "normal", "override", "automatic"];

/// A node (the JSON of `Chef::Node`) as one document: attributes of all levels merged, roles and recipes of its run
/// list as `role` and `recipe`, and its other members. Partial searches take their answers from it.
pub fn merged(node: &Value) -> Value {
    let mut result = Map::new();
    for level in LEVELS {
        if let Some(Value::Object(attributes)) = node.get(level) {
            for (name, value) in attributes {
                merge(&mut result, name, value, 0);
            }
        }
    }
    let of_kind = |kind: &str| -> Value {
        let items = node.get("run_list").and_then(Value::as_array).into_iter().flatten();
        let named =
            items.filter_map(|item| item.as_str()?.strip_prefix(kind)?.strip_prefix('[')?.rsplit_once(']'));
        named.map(|(name, _)| Value::from(name)).collect()
    };
    result.insert("recipe".into(), of_kind("recipe"));
    result.insert("role".into(), of_kind("role"));
    if let Value::Object(members) = node {
        for (name, value) in members.iter().filter(|(name, _)| !LEVELS.contains(&name.as_str())) {
            result.insert(name.clone(), value.clone());
        }
    }
    Value::Object(result)
}

/// Hashes are merged, arrays united, anything else is replaced.
fn merge(into: &mut Map<String, Value>, name: &str, value: &Value, depth: usize) {
    match (into.get_mut(name), value) {
        (Some(_), Value::Null) => {}
        (Some(Value::Object(there)), Value::Object(more)) if depth < MAX_DEPTH => {
            for (name, value) in more {
                merge(there, name, value, depth + 1);
            }
        }
        (Some(Value::Array(there)), Value::Array(more)) => {
            for value in more {
                if !there.contains(value) {
                    there.push(value.clone());
                }
            }
        }
        (Some(there), value) => *there = value.clone(),
        (None, value) => {
            into.insert(name.to_owned(), value.clone());
        }
    }
}

/// Hands out every key with a text under it.
pub(super) fn each(document: &Value, found: &mut dyn FnMut(&str, &str)) {
    let Value::Object(members) = document else { return };
    let mut flattener = Flattener { found, path: String::new(), text: String::new() };
    for (name, value) in members {
        flattener.emit(name, value);
        if matches!(value, Value::Object(_) | Value::Array(_)) {
            flattener.path.push_str(name);
            flattener.inside(value, 1);
            flattener.path.clear();
        }
    }
}

struct Flattener<'a> {
    found: &'a mut dyn FnMut(&str, &str),
    path: String,
    text: String,
}

impl Flattener<'_> {
    fn emit(&mut self, key: &str, value: &Value) {
        self.text.clear();
        to_s(&mut self.text, value);
        (self.found)(key, &self.text);
    }

    /// What is inside a member, `depth` levels down; `self.path` leads to it.
    fn inside(&mut self, value: &Value, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if !RESERVED.contains(&name.as_str()) {
                        self.emit(name, value);
                    }
                    let length = self.path.len();
                    self.path.push('_');
                    self.path.push_str(name);
                    self.inside(value, depth + 1);
                    self.path.truncate(length);
                }
            }
            Value::Array(elements) => {
                for element in elements {
                    self.inside(element, depth);
                }
            }
            scalar => {
                // A path of several names can spell a reserved one: `chef` and `environment`.
                if depth > 1 && RESERVED.contains(&self.path.as_str()) {
                    return;
                }
                self.text.clear();
                to_s(&mut self.text, scalar);
                (self.found)(&self.path, &self.text);
            }
        }
    }
}

/// A value as Ruby's `to_s` writes it: that is the text Chef compares with.
fn to_s(out: &mut String, value: &Value) {
    match value {
        Value::Null => {}
        Value::String(text) => out.push_str(text),
        value => inspect(out, value, 0),
    }
}

fn inspect(out: &mut String, value: &Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Null => out.push_str("nil"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => push_float(out, float),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(out, "{number}");
            }
        },
        Value::String(text) => push_quoted(out, text),
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                inspect(out, element, depth + 1);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                push_quoted(out, name);
                out.push_str("=>");
                inspect(out, value, depth + 1);
            }
            out.push('}');
        }
    }
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            '#' if matches!(rest.peek(), Some('{' | '$' | '@')) => out.push_str("\\#"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Ruby writes floats with a dot always, and with an exponent below 0.0001 and from 1e16 on.
fn push_float(out: &mut String, float: f64) {
    let size = float.abs();
    let _ = if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let dot = if digits.contains('.') { "" } else { ".0" };
        let exponent: i32 = exponent.parse().unwrap_or_default();
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{digits}{dot}e{sign}{:02}", exponent.abs())
    } else {
        write!(out, "{float:?}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn flat(document: &Value) -> Vec<(String, String)> {
        let mut all = Vec::new();
        each(document, &mut |key, value| all.push((key.to_owned(), value.to_owned())));
        all
    }

    #[test]
    fn nested_values_are_found_under_their_name_and_their_path() {
        let check = |document: Value, expected: &[(&str, &str)]| {
            let found = flat(&document);
            let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(found, expected, "{document}");
        };
        check(json!({ "a": 1, "b": null }), &[("a", "1"), ("b", "")]);
        check(json!({ "a": ["x", "y"] }), &[("a", r#"["x", "y"]"#), ("a", "x"), ("a", "y")]);
        check(
            json!({ "a": { "b": { "c": true } } }),
            &[("a", r#"{"b"=>{"c"=>true}}"#), ("b", r#"{"c"=>true}"#), ("c", "true"), ("a_b_c", "true")],
        );
        check(json!({ "a": [{ "b": 1.5 }] }), &[("a", r#"[{"b"=>1.5}]"#), ("b", "1.5"), ("a_b", "1.5")]);
        check(
            json!({ "a": { "role": "db" }, "role": ["web"] }),
            &[("a", r#"{"role"=>"db"}"#), ("a_role", "db"), ("role", r#"["web"]"#), ("role", "web")],
        );
        check(
            json!({ "chef": { "environment": "prod" } }),
            &[("chef", r#"{"environment"=>"prod"}"#), ("environment", "prod")],
        );
        check(json!([1]), &[]);
    }

    #[test]
    fn text_is_rubys() {
        let check = |value: Value, expected: &str| {
            let mut out = String::new();
            inspect(&mut out, &value, 0);
            assert_eq!(out, expected);
        };
        check(json!(1.0), "1.0");
        check(json!(1e20), "1.0e+20");
        check(json!(1.25e-7), "1.25e-07");
        check(json!(0.0001), "0.0001");
        check(json!(-1e15), "-1000000000000000.0");
        check(json!(0.0), "0.0");
        check(json!("a\"b\\#{c}\n\u{1}"), r##""a\"b\\\#{c}\n\u0001""##);
        check(json!(18446744073709551615u64), "18446744073709551615");
    }

    #[test]
    fn levels_merge_as_in_chefs_index() {
        let node = json!({
            "name": "n", "run_list": ["role[web]", "recipe[a::b]", "recipe[c@1.0]", "odd"],
            "default": { "a": 1, "h": { "x": 1, "y": 2 }, "l": [1, 2], "k": 5 },
            "normal": { "h": { "x": 3 }, "l": [2, 3], "k": null },
            "automatic": { "a": 2 },
        });
        assert_eq!(
            merged(&node),
            json!({
                "a": 2, "h": { "x": 3, "y": 2 }, "l": [1, 2, 3], "k": 5,
                "recipe": ["a::b", "c@1.0"], "role": ["web"],
                "name": "n", "run_list": ["role[web]", "recipe[a::b]", "recipe[c@1.0]", "odd"],
            })
        );
    }
}
