//! What a node does with a job: one at a time, from the vote to the result (7.2, 7.3, decision 21).
//!
//! ```text
//!  idle ──commit──▶ preparing ──ok──▶ committed ──run──▶ starting ──started──▶ running ──exit──▶ idle
//!    ▲                  │                 │                  │                  │ │
//!    └─────nack/abort───┴──────abort──────┘                  └──abort──▶ stopping ┘ time up ──▶ expiring ──exit──▶ idle
//! ```
//!
//! `cancel` does what `abort` does, to the job it names only. Checks and kills take time and are done by the driver, hence
//! *preparing*, *stopping* and *expiring*, in which the node keeps answering (D-46). A job's options live in its state, so that a refused commit cannot touch those of an accepted
//! one (D-43).

use std::collections::VecDeque;
use std::fmt;

use crate::ids::JobId;
use crate::job::JobOptions;
use crate::message::JobState;
use crate::reason::{Reason, ReasonCode};
use crate::time::Millis;
use crate::whitelist::Allowed;

use super::capture::Captured;

/// How many ended jobs are remembered, so that none of them is started again (D-53, decision 3).
pub const REMEMBERED_JOBS: usize = 64;

/// A job that the whitelist lets through, with everything needed to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// The command as asked for, for logs.
    pub command: String,
    /// What to run, and what the whitelist's entry enforces.
    pub allowed: Allowed,
    /// User, directory, environment, file, capture. Values are secrets.
    pub options: JobOptions,
    /// Seconds after which the process is ended here; `None`: the server alone watches over it.
    pub run_timeout: Option<u32>,
}

impl JobSpec {
    /// Whom to run as: the entry's user wins (D-44). `None`: the agent's own.
    pub fn user(&self) -> Option<&str> {
        self.allowed.user.as_deref().or(self.options.user.as_deref())
    }

