//! Waiting for a job: when to ask again, which line to show, when it is over and with which exit code.
//!
//! One table for knife, `pushy`, C and the `pushy` resource (decision 15). The machine asks by [`Output::Ask`] and is
//! told by [`Input::Answer`] or [`Input::Failed`]; an answer that nobody asked for (from a feed) is welcome too.

use std::collections::VecDeque;

use crate::api::JobView;
use crate::error::{Error, ErrorCode};
use crate::job::{JobStatus, NodeStatus};
use crate::time::{Millis, Now};

/// The first pause; each next one is twice as long, up to the poll interval (decision 27).
const FIRST_PAUSE: Millis = Millis(10);
/// Pauses after failures: the first, and the longest.
const RETRY_PAUSE: (Millis, Millis) = (Millis(500), Millis(10_000));

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

/// The line that says where a job stands, in knife's words (10.2).
pub fn state_line(job: &JobView) -> String {
    match job.status() {
        JobStatus::New => "Initialized.".to_owned(),
        JobStatus::Voting => "Voting.".to_owned(),
        JobStatus::Running => {
            format!("Running ({}/{} in progress) ...", job.in_progress(), job.node_count())
        }
        JobStatus::Complete => "Complete.".to_owned(),
        JobStatus::QuorumFailed => "Quorum_failed.".to_owned(),
        JobStatus::TimedOut => "Timed_out.".to_owned(),
        JobStatus::Aborted => "Aborted.".to_owned(),
        JobStatus::Crashed => "Crashed.".to_owned(),
    }
}

/// How to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// The longest pause between two questions, and the shortest between two lines. At least 10 ms.
    pub poll_interval: Millis,
    /// How long failures may follow each other until the wait is given up (D-78).
    pub patience: Millis,
}

impl Default for WatchOptions {
    /// 1 second, as knife; 2 minutes, which outlasts a server's restart.
    fn default() -> WatchOptions {
        WatchOptions { poll_interval: Millis(1000), patience: Millis(120_000) }
    }
}

/// What the machine learns.
#[derive(Debug)]
pub enum Input {
    /// The deadline came.
    Tick,
    /// The job as the server shows it.
    Answer(JobView),
    /// The question failed.
    Failed {
        /// How.
        error: Error,
        /// Whether asking again may help: no connection, a time-out, a 5xx.
        transient: bool,
    },
}

/// What the machine wants.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask the server for the job; tell the machine by [`Input::Answer`] or [`Input::Failed`].
    Ask,
    /// One more poll: a dot on a terminal (10.2), nothing elsewhere (decision 14).
    Dot,
    /// A new state; show it on a line of its own.
    Line(String),
    /// Something the reader should know that is no state; for standard error.
    Notice(String),
    /// The job has ended. The last output.
    Finished(JobView),
    /// The wait was given up, the job goes on. The last output.
    GivenUp(Error),
}

/// One wait for one job.
///
/// `handle`, then drain `poll_output` to `None`, then wait for the answer or for `next_deadline`, whichever is there.
#[derive(Debug)]
pub struct Watch {
    options: WatchOptions,
    /// When to ask; `None` while a question is open or the wait is over.
    ask_at: Option<Millis>,
    pause: Millis,
    /// Lines are at least a poll interval apart, so that early polls (decision 27) show what knife would show.
    quiet_until: Millis,
    shown: String,
    failing_since: Option<Millis>,
    retry_pause: Millis,
    over: bool,
    outputs: VecDeque<Output>,
}

impl Watch {
    /// A wait that begins now.
    pub fn new(now: Now, options: WatchOptions) -> Watch {
        let options = WatchOptions { poll_interval: options.poll_interval.max(FIRST_PAUSE), ..options };
        Watch {
            options,
            ask_at: Some(now.mono + FIRST_PAUSE),
            pause: FIRST_PAUSE,
            quiet_until: now.mono + options.poll_interval,
            shown: String::new(),
            failing_since: None,
            retry_pause: RETRY_PAUSE.0,
            over: false,
            outputs: VecDeque::new(),
        }
    }

    /// When to call `handle(now, Input::Tick)`; `None` while an answer is awaited and after the end.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.ask_at
    }

    /// What to do next; call until `None` after each `handle`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Something happened. After the end nothing has an effect.
    pub fn handle(&mut self, now: Now, input: Input) {
        if self.over {
            return;
        }
        match input {
            Input::Tick => {
                if self.ask_at.is_some_and(|at| at <= now.mono) {
                    self.ask_at = None;
                    self.outputs.push_back(Output::Ask);
                }
            }
            Input::Answer(job) => self.answer(now.mono, job),
            Input::Failed { error, transient } => self.failed(now.mono, error, transient),
        }
    }

    fn answer(&mut self, now: Millis, job: JobView) {
        self.failing_since = None;
        self.retry_pause = RETRY_PAUSE.0;
        let ended = job.status().is_terminal();
        if ended || now >= self.quiet_until {
            self.quiet_until = now + self.options.poll_interval;
            self.outputs.push_back(Output::Dot);
            let line = state_line(&job);
            if line != self.shown {
                self.outputs.push_back(Output::Line(line.clone()));
                self.shown = line;
            }
        }
        if ended {
            self.end(Output::Finished(job));
        } else {
            self.pause = Millis(self.pause.0.saturating_mul(2)).min(self.options.poll_interval);
            let next = now + self.pause;
            // Ask at the moment when the next line may be shown.
            let line_between = now < self.quiet_until && self.quiet_until < next;
            self.ask_at = Some(if line_between { self.quiet_until } else { next });
        }
    }

    fn failed(&mut self, now: Millis, error: Error, transient: bool) {
        let since = *self.failing_since.get_or_insert(now);
        if !transient || now - since >= self.options.patience {
            self.end(Output::GivenUp(error));
            return;
        }
        if since == now {
            self.outputs.push_back(Output::Notice(format!("{error}; asking again")));
        }
        self.ask_at = Some(now + self.retry_pause);
        self.retry_pause = Millis(self.retry_pause.0.saturating_mul(2)).min(RETRY_PAUSE.1);
    }

    fn end(&mut self, last: Output) {
        self.over = true;
        self.ask_at = None;
        self.outputs.push_back(last);
    }
}
