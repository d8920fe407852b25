//! Every (state, input) pair of the job runner (7.2, decision 3, decision 21), written by hand.

use std::collections::BTreeMap;

use pushy_core::ids::JobId;
use pushy_core::job::JobOptions;
use pushy_core::node::job_runner::{Action, Exit, Input, JobRunner, JobSpec, State};
use pushy_core::node::{Captured, Collector};
use pushy_core::reason::{Reason, ReasonCode};
use pushy_core::whitelist::{Allowed, CommandLine};

/// The current job in every state but idle, where it is one never seen.
const J: &str = "00000000000000000000000000000001";
/// Another job, never seen.
const O: &str = "00000000000000000000000000000002";
/// A job that ended with a result.
const E: &str = "00000000000000000000000000000003";
/// A job that was aborted.
const A: &str = "00000000000000000000000000000004";

/// Every input as the tables tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    CommitJ,
    CommitO,
    CommitUnlisted,
    CommitE,
    CommitA,
    RunJ,
    RunO,
    RunE,
    RunA,
    Abort,
    CancelJ,
    CancelO,
    CancelE,
    TimeUpJ,
    TimeUpO,
    PreparedJ,
    PreparedO,
    RefusedJ,
    RefusedO,
    StartedJ,
    StartedO,
    StartFailedJ,
    StartFailedO,
    Exited0J,
    Exited1J,
    KilledJ,
    ExitedO,
    Stop,
}
use Kind::*;

/// The kinds of each input: a new variant does not compile before it has some.
fn kinds(input: &Input) -> &'static [Kind] {
    match input {
        Input::Commit { .. } => &[CommitJ, CommitO, CommitUnlisted, CommitE, CommitA],
        Input::Run { .. } => &[RunJ, RunO, RunE, RunA],
        Input::Abort => &[Abort],
        Input::Cancel { .. } => &[CancelJ, CancelO, CancelE],
        Input::TimeUp { .. } => &[TimeUpJ, TimeUpO],
        Input::Prepared { .. } => &[PreparedJ, PreparedO, RefusedJ, RefusedO],
        Input::Started { .. } => &[StartedJ, StartedO],
        Input::StartFailed { .. } => &[StartFailedJ, StartFailedO],
        Input::Exited { .. } => &[Exited0J, Exited1J, KilledJ, ExitedO],
        Input::Stop => &[Stop],
    }
}

fn all_kinds() -> Vec<Kind> {
    let one_of_each = [
        input(CommitJ),
        input(RunJ),
        input(Abort),
        input(CancelJ),
        input(TimeUpJ),
        input(PreparedJ),
        input(StartedJ),
        input(StartFailedJ),
        input(ExitedO),
        input(Stop),
    ];
    one_of_each.iter().flat_map(|input| kinds(input).iter().copied()).collect()
}

fn id(text: &str) -> JobId {
    JobId::new(text).expect("32 hex digits")
}

fn spec(capture: bool) -> Box<JobSpec> {
    let allowed = Allowed {
        entry: "true".into(),
        command: CommandLine::Args(vec!["true".into()]),
        lock: None,
        user: None,
        dir: None,
        env: Vec::new(),
    };
    Box::new(JobSpec {
        command: "true".into(),
        allowed,
        options: JobOptions { capture, ..JobOptions::default() },
        run_timeout: None,
    })
}

fn no() -> Reason {
    Reason::new(ReasonCode::NoSuchUser, "no")
}