    /// Where to run: the entry's directory wins. `None`: the agent's own.
    pub fn dir(&self) -> Option<&str> {
        self.allowed.dir.as_deref().or(self.options.dir.as_deref())
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this exit status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Only status 0 is success (7.6).
    pub const fn is_success(self) -> bool {
        matches!(self, Exit::Status(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Status(status) => write!(f, "exit status {status}"),
            Exit::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

impl Exit {
    /// Why the job failed; `None` for success.
    pub fn reason(self) -> Option<Reason> {
        let code = match self {
            Exit::Status(0) => return None,
            Exit::Status(_) => ReasonCode::Exit,
            Exit::Signal(_) => ReasonCode::Signal,
        };
        Some(Reason::new(code, self.to_string()))
    }
}

/// The seven states; names only, for heartbeats, logs and tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// No job.
    Idle,
    /// A commit passed the whitelist; user, directory, file and lock are being checked.
    Preparing,
    /// Voted yes; waits for `run` or `abort`, without a limit (decision 53).
    Committed,
    /// `run` was taken; the process is being started.
    Starting,
    /// The process runs.
    Running,
    /// The process is being killed, by order.
    Stopping,
    /// The process is being killed because its time is up.
    Expiring,
}

impl State {
    /// Every state.
    pub const ALL: [State; 7] = [
        State::Idle,
        State::Preparing,
        State::Committed,
        State::Starting,
        State::Running,
        State::Stopping,
        State::Expiring,
    ];
}

/// Something happened to the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The server asks for a vote.
    Commit {
        /// Which job.
        job: JobId,
        /// What it would run, or why the whitelist does not let it.
        spec: Result<Box<JobSpec>, Reason>,
    },
    /// Quorum was reached.
    Run {
        /// Which job.
        job: JobId,
    },
    /// Whatever runs must end.
    Abort,
    /// This job must end, and no other.
    Cancel {
        /// Which job.
        job: JobId,
    },
    /// The time of [`Action::Limit`] has passed.
    TimeUp {
        /// Which job.
        job: JobId,
    },
    /// The checks of [`Action::Prepare`] are done; the error says which one failed.
    Prepared {
        /// Which job.
        job: JobId,
        /// Whether the job can be run.
        verdict: Result<(), Reason>,
    },
    /// The process of [`Action::Spawn`] exists.
    Started {
        /// Which job.
        job: JobId,
    },
    /// The process of [`Action::Spawn`] could not be started.
    StartFailed {
        /// Which job.
        job: JobId,
        /// Why.
        why: Reason,
    },
    /// The process has ended and was reaped; after [`Action::Kill`] its group is gone as well.
    Exited {
        /// Which job.
        job: JobId,
        /// How it ended.
        exit: Exit,
        /// What it printed, when that was captured.
        stdout: Captured,
        /// The same for standard error.
        stderr: Captured,
    },
    /// The agent is to end: nothing new is taken on.
    Stop,
}

/// Something to do, or to tell the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send `ack_commit`.
    AckCommit(JobId),
    /// Send `nack_commit`.
    NackCommit(JobId, Reason),
    /// Send `ack_run`.
    AckRun(JobId),
    /// Send `nack_run`.
    NackRun(JobId, Reason),
    /// Send `aborted` with the job that was current, or that was cancelled; says why if the server does not know.
    Aborted(Option<JobId>, Option<Reason>),
    /// Hand in [`Input::TimeUp`] after so long, unless the job has ended by then.
    Limit(JobId, Millis),
    /// Send `succeeded` or `failed`, with the output if it was captured.
    Finished {
        /// Which job.
        job: JobId,
        /// Why it failed; `None`: it succeeded.
        failure: Option<Reason>,
        /// Standard output and error.
        output: Option<(Captured, Captured)>,
    },
    /// The server repeats `run` for a job that has ended: send its result again, if it is still kept.
    ResendResult(JobId),
    /// Check user, directory, file and lock; answered by [`Input::Prepared`].
    Prepare(JobId, Box<JobSpec>),
    /// Let go of what preparing acquired.
    Release(JobId),
    /// Start the process; answered by [`Input::Started`] or [`Input::StartFailed`], later [`Input::Exited`].
    Spawn(JobId, Box<JobSpec>),
    /// End the process group: TERM, grace, KILL; answered by [`Input::Exited`].
    Kill(JobId),
    /// Nothing was done; says why.
    Ignored(&'static str),
}

/// How an ended job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Finished,
    Aborted,
}

#[derive(Debug)]
enum Current {
    Idle,
    Preparing { job: JobId, spec: Box<JobSpec> },
    Committed { job: JobId, spec: Box<JobSpec> },
    Starting { job: JobId, capture: bool, limit: Option<u32> },
    Running { job: JobId, capture: bool, limit: Option<u32> },
    Stopping { job: JobId, why: Option<Reason> },
    Expiring { job: JobId, capture: bool, limit: Option<u32> },
}

/// It is not taken on again.
fn ended(text: &str) -> Reason {
    Reason::new(ReasonCode::Refused, text)
}

/// The machine for the one job a node may have.
#[derive(Debug)]
pub struct JobRunner {
    current: Current,
    /// Jobs that have ended here, oldest first.
    ended: VecDeque<(JobId, Ending)>,
    /// Set by [`Input::Stop`].
    stopped: bool,
    bug: Option<super::Bug>,
}

impl Default for JobRunner {
    fn default() -> Self {
        JobRunner::new()
    }
}

impl JobRunner {
    /// An idle runner.
    pub fn new() -> JobRunner {
        JobRunner { current: Current::Idle, ended: VecDeque::new(), stopped: false, bug: None }
    }

    /// Plants a defect for tests to find (decision 28).
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: super::Bug) {
        self.bug = Some(bug);
    }

    /// Which state it is in.
    pub fn state(&self) -> State {
        match self.current {
            Current::Idle => State::Idle,
            Current::Preparing { .. } => State::Preparing,
            Current::Committed { .. } => State::Committed,
            Current::Starting { .. } => State::Starting,
            Current::Running { .. } => State::Running,
            Current::Stopping { .. } => State::Stopping,
            Current::Expiring { .. } => State::Expiring,
        }
    }

    /// The current job.
    pub fn job(&self) -> Option<&JobId> {
        match &self.current {
            Current::Idle => None,
            Current::Preparing { job, .. }
            | Current::Committed { job, .. }
            | Current::Starting { job, .. }
            | Current::Running { job, .. }
            | Current::Stopping { job, .. }
            | Current::Expiring { job, .. } => Some(job),
        }
    }

    /// `job_state` and `job_id` of a heartbeat. A vote not yet given is not announced: the server would count
    /// `committed` as a vote and anything else as busy (decision 3).
    pub fn announced(&self) -> (JobState, Option<&JobId>) {
        match &self.current {
            Current::Idle | Current::Preparing { .. } => (JobState::Idle, None),
            Current::Committed { job, .. } => (JobState::Committed, Some(job)),
            Current::Starting { job, .. }
            | Current::Running { job, .. }
            | Current::Stopping { job, .. }
            | Current::Expiring { job, .. } => (JobState::Running, Some(job)),
        }
    }

    /// Remembers a job that ended in an earlier life of this agent, so that it is not started again.
    pub fn remember_finished(&mut self, job: JobId) {
        self.remember(job, Ending::Finished);
    }

    /// Takes note of something that happened and appends what follows from it.
    pub fn handle(&mut self, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Commit { job, spec } => self.commit(job, spec, out),
            Input::Run { job } => self.run(job, out),
            Input::Abort => self.abort(None, out),
            Input::Cancel { job } => self.cancel(job, out),
            Input::TimeUp { job } => self.time_up(job, out),
            Input::Prepared { job, verdict } => self.prepared(job, verdict, out),
            Input::Started { job } => self.started(job, out),
            Input::StartFailed { job, why } => self.start_failed(job, why, out),
            Input::Exited { job, exit, stdout, stderr } => self.exited(job, exit, stdout, stderr, out),
            Input::Stop => {
                self.stopped = true;
                if self.state() != State::Idle {
                    let why = Reason::new(ReasonCode::ShuttingDown, "the agent is being stopped");
                    self.abort(Some(why), out);
                }
            }
        }
    }

