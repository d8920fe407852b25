//! What a node does with a job: one at a time, from the vote to the result (7.2, 7.3, decision 21).
//!
//! ```text
//!  idle ──commit──▶ preparing ──ok──▶ committed ──run──▶ starting ──started──▶ running ──exit──▶ idle
//!    ▲                  │                 │                  │                    │
//!    └─────nack/abort───┴──────abort──────┘                  └──abort──▶ stopping ◀┘ ──exit──▶ idle
//! ```
//!
//! Checks and kills take time and are done by the driver, hence *preparing* and *stopping*, in which the node keeps
//! answering (D-46). A job's options live in its state, so that a refused commit cannot touch those of an accepted
//! one (D-43).

use std::collections::VecDeque;
use std::fmt;

use crate::ids::JobId;
use crate::job::JobOptions;
use crate::message::JobState;
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
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// The six states; names only, for heartbeats, logs and tables.
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
    /// The process is being killed.
    Stopping,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] =
        [State::Idle, State::Preparing, State::Committed, State::Starting, State::Running, State::Stopping];
}

/// Something happened to the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The server asks for a vote. `spec` is `None` when the whitelist has no such command.
    Commit {
        /// Which job.
        job: JobId,
        /// What it would run.
        spec: Option<Box<JobSpec>>,
    },
    /// Quorum was reached.
    Run {
        /// Which job.
        job: JobId,
    },
    /// Whatever runs must end.
    Abort,
    /// The checks of [`Action::Prepare`] are done; the error says which one failed.
    Prepared {
        /// Which job.
        job: JobId,
        /// Whether the job can be run.
        verdict: Result<(), String>,
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
        /// Why, one line.
        why: String,
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
    /// Send `nack_commit`; the text says why, for the log.
    NackCommit(JobId, String),
    /// Send `ack_run`.
    AckRun(JobId),
    /// Send `nack_run`.
    NackRun(JobId),
    /// Send `aborted` with the job that was current.
    Aborted(Option<JobId>),
    /// Send `succeeded` or `failed`, with the output if it was captured.
    Finished {
        /// Which job.
        job: JobId,
        /// Which of the two.
        succeeded: bool,
        /// Standard output and error.
        output: Option<(Captured, Captured)>,
        /// For the log.
        how: String,
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
    Starting { job: JobId, capture: bool },
    Running { job: JobId, capture: bool },
    Stopping { job: JobId },
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
            | Current::Stopping { job } => Some(job),
        }
    }

    /// `job_state` and `job_id` of a heartbeat. A vote not yet given is not announced: the server would count
    /// `committed` as a vote and anything else as busy (decision 3).
    pub fn announced(&self) -> (JobState, Option<&JobId>) {
        match &self.current {
            Current::Idle | Current::Preparing { .. } => (JobState::Idle, None),
            Current::Committed { job, .. } => (JobState::Committed, Some(job)),
            Current::Starting { job, .. } | Current::Running { job, .. } | Current::Stopping { job } => {
                (JobState::Running, Some(job))
            }
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
            Input::Abort => self.abort(out),
            Input::Prepared { job, verdict } => self.prepared(job, verdict, out),
            Input::Started { job } => self.started(job, out),
            Input::StartFailed { job, why } => self.start_failed(job, why, out),
            Input::Exited { job, exit, stdout, stderr } => self.exited(job, exit, stdout, stderr, out),
            Input::Stop => {
                self.stopped = true;
                if self.state() != State::Idle {
                    self.abort(out);
                }
            }
        }
    }

    fn commit(&mut self, job: JobId, spec: Option<Box<JobSpec>>, out: &mut Vec<Action>) {
        let busy = || "busy with another job".to_owned();
        if super::planted(self.bug, super::Bug::OptionsBeforeBusyCheck)
            && let (Current::Committed { spec: stored, .. }, Some(new)) = (&mut self.current, &spec)
        {
            stored.options = new.options.clone();
        }
        match &self.current {
            Current::Idle => self.commit_idle(job, spec, out),
            Current::Preparing { job: current, .. } => out.push(if *current == job {
                Action::Ignored("the vote on this job is being prepared")
            } else {
                Action::NackCommit(job, busy())
            }),
            Current::Committed { job: current, .. }
            | Current::Starting { job: current, .. }
            | Current::Running { job: current, .. } => {
                out.push(if *current == job {
                    Action::AckCommit(job)
                } else {
                    Action::NackCommit(job, busy())
                });
            }
            Current::Stopping { job: current } => {
                let why = if *current == job { "the job is being aborted".to_owned() } else { busy() };
                out.push(Action::NackCommit(job, why));
            }
        }
    }

    fn commit_idle(&mut self, job: JobId, spec: Option<Box<JobSpec>>, out: &mut Vec<Action>) {
        if self.stopped {
            out.push(Action::NackCommit(job, "the agent is stopping".into()));
        } else if self.ending(&job).is_some() {
            out.push(Action::NackCommit(job, "the job has already ended here".into()));
        } else if let Some(spec) = spec {
            out.push(Action::Prepare(job.clone(), spec.clone()));
            self.current = Current::Preparing { job, spec };
        } else {
            out.push(Action::NackCommit(job, "the command is not on the whitelist".into()));
        }
    }

    fn run(&mut self, job: JobId, out: &mut Vec<Action>) {
        if self.ending(&job) == Some(Ending::Finished) {
            return out.push(Action::ResendResult(job));
        }
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Committed { job: current, spec } if current == job => {
                self.current = Current::Starting { job: current, capture: spec.options.capture };
                out.push(Action::Spawn(job, spec));
            }
            same @ (Current::Idle
            | Current::Preparing { .. }
            | Current::Committed { .. }
            | Current::Stopping { .. }) => {
                self.current = same;
                out.push(Action::NackRun(job));
            }
            Current::Starting { job: current, capture } => {
                out.push(if current == job {
                    Action::Ignored("the process is being started; the acknowledgement follows")
                } else {
                    Action::NackRun(job)
                });
                self.current = Current::Starting { job: current, capture };
            }
            Current::Running { job: current, capture } => {
                let same = current == job;
                self.current = Current::Running { job: current, capture };
                out.push(if same { Action::AckRun(job) } else { Action::NackRun(job) });
            }
        }
    }

    fn abort(&mut self, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Idle => out.push(Action::Aborted(None)),
            Current::Preparing { job, .. } | Current::Committed { job, .. } => {
                self.remember(job.clone(), Ending::Aborted);
                out.push(Action::Release(job.clone()));
                out.push(Action::Aborted(Some(job)));
            }
            Current::Starting { job, .. } | Current::Running { job, .. } => {
                self.current = Current::Stopping { job: job.clone() };
                out.push(Action::Kill(job));
            }
            Current::Stopping { job } => {
                self.current = Current::Stopping { job };
                out.push(Action::Ignored("the job is being ended; the answer follows"));
            }
        }
    }

    fn prepared(&mut self, job: JobId, verdict: Result<(), String>, out: &mut Vec<Action>) {
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
            Current::Starting { job: current, capture } if current == job => {
                self.current = Current::Running { job: current, capture };
                out.push(Action::AckRun(job));
            }
            // The abort came while the process was being started: only now is there something to end.
            Current::Stopping { job: current } if current == job => {
                self.current = Current::Stopping { job: current };
                out.push(Action::Kill(job));
            }
            other => {
                self.current = other;
                out.push(Action::Ignored("no process is being started for this job"));
            }
        }
    }

    fn start_failed(&mut self, job: JobId, why: String, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.current, Current::Idle) {
            Current::Starting { job: current, capture } if current == job => {
                self.remember(current, Ending::Finished);
                let output = capture
                    .then(|| (Captured::default(), Captured::from_text(&format!("cannot start: {why}\n"))));
                out.push(Action::AckRun(job.clone()));
                out.push(Action::Finished {
                    job,
                    succeeded: false,
                    output,
                    how: format!("cannot start: {why}"),
                });
            }
            Current::Stopping { job: current } if current == job => {
                self.remember(current, Ending::Aborted);
                out.push(Action::Aborted(Some(job)));
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
            Current::Starting { job: current, capture } if current == job => {
                out.push(Action::AckRun(current.clone()));
                self.finish(current, capture, exit, stdout, stderr, out);
            }
            Current::Running { job: current, capture } if current == job => {
                self.finish(current, capture, exit, stdout, stderr, out);
            }
            Current::Stopping { job: current } if current == job => {
                self.remember(current, Ending::Aborted);
                out.push(Action::Aborted(Some(job)));
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
        capture: bool,
        exit: Exit,
        stdout: Captured,
        stderr: Captured,
        out: &mut Vec<Action>,
    ) {
        self.remember(job.clone(), Ending::Finished);
        out.push(Action::Finished {
            job,
            succeeded: exit.is_success(),
            output: capture.then_some((stdout, stderr)),
            how: exit.to_string(),
        });
    }

    fn remember(&mut self, job: JobId, ending: Ending) {
        if self.ended.len() >= REMEMBERED_JOBS {
            self.ended.pop_front();
        }
        self.ended.push_back((job, ending));
    }

    fn ending(&self, job: &JobId) -> Option<Ending> {
        self.ended.iter().rev().find(|(ended, _)| ended == job).map(|(_, ending)| *ending)
    }
}
