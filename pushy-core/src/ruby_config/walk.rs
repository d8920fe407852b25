//! The walk over the syntax tree: an allow-list, and words for everything that is not on it.

use std::collections::HashMap;

use ruby_prism::{CallNode, FullName, MagicComments, Node, NodeList};

use super::words::{call_refusal, is_code, refusal};
use super::{MAX_PAIRS, Settings, paths};
use crate::value::{Regexp, Value};

/// The deepest nesting of values.
const MAX_DEPTH: usize = 100;

/// Bytes and elements that all values together may have: what stops `a = a + a` in a loop of copies.
const MAX_BUILT: usize = 4_000_000;

/// Settings whose assignment to a local variable is surely a mistake: `whitelist = {…}` sets nothing in Ruby.
const SETTINGS: [&str; 20] = [
    "chef_server_url",
    "node_name",
    "client_key",
    "client_name",
    "whitelist",
    "whitelist_match",
    "file_dir",
    "allow_unencrypted",
    "allowed_overwritable_env_vars",
    "environment_passthrough",
    "max_body_size",
    "log_level",
    "log_location",
    "ssl_verify_mode",
    "verify_api_cert",
    "trusted_certs_dir",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "lockfile",
];

/// Why and where a file is not taken.
pub(super) struct Refused {
    /// Byte in the source.
    pub(super) at: usize,
    pub(super) message: String,
}

type Taken<T> = Result<T, Refused>;

fn refuse<T>(node: &Node<'_>, message: impl Into<String>) -> Taken<T> {
    Err(Refused { at: node.location().start() as usize, message: message.into() })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One reading of one file.
pub(super) struct Walk<'e> {
    file: &'e str,
    environment: &'e dyn Fn(&str) -> Option<String>,
    settings: Settings,
    variables: HashMap<String, Value>,
    /// Keys of the outermost hash of the value that is being read, and where they begin.
    keys: Vec<(Value, usize)>,
    built: usize,
}

