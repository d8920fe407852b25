//! Running other people's commands: the checks before a vote, the process, its output, its end (7.3, 7.5, 7.6).
//!
//! What belongs to one operating system is behind the names of `unix`; there is no Windows side yet, and the crate
//! says so when it is built there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pushy_core::ids::{JobId, NodeName};
use pushy_core::node::JobSpec;
use pushy_core::reason::{Reason, ReasonCode};
use pushy_core::whitelist::{CommandLine, Lock};
use tokio::sync::mpsc;

use crate::driver::Event;
use crate::spool::{self, Spool};

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod environment;
mod inotify;
mod job_file;
#[cfg(target_os = "linux")]
mod keeper;
#[cfg(test)]
mod tests;
mod timer;
#[cfg(target_os = "linux")]
mod tree;
mod unix;

#[cfg(not(target_os = "linux"))]
use elsewhere::{Nursery, Tree};
use unix as os;
#[cfg(target_os = "linux")]
use {keeper::Nursery, tree::Tree};

pub use environment::{BLOCKED_NAMES, DEFAULT_PATH};
pub(crate) use inotify::Watches;
pub(crate) use os::trim_memory;
pub(crate) use timer::Timer;

/// How jobs are run: what the configuration says about them.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Where delivered files go, one private directory per job.
    pub file_dir: PathBuf,
    /// The lock that chef-client holds while it runs.
    pub chef_lock: PathBuf,
    /// Names that a job's `env` may set as they are; every other becomes `CHEF_PUSH_ENV_NAME`. `None`: every name but
    /// those of [`BLOCKED_NAMES`] (decision 19).
    pub allowed_overwritable_env_vars: Option<Vec<String>>,
    /// Names that jobs inherit from this service, besides the usual ones.
    pub environment_passthrough: Vec<String>,
    /// Between TERM and KILL.
    pub grace: Duration,
    /// Whether a job gets a cgroup of its own where the agent may make one.
    pub cgroup: bool,
    /// How much of each output channel is kept while the job runs, in bytes.
    pub capture_limit: usize,
    /// What is kept on disk of what jobs print.
    pub spool: spool::Limits,
}

/// What preparing acquired: the user found and the lock held (7.5: until the run).
#[derive(Debug)]
pub(crate) struct Prepared {
    user: os::JobUser,
    lock: Option<os::LockFile>,
    /// Content of the delivered file.
    file: Option<Vec<u8>>,
}

/// Checks everything that a vote promises: user, directory, file, environment, lock. Blocks; the user may be looked up
/// over a network.
///
/// # Errors
/// Which check failed.
pub(crate) fn prepare(spec: &JobSpec, policy: &Policy) -> Result<Prepared, Reason> {
    let options = &spec.options;
    let user = os::JobUser::find(spec.user())?;
    if let Some(dir) = spec.dir() {
        if !Path::new(dir).is_dir() {
            let text = format!("directory {dir:?} does not exist");
            return Err(Reason::new(ReasonCode::NoSuchDir, text));
        }
    }
    let file = options.file.as_deref().map(job_file::decode).transpose();
    let file = file.map_err(|text| Reason::new(ReasonCode::BadFile, text))?;
    environment::check(options.env.as_deref().unwrap_or(&[]))
        .map_err(|text| Reason::new(ReasonCode::BadRequest, text))?;
    let lock = match &spec.allowed.lock {
        None => None,
        Some(Lock::ChefClient) => os::LockFile::take(&policy.chef_lock)?,
        Some(Lock::Path(path)) => os::LockFile::take(Path::new(path))?,
    };
    Ok(Prepared { user, lock, file })
}

/// A process that was started; dropping it does not end the process.
#[derive(Debug)]
pub(crate) struct Running {
    kill: mpsc::Sender<()>,
}

impl Running {
    /// Ends everything that the job has started: TERM, grace, KILL. The end is reported like any other.
    pub(crate) fn kill(&self) {
        // Full: the end is under way already. Closed: the process has ended.
        let _ = self.kill.try_send(());
    }
}

