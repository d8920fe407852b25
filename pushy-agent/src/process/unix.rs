//! Users, locks, processes and their ends on Unix.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Gid, Pid, Uid, User, geteuid, getgrouplist};
use pushy_core::ids::JobId;
use pushy_core::node::job_runner::{Exit, Input};
use pushy_core::node::{Captured, Collector};
use pushy_core::reason::{Reason, ReasonCode};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::job_file::JobFile;
use super::{Nursery, Tree};
use crate::driver::Event;
use crate::spool::{Side, Spool};

/// Whom a job runs as.
#[derive(Debug, Clone)]
pub(super) struct JobUser {
    name: String,
    home: PathBuf,
    shell: PathBuf,
    uid: Uid,
    gid: Gid,
    /// Set when the agent has to become somebody else: all groups of that user.
    switch: Option<Vec<Gid>>,
}

impl JobUser {
    /// Looks the user up; without a name, the agent's own. Blocks.
    pub(super) fn find(name: Option<&str>) -> Result<JobUser, Reason> {
        let unknown = |text: String| Reason::new(ReasonCode::NoSuchUser, text);
        let me = geteuid();
        let found = match name {
            Some(name) if name.contains('\0') => None,
            Some(name) => User::from_name(name)
                .map_err(|error| unknown(format!("cannot look up user {name:?}: {error}")))?,
            None => match User::from_uid(me).ok().flatten() {
                Some(user) => Some(user),
                None => return Ok(JobUser::unlisted(me)),
            },
        };
        let Some(user) = found else {
            return Err(unknown(format!("user {:?} does not exist", name.unwrap_or(""))));
        };
        let switch = if name.is_none() || user.uid == me {
            None
        } else if me.is_root() {
            // A user database without NUL in names: the name was just found in it.
            let c_name =
                CString::new(user.name.as_str()).map_err(|_| unknown("user name with a NUL".to_owned()))?;
            let groups = getgrouplist(&c_name, user.gid).map_err(|error| {
                unknown(format!("cannot look up the groups of user {:?}: {error}", user.name))
            })?;
            Some(groups)
        } else {
            let text = format!("cannot run as user {:?}: the agent does not run as root", user.name);
            return Err(Reason::new(ReasonCode::Permission, text));
        };
        Ok(JobUser {
            name: user.name,
            home: user.dir,
            shell: user.shell,
            uid: user.uid,
            gid: user.gid,
            switch,
        })
    }

    /// A user that only has a number, as in many containers.
    fn unlisted(uid: Uid) -> JobUser {
        JobUser {
            name: uid.to_string(),
            home: "/".into(),
            shell: "/bin/sh".into(),
            uid,
            gid: nix::unistd::getegid(),
            switch: None,
        }
    }

    /// What a login would set.
    pub(super) fn variables(&self) -> [(&'static str, OsString); 4] {
        [
            ("HOME", self.home.clone().into()),
            ("USER", self.name.clone().into()),
            ("LOGNAME", self.name.clone().into()),
            ("SHELL", self.shell.clone().into()),
        ]
    }
}

/// Hands a file or directory over to the job's user.
pub(super) fn give(path: &Path, user: &JobUser) -> io::Result<()> {
    if user.switch.is_none() {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}

/// Whether the job's user can pass through every folder on the way: a file it cannot reach is no delivery.
pub(super) fn check_reach(dir: &Path, user: &JobUser) -> Result<(), String> {
    let Some(groups) = &user.switch else { return Ok(()) };
    if user.uid.is_root() {
        return Ok(());
    }
    let dir = std::path::absolute(dir).map_err(|error| error.to_string())?;
    for folder in dir.ancestors() {
        let meta = std::fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let bit = if meta.uid() == user.uid.as_raw() {
            0o100
        } else if groups.iter().any(|group| group.as_raw() == meta.gid()) {
            0o010
        } else {
            0o001
        };
        if meta.mode() & bit == 0 {
            return Err(format!(
                "user {:?} cannot pass through {} to the job's file; set file_dir to another place",
                user.name,
                folder.display()
            ));
        }
    }
    Ok(())
}

/// A lock file held by this process (7.5).
#[derive(Debug)]
pub(super) struct LockFile {
    _lock: Flock<File>,
}

impl LockFile {
    /// Takes the lock without waiting. `None` when there is no directory to hold the file: then nobody holds it.
    pub(super) fn take(path: &Path) -> Result<Option<LockFile>, Reason> {
        let forbidden = |what: &str, error: &dyn std::fmt::Display| {
            let text = format!("cannot {what} lock file {}: {error}", path.display());
            Reason::new(ReasonCode::Permission, text)
        };
        // Not truncated: whoever holds the lock may have written its pid there.
        let file = match OpenOptions::new().write(true).create(true).truncate(false).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(forbidden("open", &error)),
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(LockFile { _lock: lock })),
            Err((_, Errno::EWOULDBLOCK)) => {
                Err(Reason::new(ReasonCode::LockHeld, format!("lock {} is held", path.display())))
            }
            Err((_, error)) => Err(forbidden("take", &error)),
        }
    }
}

