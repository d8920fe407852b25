//! Any order of inputs: no panic, no command started twice for one job, one process at a time, no busy loop.

use std::collections::BTreeSet;

use proptest::prelude::*;
use pushy_core::ids::JobId;
use pushy_core::job::JobOptions;
use pushy_core::message::{Commit, ServerMessage};
use pushy_core::node::job_runner::{Action, Exit, Input as JobInput, JobRunner};
use pushy_core::node::{Captured, Input, JobSpec, Output, Stage};
use pushy_core::reason::{Reason, ReasonCode};
use pushy_core::whitelist::{Allowed, CommandLine};

use crate::lab::{Lab, whitelist};

fn id(number: u8) -> JobId {
    JobId::new(&format!("{:032x}", number % 3)).expect("an id")
}

fn exited(job: JobId, status: u8) -> JobInput {
    let (stdout, stderr) = (Captured::default(), Captured::default());
    JobInput::Exited { job, exit: Exit::Status(status.into()), stdout, stderr }
}

fn no() -> Reason {
    Reason::new(ReasonCode::NoSuchUser, "no")
}

fn runner_input() -> impl Strategy<Value = JobInput> {
    let job = any::<u8>().prop_map(id);
    let allowed = Allowed {
        entry: "x".into(),
        command: CommandLine::Shell("true".into()),
        lock: None,
        user: None,
        dir: None,
        env: Vec::new(),
    };
    let spec =
        Box::new(JobSpec { command: "x".into(), allowed, options: JobOptions::default(), run_timeout: None });
    prop_oneof![
        4 => (job.clone(), any::<bool>())
            .prop_map(move |(job, listed)| JobInput::Commit { job, spec: listed.then(|| spec.clone()).ok_or_else(no) }),
        4 => job.clone().prop_map(|job| JobInput::Run { job }),
        1 => Just(JobInput::Abort),
        1 => job.clone().prop_map(|job| JobInput::Cancel { job }),
        1 => job.clone().prop_map(|job| JobInput::TimeUp { job }),
        4 => (job.clone(), any::<bool>()).prop_map(|(job, ok)| JobInput::Prepared {
            job,
            verdict: if ok { Ok(()) } else { Err(no()) },
        }),
        3 => job.clone().prop_map(|job| JobInput::Started { job }),
        1 => job.clone().prop_map(|job| JobInput::StartFailed { job, why: no() }),
        2 => (job, any::<u8>()).prop_map(|(job, status)| exited(job, status % 2)),
    ]
}

/// What may happen to a whole node. Numbers choose among what exists at the moment.
#[derive(Debug, Clone)]
enum Step {
    Time(u16),
    Clock(i16),
    Configure,
    ConfigFails,
    Connected(bool),
    Disconnected(bool, u8),
    Say(u8, u8),
    Again(u8),
    Garbage(Vec<u8>, Vec<u8>),
    Publish,
    Job(JobInput),
    Reload,
    Reconfigure,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<u16>().prop_map(Step::Time),
        1 => any::<i16>().prop_map(Step::Clock),
        3 => Just(Step::Configure),
        1 => Just(Step::ConfigFails),
        4 => any::<bool>().prop_map(Step::Connected),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(command, stage)| Step::Disconnected(command, stage)),
        8 => (any::<u8>(), any::<u8>()).prop_map(|(what, job)| Step::Say(what, job)),
        2 => any::<u8>().prop_map(Step::Again),
        1 => (any::<Vec<u8>>(), any::<Vec<u8>>()).prop_map(|(header, body)| Step::Garbage(header, body)),
        2 => Just(Step::Publish),
        8 => runner_input().prop_map(Step::Job),
        1 => Just(Step::Reload),
        1 => Just(Step::Reconfigure),
    ]
}

/// What a driver would have running, told by the outputs.
#[derive(Default)]
struct Processes {
    started: BTreeSet<JobId>,
    alive: BTreeSet<JobId>,
}

