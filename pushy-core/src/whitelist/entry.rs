//! Values of whitelist entries: command line, lock, and what is enforced besides.

use fancy_regex::Captures;

use super::parameters::Parameters;
use super::template::Template;
use super::translate::Translated;
use super::{Allowed, Builder, CommandLine, Key, Lock, Matching, Notice, NoticeKind, Pattern, Whitelist};
use crate::error::{Error, ErrorCode, Result};
use crate::value::{Regexp, Value};

/// Members of a hash value that mean something.
pub(super) const MEMBERS: [&str; 7] = ["command_line", "lock", "quote", "user", "dir", "env", "parameters"];

#[derive(Debug)]
enum Line {
    Shell(Template),
    Args(Vec<Template>),
}

/// What an entry's value says, read once.
#[derive(Debug)]
pub(super) struct Action {
    line: Line,
    quote: bool,
    lock: Option<Lock>,
    user: Option<String>,
    dir: Option<String>,
    env: Vec<(String, String)>,
    parameters: Option<Parameters>,
}

impl Action {
    /// A command line as it is.
    pub(super) fn verbatim(text: &str) -> Action {
        Action {
            line: Line::Shell(Template::verbatim(text)),
            quote: false,
            lock: None,
            user: None,
            dir: None,
            env: Vec::new(),
            parameters: None,
        }
    }