/// Everything a new process needs.
pub(super) struct Start<'a> {
    pub(super) argv: &'a [String],
    pub(super) environment: BTreeMap<OsString, OsString>,
    pub(super) dir: Option<&'a str>,
    pub(super) user: &'a JobUser,
    pub(super) capture: bool,
    pub(super) job: &'a JobId,
    /// Whether the job gets a cgroup where the agent may make one.
    pub(super) cgroup: bool,
}

/// A started process: leader of its own session and process group.
#[derive(Debug)]
pub(super) struct Started {
    child: Child,
    tree: Tree,
    signals: SignalStream,
}

/// Starts the process.
pub(super) fn start(start: &Start<'_>) -> Result<Started, String> {
    let text = |error: io::Error| error.to_string();
    let [program, arguments @ ..] = start.argv else { return Err("the command line is empty".into()) };
    // Before the process exists, so that its end cannot be missed.
    let signals = signal(SignalKind::child()).map_err(text)?;
    let output = || if start.capture { Stdio::piped() } else { Stdio::null() };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&start.environment)
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output());
    let switch = start.user.switch.clone();
    let groups: Option<Vec<libc::gid_t>> = switch.map(|groups| groups.into_iter().map(Gid::as_raw).collect());
    let (uid, gid) = (start.user.uid.as_raw(), start.user.gid.as_raw());
    let dir =
        start.dir.map(CString::new).transpose().map_err(|_| "the directory contains a NUL".to_owned())?;
    let nursery = Nursery::new(start.job, start.cgroup).map_err(text)?;
    let split = nursery.split();
    // SAFETY: the closure runs between fork and exec. It only makes system calls that are safe there (no allocation, no
    // lock), on memory that was allocated before the fork; io::Error::last_os_error does not allocate either.
    unsafe {
        command.pre_exec(move || {
            let check = |result: libc::c_int| {
                if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
            };
            split.run()?;
            check(libc::setsid())?;
            if let Some(groups) = &groups {
                check(libc::setgroups(groups.len() as _, groups.as_ptr()))?;
                check(libc::setgid(gid))?;
                check(libc::setuid(uid))?;
            }
            // As the job's user: it must be able to enter.
            if let Some(dir) = &dir {
                check(libc::chdir(dir.as_ptr()))?;
            }
            Ok(())
        });
    }
    let child = command.spawn().map_err(|error| {
        let what = if error.kind() == io::ErrorKind::NotFound { "no such program" } else { "cannot run" };
        format!("{what}: {program:?}: {error}")
    })?;
    // A child has a pid within i32; one out of range is never signalled.
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    Ok(Started { child, tree: nursery.born(pid), signals })
}

