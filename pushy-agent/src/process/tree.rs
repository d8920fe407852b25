//! Every process of a job, found by descent from its keeper and by its cgroup, and how they are ended.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::cgroup::Cgroup;
use super::keeper;

/// The processes of one job.
#[derive(Debug)]
pub(super) struct Tree {
    keeper: Pid,
    /// The command itself, leader of a session and a group.
    leader: Option<Pid>,
    cgroup: Option<Cgroup>,
}

impl Tree {
    pub(super) fn new(keeper: Pid, leader: Option<Pid>, cgroup: Option<Cgroup>) -> Tree {
        Tree { keeper, leader, cgroup }
    }

    /// Our child: it ends when the command ends, and as that.
    pub(super) fn child(&self) -> Pid {
        self.keeper
    }

    /// From here on the command's end, and that of its group's number, wait for [`Tree::release`], and nothing of the
    /// job becomes another's child. In force when [`Tree::is_held`].
    pub(super) fn hold(&self) {
        keeper::signal(self.keeper, Signal::SIGSTOP);
    }

    /// Whether nothing can get lost any more, or all is over already.
    pub(super) fn is_held(&self) -> bool {
        keeper::is_held(self.keeper)
    }

    /// Lets the command's end be seen.
    pub(super) fn release(&self) {
        keeper::signal(self.keeper, Signal::SIGCONT);
    }

    /// Asks everything that runs now to end. What these start afterwards, to clean up, is not asked.
    pub(super) fn terminate(&self) {
        let members = self.living();
        if let Some(leader) = self.leader {
            // ESRCH: nothing is left in it.
            let _ = killpg(leader, Signal::SIGTERM);
        }
        for process in members {
            if Some(process.group) != self.leader.map(Pid::as_raw) {
                process.signal(Signal::SIGTERM);
            }
        }
    }

    /// Whether anything of the job runs.
    pub(super) fn lives(&self) -> bool {
        !self.living().is_empty()
    }

    /// Kills what runs; gives the process ids that were still there.
    pub(super) fn kill(&self) -> Vec<i32> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if let Some(leader) = self.leader {
            let _ = killpg(leader, Signal::SIGKILL);
        }
        let members = self.living();
        for process in &members {
            process.signal(Signal::SIGKILL);
        }
        members.iter().map(|process| process.pid).collect()
    }

    fn living(&self) -> Vec<Process> {
        let all = Process::all();
        let mut members = descendants(&all, self.keeper.as_raw());
        if let Some(cgroup) = &self.cgroup {
            for pid in cgroup.members() {
                if pid != self.keeper.as_raw() && !members.iter().any(|known| known.pid == pid) {
                    // Read now: one that has left since is not taken for a member.
                    members.extend(Process::read(pid).filter(|_| cgroup.members().contains(&pid)));
                }
            }
        }
        members.retain(|process| process.alive);
        members
    }
}

/// One process as `/proc` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    /// In ticks since the system's start: what tells it from a later process with the same number.
    start: u64,
    /// Whether any of its threads can still run.
    alive: bool,
}

impl Process {
    fn read(pid: i32) -> Option<Process> {
        Process::parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads a line of `/proc/PID/stat`. The name in parentheses may hold anything: what counts follows its end.
    fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
        let name_end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let threads: i64 = fields.get(17)?.parse().ok()?;
        Some(Process {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
            // A first thread that has ended looks like a zombie while others run.
            alive: !matches!(*fields.first()?, "Z" | "X") || threads > 1,
        })
    }

    /// All of this system, or of this container.
    fn all() -> Vec<Process> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut all: Vec<Process> =
            entries.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?)).collect();
        let known: HashSet<i32> = all.iter().map(|process| process.pid).collect();
        for process in &mut all {
            // Its parent ended while the others were read: by now it has another one.
            if process.parent != 0 && !known.contains(&process.parent) {
                if let Some(now) = Process::read(process.pid).filter(|now| now.start == process.start) {
                    *process = now;
                }
            }
        }
        all
    }

    /// Sends a signal to this process, and to no later one with its number.
    fn signal(&self, signal: Signal) {
        // SAFETY: opens a descriptor or fails.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let same = || Process::read(self.pid).is_some_and(|now| now.start == self.start);
        match i32::try_from(opened) {
            Ok(opened @ 0..) => {
                // SAFETY: it was just opened and is nobody else's.
                let opened = unsafe { OwnedFd::from_raw_fd(opened) };
                // If the number is still this process's now, it was when the descriptor was opened.
                if same() {
                    // SAFETY: the descriptor is open, and no further information is passed.
                    unsafe {
                        libc::syscall(
                            libc::SYS_pidfd_send_signal,
                            opened.as_raw_fd(),
                            signal as libc::c_int,
                            std::ptr::null::<libc::siginfo_t>(),
                            0,
                        );
                    }
                }
            }
            // Gone, or a kernel before 5.3.
            _ => {
                if same() {
                    let _ = kill(Pid::from_raw(self.pid), signal);
                }
            }
        }
    }
}

/// Everything below `root`, at any depth.
fn descendants(all: &[Process], root: i32) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        // Taken out, so that numbers which changed hands between two readings cannot make a circle.
        for child in children.remove(&parent).unwrap_or_default() {
            found.push(*child);
            open.push(child.pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name() {
        let check = |stat: &[u8], parent: i32, alive: bool| {
            let process = Process::parse(7, stat).expect("readable");
            assert_eq!((process.parent, process.group, process.start), (parent, 6, 99), "{stat:?}");
            assert_eq!(process.alive, alive, "{stat:?}");
        };
        let rest = b" 6 6 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0\n";
        let line = |start: &[u8]| [start, rest.as_slice()].concat();
        check(&line(b"7 (sh) S 5"), 5, true);
        check(&line(b"7 (a) S 1 (\xff) R 4"), 4, true);
        check(&line(b"7 (sh) Z 5"), 5, false);
        let threads = b"7 (x) Z 5 6 6 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 99 0 0\n";
        check(threads, 5, true);
        for unreadable in [&b""[..], b"7 (sh", b"7 (sh) S", b"7 (sh) S x y"] {
            assert_eq!(Process::parse(7, unreadable), None, "{unreadable:?}");
        }
    }

    #[test]
    fn descent_goes_to_any_depth_and_ends() {
        let process = |(pid, parent)| Process { pid, parent, group: 0, start: 0, alive: true };
        let check = |all: &[(i32, i32)], expected: &[i32]| {
            let all: Vec<Process> = all.iter().copied().map(process).collect();
            let mut found: Vec<i32> = descendants(&all, 10).iter().map(|process| process.pid).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{all:?}");
        };
        check(&[(10, 1), (11, 10), (12, 11), (13, 10), (20, 1), (21, 20)], &[11, 12, 13]);
        check(&[(10, 1)], &[]);
        check(&[(11, 12), (12, 11), (13, 10)], &[13]);
        check(&[(10, 12), (12, 10)], &[10, 12]);
    }
}
