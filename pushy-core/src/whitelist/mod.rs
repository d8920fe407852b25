//! The whitelist: which commands a node runs, and what they stand for (7.4, 7.5).
//!
//! Exact keys come first, then patterns in their order. A pattern must match the whole command (D-41) unless the
//! configuration asks for the original's rule with [`Matching::Anywhere`]. Entries that cannot be used are refused
//! when the whitelist is built, never when a command comes in; [`Whitelist::notices`] lists what deserves a line in
//! the log besides.

use std::collections::HashMap;
use std::fmt;

use fancy_regex::{Regex, RegexBuilder};

use crate::error::{Error, ErrorCode, Result};
use crate::value::{Regexp, Value};

mod charclass;
mod entry;
mod extent;
mod notice;
mod published;
mod template;
mod translate;

pub use notice::{Notice, NoticeKind};
pub use published::published;

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
}

struct Exact {
    key: String,
    action: Option<Action>,
}

struct Pattern {
    key: String,
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
        let exact = Exact { key: "\"chef-client\"".to_owned(), action: Some(action) };
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
        match self.decide(command) {
            Verdict::Allowed(allowed) => Some(allowed),
            Verdict::NotListed | Verdict::GaveUp { .. } => None,
        }
    }

    /// Whether `command` may run, as what, and if not, why.
    pub fn decide(&self, command: &str) -> Verdict {
        // No process can be started with it.
        if command.contains('\0') {
            return Verdict::NotListed;
        }
        if let Some(exact) = self.exact.get(command) {
            return match &exact.action {
                Some(action) => Verdict::Allowed(action.exact(&exact.key)),
                None => Verdict::NotListed,
            };
        }
        for pattern in &self.patterns {
            match pattern.regex.captures(command) {
                Ok(None) => {}
                Err(_) => return Verdict::GaveUp { entry: pattern.key.clone() },
                Ok(Some(found)) => {
                    let Some(action) = &pattern.action else { return Verdict::NotListed };
                    return match self.matching {
                        Matching::Whole => Verdict::Allowed(action.fill(&pattern.key, command, &found)),
                        Matching::Anywhere => match action.substitute(pattern, command, found) {
                            Some(allowed) => Verdict::Allowed(allowed),
                            None => Verdict::GaveUp { entry: pattern.key.clone() },
                        },
                    };
                }
            }
        }
        Verdict::NotListed
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

/// Collects entries and turns them into a [`Whitelist`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    matching: Matching,
    entries: Vec<(Key, Value)>,
    ignored: Vec<Notice>,
}

impl Builder {
    /// How much of a command patterns must match.
    pub fn matching(mut self, matching: Matching) -> Builder {
        self.matching = matching;
        self
    }

    /// Adds an entry; a second one with the same key takes the place of the first, as in a Ruby hash.
    ///
    /// `value` is a command line; `nil` or `false` (forbidden); or a hash with `command_line` (text, or an array:
    /// program and arguments without a shell) and, all optional, `lock`, `quote`, `user`, `dir`, `env`. Under a
    /// pattern, command lines are templates.
    pub fn entry(mut self, key: Key, value: impl Into<Value>) -> Builder {
        let value = value.into();
        match self.entries.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((key, value)),
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
        for (key, value) in self.entries {
            let shown = key.to_string();
            let failed = |reason: String| {
                Error::new(ErrorCode::InvalidWhitelist, format!("whitelist entry {shown}: {reason}"))
            };
            match key {
                Key::Exact(text) => {
                    let action = Action::read(&value, None, self.matching).map_err(failed)?;
                    whitelist.notices.extend(notice::of_exact(&shown, &value));
                    whitelist.exact.insert(text, Exact { key: shown, action });
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
                    whitelist.patterns.push(Pattern { key: shown, regex, action });
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