/// What [`watch`] needs.
pub(super) struct Watch {
    pub(super) child: Started,
    pub(super) job: JobId,
    /// Removed when the job ends.
    pub(super) file: Option<JobFile>,
    pub(super) limit: usize,
    /// Keeps all of the output.
    pub(super) spool: Option<Arc<Spool>>,
    pub(super) grace: Duration,
    pub(super) killed: mpsc::Receiver<()>,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

/// Reads a process's output, ends it when asked and reports its end.
pub(super) async fn watch(watch: Watch) {
    let Watch { child: started, job, file, limit, spool, grace, mut killed, events } = watch;
    let Started { mut child, tree, mut signals } = started;
    let mut stdout = Channel::new(child.stdout.take().map(OwnedFd::from), limit, Side::Stdout, spool.clone());
    let mut stderr = Channel::new(child.stderr.take().map(OwnedFd::from), limit, Side::Stderr, spool.clone());
    let mut asked = false;
    while !has_ended(tree.child()) {
        tokio::select! {
            _ = signals.recv() => {}
            () = stdout.read(), if stdout.is_open() => {}
            () = stderr.read(), if stderr.is_open() => {}
            Some(()) = killed.recv(), if !asked => {
                asked = true;
                end(&tree, &job, grace, &mut signals, &mut [&mut stdout, &mut stderr]).await;
            }
        }
    }
    let status = child.wait();
    // What the process wrote before its end is in the pipes now; what others write later is not the job's.
    stdout.drain();
    stderr.drain();
    drop((file, tree));
    if let Some(spool) = spool {
        spool.finish();
    }
    let exit = status.map_or(Exit::Status(255), exit_of);
    let input = Input::Exited { job, exit, stdout: stdout.finish(), stderr: stderr.finish() };
    // Without a receiver the agent is gone.
    let _ = events.send(Event::Job(input));
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}

/// Whether a child has ended. It is left unreaped: until then its number cannot be given to anybody else (decision 51).
fn has_ended(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
}

/// What is killed ends within this, or is stuck in the kernel.
const LAST: Duration = Duration::from_secs(5);

/// TERM to everything that the job has started, time to end, KILL to what is left (D-46), also to what has left its
/// session and group. Returns with nothing of it alive, except what the kernel or another user's rights protect.
async fn end(
    tree: &Tree,
    job: &JobId,
    grace: Duration,
    signals: &mut SignalStream,
    channels: &mut [&mut Channel; 2],
) {
    tree.hold();
    let held = Instant::now() + LAST;
    while !tree.is_held() && Instant::now() < held {
        sleep_until(Instant::now() + Duration::from_millis(1)).await;
    }
    if has_ended(tree.child()) {
        // It came to its own end first: what it leaves behind stays.
        return;
    }
    tree.terminate();
    let deadline = Instant::now() + grace;
    let mut pause = Duration::from_millis(10);
    while Instant::now() < deadline && tree.lives() {
        let wake = (Instant::now() + pause).min(deadline);
        pause = (pause * 2).min(Duration::from_millis(200));
        let [out, err] = channels;
        // A process that waits for its output to be read must be able to end.
        tokio::select! {
            _ = signals.recv() => {}
            () = sleep_until(wake) => {}
            () = out.read(), if out.is_open() => {}
            () = err.read(), if err.is_open() => {}
        }
    }
    let deadline = Instant::now() + LAST;
    let mut left = tree.kill();
    let mut seen_none = left.is_empty();
    // Twice: a process may hide from one look by changing its number just then.
    while !(left.is_empty() && seen_none) && Instant::now() < deadline {
        seen_none = left.is_empty();
        sleep_until(Instant::now() + Duration::from_millis(2)).await;
        left = tree.kill();
    }
    if !left.is_empty() {
        tracing::error!(job = %job, "these processes of the job cannot be ended: {left:?}");
    }
    tree.release();
}

/// One output channel of a process.
struct Channel {
    pipe: Option<pipe::Receiver>,
    collector: Collector,
    side: Side,
    spool: Option<Arc<Spool>>,
}

/// Bytes of one read.
const READ: usize = 8_192;

/// Most reads after the end: more than a pipe can hold (1 MiB), so that a child that goes on writing cannot keep us.
const LAST_READS: usize = 160;

impl Channel {
    fn new(pipe: Option<OwnedFd>, limit: usize, side: Side, spool: Option<Arc<Spool>>) -> Channel {
        // It is a pipe, made a moment ago; without a reader the output is lost, not the job.
        let pipe = pipe.and_then(|fd| pipe::Receiver::from_owned_fd(fd).ok());
        Channel { pipe, collector: Collector::new(limit), side, spool }
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits for more and takes it. Cancel-safe: nothing is taken before it is there.
    async fn read(&mut self) {
        if let Some(pipe) = &self.pipe {
            if pipe.readable().await.is_err() {
                self.pipe = None;
            }
        }
        self.take(|pipe, buffer| pipe.try_read(buffer));
    }

    /// Takes what is there now. Asks the kernel: the runtime may not have heard of the last bytes yet.
    fn drain(&mut self) {
        let mut reads = 0;
        while reads < LAST_READS && self.take(|pipe, buffer| Ok(nix::unistd::read(pipe, buffer)?)) {
            reads += 1;
        }
    }

    /// Reads once; whether there may be more.
    fn take(&mut self, read: impl FnOnce(&pipe::Receiver, &mut [u8]) -> io::Result<usize>) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let mut buffer = [0; READ];
        match read(pipe, &mut buffer) {
            Ok(count @ 1..) => {
                self.collector.push(&buffer[..count]);
                if let Some(spool) = &self.spool {
                    spool.push(self.side, &buffer[..count]);
                }
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The end, or no way to read on.
            Ok(_) | Err(_) => self.pipe = None,
        }
        false
    }

    fn finish(self) -> Captured {
        self.collector.finish()
    }
}

/// Gives memory back after something big, such as a start or a TLS handshake: an agent idles for weeks.
///
/// Freed heap goes back to the system, and so do pages of the program and its libraries that nothing else uses; those
/// in use come back from the page cache within microseconds.
pub(crate) fn trim_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim has no preconditions; it only returns free pages to the system.
    unsafe {
        libc::malloc_trim(0);
    }
    #[cfg(target_os = "linux")]
    for (start, length) in file_mappings() {
        // SAFETY: MADV_PAGEOUT changes no content, whatever the range: what is dropped is read again from the file. A
        // failure (an old kernel, a range that is gone) means that nothing was given back.
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_PAGEOUT);
        }
    }
}

/// Where files are mapped read-only into this process: the code and constants of the program and its libraries.
#[cfg(target_os = "linux")]
fn file_mappings() -> Vec<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (range, rights) = (fields.next()?, fields.next()?);
            let file = fields.nth(3)?;
            let (start, end) = range.split_once('-')?;
            let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
            (file.starts_with('/') && !rights.contains('w')).then(|| (start, end.saturating_sub(start)))
        })
        .collect()
}
