//! The whitelist: which commands a node runs, and what they stand for (7.4, 7.5).
//!
//! Exact keys come first, then patterns in their order. A pattern must match the whole command (D-41) unless the
//! configuration asks for the original's rule with [`Matching::Anywhere`]. Entries that cannot be used are refused
//! when the whitelist is built, never when a command comes in; [`Whitelist::notices`] lists what deserves a line in
//! the log besides.

use std::collections::HashMap;
use std::fmt;

use fancy_regex::{Captures, Regex, RegexBuilder};

use crate::error::{Error, ErrorCode, Result};
use crate::value::{Regexp, Value};

mod charclass;
mod entry;
mod extent;
mod notice;
mod parameters;
mod place;
mod published;
mod template;
mod translate;

pub use notice::{Notice, NoticeKind};
pub use parameters::{MAX_PARAMETER, MAX_PARAMETER_NAME, MAX_PARAMETERS, is_parameter_name};
pub use place::Place;
pub use published::{of_builder as published_of, published};

use entry::Action;
use translate::Translated;

/// Steps back that one search may take before the pattern is given up.
const BACKTRACK_LIMIT: usize = 500_000;

/// How much of a command a pattern must match (D-41).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Matching {
    /// All of it, as between `\A(?:` and `)\z`; the value takes its place.
    #[default]
    Whole,
    /// Any part, as the original: the value replaces every match and the text around stays.
    Anywhere,
}

impl Matching {
    /// The value of the setting `whitelist_match`: `whole` or `anywhere`.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`] for anything else.
    pub fn from_value(value: &Value) -> Result<Matching> {
        match value.as_text() {
            Some("whole") => Ok(Matching::Whole),
            Some("anywhere") => Ok(Matching::Anywhere),
            _ => Err(Error::new(
                ErrorCode::InvalidConfig,
                "whitelist_match must be :whole or :anywhere (the original's rule)",
            )),
        }
    }
}

/// What a whitelist entry answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The whole command, character by character.
    Exact(String),
    /// A Ruby pattern.
    Pattern(Regexp),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Enough to find the entry, short enough for one line.
        const SHOWN: usize = 100;
        let text = match self {
            Key::Exact(text) => format!("{text:?}"),
            Key::Pattern(regexp) => regexp.to_string().escape_debug().to_string().replace("\\\\", "\\"),
        };
        if text.chars().count() > SHOWN {
            let start: String = text.chars().take(SHOWN).collect();
            write!(f, "{start}…")
        } else {
            f.write_str(&text)
        }
    }
}

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Through `/bin/sh -c`.
    Shell(String),
    /// Program and arguments, no shell; never empty.
    Args(Vec<String>),
}

/// The lock that must be free when the job is committed (7.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    /// `lock: true`: Chef's own, from the setting `lockfile` or below `file_cache_path`.
    ChefClient,
    /// The file with this path.
    Path(String),
}

/// A command that may run, and how. What is set here is enforced: it wins over the job's own options (D-44).
#[derive(Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The entry that allows it, for the log.
    pub entry: String,
    /// What to execute.
    pub command: CommandLine,
    /// The lock to try first.
    pub lock: Option<Lock>,
    /// The only user it may run as.
    pub user: Option<String>,
    /// The only directory it may run in.
    pub dir: Option<String>,
    /// Variables that win over the job's. Values are secrets: never logged.
    pub env: Vec<(String, String)>,
}

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowed")
            .field("entry", &self.entry)
            .field("command", &self.command)
            .field("lock", &self.lock)
            .field("user", &self.user)
            .field("dir", &self.dir)
            .field("env", &self.env.len())
            .finish()
    }
}

/// What the whitelist says to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may run.
    Allowed(Allowed),
    /// No entry allows it, or one with the value `nil` or `false` forbids it.
    NotListed,
    /// This entry's pattern took too many steps. Whether it matches is unknown, so the command is refused; worth a
    /// warning, as the pattern should be rewritten.
    GaveUp {
        /// The entry.
        entry: String,
    },
    /// The job's parameters do not fit this entry.
    BadParameters {
        /// The entry.
        entry: String,
        /// Which parameter breaks which rule, one line without values.
        why: String,
    },
}

/// The entry that answers to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answering<'a> {
    /// The entry, as in [`Allowed::entry`] and [`Notice::entry`].
    pub entry: &'a str,
    /// Where it is written, if that is known.
    pub place: Option<&'a Place>,
    /// Whether it forbids the command.
    pub forbids: bool,
}

struct Exact {
    key: String,
    place: Option<Place>,
    action: Option<Action>,
}

struct Pattern {
    key: String,
    place: Option<Place>,
    regex: Regex,
    action: Option<Action>,
}

/// The commands that a node runs.
pub struct Whitelist {
    matching: Matching,
    exact: HashMap<String, Exact>,
    patterns: Vec<Pattern>,
    notices: Vec<Notice>,
}