impl<'e> Walk<'e> {
    pub(super) fn new(file: &'e str, environment: &'e dyn Fn(&str) -> Option<String>) -> Walk<'e> {
        Walk {
            file,
            environment,
            settings: Settings::default(),
            variables: HashMap::new(),
            keys: Vec::new(),
            built: 0,
        }
    }

    /// Every statement of the file, in order.
    pub(super) fn program(
        mut self,
        root: &Node<'_>,
        source: &str,
        magic: MagicComments<'_>,
    ) -> Taken<Settings> {
        for comment in magic {
            let key = text(comment.key()).to_ascii_lowercase();
            let value = text(comment.value()).to_ascii_lowercase();
            if matches!(key.as_str(), "encoding" | "coding")
                && !matches!(value.as_str(), "utf-8" | "utf8" | "us-ascii" | "ascii")
                && !source.is_ascii()
            {
                return refuse(
                    root,
                    format!("the encoding {value} is not supported: save the file as UTF-8"),
                );
            }
        }
        if let Some(program) = root.as_program_node() {
            for statement in program.statements().body().iter() {
                if self.settings.iter().count() >= MAX_PAIRS {
                    return refuse(&statement, format!("the file has more than {MAX_PAIRS} settings"));
                }
                self.statement(&statement)?;
            }
        }
        Ok(self.settings)
    }

    fn statement(&mut self, node: &Node<'_>) -> Taken<()> {
        if let Some(write) = node.as_local_variable_write_node() {
            let name = text(write.name().as_slice());
            if SETTINGS.contains(&name.as_str()) {
                return refuse(
                    node,
                    format!(
                        "{name} = … only makes a local variable and sets nothing: write {name}(…) without the ="
                    ),
                );
            }
            let value = self.value(&write.value(), 0)?;
            self.variables.insert(name, value);
            return Ok(());
        }
        if let Some(write) = node.as_constant_write_node() {
            let value = self.value(&write.value(), 0)?;
            self.variables.insert(text(write.name().as_slice()), value);
            return Ok(());
        }
        if let Some(call) = node.as_call_node() {
            return self.set(node, &call);
        }
        if let Some(parentheses) = node.as_parentheses_node() {
            return match single(parentheses.body()) {
                Some(inner) => self.statement(&inner),
                None => {
                    refuse(node, "parentheses around several statements are not supported: write one a line")
                }
            };
        }
        refuse(node, refusal(node))
    }

    /// A statement that is a call: `key value`, `key[:member] = value`, `Chef::Config[:key] = value`.
    fn set(&mut self, node: &Node<'_>, call: &CallNode<'_>) -> Taken<()> {
        let name = text(call.name().as_slice());
        if call.block().is_some() {
            return refuse(node, format!("{name} with a block is code, which is not run here: write values"));
        }
        let arguments: Vec<Node<'_>> =
            call.arguments().map(|a| a.arguments().iter().collect()).unwrap_or_default();
        let Some(receiver) = call.receiver() else {
            if is_code(&name) {
                return refuse(
                    node,
                    format!("{name} is code, which is not run here: leave it out or write values"),
                );
            }
            return match arguments.as_slice() {
                [] => refuse(node, format!("{name} alone sets nothing: write a value after it")),
                [one] => {
                    self.keys.clear();
                    // `whitelist ({ … })`, with a space, has the hash in parentheses of its own.
                    let inner = one.as_parentheses_node().and_then(|parentheses| single(parentheses.body()));
                    let value = self.value(inner.as_ref().unwrap_or(one), 0)?;
                    let keys = std::mem::take(&mut self.keys);
                    self.settings.set_placed(&name, value, keys);
                    Ok(())
                }
                several => {
                    let mut values = Vec::with_capacity(several.len());
                    for argument in several {
                        values.push(self.value(argument, 0)?);
                    }
                    self.settings.set(&name, Value::Array(values));
                    Ok(())
                }
            };
        };
        match (name.as_str(), constant(&receiver).as_deref(), arguments.as_slice()) {
            ("[]=", Some("Chef::Config"), [key, value]) => {
                let value = self.value(value, 0)?;
                match self.value(key, 0)?.as_text() {
                    Some(key) => self.settings.set(key, value),
                    None => return refuse(key, "a setting's name must be a symbol or string"),
                }
                Ok(())
            }
            ("[]=", None, [member, value]) if bare_name(&receiver).is_some() => {
                let key = bare_name(&receiver).unwrap_or_default();
                let value = self.value(value, 0)?;
                match self.value(member, 0)? {
                    // Chef keeps these under symbols; a string names the same member to every reader.
                    Value::Symbol(name) | Value::String(name) => {
                        self.settings.set_member(&key, Value::Symbol(name), value);
                        Ok(())
                    }
                    _ => refuse(member, format!("a member of {key} must be named by a symbol or string")),
                }
            }
            ("show_time=", Some("Mixlib::Log::Formatter"), [value]) => {
                let value = self.value(value, 0)?;
                match value {
                    Value::Bool(_) => self.settings.set("Mixlib::Log::Formatter.show_time", value),
                    _ => return refuse(node, "Mixlib::Log::Formatter.show_time must be true or false"),
                }
                Ok(())
            }
            _ => refuse(node, call_refusal(&name)),
        }
    }

    /// Counts what is built, so that copies of copies end.
    fn charge(&mut self, node: &Node<'_>, amount: usize) -> Taken<()> {
        self.built = self.built.saturating_add(amount);
        if self.built > MAX_BUILT {
            return refuse(node, format!("the values of this file grow larger than {MAX_BUILT} bytes"));
        }
        Ok(())
    }

    fn string(&mut self, node: &Node<'_>, bytes: &[u8]) -> Taken<String> {
        self.charge(node, bytes.len())?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => refuse(node, "this text is not UTF-8: write its characters, not their bytes"),
        }
    }

    fn value(&mut self, node: &Node<'_>, depth: usize) -> Taken<Value> {
        if depth > MAX_DEPTH {
            return refuse(node, format!("values nest deeper than {MAX_DEPTH}"));
        }
        self.charge(node, 1)?;
        if let Some(string) = node.as_string_node() {
            return Ok(Value::String(self.string(node, string.unescaped())?));
        }
        if let Some(symbol) = node.as_symbol_node() {
            return Ok(Value::Symbol(self.string(node, symbol.unescaped())?));
        }
        if let Some(interpolated) = node.as_interpolated_string_node() {
            return Ok(Value::String(self.parts(node, interpolated.parts(), depth)?));
        }
        if let Some(interpolated) = node.as_interpolated_symbol_node() {
            return Ok(Value::Symbol(self.parts(node, interpolated.parts(), depth)?));
        }
        if node.as_true_node().is_some() {
            return Ok(Value::Bool(true));
        }
        if node.as_false_node().is_some() {
            return Ok(Value::Bool(false));
        }
        if node.as_nil_node().is_some() {
            return Ok(Value::Nil);
        }
        if let Some(integer) = node.as_integer_node() {
            let (negative, digits) = {
                let value = integer.value();
                let (negative, digits) = value.to_u32_digits();
                (negative, digits.to_vec())
            };
            let number = match digits.as_slice() {
                [] => Some(0),
                [low] => Some(i64::from(*low)),
                [low, high] => i64::try_from(u64::from(*high) << 32 | u64::from(*low)).ok(),
                _ => None,
            };
            return match number {
                Some(number) => Ok(Value::Integer(if negative { -number } else { number })),
                None => refuse(node, "this number is too large"),
            };
        }
        if let Some(float) = node.as_float_node() {
            return Ok(Value::Float(float.value()));
        }
        if let Some(regexp) = node.as_regular_expression_node() {
            return Ok(Value::Regexp(Regexp {
                source: self.string(node, regexp.unescaped())?,
                ignore_case: regexp.is_ignore_case(),
                multi_line: regexp.is_multi_line(),
                extended: regexp.is_extended(),
            }));
        }
        if let Some(array) = node.as_array_node() {
            let mut elements = Vec::new();
            for element in array.elements().iter() {
                elements.push(self.value(&element, depth + 1)?);
            }
            return Ok(Value::Array(elements));
        }
        if let Some(hash) = node.as_hash_node() {
            return self.hash(hash.elements(), depth);
        }
        if let Some(hash) = node.as_keyword_hash_node() {
            return self.hash(hash.elements(), depth);
        }
        if let Some(parentheses) = node.as_parentheses_node() {
            return match single(parentheses.body()) {
                Some(inner) => self.value(&inner, depth + 1),
                None => refuse(node, "parentheses must hold one value"),
            };
        }
        if let Some(read) = node.as_local_variable_read_node() {
            return self.variable(node, &text(read.name().as_slice()));
        }
        if node.as_source_file_node().is_some() {
            return Ok(Value::String(self.file.to_owned()));
        }
        if let Some(global) = node.as_global_variable_read_node() {
            match global.name().as_slice() {
                b"$stdout" => return Ok(Value::Stdout),
                b"$stderr" => return Ok(Value::Stderr),
                _ => {}
            }
        }
        if let Some(name) = constant(node) {
            return match name.as_str() {
                "STDOUT" => Ok(Value::Stdout),
                "STDERR" => Ok(Value::Stderr),
                name => self.variable(node, name),
            };
        }
        if let Some(call) = node.as_call_node() {
            return self.call(node, &call, depth);
        }
        refuse(node, refusal(node))
    }

    fn variable(&mut self, node: &Node<'_>, name: &str) -> Taken<Value> {
        match self.variables.get(name).cloned() {
            Some(value) => {
                self.charge(node, size(&value))?;
                Ok(value)
            }
            None => refuse(
                node,
                format!("{name} has no value here: assign a value to it first, or write the value"),
            ),
        }
    }

    fn hash(&mut self, elements: NodeList<'_>, depth: usize) -> Taken<Value> {
        let mut pairs: Vec<(Value, Value)> = Vec::new();
        for element in elements.iter() {
            let Some(pair) = element.as_assoc_node() else {
                return refuse(&element, "** in a hash is not supported: write its pairs");
            };
            if pairs.len() >= MAX_PAIRS {
                return refuse(&element, format!("a hash has more than {MAX_PAIRS} pairs"));
            }
            let key = self.value(&pair.key(), depth + 1)?;
            let value_node = pair.value();
            if value_node.as_implicit_node().is_some() {
                return refuse(&value_node, "a key without a value is not supported: write the value");
            }
            let value = self.value(&value_node, depth + 1)?;
            if depth == 0 {
                self.keys.retain(|(known, _)| *known != key);
                self.keys.push((key.clone(), pair.location().start() as usize));
            }
            // Ruby keeps the place of the first and the value of the last.
            match pairs.iter_mut().find(|(k, _)| *k == key) {
                Some(pair) => pair.1 = value,
                None => pairs.push((key, value)),
            }
        }
        Ok(Value::Hash(pairs))
    }

    /// The text of an interpolated string.
    fn parts(&mut self, node: &Node<'_>, parts: NodeList<'_>, depth: usize) -> Taken<String> {
        let mut joined = String::new();
        for part in parts.iter() {
            if let Some(embedded) = part.as_embedded_statements_node() {
                let inner = embedded.statements().map(|s| s.as_node());
                let Some(inner) = single(inner) else {
                    return refuse(&part, "#{} must hold one value");
                };
                match self.value(&inner, depth + 1)? {
                    Value::String(text) | Value::Symbol(text) => joined.push_str(&text),
                    Value::Integer(number) => joined.push_str(&number.to_string()),
                    Value::Bool(value) => joined.push_str(if value { "true" } else { "false" }),
                    Value::Nil => {}
                    other => {
                        return refuse(&part, format!("{} cannot stand in #{{}}: write text", other.kind()));
                    }
                }
            } else {
                match self.value(&part, depth + 1)? {
                    Value::String(text) => joined.push_str(&text),
                    other => return refuse(&part, format!("{} cannot stand in a string", other.kind())),
                }
            }
        }
        self.charge(node, joined.len())?;
        Ok(joined)
    }

    /// A call in the place of a value.
    fn call(&mut self, node: &Node<'_>, call: &CallNode<'_>, depth: usize) -> Taken<Value> {
        let name = text(call.name().as_slice());
        if call.block().is_some() {
            return refuse(
                node,
                format!("{name} with a block is code, which is not run here: write its result"),
            );
        }
        let arguments: Vec<Node<'_>> =
            call.arguments().map(|a| a.arguments().iter().collect()).unwrap_or_default();
        let Some(receiver) = call.receiver() else {
            if name == "__dir__" && arguments.is_empty() {
                return Ok(Value::String(paths::dirname(self.file)));
            }
            // A bare name reads the setting that the file has set before.
            return match self.settings.get(&name).filter(|_| arguments.is_empty()).cloned() {
                Some(value) => {
                    self.charge(node, size(&value))?;
                    Ok(value)
                }
                None if arguments.is_empty() => refuse(
                    node,
                    format!("{name} has no value here: quote it if it is text, or set it before"),
                ),
                None => refuse(node, call_refusal(&name)),
            };
        };
        match (constant(&receiver).as_deref(), name.as_str(), arguments.as_slice()) {
            (Some("ENV"), "[]", [key]) => {
                let key = self.text_of(key, depth)?;
                Ok((self.environment)(&key).map_or(Value::Nil, Value::String))
            }
            (Some("ENV"), "fetch", [key]) => {
                let key_text = self.text_of(key, depth)?;
                match (self.environment)(&key_text) {
                    Some(value) => Ok(Value::String(value)),
                    None => refuse(
                        node,
                        format!(
                            "the environment variable {key_text} is not set: set it, or give ENV.fetch a default"
                        ),
                    ),
                }
            }
            (Some("ENV"), "fetch", [key, default]) => {
                let key = self.text_of(key, depth)?;
                let default = self.value(default, depth + 1)?;
                Ok((self.environment)(&key).map_or(default, Value::String))
            }
            (Some("File"), "dirname", [path]) => {
                let path = self.text_of(path, depth)?;
                Ok(Value::String(paths::dirname(&path)))
            }
            (Some("File"), "join", parts) => {
                let mut texts = Vec::with_capacity(parts.len());
                for part in parts {
                    texts.push(self.text_of(part, depth)?);
                }
                let joined = paths::join(&texts);
                self.charge(node, joined.len())?;
                Ok(Value::String(joined))
            }
            (Some("File"), "expand_path", [path]) => {
                let path = self.text_of(path, depth)?;
                self.expanded(node, &path, None)
            }
            (Some("File"), "expand_path", [path, base]) => {
                let path = self.text_of(path, depth)?;
                let base = self.text_of(base, depth)?;
                self.expanded(node, &path, Some(&base))
            }
            (None, "+", [right]) => {
                let left = self.value(&receiver, depth + 1)?;
                let right_value = self.value(right, depth + 1)?;
                match (left, right_value) {
                    (Value::String(left), Value::String(right)) => {
                        self.charge(node, left.len() + right.len())?;
                        Ok(Value::String(left + &right))
                    }
                    _ => refuse(node, "+ is supported between strings only: write the result"),
                }
            }
            _ => refuse(node, call_refusal(&name)),
        }
    }

    fn text_of(&mut self, node: &Node<'_>, depth: usize) -> Taken<String> {
        match self.value(node, depth + 1)? {
            Value::String(text) => Ok(text),
            other => refuse(node, format!("a string is needed here, not {}", other.kind())),
        }
    }

    fn expanded(&mut self, node: &Node<'_>, path: &str, base: Option<&str>) -> Taken<Value> {
        match paths::expand(path, base, self.environment) {
            Some(path) => {
                self.charge(node, path.len())?;
                Ok(Value::String(path))
            }
            None => {
                refuse(node, "the directory this path is relative to is not known: write an absolute path")
            }
        }
    }
}

