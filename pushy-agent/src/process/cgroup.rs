//! A cgroup of a job's own, where there is version 2 and the agent may make one: membership is inherited and cannot be
//! left without rights, and one write ends all members at once.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pushy_core::ids::JobId;

/// Names are `pushy-PID-JOB`, with the agent's process id.
const PREFIX: &str = "pushy-";

/// How deep empty groups below a job's are looked for.
const DEPTH: usize = 8;

/// A job's cgroup; removed on drop, unless a process is left in it.
#[derive(Debug)]
pub(super) struct Cgroup {
    dir: PathBuf,
    procs: File,
}

impl Cgroup {
    /// Makes one below the agent's own. `None` where there is no version 2, or it is not ours to divide.
    pub(super) fn create(job: &JobId) -> Option<Cgroup> {
        let read = |path: &str| fs::read_to_string(path).ok();
        let own = read("/proc/self/cgroup")?;
        let base = base(&read("/proc/self/mountinfo")?, &own)?;
        if !is_ours(&base, own_path(&own)?) {
            return None;
        }
        sweep(&base);
        let dir = base.join(format!("{PREFIX}{}-{job}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        match OpenOptions::new().write(true).open(dir.join("cgroup.procs")) {
            // Without cgroup.kill (before 5.14) there is nothing to gain over the walk.
            Ok(procs) if dir.join("cgroup.kill").exists() => Some(Cgroup { dir, procs }),
            _ => {
                remove(&dir, 1);
                None
            }
        }
    }

    /// Where a process writes `0` to enter.
    pub(super) fn entrance(&self) -> RawFd {
        self.procs.as_raw_fd()
    }

    /// The processes in it, those of groups below it not counted.
    pub(super) fn members(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills everything in it and below it.
    pub(super) fn kill(&self) {
        // The walk follows: a failure is made good there.
        let _ = fs::write(self.dir.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.dir, DEPTH);
    }
}

/// Removes a group and those below it, as far as they are empty.
fn remove(dir: &Path, depth: usize) {
    if depth > 0 {
        for below in fs::read_dir(dir).into_iter().flatten().flatten() {
            if below.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&below.path(), depth - 1);
            }
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Removes groups of earlier jobs that have emptied since: a command may leave services behind.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(agent) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()) else {
            continue;
        };
        // Another agent's may be about to be used.
        if agent == std::process::id().to_string() || !Path::new("/proc").join(agent).exists() {
            remove(&entry.path(), DEPTH);
        }
    }
}

/// The agent's own path in version 2's hierarchy.
fn own_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The folder of the agent's own cgroup, out of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn base(mountinfo: &str, cgroup: &str) -> Option<PathBuf> {
    let own = Path::new(own_path(cgroup)?);
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // Outside of this namespace, or escaped for its odd characters: left alone.
        if point.contains('\\') || own.starts_with("/..") {
            return None;
        }
        Some(Path::new(point).join(own.strip_prefix(root).ok()?))
    })
}

/// Below systemd only what it has delegated may be divided; elsewhere whatever the permissions allow.
fn is_ours(base: &Path, own: &str) -> bool {
    own == "/" || !Path::new("/run/systemd/system").exists() || is_delegated(base)
}

/// Whether systemd has marked it so: `Delegate=yes`.
fn is_delegated(base: &Path) -> bool {
    let Ok(path) = CString::new(base.as_os_str().as_bytes()) else { return false };
    [c"trusted.delegate", c"user.delegate"].iter().any(|name| {
        let mut value = [0u8; 4];
        // SAFETY: both names end in NUL, and no more is written than the buffer holds.
        let length =
            unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        length == 1 && value.first() == Some(&b'1')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_below_the_mount() {
        let check = |mountinfo: &str, cgroup: &str, expected: Option<&str>| {
            assert_eq!(base(mountinfo, cgroup).as_deref(), expected.map(Path::new), "{mountinfo} {cgroup}");
        };
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";
        let hybrid = "40 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        check(unified, "0::/system.slice/a.service\n", Some("/sys/fs/cgroup/system.slice/a.service"));
        check(unified, "0::/\n", Some("/sys/fs/cgroup"));
        check(hybrid, "1:cpu:/x\n0::/y\n", Some("/sys/fs/cgroup/unified/y"));
        check("1 2 0:1 /box /cg rw - cgroup2 none rw", "0::/box/inner\n", Some("/cg/inner"));
        check("1 2 0:1 /box /cg rw - cgroup2 none rw", "0::/other\n", None);
        check("1 2 0:1 / /a\\040b rw - cgroup2 none rw", "0::/\n", None);
        check(unified, "0::/../x\n", None);
        check(unified, "1:cpu:/x\n", None);
        check("40 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", "0::/\n", None);
    }
}