impl Default for Whitelist {
    /// The original's: `chef-client` and nothing else (7.4).
    fn default() -> Whitelist {
        let mut whitelist = Whitelist::empty(Matching::Whole);
        let action = Action::verbatim("chef-client");
        let exact = Exact { key: "\"chef-client\"".to_owned(), place: None, action: Some(action) };
        whitelist.exact.insert("chef-client".to_owned(), exact);
        whitelist
    }
}

impl fmt::Debug for Whitelist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whitelist")
            .field("matching", &self.matching)
            .field("exact", &self.exact.len())
            .field("patterns", &self.patterns.len())
            .finish()
    }
}

impl Whitelist {
    fn empty(matching: Matching) -> Whitelist {
        Whitelist { matching, exact: HashMap::new(), patterns: Vec::new(), notices: Vec::new() }
    }

    /// Starts a whitelist that allows nothing.
    pub fn builder() -> Builder {
        Builder { matching: Matching::default(), entries: Vec::new(), ignored: Vec::new() }
    }

    /// The value of the setting `whitelist`.
    ///
    /// Accepted are a hash from commands or patterns to values, as in Ruby; an array of `[key, value]` pairs; and an
    /// array of tables with `command` or `pattern` (and `options`, letters out of `imx`) beside the members of a
    /// hash value, which is the form for TOML and JSON. A key `{"regexp": …, "options": …}` is a pattern too.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidWhitelist`], naming the entry.
    pub fn from_value(value: &Value, matching: Matching) -> Result<Whitelist> {
        entry::collect(value, matching)?.build()
    }

    /// What is listed for `command`, with substitutions done. See [`Whitelist::decide`] for the reason of a refusal.
    pub fn look_up(&self, command: &str) -> Option<Allowed> {
        match self.decide(command, &[]) {
            Verdict::Allowed(allowed) => Some(allowed),
            Verdict::NotListed | Verdict::GaveUp { .. } | Verdict::BadParameters { .. } => None,
        }
    }

    /// Whether `command` may run with these parameters, as what, and if not, why.
    pub fn decide(&self, command: &str, parameters: &[(String, String)]) -> Verdict {
        let (key, action, found) = match self.find(command) {
            Found::None => return Verdict::NotListed,
            Found::GaveUp(pattern) => return Verdict::GaveUp { entry: pattern.key.clone() },
            Found::Exact(exact) => (&exact.key, &exact.action, None),
            Found::Pattern(pattern, found) => (&pattern.key, &pattern.action, Some((pattern, found))),
        };
        let Some(action) = action else { return Verdict::NotListed };
        let values = match action.values(parameters) {
            Ok(values) => values,
            Err(why) => return Verdict::BadParameters { entry: key.clone(), why },
        };
        match (found, self.matching) {
            (None, _) => Verdict::Allowed(action.exact(key, &values)),
            (Some((_, found)), Matching::Whole) => {
                Verdict::Allowed(action.fill(key, command, &found, &values))
            }
            (Some((pattern, found)), Matching::Anywhere) => {
                match action.substitute(pattern, command, found, &values) {
                    Some(allowed) => Verdict::Allowed(allowed),
                    None => Verdict::GaveUp { entry: key.clone() },
                }
            }
        }
    }

