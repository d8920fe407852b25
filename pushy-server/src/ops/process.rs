//! What the system says of this process. Where it says nothing, nothing is shown.

use std::time::{SystemTime, UNIX_EPOCH};

/// Figures of this process.
pub(super) struct Process {
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) max_files: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) started: f64,
}

pub(super) fn look() -> Process {
    let resident = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let files = std::fs::read_dir("/proc/self/fd").ok().map(|list| list.count() as u64);
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok();
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok();
    let cpu = usage.map(|usage| {
        [usage.user_time(), usage.system_time()]
            .iter()
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
            .sum()
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Process {
        resident_bytes: resident.map(|kib| kib * 1024),
        open_files: files,
        max_files: limit.map(|(soft, _)| soft),
        cpu_seconds: cpu,
        // The monotonic clock of this program begins with it.
        started: now - crate::clock::now().mono.0 as f64 / 1000.0,
    }
}