/// Roughly what a value takes, for the budget.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::String(text) | Value::Symbol(text) => text.len(),
        Value::Regexp(regexp) => regexp.source.len(),
        Value::Array(elements) => elements.iter().map(size).sum(),
        Value::Hash(pairs) => pairs.iter().map(|(key, value)| size(key) + size(value)).sum(),
        _ => 0,
    }
}

/// The only statement of a body.
fn single<'pr>(body: Option<Node<'pr>>) -> Option<Node<'pr>> {
    let body = body?;
    match body.as_statements_node() {
        None => Some(body),
        Some(statements) => {
            let mut all = statements.body().iter();
            let first = all.next();
            first.filter(|_| all.next().is_none())
        }
    }
}

/// The name of a constant such as `File`, `::ENV` or `Chef::Config`.
fn constant(node: &Node<'_>) -> Option<String> {
    let parts = if let Some(read) = node.as_constant_read_node() {
        vec![text(read.name().as_slice())]
    } else {
        let path = node.as_constant_path_node()?;
        path.full_name_parts().ok()?.into_iter().map(text).filter(|part| !part.is_empty()).collect()
    };
    Some(parts.join("::"))
}

/// The name of a call without receiver and arguments, as `knife` in `knife[:x]`.
fn bare_name(node: &Node<'_>) -> Option<String> {
    let call = node.as_call_node()?;
    let bare = call.receiver().is_none() && call.arguments().is_none() && call.block().is_none();
    bare.then(|| text(call.name().as_slice()))
}
