//! The whitelist as others may read it: `node['push_jobs']['whitelist']` of a Chef node (decision 44).

use serde_json::{Map, Value as Json};

use super::{Builder, Key};
use crate::error::Result;
use crate::value::Value;

/// What stands in place of a value of `env`: those are secrets (decision 43).
const MASK: &str = "***";

/// Commands → command lines or hashes, from the value of the setting `whitelist`. Patterns are shown as Ruby writes
/// them, values of `env` as `***`; entries that forbid a command as `null`.
///
/// # Errors
/// As [`super::Whitelist::from_value`].
pub fn published(value: &Value) -> Result<Map<String, Json>> {
    Ok(of_builder(Builder::from_value(value, super::Matching::default())?))
}

/// The same of entries that come from several files.
pub fn of_builder(builder: Builder) -> Map<String, Json> {
    let mut entries = Map::new();
    for (key, value) in builder.pairs() {
        let name = match key {
            Key::Exact(text) => text,
            Key::Pattern(regexp) => regexp.to_string(),
        };
        entries.insert(name, shown(&value, ""));
    }
    entries
}

fn shown(value: &Value, member: &str) -> Json {
    match value {
        Value::Nil | Value::Bool(false) if member.is_empty() => Json::Null,
        Value::Bool(truth) => Json::from(*truth),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::String(text) | Value::Symbol(text) => Json::from(text.as_str()),
        Value::Regexp(regexp) => Json::from(regexp.to_string()),
        Value::Array(elements) => elements.iter().map(|element| shown(element, member)).collect(),
        Value::Hash(pairs) => {
            let pairs = pairs.iter().filter_map(|(key, value)| {
                let name = key.as_text()?;
                let value = if member == "env" { Json::from(MASK) } else { shown(value, name) };
                Some((name.to_owned(), value))
            });
            Json::Object(pairs.collect())
        }
        Value::Nil | Value::Stdout | Value::Stderr => Json::Null,
    }
}
