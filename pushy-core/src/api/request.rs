//! Starting a job: what the requester gave → the body of `POST pushy/jobs` (2.5, 10.2).

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Request;
use crate::error::{Error, ErrorCode, Result};
use crate::ids::NodeName;
use crate::job::JobRequest;
use crate::whitelist::{MAX_PARAMETER, MAX_PARAMETER_NAME, MAX_PARAMETERS, is_parameter_name};

pub use crate::job::MAX_FILE;

/// How many nodes must vote yes: a number, or a share of the nodes (10.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// So many nodes.
    Count(u32),
    /// So many per cent of the nodes, rounded up.
    Percent(u32),
}

impl Quorum {
    /// Reads `N` or `N%`.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] with knife's text.
    pub fn parse(text: &str) -> Result<Quorum> {
        let (digits, percent) = match text.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        let number = Some(digits)
            .filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|d| d.parse().ok())
            .ok_or_else(|| {
                Error::new(
                    ErrorCode::InvalidArgument,
                    format!("Invalid Format please enter integer or percent (quorum {text:?})"),
                )
            })?;
        Ok(if percent { Quorum::Percent(number) } else { Quorum::Count(number) })
    }

    /// How many of `nodes` nodes that is.
    pub fn of(self, nodes: usize) -> u32 {
        match self {
            Quorum::Count(count) => count,
            Quorum::Percent(percent) => {
                let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
                let needed = nodes.saturating_mul(u64::from(percent)).div_ceil(100);
                u32::try_from(needed).unwrap_or(u32::MAX)
            }
        }
    }
}

/// Checks names and drops repetitions, keeping the order (D-03).
///
/// # Errors
/// [`ErrorCode::InvalidName`] naming the first name that cannot be one; [`ErrorCode::InvalidArgument`], in knife's
/// words (10.2), when there is none.
pub fn node_names<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Result<Vec<NodeName>> {
    let mut seen = HashSet::new();
    let mut nodes = Vec::new();
    for name in names {
        let node = NodeName::new(name.as_ref()).map_err(|e| e.context(format!("{:?}", name.as_ref())))?;
        if seen.insert(node.clone()) {
            nodes.push(node);
        }
    }
    if nodes.is_empty() {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "No nodes to run job on. Specify nodes as arguments or use -s to specify a search query.",
        ));
    }
    Ok(nodes)
}

/// A file's content as the job option `file`: `raw:` text, or `base64:` for anything that is not UTF-8 or holds a
/// NUL (D-77; the original server fails on U+0000, 2.5).
///
/// # Errors
/// [`ErrorCode::TooLarge`] above [`MAX_FILE`].
pub fn file_option(content: &[u8]) -> Result<String> {
    if content.len() > MAX_FILE {
        return Err(Error::new(
            ErrorCode::TooLarge,
            format!("{} bytes; a job can carry at most {MAX_FILE}", content.len()),
        ));
    }
    Ok(match std::str::from_utf8(content) {
        Ok(text) if !text.contains('\0') => format!("raw:{text}"),
        _ => format!("base64:{}", STANDARD.encode(content)),
    })
}

/// Reads the environment given as a JSON object (10.2, D-72). Numbers and truths become their texts.
///
/// # Errors
/// [`ErrorCode::InvalidArgument`] saying what is wrong without showing a value: they may be secrets.
pub fn env_option(json: &str) -> Result<Vec<(String, String)>> {
    let bad = |what: String| Error::new(ErrorCode::InvalidArgument, what);
    let document: Value = serde_json::from_str(json)
        .map_err(|e| bad(format!("not valid JSON (line {}, column {})", e.line(), e.column())))?;
    let Value::Object(members) = document else {
        return Err(bad("must be a JSON object, such as '{\"STAGE\": \"prod\"}'".to_owned()));
    };
    members
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Number(number) => Ok((name, number.to_string())),
            Value::Bool(truth) => Ok((name, truth.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(bad(format!("the value of {name:?} is not a text")))
            }
        })
        .collect()
}

/// One parameter as `NAME=VALUE` (option `-p`).
///
/// # Errors
/// [`ErrorCode::InvalidArgument`] saying what is wrong without showing the value.
pub fn parameter_option(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => parameter(name, value),
        None => Err(Error::new(ErrorCode::InvalidArgument, "a parameter must be NAME=VALUE")),
    }
}