fn input(kind: Kind) -> Input {
    let commit = |job| Input::Commit { job: id(job), spec: Ok(spec(false)) };
    let exited = |job, exit| Input::Exited {
        job: id(job),
        exit,
        stdout: Captured::default(),
        stderr: Captured::default(),
    };
    match kind {
        CommitJ => commit(J),
        CommitO => commit(O),
        CommitUnlisted => {
            Input::Commit { job: id(O), spec: Err(Reason::new(ReasonCode::NotWhitelisted, "not listed")) }
        }
        CommitE => commit(E),
        CommitA => commit(A),
        RunJ => Input::Run { job: id(J) },
        RunO => Input::Run { job: id(O) },
        RunE => Input::Run { job: id(E) },
        RunA => Input::Run { job: id(A) },
        Abort => Input::Abort,
        CancelJ => Input::Cancel { job: id(J) },
        CancelO => Input::Cancel { job: id(O) },
        CancelE => Input::Cancel { job: id(E) },
        TimeUpJ => Input::TimeUp { job: id(J) },
        TimeUpO => Input::TimeUp { job: id(O) },
        PreparedJ => Input::Prepared { job: id(J), verdict: Ok(()) },
        PreparedO => Input::Prepared { job: id(O), verdict: Ok(()) },
        RefusedJ => Input::Prepared { job: id(J), verdict: Err(no()) },
        RefusedO => Input::Prepared { job: id(O), verdict: Err(no()) },
        StartedJ => Input::Started { job: id(J) },
        StartedO => Input::Started { job: id(O) },
        StartFailedJ => Input::StartFailed { job: id(J), why: no() },
        StartFailedO => Input::StartFailed { job: id(O), why: no() },
        Exited0J => exited(J, Exit::Status(0)),
        Exited1J => exited(J, Exit::Status(1)),
        KilledJ => exited(J, Exit::Signal(9)),
        ExitedO => exited(O, Exit::Status(0)),
        Stop => Input::Stop,
    }
}

fn show(action: &Action) -> String {
    let name = |job: &JobId| match job.as_str() {
        J => "J",
        O => "O",
        E => "E",
        A => "A",
        _ => "?",
    };
    match action {
        Action::AckCommit(job) => format!("ack_commit {}", name(job)),
        Action::NackCommit(job, _) => format!("nack_commit {}", name(job)),
        Action::AckRun(job) => format!("ack_run {}", name(job)),
        Action::NackRun(job, _) => format!("nack_run {}", name(job)),
        Action::Aborted(job, _) => format!("aborted {}", job.as_ref().map_or("none", name)),
        Action::Limit(job, after) => format!("limit {} {}", name(job), after.0),
        Action::Finished { job, failure: None, .. } => format!("succeeded {}", name(job)),
        Action::Finished { job, failure: Some(_), .. } => format!("failed {}", name(job)),
        Action::ResendResult(job) => format!("result {}", name(job)),
        Action::Prepare(job, _) => format!("prepare {}", name(job)),
        Action::Release(job) => format!("release {}", name(job)),
        Action::Spawn(job, _) => format!("spawn {}", name(job)),
        Action::Kill(job) => format!("kill {}", name(job)),
        Action::Ignored(_) => "ignored".into(),
    }
}

