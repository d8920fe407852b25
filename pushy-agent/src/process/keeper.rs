//! The keeper: a process between the agent and a job's command. Whatever the command leaves without a parent becomes
//! the keeper's child, so everything that the job started can be found by descent, also what forked twice and left
//! session and group.
//!
//! It is forked off on the way to the command and never executes anything. It ends as the command ended, and what is
//! left then becomes init's, as if it had never been there: a service that a job started stays. To end a job the agent
//! stops the keeper first: a stopped one can neither end nor lose anything.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, pipe2};
use pushy_core::ids::JobId;

use super::cgroup::Cgroup;
use super::tree::Tree;

/// The pipe on which the keeper names the command's process.
const PID_BYTES: usize = size_of::<libc::pid_t>();

/// What is made before a job's process.
pub(super) struct Nursery {
    told: OwnedFd,
    tell: OwnedFd,
    cgroup: Option<Cgroup>,
}

/// The part of it that is used between fork and exec.
#[derive(Clone, Copy)]
pub(super) struct Split {
    tell: RawFd,
    cgroup: Option<RawFd>,
}

impl Nursery {
    /// With `cgroup`, the job gets one of its own where the agent may make one.
    pub(super) fn new(job: &JobId, cgroup: bool) -> io::Result<Nursery> {
        let (told, tell) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Nursery { told, tell, cgroup: if cgroup { Cgroup::create(job) } else { None } })
    }

    /// For [`Split::run`].
    pub(super) fn split(&self) -> Split {
        Split { tell: self.tell.as_raw_fd(), cgroup: self.cgroup.as_ref().map(Cgroup::entrance) }
    }

    /// The job's processes, once the command runs below this keeper.
    pub(super) fn born(self, keeper: Pid) -> Tree {
        let mut leader = [0; PID_BYTES];
        // Told before the command was executed. Without it there is still the walk.
        let leader = match nix::unistd::read(&self.told, &mut leader) {
            Ok(PID_BYTES) => Some(Pid::from_raw(libc::pid_t::from_ne_bytes(leader))),
            _ => None,
        };
        Tree::new(keeper, leader, self.cgroup)
    }
}

impl Split {
    /// Makes the calling process the keeper and returns in a child of it, which is to become the command.
    ///
    /// # Safety
    /// Only between fork and exec: the calling process never returns.
    pub(super) unsafe fn run(self) -> io::Result<()> {
        // SAFETY: system calls on memory of this frame. The process has one thread, as it was just forked, and the C
        // library's locks are free, since its fork sees to that.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            // The runtime's handlers are still there: in the keeper they would act on descriptors that mean nothing.
            libc::sigprocmask(libc::SIG_SETMASK, &all, &mut before);
            // Refused by kernels before 3.4 alone: then orphans are lost.
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
            match libc::fork() {
                -1 => return Err(io::Error::last_os_error()),
                0 => {}
                command => keep(command, self.tell),
            }
            libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
            if let Some(entrance) = self.cgroup {
                // One that is closed to us leaves the walk.
                libc::write(entrance, c"0".as_ptr().cast(), 1);
            }
        }
        Ok(())
    }
}

/// The keeper's life: reaps until the command has ended, then ends in the same way.
///
/// # Safety
/// As [`Split::run`].
unsafe fn keep(command: libc::pid_t, tell: RawFd) -> ! {
    // SAFETY: as in `Split::run`; nothing here allocates or takes a lock.
    unsafe {
        // An agent that was killed leaves the command to init, as it always did.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        libc::prctl(libc::PR_SET_NAME, c"pushy-job".as_ptr(), 0, 0, 0);
        // Out of the agent's group: what a terminal sends there is not for us.
        libc::setsid();
        libc::write(tell, (&raw const command).cast(), PID_BYTES);
        // Those of the command's output among them, and the one on which the parent waits for the exec.
        close_all();
        loop {
            let mut status: c_int = 0;
            let ended = libc::waitpid(-1, &mut status, 0);
            if ended == command {
                leave(status);
            }
            if ended == -1 && *libc::__errno_location() != libc::EINTR {
                libc::_exit(255);
            }
        }
    }
}

/// # Safety
/// As [`Split::run`].
unsafe fn close_all() {
    // SAFETY: nothing in this process uses a descriptor after this.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) == 0 {
            return;
        }
        // A kernel before 5.9.
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let most = c_int::try_from(limit.rlim_cur).unwrap_or(c_int::MAX).min(1 << 20);
        for descriptor in 0..most {
            libc::close(descriptor);
        }
    }
}

/// Ends as the process with this status ended.
///
/// # Safety
/// As [`Split::run`].
unsafe fn leave(status: c_int) -> ! {
    // SAFETY: system calls on memory of this frame.
    unsafe {
        if libc::WIFEXITED(status) {
            libc::_exit(libc::WEXITSTATUS(status));
        }
        let signal = libc::WTERMSIG(status);
        // The command has left its core already.
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::signal(signal, libc::SIG_DFL);
        let mut this: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut this);
        libc::sigaddset(&mut this, signal);
        libc::kill(libc::getpid(), signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &this, std::ptr::null_mut());
        libc::_exit(128 + signal)
    }
}

/// Stops a keeper. Whether it is stopped, or has ended: `false` until then.
pub(super) fn is_held(keeper: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(keeper), flags), Ok(WaitStatus::StillAlive))
}

/// Sends a signal to a keeper, which is our unreaped child: its number is nobody else's.
pub(super) fn signal(keeper: Pid, signal: Signal) {
    let _ = nix::sys::signal::kill(keeper, signal);
}