/// One parameter.
///
/// # Errors
/// As [`parameter_option`].
pub fn parameter(name: &str, value: &str) -> Result<(String, String)> {
    let bad = |what: String| Error::new(ErrorCode::InvalidArgument, what);
    if !is_parameter_name(name) {
        return Err(bad(format!(
            "{name:?} is no parameter's name: 1 to {MAX_PARAMETER_NAME} letters, digits, _ or -, not first a -"
        )));
    }
    if value.len() > MAX_PARAMETER {
        return Err(bad(format!("the value of {name} is longer than {MAX_PARAMETER} bytes")));
    }
    if value.contains('\0') {
        return Err(bad(format!("the value of {name} has a NUL character")));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Parameters as a job takes them: `None` when there are none.
///
/// # Errors
/// [`ErrorCode::InvalidArgument`] for a name given twice, or too many.
pub fn parameters(given: Vec<(String, String)>) -> Result<Option<Vec<(String, String)>>> {
    let bad = |what: String| Error::new(ErrorCode::InvalidArgument, what);
    let mut seen = HashSet::with_capacity(given.len());
    if let Some((name, _)) = given.iter().find(|(name, _)| !seen.insert(name)) {
        return Err(bad(format!("parameter {name} is given twice")));
    }
    if given.len() > MAX_PARAMETERS {
        return Err(bad(format!("a job takes at most {MAX_PARAMETERS} parameters")));
    }
    Ok(Some(given).filter(|given| !given.is_empty()))
}

/// The full request, in the original's order of members; `env` only when given (decision 14).
pub(super) fn start_job(job: &JobRequest) -> Request {
    let mut body = v1_members(job);
    let options = &job.options;
    body.insert("capture_output".to_owned(), Value::Bool(options.capture));
    if let Some(env) = &options.env {
        let env = env.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
        body.insert("env".to_owned(), Value::Object(env));
    }
    if let Some(parameters) = &options.parameters {
        let parameters = parameters.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
        body.insert("parameters".to_owned(), Value::Object(parameters));
    }
    for (key, value) in [("file", &options.file), ("dir", &options.dir), ("user", &options.user)] {
        if let Some(value) = value {
            body.insert(key.to_owned(), Value::String(value.clone()));
        }
    }
    post_job(body)
}

/// The request for a server of the 1.x line, which knows `command`, `nodes`, `quorum` and `run_timeout` only.
///
/// # Errors
/// [`ErrorCode::InvalidArgument`] naming an option that such a server cannot take: none is dropped silently (D-71).
pub fn v1_fallback(job: &JobRequest) -> Result<Request> {
    let options = &job.options;
    if options.env.as_ref().is_some_and(|env| !env.is_empty()) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "Sending Environment attributes isn't possible for Push Jobs 1.0",
        ));
    }
    if options.parameters.is_some() {
        // Not only servers of the 1.x line: no original one does.
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "This push server does not take parameters of jobs",
        ));
    }
    let lost = [
        ("send_file", options.file.is_some()),
        ("in_dir", options.dir.is_some()),
        ("as_user", options.user.is_some()),
        ("capture", options.capture),
    ];
    match lost.iter().find(|(_, given)| *given) {
        Some((feature, _)) => Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("Can't use a 2.0 feature ({feature}) with a 1.0 server"),
        )),
        None => Ok(post_job(v1_members(job))),
    }
}

fn v1_members(job: &JobRequest) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("command".to_owned(), Value::String(job.command.clone()));
    let nodes = job.nodes.iter().map(|n| Value::String(n.as_str().to_owned())).collect();
    body.insert("nodes".to_owned(), Value::Array(nodes));
    if let Some(quorum) = job.quorum {
        body.insert("quorum".to_owned(), Value::from(quorum));
    }
    if let Some(seconds) = job.run_timeout {
        body.insert("run_timeout".to_owned(), Value::from(seconds));
    }
    body
}

fn post_job(body: Map<String, Value>) -> Request {
    Request::post("pushy/jobs".to_owned(), &Value::Object(body))
}