/// Lets go of the lock, writes the job's file and starts its process; the end is reported as an event.
///
/// # Errors
/// Why it could not be started (D-42).
pub(crate) fn spawn(
    node: &NodeName,
    job: &JobId,
    spec: &JobSpec,
    prepared: Prepared,
    policy: &Policy,
    spool: Option<Arc<Spool>>,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<Running, Reason> {
    let Prepared { user, lock, file } = prepared;
    drop(lock);
    let options = &spec.options;
    let failed = |text: String| Reason::new(ReasonCode::StartFailed, text);
    let file =
        file.map(|content| job_file::JobFile::create(&policy.file_dir, job, &content, &user)).transpose();
    let file = file.map_err(|text| Reason::new(ReasonCode::BadFile, text))?;
    let (environment, refused) = environment::build(&environment::Parts {
        service: std::env::vars_os().collect(),
        passthrough: &policy.environment_passthrough,
        user: &user,
        job: options.env.as_deref().unwrap_or(&[]),
        enforced: &spec.allowed.env,
        overwritable: policy.allowed_overwritable_env_vars.as_deref(),
        node,
        id: job,
        file: file.as_ref().map(job_file::JobFile::path),
    });
    for name in refused {
        tracing::warn!(
            job = %job,
            "environment variable {name:?} was left out: allowed_overwritable_env_vars does not name it"
        );
    }
    let argv = arguments(&spec.allowed.command).map_err(failed)?;
    let child = os::start(&os::Start {
        argv: &argv,
        environment,
        dir: spec.dir(),
        user: &user,
        capture: options.capture,
        job,
        cgroup: policy.cgroup,
    })
    .map_err(failed)?;
    let (kill, killed) = mpsc::channel(1);
    let limit = if options.capture { policy.capture_limit } else { 0 };
    tokio::spawn(os::watch(os::Watch {
        child,
        job: job.clone(),
        file,
        limit,
        spool,
        grace: policy.grace,
        killed,
        events: events.clone(),
    }));
    Ok(Running { kill })
}

/// Characters that make Ruby's `exec`, and so us, hand a command line to a shell.
const SHELL_CHARACTERS: &str = "*?{}[]<>()~&|\\$;'`\"\n#";

/// First words that only a shell understands.
const SHELL_WORDS: [&str; 30] = [
    "!", ".", ":", "break", "case", "continue", "do", "done", "elif", "else", "esac", "eval", "exec", "exit",
    "export", "fi", "for", "if", "in", "readonly", "return", "set", "shift", "then", "times", "trap",
    "unset", "until", "while", "{",
];

/// The argument vector of a command line (7.4): without shell characters its words, else `/bin/sh -c`.
pub(crate) fn arguments(line: &CommandLine) -> Result<Vec<String>, String> {
    let argv = match line {
        CommandLine::Args(argv) => argv.clone(),
        CommandLine::Shell(text) => {
            let words: Vec<&str> = text.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            let shell = text.contains(|c| SHELL_CHARACTERS.contains(c))
                || words.first().is_some_and(|word| word.contains(['=', '%']) || SHELL_WORDS.contains(word));
            if shell {
                vec!["/bin/sh".into(), "-c".into(), text.clone()]
            } else {
                words.into_iter().map(str::to_owned).collect()
            }
        }
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err("the command line is empty".into());
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err("the command line contains a NUL".into());
    }
    Ok(argv)
}

#[cfg(test)]
mod lines {
    use super::*;

    #[test]
    fn a_shell_is_used_only_for_what_needs_one() {
        let check = |line: &str, expected: &[&str]| {
            let argv = arguments(&CommandLine::Shell(line.into()));
            assert_eq!(
                argv.as_deref(),
                Ok(&*expected.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()),
                "{line}"
            );
        };
        check("chef-client", &["chef-client"]);
        check("  echo  a\tb=c %d ", &["echo", "a", "b=c", "%d"]);
        for line in ["echo $HOME", "a; b", "A=b c", "exit 3", ": x", "echo 'a b'", "a\nb", "echo *", "ls ~"] {
            check(line, &["/bin/sh", "-c", line]);
        }
        let vector = CommandLine::Args(vec!["echo".into(), "$HOME; x".into()]);
        assert_eq!(arguments(&vector), Ok(vec!["echo".into(), "$HOME; x".into()]));
        for empty in [CommandLine::Shell(" \t ".into()), CommandLine::Args(vec![])] {
            assert_eq!(arguments(&empty), Err("the command line is empty".into()));
        }
        assert!(arguments(&CommandLine::Shell("a\0b".into())).is_err());
    }
}