    /// Reads an entry's value; `None` for `nil` and `false`, which forbid the command.
    pub(super) fn read(
        value: &Value,
        pattern: Option<&Translated>,
        matching: Matching,
    ) -> std::result::Result<Option<Action>, String> {
        let template = |text: &str| -> std::result::Result<Template, String> {
            if text.contains('\0') {
                return Err("its command line has a NUL character".into());
            }
            match pattern {
                Some(pattern) => Template::parse(text, pattern),
                None => Ok(Template::verbatim(text)),
            }
        };
        let pairs = match value {
            Value::Nil | Value::Bool(false) => return Ok(None),
            Value::String(text) => {
                return Ok(Some(Action { line: Line::Shell(template(text)?), ..Action::verbatim("") }));
            }
            Value::Hash(pairs) => pairs,
            Value::Array(_) => {
                return Err(
                    "a list of arguments belongs in a hash: { command_line: ['prog', 'argument'] }".into()
                );
            }
            other => {
                return Err(format!(
                    "the value is {}; it must be a string, a hash with command_line, or nil to forbid the command",
                    other.kind()
                ));
            }
        };
        let member = |name: &str| -> std::result::Result<Option<&Value>, String> {
            let mut found = pairs.iter().filter(|(key, _)| key.as_text() == Some(name)).map(|(_, v)| v);
            match (found.next(), found.next()) {
                (_, Some(_)) => Err(format!("{name} is given twice, as a symbol and as a string")),
                (first, None) => Ok(first.filter(|v| **v != Value::Nil)),
            }
        };
        let text = |name: &str| match member(name)? {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && !text.contains('\0') => Ok(Some(text.clone())),
            Some(other) => Err(format!("{name} is {}; it must be a non-empty string", other.kind())),
        };
        if matching == Matching::Anywhere
            && pattern.is_some()
            && !pairs.iter().any(|(key, _)| *key == Value::Symbol("command_line".into()))
            && member("command_line")?.is_some()
        {
            return Err(
                "with whitelist_match :anywhere a pattern's hash needs the symbol :command_line, as in the \
                 original"
                    .into(),
            );
        }
        let parameters = member("parameters")?.map(Parameters::read).transpose()?;
        let argument = |text: &str| -> std::result::Result<Template, String> {
            match &parameters {
                Some(parameters) => template(text)?.with_parameters(&|name| parameters.position(name)),
                None => template(text),
            }
        };
        let line = match member("command_line")? {
            Some(Value::String(_)) if parameters.is_some() => {
                return Err(
                    "parameters need an array as command_line: ['prog', '--version', '{version}'], as no shell may \
                     read them"
                        .into(),
                );
            }
            Some(Value::String(text)) => Line::Shell(template(text)?),
            Some(Value::Array(elements)) => {
                let mut args = Vec::with_capacity(elements.len());
                for element in elements {
                    match element {
                        Value::String(text) => args.push(argument(text)?),
                        other => {
                            return Err(format!(
                                "an element of command_line is {}; all must be strings",
                                other.kind()
                            ));
                        }
                    }
                }
                match elements.first() {
                    None => {
                        return Err("command_line is an empty array; its first element is the program".into());
                    }
                    Some(Value::String(program)) if program.is_empty() => {
                        return Err("the first element of command_line, the program, is empty".into());
                    }
                    Some(_) if args.first().is_some_and(|program| !program.parameters().0.is_empty()) => {
                        return Err(
                            "the first element of command_line, the program, cannot be a parameter".into()
                        );
                    }
                    Some(_) => Line::Args(args),
                }
            }
            Some(other) => {
                return Err(format!(
                    "command_line is {}; it must be a string or an array of strings",
                    other.kind()
                ));
            }
            None => return Err("the hash has no command_line: add command_line: '…'".into()),
        };
        let quote = match member("quote")? {
            None => false,
            Some(Value::Bool(quote)) => *quote,
            Some(other) => return Err(format!("quote is {}; it must be true or false", other.kind())),
        };
        if let (true, Line::Shell(template)) = (quote, &line) {
            if let Some(reason) = template.quoting_fails() {
                return Err(format!(
                    "quote: true cannot protect this command line: {reason}; use an array as command_line"
                ));
            }
        }
        let lock = match member("lock")? {
            None | Some(Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(Lock::ChefClient),
            Some(Value::String(path)) if !path.is_empty() && !path.contains('\0') => {
                Some(Lock::Path(path.clone()))
            }
            Some(other) => return Err(format!("lock is {}; it must be true or a path", other.kind())),
        };
        let mut env = Vec::new();
        match member("env")? {
            None => {}
            Some(Value::Hash(variables)) => {
                for (name, value) in variables {
                    match (name.as_text(), value) {
                        (Some(name), Value::String(value))
                            if !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') =>
                        {
                            env.push((name.to_owned(), value.clone()));
                        }
                        _ => return Err("env must map names of variables to strings".into()),
                    }
                }
            }
            Some(other) => return Err(format!("env is {}; it must be a hash", other.kind())),
        }
        Ok(Some(Action { line, quote, lock, user: text("user")?, dir: text("dir")?, env, parameters }))
    }

    /// Templates whose groups reach a shell as they come.
    pub(super) fn unquoted(&self) -> Option<&Template> {
        match &self.line {
            Line::Shell(template) if !self.quote => Some(template),
            Line::Shell(_) | Line::Args(_) => None,
        }
    }

    /// The values that fill its placeholders, in their order; the error says which parameter breaks which rule.
    pub(super) fn values(&self, given: &[(String, String)]) -> std::result::Result<Vec<String>, String> {
        match &self.parameters {
            Some(parameters) => parameters.fill(given),
            None if given.is_empty() => Ok(Vec::new()),
            None => Err("the whitelist's entry takes no parameters".into()),
        }
    }

    /// What an operator should know about its parameters.
    pub(super) fn parameter_notices(&self, entry: &str) -> Vec<Notice> {
        let (Some(parameters), Line::Args(args)) = (&self.parameters, &self.line) else { return Vec::new() };
        let (mut starts, mut used) = (Vec::new(), Vec::new());
        for arg in args {
            let (places, first) = arg.parameters();
            starts.extend(places.first().filter(|_| first));
            used.extend(places);
        }
        parameters.notices(entry, &starts, &used)
    }

    fn allow(&self, entry: &str, command: CommandLine) -> Allowed {
        Allowed {
            entry: entry.to_owned(),
            command,
            lock: self.lock.clone(),
            user: self.user.clone(),
            dir: self.dir.clone(),
            env: self.env.clone(),
        }
    }

    /// The command of an exact key.
    pub(super) fn exact(&self, entry: &str, values: &[String]) -> Allowed {
        let command = match &self.line {
            Line::Shell(template) => CommandLine::Shell(template.text(values)),
            Line::Args(args) => CommandLine::Args(args.iter().map(|arg| arg.text(values)).collect()),
        };
        self.allow(entry, command)
    }

    /// The command of a pattern that matched the whole of `subject`.
    pub(super) fn fill(
        &self,
        entry: &str,
        subject: &str,
        found: &Captures<'_, str>,
        values: &[String],
    ) -> Allowed {
        let filled = |template: &Template, quote: bool| {
            let mut out = String::new();
            template.fill(&mut out, subject, found, quote, values);
            out
        };
        let command = match &self.line {
            Line::Shell(template) => CommandLine::Shell(filled(template, self.quote)),
            Line::Args(args) => CommandLine::Args(args.iter().map(|arg| filled(arg, false)).collect()),
        };
        self.allow(entry, command)
    }

    /// The command by the original's rule: every match replaced, the rest as it was. Arguments have no text around
    /// them: they come from the first match. `None` when the pattern took too many steps.
    pub(super) fn substitute(
        &self,
        pattern: &Pattern,
        subject: &str,
        first: Captures<'_, str>,
        values: &[String],
    ) -> Option<Allowed> {
        let Line::Shell(template) = &self.line else {
            return Some(self.fill(&pattern.key, subject, &first, values));
        };
        let mut out = String::with_capacity(subject.len());
        let mut found = Some(first);
        let mut at = 0;
        while let Some(captures) = found {
            let (start, end) = captures.get(0).map(|m| (m.start(), m.end()))?;
            out.push_str(&subject[at..start]);
            template.fill(&mut out, subject, &captures, self.quote, values);
            at = end;
            let mut next = end;
            if start == end {
                // An empty match: the character after it stays, and the search goes on behind that.
                let Some(c) = subject[end..].chars().next() else { break };
                out.push(c);
                next += c.len_utf8();
                at = next;
            }
            found = pattern.regex.captures_from_pos(subject, next).ok()?;
        }
        out.push_str(&subject[at..]);
        Some(self.allow(&pattern.key, CommandLine::Shell(out)))
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorCode::InvalidWhitelist, message))
}

