//! Reading the body of `POST pushy/jobs`: the checks of 2.5, in its order and words.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{JobOptions, JobRequest};
use crate::ids::NodeName;
use crate::json::Object;
use crate::whitelist::{MAX_PARAMETER, MAX_PARAMETERS, is_parameter_name};

/// The largest file that can be delivered with a job, in bytes.
pub const MAX_FILE: usize = 100_000;

/// Why a job request is refused: status 400 and the text of 2.5, or of our own where the original fails (D-01, D-04).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidJob(&'static str);

impl InvalidJob {
    /// The HTTP status.
    pub const STATUS: u16 = 400;

    /// The text of the body.
    pub fn text(&self) -> &'static str {
        self.0
    }

    /// The JSON body: `{"error":"TEXT"}`.
    pub fn body(&self) -> String {
        Object::with_capacity(96).member("error", self.0).end_text()
    }
}

const NOT_JSON: InvalidJob = InvalidJob("invalid JSON supplied");
const UNKNOWN: InvalidJob = InvalidJob("an unknown validation error has occurred");
const COMMAND: InvalidJob = InvalidJob("invalid command supplied");
const NODES: InvalidJob = InvalidJob("at least one node must be supplied");
const NODE_NAME: InvalidJob =
    InvalidJob("invalid node name supplied (1 to 255 bytes, no control characters)");
const NUL: InvalidJob = InvalidJob("invalid user or dir supplied (U+0000 is not allowed)");
const RUN_TIMEOUT: InvalidJob = InvalidJob("invalid type supplied for run_timeout (expected a number)");
const RUN_TIMEOUT_RANGE: InvalidJob =
    InvalidJob("invalid value supplied for run_timeout (expected a whole number from 0 to 2147483647)");
const QUORUM: InvalidJob = InvalidJob("invalid type supplied for quorum (expected a number)");
const QUORUM_RANGE: InvalidJob =
    InvalidJob("invalid value supplied for quorum (expected a whole number from 0 to 2147483647)");
const CAPTURE: InvalidJob = InvalidJob("invalid type supplied for capture_output (expected a boolean)");
const KEY: InvalidJob = InvalidJob("invalid key supplied");
const ENV_TWICE: InvalidJob = InvalidJob("invalid environment value (duplicate key)");
const PARAMETERS: InvalidJob =
    InvalidJob("invalid type supplied for parameters (expected an object of strings, numbers and booleans)");
const PARAMETERS_COUNT: InvalidJob = InvalidJob("invalid parameters (must be <= 64)");
const PARAMETERS_TWICE: InvalidJob = InvalidJob("invalid parameters (duplicate key)");
const PARAMETER_NAME: InvalidJob =
    InvalidJob("invalid parameter name (1 to 64 of A-Z, a-z, 0-9, _ and -, not first a -)");
const PARAMETER_SIZE: InvalidJob = InvalidJob("invalid parameter value (must be <= 4096 bytes)");
const PARAMETER_NUL: InvalidJob = InvalidJob("invalid parameter value (U+0000 is not allowed)");
const FILE_PREFIX: InvalidJob = InvalidJob("invalid file contents (expected 'base64:...' or 'raw:...')");
const FILE_BASE64: InvalidJob = InvalidJob("invalid file contents (couldn't decode base64 string)");
const FILE_SIZE: InvalidJob = InvalidJob("invalid file size (must be <= 100000 bytes)");
const FILE_NUL: InvalidJob = InvalidJob("invalid file contents (U+0000 needs 'base64:...')");

impl JobRequest {
    /// Reads a request's body. Repeated nodes are taken once (D-03), so a missing quorum is the number of different nodes.
    ///
    /// # Errors
    /// The first check of 2.5 that fails.
    pub fn from_json(body: &[u8]) -> Result<JobRequest, InvalidJob> {
        let body = std::str::from_utf8(body).map_err(|_| NOT_JSON)?;
        let root: &RawValue = serde_json::from_str(body).map_err(|_| NOT_JSON)?;
        if !root.get().starts_with('{') {
            return Err(UNKNOWN);
        }
        let members: Members<'_> = serde_json::from_str(root.get()).map_err(|_| NOT_JSON)?;
        let find = |name: &str| members.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.get());

        let command = string(find("command").ok_or(COMMAND)?)?.ok_or(COMMAND)?;
        if command.contains('\0') {
            return Err(COMMAND);
        }
        let names = strings(find("nodes").ok_or(NODES)?)?.ok_or(NODES)?;
        let run_timeout = number(find("run_timeout"), RUN_TIMEOUT, RUN_TIMEOUT_RANGE)?;
        let quorum = number(find("quorum"), QUORUM, QUORUM_RANGE)?;
        let text = |name: &str| match find(name) {
            None => Ok(None),
            Some(raw) => string(raw)?.ok_or(UNKNOWN).map(Some),
        };
        let user = text("user")?;
        let dir = text("dir")?;
        let env = find("env").map(pairs).transpose()?;
        let file = text("file")?;
        let capture = match find("capture_output") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(CAPTURE),
        };
        let parameters = find("parameters").map(parameters).transpose()?;
        let known = [
            "command",
            "nodes",
            "run_timeout",
            "quorum",
            "user",
            "dir",
            "env",
            "file",
            "capture_output",
            "parameters",
        ];
        if members.0.iter().any(|(name, _)| !known.contains(&name.as_str())) {
            return Err(KEY);
        }
        if names.is_empty() {
            return Err(NODES);
        }
        if let Some(env) = &env {
            let mut seen = HashSet::with_capacity(env.len());
            if !env.iter().all(|(name, _)| seen.insert(name)) {
                return Err(ENV_TWICE);
            }
        }
        if let Some(parameters) = &parameters {
            check_parameters(parameters)?;
        }
        if let Some(file) = &file {
            check_file(file)?;
        }
        if [&user, &dir].into_iter().flatten().any(|t| t.contains('\0')) {
            return Err(NUL);
        }
        let mut seen = HashSet::with_capacity(names.len());
        let mut nodes = Vec::with_capacity(names.len());
        for name in &names {
            if seen.insert(name) {
                nodes.push(NodeName::new(name).map_err(|_| NODE_NAME)?);
            }
        }
        Ok(JobRequest {
            command,
            nodes,
            run_timeout,
            quorum,
            options: JobOptions {
                user,
                dir,
                env,
                file,
                capture,
                // Nothing given is nothing asked of the nodes.
                parameters: parameters.filter(|parameters| !parameters.is_empty()),
            },
        })
    }
}