    fn commit(&mut self, job: JobId, spec: Result<Box<JobSpec>, Reason>, out: &mut Vec<Action>) {
        let busy = |with: &JobId| Reason::new(ReasonCode::Busy, format!("busy with job {with}"));
        if super::planted(self.bug, super::Bug::OptionsBeforeBusyCheck)
            && let (Current::Committed { spec: stored, .. }, Ok(new)) = (&mut self.current, &spec)
        {
            stored.options = new.options.clone();
        }
        match &self.current {
            Current::Idle => self.commit_idle(job, spec, out),
            Current::Preparing { job: current, .. } => out.push(if *current == job {
                Action::Ignored("the vote on this job is being prepared")
            } else {
                Action::NackCommit(job, busy(current))
            }),
            Current::Committed { job: current, .. }
            | Current::Starting { job: current, .. }
            | Current::Running { job: current, .. }
            | Current::Expiring { job: current, .. } => {
                let why = busy(current);
                out.push(if *current == job { Action::AckCommit(job) } else { Action::NackCommit(job, why) });
            }
            Current::Stopping { job: current, .. } => {
                let why = if *current == job { ended("the job is being aborted") } else { busy(current) };
                out.push(Action::NackCommit(job, why));
            }
        }
    }

    fn commit_idle(&mut self, job: JobId, spec: Result<Box<JobSpec>, Reason>, out: &mut Vec<Action>) {
        if self.stopped {
            let why = Reason::new(ReasonCode::ShuttingDown, "the agent is stopping");
            return out.push(Action::NackCommit(job, why));
        }
        if self.ending(&job).is_some() {
            return out.push(Action::NackCommit(job, ended("the job has already ended here")));
        }
        match spec {
            Ok(spec) => {
                out.push(Action::Prepare(job.clone(), spec.clone()));
                self.current = Current::Preparing { job, spec };
            }
            Err(why) => out.push(Action::NackCommit(job, why)),
        }
    }

