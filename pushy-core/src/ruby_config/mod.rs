//! Ruby configuration files, read without running Ruby (7.9, decision 1).
//!
//! Ruby's own parser reads the file; a walk with an allow-list takes the values. What is understood: literals, `%w`,
//! `%r`, `ENV['X']`, `ENV.fetch('X', 'd')`, `+` and interpolation of strings, local variables and constants assigned
//! from these, `File.dirname(__FILE__)`, `__dir__`, `File.join`, `File.expand_path`, `STDOUT`, `STDERR`,
//! `knife[:x] = …`, `Mixlib::Log::Formatter.show_time = …`. Everything else is refused with file, line, column and
//! what to write instead: a setting that is silently dropped looks like a server's fault.
//!
//! The file is not trusted to be small or shallow: size, nesting and what interpolation builds are bounded.

mod paths;
mod walk;
mod words;

use crate::error::{Error, ErrorCode, Result};
use crate::value::Value;

/// The largest file read, in bytes.
pub const MAX_FILE: usize = 1_000_000;

/// The most settings, and the most pairs of one hash.
const MAX_PAIRS: usize = 5_000;

/// Ruby's parser takes time with the square of a row of signs such as `!!!` or `not not`; nobody writes so many.
const MAX_SIGNS: usize = 1_000;

/// Ruby's parser stops at 10,000 levels, which took up to 8 MB of stack when measured unoptimised.
const STACK: usize = 64 * 1024 * 1024;

/// What a configuration file says, in the order written; a key set twice has its last value.
#[derive(Clone, Default)]
pub struct Settings {
    pairs: Vec<(String, Value)>,
    /// Where the pairs of a setting's hash are written: setting, key, byte until the file is read, then line.
    places: Vec<(String, Value, usize)>,
}

/// Where things are written does not count.
impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        self.pairs == other.pairs
    }
}

/// Names alone: values may be keys and passwords.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(|(key, _)| key)).finish()
    }
}

impl Settings {
    /// A setting's value; `None` when the file does not set it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// The line, counted from 1, on which a hash given to `setting` has this key; `None` if it was not written there.
    pub fn line_of(&self, setting: &str, key: &Value) -> Option<usize> {
        self.places.iter().find(|(s, k, _)| s == setting && k == key).map(|(_, _, line)| *line)
    }

    /// Every setting.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Sets a value, in place if the key is there.
    pub fn set(&mut self, key: &str, value: Value) {
        self.places.retain(|(setting, _, _)| setting != key);
        match self.pairs.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value,
            None => self.pairs.push((key.to_owned(), value)),
        }
    }

    /// Sets `key[member]`, making the hash if there is none (or something else in its place).
    pub fn set_member(&mut self, key: &str, member: Value, value: Value) {
        let index = match self.pairs.iter().position(|(k, _)| k == key) {
            Some(index) => index,
            None => {
                self.pairs.push((key.to_owned(), Value::Hash(Vec::new())));
                self.pairs.len() - 1
            }
        };
        let hash = &mut self.pairs[index].1;
        if !matches!(hash, Value::Hash(_)) {
            *hash = Value::Hash(Vec::new());
        }
        if let Value::Hash(pairs) = hash {
            match pairs.iter_mut().find(|(k, _)| *k == member) {
                Some(pair) => pair.1 = value,
                None => pairs.push((member, value)),
            }
        }
    }

    /// The same as [`Settings::set`] for a hash whose keys begin at these bytes.
    fn set_placed(&mut self, key: &str, value: Value, places: Vec<(Value, usize)>) {
        self.set(key, value);
        self.places.extend(places.into_iter().map(|(member, at)| (key.to_owned(), member, at)));
    }

    /// Turns bytes into lines.
    fn number_lines(&mut self, source: &[u8]) {
        self.places.sort_by_key(|(_, _, at)| *at);
        let (mut line, mut counted) = (1, 0);
        for (_, _, at) in &mut self.places {
            let end = (*at).clamp(counted, source.len());
            line += source[counted..end].iter().filter(|byte| **byte == b'\n').count();
            counted = end;
            *at = line;
        }
    }

    /// Takes over every setting of `later`, which wins; hashes such as `knife` are merged member by member.
    pub fn merge(&mut self, later: Settings) {
        for (key, value) in later.pairs {
            match value {
                Value::Hash(members) if matches!(self.get(&key), Some(Value::Hash(_))) => {
                    for (member, value) in members {
                        self.set_member(&key, member, value);
                    }
                }
                value => self.set(&key, value),
            }
        }
    }
}

/// Reads a configuration file.
///
/// `file` is its path: it stands in messages and is what `__FILE__` means, so it should be absolute. `environment`
/// answers for `ENV`, and for `HOME` and `PWD` where `File.expand_path` needs them.
///
/// # Errors
/// [`ErrorCode::InvalidConfig`] as `FILE:LINE:COLUMN: what is wrong and what to write`, columns counted from 1 in
/// characters.
pub fn read(file: &str, source: &[u8], environment: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
    let invalid = |message: String| Error::new(ErrorCode::InvalidConfig, message);
    if source.len() > MAX_FILE {
        return Err(invalid(format!("{file}: the file is larger than {MAX_FILE} bytes")));
    }
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    let text = match std::str::from_utf8(source) {
        Ok(text) => text,
        Err(e) => {
            let place = place(source, e.valid_up_to());
            return Err(invalid(format!("{file}:{place}: the file is not UTF-8: save it as UTF-8")));
        }
    };
    if let Some(at) = long_row_of_signs(source) {
        let place = place(source, at);
        return Err(invalid(format!(
            "{file}:{place}: more than {MAX_SIGNS} signs in a row: write the value"
        )));
    }
    stacker::grow(STACK, || {
        let parsed = ruby_prism::parse(source);
        let refused = match parsed.errors().next() {
            Some(first) => Err(walk::Refused {
                at: first.location().start() as usize,
                message: format!("syntax error: {}", String::from_utf8_lossy(first.message())),
            }),
            None => walk::Walk::new(file, environment).program(&parsed.node(), text, parsed.magic_comments()),
        };
        let settings = refused.map(|mut settings| {
            settings.number_lines(source);
            settings
        });
        settings.map_err(|refused| {
            let place = place(source, refused.at);
            invalid(format!("{file}:{place}: {}", refused.message.replace('\n', " ")))
        })
    })
}

/// Where a row of prefix signs, with or without white space between, gets too long.
fn long_row_of_signs(source: &[u8]) -> Option<usize> {
    let mut row = 0;
    let mut at = 0;
    while let Some(byte) = source.get(at) {
        match byte {
            b'!' | b'~' | b'-' | b'+' => row += 1,
            byte if byte.is_ascii_whitespace() => {}
            b'n' if source[at..].starts_with(b"not") => {
                row += 1;
                at += 2;
            }
            _ => row = 0,
        }
        if row > MAX_SIGNS {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// `LINE:COLUMN` of a byte, both counted from 1, columns in characters.
fn place(source: &[u8], at: usize) -> String {
    let before = &source[..at.min(source.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    format!("{line}:{column}")
}
