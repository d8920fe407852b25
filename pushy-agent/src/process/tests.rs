//! Real processes. As root they run as other users too; without, those lines are left out and say so.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use pushy_core::job::JobOptions;
use pushy_core::node::capture::fit;
use pushy_core::node::job_runner::{Exit, Input};
use pushy_core::reason::ReasonCode;
use pushy_core::whitelist::Allowed;
use tempfile::TempDir;

use super::*;

const JOB: &str = "4be1d6f0a9c30123456789abcdef0123";

/// No test waits longer for anything that is to happen.
const DEADLINE: Duration = Duration::from_secs(20);

struct Bench {
    dir: TempDir,
    policy: Policy,
    runtime: tokio::runtime::Runtime,
}

fn shell(line: &str) -> JobSpec {
    JobSpec {
        command: "test".into(),
        allowed: Allowed {
            entry: "test".into(),
            command: CommandLine::Args(vec!["/bin/sh".into(), "-c".into(), line.into()]),
            lock: None,
            user: None,
            dir: None,
            env: Vec::new(),
        },
        options: JobOptions { capture: true, ..JobOptions::default() },
        run_timeout: None,
    }
}

struct Ended {
    exit: Exit,
    stdout: String,
    stderr: String,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        // Other users must be able to pass.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("changed");
        let policy = Policy {
            file_dir: dir.path().join("files"),
            chef_lock: dir.path().join("chef-client-running.pid"),
            allowed_overwritable_env_vars: None,
            environment_passthrough: Vec::new(),
            grace: Duration::from_millis(300),
            cgroup: true,
            capture_limit: 2_000,
            spool: crate::spool::Limits::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Bench { dir, policy, runtime }
    }

    /// Prepares and starts; `during` acts on the running process; gives its end.
    fn run_with(&self, spec: &JobSpec, during: impl AsyncFnOnce(&Running)) -> Result<Ended, String> {
        let prepared = prepare(spec, &self.policy).map_err(|why| why.to_string())?;
        self.runtime.block_on(async {
            let (events, mut ends) = mpsc::unbounded_channel();
            let node = NodeName::new("web1").expect("a name");
            let job = JobId::new(JOB).expect("an id");
            let running = spawn(&node, &job, spec, prepared, &self.policy, None, &events);
            let running = running.map_err(|why| why.to_string())?;
            during(&running).await;
            let end = tokio::time::timeout(DEADLINE, ends.recv())
                .await
                .map_err(|_| "it does not end".to_owned())?;
            let Some(Event::Job(Input::Exited { exit, stdout, stderr, .. })) = end else {
                return Err("something else than an end".to_owned());
            };
            let (stdout, stderr) = fit(&stdout, &stderr, 1 << 20);
            Ok(Ended { exit, stdout, stderr })
        })
    }

    fn run(&self, spec: &JobSpec) -> Result<Ended, String> {
        self.run_with(spec, async |_| {})
    }

    fn output(&self, line: &str) -> String {
        self.run(&shell(line)).expect("it runs").stdout
    }
}