    /// The entry that decides about `command`, for people who want to know. `None` when there is none.
    pub fn answering(&self, command: &str) -> Option<Answering<'_>> {
        let (entry, place, forbids) = match self.find(command) {
            Found::None => return None,
            Found::Exact(exact) => (&exact.key, &exact.place, exact.action.is_none()),
            Found::GaveUp(pattern) => (&pattern.key, &pattern.place, false),
            Found::Pattern(pattern, _) => (&pattern.key, &pattern.place, pattern.action.is_none()),
        };
        Some(Answering { entry, place: place.as_ref(), forbids })
    }

    fn find<'c>(&self, command: &'c str) -> Found<'_, 'c> {
        // No process can be started with it.
        if command.contains('\0') {
            return Found::None;
        }
        if let Some(exact) = self.exact.get(command) {
            return Found::Exact(exact);
        }
        for pattern in &self.patterns {
            match pattern.regex.captures(command) {
                Ok(None) => {}
                Err(_) => return Found::GaveUp(pattern),
                Ok(Some(found)) => return Found::Pattern(pattern, found),
            }
        }
        Found::None
    }

    /// What an operator should know about the entries; to be logged once at start.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Number of entries that can answer.
    pub fn len(&self) -> usize {
        self.exact.len() + self.patterns.len()
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a command leads to.
enum Found<'w, 'c> {
    None,
    Exact(&'w Exact),
    Pattern(&'w Pattern, Captures<'c, str>),
    GaveUp(&'w Pattern),
}

/// Collects entries and turns them into a [`Whitelist`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    matching: Matching,
    entries: Vec<Entry>,
    ignored: Vec<Notice>,
}

/// An entry that has not been looked at.
#[derive(Debug, Clone)]
struct Entry {
    key: Key,
    value: Value,
    place: Option<Place>,
}

impl Builder {
    /// The entries of the value of a setting `whitelist`; see [`Whitelist::from_value`].
    ///
    /// # Errors
    /// [`ErrorCode::InvalidWhitelist`] for what cannot be an entry at all.
    pub fn from_value(value: &Value, matching: Matching) -> Result<Builder> {
        entry::collect(value, matching)
    }

    /// Says where the entries are written: `line` gives the line of a key, if it is known.
    pub fn placed(mut self, file: &str, line: impl Fn(&Value) -> Option<usize>) -> Builder {
        for entry in &mut self.entries {
            let line = match &entry.key {
                Key::Exact(text) => line(&Value::String(text.clone())),
                Key::Pattern(regexp) => line(&Value::Regexp(regexp.clone())),
            };
            entry.place = Some(Place::new(file, line));
        }
        self
    }

    /// Adds the entries of a later file. Where both have a key the later one counts, in the earlier one's place, and
    /// a notice says so.
    pub fn followed_by(mut self, later: Builder) -> Builder {
        self.ignored.extend(later.ignored);
        for entry in later.entries {
            match self.entries.iter_mut().find(|known| known.key == entry.key) {
                Some(known) => {
                    if let (Some(at), Some(by)) = (known.place.clone(), entry.place.clone()) {
                        let kind = NoticeKind::Replaced { by, at };
                        self.ignored.push(Notice { entry: entry.key.to_string(), kind });
                    }
                    *known = entry;
                }
                None => self.entries.push(entry),
            }
        }
        self
    }

    /// Keys and values as they were given.
    pub(crate) fn pairs(self) -> impl Iterator<Item = (Key, Value)> {
        self.entries.into_iter().map(|entry| (entry.key, entry.value))
    }

    /// How much of a command patterns must match.
    pub fn matching(mut self, matching: Matching) -> Builder {
        self.matching = matching;
        self
    }

    /// Adds an entry; a second one with the same key takes the place of the first, as in a Ruby hash.
    ///
    /// `value` is a command line; `nil` or `false` (forbidden); or a hash with `command_line` (text, or an array:
    /// program and arguments without a shell) and, all optional, `lock`, `quote`, `user`, `dir`, `env`, `parameters`. Under a
    /// pattern, command lines are templates.
    pub fn entry(mut self, key: Key, value: impl Into<Value>) -> Builder {
        let value = value.into();
        match self.entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => entry.value = value,
            None => self.entries.push(Entry { key, value, place: None }),
        }
        self
    }

    /// Checks every entry and builds the whitelist.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidWhitelist`], naming the first entry that cannot be used and why.
    pub fn build(self) -> Result<Whitelist> {
        let mut whitelist = Whitelist::empty(self.matching);
        whitelist.notices = self.ignored;
        for Entry { key, value, place } in self.entries {
            let shown = key.to_string();
            let failed = |reason: String| {
                let error =
                    Error::new(ErrorCode::InvalidWhitelist, format!("whitelist entry {shown}: {reason}"));
                match &place {
                    Some(place) => error.context(place),
                    None => error,
                }
            };
            match key {
                Key::Exact(text) => {
                    let action = Action::read(&value, None, self.matching).map_err(failed)?;
                    whitelist.notices.extend(notice::of_exact(&shown, &value));
                    whitelist.notices.extend(notice::of_parameters(&shown, action.as_ref()));
                    whitelist.exact.insert(text, Exact { key: shown, place, action });
                }
                Key::Pattern(regexp) => {
                    let (translated, regex) = compile(&regexp, self.matching).map_err(&failed)?;
                    let action = Action::read(&value, Some(&translated), self.matching).map_err(failed)?;
                    whitelist.notices.extend(notice::of_pattern(
                        &shown,
                        &value,
                        &translated,
                        action.as_ref(),
                        self.matching,
                    ));
                    whitelist.notices.extend(notice::of_parameters(&shown, action.as_ref()));
                    whitelist.patterns.push(Pattern { key: shown, place, regex, action });
                }
            }
        }
        Ok(whitelist)
    }
}

fn compile(regexp: &Regexp, matching: Matching) -> std::result::Result<(Translated, Regex), String> {
    let translated = translate::translate(regexp, matching == Matching::Whole)
        .map_err(|reason| format!("the pattern cannot be used: {reason}"))?;
    let regex = RegexBuilder::new(&translated.text)
        .backtrack_limit(BACKTRACK_LIMIT)
        .build()
        .map_err(|e| format!("the pattern cannot be used: {}", first_line(&e.to_string())))?;
    Ok((translated, regex))
}

fn first_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // The engine draws a picture of the pattern; its last line says what is wrong.
    lines.last().copied().unwrap_or("not understood").to_owned()
}
