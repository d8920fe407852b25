//! Typed parameters: an entry says which values a job may give, and where they stand among the arguments.
//!
//! No shell is involved: a value takes the place of `{name}` inside of an argument, character by character. Rules are
//! checked when the whitelist is built, so an entry that cannot be filled never waits for a job to show it.

use fancy_regex::Regex;

use super::compile;
use super::{Matching, Notice, NoticeKind};
use crate::value::{Regexp, Value};

/// The most parameters that a job may give or an entry may declare.
pub const MAX_PARAMETERS: usize = 64;

/// The longest value of a parameter, in bytes.
pub const MAX_PARAMETER: usize = 4096;

/// The longest name of a parameter, in bytes.
pub const MAX_PARAMETER_NAME: usize = 64;

/// Members of a declaration.
const MEMBERS: [&str; 6] = ["type", "pattern", "choices", "min", "max", "default"];

/// Whether this can name a parameter: letters, digits, `_` and `-` of ASCII, not first a `-`.
pub fn is_parameter_name(name: &str) -> bool {
    (1..=MAX_PARAMETER_NAME).contains(&name.len())
        && !name.starts_with('-')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[derive(Debug)]
enum Rule {
    Text { pattern: Option<(Regexp, Regex)> },
    Integer { min: Option<i64>, max: Option<i64> },
    Boolean,
}

#[derive(Debug)]
struct Declared {
    name: String,
    rule: Rule,
    choices: Option<Vec<String>>,
    default: Option<String>,
}

/// What an entry declares, in the order written.
#[derive(Debug)]
pub(super) struct Parameters(Vec<Declared>);

type Read<T> = std::result::Result<T, String>;

impl Parameters {
    /// Reads the member `parameters` of an entry's hash.
    pub(super) fn read(value: &Value) -> Read<Parameters> {
        let Value::Hash(pairs) = value else {
            return Err(format!("parameters is {}; it must be a hash from names to rules", value.kind()));
        };
        if pairs.len() > MAX_PARAMETERS {
            return Err(format!("it declares more than {MAX_PARAMETERS} parameters"));
        }
        let mut declared: Vec<Declared> = Vec::with_capacity(pairs.len());
        for (key, rules) in pairs {
            let name = key.as_text().filter(|name| is_parameter_name(name)).ok_or_else(|| {
                format!(
                    "a parameter's name must be 1 to {MAX_PARAMETER_NAME} letters, digits, _ or -, and begin with no -"
                )
            })?;
            if declared.iter().any(|known| known.name == name) {
                return Err(format!("parameter {name} is declared twice, as a symbol and as a string"));
            }
            declared.push(Declared::read(name, rules).map_err(|why| format!("parameter {name}: {why}"))?);
        }
        Ok(Parameters(declared))
    }

    /// The place of a parameter in what [`Parameters::fill`] gives.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|declared| declared.name == name)
    }

    /// The values in the order declared: those given, else the defaults. The error names parameter and rule, and no
    /// value.
    pub(super) fn fill(&self, given: &[(String, String)]) -> Read<Vec<String>> {
        if let Some((name, _)) = given.iter().find(|(name, _)| self.position(name).is_none()) {
            let shown = if is_parameter_name(name) { name.as_str() } else { "of this name" };
            return Err(match self.names() {
                names if names.is_empty() => format!("there is no parameter {shown}; the command takes none"),
                names => format!("there is no parameter {shown}; the command takes {names}"),
            });
        }
        self.0
            .iter()
            .map(|declared| {
                let mut found = given.iter().filter(|(name, _)| *name == declared.name);
                match (found.next(), found.next()) {
                    (_, Some(_)) => Err(format!("parameter {} is given twice", declared.name)),
                    (Some((_, value)), None) => match declared.check(value) {
                        Ok(()) => Ok(value.clone()),
                        Err(rule) => Err(format!("parameter {} must be {rule}", declared.name)),
                    },
                    (None, None) => declared.default.clone().ok_or_else(|| {
                        format!("parameter {} is missing; it must be {}", declared.name, declared.rule())
                    }),
                }
            })
            .collect()
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|declared| declared.name.as_str()).collect();
        names.join(", ")
    }

    /// What an operator should know: `starts` are the places of parameters that an argument begins with, `used` of those
    /// that stand anywhere.
    pub(super) fn notices(&self, entry: &str, starts: &[usize], used: &[usize]) -> Vec<Notice> {
        let named = |positions: &mut dyn Iterator<Item = usize>| -> Vec<String> {
            positions.filter_map(|at| Some(self.0.get(at)?.name.clone())).collect()
        };
        let options = named(&mut (0..self.0.len()).filter(|at| {
            starts.contains(at) && self.0.get(*at).is_some_and(|declared| declared.check("-x").is_ok())
        }));
        let unused = named(&mut (0..self.0.len()).filter(|at| !used.contains(at)));
        let notice = |kind| Notice { entry: entry.to_owned(), kind };
        let mut notices = Vec::new();
        if !options.is_empty() {
            notices.push(notice(NoticeKind::OptionCharacter { parameters: options }));
        }
        if !unused.is_empty() {
            notices.push(notice(NoticeKind::UnusedParameters { parameters: unused }));
        }
        notices
    }
}