/// Waits for a file with a whole line and gives it.
async fn line_of(path: &Path) -> String {
    let start = Instant::now();
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => assert!(start.elapsed() < DEADLINE, "{} never came", path.display()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_alive(pid: &str) -> bool {
    let pid: i32 = pid.parse().expect("a pid");
    // An orphan's end may wait for its new parent to look: a zombie is dead.
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')));
    kill(Pid::from_raw(pid), None).is_ok() && !zombie
}

#[test]
fn ends_are_told_apart() {
    let bench = Bench::new();
    for (line, expected) in [
        ("exit 0", Exit::Status(0)),
        ("exit 3", Exit::Status(3)),
        ("exit 255", Exit::Status(255)),
        ("kill -9 $$", Exit::Signal(9)),
        ("kill -TERM $$", Exit::Signal(15)),
    ] {
        assert_eq!(bench.run(&shell(line)).expect("it runs").exit, expected, "{line}");
    }
}

#[test]
fn both_channels_are_captured_apart_or_not_at_all() {
    let bench = Bench::new();
    let mut spec = shell("echo out; echo err >&2; printf '\\377\\000x'");
    let ended = bench.run(&spec).expect("it runs");
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out\n\u{fffd}\u{fffd}x", "err\n"));
    spec.options.capture = false;
    let ended = bench.run(&spec).expect("it runs");
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
}

#[test]
fn of_huge_output_both_ends_are_kept() {
    let bench = Bench::new();
    let ended =
        bench.run(&shell("echo first; head -c 20000000 /dev/zero | tr '\\0' x; echo last")).expect("it runs");
    assert_eq!(ended.exit, Exit::Status(0));
    assert!(ended.stdout.starts_with("first\nxxx") && ended.stdout.ends_with("xxxlast\n"));
    assert!(ended.stdout.contains("[... 19998011 bytes left out ...]"), "{}", ended.stdout.len());
}

#[test]
fn a_process_leads_its_own_session_and_reads_nothing() {
    let bench = Bench::new();
    let text = bench
        .output("read -r pid comm state ppid pgrp session rest < /proc/$$/stat; echo $$ $pgrp $session; cat");
    let numbers: Vec<&str> = text.split_ascii_whitespace().collect();
    assert_eq!(numbers.len(), 3, "{text}");
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{text}");
}

#[test]
fn a_child_that_stays_does_not_hold_the_job_up() {
    let bench = Bench::new();
    let pid = bench.dir.path().join("pid");
    let start = Instant::now();
    let ended =
        bench.run(&shell(&format!("sleep 60 & echo $! > {}; echo done", pid.display()))).expect("it runs");
    assert!(start.elapsed() < DEADLINE);
    assert_eq!(ended.stdout, "done\n");
    let pid = std::fs::read_to_string(pid).expect("a pid");
    assert!(is_alive(pid.trim()), "a service that a job started goes on");
    kill(Pid::from_raw(pid.trim().parse().expect("a pid")), nix::sys::signal::Signal::SIGKILL)
        .expect("ended");
}

/// D-46: TERM is ignored by the shell and by its child; KILL after the grace ends both.
#[test]
fn a_group_that_ignores_term_is_killed() {
    let bench = Bench::new();
    let pid = bench.dir.path().join("pid");
    let line = format!(
        "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo $! > {}; echo started; wait; wait",
        pid.display()
    );
    let mut child = String::new();
    let ended = bench
        .run_with(&shell(&line), async |running| {
            child = line_of(&pid).await;
            running.kill();
            running.kill();
        })
        .expect("it runs");
    assert_eq!(ended.exit, Exit::Signal(9));
    assert_eq!(ended.stdout, "started\n");
    let start = Instant::now();
    while is_alive(&child) {
        assert!(start.elapsed() < DEADLINE, "the child lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_group_that_obeys_term_is_not_waited_for() {
    let mut bench = Bench::new();
    bench.policy.grace = DEADLINE * 2;
    let pid = bench.dir.path().join("pid");
    // The shell goes at once, the child cleans up first.
    let line = format!(
        "(trap 'echo cleaned > {0}.done; exit' TERM; echo $$ > {0}; while :; do sleep 0.05; done) & wait",
        pid.display()
    );
    let start = Instant::now();
    let ended = bench
        .run_with(&shell(&line), async |running| {
            line_of(&pid).await;
            running.kill();
        })
        .expect("it runs");
    assert!(start.elapsed() < DEADLINE);
    assert_eq!(ended.exit, Exit::Signal(15));
    assert_eq!(std::fs::read_to_string(format!("{}.done", pid.display())).expect("cleaned"), "cleaned\n");
}

#[test]
fn the_directory_is_the_jobs() {
    let bench = Bench::new();
    let mut spec = shell("pwd");
    let dir = std::fs::canonicalize(bench.dir.path()).expect("a path");
    spec.options.dir = Some(dir.display().to_string());
    assert_eq!(bench.run(&spec).expect("it runs").stdout, format!("{}\n", dir.display()));
    spec.allowed.dir = Some("/".into());
    assert_eq!(bench.run(&spec).expect("it runs").stdout, "/\n", "the whitelist's wins");
}

#[test]
fn the_file_is_private_and_goes_with_the_job() {
    let bench = Bench::new();
    let line = "echo \"$CHEF_PUSH_JOB_FILE\"; stat -c '%a %U' \"$CHEF_PUSH_JOB_FILE\" \
                \"$(dirname \"$CHEF_PUSH_JOB_FILE\")\"; cat \"$CHEF_PUSH_JOB_FILE\"";
    for (option, content) in [("raw:some\ntext", "some\ntext"), ("base64:aGVs\nbG8K", "hello\n")] {
        for user in users() {
            let mut spec = shell(line);
            spec.options.file = Some(option.into());
            spec.options.user = user.map(str::to_owned);
            let ended = bench.run(&spec).expect("it runs");
            let me = nix::unistd::User::from_uid(geteuid()).ok().flatten().map(|u| u.name);
            let owner = user.map(str::to_owned).or(me).expect("a name");
            let (path, rest) = ended.stdout.split_once('\n').expect("a line");
            assert_eq!(rest, format!("600 {owner}\n700 {owner}\n{content}"), "{}", ended.stderr);
            assert!(!Path::new(path).exists());
        }
    }
    let left = std::fs::read_dir(&bench.policy.file_dir).expect("made").count();
    assert_eq!(left, 0);
    assert_eq!(std::fs::metadata(&bench.policy.file_dir).expect("made").mode() & 0o777, 0o711);
}

#[test]
fn a_file_dir_open_to_others_is_refused() {
    let bench = Bench::new();
    std::fs::create_dir(&bench.policy.file_dir).expect("made");
    std::fs::set_permissions(&bench.policy.file_dir, std::fs::Permissions::from_mode(0o777))
        .expect("changed");
    let mut spec = shell("true");
    spec.options.file = Some("raw:x".into());
    let error = bench.run(&spec).map(|_| ()).expect_err("refused");
    assert!(error.contains("can be written by"), "{error}");
}

/// The agent's own user, and another one if we may become it.
fn users() -> Vec<Option<&'static str>> {
    if geteuid().is_root() {
        vec![None, Some("nobody")]
    } else {
        println!("not root: jobs of other users are not tried");
        vec![None]
    }
}

/// D-51: uid, gid and groups are the user's, and what a login would set.
#[test]
fn a_job_runs_as_its_user_and_nobody_else() {
    let bench = Bench::new();
    for user in users().into_iter().flatten() {
        let expected = std::process::Command::new("id").arg(user).output().expect("id runs").stdout;
        let mut spec = shell("id; echo $HOME $USER $LOGNAME $SHELL");
        spec.options.user = Some(user.into());
        let found = nix::unistd::User::from_name(user).expect("looked up").expect("exists");
        let login = format!("{} {user} {user} {}\n", found.dir.display(), found.shell.display());
        let ended = bench.run(&spec).expect("it runs");
        assert_eq!(ended.stdout, String::from_utf8_lossy(&expected) + login.as_str());
        spec.options.user = Some("root".into());
        spec.allowed.user = Some(user.into());
        assert!(bench.run(&spec).expect("it runs").stdout.contains(&login), "the whitelist's wins");
    }
}

#[test]
fn the_environment_is_small() {
    let bench = Bench::new();
    let mut spec = shell("env | cut -d= -f1 | sort");
    spec.options.env = Some(vec![("STAGE".into(), "prod".into())]);
    let names = bench.run(&spec).expect("it runs").stdout;
    let names: Vec<&str> = names.lines().collect();
    for name in
        ["CHEF_PUSH_JOB_ID", "CHEF_PUSH_NODE_NAME", "HOME", "LOGNAME", "PATH", "SHELL", "STAGE", "USER"]
    {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{names:?}");
}

/// 7.3: each check, in words that name what is wrong.
#[test]
fn what_cannot_be_done_is_refused_before_the_vote() {
    let bench = Bench::new();
    let check = |change: fn(&mut JobOptions), code: ReasonCode, expected: &str| {
        let mut spec = shell("true");
        change(&mut spec.options);
        let error = prepare(&spec, &bench.policy).map(|_| ()).expect_err(expected);
        assert!(error.text().contains(expected), "{error}");
        assert_eq!(error.code(), code, "{error}");
    };
    use ReasonCode::{BadFile, BadRequest, NoSuchDir, NoSuchUser};
    check(|o| o.user = Some("no-such-user".into()), NoSuchUser, "user \"no-such-user\" does not exist");
    check(|o| o.user = Some("a\0".into()), NoSuchUser, "does not exist");
    check(|o| o.dir = Some("/no/such/dir".into()), NoSuchDir, "directory \"/no/such/dir\" does not exist");
    check(|o| o.dir = Some("/etc/passwd".into()), NoSuchDir, "does not exist");
    check(|o| o.file = Some("text".into()), BadFile, "does not start with raw: or base64:");
    check(|o| o.env = Some(vec![("A=B".into(), "x".into())]), BadRequest, "is not a name");
}

/// D-42.
#[test]
fn what_cannot_be_started_says_why() {
    let bench = Bench::new();
    for (program, expected) in [
        ("/no/such/program", "no such program"),
        ("/etc/passwd", "cannot run"),
        ("", "command line is empty"),
    ] {
        let mut spec = shell("");
        spec.allowed.command = CommandLine::Shell(program.into());
        let error = bench.run(&spec).map(|_| ()).expect_err(program);
        assert!(error.contains(expected), "{error}");
    }
}

/// 7.5: nack while somebody holds the lock; free for the command once it runs; no folder, no lock.
#[test]
fn a_lock_is_held_from_the_vote_to_the_run() {
    let mut bench = Bench::new();
    let path = bench.policy.chef_lock.clone();
    let mut spec = shell(&format!("flock -n {} echo free", path.display()));
    for lock in [Lock::ChefClient, Lock::Path(path.display().to_string())] {
        spec.allowed.lock = Some(lock);
        let held = prepare(&spec, &bench.policy).expect("free");
        let error = prepare(&spec, &bench.policy).map(|_| ()).expect_err("held");
        assert!(error.text().contains("is held"), "{error}");
        assert_eq!(error.code(), ReasonCode::LockHeld);
        drop(held);
        assert_eq!(bench.run(&spec).expect("it runs").stdout, "free\n");
    }
    bench.policy.chef_lock = bench.dir.path().join("no/such/dir/lock");
    spec.allowed.lock = Some(Lock::ChefClient);
    prepare(&spec, &bench.policy).expect("nobody holds what cannot exist");
}
