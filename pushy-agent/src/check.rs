//! `push-jobs-client check CONFIG COMMAND`: what this node would make of a command, without asking a server.

use std::fmt::Write as _;

use pushy_core::Result;
use pushy_core::whitelist::{Allowed, CommandLine, Lock, Verdict, is_parameter_name};
use serde_json::{Value as Json, json};

use crate::config::{Args, Check, WhitelistConfig};
use crate::process;

/// Exit status of a command that may run.
pub const ALLOWED: u8 = 0;
/// Of one that may not.
pub const REFUSED: u8 = 1;
/// Of a configuration that cannot be used, or a parameter that is none.
pub const BAD_CONFIG: u8 = 2;

/// What to print, and the exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Text with line ends, or one JSON document.
    pub text: String,
    /// [`ALLOWED`] or [`REFUSED`].
    pub status: u8,
}

/// Answers about `command` with the parameters of `check`. Neither key nor server is needed.
///
/// # Errors
/// When the configuration or a parameter cannot be read.
pub fn answer(args: &Args, check: &Check, command: &str) -> Result<Answer> {
    let parameters = parameters(&check.parameters)?;
    let config = WhitelistConfig::load(args)?;
    let whitelist = &config.read.whitelist;
    let verdict = whitelist.decide(command, &parameters);
    let answering = whitelist.answering(command);
    let place = answering.and_then(|entry| entry.place);
    let of_entry = |entry: &str| -> Vec<String> {
        let notices = whitelist.notices().iter().filter(|notice| notice.entry == entry);
        notices.map(ToString::to_string).collect()
    };
    let notices = answering.map(|entry| of_entry(entry.entry)).unwrap_or_default();
    let at = place.map(|place| format!(" ({place})")).unwrap_or_default();
    let (refusal, allowed) = match verdict {
        Verdict::Allowed(allowed) => (None, Some(allowed)),
        Verdict::NotListed => {
            let text = match answering {
                Some(entry) => format!("whitelist entry {}{at} forbids it", entry.entry),
                None => "no whitelist entry answers to it".to_owned(),
            };
            (Some(("not_whitelisted", text)), None)
        }
        Verdict::GaveUp { entry } => {
            let text = format!(
                "the pattern of whitelist entry {entry}{at} takes too long on this command; rewrite it"
            );
            (Some(("gave_up", text)), None)
        }
        Verdict::BadParameters { entry, why } => {
            (Some(("bad_parameters", format!("whitelist entry {entry}{at}: {why}"))), None)
        }
    };
    let lock = |allowed: &Allowed| match &allowed.lock {
        None => None,
        Some(Lock::ChefClient) => Some(config.chef_lock.display().to_string()),
        Some(Lock::Path(path)) => Some(path.clone()),
    };
    let status = if allowed.is_some() { ALLOWED } else { REFUSED };
    if check.format == "json" {
        let mut document = json!({
            "command": command,
            "allowed": allowed.is_some(),
            "entry": answering.map(|entry| entry.entry),
            "file": place.map(|place| place.file()),
            "line": place.and_then(|place| place.line()),
            "notices": notices,
        });
        if let Some((code, text)) = refusal {
            document["reason"] = json!({ "code": code, "text": text });
        }
        if let Some(allowed) = &allowed {
            let names: Vec<&str> = allowed.env.iter().map(|(name, _)| name.as_str()).collect();
            document["runs"] = match runs(&allowed.command) {
                Runs::Shell(line) => json!({ "shell": line }),
                Runs::Arguments(arguments) => json!({ "arguments": arguments }),
                Runs::Nothing(why) => json!({ "error": why }),
            };
            document["user"] = Json::from(allowed.user.as_deref());
            document["dir"] = Json::from(allowed.dir.as_deref());
            document["lock"] = Json::from(lock(allowed));
            document["env"] = Json::from(names);
        }
        return Ok(Answer { text: format!("{document:#}\n"), status });
    }
    let mut text = String::new();
    if let Some((_, refusal)) = refusal {
        let _ = writeln!(text, "refused: {}", shown(&refusal));
    }
    if let (Some(allowed), Some(entry)) = (&allowed, answering) {
        let _ = writeln!(text, "allowed by whitelist entry {}{at}", entry.entry);
        match runs(&allowed.command) {
            Runs::Shell(line) => {
                let _ = writeln!(text, "  shell:     {}", shown(&line));
            }
            Runs::Arguments(arguments) => {
                let words: Vec<String> = arguments.iter().map(|word| format!("{word:?}")).collect();
                let _ = writeln!(text, "  arguments: {}", words.join(" "));
            }
            Runs::Nothing(why) => {
                let _ = writeln!(text, "  cannot run: {why}");
            }
        }
        let or = |value: &Option<String>, other: &str| value.clone().unwrap_or_else(|| other.to_owned());
        let _ = writeln!(text, "  user:      {}", or(&allowed.user, "the job's, else the agent's own"));
        let _ = writeln!(text, "  directory: {}", or(&allowed.dir, "the job's, else the agent's own"));
        let _ = writeln!(text, "  lock:      {}", or(&lock(allowed), "none"));
        if !allowed.env.is_empty() {
            let names: Vec<&str> = allowed.env.iter().map(|(name, _)| name.as_str()).collect();
            let _ = writeln!(text, "  sets:      {}", names.join(", "));
        }
    }
    for notice in notices {
        let _ = writeln!(text, "notice: {}", shown(&notice));
    }
    Ok(Answer { text, status })
}

/// `NAME=VALUE` of the command line.
fn parameters(given: &[String]) -> Result<Vec<(String, String)>> {
    let invalid = |text: String| pushy_core::Error::new(pushy_core::ErrorCode::InvalidConfig, text);
    given
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) if is_parameter_name(name) => Ok((name.to_owned(), value.to_owned())),
            _ => {
                Err(invalid(format!("-p {text:?} must be NAME=VALUE, the name of letters, digits, _ and -")))
            }
        })
        .collect()
}

enum Runs {
    Shell(String),
    Arguments(Vec<String>),
    Nothing(String),
}

fn runs(command: &CommandLine) -> Runs {
    match (process::arguments(command), command) {
        (Ok(argv), CommandLine::Shell(text)) if argv.first().is_some_and(|program| program == "/bin/sh") => {
            match argv.as_slice() {
                [_, option, line] if option == "-c" && line == text => Runs::Shell(text.clone()),
                _ => Runs::Arguments(argv),
            }
        }
        (Ok(argv), _) => Runs::Arguments(argv),
        (Err(why), _) => Runs::Nothing(why),
    }
}

/// Text from files for a terminal: control characters escaped.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}
