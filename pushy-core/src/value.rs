//! Settings as values: what a Ruby, TOML or JSON configuration can say, in one type.
//!
//! The Ruby reader produces every kind; TOML and JSON (through serde) only the kinds they have.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A Ruby regular expression as written: source and options, not compiled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Regexp {
    /// The text between the slashes.
    pub source: String,
    /// Option `i`: case does not count.
    pub ignore_case: bool,
    /// Option `m`: a dot matches line ends too.
    pub multi_line: bool,
    /// Option `x`: white space and comments in the source do not count.
    pub extended: bool,
}

impl Regexp {
    /// A pattern with options given as letters out of `i`, `m`, `x`.
    ///
    /// Returns `None` for any other letter.
    pub fn new(source: impl Into<String>, options: &str) -> Option<Regexp> {
        let mut regexp =
            Regexp { source: source.into(), ignore_case: false, multi_line: false, extended: false };
        for letter in options.chars() {
            match letter {
                'i' => regexp.ignore_case = true,
                'm' => regexp.multi_line = true,
                'x' => regexp.extended = true,
                _ => return None,
            }
        }
        Some(regexp)
    }
}

impl fmt::Display for Regexp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)?;
        for (set, letter) in [(self.multi_line, "m"), (self.ignore_case, "i"), (self.extended, "x")] {
            if set {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// One setting's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `nil`.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    String(String),
    /// A Ruby symbol, without its colon.
    Symbol(String),
    /// A Ruby regular expression.
    Regexp(Regexp),
    /// A list.
    Array(Vec<Value>),
    /// Pairs in the order written; no key twice.
    Hash(Vec<(Value, Value)>),
    /// `STDOUT` or `$stdout`.
    Stdout,
    /// `STDERR` or `$stderr`.
    Stderr,
}

impl Value {
    /// The text of a string or symbol.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::String(text) | Value::Symbol(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value of `true` and `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The number of an integer.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The pairs of a hash.
    pub fn as_hash(&self) -> Option<&[(Value, Value)]> {
        match self {
            Value::Hash(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The member of a hash whose key is this text, as string or symbol.
    pub fn member(&self, key: &str) -> Option<&Value> {
        self.as_hash()?.iter().find(|(k, _)| k.as_text() == Some(key)).map(|(_, v)| v)
    }

    /// Ruby's idea of truth: everything but `nil` and `false`.
    pub fn is_truthy(&self) -> bool {
        !matches!(self, Value::Nil | Value::Bool(false))
    }

    /// The kind with an article, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::String(_) => "a string",
            Value::Symbol(_) => "a symbol",
            Value::Regexp(_) => "a regular expression",
            Value::Array(_) => "an array",
            Value::Hash(_) => "a hash",
            Value::Stdout => "STDOUT",
            Value::Stderr => "STDERR",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Integer(value)
    }
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::Nil,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(integer) => Value::Integer(integer),
                None => Value::Float(number.as_f64().unwrap_or(f64::INFINITY)),
            },
            Json::String(text) => Value::String(text.clone()),
            Json::Array(elements) => Value::Array(elements.iter().map(Value::from).collect()),
            Json::Object(members) => Value::Hash(
                members.iter().map(|(key, value)| (Value::String(key.clone()), Value::from(value))).collect(),
            ),
        }
    }
}

/// What TOML, JSON and any other format of serde can say; keys become strings, order is kept.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        struct AnyValue;

        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a setting")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Nil)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Nil)
            }
            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
                Value::deserialize(inner)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Integer(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
                i64::try_from(value).map(Value::Integer).map_err(|_| E::custom("the number is too large"))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }
            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::String(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Value, E> {
                Ok(Value::String(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Value::Array(elements))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    pairs.push((Value::String(key), value));
                }
                Ok(Value::Hash(pairs))
            }
        }

        deserializer.deserialize_any(AnyValue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_serde_agree() {
        let text = r#"{"b":1,"a":[true,null,"x",1.5,{"y":-2}]}"#;
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(value, Value::from(&json));
        assert_eq!(value.member("b"), Some(&Value::Integer(1)));
        assert_eq!(value.as_hash().unwrap()[0].0, Value::from("b"));
        assert!(serde_json::from_str::<Value>("18446744073709551615").is_err());
    }

    #[test]
    fn a_regexp_shows_itself_as_ruby_does() {
        assert_eq!(Regexp::new("a b", "xi").unwrap().to_string(), "/a b/ix");
        assert_eq!(Regexp::new("a", "z"), None);
    }
}
