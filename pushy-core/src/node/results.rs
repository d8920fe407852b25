//! Results of finished jobs, kept until the server has stored them (decision 2).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};
use crate::ids::JobId;
use crate::message::{Captured, NodeMessage};
use crate::reason::Reason;

/// How many unacknowledged results are kept; the oldest goes first. A node runs one job at a time, so more than one
/// means a server that cannot store for long.
pub const KEPT_RESULTS: usize = 16;

/// One finished job's result. Output is a secret: there is no `Debug` of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptResult {
    /// Which job.
    pub job: JobId,
    /// Exit status 0 or anything else.
    pub succeeded: bool,
    /// Captured standard output, as far as it fits a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Captured standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

impl std::fmt::Debug for KeptResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptResult")
            .field("job", &self.job)
            .field("succeeded", &self.succeeded)
            .finish_non_exhaustive()
    }
}

impl KeptResult {
    /// The text for the spool file.
    pub fn to_text(&self) -> String {
        // Strings and a flag always encode; an empty file would be refused at the next start.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a spool file's text.
    ///
    /// # Errors
    /// [`ErrorCode::Malformed`].
    pub fn from_text(text: &str) -> Result<KeptResult> {
        serde_json::from_str(text).map_err(|error| {
            Error::new(ErrorCode::Malformed, format!("not a kept result: line {}", error.line()))
        })
    }

    /// The message that tells the server.
    pub(super) fn message(&self) -> NodeMessage {
        let job = self.job.clone().into();
        let output = Captured { stdout: self.stdout.clone(), stderr: self.stderr.clone() };
        if self.succeeded {
            NodeMessage::Succeeded { job, output }
        } else {
            NodeMessage::Failed { job, output, reason: self.reason.clone() }
        }
    }
}

/// The results that wait for `result_ack`.
#[derive(Debug, Default)]
pub(super) struct Results {
    kept: VecDeque<KeptResult>,
}

impl Results {
    /// Keeps a result; gives back the one that had to go.
    pub(super) fn keep(&mut self, result: KeptResult) -> Option<KeptResult> {
        self.kept.retain(|old| old.job != result.job);
        self.kept.push_back(result);
        if self.kept.len() > KEPT_RESULTS { self.kept.pop_front() } else { None }
    }

    /// The server has it; whether it was kept.
    pub(super) fn acknowledged(&mut self, job: &JobId) -> bool {
        let before = self.kept.len();
        self.kept.retain(|result| result.job != *job);
        self.kept.len() < before
    }

    /// The messages of all of them, oldest first.
    pub(super) fn messages(&self) -> Vec<NodeMessage> {
        self.kept.iter().map(KeptResult::message).collect()
    }

    /// The message of one of them.
    pub(super) fn message_of(&self, job: &JobId) -> Option<NodeMessage> {
        self.kept.iter().find(|result| result.job == *job).map(KeptResult::message)
    }
}
