//! What the host gives the server: descriptors, and a clock that others agree with.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Report;
use crate::config::Config;

/// The limit of open files that holds for the server: the hard one, to which it raises itself.
pub(super) fn descriptors(report: &mut Report, config: &Config, about: Option<&Value>) {
    let pid = about.and_then(|about| about["pid"].as_u64());
    let limit = match pid {
        Some(pid) => std::fs::read_to_string(format!("/proc/{pid}/limits")).ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        }),
        None => nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .ok()
            .map(|(_, hard)| hard),
    };
    let Some(limit) = limit else {
        return report.warning(
            "open files",
            "cannot tell the limit of open files",
            "run doctor as the server's user or as root",
        );
    };
    // Two connections a node; the rest is for REST, the store and files.
    let needed = 2 * u64::from(config.max_nodes) + 256;
    if limit >= needed {
        report
            .ok("open files", format!("the limit of {limit} suffices for max_nodes = {}", config.max_nodes));
    } else {
        report.problem(
            "open files",
            format!("the limit is {limit}, max_nodes = {} needs {needed}", config.max_nodes),
            "raise it (systemd: LimitNOFILE=; else ulimit -Hn), or lower max_nodes",
        );
    }
}

/// What may say whether the clock is synchronized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Synchronized {
    Yes,
    No,
    Unknown,
}

pub(super) async fn clock(report: &mut Report) {
    match synchronized().await {
        Synchronized::Yes => report.ok("clock", "is synchronized over the network"),
        Synchronized::Unknown => {
            report.ok("clock", "nothing here says whether it is synchronized; nodes and Chef server are compared below");
        }
        Synchronized::No => report.warning(
            "clock",
            "is not synchronized over the network",
            "let a service keep it (chrony, systemd-timesyncd): requests more than 15 minutes off are refused",
        ),
    }
}

async fn synchronized() -> Synchronized {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Synchronized::Yes;
    }
    let mut ask = tokio::process::Command::new("timedatectl");
    ask.args(["show", "--property=NTPSynchronized", "--value"]).kill_on_drop(true);
    ask.stdin(std::process::Stdio::null());
    let answer = tokio::time::timeout(Duration::from_secs(2), ask.output()).await;
    match answer {
        Ok(Ok(output)) if output.status.success() => reads(&output.stdout),
        _ => Synchronized::Unknown,
    }
}

fn reads(text: &[u8]) -> Synchronized {
    match text.trim_ascii() {
        b"yes" => Synchronized::Yes,
        b"no" => Synchronized::No,
        _ => Synchronized::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_timedatectl() {
        assert_eq!(reads(b"yes\n"), Synchronized::Yes);
        assert_eq!(reads(b"no\n"), Synchronized::No);
        assert_eq!(reads(b""), Synchronized::Unknown);
    }

    #[test]
    fn limits_of_open_files() {
        let check = |max_nodes: u32, level: super::super::Level| {
            let mut config = Config::defaults(Path::new("/x"));
            config.max_nodes = max_nodes;
            let mut report = Report::default();
            descriptors(&mut report, &config, None);
            assert_eq!(report.findings[0].level, level, "{:?}", report.findings);
        };
        check(1, super::super::Level::Ok);
        check(u32::MAX, super::super::Level::Problem);
    }
}