/// Number, names and values of parameters, which end as arguments of a command.
fn check_parameters(parameters: &[(String, String)]) -> Result<(), InvalidJob> {
    if parameters.len() > MAX_PARAMETERS {
        return Err(PARAMETERS_COUNT);
    }
    let mut seen = HashSet::with_capacity(parameters.len());
    for (name, value) in parameters {
        if !is_parameter_name(name) {
            return Err(PARAMETER_NAME);
        }
        if !seen.insert(name) {
            return Err(PARAMETERS_TWICE);
        }
        if value.len() > MAX_PARAMETER {
            return Err(PARAMETER_SIZE);
        }
        if value.contains('\0') {
            return Err(PARAMETER_NUL);
        }
    }
    Ok(())
}

/// Prefix, Base64 and size of a file option.
fn check_file(file: &str) -> Result<(), InvalidJob> {
    let size = if let Some(text) = file.strip_prefix("raw:") {
        if text.len() <= MAX_FILE && text.contains('\0') {
            return Err(FILE_NUL);
        }
        text.len()
    } else if let Some(text) = file.strip_prefix("base64:") {
        decode(text).ok_or(FILE_BASE64)?.len()
    } else {
        return Err(FILE_PREFIX);
    };
    if size > MAX_FILE { Err(FILE_SIZE) } else { Ok(()) }
}

/// Base64 with white space anywhere; padding is required, stray bits before it are not looked at.
fn decode(text: &str) -> Option<Vec<u8>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
    );
    let dense: Cow<'_, [u8]> = if text.bytes().any(|b| b.is_ascii_whitespace()) {
        text.bytes().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<u8>>().into()
    } else {
        text.as_bytes().into()
    };
    ENGINE.decode(&dense).ok()
}

/// The bytes that a job's `file` option stands for; `None` when it has neither prefix or is not Base64.
pub fn file_content(file: &str) -> Option<Vec<u8>> {
    match file.strip_prefix("raw:") {
        Some(text) => Some(text.as_bytes().to_vec()),
        None => decode(file.strip_prefix("base64:")?),
    }
}

/// A JSON string's text; `None` for any other type. An unpaired surrogate makes the whole body no JSON.
fn string(raw: &str) -> Result<Option<String>, InvalidJob> {
    if !raw.starts_with('"') {
        return Ok(None);
    }
    serde_json::from_str(raw).map(Some).map_err(|_| NOT_JSON)
}

/// An array of strings; `None` for anything else.
fn strings(raw: &str) -> Result<Option<Vec<String>>, InvalidJob> {
    if !raw.starts_with('[') {
        return Ok(None);
    }
    let items: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| NOT_JSON)?;
    items.into_iter().map(|item| string(item.get())).collect()
}

/// A whole number from 0 to the largest of 32 bits with a sign (D-04). A number written as a float is none.
fn number(raw: Option<&str>, kind: InvalidJob, range: InvalidJob) -> Result<Option<u32>, InvalidJob> {
    let Some(raw) = raw else { return Ok(None) };
    if !raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Err(kind);
    }
    match raw.parse::<u32>() {
        Ok(number) if number <= i32::MAX as u32 => Ok(Some(number)),
        _ if raw == "-0" => Ok(Some(0)),
        _ => Err(range),
    }
}

/// An object of strings, repeated names included.
fn pairs(raw: &str) -> Result<Vec<(String, String)>, InvalidJob> {
    if !raw.starts_with('{') {
        return Err(UNKNOWN);
    }
    let members: Members<'_> = serde_json::from_str(raw).map_err(|_| NOT_JSON)?;
    members.0.into_iter().map(|(name, value)| Ok((name, string(value.get())?.ok_or(UNKNOWN)?))).collect()
}

/// An object of strings, numbers and truth values as texts, numbers as they are written; repeated names included.
fn parameters(raw: &str) -> Result<Vec<(String, String)>, InvalidJob> {
    if !raw.starts_with('{') {
        return Err(PARAMETERS);
    }
    let members: Members<'_> = serde_json::from_str(raw).map_err(|_| NOT_JSON)?;
    let value = |raw: &str| match string(raw)? {
        Some(text) => Ok(text),
        None if raw.starts_with(['{', '[', 'n']) => Err(PARAMETERS),
        None => Ok(raw.to_owned()),
    };
    members.0.into_iter().map(|(name, raw)| Ok((name, value(raw.get())?))).collect()
}

/// An object's members as written: repeated names are kept, values are not read yet.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