impl Declared {
    fn read(name: &str, rules: &Value) -> Read<Declared> {
        let Value::Hash(pairs) = rules else {
            return Err(format!(
                "its rules are {}; they must be a hash, if need be an empty one",
                rules.kind()
            ));
        };
        if let Some((key, _)) =
            pairs.iter().find(|(key, _)| !key.as_text().is_some_and(|k| MEMBERS.contains(&k)))
        {
            let shown = key.as_text().unwrap_or("a key that is not text");
            return Err(format!("{shown} has no meaning here; known are {}", MEMBERS.join(", ")));
        }
        let member = |name: &str| rules.member(name).filter(|value| **value != Value::Nil);
        let pattern = match member("pattern") {
            None => None,
            Some(Value::Regexp(regexp)) => Some(regexp.clone()),
            // TOML and JSON have no patterns.
            Some(Value::String(source)) => Regexp::new(source.as_str(), ""),
            Some(other) => {
                return Err(format!("pattern is {}; it must be a regular expression", other.kind()));
            }
        };
        let pattern = match pattern {
            None => None,
            Some(regexp) => {
                let (_, regex) = compile(&regexp, Matching::Whole)?;
                Some((regexp, regex))
            }
        };
        let integer = |name: &str| match member(name) {
            None => Ok(None),
            Some(value) => match value.as_integer() {
                Some(number) => Ok(Some(number)),
                None => Err(format!("{name} is {}; it must be a whole number", value.kind())),
            },
        };
        let (min, max) = (integer("min")?, integer("max")?);
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            return Err("min is larger than max".into());
        }
        let kind = match member("type") {
            None => "string",
            Some(value) => value.as_text().unwrap_or(""),
        };
        let rule = match kind {
            "string" => Rule::Text { pattern },
            "integer" | "boolean" if pattern.is_some() => return Err("a pattern is for strings".into()),
            "integer" => Rule::Integer { min, max },
            "boolean" => Rule::Boolean,
            _ => return Err("type must be string, integer or boolean".into()),
        };
        if !matches!(rule, Rule::Integer { .. }) && (min.is_some() || max.is_some()) {
            return Err("min and max are for integers: write type: 'integer'".into());
        }
        let mut declared = Declared { name: name.to_owned(), rule, choices: None, default: None };
        match member("choices") {
            None => {}
            Some(Value::Array(elements)) if !elements.is_empty() => {
                let mut choices = Vec::with_capacity(elements.len());
                for element in elements {
                    let choice = text(element).ok_or_else(|| format!("a choice is {}", element.kind()))?;
                    declared.check(&choice).map_err(|rule| format!("the choice {choice:?} is not {rule}"))?;
                    choices.push(choice);
                }
                declared.choices = Some(choices);
            }
            Some(_) => return Err("choices must be a list of at least one text or number".into()),
        }
        if let Some(default) = member("default") {
            let default = text(default).ok_or_else(|| format!("default is {}", default.kind()))?;
            declared.check(&default).map_err(|rule| format!("its default must be {rule}"))?;
            declared.default = Some(default);
        }
        Ok(declared)
    }

    /// Whether a value keeps the rules; if not, the one that it breaks.
    fn check(&self, value: &str) -> Read<()> {
        if value.len() > MAX_PARAMETER {
            return Err(format!("at most {MAX_PARAMETER} bytes long"));
        }
        if value.contains('\0') {
            return Err("text without U+0000".into());
        }
        let kept = match &self.rule {
            Rule::Text { pattern: None } => true,
            Rule::Text { pattern: Some((_, regex)) } => match regex.is_match(value) {
                Ok(matches) => matches,
                Err(_) => return Err("something that its pattern decides sooner; rewrite the pattern".into()),
            },
            Rule::Integer { min, max } => number(value).is_some_and(|number| {
                min.is_none_or(|min| number >= min) && max.is_none_or(|max| number <= max)
            }),
            Rule::Boolean => matches!(value, "true" | "false"),
        };
        let chosen = self.choices.as_ref().is_none_or(|choices| choices.iter().any(|choice| choice == value));
        if kept && chosen { Ok(()) } else { Err(self.rule()) }
    }

    /// The rule in words, behind "must be".
    fn rule(&self) -> String {
        if let Some(choices) = &self.choices {
            return format!("one of {}", choices.join(", "));
        }
        match &self.rule {
            Rule::Text { pattern: None } => "text".into(),
            Rule::Text { pattern: Some((regexp, _)) } => format!("text that matches {regexp}"),
            Rule::Integer { min: None, max: None } => "a whole number".into(),
            Rule::Integer { min: Some(min), max: None } => format!("a whole number of at least {min}"),
            Rule::Integer { min: None, max: Some(max) } => format!("a whole number of at most {max}"),
            Rule::Integer { min: Some(min), max: Some(max) } => format!("a whole number from {min} to {max}"),
            Rule::Boolean => "true or false".into(),
        }
    }
}

/// A whole number in the one way of writing it: no sign `+`, no zeros before it.
fn number(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

/// Text, whole numbers and truth values as the text that takes a placeholder's place.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) | Value::Symbol(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}
