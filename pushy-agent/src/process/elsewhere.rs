//! A job's processes where nobody tells who descends from whom: its process group, and nothing else.

use std::io;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pushy_core::ids::JobId;

/// What is made before a job's process: nothing.
pub(super) struct Nursery;

/// The part of it that is used between fork and exec.
#[derive(Clone, Copy)]
pub(super) struct Split;

impl Nursery {
    pub(super) fn new(_job: &JobId, _cgroup: bool) -> io::Result<Nursery> {
        Ok(Nursery)
    }

    pub(super) fn split(&self) -> Split {
        Split
    }

    pub(super) fn born(self, leader: Pid) -> Tree {
        Tree { leader }
    }
}

impl Split {
    /// # Safety
    /// None is needed here.
    pub(super) unsafe fn run(self) -> io::Result<()> {
        Ok(())
    }
}

/// The process group of one job.
#[derive(Debug)]
pub(super) struct Tree {
    leader: Pid,
}

impl Tree {
    /// The command itself. It is left unreaped: until then its number, which is the group's too, cannot be given to
    /// anybody else (decision 51).
    pub(super) fn child(&self) -> Pid {
        self.leader
    }

    pub(super) fn hold(&self) {}

    pub(super) fn is_held(&self) -> bool {
        true
    }

    pub(super) fn release(&self) {}

    pub(super) fn terminate(&self) {
        let _ = killpg(self.leader, Signal::SIGTERM);
    }

    /// Nobody tells: the whole grace is waited for.
    pub(super) fn lives(&self) -> bool {
        true
    }

    pub(super) fn kill(&self) -> Vec<i32> {
        let _ = killpg(self.leader, Signal::SIGKILL);
        Vec::new()
    }
}
