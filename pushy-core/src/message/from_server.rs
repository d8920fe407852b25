//! Reading what the server says.

use serde_json::{Map, Value};

use super::{Commit, DecodeError, JobRef, ServerMessage, cut, output, string_pairs};
use crate::ids::{IncarnationId, JobId};
use crate::job::JobOptions;
use crate::time::Wall;

/// A server's message with what every one carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromServer {
    /// Counts up per node or, for heartbeats, per server; `None` when missing or no natural number.
    pub sequence: Option<u64>,
    /// When it was sent, by the server's clock.
    pub timestamp: Wall,
    /// What it says.
    pub message: ServerMessage,
}

impl FromServer {
    /// Reads a body frame whose signature has been checked.
    ///
    /// # Errors
    /// [`DecodeError`]: the frame is to be logged and dropped (4.10).
    pub fn decode(body: &[u8]) -> Result<FromServer, DecodeError> {
        let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
            return Err(DecodeError::NotAnObject);
        };
        let timestamp = members
            .get("timestamp")
            .and_then(Value::as_str)
            .and_then(|t| Wall::parse_http_date(t).or_else(|| Wall::parse_iso8601(t)))
            .ok_or(DecodeError::Timestamp)?;
        let job = || members.get("job_id").and_then(Value::as_str).and_then(|t| JobId::new(t).ok());
        let message = match members.get("type").and_then(Value::as_str).unwrap_or("") {
            "heartbeat" => ServerMessage::Heartbeat {
                server: members.get("server").and_then(Value::as_str).unwrap_or("").to_owned(),
                incarnation: members
                    .get("incarnation_id")
                    .and_then(Value::as_str)
                    .and_then(|t| IncarnationId::new(t).ok()),
            },
            "commit" => commit(&members),
            "run" => job().map_or(ServerMessage::BadRun, |job| ServerMessage::Run { job }),
            "abort" => ServerMessage::Abort,
            "ack" => ServerMessage::Ack,
            "result_ack" => match job() {
                Some(job) => ServerMessage::ResultAck { job },
                None => ServerMessage::Unknown { name: "result_ack".into() },
            },
            "cancel" => match job() {
                Some(job) => ServerMessage::Cancel { job },
                None => ServerMessage::Unknown { name: "cancel".into() },
            },
            "output_request" => match output::wanted(&members, job()) {
                Some(wanted) => ServerMessage::OutputRequest(wanted),
                None => ServerMessage::Unknown { name: "output_request".into() },
            },
            other => ServerMessage::Unknown { name: cut(other) },
        };
        Ok(FromServer { sequence: members.get("sequence").and_then(Value::as_u64), timestamp, message })
    }
}

/// A commit, or why it is refused: without id or command it is answered without an id, with an unusable option with its
/// own (the original fails in its checks).
fn commit(members: &Map<String, Value>) -> ServerMessage {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let (Some(id), Some(command)) = (text("job_id"), text("command")) else {
        return ServerMessage::BadCommit { job: JobRef::None };
    };
    let Ok(job) = JobId::new(id) else {
        return ServerMessage::BadCommit { job: JobRef::from_text(id) };
    };
    match options(members) {
        Some(options) => ServerMessage::Commit(Box::new(Commit {
            job,
            server: text("server").unwrap_or("").to_owned(),
            command: command.to_owned(),
            options,
            run_timeout: members
                .get("run_timeout")
                .and_then(Value::as_u64)
                .and_then(|n| u32::try_from(n).ok()),
        })),
        None => ServerMessage::BadCommit { job: JobRef::Id(job) },
    }
}

/// Options are taken when truthy (7.3): null and false are the same as absent. `None` when one has the wrong type.
fn options(members: &Map<String, Value>) -> Option<JobOptions> {
    let given = |name: &str| members.get(name).filter(|v| !matches!(v, Value::Null | Value::Bool(false)));
    let text = |name: &str| match given(name) {
        None => Some(None),
        Some(value) => value.as_str().map(|t| Some(t.to_owned())),
    };
    Some(JobOptions {
        user: text("user")?,
        dir: text("dir")?,
        env: match given("env") {
            None => None,
            Some(value) => Some(string_pairs(value)?),
        },
        file: text("file")?,
        capture: given("capture").is_some(),
        parameters: match given("parameters") {
            None => None,
            Some(value) => Some(string_pairs(value)?),
        },
    })
}
