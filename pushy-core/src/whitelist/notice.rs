//! What an operator should know about a whitelist that is accepted all the same.

use std::fmt;

use super::entry::{Action, MEMBERS};
use super::translate::Translated;
use super::{Matching, Place};
use crate::value::Value;

/// Characters that a shell takes as more than themselves.
const SHELL: &str = ";&|<>$`\"'\\(){}*?[]~#!\n";

/// One line for the log at start, about one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The entry.
    pub entry: String,
    /// What about it.
    pub kind: NoticeKind,
}

/// Why an entry deserves a line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoticeKind {
    /// A caller may put shell characters into these groups, which the command line copies unquoted (decision 16).
    ShellCharacters {
        /// Numbers of the groups; 0 is the whole match.
        groups: Vec<usize>,
    },
    /// With [`Matching::Anywhere`]: text of the caller's may stay around the match (D-41).
    TextAround,
    /// The pattern is not anchored: the original let it match inside a longer command, here it no longer does.
    WholeOnly,
    /// The key is neither a string nor a pattern, and never matches.
    NeverMatches,
    /// Members of the hash that mean nothing.
    UnknownMembers {
        /// Their names.
        names: Vec<String>,
    },
    /// A caller may make these parameters, with which an argument begins, look like an option.
    OptionCharacter {
        /// Their names.
        parameters: Vec<String>,
    },
    /// Parameters that stand in no argument.
    UnusedParameters {
        /// Their names.
        parameters: Vec<String>,
    },
    /// A later file has an entry with the same key, which counts.
    Replaced {
        /// Where the one that counts is.
        by: Place,
        /// Where this one is.
        at: Place,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "whitelist entry {}: ", self.entry)?;
        match &self.kind {
            NoticeKind::ShellCharacters { groups } => {
                let names: Vec<String> = groups.iter().map(|n| format!("\\{n}")).collect();
                write!(
                    f,
                    "a caller may put shell characters into {}; write quote: true or an array as command_line, \
                     or narrow the pattern",
                    names.join(", ")
                )
            }
            NoticeKind::TextAround => f.write_str(
                "text around the match reaches the shell; put the pattern between \\A and \\z or leave out \
                 whitelist_match :anywhere",
            ),
            NoticeKind::WholeOnly => f.write_str(
                "the pattern must match the whole command, not a part of it; whitelist_match :anywhere gives the \
                 original's rule",
            ),
            NoticeKind::NeverMatches => f.write_str("the key is neither a string nor a pattern and never matches"),
            NoticeKind::OptionCharacter { parameters } => write!(
                f,
                "a caller may begin {} with -, so that the argument is taken for an option; narrow it with pattern: or \
                 choices:",
                parameters.join(", ")
            ),
            NoticeKind::UnusedParameters { parameters } => {
                write!(f, "no argument holds parameter {}", parameters.join(", "))
            }
            NoticeKind::Replaced { by, at } => write!(f, "the one of {by} counts, not the one of {at}"),
            NoticeKind::UnknownMembers { names } => write!(f, "{} has no meaning here", names.join(", ")),
        }
    }
}

fn notice(entry: &str, kind: NoticeKind) -> Notice {
    Notice { entry: entry.to_owned(), kind }
}

/// About an entry with an exact key.
pub(super) fn of_exact(entry: &str, value: &Value) -> Vec<Notice> {
    let Value::Hash(pairs) = value else { return Vec::new() };
    let names: Vec<String> = pairs
        .iter()
        .map(|(key, _)| key.as_text().unwrap_or("a key that is not text"))
        .filter(|name| !MEMBERS.contains(name))
        .map(str::to_owned)
        .collect();
    if names.is_empty() { Vec::new() } else { vec![notice(entry, NoticeKind::UnknownMembers { names })] }
}

/// About an entry's parameters.
pub(super) fn of_parameters(entry: &str, action: Option<&Action>) -> Vec<Notice> {
    action.map(|action| action.parameter_notices(entry)).unwrap_or_default()
}

/// About an entry with a pattern.
pub(super) fn of_pattern(
    entry: &str,
    value: &Value,
    pattern: &Translated,
    action: Option<&Action>,
    matching: Matching,
) -> Vec<Notice> {
    let mut notices = of_exact(entry, value);
    let Some(action) = action else { return notices };
    match matching {
        Matching::Anywhere if !pattern.text_anchored => notices.push(notice(entry, NoticeKind::TextAround)),
        Matching::Whole if !pattern.line_anchored => notices.push(notice(entry, NoticeKind::WholeOnly)),
        Matching::Anywhere | Matching::Whole => {}
    }
    if let Some(template) = action.unquoted() {
        let mut groups: Vec<usize> = template.groups().filter(|n| *n <= pattern.groups).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.retain(|group| carries_shell_characters(pattern, *group));
        if !groups.is_empty() {
            notices.push(notice(entry, NoticeKind::ShellCharacters { groups }));
        }
    }
    notices
}

/// Whether some part of the group that leaves a choice can be a shell character.
fn carries_shell_characters(pattern: &Translated, group: usize) -> bool {
    pattern.choices.iter().filter(|choice| group == 0 || choice.groups.contains(&group)).any(|choice| {
        match fancy_regex::Regex::new(&format!("\\A{}\\z", choice.one)) {
            Ok(one) => SHELL.chars().any(|c| one.is_match(c.encode_utf8(&mut [0; 4])).unwrap_or(true)),
            // Not to be decided is not safe.
            Err(_) => true,
        }
    })
}