/// Reads the three shapes of [`Whitelist::from_value`].
pub(super) fn collect(value: &Value, matching: Matching) -> Result<Builder> {
    let mut builder = Whitelist::builder().matching(matching);
    match value {
        Value::Hash(pairs) => {
            for (key, value) in pairs {
                builder = add(builder, key, value.clone())?;
            }
        }
        Value::Array(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                builder = match entry {
                    Value::Array(pair) if pair.len() == 2 => add(builder, &pair[0], pair[1].clone())?,
                    Value::Hash(members) => add_table(builder, index + 1, members)?,
                    other => {
                        return invalid(format!(
                            "whitelist entry {}: is {}; it must be a table with command or pattern",
                            index + 1,
                            other.kind()
                        ));
                    }
                };
            }
        }
        other => {
            return invalid(format!(
                "whitelist is {}; it must be a hash from commands to command lines",
                other.kind()
            ));
        }
    }
    Ok(builder)
}

fn add(mut builder: Builder, key: &Value, value: Value) -> Result<Builder> {
    let key = match key {
        Value::String(text) => Key::Exact(text.clone()),
        Value::Regexp(regexp) => Key::Pattern(regexp.clone()),
        Value::Hash(_) => {
            let source = key.member("regexp").and_then(Value::as_str);
            let options = match key.member("options") {
                None => Some(String::new()),
                Some(Value::String(letters)) => Some(letters.clone()),
                Some(Value::Array(letters)) => letters.iter().map(Value::as_str).collect(),
                Some(_) => None,
            };
            match source.zip(options).and_then(|(source, options)| Regexp::new(source, &options)) {
                Some(regexp) => Key::Pattern(regexp),
                None => {
                    return invalid(
                        "a whitelist key must be text or {\"regexp\": …, \"options\": letters out of imx}",
                    );
                }
            }
        }
        // The original keeps such keys and never finds them.
        other => {
            let entry = match other.as_text() {
                Some(text) => format!(":{text}"),
                None => other.kind().to_owned(),
            };
            builder.ignored.push(Notice { entry, kind: NoticeKind::NeverMatches });
            return Ok(builder);
        }
    };
    Ok(builder.entry(key, value))
}

/// An entry of the form for TOML.
fn add_table(builder: Builder, number: usize, members: &[(Value, Value)]) -> Result<Builder> {
    let table = Value::Hash(members.to_vec());
    let key = match (table.member("command"), table.member("pattern")) {
        (Some(Value::String(text)), None) => Key::Exact(text.clone()),
        (None, Some(Value::String(source))) => {
            let options = table.member("options").map_or(Some(""), Value::as_str);
            match options.and_then(|options| Regexp::new(source.as_str(), options)) {
                Some(regexp) => Key::Pattern(regexp),
                None => {
                    return invalid(format!("whitelist entry {number}: options must be letters out of imx"));
                }
            }
        }
        _ => return invalid(format!("whitelist entry {number}: needs either command or pattern, as text")),
    };
    let rest =
        members.iter().filter(|(k, _)| !matches!(k.as_text(), Some("command" | "pattern" | "options")));
    Ok(builder.entry(key, Value::Hash(rest.cloned().collect())))
}