impl Processes {
    fn spawned(&mut self, job: &JobId) {
        assert!(self.started.insert(job.clone()), "started twice: {job}");
        self.alive.insert(job.clone());
        assert!(self.alive.len() <= 1, "two processes at once");
    }

    /// A driver reports the end of a process once, and of no process that does not exist.
    fn may_happen(&mut self, input: &JobInput) -> bool {
        match input {
            JobInput::Started { job } => self.alive.contains(job),
            JobInput::StartFailed { job, .. } | JobInput::Exited { job, .. } => self.alive.remove(job),
            _ => true,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_runner_starts_nothing_twice(inputs in prop::collection::vec(runner_input(), 0..60)) {
        let mut runner = JobRunner::new();
        let mut processes = Processes::default();
        for input in inputs {
            if !processes.may_happen(&input) {
                continue;
            }
            let mut actions = Vec::new();
            runner.handle(input, &mut actions);
            for action in actions {
                if let Action::Spawn(job, _) = action {
                    processes.spawned(&job);
                }
            }
        }
    }

    #[test]
    fn a_node_survives_any_order(steps in prop::collection::vec(step(), 0..80)) {
        let mut lab = Lab::new();
        let mut processes = Processes::default();
        let mut recorded = Vec::new();
        for step in steps {
            let outputs = match step {
                Step::Time(millis) => lab.pass(u64::from(millis)),
                Step::Clock(seconds) => {
                    lab.set_clock(i64::from(seconds));
                    lab.handle(Input::Tick)
                }
                Step::Configure => lab.configure(),
                Step::ConfigFails => lab.handle(Input::ConfigFailed { why: "no".into() }),
                Step::Connected(command) => {
                    let conn = if command { lab.command } else { lab.heartbeat };
                    lab.handle(Input::Connected { conn })
                }
                Step::Disconnected(command, stage) => {
                    let conn = if command { lab.command } else { lab.heartbeat };
                    let stage = [Stage::Connecting, Stage::Handshake, Stage::Open][usize::from(stage % 3)];
                    lab.handle(Input::Disconnected { conn, stage, why: "no".into() })
                }
                Step::Say(what, job) => {
                    let job = id(job);
                    let message = match what % 7 {
                        0 | 1 => ServerMessage::Commit(Box::new(Commit {
                            job,
                            server: "s".into(),
                            command: if what & 8 == 0 { "ok" } else { "no" }.into(),
                            options: JobOptions::default(),
                            run_timeout: Some(u32::from(what) % 20),
                        })),
                        2 => ServerMessage::Run { job },
                        3 => ServerMessage::Abort,
                        4 => ServerMessage::Ack,
                        5 => ServerMessage::Cancel { job },
                        _ => ServerMessage::ResultAck { job },
                    };
                    let frames = lab.frames(&message);
                    recorded.push(frames.clone());
                    let (header, body) = frames;
                    lab.handle(Input::Frames { conn: lab.command, header, body })
                }
                Step::Again(which) => match recorded.get(usize::from(which) % recorded.len().max(1)) {
                    Some((header, body)) => {
                        let (header, body) = (header.clone(), body.clone());
                        lab.handle(Input::Frames { conn: lab.command, header, body })
                    }
                    None => Vec::new(),
                },
                Step::Garbage(header, body) => lab.handle(Input::Frames { conn: lab.command, header, body }),
                Step::Publish => lab.publish(),
                Step::Job(input) => {
                    if !processes.may_happen(&input) {
                        continue;
                    }
                    lab.handle(Input::Job(input))
                }
                Step::Reload => lab.handle(Input::Reload(Box::new(whitelist()))),
                Step::Reconfigure => lab.handle(Input::Reconfigure),
            };
            for output in outputs {
                if let Output::Spawn { job, .. } = output {
                    processes.spawned(&job);
                }
            }
        }
    }
}