fn feed(runner: &mut JobRunner, kind: Kind) -> String {
    let mut actions = Vec::new();
    runner.handle(input(kind), &mut actions);
    actions.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// A runner in this state with J as its job, E finished and A aborted before.
fn at(state: State) -> JobRunner {
    let mut runner = JobRunner::new();
    runner.remember_finished(id(E));
    let mut actions = Vec::new();
    runner.handle(input(CommitA), &mut actions);
    runner.handle(Input::Abort, &mut actions);
    let way: &[Kind] = match state {
        State::Idle => &[],
        State::Preparing => &[CommitJ],
        State::Committed => &[CommitJ, PreparedJ],
        State::Starting => &[CommitJ, PreparedJ, RunJ],
        State::Running => &[CommitJ, PreparedJ, RunJ, StartedJ],
        State::Stopping => &[CommitJ, PreparedJ, RunJ, StartedJ, Abort],
        State::Expiring => &[CommitJ, PreparedJ, RunJ, StartedJ, TimeUpJ],
    };
    for kind in way {
        feed(&mut runner, *kind);
    }
    assert_eq!(runner.state(), state);
    runner
}

use State::{Committed, Expiring, Idle, Preparing, Running, Starting, Stopping};

#[rustfmt::skip]
const TABLE: &[(State, Kind, State, &str)] = &[
    // 7.2 row idle; an ended job is never started again (D-53), its result may be asked for again (decision 3).
    (Idle, CommitJ, Preparing, "prepare J"),
    (Idle, CommitO, Preparing, "prepare O"),
    (Idle, CommitUnlisted, Idle, "nack_commit O"),
    (Idle, CommitE, Idle, "nack_commit E"),
    (Idle, CommitA, Idle, "nack_commit A"),
    (Idle, RunJ, Idle, "nack_run J"),
    (Idle, RunO, Idle, "nack_run O"),
    (Idle, RunE, Idle, "result E"),
    (Idle, RunA, Idle, "nack_run A"),
    (Idle, Abort, Idle, "aborted none"),
    // The server can stop waiting for what is not here, or not any more.
    (Idle, CancelJ, Idle, "aborted J"),
    (Idle, CancelO, Idle, "aborted O"),
    (Idle, CancelE, Idle, "aborted E"),
    (Idle, TimeUpJ, Idle, "ignored"),
    (Idle, TimeUpO, Idle, "ignored"),
    (Idle, PreparedJ, Idle, "release J"),
    (Idle, PreparedO, Idle, "release O"),
    (Idle, RefusedJ, Idle, "ignored"),
    (Idle, RefusedO, Idle, "ignored"),
    (Idle, StartedJ, Idle, "ignored"),
    (Idle, StartedO, Idle, "ignored"),
    (Idle, StartFailedJ, Idle, "ignored"),
    (Idle, StartFailedO, Idle, "ignored"),
    (Idle, Exited0J, Idle, "ignored"),
    (Idle, Exited1J, Idle, "ignored"),
    (Idle, KilledJ, Idle, "ignored"),
    (Idle, ExitedO, Idle, "ignored"),
    (Idle, Stop, Idle, ""),
    // The vote is being prepared: the only new state before it (decision 21).
    (Preparing, CommitJ, Preparing, "ignored"),
    (Preparing, CommitO, Preparing, "nack_commit O"),
    (Preparing, CommitUnlisted, Preparing, "nack_commit O"),
    (Preparing, CommitE, Preparing, "nack_commit E"),
    (Preparing, CommitA, Preparing, "nack_commit A"),
    (Preparing, RunJ, Preparing, "nack_run J"),
    (Preparing, RunO, Preparing, "nack_run O"),
    (Preparing, RunE, Preparing, "result E"),
    (Preparing, RunA, Preparing, "nack_run A"),
    (Preparing, Abort, Idle, "release J, aborted J"),
    (Preparing, CancelJ, Idle, "release J, aborted J"),
    (Preparing, CancelO, Preparing, "aborted O"),
    (Preparing, CancelE, Preparing, "aborted E"),
    (Preparing, TimeUpJ, Preparing, "ignored"),
    (Preparing, TimeUpO, Preparing, "ignored"),
    (Preparing, PreparedJ, Committed, "ack_commit J"),
    (Preparing, PreparedO, Preparing, "release O"),
    (Preparing, RefusedJ, Idle, "nack_commit J"),
    (Preparing, RefusedO, Preparing, "ignored"),
    (Preparing, StartedJ, Preparing, "ignored"),
    (Preparing, StartedO, Preparing, "ignored"),
    (Preparing, StartFailedJ, Preparing, "ignored"),
    (Preparing, StartFailedO, Preparing, "ignored"),
    (Preparing, Exited0J, Preparing, "ignored"),
    (Preparing, Exited1J, Preparing, "ignored"),
    (Preparing, KilledJ, Preparing, "ignored"),
    (Preparing, ExitedO, Preparing, "ignored"),
    (Preparing, Stop, Idle, "release J, aborted J"),
    // 7.2 row committed; a repeated commit is answered the same again (decision 3).
    (Committed, CommitJ, Committed, "ack_commit J"),
    (Committed, CommitO, Committed, "nack_commit O"),
    (Committed, CommitUnlisted, Committed, "nack_commit O"),
    (Committed, CommitE, Committed, "nack_commit E"),
    (Committed, CommitA, Committed, "nack_commit A"),
    (Committed, RunJ, Starting, "spawn J"),
    (Committed, RunO, Committed, "nack_run O"),
    (Committed, RunE, Committed, "result E"),
    (Committed, RunA, Committed, "nack_run A"),
    (Committed, Abort, Idle, "release J, aborted J"),
    (Committed, CancelJ, Idle, "release J, aborted J"),
    (Committed, CancelO, Committed, "aborted O"),
    (Committed, CancelE, Committed, "aborted E"),
    (Committed, TimeUpJ, Committed, "ignored"),
    (Committed, TimeUpO, Committed, "ignored"),
    (Committed, PreparedJ, Committed, "ignored"),
    (Committed, PreparedO, Committed, "release O"),
    (Committed, RefusedJ, Committed, "ignored"),
    (Committed, RefusedO, Committed, "ignored"),
    (Committed, StartedJ, Committed, "ignored"),
    (Committed, StartedO, Committed, "ignored"),
    (Committed, StartFailedJ, Committed, "ignored"),
    (Committed, StartFailedO, Committed, "ignored"),
    (Committed, Exited0J, Committed, "ignored"),
    (Committed, Exited1J, Committed, "ignored"),
    (Committed, KilledJ, Committed, "ignored"),
    (Committed, ExitedO, Committed, "ignored"),
    (Committed, Stop, Idle, "release J, aborted J"),
    // ack_run is owed until the process is known to exist, or not (D-42: acknowledged, then failed).
    (Starting, CommitJ, Starting, "ack_commit J"),
    (Starting, CommitO, Starting, "nack_commit O"),
    (Starting, CommitUnlisted, Starting, "nack_commit O"),
    (Starting, CommitE, Starting, "nack_commit E"),
    (Starting, CommitA, Starting, "nack_commit A"),
    (Starting, RunJ, Starting, "ignored"),
    (Starting, RunO, Starting, "nack_run O"),
    (Starting, RunE, Starting, "result E"),
    (Starting, RunA, Starting, "nack_run A"),
    (Starting, Abort, Stopping, "kill J"),
    (Starting, CancelJ, Stopping, "kill J"),
    (Starting, CancelO, Starting, "aborted O"),
    (Starting, CancelE, Starting, "aborted E"),
    (Starting, TimeUpJ, Starting, "ignored"),
    (Starting, TimeUpO, Starting, "ignored"),
    (Starting, PreparedJ, Starting, "ignored"),
    (Starting, PreparedO, Starting, "release O"),
    (Starting, RefusedJ, Starting, "ignored"),
    (Starting, RefusedO, Starting, "ignored"),
    (Starting, StartedJ, Running, "ack_run J"),
    (Starting, StartedO, Starting, "ignored"),
    (Starting, StartFailedJ, Idle, "ack_run J, failed J"),
    (Starting, StartFailedO, Starting, "ignored"),
    (Starting, Exited0J, Idle, "ack_run J, succeeded J"),
    (Starting, Exited1J, Idle, "ack_run J, failed J"),
    (Starting, KilledJ, Idle, "ack_run J, failed J"),
    (Starting, ExitedO, Starting, "ignored"),
    (Starting, Stop, Stopping, "kill J"),
    // 7.2 row running; a repeated run is answered the same again, nothing is started (decision 3).
    (Running, CommitJ, Running, "ack_commit J"),
    (Running, CommitO, Running, "nack_commit O"),
    (Running, CommitUnlisted, Running, "nack_commit O"),
    (Running, CommitE, Running, "nack_commit E"),
    (Running, CommitA, Running, "nack_commit A"),
    (Running, RunJ, Running, "ack_run J"),
    (Running, RunO, Running, "nack_run O"),
    (Running, RunE, Running, "result E"),
    (Running, RunA, Running, "nack_run A"),
    (Running, Abort, Stopping, "kill J"),
    (Running, CancelJ, Stopping, "kill J"),
    (Running, CancelO, Running, "aborted O"),
    (Running, CancelE, Running, "aborted E"),
    (Running, TimeUpJ, Expiring, "kill J"),
    (Running, TimeUpO, Running, "ignored"),
    (Running, PreparedJ, Running, "ignored"),
    (Running, PreparedO, Running, "release O"),
    (Running, RefusedJ, Running, "ignored"),
    (Running, RefusedO, Running, "ignored"),
    (Running, StartedJ, Running, "ignored"),
    (Running, StartedO, Running, "ignored"),
    (Running, StartFailedJ, Running, "ignored"),
    (Running, StartFailedO, Running, "ignored"),
    (Running, Exited0J, Idle, "succeeded J"),
    (Running, Exited1J, Idle, "failed J"),
    (Running, KilledJ, Idle, "failed J"),
    (Running, ExitedO, Running, "ignored"),
    (Running, Stop, Stopping, "kill J"),
    // Killing takes time (D-46): `aborted` is the answer when it is done, once, however often abort comes.
    (Stopping, CommitJ, Stopping, "nack_commit J"),
    (Stopping, CommitO, Stopping, "nack_commit O"),
    (Stopping, CommitUnlisted, Stopping, "nack_commit O"),
    (Stopping, CommitE, Stopping, "nack_commit E"),
    (Stopping, CommitA, Stopping, "nack_commit A"),
    (Stopping, RunJ, Stopping, "nack_run J"),
    (Stopping, RunO, Stopping, "nack_run O"),
    (Stopping, RunE, Stopping, "result E"),
    (Stopping, RunA, Stopping, "nack_run A"),
    (Stopping, Abort, Stopping, "ignored"),
    (Stopping, CancelJ, Stopping, "ignored"),
    (Stopping, CancelO, Stopping, "aborted O"),
    (Stopping, CancelE, Stopping, "aborted E"),
    (Stopping, TimeUpJ, Stopping, "ignored"),
    (Stopping, TimeUpO, Stopping, "ignored"),
    (Stopping, PreparedJ, Stopping, "ignored"),
    (Stopping, PreparedO, Stopping, "release O"),
    (Stopping, RefusedJ, Stopping, "ignored"),
    (Stopping, RefusedO, Stopping, "ignored"),
    (Stopping, StartedJ, Stopping, "kill J"),
    (Stopping, StartedO, Stopping, "ignored"),
    (Stopping, StartFailedJ, Idle, "aborted J"),
    (Stopping, StartFailedO, Stopping, "ignored"),
    (Stopping, Exited0J, Idle, "aborted J"),
    (Stopping, Exited1J, Idle, "aborted J"),
    (Stopping, KilledJ, Idle, "aborted J"),
    (Stopping, ExitedO, Stopping, "ignored"),
    (Stopping, Stop, Stopping, "ignored"),
    // Its time is up: for the server it still runs, and its end is a result like any other. An order to end it counts more.
    (Expiring, CommitJ, Expiring, "ack_commit J"),
    (Expiring, CommitO, Expiring, "nack_commit O"),
    (Expiring, CommitUnlisted, Expiring, "nack_commit O"),
    (Expiring, CommitE, Expiring, "nack_commit E"),
    (Expiring, CommitA, Expiring, "nack_commit A"),
    (Expiring, RunJ, Expiring, "ack_run J"),
    (Expiring, RunO, Expiring, "nack_run O"),
    (Expiring, RunE, Expiring, "result E"),
    (Expiring, RunA, Expiring, "nack_run A"),
    (Expiring, Abort, Stopping, "ignored"),
    (Expiring, CancelJ, Stopping, "ignored"),
    (Expiring, CancelO, Expiring, "aborted O"),
    (Expiring, CancelE, Expiring, "aborted E"),
    (Expiring, TimeUpJ, Expiring, "ignored"),
    (Expiring, TimeUpO, Expiring, "ignored"),
    (Expiring, PreparedJ, Expiring, "ignored"),
    (Expiring, PreparedO, Expiring, "release O"),
    (Expiring, RefusedJ, Expiring, "ignored"),
    (Expiring, RefusedO, Expiring, "ignored"),
    (Expiring, StartedJ, Expiring, "ignored"),
    (Expiring, StartedO, Expiring, "ignored"),
    (Expiring, StartFailedJ, Expiring, "ignored"),
    (Expiring, StartFailedO, Expiring, "ignored"),
    (Expiring, Exited0J, Idle, "failed J"),
    (Expiring, Exited1J, Idle, "failed J"),
    (Expiring, KilledJ, Idle, "failed J"),
    (Expiring, ExitedO, Expiring, "ignored"),
    (Expiring, Stop, Stopping, "ignored"),
];

#[test]
fn every_pair_does_what_its_line_says() {
    let mut lines = BTreeMap::new();
    for (state, kind, next, actions) in TABLE {
        assert!(
            lines.insert((*state, *kind), (*next, *actions)).is_none(),
            "two lines for {state:?}, {kind:?}"
        );
    }
    for state in State::ALL {
        for kind in all_kinds() {
            let (next, expected) =
                lines.remove(&(state, kind)).unwrap_or_else(|| panic!("no line: {state:?}, {kind:?}"));
            let mut runner = at(state);
            assert_eq!(feed(&mut runner, kind), expected, "{state:?}, {kind:?}");
            assert_eq!(runner.state(), next, "{state:?}, {kind:?}");
        }
    }
    assert!(lines.is_empty(), "lines for no pair: {lines:?}");
    println!(
        "job runner: {} pairs of {} states and {} inputs",
        TABLE.len(),
        State::ALL.len(),
        all_kinds().len()
    );
}

#[test]
fn a_stopped_runner_takes_nothing_on() {
    let mut runner = JobRunner::new();
    assert_eq!(feed(&mut runner, Stop), "");
    assert_eq!(feed(&mut runner, CommitJ), "nack_commit J");
}

#[test]
fn a_job_is_announced_from_its_vote_to_its_end() {
    use pushy_core::message::JobState;
    for (state, expected) in [
        (Idle, (JobState::Idle, None)),
        (Preparing, (JobState::Idle, None)),
        (Committed, (JobState::Committed, Some(J))),
        (Starting, (JobState::Running, Some(J))),
        (Running, (JobState::Running, Some(J))),
        (Stopping, (JobState::Running, Some(J))),
        (Expiring, (JobState::Running, Some(J))),
    ] {
        let runner = at(state);
        let (announced, job) = runner.announced();
        assert_eq!((announced, job.map(JobId::as_str)), expected, "{state:?}");
    }
}

/// D-43: what a refused commit asks for does not touch the committed job.
#[test]
fn options_belong_to_the_commit_that_was_accepted() {
    let mut runner = JobRunner::new();
    let mut actions = Vec::new();
    let mut wanted = spec(true);
    wanted.options.user = Some("alice".into());
    runner.handle(Input::Commit { job: id(J), spec: Ok(wanted.clone()) }, &mut actions);
    runner.handle(input(PreparedJ), &mut actions);
    for job in [J, O] {
        let mut other = spec(false);
        other.options.user = Some("root".into());
        runner.handle(Input::Commit { job: id(job), spec: Ok(other) }, &mut actions);
    }
    actions.clear();
    runner.handle(input(RunJ), &mut actions);
    assert_eq!(actions, [Action::Spawn(id(J), wanted)]);
}

/// D-42, D-45: output is given only when capture was asked for; a failed start says why on standard error.
#[test]
fn output_follows_capture() {
    let mut out = Collector::new(100);
    out.push(b"\xffout");
    let stdout = out.finish();
    for capture in [false, true] {
        for starts in [false, true] {
            let mut runner = JobRunner::new();
            let mut actions = Vec::new();
            runner.handle(Input::Commit { job: id(J), spec: Ok(spec(capture)) }, &mut actions);
            runner.handle(input(PreparedJ), &mut actions);
            runner.handle(input(RunJ), &mut actions);
            if starts {
                runner.handle(input(StartedJ), &mut actions);
                let exit = Exit::Status(0);
                let (stdout, stderr) = (stdout.clone(), Captured::default());
                runner.handle(Input::Exited { job: id(J), exit, stdout, stderr }, &mut actions);
            } else {
                runner.handle(input(StartFailedJ), &mut actions);
            }
            let Some(Action::Finished { failure, output, .. }) = actions.last() else {
                panic!("{actions:?}")
            };
            assert_eq!(failure.is_none(), starts);
            let expected = if starts {
                (stdout.clone(), Captured::default())
            } else {
                (Captured::default(), Captured::from_text("cannot start: no\n"))
            };
            assert_eq!(*output, capture.then_some(expected));
        }
    }
}

/// Whatever is refused, given up or failed says why.
#[test]
fn every_no_has_its_reason() {
    let check = |state: State, kind: Kind, expected: &str| {
        let mut actions = Vec::new();
        at(state).handle(input(kind), &mut actions);
        let told = actions.iter().find_map(|action| match action {
            Action::NackCommit(_, why) | Action::NackRun(_, why) => Some(Some(why)),
            Action::Aborted(_, why) => Some(why.as_ref()),
            Action::Finished { failure, .. } => Some(failure.as_ref()),
            _ => None,
        });
        let told = told.unwrap_or_else(|| panic!("{state:?}, {kind:?}: {actions:?}"));
        let told = told.map_or_else(String::new, |why| format!("{}: {why}", why.code()));
        assert_eq!(told, expected, "{state:?}, {kind:?}");
    };
    check(Idle, CommitUnlisted, "not_whitelisted: not listed");
    check(Idle, CommitE, "refused: the job has already ended here");
    check(Running, CommitO, &format!("busy: busy with job {J}"));
    check(Expiring, CommitUnlisted, &format!("busy: busy with job {J}"));
    check(Stopping, CommitJ, "refused: the job is being aborted");
    check(Preparing, RefusedJ, "no_such_user: no");
    check(Committed, RunO, "run_refused: the job is not committed here");
    check(Committed, Abort, "");
    check(Committed, CancelJ, "cancelled: cancelled");
    check(Committed, Stop, "shutting_down: the agent is being stopped");
    check(Starting, StartFailedJ, "no_such_user: cannot start: no");
    check(Running, Exited0J, "");
    check(Running, Exited1J, "exit: exit status 1");
    check(Running, KilledJ, "signal: killed by signal 9");
    check(Expiring, Exited0J, "timed_out: ended after 0 s (run_timeout)");
    check(Stopping, KilledJ, "");
    let mut actions = Vec::new();
    let mut stopped = JobRunner::new();
    stopped.handle(input(Stop), &mut actions);
    stopped.handle(input(CommitJ), &mut actions);
    let Some(Action::NackCommit(_, why)) = actions.last() else { panic!("{actions:?}") };
    assert_eq!(why.code(), ReasonCode::ShuttingDown);
}

/// The clock of `run_timeout` starts with the process; without a limit there is none.
#[test]
fn a_limit_is_set_when_the_process_exists() {
    for (run_timeout, expected) in [(None, "ack_run J"), (Some(7), "ack_run J, limit J 7000")] {
        let mut runner = JobRunner::new();
        let mut actions = Vec::new();
        let spec = Box::new(JobSpec { run_timeout, ..*spec(false) });
        runner.handle(Input::Commit { job: id(J), spec: Ok(spec) }, &mut actions);
        runner.handle(input(PreparedJ), &mut actions);
        runner.handle(input(RunJ), &mut actions);
        assert_eq!(feed(&mut runner, StartedJ), expected);
    }
}