    fn run(&mut self, job: JobId, out: &mut Vec<Action>) {
        if self.ending(&job) == Some(Ending::Finished) {
            return out.push(Action::ResendResult(job));
        }
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Committed { job: current, spec } if current == job => {
                let (capture, limit) = (spec.options.capture, spec.run_timeout);
                self.current = Current::Starting { job: current, capture, limit };
                out.push(Action::Spawn(job, spec));
            }
            other => {
                self.current = other;
                let same = self.job() == Some(&job);
                out.push(match self.state() {
                    State::Starting if same => {
                        Action::Ignored("the process is being started; the acknowledgement follows")
                    }
                    State::Running | State::Expiring if same => Action::AckRun(job),
                    State::Idle
                    | State::Preparing
                    | State::Committed
                    | State::Starting
                    | State::Running
                    | State::Stopping
                    | State::Expiring => {
                        let why = Reason::new(ReasonCode::RunRefused, "the job is not committed here");
                        Action::NackRun(job, why)
                    }
                });
            }
        }
    }

    fn abort(&mut self, why: Option<Reason>, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Idle if super::planted(self.bug, super::Bug::IdleAbortUnanswered) => {}
            Current::Idle => out.push(Action::Aborted(None, why)),
            Current::Preparing { job, .. } | Current::Committed { job, .. } => {
                self.remember(job.clone(), Ending::Aborted);
                out.push(Action::Release(job.clone()));
                out.push(Action::Aborted(Some(job), why));
            }
            Current::Starting { job, .. } | Current::Running { job, .. } => {
                self.current = Current::Stopping { job: job.clone(), why };
                out.push(Action::Kill(job));
            }
            // The kill is under way; an order counts more than the clock.
            Current::Expiring { job, .. } => {
                self.current = Current::Stopping { job, why };
                out.push(Action::Ignored("the command is being ended; the answer follows"));
            }
            Current::Stopping { job, why } => {
                self.current = Current::Stopping { job, why };
                out.push(Action::Ignored("the job is being ended; the answer follows"));
            }
        }
    }

    fn cancel(&mut self, job: JobId, out: &mut Vec<Action>) {
        let why = Some(Reason::new(ReasonCode::Cancelled, "cancelled"));
        if self.job() == Some(&job) || super::planted(self.bug, super::Bug::CancelEndsAnyJob) {
            self.abort(why, out);
        } else {
            // Nothing of it is here, or nothing any more: the server can stop waiting.
            out.push(Action::Aborted(Some(job), why));
        }
    }

    fn time_up(&mut self, job: JobId, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Running { job: current, capture, limit } if current == job => {
                self.current = Current::Expiring { job: current, capture, limit };
                out.push(Action::Kill(job));
            }
            other => {
                self.current = other;
                out.push(Action::Ignored("no process of this job has a time that can be up"));
            }
        }
    }

    fn prepared(&mut self, job: JobId, verdict: Result<(), Reason>, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Preparing { job: current, spec } if current == job => match verdict {
                Ok(()) => {
                    self.current = Current::Committed { job: current, spec };
                    out.push(Action::AckCommit(job));
                }
                Err(why) => out.push(Action::NackCommit(job, why)),
            },
            other => {
                self.current = other;
                // Only the checks of an abandoned job: a job is prepared once, and its id never comes back.
                if verdict.is_ok() && self.job() != Some(&job) {
                    out.push(Action::Release(job));
                } else {
                    out.push(Action::Ignored("nothing is being prepared for this job"));
                }
            }
        }
    }

    fn started(&mut self, job: JobId, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Starting { job: current, capture, limit } if current == job => {
                self.current = Current::Running { job: current, capture, limit };
                out.push(Action::AckRun(job.clone()));
                if let Some(seconds) = limit {
                    out.push(Action::Limit(job, Millis::from_secs(u64::from(seconds))));
                }
            }
            // The abort came while the process was being started: only now is there something to end.
            Current::Stopping { job: current, why } if current == job => {
                self.current = Current::Stopping { job: current, why };
                out.push(Action::Kill(job));
            }
            other => {
                self.current = other;
                out.push(Action::Ignored("no process is being started for this job"));
            }
        }
    }

    fn start_failed(&mut self, job: JobId, why: Reason, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Starting { job: current, capture, .. } if current == job => {
                self.remember(current, Ending::Finished);
                let output = capture
                    .then(|| (Captured::default(), Captured::from_text(&format!("cannot start: {why}\n"))));
                out.push(Action::AckRun(job.clone()));
                let failure = Some(Reason::new(why.code(), format!("cannot start: {why}")));
                out.push(Action::Finished { job, failure, output });
            }
            Current::Stopping { job: current, why } if current == job => {
                self.remember(current, Ending::Aborted);
                out.push(Action::Aborted(Some(job), why));
            }
            other => {
                self.current = other;
                out.push(Action::Ignored("no process is being started for this job"));
            }
        }
    }

    fn exited(&mut self, job: JobId, exit: Exit, stdout: Captured, stderr: Captured, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.current, Current::Idle) {
            // A process can end before its start is reported only if the driver mixes up its events; the
            // server is still owed the acknowledgement.
            Current::Starting { job: current, capture, .. } if current == job => {
                out.push(Action::AckRun(current.clone()));
                self.finish(current, exit.reason(), capture.then_some((stdout, stderr)), out);
            }
            Current::Running { job: current, capture, .. } if current == job => {
                self.finish(current, exit.reason(), capture.then_some((stdout, stderr)), out);
            }
            Current::Expiring { job: current, capture, limit } if current == job => {
                let text = format!("ended after {} s (run_timeout)", limit.unwrap_or_default());
                let why = Reason::new(ReasonCode::TimedOut, text);
                self.finish(current, Some(why), capture.then_some((stdout, stderr)), out);
            }
            Current::Stopping { job: current, why } if current == job => {
                self.remember(current, Ending::Aborted);
                out.push(Action::Aborted(Some(job), why));
            }
            other => {
                self.current = other;
                out.push(Action::Ignored("no process runs for this job"));
            }
        }
    }

    fn finish(
        &mut self,
        job: JobId,
        failure: Option<Reason>,
        output: Option<(Captured, Captured)>,
        out: &mut Vec<Action>,
    ) {
        self.remember(job.clone(), Ending::Finished);
        out.push(Action::Finished { job, failure, output });
    }

    fn remember(&mut self, job: JobId, ending: Ending) {
        if self.ended.len() >= REMEMBERED_JOBS {
            self.ended.pop_front();
        }
        self.ended.push_back((job, ending));
    }

    fn ending(&self, job: &JobId) -> Option<Ending> {
        let known = self.ended.iter().rev().find(|(ended, _)| ended == job).map(|(_, ending)| *ending);
        known.filter(|_| !super::planted(self.bug, super::Bug::EndedJobForgotten))
    }
}
