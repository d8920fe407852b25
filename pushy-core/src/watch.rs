//! Waiting for a job: when to ask and when to listen, which line to show, when it is over and with which exit code.
//!
//! One table for knife, `pushy`, C and the `pushy` resource (decision 15). [`Watch`] asks for the job at short distances
//! until its feed (section 8) speaks, and from then on lets the feed tell; whatever goes wrong with the feed, it asks again.
//! So a server without feeds, a proxy that holds them back and a server that restarts cost latency at most.

mod machine;
mod tally;

pub use machine::{Input, Output, Watch, WatchOptions};
pub use tally::Tally;

use crate::api::JobView;
use crate::error::{Error, ErrorCode};
use crate::job::{JobStatus, NodeStatus};

/// Exit codes of every program that waits for a job (decision 15). 10, 35, 37, 41, 43 and 213 are Chef's, never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Every node succeeded; or started, when nobody waits.
    Success = 0,
    /// Usage, a bad value, nothing started; and, with the original's rule, every other end.
    Usage = 1,
    /// Interrupted; the job goes on.
    Interrupted = 2,
    /// The job is complete, some node did not succeed.
    NodeFailed = 20,
    /// Too few nodes voted yes.
    QuorumFailed = 21,
    /// `run_timeout` passed.
    TimedOut = 22,
    /// Cancelled by an operator.
    Aborted = 23,
    /// Given up by the server.
    Crashed = 24,
    /// HTTP, signature or connection (knife's own).
    Http = 100,
}

impl Exit {
    /// The process's exit status.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// For a job's end. `lenient` is the original's rule (10.2): 0 when the job is complete and every node succeeded,
    /// refused or was not there, else 1. A job that has not ended is [`Exit::Usage`].
    pub fn of_job(job: &JobView, lenient: bool) -> Exit {
        let every = |accepted: &[NodeStatus]| {
            job.node_count() > 0
                && job.nodes().all(|(status, names)| {
                    names.is_empty() || status.is_some_and(|status| accepted.contains(&status))
                })
        };
        if lenient {
            let accepted = [NodeStatus::Succeeded, NodeStatus::Nacked, NodeStatus::Unavailable];
            let good = job.status() == JobStatus::Complete && every(&accepted);
            return if good { Exit::Success } else { Exit::Usage };
        }
        match job.status() {
            JobStatus::Complete if every(&[NodeStatus::Succeeded]) => Exit::Success,
            JobStatus::Complete => Exit::NodeFailed,
            JobStatus::QuorumFailed => Exit::QuorumFailed,
            JobStatus::TimedOut => Exit::TimedOut,
            JobStatus::Aborted => Exit::Aborted,
            JobStatus::Crashed => Exit::Crashed,
            JobStatus::New | JobStatus::Voting | JobStatus::Running => Exit::Usage,
        }
    }

    /// For a failure: what the caller gave is wrong, or the conversation with the server failed.
    pub fn of_error(error: &Error) -> Exit {
        match error.code() {
            ErrorCode::InvalidArgument
            | ErrorCode::InvalidName
            | ErrorCode::InvalidKey
            | ErrorCode::InvalidConfig
            | ErrorCode::InvalidWhitelist
            | ErrorCode::Malformed
            | ErrorCode::TooLarge
            | ErrorCode::Io => Exit::Usage,
            ErrorCode::Interrupted => Exit::Interrupted,
            ErrorCode::BadSignature
            | ErrorCode::ClockSkew
            | ErrorCode::NotWhitelisted
            | ErrorCode::NotFound
            | ErrorCode::Forbidden
            | ErrorCode::Unauthorized
            | ErrorCode::Connection
            | ErrorCode::Timeout
            | ErrorCode::Server
            | ErrorCode::Protocol
            | ErrorCode::InvalidState
            | ErrorCode::Storage
            | ErrorCode::Internal => Exit::Http,
        }
    }
}

/// What a wait asks on a terminal after a first Ctrl-C; the answer is typed behind it.
pub const INTERRUPT_QUESTION: &str =
    "Interrupted. Ctrl-C cancels the job, d leaves it running, Enter waits on:";

/// The line that says where a job stands, in knife's words (10.2).
pub fn state_line(job: &JobView) -> String {
    Tally::of_job(job).state_line()
}
